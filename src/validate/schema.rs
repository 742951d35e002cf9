//! The CRD's schema, applied to a Setup that no API server has seen: [`check_schema`] for fields and types,
//! `check_bounds` for lengths, ranges and name patterns.
//!
//! Both read the generated schema, so each rule is stated once. The modules beside this one repeat the CEL rules.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::{Problem, Problems};
use crate::api::{AuditSetup, AuditSetupSpec, Reason};
use crate::revision::Content;
use audit_policy::is_dns_label;

/// The only pattern in the schema: a DNS label.
const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A document, checked against the schema.
#[derive(Clone, Debug)]
pub struct SchemaCheck {
    /// The Setup without the fields that break the schema; `None` if the rest is not a Setup.
    pub setup: Option<AuditSetup>,
    /// Violations of the schema.
    pub problems: Vec<Problem>,
    /// The fields that were removed.
    removed: Vec<String>,
}

impl SchemaCheck {
    /// Whether the removed fields may be the cause of a problem of the remaining Setup.
    pub fn may_have_caused(&self, problem: &Problem) -> bool {
        let field = problem.field.as_str();
        self.removed.iter().any(|gone| {
            let is_parent = gone.rsplit_once(['.', '[']).is_some_and(|(parent, _)| parent == field);
            let is_inside =
                field.strip_prefix(gone).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
            is_parent || is_inside
        })
    }
}

/// Checks a document against the schema as the API server does. Unknown fields, wrong types, unknown enum values and
/// missing fields are problems, all reported at once.
pub fn check_schema(mut document: Value) -> SchemaCheck {
    let mut schema = SCHEMA.clone();
    // The API server adds these to every schema.
    schema["properties"]["apiVersion"] = json!({"type": "string"});
    schema["properties"]["kind"] = json!({"type": "string"});
    schema["properties"]["metadata"] = metadata_schema();
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    if let Some(fields) = document.as_object_mut() {
        // The user does not write it.
        fields.remove("status");
    }
    let mut checker = Checker::default();
    let fits = checker.check(&schema, &mut document, "");
    let Checker { mut problems, removed } = checker;
    let setup = match serde_json::from_value(document) {
        Ok(setup) if fits => Some(setup),
        // The schema allows it, the types do not.
        Err(error) if problems.is_empty() => {
            problems.push(problem("spec", error.to_string()));
            None
        }
        _ => None,
    };
    SchemaCheck { setup, problems, removed }
}

/// ObjectMeta. Fields that a user does not write are not checked.
fn metadata_schema() -> Value {
    let text = json!({"type": "string"});
    let words = json!({"type": "object", "additionalProperties": text, "nullable": true});
    let mut schema = json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "labels": words, "annotations": words,
        "generation": {"type": "integer", "nullable": true},
    }});
    for written_by_others in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ] {
        schema["properties"][written_by_others] = json!({});
    }
    schema
}

#[derive(Default)]
struct Checker {
    problems: Vec<Problem>,
    removed: Vec<String>,
}

impl Checker {
    /// Removes fields from `value` that break the schema. Returns whether the rest is valid.
    fn check(&mut self, schema: &Value, value: &mut Value, path: &str) -> bool {
        let wanted = schema["type"].as_str().unwrap_or_default();
        match (wanted, &mut *value) {
            (_, Value::Null) if schema["nullable"] == true => true,
            ("", _) => true,
            ("object", Value::Object(_)) => self.check_object(schema, value, path),
            ("array", Value::Array(items)) => {
                let mut fits = true;
                for (i, item) in items.iter_mut().enumerate() {
                    fits &= self.check(&schema["items"], item, &format!("{path}[{i}]"));
                }
                // A list without one of its entries means something else.
                fits
            }
            ("string", Value::String(text)) => match schema["enum"].as_array() {
                Some(words) if !words.contains(&json!(text)) => {
                    let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
                    self.bad(path, format!("must be one of {}, not {text:?}", words.join(", ")))
                }
                _ => true,
            },
            ("boolean", Value::Bool(_)) | ("number", Value::Number(_)) => true,
            ("integer", Value::Number(number)) if number.is_i64() => true,
            (wanted, value) => self.bad(path, mismatch(wanted, value)),
        }
    }

    fn check_object(&mut self, schema: &Value, value: &mut Value, path: &str) -> bool {
        let fields = value.as_object_mut().expect("the caller looked");
        let known = schema["properties"].as_object();
        let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        fields.retain(|name, value| {
            let below = below(name);
            let fits = match known.and_then(|known| known.get(name)) {
                // The API server puts the default there.
                Some(schema) if value.is_null() && !schema["default"].is_null() => return false,
                Some(schema) => self.check(schema, value, &below),
                None if schema["additionalProperties"].is_object() => {
                    self.check(&schema["additionalProperties"], value, &below)
                }
                None => {
                    let known: Vec<_> = known.iter().flat_map(|known| known.keys()).map(String::as_str).collect();
                    self.bad(&below, format!("unknown field; known fields: {}", known.join(", ")))
                }
            };
            if !fits {
                self.removed.push(below);
            }
            fits
        });
        let mut fits = true;
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if fields.contains_key(name) {
                continue;
            }
            fits = false;
            // A removed field is reported already.
            if !self.removed.contains(&below(name)) {
                self.problems.push(problem(&below(name), "is required".into()));
            }
        }
        fits
    }

    fn bad(&mut self, path: &str, message: String) -> bool {
        self.problems.push(problem(path, message));
        false
    }
}

fn problem(field: &str, message: String) -> Problem {
    Problem { field: field.to_string(), reason: Reason::InvalidSetup, message }
}

/// The wanted type, the given one, and the correction if it is obvious.
fn mismatch(wanted: &str, value: &Value) -> String {
    let must_be = match wanted {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    };
    // A string is shown only if it cannot be a secret.
    let is_quoted = match (wanted, value) {
        ("integer", Value::String(text)) => text.parse::<i64>().is_ok(),
        ("number", Value::String(text)) => text.parse::<f64>().is_ok_and(f64::is_finite),
        ("boolean", Value::String(text)) => matches!(text.as_str(), "true" | "false"),
        _ => false,
    };
    let (is, what_to_do) = match value {
        Value::Null => ("null".to_string(), ""),
        Value::Bool(value) if wanted == "string" => (format!("the boolean {value}"), ": put it in quotes"),
        Value::Bool(value) => (format!("the boolean {value}"), ""),
        Value::Number(number) if wanted == "string" => (format!("the number {number}"), ": put it in quotes"),
        Value::Number(number) => (format!("the number {number}"), ""),
        Value::String(text) if is_quoted => (format!("the string {text:?}"), ": remove the quotes"),
        Value::String(_) => ("a string".to_string(), ""),
        Value::Array(_) => ("a list".to_string(), ""),
        Value::Object(_) => ("a mapping".to_string(), ""),
    };
    format!("must be {must_be}, not {is}{what_to_do}")
}

/// The schema of the CRD, as the API server has it. Generating it takes 20 ms.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = AuditSetup::crd();
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    serde_json::to_value(schema).expect("a schema is plain data")
});

pub(super) fn check_bounds(spec: &AuditSetupSpec, problems: &mut Problems) {
    let spec = serde_json::to_value(spec).expect("a Setup is plain data");
    walk(&SCHEMA["properties"]["spec"], &spec, "spec", problems);
}

/// The same bounds for the values of a Revision, which come from a Setup.
pub(super) fn check_content(content: &Content, problems: &mut Problems) {
    let spec = &SCHEMA["properties"]["spec"]["properties"];
    let sink = &spec["sinks"]["items"]["properties"];
    if let Some(log) = &content.log {
        walk(&sink["log"], &json!(log), "log", problems);
    }
    if let Some(webhook) = &content.webhook {
        walk(&sink["webhook"]["properties"]["delivery"], &json!(webhook.delivery), "webhook.delivery", problems);
    }
    let rollout = &spec["rollout"]["properties"];
    walk(&rollout["shutdownDelaySeconds"], &json!(content.shutdown_delay_seconds), "shutdownDelaySeconds", problems);
    walk(&rollout["drainWatchesSeconds"], &json!(content.drain_watches_seconds), "drainWatchesSeconds", problems);
}

fn walk(schema: &Value, value: &Value, path: &str, problems: &mut Problems) {
    let bound = |keyword: &str| schema[keyword].as_f64();
    let mut bad = |message: String| problems.add(path, Reason::InvalidSetup, message);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                walk(&schema["properties"][name], value, &format!("{path}.{name}"), problems);
            }
        }
        Value::Array(items) => {
            if bound("minItems").is_some_and(|min| (items.len() as f64) < min) {
                bad("needs at least one entry".into());
            }
            if let Some(max) = bound("maxItems").filter(|max| items.len() as f64 > *max) {
                bad(format!("has {} entries; at most {max} are allowed", items.len()));
            }
            for (i, item) in items.iter().enumerate() {
                walk(&schema["items"], item, &format!("{path}[{i}]"), problems);
            }
        }
        Value::String(text) => {
            let length = text.chars().count();
            if bound("minLength").is_some_and(|min| (length as f64) < min) {
                bad("must not be empty".into());
            } else if let Some(max) = bound("maxLength").filter(|max| length as f64 > *max) {
                bad(format!("has {length} characters; at most {max} are allowed"));
            } else if schema["pattern"] == DNS_LABEL && !is_dns_label(text) {
                bad(format!(
                    "{text:?} must consist of lower-case letters, digits and -, and begin and end with a letter or digit"
                ));
            }
        }
        Value::Number(number) => {
            let (min, max) = (bound("minimum"), bound("maximum"));
            let number = number.as_f64().unwrap_or(f64::NAN);
            let outside = min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max) || number.is_nan();
            match (min, max) {
                (Some(min), Some(max)) if outside => bad(format!("must be from {min} to {max}, not {number}")),
                (Some(min), None) if outside => bad(format!("must be at least {min}, not {number}")),
                (_, Some(max)) if outside => bad(format!("must be at most {max}, not {number}")),
                _ => {}
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Setup with this spec.
    fn document(spec: &str) -> Value {
        json!({
            "apiVersion": "audit-operator.io/v1alpha1",
            "kind": "AuditSetup",
            "metadata": {"name": "a", "generation": 3, "labels": null, "finalizers": ["a/b"], "uid": "1-2"},
            "spec": serde_json::from_str::<Value>(spec).unwrap_or_else(|error| panic!("{spec}: {error}")),
            "status": {"anything": "goes"},
        })
    }

    const GOOD: &str = r#""policy":{"preset":"gce"},"sinks":[{"name":"l","log":{}}]"#;

    #[test]
    fn a_violation_of_the_schema_is_reported_with_its_field() {
        let log = |log: &str| format!(r#"{{"policy":{{"preset":"gce"}},"sinks":[{{"name":"l","log":{log}}}]}}"#);
        let policy = |policy: &str| format!(r#"{{"policy":{policy},"sinks":[{{"name":"l","log":{{}}}}]}}"#);
        let throttle =
            |qps: &str| log(&format!(r#"{{"delivery":{{"mode":"Batch","batch":{{"throttleQPS":{qps}}}}}}}"#));
        for (spec, want) in [
            (log("{}"), ""),
            (log("null"), ""),
            (log(r#"{"maxAgeDays":null}"#), ""),
            (throttle("3"), ""),
            (throttle("0.5"), ""),
            (format!(r#"{{{GOOD},"nodeSelector":{{"a":"b"}}}}"#), ""),
            (
                log(r#"{"maxAgeDays":"3"}"#),
                "spec.sinks[0].log.maxAgeDays: must be a whole number, not the string \"3\": remove the quotes",
            ),
            (log(r#"{"maxAgeDays":"three"}"#), "spec.sinks[0].log.maxAgeDays: must be a whole number, not a string"),
            (log(r#"{"maxAgeDays":3.5}"#), "spec.sinks[0].log.maxAgeDays: must be a whole number, not the number 3.5"),
            (
                log(r#"{"maxAgeDays":1e30}"#),
                "spec.sinks[0].log.maxAgeDays: must be a whole number, not the number 1e+30",
            ),
            (
                throttle(r#""0.5""#),
                "spec.sinks[0].log.delivery.batch.throttleQPS: must be a number, not the string \"0.5\": remove the quotes",
            ),
            (
                log(r#"{"compress":"true"}"#),
                "spec.sinks[0].log.compress: must be true or false, not the string \"true\": remove the quotes",
            ),
            (log(r#"{"compress":1}"#), "spec.sinks[0].log.compress: must be true or false, not the number 1"),
            (log(r#"{"path":3}"#), "spec.sinks[0].log.path: must be a string, not the number 3: put it in quotes"),
            (
                format!(r#"{{{GOOD},"nodeSelector":{{"a":true}}}}"#),
                "spec.nodeSelector.a: must be a string, not the boolean true: put it in quotes",
            ),
            (log(r#"{"format":"JSON"}"#), "spec.sinks[0].log.format: must be one of json, legacy, not \"JSON\""),
            (log("[]"), "spec.sinks[0].log: must be a mapping, not a list"),
            (
                log(r#"{"maxAge":3}"#),
                "spec.sinks[0].log.maxAge: unknown field; known fields: compress, delivery, format, maxAgeDays, maxBackups, maxSizeMegabytes, path",
            ),
            (policy(r#"{"prepend":null,"preset":"gce"}"#), "spec.policy.prepend: must be a list, not null"),
            (policy(r#"{"rules":[{"level":"None"},{"verbs":["get"]}]}"#), "spec.policy.rules[1].level: is required"),
            (
                policy(r#"{"rules":[{"level":"None","users":"me"}]}"#),
                "spec.policy.rules[0].users: must be a list, not a string",
            ),
            (r#"{"policy":{"preset":"gce"}}"#.into(), "spec.sinks: is required"),
            (r#""none""#.into(), "spec: must be a mapping, not a string"),
        ] {
            let check = check_schema(document(&spec));
            let told: Vec<_> = check.problems.iter().map(ToString::to_string).collect();
            assert_eq!(told.join("\n"), want, "{spec}");
            assert!(check.setup.is_some() || !want.is_empty(), "{spec}");
        }
    }

    #[test]
    fn the_head_of_a_document_is_checked_too() {
        for (document, want) in [
            (json!([]), ": must be a mapping, not a list"),
            (
                json!({"apiVersion": "v", "kind": "k", "metadata": {"nam": "a", "name": 1}, "spec": null}),
                "metadata.nam: unknown field; known fields: annotations, creationTimestamp, deletionGracePeriodSeconds, deletionTimestamp, finalizers, generateName, generation, labels, managedFields, name, namespace, ownerReferences, resourceVersion, selfLink, uid\nmetadata.name: must be a string, not the number 1: put it in quotes\nspec: must be a mapping, not null",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "metadata.labels.a: must be a string, not the number 1: put it in quotes\napiVersion: is required\nkind: is required\nspec: is required",
            ),
        ] {
            let told: Vec<_> = check_schema(document).problems.iter().map(ToString::to_string).collect();
            assert_eq!(told.join("\n"), want);
        }
    }

    #[test]
    fn the_rest_is_judged_except_for_consequences_of_removed_fields() {
        let spec = r#"{"policy":{"rules":[{"level":"Meta"}]},"sinks":[{"name":"l","log":{"maxAge":3}}]}"#;
        let check = check_schema(document(spec));
        let setup = check.setup.as_ref().unwrap();
        assert_eq!((setup.spec.policy.rules.as_ref(), setup.spec.sinks[0].name.as_str()), (None, "l"));
        for (field, want) in [
            ("spec.policy", true),
            ("spec.policy.rules", true),
            ("spec.policy.rules[0].users", true),
            ("spec.sinks[0].log", true),
            ("spec.policy.append[0]", false),
            ("spec.sinks[0].log.maxAgeDays", false),
            ("spec.sinks", false),
        ] {
            assert_eq!(check.may_have_caused(&problem(field, String::new())), want, "{field}");
        }
    }

    #[test]
    fn every_example_fits() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        let entries = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
        // Beside them is a directory with configurations of collectors.
        for example in entries.filter(|entry| entry.is_file()) {
            let text = std::fs::read_to_string(example).unwrap();
            for document in text.split("\n---\n").filter(|document| document.contains("kind: AuditSetup")) {
                let check = check_schema(serde_saphyr::from_str(document).unwrap());
                assert_eq!(check.problems, [], "{document}");
                assert!(check.setup.is_some());
            }
        }
    }

    #[test]
    fn every_bound_that_the_schema_uses_is_known_here() {
        fn keywords(value: &Value, found: &mut Vec<(String, Value)>) {
            match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        found.push((name.clone(), value.clone()));
                        keywords(value, found);
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| keywords(item, found)),
                _ => {}
            }
        }
        let schema = serde_json::to_value(&AuditSetup::crd().spec.versions[0]).unwrap();
        let mut found = Vec::new();
        keywords(&schema["schema"]["openAPIV3Schema"]["properties"]["spec"], &mut found);
        for (name, value) in found {
            assert!(
                !["exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"].contains(&name.as_str()),
                "{name}"
            );
            if name == "pattern" {
                assert_eq!(value, DNS_LABEL);
            }
        }
    }
}
