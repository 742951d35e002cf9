//! A YAML document as kubectl sends it, and where its fields stand.
//!
//! kubectl reads YAML 1.1 into JSON before anything else (sigs.k8s.io/yaml@v1.6.0 yaml.go#L181-L358): `on` is a boolean and
//! `0x10` a number, and what is quoted is a text whatever it looks like.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

use crate::policy::scalar::{Scalar, plain};

/// Line and column, from 1.
pub(super) type Place = (u64, u64);

/// Deeper is no object of Kubernetes.
const MAX_DEPTH: usize = 100;

/// Below it every whole number is one of a float64: 2^53.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A document that is YAML.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) value: Value,
    /// Fields that are there twice, with the place of the second. The first counts here; kubectl would
    /// quietly take the last.
    pub(super) twice: Vec<(String, Place)>,
}

/// Reads the first document; `None` where it is not YAML, or not YAML that can be JSON.
pub(super) fn read(text: &str) -> Option<Tree> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), twice: Vec::new() };
    let (event, _) = reader.next()?;
    let value = reader.node(event, "", 0)?;
    Some(Tree { value, twice: reader.twice })
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Value>,
    twice: Vec<(String, Place)>,
}

impl<'a> Reader<'a> {
    /// The next node, or the end of a mapping or sequence.
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        loop {
            let (event, span) = self.parser.next()?.ok()?;
            if event.is_node() || matches!(event, Event::MappingEnd | Event::SequenceEnd) {
                return Some((event, span));
            }
        }
    }

    fn node(&mut self, event: Event<'a>, path: &str, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = match tag {
                    None => style == ScalarStyle::Plain,
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => false,
                    Some(_) => return None,
                };
                (if is_plain { json_of(&text)? } else { Value::String(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, None) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, _) => {
                            items.push(self.node(event, &format!("{path}[{}]", items.len()), depth + 1)?);
                        }
                    }
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(_, anchor, None) => (self.mapping(path, depth)?, anchor),
            Event::Alias(anchor) => (self.anchors.get(&anchor)?.clone(), 0),
            _ => return None,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Some(value)
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Option<Value> {
        let mut fields = Map::new();
        let mut merged = Vec::new();
        loop {
            let (name, span, is_merge) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(name, style, _, _), span) => {
                    let is_plain = style == ScalarStyle::Plain;
                    let is_merge = is_plain && name == "<<";
                    // A key that is no text becomes one.
                    let name = match plain(&name) {
                        Scalar::Bool(value) if is_plain => value.to_string(),
                        _ => name.into_owned(),
                    };
                    (name, span, is_merge)
                }
                _ => return None,
            };
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let (event, _) = self.next()?;
            let value = self.node(event, &field, depth + 1)?;
            if is_merge {
                merged.push(value);
            } else if fields.contains_key(&name) {
                self.twice.push((field, place(&span)));
            } else {
                fields.insert(name, value);
            }
        }
        // What stands in the mapping itself wins over what is merged into it, and the first of several over the next.
        for value in merged {
            let several = match value {
                Value::Array(several) => several,
                one => vec![one],
            };
            for one in several {
                let Value::Object(one) = one else { return None };
                for (name, value) in one {
                    fields.entry(name).or_insert(value);
                }
            }
        }
        Some(Value::Object(fields))
    }
}

/// What a scalar without quotes is in JSON; `None` for what is infinite, or no number.
fn json_of(text: &str) -> Option<Value> {
    Some(match plain(text) {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => value.into(),
        Scalar::Int(value) => value.into(),
        Scalar::Uint(value) => value.into(),
        // Written as JSON, 3.0 is 3.
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        Scalar::Float(value) if value.fract() == 0.0 && value.abs() < MAX_WHOLE => (value as i64).into(),
        Scalar::Float(value) => Number::from_f64(value)?.into(),
        Scalar::Text(text) => text.into(),
    })
}

fn place(span: &Span) -> Place {
    // The parser counts lines from 1 and columns from 0.
    (span.start.line() as u64, span.start.col() as u64 + 1)
}

/// Where the fields of a document stand.
pub(super) struct Places(Vec<(String, Place)>);

impl Places {
    /// As far as the text is YAML.
    pub(super) fn of(text: &str) -> Self {
        enum Open {
            /// The path of the mapping, and of the field whose value comes next.
            Mapping(String, Option<String>),
            Sequence(String, usize),
        }
        let mut open: Vec<Open> = Vec::new();
        let mut found = Vec::new();
        for next in Parser::new_from_str(text) {
            let Ok((event, span)) = next else { break };
            let place = place(&span);
            match &event {
                Event::MappingEnd | Event::SequenceEnd => {
                    open.pop();
                    continue;
                }
                event if !event.is_node() => continue,
                _ => {}
            }
            let path = match open.last_mut() {
                None => String::new(),
                Some(Open::Sequence(path, n)) => {
                    *n += 1;
                    format!("{path}[{}]", *n - 1)
                }
                Some(Open::Mapping(path, key)) => match key.take() {
                    Some(field) => field,
                    None => {
                        let name = event.scalar().map_or("?", |(name, _)| name);
                        let field = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                        found.push((field.clone(), place));
                        *key = Some(field);
                        continue;
                    }
                },
            };
            found.push((path.clone(), place));
            match event {
                Event::MappingStart(..) => open.push(Open::Mapping(path, None)),
                Event::SequenceStart(..) => open.push(Open::Sequence(path, 0)),
                _ => {}
            }
        }
        Self(found)
    }

    /// The field, or the nearest one above it that is there.
    pub(super) fn of_field(&self, field: &str) -> Option<Place> {
        let mut path = field;
        loop {
            if let Some((_, place)) = self.0.iter().find(|(have, _)| have == path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The innermost field that begins there.
    pub(super) fn field_at(&self, place: Place) -> Option<&str> {
        self.0.iter().filter(|(path, at)| *at == place && !path.is_empty()).map(|(path, _)| path.as_str()).next_back()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        for (text, want) in [
            ("3", json!(3)),
            ("-3", json!(-3)),
            ("+1", json!(1)),
            ("'3'", json!("3")),
            ("\"3\"", json!("3")),
            ("!!str 3", json!("3")),
            ("0x1f", json!(31)),
            ("017", json!(15)),
            ("0o17", json!(15)),
            ("1_000", json!(1000)),
            ("0b-1", json!(-1)),
            (".5_", json!(".5_")),
            ("08", json!(8)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000)),
            ("3.0", json!(3)),
            ("1e30", json!(1e30)),
            ("18446744073709551615", json!(u64::MAX)),
            ("on", json!(true)),
            ("'on'", json!("on")),
            ("No", json!(false)),
            ("oN", json!("oN")),
            ("~", json!(null)),
            ("''", json!("")),
            ("1.36.3", json!("1.36.3")),
            ("12:30", json!("12:30")),
            ("0x", json!("0x")),
            ("2001-01-01", json!("2001-01-01")),
            ("|\n  3\n", json!("3\n")),
        ] {
            assert_eq!(read(&format!("a: {text}\n")).map(|tree| tree.value["a"].clone()), Some(want), "{text}");
        }
    }

    #[test]
    fn mappings_lists_aliases_and_merges_become_json() {
        for (text, want) in [
            ("a: {b: [1, two], c: }\n", json!({"a": {"b": [1, "two"], "c": null}})),
            ("{\"a\": \"1\", \"b\": [true]}", json!({"a": "1", "b": [true]})),
            ("a: &x {b: 1}\nc: *x\n", json!({"a": {"b": 1}, "c": {"b": 1}})),
            ("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n", json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}})),
            ("1: a\non: b\n'on': c\n", json!({"1": "a", "true": "b", "on": "c"})),
            ("# nothing but\na: 1 # a comment\n", json!({"a": 1})),
        ] {
            let tree = read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((tree.value, tree.twice), (want, vec![]), "{text}");
        }
        for text in [
            "a: [1",
            "? [a]\n: b\n",
            "a: !odd b\n",
            "a: *x\n",
            "a: -.inf\n",
            &format!("{}1{}", "[".repeat(200), "]".repeat(200)),
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_told_with_the_place_of_the_second() {
        let tree = read("a:\n- b: 1\n  c: 2\n  b: 3\na: 4\n").unwrap();
        assert_eq!(tree.value, json!({"a": [{"b": 1, "c": 2}]}));
        assert_eq!(tree.twice, [("a[0].b".to_string(), (4, 3)), ("a".to_string(), (5, 1))]);
    }

    #[test]
    fn a_field_has_a_place_and_a_place_has_a_field() {
        let places = Places::of("spec:\n  sinks:\n  - name: a\n    log: {path: x}\n  - name: b\n");
        assert_eq!(places.of_field("spec.sinks[0].log.path"), Some((4, 11)));
        assert_eq!(places.of_field("spec.sinks[1]"), Some((5, 5)));
        assert_eq!(places.of_field("spec.sinks[1].webhook.url"), Some((5, 5)));
        assert_eq!(places.of_field("metadata.name"), None);
        assert_eq!(places.field_at((4, 17)), Some("spec.sinks[0].log.path"));
        assert_eq!(places.field_at((5, 5)), Some("spec.sinks[1].name"));
    }
}
