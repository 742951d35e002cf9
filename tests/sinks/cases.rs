//! The table of expectations.

use super::trust::{Client, Trust};

pub struct Case {
    pub name: &'static str,
    pub receiver: Receiver,
    pub flags: &'static [&'static str],
    pub want: Want,
    pub loss: Loss,
}

pub enum Receiver {
    /// With these headers.
    Answers(u16, &'static [(&'static str, &'static str)]),
    /// To a receiver that answers 200.
    Redirects(u16),
    NeverAnswers,
    ClosesAtOnce,
    SpeaksSmtp,
    Refuses,
    /// Refuses the first attempt.
    ComesBack,
    UnknownName,
    Ipv6,
    Tls(Trust),
    TlsButHttpUrl,
    HttpsUrlButNoTls,
    /// For a URL of this scheme, a proxy that answers with this code; 200: a proxy that works.
    Proxy(&'static str, u16),
    ProxyRefuses(&'static str),
    /// For a URL of this scheme, a proxy of that scheme in the kubeconfig, with an environment that says otherwise.
    ProxyUrl(&'static str, &'static str),
    /// The same, and nothing listens there.
    ProxyUrlRefuses(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug)]
pub enum Count {
    Is(u64),
    Between(u64, u64),
}

impl Count {
    pub fn holds(self, seen: u64) -> bool {
        match self {
            Self::Is(n) => seen == n,
            Self::Between(least, most) => (least..=most).contains(&seen),
        }
    }
}

/// Whether what is missing at the receiver is what `apiserver_audit_error_total` says.
pub enum Loss {
    Counted,
    /// It is not.
    Hidden,
}

#[derive(Clone, Copy)]
pub struct Want {
    /// `rest_client_requests_total`, by code.
    pub codes: &'static [(&'static str, Count)],
    pub retries: Count,
    /// `apiserver_audit_error_total`, by plugin.
    pub errors: &'static [(&'static str, Count)],
    /// Observations of `rest_client_request_duration_seconds`.
    pub timed: Count,
    /// The seconds of one, on average: at least, and less than.
    pub each: (f64, f64),
    /// Observations of `rest_client_request_size_bytes`.
    pub sized: Count,
    /// Different events at the receiver.
    pub kept: Count,
    /// How often each is there.
    pub times: u64,
    pub truncated: u64,
    pub rejected: u64,
    /// Each message must be one of these.
    pub messages: &'static [&'static str],
}

impl Want {
    /// The order in which the cases start.
    pub fn seconds(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test")]
        let seconds = self.each.0 as u64;
        seconds
    }
}

use Count::{Between, Is};
use Loss::{Counted, Hidden};

/// One batch of four events, with two attempts 10 ms apart.
const BATCH: &[&str] =
    &["--events=4", "--audit-webhook-batch-max-size=4", "--audit-webhook-initial-backoff=10ms", "--attempts=2"];

const LOST: &[(&str, Count)] = &[("webhook", Is(4))];

const DELIVERED: Want = Want {
    codes: &[("200", Is(1))],
    retries: Is(0),
    errors: &[],
    timed: Is(1),
    each: (0.0, 5.0),
    sized: Is(1),
    kept: Is(4),
    times: 1,
    truncated: 0,
    rejected: 0,
    messages: &[],
};

const fn delivered(codes: &'static [(&'static str, Count)]) -> Want {
    Want { codes, ..DELIVERED }
}

const THROTTLED: &[&str] = &["webhook: the server has received too many requests and has asked us to try again later"];
const FAILS: &[&str] =
    &["webhook: an error on the server (\"text of the receiver\") has prevented the request from succeeding"];
const UNAVAILABLE: &[&str] = &["webhook: the server is currently unable to handle the request"];

/// Two attempts that fail.
const fn fails(codes: &'static [(&'static str, Count)], messages: &'static [&'static str]) -> Want {
    Want { codes, errors: LOST, timed: Is(2), sized: Is(2), kept: Is(0), messages, ..DELIVERED }
}

const ERROR: &[(&str, Count)] = &[("<error>", Is(2))];

const fn error(messages: &'static [&'static str]) -> Want {
    fails(ERROR, messages)
}

const fn case(name: &'static str, receiver: Receiver, want: Want) -> Case {
    Case { name, receiver, flags: BATCH, want, loss: Counted }
}

const fn answers(name: &'static str, code: u16, want: Want) -> Case {
    case(name, Receiver::Answers(code, &[("Content-Type", "text/plain")]), want)
}

/// A receiver that asks for ten further requests a second apart, within each attempt.
const fn retried(name: &'static str, code: u16, want: Want) -> Case {
    let receiver = Receiver::Answers(code, &[("Retry-After", "1")]);
    case(name, receiver, Want { retries: Is(20), sized: Is(22), each: (10.0, 15.0), ..want })
}

const fn tls(name: &'static str, trust: Trust, want: Want) -> Case {
    case(name, Receiver::Tls(trust), want)
}

macro_rules! http {
    ($text:literal) => {
        concat!("webhook: Post \"http://SINK/audit/SECRET?timeout=30s\": ", $text)
    };
}

macro_rules! https {
    ($text:literal) => {
        concat!("webhook: Post \"https://SINK/audit/SECRET?timeout=30s\": ", $text)
    };
}

const REFUSED: &str = http!("dial tcp SINK: connect: connection refused");

/// Which of Go's three timers is first: all run for the same 30 s.
const TIMED_OUT: &[&str] = &[
    http!("context deadline exceeded"),
    http!("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
    http!("net/http: request canceled (Client.Timeout exceeded while awaiting headers)"),
];

pub const CASES: &[Case] = &[
    answers("200", 200, DELIVERED),
    answers("201", 201, delivered(&[("201", Is(1))])),
    answers("204", 204, delivered(&[("204", Is(1))])),
    Case { loss: Hidden, ..case("301", Receiver::Redirects(301), Want { kept: Is(0), ..DELIVERED }) },
    Case { loss: Hidden, ..case("302", Receiver::Redirects(302), Want { kept: Is(0), ..DELIVERED }) },
    Case { loss: Hidden, ..case("303", Receiver::Redirects(303), Want { kept: Is(0), ..DELIVERED }) },
    case("307", Receiver::Redirects(307), DELIVERED),
    case("308", Receiver::Redirects(308), DELIVERED),
    Case {
        loss: Hidden,
        ..case(
            "200, Content-Type malformed",
            Receiver::Answers(200, &[("Content-Type", "application/json; charset")]),
            Want {
                kept: Is(4),
                times: 2,
                ..fails(&[("200", Is(2))], &["webhook: Internal error occurred: mime: invalid media parameter"])
            },
        )
    },
    answers("400", 400, fails(&[("400", Is(2))], &["webhook: the server rejected our request for an unknown reason"])),
    answers(
        "401",
        401,
        fails(&[("401", Is(2))], &["webhook: the server has asked for the client to provide credentials"]),
    ),
    answers("403", 403, fails(&[("403", Is(2))], &["webhook: text of the receiver"])),
    answers("404", 404, fails(&[("404", Is(2))], &["webhook: the server could not find the requested resource"])),
    answers(
        "405",
        405,
        fails(&[("405", Is(2))], &["webhook: the server does not allow this method on the requested resource"]),
    ),
    answers(
        "413",
        413,
        fails(
            &[("413", Is(2))],
            &["webhook: the server responded with the status code 413 but did not return more information"],
        ),
    ),
    answers("415", 415, fails(&[("415", Is(2))], &["webhook: text of the receiver"])),
    answers("429", 429, fails(&[("429", Is(2))], THROTTLED)),
    retried("429, Retry-After: 1", 429, fails(&[("429", Is(22))], THROTTLED)),
    case(
        "429, Retry-After: 60",
        Receiver::Answers(429, &[("Retry-After", "60")]),
        Want {
            retries: Is(2),
            sized: Is(4),
            each: (29.5, 35.0),
            ..fails(&[("429", Is(2)), ("<error>", Is(2))], TIMED_OUT)
        },
    ),
    answers("500", 500, fails(&[("500", Is(2))], FAILS)),
    answers("502", 502, fails(&[("502", Is(2))], FAILS)),
    answers("503", 503, fails(&[("503", Is(2))], UNAVAILABLE)),
    retried("503, Retry-After: 1", 503, fails(&[("503", Is(22))], UNAVAILABLE)),
    case("nothing listens", Receiver::Refuses, error(&[REFUSED])),
    case("never answers", Receiver::NeverAnswers, Want { each: (29.5, 35.0), ..error(TIMED_OUT) }),
    case(
        "closes at once",
        Receiver::ClosesAtOnce,
        error(&[
            http!("EOF"),
            http!("read tcp LOCAL->SINK: read: connection reset by peer"),
            http!("write tcp LOCAL->SINK: write: broken pipe"),
            http!("write tcp LOCAL->SINK: write: connection reset by peer"),
        ]),
    ),
    case(
        "speaks SMTP",
        Receiver::SpeaksSmtp,
        // What is read before the request is written is an error of another kind.
        error(&[
            http!("net/http: HTTP/1.x transport connection broken: malformed HTTP status code \"mail.example\""),
            http!("malformed HTTP status code \"mail.example\""),
            http!("readLoopPeekFailLocked: %!w(<nil>)"),
        ]),
    ),
    case("unknown name", Receiver::UnknownName, error(&[http!("dial tcp: lookup audit..sink: no such host")])),
    case("IPv6", Receiver::Ipv6, DELIVERED),
    tls("https", Trust::Holds, DELIVERED),
    tls(
        "https, unknown CA",
        Trust::UnknownAuthority,
        error(&[https!("tls: failed to verify certificate: x509: certificate signed by unknown authority")]),
    ),
    tls(
        "https, expired",
        Trust::Expired,
        error(&[https!(
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time NOW is after 2020-01-01T00:00:00Z"
        )]),
    ),
    tls(
        "https, not yet valid",
        Trust::NotYetValid,
        error(&[https!(
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time NOW is before 2090-01-01T00:00:00Z"
        )]),
    ),
    tls(
        "https, other name",
        Trust::OtherName,
        error(&[https!(
            "tls: failed to verify certificate: x509: certificate is valid for other.example, not localhost"
        )]),
    ),
    tls(
        "https, no address in it",
        Trust::NoAddress,
        error(&[https!(
            "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"
        )]),
    ),
    tls("https, client certificate given", Trust::ClientCertificate(Client::Known), DELIVERED),
    tls(
        "https, client certificate missing",
        Trust::ClientCertificate(Client::Missing),
        error(&[https!("remote error: tls: certificate required")]),
    ),
    tls(
        "https, client certificate of another CA",
        Trust::ClientCertificate(Client::OfUnknownAuthority),
        error(&[https!("remote error: tls: unknown certificate authority")]),
    ),
    case(
        "http URL, receiver has TLS",
        Receiver::TlsButHttpUrl,
        error(&[
            http!(
                "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\x15\\x03\\x03\\x00\\x02\\x022\""
            ),
            http!("malformed HTTP response \"\\x15\\x03\\x03\\x00\\x02\\x022\""),
        ]),
    ),
    case(
        "https URL, receiver has none",
        Receiver::HttpsUrlButNoTls,
        error(&[https!("http: server gave HTTP response to HTTPS client")]),
    ),
    case("http by proxy", Receiver::Proxy("http", 200), DELIVERED),
    case("http, proxy answers 502", Receiver::Proxy("http", 502), fails(&[("502", Is(2))], FAILS)),
    case(
        "http, proxy refuses",
        Receiver::ProxyRefuses("http"),
        error(&[http!("proxyconnect tcp: dial tcp PROXY: connect: connection refused")]),
    ),
    case("https by proxy", Receiver::Proxy("https", 200), DELIVERED),
    case("https, proxy answers 407", Receiver::Proxy("https", 407), error(&[https!("Proxy Authentication Required")])),
    case("https, proxy answers 502", Receiver::Proxy("https", 502), error(&[https!("Bad Gateway")])),
    case("http by proxyURL", Receiver::ProxyUrl("http", "http"), DELIVERED),
    case("https by proxyURL", Receiver::ProxyUrl("https", "http"), DELIVERED),
    case("https by proxyURL, SOCKS", Receiver::ProxyUrl("https", "socks5"), DELIVERED),
    case(
        "https, proxyURL refuses",
        Receiver::ProxyUrlRefuses("https", "http"),
        error(&[https!("proxyconnect tcp: dial tcp PROXY: connect: connection refused")]),
    ),
    case(
        "https, proxyURL refuses, SOCKS",
        Receiver::ProxyUrlRefuses("https", "socks5"),
        error(&[https!("proxyconnect tcp: dial tcp PROXY: connect: connection refused")]),
    ),
    Case {
        flags: &["--events=4", "--audit-webhook-batch-max-size=4", "--audit-webhook-initial-backoff=2s"],
        ..case(
            "down, and comes back",
            Receiver::ComesBack,
            Want { timed: Is(2), sized: Is(2), ..delivered(&[("<error>", Is(1)), ("200", Is(1))]) },
        )
    },
    Case {
        flags: &[
            "--events=100",
            "--audit-webhook-batch-buffer-size=10",
            "--audit-webhook-batch-max-size=5",
            "--audit-webhook-batch-throttle-qps=2",
            "--audit-webhook-batch-throttle-burst=1",
            "--audit-webhook-batch-max-wait=1s",
        ],
        ..case(
            "buffer full, receiver well",
            Receiver::Answers(200, &[]),
            Want {
                codes: &[("200", Between(2, 10))],
                errors: &[("buffered", Between(50, 90))],
                timed: Between(2, 10),
                sized: Between(2, 10),
                kept: Between(10, 50),
                messages: &["buffered: audit buffer queue blocked"],
                ..DELIVERED
            },
        )
    },
    Case {
        flags: &[
            "--events=100",
            "--audit-webhook-batch-buffer-size=10",
            "--audit-webhook-batch-max-size=5",
            "--audit-webhook-batch-throttle-qps=2",
            "--audit-webhook-batch-throttle-burst=1",
            "--audit-webhook-batch-max-wait=1s",
            "--audit-webhook-initial-backoff=10ms",
            "--attempts=2",
        ],
        ..case(
            "buffer full, nothing listens",
            Receiver::Refuses,
            Want {
                codes: &[("<error>", Between(4, 20))],
                errors: &[("buffered", Between(50, 90)), ("webhook", Between(10, 50))],
                timed: Between(4, 20),
                sized: Between(4, 20),
                messages: &["buffered: audit buffer queue blocked", REFUSED],
                ..error(&[])
            },
        )
    },
    Case {
        flags: &[
            "--events=4",
            "--audit-webhook-batch-max-size=4",
            "--audit-webhook-truncate-enabled",
            "--audit-webhook-truncate-max-event-size=3000",
            "--event-bytes=4000",
        ],
        // The request is in one of its two events.
        ..case("large requests, truncated", Receiver::Answers(200, &[]), Want { truncated: 2, ..DELIVERED })
    },
    Case {
        flags: &[
            "--events=4",
            "--audit-webhook-batch-max-size=4",
            "--audit-webhook-truncate-enabled",
            "--audit-webhook-truncate-max-event-size=3000",
            "--uri-bytes=4000",
        ],
        ..case(
            "long URIs, dropped by truncation",
            Receiver::Answers(200, &[]),
            Want {
                codes: &[],
                errors: &[("truncate", Is(4))],
                timed: Is(0),
                sized: Is(0),
                kept: Is(0),
                messages: &["truncate: event is too large even after truncating"],
                ..DELIVERED
            },
        )
    },
    Case {
        flags: &["--events=4", "--audit-webhook-mode=blocking"],
        ..case(
            "mode blocking",
            Receiver::Answers(200, &[]),
            Want { timed: Is(4), sized: Is(4), ..delivered(&[("200", Is(4))]) },
        )
    },
    Case {
        flags: &["--events=4", "--audit-webhook-mode=blocking", "--audit-webhook-initial-backoff=10ms", "--attempts=2"],
        ..case(
            "mode blocking, nothing listens",
            Receiver::Refuses,
            Want { timed: Is(8), sized: Is(8), ..fails(&[("<error>", Is(8))], &[REFUSED]) },
        )
    },
    Case {
        flags: &[
            "--events=4",
            "--audit-webhook-mode=blocking-strict",
            "--audit-webhook-initial-backoff=10ms",
            "--attempts=2",
        ],
        ..case(
            "mode blocking-strict, nothing listens",
            Receiver::Refuses,
            Want { timed: Is(8), sized: Is(8), rejected: 4, ..fails(&[("<error>", Is(8))], &[REFUSED]) },
        )
    },
];

/// The reason that audit-operator reports for each case. 301 to 303 cannot be told from a delivery: the Setup is
/// warned of instead (`may-redirect`).
pub const REASONS: &[(&str, &[&str])] = &[
    (
        "Delivering",
        &[
            "200",
            "201",
            "204",
            "301",
            "302",
            "303",
            "307",
            "308",
            "IPv6",
            "https",
            "https, client certificate given",
            "http by proxy",
            "https by proxy",
            "http by proxyURL",
            "https by proxyURL",
            "https by proxyURL, SOCKS",
            "down, and comes back",
            "buffer full, receiver well",
            "large requests, truncated",
            "mode blocking",
        ],
    ),
    ("Pending", &["long URIs, dropped by truncation"]),
    ("UnusableAnswer", &["200, Content-Type malformed"]),
    ("RequestRejected", &["400", "415"]),
    ("Unauthorized", &["401", "403"]),
    ("WrongPath", &["404", "405"]),
    ("BodyTooLarge", &["413"]),
    ("Throttled", &["429", "429, Retry-After: 1", "429, Retry-After: 60"]),
    ("ReceiverFailing", &["500", "502", "503", "503, Retry-After: 1", "http, proxy answers 502"]),
    (
        "Refused",
        &[
            "nothing listens",
            "buffer full, nothing listens",
            "mode blocking, nothing listens",
            "mode blocking-strict, nothing listens",
        ],
    ),
    (
        "NoAnswer",
        &[
            "never answers",
            "closes at once",
            "speaks SMTP",
            "http URL, receiver has TLS",
            "https, client certificate missing",
            "https, client certificate of another CA",
        ],
    ),
    ("ResolveFailed", &["unknown name"]),
    (
        "CertificateInvalid",
        &[
            "https, unknown CA",
            "https, expired",
            "https, not yet valid",
            "https, other name",
            "https, no address in it",
        ],
    ),
    ("TlsFailed", &["https URL, receiver has none"]),
    (
        "ThroughProxy",
        &[
            "http, proxy refuses",
            "https, proxy answers 407",
            "https, proxy answers 502",
            "https, proxyURL refuses",
            "https, proxyURL refuses, SOCKS",
        ],
    ),
];
