//! A [`ValidSetup`] in, a [`Revision`] with its credentials and sink targets out. Cannot fail.

use std::collections::BTreeMap;

use crate::api::{PolicyStatus, SinkTarget};
use crate::revision::Revision;
use crate::validate::ValidSetup;

/// Everything that comes of a Setup.
#[derive(Clone, Debug)]
pub struct Rendered {
    pub revision: Revision,
    /// Files below `/etc/kubernetes/audit/credentials`, by `<sink>/<file>`; replaced in place on the node.
    pub credentials: BTreeMap<String, Vec<u8>>,
    /// What the agents probe.
    pub sinks: Vec<SinkTarget>,
    pub policy: PolicyStatus,
}

pub fn render(_setup: &ValidSetup) -> Rendered {
    unimplemented!()
}
