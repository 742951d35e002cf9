//! The editor of manifests against the kubelet's own code: for the kubelet an edited manifest must be the same pod,
//! except for the intent. The manifests are those of the properties, and mutations of the golden cases.

use serde_json::{Value, json};
use testing::intent::intent;
use testing::manifests::{Tape, sample};
use testing::mutate::{YAML_TOKENS, manifests, mutated};
use testing::random::Random;
use testing::upstream::{self, Judge};

use crate::{PORTION, count, random};

const DRAIN: &str = "--shutdown-watch-termination-grace-period";
const DELAY: &str = "--shutdown-delay-duration";

fn manifest_text(random: &mut Random, corpus: &[Vec<u8>]) -> Option<String> {
    if random.one_in(2) {
        return String::from_utf8(mutated(random, corpus, YAML_TOKENS)).ok();
    }
    let tape: Vec<u8> = (0..random.below(900)).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    Some(sample(&mut Tape::new(&tape)).text)
}

/// Removes and returns the parts that an edit may change: the audit flags, our mounts and volumes, the annotation.
fn taken(pod: &mut Value, container: usize) -> Value {
    let is_ours = |item: &Value| item["name"].as_str().is_some_and(|name| name.starts_with("audit-operator-"));
    let take = |parent: &mut Value, key: &str, is_meant: &dyn Fn(&Value) -> bool| {
        let Some(list) = parent.get_mut(key).and_then(Value::as_array_mut) else { return Vec::new() };
        let (taken, kept) = std::mem::take(list).into_iter().partition(is_meant);
        *list = kept;
        if list.is_empty() {
            parent.as_object_mut().unwrap().remove(key);
        }
        taken
    };
    let is_audit = |item: &Value| {
        let item = item.as_str().unwrap_or_default().replace('_', "-");
        item.starts_with("--audit-") || matches!(item.split('=').next(), Some(DRAIN | DELAY))
    };
    let node = &mut pod["spec"]["containers"][container];
    let mut flags = [take(node, "command", &is_audit), take(node, "args", &is_audit)].concat();
    flags.sort_by_key(ToString::to_string);
    let mounts = take(node, "volumeMounts", &is_ours);
    let volumes = take(&mut pod["spec"], "volumes", &is_ours);
    let metadata = pod["metadata"].as_object_mut().unwrap();
    let mut revision = Value::Null;
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        revision = annotations.remove("audit-operator.io/revision").unwrap_or_default();
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    json!({"flags": flags, "mounts": mounts, "volumes": volumes, "revision": revision})
}

/// What is wrong with an edit from one pod to the other.
fn wrong(mut before: Value, mut after: Value) -> Option<String> {
    let ours = json!("--audit-policy-file=/etc/kubernetes/audit/revisions/r-0123456789/policy.yaml");
    let has_it = |container: &Value| {
        ["command", "args"].iter().any(|list| container[*list].as_array().is_some_and(|items| items.contains(&ours)))
    };
    let Some(container) = after["spec"]["containers"].as_array().and_then(|list| list.iter().position(has_it)) else {
        return Some("no container has the policy".into());
    };
    let (had, has) = (taken(&mut before, container), taken(&mut after, container));
    let own_or = |name: &str, value: &str| {
        let flags = had["flags"].as_array().cloned().unwrap_or_default();
        let own = flags.into_iter().find(|flag| flag.as_str().unwrap().starts_with(name));
        own.unwrap_or(json!(format!("{name}={value}")))
    };
    let wanted = [
        json!("--audit-log-maxage=30"),
        json!("--audit-log-path=/var/log/kubernetes/audit/audit.log"),
        ours,
        own_or(DELAY, "2s"),
        own_or(DRAIN, "3s"),
    ];
    let names = |list: &Value| list.as_array().unwrap().iter().map(|item| item["name"].clone()).collect::<Vec<_>>();
    let unmounted: Vec<Value> =
        names(&has["mounts"]).into_iter().filter(|name| !names(&has["volumes"]).contains(name)).collect();
    let complaint = match () {
        () if before != after => format!("more is changed:\n{before}\n{after}"),
        () if has["flags"] != json!(wanted) => format!("the flags are {}", has["flags"]),
        () if has["revision"] != "r-0123456789" => format!("the Revision is {}", has["revision"]),
        () if !unmounted.is_empty() => format!("no volume for {unmounted:?}"),
        () => return None,
    };
    Some(complaint)
}

#[test]
fn edited_manifests_are_to_the_kubelet_what_they_should_be() {
    let corpus = manifests();
    let mut judge = Judge::start();
    let mut random = random();
    let (mut compared, mut unread, mut found) = (0, 0, Vec::new());
    while compared < count(1_000) && found.len() < 5 {
        let texts = (0..PORTION).filter_map(|_| manifest_text(&mut random, &corpus));
        let edits: Vec<(String, String)> =
            texts.filter_map(|text| Some((static_pod::edit(&text, &intent()).ok()?.text, text))).collect();
        let mut answers =
            judge.ask(edits.iter().flat_map(|(edited, text)| [upstream::pod(text), upstream::pod(edited)])).into_iter();
        for (edited, text) in &edits {
            let (before, after) = (answers.next().unwrap(), answers.next().unwrap());
            // The kubelet does not run it, edited or not.
            if before["error"].is_string() {
                unread += 1;
                continue;
            }
            compared += 1;
            let complaint = if after["error"].is_string() { Some(after.to_string()) } else { wrong(before, after) };
            found.extend(complaint.map(|complaint| format!("{complaint}\n--- from\n{text}\n--- to\n{edited}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    eprintln!("{compared} edited manifests: no difference; {unread} more that the kubelet does not read");
}
