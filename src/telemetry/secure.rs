//! `/metrics` by TLS, for callers that the cluster's RBAC lets GET the non-resource URL /metrics: Prometheus reaches it
//! from anywhere.
//!
//! A connection gets one answer and a time limit for the whole of it, and strangers have few places ([`Places`]).
//! [`super::access`] bounds the questions to the API server. A refusal explains nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Answer, Caller, Decision};
use super::review::review;
use super::{EXPOSITION_TYPE, exposition};
use crate::error;
use crate::server::certificate::{self, Certificate};
use crate::server::places::{Place, Places};

/// For a connection from its begin to its end: handshake, request, reviews, answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// For the handshake and the header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For both reviews. A scrape waits for 10 s by default.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// For a header. A token has one or two kilobytes.
const HEADER_BYTES: usize = 16 << 10;
const NAME: &str = "audit-operator-metrics";

/// Arguments of the programs that serve metrics by TLS.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SecureArgs {
    /// Address for /metrics by TLS, for callers that may GET the non-resource URL /metrics. Default: none.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_secure_listen: Option<SocketAddr>,
    /// Certificate chain (PEM) for --metrics-secure-listen. Read again when it changes. Default: a self-signed
    /// certificate, made at each start.
    #[arg(long, requires = "metrics_tls_key", requires = "metrics_secure_listen", value_name = "FILE")]
    pub metrics_tls_certificate: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "metrics_tls_certificate", value_name = "FILE")]
    pub metrics_tls_key: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot serve metrics by TLS on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    #[error("cannot make a certificate for metrics")]
    Make(#[source] rcgen::Error),
    #[error("cannot use the certificate that was made for metrics")]
    Use(#[source] rustls::Error),
}

enum Identity {
    Made(Arc<ServerConfig>),
    Files(Certificate),
}

impl Identity {
    fn new(args: &SecureArgs) -> Result<Self, Error> {
        match (&args.metrics_tls_certificate, &args.metrics_tls_key) {
            (Some(chain), Some(key)) => Ok(Self::Files(Certificate::read(chain, key)?)),
            _ => make_certificate().map(Self::Made),
        }
    }

    fn current(&self) -> Arc<ServerConfig> {
        match self {
            Self::Made(config) => config.clone(),
            Self::Files(certificate) => certificate.current(),
        }
    }
}

fn make_certificate() -> Result<Arc<ServerConfig>, Error> {
    let key = KeyPair::generate().map_err(Error::Make)?;
    let params = CertificateParams::new([NAME.to_string()]).map_err(Error::Make)?;
    let certificate = params.self_signed(&key).map_err(Error::Make)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key.into()).map_err(Error::Use)?))
}

struct Shared {
    identity: Identity,
    registry: Arc<Registry>,
    client: Client,
    access: Mutex<Access>,
}

/// Serves until `stop`; without an address, does nothing.
pub(super) async fn serve(
    args: SecureArgs,
    registry: Arc<Registry>,
    client: Client,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Some(address) = args.metrics_secure_listen else { return Ok(()) };
    let identity = Identity::new(&args)?;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen(address, source))?;
    let access = Mutex::new(Access::new(Instant::now()));
    accept(listener, Arc::new(Shared { identity, registry, client, access }), &stop).await;
    Ok(())
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: &CancellationToken) {
    let places = Arc::<Places>::default();
    // Dropped at the end with all that is open: a scrape is made again.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                let (place, evicts) = places.enter(peer.ip());
                let shared = shared.clone();
                connections.spawn(async move {
                    tokio::select! {
                        served = timeout(CONNECTION_TIMEOUT, answer_one(stream, &place, &shared)) => match served {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(error = error::chain(&*error), "connection for metrics"),
                            Err(_) => tracing::debug!("a connection for metrics did not end in time"),
                        },
                        () = place.leave() => tracing::debug!("evicted a connection for metrics"),
                    }
                });
                if evicts {
                    // Lets the evicted connection close its file before the next one is accepted.
                    tokio::task::yield_now().await;
                }
            }
            // Too many open files, or a client that has gone already: a connection that ends makes room.
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn answer_one(stream: TcpStream, place: &Place, shared: &Shared) -> Result<(), BoxError> {
    let handshake = TlsAcceptor::from(shared.identity.current()).accept(stream);
    let stream = timeout(HEADER_TIMEOUT, handshake).await??;
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request, place, shared).await));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

async fn answer<B>(request: &Request<B>, place: &Place, shared: &Shared) -> Response<String> {
    let refusal = if request.uri().path() != "/metrics" {
        StatusCode::NOT_FOUND
    } else if request.method() != Method::GET {
        StatusCode::METHOD_NOT_ALLOWED
    } else {
        match bearer(request.headers().get(header::AUTHORIZATION)) {
            None => StatusCode::UNAUTHORIZED,
            Some(token) => match shared.status(token).await {
                // From here on no stranger can take the place.
                StatusCode::OK if place.admit().is_ok() => return metrics(&shared.registry),
                StatusCode::OK => StatusCode::SERVICE_UNAVAILABLE,
                refusal => refusal,
            },
        }
    };
    let mut response = Response::new(format!("{}\n", refusal.canonical_reason().unwrap_or_default()));
    *response.status_mut() = refusal;
    response
}

fn metrics(registry: &Registry) -> Response<String> {
    let mut response = Response::new(exposition(registry));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EXPOSITION_TYPE));
    response
}

/// The scheme of HTTP has no case.
fn bearer(authorization: Option<&HeaderValue>) -> Option<&str> {
    let (scheme, token) = authorization?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl Shared {
    async fn status(&self, token: &str) -> StatusCode {
        let caller = Caller::of(token);
        let decision = self.access().decide(caller, Instant::now());
        let answer = match decision {
            Decision::Answered(answer) => Some(answer),
            Decision::AskApi => match timeout(REVIEW_TIMEOUT, review(&self.client, token)).await {
                Ok(Ok(answer)) => {
                    self.access().learn(caller, answer, Instant::now());
                    Some(answer)
                }
                Ok(Err(error)) => {
                    tracing::debug!(error = error::chain(&error), "cannot review a token for metrics");
                    None
                }
                Err(_) => {
                    tracing::debug!("the review of a token for metrics did not end in time");
                    None
                }
            },
            Decision::TooOften => None,
        };
        match (answer, decision) {
            (Some(Answer::Allowed), _) => StatusCode::OK,
            (Some(Answer::Forbidden), _) => StatusCode::FORBIDDEN,
            (Some(Answer::Unknown), _) => StatusCode::UNAUTHORIZED,
            (None, _) if self.access().is_still_allowed(caller, Instant::now()) => StatusCode::OK,
            (None, Decision::TooOften) => StatusCode::TOO_MANY_REQUESTS,
            (None, _) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn access(&self) -> std::sync::MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
