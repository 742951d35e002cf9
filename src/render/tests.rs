//! Which changes make a new Revision, where each part of a Setup ends up, and the table of flags.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;

use super::*;
use crate::api::AuditSetup;
use crate::floor::Floor;
use crate::health::target::{Backend, targets};
use crate::revision::{DELAY_FLAG, DRAIN_FLAG};
use crate::validate::{Capabilities, KubernetesVersion, References, validate};

fn pem() -> Vec<u8> {
    rcgen::generate_simple_self_signed(["a".to_string()]).unwrap().cert.pem().into_bytes()
}

struct World {
    references: References,
    minor: u32,
}

impl World {
    fn new(minor: u32) -> Self {
        let mut references = References::default();
        let service: Service = serde_saphyr::from_str("{spec: {clusterIP: 10.96.0.7, ports: [{port: 8443}]}}").unwrap();
        references.services.insert(("ns".into(), "sink".into()), service);
        let mut world = Self { references, minor };
        world.secret("ca", "ca.crt", &pem());
        world.secret("token", "token", b"abc");
        world.secret("basic", "username", b"me");
        world.secret("basic", "password", b"one");
        world
    }

    fn secret(&mut self, name: &str, key: &str, value: &[u8]) {
        self.references.secrets.entry(name.into()).or_default().data.insert(key.into(), value.to_vec());
    }

    fn render(&self, spec: &str) -> Rendered {
        let setup = AuditSetup::new("cluster", serde_saphyr::from_str(spec).unwrap());
        let floor = Floor::read("grantedRisks: [BlockingWebhook, UnboundedLog]").unwrap();
        render(
            &validate(&setup, &self.references, Capabilities::of(KubernetesVersion::new(self.minor)), &floor).unwrap(),
        )
    }
}

/// A file of the only directory of credentials.
fn credential<'a>(rendered: &'a Rendered, file: &str) -> Option<&'a [u8]> {
    let mut files =
        rendered.credentials.iter().filter(|(path, _)| path.on_node().ends_with(&format!("/w-2cdc7443/{file}")));
    files.next().map(|(_, content)| content.as_slice())
}

const LOG: &str = "{policy: {preset: metadata}, sinks: [{name: local, log: {}}]}";
const WEBHOOK: &str = "{policy: {preset: metadata}, sinks: [{name: w, webhook: {service: {namespace: ns, name: sink, port: 8443}, \
                       tls: {caSecretRef: {name: ca}}, auth: {bearerTokenSecretRef: {name: token}}}}]}";

#[test]
fn the_id_of_a_known_setup_does_not_change() {
    // A change here restarts every kube-apiserver at the next upgrade of the operator. It must be meant.
    assert_eq!(World::new(36).render(LOG).revision.id.as_str(), "r-ddd8532bfd");
}

#[test]
fn what_kube_apiserver_does_not_see_makes_no_new_revision() {
    let world = World::new(36);
    let id = |spec: &str| world.render(spec).revision.id;
    let base = id(LOG);
    for same in [
        "{sinks: [{log: {}, name: local}], policy: {preset: metadata}}",
        "{policy: {preset: metadata}, sinks: [{name: other, log: {maxAgeDays: 30}}]}",
        "{policy: {preset: metadata, acknowledge: [BlockingWebhook], omitStages: [RequestReceived, RequestReceived]}, sinks: [{name: local, log: {}}]}",
        "{nodeSelector: {b: '1', a: '2'}, policy: {preset: metadata}, sinks: [{name: local, log: {}}], rollout: {minReadySeconds: 5}}",
    ] {
        assert_eq!(id(same), base, "{same}");
    }
    for other in [
        "{policy: {preset: gce}, sinks: [{name: local, log: {}}]}",
        "{policy: {preset: metadata}, sinks: [{name: local, log: {maxAgeDays: 31}}]}",
        "{policy: {preset: metadata, canaryRule: false}, sinks: [{name: local, log: {}}]}",
        "{policy: {preset: metadata}, sinks: [{name: local, log: {}}], rollout: {drainWatchesSeconds: 4}}",
        "{policy: {preset: metadata}, sinks: [{name: local, log: {}}], rollout: {shutdownDelaySeconds: 0}}",
    ] {
        assert_ne!(id(other), base, "{other}");
    }
}

#[test]
fn credentials_that_are_read_again_make_no_new_revision() {
    for (minor, ca_is_read_again) in [(36, true), (35, false)] {
        let mut world = World::new(minor);
        let before = world.render(WEBHOOK);
        world.secret("token", "token", b"def\n");
        let token = world.render(WEBHOOK);
        assert_eq!(token.revision, before.revision);
        assert_eq!(credential(&token, "token").unwrap(), b"def");
        world.secret("ca", "ca.crt", &pem());
        let ca = world.render(WEBHOOK);
        assert_eq!(ca.revision == before.revision, ca_is_read_again, "1.{minor}");
        assert_eq!(credential(&ca, "ca.crt").is_some(), ca_is_read_again);
        assert_eq!(ca.revision.files().contains_key("ca.crt"), !ca_is_read_again);
        // The agent verifies with the file that kube-apiserver reads.
        let Backend::Webhook(target) = targets(&ca.revision, &ca.sinks)[0].backend.clone() else { panic!() };
        assert_eq!((target.url.authority().as_str(), target.max_wait.as_secs()), ("10.96.0.7:8443", 30));
        assert_eq!(target.shown, "the Service ns/sink");
        let tls = target.tls.unwrap();
        assert_eq!(tls.server_name, "sink.ns.svc");
        let want = if ca_is_read_again {
            "/etc/kubernetes/audit/credentials/w-2cdc7443/ca.crt".to_string()
        } else {
            format!("{}/ca.crt", ca.revision.directory())
        };
        assert_eq!(tls.ca_file, Some(want));
    }
}

#[test]
fn what_is_read_once_makes_a_new_revision() {
    let basic = WEBHOOK.replace("bearerTokenSecretRef: {name: token}", "basicAuthSecretRef: {name: basic}");
    let mut world = World::new(36);
    let before = world.render(&basic);
    assert!(before.revision.content.is_kubeconfig_secret());
    world.secret("basic", "password", b"two");
    assert_ne!(world.render(&basic).revision.id, before.revision.id);
    let service = world.references.services.get_mut(&("ns".into(), "sink".into())).unwrap();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.8".into());
    let moved = world.render(&basic);
    assert!(moved.revision.files()["webhook.kubeconfig"].contains("https://10.96.0.8:8443/"));
}

#[test]
fn the_written_policy_is_the_parts_in_their_order() {
    let spec = "{policy: {preset: metadata, prepend: [{level: None, users: ['yes']}], append: [{level: Metadata, verbs: [get]}], omitStages: [Panic, RequestReceived]}, sinks: [{name: l, log: {}}]}";
    let rendered = World::new(36).render(spec);
    let policy = audit_policy::read(&rendered.revision.files()["policy.yaml"]).unwrap();
    let preset = audit_policy::preset(crate::api::Preset::Metadata).policy.rules;
    assert_eq!(policy.rules.len(), preset.len() + 4);
    assert_eq!(policy.rules[..1], Floor::default().rules);
    assert_eq!(policy.rules[1].resources[0].resources, ["nodeaudits"]);
    assert_eq!(policy.rules[2].users, ["yes"]);
    assert_eq!(policy.rules[3..3 + preset.len()], preset);
    assert_eq!(policy.rules.last().unwrap().verbs, ["get"]);
    assert_eq!(policy.omit_stages, [crate::api::Stage::RequestReceived, crate::api::Stage::Panic]);
    let PolicyStatus { rules, preset, findings } = rendered.policy;
    assert_eq!((rules, preset.as_deref()), (policy.rules.len() as i64, Some("metadata-2026.1")));
    // The preset ends with a rule for everything, which the operator says.
    assert_eq!((findings.len(), findings[0].field.as_str()), (1, "spec.policy.append[0]"));
}

#[test]
fn the_kubeconfig_is_one_that_a_client_reads() {
    let rendered = World::new(36).render(WEBHOOK);
    let config = kube::config::Kubeconfig::from_yaml(&rendered.revision.files()["webhook.kubeconfig"]).unwrap();
    assert_eq!(config.current_context.as_deref(), Some(config.contexts[0].name.as_str()));
    let context = config.contexts[0].context.as_ref().unwrap();
    assert_eq!(context.cluster, config.clusters[0].name);
    assert_eq!(context.user.as_deref(), Some(config.auth_infos[0].name.as_str()));
    let cluster = config.clusters[0].cluster.as_ref().unwrap();
    assert_eq!(cluster.server.as_deref(), Some("https://10.96.0.7:8443/"));
    assert_eq!(cluster.tls_server_name.as_deref(), Some("sink.ns.svc"));
    let user = config.auth_infos[0].auth_info.as_ref().unwrap();
    assert_eq!(user.token_file.as_deref(), Some("/etc/kubernetes/audit/credentials/w-2cdc7443/token"));
}

#[test]
fn a_proxy_is_in_the_kubeconfig_and_makes_a_new_revision() {
    let world = World::new(36);
    let with = WEBHOOK.replace("port: 8443}, ", "port: 8443}, proxyURL: 'HTTP://[fd00::9]', ");
    let rendered = world.render(&with);
    let config = kube::config::Kubeconfig::from_yaml(&rendered.revision.files()["webhook.kubeconfig"]).unwrap();
    assert_eq!(config.clusters[0].cluster.as_ref().unwrap().proxy_url.as_deref(), Some("http://[fd00::9]:80"));
    let without = world.render(WEBHOOK);
    assert_ne!(rendered.revision.id, without.revision.id);
    // Stored Revisions of before have no such field.
    assert!(!serde_json::to_string(&without.revision.content).unwrap().contains("proxy"));
    assert_eq!(rendered.credentials, without.credentials);
}

#[test]
fn a_service_of_ipv6_or_of_both_families_is_its_first_address() {
    let mut world = World::new(36);
    for (addresses, server) in [
        ("clusterIP: 'fd00::7', clusterIPs: ['fd00::7']", "https://[fd00::7]:8443/"),
        ("clusterIP: 'fd00::7', clusterIPs: ['fd00::7', 10.96.0.7]", "https://[fd00::7]:8443/"),
        ("clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, 'fd00::7']", "https://10.96.0.7:8443/"),
    ] {
        let service = serde_saphyr::from_str(&format!("{{spec: {{{addresses}, ports: [{{port: 8443}}]}}}}")).unwrap();
        world.references.services.insert(("ns".into(), "sink".into()), service);
        let rendered = world.render(WEBHOOK);
        let config = kube::config::Kubeconfig::from_yaml(&rendered.revision.files()["webhook.kubeconfig"]).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        let found = (cluster.server.as_deref(), cluster.tls_server_name.as_deref());
        assert_eq!(found, (Some(server), Some("sink.ns.svc")), "{addresses}");
    }
}

#[test]
fn a_service_that_is_made_again_is_followed() {
    let mut world = World::new(36);
    let before = world.render(WEBHOOK);
    let service = ("ns".to_string(), "sink".to_string());
    let old = world.references.services.remove(&service).unwrap();
    let setup = AuditSetup::new("cluster", serde_saphyr::from_str(WEBHOOK).unwrap());
    let capabilities = Capabilities::of(KubernetesVersion::new(36));
    // Meanwhile the nodes keep their Revision.
    let problems = validate(&setup, &world.references, capabilities, &Floor::default()).unwrap_err();
    assert_eq!(problems[0].reason, crate::api::Reason::ReferenceNotFound);
    let moved: Service = serde_saphyr::from_str("{spec: {clusterIP: 10.96.0.9, ports: [{port: 8443}]}}").unwrap();
    world.references.services.insert(service.clone(), moved);
    let after = world.render(WEBHOOK);
    assert_ne!(after.revision.id, before.revision.id);
    assert!(after.revision.files()["webhook.kubeconfig"].contains("https://10.96.0.9:8443/"));
    world.references.services.insert(service.clone(), old);
    assert_eq!(world.render(WEBHOOK).revision.id, before.revision.id);
    // Pods that come and go make none.
    world.references.endpoints.insert(service, false);
    let without = world.render(WEBHOOK);
    assert_eq!(without.revision.id, before.revision.id);
    assert_eq!(without.findings.last().unwrap().id, "no-endpoints");
}

#[test]
fn a_probe_is_not_in_the_revision_and_only_for_it() {
    let world = World::new(36);
    let render = |probe: &str| world.render(&WEBHOOK.replace("tls: {ca", &format!("{probe}tls: {{ca")));
    let (none, falco) = (render(""), render("probe: {path: /k8s-audit, expectedCodes: [405]}, "));
    assert_eq!(none.revision, falco.revision);
    assert_eq!(none.sinks[0].probe, None);
    let probe = |revision: &Revision, sinks: &[SinkRef]| match &targets(revision, sinks)[0].backend {
        Backend::Webhook(webhook) => webhook.probe.clone(),
        Backend::Log(_) => panic!("a webhook"),
    };
    let found = probe(&falco.revision, &falco.sinks).unwrap();
    assert_eq!((found.path.as_str(), found.is_of_sink), ("/k8s-audit", false));
    assert!(found.is_expected(405) && !found.is_expected(200));
    let default = render("probe: {}, ");
    let found = probe(&default.revision, &default.sinks).unwrap();
    assert_eq!((found.path.as_str(), found.is_of_sink), ("/", true));
    assert!([200, 204, 299].into_iter().all(|code| found.is_expected(code)));
    assert!([199, 301, 405].into_iter().all(|code| !found.is_expected(code)));
    // The receiver of another Revision may take any request for an event.
    let other = world.render(&WEBHOOK.replace("port: 8443", "port: 8443, path: /other"));
    assert_eq!(probe(&other.revision, &falco.sinks), None);
    // A NodeAudit is not trusted.
    for (path, codes) in [
        ("/a\r\nX: y", vec![]),
        ("a", vec![]),
        ("/a?b", vec![]),
        ("@evil/", vec![]),
        ("/", vec![100]),
        ("/", vec![70000]),
    ] {
        let mut sinks = falco.sinks.clone();
        let revision = falco.revision.id.to_string();
        sinks[0].probe = Some(SinkProbe { revision, path: Some(path.into()), expected_codes: codes });
        assert_eq!(probe(&falco.revision, &sinks), None, "{path}");
    }
}

#[test]
fn a_new_host_has_a_place_of_its_own_for_its_credentials() {
    let mut world = World::new(36);
    let old = world.render(WEBHOOK);
    world.secret("token", "token", b"for-the-new-host");
    let moved: Service = serde_saphyr::from_str("{spec: {clusterIP: 10.96.0.8, ports: [{port: 8443}]}}").unwrap();
    world.references.services.insert(("ns".into(), "sink".into()), moved);
    let new = world.render(WEBHOOK);
    let place = |rendered: &Rendered| rendered.credentials.keys().next().unwrap().directory.clone();
    assert_ne!(
        place(&old),
        place(&new),
        "a node that still runs the old Revision must not send the new token to the old host"
    );
}

#[test]
fn the_room_that_a_log_may_take() {
    let room = |log: &str| {
        let spec =
            format!("{{policy: {{preset: metadata, acknowledge: [UnboundedLog]}}, sinks: [{{name: l, log: {log}}}]}}");
        World::new(36).render(&spec).revision.content.log_bytes()
    };
    assert_eq!(room("{maxBackups: 4, maxSizeMegabytes: 50}"), 5 * 50 * 1024 * 1024);
    assert_eq!(room("{maxBackups: 0, maxAgeDays: 1}"), 0, "unbounded");
    assert_eq!(room("{path: '-'}"), 0);
    assert_eq!(room("{maxBackups: 100000, maxSizeMegabytes: 1048576}"), 100_001 * (1 << 40), "no overflow");
}

#[test]
fn the_intent_mounts_what_the_flags_need() {
    let intent = intent(&World::new(36).render(LOG).revision);
    let mount = |name: &str, path: &str, read_only| Mount { name: name.into(), path: path.into(), read_only };
    assert_eq!(
        intent.mounts,
        [
            mount("audit-operator-config", "/etc/kubernetes/audit", true),
            mount("audit-operator-log", "/var/log/kubernetes/audit", false)
        ]
    );
    let defaults = [(DELAY_FLAG.to_string(), "2s".to_string()), (DRAIN_FLAG.to_string(), "3s".to_string())];
    assert_eq!(intent.defaults, BTreeMap::from(defaults));
    for (flag, value) in &intent.flags {
        let is_path = value.starts_with('/');
        assert!(
            !is_path || intent.mounts.iter().any(|m| value.starts_with(&format!("{}/", m.path))),
            "--{flag}={value}"
        );
    }
}

/// kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/server/options/audit.go
const UPSTREAM: [&str; 32] = [
    "audit-policy-file",
    "audit-log-path",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-log-compress",
    "audit-log-format",
    "audit-log-version",
    "audit-log-mode",
    "audit-log-batch-buffer-size",
    "audit-log-batch-max-size",
    "audit-log-batch-max-wait",
    "audit-log-batch-throttle-enable",
    "audit-log-batch-throttle-qps",
    "audit-log-batch-throttle-burst",
    "audit-log-truncate-enabled",
    "audit-log-truncate-max-batch-size",
    "audit-log-truncate-max-event-size",
    "audit-webhook-config-file",
    "audit-webhook-initial-backoff",
    "audit-webhook-batch-initial-backoff",
    "audit-webhook-version",
    "audit-webhook-mode",
    "audit-webhook-batch-buffer-size",
    "audit-webhook-batch-max-size",
    "audit-webhook-batch-max-wait",
    "audit-webhook-batch-throttle-enable",
    "audit-webhook-batch-throttle-qps",
    "audit-webhook-batch-throttle-burst",
    "audit-webhook-truncate-enabled",
    "audit-webhook-truncate-max-batch-size",
    "audit-webhook-truncate-max-event-size",
];

#[test]
fn every_audit_flag_is_rendered_or_left_out_with_a_reason() {
    let table: BTreeMap<&str, &str> = include_str!("../../docs/flags.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `audit-"))
        .map(|row| {
            let mut cells = row.split(" | ");
            (cells.next().unwrap().trim_matches('`'), cells.next().unwrap())
        })
        .collect();
    let upstream: BTreeSet<&str> = UPSTREAM.iter().map(|flag| flag.strip_prefix("audit-").unwrap()).collect();
    assert_eq!(table.keys().copied().collect::<BTreeSet<_>>(), upstream);

    let every_field = "{policy: {preset: metadata}, sinks: [\
        {name: l, log: {compress: true, delivery: {mode: Batch, batch: &b {bufferSize: 1, maxSize: 1, maxWaitSeconds: 1, throttleQPS: 1, throttleBurst: 1}, truncate: {}}}}, \
        {name: w, webhook: {url: 'https://a/', delivery: {batch: *b, truncate: {}}}}]}";
    let flags = World::new(36).render(every_field).revision.flags();
    let rendered: BTreeSet<&str> = flags.keys().map(|flag| flag.strip_prefix("audit-").unwrap()).collect();
    let wanted: BTreeSet<&str> =
        table.iter().filter(|(_, field)| !field.starts_with("left out, because ")).map(|(flag, _)| *flag).collect();
    assert_eq!(rendered, wanted);
}
