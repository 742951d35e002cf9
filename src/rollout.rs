//! Which node may change next: what the nodes report and the clock in, a [`Decision`] out.
//!
//! The controller asks on every pass and carries the answer out; nothing is remembered between two calls. Never touches the
//! API or a node.
//!
//! *Guarantees.* At most one node is told to change in one decision, and none while another node, be it of another Setup, may
//! change, is in change or is not known to serve, or while one of the same Setup took the same Revision back under the same
//! generation. What waits on several nodes is begun on one after the other, drift too: a node is held but for its turn, and the
//! next turn begins when the agent of the last one has seen that it is over.
//!
//! *Assumptions.* A node reports since when its kube-apiserver is ready, or that it is not, within a quarter of a minute, and
//! anything at least once a minute. An API server is only ready when its etcd has quorum. Nobody decides for two Setups at once:
//! a node that one has just told to change is given to the next one without its old report.

use std::fmt;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{NodeAudit, NodeAuditSpec, NodeAuditStatus, NodeFailure, Phase, Reason};

/// An agent that has not reported for longer than this is silent. It reports once a minute; three times that lets one
/// report get lost and a restart of the API server pass.
pub const SILENCE: Duration = Duration::from_secs(180);

/// One node that a Setup covers, or covered until it is restored.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    pub name: &'a str,
    /// The Node's own condition Ready.
    pub is_ready: bool,
    pub goal: Goal<'a>,
    pub audit: Option<&'a NodeAudit>,
    /// For how long its agent has reported nothing, by the clock of who asks: that of the node may be wrong.
    pub unheard_for: Duration,
}

impl Node<'_> {
    /// Whether its agent has been silent for too long.
    pub fn is_silent(&self) -> bool {
        self.unheard_for > SILENCE
    }
}

/// What a node shall come to run, and who wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal<'a> {
    /// `None`: its original manifest, after which nothing of ours stays.
    pub revision: Option<&'a str>,
    /// Of the Setup: one that is created anew begins its generations anew.
    pub setup_uid: Option<&'a str>,
    pub setup_generation: i64,
}

impl<'a> Goal<'a> {
    /// What the node was told last.
    pub fn as_told(audit: &'a NodeAudit) -> Self {
        let NodeAuditSpec { revision, setup_uid, setup_generation, .. } = &audit.spec;
        Self { revision: revision.as_deref(), setup_uid: setup_uid.as_deref(), setup_generation: *setup_generation }
    }
}

/// What holds for all nodes of a Setup.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub is_paused: bool,
    pub min_ready: SignedDuration,
    pub now: Timestamp,
}

/// What to do with the `NodeAudit` of each node, in the order of the nodes, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub steps: Vec<(String, Step)>,
    pub progress: Progress,
    /// When to ask again even if nothing is reported.
    pub wake: Option<SignedDuration>,
}

/// What to do with one `NodeAudit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The goal is written into the spec, and the node may change now.
    Start,
    /// What the node was told last is not at its end: the spec keeps the goal that it has, and the node its turn, if it has it.
    Continue,
    /// The node has reached its goal: who wants it is brought up to date, and the node is held.
    Follow,
    /// The spec keeps the goal that it has, and the node is held. Where there is no spec yet, one is made that names no Revision:
    /// the agent reports, and, being held, gives nothing back.
    Hold,
    /// The node has its original manifest and no Setup: its `NodeAudit` is deleted.
    Release,
}

/// How the rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Every node has reached its goal.
    Done,
    /// It goes on by itself.
    Moving { detail: String },
    /// Nodes would change, were it not paused.
    Paused { waiting: usize },
    /// It does not go on until a person, or the node itself, has put something right.
    Stalled { node: String, reason: Reason, message: String },
}

/// Decides for the `nodes` of a Setup, beside those of `others`.
pub fn decide(nodes: &[Node], others: &[Node], terms: Terms) -> Decision {
    let views: Vec<View> = nodes.iter().map(|node| View::new(node, terms)).collect();
    let others: Vec<View> = others.iter().map(|node| View::new(node, terms)).collect();
    let failed = views.iter().find_map(|view| view.failure().map(|failure| (view, failure)));
    let start = match failed {
        Some(_) => None,
        None if terms.is_paused => None,
        None => next(&views, &others),
    };

    let steps = views
        .iter()
        .map(|view| {
            let step = if view.is_released() {
                Step::Release
            } else if view.has_reached_goal() {
                Step::Follow
            } else if start.is_some_and(|start| start.node.name == view.node.name) {
                Step::Start
            } else if view.goes_on() && !terms.is_paused {
                Step::Continue
            } else {
                Step::Hold
            };
            (view.node.name.to_string(), step)
        })
        .collect();

    let progress = match (failed, start) {
        (Some((view, failure)), _) => took_back(view, failure),
        (None, Some(view)) => Progress::Moving { detail: format!("{} starts", view.node.name) },
        (None, None) => waiting(&views, &others, terms),
    };
    let wake = views
        .iter()
        .chain(&others)
        .filter_map(|view| match view.state {
            State::Settling { left } => Some(left),
            _ => None,
        })
        .max();
    Decision { steps, progress, wake }
}

/// A node with what is true of it.
#[derive(Debug)]
struct View<'a> {
    node: &'a Node<'a>,
    state: State,
    needs_start: bool,
}

/// How a node stands to its own spec, whatever its goal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has what its spec says or is held, and its kube-apiserver has been ready for long enough.
    Settled,
    /// The same, but not for long enough yet.
    Settling {
        left: SignedDuration,
    },
    /// It has what its spec says or is held, and its kube-apiserver is not ready.
    ApiServerDown,
    /// It has not come to an end with what its spec says.
    Changing,
    /// It went back, and serves.
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
    fn new(node: &'a Node<'a>, terms: Terms) -> Self {
        let mut view = View { node, state: State::Unreported, needs_start: false };
        view.state = view.state(terms);
        view.needs_start = match node.audit {
            None => node.goal.revision.is_some(),
            // A Revision that failed is tried again only under a newer generation, so the generation alone can set a node in
            // motion too. It is handed out as carefully as a Revision.
            Some(audit) => !view.has_reached_goal() && (Goal::as_told(audit) != node.goal || view.is_held()),
        };
        view
    }

    fn state(&self, terms: Terms) -> State {
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
        // Whatever it says is about an older spec: it may have begun with that one, and not told yet.
        if status.observed_generation < audit.metadata.generation {
            return State::Changing;
        }
        if self.has_what_spec_says() || self.is_held() {
            let Some(ready) = ready_for(status, terms.now) else { return State::ApiServerDown };
            let left = terms.min_ready - ready;
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

    fn has_what_spec_says(&self) -> bool {
        self.node.audit.is_some_and(has_what_spec_says)
    }

    /// Whether something is to be done there, and is not begun before [`Step::Start`].
    fn is_held(&self) -> bool {
        self.node.audit.is_some() && !self.has_turn() && self.status().is_some_and(waits)
    }

    fn has_reached_goal(&self) -> bool {
        self.node.audit.is_some_and(|audit| audit.spec.revision.as_deref() == self.node.goal.revision)
            && self.has_what_spec_says()
    }

    /// The failure that halts the rollout: of the goal, and not made good since.
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
            // A node that cannot be managed and has nothing of ours has nothing to give back either.
            Some(status) => {
                audit.spec.revision.is_none()
                    && status.observed_generation >= audit.metadata.generation
                    && status.revision.is_none()
                    && status.changing_to.is_none()
                    && !waits(status)
                    && matches!(status.phase, Phase::Unmanaged | Phase::Unsupported)
                    // It is kept for as long as it holds up the others.
                    && !matches!(self.state, State::Settling { .. } | State::ApiServerDown)
            }
            // The first spec named no Revision and none was written since: the node was never told to change. In any other
            // case an agent that is only late could be in the middle of a change. One that is there is heard first: it may
            // know of settings of ours that are older than this spec.
            None => {
                audit.spec.revision.is_none() && audit.metadata.generation == Some(1) && self.state == State::Silent
            }
        }
    }

    /// Whether this node can be told to change.
    fn can_start(&self) -> bool {
        self.needs_start && !matches!(self.state, State::Silent | State::NotReady | State::ApiServerDown)
    }

    /// Whether what it was told last is not at its end, as far as anybody knows.
    fn goes_on(&self) -> bool {
        let has_ended =
            matches!(self.state, State::Settled | State::Settling { .. } | State::ApiServerDown | State::RolledBack);
        self.node.audit.is_some() && !has_ended
    }

    /// Whether another node may change beside it. One that went back serves, so it does not hold up others that need a
    /// newer Revision. One that still may change could begin at any moment.
    fn lets_others_change(&self) -> bool {
        matches!(self.state, State::Settled | State::RolledBack) && !self.has_turn()
    }

    fn has_turn(&self) -> bool {
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

/// Whether the last report says that the node has what its spec asks for.
fn has_what_spec_says(audit: &NodeAudit) -> bool {
    let Some(status) = &audit.status else { return false };
    let phase = if audit.spec.revision.is_some() { Phase::Confirmed } else { Phase::Unmanaged };
    status.revision == audit.spec.revision && status.phase == phase && !waits(status)
}

/// Whether something is to be done, and the agent is kept from it.
fn waits(status: &NodeAuditStatus) -> bool {
    matches!(status.reason, Some(Reason::Paused | Reason::Held))
}

/// For how long kube-apiserver has been ready: by our clock, or by the node's own where that gives more, so that a node
/// whose clock is ahead does not hold up the others.
fn ready_for(status: &NodeAuditStatus, now: Timestamp) -> Option<SignedDuration> {
    let since = status.ready_since.as_ref()?.0;
    let by_its_own = status.last_seen.as_ref().map(|seen| seen.0.duration_since(since));
    by_its_own.max(Some(now.duration_since(since)))
}

fn serves(status: &NodeAuditStatus) -> bool {
    status.ready_since.is_some()
}

fn next<'a>(views: &'a [View<'a>], others: &[View]) -> Option<&'a View<'a>> {
    let may_change = |view: &&View| {
        let mut beside = views.iter().chain(others).filter(|other| other.node.name != view.node.name);
        beside.all(View::lets_others_change)
    };
    views.iter().filter(|view| view.can_start()).filter(may_change).min_by_key(|view| view.rank())
}

fn took_back(view: &View, failure: &NodeFailure) -> Progress {
    let what = match &failure.revision {
        Some(revision) => format!("took {revision} back"),
        None => "could not get its original manifest back".to_string(),
    };
    let message = describe(failure);
    Progress::Stalled {
        node: view.node.name.to_string(),
        reason: Reason::RolledBack,
        message: format!("{} {what} ({}): {message}", view.node.name, failure.reason),
    }
}

/// The message of a failure with the last words of kube-apiserver.
pub fn describe(failure: &NodeFailure) -> String {
    match &failure.last_words {
        Some(words) => format!("{}; last words of kube-apiserver: {words}", failure.message),
        None => failure.message.clone(),
    }
}

/// Why nothing starts now.
fn waiting(views: &[View], others: &[View], terms: Terms) -> Progress {
    let unfinished = || views.iter().filter(|view| !view.has_reached_goal() && !view.is_released());
    let stalled = |view: &View, reason: Reason, message: String| Progress::Stalled {
        node: view.node.name.to_string(),
        reason,
        message: format!("{}: {message}", view.node.name),
    };
    // What needs a person comes first. A silent agent does even where its node last had the right Revision: nobody knows
    // whether it still has.
    for view in views.iter().filter(|view| !view.is_released()) {
        let status = view.status();
        match view.state {
            State::Silent => {
                let seen = status.and_then(|status| status.last_seen.as_ref());
                let mut message = match seen {
                    Some(seen) => format!("its agent is silent; its last report is of {:.0}", seen.0),
                    None => "its agent has never reported".to_string(),
                };
                if view.node.goal.revision.is_none() {
                    message += "; delete its NodeAudit to give the node up as it is";
                }
                return stalled(view, Reason::AgentSilent, message);
            }
            State::Unsupported => {
                let message = status.and_then(|status| status.message.clone());
                let reason = status.and_then(|status| status.reason).unwrap_or(Reason::ManifestUnusable);
                return stalled(view, reason, message.unwrap_or_else(|| "the node cannot be managed as it is".into()));
            }
            State::RolledBack if !view.needs_start => {
                return stalled(view, Reason::RolledBack, "took its Revision back".into());
            }
            _ => {}
        }
    }
    if unfinished().next().is_none() {
        return Progress::Done;
    }
    let in_change = unfinished().find(|view| matches!(view.state, State::Changing | State::Drifted));
    if let Some(view) = in_change {
        return Progress::Moving { detail: format!("{} {}", view.node.name, Doing(view)) };
    }
    let waiting = unfinished().filter(|view| view.needs_start).count();
    if terms.is_paused && waiting > 0 {
        return Progress::Paused { waiting };
    }
    // Those that hold the others up, whether they have reached their goal or not.
    let detail = match (holder(views), holder(others)) {
        (Some(view), _) => format!("{} {}", view.node.name, Doing(view)),
        (None, Some(view)) => format!("{} of another AuditSetup {}", view.node.name, Doing(view)),
        (None, None) => "nothing has started yet".into(),
    };
    Progress::Moving { detail }
}

fn holder<'a>(views: &'a [View<'a>]) -> Option<&'a View<'a>> {
    let mut holders = views.iter().filter(|view| !view.lets_others_change());
    let settling = holders.clone().next();
    holders.find(|view| !matches!(view.state, State::Settling { .. })).or(settling)
}

/// What a node is doing, for people.
struct Doing<'a>(&'a View<'a>);

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.0.status().map(|status| status.phase).unwrap_or_default();
        let text = match (self.0.state, phase) {
            (State::NotReady, _) => "is not Ready",
            (State::Silent, _) => "has an agent that does not report",
            (State::Unsupported, _) => "cannot be managed as it is",
            (State::ApiServerDown, _) => "has a kube-apiserver that is not ready",
            (State::Unreported, _) => "has no report from its agent yet",
            (State::Settling { .. }, _) => "has to be ready for a while before the next node changes",
            (State::Settled | State::RolledBack, _) => "has not seen yet that its turn is over",
            (State::Drifted, _) => "was changed by something else and is put right",
            (State::Changing, Phase::Verifying) => "is verifying",
            (State::Changing, Phase::Staged) => "has staged the change",
            (State::Changing, Phase::RolledBack) => "went back and does not serve",
            _ => "is changing",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests;
