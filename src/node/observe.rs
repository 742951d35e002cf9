//! Reads a node: its manifest, the files beside it, our state, and the place of the log. Changes nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::files::{self, Host};
use super::{MANIFEST, MANIFESTS_DIR, POD_LOGS_DIR, log_place, process, state};
use crate::api::Reason;
use crate::plan::{self, Observed};
use crate::revision::{Content, RevisionId, directory};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no {MANIFEST}: this is not a control-plane node of kubeadm, or its host root is not mounted")]
    ManifestMissing,
    #[error("{MANIFEST} is not UTF-8")]
    ManifestNotText,
    #[error("{MANIFEST} is a symbolic link, which cannot be replaced safely: put the manifest itself there")]
    ManifestLink,
    #[error(
        "{MANIFESTS_DIR}/{other} also defines the pod {pod}, and the kubelet runs the one that it reads last: move the file out of that directory"
    )]
    DuplicatePod { other: String, pod: String },
    #[error(
        "{MANIFESTS_DIR}/{other} is a link to a file that the agent does not mount, and the kubelet may run kube-apiserver from it: put the file itself into that directory, or remove the link"
    )]
    FileNotSeen { other: String },
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error("{MANIFEST} cannot be used")]
    Manifest(#[from] static_pod::Error),
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self {
            Error::ManifestMissing => Reason::ManifestMissing,
            Error::ManifestNotText | Error::ManifestLink | Error::FileNotSeen { .. } => Reason::ManifestUnusable,
            Error::DuplicatePod { .. } => Reason::DuplicatePod,
            Error::State(error) => error.reason(),
            Error::File(error) => error.reason(),
            Error::Manifest(error) => error.into(),
        }
    }
}

/// Reads the node. `wanted` is the content of the target: the place of its log is read too.
pub fn observe(host: &Host, wanted: Option<&Content>) -> Result<Observed, Error> {
    let state = state::State::new(host.clone());
    let journal = state.journal()?;
    // Before it is read: a pod may not see the target of the link.
    if host.is_link(MANIFEST) {
        return Err(Error::ManifestLink);
    }
    let bytes = state.manifest()?.ok_or(Error::ManifestMissing)?;
    let manifest = String::from_utf8(bytes).map_err(|_| Error::ManifestNotText)?;
    let facts = static_pod::read(&manifest)?;
    refuse_second_file(host, &(facts.namespace, facts.pod.clone()))?;
    let confirmed = journal.confirmed.as_ref().map(|confirmed| &confirmed.revision);
    let log_path = wanted.and_then(|content| content.log.as_ref()).map(|log| &log.path).filter(|path| *path != "-");
    let runs_ours = confirmed.is_some_and(|revision| facts.revision.as_deref() == Some(revision.as_str()));
    let is_own = |path: &String| runs_ours && facts.flags.get("audit-log-path") == Some(path);
    let log = log_path.map(|path| log_place::look(host, path, is_own(path))).transpose()?;
    let pods = pods(host, &facts.pod)?;
    let (changed_ms_ago, has_followed) = last_change(host, &pods)?;
    Ok(Observed {
        original: state.kept(plan::ORIGINAL)?,
        confirmed_files: confirmed.map(|revision| revision_files(host, revision)).transpose()?.unwrap_or_default(),
        log,
        changed_ms_ago,
        has_followed,
        pods,
        now: process::clock(),
        manifest,
        journal,
    })
}

/// The kubelet runs every file of the directory but dot files, whatever its extension (kubernetes@v1.36.3
/// pkg/kubelet/config/file.go, extractFromDir).
fn refuse_second_file(host: &Host, pod: &(String, String)) -> Result<(), Error> {
    let own = MANIFEST.rsplit_once('/').expect("a path").1;
    for name in host.list(MANIFESTS_DIR)? {
        let path = format!("{MANIFESTS_DIR}/{name}");
        if name == own || name.starts_with('.') {
            continue;
        }
        if host.is_link(&path) && !host.follow(&path)?.is_of_node {
            return Err(Error::FileNotSeen { other: name });
        }
        // The kubelet passes over all but files, and follows links as this does.
        if !host.metadata(&path).is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let Some(bytes) = host.read(&path)? else { continue };
        if static_pod::pod_of(&bytes).as_ref() == Some(pod) {
            return Err(Error::DuplicatePod { other: name, pod: format!("{}/{}", pod.0, pod.1) });
        }
    }
    Ok(())
}

/// When the manifests last changed, and whether kube-apiserver has started since its own did. By the change time of the
/// manifests, which a rename sets too, and of the directories of kube-apiserver's logs, which get a file with each
/// start of its container. Only the files that kubeadm writes count: other static pods do not announce an upgrade.
fn last_change(host: &Host, pods: &[String]) -> Result<(Option<u64>, bool), files::Error> {
    const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    let changed = |path: &str| {
        let metadata = host.metadata(path).ok()?;
        Some(metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000)
    };
    let mut logs = Vec::new();
    for pod in pods {
        let pod = format!("{POD_LOGS_DIR}/{pod}");
        logs.extend(host.list(&pod)?.iter().map(|container| format!("{pod}/{container}")));
    }
    let manifests = COMPONENTS.map(|component| format!("{MANIFESTS_DIR}/{component}.yaml"));
    let started = logs.iter().filter_map(|path| changed(path)).max();
    let last = manifests.iter().filter_map(|path| changed(path)).max().max(started);
    let ms_ago = last.and_then(|last| u64::try_from(process::clock().wall.as_millisecond() - last).ok());
    let has_followed = started.is_none() || started >= changed(MANIFEST);
    Ok((ms_ago, has_followed))
}

fn revision_files(host: &Host, revision: &RevisionId) -> Result<BTreeMap<String, String>, files::Error> {
    let directory = directory(revision);
    let mut found = BTreeMap::new();
    for name in host.list(&directory)? {
        if let Some(bytes) = host.read(&format!("{directory}/{name}"))? {
            found.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(found)
}

/// Names of the log directories of the API server's pods: `<namespace>_<pod>-<node>_<hash>`.
pub(super) fn pods(host: &Host, pod: &str) -> Result<Vec<String>, files::Error> {
    let prefix = format!("kube-system_{pod}-");
    Ok(host.list(POD_LOGS_DIR)?.into_iter().filter(|name| name.starts_with(&prefix)).collect())
}
