//! Requests of which the whole policy records too much or too little.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::reach::{MAX_OF_POLICY, Witnesses};
use super::{Finding, Linter};
use crate::explain::matches_resource;
use crate::stanza::*;
use crate::{Attributes, User, attributes};
use crate::{GroupResources, Level, Mode, PolicyRule, Stage};

/// A resource whose bodies should not be in a log.
struct Sensitive {
    stanza: &'static Stanza,
    group: &'static str,
    /// With its subresource.
    pattern: &'static str,
    is_namespaced: bool,
    /// Whether the only request for it is create.
    is_call: bool,
}

const SENSITIVE: [Sensitive; 5] = [
    Sensitive { stanza: SECRET_BODIES, group: "", pattern: "secrets", is_namespaced: true, is_call: false },
    Sensitive { stanza: TOKEN_BODIES, group: "", pattern: "serviceaccounts/token", is_namespaced: true, is_call: true },
    Sensitive {
        stanza: TOKEN_BODIES,
        group: "authentication.k8s.io",
        pattern: "tokenreviews",
        is_namespaced: false,
        is_call: true,
    },
    Sensitive { stanza: CONFIGMAP_BODIES, group: "", pattern: "configmaps", is_namespaced: true, is_call: false },
    Sensitive {
        stanza: CSR_BODIES,
        group: "certificates.k8s.io",
        pattern: "certificatesigningrequests",
        is_namespaced: false,
        is_call: false,
    },
];

/// Key concerns of CIS Kubernetes Benchmark 3.2.2, each with a request for it.
const KEY_CONCERNS: [(&str, &str, &str); 11] = [
    ("access to Secrets", "GET", "/api/v1/namespaces/a/secrets/b"),
    ("changes of Secrets", "PUT", "/api/v1/namespaces/a/secrets/b"),
    ("changes of ConfigMaps", "PUT", "/api/v1/namespaces/a/configmaps/b"),
    ("TokenReviews", "POST", "/apis/authentication.k8s.io/v1/tokenreviews"),
    ("new Pods", "POST", "/api/v1/namespaces/a/pods"),
    ("changes of Deployments", "PUT", "/apis/apps/v1/namespaces/a/deployments/b"),
    ("pods/exec", "POST", "/api/v1/namespaces/a/pods/b/exec"),
    ("pods/exec over WebSocket", "GET", "/api/v1/namespaces/a/pods/b/exec"),
    ("pods/portforward", "POST", "/api/v1/namespaces/a/pods/b/portforward"),
    ("pods/proxy", "GET", "/api/v1/namespaces/a/pods/b/proxy"),
    ("services/proxy", "GET", "/api/v1/namespaces/a/services/b/proxy"),
];

/// Lists of the most numerous resources.
const LISTS: [&str; 6] = [
    "/api/v1/pods",
    "/api/v1/secrets",
    "/api/v1/configmaps",
    "/api/v1/events",
    "/api/v1/nodes",
    "/apis/apps/v1/replicasets",
];

const RBAC: [(&str, &str); 4] = [
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
    ("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings"),
    ("PUT", "/apis/rbac.authorization.k8s.io/v1/namespaces/a/roles/b"),
];

/// The user of a request.
#[derive(Clone, Copy)]
enum Requester {
    /// A user whom almost no rule names.
    Person,
    Node,
    Anonymous,
    /// Authentication failed.
    Unauthenticated,
}

impl Linter<'_> {
    pub(super) fn coverage(&mut self) {
        for sensitive in &SENSITIVE {
            self.bodies(sensitive);
        }
        self.volume();
        self.gaps();
        self.policy_stages();
    }

    /// The rule that records a request, and its level. `None`: the request is not recorded.
    fn recorded(&self, method: &str, url: &str, user: Requester) -> Option<(usize, Level)> {
        let user = match user {
            Requester::Person => Some(User::authenticated("\u{e000}", &[])),
            Requester::Node => Some(User::authenticated("system:node:a", &["system:nodes"])),
            Requester::Anonymous => Some(User::authenticated("system:anonymous", &[])),
            Requester::Unauthenticated => None,
        };
        let attributes = attributes(method, url).expect("the URLs here are ones that are audited");
        let decision = self.evaluator.decide(&Attributes { user, ..attributes });
        let is_recorded = |rule: &usize| decision.level > Level::None && !self.omits_all(&self.policy.rules[*rule]);
        decision.rule.filter(is_recorded).map(|rule| (rule, decision.level))
    }

    fn bodies(&mut self, sensitive: &Sensitive) {
        let mut left = MAX_OF_POLICY;
        for (i, rule) in self.policy.rules.iter().enumerate() {
            if rule.level <= Level::Metadata || self.omits_all(rule) {
                continue;
            }
            let Some(narrow) = narrowed(rule, sensitive) else { continue };
            let witnesses = Witnesses::of(&narrow, self.fresh, true).filter(|witnesses| witnesses.len() <= left);
            // Too many to try: the rule is assumed to record it.
            let leaks = witnesses.is_none_or(|witnesses| {
                let found = witnesses.visit(|_, request| {
                    left = left.saturating_sub(1);
                    match self.evaluator.decide(request).rule {
                        Some(rule) if rule == i => ControlFlow::Break(()),
                        _ => ControlFlow::Continue(()),
                    }
                });
                found.is_some()
            });
            if leaks {
                let Sensitive { stanza, pattern, .. } = sensitive;
                let path = format!("rules[{i}].level");
                let message = format!("{pattern} are recorded at {:?}, with their content", rule.level);
                let mut finding = Finding::new(stanza, self.places.of(&path), path, message);
                if self.terms.secrets_accepted {
                    finding.severity = super::Severity::Info;
                    finding.help = Some("nothing: you have acknowledged the risk".into());
                }
                self.add(finding);
            }
        }
    }

    fn volume(&mut self) {
        let is_blocking = self.terms.mode != Mode::Batch;
        for url in ["/readyz", "/livez", "/healthz"] {
            if let Some((rule, _)) = self.recorded("GET", url, Requester::Anonymous) {
                let path = format!("rules[{rule}]");
                let message = format!("this rule records {url}, which the kubelet requests all the time");
                let mut finding = Finding::new(PROBES_RECORDED, self.places.of(&path), path, message);
                if is_blocking {
                    finding.severity = super::Severity::Warning;
                }
                self.add(finding);
                break;
            }
        }
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
        if let Some((rule, _)) = self.recorded("PUT", lease, Requester::Node) {
            let message = "this rule records the heartbeat of every node every ten seconds";
            self.find(LEASES_RECORDED, format!("rules[{rule}]"), message.into());
        }
        let lists = LISTS.into_iter().filter_map(|url| match self.recorded("GET", url, Requester::Person) {
            Some((rule, Level::RequestResponse)) => Some((rule, url)),
            _ => None,
        });
        // Only the first list of each rule.
        let by_rule: BTreeMap<usize, &str> = lists.rev().collect();
        for (rule, url) in by_rule {
            let message = format!("this rule records whole lists, such as {url}, with their responses");
            self.find(LARGE_RESPONSES, format!("rules[{rule}].level"), message);
        }
        let of_others = format!("/apis/{group}.example/v1/namespaces/a/{group}s/b", group = "\u{e000}");
        if let Some((rule, Level::Request | Level::RequestResponse)) =
            self.recorded("PUT", &of_others, Requester::Person)
        {
            let message = "this rule records the content of custom resources of every kind";
            self.find(CUSTOM_RESOURCE_BODIES, format!("rules[{rule}].level"), message.into());
        }
    }

    fn gaps(&mut self) {
        let rules = &self.policy.rules;
        let records = |rule: &PolicyRule| rule.level > Level::None && !self.omits_all(rule);
        // The policy explicitly records nothing.
        if rules.iter().all(|rule| rule.level == Level::None) {
            return;
        }
        let is_silent = |method: &str, url: &str| self.recorded(method, url, Requester::Person).is_none();
        // A policy that records no changes at all is not expected to record those of RBAC.
        let records_changes = |rule: &PolicyRule| {
            let is_change = |verb: &String| matches!(verb.as_str(), "create" | "update" | "patch" | "delete");
            records(rule) && (rule.verbs.is_empty() || rule.verbs.iter().any(is_change))
        };
        let is_blind =
            rules.iter().any(records_changes) && RBAC.into_iter().all(|(method, url)| is_silent(method, url));
        let concerns = KEY_CONCERNS.into_iter().filter(|(_, method, url)| is_silent(method, url));
        let concerns: Vec<&str> = concerns.map(|(what, ..)| what).collect();
        if is_blind {
            let message = "changes of roles and role bindings are not recorded";
            self.find(RBAC_UNRECORDED, "rules".into(), message.into());
        }
        if !concerns.is_empty() {
            self.find(super::stanza::KEY_CONCERNS, "rules".into(), format!("not recorded: {}", concerns.join(", ")));
        }
        if !rules.iter().any(is_open) {
            let message = "requests that no rule matches are not recorded, and no last rule states this";
            self.find(NO_CATCH_ALL, "rules".into(), message.into());
        }
        if self.recorded("GET", "/api/v1/pods", Requester::Unauthenticated).is_none() {
            let request =
                Attributes { user: None, ..attributes("GET", "/api/v1/pods").expect("kube-apiserver audits it") };
            let why = match self.evaluator.decide(&request).rule {
                // All its stages are omitted, which is reported elsewhere.
                Some(rule) if rules[rule].level > Level::None => return,
                Some(rule) => format!("rules[{rule}], of level None, takes one for pods"),
                None => "rules for users or groups never match it".to_string(),
            };
            let message = format!("a request with an invalid token is not recorded: {why}");
            self.find(FAILED_AUTHENTICATION, "rules".into(), message);
        }
    }

    fn policy_stages(&mut self) {
        let policy = self.policy;
        let omitted = |stages: &[Stage], stage| stages.iter().position(|one| *one == stage);
        let records = |rule: &&PolicyRule| rule.level > Level::None;
        let message = "failed authentication has only an event of this stage: no 401 is recorded";
        let for_nobody = |rule: &PolicyRule| rule.users.is_empty() && rule.user_groups.is_empty();
        let recording: Vec<usize> = (0..policy.rules.len())
            .filter(|i| records(&&policy.rules[*i]) && !self.omits_all(&policy.rules[*i]))
            .collect();
        if let Some(i) = omitted(&policy.omit_stages, Stage::ResponseStarted) {
            if policy.rules.iter().any(|rule| records(&rule) && for_nobody(rule)) {
                self.find(OMITS_RESPONSE_STARTED, format!("omitStages[{i}]"), message.into());
            }
        } else {
            // Omitting the beginning of watches is sensible.
            let is_for_watches =
                |rule: &PolicyRule| !rule.verbs.is_empty() && rule.verbs.iter().all(|verb| verb == "watch");
            for i in &recording {
                let rule = &policy.rules[*i];
                if for_nobody(rule)
                    && !is_for_watches(rule)
                    && let Some(j) = omitted(&rule.omit_stages, Stage::ResponseStarted)
                {
                    self.find(OMITS_RESPONSE_STARTED, format!("rules[{i}].omitStages[{j}]"), message.into());
                }
            }
        }
        if self.terms.mode == Mode::BlockingStrict {
            let message = "the mode blocking-strict rejects requests at this stage, but the stage is omitted";
            if let Some(i) = omitted(&policy.omit_stages, Stage::RequestReceived) {
                return self.find(OMITS_REQUEST_RECEIVED, format!("omitStages[{i}]"), message.into());
            }
            for i in recording {
                if let Some(j) = omitted(&policy.rules[i].omit_stages, Stage::RequestReceived) {
                    self.find(OMITS_REQUEST_RECEIVED, format!("rules[{i}].omitStages[{j}]"), message.into());
                }
            }
        }
    }
}

/// Whether a rule matches everything.
fn is_open(rule: &PolicyRule) -> bool {
    let PolicyRule { users, user_groups, verbs, resources, namespaces, non_resource_urls, .. } = rule;
    [users, user_groups, verbs, namespaces, non_resource_urls].iter().all(|list| list.is_empty())
        && resources.is_empty()
}

/// A rule, reduced to one resource and to the verbs with bodies that it records. `None`: nothing is left.
fn narrowed(rule: &PolicyRule, sensitive: &Sensitive) -> Option<PolicyRule> {
    let Sensitive { group, pattern, is_namespaced, is_call, .. } = sensitive;
    // From Request on the body of these writes is recorded; at RequestResponse also the response of these reads. A
    // watch has neither.
    let writes = if *is_call { &["create"][..] } else { &["create", "update", "patch"] };
    let reads = if *is_call { &[][..] } else { &["get", "list", "delete", "deletecollection"] };
    let reads = if rule.level == Level::RequestResponse { reads } else { &[] };
    let has = |verb: &&&str| rule.verbs.is_empty() || rule.verbs.iter().any(|one| one == **verb);
    let verbs: Vec<String> = writes.iter().chain(reads).filter(has).map(|verb| verb.to_string()).collect();
    let namespaces = match (is_namespaced, rule.namespaces.is_empty()) {
        (false, true) => vec![String::new()],
        (false, false) => rule.namespaces.iter().filter(|namespace| namespace.is_empty()).cloned().collect(),
        (true, _) => rule.namespaces.clone(),
    };
    let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    let request = Attributes { resource: resource.into(), subresource: subresource.into(), ..Attributes::default() };
    let matches = |one: &String| matches_resource(one, &request);
    let of_group = rule.resources.iter().filter(|entry| entry.group == *group || entry.group == "*");
    let entries = of_group.filter(|entry| entry.resources.is_empty() || entry.resources.iter().any(matches));
    let entry = |resource_names| GroupResources {
        group: group.to_string(),
        resources: vec![pattern.to_string()],
        resource_names,
    };
    let resources: Vec<_> = if rule.resources.is_empty() {
        vec![entry(Vec::new())]
    } else {
        entries.map(|found| entry(found.resource_names.clone())).collect()
    };
    let is_nothing = verbs.is_empty()
        || resources.is_empty()
        || (!rule.namespaces.is_empty() && namespaces.is_empty())
        || !rule.non_resource_urls.is_empty();
    (!is_nothing).then(|| PolicyRule { verbs, namespaces, resources, ..rule.clone() })
}
