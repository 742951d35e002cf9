//! Audit events as a busy cluster has them, and what became of them.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use serde_json::Value;
use testing::root;

/// What identifies an event: auditID and stage.
pub type Id = (String, String);

pub struct Event {
    pub id: Id,
    /// As kube-apiserver writes it to its log, without the line end.
    pub line: String,
}

impl Event {
    pub fn new(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        Self { id: id(&value).unwrap(), line: line.to_string() }
    }
}

/// The fields' names are CrowdSec's too, which has kube-apiserver's internal names.
pub fn id(event: &Value) -> Option<Id> {
    let field = |name: &str, internal: &str| event.get(name).or(event.get(internal))?.as_str().map(str::to_string);
    Some((field("auditID", "AuditID")?, field("stage", "Stage")?))
}

/// The events of the generator of the benches: reads at Metadata, writes at RequestResponse, up to 140 KB each.
pub fn recorded(count: usize) -> Vec<Event> {
    let build = root().join("tests/bench/replay-go/build");
    let built = Command::new(build).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "tests/bench/replay-go/build failed: it needs Go");
    let program = String::from_utf8(built.stdout).unwrap();
    // 2.8 KB on average.
    let bytes = (count * 4000 + 500_000).to_string();
    let made = Command::new(program.trim_end()).args(["generate", &bytes]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let events: Vec<Event> = text.lines().take(count).map(Event::new).collect();
    assert_eq!(events.len(), count);
    events
}

/// The body that kube-apiserver's webhook posts.
pub fn event_list(events: &[Event]) -> String {
    let items: Vec<&str> = events.iter().map(|event| &*event.line).collect();
    format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#, items.join(","))
}

/// How the events that a receiver has differ from those that were sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub sent: usize,
    pub missing: usize,
    /// Copies beyond the first.
    pub twice: usize,
}

impl Outcome {
    pub fn complete(sent: usize) -> Self {
        Self { sent, missing: 0, twice: 0 }
    }
}

pub fn compare(sent: &[Event], have: impl IntoIterator<Item = Id>) -> Outcome {
    let mut counts: HashMap<&Id, usize> = sent.iter().map(|event| (&event.id, 0)).collect();
    assert_eq!(counts.len(), sent.len(), "an id of its own for each event");
    for id in have {
        *counts.get_mut(&id).unwrap_or_else(|| panic!("the receiver has an event that nobody sent: {id:?}")) += 1;
    }
    let missing = counts.values().filter(|count| **count == 0).count();
    let twice = counts.values().map(|count| count.saturating_sub(1)).sum();
    Outcome { sent: sent.len(), missing, twice }
}
