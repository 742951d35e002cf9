//! The part of the node that the running agent sees: read from the kernel, not from YAML.

use std::collections::BTreeMap;
use std::time::Duration;

use testing::cluster::Cluster;

const MINUTE: Duration = Duration::from_secs(60);

/// Mounted below /host, and whether the agent may write there.
const MOUNTS: [(&str, bool); 4] = [
    ("/host/etc/kubernetes", true),
    ("/host/var/lib/audit-operator", true),
    ("/host/var/log/kubernetes", false),
    ("/host/var/log/pods", false),
];

/// A mount of a process, as `/proc/PID/mountinfo` has it (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mount {
    point: String,
    is_writable: bool,
    file_system: String,
}

#[test]
fn the_agent_sees_four_directories_of_its_node_and_writes_to_two() {
    let cluster = Cluster::connect("quickstart");
    cluster.install_chart();
    only_the_four_are_mounted(&cluster);
    nothing_else_can_be_opened(&cluster);
    what_is_mounted_below_a_read_only_one_is_read_only_too(&cluster);
    cluster.uninstall_chart();
    cluster.wait("our state gone", MINUTE, || cluster.left_behind().is_empty().then_some(()));
}

/// Process id of the agent on the node.
fn agent(cluster: &Cluster) -> String {
    let pids = cluster.testbed(&["exec", "cp1", "pgrep", "-f", "audit-operator agent --host-root"]);
    let pid = pids.trim();
    assert!(!pid.contains('\n'), "one agent runs: {pids}");
    pid.to_string()
}

fn mounts(cluster: &Cluster) -> Vec<Mount> {
    let text = cluster.testbed(&["exec", "cp1", "cat", &format!("/proc/{}/mountinfo", agent(cluster))]);
    let read = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        Some(Mount {
            point: fields.next()?.into(),
            is_writable: fields.next()?.split(',').any(|option| option == "rw"),
            file_system: file_system.split(' ').next()?.into(),
        })
    };
    text.lines().map(|line| read(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

fn is_below(point: &str, directory: &str) -> bool {
    point.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

fn only_the_four_are_mounted(cluster: &Cluster) {
    let mounts = mounts(cluster);
    assert!(!mounts.iter().any(|mount| mount.point == "/host"), "the node's root is not mounted");
    let root = mounts.iter().find(|mount| mount.point == "/").unwrap();
    assert!(!root.is_writable, "the image is read-only: {root:?}");
    let host: Vec<&Mount> = mounts.iter().filter(|mount| is_below(&mount.point, "/host")).collect();
    let is_top = |mount: &Mount| !host.iter().any(|other| is_below(&mount.point, &other.point));
    let top: BTreeMap<&str, bool> =
        host.iter().filter(|mount| is_top(mount)).map(|mount| (mount.point.as_str(), mount.is_writable)).collect();
    assert_eq!(top, BTreeMap::from(MOUNTS), "{host:?}");
    for mount in &host {
        let (_, may_write) = MOUNTS
            .into_iter()
            .find(|(directory, _)| mount.point == *directory || is_below(&mount.point, directory))
            .unwrap();
        assert!(may_write || !mount.is_writable, "{mount:?}");
        let kernels = ["proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "debugfs", "securityfs", "bpf"];
        assert!(!kernels.contains(&mount.file_system.as_str()), "{mount:?}");
    }
    cluster.saw(&format!(
        "of {} mounts of the agent {} are of the node, two of them writable",
        mounts.len(),
        host.len()
    ));
}

fn nothing_else_can_be_opened(cluster: &Cluster) {
    let pid = agent(cluster);
    // The kernel resolves this path in the agent's own mounts.
    let has = |path: &str| {
        let command = format!("if [ -e /proc/{pid}/root{path} ]; then echo yes; else echo no; fi");
        cluster.testbed(&["exec", "cp1", "sh", "-c", &command]).trim() == "yes"
    };
    for (directory, _) in MOUNTS {
        assert!(has(directory), "{directory}");
    }
    assert!(has("/host/etc/kubernetes/manifests/kube-apiserver.yaml"));
    for path in [
        "proc",
        "sys",
        "dev",
        "run",
        "run/containerd/containerd.sock",
        "usr",
        "root",
        "tmp",
        "etc/passwd",
        "etc/shadow",
        "etc/containerd",
        "var/lib/kubelet",
        "var/lib/etcd",
        "var/lib/containerd",
        "var/log/kubelet.log",
    ] {
        assert!(!has(&format!("/host/{path}")), "/host/{path}");
    }
    cluster.saw("the agent opens nothing else of the node");
}

/// The kubelet's own field makes only the top mount read-only: this is why the chart asks for more.
fn what_is_mounted_below_a_read_only_one_is_read_only_too(cluster: &Cluster) {
    let below = "/var/log/kubernetes/submount";
    cluster.testbed(&["exec", "cp1", "mkdir", "-p", below]);
    cluster.testbed(&["exec", "cp1", "mount", "-t", "tmpfs", "tmpfs", below]);
    cluster.kubectl(&["-n", "audit-system", "rollout", "restart", "daemonset/audit-operator-agent"]);
    cluster.kubectl(&["-n", "audit-system", "rollout", "status", "daemonset/audit-operator-agent", "--timeout=120s"]);
    only_the_four_are_mounted(cluster);
    let seen = mounts(cluster).into_iter().find(|mount| mount.point == format!("/host{below}"));
    let seen = seen.expect("what is mounted on the node before the agent starts comes with its directory");
    assert!(!seen.is_writable, "{seen:?}");
    cluster.testbed(&["exec", "cp1", "umount", below]);
    cluster.testbed(&["exec", "cp1", "rmdir", below]);
    cluster.saw("a disk mounted below a read-only directory is read-only for the agent too");
}
