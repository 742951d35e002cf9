//! What a node shall have, and what was read from it, in; the complete, ordered list of changes, out.
//!
//! A [`Plan`] leaves nothing to decide: [`crate::node::stage`] carries out its actions in their order, and the guard the change that they
//! record. Its `Display` is the dry run. Nothing here reads a host or a clock.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{Reason, Rollout};
use crate::floor::Floor;
use crate::journal::{Change, Clock, Endpoint, Failure, Journal, Sha, Stage};
use crate::render;
use crate::revision::{self, KUBECONFIG_FILE, POLICY_FILE, Revision, RevisionId};

const MIB: u64 = 1024 * 1024;
mod recheck;

pub use recheck::{Staged, recheck};

/// Disk space that stays free beside what the log may take.
const HEADROOM_BYTES: u64 = 256 * MIB;

/// How long manifests must have been left alone, and kube-apiserver have run, before a change of ours begins. A kubeadm upgrade writes the
/// next manifest when the component of the last one is back, which takes it some 10 to 40 s; and back it is when the API server shows
/// another hash of its pod (kubernetes@v1.36.3 cmd/kubeadm/app/util/apiclient/wait.go, WaitForStaticPodHashChange): a manifest of ours
/// put there before would have the old hash again.
const SETTLE_SECONDS: u64 = 45;
/// The same where kube-apiserver was not started since somebody changed its manifest: a kubelet whose API server hangs takes minutes to
/// follow, and kubeadm waits five for it (kubernetes@v1.36.3 cmd/kubeadm/app/apis/kubeadm/timeoututils.go, UpgradeManifests).
const FOLLOW_SECONDS: u64 = 300;

/// What a node shall have.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// `None`: its original manifest.
    pub revision: Option<Revision>,
    /// Generation of the Setup: what failed under it is not tried again. `None`: a person asks, and is not refused that.
    pub setup_generation: Option<i64>,
    pub rollout: Rollout,
    /// What the Revision was judged by.
    pub floor: Floor,
    /// Whether it is the turn of the node.
    pub may_change: bool,
    /// The static pod of the guard, as YAML with [`GUARD_CHANGE`] in its name; `None` where the guard's loop runs in this process.
    pub guard: Option<String>,
}

/// What was read from a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Text of the manifest.
    pub manifest: String,
    pub journal: Journal,
    /// The manifest as it was before us, as far as it was kept.
    pub original: Option<String>,
    /// Files of the Revision that was last confirmed, by name: what a broken one is made good with.
    pub confirmed_files: BTreeMap<String, String>,
    /// Log directories of the API server's pods.
    pub pods: Vec<String>,
    /// Where the log goes; `None` without a log file.
    pub log: Option<LogPlace>,
    /// Milliseconds since a manifest of the control plane was last changed, by anybody, or kube-apiserver was last started; `None` where the
    /// clock went back since.
    pub changed_ms_ago: Option<u64>,
    /// Whether kube-apiserver was started since its manifest was last changed, as far as its logs tell.
    pub has_followed: bool,
    pub now: Clock,
}

/// What a node has at the path of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// As the Setup names it.
    pub path: String,
    pub directory: LogDirectory,
    pub file: LogFile,
    /// Bytes that are free there, and those that the files there take already.
    pub free_bytes: u64,
    pub used_bytes: u64,
}

/// The directory of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDirectory {
    /// It is there, or can be made.
    Usable,
    /// This part of its path is a file.
    BelowFile(String),
    /// A link on the way leads to what is not there, or in a circle.
    Dangling { link: String, target: String },
    /// It is on no mount of the agent, by a link on the way (with its target) or by its own path.
    Unmounted { directory: String, link: Option<(String, String)> },
    /// A link on the way leads below a directory that has another purpose.
    Foreign { link: String, target: String, purpose: &'static str },
}

/// The file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// It is not there yet, is empty, or begins as an audit log does.
    Usable,
    /// The Revision that runs writes it.
    Own,
    Directory,
    Link,
    /// A device, a pipe or a socket.
    Special(&'static str),
    /// It begins with something else.
    Foreign,
    /// Its beginning, as far as it is read, does not tell.
    Unclear,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    Nothing(Idle),
    /// The node cannot be changed as it is.
    Refused(Refusal),
    Change(Box<Steps>),
}

/// Why there is nothing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Idle {
    /// The node has what it shall have.
    AsDesired,
    /// The node runs the Revision that it is assigned, and would not accept it now: the floor has risen, or this program renders it
    /// otherwise. It stays as it is until it is assigned another one.
    LeftAlone(Refusal),
    /// A change is under way.
    Changing,
    Paused,
    /// It is not the turn of this node.
    Held,
    /// Something else has just changed the manifests, and may be at it still: kubeadm writes one after the other.
    Settling {
        changed_seconds_ago: u64,
        has_followed: bool,
    },
    /// The Revision failed here before, under this generation of the Setup.
    Quarantined(Failure),
}

/// Why a node cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}

/// The actions of the agent, and the change that the guard then carries out.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    pub actions: Vec<Action>,
    pub change: Change,
    pub before: String,
    pub after: String,
    /// Hand-made audit flags that are changed or removed; `restore` gives them back.
    pub taken_over: Vec<String>,
}

/// One change of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    MakeDirectory {
        path: String,
        mode: u32,
    },
    /// Write a file, or leave it if it holds that content.
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
    /// Record the change in the journal: from here on the guard has work.
    Record,
    /// Put the guard's static pod into the manifest directory.
    StartGuard {
        manifest: String,
    },
}

/// Name of the original manifest in our state.
pub const ORIGINAL: &str = "original.yaml";
/// What a change is made of, in our state, while it is under way.
pub const CHANGE_DIR: &str = "change";
/// Names of its manifests.
pub const BEFORE: &str = "change/before.yaml";
pub const AFTER: &str = "change/after.yaml";
/// The content of the Revision and the floor that it was judged by: the guard judges it once more.
pub const CONTENT: &str = "change/content.json";
pub const FLOOR: &str = "change/floor.json";
/// Room for the way back: given free where the disk has filled up meanwhile.
pub const RESERVE: &str = "change/reserve";
const RESERVE_BYTES: usize = 128 * 1024;
/// Files that make a broken Revision good, by the name that they have in it.
pub const REPAIR_DIR: &str = "change/repair";
/// The guard's static pod.
pub const GUARD_MANIFEST: &str = "/etc/kubernetes/manifests/audit-operator-guard.yaml";
/// Stands for the number of the change in [`Desired::guard`].
pub const GUARD_CHANGE: &str = "CHANGE";

/// Audits nothing: a kube-apiserver that must come up, whatever it shall record, comes up with this.
const SAFE_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n";
/// Reaches nobody, and with [`SAFE_POLICY`] has nothing to send.
const SAFE_KUBECONFIG: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: none\n  cluster:\n    server: https://127.0.0.1:9/\ncontexts:\n- name: none\n  context:\n    cluster: none\n    user: none\ncurrent-context: none\nusers:\n- name: none\n  user: {}\n";

/// Plans the way from what was observed to what is desired.
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    if observed.journal.unconfirmed().is_some() {
        return Plan::Nothing(Idle::Changing);
    }
    match steps(desired, observed) {
        // Somebody else put a manifest of their own in the place of ours; the kubelet may not have followed yet.
        Ok(None) if desired.revision.is_none() && observed.journal.confirmed.is_some() => {
            Plan::Nothing(settling(desired, observed).unwrap_or(Idle::AsDesired))
        }
        Ok(None) => Plan::Nothing(Idle::AsDesired),
        Err(refusal) => Plan::Refused(refusal),
        Ok(Some(steps)) => {
            let target = desired.revision.as_ref().map(|revision| &revision.id);
            let failed =
                desired.setup_generation.and_then(|generation| observed.journal.quarantine(target, generation));
            if let Some(failure) = failed {
                Plan::Nothing(Idle::Quarantined(failure.clone()))
            } else if desired.rollout.paused {
                Plan::Nothing(Idle::Paused)
            } else if !desired.may_change {
                Plan::Nothing(Idle::Held)
            } else if let Some(settling) = settling(desired, observed)
                // What is only watched writes nothing.
                && !steps.change.is_in_place
            {
                Plan::Nothing(settling)
            } else {
                Plan::Change(Box::new(steps))
            }
        }
    }
}

/// What the original gives; of nothing where it cannot be edited, so that every manifest passes for somebody else's.
fn ours(original: &str, revision: &Revision) -> Sha {
    let edited = static_pod::update(original, original, &render::intent(revision));
    Sha::of(edited.map_or(String::new(), |edited| edited.text).as_bytes())
}

/// While something else changed a manifest too short a time ago. What we wrote ourselves needs no time, nor what a person asks for.
fn settling(desired: &Desired, observed: &Observed) -> Option<Idle> {
    let left = observed.journal.change.as_ref().map(|change| match change.stage {
        Stage::Confirmed => &change.after,
        _ => &change.before,
    });
    let is_ours = left == Some(&Sha::of(observed.manifest.as_bytes()));
    if is_ours || desired.setup_generation.is_none() {
        return None;
    }
    let has_followed = observed.has_followed;
    let limit = if has_followed { SETTLE_SECONDS } else { FOLLOW_SECONDS };
    let changed_seconds_ago = observed.changed_ms_ago? / 1000;
    (changed_seconds_ago < limit).then_some(Idle::Settling { changed_seconds_ago, has_followed })
}

fn steps(desired: &Desired, observed: &Observed) -> Result<Option<Steps>, Refusal> {
    let facts = static_pod::read(&observed.manifest).map_err(|error| unusable(&error))?;
    // Without our annotation, too: what reads our files is no original.
    let is_ours = facts.revision.is_some() || observed.manifest.contains(revision::REVISIONS_DIR);
    let original = original(observed, is_ours).map_err(|error| unusable(&error))?;
    let confirmed = observed.journal.confirmed.as_ref();
    // Ours untouched: start from the original, so that the result does not depend on the Revisions in between.
    // Changed by somebody else: their text is the base, and only our parts are edited.
    let is_untouched = confirmed.is_some_and(|it| it.manifest == Sha::of(observed.manifest.as_bytes()));
    let (after, taken_over) = match &desired.revision {
        Some(revision) => {
            check_manifest(&facts, revision)?;
            check_log(revision, observed)?;
            let base = if is_untouched { &original } else { &observed.manifest };
            let edited =
                static_pod::update(base, &original, &render::intent(revision)).map_err(|error| unusable(&error))?;
            (edited.text, edited.taken_over)
        }
        None if !is_ours => return Ok(None),
        None if is_untouched => (original.clone(), Vec::new()),
        None => (without_ours(observed, &original)?, Vec::new()),
    };
    let is_in_place = after == observed.manifest;
    let before = if !is_in_place {
        observed.manifest.clone()
    } else if confirmed.map(|it| &it.revision) == desired.revision.as_ref().map(|it| &it.id) {
        return Ok(None);
    } else {
        // It is as it shall be, and nobody saw kube-apiserver serve with it: the journal was lost, or somebody edited another part in the
        // middle of a change. The guard leaves it there and watches; the way back is a kube-apiserver without us.
        without_ours(observed, &original)?
    };
    let facts_before = static_pod::read(&before).map_err(|error| unusable(&error))?;
    let facts_after = static_pod::read(&after).map_err(|error| unusable(&error))?;
    let change = Change {
        number: observed.journal.changes + 1,
        target: desired.revision.as_ref().map(|revision| revision.id.clone()),
        // Generations begin at 1: a failure of this change keeps no Setup from trying.
        setup_generation: desired.setup_generation.unwrap_or(0),
        before: Sha::of(before.as_bytes()),
        after: Sha::of(after.as_bytes()),
        ours: desired.revision.as_ref().map_or_else(|| Sha::of(after.as_bytes()), |revision| ours(&original, revision)),
        probe: endpoint(&facts_after),
        is_in_place,
        argv_before: facts_before.argv,
        argv_after: facts_after.argv,
        pod: facts_after.pod,
        container: facts_after.container,
        pods_before: observed.pods.clone(),
        rollout: desired.rollout.clone(),
        stage: Stage::Staged,
        staged: observed.now.clone(),
        begun: None,
        rollback: None,
        cause: None,
        finished: None,
    };
    let mut actions = Vec::new();
    if !is_ours || observed.original.is_none() {
        actions.push(Action::Keep { name: ORIGINAL.into(), content: original });
    }
    if let Some(revision) = &desired.revision {
        stage_revision(revision, observed, &mut actions);
        let content = serde_json::to_string(&revision.content).expect("strings and numbers only");
        let floor = serde_json::to_string(&desired.floor).expect("strings and numbers only");
        actions.push(Action::Keep { name: CONTENT.into(), content });
        actions.push(Action::Keep { name: FLOOR.into(), content: floor });
    }
    actions.push(Action::Keep { name: BEFORE.into(), content: before.clone() });
    actions.push(Action::Keep { name: AFTER.into(), content: after.clone() });
    actions.push(Action::Keep { name: RESERVE.into(), content: "\n".repeat(RESERVE_BYTES) });
    // The order is the safety: everything that the guard reads lies there before the record that makes it read.
    actions.push(Action::Record);
    if let Some(guard) = &desired.guard {
        actions.push(Action::StartGuard { manifest: guard_manifest(guard, change.number) });
    }
    Ok(Some(Steps { actions, change, before, after, taken_over }))
}

/// The guard's manifest for one change.
pub fn guard_manifest(template: &str, change: u64) -> String {
    template.replace(GUARD_CHANGE, &change.to_string())
}

/// The manifest before us. One that carries no mark of ours is an original itself, whoever wrote it (a kubeadm upgrade does). Where it
/// was lost, what is left without our parts stands for it.
fn original(observed: &Observed, is_ours: bool) -> Result<String, static_pod::Error> {
    match &observed.original {
        _ if !is_ours => Ok(observed.manifest.clone()),
        Some(original) => Ok(original.clone()),
        None => static_pod::strip(&observed.manifest),
    }
}

fn without_ours(observed: &Observed, original: &str) -> Result<String, Refusal> {
    static_pod::remove(&observed.manifest, original).map_err(|error| unusable(&error))
}

/// What keeps a kube-apiserver of this manifest from running a Revision, whatever node it is on.
pub fn check_manifest(facts: &static_pod::Facts, revision: &Revision) -> Result<(), Refusal> {
    check_user(facts)?;
    check_grace(facts, revision)
}

/// What kube-apiserver needs to stop, beside the time of both shutdown flags.
const STOP_SECONDS: i64 = 5;
/// The kubelet's own (kubernetes@v1.36.3 pkg/apis/core/v1/defaults.go).
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// A kube-apiserver that takes longer to stop than it is given is killed, and its last audit events are lost.
fn check_grace(facts: &static_pod::Facts, revision: &Revision) -> Result<(), Refusal> {
    let content = &revision.content;
    let flags =
        [(revision::DELAY_FLAG, content.shutdown_delay_seconds), (revision::DRAIN_FLAG, content.drain_watches_seconds)];
    // A flag of the manifest's own is left alone, and its author knows the grace period.
    let is_ours = |flag: &str, seconds: i64| facts.flags.get(flag).is_none_or(|value| *value == format!("{seconds}s"));
    let ours: i64 =
        flags.into_iter().filter(|(flag, seconds)| is_ours(flag, *seconds)).map(|(_, seconds)| seconds).sum();
    let grace = facts.grace_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    if ours == 0 || ours + STOP_SECONDS <= grace {
        return Ok(());
    }
    let message = format!(
        "rollout.shutdownDelaySeconds and rollout.drainWatchesSeconds give kube-apiserver {ours} s to stop, and the manifest's \
         terminationGracePeriodSeconds is {grace}: the kubelet would kill it, and audit events would be lost. Set both together to at most {}, or raise \
         terminationGracePeriodSeconds",
        (grace - STOP_SECONDS).max(0)
    );
    Err(Refusal { reason: Reason::ManifestUnusable, message })
}

/// What lies in our directories is root's alone.
fn check_user(facts: &static_pod::Facts) -> Result<(), Refusal> {
    let Some(field) = &facts.rootless else { return Ok(()) };
    let message = format!(
        "kube-apiserver does not run as root of this node ({field}), and could neither read the audit policy, which only root can read, nor write a log; a rootless control plane is not supported"
    );
    Err(Refusal { reason: Reason::ManifestUnusable, message })
}

fn check_log(revision: &Revision, observed: &Observed) -> Result<(), Refusal> {
    let Some(log) = &observed.log else { return Ok(()) };
    let why = unusable_directory(log).or_else(|| unusable_file(log));
    if let Some(message) = why {
        return Err(Refusal { reason: Reason::LogPathUnusable, message });
    }
    let directory = log.path.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let content = &revision.content;
    let file_bytes = content.log_file_bytes();
    let (growth, takes, advice) = match content.log_bytes() {
        // Where nothing bounds the log, there must be room for the file and for the next one, which begins before the first is compressed.
        0 => (
            file_bytes.saturating_mul(2),
            format!("nothing bounds the size of the log below {directory} (maxBackups is 0)"),
            "set maxBackups",
        ),
        bound => (
            bound.saturating_sub(log.used_bytes),
            format!("the log and its backups may take {} MiB below {directory}", bound / MIB),
            "lower maxBackups or maxSizeMegabytes",
        ),
    };
    let needed = growth.saturating_add(HEADROOM_BYTES);
    if log.free_bytes < needed {
        let message = format!(
            "{takes}, and {} MiB are free there, where {} MiB are needed; {advice}, or make room",
            log.free_bytes / MIB,
            needed / MIB
        );
        return Err(Refusal { reason: Reason::DiskFull, message });
    }
    Ok(())
}

fn unusable_directory(log: &LogPlace) -> Option<String> {
    let path = &log.path;
    match &log.directory {
        LogDirectory::Usable => None,
        LogDirectory::BelowFile(file) => {
            Some(format!("{file} on this node is a file, and {path} needs a directory there"))
        }
        LogDirectory::Dangling { link, target } => Some(format!(
            "{link} on this node is a link to {target}, which leads nowhere. Make that directory, or choose another log.path"
        )),
        LogDirectory::Unmounted { directory, link: Some((link, target)) } => Some(format!(
            "{link} on this node is a link to {target}, which the agent does not mount. Have an administrator add {directory} to floor.logDirectories, or choose a log.path below one of them"
        )),
        LogDirectory::Unmounted { directory, link: None } => Some(format!(
            "the agent does not mount {directory}, so it cannot check the log there. Have an administrator add the directory to floor.logDirectories, or choose a log.path below one of them"
        )),
        LogDirectory::Foreign { link, target, purpose } => Some(format!(
            "{link} on this node is a link to {target}, where {purpose}. Choose another log.path, or remove the link"
        )),
    }
}

fn unusable_file(log: &LogPlace) -> Option<String> {
    let path = &log.path;
    match log.file {
        LogFile::Usable | LogFile::Own => None,
        LogFile::Directory => Some(format!("{path} is a directory on this node; name a file in it")),
        LogFile::Link => Some(format!(
            "{path} on this node is a symbolic link, which kube-apiserver would follow inside its container. Move it away, or name another file in log.path"
        )),
        LogFile::Special(kind) => {
            Some(format!("{path} on this node is {kind}, and no file. Name another file in log.path"))
        }
        LogFile::Foreign => Some(format!(
            "{path} is already on this node, and it is not an audit log. Move it away, or name another file in log.path"
        )),
        LogFile::Unclear => Some(format!(
            "{path} is already on this node, and its first MiB does not show whether it is an audit log. Move it away, or name another file in log.path"
        )),
    }
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
    // The directory of the log is made by the kubelet (hostPath DirectoryOrCreate): the agent writes nowhere but in its two directories.
}

/// What makes a file good where no confirmed Revision has one of that name.
fn safe(name: &str, content: &str) -> String {
    match name {
        POLICY_FILE => SAFE_POLICY.into(),
        KUBECONFIG_FILE => SAFE_KUBECONFIG.into(),
        _ => content.into(),
    }
}

/// Where the API server of this manifest is asked whether it is ready.
pub fn endpoint(facts: &static_pod::Facts) -> Endpoint {
    let host = match facts.flags.get("bind-address").map(String::as_str) {
        None | Some("" | "0.0.0.0") => "127.0.0.1".to_string(),
        Some("::") => "::1".to_string(),
        Some(address) => address.to_string(),
    };
    let port = facts.flags.get("secure-port").and_then(|port| port.parse().ok()).unwrap_or(6443);
    Endpoint { host, port }
}

fn unusable(error: &static_pod::Error) -> Refusal {
    Refusal { reason: error.into(), message: error.to_string() }
}

/// The Revision that a target names, for people.
pub fn name(target: Option<&RevisionId>) -> String {
    target.map_or_else(|| "the original manifest".into(), |revision| format!("revision {revision}"))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plan::Nothing(idle @ Idle::AsDesired) => writeln!(f, "Nothing to do: {idle}."),
            Plan::Nothing(idle) => writeln!(f, "Nothing is done: {idle}."),
            Plan::Refused(refusal) => writeln!(f, "Refused ({}): {}", refusal.reason, refusal.message),
            Plan::Change(steps) => steps.fmt(f),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Idle::AsDesired => write!(f, "the node has what it shall have"),
            Idle::LeftAlone(refusal) => {
                write!(f, "kube-apiserver runs with it, and it would not be accepted now: {}", refusal.message)
            }
            Idle::Changing => write!(f, "a change is under way"),
            Idle::Paused => write!(f, "the rollout is paused"),
            Idle::Held => write!(f, "it is not the turn of this node"),
            Idle::Settling { changed_seconds_ago, has_followed: false } => write!(
                f,
                "something else changed the manifests {changed_seconds_ago} s ago, and the kubelet has not started kube-apiserver since; ours follows {SETTLE_SECONDS} s after it did, or {FOLLOW_SECONDS} s after the change"
            ),
            Idle::Settling { changed_seconds_ago, has_followed: true } => write!(
                f,
                "something else changed the manifests or started kube-apiserver {changed_seconds_ago} s ago; ours follows when nothing did for {SETTLE_SECONDS} s"
            ),
            Idle::Quarantined(failure) => {
                write!(f, "{} failed here before: {}", name(failure.target.as_ref()), failure.cause.message)
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
            true => write!(f, "leave the manifest, which is as it shall be")?,
            false => write!(f, "{:?} the manifest ({} -> {})", rollout.method, self.change.before, self.change.after)?,
        }
        writeln!(
            f,
            ", wait until kube-apiserver was ready for {} s, or take it back after {} s",
            rollout.min_ready_seconds, rollout.confirm_timeout_seconds
        )?;
        for flag in &self.taken_over {
            writeln!(f, "     taken over: {flag} (given back by restore)")?;
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

    /// Why a log of `mib` at most (0: unbounded), with files of 100 MiB, is refused at a place.
    fn refused(place: LogPlace, mib: u64) -> Option<(Reason, String)> {
        let Desired { revision: Some(Revision { mut content, .. }), .. } = desired(None) else { unreachable!() };
        let log = content.log.as_mut().unwrap();
        (log.max_size_megabytes, log.max_backups) = (100, (mib as i64 / 100 - 1).max(0));
        let observed = Observed { log: Some(place), ..observed(MANIFEST) };
        check_log(&Revision::new(content), &observed).err().map(|refusal| (refusal.reason, refusal.message))
    }

    fn place() -> LogPlace {
        LogPlace {
            path: "/var/log/kubernetes/audit/audit.log".into(),
            directory: LogDirectory::Usable,
            file: LogFile::Usable,
            free_bytes: u64::MAX,
            used_bytes: 0,
        }
    }

    #[test]
    fn a_log_that_nothing_bounds_needs_room_for_two_files_and_the_headroom() {
        let free = |mib: u64, used: u64| LogPlace { free_bytes: mib * MIB, used_bytes: used * MIB, ..place() };
        for (place, bound, fits) in [
            (free(456, 0), 0, true),
            (free(455, 0), 0, false),
            (free(455, 10_000), 0, false),
            (free(1256, 0), 1000, true),
            (free(1255, 0), 1000, false),
            (free(256, 1000), 1000, true),
            (free(255, 2000), 1000, false),
        ] {
            let refused = refused(place.clone(), bound);
            assert_eq!(refused.is_none(), fits, "{place:?} {bound}: {refused:?}");
            assert!(refused.is_none_or(|(reason, _)| reason == Reason::DiskFull));
        }
        let (_, message) = refused(free(300, 0), 0).unwrap();
        let want = "nothing bounds the size of the log below /var/log/kubernetes/audit (maxBackups is 0), and 300 MiB are free there, where 456 MiB are needed; set maxBackups, or make room";
        assert_eq!(message, want);
    }

    #[test]
    fn a_place_that_cannot_take_the_log_is_named_with_what_to_do() {
        let link = || ("/var/log/kubernetes/audit".to_string(), "/data/audit".to_string());
        let (at, target) = link();
        let directories = [
            (LogDirectory::BelowFile("/var/log/kubernetes".into()), "/var/log/kubernetes on this node is a file"),
            (
                LogDirectory::Dangling { link: at.clone(), target: target.clone() },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, which leads nowhere. Make that directory",
            ),
            (
                LogDirectory::Unmounted { directory: "/data/audit".into(), link: Some(link()) },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, which the agent does not mount. Have an administrator add /data/audit to floor.logDirectories",
            ),
            (
                LogDirectory::Unmounted { directory: "/data".into(), link: None },
                "the agent does not mount /data, so it cannot check the log there.",
            ),
            (
                LogDirectory::Foreign { link: at, target, purpose: "the kubelet runs every file" },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, where the kubelet runs every file.",
            ),
        ];
        let files = [
            (LogFile::Directory, "is a directory on this node; name a file in it"),
            (LogFile::Link, "is a symbolic link"),
            (LogFile::Special("a pipe"), "is a pipe, and no file"),
            (LogFile::Foreign, "is not an audit log. Move it away"),
            (LogFile::Unclear, "does not show whether it is an audit log. Move it away"),
        ];
        let cases = directories.map(|(directory, want)| (LogPlace { directory, ..place() }, want));
        for (place, want) in cases.into_iter().chain(files.map(|(file, want)| (LogPlace { file, ..place() }, want))) {
            let (reason, message) = refused(place, 1).expect(want);
            assert_eq!(reason, Reason::LogPathUnusable);
            assert!(message.contains(want), "want {want}\ngot  {message}");
        }
        assert_eq!(refused(LogPlace { file: LogFile::Own, ..place() }, 1), None);
    }

    #[test]
    fn a_flag_and_its_value_in_two_items_are_read_as_one() {
        let facts = static_pod::read(MANIFEST).unwrap();
        assert_eq!(endpoint(&facts), Endpoint { host: "127.0.0.1".into(), port: 7443 });
    }
}
