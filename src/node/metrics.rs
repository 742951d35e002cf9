//! The agent's metrics: what the last turn found of this node, and what became of the turns so far.
//!
//! Facts come from the same [`Known`] and status that are reported, so the two cannot contradict each other. A fact that is
//! not known has no sample.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::report::Known;
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
    lost: Family<BySink, Gauge>,
    probes: Family<ByFact, Counter>,
    turns: Counter,
    failed_turns: Family<ByReason, Counter>,
    rollbacks: Family<ByReason, Gauge>,
    rolled_back_at: Family<ByReason, Gauge>,
    drift_corrections: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("audit_operator");
        Self {
            runs: family(registry, "revision_info", "1 for the Revision that this node runs and its phase"),
            reachable: family(
                registry,
                "sink_reachable",
                "1 if this node can connect to the sink, 0 if not; absent while that is not known",
            ),
            delivering: family(
                registry,
                "sink_delivering",
                "1 if the events of this node arrive at the sink, 0 if not; absent while that is not known",
            ),
            delivered_at: family(
                registry,
                "sink_last_delivery_timestamp_seconds",
                "When the canary, or a delivery after it, was last seen; its age is time() less this",
            ),
            lost: family(
                registry,
                "sink_lost_events",
                "Events that the kube-apiserver of this node gave up since it started",
            ),
            probes: family(registry, "probes", "Probes of sinks by what was asked and what was found"),
            turns: family(registry, "turns", "Turns of the agent"),
            failed_turns: family(registry, "turn_failures", "Turns of the agent that failed, by reason"),
            rollbacks: family(
                registry,
                "rollbacks",
                "Changes that were rolled back, as far as the journal of this node remembers them, by reason",
            ),
            rolled_back_at: family(
                registry,
                "last_rollback_timestamp_seconds",
                "When a change was last rolled back for that reason",
            ),
            drift_corrections: family(
                registry,
                "drift_corrections",
                "Changes that were staged because something else had changed the manifest",
            ),
        }
    }

    /// A turn ended. `failure`: the reason of its error.
    pub(super) fn turned(&self, failure: Option<&'static str>) {
        self.turns.inc();
        if let Some(reason) = failure {
            self.failed_turns.get_or_create(&ByReason { reason }).inc();
        }
    }

    /// The sinks were probed.
    pub(super) fn probed(&self, sinks: &[NodeSinkStatus]) {
        for sink in sinks {
            for (fact, found) in [("reachable", &sink.reachable), ("delivering", &sink.delivering)] {
                self.probes.get_or_create(&ByFact { fact, reason: found.reason.as_str() }).inc();
            }
        }
    }

    /// Takes over what a turn found. Nothing is awaited in between, so nobody sees half of it.
    pub(super) fn observe(&self, known: &Known<'_>, status: &NodeAuditStatus) {
        self.clear();
        let revision = status.revision.clone().unwrap_or_default();
        self.runs.get_or_create(&Runs { revision, phase: status.phase.as_str() }).set(1);
        for sink in &known.sinks {
            let labels = BySink { sink: sink.name.clone() };
            for (gauge, found) in [(&self.reachable, &sink.reachable), (&self.delivering, &sink.delivering)] {
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
        }
        // The newest comes last, and is the one whose time stays.
        for failure in &known.journal.failures {
            let labels = ByReason { reason: failure.cause.reason.as_str() };
            self.rollbacks.get_or_create(&labels).inc();
            self.rolled_back_at.get_or_create(&labels).set(failure.at.as_second());
        }
        if is_drift_correction(known) {
            self.drift_corrections.inc();
        }
    }

    /// Nothing is asked of this node.
    pub(super) fn clear(&self) {
        self.runs.clear();
        for family in [&self.reachable, &self.delivering, &self.delivered_at, &self.lost] {
            family.clear();
        }
        self.rollbacks.clear();
        self.rolled_back_at.clear();
    }
}

/// Whether this very turn staged a change to the Revision that was confirmed already. In the next one nothing is planned, since
/// the change is under way.
fn is_drift_correction(known: &Known<'_>) -> bool {
    let Ok(Plan::Change(steps)) = known.plan else { return false };
    let confirmed = known.journal.confirmed.as_ref().map(|confirmed| &confirmed.revision);
    known.journal.unconfirmed().is_some_and(|change| change.number == steps.change.number)
        && confirmed.is_some()
        && steps.change.target.as_ref() == confirmed
}

#[cfg(test)]
mod tests;
