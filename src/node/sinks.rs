//! Watches the sinks of this node in a task of its own, so that a dead receiver never delays a pass of the agent.
//!
//! A look makes the canary request where it is due, reads kube-apiserver's counters and the log file, and judges each
//! sink by them. A sink that receives events gets no connection from here, but for one TLS handshake an hour.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::files::Host;
use super::state::State;
use super::{POD_LOGS_DIR, log_place, observe, process};
use crate::api::{Expiring, Expiry, Finding, NodeSinkStatus, Reason, SinkLoad, Truth};
use crate::error::LastError;
use crate::health::canary::{self, Position};
use crate::health::explain::{self, Facts, needs_probe};
use crate::health::load::{self, Events};
use crate::health::log::{self, Log, Search};
use crate::health::loss::Losses;
use crate::health::reach::{self, Probe};
use crate::health::sample::Sample;
use crate::health::target::{Backend, LogTarget, ProbeTarget, SinkTarget, WebhookTarget};
use crate::health::way::Way;
use crate::health::webhook::{self, Moment, Schedule, Webhook};
use crate::health::{error_line, expiry, no, unknown, yes};
use crate::journal::Endpoint;

/// Between looks while all is well.
const LOOK: Duration = Duration::from_secs(40);
/// Between looks otherwise.
const CLOSE_LOOK: Duration = Duration::from_secs(15);
/// Between canaries while all is well: every third look.
const CANARY: Duration = Duration::from_secs(120);
/// A canary may be that much early.
const EARLY: Duration = Duration::from_secs(5);
/// For this long after a change every look is a close one.
const FRESH: Duration = Duration::from_secs(300);
/// Of every single step of a look.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A file that was written to longer ago has no canary of now.
const WRITTEN: Duration = Duration::from_secs(300);
/// Between connections that explain a failure. Some receivers take a connection for a client.
const PROBE: Duration = Duration::from_secs(60);
/// Between connections to a receiver that is well: for the date of its certificate.
const CERTIFICATE: Duration = Duration::from_secs(3600);
/// A log in mode blocking has the event when the canary is answered, or a moment later.
const LOOK_FOR: Duration = Duration::from_secs(2);
/// The end of kube-apiserver's own log in which an error is looked for. One error is followed by a line for each event
/// of its batch.
const ERRORS_BYTES: u64 = 512 * 1024;

/// What is to be watched.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Assigned {
    pub(super) endpoint: Endpoint,
    /// Since when the API server is ready: another moment may be another process.
    pub(super) ready_since: Option<Timestamp>,
    /// Each sink, and the way to it.
    pub(super) sinks: Vec<(SinkTarget, Way)>,
    /// Whether the policy records the canary.
    pub(super) has_canary: bool,
}

/// The result of the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) sinks: Vec<NodeSinkStatus>,
    pub(super) api_server_version: Option<String>,
    /// When the API server last answered a canary, which proves more than `/readyz`.
    pub(super) canary_answered: Option<Instant>,
    /// Whether the last look got an answer from the API server.
    pub(super) is_answered: bool,
}

impl Found {
    /// Whether there is something to report, apart from times that move on while all is well.
    fn is_news(&self, before: &Found) -> bool {
        let without_times = |found: &Found| {
            let mut found = Found { canary_answered: None, ..found.clone() };
            found.sinks.iter_mut().for_each(|sink| sink.last_delivered = None);
            found
        };
        without_times(self) != without_times(before)
    }
}

/// The task.
pub(super) struct Watch {
    assigned: watch::Sender<Option<Assigned>>,
    results: watch::Sender<Found>,
    found: watch::Receiver<Found>,
    _task: AbortOnDropHandle<()>,
}

impl Watch {
    pub(super) fn begin(state: State, node: String, looked: impl Fn(&[NodeSinkStatus]) + Send + 'static) -> Self {
        let (assigned, assignments) = watch::channel(None);
        let (results, found) = watch::channel(Found::default());
        let sinks = Sinks::new(state, node);
        let task = tokio::spawn(sinks.run(assignments, results.clone(), looked));
        Self { assigned, results, found, _task: AbortOnDropHandle::new(task) }
    }

    /// Watches these sinks from now on; `None`: nothing, because a Change is in progress or the node has no target.
    pub(super) fn assign(&self, assigned: Option<Assigned>) {
        self.assigned.send_if_modified(|before| {
            let is_new = *before != assigned;
            if before.is_none() && assigned.is_some() {
                // What was found before a Change proves nothing about the API server after it. Losses stay.
                self.results.send_if_modified(|found| {
                    found.sinks.iter_mut().for_each(NodeSinkStatus::forget_delivery);
                    false
                });
            }
            *before = assigned;
            is_new
        });
    }

    pub(super) fn found(&self) -> Found {
        self.found.borrow().clone()
    }

    /// Waits for a look with news.
    pub(super) async fn news(&mut self) {
        if self.found.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

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

/// The memory between looks.
struct Sinks {
    state: State,
    node: String,
    client: Option<(Endpoint, Client)>,
    /// Version of the API server since that moment.
    version: Option<(Option<Timestamp>, String)>,
    /// By the name of the sink.
    memories: BTreeMap<String, Memory>,
    losses: Losses,
    /// Whether the losses on the disk are older.
    has_unkept_losses: bool,
    loss_error: LastError,
    events: Events,
    canaries: u64,
    /// When the last canary was answered: by the steady clock, and since the boot.
    canary: Option<(Instant, Moment)>,
}

/// The memory of one sink.
#[derive(Default)]
struct Memory {
    webhook: Webhook,
    log: Log,
    delivered: Option<Timestamp>,
    /// What a connection found that explains requests without an answer. None while events arrive.
    probe: Option<Finding>,
    /// When the last such connection was made.
    probed: Option<Instant>,
    /// When the receiver's certificate expires, as far as it is known, and when it was looked at.
    certificate: Option<(Option<Timestamp>, Instant)>,
    /// As it was reported.
    load: SinkLoad,
    /// The last request to a receiver that is well, and its answer.
    asked: Option<(ProbeTarget, Option<Finding>)>,
}

/// A canary, and the ends of the logs before it was sent.
struct Sent {
    id: String,
    ends: BTreeMap<String, (String, Position)>,
    at: Moment,
}

impl Sinks {
    fn new(state: State, node: String) -> Self {
        Self {
            losses: state.losses(),
            state,
            node,
            client: None,
            version: None,
            memories: BTreeMap::new(),
            has_unkept_losses: false,
            loss_error: LastError::default(),
            events: Events::default(),
            canaries: 0,
            canary: None,
        }
    }

    async fn run(
        mut self,
        mut assignments: watch::Receiver<Option<Assigned>>,
        results: watch::Sender<Found>,
        looked: impl Fn(&[NodeSinkStatus]) + Send + 'static,
    ) {
        let mut since = Instant::now();
        let mut is_well = false;
        loop {
            let assigned = assignments.borrow_and_update().clone();
            let pause = match &assigned {
                Some(assigned) if !assigned.sinks.is_empty() => {
                    let is_close = !is_well || since.elapsed() < FRESH;
                    let found = self.look(assigned, is_close).await;
                    // A Change may have begun and ended meanwhile.
                    if assignments.has_changed().unwrap_or(false) {
                        since = Instant::now();
                        continue;
                    }
                    looked(&found.sinks);
                    is_well = found.is_answered && found.sinks.iter().all(is_healthy);
                    publish(&results, found);
                    Some(if is_well && since.elapsed() >= FRESH { LOOK } else { CLOSE_LOOK })
                }
                // Only the version is of interest.
                Some(assigned) => {
                    self.memories.clear();
                    let api_server_version = self.version(assigned).await;
                    let pause = api_server_version.is_none().then_some(CLOSE_LOOK);
                    let is_answered = api_server_version.is_some();
                    publish(&results, Found { api_server_version, is_answered, ..Found::default() });
                    pause
                }
                None => None,
            };
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = assignments.changed() => match changed {
                    Ok(()) => since = Instant::now(),
                    Err(_) => return,
                },
                () = again => {}
            }
        }
    }

    async fn look(&mut self, assigned: &Assigned, is_close: bool) -> Found {
        self.memories.retain(|sink, _| assigned.sinks.iter().any(|(target, _)| target.name == *sink));
        let is_due = self.canary.is_none_or(|(at, _)| at.elapsed() + EARLY >= CANARY);
        let sends = assigned.has_canary && (is_close || is_due);
        let answer = self.ask(assigned, sends).await;
        let api_server_version = if answer.is_ok() { self.version(assigned).await } else { None };
        let mut found = Found {
            api_server_version,
            canary_answered: self.canary.map(|(at, _)| at),
            is_answered: answer.is_ok(),
            sinks: Vec::new(),
        };
        let (sent, sample) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let why = crate::error::chain(&error);
                tracing::debug!(error = why, "look at the sinks");
                let facts = || Facts {
                    reachable: unknown(Reason::MetricsUnavailable, ""),
                    delivering: unknown(Reason::MetricsUnavailable, why.clone()),
                };
                for (sink, _) in &assigned.sinks {
                    found.sinks.push(self.status(sink, facts()).await);
                }
                return found;
            }
        };
        let mut all = Vec::new();
        for (sink, way) in &assigned.sinks {
            let (facts, is_failing) = match &sink.backend {
                Backend::Webhook(target) => self.webhook(&sink.name, target, way, &sample, assigned.has_canary).await,
                Backend::Log(target) => self.log(&sink.name, target, sent.as_ref(), &sample, assigned.has_canary).await,
            };
            all.push((sink, facts, is_failing));
        }
        self.count_losses(&all, &sample);
        self.weigh(&assigned.sinks, &sample).await;
        for (sink, facts, _) in all {
            found.sinks.push(self.status(sink, facts).await);
        }
        found
    }

    async fn status(&self, sink: &SinkTarget, facts: Facts) -> NodeSinkStatus {
        let loss = self.losses.of(&sink.name);
        let now = process::clock().wall;
        let complete = match loss.at {
            Some(at) if loss.is_recent(now) => no(
                Reason::EventsLost,
                format!("kube-apiserver has lost {} events for this sink, the last of them about {at:.0}", loss.events),
            ),
            // Counted from the first look on.
            _ if facts.delivering.reason == Reason::MetricsUnavailable => unknown(Reason::MetricsUnavailable, ""),
            _ => yes(Reason::Complete, ""),
        };
        NodeSinkStatus {
            name: sink.name.clone(),
            reachable: facts.reachable,
            delivering: facts.delivering,
            complete,
            lost_events: loss.events,
            lost_at: loss.at.map(Time),
            expires: self.expires(sink).await,
            load: self.memories.get(&sink.name).map(|memory| memory.load).filter(|load| *load != SinkLoad::default()),
            last_delivered: self.memories.get(&sink.name).and_then(|memory| memory.delivered).map(Time),
        }
    }

    async fn expires(&self, sink: &SinkTarget) -> Vec<Expiry> {
        let Backend::Webhook(webhook) = &sink.backend else { return Vec::new() };
        let (host, files) = (self.state.host.clone(), webhook.files.clone());
        let of_files = blocking(move || {
            let end = |(of, file): (Expiring, String)| {
                let bytes = host.read(&file).ok()??;
                let at = match of {
                    Expiring::Token => expiry::of_token(&String::from_utf8_lossy(&bytes)),
                    Expiring::CertificateAuthority => expiry::of_authorities(&bytes),
                    Expiring::ClientCertificate | Expiring::ServerCertificate => expiry::of_certificate(&bytes),
                };
                Some(Expiry { of, at: Time(at?) })
            };
            files.into_iter().filter_map(end).collect::<Vec<_>>()
        })
        .await;
        let certificate = self.memories.get(&sink.name).and_then(|memory| memory.certificate?.0);
        let server = certificate.map(|at| Expiry { of: Expiring::ServerCertificate, at: Time(at) });
        server.into_iter().chain(of_files).collect()
    }

    /// Makes the canary request if `sends`, then reads the counters of the API server.
    async fn ask(&mut self, assigned: &Assigned, sends: bool) -> Result<(Option<Sent>, Sample), Error> {
        let client = self.client(&assigned.endpoint)?;
        let mut sent = None;
        if sends {
            self.canaries += 1;
            let node = &self.node;
            let id = format!("audit-operator-canary-{node}-{}-{}", process::clock().since_boot_ms, self.canaries);
            let ends = self.log_ends(&assigned.sinks).await;
            let uri = format!("/apis/audit-operator.io/v1alpha1/nodeaudits/{node}");
            let request =
                http::Request::get(uri).header("Audit-ID", &id).body(Vec::new()).expect("a name and an id are plain");
            client.request_text(request).await.map_err(Error::Canary)?;
            let at = moment();
            self.canary = Some((Instant::now(), at));
            sent = Some(Sent { id, ends, at });
        }
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a plain request");
        let body = client.request_stream(request).await.map_err(Error::Metrics)?;
        let mut sample = Sample::default();
        // Line by line: the text has several megabytes, and a few kinds of lines matter.
        let mut lines = body.lines();
        while let Some(line) = lines.try_next().await.map_err(Error::MetricsCut)? {
            sample.read_line(&line);
        }
        Ok((sent, sample))
    }

    /// Asked once for each process of the API server.
    async fn version(&mut self, assigned: &Assigned) -> Option<String> {
        if self.version.as_ref().is_none_or(|(since, _)| *since != assigned.ready_since) {
            let client = self.client(&assigned.endpoint).ok()?;
            let version = client.apiserver_version().await.ok()?;
            self.version = Some((assigned.ready_since, version.git_version));
        }
        self.version.as_ref().map(|(_, version)| version.clone())
    }

    /// The ends of the logs, so that only what comes after them is searched.
    async fn log_ends(&self, sinks: &[(SinkTarget, Way)]) -> BTreeMap<String, (String, Position)> {
        let logs = sinks.iter().filter_map(|(sink, _)| match &sink.backend {
            Backend::Log(log) => Some((sink.name.clone(), log.path.clone())),
            Backend::Webhook(_) => None,
        });
        let logs: Vec<_> = logs.collect();
        let host = self.state.host.clone();
        blocking(move || {
            let end = |(sink, path): (String, String)| {
                let file = log_file(&host, &path);
                let end = canary::end_of(|| host.open_file(&file));
                (sink, (file, end))
            };
            logs.into_iter().map(end).collect()
        })
        .await
    }

    async fn webhook(
        &mut self,
        sink: &str,
        target: &WebhookTarget,
        way: &Way,
        sample: &Sample,
        has_canary: bool,
    ) -> (Facts, bool) {
        let host = target.url.authority();
        let schedule = Schedule {
            max_wait: target.max_wait,
            initial_backoff: target.initial_backoff,
            proof: has_canary.then_some(CANARY + LOOK),
        };
        let canary = self.canary.map(|(_, at)| at).filter(|_| has_canary);
        let memory = self.memories.entry(sink.to_string()).or_default();
        let delivery = memory.webhook.judge(sample, &host, canary, schedule, moment());
        if delivery == webhook::Delivery::Delivering {
            memory.delivered = Some(process::clock().wall);
            memory.probe = None;
        }
        let is_due = |last: Option<Instant>, interval| last.is_none_or(|last| last.elapsed() + EARLY >= interval);
        let explains = needs_probe(&delivery, way) && is_due(memory.probed, PROBE);
        let is_new_probe = memory.asked.as_ref().map(|(probe, _)| probe) != target.probe.as_ref();
        let is_of_interest = target.probe.is_some() || target.tls.as_ref().is_some_and(|tls| !tls.insecure_skip_verify);
        let dates = delivery == webhook::Delivery::Delivering
            && is_of_interest
            && (is_new_probe || is_due(memory.certificate.map(|(_, at)| at), CERTIFICATE));
        if let Way::Direct(addresses) = way
            && (explains || dates)
        {
            let state = self.state.host.clone();
            let read = |file: &str| {
                let mut bytes = Vec::new();
                state.open_file(file)?.read_to_end(&mut bytes)?;
                Ok(bytes)
            };
            let Probe { finding, expires, was_asked } =
                reach::reach(target, addresses, &read, TIMEOUT, process::clock().wall).await;
            // What a failed look does not see stays as it was.
            let known = memory.certificate.and_then(|(expires, _)| expires);
            memory.certificate = Some((expires.or(known), Instant::now()));
            let answer = (was_asked && dates).then(|| finding.clone());
            memory.asked = target.probe.clone().map(|probe| (probe, answer));
            if explains {
                (memory.probe, memory.probed) = (Some(finding), Some(Instant::now()));
            }
        }
        let probe = match delivery {
            webhook::Delivery::Delivering => {
                let asked = memory.asked.as_ref().filter(|(probe, _)| Some(probe) == target.probe.as_ref());
                asked.and_then(|(_, finding)| finding.clone())
            }
            _ => memory.probe.clone(),
        };
        let error = if delivery.is_unanswered() { self.error(error_line::of_webhook).await } else { None };
        // The host may be a secret too.
        let error = error.map(|error| match target.is_host_shown() {
            true => error,
            false => error.replace(&target.url.host, &target.shown),
        });
        let evidence = explain::Evidence {
            shown: &target.shown,
            way,
            probe: probe.as_ref(),
            body_bytes: sample.average_body(&host),
            error: error.as_deref(),
            has_canary,
        };
        (explain::webhook(&delivery, &evidence), delivery.is_failing())
    }

    async fn log(
        &mut self,
        sink: &str,
        target: &LogTarget,
        sent: Option<&Sent>,
        sample: &Sample,
        has_canary: bool,
    ) -> (Facts, bool) {
        let host = self.state.host.clone();
        let path = target.path.clone();
        let (file, hidden) = blocking(move || {
            let file = log_file(&host, &path);
            let hidden = unseen(&host, &file);
            (file, hidden)
        })
        .await;
        if let Some(hidden) = hidden {
            return (Facts { reachable: hidden.clone(), delivering: hidden }, false);
        }
        let search = match sent.and_then(|sent| Some((sent, sent.ends.get(sink)?))) {
            Some((sent, (file, end))) => self.search(file, end, &sent.id).await,
            None => Search::NotDue,
        };
        let memory = self.memories.entry(sink.to_string()).or_default();
        if search == Search::Found {
            memory.delivered = Some(process::clock().wall);
        }
        let sent_at = sent.map_or_else(moment, |sent| sent.at);
        let delivery = memory.log.judge(sample, search, sent_at, target.max_wait, moment());
        let is_failing = delivery == log::Delivery::Failing;
        let host = self.state.host.clone();
        let place = blocking(move || place(&host, &file)).await;
        let error = if is_failing { self.error(error_line::of_log).await } else { None };
        (explain::log(&delivery, &target.path, &place, error.as_deref(), has_canary), is_failing)
    }

    /// Waits until the canary is in the log.
    async fn search(&self, file: &str, end: &Position, id: &str) -> Search {
        let deadline = Instant::now() + LOOK_FOR;
        loop {
            let (host, file, end, id) = (self.state.host.clone(), file.to_string(), end.clone(), id.to_string());
            let is_last = Instant::now() >= deadline;
            let found = blocking(move || match canary::find(|| host.open_file(&file), &end, &id) {
                Ok(true) => Some(Search::Found),
                other if is_last => Some(elsewhere(&host, &file, &id).unwrap_or(match other {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Search::NoFile,
                    _ => Search::NotFound,
                })),
                _ => None,
            })
            .await;
            match found {
                Some(search) => return search,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// kube-apiserver's own last error, as `find` finds it in its log.
    async fn error(&self, find: fn(&str) -> Option<String>) -> Option<String> {
        let host = self.state.host.clone();
        blocking(move || find(&host.tail(&log_file(&host, "-"), ERRORS_BYTES).ok()?)).await
    }

    fn count_losses(&mut self, looks: &[(&SinkTarget, Facts, bool)], sample: &Sample) {
        let routes: Vec<_> = looks.iter().map(|(sink, _, is_failing)| (sink.route.clone(), *is_failing)).collect();
        self.has_unkept_losses |= self.losses.observe(sample, &routes, process::clock().wall);
        if !self.has_unkept_losses {
            return;
        }
        match self.state.keep_losses(&self.losses) {
            Ok(()) => {
                self.has_unkept_losses = false;
                self.loss_error.clear();
            }
            Err(error) => {
                if let Some(error) = self.loss_error.changed(&error) {
                    tracing::warn!(error, "cannot keep the count of lost events; retrying");
                }
            }
        }
    }

    /// Measures the load of each sink.
    async fn weigh(&mut self, sinks: &[(SinkTarget, Way)], sample: &Sample) {
        let events_per_second = self.events.per_second(sample, moment());
        for (sink, _) in sinks {
            let (request_bytes, lasts) = match &sink.backend {
                Backend::Webhook(webhook) => (sample.average_body(&webhook.url.authority()), None),
                Backend::Log(log) => (None, self.lasts(log).await),
            };
            let Some(memory) = self.memories.get_mut(&sink.name) else { continue };
            let load = &mut memory.load;
            // A figure that cannot be told for a while, as after a restart of the API server, stays.
            if events_per_second.is_some() {
                load.events_per_second = load::shown(load.events_per_second, events_per_second);
            }
            if request_bytes.is_some() {
                load.request_bytes = load::shown(load.request_bytes, request_bytes);
            }
            if let Some(load::Lasts { rotation, disk }) = lasts {
                load.log_hours = load::shown(load.log_hours, rotation.map(load::hours));
                load.disk_hours = load::shown(load.disk_hours, disk.map(load::hours));
            }
        }
    }

    /// How long the log lasts. `None`: too early to tell, or the kubelet rotates it.
    async fn lasts(&self, log: &LogTarget) -> Option<load::Lasts> {
        if log.path == "-" {
            return None;
        }
        let (host, path, rotation) = (self.state.host.clone(), log.path.clone(), log.rotation);
        let files = blocking(move || log_place::rotated(&host, &path)).await.ok()?;
        load::lasts(&files, rotation, process::clock().wall)
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

/// Wakes the agent only for news.
fn publish(results: &watch::Sender<Found>, found: Found) {
    results.send_if_modified(|before| {
        let is_news = found.is_news(before);
        *before = found;
        is_news
    });
}

/// Whether all is known to be well, so that a close look is not needed.
fn is_healthy(sink: &NodeSinkStatus) -> bool {
    sink.seems_to_deliver() && sink.complete.status == Truth::True
}

fn moment() -> Moment {
    Duration::from_millis(process::clock().since_boot_ms)
}

/// Reads files without holding up the other tasks.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(read).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Looks for the canary in the other files of the log: kube-apiserver rotated it just now, or somebody else did.
fn elsewhere(host: &Host, file: &str, id: &str) -> Option<Search> {
    let (directory, name) = file.rsplit_once('/')?;
    let stem = log_place::stem(name);
    let is_recent = |path: &str| {
        let modified = host.metadata(path).and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < WRITTEN))
    };
    let others = host.list(directory).ok()?.into_iter().filter(|other| other.starts_with(stem) && other != name);
    let mut paths = others.map(|other| format!("{directory}/{other}")).filter(|path| is_recent(path));
    let found = paths.find(|path| canary::find(|| host.open_file(path), &Position::default(), id).unwrap_or(false))?;
    let is_rotated = log_place::is_rotated(&found[directory.len() + 1..], name);
    Some(if is_rotated { Search::Found } else { Search::Elsewhere(found) })
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

/// Whether the file exists, and its file system has space.
fn place(host: &Host, file: &str) -> Finding {
    match host.open_file(file) {
        Ok(opened) => match rustix::fs::fstatvfs(&opened) {
            Ok(system) if system.f_bavail == 0 => {
                no(Reason::DiskFull, format!("no space is left on the file system of {file}"))
            }
            _ => yes(Reason::Reachable, ""),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            no(Reason::LogFileMissing, format!("{file} does not exist"))
        }
        Err(error) => no(Reason::FileError, format!("{file} cannot be read: {error}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_in_a_file_that_kube_apiserver_rotated_is_found_and_in_any_other_it_is_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::open(root.path()).unwrap();
        let log = "/var/log/kubernetes/audit/audit.log";
        for (other, want) in [
            ("audit-2026-11-30T12-00-00.000.log", Some(Search::Found)),
            ("audit.log.1", Some(Search::Elsewhere("/var/log/kubernetes/audit/audit.log.1".into()))),
            ("audit.old", Some(Search::Elsewhere("/var/log/kubernetes/audit/audit.old".into()))),
            ("other.log", None),
        ] {
            let path = format!("/var/log/kubernetes/audit/{other}");
            host.make_directory("/var/log/kubernetes/audit", 0o700).unwrap();
            host.replace(&path, b"{\"auditID\":\"canary-7\"}\n", 0o600).unwrap();
            assert_eq!(elsewhere(&host, log, "canary-7"), want, "{other}");
            assert_eq!(elsewhere(&host, log, "canary-8"), None, "{other}");
            host.remove(&path).unwrap();
        }
        assert_eq!(place(&host, log).reason, Reason::LogFileMissing);
        host.replace(log, b"", 0o600).unwrap();
        assert_eq!(place(&host, log).reason, Reason::Reachable);
    }

    #[test]
    fn only_news_wakes_the_agent() {
        let sink = |delivered: &str, delivering| NodeSinkStatus {
            name: "siem".into(),
            reachable: Finding::pending(),
            delivering,
            complete: Finding::pending(),
            lost_events: 0,
            lost_at: None,
            expires: Vec::new(),
            load: None,
            last_delivered: Some(Time(delivered.parse().unwrap())),
        };
        let found = |sink| Found { sinks: vec![sink], is_answered: true, ..Found::default() };
        let first = found(sink("2026-11-30T12:00:00Z", yes(Reason::Delivering, "")));
        let later = Found {
            canary_answered: Some(Instant::now()),
            ..found(sink("2026-11-30T12:01:00Z", yes(Reason::Delivering, "")))
        };
        assert!(!later.is_news(&first));
        assert!(found(sink("2026-11-30T12:01:00Z", no(Reason::Refused, ""))).is_news(&first));
        assert!(Found { is_answered: false, ..later }.is_news(&first));
    }
}
