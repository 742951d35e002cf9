//! A Revision: the immutable result of rendering a Setup, named by the hash of its content.
//!
//! It holds everything that kube-apiserver reads at its start and nothing else, so equal content never restarts anything.
//! Paths below [`AUDIT_DIR`] carry the id; the content itself must not, or the id would depend on itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Our directory on a node, mounted read-only into kube-apiserver at the same path.
pub const AUDIT_DIR: &str = "/etc/kubernetes/audit";
/// Where Revisions lie on the node.
pub const REVISIONS_DIR: &str = "/etc/kubernetes/audit/revisions";
/// Where credentials lie on the node.
pub const CREDENTIALS_DIR: &str = "/etc/kubernetes/audit/credentials";
/// The policy within a Revision's directory.
pub const POLICY_FILE: &str = "policy.yaml";
/// The kubeconfig of the webhook within a Revision's directory.
pub const KUBECONFIG_FILE: &str = "webhook.kubeconfig";

/// `r-` and ten hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RevisionId(String);

impl RevisionId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id does not have the form `r-` and ten hexadecimal digits. Ids become path segments on a host, so nothing else passes.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the id of a revision: r- and ten hexadecimal digits")]
pub struct NotARevisionId(String);

impl TryFrom<String> for RevisionId {
    type Error = NotARevisionId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_id = text
            .strip_prefix("r-")
            .is_some_and(|hex| hex.len() == 10 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        if is_id { Ok(Self(text)) } else { Err(NotARevisionId(text)) }
    }
}

impl From<RevisionId> for String {
    fn from(id: RevisionId) -> Self {
        id.0
    }
}

/// What kube-apiserver is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content {
    /// Files in the Revision's directory, by name: [`POLICY_FILE`] always, [`KUBECONFIG_FILE`] with a webhook, `ca.crt`
    /// where the API server cannot re-read one.
    pub files: BTreeMap<String, String>,
    /// Every `audit-*` flag but the two that name files of this Revision; without the leading dashes.
    pub flags: BTreeMap<String, String>,
    /// Directory of the log file, mounted read-write; none for standard output.
    pub log_directory: Option<String>,
    /// Bytes that the log and its backups may come to take; 0 where nothing bounds them.
    pub log_bytes: u64,
    /// Flags that are only set where the manifest does not have them.
    pub default_flags: BTreeMap<String, String>,
}

/// Content with its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    pub id: RevisionId,
    pub content: Content,
}

impl Revision {
    /// Names the content by the SHA-256 of its canonical form: JSON with sorted keys.
    pub fn new(content: Content) -> Self {
        let canonical = serde_json::to_vec(&content).expect("strings and numbers only");
        let hash = Sha256::digest(&canonical);
        let hex: String = hash.iter().take(5).map(|b| format!("{b:02x}")).collect();
        Self { id: RevisionId(format!("r-{hex}")), content }
    }

    /// The directory of this Revision on the node.
    pub fn directory(&self) -> String {
        directory(&self.id)
    }

    /// Every `audit-*` flag that kube-apiserver shall have, without the leading dashes.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let mut flags = self.content.flags.clone();
        let mut file = |flag: &str, name: &str| {
            if self.content.files.contains_key(name) {
                flags.insert(flag.into(), format!("{}/{name}", self.directory()));
            }
        };
        file("audit-policy-file", POLICY_FILE);
        file("audit-webhook-config-file", KUBECONFIG_FILE);
        flags
    }
}

/// The directory of a Revision on the node.
pub fn directory(id: &RevisionId) -> String {
    format!("{REVISIONS_DIR}/{id}")
}

/// A directory of credentials on the node, by its name.
pub fn credentials_directory(name: &str) -> String {
    format!("{CREDENTIALS_DIR}/{name}")
}
