"""Small, honest wheels, and indexes of them in folders."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torchship.digest import Digest


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes] | None = None,
    *,
    requires: Sequence[str] = (),
    tag: str = "py3-none-any",
    requires_python: str = "",
) -> Path:
    """Write ``name-version-tag.whl`` and return its path; the same arguments give the same bytes.

    ``files`` default to one module of the wheel's name.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    info = f"{stem}.dist-info"
    members = dict(
        files if files is not None else {f"{name.replace('-', '_')}.py": b"ANSWER = 42\n"}
    )
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Python: {requires_python}"] if requires_python else []
    metadata += [f"Requires-Dist: {need}" for need in requires]
    pure = str(tag.endswith("-any")).lower()
    wheel = ["Wheel-Version: 1.0", "Generator: tests", f"Root-Is-Purelib: {pure}", f"Tag: {tag}"]
    members[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
    members[f"{info}/WHEEL"] = "\n".join([*wheel, ""]).encode()
    rows = [f"{path},sha256={_hash(data)},{len(data)}" for path, data in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            entry = zipfile.ZipInfo(member, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return path


def make_index(root: Path, wheels: Sequence[Path]) -> str:
    """Write a simple index (PEP 503) of these files below ``root``; return its address."""
    by_name: dict[str, list[Path]] = {}
    for path in wheels:
        by_name.setdefault(path.name.split("-")[0].replace("_", "-").lower(), []).append(path)
    for name, paths in by_name.items():
        links = [
            f'<a href="{path.as_uri()}#sha256={Digest.of_file(path).hex}">{path.name}</a><br/>'
            for path in paths
        ]
        page = root / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html><html><body>" + "".join(links) + "</body></html>")
    root.mkdir(parents=True, exist_ok=True)
    return root.as_uri()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
