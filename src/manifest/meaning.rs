//! What a manifest means, as a value, and what it shall mean. No text here.

use serde_json::{Map, Value, json};

use super::{Error, Intent, Mount, OUR_VOLUMES, flag};
use crate::api::REVISION_ANNOTATION;
use crate::render::DRAIN_FLAG;

/// Reads a manifest as the kubelet does: YAML 1.1 scalars, no duplicate keys.
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    serde_saphyr::from_str(text).map_err(|error| Error::NotYaml { message: error.to_string() })
}

/// The pod with an intent applied.
pub(super) fn intended(mut pod: Value, container: usize, intent: &Intent) -> Result<Value, Error> {
    let mounts = needed_mounts(&pod, container, intent)?;
    let list = flag_list(&pod["spec"]["containers"][container]);
    let present: Vec<String> = arguments(&pod, container).filter_map(flag).map(|(name, _)| name).collect();
    for list in ["command", "args"] {
        let Some(items) = pod["spec"]["containers"][container].get_mut(list).and_then(Value::as_array_mut) else {
            continue;
        };
        items.retain_mut(|item| {
            let Some((name, _)) = item.as_str().and_then(flag) else { return true };
            if !name.starts_with("audit-") {
                return true;
            }
            let Some(value) = intent.flags.get(&name) else { return false };
            *item = json!(format!("--{name}={value}"));
            true
        });
    }
    let added = intent.flags.iter().chain(&intent.defaults).filter(|(name, _)| !present.contains(name));
    let mut added: Vec<String> = added.map(|(name, value)| format!("--{name}={value}")).collect();
    added.sort();
    list_of(&mut pod["spec"]["containers"][container], list, "the list of flags")?
        .extend(added.into_iter().map(Value::String));
    let wanted_mounts = mounts.iter().map(|mount| {
        let mut value = json!({"mountPath": mount.path, "name": mount.name});
        if mount.read_only {
            value["readOnly"] = json!(true);
        }
        value
    });
    replace_ours(&mut pod["spec"]["containers"][container], "volumeMounts", wanted_mounts.collect())?;
    let wanted_volumes = mounts
        .iter()
        .map(|mount| json!({"hostPath": {"path": mount.path, "type": "DirectoryOrCreate"}, "name": mount.name}));
    replace_ours(&mut pod["spec"], "volumes", wanted_volumes.collect())?;
    let metadata = pod["metadata"].as_object_mut().ok_or(Error::Shape { field: "metadata", expected: "mapping" })?;
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = json!({});
    }
    let annotations =
        annotations.as_object_mut().ok_or(Error::Shape { field: "metadata.annotations", expected: "mapping" })?;
    annotations.insert(REVISION_ANNOTATION.into(), json!(intent.revision.as_str()));
    Ok(pod)
}

/// The pod without our parts, and with the audit flags of the original.
pub(super) fn without_ours(
    mut pod: Value,
    container: usize,
    original: &Value,
    original_container: usize,
) -> Result<Value, Error> {
    let keeps_drain = arguments(original, original_container).filter_map(flag).any(|(name, _)| name == DRAIN_FLAG);
    let is_ours = |name: &str| name.starts_with("audit-") || (name == DRAIN_FLAG && !keeps_drain);
    let list = flag_list(&pod["spec"]["containers"][container]);
    for list in ["command", "args"] {
        if let Some(items) = pod["spec"]["containers"][container].get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !item.as_str().and_then(flag).is_some_and(|(name, _)| is_ours(&name)));
        }
    }
    let given_back: Vec<Value> = arguments(original, original_container)
        .filter(|item| flag(item).is_some_and(|(name, _)| name.starts_with("audit-")))
        .map(|item| json!(item))
        .collect();
    list_of(&mut pod["spec"]["containers"][container], list, "the list of flags")?.extend(given_back);
    let had = |value: &Value, key: &str| value.get(key).is_some();
    let original_in = &original["spec"]["containers"][original_container];
    remove_ours(&mut pod["spec"]["containers"][container], "volumeMounts", had(original_in, "volumeMounts"));
    remove_ours(&mut pod["spec"], "volumes", had(&original["spec"], "volumes"));
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(REVISION_ANNOTATION);
        }
        let is_empty = metadata.get("annotations").and_then(Value::as_object).is_some_and(Map::is_empty);
        if is_empty && !had(&original["metadata"], "annotations") {
            metadata.remove("annotations");
        }
    }
    Ok(pod)
}

/// The list that holds the flags: `command`, unless its only item is the program and `args` follow.
pub(super) fn flag_list(container: &Value) -> &'static str {
    let length = |list: &str| container[list].as_array().map_or(0, Vec::len);
    if length("command") == 0 || (length("command") == 1 && length("args") > 0) { "args" } else { "command" }
}

fn arguments(pod: &Value, container: usize) -> impl Iterator<Item = &str> {
    let container = &pod["spec"]["containers"][container];
    ["command", "args"]
        .into_iter()
        .filter_map(move |list| container[list].as_array())
        .flatten()
        .filter_map(Value::as_str)
}

/// The mounts that are needed beside those that somebody else made already.
fn needed_mounts(pod: &Value, container: usize, intent: &Intent) -> Result<Vec<Mount>, Error> {
    let mut needed = Vec::new();
    for mount in &intent.mounts {
        if !is_covered(pod, container, mount)? {
            needed.push(mount.clone());
        }
    }
    Ok(needed)
}

/// Whether a mount that is not ours shows `mount.path` of the host at the same path.
fn is_covered(pod: &Value, container: usize, mount: &Mount) -> Result<bool, Error> {
    let volumes = pod["spec"]["volumes"].as_array().map_or(&[][..], Vec::as_slice);
    let mounts = pod["spec"]["containers"][container]["volumeMounts"].as_array().map_or(&[][..], Vec::as_slice);
    let foreign = mounts.iter().filter(|found| !is_ours(found));
    // The deepest mount above a path decides what is seen there.
    let above = |found: &&Value| found["mountPath"].as_str().is_some_and(|path| lies_in(&mount.path, path));
    let Some(found) = foreign.filter(above).max_by_key(|found| trimmed(&found["mountPath"]).len()) else {
        return Ok(false);
    };
    let volume = volumes.iter().find(|volume| volume["name"] == found["name"]);
    let host_path = volume.map_or("", |volume| trimmed(&volume["hostPath"]["path"]));
    let mount_path = trimmed(&found["mountPath"]);
    let is_same = !host_path.is_empty()
        && host_path == mount_path
        && found["subPath"].is_null()
        && found["subPathExpr"].is_null();
    let is_writable = found["readOnly"] != json!(true);
    if is_same && (is_writable || mount.read_only) {
        return Ok(true);
    }
    if mount_path == mount.path.trim_end_matches('/') {
        let found = format!(
            "the volume {} ({})",
            found["name"].as_str().unwrap_or("?"),
            if host_path.is_empty() { "no host path" } else { host_path }
        );
        return Err(Error::MountConflict { path: mount.path.clone(), found, writable: !mount.read_only });
    }
    Ok(false)
}

fn trimmed(path: &Value) -> &str {
    path.as_str().unwrap_or_default().trim_end_matches('/')
}

fn lies_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_ours(item: &Value) -> bool {
    item["name"].as_str().is_some_and(|name| name.starts_with(OUR_VOLUMES))
}

/// Keeps our items that are wanted as they are, drops the others, appends what is missing.
fn replace_ours(parent: &mut Value, key: &'static str, wanted: Vec<Value>) -> Result<(), Error> {
    if wanted.is_empty() && parent.get(key).is_none_or(Value::is_null) {
        return Ok(());
    }
    let list = list_of(parent, key, key)?;
    list.retain(|item| !is_ours(item) || wanted.contains(item));
    let missing: Vec<Value> = wanted.into_iter().filter(|item| !list.contains(item)).collect();
    list.extend(missing);
    Ok(())
}

fn remove_ours(parent: &mut Value, key: &str, keeps_key: bool) {
    let Some(parent) = parent.as_object_mut() else { return };
    if let Some(list) = parent.get_mut(key).and_then(Value::as_array_mut) {
        list.retain(|item| !is_ours(item));
        if list.is_empty() && !keeps_key {
            parent.remove(key);
        }
    }
}

/// The list at a key, made if it is not there.
fn list_of<'a>(parent: &'a mut Value, key: &str, field: &'static str) -> Result<&'a mut Vec<Value>, Error> {
    let parent = parent.as_object_mut().ok_or(Error::Shape { field: "spec", expected: "mapping" })?;
    let list = parent.entry(key).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().ok_or(Error::Shape { field, expected: "list" })
}
