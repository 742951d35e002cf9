//! The policy engine against kube-apiserver's own code: what it loads, what it decides, what it derives from a URL.
//!
//! Generated input, the same for the same seed; upstream's code answers in a Go program beside this file. Any difference fails, and is
//! shown with its input. By default 20,000 policy texts, 100,000 decisions and 50,000 URLs; `UPSTREAM_SCALE=10` makes it ten times as
//! many, `UPSTREAM_SEED=2` others.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod generate;
mod judge;

use audit_operator::policy::{self, Attributes, Evaluator, Policy, Severity};
use generate::Random;
use judge::Judge;
use serde_json::{Value, json};

const MINOR: u32 = 36;
/// Inputs that are judged together.
const PORTION: usize = 500;

fn setting(name: &str) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
    let value = std::env::var(name);
    value.map_or(1, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

fn count(default: usize) -> usize {
    default * usize::try_from(setting("UPSTREAM_SCALE")).unwrap()
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
    let loaded = policy::load(text, MINOR);
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
    let mut random = Random::new(setting("UPSTREAM_SEED"));
    let mut differences = Differences::new();
    let mut valid = 0;
    while differences.compared < count(20_000) && !differences.is_enough() {
        let texts: Vec<Vec<u8>> = (0..PORTION).map(|_| generate::policy_text(&mut random)).collect();
        let answers = judge.ask(texts.iter().map(|text| judge::load(text)));
        for (text, theirs) in texts.iter().zip(answers) {
            let (policy, warns, messages) = loaded(text);
            valid += usize::from(!theirs["policy"].is_null());
            let error = theirs["error"].as_str().unwrap();
            // With a type error there may be more of ours; a validation error is upstream's last word.
            let their_messages = judge::validation_messages(error);
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
    let mut random = Random::new(setting("UPSTREAM_SEED"));
    let mut differences = Differences::new();
    while differences.compared < count(100_000) && !differences.is_enough() {
        let text = generate::valid_policy(&mut random);
        let requests: Vec<Value> = (0..PORTION).map(|_| generate::attributes(&mut random)).collect();
        let questions = std::iter::once(judge::load(text.as_bytes())).chain(requests.iter().map(judge::eval));
        let mut answers = judge.ask(questions);
        let first = answers.remove(0);
        assert_eq!(first["error"], "", "{text}");
        let policy = policy::load(text.as_bytes(), MINOR).policy.expect(&text);
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
    let mut random = Random::new(setting("UPSTREAM_SEED"));
    let mut differences = Differences::new();
    while differences.compared < count(50_000) && !differences.is_enough() {
        let requests: Vec<(String, String)> = (0..PORTION).map(|_| generate::request(&mut random)).collect();
        let answers = judge.ask(requests.iter().map(|(method, url)| judge::request(method, url)));
        for ((method, url), theirs) in requests.iter().zip(answers) {
            let ours = match policy::attributes(method, url) {
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
