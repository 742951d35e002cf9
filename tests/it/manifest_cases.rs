//! Edits of every manifest below `tests/cases/manifest`: `in.yaml` and either `want.yaml` or `want.err`.
//!
//! `UPDATE_CASES=1 cargo test` writes the wanted files. Each edit must also mount every file that an audit flag names,
//! be undone completely by `remove`, and change nothing the second time.

use std::fs;
use std::path::Path;

use serde_json::Value;

use audit_operator::api::Reason;
use audit_operator::error::chain;
use testing::golden::{Differences, cases};
use testing::intent::intent;

/// The whole pod, without differences that mean nothing: the position of the audit flags among the others, and whether
/// an emptied key is empty, null or absent.
fn pod(text: &str) -> Value {
    meaning(serde_saphyr::from_str(text).unwrap())
}

/// The same for a parsed pod.
pub fn meaning(mut pod: Value) -> Value {
    let without_empty = |parent: &mut Value, key: &str| {
        let is_empty = match &parent[key] {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if let Some(parent) = parent.as_object_mut().filter(|_| is_empty) {
            parent.remove(key);
        }
    };
    without_empty(&mut pod["metadata"], "annotations");
    without_empty(&mut pod["spec"], "volumes");
    for container in pod["spec"]["containers"].as_array_mut().unwrap() {
        for key in ["command", "args"] {
            if let Some(items) = container.get_mut(key).and_then(Value::as_array_mut) {
                items.sort_by_key(|item| item.as_str().filter(|item| item.starts_with("--audit")).map(str::to_string));
            }
        }
        for key in ["command", "args", "volumeMounts"] {
            without_empty(container, key);
        }
    }
    pod
}

/// Audit flags that name a path which no mount of the container shows from the node.
pub fn unmounted(text: &str) -> Vec<String> {
    let pod: Value = serde_saphyr::from_str(text).unwrap();
    let listed = |parent: &Value, key: &str| parent[key].as_array().cloned().unwrap_or_default();
    let runs_it = |container: &&Value| {
        let image = || container["image"].as_str()?.split('@').next()?.rsplit('/').next()?.split(':').next();
        let name = match container["command"].get(0) {
            Some(program) => program.as_str().and_then(|program| program.rsplit('/').next()),
            None => image(),
        };
        name == Some("kube-apiserver")
    };
    let containers = listed(&pod["spec"], "containers");
    let container = containers.iter().find(runs_it).unwrap();
    let is_on_node = |name: &Value| {
        listed(&pod["spec"], "volumes").iter().any(|v| v["name"] == *name && v["hostPath"]["path"].is_string())
    };
    let mounts = listed(container, "volumeMounts");
    let mounts = mounts.iter().filter_map(|mount| Some((Path::new(mount["mountPath"].as_str()?), &mount["name"])));
    let mounts: Vec<(&Path, &Value)> = mounts.collect();
    let is_shown = |path: &str| {
        let above = mounts.iter().filter(|(at, _)| at.is_absolute() && Path::new(path).starts_with(at));
        // The deepest mount decides.
        above.max_by_key(|(at, _)| at.components().count()).is_some_and(|(_, name)| is_on_node(name))
    };
    let flags = static_pod::read(text).unwrap().flags.into_iter();
    let paths = flags.filter(|(name, value)| name.starts_with("audit-") && value.starts_with('/'));
    paths.filter(|(_, path)| !is_shown(path)).map(|(name, path)| format!("--{name}={path}")).collect()
}

#[test]
fn every_manifest_is_edited_as_it_should_be() {
    let mut differences = Differences::default();
    for case in cases("tests/cases/manifest") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(case.join("in.yaml")).unwrap();
        let (edited, refused) = match static_pod::edit(&text, &intent()) {
            Ok(edited) => {
                assert_eq!(
                    static_pod::edit(&edited.text, &intent()).unwrap().text,
                    edited.text,
                    "{name}: an edit twice is an edit once"
                );
                assert_eq!(unmounted(&edited.text), [""; 0], "{name}: what a flag names is not mounted");
                let removed = static_pod::remove(&edited.text, &text)
                    .unwrap_or_else(|error| panic!("{name}: {error}\n{}", edited.text));
                assert_eq!(pod(&removed), pod(&text), "{name}: what was removed is as it was");
                assert_eq!(static_pod::remove(&removed, &text).unwrap(), removed, "{name}: it is removed once");
                (Some(edited.text), None)
            }
            Err(error) => (None, Some(format!("{}: {}\n", Reason::from(&error), chain(&error)))),
        };
        differences.compare(&case.join("want.yaml"), edited.as_ref().map(String::as_bytes));
        differences.compare(&case.join("want.err"), refused.as_ref().map(String::as_bytes));
    }
    differences.end();
}
