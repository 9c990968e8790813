"""How the docker engine reads what its client says; the client here is a script."""

import json
import os
from pathlib import Path

import pytest

from torchship.engines import handover
from torchship.engines.client import last_words
from torchship.engines.commandline import bind
from torchship.engines.docker import Docker
from torchship.engines.variables import variables

INFO = {"ServerVersion": "28", "OSType": "linux", "ClientInfo": {"Context": "default"}}


@pytest.fixture
def docker(store, tmp_path, monkeypatch):
    """Return an engine whose client answers `info` with given words, and a context's address."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)

    def make(info, error="", context=""):
        (tmp_path / "info").write_text(json.dumps(info))
        (tmp_path / "error").write_text(error)
        status = 1 if error else 0
        (tmp_path / "docker").write_text(
            "#!/bin/sh\n"
            f'[ "$1" = context ] && echo {context} && exit\n'
            f"cat {tmp_path}/info; cat {tmp_path}/error >&2; exit {status}\n"
        )
        (tmp_path / "docker").chmod(0o755)
        return Docker(store)

    return make


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("permission denied while trying to connect", "no permission"),
        ("Cannot connect to the Docker daemon. Is the docker daemon running?", "not running"),
        ("something new", "something new"),
    ],
)
def test_why_a_daemon_cannot_be_used(docker, said, reason):
    """Each refusal is told in one sentence."""
    assert reason in docker({}, said).missing()


def test_a_context_on_another_machine(docker):
    """The context that is chosen counts where DOCKER_HOST is not set."""
    info = {**INFO, "ClientInfo": {"Context": "far"}}
    assert "ssh://far" in docker(info, context="ssh://far").missing()
    assert docker(info, context="unix:///home/me/docker.sock").missing() is None


def test_other_daemons(docker):
    """Windows containers and Podman's stand-in are not Docker for Linux."""
    assert "windows" in docker({**INFO, "OSType": "windows"}).missing()
    assert "stand-in" in docker({"host": {}}).missing()


def test_what_a_daemon_is_like(docker):
    """Rootless, the image store and the init program are read from what it says of itself."""
    plain = docker(INFO)._daemon()
    assert (plain.rootless, plain.containerd, plain.init) == (False, False, True)
    other = docker(
        {
            **INFO,
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
            "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
            "InitCommit": {"ID": "N/A"},
        }
    )._daemon()
    assert (other.rootless, other.containerd, other.init) == (True, True, False)


def test_a_mount_is_a_line_of_csv(tmp_path):
    """Commas and quotes in a path are the path's own."""
    words = bind(tmp_path / 'a,"b', "/data", read_only=True)
    assert words == (
        "--mount",
        f'type=bind,"source={tmp_path}/a,""b",target=/data,readonly',
    )


def test_the_last_complaint_counts():
    """What each layer of Docker puts before it is left out, and so is its advice."""
    said = "docker: Error response from daemon: no such thing.\nSee 'docker run --help'.\n"
    assert last_words(said) == "no such thing"
    assert last_words("\n") == ""


def test_variables_go_through_a_file_without_a_name():
    """One line each; a value of several lines goes through the client's environment by name."""
    with variables({"A": "b=c #", "TWO": "1\n2"}) as passed:
        assert passed.words[2:] == ("--env", "TWO")
        assert passed.environment == {"TWO": "1\n2"}
        assert Path(passed.words[1]).read_bytes() == b"A=b=c #\n"


def test_a_folder_is_opened_to_one_user_and_closed_again(tmp_path):
    """For the time of a run an access control list names that user; the mode is as before."""
    tmp_path.chmod(0o750)
    with handover.writable_by(os.geteuid() + 4321, tmp_path):
        assert os.listxattr(tmp_path) or tmp_path.stat().st_mode & 0o007
        assert tmp_path.stat().st_mode & 0o700 == 0o700
    assert os.listxattr(tmp_path) == []
    assert tmp_path.stat().st_mode & 0o777 == 0o750
    with handover.writable_by(os.geteuid(), tmp_path):
        assert os.listxattr(tmp_path) == []


def test_what_belongs_to_others_is_seen(tmp_path):
    """A folder is the caller's when everything below is."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("/etc/passwd")
    if os.geteuid() != 0:
        assert handover.all_mine(tmp_path)
        return
    os.chown(tmp_path / "a" / "link", 4321, 4321, follow_symlinks=False)
    assert not handover.all_mine(tmp_path)
    owner = Path("/etc/passwd").stat().st_uid
    handover.take(tmp_path)
    assert handover.all_mine(tmp_path) and Path("/etc/passwd").stat().st_uid == owner
