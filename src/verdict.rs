//! A [`Change`], the [`Evidence`] and the time, in; the next [`Step`] of the guard, out.
//!
//! This is the whole judgement of commit and rollback, as one pure function: the guard gathers evidence, asks [`next`], carries
//! the step out and asks again. Each step may be repeated, since the guard can be killed before, within or after it.
//!
//! What makes the way back difficult is a kubelet that was started while the API server was down: until it has seen an API server it
//! ignores every changed manifest (it never removes the old static pod while its API source is not ready:
//! kubernetes@v1.36.3 pkg/kubelet/pod_workers.go, allowPodStart and pkg/kubelet/kubelet.go, HandlePodCleanups). Then the manifest must
//! stay as that kubelet first saw it, and what it mounts is made good.

use std::fmt;

use crate::api::{Method, Reason, RestartKubelet};
use crate::journal::{Cause, Change, Clock, Rollback, Stage, Way};

/// Exits of the new container after which it is not waited for any longer. The first may have an innocent cause (a port that
/// is not free yet); the kubelet's back-off makes each further one dearer.
const EXITS_OF_A_CRASH_LOOP: u32 = 2;
/// How long a kubelet may take to start the old manifest again before it counts as stuck: its slowest window for a pod that
/// waits for its predecessor is 45 s, plus the 30 s grace of the predecessor (facts measured on 1.36.3).
pub(crate) const STUCK_AFTER_MS: u64 = 120_000;
/// How long a kubelet may take to end, once it was told.
const KUBELET_ENDS_WITHIN_MS: u64 = 10_000;
/// How long the files are waited for, to be repaired and then to be read: the container's back-off may have reached 160 s.
const FILES_TIMEOUT_MS: u64 = 240_000;
/// How long an API server that does not serve is waited for before a change begins.
const BEGIN_TIMEOUT_MS: u64 = 300_000;

/// What lies where the manifest should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    Before,
    After,
    Missing,
    /// Neither: somebody else wrote it.
    Foreign,
}

/// What the guard sees. Gathered anew before each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub in_place: InPlace,
    /// The process of kube-apiserver, if there is one; of two the older.
    pub process: Option<Process>,
    /// Whether the old process, and after it the kubelet's last trace of its pod, is gone; only looked at while the manifest
    /// is taken out.
    pub released: bool,
    /// Whether the files that the new manifest mounts are good; only looked at on the way back by them.
    pub is_repaired: bool,
    /// Milliseconds for which `/readyz` has answered well without a break.
    pub serving_ms: Option<u64>,
    /// Starts of the container in the newest pod that was not there before the change.
    pub starts: u32,
    /// Of these, starts while an old process still ran. They fail for its port alone: a kubelet that was started meanwhile does not wait for
    /// the pod that it replaces.
    pub starts_beside_old: u32,
    /// Last line that a container of a new pod wrote.
    pub last_words: Option<String>,
    pub kubelet: Option<Kubelet>,
}

/// The process of kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub runs: Runs,
    pub started_since_boot_ms: u64,
}

/// By its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    Before,
    After,
    /// Both manifests have the same command line.
    Either,
    Other,
}

/// The process of the kubelet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kubelet {
    pub started_since_boot_ms: u64,
    /// Whether an API server was seen to serve since this kubelet was started.
    pub has_seen_api: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again.
    Wait,
    /// Record that the manifest is being taken out. Then take it out.
    BeginTakeOut,
    TakeOut,
    /// Record that the new manifest is being put in. Then put it in.
    BeginPutIn,
    PutIn,
    /// Record the way back, or a further one.
    RollBack {
        way: Way,
        cause: Cause,
    },
    /// Put the old manifest back.
    PutBack,
    /// Record that no start until now has read good files. Then make those good that the new manifest mounts.
    RepairFiles,
    /// Record that the kubelet is ended. Then end it.
    EndKubelet,
    Finish {
        stage: Stage,
        cause: Option<Cause>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Wait => f.write_str("looking again"),
            Step::BeginTakeOut => f.write_str("about to take the manifest out"),
            Step::TakeOut => f.write_str("the manifest is taken out; kube-apiserver ends"),
            Step::BeginPutIn => f.write_str("about to put the new manifest in place"),
            Step::PutIn => {
                f.write_str("the new manifest is in place; waiting for the kubelet to start kube-apiserver with it")
            }
            Step::RollBack { way: Way::Manifest, cause } => write!(f, "taking it back: {}", cause.message),
            Step::RollBack { way: Way::Files, cause } => {
                write!(f, "taking it back by its files, for the kubelet ignores manifests now: {}", cause.message)
            }
            Step::RollBack { way: Way::Kubelet, cause } => {
                write!(f, "taking it back, and the kubelet has to be ended for it: {}", cause.message)
            }
            Step::PutBack => f.write_str("the old manifest is put back"),
            Step::RepairFiles => f.write_str("the files that the new manifest mounts are made good"),
            Step::EndKubelet => f.write_str("ending the kubelet once, so that its service manager starts it anew"),
            Step::Finish { stage: Stage::Confirmed, .. } => f.write_str("confirmed"),
            Step::Finish { stage: Stage::RolledBack, .. } => f.write_str("taken back; kube-apiserver serves as before"),
            Step::Finish { .. } => f.write_str("given up"),
        }
    }
}

/// Decides the next step.
pub fn next(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    match change.stage {
        Stage::Staged => begin(change, evidence, now),
        Stage::TakingOut => take_out(change, evidence, now),
        Stage::Verifying => verify(change, evidence, now),
        Stage::RollingBack => roll_back(change, evidence, now),
        Stage::Confirmed | Stage::RolledBack | Stage::Abandoned => Step::Wait,
    }
}

fn begin(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    match evidence.in_place {
        InPlace::Before => {}
        // It was there before the change, and is only watched.
        InPlace::After => return Step::BeginPutIn,
        InPlace::Missing | InPlace::Foreign => {
            return abandon(
                Reason::ManifestChanged,
                "the manifest was changed by somebody else before the change began",
            );
        }
    }
    // An API server that is down for a reason of its own is left alone: nobody could tell our fault from the other.
    if evidence.serving_ms.is_none() {
        return if now.ms_since(&change.staged) > BEGIN_TIMEOUT_MS {
            abandon(Reason::ApiServerDown, "kube-apiserver did not serve before the change, so it was not begun")
        } else {
            Step::Wait
        };
    }
    match change.rollout.method {
        Method::Replace => Step::BeginPutIn,
        Method::Swift => Step::BeginTakeOut,
    }
}

fn take_out(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    let rebooted = change.begun.as_ref().is_some_and(|begun| begun.boot_id != now.boot_id);
    match evidence.in_place {
        // The kubelet of the new boot has seen no manifest yet: what was last good comes first.
        InPlace::Missing if rebooted => Step::PutBack,
        InPlace::Before if rebooted => abandon(
            Reason::Interrupted,
            "the node was rebooted while the manifest was taken out; the old one was put back",
        ),
        InPlace::Before => Step::TakeOut,
        InPlace::Missing if evidence.released || timed_out(change, now) => Step::BeginPutIn,
        InPlace::Missing => Step::Wait,
        InPlace::After => Step::BeginPutIn,
        InPlace::Foreign => abandon(Reason::ManifestChanged, "somebody else wrote a manifest while ours was taken out"),
    }
}

fn verify(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    match evidence.in_place {
        InPlace::Before | InPlace::Missing if !timed_out(change, now) => return Step::PutIn,
        // It cannot be written.
        InPlace::Before | InPlace::Missing => {
            let message = format!(
                "the new manifest could not be put in place within {} s",
                change.rollout.confirm_timeout_seconds
            );
            return Step::RollBack { way: Way::Manifest, cause: cause(Reason::NotStarted, message, evidence) };
        }
        InPlace::Foreign => {
            return abandon(
                Reason::ManifestChanged,
                "somebody else replaced the manifest before the change was confirmed",
            );
        }
        InPlace::After => {}
    }
    let min_ready_ms = seconds(change.rollout.min_ready_seconds);
    let runs_new = evidence.process.is_some_and(|process| is_new(change, process, now));
    if runs_new && evidence.serving_ms.is_some_and(|ms| ms >= min_ready_ms) {
        return Step::Finish { stage: Stage::Confirmed, cause: None };
    }
    let exits = evidence.starts.saturating_sub(evidence.starts_beside_old + u32::from(runs_new));
    let cause = if exits >= EXITS_OF_A_CRASH_LOOP {
        cause(Reason::CrashLoop, format!("kube-apiserver exited {exits} times with the new settings"), evidence)
    } else if !timed_out(change, now) {
        return Step::Wait;
    } else if evidence.starts == 0 && !runs_new {
        let message = format!(
            "kube-apiserver was not started with the new settings within {} s",
            change.rollout.confirm_timeout_seconds
        );
        cause(Reason::NotStarted, message, evidence)
    } else {
        let message = format!(
            "kube-apiserver was not ready for {} s within {} s",
            change.rollout.min_ready_seconds, change.rollout.confirm_timeout_seconds
        );
        cause(Reason::ConfirmTimeout, message, evidence)
    };
    Step::RollBack { way: first_way(change, evidence, now), cause }
}

/// A kubelet that started after the new manifest lay in place, and has seen no API server since, ignores the old one.
fn first_way(change: &Change, evidence: &Evidence, now: &Clock) -> Way {
    let Some(begun) = &change.begun else { return Way::Manifest };
    let ignores_manifests = evidence.kubelet.is_some_and(|kubelet| {
        let started_later =
            change.is_in_place || begun.boot_id != now.boot_id || kubelet.started_since_boot_ms > begun.since_boot_ms;
        started_later && !kubelet.has_seen_api
    });
    if ignores_manifests { Way::Files } else { Way::Manifest }
}

fn roll_back(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    let rollback = change.rollback.as_ref().expect("the stage RollingBack is only recorded with a way back");
    let cause = change.cause.clone().expect("a way back is only recorded with its cause");
    let waited_ms = now.ms_since(&rollback.begun);
    if rollback.way == Way::Files {
        // After a reboot nobody has tried yet to repair them.
        let was_tried = evidence.is_repaired || rollback.begun.boot_id == now.boot_id;
        let is_too_late = was_tried && waited_ms > FILES_TIMEOUT_MS;
        return match evidence.in_place {
            // Whoever wrote it: this kubelet goes on with what it saw first, and that reads our files.
            InPlace::Foreign if evidence.serving_ms.is_some() || is_too_late => {
                Step::Finish { stage: Stage::RolledBack, cause: Some(cause) }
            }
            // The kubelet has its API server again and follows manifests from here on.
            InPlace::After if evidence.serving_ms.is_some() => Step::RollBack { way: Way::Manifest, cause },
            InPlace::After if is_too_late => Step::RollBack { way: Way::Kubelet, cause },
            // Before the exits are counted: they tell nothing of a repair that a power cut came before.
            InPlace::After | InPlace::Foreign if !evidence.is_repaired => Step::RepairFiles,
            InPlace::Foreign => Step::Wait,
            // The repair was read at least once and did not help: a flag itself is wrong.
            InPlace::After if exited_since(rollback.starts, evidence) => Step::RollBack { way: Way::Kubelet, cause },
            InPlace::After => Step::Wait,
            InPlace::Before | InPlace::Missing => Step::RollBack { way: Way::Kubelet, cause },
        };
    }
    if evidence.in_place == InPlace::Foreign {
        return Step::Finish { stage: Stage::RolledBack, cause: Some(cause) };
    }
    // The node was rebooted between the decision and the deed: this kubelet has seen the new manifest first.
    let is_late = rollback.way == Way::Manifest && evidence.in_place == InPlace::After;
    if is_late && first_way(change, evidence, now) == Way::Files {
        return Step::RollBack { way: Way::Files, cause };
    }
    if evidence.in_place != InPlace::Before {
        return Step::PutBack;
    }
    let runs_old = evidence.process.is_some_and(|process| matches!(process.runs, Runs::Before | Runs::Either));
    if runs_old && evidence.serving_ms.is_some() {
        return Step::Finish { stage: Stage::RolledBack, cause: Some(cause) };
    }
    // The kubelet of another boot may have seen the old manifest first.
    let is_due = rollback.begun.boot_id == now.boot_id || waited_ms > STUCK_AFTER_MS;
    let may_end_kubelet = change.rollout.restart_kubelet == RestartKubelet::WhenStuck
        && is_due
        && is_to_be_ended(rollback, evidence, now);
    match rollback.way {
        Way::Kubelet if may_end_kubelet => Step::EndKubelet,
        Way::Manifest if !runs_old && waited_ms > STUCK_AFTER_MS && may_end_kubelet => {
            Step::RollBack { way: Way::Kubelet, cause }
        }
        _ => Step::Wait,
    }
}

/// One kubelet is ended, and that one until it is gone.
fn is_to_be_ended(rollback: &Rollback, evidence: &Evidence, now: &Clock) -> bool {
    evidence.kubelet.is_some_and(|kubelet| {
        rollback.ended_kubelet.as_ref().is_none_or(|ended| {
            ended.at.boot_id == now.boot_id
                && ended.started_since_boot_ms == kubelet.started_since_boot_ms
                && now.ms_since(&ended.at) > KUBELET_ENDS_WITHIN_MS
        })
    })
}

/// One start may have read the files before they were good; the next one has read them repaired.
fn exited_since(starts: u32, evidence: &Evidence) -> bool {
    let running = u32::from(evidence.process.is_some());
    evidence.starts.saturating_sub(running) > starts + 1
}

/// Whether this process was started by the change. With equal command lines only its start tells.
pub(crate) fn is_new(change: &Change, process: Process, now: &Clock) -> bool {
    let Some(begun) = &change.begun else { return false };
    match process.runs {
        Runs::After => true,
        Runs::Either => begun.boot_id != now.boot_id || process.started_since_boot_ms > begun.since_boot_ms,
        Runs::Before | Runs::Other => false,
    }
}

fn timed_out(change: &Change, now: &Clock) -> bool {
    change.begun.as_ref().is_some_and(|begun| now.ms_since(begun) > seconds(change.rollout.confirm_timeout_seconds))
}

fn seconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0) * 1000
}

fn cause(reason: Reason, message: String, evidence: &Evidence) -> Cause {
    Cause { reason, message, last_words: evidence.last_words.clone() }
}

fn abandon(reason: Reason, message: &str) -> Step {
    let cause = Cause { reason, message: message.into(), last_words: None };
    Step::Finish { stage: Stage::Abandoned, cause: Some(cause) }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;
