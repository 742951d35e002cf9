//! Policies of `audit.k8s.io/v1`: loaded, judged, applied and written as kube-apiserver has it.
//!
//! - [`load`] gives what kube-apiserver would hold of a file, or why it would not start, with the place of everything it would
//!   complain about: YAML or JSON ([`kube_yaml`]) to fields (`decode`), and `validation`.
//! - [`Evaluator`] decides about a request; [`attributes`] derives what it needs from a method and a URL. [`explain`] tells why,
//!   [`coverage`] what of the benchmarks is met.
//! - [`lint`](lint()) says what is wrong with a file beyond that: rules that decide nothing, names that match nothing, Secrets in the
//!   log. Every finding is of a [`Stanza`], and [`fix`] corrects what is certain.
//! - [`read`] is for policies of a Setup and stricter: it refuses what kube-apiserver would drop or take in silence.
//!   [`validate`](crate::validate) asks it, and lint about the whole; [`render`](crate::render) writes the result.
//!
//! Upstream's Go code is the reference, and `tests/upstream` compares with it. Everything here is bounded in time and memory by
//! the length of its input, and nothing recurses on it.

mod attributes;
mod coverage;
mod decode;
pub mod diff;
mod evaluate;
mod explain;
mod finding;
mod lint;
mod load;
pub mod log;
mod preset;
mod read;
pub mod replay;
mod request;
mod rule;
mod validation;
mod write;

pub use attributes::{Attributes, Text, User};
pub use coverage::{Item, Outcome, Shortfall, coverage};
pub use decode::Places;
pub use evaluate::{Decision, Evaluator};
pub use explain::{Explanation, Mismatch, explain, stages};
pub use finding::{Edit, Finding, Note, Severity};
pub use lint::{Declined, FixError, Fixed, Linted, STANZAS, Stanza, Terms, documentation, fix, lint, manual, stanza};
pub use load::{Loaded, MAX_BYTES, load};
pub use preset::{Preset, PresetPolicy, preset, presets};
pub use read::{ReadError, read};
pub use request::{Unaudited, attributes};
pub use rule::{GroupResources, Level, Mode, PolicyRule, Stage};
pub use validation::is_dns_label;
pub use write::{Part, quoted, write};

pub use kube_yaml::Place;

/// The finding about a rule that goes below the floor.
pub const BELOW_FLOOR: &str = lint::stanza::BELOW_FLOOR.id;

/// A policy as kube-apiserver holds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The first rule that matches decides; a request that none matches is not recorded.
    pub rules: Vec<PolicyRule>,
    /// Stages without events, beside those of the rule.
    pub omit_stages: Vec<Stage>,
    /// For rules that say nothing about it.
    pub omit_managed_fields: bool,
}
