//! Starting a receiver.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use testing::process::{Process, free_port};
use testing::{root, wait};

use crate::LIMIT;
use crate::events::{Id, id};

/// What `tests/receivers/build` makes: a program, or a directory.
pub fn built(name: &str) -> PathBuf {
    let build = root().join("tests/receivers/build");
    let built = Command::new(build).arg(name).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "tests/receivers/build {name} failed");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
}

/// A configuration as the walk-through has it.
pub fn configuration(name: &str) -> PathBuf {
    root().join("examples/collectors").join(name)
}

/// A receiver with a directory and a port of its own, which prints the events that it takes as lines.
pub struct Receiver {
    pub port: u16,
    pub process: Process,
    _directory: tempfile::TempDir,
}

impl Receiver {
    /// `args` and `environment` get the directory and the port.
    pub fn start(
        name: &str,
        args: impl FnOnce(&str, u16) -> Vec<String>,
        environment: impl FnOnce(&str, u16) -> Vec<(&'static str, String)>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let port = free_port();
        let (args, environment) = (args(path, port), environment(path, port));
        let log = directory.path().join("log");
        let process = Process::start_with(&built(name), &args, log, |command| {
            command.envs(environment);
        });
        let mut receiver = Self { port, process, _directory: directory };
        receiver.wait_for("its port open", |port| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        receiver
    }

    pub fn wait_for<T>(&mut self, what: &str, look: impl Fn(u16) -> Option<T>) -> T {
        let (port, process) = (self.port, &mut self.process);
        wait::until(
            || what.to_string(),
            LIMIT,
            || {
                assert!(!process.has_ended(), "the receiver has ended:\n{}", process.said());
                look(port)
            },
        )
    }

    /// The events among the lines that it printed.
    pub fn events(&self) -> Vec<Id> {
        let said = self.process.said();
        // The last line may still be in the making.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| id(&serde_json::from_str::<Value>(line).ok()?)).collect()
    }

    /// Waits until it has printed this many events.
    pub fn wait_for_events(&self, count: usize) -> Vec<Id> {
        let mut have = 0;
        wait::poll(LIMIT, std::time::Duration::from_millis(50), || {
            let events = self.events();
            have = events.len();
            (have >= count).then_some(events)
        })
        .unwrap_or_else(|| panic!("{have} of {count} events have arrived"))
    }
}
