//! The sinks of a Setup over all nodes that run a Revision. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Facts, MESSAGE_BYTES, cut};
use crate::api::{Finding, NodeSinkStatus, Reason, SinkStatus, Truth};
use crate::rollout::Node;

/// A sink as one node sees it.
struct View<'a> {
    node: &'a str,
    reachable: Finding,
    delivering: Finding,
    report: Option<&'a NodeSinkStatus>,
}

impl<'a> View<'a> {
    fn new(node: &'a Node<'a>, reports: &'a [NodeSinkStatus], sink: &str) -> Self {
        let unknown = |reason, message: &str| Finding { status: Truth::Unknown, reason, message: message.into() };
        let report = reports.iter().find(|report| report.name == sink);
        let (reachable, delivering) = match report {
            // The last findings of a silent agent may not be true any more.
            _ if node.is_silent() => {
                let finding = unknown(Reason::AgentSilent, "the agent does not report");
                (finding.clone(), finding)
            }
            Some(report) => (report.reachable.clone(), report.delivering.clone()),
            None => {
                let finding = unknown(Reason::Pending, "not probed yet");
                (finding.clone(), finding)
            }
        };
        Self { node: node.name, reachable, delivering, report }
    }
}

pub(super) fn sinks(facts: Facts) -> Vec<SinkStatus> {
    let running = |sink: &str| -> Vec<View> {
        let reports = facts.nodes.iter().filter_map(|node| Some((node, node.audit?.status.as_ref()?)));
        let running = reports.filter(|(_, status)| status.revision.is_some());
        running.map(|(node, status)| View::new(node, &status.sinks, sink)).collect()
    };
    facts.setup.spec.sinks.iter().map(|sink| over_nodes(&sink.name, &running(&sink.name))).collect()
}

fn over_nodes(name: &str, views: &[View]) -> SinkStatus {
    let (reason, message) = match worst(views) {
        Some((node, finding)) => (finding.reason, Some(describe(node, finding))),
        None if views.is_empty() => (Reason::Pending, Some("is not probed: no node runs a Revision yet".to_string())),
        None => (Reason::Healthy, None),
    };
    let reports = || views.iter().filter_map(|view| view.report);
    let delivered: Option<Vec<_>> = views.iter().map(|view| view.report?.last_delivered.as_ref()).collect();
    SinkStatus {
        name: name.into(),
        reachable: worst_of(views.iter().map(|view| &view.reachable)),
        delivering: worst_of(views.iter().map(|view| &view.delivering)),
        lost_events: reports().fold(0, |sum, report| sum.saturating_add(report.lost_events)),
        last_delivered: delivered.and_then(|times| times.into_iter().map(|time| time.0).min()).map(Time),
        reason: Some(reason),
        message: message.map(|message| cut(message, MESSAGE_BYTES)),
    }
}

/// The finding that keeps the sink from being healthy. An unreachable sink explains why nothing is delivered, so it
/// comes first.
fn worst<'a>(views: &'a [View]) -> Option<(&'a str, &'a Finding)> {
    let reachable = views.iter().map(|view| (view.node, &view.reachable));
    let findings = reachable.chain(views.iter().map(|view| (view.node, &view.delivering)));
    let first = |truth| findings.clone().find(|(_, finding)| finding.status == truth);
    let is_proven = views.iter().all(|view| view.delivering.status == Truth::True);
    first(Truth::False).or_else(|| if is_proven { None } else { first(Truth::Unknown) })
}

fn describe(node: &str, finding: &Finding) -> String {
    match finding.message.as_str() {
        "" => format!("on {node}: {}", finding.reason),
        message => format!("on {node}: {message}"),
    }
}

fn worst_of<'a>(findings: impl Iterator<Item = &'a Finding> + Clone) -> Truth {
    let has = |truth| findings.clone().any(|finding| finding.status == truth);
    if has(Truth::False) {
        Truth::False
    } else if has(Truth::Unknown) || findings.clone().next().is_none() {
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
