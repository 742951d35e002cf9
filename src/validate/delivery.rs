//! Modes, batches and truncation: settings of both backends.

use super::Problems;
use crate::api::{Batch, Mode, Reason, Stage, Truncate};

/// An idle control plane makes about 5 events a second under the leanest preset except `quiet`. A policy that records
/// almost nothing makes fewer.
const MIN_EVENTS_A_SECOND: f64 = 0.1;

/// A lower limit is worth a warning.
const BUSY_EVENTS_A_SECOND: f64 = 100.0;

/// The most events in a batch, by default those of kube-apiserver (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/audit.go).
pub(super) fn most_events(batch: Option<&Batch>, backend: Backend) -> i64 {
    batch.and_then(|batch| batch.max_size).unwrap_or(if backend == Backend::Log { 1 } else { 400 })
}

#[expect(clippy::cast_precision_loss, reason = "a bounded count")]
fn batch_events(batch: &Batch, backend: Backend) -> f64 {
    most_events(Some(batch), backend) as f64
}

/// The backends have different defaults.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// Not throttled; the default burst is 0.
    Log,
    /// 10 batches a second, bursts of 15.
    Webhook,
}

/// `field` is the path of the `delivery`.
pub(super) fn check(mode: Mode, batch: Option<&Batch>, backend: Backend, field: &str, problems: &mut Problems) {
    let Some(batch) = batch else { return };
    let field = format!("{field}.batch");
    if mode != Mode::Batch {
        problems.add(
            &field,
            Reason::InvalidSetup,
            format!("has no effect in mode {mode:?}: set mode to Batch, or remove batch"),
        );
        return;
    }
    let qps = batch.throttle_qps.filter(|qps| *qps > 0.0);
    let slow = qps.map(|qps| qps * batch_events(batch, backend)).filter(|events| *events < BUSY_EVENTS_A_SECOND);
    if let Some(events) = slow {
        let message = format!(
            "at most {events} events a second are handed over, but a busy cluster makes hundreds: events that do not fit into the buffer are lost"
        );
        problems.warn("slow-throttle", format!("{field}.throttleQPS"), message);
    }
    let mut bad = |name: &str, message: &str| problems.add(format!("{field}.{name}"), Reason::InvalidSetup, message);
    let events_a_second = |qps: f64| qps * batch_events(batch, backend);
    match (batch.throttle_qps, batch.throttle_burst) {
        // The flag is a float32, and one that comes to 0 stops kube-apiserver.
        (Some(qps), _) if qps > 0.0 && (qps as f32) < f32::MIN_POSITIVE => {
            bad("throttleQPS", "is too small: kube-apiserver would round it to 0");
        }
        (Some(qps), _) if qps > 0.0 && events_a_second(qps) < MIN_EVENTS_A_SECOND => {
            let message = format!(
                "{qps} batches a second of at most {} events are {} events a second, but an idle cluster makes more: nearly every event \
                 would be dropped. Raise throttleQPS or maxSize",
                batch_events(batch, backend),
                events_a_second(qps)
            );
            bad("throttleQPS", &message);
        }
        (Some(0.0), Some(_)) => {
            bad("throttleBurst", "has no effect, because throttleQPS: 0 switches throttling off: remove one of them")
        }
        (Some(qps), None) if qps > 0.0 && backend == Backend::Log => {
            bad(
                "throttleBurst",
                "is required with throttleQPS: the default of the log backend is 0, and kube-apiserver does not start with that",
            );
        }
        (None, Some(_)) if backend == Backend::Log => {
            bad("throttleQPS", "is required with throttleBurst: the log backend is not throttled without it");
        }
        _ => {}
    }
}

/// A stopping kube-apiserver has this long by default (`terminationGracePeriodSeconds` of its pod).
const GRACE_SECONDS: i64 = 30;

/// A batch that failed waits for its next attempt in memory. `field` is the path of the `delivery`.
pub(super) fn check_backoff(initial_backoff_seconds: i64, field: &str, problems: &mut Problems) {
    if initial_backoff_seconds >= GRACE_SECONDS {
        let message = format!(
            "a batch that failed once waits {initial_backoff_seconds} s in memory, but the kubelet gives a stopping kube-apiserver \
             {GRACE_SECONDS} s: every restart loses such batches. Choose less than {GRACE_SECONDS}"
        );
        problems.warn("long-backoff", format!("{field}.initialBackoffSeconds"), message);
    }
}

/// BlockingStrict rejects a request at the stage RequestReceived, and only there
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go#L61-L65).
pub(super) fn strict(is_strict: bool, omit_stages: &[Stage], field: &str, problems: &mut Problems) {
    if is_strict && omit_stages.contains(&Stage::RequestReceived) {
        problems.add(
            format!("{field}.mode"),
            Reason::InvalidSetup,
            "BlockingStrict rejects requests at the stage RequestReceived, but the policy omits that stage, so nothing would be rejected. \
             Set policy.omitStages to [] (for a policy in a ConfigMap: its own omitStages), or use Blocking",
        );
    }
}

pub(super) fn check_truncate(truncate: Option<&Truncate>, field: &str, problems: &mut Problems) {
    if let Some(truncate) = truncate
        && truncate.max_batch_bytes < truncate.max_event_bytes
    {
        problems.add(
            format!("{field}.truncate"),
            Reason::InvalidSetup,
            format!(
                "maxBatchBytes must not be below maxEventBytes, or kube-apiserver would not start; they are {} and {}",
                truncate.max_batch_bytes, truncate.max_event_bytes
            ),
        );
    }
}
