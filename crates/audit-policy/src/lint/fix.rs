//! Applies the edits of findings: a few scalars change, and everything else stays byte for byte.
//!
//! An edit is applied only if the scalar is in the text exactly as it was read: plain or in quotes, on one line,
//! without escapes. The new text is linted again. It is returned only if kube-apiserver would start with it. An edit is
//! declined if it would leave other rules without requests or record new credentials, because its author may not have
//! meant that.

use serde::Serialize;

use super::{Edit, Finding, Linted, Severity, Terms, lint};
use crate::stanza::{
    CONFIGMAP_BODIES, DUPLICATE_FIELD, OMITS_RESPONSE_STARTED, PARTLY_SHADOWED, SECRET_BODIES, Stanza, TOKEN_BODIES,
    UNREACHABLE_RULE,
};
use kube_yaml::Place;
use kube_yaml::scalar::{self, Scalar};

/// One round may reveal more edits: a policy that does not start is not judged further. Two or three rounds are usually
/// enough; after a declined edit, a round applies one edit only.
const MAX_ROUNDS: usize = 256;

/// Findings that a correction must not cause. The corrected rule would be as intended, but the policy as a whole would
/// not.
const CONSEQUENCES: [&Stanza; 7] = [
    DUPLICATE_FIELD,
    UNREACHABLE_RULE,
    PARTLY_SHADOWED,
    SECRET_BODIES,
    TOKEN_BODIES,
    CONFIGMAP_BODIES,
    OMITS_RESPONSE_STARTED,
];

/// The result of [`fix`].
#[derive(Debug, Default)]
pub struct Fixed {
    /// `None`: nothing was corrected.
    pub text: Option<Vec<u8>>,
    /// Corrected findings, in the order of the rounds. Their places are those of the text before the round.
    pub applied: Vec<Finding>,
    pub declined: Vec<Declined>,
}

/// A correction that was not made because of its consequence.
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
    #[error("kube-apiserver would still not start with the corrected policy: {0}")]
    DoesNotStart(String),
    #[error("the correction had no effect: {0}")]
    StillThere(String),
    #[error("the correction would have changed the number of rules")]
    OtherRules,
}

/// Makes the safe corrections.
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
        if harm(&before, &after, None).is_some() {
            // Together they do harm: apply the first one alone, and the others in later rounds.
            let one = &done[0];
            let alike: Vec<&Finding> = open.into_iter().filter(|finding| finding.edit == one.edit).collect();
            (next, done) = edited(&text, &alike);
            after = lint(next.as_bytes(), terms);
            if let Some(would_bring) = harm(&before, &after, rule_of(&done[0].path)) {
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

/// A harmful consequence of corrections. That the corrected rule itself has no effect is not one: it had none before.
fn harm(before: &Linted, after: &Linted, corrected: Option<&str>) -> Option<Finding> {
    let is_new = |finding: &&Finding| {
        !before.findings.iter().any(|known| (known.id, &known.path) == (finding.id, &finding.path))
    };
    let is_harm = |finding: &&Finding| {
        let is_of_reach = [UNREACHABLE_RULE.id, PARTLY_SHADOWED.id].contains(&finding.id);
        // If kube-apiserver did not start with the old policy, only its errors were known.
        let is_judged = before.policy.is_some() || finding.id == DUPLICATE_FIELD.id;
        let is_consequence = CONSEQUENCES.iter().any(|stanza| stanza.id == finding.id);
        is_consequence && is_judged && !(is_of_reach && corrected.is_some() && corrected == rule_of(&finding.path))
    };
    after.findings.iter().filter(is_harm).find(is_new).cloned()
}

/// The `rules[3]` that a path begins with.
fn rule_of(path: &str) -> Option<&str> {
    path.starts_with("rules[").then(|| &path[..path.find(']').map_or(path.len(), |end| end + 1)])
}

/// The text after one round of edits, and the findings that they correct.
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
            // Two findings with the same correction, such as the wrong group of an entry with two resources.
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

/// The offsets of the lines, with the line ends of YAML 1.1. A byte order mark is not part of the first line.
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

/// Replaces the list around its only item by `[]`.
fn emptied(text: &str, start: usize, end: usize) -> Option<Splice> {
    let head = text[..start].trim_end();
    if let Some(open) = head.strip_suffix('[') {
        let tail = &text[end..];
        let close = tail.len() - tail.trim_start().strip_prefix(']')?.len();
        return Some(Splice { start: open.len(), end: end + close, with: "[]".into() });
    }
    // A list in block style. With a comment between key and item, the key is not found.
    let key = head.strip_suffix('-')?.trim_end().strip_suffix(':')?;
    Some(Splice { start: key.len(), end, with: ": []".into() })
}

/// Whether every YAML parser reads the unquoted text as a string, at any place.
fn is_plain(text: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(is_safe)
        && matches!(scalar::resolve(b"", text), Ok(Scalar::Text(_)))
}
