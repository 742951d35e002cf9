//! One run: a cluster at rest, a change, a fault, and whether all is well afterwards.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testing::cluster::Cluster;

use super::act::Act;
use super::matrix::{Change, Outcome, Row};
use super::moment::{Before, Moment};
use super::node::{Node, Program};
use super::observer::{Observer, Seen};
use super::table;

const MINUTE: Duration = Duration::from_secs(60);
const SETUP: &str = "faults";
/// A directory of the nodes in which nobody can make a file.
const UNWRITABLE: &str = "/var/log/kubernetes/unwritable";

pub struct Runner {
    pub cluster: Cluster,
    pub nodes: Vec<Node>,
    /// Of each Setup that was applied: no two are the same.
    counter: u64,
    originals: Vec<String>,
    /// Whether the Setup that the nodes have says Swift.
    is_swift: bool,
}

/// What came of a row.
#[derive(Debug, Serialize, Deserialize)]
pub struct Result {
    pub fault: String,
    pub expected: String,
    pub seen: String,
    /// Of the node that was hit, seconds in which its `/readyz` failed.
    pub away: f64,
    /// From `kubectl apply` until all was well.
    pub settled: f64,
    /// Where the Revision itself is the fault: from the rename until the old one serves again.
    pub way_back: Option<f64>,
    pub failure: Option<String>,
}

/// Observations of a run that ended well.
#[derive(Default)]
struct Observed {
    outcome: String,
    away: f64,
    settled: f64,
    way_back: Option<f64>,
}

impl Runner {
    pub fn connect() -> Self {
        let cluster = Cluster::connect(SETUP);
        let nodes: Vec<Node> = ["cp1", "cp2", "cp3"].iter().map(|name| Node::new(&cluster.testbed, name)).collect();
        let nodes: Vec<Node> = nodes.into_iter().filter(Node::is_on).collect();
        cluster.install_chart();
        let mut runner = Self { cluster, nodes, counter: 0, originals: Vec::new(), is_swift: false };
        if runner.cluster.condition("Ready").is_none() {
            runner.originals = runner.nodes.iter().map(|node| node.manifest().unwrap()).collect();
        }
        runner
    }

    /// A Setup that no run before had.
    pub fn setup(&mut self, change: Change, is_swift: bool) -> Value {
        self.counter += 1;
        self.is_swift = is_swift;
        let user = format!("run-{}-{}", std::process::id(), self.counter);
        let mut sinks = json!([{"name": "local", "log": {}}]);
        match change {
            // Our reader takes its serial number, and Go's does not (crypto/x509, since Go 1.23).
            Change::BadAuthority => {
                self.cluster.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bad-ca", "namespace": "audit-system"},
                    "stringData": {"ca.crt": include_str!("negative_serial.pem")}}));
                let webhook = json!({"url": "https://127.0.0.1:9/", "tls": {"caSecretRef": {"name": "bad-ca"}}});
                sinks.as_array_mut().unwrap().push(json!({"name": "hook", "webhook": webhook}));
            }
            // Root cannot write into it either.
            Change::BadLog => {
                for node in &self.nodes {
                    node.exec(&format!("mkdir -p {UNWRITABLE} && chattr +i {UNWRITABLE}"));
                }
                sinks[0]["log"]["path"] = json!(format!("{UNWRITABLE}/audit.log"));
            }
            _ => {}
        }
        json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup", "metadata": {"name": SETUP},
        "spec": {
            "policy": {"preset": "metadata", "append": [{"level": "Metadata", "users": [user]}]},
            "sinks": sinks,
            "rollout": {"method": if is_swift { "Swift" } else { "Replace" }, "confirmTimeoutSeconds": 120, "minReadySeconds": 5},
        }})
    }

    /// All nodes run a good Setup and are at rest.
    pub fn rest(&mut self) {
        let is_ready = self.cluster.condition("Ready").is_some_and(|ready| ready["status"] == "True");
        if is_ready && self.nodes.iter().all(|node| disorder(node).is_empty()) {
            return;
        }
        let setup = self.setup(Change::Good, true);
        self.cluster.apply(&setup);
        self.cluster.wait_generation();
        self.cluster.wait_condition("Ready", "True", 10 * MINUTE);
    }

    pub fn run(&mut self, number: usize, row: &Row) -> Result {
        println!("{number:3}  {}", table::describe(row));
        // A row that fails is reported, and the others are run.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_run(row)));
        let (observed, failure) = match outcome {
            Ok(observed) => (observed, None),
            Err(panic) => {
                self.cluster.print_state();
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
                (Observed { outcome: format!("FAILED: {text}"), ..Observed::default() }, Some(text))
            }
        };
        let Observed { outcome: seen, away, settled, way_back } = observed;
        println!("     {seen}; away {away:.1} s, settled after {settled:.1} s");
        Result {
            fault: table::describe(row),
            expected: table::expected(row).into(),
            seen,
            away,
            settled,
            way_back,
            failure,
        }
    }

    fn try_run(&mut self, row: &Row) -> Observed {
        self.rest();
        if row.change == Change::Delete || row.act == Act::DeleteSetup {
            assert_eq!(self.originals.len(), self.nodes.len(), "the testbed has to be fresh for this one");
        }
        row.act.prepare(&self.nodes[0], &self.cluster);
        let befores: Vec<Before> = self.nodes.iter().map(Before::of).collect();
        let texts: Vec<String> = befores.iter().map(|before| before.manifest.clone()).collect();
        let observer = Observer::begin(&self.nodes);
        let begin = Instant::now();
        match row.change {
            Change::Rest => {}
            Change::Delete => self.cluster.kubectl_until(&["delete", "auditsetup", SETUP, "--wait=false"]),
            change => {
                let setup = self.setup(change, row.is_swift);
                self.cluster.apply(&setup);
            }
        }
        let target = self.first_in_change(&befores, row);
        let (node, before) = (self.nodes[target].clone(), &befores[target]);
        assert!(before.wait(row.moment, &node), "the moment {:?} never came on {}", row.moment, node.name);
        let hit = Instant::now();
        match row.act {
            Act::ApplyAgain(times) => {
                for _ in 0..times {
                    let setup = self.setup(Change::Good, row.is_swift);
                    self.cluster.apply(&setup);
                }
            }
            Act::DeleteSetup => self.cluster.kubectl_until(&["delete", "auditsetup", SETUP, "--wait=false"]),
            act => act.carry_out(&node, &self.cluster),
        }
        println!(
            "     hit {} {:.1} s after the change was applied",
            node.name,
            hit.duration_since(begin).as_secs_f64()
        );
        let outcome = self.wait_outcome(row.outcome, target, row, before);
        self.expect_tidy();
        let settled = begin.elapsed().as_secs_f64();
        let Seen { away, back, replaced, manifests, was_missing, most_in_change } = observer.end();
        row.act.clean_up(&node, &self.cluster);
        assert!(most_in_change <= 1, "{most_in_change} nodes were in change at the same time");
        let changes = node.journal().map_or(0, |journal| journal.changes).saturating_sub(before.changes);
        assert!(changes <= 3, "{changes} changes: the node goes straight to the newest Revision");
        // A new machine has none until it joins, and kubeadm moves the old one away before it puts the new one in.
        let may_be_missing = self.is_swift || matches!(row.act, Act::ReplaceOther | Act::Kubeadm(_));
        assert!(may_be_missing || !was_missing, "there was a moment without a manifest");
        self.expect_whole(&manifests, &texts);
        let is_bad_itself = row.outcome == Outcome::Old && matches!(row.act, Act::None | Act::DeletePolicy);
        let way_back = || Some(back[target]?.duration_since(replaced[target]?).as_secs_f64());
        let way_back = is_bad_itself.then(|| way_back().expect("it was replaced, and came back"));
        Observed { outcome, away: away[target].as_secs_f64(), settled, way_back }
    }

    /// Of several nodes the one that changes first is the one to be hit.
    fn first_in_change(&self, befores: &[Before], row: &Row) -> usize {
        if self.nodes.len() == 1 || row.change == Change::Rest {
            return 0;
        }
        let began = |index: &usize| befores[*index].has_come(Moment::Staged, &self.nodes[*index]);
        self.cluster.wait("a node in change", 3 * MINUTE, || (0..self.nodes.len()).find(began))
    }

    fn wait_outcome(&self, outcome: Outcome, target: usize, row: &Row, before: &Before) -> String {
        let (cluster, node) = (&self.cluster, &self.nodes[target]);
        let limit = 10 * MINUTE;
        match outcome {
            Outcome::New => {
                if row.change == Change::Rest {
                    // Until a node has seen the act, it still reports that all is well.
                    let is_ours =
                        |node: &Node| node.manifest().is_some_and(|text| text.contains("--audit-policy-file"));
                    cluster.wait("our parts", limit, || self.nodes.iter().all(is_ours).then_some(()));
                }
                cluster.wait_generation();
                cluster.wait_condition("Ready", "True", limit);
                "the new Revision runs".into()
            }
            Outcome::Old | Outcome::Without => {
                let said = cluster.wait("Stalled", limit, || {
                    let stalled = cluster.condition("Stalled")?;
                    (stalled["status"] == "True").then(|| stalled["message"].as_str().unwrap_or_default().to_string())
                });
                assert!(said.contains(&node.name), "{said}");
                let manifest = node.manifest().unwrap_or_default();
                if outcome == Outcome::Old {
                    assert_eq!(manifest, before.manifest, "the old manifest is back");
                } else {
                    assert!(!manifest.contains("--audit-policy-file"), "{manifest}");
                }
                format!("rolled back: {}", reason(cluster, node))
            }
            Outcome::Either => {
                let ready = cluster.wait("Ready or Stalled", limit, || {
                    let is = |kind: &str| Some(cluster.condition(kind)?["status"] == "True");
                    (is("Ready")? || is("Stalled")?).then(|| is("Ready")).flatten()
                });
                if ready { "the new Revision runs".into() } else { format!("rolled back: {}", reason(cluster, node)) }
            }
            Outcome::Original => {
                cluster.wait("the Setup gone", limit, || cluster.is_gone().then_some(()));
                for (node, original) in self.nodes.iter().zip(&self.originals) {
                    assert_eq!(node.manifest().as_ref(), Some(original), "the original manifest of {}", node.name);
                    assert!(!node.exists("/etc/kubernetes/audit"), "nothing of ours is left on {}", node.name);
                }
                "the original manifest is back".into()
            }
        }
    }

    /// Every API server serves, alone and with what the manifest says; nothing of the change is left.
    fn expect_tidy(&self) {
        for node in &self.nodes {
            self.cluster
                .wait(&format!("order on {}", node.name), 2 * MINUTE, || disorder(node).is_empty().then_some(()));
        }
        self.cluster.wait("an API server that serves", MINUTE, || self.cluster.is_serving().then_some(()));
    }

    /// No manifest was ever half of one: each is one that was there before, or parses and names a Revision or nothing
    /// of ours.
    fn expect_whole(&self, manifests: &BTreeSet<String>, before: &[String]) {
        for text in manifests.iter().filter(|text| !before.contains(text)) {
            let facts = static_pod::read(text);
            assert!(facts.is_ok() && text.ends_with('\n'), "a half manifest was seen: {facts:?}\n{text}");
        }
    }
}

fn reason(cluster: &Cluster, node: &Node) -> String {
    let audit = cluster.node_audit(&node.name).unwrap_or_default();
    audit["status"]["lastFailure"]["reason"].as_str().unwrap_or("not reported").to_string()
}

/// Disorder on a node at rest.
pub fn disorder(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    match node.journal() {
        None => found.push("the journal cannot be read".into()),
        Some(journal) if journal.under_way().is_some() => found.push("a change is in progress".into()),
        Some(journal) => {
            let facts = node.manifest().and_then(|text| static_pod::read(&text).ok());
            let revision = facts.as_ref().and_then(|facts| facts.revision.clone());
            let confirmed = journal.confirmed.map(|confirmed| confirmed.revision.to_string());
            // If somebody else removed our manifest, the journal still names it.
            if revision.is_some() && revision != confirmed {
                found.push("the journal and the manifest differ".into());
            }
            let policy = facts.as_ref().and_then(|facts| facts.flags.get("audit-policy-file"));
            if policy.is_some_and(|path| !node.exists(path)) {
                found.push("the policy that the manifest names is not there".into());
            }
        }
    }
    for path in ["/etc/kubernetes/manifests/audit-operator-guard.yaml", "/var/lib/audit-operator/change"] {
        if node.exists(path) {
            found.push(format!("{path} is left"));
        }
    }
    for directory in ["/etc/kubernetes/manifests", "/var/lib/audit-operator", "/etc/kubernetes/audit"] {
        let Some(Ok(entries)) = node.at(directory).map(std::fs::read_dir) else { continue };
        for name in entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
            if name.starts_with('.') {
                found.push(format!("{directory}/{name} is left"));
            }
        }
    }
    let servers = node.processes(Program::ApiServer);
    if servers.len() != 1 {
        found.push(format!("{} API servers run", servers.len()));
    }
    let manifest = node.manifest().unwrap_or_default();
    if let Ok(facts) = static_pod::read(&manifest) {
        if servers.values().any(|argv| *argv != facts.argv) {
            found.push("the API server does not run with the manifest's command line".into());
        }
    } else {
        found.push("the manifest cannot be read".into());
    }
    found
}
