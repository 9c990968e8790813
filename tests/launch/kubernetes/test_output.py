"""Outputs that arrive as an archive: whole, and never outside their folder."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from importlib.resources import files

import pytest

from torchship.errors import EngineError, HostileInput
from torchship.launch.kubernetes import output
from torchship.launch.kubernetes.kubectl import Kubectl
from torchship.launch.kubernetes.output import Arriving, unpack
from torchship.launch.kubernetes.settings import Settings

FETCH = str(files("torchship.launch.kubernetes") / "scripts" / "fetch.py")


def archive(*entries) -> io.BytesIO:
    """Return an archive of entries: a name, a type, and its data or where it leads."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as made:
        for name, kind, what in entries:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(what)
                made.addfile(entry, io.BytesIO(what))
            else:
                entry.linkname = what
                made.addfile(entry)
    tar.seek(0)
    return tar


FILE, FOLDER, LINK, HARD, FIFO = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
)


@pytest.mark.parametrize(
    "entries",
    [
        [("../evil", FILE, b"x")],
        [("a/../../evil", FILE, b"x")],
        [("/etc/evil", FILE, b"x")],
        [("link", LINK, "/etc"), ("link/evil", FILE, b"x")],
        [("link", HARD, "/etc/passwd")],
        [("pipe", FIFO, "")],
        [("device", tarfile.CHRTYPE, "")],
        [("a", FILE, b"1"), ("a", FILE, b"2")],
        [("a", FILE, b"1"), ("a/b", FILE, b"2")],
        [("a/b", FILE, b"1"), ("a", FILE, b"2")],
        [("/".join("a" * 200), FOLDER, "")],
    ],
    ids=lambda entries: entries[-1][0][:20],
)
def test_what_breaks_the_rules_is_refused(tmp_path, entries):
    """Paths that lead out, links, devices, and what comes twice are no outputs."""
    folder = tmp_path / "into"
    folder.mkdir()
    with pytest.raises(HostileInput):
        unpack(archive(*entries), folder)
    assert [each.name for each in tmp_path.iterdir()] == ["into"]
    assert not (folder / "link").is_symlink()


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1500])
def test_an_archive_that_ends_too_early_is_not_taken_for_whole(tmp_path, kept):
    """Where a connection breaks, that is noticed: no file is silently short, or missing."""
    whole = archive(("a", FILE, b"x" * 400), ("b", FILE, b"y" * 400)).getvalue()
    with pytest.raises(HostileInput, match="too early"):
        unpack(io.BytesIO(whole[:kept]), tmp_path)


def test_what_is_fetched_is_what_was_written(tmp_path):
    """Names of all kinds, empty and large files and folders arrive; links and pipes stay away."""
    there, here = tmp_path / "there", tmp_path / "here"
    files_there = {
        "metrics.json": b"{}",
        "deep/er/model.pt": os.urandom(3_000_000),
        "an empty file": b"",
        "n" * 200 + "/" + "m" * 100: b"long",
        "\N{GREEK SMALL LETTER ALPHA}\n": b"odd",
    }
    for name, data in files_there.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)
    (there / "empty").mkdir()
    (there / "link").symlink_to("/etc/passwd")
    os.link(there / "metrics.json", there / "second.json")
    os.mkfifo(there / "pipe")
    here.mkdir()
    heard = []
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        with subprocess.Popen(
            [sys.executable, FETCH, str(os.getpid()), str(there)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            size = unpack(Arriving(process.stdout.fileno()), here)
            assert heard == [signal.SIGUSR2]
            process.communicate(b"arrived\n", timeout=10)
        assert process.returncode == 0
    finally:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
    assert heard == [signal.SIGUSR2, signal.SIGUSR1]  # and not before all was here
    arrived = {str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert arrived == {**files_there, "second.json": b"{}"}
    assert size == sum(map(len, arrived.values()))
    assert (here / "empty").is_dir()
    assert not (here / "link").is_symlink()


def test_a_fetch_that_nobody_confirms_releases_nobody(tmp_path):
    """Where the connection breaks, the pod is kept for another try."""
    (tmp_path / "a").write_bytes(b"x")
    code = "import signal\nprint(signal.sigwait({signal.SIGUSR1}))"
    masked = {signal.SIGUSR1, signal.SIGUSR2}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, masked),
    ) as pod:
        done = subprocess.run(
            [sys.executable, FETCH, str(pod.pid), str(tmp_path)], input=b"", capture_output=True
        )
        assert done.returncode == 1
        assert pod.poll() is None
        pod.kill()


def test_a_connection_that_stands_still_is_given_up(tmp_path, monkeypatch):
    """A kubectl that neither sends nor ends is ended, and the fetch tried again, three times."""
    program = tmp_path / "kubectl"
    program.write_text(f"#!/bin/sh\necho >> {tmp_path}/tries\nexec sleep 30\n")
    program.chmod(0o755)
    (tmp_path / "output").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, seconds in (("_STALL", 0.2), ("_LEAVE", 0.1), ("_PAUSE", 0)):
        monkeypatch.setattr(output, name, seconds)
    began = time.monotonic()
    with pytest.raises(EngineError, match="could not be brought here"):
        output.fetch(
            Kubectl(Settings()),
            pod="p",
            container="main",
            pid=1,
            source="/output",
            output=tmp_path / "output",
        )
    assert time.monotonic() - began < 20
    assert len((tmp_path / "tries").read_text()) == 3
