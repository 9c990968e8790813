"""Names of distributions and of wheels. Every build reads some, so nothing heavy is imported here.

Sources: PyPA specifications, "Names and normalization", "Binary distribution format", "Version
specifiers". What is plainer than these allow is compared as text; `packaging` reads the rest.
"""

from __future__ import annotations

import re

_NORMALIZED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RUN = re.compile(r"[-_.]+")
_PLAIN_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9]+(?:[_.][A-Za-z0-9]+)*)"
    r"-(?P<version>[0-9]+(?:\.[0-9]+)*(?:\+[a-z0-9]+(?:\.[a-z0-9]+)*)?)"
    r"-[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*(?:-[a-z0-9_]+(?:\.[a-z0-9_]+)*){2}\.whl"
)


def normalized(name: str) -> str:
    """Return a distribution's name as it is compared: ``Ruamel_YAML`` is ``ruamel-yaml``."""
    return _RUN.sub("-", name).lower()


def is_normalized(name: str) -> bool:
    """Tell whether a name is one, and is written as it is compared."""
    return _NORMALIZED.fullmatch(name) is not None


def wheel_fault(filename: str, name: str, version: str) -> tuple[str, str] | None:
    """Say why a file name is not that of a wheel of ``name``, normalised, and ``version``.

    Returns what is wrong, ``filename`` or ``version``, and why; None where nothing is.
    """
    plain = _PLAIN_WHEEL.fullmatch(filename)
    if plain and plain["version"] == version and normalized(plain["name"]) == name:
        return None
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    try:
        stated_name, stated_version, _, _ = parse_wheel_filename(filename)
        if (stated_name, stated_version) != (name, Version(version)):
            return "filename", f"{filename!r} is not {name} {version}"
    except InvalidVersion:
        return "version", f"{version!r} is not a version"
    except InvalidWheelFilename:
        return "filename", f"{filename!r} is not a wheel's name"
    return None
