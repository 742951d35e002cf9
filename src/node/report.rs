//! The report of a node: the journal, the plan and the probes in; `NodeAudit.status` out. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::api::{CredentialsRef, NodeAuditSpec, NodeAuditStatus, NodeFailure, NodeSinkStatus, Phase, Reason};
use crate::journal::{Cause, Clock, Journal, Stage, UnderWay};
use crate::plan::{self, Idle, Plan};
use crate::verdict;

/// The results of one pass of the agent.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pub(super) spec: &'a NodeAuditSpec,
    pub(super) generation: Option<i64>,
    pub(super) journal: &'a Journal,
    pub(super) plan: &'a Plan,
    pub(super) api_server_version: Option<String>,
    /// Since when kube-apiserver is ready; `None`: it is not.
    pub(super) ready_since: Option<Timestamp>,
    pub(super) credentials: Option<CredentialsRef>,
    pub(super) sinks: Vec<NodeSinkStatus>,
}

/// The status to be written. `old` has the moment since when a phase holds.
pub(super) fn report(pass: &Pass<'_>, old: &NodeAuditStatus, now: &Clock) -> NodeAuditStatus {
    let (phase, reason, message) = phase(pass, now);
    let revision = pass.journal.confirmed.as_ref().map(|confirmed| confirmed.revision.to_string());
    let is_same = old.phase == phase && old.revision == revision;
    NodeAuditStatus {
        observed_generation: pass.generation,
        phase,
        reason: Some(reason),
        message: Some(message),
        since: old.since.clone().filter(|_| is_same).or(Some(Time(now.wall))),
        revision,
        changing_to: pass.journal.under_way().and_then(|change| change.target.as_ref().map(ToString::to_string)),
        api_server_version: pass.api_server_version.clone().or_else(|| old.api_server_version.clone()),
        ready_since: pass.ready_since.map(Time),
        last_seen: Some(Time(now.wall)),
        last_failure: pass.journal.failures.last().map(|failure| NodeFailure {
            revision: failure.target.as_ref().map(ToString::to_string),
            // Generations begin at 1: a person asked.
            setup_generation: failure.setup_generation.unwrap_or(0),
            reason: failure.cause.reason,
            message: failure.cause.message.clone(),
            last_words: failure.cause.last_words.clone(),
            at: Time(failure.at),
        }),
        credentials: pass.credentials.clone(),
        sinks: pass.sinks.clone(),
    }
}

/// Whether `new` has news, apart from its time.
pub(super) fn differs(old: &NodeAuditStatus, new: &NodeAuditStatus) -> bool {
    let mut old = old.clone();
    old.last_seen.clone_from(&new.last_seen);
    for (old, new) in old.sinks.iter_mut().zip(&new.sinks) {
        old.last_delivered.clone_from(&new.last_delivered);
    }
    // As the API has them: its times have whole seconds.
    json!(old) != json!(new)
}

type Said = (Phase, Reason, String);

fn phase(pass: &Pass<'_>, now: &Clock) -> Said {
    if let Some(change) = pass.journal.under_way() {
        return under_way(change, pass.journal.abandoned.as_ref(), now);
    }
    let confirmed = pass.journal.confirmed.as_ref().map(|confirmed| confirmed.revision.as_str());
    let at_rest = if confirmed.is_some() { Phase::Confirmed } else { Phase::Unmanaged };
    // The node ran its target, and something is to be done again.
    let has_drifted = confirmed.is_some() && confirmed == pass.spec.revision.as_deref();
    let (due, why) = match has_drifted {
        true => (Phase::Drifted, "somebody else changed the manifest"),
        false => (at_rest, "a change is due"),
    };
    match pass.plan {
        Plan::Refused(refusal) => (Phase::Unsupported, refusal.reason, refusal.message.clone()),
        Plan::Change(_) if has_drifted => {
            (due, Reason::Drifted, format!("{why}; the operator applies its settings again"))
        }
        Plan::Change(steps) => {
            (due, Reason::Pending, format!("changing to {}", plan::name(steps.change.target.as_ref())))
        }
        Plan::Nothing(idle) => match idle {
            Idle::AsDesired | Idle::LeftAlone(_) if pass.ready_since.is_none() => {
                let message =
                    "kube-apiserver is not ready, although no change is in progress; no node is changed until it is";
                (at_rest, Reason::ApiServerDown, message.into())
            }
            Idle::AsDesired => match confirmed {
                Some(revision) => (at_rest, Reason::Confirmed, format!("kube-apiserver runs with revision {revision}")),
                None => (at_rest, Reason::Unmanaged, "the operator has not changed the manifest".into()),
            },
            // Confirmed, so that the other nodes do not wait for it: the next Revision goes to one node after the other
            // as always.
            Idle::LeftAlone(refusal) => (at_rest, refusal.reason, idle.to_string()),
            Idle::Changing => (at_rest, Reason::Pending, "a change has just ended".into()),
            // The reason says that the node is held, whatever its phase.
            Idle::Paused => (due, Reason::Paused, format!("{why}; {idle}")),
            Idle::NoSlot if has_drifted && pass.ready_since.is_none() => {
                let message = "kube-apiserver is not ready; the operator applies its settings again once it is";
                (due, Reason::Held, format!("{why}, and {message}"))
            }
            Idle::NoSlot => (due, Reason::Held, format!("{why}; {idle}")),
            Idle::Settling { .. } if has_drifted => (due, Reason::Drifted, idle.to_string()),
            Idle::Settling { .. } => (due, Reason::Pending, idle.to_string()),
            Idle::Quarantined(failure) => {
                let reason = if failure.ended_kubelet { Reason::KubeletRestarted } else { failure.cause.reason };
                (Phase::RolledBack, reason, idle.to_string())
            }
        },
    }
}

fn under_way(change: UnderWay, abandoned: Option<&Cause>, now: &Clock) -> Said {
    let target = plan::name(change.target.as_ref());
    match (change.stage, abandoned) {
        (Stage::Staged, Some(before)) => {
            let message = format!("retrying {target}; the last attempt was abandoned: {}", before.message);
            (Phase::Staged, before.reason, message)
        }
        (Stage::Staged, None) => (Phase::Staged, Reason::Staged, format!("{target} is staged; waiting for the guard")),
        (Stage::TakingOut { .. } | Stage::Verifying { .. }, _) => {
            (Phase::Verifying, Reason::Verifying, format!("kube-apiserver is restarting with {target}"))
        }
        (Stage::RollingBack(rollback), _) => {
            let (reason, doing) = if verdict::is_stuck(change, now) {
                let advice = "the old manifest is back, but the kubelet does not follow it; restart the kubelet (rollout.restartKubelet is Never)";
                (Reason::KubeletStuck, advice)
            } else if rollback.ended_kubelet.is_some() {
                (Reason::KubeletRestarted, "rolling back; the kubelet was ended so that it follows the old manifest")
            } else {
                (rollback.cause.reason, "rolling back")
            };
            (Phase::Verifying, reason, format!("{target} failed: {}; {doing}", rollback.cause.message))
        }
    }
}

#[cfg(test)]
mod tests;
