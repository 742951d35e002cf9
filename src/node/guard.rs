//! The guard: replaces the manifest, watches, and confirms or takes back.
//!
//! It runs as a static pod while a change is unconfirmed, or within `audit-operator apply`. It gathers [`Evidence`], asks
//! [`verdict::next`], makes the journal say what is about to happen, and does it. It needs no Kubernetes API: its rollback works on a
//! node that has none.
//!
//! *Guarantees.* The journal names a step before it is taken. Every step can be taken twice. The manifest is only replaced while
//! it still is what was planned against. *Assumptions.* The host's pid namespace and `/proc`.
//! *Caveats.* While the guard is stopped nobody counts: a deadline passes later.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::files::{self, Host};
use super::state::{self, LockedState, State};
use super::{MANIFEST, POD_LOGS_DIR, observe, probe, process};
use crate::api::Reason;
use crate::error::LastError;
use crate::journal::{Cause, Change, Clock, EndedKubelet, Journal, Rollback, Sha, Stage, Way};
use crate::plan::{
    self, AFTER, BEFORE, CHANGE_DIR, CONTENT, FLOOR, GUARD_MANIFEST, ORIGINAL, REPAIR_DIR, RESERVE, Refusal, Staged,
};
use crate::revision;
use crate::verdict::{self, Evidence, InPlace, Kubelet, Process, Runs, Step};

/// How often the node is looked at: a container that dies at once lives for about 150 ms.
const INTERVAL: Duration = Duration::from_millis(100);
/// The kubelet lets go of a static pod some time after its process is gone; put in earlier, the new manifest waits for the
/// kubelet's next round, 10 s later (measured on 1.36.3: 1.5 s is enough, n = 4).
const RELEASE: Duration = Duration::from_millis(1500);
/// Where a manifest lies that was taken out. The kubelet ignores dot files.
const TAKEN_OUT: &str = "/etc/kubernetes/manifests/.kube-apiserver.yaml.taken-out";
/// Bytes at the end of a container's log in which its last line is looked for.
const LAST_WORDS_BYTES: u64 = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("{0} is missing from our state")]
    Lost(&'static str),
    #[error("cannot end the kubelet")]
    EndKubelet(#[source] std::io::Error),
}

/// Arguments of `audit-operator guard`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the file system of the host lies.
    #[arg(long, default_value = "/host", value_name = "DIR")]
    pub host_root: std::path::PathBuf,
}

/// The static pod: carries the change out that the journal records, then removes its own manifest.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let state = State::new(Host::of_node(args.host_root)?);
    let locked = loop {
        if let Some(locked) = state.try_lock()? {
            break locked;
        }
        // The agent holds the lock for as long as it writes its files.
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    };
    if watch(&locked, &stop).await?.is_some() {
        // The verdict is durable. The kubelet ends this process once the file is gone.
        locked.host.remove(GUARD_MANIFEST)?;
        drop(locked);
        stop.cancelled().await;
    }
    Ok(())
}

/// Carries the recorded change to its end and returns it; nothing if it was stopped before.
pub async fn watch(state: &LockedState, stop: &CancellationToken) -> Result<Option<Change>, Error> {
    let mut memory = Memory::default();
    let mut last_error = LastError::default();
    loop {
        let step = match state.journal() {
            // Nothing is known of any change.
            Err(error) if memory.journal.is_none() => return Err(error.into()),
            Err(error) => Err(error.into()),
            Ok(found) => {
                let Some(journal) = remember(state, &mut memory, found)? else { return Ok(None) };
                let change = journal.change.as_ref().expect("only such a one is remembered");
                if change.stage.is_final() {
                    // Whoever was stopped right after the verdict has left this to the next one.
                    match tidy(state, change) {
                        Ok(()) => return Ok(journal.change),
                        Err(error) => Err(error.into()),
                    }
                } else {
                    advance(state, journal, &mut memory).await
                }
            }
        };
        let pause = match step {
            // The next step follows at once.
            Ok(Step::Wait) => INTERVAL,
            Ok(_) => Duration::ZERO,
            // A guard that gave up would leave the node as it is in the middle of the change.
            Err(error) => {
                if is_full(&error) && matches!(state.kept(RESERVE), Ok(Some(_))) {
                    tracing::warn!("the disk is full: giving the reserve free");
                    drop(state.forget(RESERVE));
                }
                if let Some(error) = last_error.changed(&error) {
                    tracing::error!(error, "this step failed and is taken again and again");
                }
                INTERVAL
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The journal of a change. One that somebody removed in the middle of it is written anew: nobody else may end a change while we
/// hold the lock.
fn remember(state: &LockedState, memory: &mut Memory, found: Journal) -> Result<Option<Journal>, Error> {
    if found.change.is_some() {
        return Ok(memory.journal.insert(found).clone().into());
    }
    if let Some(journal) = &memory.journal {
        tracing::error!("the journal is gone in the middle of a change, and is written anew");
        state.record(journal)?;
    }
    Ok(memory.journal.clone())
}

/// Looks, decides, and takes one step.
async fn advance(state: &LockedState, mut journal: Journal, memory: &mut Memory) -> Result<Step, Error> {
    let change = journal.change.as_ref().expect("the guard only acts on a recorded change");
    let evidence = gather(state, change, memory).await?;
    let now = process::clock();
    let step = decide(state, change, &evidence, &now)?;
    if step != Step::Wait {
        carry_out(state, &mut journal, &step, &evidence, &now, memory)?;
        memory.journal = Some(journal);
    }
    Ok(step)
}

/// What to do next. Before the first touch of the manifest, and not again, the change itself is judged: a way back must not depend on it.
fn decide(state: &State, change: &Change, evidence: &Evidence, now: &Clock) -> Result<Step, Error> {
    let step = verdict::next(change, evidence, now);
    if change.stage == Stage::Staged
        && matches!(step, Step::BeginTakeOut | Step::BeginPutIn)
        && let Err(Refusal { reason, message }) = judge(state, change)?
    {
        let message = format!("{message}; the manifest was not touched");
        let cause = Cause { reason, message, last_words: None };
        return Ok(Step::Finish { stage: Stage::Abandoned, cause: Some(cause) });
    }
    Ok(step)
}

/// Whether the change that is staged may begin.
fn judge(state: &State, change: &Change) -> Result<Result<(), Refusal>, Error> {
    let (original, before, after) = (state.kept(ORIGINAL)?, state.kept(BEFORE)?, state.kept(AFTER)?);
    let (content, floor) = (state.kept(CONTENT)?, state.kept(FLOOR)?);
    let (Some(original), Some(before), Some(after)) = (original, before, after) else {
        let message =
            "a manifest that the change is made of is gone from our state; the agent stages it again".to_string();
        return Ok(Err(Refusal { reason: Reason::FileError, message }));
    };
    Ok(plan::recheck(&Staged {
        target: change.target.as_ref(),
        is_in_place: change.is_in_place,
        content: content.as_deref(),
        floor: floor.as_deref(),
        original: &original,
        before: &before,
        after: &after,
    }))
}

fn is_full(error: &Error) -> bool {
    match error {
        Error::State(state::Error::File(error)) | Error::File(error) => error.reason() == Reason::DiskFull,
        _ => false,
    }
}

/// What only continuous watching can tell.
#[derive(Default)]
struct Memory {
    /// As it was last read or written.
    journal: Option<Journal>,
    serving_since_ms: Option<u64>,
    /// Since when an API server has been seen to serve, and the kubelet that ran then.
    kubelet_with_api: Option<(i32, u64)>,
    gone_since_ms: Option<u64>,
    /// Starts and last words at the last look.
    written: Option<(u32, Option<String>)>,
    kubelet: Option<process::Process>,
    /// Process of kube-apiserver that was serving: another one has to earn its time anew.
    serving_pid: Option<i32>,
    /// Starts when an old process was last seen.
    starts_beside_old: u32,
}

async fn gather(state: &State, change: &Change, memory: &mut Memory) -> Result<Evidence, Error> {
    let in_place = in_place(state, change)?;
    // Before the processes: a container that has written and is not among them has ended.
    let written = newest_pod(&state.host, change)?;
    let is_serving = probe::is_serving(&change.probe).await;
    let now = process::clock();
    let now_ms = now.since_boot_ms;
    let process = api_server(&state.host, change)?;
    let pid = process.as_ref().map(|process| process.pid);
    // Two processes in a row may answer without a gap that the probe sees.
    if !is_serving || memory.serving_pid != pid {
        memory.serving_since_ms = None;
    }
    if is_serving {
        memory.serving_since_ms.get_or_insert(now_ms);
    }
    memory.serving_pid = pid;
    memory.kubelet = process::called("kubelet").into_iter().rfind(|kubelet| process::is_of_host(kubelet.pid));
    if let (true, Some(kubelet)) = (is_serving, &memory.kubelet) {
        memory.kubelet_with_api = Some((kubelet.pid, kubelet.started_since_boot_ms));
    }
    match pid {
        Some(_) => memory.gone_since_ms = None,
        None => {
            memory.gone_since_ms.get_or_insert(now_ms);
        }
    }
    // What a container wrote last reaches its log a moment after it ended: its end counts once nothing more comes.
    let is_settled = process.is_some() || memory.written.as_ref() == Some(&written);
    let (starts, last_words) = memory.written.insert(written).clone();
    let starts = if is_settled { starts } else { starts.saturating_sub(1) };
    let process = process.map(|process| Process {
        runs: runs(change, &process.argv),
        started_since_boot_ms: process.started_since_boot_ms,
    });
    if process.is_some_and(|process| !verdict::is_new(change, process, &now)) {
        memory.starts_beside_old = starts;
    }
    Ok(Evidence {
        in_place,
        process,
        released: memory
            .gone_since_ms
            .is_some_and(|gone| now_ms - gone >= u64::try_from(RELEASE.as_millis()).unwrap_or(u64::MAX)),
        is_repaired: is_repaired(state, change)?,
        serving_ms: memory.serving_since_ms.map(|since| now_ms - since),
        starts,
        starts_beside_old: memory.starts_beside_old,
        last_words,
        kubelet: memory.kubelet.as_ref().map(|kubelet| Kubelet {
            started_since_boot_ms: kubelet.started_since_boot_ms,
            has_seen_api: memory.kubelet_with_api == Some((kubelet.pid, kubelet.started_since_boot_ms)),
        }),
    })
}

/// The oldest process of kube-apiserver that is not of another pod: a node may host API servers of other clusters.
fn api_server(host: &Host, change: &Change) -> Result<Option<process::Process>, files::Error> {
    let mut ours = observe::pods(host, &change.pod)?;
    ours.extend_from_slice(&change.pods_before);
    let is_ours = |process: &process::Process| may_be_of(process::pod(process.pid).as_deref(), &ours);
    Ok(process::called("kube-apiserver").into_iter().find(is_ours))
}

/// Whether a process of this pod may be of one of those whose log directories are known. With none known (the kubelet's `podLogsDir` lies
/// elsewhere) nothing can be told apart.
fn may_be_of(pod: Option<&str>, log_directories: &[String]) -> bool {
    let is_uid = |directory: &String| directory.rsplit_once('_').is_some_and(|(_, uid)| Some(uid) == pod);
    pod.is_none() || log_directories.is_empty() || log_directories.iter().any(is_uid)
}

fn in_place(state: &State, change: &Change) -> Result<InPlace, Error> {
    let Some(bytes) = state.manifest()? else { return Ok(InPlace::Missing) };
    Ok(match Sha::of(&bytes) {
        sha if sha == change.after => InPlace::After,
        sha if sha == change.before => InPlace::Before,
        _ => InPlace::Foreign,
    })
}

fn runs(change: &Change, argv: &[String]) -> Runs {
    match (is_of(argv, &change.argv_before), is_of(argv, &change.argv_after)) {
        (true, true) => Runs::Either,
        (true, false) => Runs::Before,
        (false, true) => Runs::After,
        (false, false) => Runs::Other,
    }
}

/// Whether a process was started with a command line of a manifest. The image has the executable where the manifest has arguments only.
fn is_of(argv: &[String], written: &[String]) -> bool {
    let Some(by_image) = argv.len().checked_sub(written.len()) else { return false };
    let (entry, rest) = argv.split_at(by_image);
    let is_entry = by_image == 0 || (written.first().is_none_or(|first| first.starts_with('-')) && !entry.is_empty());
    is_entry
        && entry.iter().all(|word| !word.starts_with('-'))
        && rest.iter().zip(written).all(|(argument, written)| is_expanded(argument, written))
}

/// Whether an argument is what the kubelet makes of `written`: `$$` is a dollar, and `$(NAME)` is any value, or stays
/// (kubernetes@v1.36.3 third_party/forked/golang/expansion/expand.go).
fn is_expanded(argument: &str, written: &str) -> bool {
    let Some((before, behind)) = written.split_once('$') else { return argument == written };
    let Some(argument) = argument.strip_prefix(before) else { return false };
    if let Some(behind) = behind.strip_prefix('$') {
        return argument.strip_prefix('$').is_some_and(|rest| is_expanded(rest, behind));
    }
    match behind.strip_prefix('(').and_then(|name| name.split_once(')')) {
        Some((_, behind)) => argument
            .char_indices()
            .map(|(at, _)| at)
            .chain([argument.len()])
            .any(|end| is_expanded(&argument[end..], behind)),
        None => argument.strip_prefix('$').is_some_and(|rest| is_expanded(rest, behind)),
    }
}

/// Starts of the container in the newest pod of this change, and its last words. The kubelet names a container's log after its
/// number of restarts and keeps the newest ones. A log is there before its process: a start counts once something was written.
fn newest_pod(host: &Host, change: &Change) -> Result<(u32, Option<String>), files::Error> {
    let mut newest = (0, None);
    for pod in observe::pods(host, &change.pod)? {
        if change.pods_before.contains(&pod) {
            continue;
        }
        let directory = format!("{POD_LOGS_DIR}/{pod}/{}", change.container);
        let names = host.list(&directory)?;
        for restarts in names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<u32>().ok()) {
            if restarts < newest.0 {
                continue;
            }
            match last_line(host, &format!("{directory}/{restarts}.log")) {
                Some(words) => newest = (restarts + 1, Some(words)),
                // What came before it was started, and has ended.
                None => newest.0 = newest.0.max(restarts),
            }
        }
    }
    Ok(newest)
}

/// The last line of a container's log, without the runtime's own prefix (`<time> <stream> <tag> `).
fn last_line(host: &Host, path: &str) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = host.open_file(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    let words = line.splitn(4, ' ').nth(3).unwrap_or(line).trim();
    Some(words.chars().take(1000).collect())
}

/// Records what is about to happen, then does it.
fn carry_out(
    state: &LockedState,
    journal: &mut Journal,
    step: &Step,
    evidence: &Evidence,
    now: &Clock,
    memory: &Memory,
) -> Result<(), Error> {
    // The probe between the look and the deed may have taken seconds: what somebody wrote meanwhile is not replaced.
    let replaces = matches!(step, Step::TakeOut | Step::PutIn | Step::PutBack);
    if replaces && in_place(state, journal.change.as_ref().expect("there is one"))? != evidence.in_place {
        return Ok(());
    }
    tracing::info!(in_place = ?evidence.in_place, starts = evidence.starts, "{step}");
    let change = journal.change.as_mut().expect("the guard only acts on a recorded change");
    match step {
        Step::Wait => {}
        Step::BeginTakeOut => begin(state, journal, Stage::TakingOut, now)?,
        Step::TakeOut => state.host.rename(MANIFEST, TAKEN_OUT)?,
        Step::BeginPutIn => begin(state, journal, Stage::Verifying, now)?,
        Step::PutIn => put_in(state, change)?,
        Step::PutBack => put_back(state, change)?,
        Step::RollBack { way, cause } => {
            let ended_kubelet = change.rollback.take().and_then(|rollback| rollback.ended_kubelet);
            change.rollback = Some(Rollback { way: *way, begun: now.clone(), starts: evidence.starts, ended_kubelet });
            change.cause = Some(cause.clone());
            change.stage = Stage::RollingBack;
            tracing::warn!(reason = %cause.reason, last_words = cause.last_words, "it is taken back");
            state.record(journal)?;
        }
        Step::RepairFiles => {
            let files = broken_files(state, change)?;
            let rollback = change.rollback.as_mut().expect("files are only made good on a way back");
            rollback.starts = evidence.starts;
            if rollback.begun.boot_id != now.boot_id {
                rollback.begun = now.clone();
            }
            state.record(journal)?;
            for (path, good) in files {
                state.host.make_directory(path.rsplit_once('/').expect("a path").0, 0o700)?;
                state.host.replace(&path, good.as_bytes(), 0o600)?;
                tracing::warn!(path, "repaired");
            }
        }
        Step::EndKubelet => {
            let rollback = change.rollback.as_mut().expect("the kubelet is only ended on a way back");
            rollback.ended_kubelet = evidence
                .kubelet
                .map(|Kubelet { started_since_boot_ms, .. }| EndedKubelet { started_since_boot_ms, at: now.clone() });
            state.record(journal)?;
            if let Some(kubelet) = &memory.kubelet {
                tracing::warn!(pid = kubelet.pid, "ending the kubelet once: it ignores the repaired manifest");
                process::terminate(kubelet.pid).map_err(Error::EndKubelet)?;
            }
        }
        Step::Finish { stage, cause } => finish(state, journal, *stage, cause.clone(), now)?,
    }
    Ok(())
}

fn begin(state: &LockedState, journal: &mut Journal, stage: Stage, now: &Clock) -> Result<(), Error> {
    let change = journal.change.as_mut().expect("the guard only acts on a recorded change");
    change.stage = stage;
    // The deadline counts from the first touch of the manifest.
    change.begun.get_or_insert_with(|| now.clone());
    Ok(state.record(journal)?)
}

/// Puts the new manifest in place. Where it cannot be written, the one that was taken out lies there again meanwhile: a rename needs no
/// space, and the node an API server.
fn put_in(state: &LockedState, change: &Change) -> Result<(), Error> {
    let written = put(state, AFTER);
    if written.is_err() && in_place(state, change)? == InPlace::Missing {
        put_back_taken_out(state, change)?;
    }
    written
}

fn put_back(state: &LockedState, change: &Change) -> Result<(), Error> {
    if in_place(state, change)? == InPlace::Missing && put_back_taken_out(state, change)? {
        return Ok(());
    }
    put(state, BEFORE)
}

/// Puts a kept manifest in place. The one that was taken out is kept there under its own name until then.
fn put(state: &LockedState, name: &'static str) -> Result<(), Error> {
    let text = state.kept(name)?.ok_or(Error::Lost(name))?;
    state.host.replace_like(MANIFEST, text.as_bytes(), 0o600, Some(TAKEN_OUT))?;
    Ok(state.host.remove(TAKEN_OUT)?)
}

/// Whether what was taken out is the old manifest, and lies in its place now.
fn put_back_taken_out(state: &LockedState, change: &Change) -> Result<bool, files::Error> {
    let is_old = state.host.read(TAKEN_OUT)?.is_some_and(|bytes| Sha::of(&bytes) == change.before);
    if is_old {
        state.host.rename(TAKEN_OUT, MANIFEST)?;
    }
    Ok(is_old)
}

/// The files that the new manifest mounts and that are not good, with a content that kube-apiserver is known to come up with.
fn broken_files(state: &State, change: &Change) -> Result<Vec<(String, String)>, Error> {
    let Some(target) = &change.target else { return Ok(Vec::new()) };
    let directory = revision::directory(target);
    let mut found = Vec::new();
    for name in state.host.list(&state::path(REPAIR_DIR))? {
        let path = format!("{directory}/{name}");
        if let Some(good) = state.kept(&format!("{REPAIR_DIR}/{name}"))?
            && state.host.read(&path)?.as_deref() != Some(good.as_bytes())
        {
            found.push((path, good));
        }
    }
    Ok(found)
}

/// Whether the files are good, where they are the way back.
fn is_repaired(state: &State, change: &Change) -> Result<bool, Error> {
    let is_way = change.rollback.as_ref().is_some_and(|rollback| rollback.way == Way::Files);
    Ok(is_way && broken_files(state, change)?.is_empty())
}

fn finish(
    state: &LockedState,
    journal: &mut Journal,
    stage: Stage,
    cause: Option<crate::journal::Cause>,
    now: &Clock,
) -> Result<(), Error> {
    journal.finish(stage, cause, now.wall);
    let change = journal.change.as_ref().expect("it was finished just now");
    if stage == Stage::RolledBack
        && let Some(target) = &change.target
    {
        // What was repaired no longer is what its name says; the next attempt writes it anew. Unless the manifest that lies there
        // names it: the one that was put back, which ran that very Revision, or one that somebody wrote meanwhile.
        let directory = revision::directory(target);
        let is_named = |text: Vec<u8>| String::from_utf8_lossy(&text).contains(&directory);
        if !state.manifest()?.is_some_and(is_named) {
            state.host.remove_directory(&directory)?;
        }
    }
    Ok(state.record(journal)?)
}

/// Removes what a change leaves behind whose verdict is durable. What it was made of may hold a password.
pub(super) fn tidy(state: &LockedState, change: &Change) -> Result<(), state::Error> {
    if change.stage == Stage::Confirmed && change.target.is_none() {
        state.forget(ORIGINAL)?;
    }
    // Before what it was made of: a stop at the wrong moment may have left it as the only manifest.
    if change.stage != Stage::Confirmed && state.manifest()?.is_none() {
        put_back_taken_out(state, change)?;
    }
    state.host.remove_directory(&state::path(CHANGE_DIR))?;
    state.host.remove_temporary(MANIFEST)?;
    Ok(state.host.remove(TAKEN_OUT)?)
}

#[cfg(test)]
mod tests;
