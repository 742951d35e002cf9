//! The kubeconfig of the webhook.
//!
//! Credentials are files, which kube-apiserver re-reads; what it reads once stands in the kubeconfig itself or, a CA before
//! 1.36, beside it in the Revision (kubernetes@v1.36.3 staging/src/k8s.io/client-go/transport).

use std::collections::BTreeMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::policy::quoted;
use crate::revision::credentials_directory;
use crate::validate::{Auth, Capabilities, ValidWebhook};

pub(super) struct Kubeconfig {
    pub text: String,
    /// Further files of the Revision.
    pub files: BTreeMap<String, String>,
    /// By `<directory>/<file>` below the credentials.
    pub credentials: BTreeMap<String, Vec<u8>>,
    /// Whether `text` holds a secret.
    pub is_secret: bool,
}

/// Where the authorities lie.
pub(super) enum Ca {
    /// A file among the credentials, by its path on the node.
    Credential(String),
    /// A file of the Revision, by its name.
    InRevision(&'static str),
}

const CA_FILE: &str = "ca.crt";

/// kube-apiserver re-reads a CA from 1.36 on (the gate ClientsAllowCARotation of client-go).
pub(super) fn ca(webhook: &ValidWebhook, capabilities: Capabilities) -> Ca {
    if capabilities.minor >= 36 {
        Ca::Credential(format!("{}/{CA_FILE}", credentials_directory(&credentials_name(webhook))))
    } else {
        Ca::InRevision(CA_FILE)
    }
}

/// Name of the directory of a webhook's credentials. It carries where they are sent to: a new host and a new token of the same
/// sink, changed together, must not send the new token to the old host, which a node uses until its turn comes.
fn credentials_name(webhook: &ValidWebhook) -> String {
    let hash = Sha256::digest(format!("{}:{}", webhook.url.host, webhook.url.port));
    let hex: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{}-{hex}", webhook.name)
}

pub(super) fn kubeconfig(webhook: &ValidWebhook, capabilities: Capabilities) -> Kubeconfig {
    let mut files = BTreeMap::new();
    let mut credentials = BTreeMap::new();
    let name = credentials_name(webhook);
    let directory = credentials_directory(&name);
    let mut credential = |file: &str, content: &[u8]| {
        credentials.insert(format!("{name}/{file}"), content.to_vec());
        format!("{directory}/{file}")
    };

    let mut cluster = vec![("server", quoted(&webhook.url.server()))];
    if let Some(tls) = &webhook.tls {
        cluster.extend(tls.server_name.as_ref().map(|name| ("tls-server-name", quoted(name))));
        if let Some(pem) = &tls.ca {
            let path = match ca(webhook, capabilities) {
                Ca::Credential(_) => credential(CA_FILE, pem.as_bytes()),
                // Taken relative to the kubeconfig, so that the id of the Revision is not in its content.
                Ca::InRevision(name) => {
                    files.insert(name.to_string(), pem.clone());
                    name.to_string()
                }
            };
            cluster.push(("certificate-authority", quoted(&path)));
        }
        if tls.insecure_skip_verify {
            cluster.push(("insecure-skip-tls-verify", "true".into()));
        }
    }
    let user = match &webhook.auth {
        None => vec![],
        Some(Auth::Token(token)) => vec![("tokenFile", quoted(&credential("token", token.as_bytes())))],
        Some(Auth::Basic { username, password }) => {
            vec![("username", quoted(username)), ("password", quoted(password))]
        }
        Some(Auth::Certificate { certificate, key }) => vec![
            ("client-certificate", quoted(&credential("tls.crt", certificate))),
            ("client-key", quoted(&credential("tls.key", key))),
        ],
    };

    // Names do not matter to kube-apiserver; constant ones keep the sink's name out of the content.
    let mut text = String::from(
        "# Written by audit-operator. Change the AuditSetup instead.\n\
         apiVersion: v1\nkind: Config\ncurrent-context: webhook\ncontexts:\n- name: webhook\n  context:\n    cluster: webhook\n",
    );
    if !user.is_empty() {
        text.push_str("    user: webhook\n");
    }
    let mut section = |heading: &str, fields: &[(&str, String)]| {
        text.push_str(heading);
        for (name, value) in fields {
            writeln!(text, "    {name}: {value}").expect("a String takes everything");
        }
    };
    section("clusters:\n- name: webhook\n  cluster:\n", &cluster);
    if !user.is_empty() {
        section("users:\n- name: webhook\n  user:\n", &user);
    }
    let is_secret = webhook.is_url_secret || matches!(webhook.auth, Some(Auth::Basic { .. }));
    Kubeconfig { text, files, credentials, is_secret }
}
