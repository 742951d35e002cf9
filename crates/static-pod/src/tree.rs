//! A manifest as a tree of nodes with their places in the text.

use std::collections::BTreeMap;

use kube_yaml::scalar::{Scalar, resolve};
use kube_yaml::{Document, NodeId, NodeKind, Style};

use super::{Error, base_name, image_name, meaning};

/// Deeper than any pod. The walk over a tree is recursive.
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
    Scalar { value: String, style: Style },
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

    /// The block scalar that ends at a byte.
    pub(super) fn block_scalar_to(&self, end: usize) -> Option<&Node> {
        match &self.kind {
            Kind::Scalar { style, .. } => {
                let is_it = matches!(style, Style::Literal | Style::Folded) && self.end == end;
                is_it.then_some(self)
            }
            Kind::Sequence { items, .. } => items.iter().find_map(|item| item.block_scalar_to(end)),
            Kind::Mapping { entries, .. } => entries.iter().find_map(|(_, value)| value.block_scalar_to(end)),
        }
    }

    /// Whether the node is empty, or null in any spelling.
    pub(super) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// Whether the kubelet reads the scalar as a string.
    pub(super) fn is_string(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Text(_)))
    }

    fn scalar(&self) -> Option<Scalar> {
        match &self.kind {
            Kind::Scalar { value, style: Style::Plain } => resolve(b"", value).ok(),
            Kind::Scalar { value, .. } => Some(Scalar::Text(value.clone())),
            _ => None,
        }
    }
}

/// Parses a manifest, which must be a single document.
pub(super) fn parse(text: &str) -> Result<Node, Error> {
    refuse_line_ends(text)?;
    let document = kube_yaml::document(text.as_bytes()).map_err(|error| match meaning::parse(text) {
        // `\/` and halves of a character (`\ud83d\ude00`) are JSON and not YAML, and the places are found by YAML.
        Ok(_) => Error::Layout { line: error.place.line as usize, what: "an escape that only JSON has" },
        Err(error) => error,
    })?;
    if let Some(rest) = document.rest {
        return Err(Error::SeveralDocuments { line: rest.line + 1 });
    }
    let root = document.root.ok_or_else(|| Error::NotAPod { found: "it is empty".into() })?;
    Builder { text, document: &document }.node(root, 0)
}

/// Index of the only container that runs kube-apiserver. Checks the types of all parts that an edit may change.
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

/// The value at a key, which must have the shape. The parent, if the key is absent and optional.
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

/// The program of a container. Without a command, it is the image's entrypoint, which upstream's image names after the
/// program.
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

/// An edit relies on newlines. In YAML 1.1, other characters end a line or a comment too.
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
    document: &'a Document,
}

impl Builder<'_> {
    fn node(&self, id: NodeId, depth: usize) -> Result<Node, Error> {
        let node = &self.document.nodes[id];
        let (line, mut start, mut end) = (node.start.line + 1, node.start.byte, node.end.byte);
        let unusual = match node {
            node if matches!(node.kind, NodeKind::Alias { .. }) => Some("an alias (*)"),
            node if node.has_anchor => Some("an anchor (&)"),
            node if node.has_tag => Some("a tag (!)"),
            _ => None,
        };
        if let Some(what) = unusual {
            return Err(Error::Anchors { line, what });
        }
        if depth > MAX_DEPTH {
            return Err(Error::Layout { line, what: "nested too deeply" });
        }
        let kind = match &node.kind {
            NodeKind::Alias { .. } => unreachable!("aliases are refused above"),
            NodeKind::Scalar { value, style, .. } => {
                if matches!(style, Style::Literal | Style::Folded) {
                    // Its header decides whether line breaks at its end are content: an edit leaves them in place.
                    end = start + self.text[start..end].trim_end().len();
                }
                Kind::Scalar { value: value.clone(), style: *style }
            }
            NodeKind::Sequence(children) => {
                let items = children.iter().map(|child| self.node(*child, depth + 1));
                let items = items.collect::<Result<Vec<_>, _>>()?;
                if !node.is_flow {
                    end = items.last().map_or(start, |item| item.end);
                }
                Kind::Sequence { items, is_flow: node.is_flow }
            }
            NodeKind::Mapping(children) => {
                let entries = self.entries(children, depth)?;
                if !node.is_flow {
                    end = entries.last().map_or(start, |(_, value)| value.end);
                }
                // A block mapping begins with its first key, even if that is empty.
                start = start.min(entries.first().map_or(start, |(key, _)| key.start));
                Kind::Mapping { entries, is_flow: node.is_flow }
            }
        };
        Ok(Node { kind, start, end, line })
    }

    fn entries(&self, children: &[NodeId], depth: usize) -> Result<Vec<(Node, Node)>, Error> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut lines = BTreeMap::new();
        for pair in children.chunks_exact(2) {
            let key = self.node(pair[0], depth + 1)?;
            if key.text() == Some("<<") {
                return Err(Error::Anchors { line: key.line, what: "a merge key (<<)" });
            }
            if let Some(name) = key.text()
                && let Some(first) = lines.insert(name.to_string(), key.line)
            {
                return Err(Error::DuplicateKey { key: name.into(), first, second: key.line });
            }
            let mut value = self.node(pair[1], depth + 1)?;
            if value.start == value.end {
                // An empty value has the place of the next token, but belongs after the colon.
                value.start = colon(self.text, &key);
                value.end = value.start;
            }
            entries.push((key, value));
        }
        Ok(entries)
    }
}

/// Position after the colon of a key, or after the key if it has no colon, as a flow mapping allows.
pub(super) fn colon(text: &str, key: &Node) -> usize {
    let mut rest = text[key.end..].trim_start();
    while let Some(comment) = rest.strip_prefix('#') {
        rest = comment.split_once('\n').map_or("", |(_, next)| next).trim_start();
    }
    rest.strip_prefix(':').map_or(key.end, |behind| text.len() - behind.len())
}
