//! Policy files, most of them invalid: kube-apiserver starts with exactly those that `policy lint` calls valid, and
//! rejects the others with the predicted message.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use audit_policy::{Severity, load, presets};
use serde_json::Value;
use testing::process::Process;
use testing::random::Random;
use testing::{policies, wait};

use crate::server::{self, Credentials};
use crate::{MINOR, seed};

/// Longer than kube-apiserver takes to come to the policy.
const LIMIT: Duration = Duration::from_secs(60);
/// A policy that the changes below are made to.
const BASE: &str = r#"apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: p}
omitStages: [RequestReceived]
rules:
- level: None
  users: [alice]
  verbs: [get]
  resources:
  - group: ""
    resources: [pods]
    resourceNames: [x]
- level: Metadata
  nonResourceURLs: ["/healthz*"]
- level: Request
"#;

/// What is replaced in [`BASE`], and by what.
#[rustfmt::skip]
const CHANGES: &[(&str, &str)] = &[
    ("level: None", "level: none"), ("level: None", "level: Everything"), ("level: None", "level:"), ("level: None", "level: 1"),
    ("level: None", "level: [None]"), ("level: None", "Level: None"), ("level: None", "level: None\n  level: Request"), ("level: None", "level: \"None\\n\""),
    ("level: None", "level: !!str None"), ("level: None", "? level\n  : None"), ("level: None", "level: &a None\n  <<: {level: Request}"),
    ("[RequestReceived]", "RequestReceived"), ("[RequestReceived]", "[requestReceived]"), ("[RequestReceived]", "[RequestReceived, Panic, '', \"a\\tb\"]"),
    ("[RequestReceived]", "null"), ("[RequestReceived]", "{}"), ("[RequestReceived]", "[~]"), ("omitStages", "omitStage"),
    ("users: [alice]", "users: alice"), ("users: [alice]", "users: [on]"), ("users: [alice]", "users: [1_000]"), ("users: [alice]", "users: [12:30, oN, 1e400]"),
    ("users: [alice]", "users: [y]"), ("users: [alice]", "users: [0o17]"), ("users: [alice]", "users: [.inf]"), ("users: [alice]", "users: [2001-01-01, null, '']"),
    ("users: [alice]", "users: {alice: }"), ("users: [alice]", "users: [alice"), ("users: [alice]", "users: [a, [b]]"), ("users: [alice]", "users: [\u{1f600}, \u{e9}]"),
    ("users: [alice]", "\tusers: [alice]"), ("users: [alice]", "users:\t[alice]"), ("users: [alice]", "users: [\"\\x41\\u0042\"]"), ("users: [alice]", "users: [*a]"),
    ("verbs: [get]", "verb: [get]"), ("verbs: [get]", "verbs: [get]\n  nonResourceURLs: [/a]"), ("verbs: [get]", "verbs: [get]\n  omitStages: [Done]"),
    ("verbs: [get]", "verbs: [get]\n  omitManagedFields: yes"), ("verbs: [get]", "verbs: [get]\n  omitManagedFields: \"true\""), ("verbs: [get]", "verbs:\n  - get\n    - list"),
    ("verbs: [get]", "verbs: [get]\n  namespaces: [\"\"]\n  nonResourceURLs: [\"<&>\", \"/a*b*\", \"*\"]"), ("verbs: [get]", "verbs: [get]\n  1: 2"),
    ("group: \"\"", "group: \"*\""), ("group: \"\"", "group: apps/v1"), ("group: \"\"", "group: Apps"), ("group: \"\"", "group: core"), ("group: \"\"", "group: -a"),
    ("group: \"\"", "group: null"), ("group: \"\"", "groups: [a]"), ("    resources: [pods]\n", ""), ("resources: [pods]", "resources: []"), ("resources: [pods]", "resources: pods"),
    ("\"/healthz*\"", "healthz"), ("\"/healthz*\"", "\"/a*/b\""), ("\"/healthz*\"", "\"*a\""), ("\"/healthz*\"", "\"\""), ("\"/healthz*\"", "\"/*\\u00e9\""),
    ("- level: Request\n", "- null\n"), ("- level: Request\n", "- {}\n"), ("- level: Request\n", "- level: Request\n---\nrules: x\n"), ("- level: Request\n", "- level: Request\n...\n}{\n"),
    ("- level: Request\n", " - level: Request\n"), ("- level: Request\n", "-level: Request\n"), ("- level: Request\n", "- level: Request\nrules: []\n"), ("- level: Request\n", "- level: Request\u{0}\n"),
    ("audit.k8s.io/v1", "audit.k8s.io/v1beta1"), ("audit.k8s.io/v1", "v1"), ("audit.k8s.io/v1", "a/b/c"), ("audit.k8s.io/v1", "audit.k8s.io/__internal"), ("audit.k8s.io/v1", "1"),
    ("apiVersion: audit.k8s.io/v1\n", ""), ("kind: Policy\n", ""), ("kind: Policy", "kind: policy"), ("kind: Policy", "kind: EventList"), ("kind: Policy", "kind: Status"), ("kind: Policy", "kind: DeleteOptions"), ("kind: Policy", "kind: [Policy]"),
    ("apiVersion", "ApiVersion"), ("apiVersion: ", "---\n# c\napiVersion: "), ("apiVersion: ", "---\n---\napiVersion: "), ("apiVersion: ", "%YAML 1.2\n---\napiVersion: "),
    ("apiVersion: ", "\u{feff}apiVersion: "), ("{name: p}", "{name: 1}"), ("{name: p}", "{labels: {a: 1}}"), ("{name: p}", "{creationTimestamp: 2024-05-01}"), ("{name: p}", "{nome: p}"),
    ("\n", "\r\n"), ("\n", "\u{2028}"), ("rules:", "Rules:"), ("rules:", "x:\n- [.nan]\nrules:"), ("rules:", "rules: &a"),
];

/// Whole files.
#[rustfmt::skip]
const WHOLE: &[&[u8]] = &[
    b"", b"\n", b"{}", b"[]", b"a", b"null", b"rules: [", b"\xff\xfe", b"{\"apiVersion\":\"audit.k8s.io/v1\",\"kind\":\"Policy\",\"rules\":[{\"level\":\"None\"}]}",
    b"{\"apiVersion\":\"audit.k8s.io/v1\",\"kind\":\"Policy\",\"rules\":[{\"level\":\"None\"},]}", b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}",
    b"--- {apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None}]}", b"{\"apiVersion\":\"audit.k8s.io/v1\",\"rules\":[{\"level\":\"None\",\"users\":[\"\xff\"]}]}",
    b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []\n", b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n", b"apiVersion: audit.k8s.io/v1\nkind: Policy\n",
    b"{\"apiVersion\":\"audit.k8s.io/v1\",\"rules\":[{\"level\":\"None\",\"level\":\"Bad\"}]}", b"k8s\0x",
];

/// Every file, with a name.
fn files() -> Vec<(String, Vec<u8>)> {
    let changed = CHANGES.iter().map(|(from, to)| {
        assert!(BASE.contains(from), "{from:?} is not in the policy");
        let text = if *from == "\n" { BASE.replace(from, to) } else { BASE.replacen(from, to, 1) };
        (format!("{from:?} -> {to:?}"), text.into_bytes())
    });
    let whole = WHOLE.iter().map(|text| (text.escape_ascii().to_string(), text.to_vec()));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/lint");
    let cases = std::fs::read_dir(root).unwrap().flat_map(|case| {
        let case = case.unwrap().path();
        let inputs = ["in.yaml", "in.json"].map(|name| case.join(name)).into_iter().filter(|file| file.exists());
        inputs.map(|file| (file.display().to_string(), std::fs::read(&file).unwrap())).collect::<Vec<_>>()
    });
    let presets = presets().into_iter().map(|preset| (preset.name.to_string(), preset.text.into()));
    let mut random = Random::new(seed());
    let generated = (0..25).map(|index| (format!("generated {index}"), policies::policy_text(&mut random)));
    std::iter::once(("the policy itself".to_string(), BASE.into()))
        .chain(changed)
        .chain(whole)
        .chain(cases)
        .chain(presets)
        .chain(generated)
        .collect()
}

#[test]
fn kube_apiserver_starts_with_exactly_the_files_that_lint_calls_valid() {
    let begin = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let program = server::programs().join("kube-apiserver");
    let credentials = Credentials::make(directory.path());
    let files = files();
    let paths: Vec<PathBuf> = (0..files.len()).map(|index| directory.path().join(format!("{index}.policy"))).collect();
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    paths.iter().zip(&files).for_each(|(path, (_, text))| std::fs::write(path, text).unwrap());
    let valid = valid(&paths);

    let left = Mutex::new((0..files.len()).collect::<Vec<usize>>());
    let differences = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..crate::SERVERS {
            scope.spawn(|| {
                while let Some(index) = { left.lock().unwrap().pop() } {
                    let (name, text) = &files[index];
                    let said = said_about(&program, &credentials, &paths[index]);
                    if let Some(difference) = difference(text, valid[index], &said) {
                        differences
                            .lock()
                            .unwrap()
                            .push(format!("{name}\n{}\n{difference}", String::from_utf8_lossy(text)));
                    }
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{} differences:\n\n{}", differences.len(), differences.join("\n\n"));
    let starts = valid.iter().filter(|valid| **valid).count();
    assert!(starts > 0 && starts < files.len(), "{starts} of {} files are valid", files.len());
    eprintln!("{} files judged, {starts} of them valid: 0 differences, {:?}", files.len(), begin.elapsed());
}

/// By the command line.
fn valid(paths: &[PathBuf]) -> Vec<bool> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_audit-operator"));
    let output = command.args(["policy", "lint", "--output", "json"]).args(paths).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), paths.len(), "{}", String::from_utf8_lossy(&output.stderr));
    reports.iter().map(|report| report["valid"].as_bool().unwrap()).collect()
}

struct Said {
    /// Why it does not start; `None`: it accepts the policy.
    refusal: Option<String>,
    /// It accepted the policy only by lenient decoding.
    has_warned: bool,
}

/// Starts a kube-apiserver that ends at once: the policy is loaded before etcd is needed, and a webhook configuration
/// that does not exist is what it stumbles over next (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/audit.go#L273-L309).
fn said_about(program: &Path, credentials: &Credentials, policy: &Path) -> Said {
    let name = policy.file_name().unwrap().to_string_lossy();
    let mut args =
        server::api_server_args(credentials, "http://127.0.0.1:1", &name, testing::process::free_port(), policy);
    args.push("--audit-webhook-config-file=/nonexistent".into());
    let mut process = Process::start(program, &args, policy.with_extension("log"));
    wait::until(|| "the end of kube-apiserver".into(), LIMIT, || process.has_ended().then_some(()));
    let log = process.said();
    let error = log.lines().rev().find_map(|line| line.split_once("\"command failed\" err="));
    let (_, error) = error.unwrap_or_else(|| panic!("kube-apiserver has not said why it ended:\n{log}"));
    // klog writes text of several lines in another form.
    let error = if error.starts_with('"') { unquoted(error) } else { log.clone() };
    let refusal = error.strip_prefix("loading audit policy file: ").map(str::to_string);
    assert!(refusal.is_some() || error.starts_with("initializing audit webhook: "), "{error}");
    Said { refusal, has_warned: log.contains("Audit policy contains errors, falling back to lenient decoding") }
}

fn difference(text: &[u8], is_valid: bool, said: &Said) -> Option<String> {
    let refusal = said.refusal.as_deref();
    if is_valid != refusal.is_none() {
        return Some(format!("lint: valid {is_valid}; kube-apiserver: {refusal:?}"));
    }
    let loaded = load(text, MINOR);
    let Some(refusal) = refusal else {
        let warns = loaded.findings.iter().any(|finding| finding.severity == Severity::Warning);
        return (warns != said.has_warned)
            .then(|| format!("a warning: {warns}, of kube-apiserver: {}", said.has_warned));
    };
    let errors: Vec<_> = loaded.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let ids: HashSet<&str> = errors.iter().map(|error| error.id).collect();
    // Each step ends with its errors: the type, the fields, the values, and then the rules are counted. The words of
    // the decoders are theirs; of the rest we have the same.
    let predicted = |id: &str| match id {
        "syntax" | "wrong-type" => false,
        "api-version" | "kind" => true,
        _ if ["api-version", "kind", "syntax", "wrong-type"].iter().any(|earlier| ids.contains(earlier)) => false,
        "no-rules" => ids.len() == 1,
        _ => true,
    };
    // The scheme has the name of the file that made it, which depends on where kube-apiserver was built.
    let words = |message: &str| message.split(" in scheme ").next().unwrap_or_default().to_string();
    let missing = errors.iter().find(|error| predicted(error.id) && !refusal.contains(&words(&error.message)));
    missing.map(|error| format!("predicted {:?}\nsaid      {refusal:?}", error.message))
}

/// What Go's `%q` has quoted, up to the closing quote.
fn unquoted(text: &str) -> String {
    let mut chars = text.chars().skip(1);
    let mut out = String::new();
    while let Some(c) = chars.next().filter(|c| *c != '"') {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let escape = chars.next().unwrap_or_default();
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let code: String = chars.by_ref().take(digits).collect();
        out.push(match escape {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            _ if digits > 0 => u32::from_str_radix(&code, 16).ok().and_then(char::from_u32).unwrap_or('\u{fffd}'),
            other => other,
        });
    }
    out
}
