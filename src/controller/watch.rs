//! Watches that only wake: metadata is received and dropped, so memory does not grow with the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::api::PartialObjectMeta;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{RETRY_MAX, RETRY_MIN};
use crate::api::{AuditSetup, NodeAudit};

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Watch {
    Setups,
    NodeAudits,
    /// In the operator's namespace.
    Secrets,
    /// In the operator's namespace.
    ConfigMaps,
    /// Nodes by label selector.
    Nodes(String),
    /// One Service, by namespace and name.
    Service(String, String),
}

/// The watches that run. They end when this is dropped.
pub(super) struct Watches {
    client: Client,
    namespace: String,
    change: Arc<Notify>,
    running: BTreeMap<Watch, Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watches {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.into(), change: Arc::default(), running: BTreeMap::new() }
    }

    /// Ends the watches that are not wanted any more, and begins those that are missing.
    pub(super) fn keep(&mut self, wanted: BTreeSet<Watch>) {
        self.running.retain(|watch, _| wanted.contains(watch));
        for watch in wanted {
            if !self.running.contains_key(&watch) {
                let task = Task(self.begin(&watch));
                self.running.insert(watch, task);
            }
        }
    }

    /// Returns when something changed since the last call.
    pub(super) async fn changed(&self) {
        self.change.notified().await;
    }

    fn begin(&self, watch: &Watch) -> JoinHandle<()> {
        let all = crate::client::watch_config();
        match watch {
            Watch::Setups => self.cluster::<AuditSetup>(all),
            Watch::NodeAudits => self.cluster::<NodeAudit>(all),
            Watch::Secrets => self.namespaced::<Secret>(&self.namespace, all),
            Watch::ConfigMaps => self.namespaced::<ConfigMap>(&self.namespace, all),
            Watch::Nodes(selector) => self.cluster::<Node>(all.labels(selector)),
            Watch::Service(namespace, name) => {
                self.namespaced::<Service>(namespace, all.fields(&format!("metadata.name={name}")))
            }
        }
    }

    fn cluster<K>(&self, config: watcher::Config) -> JoinHandle<()>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        self.spawn(Api::<PartialObjectMeta<K>>::all(self.client.clone()), config)
    }

    fn namespaced<K>(&self, namespace: &str, config: watcher::Config) -> JoinHandle<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        self.spawn(Api::<PartialObjectMeta<K>>::namespaced(self.client.clone(), namespace), config)
    }

    fn spawn<K>(&self, api: Api<PartialObjectMeta<K>>, config: watcher::Config) -> JoinHandle<()>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
    {
        let change = Arc::clone(&self.change);
        tokio::spawn(async move {
            let mut events = pin!(watcher(api, config));
            let mut retry = RETRY_MIN;
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => {
                        retry = RETRY_MIN;
                        change.notify_one();
                    }
                    // Passes and the Lease tell of an outage; here it would be one line for each watch.
                    Err(error) => {
                        tracing::debug!(kind = %K::kind(&()), %error, "a watch was interrupted");
                        sleep(retry).await;
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
            }
        })
    }
}
