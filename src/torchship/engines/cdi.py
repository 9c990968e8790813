"""The Container Device Interface: files that say what a device needs in a container.

Source: the CDI specification, versions 0.3.0 to 1.1.0 (github.com/cncf-tags/
container-device-interface, SPEC.md), and for what its sentences leave open, the checks of its
reference implementation. The files are root's configuration, and are trusted; they are read
strictly all the same, since a device that is half there is harder to understand than none.
Every fault names the file and the path of the field.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field

from torchship.errors import EngineError

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Where specifications are looked for; of two that name the same device, the later one counts."""

VARIABLE = "TORCHSHIP_CDI_DIRS"
"""Other directories, separated by colons: where /etc/cdi is not yours to write to."""

_LIMIT = 8 << 20  # bytes of a specification; one for eight GPUs has about 0.3 MB
_VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_KIND = re.compile(
    r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_HOOKS = frozenset(
    ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
)


class DeviceNode(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """A device node: ``path`` in the container, ``host_path`` on the host where it differs."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None

    @property
    def source(self) -> str:
        """The node on the host."""
        return self.host_path or self.path


class Mount(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A mount; one without a type, or with ``bind`` among its options, is a bind mount."""

    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


class Hook(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A program of the host that an engine runs at one moment of a container's life."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Edits(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is changed in a container for a device (``containerEdits``).

    Fields that only a runtime with the host's privileges can honour are kept as they came.
    """

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[Mount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    net_devices: tuple[dict[str, str], ...] = ()
    intel_rdt: dict[str, object] | None = None
    additional_gids: tuple[int, ...] = ()


class Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One device that can be asked for."""

    name: str
    container_edits: Edits
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Specification(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """One file. ``container_edits`` apply whenever any of its devices is asked for."""

    cdi_version: str
    kind: str
    devices: tuple[Device, ...]
    container_edits: Edits = Edits()
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Placed(Struct, frozen=True, kw_only=True):
    """Edits, and where they stand, so that a fault found later can name file and field."""

    path: Path
    field: str
    edits: Edits

    def fault(self, below: str, said: str) -> EngineError:
        """Return the error for a field below these edits: ``mounts[3].hostPath``."""
        return fault(self.path, f"{self.field}.{below}", said)


def fault(path: Path, where: str, said: str) -> EngineError:
    """Return the error that names a specification's file and the path of a field in it."""
    return EngineError(
        f"{path}: {where}: {said}",
        hint=f"correct it, or write it anew: nvidia-ctk cdi generate --output={path}",
    )


def read(path: Path) -> Specification:
    """Read and check one file, YAML or JSON by its name; raise `EngineError`."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_LIMIT + 1)
    except OSError as error:
        raise fault(path, "the file", f"cannot be read: {error.strerror}") from None
    if len(content) > _LIMIT:
        raise fault(path, "the file", f"has more than {_LIMIT} bytes")
    parsed = _json(path, content) if path.suffix == ".json" else _yaml(path, content)
    try:
        found = msgspec.convert(parsed, Specification)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        raise fault(path, where.strip("`").lstrip(".") or "the file", said) from None
    for where, said in _faults(found):
        raise fault(path, where, said)
    return found


class Registry(Struct, frozen=True, kw_only=True):
    """All the specifications of a machine. ``faults`` are files that could not be used."""

    files: Mapping[Path, Specification]
    faults: tuple[EngineError, ...] = ()
    _owners: Mapping[str, tuple[Path, Device]] = field(default_factory=dict)

    @classmethod
    def load(cls, directories: Sequence[Path]) -> Registry:
        """Read every ``*.yaml`` and ``*.json``; a fault in one hides no other."""
        files: dict[Path, Specification] = {}
        faults = []
        owners: dict[str, tuple[Path, Device]] = {}
        for directory in directories:
            for path in specifications(directory):
                try:
                    files[path] = read(path)
                except EngineError as error:
                    faults.append(error)
                    continue
                for place, device in enumerate(files[path].devices):
                    name = f"{files[path].kind}={device.name}"
                    held = owners.get(name)
                    if held is not None and held[0].parent == directory:
                        where = f"devices[{place}].name"
                        faults.append(fault(path, where, f"{name} is also in {held[0]}"))
                        continue
                    owners[name] = (path, device)
        return cls(files=files, faults=tuple(faults), _owners=owners)

    @classmethod
    def of(cls, path: Path, found: Specification) -> Registry:
        """Return the registry of one specification, which ``path`` stands for in messages."""
        owners = {f"{found.kind}={device.name}": (path, device) for device in found.devices}
        return cls(files={path: found}, _owners=owners)

    def names(self, kind: str) -> tuple[str, ...]:
        """Return the devices of a kind: numbers in their order, then other names."""
        prefix = f"{kind}="
        found = (name.removeprefix(prefix) for name in self._owners if name.startswith(prefix))
        return tuple(sorted(found, key=lambda name: (not name.isdigit(), len(name), name)))

    def edits(self, kind: str, names: Sequence[str]) -> tuple[Placed, ...]:
        """Return what devices need: first what each file asks for, then what each device does.

        Raises `EngineError` for a device that no file has.
        """
        common: dict[Path, Placed] = {}
        own = []
        for name in names:
            held = self._owners.get(f"{kind}={name}")
            if held is None:
                raise self.missing(kind, name)
            path, device = held
            found = self.files[path]
            common[path] = Placed(path=path, field="containerEdits", edits=found.container_edits)
            where = f"devices[{found.devices.index(device)}].containerEdits"
            own.append(Placed(path=path, field=where, edits=device.container_edits))
        return (*common.values(), *own)

    def missing(self, kind: str, name: str) -> EngineError:
        """Return the error for a device that is in no file: the fault of one that may have it."""
        if self.faults:
            return self.faults[0]
        listed = ", ".join(self.names(kind)) or "none"
        return EngineError(
            f"no CDI specification has the device {kind}={name}; of that kind there are: {listed}",
            hint="`torchship doctor` tells which files were read",
        )


def directories(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where specifications are looked for."""
    named = environment.get(VARIABLE, "")
    return tuple(Path(part) for part in named.split(":") if part) or DIRECTORIES


def specifications(directory: Path) -> list[Path]:
    """Return the files of a directory that are specifications, by their names."""
    try:
        return sorted(
            Path(entry.path)
            for entry in os.scandir(directory)
            if entry.name.endswith((".yaml", ".json")) and not entry.is_dir()
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise EngineError(f"{directory}: cannot be read: {error.strerror}") from None


def _json(path: Path, content: bytes) -> object:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise fault(path, "the file", f"is no JSON: {error}") from None


def _yaml(path: Path, content: bytes) -> object:
    import yaml  # late: most runs read no YAML

    try:
        # libyaml's parser, where PyYAML was built with it: ten times as fast
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(content)
        try:
            node = loader.get_single_node()
            _check_nodes(path, node, "", set())
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        said = " ".join(str(error).split())
        raise fault(path, "the file", f"is no YAML: {said}") from None


def _check_nodes(path: Path, node: object, where: str, met: set[int]) -> None:
    """Refuse what JSON, which the format is defined in, cannot say.

    That is a key that stands twice (PyYAML takes the last one silently), a key that is no
    string, and an alias, which may stand for any number of bytes.
    """
    import yaml

    if id(node) in met:
        raise fault(path, where or "the file", "is an alias")
    met.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise fault(path, where or "the file", "has a key that is no string")
            below = f"{where}.{key.value}".lstrip(".")
            if key.value in seen:
                raise fault(path, below, "stands twice")
            seen.add(key.value)
            _check_nodes(path, value, below, met)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _check_nodes(path, value, f"{where}[{place}]", met)


def _faults(found: Specification) -> Iterator[tuple[str, str]]:
    """Yield the path and the fault of every field that breaks a rule of the specification."""
    if found.cdi_version not in _VERSIONS:
        known = f"{_VERSIONS[0]} to {_VERSIONS[-1]}"
        yield "cdiVersion", f"{found.cdi_version!r} is none of the versions {known}"
        return
    if not _KIND.fullmatch(found.kind):
        yield "kind", f"{found.kind!r} is not of the form vendor.com/class"
    if not found.devices:
        yield "devices", "there must be at least one"
    names = set()
    for place, device in enumerate(found.devices):
        where = f"devices[{place}]"
        if not _NAME.fullmatch(device.name):
            yield f"{where}.name", f"{device.name!r} is no device name"
        if device.name in names:
            yield f"{where}.name", f"{device.name!r} stands twice"
        names.add(device.name)
        if device.container_edits == Edits():
            yield f"{where}.containerEdits", "is empty"
        yield from _edit_faults(device.container_edits, f"{where}.containerEdits")
    yield from _edit_faults(found.container_edits, "containerEdits")
    for version, where, what in _newer(found):
        if _VERSIONS.index(found.cdi_version) < _VERSIONS.index(version):
            yield where, f"{what} came with version {version}, and cdiVersion says less"


def _edit_faults(edits: Edits, where: str) -> Iterator[tuple[str, str]]:
    for place, text in enumerate(edits.env):
        if "=" not in text[1:]:
            yield f"{where}.env[{place}]", f"{text!r} is not of the form NAME=VALUE"
    for place, node in enumerate(edits.device_nodes):
        at = f"{where}.deviceNodes[{place}]"
        yield from _path_faults(f"{at}.path", node.path)
        if node.host_path:
            yield from _path_faults(f"{at}.hostPath", node.host_path)
        if node.type not in ("", "b", "c", "u", "p"):
            yield f"{at}.type", f"{node.type!r} is none of b, c, u, p"
        if node.permissions not in ("", "none") and node.permissions.strip("rwm"):
            yield f"{at}.permissions", f"{node.permissions!r} is not made of r, w, m"
    for place, mount in enumerate(edits.mounts):
        at = f"{where}.mounts[{place}]"
        yield from _path_faults(f"{at}.containerPath", mount.container_path)
        if not mount.host_path:
            yield f"{at}.hostPath", "is empty"
    for place, hook in enumerate(edits.hooks):
        at = f"{where}.hooks[{place}]"
        if hook.hook_name not in _HOOKS:
            yield f"{at}.hookName", f"{hook.hook_name!r} is none of {', '.join(sorted(_HOOKS))}"
        yield from _path_faults(f"{at}.path", hook.path)


def _path_faults(where: str, path: str) -> Iterator[tuple[str, str]]:
    if not path.startswith("/") or "\0" in path:
        yield where, f"{path!r} is no absolute path"
    elif ".." in path.split("/") or not path.strip("/"):
        yield where, f"{path!r} is no place for a device or a mount"


def _newer(found: Specification) -> Iterator[tuple[str, str, str]]:
    """Yield the version that each thing came with, where it stands, and what it is."""
    if found.annotations:
        yield "0.6.0", "annotations", "annotations"
    everything = [("containerEdits", found.container_edits)]
    for place, device in enumerate(found.devices):
        where = f"devices[{place}]"
        if device.name[:1].isdigit():
            yield "0.5.0", f"{where}.name", "a name that starts with a digit"
        if device.annotations:
            yield "0.6.0", f"{where}.annotations", "annotations"
        everything.append((f"{where}.containerEdits", device.container_edits))
    for where, edits in everything:
        if any(node.host_path for node in edits.device_nodes):
            yield "0.5.0", f"{where}.deviceNodes", "hostPath"
        if any(mount.type for mount in edits.mounts):
            yield "0.4.0", f"{where}.mounts", "type"
        if edits.intel_rdt is not None:
            yield "0.7.0", f"{where}.intelRdt", "intelRdt"
        if edits.additional_gids:
            yield "0.7.0", f"{where}.additionalGids", "additionalGids"
        if edits.net_devices:
            yield "1.1.0", f"{where}.netDevices", "netDevices"
