//! A policy from YAML, strictly.
//!
//! kube-apiserver drops an unknown or misplaced field with a warning, which mostly makes the rule match more than was meant
//! (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go#L63-L101). Here it is an error with its place.

use std::fmt;

use granit_parser::{Event, Marker, Parser, ScalarStyle};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Policy, scalar};
use crate::api::{PolicyRule, Stage};

/// What is wrong with the text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError {
    /// Line and column, from 1; none where the whole text is meant.
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: Option<String>,
    /// kube-apiserver has no use for it, and it is not written out again.
    #[serde(default, rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    rules: Option<Vec<PolicyRule>>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// One policy with at least one rule.
pub fn read(text: &str) -> Result<Policy, ReadError> {
    // First what serde does not see: which scalars were quoted.
    no_typed_scalar(text)?;
    if text.trim().is_empty() {
        return Err(ReadError { place: None, message: "the text is empty".into() });
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let document: Document = serde_saphyr::from_str_with_options(text, options).map_err(|error| ReadError {
        place: error.location().map(|at| (at.line(), at.column())),
        message: message_of(&error),
    })?;
    let whole = |message: String| ReadError { place: None, message };
    if document.api_version != "audit.k8s.io/v1" {
        return Err(whole(format!("apiVersion is {:?}, and must be audit.k8s.io/v1", document.api_version)));
    }
    if let Some(kind) = document.kind.filter(|kind| kind != "Policy") {
        return Err(whole(format!("kind is {kind:?}, and must be Policy")));
    }
    let rules = document.rules.unwrap_or_default();
    if rules.is_empty() {
        return Err(whole("the policy has no rule, and kube-apiserver does not start with such a one".into()));
    }
    Ok(Policy { rules, omit_stages: document.omit_stages, omit_managed_fields: document.omit_managed_fields })
}

/// The parser's message without its place, on one line.
pub(crate) fn message_of(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default();
    // "error: line 5 column 10: unknown variant …" and " at line 5, column 10" repeat the place.
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let text = match text.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => text,
    };
    // So does advice for programmers.
    let end = [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|rest| text.find(rest)).min();
    text[..end.unwrap_or(text.len())].to_string()
}

/// The parser counts lines from 1 and columns from 0.
fn place(marker: &Marker) -> Option<(u64, u64)> {
    Some((marker.line() as u64, marker.col() as u64 + 1))
}

/// Everything in a policy is a string but `omitManagedFields` and what stands below `metadata`: a plain scalar that is
/// something else to kube-apiserver would stop it.
fn no_typed_scalar(text: &str) -> Result<(), ReadError> {
    /// A mapping with the key whose value comes next, or a sequence.
    enum Open {
        Mapping(Option<String>),
        Sequence,
    }
    let mut open: Vec<Open> = Vec::new();
    let mut documents = 0;
    for next in Parser::new_from_str(text) {
        let (event, span) =
            next.map_err(|error| ReadError { place: place(error.marker()), message: error.info().to_string() })?;
        let fault = |message: String| Err(ReadError { place: place(&span.start), message });
        let untyped = matches!(open.first(), Some(Open::Mapping(Some(key))) if key == "metadata")
            || matches!(open.last(), Some(Open::Mapping(Some(key))) if key == "omitManagedFields");
        let mut scalar_key = None;
        match &event {
            Event::Scalar(value, style, _, tag) => {
                if tag.is_some() {
                    return fault("a tag has no place in a policy".into());
                }
                let is_key = matches!(open.last(), Some(Open::Mapping(None)));
                if *style == ScalarStyle::Plain
                    && !untyped
                    && let Some(what) = scalar::not_a_string(value)
                {
                    let what_to_do = if what == "null" { "leave the field out, or quote it" } else { "quote it" };
                    return fault(format!("{value:?} is {what} to kube-apiserver, not a string: {what_to_do}"));
                }
                scalar_key = is_key.then(|| value.to_string());
            }
            Event::DocumentStart(..) if documents == 1 => {
                return fault("a second document: kube-apiserver reads the first one only".into());
            }
            Event::DocumentStart(..) => {
                documents += 1;
                continue;
            }
            Event::Alias(..) => return fault("aliases are not supported in a policy: write it out".into()),
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                open.push(if matches!(event, Event::MappingStart(..)) { Open::Mapping(None) } else { Open::Sequence });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
            }
            _ => continue,
        }
        // A node is complete: in a mapping it was a key or a value.
        if let Some(Open::Mapping(key)) = open.last_mut() {
            *key = if key.is_some() { None } else { scalar_key.or(Some(String::new())) };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Level;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    #[test]
    fn a_policy_is_read() {
        let text = format!(
            "---\n{HEAD}metadata: {{name: 1, creationTimestamp: null}}\nomitManagedFields: true\nomitStages: [Panic]\n\
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
    fn what_the_api_server_would_drop_or_refuse_is_refused_with_its_place() {
        let rules = |rules: &str| format!("{HEAD}rules:\n{rules}");
        for (text, want) in [
            (
                rules("- level: Meta\n"),
                "line 4, column 10: unknown variant `Meta`, expected one of None, Metadata, Request, RequestResponse",
            ),
            (rules("- level: None\n  verb: [get]\n"), "line 5, column 3: unknown field `verb`"),
            (rules("- level: None\n  level: Metadata\n"), "line 5, column 3: duplicate mapping key: level"),
            (rules("- level: None\n  verbs: get\n"), "line 5, column 10: "),
            (rules("- verbs: [get]\n"), "line 4, column 3: missing field `level`"),
            (
                rules("- level: None\n  users: [on]\n"),
                "line 5, column 11: \"on\" is a boolean to kube-apiserver, not a string: quote it",
            ),
            (
                rules("- level: None\n  namespaces: [a, 1_000]\n"),
                "line 5, column 19: \"1_000\" is a number to kube-apiserver",
            ),
            (rules("- level: None\n  users:\n  - ~\n"), "line 6, column 5: \"~\" is null to kube-apiserver"),
            (
                rules("- level: None\n  omitStages: [RequestRecieved]\n"),
                "line 5, column 16: unknown variant `RequestRecieved`",
            ),
            (rules("- level: None\n   verbs: [get]\n"), "line 5, column "),
            (rules("- &a {level: None}\n- *a\n"), "line 5, column 3: aliases are not supported"),
            (format!("{HEAD}rules: []\n"), "the policy has no rule"),
            (HEAD.to_string(), "the policy has no rule"),
            (
                "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n".into(),
                "apiVersion is \"audit.k8s.io/v1beta1\"",
            ),
            ("apiVersion: audit.k8s.io/v1\nkind: ConfigMap\nrules: [{level: None}]\n".into(), "kind is \"ConfigMap\""),
            ("kind: Policy\nrules: [{level: None}]\n".into(), "line 2, column 1: missing field `apiVersion`"),
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
