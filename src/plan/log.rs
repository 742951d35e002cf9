//! Whether a node can take the log: its place, as it was read, in; the refusal out.

use super::{MIB, Refusal};
use crate::api::Reason;
use crate::revision::Revision;

/// Disk space that must stay free in addition to the log's own.
const HEADROOM_BYTES: u64 = 256 * MIB;

/// The path of the log on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// As the Setup names it.
    pub path: String,
    pub directory: LogDirectory,
    pub file: LogFile,
    /// Bytes that are free there, and those that the files there take already.
    pub free_bytes: u64,
    pub used_bytes: u64,
}

/// The directory of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDirectory {
    /// It exists, or can be made.
    Usable,
    /// This part of its path is a file.
    BelowFile(String),
    /// A link on the way leads nowhere, or in a circle.
    Dangling { link: String, target: String },
    /// It is on no mount of the agent, by a link on the way (with its target) or by its own path.
    Unmounted { directory: String, link: Option<(String, String)> },
    /// A link on the way leads below a directory that has another purpose.
    Foreign { link: String, target: String, purpose: &'static str },
}

/// The file of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFile {
    /// It does not exist yet, is empty, or begins like an audit log.
    Usable,
    /// The running Revision writes it.
    Own,
    Directory,
    Link,
    /// A device, a pipe or a socket.
    Special(&'static str),
    /// It begins with something else.
    Foreign,
    /// The part of it that is read does not show what it is.
    Unclear,
}

/// Why a node cannot take the log of a Revision.
pub(super) fn check(revision: &Revision, log: &LogPlace) -> Result<(), Refusal> {
    let why = unusable_directory(log).or_else(|| unusable_file(log));
    if let Some(message) = why {
        return Err(Refusal { reason: Reason::LogPathUnusable, message });
    }
    let directory = log.path.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let content = &revision.content;
    let file_bytes = content.log_file_bytes();
    let (growth, takes, advice) = match content.log_bytes() {
        // Where nothing bounds the log, there must be room for the file and for the next one, which begins before the
        // first is compressed.
        0 => (
            file_bytes.saturating_mul(2),
            format!("nothing bounds the size of the log below {directory} (maxBackups is 0)"),
            "set maxBackups",
        ),
        bound => (
            bound.saturating_sub(log.used_bytes),
            format!("the log and its backups may take {} MiB below {directory}", bound / MIB),
            "lower maxBackups or maxSizeMegabytes",
        ),
    };
    let needed = growth.saturating_add(HEADROOM_BYTES);
    if log.free_bytes < needed {
        let message = format!(
            "{takes}, which needs {} MiB free space there, and only {} MiB are free; {advice}, or make room",
            needed / MIB,
            log.free_bytes / MIB
        );
        return Err(Refusal { reason: Reason::DiskFull, message });
    }
    Ok(())
}

fn unusable_directory(log: &LogPlace) -> Option<String> {
    let path = &log.path;
    match &log.directory {
        LogDirectory::Usable => None,
        LogDirectory::BelowFile(file) => {
            Some(format!("{file} on this node is a file, but {path} needs a directory there"))
        }
        LogDirectory::Dangling { link, target } => Some(format!(
            "{link} on this node is a link to {target}, which leads nowhere. Make that directory, or choose another log.path"
        )),
        LogDirectory::Unmounted { directory, link: Some((link, target)) } => Some(format!(
            "{link} on this node is a link to {target}, which the agent does not mount. Have an administrator add {directory} to floor.logDirectories, or choose a log.path below one of them"
        )),
        LogDirectory::Unmounted { directory, link: None } => Some(format!(
            "the agent does not mount {directory}, so it cannot check the log there. Have an administrator add the directory to floor.logDirectories, or choose a log.path below one of them"
        )),
        LogDirectory::Foreign { link, target, purpose } => Some(format!(
            "{link} on this node is a link to {target}, where {purpose}. Choose another log.path, or remove the link"
        )),
    }
}

fn unusable_file(log: &LogPlace) -> Option<String> {
    let path = &log.path;
    match log.file {
        LogFile::Usable | LogFile::Own => None,
        LogFile::Directory => Some(format!("{path} is a directory on this node; name a file in it")),
        LogFile::Link => Some(format!(
            "{path} on this node is a symbolic link, which kube-apiserver would follow inside its container. Move it away, or name another file in log.path"
        )),
        LogFile::Special(kind) => {
            Some(format!("{path} on this node is {kind}, not a file. Name another file in log.path"))
        }
        LogFile::Foreign => Some(format!(
            "{path} already exists on this node, and it is not an audit log. Move it away, or name another file in log.path"
        )),
        LogFile::Unclear => Some(format!(
            "{path} already exists on this node, and its first MiB does not show whether it is an audit log. Move it away, or name another file in log.path"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revision;

    /// Why a log of `mib` at most (0: unbounded), with files of 100 MiB, is refused at a place.
    fn refused(place: LogPlace, mib: u64) -> Option<(Reason, String)> {
        let log = serde_json::json!({"path": "/var/log/audit/audit.log", "maxSizeMegabytes": 100, "maxBackups": (mib as i64 / 100 - 1).max(0)});
        let content = revision::Content {
            policy: String::new(),
            log: Some(serde_json::from_value(log).unwrap()),
            webhook: None,
            shutdown_delay_seconds: 0,
            drain_watches_seconds: 0,
        };
        check(&Revision::new(content), &place).err().map(|refusal| (refusal.reason, refusal.message))
    }

    fn place() -> LogPlace {
        LogPlace {
            path: "/var/log/kubernetes/audit/audit.log".into(),
            directory: LogDirectory::Usable,
            file: LogFile::Usable,
            free_bytes: u64::MAX,
            used_bytes: 0,
        }
    }

    #[test]
    fn a_log_that_nothing_bounds_needs_room_for_two_files_and_the_headroom() {
        let free = |mib: u64, used: u64| LogPlace { free_bytes: mib * MIB, used_bytes: used * MIB, ..place() };
        for (place, bound, fits) in [
            (free(456, 0), 0, true),
            (free(455, 0), 0, false),
            (free(455, 10_000), 0, false),
            (free(1256, 0), 1000, true),
            (free(1255, 0), 1000, false),
            (free(256, 1000), 1000, true),
            (free(255, 2000), 1000, false),
        ] {
            let refused = refused(place.clone(), bound);
            assert_eq!(refused.is_none(), fits, "{place:?} {bound}: {refused:?}");
            assert!(refused.is_none_or(|(reason, _)| reason == Reason::DiskFull));
        }
        let (_, message) = refused(free(300, 0), 0).unwrap();
        let want = "nothing bounds the size of the log below /var/log/kubernetes/audit (maxBackups is 0), which needs 456 MiB free space there, and only 300 MiB are free; set maxBackups, or make room";
        assert_eq!(message, want);
    }

    #[test]
    fn a_place_that_cannot_take_the_log_is_named_with_what_to_do() {
        let link = || ("/var/log/kubernetes/audit".to_string(), "/data/audit".to_string());
        let (at, target) = link();
        let directories = [
            (LogDirectory::BelowFile("/var/log/kubernetes".into()), "/var/log/kubernetes on this node is a file"),
            (
                LogDirectory::Dangling { link: at.clone(), target: target.clone() },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, which leads nowhere. Make that directory",
            ),
            (
                LogDirectory::Unmounted { directory: "/data/audit".into(), link: Some(link()) },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, which the agent does not mount. Have an administrator add /data/audit to floor.logDirectories",
            ),
            (
                LogDirectory::Unmounted { directory: "/data".into(), link: None },
                "the agent does not mount /data, so it cannot check the log there.",
            ),
            (
                LogDirectory::Foreign { link: at, target, purpose: "the kubelet runs every file" },
                "/var/log/kubernetes/audit on this node is a link to /data/audit, where the kubelet runs every file.",
            ),
        ];
        let files = [
            (LogFile::Directory, "is a directory on this node; name a file in it"),
            (LogFile::Link, "is a symbolic link"),
            (LogFile::Special("a pipe"), "is a pipe, not a file"),
            (LogFile::Foreign, "is not an audit log. Move it away"),
            (LogFile::Unclear, "does not show whether it is an audit log. Move it away"),
        ];
        let cases = directories.map(|(directory, want)| (LogPlace { directory, ..place() }, want));
        for (place, want) in cases.into_iter().chain(files.map(|(file, want)| (LogPlace { file, ..place() }, want))) {
            let (reason, message) = refused(place, 1).expect(want);
            assert_eq!(reason, Reason::LogPathUnusable);
            assert!(message.contains(want), "want {want}\ngot  {message}");
        }
        assert_eq!(refused(LogPlace { file: LogFile::Own, ..place() }, 1), None);
    }
}
