//! Since when this node's kube-apiserver is ready.

use std::time::Instant;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// An API server that is ready.
pub(super) struct Ready {
    begun: Instant,
    /// The same by the wall clock.
    pub(super) since: Timestamp,
}

impl Ready {
    /// By how much the wall clock may differ from the steady one before the moment is corrected.
    const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

    pub(super) fn continued(before: Option<Self>, now: Timestamp) -> Self {
        let Some(Self { begun, since }) = before else { return Self { begun: Instant::now(), since: now } };
        let by_steady = now - begun.elapsed();
        let is_off = since.duration_since(by_steady).abs() > Self::TOLERANCE;
        Self { begun, since: if is_off { by_steady } else { since } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_does_not_move_readiness() {
        let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let ready = Ready::continued(None, noon);
        assert_eq!(ready.since, noon);
        // A clock that is slewed does not change the moment.
        let ready = Ready::continued(Some(ready), noon + SignedDuration::from_secs(1));
        assert_eq!(ready.since, noon);
        for hours in [1, -1] {
            let now = noon + SignedDuration::from_hours(hours);
            let ready = Ready::continued(Some(Ready { begun: ready.begun, since: noon }), now);
            assert!(now.duration_since(ready.since) < SignedDuration::from_secs(30), "{hours}: {}", ready.since);
        }
    }
}
