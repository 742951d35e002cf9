//! Which node may change next: all nodes of the cluster, as they report, and the clock in; a [`Decision`] for each
//! claim out.
//!
//! The controller decides once in each pass and carries the answer out; nothing is remembered between two calls. Never
//! touches the API or a node.
//!
//! *Guarantees.* At most one node gets the slot in one decision over all claims. None gets it while another node, no
//! matter who claims it, has the slot, is in change or is not known to serve, or while a node of the same Setup rolled
//! the same Revision back under the same generation. Nodes that wait for a change begin one after the other, drift
//! included: a node without the slot changes nothing, and the next one gets the slot when the agent of the last one has
//! reported that it saw the end of its own.
//!
//! *Assumptions.* A node reports that its kube-apiserver is not ready: at once in the five minutes after a change, and
//! within little more than a minute later. Its agent renews its Lease at least once a minute. An API server is only
//! ready when its etcd has quorum. No [`Node`] is older than what was last written for it.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{
    Finding, NodeAudit, NodeAuditSpec, NodeAuditStatus, NodeFailure, NodeSinkStatus, OnSinkFailure, Phase, Reason,
    Truth,
};

/// An agent without a sign of life for longer than this is silent. It gives one every 45 s; this lets one get lost and
/// a restart of the API server pass.
pub const SILENCE: Duration = Duration::from_secs(180);

/// One node that a Setup covers, or covered until it is restored.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub name: &'a str,
    /// The Node's own condition Ready.
    pub is_ready: bool,
    pub goal: Goal<'a>,
    pub audit: Option<&'a NodeAudit>,
    /// It had a `NodeAudit` when the status of a Setup was last written. A change goes on though somebody deletes the
    /// `NodeAudit`.
    pub had_audit: bool,
    pub contact: Contact,
}

/// The contact with an agent, by the steady clock of the controller: the clock of a node may be wrong, and any clock
/// may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Since its last sign of life.
    pub silent_for: Duration,
    /// For how long it has reported the same `readySince`.
    pub same_ready_for: Duration,
}

impl Node<'_> {
    /// Whether its agent has been silent for too long.
    pub fn is_silent(&self) -> bool {
        self.contact.silent_for > SILENCE
    }

    /// Whether a change may be under way there.
    fn is_known(&self) -> bool {
        self.audit.is_some() || self.had_audit
    }
}

/// The Revision that a node should run, and the Setup that assigns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal<'a> {
    /// `None`: its original manifest, after which nothing of ours stays.
    pub revision: Option<&'a str>,
    /// A Setup that is created again begins its generations again.
    pub setup_uid: Option<&'a str>,
    pub setup_generation: i64,
}

impl<'a> Goal<'a> {
    /// The goal in the spec of a `NodeAudit`.
    pub fn assigned(audit: &'a NodeAudit) -> Self {
        let NodeAuditSpec { revision, setup_uid, setup_generation, .. } = &audit.spec;
        Self { revision: revision.as_deref(), setup_uid: setup_uid.as_deref(), setup_generation: *setup_generation }
    }
}

/// The nodes of one Setup, or of a Setup that is gone.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    pub nodes: Vec<Node<'a>>,
    pub is_paused: bool,
    /// For how long the API server of a node must be ready before another node changes.
    pub min_ready: SignedDuration,
    /// Whether a node gets its first or another Revision while one that runs it does not deliver.
    pub on_sink_failure: OnSinkFailure,
}

/// The decision for one claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// For each node of the claim, in their order.
    pub assignments: Vec<Assignment>,
    pub progress: Progress,
    /// When to decide again even if nothing is reported.
    pub wake: Option<SignedDuration>,
}

/// The decision about the `NodeAudit` of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// The goal is written into the spec, and the node gets the slot.
    Start,
    /// The node has not finished with its spec: it keeps the goal in it, and the slot if it has it.
    Continue,
    /// The node has reached its goal: setup and generation are brought up to date, and the slot ends.
    Follow,
    /// The spec keeps its goal, and the node has no slot. Where there is no spec yet, one is made that names no
    /// Revision: the agent reports and, without the slot, restores nothing.
    Hold,
    /// The node has its original manifest and no Setup: its `NodeAudit` is deleted.
    Release,
}

/// The state of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every node has reached its goal.
    Done,
    /// It goes on by itself.
    Moving { detail: String },
    /// Nodes would change if it were not paused.
    Paused { waiting: usize },
    /// It does not go on until a person, or the node itself, has put something right.
    Stalled { reason: Reason, message: String },
}

/// Decides for all nodes of the cluster: for each claim, in their order. `unclaimed`: further nodes that have a
/// `NodeAudit`, or had one.
pub fn decide(claims: &[Claim], unclaimed: &[Node], now: Timestamp) -> Vec<Decision> {
    let mut starting = None;
    let mut decisions = Vec::with_capacity(claims.len());
    for (index, claim) in claims.iter().enumerate() {
        let of_others =
            claims.iter().enumerate().filter(|(other, _)| *other != index).flat_map(|(_, other)| &other.nodes);
        let others: Vec<View> = of_others
            .chain(unclaimed)
            .filter(|node| node.is_known() || starting == Some(node.name))
            .map(|node| View { is_starting: starting == Some(node.name), ..View::new(node, claim, now) })
            .collect();
        let decision = decide_claim(claim, &others, now);
        let started = decision.assignments.iter().position(|assignment| *assignment == Assignment::Start);
        starting = starting.or(started.map(|started| claim.nodes[started].name));
        decisions.push(decision);
    }
    decisions
}

fn decide_claim(claim: &Claim, others: &[View], now: Timestamp) -> Decision {
    let views: Vec<View> = claim.nodes.iter().map(|node| View::new(node, claim, now)).collect();
    let failed = views.iter().find_map(|view| view.failure().map(|failure| (view, failure)));
    let silent_sink = match claim.on_sink_failure {
        OnSinkFailure::Continue => None,
        OnSinkFailure::Hold => SilentSink::worst(&views),
    };
    let start = match failed {
        Some(_) => None,
        None if claim.is_paused => None,
        None => next(&views, others, silent_sink.is_some()),
    };

    let assignments = views
        .iter()
        .map(|view| {
            if view.is_released() {
                Assignment::Release
            } else if view.has_reached_goal() {
                Assignment::Follow
            } else if start.is_some_and(|start| start.node.name == view.node.name) {
                Assignment::Start
            } else if view.goes_on() && !claim.is_paused {
                Assignment::Continue
            } else {
                Assignment::Hold
            }
        })
        .collect();

    let progress = match (failed, start) {
        (Some((view, failure)), _) => rolled_back(view, failure),
        (None, Some(view)) => Progress::Moving { detail: format!("{} starts", view.node.name) },
        (None, None) => waiting(&views, others, claim.is_paused, silent_sink.as_ref()),
    };
    let wake = views
        .iter()
        .chain(others)
        .filter_map(|view| match view.state {
            State::Settling { left } => Some(left),
            _ => None,
        })
        .max();
    Decision { assignments, progress, wake }
}

/// A node and its state.
#[derive(Debug)]
struct View<'a> {
    node: &'a Node<'a>,
    state: State,
    needs_start: bool,
    /// Another claim has just given it the slot.
    is_starting: bool,
}

/// The state of a node against its own spec, whatever its goal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is as its spec asks or waits for the slot, and its kube-apiserver has been ready for long enough.
    Settled,
    /// The same, but not for long enough yet.
    Settling {
        left: SignedDuration,
    },
    /// It is as its spec asks or waits for the slot, and its kube-apiserver is not ready.
    ApiServerDown,
    /// It has not finished with its spec.
    Changing,
    /// It rolled back, and serves.
    RolledBack,
    Drifted,
    Unsupported,
    /// No agent has reported yet.
    Unreported,
    /// Its agent stopped reporting, or never began.
    Silent,
    /// The Node itself is not Ready.
    NotReady,
}

impl<'a> View<'a> {
    fn new(node: &'a Node<'a>, claim: &Claim, now: Timestamp) -> Self {
        let mut view = View { node, state: State::Unreported, needs_start: false, is_starting: false };
        view.state = view.state(claim.min_ready, now);
        view.needs_start = match node.audit {
            None => node.goal.revision.is_some(),
            // A Revision that failed is tried again under a newer generation, so the generation alone can set a node in
            // motion too.
            Some(audit) => !view.has_reached_goal() && (Goal::assigned(audit) != node.goal || view.waits_for_slot()),
        };
        view
    }

    fn state(&self, min_ready: SignedDuration, now: Timestamp) -> State {
        let Some(audit) = self.node.audit else { return State::Unreported };
        let Some(status) = audit.status.as_ref().filter(|status| status.last_seen.is_some()) else {
            return if self.node.is_silent() { State::Silent } else { State::Unreported };
        };
        if self.node.is_silent() {
            return State::Silent;
        }
        if !self.node.is_ready {
            return State::NotReady;
        }
        // Its report is about an older spec: it may have begun a change since.
        if status.observed_generation < audit.metadata.generation {
            return State::Changing;
        }
        if self.is_as_spec_asks() || self.waits_for_slot() {
            let Some(ready) = ready_for(status, self.node.contact, now) else { return State::ApiServerDown };
            let left = min_ready - ready;
            return if left.is_positive() { State::Settling { left } } else { State::Settled };
        }
        match status.phase {
            Phase::RolledBack if serves(status) => State::RolledBack,
            Phase::Drifted => State::Drifted,
            Phase::Unsupported => State::Unsupported,
            _ => State::Changing,
        }
    }

    fn status(&self) -> Option<&'a NodeAuditStatus> {
        self.node.audit.and_then(|audit| audit.status.as_ref())
    }

    fn is_as_spec_asks(&self) -> bool {
        self.node.audit.is_some_and(is_as_spec_asks)
    }

    /// Whether a change is due there that does not begin before [`Assignment::Start`].
    fn waits_for_slot(&self) -> bool {
        self.node.audit.is_some() && !self.has_slot() && self.status().is_some_and(waits)
    }

    fn has_reached_goal(&self) -> bool {
        self.node.audit.is_some_and(|audit| audit.spec.revision.as_deref() == self.node.goal.revision)
            && self.is_as_spec_asks()
    }

    /// The failure that halts the rollout: of this goal, which the node has not reached since.
    fn failure(&self) -> Option<&'a NodeFailure> {
        let failure = self.status()?.last_failure.as_ref()?;
        let failed = Goal {
            revision: failure.revision.as_deref(),
            setup_uid: self.node.audit?.spec.setup_uid.as_deref(),
            setup_generation: failure.setup_generation,
        };
        (failed == self.node.goal && !self.has_reached_goal()).then_some(failure)
    }

    fn is_released(&self) -> bool {
        let Some(audit) = self.node.audit.filter(|_| self.node.goal.revision.is_none()) else { return false };
        match self.status().filter(|status| status.last_seen.is_some()) {
            // A node that cannot be managed and has nothing of ours needs no restoring either.
            Some(status) => {
                audit.spec.revision.is_none()
                    && status.observed_generation >= audit.metadata.generation
                    && status.revision.is_none()
                    && status.changing_to.is_none()
                    && !waits(status)
                    && matches!(status.phase, Phase::Unmanaged | Phase::Unsupported)
                    // The NodeAudit is kept for as long as the others wait for this node.
                    && !matches!(self.state, State::Settling { .. } | State::ApiServerDown)
            }
            // The first spec named no Revision and none was written since: the node never had the slot. In any other
            // case a late agent could be in the middle of a change. An agent that is there reports first: it may find
            // settings of ours that are older than this spec.
            None => {
                audit.spec.revision.is_none() && audit.metadata.generation == Some(1) && self.state == State::Silent
            }
        }
    }

    /// Whether its next change brings it a Revision that it was not assigned before: no drift, and no restoring.
    fn gets_new_revision(&self) -> bool {
        let assigned = self.node.audit.and_then(|audit| audit.spec.revision.as_deref());
        self.node.goal.revision.is_some() && assigned != self.node.goal.revision
    }

    /// Whether this node can get the slot.
    fn can_start(&self) -> bool {
        self.needs_start && !matches!(self.state, State::Silent | State::NotReady | State::ApiServerDown)
    }

    /// Whether it may still work on its spec.
    fn goes_on(&self) -> bool {
        let has_ended =
            matches!(self.state, State::Settled | State::Settling { .. } | State::ApiServerDown | State::RolledBack);
        self.node.audit.is_some() && !has_ended
    }

    /// Whether another node may change beside it. A node that rolled back serves, so others that need a newer Revision
    /// do not wait for it. A node that still has the slot could begin at any moment.
    fn lets_others_change(&self) -> bool {
        matches!(self.state, State::Settled | State::RolledBack) && !self.has_slot() && !self.is_starting
    }

    fn has_slot(&self) -> bool {
        self.node.audit.is_some_and(|audit| audit.spec.may_change)
    }

    /// The worst first; then by name.
    fn rank(&self) -> (u8, &str) {
        let rank = match self.status() {
            Some(status) if !serves(status) => 0,
            Some(status) if status.phase == Phase::RolledBack => 1,
            Some(status) if status.phase == Phase::Drifted => 2,
            Some(status) if status.phase == Phase::Unsupported => 3,
            _ => 4,
        };
        (rank, self.node.name)
    }
}

/// Whether the last report says that the node is as its spec asks.
fn is_as_spec_asks(audit: &NodeAudit) -> bool {
    let Some(status) = &audit.status else { return false };
    let phase = if audit.spec.revision.is_some() { Phase::Confirmed } else { Phase::Unmanaged };
    status.revision == audit.spec.revision && status.phase == phase && !waits(status)
}

/// Whether a change is due that the agent may not begin.
fn waits(status: &NodeAuditStatus) -> bool {
    matches!(status.reason, Some(Reason::Paused | Reason::Held))
}

/// For how long kube-apiserver has been ready: by our clock, by the node's own, or by how long the report has been the
/// same, whichever gives more, so that nobody waits for a node whose clock is ahead.
fn ready_for(status: &NodeAuditStatus, contact: Contact, now: Timestamp) -> Option<SignedDuration> {
    let since = status.ready_since.as_ref()?.0;
    let by_its_own = status.last_seen.as_ref().map(|seen| seen.0.duration_since(since));
    let as_seen = SignedDuration::try_from(contact.same_ready_for).unwrap_or(SignedDuration::MAX);
    by_its_own.max(Some(now.duration_since(since))).max(Some(as_seen))
}

fn serves(status: &NodeAuditStatus) -> bool {
    status.ready_since.is_some()
}

/// A sink that gets no events, as far as is known, from a node that runs the target Revision.
struct SilentSink<'a> {
    node: &'a str,
    sink: &'a str,
    /// `None`: the agent has not looked at it yet.
    finding: Option<&'a Finding>,
}

impl<'a> SilentSink<'a> {
    /// One that is known to fail, or one that has not proved anything yet.
    fn worst(views: &[View<'a>]) -> Option<Self> {
        let at_goal = views.iter().filter(|view| view.node.goal.revision.is_some() && view.has_reached_goal());
        let sinks = at_goal.filter_map(|view| Some((view.node.name, view.node.audit?))).flat_map(|(node, audit)| {
            let reports = audit.status.as_ref().map_or(&[][..], |status| &status.sinks);
            audit.spec.sinks.iter().filter_map(move |sink| {
                let report = reports.iter().find(|report| report.name == sink.name);
                let delivers = report.is_some_and(NodeSinkStatus::seems_to_deliver);
                let finding = report.map(|report| &report.delivering);
                (!delivers).then_some(Self { node, sink: &sink.name, finding })
            })
        });
        sinks.max_by_key(Self::is_failing)
    }

    fn is_failing(&self) -> bool {
        self.finding.is_some_and(|finding| finding.status == Truth::False)
    }

    fn progress(&self) -> Progress {
        let Self { node, sink, finding } = self;
        match finding {
            Some(Finding { status: Truth::False, reason, message }) => Progress::Stalled {
                reason: Reason::SinkFailed,
                message: format!(
                    "{node} runs the target Revision and does not deliver to sink {sink} ({reason}): {message}; \
                     rollout.onSinkFailure: Hold"
                ),
            },
            _ => Progress::Moving {
                detail: format!("{node} has not yet delivered to sink {sink}, and rollout.onSinkFailure is Hold"),
            },
        }
    }
}

fn next<'a>(views: &'a [View<'a>], others: &[View], is_held: bool) -> Option<&'a View<'a>> {
    let may_change = |view: &&View| {
        let mut beside = views.iter().chain(others).filter(|other| other.node.name != view.node.name);
        beside.all(View::lets_others_change)
    };
    let is_held = |view: &&View| is_held && view.gets_new_revision();
    let candidates = views.iter().filter(|view| view.can_start() && !is_held(view));
    candidates.filter(may_change).min_by_key(|view| view.rank())
}

fn rolled_back(view: &View, failure: &NodeFailure) -> Progress {
    let outcome = match &failure.revision {
        Some(revision) => format!("rolled back {revision}"),
        None => "could not be restored to its original manifest".to_string(),
    };
    let message = format!("{} {outcome} ({}): {}", view.node.name, failure.reason, describe(failure));
    Progress::Stalled { reason: Reason::RolledBack, message }
}

/// The message of a failure with the last words of kube-apiserver.
pub fn describe(failure: &NodeFailure) -> String {
    match &failure.last_words {
        Some(words) => format!("{}; last words of kube-apiserver: {words}", failure.message),
        None => failure.message.clone(),
    }
}

/// Why nothing starts now.
fn waiting(views: &[View], others: &[View], is_paused: bool, silent_sink: Option<&SilentSink>) -> Progress {
    let unfinished = || views.iter().filter(|view| !view.has_reached_goal() && !view.is_released());
    let stalled = |view: &View, reason: Reason, message: String| Progress::Stalled {
        reason,
        message: format!("{}: {message}", view.node.name),
    };
    // A node that needs a person comes first. A silent agent does even where its node last had the right Revision:
    // whether it still has is unknown.
    for view in views.iter().filter(|view| !view.is_released()) {
        let status = view.status();
        match view.state {
            State::Silent => {
                let seen = status.and_then(|status| status.last_seen.as_ref());
                let mut message = match seen {
                    Some(seen) => format!("its agent is silent; its last report is from {:.0}", seen.0),
                    None => "its agent has never reported".to_string(),
                };
                if view.node.goal.revision.is_none() {
                    message += "; delete its NodeAudit to leave the node as it is";
                }
                return stalled(view, Reason::AgentSilent, message);
            }
            State::Unsupported => {
                let message = status.and_then(|status| status.message.clone());
                let reason = status.and_then(|status| status.reason).unwrap_or(Reason::ManifestUnusable);
                return stalled(view, reason, message.unwrap_or_else(|| "the node cannot be managed as it is".into()));
            }
            State::RolledBack if !view.needs_start => {
                return stalled(view, Reason::RolledBack, "rolled back its Revision".into());
            }
            _ => {}
        }
    }
    if unfinished().next().is_none() {
        return Progress::Done;
    }
    let in_change = unfinished().find(|view| matches!(view.state, State::Changing | State::Drifted));
    if let Some(view) = in_change {
        return Progress::Moving { detail: format!("{} {}", view.node.name, Activity(view)) };
    }
    let waiting = unfinished().filter(|view| view.needs_start).count();
    if is_paused && waiting > 0 {
        return Progress::Paused { waiting };
    }
    if let Some(sink) = silent_sink
        && unfinished().any(View::gets_new_revision)
    {
        return sink.progress();
    }
    // The node that the others wait for, whether it has reached its goal or not.
    let detail = match (holder(views), holder(others)) {
        (Some(view), _) => format!("{} {}", view.node.name, Activity(view)),
        (None, Some(view)) => format!("{} of another AuditSetup {}", view.node.name, Activity(view)),
        (None, None) => "nothing has started yet".into(),
    };
    Progress::Moving { detail }
}

fn holder<'a>(views: &'a [View<'a>]) -> Option<&'a View<'a>> {
    let mut holders = views.iter().filter(|view| !view.lets_others_change());
    let settling = holders.clone().next();
    holders.find(|view| !matches!(view.state, State::Settling { .. })).or(settling)
}

/// The state of a node, for people.
struct Activity<'a>(&'a View<'a>);

impl fmt::Display for Activity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.0.status().map(|status| status.phase).unwrap_or_default();
        let text = match (self.0.state, phase) {
            _ if self.0.is_starting => "is about to change",
            (State::NotReady, _) => "is not Ready",
            (State::Silent, _) => "has an agent that does not report",
            (State::Unsupported, _) => "cannot be managed as it is",
            (State::ApiServerDown, _) => "has a kube-apiserver that is not ready",
            (State::Unreported, _) => "has no report from its agent yet",
            (State::Settling { .. }, _) => "must be ready for a while before the next node changes",
            (State::Settled | State::RolledBack, _) => "has not yet acknowledged the end of its change",
            (State::Drifted, _) => "was changed by something else and is being corrected",
            (State::Changing, Phase::Verifying) => "is verifying",
            (State::Changing, Phase::Staged) => "has staged the change",
            (State::Changing, Phase::RolledBack) => "rolled back and does not serve",
            _ => "is changing",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests;
