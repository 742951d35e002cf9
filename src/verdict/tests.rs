use super::*;
use crate::api::Rollout;
use crate::journal::{EndedKubelet, Endpoint, Rollback, Sha};
use crate::revision::RevisionId;

fn clock(boot: &str, seconds: u64) -> Clock {
    let wall = k8s_openapi::jiff::Timestamp::from_second(1_800_000_000).unwrap();
    Clock { wall, boot_id: boot.into(), since_boot_ms: seconds * 1000 }
}

/// A change that was staged 90 s after the boot "a" and begun at 100 s.
fn change(stage: Stage) -> Change {
    Change {
        number: 1,
        target: Some(RevisionId::try_from("r-0123456789".to_string()).unwrap()),
        setup_generation: 1,
        before: Sha::of(b"before"),
        after: Sha::of(b"after"),
        is_in_place: false,
        ours: Sha::of(b"after"),
        argv_before: vec!["kube-apiserver".into()],
        argv_after: vec!["kube-apiserver".into(), "--audit-log-path=-".into()],
        probe: Endpoint { host: "127.0.0.1".into(), port: 6443 },
        pod: "kube-apiserver".into(),
        container: "kube-apiserver".into(),
        pods_before: vec![],
        rollout: Rollout::default(),
        stage,
        staged: clock("a", 90),
        begun: (stage != Stage::Staged).then(|| clock("a", 100)),
        rollback: None,
        cause: None,
        finished: None,
    }
}

fn rolling_back(way: Way) -> Change {
    let rollback = Rollback { way, begun: clock("a", 150), starts: 2, ended_kubelet: None };
    Change { rollback: Some(rollback), cause: Some(crash()), ..change(Stage::RollingBack) }
}

fn crash() -> Cause {
    Cause {
        reason: Reason::CrashLoop,
        message: "kube-apiserver exited 2 times with the new settings".into(),
        last_words: Some("boom".into()),
    }
}

fn evidence(in_place: InPlace) -> Evidence {
    Evidence {
        in_place,
        process: None,
        released: false,
        is_repaired: false,
        serving_ms: None,
        starts: 0,
        starts_beside_old: 0,
        last_words: None,
        kubelet: Some(Kubelet { started_since_boot_ms: 10_000, has_seen_api: true }),
    }
}

fn serving(in_place: InPlace, runs: Runs, ms: u64) -> Evidence {
    let process = Some(Process { runs, started_since_boot_ms: 110_000 });
    Evidence { process, serving_ms: Some(ms), starts: 1, ..evidence(in_place) }
}

fn crashing(in_place: InPlace, starts: u32) -> Evidence {
    Evidence { starts, last_words: Some("boom".into()), ..evidence(in_place) }
}

fn fresh_kubelet(evidence: Evidence, started_since_boot_ms: u64) -> Evidence {
    Evidence { kubelet: Some(Kubelet { started_since_boot_ms, has_seen_api: false }), ..evidence }
}

fn reason(step: &Step) -> Option<Reason> {
    match step {
        Step::Finish { cause, .. } => cause.as_ref().map(|cause| cause.reason),
        Step::RollBack { cause, .. } => Some(cause.reason),
        _ => None,
    }
}

#[test]
fn a_change_begins_only_on_a_serving_api_server_and_the_planned_manifest() {
    let staged = change(Stage::Staged);
    let mut swift = staged.clone();
    swift.rollout.method = Method::Swift;
    let good = serving(InPlace::Before, Runs::Before, 0);
    assert_eq!(next(&staged, &good, &clock("a", 91)), Step::BeginPutIn);
    assert_eq!(next(&swift, &good, &clock("a", 91)), Step::BeginTakeOut);
    assert_eq!(next(&staged, &evidence(InPlace::Before), &clock("a", 91)), Step::Wait);
    let gave_up = next(&staged, &evidence(InPlace::Before), &clock("a", 500));
    assert_eq!(reason(&gave_up), Some(Reason::ApiServerDown));
    // What lies there already is watched, whether or not it serves: it is ours.
    assert_eq!(next(&staged, &evidence(InPlace::After), &clock("a", 91)), Step::BeginPutIn);
    for other in [InPlace::Foreign, InPlace::Missing] {
        assert_eq!(
            reason(&next(&staged, &serving(other, Runs::Before, 0), &clock("a", 91))),
            Some(Reason::ManifestChanged)
        );
    }
}

#[test]
fn a_manifest_that_was_taken_out_comes_back_whatever_happens() {
    let out = change(Stage::TakingOut);
    let waiting = evidence(InPlace::Missing);
    let released = Evidence { released: true, ..waiting.clone() };
    assert_eq!(next(&out, &evidence(InPlace::Before), &clock("a", 101)), Step::TakeOut);
    assert_eq!(next(&out, &waiting, &clock("a", 102)), Step::Wait);
    assert_eq!(next(&out, &released, &clock("a", 103)), Step::BeginPutIn);
    assert_eq!(
        next(&out, &waiting, &clock("a", 401)),
        Step::BeginPutIn,
        "a process that never goes must not leave the node without a manifest"
    );
    assert_eq!(
        next(&out, &waiting, &clock("b", 5)),
        Step::PutBack,
        "after a reboot the last good manifest comes first"
    );
    assert_eq!(reason(&next(&out, &evidence(InPlace::Before), &clock("b", 6))), Some(Reason::Interrupted));
    assert_eq!(reason(&next(&out, &evidence(InPlace::Foreign), &clock("a", 103))), Some(Reason::ManifestChanged));
}

#[test]
fn only_the_new_process_serving_long_enough_confirms() {
    let verifying = change(Stage::Verifying);
    let now = clock("a", 130);
    let confirmed = Step::Finish { stage: Stage::Confirmed, cause: None };
    assert_eq!(next(&verifying, &serving(InPlace::After, Runs::After, 10_000), &now), confirmed);
    assert_eq!(next(&verifying, &serving(InPlace::After, Runs::After, 9_999), &now), Step::Wait);
    assert_eq!(
        next(&verifying, &serving(InPlace::After, Runs::Before, 60_000), &now),
        Step::Wait,
        "the old process still answers"
    );
    assert_eq!(next(&verifying, &serving(InPlace::After, Runs::Other, 60_000), &now), Step::Wait);
    assert_eq!(
        next(&verifying, &serving(InPlace::After, Runs::Either, 10_000), &now),
        confirmed,
        "started after the change"
    );
    let mut old = serving(InPlace::After, Runs::Either, 10_000);
    old.process = Some(Process { runs: Runs::Either, started_since_boot_ms: 99_000 });
    assert_eq!(next(&verifying, &old, &now), Step::Wait, "equal command lines, started before the change");
}

#[test]
fn putting_in_is_repeated_until_the_manifest_lies_there_and_never_over_a_foreign_one() {
    let verifying = change(Stage::Verifying);
    assert_eq!(next(&verifying, &evidence(InPlace::Before), &clock("a", 101)), Step::PutIn);
    assert_eq!(next(&verifying, &evidence(InPlace::Missing), &clock("a", 101)), Step::PutIn);
    for in_place in [InPlace::Before, InPlace::Missing] {
        let too_late = next(&verifying, &evidence(in_place), &clock("a", 401));
        assert!(matches!(too_late, Step::RollBack { way: Way::Manifest, .. }), "it cannot be written: {too_late:?}");
    }
    assert_eq!(reason(&next(&verifying, &evidence(InPlace::Foreign), &clock("a", 101))), Some(Reason::ManifestChanged));
}

#[test]
fn a_crash_loop_is_seen_before_the_deadline() {
    let verifying = change(Stage::Verifying);
    let now = clock("a", 140);
    assert_eq!(next(&verifying, &crashing(InPlace::After, 1), &now), Step::Wait, "one exit may be innocent");
    let expected = Step::RollBack { way: Way::Manifest, cause: crash() };
    assert_eq!(next(&verifying, &crashing(InPlace::After, 2), &now), expected);
    let mut second_try = crashing(InPlace::After, 2);
    second_try.process = Some(Process { runs: Runs::After, started_since_boot_ms: 139_000 });
    assert_eq!(next(&verifying, &second_try, &now), Step::Wait, "the second start still runs");
    let beside_old = |starts| Evidence { starts_beside_old: 3, ..crashing(InPlace::After, starts) };
    assert_eq!(next(&verifying, &beside_old(3), &now), Step::Wait, "the old process had the port");
    assert_eq!(next(&verifying, &beside_old(4), &now), Step::Wait, "one exit may be innocent");
    assert_eq!(next(&verifying, &beside_old(5), &now), expected);
}

#[test]
fn the_deadline_takes_back_what_neither_serves_nor_exits() {
    let verifying = change(Stage::Verifying);
    let hanging = Evidence { serving_ms: None, ..serving(InPlace::After, Runs::After, 0) };
    assert_eq!(next(&verifying, &hanging, &clock("a", 400)), Step::Wait);
    assert_eq!(reason(&next(&verifying, &hanging, &clock("a", 401))), Some(Reason::ConfirmTimeout));
    let never_started = evidence(InPlace::After);
    assert_eq!(reason(&next(&verifying, &never_started, &clock("a", 401))), Some(Reason::NotStarted));
    assert_eq!(
        next(&verifying, &hanging, &clock("b", 60)),
        Step::Wait,
        "after a reboot the deadline counts from the boot"
    );
    assert_eq!(reason(&next(&verifying, &hanging, &clock("b", 301))), Some(Reason::ConfirmTimeout));
}

#[test]
fn a_kubelet_that_has_seen_no_api_server_keeps_its_manifest_and_gets_good_files() {
    let verifying = change(Stage::Verifying);
    let after_reboot = fresh_kubelet(crashing(InPlace::After, 3), 4_000);
    let restarted_by_hand = fresh_kubelet(crashing(InPlace::After, 3), 120_000);
    let older = fresh_kubelet(crashing(InPlace::After, 3), 50_000);
    let way = |evidence: &Evidence, now: &Clock| match next(&verifying, evidence, now) {
        Step::RollBack { way, .. } => way,
        other => panic!("{other:?}"),
    };
    assert_eq!(way(&after_reboot, &clock("b", 40)), Way::Files);
    assert_eq!(way(&restarted_by_hand, &clock("a", 160)), Way::Files);
    assert_eq!(way(&older, &clock("a", 160)), Way::Manifest);
}

#[test]
fn good_files_bring_the_server_back_and_only_then_the_manifest_follows() {
    let files = rolling_back(Way::Files);
    assert_eq!(next(&files, &crashing(InPlace::After, 2), &clock("a", 151)), Step::RepairFiles);
    let expected = Step::RollBack { way: Way::Manifest, cause: crash() };
    assert_eq!(next(&files, &serving(InPlace::After, Runs::After, 100), &clock("a", 160)), expected);
    let exited = |times| crashing(InPlace::After, times);
    let repaired = |times| Evidence { is_repaired: true, ..exited(times) };
    assert_eq!(
        next(&files, &exited(9), &clock("b", 40)),
        Step::RepairFiles,
        "none of those starts has read good files"
    );
    assert_eq!(next(&files, &repaired(3), &clock("a", 170)), Step::Wait, "that start may have read the bad files");
    assert_eq!(next(&files, &repaired(4), &clock("a", 170)), Step::RollBack { way: Way::Kubelet, cause: crash() });
}

#[test]
fn files_that_cannot_be_repaired_are_not_waited_for_without_end() {
    let files = rolling_back(Way::Files);
    assert_eq!(next(&files, &crashing(InPlace::After, 2), &clock("a", 390)), Step::RepairFiles);
    let last = Step::RollBack { way: Way::Kubelet, cause: crash() };
    assert_eq!(next(&files, &crashing(InPlace::After, 2), &clock("a", 391)), last);
    assert_eq!(
        next(&files, &crashing(InPlace::After, 2), &clock("b", 900)),
        Step::RepairFiles,
        "a node may take long to boot"
    );
}

#[test]
fn a_manifest_that_somebody_wrote_while_the_kubelet_ignores_it_does_not_keep_the_files_bad() {
    let files = rolling_back(Way::Files);
    assert_eq!(next(&files, &crashing(InPlace::Foreign, 2), &clock("a", 151)), Step::RepairFiles);
    let repaired = Evidence { is_repaired: true, ..crashing(InPlace::Foreign, 2) };
    assert_eq!(next(&files, &repaired, &clock("a", 152)), Step::Wait);
    let back = Step::Finish { stage: Stage::RolledBack, cause: Some(crash()) };
    let serving = Evidence { serving_ms: Some(0), ..repaired.clone() };
    assert_eq!(next(&files, &serving, &clock("a", 170)), back);
    assert_eq!(next(&files, &repaired, &clock("a", 391)), back, "it is theirs to bring up");
    assert_eq!(next(&rolling_back(Way::Manifest), &crashing(InPlace::Foreign, 2), &clock("a", 151)), back);
}

#[test]
fn the_way_back_ends_when_the_old_server_serves() {
    let manifest = rolling_back(Way::Manifest);
    assert_eq!(next(&manifest, &evidence(InPlace::After), &clock("a", 151)), Step::PutBack);
    assert_eq!(next(&manifest, &evidence(InPlace::Missing), &clock("a", 151)), Step::PutBack);
    assert_eq!(next(&manifest, &evidence(InPlace::Before), &clock("a", 152)), Step::Wait);
    assert_eq!(next(&manifest, &serving(InPlace::Before, Runs::After, 5_000), &clock("a", 152)), Step::Wait);
    let back = Step::Finish { stage: Stage::RolledBack, cause: Some(crash()) };
    assert_eq!(next(&manifest, &serving(InPlace::Before, Runs::Before, 0), &clock("a", 165)), back);
}

#[test]
fn the_kubelet_is_ended_once_and_only_where_it_may_be() {
    let stuck = evidence(InPlace::Before);
    let manifest = rolling_back(Way::Manifest);
    let late = clock("a", 300);
    assert_eq!(next(&manifest, &stuck, &late), Step::RollBack { way: Way::Kubelet, cause: crash() });
    let mut kubelet = rolling_back(Way::Kubelet);
    assert_eq!(
        next(&kubelet, &evidence(InPlace::After), &late),
        Step::PutBack,
        "the good manifest lies there before the kubelet starts anew"
    );
    assert_eq!(next(&kubelet, &stuck, &late), Step::EndKubelet);
    assert_eq!(next(&kubelet, &stuck, &clock("b", 100)), Step::Wait, "this one may have seen the old manifest first");
    assert_eq!(next(&kubelet, &stuck, &clock("b", 121)), Step::EndKubelet);
    let ended = EndedKubelet { started_since_boot_ms: 10_000, at: late.clone() };
    kubelet.rollback.as_mut().unwrap().ended_kubelet = Some(ended);
    assert_eq!(next(&kubelet, &stuck, &late), Step::Wait, "it takes a moment to end");
    assert_eq!(next(&kubelet, &stuck, &clock("a", 311)), Step::EndKubelet, "it runs on: it was not told");
    assert_eq!(next(&kubelet, &fresh_kubelet(stuck.clone(), 304_000), &clock("a", 999)), Step::Wait, "another one");
    assert_eq!(next(&kubelet, &stuck, &clock("b", 311)), Step::Wait, "another one, of another boot");
    let none = Evidence { kubelet: None, ..stuck.clone() };
    assert_eq!(next(&rolling_back(Way::Kubelet), &none, &late), Step::Wait, "there is none to end");
    let mut never = rolling_back(Way::Kubelet);
    never.rollout.restart_kubelet = RestartKubelet::Never;
    assert_eq!(next(&never, &stuck, &late), Step::Wait);
    never.rollback.as_mut().unwrap().way = Way::Manifest;
    assert_eq!(next(&never, &stuck, &late), Step::Wait);
}

#[test]
fn a_finished_change_asks_for_nothing() {
    for stage in [Stage::Confirmed, Stage::RolledBack, Stage::Abandoned] {
        assert_eq!(next(&change(stage), &crashing(InPlace::Foreign, 9), &clock("b", 1)), Step::Wait);
    }
}
