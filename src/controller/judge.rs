//! Judges all Setups: which nodes each has, and which Revision those should run. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::change::change;
use super::cover::{Cover, cover};
use super::world::{World, reported};
use crate::api::{AuditSetup, CredentialsRef, NodeAudit, NodeAuditSpec, OnSinkFailure, Rollout, SinkRef};
use crate::render::{Rendered, render};
use crate::revision::Revision;
use crate::rollout::{Assignment, Claim, Goal, Node};
use crate::validate::{Capabilities, Problem, validate};

/// A Setup with its nodes.
pub(super) enum Judged<'a> {
    Setup {
        setup: &'a AuditSetup,
        ruling: Ruling,
        /// The nodes that it has.
        covered: Vec<String>,
        /// The nodes with a `NodeAudit` of it that neither it nor another Setup covers any more.
        left: Vec<String>,
    },
    /// A Setup that went without us, as far as its nodes know it. They are restored.
    Orphan {
        /// Of the newest generation that a node knows.
        goal: Goal<'a>,
        nodes: Vec<&'a NodeAudit>,
    },
}

/// The decision about the nodes of a Setup.
pub(super) enum Ruling {
    /// The covered nodes get this Revision; those that it left are restored.
    Rendered {
        rendered: Box<Rendered>,
        /// The changes against the target before, in words.
        change: Option<String>,
    },
    /// The nodes keep their Revision: what something else makes of it is corrected, and changes under way end.
    Rejected(Vec<Problem>),
    /// The same, because an older Setup has one of its nodes.
    Conflict { older: String, node: String },
    /// It covers no node; those that it left are restored.
    NoNodes,
    /// It is being deleted; all its nodes are restored.
    Deleted,
}

/// Judges every Setup, and then the nodes of those that are gone.
pub(super) fn judge(world: &World) -> Vec<Judged<'_>> {
    let covers = cover(&world.setups, &claimed(world));
    let setups = world.setups.iter().map(|setup| judge_setup(world, &covers, setup));
    setups.chain(orphans(world, &covers)).collect()
}

/// The nodes that each Setup lays claim to. A Setup that is being deleted claims those that it has not restored yet, so
/// that another Setup begins with them only then.
fn claimed(world: &World) -> BTreeMap<String, Vec<String>> {
    let claimed = world.setups.iter().map(|setup| {
        let name = setup.name_any();
        let nodes = match setup.metadata.deletion_timestamp {
            Some(_) => assigned_by(world, &name).cloned().collect(),
            None => world.selected.get(&name).cloned().unwrap_or_else(|| assigned_by(world, &name).cloned().collect()),
        };
        (name, nodes)
    });
    claimed.collect()
}

/// Names of the nodes that have a `NodeAudit` of this Setup.
fn assigned_by<'a>(world: &'a World, setup: &str) -> impl Iterator<Item = &'a String> {
    world.audits.iter().filter(move |(_, audit)| audit.spec.setup == setup).map(|(name, _)| name)
}

fn judge_setup<'a>(world: &'a World, covers: &BTreeMap<String, Cover>, setup: &'a AuditSetup) -> Judged<'a> {
    let name = setup.name_any();
    let cover = covers.get(&name).expect("every Setup of the world was covered");
    let (covered, conflict) = match cover {
        Cover::Nodes(nodes) => (nodes.clone(), None),
        Cover::Conflict { older, node } => (Vec::new(), Some((older.clone(), node.clone()))),
    };
    let left = assigned_by(world, &name).filter(|node| !is_covered(covers, node)).cloned().collect();
    let ruling = if setup.metadata.deletion_timestamp.is_some() {
        Ruling::Deleted
    } else if let Some((older, node)) = conflict {
        Ruling::Conflict { older, node }
    } else if let Some(problems) = world.unknown.get(&name) {
        Ruling::Rejected(problems.clone())
    } else if covered.is_empty() {
        Ruling::NoNodes
    } else {
        match validate(setup, &world.references, capabilities(world, &covered), &world.floor) {
            Ok(valid) => {
                let rendered = Box::new(render(&valid));
                let change = change_of_target(world, setup, &rendered.revision);
                Ruling::Rendered { rendered, change }
            }
            Err(problems) => Ruling::Rejected(problems),
        }
    };
    Judged::Setup { setup, ruling, covered, left }
}

/// Whether a Setup has this node.
fn is_covered(covers: &BTreeMap<String, Cover>, node: &String) -> bool {
    covers.values().any(|cover| matches!(cover, Cover::Nodes(nodes) if nodes.contains(node)))
}

/// The changes against the target before; `None` where the target is the same, or the one before is gone.
fn change_of_target(world: &World, setup: &AuditSetup, revision: &Revision) -> Option<String> {
    let before = setup.status.as_ref()?.revision.as_ref()?.target.as_deref()?;
    if before == revision.id.as_str() {
        return None;
    }
    Some(change(&world.revision(before)?, revision))
}

/// The nodes of each Setup that is gone, unless another Setup covers them.
fn orphans<'a>(world: &'a World, covers: &BTreeMap<String, Cover>) -> Vec<Judged<'a>> {
    let is_there = |name: &str| world.setups.iter().any(|setup| setup.name_any() == name);
    let mut found: BTreeMap<&str, Vec<&NodeAudit>> = BTreeMap::new();
    for (node, audit) in &world.audits {
        if !is_there(&audit.spec.setup) && !is_covered(covers, node) {
            found.entry(&audit.spec.setup).or_default().push(audit);
        }
    }
    let orphan = |nodes: Vec<&'a NodeAudit>| {
        let newest = nodes.iter().max_by_key(|audit| audit.spec.setup_generation).expect("a node knows the Setup");
        Judged::Orphan { goal: Goal { revision: None, ..Goal::assigned(newest) }, nodes }
    };
    found.into_values().map(orphan).collect()
}

impl Judged<'_> {
    /// Its nodes as the rollout sees them, by name.
    pub(super) fn claim<'a>(&'a self, world: &'a World) -> Claim<'a> {
        match self {
            Judged::Setup { setup, ruling, covered, left } => {
                let Rollout { paused, min_ready_seconds, on_sink_failure, .. } = setup.spec.rollout;
                let mut nodes: Vec<Node> = match ruling {
                    Ruling::Rejected(_) | Ruling::Conflict { .. } => {
                        let names = covered.iter().chain(left);
                        names.filter_map(|name| world.node(name, kept_goal(world, setup, name)?)).collect()
                    }
                    Ruling::Rendered { .. } | Ruling::NoNodes | Ruling::Deleted => {
                        let goal = |revision| Goal {
                            revision,
                            setup_uid: setup.metadata.uid.as_deref(),
                            setup_generation: setup.metadata.generation.unwrap_or(0),
                        };
                        let target = goal(self.target().map(|target| target.id.as_str()));
                        let covered = covered.iter().filter_map(|name| world.node(name, target));
                        covered.chain(left.iter().filter_map(|name| world.node(name, goal(None)))).collect()
                    }
                };
                nodes.sort_by_key(|node| node.name);
                Claim {
                    nodes,
                    is_paused: paused,
                    min_ready: SignedDuration::from_secs(min_ready_seconds),
                    on_sink_failure,
                }
            }
            Judged::Orphan { goal, nodes } => {
                let seconds = nodes.iter().map(|audit| audit.spec.rollout.min_ready_seconds).max().unwrap_or(0);
                let names = nodes.iter().filter_map(|audit| audit.metadata.name.as_deref());
                let nodes = names.filter_map(|name| world.node(name, *goal)).collect();
                Claim {
                    nodes,
                    is_paused: false,
                    min_ready: SignedDuration::from_secs(seconds),
                    on_sink_failure: OnSinkFailure::Continue,
                }
            }
        }
    }

    /// The Revision that the covered nodes should run.
    fn target(&self) -> Option<&Revision> {
        match self {
            Judged::Setup { ruling: Ruling::Rendered { rendered, .. }, .. } => Some(&rendered.revision),
            _ => None,
        }
    }

    /// The nodes that status shows, by name: of a Setup whose nodes keep their Revision also those that have none.
    pub(super) fn shown<'a>(&'a self, world: &'a World, claim: &Claim<'a>) -> Vec<Node<'a>> {
        match self {
            Judged::Setup { ruling: Ruling::Rejected(_) | Ruling::Conflict { .. }, covered, left, .. } => {
                let names: BTreeSet<&String> = covered.iter().chain(left).collect();
                names.into_iter().filter_map(|name| world.node(name, Goal::default())).collect()
            }
            _ => claim.nodes.clone(),
        }
    }

    /// The spec that a node gets.
    pub(super) fn spec(
        &self,
        node: &Node,
        assignment: Assignment,
        credentials: Option<&CredentialsRef>,
    ) -> NodeAuditSpec {
        match (self, node.audit) {
            (Judged::Setup { setup, ruling: Ruling::Rejected(_) | Ruling::Conflict { .. }, .. }, Some(before)) => {
                kept_spec(setup, before, assignment)
            }
            (Judged::Setup { setup, ruling, .. }, before) => {
                let supplies = match ruling {
                    Ruling::Rendered { rendered, .. } if node.goal.revision.is_some() => {
                        Some(Supplies { target: &rendered.revision, credentials, sinks: &rendered.sinks })
                    }
                    _ => None,
                };
                node_spec(setup, before, node.goal, assignment, supplies)
            }
            (Judged::Orphan { .. }, before) => {
                let before = before.expect("an orphan is known by its NodeAudit");
                let Goal { revision, setup_uid, setup_generation } = assigned(node.goal, assignment, Some(before));
                let digest = before.spec.revision_digest.clone().filter(|_| revision.is_some());
                NodeAuditSpec {
                    setup_uid: setup_uid.map(str::to_string),
                    setup_generation,
                    revision: revision.map(str::to_string),
                    revision_digest: digest,
                    may_change: may_change(assignment, Some(before)),
                    rollout: Rollout { paused: false, ..before.spec.rollout.clone() },
                    ..before.spec.clone()
                }
            }
        }
    }
}

/// The goal of a node that keeps its Revision; `None` where it has none. Such a node gets no slot, and nothing is
/// written for it.
fn kept_goal<'a>(world: &'a World, setup: &AuditSetup, node: &str) -> Option<Goal<'a>> {
    match world.audits.get(node) {
        Some(audit) => (audit.spec.revision.is_some() || audit.spec.may_change).then(|| Goal::assigned(audit)),
        None => reported(setup).any(|reported| reported == node).then(Goal::default),
    }
}

/// The nodes that no claim has, and that have a `NodeAudit` or had one.
pub(super) fn unclaimed<'a>(world: &'a World, claims: &[Claim]) -> Vec<Node<'a>> {
    let claimed: BTreeSet<&str> = claims.iter().flat_map(|claim| &claim.nodes).map(|node| node.name).collect();
    let reported = world.setups.iter().flat_map(|setup| reported(setup));
    let names: BTreeSet<&String> = world.audits.keys().chain(reported).collect();
    let others = names.into_iter().filter(|name| !claimed.contains(name.as_str()));
    others.filter_map(|name| world.node(name, Goal::default())).collect()
}

/// The parts of a node's assignment beside the Revision.
#[derive(Clone, Copy)]
struct Supplies<'a> {
    target: &'a Revision,
    credentials: Option<&'a CredentialsRef>,
    sinks: &'a [SinkRef],
}

/// The goal that goes into the spec. A node gets the slot only with a Revision, or after it had one: without one, a
/// node that has our settings already would restore its original manifest.
fn assigned<'a>(goal: Goal<'a>, assignment: Assignment, before: Option<&'a NodeAudit>) -> Goal<'a> {
    match (assignment, before) {
        (Assignment::Start | Assignment::Follow, _) => goal,
        (Assignment::Continue | Assignment::Hold | Assignment::Release, Some(before)) => Goal::assigned(before),
        (Assignment::Continue | Assignment::Hold | Assignment::Release, None) => Goal { revision: None, ..goal },
    }
}

/// `supplies`: none for a node that is being restored; it keeps those that it has, since its API server may use them
/// until the very end.
fn node_spec(
    setup: &AuditSetup,
    before: Option<&NodeAudit>,
    goal: Goal,
    assignment: Assignment,
    supplies: Option<Supplies>,
) -> NodeAuditSpec {
    let Goal { revision, setup_uid, setup_generation } = assigned(goal, assignment, before);
    let (credentials, sinks, canary) = match (supplies, before) {
        (Some(supplies), _) => (supplies.credentials.cloned(), supplies.sinks.to_vec(), setup.spec.policy.canary_rule),
        (None, Some(NodeAudit { spec, .. })) => (spec.credentials.clone(), spec.sinks.clone(), spec.canary),
        (None, None) => (None, Vec::new(), false),
    };
    // A node that keeps its Revision keeps its digest too.
    let digest = match supplies.filter(|supplies| revision == Some(supplies.target.id.as_str())) {
        Some(supplies) => Some(supplies.target.digest.to_string()),
        None => before.filter(|_| revision.is_some()).and_then(|before| before.spec.revision_digest.clone()),
    };
    NodeAuditSpec {
        setup: setup.name_any(),
        setup_uid: setup_uid.map(str::to_string),
        setup_generation,
        revision: revision.map(str::to_string),
        revision_digest: digest,
        credentials,
        may_change: may_change(assignment, before),
        rollout: setup.spec.rollout.clone(),
        sinks,
        canary,
    }
}

/// The spec of a node that keeps its Revision, and the Setup that assigned it; `setup` says only whether it may change
/// now.
fn kept_spec(setup: &AuditSetup, before: &NodeAudit, assignment: Assignment) -> NodeAuditSpec {
    let rollout = Rollout { paused: setup.spec.rollout.paused, ..before.spec.rollout.clone() };
    NodeAuditSpec { may_change: may_change(assignment, Some(before)), rollout, ..before.spec.clone() }
}

/// Only [`Assignment::Start`] gives the slot, not the end of a pause: all nodes that wait would begin at once.
fn may_change(assignment: Assignment, before: Option<&NodeAudit>) -> bool {
    match assignment {
        Assignment::Start => true,
        Assignment::Continue => before.is_some_and(|before| before.spec.may_change),
        Assignment::Follow | Assignment::Hold | Assignment::Release => false,
    }
}

/// The capabilities of the API servers of the nodes, from the oldest to the newest. Where an agent has not reported
/// yet, by the version of the kubelet, which is never newer than the API server.
fn capabilities(world: &World, nodes: &[String]) -> Capabilities {
    let versions = || {
        nodes.iter().filter_map(|name| {
            let reported = |audit: &Arc<NodeAudit>| audit.status.as_ref()?.api_server_version.clone();
            let version = world.audits.get(name).and_then(reported);
            version.or_else(|| Some(world.nodes.get(name)?.kubelet_version.clone()))?.parse().ok()
        })
    };
    // Without any known version, nothing is used that a version has to support.
    Capabilities { oldest: versions().min().unwrap_or_default(), newest: versions().max().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Reason;

    fn example() -> AuditSetup {
        serde_saphyr::from_str(include_str!("../../examples/log-only.yaml")).expect("an example is a Setup")
    }

    fn audit(node: &str, spec: serde_json::Value) -> NodeAudit {
        let metadata = json!({"name": node});
        let audit = json!({"apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": metadata, "spec": spec});
        serde_json::from_value(audit).unwrap()
    }

    #[test]
    fn a_node_changes_only_with_the_slot() {
        let setup = example();
        let mut paused = setup.clone();
        paused.spec.rollout.paused = true;
        let before = |may_change: bool| {
            audit(
                "cp1",
                json!({
                    "setup": "old", "setupUid": "old", "setupGeneration": 6, "revision": "r-1", "mayChange": may_change,
                    "rollout": {"minReadySeconds": 99},
                }),
            )
        };
        let (held, has_slot) = (before(false), before(true));
        let goal = Goal { revision: Some("r-9"), setup_uid: Some("new"), setup_generation: 9 };
        for (before, assignment, want) in [
            (None, Assignment::Hold, (None, Some("new"), 9, false)),
            (None, Assignment::Start, (Some("r-9"), Some("new"), 9, true)),
            (Some(&held), Assignment::Start, (Some("r-9"), Some("new"), 9, true)),
            (Some(&held), Assignment::Continue, (Some("r-1"), Some("old"), 6, false)),
            (Some(&held), Assignment::Hold, (Some("r-1"), Some("old"), 6, false)),
            (Some(&has_slot), Assignment::Continue, (Some("r-1"), Some("old"), 6, true)),
            (Some(&has_slot), Assignment::Hold, (Some("r-1"), Some("old"), 6, false)),
            (Some(&has_slot), Assignment::Follow, (Some("r-9"), Some("new"), 9, false)),
        ] {
            let spec = node_spec(&setup, before, goal, assignment, None);
            let found = (spec.revision.as_deref(), spec.setup_uid.as_deref(), spec.setup_generation, spec.may_change);
            assert_eq!(found, want, "{assignment:?} {before:?}");
            assert_eq!((spec.setup.as_str(), spec.rollout), ("cluster", setup.spec.rollout.clone()));

            let Some(before) = before else { continue };
            let kept = kept_spec(&paused, before, assignment);
            let rollout = Rollout { paused: true, ..before.spec.rollout.clone() };
            let want = NodeAuditSpec { may_change: want.3, rollout, ..before.spec.clone() };
            assert_eq!(kept, want, "{assignment:?} {before:?}");
        }
    }

    #[test]
    fn nodes_of_a_setup_that_went_without_us_are_orphans_unless_another_one_covers_them() {
        let of = |node: &str, setup: &str, generation: i64, seconds: i64| {
            let spec = json!({
                "setup": setup, "setupUid": format!("uid-{setup}"), "setupGeneration": generation, "revision": "r-1",
                "revisionDigest": "d", "rollout": {"paused": true, "minReadySeconds": seconds}, "canary": true,
            });
            (node.to_string(), Arc::new(audit(node, spec)))
        };
        let there = Arc::new(example());
        let name = there.name_any();
        let facts =
            super::super::world::NodeFacts { uid: String::new(), is_ready: true, kubelet_version: String::new() };
        let world = World {
            setups: vec![there],
            nodes: ["a", "b", "c", "d"].map(|node| (node.to_string(), facts.clone())).into(),
            audits: [of("a", "gone", 3, 7), of("b", "gone", 5, 9), of("c", "gone", 9, 1), of("d", &name, 1, 1)].into(),
            ..World::default()
        };
        let covers = [(name, Cover::Nodes(vec!["c".into()]))].into();
        let [orphan] = &orphans(&world, &covers)[..] else { panic!("one Setup went") };
        let claim = orphan.claim(&world);
        assert_eq!(claim.nodes.iter().map(|node| node.name).collect::<Vec<_>>(), ["a", "b"]);
        let goal = Goal { revision: None, setup_uid: Some("uid-gone"), setup_generation: 5 };
        assert!(claim.nodes.iter().all(|node| node.goal == goal));
        assert_eq!((claim.is_paused, claim.min_ready.as_secs()), (false, 9));

        let start = orphan.spec(&claim.nodes[0], Assignment::Start, None);
        let before = &world.audits["a"].spec;
        let rollout = Rollout { paused: false, ..before.rollout.clone() };
        let want = NodeAuditSpec {
            setup_generation: 5,
            revision: None,
            revision_digest: None,
            may_change: true,
            rollout,
            ..before.clone()
        };
        assert_eq!(start, want);
        let held = orphan.spec(&claim.nodes[0], Assignment::Hold, None);
        let want = NodeAuditSpec {
            setup_generation: 3,
            revision: before.revision.clone(),
            revision_digest: before.revision_digest.clone(),
            may_change: false,
            ..want
        };
        assert_eq!(held, want);
    }

    #[test]
    fn each_setup_is_judged_with_its_nodes() {
        let setup = |name: &str, created: &str| {
            let mut setup = example();
            setup.metadata.name = Some(name.into());
            setup.metadata.creation_timestamp = serde_json::from_value(json!(created)).unwrap();
            setup
        };
        let (early, late) = ("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
        let mut rejected = setup("rejected", late);
        rejected.spec.policy = serde_json::from_value(json!({"configMapRef": {"name": "missing"}})).unwrap();
        let mut deleted = setup("deleted", early);
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!(late)).unwrap();
        let unknown = [setup("unknown", early), setup("unknown-without-nodes", early)];
        let setups = [setup("conflict", late), deleted, setup("elsewhere", early), setup("nowhere", early), rejected];
        let setups: Vec<_> = setups.into_iter().chain(unknown).map(Arc::new).collect();
        let problem = Problem { field: "spec.nodeSelector".into(), reason: Reason::Pending, message: String::new() };
        let facts =
            super::super::world::NodeFacts { uid: String::new(), is_ready: true, kubelet_version: "v1.36.0".into() };
        let audit = |node: &str, setup: &str| {
            let spec = json!({"setup": setup, "setupGeneration": 1, "revision": "r-1"});
            (node.to_string(), Arc::new(audit(node, spec)))
        };
        let selected = |setup: &str, nodes: &[&str]| {
            (setup.to_string(), nodes.iter().map(|node| node.to_string()).collect::<Vec<_>>())
        };
        let world = World {
            setups,
            unknown: ["unknown", "unknown-without-nodes"].map(|name| (name.into(), vec![problem.clone()])).into(),
            nodes: ["a", "b", "c", "d", "e", "f", "g"].map(|node| (node.to_string(), facts.clone())).into(),
            selected: [
                selected("conflict", &["b", "c"]),
                // A Setup that is being deleted selects nothing new, and has its nodes until they are restored.
                selected("deleted", &["b", "f"]),
                selected("elsewhere", &["b"]),
                selected("nowhere", &[]),
                selected("rejected", &["d"]),
            ]
            .into(),
            audits: [
                audit("a", "deleted"),
                // Another Setup goes on with this one.
                audit("b", "nowhere"),
                audit("c", "conflict"),
                audit("e", "nowhere"),
                audit("g", "unknown"),
            ]
            .into(),
            ..World::default()
        };
        let judged = judge(&world);
        let shown = judged.iter().map(|judged| {
            let Judged::Setup { setup, ruling, covered, left } = judged else { panic!("no Setup went") };
            let ruling = match ruling {
                Ruling::Rendered { .. } => "Rendered".to_string(),
                Ruling::Rejected(problems) => problems[0].field.clone(),
                Ruling::Conflict { older, node } => format!("Conflict with {older} over {node}"),
                Ruling::NoNodes => "NoNodes".into(),
                Ruling::Deleted => "Deleted".into(),
            };
            format!("{}: {ruling}, has {}, left {}", setup.name_any(), covered.join(" "), left.join(" "))
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "conflict: Conflict with elsewhere over b, has , left c",
                "deleted: Deleted, has a, left ",
                "elsewhere: Rendered, has b, left ",
                "nowhere: NoNodes, has , left e",
                "rejected: spec.policy.configMapRef, has d, left ",
                "unknown: spec.nodeSelector, has g, left ",
                "unknown-without-nodes: spec.nodeSelector, has , left ",
            ]
        );
        // The node that the older one has is decided on once, and the one without a Revision of its own waits for
        // nothing.
        let claims: Vec<_> = judged.iter().map(|judged| judged.claim(&world)).collect();
        let names = |claim: &Claim| claim.nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>();
        let names: Vec<_> = claims.iter().map(names).collect();
        assert_eq!(names, [vec!["c"], vec!["a"], vec!["b"], vec!["e"], vec![], vec!["g"], vec![]]);
        assert!(unclaimed(&world, &claims).is_empty());
        let restored = claims[1].nodes.iter().chain(&claims[3].nodes);
        assert!(restored.clone().count() == 2 && restored.map(|node| node.goal.revision).all(|goal| goal.is_none()));
        for kept in [&claims[0], &claims[5]] {
            assert_eq!(kept.nodes[0].goal.revision, Some("r-1"), "it keeps its Revision");
        }
    }
}
