//! `AuditSetup`: the one object a user writes.

use std::collections::BTreeMap;

use audit_policy::{Mode, PolicyRule, Preset, Stage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One Setup describes the auditing of kube-apiserver on a set of control-plane nodes: which requests are recorded
/// (`policy`), where the events go (`sinks`), and how a change is carried to the nodes (`rollout`). The operator renders it
/// into a policy file, a webhook kubeconfig and an edit of the static-pod manifest, and rolls that out one node at a time.
/// Deleting a Setup gives the nodes their original manifests back.
///
/// Secrets and ConfigMaps that a Setup names live in the namespace of the operator.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "audit-operator.io",
    version = "v1alpha1",
    kind = "AuditSetup",
    plural = "auditsetups",
    shortname = "asetup",
    status = "AuditSetupStatus",
    derive = "PartialEq",
    validation = Rule::new("size(self.metadata.name) <= 63").message("metadata.name: at most 63 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Sinks", type_ = "string", json_path = ".status.conditions[?(@.type=='SinksHealthy')].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision.current"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.revision.target", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditSetupSpec {
    /// Labels of the nodes that this Setup covers. Empty: every node with the label
    /// `node-role.kubernetes.io/control-plane`. A node that two Setups select belongs to the older one; the newer Setup is
    /// then Stalled with reason Conflict.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Which requests are recorded, and how much of each.
    pub policy: PolicySpec,
    /// Where audit events go. kube-apiserver has one log backend and one webhook backend, so at most one sink of each kind.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".to_string()]),
        validation = Rule::new("self.filter(s, has(s.log)).size() <= 1").message("at most one log sink: kube-apiserver has one log backend"),
        validation = Rule::new("self.filter(s, has(s.webhook)).size() <= 1").message("at most one webhook sink: kube-apiserver has one webhook backend")
    )]
    pub sinks: Vec<Sink>,
    /// How a change is carried to the nodes.
    #[serde(default)]
    pub rollout: Rollout,
}

/// The audit policy: exactly one of `preset`, `rules` and `configMapRef`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.preset), has(self.rules), has(self.configMapRef)].filter(x, x).size() == 1")
        .message("exactly one of preset, rules and configMapRef is needed"),
    validation = Rule::new("!has(self.configMapRef) || !(has(self.omitStages) || has(self.omitManagedFields))")
        .message("omitStages and omitManagedFields are set inside the policy of the ConfigMap")
)]
pub struct PolicySpec {
    /// A policy that comes with the operator. `audit-operator policy presets` lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// A whole policy of one's own. The first rule that matches a request decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub rules: Option<Vec<PolicyRule>>,
    /// A whole policy (`audit.k8s.io/v1`) in a ConfigMap of the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
    /// Rules that stand before those of the preset, the inline rules or the ConfigMap, and so win over them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub prepend: Vec<PolicyRule>,
    /// Rules that stand after those of the preset, the inline rules or the ConfigMap. They only see requests that no rule
    /// before them matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub append: Vec<PolicyRule>,
    /// Stages for which no event is written, for all rules. Default: as the preset has it; RequestReceived for inline rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    pub omit_stages: Option<Vec<Stage>>,
    /// Leave `metadata.managedFields` out of recorded bodies. Default: as the preset has it; true for inline rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
    /// Put a rule on top that records the operator's own canary request (a `get` of a NodeAudit). Without it the operator
    /// cannot tell whether events arrive, and SinksHealthy stays Unknown.
    #[serde(default = "yes")]
    pub canary_rule: bool,
    /// Risks that you accept. A Setup that runs a risk not listed here is not rolled out, and neither is one that lists a risk which
    /// the administrator has not granted (`floor.grantedRisks` of the operator).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub acknowledge: Vec<Risk>,
}

/// A risk that a Setup must name before it may run it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// A webhook in mode Blocking or BlockingStrict: while its receiver is down every audited request waits for it, health
    /// checks fail, and the kubelet restarts kube-apiserver over and over.
    BlockingWebhook,
    /// A policy that records Secrets or tokens with their bodies: anyone who reads the log, or any sink of it, has them in plain
    /// text. The preset stig-literal does, and so may a rule of your own.
    SecretsAboveMetadata,
    /// A log in mode BlockingStrict: while the log cannot be written, because its disk is full or read-only, kube-apiserver
    /// refuses every audited request.
    BlockingStrictLog,
    /// A log file whose size nothing bounds (`maxBackups: 0`): it can fill the disk, which etcd often shares.
    UnboundedLog,
}

impl Risk {
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::BlockingWebhook => "BlockingWebhook",
            Risk::SecretsAboveMetadata => "SecretsAboveMetadata",
            Risk::BlockingStrictLog => "BlockingStrictLog",
            Risk::UnboundedLog => "UnboundedLog",
        }
    }
}

/// A key of a ConfigMap in the operator's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it.
    #[serde(default = "policy_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// One destination of audit events: exactly one of `log` and `webhook`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.log) != has(self.webhook)").message("exactly one of log and webhook is needed"))]
pub struct Sink {
    /// Name of the sink, as status shows it. Lower-case letters, digits and `-`.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A file on the node, or the standard output of kube-apiserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSink>,
    /// An HTTP receiver that takes `audit.k8s.io/v1` EventLists by POST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,
}

/// The log backend of kube-apiserver.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSink {
    /// File on the node, an absolute path below one of the directories that the administrator permits (`floor.logDirectories` of the
    /// operator; `/var/log/kubernetes` unless set). Its directory is mounted into kube-apiserver, so it should hold nothing else.
    /// `-` is the standard output of kube-apiserver. (`--audit-log-path`)
    #[serde(default = "log_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("self == '-' || self.startsWith('/')").message("an absolute path, or - for standard output"),
        validation = Rule::new("!self.contains('$')").message("has a $ in it: the kubelet expands that in flags and not in mounts, so both would name different places")
    )]
    pub path: String,
    /// Lines of JSON, or the old text format. (`--audit-log-format`)
    #[serde(default)]
    pub format: LogFormat,
    /// Days after which a rotated file is removed; 0 keeps it. (`--audit-log-maxage`)
    #[serde(default = "thirty")]
    #[schemars(range(min = 0, max = 36500))]
    pub max_age_days: i64,
    /// Rotated files that are kept; 0 keeps all, which needs `UnboundedLog` in `policy.acknowledge`. (`--audit-log-maxbackup`)
    #[serde(default = "ten")]
    #[schemars(range(min = 0, max = 100000))]
    pub max_backups: i64,
    /// Size in MiB at which the file is rotated. (`--audit-log-maxsize`)
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1048576))]
    pub max_size_megabytes: i64,
    /// Compress rotated files with gzip. (`--audit-log-compress`)
    #[serde(default)]
    pub compress: bool,
    /// How kube-apiserver hands events to the file.
    #[serde(default)]
    pub delivery: LogDelivery,
}

/// Format of the log file.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    #[serde(rename = "json")]
    Json,
    #[serde(rename = "legacy")]
    Legacy,
}

/// How kube-apiserver hands events to the log file.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogDelivery {
    /// BlockingStrict needs `BlockingStrictLog` in `policy.acknowledge`. (`--audit-log-mode`)
    #[serde(default = "blocking")]
    pub mode: Mode,
    /// Only for mode Batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Cut events that are too large. Absent: nothing is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
}

/// How kube-apiserver sends events to the webhook.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookDelivery {
    /// Blocking and BlockingStrict need `BlockingWebhook` in `policy.acknowledge`. (`--audit-webhook-mode`)
    #[serde(default = "batch")]
    pub mode: Mode,
    /// Only for mode Batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Cut events that are too large. Absent: nothing is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// Seconds before the second attempt; five attempts are made, each wait 1.5 times the one before, then the batch is
    /// lost. (`--audit-webhook-initial-backoff`)
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 600))]
    pub initial_backoff_seconds: i64,
}

/// Batching. An absent field leaves kube-apiserver's own default.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Events that wait at most; more are dropped. Default 10000. (`--audit-*-batch-buffer-size`)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub buffer_size: Option<i64>,
    /// Events in one request or write. Default: webhook 400, log 1. (`--audit-*-batch-max-size`)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub max_size: Option<i64>,
    /// Seconds until an incomplete batch is sent. Default: webhook 30, log 0. (`--audit-*-batch-max-wait`)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_wait_seconds: Option<i64>,
    /// Batches a second at most; 0 switches throttling off. Default: webhook 10, log 0. (`--audit-*-batch-throttle-qps`, `-enable`)
    #[serde(default, rename = "throttleQPS", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100000))]
    pub throttle_qps: Option<f64>,
    /// Batches that may be sent at once after a pause. Default 15. (`--audit-*-batch-throttle-burst`)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub throttle_burst: Option<i64>,
}

/// Limits in bytes. A larger event loses its bodies first and is dropped if that is not enough.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.maxBatchBytes >= self.maxEventBytes").message("maxBatchBytes must not be below maxEventBytes"))]
pub struct Truncate {
    /// Bytes of one event. An event without bodies has 1 to 3 KiB. (`--audit-*-truncate-max-event-size`)
    #[serde(default = "event_bytes")]
    #[schemars(range(min = 4096, max = 1073741824))]
    pub max_event_bytes: i64,
    /// Bytes of one request. kube-apiserver honours it in the blocking modes only: in mode Batch the bound is
    /// `batch.maxSize` × `maxEventBytes`. (`--audit-*-truncate-max-batch-size`)
    #[serde(default = "batch_bytes")]
    #[schemars(range(min = 4096, max = 1073741824))]
    pub max_batch_bytes: i64,
}

/// The webhook backend of kube-apiserver: exactly one of `url`, `urlSecretRef` and `service`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.url), has(self.urlSecretRef), has(self.service)].filter(x, x).size() == 1")
        .message("exactly one of url, urlSecretRef and service is needed"),
    validation = Rule::new("!(has(self.url) && self.url.startsWith('http://') || has(self.service) && self.service.scheme == 'http') || !(has(self.auth) && (has(self.auth.bearerTokenSecretRef) || has(self.auth.basicAuthSecretRef) || has(self.auth.clientCertificateSecretRef)))")
        .message("credentials need https: kube-apiserver leaves them out over http")
)]
pub struct WebhookSink {
    /// `https://host[:port]/path`, without query and fragment: kube-apiserver drops them. The host is resolved by the node's
    /// own DNS, which does not know names of Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[^/?#@]+(/[^?#]*)?$')").message("http://host[:port]/path or https://host[:port]/path, without user, query and fragment")
    )]
    pub url: Option<String>,
    /// The URL in a Secret, where the URL itself is a secret (a token in its path).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<UrlSecretRef>,
    /// A Service of this cluster with a ClusterIP. kube-apiserver is given the address, and the name for TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// How the receiver is verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<WebhookTls>,
    /// How kube-apiserver authenticates to the receiver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<WebhookAuth>,
    /// How events are sent.
    #[serde(default)]
    pub delivery: WebhookDelivery,
}

/// A Service port as a destination.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// A port number of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the requests.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/[^?#]*$')").message("starts with / and has no query and no fragment"))]
    pub path: String,
    #[serde(default)]
    pub scheme: Scheme,
}

#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    #[serde(rename = "https")]
    Https,
    #[serde(rename = "http")]
    Http,
}

/// How the receiver is verified.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.insecureSkipVerify) && self.insecureSkipVerify && has(self.caSecretRef))").message("insecureSkipVerify and caSecretRef exclude each other"))]
pub struct WebhookTls {
    /// Certificates (PEM) of the authorities that the receiver's certificate may come from. Absent: those of the
    /// kube-apiserver image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Name that the receiver's certificate must carry. Default: the host of the URL, or `<name>.<namespace>.svc` for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Accept any certificate. Whoever is on the way can then read and answer.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// How kube-apiserver authenticates to the receiver: one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.bearerTokenSecretRef), has(self.basicAuthSecretRef), has(self.clientCertificateSecretRef)].filter(x, x).size() <= 1")
    .message("only one of bearerTokenSecretRef, basicAuthSecretRef and clientCertificateSecretRef"))]
pub struct WebhookAuth {
    /// A bearer token. A changed Secret is used within two minutes, without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<TokenSecretRef>,
    /// A Secret with the keys `username` and `password`. kube-apiserver reads them at its start only: a change restarts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth_secret_ref: Option<SecretRef>,
    /// A Secret with the keys `tls.crt` and `tls.key`. A changed Secret is used without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretRef>,
}

/// A Secret in the operator's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

macro_rules! secret_key_ref {
    ($(#[$doc:meta])* $name:ident, $key:literal, $default:ident) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            /// Name of the Secret.
            #[schemars(length(min = 1, max = 253))]
            pub name: String,
            /// Key in it.
            #[serde(default = $key)]
            #[schemars(length(min = 1, max = 253))]
            pub key: String,
        }
    };
}

secret_key_ref!(
    /// A URL in a Secret of the operator's namespace.
    UrlSecretRef, "url_key", url_key);
secret_key_ref!(
    /// Certificates in a Secret of the operator's namespace.
    CaSecretRef, "ca_key", ca_key);
secret_key_ref!(
    /// A token in a Secret of the operator's namespace.
    TokenSecretRef, "token_key", token_key);

/// How a change is carried to the nodes, one node at a time. A node takes a change back by itself if its kube-apiserver does
/// not come up with it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.minReadySeconds < self.confirmTimeoutSeconds")
        .message("minReadySeconds must be below confirmTimeoutSeconds: no change could ever be confirmed"),
    validation = Rule::new("self.shutdownDelaySeconds + self.drainWatchesSeconds <= 25")
        .message("shutdownDelaySeconds and drainWatchesSeconds together must be at most 25: the kubelet kills a kube-apiserver that takes longer than 30 s to stop")
)]
pub struct Rollout {
    /// Start no change on any node. One that is under way is finished or taken back.
    #[serde(default)]
    pub paused: bool,
    /// How the manifest of kube-apiserver is replaced on the node.
    #[serde(default)]
    pub method: Method,
    /// Seconds that a kube-apiserver which is told to stop goes on serving, while its `/readyz` fails, so that load balancers
    /// and kube-proxy send it nothing more (`--shutdown-delay-duration`), unless the manifest sets that flag already. A load
    /// balancer in front of several nodes should find out within this time. Together with `drainWatchesSeconds` at most 25, and 5
    /// less than the pod's `terminationGracePeriodSeconds` (30 unless the manifest says otherwise): the kubelet kills a
    /// kube-apiserver that takes longer, and audit events are lost. 0 leaves the flag alone.
    #[serde(default = "two")]
    #[schemars(range(min = 0, max = 60))]
    pub shutdown_delay_seconds: i64,
    /// Seconds that a stopping kube-apiserver gives open watches (`--shutdown-watch-termination-grace-period`), unless the
    /// manifest sets that flag already. Without it each restart takes half a minute longer and loses audit events. 0 leaves
    /// the flag alone. Needs Kubernetes 1.27.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 60))]
    pub drain_watches_seconds: i64,
    /// Whether a node may end its kubelet once, so that its service manager starts it anew. That is needed for one case:
    /// a kubelet that was started while kube-apiserver was broken ignores the repaired manifest.
    #[serde(default)]
    pub restart_kubelet: RestartKubelet,
    /// Seconds that kube-apiserver must be ready without a break before the change counts as confirmed.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 3600))]
    pub min_ready_seconds: i64,
    /// Seconds from the replacing of the manifest after which a change that is not confirmed is taken back.
    #[serde(default = "three_hundred")]
    #[schemars(range(min = 60, max = 3600))]
    pub confirm_timeout_seconds: i64,
}

/// How the manifest is replaced.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// The new manifest is renamed over the old one: there is a manifest at any moment. The API of the node is away for
    /// about 16 seconds.
    #[default]
    Replace,
    /// The old manifest is taken out, and the new one put in once the old kube-apiserver is gone. The API of the node is
    /// away for about 6 seconds.
    Swift,
}

/// Whether a node may end its kubelet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartKubelet {
    /// Once, where nothing else brings kube-apiserver back.
    #[default]
    WhenStuck,
    /// Not even then: the node waits for a person.
    Never,
}

impl Default for LogDelivery {
    fn default() -> Self {
        Self { mode: blocking(), batch: None, truncate: None }
    }
}

impl Default for WebhookDelivery {
    fn default() -> Self {
        Self { mode: batch(), batch: None, truncate: None, initial_backoff_seconds: ten() }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            paused: false,
            method: Method::default(),
            shutdown_delay_seconds: two(),
            drain_watches_seconds: three(),
            restart_kubelet: RestartKubelet::default(),
            min_ready_seconds: ten(),
            confirm_timeout_seconds: three_hundred(),
        }
    }
}

fn yes() -> bool {
    true
}
fn two() -> i64 {
    2
}
fn three() -> i64 {
    3
}
fn ten() -> i64 {
    10
}
fn thirty() -> i64 {
    30
}
fn hundred() -> i64 {
    100
}
fn three_hundred() -> i64 {
    300
}
fn event_bytes() -> i64 {
    102_400
}
fn batch_bytes() -> i64 {
    10_485_760
}
fn blocking() -> Mode {
    Mode::Blocking
}
fn batch() -> Mode {
    Mode::Batch
}
fn log_path() -> String {
    "/var/log/kubernetes/audit/audit.log".into()
}
fn root_path() -> String {
    "/".into()
}
fn policy_key() -> String {
    "policy.yaml".into()
}
fn url_key() -> String {
    "url".into()
}
fn ca_key() -> String {
    "ca.crt".into()
}
fn token_key() -> String {
    "token".into()
}

/// What the operator found and did. Written by the operator alone.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AuditSetupStatus {
    /// The generation of the Setup that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The Revision that the nodes run, and the one that they shall run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<RevisionStatus>,
    /// Ready: every node runs the target Revision. Reconciling: a change is under way. Stalled: it needs a person.
    /// PolicyAccepted: the policy is one that kube-apiserver starts with. SinksHealthy: every sink receives events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// What the policy is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyStatus>,
    /// Warnings about the sinks, and risks that are acknowledged. They do not stop the Setup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<SetupFinding>,
    /// The nodes that this Setup covers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub nodes: Vec<NodeStatus>,
    /// The sinks, over all nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub sinks: Vec<SinkStatus>,
    /// The last Revisions, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,
}

/// The Revision that the nodes run, and the one that they shall run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Confirmed on every node. Absent while the nodes differ or none has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Rendered from the Setup as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What the target changes against the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the target became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// What the policy is made of.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// Number of rules, all parts together.
    pub rules: i64,
    /// Preset with its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// What `audit-operator policy lint` warns of, and risks that are acknowledged; the worst first, at most 32. Errors keep
    /// the policy from being accepted: the condition PolicyAccepted tells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<SetupFinding>,
}

/// One thing about the policy that does not stand in the way.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SetupFinding {
    /// `audit-operator policy lint --explain ID` tells what it means.
    pub id: String,
    /// warning, or info for a risk that is acknowledged.
    pub severity: String,
    /// Field of the Setup.
    pub field: String,
    pub message: String,
}

/// One node under a Setup.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub name: String,
    /// The Revision that the node runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub phase: super::Phase,
    /// Why the phase is what it is, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Reason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Version of the kube-apiserver of this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_server_version: Option<String>,
    /// When the phase became what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// One sink over all nodes: False if it is False on one.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    pub name: String,
    /// The destination can be resolved, connected to and verified from every node.
    pub reachable: super::Truth,
    /// A request made on purpose was found again at the sink, on every node.
    pub delivering: super::Truth,
    /// Events that the API servers gave up, since they started.
    pub lost_events: i64,
    /// The oldest "last delivered" of all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered: Option<Time>,
    /// The worst that a node found, in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Reason>,
    /// What is wrong, with the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One Revision of the past.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    pub revision: String,
    /// The generation of the Setup that it was rendered from.
    pub generation: i64,
    pub started: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Time>,
    pub outcome: Outcome,
}

/// What became of a Revision.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    InProgress,
    /// Every node confirmed it.
    Confirmed,
    /// A node took it back.
    RolledBack,
    /// A newer one took its place before it was everywhere.
    Superseded,
}
