"""The record of a run: an in-toto Statement about the image that ran.

Source: in-toto Attestation Framework, Statement v1 (spec/v1/statement.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from torchship import __version__, canonical
from torchship.digest import Descriptor, Digest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:torchship:run-record:v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution. ``seconds`` is wall-clock time; ``status`` the program's exit status."""

    started: datetime
    seconds: float
    status: int
    engine: str
    command: tuple[str, ...]
    metrics: Mapping[str, float]
    outputs: Mapping[str, Digest]


def outputs(folder: Path) -> Mapping[str, Digest]:
    """Hash every regular file below an output directory; links are not followed."""
    return {
        path.relative_to(folder).as_posix(): Digest.of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def statement(*, name: str, image: Descriptor, platform: str, run: Run) -> bytes:
    r"""Encode the statement whose subject is the image, with one run.

    Metrics stand as a decimal and as a hexadecimal float, which loses nothing. Bytes of file
    names and arguments that are not UTF-8, which JSON has no words for, stand as ``\udcff``.
    """
    return canonical.encode(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": image.digest.hex}}],
            "predicateType": PREDICATE,
            "predicate": {
                "torchship": __version__,
                "platform": platform,
                "command": [_text(word) for word in run.command],
                "engine": run.engine,
                "runs": [
                    {
                        "started": f"{run.started.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
                        "seconds": round(run.seconds, 3),
                        "status": run.status,
                        "metrics": {
                            key: {"value": value, "hex": value.hex()}
                            for key, value in run.metrics.items()
                        },
                        "outputs": {
                            _text(path): str(digest) for path, digest in run.outputs.items()
                        },
                    }
                ],
            },
        }
    )


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
