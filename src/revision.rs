//! A Revision: the immutable result of rendering a Setup, named by the hash of everything that kube-apiserver reads of
//! it.
//!
//! It is stored as typed values ([`Content`]), never as files, flags or paths: a writer of a Revision can choose among
//! the settings of an AuditSetup, and nothing else. The code in this module renders files ([`Revision::files`]), flags
//! ([`Revision::flags`]) and mounts from the values, in the controller and again on the node, so that neither has to
//! trust the other. Equal content never restarts anything. Paths below [`AUDIT_DIR`] contain the id; the content itself
//! must not, or the id would depend on itself.
//!
//! [`secret`] stores a Revision, [`crate::validate::judge`] decides whether a node may run it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::api::{LogSink, WebhookDelivery};

pub mod credential;
mod flags;
mod kubeconfig;
mod proxy;
pub mod secret;
mod url;

pub use proxy::{NotAProxy, Proxy, ProxyScheme};
pub use static_pod::{DELAY_FLAG, DRAIN_FLAG};
pub(crate) use url::is_host;
pub use url::{NotAUrl, Url};

/// Our directory on a node, mounted read-only into kube-apiserver at the same path.
pub const AUDIT_DIR: &str = "/etc/kubernetes/audit";
/// The directory of all Revisions on the node.
pub const REVISIONS_DIR: &str = "/etc/kubernetes/audit/revisions";
/// The directory of all credentials on the node.
pub const CREDENTIALS_DIR: &str = "/etc/kubernetes/audit/credentials";
/// The policy within a Revision's directory.
pub const POLICY_FILE: &str = "policy.yaml";
/// The kubeconfig of the webhook within a Revision's directory.
pub const KUBECONFIG_FILE: &str = "webhook.kubeconfig";
/// The webhook's certificate authorities, within a Revision's directory or among the credentials.
pub const CA_FILE: &str = "ca.crt";

/// `r-` and ten hexadecimal digits, the beginning of the [`Digest`]. A name, not a proof.
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

/// The text does not have the form of an id. Ids become path segments on a host, so nothing else is accepted.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not the id of a revision: it must be r- and ten hexadecimal digits")]
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

/// `sha256:` and 64 hexadecimal digits: the hash of everything that kube-apiserver reads of a Revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest(String);

impl Digest {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The settings of kube-apiserver as typed values. A Revision with unknown fields is rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Content {
    /// The policy file, the floor's rules first.
    pub policy: String,
    /// The log backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSink>,
    /// The webhook backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// `--shutdown-delay-duration`, unless the manifest sets it; 0 leaves it alone.
    pub shutdown_delay_seconds: i64,
    /// `--shutdown-watch-termination-grace-period`, unless the manifest sets it; 0 leaves it alone.
    pub drain_watches_seconds: i64,
}

/// The webhook backend: everything that its kubeconfig is rendered from.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    pub url: Url,
    /// `namespace/name` of the Service whose address the URL has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `None`: as `HTTPS_PROXY` and its relatives in the manifest say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Whether the URL comes from a Secret, so that no output may show it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_url_secret: bool,
    /// `None` over http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The directory of its credentials, below [`CREDENTIALS_DIR`].
    pub credentials: credential::Directory,
    pub delivery: WebhookDelivery,
}

impl fmt::Debug for Webhook {
    /// Without URL and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("credentials", &self.credentials)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

/// How kube-apiserver verifies the receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// `None`: the host of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// `None`: the authorities in the kube-apiserver image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Authorities>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,
}

/// Where the certificate authorities are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authorities {
    /// Among the credentials: kube-apiserver re-reads them (from 1.36, the gate ClientsAllowCARotation of client-go).
    Credential,
    /// In the Revision, as PEM: a change restarts kube-apiserver.
    Revision(String),
}

/// How kube-apiserver authenticates. Credentials that it re-reads are files; those that it reads once are here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Auth {
    Token,
    Certificate,
    Basic { username: String, password: String },
}

/// Content with its id and digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    pub id: RevisionId,
    pub digest: Digest,
    pub content: Content,
}

/// The input of the digest: everything that kube-apiserver reads, rendered.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    files: BTreeMap<&'static str, String>,
    flags: BTreeMap<String, String>,
    log_directory: Option<String>,
    default_flags: BTreeMap<String, String>,
}

impl Revision {
    /// Names the content by the SHA-256 of its [canonical form](Content::canonical).
    pub fn new(content: Content) -> Self {
        let hex = hex(&Sha256::digest(content.canonical()));
        Self { id: RevisionId(format!("r-{}", &hex[..10])), digest: Digest(format!("sha256:{hex}")), content }
    }

    /// The directory of this Revision on the node.
    pub fn directory(&self) -> String {
        directory(&self.id)
    }

    /// The files in that directory, by name.
    pub fn files(&self) -> BTreeMap<&'static str, String> {
        files(&self.content)
    }

    /// Every `audit-*` flag of kube-apiserver, without the leading dashes.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let mut flags = flags::flags(&self.content);
        flags.insert("audit-policy-file".into(), format!("{}/{POLICY_FILE}", self.directory()));
        if self.content.webhook.is_some() {
            flags.insert("audit-webhook-config-file".into(), format!("{}/{KUBECONFIG_FILE}", self.directory()));
        }
        flags
    }

    /// Flags that are set only if the manifest does not have them.
    pub fn default_flags(&self) -> BTreeMap<String, String> {
        flags::defaults(&self.content)
    }

    /// The credential files that kube-apiserver reads with it.
    pub fn credentials(&self) -> Vec<credential::Path> {
        let Some(webhook) = &self.content.webhook else { return Vec::new() };
        let has_ca = webhook.tls.as_ref().is_some_and(|tls| tls.authorities == Some(Authorities::Credential));
        let of_auth: &[&str] = match &webhook.auth {
            Some(Auth::Token) => &[credential::TOKEN_FILE],
            Some(Auth::Certificate) => &[credential::CERTIFICATE_FILE, credential::KEY_FILE],
            Some(Auth::Basic { .. }) | None => &[],
        };
        let names = has_ca.then_some(CA_FILE).into_iter().chain(of_auth.iter().copied());
        names.filter_map(|name| credential::Path::new(webhook.credentials.clone(), name)).collect()
    }

    /// The file with the webhook's certificate authorities, on the node.
    pub fn ca_file(&self) -> Option<String> {
        let webhook = self.content.webhook.as_ref()?;
        Some(match webhook.tls.as_ref()?.authorities.as_ref()? {
            Authorities::Credential => webhook.credentials.file(CA_FILE),
            Authorities::Revision(_) => format!("{}/{CA_FILE}", self.directory()),
        })
    }
}

impl Content {
    /// Everything rendered from the content, as JSON with sorted keys. The digest is computed from it.
    pub fn canonical(&self) -> Vec<u8> {
        let form = Form {
            files: files(self),
            flags: flags::flags(self),
            log_directory: self.log_directory().map(str::to_string),
            default_flags: flags::defaults(self),
        };
        serde_json::to_vec(&form).expect("strings only")
    }

    /// The directory of the log file, mounted read-write into kube-apiserver; `None` for standard output.
    pub fn log_directory(&self) -> Option<&str> {
        let path = self.log.as_ref().map(|log| log.path.as_str()).filter(|path| *path != "-")?;
        let (directory, _) = path.rsplit_once('/')?;
        Some(if directory.is_empty() { "/" } else { directory })
    }

    /// Bytes at which the log file is rotated.
    pub fn log_file_bytes(&self) -> u64 {
        let mib = self.log.as_ref().map_or(0, |log| log.max_size_megabytes);
        u64::try_from(mib).unwrap_or(0).saturating_mul(1 << 20)
    }

    /// Bytes that the log and its backups may take; 0 if their size is unlimited or there is no log file.
    pub fn log_bytes(&self) -> u64 {
        const MIB: u64 = 1 << 20;
        let Some(log) = self.log.as_ref().filter(|log| log.path != "-" && log.max_backups > 0) else { return 0 };
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        (number(log.max_backups) + 1).saturating_mul(number(log.max_size_megabytes)).saturating_mul(MIB)
    }

    /// Whether the kubeconfig itself contains a secret: a password, or a URL from a Secret.
    pub fn is_kubeconfig_secret(&self) -> bool {
        let is_secret = |webhook: &Webhook| webhook.is_url_secret || matches!(webhook.auth, Some(Auth::Basic { .. }));
        self.webhook.as_ref().is_some_and(is_secret)
    }
}

fn files(content: &Content) -> BTreeMap<&'static str, String> {
    let mut files = BTreeMap::from([(POLICY_FILE, content.policy.clone())]);
    if let Some(webhook) = &content.webhook {
        files.insert(KUBECONFIG_FILE, kubeconfig::kubeconfig(webhook));
        if let Some(Authorities::Revision(pem)) = webhook.tls.as_ref().and_then(|tls| tls.authorities.as_ref()) {
            files.insert(CA_FILE, pem.clone());
        }
    }
    files
}

/// The directory of a Revision on the node.
pub fn directory(id: &RevisionId) -> String {
    format!("{REVISIONS_DIR}/{id}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
