//! Turns tokens into events, as the Go port of libyaml's parser does (go.yaml.in/yaml/v2@v2.4.3 parserc.go).

use super::scan::{Scanner, Token, TokenKind};
use super::{Mark, Problem, Style};

#[derive(Debug, PartialEq)]
pub(super) enum EventKind {
    StreamStart,
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    Alias(Vec<u8>),
    /// `is_implicit`: plain and without a tag, or with the tag `!`.
    Scalar {
        anchor: Option<Vec<u8>>,
        tag: Vec<u8>,
        value: Vec<u8>,
        is_implicit: bool,
        style: Style,
    },
    SequenceStart {
        anchor: Option<Vec<u8>>,
        has_tag: bool,
        is_flow: bool,
    },
    SequenceEnd,
    MappingStart {
        anchor: Option<Vec<u8>>,
        has_tag: bool,
        is_flow: bool,
    },
    MappingEnd,
}

#[derive(Debug)]
pub(super) struct Event {
    pub kind: EventKind,
    pub start: Mark,
    /// End of the text; for the start of a collection, its start.
    pub end: Mark,
}

#[derive(Clone, Copy)]
enum State {
    StreamStart,
    ImplicitDocumentStart,
    DocumentContent,
    DocumentEnd,
    BlockNode,
    BlockSequenceFirstEntry,
    BlockSequenceEntry,
    IndentlessSequenceEntry,
    BlockMappingFirstKey,
    BlockMappingKey,
    BlockMappingValue,
    FlowSequenceFirstEntry,
    FlowSequenceEntry,
    FlowSequenceEntryMappingKey,
    FlowSequenceEntryMappingValue,
    FlowSequenceEntryMappingEnd,
    FlowMappingFirstKey,
    FlowMappingKey,
    FlowMappingValue,
    FlowMappingEmptyValue,
}

pub(super) struct Parser<'a> {
    scanner: Scanner<'a>,
    state: State,
    states: Vec<State>,
    tag_directives: Vec<(Vec<u8>, Vec<u8>)>,
}

type Parsed = Result<Event, Problem>;

fn event(kind: EventKind, start: Mark) -> Parsed {
    event_to(kind, start, start)
}

fn event_to(kind: EventKind, start: Mark, end: Mark) -> Parsed {
    Ok(Event { kind, start, end })
}

fn empty_scalar(mark: Mark) -> Parsed {
    let (value, style) = (Vec::new(), Style::Plain);
    event(EventKind::Scalar { anchor: None, tag: Vec::new(), value, is_implicit: true, style }, mark)
}

fn error<T>(message: &str, mark: Mark) -> Result<T, Problem> {
    Err(Problem { mark, message: message.to_string() })
}

impl<'a> Parser<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { scanner: Scanner::new(text), state: State::StreamStart, states: Vec::new(), tag_directives: Vec::new() }
    }

    /// The next event, up to the end of the first document.
    pub fn next(&mut self) -> Parsed {
        match self.state {
            State::StreamStart => self.stream_start(),
            State::ImplicitDocumentStart => self.document_start(),
            State::DocumentContent => self.document_content(),
            State::DocumentEnd => self.document_end(),
            State::BlockNode => self.node(true, false),
            State::BlockSequenceFirstEntry => self.block_sequence_entry(true),
            State::BlockSequenceEntry => self.block_sequence_entry(false),
            State::IndentlessSequenceEntry => self.indentless_sequence_entry(),
            State::BlockMappingFirstKey => self.block_mapping_key(true),
            State::BlockMappingKey => self.block_mapping_key(false),
            State::BlockMappingValue => self.block_mapping_value(),
            State::FlowSequenceFirstEntry => self.flow_sequence_entry(true),
            State::FlowSequenceEntry => self.flow_sequence_entry(false),
            State::FlowSequenceEntryMappingKey => self.flow_sequence_entry_mapping_key(),
            State::FlowSequenceEntryMappingValue => self.flow_sequence_entry_mapping_value(),
            State::FlowSequenceEntryMappingEnd => {
                let mark = self.scanner.peek()?.start;
                self.state = State::FlowSequenceEntry;
                event(EventKind::MappingEnd, mark)
            }
            State::FlowMappingFirstKey => self.flow_mapping_key(true),
            State::FlowMappingKey => self.flow_mapping_key(false),
            State::FlowMappingValue => self.flow_mapping_value(false),
            State::FlowMappingEmptyValue => self.flow_mapping_value(true),
        }
    }

    /// Start of further text after the first document, valid or not. Separators alone do not count.
    pub fn rest(&mut self) -> Option<Mark> {
        let mut separator = None;
        let mark = loop {
            match self.scanner.peek() {
                Ok(Token { kind: TokenKind::DocumentEnd, .. }) => self.scanner.skip_token(),
                Ok(Token { kind: TokenKind::DocumentStart, start, .. }) => {
                    separator.get_or_insert(*start);
                    self.scanner.skip_token();
                }
                Ok(Token { kind: TokenKind::StreamEnd, .. }) => return None,
                Ok(token) => break token.start,
                Err(problem) => break problem.mark,
            }
        };
        Some(separator.unwrap_or(mark))
    }

    fn take(&mut self) -> Result<Token, Problem> {
        let token = self.scanner.peek()?.clone();
        self.scanner.skip_token();
        Ok(token)
    }

    fn back(&mut self) {
        self.state = self.states.pop().expect("each state that ends was entered from another");
    }

    fn stream_start(&mut self) -> Parsed {
        let token = self.take()?;
        self.state = State::ImplicitDocumentStart;
        event(EventKind::StreamStart, token.start)
    }

    fn document_start(&mut self) -> Parsed {
        use TokenKind::{DocumentStart, StreamEnd, TagDirective, VersionDirective};
        let Token { kind, start, .. } = self.scanner.peek()?.clone();
        match kind {
            StreamEnd => {
                self.scanner.skip_token();
                event(EventKind::StreamEnd, start)
            }
            VersionDirective { .. } | TagDirective { .. } | DocumentStart => self.explicit_document(start),
            _ => {
                self.process_directives()?;
                self.states.push(State::DocumentEnd);
                self.state = State::BlockNode;
                event(EventKind::DocumentStart, start)
            }
        }
    }

    fn explicit_document(&mut self, start: Mark) -> Parsed {
        self.process_directives()?;
        let token = self.scanner.peek()?;
        if token.kind != TokenKind::DocumentStart {
            return error("did not find expected <document start>", token.start);
        }
        self.scanner.skip_token();
        self.states.push(State::DocumentEnd);
        self.state = State::DocumentContent;
        event(EventKind::DocumentStart, start)
    }

    fn document_content(&mut self) -> Parsed {
        use TokenKind::{DocumentEnd, DocumentStart, StreamEnd, TagDirective, VersionDirective};
        let Token { kind, start, .. } = self.scanner.peek()?;
        let start = *start;
        if matches!(kind, VersionDirective { .. } | TagDirective { .. } | DocumentStart | DocumentEnd | StreamEnd) {
            self.back();
            return empty_scalar(start);
        }
        self.node(true, false)
    }

    fn document_end(&mut self) -> Parsed {
        let Token { kind, start, .. } = self.scanner.peek()?;
        let (start, is_explicit) = (*start, *kind == TokenKind::DocumentEnd);
        if is_explicit {
            self.scanner.skip_token();
        }
        event(EventKind::DocumentEnd, start)
    }

    fn process_directives(&mut self) -> Result<(), Problem> {
        let mut has_version = false;
        loop {
            let Token { kind, start, .. } = self.scanner.peek()?.clone();
            match kind {
                TokenKind::VersionDirective { .. } if has_version => {
                    return error("found duplicate %YAML directive", start);
                }
                TokenKind::VersionDirective { major: 1, minor: 1 } => has_version = true,
                TokenKind::VersionDirective { .. } => return error("found incompatible YAML document", start),
                TokenKind::TagDirective { handle, prefix } => {
                    if self.tag_directives.iter().any(|(known, _)| *known == handle) {
                        return error("found duplicate %TAG directive", start);
                    }
                    self.tag_directives.push((handle, prefix));
                }
                _ => break,
            }
            self.scanner.skip_token();
        }
        for (handle, prefix) in [("!", "!"), ("!!", "tag:yaml.org,2002:")] {
            if !self.tag_directives.iter().any(|(known, _)| known == handle.as_bytes()) {
                self.tag_directives.push((handle.into(), prefix.into()));
            }
        }
        Ok(())
    }

    fn node(&mut self, is_block: bool, may_be_indentless: bool) -> Parsed {
        let mut token = self.scanner.peek()?.clone();
        let start = token.start;
        if let TokenKind::Alias(name) = token.kind {
            self.scanner.skip_token();
            self.back();
            return event_to(EventKind::Alias(name), start, token.end);
        }
        let (mut anchor, mut tag_token) = (None, None);
        // Anchor and tag, each at most once, in any order.
        loop {
            match token.kind {
                TokenKind::Anchor(name) if anchor.is_none() => anchor = Some(name),
                TokenKind::Tag { handle, suffix } if tag_token.is_none() => {
                    tag_token = Some((handle, suffix, token.start));
                }
                _ => break,
            }
            self.scanner.skip_token();
            token = self.scanner.peek()?.clone();
        }
        // The loop has consumed the kind.
        let token = self.scanner.peek()?.clone();
        let (mut tag, has_tag) = (Vec::new(), tag_token.is_some());
        if let Some((handle, suffix, mark)) = tag_token {
            if handle.is_empty() {
                tag = suffix;
            } else {
                if let Some((_, prefix)) = self.tag_directives.iter().find(|(known, _)| *known == handle) {
                    tag = [prefix.as_slice(), &suffix].concat();
                }
                if tag.is_empty() {
                    return error("found undefined tag handle", mark);
                }
            }
        }
        match token.kind {
            TokenKind::BlockEntry if may_be_indentless => {
                self.state = State::IndentlessSequenceEntry;
                event(EventKind::SequenceStart { anchor, has_tag, is_flow: false }, start)
            }
            TokenKind::Scalar { value, style } => {
                self.scanner.skip_token();
                self.back();
                let is_implicit = (tag.is_empty() && style == Style::Plain) || tag == b"!";
                event_to(EventKind::Scalar { anchor, tag, value, is_implicit, style }, start, token.end)
            }
            TokenKind::FlowSequenceStart => {
                self.state = State::FlowSequenceFirstEntry;
                event(EventKind::SequenceStart { anchor, has_tag, is_flow: true }, start)
            }
            TokenKind::FlowMappingStart => {
                self.state = State::FlowMappingFirstKey;
                event(EventKind::MappingStart { anchor, has_tag, is_flow: true }, start)
            }
            TokenKind::BlockSequenceStart if is_block => {
                self.state = State::BlockSequenceFirstEntry;
                event(EventKind::SequenceStart { anchor, has_tag, is_flow: false }, start)
            }
            TokenKind::BlockMappingStart if is_block => {
                self.state = State::BlockMappingFirstKey;
                event(EventKind::MappingStart { anchor, has_tag, is_flow: false }, start)
            }
            _ if anchor.is_some() || !tag.is_empty() => {
                self.back();
                let is_implicit = tag.is_empty();
                let (value, style) = (Vec::new(), Style::Plain);
                event(EventKind::Scalar { anchor, tag, value, is_implicit, style }, start)
            }
            _ => error("did not find expected node content", token.start),
        }
    }

    fn block_sequence_entry(&mut self, is_first: bool) -> Parsed {
        use TokenKind::{BlockEnd, BlockEntry};
        if is_first {
            self.take()?;
        }
        let Token { kind, start, end } = self.scanner.peek()?.clone();
        match kind {
            BlockEntry => {
                self.scanner.skip_token();
                if matches!(self.scanner.peek()?.kind, BlockEntry | BlockEnd) {
                    self.state = State::BlockSequenceEntry;
                    return empty_scalar(end);
                }
                self.states.push(State::BlockSequenceEntry);
                self.node(true, false)
            }
            BlockEnd => {
                self.scanner.skip_token();
                self.back();
                event(EventKind::SequenceEnd, start)
            }
            _ => error("did not find expected '-' indicator", start),
        }
    }

    fn indentless_sequence_entry(&mut self) -> Parsed {
        use TokenKind::{BlockEnd, BlockEntry, Key, Value};
        let Token { kind, start, end } = self.scanner.peek()?.clone();
        if kind != BlockEntry {
            self.back();
            return event(EventKind::SequenceEnd, start);
        }
        self.scanner.skip_token();
        if matches!(self.scanner.peek()?.kind, BlockEntry | Key | Value | BlockEnd) {
            self.state = State::IndentlessSequenceEntry;
            return empty_scalar(end);
        }
        self.states.push(State::IndentlessSequenceEntry);
        self.node(true, false)
    }

    fn block_mapping_key(&mut self, is_first: bool) -> Parsed {
        use TokenKind::{BlockEnd, Key, Value};
        if is_first {
            self.take()?;
        }
        let Token { kind, start, end } = self.scanner.peek()?.clone();
        match kind {
            Key => {
                self.scanner.skip_token();
                if matches!(self.scanner.peek()?.kind, Key | Value | BlockEnd) {
                    self.state = State::BlockMappingValue;
                    return empty_scalar(end);
                }
                self.states.push(State::BlockMappingValue);
                self.node(true, true)
            }
            BlockEnd => {
                self.scanner.skip_token();
                self.back();
                event(EventKind::MappingEnd, start)
            }
            _ => error("did not find expected key", start),
        }
    }

    fn block_mapping_value(&mut self) -> Parsed {
        use TokenKind::{BlockEnd, Key, Value};
        let Token { kind, start, end } = self.scanner.peek()?.clone();
        if kind != Value {
            self.state = State::BlockMappingKey;
            return empty_scalar(start);
        }
        self.scanner.skip_token();
        if matches!(self.scanner.peek()?.kind, Key | Value | BlockEnd) {
            self.state = State::BlockMappingKey;
            return empty_scalar(end);
        }
        self.states.push(State::BlockMappingKey);
        self.node(true, true)
    }

    fn flow_sequence_entry(&mut self, is_first: bool) -> Parsed {
        use TokenKind::{FlowEntry, FlowSequenceEnd, Key};
        if is_first {
            self.take()?;
        }
        let mut token = self.scanner.peek()?.clone();
        if token.kind != FlowSequenceEnd {
            if !is_first {
                if token.kind != FlowEntry {
                    return error("did not find expected ',' or ']'", token.start);
                }
                self.scanner.skip_token();
                token = self.scanner.peek()?.clone();
            }
            if token.kind == Key {
                self.scanner.skip_token();
                self.state = State::FlowSequenceEntryMappingKey;
                let kind = EventKind::MappingStart { anchor: None, has_tag: false, is_flow: true };
                return event(kind, token.start);
            }
            if token.kind != FlowSequenceEnd {
                self.states.push(State::FlowSequenceEntry);
                return self.node(false, false);
            }
        }
        self.scanner.skip_token();
        self.back();
        event_to(EventKind::SequenceEnd, token.start, token.end)
    }

    fn flow_sequence_entry_mapping_key(&mut self) -> Parsed {
        use TokenKind::{FlowEntry, FlowSequenceEnd, Value};
        let token = self.scanner.peek()?;
        if !matches!(token.kind, Value | FlowEntry | FlowSequenceEnd) {
            self.states.push(State::FlowSequenceEntryMappingValue);
            return self.node(false, false);
        }
        // Upstream consumes the token, even the colon of `[? : x]` (parserc.go#L814-L818).
        let mark = token.end;
        self.scanner.skip_token();
        self.state = State::FlowSequenceEntryMappingValue;
        empty_scalar(mark)
    }

    fn flow_sequence_entry_mapping_value(&mut self) -> Parsed {
        use TokenKind::{FlowEntry, FlowSequenceEnd, Value};
        let Token { kind, start, .. } = self.scanner.peek()?.clone();
        if kind == Value {
            self.scanner.skip_token();
            if !matches!(self.scanner.peek()?.kind, FlowEntry | FlowSequenceEnd) {
                self.states.push(State::FlowSequenceEntryMappingEnd);
                return self.node(false, false);
            }
        }
        self.state = State::FlowSequenceEntryMappingEnd;
        empty_scalar(start)
    }

    fn flow_mapping_key(&mut self, is_first: bool) -> Parsed {
        use TokenKind::{FlowEntry, FlowMappingEnd, Key, Value};
        if is_first {
            self.take()?;
        }
        let mut token = self.scanner.peek()?.clone();
        if token.kind != FlowMappingEnd {
            if !is_first {
                if token.kind != FlowEntry {
                    return error("did not find expected ',' or '}'", token.start);
                }
                self.scanner.skip_token();
                token = self.scanner.peek()?.clone();
            }
            if token.kind == Key {
                self.scanner.skip_token();
                token = self.scanner.peek()?.clone();
                if matches!(token.kind, Value | FlowEntry | FlowMappingEnd) {
                    self.state = State::FlowMappingValue;
                    return empty_scalar(token.start);
                }
                self.states.push(State::FlowMappingValue);
                return self.node(false, false);
            }
            if token.kind != FlowMappingEnd {
                self.states.push(State::FlowMappingEmptyValue);
                return self.node(false, false);
            }
        }
        self.scanner.skip_token();
        self.back();
        event_to(EventKind::MappingEnd, token.start, token.end)
    }

    fn flow_mapping_value(&mut self, is_empty: bool) -> Parsed {
        use TokenKind::{FlowEntry, FlowMappingEnd, Value};
        let mut token = self.scanner.peek()?.clone();
        if !is_empty && token.kind == Value {
            self.scanner.skip_token();
            token = self.scanner.peek()?.clone();
            if !matches!(token.kind, FlowEntry | FlowMappingEnd) {
                self.states.push(State::FlowMappingKey);
                return self.node(false, false);
            }
        }
        self.state = State::FlowMappingKey;
        empty_scalar(token.start)
    }
}
