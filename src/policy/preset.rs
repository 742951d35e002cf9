//! The policies that come with the operator, as data files. A file is never changed once released: a new version gets a new
//! file and name, and the name stands in the rendered policy and in status.

use super::{Policy, read};
use crate::api::Preset;

/// A policy that comes with the operator.
#[derive(Clone, Debug)]
pub struct PresetPolicy {
    /// Name and version, as `gce-2026.1`.
    pub name: &'static str,
    /// The file, with a comment for each rule.
    pub text: &'static str,
    pub policy: Policy,
}

/// The newest version of each preset.
pub fn presets() -> Vec<PresetPolicy> {
    [Preset::Metadata, Preset::Gce].map(preset).into()
}

/// The newest version of a preset.
pub fn preset(preset: Preset) -> PresetPolicy {
    let (name, text) = match preset {
        Preset::Metadata => ("metadata-2026.1", include_str!("presets/metadata-2026.1.yaml")),
        Preset::Gce => ("gce-2026.1", include_str!("presets/gce-2026.1.yaml")),
    };
    PresetPolicy { name, text, policy: read(text).expect("the tests read every preset") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Level, PolicyRule};
    use crate::policy::load;

    const ALL: [Preset; 2] = [Preset::Metadata, Preset::Gce];

    fn resources(rule: &PolicyRule) -> impl Iterator<Item = (&str, &str)> {
        rule.resources.iter().flat_map(|r| r.resources.iter().map(|name| (r.group.as_str(), name.as_str())))
    }

    #[test]
    fn every_preset_starts_any_supported_api_server_and_ends_with_a_rule_for_everything() {
        for one in ALL {
            let PresetPolicy { name, text, policy } = preset(one);
            assert!(load(text.as_bytes(), 20).policy.is_some(), "{name}");
            let last = policy.rules.last().unwrap();
            let everything = PolicyRule { level: Level::Metadata, ..EVERYTHING };
            assert_eq!(*last, everything, "{name}");
            assert_eq!(policy.rules.iter().filter(|r| **r == everything).count(), 1, "{name}");
        }
    }

    const EVERYTHING: PolicyRule = PolicyRule {
        level: Level::None,
        users: Vec::new(),
        user_groups: Vec::new(),
        verbs: Vec::new(),
        resources: Vec::new(),
        namespaces: Vec::new(),
        non_resource_urls: Vec::new(),
        omit_stages: Vec::new(),
        omit_managed_fields: None,
    };

    #[test]
    fn every_rule_of_a_preset_says_why_it_is_there() {
        for one in ALL {
            let PresetPolicy { name, text, .. } = preset(one);
            let lines: Vec<_> = text.lines().collect();
            for (i, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - level:")) {
                let continues = lines[..i].iter().rev().take_while(|l| !l.is_empty()).any(|l| l.starts_with("  # "));
                assert!(continues, "{name}, line {}: {line}", i + 1);
            }
        }
    }

    #[test]
    fn no_preset_records_a_body_that_holds_a_secret() {
        let secret = [
            ("", "secrets"),
            ("", "configmaps"),
            ("", "serviceaccounts/token"),
            ("authentication.k8s.io", "tokenreviews"),
        ];
        let PresetPolicy { policy, .. } = preset(Preset::Gce);
        let guard =
            policy.rules.iter().position(|r| secret.iter().all(|s| resources(r).any(|have| have == *s))).unwrap();
        assert_eq!(policy.rules[guard].level, Level::Metadata);
        assert!(policy.rules[..guard].iter().all(|r| r.level <= Level::Metadata));
    }

    #[test]
    fn the_gce_preset_has_no_users_that_no_longer_exist_and_no_group_that_is_gone() {
        let PresetPolicy { policy, .. } = preset(Preset::Gce);
        for rule in &policy.rules {
            assert!(!rule.users.iter().any(|u| u == "system:unsecured" || u == "kubelet"));
            assert!(!rule.resources.iter().any(|r| r.group == "extensions"));
        }
    }
}
