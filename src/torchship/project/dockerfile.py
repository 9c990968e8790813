"""``torchship dockerfile``: the model Dockerfile of a project, for those who want plain Docker.

Source: Docker's Dockerfile reference. Only what Docker 20.10 builds without BuildKit; no address
of a package index, which may hold a password and differs from machine to machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from torchship import canonical
from torchship.errors import ProjectError, UsageError
from torchship.project import builds, modules, requirements, textfile
from torchship.project.project import ENVIRONMENT, PYPROJECT, SUITES, WORKSPACE, DataFile, Project
from torchship.project.requirements import Requirements

VENV = "/opt/venv"
OUTPUT = "/output"

_FETCH = "python3 -c 'import sys, urllib.request as http; http.urlretrieve(*sys.argv[1:])'"
"""Slim images have neither curl nor wget; they have Python."""


def render(project: Project, *, paths: Iterable[str] = ()) -> str:
    """Return the Dockerfile; each instruction stands below what it is for.

    ``paths`` are those of the project that go into the image: packages in ``src/`` are found.
    Raises `ProjectError` where the requirements cannot be read, and `UsageError` for what a
    Dockerfile has no words for: anything of several lines.
    """
    needs = requirements.read(project)
    if needs.has_itself:
        raise ProjectError(
            f"{project.requirements} has the project install itself, which no Dockerfile can do "
            "before the code is there",
            hint="list what it needs instead; the code is copied anyway",
        )
    _check_lines(project, needs)
    sections = [
        _head(project),
        _base(project),
        _indexes(project),
        _variables(),
        *_packages(project.packages),
        _user(project),
        _workdir(),
        *_requirements(needs, project),
        *_data(project.data),
        *_environment(project),
        *_search_path(project, paths),
        _code(project),
        _run(project),
    ]
    return "\n\n".join(sections) + "\n"


def write(text: str, path: Path) -> Path:
    """Write a Dockerfile, and return its path; never over one that says something else."""
    if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
        raise ProjectError(
            f"{path} is there already, with other content",
            hint="remove it, or write to another file",
        )
    textfile.write(path, text)
    return path


def _check_lines(project: Project, needs: Requirements) -> None:
    """Raise `UsageError` for a text that would end a line, and so begin an instruction."""
    texts = {f"tool.torchship.environment.{k}": v for k, v in project.environment.items()}
    texts |= {f"tool.torchship.command[{i}]": word for i, word in enumerate(project.command)}
    for i, file in enumerate(project.data):
        texts |= {f"tool.torchship.data[{i}].urls[{j}]": url for j, url in enumerate(file.urls)}
        texts[f"tool.torchship.data[{i}].path"] = file.path
    texts |= {f"the path {name!r}": name for name in needs.digests}
    for at, text in texts.items():
        if any(letter in text for letter in "\n\r\f\v"):
            raise UsageError(
                f"{at} has several lines, which no Dockerfile can hold",
                hint="write it on one line, or let the program read it from a file",
            )


def _head(project: Project) -> str:
    command = shlex.join(project.command)
    return (
        "# A Dockerfile: read it from top to bottom, as the build does.\n"
        "#\n"
        f"#   docker build . -t me/{project.name}:v0.1\n"
        f"#   docker run -it me/{project.name}:v0.1 {command}"
    )


def _base(project: Project) -> str:
    reference = project.base
    kind, _, suite = project.base.partition(":")
    if kind == "debian":
        # Docker's own image of Python stands on the same Debian, where the suite is known.
        reference = f"python:{project.python}-slim"
        reference += f"-{suite}" if suite in SUITES else ""
    return (
        "# FROM names the image that this one starts from: any with Python "
        f"{project.python}. An ARG before\n"
        "# FROM is a setting of the build: docker build --build-arg BASE=debian-with-python .\n"
        f"ARG BASE={reference}\n"
        "FROM ${BASE}"
    )


def _indexes(project: Project) -> str:
    build = project.torch[0]
    purpose = "for one more index."
    if build == builds.CPU:
        purpose = "for a CPU-only torch."
    elif build != builds.AUTO:
        purpose = f"for torch's {build} build."
    return (
        "# pip reads its settings from the environment. Declared here, they can be given to the "
        "build, and\n"
        "# are no variables of the image; docker history shows them, so they are no place for "
        "passwords:\n"
        f"# --build-arg PIP_EXTRA_INDEX_URL=... {purpose}\n"
        "ARG PIP_INDEX_URL\n"
        "ARG PIP_EXTRA_INDEX_URL\n"
        "ARG PIP_FIND_LINKS"
    )


def _variables() -> str:
    return (
        "# ENV stays: print at once, so that docker logs shows each line as it comes; the venv "
        "first;\n"
        "# and where a program leaves what it gives, for those that ask.\n"
        "ENV PYTHONUNBUFFERED=1 \\\n"
        f"    PATH={VENV}/bin:$PATH \\\n"
        f"    TORCHSHIP_OUTPUT={OUTPUT}"
    )


def _packages(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield (
            "# Debian packages. Lists of what there is are fetched, used and removed in one step: "
            "each RUN is\n"
            "# a layer, and what a later one removes is still in it.\n"
            "RUN apt-get update \\\n"
            f"    && apt-get install --yes --no-install-recommends {shlex.join(names)} \\\n"
            "    && rm -rf /var/lib/apt/lists/*"
        )


def _user(project: Project) -> str:
    # Where ../data leads: torchvision's examples download to it.
    baked = any(f"{file.path}/".startswith("/data/") for file in project.data)
    folders = f"{WORKSPACE} {OUTPUT}" if baked else f"{WORKSPACE} {OUTPUT} /data"
    return (
        "# RUN runs a command, and keeps what it changed as a layer. The program gets a user of "
        "its own:\n"
        "# whoever breaks out of it is not root. These directories it may write to.\n"
        "RUN useradd --uid 1000 --create-home user \\\n"
        f"    && install --directory --owner=user --group=user {folders}"
    )


def _workdir() -> str:
    return (
        "# WORKDIR is the directory that everything below happens in, and the program starts in.\n"
        f"WORKDIR {WORKSPACE}"
    )


def _requirements(needs: Requirements, project: Project) -> Iterator[str]:
    """Install what the project needs, from copies of nothing but the files that say so."""
    if needs.file is not None:
        yield "\n".join(
            [
                "# COPY brings files from the build's directory. Dependencies come before code: "
                "Docker repeats a",
                "# step only when its input changed, so an edit of the code does not install "
                "torch again.",
                *(_copy(name) for name in _inputs(needs, project)),
            ]
        )
    make = f"RUN python3 -m venv {VENV}"
    steps = [make, *_install(needs, project)]
    yield (
        "# A virtual environment, since some bases (Debian's Python) let pip change nothing else.\n"
        + " \\\n    && ".join(steps)
    )


def _inputs(needs: Requirements, project: Project) -> Iterator[str]:
    """Yield the requirements' files, then the folders of wheels inside the project."""
    unread = {needs.settings.file} - {project.requirements}  # pip has other settings than uv
    yield from sorted(needs.digests.keys() - unread)
    root = project.root.resolve()
    for option in needs.options:
        place = Path(option.partition(" ")[2])
        if place.is_absolute() and place.is_relative_to(root) and place.is_dir():
            yield f"{place.relative_to(root).as_posix()}/"


def _copy(name: str) -> str:
    folder = name if name.endswith("/") else f"{PurePosixPath(name).parent}/"
    target = "." if folder == "./" else f"./{folder}"
    if any(letter in name for letter in " \t\"'[]"):
        return f"COPY {_array([name, target])}"
    return f"COPY {name} {target}"


def _install(needs: Requirements, project: Project) -> Iterator[str]:
    if needs.file is None:
        return
    if needs.is_lock:
        yield "pip install --no-cache-dir uv"
        yield f"uv pip install --no-cache --requirement {shlex.quote(project.requirements or '')}"
    elif project.requirements == PYPROJECT:
        minor = int(project.python.partition(".")[2])
        toml = "import tomllib" if minor >= 11 else "from pip._vendor import tomli as tomllib"
        yield (
            f"python -c '{toml}; \\\n"
            'print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], '
            'sep="\\n")\' > /tmp/requirements.txt'
        )
        yield "pip install --no-cache-dir --requirement /tmp/requirements.txt"
    else:
        name = shlex.quote(project.requirements or "")
        yield f"pip install --no-cache-dir --requirement {name}"


def _data(files: Sequence[DataFile]) -> Iterator[str]:
    """Fetch data files, each from the first of its addresses that has its very bytes."""
    by_hand = [file for file in files if not file.urls]
    if by_hand:
        lines = [_by_hand(file) for file in by_hand]
        yield "\n".join(
            [
                "# Data that no address is known for: put it beside this file, under these names.",
                *(f"COPY {_array([name, file.path])}" for file, name in lines),
                "RUN " + " \\\n    && ".join(_check(file) for file, _ in lines),
            ]
        )
    known = [file for file in files if file.urls]
    if known:
        calls = [
            " \\\n        ".join(
                [
                    f"fetch {shlex.quote(file.path)} {file.digest.hex}",
                    *(shlex.quote(url) for url in file.urls),
                ]
            )
            for file in known
        ]
        yield (
            "# Data, before the code that reads it. Each file is known by its sha256: other bytes, "
            "from\n"
            "# whatever address, end the build.\n"
            "RUN fetch() { \\\n"
            '        file="$1"; sum="$2"; shift 2; mkdir -p "$(dirname "$file")"; \\\n'
            '        for url in "$@"; do \\\n'
            f'            {_FETCH} "$url" "$file" \\\n'
            '                && echo "$sum  $file" | sha256sum --check && return; \\\n'
            "        done; \\\n"
            '        echo "no address gave $file" >&2; return 1; \\\n'
            "    }; \\\n    " + " \\\n    && ".join(calls)
        )


def _by_hand(file: DataFile) -> tuple[DataFile, str]:
    return file, PurePosixPath(file.path).name


def _check(file: DataFile) -> str:
    line = shlex.quote(f"{file.digest.hex}  {file.path}")
    return f"echo {line} | sha256sum --check"


def _environment(project: Project) -> Iterator[str]:
    own = {
        name: value for name, value in project.environment.items() if ENVIRONMENT.get(name) != value
    }
    if own:
        pairs = " \\\n    ".join(f"{name}={_quoted(value)}" for name, value in own.items())
        yield f"# What the program reads from its environment.\nENV {pairs}"


def _quoted(value: str) -> str:
    """Write a value so that Docker takes it as it is: it would replace $NAME."""
    escaped = "".join(f"\\{letter}" if letter in '\\"$' else letter for letter in value)
    return f'"{escaped}"'


def _search_path(project: Project, paths: Iterable[str]) -> Iterator[str]:
    place = modules.search_path(project, paths)
    if place:
        yield (
            "# Where Python looks for the code's packages, which are copied and not installed.\n"
            f"ENV {modules.VARIABLE}={place}"
        )


def _code(project: Project) -> str:
    lines = ["# The code last. What .dockerignore names stays out."]
    if project.exclude:
        lines.append(f"# Name there, too: {_array(project.exclude)}")
    return "\n".join([*lines, "COPY . ."])


def _run(project: Project) -> str:
    command = _array(project.command)
    return (
        "# From here on, and when the image is run: not root.\n"
        "USER user\n\n"
        "# CMD is what docker run does when no other command is given.\n"
        f"CMD {command}"
    )


def _array(words: Sequence[str]) -> str:
    """Write words as the JSON array that Docker takes them from without a shell."""
    return f"[{', '.join(canonical.encode(word).decode() for word in words)}]"
