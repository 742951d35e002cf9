//! When a pass asks the API server: seldom while all is well, at every pass otherwise. Pure.
//!
//! Every request costs the node, and most are recorded in the audit log that they are meant to prove. So a node at rest
//! is asked three times a minute: whether it is ready, for the canary, and for its metrics. In between, the connection
//! that was kept tells that its process is still there.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{NodeAuditStatus, NodeSinkStatus, Phase, Reason, Truth};

/// Between passes at rest: of the search for drift. Four of them make a look, a little more than a minute.
pub(super) const IDLE: Duration = Duration::from_secs(16);
/// Between looks at the sinks while all is well.
const LOOK: Duration = Duration::from_secs(62);
/// For how long an answer proves that the API server is ready, while all is well.
const PROOF: Duration = Duration::from_secs(30);
/// For this long after a report that says something new, every pass asks: other nodes wait for what it says, and an
/// API server that is not well seldom hides it for longer.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// A pass may be that much early.
const EARLY: Duration = Duration::from_secs(1);

/// The questions of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Questions {
    /// `/readyz`.
    pub(super) readiness: bool,
    /// The canary and the metrics, where no Change is under way.
    pub(super) sinks: bool,
}

/// The answers so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answers {
    /// Since the API server last proved that it is ready.
    pub(super) ready_for: Option<Duration>,
    /// Since the sinks were last looked at.
    pub(super) looked_for: Option<Duration>,
    /// Whether the connection of the last answer is still open.
    pub(super) is_connected: bool,
    /// Whether a look makes the canary request, whose answer proves more than `/readyz`.
    pub(super) has_canary: bool,
}

/// `last`: the last report, if any.
pub(super) fn questions(last: Option<&NodeAuditStatus>, answers: Answers, now: Timestamp) -> Questions {
    let is_well = last.is_some_and(|last| is_well(last) && !is_fresh(last, now));
    let interval = if is_well { LOOK } else { IDLE };
    let sinks = answers.looked_for.is_none_or(|since| since + EARLY >= interval);
    let is_proven = answers.is_connected && answers.ready_for.is_some_and(|since| since + EARLY < PROOF);
    Questions { readiness: !is_well || !(is_proven || sinks && answers.has_canary && answers.is_connected), sinks }
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
    let is_delivering = |sink: &NodeSinkStatus| {
        sink.reachable.status == Truth::True
            && (sink.delivering.status == Truth::True || sink.delivering.reason == Reason::CanaryOff)
    };
    is_at_rest && status.ready_since.is_some() && status.sinks.iter().all(is_delivering)
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
        let cases: [Case; 9] = [
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
            ("cannot reach a sink", |it| it["sinks"][0]["reachable"]["status"] = json!("False"), false),
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

    /// Passes every 16 s, as the questions of each: `r` for the readiness, `s` for the sinks.
    fn minute(last: Option<&NodeAuditStatus>, now: &str, has_canary: bool, is_connected: bool) -> String {
        let (mut ready_for, mut looked_for) = (None, None);
        let mut asked = Vec::new();
        for _ in 0..8 {
            let found =
                questions(last, Answers { ready_for, looked_for, is_connected, has_canary }, now.parse().unwrap());
            asked.push(format!("{}{}", if found.readiness { "r" } else { "" }, if found.sinks { "s" } else { "" }));
            let pass = |since: Option<Duration>, is_asked: bool| {
                Some(if is_asked { IDLE } else { since.unwrap_or_default() + IDLE })
            };
            ready_for = pass(ready_for, found.readiness || found.sinks && has_canary);
            looked_for = pass(looked_for, found.sinks);
        }
        asked.join(" ")
    }

    #[test]
    fn a_node_at_rest_is_asked_three_times_a_minute_and_any_other_at_every_pass() {
        let well = status(|_| {});
        let ill = status(|it| it["reason"] = json!("Held"));
        let (later, soon) = ("2026-11-21T12:05:01Z", "2026-11-21T12:04:59Z");
        assert_eq!(minute(Some(&well), later, true, true), "s  r  s  r ");
        assert_eq!(minute(Some(&well), later, false, true), "rs  r  rs  r ");
        assert_eq!(minute(Some(&well), later, true, false), "rs r r r rs r r r", "the connection ended");
        let always = "rs rs rs rs rs rs rs rs";
        assert_eq!(minute(Some(&well), soon, true, true), always, "others wait for it");
        assert_eq!(minute(Some(&ill), later, true, true), always);
        assert_eq!(minute(None, later, true, true), always, "nothing was reported yet");
    }
}
