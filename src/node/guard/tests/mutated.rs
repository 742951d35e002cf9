//! Journals that somebody or something has damaged, in every stage and in both versions: a guard that has just started
//! reports each of them, or follows it. It never panics, and in the end the node has the old manifest or the new one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::evidence::runs;
use super::*;
use crate::node::agent::settle;
use crate::verdict::InPlace;

/// A guard that waits for longer waits for a person: more than all that it waits for by itself, with times beyond every
/// bound.
const PATIENCE_MS: u64 = 4 * 3600 * 1000;

/// How a case ends.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Ended(&'static str),
    /// The journal has no Change.
    NoChange,
    /// The guard reports an error, again and again.
    Reported,
    /// The guard has done all it can, and waits.
    Waits,
}

/// A node with a Change of which nothing was damaged yet.
struct Whole {
    before: String,
    after: String,
    change: Change,
    journal: Value,
}

/// Which manifest is in place.
const PLACES: [Option<Text>; 3] = [Some(Text::Before), Some(Text::After), None];

fn stages() -> Vec<(Value, &'static [Option<Text>])> {
    let [before, after, missing] = [&PLACES[0..1], &PLACES[1..2], &PLACES[2..3]];
    let cause = || Cause { reason: Reason::CrashLoop, message: "it exits".into(), last_words: Some("boom".into()) };
    let begun = || clock(1, 1_000_000);
    let back = |way, ended: bool| {
        let ended_kubelet = ended.then(|| crate::journal::EndedKubelet { started_since_boot_ms: 5_000, at: begun() });
        let rollback = Rollback { begun: begun(), cause: cause(), way, since: begun(), starts: 2, ended_kubelet };
        Progress::UnderWay(Stage::RollingBack(rollback))
    };
    let under_way = Progress::UnderWay;
    let ended = |verdict| Progress::Ended { verdict, at: begun().wall };
    let before_or_missing: &[_] = &[Some(Text::Before), None];
    [
        (under_way(Stage::Staged), before),
        (under_way(Stage::TakingOut { begun: begun() }), before_or_missing),
        (under_way(Stage::Verifying { begun: begun() }), &PLACES),
        (under_way(Stage::Verifying { begun: begun() }), missing),
        (back(Way::Manifest, false), &PLACES),
        (back(Way::Files, false), after),
        (back(Way::Kubelet, false), &PLACES),
        (back(Way::Kubelet, true), before),
        (ended(Verdict::Confirmed), after),
        (ended(Verdict::RolledBack(cause())), before),
        (ended(Verdict::Abandoned(cause())), before_or_missing),
    ]
    .map(|(progress, places)| (serde_json::to_value(progress).unwrap(), places))
    .to_vec()
}

/// The journals of version 1, with the Change of this node.
fn old_journals(whole: &Whole) -> Vec<(Value, &'static [Option<Text>])> {
    let mut found = Vec::new();
    for case in testing::golden::cases("tests/cases/journal") {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let mut journal: Value = serde_json::from_slice(&std::fs::read(case.join("in.json")).unwrap()).unwrap();
        let Some(change) = journal["change"].as_object_mut().filter(|_| name.starts_with("v1-")) else { continue };
        for field in ["target", "before", "after", "ours", "argvBefore", "argvAfter", "probe", "rollout", "isInPlace"] {
            change.insert(field.into(), whole.journal["change"][field].clone());
        }
        let places: &[_] = match change["stage"].as_str().unwrap() {
            "Staged" | "RolledBack" | "Abandoned" => &PLACES[0..1],
            "Confirmed" => &PLACES[1..2],
            _ => &PLACES,
        };
        found.push((journal, places));
    }
    found
}

/// Every value in it, by its path.
fn paths(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.into());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}/{key}"), found)),
        // All arguments of a command line are equally good.
        Value::Array(items) => {
            items.iter().enumerate().take(1).for_each(|(at, value)| paths(value, &format!("{path}/{at}"), found));
        }
        _ => {}
    }
}

fn some_path(random: &mut Random, journal: &Value, is_wanted: fn(&Value) -> bool) -> Option<String> {
    let mut found = Vec::new();
    paths(journal, "", &mut found);
    found.retain(|path| journal.pointer(path).is_some_and(is_wanted));
    (!found.is_empty()).then(|| found.swap_remove(random.below(found.len())))
}

/// A value of another kind.
fn some_value(random: &mut Random) -> Value {
    let others = [
        json!(null),
        json!(true),
        json!(7),
        json!("Staged"),
        json!([]),
        json!({}),
        json!({"Ended": {"verdict": "Confirmed", "at": "2026-11-21T12:00:00Z"}}),
    ];
    others[random.below(others.len())].clone()
}

/// A value of the same kind, which makes no sense.
fn like(random: &mut Random, value: &Value) -> Value {
    match value {
        Value::Number(_) => {
            let bounds = [json!(0), json!(-1), json!(1), json!(0.5), json!(1e300)];
            let limits =
                [json!(i64::MIN), json!(i64::MAX), json!(u64::MAX), json!(u32::MAX), json!(u64::from(u32::MAX) + 1)];
            let all = [&bounds[..], &limits].concat();
            all[random.below(all.len())].clone()
        }
        Value::String(_) => json!(random.pick(&[
            "",
            "x",
            "Staged",
            "RollingBack",
            "Swift",
            "Replace",
            "Never",
            "CrashLoop",
            "Files",
            "r-0123456789",
            "../../etc",
            "a\0b",
            "1",
            "9999-12-31T23:59:59Z",
            "-009999-01-01T00:00:00Z",
            "0000000000000000000000000000000000000000000000000000000000000000",
        ])),
        Value::Bool(value) => json!(!value),
        Value::Array(items) => json!(vec![json!("kube-apiserver"); items.len() % 3]),
        other => other.clone(),
    }
}

/// Takes the key out of the object that has it.
fn remove(journal: &mut Value, path: &str) {
    let Some((parent, key)) = path.rsplit_once('/') else { return };
    if let Some(fields) = journal.pointer_mut(parent).and_then(Value::as_object_mut) {
        fields.remove(key);
    }
}

/// Placeholder for another key, until the text is written.
const TWICE: &str = "written twice";

fn mutate(random: &mut Random, journal: &mut Value, stages: &[Value]) {
    let any: fn(&Value) -> bool = |_| true;
    match random.below(10) {
        0 => {
            if let Some(path) = some_path(random, journal, any) {
                remove(journal, &path);
            }
        }
        1 => {
            if let Some(path) = some_path(random, journal, any) {
                *journal.pointer_mut(&path).unwrap() = Value::Null;
            }
        }
        2 => {
            if let Some(path) = some_path(random, journal, any) {
                *journal.pointer_mut(&path).unwrap() = some_value(random);
            }
        }
        3 | 8 | 9 => {
            let is_plain: fn(&Value) -> bool = |value| !value.is_object() && !value.is_null();
            if let Some(path) = some_path(random, journal, is_plain) {
                let value = like(random, journal.pointer(&path).unwrap());
                *journal.pointer_mut(&path).unwrap() = value;
            }
        }
        4 => {
            let (one, other) = (some_path(random, journal, any), some_path(random, journal, any));
            if let (Some(one), Some(other)) = (one, other) {
                let value = journal.pointer(&one).unwrap().clone();
                *journal.pointer_mut(&other).unwrap() = value;
            }
        }
        5 => {
            if let Some(path) = some_path(random, journal, Value::is_object) {
                let value = some_value(random);
                journal.pointer_mut(&path).unwrap().as_object_mut().unwrap().insert(TWICE.into(), value);
            }
        }
        6 => {
            if let Some(fields) = journal.get_mut("change").and_then(Value::as_object_mut) {
                fields.insert("progress".into(), stages[random.below(stages.len())].clone());
            }
        }
        _ => {
            if let Some(path) = some_path(random, journal, any) {
                let mut deep = some_value(random);
                for _ in 0..random.pick(&[1, 100, 1000]) {
                    deep = Value::Array(vec![deep]);
                }
                *journal.pointer_mut(&path).unwrap() = deep;
            }
        }
    }
}

fn text(random: &mut Random, journal: &Value) -> Vec<u8> {
    let keys: Vec<String> = journal["change"].as_object().map_or(Vec::new(), |change| change.keys().cloned().collect());
    let mut text = written(journal);
    if !keys.is_empty() {
        text = text.replace(TWICE, &keys[random.below(keys.len())]);
    }
    let mut bytes = text.into_bytes();
    match random.below(20) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => {
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = u8::try_from(random.below(256)).unwrap();
                }
            }
        }
        2 => bytes.extend_from_slice(random.pick(&[&b"}"[..], b"\0", b"{}", b"\n\n", b"\xff"])),
        _ => {}
    }
    bytes
}

fn written(journal: &Value) -> String {
    serde_json::to_string(journal).unwrap()
}

impl World {
    /// One round of the guard, with the journal that is on the disk.
    fn round(&mut self, known: &mut Option<Journal>, whole: &Whole) -> Result<Round, Error> {
        let state = self.state.lock()?;
        if !recall(&state, known)? {
            return Ok(Round::NoChange);
        }
        let journal = known.clone().expect("it was recalled");
        let Some(change) = journal.under_way() else {
            tidy(&state, &journal)?;
            return Ok(journal.change.clone().map_or(Round::NoChange, |change| Round::Ended(change.into())));
        };
        let mut evidence = self.gather(change);
        // It looks for the processes and files that the journal names.
        evidence.in_place = in_place(&state, &change)?;
        let argv = |of| if of == Text::Before { &whole.change.argv_before } else { &whole.change.argv_after };
        evidence.process = evidence
            .process
            .zip(self.server)
            .map(|(process, server)| Process { runs: runs(&change, argv(server.of)), ..process });
        if change.probe != whole.change.probe {
            evidence.serving_ms = None;
        }
        if (&change.pod, &change.container) != (&whole.change.pod, &whole.change.container) {
            (evidence.starts, evidence.last_words) = (0, None);
        }
        let now = self.clock();
        let step = decide(&state, change, &evidence, &now)?;
        if let Some(recorded) = carry_out(&state, change, &step, &evidence, &now, None)? {
            *known = Some(recorded);
        }
        drop(state);
        if matches!(step, Step::EndKubelet(_)) {
            self.restart_kubelet(10_000);
        }
        Ok(if step == Step::Wait { Round::Waited } else { Round::Stepped })
    }

    /// Reads the manifest as it really is; it is old or new, or kept while it is taken out.
    fn look_at_manifest(&mut self, whole: &Whole, case: &dyn Fn() -> String) {
        let manifest = self.state.manifest().unwrap();
        self.in_place = match manifest.as_deref() {
            None => InPlace::Missing,
            Some(text) if text == whole.before.as_bytes() => InPlace::Before,
            Some(text) if text == whole.after.as_bytes() => InPlace::After,
            Some(_) => panic!("{}: the manifest is neither the old nor the new one", case()),
        };
        if self.in_place == InPlace::Missing {
            let is_kept =
                self.state.host.read(TAKEN_OUT).unwrap().is_some() || self.state.kept(BEFORE).unwrap().is_some();
            assert!(is_kept, "{}: the manifest is lost", case());
        }
    }

    /// Runs a guard that has just started, until nothing more happens.
    fn run_to_its_end(&mut self, whole: &Whole, case: &dyn Fn() -> String) -> Ending {
        let mut known = None;
        let mut errors = 0;
        let begin = self.now_ms;
        while self.now_ms - begin < PATIENCE_MS {
            // It looks once a second: a million looks are enough.
            (0..5).for_each(|_| self.tick());
            if self.now_ms < self.guard_not_before_ms {
                continue;
            }
            let round = catch_unwind(AssertUnwindSafe(|| self.round(&mut known, whole)));
            let round = round.unwrap_or_else(|_| panic!("{}: the guard panics", case()));
            self.look_at_manifest(whole, case);
            match round {
                Ok(Round::NoChange) => return Ending::NoChange,
                Ok(Round::Ended(change)) => {
                    return Ending::Ended(match change.verdict() {
                        Some(Verdict::Confirmed) => "confirmed",
                        Some(Verdict::RolledBack(_)) => "rolled back",
                        Some(Verdict::Abandoned(_)) => "abandoned",
                        None => panic!("{}: it has not ended", case()),
                    });
                }
                Ok(Round::Waited) => {
                    errors = 0;
                    // Longer looks, once the first minutes are over.
                    self.now_ms += if self.now_ms - begin > 1_000_000 { 20_000 } else { 0 };
                }
                Ok(Round::Stepped) => errors = 0,
                Err(_) if errors > 2 => return Ending::Reported,
                Err(_) => errors += 1,
            }
        }
        Ending::Waits
    }
}

/// `TORTURE_RUNS` (default 2,000) cases from `TORTURE_SEED` (default 1) on.
#[test]
fn mutated_journals_are_reported_or_followed() {
    let templates: Vec<(Template, Whole)> = scenarios()
        .filter(|scenario| scenario.method == Method::Swift && scenario.before != Before::InPlace)
        .map(|scenario| {
            let template = Template::new(scenario);
            let state = State::new(Host::open(template.directory.path()).unwrap());
            let journal = state.journal().unwrap();
            let whole = Whole {
                before: state.kept(BEFORE).unwrap().unwrap(),
                after: state.kept(AFTER).unwrap().unwrap(),
                change: journal.change.clone().unwrap(),
                journal: serde_json::from_str(&journal.to_json()).unwrap(),
            };
            (template, whole)
        })
        .collect();
    let stages = stages();
    let progress: Vec<Value> = stages.iter().map(|(stage, _)| stage.clone()).collect();
    let mut count: BTreeMap<Ending, u64> = BTreeMap::new();
    let first = number("TORTURE_SEED").unwrap_or(1);
    for seed in first..first + number("TORTURE_RUNS").unwrap_or(2_000) {
        let mut random = Random::new(seed);
        let (template, whole) = &templates[random.below(templates.len())];
        let mut world = template.world(seed);
        let (journal, places) = if random.one_in(3) {
            let old = old_journals(whole);
            old[random.below(old.len())].clone()
        } else {
            let (stage, places) = &stages[random.below(stages.len())];
            let mut journal = whole.journal.clone();
            journal["change"]["progress"] = stage.clone();
            (journal, *places)
        };
        let place = random.pick(places);
        match place {
            Some(Text::Before) => {}
            Some(Text::After) => _ = world.state.host.replace(MANIFEST, whole.after.as_bytes(), 0o600).unwrap(),
            None => world.state.host.rename(MANIFEST, TAKEN_OUT).unwrap(),
        }
        let mut mutated = journal.clone();
        for _ in 0..=random.below(2) {
            mutate(&mut random, &mut mutated, &progress);
        }
        let bytes = text(&mut random, &mutated);
        overwrite(&world.state, "journal.json", &bytes);
        let copy = match random.below(4) {
            0 | 1 if journal["version"] == 2 && journal["change"]["progress"]["UnderWay"] != Value::Null => "whole",
            2 => "damaged",
            _ => "none",
        };
        match copy {
            "whole" => overwrite(&world.state, JOURNAL_COPY, written(&journal).as_bytes()),
            "damaged" => overwrite(&world.state, JOURNAL_COPY, &bytes),
            _ => world.state.host.remove(&state::path(JOURNAL_COPY)).unwrap(),
        }
        let case = || {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            format!("seed {seed}, {:?}, {place:?} in place, copy: {copy}, {text}", template.scenario)
        };
        world.look_at_manifest(whole, &case);
        let ending = world.run_to_its_end(whole, &case);
        // The agent's part: it removes a guard that has nothing to do, and puts a missing manifest back.
        let settled = settle(&world.state, "kind: Pod\n");
        assert_eq!(settled.is_err(), ending == Ending::Reported && world.state.journal().is_err(), "{}", case());
        world.look_at_manifest(whole, &case);
        assert_ne!(world.in_place, InPlace::Missing, "{}: {ending:?} without a manifest", case());
        let has_guard = world.state.host.read(GUARD_MANIFEST).unwrap().is_some();
        assert!(!matches!(ending, Ending::Ended(_) | Ending::NoChange) || !has_guard, "{}: the guard is left", case());
        // A guard that waits for a person leaves a node that serves, or has tried everything.
        let serves = world.is_serving() || world.in_place == InPlace::Before;
        assert!(ending != Ending::Waits || serves, "{}: it waits, and nothing serves", case());
        *count.entry(ending).or_default() += 1;
    }
    println!("{count:?}");
    let followed =
        count.iter().filter(|(ending, _)| matches!(ending, Ending::Ended(_))).map(|(_, count)| count).sum::<u64>();
    assert!(followed > 0 && count.contains_key(&Ending::Reported), "{count:?}");
}
