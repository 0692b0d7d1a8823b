//! Files and folders through the same rewriter as the proxy: same rules, same keys, same bytes.
//!
//! Input is read in chunks and never held beyond the largest resource; the lines of an NDJSON file are rewritten on all cores, and
//! come out in their order. An output appears under its final name only when it is complete and durable; a document that is refused
//! leaves nothing behind, an NDJSON line that is refused is left out and named. What is revealed is recorded before it is written.

mod ledger;
mod lines;
mod ordered;
mod output;

pub use ledger::{Ledger, LedgerError};
pub use ordered::{cores, ordered};
pub use output::Output;

use crate::encoding::{Coding, Fault};
use crate::policy::Permit;
use crate::rewrite::{Code, Engine, Format, Refusal, Report, Rewriter};
use crate::secret::SecretKey;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes read at a time. Large enough that system calls cost nothing beside the rewriting, small enough to stay in cache.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Output gathered before it is recorded and written. One audit line, and one `fdatasync`, for each.
const BATCH_BYTES: usize = 1024 * 1024;

/// What is done, bound to rules and keys.
pub struct Job {
    /// Rules and keys.
    pub engine: Arc<Engine>,
    /// Which way.
    pub direction: Direction,
    /// Stop at the first refusal.
    pub fail_fast: bool,
    /// Threads for the lines of one input.
    pub workers: usize,
}

/// Which way values go.
pub enum Direction {
    /// To the untrusted side. The key is that of hashes that hold in this run only (`scope: document`): random, and forgotten with the run.
    Pseudonymize(SecretKey),
    /// To the trusted side, for whom this permit was minted.
    Reidentify(Arc<Permit>),
    /// From old epochs to the active one; nothing is revealed.
    Rewrap,
}

/// What became of one input.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Documents (or NDJSON lines) written.
    pub done: u64,
    /// Documents or lines refused.
    pub refused: u64,
    /// The output is whole: it may appear under its name.
    pub complete: bool,
    /// Counts of everything done.
    pub report: Report,
}

/// Hears of each refusal, in order: the line (0 for a document) and why.
pub type Refused<'r> = &'r mut (dyn FnMut(u64, &Refusal) + Send);

/// Why an input could not be read to its end or an output not written. Carries no content.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Reading failed.
    #[error("cannot read: {0}; help: check that the file is there, whole and readable")]
    Read(io::Error),
    /// Writing failed.
    #[error("cannot write: {0}; help: check space and permissions of the output")]
    Write(io::Error),
    /// The audit record could not be made durable.
    #[error(
        "the audit record cannot be written: {0}; help: nothing of this batch was revealed; mend the audit file first"
    )]
    Audit(LedgerError),
}

/// The format and coding that a file's name says. `None`: a suffix that is not known.
pub fn kind(path: &Path) -> Option<(Format, Coding)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (coding, name) = Coding::of(&name);
    match name.rsplit_once('.')?.1 {
        "json" => Some((Format::Json, coding)),
        "ndjson" | "jsonl" => Some((Format::Ndjson, coding)),
        _ => None,
    }
}

/// Input files below a folder, sorted, with their paths relative to it. Links are not followed: one could lead out of the folder.
pub fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The refusal of an input whose coding is at fault; other errors of reading are the disk's.
fn unread(error: io::Error) -> Result<Refusal, BatchError> {
    let code = match Fault::of(&error) {
        Some(Fault::Damaged) => Code::BadEncoding,
        Some(Fault::Expands) => Code::ExpandsTooFar,
        None => return Err(BatchError::Read(error)),
    };
    Ok(Refusal { code, path: String::new(), byte: 0 })
}

impl Job {
    fn rewriter(&self) -> Rewriter {
        let engine = Arc::clone(&self.engine);
        match &self.direction {
            Direction::Pseudonymize(document) => Rewriter::pseudonymize(engine, Format::Json).within(document),
            Direction::Reidentify(permit) => Rewriter::reidentify(engine, Format::Json, Some(Arc::clone(permit))),
            // An engine made to rewrap reveals nothing; without a permit no engine does.
            Direction::Rewrap => Rewriter::reidentify(engine, Format::Json, None),
        }
    }

    /// Rewrites one input into one output.
    pub fn run(
        &self,
        input: &mut dyn BufRead,
        format: Format,
        output: &mut Output,
        ledger: Option<&Mutex<Ledger>>,
        refused: Refused<'_>,
    ) -> Result<Outcome, BatchError> {
        let mut release = Release {
            job: self,
            output,
            ledger,
            written: Vec::new(),
            report: Report::default(),
            outcome: Outcome::default(),
        };
        let complete = match format {
            Format::Json => self.document(input, &mut release, refused)?,
            Format::Ndjson => self.lines(input, &mut release, refused)?,
        };
        release.flush()?;
        Ok(Outcome { complete, ..release.outcome })
    }

    fn document(
        &self,
        input: &mut dyn BufRead,
        release: &mut Release<'_>,
        refused: Refused<'_>,
    ) -> Result<bool, BatchError> {
        let mut rewriter = self.rewriter();
        let refusal = loop {
            let chunk = match input.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break unread(error)?,
            };
            let length = chunk.len();
            let step = if length == 0 {
                rewriter.finish(&mut release.written)
            } else {
                rewriter.write(chunk, &mut release.written)
            };
            input.consume(length);
            release.report.add(rewriter.take_report());
            match step {
                Err(refusal) => break refusal,
                Ok(()) if length == 0 => {
                    release.outcome.done = 1;
                    return Ok(true);
                }
                Ok(()) => release.flush_when_full()?,
            }
        };
        refused(0, &refusal);
        release.outcome.refused = 1;
        // What was decided but not yet released stays back: half a document is of no use to anybody.
        release.written.clear();
        release.report.reveals.clear();
        Ok(false)
    }
}

/// Output on its way: gathered, recorded, written. In this order: what cannot be recorded is not revealed.
struct Release<'r> {
    job: &'r Job,
    output: &'r mut Output,
    ledger: Option<&'r Mutex<Ledger>>,
    written: Vec<u8>,
    report: Report,
    outcome: Outcome,
}

impl Release<'_> {
    fn flush_when_full(&mut self) -> Result<(), BatchError> {
        if self.written.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BatchError> {
        let report = std::mem::take(&mut self.report);
        if let (Some(ledger), Direction::Reidentify(permit), true) =
            (self.ledger, &self.job.direction, report.reveals_anything())
        {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.record(permit, &report).map_err(BatchError::Audit)?;
        }
        self.output.write(&self.written).map_err(BatchError::Write)?;
        self.written.clear();
        // One large line must not set the memory of all that follows.
        self.written.shrink_to(2 * BATCH_BYTES);
        self.outcome.report.add(Report { subjects: Default::default(), ..report });
        Ok(())
    }
}
