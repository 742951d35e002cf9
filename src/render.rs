//! A [`ValidSetup`] in, a [`Revision`] with its credentials and sink targets out. Cannot fail.

use std::collections::BTreeMap;

use crate::api::{PolicyStatus, SinkTarget};
use crate::manifest;
use crate::revision::{AUDIT_DIR, Revision};
use crate::validate::ValidSetup;

/// How long open watches are given when kube-apiserver stops (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/server_run_options.go).
pub const DRAIN_FLAG: &str = "shutdown-watch-termination-grace-period";

/// Everything that comes of a Setup.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub revision: Revision,
    /// Files below `/etc/kubernetes/audit/credentials`, by `<sink>/<file>`; replaced in place on the node.
    pub credentials: BTreeMap<String, Vec<u8>>,
    /// What the agents probe.
    pub sinks: Vec<SinkTarget>,
    pub policy: PolicyStatus,
}

pub fn render(_setup: &ValidSetup) -> Rendered {
    unimplemented!()
}

/// What tests put over a rendered Setup, to make what validation would refuse.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    pub extra_flags: BTreeMap<String, String>,
    pub policy: Option<String>,
}

pub fn render_with(_setup: &ValidSetup, _hooks: &Hooks) -> Rendered {
    unimplemented!()
}

/// What a manifest shall say to run a Revision.
pub fn intent(revision: &Revision) -> manifest::Intent {
    let mount = |name: &str, path: &str, read_only| manifest::Mount { name: name.into(), path: path.into(), read_only };
    let mut mounts = vec![mount("audit-operator-config", AUDIT_DIR, true)];
    mounts.extend(revision.content.log_directory.iter().map(|directory| mount("audit-operator-log", directory, false)));
    let drain = revision.content.drain_watches_seconds;
    manifest::Intent {
        revision: revision.id.clone(),
        flags: revision.flags(),
        defaults: (drain > 0).then(|| (DRAIN_FLAG.to_string(), format!("{drain}s"))).into_iter().collect(),
        mounts,
    }
}
