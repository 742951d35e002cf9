//! A Setup and what it refers to, in; a [`ValidSetup`] that can be rendered without failing, or every problem at once, out.
//!
//! The controller and the command line call it before anything is rendered. It repeats the CEL rules and bounds of the CRD
//! for those who work without an API server, and judges what they cannot: references, URLs, certificates, paths. It fetches
//! nothing; [`needs`] tells what to fetch. No message holds the content of a Secret.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Service;

use crate::api::{AuditSetup, AuditSetupSpec, LogSink, Mode, PolicyFinding, Reason, Risk, Stage, WebhookDelivery};
use crate::policy::Part;
use url::Url;

mod credentials;
mod delivery;
mod log;
mod policy;
mod schema;
mod url;
mod webhook;

pub use schema::{Fit, fit};

#[cfg(test)]
mod tests;

/// What a Setup may refer to, as far as it exists.
#[derive(Clone, Default)]
pub struct References {
    /// Secrets of the operator's namespace: name -> key -> bytes.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// ConfigMaps of the operator's namespace: name -> key -> text.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Services by (namespace, name).
    pub services: BTreeMap<(String, String), Service>,
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

/// The names that a Setup refers to: what a caller has to fetch before it validates. Sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub secrets: Vec<String>,
    pub config_maps: Vec<String>,
    pub services: Vec<(String, String)>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Path of the field, as `spec.sinks[0].webhook.url`.
    pub field: String,
    pub reason: Reason,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What the nodes' API servers can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Minor version of the oldest kube-apiserver that the Setup covers; 36 means 1.36.
    pub minor: u32,
    /// And of the newest.
    pub newest: u32,
}

impl Capabilities {
    /// All of one version.
    pub fn of(minor: u32) -> Self {
        Self { minor, newest: minor }
    }
}

/// A Setup that was judged: rendering it cannot fail.
#[derive(Clone, Debug)]
pub struct ValidSetup {
    pub(crate) policy: ValidPolicy,
    pub(crate) log: Option<ValidLog>,
    pub(crate) webhook: Option<ValidWebhook>,
    pub(crate) shutdown_delay_seconds: i64,
    /// 0 where the API servers do not know the flag.
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
    /// What does not stand in the way.
    pub findings: Vec<PolicyFinding>,
}

#[derive(Clone, Debug)]
pub(crate) struct ValidLog {
    pub name: String,
    pub log: LogSink,
    /// Directory of the file; none for standard output.
    pub directory: Option<String>,
}

#[derive(Clone)]
pub(crate) struct ValidWebhook {
    pub name: String,
    pub url: Url,
    pub is_url_secret: bool,
    /// None over http.
    pub tls: Option<Tls>,
    pub auth: Option<Auth>,
    pub delivery: WebhookDelivery,
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
    /// None: the host of the URL.
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

/// Everything that a Setup refers to.
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

/// Judges a Setup. All problems are told at once, sorted by field.
pub fn validate(
    setup: &AuditSetup,
    references: &References,
    capabilities: Capabilities,
) -> Result<ValidSetup, Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let spec = &setup.spec;
    let name = setup.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        problems.add("metadata.name", Reason::InvalidSetup, "must not be empty");
    } else if name.chars().count() > 63 {
        problems.add("metadata.name", Reason::InvalidSetup, "at most 63 characters");
    }
    schema::check(spec, &mut problems);
    let policy = policy::check(&spec.policy, references, capabilities, mode(spec), &mut problems);
    let (log, webhook) = check_sinks(spec, &policy.omit_stages, references, &mut problems);
    if !problems.0.is_empty() {
        problems.0.sort_by(|a, b| a.field.cmp(&b.field));
        return Err(problems.0);
    }
    let shutdown_delay_seconds = spec.rollout.shutdown_delay_seconds;
    // The flag came with 1.27. Left out below, since without it a restart only takes longer.
    let drain_watches_seconds = if capabilities.minor >= 27 { spec.rollout.drain_watches_seconds } else { 0 };
    Ok(ValidSetup { policy, log, webhook, shutdown_delay_seconds, drain_watches_seconds, capabilities })
}

/// Judges the policy of a Setup alone: what it needs no Secrets and no Services for.
pub(crate) fn validate_policy(
    setup: &AuditSetup,
    references: &References,
    capabilities: Capabilities,
) -> Result<ValidPolicy, Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    schema::check(&setup.spec, &mut problems);
    problems.0.retain(|problem| problem.field.starts_with("spec.policy"));
    let policy = policy::check(&setup.spec.policy, references, capabilities, mode(&setup.spec), &mut problems);
    if problems.0.is_empty() { Ok(policy) } else { Err(problems.0) }
}

/// How the events reach the webhook. The log cannot keep kube-apiserver waiting for long.
fn mode(spec: &AuditSetupSpec) -> Mode {
    spec.sinks.iter().find_map(|sink| sink.webhook.as_ref()).map_or(Mode::Batch, |webhook| webhook.delivery.mode)
}

fn check_sinks(
    spec: &AuditSetupSpec,
    omit_stages: &[Stage],
    references: &References,
    problems: &mut Problems,
) -> (Option<ValidLog>, Option<ValidWebhook>) {
    let context = webhook::Context {
        references,
        is_blocking_acknowledged: spec.policy.acknowledge.contains(&Risk::BlockingWebhook),
        omit_stages,
    };
    let mut names = BTreeMap::new();
    let (mut log, mut webhook) = (None, None);
    let (mut logs, mut webhooks) = (Vec::new(), Vec::new());
    for (i, sink) in spec.sinks.iter().enumerate() {
        let field = format!("spec.sinks[{i}]");
        if let Some(first) = names.insert(&sink.name, i) {
            let message = format!("{:?} is the name of sinks[{first}] too: each sink needs its own", sink.name);
            problems.add(format!("{field}.name"), Reason::InvalidSetup, message);
        }
        if sink.log.is_some() == sink.webhook.is_some() {
            problems.add(&field, Reason::InvalidSetup, "exactly one of log and webhook is needed");
        }
        if let Some(one) = &sink.log {
            let field = format!("{field}.log");
            webhook::strict(log::is_strict(one), omit_stages, &format!("{field}.delivery"), problems);
            log = Some(log::check(&sink.name, one, &field, problems));
            logs.push(i);
        }
        if let Some(one) = &sink.webhook {
            webhook = webhook::check(&sink.name, one, &context, &format!("{field}.webhook"), problems);
            webhooks.push(i);
        }
    }
    let mut only_one = |kind: &str, which: &[usize]| {
        if let [first, second, ..] = which {
            let message = format!(
                "at most one {kind} sink: kube-apiserver has one {kind} backend, and sinks[{first}] and sinks[{second}] are both of that kind"
            );
            problems.add("spec.sinks", Reason::InvalidSetup, message);
        }
    };
    only_one("log", &logs);
    only_one("webhook", &webhooks);
    (log, webhook)
}

/// Collects what is found.
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, field: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), reason, message: message.into() });
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn in_secret(&mut self, name: &str, key: &str, field: &str, message: &str) {
        self.add(field, Reason::InvalidSetup, format!("key {key:?} of Secret {name:?} {message}"));
    }

    /// A key of a Secret, or the problem that there is none.
    fn secret<'a>(&mut self, references: &'a References, name: &str, key: &str, field: &str) -> Option<&'a Vec<u8>> {
        self.look_up("Secret", &references.secrets, name, key, field)
    }

    fn config_map<'a>(&mut self, references: &'a References, name: &str, key: &str, field: &str) -> Option<&'a String> {
        self.look_up("ConfigMap", &references.config_maps, name, key, field)
    }

    fn look_up<'a, T>(
        &mut self,
        kind: &str,
        all: &'a BTreeMap<String, BTreeMap<String, T>>,
        name: &str,
        key: &str,
        field: &str,
    ) -> Option<&'a T> {
        let Some(keys) = all.get(name) else {
            let message = format!("there is no {kind} {name:?} in the operator's namespace");
            self.add(field, Reason::ReferenceNotFound, message);
            return None;
        };
        let found = keys.get(key);
        if found.is_none() {
            let have: Vec<_> = keys.keys().map(String::as_str).collect();
            let have = if have.is_empty() { "none".to_string() } else { have.join(", ") };
            let message = format!("{kind} {name:?} has no key {key:?}; it has: {have}");
            self.add(field, Reason::ReferenceNotFound, message);
        }
        found
    }
}
