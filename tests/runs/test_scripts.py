"""The programs that an image's own Python runs."""

import hashlib
import json
import struct
import subprocess
import sys

import pytest

from torchship.runs import inside, typed
from torchship.runs.record import DataUsed, Hardware, Software


def ask(script, *arguments, **environment):
    """Run a script as the container does; return what it tells."""
    source = (inside._SCRIPTS / script).read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-c", source, *map(str, arguments)],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", **environment},
        check=True,
    )
    return json.loads(done.stdout)


def test_facts_are_what_a_record_holds(tmp_path):
    """Every fact has the form of the record's types, and nothing of the environment leaks."""
    (tmp_path / "data").write_bytes(b"x")
    told = ask("facts.py", tmp_path / "data", "/no/such", OMP_NUM_THREADS="3", TOKEN="secret")
    faults = typed.Faults()
    hardware = typed.from_json(Hardware, told["hardware"], "hardware", faults)
    software = typed.from_json(Software, told["software"], "software", faults)
    assert not faults.found
    assert hardware.processors >= 1
    assert software.python == sys.version.split()[0]
    assert told["environment"] == {"OMP_NUM_THREADS": "3"}
    assert "secret" not in json.dumps(told)
    used = typed.from_json(
        DataUsed, {**told["data"][str(tmp_path / "data")], "name": "x"}, "data", faults
    )
    assert (used.digest.hex, used.size) == (hashlib.sha256(b"x").hexdigest(), 1)
    assert told["data"]["/no/such"] is None


def safetensors(path, tensors, *, metadata=None, order=None):
    """Write a safetensors file: 8 bytes of length, a JSON header, the tensors' bytes."""
    header, body = {}, b""
    for name in order or sorted(tensors):
        kind, shape, content = tensors[name]
        offsets = [len(body), len(body) + len(content)]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
        body += content
    if metadata:
        header["__metadata__"] = metadata
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    return path


def test_equal_tensors_have_one_digest(tmp_path):
    """Whatever the order of the file, and what it says of its making."""
    tensors = {"a": ("F32", [1], b"1234"), "b": ("U8", [2], b"56")}
    one = safetensors(tmp_path / "1.safetensors", tensors)
    same = safetensors(
        tmp_path / "2.safetensors", tensors, metadata={"made": "now"}, order=["b", "a"]
    )
    others = [
        safetensors(tmp_path / f"{n}.safetensors", {**tensors, "a": changed})
        for n, changed in enumerate(
            [("F32", [1], b"1235"), ("I32", [1], b"1234"), ("F32", [1, 1], b"1234")], start=3
        )
    ]
    told = ask("tensors.py", one, same, *others)
    assert one.read_bytes() != same.read_bytes()
    assert told[str(one)] == told[str(same)]
    assert len({told[str(path)] for path in (one, *others)}) == 4


@pytest.mark.parametrize(
    "raw",
    [b"", b"x" * 20, struct.pack("<Q", 1 << 40) + b"{}", struct.pack("<Q", 4) + b"[{]}"]
    + [
        struct.pack("<Q", len(text)) + text
        for text in (
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}',
            b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
            b'{"a": 3}',
        )
    ],
)
def test_damaged_files_have_no_digest(tmp_path, raw):
    """The others are told all the same."""
    (tmp_path / "bad.safetensors").write_bytes(raw)
    good = safetensors(tmp_path / "good.safetensors", {"a": ("U8", [1], b"1")})
    assert list(ask("tensors.py", tmp_path / "bad.safetensors", good)) == [str(good)]
