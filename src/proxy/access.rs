//! The access log off the path of exchanges: a bounded queue, and one thread that writes.
//!
//! An exchange hands in its line and goes on, whatever the log's reader does: a queue that is full drops the line, and the
//! metric `access_log_dropped_total` counts it. What was handed in before a drain ended is written before the process
//! ends. The audit is not this: a reveal waits for its record (`audit`), an exchange never for its line.

use super::limits::{ACCESS_PAUSE, ACCESS_QUEUE_MAX};
use super::settings::Route;
use crate::names::Caller;
use crate::rewrite::Refusal;
use prometheus::IntCounter;
use std::cell::RefCell;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// One line: names from configuration, numbers, codes, and a path that the untrusted side may know.
pub enum Line {
    /// An exchange has ended.
    Exchange {
        /// `None`: none was found.
        route: Option<Arc<Route>>,
        /// Of a list in the program.
        method: &'static str,
        /// As the upstream was asked, without its query: rewritten, so no identity is in it. Empty: it was not asked.
        path: String,
        /// What the caller got.
        status: u16,
        /// What the upstream answered.
        upstream_status: Option<u16>,
        /// `ok`, or why not.
        code: &'static str,
        /// Who asked, if it is known.
        caller: Option<Caller>,
        /// Of the answer's body.
        bytes: u64,
        /// From head to last byte.
        duration: Duration,
        /// From sending to the head of the answer.
        upstream: Duration,
    },
    /// A message was refused.
    Refused {
        /// `None`: none was found.
        route: Option<Arc<Route>>,
        /// Of the list in `docs/errors.md`.
        code: &'static str,
        /// Where and at which byte, in FHIR's names only.
        refusal: Arc<Refusal>,
    },
}

enum Message {
    Line(Line),
    /// Some other event of this process, as it is to be written.
    Event(Vec<u8>),
    /// Says that everything handed in before was written.
    Flush(oneshot::Sender<()>),
}

/// The way to the log. Cheap to clone; the thread ends with the last one.
#[derive(Clone)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    dropped: IntCounter,
}

impl AccessLog {
    /// Starts the thread. Lines go where this process's other events go.
    pub fn start(dropped: IntCounter) -> io::Result<AccessLog> {
        AccessLog::to(tell, dropped)
    }

    fn to(write: impl FnMut(Line) + Send + 'static, dropped: IntCounter) -> io::Result<AccessLog> {
        let (queue, waiting) = sync_channel(ACCESS_QUEUE_MAX);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            HELD.set(Some(Vec::new()));
            run(&waiting, write);
        })?;
        let _ = EVENTS.set(queue.clone()); // of several proxies in one process the first one's thread writes the events of all
        Ok(AccessLog { queue, dropped })
    }

    /// Hands in a line, or drops it. Never waits.
    pub fn write(&self, line: Line) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.inc();
        }
    }

    /// Returns once everything handed in before was written, or after `patience`: whoever reads the log has stopped.
    pub async fn flush(&self, patience: Duration) {
        let (done, written) = oneshot::channel();
        let flushed = async {
            let mut message = Message::Flush(done);
            while let Err(full) = self.queue.try_send(message) {
                message = match full {
                    std::sync::mpsc::TrySendError::Full(message) => message,
                    std::sync::mpsc::TrySendError::Disconnected(_) => return,
                };
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = written.await; // an error: the thread has ended, so there is nothing to wait for
        };
        let _ = tokio::time::timeout(patience, flushed).await;
    }
}

fn run(waiting: &Receiver<Message>, mut write: impl FnMut(Line)) {
    while let Ok(message) = waiting.recv() {
        for message in std::iter::once(message).chain(waiting.try_iter()) {
            match message {
                Message::Line(line) => write(line),
                Message::Event(bytes) => _ = Stderr.write(&bytes),
                Message::Flush(done) => {
                    let_go();
                    let _ = done.send(()); // who no longer waits need not know
                }
            }
        }
        let_go();
        // Awake it would be woken by every line, and waking costs the exchange more than handing the line in.
        std::thread::sleep(ACCESS_PAUSE);
    }
}

/// Where events go: to the thread that writes, so that a reader that stalls or is gone stops no other thread.
static EVENTS: OnceLock<SyncSender<Message>> = OnceLock::new();

thread_local! {
    /// Of the thread that writes the log: what it has not yet handed to the system.
    static HELD: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// More than this is not held back.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// Hands to the system what was held back. A reader that is gone misses it: an exchange must not.
fn let_go() {
    HELD.with_borrow_mut(|held| {
        if let Some(held) = held
            && !held.is_empty()
        {
            // A batch that was not written to its end leaves half a line.
            let torn = io::stderr().write_all(held).is_err();
            held.clear();
            if torn {
                held.push(b'\n');
            }
        }
    });
}

/// Standard error for this process's events, those of exchanges and all others: they go through the thread that writes. Writing never fails and never
/// waits: an event that finds the queue full is dropped, as a line is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let full = HELD.with_borrow_mut(|held| {
            let held = held.as_mut()?;
            held.extend_from_slice(bytes);
            Some(held.len() >= HELD_BYTES_MAX)
        });
        match full {
            None => match EVENTS.get() {
                Some(queue) => _ = queue.try_send(Message::Event(bytes.to_vec())),
                None => _ = io::stderr().write_all(bytes), // before anything is served
            },
            Some(true) => let_go(),
            Some(false) => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // standard error is not buffered, and what is held back is let go of after each batch
    }
}

fn tell(line: Line) {
    let name = |route: &Option<Arc<Route>>| route.as_ref().map_or("none".to_owned(), |route| route.name.clone());
    match line {
        Line::Exchange { route, method, path, status, upstream_status, code, caller, bytes, duration, upstream } => {
            tracing::info!(
                route = name(&route),
                method,
                path = (!path.is_empty()).then_some(path),
                status,
                upstream_status,
                code,
                caller = caller.as_ref().map(Caller::as_str),
                bytes,
                duration_us = duration.as_micros() as u64,
                upstream_us = upstream.as_micros() as u64,
                "exchange"
            )
        }
        Line::Refused { route, code, refusal } => {
            tracing::warn!(route = name(&route), code, at = refusal.path.as_str(), byte = refusal.byte, "refused")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn line(bytes: u64) -> Line {
        let (status, upstream_status, path) = (200, None, String::new());
        let (duration, upstream) = (Duration::ZERO, Duration::ZERO);
        Line::Exchange {
            route: None,
            method: "GET",
            path,
            status,
            upstream_status,
            code: "ok",
            caller: None,
            bytes,
            duration,
            upstream,
        }
    }

    #[tokio::test]
    async fn a_log_that_nobody_reads_stops_no_exchange_and_loses_nothing_that_was_taken() {
        let dropped = IntCounter::new("dropped", "lines").unwrap();
        let (open, gate) = channel::<()>();
        let (written, seen) = channel();
        let stuck = move |line: Line| {
            let _ = gate.recv(); // for ever, until the test lets it go on
            let Line::Exchange { bytes, .. } = line else { panic!("no other line was written") };
            written.send(bytes).unwrap();
        };
        let log = AccessLog::to(stuck, dropped.clone()).unwrap();
        let count = ACCESS_QUEUE_MAX as u64 + 100;
        for number in 0..count {
            log.write(line(number)); // does not wait, or this test never ends
        }
        assert!((99..=100).contains(&dropped.get()), "{}", dropped.get()); // one may be in the writer's hand
        log.flush(Duration::from_millis(50)).await; // gives up
        drop(open);
        log.flush(Duration::from_secs(20)).await;
        let lines: Vec<u64> = seen.try_iter().collect();
        assert_eq!(lines.len() as u64, count - dropped.get());
        assert!(lines.is_sorted());
    }
}
