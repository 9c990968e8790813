"""A cluster: an engine whose machines are elsewhere."""

from __future__ import annotations

from typing import Protocol

from torchship.engines.request import Engine, Request


class Cluster(Engine, Protocol):
    """What runs images as jobs.

    `run` submits a job, says what becomes of it, passes on what it prints as it comes, brings
    its outputs to the request's output directory, and returns the exit status. Ctrl-C, and any
    error of ours, ends the job: none is left behind.
    """

    def description(self, request: Request) -> str:
        """Return the job as the cluster takes it; nothing is submitted."""

    def close(self) -> None:
        """End what is still held on the cluster, if anything is."""
