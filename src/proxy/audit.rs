//! The audit file: no revealed byte leaves before the line that says so is on the disk.
//!
//! One thread owns the file. It takes every record that waits, writes them with one `write`, makes them durable with one
//! `fdatasync`, and only then answers those who wait. A line that did not get there whole is cut off again, so the chain
//! never holds half a line. While the file cannot be written, each record fails; the next one tries again.

use super::limits::{AUDIT_LINE_BYTES_MAX, AUDIT_QUEUE_MAX, AUDIT_TIMEOUT};
use super::metrics::Metrics;
use super::respond::{Failure, OwnError};
use crate::audit::{Chain, Outcome, Record};
use crate::names::{Caller, Class, Purpose};
use crate::policy::Permit;
use crate::rewrite::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, oneshot};

/// What one line says: a batch of revealed values, by whom and why.
#[derive(Debug)]
pub struct Reveal {
    caller: Caller,
    purpose: Option<Purpose>,
    occasion: Occasion,
    batch: u64,
    classes: BTreeMap<Class, u64>,
    subjects: BTreeSet<String>,
}

/// On what occasion: words from configuration and of this program only.
#[derive(Debug, Clone)]
pub struct Occasion {
    /// Name of the route.
    pub route: String,
    /// Method of the request.
    pub method: &'static str,
    /// FHIR interaction, as far as method and path tell it.
    pub interaction: &'static str,
}

impl Reveal {
    /// Values that the rewriter revealed under a permit, in the `batch`th batch of an exchange.
    pub fn new(permit: &Permit, occasion: &Occasion, batch: u64, report: Report) -> Reveal {
        Reveal {
            caller: permit.caller().clone(),
            purpose: permit.purpose().cloned(),
            occasion: occasion.clone(),
            batch,
            classes: report.reveals,
            subjects: report.subjects,
        }
    }

    /// How many values.
    pub fn values(&self) -> u64 {
        self.classes.values().sum()
    }
}

struct Waiting {
    reveal: Reveal,
    done: oneshot::Sender<bool>,
}

/// The way to the audit file. Cheap to clone; the file is closed when the last one is dropped.
#[derive(Clone)]
pub struct Audit {
    queue: mpsc::Sender<Waiting>,
    writable: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Audit {
    /// Opens the file to append, continues its chain and starts the thread that owns it.
    pub fn open(path: &Path, metrics: Arc<Metrics>) -> io::Result<Audit> {
        let (file, chain) = open(path)?;
        let (queue, waiting) = mpsc::channel(AUDIT_QUEUE_MAX);
        let writable = Arc::new(AtomicBool::new(true));
        let mut writer = Writer { file, chain, writable: writable.clone(), metrics: metrics.clone() };
        std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(waiting))?;
        Ok(Audit { queue, writable, metrics })
    }

    /// Returns once the record is durable. After a failure nothing that it covers may leave.
    pub async fn record(&self, reveal: Reveal) -> Result<(), Failure> {
        let values = reveal.values();
        let (done, durable) = oneshot::channel();
        let written =
            async { self.queue.send(Waiting { reveal, done }).await.is_ok() && durable.await.unwrap_or(false) };
        let written = tokio::time::timeout(AUDIT_TIMEOUT, written).await.unwrap_or(false);
        let outcome = if written { "revealed" } else { "withheld" };
        self.metrics.reveals.with_label_values(&[outcome]).inc_by(values);
        if written { Ok(()) } else { Err(Failure::Own(OwnError::AuditUnwritable)) }
    }

    /// Whether the last record could be written.
    pub fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }
}

fn open(path: &Path) -> io::Result<(File, Chain)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::Error::other("another process writes this audit file")),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let last = last_line(&mut file)?;
    let chain = Chain::resume(last.as_deref()).map_err(io::Error::other)?;
    Ok((file, chain))
}

/// The last whole line. Half a line after it is what a crash left: nothing was revealed for it, so it is cut off.
fn last_line(file: &mut File) -> io::Result<Option<String>> {
    if !file.metadata()?.is_file() {
        return Ok(None); // a pipe or device has no past
    }
    let length = file.metadata()?.len();
    let start = length.saturating_sub(AUDIT_LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.take(AUDIT_LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    if whole == 0 && length > AUDIT_LINE_BYTES_MAX {
        return Err(io::Error::other("the audit file ends in a line that is too long to be ours"));
    }
    file.set_len(start + whole as u64)?;
    let Some(end) = whole.checked_sub(1) else { return Ok(None) };
    let begin = tail[..end].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let line = std::str::from_utf8(&tail[begin..end]).map_err(|_| io::Error::other("the audit file is not UTF-8"))?;
    Ok(Some(line.to_owned()))
}

struct Writer {
    file: File,
    chain: Chain,
    writable: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn run(&mut self, mut waiting: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::new();
        while waiting.blocking_recv_many(&mut batch, AUDIT_QUEUE_MAX) > 0 {
            let timer = self.metrics.audit_duration.start_timer();
            let written = self.write(&batch);
            timer.observe_duration();
            let good = written.is_ok();
            if let Err(error) = written {
                self.metrics.audit_write_errors.inc_by(batch.len() as u64);
                tracing::error!(kind = ?error.kind(), "the audit file cannot be written; nothing is revealed");
            }
            self.writable.store(good, Ordering::Relaxed);
            for one in batch.drain(..) {
                let _ = one.done.send(good); // who no longer waits reveals nothing
            }
        }
    }

    fn write(&mut self, batch: &[Waiting]) -> io::Result<()> {
        let mut chain = self.chain.clone();
        let (mut lines, now) = (String::new(), jiff::Timestamp::now().to_string());
        for Waiting { reveal, .. } in batch {
            lines.push_str(&chain.line(&Record {
                time: &now,
                caller: &reveal.caller,
                purpose: reveal.purpose.as_ref(),
                route: &reveal.occasion.route,
                method: reveal.occasion.method,
                interaction: reveal.occasion.interaction,
                outcome: Outcome::Revealed,
                reveals: &reveal.classes,
                subjects: &reveal.subjects,
                batch: reveal.batch,
            }));
        }
        let is_file = self.file.metadata()?.is_file();
        let length = self.file.metadata()?.len();
        let written = self.file.write_all(lines.as_bytes()).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.chain = chain,
            Err(_) if is_file => self.file.set_len(length)?,
            Err(_) => {}
        }
        written
    }
}
