//! Decodes the characters of the input in the same portions as kube-apiserver's reader.
//!
//! The portions matter: an invalid byte is an error only if the parser reads that far, and it reads ahead by 512 bytes
//! (go.yaml.in/yaml/v2@v2.4.3 readerc.go#L85-L412).

use super::{Mark, Problem};

/// Bytes per read of the input.
const PORTION: usize = 512;

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Utf8,
    Utf16 { low: usize, high: usize },
}

/// A window on the decoded text. Zero bytes, which no text contains, follow its end.
pub(super) struct Chars<'a> {
    raw: &'a [u8],
    raw_start: usize,
    raw_pos: usize,
    raw_end: usize,
    is_end: bool,
    encoding: Option<Encoding>,
    /// Everything decoded so far, as UTF-8.
    decoded: Vec<u8>,
    pos: usize,
    /// Start of upstream's buffer; only [`Self::is_bom`] uses it.
    window: usize,
    /// Decoded characters that are not consumed yet.
    unread: usize,
    pub mark: Mark,
}

impl<'a> Chars<'a> {
    pub fn new(raw: &'a [u8]) -> Self {
        Self {
            raw: if raw.is_empty() { b"\n" } else { raw },
            raw_start: 0,
            raw_pos: 0,
            raw_end: 0,
            is_end: false,
            encoding: None,
            decoded: Vec::new(),
            pos: 0,
            window: 0,
            unread: 0,
            mark: Mark::default(),
        }
    }

    fn take_raw(&mut self) {
        if (self.raw_pos == self.raw_start && self.raw_end - self.raw_start == PORTION) || self.is_end {
            return;
        }
        self.raw_start = self.raw_pos;
        if self.raw_end == self.raw.len() {
            self.is_end = true;
            return;
        }
        self.raw_end = self.raw.len().min(self.raw_start + PORTION);
    }

    fn determine_encoding(&mut self) -> Encoding {
        while !self.is_end && self.raw_end - self.raw_pos < 3 {
            self.take_raw();
        }
        let (encoding, width) = match &self.raw[self.raw_pos..self.raw_end] {
            [0xff, 0xfe, ..] => (Encoding::Utf16 { low: 0, high: 1 }, 2),
            [0xfe, 0xff, ..] => (Encoding::Utf16 { low: 1, high: 0 }, 2),
            [0xef, 0xbb, 0xbf, ..] => (Encoding::Utf8, 3),
            _ => (Encoding::Utf8, 0),
        };
        self.raw_pos += width;
        self.mark.byte = if matches!(encoding, Encoding::Utf8) { width } else { 0 };
        self.encoding = Some(encoding);
        encoding
    }

    /// Makes at least `count` characters available.
    pub fn need(&mut self, count: usize) -> Result<(), Problem> {
        if self.unread >= count {
            return Ok(());
        }
        let encoding = self.encoding.unwrap_or_else(|| self.determine_encoding());
        self.window = self.pos;
        let mut is_first = true;
        while self.unread < count {
            if !is_first || self.raw_pos == self.raw_end {
                self.take_raw();
            }
            is_first = false;
            while self.raw_pos != self.raw_end {
                let bytes = &self.raw[self.raw_pos..self.raw_end];
                let found = match encoding {
                    Encoding::Utf8 => utf8(bytes),
                    Encoding::Utf16 { low, high } => utf16(bytes, low, high),
                };
                let (value, width) = match found {
                    Ok(found) => found,
                    Err(None) if !self.is_end => break,
                    Err(None) => return Err(self.unreadable("the last character is incomplete")),
                    Err(Some(why)) => return Err(self.unreadable(why)),
                };
                match char::from_u32(value) {
                    Some(
                        c @ ('\t'
                        | '\n'
                        | '\r'
                        | ' '..='~'
                        | '\u{85}'
                        | '\u{a0}'..='\u{d7ff}'
                        | '\u{e000}'..='\u{fffd}'
                        | '\u{10000}'..),
                    ) => self.decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    _ => return Err(self.unreadable("control characters are not allowed")),
                }
                self.raw_pos += width;
                self.unread += 1;
            }
            if self.is_end {
                self.decoded.push(0);
                self.unread += 1;
                break;
            }
        }
        Ok(())
    }

    /// Counts the place of the byte, since the scanner has not reached it yet.
    fn unreadable(&self, why: &str) -> Problem {
        let mut mark = self.mark;
        let mut rest = &self.decoded[self.pos..];
        while let Some(&first) = rest.first() {
            let width = width(first).max(1).min(rest.len());
            if first == b'\n' {
                mark.line += 1;
                mark.column = 0;
            } else {
                mark.column += 1;
            }
            rest = &rest[width..];
        }
        Problem { mark, message: why.to_string() }
    }

    /// The byte `offset` bytes ahead.
    pub fn at(&self, offset: usize) -> u8 {
        self.decoded.get(self.pos + offset).copied().unwrap_or(0)
    }

    /// Upstream checks whether its buffer begins with a byte order mark, not whether one comes next
    /// (yamlprivateh.go#L80-L82).
    pub fn is_bom(&self) -> bool {
        self.decoded[self.window.min(self.decoded.len())..].starts_with(b"\xef\xbb\xbf")
    }

    pub fn is_blank(&self, offset: usize) -> bool {
        matches!(self.at(offset), b' ' | b'\t')
    }

    pub fn is_break(&self, offset: usize) -> bool {
        match self.at(offset) {
            b'\r' | b'\n' => true,
            0xc2 => self.at(offset + 1) == 0x85,
            0xe2 => self.at(offset + 1) == 0x80 && matches!(self.at(offset + 2), 0xa8 | 0xa9),
            _ => false,
        }
    }

    pub fn is_break_or_end(&self, offset: usize) -> bool {
        self.at(offset) == 0 || self.is_break(offset)
    }

    pub fn is_blank_or_end(&self, offset: usize) -> bool {
        self.is_blank(offset) || self.is_break_or_end(offset)
    }

    /// Letters, digits, `_` and `-`.
    pub fn is_word(&self) -> bool {
        matches!(self.at(0), b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'-')
    }

    /// `---` or `...` at the beginning of a line.
    pub fn is_document_indicator(&self) -> bool {
        self.mark.column == 0
            && matches!((self.at(0), self.at(1), self.at(2)), (b'-', b'-', b'-') | (b'.', b'.', b'.'))
            && self.is_blank_or_end(3)
    }

    fn advance(&mut self, bytes: usize, characters: usize) {
        self.pos += bytes;
        self.mark.byte += bytes;
        self.mark.index += characters;
        self.unread = self.unread.saturating_sub(characters);
    }

    /// Skips one character.
    pub fn skip(&mut self) {
        self.advance(width(self.at(0)), 1);
        self.mark.column += 1;
    }

    /// Skips one line break.
    pub fn skip_line(&mut self) {
        if self.at(0) == b'\r' && self.at(1) == b'\n' {
            self.advance(2, 2);
        } else if self.is_break(0) {
            self.advance(width(self.at(0)), 1);
        } else {
            return;
        }
        self.mark.column = 0;
        self.mark.line += 1;
    }

    /// Appends one character to `into`.
    pub fn read(&mut self, into: &mut Vec<u8>) {
        let width = width(self.at(0));
        into.extend((0..width).map(|offset| self.at(offset)));
        self.skip();
    }

    /// Appends one line break to `into`, usually as `\n`.
    pub fn read_line(&mut self, into: &mut Vec<u8>) {
        match self.at(0) {
            0xe2 => into.extend([self.at(0), self.at(1), self.at(2)]),
            _ if self.is_break(0) => into.push(b'\n'),
            _ => return,
        }
        self.skip_line();
    }
}

/// Bytes of the character that begins with `first`; 0 if none begins with it.
pub(super) fn width(first: u8) -> usize {
    match first {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => 0,
    }
}

/// The first character and its width. `Err(None)`: bytes are missing.
fn utf8(bytes: &[u8]) -> Result<(u32, usize), Option<&'static str>> {
    let first = bytes[0];
    let width = width(first);
    if width == 0 {
        return Err(Some("the text is not UTF-8: invalid leading octet"));
    }
    if width > bytes.len() {
        return Err(None);
    }
    let mut value = u32::from(match width {
        1 => first,
        2 => first & 0x1f,
        3 => first & 0x0f,
        _ => first & 0x07,
    });
    for octet in &bytes[1..width] {
        if octet & 0xc0 != 0x80 {
            return Err(Some("the text is not UTF-8: invalid trailing octet"));
        }
        value = (value << 6) + u32::from(octet & 0x3f);
    }
    let is_shortest = match width {
        1 => true,
        2 => value >= 0x80,
        3 => value >= 0x800,
        _ => value >= 0x10000,
    };
    if !is_shortest {
        return Err(Some("the text is not UTF-8: invalid length of a sequence"));
    }
    if (0xd800..=0xdfff).contains(&value) || value > 0x10ffff {
        return Err(Some("the text is not UTF-8: invalid character"));
    }
    Ok((value, width))
}

fn utf16(bytes: &[u8], low: usize, high: usize) -> Result<(u32, usize), Option<&'static str>> {
    let unit = |at: usize| Some(u32::from(*bytes.get(at + low)?) | u32::from(*bytes.get(at + high)?) << 8);
    let value = unit(0).ok_or(None)?;
    match value & 0xfc00 {
        0xdc00 => Err(Some("the text is not UTF-16: unexpected low surrogate")),
        0xd800 => {
            let second = unit(2).ok_or(None)?;
            if second & 0xfc00 != 0xdc00 {
                return Err(Some("the text is not UTF-16: expected a low surrogate"));
            }
            Ok((0x10000 + ((value & 0x3ff) << 10) + (second & 0x3ff), 4))
        }
        _ => Ok((value, 2)),
    }
}
