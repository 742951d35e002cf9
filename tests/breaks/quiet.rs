//! False alarms: none may come while the receiver is well or down for a few seconds only.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use audit_operator::api::{AuditSetup, NodeAudit};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::events::v1::Event;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::matrix::Setup;
use super::misbehaving::Talk;
use super::run::{self, Runner};
use super::status;

/// For how long a receiver is down when it restarts.
const RESTART: Duration = Duration::from_secs(5);
const RESTARTS: u32 = 3;
/// In which a restart would have caused an alarm.
const AFTERMATH: Duration = Duration::from_secs(100);
const LIMIT: Duration = Duration::from_secs(300);

/// How bad a change of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// Something is not known, or a change is in progress.
    Unsure,
    /// Something is said to be wrong.
    Alarm,
}

/// A change of an object.
struct Note {
    at: Instant,
    object: String,
    findings: Vec<(Level, String)>,
    write: Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Write {
    /// Only times of the status.
    Times,
    /// Other parts of the status.
    Status,
    /// Not the status.
    Other,
}

pub fn quiet(minutes: u64) -> bool {
    let mut runner = Runner::connect();
    runner.run_under(Setup::Url);
    runner.wait_healthy(LIMIT);
    let notes = watch(&runner.runtime, &runner.client);
    let mut alarms = 0;

    let mut spec = run::spec(Setup::Url);
    spec["policy"]["append"] = json!([{"level": "Metadata", "users": [format!("quiet-{}", std::process::id())]}]);
    runner.apply(&spec);
    runner.wait_healthy(LIMIT);
    alarms += judge("a rollout", &notes, Instant::now(), Level::Alarm);

    for _ in 0..RESTARTS {
        runner.stand_in.talk(Talk::Closed);
        sleep(RESTART);
        runner.stand_in.behave();
        alarms += judge("a restart of the receiver", &notes, Instant::now() + AFTERMATH, Level::Alarm);
    }

    runner.rest();
    alarms += judge("the time until rest", &notes, Instant::now(), Level::Alarm);
    let hour = Instant::now() + Duration::from_secs(60 * minutes);
    alarms += judge(&format!("{minutes} idle minutes"), &notes, hour, Level::Unsure);
    println!("{alarms} false alarms");
    alarms == 0
}

/// Prints the changes until then, and counts the findings that are as bad as `level`.
fn judge(what: &str, notes: &Receiver<Note>, until: Instant, level: Level) -> usize {
    let begin = Instant::now();
    let mut alarms = 0;
    let mut writes: BTreeMap<(String, Write), usize> = BTreeMap::new();
    loop {
        let note = match notes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(note) => note,
            Err(error) if Instant::now() < until => panic!("the watches have ended: {error}"),
            Err(_) => break,
        };
        for (found, text) in &note.findings {
            let is_alarm = *found >= level;
            alarms += usize::from(is_alarm);
            let mark = if is_alarm { "ALARM" } else { "-" };
            let second = note.at.saturating_duration_since(begin).as_secs();
            println!("{what}, after {second} s: {mark} {}: {text}", note.object);
        }
        *writes.entry((note.object, note.write)).or_default() += 1;
    }
    println!("{what}: {alarms} alarms; writes:");
    for ((object, write), count) in writes {
        println!("    {object}: {count} of {write:?}");
    }
    alarms
}

/// The changes of everything that could raise an alarm, from now on.
fn watch(runtime: &Runtime, client: &Client) -> Receiver<Note> {
    let (sender, notes) = channel();
    runtime.spawn(follow(Api::<AuditSetup>::all(client.clone()), of_setup, sender.clone()));
    runtime.spawn(follow(Api::<NodeAudit>::all(client.clone()), of_node, sender.clone()));
    runtime.spawn(follow(Api::<Event>::all(client.clone()), of_event, sender));
    notes
}

async fn follow<K>(api: Api<K>, findings: fn(&Value) -> Vec<(Level, String)>, sender: Sender<Note>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize + Send + 'static,
    K::DynamicType: Default,
{
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    let mut is_first_list = true;
    let stream = watcher(api, watcher::Config::default());
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let object = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => object,
            Ok(watcher::Event::InitDone) => {
                is_first_list = false;
                continue;
            }
            Ok(_) => continue,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                continue;
            }
        };
        let name = object.meta().name.clone().unwrap_or_default();
        let object = serde_json::to_value(object).expect("an object is JSON");
        let before = known.insert(name.clone(), object.clone());
        let same =
            |pointer: &str| before.as_ref().is_some_and(|before| before.pointer(pointer) == object.pointer(pointer));
        if is_first_list || same("/metadata/resourceVersion") {
            continue;
        }
        let write = match &before {
            _ if same("/status") => Write::Other,
            Some(before) if without_times(&before["status"]) == without_times(&object["status"]) => Write::Times,
            _ => Write::Status,
        };
        let kind = K::kind(&K::DynamicType::default()).into_owned();
        let findings = findings(&object);
        // Every program makes Events.
        if kind == "Event" && findings.is_empty() {
            continue;
        }
        let note = Note { at: Instant::now(), object: format!("{kind} {name}"), findings, write };
        if sender.send(note).is_err() {
            return;
        }
    }
}

/// A status without the times that move on while all is well.
fn without_times(status: &Value) -> Value {
    match status {
        Value::Object(fields) => {
            let is_time = |field: &str| matches!(field, "lastSeen" | "lastDelivered");
            let fields = fields.iter().filter(|(field, _)| !is_time(field));
            fields.map(|(field, value)| (field.clone(), without_times(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

fn of_setup(setup: &Value) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    for condition in setup["status"]["conditions"].as_array().into_iter().flatten() {
        let (kind, status) = (text(&condition["type"]), text(&condition["status"]));
        let level = match (kind, status) {
            ("Reconciling" | "Stalled", "False") | ("Ready" | "PolicyAccepted" | "SinksHealthy", "True") => continue,
            // A change makes it so.
            ("Reconciling", _) | ("Ready", _) | (_, "Unknown") => Level::Unsure,
            _ => Level::Alarm,
        };
        found.push((level, format!("{kind}={status} {}: {}", text(&condition["reason"]), text(&condition["message"]))));
    }
    for sink in setup["status"]["sinks"].as_array().into_iter().flatten() {
        for fact in ["reachable", "delivering", "complete"] {
            let why = format!("{}: {}", text(&sink["reason"]), text(&sink["message"]));
            found.extend(of_fact(sink, fact, text(&sink[fact]), &why));
        }
    }
    found
}

fn of_node(node: &Value) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    for sink in node["status"]["sinks"].as_array().into_iter().flatten() {
        for fact in ["reachable", "delivering", "complete"] {
            let finding = &sink[fact];
            let why = format!("{}: {}", text(&finding["reason"]), text(&finding["message"]));
            found.extend(of_fact(sink, fact, text(&finding["status"]), &why));
        }
    }
    found
}

fn of_fact(sink: &Value, fact: &str, status: &str, why: &str) -> Option<(Level, String)> {
    let level = match status {
        "True" => return None,
        "False" => Level::Alarm,
        _ => Level::Unsure,
    };
    Some((level, format!("{} {fact}={status} {why}", text(&sink["name"]))))
}

/// Only those about our objects and our pods.
fn of_event(event: &Value) -> Vec<(Level, String)> {
    let regarding = &event["regarding"];
    let is_ours = matches!(text(&regarding["kind"]), "AuditSetup" | "NodeAudit")
        || text(&regarding["namespace"]) == "audit-system";
    if !is_ours || text(&event["type"]) == "Normal" {
        return Vec::new();
    }
    let what = format!("{} {}", text(&regarding["kind"]), text(&regarding["name"]));
    vec![(Level::Alarm, format!("{what}: {} {}", text(&event["reason"]), text(&event["note"])))]
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

impl Runner {
    fn wait_healthy(&mut self, limit: Duration) {
        self.status.catch_up();
        let is_well = |setup: &Value| (status::condition(setup, "SinksHealthy")?["status"] == "True").then_some(());
        self.status.wait("SinksHealthy", limit, is_well);
    }
}
