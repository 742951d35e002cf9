//! Properties of every edit of every manifest: of a few manifests in `cargo test`, of many in `make torture-manifest`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testing::manifests::{Sample, Tape, is_audit, sample};
use testing::number;
use testing::random::Random;

use super::{oracle, *};

/// Rendered from Setups; a test of the operator keeps them up to date.
fn intents() -> Vec<Intent> {
    let all: Vec<Value> = serde_json::from_str(include_str!("intents.json")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let flags = |value: &Value| {
        let flags = value.as_object().unwrap().iter();
        flags.map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let mount = |mount: &Value| Mount {
        name: text(&mount["name"]),
        path: text(&mount["path"]),
        read_only: mount["readOnly"].as_bool().unwrap(),
    };
    let intent = |intent: Value| Intent {
        revision: text(&intent["revision"]),
        flags: flags(&intent["flags"]),
        defaults: flags(&intent["defaults"]),
        mounts: intent["mounts"].as_array().unwrap().iter().map(mount).collect(),
    };
    all.into_iter().map(intent).collect()
}

#[test]
fn every_manifest_is_edited_as_it_should_be_or_refused() {
    check(0..32, 0);
}

/// `CASES`, `SEED` and `FROM`, the first case, are read from the environment: a failure names the `SEED` and the `FROM`
/// that repeat it.
#[test]
#[ignore = "takes minutes; it prints how many were refused and why: make torture-manifest"]
fn many_manifests_are_edited_as_they_should_be_or_refused() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (cases, seed) = (number("CASES").unwrap_or(100_000), number("SEED").unwrap_or(now));
    let from = number("FROM").unwrap_or(0);
    println!("CASES={cases} SEED={seed} FROM={from}");
    check(from..from + cases, seed);
}

/// Failures of different kinds that are shown: more informative than the first one repeated.
const FAILURES: usize = 8;

fn check(cases: std::ops::Range<u64>, seed: u64) {
    let intents = intents();
    let (count, mut outcomes, mut failures) = (cases.end - cases.start, BTreeMap::new(), BTreeMap::new());
    for case in cases {
        let bytes = tape(seed, case);
        match outcome(&bytes, &intents) {
            Ok(outcome) => *outcomes.entry(outcome).or_insert(0u64) += 1,
            Err(why) => {
                // Printed at once, because a long run may be interrupted.
                println!("WRONG at SEED={seed} FROM={case} CASES=1: {}", headline(&why));
                *outcomes.entry("WRONG".into()).or_default() += 1;
                if failures.len() < FAILURES {
                    failures.entry(headline(&why)).or_insert((case, bytes));
                }
            }
        }
        let done: u64 = outcomes.values().sum();
        if done.is_multiple_of(20_000) {
            println!("{done} of {count}, {} wrong", outcomes.get("WRONG").unwrap_or(&0));
        }
    }
    for (outcome, count) in &outcomes {
        println!("{count:8}  {outcome}");
    }
    for (headline, (case, bytes)) in &failures {
        let (bytes, why) = shrunk(bytes.clone(), headline, &intents);
        let (sample, a, _) = drawn(&bytes, &intents);
        let edited = edit(&sample.text, &a).map(|edited| edited.text);
        println!("=== SEED={seed} FROM={case} CASES=1\n{why}\n--- from\n{}\n--- to\n{edited:?}", sample.text);
    }
    assert!(failures.is_empty(), "{:?}", failures.keys());
    let of = |begins: &str| outcomes.iter().filter(|(name, _)| name.starts_with(begins)).map(|(_, n)| n).sum::<u64>();
    assert!(count == 1 || of("edited") > count / 5 * 4, "most are edited, or nothing is shown: {outcomes:?}");
    assert!(of("not edited: Layout") + of("not edited: NotProved") < count / 50 + 5, "{outcomes:?}");
}

/// Bytes that depend only on the arguments.
fn tape(seed: u64, case: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ case.wrapping_mul(0xD134_2543_DE82_EF95));
    let mut next = || random.draw().to_le_bytes();
    let length = u16::from_le_bytes([next()[0], next()[1]]) % 900;
    std::iter::repeat_with(next).flatten().take(length.into()).collect()
}

fn drawn(bytes: &[u8], intents: &[Intent]) -> (Sample, Intent, Intent) {
    let mut tape = Tape::new(bytes);
    let (a, b) = (tape.pick(intents).clone(), tape.pick(intents).clone());
    (sample(&mut tape), a, b)
}

fn outcome(bytes: &[u8], intents: &[Intent]) -> Result<String, String> {
    let (sample, a, b) = drawn(bytes, intents);
    holds(&sample, &a, &b)
}

fn headline(why: &str) -> String {
    why.lines().next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// A tape with more zeros, and shorter, that fails the same way.
fn shrunk(mut bytes: Vec<u8>, headline: &str, intents: &[Intent]) -> (Vec<u8>, String) {
    let fails = |bytes: &[u8]| outcome(bytes, intents).err().filter(|why| self::headline(why) == headline);
    let mut why = fails(&bytes).expect("it failed before");
    for size in [256, 64, 16, 4, 1] {
        for start in (0..bytes.len()).step_by(size).rev() {
            let end = (start + size).min(bytes.len());
            let zeroed = [&bytes[..start], &vec![0; end - start], &bytes[end..]].concat();
            if zeroed != bytes
                && let Some(still) = fails(&zeroed)
            {
                (bytes, why) = (zeroed, still);
            }
        }
    }
    (bytes, why)
}

/// The outcome for the sample, or the property that does not hold.
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
    let parsed = |text: &str| value(text).map(|value| oracle::parts(&value));
    let Some(wanted) = oracle::edited(&sample.pod, a) else { return Err("a mount is in the way".into()) };
    same("the text was read as it was written", &value(text)?, &sample.pod)?;
    let value_then = value(&edited)?;
    same("the edit means what it should", &oracle::parts(&value_then), &wanted)?;
    if !oracle::shows_every_file(&value_then, a) {
        return Err("a file that a flag names is not mounted".into());
    }
    survives(sample, &edited)?;

    let removed = remove(&edited, text).map_err(|error| format!("remove: {error}"))?;
    same("what is removed is as it was", &parsed(&removed)?, &oracle::removed(&sample.pod, &sample.pod))?;
    survives(sample, &removed)?;
    // The edit has proved most of these itself. Parsing takes the most time, so each sample checks one.
    match sample.lot {
        0 => {
            let again = update(&edited, text, a).map_err(|error| format!("a second edit: {error}"))?.text;
            same("an edit twice is an edit once", &again, &edited)?;
        }
        1 => {
            // Without the original, a flag of the shutdown passes for the user's own.
            let again = edit(&edited, a).map_err(|error| format!("a second edit: {error}"))?.text;
            same("nor does it matter that the original is not known", &again, &edited)?;
        }
        2 => {
            let again = remove(&removed, text).map_err(|error| format!("remove twice: {error}"))?;
            same("it is removed once", &again, &removed)?;
        }
        _ => match (update(&edited, text, b), edit(text, b)) {
            (Ok(over), Ok(direct)) => same("a then b is b", &parsed(&over.text)?, &parsed(&direct.text)?)?,
            (Err(_), Err(_)) => {}
            (over, direct) => return Err(format!("a then b is b, once: {over:?}, {direct:?}")),
        },
    }
    let had_nothing = oracle::parts(&sample.pod).flags.is_empty();
    if had_nothing && !has_null(&sample.pod) {
        same("where no audit flag was, the bytes are as they were", &removed, text)?;
    }
    Ok(if removed == *text { "edited, and removed to the same bytes" } else { "edited, and removed to the same pod" }
        .into())
}

/// The line of the table for a refusal.
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

/// Whether the refusal is the expected one.
fn refused(sample: &Sample, intent: &Intent, error: &Error) -> Result<(), String> {
    let kind = kind(error);
    let due: &[&str] = match sample.poison {
        Some("anchor" | "tag" | "merge") => &["Anchors", "NotJson"],
        Some("key twice") => &["DuplicateKey"],
        Some("tab") => &["NotYaml"],
        Some("document") => &["SeveralDocuments", "NotYaml", "NotJson"],
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
    let names_a_line = message.contains("line") || matches!(kind.as_str(), "NotProved" | "NotAPod");
    if is_due && names_a_line { Ok(()) } else { Err(format!("refused: {message}")) }
}

fn value(text: &str) -> Result<Value, String> {
    // A reader other than ours. It returns an empty second document as null.
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    documents.into_iter().next().ok_or_else(|| "no document".into())
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

/// Parts that are not ours stay byte for byte: every comment, and every line that the edit does not rewrite.
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
        // A key without a value gets one.
        let key = line.trim_start_matches([' ', '-']).split(':').next().unwrap_or_default().trim_matches(['"', '\'']);
        let is_key = matches!(key, "command" | "args" | "volumeMounts" | "volumes" | "annotations");
        // A comment may be moved out.
        let is_comment = line.trim_start().starts_with('#');
        if is_audit(item.replacen("\\x2f", "/", 1).as_str()) || is_key || is_comment {
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
