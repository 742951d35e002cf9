//! One pass: fetch the cluster, then bring each Setup one step further. The steps of a Setup stand here in their order; what
//! they decide is pure, what they write is in [`super::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;

use super::apply::{self, Supplies};
use super::change::change;
use super::cover::{Cover, cover, selector};
use super::fetch::{World, fetch_references, fetch_revision, fetch_world};
use super::heard::Heard;
use super::report::report;
use super::watch::Watch;
use super::{Context, Error};
use crate::api::{AuditSetup, AuditSetupSpec, NodeAudit, NodeAuditSpec, PolicySpec, Rollout};
use crate::render::{Rendered, render};
use crate::rollout::{Decision, Goal, Node, Progress, Step, Terms, decide};
use crate::status::{Event, Judgement};
use crate::validate::{Capabilities, needs, validate};

/// What a pass leaves for the next one.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// When to look again even if nothing changes.
    pub(super) wake: Option<Duration>,
    /// What the next pass depends on.
    pub(super) watches: BTreeSet<Watch>,
}

/// A pass over all Setups, one after the other. One that fails does not hold up the others; the first error is returned.
pub(super) async fn pass(context: &Context, heard: &mut Heard) -> Result<Pass, Error> {
    let world = fetch_world(context, heard).await?;
    let covers = cover(&world.setups, &claims(&world));
    let mut pass =
        Pass { wake: None, watches: [Watch::Setups, Watch::NodeAudits, Watch::Secrets, Watch::ConfigMaps].into() };
    let mut failed = None;
    let mut told = None;
    context.metrics.begin();
    for setup in &world.setups {
        pass.watches.insert(Watch::Nodes(selector(setup)));
        let services = needs(setup).services.into_iter();
        pass.watches.extend(services.map(|(namespace, name)| Watch::Service(namespace, name)));
        match reconcile(context, &world, &covers, setup, &mut told).await {
            Ok(wake) => pass.wake = [pass.wake, wake].into_iter().flatten().min(),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    for (setup, nodes) in abandoned(&world, &covers) {
        match give_back(context, &world, &setup, &nodes, &mut told).await {
            Ok((_, decision)) => pass.wake = [pass.wake, wake(&decision)].into_iter().flatten().min(),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    context.metrics.publish();
    failed.map_or(Ok(pass), Err)
}

/// The nodes that each Setup lays claim to. One that is being deleted claims those that it has not given back yet, so that
/// they are restored before another Setup begins with them.
fn claims(world: &World) -> BTreeMap<String, Vec<String>> {
    let held_by = |name: &str| -> BTreeSet<String> {
        world.audits.values().filter(|audit| audit.spec.setup == name).map(ResourceExt::name_any).collect()
    };
    world
        .setups
        .iter()
        .map(|setup| {
            let name = setup.name_any();
            let nodes = match setup.metadata.deletion_timestamp {
                Some(_) => held_by(&name).into_iter().collect(),
                None => world.selected.get(&name).cloned().unwrap_or_default(),
            };
            (name, nodes)
        })
        .collect()
}

/// Brings one Setup a step further. Returns when to look again. `told`: see [`decide_for`].
async fn reconcile(
    context: &Context,
    world: &World,
    covers: &BTreeMap<String, Cover>,
    setup: &AuditSetup,
    told: &mut Option<String>,
) -> Result<Option<Duration>, Error> {
    let name = setup.name_any();
    let cover = covers.get(&name).expect("every Setup of the world was judged");
    let (covered, conflict) = match cover {
        Cover::Nodes(nodes) => (nodes.as_slice(), None),
        Cover::Conflict { older, node } => (&[][..], Some((older, node))),
    };
    let is_covered_elsewhere = |node: &str| {
        covers.iter().any(|(other, cover)| {
            *other != name && matches!(cover, Cover::Nodes(nodes) if nodes.iter().any(|covered| covered == node))
        })
    };
    // Nodes that it has a NodeAudit on and does not cover any more, unless another Setup goes on with them.
    let held = world.audits.values().filter(|audit| audit.spec.setup == name).map(ResourceExt::name_any);
    let left: Vec<String> = held.filter(|node| !covered.contains(node) && !is_covered_elsewhere(node)).collect();

    if setup.metadata.deletion_timestamp.is_some() {
        let all: Vec<String> = covered.iter().chain(&left).cloned().collect();
        return restore(context, world, setup, &all, told).await;
    }
    if let Some((older, node)) = conflict {
        return keep(context, world, setup, &left, Judgement::Conflict { older, node }, told).await;
    }
    if covered.is_empty() {
        let (nodes, decision) = give_back(context, world, setup, &left, told).await?;
        report(context, setup, &nodes, Judgement::NoNodes).await?;
        return Ok(wake(&decision));
    }

    let references = fetch_references(context, &needs(setup)).await?;
    let valid = match validate(setup, &references, capabilities(world, covered), &context.floor.current()) {
        Ok(valid) => valid,
        Err(problems) => {
            let mut all: Vec<String> = covered.iter().chain(&left).cloned().collect();
            all.sort();
            return keep(context, world, setup, &all, Judgement::Rejected(&problems), told).await;
        }
    };
    let Rendered { revision, credentials, sinks, policy, findings } = render(&valid);
    let target = revision.id.as_str();

    let known =
        setup.status.as_ref().and_then(|status| status.revision.as_ref()).and_then(|known| known.target.as_deref());
    let change = match known {
        Some(known) if known != target => {
            let before = fetch_revision(context, known).await?;
            before.map(|before| change(&before, &revision))
        }
        _ => None,
    };
    let nodes = nodes(world, setup, covered, Some(target), &left);
    let decision = decide_for(world, setup, &nodes, told);

    apply::hold_setup(context, setup).await?;
    // Before any node is told of them: an agent reads both by the names in its NodeAudit.
    apply::store_revision(context, setup, &revision).await?;
    let keeps_old = decision.progress != Progress::Done;
    let credentials = apply::store_credentials(context, setup, &credentials, keeps_old).await?;
    let supplies = Supplies { target: &revision, credentials: credentials.as_ref(), sinks: &sinks };
    let spec = |node: &Node, step| {
        let supplies = node.goal.revision.map(|_| supplies);
        apply::node_spec(setup, node.audit, node.goal, step, supplies)
    };
    carry_out(context, world, &nodes, &decision, spec).await?;

    let judgement = Judgement::Rendered {
        target,
        change: change.as_deref(),
        policy: &policy,
        findings: &findings,
        progress: &decision.progress,
    };
    let is_news = report(context, setup, &nodes, judgement).await?;
    if is_news && decision.progress == Progress::Done {
        apply::prune_revisions(context, setup, target, &world.audits).await?;
    }
    Ok(wake(&decision))
}

/// Setups that went without us, as far as their nodes still know them, and the nodes that no other Setup goes on with.
fn abandoned(world: &World, covers: &BTreeMap<String, Cover>) -> Vec<(AuditSetup, Vec<String>)> {
    let is_there = |name: &str| world.setups.iter().any(|setup| setup.name_any() == name);
    let is_covered =
        |node: &String| covers.values().any(|cover| matches!(cover, Cover::Nodes(covered) if covered.contains(node)));
    let mut found: BTreeMap<&str, (AuditSetup, Vec<String>)> = BTreeMap::new();
    for (node, audit) in world.audits.iter().filter(|(node, audit)| !is_there(&audit.spec.setup) && !is_covered(node)) {
        let NodeAuditSpec { setup: name, setup_uid, setup_generation, rollout, .. } = &audit.spec;
        let (setup, nodes) = found.entry(name).or_insert_with(|| {
            let rollout = Rollout { paused: false, ..rollout.clone() };
            let spec = AuditSetupSpec {
                node_selector: BTreeMap::new(),
                policy: PolicySpec::default(),
                sinks: Vec::new(),
                rollout,
            };
            let mut setup = AuditSetup::new(name, spec);
            setup.metadata.uid.clone_from(setup_uid);
            (setup, Vec::new())
        });
        setup.metadata.generation = setup.metadata.generation.max(Some(*setup_generation));
        nodes.push(node.clone());
    }
    found.into_values().collect()
}

/// Brings nodes a step nearer to their original manifests.
async fn give_back<'a>(
    context: &Context,
    world: &'a World,
    setup: &'a AuditSetup,
    names: &'a [String],
    told: &mut Option<String>,
) -> Result<(Vec<Node<'a>>, Decision), Error> {
    let nodes = nodes(world, setup, &[], None, names);
    let decision = decide_for(world, setup, &nodes, told);
    let spec = |node: &Node, step| apply::node_spec(setup, node.audit, node.goal, step, None);
    carry_out(context, world, &nodes, &decision, spec).await?;
    Ok((nodes, decision))
}

/// The nodes, in the order of their names, keep what they were told by a Setup that cannot be carried out as it is now: what
/// something else makes of it is put right, and turns come to their end.
async fn keep(
    context: &Context,
    world: &World,
    setup: &AuditSetup,
    names: &[String],
    judgement: Judgement<'_>,
    told: &mut Option<String>,
) -> Result<Option<Duration>, Error> {
    let (nodes, decision) = decide_to_keep(world, setup, names, told);
    let spec = |node: &Node, step| match node.audit {
        Some(before) => apply::kept_spec(setup, before, step),
        None => apply::node_spec(setup, None, node.goal, step, None),
    };
    carry_out(context, world, &nodes, &decision, spec).await?;
    let all: Vec<Node> = names.iter().filter_map(|name| node(world, name, Goal::default())).collect();
    report(context, setup, &all, judgement).await?;
    Ok(wake(&decision))
}

/// Gives the nodes of a deleted Setup back, then lets it go.
async fn restore(
    context: &Context,
    world: &World,
    setup: &AuditSetup,
    names: &[String],
    told: &mut Option<String>,
) -> Result<Option<Duration>, Error> {
    let (nodes, decision) = give_back(context, world, setup, names, told).await?;
    if decision.steps.iter().any(|(_, step)| *step != Step::Release) {
        report(context, setup, &nodes, Judgement::Restoring(&decision.progress)).await?;
        return Ok(wake(&decision));
    }
    if setup.finalizers().iter().any(|finalizer| finalizer == crate::api::FINALIZER) {
        super::report::publish(context, setup, &Event::restored(&nodes)).await;
        apply::let_setup_go(context, setup).await?;
        tracing::info!(setup = setup.name_any(), "the Setup may go");
    }
    Ok(None)
}

/// Writes what was decided for each node.
async fn carry_out(
    context: &Context,
    world: &World,
    nodes: &[Node<'_>],
    decision: &Decision,
    spec: impl Fn(&Node, Step) -> NodeAuditSpec,
) -> Result<(), Error> {
    for (node, (name, step)) in nodes.iter().zip(&decision.steps) {
        match (step, node.audit) {
            (Step::Release, Some(audit)) => apply::delete_node_audit(context, audit).await?,
            (_, before) => {
                let facts = world.nodes.get(name).expect("only nodes of the world are decided on");
                apply::apply_node_audit(context, name, facts, before, spec(node, *step)).await?;
            }
        }
    }
    Ok(())
}

/// The nodes of a Setup as the rollout sees them: `covered` to get `revision`, `left` to be restored.
fn nodes<'a>(
    world: &'a World,
    setup: &'a AuditSetup,
    covered: &'a [String],
    revision: Option<&'a str>,
    left: &'a [String],
) -> Vec<Node<'a>> {
    let of = |names: &'a [String], revision| {
        let goal = Goal {
            revision,
            setup_uid: setup.metadata.uid.as_deref(),
            setup_generation: setup.metadata.generation.unwrap_or(0),
        };
        names.iter().filter_map(move |name| node(world, name, goal))
    };
    let mut nodes: Vec<Node> = of(covered, revision).chain(of(left, None)).collect();
    nodes.sort_by_key(|node| node.name);
    nodes
}

fn node<'a>(world: &'a World, name: &'a str, goal: Goal<'a>) -> Option<Node<'a>> {
    let is_ready = world.nodes.get(name)?.is_ready;
    let unheard_for = world.unheard_for.get(name).copied().unwrap_or_default();
    Some(Node { name, is_ready, goal, audit: world.audits.get(name), unheard_for })
}

/// Decides for nodes that have no other goal than what they were told, beside all others. One that was not told anything is held,
/// and stays so.
fn decide_to_keep<'a>(
    world: &'a World,
    setup: &AuditSetup,
    names: &'a [String],
    told: &mut Option<String>,
) -> (Vec<Node<'a>>, Decision) {
    let goal = |name: &String| match world.audits.get(name) {
        Some(audit) => (audit.spec.revision.is_some() || audit.spec.may_change).then(|| Goal::as_told(audit)),
        None => reported(setup).any(|reported| reported == name).then(Goal::default),
    };
    let nodes: Vec<Node> = names.iter().filter_map(|name| node(world, name, goal(name)?)).collect();
    let decision = decide_for(world, setup, &nodes, told);
    (nodes, decision)
}

/// The nodes that had a `NodeAudit` when we last looked. A change goes on though somebody deletes it.
fn reported(setup: &AuditSetup) -> impl Iterator<Item = &String> {
    let nodes = setup.status.iter().flat_map(|status| &status.nodes);
    nodes.filter(|node| node.since.is_some()).map(|node| &node.name)
}

/// Decides for the nodes of one Setup, beside all others that have a `NodeAudit`, or had one when we last looked. `told`: the node
/// that was told to change in this pass, by whichever Setup; what the world has of it is older than that.
fn decide_for(world: &World, setup: &AuditSetup, nodes: &[Node<'_>], told: &mut Option<String>) -> Decision {
    let reported = world.setups.iter().flat_map(reported);
    let names: BTreeSet<&String> = world.audits.keys().chain(reported).chain(told.as_ref()).collect();
    let others: Vec<Node> = names
        .into_iter()
        .filter(|name| nodes.iter().all(|node| node.name != **name))
        .filter_map(|name| node(world, name, Goal::default()))
        .map(|node| Node { audit: node.audit.filter(|_| told.as_deref() != Some(node.name)), ..node })
        .collect();
    let rollout = &setup.spec.rollout;
    let terms = Terms {
        is_paused: rollout.paused,
        min_ready: k8s_openapi::jiff::SignedDuration::from_secs(rollout.min_ready_seconds),
        now: super::now(),
    };
    let decision = decide(nodes, &others, terms);
    // Before it is written: a request that fails may have been carried out.
    if let Some((name, _)) = decision.steps.iter().find(|(_, step)| *step == Step::Start) {
        *told = Some(name.clone());
    }
    decision
}

fn wake(decision: &Decision) -> Option<Duration> {
    decision.wake.and_then(|wake| Duration::try_from(wake).ok())
}

/// What the API servers of the nodes can do, from the oldest to the newest. Where an agent has not reported yet, by the version of the kubelet, which
/// is never newer than the API server.
fn capabilities(world: &World, nodes: &[String]) -> Capabilities {
    let minors = nodes.iter().filter_map(|name| {
        let reported = |audit: &NodeAudit| audit.status.as_ref()?.api_server_version.clone();
        let version = world.audits.get(name).and_then(reported);
        minor(&version.or_else(|| Some(world.nodes.get(name)?.kubelet_version.clone()))?)
    });
    let (minor, newest) = minors.fold((None, 0), |(oldest, newest), minor| {
        (Some(oldest.map_or(minor, |oldest: u32| oldest.min(minor))), minor.max(newest))
    });
    Capabilities { minor: minor.unwrap_or(0), newest }
}

/// `v1.36.3` -> 36.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("v1.")?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

#[cfg(test)]
mod tests;
