"""What is attached to a published image beside its record: signatures, bills of materials."""

from __future__ import annotations

import json
import zipfile

import pytest
from tests.integration.test_end_to_end import machine, shared
from tests.integration.test_reproduce import FEW, author, project, publish, reader, reference

from torchship.oci.artifact import read, referrers
from torchship.oci.image import manifests
from torchship.runs import signature

sigstore = pytest.importorskip("tests.runs.sigstore")
__all__ = ["author", "machine", "project", "reader", "reference", "shared"]

pytestmark = [pytest.mark.network, pytest.mark.engine]

ADA = "ada@example.org"
EVE = "eve@example.org"
CYCLONEDX = "application/vnd.cyclonedx+json"


@pytest.fixture
def trust(tmp_path):
    """Serve a private sigstore; give the file that describes it."""
    with sigstore.serving() as served:
        path = tmp_path / "trust.json"
        path.write_text(served.trust_config)
        yield path


def test_a_signed_record_is_verified_before_anything_runs(
    author, reader, project, reference, trust
):
    """By whom it is signed is told, and whoever else should have signed it stops the run."""
    publish(author, project, reference, *FEW)
    signing = author.with_environment(**{signature.TOKEN: sigstore.token(ADA)})
    command = ("publish", reference, "authors", "--sign", "--trust-config", trust)
    signing.torchship(*command).fails("nobody is there to agree", "--yes", status=2)
    answer = signing.torchship(*command, "--yes")
    assert answer.status == 0, answer.err
    assert f"who you are: {ADA}" in answer.err

    def again(*options):
        command = ("reproduce", reference, "--engine", "native", "--trust-config", trust)
        return reader.torchship(*command, *options)

    refused = again("--signed-by", "eve@example.org", "-o", "refused")
    assert refused.status == 4
    assert f"signed by {ADA} ({sigstore.ISSUER}), and not by eve@example.org" in refused.out
    assert not (reader.root / "refused").exists()
    answer = again("--signed-by", ADA, "--signed-issuer", sigstore.ISSUER)
    assert answer.status == 0, answer.err
    assert answer.out.startswith("BIT-IDENTICAL")
    assert f"signed by {ADA} (says {sigstore.ISSUER})" in answer.err
    # the public sigstore knows nobody of the private one
    stranger = reader.torchship("reproduce", reference, "--engine", "native")
    assert stranger.status == 4
    assert "signature does not hold" in stranger.out


def test_of_several_records_the_one_that_was_asked_for_is_judged_by(
    author, reader, project, reference, trust
):
    """A newer record of somebody else does not stand in the way of the author's."""
    for folder, who in (("authors", ADA), ("eves", EVE)):
        made = author.torchship("record", project, *FEW, "--engine", "native", "-o", folder)
        assert made.status == 0, made.err
        signing = author.with_environment(**{signature.TOKEN: sigstore.token(who)})
        command = ("publish", reference, folder, "--sign", "--yes", "--trust-config", trust)
        published = signing.torchship(*command)
        assert published.status == 0, published.err
    command = ("reproduce", reference, "--engine", "native", "--trust-config", trust)
    answer = reader.torchship(*command, "--signed-by", ADA, "-o", "by-ada")
    assert answer.status == 0, answer.err
    assert f"signed by {ADA} " in answer.err and EVE not in answer.err
    answer = reader.torchship(*command, "--signed-by", EVE, "-o", "by-eve")
    assert answer.status == 0, answer.err
    assert f"signed by {EVE} " in answer.err and ADA not in answer.err


def test_a_recorded_directory_becomes_a_crate(author, project):
    """In place, and as a zip; the record alone needs to be told where to."""
    made = author.torchship("record", project, "--engine", "native", *FEW, "-o", "authors")
    assert made.status == 0, made.err
    answer = author.torchship("crate", "authors", "-o", "crate.zip", "--license", "CC-BY-4.0")
    assert (answer.status, answer.out) == (0, "crate.zip\n")
    answer = author.torchship("crate", "authors")
    assert (answer.status, answer.out) == (0, "authors/ro-crate-metadata.json\n")
    with zipfile.ZipFile(author.root / "crate.zip") as archive:
        names = set(archive.namelist())
        for name in ("record.json", "seed-3/stdout.log", "seed-3/output/weights.bin"):
            assert archive.read(name) == (author.root / "authors" / name).read_bytes()
    assert "repeat/output/weights.bin" not in names
    author.torchship("crate", "authors/record.json").fails("-o DIR", status=2)


def test_a_bill_of_materials_travels_with_the_image(author, reader, project, reference):
    """What the author attached and what a reader makes of the same image are the same bytes."""
    pytest.importorskip("cyclonedx")
    author.build(project, "-t", reference)
    answer = author.torchship("sbom", reference, "--push")
    assert answer.status == 0, answer.err
    assert reader.torchship("pull", reference).status == 0
    store = reader.store
    (image,) = manifests(store, store.find(reference))
    (found,) = referrers(store, image.digest, CYCLONEDX)
    assert str(found.digest) == answer.out.strip()
    (layer,) = read(store, found).layers
    own = reader.torchship("sbom", reference)
    assert own.out.encode() == store.read(layer)
    listed = {each["bom-ref"] for each in json.loads(own.out)["components"]}
    assert "data:/data/x" in listed and "os:debian" in listed
    assert any(ref.startswith("pkg:deb/debian/libc6@") for ref in listed)
    assert any(each["artifactType"] == CYCLONEDX for each in _inspected(reader, reference))


def _inspected(machine, reference):
    (found,) = json.loads(machine.torchship("inspect", reference, "--json").out)
    return found["referrers"]
