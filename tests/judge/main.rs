//! The real kube-apiserver as the judge of the policy engine: by its audit log, event by event, and by the files it
//! starts with.
//!
//! Every policy gets a kube-apiserver with a cluster of its own (one etcd, a prefix each). Every request of [`script`]
//! is sent to it, and its events are compared with the engine's decisions. One run records everything, so that the
//! others know which events there could be. `make test-judge`; `JUDGE_SEED=2` for other policies and requests,
//! `JUDGE_POLICY=seed-1` for one of the policies alone.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod exchange;
mod expect;
mod files;
mod policies;
mod program;
mod run;
mod script;
mod server;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

use audit_policy::{Attributes, Evaluator};
use testing::{number, setting};

use expect::Verdict;
use policies::Named;
use run::{Bench, Run};
use server::{Credentials, Etcd};

const MINOR: u32 = 36;
/// Servers at a time: one starts while another answers.
const SERVERS: usize = 2;

pub fn seed() -> u64 {
    number("JUDGE_SEED").unwrap_or(1)
}

/// The number of comparisons, and the differences.
#[derive(Default)]
struct Total {
    policies: usize,
    requests: usize,
    events: usize,
    own_events: usize,
    rules: usize,
    rules_hit: usize,
    differences: Vec<String>,
}

impl Total {
    /// `full` is the run that records everything; `None` for that run itself.
    fn add(&mut self, bench: &Bench, policy: &Named, verdicts: &[Verdict], run: &Run, full: Option<&Run>) {
        let loaded = audit_policy::load(policy.text.as_bytes(), MINOR).policy.unwrap();
        let mut hit = BTreeSet::new();
        for (index, (request, verdict)) in bench.requests.iter().zip(verdicts).enumerate() {
            let seen = run.exchange(request, index);
            let mut found =
                expect::differences(&seen, verdict, full.map(|full| full.exchange(request, index)).as_ref());
            if full.is_none() {
                found.extend(expect::undocumented(&seen, verdict));
            }
            let rule = verdict.as_ref().ok().and_then(|audited| audited.rule);
            hit.extend(rule);
            self.events += seen.events.len();
            if !found.is_empty() {
                let rule = rule.map(|rule| (rule, &loaded.rules[rule]));
                self.differences.push(format!(
                    "policy {}, request {index}: {} {:?} by {:?} {:?}, answered with {:?}\n  {verdict:?}\n  rule {rule:?}\n  {}",
                    policy.name, request.method, request.target, request.identity, request.headers, seen.answer.status, found.join("\n  "),
                ));
            }
        }
        let evaluator = Evaluator::new(&loaded);
        for judged in run.others.iter().filter_map(|event| expect::own_difference(event, &evaluator)) {
            self.own_events += 1;
            if let Err(difference) = judged {
                self.differences.push(format!("policy {}, the server's own request: {difference}", policy.name));
            }
        }
        self.policies += 1;
        self.requests += bench.requests.len();
        self.rules += loaded.rules.len();
        self.rules_hit += hit.len();
    }
}

#[test]
fn every_event_is_as_the_policy_engine_says() {
    let begin = Instant::now();
    let directory = tempfile::tempdir().unwrap();
    let programs = server::programs();
    let bench = Bench {
        etcd: Etcd::start(&programs, directory.path()),
        credentials: Credentials::make(directory.path()),
        requests: script::requests(seed()),
        programs,
    };
    let attributes: Vec<Attributes> = bench
        .requests
        .iter()
        .filter_map(|request| {
            let found = audit_policy::attributes(&request.method, &request.target).ok()?;
            Some(Attributes { user: expect::user(request, &found), ..found })
        })
        .collect();
    let everything = policies::everything();
    let verdicts = decided(&bench, &everything);
    let full = bench.run(&everything, &verdicts);
    let total = Mutex::new(Total::default());
    total.lock().unwrap().add(&bench, &everything, &verdicts, &full, None);

    let chosen = setting("JUDGE_POLICY");
    let mut left = policies::policies(&attributes, seed());
    left.retain(|policy| chosen.as_ref().is_none_or(|chosen| *chosen == policy.name));
    let left = Mutex::new(left);
    std::thread::scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| {
                while let Some(policy) = { left.lock().unwrap().pop() } {
                    // The command line judges one policy, the library the others.
                    let is_by_program = policy.name == "names";
                    let verdicts = if is_by_program {
                        program::verdicts(&bench.requests, &bench.policy_file(&policy))
                    } else {
                        decided(&bench, &policy)
                    };
                    let run = bench.run(&policy, &verdicts);
                    total.lock().unwrap().add(&bench, &policy, &verdicts, &run, Some(&full));
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    let shown = total.differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(total.differences.is_empty(), "{} differences:\n\n{shown}", total.differences.len());
    assert!(total.events > 0 && total.own_events > 0, "nothing was compared");
    eprintln!(
        "{} policies ({} of {} rules decided something), {} requests, {} events and {} of the server's own: 0 differences, {:?}",
        total.policies,
        total.rules_hit,
        total.rules,
        total.requests,
        total.events,
        total.own_events,
        begin.elapsed()
    );
}

/// By the library.
fn decided(bench: &Bench, policy: &Named) -> Vec<Verdict> {
    let loaded = audit_policy::load(policy.text.as_bytes(), MINOR);
    let policy = loaded.policy.unwrap_or_else(|| panic!("{} is no policy: {:?}", policy.name, loaded.findings));
    let evaluator = Evaluator::new(&policy);
    bench.requests.iter().map(|request| expect::verdict(request, &evaluator)).collect()
}
