//! Carries out the agent's part of a plan: files first, the record last. And removes files that a change has made
//! useless.
//!
//! *Flow.* Each action in its order; the record in the journal begins the Change, the guard's manifest follows it.
//! *Guarantees.* Until the record is durable nothing has changed for kube-apiserver; a stop before it leaves files that
//! the next run writes again. *Errors.* The first failed file operation ends the staging, before the record.

use super::state::{self, LockedState};
use super::{STATE_DIR, files};
use crate::journal::Sha;
use crate::plan::{Action, CHANGE_DIR, ORIGINAL, Steps};
use crate::revision::credential::Directory;
use crate::revision::{AUDIT_DIR, CREDENTIALS_DIR, REVISIONS_DIR, Revision, RevisionId, directory};

/// Stages a Change.
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

/// Repairs the files of the running Revision: kube-apiserver reads them again at its next start.
pub fn keep_files(state: &LockedState, revision: &Revision) -> Result<(), files::Error> {
    let directory = revision.directory();
    for path in [REVISIONS_DIR, &directory] {
        state.host.make_directory(path, 0o700)?;
    }
    for (name, content) in revision.files() {
        let path = format!("{directory}/{name}");
        if state.host.replace(&path, content.as_bytes(), 0o600)? {
            tracing::warn!(path, "repaired: the file was missing or changed");
        }
    }
    Ok(())
}

/// Removes our files from a node whose manifest has nothing of ours and should have nothing. The log stays, and our
/// directory if somebody else has files in it.
pub fn leave(state: LockedState) -> Result<(), state::Error> {
    remove_unused(&state, None)?;
    state.host.remove_directory(&state::path(CHANGE_DIR))?;
    // It is written without the lock.
    state.host.remove_temporary(&state::path(state::LOSSES))?;
    // The journal after the files that it names, and the lock last.
    for name in [ORIGINAL, state::LOSSES, state::JOURNAL, state::LOCK] {
        state.forget(name)?;
    }
    Ok(state.host.remove_empty_directory(STATE_DIR)?)
}

/// Removes all Revisions but the running one, and the credentials that it does not name. Only for a node that is up to
/// date. Never removes foreign files: people keep their own policies in [`AUDIT_DIR`] too. Never removes a file that
/// the manifest names, no matter who wrote the manifest: kube-apiserver reads it at its next start.
pub fn remove_unused(state: &LockedState, runs: Option<&Revision>) -> Result<(), files::Error> {
    let host = &state.host;
    let manifest = state.manifest()?.unwrap_or_default();
    let is_named_in_manifest = |directory: &str| memchr::memmem::find(&manifest, directory.as_bytes()).is_some();
    let mut has_others = false;
    for name in host.list(REVISIONS_DIR)? {
        let Ok(id) = RevisionId::try_from(name) else { continue };
        if runs.is_some_and(|runs| runs.id == id) {
            continue;
        }
        let directory = directory(&id);
        if is_named_in_manifest(&directory) {
            has_others = true;
        } else {
            host.remove_directory(&directory)?;
        }
    }
    for name in host.list(CREDENTIALS_DIR)? {
        // A directory with another name is not ours.
        if Directory::try_from(name.clone()).is_err() {
            continue;
        }
        let is_used = |runs: &Revision| {
            runs.content.webhook.as_ref().is_some_and(|webhook| webhook.credentials.to_string() == name)
        };
        // A Revision that is unknown here may name any of them.
        if !has_others && !runs.is_some_and(is_used) {
            host.remove_directory(&format!("{CREDENTIALS_DIR}/{name}"))?;
        }
    }
    if runs.is_none() {
        for directory in [REVISIONS_DIR, CREDENTIALS_DIR, AUDIT_DIR] {
            host.remove_empty_directory(directory)?;
        }
    }
    Ok(())
}
