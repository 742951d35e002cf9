//! Directories below which logs may be written.

use serde::{Deserialize, Serialize};

use super::DEFAULT_LOG_DIRECTORY;

/// Places that no administrator means by a directory of logs: there a file of kube-apiserver would be run, read as configuration, or
/// stand in the way of the node's own programs. A directory of logs may neither lie in one of these nor hold one.
const NEVER: [(&str, &str); 20] = [
    ("/bin", "programs are there"),
    ("/boot", "the node boots from it"),
    ("/dev", "it holds devices"),
    ("/etc", "configuration is there"),
    ("/lib", "programs are there"),
    ("/lib64", "programs are there"),
    ("/proc", "it holds no files of its own"),
    ("/root", "it is the home of root"),
    ("/run", "sockets are there, and it is empty after a reboot"),
    ("/sbin", "programs are there"),
    ("/sys", "it holds no files of its own"),
    ("/usr", "programs are there"),
    ("/var/lib/audit-operator", "the operator's journal is there"),
    ("/var/lib/containerd", "the container runtime's files are there"),
    ("/var/lib/etcd", "the data of etcd is there"),
    ("/var/lib/kubelet", "the kubelet's files are there"),
    ("/var/log/containers", "the kubelet keeps the logs of containers there"),
    ("/var/log/pods", "the kubelet keeps the logs of containers there"),
    ("/var/run", "sockets are there, and it is empty after a reboot"),
    ("/var/spool", "cron and mail read what is there"),
];

/// An absolute, clean path of a directory of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogDirectory(String);

impl Default for LogDirectory {
    fn default() -> Self {
        Self(DEFAULT_LOG_DIRECTORY.into())
    }
}

impl LogDirectory {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a file lies in the directory or below it.
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.0).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }
}

impl From<LogDirectory> for String {
    fn from(directory: LogDirectory) -> Self {
        directory.0
    }
}

impl TryFrom<String> for LogDirectory {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let path = text.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&text);
        clean_path(path)?;
        let lies_in = |path: &str, other: &str| {
            path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for (place, why) in NEVER {
            if lies_in(path, place) || lies_in(place, path) {
                return Err(format!("{text:?} cannot be a directory of logs: {place} is not one, since {why}"));
            }
        }
        // A directory of everybody's logs: auditd's, the journal's and others' are among them.
        if ["/", "/var", "/var/lib", "/var/log", "/home", "/mnt", "/media", "/opt", "/srv", "/tmp", "/var/tmp"]
            .contains(&path)
        {
            return Err(format!("{text:?} holds more than audit logs: name a directory in it"));
        }
        for place in ["/var/log/audit", "/var/log/journal"] {
            if lies_in(path, place) {
                return Err(format!(
                    "{text:?} cannot be a directory of logs: a program of the node writes and rotates its own files there"
                ));
            }
        }
        Ok(Self(path.into()))
    }
}

/// Refuses a path that the kubelet, a mount or this program could read differently than it looks.
pub fn clean_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not an absolute path"));
    }
    if path.contains('$') {
        // The kubelet expands $(NAME) and $$ in arguments, and not in mounts
        // (kubernetes@v1.36.3 third_party/forked/golang/expansion/expand.go).
        return Err(format!(
            "{path:?} has a $ in it: the kubelet expands that in flags and not in mounts, so both would name different places"
        ));
    }
    if path.chars().any(|c| c.is_control() || c == ':') {
        return Err("holds a colon or a control character, which cannot stand in the path of a mount".into());
    }
    if path.len() > 1 && path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("{path:?} has //, /./ or /../ in it: write the path plainly"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_logs_holds_what_lies_below_it_and_nothing_beside() {
        let directory = LogDirectory::try_from("/var/log/kubernetes/".to_string()).unwrap();
        assert_eq!(directory, LogDirectory::default());
        for (path, want) in [
            ("/var/log/kubernetes/audit.log", true),
            ("/var/log/kubernetes/audit/audit.log", true),
            ("/var/log/kubernetes", false),
            ("/var/log/kubernetes/", false),
            ("/var/log/kubernetes2/audit.log", false),
            ("/var/log/audit.log", false),
        ] {
            assert_eq!(directory.holds(path), want, "{path}");
        }
    }

    #[test]
    fn no_administrator_permits_a_place_where_files_are_run() {
        for path in ["/var/log/kubernetes", "/data", "/data/audit", "/srv/audit", "/var/lib/kube-audit", "/opt/audit"] {
            assert!(LogDirectory::try_from(path.to_string()).is_ok(), "{path}");
        }
        for path in [
            "",
            "/",
            "//",
            "/etc",
            "/etc/cron.d",
            "/var",
            "/var/log",
            "/var/lib",
            "/root/x",
            "/usr/local/audit",
            "/proc/1",
            "/lib/systemd",
            "/var/log/audit",
            "/var/spool/cron",
            "/var/lib/kubelet/pods",
            "/a/../etc",
            "/a//b",
            "/a:b",
            "/a/$b",
            "relative",
        ] {
            assert!(LogDirectory::try_from(path.to_string()).is_err(), "{path}");
        }
    }
}
