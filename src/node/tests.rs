//! Observe, plan and stage on a directory in place of a host.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::faults::{Fault, Killed};
use super::files::Host;
use super::*;
use crate::api::{Reason, Rollout};
use crate::fixture;
use crate::journal::{Cause, Sha, Verdict};
use crate::plan::{self, Desired, Idle, Plan, Requester};
use crate::revision::Revision;

const KUBEADM: &str = include_str!("../../tests/cases/manifest/kubeadm-1.36/in.yaml");

struct Node {
    directory: tempfile::TempDir,
    host: Host,
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::open(directory.path()).unwrap();
        host.make_directory(MANIFESTS_DIR, 0o700).unwrap();
        host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
        Self { directory, host }
    }

    fn manifest(&self) -> String {
        String::from_utf8(self.host.read(MANIFEST).unwrap().unwrap()).unwrap()
    }

    /// The plan, where the manifests have been left alone for an hour.
    fn plan(&self, desired: &Desired) -> Result<Plan, ObserveError> {
        let mut observed = observe(&self.host, desired.revision.as_ref().map(|revision| &revision.content))?;
        observed.changed_ms_ago = Some(3_600_000);
        Ok(plan::plan(desired, &observed))
    }

    /// Stages the plan, and does what the guard would: puts the new manifest in place, and ends the Change.
    fn carry_out(&self, desired: &Desired, verdict: Verdict) {
        let steps = match self.plan(desired).unwrap() {
            Plan::Change(steps) => steps,
            plan => panic!("{plan}"),
        };
        let locked = State::new(self.host.clone()).lock().unwrap();
        let manifest = self.manifest();
        stage(&locked, &steps).unwrap();
        assert_eq!(self.manifest(), manifest, "staging leaves the manifest alone");
        if verdict == Verdict::Confirmed {
            self.host.replace(MANIFEST, steps.after.as_bytes(), 0o600).unwrap();
        }
        let journal = locked.journal().unwrap();
        let change = journal.under_way().unwrap();
        assert_eq!(*change, steps.change, "after the record, the journal says so");
        let journal = change.ended(verdict, process::clock().wall);
        locked.record(&journal).unwrap();
        guard::tidy(&locked, &journal).unwrap();
    }
}

fn crash() -> Cause {
    Cause { reason: Reason::CrashLoop, message: "it exited".into(), last_words: None }
}

fn desired(policy: &str) -> Desired {
    fixture::desired(fixture::content(policy, serde_json::json!({"maxBackups": 1, "maxSizeMegabytes": 1})))
}

fn restored() -> Desired {
    Desired { revision: None, ..desired("") }
}

#[test]
fn after_a_change_there_is_nothing_to_do_and_restoring_gives_the_original_bytes() {
    let node = Node::new();
    assert_eq!(node.plan(&restored()).unwrap(), Plan::Nothing(Idle::AsDesired));
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert_eq!(node.plan(&desired("a")).unwrap(), Plan::Nothing(Idle::AsDesired));
    let after_a = node.manifest();
    node.carry_out(&desired("b"), Verdict::Confirmed);
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert_eq!(node.manifest(), after_a, "the way does not matter");
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM);
}

#[test]
fn a_manifest_that_kubeadm_wrote_again_is_the_new_original() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let upgraded = KUBEADM.replace("v1.36.3", "v1.36.4");
    node.host.replace(MANIFEST, upgraded.as_bytes(), 0o600).unwrap();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert!(node.manifest().contains("v1.36.4") && node.manifest().contains("--audit-policy-file="));
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), upgraded);
}

#[test]
fn a_foreign_change_beside_our_parts_survives_both_ways() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let changed = node.manifest().replace("--secure-port=6443", "--secure-port=6443\n    - --v=3");
    node.host.replace(MANIFEST, changed.as_bytes(), 0o600).unwrap();
    assert_eq!(node.plan(&desired("a")).unwrap(), Plan::Nothing(Idle::AsDesired));
    node.carry_out(&desired("b"), Verdict::Confirmed);
    assert!(node.manifest().contains("--v=3"));
    let edited_again = node.manifest().replace("--v=3", "--v=4");
    node.host.replace(MANIFEST, edited_again.as_bytes(), 0o600).unwrap();
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM.replace("--secure-port=6443", "--secure-port=6443\n    - --v=4"));
}

#[test]
fn a_foreign_change_survives_any_number_of_ours() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let changed = node.manifest().replace("--secure-port=6443", "--secure-port=6443\n    - --v=3");
    node.host.replace(MANIFEST, changed.as_bytes(), 0o600).unwrap();
    for policy in ["b", "c", "a"] {
        node.carry_out(&desired(policy), Verdict::Confirmed);
        assert!(node.manifest().contains("--v=3"), "after {policy}");
    }
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM.replace("--secure-port=6443", "--secure-port=6443\n    - --v=3"));
}

#[test]
fn a_lost_journal_is_made_up_for_once_the_api_server_was_seen() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let state = State::new(node.host.clone());
    let known = state.journal().unwrap();
    node.host.remove(&state::path("journal.json")).unwrap();
    let Plan::Change(steps) = node.plan(&desired("a")).unwrap() else { panic!("nobody saw it serve") };
    assert_eq!((&steps.before, &steps.after), (&KUBEADM.to_string(), &node.manifest()));
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let (new, old) = (state.journal().unwrap(), known);
    assert_eq!(new.original, old.original);
    assert_eq!(new.confirmed.unwrap().manifest, old.confirmed.unwrap().manifest);
    assert_eq!(node.plan(&desired("a")).unwrap(), Plan::Nothing(Idle::AsDesired));
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM);
}

#[test]
fn what_leaves_a_node_leaves_only_the_log_and_what_is_not_ours() {
    let node = Node::new();
    let before = node.host.list("/var/lib").unwrap();
    let foreign = "/etc/kubernetes/audit/somebodys.yaml";
    node.host.make_directory("/etc/kubernetes/audit", 0o755).unwrap();
    node.host.replace(foreign, b"theirs", 0o644).unwrap();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.carry_out(&restored(), Verdict::Confirmed);
    let state = State::new(node.host.clone());
    leave(state.lock().unwrap()).unwrap();
    assert_eq!(node.host.list("/var/lib").unwrap(), before, "our own directory is gone");
    assert_eq!(node.host.list("/etc/kubernetes/audit").unwrap(), ["somebodys.yaml"]);
    assert_eq!(node.manifest(), KUBEADM);
    // And it can be come back to.
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.host.replace("/var/lib/audit-operator/somebodys", b"theirs", 0o644).unwrap();
    node.carry_out(&restored(), Verdict::Confirmed);
    leave(state.lock().unwrap()).unwrap();
    assert_eq!(node.host.list("/var/lib/audit-operator").unwrap(), ["somebodys"]);
}

#[test]
fn a_lock_is_none_once_its_file_was_removed() {
    let node = Node::new();
    let state = State::new(node.host.clone());
    let locked = state.lock().unwrap();
    node.host.remove(&state::path(state::LOCK)).unwrap();
    let other = state.lock().expect("another file, another lock");
    assert!(state.try_lock().unwrap().is_none());
    drop((locked, other));
}

#[test]
fn with_all_our_state_lost_our_parts_still_go_by_their_names() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.host.remove_directory("/var/lib/audit-operator").unwrap();
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM);
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.host.remove_directory("/var/lib/audit-operator").unwrap();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.carry_out(&desired("b"), Verdict::Confirmed);
    node.carry_out(&restored(), Verdict::Confirmed);
    assert_eq!(node.manifest(), KUBEADM);
}

#[test]
fn a_foreign_edit_in_the_middle_of_a_change_is_watched_and_can_be_taken_back() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.carry_out(&desired("b"), Verdict::Abandoned(crash()));
    let Plan::Change(steps) = node.plan(&desired("b")).unwrap() else { panic!("b was not reached") };
    let edited = steps.after.replace("--secure-port=6443", "--secure-port=6443\n    - --v=3");
    node.host.replace(MANIFEST, edited.as_bytes(), 0o600).unwrap();
    let content = desired("b").revision.unwrap().content;
    let fresh = plan::plan(&desired("b"), &observe(&node.host, Some(&content)).unwrap());
    let Plan::Change(steps) = fresh else { panic!("nobody saw it serve: {fresh}") };
    assert_eq!(steps.after, edited);
    assert_eq!(steps.before, KUBEADM.replace("--secure-port=6443", "--secure-port=6443\n    - --v=3"));
    node.carry_out(&desired("b"), Verdict::Confirmed);
    assert_eq!(node.plan(&desired("b")).unwrap(), Plan::Nothing(Idle::AsDesired));
}

#[test]
fn who_has_put_a_manifest_in_the_place_of_ours_is_given_time_before_our_files_go() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
    let away = restored();
    let fresh = plan::plan(&away, &observe(&node.host, None).unwrap());
    assert!(matches!(fresh, Plan::Nothing(Idle::Settling { .. })), "{fresh}");
    assert_eq!(node.plan(&away).unwrap(), Plan::Nothing(Idle::AsDesired));
}

#[test]
fn files_of_the_revision_that_are_gone_or_changed_are_put_back() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let revision = desired("a").revision.unwrap();
    let policy = format!("{}/policy.yaml", revision.directory());
    let locked = State::new(node.host.clone()).lock().unwrap();
    for spoil in [
        |host: &Host, _: &str| host.remove_directory("/etc/kubernetes/audit/revisions").unwrap(),
        |host: &Host, path: &str| {
            host.replace(path, b"level: Ghastly", 0o600).map(drop).unwrap();
        },
    ] {
        spoil(&node.host, &policy);
        keep_files(&locked, &revision).unwrap();
        assert_eq!(node.host.read(&policy).unwrap().unwrap(), b"a");
    }
}

#[test]
fn what_something_else_has_just_written_is_left_alone_for_a_while() {
    let node = Node::new();
    let content = desired("a").revision.unwrap().content;
    let now = |desired: &Desired| plan::plan(desired, &observe(&node.host, Some(&content)).unwrap());
    let is_settling = |plan: &Plan| matches!(plan, Plan::Nothing(Idle::Settling { changed_seconds_ago: 0..5, .. }));
    assert!(is_settling(&now(&desired("a"))), "the manifest was written just now");
    let person = Desired { requester: Requester::Person, ..desired("a") };
    assert!(matches!(now(&person), Plan::Change(_)), "a person who asks need not wait");
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert!(matches!(now(&desired("b")), Plan::Change(_)), "our own change needs no time");
    node.host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
    node.host.replace("/etc/kubernetes/manifests/etcd.yaml", b"kind: Pod\n", 0o600).unwrap();
    let upgraded = now(&desired("a"));
    assert!(is_settling(&upgraded), "{upgraded}");
    assert_eq!(node.manifest(), KUBEADM);
}

#[test]
fn a_start_of_the_api_server_is_a_change_too() {
    let node = Node::new();
    let changed_ms_ago = || observe(&node.host, None).unwrap().changed_ms_ago.unwrap();
    while changed_ms_ago() < 50 {}
    let before = process::clock();
    let logs = format!("{POD_LOGS_DIR}/kube-system_kube-apiserver-cp1_0123/kube-apiserver");
    node.host.make_directory(&logs, 0o755).unwrap();
    let changed = changed_ms_ago();
    // The time of a file is that of the kernel's last tick.
    assert!(changed <= process::clock().ms_since(&before) + 20, "{changed}");
}

#[test]
fn a_manifest_of_another_hand_is_left_until_the_api_server_was_started_with_it() {
    let node = Node::new();
    let plan_after = |ms: u64| {
        let desired = desired("a");
        let mut observed = observe(&node.host, desired.revision.as_ref().map(|revision| &revision.content)).unwrap();
        observed.changed_ms_ago = Some(ms);
        plan::plan(&desired, &observed)
    };
    let waits = |ms: u64| matches!(plan_after(ms), Plan::Nothing(Idle::Settling { .. }));
    let logs = format!("{POD_LOGS_DIR}/kube-system_kube-apiserver-cp1_0123/kube-apiserver");
    node.host.make_directory(&logs, 0o755).unwrap();
    assert!(waits(44_999) && !waits(45_000), "started with the manifest in place: {}", plan_after(44_999));
    // The time of a file is that of the kernel's last tick.
    let begin = process::clock();
    while process::clock().ms_since(&begin) < 20 {}
    node.host.replace(MANIFEST, format!("{KUBEADM}# edited\n").as_bytes(), 0o600).unwrap();
    let said = plan_after(46_000).to_string();
    assert!(said.contains("the kubelet has not started kube-apiserver since"), "{said}");
    assert!(waits(299_999) && !waits(300_000));
    while process::clock().ms_since(&begin) < 40 {}
    node.host.replace(&format!("{logs}/1.log"), b"started\n", 0o600).unwrap();
    assert!(waits(44_999) && !waits(45_000));
}

#[test]
fn what_is_of_no_use_any_more_goes_and_what_is_not_ours_stays() {
    let node = Node::new();
    let with_hook = |directory: &str| {
        let mut content = desired("a").revision.unwrap().content;
        let webhook =
            serde_json::json!({"url": "https://a/", "auth": "Token", "credentials": directory, "delivery": {}});
        content.webhook = Some(serde_json::from_value(webhook).unwrap());
        Desired { revision: Some(Revision::new(content)), ..desired("") }
    };
    let own = "/etc/kubernetes/audit/mine.yaml";
    for path in
        ["credentials/old-00000001/token", "credentials/hook-00000002/token", "revisions/notes.txt", "mine.yaml"]
    {
        let path = format!("/etc/kubernetes/audit/{path}");
        node.host.make_directory(path.rsplit_once('/').unwrap().0, 0o700).unwrap();
        node.host.replace(&path, b"x", 0o600).unwrap();
    }
    let settle = |desired: &Desired| {
        let locked = State::new(node.host.clone()).lock().unwrap();
        remove_unused(&locked, desired.revision.as_ref()).unwrap();
    };
    node.carry_out(&with_hook("old-00000001"), Verdict::Confirmed);
    node.carry_out(&with_hook("hook-00000002"), Verdict::Confirmed);
    settle(&with_hook("hook-00000002"));
    assert_eq!(node.host.list("/etc/kubernetes/audit/credentials").unwrap(), ["hook-00000002"]);
    assert_eq!(node.host.list("/etc/kubernetes/audit/revisions").unwrap().len(), 2, "the one that runs, and a note");
    node.carry_out(&restored(), Verdict::Confirmed);
    settle(&restored());
    assert_eq!(node.host.list("/etc/kubernetes/audit").unwrap(), ["mine.yaml", "revisions"]);
    assert_eq!(node.host.read(own).unwrap().unwrap(), b"x");
    assert_eq!(node.host.list("/etc/kubernetes/audit/revisions").unwrap(), ["notes.txt"]);
}

#[test]
fn what_failed_is_not_tried_again_until_the_setup_changes() {
    let node = Node::new();
    node.carry_out(&desired("bad"), Verdict::RolledBack(crash()));
    assert!(matches!(node.plan(&desired("bad")).unwrap(), Plan::Nothing(Idle::Quarantined(_))));
    assert!(matches!(node.plan(&desired("good")).unwrap(), Plan::Change(_)));
    let newer = Desired { requester: Requester::Setup { generation: 2, has_slot: true }, ..desired("bad") };
    assert!(matches!(node.plan(&newer).unwrap(), Plan::Change(_)));
    let paused = Desired { rollout: Rollout { paused: true, ..Rollout::default() }, ..desired("good") };
    assert_eq!(node.plan(&paused).unwrap(), Plan::Nothing(Idle::Paused));
}

#[test]
fn a_node_without_its_slot_restores_nothing() {
    let node = Node::new();
    let held = Desired { requester: Requester::Setup { generation: 1, has_slot: false }, ..restored() };
    assert_eq!(node.plan(&held).unwrap(), Plan::Nothing(Idle::AsDesired));
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert_eq!(node.plan(&held).unwrap(), Plan::Nothing(Idle::NoSlot));
    // The same if it is unknown whose they are.
    node.host.remove("/var/lib/audit-operator/journal.json").unwrap();
    assert_eq!(node.plan(&held).unwrap(), Plan::Nothing(Idle::NoSlot));
}

#[test]
fn drift_waits_for_the_slot_of_the_node() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    node.host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
    assert_eq!(
        node.plan(&Desired { requester: Requester::Setup { generation: 1, has_slot: false }, ..desired("a") }).unwrap(),
        Plan::Nothing(Idle::NoSlot)
    );
    assert!(matches!(node.plan(&desired("a")).unwrap(), Plan::Change(_)));
}

#[test]
fn a_node_that_cannot_be_changed_says_why_and_keeps_its_bytes() {
    type Spoil = fn(&Host);
    let cases: Vec<(Reason, Spoil)> = vec![
        (Reason::ManifestMissing, |host| host.remove(MANIFEST).unwrap()),
        (Reason::DuplicatePod, |host| {
            _ = host.replace("/etc/kubernetes/manifests/old.bak", KUBEADM.as_bytes(), 0o600).unwrap()
        }),
        (Reason::ManifestUnusable, |host| _ = host.replace(MANIFEST, b"kind: [", 0o600).unwrap()),
        (Reason::LogPathUnusable, |host| host.make_directory("/var/log/kubernetes/audit/audit.log", 0o700).unwrap()),
    ];
    for (reason, spoil) in cases {
        let node = Node::new();
        spoil(&node.host);
        let before = node.host.read(MANIFEST).unwrap();
        let found = match node.plan(&desired("a")) {
            Err(refusal) => refusal.reason(),
            Ok(Plan::Refused(refusal)) => refusal.reason,
            Ok(other) => panic!("{reason}: {other}"),
        };
        assert_eq!(found, reason);
        assert_eq!(node.host.read(MANIFEST).unwrap(), before);
    }
    let node = Node::new();
    let mut huge = desired("a");
    huge.revision.as_mut().unwrap().content.log.as_mut().unwrap().max_size_megabytes = i64::MAX;
    let Plan::Refused(refusal) = node.plan(&huge).unwrap() else { panic!("a log that cannot fit") };
    assert_eq!(refusal.reason, Reason::DiskFull);
}

#[test]
fn there_is_one_writer_at_a_time_and_a_newer_journal_is_not_guessed_at() {
    let node = Node::new();
    let state = State::new(node.host.clone());
    let locked = state.lock().unwrap();
    assert!(state.try_lock().unwrap().is_none());
    drop(locked);
    state.lock().unwrap();
    node.host.replace("/var/lib/audit-operator/journal.json", br#"{"version": 3, "shape": "unknown"}"#, 0o600).unwrap();
    assert!(matches!(state.journal(), Err(state::Error::JournalTooNew { version: 3, .. })));
}

#[test]
fn the_dry_run_names_every_file_and_the_way_back() {
    let plan = Node::new().plan(&desired("a")).unwrap().to_string();
    for part in ["policy.yaml", "keep original.yaml", "record the change in the journal", "roll back after 300 s"] {
        assert!(plan.contains(part), "{part} is not in\n{plan}");
    }
}

#[test]
fn what_a_manifest_names_stays_though_our_mark_is_gone_from_it() {
    let node = Node::new();
    node.carry_out(&desired("a"), Verdict::Confirmed);
    let revision = desired("a").revision.unwrap();
    let unmarked: String = node
        .manifest()
        .lines()
        .filter(|line| !line.contains("audit-operator.io/revision"))
        .map(|line| format!("{line}\n"))
        .collect();
    node.host.replace(MANIFEST, unmarked.as_bytes(), 0o600).unwrap();
    let locked = State::new(node.host.clone()).lock().unwrap();
    remove_unused(&locked, None).unwrap();
    assert!(node.host.read(&format!("{}/policy.yaml", revision.directory())).unwrap().is_some());
    drop(locked);
    // It is no original: the way back leaves nothing of ours.
    node.carry_out(&desired("a"), Verdict::Confirmed);
    assert!(node.manifest().contains("audit-operator.io/revision"));
    node.carry_out(&restored(), Verdict::Confirmed);
    assert!(!node.manifest().contains("audit"), "{}", node.manifest());
}

#[test]
fn a_manifest_behind_a_link_is_refused() {
    let node = Node::new();
    let directory = node.directory.path().join("etc/kubernetes");
    std::fs::rename(directory.join("manifests/kube-apiserver.yaml"), directory.join("real.yaml")).unwrap();
    std::os::unix::fs::symlink("../real.yaml", directory.join("manifests/kube-apiserver.yaml")).unwrap();
    let refusal = node.plan(&desired("a")).unwrap_err();
    assert_eq!(refusal.reason(), Reason::ManifestUnusable);
}

/// Runs `act` on nodes that `prepare` makes, with a fault at each of its file operations in turn, and then `check`.
fn at_every_file_operation(
    prepare: impl Fn() -> Node,
    act: impl Fn(&Node) -> Result<(), state::Error>,
    check: impl Fn(&Node, &str),
) {
    let points = {
        let node = prepare();
        let before = node.host.faults.reached_so_far();
        act(&node).unwrap();
        node.host.faults.reached_so_far() - before
    };
    assert!(points > 0);
    for point in 0..points {
        for fault in [Fault::Kill, Fault::Fail(std::io::ErrorKind::StorageFull), Fault::Fail(std::io::ErrorKind::Other)]
        {
            let node = prepare();
            node.host.faults.arm(point, fault);
            match catch_unwind(AssertUnwindSafe(|| act(&node))) {
                Ok(outcome) => assert!(outcome.is_err(), "point {point}: {fault:?} was not reported"),
                Err(panic) => assert!(panic.is::<Killed>(), "point {point}: {fault:?}"),
            }
            check(&node, &format!("{fault:?} at {}", node.host.faults.happened().unwrap()));
        }
    }
}

#[test]
fn a_staging_that_is_stopped_anywhere_has_changed_nothing_or_is_complete() {
    let staged = |node: &Node| {
        let Plan::Change(steps) = node.plan(&desired("b")).unwrap() else { panic!("b is another Revision") };
        steps
    };
    let prepare = || {
        let node = Node::new();
        node.carry_out(&desired("a"), Verdict::Confirmed);
        node
    };
    let act = |node: &Node| {
        let steps = staged(node);
        stage(&State::new(node.host.clone()).lock().unwrap(), &steps)
    };
    at_every_file_operation(prepare, act, |node, fault| {
        let state = State::new(node.host.clone());
        let before = node.manifest();
        assert!(before.contains("r-") && manifest_is_of(node, "a"), "{fault}: the manifest is untouched");
        if state.journal().unwrap().under_way().is_none() {
            let steps = staged(node);
            stage(&state.lock().unwrap(), &steps).unwrap();
        }
        // A program that reads the record finds every file that it names.
        let change = state.journal().unwrap().change.unwrap();
        let sha = |name: &str| Sha::of(state.kept(name).unwrap().unwrap().as_bytes());
        assert_eq!((sha(plan::BEFORE), sha(plan::AFTER)), (change.before, change.after), "{fault}");
        let revision = desired("b").revision.unwrap();
        assert_eq!(node.host.read(&format!("{}/policy.yaml", revision.directory())).unwrap().unwrap(), b"b", "{fault}");
        assert_eq!(state.kept("change/repair/policy.yaml").unwrap().as_deref(), Some("a"), "{fault}");
        assert_eq!(state.kept(plan::ORIGINAL).unwrap().as_deref(), Some(KUBEADM), "{fault}");
    });
}

fn manifest_is_of(node: &Node, policy: &str) -> bool {
    node.manifest().contains(desired(policy).revision.unwrap().id.as_str())
}

#[test]
fn what_is_put_back_or_removed_is_so_whole_after_a_stop_anywhere() {
    let confirmed = || {
        let node = Node::new();
        node.carry_out(&desired("a"), Verdict::Confirmed);
        node
    };
    let locked = |node: &Node| State::new(node.host.clone()).lock().unwrap();
    let revision = desired("a").revision.unwrap();
    let policy = format!("{}/policy.yaml", revision.directory());
    let lost = || {
        let node = confirmed();
        node.host.remove_directory("/etc/kubernetes/audit/revisions").unwrap();
        node
    };
    let keep = |node: &Node| keep_files(&locked(node), &revision).map_err(Into::into);
    at_every_file_operation(lost, keep, |node, fault| {
        let half = node.host.read(&policy).unwrap();
        assert!(half.is_none_or(|text| text == b"a"), "{fault}: half a file");
        keep(node).unwrap();
        assert_eq!(node.host.read(&policy).unwrap().unwrap(), b"a", "{fault}");
    });
    let restored = || {
        let node = confirmed();
        node.carry_out(&restored(), Verdict::Confirmed);
        node
    };
    at_every_file_operation(
        restored,
        |node| leave(locked(node)),
        |node, fault| {
            // As the next program that looks finds it.
            leave(locked(node)).unwrap();
            assert_eq!(node.manifest(), KUBEADM, "{fault}");
            for path in ["/etc/kubernetes/audit", "/var/lib/audit-operator"] {
                assert_eq!(node.host.list(path).unwrap(), Vec::<String>::new(), "{fault}: left in {path}");
            }
        },
    );
}
