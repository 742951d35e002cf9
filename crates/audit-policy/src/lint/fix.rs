//! The edits that findings carry, carried out: the text with a few scalars spliced, all else byte for byte as it was.
//!
//! An edit is taken only where the scalar stands in the text as it was read: plain or in quotes, on one line, without
//! escapes. What comes out is judged again. Nothing comes out that kube-apiserver would not start with, and no edit is
//! made that would leave other rules without requests, or record what was not recorded and should not be: nobody is
//! certain to have meant that.

use serde::Serialize;

use super::{Edit, Finding, Linted, Severity, Terms, lint};
use crate::stanza::{
    CONFIGMAP_BODIES, DUPLICATE_FIELD, OMITS_RESPONSE_STARTED, PARTLY_SHADOWED, SECRET_BODIES, Stanza, TOKEN_BODIES,
    UNREACHABLE_RULE,
};
use kube_yaml::Place;
use kube_yaml::scalar::{self, Scalar};

/// Corrections may bring forth findings with more of them: a policy that does not start is not judged further. Mostly
/// two or three are enough; where some are declined, a round is for one.
const MAX_ROUNDS: usize = 256;

/// What a correction must not bring about: the rule is as somebody meant it then, and the policy as a whole is not.
const CONSEQUENCES: [&Stanza; 7] = [
    DUPLICATE_FIELD,
    UNREACHABLE_RULE,
    PARTLY_SHADOWED,
    SECRET_BODIES,
    TOKEN_BODIES,
    CONFIGMAP_BODIES,
    OMITS_RESPONSE_STARTED,
];

/// What became of the corrections.
#[derive(Debug, Default)]
pub struct Fixed {
    /// None where nothing was corrected.
    pub text: Option<Vec<u8>>,
    /// What was corrected, in the order of the rounds; the places are those of the text before its round.
    pub applied: Vec<Finding>,
    pub declined: Vec<Declined>,
}

/// A correction that was not made for what would follow from it.
#[derive(Clone, Debug, Serialize)]
pub struct Declined {
    #[serde(flatten)]
    pub finding: Finding,
    #[serde(rename = "wouldBring")]
    pub would_bring: Finding,
}

#[derive(Debug, thiserror::Error)]
pub enum FixError {
    #[error("the text is not UTF-8")]
    NotUtf8,
    #[error("kube-apiserver would still not start with the file: {0}")]
    DoesNotStart(String),
    #[error("the correction did not help: {0}")]
    StillThere(String),
    #[error("the correction would have changed the number of rules")]
    OtherRules,
}

/// Carries out what is certain.
pub fn fix(text: &[u8], terms: &Terms) -> Result<Fixed, FixError> {
    let mut text = std::str::from_utf8(text).map_err(|_| FixError::NotUtf8)?.to_string();
    let mut fixed = Fixed::default();
    let mut before = lint(text.as_bytes(), terms);
    for _ in 0..MAX_ROUNDS {
        let is_open = |finding: &&Finding| {
            fixed
                .declined
                .iter()
                .all(|declined| (declined.finding.id, &declined.finding.path) != (finding.id, &finding.path))
        };
        let open: Vec<&Finding> = before.findings.iter().filter(is_open).collect();
        let (mut next, mut done) = edited(&text, &open);
        if done.is_empty() {
            break;
        }
        let mut after = lint(next.as_bytes(), terms);
        if brought(&before, &after, None).is_some() {
            // Not all of them together: the first one alone, and the others in the rounds to come.
            let one = &done[0];
            let alike: Vec<&Finding> = open.into_iter().filter(|finding| finding.edit == one.edit).collect();
            (next, done) = edited(&text, &alike);
            after = lint(next.as_bytes(), terms);
            if let Some(would_bring) = brought(&before, &after, rule_of(&done[0].path)) {
                let declined = |finding| Declined { finding, would_bring: would_bring.clone() };
                fixed.declined.extend(done.into_iter().map(declined));
                continue;
            }
        }
        let is_same =
            |one: &Finding, other: &Finding| one.id == other.id && one.path == other.path && one.edit == other.edit;
        if let Some(still) = done.iter().find(|one| after.findings.iter().any(|other| is_same(one, other))) {
            return Err(FixError::StillThere(still.message.clone()));
        }
        let count = |linted: &Linted| linted.policy.as_ref().map(|policy| policy.rules.len());
        if let (Some(old), Some(new)) = (count(&before), count(&after))
            && old != new
        {
            return Err(FixError::OtherRules);
        }
        fixed.applied.extend(done);
        (text, before) = (next, after);
    }
    if fixed.applied.is_empty() {
        return Ok(fixed);
    }
    if before.policy.is_none() {
        let first = before.findings.into_iter().find(|finding| finding.severity == Severity::Error);
        return Err(FixError::DoesNotStart(first.map(|finding| finding.message).unwrap_or_default()));
    }
    fixed.text = Some(text.into_bytes());
    Ok(fixed)
}

/// What follows from corrections. That the corrected rule itself decides nothing is no harm: it did not before.
fn brought(before: &Linted, after: &Linted, corrected: Option<&str>) -> Option<Finding> {
    let is_new = |finding: &&Finding| {
        !before.findings.iter().any(|known| (known.id, &known.path) == (finding.id, &finding.path))
    };
    let is_harm = |finding: &&Finding| {
        let is_of_reach = [UNREACHABLE_RULE.id, PARTLY_SHADOWED.id].contains(&finding.id);
        // Of a policy that kube-apiserver does not start with nothing but its mistakes is known.
        let is_judged = before.policy.is_some() || finding.id == DUPLICATE_FIELD.id;
        let is_told = CONSEQUENCES.iter().any(|stanza| stanza.id == finding.id);
        is_told && is_judged && !(is_of_reach && corrected.is_some() && corrected == rule_of(&finding.path))
    };
    after.findings.iter().filter(is_harm).find(is_new).cloned()
}

/// `rules[3]` of a path below it.
fn rule_of(path: &str) -> Option<&str> {
    path.starts_with("rules[").then(|| &path[..path.find(']').map_or(path.len(), |end| end + 1)])
}

/// The text with one round of edits, and the findings that they are of.
fn edited(text: &str, findings: &[&Finding]) -> (String, Vec<Finding>) {
    let mut splices: Vec<(Splice, &Finding)> = Vec::new();
    let lines = line_starts(text);
    for finding in findings {
        let Some(splice) = finding.edit.as_ref().and_then(|edit| splice(text, &lines, edit)) else { continue };
        splices.push((splice, finding));
    }
    splices.sort_by_key(|(splice, _)| splice.start);
    let mut out = String::with_capacity(text.len());
    let mut done = Vec::new();
    let mut at = 0;
    let mut last: Option<&Splice> = None;
    for (splice, finding) in &splices {
        if last == Some(splice) {
            // Two findings with the same correction, as the group of an entry that is wrong for all of its resources.
            done.push((*finding).clone());
        } else if splice.start >= at {
            out.push_str(&text[at..splice.start]);
            out.push_str(&splice.with);
            at = splice.end;
            last = Some(splice);
            done.push((*finding).clone());
        }
    }
    out.push_str(&text[at..]);
    (out, done)
}

#[derive(Debug, PartialEq)]
struct Splice {
    start: usize,
    end: usize,
    with: String,
}

/// The offsets at which lines begin, ended as YAML 1.1 has it. A mark at the beginning of the text is no part of it.
fn line_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![text.len() - text.trim_start_matches('\u{feff}').len()];
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_pair = c == '\r' && chars.peek().is_some_and(|(_, next)| *next == '\n');
        if matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') && !is_pair {
            starts.push(at + c.len_utf8());
        }
    }
    starts
}

fn splice(text: &str, lines: &[usize], edit: &Edit) -> Option<Splice> {
    let Edit { at: Place { line, column }, old, new } = edit;
    let line_start = *lines.get(*line as usize - 1)?;
    let start = line_start + text[line_start..].char_indices().nth(*column as usize - 1)?.0;
    let rest = &text[start..];
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let is_escaped = |c: char| c == '\\' || c == '"' || c == '\'' || c.is_control();
    if old.contains(is_escaped) || (old.is_empty() && quote.is_none()) {
        return None;
    }
    let token = quote.map_or(old.clone(), |quote| format!("{quote}{old}{quote}"));
    let behind = rest.strip_prefix(token.as_str())?;
    if !behind.chars().next().is_none_or(|c| c.is_whitespace() || ",]}:".contains(c)) {
        return None;
    }
    let end = start + token.len();
    match new {
        Some(new) => {
            let with = match quote {
                Some(quote) => format!("{quote}{new}{quote}"),
                None if is_plain(new) => new.clone(),
                None => format!("\"{new}\""),
            };
            Some(Splice { start, end, with })
        }
        None => emptied(text, start, end),
    }
}

/// The list around its one item becomes `[]`.
fn emptied(text: &str, start: usize, end: usize) -> Option<Splice> {
    let head = text[..start].trim_end();
    if let Some(open) = head.strip_suffix('[') {
        let tail = &text[end..];
        let close = tail.len() - tail.trim_start().strip_prefix(']')?.len();
        return Some(Splice { start: open.len(), end: end + close, with: "[]".into() });
    }
    // A list in block style. A comment between key and item keeps the key from being found.
    let key = head.strip_suffix('-')?.trim_end().strip_suffix(':')?;
    Some(Splice { start: key.len(), end, with: ": []".into() })
}

/// Whether every YAML parser takes it for a string without quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && matches!(scalar::resolve(b"", text), Ok(Scalar::Text(_)))
}
