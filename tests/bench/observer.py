"""Runs in a node: asks its API server for /readyz 20 times a second, and makes 50 requests a second on top.

A line an answer on standard output: `readyz <seconds of CLOCK_MONOTONIC> <status, 0 for none>`. Ends with its standard input.
"""
import http.client, ssl, sys, threading, time

HOST, PORT, PKI = sys.argv[1], 6443, "/etc/kubernetes/pki/"
REQUESTS_PER_SECOND = 50
PATHS = ["/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
         "/api/v1/nodes", "/apis/apps/v1/deployments?limit=5", "/version"]


def tls(with_client):
    context = ssl.create_default_context(cafile=PKI + "ca.crt")
    if with_client:
        context.load_cert_chain(PKI + "apiserver-kubelet-client.crt", PKI + "apiserver-kubelet-client.key")
    return context


def ask(connection, path):
    """Status of the answer; 0 where there is none."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0


def every(period, act):
    due = time.monotonic()
    while True:
        act()
        due = max(due + period, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


def readyz():
    # A connection of its own each time: one that is kept may still be answered by a server that takes no new ones.
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=1, context=plain)
    status = ask(connection, "/readyz")
    connection.close()
    print("readyz", time.monotonic(), status, flush=True)


plain = tls(False)
client = http.client.HTTPSConnection(HOST, PORT, timeout=2, context=tls(True))
count = 0


def request():
    global count
    count += 1
    ask(client, PATHS[count % len(PATHS)])


for period, act in ((0.05, readyz), (1 / REQUESTS_PER_SECOND, request)):
    threading.Thread(target=every, args=(period, act), daemon=True).start()
sys.stdin.read()
