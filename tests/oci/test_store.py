import errno
import json
import multiprocessing
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from torchship.digest import Descriptor, Digest
from torchship.errors import BlobMissing, ImageNotFound, InvalidReference, StoreError
from torchship.layers.layer import KEY, TITLE, key
from torchship.oci.prune import prune
from torchship.oci.reference import Reference
from torchship.oci.store import Store

# A process of its own that derives one layer of 8 MB of noise: argv is the store and the file.
DERIVE = """
import sys
from pathlib import Path
from torchship.digest import Digest
from torchship.layers.data import DataRecipe
from torchship.layers.layer import Materials
from torchship.oci.store import Store
from torchship.project.lock import DataPin
home, source = Path(sys.argv[1]), Path(sys.argv[2])
digest = Digest.of_file(source)
pin = DataPin(path="/data/x", filename="x", size=source.stat().st_size, digest=digest)
print("ready", flush=True)
layer = Store.open(home).derive(
    DataRecipe(pin=pin), Materials(files={digest: source}, scratch=home.parent)
)
print(layer.digest, flush=True)
"""


def start(store: Store, source: Path) -> subprocess.Popen:
    """Start a process that derives the layer of a file."""
    return subprocess.Popen(
        [sys.executable, "-c", DERIVE, store.home, source], stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def noise(tmp_path):
    """Return a file of 8 MB that does not compress."""
    path = tmp_path / "noise"
    path.write_bytes(random.Random(1).randbytes(8 << 20))
    return path


@pytest.fixture
def ordinary():
    """Skip for root, whom no file mode stops."""
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")


def test_a_store_that_is_not_there_reads_as_empty(tmp_path):
    """Looking creates nothing."""
    store = Store.open(tmp_path / "none")
    assert store.images() == ()
    assert store.known(Digest.of(b"")) is None
    with pytest.raises(ImageNotFound, match="mnist"):
        store.find("mnist")
    assert not (tmp_path / "none").exists()


def test_the_store_is_where_the_environment_says(tmp_path, monkeypatch):
    """TORCHSHIP_HOME goes before the user's cache folder."""
    monkeypatch.delenv("TORCHSHIP_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Store.open().home == tmp_path / "cache" / "torchship"
    monkeypatch.setenv("TORCHSHIP_HOME", str(tmp_path / "own"))
    assert Store.open().home == tmp_path / "own"


def test_a_layer_is_derived_once(store, recipe):
    """The second time, the recipe is not cooked: its materials may be gone."""
    made, materials = recipe(b"data")
    first = store.derive(made, materials)
    for path in materials.files.values():
        path.unlink()
    assert store.derive(made, materials) == first
    assert store.known(key(made)) == first
    assert first.annotations[TITLE] == "data /data/file"
    assert first.annotations[KEY] == str(key(made))
    assert first.size == store.blobs.path(first.digest).stat().st_size


def test_a_damaged_layer_is_reported_and_derived_again(store, recipe, said):
    """Nobody gets the damaged bytes, and the same layer comes out."""
    made = recipe(b"data")
    first = store.derive(*made)
    path = store.blobs.path(first.digest)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert store.derive(*made) == first
    assert any("damaged" in line for line in said.lines)
    assert b"".join(store.read_verified(first.descriptor))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"digest": "sha256:xyz"}', b"\xff\xfe"])
def test_a_damaged_entry_of_the_layer_index_is_derived_again(store, recipe, content):
    """An entry that says nothing clear counts as none."""
    made = recipe(b"data")
    first = store.derive(*made)
    (store.home / "layers" / f"{key(made[0]).hex}.json").write_bytes(content)
    assert store.known(key(made[0])) is None
    assert store.derive(*made) == first


def test_a_recipe_that_fails_leaves_nothing(store, recipe):
    """A half-written layer is thrown away, and the next attempt works."""
    made, materials = recipe(b"data")
    (source,) = materials.files.values()
    source.write_bytes(b"da")
    with pytest.raises(Exception, match="2 bytes where 4"):
        store.derive(made, materials)
    assert list(store.blobs) == []
    assert list(store.temporary.iterdir()) == []
    source.write_bytes(b"data")
    assert store.derive(made, materials).unpacked_size > 0


def test_killing_a_build_at_any_moment_loses_only_its_own_work(store, recipe):
    """50 kills at random moments: the store is never damaged, and the layer comes out the same."""
    made = recipe(random.Random(1).randbytes(3 << 20))
    chance = random.Random(2)
    fork = multiprocessing.get_context("fork")
    began = time.monotonic()
    expected = store.derive(*made)
    lasts = time.monotonic() - began
    store.release()
    killed = 0
    for _ in range(50):
        for entry in (store.home / "layers").iterdir():
            entry.unlink()
        for digest in list(store.blobs):
            store.blobs.remove(digest)
        process = fork.Process(target=Store.open(store.home).derive, args=made)
        process.start()
        process.join(chance.uniform(0, lasts))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        for digest in store.blobs:
            assert Digest.of_file(store.blobs.path(digest)) == digest
    assert killed > 10
    assert Store.open(store.home).derive(*made) == expected
    assert list(store.temporary.iterdir()) == []


def test_two_builds_at_once_make_a_layer_once(store, noise):
    """The second waits for the first, and takes what it made."""
    processes = [start(store, noise) for _ in range(4)]
    answers = {process.communicate()[0] for process in processes}
    assert len(answers) == 1
    (digest,) = store.blobs
    assert str(digest) in answers.pop()
    assert all(process.returncode == 0 for process in processes)


def test_many_processes_tag_at_once_and_no_name_is_lost(store, image):
    """The index is changed by one process at a time."""
    descriptor = image()
    script = (
        "import sys; from pathlib import Path; from torchship.oci.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "found = store.find('first')\n"
        "for n in range(10): store.tag(f'x{sys.argv[2]}:t{n}', found)\n"
    )
    store.tag("first", descriptor)
    running = [
        subprocess.Popen([sys.executable, "-c", script, store.home, str(n)]) for n in range(4)
    ]
    assert [process.wait() for process in running] == [0] * 4
    assert len(store.images()) == 41


def test_a_store_travels_to_workers_as_its_path(store, image):
    """A pickled store is the same store elsewhere."""
    descriptor = image()
    store.tag("x", descriptor)
    assert pickle.loads(pickle.dumps(store)).find("x").digest == descriptor.digest


def test_names_are_given_moved_and_taken(store, image):
    """A name points to one image; an image may have many names."""
    first, second = image(b"1"), image(b"2")
    assert store.tag("mnist:v1", first) == Reference.parse("mnist:v1")
    store.tag("localhost:5000/me/mnist", first)
    store.tag("mnist:v1", second)
    found = {str(named.reference): named.descriptor.digest for named in store.images()}
    assert found == {
        "docker.io/library/mnist:v1": second.digest,
        "localhost:5000/me/mnist:latest": first.digest,
    }
    assert store.remove("mnist:v1").digest == second.digest
    with pytest.raises(ImageNotFound, match="mnist:v1"):
        store.remove("mnist:v1")
    assert store.find("localhost:5000/me/mnist") == first


def test_images_are_found_by_digest_too(store, image):
    """A whole digest, its first digits, and a reference pinned by it all lead to the image."""
    descriptor = image()
    store.tag("mnist", descriptor)
    digest = descriptor.digest
    for text in (str(digest), digest.hex[:12], f"sha256:{digest.hex[:7]}", f"mnist@{digest}"):
        assert store.find(text) == descriptor, text
    for text in (digest.hex[:6], "sha256:" + "0" * 64, "other", f"mnist@sha256:{'0' * 64}"):
        with pytest.raises(ImageNotFound):
            store.find(text)
    with pytest.raises(InvalidReference):
        store.find("Not A Name")


def test_only_what_is_there_can_be_named(store):
    """A tag never points to nothing."""
    missing = Descriptor(media_type="x/y", digest=Digest.of(b"missing"), size=7)
    with pytest.raises(BlobMissing):
        store.tag("x", missing)
    with pytest.raises(BlobMissing):
        store.attach(missing)


def test_what_other_tools_wrote_into_the_index_is_kept(store, image):
    """Unknown fields and nameless entries survive our changes; short names are understood."""
    descriptor = image()
    store.tag("ours", descriptor)
    path = store.oci / "index.json"
    document = json.loads(path.read_bytes())
    foreign = {
        **descriptor.as_json(),
        "urls": ["https://example.org/x"],
        "annotations": {"org.opencontainers.image.ref.name": "theirs:v1", "a": "b"},
    }
    document["manifests"] += [foreign, {**descriptor.as_json(), "data": "e30="}]
    path.write_text(json.dumps(document))
    assert store.find("theirs:v1").digest == descriptor.digest
    store.tag("ours:v2", descriptor)
    after = json.loads(path.read_bytes())["manifests"]
    assert foreign in after
    assert any(entry.get("data") == "e30=" for entry in after)


def test_a_damaged_index_is_an_error_that_names_the_file(store, image):
    """Names are not silently forgotten."""
    store.tag("x", image())
    (store.oci / "index.json").write_text("{")
    with pytest.raises(Exception, match=r"index\.json"):
        store.images()


@pytest.mark.unprivileged
def test_a_read_only_store_reads_and_says_that_it_cannot_write(store, image, recipe, ordinary):
    """What is there is used; what must be written names the path and the way out."""
    descriptor = image()
    store.tag("x", descriptor)
    store.release()
    folders = [store.home, *(path for path in store.home.rglob("*") if path.is_dir())]
    for path in (store.home / "lock", store.oci / "index.json"):
        path.chmod(0o444)
    for folder in folders:
        folder.chmod(0o555)
    try:
        again = Store.open(store.home)
        assert again.find("x") == descriptor
        assert again.read(descriptor)
        for write in (
            lambda: again.derive(*recipe(b"new")),
            lambda: again.put(b"new", "text/plain"),
            lambda: again.tag("y", descriptor),
            lambda: again.remove("x"),
            lambda: prune(again, wait=0),
        ):
            with pytest.raises(StoreError, match="cannot be written") as caught:
                write()
            assert "TORCHSHIP_HOME" in caught.value.hint
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_store_that_cannot_be_made_says_so(tmp_path):
    """A file in the way is named."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store.open(tmp_path / "file" / "store").put(b"x", "text/plain")


def test_a_file_that_grows_beyond_the_limit_leaves_nothing_behind(store, noise):
    """A write that the system refuses is a clear error, and the half of a layer is gone."""
    process = subprocess.run(
        [sys.executable, "-c", DERIVE, store.home, noise],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert process.returncode == 1
    assert "StoreError" in process.stderr
    assert os.strerror(errno.EFBIG).lower() in process.stderr
    assert list(store.blobs) == []
    assert list(store.temporary.iterdir()) == []


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path, noise):
    """On a file system of 4 MB, an 8 MB layer fails with the path and what to do."""
    full = tmp_path / "full"
    full.mkdir()
    script = (
        'mount -t tmpfs -o size=4m none "$1" || exit 77; '
        '"$2" -c "$3" "$1/home" "$4"; echo "status $?"; find "$1" -type f -size +64k; df "$1" >&2'
    )
    process = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", full, sys.executable, DERIVE, noise],
        capture_output=True,
        text=True,
    )
    if "status" not in process.stdout:
        pytest.skip("this kernel lets nobody mount a tmpfs of their own")
    assert process.stdout.splitlines() == ["ready", "status 1"]
    assert "StoreError: no space is left to write" in process.stderr


def test_a_damaged_list_of_images_says_what_to_do(store, image):
    """index.json is the one file that nothing else can replace: the error names it."""
    store.tag("x", image())
    (store.oci / "index.json").write_text("{")
    with pytest.raises(StoreError, match=r"index\.json is damaged") as caught:
        store.images()
    assert "move it away" in caught.value.hint


def test_a_digest_takes_every_name_and_an_image_without_one(store, image):
    """What `load` kept without a name can be removed like any other."""
    named, bare = image(b"1"), image(b"2")
    for name in ("x", "y"):
        store.tag(name, named)
    store.attach(bare)
    assert store.remove(named.digest.hex[:12]).digest == named.digest
    assert store.images() == ()
    assert store.remove(str(bare.digest)).digest == bare.digest
    assert list(store.entries()) == []
    with pytest.raises(ImageNotFound):
        store.remove(str(bare.digest))


def test_what_a_dead_process_left_is_swept_and_what_a_living_one_writes_is_not(store):
    """The next build clears the table; it never takes away what is being written."""
    with store.writer() as blob:
        blob.write(b"alive")
        (store.temporary / "4242-dead").write_bytes(b"left by a process that was killed")
        Store.open(store.home).put(b"x", "text/plain")
        assert not (store.temporary / "4242-dead").exists()
        blob.commit(Digest.of(b"alive"))
    assert store.has(Digest.of(b"alive"))


def test_a_store_on_a_read_only_mount_reads_and_says_that_it_cannot_write(store, image, noise):
    """Root, too, gets a clear error from a file system that is mounted read-only."""
    store.tag("x", image())
    store.release()
    script = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; '
        '"$2" -c "$5" "$1"; echo "status $?"; "$2" -c "$3" "$1" "$4"; echo "status $?"'
    )
    look = (
        "import sys; from pathlib import Path; from torchship.oci.store import Store\n"
        "store = Store.open(Path(sys.argv[1])); store.read(store.find('x'))"
    )
    command = [store.home, sys.executable, DERIVE, noise, look]
    process = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", *command], capture_output=True, text=True
    )
    if "status" not in process.stdout:
        pytest.skip("this kernel lets nobody mount read-only")
    assert process.stdout.split("\n")[:3] == ["status 0", "ready", "status 1"]
    assert "StoreError" in process.stderr
    assert "read-only file system" in process.stderr
