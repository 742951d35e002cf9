//! What stops kube-apiserver from starting with a list of rules.
//!
//! The rules are upstream's: kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/validation/validation.go. Level
//! and stages are enums here, so the reader has judged them already.

use crate::api::PolicyRule;

/// One reason, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Path below the list of rules: `[3].nonResourceURLs[0]`.
    pub path: String,
    pub message: String,
}

/// Everything that stops a kube-apiserver 1.`minor`; nothing about how many rules there are.
pub fn faults(rules: &[PolicyRule], minor: u32) -> Vec<Fault> {
    let mut found = Vec::new();
    for (i, rule) in rules.iter().enumerate() {
        let mut fault = |path: String, message: String| found.push(Fault { path: format!("[{i}].{path}"), message });
        for (j, url) in rule.non_resource_urls.iter().enumerate() {
            let path = format!("nonResourceURLs[{j}]");
            if url != "*" && !url.starts_with('/') {
                fault(path.clone(), format!("{url:?} must begin with /"));
            }
            if url.find('*').is_some_and(|at| at + 1 != url.len()) {
                fault(path, format!("{url:?}: a * is allowed at the end only"));
            }
        }
        for (j, resources) in rule.resources.iter().enumerate() {
            let group = resources.group.as_str();
            let path = format!("resources[{j}]");
            if group == "*" {
                if minor < 36 {
                    fault(
                        format!("{path}.group"),
                        format!(
                            "\"*\" is known from Kubernetes 1.36, and an API server here has 1.{minor}: name the groups"
                        ),
                    );
                }
            } else if let Some((name, _version)) = group.split_once('/') {
                fault(format!("{path}.group"), format!("{group:?} names a version: write {name:?}"));
            } else if !group.is_empty() && !is_dns_subdomain(group) {
                fault(
                    format!("{path}.group"),
                    format!(
                        "{group:?} is not the name of an API group: lower-case letters, digits, - and . only; empty for the core group"
                    ),
                );
            }
            if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                fault(format!("{path}.resourceNames"), "resourceNames needs at least one entry in resources".into());
            }
        }
        if !rule.non_resource_urls.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
            fault(
                "nonResourceURLs".into(),
                "a rule cannot apply to both resources and nonResourceURLs: make two rules of it".into(),
            );
        }
    }
    found
}

/// RFC 1123: labels of lower-case letters, digits and `-`, joined by dots.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Lower-case letters, digits and `-`, which stands at neither end.
pub(crate) fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules in, "path: message" out.
    fn judged(yaml: &str, minor: u32) -> Vec<String> {
        let rules: Vec<PolicyRule> = serde_saphyr::from_str(yaml).unwrap();
        faults(&rules, minor).into_iter().map(|f| format!("{}: {}", f.path, f.message)).collect()
    }

    #[test]
    fn each_rule_of_upstream_is_kept() {
        for (yaml, want) in [
            ("{level: None, nonResourceURLs: ['*', '/healthz*', '/version']}", &[][..]),
            ("{level: None, nonResourceURLs: [healthz]}", &[r#"[0].nonResourceURLs[0]: "healthz" must begin with /"#]),
            ("{level: None, nonResourceURLs: ['']}", &[r#"[0].nonResourceURLs[0]: "" must begin with /"#]),
            (
                "{level: None, nonResourceURLs: ['/a', '/*/b']}",
                &[r#"[0].nonResourceURLs[1]: "/*/b": a * is allowed at the end only"#],
            ),
            (
                "{level: None, nonResourceURLs: ['*a*']}",
                &[
                    r#"[0].nonResourceURLs[0]: "*a*" must begin with /"#,
                    r#"[0].nonResourceURLs[0]: "*a*": a * is allowed at the end only"#,
                ],
            ),
            (
                "{level: None, resources: [{group: apps/v1}]}",
                &[r#"[0].resources[0].group: "apps/v1" names a version: write "apps""#],
            ),
            (
                "{level: None, resources: [{group: ''}, {group: Apps}]}",
                &[
                    r#"[0].resources[1].group: "Apps" is not the name of an API group: lower-case letters, digits, - and . only; empty for the core group"#,
                ],
            ),
            (
                "{level: None, resources: [{resourceNames: [a]}]}",
                &["[0].resources[0].resourceNames: resourceNames needs at least one entry in resources"],
            ),
            (
                "{level: None, nonResourceURLs: [/a], namespaces: [b]}",
                &[
                    "[0].nonResourceURLs: a rule cannot apply to both resources and nonResourceURLs: make two rules of it",
                ],
            ),
        ] {
            assert_eq!(judged(&format!("[{yaml}]"), 36), want, "{yaml}");
        }
    }

    #[test]
    fn every_group_at_once_needs_1_36() {
        let yaml = "[{level: None}, {level: None, resources: [{group: '*'}]}]";
        assert_eq!(judged(yaml, 36), [""; 0]);
        assert_eq!(
            judged(yaml, 35),
            [
                r#"[1].resources[0].group: "*" is known from Kubernetes 1.36, and an API server here has 1.35: name the groups"#
            ]
        );
    }
}
