//! `NodeAudit`: what one node shall have, and what it has. Written by the controller (spec) and the agent of that node
//! (status); users read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Rollout, Truth};

/// The auditing of one control-plane node, named as the node. The controller writes `spec`, the agent of that node writes
/// `status`. It is there to be read: change the AuditSetup instead.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "audit-operator.io",
    version = "v1alpha1",
    kind = "NodeAudit",
    plural = "nodeaudits",
    shortname = "naudit",
    status = "NodeAuditStatus",
    derive = "PartialEq",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(name = "Desired", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.apiServerVersion"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeAuditSpec {
    /// The Setup that covers this node.
    pub setup: String,
    /// Uid of the Setup that the Revision was told under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_uid: Option<String>,
    /// Generation of that Setup. A Revision that failed on the node is tried again only under a newer one, or under another
    /// Setup.
    pub setup_generation: i64,
    /// The Revision that the node shall run. Absent: the node shall get its original manifest back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The SHA-256 of what kube-apiserver reads of that Revision. The agent runs no other content, whatever its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_digest: Option<String>,
    /// The Secret with the credentials of the sinks, and its version. They are replaced in place, without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsRef>,
    /// Whether it is the turn of this node: one changes after the other, and one that may not keeps what it has, be it what something
    /// else made of our settings.
    #[serde(default)]
    pub may_change: bool,
    /// How the change is carried out. While `rollout.paused` is set no change begins at all.
    #[serde(default)]
    pub rollout: Rollout,
    /// The sinks of the Revision, by the names that the Setup gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<SinkRef>,
    /// Whether the policy records the agent's canary request.
    #[serde(default)]
    pub canary: bool,
}

/// The Secret with the credentials of the sinks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsRef {
    pub name: String,
    pub resource_version: String,
}

/// What the agent of the node found and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeAuditStatus {
    /// The generation of this object that the agent has taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    #[serde(default)]
    pub phase: Phase,
    /// Why the phase is what it is, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Reason>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The Revision that the node runs: the last one that was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The Revision of the change that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changing_to: Option<String>,
    /// Version of the kube-apiserver of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server_version: Option<String>,
    /// When the phase became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Since when this node's kube-apiserver has answered `/readyz` without a break, as the agent saw it. Absent while it does
    /// not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_since: Option<Time>,
    /// When the agent last wrote this status: whenever it changed. That the agent runs is shown by its Lease in the operator's
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// The last change that was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<NodeFailure>,
    /// The version of the credentials that lie on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsRef>,
    /// The sinks, as this node sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<NodeSinkStatus>,
}

/// What is true of a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The manifest is not ours.
    #[default]
    Unmanaged,
    /// The files of a change lie ready; the manifest is still the old one.
    Staged,
    /// The manifest is replaced, and the guard watches kube-apiserver.
    Verifying,
    /// kube-apiserver runs with the Revision.
    Confirmed,
    /// kube-apiserver did not come up with the Revision, and the node went back.
    RolledBack,
    /// Something else changed the manifest.
    Drifted,
    /// The node cannot be managed as it is; `message` tells why.
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

/// A change that was taken back.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeFailure {
    /// The Revision that failed. Absent: the restoring of the original manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub setup_generation: i64,
    pub reason: super::Reason,
    pub message: String,
    /// The last line that kube-apiserver wrote before it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_words: Option<String>,
    pub at: Time,
}

/// One sink, as one node sees it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeSinkStatus {
    pub name: String,
    /// The destination can be resolved, connected to and verified (for a file: exists and can be written).
    pub reachable: Finding,
    /// A request made on purpose was found again at the sink.
    pub delivering: Finding,
    /// Events that this API server gave up since it started.
    pub lost_events: i64,
    /// The last delivery that was seen before this status was written. Not updated while deliveries go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
}

/// One fact about a sink.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub status: Truth,
    pub reason: super::Reason,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A sink of this node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SinkRef {
    pub name: String,
    pub kind: SinkKind,
}

/// Which backend of kube-apiserver a sink is. Where it sends events to stands in the Revision alone.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    Log,
    Webhook,
}
