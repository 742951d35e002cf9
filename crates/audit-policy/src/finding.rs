//! What there is to say about a policy file.

use serde::Serialize;

use super::stanza::Stanza;
use kube_yaml::Place;

/// Of each severity at most so many are kept: enough for anybody, whatever the file.
pub(super) const MAX_FINDINGS: usize = 1000;

/// One thing, and where. A contract: other programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Closed set of kebab-case names: those of the [`Stanza`]s.
    pub id: &'static str,
    pub severity: Severity,
    /// Whether kube-apiserver refuses to start because of it.
    pub stops_start: bool,
    pub message: String,
    /// From 1; the beginning of the file where the whole of it is meant.
    #[serde(flatten)]
    pub place: Place,
    /// Field, as `rules[3].resources[0].group`; empty for the file.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What else has to do with it, as the rule that takes the requests of this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What `--fix` would do; none where there is more than one way.
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

    /// With better advice than the stanza's.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(super) fn edit(self, edit: Option<Edit>) -> Self {
        Self { edit, ..self }
    }
}

/// Another place that a finding is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    pub message: String,
    #[serde(flatten)]
    pub place: Place,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// One scalar to be written otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// Where the scalar begins, with its quote if it has one.
    pub at: Place,
    /// The scalar as kube-apiserver's parser has it, without quotes.
    pub old: String,
    /// None: it is the one item of a list, which shall be empty.
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
    /// Worth knowing. Nothing has to be done.
    Info,
    /// The policy is hardly what was meant.
    Warning,
    /// kube-apiserver does not start, or a risk is run that nobody has named.
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
