//! Modes, batches and truncation, which both backends share.

use super::Problems;
use crate::api::{Batch, Mode, Reason, Stage, Truncate};

/// A control plane that nobody uses makes some 5 events a second under the leanest preset but `quiet`; a policy that records next to
/// nothing makes fewer.
const MIN_EVENTS_A_SECOND: f64 = 0.1;

/// Fewer than this are worth a word.
const BUSY_EVENTS_A_SECOND: f64 = 100.0;

/// Events of a batch at most.
#[expect(clippy::cast_precision_loss, reason = "a bounded count")]
fn batch_events(batch: &Batch, backend: Backend) -> f64 {
    batch.max_size.unwrap_or(if backend == Backend::Log { 1 } else { 400 }) as f64
}

/// The backends differ in what they do without a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    /// Not throttled, and no burst to throttle with.
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
            format!("has no effect in mode {mode:?}: set mode to Batch, or leave batch out"),
        );
        return;
    }
    let qps = batch.throttle_qps.filter(|qps| *qps > 0.0);
    let slow = qps.map(|qps| qps * batch_events(batch, backend)).filter(|events| *events < BUSY_EVENTS_A_SECOND);
    if let Some(events) = slow {
        let message = format!(
            "at most {events} events a second are handed over, and a busy cluster makes hundreds: what does not fit into the buffer is lost"
        );
        problems.tell("slow-throttle", format!("{field}.throttleQPS"), message);
    }
    let mut bad = |name: &str, message: &str| problems.add(format!("{field}.{name}"), Reason::InvalidSetup, message);
    let events_a_second = |qps: f64| qps * batch_events(batch, backend);
    match (batch.throttle_qps, batch.throttle_burst) {
        // The flag is a float32, and one that comes to 0 stops kube-apiserver.
        (Some(qps), _) if qps > 0.0 && (qps as f32) < f32::MIN_POSITIVE => {
            bad("throttleQPS", "is too small: kube-apiserver would take it for 0");
        }
        (Some(qps), _) if qps > 0.0 && events_a_second(qps) < MIN_EVENTS_A_SECOND => {
            let message = format!(
                "{qps} batches a second of at most {} events are {} events a second, and an idle cluster makes more: nearly every event \
                 would be dropped. Raise throttleQPS or maxSize",
                batch_events(batch, backend),
                events_a_second(qps)
            );
            bad("throttleQPS", &message);
        }
        (Some(0.0), Some(_)) => {
            bad("throttleBurst", "has no effect, since throttleQPS 0 switches throttling off: leave one of them out")
        }
        (Some(qps), None) if qps > 0.0 && backend == Backend::Log => {
            bad(
                "throttleBurst",
                "is needed with throttleQPS: the log backend's own default is 0, with which kube-apiserver does not start",
            );
        }
        (None, Some(_)) if backend == Backend::Log => {
            bad("throttleQPS", "is needed with throttleBurst: the log backend is not throttled without it");
        }
        _ => {}
    }
}

/// BlockingStrict refuses a request at the stage RequestReceived, and only there
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go#L61-L65).
pub(super) fn strict(is_strict: bool, omit_stages: &[Stage], field: &str, problems: &mut Problems) {
    if is_strict && omit_stages.contains(&Stage::RequestReceived) {
        problems.add(
            format!("{field}.mode"),
            Reason::InvalidSetup,
            "BlockingStrict refuses requests at the stage RequestReceived, and the policy omits that stage, so it would refuse \
             nothing. Set policy.omitStages to [] (a policy of a ConfigMap: its own omitStages), or use Blocking",
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
                "maxBatchBytes must not be below maxEventBytes, and {} is below {}: kube-apiserver does not start so",
                truncate.max_batch_bytes, truncate.max_event_bytes
            ),
        );
    }
}
