//! `cryptonym pseudonymize` and `cryptonym reidentify`: files, folders and standard input.

use super::{CONFIG, DONE, REFUSED, complain, keys, packs};
use crate::batch::{self, BatchError, Job, Ledger, Outcome, Output};
use crate::names::{Caller, Domain, EpochId, Purpose};
use crate::policy::danger;
use crate::rewrite::{Base, Engine, Format, Options, Overflow};
use clap::{Args, ValueEnum};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What both directions need.
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
    /// What happens to ids that do not fit a token
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
    output: Option<PathBuf>,
    /// Write into a folder that is not empty
    #[arg(long)]
    force: bool,
    /// Keep file names that may be names of people
    #[arg(long)]
    keep_names: bool,
    /// Stop at the first refusal
    #[arg(long)]
    fail_fast: bool,
    /// Inputs: .json .ndjson .jsonl, each also .gz; standard input where none is named
    #[arg(value_name = "IN")]
    inputs: Vec<PathBuf>,
}

/// Arguments of `pseudonymize`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cryptonym pseudonymize --rules fhir-r4-pseudonymized --keys keys.yaml -o out/ bulk-export/"
)]
pub struct Pseudonymize {
    #[command(flatten)]
    common: Common,
}

/// Arguments of `reidentify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  cryptonym reidentify --rules fhir-r4-reversible --keys keys.yaml --purpose TREAT --caller ward --audit audit.jsonl -o back.json out.json"
)]
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OverflowArg {
    Refuse,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Json,
    Ndjson,
}

/// Runs `pseudonymize`.
pub fn pseudonymize(args: &Pseudonymize) -> ExitCode {
    let engine = match engine(&args.common) {
        Ok(engine) => engine,
        Err(mistakes) => return misconfigured(&mistakes),
    };
    let job = Job { engine, permit: None, fail_fast: args.common.fail_fast };
    convert(&args.common, &job, None, false)
}

/// Runs `reidentify`.
pub fn reidentify(args: &Reidentify) -> ExitCode {
    let engine = engine(&args.common);
    let caller = Caller::new(&args.caller).map_err(|e| vec![format!("--caller: {e}")]);
    let purpose = Purpose::new(&args.purpose).map_err(|e| vec![format!("--purpose: {e}")]);
    let ledger =
        args.audit.as_deref().map(|path| Ledger::open(path).map_err(|e| vec![format!("--audit: {e}")])).transpose();
    let (engine, caller, purpose, ledger) = match (engine, caller, purpose, ledger) {
        (Ok(engine), Ok(caller), Ok(purpose), Ok(ledger)) => (engine, caller, purpose, ledger),
        (engine, caller, purpose, ledger) => {
            let all = [engine.err(), caller.err(), purpose.err(), ledger.err()];
            return misconfigured(&all.into_iter().flatten().flatten().collect::<Vec<_>>());
        }
    };
    if ledger.is_none() {
        complain(format_args!("cryptonym: warning: without --audit this reveal is not recorded"));
    }
    // Who holds the key file can read every token; the names are for the record.
    let permit = Arc::new(danger::key_holder(caller, Some(purpose)));
    let job = Job { engine, permit: Some(permit), fail_fast: args.common.fail_fast };
    convert(&args.common, &job, ledger, args.strict)
}

fn misconfigured(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        complain(format_args!("{mistake}"));
    }
    ExitCode::from(CONFIG)
}

fn engine(common: &Common) -> Result<Arc<Engine>, Vec<String>> {
    let rules = packs::load(&common.rules);
    let keyring = keys::load(&common.keys, common.allow_readable_keys);
    let domain = Domain::new(&common.domain).map_err(|e| vec![format!("--domain: {e}")]);
    let id_epoch = common.id_epoch.map(EpochId::new).transpose().map_err(|e| vec![format!("--id-epoch: {e}")]);
    match (rules, keyring, domain, id_epoch) {
        (Ok(rules), Ok(keyring), Ok(domain), Ok(id_epoch)) => {
            let OverflowArg::Refuse = common.overflow;
            let bases = common.base.iter().map(|b| Base { trusted: b.clone(), untrusted: b.clone() }).collect();
            let options = Options { id_epoch, overflow: Overflow::Refuse, bases, refuse_updates: false };
            Engine::new(rules, &keyring, &domain, options)
                .map(Arc::new)
                .map_err(|e| vec![format!("{}: {e}", common.keys)])
        }
        (rules, keyring, domain, id_epoch) => {
            let all = [rules.err(), keyring.err(), domain.err(), id_epoch.err()];
            Err(all.into_iter().flatten().flatten().collect())
        }
    }
}

/// One input and where its output goes.
struct Task {
    input: PathBuf,
    output: Option<PathBuf>,
}

/// Totals of a run.
#[derive(Default)]
struct Totals {
    done: u64,
    refused: u64,
    stayed: u64,
    unsealed: u64,
    failed: bool,
}

fn convert(common: &Common, job: &Job, mut ledger: Option<Ledger>, strict: bool) -> ExitCode {
    let format = common.format.map(|f| match f {
        FormatArg::Json => Format::Json,
        FormatArg::Ndjson => Format::Ndjson,
    });
    let mut totals = Totals::default();
    if common.inputs.is_empty() {
        let output = match &common.output {
            None => Ok(Output::stdout()),
            Some(path) => Output::file(path),
        };
        let mut input = BufReader::new(std::io::stdin().lock());
        one("-", &mut input, format.unwrap_or(Format::Json), output, job, ledger.as_mut(), &mut totals);
        return end(&totals, strict);
    }
    let tasks = match plan(common, job, &mut totals) {
        Ok(tasks) => tasks,
        Err(message) => {
            complain(format_args!("cryptonym: {message}"));
            return ExitCode::from(2);
        }
    };
    for task in tasks {
        let name = task.input.display().to_string();
        let Some((suffix, packed)) = batch::kind(&task.input).or(format.map(|f| (f, false))) else {
            complain(format_args!(
                "{name}: skipped: unknown suffix; help: name it .json, .ndjson or .jsonl, or use --format"
            ));
            totals.refused += 1;
            continue;
        };
        let mut input = match batch::open(&task.input, packed) {
            Ok(input) => input,
            Err(error) => {
                complain(format_args!("{name}: {error}"));
                totals.failed = true;
                continue;
            }
        };
        let output = match &task.output {
            None => Ok(Output::stdout()),
            Some(path) => path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| Output::file(path)),
        };
        one(&name, &mut *input, format.unwrap_or(suffix), output, job, ledger.as_mut(), &mut totals);
        if common.fail_fast && (totals.refused > 0 || totals.failed) {
            break;
        }
    }
    end(&totals, strict)
}

fn one(
    name: &str,
    input: &mut dyn std::io::BufRead,
    format: Format,
    output: std::io::Result<Output>,
    job: &Job,
    ledger: Option<&mut Ledger>,
    totals: &mut Totals,
) {
    let result = output.map_err(BatchError::Write).and_then(|mut output| {
        let outcome = job.run(input, format, &mut output, ledger)?;
        // A refused document leaves no file; refused lines are left out of theirs.
        if format == Format::Ndjson || outcome.refused.is_empty() {
            output.commit().map_err(BatchError::Write)?;
        }
        Ok(outcome)
    });
    match result {
        Ok(Outcome { done, refused, report }) => {
            for (line, refusal) in &refused {
                match line {
                    0 => complain(format_args!("{name}: {refusal}")),
                    line => complain(format_args!("{name}:{line}: {refusal}")),
                }
            }
            totals.done += done;
            totals.refused += refused.len() as u64;
            totals.stayed += report.stayed;
            totals.unsealed += report.unsealed;
        }
        Err(error) => {
            complain(format_args!("{name}: {error}"));
            totals.failed = true;
        }
    }
}

fn end(totals: &Totals, strict: bool) -> ExitCode {
    if totals.unsealed > 0 {
        complain(format_args!("{} resources keep shifted dates: they bear no valid seal", totals.unsealed));
    }
    if totals.stayed > 0 {
        complain(format_args!("{} tokens stayed: unknown, of another domain, or of a destroyed epoch", totals.stayed));
    }
    complain(format_args!("{} done, {} refused", totals.done, totals.refused));
    let failed = totals.failed || totals.refused > 0 || strict && totals.stayed > 0;
    ExitCode::from(if failed { REFUSED } else { DONE })
}

/// Which input goes where. Links are refused and counted; names that may be names of people are replaced.
fn plan(common: &Common, job: &Job, totals: &mut Totals) -> Result<Vec<Task>, String> {
    let single = common.inputs.len() == 1 && !common.inputs[0].is_dir();
    if single {
        let input = common.inputs[0].clone();
        if let Some(output) = &common.output
            && same_file(&input, output)
        {
            return Err("the output is the input; help: name another output".to_owned());
        }
        return Ok(vec![Task { input, output: common.output.clone() }]);
    }
    let Some(folder) = &common.output else {
        return Err("several inputs need -o FOLDER".to_owned());
    };
    let occupied = folder.is_dir() && std::fs::read_dir(folder).is_ok_and(|mut d| d.next().is_some());
    if folder.exists() && !folder.is_dir() || occupied && !common.force {
        return Err(format!("{} is not an empty folder; help: name a new one, or use --force", folder.display()));
    }
    let mut tasks = Vec::new();
    let mut outputs = std::collections::BTreeSet::new();
    for input in &common.inputs {
        let (root, found) = if input.is_dir() {
            (input.as_path(), batch::files_below(input).map_err(|e| format!("{}: {e}", input.display()))?)
        } else {
            (input.parent().unwrap_or(Path::new("")), vec![input.clone()])
        };
        for file in found {
            if file.is_symlink() {
                complain(format_args!("{}: skipped: a symbolic link", file.display()));
                totals.refused += 1;
                continue;
            }
            let relative = file.strip_prefix(root).unwrap_or(&file);
            let output = folder.join(if common.keep_names { relative.to_owned() } else { nameless(relative, job) });
            if same_file(&file, &output) {
                return Err("an output is its input; help: name another folder".to_owned());
            }
            if !outputs.insert(output.clone()) {
                return Err(
                    "two inputs have the same output name; help: name their folder, or convert them apart".to_owned()
                );
            }
            tasks.push(Task { input: file, output: Some(output) });
        }
    }
    Ok(tasks)
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Bulk-style names stay (`Patient.000.ndjson`); any other part of a path may be somebody's name or number and becomes a keyed handle.
fn nameless(relative: &Path, job: &Job) -> PathBuf {
    const FORMATS: [&str; 4] = ["json", "ndjson", "jsonl", "gz"];
    let count = relative.components().count();
    let hidden = |text: &str| format!("doc-{}", job.engine.handle(text));
    relative
        .components()
        .enumerate()
        .map(|(n, part)| {
            let text = part.as_os_str().to_string_lossy();
            if n + 1 < count {
                return hidden(&text);
            }
            let words: Vec<&str> = text.split('.').collect();
            let formats = words.iter().rev().take_while(|w| FORMATS.contains(w)).count();
            let (stem, formats) = words.split_at(words.len() - formats);
            // A running number of a bulk export has at most four digits; longer ones may be a record number or a birth date.
            let bulk = match stem {
                [kind] => job.engine.rules().schema().resource(kind).is_some(),
                [kind, number] => {
                    job.engine.rules().schema().resource(kind).is_some()
                        && number.len() <= 4
                        && number.bytes().all(|b| b.is_ascii_digit())
                }
                _ => false,
            };
            if bulk { text.into_owned() } else { format!("{}.{}", hidden(&text), formats.join(".")) }
        })
        .collect()
}
