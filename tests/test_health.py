"""What `doctor` finds, and how each lack is mended."""

from __future__ import annotations

import os

import pytest

from torchship import health
from torchship.oci.store import Store


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Examine a machine whose store is in a folder that is not there yet."""
    monkeypatch.delenv("TORCHSHIP_MIRRORS", raising=False)

    def examine(home=tmp_path / "not" / "there"):
        return {found.subject: found for found in health.examine(Store.open(home))}

    return examine


def test_a_store_that_is_not_there_yet(findings, tmp_path):
    """Its disk is looked at, and nothing is made."""
    assert findings()["store"].fix is None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small(findings, monkeypatch):
    """What an image takes is told."""
    monkeypatch.setattr(health, "ENOUGH", 10**18)
    assert "free some space" in findings()["store"].fix


def test_a_store_that_cannot_be_written(findings, monkeypatch):
    """The folder is named, and the variable that names another."""
    monkeypatch.setattr(health.os, "access", lambda *_: False)
    assert "TORCHSHIP_HOME" in findings()["store"].fix


def test_programs_that_are_missing_are_no_fault(findings, monkeypatch):
    """Docker and Podman are not needed; without apt-get locks cannot be made for debian:..."""
    monkeypatch.setenv("PATH", "/nowhere")
    found = findings()
    assert found["docker"].fix is None and "not installed" in found["docker"].state
    assert "python:3.11-slim" in found["debian packages"].fix


def test_mirrors(findings, monkeypatch, tmp_path):
    """Folders that are named are looked for; one that is not there is told."""
    assert findings()["mirrors"].fix is None
    monkeypatch.setenv("TORCHSHIP_MIRRORS", str(tmp_path))
    assert findings()["mirrors"].state == str(tmp_path)
    monkeypatch.setenv("TORCHSHIP_MIRRORS", "/nowhere")
    assert "TORCHSHIP_MIRRORS" in findings()["mirrors"].fix


def test_an_architecture_without_images_hides_nothing_else(findings, monkeypatch):
    """It is told as the one fault that it is."""
    other = os.uname_result(("Linux", "here", "6.1.0", "#1", "riscv64"))
    monkeypatch.setattr("torchship.platform.os.uname", lambda: other)
    found = findings()
    assert "not supported" in found["python"].state
    assert "store" in found
