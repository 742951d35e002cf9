use serde_json::{Value, json};

use super::*;
use crate::api::{NodeAudit, SetupFinding, Truth};
use crate::rollout::{Contact, Goal};

const T0: &str = "2026-11-21T12:00:00Z";
const T1: &str = "2026-11-21T12:05:00Z";
const A: &str = "r-00000000aa";
const B: &str = "r-00000000bb";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn setup(status: Option<AuditSetupStatus>) -> AuditSetup {
    let mut setup: AuditSetup = serde_json::from_value(json!({
        "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup",
        "metadata": {"name": "cluster", "generation": 3},
        "spec": {
            "policy": {"preset": "metadata"},
            "sinks": [{"name": "local", "log": {}}, {"name": "receiver", "webhook": {"url": "https://r.example"}}],
        },
    }))
    .unwrap();
    setup.status = status;
    setup
}

fn finding(status: &str, reason: &str, message: &str) -> Value {
    json!({"status": status, "reason": reason, "message": message})
}

fn sink(name: &str, reachable: Value, delivering: Value) -> Value {
    json!({"name": name, "reachable": reachable, "delivering": delivering, "lostEvents": 2, "lastDelivered": T0})
}

fn well() -> Value {
    json!([
        sink("local", finding("True", "Reachable", ""), finding("True", "Delivering", "")),
        sink("receiver", finding("True", "Reachable", ""), finding("True", "Delivering", "")),
    ])
}

fn audit(name: &str, phase: &str, revision: Option<&str>, sinks: Value) -> NodeAudit {
    serde_json::from_value(json!({
        "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": name, "generation": 1},
        "spec": {"setup": "cluster", "setupGeneration": 3, "revision": revision},
        "status": {"observedGeneration": 1, "phase": phase, "revision": revision, "since": T0, "lastSeen": T0, "sinks": sinks},
    }))
    .unwrap()
}

fn judged(
    old: Option<AuditSetupStatus>,
    audits: &[NodeAudit],
    judgement: Judgement<'_>,
    now: &str,
) -> AuditSetupStatus {
    let goal = Goal { revision: Some(B), ..Goal::default() };
    let nodes: Vec<Node> = audits
        .iter()
        .map(|audit| {
            let name = audit.metadata.name.as_deref().unwrap();
            Node { name, is_ready: true, goal, audit: Some(audit), had_audit: false, contact: Contact::default() }
        })
        .collect();
    status(Facts { setup: &setup(old), nodes: &nodes, judgement, now: time(now) })
}

fn policy() -> PolicyStatus {
    PolicyStatus { rules: 23, preset: Some("metadata-1".into()), findings: vec![] }
}

fn rendered<'a>(target: &'a str, policy: &'a PolicyStatus, progress: &'a Progress) -> Judgement<'a> {
    Judgement::Rendered { target, change: Some("policy changed"), policy, findings: &[], progress }
}

/// `Ready=True Confirmed: 1 node runs …`
fn shown(status: &AuditSetupStatus, type_: ConditionType) -> String {
    let condition = condition(status, type_).unwrap();
    format!("{}={} {}: {}", condition.type_, condition.status, condition.reason, condition.message)
}

fn moving() -> Progress {
    Progress::Moving { detail: "cp2 is verifying".into() }
}

#[test]
fn ready_reconciling_and_stalled_say_one_thing_together() {
    let audits = [audit("cp1", "Confirmed", Some(B), well()), audit("cp2", "Verifying", Some(A), json!([]))];
    let policy = policy();
    let problem = |field: &str, reason, message: &str| Problem { field: field.into(), reason, message: message.into() };
    let problems = [
        problem("spec.sinks[1].webhook.tls", Reason::ReferenceNotFound, "Secret ca is missing"),
        problem("spec.policy.rules[0]", Reason::InvalidPolicy, "no such level"),
    ];
    let (done, moving) = (Progress::Done, moving());
    let paused = Progress::Paused { waiting: 1 };
    let stalled = Progress::Stalled { reason: Reason::RolledBack, message: "cp2 rolled it back".into() };
    let reconciling = "Ready=False Reconciling=True Stalled=False";
    let halted = "Ready=False Reconciling=False Stalled=True";
    let still = "Ready=False Reconciling=False Stalled=False";
    let cases = [
        (rendered(B, &policy, &moving), reconciling, "RollingOut: 1 of 2 nodes run r-00000000bb; cp2 is verifying"),
        (
            rendered(B, &policy, &done),
            "Ready=True Reconciling=False Stalled=False",
            "Confirmed: 1 of 2 nodes run r-00000000bb",
        ),
        (
            rendered(B, &policy, &paused),
            still,
            "Paused: 1 of 2 nodes run r-00000000bb; 1 node waits because spec.rollout.paused is set",
        ),
        (rendered(B, &policy, &stalled), halted, "RolledBack: 1 of 2 nodes run r-00000000bb; cp2 rolled it back"),
        (
            Judgement::Conflict { older: "first", node: "cp1" },
            halted,
            "Conflict: node cp1 belongs to the older AuditSetup first; this one changes nothing",
        ),
        (Judgement::NoNodes, halted, "NoNodes: no node matches spec.nodeSelector"),
        (
            Judgement::Rejected(&problems),
            halted,
            "ReferenceNotFound: spec.sinks[1].webhook.tls: Secret ca is missing; spec.policy.rules[0]: no such level",
        ),
        (Judgement::Restoring(&moving), reconciling, "Restoring: 2 nodes are still to be restored; cp2 is verifying"),
        (Judgement::Restoring(&stalled), halted, "RolledBack: 2 nodes are still to be restored; cp2 rolled it back"),
    ];
    for (judgement, want, why) in cases {
        let status = judged(None, &audits, judgement, T0);
        let truths: Vec<_> = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
            .map(|type_| format!("{}={}", type_.as_str(), condition(&status, type_).unwrap().status))
            .into();
        assert_eq!(truths.join(" "), want, "{judgement:?}");
        assert!(shown(&status, ConditionType::Ready).ends_with(why), "{}", shown(&status, ConditionType::Ready));
        assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
    }
}

#[test]
fn the_policy_is_refused_only_for_what_lies_in_it() {
    let sink = Problem { field: "spec.sinks[0]".into(), reason: Reason::InvalidSetup, message: "relative".into() };
    let missing = Problem {
        field: "spec.policy.configMapRef".into(),
        reason: Reason::ReferenceNotFound,
        message: "ConfigMap p is missing".into(),
    };
    let judge = |problems: &[Problem]| {
        shown(&judged(None, &[], Judgement::Rejected(problems), T0), ConditionType::PolicyAccepted)
    };
    assert_eq!(judge(std::slice::from_ref(&sink)), "PolicyAccepted=True Accepted: ");
    let finding = |id: &str| SetupFinding {
        id: id.into(),
        severity: "warning".into(),
        field: "spec.policy.append[0]".into(),
        message: String::new(),
    };
    let found = ["unreachable-rule", "dead-user", "unreachable-rule"].map(finding).to_vec();
    let (policy, progress) = (PolicyStatus { findings: found, ..policy() }, Progress::Done);
    assert_eq!(
        shown(&judged(None, &[], rendered("r-1", &policy, &progress), T0), ConditionType::PolicyAccepted),
        "PolicyAccepted=True Accepted: 23 rules; found: dead-user, unreachable-rule"
    );
    assert_eq!(
        judge(&[sink, missing]),
        "PolicyAccepted=False ReferenceNotFound: spec.policy.configMapRef: ConfigMap p is missing"
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let policy = policy();
    let (moving, done) = (moving(), Progress::Done);
    let audits = [audit("cp1", "Confirmed", Some(B), well())];
    let first = judged(None, &audits, rendered(B, &policy, &moving), T0);
    let second = judged(Some(first), &audits, rendered(B, &policy, &done), T1);
    let since = |type_| condition(&second, type_).unwrap().last_transition_time.0;
    assert_eq!(since(ConditionType::Ready), time(T1));
    assert_eq!(since(ConditionType::PolicyAccepted), time(T0));
    assert_eq!(since(ConditionType::Stalled), time(T0));
}

#[test]
fn a_sink_is_as_healthy_as_on_its_worst_node() {
    let refused = finding("False", "Refused", "10.96.0.7:8443 refuses the connection");
    let lost = finding("False", "DeliveryFailing", "5 requests failed");
    let unknown = finding("Unknown", "CanaryOff", "the canary is switched off");
    let good = || finding("True", "Reachable", "");
    let cases = [
        (vec![(good(), good()), (good(), good())], "SinksHealthy=True Healthy: every sink receives events"),
        (
            vec![(good(), good()), (refused.clone(), refused.clone())],
            "SinksHealthy=False Refused: receiver on cp2: 10.96.0.7:8443 refuses the connection",
        ),
        (
            vec![(good(), unknown.clone()), (good(), lost)],
            "SinksHealthy=False DeliveryFailing: receiver on cp2: 5 requests failed",
        ),
        (
            vec![(good(), unknown.clone()), (good(), good())],
            "SinksHealthy=Unknown CanaryOff: receiver on cp1: the canary is switched off",
        ),
        // An event that arrived proves that the sink was reached, whatever the probe found.
        (vec![(unknown, good())], "SinksHealthy=True Healthy: every sink receives events"),
        (vec![(refused, good())], "SinksHealthy=True Healthy: every sink receives events"),
    ];
    let (policy, done) = (policy(), Progress::Done);
    for (findings, want) in cases {
        let audits: Vec<_> = findings
            .into_iter()
            .enumerate()
            .map(|(index, (reachable, delivering))| {
                let sinks = json!([sink("local", good(), good()), sink("receiver", reachable, delivering)]);
                audit(&format!("cp{}", index + 1), "Confirmed", Some(B), sinks)
            })
            .collect();
        let status = judged(None, &audits, rendered(B, &policy, &done), T0);
        assert_eq!(shown(&status, ConditionType::SinksHealthy), want);
        assert_eq!(status.sinks[1].lost_events, 2 * audits.len() as i64);
    }
}

#[test]
fn a_service_without_endpoints_explains_a_sink_that_does_not_answer() {
    let good = || finding("True", "Reachable", "");
    let (policy, done) = (policy(), Progress::Done);
    let missing = |field: &str| SetupFinding {
        id: "no-endpoints".into(),
        severity: "warning".into(),
        field: field.into(),
        message: "the Service ns/r has no ready endpoint".into(),
    };
    let (of_receiver, of_other) = ("spec.sinks[1].webhook.service", "spec.sinks[10].webhook.service");
    let refused = || finding("False", "Refused", "nothing listens there");
    let throttled = || finding("False", "Throttled", "it answers 429");
    for (field, delivering, want) in [
        (
            of_receiver,
            refused(),
            "SinksHealthy=False NoEndpoints: receiver on cp1: the Service ns/r has no ready endpoint",
        ),
        (of_other, refused(), "SinksHealthy=False Refused: receiver on cp1: nothing listens there"),
        // Something answers, whatever the watch shows.
        (of_receiver, throttled(), "SinksHealthy=False Throttled: receiver on cp1: it answers 429"),
        (of_receiver, good(), "SinksHealthy=True Healthy: every sink receives events"),
    ] {
        let sinks = json!([sink("local", good(), good()), sink("receiver", good(), delivering)]);
        let findings = [missing(field)];
        let Judgement::Rendered { target, change, policy, progress, .. } = rendered(B, &policy, &done) else {
            unreachable!("it is rendered")
        };
        let judgement = Judgement::Rendered { target, change, policy, progress, findings: &findings };
        let status = judged(None, &[audit("cp1", "Confirmed", Some(B), sinks)], judgement, T0);
        assert_eq!(shown(&status, ConditionType::SinksHealthy), want);
        assert_eq!(status.findings, findings, "before the first rollout too");
    }
}

#[test]
fn a_sink_that_receives_events_and_loses_others_is_not_healthy() {
    let (policy, done) = (policy(), Progress::Done);
    let judge = |name: &str, complete: Value, lost_at: &str| {
        let mut receiver = sink("receiver", finding("True", "Reachable", ""), finding("True", "Delivering", ""));
        receiver["complete"] = complete;
        receiver["lostAt"] = json!(lost_at);
        let local = sink("local", finding("True", "Reachable", ""), finding("True", "Delivering", ""));
        audit(name, "Confirmed", Some(B), json!([local, receiver]))
    };
    let lost = finding("False", "EventsLost", "kube-apiserver has lost 2 events for this sink");
    let audits = [judge("cp1", finding("True", "Complete", ""), T0), judge("cp2", lost, T1)];
    let status = judged(None, &audits, rendered(B, &policy, &done), T1);
    assert_eq!(
        shown(&status, ConditionType::SinksHealthy),
        "SinksHealthy=False EventsLost: receiver on cp2: kube-apiserver has lost 2 events for this sink"
    );
    let receiver = &status.sinks[1];
    assert_eq!((receiver.delivering, receiver.complete, receiver.lost_events), (Truth::True, Truth::False, 4));
    assert_eq!(receiver.lost_at, Some(Time(time(T1))));
}

#[test]
fn a_credential_that_expires_soon_is_a_finding_and_an_event() {
    let (policy, done) = (policy(), Progress::Done);
    let expires = |name: &str, at: &str| {
        let mut receiver = sink("receiver", finding("True", "Reachable", ""), finding("True", "Delivering", ""));
        receiver["expires"] = json!([{"of": "Token", "at": at}]);
        audit(name, "Confirmed", Some(B), json!([receiver]))
    };
    let (early, late) = ("2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z");
    let audits = [expires("cp1", late), expires("cp2", early)];
    let before = judged(None, &audits, rendered(B, &policy, &done), T0);
    assert_eq!(before.sinks[1].expires[0].at.0, time(early), "the earliest of all nodes");
    assert_eq!(before.findings, []);
    let after = judged(Some(before.clone()), &audits, rendered(B, &policy, &done), "2026-12-28T00:00:00Z");
    let [found] = after.findings.as_slice() else { panic!("{:?}", after.findings) };
    assert_eq!(
        (found.id.as_str(), found.field.as_str()),
        ("expires-soon", "spec.sinks[1].webhook.auth.bearerTokenSecretRef")
    );
    let lines: Vec<_> = events(&before, &after).iter().map(line).collect();
    assert_eq!(lines, [format!("Warning ExpiresSoon Look: {}", found.message)]);
}

#[test]
fn nothing_is_known_of_sinks_before_a_node_runs_a_revision() {
    let (policy, moving) = (policy(), moving());
    let status = judged(None, &[audit("cp1", "Staged", None, json!([]))], rendered(B, &policy, &moving), T0);
    assert_eq!(
        shown(&status, ConditionType::SinksHealthy),
        "SinksHealthy=Unknown Pending: local is not watched yet: no node runs a Revision; receiver is not watched yet: no node runs a Revision"
    );
    let unprobed = judged(None, &[audit("cp1", "Confirmed", Some(B), json!([]))], rendered(B, &policy, &moving), T0);
    assert_eq!(
        shown(&unprobed, ConditionType::SinksHealthy),
        "SinksHealthy=Unknown Pending: local on cp1: the agent has not looked at it yet; receiver on cp1: the agent has not looked at it yet"
    );
}

#[test]
fn history_has_the_outcome_of_each_revision() {
    let policy = policy();
    let (done, moving) = (Progress::Done, moving());
    let back = Progress::Stalled { reason: Reason::RolledBack, message: String::new() };
    let outcomes = |status: &AuditSetupStatus| -> Vec<_> {
        status.history.iter().map(|entry| (entry.revision.clone(), entry.outcome, entry.finished.is_some())).collect()
    };
    let mut status = None;
    let steps = [
        (A, &moving, vec![(A, Outcome::InProgress, false)]),
        (B, &moving, vec![(B, Outcome::InProgress, false), (A, Outcome::Superseded, true)]),
        (B, &back, vec![(B, Outcome::RolledBack, true), (A, Outcome::Superseded, true)]),
        (B, &back, vec![(B, Outcome::RolledBack, true), (A, Outcome::Superseded, true)]),
        // Tried again under a newer generation.
        (
            B,
            &moving,
            vec![(B, Outcome::InProgress, false), (B, Outcome::RolledBack, true), (A, Outcome::Superseded, true)],
        ),
        (B, &done, vec![(B, Outcome::Confirmed, true), (B, Outcome::RolledBack, true), (A, Outcome::Superseded, true)]),
        // A node that drifts does not make a Revision begin again.
        (
            B,
            &moving,
            vec![(B, Outcome::Confirmed, true), (B, Outcome::RolledBack, true), (A, Outcome::Superseded, true)],
        ),
    ];
    for (target, progress, want) in steps {
        let next = judged(status.take(), &[], rendered(target, &policy, progress), T0);
        let want: Vec<_> = want.into_iter().map(|(id, outcome, end)| (id.to_string(), outcome, end)).collect();
        assert_eq!(outcomes(&next), want);
        status = Some(next);
    }
    for index in 0..20 {
        let target = format!("r-{index:010x}");
        status = Some(judged(status.take(), &[], rendered(&target, &policy, &done), T0));
    }
    assert_eq!(status.unwrap().history.len(), 10);
}

#[test]
fn a_delivery_that_only_goes_on_is_not_worth_a_write() {
    let (policy, done) = (policy(), Progress::Done);
    let old = judged(None, &[audit("cp1", "Confirmed", Some(B), well())], rendered(B, &policy, &done), T0);
    assert!(!differs(&old, &old));
    let mut later = old.clone();
    later.sinks[0].last_delivered = Some(Time(time(T1)));
    assert!(!differs(&old, &later));
    later.sinks[0].lost_events = 3;
    assert!(differs(&old, &later));
    later = AuditSetupStatus { sinks: Vec::new(), ..old.clone() };
    assert!(differs(&old, &later) && differs(&later, &old));
}

fn line(event: &Event) -> String {
    let kind = if event.is_warning { "Warning" } else { "Normal" };
    format!("{kind} {} {}: {}", event.reason, event.action, event.note)
}

#[test]
fn one_event_for_each_change_and_none_without() {
    let policy = policy();
    let (done, moving) = (Progress::Done, moving());
    let back = Progress::Stalled { reason: Reason::RolledBack, message: "cp1 rolled it back".into() };
    let ill = json!([
        sink("local", finding("True", "Reachable", ""), finding("True", "Delivering", "")),
        sink("receiver", finding("False", "Refused", "refused"), finding("False", "Refused", "refused")),
    ]);
    let failure = json!({
        "revision": B, "setupGeneration": 3, "reason": "CrashLoop", "message": "it exits", "lastWords": "bad flag", "at": T0,
    });
    let mut went_back = audit("cp1", "RolledBack", Some(A), well());
    went_back.status.as_mut().unwrap().last_failure = serde_json::from_value(failure).unwrap();
    let problems =
        [Problem { field: "spec.sinks[0]".into(), reason: Reason::InvalidSetup, message: "relative path".into() }];

    let steps: Vec<(Vec<NodeAudit>, Judgement, Vec<&str>)> = vec![
        (
            vec![audit("cp1", "Unmanaged", None, json!([]))],
            rendered(A, &policy, &moving),
            vec![
                "Normal RollingOut Render: rendered r-00000000aa: policy changed",
                "Normal RollingOut RollOut: 0 of 1 node runs r-00000000aa; cp2 is verifying",
            ],
        ),
        (
            vec![audit("cp1", "Confirmed", Some(A), well())],
            rendered(A, &policy, &done),
            vec![
                "Normal Confirmed Change: cp1 runs r-00000000aa",
                "Normal Confirmed RollOut: 1 node runs r-00000000aa",
                "Normal Healthy Look local: local receives events",
                "Normal Healthy Look receiver: receiver receives events",
            ],
        ),
        (
            vec![audit("cp1", "Confirmed", Some(A), ill)],
            rendered(A, &policy, &done),
            vec!["Warning Refused Look receiver: receiver on cp1: refused"],
        ),
        (
            vec![audit("cp1", "Confirmed", Some(A), well())],
            rendered(A, &policy, &done),
            vec!["Normal Healthy Look receiver: receiver receives events"],
        ),
        (
            vec![audit("cp1", "Confirmed", Some(A), well())],
            Judgement::Rejected(&problems),
            vec!["Warning InvalidSetup Judge: spec.sinks[0]: relative path"],
        ),
        (
            vec![went_back],
            rendered(B, &policy, &back),
            vec![
                "Normal RollingOut Render: rendered r-00000000bb: policy changed",
                "Warning RolledBack Change: cp1 rolled back: it exits; last words of kube-apiserver: bad flag",
            ],
        ),
        (
            vec![audit("cp1", "Confirmed", Some(A), well())],
            Judgement::Restoring(&moving),
            vec![
                "Normal Restoring Restore: 1 node is still to be restored; cp2 is verifying",
                "Normal Confirmed Change: cp1 runs r-00000000aa",
            ],
        ),
    ];
    let mut old = AuditSetupStatus::default();
    for (audits, judgement, want) in steps {
        let new = judged(Some(old.clone()), &audits, judgement, T0);
        assert_eq!(events(&old, &new).iter().map(line).collect::<Vec<_>>(), want);
        assert_eq!(events(&new, &judged(Some(new.clone()), &audits, judgement, T1)), []);
        old = new;
    }
}

#[test]
fn long_messages_are_cut_at_a_character() {
    assert_eq!(cut("abc".into(), 3), "abc");
    assert_eq!(cut("ääää".into(), 7), "ää…");
    assert!(cut("ä".repeat(1000), MESSAGE_BYTES).len() <= MESSAGE_BYTES);
}

#[test]
fn a_rollout_took_the_time_from_its_revision_to_the_last_node_once() {
    let (policy, done, moving) = (policy(), Progress::Done, moving());
    let mut old = AuditSetupStatus::default();
    let five_minutes = Some(SignedDuration::from_mins(5));
    for (target, progress, now, want) in [
        // Over when it was first seen: its duration is unknown.
        (A, &done, T0, None),
        (B, &moving, T0, None),
        (B, &done, T1, five_minutes),
        (B, &done, T1, None),
        // A node joins.
        (B, &moving, T1, None),
        (B, &done, "2027-03-01T00:00:00Z", None),
    ] {
        let new = judged(Some(old.clone()), &[], rendered(target, &policy, progress), now);
        assert_eq!(rolled_out(&old, &new), want, "{target} {progress:?} {now}");
        old = new;
    }
}

#[test]
fn the_last_event_of_a_setup_claims_only_what_is_known() {
    let mut audits = [audit("cp1", "Unmanaged", None, json!([])), audit("cp2", "Unmanaged", None, json!([]))];
    let note = |audits: &[NodeAudit]| {
        let node = |audit| Node {
            name: "",
            is_ready: true,
            goal: Goal::default(),
            audit: Some(audit),
            had_audit: false,
            contact: Contact::default(),
        };
        Event::restored(&audits.iter().map(node).collect::<Vec<_>>()).note
    };
    assert_eq!(note(&audits), "every node has its original manifest again");
    audits[1].status = None;
    assert!(note(&audits).contains("the others were never changed"));
    assert!(note(&[]).contains("is unknown"));
}

#[test]
fn each_change_of_a_node_is_an_event_and_no_kubelet_is_ended_in_silence() {
    let node = |phase: &str, reason: &str| -> NodeStatus {
        serde_json::from_value(json!({"name": "cp1", "phase": phase, "reason": reason, "message": "why"})).unwrap()
    };
    let begins = "Normal RollingOut Change: cp1 begins: why";
    let ended =
        "Warning KubeletRestarted EndKubelet: the guard ended the kubelet of cp1, so that it reads the old manifest";
    let back = "Warning RolledBack Change: cp1 rolled back: why";
    let confirmed = || node("Confirmed", "Confirmed");
    for (before, after, want) in [
        (confirmed(), node("Staged", "Staged"), vec![begins]),
        (node("Staged", "Staged"), node("Verifying", "Verifying"), vec![]),
        // The first that is seen of it.
        (confirmed(), node("Verifying", "Verifying"), vec![begins]),
        (node("Verifying", "CrashLoop"), node("Verifying", "KubeletRestarted"), vec![ended]),
        (node("Verifying", "KubeletRestarted"), node("RolledBack", "KubeletRestarted"), vec![back]),
        (node("Verifying", "CrashLoop"), node("RolledBack", "KubeletRestarted"), vec![ended, back]),
        (confirmed(), node("Drifted", "Paused"), vec!["Warning Drifted Observe: cp1: why"]),
    ] {
        let status = |node: &NodeStatus| AuditSetupStatus { nodes: vec![node.clone()], ..AuditSetupStatus::default() };
        let lines: Vec<_> = events(&status(&before), &status(&after)).iter().map(line).collect();
        assert_eq!(lines, want, "{before:?} {after:?}");
    }
}

#[test]
fn a_sink_near_its_limits_is_a_finding_with_the_numbers() {
    let (policy, done) = (policy(), Progress::Done);
    let loads = |name: &str, local: Value, receiver: Value| {
        let mut sinks = well();
        (sinks[0]["load"], sinks[1]["load"]) = (local, receiver);
        audit(name, "Confirmed", Some(B), sinks)
    };
    let found = |audits: &[NodeAudit]| {
        let status = judged(None, audits, rendered(B, &policy, &done), T0);
        assert_eq!(
            shown(&status, ConditionType::SinksHealthy),
            "SinksHealthy=True Healthy: every sink receives events"
        );
        // A Setup that is rejected later keeps no measured finding of then.
        let rejected =
            judged(Some(status.clone()), &[audit("cp1", "Confirmed", Some(B), well())], Judgement::NoNodes, T0);
        assert_eq!(rejected.findings, []);
        status
            .findings
            .iter()
            .map(|it| format!("{} {} {}: {}", it.severity, it.id, it.field, it.message))
            .collect::<Vec<_>>()
    };
    let at_ease = loads("cp1", json!({"logHours": 24.0}), json!({"eventsPerSecond": 2000.0}));
    assert_eq!(found(std::slice::from_ref(&at_ease)), Vec::<String>::new());
    let strained = loads("cp2", json!({"logHours": 5.6, "diskHours": 0.75}), json!({"eventsPerSecond": 2100.0}));
    let want = [
        "warning log-fills-disk spec.sinks[0].log: sink local: at the present rate, the log fills its file system on cp2 in \
         about 45 minutes, before old files are removed. Lower maxBackups or maxSizeMegabytes, free space, or record less",
        "info log-holds spec.sinks[0].log: sink local: at the present rate, the log on cp2 holds the last 5.6 hours (maxBackups \
         10 × maxSizeMegabytes 100): a collector that is down for longer misses events. Raise one of them, or record less",
        "warning near-throttle spec.sinks[1].webhook.delivery.batch: sink receiver: kube-apiserver on cp2 records about 2100 \
         events per second and may send at most 4000 (throttleQPS 10 × maxSize 400): events that it cannot send in time are \
         lost. Raise maxSize or throttleQPS, or record less",
    ];
    assert_eq!(found(&[at_ease, strained]), want);
    let short = loads("cp1", json!({"logHours": 1.9}), Value::Null);
    assert!(found(&[short])[0].starts_with("warning log-holds"));
}
