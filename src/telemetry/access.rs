//! Who may read the metrics: the answers of the API server, remembered for a short time, and how often it is asked.
//! Pure, with the clock passed in.
//!
//! A caller that may not read the metrics can neither fill memory, nor push out the answer about one that may, nor make
//! this program ask the API server without bound. While the API server does not respond, a caller that was let in
//! shortly before is still let in: the only API server of a cluster restarts with every change, and that is when
//! metrics matter.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

/// As long as the kubelet remembers who a token belongs to (kubernetes@v1.36.3
/// pkg/kubelet/apis/config/v1beta1/defaults.go, Authentication.Webhook.CacheTTL).
const ALLOWED_FOR: Duration = Duration::from_secs(120);
/// The same for a refusal (CacheUnauthorizedTTL).
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// While the API server does not respond (CacheAuthorizedTTL).
const ALLOWED_IN_OUTAGE_FOR: Duration = Duration::from_secs(300);
/// Answers of each kind that are remembered. Each is 60 bytes or so.
const ANSWERS: usize = 256;
/// Reviews at once, and one more each second.
const BURST: u32 = 10;
const REVIEW_EVERY: Duration = Duration::from_secs(1);

/// The token itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Caller([u8; 32]);

impl Caller {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// What the API server said of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allowed,
    /// Known, but without the permission.
    Forbidden,
    /// The token is not valid.
    Unknown,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Answered(Answer),
    AskApi,
    /// The API server was asked too often.
    TooOften,
}

#[derive(Debug)]
pub(super) struct Access {
    allowed: BTreeMap<Caller, Instant>,
    refused: BTreeMap<Caller, (Instant, Answer)>,
    /// For callers that were let in before, so that others cannot use up their reviews.
    known: Reviews,
    strangers: Reviews,
}

impl Access {
    pub(super) fn new(now: Instant) -> Self {
        let reviews = Reviews { left: BURST, since: now };
        Self { allowed: BTreeMap::new(), refused: BTreeMap::new(), known: reviews.clone(), strangers: reviews }
    }

    pub(super) fn decide(&mut self, caller: Caller, now: Instant) -> Decision {
        let allowed = self.allowed.get(&caller);
        if allowed.is_some_and(|at| now.saturating_duration_since(*at) < ALLOWED_FOR) {
            return Decision::Answered(Answer::Allowed);
        }
        let refused = self.refused.get(&caller).filter(|(at, _)| now.saturating_duration_since(*at) < REFUSED_FOR);
        if let Some((_, answer)) = refused {
            return Decision::Answered(*answer);
        }
        let reviews = if allowed.is_some() { &mut self.known } else { &mut self.strangers };
        if reviews.take(now) { Decision::AskApi } else { Decision::TooOften }
    }

    /// The API server answered.
    pub(super) fn learn(&mut self, caller: Caller, answer: Answer, now: Instant) {
        self.allowed.remove(&caller);
        self.refused.remove(&caller);
        if answer == Answer::Allowed {
            make_room(&mut self.allowed, |at| *at);
            self.allowed.insert(caller, now);
        } else {
            make_room(&mut self.refused, |(at, _)| *at);
            self.refused.insert(caller, (now, answer));
        }
    }

    /// The API server did not answer, or was asked too often. Returns whether the last answer still lets the caller in.
    pub(super) fn is_still_allowed(&self, caller: Caller, now: Instant) -> bool {
        self.allowed.get(&caller).is_some_and(|at| now.saturating_duration_since(*at) < ALLOWED_IN_OUTAGE_FOR)
    }
}

/// Removes the oldest answer of a full table.
fn make_room<V>(answers: &mut BTreeMap<Caller, V>, at: impl Fn(&V) -> Instant) {
    if answers.len() < ANSWERS {
        return;
    }
    if let Some(oldest) = answers.iter().min_by_key(|(_, answer)| at(answer)).map(|(caller, _)| *caller) {
        answers.remove(&oldest);
    }
}

/// A bucket of reviews that fills up again.
#[derive(Clone, Debug)]
struct Reviews {
    left: u32,
    /// Filled up to this moment.
    since: Instant,
}

impl Reviews {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_nanos() / REVIEW_EVERY.as_nanos();
        let new = u32::try_from(passed).unwrap_or(u32::MAX);
        if new >= BURST - self.left {
            (self.left, self.since) = (BURST, now);
        } else {
            self.left += new;
            self.since += REVIEW_EVERY * new;
        }
        let is_left = self.left > 0;
        self.left -= u32::from(is_left);
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_holds_for_its_time_and_that_of_a_caller_who_was_let_in_for_longer_in_an_outage() {
        for (answer, seconds, want, in_outage) in [
            (Answer::Allowed, 119, Decision::Answered(Answer::Allowed), true),
            (Answer::Allowed, 120, Decision::AskApi, true),
            (Answer::Allowed, 299, Decision::AskApi, true),
            (Answer::Allowed, 300, Decision::AskApi, false),
            (Answer::Forbidden, 29, Decision::Answered(Answer::Forbidden), false),
            (Answer::Forbidden, 30, Decision::AskApi, false),
            (Answer::Unknown, 29, Decision::Answered(Answer::Unknown), false),
            (Answer::Unknown, 30, Decision::AskApi, false),
        ] {
            let (start, caller) = (Instant::now(), Caller::of("a"));
            let mut access = Access::new(start);
            assert_eq!(access.decide(caller, start), Decision::AskApi);
            access.learn(caller, answer, start);
            let now = start + SECOND * seconds;
            assert_eq!(access.decide(caller, now), want, "{answer:?} after {seconds} s");
            assert_eq!(access.is_still_allowed(caller, now), in_outage, "{answer:?} after {seconds} s");
            assert_eq!(access.decide(Caller::of("b"), now), Decision::AskApi, "another token is another caller");
        }
    }

    #[test]
    fn a_refusal_takes_the_place_of_a_permission() {
        let (start, caller) = (Instant::now(), Caller::of("a"));
        let mut access = Access::new(start);
        access.learn(caller, Answer::Allowed, start);
        access.learn(caller, Answer::Forbidden, start);
        assert_eq!(access.decide(caller, start), Decision::Answered(Answer::Forbidden));
        assert!(!access.is_still_allowed(caller, start));
    }

    #[test]
    fn strangers_use_up_neither_memory_nor_the_reviews_of_those_who_were_let_in() {
        let start = Instant::now();
        let mut access = Access::new(start);
        let known = Caller::of("known");
        access.learn(known, Answer::Allowed, start);
        let mut asked = 0;
        let an_hour = start + SECOND * 3600;
        for i in 0..36_000 {
            let (caller, now) = (Caller::of(&i.to_string()), start + SECOND * i / 10);
            if access.decide(caller, now) == Decision::AskApi {
                asked += 1;
                access.learn(caller, Answer::Unknown, now);
            }
        }
        assert!((3600..3620).contains(&asked), "{asked} reviews in an hour");
        assert_eq!(access.refused.len(), ANSWERS);
        assert_eq!(access.decide(known, an_hour), Decision::AskApi, "it has reviews of its own");
        for i in 0..ANSWERS {
            access.learn(Caller::of(&i.to_string()), Answer::Allowed, an_hour);
        }
        assert_eq!(access.allowed.len(), ANSWERS);
        assert!(!access.allowed.contains_key(&known), "the oldest goes");
    }

    #[test]
    fn known_callers_do_not_ask_without_bound_in_an_outage() {
        let start = Instant::now();
        let mut access = Access::new(start);
        let known = Caller::of("known");
        access.learn(known, Answer::Allowed, start);
        let later = start + ALLOWED_FOR;
        let asked = (0..100).filter(|_| access.decide(known, later) == Decision::AskApi).count();
        assert_eq!(asked, BURST as usize);
    }
}
