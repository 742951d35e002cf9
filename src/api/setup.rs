//! `AuditSetup`: the only object that a user writes.
//!
//! A default is stated once, in the `impl Default` of its type. `#[serde(default = "Type::default")]` on the container
//! hands it to the reader and to the schema. Types with a required field have functions for the defaults of the others.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

mod policy;
mod rollout;
mod sink;
mod status;

pub use policy::*;
pub use rollout::*;
pub use sink::*;
pub use status::*;

/// The auditing of kube-apiserver on a set of control-plane nodes: which requests are recorded (`policy`), where the
/// events go (`sinks`), and how changes reach the nodes (`rollout`).
///
/// The operator renders it into an audit policy, a webhook configuration and an edit of kube-apiserver's static-pod
/// manifest, and changes one node at a time. Deleting an AuditSetup restores the original manifests of its nodes.
///
/// Secrets and ConfigMaps that it refers to must be in the namespace of the operator.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "audit-operator.io",
    version = "v1alpha1",
    kind = "AuditSetup",
    plural = "auditsetups",
    shortname = "asetup",
    status = "AuditSetupStatus",
    derive = "PartialEq",
    doc = "AuditSetup configures the auditing of kube-apiserver on control-plane nodes.",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name: at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Sinks", type_ = "string", json_path = ".status.conditions[?(@.type=='SinksHealthy')].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision.current"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.revision.target", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditSetupSpec {
    /// Labels of the nodes that this AuditSetup covers. Empty: all nodes with the label
    /// `node-role.kubernetes.io/control-plane`. If two AuditSetups select the same node, the older one covers it, and
    /// the newer one covers no node and is Stalled with the reason Conflict.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which requests are recorded, and how much of each.
    pub policy: PolicySpec,
    /// Where audit events go: at most one log sink and one webhook sink, because kube-apiserver has one backend of each
    /// kind.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".to_string()]),
        validation = Rule::new("self.filter(s, has(s.log)).size() <= 1").message("at most one log sink: kube-apiserver has one log backend"),
        validation = Rule::new("self.filter(s, has(s.webhook)).size() <= 1").message("at most one webhook sink: kube-apiserver has one webhook backend")
    )]
    pub sinks: Vec<Sink>,
    /// How changes reach the nodes.
    #[serde(default)]
    pub rollout: Rollout,
}
