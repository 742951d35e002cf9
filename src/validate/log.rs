//! The log sink.

use super::{Problems, ValidLog, delivery};
use crate::api::{LogSink, Mode, Reason};

/// Directories that hold more than a log, so that mounting one read-write would hand kube-apiserver the node.
const SHARED: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/kubernetes",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
    "/var/run",
];

/// Directories in which, at any depth, something else writes or is read.
const FOREIGN: [(&str, &str); 18] = [
    ("/etc/kubernetes/manifests", "the kubelet runs every file there"),
    ("/etc/kubernetes/pki", "the keys of the control plane are there"),
    ("/etc/kubernetes/audit", "the operator's own files are there, mounted read-only"),
    ("/var/lib/audit-operator", "the operator's journal is there"),
    ("/var/lib/etcd", "the data of etcd is there"),
    ("/var/lib/kubelet", "the kubelet's files are there"),
    ("/var/lib/containerd", "the container runtime's files are there"),
    ("/var/lib/containers", "the container runtime's files are there"),
    ("/var/lib/docker", "the container runtime's files are there"),
    ("/var/log/pods", "the kubelet keeps the logs of containers there"),
    ("/var/log/containers", "the kubelet keeps the logs of containers there"),
    ("/proc", "it is no place for files"),
    ("/sys", "it is no place for files"),
    ("/dev", "it is no place for files; use - for standard output"),
    ("/boot", "the node boots from there"),
    ("/usr", "programs are there"),
    ("/run", "it is gone after a reboot, and sockets are there"),
    ("/var/run", "it is gone after a reboot, and sockets are there"),
];

const ELSEWHERE: &str = "use a directory of its own, such as /var/log/kubernetes/audit";

pub(super) fn check(name: &str, log: &LogSink, field: &str, problems: &mut Problems) -> ValidLog {
    let mut bad = |message: String| problems.add(format!("{field}.path"), Reason::InvalidSetup, message);
    let directory = match directory_of(&log.path) {
        Ok(directory) => directory.map(str::to_string),
        Err(message) => {
            bad(message);
            None
        }
    };
    delivery::check(
        log.delivery.mode,
        log.delivery.batch.as_ref(),
        delivery::Backend::Log,
        &format!("{field}.delivery"),
        problems,
    );
    delivery::check_truncate(log.delivery.truncate.as_ref(), &format!("{field}.delivery"), problems);
    ValidLog { name: name.to_string(), log: log.clone(), directory }
}

/// Whether a request waits for the log.
pub(super) fn is_strict(log: &LogSink) -> bool {
    log.delivery.mode == Mode::BlockingStrict
}

/// The directory to mount; none for standard output.
fn directory_of(path: &str) -> Result<Option<&str>, String> {
    if path == "-" {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err(format!("an absolute path, or - for standard output: {path:?} is neither"));
    }
    if path.ends_with('/') {
        return Err(format!("{path:?} is a directory: add the name of a file, such as audit.log"));
    }
    if path.chars().any(|c| c.is_control() || c == ':') {
        return Err("holds a colon or a control character, which cannot stand in the path of a mount".into());
    }
    let (directory, file) = path.rsplit_once('/').expect("the path begins with /");
    let directory = if directory.is_empty() { "/" } else { directory };
    if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(match file {
            "." | ".." => format!("{path:?} is a directory: add the name of a file, such as audit.log"),
            _ => format!("{path:?} has //, /./ or /../ in it: write the path plainly"),
        });
    }
    // First the more telling of the two reasons.
    for (place, why) in FOREIGN {
        if path == place {
            return Err(format!("{path:?} is a directory, and {why}: {ELSEWHERE}"));
        }
        if directory == place || directory.starts_with(&format!("{place}/")) {
            return Err(format!("{path:?} lies in {place}, and {why}: {ELSEWHERE}"));
        }
    }
    if SHARED.contains(&path) {
        return Err(format!("{path:?} is a directory: add the name of a file, such as audit.log"));
    }
    if SHARED.contains(&directory) {
        return Err(format!(
            "the directory of the log is mounted into kube-apiserver, and {directory} holds more than that: {ELSEWHERE}"
        ));
    }
    Ok(Some(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_directory_of_its_own() {
        assert_eq!(directory_of("-"), Ok(None));
        for (path, directory) in [
            ("/var/log/kubernetes/audit/audit.log", "/var/log/kubernetes/audit"),
            ("/data/audit.log", "/data"),
            ("/var/log/podsaudit/a.log", "/var/log/podsaudit"),
        ] {
            assert_eq!(directory_of(path), Ok(Some(directory)));
        }
    }

    #[test]
    fn a_path_that_could_hurt_the_node_is_refused_and_the_message_says_why() {
        for (path, want) in [
            ("audit.log", "an absolute path, or - for standard output: \"audit.log\" is neither"),
            ("./audit.log", "an absolute path"),
            ("/var/log/audit/", "\"/var/log/audit/\" is a directory: add the name of a file"),
            ("/", "\"/\" is a directory"),
            ("/var/log", "\"/var/log\" is a directory"),
            ("/var/log/audit/..", "\"/var/log/audit/..\" is a directory"),
            ("/var/log//audit/a", "\"/var/log//audit/a\" has //, /./ or /../ in it"),
            ("/data/../etc/kubernetes/manifests/a", "\"/data/../etc/kubernetes/manifests/a\" has //"),
            (
                "/audit.log",
                "the directory of the log is mounted into kube-apiserver, and / holds more than that: use a directory of its own",
            ),
            ("/var/log/audit.log", "the directory of the log is mounted into kube-apiserver, and /var/log holds"),
            (
                "/etc/kubernetes/audit.log",
                "the directory of the log is mounted into kube-apiserver, and /etc/kubernetes holds",
            ),
            ("/etc/kubernetes/manifests", "\"/etc/kubernetes/manifests\" is a directory, and the kubelet runs"),
            (
                "/etc/kubernetes/manifests/audit.log",
                "\"/etc/kubernetes/manifests/audit.log\" lies in /etc/kubernetes/manifests, and the kubelet runs every file there: use",
            ),
            ("/etc/kubernetes/manifests/x/audit.log", "\"/etc/kubernetes/manifests/x/audit.log\" lies in"),
            ("/etc/kubernetes/audit/audit.log", "\"/etc/kubernetes/audit/audit.log\" lies in /etc/kubernetes/audit,"),
            ("/var/lib/audit-operator/a/b", "\"/var/lib/audit-operator/a/b\" lies in /var/lib/audit-operator"),
            ("/var/lib/etcd/audit.log", "\"/var/lib/etcd/audit.log\" lies in /var/lib/etcd, and the data of etcd"),
            ("/dev/stdout", "\"/dev/stdout\" lies in /dev, and it is no place for files; use - for standard output"),
            ("/var/log/a:b/c", "holds a colon"),
            ("/var/log/a\nb/c", "holds a colon"),
        ] {
            let message = directory_of(path).expect_err(path);
            assert!(message.starts_with(want), "{path}\nwant {want}\ngot  {message}");
        }
    }
}
