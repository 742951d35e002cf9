//! The sinks that a node probes. They come only from the Revision that it runs. Pure.

use crate::api::{Batch, Mode, SinkKind, SinkRef};
use crate::revision::Revision;

/// One sink, as it is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTarget {
    pub name: String,
    /// A log file.
    pub log: Option<LogTarget>,
    /// A webhook.
    pub webhook: Option<WebhookTarget>,
}

/// A log file to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Path on the node, or `-` for the standard output of kube-apiserver.
    pub path: String,
    /// Seconds that an event may take to get there, in mode Batch.
    pub max_wait_seconds: i64,
}

/// A webhook to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    /// Name or address, as in the URL.
    pub host: String,
    pub port: u16,
    /// Absent: plain http.
    pub tls: Option<TlsTarget>,
    /// Seconds that an event may wait before it is sent.
    pub max_wait_seconds: i64,
}

/// How a webhook is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsTarget {
    /// Name that the certificate must carry.
    pub server_name: String,
    /// File on the node with the authorities; absent: those of the system.
    pub ca_file: Option<String>,
    pub insecure_skip_verify: bool,
}

/// The sinks of a Revision, by their names. A sink that the Revision does not have is left out.
pub fn targets(revision: &Revision, sinks: &[SinkRef]) -> Vec<SinkTarget> {
    let targets = sinks.iter().filter_map(|SinkRef { name, kind }| {
        let (log, webhook) = match kind {
            SinkKind::Log => (Some(log(revision)?), None),
            SinkKind::Webhook => (None, Some(webhook(revision)?)),
        };
        Some(SinkTarget { name: name.clone(), log, webhook })
    });
    targets.collect()
}

fn log(revision: &Revision) -> Option<LogTarget> {
    let log = revision.content.log.as_ref()?;
    let max_wait_seconds = max_wait_seconds(log.delivery.mode, log.delivery.batch.as_ref(), 0);
    Some(LogTarget { path: log.path.clone(), max_wait_seconds })
}

fn webhook(revision: &Revision) -> Option<WebhookTarget> {
    let webhook = revision.content.webhook.as_ref()?;
    Some(WebhookTarget {
        host: webhook.url.host.clone(),
        port: webhook.url.port,
        tls: webhook.tls.as_ref().map(|tls| TlsTarget {
            server_name: tls.server_name.clone().unwrap_or_else(|| webhook.url.host.clone()),
            ca_file: revision.ca_file(),
            insecure_skip_verify: tls.insecure_skip_verify,
        }),
        max_wait_seconds: max_wait_seconds(webhook.delivery.mode, webhook.delivery.batch.as_ref(), 30),
    })
}

/// `default`: kube-apiserver's own, in mode Batch.
fn max_wait_seconds(mode: Mode, batch: Option<&Batch>, default: i64) -> i64 {
    match mode {
        Mode::Batch => batch.and_then(|batch| batch.max_wait_seconds).unwrap_or(default),
        Mode::Blocking | Mode::BlockingStrict => 0,
    }
}
