//! The edit that the tests of `static-pod` make in the golden cases and in mutated manifests.

use static_pod::{Intent, Mount};

pub fn intent() -> Intent {
    let mount = |name: &str, path: &str, read_only| Mount { name: name.into(), path: path.into(), read_only };
    let flag = |name: &str, value: &str| (name.to_string(), value.to_string());
    Intent {
        revision: "r-0123456789".into(),
        flags: [
            flag("audit-log-path", "/var/log/kubernetes/audit/audit.log"),
            flag("audit-log-maxage", "30"),
            flag("audit-policy-file", "/etc/kubernetes/audit/revisions/r-0123456789/policy.yaml"),
        ]
        .into(),
        defaults: [flag("shutdown-delay-duration", "2s"), flag("shutdown-watch-termination-grace-period", "3s")].into(),
        mounts: vec![
            mount("audit-operator-config", "/etc/kubernetes/audit", true),
            mount("audit-operator-log", "/var/log/kubernetes/audit", false),
        ],
    }
}
