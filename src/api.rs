//! The Kubernetes API of audit-operator: what a user writes and what the operator answers.
//!
//! The doc comments of the types become the descriptions in the CRDs: they are the administrator's manual. Every rule that
//! CEL can state is stated here, so that `kubectl apply` refuses bad input at once; [`crate::validate`] judges the rest and
//! repeats these rules for those who work without a cluster.

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

/// API group of all our kinds.
pub const GROUP: &str = "audit-operator.io";
/// Field manager of the controller's server-side applies.
pub const FIELD_MANAGER: &str = "audit-operator";
/// Finalizer on a Setup: the nodes are restored before it goes.
pub const FINALIZER: &str = "audit-operator.io/restore-nodes";
/// Annotation on a Secret: the hosts that its credentials are for, separated by commas or spaces, each as in `floor.destinations`.
pub const HOSTS_ANNOTATION: &str = "audit-operator.io/hosts";
/// Label on the Secrets that the controller writes: the Setup they belong to.
pub const SETUP_LABEL: &str = "audit-operator.io/setup";
/// Label that selects control-plane nodes where a Setup has no `nodeSelector` of its own.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
