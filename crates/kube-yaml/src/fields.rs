//! A document as kubectl sends it, with the places of its fields.

use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value as Json};

use super::{Error, Place, Tree, Value, ValueId, tree};

/// No Kubernetes object is nested deeper.
const MAX_DEPTH: usize = 100;

/// 2^53: up to here, a float64 represents every whole number.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The fields of a document.
#[derive(Debug)]
pub struct Fields {
    pub value: Json,
    /// Fields that are given twice, with the place of the second. kubectl silently uses the last one.
    pub twice: Vec<(String, Place)>,
    pub places: Places,
}

/// The places of the fields of a document: of the name and of the value.
#[derive(Debug, Default)]
pub struct Places(Vec<(String, Place)>);

/// Reads the first document.
pub fn read(text: &str) -> Result<Fields, Error> {
    let tree = tree(text.as_bytes())?;
    let mut fields = Fields { value: Json::Null, twice: Vec::new(), places: Places::default() };
    fields.value = fields.json(&tree, tree.root, "", 0)?;
    Ok(fields)
}

/// Converts the first document to JSON. The last of equal keys wins.
///
/// # Errors
/// The text is neither YAML nor JSON, is nested deeper than any object of Kubernetes, or has a number that JSON does
/// not allow.
pub fn to_json(text: &str) -> Result<Json, Error> {
    Ok(read(text)?.value)
}

/// Reads the first document into a type, as sigs.k8s.io/yaml does: through JSON. The last of equal keys wins.
///
/// # Errors
/// The text is neither YAML nor JSON, or does not fit the type. The place is that of the field.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let Fields { value, places, .. } = read(text)?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = places.of_field(&path).unwrap_or(Place { line: 1, column: 1 });
        Error { place, message: format!("{path}: {}", error.into_inner()) }
    })
}

impl Fields {
    fn json(&mut self, tree: &Tree, id: ValueId, path: &str, depth: usize) -> Result<Json, Error> {
        let place = tree.place(id);
        let error = |message: &str| Error { place, message: message.to_string() };
        if depth > MAX_DEPTH {
            return Err(error("nested deeper than any Kubernetes object"));
        }
        self.places.0.push((path.to_string(), place));
        Ok(match tree.value(id) {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Text(text) => Json::String(text.clone()),
            Value::Number(text) => Json::Number(number(text).ok_or_else(|| error("JSON has no such number"))?),
            Value::List(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(n, item)| self.json(tree, *item, &format!("{path}[{n}]"), depth + 1));
                Json::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let name = &key.text;
                    let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let is_duplicate = tree.duplicates.iter().any(|other| other.key == *key && !other.is_merged);
                    if is_duplicate || map.contains_key(name) {
                        self.twice.push((field.clone(), key.place));
                    }
                    self.places.0.push((field.clone(), key.place));
                    map.insert(name.clone(), self.json(tree, *value, &field, depth + 1)?);
                }
                Json::Object(map)
            }
        })
    }
}

/// In JSON, 3.0 is written as 3.
fn number(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    let is_whole = |value: &f64| number.is_f64() && value.fract() == 0.0 && value.abs() < MAX_WHOLE;
    Some(match number.as_f64().filter(is_whole) {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
        Some(whole) => (whole as i64).into(),
        None => number,
    })
}

impl Places {
    /// The place of the field, or of its nearest existing parent.
    pub fn of_field(&self, field: &str) -> Option<Place> {
        let mut path = field;
        loop {
            if let Some((_, place)) = self.0.iter().find(|(have, _)| have == path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The innermost field that begins at a place.
    pub fn field_at(&self, place: Place) -> Option<&str> {
        self.0.iter().filter(|(path, at)| *at == place && !path.is_empty()).map(|(path, _)| path.as_str()).next_back()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(line: u32, column: u32) -> Place {
        Place { line, column }
    }

    #[test]
    fn a_document_becomes_the_json_that_kubectl_sends() {
        for (text, want) in [
            ("a: {b: [1, two], c: }\n", json!({"a": {"b": [1, "two"], "c": null}})),
            ("{\"a\": \"1\", \"b\": [true, 2.0]}", json!({"a": "1", "b": [true, 2]})),
            ("a: [3.0, 1.5, 1e30, 18446744073709551615, '3']\n", json!({"a": [3, 1.5, 1e30, u64::MAX, "3"]})),
            ("a: &x {b: 1}\nc: *x\n", json!({"a": {"b": 1}, "c": {"b": 1}})),
            ("a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  b: 3\n", json!({"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}})),
            ("1: a\non: b\n'on': c\n", json!({"1": "a", "true": "b", "on": "c"})),
            ("# nothing but\na: 1 # a comment\n", json!({"a": 1})),
        ] {
            let fields = read(text).unwrap_or_else(|complaint| panic!("{text}: {complaint:?}"));
            assert_eq!((fields.value, fields.twice), (want, vec![]), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_json_is_told_with_its_place() {
        for (text, place) in [
            ("a: [1", at(2, 1)),
            ("? [a]\n: b\n", at(1, 3)),
            ("a: *x\n", at(1, 4)),
            ("a:\n  b: -.inf\n", at(2, 6)),
            (&format!("{}1{}", "[".repeat(200), "]".repeat(200)), at(1, 102)),
        ] {
            assert_eq!(read(text).unwrap_err().place, place, "{text}");
        }
    }

    #[test]
    fn a_field_that_is_there_twice_is_told_with_the_place_of_the_second() {
        for (text, want) in [
            ("a:\n- b: 1\n  c: 2\n  b: 3\n", &[("a[0].b", at(4, 3))][..]),
            // A replaced value is not searched.
            ("a:\n- b: 1\n  c: 2\n  b: 3\na: 4\n", &[("a", at(5, 1))]),
            ("a: 4\na:\n- b: 1\n  b: 3\n", &[("a", at(2, 1)), ("a[0].b", at(4, 3))]),
            ("{\"a\": 1,\n \"a\": 2}", &[("a", at(2, 2))]),
        ] {
            let Fields { twice, .. } = read(text).unwrap();
            let twice: Vec<_> = twice.iter().map(|(field, place)| (field.as_str(), *place)).collect();
            assert_eq!(twice, want, "{text}");
        }
    }

    #[test]
    fn a_field_has_a_place_and_a_place_has_a_field() {
        let Fields { places, .. } = read("spec:\n  sinks:\n  - name: a\n    log: {path: x}\n  - name: b\n").unwrap();
        assert_eq!(places.of_field("spec.sinks[0].log.path"), Some(at(4, 11)));
        assert_eq!(places.of_field("spec.sinks[1]"), Some(at(5, 5)));
        assert_eq!(places.of_field("spec.sinks[1].webhook.url"), Some(at(5, 5)));
        assert_eq!(places.of_field("metadata.name"), None);
        assert_eq!(places.field_at(at(4, 17)), Some("spec.sinks[0].log.path"));
        assert_eq!(places.field_at(at(5, 5)), Some("spec.sinks[1].name"));
    }
}
