//! The requests, in the order in which they are sent: first the objects of a cluster, then every kind of request.
//!
//! The same for every policy, so that one run can be compared with another.

use audit_policy::{User, attributes};
use serde_json::{Value, json};
use testing::policies;
use testing::random::Random;

use crate::server::{CAROL, TOKENS};

/// Whose credentials a request carries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Identity {
    /// Of [`TOKENS`].
    Token(usize),
    Carol,
    /// The service account a/robot.
    Robot,
    Anonymous,
    /// A token that nobody issued, and a certificate that the wrong authority signed.
    ForgedToken,
    ForgedCertificate,
}

pub const ROOT: Identity = Identity::Token(0);
pub const ALICE: Identity = Identity::Token(1);
const BOB: Identity = Identity::Token(2);
const NODE: Identity = Identity::Token(3);

impl Identity {
    /// As kube-apiserver knows it; none where it cannot be authenticated.
    pub fn user(self) -> Option<User<'static>> {
        let (name, groups): (_, &[&str]) = match self {
            Self::Token(index) => (TOKENS[index].1, TOKENS[index].2),
            Self::Carol => (CAROL.0, &[CAROL.1]),
            Self::Robot => ("system:serviceaccount:a:robot", &[]),
            Self::Anonymous => ("system:anonymous", &[]),
            Self::ForgedToken | Self::ForgedCertificate => return None,
        };
        Some(User::authenticated(name, groups))
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub identity: Identity,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// A stream: it stays open beside the others.
    pub is_waiting: bool,
    /// It is repeated until the answer has this status: something must exist first.
    pub until: Option<u16>,
}

impl Request {
    fn new(method: &str, target: &str) -> Self {
        let verb = attributes(method, target).map(|found| found.verb.to_string());
        Self {
            method: method.into(),
            target: target.into(),
            identity: ROOT,
            headers: Vec::new(),
            body: Vec::new(),
            is_waiting: verb.is_ok_and(|verb| verb == "watch") || target.contains("follow"),
            until: None,
        }
    }

    pub fn probe() -> Self {
        Self::new("GET", "/readyz")
    }

    fn by(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn json(self, body: &Value) -> Self {
        self.typed("application/json", body.to_string())
    }

    fn typed(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.with("Content-Type", content_type)
    }

    fn until(mut self, status: u16) -> Self {
        self.until = Some(status);
        self
    }
}

fn get(target: &str) -> Request {
    Request::new("GET", target)
}

fn post(target: &str, body: Value) -> Request {
    Request::new("POST", target).json(&body)
}

fn put(target: &str, body: Value) -> Request {
    Request::new("PUT", target).json(&body)
}

fn patch(kind: &str, target: &str, body: Value) -> Request {
    Request::new("PATCH", target).typed(&format!("application/{kind}"), body.to_string())
}

fn delete(target: &str) -> Request {
    Request::new("DELETE", target)
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}})
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn config_map(name: &str) -> Value {
    with(object("v1", "ConfigMap", name), "data", json!({"k": "v"}))
}

fn pod(name: &str) -> Value {
    with(object("v1", "Pod", name), "spec", json!({"containers": [{"name": "c", "image": "i"}]}))
}

fn deployment(name: &str) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    with(object("apps/v1", "Deployment", name), "spec", spec)
}

fn widget(name: &str) -> Value {
    with(object("judge.example.com/v1", "Widget", name), "spec", json!({"replicas": 1}))
}

const WIDGETS: &str = "/apis/judge.example.com/v1/namespaces/a/widgets";
const A: &str = "/api/v1/namespaces/a";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// All requests.
pub fn requests(seed: u64) -> Vec<Request> {
    let mut random = Random::new(seed);
    [
        setup().into_iter().map(repeated).collect(),
        writes(),
        subresources(),
        refusals(),
        impersonations(),
        reads(&mut random),
        odd_paths(),
        odd(&mut random),
        deletes(),
    ]
    .concat()
}

/// A busy server rejects, for a while, requests that it will accept: so this repeats until the object exists, and once
/// more.
fn repeated(request: Request) -> Request {
    let is_object = request.method == "POST" && !request.target.ends_with("/token");
    if is_object { request.until(409) } else { request }
}

/// The objects for the others: two namespaces with objects, a custom resource, and an aggregated API that has no
/// server.
fn setup() -> Vec<Request> {
    let rule = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps", "pods/exec"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["bob", "nobody"]},
    ]);
    let subject = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "judge"});
    let binding = object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "judge");
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({
        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
    });
    let definition = json!({
        "group": "judge.example.com", "scope": "Namespaced", "versions": [version],
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
    });
    let service = json!({
        "group": "absent.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
        "insecureSkipTLSVerify": true, "service": {"namespace": "a", "name": "web"},
    });
    vec![
        post("/api/v1/namespaces", object("v1", "Namespace", "a")),
        post("/api/v1/namespaces", object("v1", "Namespace", "b")),
        post(
            &format!("{RBAC}/clusterroles"),
            with(object("rbac.authorization.k8s.io/v1", "ClusterRole", "judge"), "rules", rule),
        ),
        post(&format!("{RBAC}/clusterrolebindings"), with(with(binding, "subjects", subject), "roleRef", role)),
        post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            with(
                object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "widgets.judge.example.com"),
                "spec",
                definition,
            ),
        ),
        post(
            "/apis/apiregistration.k8s.io/v1/apiservices",
            with(object("apiregistration.k8s.io/v1", "APIService", "v1.absent.example.com"), "spec", service),
        ),
        post(&format!("{A}/serviceaccounts"), object("v1", "ServiceAccount", "robot")),
        post(
            &format!("{A}/services"),
            with(object("v1", "Service", "web"), "spec", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        ),
        post("/api/v1/nodes", object("v1", "Node", "n1")),
        post(&format!("{A}/configmaps"), config_map("x")),
        post(&format!("{A}/configmaps"), config_map("y")),
        post("/api/v1/namespaces/b/configmaps", config_map("x")),
        post(&format!("{A}/secrets"), with(object("v1", "Secret", "s"), "stringData", json!({"password": "p"}))),
        post(&format!("{A}/pods"), pod("p")),
        post(&format!("{A}/pods"), pod("q")),
        post("/apis/apps/v1/namespaces/a/deployments", deployment("d")),
        post(
            &format!("{A}/serviceaccounts/robot/token"),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
        ),
        get(&format!("{A}/configmaps/x")).by(ALICE).until(200),
        get(&format!("{A}/configmaps/x")).by(Identity::Robot).until(403),
        get(WIDGETS).until(200),
        get("/apis/absent.example.com/v1/things").until(503),
        post(WIDGETS, widget("w")),
    ]
}

/// Creates, updates and patches, good and bad.
fn writes() -> Vec<Request> {
    let x = format!("{A}/configmaps/x");
    let configmaps = format!("{A}/configmaps");
    let managed = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}});
    let mut with_managers = config_map("x");
    with_managers["metadata"]["managedFields"] = json!([managed]);
    let mut generated = config_map("");
    generated["metadata"] = json!({"generateName": "g-"});
    let big = with(config_map("big"), "data", json!({"k": "b".repeat(200_000)}));
    // More than 3 MiB, but not by more than Go reads before it closes: what is left unread would cost the answer.
    let too_big = "x".repeat((3 << 20) + 1000);
    let review = |group: &str, kind: &str, spec: Value| {
        with(json!({"apiVersion": format!("{group}.k8s.io/v1"), "kind": kind}), "spec", spec)
    };
    vec![
        put(&x, with_managers.clone()),
        put(&x, with_managers.clone()).by(ALICE),
        put(&x, config_map("x")).by(BOB),
        put(&x, config_map("other")),
        put(&format!("{A}/configmaps/none"), config_map("none")),
        put(&format!("{x}?dryRun=All"), config_map("x")),
        put(&format!("{x}?dryRun=some"), config_map("x")),
        post(&format!("{configmaps}?dryRun=All"), generated),
        post(&configmaps, big),
        post(&format!("{A}/pods?dryRun=All"), pod("dry")),
        post(&format!("{A}/secrets?dryRun=All"), object("v1", "Secret", "dry")),
        post("/apis/apps/v1/namespaces/a/deployments?dryRun=All", deployment("dry")),
        Request::new("POST", &configmaps).typed("application/json", too_big),
        post(&configmaps, config_map("x")),
        post(&configmaps, config_map("")),
        post(&configmaps, object("v1", "Secret", "s2")),
        post(&configmaps, object("v2", "ConfigMap", "c2")),
        post("/api/v1/namespaces/none/configmaps", config_map("x")),
        post("/api/v1/configmaps", config_map("x")),
        post(
            "/api/v1/namespaces",
            with(object("v1", "Namespace", ""), "metadata", json!({"name": "c", "namespace": "zzz"})),
        ),
        Request::new("POST", &configmaps).typed("application/json", "{"),
        Request::new("POST", &configmaps).typed("application/json", "null"),
        Request::new("POST", &configmaps).typed("application/xml", "<a/>"),
        Request::new("POST", &configmaps),
        Request::new("POST", &configmaps)
            .typed("application/yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: from-yaml}}"),
        Request::new("POST", &configmaps).typed("application/vnd.kubernetes.protobuf", "k8s\0\n"),
        post(&format!("{configmaps}?fieldValidation=Strict"), with(config_map("z"), "unknown", json!(1))),
        post(&format!("{configmaps}?fieldValidation=x"), config_map("z")),
        post(&configmaps, with(config_map("z"), "data", json!(1))),
        post(&configmaps, config_map("by-bob")).by(BOB),
        post(&configmaps, config_map("by-nobody")).by(Identity::Anonymous),
        post(&configmaps, config_map("by-forger")).by(Identity::ForgedToken),
        post(&configmaps, config_map("by-robot")).by(Identity::Robot),
        post(&configmaps, config_map("by-alice")).by(ALICE),
        post(&configmaps, config_map("by-carol")).by(Identity::Carol),
        patch("merge-patch+json", &x, json!({"data": {"m": "1"}})),
        patch("merge-patch+json", &x, json!({"metadata": {"managedFields": [managed]}, "data": {"n": "1"}})),
        patch("json-patch+json", &x, json!([{"op": "add", "path": "/data/j", "value": "1"}])),
        patch("json-patch+json", &x, json!([{"op": "test", "path": "/data/j", "value": "2"}])),
        patch("strategic-merge-patch+json", &x, json!({"data": {"s": "1"}})).by(ALICE),
        patch("apply-patch+yaml", &format!("{x}?fieldManager=judge&force=true"), config_map("x")),
        patch("apply-patch+yaml", &format!("{A}/configmaps/applied?fieldManager=judge"), config_map("applied")),
        patch("apply-patch+yaml", &x, config_map("x")),
        Request::new("PATCH", &format!("{A}/configmaps/yaml?fieldManager=judge")).typed(
            "application/apply-patch+yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata: {k: v}\n",
        ),
        patch("x-patch", &x, json!({})),
        patch("merge-patch+json", &x, json!({"data": {"m": "2"}})).by(BOB),
        Request::new("PATCH", &x).typed("application/merge-patch+json", "{"),
        Request::new("PATCH", &x).typed("application/merge-patch+json", ""),
        patch("merge-patch+json", &format!("{A}/configmaps/none"), json!({"data": {}})),
        patch("merge-patch+json", &format!("{WIDGETS}/w"), json!({"spec": {"a": 1}})),
        patch("strategic-merge-patch+json", &format!("{WIDGETS}/w"), json!({"spec": {"a": 1}})),
        patch("apply-patch+yaml", &format!("{WIDGETS}/v?fieldManager=judge"), widget("v")),
        post(WIDGETS, widget("w")),
        post(WIDGETS, json!({"kind": "Widget"})),
        post("/apis/absent.example.com/v1/namespaces/a/things", json!({"metadata": {"name": "t"}})),
        post("/apis/none.example.com/v1/namespaces/a/things", json!({"metadata": {"name": "t"}})),
        post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            review(
                "authorization",
                "SelfSubjectAccessReview",
                json!({"nonResourceAttributes": {"path": "/", "verb": "get"}}),
            ),
        )
        .by(ALICE),
        post(
            "/apis/authentication.k8s.io/v1/tokenreviews",
            review("authentication", "TokenReview", json!({"token": "t"})),
        ),
        post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
        )
        .by(Identity::Carol),
        post(
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases",
            object("coordination.k8s.io/v1", "Lease", "leader"),
        ),
        put(
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/leader",
            object("coordination.k8s.io/v1", "Lease", "leader"),
        )
        .by(NODE),
        post(&format!("{A}/events"), with(object("v1", "Event", "e"), "involvedObject", json!({"namespace": "a"}))),
        post("/healthz", json!({})),
        put("/version", json!({})),
        delete("/metrics"),
        delete("/apis/apps/v1"),
        patch("merge-patch+json", "/api", json!({})),
    ]
}

fn subresources() -> Vec<Request> {
    let p = format!("{A}/pods/p");
    let d = "/apis/apps/v1/namespaces/a/deployments/d";
    let w = format!("{WIDGETS}/w");
    let scale = |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "a"}, "spec": {"replicas": replicas}});
    let binding = |name: &str| with(object("v1", "Binding", name), "target", json!({"kind": "Node", "name": "n1"}));
    let eviction = object("policy/v1", "Eviction", "q");
    let ephemeral = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}});
    let finalize =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b"}, "spec": {"finalizers": []}});
    let upgrade =
        |request: Request| request.with("Upgrade", "SPDY/3.1").with("X-Stream-Protocol-Version", "v4.channel.k8s.io");
    vec![
        get(&format!("{p}/status")),
        patch("merge-patch+json", &format!("{p}/status"), json!({"status": {"phase": "Running"}})).by(NODE),
        patch("merge-patch+json", &format!("{p}/status"), json!({"status": {"phase": "Running"}})),
        put(&format!("{p}/status"), pod("p")).by(ALICE),
        get(&format!("{d}/scale")),
        get(&format!("{d}/scale")).by(ALICE),
        put(&format!("{d}/scale"), scale(2)),
        patch("merge-patch+json", &format!("{d}/scale"), json!({"spec": {"replicas": 3}})),
        patch("merge-patch+json", &format!("{d}/status"), json!({"status": {"replicas": 1}})),
        get(&format!("{w}/scale")),
        get(&format!("{w}/status")).by(Identity::Carol),
        patch("merge-patch+json", &format!("{w}/status"), json!({"status": {"replicas": 1}})),
        put(&format!("{w}/scale"), scale(2)),
        get(&format!("{w}/none")),
        get(&format!("{p}/log")),
        get(&format!("{p}/log?follow=true")).by(ALICE),
        get(&format!("{p}/log?tailLines=x")),
        get(&format!("{A}/pods/none/log")),
        get(&format!("{p}/log")).by(BOB),
        upgrade(Request::new("POST", &format!("{p}/exec?command=ls&stdout=true"))),
        upgrade(Request::new("POST", &format!("{p}/exec?command=ls&stdout=true"))).by(ALICE),
        upgrade(get(&format!("{p}/exec?command=ls&stdout=true"))).by(Identity::Carol),
        Request::new("POST", &format!("{p}/exec?command=ls&stdout=true")).by(BOB),
        upgrade(Request::new("POST", &format!("{p}/attach?stdin=true"))),
        get(&format!("{p}/attach")),
        upgrade(Request::new("POST", &format!("{p}/portforward?ports=80"))),
        get(&format!("{p}/portforward?ports=80")),
        get(&format!("{p}/proxy")),
        get(&format!("{p}/proxy/deeper/still?x=y")),
        post(&format!("{p}/proxy/"), json!({"a": 1})),
        delete(&format!("{p}/proxy/")).by(BOB),
        get(&format!("{A}/services/web/proxy/")),
        get(&format!("{A}/services/web:80/proxy/a")),
        get("/api/v1/nodes/n1/proxy/stats/summary"),
        get("/api/v1/nodes/n1/proxy/healthz").by(NODE),
        Request::new("OPTIONS", &format!("{p}/proxy/")),
        post(&format!("{A}/pods/q/eviction?dryRun=All"), eviction.clone()),
        post(&format!("{A}/pods/q/eviction"), eviction.clone()).by(BOB),
        post(&format!("{A}/pods/q/eviction"), json!({"apiVersion": "policy/v1", "kind": "Eviction"})),
        post(&format!("{p}/binding"), binding("p")),
        post(&format!("{A}/bindings"), binding("p")),
        post(&format!("{A}/bindings"), binding("p")).by(BOB),
        post(
            &format!("{A}/serviceaccounts/robot/token"),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}),
        )
        .by(NODE),
        post(&format!("{A}/serviceaccounts/none/token"), json!({})),
        patch("strategic-merge-patch+json", &format!("{p}/ephemeralcontainers"), ephemeral.clone()),
        patch("merge-patch+json", &format!("{p}/ephemeralcontainers"), ephemeral).by(ALICE),
        get(&format!("{p}/ephemeralcontainers")),
        patch("merge-patch+json", &format!("{p}/resize"), json!({"spec": {}})),
        put("/api/v1/namespaces/b/finalize", finalize.clone()),
        put("/api/v1/namespaces/b/finalize", finalize).by(BOB),
        get("/api/v1/namespaces/b/finalize"),
        get("/api/v1/namespaces/b/status"),
        patch("merge-patch+json", "/api/v1/namespaces/b/status", json!({"status": {}})),
        patch("merge-patch+json", "/api/v1/nodes/n1/status", json!({"status": {"phase": "Running"}})),
        get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.judge.example.com/status"),
        get("/apis/apiregistration.k8s.io/v1/apiservices/v1.absent.example.com/status"),
        post(&format!("{p}/none"), json!({})),
        delete(&format!("{p}/status")),
    ]
}

/// Answered by the server's filters, before or instead of a handler.
fn refusals() -> Vec<Request> {
    let mut found = Vec::new();
    for target in [
        "/api/v1/namespaces/a/pods",
        "/api/v1/nodes/n1",
        "/version",
        "/healthz",
        "/api/v1/namespaces/a/pods?watch=1&timeoutSeconds=1",
    ] {
        for identity in [Identity::ForgedToken, Identity::ForgedCertificate, Identity::Anonymous, BOB] {
            found.push(get(target).by(identity));
        }
    }
    found.extend([
        get("/api/v1/pods").by(Identity::ForgedToken).with("Impersonate-User", "bob"),
        get("/api/v1/pods").by(Identity::Anonymous).with("Authorization", "Basic Ym9iOmJvYg=="),
        get("/api/v1/pods")
            .by(Identity::Anonymous)
            .with("X-Remote-User", "root")
            .with("X-Remote-Group", "system:masters"),
        get("/api/v1/pods?timeout=x"),
        get("/api/v1/pods?timeout=x").by(ALICE),
        get("/api/v1/pods?timeout=x").by(Identity::ForgedToken),
        get("/api/v1/pods?timeout=").by(ALICE),
        get("/api/v1/pods?timeout=5s").by(ALICE),
        get("/api/v1/pods?timeout=-5s").by(ALICE),
        get("/api/v1/pods?timeout=0").by(ALICE),
        get("/healthz?timeout=5"),
        get("/api/v1/pods?watch=1&timeoutSeconds=1&timeout=x"),
        get(&format!("{A}/pods/p/log?timeout=x")),
        post("/api/v1/namespaces?timeout=1x", object("v1", "Namespace", "t")),
        delete(&format!("{A}/configmaps/y?timeout=%31x")),
        get("/api/v1/pods").with("Accept", "application/xml"),
        get(&format!("{A}/pods/p/exec")).by(BOB),
        get("/debug/pprof/cmdline"),
        get("/debug/pprof/").by(ALICE),
        get("/debug/pprof/profile?seconds=1"),
        get("/debug/flags/v"),
        get("/debug/api_priority_and_fairness/dump_priority_levels"),
        Request::new("WATCH", "/healthz").by(ALICE),
        Request::new("PROXY", "/version"),
    ]);
    found
}

fn impersonations() -> Vec<Request> {
    let target = format!("{A}/configmaps/x");
    let as_user = |name: &str| get(&target).with("Impersonate-User", name);
    vec![
        as_user("bob"),
        as_user("alice").with("Impersonate-Group", "devs"),
        as_user("alice").with("Impersonate-Group", "devs").with("Impersonate-Group", "system:masters"),
        as_user("root").with("Impersonate-Extra-Scopes", "a").with("Impersonate-Uid", "1"),
        as_user("system:serviceaccount:a:robot"),
        as_user("system:anonymous"),
        as_user("system:node:n1"),
        as_user("bob").by(ALICE),
        as_user("root").by(ALICE),
        as_user("bob").by(BOB),
        as_user("bob").by(Identity::Anonymous),
        as_user("nobody").by(Identity::Carol),
        get(&target).with("Impersonate-Group", "devs"),
        get(&target).with("Impersonate-Uid", "1"),
        get("/healthz").with("Impersonate-User", "bob"),
        get("/metrics").with("Impersonate-User", "bob"),
        get("/api/v1/pods?watch=1&timeoutSeconds=1")
            .with("Impersonate-User", "alice")
            .with("Impersonate-Group", "devs"),
        delete(&target).with("Impersonate-User", "bob"),
        post(&format!("{A}/configmaps"), config_map("as-nobody")).with("Impersonate-User", "nobody"),
        get(&format!("{A}/pods/p/log")).with("Impersonate-User", "bob"),
    ]
}

/// Collections and objects, by many, with every way to ask and every form of the answer.
fn reads(random: &mut Random) -> Vec<Request> {
    #[rustfmt::skip]
    const TARGETS: &[&str] = &[
        "/api/v1/namespaces", "/api/v1/namespaces/a", "/api/v1/namespaces/none", "/api/v1/pods", "/api/v1/configmaps",
        "/api/v1/namespaces/a/pods", "/api/v1/namespaces/a/pods/p", "/api/v1/namespaces/a/configmaps", "/api/v1/namespaces/a/configmaps/x",
        "/api/v1/namespaces/b/configmaps/x", "/api/v1/namespaces/a/secrets", "/api/v1/namespaces/a/secrets/s", "/api/v1/namespaces/none/secrets/s",
        "/api/v1/nodes", "/api/v1/nodes/n1", "/api/v1/componentstatuses", "/api/v1/namespaces/a/serviceaccounts/robot",
        "/api/v1/namespaces/a/services/web", "/apis/apps/v1/deployments", "/apis/apps/v1/namespaces/a/deployments",
        "/apis/apps/v1/namespaces/a/deployments/d", "/apis/judge.example.com/v1/widgets", "/apis/judge.example.com/v1/namespaces/a/widgets/w",
        "/apis/absent.example.com/v1/things/t", "/apis/rbac.authorization.k8s.io/v1/clusterroles/judge",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/apiregistration.k8s.io/v1/apiservices",
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/leader",
        "/api/v1/namespaces/a/none", "/apis/none.example.com/v1/things", "/apis/apps/v2/deployments", "/api/v2/pods",
        "/healthz", "/healthz/etcd", "/healthz/none", "/livez?verbose", "/readyz/ping", "/metrics", "/metrics/slis", "/version", "/version/",
        "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1", "/apis", "/apis/", "/apis/apps", "/apis/apps/v1", "/api", "/api/v1", "/logs", "/logs/",
        "/", "/none", "/.well-known/openid-configuration", "/openid/v1/jwks", "/statusz", "/flagz",
    ];
    const QUERIES: &[&str] = &[
        "limit=2",
        "fieldSelector=metadata.name%3Dx",
        "fieldSelector=metadata.name=x,metadata.namespace=a",
        "labelSelector=a%3Db",
        "limit=x",
        "resourceVersion=0",
        "labelSelector=(",
        "fieldSelector=metadata.name!=x",
        "continue=x",
        "pretty=true",
        "watch=false",
        "includeObject=Object",
    ];
    const WATCHES: &[&str] = &[
        "watch=1&timeoutSeconds=1",
        "watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Dx",
        "watch=&timeoutSeconds=1",
        "watch=no&timeoutSeconds=1&allowWatchBookmarks=true",
        "watch=1&timeoutSeconds=x",
        "watch=1&timeoutSeconds=1&labelSelector=((",
    ];
    const ACCEPTS: &[&str] = &[
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf",
        "application/yaml",
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
        "application/cbor",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json",
    ];
    const WHO: &[Identity] =
        &[ROOT, ROOT, ALICE, ALICE, Identity::Carol, Identity::Robot, BOB, NODE, Identity::Anonymous];
    let mut found = Vec::new();
    for target in TARGETS {
        let join = if target.contains('?') { '&' } else { '?' };
        found.push(get(target));
        found.push(get(target).by(random.pick(WHO)).with("Accept", random.pick(ACCEPTS)));
        found.push(get(&format!("{target}{join}{}", random.pick(QUERIES))).by(random.pick(WHO)));
        if random.one_in(2) {
            found.push(get(&format!("{target}{join}{}", random.pick(WATCHES))).by(random.pick(WHO)));
        }
        if random.one_in(3) {
            let method = random.pick(&["HEAD", "OPTIONS", "TRACE", "FOO", "get", "HEAD"]);
            found.push(Request::new(method, target).by(random.pick(WHO)));
        }
    }
    found
}

/// Paths that are not clean, that are deprecated, or that look like others.
fn odd_paths() -> Vec<Request> {
    #[rustfmt::skip]
    const TARGETS: &[&str] = &[
        "//api/v1/pods", "/api//v1/pods", "/api/v1//pods", "/api/v1/pods/", "/api/v1/pods//", "/api/v1/namespaces/a/pods/", "/api/v1/namespaces/a/",
        "/api/v1/namespaces//pods", "/api/v1/namespaces/a//pods", "/api/v1/", "/api/v1//", "/api/", "/apis/apps/v1/", "/apis/apps/v1//", "//", "///healthz",
        "/healthz/", "/api/v1/./pods", "/api/v1/../v1/pods", "/api/v1/namespaces/a/../b/configmaps/x", "/%61pi/v1/pods", "/api%2Fv1%2Fpods",
        "/api/v1/namespaces/a%2Fpods", "/api/v1/namespaces/a/configmaps/%78", "/api/v1/namespaces/a/configmaps/a%20b", "/api/v1/namespaces/%C3%BC/pods",
        "/api/v1/namespaces/%ff/pods", "/api/v1/%2A", "/api/v1/pods%3Fwatch=1", "/api/v1/pods%00", "/api/v1/namespaces/a/configmaps/x/y/z",
        "/api/v1/namespaces/a/pods/p/log/deeper", "/api/v1/namespaces/a/namespaces/b", "/api/v1/namespaces/a/status/x", "/api/v1/namespaces/status",
        "/api/v1/namespaces/finalize", "/api/v1/namespaces/namespaces", "/api/v1/namespaces/a/namespaces", "/api/v1/watch", "/api/v1/watch/",
        "/api/v1/watch/pods?timeoutSeconds=1", "/api/v1/watch/namespaces/a/configmaps/x?timeoutSeconds=1", "/api/v1/watch/namespaces/a/pods?timeoutSeconds=1",
        "/apis/apps/v1/watch/deployments?timeoutSeconds=1", "/api/v1/watch/namespaces?timeoutSeconds=1", "/api/v1/watch/none", "/api/v1/watch/namespaces/b?timeoutSeconds=1",
        "/api/v1/proxy", "/api/v1/proxy/nodes/n1", "/api/v1/proxy/namespaces/a/pods/p/x/y", "/api/v1/proxy/namespaces/a/services/web", "/apis/apps/v1/proxy/x",
        "/API/v1/pods", "/api/V1/pods", "/api/v1/Pods", "/apis/apps/v1/namespaces", "/apis/namespaces/v1/namespaces/namespaces/namespaces", "/apis//v1/pods",
        "/apis/apps//deployments", "/api/v1/namespaces/a/pods;x=y", "/api/v1/namespaces/a:b/pods", "/api/v1/pods?", "/api/v1/pods??watch=1", "/api/v1/pods?&&limit=1",
        "/api/v1/pods?limit=1;watch=1", "/api/v1/pods?limit=%zz", "/api/v1/pods?%77atch=1&timeoutSeconds=1", "/api/v1/pods?watch=1&watch=0&timeoutSeconds=1",
        "/api/v1/pods?watch=0&watch=1", "/api/v1/pods?Watch=1", "/api/v1/configmaps?fieldSelector=metadata.name=x&watch=00&timeoutSeconds=1",
        "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Da%252Fb", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3D..",
        "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name==y", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name",
        "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=x&limit=x", "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=y,metadata.name=x",
        "/api/v1/namespaces?fieldSelector=metadata.name=a", "http://127.0.0.1/api/v1/pods", "https://elsewhere/api/v1/nodes", "/api/v1/pods#x", "/%zz", "*", "",
        "api/v1/pods", "/healthz%2Fetcd", "/healthz%2Aping", "/openapi/v2/", "/apis/judge.example.com", "/apis/judge.example.com/v1", "/apis/absent.example.com/v1",
        "/apis/absent.example.com", "/apis/judge.example.com/v1/namespaces/a/widgets/w/", "/apis/judge.example.com/v1//namespaces/a/widgets",
    ];
    let by = [ROOT, ALICE, ROOT, BOB];
    let mut found: Vec<Request> =
        TARGETS.iter().zip(by.iter().cycle()).map(|(target, by)| get(target).by(*by)).collect();
    found.extend([
        Request::new("OPTIONS", "*"),
        Request::new("HEAD", "/api/v1/namespaces/a/pods"),
        Request::new("HEAD", "/healthz").by(Identity::Anonymous),
        Request::new("OPTIONS", "/api/v1/pods").with("Origin", "https://elsewhere"),
        Request::new("CONNECT", "127.0.0.1:80"),
        Request::new("CONNECT", "/api/v1/nodes/n1/proxy/"),
        Request::new("DELETE", "/api/v1/watch/namespaces/a/pods"),
        Request::new("POST", "/api/v1/watch/pods"),
        Request::new("LIST", "/api/v1/pods"),
        Request::new("get", "/healthz"),
    ]);
    found
}

/// Random ones: `tests/upstream` asks upstream's code about the same requests.
fn odd(random: &mut Random) -> Vec<Request> {
    const WHO: &[Identity] = &[ROOT, ROOT, ALICE, BOB, Identity::ForgedToken];
    let mut found = Vec::new();
    while found.len() < 100 {
        let (method, target) = policies::request(random);
        // These would become another request line, or several.
        let is_line = !method.is_empty() && !method.contains(' ') && !target.contains([' ', '\n', '\r']);
        // These could delete the objects that the others need.
        let is_harmless = !matches!(method.as_str(), "DELETE") || !target.contains("v1/");
        if is_line && is_harmless {
            found.push(Request::new(&method, &target).by(random.pick(WHO)));
        }
    }
    found
}

fn deletes() -> Vec<Request> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "gracePeriodSeconds": 0});
    let configmaps = format!("{A}/configmaps");
    let x = format!("{configmaps}/x");
    vec![
        delete(&x).by(BOB),
        delete(&format!("{x}?dryRun=All")),
        delete(&format!("{x}?gracePeriodSeconds=x")),
        delete(&x).json(&json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["x"]})),
        delete(&x).typed("application/json", "{"),
        delete(&x).json(&options),
        delete(&x),
        delete(&format!("{configmaps}/y")).by(ALICE),
        delete(&format!("{configmaps}?labelSelector=none%3Dnone")),
        delete(&format!("{configmaps}?fieldSelector=metadata.name%3Dbig")),
        delete(&configmaps).json(&options).by(ALICE),
        delete(&configmaps).by(BOB),
        delete(&format!("{A}/pods/q")).json(&options),
        delete(&format!("{WIDGETS}/v")),
        delete(WIDGETS).json(&options),
        delete("/apis/apps/v1/namespaces/a/deployments/d").json(&options),
        delete("/apis/apps/v1/deployments"),
        delete("/api/v1/namespaces"),
        delete("/api/v1/nodes").by(ALICE),
        delete("/apis/absent.example.com/v1/things/t").json(&options),
        delete("/api/v1/namespaces/b"),
        post("/api/v1/namespaces/b/configmaps", config_map("late")),
        delete("/api/v1/nodes/n1"),
    ]
}
