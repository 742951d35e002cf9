//! One policy, one kube-apiserver, every request: the answers and the events.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testing::wait;

use crate::exchange::{Answer, Client};
use crate::expect::{self, Exchange, Verdict};
use crate::policies::Named;
use crate::script::Request;
use crate::server::{ApiServer, Credentials, Etcd};

/// Longer than an event takes after the end of its request.
const EVENTS_LIMIT: Duration = Duration::from_secs(15);

/// One policy's run.
pub struct Run {
    pub answers: Vec<Answer>,
    /// Of each request.
    pub events: Vec<Vec<Value>>,
    /// Of requests that the server made itself, or that we made while waiting.
    pub others: Vec<Value>,
}

impl Run {
    pub fn exchange<'a>(&'a self, request: &'a Request, index: usize) -> Exchange<'a> {
        Exchange { request, answer: &self.answers[index], events: &self.events[index] }
    }
}

/// What all the runs have in common.
pub struct Bench {
    pub programs: PathBuf,
    pub credentials: Credentials,
    pub etcd: Etcd,
    pub requests: Vec<Request>,
}

impl Bench {
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    pub fn policy_file(&self, policy: &Named) -> PathBuf {
        let file = self.credentials.directory.join(format!("{}.yaml", policy.name));
        std::fs::write(&file, &policy.text).unwrap();
        file
    }

    /// Sends everything to a server with this policy.
    pub fn run(&self, policy: &Named, verdicts: &[Verdict]) -> Run {
        let file = self.policy_file(policy);
        let mut server = ApiServer::start(&self.programs, &self.credentials, &self.etcd, &policy.name, &file);
        let client = Client::new(&self.credentials, server.port);
        let is_ready = |answer: Answer| answer.status == Some(200);
        server.wait_for(|| "readiness".into(), || is_ready(client.send(&Request::probe(), "wait")));
        let mut answers: Vec<Answer> = Vec::new();
        std::thread::scope(|scope| {
            let mut waiting = Vec::new();
            for (index, request) in self.requests.iter().enumerate() {
                let client = &client;
                if let Some(status) = request.until {
                    let last = RefCell::new(String::new());
                    let what =
                        || format!("{status} for {} {}, instead of {}", request.method, request.target, last.borrow());
                    server.wait_for(what, || {
                        let answer = client.send(request, "wait");
                        *last.borrow_mut() = answer.text;
                        answer.status == Some(status)
                    });
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
        // The event of a stream comes when the server notices that its client is gone.
        let mut run = Run::read(&server.events, answers);
        let has_all = |run: &Run| {
            (0..verdicts.len()).all(|index| {
                let seen = run.exchange(&self.requests[index], index);
                seen.events.len() >= expect::stages(&seen, &verdicts[index]).len()
            })
        };
        // An event that is missing at the limit shows as a difference.
        _ = wait::poll(EVENTS_LIMIT, Duration::from_millis(100), || {
            run = Run::read(&server.events, std::mem::take(&mut run.answers));
            has_all(&run).then_some(())
        });
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
