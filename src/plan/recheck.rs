//! The guard's check before it touches the manifest: is this Change the edit that a permitted Revision makes, and
//! nothing else?
//!
//! The agent has judged and planned the same. The guard trusts neither the agent nor the files in our state: it renders
//! the Revision again, and makes the edit again.

use crate::api::Reason;
use crate::floor::Floor;
use crate::revision::{Content, Revision, RevisionId};
use crate::{render, validate};

use super::Refusal;

/// A Change, as our state has it.
#[derive(Clone, Copy, Debug)]
pub struct StagedChange<'a> {
    /// `None`: the original manifest.
    pub target: Option<&'a RevisionId>,
    /// `after` was in place before the Change, and is only watched.
    pub is_in_place: bool,
    /// Content of the Revision, and the floor that it was judged by; JSON.
    pub content: Option<&'a str>,
    pub floor: Option<&'a str>,
    pub original: &'a str,
    pub before: &'a str,
    pub after: &'a str,
}

/// Why the change must not begin.
pub fn recheck(staged: &StagedChange) -> Result<(), Refusal> {
    let StagedChange { target, is_in_place, content, floor, original, before, after } = *staged;
    let refused = |message: String| Refusal { reason: Reason::RevisionUnreadable, message };
    let Some(target) = target else {
        let restored = || static_pod::remove(before, original);
        return match is_in_place || after == original || restored()? == after {
            true => Ok(()),
            false => Err(refused("the staged manifest is not the original one".into())),
        };
    };
    let (Some(content), Some(floor)) = (content, floor) else {
        return Err(refused(format!("revision {target} is not in our state; the agent stages it again")));
    };
    let content: Content = serde_json::from_str(content)
        // Without the parser's message, which quotes the text: it may be a secret.
        .map_err(|error| {
            let (line, column) = (error.line(), error.column());
            refused(format!("the staged settings of revision {target} cannot be read (line {line}, column {column})"))
        })?;
    let floor: Floor =
        serde_json::from_str(floor).map_err(|error| refused(format!("the staged floor cannot be read: {error}")))?;
    let revision = Revision::new(content);
    if revision.id != *target {
        return Err(refused(format!("the staged settings are those of revision {}, not {target}", revision.id)));
    }
    validate::judge(&revision.content, &floor).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        refused(format!("revision {target} may not run on this node: {}", problems.join("; ")))
    })?;
    let intent = render::intent(&revision);
    let is_edit_of = |base: &str| {
        let edited = static_pod::update(base, original, &intent)?;
        Ok::<bool, Refusal>(edited.text == after)
    };
    // The plan starts from the original, or from somebody else's edit of it.
    let is_expected = match is_in_place {
        true => is_edit_of(after)?,
        false => is_edit_of(before)? || is_edit_of(original)?,
    };
    match is_expected {
        true => Ok(()),
        false => Err(refused(format!("the staged manifest is not the one that revision {target} makes"))),
    }
}
