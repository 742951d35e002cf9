//! Can a webhook be reached from this node? Resolves, connects and verifies as kube-apiserver would; never sends a request, since for some
//! receivers any request is an event.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::{no, yes};
use crate::api::{Finding, Reason, TlsTarget, WebhookTarget};
use crate::tls::AnyCertificate;

/// A certificate that ends sooner is told of while it still holds.
const EXPIRES_SOON_DAYS: i64 = 14;

/// Connects to a webhook. `host_root` is where the files of the node lie.
pub async fn reach(target: &WebhookTarget, host_root: &Path, timeout: Duration, now: Timestamp) -> Finding {
    let name = format!("{}:{}", target.host, target.port);
    match tokio::time::timeout(timeout, connect(target, &name, host_root, now)).await {
        Ok(Ok(finding) | Err(finding)) => finding,
        Err(_) => no(Reason::ConnectFailed, format!("{name} does not answer within {} s", timeout.as_secs())),
    }
}

async fn connect(target: &WebhookTarget, name: &str, host_root: &Path, now: Timestamp) -> Result<Finding, Finding> {
    let bare = target.host.trim_start_matches('[').trim_end_matches(']');
    let addresses = tokio::net::lookup_host((bare, target.port)).await;
    let addresses: Vec<_> = addresses
        .map_err(|error| no(Reason::ResolveFailed, format!("{} has no address for this node: {error}", target.host)))?
        .collect();
    let stream = TcpStream::connect(&addresses[..])
        .await
        .map_err(|error| no(Reason::ConnectFailed, format!("{name}: {}", plain(&error))))?;
    let Some(tls) = &target.tls else { return Ok(yes(Reason::Reachable, "")) };
    let config = config(tls, host_root)?;
    let server_name = ServerName::try_from(tls.server_name.clone()).map_err(|_| {
        no(Reason::CertificateInvalid, format!("{:?} is not a name that a certificate can carry", tls.server_name))
    })?;
    let connected = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(server_name, stream).await;
    let stream = connected.map_err(|error| handshake(name, &error, tls))?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    Ok(leaf.map_or_else(|| yes(Reason::Reachable, ""), |leaf| expiry(leaf, now)))
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
            let from = tls.ca_file.as_ref().map_or(
                "the authorities of this node (kube-apiserver has those of its image)",
                |_| "the authorities of the Setup",
            );
            no(
                Reason::CertificateInvalid,
                format!("{name}: the certificate does not hold for {} by {from}: {why}", tls.server_name),
            )
        }
        _ => no(Reason::TlsFailed, format!("{name}: no TLS connection: {error}")),
    }
}

fn expiry(leaf: &CertificateDer<'_>, now: Timestamp) -> Finding {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) else { return yes(Reason::Reachable, "") };
    let days = (certificate.validity().not_after.timestamp() - now.as_second()) / 86_400;
    match days {
        days if days < 0 => no(Reason::CertificateInvalid, format!("the certificate ended {} days ago", -days)),
        days if days < EXPIRES_SOON_DAYS => yes(Reason::Reachable, format!("the certificate ends in {days} days")),
        _ => yes(Reason::Reachable, ""),
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

    /// A TLS server for `sink.test` on loopback, and a root with the authority that it comes from.
    async fn server() -> (u16, tempfile::TempDir) {
        drop(rustls::crypto::ring::default_provider().install_default());
        let key = rcgen::generate_simple_self_signed(vec!["sink.test".to_string()]).unwrap();
        let root = tempfile::tempdir().unwrap();
        crate::node::files::Host::new(root.path()).replace("/ca.crt", key.cert.pem().as_bytes(), 0o600).unwrap();
        let certificates = vec![key.cert.der().clone()];
        let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, private).unwrap();
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
    async fn a_server_that_holds_is_reachable_and_a_wrong_name_or_authority_is_not() {
        let (port, root) = server().await;
        let (_, other_root) = server().await;
        let good = reach(&target(port, tls("sink.test")), root.path(), TIMEOUT, now()).await;
        assert_eq!(good.status, Truth::True, "{good:?}");
        let wrong_name = reach(&target(port, tls("other.test")), root.path(), TIMEOUT, now()).await;
        assert_eq!(
            (wrong_name.status, wrong_name.reason),
            (Truth::False, Reason::CertificateInvalid),
            "{wrong_name:?}"
        );
        let untrusted = reach(&target(port, tls("sink.test")), other_root.path(), TIMEOUT, now()).await;
        assert_eq!((untrusted.status, untrusted.reason), (Truth::False, Reason::CertificateInvalid), "{untrusted:?}");
        let blind = Some(TlsTarget { insecure_skip_verify: true, ..tls("other.test").unwrap() });
        assert_eq!(reach(&target(port, blind), root.path(), TIMEOUT, now()).await.status, Truth::True);
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
}
