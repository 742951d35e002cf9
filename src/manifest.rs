//! Text edits of the static-pod manifest of kube-apiserver, each proved before it is given out.
//!
//! A manifest is somebody else's file: comments, order, quoting and line ends of everything that is not ours stay byte for byte. So it is
//! edited as text, by splices at the places that a parser found ([`tree`]). What makes that safe is the proof ([`meaning`]): the old text, parsed,
//! with the same intent applied to its value, must equal the new text, parsed. Where it does not, nothing is given out.
//!
//! [`crate::plan`] calls this; it never reads or writes a file.

mod meaning;
mod splice;
mod tree;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{REVISION_ANNOTATION, Reason};
use crate::revision::RevisionId;

/// Names of our volumes begin with this.
const OUR_VOLUMES: &str = "audit-operator-";
/// The kubelet reads no larger manifest (kubernetes@v1.36.3 pkg/kubelet/config/file.go, maxConfigLength).
const MAX_BYTES: usize = 10 * 1024 * 1024;

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
    /// Flags of `argv`, without leading dashes, `_` as `-`. Of a repeated one the last.
    pub flags: BTreeMap<String, String>,
    /// Image of the container; empty where there is none.
    pub image: String,
}

/// An edited manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// Audit flags that were there before us and are changed or removed.
    pub taken_over: Vec<String>,
}

/// Why a manifest is not edited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the manifest is larger than 10 MiB, which the kubelet does not read")]
    TooLarge,
    #[error("the manifest is not valid YAML: {message}")]
    NotYaml { message: String },
    #[error("the manifest has more than one YAML document (line {line}): the kubelet reads the first only")]
    SeveralDocuments { line: usize },
    #[error(
        "the manifest uses an anchor, an alias, a tag or a merge key (line {line}); an edit could change more than it shows: write it out"
    )]
    Anchors { line: usize },
    #[error("the manifest is not a v1 Pod")]
    NotAPod,
    #[error("{field} is missing or not a {expected}")]
    Shape { field: &'static str, expected: &'static str },
    #[error("metadata.uid is set: the kubelet would not notice that the manifest changes")]
    FixedUid,
    #[error("no container of the pod runs kube-apiserver as its command")]
    NoApiServer,
    #[error("{0} containers of the pod run kube-apiserver; there must be one")]
    SeveralApiServers(usize),
    #[error("the container {container} starts kube-apiserver through {command}: its flags cannot be edited safely")]
    Shell { container: String, command: String },
    #[error(
        "the flag --{flag} is given twice (lines {first} and {second}): only the last one counts; remove the other"
    )]
    DuplicateFlag { flag: String, first: usize, second: usize },
    #[error("the flag --{flag} and its value are two items (line {line}): write it as --{flag}=value")]
    SplitFlag { flag: String, line: usize },
    #[error("kube-apiserver mounts {found} at {path}, where the operator needs {path} of the node{}", if *writable { ", writable" } else { "" })]
    MountConflict { path: String, found: String, writable: bool },
    #[error("line {line} is laid out in a way that cannot be edited safely ({what}); write it in the usual form")]
    Layout { line: usize, what: &'static str },
    #[error("the edit could not be proved to mean what it should ({0}); nothing was written")]
    NotProved(&'static str),
}

impl Error {
    pub fn reason(&self) -> Reason {
        match self {
            Error::MountConflict { .. } => Reason::MountConflict,
            Error::NotProved(_) | Error::Layout { .. } => Reason::EditNotProved,
            _ => Reason::ManifestUnusable,
        }
    }
}

/// Reads a manifest and refuses one that cannot be edited safely.
pub fn read(text: &str) -> Result<Facts, Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge);
    }
    // The tree first: it tells a second document, an anchor and their lines.
    let tree = tree::parse(text)?;
    let value = meaning::parse(text)?;
    let container = api_server(&value)?;
    splice::check_flags(&tree, container)?;
    let container = &value["spec"]["containers"][container];
    let argv: Vec<String> = ["command", "args"]
        .iter()
        .filter_map(|list| container[*list].as_array())
        .flatten()
        .filter_map(|item| item.as_str().map(ToString::to_string))
        .collect();
    let flags = argv
        .iter()
        .filter_map(|item| flag(item))
        .map(|(name, value)| (name, value.unwrap_or("true").to_string()))
        .collect();
    let text_at = |value: &Value| value.as_str().map(ToString::to_string);
    Ok(Facts {
        namespace: text_at(&value["metadata"]["namespace"]).unwrap_or_else(|| "default".into()),
        pod: text_at(&value["metadata"]["name"]).ok_or(Error::Shape { field: "metadata.name", expected: "string" })?,
        revision: text_at(&value["metadata"]["annotations"][REVISION_ANNOTATION]),
        argv,
        flags,
        image: text_at(&container["image"]).unwrap_or_default(),
    })
}

/// Makes a manifest say what is intended.
pub fn edit(text: &str, intent: &Intent) -> Result<Edited, Error> {
    let facts = read(text)?;
    let before = meaning::parse(text)?;
    let container = api_server(&before)?;
    let after = meaning::intended(before, container, intent)?;
    let edited = splice::towards(text, container, &after)?;
    prove(&edited, &after)?;
    let taken_over = match facts.revision {
        Some(_) => Vec::new(),
        None => facts
            .flags
            .iter()
            .filter(|(name, value)| name.starts_with("audit-") && intent.flags.get(*name) != Some(value))
            .map(|(name, value)| format!("--{name}={value}"))
            .collect(),
    };
    Ok(Edited { text: edited, taken_over })
}

/// Our parts removed by name, and the audit flags of `original` given back: for a manifest that somebody else changed meanwhile.
pub fn remove(text: &str, original: &str) -> Result<String, Error> {
    read(text)?;
    let before = meaning::parse(text)?;
    let container = api_server(&before)?;
    let original = meaning::parse(original)?;
    let original_container = api_server(&original)?;
    let after = meaning::without_ours(before, container, &original, original_container)?;
    let edited = splice::towards(text, container, &after)?;
    prove(&edited, &after)?;
    Ok(edited)
}

/// Namespace and name of the pod that a file in the manifest directory defines, if it defines one.
pub fn pod_of(text: &str) -> Option<(String, String)> {
    let value: Value = serde_saphyr::from_str(text).ok()?;
    let is_pod = value["kind"].as_str() == Some("Pod");
    let metadata = &value["metadata"];
    let name = metadata["name"].as_str().filter(|_| is_pod)?;
    Some((metadata["namespace"].as_str().unwrap_or("default").into(), name.into()))
}

/// The text must parse to exactly what was intended, and stay one that can be edited again.
fn prove(text: &str, intended: &Value) -> Result<(), Error> {
    match meaning::parse(text) {
        Ok(value) if value == *intended => {}
        Ok(_) => return Err(Error::NotProved("the new text means something else")),
        Err(_) => return Err(Error::NotProved("the new text is not valid YAML")),
    }
    read(text).map(|_| ()).map_err(|_| Error::NotProved("the new text could not be edited again"))
}

/// Index of the one container that runs kube-apiserver.
fn api_server(pod: &Value) -> Result<usize, Error> {
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err(Error::NotAPod);
    }
    if !pod["metadata"]["uid"].is_null() {
        return Err(Error::FixedUid);
    }
    let containers =
        pod["spec"]["containers"].as_array().ok_or(Error::Shape { field: "spec.containers", expected: "list" })?;
    let entrypoint = |container: &Value| -> Option<String> {
        let command = container["command"].as_array().filter(|command| !command.is_empty());
        match command {
            Some(command) => command[0].as_str().map(ToString::to_string),
            // Without a command the image's entrypoint runs, which upstream's image names after the program.
            None => image_name(container["image"].as_str()?).map(ToString::to_string),
        }
    };
    let found: Vec<usize> = (0..containers.len())
        .filter(|index| entrypoint(&containers[*index]).is_some_and(|program| base_name(&program) == "kube-apiserver"))
        .collect();
    match found[..] {
        [index] => Ok(index),
        [] => {
            let wrapped = containers.iter().find(|container| container["name"] == "kube-apiserver");
            match wrapped.and_then(entrypoint) {
                Some(command) => Err(Error::Shell { container: "kube-apiserver".into(), command }),
                None => Err(Error::NoApiServer),
            }
        }
        _ => Err(Error::SeveralApiServers(found.len())),
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `registry/path/name:tag@digest` -> `name`.
fn image_name(image: &str) -> Option<&str> {
    let without_digest = image.split('@').next()?;
    base_name(without_digest).split(':').next()
}

/// Name (without dashes, `_` as `-`: kube-apiserver takes both) and value of an argument that is a flag.
fn flag(argument: &str) -> Option<(String, Option<&str>)> {
    let flag = argument.strip_prefix("--").filter(|flag| !flag.is_empty())?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    Some((name.replace('_', "-"), value))
}

/// Flags that are true without a value (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/server/options/audit.go, AddFlags).
fn is_boolean(flag: &str) -> bool {
    flag == "audit-log-compress" || flag.ends_with("-truncate-enabled") || flag.ends_with("-batch-throttle-enable")
}

#[cfg(test)]
mod tests;
