//! A small webhook target: an EventList in, one line per event out.
//!
//! For demos, for tests, and instead of writing your own. It reads bodies as they arrive, event by event ([`scan`]), so
//! memory is bounded for any input ([`memory`]). A client without the token cannot hold up a client with it
//! ([`Places`]). Lines go through a queue, bounded by its bytes, to a writer thread. If the writer does not keep up,
//! events are counted as dropped and not held, because kube-apiserver queues batches that are not answered. At the end
//! it answers the open requests and writes the queue.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;

use crate::server::certificate::{self, Certificate};
use crate::server::places::{Place, Places};

mod line;
mod listen;
mod memory;
mod metrics;
mod output;
mod queue;
mod rejection;
mod scan;
mod take;
mod token;

use memory::Memory;
use metrics::Metrics;
use output::Output;
use queue::Queue;
use token::Token;

/// Limit for the handshake and the first header of a client without the token.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for the next header of a connection. Longer than the 90 s for which a Go client keeps an idle one: closing a
/// connection while a request is on its way loses its events.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Limit for a whole body; kube-apiserver gives up after 30 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Limit for the next byte of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a rejected request is still read, and for how long, so that the client gets the answer and not a reset.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that sends nothing for this time waits for the answer, or has it.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the answer to one batch waits for a slow output.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// Lines go to the queue in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// Buffer of one connection, for headers and parts of a body. The size of a TLS record.
const CONNECTION_BUFFER_BYTES: usize = 16 << 10;
/// Memory for all batches that are being read. With a full queue (16 MiB) and all [`Places`] taken, the program stays
/// below 64 MiB.
const MEMORY_BYTES: usize = 12 << 20;
/// Limit at the end for open requests, and then for the output.
const GRACE: Duration = Duration::from_secs(5);
/// Pause before a failed output is tried again.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// Arguments of `audit-operator receiver`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Address to listen on. Default: port 8443 of all addresses, IPv6 and IPv4, or IPv4 only if the kernel has no
    /// IPv6.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Accept batches at this path only. Default: at any path.
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub path: Option<String>,
    /// Certificate chain (PEM). Without it the receiver speaks plain HTTP. Read again when it changes.
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with the bearer token that clients must send. Read again for each request. Without it anyone may post.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Form of the line of an event.
    #[arg(long, value_enum, default_value_t = Format::Summary)]
    pub format: Format,
    /// File that lines are appended to, opened again after it was renamed; - is standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Largest accepted body. kube-apiserver sends up to 40 MB with its default batch size and full events.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_body_bytes: u64,
    /// Largest event that is written. A larger one is dropped and counted; the rest of its batch is written.
    #[arg(long, default_value_t = 2 << 20, value_name = "BYTES")]
    pub max_event_bytes: usize,
    /// Bytes that may wait for the output. Beyond them events are dropped and counted.
    #[arg(long, default_value_t = 16 << 20, value_name = "BYTES")]
    pub max_queue_bytes: usize,
}

fn path(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(path) if text.starts_with('/') && path.query().is_none() => Ok(text.into()),
        _ => Err("a path must begin with / and have no query".into()),
    }
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The main fields as key=value.
    Summary,
    /// The event as it arrived.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot open {}", .0.display())]
    Output(PathBuf, #[source] io::Error),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("the token file {} is empty: put the bearer token there", .0.display())]
    TokenEmpty(PathBuf),
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

struct Shared {
    args: Args,
    certificate: Option<Certificate>,
    token: Option<Token>,
    places: Arc<Places>,
    memory: Memory,
    queue: Queue,
    metrics: Metrics,
}

/// Serves until `stop`. `bound` gets the address, which a caller with port 0 needs.
pub async fn run(args: Args, bound: impl FnOnce(SocketAddr), stop: CancellationToken) -> Result<(), Error> {
    let certificate = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some(Certificate::read(chain, key)?),
        _ => None,
    };
    let token = args.token_file.as_deref().map(Token::open).transpose()?;
    let output = Output::open(&args.output).map_err(|error| Error::Output(args.output.clone(), error))?;
    let listener = listen::listen(args.listen)?;
    bound(listener.local_addr().expect("a listener has an address"));
    let shared = Arc::new(Shared {
        certificate,
        token,
        places: Arc::default(),
        // Room for at least two events with their lines, or two large ones would wait for each other.
        memory: Memory::new(MEMORY_BYTES.max(args.max_event_bytes.saturating_mul(4))),
        queue: Queue::new(args.max_queue_bytes),
        metrics: Metrics::new(),
        args,
    });
    // Not a thread of the runtime, which waits for its threads at the end: a write may block for ever.
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
        tracing::error!(events, "the output is stuck; the queued events are lost");
    }
    Ok(())
}

/// Accepts connections until `stop`, and returns those that are open then.
async fn accept(listener: TcpListener, shared: &Arc<Shared>, stop: &CancellationToken) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return connections,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                // An answer is one small write: delaying it gains nothing.
                drop(stream.set_nodelay(true));
                let (place, evicts) = shared.places.enter(peer.ip());
                let (shared, stop) = (shared.clone(), stop.clone());
                if evicts {
                    shared.metrics.stranger_evicted();
                }
                connections.spawn(async move { serve(stream, &place, &shared, &stop).await });
                if evicts {
                    // Lets the evicted connection close its file before the next one is accepted.
                    tokio::task::yield_now().await;
                }
            }
            // The client has closed the connection already.
            Err(error) if is_about_client(&error) => tracing::debug!(%error, "accept"),
            // Too many open files: a connection that ends makes room.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn is_about_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve(stream: TcpStream, place: &Place, shared: &Arc<Shared>, stop: &CancellationToken) {
    let deadline = Instant::now() + STRANGER_TIMEOUT;
    let Some(certificate) = &shared.certificate else { return answer_all(stream, deadline, place, shared, stop).await };
    // The certificate files are read only once a handshake begins.
    let handshake = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        begun.into_stream(certificate.current()).await
    };
    tokio::select! {
        shaken = timeout_at(deadline, handshake) => match shaken {
            Ok(Ok(stream)) => answer_all(stream, deadline, place, shared, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "handshake"),
            Err(_) => tracing::debug!("the handshake did not finish in time"),
        },
        () = place.leave() => tracing::debug!("evicted a connection without the token, in its handshake"),
        () = stop.cancelled() => {}
    }
}

/// Answers the requests of a connection. Without the token, its first header must arrive by `deadline`.
async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    deadline: Instant,
    place: &Place,
    shared: &Arc<Shared>,
    stop: &CancellationToken,
) {
    let service =
        service_fn(|request| async { Ok::<_, std::convert::Infallible>(take::answer(request, shared, place).await) });
    let mut http = hyper::server::conn::http1::Builder::new();
    let connection = http
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut deadline = Some(deadline);
    let mut is_leaving = false;
    loop {
        tokio::select! {
            served = &mut connection => {
                if let Err(error) = served {
                    tracing::debug!(%error, "connection");
                }
                return;
            }
            () = stop.cancelled(), if !is_leaving => is_leaving = true,
            () = place.leave(), if !is_leaving => {
                if !place.is_known() {
                    return tracing::debug!("evicted a connection without the token");
                }
                is_leaving = true;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                if is_leaving || !place.has_asked() {
                    return tracing::debug!("no request came in time");
                }
                // A request that has begun has its own limits.
                deadline = None;
                continue;
            }
        }
        // An open request is answered first.
        connection.as_mut().graceful_shutdown();
        deadline = Some(Instant::now() + GRACE);
    }
}

/// Writes the queue until it is closed and empty. A failed output is tried again as long as the program runs.
fn write(shared: &Shared, mut output: Output, stop: &CancellationToken) {
    let mut is_failing = false;
    while let Some(piece) = shared.queue.pop() {
        loop {
            let Err(error) = output.write(&piece.lines) else {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the output works again");
                }
                break;
            };
            if error.kind() == io::ErrorKind::BrokenPipe {
                // The reader has closed the pipe, and no other can replace it.
                tracing::info!("standard output is closed; exiting");
                stop.cancel();
                return;
            }
            if !std::mem::replace(&mut is_failing, true) {
                tracing::error!(%error, "cannot write to the output; retrying");
            }
            if shared.queue.pause(OUTPUT_RETRY) {
                shared.metrics.dropped("OutputFailed", piece.events);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;
