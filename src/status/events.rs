//! The Events that a change of a status is worth: one for each, none for equal statuses. Pure.

use super::expiry;
use super::sinks::health;
use super::{condition, cut, just_confirmed};
use crate::api::{AuditSetupStatus, ConditionType, NodeStatus, Phase, Reason, SinkStatus, Truth};
use crate::rollout::Node;

/// Notes of Events hold at most a kilobyte (kubernetes@v1.36.3 pkg/apis/core/validation/events.go#L36).
const NOTE_BYTES: usize = 1000;

/// A Kubernetes Event on a Setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub is_warning: bool,
    pub reason: Reason,
    /// The action of the operator.
    pub action: String,
    pub note: String,
    pub related: Related,
}

/// The second object of an Event. Events of equal kind on equal objects are counted as one, so an Event that may come
/// twice within minutes with another note needs another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Related {
    Nothing,
    Node(String),
    Revision(String),
}

impl Event {
    fn normal(reason: Reason, action: impl Into<String>, note: impl Into<String>, related: Related) -> Self {
        Self { is_warning: false, reason, action: action.into(), note: cut(note.into(), NOTE_BYTES), related }
    }

    fn warning(reason: Reason, action: impl Into<String>, note: impl Into<String>, related: Related) -> Self {
        Self { is_warning: true, ..Self::normal(reason, action, note, related) }
    }

    /// The last Event of a deleted Setup, whose status goes with it. `nodes`: those that were released with it.
    pub fn restored(nodes: &[Node]) -> Self {
        let has_reported = |node: &Node| node.audit.is_some_and(|audit| audit.status.is_some());
        let note = if nodes.is_empty() {
            "no NodeAudit is left; the state of the nodes is unknown"
        } else if nodes.iter().all(has_reported) {
            "every node has its original manifest again"
        } else {
            "every node whose agent reported has its original manifest again; the others were never changed"
        };
        Self::normal(Reason::Unmanaged, "Restore", note, Related::Nothing)
    }
}

/// The Events between two statuses, in the order in which they are published.
pub fn events(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Vec<Event> {
    let mut events = Vec::new();
    events.extend(rendered(old, new));
    events.extend(begun(old, new));
    for node in &new.nodes {
        let before = old.nodes.iter().find(|before| before.name == node.name);
        events.extend(kubelet_ended(before, node));
        events.extend(node_changed(before, node));
    }
    events.extend(stalled(old, new));
    events.extend(confirmed(old, new));
    for sink in &new.sinks {
        let before = old.sinks.iter().find(|before| before.name == sink.name);
        events.extend(sink_changed(before, sink));
    }
    let expire = new.findings.iter().filter(|finding| finding.id == expiry::ID && !old.findings.contains(finding));
    events
        .extend(expire.map(|finding| Event::warning(Reason::ExpiresSoon, "Look", &*finding.message, Related::Nothing)));
    events
}

fn target(status: &AuditSetupStatus) -> Option<&String> {
    status.revision.as_ref()?.target.as_ref()
}

fn of_target(status: &AuditSetupStatus) -> Related {
    target(status).cloned().map_or(Related::Nothing, Related::Revision)
}

fn message_of_ready(status: &AuditSetupStatus) -> String {
    condition(status, ConditionType::Ready).map_or(String::new(), |ready| ready.message.clone())
}

/// There is a new target.
fn rendered(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<Event> {
    let target = target(new).filter(|new| target(old) != Some(new))?;
    let note = match new.revision.as_ref().and_then(|revision| revision.reason.as_ref()) {
        Some(change) => format!("rendered {target}: {change}"),
        None => format!("rendered {target}"),
    };
    Some(Event::normal(Reason::RollingOut, "Render", note, of_target(new)))
}

/// A rollout, or the restoring of the nodes, begins.
fn begun(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<Event> {
    let is_restoring = |status| {
        condition(status, ConditionType::Ready).is_some_and(|ready| ready.reason == Reason::Restoring.as_str())
    };
    let is_reconciling = |status| {
        condition(status, ConditionType::Reconciling).is_some_and(|found| found.status == Truth::True.as_str())
    };
    if is_restoring(new) && !is_restoring(old) {
        Some(Event::normal(Reason::Restoring, "Restore", message_of_ready(new), Related::Nothing))
    } else if is_reconciling(new) && !is_reconciling(old) {
        Some(Event::normal(Reason::RollingOut, "RollOut", message_of_ready(new), of_target(new)))
    } else {
        None
    }
}

/// The guard ended the kubelet of a node: never in silence.
fn kubelet_ended(before: Option<&NodeStatus>, node: &NodeStatus) -> Option<Event> {
    let is_ended = |node: &NodeStatus| node.reason == Some(Reason::KubeletRestarted);
    let is_news = is_ended(node) && !before.is_some_and(is_ended);
    let note = || format!("the guard ended the kubelet of {}, so that it reads the old manifest", node.name);
    is_news.then(|| Event::warning(Reason::KubeletRestarted, "EndKubelet", note(), Related::Node(node.name.clone())))
}

/// A node entered another phase.
fn node_changed(before: Option<&NodeStatus>, node: &NodeStatus) -> Option<Event> {
    let key = |node: &NodeStatus| (node.phase, node.revision.clone(), node.since.clone());
    if before.map(key) == Some(key(node)) {
        return None;
    }
    let NodeStatus { name, phase, .. } = node;
    let message = node.message.as_deref().unwrap_or_default();
    let related = Related::Node(name.clone());
    let was = |phases: &[Phase]| before.is_some_and(|before| phases.contains(&before.phase));
    match phase {
        Phase::Staged | Phase::Verifying if !was(&[Phase::Staged, Phase::Verifying]) => {
            Some(Event::normal(Reason::RollingOut, "Change", format!("{name} begins: {message}"), related))
        }
        // An agent that was restarted reports the same with another time.
        Phase::Confirmed if was(&[Phase::Confirmed]) && before.is_some_and(|it| it.revision == node.revision) => None,
        Phase::Confirmed => {
            let revision = node.revision.as_deref().unwrap_or_default();
            Some(Event::normal(Reason::Confirmed, "Change", format!("{name} runs {revision}"), related))
        }
        Phase::RolledBack => {
            Some(Event::warning(Reason::RolledBack, "Change", format!("{name} rolled back: {message}"), related))
        }
        Phase::Drifted if !was(&[Phase::Drifted]) => {
            Some(Event::warning(Reason::Drifted, "Observe", format!("{name}: {message}"), related))
        }
        _ => None,
    }
}

/// The Setup needs a person, for a reason that is new.
fn stalled(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<Event> {
    let stalled = condition(new, ConditionType::Stalled).filter(|stalled| stalled.status == Truth::True.as_str())?;
    let is_news = condition(old, ConditionType::Stalled).is_none_or(|before| {
        (&before.status, &before.reason, &before.message) != (&stalled.status, &stalled.reason, &stalled.message)
    });
    let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == stalled.reason)?;
    // The node that rolled back has an Event of its own.
    let is_worth_it = is_news && reason != Reason::RolledBack;
    is_worth_it.then(|| Event::warning(reason, "Judge", &*stalled.message, of_target(new)))
}

/// Every node runs the target.
fn confirmed(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<Event> {
    just_confirmed(old, new)?;
    Some(Event::normal(Reason::Confirmed, "RollOut", message_of_ready(new), of_target(new)))
}

/// A sink became healthy, or ceased to be.
fn sink_changed(before: Option<&SinkStatus>, sink: &SinkStatus) -> Option<Event> {
    let after = health(sink);
    if before.map(health) == Some(after) {
        return None;
    }
    let name = &sink.name;
    let action = format!("Look {name}");
    match after {
        Truth::False => {
            let note = format!("{name} {}", sink.message.as_deref().unwrap_or_default());
            let reason = sink.reason.unwrap_or(Reason::DeliveryFailing);
            Some(Event::warning(reason, action, note, Related::Nothing))
        }
        // An attempt failed and the next one succeeded.
        Truth::True if before.and_then(|before| before.reason) == Some(Reason::Retrying) => None,
        Truth::True => {
            Some(Event::normal(Reason::Healthy, action, format!("{name} receives events"), Related::Nothing))
        }
        Truth::Unknown => None,
    }
}
