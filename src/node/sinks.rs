//! Probes the sinks of this node: connects to them, makes a request that must arrive there, and looks for it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;

use super::files::Host;
use super::{POD_LOGS_DIR, observe, process};
use crate::api::{Finding, NodeSinkStatus, Reason};
use crate::journal::Endpoint;
use crate::sink::canary::{self, Position};
use crate::sink::deliver::{CanarySearch, Log, Webhook};
use crate::sink::metrics::Sample;
use crate::sink::target::{SinkTarget, WebhookTarget};
use crate::sink::{reach, unknown};

const TIMEOUT: Duration = Duration::from_secs(5);
/// A log in mode blocking has the event when the canary is answered, or a moment later.
const LOOK_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot make a client of this node's API server")]
    Config(#[source] kube::config::InClusterError),
    #[error("cannot make a client of this node's API server")]
    Client(#[source] kube::Error),
    #[error("this node's API server does not answer the canary")]
    Canary(#[source] kube::Error),
    #[error("the metrics of this node's API server cannot be read")]
    Metrics(#[source] kube::Error),
    #[error("the metrics of this node's API server were cut off")]
    MetricsCut(#[source] io::Error),
}

/// The memory between probes.
#[derive(Default)]
pub(super) struct Sinks {
    client: Option<(Endpoint, Client)>,
    /// Version of the API server whose process started at that time.
    version: Option<(f64, String)>,
    webhooks: BTreeMap<String, Webhook>,
    logs: BTreeMap<String, Log>,
    canaries: u64,
}

/// The result of a probe.
pub(super) struct ProbeResult {
    pub(super) sinks: Vec<NodeSinkStatus>,
    pub(super) api_server_version: Option<String>,
    /// Whether the API server answered the canary, where there is one, and the rest.
    pub(super) is_answered: bool,
}

impl Sinks {
    /// Probes every sink. The API server must be one that is expected to serve.
    pub(super) async fn probe(
        &mut self,
        host: &Host,
        node: &str,
        targets: &[SinkTarget],
        canary: bool,
        endpoint: &Endpoint,
    ) -> ProbeResult {
        let positions: BTreeMap<&str, (String, Position)> = targets
            .iter()
            .filter_map(|sink| {
                let path = log_file(host, &sink.log.as_ref()?.path);
                let position = canary::end_of(|| host.open_file(&path));
                Some((sink.name.as_str(), (path, position)))
            })
            .collect();
        let sent = process::clock().wall;
        let answer = match self.client(endpoint) {
            Ok(client) => self.ask(&client, node, canary).await,
            Err(error) => Err(error),
        };
        let version = self.version.as_ref().filter(|_| answer.is_ok()).map(|(_, version)| version.clone());
        let mut found = ProbeResult { sinks: Vec::new(), api_server_version: version, is_answered: answer.is_ok() };
        let sample = match &answer {
            Ok((_, sample)) => Some(sample),
            Err(error) => {
                tracing::debug!(error = crate::error::chain(error), "probe of the sinks");
                None
            }
        };
        for sink in targets {
            let status = match &answer {
                Ok((id, sample)) if canary => self.look(host, sink, &positions, id, sample, sent).await,
                Ok(_) => (unknown(Reason::CanaryOff, "policy.canaryRule is false"), self.delivered_at(&sink.name)),
                Err(error) => {
                    (unknown(Reason::MetricsUnavailable, crate::error::chain(error)), self.delivered_at(&sink.name))
                }
            };
            let reachable = match (&sink.webhook, &sink.log) {
                (Some(webhook), _) => {
                    let authorities = |file: &str| {
                        let mut pem = Vec::new();
                        host.open_file(file)?.read_to_end(&mut pem)?;
                        Ok(pem)
                    };
                    reach::reach(webhook, &authorities, TIMEOUT, process::clock().wall).await
                }
                (None, Some(log)) => log_reachable(host, &log.path, positions.get(sink.name.as_str())),
                (None, None) => unknown(Reason::Pending, ""),
            };
            let plugins: &[&str] = if sink.webhook.is_some() { &["webhook", "buffered", "truncate"] } else { &["log"] };
            let lost =
                sample.map_or(0.0, |sample| plugins.iter().filter_map(|plugin| sample.errors.get(*plugin)).sum());
            found.sinks.push(NodeSinkStatus {
                name: sink.name.clone(),
                reachable,
                delivering: status.0,
                #[expect(clippy::cast_possible_truncation, reason = "a counter of events")]
                lost_events: lost as i64,
                last_delivered: status.1,
            });
        }
        found
    }

    /// Makes the canary request, then reads the API server's own counters, and its version where its process is a new
    /// one.
    async fn ask(&mut self, client: &Client, node: &str, canary: bool) -> Result<(String, Sample), Error> {
        self.canaries += 1;
        let id = format!("audit-operator-canary-{node}-{}-{}", process::clock().since_boot_ms, self.canaries);
        if canary {
            let uri = format!("/apis/audit-operator.io/v1alpha1/nodeaudits/{node}");
            let request =
                http::Request::get(uri).header("Audit-ID", &id).body(Vec::new()).expect("a name and an id are plain");
            client.request_text(request).await.map_err(Error::Canary)?;
        }
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a plain request");
        let body = client.request_stream(request).await.map_err(Error::Metrics)?;
        let mut sample = Sample::default();
        // Line by line: the text has several megabytes, and four kinds of lines matter.
        let mut lines = body.lines();
        while let Some(line) = lines.try_next().await.map_err(Error::MetricsCut)? {
            sample.read_line(&line);
        }
        let started = sample.process_start_time_seconds;
        if self.version.as_ref().is_none_or(|(of, _)| *of != started) {
            let version = client.apiserver_version().await.ok();
            self.version = version.map(|version| (started, version.git_version));
        }
        Ok((id, sample))
    }

    async fn look(
        &mut self,
        host: &Host,
        sink: &SinkTarget,
        positions: &BTreeMap<&str, (String, Position)>,
        id: &str,
        sample: &Sample,
        sent: k8s_openapi::jiff::Timestamp,
    ) -> (Finding, Option<Time>) {
        let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let finding = match (&sink.webhook, &sink.log) {
            (Some(target), _) => {
                let webhook = self.webhooks.entry(sink.name.clone()).or_default();
                webhook.judge(sample, &host_label(target), seconds(target.max_wait_seconds), process::clock().wall)
            }
            (None, Some(target)) => {
                let position = positions.get(sink.name.as_str());
                if let Some(finding) = position.and_then(|(path, _)| unseen(host, path)) {
                    return (finding, self.delivered_at(&sink.name));
                }
                let seen = match position {
                    Some((path, position)) => wait_for(host, path, position, id).await,
                    None => CanarySearch::NoFile,
                };
                let log = self.logs.entry(sink.name.clone()).or_default();
                log.judge(seen, &target.path, sent, seconds(target.max_wait_seconds), process::clock().wall)
            }
            (None, None) => unknown(Reason::Pending, ""),
        };
        (finding, self.delivered_at(&sink.name))
    }

    fn delivered_at(&self, sink: &str) -> Option<Time> {
        let webhook = self.webhooks.get(sink).and_then(|webhook| webhook.delivered_at);
        webhook.or_else(|| self.logs.get(sink)?.delivered_at).map(Time)
    }

    /// A client of this node's API server, not of any that answers for the cluster. The token goes only to a server
    /// that proves to be an API server of this cluster.
    fn client(&mut self, endpoint: &Endpoint) -> Result<Client, Error> {
        if let Some((known, client)) = &self.client
            && known == endpoint
        {
            return Ok(client.clone());
        }
        let mut config = kube::Config::incluster().map_err(Error::Config)?;
        let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
        config.cluster_url = format!("https://{host}:{}/", endpoint.port).parse().expect("an address and a port");
        config.tls_server_name = Some("kubernetes.default.svc".into());
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        let client = Client::try_from(config).map_err(Error::Client)?;
        self.client = Some((endpoint.clone(), client.clone()));
        Ok(client)
    }
}

/// The host as kube-apiserver has it in its URL, and so in its metrics: without a default port.
fn host_label(target: &WebhookTarget) -> String {
    let default = if target.tls.is_some() { 443 } else { 80 };
    if target.port == default { target.host.clone() } else { format!("{}:{}", target.host, target.port) }
}

async fn wait_for(host: &Host, path: &str, position: &Position, id: &str) -> CanarySearch {
    let deadline = tokio::time::Instant::now() + LOOK_FOR;
    loop {
        match canary::find(|| host.open_file(path), position, id) {
            Ok(true) => return CanarySearch::Found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return CanarySearch::NoFile,
            // Whether the file can be read is reported as its reachability.
            Ok(false) | Err(_) if tokio::time::Instant::now() >= deadline => return CanarySearch::NotFound,
            Ok(false) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The state of a log that this program cannot see: a link to what is not mounted. Docker keeps the logs of containers
/// behind such links.
fn unseen(host: &Host, path: &str) -> Option<Finding> {
    let place = host.follow(path).ok().filter(|place| !place.is_of_node)?;
    let link = place.link?;
    let (link, target) = (link.path.display(), link.target.display());
    let message =
        format!("{link} is a link to {target}, which the agent does not mount, so it cannot look for events there");
    Some(unknown(Reason::Pending, message))
}

fn log_reachable(host: &Host, path: &str, position: Option<&(String, Position)>) -> Finding {
    if let Some(finding) = position.and_then(|(file, _)| unseen(host, file)) {
        return finding;
    }
    match position.map(|(file, _)| host.open_file(file)) {
        Some(Ok(_)) => Finding { status: crate::api::Truth::True, reason: Reason::Reachable, message: String::new() },
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Finding {
            status: crate::api::Truth::False,
            reason: Reason::LogFileMissing,
            message: format!("{path} does not exist"),
        },
        Some(Err(error)) => Finding {
            status: crate::api::Truth::False,
            reason: Reason::FileError,
            message: format!("{path} cannot be read: {error}"),
        },
        None => unknown(Reason::Pending, ""),
    }
}

/// The file that events go to: for standard output the newest log of the API server's container.
fn log_file(host: &Host, path: &str) -> String {
    if path != "-" {
        return path.into();
    }
    let pods = observe::pods(host, "kube-apiserver").unwrap_or_default();
    let logs = pods.iter().flat_map(|pod| {
        let directory = format!("{POD_LOGS_DIR}/{pod}/kube-apiserver");
        let names = host.list(&directory).unwrap_or_default();
        names.into_iter().filter(|name| name.ends_with(".log")).map(move |name| format!("{directory}/{name}"))
    });
    logs.max_by_key(|log| host.metadata(log).and_then(|metadata| metadata.modified()).ok())
        .unwrap_or_else(|| POD_LOGS_DIR.into())
}
