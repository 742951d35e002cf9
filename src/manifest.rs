//! Text edits of the static-pod manifest of kube-apiserver, each proved before it is given out.

use std::collections::BTreeMap;

use crate::revision::RevisionId;

/// What the manifest shall say after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The Revision, for the annotation.
    pub revision: RevisionId,
    /// The whole `audit-*` family, without leading dashes: flags that are not named here are removed.
    pub flags: BTreeMap<String, String>,
    /// Flags that are set only where the manifest has none of that name.
    pub defaults: BTreeMap<String, String>,
    /// Directories of the host that the flags need, each mounted at the same path.
    pub mounts: Vec<Mount>,
}

/// A directory of the host, mounted at the same path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the volume: `audit-operator-config`, `audit-operator-log`.
    pub name: String,
    pub path: String,
    pub read_only: bool,
}

/// What the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub namespace: String,
    pub pod: String,
    /// Our annotation.
    pub revision: Option<String>,
    /// `command` and `args` of the container, as one list.
    pub argv: Vec<String>,
    /// Flags of `argv`, without leading dashes, `_` as `-`.
    pub flags: BTreeMap<String, String>,
    /// Image of the container.
    pub image: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("stub")]
    Stub,
}

pub fn read(_text: &str) -> Result<Facts, Error> {
    unimplemented!()
}

pub fn edit(_text: &str, _intent: &Intent) -> Result<String, Error> {
    unimplemented!()
}

/// Our parts removed by name, and the audit flags and mounts of `original` given back.
pub fn remove(_text: &str, _original: &str) -> Result<String, Error> {
    unimplemented!()
}

/// Namespace and name of the pod that a file in the manifest directory defines, if it defines one.
pub fn pod_of(_text: &str) -> Option<(String, String)> {
    unimplemented!()
}
