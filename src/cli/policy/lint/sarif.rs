//! Findings as SARIF 2.1.0, which code scanning reads: one run for all files.

use std::fmt::Write;

use serde_json::{Value, json};

use audit_policy::{Finding, Place, STANZAS, Severity, Stanza};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One log of the findings of all files, each with its file.
pub(super) fn log(findings: &[(String, Finding)]) -> Value {
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "audit-operator",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": STANZAS.iter().map(|stanza| rule(stanza)).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": findings.iter().map(|(file, finding)| result(file, finding)).collect::<Vec<_>>(),
        }],
    })
}

fn rule(stanza: &Stanza) -> Value {
    let Stanza { id, severity, stops_start, about, why, fix, source, .. } = stanza;
    json!({
        "id": id,
        "shortDescription": {"text": about},
        "fullDescription": {"text": format!("{about} {why}")},
        "help": {"text": format!("{fix}. Source: {source}.")},
        "defaultConfiguration": {"level": level(*severity)},
        "properties": {"stopsStart": stops_start},
    })
}

fn result(file: &str, finding: &Finding) -> Value {
    let Finding { id, severity, message, place, path, help, notes, .. } = finding;
    let index = STANZAS.iter().position(|stanza| stanza.id == *id).expect("every finding is of a stanza");
    let text = match help {
        Some(help) => format!("{message}. Help: {help}."),
        None => format!("{message}."),
    };
    let mut result = json!({
        "ruleId": id,
        "ruleIndex": index,
        "level": level(*severity),
        "message": {"text": text},
        "locations": [location(file, *place, path)],
    });
    if !notes.is_empty() {
        let related = notes.iter().enumerate().map(|(i, note)| {
            let mut location = location(file, note.place, &note.path);
            location["id"] = json!(i + 1);
            location["message"] = json!({"text": note.message});
            location
        });
        result["relatedLocations"] = related.collect();
    }
    result
}

fn location(file: &str, place: Place, path: &str) -> Value {
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(file)},
            "region": {"startLine": place.line, "startColumn": place.column},
        },
    });
    if !path.is_empty() {
        location["logicalLocations"] = json!([{"fullyQualifiedName": path}]);
    }
    location
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Info => "note",
    }
}

/// A path as the reference that it is (RFC 3986). A relative one stays relative.
fn uri(file: &str) -> String {
    let mut out = String::new();
    if file.starts_with('/') {
        out.push_str("file://");
    }
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Mode;
    use audit_policy::{Terms, lint};

    #[test]
    fn a_finding_has_its_rule_its_place_and_the_rules_it_is_about() {
        let text =
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata}\n- {level: None, verbs: [get]}\n";
        let terms = Terms { minor: 36, secrets_accepted: false, mode: Mode::Batch, floor: &[] };
        let findings =
            lint(text.as_bytes(), &terms).findings.into_iter().map(|f| ("a b.yaml".to_string(), f)).collect::<Vec<_>>();
        let log = log(&findings);
        let results = log["runs"][0]["results"].as_array().unwrap();
        let found = results.iter().find(|result| result["ruleId"] == "unreachable-rule").unwrap();
        let rule = &log["runs"][0]["tool"]["driver"]["rules"][found["ruleIndex"].as_u64().unwrap() as usize];
        assert_eq!(
            (&rule["id"], &rule["defaultConfiguration"]["level"]),
            (&json!("unreachable-rule"), &json!("warning"))
        );
        assert_eq!(found["level"], "warning");
        let physical = &found["locations"][0]["physicalLocation"];
        assert_eq!(physical["artifactLocation"]["uri"], "a%20b.yaml");
        assert_eq!(physical["region"], json!({"startLine": 5, "startColumn": 3}));
        assert_eq!(found["relatedLocations"][0]["physicalLocation"]["region"]["startLine"], 4);
        for rule in log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap() {
            for text in ["shortDescription", "fullDescription", "help"] {
                assert!(rule[text]["text"].as_str().unwrap().ends_with('.'), "{rule}");
            }
        }
    }

    #[test]
    fn a_path_becomes_a_reference() {
        assert_eq!(uri("/a/b.yaml"), "file:///a/b.yaml");
        assert_eq!(uri("-"), "-");
        assert_eq!(uri("ä%.yaml"), "%C3%A4%25.yaml");
    }
}
