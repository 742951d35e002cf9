//! The cluster as one pass sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::stores::Nodes;
use crate::api::{AuditSetup, NodeAudit};
use crate::floor::Floor;
use crate::revision::{Revision, secret};
use crate::rollout::{self, Contact, Goal};
use crate::validate::{Problem, References};

/// All that a pass decides on.
#[derive(Default)]
pub(super) struct World {
    /// By name.
    pub(super) setups: Vec<Arc<AuditSetup>>,
    /// Nodes that a Setup selects, and those that have a `NodeAudit`.
    pub(super) nodes: BTreeMap<String, NodeFacts>,
    /// Names of the nodes that each Setup selects, by the name of the Setup. Without a Setup whose nodes are not known:
    /// it keeps those that it has.
    pub(super) selected: BTreeMap<String, Vec<String>>,
    /// By the name of a Setup, why its nodes or its references are not known.
    pub(super) unknown: BTreeMap<String, Vec<Problem>>,
    /// By name. Without those whose Node is gone: the garbage collector is about to remove them.
    pub(super) audits: BTreeMap<String, Arc<NodeAudit>>,
    /// The contact with the agent of each.
    pub(super) contacts: BTreeMap<String, Contact>,
    /// The objects that the Setups refer to, as far as they exist.
    pub(super) references: References,
    /// Secrets of the operator's namespace, by name.
    pub(super) secrets: BTreeMap<String, Arc<Secret>>,
    pub(super) floor: Floor,
    /// The version of every `NodeAudit`.
    pub(super) versions: Versions,
    /// The lists that `nodes` is made of.
    pub(super) watched: BTreeSet<Nodes>,
}

/// The facts that a slot is given on, and only while the API has the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) audits: Versions,
    pub(super) setups: Specs,
    pub(super) nodes: BTreeMap<String, NodeFacts>,
}

impl Basis {
    /// The kind of the first difference.
    pub(super) fn difference(&self, other: &Self) -> Option<&'static str> {
        let differs = [
            ("NodeAudits", self.audits != other.audits),
            ("AuditSetups", self.setups != other.setups),
            ("Nodes", self.nodes != other.nodes),
        ];
        differs.into_iter().find_map(|(kind, differs)| differs.then_some(kind))
    }
}

/// Uid, generation and deletionTimestamp of objects, by name. These stay as they are when only a status changes.
pub(super) type Specs = BTreeMap<String, (Option<String>, Option<i64>, Option<Time>)>;

pub(super) fn specs<'a, K: ResourceExt + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Specs {
    let spec = |object: &K| {
        let meta = object.meta();
        (object.name_any(), (meta.uid.clone(), meta.generation, meta.deletion_timestamp.clone()))
    };
    objects.into_iter().map(spec).collect()
}

/// Uid and resourceVersion of objects, by name.
pub(super) type Versions = BTreeMap<String, (Option<String>, Option<String>)>;

pub(super) fn versions<'a, K: ResourceExt + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Versions {
    objects.into_iter().map(|object| (object.name_any(), (object.uid(), object.resource_version()))).collect()
}

impl World {
    pub(super) fn basis(&self) -> Basis {
        let setups = specs(self.setups.iter().map(Arc::as_ref));
        Basis { audits: self.versions.clone(), setups, nodes: self.nodes.clone() }
    }

    /// A node as the rollout sees it; `None` where there is no such Node.
    pub(super) fn node<'a>(&'a self, name: &'a str, goal: Goal<'a>) -> Option<rollout::Node<'a>> {
        Some(rollout::Node {
            name,
            is_ready: self.nodes.get(name)?.is_ready,
            goal,
            audit: self.audits.get(name).map(Arc::as_ref),
            had_audit: self.setups.iter().any(|setup| reported(setup).any(|reported| reported == name)),
            contact: self.contacts.get(name).copied().unwrap_or_default(),
        })
    }

    /// A Revision that was stored; `None` where it is gone or unreadable.
    pub(super) fn revision(&self, id: &str) -> Option<Revision> {
        let stored = self.secrets.get(&secret::revision_name(id))?.data.as_ref()?;
        let data: BTreeMap<_, _> = stored.iter().map(|(key, bytes)| (key.clone(), &bytes.0)).collect();
        secret::from_data(&data).ok()
    }
}

/// The nodes that had a `NodeAudit` when the status of the Setup was written.
pub(super) fn reported(setup: &AuditSetup) -> impl Iterator<Item = &String> {
    let nodes = setup.status.iter().flat_map(|status| &status.nodes);
    nodes.filter(|node| node.since.is_some()).map(|node| &node.name)
}

/// The facts about a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) uid: String,
    pub(super) is_ready: bool,
    pub(super) kubelet_version: String,
}

impl NodeFacts {
    pub(super) fn of(node: &v1::Node) -> Self {
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ready = conditions.and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
        let info = status.and_then(|status| status.node_info.as_ref());
        Self {
            uid: node.uid().unwrap_or_default(),
            is_ready: ready.is_some_and(|ready| ready.status == "True"),
            kubelet_version: info.map(|info| info.kubelet_version.clone()).unwrap_or_default(),
        }
    }
}
