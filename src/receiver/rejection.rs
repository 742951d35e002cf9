//! Why a request is rejected, and the answer to the client.

use std::fmt;

use http::StatusCode;

use super::scan::Malformed;
use super::{BODY_TIMEOUT, IDLE_TIMEOUT};

#[derive(Debug)]
pub(super) enum Rejection {
    Method,
    Path {
        path: String,
    },
    TokenUnreadable,
    Token,
    ContentType,
    ContentEncoding,
    TooLarge {
        max_bytes: u64,
    },
    /// The client closed the connection before the end of the body.
    Cut {
        bytes: u64,
    },
    /// The whole body took too long.
    Slow,
    /// No byte arrived for too long.
    Stalled,
    /// Too many connections with the token, or too little memory for all batches.
    Busy,
    Malformed(Malformed),
}

impl Rejection {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Rejection::Method => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::Path { .. } => StatusCode::NOT_FOUND,
            Rejection::TokenUnreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Rejection::Token => StatusCode::UNAUTHORIZED,
            Rejection::ContentType | Rejection::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::Slow | Rejection::Stalled => StatusCode::REQUEST_TIMEOUT,
            Rejection::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::Cut { .. } | Rejection::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Rejection::Method => "Method",
            Rejection::Path { .. } => "Path",
            Rejection::TokenUnreadable => "TokenUnreadable",
            Rejection::Token => "Token",
            Rejection::ContentType => "ContentType",
            Rejection::ContentEncoding => "ContentEncoding",
            Rejection::TooLarge { .. } => "TooLarge",
            Rejection::Cut { .. } => "Cut",
            Rejection::Slow => "Slow",
            Rejection::Stalled => "Stalled",
            Rejection::Busy => "Busy",
            Rejection::Malformed(Malformed::Foreign { .. }) => "Kind",
            Rejection::Malformed(_) => "Malformed",
        }
    }

    /// Whether the client may still be sending. Its bytes are then read and discarded for a while, so that it reads the
    /// answer.
    pub(super) fn is_worth_draining(&self) -> bool {
        !matches!(self, Rejection::Cut { .. } | Rejection::Slow | Rejection::Stalled)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::Method => f.write_str("POST an EventList of audit.k8s.io/v1"),
            Rejection::Path { path } => write!(f, "not found: POST to {path} (--path)"),
            Rejection::TokenUnreadable => f.write_str("the receiver cannot read its own token file (--token-file)"),
            Rejection::Token => f.write_str("missing or wrong bearer token"),
            Rejection::ContentType => f.write_str("Content-Type must be application/json"),
            Rejection::ContentEncoding => f.write_str("Content-Encoding is not supported: send the body uncompressed"),
            Rejection::TooLarge { max_bytes } => {
                write!(f, "the body is larger than {max_bytes} bytes (--max-body-bytes)")
            }
            Rejection::Cut { bytes } => write!(f, "the body was cut off after {bytes} bytes"),
            Rejection::Slow => write!(f, "the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
            Rejection::Stalled => write!(f, "no byte of the body arrived for {} s", IDLE_TIMEOUT.as_secs()),
            Rejection::Busy => f.write_str("the receiver is at its limit of connections or memory: try again"),
            Rejection::Malformed(error) => write!(f, "not an EventList: {error}"),
        }
    }
}
