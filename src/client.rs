//! The clients of the Kubernetes API: how long they wait, which of their errors mean that the API is away, and one line
//! in the log when that begins and one when it ends.
//!
//! An API that is away for minutes is normal: the only API server of a cluster restarts with every change that we make.

use std::sync::Mutex;
use std::time::Duration;

use http::Response;
use kube::Client;
use kube::client::ClientBuilder;
use kube::core::Status;
use kube::runtime::watcher;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tower::util::MapResultLayer;

use crate::error;
use crate::telemetry::family;

/// A request without an answer for so long never gets one: the machine of an API server may vanish without closing its
/// connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The same for a watch. The API server sends a bookmark every minute (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/storage/cacher/cacher.go, defaultBookmarkFrequency), so silence for longer than two
/// means that the connection is dead.
const WATCH_SILENCE: Duration = Duration::from_secs(150);
/// After this the API server ends a watch, and it is resumed. Each begin and end is an audit event, so this is long: a
/// watch that is broken is noticed by [`WATCH_SILENCE`].
const WATCH_SECONDS: u32 = 3_600;

/// Clients of the Kubernetes API. None waits for ever.
pub(crate) struct Clients {
    pub(crate) requests: Client,
    pub(crate) watches: Client,
}

/// How to watch with [`Clients::watches`].
pub(crate) fn watch_config() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByCode {
    /// 0: no answer.
    pub(crate) code: u16,
}

/// Registers the count of their requests. A watch is one request.
pub(crate) async fn clients(registry: &mut Registry) -> Result<Clients, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    let requests = api_requests(registry);
    config.read_timeout = Some(WATCH_SILENCE);
    let watches = counted(config.clone(), requests.clone())?;
    config.read_timeout = Some(REQUEST_TIMEOUT);
    Ok(Clients { requests: counted(config, requests)?, watches })
}

pub(crate) fn api_requests(registry: &mut Registry) -> Family<ByCode, Counter> {
    let registry = registry.sub_registry_with_prefix("audit_operator");
    family(registry, "api_requests", "Requests to the Kubernetes API, by the status code of the answer; 0 for none")
}

fn counted(config: kube::Config, requests: Family<ByCode, Counter>) -> Result<Client, kube::Error> {
    let count = MapResultLayer::new(move |answer: Result<Response<_>, _>| {
        let code = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        requests.get_or_create(&ByCode { code }).inc();
        answer
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&count).build())
}

/// Whether the API responds, over all requests of a program.
#[derive(Debug)]
pub(crate) struct Outage {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Option<Instant>,
    /// When the API last began to respond.
    responds_since: Instant,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { began: None, responds_since: Instant::now() }) }
    }

    /// A request failed for a reason that is not in its content.
    pub(crate) fn failed(&self, error: &(dyn std::error::Error + 'static)) {
        self.begin(|| tracing::info!(error = error::chain(error), "the Kubernetes API is not responding; retrying"));
    }

    /// A request timed out.
    pub(crate) fn timed_out(&self) {
        self.begin(|| tracing::info!("the Kubernetes API is not responding in time; retrying"));
    }

    pub(crate) fn responded(&self) {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if let Some(began) = state.began.take() {
            state.responds_since = Instant::now();
            tracing::info!(seconds = began.elapsed().as_secs(), "the Kubernetes API responds again");
        }
    }

    pub(crate) fn responds_since(&self) -> Instant {
        self.state.lock().expect("nobody panics with this lock").responds_since
    }

    fn begin(&self, log: impl FnOnce()) {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if state.began.is_none() {
            state.began = Some(Instant::now());
            log();
        }
    }
}

/// The API did not answer, or something else answered in its place: nothing can be concluded about the request.
pub(crate) fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_outage_status(status),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// A refusal by a load balancer before the API server, or by an API server that is busy or just starting.
pub(crate) fn is_outage_status(status: &Status) -> bool {
    matches!(status.code, 429 | 502..=504)
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
