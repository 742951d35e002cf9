//! The words that conditions, Events, logs and metrics share.

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

/// The conditions of a Setup. Ready, Reconciling and Stalled are kstatus's, as Flux, Argo CD and `kubectl wait` read them.
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
        /// Why something is as it is: one closed set for conditions, Events, metrics and logs.
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
    /// A change is under way on a node, or waits for its turn.
    RollingOut,
    /// `rollout.paused` is set.
    Paused,
    /// Something is to be done on a node when its turn comes.
    Held,
    /// The Setup is being deleted and the nodes get their original manifests back.
    Restoring,
    /// The Setup contradicts itself or kube-apiserver.
    InvalidSetup,
    /// The policy is one that kube-apiserver would not start with.
    InvalidPolicy,
    /// The policy is one that kube-apiserver starts with.
    Accepted,
    /// A Secret, ConfigMap or Service that the Setup names is missing or lacks what is needed.
    ReferenceNotFound,
    /// A Secret whose credentials are for other hosts than the sink's.
    SecretNotForHost,
    /// A Service that cannot be a sink: headless, ExternalName or without the port.
    UnusableService,
    /// A risk that the Setup does not acknowledge.
    RiskNotAcknowledged,
    /// The Setup goes below the floor that the administrator has fixed.
    BelowFloor,
    /// An older Setup covers the same node.
    Conflict,
    /// No node matches `nodeSelector`.
    NoNodes,
    /// A node took the Revision back.
    RolledBack,
    /// Nothing stands in the way.
    Healthy,
    /// Not enough is known yet.
    Pending,

    // A node.
    /// The files of a change lie ready.
    Staged,
    /// The guard watches kube-apiserver.
    Verifying,
    /// The node has its original manifest.
    Unmanaged,
    /// The agent of the node does not report.
    AgentSilent,
    /// There is no manifest of kube-apiserver where it should be.
    ManifestMissing,
    /// The manifest is not YAML, or not one that can be edited safely.
    ManifestUnusable,
    /// An edit could not be proved to mean what it should.
    EditNotProved,
    /// Another file in the manifest directory defines the same pod.
    DuplicatePod,
    /// Something else changed the manifest.
    Drifted,
    /// kube-apiserver already mounts something else at a path that is needed.
    MountConflict,
    /// The path of the log cannot be used on this node.
    LogPathUnusable,
    /// The disk has no room for the log and its backups, or cannot be written.
    DiskFull,
    /// The file system cannot be written.
    ReadOnlyFileSystem,
    /// A file operation failed.
    FileError,
    /// The Revision's Secret cannot be read.
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
    /// The API server of this node was not serving before the change.
    ApiServerDown,
    /// The kubelet was ended so that it takes up the manifest.
    KubeletRestarted,
    /// The kubelet ignores the manifest and may not be ended.
    KubeletStuck,

    // A sink.
    /// The destination answers and can be verified.
    Reachable,
    /// The canary was found.
    Delivering,
    /// Nothing is checked: the Setup switched the canary off.
    CanaryOff,
    /// The host name has no address.
    ResolveFailed,
    /// Nothing listens at the address, or nothing answers.
    ConnectFailed,
    /// The TLS handshake failed.
    TlsFailed,
    /// The certificate is not valid, not trusted or for another name.
    CertificateInvalid,
    /// The file is not where it should be.
    LogFileMissing,
    /// The canary was not found in the file.
    CanaryNotFound,
    /// The API server's requests to the sink fail.
    DeliveryFailing,
    /// The API server gave events up.
    EventsLost,
    /// The metrics of the API server cannot be read.
    MetricsUnavailable,
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
