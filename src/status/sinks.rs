//! The sinks of a Setup over all nodes that run a Revision. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Facts, Judgement, MESSAGE_BYTES, cut};
use crate::api::{Expiring, Expiry, Finding, NodeSinkStatus, Reason, SinkStatus, Truth};
use crate::rollout::Node;
use crate::validate::NO_ENDPOINTS;

/// A sink as one node sees it.
struct View<'a> {
    node: &'a str,
    reachable: Finding,
    delivering: Finding,
    complete: Finding,
    report: Option<&'a NodeSinkStatus>,
}

impl<'a> View<'a> {
    fn new(node: &'a Node<'a>, reports: &'a [NodeSinkStatus], sink: &str) -> Self {
        let unknown = |reason, message: &str| Finding { status: Truth::Unknown, reason, message: message.into() };
        let report = reports.iter().find(|report| report.name == sink);
        let all = |finding: Finding| [finding.clone(), finding.clone(), finding];
        let [reachable, delivering, complete] = match report {
            // The last findings of a silent agent may not be true any more.
            _ if node.is_silent() => all(unknown(Reason::AgentSilent, "the agent does not report")),
            Some(report) => [report.reachable.clone(), report.delivering.clone(), report.complete.clone()],
            None => all(unknown(Reason::Pending, "the agent has not looked at it yet")),
        };
        Self { node: node.name, reachable, delivering, complete, report }
    }
}

pub(super) fn sinks(facts: Facts) -> Vec<SinkStatus> {
    let running = |sink: &str| -> Vec<View> {
        let reports = facts.nodes.iter().filter_map(|node| Some((node, node.audit?.status.as_ref()?)));
        let running = reports.filter(|(_, status)| status.revision.is_some());
        running.map(|(node, status)| View::new(node, &status.sinks, sink)).collect()
    };
    let sinks = facts.setup.spec.sinks.iter().enumerate();
    sinks.map(|(index, sink)| over_nodes(&sink.name, &running(&sink.name), no_endpoints(facts, index))).collect()
}

/// Whether the sink is a Service without a ready endpoint, in words.
fn no_endpoints(facts: Facts<'_>, sink: usize) -> Option<&str> {
    let Judgement::Rendered { findings, .. } = facts.judgement else { return None };
    let field = format!("spec.sinks[{sink}].");
    let found = findings.iter().find(|finding| finding.id == NO_ENDPOINTS && finding.field.starts_with(&field))?;
    Some(&found.message)
}

/// Whether a Service without endpoints explains it. A receiver that answers has endpoints, whatever was watched.
fn is_unanswered(finding: &Finding) -> bool {
    use Reason::{ConnectFailed, DeliveryFailing, NoAnswer, Refused};
    finding.status == Truth::False && matches!(finding.reason, ConnectFailed | DeliveryFailing | NoAnswer | Refused)
}

/// `no_endpoints`: why nothing can answer.
fn over_nodes(name: &str, views: &[View], no_endpoints: Option<&str>) -> SinkStatus {
    let (reason, message) = match worst(views) {
        Some((node, finding)) => match no_endpoints.filter(|_| is_unanswered(finding)) {
            Some(why) => (Reason::NoEndpoints, Some(format!("on {node}: {why}"))),
            None => (finding.reason, Some(describe(node, finding))),
        },
        None if views.is_empty() => (Reason::Pending, Some("is not watched yet: no node runs a Revision".to_string())),
        None => (Reason::Healthy, None),
    };
    let reports = || views.iter().filter_map(|view| view.report);
    let delivered: Option<Vec<_>> = views.iter().map(|view| view.report?.last_delivered.as_ref()).collect();
    SinkStatus {
        name: name.into(),
        reachable: worst_of(views.iter().map(|view| &view.reachable)),
        delivering: worst_of(views.iter().map(|view| &view.delivering)),
        complete: worst_of(views.iter().map(|view| &view.complete)),
        lost_events: reports().fold(0, |sum, report| sum.saturating_add(report.lost_events)),
        lost_at: reports().filter_map(|report| report.lost_at.as_ref()).map(|time| time.0).max().map(Time),
        expires: expires(reports().flat_map(|report| &report.expires)),
        last_delivered: delivered.and_then(|times| times.into_iter().map(|time| time.0).min()).map(Time),
        reason: Some(reason),
        message: message.map(|message| cut(message, MESSAGE_BYTES)),
    }
}

/// The earliest of each kind.
fn expires<'a>(all: impl Iterator<Item = &'a Expiry>) -> Vec<Expiry> {
    let mut earliest: BTreeMap<Expiring, Time> = BTreeMap::new();
    for Expiry { of, at } in all {
        let known = earliest.entry(*of).or_insert_with(|| at.clone());
        known.0 = known.0.min(at.0);
    }
    earliest.into_iter().map(|(of, at)| Expiry { of, at }).collect()
}

/// The finding that keeps the sink from being healthy: why events do not arrive, then whether some were lost.
fn worst<'a>(views: &'a [View]) -> Option<(&'a str, &'a Finding)> {
    let delivering = views.iter().map(|view| (view.node, &view.delivering));
    let complete = views.iter().map(|view| (view.node, &view.complete));
    let is_false = |(_, finding): &(&str, &Finding)| finding.status == Truth::False;
    let is_unknown = |(_, finding): &(&str, &Finding)| finding.status == Truth::Unknown;
    delivering.clone().chain(complete).find(is_false).or_else(|| delivering.clone().find(is_unknown))
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

/// Healthy only by proof of delivery, and False if anything is known to be wrong. Whether the destination can be
/// reached only explains why events do not arrive: a probe can be wrong, a delivery cannot.
pub fn health(sink: &SinkStatus) -> Truth {
    match (sink.delivering, sink.complete) {
        (Truth::False, _) | (_, Truth::False) => Truth::False,
        (delivering, _) => delivering,
    }
}
