//! A small webhook target: an EventList in, a line an event out.
//!
//! For demos, tests, and for those who would otherwise write one. The answer never waits for the output: events go through a bounded
//! queue to a writer of their own, and when that is full they are counted as dropped rather than held, since kube-apiserver
//! piles up what is not answered.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Batches that wait for the output.
const QUEUE: usize = 256;
/// A client that does not finish its handshake holds nothing for longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Arguments of `audit-operator receiver`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Address to listen at.
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Certificate chain (PEM). Without it the receiver speaks plain http. Read again for each connection.
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with the bearer token that clients must send. Read again for each request.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// What is written for an event.
    #[arg(long, value_enum, default_value_t = Format::Summary)]
    pub format: Format,
    /// File that lines are appended to; - is standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Largest body that is taken. kube-apiserver sends 40 MB with its default batch size and full events.
    #[arg(long, default_value_t = 64 * 1024 * 1024, value_name = "BYTES")]
    pub max_body_bytes: usize,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The main fields as key=value.
    Summary,
    /// The event as it came.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen at {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot open {}", .0.display())]
    Output(PathBuf, #[source] io::Error),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not a PEM file of the expected kind", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("certificate and key do not belong together")]
    Tls(#[source] rustls::Error),
}

/// What arrived.
#[derive(Default)]
struct Counts {
    batches: AtomicU64,
    events: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

struct Shared {
    args: Args,
    queue: SyncSender<Bytes>,
    counts: Counts,
}

/// Serves until `stop`. `bound` is told the address, which matters where port 0 was asked for.
pub async fn run(args: Args, bound: impl FnOnce(SocketAddr), stop: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(args.listen).await.map_err(|error| Error::Listen(args.listen, error))?;
    bound(listener.local_addr().map_err(|error| Error::Listen(args.listen, error))?);
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        // A mistake in the files is told at the start, not at the first connection.
        tls(cert, key)?;
    }
    let output: Box<dyn Write + Send> = if args.output == Path::new("-") {
        Box::new(io::stdout())
    } else {
        let file = File::options().create(true).append(true).open(&args.output);
        Box::new(file.map_err(|error| Error::Output(args.output.clone(), error))?)
    };
    let (queue, batches) = sync_channel(QUEUE);
    let format = args.format;
    std::thread::spawn(move || write_events(batches, output, format));
    let shared = Arc::new(Shared { args, queue, counts: Counts::default() });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, shared.clone()))),
            // Too many open files, or a client that went at once: the next one may do better.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(request, &shared).await) }
    });
    let http = hyper::server::conn::http1::Builder::new();
    let served = match (&shared.args.tls_cert, &shared.args.tls_key) {
        (Some(cert), Some(key)) => {
            // The files are read for each connection: a renewed certificate needs no restart.
            let acceptor = match tls(cert, key) {
                Ok(config) => TlsAcceptor::from(Arc::new(config)),
                Err(error) => return tracing::error!(error = crate::telemetry::chain(&error), "no TLS"),
            };
            match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => http.serve_connection(TokioIo::new(stream), service).await,
                Ok(Err(error)) => return tracing::debug!(%error, "handshake"),
                Err(_) => return tracing::debug!("handshake timed out"),
            }
        }
        _ => http.serve_connection(TokioIo::new(stream), service).await,
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection");
    }
}

fn tls(cert: &Path, key: &Path) -> Result<ServerConfig, Error> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Error::Read(path.into(), error));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
    let chain = chain.map_err(|error| Error::Pem(cert.into(), error))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| Error::Pem(key.into(), error))?;
    ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(Error::Tls)
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, text) = match take(request, shared).await {
        Ok(text) => (StatusCode::OK, text),
        Err((status, why)) => {
            shared.counts.refused.fetch_add(1, Ordering::Relaxed);
            (status, format!("{why}\n"))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

/// Takes one request, or says why not.
async fn take(request: Request<Incoming>, shared: &Shared) -> Result<String, (StatusCode, String)> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => return Ok("ok\n".into()),
        (&Method::GET, "/metrics") => return Ok(metrics(&shared.counts)),
        (&Method::POST, _) => {}
        _ => return Err((StatusCode::METHOD_NOT_ALLOWED, "POST an EventList of audit.k8s.io/v1".into())),
    }
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Some(file) = &shared.args.token_file {
        let token = std::fs::read_to_string(file)
            .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, "the token cannot be read".to_string()))?;
        let sent = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        if token.trim().is_empty() || !is_equal(sent.as_bytes(), token.trim().as_bytes()) {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is needed, and it is another one".into()));
        }
    }
    if !header("content-type").starts_with("application/json") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json".into()));
    }
    let body = Limited::new(request.into_body(), shared.args.max_body_bytes).collect().await;
    let body = body.map_err(|_| {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body was cut off or is larger than {} bytes", shared.args.max_body_bytes),
        )
    })?;
    let body = body.to_bytes();
    let list: EventList<'_> = serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("not an EventList: {error}")))?;
    if list.kind != "EventList" || list.api_version != "audit.k8s.io/v1" {
        return Err((StatusCode::BAD_REQUEST, "not an EventList of audit.k8s.io/v1".into()));
    }
    let events = list.items.len() as u64;
    shared.counts.batches.fetch_add(1, Ordering::Relaxed);
    shared.counts.events.fetch_add(events, Ordering::Relaxed);
    if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = shared.queue.try_send(body.clone()) {
        shared.counts.dropped.fetch_add(events, Ordering::Relaxed);
        tracing::warn!(events, "the output does not keep up: events are dropped");
    }
    Ok("ok\n".into())
}

/// Compares in a time that does not depend on where the texts differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn metrics(counts: &Counts) -> String {
    let line = |name: &str, help: &str, value: &AtomicU64| {
        let name = format!("audit_receiver_{name}_total");
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {}\n", value.load(Ordering::Relaxed))
    };
    [
        line("batches", "Requests that were taken.", &counts.batches),
        line("events", "Events that were taken.", &counts.events),
        line(
            "dropped_events",
            "Events that were taken and not written, since the output did not keep up.",
            &counts.dropped,
        ),
        line("refused", "Requests that were refused.", &counts.refused),
    ]
    .concat()
}

#[derive(Deserialize)]
struct EventList<'a> {
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The fields of an event that a summary shows.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    stage_timestamp: String,
    level: String,
    stage: String,
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    response_status: Status,
    #[serde(rename = "auditID")]
    audit_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Option<u16>,
}

fn write_events(batches: Receiver<Bytes>, mut output: Box<dyn Write + Send>, format: Format) {
    for body in batches {
        let list: EventList<'_> = serde_json::from_slice(&body).expect("it was read when it was taken");
        let lines: String = list.items.iter().map(|event| line(event, format)).collect();
        if let Err(error) = output.write_all(lines.as_bytes()).and_then(|()| output.flush()) {
            tracing::error!(%error, "cannot write events");
        }
    }
}

fn line(event: &RawValue, format: Format) -> String {
    // Line ends in JSON can only stand between tokens: without them it is the same event.
    let whole = || format!("{}\n", event.get().replace(['\n', '\r'], " "));
    if format == Format::Json {
        return whole();
    }
    let Ok(event) = serde_json::from_str::<Event>(event.get()) else { return whole() };
    let code = event.response_status.code.map_or_else(|| "-".to_string(), |code| code.to_string());
    format!(
        "{} level={} stage={} verb={} user={} uri={} code={code} auditID={}\n",
        safe(&event.stage_timestamp),
        safe(&event.level),
        safe(&event.stage),
        safe(&event.verb),
        safe(&event.user.username),
        safe(&event.request_uri),
        safe(&event.audit_id)
    )
}

/// Whoever makes a request chooses some of these texts: none may end the line or pretend to be another field.
fn safe(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '"');
    if is_plain { text.to_string() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/pods?limit=5","verb":"list",
        "user":{"username":"eve\nlevel=None"},"responseStatus":{"code":200},"stageTimestamp":"2026-11-21T00:00:00.000000Z"}"#;

    #[test]
    fn a_summary_is_one_line_whatever_a_client_puts_into_its_name() {
        let event: &RawValue = serde_json::from_str(EVENT).unwrap();
        assert_eq!(
            line(event, Format::Summary),
            "2026-11-21T00:00:00.000000Z level=Metadata stage=ResponseComplete verb=list user=\"eve\\nlevel=None\" uri=/api/v1/pods?limit=5 code=200 auditID=a-1\n"
        );
        assert_eq!(line(event, Format::Json).matches('\n').count(), 1);
    }

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(is_equal(b"secret", b"secret"));
        for other in ["", "secre", "secret ", "Secret"] {
            assert!(!is_equal(other.as_bytes(), b"secret"), "{other:?}");
        }
    }
}
