//! The receiver on loopback, as kube-apiserver and less friendly clients meet it.

use std::path::Path;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::node::files::Host;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

struct Receiver {
    address: SocketAddr,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Receiver {
    async fn start(change: impl FnOnce(&mut Args, &Path)) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let directory = tempfile::tempdir().unwrap();
        let mut args = Args {
            listen: Some(([127, 0, 0, 1], 0).into()),
            path: None,
            tls_cert: None,
            tls_key: None,
            token_file: None,
            format: Format::Json,
            output: directory.path().join("out"),
            max_body_bytes: 4096,
            max_event_bytes: 4096,
            max_queue_bytes: 1 << 20,
        };
        change(&mut args, directory.path());
        let (sender, address) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(run(args, |address| sender.send(address).unwrap(), stop.clone()));
        Self { address: address.await.unwrap(), directory, stop, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request as it stands and returns the whole answer.
    async fn raw(&self, request: &str) -> String {
        exchange(self.connect().await, request).await
    }

    async fn post(&self, body: &str, headers: &str) -> String {
        self.raw(&post(body, headers)).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    async fn metric(&self, line: &str) -> bool {
        self.raw("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.lines().any(|have| have == line)
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        timeout(LIMIT, self.ended).await.expect("it ends").unwrap().unwrap();
        self.directory
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    // A server that refuses early may have closed its side.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer"));
    String::from_utf8(answer).unwrap()
}

fn post(body: &str, headers: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

fn list(events: &[&str]) -> String {
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#, events.join(","))
}

fn event(id: u32) -> String {
    format!(r#"{{"level":"Metadata","stage":"ResponseComplete","auditID":"{id}","user":{{"username":"a\nb"}}}}"#)
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, met).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn events_come_out_in_their_order_a_line_each() {
    let receiver = Receiver::start(|_, _| ()).await;
    for batch in [[1, 2], [3, 4]] {
        let [one, two] = batch.map(event);
        let answer = receiver.post(&list(&[&one, &format!("\n{two}\r\n")]), JSON).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(receiver.metric(r#"audit_receiver_events_total{level="Metadata",stage="ResponseComplete"} 4"#).await);
    assert!(receiver.metric("audit_receiver_batches_total 2").await);
    let directory = receiver.end().await;
    let output = std::fs::read_to_string(directory.path().join("out")).unwrap();
    let ids: Vec<&str> = output.lines().map(|line| line.split('"').nth(11).unwrap()).collect();
    assert_eq!(ids, ["1", "2", "3", "4"], "{output}");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_its_reason() {
    let receiver = Receiver::start(|_, _| ()).await;
    let good = list(&[&event(1)]);
    let large = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{JSON}");
    for (request, status, text) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_string(), "405", "POST an EventList"),
        (post(&good, "Content-Type: text/plain\r\n"), "415", "Content-Type must be application/json"),
        (post(&good, &format!("{JSON}Content-Encoding: gzip\r\n")), "415", "Content-Encoding is not supported"),
        (format!("{large}Content-Length: 4097\r\n\r\n"), "413", "larger than 4096 bytes"),
        (format!("{large}Transfer-Encoding: chunked\r\n\r\n2000\r\n{}\r\n", "x".repeat(0x2000)), "413", "4096"),
        (post("{\"kind\":", JSON), "400", "not an EventList: the JSON ends too early, at byte 8"),
        (post(&list(&[&event(1), "0"]), JSON), "400", "not an EventList: items[1] is not a JSON object"),
        (post("[]", JSON), "400", "not an EventList: "),
        (post(&good.replace("audit.k8s.io/v1", "v1"), JSON), "400", "apiVersion must be audit.k8s.io/v1"),
        (post(&good.replace("EventList", "List"), JSON), "400", "kind must be EventList"),
    ] {
        let answer = receiver.raw(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text), "{request}\n{answer}");
    }
    let answer = receiver.raw("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("allow: POST"), "{answer}");
    assert!(receiver.metric(r#"audit_receiver_refused_total{reason="Malformed"} 3"#).await);
    assert_eq!(receiver.output(), "");
    receiver.end().await;
}

#[tokio::test]
async fn batches_go_to_one_path_where_there_is_one() {
    let receiver = Receiver::start(|args, _| args.path = Some("/audit".into())).await;
    let batch = post(&list(&[&event(1)]), JSON);
    let answer = receiver.raw(&batch).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("POST to /audit (--path)"), "{answer}");
    let answer = receiver.raw(&batch.replacen("POST /", "POST /audit?timeout=30s", 1)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = receiver.raw("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(path("audit").is_err() && path("/a b").is_err() && path("/a?b").is_err() && path("/a/b").is_ok());
    receiver.end().await;
}

#[tokio::test]
async fn an_event_that_is_too_large_is_dropped_and_the_rest_of_its_batch_is_written() {
    let receiver = Receiver::start(|args, _| args.max_event_bytes = 100).await;
    let large = format!(r#"{{"auditID":"{}"}}"#, "x".repeat(100));
    let answer = receiver.post(&list(&[&event(1), &large, &event(2)]), JSON).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(receiver.metric(r#"audit_receiver_dropped_events_total{reason="TooLarge"} 1"#).await);
    until("two lines", async || receiver.output().lines().count() == 2).await;
    receiver.end().await;
}

#[tokio::test]
async fn a_connection_stays_only_for_who_has_shown_the_token() {
    let receiver = Receiver::start(|args, directory| {
        Host::open(directory).unwrap().replace("/token", b"secret", 0o600).unwrap();
        args.token_file = Some(directory.join("token"));
    })
    .await;
    for (request, stays) in [
        ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), false),
        ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".to_string(), false),
        (post(&list(&[]), JSON).replace("Connection: close\r\n", ""), false),
        (post(&list(&[]), "Authorization: Bearer secret\r\n").replace("Connection: close\r\n", ""), true),
    ] {
        let mut stream = receiver.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        if stays {
            let mut answer = [0; 15];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            assert!(receiver.metric(r#"audit_receiver_connections{group="known"} 1"#).await);
        } else {
            assert!(exchange(stream, "").await.contains("connection: close"), "{request}");
        }
    }
    receiver.end().await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_an_event() {
    let receiver = Receiver::start(|_, _| ()).await;
    let body = list(&[&event(1)]);
    let mut stream = receiver.connect().await;
    let whole = post(&body, JSON);
    stream.write_all(&whole.as_bytes()[..whole.len() - 10]).await.unwrap();
    stream.shutdown().await.unwrap();
    until("the refusal counted", async || receiver.metric(r#"audit_receiver_refused_total{reason="Cut"} 1"#).await)
        .await;
    assert_eq!(receiver.output(), "");
    receiver.end().await;
}

#[tokio::test]
async fn the_token_is_needed_and_may_change() {
    let receiver = Receiver::start(|args, directory| {
        Host::open(directory).unwrap().replace("/token", b"first\n", 0o600).unwrap();
        args.token_file = Some(directory.join("token"));
    })
    .await;
    let body = list(&[&event(1)]);
    let with = |token: &str| post(&body, &format!("{JSON}Authorization: Bearer {token}\r\n"));
    for request in [post(&body, JSON), with("second"), with("firs"), with("")] {
        let answer = receiver.raw(&request).await;
        assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Bearer"), "{answer}");
    }
    assert!(receiver.raw(&with("first")).await.starts_with("HTTP/1.1 200 "));
    Host::open(receiver.directory.path()).unwrap().replace("/token", b"second", 0o600).unwrap();
    assert!(receiver.raw(&with("first")).await.starts_with("HTTP/1.1 401 "));
    assert!(receiver.raw(&with("second")).await.starts_with("HTTP/1.1 200 "));
    Host::open(receiver.directory.path()).unwrap().replace("/token", b"", 0o600).unwrap();
    assert!(receiver.raw(&with("")).await.starts_with("HTTP/1.1 401 "), "an empty token opens nothing");
    receiver.end().await;
}

/// A new certificate for `sink.test`, put in place; returned as the root that a client trusts.
fn renew(directory: &Path) -> rustls::RootCertStore {
    let made = rcgen::generate_simple_self_signed(vec!["sink.test".to_string()]).unwrap();
    let host = Host::open(directory).unwrap();
    host.replace("/tls.crt", made.cert.pem().as_bytes(), 0o600).unwrap();
    host.replace("/tls.key", made.signing_key.serialize_pem().as_bytes(), 0o600).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

async fn tls(receiver: &Receiver, roots: &rustls::RootCertStore) -> io::Result<String> {
    let config = rustls::ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from("sink.test").unwrap(), receiver.connect().await).await?;
    Ok(exchange(stream, &post(&list(&[&event(1)]), JSON)).await)
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let mut first = None;
    let receiver = Receiver::start(|args, directory| {
        first = Some(renew(directory));
        (args.tls_cert, args.tls_key) = (Some(directory.join("tls.crt")), Some(directory.join("tls.key")));
    })
    .await;
    let first = first.unwrap();
    assert!(tls(&receiver, &first).await.unwrap().starts_with("HTTP/1.1 200 "));
    let mut plain = receiver.connect().await;
    plain.write_all(post("{}", JSON).as_bytes()).await.unwrap();
    let mut alert = [0; 1];
    plain.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert, [21], "plain http is answered with an alert of TLS");
    let second = renew(receiver.directory.path());
    assert!(tls(&receiver, &second).await.unwrap().starts_with("HTTP/1.1 200 "));
    assert!(tls(&receiver, &first).await.is_err());
    Host::open(receiver.directory.path()).unwrap().replace("/tls.key", b"nothing", 0o600).unwrap();
    assert!(tls(&receiver, &second).await.is_ok(), "the last good pair serves on");
    receiver.end().await;
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    drop(rustls::crypto::ring::default_provider().install_default());
    renew(directory.path());
    let (chain, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    let read = |what: &str, content: &[u8]| {
        Host::open(directory.path()).unwrap().replace(what, content, 0o600).unwrap();
        Certificate::read(&chain, &key).map(|_| ()).unwrap_err().to_string()
    };
    let other = rcgen::KeyPair::generate().unwrap();
    assert!(PrivateKeyDer::try_from(other.serialize_der()).is_ok());
    assert_eq!(
        read("/tls.key", other.serialize_pem().as_bytes()),
        "the certificate and the key do not belong together"
    );
    assert!(read("/tls.key", b"nothing").ends_with("tls.key is not a PEM file of the expected kind"));
    std::fs::remove_file(&chain).unwrap();
    assert!(read("/tls.key", b"x").starts_with("cannot read "));
}

#[tokio::test]
async fn an_output_that_stands_still_holds_no_answer_and_bounds_the_memory() {
    // A FIFO that nobody reads takes 64 KiB and then no more.
    let receiver = Receiver::start(|args, directory| {
        rustix::fs::mkfifoat(rustix::fs::CWD, directory.join("out"), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
            .unwrap();
        args.max_queue_bytes = 100_000;
        // Opening it for both ends does not wait.
        drop(
            std::thread::spawn({
                let path = directory.join("out");
                move || drop(std::fs::File::options().read(true).write(true).open(path).map(std::mem::forget))
            })
            .join(),
        );
    })
    .await;
    let body = list(&[&format!(r#"{{"level":"Metadata","filler":"{}"}}"#, "x".repeat(3500))]);
    until("a full queue", async || {
        assert!(receiver.post(&body, JSON).await.starts_with("HTTP/1.1 200 "));
        receiver.metric(r#"audit_receiver_dropped_events_total{reason="QueueFull"} 3"#).await
    })
    .await;
    receiver.stop.cancel();
    let begin = std::time::Instant::now();
    timeout(LIMIT, receiver.ended).await.expect("a stuck output does not hold the end").unwrap().unwrap();
    assert!(begin.elapsed() >= GRACE, "the output was given its time");
}

#[tokio::test]
async fn what_waits_at_the_end_is_written() {
    let receiver = Receiver::start(|_, _| ()).await;
    // A request that has begun when the end is asked for.
    let mut stream = receiver.connect().await;
    let whole = post(&list(&[&event(7)]), &format!("{JSON}Expect: 100-continue\r\n"));
    let (head, rest) = whole.split_at(whole.len() - 5);
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 12];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100");
    receiver.stop.cancel();
    until("no new connection", async || TcpStream::connect(receiver.address).await.is_err()).await;
    let answer = exchange(stream, rest).await;
    assert!(answer.contains("HTTP/1.1 200 "), "{answer}");
    let directory = receiver.end().await;
    assert!(std::fs::read_to_string(directory.path().join("out")).unwrap().contains(r#""auditID":"7""#));
}
