//! JSON documents over many lines, turned into one line per event.

use std::io::{BufRead, BufReader, Read};

/// Whether a text begins like a document and not like lines of events: with a bracket that its line does not close.
pub(super) fn is_document(start: &[u8]) -> bool {
    let start = start.trim_ascii_start();
    let line = memchr::memchr(b'\n', start).map(|end| start[..end].trim_ascii_end());
    line.is_some_and(|line| {
        matches!(line.first(), Some(b'{' | b'[')) && matches!(line, [b'{' | b'['] | [.., b'{' | b'[' | b','])
    })
}

/// The elements of a top-level list, or of the `items` of a top-level object, one per line; then the object without
/// them. Other objects are one line each. Only blanks between tokens are removed, so that the reader of the lines finds
/// invalid JSON.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    out: Vec<u8>,
    /// The part of `out` that is read already.
    given: usize,
    state: State,
    is_at_end: bool,
}

#[derive(Default)]
struct State {
    /// The top-level object, without its items.
    envelope: Vec<u8>,
    item: Vec<u8>,
    depth: usize,
    /// Depth of the elements that become lines, inside a list.
    items: Option<usize>,
    in_string: bool,
    is_escaped: bool,
}

impl<R: Read> Lines<R> {
    pub fn of(input: R) -> Self {
        Self { input: BufReader::new(input), out: Vec::new(), given: 0, state: State::default(), is_at_end: false }
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.given == self.out.len() && !self.is_at_end {
            self.out.clear();
            self.given = 0;
            let text = self.input.fill_buf()?;
            let read = text.len();
            text.iter().for_each(|byte| self.state.byte(*byte, &mut self.out));
            self.input.consume(read);
            if read == 0 {
                self.is_at_end = true;
                self.state.end(&mut self.out);
            }
            // Long enough to be passed on in parts; the reader reports a line that is too long.
            for text in [&mut self.state.item, &mut self.state.envelope] {
                if text.len() > read.max(1 << 16) {
                    self.out.append(text);
                }
            }
        }
        let mut rest = &self.out[self.given..];
        let read = rest.read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

impl State {
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            self.push(byte);
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            // Between elements, and around them.
            b',' if self.items == Some(self.depth) => {}
            b'[' if self.items.is_none() && self.is_before_items() => {
                if self.depth == 1 {
                    self.envelope.push(byte);
                }
                self.depth += 1;
                self.items = Some(self.depth);
            }
            b']' if self.items == Some(self.depth) => {
                self.items = None;
                self.depth -= 1;
                if self.depth == 1 {
                    self.envelope.push(byte);
                }
            }
            _ => {
                self.push(byte);
                self.in_string = byte == b'"';
                match byte {
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                if matches!(byte, b'}' | b']') && (self.depth == 0 || self.items == Some(self.depth)) {
                    let line = if self.items.is_some() { &mut self.item } else { &mut self.envelope };
                    out.append(line);
                    out.push(b'\n');
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if self.items.is_some() { self.item.push(byte) } else { self.envelope.push(byte) }
    }

    fn is_before_items(&self) -> bool {
        self.depth == 0 && self.envelope.is_empty() || self.depth == 1 && self.envelope.ends_with(b"\"items\":")
    }

    /// A value that is cut off becomes a line of its own.
    fn end(&mut self, out: &mut Vec<u8>) {
        out.append(if self.item.is_empty() { &mut self.envelope } else { &mut self.item });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let mut out = String::new();
        Lines::of(text.as_bytes()).read_to_string(&mut out).unwrap();
        out.lines().map(String::from).collect()
    }

    #[test]
    fn items_and_documents_become_lines() {
        let list = "{\n \"kind\": \"EventList\",\n \"items\": [\n {\"a\": [1, 2],\n\"b\": \"x, ] \\\" }\"},\n {}\n ],\n \"metadata\": {}\n}\n";
        let item = r#"{"a":[1,2],"b":"x, ] \" }"}"#;
        let envelope = r#"{"kind":"EventList","items":[],"metadata":{}}"#;
        assert_eq!(lines(list), [item, "{}", envelope]);
        assert_eq!(lines(&list.repeat(2)).len(), 6);
        assert_eq!(lines("{\n\"a\": 1\n}\n{\n}"), [r#"{"a":1}"#, "{}"]);
        assert_eq!(lines("[\n{\"items\": [1]},\n{}\n]"), [r#"{"items":[1]}"#, "{}"]);
        assert_eq!(lines("{\n\"items\": [\n{\"a\": \"b"), [r#"{"a":"b"#]);
        assert_eq!(lines("{\n\"items\": [\n{},"), ["{}", r#"{"items":["#]);
    }

    #[test]
    fn a_document_is_known_by_a_line_that_is_open() {
        for text in ["{\n", "\n [\r\n {", "{\"kind\": \"EventList\", \"items\": [\n{", "{ \"kind\": \"Event\",\n"] {
            assert!(is_document(text.as_bytes()), "{text}");
        }
        for text in ["", "{", "{\"kind\":\"Event\"}\n{\n", "{\"kind\":\"Event\",\"au\n", "2026 {\n"] {
            assert!(!is_document(text.as_bytes()), "{text}");
        }
    }
}
