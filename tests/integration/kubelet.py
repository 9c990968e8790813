"""A node for tests: runs pods' containers as processes of this machine, with folders of their own.

What Kubernetes says of a container is done here as it says: ``$(NAME)`` is expanded, the
completion index is in a variable, SIGTERM comes before SIGKILL, both streams go into one log.
"""

from __future__ import annotations

import json
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
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._words(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._outside(),
                cwd=folder,
                start_new_session=True,
            )

    def _words(self) -> list[str]:
        words = self.pod["spec"]["containers"][0]["command"]
        return [expand(word, self.environment) for word in words]

    def _outside(self) -> dict[str, str]:
        return self.environment

    def _environment(self, path: str) -> dict[str, str]:
        # There is no mount here: the program and `exec` are told where the volume is
        inside = {"PATH": path, "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)}
        return {**self._given(inside), "TORCHSHIP_OUTPUT": str(self.output)}

    def _given(self, inside: dict[str, str]) -> dict[str, str]:
        """Return a container's variables: those of its image, and those of its pod."""
        variables = dict(inside)
        annotations = self.pod["metadata"]["annotations"]
        for one in self.pod["spec"]["containers"][0].get("env", []):
            if "valueFrom" in one:
                place = one["valueFrom"]["fieldRef"]["fieldPath"]
                assert place == f"metadata.annotations['{INDEX}']"
                variables[one["name"]] = annotations[INDEX]
            else:
                variables[one["name"]] = expand(one["value"], variables)
        variables["JOB_COMPLETION_INDEX"] = annotations[INDEX]
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


class Contained(Container):
    """A pod's only container, as a real one: Podman pulls and runs the image.

    As a kubelet would: with the pod's user, without capabilities, the command as its first
    process, volumes where they are mounted.
    """

    @property
    def name(self) -> str:
        """Return what Podman calls it."""
        return self.pod["metadata"]["name"]

    def _environment(self, path: str) -> dict[str, str]:
        self.output.chmod(0o777)  # as an emptyDir is
        return self._given({})

    def _outside(self) -> dict[str, str]:
        # Podman insists on a file where this points, and tests keep accounts out by it
        return {name: value for name, value in os.environ.items() if name != "DOCKER_CONFIG"}

    def _words(self) -> list[str]:
        spec = self.pod["spec"]
        container, user = spec["containers"][0], spec["securityContext"]
        assert user["runAsNonRoot"] and user["runAsUser"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        command = super()._words()
        pull = ["podman", "pull", "--quiet", "--tls-verify=false", container["image"]]
        subprocess.run(pull, capture_output=True, env=self._outside(), check=True)
        variables = [f"--env={name}={value}" for name, value in self.environment.items()]
        return [
            *("podman", "run", "--rm", f"--name={self.name}", "--network=host"),
            *("--pull=never", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
            f"--user={user['runAsUser']}:{user['runAsGroup']}",
            f"--workdir={container['workingDir']}",
            f"--volume={self.output}:/output",
            *variables,
            f"--entrypoint={json.dumps(command[:1])}",
            container["image"],
            *command[1:],
        ]

    def kill(self) -> None:
        """End it at once."""
        gone = ["podman", "rm", "--force", self.name]
        subprocess.run(gone, capture_output=True, env=self._outside(), check=False)

    def run(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Run a second program in the container, with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = ["podman", "exec", "--interactive", self.name, *command]
        return subprocess.Popen(words, env=self._outside(), **pipes)
