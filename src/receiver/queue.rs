//! Lines on their way to the output, bounded by their bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// An output that has taken nothing for this time is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// The memory of a piece, in addition to its text.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// Lines, and their number of events.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) lines: String,
    pub(super) events: u64,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.lines.len() + PIECE_OVERHEAD_BYTES
    }
}

/// Whether a piece was queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// Queued, the first after `events` were dropped.
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
    /// Wakes the output.
    changed: Condvar,
    /// Wakes the batches that push.
    popped: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Events dropped since a piece was queued last.
    dropped: u64,
    /// A batch has waited for the output in vain, and nothing was popped since.
    is_stuck: bool,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), changed: Condvar::new(), popped: Notify::new() }
    }

    /// Waits for a slow output as long as `patience` lasts, but not for a stuck one. A piece that is larger than the
    /// whole queue is accepted if the queue is empty.
    pub(super) async fn push(&self, piece: Piece, patience: &mut Duration) -> Pushed {
        loop {
            // Before the check: a pop after it wakes this.
            let popped = self.popped.notified();
            tokio::pin!(popped);
            popped.as_mut().enable();
            let wait = STUCK_AFTER.min(*patience);
            if self.fits(&piece) || wait.is_zero() {
                break;
            }
            let begin = tokio::time::Instant::now();
            let waited = timeout(wait, popped).await;
            *patience = patience.saturating_sub(begin.elapsed());
            if waited.is_err() {
                self.lock().is_stuck = wait == STUCK_AFTER;
                break;
            }
        }
        self.push_now(piece)
    }

    /// Whether there is nothing to wait for.
    fn fits(&self, piece: &Piece) -> bool {
        let state = self.lock();
        state.is_closed || state.is_stuck || self.has_room(&state, piece)
    }

    fn has_room(&self, state: &State, piece: &Piece) -> bool {
        state.bytes.saturating_add(piece.bytes()) <= self.max_bytes || state.pieces.is_empty()
    }

    fn push_now(&self, piece: Piece) -> Pushed {
        let mut state = self.lock();
        if state.is_closed || !self.has_room(&state, &piece) {
            let is_first = state.dropped == 0;
            state.dropped += piece.events;
            return Pushed::Dropped { is_first };
        }
        state.bytes += piece.bytes();
        state.pieces.push_back(piece);
        let dropped = std::mem::take(&mut state.dropped);
        // First, or the writer would wake only to wait for it.
        drop(state);
        self.changed.notify_one();
        match dropped {
            0 => Pushed::Queued,
            events => Pushed::QueuedAgain { events },
        }
    }

    /// The next piece; `None` once the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<Piece> {
        let mut state = self.lock();
        loop {
            if let Some(piece) = state.pieces.pop_front() {
                state.bytes -= piece.bytes();
                state.is_stuck = false;
                self.popped.notify_waiters();
                return Some(piece);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts nothing from now on.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
        self.popped.notify_waiters();
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
        self.lock().pieces.iter().map(|piece| piece.events).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn piece(bytes: usize, events: u64) -> Piece {
        Piece { lines: "x".repeat(bytes - PIECE_OVERHEAD_BYTES), events }
    }

    #[test]
    fn the_bound_is_in_bytes_and_what_was_dropped_is_told_once() {
        let queue = Queue::new(1000);
        assert_eq!(queue.push_now(piece(600, 1)), Pushed::Queued);
        assert_eq!(queue.push_now(piece(500, 2)), Pushed::Dropped { is_first: true });
        assert_eq!(queue.push_now(piece(700, 3)), Pushed::Dropped { is_first: false });
        assert_eq!(queue.push_now(piece(400, 1)), Pushed::QueuedAgain { events: 5 });
        assert_eq!((queue.bytes(), queue.events()), (1000, 2));
    }

    #[test]
    fn one_piece_larger_than_the_queue_passes_when_nothing_waits() {
        let queue = Queue::new(100);
        assert_eq!(queue.push_now(piece(500, 1)), Pushed::Queued);
        assert_eq!(queue.push_now(piece(100, 1)), Pushed::Dropped { is_first: true });
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_then_ends() {
        let queue = Queue::new(1000);
        queue.push_now(piece(100, 1));
        queue.close();
        assert_eq!(queue.push_now(piece(100, 7)), Pushed::Dropped { is_first: true });
        assert_eq!(queue.pop().map(|piece| piece.events), Some(1));
        assert!(queue.pop().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_output_is_waited_for_and_one_that_stands_still_once() {
        let queue = Queue::new(1000);
        let mut patience = PATIENCE;
        assert_eq!(queue.push(piece(1000, 1), &mut patience).await, Pushed::Queued);
        let (pushed, _) = tokio::join!(queue.push(piece(1000, 2), &mut patience), async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            queue.pop()
        });
        assert_eq!((pushed, patience), (Pushed::Queued, Duration::from_millis(4100)));
        assert_eq!(queue.push(piece(1000, 3), &mut patience).await, Pushed::Dropped { is_first: true });
        assert_eq!(patience, Duration::from_millis(3100));
        assert_eq!(queue.push(piece(1000, 4), &mut patience).await, Pushed::Dropped { is_first: false });
        assert_eq!(patience, Duration::from_millis(3100), "nobody waits a second time");
        queue.pop();
        assert_eq!(queue.push(piece(1000, 5), &mut patience).await, Pushed::QueuedAgain { events: 7 });
        let mut none = Duration::ZERO;
        assert_eq!(queue.push(piece(1000, 6), &mut none).await, Pushed::Dropped { is_first: true });
    }
}
