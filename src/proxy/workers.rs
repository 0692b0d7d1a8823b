//! The threads that serve: one event loop each. A connection, its exchanges and the upstream connections that they use stay on the thread
//! that the connection was given to, so nothing between a socket and the next wakes another thread. What that costs: the streams of one
//! HTTP/2 connection share one core. Accepting, admin and reload live elsewhere, on the runtime that called [`serve`](super::serve).

use super::server::Phase;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Which of its proxy's workers this thread is, from 1; 0 is every other thread.
pub fn here() -> usize {
    HERE.get()
}

/// The workers of one proxy.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    /// Connections that it has.
    open: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts so many. They end, and drop what they still have, when the phase says so or nobody is left to say it.
    pub fn start(threads: usize, phase: &watch::Receiver<Phase>) -> io::Result<Workers> {
        (1..=threads).map(|place| Worker::start(place, phase.clone())).collect::<io::Result<_>>().map(Workers)
    }

    /// Gives a connection to the worker that has the fewest. What it makes of it begins and ends there.
    pub fn give<F: Future<Output = ()> + Send + 'static>(&self, connection: F) {
        let Some(worker) = self.0.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)) else { return };
        let held = Held::new(&worker.open);
        worker.runtime.spawn(async move {
            let _held = held;
            connection.await;
        });
    }
}

impl Worker {
    fn start(place: usize, mut phase: watch::Receiver<Phase>) -> io::Result<Worker> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("worker-{place}")).spawn(move || {
            HERE.set(place);
            let _ = runtime.block_on(phase.wait_for(|phase| *phase == Phase::Ended));
        })?;
        Ok(Worker { runtime: handle, open: Arc::default() })
    }
}

/// Counts a connection for as long as it lives, even if it ends by a panic.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(open: &Arc<AtomicUsize>) -> Held {
        open.fetch_add(1, Ordering::Relaxed);
        Held(open.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn connections_go_to_the_worker_with_the_fewest_and_end_with_the_proxy() {
        let (phase, seen) = watch::channel(Phase::Serving);
        let workers = Workers::start(3, &seen).unwrap();
        let (told, tells) = mpsc::channel();
        for _ in 0..9 {
            let told = told.clone();
            workers.give(async move {
                told.send(here()).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut places: Vec<usize> = tells.iter().take(9).collect();
        places.sort_unstable();
        assert_eq!(places, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        drop(told);
        phase.send_replace(Phase::Ended);
        assert!(tells.recv().is_err(), "what is still open is dropped");
        assert_eq!(here(), 0);
    }
}
