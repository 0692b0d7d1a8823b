//! The audit file of the command line: one chained line per released batch, durable before the batch is written.

use crate::audit::{Chain, Outcome, Record, ResumeError};
use crate::policy::Permit;
use crate::rewrite::Report;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// Why the audit file cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing it failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Its last line is not whole.
    #[error("{0}")]
    Resume(#[from] ResumeError),
}

/// An open audit file.
pub struct Ledger {
    file: File,
    chain: Chain,
    batch: u64,
}

impl Ledger {
    /// Opens or makes the file and goes on behind its last line.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path)?;
        let mut last = None;
        for line in BufReader::new(&file).lines() {
            last = Some(line?);
        }
        Ok(Ledger { chain: Chain::resume(last.as_deref())?, file, batch: 0 })
    }

    /// Appends one line and makes it durable.
    pub fn record(&mut self, permit: &Permit, report: &Report) -> Result<(), LedgerError> {
        let time = jiff::Timestamp::now().to_string();
        let mut next = self.chain.clone();
        let line = next.line(&Record {
            time: &time,
            caller: permit.caller(),
            purpose: permit.purpose(),
            route: "command-line",
            method: "reidentify",
            interaction: "batch",
            outcome: Outcome::Revealed,
            reveals: &report.reveals,
            subjects: &report.subjects,
            batch: self.batch,
        });
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.chain = next; // only what is durable counts
        self.batch += 1;
        Ok(())
    }
}
