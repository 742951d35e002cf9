//! The controller's metrics. Few: what status says is read from status.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};

use k8s_openapi::jiff::SignedDuration;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{AuditSetupStatus, Truth};
use crate::status::health;

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
    /// What the pass that is being made has found.
    found: Arc<Mutex<Vec<(String, AuditSetupStatus)>>>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            leader: Gauge::default(),
            nodes: Family::default(),
            sinks: Family::default(),
            rollouts: Family::new_with_constructor(|| Histogram::new(ROLLOUT_BUCKETS)),
            found: Arc::default(),
        };
        let registry = registry.sub_registry_with_prefix("audit_operator");
        registry.register("reconciles", "Passes over all Setups, by outcome", metrics.reconciles.clone());
        registry.register("leader", "1 while this controller leads", metrics.leader.clone());
        registry.register("nodes", "Nodes by phase", metrics.nodes.clone());
        registry.register(
            "sink_healthy",
            "1 if the sink receives events from every node, 0 if not; absent while that is not known",
            metrics.sinks.clone(),
        );
        registry.register(
            "rollout_seconds",
            "From a new Revision of a Setup until every node ran it",
            metrics.rollouts.clone(),
        );
        metrics
    }

    pub(super) fn reconciled(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(super) fn rolled_out(&self, setup: &str, took: SignedDuration) {
        self.rollouts.get_or_create(&BySetup { setup: setup.into() }).observe(took.as_secs_f64());
    }

    /// What a controller that does not lead knew once is not true any more.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        self.begin();
        self.publish();
    }

    /// A pass begins.
    pub(super) fn begin(&self) {
        self.found.lock().expect("nobody panics with this lock").clear();
    }

    pub(super) fn observe(&self, setup: &str, status: &AuditSetupStatus) {
        self.found.lock().expect("nobody panics with this lock").push((setup.into(), status.clone()));
    }

    /// Shows what the pass has found in place of what the one before did. Nothing is awaited in between, so nobody sees half of it.
    pub(super) fn publish(&self) {
        self.nodes.clear();
        self.sinks.clear();
        for (setup, status) in self.found.lock().expect("nobody panics with this lock").drain(..) {
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
        metrics.begin();
        metrics.observe("gone", &status("Confirmed", "True"));
        metrics.publish();
        let first = ["nodes{setup=\"gone\",phase=\"Confirmed\"} 2", "sink_healthy{setup=\"gone\",sink=\"l\"} 1"];
        assert_eq!(shown(), first);
        metrics.begin();
        metrics.observe("new", &status("Staged", "Unknown"));
        assert_eq!(shown(), first, "until the pass is over");
        metrics.publish();
        assert_eq!(shown(), ["nodes{setup=\"new\",phase=\"Staged\"} 2"]);
        metrics.leads(false);
        assert!(shown().is_empty());
    }
}
