"""Gathers the files that pins name, from wherever this machine can have them.

Sources are looked up only for files that are not here yet: wheels on the user's indexes,
Debian packages on the machine's mirrors, data at the project's addresses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from urllib.parse import quote

from msgspec.structs import replace

from torchship.amounts import counted
from torchship.digest import Digest
from torchship.errors import (
    DataUnavailable,
    FetchError,
    LockError,
    MovedOn,
    ResolveError,
    UsageError,
)
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project.fetch.address import shown
from torchship.project.fetch.attempt import Failure, Wanted, attempt, local, told
from torchship.project.fetch.mirrors import Mirrors
from torchship.project.fetch.route import Route, Routes
from torchship.project.lock import DataPin, Lock, PackagePin, PlatformLock, WheelPin
from torchship.project.project import Project

Pin = WheelPin | PackagePin | DataPin


def gather(
    wanted: Collection[Digest],
    *,
    project: Project,
    lock: Lock,
    platform: Platform,
    downloads: Path,
    progress: Progress,
    mirrors: Mirrors | None = None,
) -> Mapping[Digest, Path]:
    """Return a verified local file for each digest; all are of pins of that platform.

    ``mirrors`` default to those of ``TORCHSHIP_MIRRORS``. What was fetched before an error
    is kept, so that the next call continues there.

    Raises `LockError` for a digest that is no pin, `MovedOn` where Debian packages have been
    replaced, `DataUnavailable` where only data files are missing, `FetchError` otherwise;
    `UsageError` where a setting names a mirror that is none.
    """
    pinned = lock.platform(platform)
    pins = _pins(wanted, lock.of(platform), lock)
    mirrors = mirrors if mirrors is not None else Mirrors.from_environment()
    asked = {pin.digest: _wanted(pin) for pin in pins}
    found = local(asked.values(), downloads=downloads, mirrors=mirrors, progress=progress)
    missing = tuple(pin for pin in pins if pin.digest not in found)
    if not missing:
        return found
    progress.say(f"fetching {counted(len(missing), 'file')}")
    sources = _sources(
        missing, project=project, lock=lock, pinned=pinned, cache=downloads.parent / "uv"
    )
    routes = _routes(missing)
    outcome = attempt(
        [
            replace(asked[pin.digest], sources=sources[pin.digest], routes=routes[type(pin)])
            for pin in missing
        ],
        downloads=downloads,
        mirrors=mirrors,
        progress=progress,
    )
    if outcome.failures:
        failed = {
            pin: outcome.failures[pin.digest] for pin in pins if pin.digest in outcome.failures
        }
        raise _error(failed, project=project, pinned=pinned, state=downloads.parent / "apt")
    return {**found, **outcome.files}


def _pins(
    wanted: Collection[Digest], variants: Sequence[PlatformLock], lock: Lock
) -> tuple[Pin, ...]:
    known: dict[Digest, Pin] = {}
    pins: list[Pin] = [pin for entry in variants for pin in entry.wheels]
    pins += (*variants[0].base.packages, *lock.data)
    for pin in pins:
        known.setdefault(pin.digest, pin)
    for digest in wanted:
        if digest not in known:
            raise LockError(
                f"the lock has no pin with the digest {digest} for {variants[0].platform}",
                hint="make the lock again: torchship lock",
            )
    return tuple(known[digest] for digest in dict.fromkeys(wanted))


def _wanted(pin: Pin) -> Wanted:
    label = pin.filename if isinstance(pin, DataPin) else f"{pin.name} {pin.version}"
    return Wanted(filename=pin.filename, digest=pin.digest, size=pin.size, label=label)


def _sources(
    pins: Sequence[Pin], *, project: Project, lock: Lock, pinned: PlatformLock, cache: Path
) -> Mapping[Digest, tuple[str, ...]]:
    # Imported here: a build that has all its files starts faster without them.
    from torchship.project.sources import roots
    from torchship.project.wheels import locate

    built = tuple(pin for pin in pins if isinstance(pin, WheelPin))
    packages = tuple(pin for pin in pins if isinstance(pin, PackagePin))
    found: dict[Digest, tuple[str, ...]] = {}
    if built:
        located = locate(built, pinned.platform, pinned.python, project=project, cache=cache)
        found.update((pin.digest, located.get(pin.filename, ())) for pin in built)
    if packages:
        bases = (*roots(_suite(pinned)), *_snapshots(lock))
        # Encoded whole: some servers take a plain + for a space.
        found.update(
            (pin.digest, tuple(f"{base}/{quote(pin.path, safe='/~')}" for base in bases))
            for pin in packages
        )
    for pin in pins:
        if isinstance(pin, DataPin):
            urls = (url for file in project.data if file.digest == pin.digest for url in file.urls)
            found[pin.digest] = tuple(dict.fromkeys(urls))
    return found


def _routes(pins: Sequence[Pin]) -> Mapping[type[Pin], Routes]:
    """Return how each kind of file is reached: as pip would, as apt would, or plainly.

    Authorities that only pip was told of are trusted for data, too: whoever opens encrypted
    connections on the way opens them all.
    """
    from torchship.project import apt, pip

    as_pip = pip.read()
    found: dict[type[Pin], Routes] = {
        WheelPin: as_pip.route,
        DataPin: lambda address: Route(authorities=as_pip.route(address).authorities),
    }
    if any(isinstance(pin, PackagePin) for pin in pins):
        found[PackagePin] = apt.settings().route
    return found


def _suite(pinned: PlatformLock) -> str:
    return pinned.base.reference.removeprefix("debian:")


def _snapshots(lock: Lock) -> tuple[str, ...]:
    from torchship.project.sources import snapshot

    archive = snapshot()
    if archive is None:
        return ()
    time = lock.created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return tuple(f"{archive}/archive/{name}/{time}" for name in ("debian", "debian-security"))


def _error(
    failed: Mapping[Pin, tuple[Failure, ...]],
    *,
    project: Project,
    pinned: PlatformLock,
    state: Path,
) -> FetchError | UsageError:
    """Name what could not be had. What has to be mended first comes first."""
    built = {pin.filename: why for pin, why in failed.items() if isinstance(pin, WheelPin)}
    if built:
        return FetchError(
            told(built),
            hint="check the network and pip's settings (PIP_INDEX_URL, pip.conf): the lock "
            "names files by sha256, and any index that has them will do",
        )
    packages = {pin: why for pin, why in failed.items() if isinstance(pin, PackagePin)}
    if packages and all(map(_moved, packages.values())):
        return _no_mirror(_suite(pinned)) or _moved_on(
            packages, project=project, pinned=pinned, state=state
        )
    if packages and not any(packages.values()):
        return FetchError(
            f"the lock stands on {counted(len(packages), 'package')} of Debian "
            f"{_suite(pinned)}, and this machine knows no mirror of Debian",
            hint="set TORCHSHIP_DEBIAN_MIRROR to the root of one: any will do, since the lock "
            "names files by sha256",
        )
    if packages:
        return FetchError(
            told({pin.filename: why for pin, why in packages.items()}),
            hint="check the network, or set TORCHSHIP_DEBIAN_MIRROR to the root of a Debian mirror",
        )
    return DataUnavailable(
        told({pin.filename: why for pin, why in failed.items()}),
        hint="put the files into a folder, under any name, and set TORCHSHIP_MIRRORS to it",
    )


def _split(failures: tuple[Failure, ...]) -> tuple[list[Failure], list[Failure]]:
    """Return what mirrors said, and what the snapshot archive did."""
    from torchship.project.sources import snapshot

    archive = snapshot()
    archived = [one for one in failures if archive and one.source.startswith(f"{archive}/")]
    return [one for one in failures if one not in archived], archived


def _moved(failures: tuple[Failure, ...]) -> bool:
    """Return whether every mirror says that it has no such file, whatever a snapshot says."""
    mirrors, _ = _split(failures)
    return bool(mirrors) and all(one.gone for one in mirrors)


def _no_mirror(suite: str) -> UsageError | None:
    """Return what is wrong with a mirror of the user's that has not even the suite's lists."""
    from torchship.project import apt
    from torchship.project.sources import MIRROR, configured

    roots = configured()
    if not roots or apt.serves(suite, roots):
        return None
    return UsageError(
        f"{MIRROR} names {', '.join(map(shown, roots))}, which has neither the lock's packages "
        f"nor Debian's suite {suite}",
        hint=f"set {MIRROR} to the folder that holds dists/ and pool/, or unset it",
    )


def _moved_on(
    packages: Mapping[PackagePin, tuple[Failure, ...]],
    *,
    project: Project,
    pinned: PlatformLock,
    state: Path,
) -> MovedOn:
    from torchship.project import apt
    from torchship.project.sources import SNAPSHOT

    try:
        names = [pin.name for pin in packages]
        present = apt.newest(_suite(pinned), names, pinned.platform, state=state)
    except ResolveError:  # no apt here, or no lists: the names alone must do
        present = {}
    words = []
    for pin in sorted(packages, key=lambda pin: pin.name):
        newer = present.get(pin.name)
        words.append(f"{pin.name} {pin.version}" + (f" (now {newer})" if newer else ""))
    asked = [one for failures in packages.values() for one in _split(failures)[1]]
    faults = dict.fromkeys(one.reason for one in asked if not one.gone)
    archived = f", nor does the archive that {SNAPSHOT} names" if asked else ""
    if faults:
        archived = f", and the archive that {SNAPSHOT} names fails ({'; '.join(faults)})"
    return MovedOn(
        f"Debian's mirrors no longer serve {len(words)} of the lock's packages{archived}: "
        + ", ".join(words),
        hint=f"run `torchship lock --upgrade {project.root}`, or set {SNAPSHOT} to the address "
        "of a snapshot archive",
    )
