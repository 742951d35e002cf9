//! The Kubernetes API away for minutes is normal life: the only API server of a cluster restarts at every change that we
//! make. One line in the log when it begins, one when it ends.

use std::sync::Mutex;
use std::time::Duration;

use kube::Client;
use kube::core::Status;
use tokio::time::Instant;

use crate::telemetry;

/// A request that is not answered for so long never will be: the machine of an API server may go without a word.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Likewise for a watch, which the API server ends itself after 290 s.
const WATCH_TIMEOUT: Duration = Duration::from_secs(320);

/// Clients of the Kubernetes API. None waits for ever.
pub(crate) struct Clients {
    pub(crate) requests: Client,
    pub(crate) watches: Client,
}

pub(crate) async fn clients() -> Result<Clients, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.read_timeout = Some(WATCH_TIMEOUT);
    let watches = Client::try_from(config.clone())?;
    config.read_timeout = Some(REQUEST_TIMEOUT);
    Ok(Clients { requests: Client::try_from(config)?, watches })
}

/// Whether the API answers, over all who ask.
#[derive(Debug)]
pub(crate) struct Outage {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: Option<Instant>,
    /// When the API last began to answer.
    answers_since: Instant,
}

impl Outage {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { began: None, answers_since: Instant::now() }) }
    }

    /// A request failed for a reason that is not in its content.
    pub(crate) fn failed(&self, error: &kube::Error) {
        self.begin(|| tracing::info!(error = telemetry::chain(error), "the Kubernetes API does not answer; trying on"));
    }

    /// A request was given up.
    pub(crate) fn timed_out(&self) {
        self.begin(|| tracing::info!("the Kubernetes API does not answer in time; trying on"));
    }

    pub(crate) fn answered(&self) {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if let Some(began) = state.began.take() {
            state.answers_since = Instant::now();
            tracing::info!(seconds = began.elapsed().as_secs(), "the Kubernetes API answers again");
        }
    }

    pub(crate) fn answers_since(&self) -> Instant {
        self.state.lock().expect("nobody panics with this lock").answers_since
    }

    fn begin(&self, log: impl FnOnce()) {
        let mut state = self.state.lock().expect("nobody panics with this lock");
        if state.began.is_none() {
            state.began = Some(Instant::now());
            log();
        }
    }
}

/// The API did not answer, or not as the API: nothing can be concluded about the request.
pub(crate) fn is_outage(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => is_outage_status(status),
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

/// Refused by something that stands before the API server, or by an API server that is busy or just starting.
pub(crate) fn is_outage_status(status: &Status) -> bool {
    matches!(status.code, 429 | 502..=504)
}

pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists())
}

pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
