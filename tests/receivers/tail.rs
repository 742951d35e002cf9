//! The log file on the node, followed by a collector while kube-apiserver rotates it and the collector is killed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use testing::golden;
use testing::process::Process;
use testing::wait;

use crate::LIMIT;
use crate::events::{Event, Outcome, compare, recorded};
use crate::start::{Receiver, built, configuration};
use crate::victoria_logs;

/// Writes and rotates as kube-apiserver does: one event a line in one write, and a file that would become too large is
/// renamed (natefinch/lumberjack@v2.2.1 lumberjack.go#L135-L160).
pub struct AuditLog {
    directory: PathBuf,
    file: File,
    size: usize,
    max_size: usize,
    rotations: usize,
}

impl AuditLog {
    pub fn create(directory: &Path, max_size: usize) -> Self {
        fs::create_dir_all(directory).unwrap();
        let file = File::create(directory.join("audit.log")).unwrap();
        Self { directory: directory.into(), file, size: 0, max_size, rotations: 0 }
    }

    pub fn write(&mut self, events: &[Event]) {
        for event in events {
            let line = format!("{}\n", event.line);
            if self.size + line.len() > self.max_size {
                self.rotate();
            }
            self.file.write_all(line.as_bytes()).unwrap();
            self.size += line.len();
        }
    }

    fn rotate(&mut self) {
        let (minutes, seconds) = (self.rotations / 60, self.rotations % 60);
        let old = format!("audit-2026-11-30T12-{minutes:02}-{seconds:02}.000.log");
        let current = self.directory.join("audit.log");
        fs::rename(&current, self.directory.join(old)).unwrap();
        self.file = File::create(current).unwrap();
        self.size = 0;
        self.rotations += 1;
    }
}

/// The collector with the walk-through's configuration, in which `pattern` names the files.
fn collector(directory: &Path, pattern: &str, victoria_logs: u16) -> Process {
    let text = fs::read_to_string(configuration("opentelemetry-collector.yaml")).unwrap();
    assert!(text.contains("/audit*.log\""));
    let config = directory.join("otelcol.yaml");
    golden::write(&config, text.replace("/audit*.log\"", &format!("/{pattern}\"")));
    fs::create_dir_all(directory.join("state")).unwrap();
    let environment = [
        ("AUDIT_LOG_DIRECTORY", directory.join("log").display().to_string()),
        ("STATE_DIRECTORY", directory.join("state").display().to_string()),
        ("LOGS_ENDPOINT", victoria_logs::otlp(victoria_logs)),
        ("NODE_NAME", "cp1".into()),
    ];
    // As the DaemonSet of the walk-through starts it.
    let args = ["--feature-gates=stanza.synchronousLogEmitter".into(), format!("--config={}", config.display())];
    Process::start_with(&built("otelcol"), &args, directory.join("otelcol.log"), |command| {
        command.envs(environment);
    })
}

/// A third of the events while it runs, a third after it was killed in the middle of them, and the rest after it has
/// come back. `start` gets the directory, in which `log` has the audit log.
pub fn followed(
    name: &str,
    store: &Receiver,
    events: &[Event],
    start: impl Fn(&Path) -> Process,
    is_done: impl Fn() -> bool,
) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let mut log = AuditLog::create(&directory.path().join("log"), 1_000_000);
    let (first, rest) = events.split_at(events.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);

    let running = start(directory.path());
    log.write(first);
    wait::until(|| "the first events".into(), LIMIT, || (victoria_logs::count(store.port, "*") > 0).then_some(()));
    running.kill();
    log.write(second);
    let mut running = start(directory.path());
    log.write(third);
    wait::until(
        || format!("{} events", events.len()),
        LIMIT,
        || {
            assert!(!running.has_ended(), "{name} has ended:\n{}", running.said());
            is_done().then_some(())
        },
    );
    // It hands over what it still holds.
    running.end(LIMIT);
    let outcome = compare(events, victoria_logs::events(store.port));
    println!("{name}, {} rotations, one kill -9: {outcome:?}", log.rotations);
    assert!(log.rotations > 10);
    outcome
}

#[test]
fn opentelemetry_collector_loses_nothing_over_rotations_and_a_kill() {
    let (events, store) = (recorded(6000), victoria_logs::start(&[]));
    let start = |directory: &Path| collector(directory, "audit*.log", store.port);
    let has_all = || victoria_logs::different(store.port) == events.len();
    let outcome = followed("OpenTelemetry Collector, audit*.log", &store, &events, start, has_all);
    // What it had read or sent when it was killed, and had not yet noted, is sent again.
    assert!(outcome.missing == 0 && outcome.twice <= 1000, "{outcome:?}");
}

/// The contrast that the walk-through warns of, and the proof that a loss is noticed here.
#[test]
fn opentelemetry_collector_loses_events_if_it_follows_the_current_file_alone() {
    let (events, store) = (recorded(6000), victoria_logs::start(&[]));
    let start = |directory: &Path| collector(directory, "audit.log", store.port);
    let last = format!("auditID:{}", events.last().unwrap().id.0);
    let has_last = || victoria_logs::count(store.port, &last) > 0;
    let outcome = followed("OpenTelemetry Collector, audit.log", &store, &events, start, has_last);
    assert!(outcome.missing > 0, "{outcome:?}");
}
