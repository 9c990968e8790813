"""The ``[tool.torchship]`` table: what each key may hold, and what stands for an absent one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from torchship.digest import Digest
from torchship.errors import InvalidDigest, UsageError
from torchship.platform import Platform
from torchship.project import builds, seeds, tables
from torchship.project import project as projects
from torchship.project.project import DataFile, Metric, Project

PATH = "tool.torchship"

# distribution-spec: a repository's name is path components of this form.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# Debian policy, 5.6.7: "at least two characters long ... start with an alphanumeric character"
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+~:-]+)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/lib/dpkg",
    "/opt/venv",
    "/tmp",  # noqa: S108 (of the image, not of this machine)
    "/output",
)
"""Where a data file would break the image, or be hidden when it runs."""


class _Data(tables.Table):
    path: str
    sha256: str
    urls: tuple[str, ...] = ()


class _Metric(tables.Table):
    file: str | None = None
    pattern: str | None = None
    better: Literal["higher", "lower"] = "higher"
    tolerance: float | None = None
    examples: int | None = None


class _Settings(tables.Table):
    name: str | None = None
    command: tuple[str, ...] = ("python", "main.py")
    python: str | None = None
    base: str = projects.BASE
    packages: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ("linux/amd64",)
    torch: str | tuple[str, ...] = builds.AUTO
    requirements: str | None = None
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    prune: tuple[str, ...] = projects.PRUNE
    bytecode: Literal["imported", "all", "none"] = "imported"
    allow: tuple[str, ...] = ()
    data: tuple[_Data, ...] = ()
    metrics: dict[str, _Metric] = msgspec.field(default_factory=dict)
    seed: str | None = None


def read(table: Mapping[str, object], *, root: Path, name: str, has_deps: bool) -> Project:
    """Check the table and fill in its defaults; raise `UsageError` with every issue at once.

    ``name`` is the default for ``name``; ``has_deps`` tells that pyproject.toml itself lists
    dependencies, or says that only its build can.
    """
    issues: list[str] = []
    found = tables.read(_Settings, table, PATH, issues)
    if found is None:  # the values of the other keys are looked at all the same
        sound = {key: table[key] for key in table if _is_sound(key, table[key])}
        found = tables.read(_Settings, sound, PATH, [])
        assert found is not None, "no key is required"
    project = _Reader(issues).project(found, root, name, has_deps)
    if issues:
        raise _error(issues)
    return project


def _is_sound(key: str, value: object) -> bool:
    return tables.read(_Settings, {key: value}, PATH, []) is not None


def _error(issues: list[str]) -> UsageError:
    if len(issues) == 1:
        return UsageError(
            f"{issues[0]} (in pyproject.toml)", hint="see docs/cli.md for the settings"
        )
    lines = "".join(f"\n  {issue}" for issue in issues)
    return UsageError(f"pyproject.toml has {len(issues)} faulty settings:{lines}")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.netloc)


class _Reader:
    """Turns checked types into checked values, noting what is wrong by its path."""

    def __init__(self, issues: list[str]) -> None:
        self._issues = issues

    def project(self, found: _Settings, root: Path, name: str, has_deps: bool) -> Project:
        """Return the project; meaningless where issues were noted."""
        self._check(found)
        return Project(
            root=root,
            name=found.name or name,
            command=found.command,
            python=self._python(found),
            base=found.base,
            packages=tuple(sorted(set(found.packages))),
            platforms=self._platforms(found.platforms),
            torch=self._torch(found.torch),
            requirements=self._requirements(found.requirements, root, has_deps),
            environment=MappingProxyType({**projects.ENVIRONMENT, **found.environment}),
            exclude=found.exclude,
            prune=found.prune,
            bytecode=found.bytecode,
            allow=found.allow,
            data=self._data(found.data),
            metrics=tuple(self._metric(key, value) for key, value in found.metrics.items()),
            seed=found.seed,
        )

    def _note(self, key: str, fault: str) -> None:
        self._issues.append(f"{PATH}.{key}: {fault}")

    def _check(self, found: _Settings) -> None:
        if found.name is not None and not (_NAME.fullmatch(found.name) and len(found.name) < 200):
            self._note("name", f"{found.name!r} is not a repository name such as 'my-experiment'")
        if not found.command or not all(found.command[:1]):
            self._note("command", 'is empty: write a list such as ["python", "main.py"]')
        if any("\0" in word for word in found.command):
            self._note("command", "holds a NUL byte")
        if not found.base or re.search(r"\s", found.base):
            self._note("base", f"{found.base!r} is neither debian:SUITE nor an image reference")
        for i, package in enumerate(found.packages):
            if not _PACKAGE.fullmatch(package):
                self._note(f"packages[{i}]", f"{package!r} is not the name of a Debian package")
        if found.seed is not None and (fault := seeds.fault(found.seed)):
            self._note("seed", fault)
        for name, value in found.environment.items():
            if not _VARIABLE.fullmatch(name):
                self._note(f"environment.{name}", "is not a variable's name")
            elif name.startswith("TORCHSHIP_"):
                self._note(f"environment.{name}", "names that begin with TORCHSHIP_ are reserved")
            if "\0" in value:
                self._note(f"environment.{name}", "holds a NUL byte")
        for key in ("exclude", "prune", "allow"):
            for i, pattern in enumerate(getattr(found, key)):
                if not pattern.strip() or "\0" in pattern:
                    self._note(f"{key}[{i}]", "is an empty pattern")
                elif key == "prune" and (pattern.startswith("/") or ".." in pattern.split("/")):
                    self._note(f"prune[{i}]", f"{pattern!r} does not start in site-packages")

    def _torch(self, found: str | tuple[str, ...]) -> tuple[str, ...]:
        names = (found,) if isinstance(found, str) else found
        for i, name in enumerate(names):
            at = "torch" if isinstance(found, str) else f"torch[{i}]"
            if not builds.is_build(name):
                self._note(at, f"{name!r} is not a build of torch: auto, cpu, cu130, ...")
            elif name == builds.AUTO and len(names) > 1:
                self._note(at, "auto can only stand alone: name each variant's build")
            elif name in names[:i]:
                self._note(at, f"{name} is listed twice")
        if not names:
            self._note("torch", 'is empty: write "auto", or a list such as ["cpu", "cu130"]')
        return names

    def _python(self, found: _Settings) -> str:
        kind, _, suite = found.base.partition(":")
        carried = projects.SUITES.get(suite) if kind == "debian" else None
        python = found.python or carried or "3.11"
        if not re.fullmatch(r"3\.[0-9]{1,2}", python):
            self._note("python", f'{python!r} is not a version such as "3.11"')
        elif carried is not None and python != carried:
            others = [suite for suite, version in projects.SUITES.items() if version == python]
            base = f"debian:{others[0]}" if others else f"python:{python}-slim"
            self._note("python", f'{found.base} has Python {carried}: take base = "{base}"')
        return python

    def _platforms(self, texts: tuple[str, ...]) -> tuple[Platform, ...]:
        found = []
        for i, text in enumerate(texts):
            try:
                found.append(Platform.parse(text))
            except UsageError as error:
                self._note(f"platforms[{i}]", error.message)
        if not texts:
            self._note("platforms", 'is empty: write a list such as ["linux/amd64"]')
        return tuple(dict.fromkeys(found))

    def _requirements(self, named: str | None, root: Path, has_deps: bool) -> str | None:
        if named is not None:
            inside = PurePosixPath(named)
            if inside.is_absolute() or ".." in inside.parts:
                self._note("requirements", f"{named!r} does not start in the project")
            elif not (root / inside).is_file():
                self._note("requirements", f"{named!r} is not a file of the project")
            return named
        for name in ("requirements.txt", "pylock.toml"):
            if (root / name).is_file():
                return name
            if (root / name).is_dir():
                self._note("requirements", f"{name} is a folder: name a file in it")
        return projects.PYPROJECT if has_deps else None

    def _data(self, files: tuple[_Data, ...]) -> tuple[DataFile, ...]:
        found: dict[str, DataFile] = {}
        for i, item in enumerate(files):
            at = f"data[{i}]"
            path = self._data_path(item.path, f"{at}.path")
            try:
                digest = Digest(item.sha256.lower())
            except InvalidDigest:
                self._note(f"{at}.sha256", "expected 64 hexadecimal digits")
                continue
            for j, url in enumerate(item.urls):
                if not _is_address(url):
                    self._note(f"{at}.urls[{j}]", f"{url!r} is not an http or https address")
            for other in found:
                if path == other:
                    self._note(f"{at}.path", f"{path} is listed twice")
                elif path.startswith(f"{other}/") or other.startswith(f"{path}/"):
                    self._note(f"{at}.path", f"{path} and {other} cannot both be files")
            found[path] = DataFile(path=path, digest=digest, urls=item.urls)
        return tuple(found.values())

    def _data_path(self, text: str, at: str) -> str:
        parts = text.split("/")
        if not text or "\0" in text or ".." in parts or text.endswith("/"):
            self._note(at, f"{text!r} does not name a file; relative paths start at /workspace")
            return text
        path = str(projects.WORKSPACE / "/".join(p for p in parts if p not in ("", ".")))
        if text.startswith("/"):
            path = "/" + "/".join(part for part in parts if part not in ("", "."))
        for system in (*_SYSTEM, "/", str(projects.WORKSPACE)):
            if path == system or (system in _SYSTEM and path.startswith(f"{system}/")):
                self._note(at, f"{path} would break the image: take a path such as /data/...")
        return path

    def _metric(self, name: str, item: _Metric) -> Metric:
        at = f"metrics.{name}"
        if item.file is not None and item.pattern is not None:
            self._note(at, "takes `file` or `pattern`, not both")
        if item.file is not None:
            inside = PurePosixPath(item.file)
            if inside.is_absolute() or ".." in inside.parts or not item.file:
                self._note(f"{at}.file", f"{item.file!r} does not start in the output directory")
        if item.pattern is not None:
            try:
                groups = re.compile(item.pattern).groups
            except re.error as error:
                self._note(f"{at}.pattern", f"is not a regular expression: {error}")
            else:
                if groups not in (1, 2):
                    self._note(
                        f"{at}.pattern",
                        "needs one group, (...), around the number, or two of a fraction",
                    )
        if item.tolerance is not None and not 0 <= item.tolerance < float("inf"):
            self._note(f"{at}.tolerance", "is not a number of zero or more")
        if item.examples is not None and item.examples < 1:
            self._note(f"{at}.examples", "is not a number of one or more")
        return Metric(
            name=name,
            file=None if item.pattern is not None else item.file or "metrics.json",
            pattern=item.pattern,
            better=item.better,
            tolerance=item.tolerance,
            examples=item.examples,
        )
