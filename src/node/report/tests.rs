use serde_json::{Value, json};

use super::*;

fn clock(second: u32) -> Value {
    json!({"wall": format!("2026-11-21T12:{:02}:{:02}Z", second / 60, second % 60), "bootId": "a", "sinceBootMs": second * 1000})
}

/// A journal with a change to a Revision; `changed` overrides its fields.
fn journal(stage: &str, changed: Value) -> Journal {
    let sha = "0123456789ab";
    let mut change = json!({
        "number": 1, "target": "r-0123456789", "setupGeneration": 1, "before": sha, "after": sha, "ours": sha, "argvBefore": [], "argvAfter": [],
        "probe": {"host": "127.0.0.1", "port": 6443}, "podsBefore": [], "rollout": {}, "stage": stage, "staged": clock(0),
        "begun": null, "rollback": null, "cause": null, "finished": null,
    });
    change.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    serde_json::from_value(
        json!({"version": 1, "original": sha, "confirmed": null, "change": change, "changes": 1, "failures": []}),
    )
    .unwrap()
}

fn told(journal: &Journal, second: u32) -> (Phase, Reason, String) {
    told_with(journal, second, Idle::Changing, true)
}

fn told_with(journal: &Journal, second: u32, idle: Idle, is_ready: bool) -> (Phase, Reason, String) {
    let spec: NodeAuditSpec =
        serde_json::from_value(json!({"setup": "cluster", "setupGeneration": 1, "revision": "r-0123456789"})).unwrap();
    let now = clock(second)["wall"].as_str().unwrap().parse().unwrap();
    let known = Known {
        spec: &spec,
        generation: Some(1),
        journal,
        plan: Ok(&Plan::Nothing(idle)),
        api_server_version: None,
        ready_since: is_ready.then_some(now),
        credentials: None,
        sinks: Vec::new(),
    };
    let status = report(&known, &NodeAuditStatus::default(), now);
    (status.phase, status.reason.unwrap(), status.message.unwrap())
}

#[test]
fn a_change_under_way_tells_what_it_waits_for() {
    let cause = json!({"reason": "CrashLoop", "message": "kube-apiserver exited 2 times", "lastWords": null});
    let back = |way: &str, restart: &str| {
        json!({"cause": cause, "rollout": {"restartKubelet": restart},
            "rollback": {"way": way, "begun": clock(100), "starts": 2, "endedKubelet": null}})
    };
    let stuck = "the kubelet does not take it up; restart the kubelet (rollout.restartKubelet is Never)";
    for (stage, changed, second, phase, reason, part) in [
        ("Staged", json!({}), 1, Phase::Staged, Reason::Staged, "the guard has not begun"),
        ("Verifying", json!({}), 1, Phase::Verifying, Reason::Verifying, "is being restarted"),
        ("RollingBack", back("Manifest", "WhenStuck"), 900, Phase::Verifying, Reason::CrashLoop, "exited 2 times"),
        ("RollingBack", back("Manifest", "Never"), 219, Phase::Verifying, Reason::CrashLoop, "exited 2 times"),
        ("RollingBack", back("Manifest", "Never"), 221, Phase::Verifying, Reason::KubeletStuck, stuck),
        ("RollingBack", back("Kubelet", "Never"), 221, Phase::Verifying, Reason::KubeletStuck, stuck),
        // The files are being made good: nobody has to do anything.
        ("RollingBack", back("Files", "Never"), 221, Phase::Verifying, Reason::CrashLoop, "exited 2 times"),
    ] {
        let (phase_told, reason_told, message) = told(&journal(stage, changed), second);
        assert_eq!((phase_told, reason_told), (phase, reason), "{stage} {second}: {message}");
        assert!(message.contains(part), "{stage} {second}: {message}");
    }
}

#[test]
fn an_api_server_that_is_down_at_rest_is_told() {
    let journal = Journal::default();
    let (phase, reason, _) = told_with(&journal, 1, Idle::AsDesired, true);
    assert_eq!((phase, reason), (Phase::Unmanaged, Reason::Unmanaged));
    let (phase, reason, message) = told_with(&journal, 1, Idle::AsDesired, false);
    assert_eq!((phase, reason), (Phase::Unmanaged, Reason::ApiServerDown));
    assert!(message.contains("is not ready"), "{message}");
}

#[test]
fn a_node_that_runs_what_it_would_not_accept_now_does_not_hold_up_the_others() {
    let confirmed = json!({"revision": "r-0123456789", "manifest": "0123456789ab", "at": "2026-11-21T12:00:00Z"});
    let journal = Journal { confirmed: Some(serde_json::from_value(confirmed).unwrap()), ..Journal::default() };
    let refusal = Refusal { reason: Reason::RevisionUnreadable, message: "below the floor".into() };
    let (phase, reason, message) = told_with(&journal, 1, Idle::LeftAlone(refusal), true);
    assert_eq!((phase, reason), (Phase::Confirmed, Reason::RevisionUnreadable));
    assert!(message.contains("below the floor"), "{message}");
}

#[test]
fn what_waits_is_told_as_what_it_is() {
    let sha = "0123456789ab";
    let mut confirmed = Journal::default();
    for (idle, reason) in [(Idle::Paused, Reason::Paused), (Idle::Held, Reason::Held)] {
        for (revision, want, part) in [
            (None, Phase::Unmanaged, "a change waits"),
            (Some("r-9876543210"), Phase::Confirmed, "a change waits"),
            (Some("r-0123456789"), Phase::Drifted, "put back"),
        ] {
            let at = "2026-11-21T12:00:00Z";
            let runs = revision.map(|revision| json!({"revision": revision, "manifest": sha, "at": at}));
            confirmed.confirmed = serde_json::from_value(json!(runs)).unwrap();
            let (phase, told, message) = told_with(&confirmed, 1, idle.clone(), true);
            assert_eq!((phase, told), (want, reason), "{revision:?}");
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_kubelet_that_was_ended_is_told_on_the_way_back_and_after_it() {
    let cause = Cause { reason: Reason::CrashLoop, message: "it exited".into(), last_words: None };
    let rollback = |ended: bool| {
        let ended = ended.then(|| json!({"startedSinceBootMs": 5, "at": clock(110)}));
        json!({"cause": {"reason": "CrashLoop", "message": "it exited", "lastWords": null},
            "rollback": {"way": "Kubelet", "begun": clock(100), "starts": 2, "endedKubelet": ended}})
    };
    for (ended, want) in [(false, Reason::CrashLoop), (true, Reason::KubeletRestarted)] {
        let mut journal = journal("RollingBack", rollback(ended));
        let (phase, reason, message) = told(&journal, 120);
        assert_eq!((phase, reason), (Phase::Verifying, want), "{message}");
        assert_eq!(message.contains("the kubelet was ended"), ended, "{message}");
        journal.finish(Stage::RolledBack, Some(cause.clone()), "2026-11-21T12:02:10Z".parse().unwrap());
        let failure = journal.failures[0].clone();
        assert_eq!(failure.cause.reason, Reason::CrashLoop);
        let (phase, reason, message) = told_with(&journal, 140, Idle::Quarantined(failure), true);
        assert_eq!((phase, reason), (Phase::RolledBack, want), "{message}");
        assert_eq!(message.contains("the kubelet was ended"), ended, "{message}");
    }
}

#[test]
fn what_was_given_up_is_told_until_a_verdict() {
    let mut journal = journal("Staged", json!({}));
    let now = "2026-11-21T12:00:00Z".parse().unwrap();
    let cause = Cause { reason: Reason::GuardDidNotStart, message: "no image".into(), last_words: None };
    let again = journal.change.clone();
    journal.finish(Stage::Abandoned, Some(cause), now);
    journal.change.clone_from(&again);
    let (phase, reason, message) = told(&journal, 1);
    assert_eq!((phase, reason), (Phase::Staged, Reason::GuardDidNotStart));
    assert!(message.contains("tried again") && message.contains("no image"), "{message}");
    journal.finish(Stage::Confirmed, None, now);
    journal.change = again;
    assert_eq!(told(&journal, 1).1, Reason::Staged);
}
