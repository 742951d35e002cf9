//! Policies of `audit.k8s.io/v1`: read, judged, and written as kube-apiserver reads them.
//!
//! [`validate`](crate::validate) reads the user's policy here and asks for its [`faults`](faults::faults);
//! [`render`](crate::render) writes the result. The reader is strict: where kube-apiserver would drop a field and only warn,
//! it refuses. Evaluation and linting are not here.

mod attributes;
mod decode;
mod evaluate;
mod faults;
mod finding;
mod load;
mod preset;
mod read;
mod request;
mod scalar;
mod tree;
mod validation;
mod write;
mod yaml;

pub use attributes::{Attributes, Text, User};
pub use decode::Places;
pub use evaluate::{Decision, Evaluator};
pub(crate) use faults::is_dns_label;
pub use faults::{Fault, faults};
pub use finding::{Finding, Severity};
pub use load::{Loaded, MAX_BYTES, load};
pub use preset::{PresetPolicy, preset};
pub(crate) use read::message_of;
pub use read::{ReadError, read};
pub use request::{Unaudited, attributes};
pub use tree::Place;
pub use write::{Part, quoted, write};

use crate::api::{PolicyRule, Stage};

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
