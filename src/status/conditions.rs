//! The conditions of a Setup. Ready, Reconciling and Stalled follow kstatus (sigs.k8s.io/cli-utils@v0.37.2
//! pkg/kstatus/README.md): the two others are True only while they explain why Ready is not. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::sinks::health;
use super::{Facts, Judgement, MESSAGE_BYTES, cut};
use crate::api::{ConditionType, Phase, Reason, SinkStatus, Truth};
use crate::rollout::Progress;
use crate::validate::Problem;

/// All conditions. `old` gives those that were not judged in this pass, and the time since when a status holds.
pub(super) fn conditions(facts: Facts, sinks: &[SinkStatus], old: &[Condition]) -> Vec<Condition> {
    let (standing, reason, message) = progress(facts);
    let explains = |is_it: bool| if is_it { (Truth::True, message.as_str()) } else { (Truth::False, "") };
    let (reconciling, why_reconciling) = explains(standing == Standing::Reconciling);
    let (stalled, why_stalled) = explains(standing == Standing::Stalled);
    let ready = if standing == Standing::Ready { Truth::True } else { Truth::False };
    let new = |type_: ConditionType, (truth, reason, message): (Truth, Reason, &str)| {
        let before = old.iter().find(|old| old.type_ == type_.as_str() && old.status == truth.as_str());
        Condition {
            type_: type_.as_str().into(),
            status: truth.as_str().into(),
            reason: reason.as_str().into(),
            message: cut(message.to_string(), MESSAGE_BYTES),
            observed_generation: facts.setup.metadata.generation,
            last_transition_time: before.map_or(Time(facts.now), |before| before.last_transition_time.clone()),
        }
    };
    let accepted = match policy(facts) {
        Some((truth, reason, message)) => new(ConditionType::PolicyAccepted, (truth, reason, &message)),
        // Not judged in this pass: the last judgement still holds.
        None => match old.iter().find(|old| old.type_ == ConditionType::PolicyAccepted.as_str()) {
            Some(old) => old.clone(),
            None => new(ConditionType::PolicyAccepted, (Truth::Unknown, Reason::Pending, "not judged yet")),
        },
    };
    let (healthy, why, unhealthy) = sinks_healthy(sinks);
    vec![
        new(ConditionType::Ready, (ready, reason, &message)),
        new(ConditionType::Reconciling, (reconciling, reason, why_reconciling)),
        new(ConditionType::Stalled, (stalled, reason, why_stalled)),
        accepted,
        new(ConditionType::SinksHealthy, (healthy, why, &unhealthy)),
    ]
}

/// Ready, Reconciling and Stalled together: at most one of them is True.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Ready,
    Reconciling,
    Stalled,
    /// None of them: a person has paused it.
    Suspended,
}

fn progress(facts: Facts) -> (Standing, Reason, String) {
    match facts.judgement {
        Judgement::Conflict { older, node } => {
            let message = format!("node {node} belongs to the older AuditSetup {older}; this one changes nothing");
            (Standing::Stalled, Reason::Conflict, message)
        }
        Judgement::NoNodes => (Standing::Stalled, Reason::NoNodes, "no node matches spec.nodeSelector".into()),
        Judgement::Rejected(problems) => {
            let reason = problems.first().map_or(Reason::InvalidSetup, |problem| problem.reason);
            (Standing::Stalled, reason, list(problems.iter()))
        }
        Judgement::Rendered { target, progress, .. } => {
            let count = count_running(facts, target);
            match progress {
                Progress::Done => (Standing::Ready, Reason::Confirmed, count),
                Progress::Moving { detail } => {
                    (Standing::Reconciling, Reason::RollingOut, format!("{count}; {detail}"))
                }
                Progress::Paused { waiting } => {
                    let nodes = if *waiting == 1 { "node waits" } else { "nodes wait" };
                    let message = format!("{count}; {waiting} {nodes} because spec.rollout.paused is set");
                    (Standing::Suspended, Reason::Paused, message)
                }
                Progress::Stalled { reason, message, .. } => {
                    (Standing::Stalled, *reason, format!("{count}; {message}"))
                }
            }
        }
        Judgement::Restoring(progress) => {
            let left = facts.nodes.iter().filter(|node| node.audit.is_some()).count();
            let count = format!("{left} {} still to be restored", if left == 1 { "node is" } else { "nodes are" });
            match progress {
                Progress::Done => (Standing::Reconciling, Reason::Restoring, "every node is restored".into()),
                Progress::Moving { detail } => (Standing::Reconciling, Reason::Restoring, format!("{count}; {detail}")),
                Progress::Paused { .. } => {
                    let message = format!("{count}; they wait because spec.rollout.paused is set");
                    (Standing::Suspended, Reason::Paused, message)
                }
                Progress::Stalled { reason, message, .. } => {
                    (Standing::Stalled, *reason, format!("{count}; {message}"))
                }
            }
        }
    }
}

fn count_running(facts: Facts, target: &str) -> String {
    let covered = facts.nodes.iter().filter(|node| node.goal.revision.is_some());
    let total = covered.clone().count();
    let confirmed = covered
        .filter_map(|node| node.audit?.status.as_ref())
        .filter(|status| status.revision.as_deref() == Some(target) && status.phase == Phase::Confirmed)
        .count();
    let nodes = if total == 1 { "node runs" } else { "nodes run" };
    if confirmed == total {
        format!("{total} {nodes} {target}")
    } else {
        format!("{confirmed} of {total} {nodes} {target}")
    }
}

/// `None`: the policy was not judged in this pass.
fn policy(facts: Facts) -> Option<(Truth, Reason, String)> {
    match facts.judgement {
        Judgement::Rendered { policy, .. } => {
            let mut message = format!("{} rules", policy.rules);
            if !policy.findings.is_empty() {
                let ids: BTreeSet<&str> = policy.findings.iter().map(|finding| finding.id.as_str()).collect();
                message += &format!("; found: {}", ids.into_iter().collect::<Vec<_>>().join(", "));
            }
            Some((Truth::True, Reason::Accepted, message))
        }
        Judgement::Rejected(problems) => {
            let is_of_policy = |problem: &&Problem| {
                problem.reason == Reason::InvalidPolicy || problem.field.starts_with("spec.policy")
            };
            let mut of_policy = problems.iter().filter(is_of_policy);
            Some(match of_policy.clone().next() {
                Some(first) => (Truth::False, first.reason, list(&mut of_policy)),
                None => (Truth::True, Reason::Accepted, String::new()),
            })
        }
        Judgement::Conflict { .. } | Judgement::NoNodes | Judgement::Restoring(_) => None,
    }
}

fn sinks_healthy(sinks: &[SinkStatus]) -> (Truth, Reason, String) {
    let find = |truth| sinks.iter().find(|sink| health(sink) == truth);
    let Some(worst) = find(Truth::False).or_else(|| find(Truth::Unknown)) else {
        return (Truth::True, Reason::Healthy, "every sink receives events".into());
    };
    let truth = health(worst);
    // All that are as bad, so that one does not hide another.
    let as_bad = sinks.iter().filter(|sink| health(sink) == truth);
    let messages: Vec<String> = as_bad
        .map(|sink| format!("{} {}", sink.name, sink.message.as_deref().unwrap_or("is not known to receive events")))
        .collect();
    (truth, worst.reason.unwrap_or(Reason::Pending), messages.join("; "))
}

fn list<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    problems.map(|problem| format!("{}: {}", problem.field, problem.message)).collect::<Vec<_>>().join("; ")
}
