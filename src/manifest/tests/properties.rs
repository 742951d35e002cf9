//! What holds of every edit of every manifest. 256 manifests at every `cargo test`; many more by
//! `cargo test --release --lib -- --ignored --nocapture many_manifests`, whose number `PROPTEST_CASES` sets.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use super::generate::{Sample, Tape, is_audit, sample};
use super::{oracle, *};
use crate::api::AuditSetup;
use crate::validate::{Capabilities, References, validate};

/// What real Setups render.
fn intents() -> Vec<Intent> {
    let webhook = "webhook: {url: 'http://127.0.0.1:9765/k8s-audit'}";
    let setups = [
        "{policy: {preset: metadata}, sinks: [{name: l, log: {}}]}".to_string(),
        "{policy: {preset: gce}, sinks: [{name: l, log: {path: /var/log/kubernetes/audit/audit.log, compress: true}}], rollout: {drainWatchesSeconds: 0}}".into(),
        "{policy: {preset: metadata}, sinks: [{name: l, log: {path: '-'}}]}".into(),
        "{policy: {preset: metadata}, sinks: [{name: l, log: {path: '/srv/audit logs/a,b.log', maxBackups: 2}}], rollout: {drainWatchesSeconds: 7}}".into(),
        format!("{{policy: {{preset: metadata}}, sinks: [{{name: w, {webhook}}}]}}"),
        format!("{{policy: {{preset: metadata}}, sinks: [{{name: l, log: {{}}}}, {{name: w, {webhook}}}], rollout: {{drainWatchesSeconds: 0}}}}"),
    ];
    let rendered = setups.iter().map(|spec| {
        let setup = AuditSetup::new("cluster", serde_saphyr::from_str(spec).unwrap());
        let valid = validate(&setup, &References::default(), Capabilities { minor: 36 });
        let valid = valid.unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
        crate::render::intent(&crate::render::render(&valid).revision)
    });
    rendered.collect()
}

#[test]
fn every_manifest_is_edited_as_it_should_be_or_refused() {
    check(64, &[0; 32]);
}

/// `CASES` and `SEED` (hexadecimal) are read from the environment.
#[test]
#[ignore = "takes minutes; it prints how many were refused and why"]
#[expect(clippy::disallowed_methods, reason = "a test is told by the environment, and by the clock which seed is new")]
fn many_manifests_are_edited_as_they_should_be_or_refused() {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let cases = said("CASES").map_or(100_000, |cases| cases.parse().expect("CASES is a number"));
    let seed = said("SEED").map_or_else(
        || std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs(),
        |seed| seed.parse().expect("SEED is a number"),
    );
    println!("CASES={cases} SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    check(cases, &bytes);
}

fn check(cases: u32, seed: &[u8; 32]) {
    let intents = intents();
    let outcomes: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2000,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let tapes = prop::collection::vec(any::<u8>(), 0..900);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, seed);
    let result = TestRunner::new_with_rng(config, rng).run(&tapes, |bytes| {
        let mut tape = Tape::new(&bytes);
        let (a, b) = (tape.pick(&intents).clone(), tape.pick(&intents).clone());
        let sample = sample(&mut tape);
        let outcome = holds(&sample, &a, &b).map_err(|why| {
            let edited = edit(&sample.text, &a).map(|edited| edited.text);
            TestCaseError::fail(format!("{why}\n--- from\n{}\n--- to\n{}", sample.text, edited.unwrap_or_default()))
        })?;
        let mut outcomes = outcomes.borrow_mut();
        *outcomes.entry(outcome).or_default() += 1;
        let done: u32 = outcomes.values().sum();
        if done.is_multiple_of(10_000) {
            println!("{done}");
        }
        Ok(())
    });
    let outcomes = outcomes.into_inner();
    for (outcome, count) in &outcomes {
        println!("{count:8}  {outcome}");
    }
    if let Err(error) = result {
        panic!("{error}");
    }
    let count =
        |begins: &str| outcomes.iter().filter(|(name, _)| name.starts_with(begins)).map(|(_, n)| n).sum::<u32>();
    assert!(count("edited") > cases / 5 * 4, "most are edited, or nothing is shown: {outcomes:?}");
    assert!(count("not edited: Layout") + count("not edited: NotProved") < cases / 50 + 5, "{outcomes:?}");
}

/// What became of the sample, or which property does not hold.
fn holds(sample: &Sample, a: &Intent, b: &Intent) -> Result<String, String> {
    let text = &sample.text;
    let edited = match (edit(text, a), sample.poison) {
        (Err(error), poison) => {
            return refused(sample, a, &error).map(|()| match poison {
                Some(poison) => format!("poisoned ({poison}): {}", kind(&error)),
                None => format!("not edited: {}", refusal(&error)),
            });
        }
        (Ok(_), Some(poison)) => return Err(format!("it is edited in spite of: {poison}")),
        (Ok(edited), None) => edited.text,
    };
    let parsed = |text: &str| parsed(text).map(|value| oracle::parts(&value));
    let Some(wanted) = oracle::edited(&sample.pod, a) else { return Err("a mount is in the way".into()) };
    same("the text was read as it was written", &value(text)?, &sample.pod)?;
    same("the edit means what it should", &parsed(&edited)?, &wanted)?;
    if !oracle::shows_every_file(&value(&edited)?, a) {
        return Err("a file that a flag names is not mounted".into());
    }
    survives(sample, &edited)?;

    let again = update(&edited, text, a).map_err(|error| format!("a second edit: {error}"))?.text;
    same("an edit twice is an edit once", &again, &edited)?;
    // Without the original, the drain flag passes for the user's own.
    same("nor does it matter that the original is not known", &edit(&edited, a).unwrap().text, &edited)?;

    match (update(&edited, text, b), edit(text, b)) {
        (Ok(over), Ok(direct)) => same("a then b is b", &parsed(&over.text)?, &parsed(&direct.text)?)?,
        (Err(_), Err(_)) => {}
        (over, direct) => return Err(format!("a then b is b, once: {over:?}, {direct:?}")),
    }

    let removed = remove(&edited, text).map_err(|error| format!("remove: {error}"))?;
    same("what is removed is as it was", &parsed(&removed)?, &oracle::removed(&sample.pod, &sample.pod))?;
    same("it is removed once", &remove(&removed, text).map_err(|error| format!("remove twice: {error}"))?, &removed)?;
    survives(sample, &removed)?;
    let had_nothing = oracle::parts(&sample.pod).flags.is_empty();
    if had_nothing && !has_null(&sample.pod) {
        same("where no audit flag was, the bytes are as they were", &removed, text)?;
    }
    Ok(if removed == *text { "edited, and removed to the same bytes" } else { "edited, and removed to the same pod" }
        .into())
}

/// The table's line for a refusal.
fn refusal(error: &Error) -> String {
    match error {
        Error::Layout { what, .. } => format!("Layout: {what}"),
        Error::NotProved(what) => format!("NotProved: {what}"),
        _ => kind(error),
    }
}

fn kind(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '(']).next().unwrap_or_default().into()
}

/// Whether a refusal is due.
fn refused(sample: &Sample, intent: &Intent, error: &Error) -> Result<(), String> {
    let kind = kind(error);
    let due: &[&str] = match sample.poison {
        Some("anchor" | "tag" | "merge") => &["Anchors", "NotJson"],
        Some("key twice") => &["DuplicateKey"],
        Some("document" | "empty document") => &["SeveralDocuments", "NotYaml", "NotJson"],
        Some("api server") => &["SeveralApiServers"],
        Some("uid") => &["FixedUid"],
        Some("shell") => &["Wrapped"],
        Some("split flag") => &["SplitFlag"],
        Some("flag twice") => &["DuplicateFlag"],
        Some("line end") => &["LineEnd"],
        Some("end of flags") => &["EndOfFlags"],
        Some("variable") => &["VariableFlag"],
        Some("flow") => &["NotJson"],
        Some("deployment") => &["NotAPod"],
        Some(other) => panic!("{other}"),
        None if oracle::edited(&sample.pod, intent).is_none() => &["MountConflict"],
        None => &["Layout", "NotProved"],
    };
    let message = error.to_string();
    let is_due = due.contains(&kind.as_str());
    let tells_where = message.contains("line") || matches!(kind.as_str(), "NotProved" | "NotAPod");
    if is_due && tells_where { Ok(()) } else { Err(format!("refused: {message}")) }
}

fn value(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn parsed(text: &str) -> Result<Value, String> {
    value(text)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, have: &T, want: &T) -> Result<(), String> {
    if have == want { Ok(()) } else { Err(format!("{what}\nhave {have:#?}\nwant {want:#?}")) }
}

fn has_null(pod: &Value) -> bool {
    let containers = pod["spec"]["containers"].as_array().unwrap();
    let container = containers.iter().find(|container| container["name"] == "kube-apiserver").unwrap();
    let is_null = |parent: &Value, key: &str| parent.get(key) == Some(&Value::Null);
    is_null(&pod["spec"], "volumes")
        || is_null(&pod["metadata"], "annotations")
        || ["command", "args", "volumeMounts"].iter().any(|key| is_null(container, key))
}

/// What is not ours stays, byte for byte: every comment, and every line but those that an edit writes anew.
fn survives(sample: &Sample, edited: &str) -> Result<(), String> {
    let mut rest = edited;
    for comment in &sample.comments {
        let Some(at) = rest.find(comment.as_str()) else { return Err(format!("the comment is lost: {comment}")) };
        rest = &rest[at + comment.len()..];
    }
    if sample.is_flow {
        return Ok(());
    }
    let mut lines = edited.lines();
    for line in sample.text.lines() {
        let item = line.trim_start().strip_prefix('-').unwrap_or(line).trim_start_matches([' ', '\t', '"', '\'']);
        // A key without a value has one afterwards.
        let key = line.trim_start_matches([' ', '-']).split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
        let is_key = matches!(key, "command" | "args" | "volumeMounts" | "volumes" | "annotations");
        if is_audit(item.replacen("\\x2f", "/", 1).as_str()) || is_key {
            continue;
        }
        if !lines.any(|other| other == line) {
            return Err(format!("the line is lost: {line}"));
        }
    }
    Ok(())
}

#[test]
fn a_manifest_that_a_sidecar_reads_our_log_through_keeps_the_volume() {
    let a = &intents()[0];
    let edited = edit(KUBEADM, a).unwrap().text;
    let sidecar = "  - name: ship\n    volumeMounts:\n    - {name: audit-operator-log, mountPath: /log}\n  hostNetwork";
    let changed = edited.replace("  hostNetwork", sidecar);
    let removed = value(&remove(&changed, KUBEADM).unwrap()).unwrap();
    let volumes: Vec<&Value> = removed["spec"]["volumes"].as_array().unwrap().iter().map(|v| &v["name"]).collect();
    assert_eq!(volumes, ["k8s-certs", "audit-operator-log"]);
    assert_eq!(removed["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().len(), 1);
    // A Setup without a log needs the volume no more, but the sidecar does.
    let without_log = update(&changed, KUBEADM, &intents()[2]).unwrap().text;
    assert_eq!(value(&without_log).unwrap()["spec"]["volumes"][2]["name"], json!("audit-operator-log"));
}
