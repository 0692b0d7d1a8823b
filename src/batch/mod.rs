//! Files and folders through the same rewriter as the proxy: same rules, same keys, same bytes.
//!
//! Input is read in chunks and never held beyond the largest resource. An output appears under its final name only when it is
//! complete and durable; a document that is refused leaves nothing behind, an NDJSON line that is refused is left out and
//! named. What is revealed is recorded before it is written.

mod ledger;
mod output;

pub use ledger::{Ledger, LedgerError};
pub use output::Output;

use crate::limits;
use crate::policy::Permit;
use crate::rewrite::{Code, Engine, Format, Refusal, Report, Rewriter};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at a time. Large enough that system calls cost nothing beside the rewriting, small enough to stay in cache.
const CHUNK_BYTES: usize = 64 * 1024;
/// Output gathered before it is recorded and written. One audit line, and one `fdatasync`, for each.
const BATCH_BYTES: usize = 1024 * 1024;

/// What is done, bound to rules and keys.
pub struct Job {
    /// Rules and keys.
    pub engine: Arc<Engine>,
    /// `None`: pseudonymize. `Some`: re-identify.
    pub permit: Option<Arc<Permit>>,
    /// Stop at the first refusal.
    pub fail_fast: bool,
}

/// What became of one input.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Documents (or NDJSON lines) written.
    pub done: u64,
    /// What was refused: line (0 for a document) and why.
    pub refused: Vec<(u64, Refusal)>,
    /// Counts of everything done.
    pub report: Report,
}

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
    #[error("the audit record cannot be written: {0}; help: nothing of this batch was revealed; mend the audit file first")]
    Audit(LedgerError),
}

/// The format and compression that a file's name says. `None`: a suffix that is not known.
pub fn kind(path: &Path) -> Option<(Format, bool)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, packed) = match name.strip_suffix(".gz") {
        Some(inner) => (inner.to_owned(), true),
        None => (name, false),
    };
    match name.rsplit_once('.')?.1 {
        "json" => Some((Format::Json, packed)),
        "ndjson" | "jsonl" => Some((Format::Ndjson, packed)),
        _ => None,
    }
}

/// Opens an input file, unpacking it where its name says so.
pub fn open(path: &Path, packed: bool) -> Result<Box<dyn BufRead>, BatchError> {
    let file = BufReader::with_capacity(CHUNK_BYTES, File::open(path).map_err(BatchError::Read)?);
    Ok(if packed { Box::new(BufReader::with_capacity(CHUNK_BYTES, MultiGzDecoder::new(file))) } else { Box::new(file) })
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

impl Job {
    fn rewriter(&self, format: Format) -> Rewriter {
        match &self.permit {
            None => Rewriter::pseudonymize(Arc::clone(&self.engine), format),
            Some(permit) => Rewriter::reidentify(Arc::clone(&self.engine), format, Some(Arc::clone(permit))),
        }
    }

    /// Rewrites one input into one output.
    pub fn run(
        &self,
        input: &mut dyn BufRead,
        format: Format,
        output: &mut Output,
        ledger: Option<&mut Ledger>,
    ) -> Result<Outcome, BatchError> {
        match format {
            Format::Json => self.document(input, output, ledger),
            Format::Ndjson => self.lines(input, output, ledger),
        }
    }

    fn document(&self, input: &mut dyn BufRead, output: &mut Output, mut ledger: Option<&mut Ledger>) -> Result<Outcome, BatchError> {
        let mut rewriter = self.rewriter(Format::Json);
        let mut outcome = Outcome::default();
        let mut written = Vec::new();
        loop {
            let chunk = input.fill_buf().map_err(BatchError::Read)?;
            let length = chunk.len();
            let result = if length == 0 { rewriter.finish(&mut written) } else { rewriter.write(chunk, &mut written) };
            input.consume(length);
            if let Err(refusal) = result {
                outcome.refused.push((0, refusal));
                outcome.report.add(rewriter.take_report());
                return Ok(outcome);
            }
            if written.len() >= BATCH_BYTES || length == 0 {
                self.release(&mut rewriter, &mut written, output, ledger.as_deref_mut(), &mut outcome)?;
            }
            if length == 0 {
                outcome.done = 1;
                return Ok(outcome);
            }
        }
    }

    fn lines(&self, input: &mut dyn BufRead, output: &mut Output, mut ledger: Option<&mut Ledger>) -> Result<Outcome, BatchError> {
        let mut rewriter = self.rewriter(Format::Json);
        let mut outcome = Outcome::default();
        let mut written = Vec::new();
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            number += 1;
            line.clear();
            let bound = limits::RESOURCE_BYTES_MAX as u64 + 2; // a longer line is refused below, not held
            let read = (&mut *input).take(bound).read_until(b'\n', &mut line).map_err(BatchError::Read)?;
            if read == 0 {
                break;
            }
            let ended = line.last() == Some(&b'\n');
            let content = &line[..line.len() - usize::from(ended)];
            if content.len() > limits::RESOURCE_BYTES_MAX {
                outcome.refused.push((number, Refusal { code: Code::ResourceTooLarge, path: String::new(), byte: 0 }));
                if !ended {
                    skip_line(input).map_err(BatchError::Read)?;
                }
            } else if content.iter().all(u8::is_ascii_whitespace) {
                written.extend_from_slice(&line);
            } else {
                match rewriter.document(content, &mut written) {
                    Ok(()) => {
                        outcome.done += 1;
                        if ended {
                            written.push(b'\n');
                        }
                    }
                    Err(refusal) => outcome.refused.push((number, refusal)),
                }
            }
            if self.fail_fast && !outcome.refused.is_empty() {
                break;
            }
            if written.len() >= BATCH_BYTES {
                self.release(&mut rewriter, &mut written, output, ledger.as_deref_mut(), &mut outcome)?;
            }
        }
        self.release(&mut rewriter, &mut written, output, ledger, &mut outcome)?;
        Ok(outcome)
    }

    /// Records what a batch reveals, then writes it. In this order: what cannot be recorded is not revealed.
    fn release(
        &self,
        rewriter: &mut Rewriter,
        written: &mut Vec<u8>,
        output: &mut Output,
        ledger: Option<&mut Ledger>,
        outcome: &mut Outcome,
    ) -> Result<(), BatchError> {
        let report = rewriter.take_report();
        if let (Some(ledger), Some(permit), true) = (ledger, &self.permit, report.reveals_anything()) {
            ledger.record(permit, &report).map_err(BatchError::Audit)?;
        }
        output.write(written).map_err(BatchError::Write)?;
        written.clear();
        outcome.report.add(report);
        Ok(())
    }
}

/// Reads on to the end of a line that is too long to be held.
fn skip_line(input: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(());
        }
        let found = memchr::memchr(b'\n', chunk);
        let length = found.map_or(chunk.len(), |at| at + 1);
        input.consume(length);
        if found.is_some() {
            return Ok(());
        }
    }
}
