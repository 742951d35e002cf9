//! Edits a text by byte splices until it has the wanted value. Each round changes all places that do not touch each
//! other, and parses the text again.
//!
//! Only the lists and mappings that an edit may change are compared; everything outside a splice keeps its bytes. The
//! caller proves the result.

use kube_yaml::Style;
use serde_json::Value;

use super::tree::{self, Kind, Node, colon};
use super::{Error, Manifest, OUR_VOLUMES, flag, is_boolean, may_be_ours, meaning};

/// More rounds than any edit needs, so that the loop always ends.
const MAX_ROUNDS: usize = 1000;

/// Replace these bytes by that text.
struct Splice {
    start: usize,
    end: usize,
    text: String,
}

/// Edits `text`, the text of `manifest`, until its value is `wanted`. Returns the new text with its tree and value.
pub(super) fn towards(text: &str, manifest: &Manifest, wanted: &Value) -> Result<(String, Node, Value), Error> {
    let container = manifest.container;
    let mut splices = differences(text, &manifest.tree, &manifest.value, container, wanted)?;
    let mut text = text.to_string();
    for _ in 0..MAX_ROUNDS {
        replace_apart(&mut text, splices);
        let (tree, value) = (tree::parse(&text)?, meaning::parse(&text)?);
        splices = differences(&text, &tree, &value, container, wanted)?;
        if splices.is_empty() {
            return Ok((text, tree, value));
        }
    }
    Err(Error::NotProved("the edit does not end"))
}

/// Splices from the end to the start, so that earlier places stay valid. A splice that touches a later one waits for
/// the next round, when the text has been parsed again. Only removals of lines may be adjacent, unless a comment
/// follows them: the line before the comment is then known only after the removal.
fn replace_apart(text: &mut String, mut splices: Vec<Splice>) {
    splices.sort_by_key(|splice| splice.start);
    let mut later: Option<Splice> = None;
    for splice in splices.into_iter().rev() {
        let is_apart = later.as_ref().is_none_or(|later| {
            let is_side_by_side = splice.end == later.start && splice.text.is_empty() && later.text.is_empty();
            splice.end < later.start || (is_side_by_side && !begins_with_comment(&text[later.start..]))
        });
        if is_apart {
            text.replace_range(splice.start..splice.end, &splice.text);
            later = Some(splice);
        }
    }
}

/// Refuses flags of ours that are given twice or apart from their value, and items that hide flags.
pub(super) fn check_flags(container: &Node) -> Result<(), Error> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    for item in ["command", "args"].into_iter().flat_map(|list| container.get(list).map_or(&[][..], Node::items)) {
        let Some(text) = item.text().filter(|_| item.is_string()) else {
            return Err(Error::NotAString { line: item.line });
        };
        if text == "--" {
            return Err(Error::EndOfFlags { line: item.line });
        }
        // The kubelet expands environment variables.
        if text.split('=').next().is_some_and(|name| name.contains("$(")) {
            return Err(Error::VariableFlag { line: item.line });
        }
        let Some((name, value)) = flag(text).filter(|(name, _)| may_be_ours(name)) else { continue };
        if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == name) {
            return Err(Error::DuplicateFlag { flag: name, first: *first, second: item.line });
        }
        if value.is_none() && !is_boolean(&name) {
            return Err(Error::SplitFlag { flag: name, line: item.line });
        }
        seen.push((name, item.line));
    }
    Ok(())
}

/// Whether the text begins with a blank line or a comment.
fn begins_with_comment(text: &str) -> bool {
    text.lines().next().is_some_and(|line| is_blank(line) || line.trim_start_matches(' ').starts_with('#'))
}

struct Source<'a> {
    text: &'a str,
    tree: &'a Node,
}

/// The splices for all differences; of dependent ones only the first. `tree` and `value` are those of `text`.
fn differences(text: &str, tree: &Node, value: &Value, container: usize, wanted: &Value) -> Result<Vec<Splice>, Error> {
    let gone = || Error::NotProved("a part of the manifest is missing");
    let source = &Source { text, tree };
    let spec = tree.get("spec").ok_or_else(gone)?;
    let node = spec.get("containers").and_then(|list| list.items().get(container)).ok_or_else(gone)?;
    let metadata = tree.get("metadata").ok_or_else(gone)?;
    let (now, then) = (&value["spec"]["containers"][container], &wanted["spec"]["containers"][container]);
    let mut splices = Vec::new();
    for key in ["command", "args", "volumeMounts"] {
        splices.extend(list(source, node, key, &now[key], then.get(key))?);
    }
    splices.extend(list(source, spec, "volumes", &value["spec"]["volumes"], wanted["spec"].get("volumes"))?);
    let now = &value["metadata"]["annotations"];
    splices.extend(annotations(source, metadata, now, wanted["metadata"].get("annotations"))?);
    Ok(splices)
}

fn list(
    source: &Source<'_>,
    parent: &Node,
    key: &str,
    now: &Value,
    then: Option<&Value>,
) -> Result<Vec<Splice>, Error> {
    let entry = parent.entry(key);
    let Some(then) = then.and_then(Value::as_array) else {
        let removed = entry.filter(|_| then.is_none()).map(|entry| remove_entry(source, None, parent, entry));
        return removed.into_iter().collect();
    };
    let none = Vec::new();
    let now = now.as_array().unwrap_or(&none);
    let mut splices = Vec::new();
    let mut wanted = then.iter().peekable();
    let mut is_any_kept = false;
    if let Some((name, list)) = entry {
        for (index, (item, value)) in list.items().iter().zip(now).enumerate() {
            let is_item = wanted.peek().is_some_and(|next| *next == value);
            let replacement = wanted.next_if(|next| is_item || replaces(value, next)).map(Value::as_str);
            is_any_kept |= replacement.is_some();
            match replacement {
                Some(_) if is_item => {}
                // For example, blank lines below a removed line may become part of a block scalar above it.
                _ if !may_change(value) => return Err(Error::NotProved("it would change parts that are not ours")),
                Some(next) => splices.push(replace_scalar(item, next.unwrap_or_default())?),
                None => splices.push(remove_item(source, name, list, index)?),
            }
        }
        // Commas depend on each other, and an empty list needs another text than a shorter one.
        if list.is_flow() || !is_any_kept {
            splices.truncate(1);
        } else if list.items().iter().any(|item| item.block_scalar_to(item.end).is_some()) {
            // One by one from the end: the item after the block scalar goes last, and is handled as such.
            splices.drain(..splices.len().saturating_sub(1));
        }
    }
    let missing: Vec<&Value> = wanted.collect();
    if splices.is_empty() && !missing.is_empty() {
        splices.push(append_items(source, parent, key, &missing)?);
    }
    Ok(splices)
}

fn annotations(
    source: &Source<'_>,
    metadata: &Node,
    now: &Value,
    then: Option<&Value>,
) -> Result<Option<Splice>, Error> {
    let entry = metadata.entry("annotations");
    let Some(then) = then.and_then(Value::as_object) else {
        return entry.filter(|_| then.is_none()).map(|entry| remove_entry(source, None, metadata, entry)).transpose();
    };
    for (key, value) in then {
        let Some(value) = value.as_str().filter(|_| now.get(key) != Some(value)) else { continue };
        return match entry.and_then(|(_, node)| node.get(key)) {
            Some(scalar) => replace_scalar(scalar, value),
            None => append_entry(source, metadata, "annotations", key, value),
        }
        .map(Some);
    }
    let gone = now.as_object().into_iter().flatten().find(|(key, _)| !then.contains_key(*key));
    match (gone, entry) {
        (Some((key, _)), Some((name, node))) => {
            let entry = node.entry(key).expect("text and value come from the same bytes");
            remove_entry(source, Some(name), node, entry).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether an item is a flag that may be ours, or a mount or volume of ours.
fn may_change(item: &Value) -> bool {
    match item.as_str() {
        Some(item) => flag(item).is_some_and(|(name, _)| may_be_ours(&name)),
        None => item["name"].as_str().is_some_and(|name| name.starts_with(OUR_VOLUMES)),
    }
}

/// Whether `next` is the flag of `value` with another setting.
fn replaces(value: &Value, next: &Value) -> bool {
    let name = |value: &Value| value.as_str().and_then(flag).map(|(name, _)| name);
    name(value).is_some() && name(value) == name(next)
}

fn replace_scalar(node: &Node, value: &str) -> Result<Splice, Error> {
    let Kind::Scalar { style, .. } = &node.kind else { return Err(layout(node, "a string is expected")) };
    let text = match style {
        Style::Plain if is_plain(value) => value.to_string(),
        Style::SingleQuoted => format!("'{}'", value.replace('\'', "''")),
        Style::Plain | Style::DoubleQuoted => quoted(value),
        Style::Literal | Style::Folded => return Err(layout(node, "a flag in a block scalar")),
    };
    Ok(Splice { start: node.start, end: node.end, text })
}

fn remove_item(source: &Source<'_>, name: &Node, list: &Node, index: usize) -> Result<Splice, Error> {
    let items = list.items();
    if list.is_flow() {
        return remove_from_flow(
            source,
            list,
            &items.iter().map(|item| (item.start, item.end)).collect::<Vec<_>>(),
            index,
        );
    }
    let dash = dash(source, &items[index])?;
    if items.len() == 1 {
        return Ok(emptied(source, name, dash, items[index].end, "[]"));
    }
    Ok(remove_lines(source, dash, items[index].end))
}

/// Removes whole lines, from that of `start` to that of the byte before `end`.
fn remove_lines(source: &Source<'_>, start: usize, end: usize) -> Splice {
    let (start, end) = (line_start(source.text, start), next_line(source.text, end));
    // If the file has no line end at its end, the line end before the removed lines goes, so that it still has none.
    if !source.text[..end].ends_with('\n') {
        return Splice { start: without_line_end(&source.text[..start]).len(), end, text: String::new() };
    }
    let comments = comments_below(source, start, end);
    Splice {
        start,
        end: end + comments.map_or(0, str::len),
        text: comments.map_or_else(String::new, |comments| moved_out(source, start, comments)),
    }
}

/// The comment lines after removed lines that would become part of a block scalar before them.
fn comments_below<'a>(source: &Source<'a>, start: usize, end: usize) -> Option<&'a str> {
    let scalar = source.tree.block_scalar_to(source.text[..start].trim_end().len())?;
    let least = content_depth(source.text, scalar);
    let is_taken =
        |line: &&str| is_blank(line) || (line.trim_start_matches(' ').starts_with('#') && depth(line) >= least);
    let length = source.text[end..].split_inclusive('\n').take_while(is_taken).map(str::len).sum::<usize>();
    Some(&source.text[end..end + length])
}

/// Indentation of the content of a block scalar; 0 if its header sets it or the scalar is empty, since any line may
/// then be content.
fn content_depth(text: &str, scalar: &Node) -> usize {
    let content = next_line(text, scalar.start).min(scalar.end);
    let header = text[scalar.start..content].split('#').next().unwrap_or_default();
    let first = text[content..scalar.end].lines().find(|line| !is_blank(line));
    first.filter(|_| !header.contains(|c: char| c.is_ascii_digit())).map_or(0, depth)
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Moves comments out to the column of the removed line, where they remain comments.
fn moved_out(source: &Source<'_>, removed: usize, comments: &str) -> String {
    let column = depth(&source.text[removed..]);
    let moved = comments.split_inclusive('\n');
    moved.map(|line| &line[depth(line).saturating_sub(column)..]).collect()
}

/// Writes `[]` or `{}` after the key instead of its only child: an empty value would be null. Text between them stays.
fn emptied(source: &Source<'_>, name: &Node, start: usize, end: usize, empty: &str) -> Splice {
    let colon = colon(source.text, name);
    let removed = remove_lines(source, start, end);
    let text = format!(" {empty}{}{}", &source.text[colon..removed.start], removed.text);
    Splice { start: colon, end: removed.end, text }
}

fn remove_entry(
    source: &Source<'_>,
    name: Option<&Node>,
    parent: &Node,
    entry: &(Node, Node),
) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let index = entries.iter().position(|other| std::ptr::eq(other, entry)).expect("the entry belongs to the mapping");
    if *is_flow {
        let ranges: Vec<_> = entries.iter().map(|(key, value)| (key.start, value.end)).collect();
        return remove_from_flow(source, parent, &ranges, index);
    }
    let start = line_start(source.text, entry.0.start);
    if !source.text[start..entry.0.start].trim().is_empty() {
        return Err(layout(&entry.0, "its key does not begin the line"));
    }
    match name {
        Some(name) if entries.len() == 1 => Ok(emptied(source, name, start, entry.1.end, "{}")),
        None if entries.len() == 1 => Err(layout(&entry.0, "it is the only key there")),
        _ => Ok(remove_lines(source, start, entry.1.end)),
    }
}

/// Removes one of the ranges, with its comma, from a flow collection. Lines and comments of the others stay.
fn remove_from_flow(
    source: &Source<'_>,
    node: &Node,
    ranges: &[(usize, usize)],
    index: usize,
) -> Result<Splice, Error> {
    let text = source.text;
    let (start, end) = ranges[index];
    let next = ranges.get(index + 1).map(|next| next.0);
    let previous = index.checked_sub(1).map(|index| ranges[index].1);
    let comma = comma_after(text, end);
    if next.is_some() && comma.is_none() {
        return Err(layout(node, "no comma after an item"));
    }
    let last = comma.unwrap_or(end);
    let has_own_lines = is_blank(&text[line_start(text, start)..start])
        && is_blank_or_comment(&text[last..next_line(text, last)])
        && text[last..].contains('\n');
    if has_own_lines && (comma.is_some() || previous.is_none()) {
        return Ok(remove_lines(source, start, last));
    }
    // The last of several, without a trailing comma: the comma before it goes.
    let without_comma = |from: usize, to: usize| {
        let comma = comma_after(text, from).ok_or_else(|| layout(node, "no comma after an item"))?;
        Ok(format!("{}{}", &text[from..comma - 1], &text[comma..to]))
    };
    let is_one_line = |from: usize, to: usize| !text[from..to].contains(['\n', '#']);
    let splice = match (previous, next) {
        (Some(previous), None) if is_one_line(previous, start) => (previous, end, String::new()),
        (Some(previous), None) if comma.is_none() && has_own_lines => {
            let kept = without_comma(previous, line_start(text, start))?;
            (previous, next_line(text, end), kept)
        }
        (Some(previous), None) if comma.is_none() => (previous, end, without_comma(previous, start)?),
        (_, Some(next)) if is_one_line(last, next) => (start, next, String::new()),
        _ => (start, last, String::new()),
    };
    Ok(Splice { start: splice.0, end: splice.1, text: splice.2 })
}

fn append_items(source: &Source<'_>, parent: &Node, key: &str, items: &[&Value]) -> Result<Splice, Error> {
    let content = Content::Items(items);
    let Some((name, list)) = parent.entry(key) else { return add_key(source, parent, key, content) };
    let Some(last) = list.items().last() else { return fill(source, parent, name, list, content) };
    if list.is_flow() {
        return append_to_flow(source, list, Some((last.start, last.end)), &content.in_flow());
    }
    let column = column(source.text, dash(source, last)?);
    Ok(insert_lines(source, last.end, &block_items(items, column)))
}

fn append_entry(source: &Source<'_>, parent: &Node, mapping: &str, key: &str, value: &str) -> Result<Splice, Error> {
    let content = Content::Entry(key, value);
    let Some((name, node)) = parent.entry(mapping) else { return add_key(source, parent, mapping, content) };
    let last = match &node.kind {
        Kind::Mapping { entries, .. } => entries.last(),
        _ => None,
    };
    let Some(last) = last else { return fill(source, parent, name, node, content) };
    if node.is_flow() {
        return append_to_flow(source, node, Some((last.0.start, last.1.end)), &content.in_flow());
    }
    let column = column(source.text, last.0.start);
    Ok(insert_lines(source, last.1.end, &[format!("{}{key}: {}", " ".repeat(column), scalar(value))]))
}

enum Content<'a> {
    Items(&'a [&'a Value]),
    Entry(&'a str, &'a str),
}

impl Content<'_> {
    /// In a flow collection JSON is YAML, and a JSON file stays JSON.
    fn in_flow(&self) -> Vec<String> {
        match self {
            Content::Items(items) => items.iter().map(ToString::to_string).collect(),
            Content::Entry(key, value) => vec![format!("{}: {}", quoted(key), quoted(value))],
        }
    }
}

/// The lines below a key at `column`.
fn block(content: &Content<'_>, column: usize, source: &Source<'_>) -> Vec<String> {
    match content {
        Content::Items(items) => block_items(items, column + sequence_offset(source)),
        Content::Entry(key, value) => vec![format!("{}{key}: {}", " ".repeat(column + 2), scalar(value))],
    }
}

/// Adds a key after the last one of its parent.
fn add_key(source: &Source<'_>, parent: &Node, key: &str, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let last = entries.last().ok_or_else(|| layout(parent, "an empty mapping"))?;
    if *is_flow {
        let entry = format!("{}: {}", quoted(key), collection(&content));
        return append_to_flow(source, parent, Some((last.0.start, last.1.end)), &[entry]);
    }
    let column = column(source.text, entries[0].0.start);
    let mut lines = vec![format!("{}{key}:", " ".repeat(column))];
    lines.extend(block(&content, column, source));
    Ok(insert_lines(source, last.1.end, &lines))
}

fn collection(content: &Content<'_>) -> String {
    let inner = content.in_flow().join(", ");
    match content {
        Content::Items(_) => format!("[{inner}]"),
        Content::Entry(..) => format!("{{{inner}}}"),
    }
}

/// Fills a key whose value is null or empty.
fn fill(source: &Source<'_>, parent: &Node, name: &Node, value: &Node, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let written = &source.text[value.start..value.end];
    let is_empty = matches!(written, "[]" | "{}") || value.is_null();
    if *is_flow && is_empty {
        let gap = if written.is_empty() { " " } else { "" };
        return Ok(Splice { start: value.start, end: value.end, text: format!("{gap}{}", collection(&content)) });
    }
    let rest = next_line(source.text, value.end);
    let rest_of_line = &source.text[value.end..rest];
    let colon = colon(source.text, name);
    if *is_flow || !is_empty || !is_blank(&source.text[colon..value.start]) || !is_blank_or_comment(rest_of_line) {
        return append_to_flow(source, value, None, &content.in_flow());
    }
    let column = column(source.text, entries[0].0.start);
    let lines = insert_lines(source, value.end, &block(&content, column, source)).text;
    Ok(Splice { start: colon, end: rest, text: format!("{rest_of_line}{lines}") })
}

/// Appends after the last range of a flow collection, on a line of its own if that range has one.
fn append_to_flow(
    source: &Source<'_>,
    node: &Node,
    last: Option<(usize, usize)>,
    added: &[String],
) -> Result<Splice, Error> {
    let text = source.text;
    let Some((start, end)) = last else {
        if !node.is_flow() {
            return Err(layout(node, "a list or a mapping is expected"));
        }
        return Ok(Splice { start: node.start + 1, end: node.start + 1, text: added.join(", ") });
    };
    let indent = &text[line_start(text, start)..start];
    let comma = comma_after(text, end);
    let behind = comma.unwrap_or(end);
    let rest = &text[behind..next_line(text, behind)];
    if !is_blank(indent) || !is_blank_or_comment(rest) || !rest.ends_with('\n') {
        return Ok(Splice { start: end, end, text: format!(", {}", added.join(", ")) });
    }
    let line_end = eol(text);
    Ok(match comma {
        Some(_) => {
            let at = next_line(text, behind);
            let lines = added.iter().map(|added| format!("{indent}{added},{line_end}"));
            Splice { start: at, end: at, text: lines.collect() }
        }
        None => {
            let lines = added.join(&format!(",{line_end}{indent}"));
            Splice { start: end, end: end + rest.len(), text: format!(",{rest}{indent}{lines}{line_end}") }
        }
    })
}

/// Inserts lines after the line of the byte before `end`.
fn insert_lines(source: &Source<'_>, end: usize, lines: &[String]) -> Splice {
    let at = next_line(source.text, end);
    let line_end = eol(source.text);
    let has_line_end = source.text[..at].ends_with('\n');
    let text = lines.join(line_end);
    let text = if has_line_end { format!("{text}{line_end}") } else { format!("{line_end}{text}") };
    Splice { start: at, end: at, text }
}

fn block_items(items: &[&Value], column: usize) -> Vec<String> {
    items.iter().flat_map(|item| block_item(item, column)).collect()
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

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_string() } else { quoted(text) }
}

/// A double-quoted scalar, the same in YAML and JSON. Characters that only some readers treat as line ends are escaped.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// Whether every reader, YAML 1.1 or 1.2, reads the unquoted text as this string.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./=@+".contains(c);
    let begins_safely =
        text.starts_with('/') || text.starts_with("--") || text.starts_with("r-") || text.starts_with("audit-operator");
    begins_safely && text.chars().all(is_safe) || matches!(text, "Directory" | "DirectoryOrCreate")
}

/// The indentation of a list below its key in this document.
fn sequence_offset(source: &Source<'_>) -> usize {
    let spec = source.tree.get("spec");
    let found = spec.and_then(|spec| spec.entry("containers")).and_then(|(key, list)| {
        let dash = dash(source, list.items().first()?).ok()?;
        column(source.text, dash).checked_sub(column(source.text, key.start))
    });
    found.unwrap_or(0)
}

/// Position of the dash of a block item. It must be first on its line, with only blanks and comments up to the item.
fn dash(source: &Source<'_>, item: &Node) -> Result<usize, Error> {
    let mut end = item.start;
    loop {
        let start = line_start(source.text, end);
        let line = &source.text[start..end];
        let written = line.trim_start_matches(' ');
        match written.strip_prefix('-') {
            Some(rest) if is_blank_or_comment(rest) => return Ok(start + line.len() - written.len()),
            None if start > 0 && (is_blank(written) || written.starts_with('#')) => end = start - 1,
            _ => return Err(layout(item, "other text before a dash or between it and its item")),
        }
    }
}

/// End of the next comma, if only blanks and line ends precede it.
fn comma_after(text: &str, end: usize) -> Option<usize> {
    let rest = text[end..].trim_start();
    rest.starts_with(',').then(|| text.len() - rest.len() + 1)
}

fn is_blank(text: &str) -> bool {
    text.chars().all(|c| matches!(c, ' ' | '\t' | '\r' | '\n'))
}

fn is_blank_or_comment(text: &str) -> bool {
    is_blank(text) || (text.starts_with([' ', '\t']) && text.trim_start().starts_with('#'))
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
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
