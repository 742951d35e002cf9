//! The memory of all batches that are being read, bounded in bytes.
//!
//! A batch reserves memory as it needs it, and waits for bytes without holding up other batches. If memory runs out,
//! the batch that has been idle longest gives up its share: one whose client stalls, or one that waits for memory
//! itself. So two batches cannot wait for each other for ever.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A batch that receives too little for this time is idle.
const STALLED_AFTER: Duration = Duration::from_millis(500);
/// Too little is less than this part of the memory that it holds. So a client cannot hold memory with a byte now and
/// then: an event that is large enough to matter is complete, or its batch idle, within a few seconds.
const PROGRESS: usize = 16;

pub(super) struct Memory {
    max_bytes: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    used: usize,
    batches: BTreeMap<u64, Batch>,
}

struct Batch {
    bytes: usize,
    /// Bytes that arrived since `moved`.
    arrived: usize,
    moved: Instant,
    give_up: CancellationToken,
}

/// The share of one batch. Dropping it frees the memory.
pub(super) struct Share<'a> {
    memory: &'a Memory,
    id: u64,
    give_up: CancellationToken,
}

/// The batch had to give up its memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// The answer to a request for memory.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Granted,
    /// This batch must give up its share first.
    GivesUp(u64),
    /// No batch is idle.
    Later,
}

impl Memory {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default(), freed: Notify::new() }
    }

    /// The share of a new batch, empty at first.
    pub(super) fn share(&self, now: Instant) -> Share<'_> {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        let give_up = CancellationToken::new();
        state.batches.insert(id, Batch { bytes: 0, arrived: 0, moved: now, give_up: give_up.clone() });
        Share { memory: self, id, give_up }
    }

    /// Bytes that are in use.
    pub(super) fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn resize(&mut self, id: u64, bytes: usize, max_bytes: usize, now: Instant) -> Answer {
        let held = self.batches.get(&id).map_or(0, |batch| batch.bytes);
        if bytes <= held || self.used - held + bytes <= max_bytes {
            self.used = self.used - held + bytes;
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.bytes = bytes;
            }
            return Answer::Granted;
        }
        let holders = self.batches.iter().filter(|(other, batch)| batch.bytes > 0 || **other == id);
        match holders.min_by_key(|(_, batch)| batch.moved) {
            Some((id, batch)) if now.saturating_duration_since(batch.moved) >= STALLED_AFTER => Answer::GivesUp(*id),
            _ => Answer::Later,
        }
    }
}

impl Share<'_> {
    /// `bytes` arrived.
    pub(super) fn moved(&self, bytes: usize, now: Instant) {
        if let Some(batch) = self.memory.lock().batches.get_mut(&self.id) {
            batch.arrived += bytes;
            if batch.arrived >= batch.bytes / PROGRESS {
                (batch.arrived, batch.moved) = (0, now);
            }
        }
    }

    /// Makes the share `bytes` large. Waits for memory if it has to.
    pub(super) async fn resize(&self, bytes: usize) -> Result<(), GivenUp> {
        loop {
            // Before the check: memory that is freed after it wakes this.
            let freed = self.memory.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let is_less = {
                let mut state = self.memory.lock();
                let used = state.used;
                match state.resize(self.id, bytes, self.memory.max_bytes, Instant::now()) {
                    Answer::Granted => Some(state.used < used),
                    Answer::GivesUp(id) => {
                        if let Some(batch) = state.batches.get(&id) {
                            batch.give_up.cancel();
                        }
                        None
                    }
                    Answer::Later => None,
                }
            };
            if let Some(is_less) = is_less {
                if is_less {
                    self.memory.freed.notify_waiters();
                }
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.given_up() => return Err(GivenUp),
                () = freed => {}
                // By then the one that has been idle longest counts as idle.
                () = sleep(STALLED_AFTER) => {}
            }
        }
    }

    /// Returns when the batch must give up its share.
    pub(super) async fn given_up(&self) {
        self.give_up.cancelled().await;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut state = self.memory.lock();
        if let Some(batch) = state.batches.remove(&self.id) {
            state.used -= batch.bytes;
        }
        drop(state);
        self.memory.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_batch_that_stands_still_gives_way_to_one_that_moves() {
        let memory = Memory::new(100);
        let (slow, quick) = (memory.share(Instant::now()), memory.share(Instant::now()));
        assert_eq!(slow.resize(60).await, Ok(()));
        assert_eq!(quick.resize(40).await, Ok(()));
        let begin = Instant::now();
        tokio::time::advance(Duration::from_millis(400)).await;
        quick.moved(40, Instant::now());
        let (grown, ()) = tokio::join!(quick.resize(50), async {
            slow.given_up().await;
            assert!(begin.elapsed() >= STALLED_AFTER);
            drop(slow);
        });
        assert_eq!(grown, Ok(()));
        assert_eq!(memory.used(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_trickles_gives_way_to_one_that_waits() {
        let memory = Memory::new(1000);
        let (trickling, waiting) = (memory.share(Instant::now()), memory.share(Instant::now()));
        assert_eq!(trickling.resize(1000).await, Ok(()));
        tokio::time::advance(Duration::from_millis(1)).await;
        waiting.moved(1, Instant::now());
        let (granted, ()) = tokio::join!(waiting.resize(100), async {
            for _ in 0..50 {
                if timeout(Duration::from_millis(100), trickling.given_up()).await.is_ok() {
                    break;
                }
                trickling.moved(1, Instant::now());
            }
            drop(trickling);
        });
        assert_eq!(granted, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_wait_for_each_other_end() {
        let memory = Memory::new(100);
        let (one, other) = (memory.share(Instant::now()), memory.share(Instant::now()));
        assert_eq!((one.resize(50).await, other.resize(50).await), (Ok(()), Ok(())));
        let grow = async |share: Share<'_>| share.resize(60).await.is_ok();
        let ends = tokio::join!(grow(one), grow(other));
        assert!(ends == (true, false) || ends == (false, true), "{ends:?}");
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_is_given_back_is_granted_at_once() {
        let memory = Memory::new(100);
        let (one, other) = (memory.share(Instant::now()), memory.share(Instant::now()));
        assert_eq!(one.resize(90).await, Ok(()));
        let begin = Instant::now();
        let (granted, shrunk) = tokio::join!(other.resize(50), one.resize(20));
        assert_eq!((granted, shrunk, begin.elapsed()), (Ok(()), Ok(()), Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_nobody_can_grant_ends() {
        let memory = Memory::new(100);
        assert_eq!(memory.share(Instant::now()).resize(101).await, Err(GivenUp));
    }
}
