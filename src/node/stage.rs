//! Carries out the agent's part of a plan: files first, the record last.
//!
//! *Flow.* Each action in its order; the journal's record makes the change begin, the guard's manifest follows it.
//! *Guarantees.* Until the record is durable nothing has changed for kube-apiserver; a stop before it leaves files that the next
//! run writes again. *Errors.* The first failed file operation ends the staging, before the record.

use super::files;
use super::state::{self, LockedState};
use crate::journal::Sha;
use crate::plan::{Action, ORIGINAL, Steps};

/// Stages a change.
pub fn stage(state: &LockedState, steps: &Steps) -> Result<(), state::Error> {
    for action in &steps.actions {
        carry_out(state, action, steps)?;
    }
    Ok(())
}

fn carry_out(state: &LockedState, action: &Action, steps: &Steps) -> Result<(), state::Error> {
    tracing::debug!(%action, "staging");
    match action {
        Action::MakeDirectory { path, mode } => state.host.make_directory(path, *mode)?,
        Action::WriteFile { path, mode, content } => write(state, path, content, *mode)?,
        Action::Keep { name, content } => state.keep(name, content)?,
        Action::Record => {
            let mut journal = state.journal()?;
            if let Some(original) = state.kept(ORIGINAL)? {
                journal.original = Some(Sha::of(original.as_bytes()));
            }
            journal.changes = steps.change.number;
            journal.change = Some(steps.change.clone());
            state.record(&journal)?;
        }
        Action::StartGuard { manifest } => write(state, crate::plan::GUARD_MANIFEST, manifest, 0o600)?,
    }
    Ok(())
}

fn write(state: &LockedState, path: &str, content: &str, mode: u32) -> Result<(), files::Error> {
    state.host.replace(path, content.as_bytes(), mode).map(|_| ())
}
