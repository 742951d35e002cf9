//! The webhook sink.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};

use super::{Auth, Context, NO_ENDPOINTS, Problems, References, Tls, ValidWebhook, credentials, delivery, receiver};
use crate::api::{
    HOSTS_ANNOTATION, Mode, Reason, Risk, Scheme, ServiceRef, WebhookAuth, WebhookDelivery, WebhookProbe, WebhookSink,
};
use crate::floor::{Floor, Forbidden};
use crate::revision::{Proxy, Url, is_host};

const ONE_DESTINATION: &str = "exactly one of url, urlSecretRef and service is required";
const NOT_A_PATH: &str = "must start with / and have no query and no fragment";
const ONE_CREDENTIAL: &str =
    "at most one of bearerTokenSecretRef, basicAuthSecretRef and clientCertificateSecretRef is allowed";

/// `field` is the path of the `webhook`. None if a problem was found.
pub(super) fn check(
    name: &str,
    webhook: &WebhookSink,
    references: &References,
    context: &Context<'_>,
    field: &str,
    problems: &mut Problems,
) -> Option<ValidWebhook> {
    let before = problems.len();
    let delivery_field = format!("{field}.delivery");
    let destination = destination(webhook, references, field, problems);
    let scheme = destination.as_ref().map(|(url, _)| url.scheme);
    if let Some((url, service)) = &destination {
        let field = format!("{field}.{}", destination_field(webhook));
        // No message shows a URL from a Secret.
        let shown =
            if webhook.url_secret_ref.is_some() { "its host".into() } else { format!("{}:{}", url.host, url.port) };
        // The address of the API server is the Service default/kubernetes.
        let is_api_server = references.api_server.is_some_and(|address| url.host.parse() == Ok(address));
        let service = if is_api_server { Some("default/kubernetes") } else { service.as_deref() };
        if let Err((reason, message)) = check_destination(url, service, &shown, context.floor) {
            problems.add(&field, reason, message);
        }
        check_hosts(webhook, url, service, references, context.floor, &field, problems);
        if url.scheme == Scheme::Http {
            let message = format!(
                "events go to {shown} unencrypted and unauthenticated: anyone on the network path can read and forge them. Use https"
            );
            problems.warn("plain-http", &*field, message);
        }
        receiver::check(url, &webhook.delivery, &field, &delivery_field, problems);
        if webhook.service.is_some() && webhook.delivery.mode != Mode::Batch {
            let message = format!(
                "{:?} with a Service of this cluster: after a restart its pods may need the API server to start, which waits for them. \
                 Use Batch, or a receiver outside the cluster",
                webhook.delivery.mode
            );
            problems.add(format!("{delivery_field}.mode"), Reason::InvalidSetup, message);
        }
    }
    let proxy = proxy(webhook, references, context.floor, field, problems);
    let tls = tls(webhook, scheme, references, field, problems);
    if let (Some((url, _)), Some(_)) = (&destination, &proxy) {
        let field = format!("{field}.proxyURL");
        if let Some(message) = credentials_seen_by_proxy(url, has_secret(webhook), tls.insecure_skip_verify) {
            problems.add(&field, Reason::InvalidSetup, message);
        }
        // Whoever proves this name gets the credentials.
        if let Some(name) = tls.server_name.as_deref().filter(|name| *name != url.host) {
            check_hosts(
                webhook,
                &Url { host: name.into(), ..url.clone() },
                None,
                references,
                context.floor,
                &field,
                problems,
            );
        }
    }
    let auth = webhook.auth.as_ref().and_then(|auth| {
        let field = format!("{field}.auth");
        if scheme == Some(Scheme::Http) && has_credentials(auth) {
            problems.add(
                &field,
                Reason::InvalidSetup,
                "credentials need https: kube-apiserver does not send them over http. Use https, or remove auth",
            );
        }
        check_auth(auth, references, &field, problems)
    });
    modes(&webhook.delivery, context, &delivery_field, problems);
    if let (Some(probe), Some((url, _))) = (&webhook.probe, &destination) {
        check_probe(probe, url, proxy.is_some(), &format!("{field}.probe"), problems);
    }
    if problems.len() > before {
        return None;
    }
    let (url, service) = destination?;
    let service_name = service.as_ref().and_then(|service| service.split_once('/'));
    let service_name = service_name.map(|(namespace, name)| format!("{name}.{namespace}.svc"));
    let tls = (url.scheme == Scheme::Https).then(|| Tls { server_name: tls.server_name.or(service_name), ..tls });
    Some(ValidWebhook {
        name: name.to_string(),
        url,
        service,
        proxy,
        is_url_secret: webhook.url_secret_ref.is_some(),
        tls,
        auth,
        delivery: webhook.delivery.clone(),
        probe: webhook.probe.clone(),
    })
}

/// The URL and, if its host is the address of a Service, the name (`namespace/name`) of that Service.
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
            Some((url, Some(format!("{}/{}", service.namespace, service.name))))
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

/// The proxy, which sees where the events go, and the events themselves over http.
fn proxy(
    webhook: &WebhookSink,
    references: &References,
    floor: &Floor,
    field: &str,
    problems: &mut Problems,
) -> Option<Proxy> {
    let text = webhook.proxy_url.as_ref()?;
    let field = format!("{field}.proxyURL");
    let proxy = match Proxy::parse(text) {
        Ok(proxy) => proxy,
        Err(error) => {
            problems.add(field, Reason::InvalidSetup, format!("the URL of the proxy {error}"));
            return None;
        }
    };
    let is_api_server = references.api_server.is_some_and(|address| proxy.host.parse() == Ok(address));
    let service = is_api_server.then_some("default/kubernetes");
    if let Err((reason, message)) = check_proxy(&proxy, service, floor) {
        problems.add(&field, reason, message);
    }
    if let Some(service) = &webhook.service {
        let message = format!(
            "the proxy {} must reach the ClusterIP of the Service {}/{}, which works only on nodes of this cluster. \
             Without proxyURL, kube-apiserver connects directly if NO_PROXY in its manifest has the address",
            proxy.authority(),
            service.namespace,
            service.name
        );
        problems.warn("proxy-to-service", field, message);
    }
    Some(proxy)
}

/// Whether events may be sent through this proxy. `service`: as in [`check_destination`].
pub(super) fn check_proxy(proxy: &Proxy, service: Option<&str>, floor: &Floor) -> Result<(), (Reason, String)> {
    let shown = proxy.authority();
    floor.permits_destination(&proxy.host, proxy.port, service).map_err(|forbidden| match forbidden {
        Forbidden::Always(why) => (Reason::InvalidSetup, format!("{shown} cannot be a proxy: {why}. Give a forwarding proxy")),
        Forbidden::ByFloor => {
            let message = format!(
                "{shown} is not a permitted destination, and a proxy must be one too. Choose one from floor.destinations, or have an \
                 administrator add it"
            );
            (Reason::BelowFloor, message)
        }
    })
}

/// Why a proxy could read the secrets of a sink: the author of a Setup chooses the proxy, but may not know the secrets.
pub(super) fn credentials_seen_by_proxy(
    url: &Url,
    has_secret: bool,
    insecure_skip_verify: bool,
) -> Option<&'static str> {
    if !has_secret {
        return None;
    }
    if url.scheme == Scheme::Http {
        return Some("the proxy could read the URL, which comes from a Secret: use a receiver with https");
    }
    insecure_skip_verify
        .then_some("with tls.insecureSkipVerify, the proxy could read the credentials: use tls.caSecretRef instead")
}

/// Whether a Secret is sent to the receiver.
fn has_secret(webhook: &WebhookSink) -> bool {
    webhook.url_secret_ref.is_some() || webhook.auth.as_ref().is_some_and(has_credentials)
}

fn check_probe(probe: &WebhookProbe, url: &Url, is_proxied: bool, field: &str, problems: &mut Problems) {
    if is_proxied {
        let message = "the agents make no probe, because kube-apiserver connects through a proxy: remove it";
        problems.warn("probe-through-proxy", field, message);
    }
    let Some(path) = &probe.path else { return };
    let field = format!("{field}.path");
    if !is_path(path) {
        problems.add(field, Reason::InvalidSetup, NOT_A_PATH);
    } else if let Err(error) = url.with_path(path) {
        problems.add(field, Reason::InvalidSetup, format!("the path {error}"));
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(['?', '#'])
}

fn service_url(want: &ServiceRef, references: &References, field: &str, problems: &mut Problems) -> Option<Url> {
    let before = problems.len();
    if !is_path(&want.path) {
        problems.add(format!("{field}.path"), Reason::InvalidSetup, format!("{NOT_A_PATH}: kube-apiserver drops them"));
    }
    let name = format!("{}/{}", want.namespace, want.name);
    let Some(service) = references.services.get(&(want.namespace.clone(), want.name.clone())) else {
        problems.add(field, Reason::ReferenceNotFound, format!("the Service {name} does not exist"));
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
        let shown = |port: &ServicePort| match &port.name {
            Some(name) => format!("{} ({name})", port.port),
            None => port.port.to_string(),
        };
        let have: Vec<_> = ports.iter().filter(|p| is_tcp(&p.protocol)).map(shown).collect();
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
    check_endpoints(service, references, want, field, problems);
    // The path may need encoding, so the whole is parsed as a URL too.
    let url = Url { scheme: want.scheme, host: address.to_string(), port: want.port as u16, path: want.path.clone() };
    match Url::parse(&url.server()) {
        Ok(url) => Some(url),
        Err(error) => {
            problems.add(format!("{field}.path"), Reason::InvalidSetup, format!("the path {error}"));
            None
        }
    }
}

/// Warns of a Service that does not answer everywhere, or nowhere. Its pods may start later, so nothing is refused.
fn check_endpoints(
    service: &Service,
    references: &References,
    want: &ServiceRef,
    field: &str,
    problems: &mut Problems,
) {
    let name = format!("{}/{}", want.namespace, want.name);
    if references.endpoints.get(&(want.namespace.clone(), want.name.clone())) == Some(&false) {
        let message = format!(
            "the Service {name} has no ready endpoint, so nothing answers at its address. Start its pods, or correct its selector"
        );
        problems.warn(NO_ENDPOINTS, field, message);
    }
    // kubernetes@v1.36.3 pkg/proxy/topology.go, `CategorizeEndpoints`.
    let policy = service.spec.as_ref().and_then(|spec| spec.internal_traffic_policy.as_deref());
    if policy == Some("Local") {
        let message = format!(
            "the Service {name} has internalTrafficPolicy: Local, so a control-plane node that runs no ready pod of it gets no answer. \
             Run a pod on each of them, or set Cluster"
        );
        problems.warn("local-traffic-policy", field, message);
    }
}

fn address(service: &Service) -> Result<IpAddr, &'static str> {
    let spec = service.spec.as_ref().ok_or("has no spec")?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("has the type ExternalName, so it has no address: use url with its external name");
    }
    match spec.cluster_ip.as_deref() {
        Some("None") => Err(
            "is headless (clusterIP: None), and kube-apiserver cannot resolve its name: use a Service with a ClusterIP",
        ),
        None | Some("") => Err("has no ClusterIP"),
        Some(address) => address.parse().map_err(|_| "has a ClusterIP that is not an IP address"),
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
        problems.add(&field, Reason::InvalidSetup, "has no effect over http: use https, or remove tls");
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
    if tls.insecure_skip_verify {
        let message = "any certificate is accepted: anyone on the network path can read events and impersonate the receiver. Use caSecretRef";
        problems.warn("unverified-tls", format!("{field}.insecureSkipVerify"), message);
    }
    let ca = tls.ca_secret_ref.as_ref().and_then(|secret| {
        let field = format!("{field}.caSecretRef");
        let bytes = problems.secret(references, &secret.name, &secret.key, &field)?;
        match credentials::certificates(bytes) {
            // PEM is ASCII; DER was rejected.
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
                    Err("contains a colon, which ends the name in basic authentication".into())
                }
                _ => Ok(line),
            });
            line.map_err(|message| problems.in_secret(&secret.name, key, &field, &message)).ok()
        };
        // Both are checked before either returns, so that both problems are reported.
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

/// `field` is the path of the `delivery`.
pub(super) fn modes(delivery: &WebhookDelivery, context: &Context<'_>, field: &str, problems: &mut Problems) {
    let is_blocking = delivery.mode != Mode::Batch;
    problems.risk(Risk::BlockingWebhook, is_blocking, context, &format!("{field}.mode"), || {
        format!(
            "{:?}: while the receiver is down, every audited request waits for it, health checks fail, and the kubelet restarts \
             kube-apiserver again and again. Use Batch",
            delivery.mode
        )
    });
    delivery::strict(delivery.mode == Mode::BlockingStrict, context.omit_stages, field, problems);
    delivery::check(delivery.mode, delivery.batch.as_ref(), delivery::Backend::Webhook, field, problems);
    delivery::check_truncate(delivery.truncate.as_ref(), field, problems);
    delivery::check_backoff(delivery.initial_backoff_seconds, field, problems);
}

/// The field that names the destination.
fn destination_field(webhook: &WebhookSink) -> &'static str {
    match (&webhook.url, &webhook.service) {
        (Some(_), _) => "url",
        (None, Some(_)) => "service",
        (None, None) => "urlSecretRef",
    }
}

/// Whether events may be sent there. `service` is the name (`namespace/name`) of the Service whose address the host is;
/// `shown` is the destination as a message shows it.
pub(super) fn check_destination(
    url: &Url,
    service: Option<&str>,
    shown: &str,
    floor: &Floor,
) -> Result<(), (Reason, String)> {
    floor.permits_destination(&url.host, url.port, service).map_err(|forbidden| match forbidden {
        Forbidden::Always(why) => (Reason::InvalidSetup, format!("{shown} cannot be a sink: {why}. Give a receiver of audit events")),
        Forbidden::ByFloor => {
            let message = format!(
                "{shown} is not a permitted destination. Choose one from floor.destinations, or have an administrator add it"
            );
            (Reason::BelowFloor, message)
        }
    })
}

/// A Secret with the annotation for its hosts is sent to no other host.
fn check_hosts(
    webhook: &WebhookSink,
    url: &Url,
    service: Option<&str>,
    references: &References,
    floor: &Floor,
    field: &str,
    problems: &mut Problems,
) {
    let auth = webhook.auth.as_ref();
    let names = [
        webhook.url_secret_ref.as_ref().map(|r| &r.name),
        auth.and_then(|auth| auth.bearer_token_secret_ref.as_ref()).map(|r| &r.name),
        auth.and_then(|auth| auth.basic_auth_secret_ref.as_ref()).map(|r| &r.name),
        auth.and_then(|auth| auth.client_certificate_secret_ref.as_ref()).map(|r| &r.name),
    ];
    for name in names.into_iter().flatten() {
        let Some(secret) = references.secrets.get(name).filter(|secret| secret.is_usable(name)) else { continue };
        if !secret.is_for(&url.host, url.port, service, floor) {
            problems.add(
                field,
                Reason::SecretNotForHost,
                format!(
                    "the annotation {HOSTS_ANNOTATION} of the Secret {name:?} does not name this host. Correct one of them"
                ),
            );
        }
    }
}
