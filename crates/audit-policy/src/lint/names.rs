//! Names in rules that match nothing, or something else than they seem to. Each rule is judged on its own.

use super::resources::RESOURCES;
use super::{Edit, Finding, Linter, Severity};
use crate::stanza::*;
use crate::{GroupResources, Level, PolicyRule, Stage};
use crate::{attributes, is_dns_label, quoted};

/// Verbs of requests for resources (requestinfo.go). The empty verb is that of an unknown method.
const RESOURCE_VERBS: [&str; 10] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy", ""];
/// HTTP methods in lower case: the verbs of all other requests.
const METHODS: [&str; 9] = ["get", "head", "post", "put", "patch", "delete", "options", "trace", "connect"];
/// Verbs of RBAC. Parts of kube-apiserver ask the authorizer about them; no request has them.
const RBAC_VERBS: [&str; 8] = ["use", "bind", "escalate", "impersonate", "approve", "sign", "attest", "serve"];
/// Groups that kube-apiserver or kubeadm assigns (user.go).
const GROUPS: [&str; 6] = [
    "system:masters",
    "system:nodes",
    "system:authenticated",
    "system:unauthenticated",
    "system:serviceaccounts",
    "kubeadm:cluster-admins",
];
const USERS: [&str; 5] = [
    "system:anonymous",
    "system:apiserver",
    "system:kube-proxy",
    "system:kube-scheduler",
    "system:kube-controller-manager",
];
/// API groups that kube-apiserver passes on to another server.
const AGGREGATED: [&str; 3] = ["metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io"];

/// Whether `group` is `right` with a domain added or a part left out.
fn is_misspelt(group: &str, right: &str) -> bool {
    let one_begins_other = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('.'));
    group == format!("{right}.k8s.io") || one_begins_other(right, group)
}

/// `NAMESPACE:NAME`.
fn is_account(account: &str) -> bool {
    account
        .split_once(':')
        .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains(':'))
}

impl Linter<'_> {
    pub(super) fn names(&mut self) {
        let rules = &self.policy.rules;
        for (i, rule) in rules.iter().enumerate() {
            let path = format!("rules[{i}]");
            self.wildcards(rule, &path);
            self.lists(rule, &path);
            self.folded(rule, &path);
            self.verbs(rule, &path);
            self.subjects(rule, &path);
            self.namespaces(rule, &path);
            for (j, entry) in rule.resources.iter().enumerate() {
                self.entry(rule, entry, &format!("{path}.resources[{j}]"));
            }
            self.urls(rule, &path);
            self.rule_stages(rule, &path);
        }
    }

    fn wildcards(&mut self, rule: &PolicyRule, path: &str) {
        let mut judge = |list: &[String], path: String, is_for_all: bool| {
            for (j, text) in list.iter().enumerate().filter(|(_, text)| text.contains('*')) {
                let at = format!("{path}[{j}]");
                let message = format!("{} matches only itself: this list has no wildcards", quoted(text));
                // Next to other names, or as part of one, its meaning is uncertain.
                let edit = (is_for_all && list.len() == 1 && text == "*").then(|| Edit {
                    at: self.places.of(&at),
                    old: text.clone(),
                    new: None,
                });
                self.add(Finding::new(LITERAL_WILDCARD, self.places.of(&at), at, message).edit(edit));
            }
        };
        judge(&rule.users, format!("{path}.users"), true);
        judge(&rule.user_groups, format!("{path}.userGroups"), true);
        judge(&rule.verbs, format!("{path}.verbs"), true);
        // A rule without namespaces also matches requests outside of every namespace.
        judge(&rule.namespaces, format!("{path}.namespaces"), false);
        for (j, entry) in rule.resources.iter().enumerate() {
            judge(&entry.resource_names, format!("{path}.resources[{j}].resourceNames"), true);
        }
    }

    /// Empty and repeated values.
    fn lists(&mut self, rule: &PolicyRule, path: &str) {
        let mut judge = |list: &[String], path: String, takes_empty: bool| {
            let mut known = std::collections::HashSet::new();
            for (j, text) in list.iter().enumerate() {
                if !known.insert(text) {
                    self.find(
                        REPEATED_VALUE,
                        format!("{path}[{j}]"),
                        format!("{} is in this list twice", quoted(text)),
                    );
                } else if text.is_empty() && !takes_empty {
                    self.find(EMPTY_VALUE, format!("{path}[{j}]"), "the empty string is a name like any other".into());
                }
            }
        };
        judge(&rule.users, format!("{path}.users"), false);
        judge(&rule.user_groups, format!("{path}.userGroups"), false);
        judge(&rule.verbs, format!("{path}.verbs"), false);
        judge(&rule.namespaces, format!("{path}.namespaces"), true);
        judge(&rule.non_resource_urls, format!("{path}.nonResourceURLs"), true);
        for (j, entry) in rule.resources.iter().enumerate() {
            judge(&entry.resources, format!("{path}.resources[{j}].resources"), false);
            judge(&entry.resource_names, format!("{path}.resources[{j}].resourceNames"), false);
        }
    }

    /// `- a` and a deeper `- b` below it.
    fn folded(&mut self, rule: &PolicyRule, path: &str) {
        for name in rule.names() {
            let text = rule.name(name);
            if text.contains(" - ") {
                let message = format!("{} is one string to every YAML parser", quoted(text));
                self.find(FOLDED_LIST, format!("{path}.{name}"), message);
            }
        }
    }

    fn verbs(&mut self, rule: &PolicyRule, path: &str) {
        let is_for_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        let is_for_urls = !rule.non_resource_urls.is_empty();
        let is_verb = |verb: &str| {
            (!is_for_urls && RESOURCE_VERBS.contains(&verb)) || (!is_for_resources && METHODS.contains(&verb))
        };
        for (j, verb) in rule.verbs.iter().enumerate().filter(|(_, verb)| !is_verb(verb) && !verb.contains('*')) {
            let path = format!("{path}.verbs[{j}]");
            let lower = verb.to_lowercase();
            let shown = quoted(verb);
            let (message, help) = if RBAC_VERBS.contains(&verb.as_str()) {
                (format!("{shown} is a verb of RBAC: no request has it"), "remove it".to_string())
            } else if is_verb(&lower) {
                (format!("{shown} is in upper case: no request of this rule has it"), format!("write {lower}"))
            } else if METHODS.contains(&lower.as_str()) && is_for_resources {
                let help = match lower.as_str() {
                    "post" => "write create",
                    "put" => "write update",
                    "head" => "write get",
                    "connect" => "exec, attach, portforward and proxy have the verbs get and create: write both",
                    _ => "remove it",
                };
                (format!("{shown} is an HTTP method: requests for resources have other verbs"), help.to_string())
            } else if RESOURCE_VERBS.contains(&lower.as_str()) && is_for_urls {
                let help = "write the HTTP method in lower case: get, post, put, …".to_string();
                (format!("{shown} is a verb of requests for resources, but the rule is for other URLs"), help)
            } else if verb.contains([',', ' ']) {
                (
                    format!("{shown} is a single verb, and no request has it"),
                    "write each verb as an item of its own".to_string(),
                )
            } else if is_for_resources || lower != **verb {
                (format!("no request of this rule has the verb {shown}"), UNKNOWN_VERB.fix.to_string())
            } else {
                let message =
                    format!("only a client that invents an HTTP method sends a request with the verb {shown}");
                (message, "remove it, unless you mean it".to_string())
            };
            let place = self.places.of(&path);
            let edit = is_verb(&lower).then(|| Edit::new(place, verb, &lower));
            self.add(Finding::new(UNKNOWN_VERB, place, path, message).help(help).edit(edit));
        }
        self.verbs_of_names(rule, path);
        self.verbs_of_streams(rule, path);
        self.bodies_of_verbs(rule, path);
    }

    /// The create of a subresource has a name in its URL: that of its object.
    fn verbs_of_names(&mut self, rule: &PolicyRule, path: &str) {
        let has_name = |entry: &GroupResources| !entry.resource_names.is_empty();
        let is_of_objects =
            |entry: &GroupResources| entry.resources.iter().all(|pattern| !pattern.contains(['/', '*']));
        if !rule.resources.iter().all(has_name) {
            let is_nameless = |verb: &String| matches!(verb.as_str(), "create" | "deletecollection");
            if rule.verbs.is_empty() || !rule.verbs.iter().all(is_nameless) {
                return;
            }
            for (j, entry) in rule.resources.iter().enumerate() {
                if has_name(entry) && is_of_objects(entry) {
                    let message = "requests with the verbs of this rule have no name: this entry never matches";
                    self.find(RESOURCE_NAMES_VERB, format!("{path}.resources[{j}].resourceNames"), message.into());
                }
            }
            return;
        }
        if rule.resources.is_empty() {
            return;
        }
        for (j, verb) in rule.verbs.iter().enumerate() {
            let message = match verb.as_str() {
                "create" if rule.resources.iter().all(is_of_objects) => {
                    "a create has no name in its URL: this rule never matches it"
                }
                "deletecollection" => "a deletecollection has no name: this rule never matches it",
                "list" | "watch" => {
                    "a list or watch has a name only with the field selector metadata.name: this rule matches no other"
                }
                _ => continue,
            };
            self.find(RESOURCE_NAMES_VERB, format!("{path}.verbs[{j}]"), message.into());
        }
    }

    fn verbs_of_streams(&mut self, rule: &PolicyRule, path: &str) {
        let has = |verb: &str| rule.verbs.iter().any(|one| one == verb);
        // A rule may deliberately silence only one of the two.
        if rule.level == Level::None || rule.verbs.is_empty() || has("get") == has("create") {
            return;
        }
        let missing = if has("get") {
            "create: over SPDY, the same command has it"
        } else {
            "get: over a WebSocket, the same command has it"
        };
        let in_group = |entry: &GroupResources| matches!(entry.group.as_str(), "" | "*");
        for (j, entry) in rule.resources.iter().enumerate().filter(|(_, entry)| in_group(entry)) {
            for (k, pattern) in entry.resources.iter().enumerate() {
                let Some(("pods" | "*", "exec" | "attach" | "portforward")) = pattern.split_once('/') else { continue };
                let path = format!("{path}.resources[{j}].resources[{k}]");
                self.find(EXEC_VERBS, path, format!("the rule for {pattern} lacks the verb {missing}"));
            }
        }
    }

    /// A level for bodies in a rule for resources whose verbs have no body.
    fn bodies_of_verbs(&mut self, rule: &PolicyRule, path: &str) {
        let is_for_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
        let (without, what) = match rule.level {
            Level::Request => (&["get", "list", "watch"][..], "body"),
            Level::RequestResponse => (&["watch"][..], "recorded body, and neither has its response"),
            Level::None | Level::Metadata => return,
        };
        if is_for_resources && !rule.verbs.is_empty() && rule.verbs.iter().all(|verb| without.contains(&verb.as_str()))
        {
            let message =
                format!("{:?} is Metadata here: a request with a verb of this rule has no {what}", rule.level);
            self.find(BODIES_OF_NOTHING, format!("{path}.level"), message);
        }
    }

    fn subjects(&mut self, rule: &PolicyRule, path: &str) {
        for (j, user) in rule.users.iter().enumerate() {
            let path = format!("{path}.users[{j}]");
            if GROUPS.contains(&user.as_str()) || user.starts_with("system:serviceaccounts:") {
                self.find(GROUP_AS_USER, path, format!("{} is a group: no user has this name", quoted(user)));
            } else if matches!(user.as_str(), "system:unsecured" | "kubelet") {
                self.find(DEAD_USER, path, format!("{} is not a user in current versions of Kubernetes", quoted(user)));
            } else if user.strip_prefix("system:serviceaccount:").is_some_and(|account| !is_account(account)) {
                let message = format!("{} is not the user of a service account", quoted(user));
                let help = "write system:serviceaccount:NAMESPACE:NAME";
                self.add(Finding::new(DEAD_USER, self.places.of(&path), path, message).help(help));
            }
        }
        for (j, group) in rule.user_groups.iter().enumerate() {
            let is_user = USERS.contains(&group.as_str())
                || group.starts_with("system:node:")
                || group.starts_with("system:serviceaccount:");
            if is_user {
                let message = format!("{} is a user: no group has this name", quoted(group));
                self.find(GROUP_AS_USER, format!("{path}.userGroups[{j}]"), message);
            }
        }
    }

    fn namespaces(&mut self, rule: &PolicyRule, path: &str) {
        for (j, namespace) in rule.namespaces.iter().enumerate() {
            let path = format!("{path}.namespaces[{j}]");
            if namespace.is_empty() {
                let message = "this matches cluster-scoped objects, and also lists and watches of all namespaces";
                self.find(EMPTY_NAMESPACE, path, message.into());
            } else if (!is_dns_label(namespace) || namespace.len() > 63) && !namespace.contains('*') {
                let message = format!("{} cannot be the name of a namespace", quoted(namespace));
                self.find(IMPOSSIBLE_NAMESPACE, path, message);
            }
        }
        let names_lists = rule.verbs.iter().any(|verb| matches!(verb.as_str(), "list" | "watch"));
        let lists = names_lists || (rule.verbs.is_empty() && rule.level > Level::None);
        let is_name = |namespace: &String| !namespace.is_empty() && !namespace.contains('*');
        if lists && !rule.namespaces.is_empty() && rule.namespaces.iter().all(is_name) {
            let message = "this rule does not match lists and watches of all namespaces at once";
            self.find(ALL_NAMESPACES, format!("{path}.namespaces"), message.into());
        }
    }

    fn entry(&mut self, rule: &PolicyRule, entry: &GroupResources, path: &str) {
        let group = entry.group.as_str();
        let group_path = format!("{path}.group");
        let is_version = group.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if rule.level > Level::Metadata && AGGREGATED.contains(&group) {
            let message = format!(
                "kube-apiserver passes requests on to the server of {group} without decoding them: there is no body to record"
            );
            self.find(BODIES_OF_NOTHING, group_path.clone(), message);
        }
        if group == "core" || is_version {
            let message = format!("{} is not an API group: the core group is called \"\"", quoted(group));
            let place = self.places.of(&group_path);
            // The core group has no other version.
            let edit = matches!(group, "core" | "v1").then(|| Edit::new(place, group, ""));
            return self.add(Finding::new(CORE_GROUP, place, group_path, message).edit(edit));
        }
        if let Some(last) = RESOURCES.group_gone(group).filter(|last| *last < self.terms.minor) {
            if entry.resources.is_empty() {
                let message = format!("Kubernetes 1.{last} was the last to serve {group}");
                return self.find(REMOVED_RESOURCE, group_path, message);
            }
        } else if !group.is_empty() && !group.contains(['.', '*']) && !RESOURCES.has_group(group) {
            let message = format!("Kubernetes has no API group {}", quoted(group));
            return self.find(UNKNOWN_GROUP, group_path, message);
        }
        let elsewhere = self.one_other_group(entry);
        if !RESOURCES.has_group(group)
            && let Some(right) = elsewhere.filter(|right| is_misspelt(group, right))
        {
            let place = self.places.of(&group_path);
            let message = format!("Kubernetes has no API group {}", quoted(group));
            let edit = Some(Edit::new(place, group, right));
            let finding = Finding::new(UNKNOWN_GROUP, place, group_path, message).help(format!("write {right}"));
            return self.add(finding.edit(edit));
        }
        for (j, pattern) in entry.resources.iter().enumerate() {
            self.pattern(
                rule,
                group,
                pattern,
                &format!("{path}.resources[{j}]"),
                elsewhere.map(|now| (now, &group_path)),
            );
        }
    }

    /// The one group that has all resources of an entry, if the entry names another.
    fn one_other_group(&self, entry: &GroupResources) -> Option<&'static str> {
        let mut found = None;
        for pattern in &entry.resources {
            let name = pattern.split('/').next().unwrap_or_default();
            let groups = RESOURCES.groups_with(name);
            let [group] = groups.as_slice() else { return None };
            if *group == entry.group || found.is_some_and(|before| before != *group) {
                return None;
            }
            found = Some(*group);
        }
        found
    }

    fn pattern(
        &mut self,
        rule: &PolicyRule,
        group: &str,
        pattern: &str,
        path: &str,
        elsewhere: Option<(&'static str, &String)>,
    ) {
        let place = self.places.of(path);
        let (name, subresource) = pattern.split_once('/').map_or((pattern, None), |(name, rest)| (name, Some(rest)));
        let is_dead = pattern == "*/*"
            || pattern.matches('/').count() > 1
            || subresource == Some("")
            || (name.contains('*') && name != "*")
            || subresource.is_some_and(|rest| rest.contains('*') && rest != "*");
        if is_dead {
            let edit = (pattern == "*/*").then(|| Edit::new(place, pattern, "*"));
            let message = format!("{} matches no resource", quoted(pattern));
            let help = match subresource {
                _ if pattern == "*/*" => DEAD_PATTERN.fix.to_string(),
                Some("") => format!("write {name}, or {name}/* for its subresources too"),
                Some(rest) if rest.contains('/') => {
                    "name only the subresource: the rest of a URL is not part of it".into()
                }
                _ => "write whole names: a * only replaces a whole resource or subresource".into(),
            };
            return self.add(Finding::new(DEAD_PATTERN, place, path.into(), message).help(help).edit(edit));
        }
        if name == "*" || name.is_empty() {
            return;
        }
        if subresource == Some("*") {
            let message = format!("{} also matches {name} themselves", quoted(pattern));
            self.find(PARENT_TOO, path.into(), message);
        }
        // The resources of other groups are not known here.
        let is_ours = group.is_empty() || RESOURCES.has_group(group) || RESOURCES.group_gone(group).is_some();
        if !is_ours {
            return;
        }
        let shown = if group.is_empty() { "the core group" } else { group };
        if let Some(resource) = RESOURCES.find(group, name) {
            let known = subresource.is_none_or(|rest| rest == "*" || resource.subresources.contains(&rest));
            if !known {
                let message =
                    format!("{name} of {shown} have no subresource {}", quoted(subresource.unwrap_or_default()));
                let help = match resource.subresources.as_slice() {
                    [] => "they have no subresources".to_string(),
                    all => format!("their subresources are: {}", all.join(", ")),
                };
                self.add(Finding::new(UNKNOWN_RESOURCE, place, path.into(), message).help(help));
            } else {
                self.scope(rule, name, resource.is_namespaced, path);
            }
        } else if let Some(gone) = RESOURCES.gone(group, name) {
            if gone.last_minor < self.terms.minor {
                let message = format!("Kubernetes 1.{} was the last to serve {name} of {shown}", gone.last_minor);
                let help = gone.now.map_or("remove it".into(), |now| format!("they are now in {now}: name them there"));
                self.add(Finding::new(REMOVED_RESOURCE, place, path.into(), message).help(help));
            }
        } else if let [first, ..] = RESOURCES.groups_with(name).as_slice() {
            let named = if first.is_empty() { "the core group (\"\")" } else { first };
            let message = format!("{name} are not in {shown}, but in {named}");
            let help = format!("write them in an entry with group: {}", if first.is_empty() { "\"\"" } else { first });
            let edit = elsewhere.map(|(now, group_path)| Edit::new(self.places.of(group_path), group, now));
            self.add(Finding::new(WRONG_GROUP, place, path.into(), message).help(help).edit(edit));
        } else {
            let message = format!("{shown} has no resource {}", quoted(name));
            let spelled = RESOURCES.spelled(group, name);
            let new = spelled.map(|name| subresource.map_or(name.clone(), |rest| format!("{name}/{rest}")));
            let mut finding = Finding::new(UNKNOWN_RESOURCE, place, path.into(), message);
            if let Some(new) = new {
                finding = finding.help(format!("write {new}")).edit(Some(Edit::new(place, pattern, &new)));
            }
            self.add(finding);
        }
    }

    /// Whether the resource can be in the namespaces of the rule.
    fn scope(&mut self, rule: &PolicyRule, name: &str, is_namespaced: bool, path: &str) {
        if rule.namespaces.is_empty() {
            return;
        }
        let is_one_of =
            |verbs: &[&str]| !rule.verbs.is_empty() && rule.verbs.iter().all(|verb| verbs.contains(&verb.as_str()));
        let in_none = rule.namespaces.iter().any(String::is_empty);
        if name == "namespaces" {
            // A Namespace is in its own namespace if the URL names it.
            if !in_none && is_one_of(&["create", "list", "deletecollection"]) {
                let message = "a list or create of namespaces is in no namespace: this rule never matches it";
                self.find(CLUSTER_SCOPED, path.into(), message.into());
            }
        } else if !is_namespaced && !in_none {
            let message = format!("{name} are cluster-scoped: this rule never matches them");
            self.find(CLUSTER_SCOPED, path.into(), message);
        } else if is_namespaced
            && rule.namespaces.iter().all(String::is_empty)
            && is_one_of(&["get", "create", "update", "patch", "delete"])
        {
            let message = format!("{name} are namespaced: no request with a verb of this rule has the namespace \"\"");
            let finding = Finding::new(EMPTY_NAMESPACE, self.places.of(path), path.into(), message);
            let help = "leave the namespaces out, or name the right ones";
            self.add(Finding { severity: Severity::Warning, ..finding.help(help) });
        }
    }

    fn urls(&mut self, rule: &PolicyRule, path: &str) {
        let urls = &rule.non_resource_urls;
        if rule.level > Level::Metadata && !urls.is_empty() {
            let message = format!(
                "{:?} is Metadata here: kube-apiserver records bodies only of requests for resources",
                rule.level
            );
            self.find(BODIES_OF_NOTHING, format!("{path}.level"), message);
        }
        for (j, url) in urls.iter().enumerate() {
            let path = format!("{path}.nonResourceURLs[{j}]");
            let whole = url.trim_end_matches('*');
            // For a prefix, any path that it matches.
            let path_of_one = if whole.len() < url.len() { format!("{whole}x") } else { whole.to_string() };
            let is_resource = attributes("GET", &path_of_one).is_ok_and(|request| request.is_resource_request);
            let is_encoded = |at: usize| {
                url.get(at + 1..at + 3).is_some_and(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            };
            if url.contains('?') {
                self.find(
                    URL_NEVER_MATCHES,
                    path,
                    format!("{} has a query, which is not part of the path", quoted(url)),
                );
            } else if url.match_indices('%').any(|(at, _)| is_encoded(at)) {
                let message =
                    format!("{} is encoded, but kube-apiserver compares it with the decoded path", quoted(url));
                self.add(
                    Finding::new(URL_NEVER_MATCHES, self.places.of(&path), path, message).help("write it decoded"),
                );
            } else if is_resource {
                let message =
                    format!("{} is a path of requests for resources, which nonResourceURLs never match", quoted(url));
                self.find(URL_NEVER_MATCHES, path, message);
            }
        }
    }

    fn rule_stages(&mut self, rule: &PolicyRule, path: &str) {
        if rule.level > Level::None && self.omits_all(rule) {
            let message = "this rule writes no event: all its stages are omitted";
            self.find(OMITS_EVERY_STAGE, format!("{path}.omitStages"), message.into());
        }
    }

    /// Whether every stage is omitted, with or without Panic.
    pub(super) fn omits_all(&self, rule: &PolicyRule) -> bool {
        let omits = |stage| rule.omit_stages.contains(&stage) || self.policy.omit_stages.contains(&stage);
        [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete].into_iter().all(omits)
    }
}
