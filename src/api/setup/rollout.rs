//! How changes reach the nodes.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How changes reach the nodes. One node changes at a time. If kube-apiserver does not start with a change, the node
/// rolls back by itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "Rollout::default")]
#[x_kube(
    validation = Rule::new("self.minReadySeconds < self.confirmTimeoutSeconds")
        .message("minReadySeconds must be below confirmTimeoutSeconds: otherwise no change could be confirmed"),
    validation = Rule::new("self.shutdownDelaySeconds + self.drainWatchesSeconds <= 25")
        .message("shutdownDelaySeconds and drainWatchesSeconds together must be at most 25: the kubelet kills a kube-apiserver that takes longer than 30 s to stop")
)]
pub struct Rollout {
    /// Do not start new changes, not even to correct drift. A change in progress still completes or rolls back.
    pub paused: bool,
    /// How the manifest of kube-apiserver is replaced. `Replace`: the new manifest is renamed over the old one, so
    /// there is always a manifest. The node's API does not respond for about 13 seconds. `Swift`: the old manifest is
    /// removed, and the new one is written once the old kube-apiserver is gone. The node's API does not respond for
    /// about 5 seconds.
    pub method: Method,
    /// Seconds for which a stopping kube-apiserver keeps serving while its `/readyz` fails, so that load balancers and
    /// kube-proxy stop sending requests to it (`--shutdown-delay-duration`). A load balancer in front of several nodes
    /// should notice within this time. 0, or a manifest that sets the flag itself, leaves the flag alone. Together with
    /// `drainWatchesSeconds` at most 25, and at most 5 less than the `terminationGracePeriodSeconds` of the pod (30 by
    /// default): the kubelet kills a kube-apiserver that takes longer, and audit events are lost.
    #[schemars(range(min = 0, max = 60))]
    pub shutdown_delay_seconds: i64,
    /// Seconds for which a stopping kube-apiserver waits for open watches
    /// (`--shutdown-watch-termination-grace-period`). Without it, each restart takes half a minute longer and loses
    /// audit events. 0, or a manifest that sets the flag itself, leaves the flag alone. Needs Kubernetes 1.27; ignored
    /// before.
    #[schemars(range(min = 0, max = 60))]
    pub drain_watches_seconds: i64,
    /// Whether the operator may restart a kubelet, once per change. One case needs it: a kubelet that was started while
    /// kube-apiserver was broken ignores the repaired manifest. `WhenStuck`: only then. `Never`: the node waits for you
    /// to restart it.
    pub restart_kubelet: RestartKubelet,
    /// Whether a new Revision goes on to the next node while a node that already runs it does not deliver its events to
    /// every sink. `Continue`: yes; status reports the sink. `Hold`: the next node waits until the events arrive, at
    /// most for about two minutes if all is well. Drift is corrected and original manifests are restored all the same.
    pub on_sink_failure: OnSinkFailure,
    /// Seconds for which kube-apiserver must be ready without interruption before a change is confirmed.
    #[schemars(range(min = 1, max = 3600))]
    pub min_ready_seconds: i64,
    /// Seconds from the replacement of the manifest until an unconfirmed change is rolled back.
    #[schemars(range(min = 60, max = 3600))]
    pub confirm_timeout_seconds: i64,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            paused: false,
            method: Method::Replace,
            shutdown_delay_seconds: 2,
            drain_watches_seconds: 3,
            restart_kubelet: RestartKubelet::WhenStuck,
            on_sink_failure: OnSinkFailure::Continue,
            min_ready_seconds: 10,
            confirm_timeout_seconds: 300,
        }
    }
}

/// How the manifest is replaced.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The new manifest is renamed over the old one: there is always a manifest.
    #[default]
    Replace,
    /// The old manifest is removed, and the new one is written once the old kube-apiserver is gone.
    Swift,
}

/// Whether the guard may end the kubelet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartKubelet {
    /// Once, if nothing else brings kube-apiserver back.
    #[default]
    WhenStuck,
    /// Never: the node waits for a person.
    Never,
}

/// Whether a rollout waits for a sink.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSinkFailure {
    /// The rollout goes on.
    #[default]
    Continue,
    /// The next node waits until the nodes before it deliver their events.
    Hold,
}
