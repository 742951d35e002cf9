//! A Change in progress, the [`Evidence`] and the time in; the next [`Step`] of the guard, and in the end the
//! [`Verdict`], out.
//!
//! This one pure function decides between commit and rollback: the guard gathers evidence, calls [`next`], carries out
//! the step and starts over. Each step may be repeated, because the guard can be killed before, during or after it.
//!
//! One thing makes a rollback difficult: a kubelet that was started while the API server was down. Until it has seen an
//! API server it ignores every changed manifest (it never removes the old static pod while its API source is not ready:
//! kubernetes@v1.36.3 pkg/kubelet/pod_workers.go, allowPodStart and pkg/kubelet/kubelet.go, HandlePodCleanups). Then
//! the manifest must stay as that kubelet first saw it, and the files it mounts are repaired.

use std::fmt;

use crate::api::{Method, Reason, RestartKubelet};
use crate::journal::{Cause, Clock, EndedKubelet, Rollback, Stage, UnderWay, Verdict, Way};

/// Exits of the new container after which the guard stops waiting for it. The first may have an innocent cause (a port
/// that is still in use); the kubelet's back-off makes each further one more expensive.
const EXITS_OF_A_CRASH_LOOP: u32 = 2;
/// How long a kubelet may take to start the old manifest again before it counts as stuck: its slowest window for a pod
/// that waits for its predecessor is 45 s, plus the 30 s grace of the predecessor (measured on 1.36.3).
const STUCK_AFTER_MS: u64 = 120_000;
/// How long a kubelet may take to end after its signal.
const KUBELET_ENDS_WITHIN_MS: u64 = 10_000;
/// How long the repair of the files may take, and kube-apiserver to read them: the container's back-off may have
/// reached 160 s.
const FILES_TIMEOUT_MS: u64 = 240_000;
/// How long the guard waits for an API server that does not serve before a change begins.
const BEGIN_TIMEOUT_MS: u64 = 300_000;
/// The API's upper bound of every time in `rollout`: a journal with a larger one must not keep the guard waiting for
/// ever.
const MAX_SECONDS: u64 = 3600;

/// Which manifest is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPlace {
    Before,
    After,
    Missing,
    /// Neither: somebody else wrote it.
    Foreign,
}

/// The state of the node, gathered again before each step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub in_place: InPlace,
    /// The process of kube-apiserver, if there is one; the older of two.
    pub process: Option<Process>,
    /// Whether the old process is gone, and after it the kubelet's last trace of its pod. Matters only while the
    /// manifest is taken out.
    pub released: bool,
    /// Whether the files that the new manifest mounts are good. Matters only on the way back by the files.
    pub is_repaired: bool,
    /// How long `/readyz` has answered well without a break.
    pub serving_ms: Option<u64>,
    /// Starts of the container in the newest pod that was not there before the change.
    pub starts: u32,
    /// Of these, starts while an old process still ran. They fail because it has the port: a kubelet that was started
    /// meanwhile does not wait for the pod that it replaces.
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

/// The next step. A step that is recorded carries its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again.
    Wait,
    /// Record the stage in which the manifest is taken out.
    BeginTakeOut {
        begun: Clock,
    },
    TakeOut,
    /// Record the stage in which the new manifest is put in.
    BeginPutIn {
        begun: Clock,
    },
    PutIn,
    /// Record the way back, or a further one.
    RollBack(Rollback),
    /// Put the old manifest back.
    PutBack,
    /// Record that no start until now has read good files. Then repair the files that the new manifest mounts.
    RepairFiles(Rollback),
    /// Record which kubelet is ended. Then end it.
    EndKubelet(Rollback),
    End(Verdict),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Wait => f.write_str("waiting"),
            Step::BeginTakeOut { .. } => f.write_str("about to take out the manifest"),
            Step::TakeOut => f.write_str("taking out the manifest; kube-apiserver stops"),
            Step::BeginPutIn { .. } => f.write_str("about to put the new manifest in place"),
            Step::PutIn => f.write_str(
                "putting the new manifest in place, then waiting for the kubelet to start kube-apiserver with it",
            ),
            Step::RollBack(Rollback { way, cause, .. }) => {
                let how = match way {
                    Way::Manifest => "rolling back",
                    Way::Files => {
                        "rolling back by repairing the mounted files, because the kubelet ignores manifest changes now"
                    }
                    Way::Kubelet => "rolling back; this needs a restart of the kubelet",
                };
                write!(f, "{how}: {}", cause.message)
            }
            Step::PutBack => f.write_str("putting the old manifest back"),
            Step::RepairFiles(_) => f.write_str("repairing the files that the new manifest mounts"),
            Step::EndKubelet(_) => f.write_str("ending the kubelet once, so that its service manager restarts it"),
            Step::End(Verdict::Confirmed) => f.write_str("confirmed"),
            Step::End(Verdict::RolledBack(_)) => f.write_str("rolled back; kube-apiserver serves as before"),
            Step::End(Verdict::Abandoned(cause)) => write!(f, "abandoned: {}", cause.message),
        }
    }
}

/// Decides the next step.
pub fn next(change: UnderWay, evidence: &Evidence, now: &Clock) -> Step {
    match change.stage {
        Stage::Staged => begin(change, evidence, now),
        Stage::TakingOut { begun } => take_out(change, begun, evidence, now),
        Stage::Verifying { begun } => verify(change, begun, evidence, now),
        Stage::RollingBack(rollback) => roll_back(change, rollback, evidence, now),
    }
}

/// Whether only a person can help: the kubelet has had its time to follow the old manifest, and the guard must not end
/// it.
pub fn is_stuck(change: UnderWay, now: &Clock) -> bool {
    change.rollout.restart_kubelet == RestartKubelet::Never
        && change.rollback().is_some_and(|rollback| rollback.way != Way::Files && has_waited(rollback, now))
}

/// Whether the kubelet has had its time to follow the old manifest.
fn has_waited(rollback: &Rollback, now: &Clock) -> bool {
    now.ms_since(&rollback.since) > STUCK_AFTER_MS
}

fn begin(change: UnderWay, evidence: &Evidence, now: &Clock) -> Step {
    let begun = now.clone();
    match evidence.in_place {
        InPlace::Before => {}
        // It was there before the change, and is only watched.
        InPlace::After => return Step::BeginPutIn { begun },
        InPlace::Missing | InPlace::Foreign => {
            return abandon(Reason::ManifestChanged, "somebody else changed the manifest before the change began");
        }
    }
    // An API server that is down for a reason of its own is left alone: nobody could tell our fault from the other.
    if evidence.serving_ms.is_none() {
        return if now.ms_since(&change.staged) > BEGIN_TIMEOUT_MS {
            abandon(
                Reason::ApiServerDown,
                "kube-apiserver did not serve before the change, so the change did not begin",
            )
        } else {
            Step::Wait
        };
    }
    match change.rollout.method {
        Method::Replace => Step::BeginPutIn { begun },
        Method::Swift => Step::BeginTakeOut { begun },
    }
}

fn take_out(change: UnderWay, begun: &Clock, evidence: &Evidence, now: &Clock) -> Step {
    let rebooted = begun.boot_id != now.boot_id;
    let put_in = Step::BeginPutIn { begun: begun.clone() };
    match evidence.in_place {
        // The kubelet of the new boot has seen no manifest yet: the last good one comes first.
        InPlace::Missing if rebooted => Step::PutBack,
        InPlace::Before if rebooted => abandon(
            Reason::Interrupted,
            "the node was rebooted while the manifest was taken out; the old manifest is back in place",
        ),
        InPlace::Before => Step::TakeOut,
        InPlace::Missing if evidence.released || timed_out(change, begun, now) => put_in,
        InPlace::Missing => Step::Wait,
        InPlace::After => put_in,
        InPlace::Foreign => abandon(Reason::ManifestChanged, "somebody else wrote a manifest while ours was taken out"),
    }
}

fn verify(change: UnderWay, begun: &Clock, evidence: &Evidence, now: &Clock) -> Step {
    let rollout = &change.rollout;
    let roll_back = |way, reason, message| {
        let cause = Cause { reason, message, last_words: evidence.last_words.clone() };
        let (begun, since) = (begun.clone(), now.clone());
        Step::RollBack(Rollback { begun, cause, way, since, starts: evidence.starts, ended_kubelet: None })
    };
    let timed_out = timed_out(change, begun, now);
    match evidence.in_place {
        InPlace::Before | InPlace::Missing if !timed_out => return Step::PutIn,
        // It cannot be written.
        InPlace::Before | InPlace::Missing => {
            let message =
                format!("the new manifest could not be put in place within {} s", rollout.confirm_timeout_seconds);
            return roll_back(Way::Manifest, Reason::NotStarted, message);
        }
        InPlace::Foreign => {
            return abandon(
                Reason::ManifestChanged,
                "somebody else replaced the manifest before the change was confirmed",
            );
        }
        InPlace::After => {}
    }
    let runs_new = evidence.process.is_some_and(|process| is_new(change, process, now));
    if runs_new && evidence.serving_ms.is_some_and(|ms| ms >= milliseconds(rollout.min_ready_seconds)) {
        return Step::End(Verdict::Confirmed);
    }
    let exits = evidence.starts.saturating_sub(evidence.starts_beside_old.saturating_add(u32::from(runs_new)));
    let (reason, message) = if exits >= EXITS_OF_A_CRASH_LOOP {
        (Reason::CrashLoop, format!("kube-apiserver exited {exits} times with the new settings"))
    } else if !timed_out {
        return Step::Wait;
    } else if evidence.starts == 0 && !runs_new {
        let seconds = rollout.confirm_timeout_seconds;
        (Reason::NotStarted, format!("kube-apiserver was not started with the new settings within {seconds} s"))
    } else {
        let (ready, limit) = (rollout.min_ready_seconds, rollout.confirm_timeout_seconds);
        (Reason::ConfirmTimeout, format!("kube-apiserver was not ready for {ready} s within {limit} s"))
    };
    roll_back(first_way(change, begun, evidence, now), reason, message)
}

/// A kubelet that started after the new manifest was put in place, and has seen no API server since, ignores the old
/// one.
fn first_way(change: UnderWay, begun: &Clock, evidence: &Evidence, now: &Clock) -> Way {
    let ignores_manifests = evidence.kubelet.is_some_and(|kubelet| {
        let started_later =
            change.is_in_place || begun.boot_id != now.boot_id || kubelet.started_since_boot_ms > begun.since_boot_ms;
        started_later && !kubelet.has_seen_api
    });
    if ignores_manifests { Way::Files } else { Way::Manifest }
}

fn roll_back(change: UnderWay, rollback: &Rollback, evidence: &Evidence, now: &Clock) -> Step {
    let by = |way| Step::RollBack(Rollback { way, since: now.clone(), starts: evidence.starts, ..rollback.clone() });
    let rolled_back = || Step::End(Verdict::RolledBack(rollback.cause.clone()));
    let is_of_this_boot = rollback.since.boot_id == now.boot_id;
    if rollback.way == Way::Files {
        // After a reboot nobody has tried to repair them yet.
        let was_tried = evidence.is_repaired || is_of_this_boot;
        let is_too_late = was_tried && now.ms_since(&rollback.since) > FILES_TIMEOUT_MS;
        return match evidence.in_place {
            // No matter who wrote it: this kubelet keeps what it saw first, and that reads our files.
            InPlace::Foreign if evidence.serving_ms.is_some() || is_too_late => rolled_back(),
            // The kubelet has its API server again and follows manifests from here on.
            InPlace::After if evidence.serving_ms.is_some() => by(Way::Manifest),
            InPlace::After if is_too_late => by(Way::Kubelet),
            // Before the exits are counted: they say nothing about a repair that a power cut prevented.
            InPlace::After | InPlace::Foreign if !evidence.is_repaired => {
                let since = if is_of_this_boot { rollback.since.clone() } else { now.clone() };
                Step::RepairFiles(Rollback { starts: evidence.starts, since, ..rollback.clone() })
            }
            InPlace::Foreign => Step::Wait,
            // kube-apiserver has read the repaired files at least once, and exited again: a flag itself is wrong.
            InPlace::After if exited_since(rollback.starts, evidence) => by(Way::Kubelet),
            InPlace::After => Step::Wait,
            InPlace::Before | InPlace::Missing => by(Way::Kubelet),
        };
    }
    if evidence.in_place == InPlace::Foreign {
        return rolled_back();
    }
    // The node was rebooted between the decision and the deed: this kubelet has seen the new manifest first.
    let is_late = rollback.way == Way::Manifest && evidence.in_place == InPlace::After;
    if is_late && first_way(change, &rollback.begun, evidence, now) == Way::Files {
        return by(Way::Files);
    }
    if evidence.in_place != InPlace::Before {
        return Step::PutBack;
    }
    let runs_old = evidence.process.is_some_and(|process| matches!(process.runs, Runs::Before | Runs::Either));
    if runs_old && evidence.serving_ms.is_some() {
        return rolled_back();
    }
    // The kubelet of another boot may have seen the old manifest first.
    let is_due = is_of_this_boot || has_waited(rollback, now);
    if change.rollout.restart_kubelet == RestartKubelet::Never || !is_due {
        return Step::Wait;
    }
    match (rollback.way, to_be_ended(rollback, evidence, now)) {
        (Way::Kubelet, Some(ended)) => Step::EndKubelet(Rollback { ended_kubelet: Some(ended), ..rollback.clone() }),
        (Way::Manifest, Some(_)) if !runs_old && has_waited(rollback, now) => by(Way::Kubelet),
        _ => Step::Wait,
    }
}

/// The kubelet to be ended: one only, and that one until it is gone.
fn to_be_ended(rollback: &Rollback, evidence: &Evidence, now: &Clock) -> Option<EndedKubelet> {
    let started_since_boot_ms = evidence.kubelet?.started_since_boot_ms;
    let is_due = rollback.ended_kubelet.as_ref().is_none_or(|ended| {
        ended.at.boot_id == now.boot_id
            && ended.started_since_boot_ms == started_since_boot_ms
            && now.ms_since(&ended.at) > KUBELET_ENDS_WITHIN_MS
    });
    is_due.then(|| EndedKubelet { started_since_boot_ms, at: now.clone() })
}

/// One start may have read the files before they were good; the next one has read the repaired ones.
fn exited_since(starts: u32, evidence: &Evidence) -> bool {
    let running = u32::from(evidence.process.is_some());
    evidence.starts.saturating_sub(running) > starts.saturating_add(1)
}

/// Whether the change started this process. With equal command lines only its start shows it.
pub(crate) fn is_new(change: UnderWay, process: Process, now: &Clock) -> bool {
    let Some(begun) = change.begun() else { return false };
    match process.runs {
        Runs::After => true,
        Runs::Either => begun.boot_id != now.boot_id || process.started_since_boot_ms > begun.since_boot_ms,
        Runs::Before | Runs::Other => false,
    }
}

fn timed_out(change: UnderWay, begun: &Clock, now: &Clock) -> bool {
    now.ms_since(begun) > milliseconds(change.rollout.confirm_timeout_seconds)
}

fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).min(MAX_SECONDS) * 1000
}

fn abandon(reason: Reason, message: &str) -> Step {
    Step::End(Verdict::Abandoned(Cause { reason, message: message.into(), last_words: None }))
}

#[cfg(test)]
mod tests;
