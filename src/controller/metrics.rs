//! The controller's metrics. Few: status has the rest.

use std::sync::atomic::AtomicI64;

use k8s_openapi::jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{AuditSetupStatus, Reason, Truth};
use crate::status::health;
use crate::telemetry::family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPhase {
    setup: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCondition {
    setup: String,
    condition: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySink {
    setup: String,
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySetup {
    setup: String,
}

/// Seconds. One node takes 20 to 60, several one after the other.
const ROLLOUT_BUCKETS: [f64; 10] = [15.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

type IntGauge = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    reconciles: Family<ByOutcome, Counter>,
    leader: IntGauge,
    conditions: Family<ByCondition, IntGauge>,
    nodes: Family<ByPhase, IntGauge>,
    silent: Family<BySetup, IntGauge>,
    sinks: Family<BySink, IntGauge>,
    rollouts: Family<BySetup, Histogram, fn() -> Histogram>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("audit_operator");
        let rollouts = Family::new_with_constructor((|| Histogram::new(ROLLOUT_BUCKETS)) as fn() -> Histogram);
        let help = "From a new Revision of a Setup until every node ran it";
        registry.register("rollout_seconds", help, rollouts.clone());
        Self {
            reconciles: family(registry, "reconciles", "Passes over all Setups, by outcome"),
            leader: family(registry, "leader", "1 while this controller leads"),
            conditions: family(
                registry,
                "setup_condition",
                "1 if the condition of the Setup is True, 0 if it is False; absent while it is Unknown",
            ),
            nodes: family(registry, "nodes", "Nodes by phase"),
            silent: family(registry, "silent_agents", "Nodes whose agent does not report"),
            sinks: family(
                registry,
                "sink_healthy",
                "1 if the sink receives events from every node, 0 if not; absent while that is not known",
            ),
            rollouts,
        }
    }

    pub(super) fn passed(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(super) fn rolled_out(&self, setup: &str, took: SignedDuration) {
        self.rollouts.get_or_create(&BySetup { setup: setup.into() }).observe(took.as_secs_f64());
    }

    /// A controller that does not lead knows nothing of the nodes.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        self.show(&[]);
    }

    /// Shows the statuses of a pass in place of those of the pass before. Nothing is awaited in between, so no scrape
    /// sees half of it.
    pub(super) fn show(&self, statuses: &[(String, AuditSetupStatus)]) {
        self.conditions.clear();
        self.nodes.clear();
        self.silent.clear();
        self.sinks.clear();
        for (setup, status) in statuses {
            for condition in &status.conditions {
                let holds = match condition.status.as_str() {
                    "True" => 1,
                    "False" => 0,
                    _ => continue,
                };
                let labels = ByCondition { setup: setup.clone(), condition: condition.type_.clone() };
                self.conditions.get_or_create(&labels).set(holds);
            }
            let silent = status.nodes.iter().filter(|node| node.reason == Some(Reason::AgentSilent)).count();
            let by_setup = BySetup { setup: setup.clone() };
            self.silent.get_or_create(&by_setup).set(i64::try_from(silent).unwrap_or(i64::MAX));
            for node in &status.nodes {
                let labels = ByPhase { setup: setup.clone(), phase: node.phase.as_str() };
                self.nodes.get_or_create(&labels).inc();
            }
            for sink in &status.sinks {
                let health = match health(sink) {
                    Truth::True => 1,
                    Truth::False => 0,
                    Truth::Unknown => continue,
                };
                self.sinks.get_or_create(&BySink { setup: setup.clone(), sink: sink.name.clone() }).set(health);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::api_requests;
    use crate::telemetry::{compare_with_sample, exposition};

    fn status(phase: &str, healthy: &str, ready: &str) -> AuditSetupStatus {
        let sink = json!({"name": "l", "reachable": healthy, "delivering": healthy, "lostEvents": 0});
        let nodes = json!([{"name": "a", "phase": phase}, {"name": "b", "phase": phase, "reason": "AgentSilent"}]);
        let condition = json!({"type": "Ready", "status": ready, "reason": "x", "message": "",
            "lastTransitionTime": "2026-12-01T00:00:00Z"});
        serde_json::from_value(json!({"nodes": nodes, "sinks": [sink], "conditions": [condition]})).unwrap()
    }

    #[test]
    fn a_pass_is_shown_as_a_whole_and_takes_the_place_of_the_last() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let shown = || {
            let text = exposition(&registry);
            let samples = text.lines().filter(|line| line.contains("setup="));
            samples.map(|line| line.trim_start_matches("audit_operator_").to_string()).collect::<Vec<_>>()
        };
        metrics.show(&[("gone".into(), status("Confirmed", "True", "True"))]);
        let first = [
            "setup_condition{setup=\"gone\",condition=\"Ready\"} 1",
            "nodes{setup=\"gone\",phase=\"Confirmed\"} 2",
            "silent_agents{setup=\"gone\"} 1",
            "sink_healthy{setup=\"gone\",sink=\"l\"} 1",
        ];
        assert_eq!(shown(), first);
        metrics.show(&[("new".into(), status("Staged", "Unknown", "Unknown"))]);
        assert_eq!(shown(), ["nodes{setup=\"new\",phase=\"Staged\"} 2", "silent_agents{setup=\"new\"} 1"]);
        metrics.show(&[("new".into(), status("Staged", "False", "False"))]);
        assert_eq!(shown()[0], "setup_condition{setup=\"new\",condition=\"Ready\"} 0");
        metrics.leads(false);
        assert!(shown().is_empty());
    }

    /// All metrics of a leader.
    #[test]
    fn the_sample_is_current() {
        let mut registry = Registry::default();
        api_requests(&mut registry).get_or_create(&crate::client::ByCode { code: 200 }).inc();
        let metrics = Metrics::new(&mut registry);
        metrics.leads(true);
        metrics.passed("ok");
        metrics.rolled_out("cluster", SignedDuration::from_secs(20));
        let mut shown = status("Confirmed", "True", "True");
        for (of, holds) in [("Reconciling", "False"), ("Stalled", "False")] {
            let ready = shown.conditions[0].clone();
            shown.conditions.push(k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
                type_: of.into(),
                status: holds.into(),
                ..ready
            });
        }
        metrics.show(&[("cluster".into(), shown)]);
        compare_with_sample(&registry, "controller");
    }
}
