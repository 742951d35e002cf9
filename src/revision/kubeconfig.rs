//! The kubeconfig of the webhook.
//!
//! Credentials that kube-apiserver re-reads are files. Those that it reads once are in the kubeconfig itself or, a CA
//! before 1.36, beside it in the Revision (kubernetes@v1.36.3 staging/src/k8s.io/client-go/transport).

use std::fmt::Write;

use super::credential::{CERTIFICATE_FILE, KEY_FILE, TOKEN_FILE};
use super::{Auth, Authorities, CA_FILE, Webhook};
use audit_policy::quoted;

/// The kubeconfig. It has no command that kube-apiserver would run (`exec`) and no path except those of its own
/// credentials.
pub(super) fn kubeconfig(webhook: &Webhook) -> String {
    let credential = |file: &str| quoted(&webhook.credentials.file(file));
    let mut cluster = vec![("server", quoted(&webhook.url.server()))];
    cluster.extend(webhook.proxy.as_ref().map(|proxy| ("proxy-url", quoted(&proxy.to_string()))));
    if let Some(tls) = &webhook.tls {
        cluster.extend(tls.server_name.as_ref().map(|name| ("tls-server-name", quoted(name))));
        cluster.extend(tls.authorities.as_ref().map(|authorities| {
            let path = match authorities {
                Authorities::Credential => credential(CA_FILE),
                // Relative to the kubeconfig, so that the id of the Revision is not in its content.
                Authorities::Revision(_) => quoted(CA_FILE),
            };
            ("certificate-authority", path)
        }));
        if tls.insecure_skip_verify {
            cluster.push(("insecure-skip-tls-verify", "true".into()));
        }
    }
    let user = match &webhook.auth {
        None => vec![],
        Some(Auth::Token) => vec![("tokenFile", credential(TOKEN_FILE))],
        Some(Auth::Basic { username, password }) => {
            vec![("username", quoted(username)), ("password", quoted(password))]
        }
        Some(Auth::Certificate) => {
            vec![("client-certificate", credential(CERTIFICATE_FILE)), ("client-key", credential(KEY_FILE))]
        }
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
    text
}
