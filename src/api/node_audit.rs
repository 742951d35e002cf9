//! `NodeAudit`: the target of one node, and its state. The controller writes the spec, the agent of that node the
//! status; users read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Rollout, Truth};

/// The Revision that this node should run. Only the controller writes it; change the AuditSetup instead.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "audit-operator.io",
    version = "v1alpha1",
    kind = "NodeAudit",
    plural = "nodeaudits",
    shortname = "naudit",
    status = "NodeAuditStatus",
    derive = "PartialEq",
    doc = "NodeAudit shows the auditing of one control-plane node, and has the name of the node. The operator writes it.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.apiServerVersion"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeAuditSpec {
    /// Name of the AuditSetup that covers this node.
    pub setup: String,
    /// UID of the AuditSetup that assigned this Revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_uid: Option<String>,
    /// Generation of that AuditSetup. The node tries a Revision that was rolled back again only under a newer
    /// generation or another AuditSetup.
    pub setup_generation: i64,
    /// The Revision that the node should run. Absent: the node should restore its original manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// SHA-256 of everything that kube-apiserver reads of the Revision. The agent accepts no other content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_digest: Option<String>,
    /// The Secret with the credentials of the sinks. The agent replaces them in place, without a restart. Absent: no
    /// sink needs credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsRef>,
    /// Whether this node has the slot, that is, may start a change now. At most one node has it at a time. A node
    /// without it changes nothing, not even to undo somebody else's edit.
    #[serde(default)]
    pub may_change: bool,
    /// How changes are carried out, from the AuditSetup. While `paused` is set, no change starts.
    #[serde(default)]
    pub rollout: Rollout,
    /// The sinks of the Revision, by their names in the AuditSetup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<SinkRef>,
    /// Whether the policy records the agent's canary request. If not, the agent cannot tell whether events arrive.
    #[serde(default)]
    pub canary: bool,
}

/// A version of the Secret with the credentials of the sinks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    /// Name of the Secret.
    pub name: String,
    /// Its `metadata.resourceVersion`.
    pub resource_version: String,
}

/// State of the node. Only its agent writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeAuditStatus {
    /// The generation of this NodeAudit that the agent has read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the node. `Unmanaged`: the manifest has none of the operator's settings. `Staged`: the files of a
    /// change are in place, the manifest is still the old one. `Verifying`: the guard has replaced the manifest and
    /// watches kube-apiserver, or is rolling back. `Confirmed`: kube-apiserver runs with the Revision. `RolledBack`:
    /// kube-apiserver did not start with the Revision, so the node rolled back. `Drifted`: something else changed the
    /// manifest. `Unsupported`: the node cannot be managed as it is.
    #[serde(default)]
    pub phase: Phase,
    /// Reason for the phase, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Reason>,
    /// Human-readable explanation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The Revision that the node runs, that is, the last confirmed one. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The Revision of the change in progress. Absent: no change, or a restore of the original manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing_to: Option<String>,
    /// Version of kube-apiserver on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server_version: Option<String>,
    /// When the node entered the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when `/readyz` of this node's kube-apiserver has succeeded without interruption. Absent while it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Time>,
    /// When the agent last wrote this status, which it does when the status changes. Its Lease in the operator's
    /// namespace shows that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// The last change that was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<NodeFailure>,
    /// The version of the credentials on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsRef>,
    /// The sinks, as seen from this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<NodeSinkStatus>,
}

/// State of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The manifest has none of our settings.
    #[default]
    Unmanaged,
    /// The files of a change are in place; the manifest is still the old one.
    Staged,
    /// The guard has replaced the manifest and watches kube-apiserver, or is rolling back.
    Verifying,
    /// kube-apiserver runs with the Revision.
    Confirmed,
    /// kube-apiserver did not start with the Revision, so the node rolled back.
    RolledBack,
    /// Something else changed the manifest.
    Drifted,
    /// The node cannot be managed as it is; `message` says why.
    Unsupported,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Unmanaged => "Unmanaged",
            Phase::Staged => "Staged",
            Phase::Verifying => "Verifying",
            Phase::Confirmed => "Confirmed",
            Phase::RolledBack => "RolledBack",
            Phase::Drifted => "Drifted",
            Phase::Unsupported => "Unsupported",
        }
    }
}

/// A change that was rolled back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeFailure {
    /// The Revision that failed. Absent: the restore of the original manifest failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Generation of the AuditSetup at that time.
    pub setup_generation: i64,
    /// Reason for the rollback, in one word.
    pub reason: super::Reason,
    /// Human-readable explanation.
    pub message: String,
    /// The last line that kube-apiserver wrote before it exited. Absent if it wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_words: Option<String>,
    /// When the change ended.
    pub at: Time,
}

/// A sink, as seen from one node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSinkStatus {
    /// Name of the sink.
    pub name: String,
    /// Whether the destination can be reached. For a webhook: whether kube-apiserver gets answers from it; the agent
    /// itself connects only to explain requests that get none. For a log: whether the file exists and can be written.
    pub reachable: Finding,
    /// Whether the events of this node arrive. For a log: whether the agent finds its canary request in it. For a
    /// webhook: whether kube-apiserver counts successful deliveries.
    pub delivering: Finding,
    /// Whether kube-apiserver has lost no event for this sink in the last ten minutes.
    #[serde(default = "Finding::pending")]
    pub complete: Finding,
    /// Events that the kube-apiserver of this node has lost for this sink, over all its restarts.
    pub lost_events: i64,
    /// When the last of them was lost, within a minute. Absent: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Time>,
    /// When the certificates and the token of the sink expire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["of".to_string()]))]
    pub expires: Vec<Expiry>,
    /// The load of the sink. Absent: not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<SinkLoad>,
    /// The last delivery seen before this status was written. Not updated while deliveries continue. Absent: none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
}

impl NodeSinkStatus {
    /// Nothing is known about deliveries any more.
    pub fn forget_delivery(&mut self) {
        (self.reachable, self.delivering) = (Finding::pending(), Finding::pending());
    }

    /// Whether events arrive, as far as the agent can tell.
    pub fn seems_to_deliver(&self) -> bool {
        self.delivering.status == Truth::True || self.delivering.reason == super::Reason::CanaryOff
    }
}

/// The load of a sink. Every figure keeps its value until it has changed by half.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SinkLoad {
    /// Events per second that kube-apiserver hands to its audit backends, over the last ten minutes or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<f64>,
    /// Average size of a request to a webhook, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<f64>,
    /// Hours for which a log file keeps an event at least, at the present rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_hours: Option<f64>,
    /// Hours until the log has filled its file system, at the present rate. Absent: it will not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_hours: Option<f64>,
}

/// When a certificate or a token expires.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Expiry {
    /// `ServerCertificate`: of the receiver. `ClientCertificate`, `Token`: of kube-apiserver. `CertificateAuthority`:
    /// the last of the authorities in `tls.caSecretRef`.
    pub of: Expiring,
    /// When it expires.
    pub at: Time,
}

/// A credential with an end.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expiring {
    ServerCertificate,
    ClientCertificate,
    CertificateAuthority,
    Token,
}

impl Expiring {
    pub fn as_str(self) -> &'static str {
        match self {
            Expiring::ServerCertificate => "ServerCertificate",
            Expiring::ClientCertificate => "ClientCertificate",
            Expiring::CertificateAuthority => "CertificateAuthority",
            Expiring::Token => "Token",
        }
    }
}

/// A fact about a sink.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// True, False or Unknown.
    pub status: Truth,
    /// Reason for the status, in one word.
    pub reason: super::Reason,
    /// Human-readable explanation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl Finding {
    /// Nothing is known yet.
    pub fn pending() -> Self {
        Self { status: Truth::Unknown, reason: super::Reason::Pending, message: String::new() }
    }
}

/// A sink of this node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SinkRef {
    /// Name of the sink.
    pub name: String,
    /// Backend of kube-apiserver. The Revision has the destination.
    pub kind: SinkKind,
    /// A request that explains why events do not arrive. Absent: the agent makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<SinkProbe>,
}

/// A request to the receiver of one Revision.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SinkProbe {
    /// The Revision that has the receiver. A node that runs another one makes no request: its receiver may be one that
    /// takes any request for an event.
    pub revision: String,
    /// Path of the request. Absent: the path of the sink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Status codes of a healthy receiver. Absent: 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub expected_codes: Vec<i64>,
}

/// The backend of kube-apiserver that a sink uses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Log,
    Webhook,
}
