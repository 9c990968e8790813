"""What the native engine does for GPUs: the edits of CDI specifications, without root.

Device nodes and files of the host are bound into the container, since no namespace of an
ordinary user can make nodes. Of NVIDIA's hooks, which want root, the engine does itself what a
program needs: the symlinks, and that the libraries are found. docs/gpu.md says which not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct, field

from torchship.engines.container import Bind
from torchship.engines.soname import soname
from torchship.errors import EngineError

if TYPE_CHECKING:  # a run without a GPU reads no specification
    from torchship.engines.cdi import Hook, Mount, Placed

LIBRARIES = "/run/torchship/gpu"
"""A folder of the container with links to the driver's libraries and nothing else, so that it
can stand in LD_LIBRARY_PATH without hiding a library of the image."""

_RIGHTS = frozenset(("ro", "rw", "nosuid", "nodev", "noexec", "bind", "rbind"))
_PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave"))
_HOOK_PROGRAMS = ("nvidia-cdi-hook", "nvidia-ctk")
_ANOTHER_ENGINE = "run the image with --engine docker or podman"
_STALE = "was the driver updated since? "


class Injection(Struct, frozen=True, kw_only=True):
    """What a container gets besides what its image and its request say.

    ``links`` maps paths in the container to the targets of symlinks made there.
    """

    binds: tuple[Bind, ...] = ()
    devices: tuple[Bind, ...] = ()
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def libraries(self) -> bool:
        """Tell whether there is anything in `LIBRARIES`."""
        return any(path.startswith(f"{LIBRARIES}/") for path in self.links)


def inject(edits: Sequence[Placed]) -> Injection:
    """Return what edits come to; raise `EngineError` for what cannot be done, or is not there."""
    binds = {bind.target: bind for placed in edits for bind in _binds(placed)}
    devices = {node.target: node for placed in edits for node in _devices(placed)}
    environment = {}
    links: dict[str, str] = {}
    folders: set[str] = set()
    for placed in edits:
        if placed.edits.net_devices:
            raise _impossible(placed.fault("netDevices", "network devices cannot be passed on"))
        for line in placed.edits.env:
            name, _, value = line.partition("=")
            environment[name] = value
        for place, hook in enumerate(placed.edits.hooks):
            made, searched = _hook(placed, place, hook)
            links |= made
            folders |= searched
    found = _found(binds.values(), links, folders)
    links = {path: target for path, target in (links | found).items() if path not in binds}
    return Injection(
        binds=tuple(binds.values()),
        devices=tuple(devices.values()),
        links=links,
        environment=environment,
    )


def _devices(placed: Placed) -> Iterator[Bind]:
    for place, node in enumerate(placed.edits.device_nodes):
        where = f"deviceNodes[{place}]"
        try:
            kind = os.stat(node.source).st_mode  # noqa: PTH116 (a path of a specification)
            hidden = os.statvfs(node.source).f_flag & os.ST_NODEV
        except OSError as error:
            said = f"{node.source} is not there: {_STALE}({error.strerror})"
            raise placed.fault(where, said) from None
        if not stat.S_ISCHR(kind) and not stat.S_ISBLK(kind):
            raise placed.fault(where, f"{node.source} is no device node")
        if hidden:
            raise placed.fault(where, f"{node.source} is on a file system mounted nodev")
        yield Bind(source=Path(node.source), target=node.path, read_only=False)


def _binds(placed: Placed) -> Iterator[Bind]:
    for place, mount in enumerate(placed.edits.mounts):
        where = f"mounts[{place}]"
        options = set(mount.options)
        if _is_special(mount) or options - _RIGHTS - _PROPAGATION:
            said = f"a mount of type {mount.type or 'none'!r} with {','.join(mount.options)}"
            raise _impossible(placed.fault(where, f"{said} cannot be made without root"))
        source = Path(mount.host_path)
        if not source.exists():
            raise placed.fault(f"{where}.hostPath", f"{source} is not there: {_STALE}")
        yield Bind(
            source=source,
            target=mount.container_path,
            read_only="ro" in options,
            executable="noexec" not in options,
        )


def _is_special(mount: Mount) -> bool:
    # SPEC.md, "type": "For bind mounts (when options include either bind or rbind), the type
    # is a dummy, often 'none'"
    bound = {"bind", "rbind"} & set(mount.options)
    return not bound and mount.type not in ("", "none", "bind")


def _hook(placed: Placed, place: int, hook: Hook) -> tuple[dict[str, str], set[str]]:
    """Return the links that a hook would make, and the folders that it makes searched."""
    words = list(hook.args[1:])
    if PurePosixPath(hook.path).name not in _HOOK_PROGRAMS:
        said = f"the native engine runs no programs of the host, and so not {hook.path}"
        raise _impossible(placed.fault(f"hooks[{place}].path", said))
    if words[:1] == ["hook"]:  # nvidia-ctk has the commands of nvidia-cdi-hook below `hook`
        del words[0]
    where = f"hooks[{place}].args"
    if words[:1] == ["create-symlinks"]:
        return dict(_link(placed, where, text) for text in _values(words, "--link")), set()
    if words[:1] in (["update-ldcache"], ["create-soname-symlinks"]):
        return {}, set(_values(words, "--folder"))
    # The rest adjusts what a container without root has right as it is (chmod, the driver's
    # parameters), or what torch does not use; NVIDIA's program takes an unknown command for done
    return {}, set()


def _values(words: Sequence[str], flag: str) -> Iterator[str]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            yield following
        elif word.startswith(f"{flag}="):
            yield word.removeprefix(f"{flag}=")


def _link(placed: Placed, where: str, text: str) -> tuple[str, str]:
    target, parted, path = text.partition("::")
    if not parted or not target or not path.startswith("/") or ".." in path.split("/"):
        raise placed.fault(where, f"{text!r} is not of the form TARGET::/PATH")
    return path, target


def _found(binds: Iterable[Bind], links: Mapping[str, str], folders: set[str]) -> dict[str, str]:
    """Return the links by which libraries are found: what ldconfig would make, and `LIBRARIES`.

    ldconfig itself would be a program of the image, run on files of the host.
    """
    made = {}
    for bind in binds:
        target = PurePosixPath(bind.target)
        if str(target.parent) not in folders or ".so" not in target.name:
            continue
        name = soname(bind.source)
        if name is None:
            continue
        made[f"{LIBRARIES}/{name}"] = bind.target
        if name != target.name:
            made[f"{target.parent}/{name}"] = target.name
    for path in links:
        link = PurePosixPath(path)
        if str(link.parent) in folders and ".so" in link.name:
            made[f"{LIBRARIES}/{link.name}"] = path
    return made


def _impossible(error: EngineError) -> EngineError:
    return EngineError(error.message, hint=_ANOTHER_ENGINE)
