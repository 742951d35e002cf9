//! Policies that match some of the requests: presets, a few written by hand, and many composed of the parts of the
//! requests.

use std::fs;
use std::path::Path;

use audit_policy::{Attributes, presets};
use serde_json::{Value, json};
use testing::random::Random;

pub struct Named {
    /// Usable as a file name.
    pub name: String,
    pub text: String,
}

/// Records everything.
pub fn everything() -> Named {
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "RequestResponse"}]});
    Named { name: "everything".into(), text: policy.to_string() }
}

/// All the others. The generated ones are of the seeds from `seed` on.
pub fn policies(requests: &[Attributes], seed: u64) -> Vec<Named> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judge/policies");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let by_hand = files.map(|file| Named {
        name: file.file_stem().unwrap().to_string_lossy().into_owned(),
        text: fs::read_to_string(file).unwrap(),
    });
    let of_operator = presets()
        .into_iter()
        .map(|preset| Named { name: preset.name.replace('.', "-"), text: preset.text.to_string() });
    let generated = (seed..seed + 4).map(|seed| Named { name: format!("seed-{seed}"), text: policy(requests, seed) });
    by_hand.chain(of_operator).chain(generated).collect()
}

fn policy(requests: &[Attributes], seed: u64) -> String {
    let mut random = Random::new(seed);
    let rules: Vec<Value> = (0..30).map(|_| rule(&mut random, requests)).collect();
    let mut policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    if random.one_in(2) {
        policy["omitStages"] = json!([stage(&mut random)]);
    }
    if random.one_in(2) {
        policy["omitManagedFields"] = true.into();
    }
    // Half of them let the rest go unrecorded.
    if random.one_in(2) {
        let last = json!({"level": "RequestResponse", "omitManagedFields": random.one_in(2)});
        policy["rules"].as_array_mut().unwrap().push(last);
    }
    policy.to_string()
}

fn stage(random: &mut Random) -> &'static str {
    random.pick(&["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"])
}

/// A rule that some of the requests meet: each of its fields is one of a request, or close to it.
fn rule(random: &mut Random, requests: &[Attributes]) -> Value {
    let request = &requests[random.below(requests.len())];
    let level = random.pick(&["None", "Metadata", "Metadata", "Request", "RequestResponse", "RequestResponse"]);
    let mut rule = json!({"level": level});
    let mut constraints = 0;
    if let Some(user) = request.user.as_ref() {
        if random.one_in(3) {
            rule["users"] = json!([&*user.name, random.pick(&["bob", "*", "root", ""])]);
            constraints += 1;
        }
        if random.one_in(4) {
            let other = random.pick(&["system:unauthenticated", "devs", "*", "system:authenticated"]);
            rule["userGroups"] = json!([user.groups.last().map_or("", |group| group), other]);
            constraints += 1;
        }
    }
    if random.one_in(2) {
        let other = random.pick(&["get", "list", "create", "*", "", "GET", "patch", "post"]);
        rule["verbs"] = json!([&*request.verb, other]);
        constraints += 1;
    }
    // A rule for everything would leave nothing for those behind it.
    let is_narrow = constraints < 2 || !random.one_in(6);
    if request.is_resource_request && is_narrow {
        let entry = entry(random, request);
        let has_namespaces = random.one_in(4);
        if has_namespaces {
            rule["namespaces"] = json!([&*request.namespace, random.pick(&["", "a", "b", "*"])]);
        }
        if !has_namespaces || random.one_in(2) {
            rule["resources"] = json!([entry]);
        }
    } else if is_narrow {
        let path = &*request.path;
        let cut =
            path.char_indices().map(|(at, _)| at).nth(random.below(path.chars().count() + 1)).unwrap_or(path.len());
        let urls = [path.to_string(), format!("{}*", &path[..cut]), format!("{path}*")];
        // Only what the file may hold: a path may have stars of its own, or none of the form.
        let is_url = |url: &&String| url.starts_with('/') && url.find('*').is_none_or(|at| at + 1 == url.len());
        let mut urls: Vec<&String> = urls.iter().filter(is_url).collect();
        if !urls.is_empty() {
            urls.remove(random.below(urls.len()));
        }
        let urls = if urls.is_empty() { json!(["/none"]) } else { json!(urls) };
        rule["nonResourceURLs"] = urls;
    }
    if random.one_in(4) {
        rule["omitStages"] = json!([stage(random), stage(random)]);
    }
    if random.one_in(3) {
        rule["omitManagedFields"] = random.one_in(2).into();
    }
    rule
}

fn entry(random: &mut Random, request: &Attributes) -> Value {
    let Attributes { api_group, resource, subresource, name, .. } = request;
    let whole =
        if subresource.is_empty() { resource.to_string() } else { format!("{}/{}", &**resource, &**subresource) };
    let patterns = [
        whole.clone(),
        whole,
        resource.to_string(),
        format!("{}/*", &**resource),
        format!("*/{}", &**subresource),
        "*".to_string(),
        random.pick(&["*/*", "pods/*", "*/log", "configmaps", "*/status", "po*", ""]).to_string(),
    ];
    // Not every text between slashes is the name of a group.
    let is_name = !api_group.contains(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && c != '.');
    let group = if random.one_in(5) || !is_name || api_group.starts_with('.') { "*" } else { &**api_group };
    let mut entry = json!({"group": group});
    if !random.one_in(6) {
        let at = random.below(patterns.len());
        entry["resources"] = json!([patterns[at], patterns[random.below(patterns.len())]]);
        if random.one_in(3) {
            entry["resourceNames"] = json!([&**name, random.pick(&["x", "", "*"])]);
        }
    }
    entry
}
