//! Decisions a second on one core, alternating between ours and upstream's own evaluator in Go, for the GCE preset and
//! the requests of a log.
//!
//! `cargo bench --bench decisions -- LOG`; `make bench-replay` runs it.

#![expect(clippy::unwrap_used, reason = "a measurement ends where something is not as it should be")]

use std::collections::HashSet;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::time::Instant;

use audit_policy::log::{Reader, Request};
use audit_policy::{Attributes, Evaluator, load};
use serde_json::{Value, json};
use testing::upstream::{self, Judge};

const REQUESTS: usize = 20_000;
const ROUNDS: usize = 7;
const OURS: usize = 20_000_000;
const THEIRS: usize = 2_000_000;

fn main() {
    let Some(log) = std::env::args().nth(1).filter(|log| log != "--bench") else {
        eprintln!("usage: cargo bench --bench decisions -- LOG");
        return;
    };
    let text = include_str!("../../crates/audit-policy/src/presets/gce-2026.1.yaml");
    let policy = load(text.as_bytes(), 36).policy.unwrap();
    let evaluator = Evaluator::new(&policy);
    let lines = requests(&log);
    let requests: Vec<Attributes> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut judge = Judge::start();
    judge.ask([upstream::load(text.as_bytes())].into_iter());

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut rules = 0;
        for request in requests.iter().cycle().take(OURS) {
            rules += evaluator.decide(black_box(request)).rule.unwrap_or_default();
        }
        black_box(rules);
        ours.push(OURS as f64 / start.elapsed().as_secs_f64());
        let answers = judge.ask([json!({"op": "bench", "attributes": values, "n": THEIRS})].into_iter());
        theirs.push(THEIRS as f64 / answers[0]["nanoseconds"].as_f64().unwrap() * 1e9);
    }
    let [ours, theirs] = [ours, theirs].map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!("{} rules, {} different requests, one core, median of {ROUNDS}:", policy.rules.len(), requests.len());
    println!("  ours      {:6.2} million decisions/s", ours / 1e6);
    println!("  upstream  {:6.2} million decisions/s", theirs / 1e6);
    println!("  ours is {:.1} times as fast", ours / theirs);
}

/// Distinct requests, in the order of the log.
fn requests(log: &str) -> Vec<String> {
    let mut reader = Reader::default();
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    for line in BufReader::new(std::fs::File::open(log).unwrap()).split(b'\n') {
        reader.read(&line.unwrap(), |event, _| {
            let Request { attributes, .. } = Request::of(&event.unwrap()).unwrap();
            let user = attributes.user.map(|user| {
                json!({"name": &*user.name, "groups": user.groups.iter().map(|group| group.to_string()).collect::<Vec<_>>()})
            });
            let record = json!({
                "user": user, "verb": &*attributes.verb, "namespace": &*attributes.namespace, "apiGroup": &*attributes.api_group,
                "apiVersion": &*attributes.api_version, "resource": &*attributes.resource, "subresource": &*attributes.subresource,
                "name": &*attributes.name, "resourceRequest": attributes.is_resource_request, "path": &*attributes.path,
            })
            .to_string();
            if seen.insert(record.clone()) {
                found.push(record);
            }
        });
        if found.len() >= REQUESTS {
            break;
        }
    }
    found
}
