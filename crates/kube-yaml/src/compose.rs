//! YAML as kube-apiserver's parser reads it: go.yaml.in/yaml/v2, a libyaml of 2014 for YAML 1.1, in its own order of
//! steps.
//!
//! A port, not a parser of our own: YAML libraries differ in keys, ends of documents and invalid texts, and each
//! difference is a policy that means something else to the server than to us. [`compose`] gives the nodes of the first
//! document; what they mean is for [`super::tree()`]. Nothing here recurses, so that nesting costs no stack.

mod chars;
mod parse;
mod scan;

use std::collections::HashMap;

use parse::{EventKind, Parser};

/// A place in the text. Lines and columns count from 0, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Bytes before it in the text as UTF-8.
    pub byte: usize,
    /// Characters before it.
    pub index: usize,
    pub line: usize,
    pub column: usize,
}

/// Why the text is not YAML.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub mark: Mark,
    pub message: String,
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// Index of a node in a [`Document`].
pub type NodeId = usize;

#[derive(Debug)]
pub struct Node {
    /// Start, at its anchor or tag; of a block scalar, at its `|` or `>`. An empty plain scalar starts and ends at or
    /// before the next token.
    pub start: Mark,
    /// End. A block scalar ends with its last line break, a block collection where the next token begins.
    pub end: Mark,
    pub has_anchor: bool,
    pub has_tag: bool,
    /// A collection in brackets or braces.
    pub is_flow: bool,
    pub kind: NodeKind,
}

#[derive(Debug)]
pub enum NodeKind {
    /// `is_implicit`: plain and without a tag, or with the tag `!`.
    Scalar {
        tag: Vec<u8>,
        value: String,
        is_implicit: bool,
        style: Style,
    },
    /// Another name for a node, possibly for one that contains the alias.
    Alias {
        name: String,
        target: NodeId,
    },
    Sequence(Vec<NodeId>),
    /// Key, value, key, value, …
    Mapping(Vec<NodeId>),
}

/// The first document of a text.
#[derive(Debug)]
pub struct Document {
    pub nodes: Vec<Node>,
    /// `None`: the text has no document.
    pub root: Option<NodeId>,
    /// Start of further text after its end.
    pub rest: Option<Mark>,
}

/// Reads the first document, and as much more as it takes to recognise its end.
pub(super) fn compose(text: &[u8]) -> Result<Document, Problem> {
    let mut parser = Parser::new(text);
    let mut nodes: Vec<Node> = Vec::new();
    let mut anchors: HashMap<Vec<u8>, NodeId> = HashMap::new();
    let mut open: Vec<NodeId> = Vec::new();
    loop {
        let event = parser.next()?;
        let (kind, anchor, has_tag, is_flow) = match event.kind {
            EventKind::StreamStart | EventKind::DocumentStart => continue,
            EventKind::StreamEnd | EventKind::DocumentEnd => break,
            EventKind::SequenceEnd | EventKind::MappingEnd => {
                let ended: NodeId = open.pop().expect("only an open collection ends");
                nodes[ended].end = event.end;
                continue;
            }
            EventKind::Alias(name) => {
                let shown = String::from_utf8_lossy(&name).into_owned();
                let Some(&target) = anchors.get(&name) else {
                    return Err(Problem { mark: event.start, message: format!("unknown anchor '{shown}' referenced") });
                };
                (NodeKind::Alias { name: shown, target }, None, false, false)
            }
            EventKind::Scalar { anchor, tag, value, is_implicit, style } => {
                let value = String::from_utf8(value).expect("the scanner reads whole characters");
                let has_tag = !tag.is_empty();
                (NodeKind::Scalar { tag, value, is_implicit, style }, anchor, has_tag, false)
            }
            EventKind::SequenceStart { anchor, has_tag, is_flow } => {
                (NodeKind::Sequence(Vec::new()), anchor, has_tag, is_flow)
            }
            EventKind::MappingStart { anchor, has_tag, is_flow } => {
                (NodeKind::Mapping(Vec::new()), anchor, has_tag, is_flow)
            }
        };
        let (id, has_anchor) = (nodes.len(), anchor.is_some());
        if let Some(anchor) = anchor {
            anchors.insert(anchor, id);
        }
        if let Some(&parent) = open.last() {
            match &mut nodes[parent].kind {
                NodeKind::Sequence(children) | NodeKind::Mapping(children) => children.push(id),
                NodeKind::Scalar { .. } | NodeKind::Alias { .. } => unreachable!("only collections are opened"),
            }
        }
        if matches!(kind, NodeKind::Sequence(_) | NodeKind::Mapping(_)) {
            open.push(id);
        }
        nodes.push(Node { start: event.start, end: event.end, has_anchor, has_tag, is_flow, kind });
    }
    let root = (!nodes.is_empty()).then_some(0);
    Ok(Document { rest: root.and_then(|_| parser.rest()), nodes, root })
}
