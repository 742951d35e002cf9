//! `audit-operator controller`: Setups in, `NodeAudit`s, Secrets, status and Events out. Never touches a host.
//!
//! Only the controller that holds the Lease works. It makes a pass whenever a watch shows a change, and once
//! a minute anyway. A pass is five steps: fetch the cluster out of the stores, judge all Setups (which nodes, which
//! Revision), decide once over all nodes ([`crate::rollout`]), apply, report. Judging and deciding are pure. Nothing is
//! remembered between passes but the stores and the contact with each agent, so a pass can be cut off anywhere and made
//! again.

use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::core::Status;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher;
use prometheus_client::registry::Registry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::client::{self, Clients, Outage, clients};
use crate::error::LastError;
use crate::floor::{self, FloorFile};
use crate::telemetry::{self, Addresses, Health};
use lease::{Election, Lost};
use metrics::Metrics;
use pass::pass;
pub use receiver_secrets::ReceiverSecret;
use silence::Silence;
use stores::Stores;

mod apply;
mod cache;
mod change;
mod cover;
mod fetch;
mod judge;
mod lease;
mod metrics;
mod pass;
mod receiver_secrets;
mod report;
mod silence;
mod stores;
mod world;

/// A pass is made at least this often: no watch shows that an agent fell silent.
const PERIOD: Duration = Duration::from_secs(60);
/// Changes that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// A pass that failed is made again after this, then after twice that, up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Namespace of the operator: its Secrets and its Lease, and the Secrets and ConfigMaps that Setups name.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this controller among those of the cluster: the name of its pod. No two may share one.
    #[arg(long, env = "POD_NAME")]
    pub identity: String,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8080")]
    pub metrics_listen: std::net::SocketAddr,
    #[command(flatten)]
    pub secure: telemetry::secure::SecureArgs,
    /// Address of the Service default/kubernetes, which no sink may be.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true, value_name = "ADDRESS")]
    pub api_server: Option<std::net::IpAddr>,
    /// The floor, which no Setup can weaken. Read again when it changes; without it the defaults apply.
    #[arg(long, value_name = "FILE")]
    pub floor: Option<std::path::PathBuf>,
    /// Secrets to create for the chart's receiver: audit-receiver-tls, audit-receiver-token, both or none.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SECRETS")]
    pub receiver_secrets: Vec<ReceiverSecret>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot create a client for the Kubernetes API")]
    Client(#[source] Box<kube::Error>),
    #[error(transparent)]
    Floor(#[from] floor::Error),
    #[error(transparent)]
    Serve(#[from] telemetry::ServeError),
    /// A request that failed.
    #[error("cannot {step} {object}")]
    Request {
        step: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// A request that the API server refused.
    #[error("cannot {step} {object}")]
    Refused {
        step: &'static str,
        object: String,
        #[source]
        source: Box<Status>,
    },
    /// A watch that has not shown all objects yet, or has not shown their changes for long.
    #[error("the watch of {kind} does not show the current objects")]
    Watch {
        kind: String,
        /// So long that it is not an outage: without the API this controller would not lead any more.
        lasts: bool,
        #[source]
        source: Option<Arc<watcher::Error>>,
    },
}

impl Error {
    /// For `map_err`: the step and its object.
    fn request(step: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |error| match error {
            // kube's own text of a refusal repeats it.
            kube::Error::Api(source) if !client::is_outage_status(&source) => Self::Refused { step, object, source },
            error => Self::Request { step, object, source: Box::new(error) },
        }
    }

    /// Whether the API is away, and not the request wrong.
    fn is_outage(&self) -> bool {
        match self {
            Error::Client(source) | Error::Request { source, .. } => client::is_outage(source),
            Error::Watch { lasts, source, .. } => {
                !lasts && source.as_ref().is_some_and(|source| cache::is_outage(source))
            }
            Error::Floor(_) | Error::Serve(_) | Error::Refused { .. } => false,
        }
    }

    /// The outcome of a pass that failed with it, as the label of a metric.
    fn reason(&self) -> &'static str {
        if self.is_outage() { "outage" } else { "error" }
    }
}

/// The means of a pass.
struct Context {
    client: Client,
    /// The client of the watches.
    watches: Client,
    namespace: String,
    floor: FloorFile,
    api_server: Option<std::net::IpAddr>,
    recorder: Recorder,
    outage: Outage,
    metrics: Metrics,
    health: Health,
}

/// Runs until it is stopped.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let mut registry = Registry::default();
    let clients = clients(&mut registry).await.map_err(|error| Error::Client(Box::new(error)))?;
    let Clients { requests: client, watches } = clients;
    let reporter = Reporter { controller: api::FIELD_MANAGER.into(), instance: Some(args.identity.clone()) };
    let mut election = Election::new(client.clone(), &args.namespace, args.identity);
    let context = Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        watches,
        namespace: args.namespace,
        floor: FloorFile::open(args.floor)?,
        api_server: args.api_server,
        outage: Outage::new(),
        metrics: Metrics::new(&mut registry),
        health: Health::begin(),
    };

    let addresses = Addresses { plain: args.metrics_listen, secure: args.secure };
    let (health, client) = (context.health.clone(), context.client.clone());
    let served = telemetry::serve(addresses, registry, health, client, stop.clone());
    // Both end with `stop`; only the server can end otherwise, with an error at the start.
    tokio::try_join!(served.map_err(Error::from), async {
        campaign(&context, &args.receiver_secrets, &mut election, &stop).await;
        Ok(())
    })?;
    Ok(())
}

/// Takes part in the election, and works while elected.
async fn campaign(context: &Context, secrets: &[ReceiverSecret], election: &mut Election, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = election.win(&context.outage, &context.health) => {}
        }
        tracing::info!("leading");
        context.metrics.leads(true);
        let mut stores = Stores::begin(context.watches.clone(), &context.namespace);
        let (shown, changes) = (stores.secrets.clone(), stores.changes_of_secrets());
        // Polled in this order: when the leadership is lost, the work is dropped at its next await and does nothing
        // more.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            lost = election.hold(&context.outage) => match lost {
                Lost::Lapsed => tracing::info!("the leadership lapsed"),
                Lost::Taken => tracing::warn!("another controller took the leadership"),
            },
            () = lead(context, &mut stores) => {}
            never = receiver_secrets::keep(context, &shown, changes, secrets) => match never {},
        }
        context.metrics.leads(false);
    }
    election.release().await;
}

/// Makes pass after pass. Ends only by being dropped.
async fn lead(context: &Context, stores: &mut Stores) {
    let mut changes = stores.changes();
    let mut silence = Silence::default();
    let mut retry = RETRY_MIN;
    let mut last_error = LastError::default();
    loop {
        // A change during the pass wakes the next one.
        changes.mark_unchanged();
        let made = pass(context, stores, &mut silence).await;
        context.health.passed();
        match made {
            Ok(wake) => {
                context.health.ready();
                context.metrics.passed("ok");
                retry = RETRY_MIN;
                last_error.clear();
                tokio::select! {
                    _ = changes.changed() => {}
                    () = sleep(wake.unwrap_or(PERIOD).min(PERIOD)) => {}
                }
                sleep(DEBOUNCE).await;
            }
            Err(error) => {
                context.metrics.passed(error.reason());
                if error.is_outage() {
                    context.outage.failed(&error);
                } else if let Some(error) = last_error.changed(&error) {
                    tracing::warn!(error, "pass failed; retrying");
                }
                sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the controller passes `now` to the pure parts")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
