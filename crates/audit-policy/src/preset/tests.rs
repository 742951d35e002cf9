use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::{Attributes, Evaluator, Severity, Terms, User, attributes, lint, load, stages};
use crate::{Level, Mode, PolicyRule};

const EVERYTHING: PolicyRule = PolicyRule {
    level: Level::None,
    users: Vec::new(),
    user_groups: Vec::new(),
    verbs: Vec::new(),
    resources: Vec::new(),
    namespaces: Vec::new(),
    non_resource_urls: Vec::new(),
    omit_stages: Vec::new(),
    omit_managed_fields: None,
};

#[cfg(feature = "schema")]
#[test]
fn every_preset_of_the_api_is_listed_under_its_name() {
    let schema = serde_json::to_value(schemars::schema_for!(Preset)).unwrap();
    let mut known = BTreeSet::new();
    for one in schema["oneOf"].as_array().unwrap() {
        known.insert(one["const"].as_str().unwrap().to_string());
    }
    let name = |one: &Preset| serde_json::to_value(one).unwrap().as_str().unwrap().to_string();
    assert_eq!(ALL.iter().map(name).collect::<BTreeSet<_>>(), known);
    for one in ALL {
        let found = preset(one);
        assert_eq!(found.name, format!("{}-2026.1", name(&one)));
        assert_eq!(found.unversioned(), name(&one));
        let about = found.about();
        assert!((40..=92).contains(&about.len()) && !about.contains('\n'), "{}: {about}", found.name);
    }
}

#[test]
fn every_preset_starts_any_supported_api_server_and_ends_with_a_rule_for_everything() {
    for PresetPolicy { name, text, policy } in presets() {
        assert!(load(text.as_bytes(), 20).policy.is_some(), "{name}");
        let is_for_everything =
            |rule: &PolicyRule| *rule == PolicyRule { level: rule.level, ..EVERYTHING } && rule.level > Level::None;
        let found: Vec<_> = policy.rules.iter().map(is_for_everything).collect();
        assert_eq!(found.iter().position(|is| *is), Some(found.len() - 1), "{name}");
    }
}

#[test]
fn every_rule_of_a_preset_says_why_it_is_there() {
    for PresetPolicy { name, text, policy } in presets() {
        let lines: Vec<_> = text.lines().collect();
        let rules: Vec<_> = lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - level:")).collect();
        assert_eq!(rules.len(), policy.rules.len(), "{name}");
        let comments =
            |i: usize| lines[..i].iter().rev().take_while(|l| !l.is_empty()).filter(|l| l.starts_with("  # "));
        for (i, line) in &rules {
            assert!(comments(*i).count() > 0, "{name}, line {}: {line}", i + 1);
        }
        let (last, _) = rules.last().unwrap();
        let mut last = comments(*last);
        assert!(last.any(|line| line.contains("Deliberately last") || line.contains("The one rule")), "{name}");
        for line in &lines {
            assert!(line.chars().count() <= 128, "{name}: {line}");
        }
    }
}

#[test]
fn no_preset_has_users_that_no_longer_exist_or_a_group_that_is_gone() {
    for PresetPolicy { name, policy, .. } in presets() {
        for rule in &policy.rules {
            assert!(!rule.users.iter().any(|u| u == "system:unsecured" || u == "kubelet"), "{name}");
            assert!(!rule.resources.iter().any(|r| r.group == "extensions"), "{name}");
        }
    }
}

// --- Credentials. ---

/// Group and resource of every resource of Kubernetes with credentials, and whether the request contains them; the
/// response always does. Custom resources are unknown. ConfigMaps are not listed, since secrets do not belong there.
const CREDENTIALS: [(&str, &str, bool); 3] =
    [("", "secrets", true), ("", "serviceaccounts/token", false), ("authentication.k8s.io", "tokenreviews", true)];

/// The preset that needs an acknowledgement.
fn exposes(name: &str) -> bool {
    name.starts_with("stig-literal-")
}

#[test]
fn only_the_stig_to_the_letter_needs_an_acknowledgement() {
    for PresetPolicy { name, text, .. } in presets() {
        let terms = Terms { minor: 36, secrets_accepted: false, mode: Mode::Batch, floor: &[] };
        let linted = lint(text.as_bytes(), &terms);
        let is_error = linted.findings.iter().any(|finding| finding.severity == Severity::Error);
        assert_eq!(is_error, exposes(name), "{name}: {:?}", linted.findings);
    }
}

/// Users and groups that some rule of some preset names, and others.
fn names() -> (Vec<String>, Vec<String>) {
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    for rule in presets().into_iter().flat_map(|preset| preset.policy.rules) {
        users.extend(rule.users);
        groups.extend(rule.user_groups);
    }
    users.extend(["alice", "", "system:anonymous", "system:node:n", "system:serviceaccount:a:b"].map(String::from));
    groups.extend(["system:masters", "system:serviceaccounts:a", "developers"].map(String::from));
    (users.into_iter().collect(), groups.into_iter().collect())
}

/// Resources with credentials in OpenShift: the Secrets that an image stream may use; the pull secret in the files of
/// machines; clients with their secret, and all kinds of tokens; the private key of a Route.
const OF_OPENSHIFT: [(&str, &str); 10] = [
    ("image.openshift.io", "imagestreams/secrets"),
    ("machineconfiguration.openshift.io", "controllerconfigs"),
    ("machineconfiguration.openshift.io", "machineconfigs"),
    ("oauth.openshift.io", "oauthaccesstokens"),
    ("oauth.openshift.io", "oauthauthorizetokens"),
    ("oauth.openshift.io", "oauthclients"),
    ("oauth.openshift.io", "tokenreviews"),
    ("oauth.openshift.io", "useroauthaccesstokens"),
    ("route.openshift.io", "routes"),
    ("route.openshift.io", "routes/status"),
];

/// A request for a credential: any user, verb, group version, namespace, name, and any subresource of it, which a later
/// Kubernetes may have.
fn any_credential_request(
    credentials: &[(&'static str, &'static str)],
) -> impl Strategy<Value = (String, String, Attributes<'static>)> {
    let (users, groups) = names();
    let user = (prop::sample::select(users), prop::sample::subsequence(groups, 0..5))
        .prop_map(|(name, groups)| User { name: name.into(), groups: groups.into_iter().map(Into::into).collect() });
    let words = |words: &'static [&'static str]| prop::sample::select(words);
    let place = (
        words(&["v1", "v1beta1", "v2alpha1"]),
        words(&["", "", "watch/", "proxy/"]),
        prop::option::of(words(&["shop", "kube-system", "audit-system", "default"])),
        words(&["", "/x", "/system:x"]),
        words(&["", "", "/status", "/other", "/token/deeper"]),
    );
    let ending = words(&["", "?watch=true", "?watch=1&fieldSelector=metadata.name%3Dx", "?limit=500"]);
    let method = words(&["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"]);
    let credential = prop::sample::select(credentials.to_vec());
    (prop::option::of(user), credential, place, ending, method).prop_map(
        |(user, (group, resource), (version, verb, namespace, name, subresource), ending, method)| {
            let root = if group.is_empty() { "/api".to_string() } else { format!("/apis/{group}") };
            let namespace = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
            // The old form of a proxy has no subresources: with one it is another request, which nothing answers.
            let verb = if verb == "proxy/" && resource.contains('/') { "" } else { verb };
            let object = match resource.split_once('/') {
                Some((resource, own)) => format!("{resource}/x/{own}"),
                None if name.is_empty() || verb == "proxy/" => format!("{resource}{name}"),
                None => format!("{resource}{name}{subresource}"),
            };
            let url = format!("{root}/{version}/{verb}{namespace}{object}{ending}");
            let found = attributes(method, &url).unwrap();
            (method.to_string(), url, Attributes { user, ..found })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_preset_records_a_credential_that_was_not_acknowledged((method, url, request) in any_credential_request(&CREDENTIALS.map(|(group, resource, _)| (group, resource)))) {
        for (name, evaluator) in &*EVALUATORS {
            let level = evaluator.decide(&request).level;
            prop_assert!(level <= Level::Metadata || exposes(name), "{} {} {}: {:?}", name, method, url, level);
        }
    }

    #[test]
    fn no_preset_of_openshift_records_a_credential_of_it((method, url, request) in any_credential_request(&OF_OPENSHIFT)) {
        for (name, evaluator) in EVALUATORS.iter().filter(|(name, _)| name.starts_with("openshift-")) {
            let level = evaluator.decide(&request).level;
            prop_assert!(level <= Level::Metadata, "{} {} {}: {:?}", name, method, url, level);
        }
    }
}

static EVALUATORS: LazyLock<Vec<(&str, Evaluator)>> =
    LazyLock::new(|| presets().iter().map(|preset| (preset.name, Evaluator::new(&preset.policy))).collect());

// --- Records by user. ---

/// Users of the tables below, with the groups from their authenticators.
fn user(name: &str) -> Option<User<'static>> {
    Some(match name {
        "alice" => User::authenticated("alice", &["developers"]),
        "admin" => User::authenticated("kubernetes-admin", &["kubeadm:cluster-admins"]),
        "kubelet" => User::authenticated("system:node:cp1", &["system:nodes"]),
        "apiserver" => User::authenticated("system:apiserver", &["system:masters"]),
        "manager" => User::authenticated("system:kube-controller-manager", &[]),
        "scheduler" => User::authenticated("system:kube-scheduler", &[]),
        "anonymous" => User::authenticated("system:anonymous", &[]),
        "nobody" => return None,
        account => User::authenticated(&format!("system:serviceaccount:{account}"), &[]),
    })
}

/// The level at which a preset records a request; None if it records no stage of it.
fn level(preset: &str, who: &str, method: &str, url: &str) -> Level {
    let (_, evaluator) = EVALUATORS.iter().find(|(name, _)| name.starts_with(preset)).unwrap();
    let request = Attributes { user: user(who), ..attributes(method, url).unwrap() };
    let decision = evaluator.decide(&request);
    let is_told = stages(&request).iter().any(|stage| !decision.omit_stages.contains(stage));
    if is_told { decision.level } else { Level::None }
}

/// Detections by number, each with requests and the level that it needs.
const DETECTIONS: &[(u32, &str, Level, &[&str])] = {
    use Level::{Metadata, Request};
    &[
        (
            1,
            "a Secret is read",
            Metadata,
            &[
                "alice GET /api/v1/namespaces/shop/secrets/db",
                "alice GET /api/v1/namespaces/shop/secrets?watch=1",
                "shop:web GET /api/v1/namespaces/shop/secrets/db",
                "kube-system:coredns GET /api/v1/namespaces/shop/secrets/db",
                "kubelet GET /api/v1/namespaces/shop/secrets/db",
                "manager GET /api/v1/namespaces/shop/secrets/db",
                "audit-system:audit-operator-controller GET /api/v1/namespaces/shop/secrets/db",
            ],
        ),
        (
            2,
            "Secrets are enumerated",
            Metadata,
            &[
                "alice GET /api/v1/secrets",
                "shop:web GET /api/v1/secrets?limit=500",
                "kube-system:generic-garbage-collector GET /api/v1/secrets",
                "kubelet GET /api/v1/secrets",
                "audit-system:audit-operator-agent GET /api/v1/secrets",
            ],
        ),
        (
            3,
            "401 and 403",
            Metadata,
            &[
                "nobody GET /api/v1/pods",
                "nobody GET /livez",
                "nobody GET /apis/coordination.k8s.io/v1/leases",
                "nobody POST /api/v1/namespaces/default/events",
                "nobody PATCH /apis/audit-operator.io/v1alpha1/auditsetups/cluster/status",
                "alice GET /api/v1/pods",
                "alice GET /apis/coordination.k8s.io/v1/leases",
                "alice DELETE /apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy",
                "shop:web GET /api/v1/namespaces/kube-system/pods",
                "shop:web POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
                "kubelet GET /api/v1/namespaces",
                "kubelet GET /apis/rbac.authorization.k8s.io/v1/clusterroles",
            ],
        ),
        (
            4,
            "exec and attach",
            Metadata,
            &[
                "alice GET /api/v1/namespaces/shop/pods/web/exec?command=sh",
                "alice POST /api/v1/namespaces/shop/pods/web/exec?command=sh",
                "shop:web POST /api/v1/namespaces/shop/pods/web/attach",
                "kube-system:coredns GET /api/v1/namespaces/shop/pods/web/exec?command=sh",
            ],
        ),
        (
            5,
            "port-forward",
            Metadata,
            &[
                "alice POST /api/v1/namespaces/shop/pods/web/portforward",
                "shop:web GET /api/v1/namespaces/shop/pods/web/portforward",
            ],
        ),
        (
            6,
            "ephemeral containers",
            Request,
            &[
                "alice PATCH /api/v1/namespaces/shop/pods/web/ephemeralcontainers",
                "admin PUT /api/v1/namespaces/shop/pods/web/ephemeralcontainers",
            ],
        ),
        (
            7,
            "an anonymous request is allowed",
            Metadata,
            &[
                "anonymous GET /api/v1/pods",
                "anonymous GET /api",
                "anonymous GET /metrics",
                "anonymous POST /api/v1/namespaces/shop/pods",
            ],
        ),
        (
            8,
            "a binding to cluster-admin",
            Request,
            &[
                "alice POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                "shop:web PATCH /apis/rbac.authorization.k8s.io/v1/clusterrolebindings/x",
                "kube-system:deployment-controller PUT /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/x",
                "manager DELETE /apis/rbac.authorization.k8s.io/v1/clusterrolebindings/x",
            ],
        ),
        (
            9,
            "a role with everything",
            Request,
            &[
                "alice POST /apis/rbac.authorization.k8s.io/v1/clusterroles",
                "alice PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
                "shop:web POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
            ],
        ),
        (
            10,
            "a privileged Pod or template",
            Request,
            &[
                "alice POST /api/v1/namespaces/shop/pods",
                "kube-system:replicaset-controller POST /api/v1/namespaces/shop/pods",
                "kubelet POST /api/v1/namespaces/kube-system/pods",
                "alice POST /apis/apps/v1/namespaces/shop/deployments",
                "shop:web PATCH /apis/apps/v1/namespaces/shop/daemonsets/x",
                "alice PUT /apis/apps/v1/namespaces/shop/statefulsets/x",
                "alice POST /apis/batch/v1/namespaces/shop/cronjobs",
                "kube-system:coredns POST /apis/batch/v1/namespaces/shop/jobs",
            ],
        ),
        (
            11,
            "a sensitive hostPath",
            Request,
            &[
                "alice POST /api/v1/namespaces/shop/pods",
                "alice POST /apis/apps/v1/namespaces/shop/replicasets",
                "alice POST /api/v1/namespaces/shop/replicationcontrollers",
                "alice PUT /api/v1/namespaces/shop/podtemplates/x",
            ],
        ),
        (
            12,
            "a token or an identity of kube-system is made",
            Metadata,
            &[
                "alice POST /api/v1/namespaces/kube-system/serviceaccounts/admin/token",
                "shop:web POST /api/v1/namespaces/shop/serviceaccounts/web/token",
                "kube-system:coredns POST /api/v1/namespaces/shop/serviceaccounts/web/token",
                "alice POST /api/v1/namespaces/kube-system/serviceaccounts",
                "kube-system:coredns POST /api/v1/namespaces/kube-system/serviceaccounts",
            ],
        ),
        (
            13,
            "admission and aggregation change",
            Metadata,
            &[
                "alice POST /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
                "shop:web PATCH /apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/x",
                "kube-system:coredns DELETE /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/x",
                "alice PUT /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/x",
                "alice POST /apis/apiregistration.k8s.io/v1/apiservices",
            ],
        ),
        // The policy sees the authenticated user, not the impersonated one.
        (
            14,
            "impersonation",
            Metadata,
            &["alice GET /api/v1/nodes", "alice PATCH /api/v1/nodes/cp1", "shop:web GET /api/v1/nodes/cp1"],
        ),
        (
            15,
            "the kubelet by proxy, certificates, settings of kube-system, traces removed, the audit itself",
            Metadata,
            &[
                "alice GET /api/v1/nodes/cp1/proxy/run/shop/web/web",
                "shop:web POST /api/v1/nodes/cp1/proxy/exec/shop/web/web",
                "alice PUT /apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval",
                "shop:web POST /apis/certificates.k8s.io/v1/certificatesigningrequests",
                "alice PATCH /api/v1/namespaces/kube-system/configmaps/coredns",
                "kube-system:coredns PUT /api/v1/namespaces/kube-system/configmaps/kubeadm-config",
                "alice DELETE /api/v1/namespaces/shop/events",
                "shop:web DELETE /apis/events.k8s.io/v1/namespaces/shop/events/x",
                "alice PATCH /apis/audit-operator.io/v1alpha1/auditsetups/cluster",
                "shop:web DELETE /apis/audit-operator.io/v1alpha1/auditsetups/cluster",
                "kube-system:coredns PATCH /apis/audit-operator.io/v1alpha1/nodeaudits/cp1",
            ],
        ),
    ]
};

#[test]
fn quiet_records_what_the_fifteen_detections_need() {
    assert_eq!(DETECTIONS.iter().map(|detection| detection.0).collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
    for (number, what, least, requests) in DETECTIONS {
        for request in *requests {
            let [who, method, url] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{request}") };
            let found = level("quiet-", who, method, url);
            assert!(found >= *least, "{number} ({what}): {request}: {found:?}");
        }
    }
}

/// The stage that Falco's rule for exec uses, and the only one of failed authentication.
#[test]
fn quiet_and_falco_keep_the_stage_at_which_an_exec_begins() {
    for name in ["quiet-", "falco-"] {
        let preset = presets().into_iter().find(|preset| preset.name.starts_with(name)).unwrap();
        let omitted = preset.policy.rules.iter().flat_map(|rule| &rule.omit_stages).chain(&preset.policy.omit_stages);
        assert!(omitted.eq(&[crate::Stage::RequestReceived]), "{name}");
    }
}

/// Requests of the parts of an idle kubeadm cluster with the operator.
const IDLE: &[&str] = &[
    // Probes and scrapes.
    "anonymous GET /livez",
    "anonymous GET /readyz",
    "anonymous GET /healthz",
    "monitoring:prometheus GET /metrics",
    "audit-system:audit-operator-agent GET /metrics",
    "audit-system:audit-operator-agent GET /version",
    // kubelets.
    "kubelet GET /api/v1/nodes/cp1?resourceVersion=0&timeout=10s",
    "kubelet PATCH /api/v1/nodes/cp1/status?timeout=10s",
    "kubelet GET /api/v1/nodes?fieldSelector=metadata.name%3Dcp1&watch=true",
    "kubelet GET /api/v1/pods?fieldSelector=spec.nodeName%3Dcp1&watch=true",
    "kubelet GET /api/v1/namespaces/kube-system/pods/coredns-1",
    "kubelet PATCH /api/v1/namespaces/kube-system/pods/coredns-1/status",
    "kubelet GET /api/v1/services?watch=true",
    "kubelet GET /api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dcoredns&watch=true",
    "kubelet GET /api/v1/namespaces/shop/secrets?fieldSelector=metadata.name%3Ddb&watch=true",
    "kubelet GET /apis/node.k8s.io/v1/runtimeclasses?watch=true",
    "kubelet GET /apis/storage.k8s.io/v1/csidrivers?watch=true",
    "kubelet GET /apis/storage.k8s.io/v1/csinodes/cp1",
    "kubelet PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/cp1?timeout=10s",
    "kubelet POST /api/v1/namespaces/kube-system/events",
    "kubelet POST /api/v1/namespaces/kube-system/serviceaccounts/coredns/token",
    "kubelet POST /apis/authentication.k8s.io/v1/tokenreviews",
    "kubelet POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
    // kube-apiserver itself.
    "apiserver GET /api/v1/namespaces/default",
    "apiserver GET /api/v1/namespaces/default/endpoints/kubernetes",
    "apiserver GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    "apiserver PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/apiserver-x",
    "apiserver GET /api/v1/secrets?watch=true",
    "apiserver GET /api/v1/services",
    "apiserver PATCH /apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt/status",
    "apiserver GET /apis/rbac.authorization.k8s.io/v1/clusterroles?watch=true",
    "apiserver PUT /apis/apiregistration.k8s.io/v1/apiservices/v1./status",
    // The controller manager, as itself and as its controllers.
    "manager PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager?timeout=5s",
    "manager GET /api/v1/secrets?watch=true",
    "manager GET /api/v1/secrets?limit=500",
    "manager GET /apis/apps/v1/deployments?watch=true",
    "manager POST /api/v1/namespaces/kube-system/serviceaccounts/node-controller/token",
    "manager GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    "manager POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
    "kube-system:generic-garbage-collector GET /api",
    "kube-system:generic-garbage-collector GET /apis",
    "kube-system:resourcequota-controller GET /apis/apps/v1",
    "kube-system:generic-garbage-collector GET /openapi/v3",
    "kube-system:node-controller GET /api/v1/nodes/cp1",
    "kube-system:endpointslice-controller PUT /apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns-1",
    "kube-system:endpoint-controller PUT /api/v1/namespaces/kube-system/endpoints/kube-dns",
    "kube-system:deployment-controller PUT /apis/apps/v1/namespaces/kube-system/deployments/coredns/status",
    "kube-system:ttl-after-finished-controller DELETE /apis/batch/v1/namespaces/shop/jobs/done",
    // kube-scheduler, kube-proxy, CoreDNS.
    "scheduler PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler?timeout=5s",
    "scheduler GET /api/v1/pods?watch=true",
    "scheduler POST /apis/events.k8s.io/v1/namespaces/default/events",
    "kube-system:kube-proxy GET /apis/discovery.k8s.io/v1/endpointslices?watch=true",
    "kube-system:kube-proxy GET /api/v1/nodes?fieldSelector=metadata.name%3Dcp1&watch=true",
    "kube-system:coredns GET /api/v1/namespaces?watch=true",
    "kube-system:coredns GET /apis/discovery.k8s.io/v1/endpointslices?watch=true",
    // The operator, without its canary, which has a rule of its own.
    "audit-system:audit-operator-controller PUT /apis/coordination.k8s.io/v1/namespaces/audit-system/leases/audit-operator",
    "audit-system:audit-operator-controller GET /apis/coordination.k8s.io/v1/namespaces/audit-system/leases/audit-operator",
    "audit-system:audit-operator-controller GET /apis/audit-operator.io/v1alpha1/auditsetups?watch=true",
    "audit-system:audit-operator-controller GET /apis/audit-operator.io/v1alpha1/nodeaudits",
    "audit-system:audit-operator-controller GET /api/v1/nodes?labelSelector=node-role.kubernetes.io%2Fcontrol-plane",
    "audit-system:audit-operator-controller GET /api/v1/namespaces/audit-system/secrets/token",
    "audit-system:audit-operator-controller GET /api/v1/namespaces/audit-system/secrets?watch=true",
    "audit-system:audit-operator-controller GET /api/v1/namespaces/falco/services/falco-k8saudit",
    "audit-system:audit-operator-controller PATCH /apis/audit-operator.io/v1alpha1/auditsetups/cluster/status",
    "audit-system:audit-operator-agent GET /apis/audit-operator.io/v1alpha1/nodeaudits/cp1",
    "audit-system:audit-operator-agent PATCH /apis/audit-operator.io/v1alpha1/nodeaudits/cp1/status",
    "audit-system:audit-operator-agent GET /api/v1/namespaces/audit-system/secrets/credentials",
    // Other common components.
    "monitoring:prometheus POST /apis/authentication.k8s.io/v1/tokenreviews",
    "monitoring:prometheus POST /apis/authorization.k8s.io/v1/subjectaccessreviews",
    "monitoring:operator GET /api/v1/pods?watch=true",
    "cert-manager:cert-manager PUT /apis/coordination.k8s.io/v1/namespaces/cert-manager/leases/cert-manager-controller",
    "cert-manager:cert-manager POST /api/v1/namespaces/shop/events",
    "kube-system:cluster-autoscaler PUT /api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status",
    "kube-system:metrics-server GET /api/v1/nodes?watch=true",
];

#[test]
fn quiet_records_nothing_that_an_idle_cluster_does() {
    for request in IDLE {
        let [who, method, url] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{request}") };
        assert_eq!(level("quiet-", who, method, url), Level::None, "{request}");
    }
}

#[test]
fn falco_records_what_its_rules_look_at_and_not_the_noise() {
    use Level::{Metadata, None, Request, RequestResponse};
    for (least, most, requests) in [
        // Disallowed K8s User, and every change with its user.
        (
            Metadata,
            Metadata,
            &[
                "alice GET /api/v1/pods",
                "alice GET /healthz",
                "alice PUT /apis/coordination.k8s.io/v1/namespaces/a/leases/b",
                "alice POST /api/v1/namespaces/a/events",
                "alice GET /apis",
                "anonymous GET /api/v1/pods",
                "anonymous GET /metrics",
                "shop:web GET /api/v1/namespaces/shop/secrets/db",
                "kubelet GET /api/v1/namespaces/shop/secrets/db",
                "alice POST /api/v1/namespaces/shop/secrets",
                "alice DELETE /api/v1/namespaces/shop/secrets/db",
                "alice GET /api/v1/namespaces/shop/pods/web/exec",
                "kube-system:coredns POST /api/v1/namespaces/shop/pods/web/exec",
                "shop:web GET /api/v1/namespaces/shop/pods/web/portforward",
                "shop:web POST /apis/apps/v1/namespaces/shop/deployments",
                "shop:web DELETE /apis/apps/v1/namespaces/shop/deployments/x",
                "manager POST /api/v1/namespaces",
                "shop:web DELETE /api/v1/namespaces/shop/services/x",
                "shop:web DELETE /api/v1/namespaces/shop/configmaps/x",
                "shop:web POST /api/v1/namespaces/kube-system/serviceaccounts",
                "shop:web DELETE /api/v1/namespaces/shop/serviceaccounts/x",
                "shop:web PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
                "manager DELETE /apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/system:x",
                "kubelet POST /api/v1/nodes",
            ][..],
        ),
        (
            Request,
            RequestResponse,
            &[
                "alice POST /api/v1/namespaces/shop/services",
                "shop:web POST /api/v1/namespaces/shop/configmaps",
                "shop:web PATCH /api/v1/namespaces/shop/configmaps/x",
                "manager PUT /api/v1/namespaces/shop/configmaps/x",
                "alice PATCH /api/v1/namespaces/shop/pods/web/ephemeralcontainers",
                "shop:web POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                "shop:web POST /apis/rbac.authorization.k8s.io/v1/clusterroles",
                "shop:web POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
                "shop:web POST /apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
                "shop:web POST /apis/networking.k8s.io/v1/namespaces/shop/ingresses",
            ],
        ),
        (
            RequestResponse,
            RequestResponse,
            &[
                "alice POST /api/v1/namespaces/shop/pods",
                "kube-system:replicaset-controller POST /api/v1/namespaces/shop/pods",
            ],
        ),
        (
            None,
            None,
            &[
                "anonymous GET /readyz?verbose",
                "kubelet PATCH /api/v1/nodes/cp1/status",
                "kubelet GET /api/v1/nodes/cp1",
                "kubelet PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/cp1",
                "manager GET /api/v1/secrets?watch=1",
                "apiserver GET /api/v1/namespaces/default/endpoints/kubernetes",
                "kube-system:coredns GET /apis/discovery.k8s.io/v1/endpointslices?watch=1",
                "kube-system:generic-garbage-collector GET /apis",
                "monitoring:prometheus POST /apis/authentication.k8s.io/v1/tokenreviews",
            ],
        ),
    ] {
        for request in requests {
            let [who, method, url] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{request}") };
            let found = level("falco-", who, method, url);
            assert!((least..=most).contains(&found), "{request}: {found:?}");
        }
    }
}
