//! The Kubernetes API of audit-operator: the objects that users write, and the state that the operator reports.
//!
//! The doc comments of the types become the descriptions in the CRDs, the administrator's manual. The docs of enum
//! variants do not, so the field explains its values. Every rule that CEL can state is here, so that `kubectl apply`
//! rejects bad input at once. [`crate::validate`] checks the rest, and repeats these rules for users without a cluster.

mod condition;
mod crd;
#[expect(clippy::duplicated_attributes, reason = "several printcolumns are what the derive macro takes")]
mod node_audit;
mod setup;

pub use audit_policy::{GroupResources, Level, Mode, PolicyRule, Preset, Stage};
pub use condition::{ConditionType, Reason, Truth};
pub use crd::{crds, crds_yaml};
pub use node_audit::*;
pub use setup::*;

/// API group of AuditSetup and NodeAudit.
pub const GROUP: &str = "audit-operator.io";
/// Field manager of the controller's server-side applies.
pub const FIELD_MANAGER: &str = "audit-operator";
/// Finalizer on a Setup: its nodes are restored before it is deleted.
pub const FINALIZER: &str = "audit-operator.io/restore-nodes";
/// Annotation on a Secret: the hosts that it may be sent to, separated by commas or spaces, each as in
/// `floor.destinations`.
pub const HOSTS_ANNOTATION: &str = "audit-operator.io/hosts";
/// Label on the Secrets that the controller writes: the name of their Setup.
pub const SETUP_LABEL: &str = "audit-operator.io/setup";
/// Label of control-plane nodes. Selects the nodes of a Setup without a `nodeSelector`.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
