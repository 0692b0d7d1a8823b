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
use tokio::sync::{mpsc, watch};

thread_local! {
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Which of its proxy's workers this thread is, from 1; 0 is every other thread.
pub fn here() -> usize {
    HERE.get()
}

/// The workers of one proxy.
pub struct Workers {
    all: Vec<Worker>,
    /// Closed once the last of them has ended.
    living: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

struct Worker {
    runtime: Handle,
    /// Connections that it has.
    open: Arc<AtomicUsize>,
}

/// Threads of one worker for what blocks: asking for names.
const BLOCKING_THREADS_MAX: usize = 16;

impl Workers {
    /// Starts so many, at least one. They end, and drop what they still have, when the phase says so or nobody is left to say it.
    pub fn start(threads: usize, phase: &watch::Receiver<Phase>) -> io::Result<Workers> {
        let (lives, living) = mpsc::channel(1);
        let start = |place| Worker::start(place, phase.clone(), lives.clone());
        let all = (1..=threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Workers { all, living: tokio::sync::Mutex::new(living) })
    }

    /// Returns once all have ended and dropped what they had.
    pub async fn ended(&self) {
        let _ = self.living.lock().await.recv().await; // nobody sends: it is closed
    }

    /// Gives a connection to the worker that has the fewest. What it makes of it begins and ends there.
    pub fn give<F: Future<Output = ()> + Send + 'static>(&self, connection: F) {
        let Some(worker) = self.all.iter().min_by_key(|worker| worker.open.load(Ordering::Relaxed)) else { return };
        let held = Held::new(&worker.open);
        worker.runtime.spawn(async move {
            let _held = held;
            connection.await;
        });
    }
}

impl Worker {
    fn start(place: usize, mut phase: watch::Receiver<Phase>, lives: mpsc::Sender<()>) -> io::Result<Worker> {
        let (made, makes) = std::sync::mpsc::channel();
        std::thread::Builder::new().name(format!("worker-{place}")).spawn(move || {
            let built = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build();
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = made.send(Err(error));
                    return;
                }
            };
            let _ = made.send(Ok(runtime.handle().clone()));
            HERE.set(place);
            let fatal = Fatal;
            let _ = runtime.block_on(phase.wait_for(|phase| *phase == Phase::Ended));
            runtime.shutdown_background();
            std::mem::forget(fatal);
            drop(lives);
        })?;
        let runtime = makes.recv().map_err(io::Error::other)??;
        Ok(Worker { runtime, open: Arc::default() })
    }
}

/// A panic in a connection ends that connection; one of the event loop itself would leave a worker that takes every connection, having the
/// fewest, and serves none. Whoever supervises the process starts it anew.
struct Fatal;

impl Drop for Fatal {
    fn drop(&mut self) {
        std::process::abort();
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

    #[test]
    fn connections_go_to_the_worker_with_the_fewest_and_end_with_the_proxy() {
        let (phase, seen) = watch::channel(Phase::Serving);
        let workers = Workers::start(3, &seen).unwrap();
        let (told, tells) = std::sync::mpsc::channel();
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
        Builder::new_current_thread().build().unwrap().block_on(workers.ended());
        assert_eq!(here(), 0);
    }
}
