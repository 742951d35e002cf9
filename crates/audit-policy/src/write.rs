//! Writes a policy as YAML that every parser reads in the same way. All strings are quoted, so that none is a boolean
//! or a number in YAML 1.1. Equal policies have equal bytes.

use std::fmt::Write;

use super::Policy;
use crate::{GroupResources, PolicyRule, Stage};

/// Some rules of a policy and their origin.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// For the comment above them: `preset gce-2026.1`.
    pub title: String,
    pub rules: Vec<PolicyRule>,
}

/// Writes the parts as one policy, each below its title.
pub fn write(parts: &[Part], omit_stages: &[Stage], omit_managed_fields: bool) -> String {
    let mut out = String::from("# Written by audit-operator. Change the AuditSetup instead.\n");
    out.push_str("apiVersion: audit.k8s.io/v1\nkind: Policy\n");
    if !omit_stages.is_empty() {
        line(&mut out, 0, &format!("omitStages: {}", stages(omit_stages)));
    }
    if omit_managed_fields {
        line(&mut out, 0, "omitManagedFields: true");
    }
    line(&mut out, 0, "rules:");
    for part in parts.iter().filter(|part| !part.rules.is_empty()) {
        line(&mut out, 2, &format!("# {}", part.title));
        for one in &part.rules {
            rule(&mut out, one);
        }
    }
    out
}

impl Part {
    /// The part that contains a rule of the whole policy, and the rule's index in the part.
    pub fn of_rule(parts: &[Self], rule: usize) -> Option<(&Self, usize)> {
        let mut index = rule;
        for part in parts {
            match index.checked_sub(part.rules.len()) {
                None => return Some((part, index)),
                Some(rest) => index = rest,
            }
        }
        None
    }
}

impl Policy {
    /// The policy that the parts form.
    pub fn of(parts: &[Part], omit_stages: &[Stage], omit_managed_fields: bool) -> Self {
        let rules = parts.iter().flat_map(|part| part.rules.clone()).collect();
        Self { rules, omit_stages: omit_stages.to_vec(), omit_managed_fields }
    }
}

fn rule(out: &mut String, rule: &PolicyRule) {
    // Every field is named, so that a new one cannot be forgotten.
    let PolicyRule {
        level,
        users,
        user_groups,
        verbs,
        resources,
        namespaces,
        non_resource_urls,
        omit_stages,
        omit_managed_fields,
    } = rule;
    line(out, 2, &format!("- level: {level:?}"));
    let mut list = |name: &str, values: &[String]| {
        if !values.is_empty() {
            line(out, 4, &format!("{name}: {}", strings(values)));
        }
    };
    list("users", users);
    list("userGroups", user_groups);
    list("verbs", verbs);
    list("namespaces", namespaces);
    list("nonResourceURLs", non_resource_urls);
    if !resources.is_empty() {
        line(out, 4, "resources:");
        for GroupResources { group, resources, resource_names } in resources {
            line(out, 6, &format!("- group: {}", quoted(group)));
            if !resources.is_empty() {
                line(out, 8, &format!("resources: {}", strings(resources)));
            }
            if !resource_names.is_empty() {
                line(out, 8, &format!("resourceNames: {}", strings(resource_names)));
            }
        }
    }
    if !omit_stages.is_empty() {
        line(out, 4, &format!("omitStages: {}", stages(omit_stages)));
    }
    if let Some(omit) = omit_managed_fields {
        line(out, 4, &format!("omitManagedFields: {omit}"));
    }
}

fn line(out: &mut String, indent: usize, text: &str) {
    writeln!(out, "{:indent$}{text}", "").expect("a String takes everything");
}

fn strings(values: &[String]) -> String {
    let all: Vec<_> = values.iter().map(|v| quoted(v)).collect();
    format!("[{}]", all.join(", "))
}

fn stages(stages: &[Stage]) -> String {
    let all: Vec<_> = stages.iter().map(|stage| format!("{stage:?}")).collect();
    format!("[{}]", all.join(", "))
}

/// A double-quoted scalar. It is the same in YAML 1.1, YAML 1.2 and JSON, except for the escapes of astral characters.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            // Printable in YAML 1.1. Everything else is escaped, since its parser rejects it otherwise.
            '\u{a1}'..='\u{d7ff}' if !matches!(c, '\u{2028}' | '\u{2029}') => out.push(c),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes everything"),
            c => write!(out, "\\U{:08x}", u32::from(c)).expect("a String takes everything"),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Level;
    use crate::read;

    fn text() -> impl Strategy<Value = String> {
        // Random text, and text that YAML readers misread.
        prop_oneof![
            any::<String>(),
            "[ -~]{0,12}",
            prop::sample::select(vec![
                "on", "no", "y", "~", "null", "1_000", "0o17", "1e3", "", "- a", "a: b", "# c", "\u{85}", "\u{feff}"
            ])
            .prop_map(str::to_string),
        ]
    }

    fn texts() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec(text(), 0..3)
    }

    fn stage() -> impl Strategy<Value = Stage> {
        prop::sample::select(vec![
            Stage::RequestReceived,
            Stage::ResponseStarted,
            Stage::ResponseComplete,
            Stage::Panic,
        ])
    }

    fn any_rule() -> impl Strategy<Value = PolicyRule> {
        let level = prop::sample::select(vec![Level::None, Level::Metadata, Level::Request, Level::RequestResponse]);
        let group = (text(), texts(), texts()).prop_map(|(group, resources, resource_names)| GroupResources {
            group,
            resources,
            resource_names,
        });
        (
            (level, texts(), texts(), texts(), prop::collection::vec(group, 0..3)),
            (texts(), texts(), prop::collection::vec(stage(), 0..3), any::<Option<bool>>()),
        )
            .prop_map(
                |(
                    (level, users, user_groups, verbs, resources),
                    (namespaces, non_resource_urls, omit_stages, omit_managed_fields),
                )| PolicyRule {
                    level,
                    users,
                    user_groups,
                    verbs,
                    resources,
                    namespaces,
                    non_resource_urls,
                    omit_stages,
                    omit_managed_fields,
                },
            )
    }

    proptest! {
        #[test]
        fn a_written_policy_is_read_back_the_same(
            rules in prop::collection::vec(any_rule(), 1..4),
            omit_stages in prop::collection::vec(stage(), 0..4),
            omit_managed_fields: bool,
        ) {
            let parts = [Part { title: "one".into(), rules: rules.clone() }];
            let text = write(&parts, &omit_stages, omit_managed_fields);
            prop_assert_eq!(read(&text), Ok(Policy { rules, omit_stages, omit_managed_fields }), "{}", text);
        }
    }
}
