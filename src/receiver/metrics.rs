//! Accepted batches, rejected requests, and events that were lost on the way to the output.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::server::places::Counts;
use crate::telemetry::{self, family};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByGroup {
    group: &'static str,
}

/// The connections that have not shown the token, and those that have.
const STRANGERS: ByGroup = ByGroup { group: "strangers" };
const KNOWN: ByGroup = ByGroup { group: "known" };

/// Level and stage of an event, in a fixed set of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub(super) struct EventLabels {
    level: &'static str,
    stage: &'static str,
}

impl EventLabels {
    pub(super) fn new(level: &str, stage: &str) -> Self {
        Self {
            level: known(level, &["Metadata", "Request", "RequestResponse"]),
            stage: known(stage, &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]),
        }
    }
}

/// The present values of the gauges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauges {
    pub(super) queue_bytes: usize,
    pub(super) reading_bytes: usize,
    pub(super) connections: Counts,
}

pub(super) struct Metrics {
    registry: Registry,
    batches: Counter,
    events: Family<EventLabels, Counter>,
    refused: Family<ByReason, Counter>,
    dropped: Family<ByReason, Counter>,
    queue: Gauge<i64, AtomicI64>,
    reading: Gauge<i64, AtomicI64>,
    connections: Family<ByGroup, Gauge<i64, AtomicI64>>,
    evicted: Family<ByGroup, Counter>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("audit_receiver");
        let to = &mut registry;
        let metrics = Self {
            batches: family(to, "batches", "Accepted batches"),
            events: family(to, "events", "Accepted events, by level and stage"),
            refused: family(to, "refused", "Rejected requests, by reason"),
            dropped: family(to, "dropped_events", "Events that were received but not written, by reason"),
            queue: family(to, "queue_bytes", "Bytes that wait for the output"),
            reading: family(to, "reading_bytes", "Memory of the batches that are being read"),
            connections: family(to, "connections", "Open connections, by group"),
            evicted: family(
                to,
                "evicted_connections",
                "Connections that were closed to make room for another, by group",
            ),
            registry,
        };
        // Prometheus sees the first one as an increase only if there was a sample before.
        for reason in ["QueueFull", "OutputFailed", "Ended", "TooLarge"] {
            metrics.dropped(reason, 0);
        }
        for group in [&STRANGERS, &KNOWN] {
            metrics.evicted.get_or_create(group).inc_by(0);
        }
        metrics
    }

    pub(super) fn batch(&self) {
        self.batches.inc();
    }

    pub(super) fn events(&self, labels: EventLabels, events: u64) {
        self.events.get_or_create(&labels).inc_by(events);
    }

    pub(super) fn stranger_evicted(&self) {
        self.evicted.get_or_create(&STRANGERS).inc();
    }

    pub(super) fn known_evicted(&self) {
        self.evicted.get_or_create(&KNOWN).inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ByReason { reason }).inc();
    }

    pub(super) fn dropped(&self, reason: &'static str, events: u64) {
        self.dropped.get_or_create(&ByReason { reason }).inc_by(events);
    }

    /// In the text format.
    pub(super) fn text(&self, now: Gauges) -> String {
        let set = |gauge: &Gauge<i64, AtomicI64>, value| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.queue, now.queue_bytes);
        set(&self.reading, now.reading_bytes);
        set(&self.connections.get_or_create(&STRANGERS), now.connections.strangers);
        set(&self.connections.get_or_create(&KNOWN), now.connections.known);
        telemetry::exposition(&self.registry)
    }
}

/// A client chooses these texts, so labels are limited to known words.
fn known(text: &str, words: &[&'static str]) -> &'static str {
    words.iter().find(|word| **word == text).copied().unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_current() {
        let metrics = Metrics::new();
        metrics.batch();
        metrics.events(EventLabels::new("Metadata", "ResponseComplete"), 2);
        metrics.refused("Token");
        let connections = Counts { strangers: 1, known: 2 };
        drop(metrics.text(Gauges { queue_bytes: 0, reading_bytes: 0, connections }));
        telemetry::compare_with_sample(&metrics.registry, "receiver");
    }
}
