use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::api::{Expiring, Expiry, Finding, NodeAuditSpec, Phase, Reason};
use crate::client::{ByCode, api_requests};
use crate::fixture;
use crate::journal::{Cause, Change, Clock, Confirmed, Failure, Journal, Sha, Stage};
use crate::node::state;
use crate::plan::{Idle, Steps};
use crate::revision::RevisionId;
use crate::telemetry::{compare_with_sample, exposition};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn id(text: &str) -> RevisionId {
    RevisionId::try_from(text.to_string()).unwrap()
}

fn clock() -> Clock {
    Clock { wall: at(0), boot_id: "a".into(), since_boot_ms: 1 }
}

fn change(target: &str, stage: Stage) -> Change {
    Change { number: 7, ..fixture::change(target, clock(), stage) }
}

fn failure(reason: Reason, seconds: i64) -> Failure {
    let cause = Cause { reason, message: String::new(), last_words: None };
    Failure { target: None, setup_generation: Some(1), cause, at: at(seconds), ended_kubelet: false }
}

fn sink(name: &str, reachable: (Truth, Reason), delivering: (Truth, Reason)) -> NodeSinkStatus {
    let finding = |(status, reason)| Finding { status, reason, message: String::new() };
    NodeSinkStatus {
        name: name.into(),
        reachable: finding(reachable),
        delivering: finding(delivering),
        complete: finding((Truth::False, Reason::EventsLost)),
        lost_events: 3,
        lost_at: Some(Time(at(4))),
        expires: vec![Expiry { of: Expiring::Token, at: Time(at(9)) }],
        load: None,
        last_delivered: (delivering.0 == Truth::True).then(|| Time(at(5))),
    }
}

/// The samples, without comments and sorted.
fn samples(registry: &Registry) -> Vec<String> {
    let text = exposition(registry);
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(ToString::to_string).collect();
    lines.sort();
    lines
}

fn observe(metrics: &Metrics, journal: &Journal, plan: &Plan, sinks: &[NodeSinkStatus], phase: Phase) {
    let spec: NodeAuditSpec = serde_json::from_str(r#"{"setup": "cluster", "setupGeneration": 1}"#).unwrap();
    let pass = Pass {
        spec: &spec,
        generation: None,
        journal,
        plan,
        api_server_version: None,
        ready_since: None,
        credentials: None,
        sinks: sinks.to_vec(),
    };
    let revision = journal.confirmed.as_ref().map(|confirmed| confirmed.revision.to_string());
    metrics.observe(&pass, &NodeAuditStatus { phase, revision, ..NodeAuditStatus::default() });
}

fn confirmed(revision: &str) -> Journal {
    let confirmed = Confirmed { revision: id(revision), manifest: Sha::of(b""), at: at(0) };
    Journal { confirmed: Some(confirmed), ..Journal::default() }
}

#[test]
fn a_pass_is_shown_in_samples_and_an_unknown_fact_has_none() {
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let nothing = Plan::Nothing(Idle::AsDesired);
    let gone = [sink("gone", (Truth::True, Reason::Reachable), (Truth::True, Reason::Delivering))];
    observe(&metrics, &confirmed("r-0000000000"), &nothing, &gone, Phase::Confirmed);

    let sinks = [
        sink("local", (Truth::True, Reason::Reachable), (Truth::True, Reason::Delivering)),
        sink("siem", (Truth::False, Reason::ConnectFailed), (Truth::Unknown, Reason::Pending)),
    ];
    let failures =
        vec![failure(Reason::CrashLoop, 1), failure(Reason::ConfirmTimeout, 2), failure(Reason::CrashLoop, 3)];
    let journal = Journal { failures, ..confirmed("r-0123456789") };
    metrics.looked(&sinks);
    observe(&metrics, &journal, &nothing, &sinks, Phase::Confirmed);
    metrics.passed(None);
    metrics.passed(Some(state::Error::JournalTooNew { name: "journal.json", version: 2 }.reason().as_str()));
    api_requests(&mut registry).get_or_create(&ByCode { code: 200 }).inc();
    compare_with_sample(&registry, "agent");
    assert_eq!(
        samples(&registry),
        [
            r#"audit_operator_api_requests_total{code="200"} 1"#,
            r#"audit_operator_drift_corrections_total 0"#,
            r#"audit_operator_last_rollback_timestamp_seconds{reason="ConfirmTimeout"} 1800000002"#,
            r#"audit_operator_last_rollback_timestamp_seconds{reason="CrashLoop"} 1800000003"#,
            r#"audit_operator_pass_failures_total{reason="FileError"} 1"#,
            r#"audit_operator_passes_total 2"#,
            r#"audit_operator_revision_info{revision="r-0123456789",phase="Confirmed"} 1"#,
            r#"audit_operator_rollbacks{reason="ConfirmTimeout"} 1"#,
            r#"audit_operator_rollbacks{reason="CrashLoop"} 2"#,
            r#"audit_operator_sink_complete{sink="local"} 0"#,
            r#"audit_operator_sink_complete{sink="siem"} 0"#,
            r#"audit_operator_sink_delivering{sink="local"} 1"#,
            r#"audit_operator_sink_expiry_timestamp_seconds{sink="local",of="Token"} 1800000009"#,
            r#"audit_operator_sink_expiry_timestamp_seconds{sink="siem",of="Token"} 1800000009"#,
            r#"audit_operator_sink_last_delivery_timestamp_seconds{sink="local"} 1800000005"#,
            r#"audit_operator_sink_last_loss_timestamp_seconds{sink="local"} 1800000004"#,
            r#"audit_operator_sink_last_loss_timestamp_seconds{sink="siem"} 1800000004"#,
            r#"audit_operator_sink_looks_total{fact="complete",reason="EventsLost"} 2"#,
            r#"audit_operator_sink_looks_total{fact="delivering",reason="Delivering"} 1"#,
            r#"audit_operator_sink_looks_total{fact="delivering",reason="Pending"} 1"#,
            r#"audit_operator_sink_looks_total{fact="reachable",reason="ConnectFailed"} 1"#,
            r#"audit_operator_sink_looks_total{fact="reachable",reason="Reachable"} 1"#,
            r#"audit_operator_sink_lost_events{sink="local"} 3"#,
            r#"audit_operator_sink_lost_events{sink="siem"} 3"#,
            r#"audit_operator_sink_reachable{sink="local"} 1"#,
            r#"audit_operator_sink_reachable{sink="siem"} 0"#,
        ]
    );

    metrics.clear();
    let left = samples(&registry).join("\n");
    assert!(!left.contains("sink=") && !left.contains("revision="), "{left}");
}

#[test]
fn a_drift_correction_counts_once_when_it_is_staged() {
    let plan = |target: &str| {
        Plan::Change(Box::new(Steps {
            actions: vec![],
            change: change(target, Stage::Staged),
            before: String::new(),
            after: String::new(),
            taken_over: vec![],
        }))
    };
    let staged = |target: &str| Journal { change: Some(change(target, Stage::Staged)), ..confirmed("r-0123456789") };
    let other_number = Journal {
        change: Some(Change { number: 6, ..change("r-0123456789", Stage::Verifying { begun: clock() }) }),
        ..confirmed("r-0123456789")
    };
    for (journal, plan, want, why) in [
        (staged("r-0123456789"), plan("r-0123456789"), 1, "staged: somebody else had changed the manifest"),
        (staged("r-0123456789"), Plan::Nothing(Idle::Changing), 0, "the passes after it"),
        (staged("r-aaaaaaaaaa"), plan("r-aaaaaaaaaa"), 0, "a new Revision"),
        (confirmed("r-0123456789"), plan("r-0123456789"), 0, "not staged: somebody else holds the lock"),
        (other_number, plan("r-0123456789"), 0, "another change is under way"),
    ] {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        observe(&metrics, &journal, &plan, &[], Phase::Staged);
        assert_eq!(metrics.drift_corrections.get(), want, "{why}");
    }
}
