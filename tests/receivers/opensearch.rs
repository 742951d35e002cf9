//! A real OpenSearch node, behind a stand-in for Logstash.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testing::process::{Process, free_port};
use testing::{golden, wait};

use crate::LIMIT;
use crate::events::{Event, Id, Outcome, compare, event_list, id, recorded};
use crate::http::{self, post_json};
use crate::logstash_stand_in::LogstashStandIn;
use crate::start::{built, configuration};

pub struct OpenSearch {
    pub port: u16,
    _process: Process,
    _directory: tempfile::TempDir,
}

impl OpenSearch {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let installed = built("opensearch");
        let config = directory.path().join("config");
        copy(&installed.join("config"), &config);
        let port = free_port();
        let settings = format!(
            "discovery.type: single-node\nhttp.port: {port}\ntransport.port: {}\npath.data: {path}/data\npath.logs: {path}/logs\n",
            free_port()
        );
        golden::write(&config.join("opensearch.yml"), settings);
        // It refuses to run as root. In a user namespace of its own it has another number and the same files.
        let args = ["--user", "--map-user=1000", "--", "setpriv", "--pdeathsig", "KILL", "--", "bash"];
        let mut args = args.map(str::to_string).to_vec();
        args.push(installed.join("bin/opensearch").display().to_string());
        let log = directory.path().join("log");
        let mut process = Process::start_with(Path::new("unshare"), &args, log, |command| {
            command.env("OPENSEARCH_PATH_CONF", &config);
            command.env("OPENSEARCH_JAVA_HOME", java_home());
            command.env("OPENSEARCH_JAVA_OPTS", "-Xms512m -Xmx512m");
        });
        wait::until(
            || "OpenSearch".into(),
            LIMIT,
            || {
                assert!(!process.has_ended(), "OpenSearch has ended:\n{}", process.said());
                http::get(port, "/").filter(|answer| answer.status == 200)
            },
        );
        Self { port, _process: process, _directory: directory }
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = http::request(method, self.port, path, "application/json", body).unwrap();
        serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{}", answer.body))
    }

    /// The template of the walk-through.
    pub fn put_template(&self) {
        let template = fs::read_to_string(configuration("opensearch-template.json")).unwrap();
        let answer = self.ask("PUT", "/_index_template/kube-audit", &template);
        assert_eq!(answer["acknowledged"], true, "{answer}");
    }

    /// The documents of an index.
    pub fn documents(&self, index: &str) -> Vec<Value> {
        self.ask("POST", &format!("/{index}/_refresh"), "");
        let found = self.ask("POST", &format!("/{index}/_search?size=10000"), "");
        found["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_source"].clone()).collect()
    }

    pub fn events(&self, index: &str) -> Vec<Id> {
        self.documents(index).iter().map(|document| id(document).unwrap()).collect()
    }

    pub fn count(&self, index: &str, query: &Value) -> u64 {
        self.ask("POST", &format!("/{index}/_count"), &json!({"query": query}).to_string())["count"].as_u64().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn java_home() -> PathBuf {
    let found = Command::new("sh").args(["-c", "readlink -f \"$(command -v java)\""]).output().unwrap();
    let java = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim_end());
    java.ancestors().nth(2).expect("Java is needed").to_path_buf()
}

/// 100 events with bodies: objects of many kinds, and deletions, whose answer has a text where others have an object.
fn with_bodies() -> Vec<Event> {
    let deletion = |(index, event): (usize, Event)| {
        if index % 9 != 0 {
            return event;
        }
        let mut value: Value = serde_json::from_str(&event.line).unwrap();
        value["verb"] = "delete".into();
        value["requestObject"] =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        value["responseObject"] = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        Event::new(&value.to_string())
    };
    let all = recorded(2000).into_iter().filter(|event| event.line.contains(r#""level":"RequestResponse""#));
    let events: Vec<Event> = all.take(100).enumerate().map(deletion).collect();
    assert_eq!(events.len(), 100);
    events
}

#[test]
fn opensearch_takes_every_event_with_the_template_and_few_without() {
    let events = with_bodies();
    let opensearch = OpenSearch::start();
    opensearch.put_template();
    let post = |index: &str| {
        let logstash = LogstashStandIn::start(opensearch.port, index);
        for batch in events.chunks(20) {
            assert_eq!(post_json(logstash.port, "/", &event_list(batch)).status, 200);
        }
        logstash.end()
    };
    assert_eq!(post("kube-audit"), Vec::<String>::new());
    assert_eq!(compare(&events, opensearch.events("kube-audit")), Outcome::complete(100));
    // By the known fields they are found, and their bodies are there.
    let deleted = |field: &str| opensearch.count("kube-audit", &json!({"term": {field: "delete"}}));
    assert_eq!(deleted("verb"), 12);
    let allowed =
        opensearch.count("kube-audit", &json!({"term": {"annotations.authorization.k8s.io/decision": "allow"}}));
    assert_eq!(allowed, 100);
    let documents = opensearch.documents("kube-audit");
    assert!(documents.iter().filter(|document| document["responseObject"].is_object()).count() > 90);

    // Sent again, as after a crash: the id is the same.
    let refused = post("kube-audit");
    assert_eq!(refused.len(), 100);
    assert!(refused.iter().all(|reason| reason.starts_with("409")), "{refused:?}");
    assert_eq!(opensearch.events("kube-audit").len(), 100);

    // An index that takes its fields from the events.
    let refused = post("dynamic");
    let have = opensearch.events("dynamic").len();
    println!("OpenSearch without the template: {have} of 100 events");
    assert!(have < 50 && have + refused.len() == 100, "{have}, {refused:?}");
}
