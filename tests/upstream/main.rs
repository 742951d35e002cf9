//! The policy engine against kube-apiserver's own code: loading, deciding, and deriving attributes from a URL. And the
//! editor of manifests against the kubelet's reader ([`manifests`]).
//!
//! The input is generated from a seed; upstream's code answers in a Go program beside this file. Any difference fails,
//! and is shown with its input. By default there are 20,000 policy texts, 100,000 decisions, 50,000 URLs and 1,000
//! edits; `UPSTREAM_SCALE=10` makes ten times as many, `UPSTREAM_SEED=2` others.

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

/// Collects the first few differences.
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

/// The policy or null, whether there was a warning, and the messages in upstream's words if the decoded policy is
/// rejected.
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
