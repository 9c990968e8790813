"""What a wheel installs: each file's path in the image, as ``pip install --no-deps`` places it.

Source: PyPA specifications, "Binary distribution format", and "Recording installed projects".
Where they leave a choice, pip's is taken, so that both trees are the same, file by file: the
modes, ``INSTALLER`` and ``REQUESTED`` (each wheel of a lock is one that was asked for), the
order and the line ends of ``RECORD``. pip trusts the hashes that a wheel's ``RECORD`` states,
and so do we: the whole wheel is pinned by sha256.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
import re
from collections.abc import Callable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from torchship.amounts import counted
from torchship.layers import entrypoints
from torchship.layers.layout import VENV, site_packages
from torchship.layers.wheelzip import Member, WheelZip
from torchship.project.project import minor

_PREFIX = VENV[1:]
_PYTHON = f"{VENV}/bin/python"
_TEXT = 64 << 20  # bytes of a RECORD, or of a script whose first line is rewritten
_LINE, _NAMED = 80, 3  # characters, and lines, of a file's that are shown
_SCHEMES = ("data", "headers", "platlib", "purelib", "scripts")
_WHEEL_VERSION = re.compile(r"^Wheel-Version:(.*)$", re.IGNORECASE | re.MULTILINE)
# What the venv itself consists of; a wheel that replaced it would break every program.
_TAKEN = ("bin/python", "bin/python3", "pyvenv.cfg", "lib64")


class Placed(Struct, frozen=True, kw_only=True):
    """A file of the image. ``content`` stands for the wheel's bytes where pip writes others."""

    path: str
    mode: int
    member: Member | None = None
    content: bytes = b""


def place(
    wheel: WheelZip, python: str, pruned: Callable[[str], bool], say: Callable[[str], None]
) -> tuple[Placed, ...]:
    """Return what a wheel installs, in pip's order: where two files share a path, the later wins.

    ``pruned`` is true for paths in site-packages to leave out; ``say`` is told of programs that
    cannot be made. Raises `WheelError`.
    """
    plan = _Plan(wheel=wheel, python=minor(python), library=site_packages(python))
    dist_info = _dist_info(wheel)
    _check_wheel_file(wheel, plan, dist_info)
    declared = entrypoints.parse(plan.text(f"{dist_info}/entry_points.txt") or "")
    programs, refused = declared.programs(plan.python)
    if refused:
        say(_told(wheel.name, refused))
    roots = [member for member in wheel.members if not _is_data(member.name)]
    data = [member for member in wheel.members if _is_data(member.name)]
    for member in roots:
        plan.add_member(member, f"{plan.library}/{member.name}")
    for member in data:
        if not _is_script(member.name):
            plan.add_member(member, plan.scheme_path(member))
    for member in data:
        # A launcher that the wheel's builder made is replaced by ours.
        if _is_script(member.name) and _program_name(member.name) not in declared.names:
            plan.add_script(member, plan.scheme_path(member))
    for program in sorted(programs, key=lambda program: program.name):
        plan.add_generated(f"{_PREFIX}/bin/{program.name}", program.launcher(_PYTHON), mode=0o755)
    plan.add_generated(f"{plan.library}/{dist_info}/INSTALLER", b"pip\n")
    plan.add_generated(f"{plan.library}/{dist_info}/REQUESTED", b"")
    plan.add_record(dist_info, pruned)
    inside = len(plan.library) + 1
    return tuple(
        placed
        for path, placed in plan.placed.items()
        if not (path.startswith(f"{plan.library}/") and pruned(path[inside:]))
    )


class _Plan(Struct, kw_only=True):
    """A wheel's files as they find their places; rows are those of the new RECORD."""

    wheel: WheelZip
    python: str
    library: str
    placed: dict[str, Placed] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # a member's name: its row's path
    changed: dict[str, bytes] = field(default_factory=dict)  # a row's path: rewritten content
    generated: list[tuple[str, bytes]] = field(default_factory=list)

    def member(self, name: str) -> Member | None:
        return next((member for member in self.wheel.members if member.name == name), None)

    def text(self, name: str) -> str | None:
        """Return a text file of the wheel, or None where it has none of that name."""
        member = self.member(name)
        if member is None:
            return None
        try:
            return self.wheel.read(member, _TEXT).decode()
        except UnicodeDecodeError:
            raise self.wheel.error("is not UTF-8", name) from None

    def scheme_path(self, member: Member) -> str:
        """Return where a member of the .data folder goes ("The .data directory")."""
        _, _, rest = member.name.partition("/")
        scheme, _, inside = rest.partition("/")
        if scheme not in _SCHEMES or not inside:
            schemes = ", ".join(_SCHEMES)
            raise self.wheel.error(f"is in a .data folder, but in none of {schemes}", member.name)
        if scheme in ("platlib", "purelib"):
            return f"{self.library}/{inside}"
        if scheme == "headers":
            # pip's choice in a virtual environment: include/site/pythonX.Y/NAME.
            name = canonicalize_name(self.wheel.name.partition("-")[0])
            return f"{_PREFIX}/include/site/python{self.python}/{name}/{inside}"
        return f"{_PREFIX}/bin/{inside}" if scheme == "scripts" else f"{_PREFIX}/{inside}"

    def add_member(self, member: Member, path: str) -> None:
        self._put(Placed(path=path, mode=0o755 if member.executable else 0o644, member=member))
        self.moved[member.name] = self._row(path)

    def add_script(self, member: Member, path: str) -> None:
        """Place a script; "if its first line starts with #!python, rewrite it"."""
        self.add_member(member, path)
        if self.wheel.head(member, 8) == b"#!python":
            content = self.wheel.read(member, _TEXT)
            rest = content.partition(b"\n")[2]
            content = b"#!%b\n%b" % (_PYTHON.encode(), rest)
            mode = 0o755 if member.executable else 0o644
            self._put(Placed(path=path, mode=mode, content=content))
            self.changed[self._row(path)] = content

    def add_generated(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._put(Placed(path=path, mode=mode, content=content))
        self.generated.append((self._row(path), content))

    def add_record(self, dist_info: str, pruned: Callable[[str], bool]) -> None:
        """Write the new RECORD: the wheel's rows where they moved to, then what was made."""
        name = f"{dist_info}/RECORD"
        text = self.text(name)
        if text is None:
            raise self.wheel.error("has no RECORD")
        moved = dict(self.moved)
        rows = []
        for old in _rows(self.wheel, name, text):
            path = moved.pop(old[0], old[0])
            stated = (*old[1:3], "", "")
            rows.append(
                (path, *(_sums(self.changed[path]) if path in self.changed else stated[:2]))
            )
        # Of programs that share a name, each has a row, and all say what the last one is.
        last = dict(self.generated)
        rows.extend((path, *_sums(last[path])) for path, _ in self.generated)
        rows.extend((path, "", "") for path in moved.values())
        stream = io.StringIO(newline="")
        kept = (row for row in rows if row[0].startswith("../") or not pruned(row[0]))
        csv.writer(stream).writerows(sorted(kept))
        content = stream.getvalue().encode()
        self._put(Placed(path=f"{self.library}/{name}", mode=0o644, content=content))

    def _put(self, placed: Placed) -> None:
        inside = placed.path.removeprefix(f"{_PREFIX}/")
        if inside in (*_TAKEN, f"bin/python{self.python}"):
            raise self.wheel.error(f"would replace {VENV}/{inside}")
        if inside.startswith("lib64/"):  # the venv's link to lib
            placed = replace(placed, path=f"{_PREFIX}/lib/{inside.removeprefix('lib64/')}")
        # Popped first: where two members share a path, the order is that of the later.
        self.placed.pop(placed.path, None)
        self.placed[placed.path] = placed

    def _row(self, path: str) -> str:
        inside = f"{self.library}/"
        if path.startswith(inside):
            return path[len(inside) :]
        return posixpath.relpath(path, self.library)


def _is_data(name: str) -> bool:
    return name.partition("/")[0].endswith(".data")


def _is_script(name: str) -> bool:
    parts = name.split("/", 2)
    return len(parts) == 3 and parts[0].endswith(".data") and parts[1] == "scripts"


def _program_name(name: str) -> str:
    """Return the entry point that setuptools' launcher of this path would be for."""
    last = name.rpartition("/")[2]
    for suffix in (".exe", "-script.py", ".pya"):
        if last.lower().endswith(suffix):
            return last[: -len(suffix)]
    return last


def _dist_info(wheel: WheelZip) -> str:
    """Return the name of the one .dist-info folder, which must be that of the wheel's own name."""
    tops = {member.name.partition("/")[0] for member in wheel.members if "/" in member.name}
    found = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(found) != 1:
        raise wheel.error(f"has {len(found)} .dist-info folders where a wheel has one")
    try:
        name, version, *_ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise wheel.error(f"does not have the name of a wheel ({error})") from None
    stated_name, _, stated_version = found[0].removesuffix(".dist-info").partition("-")
    if canonicalize_name(stated_name) != name or not _same(stated_version, version):
        raise wheel.error(f"holds another distribution: {found[0]}")
    return found[0]


def _same(text: str, version: Version) -> bool:
    try:
        return Version(text) == version
    except InvalidVersion:  # "-" is escaped to "_" in the names of files
        return text == str(version).replace("-", "_")


def _check_wheel_file(wheel: WheelZip, plan: _Plan, dist_info: str) -> None:
    """Refuse another major version of the format, as "installers" are told to.

    Tags are not compared: wheels that were renamed for another platform are common, and the
    file's name is what the resolver chose by. In a venv, purelib and platlib are one folder.
    """
    text = plan.text(f"{dist_info}/WHEEL")
    if text is None:
        raise wheel.error("has no WHEEL file")
    # "WHEEL is the wheel metadata file, in the same basic key: value format as METADATA"
    found = _WHEEL_VERSION.search(text)
    version = found[1].strip() if found else None
    if version is None or version.partition(".")[0] != "1":
        raise wheel.error(f"is of wheel version {version}, and we know version 1")


def _told(wheel: str, refused: Sequence[str]) -> str:
    named = ", ".join(ascii(line[:_LINE]) for line in refused[:_NAMED])
    more = len(refused) - _NAMED
    rest = f" and {counted(more, 'other')}" if more > 0 else ""
    return (
        f"{wheel}: no program is made of {named}{rest} in its entry_points.txt, which pip refuses "
        "to install"
    )


def _rows(wheel: WheelZip, name: str, text: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(text.splitlines()) if row]
    except csv.Error as error:
        raise wheel.error(f"is not a RECORD: {error}", name) from None


def _sums(content: bytes) -> tuple[str, str]:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest}", str(len(content))
