//! Clears up after a Change or a guard that was stopped: first a pure decision, then the deed.

use crate::api::Reason;
use crate::journal::{Cause, Clock, Journal, Stage, UnderWay, Verdict};
use crate::node::state::{self, LockedState, State};
use crate::node::{guard, process};
use crate::plan::{self, GUARD_MANIFEST};

/// How long the guard's container may take to start. Its image is the agent's own, which is on the node.
const GUARD_TIMEOUT_MS: u64 = 120_000;

/// A Change and its guard that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftover {
    /// The journal was lost under a guard, which then has nothing to do.
    GuardWithoutChange,
    /// The agent was stopped before it wrote the guard's manifest, or somebody removed it.
    ChangeWithoutGuard { number: u64 },
    /// The guard has not begun in time.
    NeverBegan { has_guard: bool },
    /// The guard was stopped after the verdict.
    EndedWithGuard,
}

/// Whether anything is left over. `has_guard`: the guard's manifest is there.
fn leftover(journal: &Journal, has_guard: bool, now: &Clock) -> Option<Leftover> {
    match (journal.under_way(), &journal.change) {
        (None, None) => has_guard.then_some(Leftover::GuardWithoutChange),
        (None, Some(_)) => has_guard.then_some(Leftover::EndedWithGuard),
        (Some(change), _) if never_began(change, now) => Some(Leftover::NeverBegan { has_guard }),
        (Some(change), _) => (!has_guard).then_some(Leftover::ChangeWithoutGuard { number: change.number }),
    }
}

/// The guard itself waits for an API server that serves before it begins.
fn never_began(change: UnderWay, now: &Clock) -> bool {
    let wait_ms = u64::try_from(change.rollout.confirm_timeout_seconds).unwrap_or(0).saturating_mul(1000);
    *change.stage == Stage::Staged && now.ms_since(&change.staged) > wait_ms.saturating_add(GUARD_TIMEOUT_MS)
}

/// `guard_template`: the guard's manifest for any Change.
pub(in crate::node) fn settle(state: &State, guard_template: &str) -> Result<(), guard::Error> {
    let find = |state: &State| {
        let has_guard = state.host.read(GUARD_MANIFEST)?.is_some();
        Ok::<_, state::Error>(leftover(&state.journal()?, has_guard, &process::clock()))
    };
    if find(state)?.is_none() {
        return Ok(());
    }
    // A guard that runs holds the lock until it has finished, as `audit-operator apply` does.
    let Some(locked) = state.try_lock()? else { return Ok(()) };
    // Again: a guard may have ended since.
    match find(&locked)? {
        Some(leftover) => clear(&locked, leftover, guard_template),
        None => Ok(()),
    }
}

fn clear(locked: &LockedState, leftover: Leftover, guard_template: &str) -> Result<(), guard::Error> {
    match leftover {
        Leftover::ChangeWithoutGuard { number } => {
            let guard = plan::guard_manifest(guard_template, number);
            locked.host.replace(GUARD_MANIFEST, guard.as_bytes(), 0o600)?;
            return Ok(());
        }
        Leftover::GuardWithoutChange => _ = guard::put_back_missing(locked, None)?,
        Leftover::NeverBegan { has_guard } => {
            let journal = locked.journal()?;
            if let Some(change) = journal.under_way() {
                let journal = change.ended(Verdict::Abandoned(why(has_guard, change.number)), process::clock().wall);
                locked.record(&journal)?;
                guard::tidy(locked, &journal)?;
            }
        }
        Leftover::EndedWithGuard => guard::tidy(locked, &locked.journal()?)?,
    }
    Ok(locked.host.remove(GUARD_MANIFEST)?)
}

fn why(has_guard: bool, number: u64) -> Cause {
    let message = if has_guard {
        format!("the guard's container did not start; see the pod audit-operator-guard-{number} in kube-system")
    } else {
        format!("{GUARD_MANIFEST} could not be written. Is its directory read-only or immutable, or its disk full?")
    };
    Cause { reason: Reason::GuardDidNotStart, message, last_words: None }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn journal(case: &str) -> Journal {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/journal").join(case).join("in.json");
        Journal::read(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_change_and_its_guard_are_brought_together() {
        // It was staged at 1,000 s, and may wait 120 s for its guard and 120 s for the API server.
        let now = |seconds: u64| Clock {
            wall: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            boot_id: "1".into(),
            since_boot_ms: seconds * 1000,
        };
        let (soon, late) = (now(1_240), now(1_241));
        let never = |has_guard| Some(Leftover::NeverBegan { has_guard });
        for (case, has_guard, now, want) in [
            ("v1-no-change", false, &soon, None),
            ("v1-no-change", true, &soon, Some(Leftover::GuardWithoutChange)),
            ("v1-staged", true, &soon, None),
            ("v1-staged", false, &soon, Some(Leftover::ChangeWithoutGuard { number: 1 })),
            ("v1-staged", true, &late, never(true)),
            ("v1-staged", false, &late, never(false)),
            ("v1-verifying", true, &late, None),
            ("v1-verifying", false, &late, Some(Leftover::ChangeWithoutGuard { number: 1 })),
            ("v1-rolling-back-manifest", false, &late, Some(Leftover::ChangeWithoutGuard { number: 1 })),
            ("v1-confirmed", false, &late, None),
            ("v1-confirmed", true, &late, Some(Leftover::EndedWithGuard)),
            ("v1-abandoned", true, &late, Some(Leftover::EndedWithGuard)),
        ] {
            assert_eq!(leftover(&journal(case), has_guard, now), want, "{case}, guard: {has_guard}");
        }
    }
}
