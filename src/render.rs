//! A [`ValidSetup`] in, a [`Revision`] with its credentials and sinks out. Cannot fail, reads no clock and knows no
//! node.
//!
//! Settings that kube-apiserver reads only at its start go into the Revision, so a change of them makes a new one.
//! Files that it re-reads go into the credentials, so a change of them restarts nothing. The name of the Setup is in
//! neither.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{PolicyStatus, SetupFinding, SinkKind, SinkProbe, SinkRef, WebhookProbe};
use crate::revision::{AUDIT_DIR, Auth, Authorities, CA_FILE, Content, Revision, Tls, Webhook, credential};
use crate::validate::{self, Capabilities, ValidPolicy, ValidSetup, ValidWebhook};
use static_pod::{Intent, Mount};

#[cfg(test)]
mod tests;

/// The result of rendering a Setup.
#[derive(Clone)]
pub struct Rendered {
    pub revision: Revision,
    /// Files below `/etc/kubernetes/audit/credentials`, in a directory for each sink and host. Nodes replace them in
    /// place.
    pub credentials: BTreeMap<credential::Path, Vec<u8>>,
    pub sinks: Vec<SinkRef>,
    pub policy: PolicyStatus,
    /// Warnings about the sinks, and acknowledged risks.
    pub findings: Vec<SetupFinding>,
}

impl fmt::Debug for Rendered {
    /// Without anything that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered")
            .field("id", &self.revision.id)
            .field("flags", &self.revision.flags())
            .finish_non_exhaustive()
    }
}

/// Renders a Setup. The Revision has values; the nodes render the files from them.
pub fn render(setup: &ValidSetup) -> Rendered {
    let ValidPolicy { parts, omit_stages, omit_managed_fields, preset, findings } = &setup.policy;
    let mut credentials = BTreeMap::new();
    let webhook = setup.webhook.as_ref().map(|valid| webhook(valid, setup.capabilities, &mut credentials));
    let revision = Revision::new(Content {
        policy: audit_policy::write(parts, omit_stages, *omit_managed_fields),
        log: setup.log.as_ref().map(|valid| valid.log.clone()),
        webhook,
        shutdown_delay_seconds: setup.shutdown_delay_seconds,
        drain_watches_seconds: setup.drain_watches_seconds,
    });
    let log = setup.log.iter().map(|log| SinkRef { name: log.name.clone(), kind: SinkKind::Log, probe: None });
    let webhook = setup.webhook.iter().map(|webhook| SinkRef {
        name: webhook.name.clone(),
        kind: SinkKind::Webhook,
        probe: webhook.probe.clone().map(|WebhookProbe { path, expected_codes }| SinkProbe {
            revision: revision.id.to_string(),
            path,
            expected_codes,
        }),
    });
    Rendered {
        sinks: log.chain(webhook).collect(),
        policy: PolicyStatus {
            rules: parts.iter().map(|part| part.rules.len() as i64).sum(),
            preset: preset.clone(),
            findings: findings.clone(),
        },
        findings: setup.findings.clone(),
        revision,
        credentials,
    }
}

/// Puts everything that kube-apiserver re-reads into `credentials`, so that a change of it makes no new Revision.
fn webhook(
    valid: &ValidWebhook,
    capabilities: Capabilities,
    credentials: &mut BTreeMap<credential::Path, Vec<u8>>,
) -> Webhook {
    let ValidWebhook { name, url, service, proxy, is_url_secret, tls, auth, delivery, probe: _ } = valid;
    let directory = credential::Directory::of(name, url);
    let mut credential = |file: &str, content: &[u8]| {
        let path = credential::Path::new(directory.clone(), file).expect("a name that credentials have");
        credentials.insert(path, content.to_vec());
    };
    let tls = tls.as_ref().map(|tls| Tls {
        server_name: tls.server_name.clone(),
        authorities: tls.ca.as_ref().map(|pem| {
            // kube-apiserver re-reads them since 1.36 (the gate ClientsAllowCARotation of client-go).
            if capabilities.oldest.minor() >= 36 {
                credential(CA_FILE, pem.as_bytes());
                Authorities::Credential
            } else {
                Authorities::Revision(pem.clone())
            }
        }),
        insecure_skip_verify: tls.insecure_skip_verify,
    });
    let auth = auth.as_ref().map(|auth| match auth {
        validate::Auth::Token(token) => {
            credential(credential::TOKEN_FILE, token.as_bytes());
            Auth::Token
        }
        validate::Auth::Certificate { certificate, key } => {
            credential(credential::CERTIFICATE_FILE, certificate);
            credential(credential::KEY_FILE, key);
            Auth::Certificate
        }
        validate::Auth::Basic { username, password } => {
            Auth::Basic { username: username.clone(), password: password.clone() }
        }
    });
    Webhook {
        url: url.clone(),
        service: service.clone(),
        proxy: proxy.clone(),
        is_url_secret: *is_url_secret,
        tls,
        auth,
        credentials: directory,
        delivery: delivery.clone(),
    }
}

/// The parts of a manifest that run a Revision.
pub fn intent(revision: &Revision) -> Intent {
    let mount = |name: &str, path: &str, read_only| Mount { name: name.into(), path: path.into(), read_only };
    let mut mounts = vec![mount("audit-operator-config", AUDIT_DIR, true)];
    mounts.extend(revision.content.log_directory().map(|path| mount("audit-operator-log", path, false)));
    Intent { revision: revision.id.to_string(), flags: revision.flags(), defaults: revision.default_flags(), mounts }
}
