//! A small webhook target: an EventList in, a line an event out.
//!
//! For demos, tests, and for those who would otherwise write one. The answer never waits for the output: batches go through a queue,
//! bounded by its bytes, to a writer of their own, and when that is full they are counted as dropped rather than held, since
//! kube-apiserver piles up what is not answered. Asked to end, it answers what has begun and writes what waits.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

mod certificate;
mod line;
mod metrics;
mod output;
mod queue;
mod take;

use certificate::Certificate;
use metrics::Metrics;
use output::Output;
use queue::Queue;

/// Connections at a time: each kube-apiserver keeps one or two.
const CONNECTIONS: usize = 512;
/// Bodies that are read at a time.
const BODIES: usize = 2;
/// A client that does not finish its handshake holds nothing for longer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the next header of a connection. Longer than the 90 s for which a Go client keeps an idle one: a connection that is closed
/// under a request that was just sent costs its events.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// For a whole body; kube-apiserver itself gives up after 30 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// At the end, for requests that have begun, and then for the output.
const GRACE: Duration = Duration::from_secs(5);
/// Between tries of an output that fails.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);
/// Lines are written in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// Arguments of `audit-operator receiver`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Address to listen at.
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Certificate chain (PEM). Without it the receiver speaks plain http. Taken up anew when it changes.
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
    /// File that lines are appended to, opened anew when it was renamed; - is standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Largest body that is taken. kube-apiserver sends 40 MB with its default batch size and full events.
    #[arg(long, default_value_t = 64 * 1024 * 1024, value_name = "BYTES")]
    pub max_body_bytes: usize,
    /// Bytes that may wait for the output. Beyond them events are dropped and counted.
    #[arg(long, default_value_t = 64 * 1024 * 1024, value_name = "BYTES")]
    pub max_queue_bytes: usize,
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

struct Shared {
    args: Args,
    certificate: Option<Certificate>,
    queue: Queue,
    bodies: Semaphore,
    metrics: Metrics,
}

/// Serves until `stop`. `bound` is told the address, which matters where port 0 was asked for.
pub async fn run(args: Args, bound: impl FnOnce(SocketAddr), stop: CancellationToken) -> Result<(), Error> {
    let certificate = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some(Certificate::read(chain, key)?),
        _ => None,
    };
    let output = Output::open(&args.output).map_err(|error| Error::Output(args.output.clone(), error))?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| Error::Listen(args.listen, error))?;
    bound(listener.local_addr().map_err(|error| Error::Listen(args.listen, error))?);
    let shared = Arc::new(Shared {
        certificate,
        queue: Queue::new(args.max_queue_bytes),
        bodies: Semaphore::new(BODIES),
        metrics: Metrics::new(),
        args,
    });
    // A thread of its own: the runtime would wait for one of its own, and a write may never come back.
    let (done, written) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn({
        let (shared, stop) = (shared.clone(), stop.clone());
        move || {
            write(&shared, output, &stop);
            drop(done);
        }
    });
    let mut connections = accept(listener, &shared, &stop).await;
    let answered = async { while connections.join_next().await.is_some() {} };
    drop(timeout(GRACE, answered).await);
    shared.queue.close();
    if timeout(GRACE, written).await.is_err() {
        let events = shared.queue.events();
        shared.metrics.dropped("Ended", events);
        tracing::error!(events, "the output is stuck: events that wait for it are lost");
    }
    Ok(())
}

/// Takes connections until `stop`, and none after it; returns those that are open then.
async fn accept(listener: TcpListener, shared: &Arc<Shared>, stop: &CancellationToken) -> JoinSet<()> {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return connections,
            accepted = async {
                let permit = free.clone().acquire_owned().await.expect("it is never closed");
                listener.accept().await.map(|(stream, _)| (stream, permit))
            } => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, permit)) => {
                let (shared, stop) = (shared.clone(), stop.clone());
                connections.spawn(async move {
                    serve(stream, &shared, &stop).await;
                    drop(permit);
                });
            }
            // Too many open files, or a client that went at once: the next one may do better.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: &Arc<Shared>, stop: &CancellationToken) {
    let Some(certificate) = &shared.certificate else { return answer_all(stream, shared, stop).await };
    let acceptor = TlsAcceptor::from(certificate.current());
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => answer_all(stream, shared, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "handshake"),
        Err(_) => tracing::debug!("the handshake was not finished in time"),
    }
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) {
    let service =
        service_fn(|request| async { Ok::<_, std::convert::Infallible>(take::answer(request, shared).await) });
    let mut http = hyper::server::conn::http1::Builder::new();
    let connection = http
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection");
    }
}

/// Writes what is queued until the queue is closed and empty. An output that fails is tried again for as long as the program runs.
fn write(shared: &Shared, mut output: Output, stop: &CancellationToken) {
    let mut is_failing = false;
    while let Some(batch) = shared.queue.pop() {
        for piece in line::pieces(&batch.body, shared.args.format, PIECE_BYTES) {
            loop {
                let Err(error) = output.write(&piece.lines) else {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("the output takes events again");
                    }
                    break;
                };
                if error.kind() == io::ErrorKind::BrokenPipe {
                    // Who read it has gone, and nobody can come in his place.
                    tracing::info!("nobody reads standard output any more");
                    stop.cancel();
                    return;
                }
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "the output does not take events; it is tried again");
                }
                if shared.queue.pause(OUTPUT_RETRY) {
                    shared.metrics.dropped("OutputFailed", piece.events);
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
