//! The watches of the controller, and the objects that they show. Each kind is watched once; nothing is asked for again
//! and again.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::sync::watch;

use super::Error;
use super::cache::Cache;
use crate::api::{AuditSetup, NodeAudit};
use crate::client::watch_config;
use crate::heartbeat;
use crate::validate::SecretFacts;

/// Secrets that can be nobody's credential, and are many or large.
const OTHER_SECRETS: &str =
    "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=bootstrap.kubernetes.io/token";

/// On an EndpointSlice: the name of its Service (kubernetes@v1.36.3
/// staging/src/k8s.io/api/discovery/v1/well_known_labels.go).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Which Nodes a watch shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nodes {
    /// By label selector.
    Selected(String),
    /// One that has a `NodeAudit`, and is selected no more.
    Named(String),
}

impl Nodes {
    pub(super) fn list(&self) -> ListParams {
        match self {
            Nodes::Selected(selector) => ListParams::default().labels(selector),
            Nodes::Named(name) => ListParams::default().fields(&named(name)),
        }
    }

    /// The same as a watch.
    fn watch(&self) -> watcher::Config {
        match self {
            Nodes::Selected(selector) => watch_config().labels(selector),
            Nodes::Named(name) => watch_config().fields(&named(name)),
        }
    }
}

/// Namespace and name.
pub(super) type ServiceName = (String, String);

/// The stores of a controller that leads. Their watches end with it.
pub(super) struct Stores {
    client: Client,
    changes: watch::Sender<()>,
    changes_of_secrets: watch::Sender<()>,
    pub(super) setups: Cache<AuditSetup>,
    pub(super) audits: Cache<NodeAudit>,
    /// Of the operator's namespace, like the next two.
    pub(super) secrets: Cache<Secret>,
    pub(super) config_maps: Cache<ConfigMap>,
    /// The signs of life of the agents.
    pub(super) leases: Cache<Lease>,
    pub(super) nodes: BTreeMap<Nodes, Cache<Node>>,
    pub(super) services: BTreeMap<ServiceName, Cache<Service>>,
    /// Of the same Services.
    pub(super) endpoints: BTreeMap<ServiceName, Cache<EndpointSlice>>,
}

impl Stores {
    pub(super) fn begin(client: Client, namespace: &str) -> Self {
        let changes = watch::Sender::new(());
        let changes_of_secrets = watch::Sender::new(());
        let of_any = notify(&changes);
        let of_secrets = notify(&changes_of_secrets);
        let of_secret = {
            let of_any = of_any.clone();
            move || {
                of_any();
                of_secrets();
            }
        };
        let (label, value) = heartbeat::LABEL;
        let agents = watch_config().labels(&format!("{label}={value}"));
        let secrets = watch_config().fields(OTHER_SECRETS);
        Self {
            setups: Cache::begin(Api::all(client.clone()), watch_config(), |_| {}, of_any.clone()),
            audits: Cache::begin(Api::all(client.clone()), watch_config(), |_| {}, of_any.clone()),
            secrets: Cache::begin(Api::namespaced(client.clone(), namespace), secrets, trim_secret, of_secret),
            config_maps: Cache::begin(Api::namespaced(client.clone(), namespace), watch_config(), |_| {}, of_any),
            // No pass for a sign of life: the regular pass notices where one is missing.
            leases: Cache::begin(Api::namespaced(client.clone(), namespace), agents, |_| {}, || {}),
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            client,
            changes,
            changes_of_secrets,
        }
    }

    /// Notified of each change, the signs of life aside.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn changes_of_secrets(&self) -> watch::Receiver<()> {
        self.changes_of_secrets.subscribe()
    }

    /// Waits until the stores that every Setup needs show what there is.
    pub(super) async fn synced(&self) -> Result<(), Error> {
        self.setups.synced().await?;
        self.audits.synced().await?;
        self.secrets.synced().await?;
        self.config_maps.synced().await?;
        self.leases.synced().await
    }

    /// Watches these Nodes and no others.
    pub(super) fn watch_nodes(&mut self, wanted: &BTreeSet<Nodes>) {
        self.nodes.retain(|nodes, _| wanted.contains(nodes));
        for nodes in wanted {
            if !self.nodes.contains_key(nodes) {
                let api = Api::all(self.client.clone());
                let cache = Cache::begin(api, nodes.watch(), trim_node, notify(&self.changes));
                self.nodes.insert(nodes.clone(), cache);
            }
        }
    }

    /// Watches these Services with their endpoints, and no others: a cluster has many endpoints, which change often.
    pub(super) fn watch_services(&mut self, wanted: &BTreeSet<ServiceName>) {
        self.services.retain(|service, _| wanted.contains(service));
        self.endpoints.retain(|service, _| wanted.contains(service));
        for (namespace, name) in wanted {
            let service = (namespace.clone(), name.clone());
            if !self.services.contains_key(&service) {
                let config = watch_config().fields(&named(name));
                let api = Api::namespaced(self.client.clone(), namespace);
                let cache = Cache::begin(api, config, |_| {}, notify(&self.changes));
                self.services.insert(service.clone(), cache);
            }
            if !self.endpoints.contains_key(&service) {
                let config = watch_config().labels(&format!("{SERVICE_LABEL}={name}"));
                let api = Api::namespaced(self.client.clone(), namespace);
                let cache = Cache::begin(api, config, trim_slice, notify(&self.changes));
                self.endpoints.insert(service, cache);
            }
        }
    }
}

/// Waits for the watches that single Setups need. Returns those that the API refuses: they concern only these Setups.
pub(super) async fn refused<N: Ord + Clone, K>(caches: &BTreeMap<N, Cache<K>>) -> Result<BTreeMap<N, Error>, Error>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut refused = BTreeMap::new();
    for (name, cache) in caches {
        match cache.synced().await {
            Err(error @ Error::Watch { source: Some(_), .. }) if !error.is_outage() => {
                refused.insert(name.clone(), error);
            }
            synced => synced?,
        }
    }
    Ok(refused)
}

/// Whether each Service has a ready endpoint. Endpoints only explain why events do not arrive, so nothing waits for a
/// watch of them that is refused: such a Service is left out.
pub(super) async fn with_endpoints(
    caches: &BTreeMap<ServiceName, Cache<EndpointSlice>>,
) -> BTreeMap<ServiceName, bool> {
    let mut known = BTreeMap::new();
    for (service, cache) in caches {
        if cache.synced().await.is_ok() {
            let has_endpoint = cache.objects().values().any(|slice| slice.endpoints.iter().any(is_ready));
            known.insert(service.clone(), has_endpoint);
        }
    }
    known
}

/// Unknown is ready (kubernetes@v1.36.3 staging/src/k8s.io/api/discovery/v1/types.go, `EndpointConditions`).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The field selector of the object with this name.
fn named(name: &str) -> String {
    format!("metadata.name={name}")
}

fn notify(changes: &watch::Sender<()>) -> impl Fn() + Clone + Send + Sync + 'static {
    let changes = changes.clone();
    move || changes.send_replace(())
}

/// Without the content of a Secret that no sink may use and the controller did not write.
fn trim_secret(secret: &mut Secret) {
    let type_ = secret.type_.as_deref().unwrap_or_default();
    if !SecretFacts::is_usable_type(type_) && !type_.starts_with("audit-operator.io/") {
        secret.data = None;
    }
}

/// One ready endpoint, without its address. A slice has up to a thousand.
fn trim_slice(slice: &mut EndpointSlice) {
    slice.metadata.annotations = None;
    slice.ports = None;
    let ready = slice.endpoints.iter().any(is_ready).then(Endpoint::default);
    slice.endpoints = ready.into_iter().collect();
}

/// Without the images and all that the kubelet reports beside its version and its conditions.
fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    node.spec = None;
    if let Some(status) = node.status.take() {
        let (conditions, node_info) = (status.conditions, status.node_info);
        node.status = Some(k8s_openapi::api::core::v1::NodeStatus { conditions, node_info, ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_stores_keep_no_secret_that_they_do_not_need() {
        for (type_, is_kept) in [
            ("Opaque", true),
            ("kubernetes.io/tls", true),
            ("audit-operator.io/revision", true),
            ("audit-operator.io/credentials", true),
            ("audit-operator.io/receiver-ca", true),
            ("kubernetes.io/dockerconfigjson", false),
            ("helm.sh/release.v1", false),
        ] {
            let secret = json!({"metadata": {"name": "s"}, "type": type_, "data": {"key": "dmFsdWU="}});
            let mut secret: Secret = serde_json::from_value(secret).unwrap();
            trim_secret(&mut secret);
            assert_eq!(secret.data.is_some(), is_kept, "{type_}");
        }
    }

    #[test]
    fn a_slice_is_kept_as_one_ready_endpoint_or_none() {
        for (conditions, is_ready) in [
            (json!([{}]), true),
            (json!([{"ready": true}, {"ready": false}]), true),
            (json!([{"ready": false}, {"ready": false, "serving": true, "terminating": true}]), false),
            (json!([{"ready": false}, null]), true),
            (json!([]), false),
        ] {
            let endpoint =
                |conditions: &serde_json::Value| json!({"addresses": ["10.0.0.1"], "conditions": conditions});
            let endpoints: Vec<_> = conditions.as_array().unwrap().iter().map(endpoint).collect();
            let slice = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 1}]});
            let mut slice: EndpointSlice = serde_json::from_value(slice).unwrap();
            trim_slice(&mut slice);
            let want = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": if is_ready { vec![json!({"addresses": []})] } else { vec![] }});
            assert_eq!(slice, serde_json::from_value(want).unwrap(), "{conditions}");
        }
    }

    #[test]
    fn a_node_is_kept_as_far_as_it_is_read() {
        let conditions = json!([{"type": "Ready", "status": "True"}]);
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {"name": "cp1", "uid": "u", "annotations": {"a": "b"}},
            "status": {"conditions": conditions, "images": [{"names": ["large"]}]},
        }))
        .unwrap();
        trim_node(&mut node);
        let want = json!({"metadata": {"name": "cp1", "uid": "u"}, "status": {"conditions": conditions}});
        let want: Node = serde_json::from_value(want).unwrap();
        assert_eq!(node, want);
    }
}
