//! The CRDs as YAML: `audit-operator crds`, `crds/` and the chart's copies come from here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::{AuditSetup, NodeAudit};

/// The CRDs, in the order in which users should read them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![AuditSetup::crd(), NodeAudit::crd()]
}

/// One YAML document for each CRD.
pub fn crds_yaml() -> Vec<(String, String)> {
    crds()
        .into_iter()
        .map(|mut crd| {
            // Both are cluster-scoped, because their derives do not say `namespaced`.
            crd.metadata.labels =
                Some([("app.kubernetes.io/part-of".to_string(), "audit-operator".to_string())].into());
            let name = crd.spec.names.plural.clone();
            let yaml = serde_saphyr::to_string(&crd).expect("a CRD consists of plain data");
            (name, yaml)
        })
        .collect()
}
