//! Work on all cores, results in the order of the items, memory bounded: the one place of the batch that starts threads.
//!
//! ```text
//! source (the caller's thread) → items → workers → results, in order → sink (a thread of its own)
//! ```
//! A slow sink holds everything up: a result takes its place in the queue before its item goes to work, and the queue has an end.
//! It knows nothing of files or resources.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

/// Bytes in flight between source and sink. Charged before they are read on, given back when they are written.
pub struct Budget {
    free: Mutex<usize>,
    more: Condvar,
    all: usize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Budget { free: Mutex::new(bytes), more: Condvar::new(), all: bytes }
    }

    /// Waits until `bytes` are free. One item over the whole budget goes alone.
    pub fn take(&self, bytes: usize) -> usize {
        let bytes = bytes.min(self.all);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            free = self.more.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= bytes;
        bytes
    }

    /// Holds nobody up any more.
    pub fn close(&self) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) = usize::MAX / 2;
        self.more.notify_all();
    }

    /// Gives back what [`take`](Budget::take) returned.
    pub fn give(&self, bytes: usize) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += bytes;
        self.more.notify_all();
    }
}

/// How many workers this machine has room for.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `work` over all that `source` gives, on `workers` threads, each with a state of its own from `make`. `sink` gets the results in the order of
/// the items; once it returns `false` no new item is begun and no further result is given to it. A panic of a worker ends the whole.
pub fn ordered<T: Send, R: Send, S>(
    workers: usize,
    mut source: impl FnMut() -> Option<T>,
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> R + Sync,
    mut sink: impl FnMut(R) -> bool + Send,
) {
    let stopped = AtomicBool::new(false);
    let (to_work, items) = sync_channel::<(T, SyncSender<R>)>(workers);
    // Twice the workers: while one item is slow, the others have some way to go on.
    let (to_sink, places) = sync_channel::<Receiver<R>>(2 * workers);
    let items = Mutex::new(items);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut state = make();
                loop {
                    let next = items.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((item, place)) = next else { return };
                    match catch_unwind(AssertUnwindSafe(|| work(&mut state, item))) {
                        // Where the sink has stopped nobody waits for it.
                        Ok(result) => drop(place.send(result)),
                        Err(panic) => {
                            // Goes on only to take what waits, so that the source is not held up for ever.
                            drop(place);
                            while items.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {}
                            resume_unwind(panic);
                        }
                    }
                }
            });
        }
        let stop = &stopped;
        scope.spawn(move || {
            for place in places {
                let Ok(result) = place.recv() else { break }; // its worker has panicked
                if !sink(result) {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        while !stopped.load(Ordering::Relaxed)
            && let Some(item) = source()
        {
            let (result, place) = sync_channel(1);
            if to_sink.send(place).is_err() || to_work.send((item, result)).is_err() {
                break;
            }
        }
        drop((to_work, to_sink));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_keep_the_order_of_items() {
        for workers in [1, 2, 7] {
            let mut items = 0..200u64;
            let mut seen = Vec::new();
            let slow = |_: &mut (), n: u64| {
                std::thread::sleep(Duration::from_micros((n * 37) % 500));
                n
            };
            let sink = |n| {
                seen.push(n);
                true
            };
            ordered(workers, || items.next(), || (), slow, sink);
            assert_eq!(seen, (0..200).collect::<Vec<_>>(), "{workers}");
        }
    }

    #[test]
    fn a_sink_that_stops_stops_the_source() {
        let mut given = 0;
        let mut seen = 0;
        let source = || {
            given += 1;
            Some(given)
        };
        let sink = |n: i32| {
            seen = n;
            n < 5
        };
        ordered(3, source, || (), |_, n| n, sink);
        assert_eq!(seen, 5);
        assert!(given < 30, "{given}");
    }

    #[test]
    fn a_panic_of_a_worker_ends_the_whole() {
        let mut items = 0..1000u64;
        let work = |_: &mut (), n: u64| assert!(n != 17, "as it should");
        let run = AssertUnwindSafe(|| ordered(2, || items.next(), || (), work, |()| true));
        assert!(catch_unwind(run).is_err());
    }

    #[test]
    fn one_item_over_the_budget_goes_alone() {
        let budget = Budget::new(10);
        let all = budget.take(50);
        assert_eq!(all, 10);
        budget.give(all);
        assert_eq!(budget.take(4), 4);
        assert_eq!(budget.take(6), 6);
    }
}
