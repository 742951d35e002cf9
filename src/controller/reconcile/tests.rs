use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::NodeAuditStatus;
use crate::controller::fetch::NodeFacts;
use crate::status::{Facts, status};

#[test]
fn nodes_of_a_setup_that_went_without_us_are_abandoned_unless_another_one_has_them() {
    let audit = |node: &str, setup: &str, setup_generation| {
        let spec = NodeAuditSpec {
            setup: setup.into(),
            setup_uid: Some(format!("uid-{setup}")),
            setup_generation,
            revision: Some("r-1".into()),
            revision_digest: None,
            credentials: None,
            may_change: false,
            rollout: Rollout { paused: true, min_ready_seconds: 7, ..Rollout::default() },
            sinks: Vec::new(),
            canary: true,
        };
        (node.to_string(), NodeAudit::new(node, spec))
    };
    let there: AuditSetup =
        serde_saphyr::from_str(include_str!("../../../examples/log-only.yaml")).expect("an example is a Setup");
    let name = there.name_any();
    let world = World {
        setups: vec![there],
        nodes: BTreeMap::new(),
        selected: BTreeMap::new(),
        unheard_for: BTreeMap::new(),
        audits: [audit("a", "gone", 3), audit("b", "gone", 5), audit("c", "gone", 9), audit("d", &name, 1)].into(),
    };
    let covers = [(name, Cover::Nodes(vec!["c".into()]))].into();
    let [(setup, nodes)] = &abandoned(&world, &covers)[..] else { panic!("one Setup went") };
    assert_eq!((setup.name_any(), setup.metadata.generation), ("gone".into(), Some(5)));
    assert_eq!((setup.spec.rollout.paused, setup.spec.rollout.min_ready_seconds), (false, 7));
    assert_eq!(nodes, &["a", "b"]);
}

#[test]
fn a_minor_version_is_read_as_kubernetes_writes_it() {
    let cases =
        [("v1.36.3", Some(36)), ("v1.33.0-rc.1+k3s1", Some(33)), ("v1.36+", Some(36)), ("", None), ("v2.1", None)];
    for (version, want) in cases {
        assert_eq!(minor(version), want, "{version:?}");
    }
}

/// A host with its agent and guard, as far as a rollout is concerned.
#[derive(Debug, Default)]
struct Host {
    /// The NodeAudit as its agent saw it last.
    seen: Option<NodeAudit>,
    /// Whose settings the manifest has, and which the journal knows as confirmed.
    manifest: Option<String>,
    confirmed: Option<String>,
    /// Where it is going.
    change: Option<Option<String>>,
    /// What it took back, and under which generation.
    failed: Option<(Option<String>, i64)>,
}

impl Host {
    /// A turn of the agent: begins what it may begin, by what it has seen, and reports.
    fn turn(&mut self) -> Option<NodeAuditStatus> {
        let seen = self.seen.as_ref()?;
        let NodeAuditSpec { revision, setup_generation, may_change, rollout, .. } = &seen.spec;
        if revision.is_none() && self.manifest.is_none() && self.change.is_none() {
            self.confirmed = None;
        }
        let is_as_told = self.manifest == *revision && self.confirmed == *revision;
        let rests = if self.confirmed.is_some() { "Confirmed" } else { "Unmanaged" };
        let (phase, reason) = if self.change.is_some() {
            ("Verifying", "Verifying")
        } else if is_as_told {
            (rests, rests)
        } else if self.failed == Some((revision.clone(), *setup_generation)) {
            ("RolledBack", "CrashLoop")
        } else if rollout.paused || !*may_change {
            let reason = if rollout.paused { "Paused" } else { "Held" };
            (if revision.is_some() && self.confirmed == *revision { "Drifted" } else { rests }, reason)
        } else {
            self.change = Some(revision.clone());
            ("Staged", "Staged")
        };
        let failure = self.failed.as_ref().map(|(revision, generation)| {
            json!({"revision": revision, "setupGeneration": generation, "reason": "CrashLoop", "message": "", "at": LONG_AGO})
        });
        let status = json!({
            "observedGeneration": seen.metadata.generation, "phase": phase, "reason": reason, "revision": self.confirmed, "since": LONG_AGO,
            "changingTo": self.change.clone().flatten(), "readySince": LONG_AGO, "lastSeen": LONG_AGO, "lastFailure": failure,
        });
        Some(serde_json::from_value(status).expect("a status"))
    }

    /// The guard comes to its verdict.
    fn end(&mut self, audit: Option<&NodeAudit>, is_good: bool) {
        let Some(target) = self.change.take() else { return };
        if is_good {
            (self.manifest, self.confirmed) = (target.clone(), target);
        } else {
            self.failed = audit.map(|audit| (target, audit.spec.setup_generation));
        }
    }
}

const LONG_AGO: &str = "2026-01-01T00:00:00Z";
/// The nodes of two Setups.
const NODES: [&[&str]; 2] = [&["a"], &["b", "c"]];

/// A Setup, and what it renders to.
struct Wanted {
    setup: AuditSetup,
    revision: String,
    is_rejected: bool,
}

/// Two Setups, their nodes, and the API between them and the controller.
struct Cluster {
    wanted: Vec<Wanted>,
    audits: BTreeMap<String, NodeAudit>,
    hosts: BTreeMap<String, Host>,
}

impl Cluster {
    /// Begins with `hosts` that may have our settings, from `audit-operator apply` or from before the CRDs were lost.
    fn new(hosts: [Host; 3], is_paused: bool) -> Self {
        let wanted = |index: usize| {
            let mut setup: AuditSetup = serde_json::from_value(json!({
                "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup",
                "metadata": {"name": format!("s{index}"), "generation": 1},
                "spec": {"policy": {"preset": "metadata"}, "sinks": [{"name": "local", "log": {}}]},
            }))
            .unwrap();
            setup.spec.rollout.paused = is_paused;
            Wanted { setup, revision: format!("r-{}", index + 1), is_rejected: false }
        };
        let hosts = ["a", "b", "c"].into_iter().map(String::from).zip(hosts).collect();
        Cluster { wanted: vec![wanted(0), wanted(1)], audits: BTreeMap::new(), hosts }
    }

    fn pass(&mut self) {
        let is_of = |setup: &AuditSetup, audit: &NodeAudit| audit.spec.setup == setup.name_any();
        let facts = NodeFacts { uid: String::new(), is_ready: true, kubelet_version: String::new() };
        let names = |index: usize| NODES[index].iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let world = World {
            setups: self.wanted.iter().map(|wanted| wanted.setup.clone()).collect(),
            nodes: self.hosts.keys().map(|name| (name.clone(), facts.clone())).collect(),
            selected: (0..2).map(|index| (format!("s{index}"), names(index))).collect(),
            audits: self.audits.clone(),
            unheard_for: BTreeMap::new(),
        };
        let mut told = None;
        for Wanted { setup, revision, is_rejected } in &mut self.wanted {
            let before = setup.clone();
            let held = world.audits.iter().filter(|(_, audit)| is_of(&before, audit)).map(|(name, _)| name.clone());
            let (covered, left) = match before.metadata.deletion_timestamp {
                Some(_) => (Vec::new(), held.collect()),
                None => (world.selected[&before.name_any()].clone(), Vec::new()),
            };
            let keeps = *is_rejected && left.is_empty();
            let (nodes, decision) = if keeps {
                decide_to_keep(&world, &before, &covered, &mut told)
            } else {
                let nodes = nodes(&world, &before, &covered, Some(revision), &left);
                let decision = decide_for(&world, &before, &nodes, &mut told);
                (nodes, decision)
            };
            let reported: Vec<_> =
                covered.iter().chain(&left).filter_map(|name| node(&world, name, Goal::default())).collect();
            let facts = Facts {
                setup: &before,
                nodes: &reported,
                judgement: Judgement::NoNodes,
                now: LONG_AGO.parse().unwrap(),
            };
            setup.status = Some(status(facts));
            for (node, (name, step)) in nodes.iter().zip(&decision.steps) {
                if (*step, node.audit.is_some()) == (Step::Release, true) {
                    self.audits.remove(name);
                    continue;
                }
                let spec = match node.audit.filter(|_| keeps) {
                    Some(audit) => apply::kept_spec(&before, audit, *step),
                    None => apply::node_spec(&before, node.audit, node.goal, *step, None),
                };
                let audit = self.audits.entry(name.clone()).or_insert_with(|| NodeAudit::new(name, spec.clone()));
                if audit.spec != spec || audit.metadata.generation.is_none() {
                    audit.metadata.generation = Some(audit.metadata.generation.unwrap_or(0) + 1);
                    audit.spec = spec;
                }
            }
        }
        let audits = &self.audits;
        self.wanted.retain(|Wanted { setup, .. }| {
            setup.metadata.deletion_timestamp.is_none() || audits.values().any(|audit| is_of(setup, audit))
        });
    }

    /// The agent of a node is late with what it sees.
    fn late_turn(&mut self, name: &str) {
        let status = self.hosts.get_mut(name).unwrap().turn();
        if let Some(audit) = self.audits.get_mut(name) {
            audit.status = status;
        }
    }

    fn turn(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().seen = self.audits.get(name).cloned();
        self.late_turn(name);
    }

    /// Until nothing goes on any more.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.pass();
            for name in ["a", "b", "c"] {
                self.turn(name);
                self.check();
                self.hosts.get_mut(name).unwrap().end(None, true);
                self.turn(name);
            }
        }
    }

    fn check(&self) {
        let changing = self.hosts.values().filter(|host| host.change.is_some()).count();
        assert!(changing <= 1, "{changing} nodes in change: {:?}", self.hosts);
        let turns = self.audits.values().filter(|audit| audit.spec.may_change).count();
        assert!(turns <= 1, "{turns} nodes may change: {:?}", self.audits);
    }

    /// kubeadm rewrites a manifest, whoever is in change.
    fn drift(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).unwrap();
        host.manifest = host.manifest.take().filter(|_| host.change.is_some());
        self.late_turn(name);
    }

    fn edit(&mut self, index: usize, edit: impl FnOnce(&mut Wanted)) {
        if let Some(wanted) = self.wanted.get_mut(index) {
            edit(wanted);
            let generation = &mut wanted.setup.metadata.generation;
            *generation = generation.map(|generation| generation + 1);
        }
    }

    fn happens(&mut self, event: u8, index: usize) {
        let name = ["a", "b", "c"][index];
        match event {
            0..=3 => self.pass(),
            4..=6 => self.turn(name),
            7..=8 => self.late_turn(name),
            9..=12 => self.hosts.get_mut(name).unwrap().end(self.audits.get(name), event > 9),
            13 => self.edit(index, |wanted| wanted.setup.spec.rollout.paused ^= true),
            14 => self.edit(index, |Wanted { revision, .. }| {
                *revision = if revision == "r-1" { "r-2" } else { "r-1" }.into();
            }),
            // Somebody deletes a NodeAudit, not to give the node up, and not twice within the moment that a report takes.
            15 if self.wanted.iter().all(|wanted| wanted.setup.metadata.deletion_timestamp.is_none()) => {
                self.pass();
                self.audits.remove(name);
                self.pass();
                self.turn(name);
            }
            16 => self.drift(name),
            17 => self.edit(index, |wanted| wanted.is_rejected ^= true),
            18 if index == 0 => self.edit(0, |wanted| {
                wanted.setup.metadata.deletion_timestamp = Some(Time(LONG_AGO.parse().unwrap()));
            }),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_at_most_one_node_of_all_setups_is_in_change_and_all_get_there(
        found in any::<[(bool, bool); 3]>(),
        is_paused in any::<bool>(),
        events in prop::collection::vec((0..19_u8, 0..3_usize), 0..80),
    ) {
        let ours = |has: bool| has.then(|| "r-1".to_string());
        let host = |(has, remembers)| Host { manifest: ours(has), confirmed: ours(has && remembers), ..Host::default() };
        let mut cluster = Cluster::new(found.map(host), is_paused);
        for (event, index) in events {
            cluster.happens(event, index);
            cluster.check();
        }
        for _ in 0..10 {
            cluster.pass();
            ["a", "b", "c"].iter().for_each(|name| cluster.turn(name));
        }
        let told = cluster.audits.clone();
        cluster.pass();
        prop_assert_eq!(&cluster.audits, &told, "with nothing new there is nothing to tell");
        for index in 0..cluster.wanted.len() {
            cluster.edit(index, |wanted| {
                wanted.setup.spec.rollout.paused = false;
                wanted.is_rejected = false;
            });
        }
        cluster.settle();
        for Wanted { setup, revision, .. } in &cluster.wanted {
            prop_assert!(setup.metadata.deletion_timestamp.is_none(), "it is restored: {:?}", cluster.hosts);
            for name in NODES[usize::from(setup.name_any() == "s1")] {
                let host = &cluster.hosts[*name];
                prop_assert_eq!((&host.manifest, &host.confirmed), (&Some(revision.clone()), &Some(revision.clone())), "{}", name);
            }
        }
    }
}

#[test]
fn nodes_of_a_setup_that_is_rejected_keep_what_they_were_told() {
    let mut cluster = Cluster::new(Default::default(), false);
    cluster.settle();
    // In the middle of its turn.
    cluster.edit(1, |wanted| wanted.revision = "r-3".into());
    cluster.pass();
    cluster.edit(1, |wanted| wanted.is_rejected = true);
    for name in ["a", "b", "c"] {
        cluster.drift(name);
    }
    cluster.settle();
    let manifest = |cluster: &Cluster, name| cluster.hosts[name].manifest.clone().unwrap();
    assert_eq!(["a", "b", "c"].map(|name| manifest(&cluster, name)), ["r-1", "r-3", "r-2"]);
    assert!(cluster.audits.values().all(|audit| !audit.spec.may_change), "all turns are over");
    cluster.edit(0, |wanted| wanted.revision = "r-4".into());
    cluster.settle();
    assert_eq!(manifest(&cluster, "a"), "r-4", "another Setup is not held up");
}
