import io
import threading

import pytest

from torchship.digest import Descriptor, Digest
from torchship.errors import BlobDamaged, BlobMissing, HostileInput
from torchship.oci.prune import prune


def described(data: bytes) -> Descriptor:
    """Describe bytes as a text."""
    return Descriptor(media_type="text/plain", digest=Digest.of(data), size=len(data))


def test_a_blob_comes_back_as_it_went_in(store):
    """What was put is read, opened and streamed with the same bytes."""
    data = b"x" * 3_000_000
    blob = store.put(data, "text/plain")
    assert blob == described(data)
    assert store.read(blob) == data
    assert b"".join(store.read_verified(blob)) == data
    with store.open_blob(blob.digest) as stream:
        assert stream.read() == data


def test_a_writer_files_a_blob_under_its_digest(store):
    """The digest is taken on the way; the writer says what it was."""
    with store.writer() as blob:
        blob.write(b"one ")
        blob.write(b"two")
        assert blob.commit(Digest.of(b"one two")) == Digest.of(b"one two")
    assert store.has(Digest.of(b"one two"))


def test_a_blob_of_another_digest_is_refused(store):
    """What a registry sends under a wrong name never gets into the store."""
    with store.writer() as blob:
        blob.write(b"not that")
        with pytest.raises(HostileInput, match="was asked for"):
            blob.commit(Digest.of(b"this"))
    assert list(store.blobs) == []
    assert list(store.temporary.iterdir()) == []


def test_a_writer_that_is_left_leaves_nothing(store):
    """An exception on the way throws the unfinished file away."""
    with pytest.raises(KeyError), store.writer() as blob:
        blob.write(b"half")
        raise KeyError
    assert list(store.temporary.iterdir()) == []


@pytest.mark.parametrize("use", ["open", "read", "has", "verified"])
def test_a_changed_blob_is_found_out_and_removed(store, use):
    """Bytes that changed on disk are noticed at the next use, and never served again."""
    blob = store.put(b"precious", "text/plain")
    store.blobs.path(blob.digest).write_bytes(b"Precious")
    if use == "has":
        assert not store.has(blob.digest)
    else:
        with pytest.raises(BlobDamaged, match="damaged"):
            if use == "open":
                store.open_blob(blob.digest)
            elif use == "read":
                store.read(blob)
            else:
                list(store.read_verified(blob))
    with pytest.raises(BlobMissing):
        store.open_blob(blob.digest)


def test_damage_that_stat_does_not_show_is_found_when_every_byte_is_read(store):
    """Streaming a blob hashes it, whatever its stamp says."""
    blob = store.put(b"precious", "text/plain")
    path = store.blobs.path(blob.digest)
    path.write_bytes(b"Precious")
    status = path.stat()
    forged = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n"
    (store.home / "stamps" / blob.digest.hex).write_text(forged)
    assert store.has(blob.digest)
    with pytest.raises(BlobDamaged):
        b"".join(store.read_verified(blob))


def test_a_blob_that_was_only_touched_is_hashed_again_and_kept(store):
    """A new mtime alone costs one hash, once, and no blob."""
    blob = store.put(b"precious", "text/plain")
    store.blobs.path(blob.digest).touch()
    stamp = store.home / "stamps" / blob.digest.hex
    before = stamp.read_bytes()
    assert store.has(blob.digest)
    assert stamp.read_bytes() != before


def test_a_truncated_blob_is_replaced_by_the_next_that_comes(store):
    """Putting the same bytes again heals a damaged blob."""
    blob = store.put(b"precious", "text/plain")
    store.blobs.path(blob.digest).write_bytes(b"pre")
    assert store.read(store.put(b"precious", "text/plain")) == b"precious"


def test_more_than_the_limit_is_not_read(store):
    """A manifest of gigabytes is refused before it is in memory."""
    blob = store.put(b"x" * 100, "text/plain")
    with pytest.raises(HostileInput, match="larger"):
        store.read(blob, 99)


def test_a_blob_of_another_size_than_described_is_refused(store):
    """A descriptor's size is part of what is checked."""
    store.put(b"12345", "text/plain")
    wrong = Descriptor(media_type="text/plain", digest=Digest.of(b"12345"), size=4)
    with pytest.raises(HostileInput, match="5 bytes where 4"):
        store.read(wrong)
    with pytest.raises(HostileInput, match="5 bytes where 4"):
        list(store.read_verified(wrong))


def test_foreign_files_among_the_blobs_are_left_alone(store):
    """A name that is no digest is no blob."""
    store.put(b"x", "text/plain")
    (store.blobs.folder / "README").write_text("hello")
    (store.blobs.folder / ("z" * 64)).write_text("hello")
    assert list(store.blobs) == [Digest.of(b"x")]


def test_a_stream_can_be_copied_into_a_writer(store):
    """A writer is a sink like any other."""
    with store.writer() as blob:
        for line in io.BytesIO(b"a\nb\n"):
            blob.write(line)
        blob.commit()
    assert store.has(Digest.of(b"a\nb\n"))


def never():
    """Fail where nobody else should be writing."""
    raise AssertionError


def test_what_came_of_a_blob_is_gone_on_with(store):
    """Leaving early keeps the bytes; the whole is verified, and filed once it is right."""
    data = bytes(range(256)) * 20_000
    digest = Digest.of(data)
    with store.resume(digest, never) as writer:
        assert writer.size == 0
        writer.write(data[:3_000_000])
    with store.resume(digest, never) as writer:
        assert writer.size == 3_000_000
        writer.write(data[3_000_000:])
        assert writer.commit()
    assert store.blobs.read(digest, 1 << 30) == data
    assert not list(store.partial.iterdir())


def test_what_came_wrong_is_not_gone_on_with(store):
    """Bytes that lead to another digest are dropped, and leave no file."""
    digest = Digest.of(b"right")
    with store.resume(digest, never) as writer:
        writer.write(b"wrong")
        assert not writer.commit()
        assert writer.size == 0
    assert not store.has(digest)
    assert not list(store.partial.iterdir())


def test_two_that_want_a_blob_take_turns(store):
    """The second waits until the first is done, and finds the blob."""
    data = b"x" * 100_000
    digest = Digest.of(data)
    waited, seen = threading.Event(), []

    def second():
        with store.resume(digest, waited.set) as writer:
            seen.append((writer.size, store.has(digest)))

    with store.resume(digest, never) as writer:
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        writer.write(data)
        assert writer.commit()
    thread.join()
    assert seen == [(0, True)]
    assert not list(store.partial.iterdir())


def test_waiting_can_be_given_up(store):
    """What ``wait`` raises ends the wait, and the other goes on."""
    digest = Digest.of(b"data")

    class Enough(Exception):
        pass

    def enough():
        raise Enough

    with store.resume(digest, never) as writer:
        with pytest.raises(Enough), store.resume(digest, enough):
            pass
        writer.write(b"data")
        assert writer.commit()
    assert store.has(digest)


def test_prune_takes_what_was_begun(store):
    """Nobody goes on with it: its space is given back."""
    with store.resume(Digest.of(b"never"), never) as writer:
        writer.write(b"x" * 5000)
    store.release()
    assert prune(store).size >= 5000
    assert not list(store.partial.iterdir())
