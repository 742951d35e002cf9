//! The whole chain on a real control plane: kubeadm, etcd, kube-apiserver, the kubelet and containerd of the testbed,
//! the chart installed by Helm.
//!
//! `make test-e2e` builds the image, brings the testbed up and runs this. The steps build on each other, so there is
//! one test. Each step prints its result. Nothing sleeps: every wait is for a condition, with a limit.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod attacks;
mod mounts;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testing::cluster::Cluster;

const MINUTE: Duration = Duration::from_secs(60);

fn quickstart() -> Value {
    serde_saphyr::from_str(include_str!("../../examples/quickstart.yaml")).unwrap()
}

#[test]
fn one_setup_makes_a_real_api_server_audit_and_going_away_leaves_no_trace() {
    let cluster = Cluster::connect("quickstart");
    let pristine = cluster.manifest();
    assert!(!pristine.contains("audit"), "the testbed starts with a manifest that kubeadm wrote");
    one_node_from_a_shell(&cluster);
    cluster.install_chart();

    applies_and_delivers(&cluster);
    attacks::a_stolen_credential_is_not_the_node(&cluster);
    a_changed_policy_restarts_once_and_the_same_again_not_at_all(&cluster);
    a_rotated_token_is_used_without_a_restart(&cluster);
    a_manifest_that_kubeadm_rewrote_is_corrected(&cluster);
    a_stopped_receiver_and_a_deleted_log_are_noticed(&cluster);
    what_cannot_work_is_not_rolled_out(&cluster);
    bad_input_is_refused_by_the_api_server(&cluster);
    bad_input_is_refused_by_the_controller(&cluster);
    a_node_that_cannot_be_changed_says_so(&cluster);
    a_revision_that_kills_the_api_server_is_rolled_back(&cluster);

    the_setup_goes_before_its_operator(&cluster, &pristine);
    cluster.install_chart();
    cluster.apply(&quickstart());
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
    the_operator_goes_before_its_setup(&cluster, &pristine);
}

fn the_setup_goes_before_its_operator(cluster: &Cluster, pristine: &str) {
    cluster.kubectl(&["delete", "auditsetup", "quickstart", "--timeout=180s"]);
    assert_eq!(cluster.manifest(), pristine, "the manifest is byte for byte what kubeadm wrote");
    assert!(!cluster.api_server_command().contains("audit"), "the API server has no audit flag");
    cluster.saw("deleted: the original manifest is back");
    cluster.uninstall_chart();
    cluster.wait("our state gone", MINUTE, || cluster.left_behind().is_empty().then_some(()));
    cluster.saw("uninstalled: nothing is left on the node but the log");
}

/// The chart is uninstalled before the Setup: the node continues to audit, and `restore` on the node ends that.
fn the_operator_goes_before_its_setup(cluster: &Cluster, pristine: &str) {
    let (manifest, process) = (cluster.manifest(), cluster.api_server_pid());
    cluster.uninstall_chart();
    cluster.kubectl(&["delete", "auditsetup", "quickstart", "--wait=false"]);
    let audit_id = cluster.request_with_audit_id("without-an-operator");
    cluster.wait("the event in the log file", MINUTE, || cluster.log().contains(&audit_id).then_some(()));
    assert_eq!((cluster.manifest(), cluster.api_server_pid()), (manifest, process));
    assert!(cluster.setup_field("/metadata/deletionTimestamp").is_string(), "it waits for the operator");

    // Its terminal is closed meanwhile.
    let answer = cluster.hang_up_during(&["restore", "--host-root", "/"]);
    assert!(answer.contains("Confirmed: kube-apiserver runs with the original manifest"), "{answer}");
    assert_eq!(cluster.manifest(), pristine, "the manifest is byte for byte what kubeadm wrote");
    assert_eq!(cluster.left_behind(), [""; 0], "what is left on the node");
    assert!(!cluster.disk().join("etc/kubernetes/audit").exists(), "nor is the directory");
    let (code, again) = cluster.program(&["restore", "--host-root", "/"]);
    assert!(code == 0 && again.contains("Nothing to do"), "{code}: {again}");
    assert_eq!(cluster.left_behind(), [""; 0], "what is left on the node");
    cluster.kubectl(&[
        "patch",
        "auditsetup",
        "quickstart",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    assert!(cluster.is_gone());
    cluster.saw("uninstalled before the Setup was deleted: restore on the node leaves nothing there but the log");
}

/// `audit-operator apply`, `status` and `restore` on the node itself, without an operator in the cluster.
fn one_node_from_a_shell(cluster: &Cluster) {
    let (setup, swift) = ("/root/log-only.yaml", "/root/swift.yaml");
    let log_only = include_str!("../../examples/log-only.yaml");
    cluster.write_node_file(setup, log_only);
    cluster.write_node_file(
        swift,
        &format!("{log_only}  rollout: {{method: Swift}}\n").replace("preset: metadata", "preset: gce"),
    );
    let (code, dry) = cluster.program(&["apply", "-f", setup, "--host-root", "/", "--dry-run"]);
    assert!(code == 1 && dry.contains("guard: Replace the manifest"), "{code}: {dry}");
    for (file, what) in [(setup, "Replace"), (swift, "Swift")] {
        let begin = Instant::now();
        let (code, answer) = cluster.program(&["apply", "-f", file, "--host-root", "/"]);
        assert!(code == 0 && answer.contains("Confirmed: kube-apiserver runs with revision"), "{code}: {answer}");
        cluster.saw(&format!("apply from a shell, {what}: confirmed after {} s", begin.elapsed().as_secs()));
    }
    let (code, again) = cluster.program(&["apply", "-f", swift, "--host-root", "/"]);
    assert!(code == 0 && again.contains("Nothing to do"), "{code}: {again}");
    let (code, status) = cluster.program(&["status", "--host-root", "/"]);
    assert!(code == 0 && status.contains("Confirmed:  revision"), "{code}: {status}");
    let audit_id = cluster.request_with_audit_id("from-a-shell");
    cluster.wait("the event in the log file", MINUTE, || cluster.log().contains(&audit_id).then_some(()));
}

/// A second manifest of the same pod: status reports it, and the change waits until it is removed.
fn a_node_that_cannot_be_changed_says_so(cluster: &Cluster) {
    let (manifest, process) = (cluster.manifest(), cluster.api_server_pid());
    let wanted =
        edited("/spec/policy", json!({"preset": "metadata", "append": [{"level": "Metadata", "users": ["x"]}]}));
    let twin = "/etc/kubernetes/manifests/old.bak";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: kube-apiserver, namespace: kube-system}\n";
    // Otherwise the kubelet would run the second file in place of the first.
    cluster.with_kubelet_stopped(|| {
        cluster.write_node_file(twin, pod);
        cluster.apply(&wanted);
        let message = cluster.wait("a node that names the second file", MINUTE, || {
            let node = cluster.node_audit("cp1")?;
            (node["status"]["reason"] == "DuplicatePod").then(|| node["status"]["message"].to_string())
        });
        assert!(message.contains("old.bak"), "{message}");
        std::fs::remove_file(cluster.disk().join(&twin[1..])).unwrap();
        assert_eq!((cluster.manifest(), cluster.api_server_pid()), (manifest.clone(), process.clone()));
    });
    cluster.wait_condition("Ready", "True", 4 * MINUTE);
    cluster.saw("a second manifest of the same pod stops the change, and the change continues when it is removed");
    cluster.apply(&quickstart());
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
}

fn applies_and_delivers(cluster: &Cluster) {
    cluster.apply(&quickstart());
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
    cluster.wait_condition("SinksHealthy", "True", 2 * MINUTE);
    let audit_id = cluster.request_with_audit_id("first-light");
    cluster.wait("the event in the log file", MINUTE, || cluster.log().contains(&audit_id).then_some(()));
    cluster.wait("the event at the receiver", MINUTE, || cluster.receiver_log().contains(&audit_id).then_some(()));
    cluster.saw("an event of a request is in the log and at the receiver");
}

fn a_changed_policy_restarts_once_and_the_same_again_not_at_all(cluster: &Cluster) {
    let process = cluster.api_server_pid();
    let revision = cluster.setup_field("/status/revision/target");
    let mut changed = quickstart();
    changed["spec"]["policy"] = json!({"preset": "metadata"});
    cluster.apply(&changed);
    cluster.wait("another revision", MINUTE, || {
        (cluster.setup_field("/status/revision/target") != revision).then_some(())
    });
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
    let after = cluster.api_server_pid();
    assert_ne!(process, after, "a changed policy restarts the API server");
    cluster.apply(&changed);
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", MINUTE);
    assert_eq!(cluster.api_server_pid(), after, "the same again restarts nothing");
    cluster.saw("a changed policy restarted the API server once, the same again did not");
}

fn a_rotated_token_is_used_without_a_restart(cluster: &Cluster) {
    let process = cluster.api_server_pid();
    let token = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "audit-receiver-token", "namespace": "audit-system"},
        "stringData": {"token": "another-token-for-the-receiver"}});
    let begin = Instant::now();
    cluster.apply(&token);
    cluster.wait("the new token on the node", MINUTE, || {
        (cluster.token()?.trim() == "another-token-for-the-receiver").then_some(())
    });
    let audit_id = cluster.request_with_audit_id("rotated");
    cluster.wait("an event sent with the new token", 2 * MINUTE, || {
        cluster.receiver_log().contains(&audit_id).then_some(())
    });
    assert!(begin.elapsed() < 3 * MINUTE);
    assert_eq!(cluster.api_server_pid(), process, "a rotated token restarts nothing");
    cluster.saw(&format!("the new token was in use {} s after the Secret changed", begin.elapsed().as_secs()));
}

fn a_manifest_that_kubeadm_rewrote_is_corrected(cluster: &Cluster) {
    let ours = cluster.manifest();
    let begin = Instant::now();
    let kubeadm = ["kubeadm", "init", "phase", "control-plane", "apiserver", "--config", "/root/kubeadm.yaml"];
    cluster.testbed(&[&["exec", "cp1"], &kubeadm[..]].concat());
    assert!(!cluster.manifest().contains("audit"), "kubeadm writes what it would without us");
    let message = cluster.wait("the drift in status", 2 * MINUTE, || {
        let node = cluster.node_audit("cp1")?;
        (node["status"]["phase"] == "Drifted").then(|| node["status"]["message"].to_string())
    });
    cluster.saw(&format!("kubeadm rewrote the manifest: {message}"));
    cluster.wait("our settings in the manifest again", 2 * MINUTE, || (cluster.manifest() == ours).then_some(()));
    cluster.saw(&format!(
        "our settings were in the manifest again {} s after kubeadm was done",
        begin.elapsed().as_secs()
    ));
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", 2 * MINUTE);
}

/// Waits until this is true of a sink. A batch that was given up keeps SinksHealthy False for ten minutes, and it must
/// then say so; whether events arrive is another fact.
fn wait_sink(cluster: &Cluster, name: &str, delivering: &str, limit: Duration) -> Value {
    let sink = cluster.wait(&format!("{name} delivering={delivering}"), limit, || {
        let sinks = cluster.setup_field("/status/sinks");
        let sink = sinks.as_array()?.iter().find(|sink| sink["name"] == name)?.clone();
        (sink["delivering"] == delivering).then_some(sink)
    });
    let has_lost = sink["complete"] == "False";
    let is_counted = sink["lostAt"].is_string() && sink["lostEvents"].as_i64().unwrap() > 0;
    assert!(!has_lost || is_counted, "{sink}");
    if delivering == "True" {
        assert_eq!(sink["reason"], if has_lost { "EventsLost" } else { "Healthy" }, "{sink}");
    }
    sink
}

fn a_stopped_receiver_and_a_deleted_log_are_noticed(cluster: &Cluster) {
    wait_sink(cluster, "local", "True", 3 * MINUTE);
    wait_sink(cluster, "receiver", "True", 3 * MINUTE);
    let receiver = |replicas: &str| {
        cluster.kubectl(&["-n", "audit-system", "scale", "deploy/audit-receiver", &format!("--replicas={replicas}")])
    };
    receiver("0");
    assert_eq!(wait_sink(cluster, "receiver", "False", 2 * MINUTE)["reason"], "NoEndpoints");
    cluster.wait_condition("SinksHealthy", "False", MINUTE);
    let message = cluster.wait("a message that names sink and node", MINUTE, || {
        let message = cluster.condition("SinksHealthy")?["message"].as_str()?.to_string();
        (message.contains("receiver") && message.contains("cp1")).then_some(message)
    });
    cluster.saw(&format!("receiver stopped: {message}"));
    receiver("1");
    wait_sink(cluster, "receiver", "True", 2 * MINUTE);
    std::fs::remove_file(cluster.disk().join("var/log/kubernetes/audit/audit.log")).unwrap();
    assert_eq!(wait_sink(cluster, "local", "False", 2 * MINUTE)["reason"], "LogFileMissing");
    cluster.wait_condition("SinksHealthy", "False", MINUTE);
    let message = cluster.condition("SinksHealthy").unwrap()["message"].as_str().unwrap().to_string();
    assert!(message.contains("local"), "{message}");
    cluster.saw(&format!("log deleted: {message}"));
}

fn what_cannot_work_is_not_rolled_out(cluster: &Cluster) {
    let process = cluster.api_server_pid();
    let mut without_ca = quickstart();
    without_ca["spec"]["sinks"][1]["webhook"]["tls"]["caSecretRef"]["name"] = json!("no-such-secret");
    cluster.apply(&without_ca);
    cluster.wait_condition("Stalled", "True", MINUTE);
    let stalled = cluster.condition("Stalled").unwrap();
    assert_eq!(stalled["reason"], "ReferenceNotFound", "{stalled}");
    assert!(stalled["message"].as_str().unwrap().contains("no-such-secret"), "{stalled}");
    assert_eq!(cluster.api_server_pid(), process);
    cluster.saw(&format!("missing CA Secret: {}", stalled["message"]));

    let mut unresolvable = quickstart();
    unresolvable["spec"]["sinks"][1]["webhook"] = json!({"url": "https://no-such-host.invalid/audit"});
    cluster.apply(&unresolvable);
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
    assert_eq!(wait_sink(cluster, "receiver", "False", 2 * MINUTE)["reason"], "ResolveFailed");
    cluster.wait_condition("SinksHealthy", "False", MINUTE);
    cluster.saw("a host that does not resolve is rolled out, and reported");
    cluster.apply(&quickstart());
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
}

/// Every rule of the CRD: an edit of the quickstart that breaks it, and a part of the answer.
fn bad_input_is_refused_by_the_api_server(cluster: &Cluster) {
    let log = json!({"name": "other", "log": {"path": "/var/log/other/audit.log"}});
    let webhook = |field: &str, value: Value| json!([{"name": "w", "webhook": {field: value}}]);
    let cases: Vec<(&str, &str, Value, &str)> = vec![
        ("unknown preset", "/spec/policy", json!({"preset": "nsa-2010"}), "preset"),
        ("zero rules", "/spec/policy", json!({"rules": []}), "rules"),
        ("bad level", "/spec/policy", json!({"rules": [{"level": "Everything"}]}), "level"),
        ("relative log path", "/spec/sinks/0/log/path", json!("audit.log"), "absolute path"),
        ("negative rotation", "/spec/sinks/0/log/maxBackups", json!(-1), "maxBackups"),
        ("two log sinks", "/spec/sinks/1", log, "at most one log sink"),
        ("url and service", "/spec/sinks/1/webhook/url", json!("https://example.test/"), "exactly one of url"),
        ("duplicate names", "/spec/sinks/1/name", json!("local"), "Duplicate"),
        (
            "query",
            "/spec/sinks",
            webhook("url", json!("https://example.test/a?token=x")),
            "without user, query and fragment",
        ),
        (
            "fragment",
            "/spec/sinks",
            webhook("url", json!("https://example.test/a#b")),
            "without user, query and fragment",
        ),
        ("no scheme", "/spec/sinks", webhook("url", json!("example.test:8443")), "https://host"),
        ("no policy", "/spec/policy", json!({}), "exactly one of"),
        (
            "two webhook sinks",
            "/spec/sinks",
            json!([webhook("url", json!("https://a.test/"))[0], {"name": "v", "webhook": {"url": "https://b.test/"}}]),
            "at most one webhook sink",
        ),
        ("no sinks", "/spec/sinks", json!([]), "sinks"),
    ];
    for (name, pointer, value, expected) in cases {
        let setup = edited(pointer, value);
        let answer = cluster.refused(&setup);
        assert!(answer.contains(expected), "{name}: {answer}");
    }
    cluster.saw("bad input is refused by kubectl apply");
}

/// Only the controller can judge these: status reports them, and no node is touched.
fn bad_input_is_refused_by_the_controller(cluster: &Cluster) {
    let (manifest, process) = (cluster.manifest(), cluster.api_server_pid());
    for object in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless", "namespace": "audit-system"},
            "spec": {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 443}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "external", "namespace": "audit-system"},
            "spec": {"type": "ExternalName", "externalName": "example.test", "ports": [{"port": 443}]}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "policies", "namespace": "audit-system"},
            "data": {"broken.yaml": "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: Metadata\n  verb: [get]\n"}}),
    ] {
        cluster.apply(&object);
    }
    let service = "/spec/sinks/1/webhook/service";
    let webhook = "/spec/sinks/1/webhook";
    let cases: Vec<(&str, Value, &str)> = vec![
        (service, json!({"namespace": "audit-system", "name": "headless", "port": 443}), "headless"),
        (service, json!({"namespace": "audit-system", "name": "external", "port": 443}), "ExternalName"),
        (service, json!({"namespace": "audit-system", "name": "audit-receiver", "port": 4444}), "has no TCP port 4444"),
        (service, json!({"namespace": "audit-system", "name": "nobody", "port": 443}), "does not exist"),
        (
            webhook,
            json!({"url": "http://10.0.0.1/", "auth": {"bearerTokenSecretRef": {"name": "audit-receiver-token"}}}),
            "http",
        ),
        (
            webhook,
            json!({"url": "https://10.0.0.1/", "delivery": {"truncate": {"maxEventBytes": 8192, "maxBatchBytes": 4096}}}),
            "maxBatchBytes",
        ),
        ("/spec/policy", json!({"configMapRef": {"name": "nowhere", "key": "policy.yaml"}}), "has no ConfigMap"),
        ("/spec/policy", json!({"configMapRef": {"name": "policies", "key": "missing.yaml"}}), "missing.yaml"),
        (
            "/spec/policy",
            json!({"configMapRef": {"name": "policies", "key": "broken.yaml"}}),
            "line 5, column 3: unknown field",
        ),
        ("/spec/sinks/0/log/path", json!("/etc/kubernetes/manifests/audit.log"), "manifests"),
    ];
    for (pointer, value, expected) in cases {
        let setup = edited(pointer, value);
        let answer = match cluster.try_refused(&setup) {
            Some(answer) => answer,
            None => {
                cluster.apply(&setup);
                cluster.wait(&format!("a refusal that names {expected}"), MINUTE, || {
                    let stalled = cluster.condition("Stalled")?;
                    (stalled["status"] == "True").then(|| stalled["message"].to_string())
                })
            }
        };
        assert!(answer.contains(expected), "{pointer}: want {expected}: {answer}");
    }
    cluster.apply(&quickstart());
    cluster.wait_generation();
    cluster.wait_condition("Ready", "True", MINUTE);
    assert_eq!((cluster.manifest(), cluster.api_server_pid()), (manifest, process), "nothing was changed on the node");
    cluster.saw("what only the controller can judge is refused in status, and no node is touched");
}

/// The quickstart with another value at one place.
fn edited(pointer: &str, value: Value) -> Value {
    let mut setup = quickstart();
    match setup.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            setup.pointer_mut(parent).unwrap()[key] = value;
        }
    }
    setup
}

fn a_revision_that_kills_the_api_server_is_rolled_back(cluster: &Cluster) {
    let before = cluster.manifest();
    let begin = Instant::now();
    // Our reader accepts its serial number, and Go's does not (crypto/x509, since Go 1.23).
    let name = "negative-serial";
    cluster
        .apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "audit-system"},
        "stringData": {"ca.crt": include_str!("../faults/negative_serial.pem")}}));
    cluster.apply(&edited(
        "/spec/sinks/1/webhook",
        json!({"url": "https://127.0.0.1:9/", "tls": {"caSecretRef": {"name": name}}}),
    ));
    let stalled = cluster.wait("Stalled", 5 * MINUTE, || {
        let stalled = cluster.condition("Stalled")?;
        (stalled["status"] == "True" && stalled["reason"] == "RolledBack").then(|| stalled["message"].to_string())
    });
    assert!(
        stalled.contains("cp1") && stalled.contains("negative serial number"),
        "the message has the node and the last words: {stalled}"
    );
    assert_eq!(cluster.manifest(), before);
    cluster.saw(&format!(
        "a CA that kube-apiserver cannot read was rolled back after {} s: {stalled}",
        begin.elapsed().as_secs()
    ));
    cluster.apply(&quickstart());
    cluster.wait_condition("Ready", "True", 3 * MINUTE);
}
