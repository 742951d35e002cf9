//! `audit-operator policy lint`, `eval` and `request` as other programs use them.
//!
//! A case below `tests/cases/lint` holds `in.yaml` or `in.json`, perhaps `args`, and `want.out`: what is printed for people; where
//! `--fix` corrects the file, `want.file` is what becomes of it. Every stanza is found in at least one case.
//! `UPDATE_CASES=1 cargo test` writes what came out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use audit_operator::policy::{STANZAS, documentation};
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

/// Whether golden files are to be written.
#[expect(clippy::disallowed_methods, reason = "a test is told so by the environment")]
fn is_update() -> bool {
    std::env::var("UPDATE_CASES").is_ok()
}

#[test]
fn every_lint_case_comes_out_as_it_should() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lint");
    let mut wrong = Vec::new();
    let mut seen = String::new();
    for case in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        let file = if case.join("in.json").exists() { "in.json" } else { "in.yaml" };
        let args = fs::read_to_string(case.join("args")).unwrap_or_default();
        let args: Vec<_> = ["lint", file].into_iter().chain(args.split_whitespace()).collect();
        // A correction writes the file.
        let here = tempfile::tempdir().unwrap();
        let input = fs::read(case.join(file)).unwrap();
        write(here.path(), file, &input);
        let output = policy(here.path(), &args, b"");
        let shown = String::from_utf8(output.stdout).unwrap();
        let written = fs::read(here.path().join(file)).unwrap();
        let outcomes =
            [("want.out", Some(shown.clone().into_bytes())), ("want.file", (written != input).then_some(written))];
        for (name, have) in outcomes {
            let path = case.join(name);
            if is_update() {
                match &have {
                    Some(have) => write(&case, name, have),
                    None => drop(fs::remove_file(&path)),
                }
            }
            let want = fs::read(&path).ok();
            if have != want {
                let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
                let (want, have) = (text(want), text(have));
                let diff =
                    similar::TextDiff::from_lines(&want, &have).unified_diff().header("want", "have").to_string();
                wrong.push(format!("{}:\n{diff}", path.display()));
            }
        }
        let is_bad = shown.lines().any(|line| line.starts_with("error[") || line.starts_with("warning["));
        if output.status.code() != Some(i32::from(is_bad)) || !output.stderr.is_empty() {
            let error = String::from_utf8_lossy(&output.stderr);
            wrong.push(format!("{}: exit {:?}: {error}", case.display(), output.status.code()));
        }
        seen += &shown;
    }
    for stanza in
        STANZAS.iter().filter(|stanza| !seen.contains(&format!("{}[{}]", stanza.severity.as_str(), stanza.id)))
    {
        wrong.push(format!("no case finds {}", stanza.id));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_documentation_is_that_of_the_stanzas() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    if is_update() {
        write(&directory, "policy-lint.md", documentation().as_bytes());
    }
    assert!(
        fs::read_to_string(directory.join("policy-lint.md")).unwrap_or_default() == documentation(),
        "docs/policy-lint.md is not what UPDATE_CASES=1 writes"
    );
}

#[test]
fn explain_prints_one_stanza_and_knows_no_other() {
    let here = directory();
    for stanza in STANZAS {
        let output = policy(here.path(), &["lint", "--explain", stanza.id], b"");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        for part in [stanza.id, stanza.about, stanza.why, stanza.fix, stanza.source] {
            assert!(text.contains(part), "{}: {text}", stanza.id);
        }
    }
    let output = policy(here.path(), &["lint", "--explain", "nothing"], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn a_file_that_cannot_be_corrected_is_left_as_it_is() {
    let here = directory();
    let bad = POLICY.replace("{level: Request, verbs: [get]}", "{level: request, verb: [get]}\n- {level: Some}");
    write(here.path(), "bad.yaml", bad.as_bytes());
    let output = policy(here.path(), &["lint", "--fix", "bad.yaml"], b"");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(error.contains("bad.yaml was left as it is") && error.contains("rules[2].level"), "{error}");
    assert_eq!(fs::read_to_string(here.path().join("bad.yaml")).unwrap(), bad);
    assert_eq!(policy(here.path(), &["lint", "--fix", "-"], POLICY.as_bytes()).status.code(), Some(2));
    // What a link points to is corrected, with the mode that it has.
    write(here.path(), "good.yaml", POLICY.replace("verbs", "verb").as_bytes());
    fs::set_permissions(here.path().join("good.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("good.yaml", here.path().join("link.yaml")).unwrap();
    let (code, reports, _) = answers(policy(here.path(), &["lint", "--fix", "--output", "json", "link.yaml"], b""));
    assert_eq!((code, reports[0]["fixed"][0]["id"].as_str()), (Some(0), Some("unknown-field")));
    assert_eq!(fs::read_to_string(here.path().join("good.yaml")).unwrap(), POLICY);
    assert_eq!(fs::metadata(here.path().join("good.yaml")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(fs::symlink_metadata(here.path().join("link.yaml")).unwrap().is_symlink());
}

#[test]
fn sarif_is_one_log_of_all_files() {
    let here = directory();
    write(here.path(), "lenient.yaml", POLICY.replace("verbs", "verb").as_bytes());
    let output = policy(here.path(), &["lint", "--output", "sarif", "policy.yaml", "lenient.yaml"], b"");
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), log["version"].as_str()), (Some(1), Some("2.1.0")));
    let results = log["runs"][0]["results"].as_array().unwrap();
    let found = results.iter().find(|result| result["ruleId"] == "unknown-field").unwrap();
    let place = &found["locations"][0]["physicalLocation"];
    assert_eq!(
        place,
        &json!({"artifactLocation": {"uri": "lenient.yaml"}, "region": {"startLine": 6, "startColumn": 20}})
    );
    let files: std::collections::BTreeSet<_> = results
        .iter()
        .map(|result| result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str().unwrap())
        .collect();
    assert_eq!(files.into_iter().collect::<Vec<_>>(), ["lenient.yaml", "policy.yaml"]);
}

#[test]
fn lint_tells_for_each_file_whether_the_api_server_would_start() {
    let here = directory();
    write(here.path(), "lenient.yaml", POLICY.replace("verbs", "verb").as_bytes());
    write(here.path(), "bad.yaml", b"rules: [");
    let lint = |args: &[&str]| answers(policy(here.path(), &[&["lint", "--output", "json"], args].concat(), b""));
    let (code, reports, _) = lint(&["policy.yaml", "lenient.yaml", "bad.yaml"]);
    // Infos are for whoever wants to know, and keep nothing from being clean. Without its verbs the rule records Secrets too.
    let told = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().iter();
        let findings = findings.filter(|finding| finding["severity"] != "info");
        findings
            .map(|finding| format!("{} {}", finding["id"].as_str().unwrap(), finding["stopsStart"]))
            .collect::<Vec<_>>()
    };
    let valid: Vec<_> = reports.iter().map(|report| &report["valid"]).collect();
    assert_eq!((code, valid), (Some(1), vec![&json!(true), &json!(true), &json!(false)]));
    assert_eq!(told(&reports[0]), [""; 0]);
    assert!(told(&reports[1]).starts_with(&["secret-bodies false".to_string()]), "{:?}", told(&reports[1]));
    assert_eq!(told(&reports[2]), ["syntax true"]);
    let findings = reports[1]["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["id"] == "unknown-field").unwrap();
    assert_eq!(
        (&finding["severity"], &finding["line"], &finding["column"]),
        (&json!("warning"), &json!(6), &json!(20))
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
