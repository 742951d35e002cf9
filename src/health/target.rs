//! The sinks that a node watches. They come only from the Revision that it runs. Pure.

use std::time::Duration;

use super::load::Rotation;
use super::loss::Route;
use crate::api::{Batch, Expiring, Mode, SinkKind, SinkProbe, SinkRef};
use crate::revision::credential::{CERTIFICATE_FILE, TOKEN_FILE};
use crate::revision::{self, Auth, Proxy, Revision, Url};

/// Stands in messages for a host that comes from a Secret.
const SECRET: &str = "the receiver";

/// One sink, as it is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTarget {
    pub name: String,
    pub backend: Backend,
    /// The plugins of kube-apiserver that carry its events, and what they hold.
    pub route: Route,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    Log(LogTarget),
    Webhook(Box<WebhookTarget>),
}

/// A log file to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// Path on the node, or `-` for the standard output of kube-apiserver.
    pub path: String,
    /// How long an event may take to get there.
    pub max_wait: Duration,
    pub rotation: Rotation,
}

/// A webhook to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTarget {
    pub url: Url,
    /// The proxy that the kubeconfig names.
    pub proxy: Option<Proxy>,
    /// The receiver, in messages. A host that comes from a Secret is not shown.
    pub shown: String,
    /// Absent: plain http.
    pub tls: Option<TlsTarget>,
    /// How long an event may wait before it is sent.
    pub max_wait: Duration,
    /// Before the second attempt.
    pub initial_backoff: Duration,
    /// Files on the node with what expires.
    pub files: Vec<(Expiring, String)>,
    /// A request that is harmless to it.
    pub probe: Option<ProbeTarget>,
}

/// A request that a receiver answers without taking it for an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// With a path of its own, or that of the sink.
    pub path: String,
    /// Whether it is that of the sink, to which kube-apiserver posts.
    pub is_of_sink: bool,
    /// Empty: 200 to 299.
    pub expected: Vec<u16>,
}

impl ProbeTarget {
    /// `None` for a probe of another Revision, and for one that no controller writes: the NodeAudit is not trusted.
    fn new(probe: &SinkProbe, revision: &Revision, url: &Url) -> Option<Self> {
        let path = match &probe.path {
            Some(path) => url.with_path(path).ok()?.path,
            None => url.path.clone(),
        };
        let is_code = |code: &i64| u16::try_from(*code).ok().filter(|code| (200..600).contains(code));
        let expected: Option<Vec<u16>> = probe.expected_codes.iter().map(is_code).collect();
        let is_of_revision = probe.revision == revision.id.as_str();
        is_of_revision.then_some(Self { is_of_sink: path == url.path, path, expected: expected? })
    }

    pub fn is_expected(&self, code: u16) -> bool {
        if self.expected.is_empty() { (200..300).contains(&code) } else { self.expected.contains(&code) }
    }
}

impl WebhookTarget {
    /// The probe, in messages: the path of a URL that comes from a Secret is not shown.
    pub fn shown_probe(&self, probe: &ProbeTarget) -> String {
        let is_shown = self.is_host_shown() || !probe.is_of_sink;
        if is_shown { format!("the probe (GET {})", probe.path) } else { "the probe".into() }
    }

    /// Whether messages may name the host.
    pub fn is_host_shown(&self) -> bool {
        self.shown != SECRET
    }
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
    let targets = sinks.iter().filter_map(|SinkRef { name, kind, probe }| {
        let (backend, plugin, mode, truncate) = match kind {
            SinkKind::Log => {
                let delivery = &revision.content.log.as_ref()?.delivery;
                (Backend::Log(log(revision)?), "log", delivery.mode, &delivery.truncate)
            }
            SinkKind::Webhook => {
                let delivery = &revision.content.webhook.as_ref()?.delivery;
                let backend = Backend::Webhook(Box::new(webhook(revision, probe.as_ref())?));
                (backend, "webhook", delivery.mode, &delivery.truncate)
            }
        };
        let is_buffered = mode == Mode::Batch;
        let plugins = [(plugin, true), ("buffered", is_buffered), ("truncate", truncate.is_some())];
        let route = Route {
            sink: name.clone(),
            plugins: plugins.into_iter().filter(|(_, is_used)| *is_used).map(|(plugin, _)| plugin).collect(),
            is_repeated: is_buffered && *kind == SinkKind::Webhook,
        };
        Some(SinkTarget { name: name.clone(), backend, route })
    });
    targets.collect()
}

fn log(revision: &Revision) -> Option<LogTarget> {
    let log = revision.content.log.as_ref()?;
    let max_wait = max_wait(log.delivery.mode, log.delivery.batch.as_ref(), 0);
    Some(LogTarget { path: log.path.clone(), max_wait, rotation: log.into() })
}

fn webhook(revision: &Revision, probe: Option<&SinkProbe>) -> Option<WebhookTarget> {
    let webhook = revision.content.webhook.as_ref()?;
    let shown = match (&webhook.service, webhook.is_url_secret) {
        (_, true) => SECRET.to_string(),
        (Some(service), _) => format!("the Service {service}"),
        (None, false) => webhook.url.authority(),
    };
    Some(WebhookTarget {
        url: webhook.url.clone(),
        proxy: webhook.proxy.clone(),
        shown,
        tls: webhook.tls.as_ref().map(|tls| TlsTarget {
            server_name: tls.server_name.clone().unwrap_or_else(|| webhook.url.host.clone()),
            ca_file: revision.ca_file(),
            insecure_skip_verify: tls.insecure_skip_verify,
        }),
        max_wait: max_wait(webhook.delivery.mode, webhook.delivery.batch.as_ref(), 30),
        initial_backoff: seconds(webhook.delivery.initial_backoff_seconds),
        files: files(revision, webhook),
        probe: probe.and_then(|probe| ProbeTarget::new(probe, revision, &webhook.url)),
    })
}

fn files(revision: &Revision, webhook: &revision::Webhook) -> Vec<(Expiring, String)> {
    let credential = match &webhook.auth {
        Some(Auth::Token) => Some((Expiring::Token, TOKEN_FILE)),
        Some(Auth::Certificate) => Some((Expiring::ClientCertificate, CERTIFICATE_FILE)),
        Some(Auth::Basic { .. }) | None => None,
    };
    let credential = credential.map(|(of, file)| (of, webhook.credentials.file(file)));
    let authorities = revision.ca_file().map(|file| (Expiring::CertificateAuthority, file));
    authorities.into_iter().chain(credential).collect()
}

/// `default`: kube-apiserver's own, in mode Batch.
fn max_wait(mode: Mode, batch: Option<&Batch>, default: i64) -> Duration {
    match mode {
        Mode::Batch => seconds(batch.and_then(|batch| batch.max_wait_seconds).unwrap_or(default)),
        Mode::Blocking | Mode::BlockingStrict => Duration::ZERO,
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
