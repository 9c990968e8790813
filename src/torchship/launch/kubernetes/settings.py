"""Where in a Kubernetes cluster a job goes, and what the site gives it."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from torchship.errors import UsageError

Kind = Literal["job", "trainjob"]

_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*")
_LONGEST = 253


class Settings(Struct, frozen=True, kw_only=True):
    """What the user says of the cluster. What is None is as their kubectl has it, or left out.

    ``pull_secret`` is a Secret with the registry's password, ``output_claim`` a
    PersistentVolumeClaim; both are of the job's namespace.
    """

    kind: Kind = "job"
    namespace: str | None = None
    context: str | None = None
    pull_secret: str | None = None
    output_claim: str | None = None

    def check(self) -> None:
        """Raise `UsageError` for a name that no object of Kubernetes can have.

        Source: Kubernetes, "Object Names and IDs": labels of RFC 1123 for namespaces,
        subdomains for the others.
        """
        for option, value, form in (
            ("--namespace", self.namespace, _LABEL),
            ("--pull-secret", self.pull_secret, _SUBDOMAIN),
            ("--output-claim", self.output_claim, _SUBDOMAIN),
        ):
            if value is not None and (len(value) > _LONGEST or not form.fullmatch(value)):
                raise UsageError(
                    f"{option} {value!r} is no name in Kubernetes",
                    hint="names have lower-case letters, digits and '-'",
                )
        if self.context is not None and (not self.context or self.context.startswith("-")):
            raise UsageError(
                f"--context {self.context!r} is no context",
                hint="`kubectl config get-contexts` lists them",
            )
