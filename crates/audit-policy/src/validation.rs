//! kube-apiserver's validation of a decoded policy, with its own messages.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/validation/validation.go. List values are worded as
//! in Kubernetes 1.36.

use serde::Serialize;

use super::decode::{List, RawPolicy, RawResources, RawRule, Word};
use super::finding::{Edit, Finding, MAX_FINDINGS};
use super::stanza::{GROUP, LEVEL, MIXED_RULE, NON_RESOURCE_URL, RESOURCE_NAMES, STAGE, Stanza};
use crate::{Level, Stage};
use kube_yaml::Place;

pub(super) fn level_of(text: &str) -> Option<Level> {
    Some(match text {
        "None" => Level::None,
        "Metadata" => Level::Metadata,
        "Request" => Level::Request,
        "RequestResponse" => Level::RequestResponse,
        _ => return None,
    })
}

pub(super) fn stage_of(text: &str) -> Option<Stage> {
    Some(match text {
        "RequestReceived" => Stage::RequestReceived,
        "ResponseStarted" => Stage::ResponseStarted,
        "ResponseComplete" => Stage::ResponseComplete,
        "Panic" => Stage::Panic,
        _ => return None,
    })
}

/// The findings of upstream's `ValidatePolicy` in Kubernetes 1.`minor`, in its order.
pub(super) fn validate(policy: &RawPolicy, minor: u32) -> Vec<Finding> {
    let mut found = Findings { minor, findings: Vec::new() };
    found.stages(&policy.omit_stages, "omitStages");
    for (i, rule) in policy.rules.items().iter().enumerate() {
        found.rule(rule, &format!("rules[{i}]"));
    }
    found.findings
}

struct Findings {
    minor: u32,
    findings: Vec<Finding>,
}

impl Findings {
    /// `shown` is upstream's name of the field.
    fn add(
        &mut self,
        stanza: &'static Stanza,
        place: Place,
        path: String,
        (shown, body): (&str, &str),
        help: Option<&str>,
        edit: Option<Edit>,
    ) {
        if self.findings.len() == MAX_FINDINGS {
            return;
        }
        let finding = Finding::new(stanza, place, path, format!("{shown}: {body}"));
        self.findings.push(Finding { help: help.map(str::to_string), edit, ..finding });
    }

    fn rule(&mut self, rule: &RawRule, path: &str) {
        self.level(&rule.level, format!("{path}.level"));
        self.urls(&rule.non_resource_urls, &format!("{path}.nonResourceURLs"));
        for (j, resources) in rule.resources.items().iter().enumerate() {
            self.resources(resources, &format!("{path}.resources[{j}]"), &format!("{path}.resources"));
        }
        self.stages(&rule.omit_stages, &format!("{path}.omitStages"));
        let is_resource_rule = !rule.resources.items().is_empty() || !rule.namespaces.items().is_empty();
        if !rule.non_resource_urls.items().is_empty() && is_resource_rule {
            let path = format!("{path}.nonResourceURLs");
            let body = invalid_list(
                &rule.non_resource_urls,
                "rules cannot apply to both regular resources and non-resource URLs",
            );
            self.add(
                MIXED_RULE,
                rule.non_resource_urls.place,
                path.clone(),
                (&path, &body),
                Some("split it into two rules"),
                None,
            );
        }
    }

    fn level(&mut self, level: &Word, path: String) {
        if level_of(&level.text).is_some() {
            return;
        }
        let body = if level.text.is_empty() {
            "Required value".to_string()
        } else {
            // A level has its own type, which upstream shows as JSON.
            let text = go_json(&level.text);
            format!(r#"Unsupported value: {text}: supported values: "None", "Metadata", "Request", "RequestResponse""#)
        };
        let edit = right_case(level, &["None", "Metadata", "Request", "RequestResponse"]);
        self.add(LEVEL, level.place, path.clone(), (&path, &body), None, edit);
    }

    fn urls(&mut self, urls: &List<Word>, path: &str) {
        for (j, Word { place, text }) in urls.items().iter().enumerate().filter(|(_, url)| url.text != "*") {
            let path = format!("{path}[{j}]");
            if !text.starts_with('/') {
                let body = invalid(text, "non-resource URL rules must begin with a '/' character");
                let is_all = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && !text.contains([':', '?']);
                let edit = is_all.then(|| Edit::new(*place, text, &format!("/{text}")));
                self.add(NON_RESOURCE_URL, *place, path.clone(), (&path, &body), None, edit);
            }
            // Upstream cuts off the last byte. The rest of a longer character contains no `*`.
            if text.strip_suffix('*').unwrap_or(text).contains('*') {
                let body = invalid(text, "non-resource URL wildcards '*' must be the final character of the rule");
                self.add(NON_RESOURCE_URL, *place, path.clone(), (&path, &body), None, None);
            }
        }
    }

    fn resources(&mut self, resources: &RawResources, path: &str, shown: &str) {
        let Word { place, text: group } = &resources.group;
        let is_every_group = group == "*" && self.minor >= 36;
        if !group.is_empty() && !is_every_group && !is_dns_subdomain(group) {
            let mut problems = Vec::new();
            if group.len() > 253 {
                problems.push("must be no more than 253 characters");
            }
            if !group.split('.').all(is_dns_label) {
                problems.push(
                    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                );
            }
            let help = if group == "*" {
                Some("\"*\" for every group exists only since Kubernetes 1.36: name the groups")
            } else if group.contains('/') {
                Some("name the group without its version")
            } else if is_dns_subdomain(&group.to_lowercase()) {
                Some("name the group in lower case")
            } else {
                None
            };
            let body = invalid(group, &problems.join(","));
            let name = group.split_once('/').map_or(group.as_str(), |(name, _version)| name).to_lowercase();
            let edit = is_dns_subdomain(&name).then(|| Edit::new(*place, group, &name));
            self.add(GROUP, *place, format!("{path}.group"), (&format!("{shown}.group"), &body), help, edit);
        }
        if !resources.resource_names.items().is_empty() && resources.resources.items().is_empty() {
            let body = invalid_list(&resources.resource_names, "using resourceNames requires at least one resource");
            let place = resources.resource_names.place;
            let path = format!("{path}.resourceNames");
            self.add(RESOURCE_NAMES, place, path, (&format!("{shown}.resourceNames"), &body), None, None);
        }
    }

    fn stages(&mut self, stages: &List<Word>, path: &str) {
        for (j, word) in stages.items().iter().enumerate() {
            let Word { place, text } = word;
            if stage_of(text).is_none() {
                let path = format!("{path}[{j}]");
                let body = invalid(text, "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic");
                let edit = right_case(word, &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]);
                self.add(STAGE, *place, path.clone(), (&path, &body), None, edit);
            }
        }
    }
}

/// The right spelling of a word that differs from one of `words` only in case.
fn right_case(Word { place, text }: &Word, words: &[&str]) -> Option<Edit> {
    let right = words.iter().find(|word| word.eq_ignore_ascii_case(text))?;
    Some(Edit::new(*place, text, right))
}

fn invalid(value: &str, why: &str) -> String {
    format!("Invalid value: {}: {why}", go_quoted(value))
}

fn invalid_list(values: &List<Word>, why: &str) -> String {
    format!("Invalid value: {}: {why}", go_json(&values.texts()))
}

/// Go escapes characters that have a meaning in HTML scripts.
fn go_json(value: &(impl Serialize + ?Sized)) -> String {
    let json = serde_json::to_string(value).expect("strings are JSON");
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

/// Go's `%q`, as far as Go and Rust agree on printable characters.
fn go_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            ' '..='~' => out.push(c),
            c if c < '\u{80}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.escape_debug().len() == 1 => out.push(c),
            c if c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// RFC 1123: labels of lower-case letters, digits and `-`, joined by dots.
pub(super) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Lower-case letters, digits and `-`, but no `-` at either end.
pub fn is_dns_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}
