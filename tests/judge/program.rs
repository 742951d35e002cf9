//! The verdicts of the command line.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use audit_policy::Attributes;
use serde_json::{Value, json};

use crate::expect::{self, Audited, Verdict};
use crate::script::Request;

/// Of `policy eval`, for the attributes that `policy request` derives.
pub fn verdicts(requests: &[Request], policy: &Path) -> Vec<Verdict> {
    let questions = requests.iter().map(|request| json!({"method": request.method, "url": request.target}));
    let derived = ask(&["request"], questions);
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or_default().to_string();
    let found: Vec<Result<Attributes, String>> = requests
        .iter()
        .zip(&derived)
        .map(|(request, record)| {
            if let Some(why) = record["error"].as_str() {
                return Err(why.to_string());
            }
            let found = Attributes {
                user: None,
                verb: text(record, "verb").into(),
                namespace: text(record, "namespace").into(),
                api_group: text(record, "apiGroup").into(),
                api_version: text(record, "apiVersion").into(),
                resource: text(record, "resource").into(),
                subresource: text(record, "subresource").into(),
                name: text(record, "name").into(),
                is_resource_request: record["isResourceRequest"] == true,
                path: text(record, "path").into(),
            };
            Ok(Attributes { user: expect::user(request, &found), ..found })
        })
        .collect();
    let records = derived.iter().zip(&found).filter_map(|(record, found)| {
        let mut record = record.clone();
        record["resourceRequest"] = record["isResourceRequest"].take();
        let user = found.as_ref().ok()?.user.as_ref();
        record["user"] = user.map_or(
            Value::Null,
            |user| json!({"name": &*user.name, "groups": user.groups.iter().map(|group| &**group).collect::<Vec<_>>()}),
        );
        Some(record)
    });
    let file = policy.display().to_string();
    let mut decisions = ask(&["eval", "--policy", &file, "--attributes", "-"], records).into_iter();
    let verdicts = found.into_iter().map(|found| {
        let attributes = found?;
        let decision = decisions.next().expect("an answer to every record");
        Ok(Audited {
            attributes,
            level: serde_json::from_value(decision["level"].clone()).unwrap(),
            omit_stages: serde_json::from_value(decision["omitStages"].clone()).unwrap(),
            omit_managed_fields: decision["omitManagedFields"] == true,
            rule: decision["rule"].as_u64().map(|rule| usize::try_from(rule).unwrap()),
        })
    });
    verdicts.collect()
}

fn ask(args: &[&str], records: impl Iterator<Item = Value>) -> Vec<Value> {
    let input: String = records.map(|record| format!("{record}\n")).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .args([&["policy"], args, &["--output", "json"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "policy {args:?} failed");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
