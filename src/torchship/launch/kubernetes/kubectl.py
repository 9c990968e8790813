"""The user's own ``kubectl``: asked, its answers read, its complaints told in one sentence.

It knows where the cluster is and who the user is, whatever way the site has for that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from torchship.errors import EngineError
from torchship.launch.kubernetes.settings import Settings

PROGRAM = "kubectl"

_PATIENCE = 120
"""Seconds that one request may take; signing in at a company's service takes some."""

_NOISE = re.compile(r"[EWI][0-9]{4} |Warning: ")  # of its own log; see klog's header
_PREFIXES = re.compile(
    r"(?:error: |Error from server(?: \([A-Za-z]+\))?: |error when creating \"STDIN\": "
    r"|error validating \"STDIN\": |Error in configuration: )+"
)

_UNREACHED = re.compile(
    r"connection to the server (\S+) was refused"
    r"|https?://([^/\s\"\\]+)\S* (?:dial tcp|net/http|context deadline|EOF|read tcp)"
    r"|dial tcp: lookup (\S+) "
)
_FINAL = re.compile(
    r"\((?:Forbidden|NotFound|BadRequest|Invalid|Unauthorized)\)|is forbidden|must be logged in"
    r"|no matches for kind|context was not found|context \"[^\"]*\" does not exist"
)

_UNSENT = re.compile(r"connection to the server \S+ was refused|dial tcp|TLS handshake timeout")

Process = subprocess.Popen[bytes]


class Refused(EngineError):
    """The request failed: what kubectl complained of is in ``said``, what it did before in ``out``.

    ``final`` tells that the cluster has answered, and would answer the same again; ``unsent`` that
    there was no connection to ask it by. With neither, it may have done what it was asked for.
    """

    said = ""
    out = ""
    final = False
    unsent = False


class Kubectl:
    """``kubectl`` for one context and namespace."""

    def __init__(self, settings: Settings) -> None:
        self._where: list[str] = []
        if settings.context is not None:
            self._where.append(f"--context={settings.context}")
        if settings.namespace is not None:
            self._where.append(f"--namespace={settings.namespace}")

    @property
    def installed(self) -> bool:
        """Tell whether there is such a program."""
        return shutil.which(PROGRAM) is not None

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return a command line of the program; what follows ``--`` stays there."""
        return (PROGRAM, *self._where, *arguments)

    def tell(self, *arguments: str, stdin: str | None = None) -> str:
        """Run it and return what it printed; raise `EngineError` where it fails."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                input=None if stdin is None else stdin.encode(),
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                timeout=_PATIENCE,
                check=False,
                start_new_session=True,  # Ctrl-C is for us: we end the job with another kubectl
            )
        except FileNotFoundError:
            raise not_installed() from None
        except subprocess.TimeoutExpired:
            raise EngineError(
                f"`{PROGRAM} {arguments[0]}` gave no answer in {_PATIENCE} s",
                hint=f"look whether `{PROGRAM} cluster-info` answers",
            ) from None
        if done.returncode != 0:
            error = refusal(done.stderr.decode(errors="replace"), arguments)
            error.out = done.stdout.decode(errors="replace")
            raise error
        return done.stdout.decode(errors="replace")

    def get(self, *arguments: str) -> dict[str, Any]:
        """Return what ``get`` prints as JSON, a table; raise `EngineError`."""
        raw = self.tell("get", "--output=json", *arguments)
        try:
            found = msgspec.json.decode(raw or "{}")
        except (msgspec.MsgspecError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise EngineError(f"`{PROGRAM} get` answered with something that is no object")
        return found

    def start(self, *arguments: str) -> Process:
        """Start it, with pipes on its output; raise `EngineError` where there is none."""
        return self._started(arguments, subprocess.DEVNULL)

    def converse(self, *arguments: str) -> Process:
        """Start it as `start` does, with a pipe to its standard input as well."""
        return self._started(arguments, subprocess.PIPE)

    def _started(self, arguments: Sequence[str], stdin: int) -> Process:
        try:
            return subprocess.Popen(
                self.command(*arguments),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise not_installed() from None


def end(process: Process, patience: float) -> None:
    """Give a kubectl some seconds to end by itself, and say what it complains of; then end it."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    process.kill()


def not_installed() -> EngineError:
    """Return what is told where there is no kubectl."""
    return EngineError(
        "kubectl is not installed",
        hint="install it as your cluster's documentation says, and see that `kubectl get pods` "
        "works",
    )


def last_words(errors: str) -> str:
    """Return kubectl's own complaint, without its log and without what each layer puts before."""
    lines = [line.strip() for line in errors.splitlines()]
    told = [line for line in lines if line and not _NOISE.match(line)]
    first = next((line for line in told if _PREFIXES.match(line)), told[-1] if told else "")
    return _PREFIXES.sub("", first, count=1).removesuffix(".")


def refusal(errors: str, arguments: Sequence[str]) -> Refused:
    """Return what is told of a failed kubectl: one clear sentence, and what to do next."""
    said = last_words(errors)
    message, hint = _explained(said, errors)
    error = Refused(message or f"kubectl {arguments[0]}: {said or 'it did not say why'}", hint=hint)
    error.said = said
    error.final = _FINAL.search(errors) is not None
    error.unsent = _UNSENT.search(errors) is not None
    return error


def _explained(said: str, errors: str) -> tuple[str, str | None]:
    contexts = "`kubectl config get-contexts` lists the clusters that kubectl knows"
    if match := _UNREACHED.search(errors):
        server = match[1] or match[2] or match[3]
        if server == "localhost:8080" and not _configured():
            return "kubectl knows no cluster", f"{contexts}; choose one with --context"
        return f"no Kubernetes cluster answers at {server}", f"{contexts}; choose with --context"
    if "context was not found" in errors or re.search(r"context \"[^\"]*\" does not exist", errors):
        return said or "kubectl knows no such context", contexts
    if "exceeded quota" in said:
        return f"the namespace's quota does not allow the job: {said}", "ask for less"
    if re.search(r"namespaces \"[^\"]*\" not found", said):
        name = re.search(r"namespaces \"([^\"]*)\"", said)
        return (
            f"there is no namespace {name[1] if name else ''} in the cluster",
            "name one with --namespace; `kubectl get namespaces` lists them where you may",
        )
    if match := re.search(
        r"(\S+) is forbidden: User \"([^\"]*)\" cannot (\w+) resource \"([^\"]*)\""
        r"(?:.*in the namespace \"([^\"]*)\")?",
        said,
    ):
        _, user, verb, resource, namespace = match.groups()
        where = f" in the namespace {namespace}" if namespace else ""
        return (
            f"the cluster does not allow {user} to {verb} {resource}{where}",
            "ask for the rights that docs/kubernetes.md lists, or name another --namespace",
        )
    if "is forbidden" in said:
        return f"the cluster does not allow the job: {said}", None
    if "Unauthorized" in errors or "must be logged in" in errors:
        return (
            "the cluster does not know who you are",
            "sign in to it, until `kubectl get pods` works",
        )
    if 'no matches for kind "TrainJob"' in errors or 'resource type "trainjobs' in errors:
        return (
            "Kubeflow Trainer is not installed in this cluster: it knows no TrainJob",
            "leave out --kind trainjob, or ask for Kubeflow Trainer 2.2 or newer",
        )
    if "unknown field" in errors and "runtimePatches" in errors:
        return (
            "the cluster's Kubeflow Trainer is too old: its TrainJobs have no runtimePatches",
            "leave out --kind trainjob, or ask for Kubeflow Trainer 2.2 or newer",
        )
    return "", None


def _configured() -> bool:
    return bool(os.environ.get("KUBECONFIG")) or Path("~/.kube/config").expanduser().exists()
