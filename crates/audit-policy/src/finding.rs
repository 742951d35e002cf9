//! Findings about a policy file.

use serde::Serialize;

use super::stanza::Stanza;
use kube_yaml::Place;

/// Findings that are kept of each severity, so that no file can fill the memory.
pub(super) const MAX_FINDINGS: usize = 1000;

/// A problem and its place. A contract: other programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The id of its [`Stanza`].
    pub id: &'static str,
    pub severity: Severity,
    /// Whether kube-apiserver refuses to start because of it.
    pub stops_start: bool,
    pub message: String,
    /// Counted from 1; the beginning of the file if the finding is about the whole file.
    #[serde(flatten)]
    pub place: Place,
    /// Field, such as `rules[3].resources[0].group`; empty for the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Advice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Related places, such as the rule that takes the requests of this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// The edit that `--fix` would make. `None`: there is no single correct edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
}

impl Finding {
    pub(super) fn new(stanza: &'static Stanza, place: Place, path: String, message: String) -> Self {
        Self {
            id: stanza.id,
            severity: stanza.severity,
            stops_start: stanza.stops_start,
            message,
            place,
            path,
            help: Some(stanza.fix.to_string()),
            notes: Vec::new(),
            edit: None,
        }
    }

    /// Replaces the advice of the stanza.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn edit(self, edit: Option<Edit>) -> Self {
        Self { edit, ..self }
    }
}

/// Another place that is related to a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    pub message: String,
    #[serde(flatten)]
    pub place: Place,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A change of one scalar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// Start of the scalar, at its quote if it has one.
    pub at: Place,
    /// The scalar without quotes, as kube-apiserver's parser reads it.
    pub old: String,
    /// `None`: it is the only item of a list, and the list becomes empty.
    pub new: Option<String>,
}

impl Edit {
    pub(super) fn new(at: Place, old: &str, new: &str) -> Self {
        Self { at, old: old.into(), new: Some(new.into()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; no change is needed.
    Info,
    /// The policy probably does not do what its author meant.
    Warning,
    /// kube-apiserver does not start, or the policy takes a risk that has not been acknowledged.
    Error,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}
