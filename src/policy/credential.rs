//! Which rule of a policy records a credential in plain text.

use super::Attributes;
use super::explain::mismatch;
use crate::api::{GroupResources, Level, PolicyRule};

/// A body that holds a credential, and the rule that records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// Index of the rule.
    pub rule: usize,
    /// As `secrets`, or `tokenreviews.authentication.k8s.io`.
    pub resource: String,
}

/// Group and resource of what holds a credential, and whether its request does; its response always does. All that Kubernetes itself
/// has: of custom resources nothing is known. ConfigMaps are not among them, since what is secret does not belong there.
pub(super) const CREDENTIALS: [(&str, &str, bool); 3] =
    [("", "secrets", true), ("", "serviceaccounts/token", false), ("authentication.k8s.io", "tokenreviews", true)];

/// The least level that records a body, by verb: a read has one in its response alone, a watch in none
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/handlers: create.go#L161, update.go#L139, patch.go#L144,
/// delete.go#L118, responsewriters/writers.go#L322).
const BODIES: [(&str, Level); 7] = [
    ("create", Level::Request),
    ("update", Level::Request),
    ("patch", Level::Request),
    ("get", Level::RequestResponse),
    ("list", Level::RequestResponse),
    ("delete", Level::RequestResponse),
    ("deletecollection", Level::RequestResponse),
];

/// The first rule that may record a credential, whoever asks and in whichever namespace. A rule for some users, namespaces or names
/// may record and does not protect: what is left is judged by the rules after it.
pub fn exposure(rules: &[PolicyRule]) -> Option<Exposure> {
    let requests = CREDENTIALS.iter().flat_map(|credential| BODIES.iter().map(move |body| (credential, body)));
    let found = requests.filter_map(|(&(group, resource, is_in_request), &(verb, level))| {
        let level = if is_in_request { level } else { Level::RequestResponse };
        let request = request(group, resource, verb);
        let rule = rules.iter().position(|rule| {
            (rule.level >= level && may_match(rule, &request)) || (rule.level < level && must_match(rule, &request))
        })?;
        let name = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
        (rules[rule].level >= level).then_some(Exposure { rule, resource: name })
    });
    found.min_by_key(|exposure| exposure.rule)
}

fn request<'a>(group: &'a str, resource: &'a str, verb: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes {
        verb: verb.into(),
        api_group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        is_resource_request: true,
        ..Attributes::default()
    }
}

/// Whether there is a user, a namespace and a name for which the rule matches.
fn may_match(rule: &PolicyRule, request: &Attributes) -> bool {
    let any_name = |entry: &GroupResources| GroupResources { resource_names: Vec::new(), ..entry.clone() };
    let widest = PolicyRule {
        users: Vec::new(),
        user_groups: Vec::new(),
        namespaces: Vec::new(),
        resources: rule.resources.iter().map(any_name).collect(),
        ..rule.clone()
    };
    mismatch(&widest, request).is_none()
}

/// Whether the rule matches for every user, namespace and name.
fn must_match(rule: &PolicyRule, request: &Attributes) -> bool {
    let is_for_all = rule.users.is_empty() && rule.user_groups.is_empty() && rule.namespaces.is_empty();
    let is_for_all_names = |entry: &&GroupResources| entry.resource_names.is_empty();
    let resources: Vec<_> = rule.resources.iter().filter(is_for_all_names).cloned().collect();
    is_for_all
        && resources.is_empty() == rule.resources.is_empty()
        && mismatch(&PolicyRule { resources, ..rule.clone() }, request).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(rules: &str) -> Option<(usize, String)> {
        let rules: Vec<PolicyRule> = serde_saphyr::from_str(rules).unwrap();
        exposure(&rules).map(|Exposure { rule, resource }| (rule, resource))
    }

    #[test]
    fn a_body_is_protected_only_by_a_rule_for_everybody() {
        let all = "{level: RequestResponse}";
        let tokens = "{level: Metadata, resources: [{group: '', resources: [serviceaccounts/token]}, \
                      {group: authentication.k8s.io, resources: [tokenreviews]}]}";
        let secrets =
            |more: &str| format!("{{level: Metadata, resources: [{{group: '', resources: [secrets]}}]{more}}}");
        for (rules, want) in [
            (all.to_string(), Some((0, "secrets"))),
            (format!("{tokens}, {all}"), Some((1, "secrets"))),
            (format!("{tokens}, {}, {all}", secrets("")), None),
            (format!("{}, {tokens}, {all}", secrets(", users: [a]")), Some((2, "secrets"))),
            (format!("{}, {tokens}, {all}", secrets(", namespaces: ['']")), Some((2, "secrets"))),
            (format!("{}, {tokens}, {all}", secrets(", userGroups: ['system:authenticated']")), Some((2, "secrets"))),
            (format!("{}, {tokens}, {all}", secrets(", verbs: [get, list]")), Some((2, "secrets"))),
            ("{level: Metadata, resources: [{group: '', resources: [secrets], resourceNames: ['']}]}, {level: Request}".into(), Some((1, "secrets"))),
            (format!("{}, {{level: Request}}", secrets("")), Some((1, "tokenreviews.authentication.k8s.io"))),
            // A read has no body in its request, and a watch none at all.
            ("{level: Request, verbs: [get, list]}".into(), None),
            ("{level: RequestResponse, verbs: [watch]}".into(), None),
            ("{level: Request, users: [a], namespaces: [b], verbs: [patch]}".into(), Some((0, "secrets"))),
            ("{level: Request, resources: [{group: '', resources: [secrets], resourceNames: [c]}]}".into(), Some((0, "secrets"))),
            ("{level: RequestResponse, resources: [{group: '*', resources: ['*/token']}]}, {level: Metadata}".into(), Some((0, "serviceaccounts/token"))),
            ("{level: RequestResponse, resources: [{group: '', resources: [configmaps, pods, 'pods/*']}]}".into(), None),
            ("{level: Request, nonResourceURLs: ['*']}, {level: Metadata}, {level: Request}".into(), None),
        ] {
            let want = want.map(|(rule, resource)| (rule, resource.to_string()));
            assert_eq!(exposed(&format!("[{rules}]")), want, "{rules}");
        }
    }
}
