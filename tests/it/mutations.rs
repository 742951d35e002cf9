//! Mutated inputs ([`testing::mutate`]) for everything that reads foreign text.
//!
//! No input may cause a panic or take a second, and an accepted input must keep the promises of its reader. A few
//! inputs at every `cargo test`; `make fuzz TARGET=manifest SECONDS=600` for more, in bounded memory. This is not a
//! coverage-guided fuzzer: those need a nightly compiler. A case depends on its seed, its number and the files in
//! `tests/cases`.

use std::time::{Duration, Instant};

use audit_operator::api::{AuditSetup, Reason};
use audit_operator::validate::{Capabilities, KubernetesVersion, References, validate};
use audit_policy::Evaluator;
use testing::intent::intent;
use testing::mutate::{YAML_TOKENS, files, manifests, mutated};
use testing::random::Random;
use testing::{number, setting};

use crate::manifest_cases::{meaning, unmounted};

const MAX_TIME: Duration = Duration::from_secs(1);

const URL_TOKENS: &[&str] = &[
    "/",
    "//",
    "?",
    "#",
    "&",
    "=",
    ";",
    "%",
    "%2f",
    "%2F",
    "%00",
    "%zz",
    "%C3%A9",
    ":",
    "@",
    "[",
    "]",
    "[::1]",
    "[fe80::1%25en0]",
    "..",
    ".",
    "*",
    " ",
    "\0",
    "\t",
    "é",
    "🦀",
    "http://",
    "https://",
    "HTTPS:",
    ":443",
    ":0",
    ":65536",
    "/api/v1",
    "/apis/apps/v1",
    "/namespaces/x",
    "/pods/p",
    "/log",
    "/proxy/",
    "/watch",
    "watch=true",
    "watch=1",
    "fieldSelector=metadata.name=a",
    "fieldSelector=metadata.name%3Da",
    "labelSelector=",
    "limit=1",
    "GET ",
    "POST ",
    "CONNECT ",
    "OPTIONS ",
    "localhost",
    ".svc",
    "127.1",
    "0x7f.1",
];
const URLS: &[&str] = &[
    "GET /api/v1/namespaces/default/pods/web-0/log?follow=true",
    "GET /apis/apps/v1/deployments?watch=1&fieldSelector=metadata.name%3Dweb",
    "DELETE /apis/audit-operator.io/v1alpha1/auditsetups/cluster",
    "POST /api/v1/namespaces/a/services/https:web:443/proxy/x/../y?z=%20",
    "CONNECT example.org:443",
    "https://user@sink.example.com:8443/k8s-audit",
    "http://127.0.0.1:9765/k8s-audit",
    "https://[fd00::1]:9443/x%20y",
    "https://audit.logging.svc:443/",
];

/// Returns the outcome; a broken promise panics.
type Try = fn(&[u8]) -> &'static str;

struct Target {
    corpus: Vec<Vec<u8>>,
    tokens: &'static [&'static str],
    run: Try,
}

fn target(name: &str) -> Target {
    let urls = || URLS.iter().map(|url| url.as_bytes().to_vec()).collect();
    match name {
        "manifest" => Target { corpus: manifests(), tokens: YAML_TOKENS, run: try_manifest },
        "policy" => {
            let presets = audit_policy::presets().into_iter().map(|preset| preset.text.as_bytes().to_vec());
            let corpus = files("tests/cases/lint", "in.yaml").into_iter().chain(presets).collect();
            Target { corpus, tokens: YAML_TOKENS, run: try_policy }
        }
        "url" => Target { corpus: urls(), tokens: URL_TOKENS, run: try_url },
        "request" => Target { corpus: urls(), tokens: URL_TOKENS, run: try_request },
        other => panic!("TARGET={other} is none of manifest, policy, url, request"),
    }
}

fn try_manifest(input: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(input) else { return "no text" };
    _ = static_pod::pod_of(text.as_bytes());
    let edited = match static_pod::edit(text, &intent()) {
        Ok(edited) => edited.text,
        Err(error) => return Reason::from(&error).as_str(),
    };
    assert_eq!(static_pod::edit(&edited, &intent()).unwrap().text, edited, "an edit twice is an edit once");
    assert_eq!(unmounted(&edited), [""; 0], "what a flag names is not mounted");
    match static_pod::remove(&edited, text) {
        Ok(removed) => {
            assert_eq!(meaning(without_ours(&removed)), meaning(without_ours(text)), "what was removed is as it was")
        }
        Err(error) => panic!("it cannot be removed: {error}"),
    }
    "edited"
}

/// An input may contain parts that look like ours: they are removed too.
fn without_ours(text: &str) -> serde_json::Value {
    let mut pod: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let drop_ours = |parent: &mut serde_json::Value, key: &str| {
        if let Some(items) = parent.get_mut(key).and_then(serde_json::Value::as_array_mut) {
            items.retain(|item| !item["name"].as_str().is_some_and(|name| name.starts_with("audit-operator-")));
        }
    };
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(static_pod::REVISION_ANNOTATION);
    }
    drop_ours(&mut pod["spec"], "volumes");
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        drop_ours(container, "volumeMounts");
    }
    pod
}

fn try_policy(input: &[u8]) -> &'static str {
    let loaded = audit_policy::load(input, 36);
    let _ = std::str::from_utf8(input).map(audit_policy::read);
    let Some(policy) = loaded.policy else {
        assert!(!loaded.findings.is_empty(), "it is refused without a reason");
        return "refused";
    };
    let evaluator = Evaluator::new(&policy);
    for (method, target) in
        [("GET", "/api/v1/namespaces/a/secrets/b"), ("GET", "/healthz"), ("POST", "/apis/apps/v1/deployments")]
    {
        let decision = evaluator.decide(&audit_policy::attributes(method, target).unwrap());
        assert!(decision.rule.is_none_or(|rule| rule < policy.rules.len()));
    }
    // What is written is read as the same again.
    let part = audit_policy::Part { title: "all".into(), rules: policy.rules.clone() };
    let written = audit_policy::write(&[part], &policy.omit_stages, policy.omit_managed_fields);
    assert_eq!(audit_policy::load(written.as_bytes(), 36).policy.as_ref(), Some(&policy), "{written}");
    "loaded"
}

fn try_request(input: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(input) else { return "no text" };
    let (method, target) = text.split_once(' ').unwrap_or(("GET", text));
    match audit_policy::attributes(method, target) {
        Err(_) => "not audited",
        Ok(found) if found.is_resource_request => {
            let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy"];
            let verb = found.verb.to_string();
            assert!(
                verbs.contains(&verb.as_str()) || verb == method.to_ascii_lowercase() || verb.is_empty(),
                "{found:?}"
            );
            "resource"
        }
        Ok(found) => {
            assert_eq!(found.verb.to_string(), method.to_ascii_lowercase(), "{found:?}");
            "no resource"
        }
    }
}

fn try_url(input: &[u8]) -> &'static str {
    let Ok(url) = std::str::from_utf8(input) else { return "no text" };
    // A short policy: it is not the subject here.
    let spec = serde_json::json!({"policy": {"rules": [{"level": "Metadata"}]}, "sinks": [{"name": "w", "webhook": {"url": url}}]});
    let Ok(spec) = serde_json::from_value(spec) else { return "no Setup" };
    match validate(
        &AuditSetup::new("cluster", spec),
        &References::default(),
        Capabilities::of(KubernetesVersion::new(36)),
        &Default::default(),
    ) {
        Err(problems) => {
            assert!(!problems.is_empty(), "it is refused without a reason");
            "refused"
        }
        Ok(_) => {
            let bare = url.split(['?', '#']).next() == Some(url) && !url.contains(char::is_whitespace);
            assert!(bare && url.contains("://"), "client-go would read it otherwise");
            "accepted"
        }
    }
}

/// CPU time of this thread, so that other programs on the machine do not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap()
}

/// Runs cases until the time is over or enough are done, and counts the outcomes.
fn run(name: &str, seed: u64, from: u64, cases: u64, time: Duration) {
    let Target { corpus, tokens, run } = target(name);
    assert!(!corpus.is_empty());
    let mut outcomes = std::collections::BTreeMap::<_, u64>::new();
    let (began, mut told, mut slowest) = (Instant::now(), Instant::now(), Duration::ZERO);
    for case in from..from.saturating_add(cases) {
        let input = mutated(&mut Random::new(seed ^ case.wrapping_mul(0xD134_2543_DE82_EF95)), &corpus, tokens);
        let start = cpu_time();
        let outcome = std::panic::catch_unwind(|| run(&input)).unwrap_or_else(|_| {
            panic!("TARGET={name} SEED={seed} FROM={case} CASES=1:\n{}", String::from_utf8_lossy(&input))
        });
        let took = cpu_time() - start;
        slowest = slowest.max(took);
        assert!(took < MAX_TIME, "TARGET={name} SEED={seed} FROM={case} CASES=1 took {took:?}");
        *outcomes.entry(outcome).or_default() += 1;
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            println!("{name}: case {case} after {} s, the slowest took {slowest:?}", began.elapsed().as_secs());
        }
        if began.elapsed() > time {
            break;
        }
    }
    println!(
        "{name}: SEED={seed}, {} inputs: {outcomes:?}, the slowest took {slowest:?}",
        outcomes.values().sum::<u64>()
    );
    assert!(outcomes.len() > 1 || cases == 1, "the inputs are all alike: {outcomes:?}");
}

#[test]
fn no_mutation_breaks_what_reads_it() {
    for (name, cases) in [("manifest", 100), ("policy", 100), ("url", 300), ("request", 1000)] {
        run(name, 1, 0, cases, Duration::MAX);
    }
}

/// `FUZZ_TARGET`, `FUZZ_SECONDS`, `SEED`, `FROM` and `CASES` come from the environment.
#[test]
#[ignore = "runs for FUZZ_SECONDS: make fuzz"]
fn mutations_for_a_while() {
    let seed = number("SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let time = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(60));
    let name = setting("FUZZ_TARGET").unwrap_or_else(|| "manifest".into());
    println!("TARGET={name} SECONDS={} SEED={seed}", time.as_secs());
    run(&name, seed, number("FROM").unwrap_or(0), number("CASES").unwrap_or(u64::MAX), time);
}
