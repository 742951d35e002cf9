//! Where audit events go.

use audit_policy::Mode;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One destination of audit events: exactly one of `log` and `webhook`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.log) != has(self.webhook)").message("exactly one of log and webhook is required"))]
pub struct Sink {
    /// Name of the sink in status, metrics and Events. Lower-case letters, digits and `-`.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// A file on each node, or the standard output of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogSink>,
    /// An HTTP receiver. kube-apiserver sends it `audit.k8s.io/v1` EventLists by POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSink>,
}

/// The log backend of kube-apiserver.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "LogSink::default")]
pub struct LogSink {
    /// Absolute path of the log file on the node, below a directory that the administrator permits
    /// (`floor.logDirectories` of the operator, `/var/log/kubernetes` by default). kube-apiserver gets the directory of
    /// the file as a writable mount, so keep nothing else in it. `-` is the standard output of kube-apiserver.
    /// (`--audit-log-path`)
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(
        validation = Rule::new("self == '-' || self.startsWith('/')").message("must be an absolute path, or - for standard output"),
        validation = Rule::new("!self.contains('$')").message("has a $: the kubelet expands it in flags but not in mounts, so they would name different places")
    )]
    pub path: String,
    /// `json`: one JSON object per line. `legacy`: the old text format. (`--audit-log-format`)
    pub format: LogFormat,
    /// Days after which a rotated file is removed; 0 keeps it. (`--audit-log-maxage`)
    #[schemars(range(min = 0, max = 36500))]
    pub max_age_days: i64,
    /// Number of rotated files to keep; 0 keeps all, which needs `UnboundedLog` in `policy.acknowledge`.
    /// (`--audit-log-maxbackup`)
    #[schemars(range(min = 0, max = 100000))]
    pub max_backups: i64,
    /// Size in MiB at which the file is rotated. (`--audit-log-maxsize`)
    #[schemars(range(min = 1, max = 1048576))]
    pub max_size_megabytes: i64,
    /// Whether rotated files are compressed with gzip. (`--audit-log-compress`)
    pub compress: bool,
    /// How kube-apiserver hands events to the log.
    pub delivery: LogDelivery,
}

impl Default for LogSink {
    fn default() -> Self {
        Self {
            path: "/var/log/kubernetes/audit/audit.log".into(),
            format: LogFormat::Json,
            // The values that the CIS Benchmark asks for.
            max_age_days: 30,
            max_backups: 10,
            max_size_megabytes: 100,
            compress: false,
            delivery: LogDelivery::default(),
        }
    }
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

/// How kube-apiserver hands events to the log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "LogDelivery::default")]
pub struct LogDelivery {
    /// `Blocking`: a request waits until its event is written; a failure is counted, and the request continues.
    /// `Batch`: events are written in the background, and dropped if the buffer is full. `BlockingStrict`: like
    /// Blocking, but a request is rejected if its first event cannot be written; needs `BlockingStrictLog` in
    /// `policy.acknowledge`. (`--audit-log-mode`)
    pub mode: Mode,
    /// Settings of mode Batch; invalid in other modes. Absent: the defaults of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Limits for the size of events. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
}

impl Default for LogDelivery {
    fn default() -> Self {
        Self { mode: Mode::Blocking, batch: None, truncate: None }
    }
}

/// How kube-apiserver sends events to the webhook.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "WebhookDelivery::default")]
pub struct WebhookDelivery {
    /// `Batch`: events are sent in the background, and dropped if the buffer is full. `Blocking`: a request waits until
    /// its event is sent; a failure is counted, and the request continues. `BlockingStrict`: like Blocking, but a
    /// request is rejected if its first event cannot be sent. Both blocking modes need `BlockingWebhook` in
    /// `policy.acknowledge`. (`--audit-webhook-mode`)
    pub mode: Mode,
    /// Settings of mode Batch; invalid in other modes. Absent: the defaults of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Limits for the size of events. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// Seconds before a failed batch is sent again. kube-apiserver makes five attempts and waits 1.5 times longer
    /// before each; then the batch is lost. (`--audit-webhook-initial-backoff`)
    #[schemars(range(min = 1, max = 600))]
    pub initial_backoff_seconds: i64,
}

impl Default for WebhookDelivery {
    fn default() -> Self {
        // kube-apiserver's own defaults.
        Self { mode: Mode::Batch, batch: None, truncate: None, initial_backoff_seconds: 10 }
    }
}

/// Settings of mode Batch. An absent field leaves the default of kube-apiserver.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batch {
    /// Number of events that can wait; further events are dropped. Absent: 10000. (`--audit-*-batch-buffer-size`)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub buffer_size: Option<i64>,
    /// Most events in one batch. Absent: 400 for a webhook, 1 for a log. (`--audit-*-batch-max-size`)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub max_size: Option<i64>,
    /// Seconds until an incomplete batch is sent. Absent: 30 for a webhook; at once for a log.
    /// (`--audit-*-batch-max-wait`)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub max_wait_seconds: Option<i64>,
    /// Most batches per second; 0 is no limit. Absent: 10 for a webhook, no limit for a log.
    /// (`--audit-*-batch-throttle-qps`, `--audit-*-batch-throttle-enable`)
    #[serde(rename = "throttleQPS", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100000))]
    pub throttle_qps: Option<f64>,
    /// Batches that can be sent at once after a pause. Absent: 15 for a webhook; a log with `throttleQPS` must set it.
    /// (`--audit-*-batch-throttle-burst`)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub throttle_burst: Option<i64>,
}

/// Size limits in bytes. A larger event loses its request and response bodies, and is dropped if it is still too large.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "Truncate::default")]
#[x_kube(validation = Rule::new("self.maxBatchBytes >= self.maxEventBytes").message("maxBatchBytes must not be below maxEventBytes"))]
pub struct Truncate {
    /// Largest event, in bytes. An event without bodies has 1 to 3 KiB. (`--audit-*-truncate-max-event-size`)
    #[schemars(range(min = 4096, max = 1073741824))]
    pub max_event_bytes: i64,
    /// Largest request to the sink, in bytes. kube-apiserver applies it in the blocking modes only: in mode Batch the
    /// limit is `batch.maxSize` × `maxEventBytes`. (`--audit-*-truncate-max-batch-size`)
    #[schemars(range(min = 4096, max = 1073741824))]
    pub max_batch_bytes: i64,
}

impl Default for Truncate {
    fn default() -> Self {
        // kube-apiserver's own defaults.
        Self { max_event_bytes: 102_400, max_batch_bytes: 10_485_760 }
    }
}

/// The webhook backend of kube-apiserver: exactly one of `url`, `urlSecretRef` and `service`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.url), has(self.urlSecretRef), has(self.service)].filter(x, x).size() == 1")
        .message("exactly one of url, urlSecretRef and service is required"),
    validation = Rule::new("!(has(self.url) && self.url.startsWith('http://') || has(self.service) && self.service.scheme == 'http') || !(has(self.auth) && (has(self.auth.bearerTokenSecretRef) || has(self.auth.basicAuthSecretRef) || has(self.auth.clientCertificateSecretRef)))")
        .message("credentials need https: kube-apiserver does not send them over http")
)]
pub struct WebhookSink {
    /// URL of the receiver: `https://host[:port]/path`, without a query or a fragment, because kube-apiserver drops
    /// them. The DNS of the node resolves the host; it does not know names of Services.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[^/?#@]+(/[^?#]*)?$')").message("must be http://host[:port]/path or https://host[:port]/path, without user, query and fragment")
    )]
    pub url: Option<String>,
    /// A Secret with the URL, for a URL that is itself a secret, such as one with a token in its path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<UrlSecretRef>,
    /// A Service of this cluster that has a ClusterIP. kube-apiserver connects to its address and verifies its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
    /// The proxy that kube-apiserver connects through: `http://host:port`, `https://host:port` or
    /// `socks5://host:port`, without user, path and query. It overrides the proxy of kube-apiserver's environment,
    /// `NO_PROXY` included. `floor.destinations` must permit it. With an `http` receiver, the proxy reads the events.
    /// Absent: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` in the manifest decide.
    #[serde(rename = "proxyURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.matches('^(https?|socks5)://[^/?#@]+/?$')").message("must be http://host:port, https://host:port or socks5://host:port, without user, path and query")
    )]
    pub proxy_url: Option<String>,
    /// How kube-apiserver verifies the receiver. Absent: with the certificate authorities in its own image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<WebhookTls>,
    /// How kube-apiserver authenticates to the receiver. Absent: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<WebhookAuth>,
    /// How kube-apiserver sends events.
    #[serde(default)]
    pub delivery: WebhookDelivery,
    /// A request by which the agents find out why events do not arrive. Absent: they make none. Set it only for a
    /// receiver to which a GET is harmless: to Logstash and Loggly any request is an event. A change of it restarts
    /// nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<WebhookProbe>,
}

/// A GET without credentials and without a body, to the host and port of the sink. The agent of each node makes it when
/// kube-apiserver's requests get no answer, at most once a minute, and once an hour while events arrive; never through
/// a proxy. Nothing of the answer is used but its status code, and redirects are not followed. Its result explains a
/// failure and never overrules a delivery.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookProbe {
    /// Path of the request, without a query. Absent: the path of the sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/[^?#]*$')").message("must start with / and have no query and no fragment"))]
    pub path: Option<String>,
    /// Status codes that a healthy receiver answers with. Falco and other receivers that take only POST answer 405 at
    /// the right path and 404 at a wrong one. Absent: 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(range(min = 200, max = 599)))]
    pub expected_codes: Vec<i64>,
}

/// A port of a Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRef {
    /// Namespace of the Service.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port number of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the requests.
    #[serde(default = "root_path")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^/[^?#]*$')").message("must start with / and have no query and no fragment"))]
    pub path: String,
    /// `https` or `http`.
    #[serde(default)]
    pub scheme: Scheme,
}

/// Scheme of a URL.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    #[serde(rename = "https")]
    Https,
    #[serde(rename = "http")]
    Http,
}

/// How kube-apiserver verifies the receiver.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(has(self.insecureSkipVerify) && self.insecureSkipVerify && has(self.caSecretRef))").message("insecureSkipVerify and caSecretRef exclude each other"))]
pub struct WebhookTls {
    /// A Secret with the certificates (PEM) of the authorities that may have issued the receiver's certificate. Absent:
    /// the authorities in the image of kube-apiserver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// Name that the receiver's certificate must be for. Absent: the host of the URL, or `<name>.<namespace>.svc` for a
    /// Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Accept any certificate. Anyone on the network path can then read events and impersonate the receiver.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

/// How kube-apiserver authenticates to the receiver: at most one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.bearerTokenSecretRef), has(self.basicAuthSecretRef), has(self.clientCertificateSecretRef)].filter(x, x).size() <= 1")
    .message("at most one of bearerTokenSecretRef, basicAuthSecretRef and clientCertificateSecretRef is allowed"))]
pub struct WebhookAuth {
    /// A Secret with a bearer token. A changed token takes effect within two minutes, without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret_ref: Option<TokenSecretRef>,
    /// A Secret with the keys `username` and `password`. kube-apiserver reads them only at its start, so a change
    /// restarts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub basic_auth_secret_ref: Option<SecretRef>,
    /// A Secret with the keys `tls.crt` and `tls.key`. A changed certificate takes effect without a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<SecretRef>,
}

/// A Secret in the operator's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

macro_rules! secret_key_ref {
    ($(#[$doc:meta])* $name:ident, $key:literal) => {
        $(#[$doc])*
        #[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            /// Name of the Secret.
            #[schemars(length(min = 1, max = 253))]
            pub name: String,
            /// Key in the Secret.
            #[serde(default = $key)]
            #[schemars(length(min = 1, max = 253))]
            pub key: String,
        }
    };
}

secret_key_ref!(
    /// A URL in a Secret in the operator's namespace.
    UrlSecretRef, "url_key");
secret_key_ref!(
    /// Certificates in a Secret in the operator's namespace.
    CaSecretRef, "ca_key");
secret_key_ref!(
    /// A token in a Secret in the operator's namespace.
    TokenSecretRef, "token_key");

fn root_path() -> String {
    "/".into()
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
