//! What there is to say about a policy file.

use serde::Serialize;

use super::tree::Place;

/// Of each severity at most so many are kept: enough for anybody, whatever the file.
pub(super) const MAX_FINDINGS: usize = 1000;

/// One thing, and where. A contract: other programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Closed set of kebab-case names.
    pub id: &'static str,
    pub severity: Severity,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Info,
    /// kube-apiserver starts, and the policy is hardly what was meant.
    Warning,
    /// kube-apiserver does not start.
    Error,
}
