//! The Go program of `tests/upstream`, which answers with upstream's code.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use serde_json::{Value, json};

use crate::root;

pub struct Judge {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Judge {
    /// Builds the program unless it is there, and starts it.
    pub fn start() -> Self {
        let build = root().join("tests/upstream/build");
        let built = Command::new(build).stderr(Stdio::inherit()).output().expect("tests/upstream/build cannot be run");
        assert!(built.status.success(), "tests/upstream/build failed: it needs Go");
        let path = String::from_utf8(built.stdout).unwrap();
        let mut child = Command::new(path.trim_end())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the judge does not start");
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, questions, answers }
    }

    /// Asks all at once.
    pub fn ask(&mut self, questions: impl Iterator<Item = Value>) -> Vec<Value> {
        let lines: Vec<String> = questions.map(|question| format!("{question}\n")).collect();
        let stdin = self.questions.as_mut().unwrap();
        let answers = &mut self.answers;
        // Both pipes at once, since either may be full.
        std::thread::scope(|scope| {
            scope.spawn(|| lines.iter().for_each(|line| stdin.write_all(line.as_bytes()).unwrap()));
            lines
                .iter()
                .map(|line| {
                    let mut answer = String::new();
                    answers.read_line(&mut answer).unwrap();
                    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?} to {line}"))
                })
                .collect()
        })
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.questions.take());
        self.child.wait().unwrap();
    }
}

pub fn load(text: &[u8]) -> Value {
    json!({"op": "load", "text": base64::engine::general_purpose::STANDARD.encode(text)})
}

pub fn pod(text: &str) -> Value {
    json!({"op": "pod", "text": base64::engine::general_purpose::STANDARD.encode(text)})
}

pub fn eval(attributes: &Value) -> Value {
    json!({"op": "eval", "attributes": attributes})
}

pub fn request(method: &str, url: &str) -> Value {
    json!({"op": "request", "method": method, "url": url})
}

/// Upstream's messages if its validation rejected the policy, sorted.
pub fn validation_messages(error: &str) -> Option<Vec<String>> {
    let list = error.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(error);
    if !(list.starts_with("rules[") || list.starts_with("omitStages[") || list.starts_with("loaded illegal policy")) {
        return None;
    }
    // Joined with ", ", which a value may hold too: a message begins with a field.
    let mut messages: Vec<String> = Vec::new();
    for part in list.split(", ") {
        if part.starts_with("rules[") || part.starts_with("omitStages[") || messages.is_empty() {
            messages.push(part.to_string());
        } else {
            let last = messages.last_mut().unwrap();
            last.push_str(", ");
            last.push_str(part);
        }
    }
    messages.sort();
    Some(messages)
}
