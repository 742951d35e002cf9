#![doc = include_str!("../README.md")]
//!
//! # How a text is read
//!
//! A text is JSON if its first visible character is `{`, and YAML otherwise. YAML is converted to JSON; in this step,
//! the last of two equal keys wins and the keys are sorted (kubernetes@v1.36.3
//! staging/src/k8s.io/apimachinery/pkg/util/yaml/decoder.go, sigs.k8s.io/yaml@v1.6.0/yaml.go). `compose` is the YAML
//! parser, [`scalar`] resolves unquoted text, `json` reads JSON.

mod compose;
pub mod fields;
mod json;
pub mod scalar;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use compose::compose;
pub use compose::{Document, Mark, Node, NodeId, NodeKind, Style};
use scalar::Scalar;

pub use fields::{from_str, to_json};
pub use json::MAX_DEPTH;

/// Line and column of a character, from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    pub line: u32,
    pub column: u32,
}

impl From<Mark> for Place {
    fn from(mark: Mark) -> Self {
        let from_one = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
        Self { line: from_one(mark.line), column: from_one(mark.column) }
    }
}

/// Why a text cannot be read, and where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("line {} column {}: {}", place.line, place.column, message.trim_start_matches("yaml: "))]
pub struct Error {
    pub place: Place,
    /// In kube-apiserver's words, including the prefix `yaml: `.
    pub message: String,
}

/// Index of a value in a [`Tree`].
pub type ValueId = usize;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As written in the JSON text.
    Number(String),
    Text(String),
    List(Vec<ValueId>),
    /// From YAML: sorted, each key once. From JSON: as in the text, repeated keys included.
    Map(Vec<(Key, ValueId)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub text: String,
    pub place: Place,
}

/// A key that replaces an equal one.
#[derive(Clone, Debug, PartialEq)]
pub struct Duplicate {
    pub key: Key,
    /// Whether one of the two comes from a merge key (`<<`).
    pub is_merged: bool,
}

/// Valid YAML that many people misread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trap {
    Tag,
    Alias,
    SecondDocument,
}

#[derive(Debug)]
pub struct Tree {
    values: Vec<(Place, Value)>,
    pub root: ValueId,
    /// Keys of a YAML mapping that replace an earlier one. With JSON, both are in the map.
    pub duplicates: Vec<Duplicate>,
    /// Parts of YAML that many people misread.
    pub traps: Vec<(Place, Trap)>,
    /// Text of the YAML scalars that are not strings: `1_000`, `on`.
    written: HashMap<ValueId, String>,
}

impl Tree {
    pub fn place(&self, id: ValueId) -> Place {
        self.values[id].0
    }

    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id].1
    }

    /// The text of a YAML scalar that is not a string.
    pub fn written(&self, id: ValueId) -> Option<&str> {
        self.written.get(&id).map(String::as_str)
    }
}

/// Reads the first document of a text.
pub fn tree(text: &[u8]) -> Result<Tree, Error> {
    if is_json(text) { json::parse(text) } else { from_yaml(text) }
}

/// The nodes of the first document as written: with places, styles, anchors and tags. JSON is read as YAML.
///
/// # Errors
/// The text is not YAML.
pub fn document(text: &[u8]) -> Result<Document, Error> {
    compose(text).map_err(|problem| Error { place: problem.mark.into(), message: format!("yaml: {}", problem.message) })
}

/// Whether the text is read as JSON.
pub fn is_json(text: &[u8]) -> bool {
    let head = &text[..text.len().min(4096)];
    // After many blanks, the whole text is searched.
    let first = |bytes: &[u8]| scalar::text_of(bytes).chars().find(|c| !c.is_whitespace());
    first(head).or_else(|| first(text)) == Some('{')
}

fn from_yaml(text: &[u8]) -> Result<Tree, Error> {
    let document = document(text)?;
    let Some(root) = document.root else {
        let values = vec![(Place { line: 1, column: 1 }, Value::Null)];
        return Ok(Tree { values, root: 0, duplicates: Vec::new(), traps: traps(&document), written: HashMap::new() });
    };
    let scalars = Walk::new(&document).run(root)?;
    let tree = Build { document: &document, scalars, duplicates: Vec::new() }.run(root)?;
    Ok(Tree { traps: traps(&document), ..tree })
}

fn traps(document: &Document) -> Vec<(Place, Trap)> {
    let in_nodes = document.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Scalar { tag, .. } if !tag.is_empty() => Some((node.start.into(), Trap::Tag)),
        NodeKind::Alias { .. } => Some((node.start.into(), Trap::Alias)),
        _ => None,
    });
    in_nodes.chain(document.rest.map(|mark| (mark.into(), Trap::SecondDocument))).collect()
}

impl Document {
    /// The node itself, or the target of an alias.
    fn resolved(&self, id: NodeId) -> NodeId {
        match self.nodes[id].kind {
            NodeKind::Alias { target, .. } => target,
            _ => id,
        }
    }

    /// Whether a key is `<<`, whose value is merged into the mapping.
    fn is_merge(&self, id: NodeId) -> bool {
        match &self.nodes[id].kind {
            NodeKind::Scalar { tag, value, is_implicit, .. } => {
                value == "<<" && (*is_implicit || tag == b"tag:yaml.org,2002:merge")
            }
            _ => false,
        }
    }
}

/// A dry run of the decoder in upstream's order: resolves each scalar, and returns the errors of the decoder
/// (decode.go#L328-L815). It expands aliases, so that they are counted as upstream counts them.
struct Walk<'a> {
    document: &'a Document,
    scalars: Vec<Option<Scalar>>,
    open_aliases: HashSet<NodeId>,
    decoded: usize,
    from_aliases: usize,
    steps: Vec<Step>,
}

#[derive(Clone, Copy)]
enum Step {
    Visit(NodeId),
    LeaveAlias(NodeId),
    /// After the key.
    CheckKey(NodeId),
    /// Before the mapping is merged.
    CheckMerged(NodeId),
}

impl<'a> Walk<'a> {
    fn new(document: &'a Document) -> Self {
        Self {
            document,
            scalars: vec![None; document.nodes.len()],
            open_aliases: HashSet::new(),
            // The document itself.
            decoded: 1,
            from_aliases: 0,
            steps: Vec::new(),
        }
    }

    fn run(mut self, root: NodeId) -> Result<Vec<Option<Scalar>>, Error> {
        self.steps.push(Step::Visit(root));
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Visit(id) => self.visit(id)?,
                Step::LeaveAlias(id) => _ = self.open_aliases.remove(&id),
                Step::CheckKey(id) => {
                    let kind = &self.document.nodes[self.document.resolved(id)].kind;
                    if matches!(kind, NodeKind::Sequence(_) | NodeKind::Mapping(_)) {
                        return Err(self.error(id, "invalid map key: a list or a map".into()));
                    }
                }
                Step::CheckMerged(id) => {
                    let kind = &self.document.nodes[self.document.resolved(id)].kind;
                    if !matches!(kind, NodeKind::Mapping(_)) {
                        return Err(self.no_map(id));
                    }
                }
            }
        }
        Ok(self.scalars)
    }

    fn error(&self, id: NodeId, message: String) -> Error {
        Error { place: self.document.nodes[id].start.into(), message: format!("yaml: {message}") }
    }

    fn no_map(&self, id: NodeId) -> Error {
        self.error(id, "map merge requires map or sequence of maps as the value".into())
    }

    fn visit(&mut self, id: NodeId) -> Result<(), Error> {
        self.decoded += 1;
        if !self.open_aliases.is_empty() {
            self.from_aliases += 1;
        }
        let share = self.from_aliases as f64 / self.decoded as f64;
        if self.from_aliases > 100 && self.decoded > 1000 && share > allowed_alias_share(self.decoded) {
            return Err(self.error(id, "document contains excessive aliasing".into()));
        }
        match &self.document.nodes[id].kind {
            NodeKind::Alias { name, target } => {
                if !self.open_aliases.insert(id) {
                    return Err(self.error(id, format!("anchor '{name}' value contains itself")));
                }
                self.steps.extend([Step::LeaveAlias(id), Step::Visit(*target)]);
            }
            NodeKind::Scalar { tag, value, is_implicit, .. } => {
                if self.scalars[id].is_none() {
                    let is_quoted = tag.is_empty() && !is_implicit;
                    let found = if is_quoted { Ok(Scalar::Text(value.clone())) } else { scalar::resolve(tag, value) };
                    self.scalars[id] = Some(found.map_err(|message| self.error(id, message))?);
                }
            }
            NodeKind::Sequence(children) => self.steps.extend(children.iter().rev().map(|&child| Step::Visit(child))),
            NodeKind::Mapping(children) => {
                for pair in children.chunks_exact(2).rev() {
                    let &[key, value] = pair else { unreachable!("chunks of two") };
                    if !self.document.is_merge(key) {
                        self.steps.extend([Step::Visit(value), Step::CheckKey(key), Step::Visit(key)]);
                        continue;
                    }
                    match &self.document.nodes[value].kind {
                        // The last of a sequence is merged first.
                        NodeKind::Sequence(parts) => {
                            self.steps.extend(parts.iter().flat_map(|&p| [Step::Visit(p), Step::CheckMerged(p)]));
                        }
                        _ => self.steps.extend([Step::Visit(value), Step::CheckMerged(value)]),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Upstream's guard against documents that are mostly aliases (decode.go#L302-L326).
fn allowed_alias_share(decoded: usize) -> f64 {
    const LOW: usize = 400_000;
    const HIGH: usize = 4_000_000;
    match decoded {
        ..=LOW => 0.99,
        HIGH.. => 0.10,
        _ => 0.99 - 0.89 * ((decoded - LOW) as f64 / (HIGH - LOW) as f64),
    }
}

/// A key as Go compares it: 1 and "1" differ.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(u64),
    Text(String),
}

/// Builds the values; the last of equal keys wins. Each value has the id of its node.
struct Build<'a> {
    document: &'a Document,
    scalars: Vec<Option<Scalar>>,
    duplicates: Vec<Duplicate>,
}

impl Build<'_> {
    fn run(mut self, root: NodeId) -> Result<Tree, Error> {
        let root = self.document.resolved(root);
        let nodes = &self.document.nodes;
        let mut values: Vec<Option<(Place, Value)>> = vec![None; nodes.len()];
        let mut open = vec![root];
        let mut written = HashMap::new();
        while let Some(id) = open.pop() {
            if values[id].is_some() {
                continue;
            }
            let place = Place::from(nodes[id].start);
            let value = match &nodes[id].kind {
                NodeKind::Alias { .. } => unreachable!("ids are resolved"),
                NodeKind::Scalar { value, .. } => {
                    let scalar = self.scalars[id].take().expect("the walk visits every value");
                    if !matches!(scalar, Scalar::Text(_)) {
                        written.insert(id, value.clone());
                    }
                    json_of(scalar).map_err(|message| Error { place, message })?
                }
                NodeKind::Sequence(children) => {
                    Value::List(children.iter().map(|&child| self.document.resolved(child)).collect())
                }
                NodeKind::Mapping(_) => Value::Map(self.entries(id)?),
            };
            match &value {
                Value::List(children) => open.extend(children),
                Value::Map(entries) => open.extend(entries.iter().map(|(_, child)| child)),
                _ => {}
            }
            values[id] = Some((place, value));
        }
        check_depth(&values, root)?;
        let missing = (Place::default(), Value::Null);
        let values = values.into_iter().map(|value| value.unwrap_or_else(|| missing.clone())).collect();
        self.duplicates.sort_by_key(|duplicate| duplicate.key.place);
        Ok(Tree { values, root, duplicates: self.duplicates, traps: Vec::new(), written })
    }

    /// The entries of a mapping, with `<<` merged.
    fn entries(&mut self, id: NodeId) -> Result<Vec<(Key, ValueId)>, Error> {
        let document = self.document;
        let children = |id: NodeId| match &document.nodes[id].kind {
            NodeKind::Mapping(children) => children.as_slice(),
            _ => unreachable!("the walk has checked what is mixed in"),
        };
        let mut entries: Vec<(Key, ValueId, bool)> = Vec::new();
        // Where an entry is, and which mapping it is from.
        let mut known: HashMap<Identity, (usize, NodeId)> = HashMap::new();
        let mut open = vec![(id, 0)];
        while let Some((map, at)) = open.pop() {
            let Some(&[key, value]) = children(map).get(at..at + 2) else { continue };
            open.push((map, at + 2));
            if document.is_merge(key) {
                match &document.nodes[value].kind {
                    NodeKind::Sequence(parts) => open.extend(parts.iter().map(|&part| (document.resolved(part), 0))),
                    _ => open.push((document.resolved(value), 0)),
                }
                continue;
            }
            let place = Place::from(document.nodes[key].start);
            let key_node = document.resolved(key);
            let (identity, text, is_supported) = self.key(key_node);
            let value = document.resolved(value);
            let entry = (Key { text, place }, value, is_supported);
            match known.get(&identity) {
                Some(&(at, from)) => {
                    self.duplicates.push(Duplicate { key: entry.0.clone(), is_merged: from != map });
                    entries[at] = entry;
                }
                None => {
                    known.insert(identity, (entries.len(), map));
                    entries.push(entry);
                }
            }
        }
        if let Some((key, _, _)) = entries.iter().find(|(_, _, is_supported)| !is_supported) {
            let message = format!("unsupported map key: {}", key.text);
            return Err(Error { place: key.place, message });
        }
        entries.sort_by(|(a, ..), (b, ..)| a.text.cmp(&b.text));
        // 1 and "1" become one key; which of the two upstream keeps is left to chance.
        entries.dedup_by(|(a, ..), (b, ..)| a.text == b.text);
        Ok(entries.into_iter().map(|(key, value, _)| (key, value)).collect())
    }

    /// The identity of a key, its text in JSON, and whether JSON allows it as a key.
    fn key(&mut self, id: NodeId) -> (Identity, String, bool) {
        match self.scalars[id].clone().unwrap_or_else(|| self.scalar_again(id)) {
            Scalar::Null => (Identity::Null, "null".into(), false),
            Scalar::Bool(value) => (Identity::Bool(value), value.to_string(), true),
            Scalar::Int(value) => (Identity::Int(value), value.to_string(), true),
            Scalar::Uint(value) => (Identity::Uint(value), value.to_string(), false),
            Scalar::Float(value) if value.is_nan() => (Identity::Float(id as u64), ".nan".into(), true),
            Scalar::Float(value) if value.is_infinite() => {
                (Identity::Float(value.to_bits()), if value > 0.0 { ".inf" } else { "-.inf" }.into(), true)
            }
            // No field has such a name.
            Scalar::Float(value) => (Identity::Float((value + 0.0).to_bits()), (value as f32).to_string(), true),
            Scalar::Text(text) => (Identity::Text(text.clone()), text, true),
        }
    }

    /// Resolves a scalar again that is a key here and, by an alias, a value elsewhere.
    fn scalar_again(&self, id: NodeId) -> Scalar {
        match &self.document.nodes[id].kind {
            NodeKind::Scalar { tag, value, is_implicit, .. } if !tag.is_empty() || *is_implicit => {
                scalar::resolve(tag, value).unwrap_or(Scalar::Null)
            }
            NodeKind::Scalar { value, .. } => Scalar::Text(value.clone()),
            _ => unreachable!("the walk rejects other keys"),
        }
    }
}

fn json_of(scalar: Scalar) -> Result<Value, String> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Int(value) => Value::Number(value.to_string()),
        Scalar::Uint(value) => Value::Number(value.to_string()),
        Scalar::Float(value) if !value.is_finite() => {
            let name = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            };
            return Err(format!("json: unsupported value: {name}"));
        }
        // Go writes small whole numbers without a point, and others in a form that is not an integer.
        Scalar::Float(value) if value.fract() == 0.0 && value.abs() < 1e21 => Value::Number(format!("{value:.0}")),
        Scalar::Float(value) => Value::Number(format!("{value:e}")),
        Scalar::Text(text) => Value::Text(text),
    })
}

/// kube-apiserver's JSON reader accepts a nesting of [`MAX_DEPTH`].
fn check_depth(values: &[Option<(Place, Value)>], root: ValueId) -> Result<(), Error> {
    // Depth of each collection, itself included; 0: not known yet.
    let mut depths = vec![0_usize; values.len()];
    let mut open = vec![(root, false)];
    while let Some((id, is_left)) = open.pop() {
        let Some((place, value)) = &values[id] else { continue };
        let children: Vec<ValueId> = match value {
            Value::List(children) => children.clone(),
            Value::Map(entries) => entries.iter().map(|(_, child)| *child).collect(),
            _ => continue,
        };
        if is_left {
            depths[id] = 1 + children.iter().map(|&child| depths[child]).max().unwrap_or(0);
            if depths[id] > MAX_DEPTH {
                return Err(Error { place: *place, message: "exceeded max depth".into() });
            }
        } else if depths[id] == 0 {
            open.push((id, true));
            open.extend(children.into_iter().map(|child| (child, false)));
        }
    }
    Ok(())
}
