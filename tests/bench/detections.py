"""What the fifteen detections of attacks look for, done on purpose on a real cluster, and whether its audit log has it."""

import base64
import json
import subprocess
import time

from cluster import kubectl, run, testbed, wait

LEVELS = ["Metadata", "Request", "RequestResponse"]
SERVER = "https://172.30.0.11:6443"
NAMESPACE = "detections"
# An image that every node of kubeadm has.
POD = {"containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10.2", "imagePullPolicy": "Never"}]}


def made(kind, name, version="v1", **fields):
    """Creates an object."""
    metadata = {"name": name, "namespace": NAMESPACE}
    kubectl(
        "create", "-f", "-", text_in=json.dumps({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})
    )


def curl(path, *arguments):
    run(testbed, "lan", "curl", "-sk", "-m", "10", "-o", "/dev/null", *arguments, SERVER + path)


def exec_in_a_pod():
    pod = kubectl(
        "-n", "audit-system", "get", "pods", "-l", "app.kubernetes.io/component=controller", "-o", "name"
    ).strip()
    if "audit-operator" not in kubectl(
        "-n", "audit-system", "exec", pod, "--", "/usr/local/bin/audit-operator", "--version"
    ):
        raise SystemExit("bench: nothing was executed in the controller's container")


def refused():
    curl("/api/v1/pods", "-H", "Authorization: Bearer nobody-knows-it")
    token = kubectl("-n", "default", "create", "token", "default").strip()
    curl("/api/v1/namespaces/kube-system/pods", "-H", f"Authorization: Bearer {token}")


def anonymous():
    kubectl("create", "clusterrolebinding", "detections-anonymous", "--clusterrole=view", "--user=system:anonymous")
    wait(
        30,
        "the binding to be in use",
        lambda: (
            run(
                testbed,
                "lan",
                "curl",
                "-sk",
                "-m",
                "5",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                SERVER + "/api/v1/namespaces",
            )
            == "200"
        ),
    )


def privileged():
    made(
        "Pod",
        "privileged",
        spec={"hostPID": True, "containers": [{**POD["containers"][0], "securityContext": {"privileged": True}}]},
    )
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"hostNetwork": True, **POD}}
    made(
        "Deployment",
        "privileged",
        "apps/v1",
        spec={"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template},
    )


def ephemeral():
    made("Pod", "plain", spec=POD)
    patch = {"spec": {"ephemeralContainers": [{**POD["containers"][0], "name": "more"}]}}
    kubectl("-n", NAMESPACE, "patch", "pod", "plain", "--subresource=ephemeralcontainers", "-p", json.dumps(patch))


def signing():
    request = subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x"],
        capture_output=True,
        check=True,
    ).stdout
    spec = {
        "request": base64.b64encode(request).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    made("CertificateSigningRequest", "detections", "certificates.k8s.io/v1", spec=spec)
    kubectl("certificate", "approve", "detections")


def traces():
    kubectl("-n", "kube-system", "annotate", "configmap", "coredns", "detections=1")
    kubectl("delete", "--raw", f"/api/v1/namespaces/{NAMESPACE}/events")
    kubectl("get", "--raw", "/api/v1/nodes/cp1/proxy/healthz", may_fail=True)


HOOK = {
    "webhooks": [
        {
            "name": "x.example.com",
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Ignore",
            "rules": [
                {
                    "apiGroups": ["example.com"],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["nothing"],
                }
            ],
        }
    ]
}

# Number, what it is, the least level, what is done, and what its events have: `user` is the end of a name, `code` that of the answer.
DETECTIONS = [
    (
        1,
        "a Secret is read",
        "Metadata",
        lambda: (made("Secret", "db"), kubectl("-n", NAMESPACE, "get", "secret", "db")),
        [{"verb": "get", "resource": "secrets", "name": "db"}],
    ),
    (
        2,
        "all Secrets are listed",
        "Metadata",
        lambda: kubectl("get", "secrets", "-A"),
        [{"verb": "list", "resource": "secrets", "namespace": ""}],
    ),
    (
        3,
        "401 and 403",
        "Metadata",
        refused,
        [{"code": 401}, {"code": 403, "user": ":default:default", "resource": "pods"}],
    ),
    (4, "exec", "Metadata", exec_in_a_pod, [{"resource": "pods", "subresource": "exec", "stage": "ResponseStarted"}]),
    # Without an upgrade it is answered with an error, and is a request all the same.
    (
        5,
        "port-forward",
        "Metadata",
        lambda: kubectl(
            "create",
            "--raw",
            f"/api/v1/namespaces/{NAMESPACE}/pods/plain/portforward",
            "-f",
            "-",
            text_in="{}",
            may_fail=True,
        ),
        [{"resource": "pods", "subresource": "portforward"}],
    ),
    (6, "an ephemeral container", "Request", ephemeral, [{"resource": "pods", "subresource": "ephemeralcontainers"}]),
    (
        7,
        "an anonymous request is allowed",
        "Metadata",
        anonymous,
        [{"user": "system:anonymous", "resource": "namespaces", "code": 200}],
    ),
    (
        8,
        "a binding to cluster-admin",
        "Request",
        lambda: kubectl(
            "create", "clusterrolebinding", "detections-admin", "--clusterrole=cluster-admin", "--user=eve"
        ),
        [{"verb": "create", "resource": "clusterrolebindings", "name": "detections-admin"}],
    ),
    (
        9,
        "a role with everything",
        "Request",
        lambda: kubectl("create", "clusterrole", "detections", "--verb=*", "--resource=*"),
        [{"verb": "create", "resource": "clusterroles", "name": "detections"}],
    ),
    (
        10,
        "a privileged Pod or template",
        "Request",
        privileged,
        [
            {"verb": "create", "resource": "pods", "name": "privileged"},
            {"verb": "create", "resource": "deployments", "name": "privileged"},
        ],
    ),
    (
        11,
        "a sensitive hostPath",
        "Request",
        lambda: made("Pod", "host", spec={**POD, "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}),
        [{"verb": "create", "resource": "pods", "name": "host"}],
    ),
    (
        12,
        "a token or an identity of kube-system is made",
        "Metadata",
        lambda: (
            kubectl("-n", "kube-system", "create", "serviceaccount", "detections"),
            kubectl("-n", "kube-system", "create", "token", "detections"),
        ),
        [
            {"verb": "create", "resource": "serviceaccounts", "subresource": "", "name": "detections"},
            {"resource": "serviceaccounts", "subresource": "token", "name": "detections"},
        ],
    ),
    (
        13,
        "admission changes",
        "Metadata",
        lambda: made("MutatingWebhookConfiguration", "detections", "admissionregistration.k8s.io/v1", **HOOK),
        [{"verb": "create", "resource": "mutatingwebhookconfigurations"}],
    ),
    (
        14,
        "impersonation",
        "Metadata",
        lambda: kubectl("get", "nodes", "--as=eve", "--as-group=system:masters"),
        [{"resource": "nodes", "impersonated": "eve"}],
    ),
    (
        15,
        "the kubelet by proxy, certificates, settings of kube-system, traces removed",
        "Metadata",
        lambda: (signing(), traces()),
        [
            {"resource": "nodes", "subresource": "proxy"},
            {"resource": "certificatesigningrequests", "subresource": "approval"},
            {"verb": "patch", "resource": "configmaps", "name": "coredns"},
            {"verb": "deletecollection", "resource": "events"},
        ],
    ),
]


def facts(event):
    """What is asked of an event."""
    reference = event.get("objectRef", {})
    return {
        "verb": event["verb"],
        "stage": event["stage"],
        "user": event["user"].get("username", ""),
        "code": event.get("responseStatus", {}).get("code"),
        "impersonated": event.get("impersonatedUser", {}).get("username"),
        **{key: reference.get(key, "") for key in ("resource", "subresource", "namespace", "name")},
    }


def has(event, wanted):
    found = facts(event)
    return all(found[key].endswith(value) if key == "user" else found[key] == value for key, value in wanted.items())


def missing(log):
    """Does it all, and returns what the log does not have at the level that is needed."""
    begin = log.stat().st_size
    kubectl("create", "namespace", NAMESPACE)
    # Pods need it.
    wait(
        60,
        "the ServiceAccount of the namespace",
        lambda: kubectl("-n", NAMESPACE, "get", "serviceaccount", "default", may_fail=True),
    )
    for _, _, _, act, _ in DETECTIONS:
        act()

    def logged():
        with open(log, "rb") as lines:
            lines.seek(begin)
            return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def lacking():
        events = logged()
        return [
            (number, what, wanted)
            for number, what, least, _, all_wanted in DETECTIONS
            for wanted in all_wanted
            if not any(has(event, wanted) and LEVELS.index(event["level"]) >= LEVELS.index(least) for event in events)
        ]

    end = time.monotonic() + 10
    while (gone := lacking()) and time.monotonic() < end:
        time.sleep(0.5)
    return gone


def undone():
    """Takes back what was made."""
    for objects in (
        ["clusterrolebinding", "detections-anonymous", "detections-admin"],
        ["clusterrole", "detections"],
        ["mutatingwebhookconfiguration", "detections"],
        ["csr", "detections"],
        ["-n", "kube-system", "serviceaccount", "detections"],
        ["namespace", NAMESPACE, "--wait=false"],
    ):
        kubectl("delete", *objects)
