//! Policies, requests and URLs, from plain to perverse.

use serde_json::{Value, json};

use crate::random::Random;

const USERS: &[&str] = &["alice", "bob", "system:anonymous", "system:apiserver", "system:node:n1", "", "*", "Alice"];
const GROUPS: &[&str] =
    &["system:nodes", "system:authenticated", "system:masters", "devs", "", "*", "system:unauthenticated"];
const VERBS: &[&str] =
    &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy", "post", "", "*"];
const NAMESPACES: &[&str] = &["default", "kube-system", "", "a", "*"];
const API_GROUPS: &[&str] = &["", "apps", "batch", "rbac.authorization.k8s.io", "metrics.k8s.io", "core"];
const RESOURCES: &[&str] =
    &["pods", "secrets", "configmaps", "deployments", "nodes", "namespaces", "a", "*", "", "pods/log"];
const SUBRESOURCES: &[&str] = &["", "", "", "log", "status", "scale", "exec", "*", "a", "log/x"];
#[rustfmt::skip]
const PATTERNS: &[&str] = &[
    "pods", "pods/log", "pods/*", "*", "*/scale", "*/status", "*/*", "secrets", "configmaps", "deployments/scale",
    "nodes", "a", "a/a", "", "/", "/*", "*/", "pods/log/x", "pods/log/*", "*/log/x", "namespaces/status", "**",
    "po*",
];
const NAMES: &[&str] = &["x", "y", "leader", "", "*", "default"];
#[rustfmt::skip]
const PATHS: &[&str] = &[
    "/healthz", "/healthz/etcd", "/version", "/", "", "/api", "/apis/apps", "/metrics", "/a*", "/healthz*", "x",
    "/a**",
];
const URLS: &[&str] =
    &["/healthz", "/healthz*", "*", "/", "/*", "/api*", "/version", "/a*", "/metrics", "/apis/apps/*", "/healthz/*"];
const STAGES: &[&str] = &["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
const LEVELS: &[&str] = &["None", "Metadata", "Request", "RequestResponse"];

fn some(random: &mut Random, from: &[&str], most: usize) -> Vec<String> {
    let length = random.below(most + 1);
    (0..length).map(|_| random.pick(from).to_string()).collect()
}

fn rule(random: &mut Random) -> Value {
    let mut rule = serde_json::Map::new();
    rule.insert("level".into(), random.pick(LEVELS).into());
    let mut add = |random: &mut Random, name: &str, often: usize, from: &[&str]| {
        if random.one_in(often) {
            rule.insert(name.into(), some(random, from, 3).into());
        }
    };
    add(random, "users", 4, USERS);
    add(random, "userGroups", 4, GROUPS);
    add(random, "verbs", 3, VERBS);
    add(random, "omitStages", 4, STAGES);
    if random.one_in(4) {
        add(random, "nonResourceURLs", 1, URLS);
    } else {
        add(random, "namespaces", 4, NAMESPACES);
        if random.one_in(2) {
            let groups: Vec<Value> = (0..random.below(4))
                .map(|_| {
                    let mut group = serde_json::Map::new();
                    if !random.one_in(4) {
                        let name = if random.one_in(6) { "*" } else { random.pick(API_GROUPS) };
                        group.insert("group".into(), name.into());
                    }
                    let resources = some(random, PATTERNS, 4);
                    if !resources.is_empty() && random.one_in(3) {
                        group.insert("resourceNames".into(), some(random, NAMES, 2).into());
                    }
                    if !resources.is_empty() || random.one_in(2) {
                        group.insert("resources".into(), resources.into());
                    }
                    group.into()
                })
                .collect();
            rule.insert("resources".into(), groups.into());
        }
    }
    if random.one_in(4) {
        rule.insert("omitManagedFields".into(), random.one_in(2).into());
    }
    rule.into()
}

fn policy(random: &mut Random) -> Value {
    // Now and then more rules than a machine word has bits.
    let most = if random.one_in(12) { 150 } else { 12 };
    let rules: Vec<Value> = (0..=random.below(most)).map(|_| rule(random)).collect();
    let mut policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
    if random.one_in(3) {
        policy["omitStages"] = some(random, STAGES, 3).into();
    }
    if random.one_in(3) {
        policy["omitManagedFields"] = random.one_in(2).into();
    }
    if random.one_in(4) {
        policy["metadata"] = json!({"name": "p", "labels": {"a": "b"}, "creationTimestamp": null});
    }
    policy
}

/// A policy that loads.
pub fn valid_policy(random: &mut Random) -> String {
    policy(random).to_string()
}

pub fn attributes(random: &mut Random) -> Value {
    let is_resource = !random.one_in(4);
    let mut request = json!({"verb": random.pick(VERBS), "resourceRequest": is_resource});
    if random.one_in(10) {
        request["user"] = Value::Null;
    } else if !random.one_in(20) {
        request["user"] = json!({"name": random.pick(USERS), "groups": some(random, GROUPS, 4)});
    }
    // Upstream ignores fields that do not belong to the kind of request, and so must we.
    if is_resource || random.one_in(3) {
        request["namespace"] = random.pick(NAMESPACES).into();
        request["apiGroup"] = random.pick(API_GROUPS).into();
        request["resource"] = random.pick(RESOURCES).into();
        request["subresource"] = random.pick(SUBRESOURCES).into();
        request["name"] = random.pick(NAMES).into();
    }
    if !is_resource || random.one_in(3) {
        request["path"] = random.pick(PATHS).into();
    }
    request
}

/// A method and the target of a request.
pub fn request(random: &mut Random) -> (String, String) {
    const METHODS: &[&str] = &[
        "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "DELETE", "OPTIONS", "CONNECT", "get",
        "TRACE", "FOO", "", "G T",
    ];
    #[rustfmt::skip]
    const SEGMENTS: &[&str] = &[
        "api", "apis", "v1", "v1beta1", "apps", "namespaces", "default", "pods", "x", "log", "status", "finalize",
        "watch", "proxy", "", "nodes", "secrets", "*", "%2A", "a%2Fb", "a%20b", "a b", "%", "%zz", "%ff", "ü",
        "%C3%BC", ".", "..", "a:b", "#", ";", "healthz", "exec", "a+b", "watch%2Fpods", "services", "svc:80",
        "\u{7f}", "[", "\\", "\"",
    ];
    #[rustfmt::skip]
    const STARTS: &[&str] = &[
        "/api/v1/", "/api/v1/", "/apis/apps/v1/", "/apis/apps/v1/", "/api/v1/namespaces/default/", "/api/v1/watch/",
        "/api/v1/proxy/", "/apis/apps/v1/namespaces/", "/", "//", "/api/", "/apis/", "", "https://host/api/v1/",
        "http://u:p@[::1]:80//apis/", "x:", "/api/v1/namespaces/", "http://a b/", "http://%41/",
        "http://[::1%25x]/api/v1/", "http://1:2:3/", "http://[fe80::%25]/", "HTTP://h:/",
    ];
    #[rustfmt::skip]
    const KEYS: &[&str] = &[
        "watch", "watch", "fieldSelector", "fieldSelector", "labelSelector", "limit", "timeoutSeconds", "timeout",
        "continue", "resourceVersion", "sendInitialEvents", "Watch", "%77atch", "pretty", "", "%zz", "dryRun",
        "allowWatchBookmarks",
    ];
    #[rustfmt::skip]
    const VALUES: &[&str] = &[
        "", "true", "false", "0", "1", "FALSE", "False", "fal%C5%BFe", "00", "no", "x", "5", "-1", "+1", "%2B1",
        "1s", "9223372036854775808", "metadata.name=x", "metadata.name%3Dx", "metadata.name==x", "metadata.name!=x",
        "metadata.name=", "metadata.name=x,metadata.name=a", "spec.nodeName=n,metadata.name=y",
        "metadata.name=a%2Fb", "metadata.name=..", "metadata.name=a%5C,b", "metadata.name=a%5Cb",
        "metadata.name=a=b", "metadata.name", ",", "a%3Db", "a=b", "a%20in%20(b,c)", "a+notin+()", "!a", "a,b",
        "a=b%00)", "a in", "-a=b", "a>1", "a%3E1", "a%3Cx", "a;b", "%zz", "x/y/z", "X.y/z", "%ff",
        "metadata.name=%ff", "in in (in,notin)", "a==b", "a!=b,", "((",
    ];
    let mut url = random.pick(STARTS).to_string();
    let count = random.below(6);
    for i in 0..count {
        if i > 0 {
            url.push('/');
        }
        url.push_str(random.pick(SEGMENTS));
    }
    if random.one_in(8) {
        url.push('/');
    }
    if random.one_in(2) {
        url.push('?');
        for i in 0..random.below(4) {
            if i > 0 {
                url.push('&');
            }
            url.push_str(random.pick(KEYS));
            if !random.one_in(8) {
                url.push('=');
                url.push_str(random.pick(VALUES));
                // Selectors are also put together at random.
                if random.one_in(6) {
                    for _ in 0..random.below(6) {
                        url.push_str(random.pick(&[
                            "a",
                            "=",
                            "!",
                            ",",
                            "(",
                            ")",
                            "in",
                            "notin",
                            "%20",
                            "<",
                            ">",
                            "1",
                            "metadata.name",
                            "%5C",
                            "-",
                            "/",
                        ]));
                    }
                }
            }
        }
    }
    if random.one_in(40) {
        let at = random.below(url.len() + 1);
        if url.is_char_boundary(at) {
            url.insert(at, random.pick(&['?', '%', '/', ' ', '\n', '&', '#', ':', '@']));
        }
    }
    (random.pick(METHODS).to_string(), url)
}

/// A file: often a policy in one of many spellings, often with something wrong in it.
pub fn policy_text(random: &mut Random) -> Vec<u8> {
    let is_clean = random.one_in(4);
    let mut value = if is_clean { policy(random) } else { policy_with_odds(random) };
    let mut text = match random.below(10) {
        0 | 1 => json_text(random, &value),
        2 => serde_json::to_string_pretty(&value).unwrap(),
        _ => {
            if random.one_in(30) {
                value = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "None"}]});
            }
            yaml_text(random, &value)
        }
    };
    // Half of the texts stay well-formed.
    if !is_clean && random.one_in(2) {
        for _ in 0..random.pick(&[1, 1, 1, 2, 4]) {
            text = mutated(random, text);
        }
    }
    let mut bytes = text.into_bytes();
    match random.below(60) {
        0 => {
            let at = random.below(bytes.len() + 1);
            bytes.insert(at, random.pick(&[0, 1, 7, 0x7f, 0x80, 0xbf, 0xc0, 0xc3, 0xe2, 0xed, 0xf0, 0xf8, 0xff]));
        }
        1 => bytes.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        2 => bytes.splice(0..0, *b"\xef\xbb\xbf\xef\xbb\xbf").for_each(drop),
        3 => {
            let is_big = random.one_in(2);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let units = std::iter::once(0xfeff).chain(text.encode_utf16());
            bytes = units.flat_map(|unit| if is_big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect();
            if random.one_in(4) {
                bytes.truncate(random.below(bytes.len() + 1));
            }
        }
        4 => {
            bytes = String::from_utf8_lossy(&bytes)
                .replace('\n', random.pick(&["\r\n", "\r", "\u{85}", "\u{2028}", "\n\n"]))
                .into_bytes()
        }
        5 => {
            let length = random.below(bytes.len() + 1);
            bytes.truncate(length);
        }
        6 => {
            // Far behind, where upstream's reader has not arrived when the first document ends.
            bytes.extend(b"\n---\n");
            bytes.extend(std::iter::repeat_n(b'#', random.below(1200)));
            bytes.extend(random.pick(&[&b"\x00"[..], b"\xff", b"\n- [", b"\n...\n}"]));
        }
        _ => {}
    }
    bytes
}

/// Strings that some YAML readers take for another type, or that are hard to write.
#[rustfmt::skip]
const ODD: &[&str] = &[
    "on", "no", "y", "N", "null", "~", "", "1", "1_000", "0o17", "0x1f", "08", "1e3", ".5", ".5_0", "1.", "+1", "-1",
    "0b11", "0b-1", "12:30", "2001-01-01", ".inf", ".NaN", "-", "--", "- a", "a: b", "a #b", "#a", "a:", ":a", "?",
    "? a", "!a", "&a", "*a", "*", "|", ">", "%a", "@a", "`a", "{", "}", "[", "]", ",", "a,b", "'", "\"", "'a'",
    "\"a\"", "\\", "a\\nb", "a\nb", "a\n\nb", "a\n", "\ta", "a\tb", " a", "a ", "ü", "\u{85}", "\u{2028}",
    "\u{feff}", "\u{a0}", "😀", "<<", "=", "true", "False", "---", "...", "--- a", "a ---", "<a&b>", "\u{0}", "\u{7}",
    "\u{7f}", "18446744073709551615", "99999999999999999999", "1e400", "0b", "0x", "_1", "1__0", "tRue", "NULL",
    "Null", "!!str a", "v1", "apps/v1", "Apps",
];

fn policy_with_odds(random: &mut Random) -> Value {
    let mut value = policy(random);
    if let Some(rules) = value["rules"].as_array_mut() {
        rules.truncate(5);
    }
    for _ in 0..random.pick(&[0, 0, 0, 0, 1, 1, 2, 4]) {
        odd(random, &mut value);
    }
    value
}

/// Changes one thing somewhere.
fn odd(random: &mut Random, value: &mut Value) {
    #[rustfmt::skip]
    const FIELDS: &[&str] = &[
        "level", "Level", "users", "user", "userGroups", "verbs", "resources", "resource", "group", "groups",
        "resourceNames", "namespaces", "nonResourceURLs", "nonResourceUrls", "omitStages", "omitManagedFields",
        "rules", "Rules", "metadata", "apiVersion", "ApiVersion", "kind", "KIND", "apiver\u{17f}ion", "\u{212a}ind",
        "name", "labels", "annotations", "creationTimestamp", "generation", "ownerReferences", "managedFields",
        "finalizers", "spec", "on", "1", "", "<<", "a b", "time", "fieldsV1", "controller",
    ];
    fn any(random: &mut Random) -> Value {
        match random.below(14) {
            0 => Value::Null,
            1 => random.one_in(2).into(),
            2 => random.pick(&[0_i64, 1, -1, 7, i64::MAX]).into(),
            3 => random.pick(&[0.5, 1e3, 1e21, -0.0, 1e-7, 3.0]).into(),
            4 => json!([]),
            5 => json!({}),
            6 => json!([any(random)]),
            7 => json!({random.pick(FIELDS): any(random)}),
            8 => random
                .pick(&["2024-05-01T10:00:00Z", "2024-05-01T1:00:00,5+24:00", "2024-05-01", "2024-02-30T10:00:00Z"])
                .into(),
            9 => random
                .pick(&[
                    "audit.k8s.io/v1",
                    "audit.k8s.io/v1beta1",
                    "v1",
                    "audit.k8s.io/",
                    "a/b/c",
                    "/",
                    "Policy",
                    "PolicyList",
                    "Event",
                    "policy",
                ])
                .into(),
            10 => random
                .pick(&["a*b", "healthz", "/a*b", "**", "Meta", "metadata", "RequestRecieved", "*", "-a", "a..b", "A"])
                .into(),
            _ => random.pick(ODD).into(),
        }
    }
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            match random.below(8) {
                0 => {
                    let field = if random.one_in(6) { random.pick(ODD) } else { random.pick(FIELDS) };
                    let new = any(random);
                    map.insert(field.into(), new);
                }
                1 if !keys.is_empty() => {
                    map.remove(&keys[random.below(keys.len())]);
                }
                2 if !keys.is_empty() => map[&keys[random.below(keys.len())]] = any(random),
                _ if !keys.is_empty() => {
                    let key = &keys[random.below(keys.len())];
                    odd(random, &mut map[key]);
                }
                _ => {}
            }
        }
        Value::Array(list) => match random.below(6) {
            0 => {
                let at = random.below(list.len() + 1);
                let new = any(random);
                list.insert(at, new);
            }
            1 if !list.is_empty() => {
                let at = random.below(list.len());
                list[at] = any(random);
            }
            _ if !list.is_empty() => {
                let at = random.below(list.len());
                odd(random, &mut list[at]);
            }
            _ => {}
        },
        other => *other = any(random),
    }
}

/// JSON with repeated keys now and then.
fn json_text(random: &mut Random, value: &Value) -> String {
    let blank = |random: &mut Random| random.pick(&["", "", "", " ", "\n", "\t", "\r\n"]);
    match value {
        Value::Object(map) => {
            let mut parts = Vec::new();
            for (key, value) in map {
                let times = if random.one_in(25) { 1 + random.below(3) } else { 1 };
                for i in 0..times {
                    let mut value = value.clone();
                    if i > 0 {
                        odd(random, &mut value);
                    }
                    let key = Value::from(key.as_str());
                    parts.push(format!(
                        "{}{key}{}:{}{}",
                        blank(random),
                        blank(random),
                        blank(random),
                        json_text(random, &value)
                    ));
                }
            }
            if random.one_in(6) {
                parts.reverse();
            }
            format!("{{{}{}}}", parts.join(","), blank(random))
        }
        Value::Array(list) => {
            let parts: Vec<String> =
                list.iter().map(|value| format!("{}{}", blank(random), json_text(random, value))).collect();
            format!("[{}{}]", parts.join(","), blank(random))
        }
        Value::String(text) if random.one_in(30) => {
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            format!("\"{escaped}{}\"", random.pick(&["", "", "\\ud800", "\\udc00x", "\\/", "\\ud83d\\ude00"]))
        }
        other => other.to_string(),
    }
}

/// One spelling of many. Not always of the same value, which only makes it a better test.
fn yaml_text(random: &mut Random, value: &Value) -> String {
    let style = Style {
        step: random.pick(&[1, 2, 2, 2, 4]),
        is_indented_list: random.one_in(2),
        oddness: random.pick(&[0, 0, 0, 0, 150, 40, 12]),
    };
    const HEADS: &[&str] = &["", "", "", "---\n", "# a\n", "%YAML 1.1\n---\n", "\n\n"];
    const ODD_HEADS: &[&str] = &["%YAML 1.2\n---\n", "--- ", "...\n", "%TAG !e! tag:x,1:\n---\n", "---\n---\n", "%x\n"];
    let heads = if style.is_odd(random) { ODD_HEADS } else { HEADS };
    let mut out = random.pick(heads).to_string();
    block(random, &style, value, 0, &mut out);
    out.push_str(random.pick(&["", "", "", "...\n", "---\n", "---\nrules: []\n", "# end", "\n \n", "\t\n"]));
    out
}

struct Style {
    step: usize,
    is_indented_list: bool,
    /// One in so many things is odd; 0 for none.
    oddness: usize,
}

impl Style {
    fn is_odd(&self, random: &mut Random) -> bool {
        self.oddness > 0 && random.one_in(self.oddness)
    }
}

/// What may stand before a value.
fn properties(random: &mut Random, style: &Style) -> &'static str {
    if style.is_odd(random) {
        random.pick(&[
            "&a ",
            "&b ",
            "!!str ",
            "!!int ",
            "!!float ",
            "!!bool ",
            "!!null ",
            "!!binary ",
            "!x ",
            "! ",
            "!!map ",
            "!!seq ",
            "!!timestamp ",
            "!e!y ",
            "!<tag:yaml.org,2002:str> ",
            "&a !!str ",
            "!!merge ",
            "!!set ",
        ])
    } else {
        ""
    }
}

fn block(random: &mut Random, style: &Style, value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() && !random.one_in(12) => {
            for (key, value) in map {
                if style.is_odd(random) {
                    out.push_str(random.pick(&["", "  ", "# c\n", "\n", "\t", "? "]));
                }
                out.push_str(&" ".repeat(indent));
                pair(random, style, key, value, indent, out);
                if style.is_odd(random) {
                    // The same key again, or something mixed in.
                    out.push_str(&" ".repeat(indent));
                    match random.below(5) {
                        0 => out.push_str("<<: *a\n"),
                        1 => out.push_str("<<: {level: None, verbs: [get]}\n"),
                        2 => out.push_str("<<: [*a, {level: Metadata}]\n"),
                        3 => out.push_str("<<: [{level: Metadata}, {level: None, users: [a]}]\n"),
                        _ => {
                            let mut value = value.clone();
                            odd(random, &mut value);
                            pair(random, style, key, &value, indent, out);
                        }
                    }
                }
            }
        }
        Value::Array(list) if !list.is_empty() && !random.one_in(12) => {
            for value in list {
                out.push_str(&" ".repeat(indent));
                out.push('-');
                let inner = indent + 1 + random.pick(&[1, 1, 1, style.step]);
                let is_compact = matches!(value, Value::Object(map) if !map.is_empty()) && !style.is_odd(random);
                if is_compact {
                    out.push_str(&" ".repeat(inner - indent - 1));
                    let mut text = String::new();
                    block(random, style, value, inner, &mut text);
                    out.push_str(text.trim_start_matches(' '));
                } else {
                    nested(random, style, value, inner, out);
                }
            }
        }
        other => {
            out.push_str(&" ".repeat(indent));
            out.push_str(properties(random, style));
            flow(random, style, other, indent, out);
            out.push('\n');
        }
    }
}

fn pair(random: &mut Random, style: &Style, key: &str, value: &Value, indent: usize, out: &mut String) {
    if style.is_odd(random) {
        out.push_str("? ");
        scalar(random, style, key, indent + 2, out);
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    } else {
        scalar(random, style, key, indent, out);
    }
    out.push(':');
    if style.is_odd(random) {
        out.push_str(random.pick(&["", " ", "  ", "\t", " # c"]));
    }
    let is_list = value.is_array();
    let inner = if is_list && !style.is_indented_list { indent } else { indent + style.step };
    nested(random, style, value, inner, out);
}

/// A value behind `-` or `key:`.
fn nested(random: &mut Random, style: &Style, value: &Value, indent: usize, out: &mut String) {
    let is_collection = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    if is_collection && !random.one_in(5) {
        out.push(' ');
        out.push_str(properties(random, style));
        out.push('\n');
        block(random, style, value, indent, out);
        return;
    }
    out.push(' ');
    out.push_str(properties(random, style));
    if style.is_odd(random) {
        out.push_str(random.pick(&["*a", "*b", "|\n", ">\n", "|-\n", ">+\n", "|2\n", "|1-\n", "\n"]));
        if random.one_in(2) {
            out.push('\n');
            return;
        }
        out.push_str(&" ".repeat(indent));
    }
    flow(random, style, value, indent, out);
    out.push_str(random.pick(&["\n", "\n", "\n", "\n", " # c\n", " \n"]));
}

fn flow(random: &mut Random, style: &Style, value: &Value, indent: usize, out: &mut String) {
    let blank = |random: &mut Random| random.pick(&["", "", "", "", " "]);
    match value {
        Value::Object(map) => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(blank(random));
                if style.is_odd(random) {
                    out.push_str(random.pick(&["? ", "\n", "- ", "# c\n", ", ", "*a : ", "&a "]));
                }
                scalar(random, style, key, indent, out);
                out.push_str(if style.is_odd(random) { random.pick(&[":", " : ", "", ":\n"]) } else { ": " });
                flow(random, style, value, indent, out);
            }
            out.push_str(blank(random));
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push_str(if style.is_odd(random) { random.pick(&[",", " ,", ",,", ",\n", ""]) } else { ", " });
                }
                out.push_str(blank(random));
                if style.is_odd(random) {
                    out.push_str(random.pick(&["? ", "a: ", "- ", "*a, ", "!!str ", "&a ", "<<: ", ": "]));
                }
                flow(random, style, value, indent, out);
            }
            out.push_str(blank(random));
            out.push(']');
        }
        Value::String(text) => scalar(random, style, text, indent, out),
        other => out.push_str(&other.to_string()),
    }
}

fn scalar(random: &mut Random, style: &Style, text: &str, indent: usize, out: &mut String) {
    let is_plain = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/._".contains(&b))
        && !text.ends_with(':');
    match random.below(if is_plain { 12 } else { 5 }) {
        0 => out.push_str(&Value::from(text).to_string()),
        1 => {
            out.push('\'');
            out.push_str(&text.replace('\'', "''"));
            out.push('\'');
        }
        2 if style.is_odd(random) => {
            out.push_str(random.pick(&["|", ">", "|-", ">-", "|+", ">+"]));
            out.push('\n');
            for line in text.lines() {
                out.push_str(&" ".repeat(indent + 1));
                out.push_str(line);
                out.push('\n');
            }
        }
        3 => {
            out.push('"');
            for c in text.chars() {
                match random.below(4) {
                    0 if c <= '\u{ff}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                    1 if c <= '\u{ffff}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                    2 => out.push_str(&format!("\\U{:08x}", u32::from(c))),
                    _ if c == '"' || c == '\\' => out.extend(['\\', c]),
                    _ => out.push(c),
                }
            }
            out.push('"');
        }
        // Plain even if that changes its value.
        _ if !is_plain && !style.is_odd(random) => out.push_str(&Value::from(text).to_string()),
        _ => out.push_str(text),
    }
}

/// Changes the text without understanding it.
fn mutated(random: &mut Random, text: String) -> String {
    #[rustfmt::skip]
    const PIECES: &[&str] = &[
        " ", "  ", "\n", "\t", ":", ": ", "-", "- ", "\n- ", ",", "#", " #", "\"", "'", "[", "]", "{", "}", "&a ",
        "*a", "!", "!!str ", "|", ">", "%", "?", "? ", "<<: ", "~", "null", "on", "1", "---", "\n---\n", "\n...\n",
        "\\", "\\\n", "\r", "\u{85}", "\u{2028}", "\u{feff}", "ü", "[]: a\n", "{}: b\n", "[a]: ", "a:\n", "\\x41",
        "@", "`", "=", "level: None\n", "users: [a]\n", "''", "\"\"", "\n\n", "\n ", "\n  ", "\n    ",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    if chars.is_empty() {
        return text;
    }
    // Line ends and indentation are where YAML is interesting.
    let at = if random.one_in(2) {
        random.below(chars.len())
    } else {
        let starts: Vec<usize> = (0..chars.len()).filter(|&i| i == 0 || chars[i - 1] == '\n').collect();
        random.pick(&starts)
    };
    match random.below(6) {
        0 | 1 => {
            let piece: Vec<char> = random.pick(PIECES).chars().collect();
            chars.splice(at..at, piece);
        }
        2 => {
            let end = (at + 1 + random.below(3)).min(chars.len());
            chars.drain(at..end);
        }
        3 => {
            let piece: Vec<char> = random.pick(PIECES).chars().collect();
            let end = (at + 1).min(chars.len());
            chars.splice(at..end, piece);
        }
        4 => {
            // A piece of the text again, elsewhere.
            let end = (at + 1 + random.below(40)).min(chars.len());
            let copy: Vec<char> = chars[at..end].to_vec();
            let to = random.below(chars.len());
            chars.splice(to..to, copy);
        }
        _ => {
            // All lines from here on are moved.
            let is_in = random.one_in(2);
            let text: String = chars[at..].iter().collect();
            let moved = if is_in { text.replace('\n', "\n ") } else { text.replace("\n ", "\n") };
            chars.splice(at.., moved.chars());
        }
    }
    chars.into_iter().collect()
}
