"""Runs in a network of the testbed: asks an API server as clients do, and tells every answer.

  client.py ADDRESS PORT PKI NAME…

The clients are those of CLIENTS. A line an answer on standard output: `<client> <asked at> <answered at> <status, or why there is
none>`, in seconds of CLOCK_MONOTONIC. Ends with its standard input.
"""

import http.client
import itertools
import ssl
import sys
import threading
import time

HOST, PORT, PKI, NAMES = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]
CONFIG_MAP = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
# Requests a second, seconds until one is given up, whether the connection is kept, and what is asked for by turns.
CLIENTS = {
    # On a connection that is kept, a server that takes no new ones may still answer.
    "readyz": (20, 1, False, ["/readyz"]),
    "load": (
        50,
        2,
        True,
        [
            "/api/v1/namespaces/default/configmaps",
            CONFIG_MAP,
            "/api/v1/nodes",
            "/apis/apps/v1/deployments?limit=5",
            "/version",
        ],
    ),
    "new": (20, 5, False, [CONFIG_MAP]),
    "kept": (20, 5, True, [CONFIG_MAP]),
}


def tls(name):
    context = ssl.create_default_context(cafile=PKI + "/ca.crt")
    # The name of the load balancer is in the certificate, its address is not.
    context.check_hostname = False
    # Health is asked for by nobody in particular.
    if name != "readyz":
        context.load_cert_chain(PKI + "/apiserver-kubelet-client.crt", PKI + "/apiserver-kubelet-client.key")
    return context


def ask(connection, path):
    is_reused = connection.sock is not None
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except ConnectionError as error:
        connection.close()
        # Closed by the server between two requests: HTTP libraries open another (RFC 9112, section 9.3.1), http.client leaves it to us.
        return ask(connection, path) if is_reused else type(error).__name__
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__


def client(name):
    per_second, timeout, is_kept, paths = CLIENTS[name]
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=timeout, context=tls(name))
    due = time.monotonic()
    for path in itertools.cycle(paths):
        asked = time.monotonic()
        status = ask(connection, path)
        if not is_kept:
            connection.close()
        # In one piece: the clients share the output.
        sys.stdout.write(f"{name} {asked} {time.monotonic()} {status}\n")
        due = max(due + 1 / per_second, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


for name in NAMES:
    threading.Thread(target=client, args=(name,), daemon=True).start()
sys.stdin.read()
