//! JSON as Go's `encoding/json` reads it.

use std::collections::HashMap;

use super::scalar::text_of;
use super::{Error, Key, Place, Tree, Value, ValueId};

/// Most levels of nested collections (encoding/json, scanner.go, maxNestingDepth).
pub const MAX_DEPTH: usize = 10_000;

/// Reads one value with nothing after it.
pub(super) fn parse(text: &[u8]) -> Result<Tree, Error> {
    let mut reader = Reader { text, at: 0, place: Place { line: 1, column: 1 }, values: Vec::new() };
    let root = reader.document()?;
    let Reader { values, .. } = reader;
    Ok(Tree { values, root, duplicates: Vec::new(), traps: Vec::new(), written: HashMap::new() })
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    place: Place,
    values: Vec<(Place, Value)>,
}

/// A collection that is not complete yet.
enum Open {
    List(ValueId),
    /// The key belongs to the next value.
    Map(ValueId, Option<Key>),
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn bump(&mut self) {
        match self.text[self.at] {
            b'\n' => self.place = Place { line: self.place.line.saturating_add(1), column: 1 },
            0x80..0xc0 => {}
            _ => self.place.column = self.place.column.saturating_add(1),
        }
        self.at += 1;
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.bump();
        }
    }

    fn error<T>(&self, context: &str) -> Result<T, Error> {
        let message = match self.text.get(self.at..) {
            None | Some([]) => "unexpected end of JSON input".to_string(),
            Some(rest) => {
                let shown = text_of(&rest[..rest.len().min(4)]).chars().next().unwrap_or_default();
                format!("invalid character {shown:?} {context}")
            }
        };
        Err(Error { place: self.place, message })
    }

    fn document(&mut self) -> Result<ValueId, Error> {
        let mut open: Vec<Open> = Vec::new();
        let mut root = None;
        loop {
            self.skip_blanks();
            // Next comes an end, a separator with a key, or a value.
            let mut is_collected = false;
            match open.last_mut() {
                None if root.is_some() => break,
                None => {}
                Some(Open::List(id)) => {
                    let is_first = matches!(&self.values[*id].1, Value::List(children) if children.is_empty());
                    match self.peek() {
                        Some(b']') => is_collected = true,
                        Some(b',') if !is_first => self.bump(),
                        _ if is_first => {}
                        _ => return self.error("after array element"),
                    }
                }
                Some(Open::Map(id, key)) => {
                    let is_first = matches!(&self.values[*id].1, Value::Map(entries) if entries.is_empty());
                    match self.peek() {
                        Some(b'}') => is_collected = true,
                        Some(b',') if !is_first => self.bump(),
                        _ if is_first => {}
                        _ => return self.error("after object key:value pair"),
                    }
                    if !is_collected {
                        *key = Some(self.key()?);
                    }
                }
            }
            if is_collected {
                self.bump();
                open.pop();
                continue;
            }
            self.skip_blanks();
            let id = self.values.len();
            let place = self.place;
            let value = self.value()?;
            let opened = match value {
                Value::List(_) => Some(Open::List(id)),
                Value::Map(_) => Some(Open::Map(id, None)),
                _ => None,
            };
            self.values.push((place, value));
            match open.last_mut() {
                None => root = Some(id),
                Some(Open::List(parent)) => {
                    if let Value::List(children) = &mut self.values[*parent].1 {
                        children.push(id);
                    }
                }
                Some(Open::Map(parent, key)) => {
                    if let (Value::Map(entries), Some(key)) = (&mut self.values[*parent].1, key.take()) {
                        entries.push((key, id));
                    }
                }
            }
            if let Some(opened) = opened {
                open.push(opened);
                if open.len() > MAX_DEPTH {
                    return Err(Error { place, message: "exceeded max depth".into() });
                }
            }
        }
        if self.at < self.text.len() {
            return self.error("after top-level value");
        }
        Ok(root.expect("the loop ends after a value"))
    }

    fn key(&mut self) -> Result<Key, Error> {
        self.skip_blanks();
        let place = self.place;
        if self.peek() != Some(b'"') {
            return self.error("looking for beginning of object key string");
        }
        let text = self.string()?;
        self.skip_blanks();
        if self.peek() != Some(b':') {
            return self.error("after object key");
        }
        self.bump();
        Ok(Key { text, place })
    }

    /// A scalar, or the beginning of a collection.
    fn value(&mut self) -> Result<Value, Error> {
        match self.peek() {
            Some(b'[') => {
                self.bump();
                Ok(Value::List(Vec::new()))
            }
            Some(b'{') => {
                self.bump();
                Ok(Value::Map(Vec::new()))
            }
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.error("looking for beginning of value"),
        }
    }

    fn literal(&mut self, text: &str, value: Value) -> Result<Value, Error> {
        for expected in text.bytes() {
            if self.peek() != Some(expected) {
                return self.error(&format!("in literal {text}"));
            }
            self.bump();
        }
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), Error> {
        if !self.peek().is_some_and(|b| b.is_ascii_digit()) {
            return self.error("in numeric literal");
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.bump();
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, Error> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.bump();
        }
        if self.peek() == Some(b'0') {
            self.bump();
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.bump();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.bump();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.bump();
            }
            self.digits()?;
        }
        Ok(Value::Number(text_of(&self.text[start..self.at])))
    }

    fn string(&mut self) -> Result<String, Error> {
        self.bump();
        let mut out = Vec::new();
        loop {
            let Some(byte) = self.peek() else { return self.error("in string literal") };
            match byte {
                b'"' => {
                    self.bump();
                    return Ok(text_of(&out));
                }
                0..0x20 => return self.error("in string literal"),
                b'\\' => {
                    self.bump();
                    let simple = match self.peek() {
                        Some(c @ (b'"' | b'\\' | b'/')) => Some(char::from(c)),
                        Some(b'b') => Some('\u{8}'),
                        Some(b'f') => Some('\u{c}'),
                        Some(b'n') => Some('\n'),
                        Some(b'r') => Some('\r'),
                        Some(b't') => Some('\t'),
                        Some(b'u') => None,
                        _ => return self.error("in string escape code"),
                    };
                    self.bump();
                    let c = match simple {
                        Some(c) => c,
                        None => self.unicode_escape()?,
                    };
                    out.extend(c.encode_utf8(&mut [0; 4]).bytes());
                }
                _ => {
                    out.push(byte);
                    self.bump();
                }
            }
        }
    }

    /// Four hexadecimal digits, without consuming them.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
    }

    /// Reads the rest of a `\u` escape. Half a surrogate pair becomes a replacement character.
    fn unicode_escape(&mut self) -> Result<char, Error> {
        let Some(first) = self.unit(self.at) else {
            while self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                self.bump();
            }
            return self.error("in \\u hexadecimal character escape");
        };
        for _ in 0..4 {
            self.bump();
        }
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let second = self.text[self.at..].starts_with(b"\\u").then(|| self.unit(self.at + 2)).flatten();
        match second {
            Some(second @ 0xdc00..0xe000) if first < 0xdc00 => {
                for _ in 0..6 {
                    self.bump();
                }
                let value = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
                Ok(char::from_u32(value).expect("a pair is a character"))
            }
            _ => Ok(char::REPLACEMENT_CHARACTER),
        }
    }
}
