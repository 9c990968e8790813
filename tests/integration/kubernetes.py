"""A Kubernetes for tests: an API server that the real kubectl talks to, and what it needs behind.

No cluster can be had on a machine that reaches package registries alone. This server speaks the
few requests that kubectl makes for torchship (discovery, create, get, log, exec, delete), checks
all that is created against Kubernetes' published schemas, and runs pods as processes. What it
does to jobs is what "Jobs" in Kubernetes' documentation says: an Indexed Job's pods, its end at
the first failure, its deadline.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
from tests.integration import websocket
from tests.integration.kubelet import INDEX, Container, now

VERSION = "1.37"
NAMESPACE = "research"

Object = dict[str, Any]

_GROUPS = {
    "api/v1": {
        "namespaces": "Namespace",
        "pods": "Pod",
        "services": "Service",
        "events": "Event",
    },
    "apis/batch/v1": {"jobs": "Job"},
    "apis/trainer.kubeflow.org/v1alpha1": {"trainjobs": "TrainJob"},
}
_PATH = re.compile(
    r"/(?P<group>api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<kind>\w+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>log|exec))?"
)


@dataclass(kw_only=True)
class Faults:
    """What goes wrong in a cluster: set by tests before a job is created."""

    forbidden: set[str] = field(default_factory=set)  # such as "create jobs"
    waiting: tuple[str, str] | None = None  # reason and message of a container's state
    unscheduled: str | None = None
    events: list[str] = field(default_factory=list)  # then a job has no pods
    out_of_memory: bool = False  # whoever is killed was killed for that
    outage: int = 0  # requests that are not answered, once a pod runs
    truncate: int = 0  # connections of `exec` that break in the middle


class Cluster:
    """The objects of one cluster, its job controller and its only node."""

    def __init__(self, folder: Path, *, trainer: bool) -> None:
        self.folder = folder / "pods"
        self.tools = folder / "bin"
        self.kubeconfig = folder / "kubeconfig"
        self.container: type[Container] = Container
        self.faults = Faults()
        self.created: list[Object] = []
        self.path = os.environ["PATH"]
        self.groups = {k: v for k, v in _GROUPS.items() if trainer or "kubeflow" not in k}
        self.lock = threading.RLock()
        self._objects: dict[tuple[str, str], Object] = {}
        self.containers: dict[str, Container] = {}
        self.requests: list[str] = []

    # -- objects

    def create(self, kind: str, made: Object) -> Object:
        """Keep an object, and let the controllers know."""
        with self.lock:
            made["metadata"].setdefault("namespace", NAMESPACE)
            made["metadata"]["uid"] = f"00000000-0000-0000-0000-{len(self.created):012d}"
            made["metadata"]["creationTimestamp"] = now()
            self.created.append(json.loads(json.dumps(made)))
            self._objects[kind, made["metadata"]["name"]] = made
        if kind == "jobs":
            threading.Thread(target=self._control, args=(made, made["spec"]), daemon=True).start()
        if kind == "trainjobs":
            threading.Thread(target=self._train, args=(made,), daemon=True).start()
        return made

    def find(self, kind: str, name: str) -> Object | None:
        """Return an object."""
        with self.lock:
            return self._objects.get((kind, name))

    def all(self, kind: str, labels: dict[str, str] | None = None) -> list[Object]:
        """Return the objects of a kind that have these labels."""
        wanted = (labels or {}).items()
        with self.lock:
            return [
                json.loads(json.dumps(one))
                for (of, _), one in self._objects.items()
                if of == kind and wanted <= one["metadata"].get("labels", {}).items()
            ]

    def delete(self, kind: str, name: str) -> bool:
        """Remove an object and all that belongs to it."""
        with self.lock:
            found = self._objects.get((kind, name))
            if found is None:
                return False
            container = self.containers.get(name) if kind == "pods" else None
            if container is None or container.ended.is_set():
                del self._objects[kind, name]
            owned = [
                key
                for key, one in self._objects.items()
                if any(o["name"] == name for o in one["metadata"].get("ownerReferences", []))
            ]
        for of, each in owned:
            self.delete(of, each)
        if container is not None and not container.ended.is_set():
            # It is there until its container has ended
            found["metadata"].setdefault("deletionTimestamp", now())
            container.stop(found["spec"].get("terminationGracePeriodSeconds", 30))
        return True

    def left(self, seconds: float = 20) -> list[str]:
        """Return what is still there after some seconds, in which pods that are ended may end."""
        until = time.monotonic() + seconds
        while self._objects and time.monotonic() < until:
            time.sleep(0.05)
        with self.lock:
            return [f"{kind}/{name}" for kind, name in self._objects]

    def stop(self) -> None:
        """End every process."""
        for container in list(self.containers.values()):
            container.kill()

    # -- controllers

    def _train(self, made: Object) -> None:
        """Do as Kubeflow Trainer does: its runtime's job, with the trainer's and the patches."""
        spec, name = made["spec"], made["metadata"]["name"]
        trainer, patch = spec["trainer"], spec["runtimePatches"][0]["trainingRuntimeSpec"]
        (job,) = patch["template"]["spec"]["replicatedJobs"]
        template = job["template"]["spec"]["template"]
        inside = template["spec"]["containers"][0]
        ranks = [
            {"name": "PET_NNODES", "value": str(trainer["numNodes"])},
            {"name": "PET_NPROC_PER_NODE", "value": str(trainer["numProcPerNode"])},
            {
                "name": "PET_NODE_RANK",
                "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
            },
            {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
            {"name": "PET_MASTER_PORT", "value": "29400"},
        ]
        assert not {each["name"] for each in trainer.get("env", [])} & {e["name"] for e in ranks}
        container = {
            **inside,
            "image": trainer["image"],
            "command": trainer["command"],
            "env": [*trainer.get("env", []), *ranks],
        }
        pod = {**template["spec"], "containers": [container], "restartPolicy": "Never"}
        made_of = {
            "completions": trainer["numNodes"],
            "template": {"metadata": template["metadata"], "spec": pod},
        }
        if "activeDeadlineSeconds" in spec:
            made_of["activeDeadlineSeconds"] = spec["activeDeadlineSeconds"]
        self._control(made, made_of, prefix=f"{name}-node-0")

    def _control(self, job: Object, spec: Object, prefix: str | None = None) -> None:
        """Do as the job controller does, until the job has ended or is deleted."""
        name = job["metadata"]["name"]
        kind = "trainjobs" if prefix else "jobs"
        began = time.monotonic()
        if self.faults.events:
            for number, message in enumerate(self.faults.events):
                self.create("events", _event(f"{name}.{number}", name, message))
            return
        pods = [
            self._pod(job, spec, index, f"{prefix or name}-{index}-{index:05x}")
            for index in range(spec["completions"])
        ]
        deadline = spec.get("activeDeadlineSeconds")
        while self.find(kind, name) is not None:
            phases = [pod["status"]["phase"] for pod in pods]
            failed = None
            if "Failed" in phases:
                failed = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
            elif deadline is not None and time.monotonic() - began > deadline:
                failed = ("DeadlineExceeded", "Job was active longer than specified deadline")
            if failed is not None:
                for pod in pods:
                    if pod["status"]["phase"] not in ("Failed", "Succeeded"):
                        self.delete("pods", pod["metadata"]["name"])
                _condition(job, "Failed", *failed)
                return
            if all(phase == "Succeeded" for phase in phases):
                _condition(job, "Complete", "CompletionsReached", "")
                return
            time.sleep(0.05)

    def _pod(self, job: Object, spec: Object, index: int, name: str) -> Object:
        template = json.loads(json.dumps(spec["template"]))
        container = template["spec"]["containers"][0]["name"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": name,
                "annotations": {INDEX: str(index)},
                "ownerReferences": [
                    {
                        "apiVersion": job["apiVersion"],
                        "kind": job["kind"],
                        "name": job["metadata"]["name"],
                        "uid": job["metadata"]["uid"],
                    }
                ],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending", "conditions": []},
        }
        kubernetes_validate.validate(pod, VERSION, strict=True)
        self.create("pods", pod)
        faults = self.faults
        if faults.unscheduled is not None:
            pod["status"]["conditions"] = [
                _true("PodScheduled", "Unschedulable", faults.unscheduled) | {"status": "False"}
            ]
        elif faults.waiting is not None:
            reason, message = faults.waiting
            _state(pod, container, {"waiting": {"reason": reason, "message": message}})
        else:
            threading.Thread(target=self._run, args=(pod, container), daemon=True).start()
        return pod

    def _run(self, pod: Object, container: str) -> None:
        """Do as the kubelet does: run the container to its end, and say how it fares."""
        name, began = pod["metadata"]["name"], now()
        running = self.container(pod, self.folder / name, path=self.path)
        self.containers[name] = running
        _state(pod, container, {"running": {"startedAt": began}})
        pod["status"]["phase"] = "Running"
        status = running.wait()
        reason = "Completed" if status == 0 else "Error"
        if status == 137 and self.faults.out_of_memory:
            reason = "OOMKilled"
        ended = {"exitCode": status, "reason": reason, "startedAt": began, "finishedAt": now()}
        _state(pod, container, {"terminated": ended})
        pod["status"]["phase"] = "Failed" if status else "Succeeded"
        kubernetes_validate.validate(json.loads(json.dumps(pod)), VERSION, strict=True)
        if "deletionTimestamp" in pod["metadata"]:
            with self.lock:
                self._objects.pop(("pods", name), None)


def _condition(job: Object, kind: str, reason: str, message: str) -> None:
    job["status"] = {"conditions": [_true(kind, reason, message)]}


def _true(kind: str, reason: str, message: str) -> Object:
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }


def _state(pod: Object, container: str, state: Object) -> None:
    pod["status"]["containerStatuses"] = [
        {
            "name": container,
            "image": "image",
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
    ]


def _event(name: str, about: str, message: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": message,
        "involvedObject": {"kind": "Job", "name": about},
    }


class _Handler(BaseHTTPRequestHandler):
    """The requests of kubectl."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer what is asked for."""
        address = urlsplit(self.path)
        self.cluster.requests.append(f"{self.command} {self.path}")
        if address.path == "/openapi/v2":
            # The protocol buffer of a document that describes nothing: what an old kubectl,
            # which checks fields itself, takes for "unknown, leave it to the server"
            self._send(b"", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
            return
        found = self._discovery(address.path)
        if found is not None:
            self._json(found)
            return
        self._resource(address.path, parse_qs(address.query))

    def do_POST(self) -> None:
        """Create what is sent, or start a program."""
        self.do_GET()

    def do_DELETE(self) -> None:
        """Delete what is named."""
        self.do_GET()

    # -- discovery

    def _discovery(self, path: str) -> Object | None:
        groups = self.cluster.groups
        if path == "/version":
            major, minor = VERSION.split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{VERSION}.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(groups)}
        if path == "/openapi/v3":
            served = {key: {"serverRelativeURL": f"/openapi/v3/{key}"} for key in groups}
            return {"paths": served}
        if path.startswith("/openapi/v3/"):
            return _openapi(path.removeprefix("/openapi/v3/"), groups)
        if path.strip("/") in groups:
            return _resources(path.strip("/"), groups)
        return None

    # -- resources

    def _resource(self, path: str, query: dict[str, list[str]]) -> None:
        match = _PATH.fullmatch(path)
        if match is None or match["kind"] not in self.cluster.groups.get(match["group"], {}):
            self._refuse(404, "NotFound", "the server could not find the requested resource")
            return
        kind, name, sub = match["kind"], match["name"], match["sub"]
        if self.cluster.faults.outage and self.cluster.all("pods"):
            self.cluster.faults.outage -= 1
            self._refuse(503, "ServiceUnavailable", "the server is currently unable to answer")
            return
        if kind == "namespaces" and name == NAMESPACE:
            self._json({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
            return
        if match["namespace"] not in (None, NAMESPACE):
            missing = match["namespace"]
            self._refuse(404, "NotFound", f'namespaces "{missing}" not found')
            return
        verb = {"POST": "create", "DELETE": "delete"}.get(self.command, "get" if name else "list")
        what = f"{kind}/{sub}" if sub else kind
        if sub == "exec":
            verb = "create"
        if f"{verb} {what}" in self.cluster.faults.forbidden:
            self._forbid(verb, what, match["group"])
        elif sub == "log":
            self._log(name)
        elif sub == "exec":
            self._exec(name, query["command"])
        elif self.command == "POST":
            self._create(kind)
        elif self.command == "DELETE":
            self._delete(kind, name)
        elif name:
            self._one(kind, name)
        else:
            self._list(kind, match["group"], query)

    def _create(self, kind: str) -> None:
        made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if kind in ("jobs", "services"):
            try:
                kubernetes_validate.validate(made, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                self._refuse(400, "BadRequest", f"strict decoding error: {error.message}")
                return
        self._json(self.cluster.create(kind, made), status=201)

    def _delete(self, kind: str, name: str) -> None:
        if self.headers.get("Content-Length"):
            self.rfile.read(int(self.headers["Content-Length"]))
        if self.cluster.delete(kind, name):
            self._json({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        else:
            self._refuse(404, "NotFound", f'{kind} "{name}" not found')

    def _one(self, kind: str, name: str) -> None:
        found = self.cluster.find(kind, name)
        if found is None:
            self._refuse(404, "NotFound", f'{kind} "{name}" not found')
        else:
            self._json(json.loads(json.dumps(found)))

    def _list(self, kind: str, group: str, query: dict[str, list[str]]) -> None:
        selector = query.get("labelSelector", [""])[0]
        labels = dict(pair.split("=") for pair in selector.split(",") if pair)
        items = self.cluster.all(kind, labels)
        fields = query.get("fieldSelector", [""])[0]
        if match := re.search(r"involvedObject.name=([^,]*)", fields):
            items = [one for one in items if one["involvedObject"]["name"] == match[1]]
        version = group.removeprefix("apis/").removeprefix("api/")
        name = self.cluster.groups[group][kind]
        self._json({"kind": f"{name}List", "apiVersion": version, "metadata": {}, "items": items})

    def _log(self, name: str) -> None:
        """Send what a container prints, until its end."""
        container = self.cluster.containers.get(name)
        if container is None:
            self._refuse(400, "BadRequest", f'container "main" in pod "{name}" is waiting to start')
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stamped = "timestamps=true" in self.path
        lines, inside = 0, False
        with container.log.open("rb") as log:
            while True:
                over = container.ended.is_set()
                piece = log.readline(1 << 16)
                if piece and stamped and not inside:
                    # One line each nanosecond: times that are the same whoever asks again
                    stamp = f"2026-01-01T00:00:00.{lines:09d}Z "
                    lines, piece = lines + 1, stamp.encode() + piece
                inside = not piece.endswith(b"\n") if piece else inside
                if piece:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    self.wfile.flush()
                elif over or "follow=true" not in self.path:
                    break
                else:
                    time.sleep(0.02)
        self.wfile.write(b"0\r\n\r\n")

    def _exec(self, name: str, command: list[str]) -> None:
        """Run a program in a container, its streams on the channels of a WebSocket."""
        container = self.cluster.containers.get(name)
        if container is None or container.ended.is_set():
            self._refuse(500, "InternalError", f"container of {name} is not running")
            return
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header(
            "Sec-WebSocket-Accept", websocket.accept(self.headers["Sec-WebSocket-Key"])
        )
        self.send_header("Sec-WebSocket-Protocol", websocket.PROTOCOL)
        self.end_headers()
        self.close_connection = True
        channels = websocket.Channels(self.rfile, self.wfile)
        process = container.run(command)
        assert process.stdin is not None
        threading.Thread(target=_feed, args=(channels, process), daemon=True).start()
        most = None
        if self.cluster.faults.truncate:
            self.cluster.faults.truncate -= 1
            most = 700
        while piece := process.stdout.read1(1 << 16 if most is None else most):
            channels.send(websocket.STDOUT, piece)
            if most is not None:
                process.kill()
                break
        errors = process.stderr.read()
        if errors:
            channels.send(websocket.STDERR, errors)
        status = 0 if most is not None else process.wait()  # it is lost, and nobody says so
        channels.send(websocket.ERROR, json.dumps(_exit(status)).encode())
        channels.close()

    # -- answers

    def _forbid(self, verb: str, what: str, group: str) -> None:
        of = group.removeprefix("apis/").rpartition("/")[0] if group != "api/v1" else ""
        kind = f"{what}.{of}" if of else what
        self._refuse(
            403,
            "Forbidden",
            f'{kind} is forbidden: User "ada" cannot {verb} resource "{what}" in API group "{of}" '
            f'in the namespace "{NAMESPACE}"',
        )

    def _refuse(self, code: int, reason: str, message: str) -> None:
        if self.command == "POST" and self.headers.get("Content-Length"):
            self.rfile.read(int(self.headers["Content-Length"]))
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
        self._json({**status, "message": message, "reason": reason, "code": code}, status=code)

    def _json(self, document: Object, *, status: int = 200) -> None:
        self._send(json.dumps(document).encode(), "application/json", status=status)

    def _send(self, data: bytes, kind: str, *, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _feed(channels: websocket.Channels, process: Any) -> None:
    while True:
        try:
            message = channels.receive()
            if message is None:
                return
            channel, data = message
            if channel == websocket.STDIN:
                process.stdin.write(data)
                process.stdin.flush()
            elif channel == websocket.CLOSE:
                process.stdin.close()
        except (ConnectionError, ValueError):
            return


def _exit(status: int) -> Object:
    if status == 0:
        return {"metadata": {}, "status": "Success"}
    cause = {"reason": "ExitCode", "message": str(status)}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {status}",
        "details": {"causes": [cause]},
    }


def _groups(groups: dict[str, dict[str, str]]) -> list[Object]:
    found = []
    for key in groups:
        if key.startswith("apis/"):
            _, group, version = key.split("/")
            one = {"groupVersion": f"{group}/{version}", "version": version}
            found.append({"name": group, "versions": [one], "preferredVersion": one})
    return found


def _resources(key: str, groups: dict[str, dict[str, str]]) -> Object:
    version = key.removeprefix("apis/").removeprefix("api/")
    resources = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": kind != "Namespace",
            "kind": kind,
            "verbs": ["create", "delete", "get", "list", "watch"],
        }
        for plural, kind in groups[key].items()
    ]
    if key == "api/v1":
        for sub in ("log", "exec"):
            resources.append(
                {"name": f"pods/{sub}", "namespaced": True, "kind": "Pod", "verbs": ["get"]}
            )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": resources,
    }


def _openapi(key: str, groups: dict[str, dict[str, str]]) -> Object:
    """Say no more than kubectl asks: that the server itself checks what is created."""
    group, _, version = key.removeprefix("apis/").removeprefix("api/").rpartition("/")
    paths = {}
    for plural, kind in groups[key].items():
        paths[f"/{key}/namespaces/{{namespace}}/{plural}/{{name}}"] = {
            "patch": {
                "responses": {},
                "parameters": [{"name": "fieldValidation", "in": "query"}],
                "x-kubernetes-group-version-kind": {
                    "group": group,
                    "version": version,
                    "kind": kind,
                },
            }
        }
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": VERSION}, "paths": paths}


@contextmanager
def running(folder: Path, *, trainer: bool = True) -> Iterator[Cluster]:
    """Run a cluster on a free loopback port; its kubeconfig is ``folder/kubeconfig``."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, trainer=trainer)
    cluster.tools.mkdir()
    (cluster.tools / "python3").symlink_to(sys.executable)
    cluster.path = f"{cluster.tools}:{os.environ['PATH']}"
    handler = type("Handler", (_Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    cluster.kubeconfig.write_text(kubeconfig(address))
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        cluster.stop()


def kubeconfig(server: str) -> str:
    """Return kubectl's configuration for a server; YAML takes JSON."""
    context = {"cluster": "tests", "user": "ada", "namespace": NAMESPACE}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server}}],
        "users": [{"name": "ada", "user": {}}],
        "contexts": [{"name": "tests", "context": context}],
        "current-context": "tests",
    }
    return json.dumps(document)


def speaks_websockets() -> bool:
    """Tell whether kubectl is there and young enough (1.31) for `exec` as this server has it."""
    if shutil.which("kubectl") is None:
        return False
    import subprocess

    done = subprocess.run(
        ["kubectl", "version", "--client", "--output=json"], capture_output=True, check=False
    )
    try:
        version = json.loads(done.stdout)["clientVersion"]
        return (int(version["major"]), int(re.match(r"\d+", version["minor"])[0])) >= (1, 31)
    except (ValueError, KeyError):
        return False
