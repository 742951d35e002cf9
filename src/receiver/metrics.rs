//! What arrived, what was refused, and what was lost on the way to the output.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::telemetry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySort {
    level: &'static str,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

pub(super) struct Metrics {
    registry: Registry,
    batches: Counter,
    events: Family<BySort, Counter>,
    refused: Family<ByReason, Counter>,
    dropped: Family<ByReason, Counter>,
    queue: Gauge<i64, AtomicI64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("audit_receiver"),
            batches: Counter::default(),
            events: Family::default(),
            refused: Family::default(),
            dropped: Family::default(),
            queue: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("batches", "Requests that were taken", metrics.batches.clone());
        registry.register("events", "Events that were taken, by level and stage", metrics.events.clone());
        registry.register("refused", "Requests that were refused, by reason", metrics.refused.clone());
        registry.register(
            "dropped_events",
            "Events that were taken and not written, by reason",
            metrics.dropped.clone(),
        );
        registry.register("queue_bytes", "Bytes that wait for the output", metrics.queue.clone());
        metrics
    }

    pub(super) fn batch(&self) {
        self.batches.inc();
    }

    pub(super) fn event(&self, level: &str, stage: &str) {
        let sort = BySort {
            level: known(level, &["Metadata", "Request", "RequestResponse"]),
            stage: known(stage, &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]),
        };
        self.events.get_or_create(&sort).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str, events: u64) {
        self.dropped.get_or_create(&ByReason { reason }).inc_by(events);
    }

    /// In the text format.
    pub(super) fn text(&self, queue_bytes: usize) -> String {
        self.queue.set(i64::try_from(queue_bytes).unwrap_or(i64::MAX));
        telemetry::exposition(&self.registry)
    }
}

/// A client chooses what it sends: labels stay few.
fn known(text: &str, words: &[&'static str]) -> &'static str {
    words.iter().find(|word| **word == text).copied().unwrap_or("other")
}
