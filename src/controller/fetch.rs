//! Reads what a pass looks at. Needs the client; decides nothing, writes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::cover::selector;
use super::heard::Heard;
use super::{Context, Error};
use crate::api::{AuditSetup, HOSTS_ANNOTATION, NodeAudit};
use crate::revision::{Revision, secret};
use crate::validate::{Needs, References, SecretFacts};

/// The cluster, as far as Setups are concerned.
pub(super) struct World {
    pub(super) setups: Vec<AuditSetup>,
    /// Nodes that a Setup selects, and those that have a `NodeAudit`.
    pub(super) nodes: BTreeMap<String, NodeFacts>,
    /// Names of the nodes that each Setup selects, by the name of the Setup.
    pub(super) selected: BTreeMap<String, Vec<String>>,
    /// By name. Without those whose Node is gone: the garbage collector is about to remove them.
    pub(super) audits: BTreeMap<String, NodeAudit>,
    /// For how long the agent of each has reported nothing.
    pub(super) unheard_for: BTreeMap<String, Duration>,
}

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) uid: String,
    pub(super) is_ready: bool,
    pub(super) kubelet_version: String,
}

impl NodeFacts {
    fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|conditions| conditions.iter().find(|condition| condition.type_ == "Ready"));
        Self {
            uid: node.uid().unwrap_or_default(),
            is_ready: ready.is_some_and(|ready| ready.status == "True"),
            kubelet_version: status
                .and_then(|status| status.node_info.as_ref())
                .map(|info| info.kubelet_version.clone())
                .unwrap_or_default(),
        }
    }
}

pub(super) async fn fetch_world(context: &Context, heard: &mut Heard) -> Result<World, Error> {
    let all = ListParams::default();
    let setups = Api::<AuditSetup>::all(context.client.clone()).list(&all).await;
    let setups = setups.map_err(Error::request("list", "AuditSetups"))?.items;
    let audits = Api::<NodeAudit>::all(context.client.clone()).list(&all).await;
    let audits = audits.map_err(Error::request("list", "NodeAudits"))?;
    let mut audits: BTreeMap<_, _> = audits.into_iter().map(|audit| (audit.name_any(), audit)).collect();

    let api = Api::<Node>::all(context.client.clone());
    let mut nodes = BTreeMap::new();
    let mut selected = BTreeMap::new();
    for setup in &setups {
        let selector = selector(setup);
        let found = api.list(&ListParams::default().labels(&selector)).await;
        let found = found.map_err(Error::request("list", format!("Nodes with {selector}")))?;
        selected.insert(setup.name_any(), found.iter().map(ResourceExt::name_any).collect());
        nodes.extend(found.iter().map(|node| (node.name_any(), NodeFacts::of(node))));
    }
    for name in audits.keys().filter(|name| !nodes.contains_key(*name)).cloned().collect::<Vec<_>>() {
        match api.get_opt(&name).await.map_err(Error::request("read", format!("Node {name}")))? {
            Some(node) => drop(nodes.insert(name, NodeFacts::of(&node))),
            None => drop(audits.remove(&name)),
        }
    }
    let unheard_for = heard.listen(&audits, context.outage.answers_since(), Instant::now());
    Ok(World { setups, nodes, selected, audits, unheard_for })
}

/// What a Setup refers to; what does not exist is left out.
pub(super) async fn fetch_references(context: &Context, needs: &Needs) -> Result<References, Error> {
    let mut references = References { api_server: context.api_server, ..References::default() };
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    for name in &needs.secrets {
        let found = secrets.get_opt(name).await.map_err(Error::request("read", format!("Secret {name}")))?;
        if let Some(secret) = found {
            let facts = SecretFacts {
                hosts: secret.annotations().get(HOSTS_ANNOTATION).cloned(),
                type_: secret.type_.unwrap_or_default(),
                data: secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect(),
            };
            references.secrets.insert(name.clone(), facts);
        }
    }
    let config_maps = Api::<ConfigMap>::namespaced(context.client.clone(), &context.namespace);
    for name in &needs.config_maps {
        let found = config_maps.get_opt(name).await.map_err(Error::request("read", format!("ConfigMap {name}")))?;
        if let Some(config_map) = found {
            references.config_maps.insert(name.clone(), config_map.data.unwrap_or_default());
        }
    }
    for (namespace, name) in &needs.services {
        let services = Api::<Service>::namespaced(context.client.clone(), namespace);
        let found = services.get_opt(name).await;
        if let Some(service) = found.map_err(Error::request("read", format!("Service {namespace}/{name}")))? {
            references.services.insert((namespace.clone(), name.clone()), service);
        }
    }
    Ok(references)
}

/// A Revision that was stored; `None` where it is gone or cannot be understood.
pub(super) async fn fetch_revision(context: &Context, id: &str) -> Result<Option<Revision>, Error> {
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let name = secret::revision_name(id);
    let found = secrets.get_opt(&name).await.map_err(Error::request("read", format!("Secret {name}")))?;
    let data: BTreeMap<_, _> = found
        .and_then(|secret| secret.data)
        .unwrap_or_default()
        .into_iter()
        .map(|(key, bytes)| (key, bytes.0))
        .collect();
    Ok(secret::from_data(&data).ok())
}
