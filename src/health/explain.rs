//! Puts the verdict on a sink into words: the reason, and what to do. Pure.
//!
//! The codes of kube-apiserver's own requests come first. A probe only explains requests that got no answer, and never
//! overrules a delivery.

use super::way::{NamedBy, Way};
use super::webhook::{Delivery, Symptom};
use super::{log, no, unknown, yes};
use crate::api::{Finding, Reason, Truth};

/// The facts about a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub reachable: Finding,
    pub delivering: Finding,
}

/// The evidence about a webhook beside the verdict.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The receiver, as messages name it.
    pub shown: &'a str,
    pub way: &'a Way,
    /// The last probe, if there was one since the requests fail; while events arrive, the answer to the last request of
    /// a probe.
    pub probe: Option<&'a Finding>,
    /// Bytes of an average request.
    pub body_bytes: Option<f64>,
    /// kube-apiserver's own last error about it, if requests get no answer.
    pub error: Option<&'a str>,
    /// Whether the policy records the canary.
    pub has_canary: bool,
}

/// Whether a probe would explain the verdict. Where kube-apiserver does not connect directly, a direct connection would
/// prove nothing.
pub fn needs_probe(delivery: &Delivery, way: &Way) -> bool {
    delivery.is_unanswered() && matches!(way, Way::Direct(_))
}

pub fn webhook(delivery: &Delivery, evidence: &Evidence<'_>) -> Facts {
    let shown = evidence.shown;
    let answers = || yes(Reason::Reachable, "");
    match delivery {
        Delivery::Delivering => {
            let reachable = match evidence.probe.filter(|probe| probe.status == Truth::False) {
                Some(probe) => Finding { status: Truth::True, ..probe.clone() },
                None => answers(),
            };
            Facts { reachable, delivering: yes(Reason::Delivering, "") }
        }
        Delivery::Pending if !evidence.has_canary => Facts {
            reachable: unknown(Reason::CanaryOff, ""),
            delivering: unknown(
                Reason::CanaryOff,
                "policy.canaryRule is false, and kube-apiserver has delivered nothing yet",
            ),
        },
        Delivery::Pending => Facts {
            reachable: unknown(Reason::Pending, "kube-apiserver has not sent anything yet"),
            delivering: unknown(Reason::Pending, "no delivery is due yet"),
        },
        Delivery::Retrying(symptom) => {
            let Facts { reachable, delivering } = failure(symptom, evidence);
            let message =
                format!("an attempt failed, and kube-apiserver is about to repeat it: {}", delivering.message);
            Facts {
                reachable: if matches!(symptom, Symptom::NoAnswer { .. }) {
                    unknown(Reason::Retrying, "")
                } else {
                    reachable
                },
                delivering: unknown(Reason::Retrying, message),
            }
        }
        Delivery::Failing(symptom) => {
            let Facts { reachable, delivering } = failure(symptom, evidence);
            Facts { reachable, delivering: with_error(delivering, evidence.error) }
        }
        Delivery::Silent(time) => {
            let reachable = evidence.probe.cloned().unwrap_or_else(|| unreachable_unknown(evidence));
            let message = format!(
                "kube-apiserver has sent nothing to {shown} for {} s, although it recorded the agent's canary request",
                time.as_secs()
            );
            Facts { reachable, delivering: with_error(no(Reason::DeliveryFailing, message), evidence.error) }
        }
    }
}

fn failure(symptom: &Symptom, evidence: &Evidence<'_>) -> Facts {
    let shown = evidence.shown;
    match symptom {
        Symptom::Code(code) => {
            let (reason, advice) = code_means(*code, evidence.body_bytes);
            let by = match evidence.way {
                Way::Proxy { proxy, .. } => format!("{shown}, or the proxy {proxy},"),
                _ => shown.to_string(),
            };
            Facts {
                reachable: yes(Reason::Reachable, ""),
                delivering: no(reason, format!("{by} answers {code}: {advice}")),
            }
        }
        Symptom::UnusableAnswer => Facts {
            reachable: yes(Reason::Reachable, ""),
            delivering: no(
                Reason::UnusableAnswer,
                format!(
                    "{shown} answers 2xx with a response that kube-apiserver cannot read, such as a malformed Content-Type. \
                     kube-apiserver sends each batch five times and counts it as lost. Correct the receiver's response"
                ),
            ),
        },
        Symptom::NoAnswer { took } => match (evidence.way, evidence.probe) {
            (Way::Proxy { named_by, proxy }, _) => {
                let advice = match named_by {
                    NamedBy::Setup => "Check proxyURL, the proxy, and whether it reaches the receiver",
                    NamedBy::Manifest(_) => "Check the proxy, or add the host to NO_PROXY in the manifest",
                };
                let message = format!(
                    "kube-apiserver connects to {shown} through the proxy {proxy} ({named_by}) and gets no answer. {advice}"
                );
                Facts { reachable: unreachable_unknown(evidence), delivering: no(Reason::ThroughProxy, message) }
            }
            (Way::Direct(_), Some(probe)) if probe.status == Truth::False => {
                Facts { reachable: probe.clone(), delivering: probe.clone() }
            }
            (Way::Direct(_), Some(probe)) => {
                let message = if symptom.is_slow() {
                    format!("{shown} accepts connections but does not answer a request within {} s", took.as_secs())
                } else {
                    format!("{shown} accepts connections but closes them without an answer to the request")
                };
                let advice =
                    "Check that it speaks HTTP, check whether it requires a client certificate, and see its log";
                Facts { reachable: probe.clone(), delivering: no(Reason::NoAnswer, format!("{message}. {advice}")) }
            }
            _ => {
                let message = match symptom.is_slow() {
                    true => format!("kube-apiserver gets no answer from {shown} within {} s", took.as_secs()),
                    false => format!("kube-apiserver's requests to {shown} fail without an answer"),
                };
                let reason = if symptom.is_slow() { Reason::NoAnswer } else { Reason::DeliveryFailing };
                Facts { reachable: unreachable_unknown(evidence), delivering: no(reason, message) }
            }
        },
    }
}

/// The reason and the advice for a code that is not 2xx.
fn code_means(code: u16, body_bytes: Option<f64>) -> (Reason, String) {
    let (reason, advice): (_, &str) = match code {
        300..=399 => (
            Reason::Redirects,
            "kube-apiserver does not follow every redirect, and some lose the events. Use the URL that it points to",
        ),
        401 | 403 | 407 => (
            Reason::Unauthorized,
            "it does not accept kube-apiserver's credentials. Check auth, and the Secret that it names",
        ),
        404 | 405 | 410 => (Reason::WrongPath, "it accepts no events at this path. Check the path of the URL"),
        413 => {
            let size = body_bytes.map_or_else(String::new, |bytes| format!(" ({:.0} kB on average)", bytes / 1000.0));
            let advice = format!(
                "kube-apiserver's requests{size} are too large for it. Lower delivery.batch.maxSize, set delivery.truncate, or raise its limit"
            );
            return (Reason::BodyTooLarge, advice);
        }
        429 => (
            Reason::Throttled,
            "it accepts no more requests. Lower delivery.batch.throttleQPS and raise maxSize, or raise its limit",
        ),
        500..=599 => (Reason::ReceiverFailing, "it cannot process the request. See its log"),
        _ => (
            Reason::RequestRejected,
            "it does not accept an EventList of audit.k8s.io/v1. Check that this path is for audit events, and see its log",
        ),
    };
    (reason, advice.to_string())
}

fn unreachable_unknown(evidence: &Evidence<'_>) -> Finding {
    match evidence.way {
        Way::Proxy { named_by, proxy } => {
            unknown(Reason::ThroughProxy, format!("kube-apiserver connects through the proxy {proxy} ({named_by})"))
        }
        Way::Egress => {
            unknown(Reason::ThroughProxy, "kube-apiserver connects as its --egress-selector-config-file says")
        }
        Way::Direct(_) => unknown(Reason::Pending, "not probed yet"),
    }
}

fn with_error(finding: Finding, error: Option<&str>) -> Finding {
    match error {
        Some(error) => {
            Finding { message: format!("{}. kube-apiserver's last error: {error}", finding.message), ..finding }
        }
        None => finding,
    }
}

/// Facts about a log file. `place`: whether the file exists and can be written; it decides nothing while events arrive.
pub fn log(delivery: &log::Delivery, path: &str, place: &Finding, error: Option<&str>, has_canary: bool) -> Facts {
    let shown = if path == "-" { "the log of kube-apiserver's container" } else { path };
    let delivering = match delivery {
        log::Delivery::Delivering => yes(Reason::Delivering, ""),
        log::Delivery::Pending if !has_canary => {
            unknown(Reason::CanaryOff, "policy.canaryRule is false, so the agent has nothing to look for")
        }
        log::Delivery::Pending => unknown(Reason::Pending, "the canary is not in the log yet"),
        log::Delivery::Failing => {
            let reason = if place.status == Truth::False { place.reason } else { Reason::NotWritable };
            let why = if place.message.is_empty() { String::new() } else { format!(": {}", place.message) };
            with_error(no(reason, format!("kube-apiserver cannot write events to {shown}{why}")), error)
        }
        log::Delivery::Missing(log::Search::NoFile) => no(
            Reason::LogFileMissing,
            format!(
                "{shown} does not exist. If it was deleted, kube-apiserver writes to the deleted file until it is restarted"
            ),
        ),
        log::Delivery::Missing(log::Search::Elsewhere(other)) => no(
            Reason::RotatedByOthers,
            format!(
                "kube-apiserver writes to {other}, because something else renamed {shown}. kube-apiserver rotates its log itself: remove {shown} from logrotate"
            ),
        ),
        log::Delivery::Missing(_) => {
            no(Reason::CanaryNotFound, format!("the agent's canary request is not in {shown}"))
        }
    };
    Facts { reachable: place.clone(), delivering }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn direct() -> Way {
        Way::Direct(Vec::new())
    }

    fn evidence(way: &Way) -> Evidence<'_> {
        Evidence { shown: "sink:443", way, probe: None, body_bytes: None, error: None, has_canary: true }
    }

    #[test]
    fn every_code_has_a_reason_and_advice() {
        let cases = [
            (302, Reason::Redirects),
            (400, Reason::RequestRejected),
            (401, Reason::Unauthorized),
            (403, Reason::Unauthorized),
            (404, Reason::WrongPath),
            (405, Reason::WrongPath),
            (413, Reason::BodyTooLarge),
            (415, Reason::RequestRejected),
            (429, Reason::Throttled),
            (500, Reason::ReceiverFailing),
            (503, Reason::ReceiverFailing),
        ];
        for (code, want) in cases {
            let way = direct();
            let facts = webhook(&Delivery::Failing(Symptom::Code(code)), &evidence(&way));
            assert_eq!((facts.delivering.status, facts.delivering.reason), (Truth::False, want), "{code}");
            assert_eq!(facts.reachable.status, Truth::True, "{code}");
            let again = webhook(&Delivery::Retrying(Symptom::Code(code)), &evidence(&way));
            assert_eq!(
                (again.delivering.status, again.delivering.reason),
                (Truth::Unknown, Reason::Retrying),
                "{code}"
            );
        }
        let way = direct();
        let large = Evidence { body_bytes: Some(13e6), ..evidence(&way) };
        let message = webhook(&Delivery::Failing(Symptom::Code(413)), &large).delivering.message;
        assert!(message.contains("13000 kB on average"), "{message}");
    }

    #[test]
    fn a_probe_explains_requests_without_an_answer_and_overrules_nothing() {
        let refused = no(Reason::Refused, "sink:443: nothing listens there");
        let (fast, slow) = (Duration::from_millis(3), Duration::from_secs(30));
        let way = direct();
        let judged = |delivery: &Delivery, probe: Option<&Finding>| {
            let facts = webhook(delivery, &Evidence { probe, ..evidence(&way) });
            (facts.reachable.status, facts.delivering.status, facts.delivering.reason)
        };
        let failing = |took| Delivery::Failing(Symptom::NoAnswer { took });
        let open = yes(Reason::Reachable, "");
        assert_eq!(judged(&failing(fast), Some(&refused)), (Truth::False, Truth::False, Reason::Refused));
        assert_eq!(judged(&failing(slow), Some(&open)), (Truth::True, Truth::False, Reason::NoAnswer));
        assert_eq!(judged(&failing(fast), Some(&open)), (Truth::True, Truth::False, Reason::NoAnswer));
        assert_eq!(judged(&failing(fast), None), (Truth::Unknown, Truth::False, Reason::DeliveryFailing));
        assert_eq!(judged(&Delivery::Delivering, Some(&refused)), (Truth::True, Truth::True, Reason::Delivering));
        let wrong = no(Reason::ProbeFailed, "sink:443 answers the probe with 200, not with 405");
        assert_eq!(judged(&failing(slow), Some(&wrong)), (Truth::False, Truth::False, Reason::ProbeFailed));
        let well = webhook(&Delivery::Delivering, &Evidence { probe: Some(&wrong), ..evidence(&way) });
        assert_eq!(well.reachable, Finding { status: Truth::True, ..wrong });
        assert_eq!(well.delivering, yes(Reason::Delivering, ""));
    }

    #[test]
    fn the_way_of_kube_apiserver_is_followed() {
        let by = |named_by| Way::Proxy { named_by, proxy: "proxy:3128".into() };
        let failing = Delivery::Failing(Symptom::NoAnswer { took: Duration::ZERO });
        assert!(needs_probe(&failing, &direct()));
        for way in [by(NamedBy::Manifest("HTTPS_PROXY")), by(NamedBy::Setup), Way::Egress] {
            assert!(!needs_probe(&failing, &way));
            let facts = webhook(&failing, &evidence(&way));
            assert_eq!((facts.reachable.status, facts.reachable.reason), (Truth::Unknown, Reason::ThroughProxy));
            assert_eq!(facts.delivering.status, Truth::False);
        }
    }

    #[test]
    fn the_last_error_of_kube_apiserver_is_shown() {
        let way = direct();
        let with = Evidence { error: Some("dial tcp: connection refused"), ..evidence(&way) };
        let failing = Delivery::Failing(Symptom::NoAnswer { took: Duration::ZERO });
        let message = webhook(&failing, &with).delivering.message;
        assert!(message.ends_with("kube-apiserver's last error: dial tcp: connection refused"), "{message}");
    }

    #[test]
    fn a_log_that_cannot_be_written_has_the_reason_of_its_place() {
        let full = no(Reason::DiskFull, "no space is left on its file system");
        let facts = log(&log::Delivery::Failing, "/a", &full, None, true);
        assert_eq!(facts.delivering.reason, Reason::DiskFull);
        let facts = log(&log::Delivery::Failing, "/a", &yes(Reason::Reachable, ""), None, true);
        assert_eq!(facts.delivering.reason, Reason::NotWritable);
    }
}
