#![doc = include_str!("../README.md")]
//!
//! # How a policy flows
//!
//! [`load()`] reads YAML or JSON by [`kube_yaml`], decodes the fields and validates them. [`read()`] is stricter, for
//! the rules of an `AuditSetup`: it refuses whatever kube-apiserver would drop silently. [`lint()`] judges a loaded
//! policy; each of its findings belongs to a [`Stanza`]. [`write()`] gives the text of a policy.

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
mod stanza;
mod validation;
mod write;

pub use attributes::{Attributes, Text, User};
pub use coverage::{Item, Outcome, Shortfall, coverage};
pub use decode::Places;
pub use evaluate::{Decision, Evaluator};
pub use explain::{Explanation, Mismatch, explain, stages};
pub use finding::{Edit, Finding, Note, Severity};
pub use lint::{Declined, FixError, Fixed, Linted, Terms, fix, lint};
pub use load::{Loaded, MAX_BYTES, load};
pub use preset::{Preset, PresetPolicy, preset, presets};
pub use read::{ReadError, read};
pub use request::{Unaudited, attributes};
pub use rule::{GroupResources, Level, Mode, PolicyRule, Stage};
pub use stanza::{STANZAS, Stanza, documentation, manual, stanza};
pub use validation::is_dns_label;
pub use write::{Part, quoted, write};

pub use kube_yaml::Place;

/// The finding about a rule that goes below the floor.
pub const BELOW_FLOOR: &str = stanza::BELOW_FLOOR.id;

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
