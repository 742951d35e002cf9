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

fn text(output: Output) -> String {
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn explain_names_the_rule_and_why_those_before_it_do_not_match() {
    let here = directory();
    let rules = "# Head.\napiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
                 - level: None\n  users: [bob]\n# Of the next one.\n- level: None\n  verbs: [get]\n  resources:\n  - group: ''\n    resources: [pods]\n\
                 \n- level: Request\n  userGroups: [devs]\n\n  # In the middle.\n  verbs: [get]\n# Of nothing.\n";
    write(here.path(), "policy.yaml", rules.as_bytes());
    let explain = |args: &[&str]| policy(here.path(), &[&["explain"], args].concat(), b"");
    let log = "/api/v1/namespaces/shop/pods/web/log";
    let want = r#"user        "alice", groups "devs", "system:authenticated" (added, as kube-apiserver does: system:authenticated)
request     get pods/log name=web namespace=shop

policy.yaml:8 no: rules[0] (None): users: "bob"; the request has user "alice"
policy.yaml:14 no: rules[1] (None): resources[0].resources: "pods"; the request has resource "pods/log"
policy.yaml:16 yes: rules[2]

16 | - level: Request
17 |   userGroups: [devs]
18 | 
19 |   # In the middle.
20 |   verbs: [get]

level       Request: the request's body too, where it has one
omitted     RequestReceived
recorded    ResponseStarted, ResponseComplete
managed     fields are left out of bodies
"#;
    let args = ["--policy", "policy.yaml", "--as", "alice", "--as-group", "devs", "GET", log];
    assert_eq!(text(explain(&args)), want);
    let json = |args: &[&str]| answers(explain(&[args, &["--output", "json"]].concat())).1.remove(0);
    let found = json(&args);
    assert_eq!(found["rule"], json!({"index": 2, "line": 16, "lastLine": 20}));
    assert_eq!((&found["level"], &found["audited"]), (&json!("Request"), &json!(true)));
    assert_eq!(found["recordedStages"], json!(["ResponseStarted", "ResponseComplete"]));
    assert_eq!(
        found["passedOver"][1],
        json!({"index": 1, "level": "None", "field": "resources[0].resources", "wanted": ["pods"], "found": "resource \"pods/log\"", "line": 14, "column": 16})
    );
    // Failed authentication, and no rule that matches.
    let found = json(&["--policy", "policy.yaml", "GET", "/api/v1/pods"]);
    assert_eq!((&found["user"], &found["rule"], &found["level"]), (&Value::Null, &Value::Null, &json!("None")));
    assert_eq!(
        (&found["recordedStages"], &found["passedOver"][0]["found"]),
        (&json!([]), &json!("no user: authentication failed"))
    );
    let nothing = text(explain(&["--policy", "policy.yaml", "GET", "/api/v1/pods"]));
    assert!(nothing.contains("No rule matches: the request is not recorded.\n"), "{nothing}");
    let failed = json(&["--preset", "metadata", "GET", "/api/v1/pods"]);
    assert_eq!((&failed["level"], &failed["recordedStages"]), (&json!("Metadata"), &json!(["ResponseStarted"])));
    // Never audited.
    let never = explain(&["--preset", "metadata", "--as", "alice", "GET", "/api/v1/watch"]);
    assert_eq!(text(never), "Never audited, whatever the policy: unable to determine kind and namespace from url.\n");
    assert_eq!(json(&["--preset", "metadata", "OPTIONS", "*"])["audited"], false);
    // A kubelet is told which group is missing.
    let kubelet = text(explain(&["--preset", "quiet", "--as", "system:node:n", "GET", "/api/v1/nodes"]));
    assert!(kubelet.contains("--as-group system:nodes"), "{kubelet}");
    for args in [
        &["--preset", "none", "GET", "/"][..],
        &["--preset", "metadata", "--policy", "policy.yaml", "GET", "/"],
        &["--preset", "metadata", "--as-group", "devs", "GET", "/"],
        &["--policy", "none.yaml", "GET", "/"],
        &["GET", "/"],
    ] {
        assert_eq!(explain(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn explain_tells_from_which_part_of_a_setup_a_rule_is() {
    let here = directory();
    let setup = |policy: &str| {
        // The Secret is not needed for the policy.
        let text = format!(
            "apiVersion: audit-operator.io/v1alpha1\nkind: AuditSetup\nmetadata: {{name: a}}\nspec:\n  policy: {policy}\n  sinks:\n\
             \x20 - name: a\n    webhook: {{url: 'https://a.example.com/', auth: {{bearerTokenSecretRef: {{name: t}}}}}}\n"
        );
        write(here.path(), "setup.yaml", text.as_bytes());
    };
    let explain = |args: &[&str]| {
        let args = [&["explain", "-f", "setup.yaml", "--output", "json", "--as", "alice"], args].concat();
        policy(here.path(), &args, b"")
    };
    setup(
        "{preset: metadata, prepend: [{level: None, users: [bob]}, {level: None, verbs: [list]}], append: [{level: None}]}",
    );
    let part = |args: &[&str]| answers(explain(args)).1.remove(0)["rule"]["part"].clone();
    assert_eq!(part(&["GET", "/api/v1/pods"]), json!({"name": "prepend", "index": 1}));
    assert_eq!(part(&["GET", "/api/v1/pods/x"]), json!({"name": "preset metadata-2026.1", "index": 2}));
    assert_eq!(
        part(&["GET", "/apis/audit-operator.io/v1alpha1/nodeaudits/n"])["name"],
        "the operator's canary request"
    );
    let found = answers(explain(&["GET", "/healthz"])).1.remove(0);
    assert_eq!(found["passedOver"][1]["part"], json!({"name": "prepend", "index": 0}));
    setup("{rules: [{level: None, verbs: [get]}], append: [{level: Metadata}]}");
    assert_eq!(part(&["GET", "/"]), json!({"name": "rules", "index": 0}));
    assert_eq!(part(&["POST", "/"]), json!({"name": "append", "index": 0}));
    // What would not be rolled out is refused with its place.
    setup("{preset: stig-literal}");
    let (code, _, error) = answers(explain(&["GET", "/"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("setup.yaml:5:12: spec.policy.preset: records secrets with their bodies"), "{error}");
    assert!(error.contains("SecretsAboveMetadata into policy.acknowledge (RiskNotAcknowledged)"), "{error}");
}

#[test]
fn coverage_is_told_with_rules_and_what_falls_short() {
    let here = directory();
    let presets = |args: &[&str]| policy(here.path(), &[&["presets"], args].concat(), b"");
    let shown = text(presets(&["openshift-default", "--coverage"]));
    for line in [
        "CIS Kubernetes Benchmark 1.10 and 2.0\n",
        "  met      3.2.2 Secrets: access to Secrets is recorded, and at Metadata only\n           by rules[3] (line 31)\n",
        "  not met  policy, reads: reads are recorded with both bodies\n           at least RequestResponse is asked, and rules[3] (line 31) has Metadata for 30 of 30:\n",
        "  partly   policy, the rest: other paths, anonymous and unauthenticated requests are recorded\n",
        "             … (--output json has all)\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
    let (code, records, _) = answers(presets(&["stig-literal", "--coverage", "--output", "json"]));
    let record = &records[0];
    assert_eq!((code, records.len(), &record["acknowledge"]), (Some(0), 1, &json!(["SecretsAboveMetadata"])));
    let items = record["coverage"].as_array().unwrap();
    let item = |id: &str| items.iter().find(|item| item["id"] == id).unwrap();
    assert_eq!((&item("V-242403")["outcome"], &item("V-242403")["rules"]), (&json!("met"), &json!([0])));
    assert_eq!(item("3.2.2 Secrets")["outcome"], "notMet");
    assert_eq!(
        item("3.2.2 Secrets")["shortfalls"][0],
        json!({"user": "alice", "method": "GET", "url": "/api/v1/namespaces/shop/secrets/db", "least": "Metadata", "most": "Metadata", "level": "RequestResponse", "rule": 0})
    );
    assert_eq!(presets(&["--coverage"]).status.code(), Some(2));
}

/// The tables in docs/presets.md are written from what the program says.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test writes its own files, and is told so by the environment")]
fn the_page_about_presets_says_what_they_are() {
    let here = directory();
    let ask = |args: &[&str]| answers(policy(here.path(), &[&["presets", "--output", "json"], args].concat(), b"")).1;
    let all = ask(&[]);
    let mut presets =
        "| preset | what for | rules | bodies | acknowledge |\n| --- | --- | --- | --- | --- |\n".to_string();
    let mut rows: Vec<(String, String)> = Vec::new();
    for record in &all {
        let word = |key: &str| record[key].as_str().unwrap();
        let risks: Vec<_> = record["acknowledge"]
            .as_array()
            .unwrap()
            .iter()
            .map(|risk| format!("`{}`", risk.as_str().unwrap()))
            .collect();
        let bodies = match word("level") {
            "Metadata" => "none",
            "Request" => "of requests",
            _ => "both",
        };
        let (version, about) = (word("version"), word("about"));
        presets += &format!("| `{version}` | {about} | {} | {bodies} | {} |\n", record["rules"], risks.join(", "));
        let covered = ask(&[word("name"), "--coverage"]).remove(0);
        for (i, item) in covered["coverage"].as_array().unwrap().iter().enumerate() {
            let word = |key: &str| item[key].as_str().unwrap();
            if rows.len() <= i {
                rows.push((
                    format!("{} {}: {}", word("standard").split(' ').next().unwrap(), word("id"), word("title")),
                    String::new(),
                ));
            }
            rows[i].1 += match word("outcome") {
                "met" => " ● |",
                "partly" => " ◐ |",
                _ => " ○ |",
            };
        }
    }
    let names: Vec<_> = all.iter().map(|record| record["name"].as_str().unwrap()).collect();
    let mut coverage = format!("| item | {} |\n|{}\n", names.join(" | "), " --- |".repeat(names.len() + 1));
    for (item, cells) in rows {
        coverage += &format!("| {item} |{cells}\n");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/presets.md");
    let have = fs::read_to_string(&path).unwrap();
    let mut want = have.clone();
    for (name, table) in [("presets", presets), ("coverage", coverage)] {
        let begin = want.find(&format!("<!-- {name}: ")).unwrap();
        let begin = begin + want[begin..].find('\n').unwrap() + 1;
        let end = want.find(&format!("<!-- end of {name} -->")).unwrap();
        want.replace_range(begin..end, &table);
    }
    if std::env::var("UPDATE_CASES").is_ok() {
        fs::write(&path, &want).unwrap();
    } else {
        assert_eq!(have, want, "docs/presets.md differs: UPDATE_CASES=1 cargo test --test it presets");
    }
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
