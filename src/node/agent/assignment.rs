//! The NodeAudit of this node, as the API last showed it.

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::NodeAudit;
use crate::client;
use crate::node::retry;

/// The NodeAudit of this node, as far as it was seen.
#[derive(Clone, Default)]
pub(super) struct Wanted {
    /// Whether the API has told what there is, be it nothing.
    pub(super) is_known: bool,
    pub(super) node_audit: Option<NodeAudit>,
}

/// The newest state of this node's NodeAudit.
pub(super) fn watch_node_audit(client: Client, node: &str, stop: CancellationToken) -> watch::Receiver<Wanted> {
    let (sender, receiver) = watch::channel(Wanted::default());
    let config = client::watch_config().fields(&format!("metadata.name={node}"));
    tokio::spawn(async move {
        let mut events = watcher(Api::<NodeAudit>::all(client), config).backoff(retry()).boxed();
        // A NodeAudit that went while the watch was broken is told by its absence in the list.
        let mut is_listed = false;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    is_listed = true;
                    sender.send_replace(Wanted { is_known: true, node_audit: Some(object) });
                }
                Some(Ok(watcher::Event::Delete(_))) => {
                    sender.send_replace(Wanted { is_known: true, node_audit: None });
                }
                Some(Ok(watcher::Event::Init)) => is_listed = false,
                Some(Ok(watcher::Event::InitDone)) if is_listed => {}
                Some(Ok(watcher::Event::InitDone)) => {
                    sender.send_replace(Wanted { is_known: true, node_audit: None });
                }
                // The watch is taken up again by itself; a turn that needs the API says so.
                Some(Err(error)) => {
                    tracing::debug!(%error, "watch of the NodeAudit");
                }
                None => return,
            }
        }
    });
    receiver
}
