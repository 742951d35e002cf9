//! The status of a Setup, and the Events that a change of it is worth: what was judged, rendered and reported in, plain
//! values out.
//!
//! The controller calls [`status`] at the end of each pass, writes the result if it [`differs`] and publishes [`events`].
//! Times come in; a condition keeps its `lastTransitionTime` while its status stays. Ready, Reconciling and Stalled follow
//! kstatus (sigs.k8s.io/cli-utils@v0.37.2 pkg/kstatus/README.md): the two others are True only while they explain why Ready
//! is not.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{
    AuditSetup, AuditSetupStatus, ConditionType, Finding, HistoryEntry, NodeStatus, Outcome, Phase, PolicyStatus,
    Reason, RevisionStatus, SetupFinding, SinkStatus, Truth,
};
use crate::rollout::{self, Node, Progress};
use crate::validate::Problem;

/// Messages are for people: what is longer than this is cut.
const MESSAGE_BYTES: usize = 1024;
/// Notes of Events hold at most a kilobyte (kubernetes@v1.36.3 pkg/apis/core/validation/events.go#L36).
const NOTE_BYTES: usize = 1000;
const HISTORY: usize = 10;
/// `lastDelivered` alone is worth a write when it is this much off.
const DELIVERED_GRAIN: SignedDuration = SignedDuration::from_mins(5);

/// Everything that a status is made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The Setup, with its status so far.
    pub setup: &'a AuditSetup,
    /// The nodes that it covers, or still has to give back.
    pub nodes: &'a [Node<'a>],
    pub judgement: Judgement<'a>,
    pub now: Timestamp,
}

/// What became of the Setup in this pass.
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
        /// What the target changes against the one before, where it is new.
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

    let mut conditions = Conditions { list: Vec::new(), old: &old.conditions, facts };
    conditions.progress();
    conditions.policy();
    conditions.sinks(&sinks);
    AuditSetupStatus {
        observed_generation: facts.setup.metadata.generation,
        revision,
        conditions: conditions.list,
        policy: match facts.judgement {
            Judgement::Rendered { policy, .. } => Some(policy.clone()),
            _ => old.policy,
        },
        findings: match facts.judgement {
            Judgement::Rendered { findings, .. } => findings.to_vec(),
            _ => old.findings,
        },
        nodes,
        sinks,
        history,
    }
}

/// Whether a status is worth a write. A `lastDelivered` that only moved on is not.
pub fn differs(old: &AuditSetupStatus, new: &AuditSetupStatus) -> bool {
    let mut aligned = new.clone();
    for sink in &mut aligned.sinks {
        let before =
            old.sinks.iter().find(|before| before.name == sink.name).and_then(|before| before.last_delivered.clone());
        if let (Some(before), Some(after)) = (before, &sink.last_delivered)
            && after.0.duration_since(before.0).abs() < DELIVERED_GRAIN
        {
            sink.last_delivered = Some(before);
        }
    }
    aligned != *old
}

/// How long a rollout took that has just come to its end on every node. One that was over when it was first seen took no time
/// that anybody knows.
pub fn rolled_out(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Option<SignedDuration> {
    let entry = just_confirmed(old, new)?;
    let took = entry.finished.as_ref()?.0.duration_since(entry.started.0);
    took.is_positive().then_some(took)
}

/// The newest entry of the history, where it was confirmed just now. Once for each: a node that joins or drifts later does not open it
/// again.
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
        None => (None, Some("not told to change yet".to_string())),
        Some(_) if node.is_silent() => (Some(Reason::AgentSilent), Some("its agent does not report".to_string())),
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

/// The sinks over all nodes that run a Revision.
fn sinks(facts: Facts) -> Vec<SinkStatus> {
    let running: Vec<_> = facts
        .nodes
        .iter()
        .filter_map(|node| Some((node, node.audit?.status.as_ref()?)))
        .filter(|(_, status)| status.revision.is_some())
        .collect();
    facts
        .setup
        .spec
        .sinks
        .iter()
        .map(|sink| {
            let mut reachable = Vec::new();
            let mut delivering = Vec::new();
            let mut lost_events = 0_i64;
            let mut delivered = Vec::new();
            for (node, status) in &running {
                let unknown =
                    |reason, message: &str| Finding { status: Truth::Unknown, reason, message: message.into() };
                let report = status.sinks.iter().find(|report| report.name == sink.name);
                if let Some(report) = report {
                    lost_events = lost_events.saturating_add(report.lost_events);
                }
                delivered.push(report.and_then(|report| report.last_delivered.clone()));
                if node.is_silent() {
                    // What it found last may not be true any more.
                    let finding = unknown(Reason::AgentSilent, "the agent does not report");
                    reachable.push((node.name, finding.clone()));
                    delivering.push((node.name, finding));
                } else if let Some(report) = report {
                    reachable.push((node.name, report.reachable.clone()));
                    delivering.push((node.name, report.delivering.clone()));
                } else {
                    let finding = unknown(Reason::Pending, "not probed yet");
                    reachable.push((node.name, finding.clone()));
                    delivering.push((node.name, finding));
                }
            }
            // A sink that cannot be reached explains why nothing is delivered, so it is named first.
            let is_worst = |truth| {
                let found = reachable.iter().chain(&delivering).find(move |(_, finding)| finding.status == truth);
                found.map(|(node, finding)| (*node, finding))
            };
            let proven = !delivering.is_empty() && delivering.iter().all(|(_, finding)| finding.status == Truth::True);
            let worst = is_worst(Truth::False).or_else(|| if proven { None } else { is_worst(Truth::Unknown) });
            let (reason, message) = match worst {
                Some((node, finding)) => (finding.reason, Some(describe(node, finding))),
                None if running.is_empty() => {
                    (Reason::Pending, Some("is not probed: no node runs a Revision yet".to_string()))
                }
                None => (Reason::Healthy, None),
            };
            let oldest = delivered.iter().flatten().map(|time| time.0).min();
            SinkStatus {
                name: sink.name.clone(),
                reachable: worst_of(&reachable),
                delivering: worst_of(&delivering),
                lost_events,
                last_delivered: oldest.filter(|_| delivered.iter().all(Option::is_some)).map(Time),
                reason: Some(reason),
                message: message.map(|message| cut(message, MESSAGE_BYTES)),
            }
        })
        .collect()
}

fn describe(node: &str, finding: &Finding) -> String {
    match finding.message.as_str() {
        "" => format!("on {node}: {}", finding.reason),
        message => format!("on {node}: {message}"),
    }
}

fn worst_of(findings: &[(&str, Finding)]) -> Truth {
    let has = |truth| findings.iter().any(|(_, finding)| finding.status == truth);
    if has(Truth::False) {
        Truth::False
    } else if has(Truth::Unknown) || findings.is_empty() {
        Truth::Unknown
    } else {
        Truth::True
    }
}

/// Healthy only by proof of delivery. False if anything is known to be wrong.
pub fn health(sink: &SinkStatus) -> Truth {
    match (sink.reachable, sink.delivering) {
        (Truth::False, _) | (_, Truth::False) => Truth::False,
        (_, delivering) => delivering,
    }
}

struct Conditions<'a> {
    list: Vec<Condition>,
    old: &'a [Condition],
    facts: Facts<'a>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: ConditionType, truth: Truth, reason: Reason, message: &str) {
        let before = self.old.iter().find(|old| old.type_ == type_.as_str());
        let since =
            before.filter(|before| before.status == truth.as_str()).map(|before| before.last_transition_time.clone());
        self.list.push(Condition {
            type_: type_.as_str().into(),
            status: truth.as_str().into(),
            reason: reason.as_str().into(),
            message: cut(message.to_string(), MESSAGE_BYTES),
            observed_generation: self.facts.setup.metadata.generation,
            last_transition_time: since.unwrap_or(Time(self.facts.now)),
        });
    }

    /// Ready with the one that explains it.
    fn progress(&mut self) {
        use Truth::{False, True};
        // Ready, Reconciling, Stalled.
        let (truths, reason, message) = match self.facts.judgement {
            Judgement::Conflict { older, node } => (
                (False, False, True),
                Reason::Conflict,
                format!("node {node} belongs to the older AuditSetup {older}; this one changes nothing"),
            ),
            Judgement::NoNodes => ((False, False, True), Reason::NoNodes, "no node matches spec.nodeSelector".into()),
            Judgement::Rejected(problems) => {
                let reason = problems.first().map_or(Reason::InvalidSetup, |problem| problem.reason);
                ((False, False, True), reason, list(problems.iter()))
            }
            Judgement::Rendered { target, progress, .. } => {
                let count = self.runs(target);
                match progress {
                    Progress::Done => ((True, False, False), Reason::Confirmed, count),
                    Progress::Moving { detail } => {
                        ((False, True, False), Reason::RollingOut, format!("{count}; {detail}"))
                    }
                    Progress::Paused { waiting } => (
                        (False, False, False),
                        Reason::Paused,
                        format!("{count}; spec.rollout.paused holds {waiting} back"),
                    ),
                    Progress::Stalled { reason, message, .. } => {
                        ((False, False, True), *reason, format!("{count}; {message}"))
                    }
                }
            }
            Judgement::Restoring(progress) => {
                let left = self.facts.nodes.iter().filter(|node| node.audit.is_some()).count();
                let count = format!("{left} {} to be restored", if left == 1 { "node has" } else { "nodes have" });
                match progress {
                    Progress::Done => ((False, True, False), Reason::Restoring, "every node is restored".into()),
                    Progress::Moving { detail } => {
                        ((False, True, False), Reason::Restoring, format!("{count}; {detail}"))
                    }
                    Progress::Paused { .. } => {
                        ((False, False, False), Reason::Paused, format!("{count}; spec.rollout.paused holds that back"))
                    }
                    Progress::Stalled { reason, message, .. } => {
                        ((False, False, True), *reason, format!("{count}; {message}"))
                    }
                }
            }
        };
        let (ready, reconciling, stalled) = truths;
        self.set(ConditionType::Ready, ready, reason, &message);
        let mut explain = |type_, truth| match truth {
            True => self.set(type_, True, reason, &message),
            _ => self.set(type_, False, reason, ""),
        };
        explain(ConditionType::Reconciling, reconciling);
        explain(ConditionType::Stalled, stalled);
    }

    fn runs(&self, target: &str) -> String {
        let covered = self.facts.nodes.iter().filter(|node| node.goal.revision.is_some());
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

    fn policy(&mut self) {
        let type_ = ConditionType::PolicyAccepted;
        match self.facts.judgement {
            Judgement::Rendered { policy, .. } => {
                let mut message = format!("{} rules", policy.rules);
                if !policy.findings.is_empty() {
                    let ids: BTreeSet<&str> = policy.findings.iter().map(|finding| finding.id.as_str()).collect();
                    message += &format!("; found: {}", ids.into_iter().collect::<Vec<_>>().join(", "));
                }
                self.set(type_, Truth::True, Reason::Accepted, &message);
            }
            Judgement::Rejected(problems) => {
                let of_policy = |problem: &&Problem| {
                    problem.reason == Reason::InvalidPolicy || problem.field.starts_with("spec.policy")
                };
                match problems.iter().find(of_policy) {
                    Some(first) => {
                        let message = list(problems.iter().filter(of_policy));
                        self.set(type_, Truth::False, first.reason, &message);
                    }
                    None => self.set(type_, Truth::True, Reason::Accepted, ""),
                }
            }
            // Not judged in this pass: what was found last still stands.
            _ => match self.old.iter().find(|old| old.type_ == type_.as_str()) {
                Some(old) => self.list.push(old.clone()),
                None => self.set(type_, Truth::Unknown, Reason::Pending, "not judged yet"),
            },
        }
    }

    fn sinks(&mut self, sinks: &[SinkStatus]) {
        let type_ = ConditionType::SinksHealthy;
        let find = |truth| sinks.iter().find(|sink| health(sink) == truth);
        let Some(worst) = find(Truth::False).or_else(|| find(Truth::Unknown)) else {
            return self.set(type_, Truth::True, Reason::Healthy, "every sink receives events");
        };
        let truth = health(worst);
        // All that are as bad, so that one does not hide another.
        let messages: Vec<String> = sinks
            .iter()
            .filter(|sink| health(sink) == truth)
            .map(|sink| {
                format!("{} {}", sink.name, sink.message.as_deref().unwrap_or("is not known to receive events"))
            })
            .collect();
        self.set(type_, truth, worst.reason.unwrap_or(Reason::Pending), &messages.join("; "));
    }
}

fn list<'a>(problems: impl Iterator<Item = &'a Problem>) -> String {
    problems.map(|problem| format!("{}: {}", problem.field, problem.message)).collect::<Vec<_>>().join("; ")
}

/// Cuts at a character, and shows that it did.
fn cut(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - '…'.len_utf8()));
        text.push('…');
    }
    text
}

/// A Kubernetes Event on a Setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub is_warning: bool,
    pub reason: Reason,
    /// What the operator did or looked at.
    pub action: String,
    pub note: String,
    pub related: Related,
}

/// The second object of an Event. Events of equal kind on equal objects are counted as one, so whatever may come twice within
/// minutes with another note needs another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Related {
    Nothing,
    Node(String),
    Revision(String),
}

impl Event {
    fn new(
        is_warning: bool,
        reason: Reason,
        action: impl Into<String>,
        note: impl Into<String>,
        related: Related,
    ) -> Self {
        Self { is_warning, reason, action: action.into(), note: cut(note.into(), NOTE_BYTES), related }
    }

    /// The last Event of a Setup that is deleted: its status does not live to tell. `nodes`: those that were let go with it.
    pub fn restored(nodes: &[Node]) -> Self {
        let reported = |node: &&Node| node.audit.is_some_and(|audit| audit.status.is_some());
        let note = if nodes.is_empty() {
            "no NodeAudit is left; what the nodes have is not known"
        } else if nodes.iter().all(|node| reported(&node)) {
            "every node has its original manifest back"
        } else {
            "every node whose agent reported has its original manifest back; the others were never told to change"
        };
        Self::new(false, Reason::Unmanaged, "Restore", note, Related::Nothing)
    }
}

/// What happened between two statuses: one Event for each change, none for equal ones.
pub fn events(old: &AuditSetupStatus, new: &AuditSetupStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let revision = |status: &AuditSetupStatus| status.revision.clone().unwrap_or_default();
    let target = revision(new).target;
    if let Some(target) = target.clone().filter(|target| revision(old).target.as_ref() != Some(target)) {
        let note = match revision(new).reason {
            Some(reason) => format!("rendered {target}: {reason}"),
            None => format!("rendered {target}"),
        };
        events.push(Event::new(false, Reason::RollingOut, "Render", note, Related::Revision(target)));
    }

    let is = |status: &AuditSetupStatus, type_, truth: Truth| {
        condition(status, type_).is_some_and(|condition| condition.status == truth.as_str())
    };
    let has_reason = |status: &AuditSetupStatus, reason: Reason| {
        condition(status, ConditionType::Ready).is_some_and(|condition| condition.reason == reason.as_str())
    };
    let ready = |status| condition(status, ConditionType::Ready).map_or(String::new(), |ready| ready.message.clone());
    let related = || target.clone().map_or(Related::Nothing, Related::Revision);
    if has_reason(new, Reason::Restoring) && !has_reason(old, Reason::Restoring) {
        events.push(Event::new(false, Reason::Restoring, "Restore", ready(new), Related::Nothing));
    } else if is(new, ConditionType::Reconciling, Truth::True) && !is(old, ConditionType::Reconciling, Truth::True) {
        events.push(Event::new(false, Reason::RollingOut, "RollOut", ready(new), related()));
    }

    for node in &new.nodes {
        let before = old.nodes.iter().find(|before| before.name == node.name);
        events.extend(node_events(before, node));
    }

    if let Some(stalled) =
        condition(new, ConditionType::Stalled).filter(|stalled| stalled.status == Truth::True.as_str())
    {
        let is_news = condition(old, ConditionType::Stalled).is_none_or(|before| {
            (&before.status, &before.reason, &before.message) != (&stalled.status, &stalled.reason, &stalled.message)
        });
        let reason = Reason::ALL.iter().copied().find(|reason| reason.as_str() == stalled.reason);
        // The node that went back has an Event of its own.
        if let Some(reason) = reason.filter(|reason| is_news && *reason != Reason::RolledBack) {
            events.push(Event::new(true, reason, "Judge", &*stalled.message, related()));
        }
    }

    if just_confirmed(old, new).is_some() {
        events.push(Event::new(false, Reason::Confirmed, "RollOut", ready(new), related()));
    }

    for sink in &new.sinks {
        let before = old.sinks.iter().find(|before| before.name == sink.name).map(health);
        let action = format!("Probe {}", sink.name);
        match health(sink) {
            after if before == Some(after) => {}
            Truth::False => {
                let note = format!("{} {}", sink.name, sink.message.as_deref().unwrap_or_default());
                events.push(Event::new(
                    true,
                    sink.reason.unwrap_or(Reason::DeliveryFailing),
                    action,
                    note,
                    Related::Nothing,
                ));
            }
            Truth::True => {
                let note = format!("{} receives events", sink.name);
                events.push(Event::new(false, Reason::Healthy, action, note, Related::Nothing));
            }
            Truth::Unknown => {}
        }
    }
    events
}

fn node_events(before: Option<&NodeStatus>, node: &NodeStatus) -> Vec<Event> {
    let NodeStatus { name, phase, .. } = node;
    let message = node.message.as_deref().unwrap_or_default();
    let event = |is_warning, reason, action: &str, note| {
        Event::new(is_warning, reason, action, note, Related::Node(name.clone()))
    };
    let was = |phases: &[Phase]| before.is_some_and(|before| phases.contains(&before.phase));
    let mut events = Vec::new();
    let ended_kubelet = |node: &NodeStatus| node.reason == Some(Reason::KubeletRestarted);
    if ended_kubelet(node) && !before.is_some_and(ended_kubelet) {
        let note = format!("the kubelet of {name} was ended, so that it takes up the old manifest");
        events.push(event(true, Reason::KubeletRestarted, "EndKubelet", note));
    }
    let key = |node: &NodeStatus| (node.phase, node.revision.clone(), node.since.clone());
    if before.map(key) == Some(key(node)) {
        return events;
    }
    events.extend(match phase {
        Phase::Staged | Phase::Verifying if !was(&[Phase::Staged, Phase::Verifying]) => {
            Some(event(false, Reason::RollingOut, "Change", format!("{name} begins: {message}")))
        }
        // An agent that was restarted says the same with another time.
        Phase::Confirmed if was(&[Phase::Confirmed]) && before.is_some_and(|it| it.revision == node.revision) => None,
        Phase::Confirmed => {
            let revision = node.revision.as_deref().unwrap_or_default();
            Some(event(false, Reason::Confirmed, "Change", format!("{name} runs {revision}")))
        }
        Phase::RolledBack => Some(event(true, Reason::RolledBack, "Change", format!("{name} went back: {message}"))),
        Phase::Drifted if !was(&[Phase::Drifted]) => {
            Some(event(true, Reason::Drifted, "Observe", format!("{name}: {message}")))
        }
        _ => None,
    });
    events
}

fn condition(status: &AuditSetupStatus, type_: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

#[cfg(test)]
mod tests;
