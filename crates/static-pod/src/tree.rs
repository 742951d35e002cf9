//! The manifest as a tree of nodes, each with its place in the text.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::{Error, base_name, image_name};

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

    /// The block scalar that ends there.
    pub(super) fn block_scalar_to(&self, end: usize) -> Option<&Node> {
        match &self.kind {
            Kind::Scalar { style, .. } => {
                let is_it = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) && self.end == end;
                is_it.then_some(self)
            }
            Kind::Sequence { items, .. } => items.iter().find_map(|item| item.block_scalar_to(end)),
            Kind::Mapping { entries, .. } => entries.iter().find_map(|(_, value)| value.block_scalar_to(end)),
        }
    }

    /// Nothing is written there, or null in one of its spellings.
    pub(super) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { value, style: ScalarStyle::Plain } => {
                matches!(value.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Parses the one document of a manifest.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    refuse_line_ends(text)?;
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
    root.ok_or_else(|| Error::NotAPod { found: "it is empty".into() })
}

/// Index of the one container that runs kube-apiserver, in a pod whose parts that an edit may change have the shape that they should.
pub(super) fn api_server(pod: &Node) -> Result<usize, Error> {
    for (key, wanted) in [("apiVersion", "v1"), ("kind", "Pod")] {
        let found = match pod.get(key) {
            Some(value) if value.text() == Some(wanted) => continue,
            Some(value) => format!("line {} says {key}: {}", value.line, value.text().unwrap_or("…")),
            None => format!("it has no {key}"),
        };
        return Err(Error::NotAPod { found });
    }
    let metadata = part(pod, "metadata", "metadata", Shape::Mapping)?;
    if let Some((key, uid)) = metadata.entry("uid")
        && !uid.is_null()
    {
        return Err(Error::FixedUid { line: key.line });
    }
    part(metadata, "annotations", "metadata.annotations", Shape::MappingOrNull)?;
    let spec = part(pod, "spec", "spec", Shape::Mapping)?;
    part(spec, "volumes", "spec.volumes", Shape::SequenceOrNull)?;
    let containers = part(spec, "containers", "spec.containers", Shape::Sequence)?;
    let found: Vec<(usize, &Node)> = (containers.items().iter().enumerate())
        .filter(|(_, container)| entrypoint(container).is_some_and(|program| base_name(program) == "kube-apiserver"))
        .collect();
    let (index, container) = match found[..] {
        [found] => found,
        [] => return Err(no_api_server(containers)),
        _ => {
            return Err(Error::SeveralApiServers {
                lines: found.iter().map(|(_, container)| container.line).collect(),
            });
        }
    };
    for (key, field) in [
        ("command", "command of kube-apiserver"),
        ("args", "args of kube-apiserver"),
        ("volumeMounts", "volumeMounts of kube-apiserver"),
    ] {
        part(container, key, field, Shape::SequenceOrNull)?;
    }
    Ok(index)
}

#[derive(Clone, Copy, PartialEq)]
enum Shape {
    Mapping,
    MappingOrNull,
    Sequence,
    SequenceOrNull,
}

/// The value at a key, which must have a shape; the parent where there is none and none is needed.
fn part<'a>(parent: &'a Node, key: &str, field: &'static str, shape: Shape) -> Result<&'a Node, Error> {
    let is_optional = matches!(shape, Shape::MappingOrNull | Shape::SequenceOrNull);
    let expected = if matches!(shape, Shape::Mapping | Shape::MappingOrNull) { "mapping" } else { "list" };
    match parent.entry(key) {
        None if is_optional => Ok(parent),
        None => Err(Error::Shape { field, expected, line: parent.line }),
        Some((key, value)) => {
            let is_so = match (&value.kind, expected) {
                (Kind::Mapping { .. }, "mapping") | (Kind::Sequence { .. }, "list") => true,
                _ => is_optional && value.is_null(),
            };
            if is_so { Ok(value) } else { Err(Error::Shape { field, expected, line: key.line }) }
        }
    }
}

/// What a container runs. Without a command it is the image's entrypoint, which upstream's image names after the program.
fn entrypoint(container: &Node) -> Option<&str> {
    match container.get("command").and_then(|command| command.items().first()) {
        Some(program) => program.text(),
        None => image_name(container.get("image")?.text()?),
    }
}

fn no_api_server(containers: &Node) -> Error {
    let named = |container: &&Node| container.get("name").and_then(Node::text) == Some("kube-apiserver");
    let wrapped = containers.items().iter().find(named);
    match wrapped.and_then(|container| Some((container.line, entrypoint(container)?))) {
        Some((line, command)) => Error::Wrapped { container: "kube-apiserver".into(), command: command.into(), line },
        None => Error::NoApiServer { line: containers.line },
    }
}

/// YAML 1.1, which the kubelet reads, ends a line, and a comment, at characters that YAML 1.2 does not.
fn refuse_line_ends(text: &str) -> Result<(), Error> {
    let is_one = |at: usize, c: char| match c {
        '\r' => !text[at + 1..].starts_with('\n'),
        '\u{85}' | '\u{2028}' | '\u{2029}' => true,
        _ => false,
    };
    match text.char_indices().find(|(at, c)| is_one(*at, *c)) {
        Some((at, _)) => Err(Error::LineEnd { line: text[..at].matches('\n').count() + 1 }),
        None => Ok(()),
    }
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Error> {
        for next in self.parser.by_ref() {
            match next.map_err(|error| not_yaml(&error))? {
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
        let (mut start, mut end) = (range.start, range.end);
        if depth > MAX_DEPTH {
            return Err(Error::Layout { line, what: "it is nested too deeply" });
        }
        let kind = match event {
            Event::Scalar(value, style, 0, None) => {
                if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                    // Where it holds nothing, the parser puts it at what comes next: it ends with its header.
                    let written = self.text[start..end].trim_end().len();
                    end = if written > 0 { start + written } else { self.text[..start].trim_end().len() };
                    start = block_header(self.text, start).min(end);
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
                let mut lines = BTreeMap::new();
                end = loop {
                    match self.child()? {
                        (Event::MappingEnd, span) => {
                            break self.end_of(style, &span, entries.last().map(|(_, value)| value), end);
                        }
                        (event, span) => {
                            let key = self.node(event, span, depth + 1)?;
                            if key.text() == Some("<<") {
                                return Err(Error::Anchors { line: key.line, what: "a merge key (<<)" });
                            }
                            if let Some(name) = key.text()
                                && let Some(first) = lines.insert(name.to_string(), key.line)
                            {
                                return Err(Error::DuplicateKey { key: name.into(), first, second: key.line });
                            }
                            let (event, span) = self.child()?;
                            let mut value = self.node(event, span, depth + 1)?;
                            if value.start == value.end {
                                // The parser puts a value that is not there anywhere up to the next token: it belongs behind the colon.
                                value.start = colon(self.text, &key);
                                value.end = value.start;
                            }
                            entries.push((key, value));
                        }
                    }
                };
                Kind::Mapping { entries, is_flow: style == StructureStyle::Flow }
            }
            Event::Alias(_) => return Err(Error::Anchors { line, what: "an alias (*)" }),
            Event::Scalar(_, _, 0, _) | Event::SequenceStart(_, 0, _) | Event::MappingStart(_, 0, _) => {
                return Err(Error::Anchors { line, what: "a tag (!)" });
            }
            _ => return Err(Error::Anchors { line, what: "an anchor (&)" }),
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

/// Behind the colon of a key; behind the key where it has none, which a flow mapping allows.
pub(super) fn colon(text: &str, key: &Node) -> usize {
    let mut rest = text[key.end..].trim_start();
    while let Some(comment) = rest.strip_prefix('#') {
        rest = comment.split_once('\n').map_or("", |(_, next)| next).trim_start();
    }
    rest.strip_prefix(':').map_or(key.end, |behind| text.len() - behind.len())
}

/// Where the `|` or `>` of a block scalar stands, whose content begins at `content`: the parser counts from there.
fn block_header(text: &str, content: usize) -> usize {
    let before = text[..content].trim_end();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let is_header = |at: usize| {
        let rest = before[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
        let is_apart = before[..at].ends_with([' ', '\t', '\n']);
        is_apart && (rest.is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#')))
    };
    let found = before[line..].match_indices(['|', '>']).map(|(at, _)| line + at).find(|at| is_header(*at));
    found.unwrap_or(content)
}

fn not_yaml(error: &granit_parser::ScanError) -> Error {
    let marker = error.marker();
    Error::NotYaml { message: format!("line {} column {}: {}", marker.line(), marker.col() + 1, error.info()) }
}
