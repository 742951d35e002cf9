//! What a node says of itself: the journal, the plan and the probes, in; `NodeAudit.status`, out. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::{
    CredentialsRef, NodeAuditSpec, NodeAuditStatus, NodeFailure, NodeSinkStatus, Phase, Reason, RestartKubelet,
};
use crate::journal::{Cause, Change, Journal, Rollback, Stage, Way};
use crate::plan::{self, Idle, Plan, Refusal};
use crate::verdict::STUCK_AFTER_MS;

/// What the agent knows after a turn.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) spec: &'a NodeAuditSpec,
    pub(super) generation: Option<i64>,
    pub(super) journal: &'a Journal,
    /// What there was to do, or why nobody could tell.
    pub(super) plan: Result<&'a Plan, Refusal>,
    pub(super) api_server_version: Option<String>,
    /// Since when kube-apiserver is ready; `None`: it is not.
    pub(super) ready_since: Option<Timestamp>,
    pub(super) credentials: Option<CredentialsRef>,
    pub(super) sinks: Vec<NodeSinkStatus>,
}

/// The status to be written. `old` gives the moment since when a phase holds.
pub(super) fn report(known: &Known<'_>, old: &NodeAuditStatus, now: Timestamp) -> NodeAuditStatus {
    let (phase, reason, message) = phase(known, now);
    let revision = known.journal.confirmed.as_ref().map(|confirmed| confirmed.revision.to_string());
    let is_same = old.phase == phase && old.revision == revision;
    NodeAuditStatus {
        observed_generation: known.generation,
        phase,
        reason: Some(reason),
        message: Some(message),
        since: old.since.clone().filter(|_| is_same).or(Some(Time(now))),
        revision,
        changing_to: known.journal.unconfirmed().and_then(|change| change.target.as_ref()).map(ToString::to_string),
        api_server_version: known.api_server_version.clone().or_else(|| old.api_server_version.clone()),
        ready_since: known.ready_since.map(Time),
        last_seen: Some(Time(now)),
        last_failure: known.journal.failures.last().map(|failure| NodeFailure {
            revision: failure.target.as_ref().map(ToString::to_string),
            setup_generation: failure.setup_generation,
            reason: failure.cause.reason,
            message: failure.cause.message.clone(),
            last_words: failure.cause.last_words.clone(),
            at: Time(failure.at),
        }),
        credentials: known.credentials.clone(),
        sinks: known.sinks.clone(),
    }
}

/// Whether `new` says anything that `old` does not, the time of writing aside.
pub(super) fn differs(old: &NodeAuditStatus, new: &NodeAuditStatus) -> bool {
    let mut old = old.clone();
    old.last_seen.clone_from(&new.last_seen);
    for (old, new) in old.sinks.iter_mut().zip(&new.sinks) {
        old.last_delivered.clone_from(&new.last_delivered);
    }
    old != *new
}

fn phase(known: &Known<'_>, now: Timestamp) -> (Phase, Reason, String) {
    if let Some(change) = known.journal.unconfirmed() {
        return under_way(change, known.journal.given_up.as_ref(), now);
    }
    match &known.plan {
        Err(refusal) | Ok(Plan::Refused(refusal)) => (Phase::Unsupported, refusal.reason, refusal.message.clone()),
        Ok(Plan::Nothing(Idle::Quarantined(failure))) => {
            let words = failure.cause.last_words.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
            let message =
                format!("{} was taken back: {}{words}", plan::name(failure.target.as_ref()), failure.cause.message);
            let is_of = |change: &&Change| change.finished == Some(failure.at) && change.ended_kubelet();
            let ended_kubelet = known.journal.change.as_ref().filter(is_of);
            (Phase::RolledBack, ended_kubelet.map_or(failure.cause.reason, |_| Reason::KubeletRestarted), message)
        }
        Ok(Plan::Nothing(Idle::AsDesired | Idle::LeftAlone(_))) if known.ready_since.is_none() => idle(
            known,
            Reason::ApiServerDown,
            "kube-apiserver is not ready, and no change of ours is under way; no node is changed until it is",
        ),
        // Confirmed, so that the others do not wait for it: what replaces the Revision goes to one after the other as ever.
        Ok(Plan::Nothing(left @ Idle::LeftAlone(refusal))) => idle(known, refusal.reason, &left.to_string()),
        Ok(Plan::Nothing(Idle::AsDesired)) => match &known.journal.confirmed {
            Some(confirmed) => (
                Phase::Confirmed,
                Reason::Confirmed,
                format!("kube-apiserver runs with revision {}", confirmed.revision),
            ),
            None => (Phase::Unmanaged, Reason::Unmanaged, "the manifest is not ours".into()),
        },
        // The reason says that the node is held, whatever its phase.
        Ok(Plan::Nothing(Idle::Paused)) if has_drifted(known) => (
            Phase::Drifted,
            Reason::Paused,
            "something else changed the manifest; nothing is put back while spec.rollout.paused is set".into(),
        ),
        Ok(Plan::Nothing(Idle::Paused)) => idle(known, Reason::Paused, "a change waits for the end of the pause"),
        Ok(Plan::Nothing(Idle::Held)) if has_drifted(known) => {
            let message = match known.ready_since {
                Some(_) => "something else changed the manifest; our part is put back when it is the turn of this node",
                None => {
                    "something else changed the manifest, and kube-apiserver is not ready; our part is put back once it is"
                }
            };
            (Phase::Drifted, Reason::Held, message.into())
        }
        Ok(Plan::Nothing(Idle::Held)) => idle(known, Reason::Held, "a change waits for the turn of this node"),
        Ok(Plan::Nothing(Idle::Changing)) => idle(known, Reason::Pending, "a change has just ended"),
        Ok(Plan::Nothing(settling @ Idle::Settling { .. })) if has_drifted(known) => {
            (Phase::Drifted, Reason::Drifted, settling.to_string())
        }
        Ok(Plan::Nothing(settling @ Idle::Settling { .. })) => idle(known, Reason::Pending, &settling.to_string()),
        Ok(Plan::Change(_)) if has_drifted(known) => {
            (Phase::Drifted, Reason::Drifted, "something else changed the manifest; our part is put back".into())
        }
        Ok(Plan::Change(steps)) => {
            idle(known, Reason::Pending, &format!("going to {}", plan::name(steps.change.target.as_ref())))
        }
    }
}

/// Whether the node had what it shall have, and something else changed it.
fn has_drifted(known: &Known<'_>) -> bool {
    let confirmed = known.journal.confirmed.as_ref().map(|confirmed| confirmed.revision.as_str());
    confirmed.is_some() && confirmed == known.spec.revision.as_deref()
}

fn under_way(change: &Change, given_up: Option<&Cause>, now: Timestamp) -> (Phase, Reason, String) {
    let target = plan::name(change.target.as_ref());
    match (change.stage, &change.cause) {
        (Stage::RollingBack, Some(cause)) if is_stuck(change, now) => {
            let message = format!(
                "the old manifest is back, and the kubelet does not take it up; restart the kubelet (rollout.restartKubelet is Never); {target} was taken back: {}",
                cause.message
            );
            (Phase::Verifying, Reason::KubeletStuck, message)
        }
        (Stage::Staged, _) if let Some(before) = given_up => {
            let message = format!("{target} is tried again; the last time it was given up: {}", before.message);
            (Phase::Staged, before.reason, message)
        }
        (Stage::Staged, _) => (Phase::Staged, Reason::Staged, format!("{target} lies ready; the guard has not begun")),
        (Stage::RollingBack, Some(cause)) if change.ended_kubelet() => {
            let message = format!("taking {target} back, and the kubelet was ended for it: {}", cause.message);
            (Phase::Verifying, Reason::KubeletRestarted, message)
        }
        (Stage::RollingBack, Some(cause)) => {
            (Phase::Verifying, cause.reason, format!("taking {target} back: {}", cause.message))
        }
        _ => (Phase::Verifying, Reason::Verifying, format!("kube-apiserver is being restarted with {target}")),
    }
}

/// Whether only a person can go on: [`verdict::next`](crate::verdict::next) waits, and may not end the kubelet.
fn is_stuck(change: &Change, now: Timestamp) -> bool {
    let waits = |rollback: &Rollback| {
        let waited = now.duration_since(rollback.begun.wall).as_millis();
        rollback.way != Way::Files && waited > i128::from(STUCK_AFTER_MS)
    };
    change.rollout.restart_kubelet == RestartKubelet::Never && change.rollback.as_ref().is_some_and(waits)
}

/// The node keeps what it has, for a reason.
fn idle(known: &Known<'_>, reason: Reason, message: &str) -> (Phase, Reason, String) {
    let phase = if known.journal.confirmed.is_some() { Phase::Confirmed } else { Phase::Unmanaged };
    (phase, reason, message.into())
}

#[cfg(test)]
mod tests;
