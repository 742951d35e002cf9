//! `audit-operator policy lint`, `eval` and `request` as other programs use them.
//!
//! A case below `tests/cases/lint` holds `in.yaml` or `in.json`, perhaps `args`, and the text output in `want.out`; if
//! `--fix` corrects the file, `want.file` is the result. Every stanza is found in at least one case.
//! `UPDATE_CASES=1 cargo test` writes the wanted files.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use audit_policy::{STANZAS, documentation};
use serde_json::{Value, json};
use testing::golden::{self, Differences, cases};
use testing::root;

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

fn write(directory: &Path, name: &str, content: &[u8]) {
    golden::write(&directory.join(name), content);
}

#[test]
fn every_lint_case_comes_out_as_it_should() {
    let mut differences = Differences::default();
    let mut seen = String::new();
    for case in cases("tests/cases/lint") {
        let file = if case.join("in.json").exists() { "in.json" } else { "in.yaml" };
        let args = fs::read_to_string(case.join("args")).unwrap_or_default();
        let args: Vec<_> = ["lint", file].into_iter().chain(args.split_whitespace()).collect();
        // A correction writes the file.
        let here = tempfile::tempdir().unwrap();
        let input = fs::read(case.join(file)).unwrap();
        write(here.path(), file, &input);
        if let Ok(floor) = fs::read(case.join("floor.yaml")) {
            write(here.path(), "floor.yaml", &floor);
        }
        let output = policy(here.path(), &args, b"");
        let shown = String::from_utf8(output.stdout).unwrap();
        let written = fs::read(here.path().join(file)).unwrap();
        differences.compare(&case.join("want.out"), Some(shown.as_bytes()));
        differences.compare(&case.join("want.file"), (written != input).then_some(&*written));
        let is_bad = shown.lines().any(|line| line.starts_with("error[") || line.starts_with("warning["));
        if output.status.code() != Some(i32::from(is_bad)) || !output.stderr.is_empty() {
            let error = String::from_utf8_lossy(&output.stderr);
            differences.add(format!("{}: exit {:?}: {error}", case.display(), output.status.code()));
        }
        seen += &shown;
    }
    for stanza in
        STANZAS.iter().filter(|stanza| !seen.contains(&format!("{}[{}]", stanza.severity.as_str(), stanza.id)))
    {
        differences.add(format!("no case finds {}", stanza.id));
    }
    differences.end();
}

#[test]
fn the_documentation_is_that_of_the_stanzas() {
    let mut differences = Differences::default();
    differences.compare(&root().join("docs/policy-lint.md"), Some(documentation().as_bytes()));
    differences.end();
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
    assert!(error.contains("bad.yaml was not changed") && error.contains("rules[2].level"), "{error}");
    assert_eq!(fs::read_to_string(here.path().join("bad.yaml")).unwrap(), bad);
    assert_eq!(policy(here.path(), &["lint", "--fix", "-"], POLICY.as_bytes()).status.code(), Some(2));
    // The target of a link is corrected, and keeps its mode.
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
    // A file with infos only is clean. Without its verbs the rule records Secrets too.
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
    // A missing file does not stop the check of the others.
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
        ("fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
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
    assert!(error.contains("standard input, line 2: column 2: key must be a string"), "{error}");
    assert!(eval("-", "{}\n[]\n").2.contains("line 2: not a JSON object"));
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
    // A method that HTTP does not have gives no verb.
    let input = b"{\"method\":\"get\",\"url\":\"/api/v1/pods\"}\n";
    assert_eq!(text(policy(here.path(), &["request"], input)), "\"\" pods\n");
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
    let want = r#"user        "alice", groups "devs", "system:authenticated" (added by kube-apiserver: system:authenticated)
request     get pods/log name=web namespace=shop

policy.yaml:8 no: rules[0] (None): users: "bob"; the request has user "alice"
policy.yaml:14 no: rules[1] (None): resources[0].resources: "pods"; the request has resource "pods/log"
policy.yaml:16 yes: rules[2]

16 | - level: Request
17 |   userGroups: [devs]
18 | 
19 |   # In the middle.
20 |   verbs: [get]

level       Request: also the body of the request, if it has one
omitted     RequestReceived
recorded    ResponseStarted, ResponseComplete
managed     fields are left out of the bodies
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
    assert_eq!(text(never), "Never audited, under any policy: unable to determine kind and namespace from url.\n");
    assert_eq!(json(&["--preset", "metadata", "OPTIONS", "*"])["audited"], false);
    // For a kubelet, the output names the missing group.
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
    assert_eq!(found["passedOver"][2]["part"], json!({"name": "prepend", "index": 0}));
    setup("{rules: [{level: None, verbs: [get]}], append: [{level: Metadata}]}");
    assert_eq!(part(&["GET", "/"]), json!({"name": "rules", "index": 0}));
    assert_eq!(part(&["POST", "/"]), json!({"name": "append", "index": 0}));
    // A Setup that would not be rolled out is refused, with the place of the problem.
    setup("{preset: stig-literal}");
    let (code, _, error) = answers(explain(&["GET", "/"]));
    assert_eq!(code, Some(2));
    assert!(
        error.contains("setup.yaml:5:12: spec.policy.preset: preset stig-literal-2026.1: rules[0].level: secrets are"),
        "{error}"
    );
    assert!(error.contains("acknowledge SecretsAboveMetadata (secret-bodies) (RiskNotAcknowledged)"), "{error}");
}

#[test]
fn coverage_is_told_with_rules_and_what_falls_short() {
    let here = directory();
    let presets = |args: &[&str]| policy(here.path(), &[&["presets"], args].concat(), b"");
    let shown = text(presets(&["openshift-default", "--coverage"]));
    for line in [
        "CIS Kubernetes Benchmark 1.10 and 2.0\n",
        "  met      3.2.2 Secrets: access to Secrets is recorded, at Metadata only\n           by rules[3] (line 31)\n",
        "  not met  policy, reads: reads are recorded with both bodies\n           should be at least RequestResponse, but rules[3] (line 31) has Metadata, for 30 of 30 requests:\n",
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

/// The tables in docs/presets.md are generated from the output of the program.
#[test]
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
    let path = root().join("docs/presets.md");
    let have = fs::read_to_string(&path).unwrap();
    let mut want = have.clone();
    for (name, table) in [("presets", presets), ("coverage", coverage)] {
        let begin = want.find(&format!("<!-- {name}: ")).unwrap();
        let begin = begin + want[begin..].find('\n').unwrap() + 1;
        let end = want.find(&format!("<!-- end of {name} -->")).unwrap();
        want.replace_range(begin..end, &table);
    }
    let mut differences = Differences::default();
    differences.compare(&path, Some(want.as_bytes()));
    differences.end();
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
