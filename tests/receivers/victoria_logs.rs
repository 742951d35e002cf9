//! VictoriaLogs: the store at the end of most ways here.

use std::collections::HashSet;

use serde_json::Value;

use crate::events::{Id, id};
use crate::http;
use crate::start::Receiver;

/// It drops events that are older than its retention, and the generated ones have dates of their own.
pub fn start(more: &[String]) -> Receiver {
    let args = |directory: &str, port| {
        let args = [
            format!("-storageDataPath={directory}/data"),
            "-retentionPeriod=100y".into(),
            format!("-httpListenAddr=127.0.0.1:{port}"),
        ];
        [&args, more].concat()
    };
    let mut started = Receiver::start("victoria-logs", args, |_, _| vec![]);
    started.wait_for("VictoriaLogs", |port| http::get(port, "/health").filter(|answer| answer.status == 200));
    started
}

/// Where a collector sends OTLP.
pub fn otlp(port: u16) -> String {
    format!("http://127.0.0.1:{port}/insert/opentelemetry/v1/logs")
}

/// Every record that it has.
pub fn records(port: u16) -> Vec<Value> {
    assert_eq!(http::get(port, "/internal/force_flush").unwrap().status, 200);
    let found = http::get(port, "/select/logsql/query?query=*").unwrap();
    assert_eq!(found.status, 200, "{}", found.body);
    found.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn events(port: u16) -> Vec<Id> {
    // By OTLP they have fields of their own; by syslog the event is the message.
    let event = |record: &Value| id(record).or_else(|| id(&serde_json::from_str(record["_msg"].as_str()?).ok()?));
    records(port).iter().map(|record| event(record).unwrap_or_else(|| panic!("no event: {record}"))).collect()
}

/// How many events it has, however often.
pub fn different(port: u16) -> usize {
    HashSet::<Id>::from_iter(events(port)).len()
}

/// How many records match a query without blanks.
pub fn count(port: u16, query: &str) -> usize {
    assert_eq!(http::get(port, "/internal/force_flush").unwrap().status, 200);
    let found = http::get(port, &format!("/select/logsql/query?query={query}%7Cstats%20count()%20n")).unwrap();
    let count: Value = serde_json::from_str(found.body.trim()).unwrap_or_else(|_| panic!("{}", found.body));
    count["n"].as_str().unwrap().parse().unwrap()
}
