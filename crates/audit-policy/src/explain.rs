//! Why a rule does not match a request, rule by rule as kube-apiserver goes through them.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go, followed step by step: slow, and plain
//! enough to be read beside it. [`Evaluator`](super::Evaluator) decides the same way, and the tests hold the two
//! against each other.

use super::Attributes;
use super::write::quoted;
use crate::{GroupResources, PolicyRule, Stage};

/// The first condition of a rule that a request does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The field below the rule, as `users` or `resources[1].resourceNames`.
    pub field: String,
    /// What the rule has there.
    pub wanted: Vec<String>,
    /// What the request has instead, in words.
    pub found: String,
}

/// How a policy comes to its decision about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// For each rule before the one that decides, or for all.
    pub passed_over: Vec<Mismatch>,
    /// Index of the rule that decides; none where no rule matches, and nothing is recorded.
    pub rule: Option<usize>,
}

pub fn explain(rules: &[PolicyRule], request: &Attributes) -> Explanation {
    let passed_over: Vec<_> = rules.iter().map_while(|rule| mismatch(rule, request)).collect();
    let rule = (passed_over.len() < rules.len()).then_some(passed_over.len());
    Explanation { passed_over, rule }
}

/// The first condition that fails; none where the rule matches.
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

/// All trailing stars of a pattern go, not just one.
fn matches_path(pattern: &str, path: &str) -> bool {
    pattern == "*" || pattern == path || (pattern.ends_with('*') && path.starts_with(pattern.trim_end_matches('*')))
}

fn resource_mismatch(rule: &PolicyRule, request: &Attributes) -> Option<Mismatch> {
    let groups = || rule.resources.iter().map(|entry| entry.group.clone()).collect();
    if !request.is_resource_request {
        // The rule may have either field, or both.
        let (field, wanted) = match rule.namespaces.is_empty() {
            true => ("resources", groups()),
            false => ("namespaces", rule.namespaces.clone()),
        };
        let found = format!("path {}, which is no resource", quoted(&request.path));
        return Some(Mismatch { field: field.into(), wanted, found });
    }
    if !rule.namespaces.is_empty() && !has(&rule.namespaces, &request.namespace) {
        let found = format!("namespace {}", quoted(&request.namespace));
        return Some(Mismatch { field: "namespaces".into(), wanted: rule.namespaces.clone(), found });
    }
    if rule.resources.is_empty() {
        return None;
    }
    // Of several entries that fail, the one that failed last tells most.
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
            Fit::Whole => return None,
            Fit::Nothing => continue,
            Fit::Group => (1, "resources", &entry.resources, format!("resource {}", quoted(&combined(request)))),
            Fit::Resource => (2, "resourceNames", &entry.resource_names, format!("name {}", quoted(&request.name))),
        };
        if depth > worst.0 {
            worst = (depth, Mismatch { field: format!("resources[{i}].{field}"), wanted: wanted.clone(), found });
        }
    }
    Some(worst.1)
}

/// How far an entry fits.
enum Fit {
    Nothing,
    Group,
    Resource,
    Whole,
}

fn entry_mismatch(entry: &GroupResources, request: &Attributes) -> Fit {
    if entry.group != *request.api_group && entry.group != "*" {
        return Fit::Nothing;
    }
    // Names are not looked at then.
    if entry.resources.is_empty() {
        return Fit::Whole;
    }
    if !entry.resources.iter().any(|pattern| matches_resource(pattern, request)) {
        return Fit::Group;
    }
    if entry.resource_names.is_empty() || has(&entry.resource_names, &request.name) {
        Fit::Whole
    } else {
        Fit::Resource
    }
}

/// `pods/*` is also for the Pods themselves: nothing asks for a subresource there.
pub(super) fn matches_resource(pattern: &str, request: &Attributes) -> bool {
    let Attributes { resource, subresource, .. } = request;
    pattern == "*"
        || pattern == combined(request)
        || (!subresource.is_empty() && pattern.strip_prefix("*/") == Some(subresource))
        || pattern.strip_suffix("/*") == Some(resource)
}

/// As rules name it: `pods/log`.
fn combined(request: &Attributes) -> String {
    let Attributes { resource, subresource, .. } = request;
    if subresource.is_empty() { resource.to_string() } else { format!("{}/{}", &**resource, &**subresource) }
}

/// The stages at which a request has events, before any is omitted; beside them Panic, should the server come to that.
///
/// kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters: audit.go#L42-L111, authn_audit.go#L33-L56;
/// what is long-running: pkg/controlplane/apiserver/config.go#L184-L187.
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
