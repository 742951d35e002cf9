//! The fixed words in conditions, Events, logs and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// True, False or Unknown, as in Kubernetes conditions.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Truth {
    True,
    False,
    #[default]
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        match self {
            Truth::True => "True",
            Truth::False => "False",
            Truth::Unknown => "Unknown",
        }
    }
}

/// The conditions of a Setup. Ready, Reconciling and Stalled follow kstatus, which Flux, Argo CD and `kubectl wait`
/// read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionType {
    Ready,
    Reconciling,
    Stalled,
    PolicyAccepted,
    SinksHealthy,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            ConditionType::Ready => "Ready",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
            ConditionType::PolicyAccepted => "PolicyAccepted",
            ConditionType::SinksHealthy => "SinksHealthy",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Reason, in one word. Conditions, Events, metrics and logs use the same fixed set.
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    // A Setup.
    /// Every node runs the target Revision.
    Confirmed,
    /// A change is in progress on a node, or waits for the slot.
    RollingOut,
    /// `rollout.paused` is set.
    Paused,
    /// The node has a change to make, and waits for the slot.
    Held,
    /// The Setup is being deleted, and its nodes are restored.
    Restoring,
    /// The Setup contradicts itself or kube-apiserver.
    InvalidSetup,
    /// kube-apiserver would not start with the policy.
    InvalidPolicy,
    /// kube-apiserver starts with the policy.
    Accepted,
    /// A Secret, ConfigMap or Service that the Setup refers to is missing or incomplete.
    ReferenceNotFound,
    /// The annotation of a Secret does not name the host of the sink.
    SecretNotForHost,
    /// A Service that cannot be a sink: headless, ExternalName or without the port.
    UnusableService,
    /// The Setup takes a risk that it does not acknowledge.
    RiskNotAcknowledged,
    /// The Setup goes below the floor of the administrator.
    BelowFloor,
    /// An older Setup covers the same node.
    Conflict,
    /// No node matches `nodeSelector`.
    NoNodes,
    /// A node rolled the Revision back.
    RolledBack,
    /// A node runs the target Revision and does not deliver, and `rollout.onSinkFailure` is `Hold`.
    SinkFailed,
    /// There is no problem.
    Healthy,
    /// It is not known yet.
    Pending,

    // A node.
    /// The files of a change are in place.
    Staged,
    /// The guard watches kube-apiserver.
    Verifying,
    /// The node has its original manifest.
    Unmanaged,
    /// The agent of the node does not report.
    AgentSilent,
    /// The node has no manifest of kube-apiserver.
    ManifestMissing,
    /// The manifest is not YAML, or not one that can be edited safely.
    ManifestUnusable,
    /// The edit of the manifest could not be proved correct.
    EditNotProved,
    /// Another file in the manifest directory defines the same pod.
    DuplicatePod,
    /// Something else changed the manifest.
    Drifted,
    /// kube-apiserver already mounts something else at a path that the operator needs.
    MountConflict,
    /// The path of the log cannot be used on this node.
    LogPathUnusable,
    /// The disk has no room for the log and its backups, or cannot be written.
    DiskFull,
    /// The file system cannot be written.
    ReadOnlyFileSystem,
    /// A file operation failed.
    FileError,
    /// The agent does not accept the Revision that it was assigned.
    RevisionUnreadable,
    /// The guard's container did not start.
    GuardDidNotStart,
    /// The manifest changed between the plan and its execution.
    ManifestChanged,
    /// kube-apiserver exits again and again.
    CrashLoop,
    /// kube-apiserver was not ready in time.
    ConfirmTimeout,
    /// kube-apiserver never started.
    NotStarted,
    /// This Revision failed here before.
    Quarantined,
    /// The machine was rebooted in the middle of a change.
    Interrupted,
    /// kube-apiserver of this node does not serve, and no change of ours is the cause.
    ApiServerDown,
    /// The guard ended the kubelet so that it reads the manifest again.
    KubeletRestarted,
    /// The kubelet ignores the manifest, and `rollout.restartKubelet` forbids to end it.
    KubeletStuck,

    // A sink.
    /// The destination answers and can be verified.
    Reachable,
    /// Events arrive.
    Delivering,
    /// No event was lost lately.
    Complete,
    /// kube-apiserver has dropped events.
    EventsLost,
    /// A certificate or a token of the sink expires soon.
    ExpiresSoon,
    /// The agent cannot tell, because `policy.canaryRule` is false.
    CanaryOff,
    /// The metrics of kube-apiserver cannot be read.
    MetricsUnavailable,
    /// An attempt failed, and kube-apiserver is about to repeat it.
    Retrying,
    /// kube-apiserver delivers nothing, for a reason that is not known.
    DeliveryFailing,
    /// The host name has no address.
    ResolveFailed,
    /// Nothing listens at the address.
    Refused,
    /// The receiver does not answer, or not in HTTP.
    NoAnswer,
    /// The connection cannot be made.
    ConnectFailed,
    /// The Service has no ready endpoint.
    NoEndpoints,
    /// The TLS handshake failed.
    TlsFailed,
    /// The certificate is not valid, not trusted or for another name.
    CertificateInvalid,
    /// kube-apiserver connects through a proxy or an egress selector, so the agent cannot look further.
    ThroughProxy,
    /// The receiver does not accept the credentials (401, 403).
    Unauthorized,
    /// The receiver takes no events at this path (404, 405).
    WrongPath,
    /// The receiver answers the probe with another code than expected.
    ProbeFailed,
    /// The receiver takes no request of that size (413).
    BodyTooLarge,
    /// The receiver takes no more requests (429).
    Throttled,
    /// The receiver fails (5xx).
    ReceiverFailing,
    /// The receiver redirects to another URL (3xx).
    Redirects,
    /// The receiver does not take EventLists (400 and other codes).
    RequestRejected,
    /// The receiver answers 2xx, and kube-apiserver cannot read the answer.
    UnusableAnswer,
    /// The log file does not exist.
    LogFileMissing,
    /// The log file cannot be written.
    NotWritable,
    /// Something else than kube-apiserver rotates the log file.
    RotatedByOthers,
    /// The canary was not found in the file.
    CanaryNotFound,
}

/// Why a manifest cannot be edited.
impl From<&static_pod::Error> for Reason {
    fn from(error: &static_pod::Error) -> Self {
        match error {
            static_pod::Error::MountConflict { .. } | static_pod::Error::NotMounted { .. } => Reason::MountConflict,
            static_pod::Error::NotProved(_) | static_pod::Error::Layout { .. } => Reason::EditNotProved,
            _ => Reason::ManifestUnusable,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
