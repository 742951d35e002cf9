//! Byte splices that lead from a text to a meaning. Places that are apart are changed at once, and the text parsed anew, until nothing
//! differs.
//!
//! Only the lists and mappings that an edit may change are looked at; everything outside a splice keeps its bytes. Whether the
//! result is right is not decided here: the caller proves it.

use kube_yaml::Style;
use serde_json::Value;

use super::tree::{self, Kind, Node, colon};
use super::{Error, Manifest, OUR_VOLUMES, flag, is_boolean, may_be_ours, meaning};

/// More rounds than any edit takes: splices that lead nowhere must end.
const MAX_ROUNDS: usize = 1000;

/// Replace these bytes by that text.
struct Splice {
    start: usize,
    end: usize,
    text: String,
}

/// Edits `text`, which says `manifest`, until it means `wanted`: the new text, and what it says.
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
    Err(Error::NotProved("it has no end"))
}

/// From the end to the start, so that places stay where they are. One that touches a later one waits for the next round: where it
/// belongs is known again when the text is parsed again. Only lines that go may lie side by side, unless a comment follows them: what is
/// before it then is only known when they are gone.
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

/// Refuses flags of ours that are given twice or apart from their value, and what hides which flags there are.
pub(super) fn check_flags(container: &Node) -> Result<(), Error> {
    let mut seen: Vec<(String, usize)> = Vec::new();
    for item in ["command", "args"].into_iter().flat_map(|list| container.get(list).map_or(&[][..], Node::items)) {
        let Some(text) = item.text().filter(|_| item.is_string()) else {
            return Err(Error::NotAString { line: item.line });
        };
        if text == "--" {
            return Err(Error::EndOfFlags { line: item.line });
        }
        // The kubelet puts environment variables in.
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

/// Whether blanks or a comment come first.
fn begins_with_comment(text: &str) -> bool {
    text.lines().next().is_some_and(|line| is_blank(line) || line.trim_start_matches(' ').starts_with('#'))
}

struct Place<'a> {
    text: &'a str,
    tree: &'a Node,
}

/// What differs; of what depends on each other, the first. `tree` and `value` are what `text` says.
fn differences(text: &str, tree: &Node, value: &Value, container: usize, wanted: &Value) -> Result<Vec<Splice>, Error> {
    let gone = || Error::NotProved("a part of the manifest is gone");
    let place = &Place { text, tree };
    let spec = tree.get("spec").ok_or_else(gone)?;
    let node = spec.get("containers").and_then(|list| list.items().get(container)).ok_or_else(gone)?;
    let metadata = tree.get("metadata").ok_or_else(gone)?;
    let (now, then) = (&value["spec"]["containers"][container], &wanted["spec"]["containers"][container]);
    let mut splices = Vec::new();
    for key in ["command", "args", "volumeMounts"] {
        splices.extend(list(place, node, key, &now[key], then.get(key))?);
    }
    splices.extend(list(place, spec, "volumes", &value["spec"]["volumes"], wanted["spec"].get("volumes"))?);
    let now = &value["metadata"]["annotations"];
    splices.extend(annotations(place, metadata, now, wanted["metadata"].get("annotations"))?);
    Ok(splices)
}

fn list(place: &Place<'_>, parent: &Node, key: &str, now: &Value, then: Option<&Value>) -> Result<Vec<Splice>, Error> {
    let entry = parent.entry(key);
    let Some(then) = then.and_then(Value::as_array) else {
        let removed = entry.filter(|_| then.is_none()).map(|entry| remove_entry(place, None, parent, entry));
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
                // Where a line goes, blank ones below it may become part of a block scalar above it, for one.
                _ if !may_change(value) => return Err(Error::NotProved("it would change a part that is not ours")),
                Some(next) => splices.push(replace_scalar(item, next.unwrap_or_default())?),
                None => splices.push(remove_item(place, name, list, index)?),
            }
        }
        // Commas hang together, and what is left when all items go is another text than any of them leaves.
        if list.is_flow() || !is_any_kept {
            splices.truncate(1);
        } else if list.items().iter().any(|item| item.block_scalar_to(item.end).is_some()) {
            // From the end, one by one: the last to go is the one behind the block scalar, and knows it.
            splices.drain(..splices.len().saturating_sub(1));
        }
    }
    let missing: Vec<&Value> = wanted.collect();
    if splices.is_empty() && !missing.is_empty() {
        splices.push(append_items(place, parent, key, &missing)?);
    }
    Ok(splices)
}

fn annotations(place: &Place<'_>, metadata: &Node, now: &Value, then: Option<&Value>) -> Result<Option<Splice>, Error> {
    let entry = metadata.entry("annotations");
    let Some(then) = then.and_then(Value::as_object) else {
        return entry.filter(|_| then.is_none()).map(|entry| remove_entry(place, None, metadata, entry)).transpose();
    };
    for (key, value) in then {
        let Some(value) = value.as_str().filter(|_| now.get(key) != Some(value)) else { continue };
        return match entry.and_then(|(_, node)| node.get(key)) {
            Some(scalar) => replace_scalar(scalar, value),
            None => append_entry(place, metadata, "annotations", key, value),
        }
        .map(Some);
    }
    let gone = now.as_object().into_iter().flatten().find(|(key, _)| !then.contains_key(*key));
    match (gone, entry) {
        (Some((key, _)), Some((name, node))) => {
            let entry = node.entry(key).expect("text and value come from the same bytes");
            remove_entry(place, Some(name), node, entry).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether it is a flag that may be ours, or a mount or a volume of ours.
fn may_change(item: &Value) -> bool {
    match item.as_str() {
        Some(item) => flag(item).is_some_and(|(name, _)| may_be_ours(&name)),
        None => item["name"].as_str().is_some_and(|name| name.starts_with(OUR_VOLUMES)),
    }
}

/// Whether `next` is `value` with another setting of the same flag.
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

fn remove_item(place: &Place<'_>, name: &Node, list: &Node, index: usize) -> Result<Splice, Error> {
    let items = list.items();
    if list.is_flow() {
        return remove_from_flow(
            place,
            list,
            &items.iter().map(|item| (item.start, item.end)).collect::<Vec<_>>(),
            index,
        );
    }
    let dash = dash(place, &items[index])?;
    if items.len() == 1 {
        return Ok(emptied(place, name, dash, items[index].end, "[]"));
    }
    Ok(remove_lines(place, dash, items[index].end))
}

/// Whole lines, from the one that holds `start` to the one that holds the byte before `end`.
fn remove_lines(place: &Place<'_>, start: usize, end: usize) -> Splice {
    let (start, end) = (line_start(place.text, start), next_line(place.text, end));
    // Without a line end at the end of the file, the one before goes: the file had none before, and has none after.
    if !place.text[..end].ends_with('\n') {
        return Splice { start: without_line_end(&place.text[..start]).len(), end, text: String::new() };
    }
    let comments = comments_below(place, start, end);
    Splice {
        start,
        end: end + comments.map_or(0, str::len),
        text: comments.map_or_else(String::new, |comments| moved_out(place, start, comments)),
    }
}

/// The lines of comments behind removed ones that a block scalar before those would take for its own.
fn comments_below<'a>(place: &Place<'a>, start: usize, end: usize) -> Option<&'a str> {
    let scalar = place.tree.block_scalar_to(place.text[..start].trim_end().len())?;
    let least = content_depth(place.text, scalar);
    let is_taken =
        |line: &&str| is_blank(line) || (line.trim_start_matches(' ').starts_with('#') && depth(line) >= least);
    let length = place.text[end..].split_inclusive('\n').take_while(is_taken).map(str::len).sum::<usize>();
    Some(&place.text[end..end + length])
}

/// Blanks before the content of a block scalar; none where its header tells how many, or it is empty: any line may be content then.
fn content_depth(text: &str, scalar: &Node) -> usize {
    let content = next_line(text, scalar.start).min(scalar.end);
    let header = text[scalar.start..content].split('#').next().unwrap_or_default();
    let first = text[content..scalar.end].lines().find(|line| !is_blank(line));
    first.filter(|_| !header.contains(|c: char| c.is_ascii_digit())).map_or(0, depth)
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Comments no deeper than the line that was removed before them: there they are comments still, and blanks are nothing.
fn moved_out(place: &Place<'_>, removed: usize, comments: &str) -> String {
    let column = depth(&place.text[removed..]);
    let moved = comments.split_inclusive('\n');
    moved.map(|line| &line[depth(line).saturating_sub(column)..]).collect()
}

/// `[]` or `{}` behind the key in place of the only thing below it: a key with nothing would be null. What is between them stays.
fn emptied(place: &Place<'_>, name: &Node, start: usize, end: usize, empty: &str) -> Splice {
    let colon = colon(place.text, name);
    let removed = remove_lines(place, start, end);
    let text = format!(" {empty}{}{}", &place.text[colon..removed.start], removed.text);
    Splice { start: colon, end: removed.end, text }
}

fn remove_entry(place: &Place<'_>, name: Option<&Node>, parent: &Node, entry: &(Node, Node)) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let index = entries.iter().position(|other| std::ptr::eq(other, entry)).expect("the entry is one of the mapping");
    if *is_flow {
        let ranges: Vec<_> = entries.iter().map(|(key, value)| (key.start, value.end)).collect();
        return remove_from_flow(place, parent, &ranges, index);
    }
    let start = line_start(place.text, entry.0.start);
    if !place.text[start..entry.0.start].trim().is_empty() {
        return Err(layout(&entry.0, "its key does not begin the line"));
    }
    match name {
        Some(name) if entries.len() == 1 => Ok(emptied(place, name, start, entry.1.end, "{}")),
        None if entries.len() == 1 => Err(layout(&entry.0, "it is the only key there")),
        _ => Ok(remove_lines(place, start, entry.1.end)),
    }
}

/// Takes one of the ranges, and the comma that it needs no more, out of a flow collection. Lines and comments of the others stay.
fn remove_from_flow(place: &Place<'_>, node: &Node, ranges: &[(usize, usize)], index: usize) -> Result<Splice, Error> {
    let text = place.text;
    let (start, end) = ranges[index];
    let next = ranges.get(index + 1).map(|next| next.0);
    let previous = index.checked_sub(1).map(|index| ranges[index].1);
    let comma = comma_after(text, end);
    if next.is_some() && comma.is_none() {
        return Err(layout(node, "a comma does not follow what it separates"));
    }
    let last = comma.unwrap_or(end);
    let has_own_lines = is_blank(&text[line_start(text, start)..start])
        && is_blank_or_comment(&text[last..next_line(text, last)])
        && text[last..].contains('\n');
    if has_own_lines && (comma.is_some() || previous.is_none()) {
        return Ok(remove_lines(place, start, last));
    }
    // The last of several, without a comma behind it: the comma before it goes.
    let without_comma = |from: usize, to: usize| {
        let comma = comma_after(text, from).ok_or_else(|| layout(node, "a comma does not follow what it separates"))?;
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

fn append_items(place: &Place<'_>, parent: &Node, key: &str, items: &[&Value]) -> Result<Splice, Error> {
    let content = Content::Items(items);
    let Some((name, list)) = parent.entry(key) else { return add_key(place, parent, key, content) };
    let Some(last) = list.items().last() else { return fill(place, parent, name, list, content) };
    if list.is_flow() {
        return append_to_flow(place, list, Some((last.start, last.end)), &content.in_flow());
    }
    let column = column(place.text, dash(place, last)?);
    Ok(insert_lines(place, last.end, &block_items(items, column)))
}

fn append_entry(place: &Place<'_>, parent: &Node, mapping: &str, key: &str, value: &str) -> Result<Splice, Error> {
    let content = Content::Entry(key, value);
    let Some((name, node)) = parent.entry(mapping) else { return add_key(place, parent, mapping, content) };
    let last = match &node.kind {
        Kind::Mapping { entries, .. } => entries.last(),
        _ => None,
    };
    let Some(last) = last else { return fill(place, parent, name, node, content) };
    if node.is_flow() {
        return append_to_flow(place, node, Some((last.0.start, last.1.end)), &content.in_flow());
    }
    let column = column(place.text, last.0.start);
    Ok(insert_lines(place, last.1.end, &[format!("{}{key}: {}", " ".repeat(column), scalar(value))]))
}

enum Content<'a> {
    Items(&'a [&'a Value]),
    Entry(&'a str, &'a str),
}

impl Content<'_> {
    /// JSON is YAML in a flow collection, and stays JSON in a JSON file.
    fn in_flow(&self) -> Vec<String> {
        match self {
            Content::Items(items) => items.iter().map(ToString::to_string).collect(),
            Content::Entry(key, value) => vec![format!("{}: {}", quoted(key), quoted(value))],
        }
    }
}

/// The lines below a key at `column`.
fn block(content: &Content<'_>, column: usize, place: &Place<'_>) -> Vec<String> {
    match content {
        Content::Items(items) => block_items(items, column + sequence_offset(place)),
        Content::Entry(key, value) => vec![format!("{}{key}: {}", " ".repeat(column + 2), scalar(value))],
    }
}

/// A key that is not there yet, behind the last one of its parent.
fn add_key(place: &Place<'_>, parent: &Node, key: &str, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let last = entries.last().ok_or_else(|| layout(parent, "an empty mapping"))?;
    if *is_flow {
        let entry = format!("{}: {}", quoted(key), collection(&content));
        return append_to_flow(place, parent, Some((last.0.start, last.1.end)), &[entry]);
    }
    let column = column(place.text, entries[0].0.start);
    let mut lines = vec![format!("{}{key}:", " ".repeat(column))];
    lines.extend(block(&content, column, place));
    Ok(insert_lines(place, last.1.end, &lines))
}

fn collection(content: &Content<'_>) -> String {
    let inner = content.in_flow().join(", ");
    match content {
        Content::Items(_) => format!("[{inner}]"),
        Content::Entry(..) => format!("{{{inner}}}"),
    }
}

/// A key whose value is null or empty.
fn fill(place: &Place<'_>, parent: &Node, name: &Node, value: &Node, content: Content<'_>) -> Result<Splice, Error> {
    let Kind::Mapping { entries, is_flow } = &parent.kind else { return Err(layout(parent, "a mapping is expected")) };
    let written = &place.text[value.start..value.end];
    let is_empty = matches!(written, "[]" | "{}") || value.is_null();
    if *is_flow && is_empty {
        let gap = if written.is_empty() { " " } else { "" };
        return Ok(Splice { start: value.start, end: value.end, text: format!("{gap}{}", collection(&content)) });
    }
    let rest = next_line(place.text, value.end);
    let rest_of_line = &place.text[value.end..rest];
    let colon = colon(place.text, name);
    if *is_flow || !is_empty || !is_blank(&place.text[colon..value.start]) || !is_blank_or_comment(rest_of_line) {
        return append_to_flow(place, value, None, &content.in_flow());
    }
    let column = column(place.text, entries[0].0.start);
    let lines = insert_lines(place, value.end, &block(&content, column, place)).text;
    Ok(Splice { start: colon, end: rest, text: format!("{rest_of_line}{lines}") })
}

/// Behind the last range of a flow collection: on lines of their own where that has one.
fn append_to_flow(
    place: &Place<'_>,
    node: &Node,
    last: Option<(usize, usize)>,
    added: &[String],
) -> Result<Splice, Error> {
    let text = place.text;
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

/// Lines behind the line that holds the byte before `end`.
fn insert_lines(place: &Place<'_>, end: usize, lines: &[String]) -> Splice {
    let at = next_line(place.text, end);
    let line_end = eol(place.text);
    let has_line_end = place.text[..at].ends_with('\n');
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

/// A double-quoted scalar, the same in YAML and in JSON. What only some readers take for a line end is escaped.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    let escaped = |c: char| match c {
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

/// Whether every reader, YAML 1.1 or 1.2, takes the bare text for just this text.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_./=@+".contains(c);
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

/// Where the dash of a block item stands: the first thing on its line, with nothing but blanks and comments between it and its item.
fn dash(place: &Place<'_>, item: &Node) -> Result<usize, Error> {
    let mut end = item.start;
    loop {
        let start = line_start(place.text, end);
        let line = &place.text[start..end];
        let written = line.trim_start_matches(' ');
        match written.strip_prefix('-') {
            Some(rest) if is_blank_or_comment(rest) => return Ok(start + line.len() - written.len()),
            None if start > 0 && (is_blank(written) || written.starts_with('#')) => end = start - 1,
            _ => {
                return Err(layout(item, "there is something else between a dash, its item and the start of the line"));
            }
        }
    }
}

/// Behind the comma that follows, with nothing but blanks and line ends between.
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
