//! rsyslog follows the log file and sends each event to VictoriaLogs by syslog.

use std::fs;
use std::path::Path;

use testing::golden;
use testing::process::{Process, free_port};

use crate::events::recorded;
use crate::start::{built, configuration};
use crate::tail::followed;
use crate::victoria_logs;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

fn rsyslog(directory: &Path, syslog: u16) -> Process {
    let packages = built("rsyslog");
    let text = fs::read_to_string(configuration("rsyslog.conf")).unwrap();
    let state = directory.join("state");
    fs::create_dir_all(&state).unwrap();
    let mut here = text.clone();
    for (from, to) in [
        ("/var/lib/rsyslog", state.display().to_string()),
        ("/var/log/kubernetes/audit", directory.join("log").display().to_string()),
        ("syslog.example.com", "127.0.0.1".into()),
        ("6514", syslog.to_string()),
    ] {
        assert!(here.contains(from), "{from}");
        here = here.replace(from, &to);
    }
    let file = directory.join("rsyslog.conf");
    golden::write(&file, here);
    let modules = packages.join(LIBRARIES).join("rsyslog");
    let args = ["-n", "-i", "NONE", "-f", file.to_str().unwrap(), "-M", modules.to_str().unwrap()].map(str::to_string);
    Process::start_with(&packages.join("usr/sbin/rsyslogd"), &args, directory.join("rsyslog.log"), |command| {
        command.env("LD_LIBRARY_PATH", packages.join(LIBRARIES));
    })
}

/// After the kill it sends the files again that it had open, so some events arrive twice. How many depends on the moment.
#[test]
fn rsyslog_loses_nothing_over_rotations_and_a_kill() {
    let syslog = free_port();
    let store = victoria_logs::start(&[format!("-syslog.listenAddr.tcp=127.0.0.1:{syslog}")]);
    let events = recorded(6000);
    let has_all = || victoria_logs::different(store.port) == events.len();
    let outcome = followed("rsyslog, audit*.log", &store, &events, |directory| rsyslog(directory, syslog), has_all);
    assert_eq!(outcome.missing, 0, "{outcome:?}");
}
