//! When a pass asks `/readyz`: seldom while all is well, at every pass otherwise. Pure.
//!
//! Every request costs the node, and most are recorded in the audit log that they are meant to prove. So a node at rest
//! is asked once a minute, unless its answer to the canary proves more. In between, the connection that was kept shows
//! that its process is still there.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{NodeAuditStatus, NodeSinkStatus, Phase, Reason};

/// Between passes at rest: of the search for drift.
pub(super) const IDLE: Duration = Duration::from_secs(16);
/// For how long an answer proves that the API server is ready, while all is well.
const PROOF: Duration = Duration::from_secs(62);
/// For this long after a report that says something new, every pass asks: other nodes wait for what it says, and an
/// API server that is not well seldom hides it for longer.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// A pass may be that much early.
const EARLY: Duration = Duration::from_secs(1);

/// The answers so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    /// Since the API server last proved that it is ready.
    pub(super) ready_for: Option<Duration>,
    /// Whether the connection of the last answer is still open.
    pub(super) is_connected: bool,
    /// Whether the last look at the sinks got no answer.
    pub(super) is_failing: bool,
}

/// Whether a pass asks. `last`: the last report, if any.
pub(super) fn is_due(last: Option<&NodeAuditStatus>, answers: Answers, now: Timestamp) -> bool {
    let is_well = last.is_some_and(|last| is_well(last) && !is_fresh(last, now));
    let is_proven = answers.ready_for.is_some_and(|since| since + EARLY < PROOF);
    !(is_well && is_proven && answers.is_connected && !answers.is_failing)
}

/// Whether the node came to its phase, or its API server became ready, a short while ago. A clock that was set back
/// makes it fresh.
fn is_fresh(status: &NodeAuditStatus, now: Timestamp) -> bool {
    let moments = [&status.since, &status.ready_since];
    moments.into_iter().flatten().any(|Time(moment)| now.duration_since(*moment) < FRESH)
}

/// Whether the node is at its target, serves and delivers.
fn is_well(status: &NodeAuditStatus) -> bool {
    let is_at_rest = matches!(
        (status.phase, status.reason),
        (Phase::Confirmed, Some(Reason::Confirmed)) | (Phase::Unmanaged, Some(Reason::Unmanaged))
    );
    is_at_rest && status.ready_since.is_some() && status.sinks.iter().all(NodeSinkStatus::seems_to_deliver)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(change: impl Fn(&mut Value)) -> NodeAuditStatus {
        let yes = |reason: &str| json!({"status": "True", "reason": reason});
        let mut status = json!({
            "phase": "Confirmed", "reason": "Confirmed", "revision": "r-0000000001", "since": "2026-11-21T12:00:00Z",
            "readySince": "2026-11-21T12:00:00Z",
            "sinks": [{"name": "local", "reachable": yes("Reachable"), "delivering": yes("Delivering"), "lostEvents": 0}],
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn all_is_well_only_at_the_target_with_an_api_server_that_serves_and_sinks_that_deliver() {
        type Case = (&'static str, fn(&mut Value), bool);
        let cases: [Case; 8] = [
            ("confirmed", |_| {}, true),
            (
                "not ours",
                |it| *it = json!({"phase": "Unmanaged", "reason": "Unmanaged", "readySince": it["readySince"]}),
                true,
            ),
            ("waits for the slot", |it| it["reason"] = json!("Held"), false),
            ("changes", |it| it["phase"] = json!("Verifying"), false),
            ("drifted", |it| it["phase"] = json!("Drifted"), false),
            ("is down", |it| it["readySince"] = Value::Null, false),
            (
                "has not seen the canary yet",
                |it| it["sinks"][0]["delivering"] = json!({"status": "Unknown", "reason": "Pending"}),
                false,
            ),
            (
                "has no canary",
                |it| it["sinks"][0]["delivering"] = json!({"status": "Unknown", "reason": "CanaryOff"}),
                true,
            ),
        ];
        for (name, change, want) in cases {
            assert_eq!(is_well(&status(change)), want, "{name}");
        }
    }

    #[test]
    fn a_node_at_rest_is_asked_once_a_minute_and_any_other_at_every_pass() {
        let well = status(|_| {});
        let ill = status(|it| it["reason"] = json!("Held"));
        let (later, soon) = ("2026-11-21T12:05:01Z", "2026-11-21T12:04:59Z");
        let rest = Answers { ready_for: Some(IDLE * 3), is_connected: true, is_failing: false };
        let is_due = |last: Option<&NodeAuditStatus>, answers, now: &str| is_due(last, answers, now.parse().unwrap());
        assert!(!is_due(Some(&well), rest, later));
        assert!(is_due(Some(&well), Answers { ready_for: Some(IDLE * 4), ..rest }, later), "the proof is old");
        assert!(is_due(Some(&well), Answers { ready_for: None, ..rest }, later), "it was not ready");
        assert!(is_due(Some(&well), Answers { is_connected: false, ..rest }, later), "the connection ended");
        assert!(is_due(Some(&well), Answers { is_failing: true, ..rest }, later), "it does not answer");
        assert!(is_due(Some(&well), rest, soon), "others wait for it");
        assert!(is_due(Some(&ill), rest, later));
        assert!(is_due(None, rest, later), "nothing was reported yet");
    }
}
