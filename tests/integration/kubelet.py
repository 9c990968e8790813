"""A node for tests: runs pods' containers as processes of this machine, with folders of their own.

What Kubernetes says of a container is done here as it says: ``$(NAME)`` is expanded, the
completion index is in a variable, SIGTERM comes before SIGKILL, both streams go into one log.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

INDEX = "batch.kubernetes.io/job-completion-index"


def now() -> str:
    """Return this moment as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def expand(text: str, variables: dict[str, str]) -> str:
    """Expand ``$(NAME)`` as Kubernetes does: ``$$`` is a dollar, an unknown name stays."""
    return re.sub(
        r"\$\$|\$\(([^()]*)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )


class Container:
    """One pod's only container, as a process. ``folder`` is its file system."""

    def __init__(self, pod: dict[str, Any], folder: Path, *, path: str) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.output = folder / "output"
        self.output.mkdir(parents=True)
        self.pod = pod
        self.ended = threading.Event()
        self.status = 0
        self.environment = self._environment(path)
        container = pod["spec"]["containers"][0]
        words = [expand(word, self.environment) for word in container["command"]]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=folder,
                start_new_session=True,
            )

    def _environment(self, path: str) -> dict[str, str]:
        variables = {"PATH": path, "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)}
        annotations = self.pod["metadata"]["annotations"]
        for one in self.pod["spec"]["containers"][0].get("env", []):
            if "valueFrom" in one:
                place = one["valueFrom"]["fieldRef"]["fieldPath"]
                assert place == f"metadata.annotations['{INDEX}']"
                variables[one["name"]] = annotations[INDEX]
            else:
                variables[one["name"]] = expand(one["value"], variables)
        variables["JOB_COMPLETION_INDEX"] = annotations[INDEX]
        # There is no mount here: the program and `exec` are told where the volume is
        variables["TORCHSHIP_OUTPUT"] = str(self.output)
        if "PET_MASTER_ADDR" in variables:
            variables["PET_MASTER_ADDR"] = "127.0.0.1"
        return variables

    def wait(self) -> int:
        """Wait for its end; return the exit status as Kubernetes gives it."""
        found = self.process.wait()
        self.status = 128 - found if found < 0 else found
        self.kill()  # whoever is left: a container ends with its first process
        self.ended.set()
        return self.status

    def stop(self, grace: float) -> None:
        """End it: SIGTERM, and SIGKILL after the grace period."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            threading.Timer(grace, self.kill).start()

    def kill(self) -> None:
        """End it and all that it has started at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a second program in the container, with pipes."""
        words = [str(self.output) if word == "/output" else word for word in command]
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
        )
