//! Can a webhook be reached from this node? Resolves, connects and verifies as kube-apiserver does. Sends a request
//! only if the Setup has a probe, because some receivers take any request for an event.
//!
//! *Caveats.* It sends no client certificate. A server that requests one has sent its own by then, which is enough
//! here. Deliveries show whether it accepts the certificate of kube-apiserver.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ask::ask;
use super::dial::{Connection, Failure, Why, dial};
use super::target::{ProbeTarget, TlsTarget, WebhookTarget};
use super::{certificate, no, unknown, yes};
use crate::api::{Finding, Reason};
use crate::floor::Destination;
use crate::revision::Url;
use crate::tls::AnyCertificate;

/// Reads a file of the node.
type ReadFile<'a> = &'a (dyn Fn(&str) -> io::Result<Vec<u8>> + Sync);

/// The result of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub finding: Finding,
    /// When the server's certificate expires, if it has a valid one.
    pub expires: Option<Timestamp>,
    /// Whether the finding is about the answer to a request.
    pub was_asked: bool,
}

impl From<Finding> for Probe {
    fn from(finding: Finding) -> Self {
        Self { finding, expires: None, was_asked: false }
    }
}

/// Connects to a webhook. `addresses`: its addresses, if kube-apiserver does not resolve its name. `timeout` is for
/// resolving and connecting, and again for the TLS handshake, as in Go.
pub async fn reach(
    target: &WebhookTarget,
    addresses: &[IpAddr],
    read_file: ReadFile<'_>,
    timeout: Duration,
    now: Timestamp,
) -> Probe {
    let deadline = Instant::now() + timeout;
    let Url { host, port, .. } = &target.url;
    let resolved = if addresses.is_empty() {
        match timeout_at(deadline, tokio::net::lookup_host((host.as_str(), *port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        }
    } else {
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, *port)).collect::<Vec<_>>())
    };
    let addresses = match resolved {
        Ok(addresses) => addresses,
        Err(why) => {
            let name = if target.is_host_shown() { host.as_str() } else { "the name of the receiver" };
            return no(Reason::ResolveFailed, format!("this node cannot resolve {name}: {why}")).into();
        }
    };
    // A name may resolve to any address, and change at any time.
    let may_be_asked =
        |address: &SocketAddr| Destination::never(&address.ip().to_string(), address.port(), None).is_none();
    let addresses: Vec<_> = addresses.into_iter().filter(may_be_asked).collect();
    if addresses.is_empty() {
        let message = format!("{} resolves only to addresses that events must not be sent to", target.shown);
        return no(Reason::ConnectFailed, message).into();
    }
    reach_one_of(&addresses, target, read_file, deadline, timeout, now).await
}

/// As [`reach`], with the resolved addresses.
async fn reach_one_of(
    addresses: &[SocketAddr],
    target: &WebhookTarget,
    read_file: ReadFile<'_>,
    deadline: Instant,
    timeout: Duration,
    now: Timestamp,
) -> Probe {
    let name = &target.shown;
    let Connection { stream, failed } = match dial(addresses, deadline).await {
        Ok(connection) => connection,
        Err(failed) => {
            let all = |why: &Why| failed.iter().all(|failure| failure.why == *why);
            let reason = match (all(&Why::NothingListens), all(&Why::NoAnswer)) {
                (true, _) => Reason::Refused,
                (_, true) => Reason::NoAnswer,
                _ => Reason::ConnectFailed,
            };
            return no(reason, format!("{name}: {}", list(&failed, target))).into();
        }
    };
    let mut probe: Probe = match &target.tls {
        None => answered(yes(Reason::Reachable, "").into(), stream, false, target, timeout).await,
        Some(tls) => match tokio::time::timeout(timeout, shake_hands(stream, tls, read_file, now)).await {
            Ok(Ok(Handshake { probe, stream: None, .. })) => probe,
            Ok(Ok(Handshake { probe, stream: Some(stream), is_client_wanted })) => {
                answered(probe, *stream, is_client_wanted, target, timeout).await
            }
            Ok(Err(finding)) => Finding { message: format!("{name}: {}", finding.message), ..finding }.into(),
            Err(_) => no(
                Reason::TlsFailed,
                format!("{name} accepts the connection but sends nothing within {} s", timeout.as_secs()),
            )
            .into(),
        },
    };
    // kube-apiserver loses time with such an address whenever it connects.
    if !failed.is_empty() {
        let message = &mut probe.finding.message;
        let gap = if message.is_empty() { "" } else { "; " };
        *message = format!("{message}{gap}not every address of {name} answers: {}", list(&failed, target));
    }
    probe
}

/// The addresses that failed, each with its reason.
fn list(failed: &[Failure], target: &WebhookTarget) -> String {
    let one = |failure: &Failure| {
        let ip = failure.address.ip().to_string();
        if target.url.host == ip { failure.why.to_string() } else { format!("{ip}: {}", failure.why) }
    };
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Makes the request of the probe, if the Setup has one. `is_client_wanted`: kube-apiserver sends a certificate that is
/// not sent here, so the server may end the connection.
async fn answered(
    reached: Probe,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    is_client_wanted: bool,
    target: &WebhookTarget,
    timeout: Duration,
) -> Probe {
    let Some(probe) = &target.probe else { return reached };
    let answer = tokio::time::timeout(timeout, ask(&mut stream, &target.url, &probe.path)).await;
    let (name, shown) = (&target.shown, target.shown_probe(probe));
    let finding = match answer {
        Ok(Ok(code)) => judge_code(code, target, probe),
        Ok(Err(_)) | Err(_) if is_client_wanted => return reached,
        Ok(Err(_)) => {
            no(Reason::NoAnswer, format!("{name} accepts the connection but does not answer {shown} in HTTP"))
        }
        Err(_) => {
            let message =
                format!("{name} accepts the connection but does not answer {shown} within {} s", timeout.as_secs());
            no(Reason::NoAnswer, message)
        }
    };
    Probe { finding, was_asked: true, ..reached }
}

/// A probe at the path of the sink shows more than one at another path.
fn judge_code(code: u16, target: &WebhookTarget, probe: &ProbeTarget) -> Finding {
    let (name, shown) = (&target.shown, target.shown_probe(probe));
    if probe.is_expected(code) {
        return yes(Reason::Reachable, format!("it answers {shown} with {code}"));
    }
    let expected: Vec<_> = probe.expected.iter().map(u16::to_string).collect();
    let expected = if expected.is_empty() { "2xx".into() } else { expected.join(" or ") };
    let (reason, advice) = match code {
        404 if probe.is_of_sink => (Reason::WrongPath, "Check the path of the URL"),
        300..=399 if probe.is_of_sink => (Reason::Redirects, "Use the URL that it points to"),
        _ => (Reason::ProbeFailed, "See the receiver's log, or correct probe"),
    };
    no(reason, format!("{name} answers {shown} with {code}, not with {expected}. {advice}"))
}

/// A server that was verified.
struct Handshake {
    probe: Probe,
    /// `None`: it ended the handshake after it had proved itself.
    stream: Option<Box<TlsStream<TcpStream>>>,
    /// Whether it requested a client certificate.
    is_client_wanted: bool,
}

/// Verifies the server as kube-apiserver does.
async fn shake_hands(
    stream: TcpStream,
    tls: &TlsTarget,
    read_file: ReadFile<'_>,
    now: Timestamp,
) -> Result<Handshake, Finding> {
    let server_name = ServerName::try_from(tls.server_name.clone()).map_err(|_| {
        no(
            Reason::CertificateInvalid,
            format!("{:?} cannot be the name in a certificate: correct tls.serverName", tls.server_name),
        )
    })?;
    let requested = Arc::new(ClientCertRequested::default());
    let config = config(tls, read_file, requested.clone(), now)?;
    let stream = match TlsConnector::from(Arc::new(config)).connect(server_name, stream).await {
        Ok(stream) => stream,
        Err(error) => {
            let probe = judge_failure(&error, tls, &requested, now)?.into();
            return Ok(Handshake { probe, stream: None, is_client_wanted: true });
        }
    };
    // insecureSkipVerify ignores the dates.
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).filter(|_| !tls.insecure_skip_verify);
    let not_after = leaf.and_then(|leaf| {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    match not_after {
        // It expired between the handshake and this check.
        Some(not_after) if not_after < now => Err(no(Reason::CertificateInvalid, certificate::ended(not_after, now))),
        expires => Ok(Handshake {
            probe: Probe { finding: yes(Reason::Reachable, ""), expires, was_asked: false },
            stream: Some(Box::new(stream)),
            is_client_wanted: requested.0.load(Ordering::Relaxed),
        }),
    }
}

fn config(
    tls: &TlsTarget,
    read_file: ReadFile<'_>,
    requested: Arc<ClientCertRequested>,
    now: Timestamp,
) -> Result<ClientConfig, Finding> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(FixedClock(now)))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions of TLS");
    if tls.insecure_skip_verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_client_cert_resolver(requested));
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(file) => {
            let unusable =
                |why: String| no(Reason::CertificateInvalid, format!("cannot use the authorities in {file}: {why}"));
            let pem = read_file(file).map_err(|error| unusable(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("it has no certificate".into()));
            }
        }
        // The authorities in this program's own image, if it has any. Those of kube-apiserver's image and mounts are
        // not visible here.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(builder.with_root_certificates(roots).with_client_cert_resolver(requested))
}

fn judge_failure(
    error: &io::Error,
    tls: &TlsTarget,
    requested: &ClientCertRequested,
    now: Timestamp,
) -> Result<Finding, Finding> {
    let message = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) if tls.ca_file.is_none() => {
            return Ok(unknown(Reason::Pending, certificate::UNKNOWN_AUTHORITY));
        }
        Some(rustls::Error::InvalidCertificate(why)) => {
            return Err(no(Reason::CertificateInvalid, certificate::refused(why, tls, now)));
        }
        // Before TLS 1.3, a server that requires a client certificate ends the handshake without one. Its own
        // certificate was verified by then.
        Some(rustls::Error::AlertReceived(_)) if requested.0.load(Ordering::Relaxed) => {
            return Ok(yes(Reason::Reachable, ""));
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("the server rejects the TLS handshake: {alert:?}"),
        Some(rustls::Error::InvalidMessage(_)) => "the server does not speak TLS".into(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server closes the connection instead of a TLS handshake".into()
        }
        _ => format!("the TLS handshake fails: {error}"),
    };
    Err(no(Reason::TlsFailed, message))
}

/// Sends no client certificate, and remembers whether the server requested one.
#[derive(Debug, Default)]
struct ClientCertRequested(AtomicBool);

impl ResolvesClientCert for ClientCertRequested {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A fixed clock: certificates are judged at the given `now`.
#[derive(Debug)]
struct FixedClock(Timestamp);

impl TimeProvider for FixedClock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests;
