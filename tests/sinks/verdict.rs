//! What audit-operator makes of the counters: the reason that it would report.

use std::time::Duration;

use audit_operator::api::{Finding, Scheme};
use audit_operator::health::explain::{self, Evidence, needs_probe};
use audit_operator::health::loss::{Losses, Route};
use audit_operator::health::sample::Sample;
use audit_operator::health::target::{TlsTarget, WebhookTarget};
use audit_operator::health::way::{NamedBy, Way};
use audit_operator::health::webhook::{Schedule, Webhook};
use audit_operator::health::{error_line, reach};
use audit_operator::revision::Url;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The verdict on one receiver, and the losses that were counted for it.
pub struct Verdict {
    pub delivering: Finding,
    pub lost: i64,
}

/// Judges a new process of the API server by its counters. `proxy`: if it uses one.
#[expect(clippy::disallowed_methods, reason = "a server of now is judged by the clock of now")]
pub async fn judge(metrics: &str, log: &str, server: &str, cluster: &Value, proxy: Option<&str>) -> Verdict {
    let mut sample = Sample::default();
    metrics.lines().for_each(|line| sample.read_line(line));
    let url = parse(server);
    let host = url.authority();
    let seconds = Duration::from_secs;
    let schedule = Schedule { max_wait: seconds(0), initial_backoff: seconds(10), proof: None };
    let mut webhook = Webhook::default();
    webhook.judge(&Sample::default(), &host, None, schedule, seconds(1000));
    let delivery = webhook.judge(&sample, &host, None, schedule, seconds(1001));

    let route = Route { sink: "sink".into(), plugins: vec!["webhook", "buffered", "truncate"], is_repeated: true };
    let mut losses = Losses::default();
    losses.observe(&sample, &[(route, delivery.is_failing())], Timestamp::now());

    let ca = cluster["certificate-authority-data"].as_str().map(|data| BASE64_STANDARD.decode(data).expect("base64"));
    let name = cluster["tls-server-name"].as_str().unwrap_or(&url.host).to_string();
    let tls =
        TlsTarget { server_name: name, ca_file: ca.is_some().then(|| "/ca.crt".into()), insecure_skip_verify: false };
    let target = WebhookTarget {
        tls: (url.scheme == Scheme::Https).then_some(tls),
        url,
        proxy: None,
        shown: host,
        max_wait: seconds(0),
        initial_backoff: seconds(10),
        files: Vec::new(),
        probe: None,
    };
    let way = match proxy {
        Some(proxy) => {
            let is_configured = cluster["proxy-url"].is_string();
            let named_by = if is_configured { NamedBy::Setup } else { NamedBy::Manifest("HTTPS_PROXY") };
            Way::Proxy { named_by, proxy: proxy.into() }
        }
        None => Way::Direct(Vec::new()),
    };
    let read = |_: &str| Ok(ca.clone().unwrap_or_default());
    let probe = match needs_probe(&delivery, &way) {
        true => Some(reach::reach(&target, &[], &read, seconds(5), Timestamp::now()).await.finding),
        false => None,
    };
    let error = error_line::of_webhook(log).filter(|_| delivery.is_unanswered());
    let evidence = Evidence {
        shown: &target.shown,
        way: &way,
        probe: probe.as_ref(),
        body_bytes: None,
        error: error.as_deref(),
        has_canary: true,
    };
    Verdict { delivering: explain::webhook(&delivery, &evidence).delivering, lost: losses.of("sink").events }
}

/// A name that a Setup could not have is a URL here too.
fn parse(server: &str) -> Url {
    let (scheme, rest) = server.split_once("://").expect("a scheme");
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let (authority, path) = rest.split_once('/').expect("a path");
    let (host, port) = authority.rsplit_once(':').expect("a port");
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    Url { scheme, host, port: port.parse().expect("a number"), path: format!("/{path}") }
}
