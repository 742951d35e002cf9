//! What lint looks for, one stanza each: the data behind every finding, `--explain`, SARIF and docs/policy-lint.md.

use std::fmt::Write;

use crate::Severity::{self, Error, Info, Warning};

/// One thing that lint finds.
#[derive(Debug, PartialEq)]
pub struct Stanza {
    /// Kebab-case; other programs know it by that. Never changed once released.
    pub id: &'static str,
    pub severity: Severity,
    /// Whether kube-apiserver refuses to start.
    pub stops_start: bool,
    /// What is found, in a line.
    pub about: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// What `--fix` does, and whether kube-apiserver decides otherwise then; none where there is more than one way.
    pub edit: Option<&'static str>,
    /// Where the rule comes from.
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

const fn tells(
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
        "kube-apiserver exits at once, and its static pod crash-loops: the node has no API server until somebody corrects the file.",
        "correct the text at the place named",
        None,
        YAML,
    );
    WRONG_TYPE = stops(
        "wrong-type",
        "A value has the wrong type for its field.",
        "kube-apiserver reads YAML 1.1: on, no, y, 1_000 and 08 are booleans and numbers there, and a list of strings accepts neither.",
        "quote it",
        Some("Quotes a scalar that is meant as a string. kube-apiserver did not start before."),
        YAML,
    );
    API_VERSION = stops(
        "api-version",
        "The apiVersion is not audit.k8s.io/v1.",
        "Kubernetes 1.24 removed v1alpha1 and v1beta1. Without an apiVersion nothing is loaded.",
        "write apiVersion: audit.k8s.io/v1",
        Some("Writes audit.k8s.io/v1 for v1alpha1 and v1beta1, whose policies have the same fields. kube-apiserver did not start before."),
        READER,
    );
    KIND = stops(
        "kind",
        "The kind is not Policy.",
        "kube-apiserver loads only a Policy, in exactly this spelling.",
        "write kind: Policy",
        Some("Corrects the case. kube-apiserver did not start before."),
        READER,
    );
    NO_RULES = stops(
        "no-rules",
        "A policy without a rule.",
        "kube-apiserver rejects it. To record nothing, write a rule of level None.",
        "add a rule",
        None,
        READER,
    );
    LEVEL = stops(
        "level",
        "An unknown or missing level.",
        "kube-apiserver knows None, Metadata, Request and RequestResponse, in exactly this spelling.",
        "write None, Metadata, Request or RequestResponse",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    STAGE = stops(
        "stage",
        "An unknown stage.",
        "kube-apiserver knows RequestReceived, ResponseStarted, ResponseComplete and Panic, in exactly this spelling.",
        "write RequestReceived, ResponseStarted, ResponseComplete or Panic",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    GROUP = stops(
        "group",
        "This cannot be the name of an API group in this version of Kubernetes.",
        "A group has a lower-case name without a version. \"*\" for every group is new in Kubernetes 1.36 and stops every older kube-apiserver.",
        "write the name of the group alone",
        Some("Removes the version and writes lower case: Apps/v1 becomes apps. kube-apiserver did not start before."),
        VALIDATION,
    );
    NON_RESOURCE_URL = stops(
        "non-resource-url",
        "A non-resource URL does not begin with /, or has a * that is not at its end.",
        "Only a whole path, or the beginning of a path followed by a single *, can be matched.",
        "begin it with /, and put the * at the end",
        Some("Adds the / at the beginning of a path, if nothing else is wrong with it. kube-apiserver did not start before."),
        VALIDATION,
    );
    RESOURCE_NAMES = stops(
        "resource-names",
        "resourceNames without resources.",
        "A name alone is not a resource, and kube-apiserver rejects the rule.",
        "also name the resources",
        None,
        VALIDATION,
    );
    MIXED_RULE = stops(
        "mixed-rule",
        "nonResourceURLs in a rule with resources or namespaces.",
        "No request is both, and kube-apiserver rejects the rule.",
        "split it into two rules",
        None,
        VALIDATION,
    );

    // --- kube-apiserver reads something else than stands there. ---
    UNKNOWN_FIELD = tells(
        Warning,
        "unknown-field",
        "A field that kube-apiserver does not know, or not in this place.",
        "kube-apiserver drops it and only logs a warning. A rule with one condition less usually matches more: OpenShift shipped `resource` for `resources`, and so recorded a whole API group at another level. The classic mistake is `verbs` below `resources`.",
        "kube-apiserver drops it and only logs a warning: correct the name, the case or the indentation, or remove it",
        Some("Corrects a name that is almost the name of a field that is missing there. The rule then matches as intended, which is less than before."),
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go; kubernetes/kubernetes#110116",
    );
    DUPLICATE_FIELD = tells(
        Warning,
        "duplicate-field",
        "A field is given twice.",
        "kube-apiserver logs a warning and continues. In YAML the last one counts; in JSON the second one is read over the first.",
        "keep one",
        None,
        READER,
    );
    SECOND_DOCUMENT = tells(
        Warning,
        "second-document",
        "Text after the end of the first YAML document.",
        "kube-apiserver reads only the first document, and ignores the rest silently. A line that is indented less than the first one ends a document as `---` does.",
        "make the file one document, with one indentation",
        None,
        YAML,
    );
    NULL_VALUE = tells(
        Warning,
        "null-value",
        "A value of null.",
        "A null list is no condition at all, a null name is the empty name, and a null entry of resources is the whole core group.",
        "remove the field, or quote the value",
        None,
        YAML,
    );
    YAML_TAG = tells(
        Info,
        "yaml-tag",
        "A YAML tag.",
        "It changes the type of a value for parsers that know it; kube-apiserver's parser follows YAML 1.1. An AuditSetup does not accept it.",
        "quote the value instead",
        None,
        YAML,
    );
    YAML_ALIAS = tells(
        Info,
        "yaml-alias",
        "A YAML alias.",
        "kube-apiserver follows it, but many other readers of policies do not. With a merge key, the later text wins. An AuditSetup does not accept it.",
        "write the value in full",
        None,
        YAML,
    );
    FOLDED_LIST = tells(
        Warning,
        "folded-list",
        "A list item that seems to be several.",
        "`- a` with a deeper `- b` below it is one string, \"a - b\", to every YAML parser. Nothing has that name.",
        "give all items of the list the same indentation",
        None,
        YAML,
    );

    // --- Rules that never match what they seem to. ---
    LITERAL_WILDCARD = tells(
        Warning,
        "literal-wildcard",
        "A * in a list that has no wildcards.",
        "users, userGroups, verbs, namespaces and resourceNames have no wildcards: a rule for the verb \"*\" matches no request.",
        "remove the list to match everything, or write every name",
        Some("Empties a list that has only \"*\", except for namespaces, because a rule without namespaces also matches requests without one. The rule then matches as intended; before, it matched nothing."),
        CHECKER,
    );
    UNKNOWN_VERB = tells(
        Warning,
        "unknown-verb",
        "A verb that no matching request has.",
        "Requests for resources have get, list, watch, create, update, patch, delete, deletecollection or proxy, all others their HTTP method in lower case. use, bind, escalate, impersonate, approve, sign and attest are verbs of RBAC only.",
        "write verbs of requests, in lower case",
        Some("Writes the verb in lower case. The rule then matches it, as intended."),
        REQUEST_INFO,
    );
    GROUP_AS_USER = tells(
        Warning,
        "group-as-user",
        "A group among the users, or a user among the groups.",
        "users and userGroups are separate lists: system:masters is a group, system:anonymous is a user.",
        "move it to the other list",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/authentication/user/user.go",
    );
    DEAD_USER = tells(
        Warning,
        "dead-user",
        "A user that does not exist.",
        "system:unsecured was the user of the insecure port, which Kubernetes 1.24 removed. kubelet was the user of kubelets before they had their own names (system:node:…). The policy of GCE and its many copies still name both, so their rules match less than they seem to. A service account is the user system:serviceaccount:NAMESPACE:NAME.",
        "remove it; for kubelets write userGroups: [\"system:nodes\"]",
        None,
        "kubernetes@v1.24.0 CHANGELOG-1.24; kubernetes cluster/gce/gci/configure-helper.sh",
    );
    IMPOSSIBLE_NAMESPACE = tells(
        Warning,
        "impossible-namespace",
        "This cannot be the name of a namespace.",
        "The namespace of a request is compared literally, and a name has only lower-case letters, digits and -.",
        "correct the name; write one namespace per item",
        None,
        CHECKER,
    );
    CLUSTER_SCOPED = tells(
        Warning,
        "cluster-scoped",
        "A cluster-scoped resource in a rule with namespaces.",
        "A request for it has no namespace (\"\"), so a rule for named namespaces never matches it.",
        "move it to a rule without namespaces",
        None,
        DISCOVERY,
    );
    CORE_GROUP = tells(
        Warning,
        "core-group",
        "\"core\" or a version in place of the core group.",
        "The core group is called \"\". kube-apiserver reads core and v1 as names of other groups, which do not exist.",
        "write group: \"\"",
        Some("Writes \"\" for core and v1. The rule then matches the core group, as intended; before, it matched nothing."),
        CHECKER,
    );
    UNKNOWN_GROUP = tells(
        Warning,
        "unknown-group",
        "An API group that Kubernetes does not have.",
        "Groups of custom resources have a dot in their name. The only groups without a dot are apps, autoscaling, batch, policy and the core group.",
        "write the full name, such as rbac.authorization.k8s.io",
        Some("Writes the full name if all resources of the entry are in that group. The rule then matches them, as intended."),
        DISCOVERY,
    );
    WRONG_GROUP = tells(
        Warning,
        "wrong-group",
        "A resource belongs to another API group.",
        "Group and resource are both compared: deployments in the core group, as in Falco's policy, match no request, and a later rule decides about the intended requests.",
        "write it below its own group",
        Some("Corrects the group of an entry if all its resources are in the same other group. The rule then matches them, as intended."),
        DISCOVERY,
    );
    UNKNOWN_RESOURCE = tells(
        Warning,
        "unknown-resource",
        "A resource or subresource that its API group does not have.",
        "Names of resources are plural and lower case, as in URLs: secrets, not secret or Secret. No request has another name.",
        "correct the name",
        Some("Writes the name in the plural and in lower case, if the group has that resource. The rule then matches it, as intended."),
        DISCOVERY,
    );
    REMOVED_RESOURCE = tells(
        Warning,
        "removed-resource",
        "A resource that this version of Kubernetes no longer serves.",
        "No request for it succeeds, and its present API group has another name: a rule for extensions does not match apps.",
        "write it below its present group",
        None,
        "kubernetes.io/docs/reference/using-api/deprecation-guide; the table is crates/audit-policy/src/lint/resources.txt",
    );
    DEAD_PATTERN = tells(
        Warning,
        "dead-pattern",
        "A resource pattern that matches no request.",
        "There are four patterns: * for everything, pods, pods/* and */scale. */* does not mean everything, and a * inside a name is not a wildcard.",
        "write \"*\" for all resources and subresources",
        Some("Writes \"*\" for \"*/*\". The rule then matches everything in the group, as intended."),
        CHECKER,
    );
    PARENT_TOO = tells(
        Info,
        "parent-too",
        "A pattern such as pods/* also matches pods.",
        "The documentation says that it matches the subresources, but the code does not check whether there is one.",
        "name the subresources, if the resource itself is not intended",
        None,
        CHECKER,
    );
    RESOURCE_NAMES_VERB = tells(
        Warning,
        "resource-names-verb",
        "resourceNames with verbs whose requests have no name.",
        "The name comes from the URL. A create and a deletecollection have none there, and a list or watch has one only with the field selector metadata.name.",
        "make a rule without resourceNames for these verbs",
        None,
        REQUEST_INFO,
    );
    URL_NEVER_MATCHES = tells(
        Warning,
        "url-never-matches",
        "A non-resource URL that only requests for resources have.",
        "Paths below /api/v1/ and /apis/GROUP/VERSION/ are requests for resources, and only resources match them. The query is not part of the path.",
        "use resources, or the path without its query",
        None,
        REQUEST_INFO,
    );
    EXEC_VERBS = tells(
        Warning,
        "exec-verbs",
        "exec, attach or portforward with only one of the verbs get and create.",
        "The same command is a create as a POST (SPDY), and a get as a websocket, which is kubectl's default since 1.31. A rule for one of them misses the other.",
        "write both get and create, or no verbs",
        None,
        "kubernetes/enhancements#4006",
    );
    UNREACHABLE_RULE = tells(
        Warning,
        "unreachable-rule",
        "A rule that no request reaches.",
        "The first rule that matches decides. One or more rules before this one match all of its requests.",
        "move it before the rules that match its requests, or remove it",
        None,
        CHECKER,
    );
    PARTLY_SHADOWED = tells(
        Warning,
        "partly-shadowed",
        "A name in a rule has no effect.",
        "Rules before it match all requests with this name, and record them differently. The rest of the rule works.",
        "move the rule before those that match its requests, or remove the name",
        None,
        CHECKER,
    );
    REPEATED_VALUE = tells(
        Info,
        "repeated-value",
        "A value is given twice in a list.",
        "It has no effect; often another value was intended.",
        "remove one",
        None,
        CHECKER,
    );
    EMPTY_VALUE = tells(
        Info,
        "empty-value",
        "An empty string in a list of names.",
        "It is a name like any other: it matches a request with an unknown verb, a user without a name, or an object without a name. In namespaces it matches requests without a namespace.",
        "remove it, unless this is intended",
        None,
        CHECKER,
    );
    EMPTY_NAMESPACE = tells(
        Info,
        "empty-namespace",
        "The namespace \"\".",
        "It matches cluster-scoped objects, and also lists and watches of all namespaces (kubectl get -A). It is a warning if the resource is namespaced and the verbs are for single objects: then it matches nothing. A request for a Namespace has that namespace, except for list and create.",
        "nothing, if both are intended",
        None,
        REQUEST_INFO,
    );
    ALL_NAMESPACES = tells(
        Info,
        "all-namespaces",
        "A rule with namespaces also covers lists or watches.",
        "A list of all namespaces (kubectl get -A) also returns their objects, but its namespace is \"\", so this rule does not match it.",
        "add \"\" to the namespaces, if such lists should match",
        None,
        REQUEST_INFO,
    );
    RULE_TOO_LARGE = tells(
        Info,
        "rule-too-large",
        "A rule with more combinations of values than lint compares.",
        "Lint tries every combination of the values of a rule to find out whether a request reaches it, at most 65,536 per rule and a million per file. For this rule it does not know. If the rule could record Secrets, lint assumes that it does.",
        "split it into several rules",
        None,
        CHECKER,
    );

    // --- What is recorded that should not be. ---
    SECRET_BODIES = tells(
        Error,
        "secret-bodies",
        "Secrets recorded above Metadata.",
        "The event then contains the Secret in clear text, on the disk of every node and at every receiver, and every reader of the log has the credentials. At Request and above, the annotations contain them too, because they record the patches of mutating webhooks. AKS-engine's policy did this, and the letter of the STIG (V-242403) demands it.",
        "put a rule of level Metadata for secrets before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2; NSA/CISA Kubernetes Hardening Guide, appendix L",
    );
    TOKEN_BODIES = tells(
        Error,
        "token-bodies",
        "Tokens recorded above Metadata.",
        "The request of a TokenReview and the response of serviceaccounts/token contain a token that is valid when it is logged.",
        "put a rule of level Metadata for it before this one, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CONFIGMAP_BODIES = tells(
        Warning,
        "configmap-bodies",
        "ConfigMaps recorded above Metadata.",
        "They are not meant for credentials but often contain some, and they are large. CIS 3.2.2 asks for Metadata only.",
        "put a rule of level Metadata for configmaps before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CUSTOM_RESOURCE_BODIES = tells(
        Info,
        "custom-resource-bodies",
        "Custom resources recorded above Metadata.",
        "Some operators keep passwords, tokens and connection strings in their custom resources, and lint cannot know which.",
        "put a rule of level Metadata before it for those that hold credentials",
        None,
        "kubernetes.io/docs/concepts/configuration/secret",
    );
    CSR_BODIES = tells(
        Info,
        "certificate-request-bodies",
        "CertificateSigningRequests recorded above Metadata.",
        "The request and the certificate contain no key, but they show who got which identity, and some signers add more.",
        "put a rule of level Metadata for certificatesigningrequests before it, if that is too much",
        None,
        REQUEST,
    );
    BODIES_OF_NOTHING = tells(
        Info,
        "no-bodies",
        "Request or RequestResponse for requests without a recorded body.",
        "kube-apiserver records bodies only for requests for resources. For all others both levels are the same as Metadata, and also for aggregated APIs, which kube-apiserver passes on without decoding, and for a watch. A get or list has no request body, only a response.",
        "write Metadata",
        None,
        REQUEST,
    );
    LARGE_RESPONSES = tells(
        Info,
        "large-responses",
        "Whole lists recorded with their responses.",
        "A list of all pods or secrets is one event of many megabytes. It fills disks, and webhooks reject or truncate it.",
        "put a rule of level Request or Metadata for get, list and watch before it",
        None,
        REQUEST,
    );
    PROBES_RECORDED = tells(
        Info,
        "probes-recorded",
        "Health probes are recorded.",
        "The kubelet of every control-plane node requests /readyz every second and /livez every ten seconds, so most events are probes. With a webhook in a blocking mode the probes wait for it too, and the kubelet restarts kube-apiserver when the webhook is down.",
        "put a rule of level None for nonResourceURLs [/healthz*, /livez*, /readyz*] before it",
        None,
        "kubernetes@v1.36.3 cmd/kubeadm/app/util/staticpod/utils.go",
    );
    LEASES_RECORDED = tells(
        Info,
        "leases-recorded",
        "Renewals of leases are recorded.",
        "Every node and every leader renews a Lease every few seconds, and none of these events is of interest.",
        "put a rule of level None for get, update and patch of leases in coordination.k8s.io before it",
        None,
        CHECKER,
    );

    // --- What is not recorded that should be. ---
    NO_CATCH_ALL = tells(
        Info,
        "no-catch-all",
        "Some requests match no rule.",
        "They are not recorded, silently. A last rule without conditions states what happens to them, even if it is None.",
        "add a last rule without conditions, such as - level: Metadata",
        None,
        CHECKER,
    );
    RBAC_UNRECORDED = tells(
        Warning,
        "rbac-unrecorded",
        "Changes of RBAC are not recorded.",
        "A user who grants himself a role leaves no trace. KKP's minimal policy has no rule for it, and no last rule for everything else.",
        "add a rule of level Metadata or higher for rbac.authorization.k8s.io",
        None,
        "PCI DSS 4.0 10.2.1.5; kubermatic/kubermatic pkg/resources/apiserver/audit.go",
    );
    KEY_CONCERNS = tells(
        Info,
        "cis-key-concerns",
        "A key concern of CIS 3.2.2 that is not recorded.",
        "The benchmark asks for access to Secrets, ConfigMaps and TokenReviews, for changes of Pods and Deployments, and for the use of pods/exec, pods/portforward, pods/proxy and services/proxy.",
        "add rules of level Metadata for them",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    FAILED_AUTHENTICATION = tells(
        Info,
        "failed-authentication",
        "Failed authentication is not recorded.",
        "A request with a wrong token (401) has no user, not even system:anonymous, so only a rule without users and userGroups matches it. Attempts to break in leave no trace.",
        "add a rule of level Metadata without users and userGroups, for example as the last rule",
        None,
        AUTHN_AUDIT,
    );
    OMITS_RESPONSE_STARTED = tells(
        Warning,
        "omits-response-started",
        "ResponseStarted is omitted for failed authentication.",
        "A request with a wrong token (401) has only one event, at the stage ResponseStarted, and it is dropped. The beginning of every watch and exec is dropped too.",
        "do not omit ResponseStarted, or only in rules for watches",
        None,
        AUTHN_AUDIT,
    );
    OMITS_EVERY_STAGE = tells(
        Warning,
        "omits-every-stage",
        "All stages are omitted, or all except Panic.",
        "The rule records nothing, but kube-apiserver still does the work of recording.",
        "write level: None, or omit fewer stages",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    OMITS_REQUEST_RECEIVED = tells(
        Warning,
        "omits-request-received",
        "RequestReceived is omitted, and the webhook or log is in mode blocking-strict.",
        "The mode rejects a request whose RequestReceived event cannot be handed over. Without that event it rejects none. Only checked with --mode blocking-strict.",
        "do not omit RequestReceived, or use the mode blocking",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    BELOW_FLOOR = tells(
        Error,
        "below-floor",
        "A rule would record less than the floor of the cluster's administrator. Only checked with --floor.",
        "The rules of the floor come before those of every AuditSetup and decide first, so the rule has no effect, and the operator rejects an AuditSetup with it.",
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
        "# Lint findings\n\n\
         `audit-operator policy lint` reports the findings below. Those in the first section stop kube-apiserver; every other finding leaves \
         `valid` true. Errors and warnings make the exit status 1, infos do not.\n\n\
         Lint cannot find one problem: a receiver that itself writes to the Kubernetes API for every event causes events that cause \
         events, if its requests are recorded. Put a rule of level None for the user of that receiver first.\n\n\
         (`UPDATE_CASES=1 cargo test --test it` writes this page from crates/audit-policy/src/stanza.rs.)\n",
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
