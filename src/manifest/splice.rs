//! Byte splices that lead from a text to a meaning. One place is changed at a time, and the text parsed anew, until nothing differs.
//!
//! Only the lists and mappings that an edit may change are looked at; everything outside a splice keeps its bytes. Whether the
//! result is right is not decided here: the caller proves it.

use granit_parser::ScalarStyle;
use serde_json::Value;

use super::tree::{self, Kind, Node};
use super::{Error, flag, is_boolean, meaning};
use crate::render::DRAIN_FLAG;

/// More places than any edit changes: a splice that leads nowhere must end.
const MAX_SPLICES: usize = 1000;

/// Replace these bytes by that text.
struct Splice {
    start: usize,
    end: usize,
    text: String,
}

/// Edits `text` until it means `wanted`.
pub(super) fn towards(text: &str, container: usize, wanted: &Value) -> Result<String, Error> {
    let mut text = text.to_string();
    for _ in 0..MAX_SPLICES {
        let value = meaning::parse(&text)?;
        let tree = tree::parse(&text)?;
        let Some(splice) = next(&Place { text: &text, tree: &tree, value: &value, container }, wanted)? else {
            return Ok(text);
        };
        text.replace_range(splice.start..splice.end, &splice.text);
    }
    Err(Error::NotProved("it has no end"))
}

/// Refuses flags of ours that are given twice, or apart from their value.
pub(super) fn check_flags(tree: &Node, container: usize) -> Result<(), Error> {
    let Some(container) =
        tree.get("spec").and_then(|spec| spec.get("containers")).and_then(|list| list.items().get(container))
    else {
        return Err(Error::Shape { field: "spec.containers", expected: "list" });
    };
    let mut seen: Vec<(String, usize)> = Vec::new();
    for list in ["command", "args"] {
        for item in container.get(list).map_or(&[][..], Node::items) {
            let Some((name, value)) =
                item.text().and_then(flag).filter(|(name, _)| name.starts_with("audit-") || name == DRAIN_FLAG)
            else {
                continue;
            };
            if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == name) {
                return Err(Error::DuplicateFlag { flag: name, first: *first, second: item.line });
            }
            if value.is_none() && !is_boolean(&name) {
                return Err(Error::SplitFlag { flag: name, line: item.line });
            }
            seen.push((name, item.line));
        }
    }
    Ok(())
}

struct Place<'a> {
    text: &'a str,
    tree: &'a Node,
    value: &'a Value,
    container: usize,
}

/// The first place that differs.
fn next(place: &Place<'_>, wanted: &Value) -> Result<Option<Splice>, Error> {
    let shape = || Error::Shape { field: "spec.containers", expected: "list" };
    let spec = place.tree.get("spec").ok_or_else(shape)?;
    let node = spec.get("containers").and_then(|list| list.items().get(place.container)).ok_or_else(shape)?;
    let now = &place.value["spec"]["containers"][place.container];
    let then = &wanted["spec"]["containers"][place.container];
    for key in ["command", "args", "volumeMounts"] {
        if let Some(splice) = list(place, node, key, &now[key], then.get(key))? {
            return Ok(Some(splice));
        }
    }
    if let Some(splice) = list(place, spec, "volumes", &place.value["spec"]["volumes"], wanted["spec"].get("volumes"))?
    {
        return Ok(Some(splice));
    }
    let metadata = place.tree.get("metadata").ok_or(Error::Shape { field: "metadata", expected: "mapping" })?;
    annotations(place, metadata, &place.value["metadata"]["annotations"], wanted["metadata"].get("annotations"))
}

fn list(
    place: &Place<'_>,
    parent: &Node,
    key: &str,
    now: &Value,
    then: Option<&Value>,
) -> Result<Option<Splice>, Error> {
    let Some(then) = then.and_then(Value::as_array) else {
        return parent
            .entry(key)
            .filter(|_| then.is_none())
            .map(|entry| remove_entry(place, parent, entry))
            .transpose();
    };
    let none = Vec::new();
    let now = now.as_array().unwrap_or(&none);
    let items = parent.get(key).map_or(&[][..], Node::items);
    let mut wanted = then.iter().peekable();
    for (item, value) in items.iter().zip(now) {
        match wanted.peek() {
            Some(next) if *next == value => {
                wanted.next();
            }
            Some(next) if replaces(value, next) => {
                return replace_scalar(place, item, next.as_str().unwrap_or_default()).map(Some);
            }
            _ => return remove_item(place, parent.get(key).expect("it has items"), item).map(Some),
        }
    }
    match wanted.next() {
        Some(item) => append_item(place, parent, key, item).map(Some),
        None => Ok(None),
    }
}

fn annotations(place: &Place<'_>, metadata: &Node, now: &Value, then: Option<&Value>) -> Result<Option<Splice>, Error> {
    let Some(then) = then.and_then(Value::as_object) else {
        return metadata
            .entry("annotations")
            .filter(|_| then.is_none())
            .map(|entry| remove_entry(place, metadata, entry))
            .transpose();
    };
    for (key, value) in then {
        let Some(value) = value.as_str().filter(|_| now.get(key) != Some(value)) else { continue };
        let node = metadata.get("annotations");
        return match node.and_then(|node| node.get(key)) {
            Some(scalar) => replace_scalar(place, scalar, value),
            None => append_entry(place, metadata, "annotations", key, value),
        }
        .map(Some);
    }
    let gone = now.as_object().into_iter().flatten().find(|(key, _)| !then.contains_key(*key));
    match (gone, metadata.get("annotations")) {
        (Some((key, _)), Some(node)) => {
            let entry = node.entry(key).expect("text and value come from the same bytes");
            remove_entry(place, node, entry).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether `next` is `value` with another setting of the same flag.
fn replaces(value: &Value, next: &Value) -> bool {
    let name = |value: &Value| value.as_str().and_then(flag).map(|(name, _)| name);
    name(value).is_some() && name(value) == name(next)
}

fn replace_scalar(place: &Place<'_>, node: &Node, value: &str) -> Result<Splice, Error> {
    let Kind::Scalar { style, .. } = &node.kind else { return Err(layout(node, "a text is expected")) };
    let text = match style {
        ScalarStyle::Plain if is_plain(value) => value.to_string(),
        ScalarStyle::SingleQuoted => format!("'{}'", value.replace('\'', "''")),
        ScalarStyle::Plain | ScalarStyle::DoubleQuoted => quoted(value),
        ScalarStyle::Literal | ScalarStyle::Folded => return Err(layout(node, "a flag in a block scalar")),
    };
    debug_assert!(place.text.is_char_boundary(node.start));
    Ok(Splice { start: node.start, end: node.end, text })
}

fn remove_item(place: &Place<'_>, list: &Node, item: &Node) -> Result<Splice, Error> {
    let items = list.items();
    let index = items.iter().position(|other| std::ptr::eq(other, item)).expect("the item is one of the list");
    if list.is_flow() {
        return Ok(remove_from_flow(items.iter().map(|item| (item.start, item.end)).collect(), index));
    }
    let dash = dash(place, item)?;
    if items.len() == 1 {
        return emptied(place, list, dash, item.end, "[]");
    }
    Ok(Splice { start: line_start(place.text, dash), end: next_line(place.text, item.end), text: String::new() })
}

/// `[]` or `{}` behind the key in place of the only thing below it: a key with nothing would be null.
fn emptied(place: &Place<'_>, parent: &Node, start: usize, end: usize, empty: &str) -> Result<Splice, Error> {
    let before = place.text[..line_start(place.text, start)].trim_end_matches(['\n', '\r']);
    if !before.ends_with(':') {
        return Err(layout(parent, "all that is below its key goes, and the key is not on the line before"));
    }
    let rest = next_line(place.text, end);
    let line_end = if place.text[..rest].ends_with('\n') { eol(place.text) } else { "" };
    Ok(Splice { start: before.len(), end: rest, text: format!(" {empty}{line_end}") })
}

fn remove_entry(place: &Place<'_>, parent: &Node, entry: &(Node, Node)) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let index = entries.iter().position(|other| std::ptr::eq(other, entry)).expect("the entry is one of the mapping");
    if *is_flow {
        return Ok(remove_from_flow(entries.iter().map(|(key, value)| (key.start, value.end)).collect(), index));
    }
    let start = line_start(place.text, entry.0.start);
    if !place.text[start..entry.0.start].trim().is_empty() {
        return Err(layout(&entry.0, "its key does not begin the line"));
    }
    if entries.len() == 1 {
        return emptied(place, parent, start, entry.1.end, "{}");
    }
    Ok(Splice { start, end: next_line(place.text, entry.1.end), text: String::new() })
}

fn remove_from_flow(ranges: Vec<(usize, usize)>, index: usize) -> Splice {
    let (start, end) = match (index.checked_sub(1), ranges.get(index + 1)) {
        (_, Some(next)) => (ranges[index].0, next.0),
        (Some(previous), None) => (ranges[previous].1, ranges[index].1),
        (None, None) => ranges[index],
    };
    Splice { start, end, text: String::new() }
}

fn append_item(place: &Place<'_>, parent: &Node, key: &str, item: &Value) -> Result<Splice, Error> {
    let Some((name, list)) = parent.entry(key) else { return add_key(place, parent, key, Content::Item(item)) };
    if parent.is_flow() || list.is_flow() {
        return append_to_flow(place, list, list.items().last(), &flow(item));
    }
    let Some(last) = list.items().last() else { return fill(place, parent, name, list, Content::Item(item)) };
    let column = column(place.text, dash(place, last)?);
    Ok(insert_lines(place, last.end, &block_item(item, column)))
}

fn append_entry(place: &Place<'_>, parent: &Node, mapping: &str, key: &str, value: &str) -> Result<Splice, Error> {
    let Some((name, node)) = parent.entry(mapping) else {
        return add_key(place, parent, mapping, Content::Entry(key, value));
    };
    if parent.is_flow() || node.is_flow() {
        let last = match &node.kind {
            Kind::Mapping { entries, .. } => entries.last().map(|(_, value)| value),
            _ => None,
        };
        return append_to_flow(place, node, last, &format!("{}: {}", quoted(key), quoted(value)));
    }
    let Kind::Mapping { entries, .. } = &node.kind else {
        return fill(place, parent, name, node, Content::Entry(key, value));
    };
    let last = entries.last().ok_or_else(|| layout(node, "an empty mapping"))?;
    let column = column(place.text, last.0.start);
    Ok(insert_lines(place, last.1.end, &[format!("{}{key}: {}", " ".repeat(column), scalar(value))]))
}

enum Content<'a> {
    Item(&'a Value),
    Entry(&'a str, &'a str),
}

/// The lines below a key at `column`.
fn block(content: &Content<'_>, column: usize, place: &Place<'_>) -> Vec<String> {
    match content {
        Content::Item(item) => block_item(item, column + sequence_offset(place)),
        Content::Entry(key, value) => vec![format!("{}{key}: {}", " ".repeat(column + 2), scalar(value))],
    }
}

/// A key that is not there yet, behind the last one of its parent.
fn add_key(place: &Place<'_>, parent: &Node, key: &str, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    if *is_flow {
        let content = match content {
            Content::Item(item) => format!("[{}]", flow(item)),
            Content::Entry(key, value) => format!("{{{}: {}}}", quoted(key), quoted(value)),
        };
        return append_to_flow(
            place,
            parent,
            entries.last().map(|(_, value)| value),
            &format!("{}: {content}", quoted(key)),
        );
    }
    let last = entries.last().ok_or_else(|| layout(parent, "an empty mapping"))?;
    let column = column(place.text, entries[0].0.start);
    let mut lines = vec![format!("{}{key}:", " ".repeat(column))];
    lines.extend(block(&content, column, place));
    Ok(insert_lines(place, last.1.end, &lines))
}

/// A key whose value is null.
fn fill(place: &Place<'_>, parent: &Node, name: &Node, value: &Node, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, .. } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let column = column(place.text, entries[0].0.start);
    if value.is_absent() {
        return Ok(insert_lines(place, value.end, &block(&content, column, place)));
    }
    if matches!(value.text(), Some("null" | "~" | "Null" | "NULL")) {
        let line_end = eol(place.text);
        let lines = block(&content, column, place).join(line_end);
        let rest_of_line = &place.text[value.end..next_line(place.text, value.end)];
        if rest_of_line.trim().is_empty() {
            return Ok(Splice { start: value.start, end: value.end, text: format!("{line_end}{lines}") });
        }
    }
    Err(layout(name, "a list or a mapping is expected"))
}

fn append_to_flow(place: &Place<'_>, list: &Node, last: Option<&Node>, text: &str) -> Result<Splice, Error> {
    match last {
        Some(last) => Ok(Splice { start: last.end, end: last.end, text: format!(", {text}") }),
        None if place.text[list.start..].starts_with(['[', '{']) => {
            Ok(Splice { start: list.start + 1, end: list.start + 1, text: text.into() })
        }
        None => Err(layout(list, "an empty list in a flow collection")),
    }
}

/// Lines behind the line that holds the byte before `end`.
fn insert_lines(place: &Place<'_>, end: usize, lines: &[String]) -> Splice {
    let at = next_line(place.text, end);
    let line_end = eol(place.text);
    let has_line_end = place.text[..at].ends_with('\n');
    let text = lines.join(line_end);
    let text = if has_line_end { format!("{text}{line_end}") } else { format!("{line_end}{text}") };
    Splice { start: at, end: at, text }
}

fn block_item(item: &Value, column: usize) -> Vec<String> {
    let indent = " ".repeat(column);
    match item {
        Value::Object(fields) => {
            let mut lines = Vec::new();
            block_mapping(fields, column + 2, &mut lines);
            lines[0].replace_range(column..=column, "-");
            lines
        }
        other => vec![format!("{indent}- {}", scalar(other.as_str().unwrap_or_default()))],
    }
}

fn block_mapping(fields: &serde_json::Map<String, Value>, column: usize, lines: &mut Vec<String>) {
    let indent = " ".repeat(column);
    for (key, value) in fields {
        match value {
            Value::Object(inner) => {
                lines.push(format!("{indent}{key}:"));
                block_mapping(inner, column + 2, lines);
            }
            Value::String(text) => lines.push(format!("{indent}{key}: {}", scalar(text))),
            other => lines.push(format!("{indent}{key}: {other}")),
        }
    }
}

/// JSON is YAML in a flow collection, and stays JSON in a JSON file.
fn flow(item: &Value) -> String {
    item.to_string()
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_string() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Whether every reader, YAML 1.1 or 1.2, takes the bare text for just this text.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./=,@+".contains(c);
    let begins_safely =
        text.starts_with('/') || text.starts_with("--") || text.starts_with("r-") || text.starts_with("audit-operator");
    begins_safely && text.chars().all(is_safe) || matches!(text, "Directory" | "DirectoryOrCreate")
}

/// How far this document indents a list below its key.
fn sequence_offset(place: &Place<'_>) -> usize {
    let spec = place.tree.get("spec");
    let found = spec.and_then(|spec| spec.entry("containers")).and_then(|(key, list)| {
        let dash = dash(place, list.items().first()?).ok()?;
        column(place.text, dash).checked_sub(column(place.text, key.start))
    });
    found.unwrap_or(0)
}

/// Where the dash of a block item stands; it must be the first thing on its line.
fn dash(place: &Place<'_>, item: &Node) -> Result<usize, Error> {
    let start = line_start(place.text, item.start);
    let before = &place.text[start..item.start];
    let dash = before
        .find('-')
        .filter(|dash| before[..*dash].chars().all(|c| c == ' ') && before[dash + 1..].chars().all(|c| c == ' '));
    dash.map(|dash| start + dash).ok_or_else(|| layout(item, "the dash of an item does not begin its line"))
}

fn layout(node: &Node, what: &'static str) -> Error {
    Error::Layout { line: node.line, what }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |end| end + 1)
}

fn next_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

fn column(text: &str, at: usize) -> usize {
    at - line_start(text, at)
}

fn eol(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
