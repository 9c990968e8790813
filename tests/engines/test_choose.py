"""Which engine runs an image."""

import pytest

from torchship.engines import choose as choosing
from torchship.engines.choose import check_platform, choose, engines
from torchship.errors import EngineError, UsageError
from torchship.platform import Platform

from .conftest import linux

PODMAN = """[ "$1" != unshare ] || echo '         0     100000      65536'"""


@pytest.fixture
def no_programs(tmp_path, monkeypatch):
    """Make a machine that has neither docker nor podman."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder, name, script):
    """Put a program on the PATH that answers as a client whose daemon does."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@linux
@pytest.mark.parametrize("name", ["auto", "native"])
def test_the_native_engine_is_found(store, name, no_programs):
    """By name, and where nothing else is there."""
    assert choose(name, store).name == "native"


def test_an_unknown_engine_is_a_usage_error(store):
    """And the message lists the known ones."""
    with pytest.raises(UsageError) as caught:
        choose("lxc", store)
    assert caught.value.hint == "use one of auto, docker, podman, native"


@linux
def test_auto_takes_the_first_that_really_runs(store, no_programs):
    """A docker whose daemon is not running is passed over, and so is one that is not docker."""
    down = 'echo "Cannot connect to the Docker daemon. Is the docker daemon running?" >&2; exit 1'
    program(no_programs, "docker", down)
    assert choose("auto", store).name == "native"
    program(no_programs, "podman", PODMAN)
    assert choose("auto", store).name == "podman"
    program(no_programs, "docker", 'echo \'{"ServerVersion": "1", "OSType": "linux"}\'')
    assert choose("auto", store).name == "docker"
    program(no_programs, "docker", "echo '{\"host\": {}}'")
    assert choose("auto", store).name == "podman"


@linux
def test_a_podman_without_subordinate_ids_is_passed_over(store, no_programs, monkeypatch):
    """It is told before anything is built, with the files that give ids; root needs none."""
    script = """[ "$1" != unshare ] || echo '         0       1000          1'"""
    program(no_programs, "podman", script)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert choose("auto", store).name == "native"
    with pytest.raises(EngineError, match="no subordinate user ids") as caught:
        choose("podman", store).prepare(None)
    assert "/etc/subuid" in caught.value.hint and "--engine native" in caught.value.hint
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert choose("auto", store).name == "podman"


def test_where_none_runs_each_says_why(store, no_programs, monkeypatch):
    """One message with all the reasons."""
    monkeypatch.setattr(
        choosing,
        "engines",
        lambda *_: [engine for engine in engines(store) if engine.name != "native"],
    )
    with pytest.raises(EngineError, match="docker: docker is not installed; podman: podman is not"):
        choose("auto", store)
    with pytest.raises(EngineError, match="docker is not installed"):
        choose("docker", store).prepare(None)


@linux
def test_what_an_engine_cannot_start_is_told_before_it_is_made(store, monkeypatch, tmp_path):
    """The native engine runs this machine's programs; the others, those with an emulator."""
    other = Platform("linux", "arm64" if Platform.host().architecture == "amd64" else "amd64")
    monkeypatch.setattr(choosing, "_FORMATS", tmp_path)
    docker, _, native = engines(store)
    check_platform(native, Platform.host())
    with pytest.raises(EngineError, match=f"runs nothing for {other}"):
        check_platform(native, other)
    with pytest.raises(EngineError, match="no emulator"):
        check_platform(docker, other)
    (tmp_path / f"qemu-{other.machine}").touch()
    check_platform(docker, other)
