//! The place of the log on this node: the target of its links, the free space, the content of the file. Reads, and
//! changes nothing; [`crate::plan`] judges.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::tz::TimeZone;
use rustix::fs::FileType;

use super::files::{self, End, Host, Link, Place};
use super::{POD_LOGS_DIR, STATE_DIR};
use crate::health::load;
use crate::plan::{LogDirectory, LogFile, LogPlace};

/// How much of a file is read to recognise it. The first line may not be enough if the log was rotated or a full disk
/// cut it off.
const READ_LIMIT: u64 = 1024 * 1024;

/// Directories that the agent mounts for another purpose than a log. Elsewhere in the pod a link leads to no mount at
/// all.
const FOREIGN: [(&str, &str); 3] = [
    ("/etc/kubernetes", "the files of the control plane are"),
    (STATE_DIR, "the operator's journal is"),
    (POD_LOGS_DIR, "the kubelet keeps the logs of containers"),
];

/// Looks at the path of a log. `is_own`: the running Revision writes there, so the file is ours whatever its content.
pub(super) fn look(host: &Host, path: &str, is_own: bool) -> Result<LogPlace, files::Error> {
    let directory_path = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let place = host.follow(directory_path)?;
    let directory = directory(&place);
    let is_usable = directory == LogDirectory::Usable;
    Ok(LogPlace {
        path: path.into(),
        file: match file(host, path, is_usable)? {
            LogFile::Usable | LogFile::Foreign | LogFile::Unclear | LogFile::Link if is_own => LogFile::Own,
            file => file,
        },
        free_bytes: place.free_bytes,
        used_bytes: if is_usable { used_bytes(host, directory_path, path)? } else { 0 },
        directory,
    })
}

fn directory(place: &Place) -> LogDirectory {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let link = place.link.as_ref().map(|Link { path, target }| (text(path), text(target)));
    match (place.end, link) {
        // First: the pod's own directories beside its mounts are not the node's.
        (_, link) if !place.is_of_node => LogDirectory::Unmounted { directory: text(&place.resolved), link },
        (End::Other | End::BelowFile, _) => LogDirectory::BelowFile(text(&place.resolved)),
        (End::Dangling | End::Circle, link) => {
            let (link, target) = link.expect("only a link dangles or leads in a circle");
            LogDirectory::Dangling { link, target }
        }
        (End::Directory | End::Missing, Some((link, target))) => {
            let foreign = FOREIGN.into_iter().find(|(directory, _)| place.resolved.starts_with(directory));
            foreign.map_or(LogDirectory::Usable, |(_, purpose)| LogDirectory::Foreign { link, target, purpose })
        }
        (End::Directory | End::Missing, None) => LogDirectory::Usable,
    }
}

/// The name of a log without its extension.
pub(super) fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

/// Whether kube-apiserver made a file of this name when it rotated the log `file`: `<stem>-<time>.<extension>`
/// (gopkg.in/natefinch/lumberjack.v2@v2.2.1).
pub(super) fn is_rotated(name: &str, file: &str) -> bool {
    name.strip_prefix(stem(file)).is_some_and(|rest| rest.starts_with('-'))
}

/// Of the log and its rotated files: other files beside them do not count.
fn used_bytes(host: &Host, directory: &str, path: &str) -> Result<u64, files::Error> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let is_of_log = |name: &&String| **name == file || is_rotated(name, file);
    let names = host.list(directory)?;
    let sizes = names.iter().filter(is_of_log).filter_map(|name| host.metadata(&format!("{directory}/{name}")).ok());
    Ok(sizes.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len()).sum())
}

/// The log with its rotated files. Reads no more of it than its first event.
pub(super) fn rotated(host: &Host, path: &str) -> io::Result<load::Files> {
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let current = host.open_file(path)?;
    let system = rustix::fs::fstatvfs(&current)?;
    let current_bytes = current.metadata()?.len();
    let others = host.list(directory).map_err(io::Error::other)?;
    let rotated = others.into_iter().filter_map(|name| {
        let at = rotated_at(&name, file)?;
        let metadata = host.metadata(&format!("{directory}/{name}")).ok()?;
        metadata.is_file().then_some((at, metadata.len()))
    });
    let rotated: Vec<_> = rotated.collect();
    let begun = if rotated.is_empty() { first_received(current.take(READ_LIMIT)) } else { None };
    Ok(load::Files { current_bytes, begun, rotated, free_bytes: system.f_bavail * system.f_frsize })
}

/// When kube-apiserver renamed a file that it rotated: in its name, in UTC (gopkg.in/natefinch/lumberjack.v2@v2.2.1
/// lumberjack.go, `backupTimeFormat`).
fn rotated_at(name: &str, file: &str) -> Option<Timestamp> {
    let rest = name.strip_prefix(stem(file))?.strip_prefix('-')?;
    let extension = &file[stem(file).len()..];
    let rest = rest.strip_suffix(".gz").unwrap_or(rest);
    let time = rest.strip_suffix(extension)?;
    DateTime::strptime("%Y-%m-%dT%H-%M-%S%.f", time).ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

/// When the first event of a log was received.
fn first_received(beginning: impl Read) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        request_received_timestamp: Timestamp,
    }
    let mut line = Vec::new();
    BufReader::new(beginning).read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(&line).ok().map(|event: Event| event.request_received_timestamp)
}

fn file(host: &Host, path: &str, has_directory: bool) -> Result<LogFile, files::Error> {
    if !has_directory {
        return Ok(LogFile::Usable);
    }
    Ok(match host.kind(path)? {
        None => LogFile::Usable,
        Some(FileType::RegularFile) => match host.open_file(path).and_then(|file| content(file.take(READ_LIMIT))) {
            Ok(found) => found,
            // It was rotated away just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => LogFile::Usable,
            Err(_) => LogFile::Unclear,
        },
        Some(FileType::Directory) => LogFile::Directory,
        Some(FileType::Symlink) => LogFile::Link,
        Some(FileType::Fifo) => LogFile::Special("a pipe"),
        Some(FileType::Socket) => LogFile::Special("a socket"),
        Some(_) => LogFile::Special("a device"),
    })
}

/// Recognises a file by the first of its lines that is an audit event.
fn content(beginning: impl Read) -> io::Result<LogFile> {
    let mut reader = BufReader::new(beginning);
    let mut line = Vec::new();
    let mut complete = 0;
    let mut is_empty = true;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        is_empty = false;
        let is_complete = line.ends_with(b"\n");
        // A file that was cut off under its writer begins with a hole, which reads as zeros.
        let text = line.trim_ascii();
        let hole = text.iter().take_while(|byte| **byte == 0).count();
        if is_event(text[hole..].trim_ascii(), is_complete) {
            return Ok(LogFile::Usable);
        }
        // The rest of an event without its beginning says nothing.
        let is_rest = hole > 0 || text.is_empty();
        complete += u32::from(is_complete && !is_rest);
    }
    Ok(match complete {
        _ if is_empty => LogFile::Usable,
        0 => LogFile::Unclear,
        _ => LogFile::Foreign,
    })
}

/// Whether a line is an event as kube-apiserver writes it: JSON, or in the legacy format `<time> AUDIT: id="…" …`
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/format.go, EventString).
fn is_event(line: &[u8], is_complete: bool) -> bool {
    #[derive(serde::Deserialize)]
    struct Event {
        kind: String,
        #[serde(rename = "apiVersion")]
        api_version: String,
    }
    const LEGACY: &[u8] = b" AUDIT: id=\"";
    /// How kube-apiserver begins a line: an event that is longer than the part that is read, or is being written, has
    /// no more.
    const BEGINNING: &[u8] = b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/";
    let is_time = |text: &[u8]| std::str::from_utf8(text).is_ok_and(|text| text.parse::<Timestamp>().is_ok());
    if let Some(at) = memchr::memmem::find(&line[..line.len().min(128)], LEGACY) {
        return is_time(&line[..at]);
    }
    match serde_json::from_slice::<Event>(line) {
        Ok(Event { kind, api_version }) => kind == "Event" && api_version.starts_with("audit.k8s.io/"),
        Err(_) => !is_complete && line.starts_with(BEGINNING),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const EVENT: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"a"}"#;
    const LEGACY: &str = r#"2017-03-21T03:57:09.106841886-04:00 AUDIT: id="c939d2a7" stage="ResponseComplete""#;

    #[test]
    fn a_file_is_known_by_its_first_events() {
        let long = format!("{}{}", &EVENT[..EVENT.len() - 1], ",\"x\":\"".to_string() + &"y".repeat(2 << 20));
        let hole = "\0".repeat(4096);
        let far = "x\n".repeat(1 << 20);
        for (text, want) in [
            (String::new(), LogFile::Usable),
            (format!("{EVENT}\n"), LogFile::Usable),
            (format!("{LEGACY}\n"), LogFile::Usable),
            (EVENT.into(), LogFile::Usable),
            (EVENT[..60].into(), LogFile::Usable),
            (long, LogFile::Usable),
            (format!("id\":\"a\"}}\n{EVENT}\n"), LogFile::Usable),
            (format!("{hole}{EVENT}\n"), LogFile::Usable),
            (format!("{hole}rest of an event\n\n{EVENT}\n"), LogFile::Usable),
            ("{\"apiVersion\": \"audit.k8s.io/v1beta1\", \"kind\": \"Event\"}\r\n".into(), LogFile::Usable),
            ("root:x:0:0:root:/root:/bin/bash\n".into(), LogFile::Foreign),
            ("{}\n".into(), LogFile::Foreign),
            ("\"Event\"\n[]\n".into(), LogFile::Foreign),
            (r#"{"kind":"Event","apiVersion":"v1"}"#.to_string() + "\n", LogFile::Foreign),
            ("Nov 30 AUDIT: id=\"a\"\n".into(), LogFile::Foreign),
            (format!("node kube-apiserver: {EVENT}\n"), LogFile::Foreign),
            (format!("{far}{EVENT}\n"), LogFile::Foreign),
            ("no end of line".into(), LogFile::Unclear),
            ("x".repeat(2 << 20), LogFile::Unclear),
            ("\0".repeat(2 << 20), LogFile::Unclear),
            (format!("{hole}rest of an event\n"), LogFile::Unclear),
        ] {
            let found = content(text.as_bytes().take(READ_LIMIT)).unwrap();
            assert_eq!(found, want, "{}", text.chars().take(100).collect::<String>());
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_event() {
        let random: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_ne!(content(&random[..]).unwrap(), LogFile::Usable);
    }

    /// A node whose log directory is a link.
    fn node(target: &str) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        for made in ["var/log/kubernetes", "data/audit", "etc/kubernetes/manifests"] {
            std::fs::create_dir_all(directory.path().join(made)).unwrap();
        }
        symlink(target, directory.path().join("var/log/kubernetes/audit")).unwrap();
        let host = Host::of_node(directory.path()).unwrap();
        (directory, host)
    }

    #[test]
    fn a_linked_directory_is_the_one_that_the_node_has_there() {
        let path = "/var/log/kubernetes/audit/audit.log";
        let (_directory, host) = node("/data/audit");
        host.replace("/data/audit/audit.log", format!("{EVENT}\n").as_bytes(), 0o600).unwrap();
        let found = look(&host, path, false).unwrap();
        assert_eq!((&found.directory, found.file), (&LogDirectory::Usable, LogFile::Usable));
        assert_eq!(found.used_bytes, EVENT.len() as u64 + 1);
        let link = |target: &str| ("/var/log/kubernetes/audit".to_string(), target.to_string());
        let dangling = |target: &str| LogDirectory::Dangling { link: link(target).0, target: target.into() };
        for (target, want) in [
            ("../../../data/audit", LogDirectory::Usable),
            ("/data", LogDirectory::Usable),
            ("/nowhere", dangling("/nowhere")),
            ("audit", dangling("audit")),
            (
                "/etc/kubernetes/manifests",
                LogDirectory::Foreign {
                    link: link("").0,
                    target: "/etc/kubernetes/manifests".into(),
                    purpose: FOREIGN[0].1,
                },
            ),
        ] {
            let (_directory, host) = node(target);
            assert_eq!(look(&host, path, false).unwrap().directory, want, "{target}");
        }
        // In a pod whose root is no mount: here nothing is.
        let (directory, _) = node("/data/audit");
        let pod = Host::of_mounts(directory.path()).unwrap();
        let unmounted = |directory: &str, link| LogDirectory::Unmounted { directory: directory.into(), link };
        assert_eq!(look(&pod, path, false).unwrap().directory, unmounted("/data/audit", Some(link("/data/audit"))));
        assert_eq!(look(&pod, "/data/x/audit.log", false).unwrap().directory, unmounted("/data/x", None));
    }

    #[test]
    fn what_is_no_audit_log_is_not_taken_over() {
        let path = "/var/log/kubernetes/audit/audit.log";
        let (directory, host) = node("/data/audit");
        let file = directory.path().join("data/audit/audit.log");
        let found = |is_own| look(&host, path, is_own).unwrap().file;
        assert_eq!(found(false), LogFile::Usable);
        symlink("/etc/shadow", &file).unwrap();
        assert_eq!(found(false), LogFile::Link);
        std::fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!((found(false), found(true)), (LogFile::Special("a pipe"), LogFile::Special("a pipe")));
        std::fs::remove_file(&file).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&file).unwrap());
        assert_eq!(found(false), LogFile::Special("a socket"));
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!((found(false), found(true)), (LogFile::Directory, LogFile::Directory));
        std::fs::remove_dir(&file).unwrap();
        host.replace("/data/audit/audit.log", b"somebody's notes\n", 0o600).unwrap();
        assert_eq!((found(false), found(true)), (LogFile::Foreign, LogFile::Own));
    }

    #[test]
    fn the_files_of_a_log_are_found_with_their_times() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::open(root.path()).unwrap();
        host.make_directory("/var/log/audit", 0o700).unwrap();
        let log = "/var/log/audit/audit.log";
        let write = |name: &str, bytes: &[u8]| {
            host.replace(&format!("/var/log/audit/{name}"), bytes, 0o600).unwrap();
        };
        let event = br#"{"kind":"Event","requestReceivedTimestamp":"2026-12-01T11:00:00.5Z","stage":"Panic"}"#;
        write("audit.log", &[event, &b"\nrest"[..]].concat());
        let found = rotated(&host, log).unwrap();
        assert_eq!(found.begun, Some("2026-12-01T11:00:00.5Z".parse().unwrap()));
        assert_eq!((found.current_bytes, &found.rotated[..]), (event.len() as u64 + 5, &[][..]));
        assert!(found.free_bytes > 0);

        write("audit-2026-12-01T12-30-05.250.log", b"12345");
        write("audit-2026-12-01T11-30-05.000.log.gz", b"123");
        for other in
            ["audit-old.log", "audit.log.1", "audit-2026-12-01T11-30-05.000.txt", "other-2026-12-01T11-30-05.000.log"]
        {
            write(other, b"other");
        }
        let mut found = rotated(&host, log).unwrap();
        found.rotated.sort_unstable();
        let want = [("2026-12-01T11:30:05Z", 3), ("2026-12-01T12:30:05.25Z", 5)];
        assert_eq!(found.rotated, want.map(|(at, bytes)| (at.parse().unwrap(), bytes)));
        assert_eq!(rotated(&host, "/var/log/audit/none.log").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
