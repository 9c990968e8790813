"""What the tests of the example programs share: digits, and what can be wrong with them."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def draw(folder: Path, *, train: int = 200, test: int = 100, seed: int = 1) -> None:
    """Run the script that draws digits."""
    script = [sys.executable, str(EXAMPLES / "synthetic_digits.py"), str(folder)]
    counts = ["--train", str(train), "--test", str(test), "--seed", str(seed)]
    subprocess.run([*script, *counts], check=True, capture_output=True)


def run(command: list[object], folder: Path, **environment: str):
    """Run a Python with its arguments as a process of its own, on one thread."""
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def rewrite(path: Path, change) -> None:
    """Change what is compressed in a file."""
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


FAULTS = {
    "truncated": (
        lambda d: (d / IMAGES).write_bytes((d / IMAGES).read_bytes()[:-500]),
        "end-of-stream",
    ),
    "not gzip": (lambda d: (d / IMAGES).write_bytes(b"<html>moved</html>"), "Not a gzipped file"),
    "damaged": (
        lambda d: (d / IMAGES).write_bytes(
            (d / IMAGES).read_bytes()[:900] + bytes(64) + (d / IMAGES).read_bytes()[964:]
        ),
        "cannot be read",
    ),
    "empty": (lambda d: (d / IMAGES).write_bytes(b""), "it starts with nothing"),
    "a folder": (lambda d: ((d / IMAGES).unlink(), (d / IMAGES).mkdir()), "Is a directory"),
    "wrong magic": (lambda d: rewrite(d / LABELS, lambda b: b"\0\0\x0d\x01" + b[4:]), "00000d01"),
    "half a header": (lambda d: rewrite(d / IMAGES, lambda b: b[:9]), "within its header"),
    "wrong count": (
        lambda d: rewrite(d / IMAGES, lambda b: b[:4] + struct.pack(">I", 60000) + b[8:]),
        "156800 bytes after its header, which says 60000 x 28 x 28",
    ),
    "other shape": (
        lambda d: rewrite(d / IMAGES, lambda b: b[:8] + struct.pack(">2I", 14, 56) + b[16:]),
        "images of 14 x 56",
    ),
    "no images": (
        lambda d: rewrite(d / IMAGES, lambda b: b[:4] + struct.pack(">3I", 0, 28, 28)),
        "is empty",
    ),
    "images and labels disagree": (
        lambda d: rewrite(d / LABELS, lambda b: b[:4] + struct.pack(">I", 199) + b[8:-1]),
        "200 images",
    ),
    "label out of range": (lambda d: rewrite(d / LABELS, lambda b: b[:-1] + b"\x0b"), "label 11"),
}
