//! `audit-operator policy replay` and `policy diff` as users have them: files of all kinds, damage, exit statuses.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                      - {level: None, verbs: [watch]}\n- {level: Metadata, users: [alice]}\n- {level: RequestResponse, verbs: [get]}\n";

/// One event as kube-apiserver writes it.
fn event(level: &str, stage: &str, verb: &str, uri: &str, user: &str, second: u32, bodies: &str) -> String {
    let user = if user.is_empty() { json!({}) } else { json!({"username": user, "groups": ["system:authenticated"]}) };
    let status = if stage == "RequestReceived" { "" } else { r#","responseStatus":{"metadata":{},"code":200}"# };
    format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"a","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{user},"sourceIPs":["10.0.0.1"]{status}{bodies},"requestReceivedTimestamp":"2026-03-02T08:00:{second:02}.000000Z","stageTimestamp":"2026-03-02T08:00:{second:02}.500000Z"}}"#
    )
}

fn pods(verb: &str, user: &str, second: u32) -> String {
    event("Metadata", "ResponseComplete", verb, "/api/v1/namespaces/n/pods/p", user, second, "")
}

fn log() -> String {
    let lines = [pods("get", "alice", 0), pods("watch", "alice", 1), pods("get", "bob", 2), pods("create", "", 10)];
    lines.map(|line| line + "\n").concat()
}

struct Here(tempfile::TempDir);

impl Here {
    fn new() -> Self {
        let here = Self(tempfile::tempdir().unwrap());
        here.write("policy.yaml", POLICY);
        here
    }

    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
            .arg("policy")
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that refuses its arguments does not read.
            scope.spawn(move || _ = stdin.write_all(input));
            child.wait_with_output().unwrap()
        })
    }

    /// Exit status and report. Nothing is on standard error: there is no terminal.
    fn replay(&self, logs: &[&str], input: &[u8]) -> (Option<i32>, Value) {
        let args = [&["replay", "--policy", "policy.yaml", "--output", "json", "--threads", "2"], logs].concat();
        let output = self.run(&args, input);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }

    fn refusal(&self, args: &[&str]) -> String {
        let output = self.run(args, b"");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

/// Index, hits, kept, requests.
fn rules(report: &Value) -> Vec<(Option<u64>, u64, u64, u64)> {
    let rules = report["rules"].as_array().unwrap().iter();
    rules
        .map(|rule| {
            let number = |name: &str| rule[name].as_u64().unwrap();
            (rule["rule"].as_u64(), number("hits"), number("events"), number("requests"))
        })
        .collect()
}

#[test]
fn a_log_is_counted_by_rule_and_what_it_would_cost_is_told() {
    let here = Here::new();
    here.write("audit.log", log());
    let (code, report) = here.replay(&["audit.log"], b"");
    assert_eq!(code, Some(0));
    let want = [(Some(0), 1, 0, 1), (Some(1), 1, 1, 1), (Some(2), 1, 1, 1), (None, 1, 0, 1)];
    assert_eq!(rules(&report), want);
    // The body of a get would be there at RequestResponse.
    let longer = "RequestResponse".len() - "Metadata".len();
    let bytes = pods("get", "alice", 0).len() + 1 + pods("get", "bob", 2).len() + 1 + longer;
    assert_eq!(report["kept"]["bytes"], bytes);
    assert_eq!((&report["kept"]["atLeast"], &report["rules"][1]["atLeast"]), (&json!(true), &json!(false)));
    assert_eq!(report["log"]["seconds"], 10);
    assert_eq!(report["log"]["from"], "2026-03-02T08:00:00Z");
    assert_eq!(report["kept"]["bytesPerDay"], bytes as f64 * 8640.0);
    let hours = 11.0 * 100.0 * 1_048_576.0 / (bytes as f64 / 10.0) / 3600.0;
    assert!((report["rotation"]["hours"].as_f64().unwrap() - hours).abs() < 1e-6 * hours);
    assert_eq!(report["sink"]["eventsPerSecond"], json!({"mean": 0.2, "peakSecond": 1, "peakMinute": 0.2}));
    assert_eq!((&report["sink"]["suffices"], &report["sink"]["eventsPerSecondAtMost"]), (&json!(true), &json!(4000)));
    let top =
        |of: &str| report["top"][of].as_array().unwrap().iter().map(|one| one["name"].clone()).collect::<Vec<_>>();
    assert_eq!(
        (top("users"), top("resources"), top("verbs")),
        (vec![json!("bob"), json!("alice")], vec![json!("pods")], vec![json!("get")])
    );
    let unknown: Vec<_> = report["unknown"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(unknown, ["bodies", "dropped", "short"]);

    let text = String::from_utf8(here.run(&["replay", "--policy", "policy.yaml", "audit.log"], b"").stdout).unwrap();
    for part in ["4 events", "at least", "users alice", "no rule matches", "hold at most"] {
        assert!(text.replace("by alice", "users alice").contains(part), "{part}: {text}");
    }
}

#[test]
fn a_lower_level_is_counted_to_the_byte() {
    let here = Here::new();
    let annotations = r#","annotations":{"authorization.k8s.io/decision":"allow"}"#;
    let bodies =
        r#","requestObject":{"a":"}\"","metadata":{"managedFields":[1],"name":"n"}},"responseObject":{"b":[{}]}"#;
    let of = |level: &str, bodies: &str| event(level, "ResponseComplete", "update", "/api/v1/nodes/x", "u", 1, bodies);
    for (level, want) in [
        ("RequestResponse", format!("{bodies}{annotations}")),
        ("Request", format!("{}{annotations}", bodies.split(",\"responseObject\"").next().unwrap())),
        ("Metadata", annotations.to_string()),
    ] {
        here.write("policy.yaml", format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{{level: {level}}}]\n"));
        let line = of("RequestResponse", &format!("{bodies}{annotations}")) + "\n";
        let (_, report) = here.replay(&["-"], line.as_bytes());
        assert_eq!(report["kept"]["bytes"], of(level, &want).len() + 1, "{level}");
        assert_eq!(report["kept"]["atLeast"], false);
        // The same event with blanks takes another path to the same count.
        let spaced = line.replace("\":", "\" : ").replace("u\",\"g", "u\", \"g");
        assert_eq!(here.replay(&["-"], spaced.as_bytes()).1["kept"], report["kept"], "{level}");
    }
    here.write(
        "policy.yaml",
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitManagedFields: true\nrules: [{level: RequestResponse}]\n",
    );
    let (_, report) = here.replay(&["-"], of("RequestResponse", bodies).as_bytes());
    assert_eq!(report["kept"]["bytes"], of("RequestResponse", &bodies.replace("\"managedFields\":[1],", "")).len() + 1);
}

#[test]
fn every_form_of_a_log_comes_to_the_same() {
    let here = Here::new();
    let log = log();
    here.write("audit.log", &log);
    let (_, want) = here.replay(&["audit.log"], b"");
    let same = |logs: &[&str], input: &[u8]| assert_eq!(here.replay(logs, input), (Some(0), want.clone()), "{logs:?}");
    same(&["-"], log.as_bytes());
    same(&["-"], &gzip(log.as_bytes()));
    same(&["-"], log.trim_end().as_bytes());
    same(&["-"], log.replace('\n', "\r\n\n").as_bytes());
    same(&["audit.log", "audit.log"], b"");
    // Items of a list have no type of their own.
    let items: Vec<String> =
        log.lines().map(|line| line.replace(r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#, "")).collect();
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#,
        items.join(",")
    );
    same(&["-"], list.as_bytes());
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&list).unwrap()).unwrap();
    same(&["-"], pretty.as_bytes());
    same(&["-"], &gzip(pretty.as_bytes()));

    // Rotated: the base path and the directory stand for all of them, a file that is being compressed counts once.
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    fs::create_dir(here.path().join("logs")).unwrap();
    here.write("logs/audit.log", lines[3]);
    here.write("logs/audit-2026-03-02T08-00-01.000.log.gz", gzip(lines[0].as_bytes()));
    here.write("logs/audit-2026-03-02T08-00-02.000.log", lines[1..3].concat());
    here.write("logs/audit-2026-03-02T08-00-02.000.log.gz", &gzip(log.as_bytes())[..20]);
    same(&["logs"], b"");
    same(&["logs/audit.log"], b"");
    same(&["logs", "logs/audit.log"], b"");
    // As logrotate names them.
    fs::create_dir(here.path().join("rotated")).unwrap();
    here.write("rotated/audit.log", lines[3]);
    here.write("rotated/audit.log.10.gz", gzip(lines[0].as_bytes()));
    here.write("rotated/audit.log.9", lines[1]);
    here.write("rotated/audit.log.1", lines[2]);
    here.write("rotated/audit.log.1.old", lines[2]);
    same(&["rotated"], b"");
    same(&["rotated/audit.log"], b"");
    here.write("logs/audit-other.log", lines[0]);
    same(&["logs/audit.log"], b"");
    assert_eq!(here.replay(&["logs"], b"").1["log"]["events"], 5);
}

#[test]
fn damage_is_counted_and_placed_and_what_is_sound_is_counted_too() {
    let here = Here::new();
    let log = log();
    let good = pods("get", "alice", 0) + "\n";
    let cut = &good[..100];
    let damaged = [
        good.as_bytes(),
        cut.as_bytes(),
        b"\n\0\0\0\n",
        good.replace("alice", "al\u{1}ice").as_bytes(),
        &good.replace("alice", "?").bytes().map(|b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>(),
        b"{\"kind\":\"Pod\"}\n",
        good.as_bytes(),
        cut.as_bytes(),
    ]
    .concat();
    here.write("audit.log", &damaged);
    let (code, report) = here.replay(&["audit.log"], b"");
    assert_eq!((code, &report["damaged"], &report["log"]["events"]), (Some(1), &json!(6), &json!(2)));
    let places: Vec<_> =
        report["damage"].as_array().unwrap().iter().map(|one| (one["line"].clone(), one["message"].clone())).collect();
    let wrong = |at: usize, line: u64, message: &str| {
        assert_eq!(places[at].0, line);
        assert!(places[at].1.as_str().unwrap().contains(message), "{places:?}");
    };
    wrong(0, 2, "cut off after 100 bytes");
    wrong(1, 3, "3 NUL bytes");
    wrong(2, 4, "control character");
    wrong(3, 5, "not JSON");
    wrong(4, 6, "the object has another kind");
    wrong(5, 8, "cut off");
    assert_eq!(report["damage"][0]["offset"], good.len());
    assert_eq!(report["damage"][1]["offset"], good.len() + 101);

    // A compressed file that ends early.
    let whole = log.repeat(3000);
    let compressed = gzip(whole.as_bytes());
    let (code, report) = here.replay(&["-"], &compressed[..compressed.len() / 2]);
    let events = report["log"]["events"].as_u64().unwrap();
    assert_eq!((code, &report["damaged"]), (Some(1), &json!(1)));
    assert!((1_000..12_000).contains(&events), "{events}");
    assert!(report["damage"][0]["message"].as_str().unwrap().contains("compressed"));

    let text = String::from_utf8(here.run(&["replay", "--policy", "policy.yaml", "audit.log"], b"").stdout).unwrap();
    assert!(text.contains(&format!("audit.log:2 (byte {}): cut off", good.len())), "{text}");
}

#[test]
fn damage_far_behind_has_its_line() {
    let here = Here::new();
    let lines = 9_000;
    here.write("audit.log", format!("{}{{\n{}", (pods("get", "bob", 1) + "\n").repeat(lines), pods("get", "bob", 2)));
    let (code, report) = here.replay(&["audit.log"], b"");
    assert_eq!((code, &report["damage"][0]["line"]), (Some(1), &json!(lines + 1)));
    assert_eq!(report["log"]["events"], lines + 1);
}

#[test]
fn an_endless_line_takes_no_more_memory_than_a_long_one() {
    let here = Here::new();
    here.write("good", pods("get", "bob", 2));
    let script = r#"ulimit -v 1000000; { cat good; echo; head -c 300000000 /dev/zero; echo; cat good; } |
        "$0" policy replay --policy policy.yaml --output json --threads 1 -"#;
    let output = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_audit-operator")])
        .current_dir(here.path())
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((output.status.code(), &report["log"]["events"], &report["damaged"]), (Some(1), &json!(2), &json!(1)));
    assert!(report["damage"][0]["message"].as_str().unwrap().contains("300000000 bytes"), "{}", report["damage"]);
}

#[test]
fn what_cannot_be_read_is_said_and_ends_it() {
    let here = Here::new();
    here.write("audit.log", log());
    fs::create_dir(here.path().join("empty")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, here.path().join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let refusal = |args: &[&str]| here.refusal(&[&["replay"], args].concat());
    let policy = ["--policy", "policy.yaml"];
    assert!(refusal(&[&policy[..], &["empty"]].concat()).contains("empty has no log"));
    assert!(refusal(&[&policy[..], &["fifo"]].concat()).contains("not a regular file"));
    assert!(refusal(&[&policy[..], &["audit.log", "absent.log"]].concat()).contains("absent.log"));
    assert!(refusal(&policy).contains("name a log"));
    assert!(refusal(&["audit.log"]).contains("--policy"));
    assert!(refusal(&["--policy", "-", "-"]).contains("standard input"));
    assert!(refusal(&["--preset", "nothing", "audit.log"]).contains("unknown preset"));
    here.write("bad.yaml", "rules: []");
    assert!(refusal(&["--policy", "bad.yaml", "audit.log"]).contains("would not start"));
    assert_eq!(here.run(&["replay", "--preset", "metadata", "audit.log"], b"").status.code(), Some(0));
}

#[test]
fn first_stages_that_are_not_in_the_log_are_estimated() {
    let here = Here::new();
    here.write("policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n");
    let last = pods("get", "bob", 2);
    let first = event("Metadata", "RequestReceived", "get", "/api/v1/namespaces/n/pods/p", "bob", 2, "");
    let (_, report) = here.replay(&["-"], format!("{last}\n{last}\n").as_bytes());
    assert_eq!(report["kept"]["firstStagesNotInLog"], json!({"events": 2, "bytes": 2 * (first.len() + 1)}));
    let (_, report) = here.replay(&["-"], format!("{first}\n{last}\n").as_bytes());
    assert_eq!(report["kept"]["firstStagesNotInLog"], json!({"events": 0, "bytes": 0}));
    assert_eq!(rules(&report)[0], (Some(0), 2, 2, 1));
}

#[test]
fn diff_tells_what_changes_for_a_log_and_without_one() {
    let here = Here::new();
    here.write("audit.log", log());
    here.write("new.yaml", POLICY.replace("[watch]", "[watch, get]"));
    let diff = |args: &[&str]| {
        let output = here.run(&[&["diff", "policy.yaml"], args].concat(), b"");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = diff(&["new.yaml", "audit.log"]);
    assert_eq!(code, Some(1));
    let example = "audit-operator policy explain --policy new.yaml --as bob --as-group system:authenticated GET /api/v1/namespaces/n/pods/p";
    assert!(text.contains(example) && text.contains("Total compared: 4 events, 4 requests"), "{text}");
    let (code, json) = diff(&["new.yaml", "audit.log", "--output", "json"]);
    let record: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &record["events"], &record["generated"]), (Some(1), &json!(4), &json!(false)));
    assert_eq!(
        record["changes"][0]["old"],
        json!({"rule": 1, "level": "Metadata", "omitStages": ["RequestReceived"], "omitManagedFields": false})
    );
    assert_eq!(record["changes"][0]["events"], 1);
    assert_eq!(record["changes"][0]["examples"][0]["user"]["name"], "alice");

    let (code, text) = diff(&["new.yaml"]);
    assert!(code == Some(1) && text.contains("--as alice") && text.contains("kinds of request"), "{text}");
    let (code, text) = diff(&["policy.yaml"]);
    assert!(code == Some(0) && text.contains("No difference"), "{text}");
    assert_eq!(diff(&["policy.yaml", "audit.log"]).0, Some(0));
    assert!(here.refusal(&["diff", "-", "-"]).contains("standard input"));
}
