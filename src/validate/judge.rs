//! May a node run this Revision? The agent and the guard ask this of every Revision, no matter who wrote it. Pure.
//!
//! A Revision consists of typed values ([`Content`]), so it cannot name a file, a flag or a mount. The rest is checked
//! here, with the same code that checks a Setup: values within the bounds of the CRD, a log below a permitted
//! directory, a permitted destination, granted risks, and a policy that kube-apiserver loads and that begins with the
//! rules of the floor.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::policy::MAX_POLICY_BYTES;
use super::{Context, Problem, Problems, credentials, log, schema, webhook};
use crate::api::{Mode, Reason, Risk, Scheme};
use crate::floor::Floor;
use crate::revision::credential::{self, CERTIFICATE_FILE, TOKEN_FILE};
use crate::revision::{Auth, Authorities, CA_FILE, Content, Webhook, is_host};
use audit_policy::{Severity, Terms, lint, read};

/// The newest kube-apiserver whose rules are known. It accepts everything that an older one does, except for a few
/// names that depend on the version.
const MINOR: u32 = 37;

/// Every reason why no node may run this. Fields are those of the Revision.
pub fn judge(content: &Content, floor: &Floor) -> Result<(), Vec<Problem>> {
    let mut problems = Problems::default();
    // An older floor may have granted more. Only the present floor counts.
    let acknowledged = &floor.granted_risks;
    let omit_stages = check_policy(content, floor, &mut problems);
    let context = Context { floor, acknowledged, omit_stages: &omit_stages };
    schema::check_content(content, &mut problems);
    if let Some(one) = &content.log {
        log::check(one, &context, "log", &mut problems);
    }
    if let Some(one) = &content.webhook {
        check_webhook(one, &context, &mut problems);
    }
    super::check_stop(
        content.shutdown_delay_seconds,
        content.drain_watches_seconds,
        "shutdownDelaySeconds",
        &mut problems,
    );
    if problems.problems.is_empty() { Ok(()) } else { Err(problems.problems) }
}

/// Returns the stages that the policy omits.
fn check_policy(content: &Content, floor: &Floor, problems: &mut Problems) -> Vec<crate::api::Stage> {
    // Before anything parses it: no controller writes a text of this size, and parsing takes many times its memory.
    if content.policy.len() > MAX_POLICY_BYTES {
        problems.add("policy", Reason::InvalidPolicy, format!("has more than {MAX_POLICY_BYTES} bytes"));
        return Vec::new();
    }
    // Strictly: no controller writes a policy that readers could understand differently.
    if let Err(error) = read(&content.policy) {
        let message = format!("kube-apiserver would not start with it, or would read it differently: {error}");
        problems.add("policy", Reason::InvalidPolicy, message);
        return Vec::new();
    }
    let terms = Terms {
        minor: MINOR,
        secrets_accepted: floor.granted_risks.contains(&Risk::SecretsAboveMetadata),
        mode: Mode::Batch,
        floor: &floor.rules,
    };
    let linted = lint(content.policy.as_bytes(), &terms);
    let Some(policy) = linted.policy else {
        let message = linted.findings.iter().find(|finding| finding.stops_start).map_or("", |finding| &finding.message);
        problems.add("policy", Reason::InvalidPolicy, format!("kube-apiserver would not start with it: {message}"));
        return Vec::new();
    };
    if !policy.rules.starts_with(&floor.rules) {
        let message = "does not begin with the rules of the floor (floor.rules)";
        problems.add("policy", Reason::BelowFloor, message);
    }
    let rules_of_floor = floor.rules.len();
    for finding in linted.findings.iter().filter(|finding| finding.severity == Severity::Error) {
        let is_of_floor = (0..rules_of_floor).any(|n| finding.path.starts_with(&format!("rules[{n}]")));
        // The floor's rules come first, so they win over a preset's. Which rules are a preset's is not known here.
        let is_shadowed = finding.id == audit_policy::BELOW_FLOOR && finding.path != "omitStages";
        if !is_of_floor && !is_shadowed {
            problems.add(
                format!("policy.{}", finding.path),
                Reason::BelowFloor,
                format!("{} ({})", finding.message, finding.id),
            );
        }
    }
    policy.omit_stages
}

fn check_webhook(one: &Webhook, context: &Context<'_>, problems: &mut Problems) {
    // A Service is named by its address. A node cannot verify that the address belongs to that Service.
    let is_address = one.url.host.parse::<IpAddr>().is_ok();
    if one.service.is_some() && !is_address {
        problems.add("webhook.service", Reason::InvalidSetup, "must have an IP address as the host of the URL");
    }
    let service = one.service.as_deref().filter(|_| is_address);
    // The message never shows the URL: it may be a secret.
    if let Err((reason, message)) = webhook::check_destination(&one.url, service, "its host", context.floor) {
        problems.add("webhook.url", reason, message);
    }
    if let Some(proxy) = &one.proxy {
        if let Err((reason, message)) = webhook::check_proxy(proxy, None, context.floor) {
            problems.add("webhook.proxy", reason, message);
        }
        let has_secret = one.is_url_secret || one.auth.is_some();
        let insecure_skip_verify = one.tls.as_ref().is_some_and(|tls| tls.insecure_skip_verify);
        if let Some(message) = webhook::credentials_seen_by_proxy(&one.url, has_secret, insecure_skip_verify) {
            problems.add("webhook.proxy", Reason::InvalidSetup, message);
        }
    }
    let is_https = one.url.scheme == Scheme::Https;
    if !is_https && (one.tls.is_some() || one.auth.is_some()) {
        problems.add("webhook", Reason::InvalidSetup, "tls and auth need https");
    }
    if !one.credentials.is_for(&one.url) {
        problems.add("webhook.credentials", Reason::InvalidSetup, "are for another host");
    }
    if let Some(tls) = &one.tls {
        if tls.server_name.as_deref().is_some_and(|name| !is_host(name)) {
            problems.add("webhook.tls.serverName", Reason::InvalidSetup, "is neither a DNS name nor an IP address");
        }
        if tls.insecure_skip_verify && tls.authorities.is_some() {
            problems.add("webhook.tls", Reason::InvalidSetup, "insecureSkipVerify and authorities exclude each other");
        }
        if let Some(Authorities::Revision(pem)) = &tls.authorities
            && let Err(message) = credentials::certificates(pem.as_bytes())
        {
            problems.add("webhook.tls.authorities", Reason::InvalidSetup, message);
        }
    }
    if let Some(Auth::Basic { username, password }) = &one.auth {
        for (name, value) in [("username", username), ("password", password)] {
            if credentials::one_line(value.as_bytes()).as_ref() != Ok(value) {
                problems.add(format!("webhook.auth.{name}"), Reason::InvalidSetup, "is not one line of text");
            }
        }
    }
    webhook::modes(&one.delivery, context, "webhook.delivery", problems);
}

/// Whether kube-apiserver can read all of these credentials: it does not start with one that it cannot read, and
/// credentials are replaced in place, without a guard. A key is checked with its certificate.
pub fn judge_credentials(files: &BTreeMap<credential::Path, Vec<u8>>) -> Result<(), String> {
    for (path, bytes) in files {
        let certificate =
            || files.iter().find(|(other, _)| other.directory == path.directory && other.file() == CERTIFICATE_FILE);
        let judged = match path.file() {
            CA_FILE | CERTIFICATE_FILE => credentials::certificates(bytes).map(drop),
            TOKEN_FILE => credentials::token(bytes).map(drop),
            _ => match certificate() {
                Some((_, chain)) => {
                    credentials::certificates(chain).and_then(|chain| credentials::key_of(bytes, chain))
                }
                None => Err("has no certificate beside it".into()),
            },
        };
        judged.map_err(|message| format!("{} {message}", path.on_node()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
