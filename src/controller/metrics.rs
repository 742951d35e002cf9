//! The controller's metrics. Few: status has the rest.

use std::sync::atomic::AtomicI64;

use k8s_openapi::jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{AuditSetupStatus, Truth};
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
    nodes: Family<ByPhase, IntGauge>,
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
            nodes: family(registry, "nodes", "Nodes by phase"),
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
        self.nodes.clear();
        self.sinks.clear();
        for (setup, status) in statuses {
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
    use super::*;

    #[test]
    fn a_pass_is_shown_as_a_whole_and_takes_the_place_of_the_last() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let shown = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            let samples = text.lines().filter(|line| line.contains("setup="));
            samples.map(|line| line.trim_start_matches("audit_operator_").to_string()).collect::<Vec<_>>()
        };
        let status = |phase: &str, healthy: &str| -> AuditSetupStatus {
            let sink = serde_json::json!({"name": "l", "reachable": healthy, "delivering": healthy, "lostEvents": 0});
            let nodes = serde_json::json!([{"name": "a", "phase": phase}, {"name": "b", "phase": phase}]);
            serde_json::from_value(serde_json::json!({"nodes": nodes, "sinks": [sink]})).unwrap()
        };
        metrics.show(&[("gone".into(), status("Confirmed", "True"))]);
        let first = ["nodes{setup=\"gone\",phase=\"Confirmed\"} 2", "sink_healthy{setup=\"gone\",sink=\"l\"} 1"];
        assert_eq!(shown(), first);
        metrics.show(&[("new".into(), status("Staged", "Unknown"))]);
        assert_eq!(shown(), ["nodes{setup=\"new\",phase=\"Staged\"} 2"]);
        metrics.leads(false);
        assert!(shown().is_empty());
    }
}
