//! The webhook sink.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use super::url::{Url, is_host};
use super::{Auth, Problems, References, Tls, ValidWebhook, credentials, delivery};
use crate::api::{Mode, Reason, Scheme, ServiceRef, Stage, WebhookAuth, WebhookSink};

const ONE_DESTINATION: &str = "exactly one of url, urlSecretRef and service is needed";
const ONE_CREDENTIAL: &str = "only one of bearerTokenSecretRef, basicAuthSecretRef and clientCertificateSecretRef";

/// What a webhook is judged with, beside itself.
pub(super) struct Context<'a> {
    pub references: &'a References,
    /// Whether the Setup acknowledges `BlockingWebhook`.
    pub is_blocking_acknowledged: bool,
    /// Stages that the policy leaves out.
    pub omit_stages: &'a [Stage],
}

/// `field` is the path of the `webhook`. None if a problem was found.
pub(super) fn check(
    name: &str,
    webhook: &WebhookSink,
    context: &Context<'_>,
    field: &str,
    problems: &mut Problems,
) -> Option<ValidWebhook> {
    let before = problems.len();
    let destination = destination(webhook, context.references, field, problems);
    let scheme = destination.as_ref().map(|(url, _)| url.scheme);
    let tls = tls(webhook, scheme, context.references, field, problems);
    let auth = webhook.auth.as_ref().and_then(|auth| {
        let field = format!("{field}.auth");
        if scheme == Some(Scheme::Http) && has_credentials(auth) {
            problems.add(
                &field,
                Reason::InvalidSetup,
                "credentials need https: kube-apiserver leaves them out over http. Use https, or leave auth out",
            );
        }
        check_auth(auth, context.references, &field, problems)
    });
    modes(webhook, context, field, problems);
    if problems.len() > before {
        return None;
    }
    let (url, service_name) = destination?;
    let tls = (url.scheme == Scheme::Https).then(|| Tls { server_name: tls.server_name.or(service_name), ..tls });
    Some(ValidWebhook {
        name: name.to_string(),
        url,
        is_url_secret: webhook.url_secret_ref.is_some(),
        tls,
        auth,
        delivery: webhook.delivery.clone(),
    })
}

/// The URL, and the name for TLS where the URL is the address of a Service.
fn destination(
    webhook: &WebhookSink,
    references: &References,
    field: &str,
    problems: &mut Problems,
) -> Option<(Url, Option<String>)> {
    let parse = |text: &str, field: String, problems: &mut Problems| match Url::parse(text) {
        Ok(url) => Some((url, None)),
        Err(error) => {
            problems.add(field, Reason::InvalidSetup, format!("the URL {error}"));
            None
        }
    };
    match (&webhook.url, &webhook.url_secret_ref, &webhook.service) {
        (Some(url), None, None) => parse(url, format!("{field}.url"), problems),
        (None, Some(secret), None) => {
            let field = format!("{field}.urlSecretRef");
            let bytes = problems.secret(references, &secret.name, &secret.key, &field)?;
            match credentials::one_line(bytes) {
                Ok(text) => parse(&text, field, problems),
                Err(message) => {
                    problems.in_secret(&secret.name, &secret.key, &field, &message);
                    None
                }
            }
        }
        (None, None, Some(service)) => {
            let url = service_url(service, references, &format!("{field}.service"), problems)?;
            Some((url, Some(format!("{}.{}.svc", service.name, service.namespace))))
        }
        (None, None, None) => {
            problems.add(field, Reason::InvalidSetup, ONE_DESTINATION);
            None
        }
        _ => {
            problems.add(field, Reason::InvalidSetup, format!("{ONE_DESTINATION}: remove the others"));
            None
        }
    }
}

fn service_url(want: &ServiceRef, references: &References, field: &str, problems: &mut Problems) -> Option<Url> {
    let before = problems.len();
    if !want.path.starts_with('/') || want.path.contains(['?', '#']) {
        problems.add(
            format!("{field}.path"),
            Reason::InvalidSetup,
            "starts with / and has no query and no fragment: kube-apiserver drops them",
        );
    }
    let name = format!("{}/{}", want.namespace, want.name);
    let Some(service) = references.services.get(&(want.namespace.clone(), want.name.clone())) else {
        problems.add(field, Reason::ReferenceNotFound, format!("there is no Service {name}"));
        return None;
    };
    let address = match address(service) {
        Ok(address) => address,
        Err(why) => {
            problems.add(field, Reason::UnusableService, format!("the Service {name} {why}"));
            return None;
        }
    };
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().unwrap_or("TCP") == "TCP";
    if !ports.iter().any(|port| port.port == want.port && is_tcp(&port.protocol)) {
        let have: Vec<_> = ports.iter().filter(|p| is_tcp(&p.protocol)).map(|p| p.port.to_string()).collect();
        let have = if have.is_empty() { "none".to_string() } else { have.join(", ") };
        problems.add(
            format!("{field}.port"),
            Reason::UnusableService,
            format!("the Service {name} has no TCP port {}; it has: {have}", want.port),
        );
        return None;
    }
    if problems.len() > before {
        return None;
    }
    // The path may hold what needs encoding, so the whole is judged as a URL too.
    let url = Url { scheme: want.scheme, host: address.to_string(), port: want.port as u16, path: want.path.clone() };
    match Url::parse(&url.server()) {
        Ok(url) => Some(url),
        Err(error) => {
            problems.add(format!("{field}.path"), Reason::InvalidSetup, format!("the path {error}"));
            None
        }
    }
}

fn address(service: &Service) -> Result<IpAddr, &'static str> {
    let spec = service.spec.as_ref().ok_or("has no spec")?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("is of type ExternalName and has no address: use url with that name");
    }
    match spec.cluster_ip.as_deref() {
        Some("None") => Err(
            "is headless (clusterIP: None), and kube-apiserver cannot resolve its name: make a Service with a ClusterIP",
        ),
        None | Some("") => Err("has no ClusterIP"),
        Some(address) => address.parse().map_err(|_| "has a ClusterIP that is no IP address"),
    }
}

fn tls(
    webhook: &WebhookSink,
    scheme: Option<Scheme>,
    references: &References,
    field: &str,
    problems: &mut Problems,
) -> Tls {
    let Some(tls) = &webhook.tls else { return Tls::default() };
    let field = format!("{field}.tls");
    if scheme == Some(Scheme::Http)
        && (tls.ca_secret_ref.is_some() || tls.server_name.is_some() || tls.insecure_skip_verify)
    {
        problems.add(&field, Reason::InvalidSetup, "has no effect over http: use https, or leave tls out");
    }
    if tls.insecure_skip_verify && tls.ca_secret_ref.is_some() {
        problems.add(
            &field,
            Reason::InvalidSetup,
            "insecureSkipVerify and caSecretRef exclude each other: kube-apiserver does not start with both",
        );
    }
    if let Some(name) = tls.server_name.as_deref().filter(|name| !is_host(name)) {
        problems.add(
            format!("{field}.serverName"),
            Reason::InvalidSetup,
            format!("{name:?} is neither a DNS name nor an IP address"),
        );
    }
    let ca = tls.ca_secret_ref.as_ref().and_then(|secret| {
        let field = format!("{field}.caSecretRef");
        let bytes = problems.secret(references, &secret.name, &secret.key, &field)?;
        match credentials::certificates(bytes) {
            // A certificate in DER is no UTF-8, and was refused.
            Ok(_) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Err(message) => {
                problems.in_secret(&secret.name, &secret.key, &field, &message);
                None
            }
        }
    });
    Tls { server_name: tls.server_name.clone(), ca, insecure_skip_verify: tls.insecure_skip_verify }
}

fn has_credentials(auth: &WebhookAuth) -> bool {
    auth.bearer_token_secret_ref.is_some()
        || auth.basic_auth_secret_ref.is_some()
        || auth.client_certificate_secret_ref.is_some()
}

fn check_auth(auth: &WebhookAuth, references: &References, field: &str, problems: &mut Problems) -> Option<Auth> {
    let WebhookAuth { bearer_token_secret_ref, basic_auth_secret_ref, client_certificate_secret_ref } = auth;
    let given =
        [bearer_token_secret_ref.is_some(), basic_auth_secret_ref.is_some(), client_certificate_secret_ref.is_some()];
    if given.into_iter().filter(|given| *given).count() > 1 {
        problems.add(field, Reason::InvalidSetup, format!("{ONE_CREDENTIAL}: remove the others"));
        return None;
    }
    if let Some(secret) = bearer_token_secret_ref {
        let field = format!("{field}.bearerTokenSecretRef");
        let bytes = problems.secret(references, &secret.name, &secret.key, &field)?;
        return match credentials::token(bytes) {
            Ok(token) => Some(Auth::Token(token)),
            Err(message) => {
                problems.in_secret(&secret.name, &secret.key, &field, &message);
                None
            }
        };
    }
    if let Some(secret) = basic_auth_secret_ref {
        let field = format!("{field}.basicAuthSecretRef");
        let mut line = |key: &str| {
            let bytes = problems.secret(references, &secret.name, key, &field)?;
            let line = credentials::one_line(bytes).and_then(|line| match key {
                "username" if line.contains(':') => {
                    Err("holds a colon, which ends the name in basic authentication".into())
                }
                _ => Ok(line),
            });
            line.map_err(|message| problems.in_secret(&secret.name, key, &field, &message)).ok()
        };
        // Both are looked at before either ends it, so that both problems are told.
        let (username, password) = (line("username"), line("password"));
        return Some(Auth::Basic { username: username?, password: password? });
    }
    let secret = client_certificate_secret_ref.as_ref()?;
    let field = format!("{field}.clientCertificateSecretRef");
    let certificate = problems.secret(references, &secret.name, "tls.crt", &field);
    let key = problems.secret(references, &secret.name, "tls.key", &field);
    let (certificate, key) = (certificate?, key?);
    let judged = credentials::certificates(certificate)
        .map_err(|message| ("tls.crt", message))
        .and_then(|chain| credentials::key_of(key, chain).map_err(|message| ("tls.key", message)));
    if let Err((which, message)) = judged {
        problems.in_secret(&secret.name, which, &field, &message);
        return None;
    }
    Some(Auth::Certificate { certificate: certificate.to_vec(), key: key.to_vec() })
}

fn modes(webhook: &WebhookSink, context: &Context<'_>, field: &str, problems: &mut Problems) {
    let delivery = &webhook.delivery;
    let field = format!("{field}.delivery");
    if delivery.mode != Mode::Batch && !context.is_blocking_acknowledged {
        problems.add(
            format!("{field}.mode"),
            Reason::RiskNotAcknowledged,
            format!(
                "{:?}: while the receiver is down every audited request waits for it, health checks fail, and the kubelet restarts \
                 kube-apiserver over and over. Use Batch, or put BlockingWebhook into policy.acknowledge",
                delivery.mode
            ),
        );
    }
    strict(delivery.mode == Mode::BlockingStrict, context.omit_stages, &field, problems);
    delivery::check(delivery.mode, delivery.batch.as_ref(), delivery::Backend::Webhook, &field, problems);
    delivery::check_truncate(delivery.truncate.as_ref(), &field, problems);
}

/// BlockingStrict refuses a request at the stage RequestReceived, and only there
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/audit.go#L61-L65).
pub(super) fn strict(is_strict: bool, omit_stages: &[Stage], field: &str, problems: &mut Problems) {
    if is_strict && omit_stages.contains(&Stage::RequestReceived) {
        problems.add(
            format!("{field}.mode"),
            Reason::InvalidSetup,
            "BlockingStrict refuses requests at the stage RequestReceived, and the policy omits that stage, so it would refuse \
             nothing. Set policy.omitStages to [] (a policy of a ConfigMap: its own omitStages), or use Blocking",
        );
    }
}
