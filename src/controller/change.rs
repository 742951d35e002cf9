//! What a Revision changes against the one before, in a few words for status and Events. Pure.

use std::collections::BTreeSet;

use crate::revision::{Content, KUBECONFIG_FILE, POLICY_FILE};

/// Empty for equal content.
pub(super) fn change(before: &Content, after: &Content) -> String {
    let mut parts = Vec::new();
    let mut file = |name: &str, word: &str| match (before.files.get(name), after.files.get(name)) {
        (None, Some(_)) => parts.push(format!("{word} added")),
        (Some(_), None) => parts.push(format!("{word} removed")),
        (old, new) if old != new => parts.push(format!("{word} changed")),
        _ => {}
    };
    file(POLICY_FILE, "policy");
    file(KUBECONFIG_FILE, "webhook");
    let names: BTreeSet<_> = before.files.keys().chain(after.files.keys()).collect();
    for name in names.into_iter().filter(|name| *name != POLICY_FILE && *name != KUBECONFIG_FILE) {
        file(name, name);
    }
    let differ: BTreeSet<_> =
        flags(before).symmetric_difference(&flags(after)).map(|(flag, _)| format!("--{flag}")).collect();
    if !differ.is_empty() {
        parts.push(format!("{} changed", Vec::from_iter(differ).join(", ")));
    }
    parts.join("; ")
}

fn flags(content: &Content) -> BTreeSet<(&String, &String)> {
    content.flags.iter().chain(&content.default_flags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_words() {
        let content = |files: &[(&str, &str)], flags: &[(&str, &str)], drain| Content {
            files: files.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect(),
            flags: flags.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            log_directory: None,
            log_bytes: 0,
            default_flags: [("shutdown-watch-termination-grace-period".to_string(), format!("{drain}s"))].into(),
        };
        let plain = content(&[(POLICY_FILE, "a")], &[("audit-log-maxage", "30")], 3);
        let cases = [
            (content(&[(POLICY_FILE, "b")], &[("audit-log-maxage", "30")], 3), "policy changed"),
            (content(&[(POLICY_FILE, "a"), (KUBECONFIG_FILE, "k")], &[("audit-log-maxage", "30")], 3), "webhook added"),
            (
                content(
                    &[(POLICY_FILE, "a"), ("ca.crt", "c")],
                    &[("audit-log-maxage", "7"), ("audit-log-path", "-")],
                    0,
                ),
                "ca.crt added; --audit-log-maxage, --audit-log-path, --shutdown-watch-termination-grace-period changed",
            ),
            (plain.clone(), ""),
        ];
        for (after, want) in cases {
            assert_eq!(change(&plain, &after), want);
        }
    }
}
