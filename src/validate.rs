//! A Setup and its references in; a [`ValidSetup`], whose rendering cannot fail, or all problems at once out.
//!
//! The controller and the command line validate before they render. This module repeats the CEL rules and bounds of the
//! CRD for users without an API server, and checks what CEL cannot: references, URLs, certificates, paths. It fetches
//! nothing; [`needs`] lists what to fetch. No message contains the content of a Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Service;

use crate::api::{
    AuditSetup, AuditSetupSpec, LogSink, Mode, Reason, Risk, Rollout, SetupFinding, Stage, WebhookDelivery,
    WebhookProbe,
};
use crate::floor::Floor;
use crate::revision::{Proxy, Url};
use audit_policy::{Part, Severity, is_label_key, is_label_value};

mod credentials;
mod delivery;
mod judge;
mod log;
mod policy;
mod receiver;
mod schema;

mod secret;
mod version;
mod webhook;

pub use judge::{judge, judge_credentials};
pub use secret::SecretFacts;
pub use version::{KubernetesVersion, NotAVersion};

pub use schema::{SchemaCheck, check_schema};

#[cfg(test)]
mod tests;

/// The objects that a Setup may refer to, as far as they exist.
#[derive(Clone, Default)]
pub struct References {
    /// Secrets of the operator's namespace, by name.
    pub secrets: BTreeMap<String, SecretFacts>,
    /// ConfigMaps of the operator's namespace: name -> key -> text.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Services by (namespace, name).
    pub services: BTreeMap<(String, String), Service>,
    /// Whether each of these Services has a ready endpoint, where it is known.
    pub endpoints: BTreeMap<(String, String), bool>,
    /// Address of the Service `default/kubernetes`, where it is known.
    pub api_server: Option<std::net::IpAddr>,
}

impl fmt::Debug for References {
    /// Names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("References")
            .field("secrets", &self.secrets.keys())
            .field("config_maps", &self.config_maps.keys())
            .field("services", &self.services.keys())
            .finish()
    }
}

/// The names that a Setup refers to, for the caller to fetch before it validates. Sorted, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub secrets: Vec<String>,
    pub config_maps: Vec<String>,
    pub services: Vec<(String, String)>,
}

/// Id of the finding about a Service that has no ready endpoint.
pub(crate) const NO_ENDPOINTS: &str = "no-endpoints";

/// A reason to reject a Setup, and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Path of the field, such as `spec.sinks[0].webhook.url`.
    pub field: String,
    pub reason: Reason,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The versions of the nodes' API servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The oldest kube-apiserver that the Setup covers.
    pub oldest: KubernetesVersion,
    /// The newest one.
    pub newest: KubernetesVersion,
}

impl Capabilities {
    /// All API servers have one version.
    pub fn of(version: KubernetesVersion) -> Self {
        Self { oldest: version, newest: version }
    }
}

/// A valid Setup: rendering it cannot fail.
#[derive(Clone, Debug)]
pub struct ValidSetup {
    pub(crate) policy: ValidPolicy,
    pub(crate) log: Option<ValidLog>,
    pub(crate) webhook: Option<ValidWebhook>,
    /// Warnings, and acknowledged risks.
    pub(crate) findings: Vec<SetupFinding>,
    pub(crate) shutdown_delay_seconds: i64,
    /// 0 if the API servers do not know the flag.
    pub(crate) drain_watches_seconds: i64,
    pub(crate) capabilities: Capabilities,
}

#[derive(Clone, Debug)]
pub(crate) struct ValidPolicy {
    pub parts: Vec<Part>,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
    /// Name with version.
    pub preset: Option<String>,
    /// Warnings, and acknowledged risks.
    pub findings: Vec<SetupFinding>,
}

#[derive(Clone, Debug)]
pub(crate) struct ValidLog {
    pub name: String,
    pub log: LogSink,
}

#[derive(Clone)]
pub(crate) struct ValidWebhook {
    pub name: String,
    pub url: Url,
    /// `namespace/name` of the Service whose address the URL has.
    pub service: Option<String>,
    pub proxy: Option<Proxy>,
    pub is_url_secret: bool,
    /// `None` over http.
    pub tls: Option<Tls>,
    pub auth: Option<Auth>,
    pub delivery: WebhookDelivery,
    pub probe: Option<WebhookProbe>,
}

impl fmt::Debug for ValidWebhook {
    /// Without URL and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidWebhook")
            .field("name", &self.name)
            .field("delivery", &self.delivery)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    /// `None`: the host of the URL.
    pub server_name: Option<String>,
    /// PEM.
    pub ca: Option<String>,
    pub insecure_skip_verify: bool,
}

#[derive(Clone)]
pub(crate) enum Auth {
    Token(String),
    Basic { username: String, password: String },
    Certificate { certificate: Vec<u8>, key: Vec<u8> },
}

/// The names of everything that a Setup refers to.
pub fn needs(setup: &AuditSetup) -> Needs {
    let mut secrets = BTreeSet::new();
    let mut services = BTreeSet::new();
    for webhook in setup.spec.sinks.iter().filter_map(|sink| sink.webhook.as_ref()) {
        let auth = webhook.auth.as_ref();
        let names = [
            webhook.url_secret_ref.as_ref().map(|r| &r.name),
            webhook.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()).map(|r| &r.name),
            auth.and_then(|auth| auth.bearer_token_secret_ref.as_ref()).map(|r| &r.name),
            auth.and_then(|auth| auth.basic_auth_secret_ref.as_ref()).map(|r| &r.name),
            auth.and_then(|auth| auth.client_certificate_secret_ref.as_ref()).map(|r| &r.name),
        ];
        secrets.extend(names.into_iter().flatten().cloned());
        services.extend(webhook.service.as_ref().map(|s| (s.namespace.clone(), s.name.clone())));
    }
    Needs {
        secrets: secrets.into_iter().collect(),
        config_maps: setup.spec.policy.config_map_ref.iter().map(|r| r.name.clone()).collect(),
        services: services.into_iter().collect(),
    }
}

/// The share of both delays in the 30 s that the kubelet gives kube-apiserver to stop. The rest is for its work after
/// them.
const MAX_STOP_SECONDS: i64 = 25;

/// Validates a Setup. Reports all problems at once, sorted by field.
pub fn validate(
    setup: &AuditSetup,
    references: &References,
    capabilities: Capabilities,
    floor: &Floor,
) -> Result<ValidSetup, Vec<Problem>> {
    let mut problems = Problems::default();
    let spec = &setup.spec;
    let name = setup.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        problems.add("metadata.name", Reason::InvalidSetup, "must not be empty");
    } else if name.chars().count() > 63 {
        problems.add("metadata.name", Reason::InvalidSetup, "must have at most 63 characters");
    }
    schema::check_bounds(spec, &mut problems);
    problems.problems.extend(check_selector(spec));
    check_rollout(&spec.rollout, &mut problems);
    let policy = policy::check(&spec.policy, references, capabilities, mode(spec), floor, &mut problems);
    let (log, webhook) = check_sinks(spec, &policy.omit_stages, references, floor, &mut problems);
    let Problems { mut problems, findings } = problems;
    if !problems.is_empty() {
        problems.sort_by(|a, b| a.field.cmp(&b.field));
        return Err(problems);
    }
    let shutdown_delay_seconds = spec.rollout.shutdown_delay_seconds;
    // The flag is new in 1.27. Before, it is left out: a restart without it only takes longer.
    let drain_watches_seconds = if capabilities.oldest.minor() >= 27 { spec.rollout.drain_watches_seconds } else { 0 };
    Ok(ValidSetup { policy, log, webhook, findings, shutdown_delay_seconds, drain_watches_seconds, capabilities })
}

/// Validates only the policy of a Setup, which needs no Secrets and no Services.
pub(crate) fn validate_policy(
    setup: &AuditSetup,
    references: &References,
    capabilities: Capabilities,
    floor: &Floor,
) -> Result<ValidPolicy, Vec<Problem>> {
    let mut problems = Problems::default();
    schema::check_bounds(&setup.spec, &mut problems);
    problems.problems.retain(|problem| problem.field.starts_with("spec.policy"));
    let policy = policy::check(&setup.spec.policy, references, capabilities, mode(&setup.spec), floor, &mut problems);
    if problems.problems.is_empty() { Ok(policy) } else { Err(problems.problems) }
}

/// How events are handed to the webhook. The log cannot make kube-apiserver wait for long.
fn mode(spec: &AuditSetupSpec) -> Mode {
    spec.sinks.iter().find_map(|sink| sink.webhook.as_ref()).map_or(Mode::Batch, |webhook| webhook.delivery.mode)
}

/// The problems of `spec.nodeSelector`: the API server refuses a list by a selector that is not made of labels.
pub(crate) fn check_selector(spec: &AuditSetupSpec) -> Option<Problem> {
    let is_label = |(key, value): &(&String, &String)| is_label_key(key.as_bytes()) && is_label_value(value.as_bytes());
    let (key, value) = spec.node_selector.iter().find(|label| !is_label(label))?;
    Some(Problem {
        field: "spec.nodeSelector".into(),
        reason: Reason::InvalidSetup,
        message: format!("{:?} is not a valid label, so no node can have it", format!("{key}={value}")),
    })
}

/// Repeats the CEL rules.
fn check_rollout(rollout: &Rollout, problems: &mut Problems) {
    let Rollout { min_ready_seconds, confirm_timeout_seconds, shutdown_delay_seconds, drain_watches_seconds, .. } =
        rollout;
    if min_ready_seconds >= confirm_timeout_seconds {
        let message = format!(
            "minReadySeconds must be below confirmTimeoutSeconds: otherwise no change could be confirmed; they are {min_ready_seconds} and \
             {confirm_timeout_seconds}"
        );
        problems.add("spec.rollout.minReadySeconds", Reason::InvalidSetup, message);
    }
    check_stop(*shutdown_delay_seconds, *drain_watches_seconds, "spec.rollout", problems);
}

/// Both flags together against the time that the kubelet gives a pod to stop.
fn check_stop(shutdown_delay_seconds: i64, drain_watches_seconds: i64, field: &str, problems: &mut Problems) {
    let stop = shutdown_delay_seconds.saturating_add(drain_watches_seconds);
    if stop > MAX_STOP_SECONDS {
        let message = format!(
            "shutdownDelaySeconds and drainWatchesSeconds together must be at most {MAX_STOP_SECONDS}: the kubelet kills a kube-apiserver \
             that takes longer than 30 s to stop; they are {shutdown_delay_seconds} and {drain_watches_seconds}"
        );
        problems.add(field, Reason::InvalidSetup, message);
    }
}

/// The context of every check of a Setup or a Revision.
pub(crate) struct Context<'a> {
    pub floor: &'a Floor,
    /// Risks that the Setup acknowledges.
    pub acknowledged: &'a [Risk],
    /// Stages that the policy leaves out.
    pub omit_stages: &'a [Stage],
}

fn check_sinks(
    spec: &AuditSetupSpec,
    omit_stages: &[Stage],
    references: &References,
    floor: &Floor,
    problems: &mut Problems,
) -> (Option<ValidLog>, Option<ValidWebhook>) {
    let context = Context { floor, acknowledged: &spec.policy.acknowledge, omit_stages };
    let mut names = BTreeMap::new();
    let (mut log, mut webhook) = (None, None);
    let (mut logs, mut webhooks) = (Vec::new(), Vec::new());
    for (i, sink) in spec.sinks.iter().enumerate() {
        let field = format!("spec.sinks[{i}]");
        if let Some(first) = names.insert(&sink.name, i) {
            let message = format!("{:?} is also the name of sinks[{first}]: each sink needs its own name", sink.name);
            problems.add(format!("{field}.name"), Reason::InvalidSetup, message);
        }
        if sink.log.is_some() == sink.webhook.is_some() {
            problems.add(&field, Reason::InvalidSetup, "exactly one of log and webhook is required");
        }
        if let Some(one) = &sink.log {
            log::check(one, &context, &format!("{field}.log"), problems);
            log = Some(ValidLog { name: sink.name.clone(), log: one.clone() });
            logs.push(i);
        }
        if let Some(one) = &sink.webhook {
            webhook = webhook::check(&sink.name, one, references, &context, &format!("{field}.webhook"), problems);
            webhooks.push(i);
        }
    }
    let mut only_one = |kind: &str, which: &[usize]| {
        if let [first, second, ..] = which {
            let message = format!(
                "at most one {kind} sink: kube-apiserver has one {kind} backend, but sinks[{first}] and sinks[{second}] are both {kind} sinks"
            );
            problems.add("spec.sinks", Reason::InvalidSetup, message);
        }
    };
    only_one("log", &logs);
    only_one("webhook", &webhooks);
    (log, webhook)
}

/// Collects problems and findings.
#[derive(Default)]
pub(crate) struct Problems {
    pub problems: Vec<Problem>,
    /// Warnings, and acknowledged risks.
    pub findings: Vec<SetupFinding>,
}

impl Problems {
    fn add(&mut self, field: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.problems.push(Problem { field: field.into(), reason, message: message.into() });
    }

    /// Adds a warning.
    fn warn(&mut self, id: &str, field: impl Into<String>, message: impl Into<String>) {
        let severity = Severity::Warning.as_str().into();
        self.findings.push(SetupFinding { id: id.into(), severity, field: field.into(), message: message.into() });
    }

    /// A risk that the Setup takes, or not. An acknowledged risk that the floor does not grant is reported at
    /// `policy.acknowledge`.
    fn risk(&mut self, risk: Risk, is_taken: bool, context: &Context<'_>, field: &str, why: impl FnOnce() -> String) {
        if !is_taken {
            return;
        }
        if context.acknowledged.contains(&risk) {
            self.warn("acknowledged-risk", field, format!("{} ({} is acknowledged)", why(), risk.as_str()));
            return;
        }
        let grant = if context.floor.granted_risks.contains(&risk) {
            ""
        } else {
            " and have an administrator add it to floor.grantedRisks"
        };
        let message = format!("{}, or add {} to policy.acknowledge{grant}", why(), risk.as_str());
        self.add(field, Reason::RiskNotAcknowledged, message);
    }

    fn len(&self) -> usize {
        self.problems.len()
    }

    fn in_secret(&mut self, name: &str, key: &str, field: &str, message: &str) {
        self.add(field, Reason::InvalidSetup, format!("key {key:?} of Secret {name:?} {message}"));
    }

    /// The value of a key of a Secret. One message for a Secret that is missing, lacks the key or must not be used:
    /// authors of Setups must not learn which Secrets exist and which keys they have.
    fn secret<'a>(&mut self, references: &'a References, name: &str, key: &str, field: &str) -> Option<&'a Vec<u8>> {
        let usable = references.secrets.get(name).filter(|secret| secret.is_usable(name));
        let found = usable.and_then(|secret| secret.data.get(key));
        if found.is_none() {
            let message = format!(
                "the operator's namespace has no Secret {name:?} with the key {key:?} that a sink may use: create one of the type Opaque, \
                 kubernetes.io/basic-auth or kubernetes.io/tls"
            );
            self.add(field, Reason::ReferenceNotFound, message);
        }
        found
    }

    fn config_map<'a>(&mut self, references: &'a References, name: &str, key: &str, field: &str) -> Option<&'a String> {
        let Some(keys) = references.config_maps.get(name) else {
            let message = format!("the operator's namespace has no ConfigMap {name:?}: create it");
            self.add(field, Reason::ReferenceNotFound, message);
            return None;
        };
        let found = keys.get(key);
        if found.is_none() {
            let have: Vec<_> = keys.keys().map(String::as_str).collect();
            let have = if have.is_empty() { "none".to_string() } else { have.join(", ") };
            let message = format!("ConfigMap {name:?} has no key {key:?}; it has: {have}");
            self.add(field, Reason::ReferenceNotFound, message);
        }
        found
    }
}
