//! The most that one stolen credential gives: nothing on the node that auditing does not have.
//!
//! The attacker has the controller's real token, writes Revisions and NodeAudits with it, and knows this repository.
//! The controller itself is scaled to zero meanwhile, as if the attacker held its Lease.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_operator::revision::{Content, Revision};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testing::cluster::Cluster;

use super::quickstart;

const MINUTE: Duration = Duration::from_secs(60);

pub fn a_stolen_credential_is_not_the_node(cluster: &Cluster) {
    a_forged_revision_changes_nothing(cluster);
    an_agent_writes_the_status_of_its_own_node(cluster);
    nobody_else_assigns_a_revision(cluster);
    a_setup_below_the_floor_is_refused(cluster);
    a_floor_that_rises_is_rolled_out(cluster);
}

/// The files of the node that an attack aims at, byte for byte.
fn node(cluster: &Cluster) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec!["etc/kubernetes", "var/lib/audit-operator", "etc/cron.d"]
        .into_iter()
        .map(|d| cluster.disk().join(d))
        .collect::<Vec<_>>();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                directories.push(path);
            } else {
                found.insert(path.display().to_string(), std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// The Revision that runs, as the controller stored it.
fn stored(cluster: &Cluster) -> (String, Value) {
    let id = cluster.setup_field("/status/revision/current").as_str().unwrap().to_string();
    let secret: Secret = serde_json::from_str(&cluster.kubectl(&[
        "-n",
        "audit-system",
        "get",
        "secret",
        &format!("revision-{id}"),
        "-o",
        "json",
    ]))
    .unwrap();
    (id, serde_json::from_slice(&secret.data.unwrap()["revision.json"].0).unwrap())
}

struct Forged {
    what: &'static str,
    id: String,
    /// In the NodeAudit.
    digest: String,
    /// Of the Secret.
    stored: Value,
}

/// Its id and its digest are correct by our own code: a forger can do no better.
fn typed(what: &'static str, content: &Value) -> Forged {
    let revision =
        Revision::new(serde_json::from_value(content.clone()).unwrap_or_else(|error| panic!("{what}: {error}")));
    let (id, digest) = (revision.id.to_string(), revision.digest.to_string());
    Forged { what, id, stored: json!({"digest": digest, "content": content}), digest }
}

fn forgeries(content: &Value) -> Vec<Forged> {
    let with = |pointer: &str, value: Value| {
        let mut content = content.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        content.pointer_mut(parent).unwrap()[name] = value;
        content
    };
    // Fields that no Revision has: the hash covers them, but no type holds them.
    let untyped = |what: &'static str, content: Value| {
        let digest = format!("sha256:{}", hex(&Sha256::digest(serde_json::to_vec(&content).unwrap())));
        Forged {
            what,
            id: format!("r-{}", &digest[7..17]),
            stored: json!({"digest": digest, "content": content}),
            digest,
        }
    };
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n";
    let evil = "apiVersion: v1\nkind: Pod\nmetadata: {name: evil, namespace: kube-system}\nspec: {hostPID: true, containers: []}\n";
    vec![
        untyped(
            "a file outside",
            with("/files", json!({"../../../manifests/evil.yaml": evil, "../../../pki/ca.key": "another"})),
        ),
        untyped(
            "a foreign flag",
            with(
                "/flags",
                json!({"token-auth-file": "/etc/kubernetes/audit/credentials/x/tokens.csv", "anonymous-auth": "true"}),
            ),
        ),
        untyped("a mount of /", with("/logDirectory", json!("/"))),
        untyped("a kubeconfig with exec", with("/webhook/exec", json!({"command": "sh", "args": ["-c", "id"]}))),
        untyped("credentials outside", with("/webhook/credentials", json!("../../../pki"))),
        typed("a log in cron's directory", &with("/log/path", json!("/etc/cron.d/audit"))),
        typed("a log in the root", &with("/log/path", json!("/audit.log"))),
        typed("a policy below the floor", &with("/policy", json!(policy))),
        typed("a receiver that is the metadata service", &with("/webhook/url", json!("http://169.254.169.254/"))),
    ]
}

fn a_forged_revision_changes_nothing(cluster: &Cluster) {
    let (id, genuine) = stored(cluster);
    let content = &genuine["content"];
    // The forgeries are made from the fixture, so an agent must accept the fixture.
    let parsed: Content = serde_json::from_value(content.clone()).unwrap();
    assert_eq!(Revision::new(parsed).id.as_str(), id);
    let token = cluster.service_account_token("audit-operator-controller", &[]);
    cluster.kubectl(&["-n", "audit-system", "scale", "deploy/audit-operator-controller", "--replicas=0"]);
    cluster.wait("the controller gone", MINUTE, || {
        let pods = cluster.kubectl(&[
            "-n",
            "audit-system",
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=controller",
            "-o",
            "name",
        ]);
        pods.trim().is_empty().then_some(())
    });
    let before = (node(cluster), cluster.api_server_pid());
    let spec = cluster.node_audit("cp1").unwrap()["spec"].clone();

    let mut forgeries = forgeries(content);
    forgeries.extend(same_digits(content));
    let mut made = Vec::new();
    for Forged { what, id, digest, stored } in &forgeries {
        let name = format!("revision-{id}");
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "audit-system"},
            "type": "audit-operator.io/revision", "stringData": {"revision.json": stored.to_string()}});
        cluster
            .kubectl_with_token(&token, &["create", "-f", "-"], Some(&secret))
            .unwrap_or_else(|said| panic!("{what}: {said}"));
        made.push(name);
        assign(cluster, &token, &json!({"revision": id, "revisionDigest": digest, "mayChange": true}));
        let message = refusal(cluster, id);
        assert_eq!((node(cluster), cluster.api_server_pid()), before, "{what}: something on the node was touched");
        cluster.saw(&format!("forged with the controller's token, {what}: {message}"));
        assign(cluster, &token, &spec);
        healthy(cluster);
    }
    // Its Secret names another one for the credentials.
    assign(
        cluster,
        &token,
        &json!({"credentials": {"name": "sh.helm.release.v1.audit-operator.v1", "resourceVersion": "1"}}),
    );
    let message = refusal(cluster, "credentials");
    assert_eq!((node(cluster), cluster.api_server_pid()), before, "{message}");
    cluster.saw(&format!("forged with the controller's token, foreign credentials: {message}"));
    assign(cluster, &token, &spec);
    healthy(cluster);

    for name in made {
        cluster.kubectl(&["-n", "audit-system", "delete", "secret", &name]);
    }
    cluster.kubectl(&["-n", "audit-system", "scale", "deploy/audit-operator-controller", "--replicas=1"]);
    cluster.wait_condition("Ready", "True", 2 * MINUTE);
    assert_eq!(cluster.api_server_pid(), before.1);
}

fn assign(cluster: &Cluster, token: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    let patched = cluster.kubectl_with_token(token, &["patch", "nodeaudit", "cp1", "--type=merge", "-p", &patch], None);
    patched.unwrap_or_else(|said| panic!("the controller's token may assign: {said}"));
}

/// Waits until the agent refuses the Revision and names it.
fn refusal(cluster: &Cluster, named: &str) -> String {
    cluster.wait(&format!("a refusal of {named}"), MINUTE, || {
        let audit = cluster.node_audit("cp1")?;
        let status = &audit["status"];
        let is_current = status["observedGeneration"] == audit["metadata"]["generation"];
        let message = status["message"].as_str()?;
        (is_current && status["reason"] == "RevisionUnreadable" && message.contains(named)).then(|| message.to_string())
    })
}

/// Waits until the agent has the genuine Revision again.
fn healthy(cluster: &Cluster) {
    cluster.wait("the node as it was", MINUTE, || {
        let audit = cluster.node_audit("cp1")?;
        let is_current = audit["status"]["observedGeneration"] == audit["metadata"]["generation"];
        (is_current && audit["status"]["phase"] == "Confirmed").then_some(())
    });
}

/// A genuine Revision and a forged one whose digests begin with the same ten digits, found in a million tries: the
/// NodeAudit names the genuine one, and the Secret of that name holds the forged one.
fn same_digits(content: &Value) -> Option<Forged> {
    const MARK: &str = "0123456789012345";
    let family = |delay: i64| {
        let mut content = content.clone();
        content["policy"] = json!(format!("{}# {MARK}\n", content["policy"].as_str().unwrap()));
        content["shutdownDelaySeconds"] = json!(delay);
        let typed: Content = serde_json::from_value(content.clone()).unwrap();
        let canonical = typed.canonical();
        let at = canonical.windows(MARK.len()).position(|window| window == MARK.as_bytes()).unwrap();
        let begun = Sha256::new_with_prefix(&canonical[..at]);
        let rest = canonical[at + MARK.len()..].to_vec();
        let digest = move |n: u64| begun.clone().chain_update(format!("{n:016}")).chain_update(&rest).finalize();
        let with = move |n: u64| {
            let mut content = content.clone();
            content["policy"] = json!(content["policy"].as_str().unwrap().replace(MARK, &format!("{n:016}")));
            content
        };
        (digest, with)
    };
    let ((digest_of, genuine), (other_digest_of, other)) = (family(2), family(5));
    let digits = |digest: &[u8]| digest[..5].to_vec();
    let known: std::collections::HashMap<Vec<u8>, u64> = (0..1 << 21).map(|n| (digits(&digest_of(n)), n)).collect();
    let (n, m) = (0..1 << 24)
        .find_map(|m| Some((*known.get(&digits(&other_digest_of(m)))?, m)))
        .expect("by the birthday paradox");
    let (genuine, other) = (typed("", &genuine(n)), typed("", &other(m)));
    assert!(genuine.id == other.id && genuine.digest != other.digest, "the same ten digits");
    Some(Forged { what: "the same ten digits with another content", ..Forged { digest: genuine.digest, ..other } })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn an_agent_writes_the_status_of_its_own_node(cluster: &Cluster) {
    let agent = "audit-operator-agent";
    let own = cluster.service_account_token(agent, &["--bound-object-kind=Node", "--bound-object-name=cp1"]);
    let unbound = cluster.service_account_token(agent, &[]);
    // The cluster has one node: an administrator writes the NodeAudit of another.
    let controller = cluster.service_account_token("audit-operator-controller", &[]);
    let other = json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp9"},
        "spec": {"setup": "nobody", "setupGeneration": 1}});
    cluster.kubectl_with_token(&controller, &["create", "-f", "-"], Some(&other)).unwrap();
    let status = |token: &str, node: &str| {
        let status = json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": node},
            "status": {"apiServerVersion": "v1.36.3"}});
        // As the agent does it, and without reading first.
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=attack",
            "--subresource=status",
            "--validate=false",
            "-f",
            "-",
        ];
        cluster.kubectl_with_token(token, &apply, Some(&status))
    };
    status(&own, "cp1").unwrap_or_else(|said| panic!("an agent reports its own node: {said}"));
    for (token, node, what) in [
        (&own, "cp9", "another node"),
        (&unbound, "cp1", "without a node claim"),
        (&unbound, "cp9", "without a node claim"),
    ] {
        let said = status(token, node).expect_err(what);
        assert!(said.contains("an agent can write the status and the Lease of its own node only"), "{what}: {said}");
    }
    let lease = |token: &str, name: &str| {
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "audit-system"}, "spec": {"holderIdentity": "cp1"}});
        let apply =
            ["apply", "--server-side", "--force-conflicts", "--field-manager=attack", "--validate=false", "-f", "-"];
        cluster.kubectl_with_token(token, &apply, Some(&lease))
    };
    lease(&own, "audit-operator-agent-cp1").unwrap_or_else(|said| panic!("an agent renews its own Lease: {said}"));
    for (token, name, what) in [
        (&own, "audit-operator", "the Lease of the controllers"),
        (&own, "audit-operator-agent-cp9", "the Lease of another node"),
        (&unbound, "audit-operator-agent-cp1", "without a node claim"),
    ] {
        let said = lease(token, name).expect_err(what);
        assert!(said.contains("an agent can write the status and the Lease of its own node only"), "{what}: {said}");
    }
    let spec = ["patch", "nodeaudit", "cp1", "--type=merge", "-p", r#"{"spec":{"mayChange":true}}"#];
    for (what, arguments) in [
        ("the spec of its own node", &spec[..]),
        ("an AuditSetup", &["delete", "auditsetup", "quickstart"]),
        ("a Secret of its own namespace", &["-n", "audit-system", "delete", "secret", "audit-receiver-token"]),
        ("Secrets of another namespace", &["-n", "kube-system", "get", "secrets"]),
        ("all Secrets of its own namespace", &["-n", "audit-system", "get", "secrets"]),
        ("the floor", &["-n", "audit-system", "delete", "configmap", "audit-operator-floor"]),
    ] {
        let said = cluster.kubectl_with_token(&own, arguments, None).expect_err(what);
        assert!(said.contains("Forbidden") || said.contains("forbidden"), "{what}: {said}");
    }
    cluster.kubectl(&["delete", "nodeaudit", "cp9", "--ignore-not-found"]);
    cluster.saw(
        "an agent's token writes the status of its own node, and nothing else; one without a node claim writes nothing",
    );
}

/// Not even an administrator does so by mistake: the way is to change the Setup, or to remove the admission policy
/// first.
fn nobody_else_assigns_a_revision(cluster: &Cluster) {
    let revision = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "revision-r-0123456789", "namespace": "audit-system"}});
    let credentials = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "any", "namespace": "audit-system"}, "type": "audit-operator.io/credentials"});
    let audit = json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp1"},
        "spec": {"setup": "quickstart", "setupGeneration": 1, "mayChange": true}});
    for (object, want) in [
        (revision, "can write Revisions"),
        (credentials, "can write Revisions"),
        (audit, "can write the spec of a NodeAudit"),
    ] {
        let said = cluster.refused(&object);
        assert!(said.contains(want), "{said}");
    }
    cluster.saw("nobody but the controller writes Revisions, credentials or the spec of a NodeAudit");
}

fn a_setup_below_the_floor_is_refused(cluster: &Cluster) {
    let process = cluster.api_server_pid();
    let log = |path: &str| json!([{"name": "l", "log": {"path": path}}]);
    let with = |pointer: &str, value: Value| super::edited(pointer, value);
    for (setup, want) in [
        (
            with("/spec/sinks", log("/etc/profile.d/audit.sh")),
            "outside the permitted log directories (/var/log/kubernetes)",
        ),
        (with("/spec/sinks", log("/var/log/kubernetes2/audit.log")), "outside the permitted log directories"),
        (
            with("/spec/policy", json!({"preset": "stig-literal", "acknowledge": ["SecretsAboveMetadata"]})),
            "SecretsAboveMetadata is not granted",
        ),
        (
            with("/spec/rollout", json!({"minReadySeconds": 3600, "confirmTimeoutSeconds": 60})),
            "no change could be confirmed",
        ),
    ] {
        let said = cluster.refused(&setup);
        assert!(said.contains(want), "{said}");
    }
    // CEL cannot judge this, so the controller does.
    let blind = json!({"preset": "metadata", "prepend": [{"level": "None", "resources": [{"group": "audit-operator.io", "resources": ["auditsetups"]}]}]});
    cluster.apply(&with("/spec/policy", blind));
    let begin = std::time::Instant::now();
    let message = cluster.wait("BelowFloor", MINUTE, || {
        let stalled = cluster.condition("Stalled")?;
        (stalled["reason"] == "BelowFloor").then(|| stalled["message"].to_string())
    });
    assert!(message.contains("spec.policy.prepend[0]") && message.contains("floor.rules[0]"), "{message}");
    cluster.saw(&format!("below the floor, reported after {:.1} s: {message}", begin.elapsed().as_secs_f64()));
    assert_eq!(cluster.api_server_pid(), process, "no node was touched");
    cluster.apply(&quickstart());
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", MINUTE);
}

fn a_floor_that_rises_is_rolled_out(cluster: &Cluster) {
    let policy = || -> Option<String> {
        let id = cluster.setup_field("/status/revision/current").as_str()?.to_string();
        cluster.node_file(&format!("/etc/kubernetes/audit/revisions/{id}/policy.yaml"))
    };
    let rule = json!({"level": "Metadata", "users": ["somebody-to-watch"]});
    let own = json!({"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"],
        "resources": [{"group": "audit-operator.io", "resources": ["auditsetups", "nodeaudits"]}], "omitStages": ["RequestReceived", "ResponseStarted"]});
    cluster.install_chart_with(&["--set-json", &format!("floor.rules={}", json!([own, rule]))]);
    let begin = std::time::Instant::now();
    cluster.wait("the new rule on the node", 4 * MINUTE, || policy()?.contains("somebody-to-watch").then_some(()));
    cluster.wait_condition("Ready", "True", 2 * MINUTE);
    cluster.saw(&format!("a rule of the floor was on the node {} s after helm upgrade", begin.elapsed().as_secs()));
}
