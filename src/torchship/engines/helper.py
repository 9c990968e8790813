"""Root's own work in a container, by this machine's programs and by none of an image's.

A user of Docker may not give another user's files to themselves, and Docker's root may. What an
image brings along must not do that as root: it could leave programs behind that are root's. So
the container's image is empty, and this machine's own ``chown`` is mounted into it, read-only.
"""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

from torchship.engines.client import Client
from torchship.engines.commandline import bind
from torchship.errors import EngineError
from torchship.layers.archive import Entry, Kind, PlainTar
from torchship.layers.layout import OUTPUT

_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64")
_LIBRARIES = "/etc/ld.so.cache"


def chown(client: Client, folder: Path) -> None:
    """Give all below a folder to the caller; `EngineError` where Docker or chown cannot."""
    program = shutil.which("chown", path="/usr/bin:/bin")
    if program is None:
        raise EngineError("this machine has no chown in /usr/bin")
    image = client.tell("import", "-", stdin=_empty()).strip()
    paths = [Path("/", name) for name in _FOLDERS]
    shown = [path for path in paths if path.is_dir() and not path.is_symlink()]
    shown += [path for path in (Path(_LIBRARIES),) if path.exists()]
    try:
        client.tell(
            *("run", "--rm", "--network=none", "--pull=never", "--user=0:0", "--log-driver=none"),
            # FOWNER: to give a setuid file away is to change its mode, too
            *("--cap-drop=ALL", "--cap-add=CHOWN", "--cap-add=DAC_READ_SEARCH"),
            "--cap-add=FOWNER",
            *("--security-opt=no-new-privileges", "--security-opt=label=disable"),
            *(word for path in shown for word in bind(path, str(path), read_only=True)),
            *bind(folder, OUTPUT, read_only=False),
            f"--entrypoint={program}",
            image,
            *("-hR", f"{os.geteuid()}:{os.getegid()}", OUTPUT),
        )
    finally:
        client.ask("image", "rm", image)


def _empty() -> bytes:
    """Return a root that holds what links this machine's has at its top, and nothing else."""
    sink = io.BytesIO()
    archive = PlainTar(sink)
    archive.add(Entry(path=OUTPUT[1:], kind=Kind.DIRECTORY, mode=0o755))
    for name in _FOLDERS:
        path = Path("/", name)
        if path.is_symlink():
            target = str(path.readlink())
            archive.add(Entry(path=name, kind=Kind.SYMLINK, mode=0o777, target=target))
    archive.close()
    return sink.getvalue()
