//! `cryptonym pseudonymize`, `reidentify` and `rewrap`: what each needs before a file is touched.

use super::files::convert;
use super::say::{self, LogFormat};
use super::{CONFIG, complain, keys, packs};
use crate::batch::{self, Direction, Job, Ledger};
use crate::names::{Caller, Domain, EpochId, Purpose};
use crate::policy::danger;
use crate::rewrite::{Base, Engine, Format, Options, Overflow};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// What all directions need.
#[derive(Debug, Args)]
pub struct Common {
    /// Rule file, or name of an embedded pack
    #[arg(long, value_name = "RULES")]
    rules: String,
    /// Key file, or env:NAME
    #[arg(long, value_name = "KEYS")]
    keys: String,
    /// Accept a key file that others than its owner may read (Kubernetes mounts)
    #[arg(long)]
    allow_readable_keys: bool,
    /// Pseudonymisation domain: pseudonyms of different domains cannot be linked
    #[arg(long, default_value = "default")]
    domain: String,
    /// Epoch under which ids are made
    #[arg(long, value_name = "N")]
    id_epoch: Option<u8>,
    /// What happens to ids that do not fit a token: a hash cannot be turned back
    #[arg(long, value_enum, default_value = "refuse")]
    overflow: OverflowArg,
    /// Absolute URLs below this FHIR base are ours
    #[arg(long, value_name = "URL")]
    base: Vec<String>,
    /// Format of standard input, and of inputs whatever their suffix
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Output file; a folder where there are several inputs or folders
    #[arg(short, long, value_name = "OUT")]
    pub(super) output: Option<PathBuf>,
    /// Write into a folder that is not empty
    #[arg(long)]
    pub(super) force: bool,
    /// Keep file names that may be names of people
    #[arg(long)]
    pub(super) keep_names: bool,
    /// Stop at the first refusal
    #[arg(long)]
    fail_fast: bool,
    /// How refusals are written to standard error
    #[arg(long, value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Threads; all cores unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Inputs: .json .ndjson .jsonl, each also .gz or .zst; standard input where none is named
    #[arg(value_name = "IN")]
    pub(super) inputs: Vec<PathBuf>,
}

/// Arguments of `pseudonymize`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cryptonym pseudonymize --rules fhir-r4-pseudonymized --keys keys.yaml -o out.json patient.json
  cryptonym pseudonymize --rules fhir-r4-pseudonymized --keys keys.yaml -o out/ bulk-export/
  zcat Observation.ndjson.gz | cryptonym pseudonymize --rules rules.yaml --keys env:KEYRING --format ndjson > out.ndjson")]
pub struct Pseudonymize {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `reidentify`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cryptonym reidentify --rules fhir-r4-reversible --keys keys.yaml --purpose TREAT --caller ward --audit audit.jsonl -o back.json out.json")]
pub struct Reidentify {
    #[command(flatten)]
    common: Common,
    /// Why: a code of HL7 v3 PurposeOfUse, for the record
    #[arg(long, value_name = "CODE")]
    purpose: String,
    /// Who, for the record
    #[arg(long, value_name = "NAME")]
    caller: String,
    /// Audit file: one durable line per revealed batch
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// Exit 1 where tokens stay
    #[arg(long)]
    strict: bool,
}

/// Arguments of `rewrap`.
#[derive(Debug, Args)]
#[command(
    after_help = "Ids, urn:uuid pseudonyms and offsets of dates are pinned to the id epoch and stay; so does every other byte.

Example:
  cryptonym rewrap --rules fhir-r4-reversible --keys keys.yaml -o new/ old/"
)]
pub struct Rewrap {
    #[command(flatten)]
    common: Common,
    /// Exit 1 where tokens stay that no live epoch made
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OverflowArg {
    /// The record is refused
    Refuse,
    /// A keyed hash takes its place, one way
    Hash,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Json,
    Ndjson,
}

impl Common {
    /// The format that `--format` states.
    pub(super) fn format(&self) -> Option<Format> {
        self.format.map(|format| match format {
            FormatArg::Json => Format::Json,
            FormatArg::Ndjson => Format::Ndjson,
        })
    }

    /// Whether the first refusal ends the run.
    pub(super) fn fail_fast(&self) -> bool {
        self.fail_fast
    }

    fn job(&self, engine: Engine, direction: Direction) -> Job {
        let workers = self.threads.map_or_else(batch::cores, usize::from);
        Job { engine: Arc::new(engine), direction, fail_fast: self.fail_fast, workers }
    }

    /// Rules and keys, or everything that is wrong with them.
    fn engine(&self, rewraps: bool) -> Result<Engine, Vec<String>> {
        let rules = packs::load(&self.rules);
        let keyring = keys::load(&self.keys, self.allow_readable_keys);
        let domain = Domain::new(&self.domain).map_err(|e| vec![format!("--domain: {e}")]);
        let id_epoch = self.id_epoch.map(EpochId::new).transpose().map_err(|e| vec![format!("--id-epoch: {e}")]);
        match (rules, keyring, domain, id_epoch) {
            (Ok(rules), Ok(keyring), Ok(domain), Ok(id_epoch)) => {
                let overflow = match self.overflow {
                    OverflowArg::Refuse => Overflow::Refuse,
                    OverflowArg::Hash => Overflow::Hash,
                };
                let bases = self.base.iter().map(|b| Base { trusted: b.clone(), untrusted: b.clone() }).collect();
                let options = Options { id_epoch, overflow, bases, rewraps, ..Options::default() };
                Engine::new(rules, &keyring, &domain, options).map_err(|e| vec![format!("{}: {e}", self.keys)])
            }
            (rules, keyring, domain, id_epoch) => {
                let all = [rules.err(), keyring.err(), domain.err(), id_epoch.err()];
                Err(all.into_iter().flatten().flatten().collect())
            }
        }
    }
}

/// Runs `pseudonymize`.
pub fn pseudonymize(args: &Pseudonymize) -> ExitCode {
    let document = keys::random().map_err(|error| vec![error.to_string()]);
    match (args.common.engine(false), document) {
        (Ok(engine), Ok(document)) => {
            convert(&args.common, &args.common.job(engine, Direction::Pseudonymize(document)), None, false)
        }
        (engine, document) => {
            let all = [engine.err(), document.err()];
            say::mistakes(&all.into_iter().flatten().flatten().collect::<Vec<_>>(), CONFIG)
        }
    }
}

/// Runs `rewrap`.
pub fn rewrap(args: &Rewrap) -> ExitCode {
    match args.common.engine(true) {
        Ok(engine) => convert(&args.common, &args.common.job(engine, Direction::Rewrap), None, args.strict),
        Err(mistakes) => say::mistakes(&mistakes, CONFIG),
    }
}

/// Runs `reidentify`.
pub fn reidentify(args: &Reidentify) -> ExitCode {
    let engine = args.common.engine(false);
    let caller = Caller::new(&args.caller).map_err(|e| vec![format!("--caller: {e}")]);
    let purpose = Purpose::new(&args.purpose).map_err(|e| vec![format!("--purpose: {e}")]);
    let ledger =
        args.audit.as_deref().map(|path| Ledger::open(path).map_err(|e| vec![format!("--audit: {e}")])).transpose();
    let (engine, caller, purpose, ledger) = match (engine, caller, purpose, ledger) {
        (Ok(engine), Ok(caller), Ok(purpose), Ok(ledger)) => (engine, caller, purpose, ledger),
        (engine, caller, purpose, ledger) => {
            let all = [engine.err(), caller.err(), purpose.err(), ledger.err()];
            return say::mistakes(&all.into_iter().flatten().flatten().collect::<Vec<_>>(), CONFIG);
        }
    };
    if ledger.is_none() {
        complain(format_args!("cryptonym: warning: without --audit this reveal is not recorded"));
    }
    // Who holds the key file can read every token; the names are for the record.
    let permit = Arc::new(danger::key_holder(caller, Some(purpose)));
    convert(&args.common, &args.common.job(engine, Direction::Reidentify(permit)), ledger, args.strict)
}
