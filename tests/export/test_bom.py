"""The bill of materials of an image."""

from __future__ import annotations

import json
import sys

import pytest
from tests.export.conftest import layer

from torchship.errors import UsageError
from torchship.export.bom import sbom

json_validation = pytest.importorskip("cyclonedx.validation.json")
from cyclonedx.schema import SchemaVersion  # noqa: E402 (only where the library is there)

SITE = "opt/venv/lib/python3.11/site-packages"
WHEEL = f"torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl@sha256:{'ab' * 32}"
STATUS = b"""\
Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 1:2.36-9+deb12u10
Provides: c-library

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2
Depends: missing | c-library
"""
LABELS = {
    "org.opencontainers.image.title": "mnist",
    "org.opencontainers.image.base.name": "debian:bookworm",
    "dev.torchship.data": json.dumps({"/data/x": f"sha256:{'00' * 32}"}),
}


def metadata(name, version, *lines):
    """Return a METADATA file."""
    return "\n".join([f"Name: {name}", f"Version: {version}", *lines, "", ""]).encode()


@pytest.fixture
def image(make):
    """Give an image with some of everything."""
    base = layer({"var/lib/dpkg/status": STATUS, "usr/lib/os-release": b"ID=debian\nVERSION_ID=12"})
    torch = layer(
        {
            f"{SITE}/torch-2.13.0+cpu.dist-info/METADATA": metadata(
                "torch", "2.13.0+cpu", "License-Expression: BSD-3-Clause",
                "Requires-Dist: Jinja2", "Requires-Dist: triton; sys_platform == 'darwin'",
                "Requires-Dist: triton; extra == 'x'", "Requires-Dist: not a requirement!",
            ),
            f"{SITE}/jinja2-3.dist-info/METADATA": metadata("Jinja2", "3", "License: odd words"),
            f"{SITE}/triton-3.dist-info/METADATA": metadata("triton", "3"),
            f"{SITE}/torch/_vendor/jinja2-3.dist-info/METADATA": metadata("Jinja2", "3"),
        }
    )  # fmt: skip
    data = layer({"data/x": b"data"})
    origins = [
        {"dev.torchship.layer.origin": text} for text in ("debian:bookworm", f"wheel:{WHEEL}")
    ]
    return make(base, torch, data, labels=LABELS, annotations=origins)


@pytest.fixture
def document(store, image):
    """Give its bill of materials, decoded."""
    return json.loads(sbom(image, store.open_blob))


def by_ref(document):
    """Return the components by their bom-ref."""
    return {each["bom-ref"]: each for each in document["components"]}


def needs(document):
    """Return what each component needs."""
    return {each["ref"]: set(each.get("dependsOn", ())) for each in document["dependencies"]}


def test_it_obeys_the_published_schema(store, image, make):
    """Of an image with everything, and of an empty one."""
    validator = json_validation.JsonStrictValidator(SchemaVersion.V1_6)
    for each in (image, make(layer({}))):
        assert validator.validate_str(sbom(each, store.open_blob).decode()) is None


def test_the_same_image_gives_the_same_bytes(store, image):
    """No time is in it, and the serial number follows from the image's digest."""
    first = sbom(image, store.open_blob)
    assert first == sbom(image, store.open_blob)
    assert "timestamp" not in json.loads(first)["metadata"]


def test_another_image_has_another_serial_number(store, document, make):
    """As CycloneDX demands."""
    other = json.loads(sbom(make(layer({"x": b""})), store.open_blob))
    assert other["serialNumber"] != document["serialNumber"]


def test_everything_in_the_image_is_listed(document):
    """Wheels, Debian packages, data files and the system, under the names that scanners use."""
    assert set(by_ref(document)) == {
        "pkg:pypi/torch@2.13.0%2Bcpu",
        "pkg:pypi/jinja2@3",
        "pkg:pypi/triton@3",
        "pkg:deb/debian/libc6@1:2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12&upstream=glibc",
        "pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12",
        "data:/data/x",
        "os:debian",
    }


def test_the_image_itself_is_what_it_is_about(document, image):
    """By its digest."""
    about = document["metadata"]["component"]
    assert (about["type"], about["name"]) == ("container", "mnist")
    assert about["version"] == about["bom-ref"] == str(image.descriptor.digest)


def test_a_wheel_has_the_digest_that_its_layer_notes(document):
    """Others have none: nobody knows it."""
    components = by_ref(document)
    assert components["pkg:pypi/torch@2.13.0%2Bcpu"]["hashes"] == [
        {"alg": "SHA-256", "content": "ab" * 32}
    ]
    assert "hashes" not in components["pkg:pypi/jinja2@3"]


def test_licences_are_ids_expressions_or_names(document):
    """As the metadata have them."""
    components = by_ref(document)
    (torch,) = components["pkg:pypi/torch@2.13.0%2Bcpu"]["licenses"]
    assert torch["expression"] == "BSD-3-Clause"
    (jinja,) = components["pkg:pypi/jinja2@3"]["licenses"]
    assert jinja["license"]["name"] == "odd words"


def test_what_is_there_twice_is_listed_once_with_both_places(document):
    """A vendored copy is one, too."""
    places = by_ref(document)["pkg:pypi/jinja2@3"]["evidence"]["occurrences"]
    assert {each["location"] for each in places} == {
        f"/{SITE}/jinja2-3.dist-info",
        f"/{SITE}/torch/_vendor/jinja2-3.dist-info",
    }


def test_dependencies_are_those_that_hold_here(document, image):
    """Markers of other systems and extras do not; of alternatives, what is there, by any name."""
    found = needs(document)
    assert found["pkg:pypi/torch@2.13.0%2Bcpu"] == {"pkg:pypi/jinja2@3"}
    (bash,) = (ref for ref in found if "bash" in ref)
    assert {ref.split("@")[0] for ref in found[bash]} == {"pkg:deb/debian/libc6"}
    tops = found[str(image.descriptor.digest)]
    assert bash in tops and "pkg:pypi/triton@3" in tops and "os:debian" in tops


def test_a_published_base_image_is_listed_by_its_name(store, make):
    """With its digest, where the label is there."""
    labels = {
        "org.opencontainers.image.base.name": "docker.io/library/python:3.11-slim",
        "org.opencontainers.image.base.digest": f"sha256:{'1' * 64}",
    }
    found = json.loads(sbom(make(layer({}), labels=labels), store.open_blob))
    (base,) = found["components"]
    assert (base["type"], base["name"]) == ("container", "docker.io/library/python:3.11-slim")
    assert base["version"] == f"sha256:{'1' * 64}"


def test_hostile_names_do_no_harm(store, make):
    """Odd text is encoded or left out, and the document stays valid."""
    files = {
        f"{SITE}/{place}-1.dist-info/METADATA": text
        for place, text in {
            "a": metadata("<script>", "1?x=y#z", "Summary: \x1b[31m", "License: \x00"),
            "b": metadata("x" * 5000, "1"),
            "c": metadata("c", "%", "License-Expression: " + "(" * 900, "Requires-Dist: c"),
            "d": metadata("d@1/../..", "1"),
            "e": metadata("e", "1/..", "Requires-Dist: c; " + "(" * 9000),
        }.items()
    }
    files["usr/lib/os-release"] = b"ID=../../x?y\n"
    files["var/lib/dpkg/status"] = b"Package: a/../b@c\nVersion: ?#\nArchitecture: &x=y\n"
    raw = sbom(make(layer(files)), store.open_blob).decode()
    validator = json_validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(raw) is None
    listed = {each["name"] for each in json.loads(raw)["components"]}
    assert listed == {"c", "e", "../../x?y"}
    assert "\x1b" not in raw and "u001b" not in raw and "x" * 5000 not in raw


def test_without_the_library_the_extra_is_named(store, image, monkeypatch):
    """The hint is the command that installs it."""
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    with pytest.raises(UsageError) as caught:
        sbom(image, store.open_blob)
    assert caught.value.hint == "pip install 'torchship[sbom]'"
