//! The bytes of an EventList in, in pieces of any size; its events out, one at a time.
//!
//! Never holds more than one event: the place within the list is a state, and an incomplete value is kept until the
//! next piece completes it. This module finds where values end, and serde_json checks whether they are JSON: for an
//! event, where its fields are read ([`super::line`]), so that it is parsed once. Together they accept what serde_json
//! accepts, except for events that are not objects, and for keys and other fields above [`OTHER_MAX_BYTES`]. Pure.

use memchr::memchr2;
use serde::de::IgnoredAny;

/// Largest key, and largest field other than `items`: kube-apiserver sends a kind, a version and an empty `metadata`.
const OTHER_MAX_BYTES: usize = 16 << 10;
/// Memory above this is freed once its event is complete.
const KEPT_BYTES: usize = 16 << 10;

/// Why bytes are not an EventList.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("expected {expected} at byte {at}")]
    Syntax { expected: &'static str, at: u64 },
    #[error("items[{index}] is not a JSON object")]
    NotAnObject { index: u64 },
    #[error("items[{index}] is not UTF-8")]
    NotUtf8 { index: u64 },
    #[error("items[{index}] is not JSON: {source}")]
    Item { index: u64, source: serde_json::Error },
    #[error("a field before byte {at} is not JSON: {source}")]
    Field { at: u64, source: serde_json::Error },
    #[error("a field before byte {at} is larger than {OTHER_MAX_BYTES} bytes")]
    FieldTooLarge { at: u64 },
    #[error("the field {name} is given twice")]
    Twice { name: &'static str },
    #[error("the field {name} is missing")]
    Missing { name: &'static str },
    #[error("{name} must be {want}")]
    Foreign { name: &'static str, want: &'static str },
    #[error("the JSON ends too early, at byte {at}")]
    Ended { at: u64 },
}

/// An event in the bytes.
#[derive(Debug)]
pub(super) enum Scanned<'a> {
    /// An object by its brackets. Its reader checks whether it is JSON.
    Event { index: u64, text: &'a str },
    /// An event that is larger than the limit. It is skipped without a check whether it is JSON.
    TooLarge,
}

pub(super) struct Scanner {
    max_event_bytes: usize,
    place: Place,
    /// The field whose value is expected or read.
    field: Field,
    span: Span,
    /// The beginning of a value, from earlier pieces.
    begun: Vec<u8>,
    is_skipping: bool,
    has_kind: bool,
    has_api_version: bool,
    has_items: bool,
    items: u64,
    /// Bytes that were read.
    at: u64,
}

/// The next element of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    FirstKey,
    Key,
    Colon,
    Value,
    AfterValue,
    FirstItem,
    Item,
    AfterItem,
    End,
    /// Within a value or a key.
    Within(Part),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Key,
    Field,
    Item,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Kind,
    ApiVersion,
    Items,
    Other,
}

impl Scanner {
    pub(super) fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event_bytes,
            place: Place::Start,
            field: Field::Other,
            span: Span::default(),
            begun: Vec::new(),
            is_skipping: false,
            has_kind: false,
            has_api_version: false,
            has_items: false,
            items: 0,
            at: 0,
        }
    }

    /// Memory that is held from earlier pieces.
    pub(super) fn held_bytes(&self) -> usize {
        self.begun.capacity()
    }

    /// Memory that may be held after another piece of `length` bytes.
    pub(super) fn held_bytes_after(&self, length: usize) -> usize {
        grown(self.begun.capacity(), self.begun.len() + length, self.max_event_bytes)
    }

    /// Reads `bytes` up to the end of the next event. `None`: they are used up.
    pub(super) fn next<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Result<Option<Scanned<'a>>, Malformed> {
        let event = loop {
            let Place::Within(part) = self.place else {
                self.begun.clear();
                self.begun.shrink_to(KEPT_BYTES);
                let blank = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
                self.skip(bytes, blank);
                let Some(first) = bytes.first() else { return Ok(None) };
                self.place = self.begin(*first)?;
                // The first byte of a value belongs to it.
                if !matches!(self.place, Place::Within(_)) {
                    self.skip(bytes, 1);
                }
                continue;
            };
            let (length, is_complete) = self.span.measure(bytes);
            let limit = if part == Part::Item { self.max_event_bytes } else { OTHER_MAX_BYTES };
            if self.begun.len() + length > limit {
                if part != Part::Item {
                    return Err(Malformed::FieldTooLarge { at: self.at + length as u64 });
                }
                self.is_skipping = true;
                self.begun = Vec::new();
            }
            let all: &'b [u8] = bytes;
            let head = &all[..length];
            self.skip(bytes, length);
            if !is_complete {
                if !self.is_skipping {
                    self.hold(head);
                }
                return Ok(None);
            }
            if part == Part::Item && std::mem::take(&mut self.is_skipping) {
                self.place = Place::AfterItem;
                self.items += 1;
                return Ok(Some(Scanned::TooLarge));
            }
            if !self.begun.is_empty() {
                self.hold(head);
            }
            if part == Part::Item {
                break head;
            }
            let begun = std::mem::take(&mut self.begun);
            let value = if begun.is_empty() { head } else { &begun };
            self.place = if part == Part::Key { self.name(value)? } else { self.judge(value)? };
        };
        let index = self.items;
        self.place = Place::AfterItem;
        self.items += 1;
        let event = if self.begun.is_empty() { event } else { &self.begun };
        match std::str::from_utf8(event) {
            Ok(text) => Ok(Some(Scanned::Event { index, text })),
            Err(_) => Err(Malformed::NotUtf8 { index }),
        }
    }

    /// The end of the bytes. Only this decides whether they are an EventList.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.place != Place::End {
            return Err(Malformed::Ended { at: self.at });
        }
        let fields = [(self.has_kind, "kind"), (self.has_api_version, "apiVersion"), (self.has_items, "items")];
        match fields.into_iter().find(|(has, _)| !has) {
            Some((_, name)) => Err(Malformed::Missing { name }),
            None => Ok(()),
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let needed = self.begun.len() + bytes.len();
        let capacity = grown(self.begun.capacity(), needed, self.max_event_bytes);
        self.begun.reserve_exact(capacity - self.begun.len());
        self.begun.extend_from_slice(bytes);
    }

    fn skip(&mut self, bytes: &mut &[u8], count: usize) {
        self.at += count as u64;
        *bytes = &bytes[count..];
    }

    /// The next state after a byte that is not a blank.
    fn begin(&mut self, byte: u8) -> Result<Place, Malformed> {
        let expected = match (self.place, byte) {
            (Place::Start, b'{') => return Ok(Place::FirstKey),
            (Place::FirstKey | Place::AfterValue, b'}') => return Ok(Place::End),
            (Place::FirstKey | Place::Key, b'"') => return Ok(self.within(Part::Key)),
            (Place::Colon, b':') => return Ok(Place::Value),
            (Place::Value, b'[') if self.field == Field::Items => return Ok(Place::FirstItem),
            (Place::Value, b',' | b':' | b'}' | b']') => "a value",
            (Place::Value, _) if self.field == Field::Items => "the list of items",
            (Place::Value, _) => return Ok(self.within(Part::Field)),
            (Place::AfterValue, b',') => return Ok(Place::Key),
            (Place::FirstItem, b']') => return Ok(Place::AfterValue),
            (Place::FirstItem | Place::Item, b'{') => return Ok(self.within(Part::Item)),
            (Place::FirstItem | Place::Item, _) => return Err(Malformed::NotAnObject { index: self.items }),
            (Place::AfterItem, b',') => return Ok(Place::Item),
            (Place::AfterItem, b']') => return Ok(Place::AfterValue),
            (Place::Start, _) => "{",
            (Place::FirstKey, _) => "a key or }",
            (Place::Key, _) => "a key",
            (Place::Colon, _) => "a colon",
            (Place::AfterValue, _) => "a comma or }",
            (Place::AfterItem, _) => "a comma or ]",
            (Place::End, _) => "the end",
            (Place::Within(_), _) => unreachable!("a value is read by its span"),
        };
        Err(Malformed::Syntax { expected, at: self.at })
    }

    fn within(&mut self, part: Part) -> Place {
        self.span = Span::default();
        Place::Within(part)
    }

    /// The field that a key names.
    fn name(&mut self, key: &[u8]) -> Result<Place, Malformed> {
        let key: String = serde_json::from_slice(key).map_err(|source| Malformed::Field { at: self.at, source })?;
        let (field, had, name) = match key.as_str() {
            "kind" => (Field::Kind, std::mem::replace(&mut self.has_kind, true), "kind"),
            "apiVersion" => (Field::ApiVersion, std::mem::replace(&mut self.has_api_version, true), "apiVersion"),
            "items" => (Field::Items, std::mem::replace(&mut self.has_items, true), "items"),
            _ => (Field::Other, false, ""),
        };
        self.field = field;
        if had { Err(Malformed::Twice { name }) } else { Ok(Place::Colon) }
    }

    /// The value of a field that is not `items`.
    fn judge(&self, value: &[u8]) -> Result<Place, Malformed> {
        let (name, want) = match self.field {
            Field::Kind => ("kind", "EventList"),
            Field::ApiVersion => ("apiVersion", "audit.k8s.io/v1"),
            Field::Items | Field::Other => {
                let read = serde_json::from_slice::<IgnoredAny>(value);
                return read.map(|_| Place::AfterValue).map_err(|source| Malformed::Field { at: self.at, source });
            }
        };
        match serde_json::from_slice::<String>(value) {
            Ok(text) if text == want => Ok(Place::AfterValue),
            Ok(_) => Err(Malformed::Foreign { name, want }),
            Err(source) => Err(Malformed::Field { at: self.at, source }),
        }
    }
}

/// The next capacity: twice as much, so that copies stay few, but not more than the limit.
fn grown(capacity: usize, needed: usize, max_event_bytes: usize) -> usize {
    let limit = max_event_bytes.max(OTHER_MAX_BYTES);
    if needed <= capacity { capacity } else { (2 * needed).min(limit) }
}

/// The end of a value. Brackets are counted and not matched, because serde_json parses the value anyway.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    state: State,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first byte.
    #[default]
    Before,
    /// In an object or a list.
    Open,
    String,
    /// In a string, after a backslash.
    Escape,
    /// A number, or a word.
    Bare,
}

impl Span {
    /// How many of the bytes belong to the value, and whether it ends there.
    fn measure(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.state {
                State::Before => {
                    self.state = match byte {
                        b'"' => State::String,
                        b'{' | b'[' => State::Open,
                        _ => State::Bare,
                    };
                    self.depth = usize::from(self.state == State::Open);
                }
                State::Open => match byte {
                    b'"' => self.state = State::String,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                },
                State::String => match memchr2(b'"', b'\\', &bytes[at..]) {
                    None => return (bytes.len(), false),
                    Some(before) => {
                        at += before;
                        self.state = match bytes[at] {
                            b'"' if self.depth > 0 => State::Open,
                            b'"' => return (at + 1, true),
                            _ => State::Escape,
                        };
                    }
                },
                State::Escape => self.state = State::String,
                // The byte after a number or a word is not part of it.
                State::Bare if matches!(byte, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') => {
                    return (at, true);
                }
                State::Bare => {}
            }
            at += 1;
            if self.state == State::Open && self.depth == 0 {
                return (at, true);
            }
        }
        (at, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::super::Format;
    use super::super::line::push_line;
    use super::*;

    /// The result of serde_json for the whole text.
    #[derive(Deserialize)]
    struct List<'a> {
        kind: String,
        #[serde(rename = "apiVersion")]
        api_version: String,
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }

    /// By serde_json: `None` if it is not an EventList of objects.
    fn whole(bytes: &[u8]) -> Option<Vec<String>> {
        let list: List<'_> = serde_json::from_slice(bytes).ok()?;
        let items: Vec<_> = list.items.iter().map(|item| item.get().to_string()).collect();
        let is_ours = list.kind == "EventList" && list.api_version == "audit.k8s.io/v1";
        (is_ours && items.iter().all(|item| item.starts_with('{'))).then_some(items)
    }

    /// By the scanner and the reader of its events, in pieces. An event that is too large is an empty text.
    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max_event_bytes: usize) -> Result<Vec<String>, Malformed> {
        let mut scanner = Scanner::new(max_event_bytes);
        let mut items = Vec::new();
        for mut piece in pieces {
            while let Some(found) = scanner.next(&mut piece)? {
                items.push(match found {
                    Scanned::Event { index, text } => {
                        for format in [Format::Json, Format::Summary] {
                            push_line(&mut String::new(), text, format)
                                .map_err(|source| Malformed::Item { index, source })?;
                        }
                        text.to_string()
                    }
                    Scanned::TooLarge => String::new(),
                });
            }
            assert!(scanner.held_bytes() <= max_event_bytes.max(OTHER_MAX_BYTES));
        }
        scanner.end().map(|()| items)
    }

    const TYPE: &str = r#""kind":"EventList","apiVersion":"audit.k8s.io/v1""#;
    const LIST: &str = r#" {"kind":"EventList", "apiVersion" : "audit.k8s.io/v1","metadata":{"a":[1,{"b":"}]"}]},
        "x":-1.5e3,"y":null, "\u0069tems":[ {"a":"\\\"}{","b":[{},[]]} ,{}, {"c":"\u00e9 é"}
        ],"z":true} "#;

    #[test]
    fn a_list_is_the_same_wherever_it_is_cut() {
        let bytes = LIST.as_bytes();
        let want = whole(bytes).expect("it is a list");
        assert_eq!(want.len(), 3);
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(scan([head, tail], 1 << 20).expect("it is a list"), want, "{cut}");
        }
        assert_eq!(scan(bytes.chunks(1), 1 << 20).expect("it is a list"), want);
    }

    #[test]
    fn a_list_that_is_cut_off_is_none_wherever_that_is() {
        let bytes = LIST.trim_end().as_bytes();
        for cut in 0..bytes.len() {
            assert!(matches!(scan([&bytes[..cut]], 1 << 20), Err(Malformed::Ended { .. })), "{cut}");
        }
    }

    #[test]
    fn what_is_no_list_of_events_is_refused_with_its_place() {
        for (text, want) in [
            ("[]", "expected { at byte 0"),
            ("{]", "expected a key or } at byte 1"),
            ("{}", "the field kind is missing"),
            (r#"{"items":[],"kind":"EventList"}"#, "the field apiVersion is missing"),
            (r#"{"kind":"List"}"#, "kind must be EventList"),
            (r#"{"items":[]}{"#, "expected the end at byte 12"),
            (r#"{"items":[],"apiVersion":"v1"}"#, "apiVersion must be audit.k8s.io/v1"),
            (r#"{"items":null}"#, "expected the list of items at byte 9"),
            (r#"{"items":[0,"#, "items[0] is not a JSON object"),
            (r#"{"items":[{},[]]}"#, "items[1] is not a JSON object"),
            (r#"{"items":[{},]}"#, "items[1] is not a JSON object"),
            (r#"{"items":[{}{}]}"#, "expected a comma or ] at byte 12"),
            (r#"{"items":[{"a"}]}"#, "items[0] is not JSON: expected `:` at line 1 column 5"),
            (r#"{"items":[{"a":[}]}]}"#, "items[0] is not JSON: expected value at line 1 column 7"),
            (r#"{"items":[{"level":"a""b"}]}"#, "items[0] is not JSON: expected `,` or `}` at line 1 column 13"),
            (r#"{"items":[],"items":[]}"#, "the field items is given twice"),
            (r#"{"kind":"EventList","kind":"b"}"#, "the field kind is given twice"),
            (
                r#"{"kind":1}"#,
                "a field before byte 9 is not JSON: invalid type: integer `1`, expected a string at line 1 column 1",
            ),
            (r#"{"x":nul}"#, "a field before byte 8 is not JSON: EOF while parsing a value at line 1 column 3"),
            (r#"{"x":}"#, "expected a value at byte 5"),
            (r#"{"x" 1}"#, "expected a colon at byte 5"),
            (r#"{"x":1 "y"}"#, "expected a comma or } at byte 7"),
            (r#"{"x":1,}"#, "expected a key at byte 7"),
            (r#"{"items":["#, "the JSON ends too early, at byte 10"),
        ] {
            assert_eq!(scan([text.as_bytes()], 100).expect_err(text).to_string(), want, "{text}");
            assert_eq!(scan(text.as_bytes().chunks(1), 100).expect_err(text).to_string(), want, "{text}");
        }
        let large = format!(r#"{{"metadata":"{}","items":[]}}"#, "x".repeat(OTHER_MAX_BYTES));
        assert!(matches!(scan(large.as_bytes().chunks(100), 100), Err(Malformed::FieldTooLarge { .. })));
    }

    #[test]
    fn an_event_that_is_too_large_is_skipped_and_its_neighbours_are_not() {
        let large = format!(r#"{{"a":"{}"}}"#, "}".repeat(100));
        let text = format!(r#"{{"items":[{{"b":1}},{large},{{"c":2}}],{TYPE}}}"#);
        let want = vec![r#"{"b":1}"#.to_string(), String::new(), r#"{"c":2}"#.to_string()];
        for size in 1..text.len() {
            assert_eq!(scan(text.as_bytes().chunks(size), large.len() - 1).expect("a list"), want, "{size}");
            assert_eq!(scan(text.as_bytes().chunks(size), large.len()).expect("a list")[1], large, "{size}");
        }
    }

    #[test]
    fn a_depth_of_a_million_takes_no_stack() {
        let deep = format!("{}{}", r#"{"a":["#.repeat(500_000), "]}".repeat(500_000));
        let text = format!(r#"{{{TYPE},"items":[{deep}]}}"#);
        assert_eq!(scan(text.as_bytes().chunks(1 << 14), 1 << 24).expect("a list"), [deep]);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
            r#"["\\\[\]{},: ]{0,8}"#.prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[a-z\"]{0,3}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The text of a list, mostly of objects, with other fields before and behind.
    fn list() -> impl Strategy<Value = String> {
        let items = proptest::collection::vec(json(), 0..6);
        (items, json(), json(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(items, before, behind, is_strict, is_pretty, is_last)| {
                let items: Vec<_> = items.into_iter().filter(|item| !is_strict || item.is_object()).collect();
                let mut fields = [
                    format!("\"kind\":\"EventList\",\"before\":{before}"),
                    format!("\"items\":{}", serde_json::Value::from(items)),
                    format!("\"behind\" : {behind} , \"apiVersion\":\"audit.k8s.io/v1\""),
                ];
                if is_last {
                    fields.reverse();
                }
                let text = format!("{{{}}}", fields.join(","));
                match serde_json::from_str::<serde_json::Value>(&text) {
                    Ok(value) if is_pretty => format!("{value:#}"),
                    _ => text,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn lists_are_read_as_serde_json_reads_them(text in list(), size in 1_usize..40) {
            prop_assert_eq!(scan(text.as_bytes().chunks(size), 1 << 20).ok(), whole(text.as_bytes()));
        }

        #[test]
        fn damaged_lists_are_accepted_exactly_where_serde_json_does(
            text in list(), at in any::<prop::sample::Index>(), byte in any::<u8>(), way in 0..3, size in 1_usize..40,
        ) {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            match way {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\",:{}[]\\ "[usize::from(byte) % 9]),
            }
            prop_assert_eq!(scan(bytes.chunks(size), 1 << 20).ok(), whole(&bytes));
        }
    }
}
