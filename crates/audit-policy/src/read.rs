//! Reads the policy of a Setup, strictly.
//!
//! kube-apiserver only warns of an unknown or misplaced field and drops it, so the rule usually matches more than its
//! author meant. It accepts nulls, aliases and a second document without a warning. Here each is an error with its
//! place.

use std::fmt;

use super::Policy;
use super::finding::{Finding, Severity};
use super::load::examine;
use super::stanza::{GROUP, MIXED_RULE, NON_RESOURCE_URL, RESOURCE_NAMES};

/// The first problem of a text, and its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError {
    /// Line and column, from 1. `None`: the whole text.
    pub place: Option<(u64, u64)>,
    pub message: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Reads a policy with at least one rule. Rules that kube-apiserver would reject are left to [`lint`](super::lint()),
/// which judges the whole policy that they become part of.
pub fn read(text: &str) -> Result<Policy, ReadError> {
    if text.trim().is_empty() {
        return Err(ReadError { place: None, message: "the text is empty".into() });
    }
    // Whether the group `*` is valid depends on the versions of the API servers, which `lint` knows.
    let examined = examine(text.as_bytes(), u32::MAX);
    let is_fault = |finding: &&Finding| {
        finding.severity == Severity::Error
            && [NON_RESOURCE_URL, GROUP, RESOURCE_NAMES, MIXED_RULE].iter().any(|stanza| stanza.id == finding.id)
    };
    let refused = examined.findings.iter().filter(|finding| !is_fault(finding)).chain(&examined.traps);
    if let Some(Finding { place, message, help, .. }) = refused.min_by_key(|finding| finding.place) {
        let message = match help {
            Some(help) => format!("{message}: {help}"),
            None => message.clone(),
        };
        return Err(ReadError { place: Some((place.line.into(), place.column.into())), message });
    }
    Ok(examined.policy.expect("an unknown level or stage is a finding"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Level, Stage};

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    #[test]
    fn a_policy_is_read() {
        let text = format!(
            "---\n{HEAD}metadata: {{name: '1', creationTimestamp: null}}\nomitManagedFields: true\nomitStages: [Panic]\n\
             rules:\n- level: Request\n  users: ['on', system:x]\n- level: None\n  omitManagedFields: false\n"
        );
        let policy = read(&text).unwrap();
        assert_eq!(policy.rules.len(), 2);
        assert_eq!(policy.rules[0].level, Level::Request);
        assert_eq!(policy.rules[0].users, ["on", "system:x"]);
        assert_eq!(policy.rules[1].omit_managed_fields, Some(false));
        assert_eq!((policy.omit_stages, policy.omit_managed_fields), (vec![Stage::Panic], true));
    }

    #[test]
    fn text_that_the_api_server_would_drop_or_refuse_is_refused_with_its_place() {
        let rules = |rules: &str| format!("{HEAD}rules:\n{rules}");
        for (text, want) in [
            (rules("- level: Meta\n"), "line 4, column 10: rules[0].level: Unsupported value: \"Meta\""),
            (rules("- level: None\n  verb: [get]\n"), "line 5, column 3: unknown field \"rules[0].verb\""),
            (rules("- level: None\n  level: Metadata\n"), "line 5, column 3: yaml: key \"level\" already set in map"),
            (
                rules("- level: None\n  verbs: get\n"),
                "line 5, column 10: a string, where kube-apiserver expects a list",
            ),
            (rules("- verbs: [get]\n"), "line 4, column 3: rules[0].level: Required value"),
            (
                rules("- level: None\n  users: [on]\n"),
                "line 5, column 11: kube-apiserver reads \"on\" as a boolean, not a string: quote it",
            ),
            (
                rules("- level: None\n  namespaces: [a, 1_000]\n"),
                "line 5, column 19: kube-apiserver reads \"1_000\" as a number",
            ),
            (
                rules("- level: None\n  users:\n  - ~\n"),
                "line 6, column 5: kube-apiserver reads \"~\" as null, not a string",
            ),
            (rules("- level: None\n  users: ~\n"), "line 5, column 10: kube-apiserver reads \"~\" as null, not a list"),
            (
                rules("- level: None\n  omitStages: [RequestRecieved]\n"),
                "line 5, column 16: rules[0].omitStages[0]: Invalid value: \"RequestRecieved\"",
            ),
            (rules("- level: None\n   verbs: [get]\n"), "line 5, column "),
            (rules("- &a {level: None}\n- *a\n"), "line 5, column 3: the policy contains an alias"),
            (format!("{HEAD}rules: []\n"), "line 3, column 8: loaded illegal policy with 0 rules"),
            (HEAD.to_string(), "line 1, column 1: loaded illegal policy with 0 rules"),
            (
                "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n".into(),
                "line 1, column 13: no kind \"Policy\" is registered for version \"audit.k8s.io/v1beta1\"",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: ConfigMap\nrules: [{level: None}]\n".into(),
                "line 2, column 7: no kind \"ConfigMap\" is registered",
            ),
            ("kind: Policy\nrules: [{level: None}]\n".into(), "line 1, column 1: unknown group version field"),
            (
                format!("{}---\n{HEAD}rules: [{{level: Metadata}}]\n", rules("- level: None\n")),
                "line 5, column 1: a second document",
            ),
            (String::new(), "the text is empty"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.to_string().starts_with(want), "{text}\nwant {want}\ngot  {error}");
        }
    }
}
