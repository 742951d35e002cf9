//! Journals as older programs wrote them (`tests/cases/journal/`): each loads, and the guard goes on with it as the program of its time would.
//!
//! `want.txt` was written by the last program that wrote version 1.

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::journal::Journal;

/// What the guard may see, by name.
fn situations(change: &Change) -> Vec<(&'static str, Evidence)> {
    let kubelet = |has_seen_api| Some(Kubelet { started_since_boot_ms: 9_999, has_seen_api });
    let nothing = |in_place| Evidence {
        in_place,
        process: None,
        released: false,
        is_repaired: false,
        serving_ms: None,
        starts: 0,
        starts_beside_old: 0,
        last_words: None,
        kubelet: kubelet(true),
    };
    let serves = |in_place, runs| Evidence {
        process: Some(Process { runs, started_since_boot_ms: 2_000_000 }),
        serving_ms: Some(60_000),
        starts: 1,
        ..nothing(in_place)
    };
    let crashes = |in_place| Evidence { starts: 9, ..nothing(in_place) };
    let same_kubelet = change
        .rollback
        .as_ref()
        .and_then(|rollback| rollback.ended_kubelet.as_ref())
        .map_or(9_999, |it| it.started_since_boot_ms);
    vec![
        ("old serves", serves(InPlace::Before, Runs::Before)),
        ("old is down", nothing(InPlace::Before)),
        (
            "old is down, its kubelet is young",
            Evidence {
                kubelet: Some(Kubelet { started_since_boot_ms: same_kubelet, has_seen_api: false }),
                ..nothing(InPlace::Before)
            },
        ),
        ("missing", nothing(InPlace::Missing)),
        ("missing, released", Evidence { released: true, ..nothing(InPlace::Missing) }),
        ("new serves", serves(InPlace::After, Runs::After)),
        ("new crashes", crashes(InPlace::After)),
        ("new crashes, its kubelet is young", Evidence { kubelet: kubelet(false), ..crashes(InPlace::After) }),
        ("new crashes, files repaired", Evidence { is_repaired: true, ..crashes(InPlace::After) }),
        ("new hangs", Evidence { serving_ms: None, ..serves(InPlace::After, Runs::After) }),
        ("foreign", nothing(InPlace::Foreign)),
        ("foreign serves", serves(InPlace::Foreign, Runs::Other)),
    ]
}

fn label(step: &Step) -> String {
    match step {
        Step::RollBack { way, cause } => format!("RollBack {way:?} {}", cause.reason),
        Step::Finish { stage, cause } => {
            format!("Finish {stage:?} {}", cause.as_ref().map_or("", |cause| cause.reason.as_str())).trim_end().into()
        }
        step => format!("{step:?}"),
    }
}

fn steps(journal: &Journal) -> String {
    let Some(change) = journal.unconfirmed() else { return "none is under way\n".into() };
    let last =
        change.rollback.as_ref().map(|rollback| &rollback.begun).or(change.begun.as_ref()).unwrap_or(&change.staged);
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

#[test]
fn old_journals_are_gone_on_with_as_before() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/journal");
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let directory = entry.unwrap().path();
        let journal: Journal = serde_json::from_slice(&std::fs::read(directory.join("in.json")).unwrap()).unwrap();
        let found = steps(&journal);
        let want = directory.join("want.txt");
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&want, &found).unwrap();
        }
        assert_eq!(found, std::fs::read_to_string(&want).unwrap(), "{}", directory.display());
        count += 1;
    }
    assert!(count > 10);
}
