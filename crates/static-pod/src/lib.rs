#![doc = include_str!("../README.md")]
//!
//! # How an edit is made
//!
//! `tree` finds the places of the parts that an edit may change, `splice` changes the text there, and `meaning`
//! computes the present and the intended value. All of them read with `kube_yaml`, as the kubelet does.

mod meaning;
mod splice;
mod tree;

use std::collections::BTreeMap;

use serde_json::Value;

use tree::Node;

/// Annotation in the manifest of kube-apiserver: its Revision.
pub const REVISION_ANNOTATION: &str = "audit-operator.io/revision";
/// How long a stopping kube-apiserver waits for open watches to end (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/server_run_options.go).
pub const DRAIN_FLAG: &str = "shutdown-watch-termination-grace-period";
/// How long a stopping kube-apiserver continues to serve while `/readyz` fails (same file).
pub const DELAY_FLAG: &str = "shutdown-delay-duration";

/// The flags outside the audit family that an edit adds if the manifest does not set them.
const SHUTDOWN_FLAGS: [&str; 2] = [DELAY_FLAG, DRAIN_FLAG];
/// Prefix of the names of our volumes.
const OUR_VOLUMES: &str = "audit-operator-";
/// The kubelet does not read a larger manifest (kubernetes@v1.36.3 pkg/kubelet/config/file.go, maxConfigLength).
const MAX_BYTES: usize = 10 * 1024 * 1024;

/// The intended content of the manifest after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The Revision, for the annotation.
    pub revision: String,
    /// The whole `audit-*` family, without leading dashes: flags that are not named here are removed.
    pub flags: BTreeMap<String, String>,
    /// Flags that are set only if the original manifest does not set them.
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

/// The content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub namespace: String,
    pub pod: String,
    /// Name of the container that runs kube-apiserver.
    pub container: String,
    /// Our annotation.
    pub revision: Option<String>,
    /// `command` and `args` of the container, as one list.
    pub argv: Vec<String>,
    /// Flags of `argv`, without leading dashes, with `-` for `_`. The last of repeated flags counts.
    pub flags: BTreeMap<String, String>,
    /// Image of the container; empty if there is none.
    pub image: String,
    /// The field that prevents kube-apiserver from being root on the node, as written: `runAsUser: 65532`. `None`: it
    /// is root, unless its image names another user.
    pub rootless: Option<String>,
    /// Seconds that the kubelet gives kube-apiserver to stop; `None`: 30 (kubernetes@v1.36.3
    /// pkg/apis/core/v1/defaults.go).
    pub grace_seconds: Option<i64>,
    /// Environment variables of the container that have a literal value.
    pub env: BTreeMap<String, String>,
    /// Addresses of the pod's `hostAliases`, by name.
    pub host_aliases: BTreeMap<String, Vec<String>>,
}

/// An edited manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// Audit flags that somebody else set and the edit changed or removed.
    pub taken_over: Vec<String>,
}

/// Why a manifest cannot be edited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the manifest is larger than 10 MiB, which the kubelet does not read")]
    TooLarge,
    #[error("the manifest is not valid YAML: {message}")]
    NotYaml { message: String },
    #[error(
        "the manifest begins with a brace, so the kubelet reads it as JSON, but it is not valid JSON ({message}); if it is YAML, put a line with --- at its top"
    )]
    NotJson { message: String },
    #[error("line {line} ends with a character that only some YAML readers treat as a line end; use newlines")]
    LineEnd { line: usize },
    #[error("the key {key} is given twice (lines {first} and {second}); remove one")]
    DuplicateKey { key: String, first: usize, second: usize },
    #[error(
        "the manifest has more than one YAML document (line {line}), but the kubelet reads only the first; remove the rest"
    )]
    SeveralDocuments { line: usize },
    #[error("line {line} has {what}, so an edit there could change other parts too; write the value out")]
    Anchors { line: usize, what: &'static str },
    #[error("the manifest is not a v1 Pod: {found}")]
    NotAPod { found: String },
    #[error("{field} is missing or not a {expected} (line {line})")]
    Shape { field: &'static str, expected: &'static str, line: usize },
    #[error("metadata.uid is set (line {line}), so the kubelet would not notice a change of the manifest; remove it")]
    FixedUid { line: usize },
    #[error("no container of the pod (from line {line} on) runs kube-apiserver as its command")]
    NoApiServer { line: usize },
    #[error("{} containers of the pod run kube-apiserver (lines {}); there must be one", lines.len(), listed(lines))]
    SeveralApiServers { lines: Vec<usize> },
    #[error(
        "the container {container} (line {line}) starts kube-apiserver through {command}, so its flags cannot be edited safely; let it run kube-apiserver itself"
    )]
    Wrapped { container: String, command: String, line: usize },
    #[error(
        "the flag --{flag} is given twice (lines {first} and {second}), but only the last one counts; remove the other"
    )]
    DuplicateFlag { flag: String, first: usize, second: usize },
    #[error("the flag --{flag} and its value are separate items (line {line}); write --{flag}=value")]
    SplitFlag { flag: String, line: usize },
    #[error("line {line} of command or args is not a string; put it in quotes")]
    NotAString { line: usize },
    #[error("line {line} (--) ends the flags, so no flag can be added; remove it")]
    EndOfFlags { line: usize },
    #[error(
        "the name of a flag comes from an environment variable (line {line}), so the flag is unknown; write its name out"
    )]
    VariableFlag { line: usize },
    #[error(
        "kube-apiserver mounts {found} at {at} (line {line}), but the operator needs {path} of the node there{}; remove that mount or choose another path",
        if *writable { ", writable" } else { "" }
    )]
    MountConflict { path: String, at: String, found: String, writable: bool, line: usize },
    #[error("no mount of kube-apiserver shows {path} of the node, which --{flag} names")]
    NotMounted { flag: String, path: String },
    #[error("the layout of line {line} cannot be edited safely ({what}); write it in the usual form")]
    Layout { line: usize, what: &'static str },
    #[error("the edit could not be proved correct ({0}); nothing was written")]
    NotProved(&'static str),
}

/// `3, 7 and 9`.
fn listed(lines: &[usize]) -> String {
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    match lines.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => lines.concat(),
    }
}

/// A manifest that can be edited: its text as a tree and as a value.
struct Manifest {
    tree: Node,
    value: Value,
    /// Index of the container that runs kube-apiserver.
    container: usize,
}

impl Manifest {
    /// Refuses a manifest that cannot be edited safely.
    fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        // The tree first: it reports a second document or an anchor with its line.
        let tree = tree::parse(text)?;
        let value = meaning::parse(text)?;
        Self::new(text, tree, value)
    }

    fn new(text: &str, tree: Node, value: Value) -> Result<Self, Error> {
        if text.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let container = tree::api_server(&tree)?;
        let manifest = Self { tree, value, container };
        splice::check_flags(manifest.container_node())?;
        Ok(manifest)
    }

    fn container(&self) -> &Value {
        &self.value["spec"]["containers"][self.container]
    }

    fn container_node(&self) -> &Node {
        let list = self.tree.get("spec").and_then(|spec| spec.get("containers"));
        list.and_then(|list| list.items().get(self.container)).expect("tree::api_server found it there")
    }

    /// Line of an item of `volumeMounts`.
    fn mount_line(&self, index: usize) -> usize {
        let mounts = self.container_node().get("volumeMounts").map_or(&[][..], Node::items);
        mounts.get(index).map_or(self.container_node().line, |mount| mount.line)
    }

    /// `command` and `args` as one list.
    fn arguments(&self) -> impl Iterator<Item = &str> {
        let lists = ["command", "args"].into_iter().filter_map(|list| self.container()[list].as_array());
        lists.flatten().filter_map(Value::as_str)
    }

    fn has_flag(&self, flag_name: &str) -> bool {
        self.arguments().filter_map(flag).any(|(name, _)| name == flag_name)
    }

    fn facts(&self) -> Result<Facts, Error> {
        let metadata = &self.value["metadata"];
        let argv: Vec<String> = self.arguments().map(ToString::to_string).collect();
        let text_at = |value: &Value| value.as_str().map(ToString::to_string);
        Ok(Facts {
            namespace: text_at(&metadata["namespace"]).unwrap_or_else(|| "default".into()),
            pod: text_at(&metadata["name"]).ok_or_else(|| Error::Shape {
                field: "metadata.name",
                expected: "string",
                line: self.tree.get("metadata").unwrap_or(&self.tree).line,
            })?,
            container: text_at(&self.container()["name"]).unwrap_or_default(),
            revision: text_at(&metadata["annotations"][REVISION_ANNOTATION]),
            flags: flags(&argv),
            argv,
            image: text_at(&self.container()["image"]).unwrap_or_default(),
            rootless: rootless(&self.value["spec"], self.container()),
            grace_seconds: self.value["spec"]["terminationGracePeriodSeconds"].as_i64(),
            env: env(self.container()),
            host_aliases: host_aliases(&self.value["spec"]),
        })
    }
}

/// Reads a manifest. A manifest that cannot be edited safely is an error.
pub fn read(text: &str) -> Result<Facts, Error> {
    Manifest::parse(text)?.facts()
}

/// Applies the intent to a manifest that was not edited before.
pub fn edit(text: &str, intent: &Intent) -> Result<Edited, Error> {
    let manifest = Manifest::parse(text)?;
    updated(text, &manifest, &manifest, intent)
}

/// Applies the intent to a manifest. `original` is the manifest before our first edit: flags in it are the user's own.
pub fn update(text: &str, original: &str, intent: &Intent) -> Result<Edited, Error> {
    updated(text, &Manifest::parse(text)?, &Manifest::parse(original)?, intent)
}

fn updated(text: &str, before: &Manifest, original: &Manifest, intent: &Intent) -> Result<Edited, Error> {
    let facts = before.facts()?;
    let edited = proved(text, before, |manifest| meaning::intended(manifest, original, intent))?;
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

/// Removes our parts by name and restores the audit flags of `original`, for a manifest that somebody else has changed
/// since.
pub fn remove(text: &str, original: &str) -> Result<String, Error> {
    let before = Manifest::parse(text)?;
    let original = Manifest::parse(original)?;
    proved(text, &before, |manifest| Ok(meaning::without_ours(manifest, &original)))
}

/// Removes our parts by name if the original is lost. Its audit flags cannot be restored.
pub fn strip(text: &str) -> Result<String, Error> {
    let bare = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kube-apiserver"},
        "spec": {"containers": [{"name": "kube-apiserver", "command": ["kube-apiserver"]}]}}"#;
    remove(text, bare)
}

/// Namespace and name of the pod that the kubelet would create from a file in its manifest directory, if any. It reads
/// the first document, and the last of equal keys wins.
pub fn pod_of(file: &[u8]) -> Option<(String, String)> {
    let tree = kube_yaml::tree(file).ok()?;
    let field = |id, key: &str| match tree.value(id) {
        // JSON may repeat a key.
        kube_yaml::Value::Map(entries) => entries.iter().rfind(|(name, _)| name.text == key).map(|(_, value)| *value),
        _ => None,
    };
    let text = |id, key: &str| match tree.value(field(id, key)?) {
        kube_yaml::Value::Text(text) => Some(text.clone()),
        _ => None,
    };
    text(tree.root, "kind").filter(|kind| kind == "Pod")?;
    let metadata = field(tree.root, "metadata")?;
    let namespace = text(metadata, "namespace").filter(|namespace| !namespace.is_empty());
    Some((namespace.unwrap_or_else(|| "default".into()), text(metadata, "name")?))
}

/// Edits the text until it has the `intended` value, and proves the result: the new text parses to exactly this value,
/// can be edited again, and the same edit again changes nothing.
fn proved(
    text: &str,
    before: &Manifest,
    intended: impl Fn(&Manifest) -> Result<Value, Error>,
) -> Result<String, Error> {
    let wanted = intended(before)?;
    let (edited, tree, value) = splice::towards(text, before, &wanted)?;
    if value != wanted {
        return Err(Error::NotProved("the new text has another meaning"));
    }
    // No splice is left. The same intent must give the same value again.
    let again = Manifest::new(&edited, tree, value).and_then(|after| intended(&after));
    match again.map_err(|_| Error::NotProved("the new text could not be edited again"))? == wanted {
        true => Ok(edited),
        false => Err(Error::NotProved("the same edit would change it again")),
    }
}

/// The field that prevents the container from being root on the node. A field of the container overrides that of the
/// pod (kubernetes@v1.36.3 pkg/securitycontext/util.go, DetermineEffectiveSecurityContext).
fn rootless(spec: &Value, container: &Value) -> Option<String> {
    let said = |field: &str| {
        let contexts = [&container["securityContext"], &spec["securityContext"]];
        contexts.into_iter().map(|context| &context[field]).find(|value| !value.is_null())
    };
    // Root in a user namespace is another user on the node.
    if spec["hostUsers"] == Value::Bool(false) {
        return Some("hostUsers: false".into());
    }
    match (said("runAsUser"), said("runAsNonRoot")) {
        (Some(user), _) if user.as_i64() == Some(0) => None,
        (Some(user), _) => Some(format!("runAsUser: {user}")),
        (None, Some(Value::Bool(true))) => Some("runAsNonRoot: true".into()),
        _ => None,
    }
}

/// The last of repeated names counts, as in the environment of a process.
fn env(container: &Value) -> BTreeMap<String, String> {
    let variables = container["env"].as_array().into_iter().flatten();
    let variable = |it: &Value| Some((it["name"].as_str()?.to_string(), it["value"].as_str()?.to_string()));
    variables.filter_map(variable).collect()
}

fn host_aliases(spec: &Value) -> BTreeMap<String, Vec<String>> {
    let mut addresses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for alias in spec["hostAliases"].as_array().into_iter().flatten() {
        let Some(address) = alias["ip"].as_str() else { continue };
        for name in alias["hostnames"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            addresses.entry(name.to_string()).or_default().push(address.to_string());
        }
    }
    addresses
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `registry/path/name:tag@digest` -> `name`.
fn image_name(image: &str) -> Option<&str> {
    let without_digest = image.split('@').next()?;
    base_name(without_digest).split(':').next()
}

/// Flags with their values. A value may be the next item.
fn flags(argv: &[String]) -> BTreeMap<String, String> {
    let mut flags = BTreeMap::new();
    let mut items = argv.iter().peekable();
    while let Some(item) = items.next() {
        let Some((name, value)) = flag(item) else { continue };
        // kube-apiserver has no positional arguments: an item after a flag that is not a flag is its value.
        let value = match value {
            Some(value) => value,
            None => items.next_if(|next| !next.is_empty() && !next.starts_with('-')).map_or("true", String::as_str),
        };
        flags.insert(name, value.to_string());
    }
    flags
}

/// Whether a flag may be ours: the audit family is, a shutdown flag only if the original manifest does not set it.
fn may_be_ours(name: &str) -> bool {
    name.starts_with("audit-") || SHUTDOWN_FLAGS.contains(&name)
}

/// Name and value of an argument that is a flag. The name has no leading dashes, and `-` for `_`: kube-apiserver
/// accepts both.
fn flag(argument: &str) -> Option<(String, Option<&str>)> {
    let flag = argument.strip_prefix("--").filter(|flag| !flag.is_empty())?;
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    Some((name.replace('_', "-"), value))
}

/// Whether a flag is true without a value (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/server/options/audit.go,
/// AddFlags).
fn is_boolean(flag: &str) -> bool {
    flag == "audit-log-compress" || flag.ends_with("-truncate-enabled") || flag.ends_with("-batch-throttle-enable")
}

#[cfg(test)]
mod tests;
