"""Layers out of recipes, in processes that share a store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from torchship.derive import derive
from torchship.digest import Digest
from torchship.errors import StoreError, WheelError
from torchship.layers.archive import Entry
from torchship.layers.source import LARGE, SourceRecipe, collect
from torchship.oci.store import Store
from torchship.progress import SILENT


@dataclass(frozen=True, kw_only=True)
class FileRecipe:
    """A layer of one file; what makes it may come to harm first."""

    name: str
    needs: tuple[Digest, ...] = ()
    harm: str = ""

    @property
    def title(self) -> str:
        """What the layer holds."""
        return f"file {self.name}"

    @property
    def origin(self) -> Mapping[str, str]:
        """From nowhere."""
        return {}

    @property
    def inputs(self) -> Mapping[str, object]:
        """The name alone."""
        return {"name": self.name}

    def write(self, archive, materials):
        """Write the file, or fail as asked."""
        if self.harm == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.harm == "lies":
            raise WheelError("liar-1.0.whl lies", hint="ask for another")
        if self.harm == "slow":
            Path(self.name).with_suffix(f".{os.getpid()}").touch()
            time.sleep(60)
        archive.add(Entry(path="file", size=4), [b"data"])


@pytest.fixture
def store(tmp_path) -> Store:
    """Open an empty store."""
    return Store.open(tmp_path / "store")


def made(
    store, recipes, gather=lambda wanted: dict.fromkeys(wanted, Path(__file__)), progress=SILENT
):
    """Derive recipes that need no Python."""
    return derive(
        recipes,
        store=store,
        base=(),
        gather=gather,
        interpreter=lambda base: None,
        progress=progress,
    )


def test_layers_come_in_the_order_of_their_recipes(store):
    """However many processes make them; the same recipes give the same layers again."""
    recipes = [FileRecipe(name=f"{number}") for number in range(12)]
    layers = made(store, recipes)
    assert len(layers) == 12
    assert made(store, recipes) == layers
    assert made(store, recipes[::-1]) == layers[::-1]


def test_workers_import_nothing_from_where_the_user_is(store, monkeypatch, tmp_path):
    """A project that names a file as a module of Python's own runs no code of its own here."""
    canary = tmp_path / "canary"
    (tmp_path / "project").mkdir()
    for name in ("multiprocessing", "pickle", "signal", "struct"):
        text = f"open({str(canary)!r}, 'w').write('its own code ran')\n"
        (tmp_path / "project" / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setattr("sys.path", [str(Path(__file__).parents[1]), *filter(None, sys.path)])
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    ended = threading.Event()
    other = threading.Thread(target=ended.wait)
    other.start()  # beside which no process is copied: workers are fresh interpreters
    try:
        made(store, [FileRecipe(name="a"), FileRecipe(name="b")])
    finally:
        ended.set()
        other.join()
    assert not canary.exists()
    assert "PYTHONSAFEPATH" not in os.environ


def test_files_are_gathered_only_for_what_is_made(store):
    """A layer that the store knows needs no file any more."""
    first, second = Digest.of(b"1"), Digest.of(b"2")
    asked = []

    def gather(wanted):
        asked.append(set(wanted))
        return dict.fromkeys(wanted, Path(__file__))

    made(store, [FileRecipe(name="a", needs=(first,))], gather)
    made(
        store, [FileRecipe(name="a", needs=(first,)), FileRecipe(name="b", needs=(second,))], gather
    )
    made(
        store, [FileRecipe(name="a", needs=(first,)), FileRecipe(name="b", needs=(second,))], gather
    )
    assert asked == [{first}, {second}]


def test_what_is_large_in_the_source_is_told_with_where_data_belong(store, tmp_path):
    """When its layer is made, which every edit makes again; three ways keep data out of it."""
    lines: list[str] = []

    class Heard:
        say = lines.append
        task = SILENT.task

    (tmp_path / "project").mkdir()
    with (tmp_path / "project" / "images.bin").open("wb") as stream:
        stream.truncate(LARGE)
    tree = collect(tmp_path / "project")
    recipe = SourceRecipe(root=tmp_path / "project", files=tree.files)
    for _ in range(2):
        made(store, [recipe], progress=Heard())
    (line,) = lines
    assert "images.bin (67.1 MB)" in line
    for way in (".dockerignore", "[[tool.torchship.data]] (and TORCHSHIP_MIRRORS=$PWD)", "run -v"):
        assert way in line


def test_an_error_in_a_worker_arrives_whole(store):
    """Its sentence and its hint come through; what others made is kept."""
    with pytest.raises(WheelError, match="lies") as caught:
        made(store, [FileRecipe(name="a"), FileRecipe(name="b", harm="lies")])
    assert caught.value.hint == "ask for another"
    made(store, [FileRecipe(name="a"), FileRecipe(name="b")])


def test_an_error_leaves_nothing_running(store):
    """No worker and no thread of the pool is left to complain when the interpreter ends."""
    before = threading.active_count()
    with pytest.raises(WheelError, match="lies"):
        made(store, [FileRecipe(name="a"), FileRecipe(name="b", harm="lies")])
    assert multiprocessing.active_children() == []
    assert threading.active_count() == before


def test_a_killed_worker_is_told(store):
    """As where the kernel ends a process for its memory: one sentence, and what to look at."""
    with pytest.raises(StoreError, match="was killed") as caught:
        made(store, [FileRecipe(name="a"), FileRecipe(name="b", harm="killed")])
    assert "memory" in caught.value.hint


def test_workers_end_with_their_parent(store, tmp_path):
    """A kill -9 of a build leaves no process behind that writes into the store."""
    script = (
        "import sys\nfrom tests.test_derive import FileRecipe, made\n"
        "from torchship.oci.store import Store\n"
        f"names = [f'{tmp_path}/w{{n}}' for n in range(3)]\n"
        "made(Store.open(), [FileRecipe(name=name, harm='slow') for name in names])\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "TORCHSHIP_HOME": str(store.home), "PYTHONPATH": "."},
    )
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("w*.*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("w*.*")]
    parent.kill()
    parent.wait()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker goes on without its parent"
        time.sleep(0.05)
