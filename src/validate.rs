//! A Setup and what it refers to, in; a [`ValidSetup`] that can be rendered without failing, or every problem at once, out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

use crate::api::{AuditSetup, Reason};

/// What a Setup may refer to, as far as it exists.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// Secrets of the operator's namespace: name -> key -> bytes.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// ConfigMaps of the operator's namespace: name -> key -> text.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Services by (namespace, name).
    pub services: BTreeMap<(String, String), Service>,
}

/// The names that a Setup refers to: what a caller has to fetch before it validates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub secrets: Vec<String>,
    pub config_maps: Vec<String>,
    pub services: Vec<(String, String)>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Path of the field, as `spec.sinks[0].webhook.url`.
    pub field: String,
    pub reason: Reason,
    pub message: String,
}

/// What the nodes' API servers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Minor version of the oldest kube-apiserver that the Setup covers; 36 means 1.36.
    pub minor: u32,
}

/// A Setup that was judged: rendering it cannot fail.
#[derive(Clone, Debug)]
pub struct ValidSetup {}

pub fn needs(_setup: &AuditSetup) -> Needs {
    unimplemented!()
}

pub fn validate(
    _setup: &AuditSetup,
    _references: &References,
    _capabilities: Capabilities,
) -> Result<ValidSetup, Vec<Problem>> {
    unimplemented!()
}
