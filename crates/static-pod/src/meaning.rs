//! The present and the intended value of a manifest. It never edits text.

use serde_json::{Value, json};

use super::{Error, Intent, Manifest, Mount, OUR_VOLUMES, REVISION_ANNOTATION, flag, may_be_ours};

/// Audit flags that name a file (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/server/options/audit.go,
/// AddFlags).
const LOG_FLAG: &str = "audit-log-path";
const PATH_FLAGS: [&str; 3] = [LOG_FLAG, "audit-policy-file", "audit-webhook-config-file"];

/// Reads a manifest as the kubelet does: as JSON if it begins with a brace, and otherwise as YAML that is converted to
/// JSON (kubernetes@v1.36.3 staging/src/k8s.io/apimachinery/pkg/util/yaml/decoder.go, ToJSON).
pub(super) fn parse(text: &str) -> Result<Value, Error> {
    kube_yaml::to_json(text).map_err(|error| {
        let message = error.to_string();
        if kube_yaml::is_json(text.as_bytes()) { Error::NotJson { message } } else { Error::NotYaml { message } }
    })
}

/// The pod after an intent is applied.
pub(super) fn intended(manifest: &Manifest, original: &Manifest, intent: &Intent) -> Result<Value, Error> {
    let mounts = needed_mounts(manifest, intent)?;
    let defaults = intent.defaults.iter().filter(|(name, _)| !original.has_flag(name) || !manifest.has_flag(name));
    let wanted: Vec<(&String, &String)> = intent.flags.iter().chain(defaults).collect();
    let is_ours = |name: &str| is_ours_beside(name, original);
    let mut pod = manifest.value.clone();
    let container = &mut pod["spec"]["containers"][manifest.container];
    let list = flag_list(container);
    for list in ["command", "args"] {
        let Some(items) = container.get_mut(list).and_then(Value::as_array_mut) else { continue };
        items.retain_mut(|item| {
            let Some((name, _)) = item.as_str().and_then(flag).filter(|(name, _)| is_ours(name)) else { return true };
            let Some((_, value)) = wanted.iter().find(|(wanted, _)| **wanted == name) else { return false };
            *item = json!(format!("--{name}={value}"));
            true
        });
    }
    let mut added: Vec<String> = wanted
        .iter()
        .filter(|(name, _)| !manifest.has_flag(name))
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    added.sort();
    if !added.is_empty() {
        list_of(container, list)?.extend(added.into_iter().map(Value::String));
    }
    let wanted_mounts = mounts.iter().map(|mount| {
        let mut value = json!({"mountPath": mount.path, "name": mount.name});
        if mount.read_only {
            value["readOnly"] = json!(true);
        }
        value
    });
    replace_ours(container, "volumeMounts", wanted_mounts.collect(), &[])?;
    let wanted_volumes = mounts
        .iter()
        .map(|mount| json!({"hostPath": {"path": mount.path, "type": "DirectoryOrCreate"}, "name": mount.name}));
    let elsewhere = mounted_elsewhere(manifest);
    replace_ours(&mut pod["spec"], "volumes", wanted_volumes.collect(), &elsewhere)?;
    let annotations = &mut pod["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = json!({});
    }
    annotations[REVISION_ANNOTATION] = json!(intent.revision);
    check_paths(manifest, &pod, intent)?;
    Ok(pod)
}

/// The pod without our parts, and with the audit flags of the original.
pub(super) fn without_ours(manifest: &Manifest, original: &Manifest) -> Value {
    let is_audit = |item: &&str| flag(item).is_some_and(|(name, _)| name.starts_with("audit-"));
    let is_ours = |name: &str| is_ours_beside(name, original);
    let was = |name: &str| original.arguments().filter(is_audit).find(|item| flag(item).is_some_and(|f| f.0 == name));
    let mut pod = manifest.value.clone();
    let container = &mut pod["spec"]["containers"][manifest.container];
    for list in ["command", "args"] {
        let Some(items) = container.get_mut(list).and_then(Value::as_array_mut) else { continue };
        items.retain_mut(|item| {
            let Some((name, _)) = item.as_str().and_then(flag).filter(|(name, _)| is_ours(name)) else { return true };
            let Some(before) = was(&name) else { return false };
            *item = json!(before);
            true
        });
        let missing: Vec<Value> = texts(original.container(), list)
            .filter(is_audit)
            .filter(|item| flag(item).is_some_and(|(name, _)| !manifest.has_flag(&name)))
            .map(|item| json!(item))
            .collect();
        if !missing.is_empty() {
            let list = if container[list].is_array() { list } else { flag_list(container) };
            if let Ok(items) = list_of(container, list) {
                items.extend(missing);
            }
        }
        let is_empty = container[list].as_array().is_some_and(Vec::is_empty);
        if is_empty && original.container().get(list).is_none() {
            container.as_object_mut().map(|container| container.remove(list));
        }
    }
    remove_ours(container, "volumeMounts", original.container(), &[]);
    remove_ours(&mut pod["spec"], "volumes", &original.value["spec"], &mounted_elsewhere(manifest));
    let had_annotations = original.value["metadata"].get("annotations").is_some();
    if let Some(metadata) = pod["metadata"].as_object_mut()
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove(REVISION_ANNOTATION);
        if annotations.is_empty() && !had_annotations {
            metadata.remove("annotations");
        }
    }
    pod
}

/// Whether we may set and remove a flag, given the original manifest.
fn is_ours_beside(name: &str, original: &Manifest) -> bool {
    may_be_ours(name) && (name.starts_with("audit-") || !original.has_flag(name))
}

/// The list to add flags to: the last one, so that no flag comes between another and its value.
fn flag_list(container: &Value) -> &'static str {
    let length = |list: &str| container[list].as_array().map_or(0, Vec::len);
    if length("command") == 0 || length("args") > 0 { "args" } else { "command" }
}

fn texts<'a>(container: &'a Value, list: &str) -> impl Iterator<Item = &'a str> {
    container[list].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn items<'a>(parent: &'a Value, list: &str) -> &'a [Value] {
    parent[list].as_array().map_or(&[], Vec::as_slice)
}

/// The mounts that are needed in addition to those of others.
fn needed_mounts(manifest: &Manifest, intent: &Intent) -> Result<Vec<Mount>, Error> {
    let mut needed = Vec::new();
    for mount in &intent.mounts {
        if !is_covered(manifest, mount)? {
            needed.push(mount.clone());
        }
    }
    Ok(needed)
}

/// Whether a mount that is not ours shows `mount.path` of the host at the same path.
fn is_covered(manifest: &Manifest, mount: &Mount) -> Result<bool, Error> {
    let spec = &manifest.value["spec"];
    let Some((index, found)) = mount_above(manifest.container(), &mount.path, |found| !is_ours(found)) else {
        return no_mount_point_is_missing(manifest, mount).map(|()| false);
    };
    let is_same = shows_the_same(spec, found);
    if is_same && (mount.read_only || is_writable(found)) {
        return Ok(true);
    }
    let is_here = trimmed(&found["mountPath"]) == mount.path.trim_end_matches('/');
    // Below a read-only mount, the runtime cannot create a mount point for ours, unless it exists.
    if is_here || (!is_same && !is_writable(found)) {
        return Err(conflict(manifest, index, &mount.path, !mount.read_only));
    }
    no_mount_point_is_missing(manifest, mount).map(|()| false)
}

/// Below a read-only mount of ours, the runtime cannot create a mount point for theirs: it must exist on the node.
fn no_mount_point_is_missing(manifest: &Manifest, mount: &Mount) -> Result<(), Error> {
    let below = |found: &Value| !is_ours(found) && is_in(trimmed(&found["mountPath"]), &mount.path);
    let is_missing = |found: &Value| below(found) && !shows_the_same(&manifest.value["spec"], found);
    match items(manifest.container(), "volumeMounts").iter().position(is_missing) {
        Some(index) if mount.read_only => Err(conflict(manifest, index, &mount.path, false)),
        _ => Ok(()),
    }
}

/// Every file that an audit flag names must be the same in the container and on the node.
fn check_paths(manifest: &Manifest, pod: &Value, intent: &Intent) -> Result<(), Error> {
    let container = &pod["spec"]["containers"][manifest.container];
    for (name, path) in &intent.flags {
        if !PATH_FLAGS.contains(&name.as_str()) || (name == LOG_FLAG && path == "-") {
            continue;
        }
        let Some((index, found)) = mount_above(container, path, |_| true) else {
            return Err(Error::NotMounted { flag: name.clone(), path: path.clone() });
        };
        let is_log = name == LOG_FLAG;
        // Rotation renames the log, which a mount of the file itself prevents.
        let is_file_itself = is_log && trimmed(&found["mountPath"]) == path;
        if !shows_the_same(&pod["spec"], found) || is_file_itself || (is_log && !is_writable(found)) {
            if is_ours(found) {
                return Err(Error::NotMounted { flag: name.clone(), path: path.clone() });
            }
            // Mounts of others keep their place in the list, before ours.
            let index = items(container, "volumeMounts")[..index].iter().filter(|mount| !is_ours(mount)).count();
            let foreign = items(manifest.container(), "volumeMounts").iter().enumerate();
            let index = foreign.filter(|(_, mount)| !is_ours(mount)).nth(index).map_or(0, |(index, _)| index);
            return Err(conflict(manifest, index, path, is_log));
        }
    }
    Ok(())
}

/// The deepest mount above a path: it decides what the container sees there.
fn mount_above<'a>(container: &'a Value, path: &str, is_meant: impl Fn(&Value) -> bool) -> Option<(usize, &'a Value)> {
    let above = |mount: &Value| mount["mountPath"].as_str().is_some_and(|directory| is_in(path, directory));
    let mounts = items(container, "volumeMounts").iter().enumerate();
    let mounts = mounts.filter(|(_, mount)| is_meant(mount) && above(mount));
    mounts.max_by_key(|(_, mount)| trimmed(&mount["mountPath"]).len())
}

/// Whether a mount shows a directory of the node at the same path.
fn shows_the_same(spec: &Value, mount: &Value) -> bool {
    let host_path = host_path(spec, mount);
    !host_path.is_empty()
        && host_path == trimmed(&mount["mountPath"])
        && mount["subPath"].is_null()
        && mount["subPathExpr"].is_null()
}

fn host_path<'a>(spec: &'a Value, mount: &Value) -> &'a str {
    let volume = items(spec, "volumes").iter().find(|volume| volume["name"] == mount["name"]);
    volume.map_or("", |volume| trimmed(&volume["hostPath"]["path"]))
}

fn is_writable(mount: &Value) -> bool {
    mount["readOnly"] != json!(true)
}

fn conflict(manifest: &Manifest, index: usize, path: &str, writable: bool) -> Error {
    let mount = &items(manifest.container(), "volumeMounts")[index];
    let host_path = match host_path(&manifest.value["spec"], mount) {
        "" => "not a path of the node",
        path => path,
    };
    let read_only = if is_writable(mount) { "" } else { ", read-only" };
    Error::MountConflict {
        path: path.into(),
        at: mount["mountPath"].as_str().unwrap_or_default().into(),
        found: format!("the volume {} ({host_path}{read_only})", mount["name"].as_str().unwrap_or("?")),
        writable,
        line: manifest.mount_line(index),
    }
}

fn trimmed(path: &Value) -> &str {
    path.as_str().unwrap_or_default().trim_end_matches('/')
}

fn is_in(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_ours(item: &Value) -> bool {
    item["name"].as_str().is_some_and(|name| name.starts_with(OUR_VOLUMES))
}

/// Volumes that other containers of the pod mount: without them the pod would be invalid.
fn mounted_elsewhere(manifest: &Manifest) -> Vec<Value> {
    let spec = &manifest.value["spec"];
    let others = items(spec, "containers").iter().enumerate().filter(|(index, _)| *index != manifest.container);
    let others = others.map(|(_, container)| container).chain(items(spec, "initContainers"));
    others.flat_map(|container| items(container, "volumeMounts")).map(|mount| mount["name"].clone()).collect()
}

/// Keeps our wanted items unchanged, drops our other items, and appends the missing ones.
fn replace_ours(parent: &mut Value, key: &str, wanted: Vec<Value>, kept: &[Value]) -> Result<(), Error> {
    if wanted.is_empty() && parent.get(key).is_none_or(Value::is_null) {
        return Ok(());
    }
    let list = list_of(parent, key)?;
    let is_named = |item: &Value| wanted.iter().any(|wanted| wanted["name"] == item["name"]);
    let is_kept = |item: &Value| kept.contains(&item["name"]) && !is_named(item);
    list.retain(|item| !is_ours(item) || wanted.contains(item) || is_kept(item));
    let missing: Vec<Value> = wanted.into_iter().filter(|item| !list.contains(item)).collect();
    list.extend(missing);
    Ok(())
}

fn remove_ours(parent: &mut Value, key: &str, original: &Value, kept: &[Value]) {
    let Some(parent) = parent.as_object_mut() else { return };
    if let Some(list) = parent.get_mut(key).and_then(Value::as_array_mut) {
        list.retain(|item| !is_ours(item) || kept.contains(&item["name"]));
        if list.is_empty() && original.get(key).is_none() {
            parent.remove(key);
        }
    }
}

/// The list at a key, created if absent. The tree was checked, so it has no other type.
fn list_of<'a>(parent: &'a mut Value, key: &str) -> Result<&'a mut Vec<Value>, Error> {
    let not_as_checked = Error::NotProved("value and tree have different shapes");
    let Some(parent) = parent.as_object_mut() else { return Err(not_as_checked) };
    let list = parent.entry(key).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().ok_or(not_as_checked)
}
