//! Breaks a sink, and repairs it.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testing::cluster::Cluster;
use testing::wait;

use super::matrix::Setup;
use super::misbehaving::{ADDRESS, Certificate, HTTP, HTTPS, Misbehaving, PROXY, Talk};

pub const LOG: &str = "/var/log/kubernetes/audit/audit.log";
/// A file system of its own.
pub const SMALL_DISK: &str = "/var/log/kubernetes/small";
const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
/// As `Runner::objects` has it, and without its address.
const SLICE: &str = "stand-in";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    Talks(Talk),
    Shows(Certificate),
    /// The name server answers that there is no such name.
    ForgetName,
    /// A real netcat listens instead.
    Netcat,
    /// The receiver's firewall drops what comes for its port.
    DropPackets,
    /// The receiver's host answers that it cannot be reached.
    Unreachable,
    /// The proxy that is in the manifest ends.
    EndProxy,
    /// 503 until kube-apiserver has given a batch up; then events are accepted again.
    LoseBatch,
    FreezeLog,
    MoveLog,
    DeleteLog,
    FillDisk,
    EndEndpoint,
    ScaleDown,
}

/// What a break leaves for its repair.
#[derive(Default)]
pub struct Broken {
    netcat: Option<Child>,
}

impl Act {
    /// Prepares the node, before the sink is found to be well.
    pub fn prepare(self, cluster: &Cluster) {
        if self != Act::EndProxy {
            return;
        }
        let no_proxy = "172.30.0.11,10.96.0.0/12,127.0.0.1,localhost";
        let env = format!(
            "    env: [{{name: HTTPS_PROXY, value: \"http://{ADDRESS}:{PROXY}\"}}, {{name: NO_PROXY, value: \"{no_proxy}\"}}]"
        );
        restarted(cluster, || {
            on_node(
                cluster,
                &format!("sed '/^    image: /i\\{env}' {MANIFEST} > /root/edited && mv /root/edited {MANIFEST}"),
            );
        });
        assert!(cluster.manifest().contains("HTTPS_PROXY"), "{}", cluster.manifest());
    }

    pub fn carry_out(self, setup: Setup, stand_in: &Misbehaving, cluster: &Cluster) -> Broken {
        let mut broken = Broken::default();
        match self {
            Act::Talks(talk) => stand_in.talk(talk),
            Act::Shows(certificate) => stand_in.show(certificate),
            Act::ForgetName => stand_in.forget_name(),
            Act::EndProxy => stand_in.end_proxy(),
            Act::LoseBatch => stand_in.talk(Talk::Answers(503, &[])),
            Act::Netcat => {
                stand_in.talk(Talk::Closed);
                let port = if setup == Setup::Http { HTTP } else { HTTPS };
                let is_open = || {
                    let address = SocketAddr::from((ADDRESS, port));
                    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
                };
                let limit = Duration::from_secs(10);
                wait::until(|| format!("port {port} free"), limit, || (!is_open()).then_some(()));
                let netcat = Command::new("nc")
                    .args(["-lk", &ADDRESS.to_string(), &port.to_string()])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("nc (Debian: netcat-openbsd) is needed");
                broken.netcat = Some(netcat);
                wait::until(|| format!("nc at port {port}"), limit, || is_open().then_some(()));
            }
            Act::DropPackets => firewall("-I", "DROP", &[]),
            Act::Unreachable => firewall("-I", "REJECT", &["--reject-with", "icmp-host-unreachable"]),
            // A file that is open can be written, whatever its mode says; one that is immutable cannot.
            Act::FreezeLog => on_node(cluster, &format!("chattr +i {LOG}")),
            Act::MoveLog => on_node(cluster, &format!("mv {LOG} {LOG}.1")),
            Act::DeleteLog => on_node(cluster, &format!("rm {LOG}")),
            Act::FillDisk => {
                on_node(cluster, &format!("dd if=/dev/zero of={SMALL_DISK}/filler bs=4k 2>/dev/null || true"));
            }
            Act::EndEndpoint => {
                cluster.apply(&slice(false));
                // kube-proxy refuses new connections. 7: curl could not connect.
                let refused = "curl -sk -o /dev/null --max-time 2 https://$0/; [ $? = 7 ] && echo refused";
                let service = cluster.kubectl(&[
                    "-n",
                    "audit-system",
                    "get",
                    "service",
                    "stand-in",
                    "-o",
                    "jsonpath={.spec.clusterIP}",
                ]);
                cluster.wait("a Service without endpoints", Duration::from_secs(30), || {
                    let said =
                        cluster.testbed(&["exec", "cp1", "sh", "-c", &format!("{refused}; true"), service.trim()]);
                    said.contains("refused").then_some(())
                });
            }
            Act::ScaleDown => scale(cluster, 0),
        }
        // Connections that are open would hide it.
        if matches!(self, Act::DropPackets | Act::Unreachable | Act::EndEndpoint) {
            stand_in.behave();
        }
        broken
    }

    pub fn repair(self, broken: Broken, stand_in: &Misbehaving, cluster: &Cluster) {
        if let Some(mut netcat) = broken.netcat {
            netcat.kill().unwrap();
            netcat.wait().unwrap();
        }
        match self {
            Act::Talks(_) | Act::Shows(_) | Act::ForgetName | Act::Netcat | Act::EndProxy | Act::LoseBatch => {
                stand_in.behave();
            }
            Act::DropPackets => firewall("-D", "DROP", &[]),
            Act::Unreachable => firewall("-D", "REJECT", &["--reject-with", "icmp-host-unreachable"]),
            Act::FreezeLog => on_node(cluster, &format!("chattr -i {LOG}")),
            Act::MoveLog => on_node(cluster, &format!("mv {LOG}.1 {LOG}")),
            Act::DeleteLog => restarted(cluster, || on_node(cluster, "pkill -TERM -x kube-apiserver")),
            Act::FillDisk => on_node(cluster, &format!("rm {SMALL_DISK}/filler")),
            Act::EndEndpoint => cluster.apply(&slice(true)),
            Act::ScaleDown => scale(cluster, 1),
        }
    }

    /// Takes back what [`Act::prepare`] did.
    pub fn clean_up(self, cluster: &Cluster) {
        if self == Act::EndProxy {
            restarted(cluster, || {
                on_node(
                    cluster,
                    &format!("sed '/name: HTTPS_PROXY/d' {MANIFEST} > /root/edited && mv /root/edited {MANIFEST}"),
                );
            });
        }
    }
}

pub fn on_node(cluster: &Cluster, script: &str) {
    cluster.testbed(&["exec", "cp1", "sh", "-euc", script]);
}

/// Waits until the act has made another process of kube-apiserver serve.
pub fn restarted(cluster: &Cluster, act: impl FnOnce()) {
    let process = || {
        let pids = cluster.testbed(&["exec", "cp1", "sh", "-c", "pgrep -x kube-apiserver || true"]);
        pids.trim().to_string()
    };
    let before = process();
    act();
    cluster.wait("another kube-apiserver that serves", Duration::from_secs(180), || {
        let now = process();
        (!now.is_empty() && !now.contains(&before) && cluster.is_serving()).then_some(())
    });
}

/// In the network of the nodes, where this program runs too.
fn firewall(verb: &str, target: &str, more: &[&str]) {
    let port = HTTPS.to_string();
    let rule = ["INPUT", "-p", "tcp", "--dport", &port, "-j", target];
    let status = Command::new("iptables").args([&["--wait", verb][..], &rule, more].concat()).status().unwrap();
    assert!(status.success(), "iptables {verb} {target}");
}

/// The endpoint of the Service `stand-in`.
pub fn slice(has_endpoint: bool) -> Value {
    let endpoints = if has_endpoint { json!([{"addresses": [ADDRESS.to_string()]}]) } else { json!([]) };
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": SLICE, "namespace": "audit-system", "labels": {"kubernetes.io/service-name": "stand-in"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": HTTPS, "protocol": "TCP"}], "endpoints": endpoints})
}

fn scale(cluster: &Cluster, replicas: u32) {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["-n", "audit-system", "scale", "deploy/audit-receiver", &replicas]);
}
