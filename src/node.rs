//! The code that changes a host: the agent, which observes, stages and reports, and the guard, which alone replaces the
//! manifest and rolls it back.
//!
//! Both are loops around pure parts: [`crate::plan`] lists the changes that a node needs, [`crate::verdict`] decides
//! the guard's next step. They share the journal under a file lock, so there is exactly one writer at any time.

pub mod agent;
pub mod files;
pub mod guard;
mod log_place;
mod metrics;
mod observe;
pub mod probe;
mod process;
mod report;
mod sinks;
mod stage;
mod state;

pub use observe::{Error as ObserveError, observe};
pub use stage::{keep_files, leave, remove_unused, stage};
pub use state::{LockedState, State};

/// The manifest of kube-apiserver: the only foreign file that is changed.
pub const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// The directory whose files the kubelet runs, except dot files.
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
/// Our state on a node.
pub const STATE_DIR: &str = "/var/lib/audit-operator";
/// Log directories of the pods on a node.
pub const POD_LOGS_DIR: &str = "/var/log/pods";

/// How a broken watch of the Kubernetes API restarts: soon, because a single-node cluster loses its API server at each
/// change.
pub(crate) fn retry() -> impl kube::runtime::utils::Backoff {
    Soon
}

/// One second, for ever: the API server is about to come back.
struct Soon;

impl Iterator for Soon {
    type Item = std::time::Duration;

    fn next(&mut self) -> Option<Self::Item> {
        Some(std::time::Duration::from_secs(1))
    }
}

impl kube::runtime::utils::Backoff for Soon {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
