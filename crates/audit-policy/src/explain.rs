//! Explains why each rule does or does not match a request, in the order of kube-apiserver.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go, followed step by step: slow, but
//! easy to compare with it. The tests compare [`Evaluator`](super::Evaluator) with this module.

use super::Attributes;
use super::write::quoted;
use crate::{GroupResources, PolicyRule, Stage};

/// The first condition of a rule that a request does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The field of the rule, such as `users` or `resources[1].resourceNames`.
    pub field: String,
    /// The values of the rule in this field.
    pub wanted: Vec<String>,
    /// The value of the request, in words.
    pub found: String,
}

/// How a policy decides about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// One for each rule before the one that decides, or for all rules.
    pub passed_over: Vec<Mismatch>,
    /// Index of the rule that decides. `None`: no rule matches, and nothing is recorded.
    pub rule: Option<usize>,
}

pub fn explain(rules: &[PolicyRule], request: &Attributes) -> Explanation {
    let passed_over: Vec<_> = rules.iter().map_while(|rule| mismatch(rule, request)).collect();
    let rule = (passed_over.len() < rules.len()).then_some(passed_over.len());
    Explanation { passed_over, rule }
}

/// The first condition that fails. `None`: the rule matches.
pub(super) fn mismatch(rule: &PolicyRule, request: &Attributes) -> Option<Mismatch> {
    let fail = |field: &str, wanted: &[String], found: String| {
        Some(Mismatch { field: field.into(), wanted: wanted.to_vec(), found })
    };
    let user = request.user.as_ref();
    if !rule.users.is_empty() && !user.is_some_and(|user| has(&rule.users, &user.name)) {
        return fail("users", &rule.users, user.map_or(NO_USER.into(), |user| format!("user {}", quoted(&user.name))));
    }
    if !rule.user_groups.is_empty() && !user.is_some_and(|u| u.groups.iter().any(|group| has(&rule.user_groups, group)))
    {
        let found = match user.map(|user| user.groups.as_slice()) {
            None => NO_USER.to_string(),
            Some([]) => "user without groups".into(),
            Some(groups) => {
                let groups: Vec<_> = groups.iter().map(|group| quoted(group)).collect();
                format!("groups {}", groups.join(", "))
            }
        };
        return fail("userGroups", &rule.user_groups, found);
    }
    if !rule.verbs.is_empty() && !has(&rule.verbs, &request.verb) {
        return fail("verbs", &rule.verbs, format!("verb {}", quoted(&request.verb)));
    }
    if !rule.namespaces.is_empty() || !rule.resources.is_empty() {
        return resource_mismatch(rule, request);
    }
    if rule.non_resource_urls.is_empty() {
        return None;
    }
    if request.is_resource_request {
        return fail("nonResourceURLs", &rule.non_resource_urls, "a resource".into());
    }
    let is_matched = rule.non_resource_urls.iter().any(|url| matches_path(url, &request.path));
    let found = || format!("path {}", quoted(&request.path));
    if is_matched { None } else { fail("nonResourceURLs", &rule.non_resource_urls, found()) }
}

const NO_USER: &str = "no user: authentication failed";

fn has(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == value)
}

/// Strips all trailing stars of a pattern, not just one.
fn matches_path(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

fn resource_mismatch(rule: &PolicyRule, request: &Attributes) -> Option<Mismatch> {
    let groups = || rule.resources.iter().map(|entry| entry.group.clone()).collect();
    if !request.is_resource_request {
        // The rule has one of the fields or both.
        let (field, wanted) = match rule.namespaces.is_empty() {
            true => ("resources", groups()),
            false => ("namespaces", rule.namespaces.clone()),
        };
        let found = format!("path {}, which is not a resource", quoted(&request.path));
        return Some(Mismatch { field: field.into(), wanted, found });
    }
    if !rule.namespaces.is_empty() && !has(&rule.namespaces, &request.namespace) {
        let found = format!("namespace {}", quoted(&request.namespace));
        return Some(Mismatch { field: "namespaces".into(), wanted: rule.namespaces.clone(), found });
    }
    if rule.resources.is_empty() {
        return None;
    }
    // If several entries fail, the one that gets furthest explains most.
    let mut worst = (
        0,
        Mismatch {
            field: "resources".into(),
            wanted: groups(),
            found: format!("group {}", quoted(&request.api_group)),
        },
    );
    for (i, entry) in rule.resources.iter().enumerate() {
        let (depth, field, wanted, found) = match entry_mismatch(entry, request) {
            EntryMatch::Whole => return None,
            EntryMatch::Nothing => continue,
            EntryMatch::Group => (1, "resources", &entry.resources, format!("resource {}", quoted(&combined(request)))),
            EntryMatch::Resource => {
                (2, "resourceNames", &entry.resource_names, format!("name {}", quoted(&request.name)))
            }
        };
        if depth > worst.0 {
            worst = (depth, Mismatch { field: format!("resources[{i}].{field}"), wanted: wanted.clone(), found });
        }
    }
    Some(worst.1)
}

/// The part of an entry that a request matches.
enum EntryMatch {
    Nothing,
    Group,
    Resource,
    Whole,
}

fn entry_mismatch(entry: &GroupResources, request: &Attributes) -> EntryMatch {
    if entry.group != *request.api_group && entry.group != "*" {
        return EntryMatch::Nothing;
    }
    // Without patterns, names are ignored.
    if entry.resources.is_empty() {
        return EntryMatch::Whole;
    }
    if !entry.resources.iter().any(|pattern| matches_resource(pattern, request)) {
        return EntryMatch::Group;
    }
    if entry.resource_names.is_empty() || has(&entry.resource_names, &request.name) {
        EntryMatch::Whole
    } else {
        EntryMatch::Resource
    }
}

/// `pods/*` also matches the Pods themselves: kube-apiserver does not check for a subresource.
pub(super) fn matches_resource(pattern: &str, request: &Attributes) -> bool {
    let Attributes { resource, subresource, .. } = request;
    pattern == "*"
        || pattern == combined(request)
        || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
        || pattern.strip_suffix("/*") == Some(resource)
}

/// The resource as rules name it: `pods/log`.
fn combined(request: &Attributes) -> String {
    let Attributes { resource, subresource, .. } = request;
    if subresource.is_empty() { resource.to_string() } else { format!("{}/{}", &**resource, &**subresource) }
}

/// The stages at which a request has events, before omission. Panic may come in addition.
///
/// kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters: audit.go#L42-L111, authn_audit.go#L33-L56;
/// long-running requests: pkg/controlplane/apiserver/config.go#L184-L187.
pub fn stages(request: &Attributes) -> &'static [Stage] {
    use Stage::{RequestReceived, ResponseComplete, ResponseStarted};
    let is_long = matches!(&*request.verb, "watch" | "proxy")
        || match request.is_resource_request {
            true => matches!(&*request.subresource, "attach" | "exec" | "proxy" | "log" | "portforward"),
            false => request.path.starts_with("/debug/pprof/"),
        };
    match (&request.user, is_long) {
        (None, _) => &[ResponseStarted],
        (Some(_), true) => &[RequestReceived, ResponseStarted, ResponseComplete],
        (Some(_), false) => &[RequestReceived, ResponseComplete],
    }
}

#[cfg(test)]
mod tests;
