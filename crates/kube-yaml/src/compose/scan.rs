//! Turns characters into tokens, as the Go port of libyaml's scanner does (go.yaml.in/yaml/v2@v2.4.3 scannerc.go).

use std::collections::{HashMap, VecDeque};

use super::chars::{Chars, width};
use super::{Mark, Problem, Style};

/// Limit for flow collections and for indentation (scannerc.go#L906, L937).
pub(super) const MAX_DEPTH: usize = 10_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    StreamStart,
    StreamEnd,
    VersionDirective { major: u8, minor: u8 },
    TagDirective { handle: Vec<u8>, prefix: Vec<u8> },
    DocumentStart,
    DocumentEnd,
    BlockSequenceStart,
    BlockMappingStart,
    BlockEnd,
    FlowSequenceStart,
    FlowSequenceEnd,
    FlowMappingStart,
    FlowMappingEnd,
    BlockEntry,
    FlowEntry,
    Key,
    Value,
    Alias(Vec<u8>),
    Anchor(Vec<u8>),
    Tag { handle: Vec<u8>, suffix: Vec<u8> },
    Scalar { value: Vec<u8>, style: Style },
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub start: Mark,
    pub end: Mark,
}

/// A token that is a key if a `:` follows soon.
#[derive(Clone, Copy, Default)]
struct SimpleKey {
    is_possible: bool,
    is_required: bool,
    token_number: usize,
    mark: Mark,
}

pub(super) struct Scanner<'a> {
    chars: Chars<'a>,
    has_started: bool,
    flow_level: usize,
    tokens: VecDeque<Token>,
    tokens_parsed: usize,
    is_token_available: bool,
    /// Column of the current block; -1 outside of all blocks.
    indent: isize,
    indents: Vec<isize>,
    is_simple_key_allowed: bool,
    /// One for each flow level.
    simple_keys: Vec<SimpleKey>,
    /// Token number to index in `simple_keys`; entries may be out of date, as upstream's are.
    simple_keys_by_token: HashMap<usize, usize>,
}

type Done = Result<(), Problem>;

impl<'a> Scanner<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            chars: Chars::new(text),
            has_started: false,
            flow_level: 0,
            tokens: VecDeque::new(),
            tokens_parsed: 0,
            is_token_available: false,
            indent: -1,
            indents: Vec::new(),
            is_simple_key_allowed: false,
            simple_keys: Vec::new(),
            simple_keys_by_token: HashMap::new(),
        }
    }

    pub fn peek(&mut self) -> Result<&Token, Problem> {
        if !self.is_token_available {
            self.fetch_more_tokens()?;
        }
        Ok(&self.tokens[0])
    }

    /// Consumes the peeked token.
    pub fn skip_token(&mut self) {
        self.is_token_available = false;
        self.tokens_parsed += 1;
        self.tokens.pop_front();
    }

    fn error<T>(&self, problem: &str) -> Result<T, Problem> {
        Err(Problem { mark: self.chars.mark, message: problem.to_string() })
    }

    fn push(&mut self, kind: TokenKind, start: Mark, end: Mark) {
        self.tokens.push_back(Token { kind, start, end });
    }

    /// Inserts a token before the one with this number. If the parser has consumed that one already, as with `[]: x`,
    /// upstream appends the new one (apic.go, yaml_insert_token).
    fn insert(&mut self, number: usize, kind: TokenKind, mark: Mark) {
        let at = number.checked_sub(self.tokens_parsed).unwrap_or(self.tokens.len());
        self.tokens.insert(at.min(self.tokens.len()), Token { kind, start: mark, end: mark });
    }

    fn fetch_more_tokens(&mut self) -> Done {
        loop {
            if !self.tokens.is_empty() {
                // The head may still become a key.
                let Some(&at) = self.simple_keys_by_token.get(&self.tokens_parsed) else { break };
                if !self.is_simple_key_valid(at)? {
                    break;
                }
            }
            self.fetch_next_token()?;
        }
        self.is_token_available = true;
        Ok(())
    }

    fn fetch_next_token(&mut self) -> Done {
        use TokenKind::*;
        self.chars.need(1)?;
        if !self.has_started {
            return self.fetch_stream_start();
        }
        self.scan_to_next_token()?;
        self.unroll_indent(self.column());
        // The longest indicators are four characters: "--- ".
        self.chars.need(4)?;
        let chars = &self.chars;
        if chars.at(0) == 0 {
            return self.fetch_stream_end();
        }
        if chars.mark.column == 0 && chars.at(0) == b'%' {
            return self.fetch_directive();
        }
        if chars.is_document_indicator() {
            let kind = if chars.at(0) == b'-' { DocumentStart } else { DocumentEnd };
            return self.fetch_document_indicator(kind);
        }
        let is_flow = self.flow_level > 0;
        let is_before_blank = chars.is_blank_or_end(1);
        match chars.at(0) {
            b'[' => self.fetch_flow_start(FlowSequenceStart),
            b'{' => self.fetch_flow_start(FlowMappingStart),
            b']' => self.fetch_flow_end(FlowSequenceEnd),
            b'}' => self.fetch_flow_end(FlowMappingEnd),
            b',' => self.fetch_flow_entry(),
            b'-' if is_before_blank => self.fetch_block_entry(),
            b'?' if is_flow || is_before_blank => self.fetch_key(),
            b':' if is_flow || is_before_blank => self.fetch_value(),
            b'*' => self.fetch_anchor(true),
            b'&' => self.fetch_anchor(false),
            b'!' => self.fetch_tag(),
            b'|' if !is_flow => self.fetch_block_scalar(true),
            b'>' if !is_flow => self.fetch_block_scalar(false),
            b'\'' => self.fetch_flow_scalar(true),
            b'"' => self.fetch_flow_scalar(false),
            b'-' | b'?' | b':' => self.fetch_plain_scalar(),
            b'#' | b'|' | b'>' | b'%' | b'@' | b'`' | b'\t' => {
                self.error("found character that cannot start any token")
            }
            _ => self.fetch_plain_scalar(),
        }
    }

    fn column(&self) -> isize {
        self.chars.mark.column as isize
    }

    /// A simple key ends on its line, within 1024 characters.
    fn is_simple_key_valid(&mut self, at: usize) -> Result<bool, Problem> {
        let mark = self.chars.mark;
        let Some(key) = self.simple_keys.get_mut(at).filter(|key| key.is_possible) else { return Ok(false) };
        if key.mark.line < mark.line || key.mark.index + 1024 < mark.index {
            if key.is_required {
                return self.error("could not find expected ':'");
            }
            key.is_possible = false;
            return Ok(false);
        }
        Ok(true)
    }

    fn save_simple_key(&mut self) -> Done {
        let is_required = self.flow_level == 0 && self.indent == self.column();
        if self.is_simple_key_allowed {
            let token_number = self.tokens_parsed + self.tokens.len();
            self.remove_simple_key()?;
            let last = self.simple_keys.len() - 1;
            self.simple_keys[last] = SimpleKey { is_possible: true, is_required, token_number, mark: self.chars.mark };
            self.simple_keys_by_token.insert(token_number, last);
        }
        Ok(())
    }

    fn remove_simple_key(&mut self) -> Done {
        let key = self.simple_keys.last_mut().expect("the stream has started");
        if key.is_possible {
            if key.is_required {
                return self.error("could not find expected ':'");
            }
            key.is_possible = false;
            self.simple_keys_by_token.remove(&key.token_number);
        }
        Ok(())
    }

    fn roll_indent(&mut self, column: isize, number: Option<usize>, kind: TokenKind, mark: Mark) -> Done {
        if self.flow_level > 0 || self.indent >= column {
            return Ok(());
        }
        self.indents.push(self.indent);
        self.indent = column;
        if self.indents.len() > MAX_DEPTH {
            return self.error(&format!("exceeded max depth of {MAX_DEPTH}"));
        }
        match number {
            Some(number) => self.insert(number, kind, mark),
            None => self.push(kind, mark, mark),
        }
        Ok(())
    }

    fn unroll_indent(&mut self, column: isize) {
        if self.flow_level > 0 {
            return;
        }
        while self.indent > column {
            self.push(TokenKind::BlockEnd, self.chars.mark, self.chars.mark);
            self.indent = self.indents.pop().expect("each indentation was pushed over another");
        }
    }

    fn fetch_stream_start(&mut self) -> Done {
        self.indent = -1;
        self.simple_keys.push(SimpleKey::default());
        self.is_simple_key_allowed = true;
        self.has_started = true;
        self.push(TokenKind::StreamStart, self.chars.mark, self.chars.mark);
        Ok(())
    }

    fn fetch_stream_end(&mut self) -> Done {
        if self.chars.mark.column != 0 {
            self.chars.mark.column = 0;
            self.chars.mark.line += 1;
        }
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.is_simple_key_allowed = false;
        self.push(TokenKind::StreamEnd, self.chars.mark, self.chars.mark);
        Ok(())
    }

    fn fetch_directive(&mut self) -> Done {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        let kind = self.scan_directive()?;
        self.push(kind, start, self.chars.mark);
        Ok(())
    }

    fn fetch_document_indicator(&mut self, kind: TokenKind) -> Done {
        self.unroll_indent(-1);
        self.remove_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        for _ in 0..3 {
            self.chars.skip();
        }
        self.push(kind, start, self.chars.mark);
        Ok(())
    }

    /// A token of one character.
    fn indicator(&mut self, kind: TokenKind) {
        let start = self.chars.mark;
        self.chars.skip();
        self.push(kind, start, self.chars.mark);
    }

    fn fetch_flow_start(&mut self, kind: TokenKind) -> Done {
        self.save_simple_key()?;
        self.simple_keys.push(SimpleKey {
            token_number: self.tokens_parsed + self.tokens.len(),
            mark: self.chars.mark,
            ..SimpleKey::default()
        });
        self.flow_level += 1;
        if self.flow_level > MAX_DEPTH {
            return self.error(&format!("exceeded max depth of {MAX_DEPTH}"));
        }
        self.is_simple_key_allowed = true;
        self.indicator(kind);
        Ok(())
    }

    fn fetch_flow_end(&mut self, kind: TokenKind) -> Done {
        self.remove_simple_key()?;
        if self.flow_level > 0 {
            self.flow_level -= 1;
            let last = self.simple_keys.pop().expect("there is one for each flow level");
            self.simple_keys_by_token.remove(&last.token_number);
        }
        self.is_simple_key_allowed = false;
        self.indicator(kind);
        Ok(())
    }

    fn fetch_flow_entry(&mut self) -> Done {
        self.remove_simple_key()?;
        self.is_simple_key_allowed = true;
        self.indicator(TokenKind::FlowEntry);
        Ok(())
    }

    fn fetch_block_entry(&mut self) -> Done {
        if self.flow_level == 0 {
            if !self.is_simple_key_allowed {
                return self.error("block sequence entries are not allowed in this context");
            }
            self.roll_indent(self.column(), None, TokenKind::BlockSequenceStart, self.chars.mark)?;
        }
        // Within a flow collection, the parser reports the error.
        self.remove_simple_key()?;
        self.is_simple_key_allowed = true;
        self.indicator(TokenKind::BlockEntry);
        Ok(())
    }

    fn fetch_key(&mut self) -> Done {
        if self.flow_level == 0 {
            if !self.is_simple_key_allowed {
                return self.error("mapping keys are not allowed in this context");
            }
            self.roll_indent(self.column(), None, TokenKind::BlockMappingStart, self.chars.mark)?;
        }
        self.remove_simple_key()?;
        self.is_simple_key_allowed = self.flow_level == 0;
        self.indicator(TokenKind::Key);
        Ok(())
    }

    fn fetch_value(&mut self) -> Done {
        let last = self.simple_keys.len() - 1;
        if self.is_simple_key_valid(last)? {
            let key = self.simple_keys[last];
            self.insert(key.token_number, TokenKind::Key, key.mark);
            let column = key.mark.column as isize;
            self.roll_indent(column, Some(key.token_number), TokenKind::BlockMappingStart, key.mark)?;
            self.simple_keys[last].is_possible = false;
            self.simple_keys_by_token.remove(&key.token_number);
            self.is_simple_key_allowed = false;
        } else {
            if self.flow_level == 0 {
                if !self.is_simple_key_allowed {
                    return self.error("mapping values are not allowed in this context");
                }
                self.roll_indent(self.column(), None, TokenKind::BlockMappingStart, self.chars.mark)?;
            }
            self.is_simple_key_allowed = self.flow_level == 0;
        }
        self.indicator(TokenKind::Value);
        Ok(())
    }

    fn fetch_anchor(&mut self, is_alias: bool) -> Done {
        self.save_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        self.chars.skip();
        let name = self.scan_word()?;
        let is_ended = self.chars.is_blank_or_end(0)
            || matches!(self.chars.at(0), b'?' | b':' | b',' | b']' | b'}' | b'%' | b'@' | b'`');
        if name.is_empty() || !is_ended {
            return self.error("did not find expected alphabetic or numeric character");
        }
        let kind = if is_alias { TokenKind::Alias(name) } else { TokenKind::Anchor(name) };
        self.push(kind, start, self.chars.mark);
        Ok(())
    }

    fn fetch_tag(&mut self) -> Done {
        self.save_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        let kind = self.scan_tag()?;
        self.push(kind, start, self.chars.mark);
        Ok(())
    }

    fn fetch_block_scalar(&mut self, is_literal: bool) -> Done {
        let style = if is_literal { Style::Literal } else { Style::Folded };
        self.remove_simple_key()?;
        self.is_simple_key_allowed = true;
        let start = self.chars.mark;
        let (value, end) = self.scan_block_scalar(is_literal)?;
        self.push(TokenKind::Scalar { value, style }, start, end);
        Ok(())
    }

    fn fetch_flow_scalar(&mut self, is_single: bool) -> Done {
        let style = if is_single { Style::SingleQuoted } else { Style::DoubleQuoted };
        self.save_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        let value = self.scan_flow_scalar(is_single)?;
        self.push(TokenKind::Scalar { value, style }, start, self.chars.mark);
        Ok(())
    }

    fn fetch_plain_scalar(&mut self) -> Done {
        self.save_simple_key()?;
        self.is_simple_key_allowed = false;
        let start = self.chars.mark;
        let (value, end) = self.scan_plain_scalar()?;
        self.push(TokenKind::Scalar { value, style: Style::Plain }, start, end);
        Ok(())
    }

    fn scan_to_next_token(&mut self) -> Done {
        loop {
            self.chars.need(1)?;
            if self.chars.mark.column == 0 && self.chars.is_bom() {
                self.chars.skip();
            }
            self.chars.need(1)?;
            // A tab does not indent.
            while self.chars.at(0) == b' '
                || (self.chars.at(0) == b'\t' && (self.flow_level > 0 || !self.is_simple_key_allowed))
            {
                self.chars.skip();
                self.chars.need(1)?;
            }
            self.skip_comment()?;
            if !self.chars.is_break(0) {
                return Ok(());
            }
            self.chars.need(2)?;
            self.chars.skip_line();
            if self.flow_level == 0 {
                self.is_simple_key_allowed = true;
            }
        }
    }

    fn skip_blanks(&mut self) -> Done {
        self.chars.need(1)?;
        while self.chars.is_blank(0) {
            self.chars.skip();
            self.chars.need(1)?;
        }
        Ok(())
    }

    fn skip_comment(&mut self) -> Done {
        if self.chars.at(0) == b'#' {
            while !self.chars.is_break_or_end(0) {
                self.chars.skip();
                self.chars.need(1)?;
            }
        }
        Ok(())
    }

    /// Skips blanks and a comment up to the line break, which is required.
    fn skip_rest_of_line(&mut self) -> Done {
        self.skip_blanks()?;
        self.skip_comment()?;
        if !self.chars.is_break_or_end(0) {
            return self.error("did not find expected comment or line break");
        }
        if self.chars.is_break(0) {
            self.chars.need(2)?;
            self.chars.skip_line();
        }
        Ok(())
    }

    fn scan_word(&mut self) -> Result<Vec<u8>, Problem> {
        let mut word = Vec::new();
        self.chars.need(1)?;
        while self.chars.is_word() {
            self.chars.read(&mut word);
            self.chars.need(1)?;
        }
        Ok(word)
    }

    fn scan_directive(&mut self) -> Result<TokenKind, Problem> {
        self.chars.skip();
        let name = self.scan_word()?;
        if name.is_empty() {
            return self.error("could not find expected directive name");
        }
        if !self.chars.is_blank_or_end(0) {
            return self.error("found unexpected non-alphabetical character");
        }
        let kind = match name.as_slice() {
            b"YAML" => {
                self.skip_blanks()?;
                let major = self.scan_version_number()?;
                if self.chars.at(0) != b'.' {
                    return self.error("did not find expected digit or '.' character");
                }
                self.chars.skip();
                TokenKind::VersionDirective { major, minor: self.scan_version_number()? }
            }
            b"TAG" => {
                self.skip_blanks()?;
                let handle = self.scan_tag_handle(true)?;
                self.chars.need(1)?;
                if !self.chars.is_blank(0) {
                    return self.error("did not find expected whitespace");
                }
                self.skip_blanks()?;
                let prefix = self.scan_tag_uri(&[])?;
                self.chars.need(1)?;
                if !self.chars.is_blank_or_end(0) {
                    return self.error("did not find expected whitespace or line break");
                }
                TokenKind::TagDirective { handle, prefix }
            }
            _ => return self.error("found unknown directive name"),
        };
        self.skip_rest_of_line()?;
        Ok(kind)
    }

    fn scan_version_number(&mut self) -> Result<u8, Problem> {
        self.chars.need(1)?;
        let (mut value, mut length) = (0, 0);
        while self.chars.at(0).is_ascii_digit() {
            length += 1;
            if length > 2 {
                return self.error("found extremely long version number");
            }
            value = value * 10 + (self.chars.at(0) - b'0');
            self.chars.skip();
            self.chars.need(1)?;
        }
        if length == 0 {
            return self.error("did not find expected version number");
        }
        Ok(value)
    }

    fn scan_tag(&mut self) -> Result<TokenKind, Problem> {
        let (handle, suffix);
        self.chars.need(2)?;
        if self.chars.at(1) == b'<' {
            self.chars.skip();
            self.chars.skip();
            handle = Vec::new();
            suffix = self.scan_tag_uri(&[])?;
            if self.chars.at(0) != b'>' {
                return self.error("did not find the expected '>'");
            }
            self.chars.skip();
        } else {
            let found = self.scan_tag_handle(false)?;
            if found.len() > 1 && found.ends_with(b"!") {
                suffix = self.scan_tag_uri(&[])?;
                handle = found;
            } else {
                let rest = self.scan_tag_uri(&found)?;
                // The tag "!" alone.
                (handle, suffix) = if rest.is_empty() { (rest, b"!".to_vec()) } else { (b"!".to_vec(), rest) };
            }
        }
        self.chars.need(1)?;
        if !self.chars.is_blank_or_end(0) {
            return self.error("did not find expected whitespace or line break");
        }
        Ok(TokenKind::Tag { handle, suffix })
    }

    fn scan_tag_handle(&mut self, is_directive: bool) -> Result<Vec<u8>, Problem> {
        self.chars.need(1)?;
        if self.chars.at(0) != b'!' {
            return self.error("did not find expected '!'");
        }
        let mut handle = Vec::new();
        self.chars.read(&mut handle);
        handle.extend(self.scan_word()?);
        if self.chars.at(0) == b'!' {
            self.chars.read(&mut handle);
        } else if is_directive && handle != b"!" {
            return self.error("did not find expected '!'");
        }
        Ok(handle)
    }

    fn scan_tag_uri(&mut self, head: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut uri = head.get(1..).unwrap_or_default().to_vec();
        let mut is_found = !head.is_empty();
        self.chars.need(1)?;
        while self.chars.is_word() || b";/?:@&=+$,.!~*'()[]%".contains(&self.chars.at(0)) {
            if self.chars.at(0) == b'%' {
                self.scan_uri_escapes(&mut uri)?;
            } else {
                self.chars.read(&mut uri);
            }
            self.chars.need(1)?;
            is_found = true;
        }
        if !is_found {
            return self.error("did not find expected tag URI");
        }
        Ok(uri)
    }

    /// One character as `%E2%82%AC`.
    fn scan_uri_escapes(&mut self, uri: &mut Vec<u8>) -> Done {
        let mut left = None;
        while left != Some(0) {
            self.chars.need(3)?;
            let (high, low) = (hex(self.chars.at(1)), hex(self.chars.at(2)));
            let (b'%', Some(high), Some(low)) = (self.chars.at(0), high, low) else {
                return self.error("did not find URI escaped octet");
            };
            let octet = (high << 4 | low) as u8;
            let count = match left {
                None => match width(octet) {
                    0 => return self.error("found an incorrect leading UTF-8 octet"),
                    width => width,
                },
                Some(_) if octet & 0xc0 != 0x80 => {
                    return self.error("found an incorrect trailing UTF-8 octet");
                }
                Some(left) => left,
            };
            uri.push(octet);
            for _ in 0..3 {
                self.chars.skip();
            }
            left = Some(count - 1);
        }
        Ok(())
    }

    fn scan_block_scalar(&mut self, is_literal: bool) -> Result<(Vec<u8>, Mark), Problem> {
        #[derive(PartialEq)]
        enum Chomping {
            Strip,
            Clip,
            Keep,
        }
        self.chars.skip();
        self.chars.need(1)?;
        let mut chomping = Chomping::Clip;
        let mut increment = 0;
        // Two indicators in any order, each at most once.
        for _ in 0..2 {
            match self.chars.at(0) {
                sign @ (b'+' | b'-') if chomping == Chomping::Clip => {
                    chomping = if sign == b'+' { Chomping::Keep } else { Chomping::Strip };
                }
                b'0' if increment == 0 => return self.error("found an indentation indicator equal to 0"),
                digit @ b'1'..=b'9' if increment == 0 => increment = isize::from(digit - b'0'),
                _ => break,
            }
            self.chars.skip();
            self.chars.need(1)?;
        }
        self.skip_rest_of_line()?;
        let mut end = self.chars.mark;
        let mut indent = if increment > 0 { self.indent.max(0) + increment } else { 0 };
        let (mut text, mut leading, mut trailing) = (Vec::new(), Vec::new(), Vec::new());
        self.scan_block_scalar_breaks(&mut indent, &mut trailing, &mut end)?;
        self.chars.need(1)?;
        let mut is_leading_blank = false;
        while self.column() == indent && self.chars.at(0) != 0 {
            let is_blank = self.chars.is_blank(0);
            if !is_literal && !is_leading_blank && !is_blank && leading.first() == Some(&b'\n') {
                if trailing.is_empty() {
                    text.push(b' ');
                }
                leading.clear();
            } else {
                text.append(&mut leading);
            }
            text.append(&mut trailing);
            is_leading_blank = is_blank;
            while !self.chars.is_break_or_end(0) {
                self.chars.read(&mut text);
                self.chars.need(1)?;
            }
            self.chars.need(2)?;
            self.chars.read_line(&mut leading);
            self.scan_block_scalar_breaks(&mut indent, &mut trailing, &mut end)?;
        }
        if chomping != Chomping::Strip {
            text.append(&mut leading);
        }
        if chomping == Chomping::Keep {
            text.append(&mut trailing);
        }
        Ok((text, end))
    }

    fn scan_block_scalar_breaks(&mut self, indent: &mut isize, breaks: &mut Vec<u8>, end: &mut Mark) -> Done {
        *end = self.chars.mark;
        let mut max_indent = 0;
        loop {
            self.chars.need(1)?;
            while (*indent == 0 || self.column() < *indent) && self.chars.at(0) == b' ' {
                self.chars.skip();
                self.chars.need(1)?;
            }
            max_indent = max_indent.max(self.column());
            if (*indent == 0 || self.column() < *indent) && self.chars.at(0) == b'\t' {
                return self.error("found a tab character where an indentation space is expected");
            }
            if !self.chars.is_break(0) {
                break;
            }
            self.chars.need(2)?;
            self.chars.read_line(breaks);
            *end = self.chars.mark;
        }
        if *indent == 0 {
            *indent = max_indent.max(self.indent + 1).max(1);
        }
        Ok(())
    }

    fn scan_flow_scalar(&mut self, is_single: bool) -> Result<Vec<u8>, Problem> {
        let quote = if is_single { b'\'' } else { b'"' };
        self.chars.skip();
        let (mut text, mut gap) = (Vec::new(), Gap::default());
        loop {
            self.chars.need(4)?;
            if self.chars.is_document_indicator() {
                return self.error("found unexpected document indicator");
            }
            if self.chars.at(0) == 0 {
                return self.error("found unexpected end of stream");
            }
            while !self.chars.is_blank_or_end(0) {
                match self.chars.at(0) {
                    b'\'' if is_single && self.chars.at(1) == b'\'' => {
                        text.push(b'\'');
                        self.chars.skip();
                        self.chars.skip();
                    }
                    c if c == quote => break,
                    b'\\' if !is_single && self.chars.is_break(1) => {
                        self.chars.need(3)?;
                        self.chars.skip();
                        self.chars.skip_line();
                        gap.has_break = true;
                        break;
                    }
                    b'\\' if !is_single => self.scan_escape(&mut text)?,
                    _ => self.chars.read(&mut text),
                }
                self.chars.need(2)?;
            }
            self.chars.need(1)?;
            if self.chars.at(0) == quote {
                break;
            }
            self.scan_gap(&mut gap, 0)?;
            gap.close(&mut text);
        }
        self.chars.skip();
        Ok(text)
    }

    fn scan_escape(&mut self, text: &mut Vec<u8>) -> Done {
        let mut length = 0;
        match self.chars.at(1) {
            b'0' => text.push(0),
            b'a' => text.push(7),
            b'b' => text.push(8),
            b't' | b'\t' => text.push(b'\t'),
            b'n' => text.push(b'\n'),
            b'v' => text.push(0x0b),
            b'f' => text.push(0x0c),
            b'r' => text.push(b'\r'),
            b'e' => text.push(0x1b),
            c @ (b' ' | b'"' | b'\'' | b'\\') => text.push(c),
            b'N' => text.extend("\u{85}".bytes()),
            b'_' => text.extend("\u{a0}".bytes()),
            b'L' => text.extend("\u{2028}".bytes()),
            b'P' => text.extend("\u{2029}".bytes()),
            b'x' => length = 2,
            b'u' => length = 4,
            b'U' => length = 8,
            _ => return self.error("found unknown escape character"),
        }
        self.chars.skip();
        self.chars.skip();
        if length == 0 {
            return Ok(());
        }
        self.chars.need(length)?;
        let mut value = 0;
        for k in 0..length {
            let Some(digit) = hex(self.chars.at(k)) else {
                return self.error("did not find expected hexdecimal number");
            };
            value = value << 4 | digit;
        }
        let Some(c) = char::from_u32(value) else {
            return self.error("found invalid Unicode character escape code");
        };
        text.extend(c.encode_utf8(&mut [0; 4]).bytes());
        for _ in 0..length {
            self.chars.skip();
        }
        Ok(())
    }

    fn scan_plain_scalar(&mut self) -> Result<(Vec<u8>, Mark), Problem> {
        let (mut text, mut gap) = (Vec::new(), Gap::default());
        let indent = self.indent + 1;
        let mut end = self.chars.mark;
        loop {
            self.chars.need(4)?;
            if self.chars.is_document_indicator() || self.chars.at(0) == b'#' {
                break;
            }
            while !self.chars.is_blank_or_end(0) {
                let is_ended = (self.chars.at(0) == b':' && self.chars.is_blank_or_end(1))
                    || (self.flow_level > 0 && matches!(self.chars.at(0), b',' | b'?' | b'[' | b']' | b'{' | b'}'));
                if is_ended {
                    break;
                }
                gap.close(&mut text);
                self.chars.read(&mut text);
                end = self.chars.mark;
                self.chars.need(2)?;
            }
            if !(self.chars.is_blank(0) || self.chars.is_break(0)) {
                break;
            }
            self.chars.need(1)?;
            self.scan_gap(&mut gap, indent)?;
            if self.flow_level == 0 && self.column() < indent {
                break;
            }
        }
        if gap.has_break {
            self.is_simple_key_allowed = true;
        }
        Ok((text, end))
    }

    /// Reads blanks and line breaks within a scalar. On a new line, no tab is allowed before the column `indent`.
    fn scan_gap(&mut self, gap: &mut Gap, indent: isize) -> Done {
        while self.chars.is_blank(0) || self.chars.is_break(0) {
            if self.chars.is_break(0) {
                self.chars.need(2)?;
                if gap.has_break {
                    self.chars.read_line(&mut gap.trailing);
                } else {
                    gap.blanks.clear();
                    self.chars.read_line(&mut gap.leading);
                    gap.has_break = true;
                }
            } else if !gap.has_break {
                self.chars.read(&mut gap.blanks);
            } else if self.column() < indent && self.chars.at(0) == b'\t' {
                return self.error("found a tab character that violates indentation");
            } else {
                self.chars.skip();
            }
            self.chars.need(1)?;
        }
        Ok(())
    }
}

/// The gap between two words of a scalar.
#[derive(Default)]
struct Gap {
    /// Without a line break.
    blanks: Vec<u8>,
    has_break: bool,
    /// The first line break; empty if it was escaped.
    leading: Vec<u8>,
    trailing: Vec<u8>,
}

impl Gap {
    /// Appends the folded gap to the text: the first line break becomes a blank, further ones stay.
    fn close(&mut self, text: &mut Vec<u8>) {
        let Self { blanks, has_break, leading, trailing } = std::mem::take(self);
        if !has_break {
            text.extend(blanks);
        } else if leading.first() != Some(&b'\n') {
            text.extend(leading);
        } else if trailing.is_empty() {
            text.push(b' ');
        }
        text.extend(trailing);
    }
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}
