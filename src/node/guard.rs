//! The guard: replaces the manifest, watches, and confirms or rolls back.
//!
//! It runs as a static pod while a Change is unconfirmed, or within `audit-operator apply`. It gathers [`Evidence`],
//! asks [`verdict::next`], records the step in the journal, and takes it. It needs no Kubernetes API: its rollback
//! works on a node that has none.
//!
//! *Guarantees.* The journal names a step before it is taken. Every step can be taken twice. The guard replaces the
//! manifest only while it is the planned one. It ends only with a Verdict: no file on the disk makes it stop in the
//! middle of a Change. A journal that is lost or damaged is written again from its copy, or from memory; without both,
//! the guard puts a missing manifest back, reports, and waits for a person. *Assumptions.* The host's pid namespace and
//! `/proc`. *Caveats.* While the guard is stopped nobody counts: a deadline passes later.

mod evidence;
mod seen;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::files::{self, Host};
use super::state::{self, LockedState, State};
use super::{MANIFEST, process};
use crate::api::Reason;
use crate::error::LastError;
use crate::journal::{Cause, Change, Clock, Journal, Progress, Sha, Stage, UnderWay, Verdict};
use crate::plan::{
    self, AFTER, BEFORE, CHANGE_DIR, CONTENT, FLOOR, GUARD_MANIFEST, ORIGINAL, RESERVE, Refusal, StagedChange,
};
use crate::revision;
use crate::verdict::{self, Evidence, Step};
use evidence::{Look, broken_files, in_place, look};
use seen::Seen;

/// Time between two looks at the node: a container that exits at once lives for about 150 ms.
const INTERVAL: Duration = Duration::from_millis(100);
/// Place of a manifest that was taken out. The kubelet ignores dot files.
const TAKEN_OUT: &str = "/etc/kubernetes/manifests/.kube-apiserver.yaml.taken-out";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("our state has no {0}")]
    Lost(&'static str),
    #[error("cannot end the kubelet")]
    EndKubelet(#[source] std::io::Error),
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self {
            Error::State(error) => error.reason(),
            Error::File(error) => error.reason(),
            Error::Root(_) | Error::Lost(_) | Error::EndKubelet(_) => Reason::FileError,
        }
    }
}

/// Arguments of `audit-operator guard`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Root of the host's file system.
    #[arg(long, default_value = "/host", value_name = "DIR")]
    pub host_root: std::path::PathBuf,
}

/// The static pod: carries out the Change in the journal, then removes its own manifest.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let state = State::new(Host::of_node(args.host_root)?);
    let locked = loop {
        if let Some(locked) = state.try_lock()? {
            break locked;
        }
        // The agent holds the lock while it writes its files.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    };
    if watch(&locked, &stop).await.is_some() {
        // The verdict is durable. The kubelet ends this process once the file is gone.
        locked.host.remove(GUARD_MANIFEST)?;
        drop(locked);
        stop.cancelled().await;
    }
    Ok(())
}

/// Carries the recorded Change to its end and returns it; `None` if there is none, or the guard was stopped before.
pub async fn watch(state: &LockedState, stop: &CancellationToken) -> Option<Change> {
    let mut known = None;
    let mut seen = Seen::default();
    let mut last_error = LastError::default();
    loop {
        let pause = match round(state, &mut known, &mut seen).await {
            Ok(Round::NoChange) => return None,
            Ok(Round::Ended(change)) => return Some(*change),
            Ok(Round::Waited) => INTERVAL,
            // The next step follows at once.
            Ok(Round::Stepped) => Duration::ZERO,
            // A guard that gave up would leave the node in the middle of the Change.
            Err(error) => {
                if error.reason() == Reason::DiskFull && matches!(state.kept(RESERVE), Ok(Some(_))) {
                    tracing::warn!("the disk is full: releasing the reserved space");
                    drop(state.forget(RESERVE));
                }
                if let Some(error) = last_error.changed(&error) {
                    tracing::error!(error, "step failed; retrying");
                }
                INTERVAL
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The result of one round.
enum Round {
    NoChange,
    Waited,
    Stepped,
    Ended(Box<Change>),
}

/// Looks, decides, and takes one step. `known`: the journal of the round before.
async fn round(state: &LockedState, known: &mut Option<Journal>, seen: &mut Seen) -> Result<Round, Error> {
    let Some(journal) = recall(state, known)?.then_some(&*known).and_then(Option::as_ref) else {
        return Ok(Round::NoChange);
    };
    let Some(change) = journal.under_way() else {
        // The guard before may have been stopped right after the verdict.
        tidy(state, journal)?;
        return Ok(journal.change.clone().map_or(Round::NoChange, |change| Round::Ended(change.into())));
    };
    let Look { evidence, kubelet } = look(state, change, seen).await?;
    let now = process::clock();
    let step = decide(state, change, &evidence, &now)?;
    let kubelet = kubelet.map(|kubelet| kubelet.pid);
    if let Some(recorded) = carry_out(state, change, &step, &evidence, &now, kubelet)? {
        *known = Some(recorded);
    }
    Ok(if step == Step::Wait { Round::Waited } else { Round::Stepped })
}

/// Whether there is a journal with a Change, which `known` then has. If it is lost or damaged in the middle of the
/// Change, or cannot be read, it is written again: nobody else may end a Change while we hold the lock. An error leaves
/// `known` as it is: it may be all that is left of the Change.
fn recall(state: &LockedState, known: &mut Option<Journal>) -> Result<bool, Error> {
    let damage = match state.journal_or_copy() {
        Ok((found, damage)) if found.change.is_some() => {
            *known = Some(found);
            damage
        }
        Ok(_) if known.is_some() => Some(state::Error::JournalMissing),
        Err(error) if known.is_some() => Some(error),
        found => {
            put_back_missing(state, None)?;
            return found.map(|_| false).map_err(Into::into);
        }
    };
    if let (Some(damage), Some(journal)) = (damage, known) {
        tracing::error!(
            error = crate::error::chain(&damage),
            "the journal is lost or damaged in the middle of a change; writing it again"
        );
        state.record(journal)?;
    }
    Ok(true)
}

/// The next step. Before the first touch of the manifest, and not again, the Change itself is judged: a way back must
/// not depend on it.
fn decide(state: &State, change: UnderWay, evidence: &Evidence, now: &Clock) -> Result<Step, Error> {
    let step = verdict::next(change, evidence, now);
    if *change.stage == Stage::Staged
        && matches!(step, Step::BeginTakeOut { .. } | Step::BeginPutIn { .. })
        && let Err(Refusal { reason, message }) = judge(state, &change)?
    {
        let message = format!("{message}; the manifest was not touched");
        return Ok(Step::End(Verdict::Abandoned(Cause { reason, message, last_words: None })));
    }
    Ok(step)
}

/// Whether the staged Change may begin.
fn judge(state: &State, change: &Change) -> Result<Result<(), Refusal>, Error> {
    let (original, before, after) = (state.kept(ORIGINAL)?, state.kept(BEFORE)?, state.kept(AFTER)?);
    let (content, floor) = (state.kept(CONTENT)?, state.kept(FLOOR)?);
    let (Some(original), Some(before), Some(after)) = (original, before, after) else {
        let message = "our state has lost a manifest of the change; the agent stages it again".to_string();
        return Ok(Err(Refusal { reason: Reason::FileError, message }));
    };
    Ok(plan::recheck(&StagedChange {
        target: change.target.as_ref(),
        is_in_place: change.is_in_place,
        content: content.as_deref(),
        floor: floor.as_deref(),
        original: &original,
        before: &before,
        after: &after,
    }))
}

/// Records the step, then takes it. Returns the journal if it has changed. `kubelet`: the process of the kubelet.
fn carry_out(
    state: &LockedState,
    change: UnderWay,
    step: &Step,
    evidence: &Evidence,
    now: &Clock,
    kubelet: Option<i32>,
) -> Result<Option<Journal>, Error> {
    if *step == Step::Wait {
        return Ok(None);
    }
    // The probe between the look and the step may have taken seconds: a manifest that somebody wrote meanwhile is not
    // replaced.
    let replaces = matches!(step, Step::TakeOut | Step::PutIn | Step::PutBack);
    if replaces && in_place(state, &change)? != evidence.in_place {
        return Ok(None);
    }
    tracing::info!(in_place = ?evidence.in_place, starts = evidence.starts, "{step}");
    let record = |stage: Stage| {
        let journal = change.at(stage);
        state.record(&journal)?;
        Ok::<_, Error>(Some(journal))
    };
    match step {
        Step::Wait => Ok(None),
        Step::BeginTakeOut { begun } => record(Stage::TakingOut { begun: begun.clone() }),
        Step::BeginPutIn { begun } => record(Stage::Verifying { begun: begun.clone() }),
        Step::TakeOut => state.host.rename(MANIFEST, TAKEN_OUT).map(|()| None).map_err(Into::into),
        Step::PutIn => put_in(state).map(|()| None),
        Step::PutBack => put_back(state, &change).map(|()| None),
        Step::RollBack(rollback) => {
            let cause = &rollback.cause;
            tracing::warn!(reason = %cause.reason, last_words = cause.last_words, "rolling back");
            record(Stage::RollingBack(rollback.clone()))
        }
        Step::RepairFiles(rollback) => {
            let files = broken_files(state, &change)?;
            let journal = record(Stage::RollingBack(rollback.clone()))?;
            for (path, good) in files {
                state.host.make_directory(state::parent(&path), 0o700)?;
                state.host.replace(&path, good.as_bytes(), 0o600)?;
                tracing::warn!(path, "repaired");
            }
            Ok(journal)
        }
        Step::EndKubelet(rollback) => {
            let journal = record(Stage::RollingBack(rollback.clone()))?;
            if let Some(pid) = kubelet {
                tracing::warn!(pid, "ending the kubelet once: it ignores the old manifest");
                process::terminate(pid).map_err(Error::EndKubelet)?;
            }
            Ok(journal)
        }
        Step::End(verdict) => end(state, change, verdict.clone(), now).map(Some),
    }
}

/// Puts the new manifest in place. If it cannot be written, the one that was taken out returns meanwhile: a rename
/// needs no space, and the node needs an API server.
fn put_in(state: &LockedState) -> Result<(), Error> {
    let written = put(state, AFTER);
    if written.is_err() {
        put_back_missing(state, None)?;
    }
    written
}

fn put_back(state: &LockedState, change: &Change) -> Result<(), Error> {
    if put_back_missing(state, Some(&change.before))? { Ok(()) } else { put(state, BEFORE) }
}

/// Puts a kept manifest in place. The one that was taken out stays under its own name until then.
fn put(state: &LockedState, name: &'static str) -> Result<(), Error> {
    let text = state.kept(name)?.ok_or(Error::Lost(name))?;
    state.host.replace_like(MANIFEST, text.as_bytes(), 0o600, Some(TAKEN_OUT))?;
    Ok(state.host.remove(TAKEN_OUT)?)
}

/// Whether there was no manifest, and there is one again: the one that was taken out, or else the kept one from before
/// the Change. Of two the one that is `before`.
pub(super) fn put_back_missing(state: &LockedState, before: Option<&Sha>) -> Result<bool, Error> {
    if state.manifest()?.is_some() {
        return Ok(false);
    }
    let taken_out = state.host.read(TAKEN_OUT)?;
    let has_kept = state.kept(BEFORE)?.is_some();
    let is_before = |taken_out: Vec<u8>| before.is_none_or(|before| Sha::of(&taken_out) == *before);
    if taken_out.is_some_and(|taken_out| is_before(taken_out) || !has_kept) {
        state.host.rename(TAKEN_OUT, MANIFEST)?;
    } else if has_kept {
        put(state, BEFORE)?;
    } else {
        return Ok(false);
    }
    tracing::warn!("the manifest of kube-apiserver was missing; the old one is back in place");
    Ok(true)
}

fn end(state: &LockedState, change: UnderWay, verdict: Verdict, now: &Clock) -> Result<Journal, Error> {
    if let (Verdict::RolledBack(_), Some(target)) = (&verdict, &change.target) {
        // A repaired directory no longer has the content of its name; the next attempt writes it again. It stays if the
        // manifest names it: the one that was put back, which ran that very Revision, or one that somebody wrote
        // meanwhile.
        let directory = revision::directory(target);
        let is_named = |text: Vec<u8>| String::from_utf8_lossy(&text).contains(&directory);
        if !state.manifest()?.is_some_and(is_named) {
            state.host.remove_directory(&directory)?;
        }
    }
    let journal = change.ended(verdict, now.wall);
    state.record(&journal)?;
    Ok(journal)
}

/// Removes the files of a Change whose verdict is durable: they may hold a password.
pub(super) fn tidy(state: &LockedState, journal: &Journal) -> Result<(), Error> {
    let Some(Change { target, progress: Progress::Ended { verdict, .. }, .. }) = &journal.change else {
        return Ok(());
    };
    if *verdict == Verdict::Confirmed && target.is_none() {
        state.forget(ORIGINAL)?;
    }
    // First: it may be the only manifest, after a stop at the wrong moment or under a damaged journal. No other one is
    // put in place: a manifest that is missing without it was removed by somebody, who may have a reason to keep
    // kube-apiserver from running.
    if state.manifest()?.is_none() && state.host.read(TAKEN_OUT)?.is_some() {
        state.host.rename(TAKEN_OUT, MANIFEST)?;
    }
    state.host.remove_directory(&state::path(CHANGE_DIR))?;
    state.host.remove_temporary(MANIFEST)?;
    Ok(state.host.remove(TAKEN_OUT)?)
}

#[cfg(test)]
mod tests;
