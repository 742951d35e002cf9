//! The agent: brings its own node to the target that its `NodeAudit` assigns, and reports.
//!
//! *Flow.* look at kube-apiserver -> read the NodeAudit -> fetch the Revision -> observe -> plan -> stage -> (guard) ->
//! probe the sinks -> report. A pass is made whenever the NodeAudit changes, five times a second while a Change is in
//! progress, and every 16 seconds otherwise. *Assumptions.* The Kubernetes API may be unavailable at any moment, above
//! all during a Change of this very node: a pass that cannot reach it is repeated.

mod assignment;
mod cadence;
mod credentials;
mod error;
mod fetch;
mod ready;
mod settle;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::TryFutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::Host;
use super::metrics::Metrics;
use super::probe::Prober;
use super::report::{Pass, differs, report};
use super::sinks::{Assigned, Watch};
use super::state::{self, State};
use super::{keep_files, observe, process, remove_unused, stage};
use crate::api::{CredentialsRef, NodeAudit, NodeAuditSpec, NodeAuditStatus};
use crate::client::{Clients, Outage, clients, is_outage};
use crate::error::LastError;
use crate::floor::{Floor, FloorFile};
use crate::health::target::{Backend, SinkTarget, targets};
use crate::health::way::Way;
use crate::heartbeat;
use crate::journal::{Endpoint, Journal};
use crate::plan::{self, Desired, GuardKind, Idle, Plan, Requester};
use crate::revision::{Digest, Revision};
use crate::telemetry::{self, Addresses, Health};
use assignment::{Assignment, watch_node_audit};
use cadence::{Answers, IDLE, is_due};
pub use error::Error;
use error::Failed;
use ready::Ready;
pub(super) use settle::settle;

/// Between passes while a Change is in progress.
const BUSY: Duration = Duration::from_millis(200);
/// After a pass that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The Lease is renewed at least this often, so that the controller can detect a silent agent.
const HEARTBEAT: Duration = Duration::from_secs(45);

const GUARD_POD: &str = include_str!("guard_pod.yaml");

/// Arguments of `audit-operator agent`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of the node that this agent runs on.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Root of the host's file system.
    #[arg(long, default_value = "/host", value_name = "DIR")]
    pub host_root: PathBuf,
    /// Image of the guard: the agent's own.
    #[arg(long, value_name = "IMAGE")]
    pub guard_image: String,
    /// The floor, which no Revision can weaken, no matter who wrote it. Read again when it changes; without it the
    /// defaults apply.
    #[arg(long, value_name = "FILE")]
    pub floor: Option<PathBuf>,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, default_value = "127.0.0.1:9446", value_name = "ADDRESS")]
    pub metrics_listen: std::net::SocketAddr,
    #[command(flatten)]
    pub secure: telemetry::secure::SecureArgs,
}

/// Runs until `stop`.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let mut registry = Registry::default();
    let Clients { requests, watches } = clients(&mut registry).await.map_err(Error::Client)?;
    let assignment = watch_node_audit(watches, &args.node_name, stop.clone());
    let metrics = Metrics::new(&mut registry);
    let state = State::new(Host::of_mounts(&args.host_root)?);
    let looked = metrics.clone();
    let sinks = Watch::begin(state.clone(), args.node_name.clone(), move |sinks| looked.looked(sinks));
    let mut agent = Agent {
        metrics,
        health: Health::begin(),
        state,
        nodes: Api::all(requests.clone()),
        leases: Api::namespaced(requests.clone(), &args.namespace),
        secrets: Api::namespaced(requests.clone(), &args.namespace),
        revision: None,
        judged: None,
        credentials: None,
        reported: None,
        renewed: None,
        renewal_error: LastError::default(),
        prober: Prober::default(),
        proven: None,
        ready: None,
        sinks,
        outage: Outage::new(),
        floor: FloorFile::open(args.floor.clone())?,
        args,
    };
    let addresses = Addresses { plain: agent.args.metrics_listen, secure: agent.args.secure.clone() };
    let served = telemetry::serve(addresses, registry, agent.health.clone(), requests, stop.clone());
    // Both end with `stop`; only the server can end otherwise, with an error at the start.
    tokio::try_join!(served.map_err(Error::from), agent.run(assignment, &stop))?;
    Ok(())
}

struct Agent {
    args: Args,
    metrics: Metrics,
    health: Health,
    state: State,
    nodes: Api<NodeAudit>,
    leases: Api<Lease>,
    secrets: Api<Secret>,
    /// The Revision that was fetched last: it never changes.
    revision: Option<Revision>,
    /// The Revision that may run, and the floor that permits it.
    judged: Option<(Digest, Floor)>,
    /// The credentials on the node, and the Revision that they belong to.
    credentials: Option<(CredentialsRef, Digest)>,
    /// The NodeAudit as the last report made it.
    reported: Option<NodeAudit>,
    /// When the Lease was last renewed, or the renewal last failed.
    renewed: Option<Instant>,
    renewal_error: LastError,
    prober: Prober,
    /// When kube-apiserver last proved that it is ready.
    proven: Option<Instant>,
    /// `None` while kube-apiserver is not ready.
    ready: Option<Ready>,
    sinks: Watch,
    outage: Outage,
    floor: FloorFile,
}

impl Agent {
    async fn run(
        &mut self,
        mut assignment: watch::Receiver<Assignment>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut last_error = LastError::default();
        loop {
            if !self.state.is_there() {
                return Err(Error::StateRemoved);
            }
            let Assignment { is_known, node_audit } = assignment.borrow_and_update().clone();
            let log = self.revision.as_ref().and_then(|revision| revision.content.log.as_ref());
            if let Some(removed) = self.state.removed_log_directory(log.map(|log| log.path.as_str()).into_iter()) {
                return Err(Error::LogDirectoryRemoved(removed.into()));
            }
            let pass = self.pass(node_audit.as_ref()).await;
            self.health.passed();
            self.metrics.passed(pass.as_ref().err().map(Error::reason));
            let pause = match pass {
                Ok(is_busy) => {
                    last_error.clear();
                    if is_known {
                        self.health.ready();
                    }
                    if is_busy { BUSY } else { IDLE }
                }
                Err(Error::Fetch { source, .. } | Error::Report { source, .. }) if is_outage(&source) => {
                    self.outage.failed(&source);
                    RETRY
                }
                Err(error) => {
                    if let Some(error) = last_error.changed(&error) {
                        tracing::warn!(error, "pass failed; retrying");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = assignment.changed() => {}
                () = self.sinks.news() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.leave(&assignment.borrow())
    }

    /// Removes our files from a node that has nothing of ours and should have nothing: nobody may start this program
    /// here again.
    fn leave(&self, assignment: &Assignment) -> Result<(), Error> {
        let Assignment { is_known, node_audit } = assignment;
        let wants_nothing = node_audit.as_ref().is_none_or(|node_audit| node_audit.spec.revision.is_none());
        let Some(locked) = self.state.try_lock()?.filter(|_| *is_known && wants_nothing) else { return Ok(()) };
        let journal = locked.journal()?;
        let is_free = self.facts().is_some_and(|facts| facts.revision.is_none())
            && journal.confirmed.is_none()
            && journal.under_way().is_none();
        if is_free {
            tracing::info!("nothing of ours is on this node, nor should be: removing our own files");
            super::leave(locked)?;
        }
        Ok(())
    }

    /// One pass. Returns whether the next one is due soon.
    async fn pass(&mut self, node_audit: Option<&NodeAudit>) -> Result<bool, Error> {
        let facts = self.facts();
        let endpoint = facts.as_ref().map(plan::endpoint);
        // First: the next steps may wait for an API that is away.
        if self.asks_readiness(node_audit, endpoint.as_ref()) {
            self.look_at_api_server(endpoint.as_ref()).await;
        }
        let settled = settle(&self.state, &self.guard_template());
        let Some(node_audit) = node_audit else {
            settled?;
            self.sinks.assign(None);
            self.metrics.clear();
            return Ok(self.state.journal()?.under_way().is_some());
        };
        let spec = &node_audit.spec;
        let planned = match settled {
            Ok(()) => self.bring_about(spec).await,
            Err(error) => Err(error.into()),
        };
        // Without the API there is nobody to report to either.
        let plan = match planned {
            Ok(plan) => plan,
            Err(Failed::Refused(refusal)) => Plan::Refused(refusal),
            Err(Failed::Retry(error)) => return Err(error),
        };
        // If it cannot be read, the plan is that refusal.
        let journal = self.state.journal().unwrap_or_default();
        let is_busy = journal.under_way().is_some();
        self.sinks.assign(if is_busy { None } else { self.assigned(spec, &journal, facts.as_ref()) });
        let found = self.sinks.found();
        let pass = Pass {
            spec,
            generation: node_audit.metadata.generation,
            journal: &journal,
            plan: &plan,
            api_server_version: found.api_server_version,
            ready_since: self.ready.as_ref().map(|ready| ready.since),
            credentials: self.credentials.as_ref().map(|(credentials, _)| credentials.clone()),
            sinks: found.sinks,
        };
        let old = self.last_report(node_audit).cloned().unwrap_or_default();
        let status = report(&pass, &old, &process::clock());
        self.metrics.observe(&pass, &status);
        let is_settling = matches!(plan, Plan::Nothing(Idle::Settling { .. }));
        let is_new = differs(&old, &status);
        if is_new {
            self.write(&old, &status).await?;
        }
        // Where Leases are refused, the status shows that this agent runs.
        if !self.renew(node_audit).await? && !is_new {
            self.write(&old, &status).await?;
        }
        Ok(is_busy || is_settling)
    }

    /// Takes the node one step closer to its target, and returns the plan.
    async fn bring_about(&mut self, spec: &NodeAuditSpec) -> Result<Plan, Failed> {
        let floor = self.floor.current();
        let revision = match &spec.revision {
            Some(name) => match self.fetch_revision(name, spec.revision_digest.as_deref(), &floor).await {
                Err(Failed::Refused(refusal)) if self.runs(name) => return Ok(Plan::Nothing(Idle::LeftAlone(refusal))),
                fetched => Some(fetched?),
            },
            None => None,
        };
        // Credentials first: a kubeconfig that names a missing file stops kube-apiserver. Not for the original
        // manifest, which needs none: their Secret may be gone.
        if let Some(revision) = &revision {
            self.place_credentials(spec, revision).await?;
        }
        self.take_up_setup(spec)?;
        let host = self.state.host.clone();
        let content = revision.as_ref().map(|revision| &revision.content);
        let observed = observe(&host, content)?;
        let desired = Desired {
            revision: revision.clone(),
            requester: Requester::Setup { generation: spec.setup_generation, has_slot: spec.may_change },
            rollout: spec.rollout.clone(),
            floor,
            guard: GuardKind::StaticPod(self.guard_template()),
        };
        let plan = plan::plan(&desired, &observed);
        if let Plan::Change(steps) = &plan {
            // Nobody else writes while the lock is held; the program that holds it now is about to finish.
            let Some(locked) = self.state.try_lock()? else { return Ok(plan) };
            tracing::info!(target = %plan::name(steps.change.target.as_ref()), "staging a change");
            stage(&locked, steps)?;
        } else if plan == Plan::Nothing(Idle::AsDesired) {
            let Some(locked) = self.state.try_lock()? else { return Ok(plan) };
            if let Some(revision) = &revision {
                keep_files(&locked, revision)?;
            }
            let mut journal = locked.journal()?;
            if revision.is_none() && journal.confirmed.is_some() {
                // Somebody else has replaced our manifest with one of their own.
                journal.let_go();
                locked.record(&journal)?;
                locked.forget(plan::ORIGINAL)?;
            }
            remove_unused(&locked, revision.as_ref())?;
        }
        Ok(plan)
    }

    /// Before the plan, which reads the failures. Not while a Change is in progress: it belongs to the Setup before.
    fn take_up_setup(&self, spec: &NodeAuditSpec) -> Result<(), state::Error> {
        let Some(uid) = &spec.setup_uid else { return Ok(()) };
        if self.state.journal()?.setup_uid.as_ref() == Some(uid) {
            return Ok(());
        }
        let Some(locked) = self.state.try_lock()? else { return Ok(()) };
        let mut journal = locked.journal()?;
        if journal.under_way().is_none() {
            journal.take_up(uid);
            locked.record(&journal)?;
        }
        Ok(())
    }

    fn guard_template(&self) -> String {
        GUARD_POD.replace("IMAGE", &serde_json::to_string(&self.args.guard_image).expect("a string"))
    }

    /// Whether the node was seen to serve with this Revision.
    fn runs(&self, name: &str) -> bool {
        let journal = self.state.journal().unwrap_or_default();
        let is_changing = journal.under_way().is_some();
        journal.confirmed.is_some_and(|confirmed| confirmed.revision.as_str() == name) && !is_changing
    }

    /// Our last report, or that of the agent before. `node_audit`: as the watch shows it, which may be older than our
    /// report; it may also be another one, or somebody may have changed its status since.
    fn last_report<'a>(&'a self, node_audit: &'a NodeAudit) -> Option<&'a NodeAuditStatus> {
        let version = |audit: &NodeAudit| audit.resource_version().and_then(|version| version.parse::<u64>().ok());
        let is_newer = |ours: &&NodeAudit| ours.uid() == node_audit.uid() && version(ours) > version(node_audit);
        self.reported.as_ref().filter(is_newer).unwrap_or(node_audit).status.as_ref()
    }

    fn asks_readiness(&mut self, node_audit: Option<&NodeAudit>, endpoint: Option<&Endpoint>) -> bool {
        let found = self.sinks.found();
        if self.ready.is_some() {
            self.proven = self.proven.max(found.canary_answered.map(Into::into));
        }
        let answers = Answers {
            ready_for: self.proven.filter(|_| self.ready.is_some()).map(|at| at.elapsed()),
            is_connected: endpoint.is_some_and(|endpoint| self.prober.is_connected(endpoint)),
            is_failing: !found.is_answered,
        };
        is_due(node_audit.and_then(|node_audit| self.last_report(node_audit)), answers, process::clock().wall)
    }

    /// What is to be watched. Sinks only on a node that runs its target.
    fn assigned(&self, spec: &NodeAuditSpec, journal: &Journal, facts: Option<&static_pod::Facts>) -> Option<Assigned> {
        let facts = facts?;
        let runs_wanted =
            journal.confirmed.as_ref().map(|confirmed| confirmed.revision.as_str()) == spec.revision.as_deref();
        // From the judged Revision only: the NodeAudit itself is not trusted.
        let runs = self.revision.as_ref().filter(|it| runs_wanted && Some(it.id.as_str()) == spec.revision.as_deref());
        let sinks = runs.map_or(Vec::new(), |revision| targets(revision, &spec.sinks));
        let with_way = |sink: SinkTarget| {
            let way = match &sink.backend {
                Backend::Webhook(webhook) => Way::of(facts, &webhook.url, webhook.proxy.as_ref()),
                Backend::Log(_) => Way::Direct(Vec::new()),
            };
            (sink, way)
        };
        Some(Assigned {
            endpoint: plan::endpoint(facts),
            ready_since: self.ready.as_ref().map(|ready| ready.since),
            sinks: sinks.into_iter().map(with_way).collect(),
            has_canary: spec.canary,
        })
    }

    async fn look_at_api_server(&mut self, endpoint: Option<&Endpoint>) {
        if !endpoint.is_some_and(|endpoint| self.prober.is_connected(endpoint)) {
            // The process may be another one: it is ready from now on.
            self.ready = None;
        }
        let is_ready = match endpoint {
            Some(endpoint) => self.prober.is_serving(endpoint).await,
            None => false,
        };
        self.proven = is_ready.then(Instant::now);
        self.ready = is_ready.then(|| Ready::continued(self.ready.take(), process::clock().wall));
    }

    /// The facts of the manifest, if it can be read.
    fn facts(&self) -> Option<static_pod::Facts> {
        let bytes = self.state.manifest().ok().flatten()?;
        static_pod::read(&String::from_utf8_lossy(&bytes)).ok()
    }

    async fn write(&mut self, old: &NodeAuditStatus, status: &NodeAuditStatus) -> Result<(), Error> {
        let node = &self.args.node_name;
        let patch = serde_json::json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": node}, "status": status,
        });
        let params = PatchParams::apply(&format!("audit-agent-{node}")).force();
        let patched = self.nodes.patch_status(node, &params, &Patch::Apply(&patch)).await;
        let patched = patched.map_err(|source| Error::Report { node: node.clone(), source })?;
        self.outage.responded();
        if old.phase != status.phase {
            tracing::info!(phase = ?status.phase, message = status.message, "reported");
        }
        self.reported = Some(patched);
        Ok(())
    }

    /// Renews the Lease when that is due: the last report is still true. Returns `false` if the API refuses it.
    async fn renew(&mut self, node_audit: &NodeAudit) -> Result<bool, Error> {
        if self.renewed.is_some_and(|at| at.elapsed() < HEARTBEAT) {
            return Ok(true);
        }
        let node = &self.args.node_name;
        let lease = heartbeat::lease(node_audit, process::clock().wall);
        let params = PatchParams::apply(&format!("audit-agent-{node}")).force();
        let renewed = match self.leases.patch(&heartbeat::name(node), &params, &Patch::Apply(&lease)).await {
            Ok(_) => {
                self.outage.responded();
                self.renewal_error.clear();
                true
            }
            Err(source) if is_outage(&source) => return Err(Error::Report { node: node.clone(), source }),
            Err(error) => {
                if let Some(error) = self.renewal_error.changed(&error) {
                    tracing::warn!(error, "cannot renew the Lease of this agent; retrying");
                }
                false
            }
        };
        self.renewed = Some(Instant::now());
        Ok(renewed)
    }
}
