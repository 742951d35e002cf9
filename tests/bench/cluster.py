"""What the benches have in common: the testbed that `make` brought up, AuditSetups, a person's edit, clients, and their figures."""

import itertools
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

here = pathlib.Path(__file__).resolve().parent
root = here.parents[1]
testbed = root / "tests/testbed/testbed"
program = root / "target/x86_64-unknown-linux-gnu/release/audit-operator"
MANIFEST, AUDIT, LOG = (
    "etc/kubernetes/manifests/kube-apiserver.yaml",
    "etc/kubernetes/audit",
    "var/log/kubernetes/audit/audit.log",
)


def run(*arguments, text_in=None, may_fail=False):
    done = subprocess.run([str(a) for a in arguments], input=text_in, text=True, capture_output=True)
    if done.returncode != 0 and not may_fail:
        sys.exit(f"bench: {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}")
    return done.stdout


def kubectl(*arguments, **how):
    return run(testbed, "kubectl", *arguments, **how)


def wait(seconds, what, condition, pause=0.05):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            sys.exit(f"bench: waited {seconds} s in vain for {what}")
        time.sleep(pause)
    return value


def pristine(node):
    """The directory that is a node's disk, and its manifest as kubeadm wrote it."""
    disk = pathlib.Path(run(testbed, "disk", node).strip())
    manifest = (disk / MANIFEST).read_bytes()
    if b"audit" in manifest:
        sys.exit(f"bench: the manifest of {node} is not as kubeadm wrote it: `make testbed-down` first")
    return disk, manifest


def install_chart():
    # The namespace that the preset `quiet` knows.
    kubectl(
        "apply",
        "-f",
        "-",
        text_in=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": "audit-system", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            }
        ),
    )
    run(
        testbed,
        "helm",
        "upgrade",
        "--install",
        "audit-operator",
        root / "charts/audit-operator",
        "--namespace=audit-system",
        "--wait",
        "--timeout=120s",
        "--set=image.repository=audit-operator.io/audit-operator,image.tag=dev,image.pullPolicy=Never,logFormat=text,receiver.enabled=false",
    )


def setup(policy, *sinks, **rollout):
    """An AuditSetup with a log sink, and others."""
    log = {"name": "file", "log": {"path": "/" + LOG, "maxSizeMegabytes": 1000, "maxBackups": 1}}
    return json.dumps(
        {
            "apiVersion": "audit-operator.io/v1alpha1",
            "kind": "AuditSetup",
            "metadata": {"name": "bench"},
            "spec": {"policy": policy, "sinks": [log, *sinks], "rollout": rollout},
        }
    )


numbers = itertools.count(1)


def changed(url, method):
    """An AuditSetup with a webhook sink, and with a policy that no one before had."""
    policy = {"preset": "metadata", "append": [{"level": "Metadata", "users": [f"nobody-{next(numbers)}"]}]}
    hook = {
        "name": "hook",
        "webhook": {"url": url, "delivery": {"batch": {"maxWaitSeconds": 2, "throttleQPS": 100, "throttleBurst": 150}}},
    }
    return setup(policy, hook, method=method)


def is_ready():
    # While kube-apiserver restarts there is no answer.
    found = kubectl("get", "auditsetup", "bench", "-o", "json", may_fail=True)
    if not found:
        return False
    found = json.loads(found)
    conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
    is_current = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
    if is_current and conditions.get("Stalled", {}).get("status") == "True":
        sys.exit(f"bench: {conditions['Stalled']}")
    return is_current and conditions.get("Ready", {}).get("status") == "True"


def rendered(disk, text):
    """What an AuditSetup makes of a node, for a person's edit: its files are put in place, and the new manifest is returned."""
    (disk / "root/setup.json").write_text(text)
    made = disk / "root/rendered"
    run("rm", "-rf", made)
    run(program, "render", "-f", disk / "root/setup.json", "--manifest", disk / MANIFEST, "--output-dir", made)
    (disk / AUDIT).mkdir(exist_ok=True)
    run("cp", "-r", f"{made / AUDIT}/.", disk / AUDIT)
    return (made / MANIFEST).read_bytes()


def place(disk, manifest):
    """What a person does: the file beside the directory, then mv."""
    beside = disk / "etc/kubernetes/edited.yaml"
    beside.write_bytes(manifest)
    os.rename(beside, disk / MANIFEST)


def size(path):
    return path.stat().st_size if path.exists() else 0


def events(path, offset=0):
    found = set()
    with open(path, "rb") as lines:
        lines.seek(offset)
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # The last line, half written.
            found.add((event["auditID"], event["stage"]))
    return found


def lost(logged, received):
    """Of the events that the log has, those that do not reach the webhook's file either."""
    end = time.monotonic() + 20
    while (gone := logged - events(received)) and time.monotonic() < end:
        time.sleep(1)
    return gone


class Clients:
    """What clients (client.py) in one place were answered: `answers[name]` has (asked at, answered at, status or why there is none)."""

    def __init__(self, command, address, port, pki, *names):
        self.answers = {name: [] for name in names}
        # The certificate that the clients have is one of kubeadm's, with few rights.
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "bench-clients"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "kube-apiserver-kubelet-client"}
            ],
        }
        kubectl("apply", "-f", "-", text_in=json.dumps(binding))
        script = (here / "client.py").read_text()
        self.process = subprocess.Popen(
            [testbed, *command, "python3", "-u", "-c", script, address, str(port), str(pki), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self.read, daemon=True).start()
        wait(
            30,
            f"the clients at {address} to be answered",
            lambda: all(any(status == "200" for _, _, status in answers) for answers in self.answers.values()),
        )

    def read(self):
        for line in self.process.stdout:
            name, asked, answered, status = line.split()
            self.answers[name].append((float(asked), float(answered), status))

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def keep(bench, figures):
    directory = root / "target/bench"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{bench}.json").write_text(json.dumps(figures, indent=1))
