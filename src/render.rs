//! A [`ValidSetup`] in, a [`Revision`] with its credentials and sink targets out. Cannot fail, reads no clock and knows no node.
//!
//! What kube-apiserver reads only at its start goes into the Revision, so that a change of it makes a new one; what it
//! re-reads goes into the credentials, so that a change of it restarts nothing. The name of the Setup is in neither.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{LogTarget, Mode, PolicyStatus, SinkTarget, TlsTarget, WebhookTarget};
use crate::manifest::{Intent, Mount};
use crate::policy;
use crate::revision::{AUDIT_DIR, Content, KUBECONFIG_FILE, POLICY_FILE, Revision};
use crate::validate::ValidSetup;

mod flags;
mod kubeconfig;

#[cfg(test)]
mod tests;

/// How long open watches are given when kube-apiserver stops (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/server_run_options.go).
pub const DRAIN_FLAG: &str = "shutdown-watch-termination-grace-period";
/// How long a kube-apiserver that stops goes on serving, while `/readyz` says that it stops (the same file).
pub const DELAY_FLAG: &str = "shutdown-delay-duration";
/// The flags outside the audit family that a manifest is given where it has none of its own.
pub const SHUTDOWN_FLAGS: [&str; 2] = [DELAY_FLAG, DRAIN_FLAG];

/// Everything that comes of a Setup.
#[derive(Clone)]
pub struct Rendered {
    pub revision: Revision,
    /// Files below `/etc/kubernetes/audit/credentials`, by `<directory>/<file>`, a directory for each sink and host;
    /// replaced in place on the node.
    pub credentials: BTreeMap<String, Vec<u8>>,
    /// What the agents probe.
    pub sinks: Vec<SinkTarget>,
    pub policy: PolicyStatus,
    /// Whether the kubeconfig in the Revision holds a secret itself: a password, or a URL out of a Secret.
    pub is_kubeconfig_secret: bool,
}

impl fmt::Debug for Rendered {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("id", &self.revision.id)
            .field("flags", &self.revision.content.flags)
            .finish_non_exhaustive()
    }
}

/// A hand in the rendering, for the end-to-end tests alone: validation leaves no Revision on which kube-apiserver exits, and
/// the way back from one has to be tested. Set by a hidden flag of the controller.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Added to the flags, or in their place.
    pub extra_flags: BTreeMap<String, String>,
    /// The whole policy file.
    pub policy: Option<String>,
}

pub fn render(setup: &ValidSetup) -> Rendered {
    render_with(setup, &Hooks::default())
}

/// [`render`], with the tests' hand in it.
pub fn render_with(setup: &ValidSetup, hooks: &Hooks) -> Rendered {
    let policy = &setup.policy;
    let written = policy::write(&policy.parts, &policy.omit_stages, policy.omit_managed_fields);
    let mut files = BTreeMap::from([(POLICY_FILE.to_string(), hooks.policy.clone().unwrap_or(written))]);
    let mut credentials = BTreeMap::new();
    let mut is_kubeconfig_secret = false;
    if let Some(webhook) = &setup.webhook {
        let made = kubeconfig::kubeconfig(webhook, setup.capabilities);
        files.insert(KUBECONFIG_FILE.into(), made.text);
        files.extend(made.files);
        credentials = made.credentials;
        is_kubeconfig_secret = made.is_secret;
    }
    let mut flags = flags::flags(setup);
    flags.extend(hooks.extra_flags.clone());
    let revision = Revision::new(Content {
        files,
        flags,
        log_directory: setup.log.as_ref().and_then(|log| log.directory.clone()),
        log_bytes: setup.log.as_ref().map_or(0, log_bytes),
        default_flags: flags::defaults(setup),
    });
    Rendered {
        sinks: targets(setup, &revision),
        policy: PolicyStatus {
            rules: policy.parts.iter().map(|part| part.rules.len() as i64).sum(),
            preset: policy.preset.clone(),
            findings: policy.findings.clone(),
        },
        revision,
        credentials,
        is_kubeconfig_secret,
    }
}

/// What a manifest shall say to run a Revision.
pub fn intent(revision: &Revision) -> Intent {
    let mount = |name: &str, path: &str, read_only| Mount { name: name.into(), path: path.into(), read_only };
    let mut mounts = vec![mount("audit-operator-config", AUDIT_DIR, true)];
    mounts.extend(revision.content.log_directory.as_ref().map(|path| mount("audit-operator-log", path, false)));
    let defaults = revision.content.default_flags.clone();
    Intent { revision: revision.id.clone(), flags: revision.flags(), defaults, mounts }
}

/// The file and its backups at their largest; 0 where nothing bounds them.
fn log_bytes(log: &crate::validate::ValidLog) -> u64 {
    const MIB: u64 = 1 << 20;
    match (log.directory.is_some(), log.log.max_backups) {
        (false, _) | (_, 0) => 0,
        (true, backups) => (backups as u64 + 1) * log.log.max_size_megabytes as u64 * MIB,
    }
}

/// What an agent probes, without secrets.
fn targets(setup: &ValidSetup, revision: &Revision) -> Vec<SinkTarget> {
    let wait = |mode: Mode, batch: Option<&crate::api::Batch>, default: i64| match mode {
        Mode::Batch => batch.and_then(|batch| batch.max_wait_seconds).unwrap_or(default),
        Mode::Blocking | Mode::BlockingStrict => 0,
    };
    let log = setup.log.as_ref().map(|log| {
        let delivery = &log.log.delivery;
        let max_wait_seconds = wait(delivery.mode, delivery.batch.as_ref(), 0);
        SinkTarget {
            name: log.name.clone(),
            log: Some(LogTarget { path: log.log.path.clone(), max_wait_seconds }),
            webhook: None,
        }
    });
    let webhook = setup.webhook.as_ref().map(|webhook| {
        let ca_file = |ca: kubeconfig::Ca| match ca {
            kubeconfig::Ca::Credential(path) => path,
            kubeconfig::Ca::InRevision(name) => format!("{}/{name}", revision.directory()),
        };
        let target = WebhookTarget {
            host: webhook.url.host.clone(),
            port: webhook.url.port,
            tls: webhook.tls.as_ref().map(|tls| TlsTarget {
                server_name: tls.server_name.clone().unwrap_or_else(|| webhook.url.host.clone()),
                ca_file: tls.ca.as_ref().map(|_| ca_file(kubeconfig::ca(webhook, setup.capabilities))),
                insecure_skip_verify: tls.insecure_skip_verify,
            }),
            max_wait_seconds: wait(webhook.delivery.mode, webhook.delivery.batch.as_ref(), 30),
        };
        SinkTarget { name: webhook.name.clone(), log: None, webhook: Some(target) }
    });
    log.into_iter().chain(webhook).collect()
}
