//! `audit-operator controller`: Setups in, `NodeAudit`s, Secrets, status and Events out. Never touches a host.
//!
//! Of several controllers the one that holds the [`lease`] works. It makes a pass whenever something it watches changes, and
//! once a minute anyway: [`fetch`] the cluster, [`cover`] decides which Setup has which node, and for each Setup
//! [`reconcile`] validates, renders, asks [`crate::rollout`] who may change next, applies the answer and reports.
//! Nothing is remembered between passes but what the API holds, and when each agent was last [`heard`], so a pass can be cut off
//! anywhere and made again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::core::Status;
use kube::runtime::events::{Recorder, Reporter};
use prometheus_client::registry::Registry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::client::{self, Clients, Outage, clients};
use crate::error;
use crate::floor::{self, FloorFile};
use crate::telemetry::{self, Health};
use heard::Heard;
use lease::{Election, Lost};
use metrics::Metrics;
pub use receiver_secrets::ReceiverSecret;
use watch::{Watch, Watches};

mod apply;
mod change;
mod cover;
mod fetch;
mod heard;
mod lease;
mod metrics;
mod receiver_secrets;
mod reconcile;
mod report;
mod watch;

/// A pass is made at least this often, for what no watch tells: that an agent fell silent.
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
    /// Address of the Service default/kubernetes, which no sink may be.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST", hide = true, value_name = "ADDRESS")]
    pub api_server: Option<std::net::IpAddr>,
    /// The floor: what no Setup can weaken. Read again when it changes; without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    pub floor: Option<std::path::PathBuf>,
    /// Secrets to make for the receiver that the chart brings: audit-receiver-tls, audit-receiver-token, both or none.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SECRETS")]
    pub receiver_secrets: Vec<ReceiverSecret>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot set up the client of the Kubernetes API")]
    Client(#[source] Box<kube::Error>),
    #[error(transparent)]
    Floor(#[from] floor::Error),
    #[error(transparent)]
    Serve(#[from] telemetry::ServeError),
    /// A request that failed, and what it was about.
    #[error("cannot {step} {object}")]
    Request {
        step: &'static str,
        object: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// A request that was answered with a refusal.
    #[error("cannot {step} {object}")]
    Refused {
        step: &'static str,
        object: String,
        #[source]
        source: Box<Status>,
    },
}

impl Error {
    /// For `map_err`: what was tried with what.
    fn request(step: &'static str, object: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |error| match error {
            // kube's own text of a refusal holds all of it twice.
            kube::Error::Api(source) if !client::is_outage_status(&source) => Self::Refused { step, object, source },
            error => Self::Request { step, object, source: Box::new(error) },
        }
    }

    /// Whether it is the API that does not answer, and not the request that is wrong.
    fn outage(&self) -> Option<&kube::Error> {
        match self {
            Error::Client(source) | Error::Request { source, .. } if client::is_outage(source) => Some(source),
            _ => None,
        }
    }
}

/// What every step of a pass has at hand.
struct Context {
    client: Client,
    /// The client that watches wait with.
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
    let Clients { requests: client, watches } = clients().await.map_err(|error| Error::Client(Box::new(error)))?;
    let reporter = Reporter { controller: api::FIELD_MANAGER.into(), instance: Some(args.identity.clone()) };
    let mut election = Election::new(client.clone(), &args.namespace, args.identity);
    let mut registry = Registry::default();
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

    let served = telemetry::serve(args.metrics_listen, registry, context.health.clone(), stop.clone());
    // Both end with `stop`; only the server can end otherwise, with an error at the start.
    tokio::try_join!(served, async {
        campaign(&context, &args.receiver_secrets, &mut election, &stop).await;
        Ok(())
    })?;
    Ok(())
}

/// Stands for election, and works while elected.
async fn campaign(context: &Context, secrets: &[ReceiverSecret], election: &mut Election, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = election.win(&context.outage, &context.health) => {}
        }
        tracing::info!("leading");
        context.metrics.leads(true);
        // Polled in this order: when the leadership is lost, the work is dropped at its next await and does nothing more.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            lost = election.hold(&context.outage) => match lost {
                Lost::Lapsed => tracing::info!("the leadership lapsed"),
                Lost::Taken => tracing::warn!("another controller took the leadership"),
            },
            () = lead(context) => {}
            never = receiver_secrets::keep(context, secrets) => match never {},
        }
        context.metrics.leads(false);
    }
    election.release().await;
}

/// Makes pass after pass. Ends only by being dropped.
async fn lead(context: &Context) {
    let mut watches = Watches::new(context.watches.clone(), &context.namespace);
    watches.keep([Watch::Setups, Watch::NodeAudits, Watch::Secrets, Watch::ConfigMaps].into());
    let mut heard = Heard::default();
    let mut retry = RETRY_MIN;
    let mut last_error = None;
    loop {
        let made = reconcile::pass(context, &mut heard).await;
        context.health.passed();
        match made {
            Ok(pass) => {
                context.outage.answered();
                context.health.ready();
                context.metrics.reconciled("ok");
                (retry, last_error) = (RETRY_MIN, None);
                watches.keep(pass.watches);
                tokio::select! {
                    () = watches.changed() => {}
                    () = sleep(pass.wake.unwrap_or(PERIOD).min(PERIOD)) => {}
                }
                sleep(DEBOUNCE).await;
            }
            Err(error) => {
                if let Some(source) = error.outage() {
                    context.metrics.reconciled("outage");
                    context.outage.failed(source);
                } else {
                    context.metrics.reconciled("error");
                    // Once for each error, not once for each try.
                    let error = error::chain(&error);
                    if last_error.as_ref() != Some(&error) {
                        tracing::warn!(error, "a pass failed and is made again");
                    }
                    last_error = Some(error);
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
