//! One pass: fetch the cluster, then bring each Setup one step further. The steps of a Setup stand here in their order; what
//! they decide is pure, what they write is in [`super::apply`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;

use super::apply::{self, Supplies};
use super::change::change;
use super::cover::{Cover, cover, selector};
use super::fetch::{World, fetch_references, fetch_revision, fetch_world};
use super::report::report;
use super::watch::Watch;
use super::{Context, Error};
use crate::api::{AuditSetup, AuditSetupSpec, NodeAudit, NodeAuditSpec, PolicySpec, Rollout};
use crate::render::{Hooks, Rendered, render_with};
use crate::rollout::{Decision, Node, Progress, Step, Terms, decide};
use crate::status::{Event, Judgement};
use crate::validate::{Capabilities, needs, validate};

/// Annotations that only a controller with `--test-hooks` obeys.
const EXTRA_FLAG_HOOK: &str = "test.audit-operator.io/extra-flag";
const POLICY_HOOK: &str = "test.audit-operator.io/policy";

/// What a pass leaves for the next one.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// When to look again even if nothing changes.
    pub(super) wake: Option<Duration>,
    /// What the next pass depends on.
    pub(super) watches: BTreeSet<Watch>,
}

/// A pass over all Setups. One that fails does not hold up the others; the first error is returned.
pub(super) async fn pass(context: &Context) -> Result<Pass, Error> {
    let world = fetch_world(context).await?;
    let covers = cover(&world.setups, &claims(&world));
    let mut pass =
        Pass { wake: None, watches: [Watch::Setups, Watch::NodeAudits, Watch::Secrets, Watch::ConfigMaps].into() };
    let mut failed = None;
    context.metrics.begin();
    for setup in &world.setups {
        pass.watches.insert(Watch::Nodes(selector(setup)));
        let services = needs(setup).services.into_iter();
        pass.watches.extend(services.map(|(namespace, name)| Watch::Service(namespace, name)));
        match reconcile(context, &world, &covers, setup).await {
            Ok(wake) => pass.wake = [pass.wake, wake].into_iter().flatten().min(),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    for (setup, nodes) in abandoned(&world, &covers) {
        match give_back(context, &world, &setup, &nodes).await {
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

/// Brings one Setup a step further. Returns when to look again.
async fn reconcile(
    context: &Context,
    world: &World,
    covers: &BTreeMap<String, Cover>,
    setup: &AuditSetup,
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
        return restore(context, world, setup, &all).await;
    }
    if let Some((older, node)) = conflict {
        let nodes = nodes(world, &left, None, &[]);
        report(context, setup, &nodes, Judgement::Conflict { older, node }).await?;
        return Ok(None);
    }
    if covered.is_empty() {
        let nodes = nodes(world, &[], None, &left);
        let decision = decide(&nodes, terms(context, setup));
        carry_out(context, world, setup, &nodes, &decision, None).await?;
        report(context, setup, &nodes, Judgement::NoNodes).await?;
        return Ok(wake(&decision));
    }

    let references = fetch_references(context, &needs(setup)).await?;
    let valid = match validate(setup, &references, capabilities(world, covered)) {
        Ok(valid) => valid,
        Err(problems) => {
            // The nodes keep what they run.
            let nodes = nodes(world, covered, None, &[]);
            report(context, setup, &nodes, Judgement::Rejected(&problems)).await?;
            return Ok(None);
        }
    };
    let hooks = if context.obeys_test_hooks { hooks(setup) } else { Hooks::default() };
    let Rendered { revision, credentials, sinks, policy, .. } = render_with(&valid, &hooks);
    let target = revision.id.as_str();

    let known =
        setup.status.as_ref().and_then(|status| status.revision.as_ref()).and_then(|known| known.target.as_deref());
    let change = match known {
        Some(known) if known != target => {
            let before = fetch_revision(context, known).await?;
            before.map(|before| change(&before.content, &revision.content))
        }
        _ => None,
    };
    let nodes = nodes(world, covered, Some(target), &left);
    let decision = decide(&nodes, terms(context, setup));

    apply::hold_setup(context, setup).await?;
    // Before any node is told of them: an agent reads both by the names in its NodeAudit.
    apply::store_revision(context, setup, &revision).await?;
    let keeps_old = decision.progress != Progress::Done;
    let credentials = apply::store_credentials(context, setup, &credentials, keeps_old).await?;
    let supplies = Supplies { credentials: credentials.as_ref(), sinks: &sinks };
    carry_out(context, world, setup, &nodes, &decision, Some(supplies)).await?;

    let judgement =
        Judgement::Rendered { target, change: change.as_deref(), policy: &policy, progress: &decision.progress };
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
        let NodeAuditSpec { setup: name, setup_generation, rollout, .. } = &audit.spec;
        let (setup, nodes) = found.entry(name).or_insert_with(|| {
            let rollout = Rollout { paused: false, ..rollout.clone() };
            let spec = AuditSetupSpec {
                node_selector: BTreeMap::new(),
                policy: PolicySpec::default(),
                sinks: Vec::new(),
                rollout,
            };
            (AuditSetup::new(name, spec), Vec::new())
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
    setup: &AuditSetup,
    names: &'a [String],
) -> Result<(Vec<Node<'a>>, Decision), Error> {
    let nodes = nodes(world, &[], None, names);
    let decision = decide(&nodes, terms(context, setup));
    carry_out(context, world, setup, &nodes, &decision, None).await?;
    Ok((nodes, decision))
}

/// Gives the nodes of a deleted Setup back, then lets it go.
async fn restore(
    context: &Context,
    world: &World,
    setup: &AuditSetup,
    names: &[String],
) -> Result<Option<Duration>, Error> {
    let (nodes, decision) = give_back(context, world, setup, names).await?;
    if decision.steps.iter().any(|(_, step)| *step != Step::Release) {
        report(context, setup, &nodes, Judgement::Restoring(&decision.progress)).await?;
        return Ok(wake(&decision));
    }
    if setup.finalizers().iter().any(|finalizer| finalizer == crate::api::FINALIZER) {
        super::report::publish(context, setup, &Event::restored()).await;
        apply::let_setup_go(context, setup).await?;
        tracing::info!(setup = setup.name_any(), "every node is restored; the Setup may go");
    }
    Ok(None)
}

/// Writes what was decided for each node.
async fn carry_out(
    context: &Context,
    world: &World,
    setup: &AuditSetup,
    nodes: &[Node<'_>],
    decision: &Decision,
    supplies: Option<Supplies<'_>>,
) -> Result<(), Error> {
    for (node, (name, step)) in nodes.iter().zip(&decision.steps) {
        match (step, node.audit) {
            (Step::Release, Some(audit)) => apply::delete_node_audit(context, audit).await?,
            (_, before) => {
                let supplies = supplies.filter(|_| node.goal.is_some());
                let spec = apply::node_spec(setup, before.map(|audit| &audit.spec), node.goal, *step, supplies);
                let facts = world.nodes.get(name).expect("only nodes of the world are decided on");
                apply::apply_node_audit(context, name, facts, before, spec).await?;
            }
        }
    }
    Ok(())
}

/// The nodes of a Setup as the rollout sees them: `covered` with their goal, `left` to be restored.
fn nodes<'a>(world: &'a World, covered: &'a [String], goal: Option<&'a str>, left: &'a [String]) -> Vec<Node<'a>> {
    let of = |names: &'a [String], goal: Option<&'a str>| {
        names.iter().filter_map(move |name| {
            let is_ready = world.nodes.get(name)?.is_ready;
            Some(Node { name, is_ready, goal, audit: world.audits.get(name) })
        })
    };
    let mut nodes: Vec<Node> = of(covered, goal).chain(of(left, None)).collect();
    nodes.sort_by_key(|node| node.name);
    nodes
}

fn terms(context: &Context, setup: &AuditSetup) -> Terms {
    let rollout = &setup.spec.rollout;
    Terms {
        generation: setup.metadata.generation.unwrap_or(0),
        is_paused: rollout.paused,
        min_ready: k8s_openapi::jiff::SignedDuration::from_secs(rollout.min_ready_seconds),
        now: super::now(),
        listening_since: context.outage.answers_since(),
    }
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

fn hooks(setup: &AuditSetup) -> Hooks {
    let flag = setup.annotations().get(EXTRA_FLAG_HOOK).and_then(|flag| flag.split_once('='));
    Hooks {
        extra_flags: flag.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        policy: setup.annotations().get(POLICY_HOOK).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_a_setup_that_went_without_us_are_abandoned_unless_another_one_has_them() {
        let audit = |node: &str, setup: &str, setup_generation| {
            let spec = NodeAuditSpec {
                setup: setup.into(),
                setup_generation,
                revision: Some("r-1".into()),
                credentials: None,
                rollout: Rollout { paused: true, min_ready_seconds: 7, ..Rollout::default() },
                sinks: Vec::new(),
                canary: true,
            };
            (node.to_string(), NodeAudit::new(node, spec))
        };
        let there: AuditSetup =
            serde_saphyr::from_str(include_str!("../../examples/log-only.yaml")).expect("an example is a Setup");
        let name = there.name_any();
        let world = World {
            setups: vec![there],
            nodes: BTreeMap::new(),
            selected: BTreeMap::new(),
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
}
