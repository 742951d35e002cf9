//! The webhook of kube-apiserver, straight to a receiver that takes an EventList.

use serde_json::json;
use testing::webhook::Backend;

use crate::LIMIT;
use crate::events::{Event, Outcome, compare, event_list, recorded};
use crate::http::{self, post_json};
use crate::start::{Receiver, configuration};

/// kube-apiserver's default.
const BATCH: usize = 400;

fn post(receiver: &Receiver, path: &str, events: &[Event]) {
    for batch in events.chunks(BATCH) {
        let answer = post_json(receiver.port, path, &event_list(batch));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

fn falco() -> Receiver {
    Receiver::start("falco", |_, port| vec![format!("http://127.0.0.1:{port}/k8s-audit")], |_, _| vec![])
}

#[test]
fn falco_takes_every_event() {
    let events = recorded(5000);
    let falco = falco();
    post(&falco, "/k8s-audit", &events);
    assert_eq!(compare(&events, falco.wait_for_events(events.len())), Outcome::complete(events.len()));
}

/// An event with a body of this many bytes.
fn large(id: &str, bytes: usize) -> Event {
    Event::new(&format!(
        r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"{id}","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/configmaps","verb":"create","user":{{"username":"alice"}},"requestObject":{{"data":{{"x":"{}"}}}},"requestReceivedTimestamp":"2026-03-02T08:00:00.000000Z","stageTimestamp":"2026-03-02T08:00:00.500000Z"}}"#,
        "x".repeat(bytes)
    ))
}

/// The limits that the walk-through states, and the setting with which it avoids them.
#[test]
fn falco_drops_an_event_over_256_kib_behind_a_200_and_refuses_a_body_over_12_mib() {
    let falco = falco();
    let events = [large("small", 10), large("just-below", 261_000), large("over", 263_000), large("last", 10)];
    assert_eq!(post_json(falco.port, "/k8s-audit", &event_list(&events)).status, 200);
    let have: Vec<String> = falco.wait_for_events(3).into_iter().map(|(audit_id, _)| audit_id).collect();
    assert_eq!(have, ["small", "just-below", "last"]);
    assert!(falco.process.said().contains("event larger than maxEventSize"), "{}", falco.process.said());

    let body = event_list(&(0..65).map(|index| large(&index.to_string(), 200_000)).collect::<Vec<_>>());
    assert!(body.len() > 12 << 20);
    // The connection may end while the body is still on its way, and take the answer with it.
    if let Some(answer) = http::request("POST", falco.port, "/k8s-audit", "application/json", &body) {
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
    assert_eq!(falco.events().len(), 3);
}

fn crowdsec() -> Receiver {
    let configure = |directory: &str, port: u16| {
        let text = std::fs::read_to_string(configuration("crowdsec.yaml")).unwrap();
        let here = text.replace("listen_addr: 0.0.0.0", "listen_addr: 127.0.0.1").replace("9876", &port.to_string());
        assert_ne!(here, text);
        let file = format!("{directory}/acquis.yaml");
        testing::golden::write(file.as_ref(), here);
        vec![file]
    };
    Receiver::start("crowdsec", configure, |_, _| vec![])
}

#[test]
fn crowdsec_takes_every_event() {
    let events = recorded(5000);
    let crowdsec = crowdsec();
    post(&crowdsec, "/audit", &events);
    assert_eq!(compare(&events, crowdsec.wait_for_events(events.len())), Outcome::complete(events.len()));
}

fn benthos() -> Receiver {
    let args = |_: &str, _| vec!["--config".into(), configuration("benthos.yaml").display().to_string()];
    let listen = |_: &str, port| vec![("LISTEN", format!("127.0.0.1:{port}"))];
    Receiver::start("benthos", args, listen)
}

#[test]
fn benthos_takes_a_batch_apart() {
    let events = recorded(5000);
    let benthos = benthos();
    post(&benthos, "/audit", &events);
    assert_eq!(compare(&events, benthos.wait_for_events(events.len())), Outcome::complete(events.len()));
}

/// kube-apiserver's own webhook backend, with its batches, its client and its counters.
#[test]
fn each_of_them_takes_what_kube_apiserver_itself_sends() {
    let events: Vec<Event> = (0..4000)
        .map(|index| {
            let stage = ["RequestReceived", "ResponseComplete"][index % 2];
            Event::new(&json!({"auditID": format!("event-{}", index / 2), "stage": stage}).to_string())
        })
        .collect();
    for (receiver, path) in [(falco(), "/k8s-audit"), (crowdsec(), "/audit"), (benthos(), "/audit")] {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "sink", "cluster": {"server": format!("http://127.0.0.1:{}{path}", receiver.port)}}],
            "contexts": [{"name": "sink", "context": {"cluster": "sink"}}],
            "current-context": "sink",
        });
        let backend = Backend::start(&kubeconfig, &["--events", &events.len().to_string()], &[]);
        backend.drained(LIMIT);
        assert_eq!(backend.metrics().sum("apiserver_audit_error_total"), 0.0, "{path}");
        assert_eq!(compare(&events, receiver.wait_for_events(events.len())), Outcome::complete(events.len()), "{path}");
    }
}

/// A harmless request tells the right path from a wrong one, and adds no event.
#[test]
fn a_get_shows_whether_the_path_is_right() {
    let falco = falco();
    let status = |path: &str| http::get(falco.port, path).unwrap().status;
    assert_eq!((status("/k8s-audit"), status("/k8s-audits")), (405, 404));
    assert_eq!(falco.process.said(), "");
    falco.process.end(LIMIT);
}
