//! The intents in the tests of `static-pod` are rendered from real Setups. `UPDATE_CASES=1` writes them.

use audit_operator::api::AuditSetup;
use audit_operator::floor::Floor;
use audit_operator::render::{intent, render};
use audit_operator::validate::{Capabilities, KubernetesVersion, References, validate};
use serde_json::{Value, json};
use testing::golden::Differences;
use testing::root;

const SETUPS: [&str; 6] = [
    "{policy: {preset: metadata}, sinks: [{name: l, log: {}}]}",
    "{policy: {preset: gce}, sinks: [{name: l, log: {path: /var/log/kubernetes/audit/audit.log, compress: true}}], rollout: {drainWatchesSeconds: 0, shutdownDelaySeconds: 5}}",
    "{policy: {preset: metadata}, sinks: [{name: l, log: {path: '-'}}]}",
    "{policy: {preset: metadata}, sinks: [{name: l, log: {path: '/srv/audit logs/a,b.log', maxBackups: 2}}], rollout: {drainWatchesSeconds: 7}}",
    "{policy: {preset: metadata}, sinks: [{name: w, webhook: {url: 'http://127.0.0.1:9765/k8s-audit'}}]}",
    "{policy: {preset: metadata}, sinks: [{name: l, log: {}}, {name: w, webhook: {url: 'http://127.0.0.1:9765/k8s-audit'}}], rollout: {drainWatchesSeconds: 0, shutdownDelaySeconds: 0}}",
];

fn rendered(spec: &str) -> Value {
    let floor = Floor::read("logDirectories: [/var/log/kubernetes, /srv/audit logs]").unwrap();
    let setup = AuditSetup::new("cluster", serde_saphyr::from_str(spec).unwrap());
    let valid = validate(&setup, &References::default(), Capabilities::of(KubernetesVersion::new(36)), &floor);
    let valid = valid.unwrap_or_else(|problems| panic!("{spec}: {problems:?}"));
    let intent = intent(&render(&valid).revision);
    let mounts = intent.mounts.iter();
    let mounts = mounts.map(|mount| json!({"name": mount.name, "path": mount.path, "readOnly": mount.read_only}));
    json!({
        "revision": intent.revision,
        "flags": intent.flags,
        "defaults": intent.defaults,
        "mounts": mounts.collect::<Vec<_>>(),
    })
}

#[test]
fn the_intents_that_the_editor_is_tested_with_are_rendered_from_setups() {
    let text = serde_json::to_string_pretty(&SETUPS.map(rendered)).unwrap() + "\n";
    let mut differences = Differences::default();
    differences.compare(&root().join("crates/static-pod/src/tests/intents.json"), Some(text.as_bytes()));
    differences.end();
}
