//! Processes of the node, as `/proc` shows them to a process in the host's pid namespace; and the node's clocks.

use std::fs;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use rustix::process::{Pid, Signal};

use crate::journal::Clock;

/// Ticks of `/proc/PID/stat` in a second: USER_HZ, 100 on every Linux architecture that Kubernetes runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) argv: Vec<String>,
    pub(super) started_since_boot_ms: u64,
}

/// All processes whose executable was called by this base name, the oldest first. Zombies do not count.
pub(super) fn called(name: &str) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut processes: Vec<Process> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| read(pid, name))
        .collect();
    processes.sort_by_key(|process| (process.started_since_boot_ms, process.pid));
    processes
}

fn read(pid: i32, name: &str) -> Option<Process> {
    let directory = format!("/proc/{pid}");
    // `comm` is short and cheap, and excludes nearly all processes. The kernel cuts it at 15 bytes.
    let comm = fs::read_to_string(format!("{directory}/comm")).ok()?;
    if comm.trim_end() != &name[..name.len().min(15)] {
        return None;
    }
    let cmdline = fs::read(format!("{directory}/cmdline")).ok()?;
    let argv: Vec<String> = cmdline
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect::<Vec<_>>();
    let argv = argv[..argv.len().saturating_sub(1)].to_vec();
    let executable = Path::new(argv.first()?).file_name()?.to_str()?;
    let stat = fs::read_to_string(format!("{directory}/stat")).ok()?;
    // The second field is the name in brackets and may hold spaces and brackets itself: count from the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let started: u64 = fields.nth(18)?.parse().ok()?;
    let is_running = executable == name && state != "Z" && state != "X";
    is_running.then_some(Process { pid, argv, started_since_boot_ms: started * 1000 / TICKS_PER_SECOND })
}

/// UID of the pod of a process, if its cgroups show it.
pub(super) fn pod(pid: i32) -> Option<String> {
    pod_of(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The pod of a process by its cgroups: `…/pod<UID>/…`, with systemd `…-pod<UID>.slice/…` and `_` for `-`
/// (kubernetes@v1.36.3 pkg/kubelet/cm/pod_container_manager_linux.go, GetPodContainerName; cgroup_manager_linux.go,
/// ToSystemd).
fn pod_of(cgroups: &str) -> Option<String> {
    let is_uid = |text: &str| {
        text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'_'))
    };
    cgroups
        .lines()
        .flat_map(|line| line.split('/'))
        .filter_map(|name| Some(name.strip_suffix(".slice").unwrap_or(name).rsplit_once("pod")?.1))
        .find(|uid| is_uid(uid))
        .map(|uid| uid.replace('_', "-"))
}

/// Whether a process belongs to the host, and not to a container: a process in a container is in more pid namespaces.
/// The kubelet of a cluster in containers (kind) is visible from the host too. If the kernel does not show the
/// namespaces, the process counts as the host's.
pub(super) fn is_of_host(pid: i32) -> bool {
    // Not by /proc/PID/ns, which is readable only with permission to trace the process.
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| namespaces(&status) <= 1)
}

/// How many pid namespaces a process is in, from that of the reader on.
fn namespaces(status: &str) -> usize {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.map_or(0, |pids| pids.split_ascii_whitespace().count())
}

/// Asks a process to end.
pub(super) fn terminate(pid: i32) -> std::io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or_else(|| std::io::Error::other("not a process id"))?;
    Ok(rustix::process::kill_process(pid, Signal::TERM)?)
}

/// The clocks of the node, now.
pub fn clock() -> Clock {
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot_ms =
        u64::try_from(boot.tv_sec).unwrap_or(0) * 1000 + u64::try_from(boot.tv_nsec).unwrap_or(0) / 1_000_000;
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string();
    #[expect(clippy::disallowed_methods, reason = "this is where a node reads its clock")]
    Clock { wall: Timestamp::now(), boot_id, since_boot_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroups_of_a_process_show_its_pod() {
        let static_pod = "df8210a74f298f09093853e05da2a49a";
        let pod = "9b8a6673-dfc0-4268-b6ce-ad22daf5ff82";
        let id = "08272df779208892485e02c83645d7d91b788aee053be42aec8299bb356566c2";
        let cases = [
            (format!("9:name=systemd:/kubepods/burstable/pod{static_pod}/{id}\n8:pids:/\n"), Some(static_pod)),
            (format!("0::/../../pod{pod}/{id}\n"), Some(pod)),
            (
                format!(
                    "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
                    pod.replace('-', "_")
                ),
                Some(pod),
            ),
            (format!("0::/kubepods.slice/kubepods-pod{static_pod}.slice/crio-{id}.scope"), Some(static_pod)),
            (format!("0::/machine.slice/libpod-{id}.scope"), None),
            ("0::/system.slice/kubelet.service".into(), None),
            ("0::/kubepods/burstable".into(), None),
            ("0::/".into(), None),
            (String::new(), None),
        ];
        for (cgroups, expected) in cases {
            assert_eq!(pod_of(&cgroups).as_deref(), expected, "{cgroups}");
        }
    }

    #[test]
    fn a_process_of_a_container_is_in_more_namespaces() {
        assert!(is_of_host(1) && is_of_host(i32::try_from(std::process::id()).unwrap()));
        assert_eq!(namespaces("Name:\tkubelet\nNSpid:\t4711\t12\nNSpgid:\t1\n"), 2);
        assert_eq!(namespaces("Name:\tkubelet\n"), 0, "older kernels do not show them");
    }

    #[test]
    fn a_started_process_is_found_with_its_arguments_and_its_start() {
        let before = clock();
        let mut child = std::process::Command::new("sleep").arg("61.5").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = loop {
            if let Some(found) = called("sleep").into_iter().find(|process| process.pid == pid) {
                break found;
            }
        };
        assert_eq!(found.argv, ["sleep", "61.5"]);
        assert!(found.started_since_boot_ms + 20 >= before.since_boot_ms);
        assert!(found.started_since_boot_ms <= clock().since_boot_ms);
        terminate(pid).unwrap();
        child.wait().unwrap();
        assert!(!called("sleep").iter().any(|process| process.pid == pid));
    }
}
