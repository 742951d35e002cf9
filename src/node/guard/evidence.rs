//! Reads the state of the node that the guard decides by. Changes nothing.

use super::Error;
use super::seen::Seen;
use crate::journal::{Change, Rollback, Sha, Stage, UnderWay, Way};
use crate::node::files::{self, Host};
use crate::node::state::{self, State};
use crate::node::{POD_LOGS_DIR, observe, probe, process};
use crate::plan::REPAIR_DIR;
use crate::revision;
use crate::verdict::{self, Evidence, InPlace, Process, Runs};

/// Bytes at the end of a container's log in which its last line is looked for.
const LAST_WORDS_BYTES: u64 = 16 * 1024;

/// One look at the node.
pub(super) struct Look {
    pub(super) evidence: Evidence,
    /// The kubelet of the evidence.
    pub(super) kubelet: Option<process::Process>,
}

pub(super) async fn look(state: &State, change: UnderWay<'_>, seen: &mut Seen) -> Result<Look, Error> {
    let in_place = in_place(state, &change)?;
    // Before the processes: a container that has written and is not among them has ended.
    let written = newest_pod(&state.host, &change)?;
    let is_serving = probe::is_serving(&change.probe).await;
    let now = process::clock();
    let now_ms = now.since_boot_ms;
    let found = api_server(&state.host, &change)?;
    let pid = found.as_ref().map(|process| process.pid);
    let process = found.map(|process| Process {
        runs: runs(&change, &process.argv),
        started_since_boot_ms: process.started_since_boot_ms,
    });
    let kubelet = process::called("kubelet").into_iter().rfind(|kubelet| process::is_of_host(kubelet.pid));
    let (starts, last_words) = seen.starts(written, process.is_some());
    let is_old = process.is_some_and(|process| !verdict::is_new(change, process, &now));
    let evidence = Evidence {
        in_place,
        process,
        released: seen.is_released(now_ms, pid),
        is_repaired: is_repaired(state, change)?,
        serving_ms: seen.serving_ms(now_ms, pid, is_serving),
        starts,
        starts_beside_old: seen.starts_beside_old(starts, is_old),
        last_words,
        kubelet: seen.kubelet(kubelet.as_ref().map(|kubelet| (kubelet.pid, kubelet.started_since_boot_ms)), is_serving),
    };
    Ok(Look { evidence, kubelet })
}

/// The oldest process of kube-apiserver, except those of other pods: a node may host API servers of other clusters.
fn api_server(host: &Host, change: &Change) -> Result<Option<process::Process>, files::Error> {
    let mut ours = observe::pods(host, &change.pod)?;
    ours.extend_from_slice(&change.pods_before);
    let is_ours = |process: &process::Process| may_be_of(process::pod(process.pid).as_deref(), &ours);
    Ok(process::called("kube-apiserver").into_iter().find(is_ours))
}

/// Whether a process of this pod may belong to one of the pods whose log directories are known. If none is known (the
/// kubelet's `podLogsDir` is elsewhere), every process may.
fn may_be_of(pod: Option<&str>, log_directories: &[String]) -> bool {
    let is_uid = |directory: &String| directory.rsplit_once('_').is_some_and(|(_, uid)| Some(uid) == pod);
    pod.is_none() || log_directories.is_empty() || log_directories.iter().any(is_uid)
}

pub(super) fn in_place(state: &State, change: &Change) -> Result<InPlace, files::Error> {
    let Some(bytes) = state.manifest()? else { return Ok(InPlace::Missing) };
    Ok(match Sha::of(&bytes) {
        sha if sha == change.after => InPlace::After,
        sha if sha == change.before => InPlace::Before,
        _ => InPlace::Foreign,
    })
}

pub(super) fn runs(change: &Change, argv: &[String]) -> Runs {
    match (is_of(argv, &change.argv_before), is_of(argv, &change.argv_after)) {
        (true, true) => Runs::Either,
        (true, false) => Runs::Before,
        (false, true) => Runs::After,
        (false, false) => Runs::Other,
    }
}

/// Whether a process was started with a command line of a manifest. If the manifest has arguments only, the executable
/// is the image's.
fn is_of(argv: &[String], written: &[String]) -> bool {
    let Some(by_image) = argv.len().checked_sub(written.len()) else { return false };
    let (entry, rest) = argv.split_at(by_image);
    let is_entry = by_image == 0 || (written.first().is_none_or(|first| first.starts_with('-')) && !entry.is_empty());
    is_entry
        && entry.iter().all(|word| !word.starts_with('-'))
        && rest.iter().zip(written).all(|(argument, written)| is_expanded(argument, written))
}

/// Whether the kubelet makes this argument from `written`: `$$` is a dollar, and `$(NAME)` is any value, or stays
/// (kubernetes@v1.36.3 third_party/forked/golang/expansion/expand.go).
fn is_expanded(argument: &str, written: &str) -> bool {
    let Some((before, behind)) = written.split_once('$') else { return argument == written };
    let Some(argument) = argument.strip_prefix(before) else { return false };
    if let Some(behind) = behind.strip_prefix('$') {
        return argument.strip_prefix('$').is_some_and(|rest| is_expanded(rest, behind));
    }
    match behind.strip_prefix('(').and_then(|name| name.split_once(')')) {
        Some((_, behind)) => argument
            .char_indices()
            .map(|(at, _)| at)
            .chain([argument.len()])
            .any(|end| is_expanded(&argument[end..], behind)),
        None => argument.strip_prefix('$').is_some_and(|rest| is_expanded(rest, behind)),
    }
}

/// Starts of the container in the newest pod of this Change, and its last words. The kubelet names a container's log
/// after its number of restarts and keeps the newest ones. A log exists before its process: a start counts once
/// something was written.
fn newest_pod(host: &Host, change: &Change) -> Result<(u32, Option<String>), files::Error> {
    let mut newest = (0, None);
    for pod in observe::pods(host, &change.pod)? {
        if change.pods_before.contains(&pod) {
            continue;
        }
        let directory = format!("{POD_LOGS_DIR}/{pod}/{}", &*change.container);
        let names = host.list(&directory)?;
        for restarts in names.iter().filter_map(|name| name.strip_suffix(".log")?.parse::<u32>().ok()) {
            if restarts < newest.0 {
                continue;
            }
            match last_line(host, &format!("{directory}/{restarts}.log")) {
                Some(words) => newest = (restarts.saturating_add(1), Some(words)),
                // The container before it was started, and has ended.
                None => newest.0 = newest.0.max(restarts),
            }
        }
    }
    Ok(newest)
}

/// The last line of a container's log, without the runtime's own prefix (`<time> <stream> <tag> `).
fn last_line(host: &Host, path: &str) -> Option<String> {
    let tail = host.tail(path, LAST_WORDS_BYTES).ok()?;
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    let words = line.splitn(4, ' ').nth(3).unwrap_or(line).trim();
    Some(words.chars().take(1000).collect())
}

/// The files that the new manifest mounts and that are not good, with a content that kube-apiserver is known to start
/// with.
pub(super) fn broken_files(state: &State, change: &Change) -> Result<Vec<(String, String)>, Error> {
    let Some(target) = &change.target else { return Ok(Vec::new()) };
    let directory = revision::directory(target);
    let mut found = Vec::new();
    for name in state.host.list(&state::path(REPAIR_DIR))? {
        let path = format!("{directory}/{name}");
        if let Some(good) = state.kept(&format!("{REPAIR_DIR}/{name}"))?
            && state.host.read(&path)?.as_deref() != Some(good.as_bytes())
        {
            found.push((path, good));
        }
    }
    Ok(found)
}

/// Whether the files are good, if they are the way back.
pub(super) fn is_repaired(state: &State, change: UnderWay) -> Result<bool, Error> {
    let is_way = matches!(change.stage, Stage::RollingBack(Rollback { way: Way::Files, .. }));
    Ok(is_way && broken_files(state, &change)?.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_left_out_only_where_it_is_of_another_pod() {
        let known =
            ["kube-system_kube-apiserver-cp1_aaaa".to_string(), "kube-system_kube-apiserver-cp1_bbbb".to_string()];
        assert!(may_be_of(Some("aaaa"), &known) && may_be_of(Some("bbbb"), &known));
        assert!(!may_be_of(Some("cccc"), &known), "another cluster's");
        assert!(may_be_of(None, &known), "its pod is unknown");
        assert!(may_be_of(Some("cccc"), &[]), "the kubelet's logs lie elsewhere");
    }

    #[test]
    fn a_process_is_known_by_what_the_kubelet_makes_of_its_command_line() {
        let list = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (argv, written, want) in [
            (&["kube-apiserver", "--a=1"][..], &["kube-apiserver", "--a=1"][..], true),
            (&["kube-apiserver", "--a=1"], &["kube-apiserver", "--a=2"], false),
            (&["kube-apiserver", "--a=1"], &["kube-apiserver"], false),
            (&["kube-apiserver"], &["kube-apiserver", "--a=1"], false),
            // The kubelet puts variables in, or leaves those that it does not know.
            (&["kube-apiserver", "--a=10.0.0.1:6443"], &["kube-apiserver", "--a=$(IP):6443"], true),
            (&["kube-apiserver", "--a=$(IP)"], &["kube-apiserver", "--a=$(IP)"], true),
            (&["kube-apiserver", "--a=10.0.0.1:6444"], &["kube-apiserver", "--a=$(IP):6443"], false),
            (&["kube-apiserver", "--a=x$b"], &["kube-apiserver", "--a=x$$b"], true),
            (&["kube-apiserver", "--a=$(B)"], &["kube-apiserver", "--a=$$(B)"], true),
            (&["kube-apiserver", "--a=x$b"], &["kube-apiserver", "--a=x$b"], true),
            (&["kube-apiserver", "--a=äx"], &["kube-apiserver", "--a=$(B)x"], true),
            // Where the manifest has arguments only, the command is the image's.
            (&["kube-apiserver", "--a=1"], &["--a=1"], true),
            (&["/bin/kube-apiserver", "kube-apiserver", "--a=1"], &["--a=1"], true),
            (&["kube-apiserver", "--b=1", "--a=1"], &["--a=1"], false),
            (&["--a=1"], &["--a=1"], true),
            (&["kube-apiserver"], &[], true),
        ] {
            assert_eq!(is_of(&list(argv), &list(written)), want, "{argv:?} of {written:?}");
        }
    }
}
