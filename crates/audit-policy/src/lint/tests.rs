use proptest::prelude::*;

use super::reach::{Fresh, Name, Reach, reach};
use super::*;
use crate::evaluate::tests::{any_request, any_rule};
use crate::{Attributes, Part, presets, write};
use crate::{PolicyRule, STANZAS};

const TERMS: Terms = Terms { minor: 36, secrets_accepted: false, mode: Mode::Batch, floor: &[] };

fn policy(rules: &str) -> Policy {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n");
    load(text.as_bytes(), 36).policy.unwrap()
}

fn reached(policy: &Policy) -> Vec<Reach> {
    reach(policy, &Evaluator::new(policy), &Fresh::of(policy))
}

/// For each rule: "reached", the rules that take all its requests, or its dead names.
fn told(rules: &str) -> Vec<String> {
    let tell = |reach| match reach {
        Reach::Reached { dead } if dead.is_empty() => "reached".to_string(),
        Reach::Reached { dead } => {
            dead.iter().map(|(name, takers)| format!("{name} {takers:?}")).collect::<Vec<_>>().join(", ")
        }
        Reach::Unreachable { takers } => format!("by {takers:?}"),
        Reach::TooLarge => "too large".to_string(),
    };
    reached(&policy(rules)).into_iter().map(tell).collect()
}

#[test]
fn a_rule_is_unreachable_only_if_nothing_is_left_of_it() {
    for (earlier, later, want) in [
        // Users and groups. Neither matches a request without a user.
        ("users: [a, b]", "users: [b]", "by [0]"),
        ("users: [a]", "users: [a, b]", "users[0] [0]"),
        ("users: [a]", "verbs: [get]", "reached"),
        ("userGroups: [g, h]", "userGroups: [h]", "by [0]"),
        ("userGroups: [g]", "users: [a]", "reached"),
        ("userGroups: [g]", "users: [a], userGroups: [g]", "by [0]"),
        ("users: [a]", "userGroups: [g]", "reached"),
        // Verbs and namespaces.
        ("verbs: [get, list]", "verbs: [list]", "by [0]"),
        ("verbs: [get, list, watch, create, update, patch, delete, deletecollection]", "users: [a]", "reached"),
        ("namespaces: [x, '']", "namespaces: ['']", "by [0]"),
        ("namespaces: [x]", "namespaces: [x], verbs: [get]", "by [0]"),
        ("namespaces: ['']", "resources: [{resources: [nodes]}]", "reached"),
        // Resources.
        ("resources: [{}]", "resources: [{resources: [pods, 'nodes/*']}]", "by [0]"),
        ("resources: [{group: '*'}]", "resources: [{group: apps}, {group: ''}]", "by [0]"),
        ("resources: [{group: '*'}]", "namespaces: [x]", "by [0]"),
        ("resources: [{group: apps}]", "resources: [{group: '*'}]", "reached"),
        ("resources: [{resources: ['*']}]", "resources: [{}]", "by [0]"),
        ("resources: [{resources: ['pods/*']}]", "resources: [{resources: [pods, pods/log]}]", "by [0]"),
        ("resources: [{resources: [pods, pods/log]}]", "resources: [{resources: ['pods/*']}]", "reached"),
        (
            "resources: [{resources: ['*/log']}]",
            "resources: [{resources: [pods/log, pods]}]",
            "resources[0].resources[0] [0]",
        ),
        ("resources: [{resources: [pods/log]}]", "resources: [{resources: ['*/log']}]", "reached"),
        ("resources: [{resources: ['*/*']}]", "resources: [{resources: [pods]}]", "reached"),
        ("resources: [{resources: [pods], resourceNames: [k]}]", "resources: [{resources: [pods]}]", "reached"),
        (
            "resources: [{resources: ['*'], resourceNames: [k]}]",
            "resources: [{resources: [pods], resourceNames: [m, k]}]",
            "resources[0].resourceNames[1] [0]",
        ),
        ("resources: [{}]", "resources: [{}, {group: apps}]", "resources[0] [0]"),
        // Everything else.
        ("nonResourceURLs: ['/a*']", "nonResourceURLs: [/a, '/ab*', '/a/*']", "by [0]"),
        ("nonResourceURLs: ['/a/*']", "nonResourceURLs: ['/a*', '/a/b']", "nonResourceURLs[1] [0]"),
        ("nonResourceURLs: [/a]", "nonResourceURLs: ['/a*']", "reached"),
        ("nonResourceURLs: ['*']", "nonResourceURLs: ['/']", "by [0]"),
        ("nonResourceURLs: ['*']", "users: [a]", "reached"),
        ("users: []", "nonResourceURLs: ['*']", "by [0]"),
    ] {
        let found = told(&format!("- {{level: None, {earlier}}}\n- {{level: Metadata, {later}}}"));
        assert_eq!(found[1], want, "{earlier} before {later}");
    }
}

#[test]
fn rules_take_the_requests_of_another_together() {
    assert_eq!(
        told(
            "- {level: None, verbs: [get], namespaces: [a, b]}\n- {level: None, verbs: [list]}\n\
             - {level: Metadata, verbs: [get, list], namespaces: [a]}\n- {level: Metadata, verbs: [get, list], namespaces: [c]}"
        )[2..],
        ["by [0, 1]", "verbs[1] [1]"]
    );
    // A request is for a resource or it is not.
    assert_eq!(
        told(
            "- {level: None, resources: [{group: '*'}]}\n- {level: None, nonResourceURLs: ['*']}\n- {level: Metadata}"
        )[2],
        "by [0, 1]"
    );
}

#[test]
fn a_rule_with_too_many_combinations_is_not_judged_and_costs_nothing() {
    let names: Vec<String> = (0..3000).map(|n| format!("n{n}")).collect();
    let list = names.join(", ");
    let rules = format!(
        "- {{level: None}}\n- {{level: None, users: [{list}], namespaces: [{list}], resources: [{{resources: [{list}], resourceNames: [{list}]}}]}}"
    );
    assert_eq!(told(&rules), ["reached", "too large"]);
}

#[test]
fn presets_have_neither_errors_nor_warnings_on_any_version() {
    // To the letter, these benchmarks demand policies with findings.
    let is_to_the_letter =
        |name: &str| ["nsa-", "stig-", "openshift-", "falco-"].iter().any(|one| name.starts_with(one));
    for preset in presets() {
        for minor in [26, 30, 37] {
            let terms = Terms { minor, mode: Mode::Blocking, secrets_accepted: true, floor: &[] };
            let linted = lint(preset.text.as_bytes(), &terms);
            let least = if is_to_the_letter(preset.name) { Severity::Error } else { Severity::Warning };
            let bad: Vec<_> = linted.findings.iter().filter(|finding| finding.severity >= least).collect();
            assert!(bad.is_empty(), "{} on 1.{minor}: {bad:#?}", preset.name);
        }
    }
}

#[test]
fn every_stanza_has_an_id_of_its_own_and_its_texts() {
    let mut ids: Vec<&str> = STANZAS.iter().map(|stanza| stanza.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), STANZAS.len());
    for Stanza { id, about, why, fix, edit, source, .. } in STANZAS {
        assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{id}");
        assert!(about.ends_with('.') && why.ends_with('.') && !fix.ends_with('.'), "{id}");
        assert!(edit.is_none_or(|edit| edit.ends_with('.')) && !source.is_empty(), "{id}");
    }
}

#[test]
fn a_correction_touches_nothing_but_what_it_corrects() {
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n  nonResourceURLs: ['/*']\n";
    for (rules, want) in [
        ("- level: Metadata\n  verbs: [ \"*\" ] # all\n", Some("- level: Metadata\n  verbs: [] # all\n")),
        ("- level: Metadata\n  verbs:\n  -   '*'\n", Some("- level: Metadata\n  verbs: []\n")),
        ("- level: Metadata\n  verbs: [[\n", None),
        ("- level: Metadata\n  users: [on , \"x\"]\n", Some("- level: Metadata\n  users: [\"on\" , \"x\"]\n")),
        ("- {level: metadata}\n", Some("- {level: Metadata}\n")),
        ("- {\"level\": 'metadata'}\r\n", Some("- {\"level\": 'Metadata'}\r\n")),
        // The text differs from the value: an escape, a folded scalar.
        ("- {level: Metadata, verbs: [\"G\\x45T\"]}\n", None),
        ("- level: Metadata\n  verbs: [>-\n    GET]\n", None),
        ("- level: Metadata\n  verbs:\n  # all\n  - '*'\n", None),
        ("- {level: Metadata, verb: [get], verbs: [list]}\n", None),
        ("- {level: Metadata, verb: get}\n", None),
    ] {
        let text = format!("{head}{rules}");
        let fixed = fix(text.as_bytes(), &TERMS).unwrap_or_default().text.map(|text| String::from_utf8(text).unwrap());
        assert_eq!(fixed, want.map(|want| format!("{head}{want}")), "{rules}");
    }
    let marked = "\u{feff}apiVersion: audit.k8s.io/v1beta1 # ü\nrules: [{level: none}]\n";
    let fixed = fix(marked.as_bytes(), &TERMS).unwrap();
    assert_eq!(
        String::from_utf8(fixed.text.unwrap()).unwrap(),
        "\u{feff}apiVersion: audit.k8s.io/v1 # ü\nrules: [{level: None}]\n"
    );
    assert!(matches!(fix(b"\xff", &TERMS), Err(FixError::NotUtf8)));
}

/// As in URLs: no segment contains a slash.
fn is_possible(request: &Attributes) -> bool {
    !request.resource.contains('/') && !request.subresource.contains('/')
}

/// The rule with only one name in that name's list.
fn only(rule: &PolicyRule, name: Name) -> PolicyRule {
    let mut rule = rule.clone();
    let keep = |list: &mut Vec<String>, i: usize| *list = vec![list[i].clone()];
    match name {
        Name::User(i) => keep(&mut rule.users, i),
        Name::Group(i) => keep(&mut rule.user_groups, i),
        Name::Verb(i) => keep(&mut rule.verbs, i),
        Name::Namespace(i) => keep(&mut rule.namespaces, i),
        Name::Url(i) => keep(&mut rule.non_resource_urls, i),
        Name::Entry(i) | Name::Pattern(i, _) | Name::Object(i, _) => {
            rule.resources = vec![rule.resources[i].clone()];
            let entry = &mut rule.resources[0];
            match name {
                Name::Pattern(_, j) => keep(&mut entry.resources, j),
                Name::Object(_, j) => keep(&mut entry.resource_names, j),
                _ => {}
            }
        }
    }
    rule
}

/// Rules that kube-apiserver accepts.
fn rules(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<PolicyRule>> {
    let valid = any_rule().prop_map(|mut rule| {
        for entry in &mut rule.resources {
            if entry.resources.is_empty() {
                entry.resource_names.clear();
            }
        }
        if !rule.resources.is_empty() || !rule.namespaces.is_empty() {
            rule.non_resource_urls.clear();
        }
        rule.non_resource_urls.retain(|url| url != "/a**");
        rule
    });
    prop::collection::vec(valid, count)
}

proptest! {
    #[test]
    fn what_is_unreachable_or_dead_decides_no_request(
        rules in rules(1..7),
        requests in prop::collection::vec(any_request().prop_filter("a URL", is_possible), 100),
    ) {
        let policy = Policy { rules, ..Policy::default() };
        let evaluator = Evaluator::new(&policy);
        for (i, reach) in reached(&policy).into_iter().enumerate() {
            match reach {
                Reach::Unreachable { takers } => {
                    prop_assert!(takers.iter().all(|taker| *taker < i));
                    for request in &requests {
                        prop_assert_ne!(evaluator.decide(request).rule, Some(i), "{:?}", request);
                    }
                }
                Reach::Reached { dead } => {
                    for (name, _) in dead {
                        let mut narrow = policy.clone();
                        narrow.rules[i] = only(&policy.rules[i], name);
                        let evaluator = Evaluator::new(&narrow);
                        for request in &requests {
                            prop_assert_ne!(evaluator.decide(request).rule, Some(i), "{} {:?}", name, request);
                        }
                    }
                }
                Reach::TooLarge => prop_assert!(false, "these rules are small"),
            }
        }
    }

    #[test]
    fn a_rule_that_is_reached_is_hit_and_each_name_that_is_alive_too(rules in rules(1..7)) {
        let policy = Policy { rules, ..Policy::default() };
        let fresh = Fresh::of(&policy);
        for (i, reach) in reached(&policy).into_iter().enumerate() {
            let Reach::Reached { dead } = reach else { continue };
            for name in policy.rules[i].names().into_iter().filter(|name| dead.iter().all(|(one, _)| one != name)) {
                let mut narrow = policy.clone();
                narrow.rules[i] = only(&policy.rules[i], name);
                let evaluator = Evaluator::new(&narrow);
                let witnesses = reach::Witnesses::of(&narrow.rules[i], &fresh, false).unwrap();
                let hit = witnesses.visit(|_, request| match evaluator.decide(request).rule {
                    Some(rule) if rule == i => std::ops::ControlFlow::Break(()),
                    _ => std::ops::ControlFlow::Continue(()),
                });
                // Some patterns match nothing.
                let text = policy.rules[i].name(name);
                prop_assert!(hit.is_some() || text.contains('/'), "{} of {:?}", name, policy.rules[i]);
            }
        }
    }

    #[test]
    fn what_stops_nothing_starts_and_what_starts_is_stopped_by_nothing(rules in rules(0..6), minor in 26_u32..38, cut in any::<prop::sample::Index>()) {
        let whole = write(&[Part { title: "all".into(), rules }], &[], false);
        let cut = &whole[..whole.floor_char_boundary(cut.index(whole.len() + 1))];
        for text in [&whole, cut] {
            let linted = lint(text.as_bytes(), &Terms { minor, ..TERMS });
            let stops = linted.findings.iter().any(|finding| finding.stops_start);
            prop_assert_eq!(linted.policy.is_some(), !stops, "{}", text);
        }
    }

    #[test]
    fn a_correction_is_accepted_and_leaves_nothing_to_correct(
        mut rules in rules(1..6),
        words in prop::collection::vec(prop::sample::select(vec!["*", "GET", "core", "pod", "Secret", "*/*", "deployments", "on"]), 4),
    ) {
        for (rule, word) in rules.iter_mut().zip(&words) {
            rule.verbs = vec![word.to_string()];
            if let Some(entry) = rule.resources.first_mut() {
                entry.resources = vec![word.to_string()];
            }
        }
        let text = write(&[Part { title: "all".into(), rules: rules.clone() }], &[], false);
        let before = lint(text.as_bytes(), &TERMS);
        let Fixed { text: fixed, declined, .. } = fix(text.as_bytes(), &TERMS).unwrap();
        let fixed = fixed.unwrap_or_else(|| text.clone().into_bytes());
        let after = lint(&fixed, &TERMS);
        prop_assert_eq!(after.policy.as_ref().map(|policy| policy.rules.len()), Some(rules.len()));
        let is_declined = |finding: &Finding| declined.iter().any(|declined| declined.finding.path == finding.path);
        prop_assert!(after.findings.iter().all(|finding| finding.edit.is_none() || is_declined(finding)), "{:#?}", after.findings);
        prop_assert!(fix(&fixed, &TERMS).unwrap().text.is_none());
        // A declined edit would do harm; an applied one does none.
        let leaks = |linted: &Linted| linted.findings.iter().filter(|finding| finding.id == "secret-bodies").count();
        prop_assert!(before.policy.is_none() || leaks(&after) <= leaks(&before), "{}", text);
        // No correction changes level or order.
        let levels = |rules: &[PolicyRule]| rules.iter().map(|rule| rule.level).collect::<Vec<_>>();
        prop_assert_eq!(levels(&after.policy.unwrap().rules), levels(&rules));
    }
}
