"""An image on its way into an engine: an archive that is never a file."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import BinaryIO, cast

from torchship.digest import Digest
from torchship.oci.image import Image
from torchship.oci.reference import Reference
from torchship.oci.save import save
from torchship.oci.store import Store
from torchship.progress import Progress


def stream(
    command: Sequence[str],
    *,
    store: Store,
    image: Image,
    names: Collection[Reference],
    omit: Collection[Digest],
    progress: Progress,
) -> str | None:
    """Write an image's archive to a command's standard input; return its complaint, None for none.

    Raises `StoreError` for an image that the store no longer holds whole; the command then
    never sees the archive's end.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stderr is not None
    try:
        with suppress(BrokenPipeError):  # it has ended, and says why
            save(
                store,
                image.descriptor,
                cast(BinaryIO, process.stdin),
                names=names,
                platform=image.platform,
                omit=omit,
                progress=progress,
            )
            process.stdin.close()
        complaint = process.stderr.read().decode(errors="replace").strip()
        if process.wait() == 0:
            return None
        return complaint.rpartition("\n")[2] or f"it ended with status {process.returncode}"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
