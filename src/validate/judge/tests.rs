//! Well-formed Revisions that a node refuses.

use serde_json::{Value, json};

use super::*;
use crate::api::AuditSetup;
use crate::render::render;
use crate::validate::{Capabilities, KubernetesVersion, References, validate};

/// As the controller renders it under the default floor.
fn content(spec: &str) -> Value {
    let setup = AuditSetup::new("cluster", serde_saphyr::from_str(spec).unwrap());
    let valid =
        validate(&setup, &References::default(), Capabilities::of(KubernetesVersion::new(36)), &Floor::default())
            .unwrap();
    serde_json::to_value(render(&valid).revision.content).unwrap()
}

fn both() -> Value {
    content(
        "{policy: {preset: gce}, sinks: [{name: l, log: {}}, {name: w, webhook: {url: 'https://siem.example.com/'}}]}",
    )
}

fn judged(content: &Value, floor: &Floor) -> Vec<String> {
    let content: Content = serde_json::from_value(content.clone()).unwrap();
    judge(&content, floor).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_controller_renders_is_accepted() {
    for preset in ["metadata", "gce", "cis", "nsa", "stig-tailored", "openshift-default", "falco", "quiet"] {
        let content = content(&format!("{{policy: {{preset: {preset}}}, sinks: [{{name: l, log: {{}}}}]}}"));
        assert_eq!(judged(&content, &Floor::default()), Vec::<String>::new(), "{preset}");
    }
    assert_eq!(judged(&both(), &Floor::default()), Vec::<String>::new());
}

#[test]
fn whatever_no_controller_renders_is_refused_by_the_field_that_is_wrong() {
    let policy = |rules: &str| json!(format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}"));
    let rendered = both()["policy"].as_str().unwrap().to_string();
    let omitting =
        |stage: &str| json!(rendered.replacen("omitStages: [RequestReceived]", &format!("omitStages: [{stage}]"), 1));
    for (pointer, value, want) in [
        ("/log/path", json!("/etc/cron.d/audit"), "log.path: \"/etc/cron.d/audit\" is outside"),
        ("/log/path", json!("/"), "log.path: \"/\" is a directory"),
        ("/log/path", json!("/var/log/kubernetes/../../../etc/shadow"), "log.path: "),
        ("/log/path", json!("/var/log/kubernetes/$(X)/a"), "log.path: "),
        ("/log/maxBackups", json!(-1), "log.maxBackups: must be from 0 to 100000, not -1"),
        ("/log/maxSizeMegabytes", json!(0), "log.maxSizeMegabytes: must be from 1 to 1048576, not 0"),
        ("/log/delivery/mode", json!("BlockingStrict"), "log.delivery.mode: BlockingStrict"),
        ("/policy", policy("- level: None\n"), "policy: does not begin with the rules of the floor"),
        ("/policy", json!("nonsense"), "policy: kube-apiserver would not start with it"),
        ("/policy", omitting("ResponseComplete"), "policy.omitStages: ResponseComplete is omitted from all rules"),
        (
            "/policy",
            json!(format!("{rendered}omitStages: []\n")),
            "policy: kube-apiserver would not start with it, or would read it differently",
        ),
        ("/policy", json!(" ".repeat(1 << 20)), "policy: has more than 491520 bytes"),
        ("/webhook/service", json!("ns/name"), "webhook.service: must have an IP address as the host of the URL"),
        ("/webhook/url", json!("http://169.254.169.254/"), "webhook.url: its host cannot be a sink"),
        ("/webhook/url", json!("https://127.0.0.1:2379/"), "webhook.url: its host cannot be a sink"),
        ("/webhook/url", json!("https://other.example.com/"), "webhook.credentials: are for another host"),
        ("/webhook/proxy", json!("http://169.254.169.254"), "webhook.proxy: 169.254.169.254:80 cannot be a proxy"),
        ("/webhook/proxy", json!("socks5://[::1]:10250"), "webhook.proxy: [::1]:10250 cannot be a proxy"),
        ("/webhook/delivery/mode", json!("Blocking"), "webhook.delivery.mode: Blocking"),
        ("/webhook/tls", json!({"serverName": "a b"}), "webhook.tls.serverName: "),
        ("/webhook/tls", json!({"authorities": {"Revision": "x"}}), "webhook.tls.authorities: "),
        ("/webhook/auth", json!({"Basic": {"username": "a\nb", "password": "c"}}), "webhook.auth.username: "),
        ("/shutdownDelaySeconds", json!(61), "shutdownDelaySeconds: must be from 0 to 60, not 61"),
        ("/drainWatchesSeconds", json!(-1), "drainWatchesSeconds: must be from 0 to 60, not -1"),
    ] {
        let mut content = both();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        content.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"))[name] = value.clone();
        let problems = judged(&content, &Floor::default());
        assert!(
            problems.iter().any(|problem| problem.starts_with(want)),
            "{pointer} {value}\nwant {want}\ngot  {problems:?}"
        );
    }
}

#[test]
fn what_a_revision_cannot_say_is_no_revision() {
    for (pointer, value) in [
        ("/files", json!({"../../../manifests/evil.yaml": "x"})),
        ("/flags", json!({"token-auth-file": "x"})),
        ("/logDirectory", json!("/")),
        ("/webhook/exec", json!({"command": "sh"})),
        ("/webhook/credentials", json!("../../../pki")),
        ("/webhook/credentials", json!("x")),
        ("/webhook/url", json!("file:///etc/shadow")),
        ("/webhook/url", json!("https://a/\"\n  exec: {}")),
        ("/log/extra", json!(1)),
    ] {
        let mut content = both();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        content.pointer_mut(parent).unwrap()[name] = value.clone();
        assert!(serde_json::from_value::<Content>(content).is_err(), "{pointer} {value}");
    }
}

#[test]
fn a_floor_that_rose_refuses_what_it_accepted() {
    let floor =
        Floor::read("destinations: [other.example.com]\nlogDirectories: [/data/audit]\nrules: [{level: Metadata}]\n")
            .unwrap();
    let problems = judged(&both(), &floor).join("\n");
    for want in ["policy: does not begin", "log.path: ", "webhook.url: its host is not a permitted destination"] {
        assert!(problems.contains(want), "{problems}");
    }
}

#[test]
fn a_credential_that_kube_apiserver_could_not_read_is_not_put_on_a_node() {
    let pair = || {
        let made = rcgen::generate_simple_self_signed(["a".to_string()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    };
    let ((certificate, key), (_, other)) = (pair(), pair());
    let path = |file: &str| {
        credential::Path::new("w-00000000".to_string().try_into().unwrap(), file).unwrap_or_else(|| panic!("{file}"))
    };
    for (files, is_good) in [
        (vec![], true),
        (vec![("token", &b"abc"[..])], true),
        (vec![("token", &b""[..])], false),
        (vec![("token", &b"a\nb"[..])], false),
        (vec![("ca.crt", &certificate[..])], true),
        (vec![("ca.crt", &b"garbage"[..])], false),
        (vec![("tls.crt", &certificate[..]), ("tls.key", &key[..])], true),
        (vec![("tls.crt", &certificate[..]), ("tls.key", &other[..])], false),
        (vec![("tls.key", &key[..])], false),
    ] {
        let named: Vec<_> = files.iter().map(|(file, _)| *file).collect();
        let files = files.iter().map(|(file, bytes)| (path(file), bytes.to_vec())).collect();
        assert_eq!(judge_credentials(&files).is_ok(), is_good, "{named:?}: {:?}", judge_credentials(&files));
    }
}
