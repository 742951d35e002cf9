//! The agent's metrics: the results of the last pass, and counts of all passes.
//!
//! Facts come from the same [`Pass`] and status that are reported, so the two cannot contradict each other. An unknown
//! fact has no sample.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::report::Pass;
use crate::api::{NodeAuditStatus, NodeSinkStatus, Truth};
use crate::plan::Plan;
use crate::telemetry::family;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Runs {
    /// Empty where the manifest is not ours.
    revision: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySink {
    sink: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Expires {
    sink: String,
    of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFact {
    fact: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    runs: Family<Runs, Gauge>,
    reachable: Family<BySink, Gauge>,
    delivering: Family<BySink, Gauge>,
    delivered_at: Family<BySink, Gauge>,
    complete: Family<BySink, Gauge>,
    lost: Family<BySink, Gauge>,
    lost_at: Family<BySink, Gauge>,
    expiry: Family<Expires, Gauge>,
    looks: Family<ByFact, Counter>,
    passes: Counter,
    failed_passes: Family<ByReason, Counter>,
    rollbacks: Family<ByReason, Gauge>,
    rolled_back_at: Family<ByReason, Gauge>,
    drift_corrections: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("audit_operator");
        Self {
            runs: family(registry, "revision_info", "1 for the Revision that this node runs, and its phase"),
            reachable: family(registry, "sink_reachable", "1 if the sink answers, 0 if not; absent while unknown"),
            delivering: family(
                registry,
                "sink_delivering",
                "1 if the events of this node arrive at the sink, 0 if not; absent while unknown",
            ),
            delivered_at: family(
                registry,
                "sink_last_delivery_timestamp_seconds",
                "When the canary, or a delivery after it, was last seen; its age is time() minus this value",
            ),
            complete: family(
                registry,
                "sink_complete",
                "1 if this node has lost no event for the sink in the last ten minutes, 0 if it has",
            ),
            expiry: family(
                registry,
                "sink_expiry_timestamp_seconds",
                "When a certificate or a token of the sink expires",
            ),
            lost_at: family(
                registry,
                "sink_last_loss_timestamp_seconds",
                "When the kube-apiserver of this node last lost an event",
            ),
            lost: family(
                registry,
                "sink_lost_events",
                "Events that the kube-apiserver of this node has lost, over all its restarts",
            ),
            looks: family(registry, "sink_looks", "Looks at sinks, by fact and reason"),
            passes: family(registry, "passes", "Passes of the agent"),
            failed_passes: family(registry, "pass_failures", "Passes of the agent that failed, by reason"),
            rollbacks: family(
                registry,
                "rollbacks",
                "Changes in the journal of this node that were rolled back, by reason",
            ),
            rolled_back_at: family(
                registry,
                "last_rollback_timestamp_seconds",
                "When a change was last rolled back for that reason",
            ),
            drift_corrections: family(
                registry,
                "drift_corrections",
                "Changes that were staged because somebody else had changed the manifest",
            ),
        }
    }

    /// A pass ended. `failure`: the reason of its error.
    pub(super) fn passed(&self, failure: Option<&'static str>) {
        self.passes.inc();
        if let Some(reason) = failure {
            self.failed_passes.get_or_create(&ByReason { reason }).inc();
        }
    }

    /// The sinks were looked at.
    pub(super) fn looked(&self, sinks: &[NodeSinkStatus]) {
        for sink in sinks {
            for (fact, found) in
                [("reachable", &sink.reachable), ("delivering", &sink.delivering), ("complete", &sink.complete)]
            {
                self.looks.get_or_create(&ByFact { fact, reason: found.reason.as_str() }).inc();
            }
        }
    }

    /// Shows the results of a pass. Nothing is awaited in between, so nobody sees half of them.
    pub(super) fn observe(&self, pass: &Pass<'_>, status: &NodeAuditStatus) {
        self.clear();
        let revision = status.revision.clone().unwrap_or_default();
        self.runs.get_or_create(&Runs { revision, phase: status.phase.as_str() }).set(1);
        for sink in &pass.sinks {
            let labels = BySink { sink: sink.name.clone() };
            for (gauge, found) in [
                (&self.reachable, &sink.reachable),
                (&self.delivering, &sink.delivering),
                (&self.complete, &sink.complete),
            ] {
                match found.status {
                    Truth::True => gauge.get_or_create(&labels).set(1),
                    Truth::False => gauge.get_or_create(&labels).set(0),
                    Truth::Unknown => continue,
                };
            }
            if let Some(at) = &sink.last_delivered {
                self.delivered_at.get_or_create(&labels).set(at.0.as_second());
            }
            self.lost.get_or_create(&labels).set(sink.lost_events);
            if let Some(at) = &sink.lost_at {
                self.lost_at.get_or_create(&labels).set(at.0.as_second());
            }
            for expiry in &sink.expires {
                let labels = Expires { sink: sink.name.clone(), of: expiry.of.as_str() };
                self.expiry.get_or_create(&labels).set(expiry.at.0.as_second());
            }
        }
        // The newest comes last, and is the one whose time stays.
        for failure in &pass.journal.failures {
            let labels = ByReason { reason: failure.cause.reason.as_str() };
            self.rollbacks.get_or_create(&labels).inc();
            self.rolled_back_at.get_or_create(&labels).set(failure.at.as_second());
        }
        if is_drift_correction(pass) {
            self.drift_corrections.inc();
        }
    }

    /// No NodeAudit: this node has no target.
    pub(super) fn clear(&self) {
        self.runs.clear();
        for family in [&self.reachable, &self.delivering, &self.delivered_at, &self.complete, &self.lost, &self.lost_at]
        {
            family.clear();
        }
        self.expiry.clear();
        self.rollbacks.clear();
        self.rolled_back_at.clear();
    }
}

/// Whether this very pass staged a Change to the Revision that was confirmed already. In the next pass nothing is
/// planned, because the Change is in progress.
fn is_drift_correction(pass: &Pass<'_>) -> bool {
    let Plan::Change(steps) = pass.plan else { return false };
    let confirmed = pass.journal.confirmed.as_ref().map(|confirmed| &confirmed.revision);
    pass.journal.under_way().is_some_and(|change| change.number == steps.change.number)
        && confirmed.is_some()
        && steps.change.target.as_ref() == confirmed
}

#[cfg(test)]
mod tests;
