//! Writes the decisions: Secrets, `NodeAudit`s and the finalizer.
//!
//! *Flow.* For each Setup: its finalizer, before anything is written for a node; the Revision and the credentials,
//! before a node is assigned them; the `NodeAudit`s; at last its release, when its nodes are restored. *Guarantees.*
//! Every write brings the API to a state and is left out where it already is in it, so a pass that was cut off is
//! simply made again. A slot is given only while the API has the same [`Basis`] that the decision was made on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::judge::{Judged, Ruling};
use super::pass::Decided;
use super::report::publish;
use super::stores::Stores;
use super::world::{Basis, NodeFacts, World, specs, versions};
use super::{Context, Error};
use crate::api::{AuditSetup, CredentialsRef, FIELD_MANAGER, FINALIZER, NodeAudit, NodeAuditSpec, SETUP_LABEL};
use crate::client::is_not_found;
use crate::render::Rendered;
use crate::revision::secret::{self, CREDENTIALS_TYPE, REVISION_TYPE, credentials_name, revision_name};
use crate::revision::{Revision, credential};
use crate::rollout::{Assignment, Progress};
use crate::status::Event;

/// Revisions that are kept for each Setup, beside those that a node still needs.
const KEEP: usize = 5;

/// The outcome of the decision for one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is written.
    Done,
    /// The Setup is released: there is no status any more.
    Released,
    /// The API has another [`Basis`] than the decision was made on, so the slot was not given.
    Outdated,
}

/// Applies the decision for one claim. `basis`: with the writes of this pass.
pub(super) async fn apply(
    context: &Context,
    stores: &Stores,
    world: &World,
    basis: &mut Basis,
    decided: &Decided<'_>,
) -> Result<Applied, Error> {
    let mut writer = Writer { context, stores, world, basis };
    let Decided { judged, claim, decision } = decided;
    let credentials = match judged {
        Judged::Setup { setup, ruling: Ruling::Rendered { rendered, .. }, .. } => {
            writer.hold_setup(setup).await?;
            writer.store_revision(setup, &rendered.revision).await?;
            writer.store_credentials(setup, &rendered.credentials, decision.progress != Progress::Done).await?
        }
        _ => None,
    };
    let mut applied = Applied::Done;
    for (node, assignment) in claim.nodes.iter().zip(&decision.assignments) {
        match (assignment, node.audit) {
            (Assignment::Release, Some(audit)) => writer.delete_node_audit(audit).await?,
            (Assignment::Start, _) if !writer.is_current().await? => applied = Applied::Outdated,
            (_, before) => {
                let spec = judged.spec(node, *assignment, credentials.as_ref());
                writer.apply_node_audit(node.name, before, spec).await?;
            }
        }
    }
    match judged {
        Judged::Setup { setup, ruling: Ruling::Rendered { rendered, .. }, .. }
            if applied == Applied::Done && decision.progress == Progress::Done =>
        {
            writer.prune_revisions(setup, rendered).await?;
        }
        Judged::Setup { setup, ruling: Ruling::Deleted, .. }
            if decision.assignments.iter().all(|assignment| *assignment == Assignment::Release) =>
        {
            if setup.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
                publish(context, setup, &Event::restored(&claim.nodes)).await;
                writer.let_setup_go(setup).await?;
                tracing::info!(setup = setup.name_any(), "all nodes restored; finalizer removed");
            }
            applied = Applied::Released;
        }
        _ => {}
    }
    Ok(applied)
}

/// Writes on behalf of one pass.
struct Writer<'a> {
    context: &'a Context,
    stores: &'a Stores,
    world: &'a World,
    basis: &'a mut Basis,
}

impl Writer<'_> {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.context.client.clone(), &self.context.namespace)
    }

    fn audits(&self) -> Api<NodeAudit> {
        Api::all(self.context.client.clone())
    }

    /// Makes sure that the Setup cannot go before its nodes are restored. Before anything is written for a node.
    async fn hold_setup(&self, setup: &AuditSetup) -> Result<(), Error> {
        if setup.finalizers().iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let mut finalizers = setup.finalizers().to_vec();
        finalizers.push(FINALIZER.into());
        self.patch_finalizers(setup, &finalizers).await
    }

    /// Lets a deleted Setup go. Only when its nodes are restored.
    async fn let_setup_go(&self, setup: &AuditSetup) -> Result<(), Error> {
        let others = setup.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER);
        self.patch_finalizers(setup, &others.cloned().collect::<Vec<_>>()).await
    }

    async fn patch_finalizers(&self, setup: &AuditSetup, finalizers: &[String]) -> Result<(), Error> {
        let name = setup.name_any();
        // With the resourceVersion: a list in a merge patch is replaced as a whole, and somebody else may have added to
        // it.
        let metadata = json!({"resourceVersion": setup.resource_version(), "finalizers": finalizers});
        let api = Api::<AuditSetup>::all(self.context.client.clone());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let patched = api.patch(&name, &PatchParams::default(), &patch).await;
        let patched = patched.map_err(Error::request("set the finalizer of", format!("AuditSetup {name}")))?;
        match patched.metadata.deletion_timestamp.is_some() && patched.finalizers().is_empty() {
            true => self.stores.setups.deleted(&patched),
            false => self.stores.setups.wrote(patched),
        }
        Ok(())
    }

    /// Stores a Revision. Nothing to compare where it exists: its name is the hash of its content, and it is immutable.
    async fn store_revision(&self, setup: &AuditSetup, revision: &Revision) -> Result<(), Error> {
        let name = revision_name(revision.id.as_str());
        let object = format!("Secret {name}");
        let owner = owner(setup);
        let Some(stored) = self.world.secrets.get(&name) else {
            let data = secret::to_data(revision);
            let secret = Secret { immutable: Some(true), ..owned(self.context, setup, &name, REVISION_TYPE, data) };
            let created = self.secrets().create(&PostParams::default(), &secret).await;
            self.stores.secrets.wrote(created.map_err(Error::request("create", object))?);
            return Ok(());
        };
        if stored.owner_references().iter().any(|stored| stored.uid == owner.uid) {
            return Ok(());
        }
        // Of another Setup with the same content, or of one of the same name that was deleted: it must not go with that
        // one.
        let mut owners = stored.owner_references().to_vec();
        owners.push(owner);
        let metadata = json!({"resourceVersion": stored.resource_version(), "ownerReferences": owners});
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let patched = self.secrets().patch(&name, &PatchParams::default(), &patch).await;
        self.stores.secrets.wrote(patched.map_err(Error::request("own", object))?);
        Ok(())
    }

    /// Stores the credentials of a Setup, or removes them where it has none. Written only when a byte changes, for its
    /// version makes the agents replace the files.
    ///
    /// `keeps_old`: a node may still run a Revision that names files which the Setup has no more. Its API server would
    /// not start again without them, so they stay until every node has moved on.
    async fn store_credentials(
        &self,
        setup: &AuditSetup,
        credentials: &BTreeMap<credential::Path, Vec<u8>>,
        keeps_old: bool,
    ) -> Result<Option<CredentialsRef>, Error> {
        let name = credentials_name(&setup.name_any());
        let object = format!("Secret {name}");
        let stored = self.world.secrets.get(&name).map(Arc::as_ref);
        // One that a deleted Setup of the same name left behind is taken over, without its content.
        let uid = setup.uid().unwrap_or_default();
        let is_ours = |stored: &&Secret| stored.owner_references().iter().any(|owner| owner.uid == uid);
        let ours = stored.filter(is_ours);
        let old = ours.and_then(|stored| stored.data.clone()).unwrap_or_default();
        let data = credential_data(&old, credentials, keeps_old);
        let is_same = ours.is_some() && old.iter().map(|(key, bytes)| (key, &bytes.0)).eq(&data);

        let version = match stored {
            Some(stored) if data.is_empty() => {
                let same = Preconditions { uid: stored.uid(), resource_version: None };
                let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
                let left = delete(self.secrets(), &name, &params).await.map_err(Error::request("delete", object))?;
                self.stores.secrets.took(stored, left);
                return Ok(None);
            }
            None if data.is_empty() => return Ok(None),
            Some(stored) if is_same => stored.resource_version(),
            Some(stored) => {
                let mut secret = owned(self.context, setup, &name, CREDENTIALS_TYPE, data);
                secret.metadata.resource_version = stored.resource_version();
                let replaced = self.secrets().replace(&name, &PostParams::default(), &secret).await;
                self.wrote(replaced.map_err(Error::request("replace", object))?)
            }
            None => {
                let secret = owned(self.context, setup, &name, CREDENTIALS_TYPE, data);
                let created = self.secrets().create(&PostParams::default(), &secret).await;
                self.wrote(created.map_err(Error::request("create", object))?)
            }
        };
        Ok(Some(CredentialsRef { name, resource_version: version.unwrap_or_default() }))
    }

    fn wrote(&self, secret: Secret) -> Option<String> {
        let version = secret.resource_version();
        self.stores.secrets.wrote(secret);
        version
    }

    /// Whether the API still has what was decided on. A watch may be late, and so may be the last words of a controller
    /// that led before; asked only before a slot is given.
    async fn is_current(&self) -> Result<bool, Error> {
        let client = || self.context.client.clone();
        let all = ListParams::default();
        let audits = self.audits().list_metadata(&all).await;
        let audits = audits.map_err(Error::request("list", "NodeAudits"))?;
        let setups = Api::<AuditSetup>::all(client()).list_metadata(&all).await;
        let setups = setups.map_err(Error::request("list", "AuditSetups"))?;
        let mut nodes = BTreeMap::new();
        for watched in &self.world.watched {
            let listed = Api::<Node>::all(client()).list(&watched.list()).await;
            let listed = listed.map_err(Error::request("list", "Nodes"))?;
            nodes.extend(listed.iter().map(|node| (node.name_any(), NodeFacts::of(node))));
        }
        let found = Basis { audits: versions(&audits), setups: specs(&setups), nodes };
        let Some(kind) = self.basis.difference(&found) else { return Ok(true) };
        tracing::info!(kind, "objects changed since this pass began; no slot is given in it");
        self.stores.audits.forget_own();
        self.stores.setups.forget_own();
        Ok(false)
    }

    /// Writes the spec of a node, if it differs.
    async fn apply_node_audit(
        &mut self,
        name: &str,
        before: Option<&NodeAudit>,
        spec: NodeAuditSpec,
    ) -> Result<(), Error> {
        let NodeFacts { uid, .. } = self.world.nodes.get(name).expect("only nodes of the world are decided on");
        let owns = |audit: &&NodeAudit| audit.owner_references().iter().any(|owner| owner.uid == *uid);
        if before.filter(owns).is_some_and(|before| before.spec == spec) {
            return Ok(());
        }
        let NodeAuditSpec { revision, setup_generation, may_change, .. } = &spec;
        tracing::info!(node = name, revision, generation = setup_generation, slot = may_change, "updating a NodeAudit");
        let mut audit = NodeAudit::new(name, spec);
        audit.metadata.owner_references = Some(vec![OwnerReference {
            api_version: Node::api_version(&()).into(),
            kind: Node::kind(&()).into(),
            name: name.into(),
            uid: uid.clone(),
            ..OwnerReference::default()
        }]);
        let applied = match before {
            None => {
                let params = PatchParams::apply(FIELD_MANAGER).force();
                self.audits().patch(name, &params, &Patch::Apply(&audit)).await
            }
            Some(_) => {
                let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
                self.audits().patch(name, &params, &Patch::Merge(whole(&audit))).await
            }
        };
        let applied = applied.map_err(Error::request("apply", format!("NodeAudit {name}")))?;
        self.basis.audits.extend(versions([&applied]));
        self.stores.audits.wrote(applied);
        Ok(())
    }

    /// Removes the `NodeAudit` of a restored node; not one that was made or changed since it was judged.
    async fn delete_node_audit(&mut self, audit: &NodeAudit) -> Result<(), Error> {
        let name = audit.name_any();
        let same = Preconditions { uid: audit.uid(), resource_version: audit.resource_version() };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        let left = delete(self.audits(), &name, &params).await;
        let left = left.map_err(Error::request("delete", format!("NodeAudit {name}")))?;
        self.basis.audits.remove(&name);
        self.basis.audits.extend(versions(&left));
        self.stores.audits.took(audit, left);
        Ok(())
    }

    /// Removes old Revisions of a Setup: all but the newest few, and never one that a node needs.
    async fn prune_revisions(&self, setup: &AuditSetup, rendered: &Rendered) -> Result<(), Error> {
        let name = setup.name_any();
        let is_stored = |secret: &&Arc<Secret>| {
            secret.type_.as_deref() == Some(REVISION_TYPE) && secret.labels().get(SETUP_LABEL) == Some(&name)
        };
        let stored = self.world.secrets.values().filter(is_stored);
        let stored = stored.map(|secret| (secret.creation_timestamp().map(|time| time.0), secret.name_any())).collect();
        let audits = self.world.audits.values().map(Arc::as_ref);
        for name in superfluous(stored, &needed(rendered.revision.id.as_str(), audits)) {
            let left = delete(self.secrets(), &name, &DeleteParams::default()).await;
            let left = left.map_err(Error::request("delete", format!("Secret {name}")))?;
            tracing::info!(secret = name, "removed an old Revision");
            self.stores.secrets.took(&self.world.secrets[&name], left);
        }
        Ok(())
    }
}

/// Deletes an object. Returns it as it stays until somebody removes its finalizers; `None` where it is gone.
async fn delete<K>(api: Api<K>, name: &str, params: &DeleteParams) -> kube::Result<Option<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    match api.delete(name, params).await {
        Ok(answer) => Ok(answer.left()),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A merge patch with all of the spec, with nulls: a field that somebody else has set would stay if we only gave up
/// ours.
fn whole(audit: &NodeAudit) -> serde_json::Value {
    let mut spec = json!(audit.spec);
    let fields = spec.as_object_mut().expect("a spec is an object");
    for optional in ["setupUid", "revision", "revisionDigest", "credentials", "sinks"] {
        fields.entry(optional).or_insert(serde_json::Value::Null);
    }
    json!({"metadata": {"ownerReferences": audit.metadata.owner_references}, "spec": spec})
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

/// Names of the Secrets that a node may still read.
fn needed<'a>(target: &str, audits: impl Iterator<Item = &'a NodeAudit>) -> BTreeSet<String> {
    let of_nodes = audits.flat_map(|audit| {
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
