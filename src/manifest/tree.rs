//! The manifest as a tree of nodes, each with its place in the text.

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::Error;

/// Deeper than any pod; a tree is walked recursively.
const MAX_DEPTH: usize = 64;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Byte offsets. A block collection ends where its last child ends.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Scalar { value: String, style: ScalarStyle },
    Sequence { items: Vec<Node>, is_flow: bool },
    Mapping { entries: Vec<(Node, Node)>, is_flow: bool },
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        match &self.kind {
            Kind::Mapping { entries, .. } => {
                entries.iter().find(|(name, _)| matches!(&name.kind, Kind::Scalar { value, .. } if value == key))
            }
            _ => None,
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    pub(super) fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Sequence { is_flow: true, .. } | Kind::Mapping { is_flow: true, .. })
    }

    /// Nothing is written there: `key:` and the end of the line.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.kind, Kind::Scalar { .. }) && self.start == self.end
    }
}

/// Parses the one document of a manifest.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    let mut builder = Builder { text, parser: Parser::new_from_str(text) };
    let mut root = None;
    while let Some((event, span)) = builder.next()? {
        match event {
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            Event::StreamEnd => break,
            _ if root.is_some() => return Err(Error::SeveralDocuments { line: span.start.line() }),
            event => root = Some(builder.node(event, span, 0)?),
        }
    }
    root.ok_or(Error::NotAPod)
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Error> {
        for next in self.parser.by_ref() {
            match next.map_err(|error| Error::NotYaml { message: error.to_string() })? {
                (Event::Comment(..), _) => {}
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }

    fn child(&mut self) -> Result<(Event<'a>, Span), Error> {
        self.next()?.ok_or_else(|| Error::NotYaml { message: "it ends within a collection".into() })
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Error> {
        let line = span.start.line();
        let range = span.byte_range().ok_or(Error::Layout { line, what: "its place in the text is not known" })?;
        let (start, mut end) = (range.start, range.end);
        if depth > MAX_DEPTH {
            return Err(Error::Layout { line, what: "it is nested too deeply" });
        }
        let kind = match event {
            Event::Scalar(value, style, 0, None) => {
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    end = start + self.text[start..end].trim_end().len();
                }
                Kind::Scalar { value: value.into_owned(), style }
            }
            Event::SequenceStart(style, 0, None) => {
                let mut items = Vec::new();
                end = loop {
                    match self.child()? {
                        (Event::SequenceEnd, span) => break self.end_of(style, &span, items.last(), end),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                Kind::Sequence { items, is_flow: style == StructureStyle::Flow }
            }
            Event::MappingStart(style, 0, None) => {
                let mut entries: Vec<(Node, Node)> = Vec::new();
                end = loop {
                    match self.child()? {
                        (Event::MappingEnd, span) => {
                            break self.end_of(style, &span, entries.last().map(|(_, value)| value), end);
                        }
                        (event, span) => {
                            let key = self.node(event, span, depth + 1)?;
                            if key.text() == Some("<<") {
                                return Err(Error::Anchors { line: key.line });
                            }
                            let (event, span) = self.child()?;
                            let mut value = self.node(event, span, depth + 1)?;
                            if value.start == value.end {
                                // The parser puts a value that is not there anywhere up to the next token: it belongs behind the colon.
                                let colon = self.text[key.end..].find(':').map_or(key.end, |colon| key.end + colon + 1);
                                (value.start, value.end) = (colon, colon);
                            }
                            entries.push((key, value));
                        }
                    }
                };
                Kind::Mapping { entries, is_flow: style == StructureStyle::Flow }
            }
            _ => return Err(Error::Anchors { line }),
        };
        Ok(Node { kind, start, end, line })
    }

    fn end_of(&self, style: StructureStyle, span: &Span, last: Option<&Node>, start: usize) -> usize {
        let end = span.byte_range().map_or(start, |range| range.end);
        match style {
            StructureStyle::Flow => end,
            StructureStyle::Block => last.map_or(end, |last| last.end),
        }
    }
}
