//! Batches on their way to the output, bounded by their bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;

/// A batch that was taken.
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) events: u64,
}

/// What became of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// The first one after `events` were dropped.
    QueuedAgain {
        events: u64,
    },
    Dropped {
        is_first: bool,
    },
}

pub(super) struct Queue {
    max_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// Events dropped since a batch was queued last.
    dropped: u64,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Never waits. A batch that is larger than the whole queue is taken where nothing else waits.
    pub(super) fn push(&self, batch: Batch) -> Pushed {
        let mut state = self.lock();
        let fits = state.bytes.saturating_add(batch.body.len()) <= self.max_bytes || state.batches.is_empty();
        if state.is_closed || !fits {
            let is_first = state.dropped == 0;
            state.dropped += batch.events;
            return Pushed::Dropped { is_first };
        }
        state.bytes += batch.body.len();
        state.batches.push_back(batch);
        self.changed.notify_one();
        match std::mem::take(&mut state.dropped) {
            0 => Pushed::Queued,
            events => Pushed::QueuedAgain { events },
        }
    }

    /// The next batch; `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                state.bytes -= batch.body.len();
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From now on nothing is taken.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits, unless the queue is closed. Returns whether it is.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self.changed.wait_timeout_while(state, time, |state| !state.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_closed
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Events that wait.
    pub(super) fn events(&self) -> u64 {
        self.lock().batches.iter().map(|batch| batch.events).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(bytes: usize, events: u64) -> Batch {
        Batch { body: Bytes::from(vec![0; bytes]), events }
    }

    #[test]
    fn the_bound_is_in_bytes_and_what_was_dropped_is_told_once() {
        let queue = Queue::new(10);
        assert_eq!(queue.push(batch(6, 1)), Pushed::Queued);
        assert_eq!(queue.push(batch(5, 2)), Pushed::Dropped { is_first: true });
        assert_eq!(queue.push(batch(7, 3)), Pushed::Dropped { is_first: false });
        assert_eq!(queue.push(batch(4, 1)), Pushed::QueuedAgain { events: 5 });
        assert_eq!((queue.bytes(), queue.events()), (10, 2));
    }

    #[test]
    fn one_batch_larger_than_the_queue_passes_when_nothing_waits() {
        let queue = Queue::new(10);
        assert_eq!(queue.push(batch(50, 1)), Pushed::Queued);
        assert_eq!(queue.push(batch(1, 1)), Pushed::Dropped { is_first: true });
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let queue = Queue::new(10);
        queue.push(batch(1, 1));
        queue.close();
        assert_eq!(queue.push(batch(1, 7)), Pushed::Dropped { is_first: true });
        assert_eq!(queue.pop().map(|batch| batch.events), Some(1));
        assert!(queue.pop().is_none());
    }
}
