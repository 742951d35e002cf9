//! A small webhook target: an EventList in, a line an event out.
//!
//! For demos, tests, and for those who would otherwise write one. Bodies are read as they arrive, event by event ([`scan`]), so that memory
//! is bounded whatever they look like ([`memory`]); who has not shown the token can hold up nobody who has ([`places`]). Lines go
//! through a queue, bounded by its bytes, to a writer of their own. When that does not keep up, events are counted as dropped rather
//! than held, since kube-apiserver piles up what is not answered. Asked to end, it answers what has begun and writes what waits.

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

mod certificate;
mod line;
mod listen;
mod memory;
mod metrics;
mod output;
mod places;
mod queue;
mod refused;
mod scan;
mod take;
mod token;

use certificate::Certificate;
use memory::Memory;
use metrics::Metrics;
use output::Output;
use places::{Place, Places};
use queue::Queue;
use token::Token;

/// For the handshake and the first header of a stranger.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(10);
/// For the next header of a connection. Longer than the 90 s for which a Go client keeps an idle one: a connection that is closed
/// under a request that was just sent costs its events.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// For a whole body; kube-apiserver itself gives up after 30 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// For the next byte of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a request that was refused, so much is still read, for so long: the client gets the answer and not a reset.
const DRAIN_BYTES: usize = 64 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that sends nothing for so long waits for the answer, or has it.
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// The answer to one batch waits so long for an output that is slow.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);
/// Lines go to the queue in pieces of about this size.
const PIECE_BYTES: usize = 64 << 10;
/// For one connection: headers, and what is read of a body at a time. A record of TLS has as much.
const CONNECTION_BUFFER_BYTES: usize = 16 << 10;
/// For all batches that are being read. With the queue (16 MiB) and [`places`] full of connections, 64 MiB are enough for the program.
const MEMORY_BYTES: usize = 12 << 20;
/// At the end, for requests that have begun, and then for the output.
const GRACE: Duration = Duration::from_secs(5);
/// Between tries of an output that fails.
const OUTPUT_RETRY: Duration = Duration::from_secs(1);

/// Arguments of `audit-operator receiver`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Address to listen on. Default: port 8443 of all addresses, IPv6 and IPv4, or IPv4 only if the kernel has no IPv6.
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
    /// What is written for an event.
    #[arg(long, value_enum, default_value_t = Format::Summary)]
    pub format: Format,
    /// File that lines are appended to, opened again after it was renamed; - is standard output.
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Largest body that is accepted. kube-apiserver sends 40 MB with its default batch size and full events.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    pub max_body_bytes: u64,
    /// Largest event that is written. A larger one is dropped and counted, and the rest of its batch is written.
    #[arg(long, default_value_t = 2 << 20, value_name = "BYTES")]
    pub max_event_bytes: usize,
    /// Bytes that may wait for the output. Beyond them events are dropped and counted.
    #[arg(long, default_value_t = 16 << 20, value_name = "BYTES")]
    pub max_queue_bytes: usize,
}

fn path(text: &str) -> Result<String, String> {
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(path) if text.starts_with('/') && path.query().is_none() => Ok(text.into()),
        _ => Err("a path begins with / and has no query".into()),
    }
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
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("cannot open {}", .0.display())]
    Output(PathBuf, #[source] io::Error),
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is empty: put the bearer token there", .0.display())]
    TokenEmpty(PathBuf),
    #[error("{} is not a PEM file of the expected kind", .0.display())]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    #[error("certificate and key do not belong together")]
    Tls(#[source] rustls::Error),
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

/// Serves until `stop`. `bound` is told the address, which matters where port 0 was asked for.
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
        // An event and its line fit twice at least, or two that are large would wait for each other.
        memory: Memory::new(MEMORY_BYTES.max(args.max_event_bytes.saturating_mul(4))),
        queue: Queue::new(args.max_queue_bytes),
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
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return connections,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, peer)) => {
                // An answer is one small write; nothing is gained by holding it back.
                drop(stream.set_nodelay(true));
                let (place, evicts) = shared.places.enter(peer.ip());
                let (shared, stop) = (shared.clone(), stop.clone());
                if evicts {
                    shared.metrics.stranger_evicted();
                }
                connections.spawn(async move { serve(stream, &place, &shared, &stop).await });
                if evicts {
                    // The one that has to leave closes its file before the next one comes.
                    tokio::task::yield_now().await;
                }
            }
            // A client that went at once.
            Err(error) if is_about_client(&error) => tracing::debug!(%error, "accept"),
            // Too many open files: there is room again once a connection ends.
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
    // The files of the certificate are read only for who begins a handshake.
    let handshake = async {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        begun.into_stream(certificate.current()).await
    };
    tokio::select! {
        shaken = timeout_at(deadline, handshake) => match shaken {
            Ok(Ok(stream)) => answer_all(stream, deadline, place, shared, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "handshake"),
            Err(_) => tracing::debug!("the handshake was not finished in time"),
        },
        () = place.leave() => tracing::debug!("a stranger left for another one, in its handshake"),
        () = stop.cancelled() => {}
    }
}

/// Answers the requests of a connection. A stranger has until `deadline` for its first header.
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
                    return tracing::debug!("a stranger left for another one");
                }
                is_leaving = true;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                if is_leaving || !place.has_asked() {
                    return tracing::debug!("no request came in time");
                }
                // What begins with a header has limits of its own.
                deadline = None;
                continue;
            }
        }
        // A request that has begun is answered first.
        connection.as_mut().graceful_shutdown();
        deadline = Some(Instant::now() + GRACE);
    }
}

/// Writes what is queued until the queue is closed and empty. An output that fails is tried again for as long as the program runs.
fn write(shared: &Shared, mut output: Output, stop: &CancellationToken) {
    let mut is_failing = false;
    while let Some(piece) = shared.queue.pop() {
        loop {
            let Err(error) = output.write(&piece.lines) else {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the output takes events again");
                }
                break;
            };
            if error.kind() == io::ErrorKind::BrokenPipe {
                // The reader has gone, and no other can take its place.
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

#[cfg(test)]
mod tests;
