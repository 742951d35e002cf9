//! Do the events of a node arrive at a webhook? Judged from the counters of its kube-apiserver; pure.
//!
//! kube-apiserver sends a batch up to five times and then drops it. One failed attempt is no failure yet: the next one
//! may succeed. No time of the wall clock is compared, because it can be set.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sample::{Posts, Sample};

/// Added to the time that an event may wait for its batch: a round trip, and the time until the next look.
const GRACE: Duration = Duration::from_secs(30);
/// Between the first attempt and the third: one backoff, one that is 1.5 times longer, and jitter of a fifth
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/server/options/audit.go).
const THIRD_ATTEMPT: u32 = 3;
/// Between the first attempt and the fifth, likewise.
const LAST_ATTEMPT: u32 = 10;
/// The code of a receiver that takes no more requests.
const THROTTLED: &str = "429";
/// An attempt that takes longer was not refused: nobody answered.
const SLOW: Duration = Duration::from_secs(10);

/// A moment, since the boot of the node.
pub type Moment = Duration;

/// What kube-apiserver does with the events for a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long an event may wait for its batch.
    pub max_wait: Duration,
    /// Before the second attempt.
    pub initial_backoff: Duration,
    /// How long a delivery proves that the next one succeeds too: until the next canary, if there is one.
    pub proof: Option<Duration>,
}

/// The verdict on a webhook at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// A delivery was seen recently.
    Delivering,
    /// Attempts fail, and the next one may succeed.
    Retrying(Symptom),
    /// Attempts fail, and have failed for too long or were given up.
    Failing(Symptom),
    /// kube-apiserver has sent nothing for that long, although it had something to send.
    Silent(Duration),
    /// Nothing is known yet.
    Pending,
}

impl Delivery {
    /// Whether requests get no answer that would explain the failure.
    pub fn is_unanswered(&self) -> bool {
        matches!(
            self,
            Delivery::Retrying(Symptom::NoAnswer { .. })
                | Delivery::Failing(Symptom::NoAnswer { .. })
                | Delivery::Silent(_)
        )
    }

    /// Whether events do not arrive.
    pub fn is_failing(&self) -> bool {
        !matches!(self, Delivery::Delivering | Delivery::Pending)
    }
}

/// How attempts fail.
#[derive(Clone, Debug, PartialEq)]
pub enum Symptom {
    /// The receiver answers with this code.
    Code(u16),
    /// No answer. `took`: the time of an attempt.
    NoAnswer { took: Duration },
    /// The receiver answers 2xx, and kube-apiserver cannot read the answer.
    UnusableAnswer,
}

/// The memory between looks.
#[derive(Clone, Debug, Default)]
pub struct Webhook {
    last: Option<Counts>,
    /// When this process was first looked at.
    watched: Moment,
    /// When a delivery of this process was last seen.
    delivered: Option<Moment>,
    /// The oldest canary that no delivery followed.
    awaited: Option<Moment>,
    failing: Option<Failing>,
}

#[derive(Clone, Debug)]
struct Counts {
    started: f64,
    posts: Posts,
    dropped: f64,
}

#[derive(Clone, Debug)]
struct Failing {
    since: Moment,
    symptom: Symptom,
    is_given_up: bool,
}

impl Webhook {
    /// Judges a sample. `host`: as the URL of the webhook has it. `canary`: when the last canary was answered, if that
    /// was before the sample.
    pub fn judge(
        &mut self,
        sample: &Sample,
        host: &str,
        canary: Option<Moment>,
        schedule: Schedule,
        now: Moment,
    ) -> Delivery {
        let posts = sample.posts.get(host).cloned().unwrap_or_default();
        let dropped = sample.dropped.get("webhook").copied().unwrap_or(0.0);
        let next = Counts { started: sample.started, posts, dropped };
        match self.last.replace(next.clone()) {
            Some(last) if last.started == next.started => self.compare(&last, &next, schedule, now),
            Some(_) => {
                *self = Self { last: Some(next.clone()), watched: now, ..Self::default() };
                // A new process counts from zero.
                let zero = Counts { started: next.started, posts: Posts::default(), dropped: 0.0 };
                self.compare(&zero, &next, schedule, now);
            }
            // It may be old, and its counters with it.
            None => self.watched = now,
        }
        if let Some(canary) = canary.filter(|canary| self.delivered.is_none_or(|delivered| *canary > delivered)) {
            self.awaited.get_or_insert(canary);
        }
        self.verdict(schedule, now)
    }

    fn compare(&mut self, last: &Counts, next: &Counts, schedule: Schedule, now: Moment) {
        let accepted = next.posts.accepted() > last.posts.accepted();
        let was_dropped = next.dropped > last.dropped;
        let unusable = self.failing.as_ref().filter(|failing| failing.symptom == Symptom::UnusableAnswer);
        if accepted && was_dropped && (self.failing.is_none() || unusable.is_some()) && failed(last, next).is_empty() {
            self.failing = Some(Failing { since: now, symptom: Symptom::UnusableAnswer, is_given_up: true });
            return;
        }
        // Only the last of five attempts shows whether such an answer was usable.
        let is_open =
            unusable.is_some_and(|failing| now.saturating_sub(failing.since) < schedule.initial_backoff * LAST_ATTEMPT);
        if accepted && !is_open {
            self.delivered = Some(now);
            self.awaited = None;
            self.failing = None;
            return;
        }
        let failed = failed(last, next);
        // The code that rose most. A `Retry-After` that is longer than an attempt ends without an answer.
        let most = failed.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(code, _)| code.as_str());
        if let Some(code) = if failed.contains_key(THROTTLED) { Some(THROTTLED) } else { most } {
            let attempts = next.posts.attempts - last.posts.attempts;
            let took = Duration::try_from_secs_f64((next.posts.seconds - last.posts.seconds) / attempts);
            let took = took.unwrap_or_default();
            let symptom = code.parse().map_or(Symptom::NoAnswer { took }, Symptom::Code);
            // The attempt began before it failed.
            let failing = self.failing.get_or_insert(Failing {
                since: now.saturating_sub(took),
                symptom: symptom.clone(),
                is_given_up: false,
            });
            failing.symptom = symptom;
        }
        if let Some(failing) = &mut self.failing {
            failing.is_given_up |= was_dropped;
        }
    }

    fn verdict(&self, schedule: Schedule, now: Moment) -> Delivery {
        if let Some(Failing { since, symptom, is_given_up }) = &self.failing {
            let lasts = now.saturating_sub(*since) >= schedule.initial_backoff * THIRD_ATTEMPT;
            let symptom = symptom.clone();
            return if lasts || *is_given_up { Delivery::Failing(symptom) } else { Delivery::Retrying(symptom) };
        }
        let patience = schedule.max_wait + GRACE;
        let since = |moment: Moment| now.saturating_sub(moment);
        if let Some(awaited) = self.awaited.filter(|awaited| since(*awaited) > patience) {
            return Delivery::Silent(since(self.delivered.unwrap_or(self.watched).min(awaited)));
        }
        let is_proof = |delivered: Moment| schedule.proof.is_none_or(|proof| since(delivered) <= patience + proof);
        if self.delivered.is_some_and(is_proof) { Delivery::Delivering } else { Delivery::Pending }
    }
}

/// Codes other than 2xx that rose, and by how much.
fn failed(last: &Counts, next: &Counts) -> BTreeMap<String, f64> {
    let rose = next.posts.codes.iter().filter(|(code, _)| !code.starts_with('2')).map(|(code, count)| {
        let before = last.posts.codes.get(code).copied().unwrap_or(0.0);
        (code.clone(), count - before)
    });
    rose.filter(|(_, rise)| *rise > 0.0).collect()
}

impl Symptom {
    /// Whether the address did not answer in time, rather than refuse at once.
    pub fn is_slow(&self) -> bool {
        matches!(self, Symptom::NoAnswer { took } if *took >= SLOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "sink:443";

    /// One look: at that second, at a process, what its counters have, and when the last canary was answered.
    struct Look {
        at: u64,
        process: f64,
        codes: &'static [(&'static str, f64)],
        dropped: f64,
        seconds: f64,
        canary: Option<u64>,
    }

    const QUIET: Look = Look { at: 0, process: 1.0, codes: &[], dropped: 0.0, seconds: 0.0, canary: None };

    fn judge(looks: &[(Look, Delivery)]) {
        let schedule = Schedule {
            max_wait: Duration::from_secs(30),
            initial_backoff: Duration::from_secs(10),
            proof: Some(Duration::from_secs(160)),
        };
        let mut webhook = Webhook::default();
        for (look, want) in looks {
            let posts = Posts {
                attempts: look.codes.iter().map(|(_, count)| count).sum(),
                codes: look.codes.iter().map(|(code, count)| (code.to_string(), *count)).collect(),
                seconds: look.seconds,
                ..Posts::default()
            };
            let sample = Sample {
                started: look.process,
                dropped: [("webhook".to_string(), look.dropped)].into(),
                posts: [(HOST.to_string(), posts), ("other:443".to_string(), Posts::default())].into(),
                ..Sample::default()
            };
            let canary = look.canary.map(Duration::from_secs);
            let found = webhook.judge(&sample, HOST, canary, schedule, Duration::from_secs(look.at));
            assert_eq!(found, *want, "at {}", look.at);
        }
    }

    #[test]
    fn a_delivery_is_proof_until_the_next_canary_should_have_arrived() {
        use Delivery::{Delivering, Pending, Silent};
        let five: &[_] = &[("200", 5.0)];
        let six: &[_] = &[("200", 6.0)];
        judge(&[
            (Look { codes: five, canary: Some(0), ..QUIET }, Pending),
            (Look { at: 15, codes: five, canary: Some(15), ..QUIET }, Pending),
            (Look { at: 30, codes: six, canary: Some(30), ..QUIET }, Delivering),
            (Look { at: 110, codes: six, canary: Some(110), ..QUIET }, Delivering),
            (Look { at: 170, codes: six, canary: Some(110), ..QUIET }, Delivering),
            (Look { at: 171, codes: six, canary: Some(110), ..QUIET }, Silent(Duration::from_secs(141))),
            (Look { at: 185, codes: &[("200", 7.0)], canary: Some(185), ..QUIET }, Delivering),
        ]);
    }

    #[test]
    fn one_failed_attempt_is_no_failure_and_three_are() {
        use Delivery::{Delivering, Failing, Retrying};
        let failed = Symptom::Code(503);
        let one: &[_] = &[("200", 5.0), ("503", 1.0)];
        let two: &[_] = &[("200", 5.0), ("503", 2.0)];
        judge(&[
            (QUIET, Delivery::Pending),
            (Look { at: 10, codes: &[("200", 5.0)], ..QUIET }, Delivering),
            (Look { at: 20, codes: one, ..QUIET }, Retrying(failed.clone())),
            (Look { at: 35, codes: two, ..QUIET }, Retrying(failed.clone())),
            // It was restarting.
            (Look { at: 45, codes: &[("200", 6.0), ("503", 2.0)], ..QUIET }, Delivering),
            (Look { at: 60, codes: &[("200", 6.0), ("503", 3.0)], ..QUIET }, Retrying(failed.clone())),
            // Between two attempts nothing rises.
            (Look { at: 75, codes: &[("200", 6.0), ("503", 3.0)], ..QUIET }, Retrying(failed.clone())),
            (Look { at: 90, codes: &[("200", 6.0), ("503", 4.0)], ..QUIET }, Failing(failed.clone())),
            (Look { at: 105, codes: &[("200", 7.0), ("503", 4.0)], ..QUIET }, Delivering),
            // A batch that was given up, however soon.
            (Look { at: 120, codes: &[("200", 7.0), ("503", 9.0)], dropped: 400.0, ..QUIET }, Failing(failed)),
        ]);
    }

    #[test]
    fn an_attempt_that_took_long_has_failed_for_as_long() {
        let nobody = Symptom::NoAnswer { took: Duration::from_secs(30) };
        assert!(nobody.is_slow());
        judge(&[
            (QUIET, Delivery::Pending),
            (Look { at: 60, codes: &[("<error>", 1.0)], seconds: 30.0, ..QUIET }, Delivery::Failing(nobody)),
        ]);
    }

    #[test]
    fn a_receiver_that_wants_a_longer_pause_than_an_attempt_is_throttled() {
        let codes: &[_] = &[("429", 1.0), ("<error>", 1.0)];
        judge(&[
            (QUIET, Delivery::Pending),
            (Look { at: 60, codes, seconds: 60.0, ..QUIET }, Delivery::Failing(Symptom::Code(429))),
        ]);
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_no_delivery() {
        let dropped = |at, count, dropped| Look { at, codes: count, dropped, ..QUIET };
        judge(&[
            (QUIET, Delivery::Pending),
            (dropped(15, &[("200", 1.0)], 400.0), Delivery::Failing(Symptom::UnusableAnswer)),
            (dropped(30, &[("200", 1.0)], 400.0), Delivery::Failing(Symptom::UnusableAnswer)),
            // The first attempts of the next batch.
            (dropped(45, &[("200", 3.0)], 400.0), Delivery::Failing(Symptom::UnusableAnswer)),
            (dropped(115, &[("200", 4.0)], 400.0), Delivery::Delivering),
            // The last attempt of a batch fails, and the next batch arrives.
            (dropped(130, &[("200", 4.0), ("500", 4.0)], 400.0), Delivery::Retrying(Symptom::Code(500))),
            (dropped(145, &[("200", 5.0), ("500", 5.0)], 800.0), Delivery::Delivering),
        ]);
    }

    #[test]
    fn a_new_process_counts_from_zero() {
        let new = |at, codes| Look { at, process: 2.0, codes, ..QUIET };
        judge(&[
            (Look { codes: &[("200", 9.0)], ..QUIET }, Delivery::Pending),
            (new(15, &[]), Delivery::Pending),
            (new(30, &[("200", 1.0)]), Delivery::Delivering),
            (Look { process: 3.0, ..new(45, &[("200", 1.0)]) }, Delivery::Delivering),
            (Look { process: 4.0, ..new(60, &[("500", 1.0)]) }, Delivery::Retrying(Symptom::Code(500))),
        ]);
    }
}
