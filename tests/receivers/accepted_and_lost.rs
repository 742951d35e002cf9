//! Destinations that answer an EventList with 2xx and have no event afterwards: the reason why a status alone proves
//! nothing, and why the operator refuses such paths or warns of them.

use serde_json::Value;

use crate::events::{event_list, recorded};
use crate::http::{post, post_json};
use crate::opensearch::OpenSearch;
use crate::start::Receiver;
use crate::victoria_logs;

#[test]
fn otlp_accepts_a_batch_and_keeps_nothing() {
    let store = victoria_logs::start(&[]);
    let configure = |directory: &str, port: u16| {
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters: {{otlp_http: {{logs_endpoint: '{}'}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines: {{logs: {{receivers: [otlp], exporters: [otlp_http]}}}}\n",
            victoria_logs::otlp(store.port)
        );
        let file = format!("{directory}/otelcol.yaml");
        testing::golden::write(file.as_ref(), config);
        vec!["--config".into(), file]
    };
    let collector = Receiver::start("otelcol", configure, |_, _| vec![]);
    let answer = post_json(collector.port, "/v1/logs", &event_list(&recorded(50)));
    assert_eq!((answer.status, answer.body.trim()), (200, r#"{"partialSuccess":{}}"#));
    // A record by the same way arrives: what is missing was not on its way any more.
    let record = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"a record"}}]}]}]}"#;
    assert_eq!(post_json(collector.port, "/v1/logs", record).status, 200);
    let bodies = |port| {
        let records = victoria_logs::records(port);
        (!records.is_empty()).then(|| records.iter().map(|record| record["_msg"].clone()).collect::<Vec<_>>())
    };
    let have = testing::wait::until(|| "the record".into(), crate::LIMIT, || bodies(store.port));
    assert_eq!(have, ["a record"]);
}

#[test]
fn victoria_logs_jsonline_makes_one_record_of_a_batch_and_drops_a_large_one() {
    let store = victoria_logs::start(&[]);
    let jsonline = "/insert/jsonline?_time_field=stageTimestamp&_msg_field=kind";
    let events = recorded(400);
    let small: Vec<_> = events.iter().take(10).collect();
    let small = format!(
        r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","items":[{}]}}"#,
        small.iter().map(|event| &*event.line).collect::<Vec<_>>().join(",")
    );
    let large = event_list(&events);
    assert!(small.len() < 256 << 10 && large.len() > 256 << 10);
    for body in [&large, &small] {
        assert_eq!(post(store.port, jsonline, "application/json", body).status, 200);
    }
    let records = victoria_logs::records(store.port);
    assert_eq!(records.len(), 1, "{records:?}");
    // All items in one text.
    assert!(records[0]["auditID"].is_null());
    let items: Vec<Value> = serde_json::from_str(records[0]["items"].as_str().unwrap()).unwrap();
    assert_eq!(items.len(), 10);
}

#[test]
fn opensearch_makes_one_document_of_a_batch() {
    let opensearch = OpenSearch::start();
    opensearch.put_template();
    let answer = post_json(opensearch.port, "/kube-audit/_doc", &event_list(&recorded(50)));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let documents = opensearch.documents("kube-audit");
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0]["items"].as_array().unwrap().len(), 50);
    // No event is found by its fields.
    assert_eq!(opensearch.count("kube-audit", &serde_json::json!({"exists": {"field": "auditID"}})), 0);
}
