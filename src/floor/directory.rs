//! Directories below which logs may be written.

use serde::{Deserialize, Serialize};

use super::DEFAULT_LOG_DIRECTORY;

/// Directories that cannot be for logs: a program of the node would run a file there, read it as configuration, or be
/// disturbed by it. A log directory must neither be inside one of these nor contain one.
const NEVER: [(&str, &str); 20] = [
    ("/bin", "it contains programs"),
    ("/boot", "the node boots from it"),
    ("/dev", "it contains devices"),
    ("/etc", "it contains configuration"),
    ("/lib", "it contains programs"),
    ("/lib64", "it contains programs"),
    ("/proc", "it is a virtual file system"),
    ("/root", "it is the home of root"),
    ("/run", "it contains sockets and is empty after a reboot"),
    ("/sbin", "it contains programs"),
    ("/sys", "it is a virtual file system"),
    ("/usr", "it contains programs"),
    ("/var/lib/audit-operator", "it contains the operator's journal"),
    ("/var/lib/containerd", "it contains the files of the container runtime"),
    ("/var/lib/etcd", "it contains the data of etcd"),
    ("/var/lib/kubelet", "it contains the kubelet's files"),
    ("/var/log/containers", "the kubelet keeps the logs of containers there"),
    ("/var/log/pods", "the kubelet keeps the logs of containers there"),
    ("/var/run", "it contains sockets and is empty after a reboot"),
    ("/var/spool", "cron and mail read the files there"),
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

    /// Whether a file is in the directory or below it.
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
        let is_in = |path: &str, other: &str| {
            path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for (place, why) in NEVER {
            if is_in(path, place) || is_in(place, path) {
                return Err(format!("{text:?} cannot be a log directory, because of {place}: {why}"));
            }
        }
        // Directories that other programs share.
        if ["/", "/var", "/var/lib", "/var/log", "/home", "/mnt", "/media", "/opt", "/srv", "/tmp", "/var/tmp"]
            .contains(&path)
        {
            return Err(format!("{text:?} contains more than audit logs: name a directory below it"));
        }
        for place in ["/var/log/audit", "/var/log/journal"] {
            if is_in(path, place) {
                return Err(format!(
                    "{text:?} cannot be a log directory: a program of the node writes and rotates its own files there"
                ));
            }
        }
        Ok(Self(path.into()))
    }
}

/// Rejects a path that the kubelet, a mount or this program could read differently.
pub fn clean_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is not an absolute path"));
    }
    if path.contains('$') {
        // The kubelet expands $(NAME) and $$ in arguments, and not in mounts
        // (kubernetes@v1.36.3 third_party/forked/golang/expansion/expand.go).
        return Err(format!(
            "{path:?} has a $: the kubelet expands it in flags but not in mounts, so they would name different places"
        ));
    }
    if path.chars().any(|c| c.is_control() || c == ':') {
        return Err("has a colon or a control character, which the path of a mount must not have".into());
    }
    if path.len() > 1 && path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("{path:?} has //, /./ or /../: remove them"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_directory_contains_the_files_below_it_and_no_others() {
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
