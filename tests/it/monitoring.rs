//! The alerts and the dashboard of the chart name metrics and labels that the programs have. Tests of the library
//! compare tests/monitoring/samples with the programs; `make test-monitoring` runs the queries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use testing::golden::cases;
use testing::root;

const FILES: [&str; 2] = ["charts/audit-operator/files/alerts.yaml", "charts/audit-operator/files/dashboard.json"];

/// Labels by the name of the sample.
fn samples() -> BTreeMap<String, BTreeSet<String>> {
    let mut samples = BTreeMap::<_, BTreeSet<_>>::new();
    for path in cases("tests/monitoring/samples") {
        let text = fs::read_to_string(path).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels) = selector(line);
            samples.entry(name.to_string()).or_default().extend(labels);
        }
    }
    samples
}

/// The name of a metric and the labels in the braces behind it.
fn selector(text: &str) -> (&str, Vec<String>) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let inside = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
    let labels = inside.split(',').filter_map(|label| label.split_once(['=', '!'])).map(|(label, _)| label.to_string());
    (name, labels.collect())
}

#[test]
fn alerts_and_dashboard_use_only_metrics_and_labels_that_exist() {
    let samples = samples();
    for file in FILES {
        let text = fs::read_to_string(root().join(file)).unwrap().replace("\\\"", "\"");
        let mut names = BTreeSet::new();
        for (start, _) in text.match_indices("audit_operator_").chain(text.match_indices("audit_receiver_")) {
            let (name, labels) = selector(&text[start..]);
            let have = samples.get(name).unwrap_or_else(|| panic!("{file}: no program has {name}"));
            for label in labels {
                assert!(have.contains(&label), "{file}: {name} has no label {label}");
            }
            names.insert(name);
        }
        assert!(names.len() > 10, "{file}: {names:?}");
        // Those that Prometheus adds, and those of the programs.
        let known = |label: &str| ["job", "instance"].contains(&label) || samples.values().any(|it| it.contains(label));
        for by in text.split(" by (").skip(1).filter_map(|rest| rest.split_once(')')).map(|(by, _)| by) {
            assert!(by.split(", ").all(known), "{file}: by ({by})");
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_documentation_and_cases_that_fire_and_that_do_not() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let (alerts, page, tests) = (read(FILES[0]), read("docs/alerts.md"), read("tests/monitoring/alerts_test.yaml"));
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(names, sections);
    for (name, rule) in names.iter().zip(alerts.split("- alert: ").skip(1)) {
        let url = format!("/docs/alerts.md#{}\n", name.to_lowercase());
        assert!(rule.contains(&url) && rule.contains("summary: ") && rule.contains("description: "), "{rule}");
        let cases: Vec<&str> = tests.split("- name: '").filter(|case| case.starts_with(&format!("{name}: "))).collect();
        let fires = cases.iter().filter(|case| case.contains("exp_samples: [{")).count();
        assert!(fires > 0 && fires < cases.len(), "{name}: {fires} of {} cases fire", cases.len());
        // A label that the alert does not have is an empty text in its message.
        let fired = cases.iter().find(|case| case.contains("exp_samples: [{")).unwrap().rsplit("exp_samples").next();
        for label in rule.split("$labels.").skip(1).filter_map(|rest| rest.split_once(' ')).map(|(label, _)| label) {
            assert!(fired.unwrap().contains(&format!("{label}=\"")), "{name} has no label {label}");
        }
    }
}
