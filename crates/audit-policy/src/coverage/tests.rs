use super::*;
use crate::Preset;
use crate::{preset, presets, read};

fn outcomes(rules: &str) -> Vec<(&'static str, Coverage)> {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}\n");
    coverage(&read(&text).unwrap()).iter().map(|item| (item.id, item.outcome)).collect()
}

#[test]
fn every_item_asks_for_something_once() {
    let mut seen = BTreeSet::new();
    for (standard, item) in STANDARDS.iter().flat_map(|s| s.items.iter().map(|item| (&s.standard, item))) {
        assert!(seen.insert((standard, &item.id)), "{standard} {}", item.id);
        for demand in &item.demands {
            assert!(!demand.by.is_empty() && !demand.requests.is_empty(), "{standard} {}", item.id);
            assert!(Level::None < demand.least && demand.least <= demand.most, "{standard} {}", item.id);
        }
    }
}

#[test]
fn a_policy_that_records_nothing_meets_nothing() {
    for (id, outcome) in outcomes("rules: [{level: None}]") {
        assert_eq!(outcome, Coverage::NotMet, "{id}");
    }
    // A policy without the stage of the outcome does not meet it either; failed authentication has another stage.
    for (id, outcome) in outcomes("omitStages: [ResponseComplete]\nrules: [{level: Metadata}]") {
        assert_ne!(outcome, Coverage::Met, "{id}");
    }
}

#[test]
fn one_rule_for_everything_meets_what_its_level_allows() {
    let everything = |level: &str| outcomes(&format!("rules: [{{level: {level}}}]"));
    for (id, outcome) in everything("RequestResponse") {
        let is_about_secrets = ["3.2.2 Secrets", "3.2.2 ConfigMaps, TokenReviews", "policy, Secrets"].contains(&id);
        assert_eq!(outcome, if is_about_secrets { Coverage::NotMet } else { Coverage::Met }, "{id}");
    }
    for (id, outcome) in everything("Metadata") {
        let want = match id {
            "policy, changes" | "policy, reads" | "V-242403" => Coverage::NotMet,
            "10.2.1.5" => Coverage::Partly,
            _ => Coverage::Met,
        };
        assert_eq!(outcome, want, "{id}");
    }
}

#[test]
fn what_falls_short_is_told_with_the_rule_that_decides() {
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [ResponseStarted]\nrules:\n\
                - {level: Request, verbs: [get], users: [alice], resources: [{group: '', resources: [secrets]}]}\n- {level: Metadata}\n";
    let items = coverage(&read(text).unwrap());
    let item = |id: &str| items.iter().find(|item| item.id == id).unwrap();
    let secrets = item("3.2.2 Secrets");
    assert_eq!((secrets.outcome, secrets.requests, &secrets.rules), (Coverage::Partly, 27, &BTreeSet::from([1])));
    let want = Shortfall {
        user: Some("alice".into()),
        method: "GET",
        url: "/api/v1/namespaces/shop/secrets/db",
        least: Level::Metadata,
        most: Level::Metadata,
        level: Level::Request,
        rule: Some(0),
    };
    assert_eq!(secrets.shortfalls, [want]);
    // Failed authentication has its event at a stage that is omitted here.
    let refused = &item("10.2.1.4").shortfalls;
    assert!(refused.iter().all(|short| short.user.is_none() && short.level == Level::None && short.rule == Some(1)));
    assert_eq!(refused.len(), 8);
}

#[test]
fn each_preset_meets_what_it_is_for() {
    for (name, standard) in [
        (Preset::Cis, "CIS"),
        (Preset::Nsa, "NSA"),
        (Preset::StigLiteral, "DISA"),
        (Preset::StigTailored, "PCI"),
        (Preset::Nsa, "PCI"),
    ] {
        let found = preset(name);
        let items: Vec<_> =
            coverage(&found.policy).into_iter().filter(|item| item.standard.starts_with(standard)).collect();
        assert!(!items.is_empty());
        for item in items {
            assert_eq!(item.outcome, Coverage::Met, "{} {}: {:#?}", found.name, item.id, item.shortfalls);
        }
    }
    // Only the deviation that the file states.
    let tailored = coverage(&preset(Preset::StigTailored).policy);
    let literal = tailored.iter().find(|item| item.id == "V-242403").unwrap();
    let is_stated = |url: &str| url.contains("secrets") || url.contains("token") || url == "/readyz";
    assert!(literal.outcome == Coverage::Partly && literal.shortfalls.iter().all(|short| is_stated(short.url)));
    // Each has a minimal policy, and only the literal one records Secrets with bodies.
    for found in presets() {
        for item in coverage(&found.policy) {
            let is_minimal = ["3.2.1", "V-242461"].contains(&item.id);
            let is_literal = found.name.starts_with("stig-literal");
            let exposes = item.id == "3.2.2 Secrets" && item.shortfalls.iter().any(|short| short.level > short.most);
            assert!(!is_minimal || item.outcome == Coverage::Met, "{} {}", found.name, item.id);
            assert_eq!(exposes, is_literal && item.id == "3.2.2 Secrets", "{} {}", found.name, item.id);
        }
    }
}
