"""Images that nodes cannot pull: what may pass is told from what stays.

Source: Kubernetes, "Images", ImagePullBackOff: the kubelet tries again after 10 s, then 20 s, and
so on up to 300 s. The reasons are those of its package images.
"""

from __future__ import annotations

import re

from torchship.errors import EngineError
from torchship.launch.job import Job
from torchship.launch.kubernetes.state import Look, Reason
from torchship.launch.kubernetes.trouble import words

_PATIENCE = 300
"""Seconds for which a node may fail to pull: five tries. One registry that says "too many
requests" to one of a hundred nodes is no end of a job."""

_FALTERS = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
_NEVER = {"ErrImageNeverPull", "InvalidImageName"}
_FINAL = re.compile(
    r"not found|manifest unknown|unauthorized|denied|forbidden|authentication required"
    r"|no basic auth credentials|no match for platform|no matching manifest",
    re.IGNORECASE,
)
_BUSY = re.compile(r"\b429\b|too ?many ?requests", re.IGNORECASE)


class Pulls:
    """The pulls of one job's nodes."""

    def __init__(self, job: Job) -> None:
        self._reference = str(job.reference)
        self._since: dict[str, float] = {}
        self._errors: dict[str, Reason] = {}
        self.faltering: str | None = None
        """What is to be told at the last look, where the node tries again."""

    def failed(self, look: Look, now: float) -> EngineError | None:
        """Return why a node will not get the image; ``now`` is a monotonic clock's, in seconds."""
        self.faltering = None
        for pod in look.pods:
            why = pod.waiting
            if why is None or why.reason not in _FALTERS | _NEVER:
                continue
            if why.reason == "ErrImagePull":  # older kubelets say why in this one alone
                self._errors[pod.name] = why
            why = self._errors.get(pod.name, why)
            waited = now - self._since.setdefault(pod.name, now)
            if why.reason in _NEVER or self._final(why) or waited > _PATIENCE:
                return EngineError(
                    f"node {pod.index} cannot pull {self._reference}: {words(why)}",
                    hint="push the image where the cluster reaches it; a private registry needs "
                    "--pull-secret NAME (`kubectl create secret docker-registry`)",
                )
            self.faltering = self.faltering or (
                f"node {pod.index} cannot pull {self._reference} yet, and tries again: {words(why)}"
            )
        return None

    def _final(self, why: Reason) -> bool:
        said = why.message.replace(self._reference, "")  # whatever words are in its name
        return _FINAL.search(said) is not None and _BUSY.search(said) is None
