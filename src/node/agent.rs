//! The agent: brings its own node to what its `NodeAudit` asks for, and reports.
//!
//! *Flow.* look at kube-apiserver -> read the NodeAudit -> fetch the Revision -> observe -> plan -> stage -> (guard) -> probe the sinks -> report. A turn is taken
//! whenever the NodeAudit changes, five times a second while a change is under way, and every quarter of a minute otherwise.
//! *Assumptions.* The Kubernetes API may be away at any moment, above all during a change of this very node: a turn that
//! cannot reach it is simply taken again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryFutureExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::files::{self, Host};
use super::metrics::Metrics;
use super::report::{Known, differs, report};
use super::sinks::{Found, Sinks};
use super::state::{self, State};
use super::{STATE_DIR, guard, keep_files, observe, probe, process, remove_unused, stage};
use crate::api::{CredentialsRef, NodeAudit, NodeAuditSpec, NodeAuditStatus, Reason};
use crate::client::{self, Clients, Outage, clients, is_outage};
use crate::error::LastError;
use crate::floor::{self, Floor, FloorFile};
use crate::journal::{Cause, Journal, Stage};
use crate::plan::{self, Desired, GUARD_MANIFEST, Idle, Plan, Refusal};
use crate::revision::{Digest, Revision, credential, secret};
use crate::sink::target::targets;
use crate::telemetry::{self, Health};
use crate::validate;

/// Between turns while a change is under way.
const BUSY: Duration = Duration::from_millis(200);
/// After a turn that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Between turns otherwise: the interval of the canary and of the search for drift.
const IDLE: Duration = Duration::from_secs(15);
/// The status is written at least this often, so that the controller can tell a silent agent.
const HEARTBEAT: Duration = Duration::from_secs(45);
/// How long the guard's container may take to start. Its image is the agent's own and lies on the node.
const GUARD_TIMEOUT_MS: u64 = 120_000;

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
    /// Where the file system of the host lies.
    #[arg(long, default_value = "/host", value_name = "DIR")]
    pub host_root: PathBuf,
    /// Image of the guard: this program's own.
    #[arg(long, value_name = "IMAGE")]
    pub guard_image: String,
    /// The floor: what no Revision can weaken, whoever wrote it. Read again when it changes; without it the defaults hold.
    #[arg(long, value_name = "FILE")]
    pub floor: Option<PathBuf>,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, default_value = "127.0.0.1:9446", value_name = "ADDRESS")]
    pub metrics_listen: std::net::SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Root(#[from] files::RootError),
    #[error("cannot read {what}")]
    Fetch {
        what: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot write the status of NodeAudit {node}")]
    Report {
        node: String,
        #[source]
        source: kube::Error,
    },
    #[error("cannot make a client of the Kubernetes API")]
    Client(#[source] kube::Error),
    #[error("{STATE_DIR} was removed under this program; it ends, so that the kubelet starts it with a new one")]
    StateRemoved,
    #[error("{0} was removed under this program; it ends, so that the kubelet starts it with a new one")]
    LogDirectoryRemoved(String),
    #[error(transparent)]
    Floor(#[from] floor::Error),
    #[error(transparent)]
    Serve(#[from] telemetry::ServeError),
}

/// Runs until `stop`.
pub async fn run(args: Args, stop: CancellationToken) -> Result<(), Error> {
    let Clients { requests, watches } = clients().await.map_err(Error::Client)?;
    let wanted = watch_node_audit(watches, &args.node_name, stop.clone());
    let mut registry = Registry::default();
    let mut agent = Agent {
        metrics: Metrics::new(&mut registry),
        health: Health::begin(),
        state: State::new(Host::of_mounts(&args.host_root)?),
        nodes: Api::all(requests.clone()),
        secrets: Api::namespaced(requests, &args.namespace),
        revision: None,
        judged: None,
        credentials: None,
        reported: None,
        ready: None,
        sinks: Sinks::default(),
        probed: None,
        outage: Outage::new(),
        floor: FloorFile::open(args.floor.clone())?,
        args,
    };
    let served = telemetry::serve(agent.args.metrics_listen, registry, agent.health.clone(), stop.clone());
    // Both end with `stop`; only the server can end otherwise, with an error at the start.
    tokio::try_join!(served.map_err(Error::from), agent.run(wanted, &stop))?;
    Ok(())
}

/// An API server that is ready.
struct Ready {
    begun: Instant,
    /// The same by the wall clock.
    since: Timestamp,
}

impl Ready {
    /// By how much the wall clock may leave the steady one before the moment is told anew.
    const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

    fn go_on(before: Option<Self>, now: Timestamp) -> Self {
        let Some(Self { begun, since }) = before else { return Self { begun: Instant::now(), since: now } };
        let by_steady = now - begun.elapsed();
        let is_off = since.duration_since(by_steady).abs() > Self::TOLERANCE;
        Self { begun, since: if is_off { by_steady } else { since } }
    }
}

/// The NodeAudit of this node, as far as it was seen.
#[derive(Clone, Default)]
struct Wanted {
    /// Whether the API has told what there is, be it nothing.
    is_known: bool,
    node_audit: Option<NodeAudit>,
}

/// The newest state of this node's NodeAudit.
fn watch_node_audit(client: Client, node: &str, stop: CancellationToken) -> watch::Receiver<Wanted> {
    let (sender, receiver) = watch::channel(Wanted::default());
    let config = client::watch_config().fields(&format!("metadata.name={node}"));
    tokio::spawn(async move {
        let mut events = watcher(Api::<NodeAudit>::all(client), config).backoff(super::retry()).boxed();
        // A NodeAudit that went while the watch was broken is told by its absence in the list.
        let mut is_listed = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    is_listed = true;
                    sender.send_replace(Wanted { is_known: true, node_audit: Some(object) });
                }
                Some(Ok(watcher::Event::Delete(_))) => {
                    sender.send_replace(Wanted { is_known: true, node_audit: None });
                }
                Some(Ok(watcher::Event::Init)) => is_listed = false,
                Some(Ok(watcher::Event::InitDone)) if is_listed => {}
                Some(Ok(watcher::Event::InitDone)) => {
                    sender.send_replace(Wanted { is_known: true, node_audit: None });
                }
                // The watch is taken up again by itself; a turn that needs the API says so.
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch of the NodeAudit");
                }
                None => return,
            }
        }
    });
    receiver
}

struct Agent {
    args: Args,
    metrics: Metrics,
    health: Health,
    state: State,
    nodes: Api<NodeAudit>,
    secrets: Api<Secret>,
    /// The Revision that was fetched last: it never changes.
    revision: Option<Revision>,
    /// It may run, by this floor.
    judged: Option<(Digest, Floor)>,
    /// The credentials that lie on the node, and the Revision that they are of.
    credentials: Option<(CredentialsRef, Digest)>,
    /// What was reported last, and when.
    reported: Option<(NodeAuditStatus, Instant)>,
    /// `None` while kube-apiserver is not ready.
    ready: Option<Ready>,
    sinks: Sinks,
    /// What the last probe of the sinks found, and when.
    probed: Option<(Found, Instant)>,
    outage: Outage,
    floor: FloorFile,
}

impl Agent {
    async fn run(&mut self, mut wanted: watch::Receiver<Wanted>, stop: &CancellationToken) -> Result<(), Error> {
        let mut last_error = LastError::default();
        loop {
            if !self.state.is_there() {
                return Err(Error::StateRemoved);
            }
            let Wanted { is_known, node_audit } = wanted.borrow_and_update().clone();
            let log = self.revision.as_ref().and_then(|revision| revision.content.log.as_ref());
            if let Some(removed) = self.state.removed_log_directory(log.map(|log| log.path.as_str()).into_iter()) {
                return Err(Error::LogDirectoryRemoved(removed.into()));
            }
            let turn = self.turn(node_audit.as_ref()).await;
            self.health.passed();
            self.metrics.turned(turn.as_ref().err());
            let pause = match turn {
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
                        tracing::warn!(error, "this turn failed and is taken again and again");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                _ = wanted.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.leave(&wanted.borrow())
    }

    /// Removes what we keep on a node that has nothing of ours and shall have nothing: nobody may start this program here again.
    fn leave(&self, wanted: &Wanted) -> Result<(), Error> {
        let Wanted { is_known, node_audit } = wanted;
        let wants_nothing = node_audit.as_ref().is_none_or(|node_audit| node_audit.spec.revision.is_none());
        let Some(locked) = self.state.try_lock()?.filter(|_| *is_known && wants_nothing) else { return Ok(()) };
        let journal = locked.journal()?;
        let is_free = self.facts().is_some_and(|facts| facts.revision.is_none())
            && journal.confirmed.is_none()
            && journal.unconfirmed().is_none();
        if is_free {
            tracing::info!("nothing of ours is on this node, nor wanted: our own files are removed");
            super::leave(locked)?;
        }
        Ok(())
    }

    /// One turn. Returns whether the next one is due soon.
    async fn turn(&mut self, node_audit: Option<&NodeAudit>) -> Result<bool, Error> {
        // First: what follows may wait for an API that is away.
        self.look_at_api_server().await;
        let settled = self.settle();
        let Some(node_audit) = node_audit else {
            settled?;
            self.metrics.clear();
            return Ok(self.state.journal()?.unconfirmed().is_some());
        };
        let spec = &node_audit.spec;
        let planned = match settled {
            Ok(()) => self.bring_about(spec).await,
            // Told in status: without our state nothing can be done here until a person has looked.
            Err(Error::State(error)) => Err(Failed::Refused(unusable(&error))),
            Err(Error::File(error)) => Err(Failed::Refused(unusable(&error.into()))),
            Err(error) => Err(Failed::Retry(error)),
        };
        // One that cannot be read is what was refused.
        let journal = self.state.journal().unwrap_or_default();
        let is_busy = journal.unconfirmed().is_some();
        let planned = match planned {
            Ok(plan) => Ok(plan),
            Err(Failed::Refused(refusal)) => Err(refusal),
            // Without the API there is nobody to report to either.
            Err(Failed::Retry(error)) => return Err(error),
        };
        if !is_busy {
            self.probe(spec, &journal).await;
        }
        let probed = self.probed.as_ref().map(|(found, _)| found);
        let known = Known {
            spec,
            generation: node_audit.metadata.generation,
            journal: &journal,
            plan: planned.as_ref().map_err(Clone::clone),
            api_server_version: probed.and_then(|found| found.api_server_version.clone()),
            ready_since: self.ready.as_ref().map(|ready| ready.since),
            credentials: self.credentials.as_ref().map(|(credentials, _)| credentials.clone()),
            sinks: probed.map(|found| found.sinks.clone()).unwrap_or_default(),
        };
        let old = self
            .reported
            .as_ref()
            .map(|(status, _)| status)
            .or(node_audit.status.as_ref())
            .cloned()
            .unwrap_or_default();
        let status = report(&known, &old, process::clock().wall);
        self.metrics.observe(&known, &status);
        let is_settling = matches!(known.plan, Ok(Plan::Nothing(Idle::Settling { .. })));
        self.write(&old, status).await?;
        Ok(is_busy || is_settling)
    }

    /// Brings the node nearer to what it shall have, and says what there was to do.
    async fn bring_about(&mut self, spec: &NodeAuditSpec) -> Result<Plan, Failed> {
        let floor = self.floor.current();
        let revision = match &spec.revision {
            Some(name) => match self.fetch_revision(name, spec.revision_digest.as_deref(), &floor).await {
                Err(Failed::Refused(refusal)) if self.runs(name) => return Ok(Plan::Nothing(Idle::LeftAlone(refusal))),
                fetched => Some(fetched?),
            },
            None => None,
        };
        // Credentials first: a kubeconfig that names a file which is not there stops kube-apiserver. Not on the way back: they lie there, and
        // their Secret may be gone.
        if let Some(revision) = &revision {
            self.place_credentials(spec, revision).await?;
        }
        self.take_up_setup(spec).map_err(|error| Failed::Refused(unusable(&error)))?;
        let host = self.state.host.clone();
        let content = revision.as_ref().map(|revision| &revision.content);
        let observed = observe(&host, content).map_err(|refusal| {
            Failed::Refused(Refusal { reason: refusal.reason(), message: crate::error::chain(&refusal).to_string() })
        })?;
        let desired = Desired {
            revision: revision.clone(),
            setup_generation: Some(spec.setup_generation),
            rollout: spec.rollout.clone(),
            floor,
            may_change: spec.may_change,
            guard: Some(self.guard_template()),
        };
        let plan = plan::plan(&desired, &observed);
        if let Plan::Change(steps) = &plan {
            // Nobody else writes while the lock is held; who holds it now is about to finish.
            let Some(locked) = self.state.try_lock().map_err(Error::State)? else { return Ok(plan) };
            tracing::info!(target = %plan::name(steps.change.target.as_ref()), "staging a change");
            stage(&locked, steps).map_err(|error| Failed::Refused(unusable(&error)))?;
        } else if plan == Plan::Nothing(Idle::AsDesired) {
            let Some(locked) = self.state.try_lock().map_err(Error::State)? else { return Ok(plan) };
            if let Some(revision) = &revision {
                keep_files(&locked, revision).map_err(|error| Failed::Refused(unusable(&error.into())))?;
            }
            let mut journal = locked.journal().map_err(Error::State)?;
            if revision.is_none() && journal.confirmed.is_some() {
                // Somebody else has put a manifest of their own in the place of ours.
                journal.let_go();
                locked.record(&journal).and_then(|()| locked.forget(plan::ORIGINAL)).map_err(Error::State)?;
            }
            remove_unused(&locked, revision.as_ref()).map_err(Error::File)?;
        }
        Ok(plan)
    }

    /// Before the plan, which looks at what failed. Not while a change is under way: it is of the Setup before.
    fn take_up_setup(&self, spec: &NodeAuditSpec) -> Result<(), state::Error> {
        let Some(uid) = &spec.setup_uid else { return Ok(()) };
        if self.state.journal()?.setup_uid.as_ref() == Some(uid) {
            return Ok(());
        }
        let Some(locked) = self.state.try_lock()? else { return Ok(()) };
        let mut journal = locked.journal()?;
        if journal.unconfirmed().is_none() {
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
        journal.confirmed.is_some_and(|confirmed| confirmed.revision.as_str() == name)
            && journal.change.is_none_or(|change| change.stage.is_final())
    }

    /// Reads the Revision, and judges it: the controller is not believed. What it names itself counts for nothing; what runs is left
    /// alone until a Revision is found that may run.
    async fn fetch_revision(&mut self, name: &str, digest: Option<&str>, floor: &Floor) -> Result<Revision, Failed> {
        let refused = |reason, message| Failed::Refused(Refusal { reason, message });
        let Some(digest) = digest else {
            let message = "the NodeAudit has no revisionDigest; a controller of this version writes it".to_string();
            return Err(refused(Reason::RevisionUnreadable, message));
        };
        let is_known = |known: &&Revision| known.id.as_str() == name && known.digest.as_str() == digest;
        let revision = match self.revision.as_ref().filter(is_known) {
            Some(known) => known.clone(),
            None => {
                let secret_name = secret::revision_name(name);
                let what = format!("the Secret {secret_name}");
                let found = self.secrets.get(&secret_name).await;
                let found = found.map_err(|source| Error::Fetch { what: what.clone(), source })?;
                let data: BTreeMap<String, Vec<u8>> =
                    found.data.unwrap_or_default().into_iter().map(|(key, ByteString(bytes))| (key, bytes)).collect();
                secret::from_data_of(&data, name, digest).map_err(|error| {
                    let message = format!(
                        "{what} does not hold the Revision that the NodeAudit names: {}; nothing on the node was changed. If somebody wrote it by \
                         hand, delete it, and the controller writes it again",
                        crate::error::chain(&error)
                    );
                    refused(Reason::RevisionUnreadable, message)
                })?
            }
        };
        // Again whenever the floor changes: it may have risen.
        if self.judged.as_ref().is_some_and(|(judged, by)| *judged == revision.digest && by == floor) {
            return Ok(revision);
        }
        if let Err(problems) = validate::judge(&revision.content, floor) {
            // Whoever forged it may have made them many and long.
            let problems: Vec<String> =
                problems.iter().take(8).map(|problem| shortened(&problem.to_string())).collect();
            let message = format!(
                "revision {name} may not run on this node: {}; nothing on the node was changed",
                problems.join("; ")
            );
            return Err(refused(Reason::RevisionUnreadable, message));
        }
        self.judged = Some((revision.digest.clone(), floor.clone()));
        self.revision = Some(revision.clone());
        Ok(revision)
    }

    /// Puts the credentials of a Revision where kube-apiserver reads them: those that it names, and only where all of them can be read.
    /// Others stay: the Revision that runs may need them.
    async fn place_credentials(&mut self, spec: &NodeAuditSpec, revision: &Revision) -> Result<(), Failed> {
        let refused = |message| Failed::Refused(Refusal { reason: Reason::RevisionUnreadable, message });
        let Some(wanted) = &spec.credentials else {
            // Without them kube-apiserver would not start.
            let missing = |path: &credential::Path| self.state.host.metadata(&path.on_node()).is_err();
            return match revision.credentials().iter().find(|path| missing(path)) {
                Some(path) => Err(refused(format!("the NodeAudit names no Secret for {}", path.on_node()))),
                None => Ok(()),
            };
        };
        if self.credentials.as_ref() == Some(&(wanted.clone(), revision.digest.clone())) {
            return Ok(());
        }
        // No other Secret is read, whoever names it.
        if wanted.name != secret::credentials_name(&spec.setup) {
            let message =
                format!("the NodeAudit names the Secret {:?} for credentials, which no controller does", wanted.name);
            return Err(refused(message));
        }
        let what = format!("the Secret {}", wanted.name);
        let found = self.secrets.get(&wanted.name).await;
        let found = found.map_err(|source| Error::Fetch { what: what.clone(), source })?;
        if found.type_.as_deref() != Some(secret::CREDENTIALS_TYPE) {
            return Err(refused(format!(
                "{what} is not of the type {}, which a controller gives it",
                secret::CREDENTIALS_TYPE
            )));
        }
        let mut data = found.data.unwrap_or_default();
        let mut files = BTreeMap::new();
        for path in revision.credentials() {
            let Some(ByteString(bytes)) = data.remove(&secret::credential_key(&path)) else {
                return Err(refused(format!("{what} has no {} for revision {}", path.file(), revision.id)));
            };
            files.insert(path, bytes);
        }
        validate::judge_credentials(&files).map_err(|why| {
            refused(format!("{what} cannot be used, and the credentials on the node stay as they are: {why}"))
        })?;
        for (path, bytes) in &files {
            self.state.host.make_directory(&path.directory.path(), 0o700).map_err(Error::File)?;
            if self.state.host.replace(&path.on_node(), bytes, 0o600).map_err(Error::File)? {
                tracing::info!(file = path.on_node(), "credential replaced");
            }
        }
        self.credentials = Some((wanted.clone(), revision.digest.clone()));
        Ok(())
    }

    /// Ends what a change leaves behind: the guard's manifest, and a change whose guard never started. And gives a change its
    /// guard that has none, because this program was stopped before it wrote one, or somebody removed it.
    fn settle(&self) -> Result<(), Error> {
        let journal = self.state.journal()?;
        let has_guard = self.state.host.read(GUARD_MANIFEST)?.is_some();
        let Some(change) = &journal.change else {
            // The journal was lost under a guard, which has nothing to go by any more.
            let locked = if has_guard { self.state.try_lock()? } else { None };
            return locked.map_or(Ok(()), |locked| Ok(locked.host.remove(GUARD_MANIFEST)?));
        };
        let never_began = change.stage == Stage::Staged
            && process::clock().ms_since(&change.staged) > GUARD_TIMEOUT_MS + guard_wait_ms(&journal);
        if !change.stage.is_final() && !has_guard && !never_began {
            // Whoever holds the lock is the guard, as `audit-operator apply` is.
            let Some(locked) = self.state.try_lock()? else { return Ok(()) };
            // It may have come to its end since the journal was read.
            if let Some(change) = locked.journal()?.unconfirmed() {
                let guard = plan::guard_manifest(&self.guard_template(), change.number);
                locked.host.replace(GUARD_MANIFEST, guard.as_bytes(), 0o600)?;
            }
            return Ok(());
        }
        if !(change.stage.is_final() && has_guard || never_began) {
            return Ok(());
        }
        // A guard that runs holds the lock until it has finished.
        let Some(locked) = self.state.try_lock()? else { return Ok(()) };
        let mut journal = locked.journal()?;
        if never_began && journal.unconfirmed().is_some_and(|change| change.stage == Stage::Staged) {
            let number = journal.changes;
            let message = if has_guard {
                format!("the guard's container did not start; see the pod audit-operator-guard-{number} in kube-system")
            } else {
                format!(
                    "{GUARD_MANIFEST} could not be written; is its directory read-only, immutable or on a full disk?"
                )
            };
            let cause = Cause { reason: Reason::GuardDidNotStart, message, last_words: None };
            journal.finish(Stage::Abandoned, Some(cause), process::clock().wall);
            locked.record(&journal)?;
        }
        // A guard that was stopped after the verdict may not have come to it.
        if let Some(change) = journal.change.as_ref().filter(|change| change.stage.is_final()) {
            guard::tidy(&locked, change)?;
        }
        Ok(locked.host.remove(GUARD_MANIFEST)?)
    }

    /// Probes the sinks, once an interval. Only a node that runs the wanted Revision can be asked whether it delivers.
    async fn probe(&mut self, spec: &NodeAuditSpec, journal: &Journal) {
        let runs_wanted =
            journal.confirmed.as_ref().map(|confirmed| confirmed.revision.as_str()) == spec.revision.as_deref();
        if self.probed.as_ref().is_some_and(|(_, at)| at.elapsed() < IDLE - BUSY) && runs_wanted {
            return;
        }
        let Some(facts) = self.facts() else { return };
        // From the Revision that was judged, and from nothing else that a NodeAudit may say.
        let runs = self.revision.as_ref().filter(|it| runs_wanted && Some(it.id.as_str()) == spec.revision.as_deref());
        let targets = runs.map_or(Vec::new(), |revision| targets(revision, &spec.sinks));
        let canary = spec.canary && runs.is_some();
        let (host, endpoint) = (&self.state.host, plan::endpoint(&facts));
        let found = self.sinks.probe(host, &self.args.node_name, &targets, canary, &endpoint).await;
        self.metrics.probed(&found.sinks);
        self.probed = Some((found, Instant::now()));
    }

    async fn look_at_api_server(&mut self) {
        let endpoint = self.facts().map(|facts| plan::endpoint(&facts));
        let is_ready = match &endpoint {
            Some(endpoint) => probe::is_serving(endpoint).await,
            None => false,
        };
        self.ready = is_ready.then(|| Ready::go_on(self.ready.take(), process::clock().wall));
    }

    /// What the manifest says, where it can be read.
    fn facts(&self) -> Option<static_pod::Facts> {
        let bytes = self.state.manifest().ok().flatten()?;
        static_pod::read(&String::from_utf8_lossy(&bytes)).ok()
    }

    async fn write(&mut self, old: &NodeAuditStatus, status: NodeAuditStatus) -> Result<(), Error> {
        let is_fresh = self.reported.as_ref().is_some_and(|(_, at)| at.elapsed() < HEARTBEAT);
        if is_fresh && !differs(old, &status) {
            return Ok(());
        }
        let node = &self.args.node_name;
        let patch = serde_json::json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": node}, "status": status,
        });
        let params = PatchParams::apply(&format!("audit-agent-{node}")).force();
        let patched = self.nodes.patch_status(node, &params, &Patch::Apply(&patch)).await;
        patched.map_err(|source| Error::Report { node: node.clone(), source })?;
        self.outage.answered();
        if old.phase != status.phase {
            tracing::info!(phase = ?status.phase, message = status.message, "reported");
        }
        self.reported = Some((status, Instant::now()));
        Ok(())
    }
}

/// Why a turn did not come to a plan.
enum Failed {
    /// The node cannot be changed as it is: said in status.
    Refused(Refusal),
    /// To be tried again.
    Retry(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Retry(error)
    }
}

/// Why our state on the node cannot be used.
fn unusable(error: &state::Error) -> Refusal {
    let reason = match error {
        state::Error::File(error) => error.reason(),
        _ => Reason::FileError,
    };
    Refusal { reason, message: crate::error::chain(error).to_string() }
}

/// For a status that everybody reads.
fn shortened(message: &str) -> String {
    const MAX_CHARS: usize = 300;
    let mut short: String = message.chars().take(MAX_CHARS).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

/// The guard itself waits for an API server that serves before it begins.
fn guard_wait_ms(journal: &Journal) -> u64 {
    journal
        .change
        .as_ref()
        .map_or(0, |change| u64::try_from(change.rollout.confirm_timeout_seconds).unwrap_or(0) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_told_by_a_clock_that_jumps() {
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let ready = Ready::go_on(None, noon);
        assert_eq!(ready.since, noon);
        // A clock that is slewed does not make the moment another one.
        let ready = Ready::go_on(Some(ready), noon + SignedDuration::from_secs(1));
        assert_eq!(ready.since, noon);
        for hours in [1, -1] {
            let now = noon + SignedDuration::from_hours(hours);
            let ready = Ready::go_on(Some(Ready { begun: ready.begun, since: noon }), now);
            assert!(now.duration_since(ready.since) < SignedDuration::from_secs(30), "{hours}: {}", ready.since);
        }
    }
}
