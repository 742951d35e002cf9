//! The server on loopback. The API server's answers are made here; tests/monitoring/cluster asks a real one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http_body_util::BodyExt;
use kube::client::Body;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::AnyCertificate;

/// Longer than anything here takes, but for time limits.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Api {
    is_away: AtomicBool,
    reviews: AtomicUsize,
    seen: Mutex<Vec<Value>>,
}

impl Api {
    /// Knows the tokens `prometheus` and `nobody`; only the first may read metrics.
    fn answer(&self, path: &str, request: Value) -> Option<Value> {
        if self.is_away.load(Ordering::Relaxed) {
            return None;
        }
        self.reviews.fetch_add(1, Ordering::Relaxed);
        let mut answer = request.clone();
        let spec = &request["spec"];
        answer["status"] = match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => match spec["token"].as_str().unwrap() {
                token @ ("prometheus" | "nobody") => json!({"authenticated": true, "user":
                    {"username": token, "uid": "7", "groups": ["g"], "extra": {"node": ["a"]}}}),
                // What a real one says of an expired token.
                _ => json!({"user": {}, "error": "token lookup failed"}),
            },
            "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                self.seen.lock().unwrap().push(spec.clone());
                json!({"allowed": spec["user"] == "prometheus"})
            }
            path => panic!("{path}"),
        };
        Some(answer)
    }

    fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let path = request.uri().path().to_string();
                assert_eq!(request.method(), Method::POST);
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let answer = api.answer(&path, serde_json::from_slice(&body).unwrap()).ok_or("away")?;
                Ok::<_, BoxError>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        });
        Client::new(service, "default")
    }
}

struct Server {
    address: SocketAddr,
    api: Arc<Api>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(args: &SecureArgs) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let api = Arc::new(Api::default());
        let mut registry = Registry::default();
        registry.register("answer", "A number", prometheus_client::metrics::gauge::ConstGauge::new(42_i64));
        let shared = Arc::new(Shared {
            identity: Identity::new(args).unwrap(),
            registry: Arc::new(registry),
            client: api.client(),
            access: Mutex::new(Access::new(Instant::now())),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (serving, until) = (shared.clone(), stop.clone());
        let ended = tokio::spawn(async move { accept(listener, serving, &until).await });
        Self { address, api, shared, stop, ended }
    }

    async fn ask(&self, request: &str) -> String {
        let config =
            rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("x").unwrap(), stream).await.unwrap();
        // A server that refuses early may have closed its side.
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        drop(timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer"));
        String::from_utf8(answer).unwrap()
    }

    async fn get(&self, authorization: &str) -> String {
        self.ask(&format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{authorization}\r\n")).await
    }

    /// Moves the last answer about `token` into the past.
    fn age(&self, token: &str, age: Duration) {
        let before = Instant::now().checked_sub(age).expect("the machine has run longer");
        self.shared.access().learn(Caller::of(token), Answer::Allowed, before);
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(LIMIT, self.ended).await.expect("it ends").unwrap();
    }
}

const PROMETHEUS: &str = "Authorization: Bearer prometheus\r\n";

#[tokio::test]
async fn only_who_may_read_metrics_reads_them_and_a_refusal_explains_nothing() {
    let server = Server::start(&SecureArgs::default()).await;
    for (request, code, reviews) in [
        ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "401 Unauthorized", 0),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic cHJvbQ==\r\n\r\n", "401 Unauthorized", 0),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\n\r\n", "401 Unauthorized", 0),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n", "401 Unauthorized", 1),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n", "401 Unauthorized", 0),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\n\r\n", "403 Forbidden", 2),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\n\r\n", "403 Forbidden", 0),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer prometheus\r\n\r\n", "405 Method Not Allowed", 0),
        ("GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer prometheus\r\n\r\n", "404 Not Found", 0),
        ("GET /metrics?a=b HTTP/1.1\r\nHost: x\r\nauthorization: bearer prometheus\r\n\r\n", "200 OK", 2),
        ("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer prometheus\r\n\r\n", "200 OK", 0),
    ] {
        let before = server.api.reviews.load(Ordering::Relaxed);
        let answer = server.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}\r\n")), "{request}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if code == "200 OK" {
            assert!(body.contains("\nanswer 42\n") && head.contains("openmetrics-text"), "{answer}");
        } else {
            assert_eq!(body, format!("{}\n", code.split_once(' ').unwrap().1));
        }
        assert_eq!(server.api.reviews.load(Ordering::Relaxed) - before, reviews, "{request}");
    }
    let want = json!({"user": "prometheus", "uid": "7", "groups": ["g"], "extra": {"node": ["a"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"}});
    assert_eq!(server.api.seen.lock().unwrap().last(), Some(&want));
    server.end().await;
}

#[tokio::test]
async fn a_caller_who_was_let_in_is_let_in_while_the_api_is_away_and_a_new_one_is_not() {
    let server = Server::start(&SecureArgs::default()).await;
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    server.api.is_away.store(true, Ordering::Relaxed);
    server.age("prometheus", Duration::from_secs(200));
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    let new = server.get("Authorization: Bearer nobody\r\n").await;
    assert!(new.starts_with("HTTP/1.1 503 ") && new.ends_with("\r\n\r\nService Unavailable\n"), "{new}");
    server.age("prometheus", Duration::from_secs(300));
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 503 "));
    server.api.is_away.store(false, Ordering::Relaxed);
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    server.end().await;
}

#[tokio::test]
async fn strangers_with_ever_new_tokens_are_turned_away_and_do_not_keep_others_out() {
    let server = Server::start(&SecureArgs::default()).await;
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    let before = server.api.reviews.load(Ordering::Relaxed);
    let mut last = String::new();
    for i in 0..40 {
        last = server.get(&format!("Authorization: Bearer {i}\r\n")).await;
        if last.starts_with("HTTP/1.1 429 ") {
            break;
        }
    }
    assert!(last.ends_with("\r\n\r\nToo Many Requests\n"), "{last}");
    assert!(server.api.reviews.load(Ordering::Relaxed) - before < 40);
    server.age("prometheus", Duration::from_secs(200));
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    server.end().await;
}

#[tokio::test]
async fn a_header_without_end_and_silent_connections_are_cut_off() {
    let server = Server::start(&SecureArgs::default()).await;
    let long = "x".repeat(HEADER_BYTES);
    let answer = server.get(&format!("Authorization: Bearer {long}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // More than there are places: each new one replaces an old one, and a caller still gets its answer.
    let mut silent = Vec::new();
    for _ in 0..crate::server::places::STRANGERS + 1 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert!(server.get(PROMETHEUS).await.starts_with("HTTP/1.1 200 "));
    let mut byte = [0];
    let closed = silent[0].read(&mut byte);
    assert!(matches!(timeout(HEADER_TIMEOUT / 2, closed).await.expect("it is evicted"), Ok(0) | Err(_)));
    let (last, begun) = (silent.last_mut().unwrap(), Instant::now());
    let closed = timeout(LIMIT, last.read(&mut [0])).await.expect("its handshake has a time limit");
    assert!(matches!(closed, Ok(0) | Err(_)) && begun.elapsed() <= HEADER_TIMEOUT + Duration::from_secs(2));
    server.end().await;
}

#[tokio::test]
async fn certificate_files_are_used_and_an_address_that_is_taken_is_named() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["metrics.test".to_string()]).unwrap();
    let host = crate::node::files::Host::open(directory.path()).unwrap();
    host.replace("/tls.crt", made.cert.pem().as_bytes(), 0o600).unwrap();
    host.replace("/tls.key", made.signing_key.serialize_pem().as_bytes(), 0o600).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let args = SecureArgs {
        metrics_secure_listen: Some(address),
        metrics_tls_certificate: Some(directory.path().join("tls.crt")),
        metrics_tls_key: Some(directory.path().join("tls.key")),
    };
    let server = Server::start(&args).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(server.address).await.unwrap();
    connector.connect(ServerName::try_from("metrics.test").unwrap(), stream).await.unwrap();
    let client = server.api.client();
    let error = serve(args.clone(), Arc::default(), client.clone(), CancellationToken::new()).await.unwrap_err();
    assert!(error::chain(&error).starts_with(&format!("cannot serve metrics by TLS on {address}: ")), "{error:?}");
    let gone = SecureArgs { metrics_tls_key: Some(directory.path().join("gone")), ..args };
    let error = serve(gone, Arc::default(), client, CancellationToken::new()).await.unwrap_err();
    assert!(error::chain(&error).starts_with("cannot read "), "{error:?}");
    server.end().await;
}
