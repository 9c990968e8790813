"""What Debian's maintainer scripts would have made, and an image needs.

Each piece names the package whose script it stands for. Read on Debian 12 and 13.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from torchship.layers.archive import Entry, Kind
from torchship.layers.layout import GID, HOME, UID, USER

DIRECTORIES = (
    # base-files; parents first. Where a package names one of these, this mode holds.
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/sbin", 0o755),
    *((f"usr/local/{name}", 0o755) for name in ("bin", "etc", "include", "lib", "sbin", "share")),
    *((name, 0o755) for name in ("boot", "dev", "etc", "home", "media", "mnt", "opt", "proc")),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/tmp", 0o1777),
)

LINKS = {
    # usr-merge (usrmerge, and debootstrap): packages may still say /bin and mean /usr/bin.
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib32": "usr/lib32",
    "lib64": "usr/lib64",
    "libx32": "usr/libx32",
    "sbin": "usr/sbin",
    # base-files
    "var/lock": "/run/lock",
    "var/run": "/run",
}
"""Symlinks that stand before any package is unpacked; a path through them lands behind them."""

FIRST_LINKS = ("bin", "lib", "sbin", "var/lock", "var/run")
"""Those of `LINKS` that every image has; the others come with the first path through them."""

ALTERNATIVES = (
    # update-alternatives: (the name, who answers to it)
    ("usr/bin/awk", "usr/bin/mawk"),
    ("usr/bin/editor", "usr/bin/nano"),
    ("usr/bin/nawk", "usr/bin/mawk"),
    ("usr/bin/pager", "usr/bin/less"),
    ("usr/bin/sh", "usr/bin/dash"),
    ("usr/bin/vi", "usr/bin/vim.tiny"),
    ("usr/bin/which", "usr/bin/which.debianutils"),
)

_COPIES = {
    # base-files and libc-bin copy these; base-passwd makes its own of the master files.
    "etc/motd": "usr/share/base-files/motd",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
    "etc/profile": "usr/share/base-files/profile",
    "root/.bashrc": "usr/share/base-files/dot.bashrc",
    "root/.profile": "usr/share/base-files/dot.profile",
}
_PASSWD = "usr/share/base-passwd/passwd.master"  # noqa: S105 (a path)
_GROUP = "usr/share/base-passwd/group.master"
_STATIC = (
    # Debian policy, 9.2: ids that are the same on every system; base-passwd has the full list.
    ("root", 0, "/root", "/bin/bash"),
    ("daemon", 1, "/usr/sbin", "/usr/sbin/nologin"),
    ("bin", 2, "/bin", "/usr/sbin/nologin"),
    ("sys", 3, "/dev", "/usr/sbin/nologin"),
    ("mail", 8, "/var/mail", "/usr/sbin/nologin"),
    ("nobody", 65534, "/nonexistent", "/usr/sbin/nologin"),
)
_STATIC_GROUPS = (
    *(("root", 0), ("daemon", 1), ("bin", 2), ("sys", 3), ("adm", 4), ("tty", 5), ("disk", 6)),
    *(("mail", 8), ("shadow", 42), ("utmp", 43), ("staff", 50), ("users", 100)),
    ("nogroup", 65534),
)
_SHELLS = "usr/share/debianutils/shells"
_AUTHORITIES = "usr/share/ca-certificates/"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_HOSTS = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

USER_ROW = f"{USER}:*:{UID}:{GID}::{HOME}:/bin/bash\n".encode()
GROUP_ROW = f"{USER}:*:{GID}:\n".encode()
"""The run user. "*" lets nobody log in by password."""

REVISION = 1
"""Raised whenever `generated` would give other bytes."""

KEPT_SIZE = 256 << 10
"""Bytes: larger files are never kept in memory, whatever their name."""


class Installed(Struct, frozen=True, kw_only=True):
    """A package that is in the layer: its control paragraph, its checksums, its paths."""

    control: str
    md5sums: str
    paths: tuple[str, ...]

    def field(self, name: str) -> str:
        """Return a field of the control paragraph, or an empty text."""
        for line in self.control.split("\n"):
            key, colon, value = line.partition(":")
            if colon and key.lower() == name.lower():
                return value.strip()
        return ""


def is_kept(path: str) -> bool:
    """Say whether a file of a package is the source of something generated."""
    return (
        path in _COPIES.values()
        or path in (_PASSWD, _GROUP)
        or path == _SHELLS
        or path.startswith(f"{_SHELLS}.d/")
        or (path.startswith(_AUTHORITIES) and path.endswith(".crt"))
    )


def generated(
    kept: Mapping[str, bytes], installed: Iterable[Installed]
) -> Iterator[tuple[Entry, tuple[bytes, ...]]]:
    """Yield the generated files, sorted by path within each package's share of them.

    A file whose source no package brought is not made, but for the users: nothing needs the
    package base-passwd, and without a name for its user, much in the image would not work.
    """
    # base-passwd: update-passwd. The run user is ours.
    yield _file("etc/passwd", kept.get(_PASSWD, static_users()) + USER_ROW)
    yield _file("etc/group", kept.get(_GROUP, static_groups()) + GROUP_ROW)
    for path, source in _COPIES.items():
        if source in kept:
            yield _file(path, kept[source])
    yield _file("etc/hosts", _HOSTS)
    # debianutils: update-shells
    shells = [kept[path] for path in sorted(kept) if path.startswith(_SHELLS)]
    if shells:
        yield _file("etc/shells", b"".join(shells))
    # tzdata
    yield _link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    yield _file("etc/timezone", b"Etc/UTC\n")
    # ca-certificates: update-ca-certificates, less the links by hash: what OpenSSL looks for
    # in their place is a file named cert.pem beside its configuration.
    authorities = sorted(path for path in kept if path.startswith(_AUTHORITIES))
    if authorities:
        names = "".join(f"{path.removeprefix(_AUTHORITIES)}\n" for path in authorities)
        yield _file("etc/ca-certificates.conf", names.encode())
        yield _file(_BUNDLE, b"".join(kept[path].rstrip(b"\n") + b"\n" for path in authorities))
        yield _link("usr/lib/ssl/cert.pem", f"/{_BUNDLE}")
    yield from _database(list(installed))


def static_users() -> bytes:
    """Return a ``passwd`` file of the users that every Debian has."""
    rows = (f"{name}:*:{uid}:{uid}:{name}:{home}:{shell}\n" for name, uid, home, shell in _STATIC)
    return "".join(rows).encode()


def static_groups() -> bytes:
    """Return a ``group`` file of the groups that every Debian has."""
    return "".join(f"{name}:*:{gid}:\n" for name, gid in _STATIC_GROUPS).encode()


def _database(installed: list[Installed]) -> Iterator[tuple[Entry, tuple[bytes, ...]]]:
    """Yield dpkg's database, by which scanners see the packages and apt goes on from them."""
    status = []
    for package in installed:
        first, _, rest = package.control.partition("\n")
        status.append(f"{first}\nStatus: install ok installed\n{rest}\n")
        name = package.field("Package")
        if package.field("Multi-Arch") == "same":
            name = f"{name}:{package.field('Architecture')}"
        paths = "".join(f"/{path}\n" for path in (".", *package.paths))
        yield _file(f"var/lib/dpkg/info/{name}.list", paths.encode())
        here = set(package.paths)
        sums = [f"{line}\n" for line in package.md5sums.splitlines() if line[34:] in here]
        yield _file(f"var/lib/dpkg/info/{name}.md5sums", "".join(sums).encode())
    yield _file("var/lib/dpkg/info/format", b"1\n")
    yield _file("var/lib/dpkg/status", "\n".join(status).encode())


def _file(path: str, content: bytes) -> tuple[Entry, tuple[bytes, ...]]:
    return Entry(path=path, mode=0o644, size=len(content)), (content,)


def _link(path: str, target: str) -> tuple[Entry, tuple[bytes, ...]]:
    return Entry(path=path, kind=Kind.SYMLINK, mode=0o777, target=target), ()
