"""What is learnt inside the container: facts of the machine, of torch, of the tensors written.

Each question is a small script that the image's own Python runs, in a container like the
program's. The image may be a stranger's: its answers are checked as to their form, and a Python
that does not answer leaves the facts unknown.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.engines.request import Engine, Mount, Request
from torchship.errors import EngineError, RunError
from torchship.runs import typed
from torchship.runs.interruption import interruptible
from torchship.runs.record import DataUsed, Hardware, Software

PYTHON = "python3"

TENSORS = (".pt", ".pth", ".safetensors")
"""Suffixes of files whose contents are looked at."""

_SCRIPTS = Path(__file__).parent / "scripts"
_LARGEST = 8 << 20  # bytes of an answer
_MOUNTED = "/run/torchship"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a container says of itself. ``data`` maps a path to what was found there, or None."""

    hardware: Hardware | None = None
    software: Software | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    interop_threads: int | None = None
    data: Mapping[str, DataUsed | None] = field(default_factory=dict)


def facts(request: Request, engine: Engine, *, data: Sequence[str]) -> Facts:
    """Return the facts of a container like the one that a request asks for.

    Where the image's Python does not answer, the facts are None. Raises `EngineError` where it
    could not be asked: the image has none, or the engine runs nothing.
    """
    told = _ask(request, engine, "facts.py", data)
    if told is None:
        return Facts()
    torch = _ask(request, engine, "torch_facts.py", ()) or {}
    faults = typed.Faults()
    hardware = {**_table(told, "hardware"), **_table(torch, "hardware")}
    software = {**_table(told, "software"), **_table(torch, "software")}
    found = _table(told, "data")
    return Facts(
        hardware=typed.from_json(Hardware, hardware, "hardware", faults),
        software=typed.from_json(Software, software, "software", faults),
        environment={
            name: value
            for name, value in _table(told, "environment").items()
            if isinstance(value, str) and len(value) < typed.LONGEST and "\0" not in value
        },
        threads=_count(torch.get("threads")),
        interop_threads=_count(torch.get("interopThreads")),
        data={
            path: typed.from_json(DataUsed, {**found[path], "name": path}, path, faults)
            if isinstance(found.get(path), dict)
            else None
            for path in data
        },
    )


def check_data(
    request: Request, engine: Engine, declared: Sequence[tuple[str, Digest]]
) -> tuple[Facts, tuple[DataUsed, ...]]:
    """Return the facts, and the data files that the image declares.

    Raises `RunError` for a file that is not what was declared, which makes every run of it another
    experiment, and `EngineError` where files are declared and cannot be looked at.
    """
    try:
        found = facts(request, engine, data=[path for path, _ in declared])
    except EngineError as error:
        if declared:
            raise EngineError(
                f"the image's data cannot be checked: {error.message}", hint=error.hint
            ) from error
        return Facts(), ()  # what is wrong, if anything, the program's own run will tell
    if found.software is None and declared:
        raise RunError(
            "the image's data cannot be checked: it has no Python that answers",
            hint=f"it needs {PYTHON} on its PATH",
        )
    used = []
    for path, digest in declared:
        file = found.data.get(path)
        if file is None:
            raise RunError(
                f"the data file {path} is not there, or cannot be read, in the container",
                hint="build or pull the image again",
            )
        if file.digest != digest:
            raise RunError(
                f"the data file {path} is damaged, or another: it should have {digest}, "
                f"and has {file.digest}",
                hint="build or pull the image again",
            )
        used.append(file)
    return found, tuple(used)


def tensors(
    request: Request, engine: Engine, outputs: Sequence[Path]
) -> tuple[Mapping[str, Digest], ...]:
    """Return, for each output directory, digests of the contents of its files of tensors.

    Of a file that cannot be read as such there is none, nor of any where the engine shows the
    container no folders of this machine.
    """
    wanted: dict[str, tuple[int, str]] = {}
    mounts = []
    for place, folder in enumerate(outputs):
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix in TENSORS and path.is_file() and not path.is_symlink()
        )
        if names:
            target = f"{_MOUNTED}/{place}"
            mounts.append(Mount(source=folder.absolute(), target=target, read_only=True))
            wanted |= {f"{target}/{name}": (place, name) for name in names}
    found: list[dict[str, Digest]] = [{} for _ in outputs]
    if wanted:
        asked = replace(request, mounts=(*request.mounts, *mounts))
        try:
            told = _ask(asked, engine, "tensors.py", list(wanted))
        except EngineError:  # the runs are done, and count without that
            told = None
        for path, text in (told or {}).items():
            if path in wanted and (digest := typed.digest(text)) is not None:
                place, name = wanted[path]
                found[place][typed.text(name)] = digest
    return tuple(found)


def _ask(
    request: Request, engine: Engine, script: str, arguments: Sequence[str]
) -> dict[str, Any] | None:
    """Run a script in a container of its own; return the object that it prints, or None."""
    source = (_SCRIPTS / script).read_text()
    with tempfile.TemporaryFile() as answer, Path(os.devnull).open("wb") as nothing:
        asked = replace(
            request,
            command=(PYTHON, "-I", "-c", source, *arguments),
            output=None,
            log=None,
            interactive=False,
            tty=False,
            network=False,
            stdout=answer.fileno(),
            stderr=nothing.fileno(),
        )
        try:
            with interruptible():
                status = engine.run(asked)
        except RunError as error:  # a cluster ended it
            raise EngineError(error.message, hint=error.hint) from error
        answer.seek(0)
        raw = answer.read(_LARGEST)
    if status != 0:
        return None
    try:
        told = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _table(told: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = told.get(key)
    return found if isinstance(found, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and 0 < value < 1 << 20 else None
