//! Requests that are made of the words of policies.
//!
//! A rule compares words literally, so the decision is the same for all words that no rule knows: the word "other"
//! represents them. Users, and resources with their names, are distinguished only as far as some rule distinguishes
//! them. Two groups of a user are enough: one that matches a rule of one policy, and one that matches a rule of the
//! other. Combinations without a URL are left out, because no request has them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::log::{Request, method_of};
use crate::{Attributes, Evaluator, Policy, Text, User, attributes};
use crate::{GroupResources, Level, PolicyRule};

/// A word that no rule contains.
const OTHER: &str = "other";
const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// An object, or all objects of a kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    group: String,
    resource: String,
    subresource: String,
    name: String,
}

pub(super) fn requests<'p>(policies: [&'p Policy; 2]) -> impl Iterator<Item = Request<'static>> + use<'p> {
    let rules: Vec<&PolicyRule> = policies.into_iter().flat_map(|policy| &policy.rules).collect();
    let users = users(&rules);
    let objects = objects(&rules);
    let namespaces = words(rules.iter().flat_map(|rule| &rule.namespaces), &["", &other(&rules)]);
    let paths = paths(&rules);
    let targets = {
        let objects = objects.into_iter().flat_map(move |object| {
            let namespaces = namespaces.clone();
            VERBS.into_iter().flat_map(move |verb| {
                let object = object.clone();
                namespaces
                    .clone()
                    .into_iter()
                    .filter_map(move |namespace| url(verb, &namespace, &object))
                    .map(move |url| (method_of(verb), url))
            })
        });
        let paths = paths.into_iter().flat_map(|path| METHODS.map(|method| (Cow::Borrowed(method), path.clone())));
        objects.chain(paths)
    };
    targets
        .filter_map(|(method, url)| attributes(&method, &url).ok().map(|attributes| (method, url, attributes)))
        .flat_map(move |(method, url, attributes)| {
            users.clone().into_iter().map(move |user| Request {
                method: method.clone(),
                uri: Cow::Owned(url.clone()),
                attributes: Attributes { user, ..attributes.clone() },
            })
        })
}

/// A word that no rule contains, even if one contains "other".
fn other(rules: &[&PolicyRule]) -> String {
    let mut other = OTHER.to_string();
    let has = |other: &str| {
        rules.iter().any(|rule| {
            let lists = [&rule.users, &rule.user_groups, &rule.namespaces];
            let of_entries = rule
                .resources
                .iter()
                .flat_map(|entry| entry.resources.iter().chain(&entry.resource_names).chain([&entry.group]));
            lists.into_iter().flatten().chain(of_entries).any(|word| word.contains(other))
        })
    };
    while has(&other) {
        other.push('x');
    }
    other
}

fn words<'a>(words: impl Iterator<Item = &'a String>, more: &[&str]) -> BTreeSet<String> {
    words.cloned().chain(more.iter().map(|word| word.to_string())).collect()
}

/// One user for each set of matching rules, and `None` for failed authentication.
fn users(rules: &[&PolicyRule]) -> Vec<Option<User<'static>>> {
    let other = other(rules);
    let names = words(rules.iter().flat_map(|rule| &rule.users), &[&other]);
    let groups = words(rules.iter().flat_map(|rule| &rule.user_groups), &[]);
    let mut seen = BTreeSet::new();
    let mut users = vec![None];
    for name in &names {
        for of_user in groups_of(name, &groups) {
            let knows = |rule: &&&PolicyRule| {
                (rule.users.is_empty() || rule.users.contains(name))
                    && (rule.user_groups.is_empty() || rule.user_groups.iter().any(|group| of_user.contains(group)))
            };
            let known: Vec<usize> =
                rules.iter().enumerate().filter(|(_, rule)| knows(rule)).map(|(at, _)| at).collect();
            if seen.insert(known) {
                let groups = of_user.into_iter().map(Text::from).collect();
                users.push(Some(User { name: name.clone().into(), groups }));
            }
        }
    }
    users
}

/// Possible groups of a user. Some names determine them (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/authentication/{serviceaccount/util.go,request/anonymous,group}).
fn groups_of(name: &str, groups: &BTreeSet<String>) -> Vec<Vec<String>> {
    const AUTHENTICATED: &str = "system:authenticated";
    const ANONYMOUS: &str = "system:unauthenticated";
    const ACCOUNTS: &str = "system:serviceaccounts";
    if name == "system:anonymous" {
        return vec![vec![ANONYMOUS.into()]];
    }
    if let Some((namespace, _)) = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        return vec![vec![ACCOUNTS.into(), format!("{ACCOUNTS}:{namespace}"), AUTHENTICATED.into()]];
    }
    let free: Vec<&String> = groups.iter().filter(|group| *group != AUTHENTICATED && *group != ANONYMOUS).collect();
    let mut sets = vec![vec![AUTHENTICATED.to_string()]];
    for (at, one) in free.iter().enumerate() {
        sets.push(vec![one.to_string(), AUTHENTICATED.into()]);
        sets.extend(free[at + 1..].iter().map(|two| vec![one.to_string(), two.to_string(), AUTHENTICATED.into()]));
    }
    sets
}

/// One object for each set of matching rules and form of URL.
fn objects(rules: &[&PolicyRule]) -> Vec<Object> {
    let other = other(rules);
    let entries: Vec<&GroupResources> = rules.iter().flat_map(|rule| &rule.resources).collect();
    let groups = words(entries.iter().map(|entry| &entry.group).filter(|group| *group != "*"), &["", &other]);
    // Each rule, reduced to its resources.
    let alone: Vec<Evaluator> = rules
        .iter()
        .filter(|rule| !rule.resources.is_empty())
        .map(|rule| {
            let rule = PolicyRule { resources: rule.resources.clone(), ..nothing() };
            Evaluator::new(&Policy { rules: vec![rule], ..Policy::default() })
        })
        .collect();
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    for group in &groups {
        let own = || entries.iter().filter(|entry| entry.group == *group || entry.group == "*");
        let mut resources = BTreeSet::from([other.clone(), "namespaces".into()]);
        let mut subresources = BTreeSet::from([String::new(), other.clone()]);
        for pattern in own().flat_map(|entry| &entry.resources) {
            let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            resources.extend((resource != "*").then(|| resource.to_string()));
            subresources.extend((subresource != "*").then(|| subresource.to_string()));
        }
        let names = words(own().flat_map(|entry| &entry.resource_names), &["", &other]);
        for resource in &resources {
            for subresource in &subresources {
                for name in &names {
                    let object = Object {
                        group: group.clone(),
                        resource: resource.clone(),
                        subresource: subresource.clone(),
                        name: name.clone(),
                    };
                    let request = Attributes {
                        api_group: Text::from(&**group),
                        resource: Text::from(&**resource),
                        subresource: Text::from(&**subresource),
                        name: Text::from(&**name),
                        is_resource_request: true,
                        ..Attributes::default()
                    };
                    let known: Vec<bool> = alone.iter().map(|rule| rule.decide(&request).rule.is_some()).collect();
                    let form = (group.is_empty() && resource == "namespaces", subresource.is_empty(), name.is_empty());
                    if seen.insert((known, form)) {
                        objects.push(object);
                    }
                }
            }
        }
    }
    objects
}

fn nothing() -> PolicyRule {
    PolicyRule {
        level: Level::Metadata,
        users: Vec::new(),
        user_groups: Vec::new(),
        verbs: Vec::new(),
        resources: Vec::new(),
        namespaces: Vec::new(),
        non_resource_urls: Vec::new(),
        omit_stages: Vec::new(),
        omit_managed_fields: None,
    }
}

/// For each path pattern its shortest match and a longer path; and a path that no pattern names.
fn paths(rules: &[&PolicyRule]) -> BTreeSet<String> {
    let mut paths = BTreeSet::from([format!("/{}", other(rules))]);
    for url in rules.iter().flat_map(|rule| &rule.non_resource_urls) {
        let whole = url.trim_end_matches('*');
        if !whole.starts_with('/') {
            continue;
        }
        paths.insert(escaped(whole, true));
        if whole.len() < url.len() {
            paths.insert(escaped(whole, true) + OTHER);
        }
    }
    paths
}

/// `None`: no URL expresses it.
fn url(verb: &str, namespace: &str, object: &Object) -> Option<String> {
    let Object { group, resource, subresource, name } = object;
    let has_name = !name.is_empty();
    // The object is the namespace.
    let is_namespace = group.is_empty() && resource == "namespaces" && has_name;
    if is_namespace && !namespace.is_empty() && namespace != name {
        return None;
    }
    let selects = matches!(verb, "list" | "watch");
    let fits = match verb {
        "deletecollection" => !has_name,
        "create" => has_name != subresource.is_empty(),
        "list" | "watch" => subresource.is_empty(),
        _ => has_name,
    };
    if !fits || (!subresource.is_empty() && !has_name) {
        return None;
    }
    let mut url = if group.is_empty() { "/api/v1".to_string() } else { format!("/apis/{}/v1", escaped(group, false)) };
    let mut part = |text: &str| {
        url.push('/');
        url.push_str(&escaped(text, false));
    };
    if !namespace.is_empty() && !is_namespace {
        part("namespaces");
        part(namespace);
    }
    part(resource);
    if has_name && !selects {
        part(name);
    }
    if !subresource.is_empty() {
        part(subresource);
    }
    let selector = (has_name && selects).then(|| format!("fieldSelector=metadata.name%3D{}", escaped(name, false)));
    let watch = (verb == "watch").then(|| "watch=true".to_string());
    let query: Vec<String> = selector.into_iter().chain(watch).collect();
    if !query.is_empty() {
        url.push('?');
        url.push_str(&query.join("&"));
    }
    Some(url)
}

fn escaped(text: &str, is_path: bool) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:".contains(&b) || (is_path && b == b'/');
    text.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
