//! The scan against full parsing, and both against serde_json's own values, over generated lines.

use proptest::prelude::*;
use serde_json::Value;

use super::event::{Event, parse};
use super::scan::{Marks, scan};
use super::*;

const NAMES: [&str; 22] = [
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "authenticationMetadata",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
    // Lines that only resemble the above.
    "Level",
    "items",
    "a\"b\\",
];

fn text() -> impl Strategy<Value = String> {
    let plain = proptest::sample::select(vec![
        "",
        "a",
        "\"",
        "\\",
        "\\\"",
        "{",
        "}]",
        "[{",
        ",\"level\":\"None\"",
        "ü",
        "\u{1f600}",
        "\n",
        "\\\\",
        " ",
        "x y",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    ]);
    proptest::collection::vec(plain, 0..6).prop_map(|parts| parts.concat())
}

/// Any JSON that contains names of an event's members.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        text().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let name = prop_oneof![proptest::sample::select(NAMES.to_vec()).prop_map(String::from), text()];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn choice(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    proptest::sample::select(values).prop_map(Value::from).boxed()
}

/// A member, mostly with a possible value.
fn member() -> impl Strategy<Value = (String, Value)> {
    proptest::sample::select(NAMES.to_vec()).prop_flat_map(|name| {
        let likely = match name {
            "kind" => choice(&["Event"]),
            "level" => choice(&["Metadata", "Request", "RequestResponse", "None"]),
            "stage" => choice(&["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"]),
            "requestURI" => choice(&["/api/v1/pods?watch=1", "/\u{fc}", "/a\"b"]),
            "verb" => choice(&["get", "create", ""]),
            "stageTimestamp" => choice(&["2026-11-21T08:30:22.123456Z", "2026-11-21T08:30:22+01:00", "x"]),
            _ => json().boxed(),
        };
        (Just(name.to_string()), prop_oneof![9 => likely, 1 => json()])
    })
}

/// The form of a line: blanks, escapes in names, required members, and members in any order.
fn line() -> impl Strategy<Value = String> {
    let base = || {
        let fixed = [("level", "Metadata"), ("stage", "Panic"), ("requestURI", "/api"), ("verb", "get")];
        fixed.map(|(name, value)| (name.to_string(), Value::from(value))).to_vec()
    };
    (proptest::collection::vec(member(), 0..8), any::<u8>(), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        move |(members, odd, at, has_base)| {
            // Mostly once each, sometimes twice.
            let mut all: Vec<(String, Value)> = if has_base { base() } else { Vec::new() };
            for (name, value) in members {
                if odd < 16 || !all.iter().any(|(other, _)| *other == name) {
                    all.push((name, value));
                }
            }
            if !all.is_empty() {
                let by = at.index(all.len());
                all.rotate_left(by);
            }
            let is_spaced = (16..32).contains(&odd);
            let members = all.iter().map(|(name, value)| {
                let quoted = serde_json::to_string(name).unwrap();
                let name = match name.chars().next() {
                    Some(first) if (32..48).contains(&odd) => format!("\"\\u{:04x}{}", first as u32, &quoted[2..]),
                    _ => quoted,
                };
                let value =
                    if is_spaced { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
                let value = value.replace('\n', "\t");
                if is_spaced { format!(" {name} : {value} ") } else { format!("{name}:{value}") }
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        },
    )
}

/// The expected result of [`parse`], from serde_json's values.
fn found(line: &str) -> Option<(Value, String, Option<i64>, u64)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let time = |name: &str| super::event::time(format!("\"{}\"", text(name)?).as_bytes());
    if value.get("kind").is_some_and(|kind| !kind.is_null() && kind != "Event") || value.get("requestURI")?.is_null() {
        return None;
    }
    let levels = ["Metadata", "Request", "RequestResponse", "None"];
    let stages = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];
    if !levels.contains(&text("level")?) || !stages.contains(&text("stage")?) {
        return None;
    }
    let has_kind = value.get("kind").is_some_and(|kind| !kind.is_null());
    let bytes = value.to_string().len() as u64 + 1 + if has_kind { 0 } else { super::event::TYPE_BYTES };
    let time = time("stageTimestamp").or_else(|| time("requestReceivedTimestamp"));
    let (level, stage) = (text("level")?.to_string(), text("stage")?.to_string());
    Some((value, format!("{level} {stage}"), time, bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_finds_what_parsing_finds_and_both_find_what_is_there(line in line()) {
        let parsed = parse(line.as_bytes());
        if let Some((scanned, _)) = scan(&mut Marks::default(), line.as_bytes()) {
            prop_assert_eq!(Ok(&scanned), parsed.as_ref());
        }
        let want = found(&line);
        prop_assert_eq!(parsed.is_ok(), want.is_some(), "{:?}", parsed);
        if let (Ok(event), Some((value, kinds, time, bytes))) = (parsed, want) {
            let same = |have: &[u8], name: &str| {
                let want = value.get(name).filter(|value| !value.is_null()).cloned();
                serde_json::from_slice::<Value>(have).ok() == want
            };
            prop_assert!(same(event.uri, "requestURI") && same(event.verb, "verb") && same(event.user, "user"));
            prop_assert!(same(event.request_object, "requestObject") && same(event.response_object, "responseObject"));
            prop_assert!(same(event.annotations, "annotations"));
            prop_assert_eq!(format!("{:?} {:?}", event.level, event.stage), kinds);
            prop_assert_eq!((event.time, event.bytes), (time, bytes));
            let without = |names: &[&str]| {
                let mut value = value.clone();
                names.iter().for_each(|name| drop(value.as_object_mut().unwrap().remove(*name)));
                (serde_json::to_string(&value).unwrap().len() + 1) as u64
            };
            let whole = without(&[]);
            prop_assert_eq!(event.request_object_bytes, whole - without(&["requestObject"]));
            prop_assert_eq!(event.response_object_bytes, whole - without(&["responseObject"]));
            let later =
                ["requestObject", "responseObject", "responseStatus", "annotations", "impersonatedUser", "authenticationMetadata"];
            prop_assert_eq!(event.later_bytes, whole - without(&later));
        }
    }

    #[test]
    fn what_parsing_accepts_of_a_damaged_line_is_found_by_a_scan_or_left_to_it(
        line in line(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = line.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let (Some((scanned, _)), Ok(parsed)) = (scan(&mut Marks::default(), &bytes), parse(&bytes)) {
            prop_assert_eq!(scanned, parsed);
        }
        if str::from_utf8(&bytes).is_err() || bytes.iter().any(|b| *b < 0x20) {
            prop_assert!(scan(&mut Marks::default(), &bytes).is_none());
        }
        prop_assert!(scan(&mut Marks::default(), &bytes[..at]).is_none(), "the beginning of a line is no event");
        prop_assert!(parse(&bytes[..at]).is_err());
    }
}

fn events(text: &str) -> Vec<Result<Event<'_>, Damage>> {
    let mut events = Vec::new();
    Reader::default().read(text.as_bytes(), |event, _| events.push(event));
    events
}

#[test]
fn a_line_as_kube_apiserver_writes_it_is_scanned() {
    let line = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"RequestResponse","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/pods?a=1\u0026b=2","verb":"list","user":{"username":"a","groups":["b"]},"sourceIPs":["::1"],"userAgent":"x (y; \"z\")","objectRef":{"resource":"pods"},"responseStatus":{"metadata":{},"code":200},"responseObject":{"items":[{"level":"None"}]},"requestReceivedTimestamp":"2026-11-21T08:30:22.123456Z","stageTimestamp":"2026-11-21T08:30:23.000000Z","annotations":{"b":"ü"}}"#;
    let mut marks = Marks::default();
    let (scanned, _) = scan(&mut marks, line.as_bytes()).unwrap();
    assert_eq!(Ok(scanned.clone()), parse(line.as_bytes()));
    assert_eq!(scanned.bytes as usize, line.len() + 1);
    assert_eq!(scanned.response_object, br#"{"items":[{"level":"None"}]}"#);
    assert_eq!(scanned.time, Some(1_795_249_823));
    assert_eq!(events(&format!("{line}\r")), [Ok(scanned)]);
}

#[test]
fn an_event_list_is_its_events_and_damage_has_a_reason() {
    let event = r#"{"level":"Metadata","stage":"Panic","requestURI":"/"}"#;
    let list = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{event},{{}},{event}]}}"#
    );
    assert_eq!(events(&list).iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(events(r#"{"kind":"EventList","items":null}"#), []);
    assert_eq!(events(" \t\r"), []);
    let reason = |text: &str| events(text).pop().unwrap().unwrap_err().to_string();
    assert_eq!(reason("{\"kind\":\"Ev\0\0ent\"}"), "2 NUL bytes");
    assert_eq!(reason(r#"{"kind":"Pod","level":"Metadata"}"#), "not an audit event: the object has another kind");
    assert_eq!(reason(&event.replace("Panic", "Later")), "not an audit event: unknown or missing stage");
    assert_eq!(reason(&event.replace('/', "")[..40]), "cut off after 40 bytes");
    assert_eq!(
        reason("2026 AUDIT: id=\"x\" stage=\"y\""),
        "an event in the legacy format, which lacks the necessary fields"
    );
    assert!(reason(&format!("{event}{event}")).starts_with("not JSON: trailing characters at column"));
    assert!(reason("[]").starts_with("not JSON: "));
}
