use proptest::prelude::*;

use super::*;
use crate::Level;

const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

/// Whether kube-apiserver 1.36 starts with it, and "line:column severity id" of all findings.
fn judged(text: &[u8]) -> (bool, Vec<String>) {
    let loaded = load(text, 36);
    let shown = loaded.findings.iter().map(|f| {
        let severity = if f.severity == Severity::Error { "error" } else { "warning" };
        format!("{}:{} {severity} {}", f.place.line, f.place.column, f.id)
    });
    (loaded.policy.is_some(), shown.collect())
}

#[test]
fn a_file_has_all_its_findings_with_their_places() {
    for (text, want) in [
        ("rules: [{level: None}]\n", &[][..]),
        ("rules: [{level: Metadata, users: [on, 1, x]}]\n", &["3:35 error wrong-type", "3:39 error wrong-type"]),
        (
            "rules:\n- Level: None\n  verb: [get]\n- level: Meta\n",
            &["4:3 error level", "4:3 warning unknown-field", "5:3 warning unknown-field", "6:10 error level"],
        ),
        (
            "omitStages: [X]\nrules: [{level: None, nonResourceURLs: ['a*b'], namespaces: [x], resources: [{resourceNames: [a], group: a/b}]}]\n",
            &[
                "3:14 error stage",
                "4:40 error mixed-rule",
                "4:41 error non-resource-url",
                "4:41 error non-resource-url",
                "4:94 error resource-names",
                "4:106 error group",
            ],
        ),
        ("rules: []\n", &["3:8 error no-rules"]),
        ("rules:\n", &["3:7 error no-rules"]),
        ("", &["1:1 error no-rules"]),
        (
            "metadata: {name: 1, labels: {a: 1}, x: y}\nrules: [{level: None}]\n",
            &["3:18 error wrong-type", "3:33 error wrong-type", "3:37 warning unknown-field"],
        ),
        ("rules: [{level: None, level: Request}]\n", &["3:23 warning duplicate-field"]),
        ("rules: [{level: None}\n", &["4:1 error syntax"]),
        ("rules: [&a {level: None}, *b]\n", &["3:27 error syntax"]),
        ("x: .inf\nrules: [{level: None}]\n", &["3:4 error syntax"]),
    ] {
        let starts = want.iter().all(|finding| finding.contains("warning"));
        assert_eq!(
            judged(format!("{HEAD}{text}").as_bytes()),
            (starts, want.iter().map(|w| w.to_string()).collect()),
            "{text}"
        );
    }
}

#[test]
fn other_kinds_are_refused_in_the_words_of_kube_apiserver() {
    for (kind, want) in [
        ("policy", "no kind \"policy\" is registered for version \"audit.k8s.io/v1\""),
        ("Event", "converting (v1.Event) to (audit.Policy): unknown conversion"),
        ("PolicyList", "converting (v1.PolicyList) to (audit.Policy): unknown conversion"),
        ("Status", "converting (v1.Status) to (audit.Policy): unknown conversion"),
    ] {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: {kind}\nrules: [{{level: None}}]\n");
        let message = load(text.as_bytes(), 36).findings.remove(0).message;
        assert!(message.starts_with(want), "{message}");
    }
}

#[test]
fn the_type_is_found_with_any_case_and_the_last_one_counts() {
    let rules = "rules: [{level: None}]\n";
    for (head, want) in [
        ("apiVersion: audit.k8s.io/v1\n", &[][..]),
        ("ApiVersion: audit.k8s.io/v1\n", &["1:1 warning unknown-field"]),
        ("apiVersion: v1\napiversion: audit.k8s.io/v1\n", &["2:1 warning unknown-field"]),
        ("kind: Policy\n", &["1:1 error api-version"]),
        ("apiVersion: audit.k8s.io/v1beta1\n", &["1:13 error api-version"]),
        ("apiVersion: a/b/c\n", &["1:13 error api-version"]),
        ("apiVersion: 1\n", &["1:13 error wrong-type"]),
        ("apiVersion: audit.k8s.io/v1\nkind: policy\n", &["2:7 error kind"]),
    ] {
        let starts = want.iter().all(|finding| finding.contains("warning"));
        let want = want.iter().map(|w| w.to_string()).collect();
        assert_eq!(judged(format!("{head}{rules}").as_bytes()), (starts, want), "{head}");
    }
}

#[test]
fn of_repeated_keys_json_keeps_what_the_later_one_leaves() {
    let load_rules = |rules: &str| {
        let text = format!(r#"{{"apiVersion":"audit.k8s.io/v1","kind":"Policy",{rules}}}"#);
        load(text.as_bytes(), 36).policy.map(|policy| policy.rules).unwrap_or_default()
    };
    let found = load_rules(
        r#""rules":[{"level":"None","users":["a","b"]},{"level":"Request"}],"rules":[{"level":"Metadata"}]"#,
    );
    assert_eq!((found.len(), found[0].level, found[0].users.len()), (1, Level::Metadata, 2));
    // Items that the second list cut off are there again in the third.
    let found = load_rules(r#""rules":[{"level":"None","users":["a","b"],"users":["c"],"users":[null,null]}]"#);
    assert_eq!(found[0].users, ["c", "b"]);
    let found = load_rules(r#""rules":[{"level":"None","users":["a"],"users":null,"users":[null]}]"#);
    assert_eq!(found[0].users, [""]);
}

#[test]
fn yaml_is_read_as_go_yaml_reads_it() {
    let levels = |rules: &str| -> Vec<Level> {
        let text = format!("{HEAD}{rules}");
        load(text.as_bytes(), 36)
            .policy
            .map(|policy| policy.rules.iter().map(|rule| rule.level).collect())
            .unwrap_or_default()
    };
    use Level::{Metadata, None, Request};
    assert_eq!(
        levels("rules:\n- &a {level: None}\n- <<: *a\n- <<: *a\n  level: Request\n- level: Request\n  <<: *a\n"),
        [None, None, Request, None]
    );
    assert_eq!(levels("rules:\n- <<: [{level: None}, {level: Metadata}]\n"), [None]);
    assert_eq!(levels("rules: [{? level : Metadata}]\n---\nrules: []\n"), [Metadata]);
    assert_eq!(levels("rules:\n- level: !!str None\n- level: \"Meta\\\n    data\"\n"), [None, Metadata]);
    assert_eq!(levels("rules:\n  - level: None\n - level: Request\n"), []);
    // A mapping may not begin with a flow collection as a key: upstream ends the document there.
    assert_eq!(levels("rules: [{level: None}]\n%"), []);
}

#[test]
fn what_is_not_text_is_refused_and_nothing_recurses() {
    let head = HEAD.as_bytes();
    for bad in [&b"rules: \0"[..], b"rules: [{level: \xff}]", b"\x01", b"rules: [{level: None}] # \xed\xa0\x80"] {
        let (starts, found) = judged(&[head, bad].concat());
        assert!(!starts && found.len() == 1 && found[0].ends_with("error syntax"), "{bad:?} {found:?}");
    }
    let rules = "rules: [{level: None}]\n";
    let deep = |n: usize| format!("{HEAD}{rules}x: {}{}", "[".repeat(n), "]".repeat(n));
    assert!(judged(deep(9_999).as_bytes()).0);
    assert!(!judged(deep(10_000).as_bytes()).0);
    let deep = format!("{HEAD}{rules}x: {}a", "- ".repeat(20_000));
    assert!(!judged(deep.as_bytes()).0);
    let deep = format!("{{\"x\":{}", "[".repeat(1_000_000));
    assert!(!judged(deep.as_bytes()).0);
    // A billion laughs.
    let mut bomb = format!("{HEAD}{rules}a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..10 {
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
    }
    let loaded = load(bomb.as_bytes(), 36);
    assert_eq!(loaded.findings[0].message, "yaml: document contains excessive aliasing");
    let itself = format!("{HEAD}{rules}a: &a [*a]\n");
    assert_eq!(load(itself.as_bytes(), 36).findings[0].message, "yaml: anchor 'a' value contains itself");
}

#[test]
fn every_group_at_once_needs_1_36() {
    let text = format!("{HEAD}rules: [{{level: None, resources: [{{group: '*'}}]}}]\n");
    assert!(load(text.as_bytes(), 36).policy.is_some());
    let loaded = load(text.as_bytes(), 35);
    assert_eq!((loaded.policy, loaded.findings.len(), loaded.findings[0].id), (None, 1, "group"));
}

#[test]
fn fields_are_found_where_they_stand() {
    let text = format!(
        "{HEAD}rules:\n- level: None\n- level: Metadata\n  resources:\n  - group: apps\n    resources: [a, b]\n"
    );
    let places = load(text.as_bytes(), 36).places;
    assert_eq!(places.of("rules[1].resources[0].resources[1]"), Place { line: 8, column: 20 });
    assert_eq!(places.of("rules[0].users"), Place { line: 4, column: 3 });
    assert_eq!(places.of("other"), Place { line: 1, column: 1 });
}

#[test]
fn of_very_many_findings_some_are_kept_and_they_cost_no_time() {
    for text in [format!("{HEAD}rules: [{}]", "1,".repeat(50_000)), format!("{HEAD}rules:\n{}", "-\n".repeat(50_000))] {
        let loaded = load(text.as_bytes(), 36);
        assert!(loaded.policy.is_none());
        assert!((1000..3000).contains(&loaded.findings.len()), "{}", loaded.findings.len());
    }
}

proptest! {
    #[test]
    fn no_input_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        pieces in prop::collection::vec(prop::sample::select(vec![
            "rules", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "\"", "'", "&a ", "*a", "<<: ", "!!int ", "? ", "|", ">", "#", "---\n", "\t", "%",
            "level", "None", "\\", "\u{feff}", "\u{85}", "a", "1", "\r", "\\u00e", "null",
        ]), 0..60),
    ) {
        for text in [bytes, pieces.concat().into_bytes(), format!("{{{}", pieces.concat()).into_bytes()] {
            let loaded = load(&text, 36);
            prop_assert_eq!(loaded.policy.is_none(), loaded.findings.iter().any(|f| f.severity == Severity::Error));
        }
    }
}
