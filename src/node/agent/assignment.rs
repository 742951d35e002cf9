//! The NodeAudit of this node, as the API last showed it.

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::NodeAudit;
use crate::client;
use crate::node::retry;

/// The last known NodeAudit of this node.
#[derive(Clone, Default)]
pub(super) struct Assignment {
    /// Whether the API has answered: no NodeAudit may then mean that there is none.
    pub(super) is_known: bool,
    pub(super) node_audit: Option<NodeAudit>,
}

/// The newest state of this node's NodeAudit.
pub(super) fn watch_node_audit(client: Client, node: &str, stop: CancellationToken) -> watch::Receiver<Assignment> {
    let (sender, receiver) = watch::channel(Assignment::default());
    let config = client::watch_config().fields(&format!("metadata.name={node}"));
    tokio::spawn(async move {
        let mut events = watcher(Api::<NodeAudit>::all(client), config).backoff(retry()).boxed();
        // A NodeAudit that was deleted while the watch was broken is missing in the list.
        let mut is_listed = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    is_listed = true;
                    sender.send_replace(Assignment { is_known: true, node_audit: Some(object) });
                }
                Some(Ok(watcher::Event::Delete(_))) => {
                    sender.send_replace(Assignment { is_known: true, node_audit: None });
                }
                Some(Ok(watcher::Event::Init)) => is_listed = false,
                Some(Ok(watcher::Event::InitDone)) if is_listed => {}
                Some(Ok(watcher::Event::InitDone)) => {
                    sender.send_replace(Assignment { is_known: true, node_audit: None });
                }
                // The watch restarts by itself; a pass that needs the API logs the outage.
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch of the NodeAudit");
                }
                None => return,
            }
        }
    });
    receiver
}
