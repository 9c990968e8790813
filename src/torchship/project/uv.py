"""uv: which wheels a set of requirements means, for a platform that need not be this one's.

uv is asked for a ``pylock.toml`` (PEP 751), which is read with `packaging`. Addresses live in
`Found` only, never in the lock.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from packaging.pylock import (
    PackageDirectory,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from torchship.errors import ResolveError
from torchship.project import complaint, pip, question, tables, uvsettings
from torchship.project.question import Question
from torchship.project.target import Target

_LOOKING = threading.Lock()


class Found(Struct, frozen=True, kw_only=True):
    """A wheel that an index has now. ``size`` in bytes, None where the index does not say."""

    name: str
    version: str
    filename: str
    sha256: str
    url: str
    size: int | None


def ask(asked: Question) -> tuple[tuple[Found, ...], ...]:
    """Resolve; return for each package its compatible wheels, the best first.

    Nothing is built, and none of a package's code is run, whatever the requirements and the
    indexes hold. Raises `ResolveError` with what uv says where there is no answer.
    """
    with tempfile.TemporaryDirectory(prefix="torchship-uv-") as name:
        folder = Path(name)
        output = folder / "pylock.toml"
        if asked.preferred:
            output.write_text(_preferences(asked.preferred), encoding="utf-8")
        _run(asked, folder, output)
        return select(output, asked.target)


def _run(asked: Question, folder: Path, output: Path) -> None:
    settings = pip.read()
    environment = uvsettings.environment(pip.for_uv(settings, os.environ))
    if asked.cache is not None:
        environment.setdefault("UV_CACHE_DIR", str(asked.cache))
    command = [_program(), "pip", "compile", "--format", "pylock.toml"]
    command += ["--python", sys.executable, "--python-version", asked.target.python]
    command += ["--python-platform", asked.target.for_uv, "--only-binary", ":all:"]
    command += ["--no-header", "--no-annotate", "--no-progress", "--color", "never"]
    command += ["--no-index"] if settings.no_index else []
    command += ["--prerelease", "allow"] if settings.prerelease else []
    command += ["--output-file", output.name, *question.write(asked, folder)]
    answer = _start(command, folder, environment)
    if answer.returncode != 0:
        raise complaint.explain(answer.stderr, asked.target)


def _start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _program() -> str:
    """Find uv, one thread at a time: Python 3.11's sysconfig breaks when two begin to use it."""
    from uv import find_uv_bin

    with _LOOKING:
        return find_uv_bin()


def select(
    pylock: Path, target: Target, *, own: Path | None = None
) -> tuple[tuple[Found, ...], ...]:
    """Return each package's compatible wheels, the best first, from a lock file (PEP 751).

    A package that is the directory ``own`` is left out: that is the project, whose code goes
    into the image as it is. Raises `ResolveError` for other packages without a wheel: an sdist,
    a repository, a directory.
    """
    try:
        lock = Pylock.from_dict(tables.parse(pylock, ResolveError))
        lock.validate()
        chosen = list(
            lock.select(environment=target.environment, tags=target.tags)  # type: ignore[arg-type]
        )
    except (PylockValidationError, PylockSelectError) as error:
        raise ResolveError(
            f"{pylock.name} gives nothing to install for {target.platform}: {error}"
        ) from None
    rank = {tag: i for i, tag in reversed(list(enumerate(target.tags)))}
    found = []
    for package, artifact in chosen:
        if isinstance(artifact, PackageDirectory) and own is not None:
            place = (pylock.parent / artifact.path).resolve()
            if place == own.resolve():
                continue
        if not isinstance(artifact, PackageWheel):
            raise complaint.no_wheel({str(package.name): ""}, target)
        wheels = (_found(wheel, pylock) for wheel in package.wheels or ())
        fitting = [wheel for wheel in wheels if _rank(wheel, rank) < len(rank)]
        fitting.sort(key=lambda wheel: wheel.filename)
        fitting.sort(key=_build, reverse=True)
        found.append(tuple(sorted(fitting, key=lambda wheel: _rank(wheel, rank))))
    return tuple(found)


def _rank(wheel: Found, rank: Mapping[Tag, int]) -> int:
    tags = parse_wheel_filename(wheel.filename)[3]
    return min((rank.get(tag, len(rank)) for tag in tags), default=len(rank))


def _build(wheel: Found) -> tuple[int, str]:
    """Return the build tag, by which the later build of one version comes after the earlier."""
    tag = parse_wheel_filename(wheel.filename)[2]
    return tag or (-1, "")


def _found(wheel: PackageWheel, pylock: Path) -> Found:
    sha256 = wheel.hashes.get("sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ResolveError(f"the index gives no sha256 for {wheel.filename}")
    name, version, _, _ = parse_wheel_filename(wheel.filename)
    url, size = wheel.url or "", wheel.size
    if not url and wheel.path:
        url = (pylock.parent / wheel.path).resolve().as_uri()
    parts = urlsplit(url)
    if size is None and parts.scheme == "file" and Path(unquote(parts.path)).is_file():
        size = Path(unquote(parts.path)).stat().st_size
    return Found(
        name=name,
        version=str(version),
        filename=wheel.filename,
        sha256=sha256,
        url=url,
        size=size,
    )


def _preferences(versions: Mapping[str, str]) -> str:
    """Write versions as an earlier output of uv's, which it keeps to where it can."""
    lines = ['lock-version = "1.0"', 'created-by = "torchship"']
    for name, version in sorted(versions.items()):
        lines += ["", "[[packages]]", f'name = "{name}"', f'version = "{version}"']
    return "\n".join([*lines, ""])


def with_credentials(url: str, indexes: Iterable[str]) -> str:
    """Put back the user and password that an index's address has, and uv leaves out."""
    parts = urlsplit(url)
    if "@" in parts.netloc and "****" not in parts.netloc:
        return url
    host = parts.netloc.rpartition("@")[2]
    for index in indexes:
        login, at, there = urlsplit(index).netloc.rpartition("@")
        if at and there == host and urlsplit(index).scheme == parts.scheme:
            return parts._replace(netloc=f"{login}@{host}").geturl()
    return url


def folders(
    options: Sequence[str], settings: Mapping[str, object] = MappingProxyType({})
) -> tuple[Path, ...]:
    """Return the folders of this machine that are searched for wheels."""
    links = list(pip.read().find_links)
    links += [word.partition(" ")[2] for word in options if word.startswith("--find-links ")]
    links += uvsettings.places(settings, ("find-links",))
    return tuple(
        Path(unquote(link.removeprefix("file://")))
        for link in links
        if "://" not in link or link.startswith("file://")
    )


def indexes(
    options: Sequence[str], settings: Mapping[str, object] = MappingProxyType({})
) -> tuple[str, ...]:
    """Return all the addresses that uv may look at, with their credentials."""
    environment = pip.for_uv(pip.read(), os.environ)
    names = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
    found = [word for name in names for word in re.split(r"[\s,]+", environment.get(name, ""))]
    found += [os.path.expandvars(option.partition(" ")[2]) for option in options]
    found += uvsettings.places(settings)
    return tuple(re.sub(r"^[\w-]+=", "", word) for word in found if "://" in word)
