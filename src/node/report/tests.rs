use super::*;
use crate::api::{RestartKubelet, Rollout};
use crate::fixture;
use crate::journal::{Change, Confirmed, EndedKubelet, Failure, Rollback, Sha, Verdict, Way};
use crate::plan::Refusal;
use crate::revision::RevisionId;

fn clock(second: u32) -> Clock {
    let noon: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let wall = noon + k8s_openapi::jiff::SignedDuration::from_secs(second.into());
    Clock { wall, boot_id: "a".into(), since_boot_ms: u64::from(second) * 1000 }
}

fn id(text: &str) -> RevisionId {
    text.to_string().try_into().unwrap()
}

/// A journal with a Change to a Revision.
fn journal(stage: Stage, restart_kubelet: RestartKubelet) -> Journal {
    let change = Change {
        rollout: Rollout { restart_kubelet, ..Rollout::default() },
        ..fixture::change("r-0123456789", clock(0), stage)
    };
    Journal { change: Some(change), changes: 1, ..Journal::default() }
}

fn confirmed(revision: &str) -> Journal {
    let confirmed = Confirmed { revision: id(revision), manifest: Sha::of(b""), at: clock(0).wall };
    Journal { confirmed: Some(confirmed), ..Journal::default() }
}

fn crash() -> Cause {
    Cause { reason: Reason::CrashLoop, message: "kube-apiserver exited 2 times".into(), last_words: None }
}

fn rolling_back(way: Way, ended_kubelet: bool) -> Stage {
    let ended_kubelet = ended_kubelet.then(|| EndedKubelet { started_since_boot_ms: 5, at: clock(110) });
    Stage::RollingBack(Rollback { begun: clock(1), cause: crash(), way, since: clock(100), starts: 2, ended_kubelet })
}

fn said(journal: &Journal, second: u32) -> Said {
    said_with(journal, second, Idle::Changing, true)
}

fn said_with(journal: &Journal, second: u32, idle: Idle, is_ready: bool) -> Said {
    let spec: NodeAuditSpec = serde_json::from_value(
        serde_json::json!({"setup": "cluster", "setupGeneration": 1, "revision": "r-0123456789"}),
    )
    .unwrap();
    let now = clock(second);
    let pass = Pass {
        spec: &spec,
        generation: Some(1),
        journal,
        plan: &Plan::Nothing(idle),
        api_server_version: None,
        ready_since: is_ready.then_some(now.wall),
        credentials: None,
        sinks: Vec::new(),
    };
    let status = report(&pass, &NodeAuditStatus::default(), &now);
    (status.phase, status.reason.unwrap(), status.message.unwrap())
}

#[test]
fn a_change_in_progress_shows_what_it_waits_for() {
    use RestartKubelet::{Never, WhenStuck};
    let stuck = "the kubelet does not follow it; restart the kubelet (rollout.restartKubelet is Never)";
    let back = |way| rolling_back(way, false);
    let verifying = Stage::Verifying { begun: clock(1) };
    for (stage, restart, second, phase, reason, part) in [
        (Stage::Staged, WhenStuck, 1, Phase::Staged, Reason::Staged, "waiting for the guard"),
        (verifying, WhenStuck, 1, Phase::Verifying, Reason::Verifying, "is restarting with revision r-0123456789"),
        (back(Way::Manifest), WhenStuck, 900, Phase::Verifying, Reason::CrashLoop, "exited 2 times; rolling back"),
        (back(Way::Manifest), Never, 219, Phase::Verifying, Reason::CrashLoop, "exited 2 times; rolling back"),
        (back(Way::Manifest), Never, 221, Phase::Verifying, Reason::KubeletStuck, stuck),
        (back(Way::Kubelet), Never, 221, Phase::Verifying, Reason::KubeletStuck, stuck),
        // The guard repairs the files: nobody has to do anything.
        (back(Way::Files), Never, 221, Phase::Verifying, Reason::CrashLoop, "exited 2 times; rolling back"),
    ] {
        let (found_phase, found_reason, message) = said(&journal(stage.clone(), restart), second);
        assert_eq!((found_phase, found_reason), (phase, reason), "{stage:?} {second}: {message}");
        assert!(message.contains(part), "{stage:?} {second}: {message}");
    }
}

#[test]
fn an_api_server_that_is_down_at_rest_is_reported() {
    let journal = Journal::default();
    let (phase, reason, _) = said_with(&journal, 1, Idle::AsDesired, true);
    assert_eq!((phase, reason), (Phase::Unmanaged, Reason::Unmanaged));
    let (phase, reason, message) = said_with(&journal, 1, Idle::AsDesired, false);
    assert_eq!((phase, reason), (Phase::Unmanaged, Reason::ApiServerDown));
    assert!(message.contains("is not ready"), "{message}");
}

#[test]
fn a_node_that_would_not_accept_its_revision_now_does_not_hold_up_the_others() {
    let refusal = Refusal { reason: Reason::RevisionUnreadable, message: "below the floor".into() };
    let (phase, reason, message) = said_with(&confirmed("r-0123456789"), 1, Idle::LeftAlone(refusal), true);
    assert_eq!((phase, reason), (Phase::Confirmed, Reason::RevisionUnreadable));
    assert!(message.contains("below the floor"), "{message}");
}

#[test]
fn a_change_that_waits_says_why() {
    let settling = Idle::Settling { changed_seconds_ago: 1, has_followed: true };
    for (idle, due, drifted, part) in [
        (Idle::Paused, Reason::Paused, Reason::Paused, "the rollout is paused"),
        (Idle::NoSlot, Reason::Held, Reason::Held, "waiting for the slot of this node"),
        (settling, Reason::Pending, Reason::Drifted, "somebody else changed the manifests"),
    ] {
        for (journal, phase, reason) in [
            (Journal::default(), Phase::Unmanaged, due),
            (confirmed("r-9876543210"), Phase::Confirmed, due),
            (confirmed("r-0123456789"), Phase::Drifted, drifted),
        ] {
            let (found_phase, found_reason, message) = said_with(&journal, 1, idle.clone(), true);
            assert_eq!((found_phase, found_reason), (phase, reason), "{idle:?}");
            let has_drifted = phase == Phase::Drifted;
            assert!(message.contains(part), "{message}");
            assert!(!has_drifted || message.contains("somebody else changed the manifest"), "{message}");
        }
    }
    let (_, _, message) = said_with(&confirmed("r-0123456789"), 1, Idle::NoSlot, false);
    assert!(message.contains("and kube-apiserver is not ready"), "{message}");
}

#[test]
fn a_kubelet_that_was_ended_is_reported_during_the_rollback_and_after_it() {
    for (ended, want) in [(false, Reason::CrashLoop), (true, Reason::KubeletRestarted)] {
        let journal = journal(rolling_back(Way::Kubelet, ended), RestartKubelet::WhenStuck);
        let (phase, reason, message) = said(&journal, 120);
        assert_eq!((phase, reason), (Phase::Verifying, want), "{message}");
        assert_eq!(message.contains("the kubelet was ended"), ended, "{message}");
        let journal = journal.under_way().unwrap().ended(Verdict::RolledBack(crash()), clock(130).wall);
        let failure: Failure = journal.failures[0].clone();
        assert_eq!(failure.cause.reason, Reason::CrashLoop);
        let (phase, reason, message) = said_with(&journal, 140, Idle::Quarantined(failure), true);
        assert_eq!((phase, reason), (Phase::RolledBack, want), "{message}");
        assert_eq!(message.contains("the kubelet was ended"), ended, "{message}");
    }
}

#[test]
fn an_abandoned_change_is_reported_until_the_next_verdict() {
    let first = journal(Stage::Staged, RestartKubelet::WhenStuck);
    let now = clock(1).wall;
    let cause = Cause { reason: Reason::GuardDidNotStart, message: "no image".into(), last_words: None };
    let abandoned = first.under_way().unwrap().ended(Verdict::Abandoned(cause), now);
    let again = Journal { change: first.change.clone(), ..abandoned };
    let (phase, reason, message) = said(&again, 1);
    assert_eq!((phase, reason), (Phase::Staged, Reason::GuardDidNotStart));
    assert!(message.contains("retrying") && message.contains("no image"), "{message}");
    let confirmed = again.under_way().unwrap().ended(Verdict::Confirmed, now);
    let third = Journal { change: first.change.clone(), ..confirmed };
    assert_eq!(said(&third, 1).1, Reason::Staged);
}

#[test]
fn a_report_that_the_api_has_taken_is_no_news() {
    let at = |text: &str| Some(Time(text.parse().unwrap()));
    let report = NodeAuditStatus {
        phase: Phase::Confirmed,
        ready_since: at("2026-11-21T12:00:00.734Z"),
        last_seen: at("2026-11-21T12:05:00.1Z"),
        ..NodeAuditStatus::default()
    };
    // The API keeps times in whole seconds.
    let stored: NodeAuditStatus = serde_json::from_value(json!(report)).unwrap();
    assert_ne!(stored, report);
    assert!(!differs(&stored, &report));
    let later = NodeAuditStatus { last_seen: at("2026-11-21T12:06:00Z"), ..report.clone() };
    assert!(!differs(&stored, &later), "the time of a report alone");
    let down = NodeAuditStatus { ready_since: None, ..report };
    assert!(differs(&stored, &down));
}
