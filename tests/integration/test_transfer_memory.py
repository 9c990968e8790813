"""Memory does not grow with what is transferred."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from tests.integration.registry import running
from tests.machine import sealed

from torchship import canonical
from torchship.oci import mediatypes
from torchship.oci.store import Store

pytestmark = [pytest.mark.engine, pytest.mark.slow]

LAYERS = 4
SIZE = 150 << 20
LIMIT = 100 << 20
"""Bytes: a third of what is promised, and less than one of the layers."""


def large_image(store: Store):
    """Put an image of large layers into a store, piece by piece."""
    described = []
    for place in range(LAYERS):
        with store.writer() as writer:
            for _ in range(SIZE >> 20):
                writer.write(bytes([place]) * (1 << 20))
            digest = writer.commit()
        described.append({"mediaType": mediatypes.OCI_TAR, "digest": str(digest), "size": SIZE})
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in described]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json(),
        "layers": described,
    }
    return store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)


def peak(machine, *arguments) -> int:
    """Run a command that must succeed; return the most memory that it had, in bytes."""
    process = machine.start(*arguments, stdout=None, stderr=None)
    most = 0
    # Not what wait4 tells: that counts the memory of whoever started the program, too
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found:
            most = max(most, int(found[1]) << 10)
        time.sleep(0.005)
    assert process.returncode == 0
    assert most > 1 << 20
    return most


@pytest.fixture
def folder(tmp_path):
    """Give a folder that is gone after the test: pytest keeps its own for later."""
    yield tmp_path / "large"
    shutil.rmtree(tmp_path / "large")


def test_any_size_of_layer_takes_little_memory(folder):
    """Push, copy, pull and save hold a piece of each layer at a time."""
    here, there = sealed(folder / "here"), sealed(folder / "there")
    with running(folder / "registry") as registry, running(folder / "other") as other:
        name, copied = f"{registry.host}/me/x:v1", f"{other.host}/me/x:v1"
        here.store.tag(name, large_image(here.store))
        peaks = {
            "push": peak(here, "push", name),
            "copy": peak(here, "copy", name, copied),
            "pull": peak(there, "pull", copied, "--platform", "linux/amd64"),
            "save": peak(there, "save", copied, "-o", folder / "x.tar"),
        }
    assert max(peaks.values()) < LIMIT, peaks
