//! A node's target and its observed state in; the complete, ordered list of changes out.
//!
//! A [`Plan`] leaves nothing to decide: [`crate::node::stage`] carries out its actions in their order, and the guard
//! carries out the Change that they record. Its `Display` is the dry run. Nothing here reads a host or a clock.

mod log;
mod recheck;

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{Reason, Rollout};
use crate::floor::Floor;
use crate::journal::{Change, Clock, Endpoint, Failure, FileName, Journal, Progress, Sha, Stage, Verdict};
use crate::render;
use crate::revision::{self, KUBECONFIG_FILE, POLICY_FILE, Revision, RevisionId};

pub use log::{LogDirectory, LogFile, LogPlace};
pub use recheck::{StagedChange, recheck};

const MIB: u64 = 1024 * 1024;

/// How long manifests must have been left alone, and kube-apiserver must have run, before a change of ours begins. A
/// kubeadm upgrade writes the next manifest once the component of the last one is back, which takes some 10 to 40 s. It
/// recognises kube-apiserver by another hash of its pod (kubernetes@v1.36.3 cmd/kubeadm/app/util/apiclient/wait.go,
/// WaitForStaticPodHashChange): a manifest of ours put there earlier would restore the old hash.
const SETTLE_SECONDS: u64 = 45;
/// The same if kube-apiserver has not started since somebody changed its manifest: a kubelet whose API server hangs
/// takes minutes to follow, and kubeadm waits five (kubernetes@v1.36.3 cmd/kubeadm/app/apis/kubeadm/timeoututils.go,
/// UpgradeManifests).
const FOLLOW_SECONDS: u64 = 300;

/// The desired state of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The target; `None`: the original manifest.
    pub revision: Option<Revision>,
    pub requester: Requester,
    pub rollout: Rollout,
    /// The floor that the Revision was judged by.
    pub floor: Floor,
    pub guard: GuardKind,
}

/// Who wants the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A person, here and now: nothing is quarantined, and nothing has to settle first.
    Person,
    /// A Setup. A Revision that failed under this generation is not tried again under it.
    Setup { generation: i64, has_slot: bool },
}

/// Where the guard runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardKind {
    /// In the process that asks for the plan.
    ThisProcess,
    /// In a static pod: its YAML, with [`GUARD_CHANGE`] in its name.
    StaticPod(String),
}

/// The state read from a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Text of the manifest.
    pub manifest: String,
    pub journal: Journal,
    /// The manifest before ours, if it was kept.
    pub original: Option<String>,
    /// Files of the last confirmed Revision, by name: a broken Revision is repaired with them.
    pub confirmed_files: BTreeMap<String, String>,
    /// Log directories of the API server's pods.
    pub pods: Vec<String>,
    /// The place of the log; `None` without a log file.
    pub log: Option<LogPlace>,
    /// Milliseconds since anybody last changed a manifest of the control plane, or kube-apiserver last started; `None`
    /// if the clock was set back since.
    pub changed_ms_ago: Option<u64>,
    /// Whether kube-apiserver has started since its manifest was last changed, as far as its logs show.
    pub has_followed: bool,
    pub now: Clock,
}

/// The result of planning.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Nothing(Idle),
    /// The node cannot be changed in its present state.
    Refused(Refusal),
    Change(Box<Steps>),
}

/// Why the plan is to do nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Idle {
    /// The node is up to date.
    AsDesired,
    /// The node runs its target, but would not accept it now: the floor has risen, or this program renders it
    /// differently. It stays as it is until it is assigned another Revision.
    LeftAlone(Refusal),
    /// A change is in progress.
    Changing,
    Paused,
    /// The node has no slot.
    NoSlot,
    /// Somebody else has just changed the manifests, and may not be done: kubeadm writes one after the other.
    Settling {
        changed_seconds_ago: u64,
        has_followed: bool,
    },
    /// The Revision failed on this node before, under this generation of the Setup.
    Quarantined(Failure),
}

/// Why a node cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

impl From<static_pod::Error> for Refusal {
    fn from(error: static_pod::Error) -> Self {
        Self { reason: (&error).into(), message: error.to_string() }
    }
}

/// The actions of the agent, and the Change that the guard then carries out.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    pub actions: Vec<Action>,
    pub change: Change,
    pub before: String,
    pub after: String,
    /// Audit flags of somebody else that are changed or removed; `restore` brings them back.
    pub taken_over: Vec<String>,
}

/// One change of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    MakeDirectory {
        path: String,
        mode: u32,
    },
    /// Write a file, unless it has that content.
    WriteFile {
        path: String,
        mode: u32,
        content: String,
    },
    /// Keep a file of our state.
    Keep {
        name: String,
        content: String,
    },
    /// Record the Change in the journal: from here on the guard has work.
    Record,
    /// Put the guard's static pod into the manifest directory.
    StartGuard {
        manifest: String,
    },
}

/// Name of the original manifest in our state.
pub const ORIGINAL: &str = "original.yaml";
/// The parts of a Change, in our state, while it is in progress.
pub const CHANGE_DIR: &str = "change";
/// Its manifests.
pub const BEFORE: &str = "change/before.yaml";
pub const AFTER: &str = "change/after.yaml";
/// A copy of the journal, with which the guard continues if the journal is lost or damaged in the middle of the Change.
pub const JOURNAL_COPY: &str = "change/journal.json";
/// The content of the Revision and the floor that it was judged by: the guard judges it again.
pub const CONTENT: &str = "change/content.json";
pub const FLOOR: &str = "change/floor.json";
/// Space for the rollback: released if the disk has filled up meanwhile.
pub const RESERVE: &str = "change/reserve";
const RESERVE_BYTES: usize = 128 * 1024;
/// Files that repair a broken Revision, by their name in it.
pub const REPAIR_DIR: &str = "change/repair";
/// The guard's static pod.
pub const GUARD_MANIFEST: &str = "/etc/kubernetes/manifests/audit-operator-guard.yaml";
/// Placeholder for the number of the Change in [`GuardKind::StaticPod`].
pub const GUARD_CHANGE: &str = "CHANGE";

/// Audits nothing: a kube-apiserver that must come up, no matter what it should record, comes up with this.
const SAFE_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n";
/// Reaches nobody, and with [`SAFE_POLICY`] has nothing to send.
const SAFE_KUBECONFIG: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: none\n  cluster:\n    server: https://127.0.0.1:9/\ncontexts:\n- name: none\n  context:\n    cluster: none\n    user: none\ncurrent-context: none\nusers:\n- name: none\n  user: {}\n";

/// Plans the way from the observed to the desired state.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    if observed.journal.under_way().is_some() {
        return Plan::Nothing(Idle::Changing);
    }
    match steps(desired, observed) {
        Err(refusal) => Plan::Refused(refusal),
        // Somebody else replaced our manifest with one of their own; the kubelet may not have followed yet.
        Ok(None) if desired.revision.is_none() && observed.journal.confirmed.is_some() => {
            Plan::Nothing(settling(desired, observed).unwrap_or(Idle::AsDesired))
        }
        Ok(None) => Plan::Nothing(Idle::AsDesired),
        Ok(Some(steps)) => match obstacle(desired, observed, &steps.change) {
            Some(idle) => Plan::Nothing(idle),
            None => Plan::Change(Box::new(steps)),
        },
    }
}

/// Why a change that is due does not begin now.
fn obstacle(desired: &Desired, observed: &Observed, change: &Change) -> Option<Idle> {
    if let Requester::Setup { generation, .. } = desired.requester
        && let Some(failure) = observed.journal.quarantine(change.target.as_ref(), generation)
    {
        return Some(Idle::Quarantined(failure.clone()));
    }
    if desired.rollout.paused {
        return Some(Idle::Paused);
    }
    if matches!(desired.requester, Requester::Setup { has_slot: false, .. }) {
        return Some(Idle::NoSlot);
    }
    // A change that is only watched writes nothing.
    settling(desired, observed).filter(|_| !change.is_in_place)
}

/// If somebody else changed a manifest too short a time ago. Our own changes need no time, nor does a person's request.
fn settling(desired: &Desired, observed: &Observed) -> Option<Idle> {
    let left = observed.journal.change.as_ref().map(|change| match change.progress {
        Progress::Ended { verdict: Verdict::Confirmed, .. } => &change.after,
        _ => &change.before,
    });
    let is_ours = left == Some(&Sha::of(observed.manifest.as_bytes()));
    if is_ours || desired.requester == Requester::Person {
        return None;
    }
    let has_followed = observed.has_followed;
    let limit = if has_followed { SETTLE_SECONDS } else { FOLLOW_SECONDS };
    let changed_seconds_ago = observed.changed_ms_ago? / 1000;
    (changed_seconds_ago < limit).then_some(Idle::Settling { changed_seconds_ago, has_followed })
}

/// The steps to the target; `None` if the node is there.
fn steps(desired: &Desired, observed: &Observed) -> Result<Option<Steps>, Refusal> {
    let base = base(observed)?;
    let Some(Manifests { before, after, taken_over }) = manifests(desired, observed, &base)? else { return Ok(None) };
    let change = change(desired, observed, &base, &before, &after)?;
    let actions = actions(desired, observed, &base, &change, &before, &after);
    Ok(Some(Steps { actions, change, before, after, taken_over }))
}

/// The manifest to start from.
struct Base {
    facts: static_pod::Facts,
    /// It has parts of ours.
    is_ours: bool,
    /// It is the last confirmed one.
    is_untouched: bool,
    /// The manifest before ours.
    original: String,
}

fn base(observed: &Observed) -> Result<Base, Refusal> {
    let facts = static_pod::read(&observed.manifest)?;
    // Without our annotation, too: a manifest that reads our files is no original.
    let is_ours = facts.revision.is_some() || observed.manifest.contains(revision::REVISIONS_DIR);
    let original = match &observed.original {
        // It has no mark of ours and so is an original itself, no matter who wrote it (a kubeadm upgrade does).
        _ if !is_ours => observed.manifest.clone(),
        Some(original) => original.clone(),
        // The original was lost: the manifest without our parts replaces it.
        None => static_pod::strip(&observed.manifest)?,
    };
    let is_untouched =
        observed.journal.confirmed.as_ref().is_some_and(|it| it.manifest == Sha::of(observed.manifest.as_bytes()));
    Ok(Base { facts, is_ours, is_untouched, original })
}

/// The two manifests of a Change.
struct Manifests {
    before: String,
    after: String,
    taken_over: Vec<String>,
}

fn manifests(desired: &Desired, observed: &Observed, base: &Base) -> Result<Option<Manifests>, Refusal> {
    let without_ours = || static_pod::remove(&observed.manifest, &base.original);
    let (after, taken_over) = match &desired.revision {
        Some(revision) => {
            check_manifest(&base.facts, revision)?;
            if let Some(place) = &observed.log {
                log::check(revision, place)?;
            }
            // Ours untouched: start from the original, so that the result does not depend on the Revisions in between.
            // Changed by somebody else: start from their text, and edit only our parts.
            let text = if base.is_untouched { &base.original } else { &observed.manifest };
            let edited = static_pod::update(text, &base.original, &render::intent(revision))?;
            (edited.text, edited.taken_over)
        }
        None if !base.is_ours => return Ok(None),
        None if base.is_untouched => (base.original.clone(), Vec::new()),
        None => (without_ours()?, Vec::new()),
    };
    if after != observed.manifest {
        return Ok(Some(Manifests { before: observed.manifest.clone(), after, taken_over }));
    }
    let confirmed = observed.journal.confirmed.as_ref().map(|it| &it.revision);
    if confirmed == desired.revision.as_ref().map(|it| &it.id) {
        return Ok(None);
    }
    // It is as desired, and nobody saw kube-apiserver serve with it: the journal was lost, or somebody edited another
    // part in the middle of a change. The guard leaves it in place and watches; the way back is a kube-apiserver
    // without us.
    Ok(Some(Manifests { before: without_ours()?, after, taken_over }))
}

fn change(desired: &Desired, observed: &Observed, base: &Base, before: &str, after: &str) -> Result<Change, Refusal> {
    let facts_before = static_pod::read(before)?;
    let facts_after = static_pod::read(after)?;
    let file_name = |name: String, of: &str| {
        FileName::try_from(name).map_err(|_| Refusal {
            reason: Reason::ManifestUnusable,
            message: format!("the {of} of kube-apiserver has no name that the kubelet could use"),
        })
    };
    let ours = match &desired.revision {
        Some(revision) => ours(&base.original, revision),
        None => Sha::of(after.as_bytes()),
    };
    Ok(Change {
        number: observed.journal.changes.saturating_add(1),
        target: desired.revision.as_ref().map(|revision| revision.id.clone()),
        setup_generation: match desired.requester {
            Requester::Person => None,
            Requester::Setup { generation, .. } => Some(generation),
        },
        before: Sha::of(before.as_bytes()),
        after: Sha::of(after.as_bytes()),
        is_in_place: after == observed.manifest,
        ours,
        probe: endpoint(&facts_after),
        argv_before: facts_before.argv,
        argv_after: facts_after.argv,
        pod: file_name(facts_after.pod, "pod")?,
        container: file_name(facts_after.container, "container")?,
        pods_before: observed.pods.clone(),
        rollout: desired.rollout.clone(),
        staged: observed.now.clone(),
        progress: Progress::UnderWay(Stage::Staged),
    })
}

/// Hash of the manifest rendered from the original; of nothing if it cannot be edited, so that every manifest counts as
/// somebody else's.
fn ours(original: &str, revision: &Revision) -> Sha {
    let edited = static_pod::update(original, original, &render::intent(revision));
    Sha::of(edited.map_or(String::new(), |edited| edited.text).as_bytes())
}

fn actions(
    desired: &Desired,
    observed: &Observed,
    base: &Base,
    change: &Change,
    before: &str,
    after: &str,
) -> Vec<Action> {
    let keep = |name: &str, content: String| Action::Keep { name: name.into(), content };
    let mut actions = Vec::new();
    if !base.is_ours || observed.original.is_none() {
        actions.push(keep(ORIGINAL, base.original.clone()));
    }
    if let Some(revision) = &desired.revision {
        stage_revision(revision, observed, &mut actions);
        let json = "strings and numbers only";
        actions.push(keep(CONTENT, serde_json::to_string(&revision.content).expect(json)));
        actions.push(keep(FLOOR, serde_json::to_string(&desired.floor).expect(json)));
    }
    actions.push(keep(BEFORE, before.into()));
    actions.push(keep(AFTER, after.into()));
    actions.push(keep(RESERVE, "\n".repeat(RESERVE_BYTES)));
    // The order is the safety: everything that the guard reads is there before the record that makes it read.
    actions.push(Action::Record);
    if let GuardKind::StaticPod(template) = &desired.guard {
        actions.push(Action::StartGuard { manifest: guard_manifest(template, change.number) });
    }
    actions
}

/// The guard's manifest for one Change.
pub fn guard_manifest(template: &str, change: u64) -> String {
    template.replace(GUARD_CHANGE, &change.to_string())
}

/// Why a kube-apiserver with this manifest cannot run a Revision, on any node.
pub fn check_manifest(facts: &static_pod::Facts, revision: &Revision) -> Result<(), Refusal> {
    check_user(facts)?;
    check_grace(facts, revision)
}

/// The time that kube-apiserver needs to stop, in addition to both shutdown flags.
const STOP_SECONDS: i64 = 5;
/// The default of Kubernetes (kubernetes@v1.36.3 pkg/apis/core/v1/defaults.go).
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The kubelet kills a kube-apiserver that takes longer to stop than its grace period, and its last audit events are
/// lost.
fn check_grace(facts: &static_pod::Facts, revision: &Revision) -> Result<(), Refusal> {
    let content = &revision.content;
    let flags =
        [(revision::DELAY_FLAG, content.shutdown_delay_seconds), (revision::DRAIN_FLAG, content.drain_watches_seconds)];
    // A flag that was in the manifest before is left alone, and its author knows the grace period.
    let is_ours = |flag: &str, seconds: i64| facts.flags.get(flag).is_none_or(|value| *value == format!("{seconds}s"));
    let ours: i64 =
        flags.into_iter().filter(|(flag, seconds)| is_ours(flag, *seconds)).map(|(_, seconds)| seconds).sum();
    let grace = facts.grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    if ours == 0 || ours + STOP_SECONDS <= grace {
        return Ok(());
    }
    let message = format!(
        "rollout.shutdownDelaySeconds and rollout.drainWatchesSeconds give kube-apiserver {ours} s to stop, but the manifest's \
         terminationGracePeriodSeconds is {grace}: the kubelet would kill kube-apiserver, and audit events would be lost. Set both together to at \
         most {}, or raise terminationGracePeriodSeconds",
        (grace - STOP_SECONDS).max(0)
    );
    Err(Refusal { reason: Reason::ManifestUnusable, message })
}

/// Only root can read our directories.
fn check_user(facts: &static_pod::Facts) -> Result<(), Refusal> {
    let Some(field) = &facts.rootless else { return Ok(()) };
    let message = format!(
        "kube-apiserver does not run as root on this node ({field}), so it could neither read the audit policy, which only root can read, nor write a log. A rootless control plane is not supported"
    );
    Err(Refusal { reason: Reason::ManifestUnusable, message })
}

fn stage_revision(revision: &Revision, observed: &Observed, actions: &mut Vec<Action>) {
    let directory = revision.directory();
    actions.push(Action::MakeDirectory { path: revision::REVISIONS_DIR.into(), mode: 0o700 });
    actions.push(Action::MakeDirectory { path: directory.clone(), mode: 0o700 });
    for (name, content) in revision.files() {
        actions.push(Action::WriteFile { path: format!("{directory}/{name}"), mode: 0o600, content: content.clone() });
        let good = observed.confirmed_files.get(name).cloned().unwrap_or_else(|| safe(name, &content));
        actions.push(Action::Keep { name: format!("{REPAIR_DIR}/{name}"), content: good });
    }
    // The kubelet makes the directory of the log (hostPath DirectoryOrCreate): the agent writes only in its own two
    // directories.
}

/// The content that repairs a file if no confirmed Revision has one of that name.
fn safe(name: &str, content: &str) -> String {
    match name {
        POLICY_FILE => SAFE_POLICY.into(),
        KUBECONFIG_FILE => SAFE_KUBECONFIG.into(),
        _ => content.into(),
    }
}

/// The address at which the API server of this manifest reports whether it is ready.
pub fn endpoint(facts: &static_pod::Facts) -> Endpoint {
    let host = match facts.flags.get("bind-address").map(String::as_str) {
        None | Some("" | "0.0.0.0") => "127.0.0.1".to_string(),
        Some("::") => "::1".to_string(),
        Some(address) => address.to_string(),
    };
    let port = facts.flags.get("secure-port").and_then(|port| port.parse().ok()).unwrap_or(6443);
    Endpoint { host, port }
}

/// The Revision that a target names, for people.
pub fn name(target: Option<&RevisionId>) -> String {
    target.map_or_else(|| "the original manifest".into(), |revision| format!("revision {revision}"))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plan::Nothing(idle @ Idle::AsDesired) => writeln!(f, "Nothing to do: {idle}."),
            Plan::Nothing(idle) => writeln!(f, "Nothing is done now: {idle}."),
            Plan::Refused(refusal) => writeln!(f, "Refused ({}): {}", refusal.reason, refusal.message),
            Plan::Change(steps) => steps.fmt(f),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Idle::AsDesired => f.write_str("the node is up to date"),
            Idle::LeftAlone(refusal) => {
                write!(
                    f,
                    "kube-apiserver runs this revision, but the node would not accept it now: {}",
                    refusal.message
                )
            }
            Idle::Changing => f.write_str("a change is in progress"),
            Idle::Paused => f.write_str("the rollout is paused"),
            Idle::NoSlot => f.write_str("waiting for the slot of this node: one node changes at a time"),
            Idle::Settling { changed_seconds_ago, has_followed: false } => write!(
                f,
                "somebody else changed the manifests {changed_seconds_ago} s ago, and the kubelet has not started kube-apiserver since; the operator applies its settings {SETTLE_SECONDS} s after that start, or {FOLLOW_SECONDS} s after the edit"
            ),
            Idle::Settling { changed_seconds_ago, has_followed: true } => write!(
                f,
                "somebody else changed the manifests or restarted kube-apiserver {changed_seconds_ago} s ago; the operator applies its settings once both have been left alone for {SETTLE_SECONDS} s"
            ),
            Idle::Quarantined(Failure { target, cause, .. }) => {
                write!(f, "{} was rolled back on this node: {}", name(target.as_ref()), cause.message)?;
                cause.last_words.as_ref().map_or(Ok(()), |words| write!(f, ": {words}"))
            }
        }
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Change to {}:", name(self.change.target.as_ref()))?;
        for (index, action) in self.actions.iter().enumerate() {
            writeln!(f, "{:3}. {action}", index + 1)?;
        }
        let rollout = &self.change.rollout;
        write!(f, "{:3}. guard: ", self.actions.len() + 1)?;
        match self.change.is_in_place {
            true => write!(f, "leave the manifest, which is up to date")?,
            false => write!(f, "{:?} the manifest ({} -> {})", rollout.method, self.change.before, self.change.after)?,
        }
        writeln!(
            f,
            ", wait until kube-apiserver has been ready for {} s, or roll back after {} s",
            rollout.min_ready_seconds, rollout.confirm_timeout_seconds
        )?;
        for flag in &self.taken_over {
            writeln!(f, "     taken over: {flag} (restore brings it back)")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::MakeDirectory { path, mode } => write!(f, "make directory {path} (mode {mode:o})"),
            Action::WriteFile { path, mode, content } => {
                write!(f, "write {path} (mode {mode:o}, {} bytes)", content.len())
            }
            Action::Keep { name, content } => write!(f, "keep {name} in our state ({} bytes)", content.len()),
            Action::Record => write!(f, "record the change in the journal"),
            Action::StartGuard { .. } => write!(f, "start the guard: {GUARD_MANIFEST}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  securityContext: {}
  containers:
  - name: kube-apiserver
    securityContext: {}
    command: [kube-apiserver, --secure-port, '7443']
";

    fn desired(drain: Option<&str>) -> Desired {
        let log = serde_json::json!({"path": "/var/log/audit/audit.log", "maxBackups": 0});
        fixture::desired(revision::Content {
            drain_watches_seconds: drain.map_or(0, |drain| drain.trim_end_matches('s').parse().unwrap()),
            ..fixture::content("", log)
        })
    }

    fn observed(manifest: &str) -> Observed {
        Observed {
            changed_ms_ago: None,
            has_followed: true,
            manifest: manifest.into(),
            journal: Journal::default(),
            original: None,
            confirmed_files: BTreeMap::new(),
            pods: Vec::new(),
            log: None,
            now: Clock { wall: "2026-11-21T12:00:00Z".parse().unwrap(), boot_id: "a".into(), since_boot_ms: 0 },
        }
    }

    #[test]
    fn a_kube_apiserver_that_would_be_killed_while_it_stops_is_refused() {
        for (grace, drain, own, is_refused) in [
            ("", "25s", "", false),
            ("terminationGracePeriodSeconds: 30", "25s", "", false),
            ("terminationGracePeriodSeconds: 29", "25s", "", true),
            ("terminationGracePeriodSeconds: 5", "1s", "", true),
            ("terminationGracePeriodSeconds: 5", "0s", "", false),
            ("terminationGracePeriodSeconds: 5", "3s", "--shutdown-watch-termination-grace-period=60s, ", false),
        ] {
            let manifest = MANIFEST
                .replace("spec:\n", &format!("spec:\n  {grace}\n"))
                .replace("--secure-port", &format!("{own}--secure-port"));
            match (plan(&desired(Some(drain)), &observed(&manifest)), is_refused) {
                (Plan::Change(_), false) => {}
                (Plan::Refused(refusal), true) => {
                    assert!(refusal.message.contains("terminationGracePeriodSeconds is"), "{}", refusal.message);
                }
                (plan, _) => panic!("{grace} {drain} {own}: {plan}"),
            }
        }
    }

    #[test]
    fn a_rootless_api_server_is_refused_by_the_field_that_makes_it_so() {
        for (pod, container, field) in [
            ("", "", None),
            ("runAsUser: 0", "runAsGroup: 0", None),
            ("runAsUser: 65532", "", Some("runAsUser: 65532")),
            ("runAsUser: 65532", "runAsUser: 0", None),
            ("runAsUser: 0", "runAsUser: 1000", Some("runAsUser: 1000")),
            ("runAsNonRoot: true", "", Some("runAsNonRoot: true")),
            ("runAsNonRoot: true", "runAsNonRoot: false", None),
            ("runAsUser: 65532, runAsNonRoot: true", "runAsGroup: 65532", Some("runAsUser: 65532")),
        ] {
            let manifest = MANIFEST
                .replacen("securityContext: {}", &format!("securityContext: {{{pod}}}"), 1)
                .replacen("    securityContext: {}", &format!("    securityContext: {{{container}}}"), 1);
            let plan = plan(&desired(Some("3s")), &observed(&manifest));
            match (plan, field) {
                (Plan::Change(_), None) => {}
                (Plan::Refused(Refusal { reason: Reason::ManifestUnusable, message }), Some(field)) => {
                    assert!(message.contains(&format!("({field})")), "{message}");
                }
                (plan, _) => panic!("{pod} {container}: {plan}"),
            }
        }
        let mapped = MANIFEST.replace("spec:\n", "spec:\n  hostUsers: false\n");
        assert!(matches!(plan(&desired(Some("3s")), &observed(&mapped)), Plan::Refused(_)));
    }

    #[test]
    fn a_rootless_api_server_that_carries_our_parts_can_be_restored() {
        let Plan::Change(steps) = plan(&desired(Some("3s")), &observed(MANIFEST)) else { panic!("it is changed") };
        let rootless = steps.after.replacen("securityContext: {}", "securityContext: {runAsUser: 1}", 1);
        let observed = Observed { original: Some(MANIFEST.into()), ..observed(&rootless) };
        assert!(matches!(plan(&desired(Some("3s")), &observed), Plan::Refused(_)));
        let restored = Desired { revision: None, ..desired(Some("3s")) };
        let Plan::Change(steps) = plan(&restored, &observed) else { panic!("it is restored") };
        assert_eq!(steps.after, MANIFEST.replacen("securityContext: {}", "securityContext: {runAsUser: 1}", 1));
    }

    #[test]
    fn what_somebody_changed_keeps_no_drain_flag_of_ours_beyond_the_setup() {
        let Plan::Change(steps) = plan(&desired(Some("3s")), &observed(MANIFEST)) else { panic!("it is changed") };
        let changed = steps.after.replace("'7443'", "'8443'");
        let observed = Observed { original: Some(MANIFEST.into()), ..observed(&changed) };
        let drain = |plan: Plan| match plan {
            Plan::Change(steps) => static_pod::read(&steps.after).unwrap().flags.get(revision::DRAIN_FLAG).cloned(),
            plan => panic!("{plan}"),
        };
        assert_eq!(drain(plan(&desired(Some("5s")), &observed)), Some("5s".into()));
        assert_eq!(drain(plan(&desired(None), &observed)), None);
        let Plan::Change(steps) = plan(&desired(Some("3s")), &observed) else { panic!("nobody saw it serve") };
        assert!(steps.change.is_in_place, "nothing of ours differs");
    }

    #[test]
    fn a_flag_and_its_value_in_two_items_are_read_as_one() {
        let facts = static_pod::read(MANIFEST).unwrap();
        assert_eq!(endpoint(&facts), Endpoint { host: "127.0.0.1".into(), port: 7443 });
    }
}
