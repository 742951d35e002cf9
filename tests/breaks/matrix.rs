//! Each break of a sink, and the reason that must be reported.

use std::time::Duration;

use audit_operator::api::Reason;

use super::act::Act;
use super::misbehaving::{Certificate, Demands, MET, Talk};

/// The Setup under which a sink breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setup {
    /// A webhook by URL with https, mode Batch; a log, mode Blocking.
    Url,
    /// A webhook by Service, mode Batch; a log, mode Batch.
    Service,
    /// A webhook by URL with http; a log on a small disk.
    Http,
    /// The chart's own receiver by Service.
    Receiver,
    /// A webhook by URL, mode Blocking.
    Blocking,
}

/// Which of the two sinks of a Setup breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    Log,
    Webhook,
}

impl Sink {
    /// Its name in every Setup.
    pub fn name(self) -> &'static str {
        match self {
            Sink::Log => "local",
            Sink::Webhook => "hook",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub setup: Setup,
    pub sink: Sink,
    pub fault: &'static str,
    pub act: Act,
    pub reason: Reason,
    /// Whether the cluster is at rest when it breaks: all is well, and the agent looks seldom.
    pub is_at_rest: bool,
    /// In which its repair must be reported.
    pub repaired_within: Duration,
}

/// In which a break must be reported, and its repair.
pub const GOAL: Duration = Duration::from_secs(90);
/// Only the last of five attempts shows that an answer could not be read, so for as long no 2xx proves a delivery.
const FIVE_ATTEMPTS: Duration = Duration::from_secs(120);

const fn row(setup: Setup, sink: Sink, fault: &'static str, act: Act, reason: Reason) -> Row {
    Row { setup, sink, fault, act, reason, is_at_rest: false, repaired_within: GOAL }
}

impl Row {
    const fn at_rest(self) -> Self {
        Self { is_at_rest: true, ..self }
    }

    const fn after_five_attempts(self) -> Self {
        Self { repaired_within: FIVE_ATTEMPTS, ..self }
    }
}

const OTHER_TOKEN: Talk = Talk::Takes(Demands { token: "another token", ..MET });
const OTHER_PATH: Talk = Talk::Takes(Demands { path: "/elsewhere", ..MET });
const SMALL: Talk = Talk::Takes(Demands { most_bytes: 100, ..MET });

pub const ROWS: &[Row] = {
    use Act::*;
    use Certificate::*;
    use Setup::*;
    use Sink::*;
    use Talk::*;
    &[
        row(Url, Webhook, "the receiver is stopped", Talks(Closed), Reason::Refused).at_rest(),
        row(Url, Log, "kube-apiserver may not write the file", FreezeLog, Reason::NotWritable).at_rest(),
        row(Url, Webhook, "the receiver is stopped", Talks(Closed), Reason::Refused),
        row(Url, Webhook, "the receiver wants another token", Talks(OTHER_TOKEN), Reason::Unauthorized),
        row(Url, Webhook, "the receiver takes events at another path", Talks(OTHER_PATH), Reason::WrongPath),
        row(Url, Webhook, "the receiver takes only small bodies", Talks(SMALL), Reason::BodyTooLarge),
        row(Url, Webhook, "429 with Retry-After", Talks(Answers(429, &[("Retry-After", "1")])), Reason::Throttled),
        row(Url, Webhook, "503", Talks(Answers(503, &[])), Reason::ReceiverFailing),
        row(Url, Webhook, "400", Talks(Answers(400, &[])), Reason::RequestRejected),
        row(Url, Webhook, "302 without a new URL", Talks(Answers(302, &[])), Reason::Redirects),
        row(
            Url,
            Webhook,
            "200 with a malformed Content-Type",
            Talks(Answers(200, &[("Content-Type", "application/json; charset")])),
            Reason::UnusableAnswer,
        )
        .after_five_attempts(),
        row(Url, Webhook, "the receiver never answers", Talks(NeverAnswers), Reason::NoAnswer),
        row(Url, Webhook, "a firewall drops the packets", DropPackets, Reason::NoAnswer),
        row(Url, Webhook, "no route to the receiver", Unreachable, Reason::ConnectFailed),
        row(Url, Webhook, "the name server does not know the host", ForgetName, Reason::ResolveFailed),
        row(Url, Webhook, "the port speaks SMTP", Talks(SpeaksSmtp), Reason::TlsFailed),
        row(Url, Webhook, "`nc -lk` at the port", Netcat, Reason::TlsFailed),
        row(Url, Webhook, "an expired certificate", Shows(Expired), Reason::CertificateInvalid),
        row(Url, Webhook, "a certificate of another authority", Shows(OfOtherAuthority), Reason::CertificateInvalid),
        row(Url, Webhook, "a certificate for another name", Shows(ForOtherName), Reason::CertificateInvalid),
        row(Url, Webhook, "a batch is given up", LoseBatch, Reason::EventsLost),
        row(Url, Webhook, "the proxy of the manifest is stopped", EndProxy, Reason::ThroughProxy),
        row(Url, Log, "the file is renamed", MoveLog, Reason::RotatedByOthers),
        row(Url, Log, "the file is deleted; kube-apiserver is restarted", DeleteLog, Reason::LogFileMissing),
        row(Service, Webhook, "nothing listens at the endpoint", Talks(Closed), Reason::Refused),
        row(Service, Webhook, "the Service has no endpoint", EndEndpoint, Reason::NoEndpoints),
        row(Service, Webhook, "the receiver wants another token", Talks(OTHER_TOKEN), Reason::Unauthorized),
        row(Service, Webhook, "503", Talks(Answers(503, &[])), Reason::ReceiverFailing),
        row(Service, Webhook, "the receiver never answers", Talks(NeverAnswers), Reason::NoAnswer),
        row(Service, Webhook, "a certificate for another name", Shows(ForOtherName), Reason::CertificateInvalid),
        row(Service, Log, "kube-apiserver may not write the file", FreezeLog, Reason::NotWritable),
        row(Service, Log, "the file is renamed", MoveLog, Reason::RotatedByOthers),
        row(Http, Webhook, "`nc -lk` at the port", Netcat, Reason::NoAnswer),
        row(Http, Webhook, "nothing listens", Talks(Closed), Reason::Refused),
        row(Http, Log, "the disk is full", FillDisk, Reason::DiskFull),
        row(Receiver, Webhook, "the Deployment is scaled to 0", ScaleDown, Reason::NoEndpoints),
        // Each request that is recorded waits for its event, the canary and the agent's look at the metrics too.
        row(Blocking, Webhook, "503", Talks(Answers(503, &[])), Reason::MetricsUnavailable),
    ]
};
