//! Logs, and the small HTTP server for metrics and health that the controller and the agent have in common.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging to standard error. `filter` is a level, or directives as `info,kube=debug`.
pub fn init(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = filter.parse()?;
    // Watches that break are taken up again; a broken one is told by who needs it, once.
    let filter = filter.add_directive("kube_runtime=error".parse()?).add_directive("kube_client=off".parse()?);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// A loop that has not completed a pass for so long hangs: a pass is made every minute at least, and mostly waits for a request to the
/// Kubernetes API.
const HANGS_AFTER: Duration = Duration::from_secs(5 * 60);

/// What /healthz and /readyz say of a program. The program is its loop: what the loop does not tell is not known.
#[derive(Clone, Debug)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    /// When the last pass ended; at first, when the loop began.
    passed: Mutex<Instant>,
    is_ready: AtomicBool,
}

impl Health {
    /// The loop begins now, and has that long for its first pass.
    pub fn begin() -> Self {
        Self(Arc::new(State { passed: Mutex::new(Instant::now()), is_ready: AtomicBool::new(false) }))
    }

    /// A pass ended, whether it failed or not.
    pub fn passed(&self) {
        *self.0.passed.lock().expect("nobody panics with this lock") = Instant::now();
    }

    /// The program does what it is there for. It stays ready: what fails later is told by status and metrics, and an API that
    /// is away must not make its own operator look broken.
    pub fn ready(&self) {
        self.0.is_ready.store(true, Ordering::Relaxed);
    }

    fn healthz(&self, now: Instant) -> Answer {
        let passed = *self.0.passed.lock().expect("nobody panics with this lock");
        match now.saturating_duration_since(passed) {
            since if since <= HANGS_AFTER => (StatusCode::OK, "ok\n".into()),
            since => {
                (StatusCode::SERVICE_UNAVAILABLE, format!("the main loop has not run for {} s\n", since.as_secs()))
            }
        }
    }

    fn readyz(&self) -> Answer {
        if self.0.is_ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n".into())
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "no pass has completed yet\n".into())
        }
    }
}

type Answer = (StatusCode, String);

#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics and health on {address}")]
pub struct ServeError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Serves /metrics, /healthz and /readyz until `stop`.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    health: Health,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let served = async {
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, router(registry, health)).with_graceful_shutdown(stop.cancelled_owned()).await
    };
    served.await.map_err(|source| ServeError { address, source })
}

fn router(registry: Registry, health: Health) -> Router {
    let registry = Arc::new(registry);
    let metrics = move || {
        let registry = registry.clone();
        async move { ([("content-type", EXPOSITION_TYPE)], exposition(&registry)) }
    };
    let for_healthz = health.clone();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async move || for_healthz.healthz(Instant::now())))
        .route("/readyz", get(async move || health.readyz()))
}

/// Content type of [`exposition`].
pub const EXPOSITION_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as OpenMetrics text.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    let written = prometheus_client::encoding::text::encode(&mut text, registry);
    written.expect("a String takes what is written");
    text
}

/// Prints an error with its sources: `a: b: c`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    struct Chain<'a>(&'a (dyn std::error::Error + 'static));
    impl fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}", self.0)?;
            let mut source = self.0.source();
            while let Some(error) = source {
                write!(f, ": {error}")?;
                source = error.source();
            }
            Ok(())
        }
    }
    Chain(error).to_string()
}

/// The last error of something that is tried again and again: it is logged when it changes.
#[derive(Debug, Default)]
pub struct LastError(Option<String>);

impl LastError {
    /// The error with its sources, unless it is the last one again.
    pub fn changed(&mut self, error: &(dyn std::error::Error + 'static)) -> Option<&str> {
        let error = chain(error);
        if self.0.as_ref() == Some(&error) {
            return None;
        }
        Some(self.0.insert(error))
    }

    /// It went well.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_loop_that_does_not_come_round_is_not_healthy() {
        let health = Health::begin();
        let now = Instant::now();
        assert_eq!(health.healthz(now).0, StatusCode::OK);
        let (status, text) = health.healthz(now + Duration::from_secs(301));
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("the main loop has not run for 30"), "{text}");
        *health.0.passed.lock().unwrap() = now + Duration::from_secs(200);
        assert_eq!(health.healthz(now + Duration::from_secs(301)).0, StatusCode::OK);
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_program_is_ready_when_it_says_so_and_its_metrics_are_served_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        registry.register("answer", "A number", prometheus_client::metrics::gauge::ConstGauge::new(42_i64));
        let health = Health::begin();
        let server = tokio::spawn(axum::serve(listener, router(registry, health.clone())).into_future());
        assert!(get(address, "/metrics").await.contains("\nanswer 42\n"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("no pass has completed"), "{answer}");
        health.ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve(address, Registry::default(), Health::begin(), CancellationToken::new()).await.unwrap_err();
        assert!(chain(&error).starts_with(&format!("cannot serve metrics and health on {address}: ")), "{error:?}");
    }
}
