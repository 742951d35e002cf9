//! The `--audit-*` flags. `docs/flags.md` says which field sets each flag of kube-apiserver; a test compares both.
//!
//! Modes, rotation and format are always set, because their defaults differ between the backends or changed in 1.36.
//! The rest is set only if given, so that kube-apiserver's own defaults apply.

use std::collections::BTreeMap;

use static_pod::{DELAY_FLAG, DRAIN_FLAG};

use super::Content;
use crate::api::{Batch, LogFormat, Mode, Truncate};

/// Flags that are set only if the manifest does not have them.
pub(super) fn defaults(content: &Content) -> BTreeMap<String, String> {
    let seconds = [(DELAY_FLAG, content.shutdown_delay_seconds), (DRAIN_FLAG, content.drain_watches_seconds)];
    let given = seconds.into_iter().filter(|(_, seconds)| *seconds > 0);
    given.map(|(name, seconds)| (name.to_string(), format!("{seconds}s"))).collect()
}

/// All flags except the two that name files of the Revision, without the leading dashes.
pub(super) fn flags(content: &Content) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        flags.insert(format!("audit-{name}"), value);
    };
    if let Some(log) = &content.log {
        set("log-path", log.path.clone());
        let format = match log.format {
            LogFormat::Json => "json",
            LogFormat::Legacy => "legacy",
        };
        set("log-format", format.into());
        // Standard output is not rotated.
        if content.log_directory().is_some() {
            set("log-maxage", log.max_age_days.to_string());
            set("log-maxbackup", log.max_backups.to_string());
            set("log-maxsize", log.max_size_megabytes.to_string());
            if log.compress {
                set("log-compress", "true".into());
            }
        }
        delivery(&mut set, "log", log.delivery.mode, log.delivery.batch.as_ref(), log.delivery.truncate.as_ref());
    }
    if let Some(webhook) = &content.webhook {
        let how = &webhook.delivery;
        set("webhook-initial-backoff", format!("{}s", how.initial_backoff_seconds));
        delivery(&mut set, "webhook", how.mode, how.batch.as_ref(), how.truncate.as_ref());
    }
    flags
}

fn delivery(
    set: &mut impl FnMut(&str, String),
    backend: &str,
    mode: Mode,
    batch: Option<&Batch>,
    truncate: Option<&Truncate>,
) {
    set(&format!("{backend}-mode"), mode.as_flag().into());
    if let Some(Batch { buffer_size, max_size, max_wait_seconds, throttle_qps, throttle_burst }) = batch {
        let mut given = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                set(&format!("{backend}-batch-{name}"), value);
            }
        };
        given("buffer-size", buffer_size.map(|n| n.to_string()));
        given("max-size", max_size.map(|n| n.to_string()));
        given("max-wait", max_wait_seconds.map(|n| format!("{n}s")));
        given("throttle-enable", throttle_qps.map(|qps| (qps > 0.0).to_string()));
        given("throttle-qps", throttle_qps.filter(|qps| *qps > 0.0).map(|qps| qps.to_string()));
        given("throttle-burst", throttle_burst.map(|n| n.to_string()));
    }
    if let Some(Truncate { max_event_bytes, max_batch_bytes }) = truncate {
        set(&format!("{backend}-truncate-enabled"), "true".into());
        set(&format!("{backend}-truncate-max-event-size"), max_event_bytes.to_string());
        set(&format!("{backend}-truncate-max-batch-size"), max_batch_bytes.to_string());
    }
}
