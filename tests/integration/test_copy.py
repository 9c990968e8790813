"""Images between registries, and what refers to them, wherever they go."""

from __future__ import annotations

import json

import pytest
from tests.integration import images
from tests.integration import proxy as faults
from tests.integration import registry as registries
from tests.machine import sealed

from torchship.digest import Descriptor, Digest
from torchship.errors import ImageNotFound, RegistryError
from torchship.oci import artifact
from torchship.oci.attached import pull_referrers
from torchship.oci.copy import copy
from torchship.oci.image import read_image
from torchship.oci.load import load
from torchship.oci.pull import pull
from torchship.oci.push import push
from torchship.oci.reference import Reference
from torchship.oci.referrers import attach, referrers
from torchship.oci.registry.client import Registry
from torchship.oci.registry.patience import Patience
from torchship.oci.save import save
from torchship.oci.store import Store
from torchship.platform import Platform
from torchship.progress import SILENT

pytestmark = pytest.mark.engine

AMD64 = Platform("linux", "amd64")
BIG = 3_000_000
RECORD = "application/vnd.example.record.v1+json"
STATEMENT = "application/vnd.in-toto+json"


@pytest.fixture
def store(tmp_path):
    """Give the store that images start in."""
    return Store.open(tmp_path / "store")


@pytest.fixture
def empty(tmp_path):
    """Give the store that images arrive in."""
    return Store.open(tmp_path / "empty")


@pytest.fixture
def name(proxy, request):
    """Give a reference of the test's own, through the proxy."""
    return Reference.parse(f"{proxy.host}/{Digest.of(request.node.name.encode()).short}:v1")


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Give another registry."""
    with registries.running(tmp_path_factory.mktemp("second")) as running:
        yield running


@pytest.fixture
def elsewhere(second, name):
    """Give a reference to the other registry."""
    return Reference.parse(f"{second.host}/{name.repository}:v1")


def client(reference, patience=None):
    """Return a client that may push."""
    return Registry(reference.registry, access="pull,push", patience=patience)


def record(store, subject, text="{}") -> Descriptor:
    """Attach a small artifact to an image of the store."""
    content = artifact.Content(text.encode(), STATEMENT, "record.json")
    return artifact.attach(store, subject, RECORD, (content,))


def records(reference, subject) -> set[Digest]:
    """Return what a repository lists for a manifest."""
    found = referrers(client(reference), reference.repository, subject.digest, RECORD)
    return {each.digest for each in found}


def heard(lines):
    """Return a progress that keeps what is said."""

    class Heard:
        task = staticmethod(SILENT.task)
        say = staticmethod(lines.append)

    return Heard()


def moved(source, target, platform=None, **options):
    """Copy quietly."""
    return copy(source, target, platform=platform, progress=SILENT, **options)


def test_a_copy_has_the_same_bytes(store, empty, name, elsewhere, proxy):
    """Every blob and the manifest arrive unchanged, each read once."""
    made = images.image(store, [("a", BIG), ("b", 1000)])
    push(store, made, name, progress=SILENT)
    proxy.seen.clear()
    sent = moved(name, elsewhere)
    assert (sent.descriptor.digest, sent.skipped, sent.mounted) == (made.digest, 0, 0)
    assert sent.sent > BIG
    assert proxy.count("GET", "/blobs/sha256") == 3
    pull(elsewhere, empty, platform=None, progress=SILENT)
    for layer in read_image(empty, empty.find(str(elsewhere)), AMD64).layers:
        assert b"".join(empty.read_verified(layer.descriptor))
    assert moved(name, elsewhere).sent == 0


def test_a_copy_within_a_registry_mounts(store, name, proxy):
    """No blob is read, or sent."""
    made = images.image(store, [("a", BIG)])
    push(store, made, name, progress=SILENT)
    proxy.seen.clear()
    sent = moved(name, Reference.parse(f"{name.registry}/{name.repository}/next:v1"))
    assert sent.mounted > BIG
    assert proxy.count("GET", "/blobs/") == 0
    assert moved(name, name.with_tag("v2")).skipped > BIG


def test_an_index_is_copied_whole_or_one_platform_of_it(store, name, elsewhere):
    """All platforms keep the index's digest; one has its manifest's own."""
    here = images.image(store, [("x", 1000)])
    there = images.image(store, [("y", 2000)], architecture="arm64")
    top = images.index(store, {"amd64": here, "arm64": there})
    push(store, top, name, progress=SILENT)
    assert moved(name, elsewhere).descriptor.digest == top.digest
    one = elsewhere.with_tag("arm64")
    assert moved(name, one, Platform("linux", "arm64")).descriptor.digest == there.digest
    found = client(elsewhere)
    assert found.manifest(elsewhere)[1].digest == top.digest
    assert found.manifest(one)[1].digest == there.digest
    with pytest.raises(ImageNotFound, match="linux/amd64"):
        moved(one, elsewhere.with_tag("none"), AMD64)


def test_a_cut_on_either_side_goes_on_where_it_stopped(store, name, proxy, patience, second):
    """The source is asked for the rest, and the target told where it continues."""
    made = images.image(store, [("a", BIG)])
    push(store, made, name, progress=SILENT)
    proxy.on("GET", "/blobs/", faults.cut_answer(BIG // 2), times=2)
    with faults.running(second.host) as target:
        target.on("PUT|PATCH", "/blobs/", faults.cut_request(BIG // 3), times=2)
        goal = Reference.parse(f"{target.host}/{name.repository}:v1")
        moved(
            name, goal, origin=Registry(name.registry, patience=patience),
            registry=client(goal, patience),
        )  # fmt: skip
        assert target.fired == proxy.fired == 2
        assert client(goal).manifest(goal)[1].digest == made.digest


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"?", lambda data: data[:-9]])
def test_a_damaged_blob_is_not_passed_on(store, name, elsewhere, proxy, patience, change):
    """Nothing is named at the target, and the error is about the source."""
    made = images.image(store, [("a", BIG)])
    push(store, made, name, progress=SILENT)
    proxy.on("GET", "/blobs/", faults.changed(change), times=-1)
    with pytest.raises(RegistryError) as caught:
        moved(name, elsewhere, origin=Registry(name.registry, patience=patience))
    assert name.registry in caught.value.request or name.repository in caught.value.request
    assert client(elsewhere).find_manifest(elsewhere) is None


def test_a_blob_that_the_source_lost_is_the_sources_fault(
    store, name, elsewhere, proxy, patience, shared_registry
):
    """A 404 for the bytes is not taken for an upload that the target forgot."""
    made = images.image(store, [("a", BIG)])
    push(store, made, name, progress=SILENT)
    proxy.on("GET", "/blobs/", faults.answered(404), times=-1)
    with pytest.raises(RegistryError) as caught:
        moved(name, elsewhere, origin=Registry(name.registry, patience=patience))
    assert caught.value.status == 404
    assert caught.value.request.startswith(f"GET http://{name.registry}")


# -- what refers to an image


def test_records_travel_with_the_image(store, empty, name, elsewhere):
    """Push, copy and pull bring what is attached, to the index and to its images."""
    here = images.image(store, [("x", 1000)])
    there = images.image(store, [("y", 2000)], architecture="arm64")
    top = images.index(store, {"amd64": here, "arm64": there})
    whole, part = record(store, top, "1"), record(store, there, "2")
    deeper = record(store, part, "3")
    assert push(store, top, name, progress=SILENT).referrers == 3
    assert push(store, top, name, progress=SILENT).referrers == 0
    assert moved(name, elsewhere).referrers == 3
    for place in (name, elsewhere):
        assert records(place, top) == {whole.digest}
        assert records(place, there) == {part.digest}
        assert records(place, part) == {deeper.digest}
    pull(elsewhere, empty, platform=None, progress=SILENT)
    assert len(pull_referrers(elsewhere, empty, top, progress=SILENT)) == 3
    assert artifact.referrers(empty, there.digest) == (part,)
    assert artifact.referrers(empty, part.digest) == (deeper,)
    (layer,) = artifact.read(empty, whole).layers
    assert empty.read(layer) == b"1"


def test_an_archive_holds_the_records(store, empty, tmp_path):
    """`save` writes them, and `load` attaches them again."""
    made = images.image(store, [("x", 1000)])
    store.tag("x", made)
    attached = record(store, made)
    about = artifact.attached_to(store, [made.digest])
    save(store, made, tmp_path / "x.tar", names=[Reference.parse("x")], attached=about)
    image, loaded = load(empty, tmp_path / "x.tar")
    assert (image.descriptor.digest, image.subject) == (made.digest, None)
    assert (loaded.descriptor.digest, loaded.subject) == (attached.digest, made.digest)
    assert artifact.referrers(empty, made.digest) == (attached,)


def test_a_record_that_cannot_be_had_does_not_cost_the_image(store, empty, name, proxy, tmp_path):
    """It is told, and the others come."""
    made = images.image(store, [("x", 1000)])
    one, two = record(store, made, "1"), record(store, made, "2")
    push(store, made, name, progress=SILENT)
    lines = []
    proxy.on("GET", f"/manifests/{one.digest}", faults.answered(404), times=-1)
    pull(name, empty, platform=None, progress=SILENT)
    assert len(pull_referrers(name, empty, made, progress=heard(lines))) == 1
    assert artifact.referrers(empty, made.digest) == (two,)
    assert str(one.digest) in lines[0]
    proxy.on("GET", f"/manifests/sha256-{made.digest.hex}", faults.answered(403), times=-1)
    impatient = Registry(name.registry, patience=Patience(attempts=1))
    assert len(pull_referrers(name, empty, made, progress=heard(lines), registry=impatient)) == 0
    assert "cannot be listed" in lines[-1]


@pytest.mark.parametrize("lie", ["subject", "size"])
def test_what_only_pretends_to_refer_to_the_image_stays_out(
    store, empty, name, elsewhere, proxy, lie
):
    """A list may name anything: what came must say the same, and be small; a copy is no worse."""
    made, other = images.image(store, [("x", 1000)]), images.image(store, [("z", 1000)])
    push(store, made, name, progress=SILENT)
    if lie == "subject":
        told = record(store, other)
    else:
        told = record(store, made)
        document = json.loads(store.read(told))
        document["layers"][0]["size"] = 1 << 40
        told = store.put(json.dumps(document).encode(), told.media_type)
    described = {**told.as_json(), "artifactType": RECORD}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }
    proxy.on(
        *("GET", f"/referrers/{made.digest}"),
        faults.answered(200, {"Content-Type": index["mediaType"]}, json.dumps(index).encode()),
        times=-1,
    )
    raw = store.read(told)
    header = {"Content-Type": told.media_type}
    proxy.on("GET", f"/manifests/{told.digest}", faults.answered(200, header, raw), times=-1)
    pull(name, empty, platform=None, progress=SILENT)
    assert len(pull_referrers(name, empty, made, progress=SILENT)) == 0
    assert artifact.referrers(empty, made.digest) == ()
    lines = []
    sent = copy(name, elsewhere, platform=None, progress=heard(lines))
    assert (sent.descriptor.digest, sent.referrers) == (made.digest, 0)
    assert records(elsewhere, made) == set()
    assert f"{told.digest} refers to the image and is left behind" in " ".join(lines)


# -- the command line


def test_copy_tag_and_inspect_on_the_command_line(store, name, elsewhere, tmp_path):
    """A copy says its digest; inspect reads what was never pulled, and lists its records."""
    machine = sealed(tmp_path / "machine")
    made = images.image(store, [("a", BIG)])
    attached = record(store, made)
    push(store, made, name, progress=SILENT)
    answer = machine.torchship("copy", str(name), str(elsewhere))
    assert answer.digest == str(made.digest)
    assert "sent 3." in answer.err
    assert "and 1 that refer to it" in answer.err
    (shown,) = json.loads(machine.torchship("inspect", str(elsewhere), "--json").out)
    assert shown["manifest"] == str(made.digest)
    (listed,) = shown["referrers"]
    assert (listed["digest"], listed["artifactType"]) == (str(attached.digest), RECORD)
    assert RECORD in machine.torchship("inspect", str(elsewhere)).out
    assert not list(machine.store.images())
    assert "and 1 that refer to it" in machine.torchship("pull", str(elsewhere)).err
    assert machine.torchship("tag", str(elsewhere), "mine").out == "mine:latest\n"
    (again,) = json.loads(machine.torchship("inspect", "mine", "--json").out)
    assert again == shown
    machine.torchship("save", "mine", "-o", tmp_path / "mine.tar")
    other = machine.with_store("other")
    assert attached.digest.hex in other.torchship("load", tmp_path / "mine.tar").err
    machine.torchship("inspect", str(elsewhere.with_tag("none"))).fails(
        "the store holds no image", "failed with status 404"
    )
    machine.torchship("tag", "nothing", "x").fails("the store holds no image nothing")


@pytest.mark.parametrize("long", ["annotations", "type"])
def test_what_is_too_long_for_a_list_stays_out(store, empty, name, elsewhere, long):
    """Every list of referrers repeats type and annotations: a book there would break them all."""
    made = images.image(store, [("x", 1000)])
    kept = record(store, made)
    kind = f"application/{'x' * 300}" if long == "type" else RECORD
    noted = {"a": "x" * 70_000} if long == "annotations" else {}
    book = artifact.attach(store, made, kind, annotations=noted)
    lines = []
    assert push(store, made, name, progress=heard(lines)).referrers == 1
    # whoever wants to make trouble has a client of his own
    attach(client(name), name.repository, store.read(book), book, made.digest)
    assert records(name, made) >= {kept.digest}
    assert copy(name, elsewhere, platform=None, progress=heard(lines)).referrers == 1
    pull(name, empty, platform=None, progress=SILENT)
    assert pull_referrers(name, empty, made, progress=heard(lines)) == (kept.digest,)
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"{book.digest} refers to the image and is left")
        assert "longer than" in line
    assert (empty.oci / "index.json").stat().st_size < 2000


def test_what_refers_to_an_image_is_bounded_together(store, empty, name):
    """Whoever may attach to an image cannot fill the disk of whoever pulls it."""
    made = images.image(store, [("x", 1000)])
    heavy = artifact.Content(bytes(60 << 20), STATEMENT, "x")
    attached = [
        artifact.attach(store, made, RECORD, [heavy], {"number": str(number)})
        for number in range(5)
    ]
    light = record(store, made)
    push(store, made, name, progress=SILENT)
    lines = []
    pull(name, empty, platform=None, progress=SILENT)
    brought = pull_referrers(name, empty, made, progress=heard(lines))
    assert set(brought) < {light.digest, *(each.digest for each in attached)}
    assert len(brought) == 5
    assert light.digest in brought
    assert lines == [
        "more than 1000 manifests refer to the image, or more than 256 MiB: what is beyond that "
        "is left out"
    ]
