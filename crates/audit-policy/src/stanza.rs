//! The rules of lint, one stanza each: the data behind every finding, `--explain`, SARIF and docs/policy-lint.md.

use std::fmt::Write;

use crate::Severity::{self, Error, Info, Warning};

/// One kind of finding.
#[derive(Debug, PartialEq)]
pub struct Stanza {
    /// Kebab-case. Other programs depend on it: a released id never changes.
    pub id: &'static str,
    pub severity: Severity,
    /// Whether kube-apiserver refuses to start.
    pub stops_start: bool,
    /// The problem, in one sentence.
    pub about: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// The advice, as the continuation of a sentence: lower case, no full stop.
    pub fix: &'static str,
    /// The edit that `--fix` makes, and its effect on the decisions of kube-apiserver. `None`: there is no single
    /// correct edit.
    pub edit: Option<&'static str>,
    /// Source of the rule.
    pub source: &'static str,
}

const CHECKER: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go";
const READER: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go";
const VALIDATION: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/validation/validation.go";
const AUTHN_AUDIT: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/authn_audit.go";
const REQUEST_INFO: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go";
const REQUEST: &str = "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/request.go";
const DISCOVERY: &str = "kubernetes@v1.36.3 api/discovery; the table is crates/audit-policy/src/lint/resources.txt";
const YAML: &str = "go.yaml.in/yaml/v2@v2.4.3 resolve.go, yaml.go, parserc.go";

macro_rules! stanzas {
    ($($name:ident = $stanza:expr;)*) => {
        $(pub(in crate) const $name: &Stanza = &$stanza;)*
        /// Every stanza, in the order of the documentation.
        pub const STANZAS: &[&Stanza] = &[$($name),*];
    };
}

const fn stops(
    id: &'static str,
    about: &'static str,
    why: &'static str,
    fix: &'static str,
    edit: Option<&'static str>,
    source: &'static str,
) -> Stanza {
    Stanza { id, severity: Error, stops_start: true, about, why, fix, edit, source }
}

const fn starts(
    severity: Severity,
    id: &'static str,
    about: &'static str,
    why: &'static str,
    fix: &'static str,
    edit: Option<&'static str>,
    source: &'static str,
) -> Stanza {
    Stanza { id, severity, stops_start: false, about, why, fix, edit, source }
}

stanzas! {
    // --- kube-apiserver does not start. ---
    SYNTAX = stops(
        "syntax",
        "The file is neither YAML nor JSON as kube-apiserver reads them.",
        "kube-apiserver exits at once and its static pod crash-loops: the node has no API server until someone corrects the file.",
        "correct the text at this place",
        None,
        YAML,
    );
    WRONG_TYPE = stops(
        "wrong-type",
        "A value of the wrong type.",
        "kube-apiserver reads YAML 1.1, in which on, no, y, 1_000 and 08 are booleans and numbers. A list of strings does not accept them.",
        "quote it",
        Some("Quotes a scalar that is meant as a string. kube-apiserver did not start before."),
        YAML,
    );
    API_VERSION = stops(
        "api-version",
        "An apiVersion other than audit.k8s.io/v1.",
        "Kubernetes 1.24 removed v1alpha1 and v1beta1. Without an apiVersion, kube-apiserver loads nothing.",
        "write apiVersion: audit.k8s.io/v1",
        Some("Writes audit.k8s.io/v1 for v1alpha1 and v1beta1, whose policies have the same fields. kube-apiserver did not start before."),
        READER,
    );
    KIND = stops(
        "kind",
        "A kind other than Policy.",
        "kube-apiserver loads only a Policy, spelled exactly like this.",
        "write kind: Policy",
        Some("Corrects the case. kube-apiserver did not start before."),
        READER,
    );
    NO_RULES = stops(
        "no-rules",
        "A policy without rules.",
        "kube-apiserver rejects it. To record nothing, write one rule of level None.",
        "add a rule",
        None,
        READER,
    );
    LEVEL = stops(
        "level",
        "An unknown or missing level.",
        "The levels are None, Metadata, Request and RequestResponse, spelled exactly like this.",
        "write None, Metadata, Request or RequestResponse",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    STAGE = stops(
        "stage",
        "An unknown stage.",
        "The stages are RequestReceived, ResponseStarted, ResponseComplete and Panic, spelled exactly like this.",
        "write RequestReceived, ResponseStarted, ResponseComplete or Panic",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    GROUP = stops(
        "group",
        "A name that no API group can have in this version of Kubernetes.",
        "A group is named without its version and in lower case. \"*\" for every group exists since Kubernetes 1.36; no older kube-apiserver starts with it.",
        "write only the name of the group",
        Some("Removes the version and writes lower case: Apps/v1 becomes apps. kube-apiserver did not start before."),
        VALIDATION,
    );
    NON_RESOURCE_URL = stops(
        "non-resource-url",
        "A non-resource URL that does not begin with /, or has a * before its end.",
        "kube-apiserver matches a whole path, or the beginning of a path followed by a single *.",
        "begin it with / and put the * at the end",
        Some("Adds the leading / to a path that lacks nothing else. kube-apiserver did not start before."),
        VALIDATION,
    );
    RESOURCE_NAMES = stops(
        "resource-names",
        "resourceNames without resources.",
        "A name alone does not identify a resource, so kube-apiserver rejects the rule.",
        "name the resources too",
        None,
        VALIDATION,
    );
    MIXED_RULE = stops(
        "mixed-rule",
        "nonResourceURLs together with resources or namespaces in one rule.",
        "No request matches both, so kube-apiserver rejects the rule.",
        "split it into two rules",
        None,
        VALIDATION,
    );

    // --- kube-apiserver reads the text in another way than its author meant. ---
    UNKNOWN_FIELD = starts(
        Warning,
        "unknown-field",
        "A field that kube-apiserver does not know at this place.",
        "kube-apiserver drops it and only logs a warning. A rule without one of its conditions usually matches more: OpenShift shipped `resource` instead of `resources` and recorded a whole API group at another level. Another common mistake is `verbs` below `resources`.",
        "kube-apiserver drops it and only logs a warning: correct the name, the case or the indentation, or remove it",
        Some("Corrects a name that resembles a field which is missing there. The rule then matches only what its author meant, which is less than before."),
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go; kubernetes/kubernetes#110116",
    );
    DUPLICATE_FIELD = starts(
        Warning,
        "duplicate-field",
        "A field that is given twice.",
        "kube-apiserver logs a warning and continues. In YAML the last one counts; in JSON the second is read on top of the first.",
        "keep one",
        None,
        READER,
    );
    SECOND_DOCUMENT = starts(
        Warning,
        "second-document",
        "Text after the end of the first YAML document.",
        "kube-apiserver reads only the first document and ignores the rest without a warning. A line with less indentation than the first one ends a document, as `---` does.",
        "make the file one document with one indentation",
        None,
        YAML,
    );
    NULL_VALUE = starts(
        Warning,
        "null-value",
        "A null value.",
        "A null list is no condition at all. In a list of names, null is the empty name; in a list of resources, it is the whole core group.",
        "leave the field out, or quote it",
        None,
        YAML,
    );
    YAML_TAG = starts(
        Info,
        "yaml-tag",
        "A YAML tag.",
        "A tag changes the type of a value, but only for parsers that know it; kube-apiserver's parser follows YAML 1.1. The operator rejects an AuditSetup with a tag in its policy.",
        "quote the value instead",
        None,
        YAML,
    );
    YAML_ALIAS = starts(
        Info,
        "yaml-alias",
        "A YAML alias.",
        "kube-apiserver resolves it, but many other readers of policies do not. With a merge key, the later text wins. The operator rejects an AuditSetup with an alias in its policy.",
        "write the value out",
        None,
        YAML,
    );
    FOLDED_LIST = starts(
        Warning,
        "folded-list",
        "A list item that looks like several.",
        "To every YAML parser, `- a` with a deeper `- b` below it is one string, \"a - b\". Nothing has that name.",
        "give all items of the list the same indentation",
        None,
        YAML,
    );

    // --- Rules that match less or more than they seem to. ---
    LITERAL_WILDCARD = starts(
        Warning,
        "literal-wildcard",
        "A * in a list of whole names.",
        "users, userGroups, verbs, namespaces and resourceNames have no wildcards: a rule for the verb \"*\" matches no request.",
        "leave the list out to match everything, or write every name",
        Some("Empties a list that holds only \"*\", except namespaces: a rule without them also matches requests outside of every namespace. The rule then matches as intended; before, it matched nothing."),
        CHECKER,
    );
    UNKNOWN_VERB = starts(
        Warning,
        "unknown-verb",
        "A verb that no request of the rule has.",
        "Requests for resources have the verbs get, list, watch, create, update, patch, delete, deletecollection and proxy. The verb of every other request is its HTTP method in lower case. use, bind, escalate, impersonate, approve, sign and attest are verbs of RBAC only.",
        "write verbs of requests, in lower case",
        Some("Writes a verb in lower case. The rule then matches it, as intended."),
        REQUEST_INFO,
    );
    GROUP_AS_USER = starts(
        Warning,
        "group-as-user",
        "A group in users, or a user in userGroups.",
        "kube-apiserver compares the two lists with different things: system:masters is a group, system:anonymous is a user.",
        "move it to the other list",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/authentication/user/user.go",
    );
    DEAD_USER = starts(
        Warning,
        "dead-user",
        "A user that does not exist.",
        "system:unsecured was the user of the insecure port, which Kubernetes 1.24 removed. kubelet was the user of all kubelets before each had a name of its own (system:node:…). GCE's policy and its many copies still name both, so their rules match less than they seem to. A service account is the user system:serviceaccount:NAMESPACE:NAME.",
        "remove it; for kubelets write userGroups: [\"system:nodes\"]",
        None,
        "kubernetes@v1.24.0 CHANGELOG-1.24; kubernetes cluster/gce/gci/configure-helper.sh",
    );
    IMPOSSIBLE_NAMESPACE = starts(
        Warning,
        "impossible-namespace",
        "A name that no namespace can have.",
        "kube-apiserver compares the namespace of a request literally. The name of a namespace consists of lower-case letters, digits and -.",
        "correct the name; write each namespace as an item of its own",
        None,
        CHECKER,
    );
    CLUSTER_SCOPED = starts(
        Warning,
        "cluster-scoped",
        "A cluster-scoped resource in a rule with namespaces.",
        "A request for it has the namespace \"\", so a rule for named namespaces never matches it.",
        "give it a rule of its own, without namespaces",
        None,
        DISCOVERY,
    );
    CORE_GROUP = starts(
        Warning,
        "core-group",
        "\"core\" or a version instead of the core group.",
        "The core group is called \"\". To kube-apiserver, core and v1 are the names of other groups, which do not exist.",
        "write group: \"\"",
        Some("Writes \"\" for core and v1. The rule then matches the core group, as intended; before, it matched nothing."),
        CHECKER,
    );
    UNKNOWN_GROUP = starts(
        Warning,
        "unknown-group",
        "An API group that Kubernetes does not have.",
        "The group of a custom resource has a dot in its name. The only groups without a dot are apps, autoscaling, batch, policy and the core group.",
        "write the full name, such as rbac.authorization.k8s.io",
        Some("Writes the full name if all resources of the entry are in that group. The rule then matches them, as intended."),
        DISCOVERY,
    );
    WRONG_GROUP = starts(
        Warning,
        "wrong-group",
        "A resource that is in another API group.",
        "kube-apiserver compares both group and resource. deployments in the core group, as in Falco's policy, match no request, and a later rule decides about deployments.",
        "name it under its own group",
        Some("Corrects the group of an entry if all its resources are in one other group. The rule then matches them, as intended."),
        DISCOVERY,
    );
    UNKNOWN_RESOURCE = starts(
        Warning,
        "unknown-resource",
        "A resource or subresource that its API group does not have.",
        "Resources are named in the plural and in lower case, as in URLs: secrets, not secret or Secret. No request has another name.",
        "correct the name",
        Some("Writes the name in the plural and in lower case if the group has that resource. The rule then matches it, as intended."),
        DISCOVERY,
    );
    REMOVED_RESOURCE = starts(
        Warning,
        "removed-resource",
        "A resource that this version of Kubernetes no longer serves.",
        "No request for it succeeds. The API group that serves it now has another name: a rule for extensions does not match apps.",
        "name it under its present group",
        None,
        "kubernetes.io/docs/reference/using-api/deprecation-guide; the table is crates/audit-policy/src/lint/resources.txt",
    );
    DEAD_PATTERN = starts(
        Warning,
        "dead-pattern",
        "A resource pattern that matches no request.",
        "A pattern is * for everything, a whole name such as pods or pods/log, pods/*, or */scale. */* does not match everything, and a * within a name has no meaning.",
        "write \"*\" for all resources and subresources",
        Some("Writes \"*\" for \"*/*\". The rule then matches everything in the group, as intended."),
        CHECKER,
    );
    PARENT_TOO = starts(
        Info,
        "parent-too",
        "A pattern such as pods/*, which also matches pods.",
        "According to the documentation it matches the subresources; the code does not check whether the request names one.",
        "name the subresources if you do not mean the resource itself",
        None,
        CHECKER,
    );
    RESOURCE_NAMES_VERB = starts(
        Warning,
        "resource-names-verb",
        "resourceNames with verbs whose requests have no name.",
        "The name comes from the URL. The create of an object and every deletecollection have no name there; a list or watch has one only with the field selector metadata.name.",
        "give these verbs a rule without resourceNames",
        None,
        REQUEST_INFO,
    );
    URL_NEVER_MATCHES = starts(
        Warning,
        "url-never-matches",
        "A non-resource URL that matches no request.",
        "Paths below /api/v1/ and /apis/GROUP/VERSION/ are requests for resources, which nonResourceURLs never match. The query is not part of the path.",
        "use resources, or the path without its query",
        None,
        REQUEST_INFO,
    );
    EXEC_VERBS = starts(
        Warning,
        "exec-verbs",
        "exec, attach or portforward with only one of the verbs get and create.",
        "The same command is a create as a POST (SPDY) and a get as a WebSocket, kubectl's default since 1.31. A rule for only one of them misses half.",
        "write both get and create, or no verbs",
        None,
        "kubernetes/enhancements#4006",
    );
    UNREACHABLE_RULE = starts(
        Warning,
        "unreachable-rule",
        "A rule that no request reaches.",
        "The first rule that matches decides. Earlier rules, one alone or several together, take every request that this rule matches.",
        "move it before the rules that take its requests, or remove it",
        None,
        CHECKER,
    );
    PARTLY_SHADOWED = starts(
        Warning,
        "partly-shadowed",
        "A name in a rule that has no effect.",
        "Earlier rules take every request that the rule matches by this name, and record it differently. The rest of the rule works.",
        "move the rule before those that take its requests, or remove the name",
        None,
        CHECKER,
    );
    REPEATED_VALUE = starts(
        Info,
        "repeated-value",
        "A value that is in a list twice.",
        "It has no effect, and often another value was meant.",
        "remove one",
        None,
        CHECKER,
    );
    EMPTY_VALUE = starts(
        Info,
        "empty-value",
        "An empty string in a list of names.",
        "It is a name like any other: it matches a request with an unknown verb, a user without a name, an object without a name. In namespaces it matches requests outside of every namespace.",
        "remove it, unless you mean it",
        None,
        CHECKER,
    );
    EMPTY_NAMESPACE = starts(
        Info,
        "empty-namespace",
        "The namespace \"\".",
        "It matches cluster-scoped objects, and also lists and watches of all namespaces at once (kubectl get -A). With a namespaced resource and only verbs of single objects it matches nothing: then it is a warning. A Namespace is in its own namespace, except for list and create.",
        "nothing, if you mean both",
        None,
        REQUEST_INFO,
    );
    ALL_NAMESPACES = starts(
        Info,
        "all-namespaces",
        "A rule with namespaces that also covers lists or watches.",
        "A list of all namespaces at once (kubectl get -A) returns their objects too. Its namespace is \"\", so this rule does not match it.",
        "add \"\" to the namespaces if the rule should match such lists",
        None,
        REQUEST_INFO,
    );
    RULE_TOO_LARGE = starts(
        Info,
        "rule-too-large",
        "A rule with more combinations of values than lint compares.",
        "To decide whether a request reaches a rule, lint tries every combination of its values: at most 65,536 for a rule and a million for a file, so that it always ends soon. Lint does not know whether this rule is shadowed. If the rule may record Secrets, lint assumes that it does.",
        "split it into several rules",
        None,
        CHECKER,
    );

    // --- Records too much. ---
    SECRET_BODIES = starts(
        Error,
        "secret-bodies",
        "Secrets recorded above Metadata.",
        "The event then contains the Secret in plain text, on the disk of every control-plane node and wherever the events go: anyone who reads the log has the credentials. From Request on, so do the annotations, which record the patches of mutating webhooks. AKS-engine's policy did this, and the letter of the STIG (V-242403) demands it.",
        "put a rule of level Metadata for secrets before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2; NSA/CISA Kubernetes Hardening Guide, appendix L",
    );
    TOKEN_BODIES = starts(
        Error,
        "token-bodies",
        "Tokens recorded above Metadata.",
        "The request of a TokenReview and the response of serviceaccounts/token contain a token that is valid when it is logged.",
        "put a rule of level Metadata for it before this one, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CONFIGMAP_BODIES = starts(
        Warning,
        "configmap-bodies",
        "ConfigMaps recorded above Metadata.",
        "ConfigMaps are not meant for credentials but often contain them, and they are large. CIS 3.2.2 asks for Metadata only.",
        "put a rule of level Metadata for configmaps before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CUSTOM_RESOURCE_BODIES = starts(
        Info,
        "custom-resource-bodies",
        "Custom resources recorded above Metadata.",
        "Some operators keep passwords, tokens and connection strings in their custom resources. Lint cannot know which.",
        "put a rule of level Metadata before it for those that contain credentials",
        None,
        "kubernetes.io/docs/concepts/configuration/secret",
    );
    CSR_BODIES = starts(
        Info,
        "certificate-request-bodies",
        "CertificateSigningRequests recorded above Metadata.",
        "The request and the certificate contain no private key. They show who obtained which identity, and some signers add more to them.",
        "put a rule of level Metadata for certificatesigningrequests before it, if that is too much",
        None,
        REQUEST,
    );
    BODIES_OF_NOTHING = starts(
        Info,
        "no-bodies",
        "Request or RequestResponse where there is no body to record.",
        "kube-apiserver records bodies only of requests for resources. For all others both levels are the same as Metadata; so they are for watches, and for aggregated APIs, which kube-apiserver passes on without decoding them. A get or list has no body of its own, only that of its response.",
        "write Metadata",
        None,
        REQUEST,
    );
    LARGE_RESPONSES = starts(
        Info,
        "large-responses",
        "Whole lists recorded with their responses.",
        "A list of all pods or secrets is one event of many megabytes. Such events fill disks, and webhooks reject or truncate them.",
        "put a rule of level Request or Metadata for get, list and watch before it",
        None,
        REQUEST,
    );
    PROBES_RECORDED = starts(
        Info,
        "probes-recorded",
        "Health probes are recorded.",
        "The kubelet requests /readyz every second and /livez every ten seconds, on every control-plane node: most events are these. With a webhook in a blocking mode the probes also wait for it, and the kubelet restarts kube-apiserver when the webhook is down.",
        "put a rule of level None for nonResourceURLs [/healthz*, /livez*, /readyz*] before it",
        None,
        "kubernetes@v1.36.3 cmd/kubeadm/app/util/staticpod/utils.go",
    );
    LEASES_RECORDED = starts(
        Info,
        "leases-recorded",
        "Lease renewals are recorded.",
        "Every node and every leader renews a Lease every few seconds. Each renewal is an event without information.",
        "put a rule of level None for get, update and patch of leases in coordination.k8s.io before it",
        None,
        CHECKER,
    );

    // --- Records too little. ---
    NO_CATCH_ALL = starts(
        Info,
        "no-catch-all",
        "Requests that no rule matches.",
        "kube-apiserver does not record them, and gives no warning. A last rule without conditions states their level, even if it is None.",
        "add a last rule without conditions, such as - level: Metadata",
        None,
        CHECKER,
    );
    RBAC_UNRECORDED = starts(
        Warning,
        "rbac-unrecorded",
        "Changes of RBAC are not recorded.",
        "Users who grant themselves a role leave no trace. KKP's minimal policy has no rule for RBAC, and no last rule for everything else.",
        "add a rule of level Metadata or higher for rbac.authorization.k8s.io",
        None,
        "PCI DSS 4.0 10.2.1.5; kubermatic/kubermatic pkg/resources/apiserver/audit.go",
    );
    KEY_CONCERNS = starts(
        Info,
        "cis-key-concerns",
        "A key concern of CIS 3.2.2 that is not recorded.",
        "The benchmark asks for access to Secrets, ConfigMaps and TokenReviews, for changes of Pods and Deployments, and for the use of pods/exec, pods/portforward, pods/proxy and services/proxy.",
        "add rules of level Metadata for them",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    FAILED_AUTHENTICATION = starts(
        Info,
        "failed-authentication",
        "Failed authentication is not recorded.",
        "A request with an invalid token (401) has no user, not even system:anonymous, so only a rule without users and userGroups matches it. Attempts to get in leave no trace.",
        "add a rule of level Metadata without users and userGroups, for example as the last rule",
        None,
        AUTHN_AUDIT,
    );
    OMITS_RESPONSE_STARTED = starts(
        Warning,
        "omits-response-started",
        "ResponseStarted is omitted where failed authentication is recorded.",
        "A request with an invalid token (401) has one event only, at the stage ResponseStarted. Without the stage, the log has neither this event nor the beginning of any watch or exec.",
        "keep ResponseStarted, or omit it only in rules for watches",
        None,
        AUTHN_AUDIT,
    );
    OMITS_EVERY_STAGE = starts(
        Warning,
        "omits-every-stage",
        "All stages are omitted, or all but Panic.",
        "The rule records nothing, but kube-apiserver still collects the data for it.",
        "write level: None, or omit fewer stages",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    OMITS_REQUEST_RECEIVED = starts(
        Warning,
        "omits-request-received",
        "RequestReceived is omitted, and the webhook or log is in mode blocking-strict.",
        "In this mode, kube-apiserver rejects a request if it cannot deliver its event of the stage RequestReceived. Without that event it rejects none. Checked only with --mode blocking-strict.",
        "keep RequestReceived, or use the mode blocking",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    BELOW_FLOOR = starts(
        Error,
        "below-floor",
        "A rule that would record less than the floor of the cluster's administrator. Checked only with --floor.",
        "The rules of the floor come before those of every AuditSetup and decide first. The rule has no effect, so the operator rejects an AuditSetup that contains it.",
        "remove the rule, or name something else in it; only an administrator can change floor.rules",
        None,
        "docs/security.md",
    );
}

/// The stanza with this id.
pub fn stanza(id: &str) -> Option<&'static Stanza> {
    STANZAS.iter().copied().find(|stanza| stanza.id == id)
}

/// `policy lint --explain`, and a section of the documentation.
pub fn manual(stanza: &Stanza) -> String {
    let Stanza { id, severity, stops_start, about, why, fix, edit, source } = stanza;
    let start = if *stops_start { "kube-apiserver does not start" } else { "kube-apiserver starts" };
    let mut out = format!("{id} ({}; {start})\n\n{about}\n\nWhy: {why}\n\nWhat to do: {fix}.\n", severity.as_str());
    if let Some(edit) = edit {
        write!(out, "\nWith --fix: {edit}\n").expect("a String takes everything");
    }
    write!(out, "\nSource: {source}\n").expect("a String takes everything");
    out
}

/// docs/policy-lint.md.
pub fn documentation() -> String {
    let mut out = String::from(
        "# Findings of `audit-operator policy lint`\n\n\
         Generated from crates/audit-policy/src/stanza.rs by `UPDATE_CASES=1 cargo test`; do not edit.\n\n\
         kube-apiserver does not start with the findings of the first section. With every other finding it starts, and `valid` is \
         true. Errors and warnings make the exit status 1; infos do not.\n\n\
         One problem is not listed, because no policy file shows it: a receiver that writes to the Kubernetes API for every event \
         feeds itself if its requests are recorded. Put a rule of level None for its user first.\n",
    );
    for (title, is_in) in [
        ("kube-apiserver does not start", (|stanza: &&&Stanza| stanza.stops_start) as fn(&&&Stanza) -> bool),
        ("Errors", |stanza| !stanza.stops_start && stanza.severity == Error),
        ("Warnings", |stanza| stanza.severity == Warning),
        ("Infos", |stanza| stanza.severity == Info),
    ] {
        write!(out, "\n## {title}\n").expect("a String takes everything");
        for Stanza { id, about, why, fix, edit, source, .. } in STANZAS.iter().filter(is_in) {
            write!(out, "\n### {id}\n\n{about} {why}\n\n- What to do: {fix}.\n").expect("a String takes everything");
            if let Some(edit) = edit {
                writeln!(out, "- With `--fix`: {edit}").expect("a String takes everything");
            }
            writeln!(out, "- Source: {source}").expect("a String takes everything");
        }
    }
    out
}
