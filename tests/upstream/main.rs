//! The policy engine against kube-apiserver's own code: what it loads, what it decides, what it derives from a URL. And the editor of
//! manifests against the kubelet's ([`manifests`]).
//!
//! Generated input, the same for the same seed; upstream's code answers in a Go program beside this file. Any difference fails, and is
//! shown with its input. By default 20,000 policy texts, 100,000 decisions, 50,000 URLs and 1,000 edits; `UPSTREAM_SCALE=10` makes it ten times as
//! many, `UPSTREAM_SEED=2` others.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod manifests;

use audit_policy::{Attributes, Evaluator, Policy, Severity};
use serde_json::{Value, json};
use testing::random::Random;
use testing::upstream::{self, Judge};
use testing::{number, policies};

const MINOR: u32 = 36;
/// Inputs that are judged together.
const PORTION: usize = 500;

fn count(default: usize) -> usize {
    default * usize::try_from(number("UPSTREAM_SCALE").unwrap_or(1)).unwrap()
}

fn random() -> Random {
    Random::new(number("UPSTREAM_SEED").unwrap_or(1))
}

/// Compares until the first few differences.
struct Differences {
    found: Vec<String>,
    compared: usize,
}

impl Differences {
    fn new() -> Self {
        Self { found: Vec::new(), compared: 0 }
    }

    fn compare(&mut self, ours: &Value, theirs: &Value, input: impl FnOnce() -> String) {
        self.compared += 1;
        if ours != theirs {
            self.found.push(format!("{}\ntheirs: {theirs}", input()));
        }
    }

    fn is_enough(&self) -> bool {
        self.found.len() >= 5
    }

    fn end(self, what: &str) {
        assert!(self.found.is_empty(), "{} differ:\n\n{}", self.found.len(), self.found.join("\n\n"));
        eprintln!("{} {what}: no difference", self.compared);
    }
}

/// A policy as the judge shows it.
fn shown(policy: &Policy) -> Value {
    let rules: Vec<Value> = policy
        .rules
        .iter()
        .map(|rule| {
            let resources: Vec<Value> = rule
                .resources
                .iter()
                .map(|r| json!({"group": r.group, "resources": r.resources, "resourceNames": r.resource_names}))
                .collect();
            json!({
                "level": rule.level, "users": rule.users, "userGroups": rule.user_groups, "verbs": rule.verbs,
                "resources": resources, "namespaces": rule.namespaces, "nonResourceURLs": rule.non_resource_urls,
                "omitStages": rule.omit_stages, "omitManagedFields": rule.omit_managed_fields,
            })
        })
        .collect();
    json!({"rules": rules, "omitStages": policy.omit_stages, "omitManagedFields": policy.omit_managed_fields})
}

/// Of a load: the policy or null, whether there was a warning, and upstream's messages where it refuses what it has decoded.
fn loaded(text: &[u8]) -> (Value, bool, Vec<String>) {
    let loaded = audit_policy::load(text, MINOR);
    let errors = loaded.findings.iter().filter(|f| f.severity == Severity::Error);
    let mut messages: Vec<String> = errors.map(|f| f.message.clone()).collect();
    messages.sort();
    messages.dedup();
    // Upstream counts the rules last, and only where nothing else is wrong.
    if messages.len() > 1 {
        messages.retain(|message| !message.starts_with("loaded illegal policy"));
    }
    let warns = loaded.findings.iter().any(|f| f.severity == Severity::Warning);
    assert_eq!(loaded.policy.is_some(), messages.is_empty(), "{}", String::from_utf8_lossy(text));
    (loaded.policy.as_ref().map_or(Value::Null, shown), warns, messages)
}

#[test]
fn policies_load_as_they_do_upstream() {
    let mut judge = Judge::start();
    let mut random = random();
    let mut differences = Differences::new();
    let mut valid = 0;
    while differences.compared < count(20_000) && !differences.is_enough() {
        let texts: Vec<Vec<u8>> = (0..PORTION).map(|_| policies::policy_text(&mut random)).collect();
        let answers = judge.ask(texts.iter().map(|text| upstream::load(text)));
        for (text, theirs) in texts.iter().zip(answers) {
            let (policy, warns, messages) = loaded(text);
            valid += usize::from(!theirs["policy"].is_null());
            let error = theirs["error"].as_str().unwrap();
            // With a type error there may be more of ours; a validation error is upstream's last word.
            let their_messages = upstream::validation_messages(error);
            let messages = if their_messages.is_some() { Some(messages) } else { None };
            let their_warning = !theirs["warning"].as_str().unwrap().is_empty();
            let is_valid = !policy.is_null();
            let ours = json!([policy, is_valid && warns, messages]);
            let theirs = json!([theirs["policy"], is_valid && their_warning, their_messages]);
            differences.compare(&ours, &theirs, || {
                format!(
                    "{}\n{:?}\n{error}\nours:   {ours}",
                    String::from_utf8_lossy(text),
                    text.escape_ascii().to_string()
                )
            });
        }
    }
    eprintln!("{valid} of the policies are valid");
    differences.end("policy texts");
}

#[test]
fn requests_are_decided_as_they_are_upstream() {
    let mut judge = Judge::start();
    let mut random = random();
    let mut differences = Differences::new();
    while differences.compared < count(100_000) && !differences.is_enough() {
        let text = policies::valid_policy(&mut random);
        let requests: Vec<Value> = (0..PORTION).map(|_| policies::attributes(&mut random)).collect();
        let questions = std::iter::once(upstream::load(text.as_bytes())).chain(requests.iter().map(upstream::eval));
        let mut answers = judge.ask(questions);
        let first = answers.remove(0);
        assert_eq!(first["error"], "", "{text}");
        let policy = audit_policy::load(text.as_bytes(), MINOR).policy.expect(&text);
        let evaluator = Evaluator::new(&policy);
        for (request, theirs) in requests.iter().zip(answers) {
            let json = request.to_string();
            let attributes: Attributes = serde_json::from_str(&json).unwrap();
            let decision = evaluator.decide(&attributes);
            let ours = json!({
                "level": decision.level, "omitStages": decision.omit_stages,
                "omitManagedFields": decision.omit_managed_fields, "rule": decision.rule,
            });
            differences.compare(&ours, &theirs, || format!("{text}\n{request}\nours:   {ours}"));
        }
    }
    differences.end("decisions");
}

#[test]
fn attributes_are_derived_as_they_are_upstream() {
    let mut judge = Judge::start();
    let mut random = random();
    let mut differences = Differences::new();
    while differences.compared < count(50_000) && !differences.is_enough() {
        let requests: Vec<(String, String)> = (0..PORTION).map(|_| policies::request(&mut random)).collect();
        let answers = judge.ask(requests.iter().map(|(method, url)| upstream::request(method, url)));
        for ((method, url), theirs) in requests.iter().zip(answers) {
            let ours = match audit_policy::attributes(method, url) {
                Ok(found) => json!({
                    "isResourceRequest": found.is_resource_request, "path": &*found.path, "verb": &*found.verb,
                    "apiGroup": &*found.api_group, "apiVersion": &*found.api_version, "namespace": &*found.namespace,
                    "resource": &*found.resource, "subresource": &*found.subresource, "name": &*found.name,
                }),
                Err(_) => json!({"error": ""}),
            };
            let error = theirs["error"].as_str().map(str::to_string);
            let theirs = if error.is_some() { json!({"error": ""}) } else { theirs };
            differences.compare(&ours, &theirs, || format!("{method} {url:?} {error:?}\nours:   {ours}"));
        }
    }
    differences.end("URLs");
}

/// What a cluster asks its API server for: nodes, controllers, people, probes.
fn everyday_requests() -> Vec<Value> {
    let node = json!({"name": "system:node:worker-1", "groups": ["system:nodes", "system:authenticated"]});
    let controller = json!({
        "name": "system:serviceaccount:kube-system:deployment-controller",
        "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
    });
    let person =
        json!({"name": "jane@example.com", "groups": ["oidc:developers", "oidc:on-call", "system:authenticated"]});
    let anonymous = json!({"name": "system:anonymous", "groups": ["system:unauthenticated"]});
    let resource = |user: &Value, verb: &str, group: &str, path: &str| {
        let mut parts = path.split('/');
        let mut part = || parts.next().unwrap_or_default();
        json!({
            "user": user, "verb": verb, "apiGroup": group, "apiVersion": "v1", "namespace": part(), "resource": part(),
            "name": part(), "subresource": part(), "resourceRequest": true,
        })
    };
    let other = |user: &Value, path: &str| json!({"user": user, "verb": "get", "path": path});
    vec![
        resource(&node, "update", "coordination.k8s.io", "kube-node-lease/leases/worker-1"),
        resource(&node, "patch", "", "/nodes/worker-1/status"),
        resource(&node, "get", "", "/nodes/worker-1"),
        resource(&node, "watch", "", "/pods"),
        resource(&node, "patch", "", "default/pods/web-5d4f8c7b9-x2x7k/status"),
        resource(&node, "get", "", "default/secrets/web-tls"),
        resource(&node, "create", "", "kube-system/serviceaccounts/kube-proxy/token"),
        resource(&controller, "list", "apps", "/replicasets"),
        resource(&controller, "update", "apps", "default/deployments/web/status"),
        resource(&controller, "create", "", "default/events"),
        resource(&controller, "watch", "batch", "/jobs"),
        resource(&person, "get", "", "default/pods/web-5d4f8c7b9-x2x7k/log"),
        resource(&person, "create", "", "default/pods/web-5d4f8c7b9-x2x7k/exec"),
        resource(&person, "patch", "apps", "default/deployments/web"),
        resource(&person, "delete", "networking.k8s.io", "default/ingresses/web"),
        resource(&person, "create", "example.com", "default/widgets"),
        resource(&person, "list", "", "default/configmaps"),
        other(&anonymous, "/readyz"),
        other(&anonymous, "/livez"),
        other(&node, "/apis/apps/v1"),
        other(&person, "/version"),
        other(&controller, "/metrics"),
    ]
}

/// Not a test of anything: `cargo test --release --features upstream --test upstream -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn decisions_a_second() {
    const TIMES: u32 = 5_000_000;
    let text = include_str!("../../crates/audit-policy/src/presets/gce-2026.1.yaml");
    let requests = everyday_requests();
    let mut judge = Judge::start();
    let bench = json!({"op": "bench", "attributes": requests, "n": TIMES / 5});
    let answers = judge.ask([upstream::load(text.as_bytes()), bench].into_iter());
    let theirs = answers[1]["nanoseconds"].as_f64().unwrap() / f64::from(TIMES / 5);

    let policy = audit_policy::load(text.as_bytes(), MINOR).policy.unwrap();
    let evaluator = Evaluator::new(&policy);
    let lines: Vec<String> = requests.iter().map(Value::to_string).collect();
    let requests: Vec<Attributes> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = std::time::Instant::now();
    let mut rules = 0;
    for request in requests.iter().cycle().take(TIMES as usize) {
        rules += evaluator.decide(std::hint::black_box(request)).rule.unwrap_or_default();
    }
    let ours = start.elapsed().as_nanos() as f64 / f64::from(TIMES);
    std::hint::black_box(rules);
    eprintln!(
        "{} rules; {ours:.1} ns a decision, upstream {theirs:.1} ns: {:.1} times",
        policy.rules.len(),
        theirs / ours
    );
}
