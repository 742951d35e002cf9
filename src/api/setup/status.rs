//! The status of a Setup, as the operator reports it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{Expiry, Phase, Reason, Truth};

/// State of the AuditSetup. Only the operator writes it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuditSetupStatus {
    /// The generation of the AuditSetup that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The Revision that the nodes run, and the one they should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
    /// Ready: every node runs the target Revision. Reconciling: a change is in progress. Stalled: a person must act.
    /// PolicyAccepted: kube-apiserver starts with the policy. SinksHealthy: every sink receives events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The policy that kube-apiserver gets. Absent until one was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Warnings about the sinks and the rules of the author, and acknowledged risks. They do not stop the rollout.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<SetupFinding>,
    /// The nodes that this AuditSetup covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub nodes: Vec<NodeStatus>,
    /// The sinks, over all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<SinkStatus>,
    /// The last Revisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,
}

/// The Revision that the nodes run, and the one they should run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The Revision that is confirmed on every node. Absent while the nodes differ or have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The Revision rendered from the current AuditSetup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How the target differs from the Revision before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When this Revision became the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// The policy that kube-apiserver gets.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Number of rules, including those of the floor and the canary rule.
    pub rules: i64,
    /// Name and version of the preset. Absent without a preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Warnings of `audit-operator policy lint` and acknowledged risks, the most severe first, at most 32. Errors
    /// reject the policy; see the condition PolicyAccepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<SetupFinding>,
}

/// A warning, or an acknowledged risk.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SetupFinding {
    /// Id of the finding. `audit-operator policy lint --explain ID` explains those of the policy.
    pub id: String,
    /// `warning` or `info`.
    pub severity: String,
    /// Field of the AuditSetup, such as `spec.policy.rules[0]`.
    pub field: String,
    /// Human-readable explanation.
    pub message: String,
}

/// A node that the AuditSetup covers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Name of the node.
    pub name: String,
    /// The Revision that the node runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// State of the node; see the NodeAudit of the same name.
    pub phase: Phase,
    /// Reason for the phase, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// Human-readable explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Version of kube-apiserver on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_server_version: Option<String>,
    /// When the node entered the phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A sink, over all nodes. A fact is False if it is False on any node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// Name of the sink.
    pub name: String,
    /// Whether every node can reach the destination.
    pub reachable: Truth,
    /// Whether the events of every node arrive.
    pub delivering: Truth,
    /// Whether no node has lost an event for this sink in the last ten minutes.
    #[serde(default)]
    pub complete: Truth,
    /// Events that the nodes have lost for this sink, over all restarts of kube-apiserver.
    pub lost_events: i64,
    /// When the last of them was lost, within a minute. Absent: none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Time>,
    /// When the certificates and the token of the sink expire, the earliest of all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["of".to_string()]))]
    pub expires: Vec<Expiry>,
    /// The earliest of the nodes' last deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
    /// Reason of the node that is worst off, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<crate::api::Reason>,
    /// The problem, with the name of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A current or former target Revision.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// Name of the Revision.
    pub revision: String,
    /// The generation of the AuditSetup that it was rendered from.
    pub generation: i64,
    /// When it became the target.
    pub started: Time,
    /// When its rollout ended. Absent while it is in progress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    /// How its rollout ended. `InProgress`: not yet. `Confirmed`: every node confirmed it. `RolledBack`: a node rolled
    /// it back. `Superseded`: a newer Revision replaced it first.
    pub outcome: Outcome,
}

/// How the rollout of a Revision ended.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    InProgress,
    /// Every node confirmed it.
    Confirmed,
    /// A node rolled it back.
    RolledBack,
    /// A newer Revision replaced it before every node ran it.
    Superseded,
}
