//! `cryptonym audit`: whether an audit file is the one that was written, and who saw whom.
//!
//! Lines hold names from configuration and keyed handles, so they may be printed. Whom a handle names only a keyring can say.

use super::{CONFIG, DONE, REFUSED, complain, keys, say, tell};
use crate::audit::{Break, Chain, verify};
use crate::names::{Domain, EpochId};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Bytes of lines that are checked at a time.
const PART_BYTES: usize = 4 * 1024 * 1024;
/// Longest line of an audit file, in bytes: a batch of a megabyte names some ten thousand subjects at most.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Commands of `audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Check the hash chain of a file, and where it stands against a checkpoint
    #[command(
        after_help = "The chain shows what was changed, removed or reordered, not whether the newest lines are missing. Keep `lines` and `head`
from an earlier run where nobody can change them, and give them here.

Examples:
  cryptonym audit verify audit.jsonl
  cryptonym audit verify --lines 1200 --head 5f1c... audit.jsonl"
    )]
    Verify(Verify),
    /// Print the records of a caller, a subject, a time
    #[command(after_help = "Examples:
  cryptonym audit find --caller ward --since 2026-11-01 audit.jsonl
  cryptonym audit find --patient 4711 --keys keys.yaml --domain cloud audit.jsonl")]
    Find(Find),
}

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// Audit file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The file must have had so many lines, and then this head: a checkpoint
    #[arg(long, value_name = "N", requires = "head")]
    lines: Option<u64>,
    /// Hash of the checkpoint's last line
    #[arg(long, value_name = "HASH", requires = "lines")]
    head: Option<String>,
}

/// Arguments of `audit find`.
#[derive(Debug, Args)]
pub struct Find {
    /// Audit file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Records of this caller
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Records about the subject of this handle
    #[arg(long, value_name = "HANDLE", conflicts_with = "patient")]
    subject: Option<String>,
    /// Records about the patient of this id, as the trusted side knows it; needs --keys
    #[arg(long, value_name = "ID", requires = "keys")]
    patient: Option<String>,
    /// Key file, or env:NAME: to know the handle of a patient
    #[arg(long, value_name = "KEYS")]
    keys: Option<String>,
    /// Accept a key file that others than its owner may read (Kubernetes mounts)
    #[arg(long)]
    allow_readable_keys: bool,
    /// Domain in which the records were made
    #[arg(long, default_value = "default")]
    domain: String,
    /// Epoch under which ids are made in that domain
    #[arg(long, value_name = "N")]
    id_epoch: Option<u8>,
    /// Not before this time: RFC 3339, or a beginning of it (2026-11-23)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Runs a command of `audit`.
pub fn run(command: &Audit) -> ExitCode {
    match command {
        Audit::Verify(args) => check(args),
        Audit::Find(args) => find(args),
    }
}

fn check(args: &Verify) -> ExitCode {
    let name = args.file.display();
    match chain(&args.file, args.lines) {
        Ok((end, at)) => {
            if let (Some(lines), Some(head)) = (args.lines, &args.head) {
                match at {
                    Some(at) if at.eq_ignore_ascii_case(head) => {}
                    Some(_) => {
                        return broken(&format!("{name}: line {lines} is not the checkpoint's: the file was replaced"));
                    }
                    None => {
                        return broken(&format!("{name}: the newest lines are missing: {} of {lines}", end.lines()));
                    }
                }
            }
            tell(format_args!("{name}: whole: lines {} head {}", end.lines(), end.head()));
            ExitCode::from(DONE)
        }
        Err(Unchecked::Broken(broken_at)) => broken(&format!("{name}: {broken_at}")),
        Err(Unchecked::Unread(error)) => broken(&format!("{name}: cannot read: {error}")),
    }
}

fn broken(what: &str) -> ExitCode {
    complain(format_args!("{what}"));
    ExitCode::from(REFUSED)
}

enum Unchecked {
    Broken(Break),
    Unread(io::Error),
}

impl From<io::Error> for Unchecked {
    fn from(error: io::Error) -> Self {
        Unchecked::Unread(error)
    }
}

/// Where the chain of a file stands at its end, and its head after `at` lines. Held in parts, so that a file may be of any size.
fn chain(path: &Path, at: Option<u64>) -> Result<(Chain, Option<String>), Unchecked> {
    let mut input = BufReader::new(File::open(path)?);
    let mut chain = Chain::start();
    let mut head = (at == Some(0)).then(|| chain.head().to_owned());
    loop {
        let (mut part, mut size) = (Vec::new(), 0);
        while size < PART_BYTES && at.is_none_or(|at| chain.lines() + (part.len() as u64) != at || part.is_empty()) {
            let Some(line) = next_line(&mut input)? else { break };
            size += line.len();
            part.push(line);
        }
        if part.is_empty() {
            return Ok((chain, head));
        }
        let before = chain.lines();
        let lines = part.iter().map(Vec::as_slice);
        chain =
            verify(chain, lines).map_err(|broken| Unchecked::Broken(Break { line: broken.line + before, ..broken }))?;
        if at == Some(chain.lines()) {
            head = Some(chain.head().to_owned());
        }
    }
}

/// The next line with its end; `None` at the end of the file.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if read as u64 == LINE_BYTES_MAX {
        return Err(io::Error::other("a line is too long to be ours"));
    }
    Ok((read > 0).then_some(line))
}

fn find(args: &Find) -> ExitCode {
    let subject = match subject(args) {
        Ok(subject) => subject,
        Err(mistakes) => return say::mistakes(&mistakes, CONFIG),
    };
    let name = args.file.display();
    let mut input = match File::open(&args.file) {
        Ok(file) => BufReader::new(file),
        Err(error) => return broken(&format!("{name}: cannot read: {error}")),
    };
    let (mut found, mut number) = (0u64, 0u64);
    loop {
        let line = match next_line(&mut input) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return broken(&format!("{name}: cannot read: {error}")),
        };
        number += 1;
        let Ok(record) = serde_json::from_slice::<serde_json::Value>(&line) else {
            return broken(&format!("{name}: line {number} is no record; help: `cryptonym audit verify`"));
        };
        let text = |member: &str| record[member].as_str().unwrap_or_default();
        let about = |handle: &String| {
            record["subjects"].as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some(handle)))
        };
        let wanted = args.caller.as_ref().is_none_or(|caller| text("caller") == caller)
            && subject.as_ref().is_none_or(about)
            // Times of one program in UTC: their order is that of their letters, and a beginning comes before what goes on.
            && args.since.as_ref().is_none_or(|since| text("time") >= since.as_str())
            && args.until.as_ref().is_none_or(|until| text("time") < until.as_str());
        if wanted {
            found += 1;
            tell(format_args!("{}", String::from_utf8_lossy(&line).trim_end()));
        }
    }
    complain(format_args!("{found} of {number} records"));
    ExitCode::from(DONE)
}

/// The handle that is asked for, if one is.
fn subject(args: &Find) -> Result<Option<String>, Vec<String>> {
    let (Some(patient), Some(path)) = (&args.patient, &args.keys) else { return Ok(args.subject.clone()) };
    let keyring = keys::load(path, args.allow_readable_keys)?;
    let domain = Domain::new(&args.domain).map_err(|e| vec![format!("--domain: {e}")])?;
    let id_epoch = args.id_epoch.map(EpochId::new).transpose().map_err(|e| vec![format!("--id-epoch: {e}")])?;
    let keys = keyring.domain(&domain, id_epoch).map_err(|e| vec![format!("{path}: {e}")])?;
    Ok(Some(keys.handle(patient)))
}
