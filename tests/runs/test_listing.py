"""Records and verdicts in the list of what is attached to an image: strangers', all of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.runs.records import accuracies
from tests.runs.test_wording import NASTY

from torchship import canonical, render
from torchship.digest import Digest
from torchship.oci import artifact
from torchship.oci.store import Store
from torchship.progress import SILENT
from torchship.runs import listing as listings
from torchship.runs import publishing, reproduction
from torchship.runs.listing import Listing, listing
from torchship.runs.publishing import Published
from torchship.runs.record import Record
from torchship.runs.statement import MEDIA_TYPE, encode

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def store(tmp_path) -> Store:
    """Return an empty store."""
    return Store.open(tmp_path / "home", progress=SILENT)


@pytest.fixture
def image(store):
    """Put something into the store that records can be about."""
    return store.put(canonical.encode({"schemaVersion": 2}), MANIFEST)


def about(image, found: Record) -> Published:
    """Return a record as one about that image, as it is published."""
    named = replace(found, image=replace(found.image, manifest=image.digest))
    return Published(record=named, raw=encode(named))


def listed(store, image) -> Listing:
    """List what is attached to the image."""
    attached = artifact.referrers(store, image.digest)
    return listing(store, attached, manifest=image.digest, top=image.digest)


def reproduced(store, image, author: Published, own: Record, said: str):
    """Attach a reproduction that says so of itself."""
    own_raw = about(image, own).raw
    return artifact.attach(
        store,
        image,
        reproduction.ARTIFACT_TYPE,
        [
            artifact.Content(b"{}", MEDIA_TYPE, "verdict.json"),
            artifact.Content(own_raw, MEDIA_TYPE, publishing.FILE),
        ],
        {reproduction.VERDICT: said, reproduction.RECORD: str(author.digest)},
    )


def test_a_record_is_listed_with_its_claims(store, image):
    """When, how many runs, and each claim in short."""
    author = about(image, accuracies(0.985, 0.986, 0.987))
    publishing.attach(store, image, author)
    shown = render.listed(listed(store, image))
    assert shown.splitlines() == [
        "records",
        f"  {author.digest.short}  2026-11-23 02:00 UTC, 3 runs",
        "    test_accuracy 0.986 ± 0.001, n = 3",
    ]
    (record,) = listings.as_json(listed(store, image))["records"]
    assert (record["digest"], record["runs"]) == (str(author.digest), 3)
    assert record["claims"][0]["mean"]["value"] == 0.986


def test_a_verdict_is_what_the_records_give(store, image):
    """A reproduction that calls itself more than it is, is listed as what it is."""
    author = about(image, accuracies(0.985, 0.986, 0.987))
    publishing.attach(store, image, author)
    reproduced(store, image, author, accuracies(0.986, first=9), "WITHIN TOLERANCE")
    reproduced(store, image, author, accuracies(0.5, first=9), "BIT-IDENTICAL")
    shown = render.listed(listed(store, image))
    assert f"  WITHIN TOLERANCE, of {author.digest.short}: 2026-11-23 02:00 UTC, 1 run" in shown
    assert "  NOT REPRODUCED (it says BIT-IDENTICAL of itself), of " in shown
    verdicts = listings.as_json(listed(store, image))["verdicts"]
    assert [each["verdict"] for each in verdicts] == ["WITHIN TOLERANCE", "NOT REPRODUCED"]


def test_what_is_faulty_counts_for_nothing(store, image):
    """A verdict without its record, a record about another image, one that is no record."""
    author = about(image, accuracies(0.985, 0.986))
    reproduced(store, image, author, accuracies(0.986), "BIT-IDENTICAL")
    elsewhere = Published(record=accuracies(0.1), raw=encode(accuracies(0.1)))
    publishing.attach(store, image, elsewhere)
    publishing.attach(store, image, Published(record=author.record, raw=b"{}"))
    found = listed(store, image)
    assert [each.published for each in found.records] == [None, None]
    assert [each.wording for each in found.verdicts] == [""]
    shown = render.listed(found)
    assert shown.count("counts for nothing") == 3
    assert "is about another image" in shown
    assert "is not attached, or is faulty" in shown
    assert "BIT-IDENTICAL" not in shown


def test_there_is_an_end_to_what_is_read(store, image, monkeypatch):
    """Whoever attaches much fills neither the screen nor the memory."""
    for place in range(listings.MOST + 3):
        publishing.attach(store, image, about(image, accuracies(0.9, 0.8 - place / 1000)))
    found = listed(store, image)
    assert (len(found.records), found.more) == (listings.MOST, 3)
    assert "and 3 more that were not read" in render.listed(found)
    monkeypatch.setattr(listings, "_MOST_BYTES", len(found.records[0].published.raw) * 3 // 2)
    assert sum(each.published is not None for each in listed(store, image).records) == 1


def test_a_terminal_obeys_no_record(store, image):
    """Text that a terminal would obey is shown as text, in a line's length."""
    spoilt = replace(accuracies(0.98, 0.99), engine=NASTY, torchship=NASTY)
    spoilt = replace(spoilt, image=replace(spoilt.image, name=NASTY * 100))
    author = about(image, spoilt)
    publishing.attach(store, image, author)
    reproduced(store, image, author, replace(spoilt, command=("x", NASTY)), NASTY)
    shown = render.listed(listed(store, image))
    assert "INCONCLUSIVE (it says " in shown
    assert shown.replace("\n", "").isprintable()
    assert max(map(len, shown.splitlines())) < 300


def test_nothing_attached_is_nothing_shown(store, image):
    """Images without records are shown as before."""
    assert render.listed(listed(store, image)) == ""
    assert listings.as_json(Listing()) == {"records": [], "verdicts": []}


def test_a_digest_of_a_manifest_or_of_its_index_will_do(store, image):
    """A record about the index is one about each image of it."""
    author = about(image, accuracies(0.9, 0.8))
    descriptor = publishing.attach(store, image, author)
    found = listing(store, [descriptor], manifest=Digest.of(b"platform"), top=image.digest)
    assert found.records[0].published == author
