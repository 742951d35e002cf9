//! The files of a log. All are opened at once, the active file first, so that a rotation meanwhile neither loses nor
//! repeats a file.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cli::policy::{is_stdin, open_regular};

/// One open file of a log. Without a file it is standard input.
pub(super) struct LogFile {
    pub name: String,
    pub file: Option<File>,
    pub bytes: u64,
}

pub(super) fn open(logs: &[PathBuf]) -> anyhow::Result<Vec<LogFile>> {
    let mut all = Vec::new();
    // Device and inode: two paths may name the same file.
    let mut seen = HashSet::new();
    for log in logs {
        if is_stdin(log) {
            if all.iter().any(|opened: &LogFile| opened.file.is_none()) {
                bail!("standard input (-) can be given only once");
            }
            all.push(LogFile { name: "standard input".into(), file: None, bytes: 0 });
            continue;
        }
        let is_directory = log.is_dir();
        // Before its directory is listed.
        let own = if is_directory || !log.exists() { None } else { Some(open_regular(log)?) };
        let siblings = if is_directory { logs_of(log)? } else { rotated(log)? };
        if is_directory && siblings.is_empty() {
            bail!("{} has no log: no file named *.log or *.log.gz", log.display());
        }
        if own.is_none() && siblings.is_empty() {
            open_regular(log)?;
        }
        let siblings = siblings.into_iter().map(|path| open_regular(&path).map(|file| (path, file)));
        for opened in siblings.chain(own.map(|file| Ok((log.clone(), file)))) {
            let (path, file) = opened?;
            let metadata = file.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            if seen.insert((metadata.dev(), metadata.ino())) {
                all.push(LogFile { name: path.display().to_string(), file: Some(file), bytes: metadata.len() });
            }
        }
    }
    Ok(all)
}

/// Rotated files of a log, the oldest first: `audit-2006-01-02T15-04-05.000.log` of `audit.log`
/// (gopkg.in/natefinch/lumberjack.v2@v2.2.1 lumberjack.go#L206-L242), or `audit.log.1` as logrotate has it; perhaps
/// with `.gz`.
fn rotated(log: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let Some(name) = log.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let directory = log.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let (stem, extension) =
        name.rsplit_once('.').map_or((name, String::new()), |(stem, ext)| (stem, format!(".{ext}")));
    let is_rotated = |other: &str| {
        let plain = other.strip_suffix(".gz").unwrap_or(other);
        let time = plain.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(extension.as_str()));
        time.is_some_and(is_time) || numbered(plain).is_some_and(|(base, _)| base == name)
    };
    list(directory, is_rotated)
}

/// All logs in a directory, with the rotated files of each together.
fn logs_of(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    list(directory, |name| {
        let plain = name.strip_suffix(".gz").unwrap_or(name);
        numbered(plain).map_or(plain, |(base, _)| base).ends_with(".log")
    })
}

/// Splits `audit.log.3` into `audit.log` and 3.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (base, number) = name.rsplit_once('.')?;
    Some((base, number.parse().ok().filter(|_| number.len() <= 6 && number.bytes().all(|b| b.is_ascii_digit()))?))
}

/// The log that a file belongs to, and its order among the files of that log; the active file is last.
fn order(name: &str) -> (String, String) {
    let plain = name.strip_suffix(".gz").unwrap_or(name);
    if let Some((base, number)) = numbered(plain) {
        // After every time; the highest number is the oldest.
        return (base.to_string(), format!("}}{:06}", 999_999 - number));
    }
    let (stem, extension) = plain.rsplit_once('.').unwrap_or((plain, ""));
    let at = stem.len().checked_sub(TIME.len() + 1);
    match at.and_then(|at| stem.split_at_checked(at)) {
        Some((base, time)) if time.strip_prefix('-').is_some_and(is_time) => {
            (format!("{base}.{extension}"), time.to_string())
        }
        _ => (plain.to_string(), "~".into()),
    }
}

/// The oldest file of each log first. A file that is being compressed exists twice: the plain one counts.
fn list(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", directory.display());
    let mut names = Vec::new();
    for entry in directory.read_dir().with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.extend(entry.file_name().into_string().ok().filter(|name| !is_directory && is_wanted(name)));
    }
    names.sort_by_cached_key(|name| order(name));
    let plain: HashSet<String> = names.iter().filter(|name| !name.ends_with(".gz")).cloned().collect();
    names.retain(|name| name.strip_suffix(".gz").is_none_or(|name| !plain.contains(name)));
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}

const TIME: &[u8] = b"0000-00-00T00-00-00.000";

fn is_time(text: &str) -> bool {
    text.len() == TIME.len()
        && text.bytes().zip(TIME).all(|(have, want)| if *want == b'0' { have.is_ascii_digit() } else { have == *want })
}
