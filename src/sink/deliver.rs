//! Do events arrive? Judged from canaries and counters; pure.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::metrics::Sample;
use super::{no, unknown, yes};
use crate::api::{Finding, Reason};

/// Added to the time that an event may wait for its batch: a round trip and the interval of the probes.
const GRACE: Duration = Duration::from_secs(30);

/// The state of a webhook between probes.
#[derive(Clone, Debug, Default)]
pub struct Webhook {
    last: Option<Sample>,
    /// When the counter of deliveries last rose.
    pub delivered_at: Option<Timestamp>,
    /// When the counter of failures last rose.
    failed_at: Option<Timestamp>,
    /// Since when canaries have been sent to this process of the API server.
    watched_since: Option<Timestamp>,
}

impl Webhook {
    /// Judges a new sample. A canary was sent before it; `host` is the sink's `host:port`.
    pub fn judge(&mut self, sample: &Sample, host: &str, max_wait: Duration, now: Timestamp) -> Finding {
        let count = |counters: &std::collections::BTreeMap<String, f64>| counters.get(host).copied().unwrap_or(0.0);
        // A new process counts from zero, and has had no canary yet.
        let last = self
            .last
            .replace(sample.clone())
            .filter(|last| last.process_start_time_seconds == sample.process_start_time_seconds);
        match &last {
            Some(last) => {
                if count(&sample.delivered) > count(&last.delivered) {
                    self.delivered_at = Some(now);
                }
                if count(&sample.failed) > count(&last.failed) {
                    self.failed_at = Some(now);
                }
            }
            None => {
                self.watched_since = Some(now);
                self.failed_at = None;
            }
        }
        let patience = SignedDuration::try_from(max_wait + GRACE).unwrap_or(SignedDuration::MAX);
        let is_recent = |at: Option<Timestamp>| at.is_some_and(|at| now.duration_since(at) <= patience);
        let watched_since = self.watched_since.unwrap_or(now);
        let this_process = |at: Option<Timestamp>| at.filter(|at| *at > watched_since);
        if self.failed_at.is_some() && self.failed_at > this_process(self.delivered_at) {
            return no(Reason::DeliveryFailing, format!("kube-apiserver's requests to {host} fail"));
        }
        if is_recent(this_process(self.delivered_at)) {
            return yes(Reason::Delivering, "");
        }
        if is_recent(Some(watched_since)) {
            return unknown(Reason::Pending, "no delivery is due yet");
        }
        no(
            Reason::DeliveryFailing,
            format!(
                "kube-apiserver has delivered nothing to {host} for {} s",
                now.duration_since(self.delivered_at.unwrap_or(watched_since)).as_secs()
            ),
        )
    }
}

/// The state of a log file between probes.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub delivered_at: Option<Timestamp>,
    waiting_since: Option<Timestamp>,
}

/// The result of a look into the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanarySearch {
    Found,
    NotFound,
    NoFile,
}

impl Log {
    /// Judges a look into the file. `sent` is the time of the canary that is looked for.
    pub fn judge(
        &mut self,
        seen: CanarySearch,
        path: &str,
        sent: Timestamp,
        max_wait: Duration,
        now: Timestamp,
    ) -> Finding {
        if seen == CanarySearch::Found {
            self.delivered_at = Some(now);
            self.waiting_since = None;
            return yes(Reason::Delivering, "");
        }
        let since = *self.waiting_since.get_or_insert(sent);
        let patience = SignedDuration::try_from(max_wait + GRACE).unwrap_or(SignedDuration::MAX);
        if now.duration_since(since) <= patience {
            return unknown(Reason::Pending, "the canary is not in the log yet");
        }
        match seen {
            CanarySearch::NoFile => no(
                Reason::LogFileMissing,
                format!(
                    "{path} does not exist. If it was deleted, kube-apiserver writes to the deleted file until it is restarted"
                ),
            ),
            _ => no(Reason::CanaryNotFound, format!("the agent's canary request is not in {path}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Truth;

    const WAIT: Duration = Duration::from_secs(30);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn sample(start: f64, delivered: f64, failed: f64) -> Sample {
        let host = |value| [("sink:443".to_string(), value)].into();
        Sample {
            process_start_time_seconds: start,
            delivered: host(delivered),
            failed: host(failed),
            ..Sample::default()
        }
    }

    /// Looks as (second, start of the process, delivered, failed) -> what is judged at that look.
    #[test]
    fn a_webhook_is_judged_by_what_rises() {
        use Truth::{False, True, Unknown};
        let looks = [
            (0, 1.0, 5.0, 0.0, Unknown),
            (15, 1.0, 5.0, 0.0, Unknown),
            (30, 1.0, 6.0, 0.0, True),
            (80, 1.0, 6.0, 0.0, True),
            (95, 1.0, 6.0, 0.0, False),
            (110, 1.0, 6.0, 2.0, False),
            (125, 1.0, 7.0, 2.0, True),
            (140, 1.0, 7.0, 3.0, False),
            (155, 2.0, 0.0, 0.0, Unknown),
            (170, 2.0, 1.0, 0.0, True),
            (185, 3.0, 0.0, 1.0, Unknown),
            (200, 3.0, 0.0, 2.0, False),
        ];
        let mut webhook = Webhook::default();
        for (second, start, delivered, failed, expected) in looks {
            let found = webhook.judge(&sample(start, delivered, failed), "sink:443", WAIT, at(second));
            assert_eq!(found.status, expected, "at {second}: {found:?}");
        }
    }

    #[test]
    fn a_log_is_judged_by_the_canary() {
        let mut log = Log::default();
        let none = Duration::ZERO;
        assert_eq!(log.judge(CanarySearch::NotFound, "/a", at(0), none, at(1)).status, Truth::Unknown);
        assert_eq!(log.judge(CanarySearch::Found, "/a", at(15), none, at(16)).status, Truth::True);
        assert_eq!(log.judge(CanarySearch::NotFound, "/a", at(30), none, at(31)).status, Truth::Unknown);
        let gone = log.judge(CanarySearch::NoFile, "/a", at(60), none, at(61));
        assert_eq!((gone.status, gone.reason), (Truth::False, Reason::LogFileMissing));
        assert_eq!(log.judge(CanarySearch::NotFound, "/a", at(75), none, at(76)).reason, Reason::CanaryNotFound);
        assert_eq!(log.judge(CanarySearch::Found, "/a", at(90), none, at(91)).status, Truth::True);
    }
}
