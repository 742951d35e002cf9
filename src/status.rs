//! The status of a Setup, and the Events that a change of it is worth: what was judged, rendered and reported in, plain
//! values out.
//!
//! The controller calls [`status`] at the end of each pass, writes the result if it [`differs`] and publishes
//! [`events()`]. Times come in; a condition keeps its `lastTransitionTime` while its status stays. No field of it moves
//! by itself, so a cluster at rest costs no write.

mod conditions;
mod events;
mod expiry;
mod load;
mod sinks;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{
    AuditSetup, AuditSetupStatus, ConditionType, HistoryEntry, NodeStatus, Outcome, Phase, PolicyStatus, Reason,
    RevisionStatus, SetupFinding,
};
use crate::rollout::{self, Node, Progress};
use crate::validate::Problem;
use conditions::conditions;
pub use events::{Event, Related, events};
pub use sinks::health;
use sinks::sinks;

/// A longer message is cut: it is for people.
const MESSAGE_BYTES: usize = 1024;
const HISTORY: usize = 10;

/// Everything that a status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The Setup, with its status so far.
    pub setup: &'a AuditSetup,
    /// The nodes that it covers, and those that it still has to restore.
    pub nodes: &'a [Node<'a>],
    pub judgement: Judgement<'a>,
    pub now: Timestamp,
}

/// The outcome of this pass for the Setup.
#[derive(Clone, Copy, Debug)]
pub enum Judgement<'a> {
    /// An older Setup has one of its nodes.
    Conflict {
        older: &'a str,
        node: &'a str,
    },
    /// It selects no node.
    NoNodes,
    Rejected(&'a [Problem]),
    Rendered {
        target: &'a str,
        /// The changes of a new target against the one before, in words.
        change: Option<&'a str>,
        policy: &'a PolicyStatus,
        findings: &'a [SetupFinding],
        progress: &'a Progress,
    },
    /// It is being deleted.
    Restoring(&'a Progress),
}

/// The new status.
pub fn status(facts: Facts) -> AuditSetupStatus {
    let old = facts.setup.status.clone().unwrap_or_default();
    let revision = revision(&old, facts);
    let history = history(&old, facts);
    let sinks = sinks(facts);
    let nodes = facts.nodes.iter().map(node_status).collect();
    let mut findings = match facts.judgement {
        Judgement::Rendered { findings, .. } => findings.to_vec(),
        _ => old.findings.into_iter().filter(|finding| !is_measured(&finding.id)).collect(),
    };
    findings.extend(expiry::findings(facts.setup, &sinks, facts.now));
    findings.extend(load::findings(facts));

    AuditSetupStatus {
        observed_generation: facts.setup.metadata.generation,
        revision,
        conditions: conditions(facts, &sinks, &old.conditions),
        policy: match facts.judgement {
            Judgement::Rendered { policy, .. } => Some(policy.clone()),
            _ => old.policy,
        },
        findings,
        nodes,
        sinks,
        history,
    }
}

/// Whether a finding comes from the reports of the nodes, and not from the Setup.
fn is_measured(id: &str) -> bool {
    id == expiry::ID || load::IDS.contains(&id)
}

/// Whether a status is worth a write. Deliveries that merely go on are not.
pub fn differs(old: &AuditSetupStatus, new: &AuditSetupStatus) -> bool {
    let mut aligned = new.clone();
    for sink in &mut aligned.sinks {
        if let Some(before) = old.sinks.iter().find(|before| before.name == sink.name) {
            sink.last_delivered.clone_from(&before.last_delivered);
        }
    }
    aligned != *old
}

/// How long the rollout took that has just been confirmed on every node. Unknown where it was over when it was first
/// seen.
pub fn rolled_out(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<SignedDuration> {
    let entry = just_confirmed(old, new)?;
    let took = entry.finished.as_ref()?.0.duration_since(entry.started.0);
    took.is_positive().then_some(took)
}

/// The newest entry of the history, if it was confirmed just now. Once for each: a node that joins or drifts later does
/// not open it again.
fn just_confirmed<'a>(old: &AuditSetupStatus, new: &'a AuditSetupStatus) -> Option<&'a HistoryEntry> {
    let last = new.history.first().filter(|last| last.outcome == Outcome::Confirmed)?;
    let key = |entry: &HistoryEntry| (entry.revision.clone(), entry.started.clone(), entry.outcome);
    old.history.iter().all(|before| key(before) != key(last)).then_some(last)
}

fn revision(old: &AuditSetupStatus, facts: Facts) -> Option<RevisionStatus> {
    let before = old.revision.clone().unwrap_or_default();
    let mut runs = facts
        .nodes
        .iter()
        .map(|node| node.audit.and_then(|audit| audit.status.as_ref()).and_then(|status| status.revision.clone()));
    let first = runs.next().flatten();
    let current = first.filter(|first| runs.all(|other| other.as_ref() == Some(first)));
    let after = match facts.judgement {
        Judgement::Rendered { target, change, .. } if before.target.as_deref() != Some(target) => RevisionStatus {
            current,
            target: Some(target.to_string()),
            reason: change.map(str::to_string),
            since: Some(Time(facts.now)),
        },
        _ => RevisionStatus { current, ..before },
    };
    (after != RevisionStatus::default()).then_some(after)
}

fn history(old: &AuditSetupStatus, facts: Facts) -> Vec<HistoryEntry> {
    let mut history = old.history.clone();
    let Judgement::Rendered { target, progress, .. } = facts.judgement else { return history };
    let generation = facts.setup.metadata.generation.unwrap_or(0);
    let outcome = match progress {
        Progress::Done => Outcome::Confirmed,
        Progress::Stalled { reason: Reason::RolledBack, .. } => Outcome::RolledBack,
        _ => Outcome::InProgress,
    };
    let begins = match history.first() {
        None => true,
        Some(last) if last.revision != target => true,
        // The same content once more, after it failed.
        Some(last) => last.outcome == Outcome::RolledBack && outcome != Outcome::RolledBack,
    };
    if begins {
        if let Some(last) = history.first_mut().filter(|last| last.outcome == Outcome::InProgress) {
            last.outcome = Outcome::Superseded;
            last.finished = Some(Time(facts.now));
        }
        let started = Time(facts.now);
        let entry = HistoryEntry {
            revision: target.to_string(),
            generation,
            started,
            finished: None,
            outcome: Outcome::InProgress,
        };
        history.insert(0, entry);
        history.truncate(HISTORY);
    }
    if let Some(last) =
        history.first_mut().filter(|last| last.outcome == Outcome::InProgress && outcome != last.outcome)
    {
        last.outcome = outcome;
        last.finished = Some(Time(facts.now));
    }
    history
}

fn node_status(node: &Node) -> NodeStatus {
    let reported = node.audit.and_then(|audit| audit.status.clone()).unwrap_or_default();
    let failure = reported.last_failure.as_ref().filter(|_| reported.phase == Phase::RolledBack);
    let (reason, message) = match node.audit {
        None => (None, Some("no Revision is assigned yet".to_string())),
        Some(_) if node.is_silent() => (Some(Reason::AgentSilent), Some("the agent does not report".to_string())),
        Some(_) => (reported.reason, failure.map(rollout::describe).or(reported.message)),
    };
    NodeStatus {
        name: node.name.to_string(),
        revision: reported.revision,
        phase: reported.phase,
        reason,
        message: message.filter(|message| !message.is_empty()).map(|message| cut(message, MESSAGE_BYTES)),
        api_server_version: reported.api_server_version,
        since: reported.since,
    }
}

/// Cuts at a character, and shows that it did.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - '…'.len_utf8()));
        text.push('…');
    }
    text
}

fn condition(status: &AuditSetupStatus, type_: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

#[cfg(test)]
mod tests;
