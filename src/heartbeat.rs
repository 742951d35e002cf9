//! The sign of life of an agent: a Lease in the operator's namespace, renewed by the agent and watched by the
//! controller. Its name and content are decided here alone. Pure.
//!
//! Why not a time in the status of the `NodeAudit`: each of its writes is recorded by most audit policies, and wakes
//! everybody who watches; renewals of Leases are what every policy leaves out, as kubelets renew one every ten seconds.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::api::NodeAudit;
use crate::rollout::SILENCE;

/// Label of these Leases.
pub(crate) const LABEL: (&str, &str) = ("app.kubernetes.io/component", "audit-operator-agent");

/// Name of the Lease of an agent. The admission policy `audit-operator-agent-own-node` holds each agent to its own.
pub(crate) fn name(node: &str) -> String {
    format!("audit-operator-agent-{node}")
}

/// The Lease, renewed now. It goes with the `NodeAudit`.
pub(crate) fn lease(audit: &NodeAudit, now: Timestamp) -> Lease {
    let node = audit.name_any();
    let (label, value) = LABEL;
    Lease {
        metadata: ObjectMeta {
            name: Some(name(&node)),
            labels: Some([(label.to_string(), value.to_string())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: NodeAudit::api_version(&()).into(),
                kind: NodeAudit::kind(&()).into(),
                name: node.clone(),
                uid: audit.uid().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node),
            lease_duration_seconds: i32::try_from(SILENCE.as_secs()).ok(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// The node of a Lease, if it is one of these.
pub(crate) fn node(lease: &Lease) -> Option<&str> {
    let node = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (lease.metadata.name.as_deref() == Some(&name(node))).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_recognises_the_lease_of_an_agent_and_no_other() {
        let audit: NodeAudit = serde_json::from_value(serde_json::json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp1.example", "uid": "u"},
            "spec": {"setup": "cluster", "setupGeneration": 1},
        }))
        .unwrap();
        let ours = lease(&audit, "2026-11-21T12:00:00Z".parse().unwrap());
        assert_eq!(node(&ours), Some("cp1.example"));
        assert_eq!(ours.metadata.owner_references.as_ref().unwrap()[0].uid, "u");
        for other in ["cp2", ""] {
            let mut foreign = ours.clone();
            foreign.spec.as_mut().unwrap().holder_identity = Some(other.into());
            assert_eq!(node(&foreign), None, "{other}");
        }
        assert_eq!(node(&Lease::default()), None);
    }
}
