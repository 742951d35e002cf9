//! Receivers that are known by their path or host: those that do not take EventLists, and those with limits.

use super::{Problems, delivery};
use crate::api::{Mode, Scheme, WebhookDelivery};
use crate::revision::Url;

/// Paths of other protocols. Their servers answer 2xx to an EventList and keep nothing, or one record for a whole
/// batch.
const FOREIGN: [(&str, &str); 8] = [
    ("/v1/logs", "OpenTelemetry (OTLP)"),
    ("/opentelemetry/", "OpenTelemetry (OTLP)"),
    ("/services/collector", "Splunk's HTTP Event Collector"),
    ("/loki/api/v1/push", "Loki"),
    ("/insert/", "VictoriaLogs"),
    ("/_bulk", "Elasticsearch and OpenSearch"),
    ("/_doc", "Elasticsearch and OpenSearch"),
    ("/_create", "Elasticsearch and OpenSearch"),
];

/// A receiver that drops what is too large for it.
struct Limits {
    name: &'static str,
    /// Bytes of a request, and what happens to a larger one.
    request: (i64, &'static str),
    /// Bytes of an event, likewise.
    event: (i64, &'static str),
}

/// github.com/falcosecurity/plugins/plugins/k8saudit@v0.18.0 pkg/k8saudit/config.go.
const FALCO: Limits =
    Limits { name: "Falco", request: (12 * 1024 * 1024, "rejects"), event: (256 * 1024, "accepts and drops") };

/// documentation.solarwinds.com, Loggly: HTTP/S event endpoint.
const LOGGLY: Limits = Limits { name: "Loggly", request: (5_000_000, "rejects"), event: (1_000_000, "cuts off") };

/// Warns of a receiver that would lose events. `field` is the path of the destination.
pub(super) fn check(url: &Url, delivery: &WebhookDelivery, field: &str, delivery_field: &str, problems: &mut Problems) {
    let path = url.path.to_ascii_lowercase();
    if let Some((_, protocol)) = FOREIGN.iter().find(|(part, _)| path.contains(part)) {
        let message = format!(
            "the path is one of {protocol}: such a server answers 2xx to kube-apiserver's EventLists and does not keep their events. \
             Use a log sink and a collector that reads it, or a receiver for audit events"
        );
        problems.warn("foreign-path", field, message);
    }
    if url.scheme == Scheme::Http && url.port == 80 {
        let message = "servers at port 80 often redirect to https: kube-apiserver then loses every event without an error. Use the https URL";
        problems.warn("may-redirect", field, message);
    }
    let limits = match url.host.as_str() {
        host if host.ends_with(".loggly.com") => Some(LOGGLY),
        _ if path.trim_end_matches('/') == "/k8s-audit" => Some(FALCO),
        _ => None,
    };
    if let Some(limits) = limits {
        check_limits(&limits, delivery, delivery_field, problems);
    }
}

fn check_limits(limits: &Limits, delivery: &WebhookDelivery, field: &str, problems: &mut Problems) {
    let Limits { name, request, event } = limits;
    let Some(truncate) = &delivery.truncate else {
        let (bytes, verb) = event;
        let message = format!(
            "{name} {verb} events of more than {bytes} bytes, and {} requests of more than {} bytes, but the size of events is not limited. Set truncate",
            request.1, request.0
        );
        problems.warn("receiver-limits", field, message);
        return;
    };
    if truncate.max_event_bytes > event.0 {
        let message = format!("{name} {} events of more than {} bytes. Lower maxEventBytes", event.1, event.0);
        problems.warn("receiver-limits", format!("{field}.truncate.maxEventBytes"), message);
    }
    // In mode Batch kube-apiserver applies no limit to the whole request.
    let largest = match delivery.mode {
        Mode::Batch => {
            let events = delivery::most_events(delivery.batch.as_ref(), delivery::Backend::Webhook);
            events.saturating_mul(truncate.max_event_bytes)
        }
        Mode::Blocking | Mode::BlockingStrict => truncate.max_batch_bytes,
    };
    if largest > request.0 {
        let message = format!(
            "{name} {} requests of more than {} bytes, and a batch can have {largest}. Lower batch.maxSize or truncate.maxEventBytes: their product is the limit",
            request.1, request.0
        );
        problems.warn("receiver-limits", field, message);
    }
}
