//! `audit-operator apply` on a host that it must not change: the message names the reason, and every byte stays.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use audit_operator::node::files::Host;
use testing::root;

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const KUBEADM: &str = include_str!("../cases/manifest/kubeadm-1.36/in.yaml");

/// A directory as the root of a host that kubeadm set up.
fn host() -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::open(directory.path()).unwrap();
    host.make_directory("/etc/kubernetes/manifests", 0o700).unwrap();
    host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
    (directory, host)
}

/// Every file below a directory, except our lock.
fn tree(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else if !path.ends_with("var/lib/audit-operator/lock") {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn apply(host_root: &Path, setup: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .current_dir(root())
        .args(["apply", "-f", setup, "--host-root", host_root.to_str().unwrap()])
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_host_that_cannot_be_changed_keeps_every_byte_and_says_why() {
    type Spoil = fn(&Host);
    let cases: Vec<(&str, i32, Spoil)> = vec![
        ("there is no /etc/kubernetes/manifests/kube-apiserver.yaml", 2, |host| host.remove(MANIFEST).unwrap()),
        (
            "kube-apiserver.yaml cannot be used: the manifest is not valid YAML: line 2 column 1: did not find expected node content",
            2,
            |host| replace(host, MANIFEST, "kind: [\n"),
        ),
        ("kube-apiserver", 2, |host| replace(host, MANIFEST, &KUBEADM.replace("kube-apiserver", "etcd"))),
        ("manifests/old.bak also defines the pod kube-system/kube-apiserver", 2, |host| {
            replace(host, "/etc/kubernetes/manifests/old.bak", KUBEADM)
        }),
        ("is a directory on this node; name a file in it", 1, |host| {
            host.make_directory("/var/log/kubernetes/audit/audit.log", 0o700).unwrap()
        }),
        ("/var/log/kubernetes on this node is a file", 1, |host| {
            host.make_directory("/var/log", 0o755).unwrap();
            replace(host, "/var/log/kubernetes", "");
        }),
        ("/var/log/kubernetes/audit/audit.log already exists on this node, and it is not an audit log", 1, |host| {
            host.make_directory("/var/log/kubernetes/audit", 0o700).unwrap();
            replace(host, "/var/log/kubernetes/audit/audit.log", "root:*:20000:0:99999:7:::\n");
        }),
        ("journal.json is of version 99, which is newer than this program", 2, |host| {
            host.make_directory("/var/lib/audit-operator", 0o700).unwrap();
            replace(host, "/var/lib/audit-operator/journal.json", "{\"version\": 99}");
        }),
    ];
    for (expected, code, spoil) in cases {
        let (directory, host) = host();
        spoil(&host);
        let before = tree(directory.path());
        let output = apply(directory.path(), "examples/log-only.yaml");
        let said = said(&output);
        assert!(said.contains(expected), "want {expected}:\n{said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(tree(directory.path()), before, "{expected}");
    }
}

#[test]
fn a_root_that_is_no_nodes_is_named_and_nothing_is_made_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let apply = ["apply", "-f", "examples/log-only.yaml", "--kubernetes-version=1.36"];
    for command in [&apply[..], &["restore"], &["status"], &["guard"]] {
        for (root, why) in
            [(directory.path(), "there is no directory /etc/kubernetes/manifests"), (Path::new("/typo"), "cannot open")]
        {
            let output = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
                .current_dir(testing::root())
                .args(command)
                .arg("--host-root")
                .arg(root)
                .output()
                .unwrap();
            let said = said(&output);
            assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
            assert!(said.contains(&format!("--host-root {}: {why}", root.display())), "{command:?}: {said}");
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(!Path::new("/typo").exists());
}

fn replace(host: &Host, path: &str, text: &str) {
    host.replace(path, text.as_bytes(), 0o600).unwrap();
}

#[test]
fn a_full_or_read_only_disk_leaves_the_manifest_and_no_half_file() {
    // A mount of its own, in a mount namespace of its own: gone with the process.
    for (options, expected) in [("size=16k", "No space left on device"), ("ro", "Read-only file system")] {
        for place in ["var/lib/audit-operator", "etc/kubernetes/audit"] {
            let (directory, host) = host();
            let mounted = directory.path().join(place);
            std::fs::create_dir_all(&mounted).unwrap();
            let script = format!(
                "mount -t tmpfs -o {options} tmpfs \"$1\" && {{ [ {options} = ro ] || head -c 16384 /dev/zero > \"$1/filler\"; }} && \"$2\" apply -f examples/log-only.yaml --host-root \"$3\"; echo \"exit $?\"; find \"$1\" -name '.*.audit-operator'"
            );
            let output = Command::new("unshare")
                .current_dir(root())
                .args(["--mount", "sh", "-c", &script, "sh"])
                .args([
                    mounted.as_os_str(),
                    env!("CARGO_BIN_EXE_audit-operator").as_ref(),
                    directory.path().as_os_str(),
                ])
                .output()
                .expect("the tests need unshare of util-linux, and root: a full disk is a small mount");
            let said = said(&output);
            assert!(said.contains(expected) && said.contains("exit 2"), "{options} {place}:\n{said}");
            assert!(!said.contains(".audit-operator\n"), "a temporary file was left:\n{said}");
            assert_eq!(host.read(MANIFEST).unwrap().unwrap(), KUBEADM.as_bytes());
        }
    }
}
