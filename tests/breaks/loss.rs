//! Is the reported loss the real one? The receiver is stopped under load. The log of the same Setup has every event
//! that the receiver should have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::act;
use super::misbehaving::{EventId, Talk};
use super::run::{self, Runner};
use super::status;

/// kube-apiserver's default.
const BATCH: i64 = 400;
const MINUTE: Duration = Duration::from_secs(60);
/// After the repair kube-apiserver makes its last attempts, and the agent looks.
const AFTERMATH: Duration = Duration::from_secs(120);

pub fn loss(minutes: u64, rate: u32, restart: bool) -> bool {
    let mut runner = Runner::connect();
    // The losses of a sink with a new name begin with zero.
    let run = std::process::id();
    let (log, hook) = (format!("log-{run}"), format!("hook-{run}"));
    let directory = format!("/var/log/kubernetes/loss-{run}");
    let mut spec = run::spec(super::matrix::Setup::Url);
    spec["policy"] = json!({"rules": [{"level": "Metadata"}]});
    spec["sinks"][0]["name"] = json!(log);
    spec["sinks"][0]["log"] = json!({"path": format!("{directory}/audit.log"), "maxBackups": 5});
    spec["sinks"][1]["name"] = json!(hook);
    runner.apply(&spec);
    runner.wait_delivering(&log);
    runner.wait_delivering(&hook);
    assert_eq!(runner.lost(&hook), 0, "the sink is new");
    let begin = Instant::now();
    let second = || begin.elapsed().as_secs();

    let ends = Arc::new(AtomicBool::new(false));
    let answered = Arc::<Mutex<BTreeSet<String>>>::default();
    let load = runner.runtime.spawn(ask(runner.client.clone(), run, rate, ends.clone(), answered.clone()));
    let mut reported = Vec::new();
    runner.follow(&hook, MINUTE, &mut reported, begin);
    runner.stand_in.talk(Talk::Closed);
    println!("{:4} s  the receiver is stopped", second());
    let down = Duration::from_secs(60 * minutes);
    if restart {
        runner.follow(&hook, down / 2, &mut reported, begin);
        println!("{:4} s  kube-apiserver is killed", second());
        act::restarted(&runner.cluster, || act::on_node(&runner.cluster, "pkill -KILL -x kube-apiserver"));
        println!("{:4} s  kube-apiserver serves again", second());
        runner.follow(&hook, down / 2, &mut reported, begin);
    } else {
        runner.follow(&hook, down, &mut reported, begin);
    }
    runner.stand_in.behave();
    println!("{:4} s  the receiver is started", second());
    runner.follow(&hook, MINUTE, &mut reported, begin);
    ends.store(true, Ordering::Relaxed);
    runner.runtime.block_on(load).unwrap();
    runner.follow(&hook, AFTERMATH, &mut reported, begin);
    runner.wait_delivering(&hook);
    let lost = runner.lost(&hook);

    let recorded = recorded(&runner.cluster.disk().join(&directory[1..]));
    let answered = answered.lock().unwrap_or_else(PoisonError::into_inner);
    let ids: BTreeSet<&str> = recorded.keys().map(|(id, _)| id.as_str()).collect();
    let unrecorded = answered.iter().filter(|id| !ids.contains(id.as_str())).count();
    // Events after the last request of the load may still wait for their batch.
    let of_load = recorded.iter().filter(|((id, _), _)| answered.contains(id));
    let end = of_load.map(|(_, time)| *time).max().expect("the load");
    let kept = runner.stand_in.kept();
    let mut due: Vec<(Timestamp, bool)> =
        recorded.iter().filter(|(_, time)| **time <= end).map(|(id, time)| (*time, kept.contains(id))).collect();
    due.sort();
    let missing: Vec<Timestamp> = due.iter().filter(|(_, is_kept)| !is_kept).map(|(time, _)| *time).collect();
    println!("reported over time (second, events): {reported:?}");
    println!("requests answered: {}; of them not in the log: {unrecorded}", answered.len());
    println!("recorded: {}; missing at the receiver: {}; reported as lost: {lost}", due.len(), missing.len());
    // The time without kube-apiserver is the longest one without an event.
    let gap = due.windows(2).map(|pair| (pair[0].0, pair[1].0)).max_by_key(|(from, to)| to.duration_since(*from));
    if let Some((from, to)) = gap.filter(|_| restart) {
        let older = missing.iter().filter(|time| **time <= from).count();
        let newer = missing.len() - older;
        println!("kube-apiserver was away from {from} to {to}: {older} of the missing events are older, {newer} newer");
    }
    let difference = i64::try_from(missing.len()).unwrap() - lost;
    println!("difference: {difference} events; a batch has up to {BATCH}");
    unrecorded == 0 && !missing.is_empty() && difference.abs() <= BATCH
}

impl Runner {
    /// Goes on for a while, and notes each new count of lost events.
    fn follow(&mut self, hook: &str, time: Duration, reported: &mut Vec<(u64, i64)>, begin: Instant) {
        self.status.pass(Instant::now() + time, |setup| {
            let lost = status::sink(setup, hook)?["lostEvents"].as_i64()?;
            if reported.last().is_none_or(|(_, last)| *last != lost) {
                reported.push((begin.elapsed().as_secs(), lost));
            }
            None::<()>
        });
    }
}

/// Makes that many requests a second, each with an audit ID of its own, and keeps the IDs of those that were answered.
async fn ask(client: Client, run: u32, rate: u32, ends: Arc<AtomicBool>, answered: Arc<Mutex<BTreeSet<String>>>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in 0_u64.. {
        ticks.tick().await;
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let (client, answered) = (client.clone(), answered.clone());
        tokio::spawn(async move {
            let id = format!("loss-{run}-{number}");
            let request = http::Request::get("/api/v1/namespaces/default/configmaps/kube-root-ca.crt");
            let request = request.header("Audit-ID", &id).body(Vec::new()).expect("a plain request");
            // kube-apiserver may be away.
            if client.request_text(request).await.is_ok() {
                answered.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
            }
        });
    }
}

/// Every event of the log and its rotated files, with its time.
fn recorded(directory: &Path) -> BTreeMap<EventId, Timestamp> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        #[serde(rename = "auditID")]
        audit_id: String,
        stage: String,
        stage_timestamp: Timestamp,
    }
    let mut found = BTreeMap::new();
    for file in fs::read_dir(directory).unwrap() {
        for line in fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            // A process that was killed may leave a part of a line.
            if let Ok(event) = serde_json::from_str::<Event>(line) {
                found.insert((event.audit_id, event.stage), event.stage_timestamp);
            }
        }
    }
    found
}
