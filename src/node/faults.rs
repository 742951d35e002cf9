//! Stops and failures at the fault points of [`Host`](super::files::Host), for tests.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The fault that a fault point causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is gone, as with SIGKILL: nothing of it runs any more, no clean-up either.
    Kill,
    /// The operation fails, and the program sees it.
    Fail(io::ErrorKind),
}

/// Counts fault points, and lets one happen at the chosen one.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    reached: u64,
    next: Option<(u64, Fault)>,
    /// Where the last fault happened.
    happened: Option<String>,
}

/// The panic in place of a kill.
pub(super) struct Killed;

impl Faults {
    /// At the point with this number, counted from now, `fault` happens once.
    pub(super) fn arm(&self, at: u64, fault: Fault) {
        let mut state = self.0.lock().unwrap();
        state.next = Some((state.reached + at, fault));
        state.happened = None;
    }

    /// Where the armed fault happened, if it did.
    pub(super) fn happened(&self) -> Option<String> {
        self.0.lock().unwrap().happened.clone()
    }

    /// Fault points that were passed so far.
    pub(super) fn reached_so_far(&self) -> u64 {
        self.0.lock().unwrap().reached
    }

    pub(super) fn reached(&self, what: &'static str, path: &Path) -> io::Result<()> {
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.reached += 1;
            let Some((_, fault)) = state.next.filter(|(at, _)| *at < state.reached) else { return Ok(()) };
            state.next = None;
            state.happened = Some(format!("{what} {}", path.display()));
            fault
        };
        match fault {
            // Not a panic that is reported: it unwinds to the test, past every clean-up that is code of ours.
            Fault::Kill => std::panic::resume_unwind(Box::new(Killed)),
            Fault::Fail(kind) => Err(kind.into()),
        }
    }
}
