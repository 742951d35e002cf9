//! A second, independent implementation of the meaning of an edit, for the tests.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Intent;

const ANNOTATION: &str = "audit-operator.io/revision";
const SHUTDOWN: [&str; 2] = ["shutdown-delay-duration", "shutdown-watch-termination-grace-period"];

/// A pod with its audit parts apart from the rest. It leaves out differences without a meaning: the order of audit
/// flags and of our mounts in their lists, and empty lists and mappings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parts {
    /// Everything else.
    rest: Value,
    /// Audit flags and the two shutdown flags by name, with their values.
    pub(super) flags: BTreeMap<String, Option<String>>,
    mounts: BTreeMap<String, Value>,
    volumes: BTreeMap<String, Value>,
    revision: Option<String>,
}

fn container(pod: &Value) -> usize {
    let containers = pod["spec"]["containers"].as_array().unwrap();
    containers.iter().position(|container| container["name"] == "kube-apiserver").unwrap()
}

fn split_flag(item: &str) -> Option<(String, Option<String>)> {
    let item = item.strip_prefix("--")?;
    let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value.to_string())));
    let name = name.replace('_', "-");
    (name.starts_with("audit-") || SHUTDOWN.contains(&name.as_str())).then_some((name, value))
}

fn take_ours(list: &mut Value) -> BTreeMap<String, Value> {
    let Some(items) = list.as_array_mut() else { return BTreeMap::new() };
    let is_ours = |item: &Value| item["name"].as_str().unwrap().starts_with("audit-operator-");
    let ours = items.iter().filter(|item| is_ours(item));
    let ours = ours.map(|item| (item["name"].as_str().unwrap().to_string(), item.clone())).collect();
    items.retain(|item| !is_ours(item));
    ours
}

fn drop_empty(parent: &mut Value, key: &str) {
    let is_empty = match &parent[key] {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if is_empty {
        parent.as_object_mut().unwrap().remove(key);
    }
}

pub(super) fn parts(pod: &Value) -> Parts {
    let mut rest = pod.clone();
    let index = container(pod);
    let mut flags = BTreeMap::new();
    let container = &mut rest["spec"]["containers"][index];
    for key in ["command", "args"] {
        if let Some(list) = container[key].as_array_mut() {
            flags.extend(list.iter().filter_map(|item| split_flag(item.as_str().unwrap())));
            list.retain(|item| split_flag(item.as_str().unwrap()).is_none());
        }
        drop_empty(container, key);
    }
    let mounts = take_ours(&mut container["volumeMounts"]);
    drop_empty(container, "volumeMounts");
    let volumes = take_ours(&mut rest["spec"]["volumes"]);
    drop_empty(&mut rest["spec"], "volumes");
    let revision = rest["metadata"]["annotations"][ANNOTATION].as_str().map(ToString::to_string);
    if let Some(annotations) = rest["metadata"]["annotations"].as_object_mut() {
        annotations.remove(ANNOTATION);
    }
    drop_empty(&mut rest["metadata"], "annotations");
    Parts { rest, flags, mounts, volumes, revision }
}

/// The path on the node that the container sees at a path, and whether it is writable.
fn on_node(pod: &Value, path: &str) -> Option<(String, bool)> {
    let segments = |path: &str| path.split('/').filter(|part| !part.is_empty()).map(String::from).collect::<Vec<_>>();
    let path = segments(path);
    let mounts = pod["spec"]["containers"][container(pod)]["volumeMounts"].as_array()?;
    let above = mounts.iter().filter(|mount| path.starts_with(&segments(mount["mountPath"].as_str().unwrap())));
    let mount = above.max_by_key(|mount| segments(mount["mountPath"].as_str().unwrap()).len())?;
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    let mut node = segments(volume["hostPath"]["path"].as_str().unwrap_or("/-"));
    node.extend_from_slice(&path[segments(mount["mountPath"].as_str().unwrap()).len()..]);
    Some((format!("/{}", node.join("/")), mount["readOnly"] != json!(true)))
}

/// The pod after the intent is applied. `None`: a mount is in the way. `pod` contains nothing of ours.
pub(super) fn edited(pod: &Value, intent: &Intent) -> Option<Parts> {
    let mut parts = parts(pod);
    let own: Vec<_> = SHUTDOWN.iter().filter_map(|name| parts.flags.remove_entry(*name)).collect();
    let given = intent.flags.iter().chain(&intent.defaults);
    parts.flags = given.map(|(name, value)| (name.clone(), Some(value.clone()))).collect();
    parts.flags.extend(own);
    for mount in &intent.mounts {
        let is_seen = on_node(pod, &mount.path)
            .is_some_and(|(node, writable)| node == mount.path && (writable || mount.read_only));
        if is_seen {
            continue;
        }
        let mut value = json!({"name": mount.name, "mountPath": mount.path});
        if mount.read_only {
            value["readOnly"] = json!(true);
        }
        parts.mounts.insert(mount.name.clone(), value);
        let volume = json!({"name": mount.name, "hostPath": {"path": mount.path, "type": "DirectoryOrCreate"}});
        parts.volumes.insert(mount.name.clone(), volume);
    }
    parts.revision = Some(intent.revision.clone());
    (!is_in_the_way(pod, intent, &parts)).then_some(parts)
}

fn is_in_the_way(pod: &Value, intent: &Intent, parts: &Parts) -> bool {
    let mounts = pod["spec"]["containers"][container(pod)]["volumeMounts"].as_array().cloned().unwrap_or_default();
    let at = |mount: &Value| mount["mountPath"].as_str().unwrap().trim_end_matches('/').to_string();
    let log = intent.flags.get("audit-log-path");
    mounts.iter().any(|mount| {
        let path = at(mount);
        let is_same = on_node(pod, &path).unwrap().0 == path;
        let ours = parts.mounts.values().any(|ours| at(ours) == path);
        let is_below = parts
            .mounts
            .values()
            .any(|ours| ours["readOnly"] == json!(true) && path.starts_with(&format!("{}/", at(ours))));
        ours || (is_below && !is_same) || log == Some(&path)
    })
}

/// This pod with the audit flags of the original.
pub(super) fn removed(pod: &Value, original: &Value) -> Parts {
    let (now, before) = (parts(pod), parts(original));
    Parts { rest: now.rest, ..before }
}

/// Whether the container sees every file of the intent at its path on the node.
pub(super) fn shows_every_file(pod: &Value, intent: &Intent) -> bool {
    let files = ["audit-log-path", "audit-policy-file", "audit-webhook-config-file"];
    files.iter().filter_map(|name| intent.flags.get(*name)).filter(|path| *path != "-").all(|path| {
        on_node(pod, path).is_some_and(|(node, writable)| node == *path && (writable || !path.ends_with(".log")))
    })
}
