//! Do the events of a node arrive in its log file? Judged from canaries and counters; pure.

use std::time::Duration;

use super::sample::Sample;
use super::webhook::Moment;

/// Added to the time that an event may wait for its batch: until the next look. Also, how long a dropped event counts
/// where no canary shows that the next one was written.
const GRACE: Duration = Duration::from_secs(30);

/// The result of a look into the log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// No canary was sent since the last look.
    NotDue,
    Found,
    NotFound,
    NoFile,
    /// Found in another file of the directory, which somebody else made out of the log.
    Elsewhere(String),
}

/// The verdict on a log at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Delivering,
    /// kube-apiserver reports that it could not write events.
    Failing,
    Missing(Search),
    Pending,
}

/// The memory between looks.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The process, and what its log has dropped.
    last: Option<(f64, f64)>,
    /// When events were last seen to be dropped.
    failed: Option<Moment>,
    /// The last look that found its canary.
    found: Option<Moment>,
    awaited: Option<Moment>,
}

impl Log {
    /// Judges a look into the file. `sent`: when the canary that is looked for was answered.
    pub fn judge(
        &mut self,
        sample: &Sample,
        search: Search,
        sent: Moment,
        max_wait: Duration,
        now: Moment,
    ) -> Delivery {
        let dropped = sample.dropped.get("log").copied().unwrap_or(0.0);
        let before = match self.last.replace((sample.started, dropped)) {
            Some((started, before)) if started == sample.started => before,
            Some(_) => 0.0,
            None => dropped,
        };
        if dropped > before {
            self.failed = Some(now);
        }
        match search {
            // Found although events were dropped: some of them arrive, or this one did before.
            Search::Found => {
                self.found = Some(now);
                self.awaited = None;
                if dropped > before {
                    return Delivery::Failing;
                }
                self.failed = None;
                return Delivery::Delivering;
            }
            _ if self.failed.is_some_and(|failed| now.saturating_sub(failed) <= max_wait + GRACE) => {
                return Delivery::Failing;
            }
            Search::NotDue => {
                return if self.awaited.is_none() && self.found.is_some() {
                    Delivery::Delivering
                } else {
                    Delivery::Pending
                };
            }
            Search::NotFound | Search::NoFile | Search::Elsewhere(_) => {}
        }
        let awaited = *self.awaited.get_or_insert(sent);
        if now.saturating_sub(awaited) <= max_wait + GRACE { Delivery::Pending } else { Delivery::Missing(search) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_event_does_not_count_for_ever_without_a_canary() {
        let mut log = Log::default();
        let mut judge = |second, dropped| {
            let sample = Sample { started: 1.0, dropped: [("log".to_string(), dropped)].into(), ..Sample::default() };
            let now = Duration::from_secs(second);
            log.judge(&sample, Search::NotDue, now, Duration::ZERO, now)
        };
        assert_eq!(judge(0, 0.0), Delivery::Pending);
        assert_eq!(judge(15, 1.0), Delivery::Failing);
        assert_eq!(judge(45, 1.0), Delivery::Failing);
        assert_eq!(judge(60, 1.0), Delivery::Pending);
    }

    #[test]
    fn a_log_is_judged_by_the_canary_and_by_what_was_dropped() {
        let mut log = Log::default();
        let elsewhere = || Search::Elsewhere("/a.1".into());
        // Second, process, dropped, search, when its canary was sent -> verdict.
        let looks = [
            (1, 1.0, 7.0, Search::NotFound, 0, Delivery::Pending),
            (16, 1.0, 7.0, Search::Found, 15, Delivery::Delivering),
            (56, 1.0, 7.0, Search::NotDue, 15, Delivery::Delivering),
            (96, 1.0, 7.0, Search::NotFound, 95, Delivery::Pending),
            (111, 1.0, 7.0, Search::NotFound, 110, Delivery::Pending),
            (126, 1.0, 7.0, Search::NoFile, 125, Delivery::Missing(Search::NoFile)),
            (141, 1.0, 7.0, elsewhere(), 140, Delivery::Missing(elsewhere())),
            (156, 1.0, 7.0, Search::Found, 155, Delivery::Delivering),
            (171, 1.0, 8.0, Search::NotFound, 170, Delivery::Failing),
            (186, 1.0, 8.0, Search::NotDue, 170, Delivery::Failing),
            (201, 1.0, 9.0, Search::Found, 200, Delivery::Failing),
            (216, 1.0, 9.0, Search::Found, 215, Delivery::Delivering),
            (231, 2.0, 0.0, Search::Found, 230, Delivery::Delivering),
            (246, 3.0, 1.0, Search::NotFound, 245, Delivery::Failing),
        ];
        for (second, started, dropped, search, sent, want) in looks {
            let sample = Sample { started, dropped: [("log".to_string(), dropped)].into(), ..Sample::default() };
            let seconds = Duration::from_secs;
            let found = log.judge(&sample, search, seconds(sent), Duration::ZERO, seconds(second));
            assert_eq!(found, want, "at {second}");
        }
    }
}
