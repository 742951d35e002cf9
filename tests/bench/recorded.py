"""The events of a cluster, recorded once by a policy that keeps all, and what other policies would leave of them."""

import json
import pathlib
import sys
import tempfile
import time

from cluster import program, run, setup

METHODS = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "proxy": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "deletecollection": "DELETE",
    "": "OPTIONS",
}


def recorded(log_file, minutes):
    """The events of the next minutes, as kube-apiserver wrote them."""
    begin = log_file.stat().st_size
    time.sleep(minutes * 60)
    with open(log_file, "rb") as log:
        log.seek(begin)
        # The first line may have been half written at the beginning, the last at the end.
        lines = log.read().split(b"\n")[1:-1]
    return [json.loads(line) for line in lines]


def attributes(events):
    """What kube-apiserver compared with the policy, for each event."""

    def method(event):
        # Of what is no resource the verb is the method.
        return METHODS[event["verb"]] if "objectRef" in event else event["verb"].upper()

    questions = "".join(json.dumps({"method": method(e), "url": e["requestURI"]}) + "\n" for e in events)
    answers = [
        json.loads(line)
        for line in run(program, "policy", "request", "--output", "json", text_in=questions).splitlines()
    ]
    for event, found in zip(events, answers, strict=True):
        wrote = (
            event["verb"],
            event.get("objectRef", {}).get("resource", ""),
            event.get("objectRef", {}).get("subresource", ""),
        )
        if (found.get("verb"), found.get("resource"), found.get("subresource")) != wrote:
            sys.exit(f"bench: {event['requestURI']} is {found}, and kube-apiserver has {wrote}")
        user = event["user"]
        found["user"] = {"name": user.get("username", ""), "groups": user.get("groups", [])} if user else None
        found["resourceRequest"] = found.pop("isResourceRequest")
    return answers


def kept(policy, requests, events):
    """The events that a policy leaves, by their index."""
    with tempfile.TemporaryDirectory() as directory:
        there = pathlib.Path(directory)
        (there / "policy.yaml").write_text(policy)
        (there / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
        out = run(
            program,
            "policy",
            "eval",
            "--policy",
            there / "policy.yaml",
            "--attributes",
            there / "requests.jsonl",
            "--output",
            "json",
        )
    decisions = [json.loads(line) for line in out.splitlines()]
    return [
        i
        for i, (event, decision) in enumerate(zip(events, decisions, strict=True))
        if decision["level"] != "None" and event["stage"] not in decision["omitStages"]
    ]


def rendered(preset):
    """The policy of a preset, with the operator's canary rule."""
    spec = {"preset": preset["name"], "acknowledge": preset["acknowledge"]}
    files = json.loads(run(program, "render", "-f", "-", "--output", "json", text_in=setup(spec)))["files"]
    return next(text for name, text in files.items() if name.endswith("/policy.yaml"))
