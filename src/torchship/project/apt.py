"""Resolves Debian packages with ``apt-get``, as an ordinary user, for any architecture.

apt is given folders of its own and an empty status file, so that it neither sees nor changes
what is installed on the machine; its settings for proxies and certificates still hold, its
hooks do not run. It checks the signatures of the package lists.

The base of an image, for bookworm on amd64 (64 packages, 27.8 MB compressed, with all that
these need; 26.2 MB for arm64):

=================================  ==========================================================
python3                            the suite's own Python
bash dash coreutils grep sed       what ``docker run -it IMAGE bash`` and scripts take for
findutils diffutils gzip hostname  granted; ``tar`` and ``mawk`` come with them (1.8 MB in all)
libc-bin                           ``ldconfig``, which ``ctypes.util.find_library`` asks
libgomp1 libstdc++6                wheels that link to them without carrying them
ca-certificates                    HTTPS; its ``openssl`` is half of the cost (1.6 MB)
tzdata                             ``zoneinfo`` (0.3 MB)
netbase                            ``/etc/services`` and ``/etc/protocols`` (0.01 MB)
ncurses-base                       terminals: readline and the Python prompt (0.3 MB)
=================================  ==========================================================

Left out for their cost: procps (11 MB), util-linux (3.2 MB), git (23 MB), curl (4.6 MB),
perl; a project that wants one names it in ``packages``.

Source: apt-get(8), apt.conf(5), apt_preferences(5); Debian policy 5.6 for names and versions.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from debian.deb822 import Deb822
from filelock import FileLock
from msgspec import Struct

from torchship.amounts import listed
from torchship.digest import Digest
from torchship.errors import FetchError, ResolveError
from torchship.platform import Platform
from torchship.progress import Progress
from torchship.project.aptconfig import AptConfig
from torchship.project.aptpins import PACKAGE, pinned, without_secrets
from torchship.project.fetch.attempt import exists
from torchship.project.fetch.route import plain
from torchship.project.lock import PackagePin
from torchship.project.sources import (
    ETC,
    KEYRING,
    MIRROR,
    TRUSTED,
    Entry,
    chosen,
    configured,
    machine,
    related,
)

BASE_PACKAGES = (
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "libgomp1",
    "libstdc++6",
    "ncurses-base",
    "netbase",
    "python3",
    "sed",
    "tzdata",
)
"""What every image made of Debian packages holds, before what the project asks for."""

_UNKNOWN = re.compile(r"^E: (?:Unable to locate package (\S+)|Package '(\S+)' has no)", re.M)
_PYTHON = re.compile(r"python3\.[0-9]+")

# The names of Debian's suites are not Debian's alone: a repository whose Release file does
# not say that Debian made it is read (it is one of the machine's own) but never taken from.
_PREFERENCES = """\
Package: *
Pin: release o=Debian
Pin-Priority: 500

Package: *
Pin: release n=*
Pin-Priority: -1
"""


def resolve(
    suite: str,
    packages: Iterable[str],
    platform: Platform,
    *,
    state: Path,
    progress: Progress,
    etc: Path = ETC,
) -> tuple[PackagePin, ...]:
    """Return the pins of ``packages`` and of all that they need, sorted by name.

    ``packages`` are names, or ``name=version``; recommended packages are left out. ``state``
    is a folder of torchship's own, where package lists are kept: later calls only ask the
    mirror whether they are still current. ``etc`` is the folder of the machine's apt entries.

    Raises `ResolveError` where there is no ``apt-get``, where no mirror of the suite is known
    or answers, and where packages are unknown or do not fit together.
    """
    names = tuple(sorted(set(packages)))
    for name in names:
        if not PACKAGE.fullmatch(name):
            raise ResolveError(f"{name!r} is not the name of a Debian package")
    with _prepared(suite, platform, state=state, etc=etc) as apt:
        progress.say(f"resolving Debian {suite} packages for {platform}")
        _update(apt, suite)
        # One -q only: two would leave out which dependency cannot be met.
        answer = apt.call("apt-get", "install", "-q", "-y", "--print-uris", *names)
    if answer.returncode != 0:
        raise _refusal(answer, suite, platform)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("'")]
    pins = (pinned(line, apt.entries, platform) for line in lines)
    return tuple(sorted(pins, key=lambda pin: pin.name))


def lacking(suite: str, *, etc: Path = ETC) -> str | None:
    """Say what this machine lacks to resolve packages of a suite; None where it may."""
    if shutil.which("apt-get") is None:
        return "this machine has no apt-get"
    if configured() or machine(suite, etc=etc) or related(suite, etc=etc):
        return None
    return f"apt on this machine has no entry for Debian, and {MIRROR} is not set"


def newest(
    suite: str, names: Iterable[str], platform: Platform, *, state: Path
) -> Mapping[str, str]:
    """Return the version of each package that the mirror has at present, where it has one.

    Raises `ResolveError` as `resolve` does.
    """
    with _prepared(suite, platform, state=state, etc=ETC) as apt:
        _update(apt, suite)
        answer = apt.call("apt-cache", "show", "--no-all-versions", *sorted(set(names)))
    found = Deb822.iter_paragraphs(answer.stdout, use_apt_pkg=False)
    return {paragraph["Package"]: paragraph["Version"] for paragraph in found}


def serves(suite: str, roots: tuple[str, ...]) -> bool:
    """Tell whether any of the user's own mirrors has package lists of a suite.

    Raises `ResolveError` where one does not answer.
    """
    return any(_served(entry) for entry in chosen(suite, roots) if entry.suite == suite)


def settings() -> AptConfig:
    """Return this machine's settings for reaching mirrors; none where it has no apt."""
    if shutil.which("apt-config") is None:
        return AptConfig()
    answer = _run(["apt-config", "dump"])
    return AptConfig.parse(answer.stdout, functools.cache(_detected))


def _detected(program: str, address: str) -> str:
    # apt-transport-http(1): "The first and only parameter is a URI denoting the host to be
    # contacted"; "No output indicates that the generic proxy settings should be used."
    try:
        return next(iter(_run([program, address]).stdout.split()), "")
    except OSError:  # no such program: apt goes on without it too
        return ""


def python_version(pins: Iterable[PackagePin]) -> str:
    """Return the full version of the Python among the pins: ``3.11.2``.

    Raises `ResolveError` where there is none.
    """
    for pin in pins:
        if _PYTHON.fullmatch(pin.name):
            return re.split(r"[-+~]", pin.version.rpartition(":")[2])[0]
    raise ResolveError("no package python3.X is among the base's packages")


class _Apt(Struct, frozen=True, kw_only=True):
    """apt with folders of its own, for one suite from certain entries and one architecture."""

    folder: Path
    entries: tuple[Entry, ...]

    @property
    def config(self) -> Path:
        return self.folder / "apt.conf"

    def call(self, program: str, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        # -c is read after the machine's own settings, so that it can take some of them back.
        return _run([program, "-c", str(self.config), verb, *arguments])


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Messages are read by us: in English, whatever the user's language is.
    environment = {key: value for key, value in os.environ.items() if key != "LANGUAGE"}
    environment["LC_ALL"] = "C.UTF-8"
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


@contextmanager
def _prepared(suite: str, platform: Platform, *, state: Path, etc: Path) -> Iterator[_Apt]:
    """Yield apt, set up for this process alone: another one waits, and never reads half a file."""
    missing = lacking(suite, etc=etc)
    if missing:
        raise ResolveError(
            f"Debian packages of {suite} cannot be resolved: {missing}",
            hint=f"set {MIRROR} to a mirror's root (the folder that holds dists/ and pool/) on a "
            'machine with apt-get, or base = "python:3.11-slim" in [tool.torchship]',
        )
    entries = _entries(suite, etc)
    if not any(entry.suite == suite for entry in entries):
        where = MIRROR if configured() else "what apt on this machine has entries for"
        raise ResolveError(
            f"{where} serves no Debian suite {suite}",
            hint=f"set {MIRROR} to the root of one that does (the folder that holds dists/ and "
            'pool/), or base = "python:3.11-slim" in [tool.torchship]',
        )
    sources = "\n".join(entry.stanza for entry in entries)
    preferences = "" if configured() else _PREFERENCES
    # Other entries, other lists: what one mirror said is never taken for another's word.
    kind = Digest.of(sources.encode()).hex[:8]
    folder = state / f"{suite}-{platform.debian}-{kind}"
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    apt = _Apt(folder=folder.absolute(), entries=entries)
    with FileLock(folder / "lock"):
        for name, text in (
            ("status", ""),
            ("preferences", preferences),
            ("torchship.sources", sources),
            ("apt.conf", _settings(apt.folder, platform)),
        ):
            (folder / name).write_text(text, "utf-8")
        yield apt


def _entries(suite: str, etc: Path) -> tuple[Entry, ...]:
    """Return the entries to resolve a suite from; guessed ones only where they are served."""
    roots = configured()
    own = machine(suite, etc=etc)
    if own and not roots:
        return own
    guessed = chosen(suite, roots) if roots else related(suite, etc=etc)
    return tuple(entry for entry in guessed if _served(entry))


def _settings(folder: Path, platform: Platform) -> str:
    for character in '"\\\n':
        if character in str(folder):
            raise ResolveError(f"apt cannot be given the folder {str(folder)!r}")
    return "\n".join(
        [
            # Hooks of the machine (docker-clean, packagekit, appstream) are not for us.
            "#clear APT::Update;",
            "#clear AptCli;",
            "#clear DPkg;",
            "#clear APT::Default-Release;",
            "#clear APT::Architectures;",
            f'APT::Architecture "{platform.debian}";',
            f'APT::Architectures {{ "{platform.debian}"; }};',
            'APT::Install-Recommends "false";',
            'APT::Install-Suggests "false";',
            # An unknown name is an error, not a regular expression.
            'APT::Cmd::Pattern-Only "true";',
            # As root, apt would read as the user _apt, who cannot see the caller's folders.
            'APT::Sandbox::User "root";',
            'APT::Update::Error-Mode "any";',
            'Acquire::ForceHash "SHA256";',
            'Acquire::GzipIndexes "true";',
            'Acquire::Retries "3";',
            f'Dir::State "{folder}";',
            f'Dir::State::lists "{folder}/lists";',
            f'Dir::State::status "{folder}/status";',
            f'Dir::Cache "{folder}/cache";',
            # Written at every update and 70 MB large, to save half a second of the next call.
            'Dir::Cache::pkgcache "";',
            'Dir::Cache::srcpkgcache "";',
            f'Dir::Etc::sourcelist "{folder}/torchship.sources";',
            'Dir::Etc::sourceparts "/dev/null";',
            f'Dir::Etc::preferences "{folder}/preferences";',
            'Dir::Etc::preferencesparts "/dev/null";',
            "",
        ]
    )


def _served(entry: Entry) -> bool:
    place = f"{entry.root}/dists/{entry.suite}"
    routes = settings().route if place.startswith("http") else plain
    try:
        names = (f"{place}/{name}" for name in ("InRelease", "Release"))
        return any(exists(name, routes=routes) for name in names)
    except FetchError as error:
        raise ResolveError(
            f"the Debian mirror {without_secrets(entry.root)} does not answer: {error.message}",
            hint=f"check the network, and {MIRROR} if it is set",
        ) from error


def _update(apt: _Apt, suite: str) -> None:
    answer = apt.call("apt-get", "update", "-qq")
    if answer.returncode != 0:
        hint = f"check the network and the machine's apt settings, or set {MIRROR}"
        if "NO_PUBKEY" in answer.stdout + answer.stderr and not KEYRING.exists():
            hint = "install the package debian-archive-keyring, which has the keys of Debian, or "
            hint += f"set {TRUSTED}=1 to believe the mirror without"
        raise ResolveError(
            f"apt-get could not read the package lists of Debian {suite}: {_complaint(answer)}",
            hint=hint,
        )


def _refusal(
    answer: subprocess.CompletedProcess[str], suite: str, platform: Platform
) -> ResolveError:
    unknown = sorted({first or second for first, second in _UNKNOWN.findall(answer.stderr)})
    if unknown:
        return ResolveError(
            f"Debian {suite} has no {listed('package', unknown)} for {platform}",
            hint="check the names in packages of [tool.torchship]",
        )
    return ResolveError(
        f"apt-get finds no set of Debian {suite} packages for {platform}: {_complaint(answer)}",
        hint="check packages in [tool.torchship]",
    )


def _complaint(answer: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (answer.stdout + answer.stderr).splitlines()]
    errors = [line[2:].strip() for line in lines if line.startswith("E:")]
    depends = [line for line in lines if re.search(r"\b(Pre)?Depends: ", line)]
    chosen = dict.fromkeys([*depends, *errors] or lines[-3:])
    return "; ".join(without_secrets(line) for line in chosen) or f"exit {answer.returncode}"
