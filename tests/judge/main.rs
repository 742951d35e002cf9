//! The real kube-apiserver as the judge of the policy engine: its audit log, event by event, and which files it starts with.
//!
//! Every policy gets a kube-apiserver with a cluster of its own (one etcd, a prefix each), every request of [`script`] is sent to it, and
//! its events are compared with what the engine says. One run records everything: it tells the others what there is to record.
//! `make test-judge`; `JUDGE_SEED=2` for other policies and requests, `JUDGE_POLICY=seed-1` for one of the policies alone.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod exchange;
mod expect;
mod files;
#[path = "../upstream/generate.rs"]
#[expect(dead_code, reason = "the comparison with upstream's code uses the rest")]
mod generate;
mod policies;
mod script;
mod server;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use audit_operator::api::{Level, Stage};
use audit_operator::policy::{self, Attributes, Evaluator};
use serde_json::{Value, json};

use exchange::{Answer, Client};
use expect::{Exchange, Verdict};
use policies::Named;
use script::Request;
use server::{ApiServer, Credentials, Etcd};

const MINOR: u32 = 36;
/// Longer than an event is on its way after its request has ended.
const EVENTS_LIMIT: Duration = Duration::from_secs(15);
/// Servers at a time: one starts while another answers.
const SERVERS: usize = 2;

#[expect(clippy::disallowed_methods, reason = "a test has no command line of its own")]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub fn seed() -> u64 {
    setting("JUDGE_SEED").map_or(1, |seed| seed.parse().expect("JUDGE_SEED is a number"))
}

/// One policy's run.
struct Run {
    answers: Vec<Answer>,
    /// Of each request.
    events: Vec<Vec<Value>>,
    /// Of requests that the server made itself, or we while we waited for something.
    others: Vec<Value>,
}

impl Run {
    fn exchange<'a>(&'a self, request: &'a Request, index: usize) -> Exchange<'a> {
        Exchange { request, answer: &self.answers[index], events: &self.events[index] }
    }
}

struct Bench {
    programs: PathBuf,
    credentials: Credentials,
    etcd: Etcd,
    requests: Vec<Request>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    fn policy_file(&self, policy: &Named) -> PathBuf {
        let file = self.credentials.directory.join(format!("{}.yaml", policy.name));
        std::fs::write(&file, &policy.text).unwrap();
        file
    }

    /// Sends everything to a server with this policy.
    fn run(&self, policy: &Named, verdicts: &[Verdict]) -> Run {
        let file = self.policy_file(policy);
        let mut server = ApiServer::start(&self.programs, &self.credentials, &self.etcd, &policy.name, &file);
        let client = Client::new(&self.credentials, server.port);
        let is_ready = |answer: Answer| answer.status == Some(200);
        server.wait_for("readiness", || is_ready(client.send(&Request::probe(), "wait")));
        let mut answers: Vec<Answer> = Vec::new();
        std::thread::scope(|scope| {
            let mut waiting = Vec::new();
            for (index, request) in self.requests.iter().enumerate() {
                let client = &client;
                if let Some(status) = request.until {
                    server.wait_for(&request.target, || client.send(request, "wait").status == Some(status));
                }
                if request.is_waiting {
                    answers.push(Answer { status: None, text: String::new() });
                    waiting.push((index, scope.spawn(move || client.send(request, &audit_id(index)))));
                } else {
                    answers.push(client.send(request, &audit_id(index)));
                }
            }
            for (index, thread) in waiting {
                answers[index] = thread.join().unwrap();
            }
        });
        // An event of a stream comes when the server notices that nobody reads any more.
        let mut run = Run::read(&server.events, answers);
        let end = Instant::now() + EVENTS_LIMIT;
        let has_all = |run: &Run| {
            (0..verdicts.len()).all(|index| {
                let seen = run.exchange(&self.requests[index], index);
                seen.events.len() >= expect::stages(&seen, &verdicts[index]).len()
            })
        };
        while !has_all(&run) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100));
            run = Run::read(&server.events, run.answers);
        }
        run
    }
}

fn audit_id(index: usize) -> String {
    format!("judge-{index}")
}

impl Run {
    fn read(file: &Path, answers: Vec<Answer>) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        let mut events = vec![Vec::new(); answers.len()];
        let mut others = Vec::new();
        for line in whole.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let index = event["auditID"]
                .as_str()
                .and_then(|id| id.strip_prefix("judge-"))
                .and_then(|id| id.parse::<usize>().ok());
            match index {
                Some(index) => events[index].push(event),
                None => others.push(event),
            }
        }
        Self { answers, events, others }
    }
}

/// What was compared, and what was not the same.
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
    /// `full` is the run that records everything; none of that one itself.
    fn add(&mut self, bench: &Bench, policy: &Named, verdicts: &[Verdict], run: &Run, full: Option<&Run>) {
        let loaded = policy::load(policy.text.as_bytes(), MINOR).policy.unwrap();
        let mut hit = BTreeSet::new();
        for (index, (request, verdict)) in bench.requests.iter().zip(verdicts).enumerate() {
            let seen = run.exchange(request, index);
            let mut found =
                expect::differences(&seen, verdict, full.map(|full| full.exchange(request, index)).as_ref());
            if full.is_none() {
                found.extend(expect::undocumented(&seen, verdict));
            }
            let rule = match verdict {
                Verdict::Audited { rule, .. } => *rule,
                Verdict::Unaudited(_) => None,
            };
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
            let found = policy::attributes(&request.method, &request.target).ok()?;
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
                    // Of one policy the command line is asked, of the others the library.
                    let is_by_program = policy.name == "names";
                    let verdicts = if is_by_program { told(&bench, &policy) } else { decided(&bench, &policy) };
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
    let loaded = policy::load(policy.text.as_bytes(), MINOR);
    let policy = loaded.policy.unwrap_or_else(|| panic!("{} is no policy: {:?}", policy.name, loaded.findings));
    let evaluator = Evaluator::new(&policy);
    bench.requests.iter().map(|request| expect::verdict(request, &evaluator)).collect()
}

/// By the command line: `policy request`, and what it answers to `policy eval`.
fn told(bench: &Bench, policy: &Named) -> Vec<Verdict> {
    let questions = bench.requests.iter().map(|request| json!({"method": request.method, "url": request.target}));
    let derived = ask(&["request"], questions);
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or_default().to_string();
    let found: Vec<Result<Attributes, String>> = bench
        .requests
        .iter()
        .zip(&derived)
        .map(|(request, record)| {
            if let Some(why) = record["error"].as_str() {
                return Err(why.to_string());
            }
            let found = Attributes {
                user: None,
                verb: text(record, "verb").into(),
                namespace: text(record, "namespace").into(),
                api_group: text(record, "apiGroup").into(),
                api_version: text(record, "apiVersion").into(),
                resource: text(record, "resource").into(),
                subresource: text(record, "subresource").into(),
                name: text(record, "name").into(),
                is_resource_request: record["isResourceRequest"] == true,
                path: text(record, "path").into(),
            };
            Ok(Attributes { user: expect::user(request, &found), ..found })
        })
        .collect();
    let records = derived.iter().zip(&found).filter_map(|(record, found)| {
        let mut record = record.clone();
        record["resourceRequest"] = record["isResourceRequest"].take();
        let user = found.as_ref().ok()?.user.as_ref();
        record["user"] = user.map_or(
            Value::Null,
            |user| json!({"name": &*user.name, "groups": user.groups.iter().map(|group| &**group).collect::<Vec<_>>()}),
        );
        Some(record)
    });
    let file = bench.policy_file(policy).display().to_string();
    let mut decisions = ask(&["eval", "--policy", &file, "--attributes", "-"], records).into_iter();
    let verdicts = found.into_iter().map(|found| match found {
        Err(why) => Verdict::Unaudited(why),
        Ok(attributes) => {
            let decision = decisions.next().expect("an answer to every record");
            Verdict::Audited {
                attributes,
                level: serde_json::from_value::<Level>(decision["level"].clone()).unwrap(),
                omit_stages: serde_json::from_value::<Vec<Stage>>(decision["omitStages"].clone()).unwrap(),
                omit_managed_fields: decision["omitManagedFields"] == true,
                rule: decision["rule"].as_u64().map(|rule| usize::try_from(rule).unwrap()),
            }
        }
    });
    verdicts.collect()
}

fn ask(args: &[&str], records: impl Iterator<Item = Value>) -> Vec<Value> {
    let input: String = records.map(|record| format!("{record}\n")).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .args([&["policy"], args, &["--output", "json"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "policy {args:?} failed");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
