"""Runs in a network of the testbed: asks an API server as clients do, and counts what fails.

  client.py ADDRESS PORT PKI

Two clients, 20 requests a second each: `new` with a connection of its own for each request, and `kept` with one that is kept.
A line an answer on standard output: `<client> <seconds of CLOCK_MONOTONIC> <status, 0 for none>`. Ends with its standard input.
"""
import http.client, ssl, sys, threading, time

HOST, PORT, PKI = sys.argv[1], int(sys.argv[2]), sys.argv[3]
PATH = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
PERIOD = 1 / 20

context = ssl.create_default_context(cafile=PKI + "/ca.crt")
# The name of the load balancer is in the certificate, its address is not.
context.check_hostname = False
context.load_cert_chain(PKI + "/apiserver-kubelet-client.crt", PKI + "/apiserver-kubelet-client.key")


def ask(connection):
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0


def client(name, keeps):
    connection = http.client.HTTPSConnection(HOST, PORT, timeout=5, context=context)
    due = time.monotonic()
    while True:
        begin = time.monotonic()
        status = ask(connection)
        if not keeps:
            connection.close()
        print(name, begin, status, flush=True)
        due = max(due + PERIOD, time.monotonic() - 1)
        time.sleep(max(0, due - time.monotonic()))


for name, keeps in (("new", False), ("kept", True)):
    threading.Thread(target=client, args=(name, keeps), daemon=True).start()
sys.stdin.read()
