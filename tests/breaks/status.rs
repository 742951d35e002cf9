//! The status of the Setup, as a watch reports it: nothing in between is missed, and the API server is not asked.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use audit_operator::api::AuditSetup;
use futures::{StreamExt, pin_mut};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::Value;
use testing::cluster::Cluster;
use tokio::runtime::Runtime;

/// Before a watch that ended begins again.
const AGAIN: Duration = Duration::from_millis(300);

/// A client of the administrator, for the network of the nodes.
pub fn client(runtime: &Runtime, cluster: &Cluster) -> Client {
    // Any kubectl writes the kubeconfig.
    cluster.kubectl(&["version"]);
    // The disk of a node is nodes/cp1/rootfs.
    let path = cluster.disk().ancestors().nth(3).unwrap().join("run/admin.conf");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    })
}

pub struct Status {
    news: Receiver<(Instant, Value)>,
    newest: (Instant, Value),
}

impl Status {
    /// Watches all Setups: there is one.
    pub fn watch(runtime: &Runtime, client: &Client) -> Self {
        let (sender, news) = channel();
        let setups: Api<AuditSetup> = Api::all(client.clone());
        runtime.spawn(async move {
            let stream = watcher(setups, watcher::Config::default());
            pin_mut!(stream);
            while let Some(event) = stream.next().await {
                let setup = match event {
                    Ok(watcher::Event::Apply(setup) | watcher::Event::InitApply(setup)) => setup,
                    Ok(_) => continue,
                    // The API server restarts.
                    Err(_) => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                };
                let setup = serde_json::to_value(setup).expect("a Setup is JSON");
                if sender.send((Instant::now(), setup)).is_err() {
                    return;
                }
            }
        });
        Self { news, newest: (Instant::now(), Value::Null) }
    }

    /// Waits for a status with something, and returns it with the moment at which it came. The newest one counts too.
    pub fn find<T>(&mut self, limit: Duration, mut look: impl FnMut(&Value) -> Option<T>) -> Option<(T, Instant)> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look(&self.newest.1) {
                return Some((found, self.newest.0));
            }
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(news) => self.newest = news,
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the watch has ended"),
            }
        }
    }

    pub fn wait<T>(&mut self, what: &str, limit: Duration, look: impl FnMut(&Value) -> Option<T>) -> (T, Instant) {
        self.find(limit, look).unwrap_or_else(|| {
            panic!("waited {} s in vain for {what}: {}", limit.as_secs(), self.newest.1["status"]["sinks"])
        })
    }

    /// Goes on until a moment. A status with this ends it, as a failure would.
    pub fn pass<T>(&mut self, until: Instant, look: impl FnMut(&Value) -> Option<T>) -> Option<T> {
        self.find(until.saturating_duration_since(Instant::now()), look).map(|(found, _)| found)
    }

    /// What has come by now is past.
    pub fn catch_up(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            self.newest = news;
        }
    }

    pub fn newest(&mut self) -> &Value {
        self.catch_up();
        &self.newest.1
    }
}

/// One sink in the status of a Setup that describes its newest generation.
pub fn sink<'a>(setup: &'a Value, name: &str) -> Option<&'a Value> {
    if setup["status"]["observedGeneration"] != setup["metadata"]["generation"] {
        return None;
    }
    setup["status"]["sinks"].as_array()?.iter().find(|sink| sink["name"] == name)
}

pub fn condition<'a>(setup: &'a Value, kind: &str) -> Option<&'a Value> {
    if setup["status"]["observedGeneration"] != setup["metadata"]["generation"] {
        return None;
    }
    setup["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
