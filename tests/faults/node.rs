//! A node of the testbed from outside: its files as it sees them, its processes, its power.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use audit_operator::journal::{Endpoint, Journal, Progress};
use audit_operator::node::MANIFEST;
use rustix::process::{Pid, Signal, kill_process};

/// A program that runs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Agent,
    Guard,
    Controller,
    ApiServer,
    Etcd,
    Kubelet,
    Containerd,
}

impl Program {
    fn is(self, argv: &[&str]) -> bool {
        let name = argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let verb = argv.get(1).copied().unwrap_or_default();
        match self {
            Program::Agent => (name, verb) == ("audit-operator", "agent"),
            Program::Guard => (name, verb) == ("audit-operator", "guard"),
            Program::Controller => (name, verb) == ("audit-operator", "controller"),
            // Not that of another cluster (hosted.yaml).
            Program::ApiServer => name == "kube-apiserver" && !argv.contains(&"--secure-port=7443"),
            Program::Etcd => name == "etcd",
            // Not that in a container (act.rs).
            Program::Kubelet => name == "kubelet" && verb != "infinity",
            Program::Containerd => name == "containerd",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    testbed: PathBuf,
    /// Where the testbed writes the process id of this node.
    pid_file: PathBuf,
}

impl Node {
    pub fn new(testbed: &Path, name: &str) -> Self {
        let disk = Command::new(testbed).args(["disk", name]).output().unwrap();
        let disk = PathBuf::from(String::from_utf8(disk.stdout).unwrap().trim());
        let state = disk.ancestors().nth(3).unwrap();
        Self { name: name.into(), testbed: testbed.into(), pid_file: state.join(format!("run/{name}.pid")) }
    }

    /// Whether the testbed has this node.
    pub fn is_on(&self) -> bool {
        self.pid().is_some()
    }

    fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(&self.pid_file).ok()?.split(' ').next()?.parse().ok()?;
        Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
    }

    /// The file system as the node has it mounted.
    pub fn at(&self, path: &str) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/proc/{}/root{path}", self.pid()?)))
    }

    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)?).ok()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).is_some_and(|path| path.exists())
    }

    pub fn manifest(&self) -> Option<String> {
        self.read(MANIFEST)
    }

    pub fn journal(&self) -> Option<Journal> {
        Journal::read(self.read("/var/lib/audit-operator/journal.json")?.as_bytes()).ok()
    }

    /// Number and progress of the last change.
    pub fn change(&self) -> Option<(u64, Progress)> {
        self.journal()?.change.map(|change| (change.number, change.progress))
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint { host: format!("172.30.0.1{}", &self.name[2..]), port: 6443 }
    }

    pub fn exec(&self, script: &str) -> String {
        let output = Command::new(&self.testbed).args(["exec", &self.name, "sh", "-euc", script]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {script}: {errors}", self.name);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn power(&self, verb: &str) {
        let status = Command::new(&self.testbed).args([verb, &self.name]).status().unwrap();
        assert!(status.success(), "{verb} {}", self.name);
    }

    /// Takes the machine away that was this node, disk and all.
    pub fn forget(&self) {
        let member = self.pid_file.with_extension("member");
        fs::remove_file(member).unwrap();
        let disk = self.pid_file.ancestors().nth(2).unwrap().join("nodes").join(&self.name);
        fs::remove_dir_all(disk).unwrap();
    }

    /// The processes of a program, with their command lines.
    pub fn processes(&self, program: Program) -> BTreeMap<i32, Vec<String>> {
        let Some(init) = self.pid() else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let mut fields = rest.split(' ');
            let (Some(state), Some(parent)) = (fields.next(), fields.next()) else { continue };
            parents.insert(pid, parent.parse::<i32>().unwrap_or_default());
            let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
            let argv: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
            if state != "Z" && program.is(&argv) {
                found.insert(pid, argv.into_iter().map(str::to_string).collect());
            }
        }
        // Whatever runs on the node descends from the first process of its namespaces.
        let descends = |mut pid: i32| {
            let mut seen = BTreeSet::new();
            while pid != init && seen.insert(pid) {
                pid = parents.get(&pid).copied().unwrap_or_default();
            }
            pid == init
        };
        found.retain(|pid, _| descends(*pid));
        found
    }

    pub fn signal(&self, program: Program, signal: Signal) -> usize {
        let pids: Vec<i32> = self.processes(program).into_keys().collect();
        pids.iter().filter(|pid| kill_process(Pid::from_raw(**pid).unwrap(), signal).is_ok()).count()
    }
}
