use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{AuditSetup, NodeAudit, NodeAuditSpec, NodeAuditStatus};
use crate::controller::cache::Shared;
use crate::controller::judge::Ruling;
use crate::controller::world::{Basis, NodeFacts, specs, versions};
use crate::floor::Floor;
use crate::render::{Rendered, render};
use crate::rollout::Assignment;
use crate::status::{Facts, Judgement, status};
use crate::validate::{Capabilities, KubernetesVersion, References, validate};

/// A host with its agent and guard, as far as a rollout is concerned.
#[derive(Debug, Default)]
struct Host {
    /// The NodeAudit as its agent saw it last.
    seen: Option<NodeAudit>,
    /// The Revision in the manifest, and the one that the journal has as confirmed.
    manifest: Option<String>,
    confirmed: Option<String>,
    /// The target of the change that is under way.
    change: Option<Option<String>>,
    /// The target that it rolled back, and under which generation.
    failed: Option<(Option<String>, i64)>,
}

impl Host {
    /// A pass of the agent: begins a change that it may begin by the NodeAudit that it saw, and reports.
    fn pass(&mut self) -> Option<NodeAuditStatus> {
        let seen = self.seen.as_ref()?;
        let NodeAuditSpec { revision, setup_generation, may_change, rollout, .. } = &seen.spec;
        if revision.is_none() && self.manifest.is_none() && self.change.is_none() {
            self.confirmed = None;
        }
        let is_as_assigned = self.manifest == *revision && self.confirmed == *revision;
        let rests = if self.confirmed.is_some() { "Confirmed" } else { "Unmanaged" };
        let (phase, reason) = if self.change.is_some() {
            ("Verifying", "Verifying")
        } else if is_as_assigned {
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
const NOW: &str = "2026-11-21T12:00:00Z";
/// The nodes of two Setups.
const NODES: [&[&str]; 2] = [&["a"], &["b", "c"]];

fn example(name: &str) -> AuditSetup {
    serde_json::from_value(json!({
        "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup", "metadata": {"name": name, "generation": 1},
        "spec": {"policy": {"preset": "metadata"}, "sinks": [{"name": "local", "log": {}}]},
    }))
    .unwrap()
}

/// Revisions that differ.
static RENDERED: LazyLock<[Rendered; 5]> = LazyLock::new(|| {
    std::array::from_fn(|days| {
        let mut setup = example("s");
        setup.spec.sinks[0].log.as_mut().unwrap().max_age_days = days as i64 + 1;
        let capabilities = Capabilities::of(KubernetesVersion::new(36));
        render(&validate(&setup, &References::default(), capabilities, &Floor::default()).unwrap())
    })
});

fn id(revision: usize) -> String {
    RENDERED[revision].revision.id.to_string()
}

/// A Setup, and the Revision that it comes to.
#[derive(Clone)]
struct Wanted {
    setup: AuditSetup,
    revision: usize,
    is_rejected: bool,
}

/// The NodeAudits in the API, and the watch of the controller, which shows each change some time later.
struct Api {
    audits: BTreeMap<String, NodeAudit>,
    version: u64,
    events: VecDeque<Event<NodeAudit>>,
    shown: Arc<Shared<NodeAudit>>,
    writer: Writer<NodeAudit>,
}

impl Api {
    fn new() -> Self {
        let (shown, writer) = Shared::new();
        Self { audits: BTreeMap::new(), version: 0, events: VecDeque::new(), shown, writer }
    }

    fn store(&mut self, mut audit: NodeAudit) -> NodeAudit {
        self.version += 1;
        audit.metadata.resource_version = Some(self.version.to_string());
        self.audits.insert(audit.name_any(), audit.clone());
        self.events.push_back(Event::Apply(audit.clone()));
        audit
    }

    fn write_spec(&mut self, name: &str, spec: NodeAuditSpec) -> NodeAudit {
        let mut audit = self.audits.get(name).cloned().unwrap_or_else(|| {
            let mut audit = NodeAudit::new(name, spec.clone());
            audit.metadata.uid = Some(format!("{name}-{}", self.version));
            audit
        });
        if audit.spec == spec && audit.metadata.generation.is_some() {
            return audit;
        }
        audit.metadata.generation = Some(audit.metadata.generation.unwrap_or(0) + 1);
        audit.spec = spec;
        self.store(audit)
    }

    fn write_status(&mut self, name: &str, status: Option<NodeAuditStatus>) {
        if let Some(audit) = self.audits.get(name).filter(|audit| audit.status != status) {
            let audit = NodeAudit { status, ..audit.clone() };
            self.store(audit);
        }
    }

    fn delete(&mut self, name: &str) {
        let Some(mut audit) = self.audits.remove(name) else { return };
        self.version += 1;
        audit.metadata.resource_version = Some(self.version.to_string());
        self.events.push_back(Event::Delete(audit));
    }

    /// The watch shows the next change.
    fn show(&mut self) {
        if let Some(event) = self.events.pop_front() {
            self.shown.show(&mut self.writer, &event);
        }
    }

    fn show_all(&mut self) {
        while !self.events.is_empty() {
            self.show();
        }
    }

    /// The controller begins again, with a list.
    fn list(&mut self) {
        (self.shown, self.writer) = Shared::new();
        self.events = self.audits.values().cloned().map(Event::InitApply).collect();
        self.events.push_front(Event::Init);
        self.events.push_back(Event::InitDone);
        self.show_all();
    }
}

/// Two Setups, their nodes, and the API between them and the controller.
struct Cluster {
    wanted: Vec<Wanted>,
    nodes: BTreeMap<String, NodeFacts>,
    api: Api,
    /// The Setups and the Nodes as the watches of the controller show them.
    shown_wanted: Vec<Wanted>,
    shown_nodes: BTreeMap<String, NodeFacts>,
    hosts: BTreeMap<String, Host>,
}

impl Cluster {
    /// Begins with `hosts` that may have our settings, from `audit-operator apply` or from before the CRDs were lost.
    fn new(hosts: [Host; 3], is_paused: bool) -> Self {
        let wanted = |index: usize| {
            let mut setup = example(&format!("s{index}"));
            setup.spec.rollout.paused = is_paused;
            Wanted { setup, revision: index + 1, is_rejected: false }
        };
        let hosts: BTreeMap<_, _> = ["a", "b", "c"].into_iter().map(String::from).zip(hosts).collect();
        let facts = NodeFacts { uid: String::new(), is_ready: true, kubelet_version: String::new() };
        let nodes: BTreeMap<_, _> = hosts.keys().map(|name| (name.clone(), facts.clone())).collect();
        let wanted = vec![wanted(0), wanted(1)];
        let (shown_wanted, shown_nodes) = (wanted.clone(), nodes.clone());
        Cluster { wanted, nodes, api: Api::new(), shown_wanted, shown_nodes, hosts }
    }

    /// All watches show what there is.
    fn show_all(&mut self) {
        self.api.show_all();
        self.shown_wanted = self.wanted.clone();
        self.shown_nodes = self.nodes.clone();
    }

    fn basis(&self) -> Basis {
        let setups = specs(self.wanted.iter().map(|wanted| &wanted.setup));
        Basis { audits: versions(self.api.audits.values()), setups, nodes: self.nodes.clone() }
    }

    /// A pass of the controller, whose watches may be late.
    fn pass(&mut self) {
        let audits = self.api.shown.objects();
        let shown = self.shown_wanted.clone();
        let world = World {
            setups: shown.iter().map(|wanted| Arc::new(wanted.setup.clone())).collect(),
            nodes: self.shown_nodes.clone(),
            versions: versions(audits.values().map(Arc::as_ref)),
            audits,
            ..World::default()
        };
        let judged: Vec<_> = shown.iter().map(|wanted| judge(&world, &wanted.setup, wanted)).collect();
        let claims = claims(&world, &judged);
        let now = NOW.parse().unwrap();
        let decisions = decide(&claims, &unclaimed(&world, &claims), now);
        let mut basis = world.basis();
        for (judged, (claim, decision)) in judged.iter().zip(claims.iter().zip(&decisions)) {
            if self.write(&mut basis, judged, claim, decision).is_none() {
                continue;
            }
            let Judged::Setup { setup, covered, left, .. } = judged else { unreachable!("both are there") };
            let names = covered.iter().chain(left);
            let nodes: Vec<_> = names.filter_map(|name| world.node(name, Default::default())).collect();
            let status = status(Facts { setup, nodes: &nodes, judgement: Judgement::NoNodes, now });
            let is_same = |wanted: &&mut Wanted| wanted.setup.name_any() == setup.name_any();
            for wanted in self.wanted.iter_mut().chain(&mut self.shown_wanted).filter(is_same) {
                wanted.setup.status = Some(status.clone());
            }
        }
        // A deleted Setup goes when the controller sees that it is deleted, and has restored its nodes.
        let is_of = |name: &str| self.api.audits.values().any(|audit| audit.spec.setup == name);
        let is_gone = |setup: &AuditSetup| setup.metadata.deletion_timestamp.is_some() && !is_of(&setup.name_any());
        let gone: Vec<_> = shown.iter().map(|wanted| &wanted.setup).filter(|setup| is_gone(setup)).collect();
        let is_there = |wanted: &Wanted| gone.iter().all(|gone| gone.name_any() != wanted.setup.name_any());
        self.wanted.retain(is_there);
        self.shown_wanted.retain(is_there);
    }

    /// The agent of a node is late with what it sees.
    fn late_agent(&mut self, name: &str) {
        let status = self.hosts.get_mut(name).unwrap().pass();
        self.api.write_status(name, status);
    }

    fn agent(&mut self, name: &str) {
        self.hosts.get_mut(name).unwrap().seen = self.api.audits.get(name).cloned();
        self.late_agent(name);
    }

    /// Until nothing goes on any more.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.show_all();
            self.pass();
            for name in ["a", "b", "c"] {
                self.agent(name);
                self.check();
                self.hosts.get_mut(name).unwrap().end(None, true);
                self.agent(name);
            }
        }
    }

    fn check(&self) {
        let changing = self.hosts.values().filter(|host| host.change.is_some()).count();
        assert!(changing <= 1, "{changing} nodes in change: {:?}", self.hosts);
        let slots = self.api.audits.values().filter(|audit| audit.spec.may_change).count();
        assert!(slots <= 1, "{slots} nodes have a slot: {:?}", self.api.audits);
    }

    /// kubeadm rewrites a manifest, whichever node is in change.
    fn drift(&mut self, name: &str) {
        let host = self.hosts.get_mut(name).unwrap();
        host.manifest = host.manifest.take().filter(|_| host.change.is_some());
        self.late_agent(name);
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
            4..=6 => self.agent(name),
            7..=8 => self.late_agent(name),
            9..=12 => self.hosts.get_mut(name).unwrap().end(self.api.audits.get(name), event > 9),
            13 => self.edit(index, |wanted| wanted.setup.spec.rollout.paused ^= true),
            14 => self.edit(index, |Wanted { revision, .. }| *revision = if *revision == 1 { 2 } else { 1 }),
            // Somebody deletes a NodeAudit, not to leave the node as it is, and not twice within the moment that a
            // report takes.
            15 if self.wanted.iter().all(|wanted| wanted.setup.metadata.deletion_timestamp.is_none()) => {
                self.show_all();
                self.pass();
                self.api.delete(name);
                self.pass();
                self.api.show_all();
                self.pass();
                self.agent(name);
            }
            16 => self.drift(name),
            17 => self.edit(index, |wanted| wanted.is_rejected ^= true),
            18 if index == 0 => self.edit(0, |wanted| {
                wanted.setup.metadata.deletion_timestamp = Some(Time(LONG_AGO.parse().unwrap()));
            }),
            19..=21 => self.api.show(),
            22 => self.api.show_all(),
            23 => self.api.list(),
            24 => {
                let facts = self.nodes.get_mut(name).unwrap();
                facts.is_ready = !facts.is_ready;
            }
            25 => self.shown_wanted = self.wanted.clone(),
            26 => self.shown_nodes = self.nodes.clone(),
            _ => {}
        }
    }
}

fn judge<'a>(world: &World, setup: &'a AuditSetup, wanted: &Wanted) -> Judged<'a> {
    let name = setup.name_any();
    let is_deleted = setup.metadata.deletion_timestamp.is_some();
    let held = world.audits.iter().filter(|(_, audit)| audit.spec.setup == name).map(|(name, _)| name.clone());
    let of_setup = NODES[usize::from(name == "s1")].iter().map(|name| name.to_string());
    let (covered, left) = if is_deleted { (Vec::new(), held.collect()) } else { (of_setup.collect(), Vec::new()) };
    let ruling = match wanted {
        _ if is_deleted => Ruling::Deleted,
        Wanted { is_rejected: true, .. } => Ruling::Rejected(Vec::new()),
        Wanted { revision, .. } => Ruling::Rendered { rendered: Box::new(RENDERED[*revision].clone()), change: None },
    };
    Judged::Setup { setup, ruling, covered, left }
}

impl Cluster {
    /// Writes as `apply` does, with the preconditions that the API checks. `None`: one of them was not met.
    fn write(&mut self, basis: &mut Basis, judged: &Judged, claim: &Claim, decision: &Decision) -> Option<Applied> {
        let mut applied = Applied::Done;
        let version = |audit: &NodeAudit| (audit.uid(), audit.resource_version());
        for (node, assignment) in claim.nodes.iter().zip(&decision.assignments) {
            match (assignment, node.audit) {
                (Assignment::Release, Some(audit)) => {
                    if self.api.audits.get(node.name).is_some_and(|stored| version(stored) != version(audit)) {
                        return None;
                    }
                    self.api.delete(node.name);
                    basis.audits.remove(node.name);
                    self.api.shown.deleted(audit);
                    continue;
                }
                (Assignment::Start, _) if basis.difference(&self.basis()).is_some() => {
                    self.api.shown.forget_own();
                    applied = Applied::Outdated;
                    continue;
                }
                (Assignment::Start, _) => self.check_start(judged),
                // A merge patch makes nothing.
                (_, Some(_)) if !self.api.audits.contains_key(node.name) => return None,
                _ => {}
            }
            let spec = judged.spec(node, *assignment, None);
            if node.audit.is_none_or(|audit| audit.spec != spec) {
                let written = self.api.write_spec(node.name, spec);
                basis.audits.insert(node.name.into(), version(&written));
                self.api.shown.wrote(written);
            }
        }
        Some(applied)
    }

    /// A slot is given by the Setup as it is now, and beside the Nodes as they are now.
    fn check_start(&self, judged: &Judged) {
        let Judged::Setup { setup, .. } = judged else { return };
        let now = self.wanted.iter().find(|wanted| wanted.setup.name_any() == setup.name_any());
        let spec = |setup: &AuditSetup| (setup.metadata.generation, setup.metadata.deletion_timestamp.clone());
        assert_eq!(now.map(|wanted| spec(&wanted.setup)), Some(spec(setup)));
        assert_eq!(self.shown_nodes, self.nodes);
    }
}

proptest! {
    #[test]
    fn whatever_happens_at_most_one_node_of_all_setups_is_in_change_and_all_get_there(
        found in any::<[(bool, bool); 3]>(),
        is_paused in any::<bool>(),
        events in prop::collection::vec((0..27_u8, 0..3_usize), 0..100),
    ) {
        let ours = |has: bool| has.then(|| id(1));
        let host = |(has, remembers)| Host { manifest: ours(has), confirmed: ours(has && remembers), ..Host::default() };
        let mut cluster = Cluster::new(found.map(host), is_paused);
        for (event, index) in events {
            cluster.happens(event, index);
            cluster.check();
        }
        for _ in 0..10 {
            cluster.show_all();
            cluster.pass();
            ["a", "b", "c"].iter().for_each(|name| cluster.agent(name));
        }
        cluster.show_all();
        let before = cluster.api.audits.clone();
        cluster.pass();
        prop_assert_eq!(&cluster.api.audits, &before, "with nothing new there is nothing to write");
        for index in 0..cluster.wanted.len() {
            cluster.edit(index, |wanted| {
                wanted.setup.spec.rollout.paused = false;
                wanted.is_rejected = false;
            });
        }
        cluster.nodes.values_mut().for_each(|facts| facts.is_ready = true);
        cluster.settle();
        for Wanted { setup, revision, .. } in &cluster.wanted {
            prop_assert!(setup.metadata.deletion_timestamp.is_none(), "it is restored: {:?}", cluster.hosts);
            for name in NODES[usize::from(setup.name_any() == "s1")] {
                let host = &cluster.hosts[*name];
                prop_assert_eq!((&host.manifest, &host.confirmed), (&Some(id(*revision)), &Some(id(*revision))), "{}", name);
            }
        }
    }
}

#[test]
fn nodes_of_a_rejected_setup_keep_their_revision() {
    let mut cluster = Cluster::new(Default::default(), false);
    cluster.settle();
    // While it has the slot.
    cluster.edit(1, |wanted| wanted.revision = 3);
    cluster.show_all();
    cluster.pass();
    cluster.edit(1, |wanted| wanted.is_rejected = true);
    for name in ["a", "b", "c"] {
        cluster.drift(name);
    }
    cluster.settle();
    let manifest = |cluster: &Cluster, name| cluster.hosts[name].manifest.clone().unwrap();
    assert_eq!(["a", "b", "c"].map(|name| manifest(&cluster, name)), [id(1), id(3), id(2)]);
    assert!(cluster.api.audits.values().all(|audit| !audit.spec.may_change), "all slots have ended");
    cluster.edit(0, |wanted| wanted.revision = 4);
    cluster.settle();
    assert_eq!(manifest(&cluster, "a"), id(4), "another Setup does not wait for it");
}

#[test]
fn a_watch_that_is_late_gives_no_second_slot() {
    let mut cluster = Cluster::new(Default::default(), false);
    cluster.settle();
    cluster.edit(1, |wanted| wanted.revision = 3);
    cluster.show_all();
    cluster.pass();
    assert!(cluster.api.audits["b"].spec.may_change);
    // The watch still shows all nodes at rest. Our own write is known, so nothing is decided again.
    let before = cluster.api.audits.clone();
    cluster.pass();
    assert_eq!(cluster.api.audits, before);
    // A controller that forgot it does not decide either: the API has other NodeAudits than its watch.
    cluster.api.shown.forget_own();
    cluster.edit(0, |wanted| wanted.revision = 4);
    cluster.shown_wanted = cluster.wanted.clone();
    cluster.pass();
    assert_eq!(cluster.api.audits, before, "the slot of b is not seen, and a gets none");
    cluster.show_all();
    cluster.pass();
    cluster.check();
    assert!(!cluster.api.audits["a"].spec.may_change);
}
