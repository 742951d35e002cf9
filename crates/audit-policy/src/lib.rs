#![doc = include_str!("../README.md")]
//!
//! # How a policy flows
//!
//! [`load()`] reads YAML or JSON with [`kube_yaml`], decodes the fields and validates them. [`read()`] is stricter, for
//! the rules of an `AuditSetup`: it rejects everything that kube-apiserver would silently drop. [`lint()`] judges a
//! loaded policy; each of its findings belongs to a [`Stanza`]. [`write()`] returns the text of a policy.

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
pub use coverage::{Coverage, Item, Shortfall, coverage};
pub use decode::Places;
pub use evaluate::{Decision, Evaluator};
pub use explain::{Explanation, Mismatch, explain, stages};
pub use finding::{Edit, Finding, Note, Severity};
pub use lint::{Declined, FixError, Fixed, Linted, Terms, fix, lint};
pub use load::{Loaded, MAX_BYTES, load};
pub use preset::{Preset, PresetPolicy, preset, presets};
pub use read::{ReadError, read};
pub use request::{Unaudited, attributes, is_label_key, is_label_value};
pub use rule::{GroupResources, Level, Mode, PolicyRule, Stage};
pub use stanza::{STANZAS, Stanza, documentation, manual, stanza};
pub use validation::is_dns_label;
pub use write::{Part, quoted, write};

pub use kube_yaml::Place;

/// The finding about a rule that goes below the floor.
pub const BELOW_FLOOR: &str = stanza::BELOW_FLOOR.id;

/// A policy as kube-apiserver has it in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The first rule that matches decides. A request that no rule matches is not recorded.
    pub rules: Vec<PolicyRule>,
    /// Stages without events, in addition to those of the rule.
    pub omit_stages: Vec<Stage>,
    /// The default for rules without a value of their own.
    pub omit_managed_fields: bool,
}
