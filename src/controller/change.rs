//! The difference between a Revision and the one before, in a few words for status and Events. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::revision::{KUBECONFIG_FILE, POLICY_FILE, Revision};

/// Empty for equal content.
pub(super) fn change(before: &Revision, after: &Revision) -> String {
    let mut parts = Vec::new();
    let (old, new) = (before.files(), after.files());
    let mut file = |name: &str, word: &str| match (old.get(name), new.get(name)) {
        (None, Some(_)) => parts.push(format!("{word} added")),
        (Some(_), None) => parts.push(format!("{word} removed")),
        (old, new) if old != new => parts.push(format!("{word} changed")),
        _ => {}
    };
    file(POLICY_FILE, "policy");
    file(KUBECONFIG_FILE, "webhook");
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names.into_iter().filter(|name| **name != POLICY_FILE && **name != KUBECONFIG_FILE) {
        file(name, name);
    }
    let (old, new) = (flags(before), flags(after));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).collect();
    let differ: Vec<String> = names.into_iter().map(|flag| format!("--{flag}")).collect();
    if !differ.is_empty() {
        parts.push(format!("{} changed", differ.join(", ")));
    }
    parts.join("; ")
}

/// Without those that name a file of the Revision, and so differ each time.
fn flags(revision: &Revision) -> BTreeMap<String, String> {
    let mut flags = revision.flags();
    flags.extend(revision.default_flags());
    flags.retain(|_, value| !value.starts_with(&revision.directory()));
    flags
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_told_in_words() {
        let revision = |policy: &str, log: serde_json::Value, webhook: Option<serde_json::Value>, drain: i64| {
            let content = json!({"policy": policy, "log": log, "webhook": webhook, "shutdownDelaySeconds": 2, "drainWatchesSeconds": drain});
            Revision::new(serde_json::from_value(content).unwrap())
        };
        let webhook = json!({"url": "https://a.example/", "credentials": "w-00000000", "delivery": {}});
        let with_ca = json!({"url": "https://a.example/", "credentials": "w-00000000", "delivery": {}, "tls": {"authorities": {"Revision": "c"}}});
        let days = |days: i64| json!({"maxAgeDays": days});
        let plain = revision("a", days(30), None, 3);
        let added = "--audit-webhook-initial-backoff, --audit-webhook-mode changed";
        for (after, want) in [
            (revision("b", days(30), None, 3), "policy changed".to_string()),
            (revision("a", days(30), Some(webhook), 3), format!("webhook added; {added}")),
            (
                revision("a", json!({"maxAgeDays": 7, "path": "-"}), None, 0),
                "--audit-log-maxage, --audit-log-maxbackup, --audit-log-maxsize, --audit-log-path, --shutdown-watch-termination-grace-period changed".into(),
            ),
            (revision("a", days(30), Some(with_ca), 3), format!("webhook added; ca.crt added; {added}")),
            (plain.clone(), String::new()),
        ] {
            assert_eq!(change(&plain, &after), want);
        }
    }
}
