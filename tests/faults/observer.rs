//! Watches a run from the outside: for how long no API server answered, what manifests lay there and since when, how
//! many nodes were in change at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use audit_operator::journal::{Progress, Stage};
use audit_operator::node::{MANIFESTS_DIR, probe};

use super::node::Node;

/// Observations of a run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Of each node, the time for which its `/readyz` failed.
    pub away: Vec<Duration>,
    /// When `/readyz` of each node last came back.
    pub back: Vec<Option<Instant>>,
    /// When the manifest of each node first was another one.
    pub replaced: Vec<Option<Instant>>,
    /// Every text that the manifest of a node ever had.
    pub manifests: BTreeSet<String>,
    /// Whether a manifest was ever not there.
    pub was_missing: bool,
    /// Nodes between the first touch of their manifest and the verdict, at the same time.
    pub most_in_change: usize,
}

pub struct Observer {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
}

impl Observer {
    pub fn begin(nodes: &[Node]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen {
            away: vec![Duration::ZERO; nodes.len()],
            back: vec![None; nodes.len()],
            replaced: vec![None; nodes.len()],
            ..Seen::default()
        }));
        let mut threads = Vec::new();
        for (index, node) in nodes.iter().cloned().enumerate() {
            let (ends, seen) = (ends.clone(), seen.clone());
            threads.push(spawn(move || ask(index, &node, &ends, &seen)));
        }
        let (nodes, files_end, files_seen) = (nodes.to_vec(), ends.clone(), seen.clone());
        threads.push(spawn(move || look(&nodes, &files_end, &files_seen)));
        Self { ends, threads, seen }
    }

    pub fn end(self) -> Seen {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.seen.lock().unwrap().clone()
    }
}

fn ask(index: usize, node: &Node, ends: &AtomicBool, seen: &Mutex<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut since: Option<Instant> = None;
    let add = |since: Instant| seen.lock().unwrap().away[index] += since.elapsed();
    while !ends.load(Ordering::Relaxed) {
        let begin = Instant::now();
        match (runtime.block_on(probe::is_serving(&node.endpoint())), since) {
            (true, Some(began)) => {
                add(began);
                since = None;
                seen.lock().unwrap().back[index] = Some(Instant::now());
            }
            (false, None) => since = Some(begin),
            _ => {}
        }
        sleep(Duration::from_millis(50));
    }
    if let Some(since) = since {
        add(since);
    }
}

fn look(nodes: &[Node], ends: &AtomicBool, seen: &Mutex<Seen>) {
    let before: Vec<Option<String>> = nodes.iter().map(Node::manifest).collect();
    while !ends.load(Ordering::Relaxed) {
        let mut in_change = 0;
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| node.is_on()) {
            let manifest = node.manifest();
            let mut seen = seen.lock().unwrap();
            match manifest {
                Some(text) => {
                    if Some(&text) != before[index].as_ref() {
                        seen.replaced[index].get_or_insert_with(Instant::now);
                    }
                    seen.manifests.insert(text);
                }
                // A node that loses its power takes its directories with it.
                None => seen.was_missing |= node.exists(MANIFESTS_DIR),
            }
            let begun = |progress| matches!(progress, Progress::UnderWay(stage) if stage != Stage::Staged);
            in_change += usize::from(node.change().is_some_and(|(_, progress)| begun(progress)));
            seen.most_in_change = seen.most_in_change.max(in_change);
        }
        sleep(Duration::from_millis(5));
    }
}
