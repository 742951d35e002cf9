//! The bounds of the CRD's schema, applied to a Setup that no API server has seen: lengths, ranges and name patterns.
//!
//! They are read from the generated schema itself, so there is one place for each number. Types and unknown fields are the
//! deserializer's, CEL rules are their twins' in the modules beside this one.

use kube::CustomResourceExt;
use serde_json::Value;

use super::Problems;
use crate::api::{AuditSetup, AuditSetupSpec, Reason};
use crate::policy::is_dns_label;

/// The only pattern in the schema: a DNS label.
const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

pub(super) fn check(spec: &AuditSetupSpec, problems: &mut Problems) {
    let crd = AuditSetup::crd();
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let schema = serde_json::to_value(schema).expect("a schema is plain data");
    let spec = serde_json::to_value(spec).expect("a Setup is plain data");
    walk(&schema["properties"]["spec"], &spec, "spec", problems);
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
                bad(format!("has {} entries, and may have {max} at most", items.len()));
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
                bad(format!("has {length} characters, and may have {max} at most"));
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
                (Some(min), Some(max)) if outside => bad(format!("is {number}, and must be from {min} to {max}")),
                (Some(min), None) if outside => bad(format!("is {number}, and must be at least {min}")),
                (_, Some(max)) if outside => bad(format!("is {number}, and must be at most {max}")),
                _ => {}
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
