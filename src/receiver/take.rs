//! One request in; taken, or refused with a reason.

use std::fmt;
use std::sync::Arc;

use http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use serde::Deserialize;

use super::line::EventList;
use super::queue::{Batch, Pushed};
use super::{BODY_TIMEOUT, Shared};
use crate::telemetry::EXPOSITION_TYPE;

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum Refused {
    Method,
    TokenUnreadable,
    Token,
    ContentType,
    ContentEncoding,
    TooLarge {
        max_bytes: usize,
    },
    /// The client went, or stopped sending.
    Cut {
        bytes: usize,
    },
    Slow,
    Malformed(serde_json::Error),
    Kind,
}

impl Refused {
    fn status(&self) -> StatusCode {
        match self {
            Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refused::TokenUnreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::Token => StatusCode::UNAUTHORIZED,
            Refused::ContentType | Refused::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Slow => StatusCode::REQUEST_TIMEOUT,
            Refused::Cut { .. } | Refused::Malformed(_) | Refused::Kind => StatusCode::BAD_REQUEST,
        }
    }

    /// The label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            Refused::Method => "Method",
            Refused::TokenUnreadable => "TokenUnreadable",
            Refused::Token => "Token",
            Refused::ContentType => "ContentType",
            Refused::ContentEncoding => "ContentEncoding",
            Refused::TooLarge { .. } => "TooLarge",
            Refused::Cut { .. } => "Cut",
            Refused::Slow => "Slow",
            Refused::Malformed(_) => "Malformed",
            Refused::Kind => "Kind",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Method => f.write_str("POST an EventList of audit.k8s.io/v1"),
            Refused::TokenUnreadable => f.write_str("the receiver cannot read its own token"),
            Refused::Token => f.write_str("a bearer token is needed, and it is another one"),
            Refused::ContentType => f.write_str("Content-Type must be application/json"),
            Refused::ContentEncoding => f.write_str("no Content-Encoding is understood: send it plain"),
            Refused::TooLarge { max_bytes } => {
                write!(f, "the body is larger than {max_bytes} bytes (--max-body-bytes)")
            }
            Refused::Cut { bytes } => write!(f, "the body was cut off after {bytes} bytes"),
            Refused::Slow => write!(f, "the body did not come within {} s", BODY_TIMEOUT.as_secs()),
            Refused::Malformed(error) => write!(f, "not an EventList: {error}"),
            Refused::Kind => f.write_str("not an EventList of audit.k8s.io/v1"),
        }
    }
}

pub(super) async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Full<Bytes>> {
    let taken = match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz" | "/readyz") => Ok(()),
        (&Method::GET, "/metrics") => {
            let mut response = Response::new(Full::new(Bytes::from(shared.metrics.text(shared.queue.bytes()))));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EXPOSITION_TYPE));
            return response;
        }
        _ => take(request, shared).await,
    };
    let (status, text) = match taken {
        Ok(()) => (StatusCode::OK, "ok\n".to_string()),
        Err(refused) => {
            shared.metrics.refused(refused.reason());
            (refused.status(), format!("{refused}\n"))
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let header = match status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST")),
        _ => None,
    };
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn take(request: Request<Incoming>, shared: &Shared) -> Result<(), Refused> {
    if request.method() != Method::POST {
        return Err(Refused::Method);
    }
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    // Before the body: who is not known costs no memory.
    if let Some(file) = &shared.args.token_file {
        let token = std::fs::read_to_string(file).map_err(|_| Refused::TokenUnreadable)?;
        let sent = header(AUTHORIZATION).and_then(|sent| sent.strip_prefix("Bearer ")).unwrap_or_default();
        if token.trim().is_empty() || !is_equal(sent.trim().as_bytes(), token.trim().as_bytes()) {
            return Err(Refused::Token);
        }
    }
    if header(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(Refused::ContentEncoding);
    }
    let is_json = |value: &str| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json");
    if !header(CONTENT_TYPE).is_none_or(is_json) {
        return Err(Refused::ContentType);
    }
    let announced = header(CONTENT_LENGTH).and_then(|length| length.parse().ok()).unwrap_or(0);
    if announced > shared.args.max_body_bytes {
        return Err(Refused::TooLarge { max_bytes: shared.args.max_body_bytes });
    }
    // Few bodies at a time: this and the queue bound the memory.
    let _permit = shared.bodies.acquire().await.expect("it is never closed");
    let body = tokio::time::timeout(BODY_TIMEOUT, read(request.into_body(), announced, shared.args.max_body_bytes));
    let body = body.await.map_err(|_| Refused::Slow)??;
    let list: EventList<'_> = serde_json::from_slice(&body).map_err(Refused::Malformed)?;
    if list.kind != "EventList" || list.api_version != "audit.k8s.io/v1" {
        return Err(Refused::Kind);
    }
    let events = list.items.len() as u64;
    shared.metrics.batch();
    for event in &list.items {
        // An event of a strange form is counted, and written as it came.
        let sort: Sort<'_> = serde_json::from_str(event.get()).unwrap_or_default();
        shared.metrics.event(sort.level, sort.stage);
    }
    match shared.queue.push(Batch { body, events }) {
        Pushed::Queued => {}
        Pushed::QueuedAgain { events } => tracing::warn!(events, "the output keeps up again; events were dropped"),
        Pushed::Dropped { is_first } => {
            shared.metrics.dropped("QueueFull", events);
            if is_first {
                tracing::warn!("the output does not keep up: events are dropped until it does");
            }
        }
    }
    Ok(())
}

async fn read(mut body: Incoming, announced: usize, max_bytes: usize) -> Result<Bytes, Refused> {
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Refused::Cut { bytes: bytes.len() }) };
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > max_bytes {
            return Err(Refused::TooLarge { max_bytes });
        }
        bytes.extend_from_slice(data);
    }
    if !body.is_end_stream() {
        return Err(Refused::Cut { bytes: bytes.len() });
    }
    Ok(Bytes::from(bytes))
}

/// What events are counted by.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Sort<'a> {
    level: &'a str,
    stage: &'a str,
}

/// Compares in a time that does not depend on where the texts differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(is_equal(b"secret", b"secret"));
        for other in ["", "secre", "secret ", "Secret"] {
            assert!(!is_equal(other.as_bytes(), b"secret"), "{other:?}");
        }
    }
}
