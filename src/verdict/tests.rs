use super::*;
use crate::fixture::{self, evidence};
use crate::journal::{Change, Journal};

fn clock(boot: &str, seconds: u64) -> Clock {
    let wall = k8s_openapi::jiff::Timestamp::from_second(1_800_000_000).unwrap();
    Clock { wall, boot_id: boot.into(), since_boot_ms: seconds * 1000 }
}

/// A change that was staged 90 s after the boot "a".
fn change(stage: Stage) -> Change {
    fixture::change("r-0123456789", clock("a", 90), stage)
}

/// It was begun at 100 s.
fn taking_out() -> Change {
    change(Stage::TakingOut { begun: clock("a", 100) })
}

fn verifying() -> Change {
    change(Stage::Verifying { begun: clock("a", 100) })
}

fn rollback(way: Way) -> Rollback {
    Rollback { begun: clock("a", 100), cause: crash(), way, since: clock("a", 150), starts: 2, ended_kubelet: None }
}

fn rolling_back(way: Way) -> Change {
    change(Stage::RollingBack(rollback(way)))
}

fn in_journal<T>(change: &Change, judge: impl FnOnce(UnderWay) -> T) -> T {
    let journal = Journal { change: Some(change.clone()), ..Journal::default() };
    judge(journal.under_way().expect("it has not ended"))
}

fn next(change: &Change, evidence: &Evidence, now: &Clock) -> Step {
    in_journal(change, |change| super::next(change, evidence, now))
}

/// The way of a rollback for that crash.
fn way(step: &Step) -> Option<Way> {
    match step {
        Step::RollBack(rollback) if rollback.cause == crash() => Some(rollback.way),
        _ => None,
    }
}

fn crash() -> Cause {
    Cause {
        reason: Reason::CrashLoop,
        message: "kube-apiserver exited 2 times with the new settings".into(),
        last_words: Some("boom".into()),
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
        Step::End(verdict) => verdict.cause().map(|cause| cause.reason),
        Step::RollBack(Rollback { cause, .. }) => Some(cause.reason),
        _ => None,
    }
}

#[test]
fn a_change_begins_only_on_a_serving_api_server_and_the_planned_manifest() {
    let staged = change(Stage::Staged);
    let mut swift = staged.clone();
    swift.rollout.method = Method::Swift;
    let good = serving(InPlace::Before, Runs::Before, 0);
    assert_eq!(next(&staged, &good, &clock("a", 91)), Step::BeginPutIn { begun: clock("a", 91) });
    assert_eq!(next(&swift, &good, &clock("a", 91)), Step::BeginTakeOut { begun: clock("a", 91) });
    assert_eq!(next(&staged, &evidence(InPlace::Before), &clock("a", 91)), Step::Wait);
    let abandoned = next(&staged, &evidence(InPlace::Before), &clock("a", 500));
    assert_eq!(reason(&abandoned), Some(Reason::ApiServerDown));
    // A manifest that is in place already is watched, whether or not it serves: it is ours.
    assert_eq!(next(&staged, &evidence(InPlace::After), &clock("a", 91)), Step::BeginPutIn { begun: clock("a", 91) });
    for other in [InPlace::Foreign, InPlace::Missing] {
        assert_eq!(
            reason(&next(&staged, &serving(other, Runs::Before, 0), &clock("a", 91))),
            Some(Reason::ManifestChanged)
        );
    }
}

#[test]
fn a_manifest_that_was_taken_out_comes_back_whatever_happens() {
    let out = taking_out();
    let put_in = Step::BeginPutIn { begun: clock("a", 100) };
    let waiting = evidence(InPlace::Missing);
    let released = Evidence { released: true, ..waiting.clone() };
    assert_eq!(next(&out, &evidence(InPlace::Before), &clock("a", 101)), Step::TakeOut);
    assert_eq!(next(&out, &waiting, &clock("a", 102)), Step::Wait);
    assert_eq!(next(&out, &released, &clock("a", 103)), put_in);
    assert_eq!(
        next(&out, &waiting, &clock("a", 401)),
        put_in,
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
    let verifying = verifying();
    let now = clock("a", 130);
    let confirmed = Step::End(Verdict::Confirmed);
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
    let verifying = verifying();
    assert_eq!(next(&verifying, &evidence(InPlace::Before), &clock("a", 101)), Step::PutIn);
    assert_eq!(next(&verifying, &evidence(InPlace::Missing), &clock("a", 101)), Step::PutIn);
    for in_place in [InPlace::Before, InPlace::Missing] {
        let too_late = next(&verifying, &evidence(in_place), &clock("a", 401));
        assert!(
            matches!(too_late, Step::RollBack(Rollback { way: Way::Manifest, .. })),
            "it cannot be written: {too_late:?}"
        );
    }
    assert_eq!(reason(&next(&verifying, &evidence(InPlace::Foreign), &clock("a", 101))), Some(Reason::ManifestChanged));
}

#[test]
fn a_crash_loop_is_seen_before_the_deadline() {
    let verifying = verifying();
    let now = clock("a", 140);
    assert_eq!(next(&verifying, &crashing(InPlace::After, 1), &now), Step::Wait, "one exit may be innocent");
    let expected = Step::RollBack(Rollback { since: now.clone(), ..rollback(Way::Manifest) });
    assert_eq!(next(&verifying, &crashing(InPlace::After, 2), &now), expected);
    let mut second_try = crashing(InPlace::After, 2);
    second_try.process = Some(Process { runs: Runs::After, started_since_boot_ms: 139_000 });
    assert_eq!(next(&verifying, &second_try, &now), Step::Wait, "the second start still runs");
    let beside_old = |starts| Evidence { starts_beside_old: 3, ..crashing(InPlace::After, starts) };
    assert_eq!(next(&verifying, &beside_old(3), &now), Step::Wait, "the old process had the port");
    assert_eq!(next(&verifying, &beside_old(4), &now), Step::Wait, "one exit may be innocent");
    assert_eq!(way(&next(&verifying, &beside_old(5), &now)), Some(Way::Manifest));
}

#[test]
fn the_deadline_takes_back_what_neither_serves_nor_exits() {
    let verifying = verifying();
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
    let verifying = verifying();
    let after_reboot = fresh_kubelet(crashing(InPlace::After, 3), 4_000);
    let restarted_by_hand = fresh_kubelet(crashing(InPlace::After, 3), 120_000);
    let older = fresh_kubelet(crashing(InPlace::After, 3), 50_000);
    let way = |evidence: &Evidence, now: &Clock| match next(&verifying, evidence, now) {
        Step::RollBack(Rollback { way, .. }) => way,
        other => panic!("{other:?}"),
    };
    assert_eq!(way(&after_reboot, &clock("b", 40)), Way::Files);
    assert_eq!(way(&restarted_by_hand, &clock("a", 160)), Way::Files);
    assert_eq!(way(&older, &clock("a", 160)), Way::Manifest);
}

#[test]
fn good_files_bring_the_server_back_and_only_then_the_manifest_follows() {
    let files = rolling_back(Way::Files);
    let repair = |since, starts| Step::RepairFiles(Rollback { since, starts, ..rollback(Way::Files) });
    assert_eq!(next(&files, &crashing(InPlace::After, 3), &clock("a", 151)), repair(clock("a", 150), 3));
    let now = clock("a", 160);
    let expected = Step::RollBack(Rollback { since: now.clone(), starts: 1, ..rollback(Way::Manifest) });
    assert_eq!(next(&files, &serving(InPlace::After, Runs::After, 100), &now), expected);
    let exited = |times| crashing(InPlace::After, times);
    let repaired = |times| Evidence { is_repaired: true, ..exited(times) };
    assert_eq!(
        next(&files, &exited(9), &clock("b", 40)),
        repair(clock("b", 40), 9),
        "none of those starts has read good files"
    );
    assert_eq!(next(&files, &repaired(3), &clock("a", 170)), Step::Wait, "that start may have read the bad files");
    assert_eq!(way(&next(&files, &repaired(4), &clock("a", 170))), Some(Way::Kubelet));
}

#[test]
fn files_that_cannot_be_repaired_are_not_waited_for_without_end() {
    let files = rolling_back(Way::Files);
    let at = |now: Clock| next(&files, &crashing(InPlace::After, 2), &now);
    assert!(matches!(at(clock("a", 390)), Step::RepairFiles(_)));
    assert_eq!(way(&at(clock("a", 391))), Some(Way::Kubelet));
    assert!(matches!(at(clock("b", 900)), Step::RepairFiles(_)), "a node may take long to boot");
}

#[test]
fn a_manifest_that_somebody_wrote_while_the_kubelet_ignores_it_does_not_keep_the_files_bad() {
    let files = rolling_back(Way::Files);
    assert!(matches!(next(&files, &crashing(InPlace::Foreign, 2), &clock("a", 151)), Step::RepairFiles(_)));
    let repaired = Evidence { is_repaired: true, ..crashing(InPlace::Foreign, 2) };
    assert_eq!(next(&files, &repaired, &clock("a", 152)), Step::Wait);
    let back = Step::End(Verdict::RolledBack(crash()));
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
    let back = Step::End(Verdict::RolledBack(crash()));
    assert_eq!(next(&manifest, &serving(InPlace::Before, Runs::Before, 0), &clock("a", 165)), back);
}

#[test]
fn the_kubelet_is_ended_once_and_only_where_it_may_be() {
    let stuck = evidence(InPlace::Before);
    let manifest = rolling_back(Way::Manifest);
    let late = clock("a", 300);
    assert_eq!(way(&next(&manifest, &stuck, &late)), Some(Way::Kubelet));
    let kubelet = rolling_back(Way::Kubelet);
    assert_eq!(
        next(&kubelet, &evidence(InPlace::After), &late),
        Step::PutBack,
        "the good manifest is in place before the kubelet starts again"
    );
    let end = |at: Clock| Rollback {
        ended_kubelet: Some(EndedKubelet { started_since_boot_ms: 10_000, at }),
        ..rollback(Way::Kubelet)
    };
    assert_eq!(next(&kubelet, &stuck, &late), Step::EndKubelet(end(late.clone())));
    assert_eq!(next(&kubelet, &stuck, &clock("b", 100)), Step::Wait, "this one may have seen the old manifest first");
    assert_eq!(next(&kubelet, &stuck, &clock("b", 121)), Step::EndKubelet(end(clock("b", 121))));
    let kubelet = change(Stage::RollingBack(end(late.clone())));
    assert_eq!(next(&kubelet, &stuck, &late), Step::Wait, "it takes a moment to end");
    let again = Step::EndKubelet(end(clock("a", 311)));
    assert_eq!(next(&kubelet, &stuck, &clock("a", 311)), again, "it still runs: it got no signal");
    assert_eq!(next(&kubelet, &fresh_kubelet(stuck.clone(), 304_000), &clock("a", 999)), Step::Wait, "another one");
    assert_eq!(next(&kubelet, &stuck, &clock("b", 311)), Step::Wait, "another one, of another boot");
    let none = Evidence { kubelet: None, ..stuck.clone() };
    assert_eq!(next(&rolling_back(Way::Kubelet), &none, &late), Step::Wait, "there is none to end");
    for (way, is_stuck) in [(Way::Kubelet, true), (Way::Manifest, true), (Way::Files, false)] {
        let mut never = rolling_back(way);
        assert!(!in_journal(&never, |never| super::is_stuck(never, &late)), "the guard ends the kubelet");
        never.rollout.restart_kubelet = RestartKubelet::Never;
        let found = |now: Clock| in_journal(&never, |never| super::is_stuck(never, &now));
        assert_eq!((found(clock("a", 270)), found(clock("a", 271))), (false, is_stuck), "{way:?}");
        assert!(way == Way::Files || next(&never, &stuck, &late) == Step::Wait);
    }
}

#[test]
fn times_that_no_setup_can_have_keep_nothing_waiting_for_ever() {
    let mut endless = verifying();
    (endless.rollout.confirm_timeout_seconds, endless.rollout.min_ready_seconds) = (i64::MAX, i64::MAX);
    let hanging = Evidence { serving_ms: None, ..serving(InPlace::After, Runs::After, 0) };
    assert_eq!(next(&endless, &hanging, &clock("a", 3700)), Step::Wait);
    assert_eq!(reason(&next(&endless, &hanging, &clock("a", 3701))), Some(Reason::ConfirmTimeout));
    let good = serving(InPlace::After, Runs::After, 3_600_000);
    assert_eq!(next(&endless, &good, &clock("a", 3701)), Step::End(Verdict::Confirmed));
    (endless.rollout.confirm_timeout_seconds, endless.rollout.min_ready_seconds) = (i64::MIN, i64::MIN);
    assert_eq!(next(&endless, &good, &clock("a", 101)), Step::End(Verdict::Confirmed));
    let mut rollback = rollback(Way::Files);
    rollback.starts = u32::MAX;
    let counted = Evidence { is_repaired: true, ..crashing(InPlace::After, u32::MAX) };
    assert_eq!(next(&change(Stage::RollingBack(rollback)), &counted, &clock("a", 151)), Step::Wait);
}
