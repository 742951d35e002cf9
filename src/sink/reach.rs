//! Can a webhook be reached from this node? Resolves, connects and verifies as kube-apiserver would; never sends a request, since for some
//! receivers any request is an event.
//!
//! *Caveats.* No client certificate is shown. A server that asks for one has shown its own by then, and that is all that is
//! asked here; whether it takes the one of kube-apiserver is told by what is delivered.

use std::io;
use std::net::SocketAddr;
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
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dial::{Dialed, Failure, dial};
use super::target::{TlsTarget, WebhookTarget};
use super::{certificate, no, unknown, yes};
use crate::api::{Finding, Reason};
use crate::floor::Destination;
use crate::tls::AnyCertificate;

/// Reads a file of the node.
type ReadFile<'a> = &'a (dyn Fn(&str) -> io::Result<Vec<u8>> + Sync);

/// Connects to a webhook. `timeout` is for the connection, the resolving of its name included, and once more for the TLS handshake: Go
/// counts them apart too.
pub async fn reach(target: &WebhookTarget, read_file: ReadFile<'_>, timeout: Duration, now: Timestamp) -> Finding {
    let deadline = Instant::now() + timeout;
    let bare = target.host.trim_start_matches('[').trim_end_matches(']');
    let why = match timeout_at(deadline, tokio::net::lookup_host((bare, target.port))).await {
        Ok(Ok(addresses)) => {
            // A name may be that of any address, and change at any time.
            let may_be_asked =
                |address: &SocketAddr| Destination::never(&address.ip().to_string(), address.port(), None).is_none();
            let addresses: Vec<_> = addresses.filter(may_be_asked).collect();
            if addresses.is_empty() {
                return no(Reason::ConnectFailed, format!("{} has no address that events may go to", target.host));
            }
            return reach_one_of(&addresses, target, read_file, deadline, timeout, now).await;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", timeout.as_secs()),
    };
    no(Reason::ResolveFailed, format!("{} has no address for this node: {why}", target.host))
}

/// As [`reach`], with the addresses that the name was resolved to.
async fn reach_one_of(
    addresses: &[SocketAddr],
    target: &WebhookTarget,
    read_file: ReadFile<'_>,
    deadline: Instant,
    timeout: Duration,
    now: Timestamp,
) -> Finding {
    let name = format!("{}:{}", target.host, target.port);
    let Dialed { stream, failed } = match dial(addresses, deadline).await {
        Ok(dialed) => dialed,
        Err(failed) => return no(Reason::ConnectFailed, format!("{name}: {}", list(&failed, target))),
    };
    let mut finding = match &target.tls {
        None => yes(Reason::Reachable, ""),
        Some(tls) => match tokio::time::timeout(timeout, shake_hands(stream, tls, read_file, now)).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(finding)) => Finding { message: format!("{name}: {}", finding.message), ..finding },
            Err(_) => no(
                Reason::TlsFailed,
                format!("{name} takes the connection, and then says nothing within {} s", timeout.as_secs()),
            ),
        },
    };
    // kube-apiserver loses time at such an address whenever it connects.
    if !failed.is_empty() {
        let gap = if finding.message.is_empty() { "" } else { "; " };
        finding.message =
            format!("{}{gap}not every address of {name} answers: {}", finding.message, list(&failed, target));
    }
    finding
}

/// The addresses that failed, each with its reason.
fn list(failed: &[Failure], target: &WebhookTarget) -> String {
    let one = |failure: &Failure| {
        let ip = failure.address.ip().to_string();
        if target.host.trim_matches(['[', ']']) == ip {
            failure.why.to_string()
        } else {
            format!("{ip}: {}", failure.why)
        }
    };
    failed.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Verifies the server as kube-apiserver does, and says goodbye.
async fn shake_hands(
    stream: TcpStream,
    tls: &TlsTarget,
    read_file: ReadFile<'_>,
    now: Timestamp,
) -> Result<Finding, Finding> {
    let server_name = ServerName::try_from(tls.server_name.clone()).map_err(|_| {
        no(Reason::CertificateInvalid, format!("{:?} is not a name that a certificate can carry", tls.server_name))
    })?;
    let asked = Arc::new(Asked::default());
    let config = config(tls, read_file, asked.clone(), now)?;
    let stream = match TlsConnector::from(Arc::new(config)).connect(server_name, stream).await {
        Ok(stream) => stream,
        Err(error) => return judge_failure(&error, tls, &asked, now),
    };
    // With insecureSkipVerify nobody looks at the dates.
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).filter(|_| !tls.insecure_skip_verify);
    let not_after = leaf.and_then(|leaf| {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    });
    Ok(not_after.map_or_else(|| yes(Reason::Reachable, ""), |not_after| certificate::accepted(not_after, now)))
}

fn config(
    tls: &TlsTarget,
    read_file: ReadFile<'_>,
    asked: Arc<Asked>,
    now: Timestamp,
) -> Result<ClientConfig, Finding> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(At(now)))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions of TLS");
    if tls.insecure_skip_verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_client_cert_resolver(asked));
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(file) => {
            let unusable = |why: String| no(Reason::CertificateInvalid, format!("the authorities in {file}: {why}"));
            let pem = read_file(file).map_err(|error| unusable(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("there is no certificate".into()));
            }
        }
        // Those of this program's own image, if it has any: those of kube-apiserver's image and mounts cannot be seen from here.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(builder.with_root_certificates(roots).with_client_cert_resolver(asked))
}

fn judge_failure(error: &io::Error, tls: &TlsTarget, asked: &Asked, now: Timestamp) -> Result<Finding, Finding> {
    let message = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) if tls.ca_file.is_none() => {
            return Ok(unknown(Reason::Pending, certificate::UNKNOWN_AUTHORITY));
        }
        Some(rustls::Error::InvalidCertificate(why)) => {
            return Err(no(Reason::CertificateInvalid, certificate::refused(why, tls, now)));
        }
        // Before TLS 1.3 a server that wants a client certificate ends the handshake where there is none; its own was verified by then.
        Some(rustls::Error::AlertReceived(_)) if asked.0.load(Ordering::Relaxed) => {
            return Ok(yes(Reason::Reachable, ""));
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("the server refuses the TLS handshake: {alert:?}"),
        Some(rustls::Error::InvalidMessage(_)) => "what answers there does not speak TLS".into(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ends the connection instead of a TLS handshake".into()
        }
        _ => format!("no TLS connection: {error}"),
    };
    Err(no(Reason::TlsFailed, message))
}

/// Shows no client certificate, and remembers that one was asked for.
#[derive(Debug, Default)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A clock that stands: certificates are judged at the `now` that was passed in.
#[derive(Debug)]
struct At(Timestamp);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests;
