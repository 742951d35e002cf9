//! Can a webhook be reached from this node? Resolves, connects and verifies as kube-apiserver would; never sends a request, since for some
//! receivers any request is an event.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::{no, yes};
use crate::api::{Finding, Reason, TlsTarget, WebhookTarget};
use crate::tls::AnyCertificate;

/// A certificate that ends within so many seconds is told of while it still holds: 14 days.
const EXPIRES_SOON: i64 = 14 * 86_400;

/// The least share of the time that one of several addresses gets.
const LEAST_SHARE: Duration = Duration::from_secs(2);

/// Connects to a webhook. `host_root` is where the files of the node lie. `timeout` is for all of it.
pub async fn reach(target: &WebhookTarget, host_root: &Path, timeout: Duration, now: Timestamp) -> Finding {
    let name = format!("{}:{}", target.host, target.port);
    let deadline = Instant::now() + timeout;
    match timeout_at(deadline, connect(target, &name, host_root, deadline, now)).await {
        Ok(Ok(finding) | Err(finding)) => finding,
        Err(_) if target.tls.is_some() => no(
            Reason::TlsFailed,
            format!("{name} takes connections and does not finish one within {} s", timeout.as_secs()),
        ),
        Err(_) => no(Reason::ConnectFailed, format!("{name} does not answer within {} s", timeout.as_secs())),
    }
}

async fn connect(
    target: &WebhookTarget,
    name: &str,
    host_root: &Path,
    deadline: Instant,
    now: Timestamp,
) -> Result<Finding, Finding> {
    let bare = target.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = timeout_at(deadline, lookup_host((bare, target.port)))
        .await
        .map_err(|_| no(Reason::ResolveFailed, format!("{}: no answer from the resolver of this node", target.host)))?
        .map_err(|error| no(Reason::ResolveFailed, format!("{} has no address for this node: {error}", target.host)))?
        .collect();
    let stream = dial(&addresses, deadline).await.map_err(|why| no(Reason::ConnectFailed, format!("{name}: {why}")))?;
    let Some(tls) = &target.tls else { return Ok(yes(Reason::Reachable, "")) };
    let config = config(tls, host_root)?;
    let server_name = ServerName::try_from(tls.server_name.clone()).map_err(|_| {
        no(Reason::CertificateInvalid, format!("{:?} is not a name that a certificate can carry", tls.server_name))
    })?;
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server_name, stream).await;
    let stream = connected.map_err(|error| handshake(name, &error, tls))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let ends = leaf.and_then(|leaf| ends_at(leaf)).map_or_else(String::new, |end| ending(end - now.as_second()));
    Ok(yes(Reason::Reachable, ends))
}

/// Connects to the first address that answers. One that is silent takes only its share of the time, as with the dialer of
/// kube-apiserver (golang/go@go1.25.0 src/net/dial.go, partialDeadline).
async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, String> {
    let mut failed = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let waiting = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = (left / waiting).max(LEAST_SHARE).min(left);
        let why = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => plain(&error),
            Err(_) => format!("no answer within {:.1} s", share.as_secs_f32()),
        };
        failed.push(if addresses.len() == 1 { why } else { format!("{}: {why}", address.ip()) });
    }
    Err(failed.join("; "))
}

fn config(tls: &TlsTarget, host_root: &Path) -> Result<ClientConfig, Finding> {
    let builder = ClientConfig::builder();
    if tls.insecure_skip_verify {
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &tls.ca_file {
        Some(file) => {
            let unreadable = |why: String| no(Reason::CertificateInvalid, format!("the authorities in {file}: {why}"));
            let path = host_root.join(file.trim_start_matches('/'));
            let pem = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unreadable(error.to_string()))?;
            }
        }
        // kube-apiserver has the roots of its own image; the node's are the nearest that can be seen from here.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn handshake(name: &str, error: &io::Error, tls: &TlsTarget) -> Finding {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            no(Reason::CertificateInvalid, format!("{name}: {}", invalid(why, tls)))
        }
        // An alert of the peer, or bytes that are no TLS.
        Some(other) => no(Reason::TlsFailed, format!("{name}: no TLS connection: {other}")),
        None => no(Reason::TlsFailed, format!("{name}: no TLS connection: {}", plain(error))),
    }
}

fn invalid(why: &CertificateError, tls: &TlsTarget) -> String {
    let date = |at: &UnixTime| {
        Timestamp::from_second(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
            .map_or_else(|_| "?".into(), |at| at.to_string())
    };
    match why {
        CertificateError::ExpiredContext { not_after, .. } => format!("the certificate ended at {}", date(not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate holds only from {}; is the clock of this node right?", date(not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let presented = if presented.is_empty() { "no name".into() } else { presented.join(", ") };
            format!("the certificate is not for {}, but for {presented}; see tls.serverName", tls.server_name)
        }
        // A bad signature: an authority of the same name, and another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            let authorities = tls.ca_file.as_ref().map_or(
                "the authorities of this node (kube-apiserver has those of its image)",
                |_| "the authorities of the Setup (tls.caSecretRef)",
            );
            format!("the certificate comes from none of {authorities}")
        }
        other => format!("the certificate does not hold: {other:?}"),
    }
}

/// When a certificate ends, in seconds since 1970.
fn ends_at(leaf: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// What there is to say of a certificate that was taken and ends in `seconds`.
fn ending(seconds: i64) -> String {
    const HOUR: i64 = 3600;
    match seconds {
        ..0 => "the certificate has ended, and the Setup has it unverified".into(),
        0..HOUR => format!("the certificate ends in {} minutes", seconds / 60),
        HOUR..172_800 => format!("the certificate ends in {} hours", seconds / HOUR),
        172_800..EXPIRES_SOON => format!("the certificate ends in {} days", seconds / 86_400),
        _ => String::new(),
    }
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::api::Truth;

    const TIMEOUT: Duration = Duration::from_secs(5);
    /// Whole days and hours come out the same however long the test takes.
    const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

    fn now() -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the certificates of the test are made now")]
        Timestamp::now()
    }

    fn target(port: u16, tls: Option<TlsTarget>) -> WebhookTarget {
        WebhookTarget { host: "127.0.0.1".into(), port, tls, max_wait_seconds: 30 }
    }

    fn tls(server_name: &str) -> Option<TlsTarget> {
        Some(TlsTarget {
            server_name: server_name.into(),
            ca_file: Some("/ca.crt".into()),
            insecure_skip_verify: false,
        })
    }

    /// A TLS server for `sink.test` on loopback whose certificate holds from and to so many days from now, and a root with the
    /// authority that it comes from.
    async fn server(days: (i64, i64)) -> (u16, tempfile::TempDir) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let at = |days: i64| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs((now().as_second() + days * 86_400) as u64)
        };
        let mut parameters = rcgen::CertificateParams::new(vec!["sink.test".to_string()]).unwrap();
        (parameters.not_before, parameters.not_after) = (at(days.0), at(days.1) + HALF_AN_HOUR);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let root = tempfile::tempdir().unwrap();
        crate::node::files::Host::new(root.path()).replace("/ca.crt", certificate.pem().as_bytes(), 0o600).unwrap();
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(acceptor.accept(stream).await);
            }
        });
        (port, root)
    }

    #[tokio::test]
    async fn a_certificate_is_judged_by_its_name_its_issuer_and_its_time() {
        let (_, other) = server((-1, 90)).await;
        for (days, server_name, authorities_of_another, want) in [
            ((-1, 90), "sink.test", false, (Truth::True, Reason::Reachable, "")),
            ((-1, 9), "sink.test", false, (Truth::True, Reason::Reachable, "the certificate ends in 9 days")),
            ((-1, 1), "sink.test", false, (Truth::True, Reason::Reachable, "the certificate ends in 24 hours")),
            ((-9, -2), "sink.test", false, (Truth::False, Reason::CertificateInvalid, "the certificate ended at ")),
            ((2, 9), "sink.test", false, (Truth::False, Reason::CertificateInvalid, "holds only from ")),
            (
                (-1, 90),
                "other.test",
                false,
                (Truth::False, Reason::CertificateInvalid, "is not for other.test, but for "),
            ),
            (
                (-1, 90),
                "sink.test",
                true,
                (Truth::False, Reason::CertificateInvalid, "comes from none of the authorities"),
            ),
        ] {
            let (port, root) = server(days).await;
            let root = if authorities_of_another { other.path() } else { root.path() };
            let found = reach(&target(port, tls(server_name)), root, TIMEOUT, now()).await;
            assert_eq!((found.status, found.reason), (want.0, want.1), "{found:?}");
            assert!(found.message.contains(want.2) && found.message.is_empty() == want.2.is_empty(), "{found:?}");
        }
        let (port, root) = server((-9, -2)).await;
        let blind = Some(TlsTarget { insecure_skip_verify: true, ..tls("other.test").unwrap() });
        let found = reach(&target(port, blind), root.path(), TIMEOUT, now()).await;
        assert_eq!(
            (found.status, found.message.as_str()),
            (Truth::True, "the certificate has ended, and the Setup has it unverified")
        );
    }

    #[tokio::test]
    async fn a_closed_port_and_a_name_without_address_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plain = reach(&target(port, None), Path::new("/"), TIMEOUT, now()).await;
        assert_eq!(plain.status, Truth::True);
        drop(listener);
        let closed = reach(&target(port, None), Path::new("/"), TIMEOUT, now()).await;
        assert_eq!(closed.reason, Reason::ConnectFailed);
        let nowhere = WebhookTarget { host: "no-such-host.invalid".into(), ..target(port, None) };
        assert_eq!(reach(&nowhere, Path::new("/"), TIMEOUT, now()).await.reason, Reason::ResolveFailed);
    }

    #[tokio::test]
    async fn who_speaks_no_tls_or_nothing_at_all_is_told() {
        let (_, root) = server((-1, 90)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = reach(&target(port, tls("sink.test")), root.path(), Duration::from_millis(300), now()).await;
        assert_eq!(silent.reason, Reason::TlsFailed, "{silent:?}");
        assert!(silent.message.contains("does not finish one within"), "{silent:?}");
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            }
        });
        let plain = reach(&target(port, tls("sink.test")), root.path(), TIMEOUT, now()).await;
        assert_eq!((plain.status, plain.reason), (Truth::False, Reason::TlsFailed), "{plain:?}");
    }

    #[tokio::test]
    async fn a_second_address_is_tried_and_each_is_named_where_all_fail() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let dead = SocketAddr::new([127, 0, 0, 2].into(), good.port());
        let deadline = Instant::now() + TIMEOUT;
        assert!(dial(&[dead, good], deadline).await.is_ok());
        drop(listener);
        let why = dial(&[dead, good], deadline).await.unwrap_err();
        assert_eq!(
            why,
            "127.0.0.2: nothing listens there (connection refused); 127.0.0.1: nothing listens there (connection refused)"
        );
    }
}
