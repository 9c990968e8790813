"""From what a project says it needs to a lock: its base, its wheels, its data, all pinned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from torchship.amounts import counted, size
from torchship.digest import Digest
from torchship.errors import DataUnavailable, FetchError, ResolveError
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project import builds, lockfile, requirements
from torchship.project.lock import BasePin, DataPin, Lock, PlatformLock, WheelPin
from torchship.project.project import BASE, PYPROJECT, DataFile, Project, excludes

_FILE, _DATA = "file ", "data "


class BaseImage(Struct, frozen=True, kw_only=True):
    """A published base image: its platform's manifest by digest, and its Python.

    ``python`` is that one's full version, ``interpreter`` its absolute path in the image.
    """

    digest: Digest
    python: str
    interpreter: str


ResolveImage = Callable[[str, Platform], BaseImage]
"""Asks a registry what an image reference is now; the registry's client is further right."""


def sources(project: Project) -> Mapping[str, str]:
    """Return all that a lock is resolved from: each input by name, as its value or digest.

    Needs no network. Raises `ProjectError` where the requirements cannot be read.
    """
    needs = requirements.read(project)
    found = {
        "base": project.base,
        "packages": " ".join(project.packages),
        "python": project.python,
        "requirements": project.requirements or "none",
        "torch": " ".join(project.torch),
    }
    found.update({_FILE + name: str(digest) for name, digest in needs.digests.items()})
    found.update({_DATA + data.path: str(data.digest) for data in project.data})
    return MappingProxyType(dict(sorted(found.items())))


def inputs(project: Project) -> Digest:
    """Return the digest of all that a lock of the project is resolved from."""
    return lockfile.inputs(sources(project))


def stale(project: Project, lock: Lock, platforms: Sequence[Platform] = ()) -> tuple[str, ...]:
    """Say in words what changed since the lock was made: empty where it still fits.

    ``platforms`` are those that the lock must hold.
    """
    missing = tuple(f"{platform} is not locked" for platform in platforms if not lock.of(platform))
    pythons = sorted({entry.python for entry in lock.platforms})
    missing += tuple(
        f"requires-python {project.requires_python} excludes Python {python}"
        for python in pythons
        if excludes(project, python)
    )
    now = sources(project)
    if lockfile.inputs(now) == lock.inputs:
        return missing
    was = lock.resolved_from
    if not was:
        return ("the project's inputs changed", *missing)
    names = sorted(was.keys() | now.keys())
    changed = (_change(name, was.get(name), now.get(name)) for name in names)
    return (*(line for line in changed if line), *missing)


def _change(name: str, was: str | None, now: str | None) -> str:
    if was == now:
        return ""
    if name.startswith((_FILE, _DATA)):
        what = name.removeprefix(_FILE)
        return f"{what} {'is new' if was is None else 'is gone' if now is None else 'changed'}"
    if name == "packages":
        before, after = set((was or "").split()), set((now or "").split())
        words = [f"+{package}" for package in sorted(after - before)]
        words += [f"-{package}" for package in sorted(before - after)]
        return f"packages {' '.join(words)}"
    return f"{name} {was} -> {now}"


def resolve(
    project: Project,
    *,
    platforms: Sequence[Platform] = (),
    previous: Lock | None = None,
    upgrade: bool = False,
    progress: Progress,
    state: Path,
    cache: Path | None = None,
    resolve_image: ResolveImage,
) -> Lock:
    """Return a lock for ``platforms`` (default: the project's), one pin for every file.

    Pins of ``previous`` are kept where the inputs that they came from are the same, and
    versions of wheels where they still fit; ``upgrade`` takes the newest of everything.
    The lock records one moment for all Debian packages, so that a snapshot archive can serve
    them: where one platform's must be resolved, all are. ``state`` is a folder for apt's
    package lists, ``cache`` one for what uv learns of wheels (None: uv's own).

    Raises `ResolveError`, and `DataUnavailable` where a data file's size cannot be had.
    """
    # Every build imports this module to ask `stale`, and most resolve nothing.
    from concurrent.futures import ThreadPoolExecutor

    wanted = tuple(sorted(platforms or project.platforms))
    resolver = _Resolver(
        project=project,
        kept=None if upgrade else previous,
        now=sources(project),
        progress=progress,
        state=state,
        cache=cache,
        resolve_image=resolve_image,
    )
    created = datetime.now(UTC).replace(microsecond=0)
    bases = resolver.kept_bases(wanted)
    if bases is not None and previous is not None:
        created = previous.created
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        entries = list(pool.map(lambda platform: resolver.platform(platform, bases), wanted))
    return Lock(
        created=created,
        inputs=lockfile.inputs(resolver.now),
        platforms=tuple(entry for variants in entries for entry in variants),
        data=resolver.data(previous),
        resolved_from=resolver.now,
    )


class _Resolver(Struct, frozen=True, kw_only=True):
    """One resolution. ``kept`` is the lock whose pins stay where their inputs did."""

    project: Project
    kept: Lock | None
    now: Mapping[str, str]
    progress: Progress
    state: Path
    cache: Path | None
    resolve_image: ResolveImage

    def kept_bases(self, platforms: Sequence[Platform]) -> Mapping[Platform, PlatformLock] | None:
        """Return what the kept lock has for these platforms, if their bases can all stay."""
        held = {entry.platform: entry for entry in self.kept.platforms} if self.kept else {}
        if not self._same("base", "packages", "python") or not held.keys() >= set(platforms):
            return None
        if any(excludes(self.project, held[platform].python) for platform in platforms):
            return None  # a published base may have another release by now
        return held

    def platform(
        self, platform: Platform, bases: Mapping[Platform, PlatformLock] | None
    ) -> tuple[PlatformLock, ...]:
        """Resolve one platform: the base first, since it tells the full version of Python."""
        if bases is not None:
            base, python = bases[platform].base, bases[platform].python
        else:
            base, python = self._base(platform)
        found: list[PlatformLock] = []
        for build, variant in zip(self.project.torch, self.project.variants, strict=True):
            bare = PlatformLock(
                platform=platform, python=python, base=base, wheels=(), variant=variant
            )
            # What one variant has, the next takes too where it fits: they share its layers.
            shared = {pin.name: pin.version for entry in found for pin in entry.wheels}
            found.append(replace(bare, wheels=self._wheels(bare, build, shared)))
            self._tell(found[-1])
        differing = builds.differing([(each.variant, each.wheels) for each in found])
        if differing:
            self.progress.say(
                f"{platform}: the variants have different versions of torch, "
                f"{' and '.join(differing)}: require torch==VERSION for one that all have"
            )
        return tuple(found)

    def _wheels(
        self, entry: PlatformLock, build: str, shared: Mapping[str, str]
    ) -> tuple[WheelPin, ...]:
        """Return a variant's wheels: the kept ones, where all that they came from is the same."""
        from torchship.project import pip, wheels
        from torchship.project.fetch.attempt import length
        from torchship.project.target import Target

        earlier = self._earlier(entry.platform, build)
        files = {name for name in self.now if name.startswith(_FILE)}
        if earlier is not None and self._same("base", "python", "requirements", *files):
            return earlier
        if earlier is None and self.kept and self.kept.of(entry.platform):
            earlier = self.kept.platform(entry.platform).wheels
        if self.project.requirements:
            of = f", {entry.variant}" if entry.variant else ""
            self.progress.say(f"resolving {self.project.requirements} for {entry.platform}{of}")
        return wheels.pin(
            self.project,
            Target.of(entry.platform, entry.python, self.project.base),
            build=build,
            preferred={**{pin.name: pin.version for pin in earlier or ()}, **shared},
            measure=partial(length, routes=pip.read().route),
            cache=self.cache,
        )

    def _earlier(self, platform: Platform, build: str) -> tuple[WheelPin, ...] | None:
        """Return the kept wheels of the same build of torch, if there are any."""
        for entry in self.kept.of(platform) if self.kept else ():
            was = self.kept.resolved_from.get("torch", "") if self.kept else ""
            if build == (entry.variant or was):
                return entry.wheels
        return None

    def _tell(self, entry: PlatformLock) -> None:
        sizes = [pin.size for pin in entry.wheels] + [pin.size for pin in entry.base.packages]
        words = [f"Python {entry.python}", *([entry.torch] if entry.torch else [])]
        words += [counted(len(entry.wheels), "wheel")]
        words += [counted(len(entry.base.packages), "Debian package")]
        words += [size(sum(sizes))]
        of = f", {entry.variant}" if entry.variant else ""
        self.progress.say(f"{entry.platform}{of}: {', '.join(words)}")
        build = builds.of_torch(entry.wheels) or ""
        if self.project.torch == (builds.AUTO,) and builds.cuda(build):
            self.progress.say(
                'the index gives the CUDA build of torch; torch = "cpu" in [tool.torchship] takes '
                "the small one"
            )

    def _same(self, *names: str) -> bool:
        """Tell whether these inputs are what the kept lock was resolved from."""
        was = self.kept.resolved_from if self.kept else {}
        if any(name.startswith(_FILE) for name in names) or "requirements" in names:
            names = (*names, *(name for name in was if name.startswith(_FILE)))
        return bool(was) and all(was.get(name) == self.now.get(name) for name in names)

    def _base(self, platform: Platform) -> tuple[BasePin, str]:
        reference = self._reference()
        kind, _, suite = reference.partition(":")
        if kind == "debian":
            from torchship.project import apt

            names = tuple(sorted({*apt.BASE_PACKAGES, *self.project.packages}))
            packages = apt.resolve(suite, names, platform, state=self.state, progress=self.progress)
            base = BasePin(reference=reference, packages=packages)
            return base, self._checked(apt.python_version(packages))
        if self.project.packages:
            raise ResolveError(
                f"tool.torchship.packages cannot be added to {reference}",
                hint="only debian:SUITE is made of packages: take that, or an image that has them",
            )
        image = self.resolve_image(reference, platform)
        base = BasePin(reference=reference, digest=image.digest, interpreter=image.interpreter)
        return base, self._checked(image.python)

    def _reference(self) -> str:
        """Return the base: where nothing can make the default one, Docker's image of Python."""
        from torchship.project import apt

        missing = apt.lacking(BASE.removeprefix("debian:"))
        if self.project.base != BASE or self.project.packages or missing is None:
            return self.project.base
        found = f"python:{self.project.python}-slim"
        self.progress.say(f"{BASE} cannot be made here: {missing}; standing on {found} instead")
        return found

    def _checked(self, python: str) -> str:
        minor = ".".join(python.split(".")[:2])
        if minor != self.project.python:
            raise ResolveError(
                f"{self.project.base} has Python {python}, and the project wants "
                f"{self.project.python}",
                hint=f'set python = "{minor}" in [tool.torchship], or take another base',
            )
        if excludes(self.project, python):
            raise ResolveError(
                f"{self.project.base} has Python {python}, and the project wants "
                f"{self.project.requires_python} (project.requires-python in {PYPROJECT})",
                hint=f'correct requires-python, or take another base: "python:{minor}-slim" has '
                "the newest release",
            )
        return python

    def data(self, previous: Lock | None) -> tuple[DataPin, ...]:
        """Pin the data files: their digests are the project's, their sizes are looked up."""
        sizes = {pin.digest: pin.size for pin in previous.data} if previous else {}
        return tuple(
            DataPin(
                path=file.path,
                filename=_filename(file),
                size=sizes[file.digest] if file.digest in sizes else _size(file),
                digest=file.digest,
            )
            for file in sorted(self.project.data, key=lambda file: file.path)
        )


def _filename(file: DataFile) -> str:
    """Return the name a data file is published under, by which a mirror folder may have it."""
    for url in file.urls:
        name = unquote(urlsplit(url).path).rpartition("/")[2]
        if name not in ("", ".", "..") and "/" not in name and "\0" not in name:
            return name
    return PurePosixPath(file.path).name


def _size(file: DataFile) -> int:
    """Return a data file's size in bytes: of a local mirror's copy, else as its source states."""
    from torchship.project.fetch.attempt import length
    from torchship.project.fetch.mirrors import Mirrors

    local = Mirrors.from_environment().find(file.digest, filename=_filename(file))
    if local is not None:
        return local.stat().st_size
    tried = []
    for url in file.urls:
        try:
            return length(url)
        except FetchError as error:
            tried.append(error.message)
    reasons = "; ".join(tried) or "it has no urls"
    raise DataUnavailable(
        f"the size of {file.path} cannot be had: {reasons}",
        hint="name a local folder that holds the file in TORCHSHIP_MIRRORS, or correct its urls",
    )
