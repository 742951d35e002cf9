//! A policy file as kube-apiserver loads it: the resulting policy, or the reasons why it would not start, and its
//! warnings, each with its place.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go#L63-L101: it decodes strictly. If the
//! only errors are unknown or repeated names, it decodes leniently and warns. It then validates, and requires at least
//! one rule. Kubernetes 1.26 to
//! 1.37 differ only in the group `*`.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::Policy;
use super::decode::{Decoded, Places, RawPolicy, RawRule, decode, fold};
use super::finding::{Edit, Finding, Severity};
use super::stanza::{self, KIND, NO_RULES, SECOND_DOCUMENT, SYNTAX, Stanza, WRONG_TYPE, YAML_ALIAS, YAML_TAG};
use super::validation::{level_of, stage_of, validate};
use super::write::quoted;
use crate::{GroupResources, PolicyRule};
use kube_yaml::{Place, Trap, Tree, Value, tree};

/// Larger files are not read. This is the limit of a ConfigMap; the longest known policies have a twentieth of it.
/// Reading a policy may take three hundred times its size in memory.
pub const MAX_BYTES: usize = 1 << 20;

const API_VERSION: &str = "audit.k8s.io/v1";
/// Upstream's other kinds of this version and of every version. It decodes them and then cannot convert them to a
/// policy (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/v1/register.go#L52-L61, apimachinery
/// pkg/apis/meta/v1/register.go#L66-L86).
#[rustfmt::skip]
const OTHER_KINDS: [&str; 10] = [
    "Event", "EventList", "PolicyList", "WatchEvent", "ListOptions", "GetOptions", "DeleteOptions", "CreateOptions",
    "UpdateOptions", "PatchOptions",
];
const UNVERSIONED_KINDS: [&str; 5] = ["Status", "APIVersions", "APIGroupList", "APIGroup", "APIResourceList"];

/// The result of [`load`].
#[derive(Debug)]
pub struct Loaded {
    /// The policy of kube-apiserver. `None`: it would not start.
    pub policy: Option<Policy>,
    /// Errors keep kube-apiserver from starting, warnings it only logs. Sorted by place.
    pub findings: Vec<Finding>,
    /// Text that kube-apiserver accepts without a warning, but that authors often misread.
    pub traps: Vec<Finding>,
    /// Places of the fields, for later findings.
    pub places: Places,
}

/// Loads a file as a kube-apiserver 1.`minor` would.
pub fn load(text: &[u8], minor: u32) -> Loaded {
    let Examined { policy, mut findings, traps, places } = examine(text, minor);
    findings.sort_by_key(|finding| (finding.place, Reverse(finding.severity)));
    // The type is judged twice: on its own, and as one of the fields.
    findings.dedup_by(|a, b| a.place == b.place && a.id == b.id && (a.id == WRONG_TYPE.id || a.message == b.message));
    let starts = findings.iter().all(|finding| finding.severity != Severity::Error);
    Loaded { policy: policy.filter(|_| starts), findings, traps, places }
}

/// The common result of [`load`] and of [`read`](super::read()), the operator's stricter reader.
pub(super) struct Examined {
    /// The policy as far as its fields could be read, valid or not.
    pub policy: Option<Policy>,
    pub findings: Vec<Finding>,
    pub traps: Vec<Finding>,
    pub places: Places,
}

pub(super) fn examine(text: &[u8], minor: u32) -> Examined {
    let nothing = || Examined { policy: None, findings: Vec::new(), traps: Vec::new(), places: Places::default() };
    // Only programs write this form (apimachinery, pkg/runtime/serializer/protobuf).
    if text.starts_with(b"k8s\0") {
        let message = "policies in protobuf form are not supported".to_string();
        let finding = error(SYNTAX, Place { line: 1, column: 1 }, String::new(), message);
        return Examined { findings: vec![finding], ..nothing() };
    }
    let tree = match tree(text) {
        Ok(tree) => tree,
        Err(problem) => {
            let finding = error(SYNTAX, problem.place, String::new(), problem.message);
            return Examined { findings: vec![finding], ..nothing() };
        }
    };
    let type_findings = match type_of(&tree) {
        Ok(()) => Vec::new(),
        Err(TypeError { findings, is_policy: false }) => return Examined { findings, ..nothing() },
        Err(TypeError { findings, is_policy: true }) => findings,
    };
    let Decoded { policy: raw, mut findings, mut traps, places } = decode(&tree);
    traps.extend(tree.traps.into_iter().map(trap));
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    let mistyped: HashSet<String> = findings.iter().filter(is_error).map(|finding| finding.path.clone()).collect();
    findings.extend(type_findings);
    // A field that could not be decoded is empty only for that reason.
    let is_mistyped = |path: &str| {
        let ends = path.match_indices(['.', '[']).map(|(end, _)| end).chain([path.len()]);
        ends.into_iter().any(|end| mistyped.contains(&path[..end]))
    };
    findings.extend(validate(&raw, minor).into_iter().filter(|finding| !is_mistyped(&finding.path)));
    if raw.rules.items().is_empty() && !mistyped.contains("rules") {
        let place = places.of("rules");
        findings.push(error(NO_RULES, place, "rules".into(), "loaded illegal policy with 0 rules".into()));
    }
    Examined { policy: policy_of(&raw), findings, traps, places }
}

fn trap((place, trap): (Place, Trap)) -> Finding {
    let (stanza, message) = match trap {
        Trap::Tag => (YAML_TAG, "the policy contains a tag"),
        Trap::Alias => (YAML_ALIAS, "the policy contains an alias"),
        Trap::SecondDocument => (SECOND_DOCUMENT, "a second document: kube-apiserver reads only the first one"),
    };
    Finding::new(stanza, place, String::new(), message.to_string())
}

fn error(stanza: &'static Stanza, place: Place, path: String, message: String) -> Finding {
    Finding { help: None, ..Finding::new(stanza, place, path, message) }
}

struct TypeError {
    findings: Vec<Finding>,
    /// Whether the fields are still worth judging.
    is_policy: bool,
}

/// Judges `apiVersion` and `kind`. Their names have any case, and the last one counts
/// (apimachinery, pkg/runtime/serializer/json/meta.go and json.go#L164-L212).
fn type_of(tree: &Tree) -> Result<(), TypeError> {
    let root = tree.place(tree.root);
    let entries = match tree.value(tree.root) {
        Value::Null => &[][..],
        Value::Map(entries) => entries,
        other => {
            let found = match other {
                Value::List(_) => "array",
                Value::Text(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            let message =
                format!("couldn't get version/kind; json parse error: json: cannot unmarshal {found} into an object");
            return Err(TypeError {
                findings: vec![error(WRONG_TYPE, root, String::new(), message)],
                is_policy: false,
            });
        }
    };
    let (mut version, mut kind) = ((root, ""), (root, ""));
    for (key, id) in entries {
        let (name, found) = match fold(&key.text).as_str() {
            "apiversion" => ("apiVersion", &mut version),
            "kind" => ("kind", &mut kind),
            _ => continue,
        };
        match tree.value(*id) {
            Value::Null => {}
            Value::Text(text) => *found = (tree.place(*id), text),
            _ => {
                let message = format!("couldn't get version/kind; json parse error: {name} is not a string");
                let findings = vec![error(WRONG_TYPE, tree.place(*id), name.into(), message)];
                return Err(TypeError { findings, is_policy: true });
            }
        }
    }
    let wrong = |(place, text): (Place, &str), stanza, path: &str, message, help: String| {
        // Older versions have the same fields.
        let right = match (path, text) {
            ("apiVersion", "audit.k8s.io/v1beta1" | "audit.k8s.io/v1alpha1") => Some(API_VERSION),
            ("kind", text) if text.eq_ignore_ascii_case("Policy") => Some("Policy"),
            _ => None,
        };
        let edit = right.map(|right| Edit::new(place, text, right));
        Finding::new(stanza, place, path.into(), message).help(help).edit(edit)
    };
    let shown = if kind.1.is_empty() { "Policy" } else { kind.1 };
    let unregistered = |version| {
        format!(
            "no kind {} is registered for version {} in scheme \"k8s.io/apiserver/pkg/audit/scheme.go:30\"",
            quoted(shown),
            quoted(version)
        )
    };
    let mut findings = Vec::new();
    let version_fault = match version.1 {
        API_VERSION => None,
        "" | "/" | "audit.k8s.io/" | "audit.k8s.io/__internal" => {
            Some(format!("unknown group version field audit.k8s.io/__internal, Kind={shown} in policy"))
        }
        other if other.matches('/').count() > 1 => Some(format!("unexpected GroupVersion string: {other}")),
        other => Some(unregistered(other)),
    };
    if let Some(message) = version_fault.clone() {
        let help = format!("write apiVersion: {API_VERSION}");
        findings.push(wrong(version, stanza::API_VERSION, "apiVersion", message, help));
    }
    // Under another version, a kind is only judged if it resembles Policy.
    let is_nearly = kind.1.eq_ignore_ascii_case("Policy");
    if !matches!(kind.1, "" | "Policy") && (is_nearly || findings.is_empty()) {
        let is_known = OTHER_KINDS.contains(&kind.1) || UNVERSIONED_KINDS.contains(&kind.1);
        let unconverted = format!("converting (v1.{shown}) to (audit.Policy): unknown conversion");
        let of_version = || if is_known { unconverted } else { unregistered(version.1) };
        // If both are wrong, kube-apiserver reports only the version.
        let message = version_fault.unwrap_or_else(of_version);
        findings.push(wrong(kind, KIND, "kind", message, "write kind: Policy".into()));
    }
    if findings.is_empty() { Ok(()) } else { Err(TypeError { findings, is_policy: is_nearly || kind.1.is_empty() }) }
}

/// The policy. `None`: a level or a stage is unknown.
fn policy_of(raw: &RawPolicy) -> Option<Policy> {
    let RawPolicy { rules, omit_stages, omit_managed_fields, .. } = raw;
    Some(Policy {
        rules: rules.items().iter().map(rule_of).collect::<Option<_>>()?,
        omit_stages: omit_stages.items().iter().map(|stage| stage_of(&stage.text)).collect::<Option<_>>()?,
        omit_managed_fields: *omit_managed_fields,
    })
}

fn rule_of(raw: &RawRule) -> Option<PolicyRule> {
    let resources = raw.resources.items().iter().map(|raw| GroupResources {
        group: raw.group.text.clone(),
        resources: raw.resources.texts(),
        resource_names: raw.resource_names.texts(),
    });
    Some(PolicyRule {
        level: level_of(&raw.level.text)?,
        users: raw.users.texts(),
        user_groups: raw.user_groups.texts(),
        verbs: raw.verbs.texts(),
        resources: resources.collect(),
        namespaces: raw.namespaces.texts(),
        non_resource_urls: raw.non_resource_urls.texts(),
        omit_stages: raw.omit_stages.items().iter().map(|stage| stage_of(&stage.text)).collect::<Option<_>>()?,
        omit_managed_fields: raw.omit_managed_fields,
    })
}

#[cfg(test)]
mod tests;
