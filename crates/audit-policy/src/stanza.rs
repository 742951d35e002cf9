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
        "A value of another type than the field takes.",
        "kube-apiserver reads YAML 1.1: on, no, y, 1_000 and 08 are booleans and numbers there, which no list of strings takes.",
        "quote it",
        Some("Puts quotes around a scalar that is meant as a string. kube-apiserver did not start before."),
        YAML,
    );
    API_VERSION = stops(
        "api-version",
        "Another apiVersion than audit.k8s.io/v1.",
        "v1alpha1 and v1beta1 are gone since Kubernetes 1.24, and without an apiVersion nothing is loaded.",
        "write apiVersion: audit.k8s.io/v1",
        Some("Writes audit.k8s.io/v1 for v1alpha1 and v1beta1, whose policies have the same fields. kube-apiserver did not start before."),
        READER,
    );
    KIND = stops(
        "kind",
        "Another kind than Policy.",
        "kube-apiserver loads a Policy only, spelled exactly so.",
        "write kind: Policy",
        Some("Corrects the case. kube-apiserver did not start before."),
        READER,
    );
    NO_RULES = stops(
        "no-rules",
        "A policy without a rule.",
        "kube-apiserver refuses it; to record nothing takes a rule of level None.",
        "add a rule",
        None,
        READER,
    );
    LEVEL = stops(
        "level",
        "A level that is none, or that is missing.",
        "kube-apiserver knows None, Metadata, Request and RequestResponse, spelled exactly so.",
        "write None, Metadata, Request or RequestResponse",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    STAGE = stops(
        "stage",
        "A stage that is none.",
        "kube-apiserver knows RequestReceived, ResponseStarted, ResponseComplete and Panic, spelled exactly so.",
        "write RequestReceived, ResponseStarted, ResponseComplete or Panic",
        Some("Corrects the case. kube-apiserver did not start before."),
        VALIDATION,
    );
    GROUP = stops(
        "group",
        "What cannot be the name of an API group in this version of Kubernetes.",
        "A group is named without its version, in lower case; \"*\" for every group is known from Kubernetes 1.36 and stops every older kube-apiserver.",
        "write the name of the group alone",
        Some("Takes the version off, and writes lower case: Apps/v1 becomes apps. kube-apiserver did not start before."),
        VALIDATION,
    );
    NON_RESOURCE_URL = stops(
        "non-resource-url",
        "A non-resource URL without / at its beginning, or with a * that is not at its end.",
        "Only a whole path, or the beginning of one with a single * behind it, can be matched.",
        "begin it with /, and put the * at the end",
        Some("Puts the / in front of a path that lacks nothing else. kube-apiserver did not start before."),
        VALIDATION,
    );
    RESOURCE_NAMES = stops(
        "resource-names",
        "resourceNames without resources.",
        "A name alone is no resource, and kube-apiserver refuses the rule.",
        "name the resources too",
        None,
        VALIDATION,
    );
    MIXED_RULE = stops(
        "mixed-rule",
        "nonResourceURLs in a rule with resources or namespaces.",
        "No request is both, and kube-apiserver refuses the rule.",
        "make two rules of it",
        None,
        VALIDATION,
    );

    // --- kube-apiserver reads something else than stands there. ---
    UNKNOWN_FIELD = tells(
        Warning,
        "unknown-field",
        "A field that kube-apiserver does not know, or not in this place.",
        "kube-apiserver drops it and only logs a warning. A condition less mostly means that the rule matches more: OpenShift shipped `resource` for `resources`, and so recorded a whole API group at another level; `verbs` below `resources` is the classic.",
        "kube-apiserver drops it and only logs a warning: correct the name, the case or the indentation, or remove it",
        Some("Corrects a name that is nearly that of a field which is missing there. The rule matches what was meant then, which is less than before."),
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/reader.go; kubernetes/kubernetes#110116",
    );
    DUPLICATE_FIELD = tells(
        Warning,
        "duplicate-field",
        "A field that is given twice.",
        "kube-apiserver logs a warning and goes on: in YAML the last one counts, in JSON one is read on top of the other.",
        "keep one",
        None,
        READER,
    );
    SECOND_DOCUMENT = tells(
        Warning,
        "second-document",
        "Text behind the end of the first YAML document.",
        "kube-apiserver reads the first document only, and says nothing about the rest. A line that is indented less than the first one ends a document as `---` does.",
        "make one document of the file, with one indentation",
        None,
        YAML,
    );
    NULL_VALUE = tells(
        Warning,
        "null-value",
        "A value of null.",
        "A null list is no condition at all; in a list of names it is the empty name; in a list of resources it is the whole core group.",
        "leave the field out, or quote it",
        None,
        YAML,
    );
    YAML_TAG = tells(
        Info,
        "yaml-tag",
        "A YAML tag.",
        "It changes the type of a value for those parsers that know it; kube-apiserver's follows YAML 1.1. A Setup does not take it.",
        "quote the value instead",
        None,
        YAML,
    );
    YAML_ALIAS = tells(
        Info,
        "yaml-alias",
        "A YAML alias.",
        "kube-apiserver follows it, and many other readers of policies do not; with a merge key, what comes later in the text wins. A Setup does not take it.",
        "write the value out",
        None,
        YAML,
    );
    FOLDED_LIST = tells(
        Warning,
        "folded-list",
        "A list item that seems to be several.",
        "`- a` with a deeper `- b` below it is one string, \"a - b\", to every YAML parser. Nothing is called that.",
        "give all items of the list the same indentation",
        None,
        YAML,
    );

    // --- Rules that never match what they seem to. ---
    LITERAL_WILDCARD = tells(
        Warning,
        "literal-wildcard",
        "A * where only whole names are compared.",
        "users, userGroups, verbs, namespaces and resourceNames know no wildcard: a rule for the verb \"*\" matches no request.",
        "leave the list out to match everything, or write every name",
        Some("Empties a list that holds nothing but \"*\", except for namespaces: a rule without them is for what is in none, too. The rule matches then, as was meant; before it matched nothing."),
        CHECKER,
    );
    UNKNOWN_VERB = tells(
        Warning,
        "unknown-verb",
        "A verb that no request of the rule has.",
        "Requests for resources have get, list, watch, create, update, patch, delete, deletecollection or proxy, all others their HTTP method in lower case. use, bind, escalate, impersonate, approve, sign and attest are verbs of RBAC only.",
        "write verbs of requests, in lower case",
        Some("Writes a verb in lower case. The rule matches it then, as was meant."),
        REQUEST_INFO,
    );
    GROUP_AS_USER = tells(
        Warning,
        "group-as-user",
        "A group among the users, or a user among the groups.",
        "Users and groups are compared with different things: system:masters is a group, system:anonymous a user.",
        "move it to the other list",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/authentication/user/user.go",
    );
    DEAD_USER = tells(
        Warning,
        "dead-user",
        "A user that does not exist.",
        "system:unsecured was the user of the insecure port, which is gone since Kubernetes 1.24, and kubelet that of kubelets before they had names of their own (system:node:…). The policy of GCE and its many copies still name both, so that their rules match less than they seem to. A service account is the user system:serviceaccount:NAMESPACE:NAME.",
        "remove it; for kubelets write userGroups: [\"system:nodes\"]",
        None,
        "kubernetes@v1.24.0 CHANGELOG-1.24; kubernetes cluster/gce/gci/configure-helper.sh",
    );
    IMPOSSIBLE_NAMESPACE = tells(
        Warning,
        "impossible-namespace",
        "What cannot be the name of a namespace.",
        "The namespace of a request is compared literally, and its name is lower-case letters, digits and -.",
        "correct the name; each namespace is an item of its own",
        None,
        CHECKER,
    );
    CLUSTER_SCOPED = tells(
        Warning,
        "cluster-scoped",
        "A cluster-scoped resource in a rule with namespaces.",
        "A request for it has the namespace \"\", so that a rule for named namespaces never matches it.",
        "make a rule of its own for it, without namespaces",
        None,
        DISCOVERY,
    );
    CORE_GROUP = tells(
        Warning,
        "core-group",
        "\"core\" or a version in place of the core group.",
        "The core group is called \"\". kube-apiserver takes core and v1 for names of other groups, which do not exist.",
        "write group: \"\"",
        Some("Writes \"\" for core and v1. The rule matches the core group then, as was meant; before it matched nothing."),
        CHECKER,
    );
    UNKNOWN_GROUP = tells(
        Warning,
        "unknown-group",
        "An API group that Kubernetes does not have.",
        "Groups of custom resources have a dot in their name; without one there are only apps, autoscaling, batch, policy and the core group.",
        "write the full name, as rbac.authorization.k8s.io",
        Some("Writes the full name where all resources of the entry are in that group. The rule matches them then, as was meant."),
        DISCOVERY,
    );
    WRONG_GROUP = tells(
        Warning,
        "wrong-group",
        "A resource that is in another API group.",
        "Group and resource are both compared: deployments in the core group, as Falco's policy has them, match no request, and what was to be recorded falls to a later rule.",
        "name it under its own group",
        Some("Corrects the group of an entry all of whose resources are in the same other group. The rule matches them then, as was meant."),
        DISCOVERY,
    );
    UNKNOWN_RESOURCE = tells(
        Warning,
        "unknown-resource",
        "A resource or subresource that its API group does not have.",
        "Resources are named in the plural and in lower case, as in URLs: secrets, and neither secret nor Secret. No request has another name.",
        "correct the name",
        Some("Writes the name in the plural and in lower case where the group has that. The rule matches it then, as was meant."),
        DISCOVERY,
    );
    REMOVED_RESOURCE = tells(
        Warning,
        "removed-resource",
        "A resource that this version of Kubernetes no longer serves.",
        "No request for it succeeds, and the API group that has it now is compared with another name: a rule for extensions says nothing about apps.",
        "name it under its present group",
        None,
        "kubernetes.io/docs/reference/using-api/deprecation-guide; the table is crates/audit-policy/src/lint/resources.txt",
    );
    DEAD_PATTERN = tells(
        Warning,
        "dead-pattern",
        "A resource pattern that matches no request.",
        "There are four patterns: * for everything, pods, pods/* and */scale. */* does not mean everything, and a * inside of a name means nothing.",
        "write \"*\" for all resources and subresources",
        Some("Writes \"*\" for \"*/*\". The rule matches everything of the group then, as was meant."),
        CHECKER,
    );
    PARENT_TOO = tells(
        Info,
        "parent-too",
        "A pattern as pods/*, which matches pods as well.",
        "The documentation says that it matches the subresources; the code does not ask whether there is one.",
        "name the subresources where the resource itself is not meant",
        None,
        CHECKER,
    );
    RESOURCE_NAMES_VERB = tells(
        Warning,
        "resource-names-verb",
        "resourceNames with verbs whose requests carry no name.",
        "The name is taken from the URL. A create of an object, and every deletecollection, has none there; a list or watch has one only with the field selector metadata.name.",
        "make a rule without resourceNames for these verbs",
        None,
        REQUEST_INFO,
    );
    URL_NEVER_MATCHES = tells(
        Warning,
        "url-never-matches",
        "A non-resource URL that no request has which is not for a resource.",
        "Paths below /api/v1/ and /apis/GROUP/VERSION/ are requests for resources, and these are matched by resources alone. The query is no part of the path.",
        "use resources, or the path without its query",
        None,
        REQUEST_INFO,
    );
    EXEC_VERBS = tells(
        Warning,
        "exec-verbs",
        "exec, attach or portforward with one of the verbs get and create.",
        "The same command is a create when it comes as a POST (SPDY) and a get when it comes as a websocket, which is kubectl's default since 1.31. A rule for one of them misses half.",
        "write both get and create, or no verbs",
        None,
        "kubernetes/enhancements#4006",
    );
    UNREACHABLE_RULE = tells(
        Warning,
        "unreachable-rule",
        "A rule that no request reaches.",
        "The first rule that matches decides. Everything that this one matches is taken by rules before it, which need not be one alone.",
        "move it before the rules that take its requests, or remove it",
        None,
        CHECKER,
    );
    PARTLY_SHADOWED = tells(
        Warning,
        "partly-shadowed",
        "A name in a rule that decides nothing.",
        "Whatever the rule matches by this name is taken, and recorded otherwise, by rules before it. The rest of the rule works.",
        "move the rule before those that take its requests, or remove the name",
        None,
        CHECKER,
    );
    REPEATED_VALUE = tells(
        Info,
        "repeated-value",
        "A value that stands twice in a list.",
        "It changes nothing; often another one was meant.",
        "remove one",
        None,
        CHECKER,
    );
    EMPTY_VALUE = tells(
        Info,
        "empty-value",
        "An empty string in a list of names.",
        "It is a name like others: it matches a request whose verb is not known, a user without a name, an object without a name. Of namespaces it matches what is in none.",
        "remove it, unless this is meant",
        None,
        CHECKER,
    );
    EMPTY_NAMESPACE = tells(
        Info,
        "empty-namespace",
        "The namespace \"\".",
        "It matches cluster-scoped objects, and lists and watches of all namespaces at once (kubectl get -A) as well. It is a warning where the resource is in namespaces and the verbs are those of single objects: then it matches nothing. A Namespace itself is in its own namespace but for list and create.",
        "nothing, if both are meant",
        None,
        REQUEST_INFO,
    );
    ALL_NAMESPACES = tells(
        Info,
        "all-namespaces",
        "A rule with namespaces that is for lists or watches, too.",
        "A list of all namespaces at once (kubectl get -A) returns their objects too, and its namespace is \"\": this rule does not see it.",
        "add \"\" to the namespaces where such lists are to be matched",
        None,
        REQUEST_INFO,
    );
    RULE_TOO_LARGE = tells(
        Info,
        "rule-too-large",
        "A rule with more combinations of values than lint compares.",
        "Whether a rule is reached is decided by trying every combination of its values. There are bounds to that, 65,536 for a rule and a million for a file, so that it always ends soon. Whether this rule is shadowed is not known, and if it may record Secrets, that it does is taken for granted.",
        "make several rules of it",
        None,
        CHECKER,
    );

    // --- What is recorded that should not be. ---
    SECRET_BODIES = tells(
        Error,
        "secret-bodies",
        "Secrets recorded above Metadata.",
        "The event then holds the Secret in clear text, on the disk of every node and wherever the events go; whoever reads the log has the credentials. So do the annotations, in which the patches of mutating webhooks are recorded from Request on. AKS-engine's policy did so, and the letter of the STIG (V-242403) demands it.",
        "put a rule of level Metadata for secrets before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2; NSA/CISA Kubernetes Hardening Guide, appendix L",
    );
    TOKEN_BODIES = tells(
        Error,
        "token-bodies",
        "Tokens recorded above Metadata.",
        "The request of a TokenReview and the response of serviceaccounts/token hold a token that is valid when it is logged.",
        "put a rule of level Metadata for it before this one, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CONFIGMAP_BODIES = tells(
        Warning,
        "configmap-bodies",
        "ConfigMaps recorded above Metadata.",
        "They are not meant for credentials and hold many; and they are large. CIS 3.2.2 asks for Metadata only.",
        "put a rule of level Metadata for configmaps before it, or acknowledge SecretsAboveMetadata",
        None,
        "CIS Kubernetes Benchmark 3.2.2",
    );
    CUSTOM_RESOURCE_BODIES = tells(
        Info,
        "custom-resource-bodies",
        "Custom resources recorded above Metadata.",
        "Some operators keep passwords, tokens and connection strings in their custom resources; lint cannot know which.",
        "put a rule of level Metadata before it for those that hold credentials",
        None,
        "kubernetes.io/docs/concepts/configuration/secret",
    );
    CSR_BODIES = tells(
        Info,
        "certificate-request-bodies",
        "CertificateSigningRequests recorded above Metadata.",
        "The request and the certificate hold no key; they tell who became whom, and some signers put more in them.",
        "put a rule of level Metadata for certificatesigningrequests before it, if that is too much",
        None,
        REQUEST,
    );
    BODIES_OF_NOTHING = tells(
        Info,
        "no-bodies",
        "Request or RequestResponse where there is no body to record.",
        "Only requests for resources have recorded bodies; for all others both levels are the same as Metadata. So are they for aggregated APIs, which kube-apiserver hands on without decoding them, and for a watch. A get or list has no body of its own, only that of its response.",
        "write Metadata",
        None,
        REQUEST,
    );
    LARGE_RESPONSES = tells(
        Info,
        "large-responses",
        "Whole lists recorded with their responses.",
        "A list of all pods or secrets is one event of many megabytes, which fills disks, and which webhooks refuse or truncate.",
        "put a rule of level Request or Metadata for get, list and watch before it",
        None,
        REQUEST,
    );
    PROBES_RECORDED = tells(
        Info,
        "probes-recorded",
        "Health probes are recorded.",
        "The kubelet asks for /readyz every second and for /livez every ten, on every node: most events are these. With a webhook in a blocking mode the probes wait for it as well, and the kubelet restarts kube-apiserver when it is down.",
        "put a rule of level None for nonResourceURLs [/healthz*, /livez*, /readyz*] before it",
        None,
        "kubernetes@v1.36.3 cmd/kubeadm/app/util/staticpod/utils.go",
    );
    LEASES_RECORDED = tells(
        Info,
        "leases-recorded",
        "Renewals of leases are recorded.",
        "Every node and every leader renews a Lease every few seconds, and each is an event that tells nothing.",
        "put a rule of level None for get, update and patch of leases in coordination.k8s.io before it",
        None,
        CHECKER,
    );

    // --- What is not recorded that should be. ---
    NO_CATCH_ALL = tells(
        Info,
        "no-catch-all",
        "Requests that no rule matches.",
        "They are not recorded, silently. A last rule without conditions says what becomes of them, be it None.",
        "add a last rule without conditions, as - level: Metadata",
        None,
        CHECKER,
    );
    RBAC_UNRECORDED = tells(
        Warning,
        "rbac-unrecorded",
        "Changes of RBAC are not recorded.",
        "Whoever gives himself a role leaves no trace. KKP's minimal policy has no rule for it, and no last rule for everything else.",
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
        "A request with a wrong token (401) has no user, not even system:anonymous, so that only a rule without users and userGroups matches it. Tries to get in leave no trace.",
        "add a rule of level Metadata without users and userGroups, the last one for instance",
        None,
        AUTHN_AUDIT,
    );
    OMITS_RESPONSE_STARTED = tells(
        Warning,
        "omits-response-started",
        "ResponseStarted is omitted where failed authentication is recorded.",
        "A request with a wrong token (401) has one event only, at the stage ResponseStarted: it is dropped. So is the beginning of every watch and exec.",
        "leave ResponseStarted in, or omit it in rules for watches only",
        None,
        AUTHN_AUDIT,
    );
    OMITS_EVERY_STAGE = tells(
        Warning,
        "omits-every-stage",
        "All stages are omitted, or all but Panic.",
        "The rule records nothing, and kube-apiserver still takes the trouble to collect it.",
        "write level: None, or omit fewer stages",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    OMITS_REQUEST_RECEIVED = tells(
        Warning,
        "omits-request-received",
        "RequestReceived is omitted, and the webhook or log is in mode blocking-strict.",
        "The mode refuses a request whose event of the stage RequestReceived cannot be handed over. Without that event it refuses none. Only judged with --mode blocking-strict.",
        "leave RequestReceived in, or use the mode blocking",
        None,
        "kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go",
    );
    BELOW_FLOOR = tells(
        Error,
        "below-floor",
        "A rule that would record less than the cluster's administrator has fixed. Only judged with --floor.",
        "The rules of the floor stand before those of every AuditSetup and decide first, so the rule has no effect, and the operator refuses an AuditSetup with it.",
        "remove the rule, or name something else in it; an administrator changes floor.rules",
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
        "# What `audit-operator policy lint` finds\n\n\
         What no policy file shows is not here: a receiver that itself writes to the API for every event, and whose requests are \
         recorded, feeds itself. Put a rule of level None for its user first.\n\n\
         Written by `UPDATE_CASES=1 cargo test`: change crates/audit-policy/src/stanza.rs. An error with \"does not start\" stops \
         kube-apiserver; every other finding leaves `valid` true. Errors and warnings make the exit status 1, infos do not.\n",
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
