use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-11-21T12:00:00Z";
const OLD: &str = "r-0000000001";
const NEW: &str = "r-0000000002";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    time(NOW) - SignedDuration::from_secs(seconds)
}

/// Whether the rollout is paused.
#[derive(Clone, Copy, PartialEq)]
enum Rollout {
    Runs,
    IsPaused,
}
use Rollout::{IsPaused, Runs};

fn goal(revision: Option<&'static str>) -> Goal<'static> {
    Goal { revision, setup_uid: None, setup_generation: 7 }
}

/// A node as the controller sees it; every field is what the name says.
#[derive(Clone, Debug)]
struct Sample {
    name: String,
    is_ready: bool,
    goal: Goal<'static>,
    /// `None`: no NodeAudit.
    audit: Option<NodeAudit>,
    had_audit: bool,
    contact: Contact,
}

/// One that has no slot.
fn sample(name: &str, spec: Option<&str>, phase: &str, runs: Option<&str>) -> Sample {
    let audit: NodeAudit = serde_json::from_value(json!({
        "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit",
        "metadata": {"name": name, "generation": 4},
        "spec": {"setup": "cluster", "setupGeneration": 7, "revision": spec},
        "status": {
            "observedGeneration": 4, "phase": phase, "revision": runs, "readySince": ago(600), "lastSeen": ago(20),
        },
    }))
    .unwrap();
    Sample {
        name: name.into(),
        is_ready: true,
        goal: goal(Some(NEW)),
        audit: Some(audit),
        had_audit: false,
        contact: Contact { silent_for: Duration::from_secs(20), same_ready_for: Duration::ZERO },
    }
}

/// Runs the old Revision, as assigned.
fn old(name: &str) -> Sample {
    sample(name, Some(OLD), "Confirmed", Some(OLD)).generation(6)
}

/// Has reached the goal.
fn new(name: &str) -> Sample {
    sample(name, Some(NEW), "Confirmed", Some(NEW))
}

/// Is on the way to the goal.
fn changing(name: &str) -> Sample {
    sample(name, Some(NEW), "Verifying", Some(OLD)).with_slot()
}

/// Rolled the goal back.
fn failed(name: &str) -> Sample {
    let failure = json!({
        "revision": NEW, "setupGeneration": 7, "reason": "CrashLoop", "message": "kube-apiserver exits",
        "lastWords": "unknown flag", "at": ago(60),
    });
    sample(name, Some(NEW), "RolledBack", Some(OLD)).status("lastFailure", failure)
}

impl Sample {
    fn status(mut self, field: &str, value: Value) -> Self {
        let audit = self.audit.take().unwrap();
        let mut json = serde_json::to_value(&audit).unwrap();
        json["status"][field] = value;
        self.audit = Some(serde_json::from_value(json).unwrap());
        self
    }

    /// The generation of the Setup in the spec of the node.
    fn generation(mut self, generation: i64) -> Self {
        self.audit.as_mut().unwrap().spec.setup_generation = generation;
        self
    }

    fn goal(mut self, revision: Option<&'static str>) -> Self {
        self.goal.revision = revision;
        self
    }

    /// The generation of the Setup that wants the goal.
    fn wanted_under(mut self, generation: i64) -> Self {
        self.goal.setup_generation = generation;
        self
    }

    fn not_ready(mut self) -> Self {
        self.is_ready = false;
        self
    }

    fn silent(self) -> Self {
        self.status("lastSeen", json!(ago(200))).silent_for(200)
    }

    fn silent_for(mut self, seconds: u64) -> Self {
        self.contact.silent_for = Duration::from_secs(seconds);
        self
    }

    fn same_ready_for(mut self, seconds: u64) -> Self {
        self.contact.same_ready_for = Duration::from_secs(seconds);
        self
    }

    fn with_slot(mut self) -> Self {
        self.audit.as_mut().unwrap().spec.may_change = true;
        self
    }

    fn ready_for(self, seconds: i64) -> Self {
        self.status("readySince", json!(ago(seconds))).status("lastSeen", json!(ago(0)))
    }

    fn down(self) -> Self {
        self.status("readySince", Value::Null)
    }

    fn reason(self, reason: &str) -> Self {
        self.status("reason", json!(reason))
    }

    fn unreported(mut self) -> Self {
        self.audit.as_mut().unwrap().status = None;
        self
    }

    fn first_spec(mut self) -> Self {
        self.audit.as_mut().unwrap().metadata.generation = Some(1);
        self
    }

    fn without_audit(mut self) -> Self {
        self.audit = None;
        self
    }

    /// Somebody deleted its NodeAudit.
    fn with_lost_audit(mut self) -> Self {
        self.had_audit = true;
        self.without_audit()
    }
}

/// A claim with its decision.
struct Decided<'a> {
    nodes: &'a [Sample],
    decision: Decision,
}

fn decided(samples: &[Sample], rollout: Rollout) -> Decided<'_> {
    decided_beside(samples, &[], rollout)
}

fn node(sample: &Sample) -> Node<'_> {
    let Sample { name, is_ready, goal, audit, had_audit, contact } = sample;
    let (is_ready, goal, audit) = (*is_ready, *goal, audit.as_ref());
    Node { name, is_ready, goal, audit, had_audit: *had_audit, contact: *contact }
}

fn nodes(samples: &[Sample]) -> Vec<Node<'_>> {
    samples.iter().map(node).collect()
}

fn claim(samples: &[Sample], rollout: Rollout) -> Claim<'_> {
    Claim {
        nodes: nodes(samples),
        is_paused: rollout == IsPaused,
        min_ready: SignedDuration::from_secs(10),
        on_sink_failure: OnSinkFailure::Continue,
    }
}

/// Decides for a claim beside nodes that nobody claims, and beside the same nodes as another claim that wants nothing
/// new: the answer must not differ.
fn decided_beside<'a>(samples: &'a [Sample], others: &'a [Sample], rollout: Rollout) -> Decided<'a> {
    let [decision] = &decide(&[claim(samples, rollout)], &nodes(others), time(NOW))[..] else { panic!("one claim") };
    let still = claim(others, IsPaused);
    assert_eq!(decide(&[claim(samples, rollout), still.clone()], &[], time(NOW))[0], *decision);
    assert_eq!(decide(&[still, claim(samples, rollout)], &[], time(NOW))[1], *decision);
    Decided { nodes: samples, decision: decision.clone() }
}

/// `cp1 Start, cp2 Hold: cp1 starts`
fn shown(Decided { nodes, decision }: &Decided) -> String {
    let assignments = nodes.iter().zip(&decision.assignments);
    let assignments: Vec<_> = assignments.map(|(node, assignment)| format!("{} {assignment:?}", node.name)).collect();
    let progress = match &decision.progress {
        Progress::Done => "done".to_string(),
        Progress::Moving { detail } => detail.clone(),
        Progress::Paused { waiting } => format!("paused, {waiting} waiting"),
        Progress::Stalled { reason, message } => format!("{reason}: {message}"),
    };
    format!("{}: {progress}", assignments.join(", "))
}

#[test]
fn one_node_at_a_time() {
    let cases: &[(&str, &[Sample], &str)] = &[
        ("nothing to do", &[new("cp1"), new("cp2")], "cp1 Follow, cp2 Follow: done"),
        ("a single new node starts at once", &[new("cp1").without_audit()], "cp1 Start: cp1 starts"),
        (
            "of several new nodes none before all have reported",
            &[new("cp1").without_audit(), new("cp2").without_audit()],
            "cp1 Hold, cp2 Hold: cp1 has no report from its agent yet",
        ),
        (
            "once they have reported, the first by name",
            &[sample("cp1", None, "Unmanaged", None), sample("cp2", None, "Unmanaged", None)],
            "cp1 Start, cp2 Hold: cp1 starts",
        ),
        ("the first by name", &[old("cp2"), old("cp1")], "cp2 Hold, cp1 Start: cp1 starts"),
        ("none beside one in change", &[changing("cp1"), old("cp2")], "cp1 Continue, cp2 Hold: cp1 is verifying"),
        (
            "assigned, and not begun yet",
            &[sample("cp1", Some(NEW), "Confirmed", Some(OLD)), old("cp2")],
            "cp1 Continue, cp2 Hold: cp1 is changing",
        ),
        (
            "not before the last one was ready for a while",
            &[new("cp1").ready_for(9), old("cp2")],
            "cp1 Follow, cp2 Hold: cp1 must be ready for a while before the next node changes",
        ),
        ("but then", &[new("cp1").ready_for(10), old("cp2")], "cp1 Follow, cp2 Start: cp2 starts"),
        (
            "its slot ends first",
            &[new("cp1").with_slot(), old("cp2")],
            "cp1 Follow, cp2 Hold: cp1 has not yet acknowledged the end of its change",
        ),
        (
            "a clock ahead does not hold up the others",
            &[new("cp1").status("readySince", json!(ago(-3600))).status("lastSeen", json!(ago(-3660))), old("cp2")],
            "cp1 Follow, cp2 Start: cp2 starts",
        ),
        (
            "a clock ahead, and a report that stays the same",
            &[
                new("cp1")
                    .status("readySince", json!(ago(-3600)))
                    .status("lastSeen", json!(ago(-3600)))
                    .same_ready_for(10),
                old("cp2"),
            ],
            "cp1 Follow, cp2 Start: cp2 starts",
        ),
        (
            "a new Revision reaches the node that is in change with another",
            &[sample("cp1", Some(OLD), "Verifying", None), new("cp2")],
            "cp1 Start, cp2 Follow: cp1 starts",
        ),
        (
            "a report about an older spec proves nothing",
            &[new("cp1").status("observedGeneration", json!(3)), old("cp2")],
            "cp1 Follow, cp2 Hold: cp1 is changing",
        ),
    ];
    for (name, samples, want) in cases {
        assert_eq!(shown(&decided(samples, Runs)), *want, "{name}");
    }
}

#[test]
fn the_worst_first() {
    let back = |name| sample(name, Some(OLD), "RolledBack", Some("r-0000000000")).generation(6);
    let drifted = |name| sample(name, Some(OLD), "Drifted", Some(OLD)).generation(6);
    let cases: &[(&str, &[Sample], &str)] = &[
        ("no API server", &[back("cp1"), back("cp2").down()], "cp1 Hold, cp2 Start: cp2 starts"),
        ("one that rolled back", &[old("cp1"), back("cp2")], "cp1 Hold, cp2 Start: cp2 starts"),
        (
            "two that rolled back do not wait for each other",
            &[back("cp1"), back("cp2")],
            "cp1 Start, cp2 Hold: cp1 starts",
        ),
        ("one that drifted", &[old("cp1"), drifted("cp2")], "cp1 Hold, cp2 Start: cp2 starts"),
        (
            "one that drifted needs no start where its goal is the same",
            &[new("cp1"), sample("cp2", Some(NEW), "Drifted", Some(NEW))],
            "cp1 Follow, cp2 Continue: cp2 was changed by something else and is being corrected",
        ),
    ];
    for (name, samples, want) in cases {
        assert_eq!(shown(&decided(samples, Runs)), *want, "{name}");
    }
}

#[test]
fn a_failure_halts_until_the_setup_changes() {
    let failure = "RolledBack: cp1 rolled back r-0000000002 (CrashLoop): kube-apiserver exits; last words of kube-apiserver: \
                   unknown flag";
    assert_eq!(shown(&decided(&[failed("cp1"), old("cp2")], Runs)), format!("cp1 Hold, cp2 Hold: {failure}"));
    // A newer generation that renders the same Revision: tried again, by decision and on this node alone.
    let newer = [failed("cp1").wanted_under(8), old("cp2").wanted_under(8)];
    assert_eq!(shown(&decided(&newer, Runs)), "cp1 Start, cp2 Hold: cp1 starts");
    // Another Revision.
    let other = [failed("cp1").goal(Some("r-0000000003")), old("cp2").goal(Some("r-0000000003"))];
    assert_eq!(shown(&decided(&other, Runs)), "cp1 Start, cp2 Hold: cp1 starts");
    // Failed once, and runs it now.
    let failure = failed("cp1").audit.unwrap().status.unwrap().last_failure;
    let healed = new("cp1").status("lastFailure", json!(failure));
    assert_eq!(shown(&decided(&[healed, old("cp2")], Runs)), "cp1 Follow, cp2 Start: cp2 starts");
    // It rolled back another goal than the one it failed with last: with the slot or without, it does not get the same
    // again.
    let other = json!({"revision": OLD, "setupGeneration": 7, "reason": "CrashLoop", "message": "", "at": ago(60)});
    let mut back = failed("cp1").status("lastFailure", other);
    for may_change in [true, false] {
        back.audit.as_mut().unwrap().spec.may_change = may_change;
        let decision = decided(std::slice::from_ref(&back), Runs);
        assert_eq!(shown(&decision), "cp1 Hold: RolledBack: cp1: rolled back its Revision", "{may_change}");
    }
    // A pause keeps the newer generation, too, from a node that failed.
    let paused = decided(&newer[..1], IsPaused);
    assert_eq!(paused.decision.assignments, [Assignment::Hold]);
}

#[test]
fn nothing_starts_where_nobody_knows_what_would_happen() {
    let silent = "its agent is silent; its last report is from 2026-11-21T11:56:40Z";
    let cases: &[(&str, &[Sample], String)] = &[
        ("a silent agent", &[old("cp1").silent()], format!("cp1 Continue: AgentSilent: cp1: {silent}")),
        (
            "a silent agent elsewhere",
            &[old("cp1"), old("cp2").silent()],
            format!("cp1 Hold, cp2 Continue: AgentSilent: cp2: {silent}"),
        ),
        (
            "a silent agent is news even where everything was done",
            &[new("cp1"), new("cp2").silent()],
            format!("cp1 Follow, cp2 Follow: AgentSilent: cp2: {silent}"),
        ),
        (
            "an agent that never came",
            &[sample("cp1", Some(NEW), "Unmanaged", None).unreported().silent_for(200)],
            "cp1 Continue: AgentSilent: cp1: its agent has never reported".into(),
        ),
        (
            "an agent that may still come",
            &[sample("cp1", Some(NEW), "Unmanaged", None).unreported().silent_for(180)],
            "cp1 Continue: cp1 has no report from its agent yet".into(),
        ),
        ("a Node that is not Ready", &[old("cp1").not_ready()], "cp1 Continue: cp1 is not Ready".into()),
        (
            "a Node elsewhere that is not Ready",
            &[old("cp1"), old("cp2").not_ready()],
            "cp1 Hold, cp2 Continue: cp1 is not Ready".replace("cp1 is", "cp2 is"),
        ),
        (
            "one that rolled back and does not serve",
            &[old("cp1"), sample("cp2", Some(NEW), "RolledBack", Some(OLD)).down()],
            "cp1 Hold, cp2 Continue: cp2 rolled back and does not serve".into(),
        ),
        (
            "an API server that is down for a reason of its own",
            &[old("cp1").down(), old("cp2")],
            "cp1 Hold, cp2 Hold: cp1 has a kube-apiserver that is not ready".into(),
        ),
        (
            "the same where everything was done",
            &[old("cp1"), new("cp2").down()],
            "cp1 Hold, cp2 Follow: cp2 has a kube-apiserver that is not ready".into(),
        ),
        (
            "a node that cannot be managed",
            &[
                sample("cp1", Some(NEW), "Unsupported", None)
                    .reason("DuplicatePod")
                    .status("message", json!("copy.yaml defines it too")),
                old("cp2"),
            ],
            "cp1 Continue, cp2 Hold: DuplicatePod: cp1: copy.yaml defines it too".into(),
        ),
    ];
    for (name, samples, want) in cases {
        assert_eq!(shown(&decided(samples, Runs)), *want, "{name}");
    }
}

#[test]
fn no_agent_is_silent_because_its_clock_is_wrong() {
    let behind = new("cp1").status("lastSeen", json!(ago(86_400)));
    assert_eq!(shown(&decided(&[behind], Runs)), "cp1 Follow: done");
}

#[test]
fn nodes_that_wait_begin_one_after_the_other() {
    // Settings of ours, made by somebody or under a NodeAudit that is gone.
    let found = |name| sample(name, None, "Confirmed", Some(NEW)).reason("Held");
    let drifted = |name| sample(name, Some(NEW), "Drifted", Some(NEW)).reason("Held");
    let lost = |name| sample(name, None, "Unmanaged", None).reason("Held");
    let cases: &[(&str, &[Sample], &str)] = &[
        ("settings of ours", &[found("cp1"), found("cp2")], "cp1 Start, cp2 Hold: cp1 starts"),
        ("the first one has them", &[new("cp1"), found("cp2")], "cp1 Follow, cp2 Start: cp2 starts"),
        (
            "one that may have begun before it was held goes first",
            &[found("cp1"), found("cp2").status("observedGeneration", json!(3))],
            "cp1 Hold, cp2 Start: cp2 starts",
        ),
        ("whose journal is lost too", &[lost("cp1"), lost("cp2")], "cp1 Start, cp2 Hold: cp1 starts"),
        ("to be restored", &[lost("cp1").goal(None), found("cp2").goal(None)], "cp1 Start, cp2 Hold: cp1 starts"),
        (
            "the manifests that somebody wrote on all nodes at once",
            &[drifted("cp1"), drifted("cp2")],
            "cp1 Start, cp2 Hold: cp1 starts",
        ),
        ("and on one beside a change", &[changing("cp1"), drifted("cp2")], "cp1 Continue, cp2 Hold: cp1 is verifying"),
        (
            "not beside an API server that is down",
            &[found("cp1"), found("cp2").down()],
            "cp1 Hold, cp2 Hold: cp2 has a kube-apiserver that is not ready",
        ),
        // It may not have seen the pause, so the others wait for it.
        (
            "not begun",
            &[sample("cp1", Some(NEW), "Confirmed", Some(OLD)).reason("Paused").with_slot(), old("cp2")],
            "cp1 Continue, cp2 Hold: cp1 is changing",
        ),
    ];
    for (name, samples, want) in cases {
        assert_eq!(shown(&decided(samples, Runs)), *want, "{name}");
    }
    let drifted = drifted("cp1").reason("Paused");
    assert_eq!(shown(&decided(&[drifted, new("cp2")], IsPaused)), "cp1 Hold, cp2 Follow: paused, 1 waiting");
}

#[test]
fn nothing_starts_beside_a_change_under_another_setup() {
    let restored = |name| sample(name, None, "Unmanaged", None).goal(None);
    let nothing_of_ours = |name| sample(name, None, "Unsupported", None).goal(None);
    let waits = |what: &str| format!("cp1 Hold: cp9 of another AuditSetup {what}");
    let cases: &[(&str, Sample, String)] = &[
        ("at rest", new("cp9"), "cp1 Start: cp1 starts".into()),
        ("rolled back, and serves", failed("cp9"), "cp1 Start: cp1 starts".into()),
        ("restored", restored("cp9"), "cp1 Start: cp1 starts".into()),
        ("in change", changing("cp9"), waits("is verifying")),
        ("at rest, with the slot", new("cp9").with_slot(), waits("has not yet acknowledged the end of its change")),
        (
            "rolled back, with the slot",
            failed("cp9").with_slot(),
            waits("has not yet acknowledged the end of its change"),
        ),
        ("being restored", sample("cp9", None, "Verifying", Some(NEW)).goal(None), waits("is verifying")),
        ("whose NodeAudit somebody deleted", new("cp9").with_lost_audit(), waits("has no report from its agent yet")),
        ("that never had a NodeAudit", new("cp9").without_audit(), "cp1 Start: cp1 starts".into()),
        ("not Ready", new("cp9").not_ready(), waits("is not Ready")),
        ("does not serve", new("cp9").down(), waits("has a kube-apiserver that is not ready")),
        ("silent", new("cp9").silent(), waits("has an agent that does not report")),
        ("cannot be managed", nothing_of_ours("cp9"), waits("cannot be managed as it is")),
        (
            "not ready for long",
            new("cp9").ready_for(4),
            waits("must be ready for a while before the next node changes"),
        ),
    ];
    for (name, other, want) in cases {
        let others = std::slice::from_ref(other);
        assert_eq!(shown(&decided_beside(&[old("cp1")], others, Runs)), *want, "{name}");
        assert_eq!(shown(&decided_beside(&[new("cp1")], others, Runs)), "cp1 Follow: done", "{name}");
    }
    let wake = decided_beside(&[old("cp1")], &[new("cp9").ready_for(4)], Runs).decision.wake;
    assert_eq!(wake, Some(SignedDuration::from_secs(6)));
}

#[test]
fn a_failure_under_another_setup_of_that_generation_halts_nothing() {
    let mut again = failed("cp1");
    again.goal.setup_uid = Some("created again");
    assert_eq!(shown(&decided(&[again], Runs)), "cp1 Start: cp1 starts");
}

#[test]
fn a_pause_starts_nothing_and_finishes_what_is_under_way() {
    assert_eq!(shown(&decided(&[old("cp1"), old("cp2")], IsPaused)), "cp1 Hold, cp2 Hold: paused, 2 waiting");
    assert_eq!(shown(&decided(&[changing("cp1"), old("cp2")], IsPaused)), "cp1 Hold, cp2 Hold: cp1 is verifying");
    assert_eq!(shown(&decided(&[new("cp1")], IsPaused)), "cp1 Follow: done");
    assert_eq!(shown(&decided(&[new("cp1").without_audit()], IsPaused)), "cp1 Hold: paused, 1 waiting");
}

#[test]
fn nodes_are_restored_one_at_a_time_and_then_released() {
    let restored = |name| sample(name, None, "Unmanaged", None).goal(None);
    let cases: &[(&str, &[Sample], &str)] = &[
        ("one at a time", &[new("cp1").goal(None), new("cp2").goal(None)], "cp1 Start, cp2 Hold: cp1 starts"),
        (
            "while one is being restored",
            &[sample("cp1", None, "Verifying", Some(NEW)).goal(None), new("cp2").goal(None)],
            "cp1 Continue, cp2 Hold: cp1 is verifying",
        ),
        (
            "restored, and not ready for long enough",
            &[restored("cp1").ready_for(4), new("cp2").goal(None)],
            "cp1 Follow, cp2 Hold: cp1 must be ready for a while before the next node changes",
        ),
        ("restored", &[restored("cp1"), new("cp2").goal(None)], "cp1 Release, cp2 Start: cp2 starts"),
        ("all restored", &[restored("cp1"), restored("cp2")], "cp1 Release, cp2 Release: done"),
        (
            "restored only in an older report",
            &[restored("cp1").status("observedGeneration", json!(3))],
            "cp1 Follow: done",
        ),
        (
            "never had the slot, and no agent to say so",
            &[restored("cp1").unreported().first_spec().silent_for(200)],
            "cp1 Release: done",
        ),
        (
            "the same, and an agent that may still come",
            &[restored("cp1").unreported().first_spec()],
            "cp1 Continue: cp1 has no report from its agent yet",
        ),
        (
            "had the slot, and no agent to report the outcome",
            &[restored("cp1").unreported().silent_for(200)],
            "cp1 Continue: AgentSilent: cp1: its agent has never reported; delete its NodeAudit to leave the node as it is",
        ),
        (
            "one that cannot be managed and has nothing of ours",
            &[sample("cp1", None, "Unsupported", None).goal(None)],
            "cp1 Release: done",
        ),
        (
            "one that leaves while others stay",
            &[new("cp1"), new("cp2").goal(None)],
            "cp1 Follow, cp2 Start: cp2 starts",
        ),
    ];
    for (name, samples, want) in cases {
        assert_eq!(shown(&decided(samples, Runs)), *want, "{name}");
    }
}

#[test]
fn it_is_decided_again_when_the_next_node_may_start() {
    let wake = |samples: &[Sample]| decided(samples, Runs).decision.wake;
    assert_eq!(wake(&[new("cp1").ready_for(4), old("cp2")]), Some(SignedDuration::from_secs(6)));
    assert_eq!(wake(&[new("cp1"), new("cp2")]), None);
}

fn any_sample(name: String) -> impl Strategy<Value = Sample> {
    let revision = || prop::sample::select(vec![None, Some(OLD), Some(NEW)]);
    let phase = prop::sample::select(vec![
        "Unmanaged",
        "Staged",
        "Verifying",
        "Confirmed",
        "RolledBack",
        "Drifted",
        "Unsupported",
    ]);
    (revision(), revision(), revision(), phase, any::<[bool; 7]>(), 5..9_i64).prop_map(
        move |(goal, spec, runs, phase, [ready, silent, fresh, failed, exists, held, has_turn], generation)| {
            let mut sample = sample(&name, spec, phase, runs).goal(goal).generation(generation);
            sample.is_ready = ready;
            if has_turn {
                sample = sample.with_slot();
            }
            if failed {
                sample = sample.status(
                    "lastFailure",
                    json!({"revision": goal, "setupGeneration": generation, "reason": "CrashLoop", "message": "", "at": NOW}),
                );
            }
            if held {
                sample = sample.reason("Held");
            }
            if fresh {
                sample = sample.ready_for(1);
            }
            if silent {
                sample = sample.silent();
            }
            // A node without a NodeAudit that has nothing to reach is not in the list at all.
            if exists || goal.is_none() { sample } else { sample.without_audit() }
        },
    )
}

fn assert_may_start(name: &str, samples: &[Sample]) -> Result<(), TestCaseError> {
    let itself = samples.iter().find(|sample| sample.name == name).unwrap();
    prop_assert!(itself.audit.is_none() || itself.is_ready);
    for other in samples.iter().filter(|sample| sample.name != name) {
        let Some(audit) = other.audit.as_ref() else { continue };
        let status = audit.status.as_ref().unwrap();
        prop_assert!(!audit.spec.may_change);
        if status.reason == Some(Reason::Held) {
            continue;
        }
        prop_assert!(!matches!(status.phase, Phase::Staged | Phase::Verifying | Phase::Drifted));
        if !matches!(status.phase, Phase::RolledBack | Phase::Unsupported) {
            prop_assert_eq!(&status.revision, &audit.spec.revision);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_reported_at_most_one_node_of_all_claims_starts_and_only_beside_nodes_at_rest(
        samples in (1..6_usize).prop_flat_map(|count| {
            (0..count).map(|index| any_sample(format!("cp{index}"))).collect::<Vec<_>>()
        }),
        cuts in (0..6_usize, 0..6_usize),
        paused in any::<[bool; 2]>(),
    ) {
        let cut = |at: usize| at.min(samples.len());
        let (first, second) = (cut(cuts.0.min(cuts.1)), cut(cuts.0.max(cuts.1)));
        // Two claims, and nodes that nobody claims.
        let of = [&samples[..first], &samples[first..second]];
        let claims: Vec<_> =
            of.iter().zip(paused).map(|(of, paused)| claim(of, if paused { IsPaused } else { Runs })).collect();
        let decisions = decide(&claims, &nodes(&samples[second..]), time(NOW));
        let assigned = || of.iter().zip(&decisions).flat_map(|(of, it)| of.iter().zip(&it.assignments));
        let started: Vec<_> = assigned().filter(|(_, assignment)| **assignment == Assignment::Start).collect();
        prop_assert!(started.len() <= 1, "{:?}", started);
        for (sample, _) in started {
            assert_may_start(&sample.name, &samples)?;
            let claimed = of.iter().position(|of| of.iter().any(|it| it.name == sample.name)).unwrap();
            prop_assert!(!paused[claimed]);
            for beside in of[claimed].iter().filter(|beside| beside.name != sample.name) {
                prop_assert!(beside.audit.is_some(), "one without a report holds up the others of its Setup");
            }
        }
        for (of, decision) in of.iter().zip(&decisions).filter(|(_, decision)| decision.progress == Progress::Done) {
            for (assignment, sample) in decision.assignments.iter().zip(*of) {
                prop_assert!(
                    matches!(assignment, Assignment::Follow | Assignment::Release), "{:?} {:?}", assignment, sample
                );
            }
        }
    }
}

#[test]
fn of_two_claims_that_could_start_the_first_does_and_the_second_names_its_node() {
    let (first, second) = ([old("cp1"), new("cp2")], [old("cp8")]);
    let decisions = decide(&[claim(&first, Runs), claim(&second, Runs)], &[], time(NOW));
    let [one, two] = decisions.try_into().unwrap();
    assert_eq!(shown(&Decided { nodes: &first, decision: one }), "cp1 Start, cp2 Follow: cp1 starts");
    let waits = "cp8 Hold: cp1 of another AuditSetup is about to change";
    assert_eq!(shown(&Decided { nodes: &second, decision: two }), waits);
    // A node that starts without a NodeAudit counts from then on.
    let second = [new("cp8").without_audit()];
    let decisions = decide(&[claim(&second, Runs), claim(&first, Runs)], &[], time(NOW));
    let [two, one] = decisions.try_into().unwrap();
    assert_eq!(shown(&Decided { nodes: &second, decision: two }), "cp8 Start: cp8 starts");
    let waits = "cp1 Hold, cp2 Follow: cp8 of another AuditSetup is about to change";
    assert_eq!(shown(&Decided { nodes: &first, decision: one }), waits);
}

impl Sample {
    /// It has a sink of this state; `None`: the agent has not looked at it yet.
    fn sink(self, name: &str, delivering: Option<(&str, &str)>) -> Self {
        let pending = json!({"status": "Unknown", "reason": "Pending"});
        let reports: Vec<Value> = delivering
            .map(|(status, reason)| {
                let delivering = json!({"status": status, "reason": reason, "message": format!("because of {reason}")});
                json!({"name": name, "reachable": pending, "delivering": delivering, "lostEvents": 0})
            })
            .into_iter()
            .collect();
        let mut sample = self.status("sinks", json!(reports));
        let sinks = json!([{"name": name, "kind": "Webhook"}]);
        sample.audit.as_mut().unwrap().spec.sinks = serde_json::from_value(sinks).unwrap();
        sample
    }
}

#[test]
fn a_rollout_that_holds_waits_until_the_nodes_before_deliver() {
    let (yes, no) = (Some(("True", "Delivering")), Some(("False", "Refused")));
    let (unknown, off) = (Some(("Unknown", "Pending")), Some(("Unknown", "CanaryOff")));
    let fails = "cp1 Follow, cp2 Hold: SinkFailed: cp1 runs the target Revision and does not deliver to sink siem (Refused): \
                 because of Refused; rollout.onSinkFailure: Hold";
    let waits = "cp1 Follow, cp2 Hold: cp1 has not yet delivered to sink siem, and rollout.onSinkFailure is Hold";
    let starts = "cp1 Follow, cp2 Start: cp2 starts";
    for (first, second, hold, want) in [
        (new("cp1").sink("siem", yes), old("cp2"), true, starts),
        (new("cp1").sink("siem", off), old("cp2"), true, starts),
        (new("cp1").sink("siem", no), old("cp2"), false, starts),
        (new("cp1").sink("siem", no), old("cp2"), true, fails),
        (new("cp1").sink("siem", unknown), old("cp2"), true, waits),
        (new("cp1").sink("siem", None), old("cp2"), true, waits),
        // A node that never had a Revision.
        (new("cp1").sink("siem", no), new("cp2").without_audit(), true, fails),
        // A sink that failed before the change says nothing about the new Revision.
        (new("cp1").sink("siem", yes), old("cp2").sink("siem", no), true, starts),
        // Drift is corrected whatever the sinks do.
        (new("cp1").sink("siem", no), sample("cp2", Some(NEW), "Drifted", Some(NEW)).reason("Held"), true, starts),
    ] {
        let samples = [first, second];
        let on_sink_failure = if hold { OnSinkFailure::Hold } else { OnSinkFailure::Continue };
        let claim = Claim { on_sink_failure, ..claim(&samples, Runs) };
        let [decision] = decide(&[claim], &[], time(NOW)).try_into().unwrap();
        assert_eq!(shown(&Decided { nodes: &samples, decision }), want);
    }
    // The first node has nobody to wait for, and a node that is restored waits for no sink.
    let samples = [old("cp1").sink("siem", no), old("cp2").sink("siem", no)];
    let claim = Claim { on_sink_failure: OnSinkFailure::Hold, ..claim(&samples, Runs) };
    let [decision] = decide(&[claim], &[], time(NOW)).try_into().unwrap();
    assert_eq!(shown(&Decided { nodes: &samples, decision }), "cp1 Start, cp2 Hold: cp1 starts");
}
