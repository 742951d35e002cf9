//! Acts against a node, undone if the fault passes by itself.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use audit_operator::journal::Journal;
use rustix::process::Signal;
use serde_json::{Value, json};
use testing::cluster::Cluster;

use super::node::{Node, Program};

const STATE: &str = "/var/lib/audit-operator";
/// A program that is called like the kubelet and is none.
const NESTED: &str = "/root/kubelet";
const HOSTED: &str = include_str!("hosted.yaml");
const NEXT_NODE: &str = "cp2";
const LAST_NODE: &str = "cp3";
const MANIFESTS: &str = "/etc/kubernetes/manifests";

/// A fault. Those with a time end after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// Nothing: the Revision itself is the fault.
    None,
    /// SIGKILL, once.
    Kill(Program),
    /// SIGKILL, whenever it is there.
    KillFor(Program, Duration),
    /// SIGSTOP, and SIGCONT.
    Freeze(Program, Duration),
    /// Power off, and on again.
    PowerCut(Duration),
    /// Power cuts in a row.
    PowerCuts(u32),
    /// No byte can be written below our state.
    FullDisk(Duration),
    /// Nothing can be written below our state.
    ReadOnlyDisk(Duration),
    /// Nothing in the directory of the manifests can be changed.
    ImmutableManifests(Duration),
    /// The policy of the Revision that is being rolled out is deleted.
    DeletePolicy,
    /// All Revisions are deleted.
    DeleteRevisions,
    /// The guard's manifest is deleted.
    DeleteGuard,
    /// Somebody changes another part of the manifest.
    EditOtherPart,
    /// Somebody deletes our flags.
    EditOurPart,
    /// The same on all nodes.
    EditOurPartEverywhere,
    /// The same on the last node.
    EditOurPartOfOther,
    /// kubeadm writes the manifest again.
    Kubeadm(&'static str),
    /// The owner of our directories changes.
    WrongOwner,
    /// The journal is moved away.
    LoseJournal,
    /// The stage in the journal loses its first part, and the guard is killed.
    LosePartOfJournal,
    /// The journal is as a program of version 1 has written it, which kept no copy; and the guard is killed.
    OldJournal,
    /// The directory of our state is deleted.
    LoseState,
    /// The node takes no more pods.
    Cordon,
    /// The last node loses its power for a while.
    OtherOff(Duration),
    /// The API server of the last node is killed whenever it is there.
    OtherApiServerDown(Duration),
    /// The NodeAudit of the last node is deleted.
    ForgetOther,
    /// All NodeAudits are deleted.
    ForgetAll,
    /// kubeadm resets the last node, and a new machine joins under its name.
    ReplaceOther,
    /// The agent's pod is deleted.
    DeleteAgentPod,
    /// A second controller, and the first is killed.
    TwoControllers,
    /// The node hosts the API server of another cluster.
    HostAnother,
    /// The kubelet is killed, and there is a kubelet in a container too.
    KillKubeletBesideNested,
    /// The Setup changes again, so many times in a row.
    ApplyAgain(u32),
    /// The Setup is deleted.
    DeleteSetup,
}

impl Act {
    /// Prepares the act before the change begins.
    pub fn prepare(self, node: &Node, cluster: &Cluster) {
        if self == Act::KillKubeletBesideNested {
            node.exec(&format!("cp /usr/bin/sleep {NESTED}; setsid unshare --pid --fork --kill-child {NESTED} infinity > /dev/null 2>&1 < /dev/null &"));
        }
        if self == Act::HostAnother {
            cluster.apply(&serde_saphyr::from_str(HOSTED).unwrap());
            cluster.kubectl(&["-n", "kube-system", "wait", "--for=condition=Ready", "pod/tenant", "--timeout=90s"]);
        }
        if matches!(self, Act::FullDisk(_) | Act::ReadOnlyDisk(_)) {
            // A disk of its own below our state. Only pods that start afterwards see it.
            node.exec(&format!(
                "cp -a {STATE} /root/state; mount -t tmpfs -o size=1m tmpfs {STATE}; cp -a /root/state/. {STATE}/; rm -r /root/state"
            ));
            restart_agent(cluster, node);
        }
    }

    pub fn carry_out(self, node: &Node, cluster: &Cluster) {
        match self {
            // There before the change began.
            Act::None | Act::HostAnother => {}
            Act::Kill(program) => {
                assert!(node.signal(program, Signal::KILL) > 0, "{program:?} does not run on {}", node.name);
            }
            Act::KillKubeletBesideNested => Act::Kill(Program::Kubelet).carry_out(node, cluster),
            Act::KillFor(program, time) => {
                let begin = Instant::now();
                while begin.elapsed() < time {
                    node.signal(program, Signal::KILL);
                    sleep(Duration::from_millis(20));
                }
            }
            Act::Freeze(program, time) => {
                node.signal(program, Signal::STOP);
                sleep(time);
                node.signal(program, Signal::CONT);
            }
            Act::PowerCut(time) => {
                node.power("power-off");
                sleep(time);
                node.power("power-on");
            }
            Act::PowerCuts(count) => {
                for _ in 0..count {
                    node.power("power-cycle");
                    sleep(Duration::from_secs(4));
                }
            }
            Act::FullDisk(time) => {
                // Its last bytes too: every write replaces a whole file.
                node.exec(&format!("dd if=/dev/zero of={STATE}/filler bs=4k 2>/dev/null || true"));
                sleep(time);
                node.exec(&format!("rm {STATE}/filler"));
            }
            Act::ReadOnlyDisk(time) => {
                // Of the file system itself, not of one of its mounts.
                let set = |option: &str| {
                    node.exec(&format!("mount -o remount,{option} {STATE} || mount -o remount,{option} tmpfs {STATE}"))
                };
                set("ro");
                sleep(time);
                set("rw");
            }
            Act::ImmutableManifests(time) => {
                node.exec(&format!("chattr +i {MANIFESTS}"));
                sleep(time);
                node.exec(&format!("chattr -i {MANIFESTS}"));
            }
            Act::DeletePolicy => {
                node.exec("cd /etc/kubernetes/audit/revisions; rm \"$(ls -td */ | head -1)policy.yaml\"");
            }
            Act::DeleteRevisions => {
                node.exec("rm -r /etc/kubernetes/audit/revisions");
            }
            Act::DeleteGuard => {
                node.exec(&format!("rm {MANIFESTS}/audit-operator-guard.yaml"));
            }
            Act::EditOtherPart => {
                node.exec(&format!("sed 's/- --profiling=.*//; s/^    - --secure-port=/    - --max-requests-inflight=401\\n&/' {MANIFESTS}/kube-apiserver.yaml > /root/edited && mv /root/edited {MANIFESTS}/kube-apiserver.yaml"));
            }
            Act::EditOurPart => {
                node.exec(&format!("sed '/- --audit-/d' {MANIFESTS}/kube-apiserver.yaml > /root/edited && mv /root/edited {MANIFESTS}/kube-apiserver.yaml"));
            }
            Act::EditOurPartEverywhere => {
                for name in [NEXT_NODE, LAST_NODE] {
                    Act::EditOurPart.carry_out(&Node::new(&cluster.testbed, name), cluster);
                }
                Act::EditOurPart.carry_out(node, cluster);
            }
            Act::EditOurPartOfOther => {
                Act::EditOurPart.carry_out(&Node::new(&cluster.testbed, LAST_NODE), cluster);
            }
            Act::Kubeadm(arguments) => {
                node.exec(&format!(
                    "kubeadm {arguments} > /root/kubeadm.log 2>&1 || {{ tail -20 /root/kubeadm.log >&2; exit 1; }}"
                ));
            }
            Act::WrongOwner => {
                node.exec(&format!("chown -R 65534:65534 {STATE} /etc/kubernetes/audit"));
            }
            Act::LoseJournal => {
                node.exec(&format!("mv {STATE}/journal.json /root/journal.lost"));
            }
            Act::LosePartOfJournal => rewrite_journal(node, |journal| {
                let stages = journal["change"]["progress"]["UnderWay"].as_object_mut().expect("a stage with parts");
                let stage = stages.values_mut().next().and_then(Value::as_object_mut).expect("its parts");
                stage.remove("begun").expect("it has begun");
                assert!(Journal::read(journal.to_string().as_bytes()).is_err(), "{journal}");
            }),
            Act::OldJournal => {
                rewrite_journal(node, |journal| {
                    let old = version_1(journal);
                    let read = |journal: &Value| Journal::read(journal.to_string().as_bytes()).unwrap();
                    assert_eq!(read(&old), read(journal), "{old}");
                    *journal = old;
                });
            }
            Act::LoseState => {
                node.exec(&format!("rm -r {STATE}"));
            }
            Act::Cordon => cluster.kubectl_until(&["cordon", &node.name]),
            Act::OtherOff(time) => {
                let other = Node::new(&cluster.testbed, LAST_NODE);
                other.power("power-off");
                sleep(time);
                other.power("power-on");
            }
            Act::OtherApiServerDown(time) => {
                let [next, last] = [NEXT_NODE, LAST_NODE].map(|name| Node::new(&cluster.testbed, name));
                let before = next.change();
                Act::KillFor(Program::ApiServer, time).carry_out(&last, cluster);
                assert_eq!(next.change(), before, "{NEXT_NODE} changed while {LAST_NODE} did not serve");
            }
            Act::ForgetOther => cluster.kubectl_until(&["delete", "nodeaudit", LAST_NODE]),
            Act::ForgetAll => cluster.kubectl_until(&["delete", "nodeaudit", "--all"]),
            Act::ReplaceOther => {
                let other = Node::new(&cluster.testbed, LAST_NODE);
                other.exec("kubeadm reset --force > /root/reset.log 2>&1 || { tail -20 /root/reset.log >&2; exit 1; }");
                other.power("power-off");
                other.forget();
                // Or kubeadm refuses a node that seems to be Ready.
                cluster.kubectl_until(&["delete", "node", LAST_NODE]);
                cluster.testbed(&["up", "--nodes", "3"]);
                let image = concat!(env!("CARGO_MANIFEST_DIR"), "/target/image.tar");
                cluster.testbed(&["load-image", image]);
            }
            Act::DeleteAgentPod => restart_agent(cluster, node),
            Act::TwoControllers => {
                cluster.kubectl_until(&[
                    "-n",
                    "audit-system",
                    "scale",
                    "deploy/audit-operator-controller",
                    "--replicas=2",
                ]);
                node.signal(Program::Controller, Signal::KILL);
            }
            Act::ApplyAgain(_) | Act::DeleteSetup => unreachable!("the run itself does that"),
        }
    }

    /// What a run leaves behind that the next one does not want.
    pub fn clean_up(self, node: &Node, cluster: &Cluster) {
        match self {
            Act::FullDisk(_) | Act::ReadOnlyDisk(_) => {
                node.exec(&format!(
                    "cp -a {STATE} /root/state; umount {STATE}; cp -a /root/state/. {STATE}/; rm -r /root/state"
                ));
                restart_agent(cluster, node);
            }
            Act::TwoControllers => {
                cluster.kubectl_until(&[
                    "-n",
                    "audit-system",
                    "scale",
                    "deploy/audit-operator-controller",
                    "--replicas=1",
                ]);
            }
            Act::Cordon => cluster.kubectl_until(&["uncordon", &node.name]),
            Act::KillKubeletBesideNested => {
                // Fails where nobody is left to be ended.
                node.exec(&format!("pkill -KILL -f '^{NESTED} infinity'; rm {NESTED}"));
            }
            Act::HostAnother => {
                cluster.kubectl_until(&[
                    "-n",
                    "kube-system",
                    "delete",
                    "pod",
                    "tenant",
                    "--ignore-not-found",
                    "--grace-period=1",
                ]);
            }
            _ => {}
        }
    }
}

/// Changes the journal while the guard is stopped, and then kills the guard: the next one finds it so.
fn rewrite_journal(node: &Node, change: impl FnOnce(&mut Value)) {
    assert!(node.signal(Program::Guard, Signal::STOP) > 0, "no guard runs on {}", node.name);
    let path = node.at(&format!("{STATE}/journal.json")).expect("the node is on");
    let mut journal = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut journal);
    if journal["version"] == 1 {
        node.exec(&format!("rm {STATE}/change/journal.json"));
    }
    let new = path.with_extension("new");
    #[expect(clippy::disallowed_methods, reason = "a fault")]
    fs::write(&new, journal.to_string()).unwrap();
    fs::rename(&new, &path).unwrap();
    node.signal(Program::Guard, Signal::KILL);
}

/// The journal as a program of version 1 wrote it.
fn version_1(journal: &Value) -> Value {
    let mut old = journal.clone();
    old["version"] = json!(1);
    let of = |value: &mut Value, name: &str| {
        value.as_object_mut().and_then(|fields| fields.remove(name)).unwrap_or_default()
    };
    old["givenUp"] = of(&mut old, "abandoned");
    let change = &mut old["change"];
    let mut progress = of(&mut of(change, "progress"), "UnderWay");
    let (stage, mut parts) = match progress.as_str() {
        Some(stage) => (stage.to_string(), Value::Null),
        None => {
            let stage = progress.as_object().and_then(|stages| stages.keys().next()).cloned().expect("a stage");
            (stage.clone(), of(&mut progress, &stage))
        }
    };
    change["stage"] = json!(stage);
    change["begun"] = parts["begun"].clone();
    change["cause"] = parts["cause"].clone();
    change["rollback"] = match of(&mut parts, "way") {
        Value::Null => Value::Null,
        way => {
            json!({"way": way, "begun": parts["since"], "starts": parts["starts"], "endedKubelet": parts["endedKubelet"]})
        }
    };
    change["finished"] = Value::Null;
    for failure in old["failures"].as_array_mut().into_iter().flatten() {
        of(failure, "endedKubelet");
    }
    old
}

/// Deletes the agent's pod and waits for the next one.
fn restart_agent(cluster: &Cluster, node: &Node) {
    let old = node.processes(Program::Agent);
    let field = format!("--field-selector=spec.nodeName={}", node.name);
    cluster.kubectl_until(&[
        "-n",
        "audit-system",
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/component=agent",
        &field,
        "--wait=false",
    ]);
    cluster.wait("another agent", Duration::from_secs(300), || {
        let now = node.processes(Program::Agent);
        (!now.is_empty() && now.keys().all(|pid| !old.contains_key(pid))).then_some(())
    });
}
