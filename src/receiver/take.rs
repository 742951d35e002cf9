//! One request in; accepted, or rejected with a reason.
//!
//! *Flow*: check the client, then the request, then the body as it arrives. Each event is found, checked and turned
//! into a line; lines go to the queue in pieces.
//!
//! *Guarantees*: a body that is rejected before its lines reach [`PIECE_BYTES`] leaves nothing in the output.
//!
//! *Caveats*: a longer body that turns out to be cut off or malformed is written in part. kube-apiserver sends such a
//! batch again, so its events may be written twice: `auditID` and `stage` identify them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::metrics::{EventLabels, Gauges};
use super::queue::{Piece, Pushed};
use super::rejection::Rejection;
use super::scan::{Malformed, Scanned, Scanner};
use super::{
    BODY_TIMEOUT, DRAIN_BYTES, DRAIN_IDLE_TIMEOUT, DRAIN_TIMEOUT, IDLE_TIMEOUT, PIECE_BYTES, QUEUE_PATIENCE, Shared,
    line,
};
use crate::server::places::Place;
use crate::telemetry::EXPOSITION_TYPE;

pub(super) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>, place: &Place) -> Response<Full<Bytes>> {
    place.ask();
    let (head, mut body) = request.into_parts();
    let mut answer = match (&head.method, head.uri.path()) {
        (&Method::GET, "/healthz" | "/readyz") => text(StatusCode::OK, "ok\n"),
        (&Method::GET, "/metrics") => {
            let mut answer = text(StatusCode::OK, shared.metrics.text(now(shared)));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EXPOSITION_TYPE));
            answer
        }
        _ => match take(&head, &mut body, shared, place).await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(refused) => {
                shared.metrics.refused(refused.reason());
                if refused.is_worth_draining() && !body.is_end_stream() {
                    // Concurrently with the answer. Otherwise the kernel would answer further bytes with a reset, and
                    // many clients would see that instead of the answer.
                    tokio::spawn(timeout(DRAIN_TIMEOUT, drain(body)));
                }
                let mut answer = text(refused.status(), format!("{refused}\n"));
                if let Some((name, value)) = explain(refused.status()) {
                    answer.headers_mut().insert(name, HeaderValue::from_static(value));
                }
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                answer
            }
        },
    };
    place.rest(Instant::now());
    if !place.is_known() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

fn now(shared: &Shared) -> Gauges {
    Gauges {
        queue_bytes: shared.queue.bytes(),
        reading_bytes: shared.memory.used(),
        connections: shared.places.counts(),
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// The header that belongs to a status.
fn explain(status: StatusCode) -> Option<(HeaderName, &'static str)> {
    match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
        _ => None,
    }
}

/// Reads the rest of a body and discards it, up to a limit.
async fn drain(mut body: Incoming) {
    let mut left = DRAIN_BYTES;
    while let Ok(Some(Ok(frame))) = timeout(DRAIN_IDLE_TIMEOUT, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
        // Lets other connections run.
        tokio::task::yield_now().await;
    }
}

async fn take(head: &request::Parts, body: &mut Incoming, shared: &Shared, place: &Place) -> Result<(), Rejection> {
    if head.method != Method::POST {
        return Err(Rejection::Method);
    }
    let header = |name| head.headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // Before the body: a client without the token costs no memory.
    if let Some(token) = &shared.token {
        match token.is_shown(header(AUTHORIZATION).unwrap_or_default()) {
            Ok(true) => admit(shared, place)?,
            Ok(false) => return Err(Rejection::Token),
            Err(_) => return Err(Rejection::TokenUnreadable),
        }
    }
    if let Some(path) = shared.args.path.as_ref().filter(|path| *path != head.uri.path()) {
        return Err(Rejection::Path { path: path.clone() });
    }
    if header(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Rejection::ContentEncoding);
    }
    let is_json = |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if !header(CONTENT_TYPE).is_none_or(is_json) {
        return Err(Rejection::ContentType);
    }
    let max_bytes = shared.args.max_body_bytes;
    if header(CONTENT_LENGTH).and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > max_bytes) {
        return Err(Rejection::TooLarge { max_bytes });
    }
    read(body, shared).await?;
    shared.metrics.batch();
    if shared.token.is_none() {
        // Without a token, a client is known once it has sent a batch. If there is no place, the connection ends with
        // the answer.
        drop(admit(shared, place));
    }
    Ok(())
}

fn admit(shared: &Shared, place: &Place) -> Result<(), Rejection> {
    let evicts = place.admit().map_err(|_| Rejection::Busy)?;
    if evicts {
        shared.metrics.known_evicted();
    }
    Ok(())
}

/// Reads a body to its end, and passes its lines on as they are made.
async fn read(body: &mut Incoming, shared: &Shared) -> Result<(), Rejection> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let share = shared.memory.share(Instant::now());
    let mut scanner = Scanner::new(shared.args.max_event_bytes);
    let mut batch = Batch::new(shared);
    let mut read_bytes = 0;
    loop {
        let limit = deadline.min(Instant::now() + IDLE_TIMEOUT);
        let frame = tokio::select! {
            biased;
            () = share.given_up() => return Err(Rejection::Busy),
            frame = timeout_at(limit, body.frame()) => frame,
        };
        let data = match frame {
            Err(_) if limit == deadline => return Err(Rejection::Slow),
            Err(_) => return Err(Rejection::Stalled),
            Ok(Some(Err(_))) => return Err(Rejection::Cut { bytes: read_bytes }),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(None) => break,
        };
        share.moved(data.len(), Instant::now());
        read_bytes += data.len() as u64;
        if read_bytes > shared.args.max_body_bytes {
            return Err(Rejection::TooLarge { max_bytes: shared.args.max_body_bytes });
        }
        // Twice: an event, and its line.
        let needed = 2 * scanner.held_bytes_after(data.len()) + batch.held_bytes();
        share.resize(needed).await.map_err(|_| Rejection::Busy)?;
        let mut rest = &data[..];
        while let Some(found) = scanner.next(&mut rest).map_err(Rejection::Malformed)? {
            match found {
                Scanned::Event { index, text } => batch.push(index, text).await?,
                Scanned::TooLarge => batch.skip(),
            }
        }
        share.resize(2 * scanner.held_bytes() + batch.held_bytes()).await.map_err(|_| Rejection::Busy)?;
        // Lets other connections run: a body that arrives as fast as it is read would block them.
        tokio::task::yield_now().await;
    }
    if !body.is_end_stream() {
        return Err(Rejection::Cut { bytes: read_bytes });
    }
    scanner.end().map_err(Rejection::Malformed)?;
    batch.flush().await;
    Ok(())
}

/// The lines of a batch that are not in the queue yet.
struct Batch<'a> {
    shared: &'a Shared,
    piece: Piece,
    counts: BTreeMap<EventLabels, u64>,
    /// How long the answer may still wait for the output.
    patience: Duration,
    skipped: u64,
}

impl<'a> Batch<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, piece: Piece::default(), counts: BTreeMap::new(), patience: QUEUE_PATIENCE, skipped: 0 }
    }

    fn held_bytes(&self) -> usize {
        self.piece.lines.capacity()
    }

    async fn push(&mut self, index: u64, event: &str) -> Result<(), Rejection> {
        if !self.piece.lines.is_empty() && self.piece.lines.len() + event.len() > PIECE_BYTES {
            self.flush().await;
        }
        let labels = line::push_line(&mut self.piece.lines, event, self.shared.args.format)
            .map_err(|source| Rejection::Malformed(Malformed::Item { index, source }))?;
        *self.counts.entry(labels).or_default() += 1;
        self.piece.events += 1;
        Ok(())
    }

    /// An event that is too large.
    fn skip(&mut self) {
        self.shared.metrics.dropped("TooLarge", 1);
        self.skipped += 1;
        if self.skipped == 1 {
            let max_bytes = self.shared.args.max_event_bytes;
            tracing::warn!(max_bytes, "dropping an event that is larger than --max-event-bytes");
        }
    }

    async fn flush(&mut self) {
        for (labels, events) in std::mem::take(&mut self.counts) {
            self.shared.metrics.events(labels, events);
        }
        let mut piece = std::mem::take(&mut self.piece);
        let events = piece.events;
        if events == 0 {
            return;
        }
        piece.lines.shrink_to_fit();
        match self.shared.queue.push(piece, &mut self.patience).await {
            Pushed::Queued => {}
            Pushed::QueuedAgain { events } => {
                tracing::warn!(events, "the output keeps up again; events were dropped meanwhile")
            }
            Pushed::Dropped { is_first } => {
                self.shared.metrics.dropped("QueueFull", events);
                if is_first {
                    tracing::warn!("the output does not keep up; dropping events until it does");
                }
            }
        }
    }
}
