//! Ends what a change leaves behind.

use super::Agent;
use crate::api::Reason;
use crate::journal::{Cause, Journal, Stage};
use crate::node::{guard, process, state};
use crate::plan::{self, GUARD_MANIFEST};

/// How long the guard's container may take to start. Its image is the agent's own and lies on the node.
const GUARD_TIMEOUT_MS: u64 = 120_000;

impl Agent {
    /// Ends what a change leaves behind: the guard's manifest, and a change whose guard never started. And gives a change its
    /// guard that has none, because this program was stopped before it wrote one, or somebody removed it.
    pub(super) fn settle(&self) -> Result<(), state::Error> {
        let journal = self.state.journal()?;
        let has_guard = self.state.host.read(GUARD_MANIFEST)?.is_some();
        let Some(change) = &journal.change else {
            // The journal was lost under a guard, which has nothing to go by any more.
            let locked = if has_guard { self.state.try_lock()? } else { None };
            return locked.map_or(Ok(()), |locked| Ok(locked.host.remove(GUARD_MANIFEST)?));
        };
        let never_began = change.stage == Stage::Staged
            && process::clock().ms_since(&change.staged) > GUARD_TIMEOUT_MS + guard_wait_ms(&journal);
        if !change.stage.is_final() && !has_guard && !never_began {
            // Whoever holds the lock is the guard, as `audit-operator apply` is.
            let Some(locked) = self.state.try_lock()? else { return Ok(()) };
            // It may have come to its end since the journal was read.
            if let Some(change) = locked.journal()?.unconfirmed() {
                let guard = plan::guard_manifest(&self.guard_template(), change.number);
                locked.host.replace(GUARD_MANIFEST, guard.as_bytes(), 0o600)?;
            }
            return Ok(());
        }
        if !(change.stage.is_final() && has_guard || never_began) {
            return Ok(());
        }
        // A guard that runs holds the lock until it has finished.
        let Some(locked) = self.state.try_lock()? else { return Ok(()) };
        let mut journal = locked.journal()?;
        if never_began && journal.unconfirmed().is_some_and(|change| change.stage == Stage::Staged) {
            let number = journal.changes;
            let message = if has_guard {
                format!("the guard's container did not start; see the pod audit-operator-guard-{number} in kube-system")
            } else {
                format!(
                    "{GUARD_MANIFEST} could not be written; is its directory read-only, immutable or on a full disk?"
                )
            };
            let cause = Cause { reason: Reason::GuardDidNotStart, message, last_words: None };
            journal.finish(Stage::Abandoned, Some(cause), process::clock().wall);
            locked.record(&journal)?;
        }
        // A guard that was stopped after the verdict may not have come to it.
        if let Some(change) = journal.change.as_ref().filter(|change| change.stage.is_final()) {
            guard::tidy(&locked, change)?;
        }
        Ok(locked.host.remove(GUARD_MANIFEST)?)
    }
}

/// The guard itself waits for an API server that serves before it begins.
fn guard_wait_ms(journal: &Journal) -> u64 {
    journal
        .change
        .as_ref()
        .map_or(0, |change| u64::try_from(change.rollout.confirm_timeout_seconds).unwrap_or(0) * 1000)
}
