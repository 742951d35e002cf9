//! Writes what was decided: Secrets, `NodeAudit`s and the finalizer. Every function brings the API to a state and does nothing
//! where it already is in it, so a pass that was cut off is simply made again.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::fetch::NodeFacts;
use super::{Context, Error};
use crate::api::{
    AuditSetup, CredentialsRef, FIELD_MANAGER, FINALIZER, NodeAudit, NodeAuditSpec, Rollout, SETUP_LABEL, SinkRef,
};
use crate::client::is_not_found;
use crate::revision::secret::{self, CREDENTIALS_TYPE, REVISION_TYPE, credentials_name, revision_name};
use crate::revision::{Revision, credential};
use crate::rollout::{Goal, Step};

/// Revisions that are kept for each Setup, beside those that a node still needs.
const KEEP: usize = 5;

/// Makes sure that the Setup cannot go before its nodes are restored. Before anything is written for a node.
pub(super) async fn hold_setup(context: &Context, setup: &AuditSetup) -> Result<(), Error> {
    if setup.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
        return Ok(());
    }
    let mut finalizers = setup.finalizers().to_vec();
    finalizers.push(FINALIZER.into());
    patch_finalizers(context, setup, &finalizers).await
}

/// Lets a deleted Setup go. Only when its nodes are restored.
pub(super) async fn let_setup_go(context: &Context, setup: &AuditSetup) -> Result<(), Error> {
    let finalizers: Vec<_> = setup.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    patch_finalizers(context, setup, &finalizers).await
}

async fn patch_finalizers(context: &Context, setup: &AuditSetup, finalizers: &[String]) -> Result<(), Error> {
    // With the resourceVersion: a list in a merge patch is replaced as a whole, and somebody else may have added to it.
    let metadata = json!({"resourceVersion": setup.resource_version(), "finalizers": finalizers});
    let api = Api::<AuditSetup>::all(context.client.clone());
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let patched = api.patch(&setup.name_any(), &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(Error::request("set the finalizer of", format!("AuditSetup {}", setup.name_any())))
}

/// Stores a Revision. Nothing to compare where it exists: its name is the hash of its content, and it is immutable.
pub(super) async fn store_revision(context: &Context, setup: &AuditSetup, revision: &Revision) -> Result<(), Error> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let name = revision_name(revision.id.as_str());
    let object = format!("Secret {name}");
    let owner = owner(setup);
    let Some(stored) = api.get_metadata_opt(&name).await.map_err(Error::request("read", &object))? else {
        let data = secret::to_data(revision);
        let secret = Secret { immutable: Some(true), ..owned(context, setup, &name, REVISION_TYPE, data) };
        let created = api.create(&PostParams::default(), &secret).await;
        return created.map(drop).map_err(Error::request("create", object));
    };
    if stored.owner_references().iter().any(|stored| stored.uid == owner.uid) {
        return Ok(());
    }
    // Of another Setup with the same content, or of one of the same name that was deleted: it must not go with that one.
    let mut owners = stored.owner_references().to_vec();
    owners.push(owner);
    let metadata = json!({"resourceVersion": stored.resource_version(), "ownerReferences": owners});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let patched = api.patch_metadata(&name, &PatchParams::default(), &patch).await;
    patched.map(drop).map_err(Error::request("own", object))
}

/// Stores the credentials of a Setup, or removes them where it has none. Written only when a byte changes, for its version is
/// what tells the agents to replace the files.
///
/// `keeps_old`: a node may still run a Revision that names files which the Setup has no more. Its API server would not start
/// again without them, so they stay until every node has moved on.
pub(super) async fn store_credentials(
    context: &Context,
    setup: &AuditSetup,
    credentials: &BTreeMap<credential::Path, Vec<u8>>,
    keeps_old: bool,
) -> Result<Option<CredentialsRef>, Error> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let name = credentials_name(&setup.name_any());
    let object = format!("Secret {name}");
    let stored = api.get_opt(&name).await.map_err(Error::request("read", &object))?;
    // One that a deleted Setup of the same name left behind is taken over, without what is in it.
    let uid = setup.uid().unwrap_or_default();
    let is_ours = |stored: &&Secret| stored.owner_references().iter().any(|owner| owner.uid == uid);
    let ours = stored.as_ref().filter(is_ours);
    let old = ours.and_then(|stored| stored.data.clone()).unwrap_or_default();
    let data = credential_data(&old, credentials, keeps_old);
    let is_same = ours.is_some() && old.iter().map(|(key, bytes)| (key, &bytes.0)).eq(&data);

    let written = match stored {
        Some(stored) if data.is_empty() => {
            let same = Preconditions { uid: stored.uid(), resource_version: None };
            let deleted =
                api.delete(&name, &DeleteParams { preconditions: Some(same), ..DeleteParams::default() }).await;
            deleted.map_err(Error::request("delete", object))?;
            return Ok(None);
        }
        None if data.is_empty() => return Ok(None),
        Some(stored) if is_same => stored,
        Some(stored) => {
            let mut secret = owned(context, setup, &name, CREDENTIALS_TYPE, data);
            secret.metadata.resource_version = stored.resource_version();
            api.replace(&name, &PostParams::default(), &secret).await.map_err(Error::request("replace", object))?
        }
        None => {
            let secret = owned(context, setup, &name, CREDENTIALS_TYPE, data);
            api.create(&PostParams::default(), &secret).await.map_err(Error::request("create", object))?
        }
    };
    Ok(Some(CredentialsRef { name, resource_version: written.resource_version().unwrap_or_default() }))
}

/// The files of `credentials`, by their keys, with those that only the old ones have where they are kept.
fn credential_data(
    old: &BTreeMap<String, ByteString>,
    credentials: &BTreeMap<credential::Path, Vec<u8>>,
    keeps_old: bool,
) -> BTreeMap<String, Vec<u8>> {
    let mut data: BTreeMap<_, _> = match keeps_old {
        true => old.iter().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect(),
        false => BTreeMap::new(),
    };
    data.extend(credentials.iter().map(|(path, bytes)| (secret::credential_key(path), bytes.clone())));
    data
}

/// A Secret of this Setup.
fn owned(context: &Context, setup: &AuditSetup, name: &str, type_: &str, data: BTreeMap<String, Vec<u8>>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(context.namespace.clone()),
            labels: Some([(SETUP_LABEL.to_string(), setup.name_any())].into()),
            owner_references: Some(vec![owner(setup)]),
            ..ObjectMeta::default()
        },
        type_: Some(type_.into()),
        data: Some(data.into_iter().map(|(key, bytes)| (key, ByteString(bytes))).collect()),
        ..Secret::default()
    }
}

/// Without `blockOwnerDeletion`, which would need a permission on the finalizers of Setups, and gains nothing.
fn owner(setup: &AuditSetup) -> OwnerReference {
    OwnerReference {
        api_version: AuditSetup::api_version(&()).into(),
        kind: AuditSetup::kind(&()).into(),
        name: setup.name_any(),
        uid: setup.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// What a node is given beside the Revision.
#[derive(Clone, Copy)]
pub(super) struct Supplies<'a> {
    pub(super) target: &'a Revision,
    pub(super) credentials: Option<&'a CredentialsRef>,
    pub(super) sinks: &'a [SinkRef],
}

/// The spec that a node gets. `supplies`: none for a node that is being restored; it keeps those that it has, since its API
/// server may use them until the very end.
///
/// No node may change before it has been told a Revision: one that has our settings already, whoever made them, would give them
/// back.
pub(super) fn node_spec(
    setup: &AuditSetup,
    before: Option<&NodeAudit>,
    goal: Goal,
    step: Step,
    supplies: Option<Supplies>,
) -> NodeAuditSpec {
    let Goal { revision, setup_uid, setup_generation } = match (step, before) {
        (Step::Start | Step::Follow, _) => goal,
        (Step::Continue | Step::Hold | Step::Release, Some(before)) => Goal::as_told(before),
        (Step::Continue | Step::Hold | Step::Release, None) => Goal { revision: None, ..goal },
    };
    let (credentials, sinks, canary) = match (supplies, before) {
        (Some(supplies), _) => (supplies.credentials.cloned(), supplies.sinks.to_vec(), setup.spec.policy.canary_rule),
        (None, Some(NodeAudit { spec, .. })) => (spec.credentials.clone(), spec.sinks.clone(), spec.canary),
        (None, None) => (None, Vec::new(), false),
    };
    // One that keeps what it was told keeps its digest too.
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
        may_change: may_change(step, before),
        rollout: setup.spec.rollout.clone(),
        sinks,
        canary,
    }
}

/// The spec of a node that keeps what it was told, and of which Setup; only whether it may change now, `setup` says.
pub(super) fn kept_spec(setup: &AuditSetup, before: &NodeAudit, step: Step) -> NodeAuditSpec {
    let rollout = Rollout { paused: setup.spec.rollout.paused, ..before.spec.rollout.clone() };
    NodeAuditSpec { may_change: may_change(step, Some(before)), rollout, ..before.spec.clone() }
}

/// Only [`Step::Start`] gives the turn, not the end of a pause: what waits on several nodes would begin on all of them at once.
fn may_change(step: Step, before: Option<&NodeAudit>) -> bool {
    match step {
        Step::Start => true,
        Step::Continue => before.is_some_and(|before| before.spec.may_change),
        Step::Follow | Step::Hold | Step::Release => false,
    }
}

/// Writes the spec of a node, if it is not what it is.
pub(super) async fn apply_node_audit(
    context: &Context,
    name: &str,
    node: &NodeFacts,
    before: Option<&NodeAudit>,
    spec: NodeAuditSpec,
) -> Result<(), Error> {
    let owns = |audit: &&NodeAudit| audit.owner_references().iter().any(|owner| owner.uid == node.uid);
    if before.filter(owns).is_some_and(|before| before.spec == spec) {
        return Ok(());
    }
    tracing::info!(node = name, revision = spec.revision, generation = spec.setup_generation, "telling a node");
    let mut audit = NodeAudit::new(name, spec);
    audit.metadata.owner_references = Some(vec![OwnerReference {
        api_version: Node::api_version(&()).into(),
        kind: Node::kind(&()).into(),
        name: name.into(),
        uid: node.uid.clone(),
        ..OwnerReference::default()
    }]);
    let api = Api::<NodeAudit>::all(context.client.clone());
    let applied = match before {
        None => api.patch(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&audit)).await,
        // All of it, with nulls: a field that somebody else has set would stay if we only gave up ours.
        Some(_) => {
            let mut spec = json!(audit.spec);
            let fields = spec.as_object_mut().expect("a spec is an object");
            for optional in ["setupUid", "revision", "revisionDigest", "credentials", "sinks"] {
                fields.entry(optional).or_insert(serde_json::Value::Null);
            }
            let patch = json!({"metadata": {"ownerReferences": audit.metadata.owner_references}, "spec": spec});
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
            api.patch(name, &params, &Patch::Merge(patch)).await
        }
    };
    applied.map(drop).map_err(Error::request("apply", format!("NodeAudit {name}")))
}

/// Removes the `NodeAudit` of a restored node; not one that was made or changed since it was judged.
pub(super) async fn delete_node_audit(context: &Context, audit: &NodeAudit) -> Result<(), Error> {
    let name = audit.name_any();
    let same = Preconditions { uid: audit.uid(), resource_version: audit.resource_version() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match Api::<NodeAudit>::all(context.client.clone()).delete(&name, &params).await {
        Err(error) if !is_not_found(&error) => Err(Error::request("delete", format!("NodeAudit {name}"))(error)),
        _ => Ok(()),
    }
}

/// Removes old Revisions of a Setup: all but the newest few, and never one that a node needs.
pub(super) async fn prune_revisions(
    context: &Context,
    setup: &AuditSetup,
    target: &str,
    audits: &BTreeMap<String, NodeAudit>,
) -> Result<(), Error> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let params = ListParams::default()
        .labels(&format!("{SETUP_LABEL}={}", setup.name_any()))
        .fields(&format!("type={REVISION_TYPE}"));
    let stored = api.list_metadata(&params).await.map_err(Error::request("list", "Secrets of Revisions"))?;
    let stored: Vec<_> =
        stored.iter().map(|secret| (secret.creation_timestamp().map(|time| time.0), secret.name_any())).collect();
    for name in superfluous(stored, &needed(target, audits)) {
        match api.delete(&name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => {
                return Err(Error::request("delete", format!("Secret {name}"))(error));
            }
            _ => tracing::info!(secret = name, "removed an old Revision"),
        }
    }
    Ok(())
}

/// Names of the Secrets that a node may still read.
fn needed(target: &str, audits: &BTreeMap<String, NodeAudit>) -> BTreeSet<String> {
    let of_nodes = audits.values().flat_map(|audit| {
        let status = audit.status.as_ref();
        [
            audit.spec.revision.clone(),
            status.and_then(|status| status.revision.clone()),
            status.and_then(|status| status.changing_to.clone()),
        ]
    });
    of_nodes.flatten().chain([target.to_string()]).map(|id| revision_name(&id)).collect()
}

fn superfluous<T: Ord>(mut stored: Vec<(T, String)>, needed: &BTreeSet<String>) -> Vec<String> {
    stored.sort();
    let old = stored.len().saturating_sub(KEEP);
    stored.into_iter().take(old).map(|(_, name)| name).filter(|name| !needed.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_node_is_held_but_for_its_turn() {
        let setup: AuditSetup = serde_saphyr::from_str(include_str!("../../examples/log-only.yaml")).unwrap();
        let mut paused = setup.clone();
        paused.spec.rollout.paused = true;
        let before = |may_change: bool| -> NodeAudit {
            serde_json::from_value(json!({
                "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp1"},
                "spec": {
                    "setup": "old", "setupUid": "old", "setupGeneration": 6, "revision": "r-1", "mayChange": may_change,
                    "rollout": {"minReadySeconds": 99},
                },
            }))
            .unwrap()
        };
        let (held, has_turn) = (before(false), before(true));
        let goal = Goal { revision: Some("r-9"), setup_uid: Some("new"), setup_generation: 9 };
        for (before, step, want) in [
            (None, Step::Hold, (None, Some("new"), 9, false)),
            (None, Step::Start, (Some("r-9"), Some("new"), 9, true)),
            (Some(&held), Step::Start, (Some("r-9"), Some("new"), 9, true)),
            (Some(&held), Step::Continue, (Some("r-1"), Some("old"), 6, false)),
            (Some(&held), Step::Hold, (Some("r-1"), Some("old"), 6, false)),
            (Some(&has_turn), Step::Continue, (Some("r-1"), Some("old"), 6, true)),
            (Some(&has_turn), Step::Hold, (Some("r-1"), Some("old"), 6, false)),
            (Some(&has_turn), Step::Follow, (Some("r-9"), Some("new"), 9, false)),
        ] {
            let spec = node_spec(&setup, before, goal, step, None);
            let told = (spec.revision.as_deref(), spec.setup_uid.as_deref(), spec.setup_generation, spec.may_change);
            assert_eq!(told, want, "{step:?} {before:?}");
            assert_eq!((spec.setup.as_str(), spec.rollout), ("cluster", setup.spec.rollout.clone()));

            let Some(before) = before else { continue };
            let kept = kept_spec(&paused, before, step);
            let rollout = Rollout { paused: true, ..before.spec.rollout.clone() };
            let want = NodeAuditSpec { may_change: want.3, rollout, ..before.spec.clone() };
            assert_eq!(kept, want, "{step:?} {before:?}");
        }
    }

    #[test]
    fn credentials_that_a_running_revision_may_name_stay_until_it_is_gone() {
        let old = bytes(&[("a-00000000.token", "1"), ("b-00000000.ca.crt", "2")])
            .into_iter()
            .map(|(key, value)| (key, ByteString(value)))
            .collect();
        let path = |key: &str| secret::credential_path(key).unwrap();
        let (a, c) = ("a-00000000.token", "c-00000000.ca.crt");
        let new = [(path(a), b"3".to_vec()), (path(c), b"4".to_vec())].into();
        assert_eq!(credential_data(&old, &new, true), bytes(&[(a, "3"), ("b-00000000.ca.crt", "2"), (c, "4")]));
        assert_eq!(credential_data(&old, &new, false), bytes(&[(a, "3"), (c, "4")]));
    }

    #[test]
    fn only_old_revisions_that_no_node_needs_are_superfluous() {
        let stored: Vec<_> = (0..9).rev().map(|age| (age, format!("revision-r-{age}"))).collect();
        let needed = BTreeSet::from(["revision-r-1".to_string(), "revision-r-8".to_string()]);
        assert_eq!(superfluous(stored.clone(), &needed), ["revision-r-0", "revision-r-2", "revision-r-3"]);
        assert!(superfluous(stored[..KEEP].to_vec(), &BTreeSet::new()).is_empty());
    }
}
