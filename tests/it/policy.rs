//! `audit-operator policy lint`, `eval` and `request` as other programs use them.
//!
//! A case below `tests/cases/lint` holds `in.yaml` or `in.json`, perhaps `args`, and `want.out`: what is printed for people.
//! `UPDATE_CASES=1 cargo test` writes what came out.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                      - {level: None, users: [''], omitStages: [Panic]}\n- {level: Request, verbs: [get]}\n";

fn policy(directory: &Path, args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .arg("policy")
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not read.
    _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Exit status, standard output as JSON lines, standard error.
fn answers(output: Output) -> (Option<i32>, Vec<Value>, String) {
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code(), lines, String::from_utf8(output.stderr).unwrap())
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "policy.yaml", POLICY.as_bytes());
    directory
}

#[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
fn write(directory: &Path, name: &str, content: &[u8]) {
    fs::write(directory.join(name), content).unwrap();
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test writes its own files, and is told so by the environment")]
fn every_lint_case_comes_out_as_it_should() {
    let is_update = std::env::var("UPDATE_CASES").is_ok();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lint");
    let mut wrong = Vec::new();
    for case in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let file = if case.join("in.json").exists() { "in.json" } else { "in.yaml" };
        let args = fs::read_to_string(case.join("args")).unwrap_or_default();
        let args: Vec<_> = ["lint", file].into_iter().chain(args.split_whitespace()).collect();
        let output = policy(&case, &args, b"");
        let have = String::from_utf8(output.stdout).unwrap();
        if is_update {
            fs::write(case.join("want.out"), &have).unwrap();
            continue;
        }
        let want = fs::read_to_string(case.join("want.out")).unwrap_or_default();
        let code = i32::from(have.lines().count() > 1);
        if have != want || output.status.code() != Some(code) || !output.stderr.is_empty() {
            let diff = similar::TextDiff::from_lines(&want, &have).unified_diff().header("want", "have").to_string();
            wrong.push(format!("{}: exit {:?}\n{diff}", case.display(), output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lint_tells_for_each_file_whether_the_api_server_would_start() {
    let here = directory();
    write(here.path(), "lenient.yaml", POLICY.replace("verbs", "verb").as_bytes());
    write(here.path(), "bad.yaml", b"rules: [");
    let lint = |args: &[&str]| answers(policy(here.path(), &[&["lint", "--output", "json"], args].concat(), b""));
    let (code, reports, _) = lint(&["policy.yaml", "lenient.yaml", "bad.yaml"]);
    let valid: Vec<_> =
        reports.iter().map(|report| (&report["valid"], report["findings"].as_array().unwrap().len())).collect();
    assert_eq!((code, valid), (Some(1), vec![(&json!(true), 0), (&json!(true), 1), (&json!(false), 1)]));
    let finding = &reports[1]["findings"][0];
    assert_eq!(
        (&finding["id"], &finding["severity"], &finding["line"], &finding["column"]),
        (&json!("unknown-field"), &json!("warning"), &json!(6), &json!(20))
    );
    assert_eq!(lint(&["policy.yaml"]).0, Some(0));
    assert_eq!(answers(policy(here.path(), &["lint", "-", "--output", "json"], POLICY.as_bytes())).0, Some(0));
    // A file that is not there does not keep the others from being judged.
    let (code, reports, error) = lint(&["none.yaml", "policy.yaml"]);
    assert_eq!((code, reports.len()), (Some(2), 1));
    assert!(error.contains("none.yaml"), "{error}");
    for args in [
        &["--kubernetes-version", "1.25", "policy.yaml"][..],
        &["--kubernetes-version", "x", "policy.yaml"],
        &["--x"],
        &[],
    ] {
        assert_eq!(lint(args).0, Some(2), "{args:?}");
    }
}

#[test]
fn what_is_no_policy_file_is_refused_at_once() {
    let here = directory();
    write(here.path(), "big.yaml", &vec![b'#'; 2 << 20]);
    assert!(Command::new("mkfifo").arg(here.path().join("fifo")).status().unwrap().success());
    for (file, why) in [
        (".", "it is a directory"),
        ("fifo", "no regular file"),
        ("/dev/zero", "no regular file"),
        ("big.yaml", "larger than 1 MiB"),
    ] {
        let (code, reports, error) = answers(policy(here.path(), &["lint", "--output", "json", file], b""));
        assert_eq!((code, reports.len()), (Some(2), 0), "{file}");
        assert!(error.contains(why), "{file}: {error}");
    }
}

#[test]
fn eval_answers_every_record_in_order() {
    let here = directory();
    let records = "{\"verb\":\"get\"}\n\n{\"user\":{\"name\":\"\"}}\n{\"user\":null,\"verb\":\"list\"}\n";
    write(here.path(), "attributes.jsonl", records.as_bytes());
    let eval = |attributes: &str, input: &str| {
        let args = ["eval", "--policy", "policy.yaml", "--attributes", attributes, "--output", "json"];
        answers(policy(here.path(), &args, input.as_bytes()))
    };
    let want = [
        json!({"level": "Request", "omitStages": ["RequestReceived"], "omitManagedFields": false, "rule": 1}),
        json!({"level": "None", "omitStages": ["Panic", "RequestReceived"], "omitManagedFields": false, "rule": 0}),
        json!({"level": "None", "omitStages": ["RequestReceived"], "omitManagedFields": false, "rule": null}),
    ];
    assert_eq!(eval("attributes.jsonl", ""), (Some(0), want.to_vec(), String::new()));
    for stdin in ["-", "/dev/stdin"] {
        assert_eq!(eval(stdin, records), (Some(0), want.to_vec(), String::new()));
    }
    let (code, decisions, error) = eval("-", "{\"verb\":\"get\"}\n{]\n");
    assert_eq!((code, decisions.len()), (Some(2), 1));
    assert!(error.contains("standard input, line 2"), "{error}");
    assert_eq!(eval("none.jsonl", "").0, Some(2));
    write(here.path(), "policy.yaml", b"rules: []");
    let (code, decisions, error) = eval("-", records);
    assert_eq!((code, decisions.len()), (Some(2), 0));
    assert!(error.contains("would not start with policy.yaml"), "{error}");
}

#[test]
fn request_gives_attributes_or_says_that_nothing_is_audited() {
    let here = directory();
    let input = "{\"method\":\"GET\",\"url\":\"/api/v1/namespaces/a/pods/p/log?watch=1\"}\n{\"method\":\"GET\",\"url\":\"/api/v1/watch\"}\n";
    let (code, found, _) = answers(policy(here.path(), &["request", "--output", "json"], input.as_bytes()));
    let want = json!({
        "isResourceRequest": true, "path": "/api/v1/namespaces/a/pods/p/log", "verb": "get", "apiGroup": "", "apiVersion": "v1",
        "namespace": "a", "resource": "pods", "subresource": "log", "name": "p",
    });
    assert_eq!((code, found.len(), &found[0]), (Some(0), 2, &want));
    assert_eq!(found[1].as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    assert_ne!(found[1]["error"], "");
    assert_eq!(policy(here.path(), &["request"], b"{\"method\":1}\n").status.code(), Some(2));
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .args(["policy", "request", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    while stdin.write_all(b"{\"method\":\"GET\",\"url\":\"/\"}\n").is_ok() {}
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}
