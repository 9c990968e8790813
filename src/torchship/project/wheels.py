"""Wheels: which ones the requirements mean (`pin`), and where pinned ones are now (`locate`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.errors import IndexUnreachable, ResolveError
from torchship.platform import Platform
from torchship.project import backend, builds, question, requirements, uv
from torchship.project.lock import WheelPin
from torchship.project.project import Project
from torchship.project.question import Question
from torchship.project.requirements import Requirements
from torchship.project.target import Target
from torchship.project.uv import Found

Measure = Callable[[str], int]
"""Gives the size in bytes of the file at an address, which some indexes do not state."""


def pin(
    project: Project,
    target: Target,
    *,
    build: str = builds.AUTO,
    preferred: Mapping[str, str],
    measure: Measure,
    cache: Path | None = None,
) -> tuple[WheelPin, ...]:
    """Resolve the project's requirements; return its wheels, sorted by name.

    ``build`` is the build of torch to take: ``cpu``, ``cu130``; ``auto`` takes what the index
    gives. ``preferred`` has versions by name that are kept where they still fit; ``cache`` is a
    folder for uv's. Raises `ResolveError` where there is no answer, or none with that build.
    """
    needs = requirements.read(project)
    if needs.file is None:
        return ()
    if needs.is_lock:
        answer = uv.select(needs.file, target, own=project.root)
        _check_torch(answer, build, needs.file.name)
    else:
        asked = question.of_project(needs, project.root, target, preferred=preferred, cache=cache)
        answer = backend.resolve(asked, build, needs.file.name)
    addresses = uv.indexes(needs.options, question.settings(needs, project.root))
    pins = [_pin(_allowed(wheels, needs), measure, addresses) for wheels in answer]
    return tuple(sorted(pins, key=lambda pin: pin.name))


def locate(
    pins: Collection[WheelPin],
    platform: Platform,
    python: str,
    *,
    project: Project | None = None,
    cache: Path | None = None,
) -> Mapping[str, tuple[str, ...]]:
    """Return, by filename, where the user's indexes have exactly these files now.

    A pin that no index has is absent from the answer. Builds such as ``2.13.0+cpu`` are
    looked for on PyTorch's own index too. Raises `IndexUnreachable` where an index of the
    user's does not answer.
    """
    if not pins:
        return {}
    needs = requirements.read(project) if project else Requirements(file=None)
    settings = question.anywhere(needs, project.root if project else Path.cwd())
    finder = _Finder(
        target=Target.widest(platform, python),
        options=needs.options,
        settings=settings,
        cache=cache,
    )
    offered: list[Found] = []
    if needs.is_lock and needs.file and project:
        there = uv.select(needs.file, finder.target, own=project.root)
        offered += [wheel for wheels in there for wheel in wheels]
    # uv would unpack a large wheel of a folder to learn its sha256: reading it is enough.
    offered += _in(uv.folders(needs.options, settings), pins)
    missing = _missing(pins, offered)
    offered += finder.find(missing)
    by_build: dict[str, list[WheelPin]] = {}
    for one in _missing(missing, offered):
        build = one.version.partition("+")[2]
        if re.fullmatch(r"cpu|xpu|cu\d+|rocm[\d.]+", build):
            by_build.setdefault(build, []).append(one)
    for build, local in sorted(by_build.items()):
        with suppress(IndexUnreachable):  # an addition to the user's own indexes, which answered
            offered += replace(finder, arguments=("--torch-backend", build)).find(local)
    addresses = uv.indexes(needs.options, settings)
    found: dict[str, tuple[str, ...]] = {}
    for one in pins:
        urls = [
            uv.with_credentials(wheel.url, addresses)
            for wheel in offered
            if (wheel.filename, wheel.sha256) == (one.filename, one.digest.hex)
        ]
        if urls:
            found[one.filename] = tuple(dict.fromkeys(urls))
    return found


class _Finder(Struct, frozen=True, kw_only=True):
    """Asks for exact versions, all in one call; where some are gone, for the rest of them."""

    target: Target
    options: tuple[str, ...]
    settings: Mapping[str, object]
    arguments: tuple[str, ...] = ()
    cache: Path | None = None

    def find(self, pins: Sequence[WheelPin]) -> list[Found]:
        """Return all the wheels of these versions; nothing for a version that is gone."""
        if not pins:
            return []
        # PEP 440: "==2.13.0" takes 2.13.0+cpu too, and "===" does not.
        asked = Question(
            lines=tuple(f"{pin.name}==={pin.version}" for pin in pins),
            target=self.target,
            options=self.options,
            settings=self.settings,
            arguments=("--no-deps", "--prerelease", "allow", *self.arguments),
            cache=self.cache,
        )
        try:
            return [wheel for wheels in uv.ask(asked) for wheel in wheels]
        except IndexUnreachable:
            raise
        except ResolveError:
            # One version that is gone fails the whole question: halve it until it is alone.
            if len(pins) == 1:
                return []
            middle = len(pins) // 2
            return self.find(pins[:middle]) + self.find(pins[middle:])


def _in(folders: tuple[Path, ...], pins: Collection[WheelPin]) -> list[Found]:
    """Return the pinned files that stand in folders of this machine."""
    return [
        Found(
            name=pin.name,
            version=pin.version,
            filename=pin.filename,
            sha256=pin.digest.hex,
            url=path.resolve().as_uri(),
            size=pin.size,
        )
        for folder in folders
        for pin in pins
        if (path := folder / pin.filename).is_file()
        and path.stat().st_size == pin.size
        and Digest.of_file(path) == pin.digest
    ]


def _missing(pins: Collection[WheelPin], offered: Sequence[Found]) -> list[WheelPin]:
    there = {(wheel.filename, wheel.sha256) for wheel in offered}
    return [pin for pin in pins if (pin.filename, pin.digest.hex) not in there]


def _check_torch(answer: tuple[tuple[Found, ...], ...], build: str, where: str) -> None:
    got = backend.of_torch(answer)
    if build != builds.AUTO and got not in (build, None):
        raise ResolveError(
            f"tool.torchship.torch is {build}, and {where} gives torch's {got} build",
            hint='pin the build in the requirements, or set torch = "auto"',
        )


def _allowed(wheels: tuple[Found, ...], needs: Requirements) -> tuple[Found, ...]:
    """Keep the wheels that the requirement's own ``--hash`` allows; uv resolves without them."""
    allowed = needs.hashes.get(wheels[0].name)
    if allowed is None:
        return wheels
    kept = tuple(wheel for wheel in wheels if wheel.sha256 in allowed)
    if not kept:
        raise ResolveError(
            f"no wheel of {wheels[0].name} {wheels[0].version} has a sha256 that its --hash allows",
            hint="the index has other files than the requirements were written for",
        )
    return kept


def _pin(wheels: tuple[Found, ...], measure: Measure, addresses: tuple[str, ...]) -> WheelPin:
    best = wheels[0]
    size = best.size
    if size is None:
        size = measure(uv.with_credentials(best.url, addresses))
    return WheelPin(
        name=best.name,
        version=best.version,
        filename=best.filename,
        size=size,
        digest=Digest(best.sha256),
    )
