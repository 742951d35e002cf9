//! Why a request is refused, and how the client is told.

use std::fmt;

use http::StatusCode;

use super::scan::Malformed;
use super::{BODY_TIMEOUT, IDLE_TIMEOUT};

#[derive(Debug)]
pub(super) enum Refused {
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
    /// The client went, or stopped sending.
    Cut {
        bytes: u64,
    },
    /// The whole body took too long.
    Slow,
    /// No byte came for too long.
    Stalled,
    /// Too many known connections, or too little memory for all batches.
    Busy,
    Malformed(Malformed),
}

impl Refused {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refused::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refused::Path { .. } => StatusCode::NOT_FOUND,
            Refused::TokenUnreadable => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::Token => StatusCode::UNAUTHORIZED,
            Refused::ContentType | Refused::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refused::Slow | Refused::Stalled => StatusCode::REQUEST_TIMEOUT,
            Refused::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Cut { .. } | Refused::Malformed(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The label of the metric.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Refused::Method => "Method",
            Refused::Path { .. } => "Path",
            Refused::TokenUnreadable => "TokenUnreadable",
            Refused::Token => "Token",
            Refused::ContentType => "ContentType",
            Refused::ContentEncoding => "ContentEncoding",
            Refused::TooLarge { .. } => "TooLarge",
            Refused::Cut { .. } => "Cut",
            Refused::Slow => "Slow",
            Refused::Stalled => "Stalled",
            Refused::Busy => "Busy",
            Refused::Malformed(Malformed::Foreign { .. }) => "Kind",
            Refused::Malformed(_) => "Malformed",
        }
    }

    /// Whether the client is sending still: its bytes are taken and thrown away for a while, so that it reads the answer.
    pub(super) fn is_worth_draining(&self) -> bool {
        !matches!(self, Refused::Cut { .. } | Refused::Slow | Refused::Stalled)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Method => f.write_str("POST an EventList of audit.k8s.io/v1"),
            Refused::Path { path } => write!(f, "nothing is here: POST to {path} (--path)"),
            Refused::TokenUnreadable => f.write_str("the receiver cannot read its own token file (--token-file)"),
            Refused::Token => f.write_str("the bearer token is missing or wrong"),
            Refused::ContentType => f.write_str("Content-Type must be application/json"),
            Refused::ContentEncoding => f.write_str("Content-Encoding is not supported: send the body uncompressed"),
            Refused::TooLarge { max_bytes } => {
                write!(f, "the body is larger than {max_bytes} bytes (--max-body-bytes)")
            }
            Refused::Cut { bytes } => write!(f, "the body was cut off after {bytes} bytes"),
            Refused::Slow => write!(f, "the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
            Refused::Stalled => write!(f, "no byte of the body arrived for {} s", IDLE_TIMEOUT.as_secs()),
            Refused::Busy => f.write_str("the receiver is at its limit of connections or memory: try again"),
            Refused::Malformed(error) => write!(f, "not an EventList: {error}"),
        }
    }
}
