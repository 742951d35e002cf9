//! Journals as programs have written them (`tests/cases/journal/`): each loads, and the guard continues it as the
//! program of its time did. `want.txt` was written by the last program that wrote version 1.

use std::fmt::Write as _;
use std::fs;

use testing::golden::{Differences, cases};
use testing::root;

use super::*;
use crate::fixture;
use crate::verdict::{Evidence, InPlace, Kubelet, Process, Runs, Step, next};

#[test]
fn every_old_journal_is_lifted_and_continued_as_before() {
    let mut differences = Differences::default();
    for directory in cases("tests/cases/journal") {
        let journal = Journal::read(&fs::read(directory.join("in.json")).unwrap()).unwrap();
        differences.compare(&directory.join("want.json"), Some(journal.to_json().as_bytes()));
        assert_eq!(Journal::read(journal.to_json().as_bytes()).unwrap(), journal, "{}", directory.display());
        let continued = journal.under_way().map_or("none is under way\n".into(), steps);
        differences.compare(&directory.join("want.txt"), Some(continued.as_bytes()));
    }
    differences.end();
}

/// States of a node, by name.
fn situations(change: UnderWay) -> Vec<(&'static str, Evidence)> {
    let kubelet = |started_since_boot_ms, has_seen_api| Some(Kubelet { started_since_boot_ms, has_seen_api });
    let nothing = |in_place| Evidence { kubelet: kubelet(9_999, true), ..fixture::evidence(in_place) };
    let serves = |in_place, runs| Evidence {
        process: Some(Process { runs, started_since_boot_ms: 2_000_000 }),
        serving_ms: Some(60_000),
        starts: 1,
        ..nothing(in_place)
    };
    let crashes = |in_place| Evidence { starts: 9, ..nothing(in_place) };
    let ended = change.rollback().and_then(|rollback| rollback.ended_kubelet.as_ref());
    let young = kubelet(ended.map_or(9_999, |it| it.started_since_boot_ms), false);
    vec![
        ("old serves", serves(InPlace::Before, Runs::Before)),
        ("old is down", nothing(InPlace::Before)),
        ("old is down, its kubelet is young", Evidence { kubelet: young, ..nothing(InPlace::Before) }),
        ("missing", nothing(InPlace::Missing)),
        ("missing, released", Evidence { released: true, ..nothing(InPlace::Missing) }),
        ("new serves", serves(InPlace::After, Runs::After)),
        ("new crashes", crashes(InPlace::After)),
        ("new crashes, its kubelet is young", Evidence { kubelet: kubelet(9_999, false), ..crashes(InPlace::After) }),
        ("new crashes, files repaired", Evidence { is_repaired: true, ..crashes(InPlace::After) }),
        ("new hangs", Evidence { serving_ms: None, ..serves(InPlace::After, Runs::After) }),
        ("foreign", nothing(InPlace::Foreign)),
        ("foreign serves", serves(InPlace::Foreign, Runs::Other)),
    ]
}

/// The next step in each situation, at once and later.
fn steps(change: UnderWay) -> String {
    let last = change.rollback().map(|rollback| &rollback.since).or(change.begun()).unwrap_or(&change.staged);
    let mut text = String::new();
    for (name, evidence) in situations(change) {
        let times = [
            ("at once", last.boot_id.clone(), last.since_boot_ms + 1_000),
            ("130 s later", last.boot_id.clone(), last.since_boot_ms + 130_000),
            ("500 s later", last.boot_id.clone(), last.since_boot_ms + 500_000),
            ("rebooted", "next".into(), 20_000),
            ("rebooted long ago", "next".into(), 500_000),
        ];
        write!(text, "{name}:").unwrap();
        let mut before = String::new();
        for (time, boot_id, since_boot_ms) in times {
            let now = Clock { wall: last.wall, boot_id, since_boot_ms };
            let step = label(&next(change, &evidence, &now));
            if step != before {
                write!(text, " {time} {step};").unwrap();
            }
            before = step;
        }
        text.pop();
        text.push('\n');
    }
    text
}

fn label(step: &Step) -> String {
    match step {
        Step::Wait => "Wait".into(),
        Step::BeginTakeOut { .. } => "BeginTakeOut".into(),
        Step::TakeOut => "TakeOut".into(),
        Step::BeginPutIn { .. } => "BeginPutIn".into(),
        Step::PutIn => "PutIn".into(),
        Step::RollBack(Rollback { way, cause, .. }) => format!("RollBack {way:?} {}", cause.reason),
        Step::PutBack => "PutBack".into(),
        Step::RepairFiles(_) => "RepairFiles".into(),
        Step::EndKubelet(_) => "EndKubelet".into(),
        Step::End(Verdict::Confirmed) => "Finish Confirmed".into(),
        Step::End(Verdict::RolledBack(cause)) => format!("Finish RolledBack {}", cause.reason),
        Step::End(Verdict::Abandoned(cause)) => format!("Finish Abandoned {}", cause.reason),
    }
}

#[test]
fn a_journal_of_version_1_whose_stage_lacks_a_part_is_rolled_back_or_ended() {
    let root = root().join("tests/cases/journal");
    for (case, lost) in [
        ("v1-taking-out", "begun"),
        ("v1-verifying", "begun"),
        ("v1-rolling-back-manifest", "rollback"),
        ("v1-rolling-back-files", "rollback"),
        ("v1-rolling-back-kubelet", "cause"),
        ("v1-rolled-back", "cause"),
        ("v1-abandoned", "cause"),
        ("v1-confirmed", "finished"),
    ] {
        let json = fs::read(root.join(case).join("in.json")).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        value["change"][lost] = serde_json::Value::Null;
        let journal = Journal::read(&serde_json::to_vec(&value).unwrap()).unwrap();
        let whole = Journal::read(&json).unwrap();
        match (&journal.change.unwrap().progress, &whole.change.unwrap().progress) {
            (Progress::UnderWay(Stage::RollingBack(rollback)), Progress::UnderWay(Stage::RollingBack(_))) => {
                assert!(lost == "cause" || rollback.way == Way::Manifest, "{case}");
            }
            (Progress::UnderWay(stage), Progress::UnderWay(whole)) => {
                assert_eq!(std::mem::discriminant(stage), std::mem::discriminant(whole), "{case}");
            }
            (Progress::Ended { verdict, .. }, Progress::Ended { verdict: whole, .. }) => {
                assert_eq!(std::mem::discriminant(verdict), std::mem::discriminant(whole), "{case}");
            }
            (progress, _) => panic!("{case}: {progress:?}"),
        }
    }
}

#[test]
fn a_moment_that_this_boot_has_not_reached_counts_as_one_of_another_boot() {
    let clock = |boot: &str, since_boot_ms| Clock { wall: Timestamp::UNIX_EPOCH, boot_id: boot.into(), since_boot_ms };
    for (now, earlier, want) in [
        (clock("a", 900), clock("a", 100), 800),
        (clock("a", 900), clock("a", 900), 0),
        (clock("a", 900), clock("a", u64::MAX), 900),
        (clock("b", 900), clock("a", 100), 900),
    ] {
        assert_eq!(now.ms_since(&earlier), want, "{now:?} {earlier:?}");
    }
}

#[test]
fn a_failure_counts_under_its_own_setup_and_generation_only() {
    let failure = serde_json::json!({
        "target": "r-0123456789", "setupGeneration": 5, "at": "2026-11-21T12:00:00Z",
        "cause": {"reason": "CrashLoop", "message": "", "lastWords": null},
    });
    // As version 1 wrote it before it had a uid.
    let old = serde_json::json!({"version": 1, "changes": 1, "failures": [failure]});
    let mut journal = Journal::read(old.to_string().as_bytes()).unwrap();
    let target: RevisionId = "r-0123456789".to_string().try_into().unwrap();
    let is_kept = |journal: &Journal, generation| journal.quarantine(Some(&target), generation).is_some();
    for (uid, generation, want) in [("a", 5, true), ("a", 6, false), ("a", 1, false), ("a", 5, true), ("b", 5, false)] {
        journal.take_up(uid);
        assert_eq!(is_kept(&journal, generation), want, "{uid} {generation}");
    }
    assert!(journal.failures.is_empty());
}
