//! The controller's metrics. Few: what status says is read from status.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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

type IntGauge = Gauge<i64, AtomicI64>;

#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    reconciles: Family<ByOutcome, Counter>,
    leader: IntGauge,
    nodes: Family<ByPhase, IntGauge>,
    sinks: Family<BySink, IntGauge>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("audit_operator");
        registry.register("reconciles", "Passes over all Setups, by outcome", metrics.reconciles.clone());
        registry.register("leader", "1 while this controller leads", metrics.leader.clone());
        registry.register("nodes", "Nodes by phase", metrics.nodes.clone());
        registry.register(
            "sink_healthy",
            "1 if the sink receives events from every node, 0 if not; absent while that is not known",
            metrics.sinks.clone(),
        );
        metrics
    }

    pub(super) fn reconciled(&self, outcome: &'static str) {
        self.reconciles.get_or_create(&ByOutcome { outcome }).inc();
    }

    /// What a controller that does not lead knew once is not true any more.
    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
        self.clear();
    }

    pub(super) fn clear(&self) {
        self.nodes.clear();
        self.sinks.clear();
    }

    pub(super) fn observe(&self, setup: &str, status: &AuditSetupStatus) {
        for node in &status.nodes {
            let labels = ByPhase { setup: setup.into(), phase: node.phase.as_str() };
            self.nodes.get_or_create(&labels).inc();
        }
        for sink in &status.sinks {
            let health = match health(sink) {
                Truth::True => 1,
                Truth::False => 0,
                Truth::Unknown => continue,
            };
            self.sinks.get_or_create(&BySink { setup: setup.into(), sink: sink.name.clone() }).set(health);
        }
    }
}
