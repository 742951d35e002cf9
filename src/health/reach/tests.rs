//! On real sockets of loopback, with certificates made for each case.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::dial::tests::{black_hole, closed};
use super::*;
use crate::api::{Scheme, Truth};
use crate::node::files::Host;

const TIMEOUT: Duration = Duration::from_secs(5);
const ALL: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;
const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];

/// The certificates of the tests hold in the year 2026.
fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn mid_2026() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

fn target(address: SocketAddr, tls: Option<TlsTarget>) -> WebhookTarget {
    named(&address.ip().to_string(), address.port(), tls)
}

fn named(host: &str, port: u16, tls: Option<TlsTarget>) -> WebhookTarget {
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let url = Url { scheme, host: host.into(), port, path: "/".into() };
    let shown = url.authority();
    let (max_wait, initial_backoff) = (Duration::from_secs(30), Duration::from_secs(10));
    WebhookTarget { url, proxy: None, shown, tls, max_wait, initial_backoff, files: Vec::new(), probe: None }
}

fn tls(server_name: &str) -> TlsTarget {
    TlsTarget { server_name: server_name.into(), ca_file: Some("/ca.crt".into()), insecure_skip_verify: false }
}

/// Reads files below a root.
fn below(root: &Path) -> impl Fn(&str) -> io::Result<Vec<u8>> + Sync {
    move |path: &str| std::fs::read(root.join(path.trim_start_matches('/')))
}

/// An authority, and a root with its certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    root: TempDir,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let root = tempfile::tempdir().unwrap();
        Host::open(root.path()).unwrap().replace("/ca.crt", issuer.pem().as_bytes(), 0o600).unwrap();
        Self { issuer, root }
    }

    /// A TLS server for `sink.test`, all of 2026.
    async fn serve(&self, versions: &[&'static SupportedProtocolVersion], wants_client: bool) -> SocketAddr {
        let mut params = CertificateParams::new(vec!["sink.test".to_string()]).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut clients = RootCertStore::empty();
        clients.add(self.issuer.der().clone()).unwrap();
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).unwrap();
        let builder = if wants_client {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(stream).await) }
        })
        .await
    }

    async fn reach(&self, address: SocketAddr, tls: TlsTarget, now: Timestamp) -> Finding {
        reach(&target(address, Some(tls)), &[], &below(self.root.path()), TIMEOUT, now).await.finding
    }
}

/// A server on loopback that does `talk` with each connection.
async fn serve<F: Future<Output = ()> + Send + 'static>(talk: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(talk(stream));
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_is_judged_by_its_dates_its_names_and_its_authority() {
    use Reason::{CertificateInvalid, Reachable};
    let authority = Authority::new("one");
    let address = authority.serve(ALL, false).await;
    let blind = TlsTarget { insecure_skip_verify: true, ..tls("other.test") };
    let late = "2027-01-03T12:00:00Z";
    for (tls, now, reason, want) in [
        (tls("sink.test"), "2026-06-01T00:00:00Z", Reachable, String::new()),
        (tls("sink.test"), "2026-12-31T19:30:00Z", Reachable, String::new()),
        (
            tls("sink.test"),
            late,
            CertificateInvalid,
            format!("{address}: the certificate expired at 2027-01-01T00:00:00Z, 2 days ago"),
        ),
        (
            tls("sink.test"),
            "2025-12-31T00:00:00Z",
            CertificateInvalid,
            format!(
                "{address}: the certificate is not valid before 2026-01-01T00:00:00Z, in 24 hours, unless the clock of this node is slow"
            ),
        ),
        (
            tls("other.test"),
            "2026-06-01T00:00:00Z",
            CertificateInvalid,
            format!(
                "{address}: the certificate is for sink.test, not for other.test. Correct tls.serverName or the certificate"
            ),
        ),
        (
            tls("no name"),
            "2026-06-01T00:00:00Z",
            CertificateInvalid,
            format!("{address}: \"no name\" cannot be the name in a certificate: correct tls.serverName"),
        ),
        (blind, late, Reachable, String::new()),
    ] {
        let found = authority.reach(address, tls, at(now)).await;
        assert_eq!((found.reason, found.message), (reason, want), "{now}");
        assert_eq!(found.status == Truth::True, reason == Reachable);
    }
}

#[tokio::test]
async fn a_connection_shows_when_the_certificate_expires() {
    let authority = Authority::new("one");
    let address = authority.serve(ALL, false).await;
    let expires = async |tls: TlsTarget| {
        reach(&target(address, Some(tls)), &[], &below(authority.root.path()), TIMEOUT, mid_2026()).await.expires
    };
    assert_eq!(expires(tls("sink.test")).await, Some(at("2027-01-01T00:00:00Z")));
    // Nobody looks at it.
    assert_eq!(expires(TlsTarget { insecure_skip_verify: true, ..tls("sink.test") }).await, None);
}

#[tokio::test]
async fn an_authority_that_did_not_sign_is_told_and_so_is_a_file_without_one() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let address = authority.serve(ALL, false).await;
    let found = other.reach(address, tls("sink.test"), mid_2026()).await;
    assert_eq!(found.reason, Reason::CertificateInvalid);
    assert_eq!(
        found.message,
        format!("{address}: none of the authorities in tls.caSecretRef has issued the certificate")
    );
    let found = Authority::new("one").reach(address, tls("sink.test"), mid_2026()).await;
    assert_eq!(found.reason, Reason::CertificateInvalid);
    assert!(found.message.ends_with("was the authority replaced?"), "{found:?}");
    Host::open(other.root.path()).unwrap().replace("/ca.crt", b"", 0o600).unwrap();
    let found = other.reach(address, tls("sink.test"), mid_2026()).await;
    assert_eq!(found.message, format!("{address}: cannot use the authorities in /ca.crt: it has no certificate"));
    let found = other.reach(address, TlsTarget { ca_file: Some("/gone".into()), ..tls("sink.test") }, mid_2026()).await;
    assert_eq!(found.reason, Reason::CertificateInvalid);
    assert!(found.message.contains("No such file"), "{found:?}");
}

#[tokio::test]
async fn without_a_ca_in_the_setup_nobody_here_can_tell_whether_it_is_trusted() {
    let address = Authority::new("one").serve(ALL, false).await;
    let other = Authority::new("other");
    let found = other.reach(address, TlsTarget { ca_file: None, ..tls("sink.test") }, mid_2026()).await;
    assert_eq!((found.status, found.reason), (Truth::Unknown, Reason::Pending), "{found:?}");
    assert!(found.message.starts_with("the server answers over TLS, but the agent cannot check"), "{found:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_is_reachable_and_still_verified() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    for versions in [ALL, OLD] {
        let address = authority.serve(versions, true).await;
        let found = authority.reach(address, tls("sink.test"), mid_2026()).await;
        assert_eq!((found.reason, found.message.as_str()), (Reason::Reachable, ""), "{versions:?}");
        for found in [
            authority.reach(address, tls("other.test"), mid_2026()).await,
            other.reach(address, tls("sink.test"), mid_2026()).await,
        ] {
            assert_eq!(found.reason, Reason::CertificateInvalid, "{versions:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_speak_tls_is_told_by_what_it_does_instead() {
    let root = tempfile::tempdir().unwrap();
    let blind = TlsTarget { insecure_skip_verify: true, ..tls("sink.test") };
    let plain = serve(async |mut stream: TcpStream| {
        drop(stream.read(&mut [0; 64]).await);
        drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
    })
    .await;
    let closing = serve(async |stream| drop(stream)).await;
    let silent = serve(async |stream| {
        tokio::time::sleep(TIMEOUT * 10).await;
        drop(stream);
    })
    .await;
    for (address, want) in [
        (plain, "the server does not speak TLS"),
        (closing, ""),
        (silent, " accepts the connection but sends nothing within 1 s"),
    ] {
        let target = target(address, Some(blind.clone()));
        let found = reach(&target, &[], &below(root.path()), Duration::from_secs(1), mid_2026()).await.finding;
        assert_eq!(found.reason, Reason::TlsFailed, "{found:?}");
        assert!(found.message.starts_with(&address.to_string()) && found.message.ends_with(want), "{found:?}");
        // Over plain http a connection is all that can be had without a request.
        let found =
            reach(&WebhookTarget { tls: None, ..target }, &[], &below(root.path()), TIMEOUT, mid_2026()).await.finding;
        assert_eq!((found.reason, found.message.as_str()), (Reason::Reachable, ""));
    }
}

#[tokio::test]
async fn a_closed_port_and_a_name_without_address_are_told_apart() {
    let (closed, _closed) = closed("127.0.0.1:0");
    let found = reach(&target(closed, None), &[], &below(Path::new("/")), TIMEOUT, mid_2026()).await.finding;
    assert_eq!(found.reason, Reason::Refused);
    assert_eq!(found.message, format!("{closed}: nothing listens there (connection refused)"));
    let nowhere = named("no-such-host.invalid", 443, None);
    let found = reach(&nowhere, &[], &below(Path::new("/")), TIMEOUT, mid_2026()).await.finding;
    assert_eq!(found.reason, Reason::ResolveFailed);
    assert!(found.message.starts_with("this node cannot resolve no-such-host.invalid: "), "{found:?}");
    // With the addresses of the manifest's hostAliases.
    let (address, _other) = super::super::dial::tests::closed("127.0.0.4:0");
    let aliased = named("no-such-host.invalid", address.port(), None);
    let found = reach(&aliased, &[address.ip()], &below(Path::new("/")), TIMEOUT, mid_2026()).await.finding;
    assert_eq!(found.reason, Reason::Refused, "{found:?}");
}

#[tokio::test]
async fn a_dead_address_of_a_name_is_named_beside_one_that_lives() {
    let authority = Authority::new("one");
    let address = authority.serve(ALL, false).await;
    let (closed, _closed) = closed("127.0.0.2:0");
    let (hole, _hole) = black_hole("127.0.0.3:0").await;
    let port = address.port();
    let target = named("sink.test", port, Some(tls("sink.test")));
    let reach = async |addresses: &[SocketAddr], timeout| {
        let deadline = Instant::now() + timeout;
        reach_one_of(addresses, &target, &below(authority.root.path()), deadline, TIMEOUT, mid_2026()).await.finding
    };
    let found = reach(&[closed, address], TIMEOUT).await;
    assert_eq!(found.reason, Reason::Reachable);
    assert_eq!(
        found.message,
        format!("not every address of sink.test:{port} answers: 127.0.0.2: nothing listens there (connection refused)")
    );
    let found = reach(&[closed, hole], Duration::from_millis(500)).await;
    assert_eq!((found.status, found.reason), (Truth::False, Reason::ConnectFailed));
    assert_eq!(
        found.message,
        format!("sink.test:{port}: 127.0.0.2: nothing listens there (connection refused); 127.0.0.3: no answer")
    );
}

/// Answers the first bytes of a request with `answer`, and keeps the connection open.
async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, answer: &'static str) {
    let (mut stream, mut request) = (stream, [0; 16]);
    if stream.read(&mut request).await.is_ok_and(|read| read > 0) && stream.write_all(answer.as_bytes()).await.is_ok() {
        drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await);
    }
}

fn probed(target: WebhookTarget, path: &str, expected: &[u16]) -> WebhookTarget {
    let is_of_sink = path == target.url.path;
    let probe = Some(ProbeTarget { path: path.into(), is_of_sink, expected: expected.to_vec() });
    WebhookTarget { probe, ..target }
}

#[tokio::test]
async fn the_answer_to_a_probe_has_a_reason() {
    use Reason::{NoAnswer, ProbeFailed, Reachable, Redirects, WrongPath};
    let cases: &[(&'static str, &str, &[u16], Reason)] = &[
        ("HTTP/1.1 405 Method Not Allowed\r\n", "/", &[405], Reachable),
        ("HTTP/1.1 204 No Content\r\n", "/healthz", &[], Reachable),
        ("HTTP/1.1 200 OK\r\n", "/", &[405], ProbeFailed),
        ("HTTP/1.1 404 Not Found\r\n", "/", &[405], WrongPath),
        ("HTTP/1.1 404 Not Found\r\n", "/healthz", &[], ProbeFailed),
        ("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n", "/", &[405], Redirects),
        ("HTTP/1.1 503 secret text\r\n", "/healthz", &[200, 503], Reachable),
        ("220 mail.example ESMTP ready\r\n", "/", &[405], NoAnswer),
    ];
    for (text, path, expected, want) in cases {
        let address = serve(|stream| answer(stream, text)).await;
        let target = probed(target(address, None), path, expected);
        let probe = reach(&target, &[], &below(Path::new("/nowhere")), TIMEOUT, mid_2026()).await;
        assert_eq!((probe.finding.reason, probe.was_asked), (*want, true), "{text} {path}");
        let status = if *want == Reachable { Truth::True } else { Truth::False };
        assert_eq!(probe.finding.status, status, "{text}");
        for receivers_own in ["Not Found", "secret text", "mail.example", "169.254"] {
            assert!(!probe.finding.message.contains(receivers_own), "{}", probe.finding.message);
        }
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_a_probe_is_not_waited_for() {
    let silent =
        serve(|mut stream| async move { drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await) }).await;
    let closes = serve(|stream| async move { drop(stream) }).await;
    for (address, want) in [(silent, "within 0 s"), (closes, "does not answer the probe (GET /x) in HTTP")] {
        let target = probed(target(address, None), "/x", &[]);
        let timeout = if address == silent { Duration::from_millis(300) } else { TIMEOUT };
        let probe = reach(&target, &[], &below(Path::new("/nowhere")), timeout, mid_2026()).await;
        assert_eq!(probe.finding.reason, Reason::NoAnswer);
        assert!(probe.finding.message.contains(want), "{}", probe.finding.message);
    }
}

#[tokio::test]
async fn a_probe_over_tls_comes_after_the_certificate() {
    let authority = Authority::new("one");
    for (wants_client, want) in [(false, Reason::NoAnswer), (true, Reason::Reachable)] {
        // The server of these tests closes after the handshake, as one does that misses a client certificate.
        let address = authority.serve(ALL, wants_client).await;
        let target = probed(target(address, Some(tls("sink.test"))), "/", &[405]);
        let found = reach(&target, &[], &below(authority.root.path()), TIMEOUT, mid_2026()).await;
        assert_eq!((found.finding.reason, found.was_asked), (want, !wants_client), "{}", found.finding.message);
        assert!(found.expires.is_some(), "{wants_client}");
        let late = reach(&target, &[], &below(authority.root.path()), TIMEOUT, at("2028-01-01T00:00:00Z")).await;
        assert_eq!((late.finding.reason, late.was_asked), (Reason::CertificateInvalid, false));
    }
}

#[tokio::test]
async fn without_a_probe_nothing_is_sent() {
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let address = serve(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            let _ = sender.send(bytes);
        }
    })
    .await;
    let probe = reach(&target(address, None), &[], &below(Path::new("/nowhere")), TIMEOUT, mid_2026()).await;
    assert_eq!((probe.finding.reason, probe.was_asked), (Reason::Reachable, false));
    assert_eq!(received.recv().await, Some(Vec::new()));
}
