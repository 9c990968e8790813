"""Gathering pinned files from indexes, mirrors, a snapshot archive and data addresses."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from tests.project.server import send, serve

from torchship.digest import Digest
from torchship.errors import DataUnavailable, FetchError, LockError, MovedOn, UsageError
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project import apt, sources
from torchship.project.gather import gather
from torchship.project.lock import BasePin, DataPin, Lock, PackagePin, PlatformLock, WheelPin
from torchship.project.project import DataFile, Project

__all__ = ["serve"]

AMD64 = Platform.parse("linux/amd64")
CREATED = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)


def lock(
    packages: tuple[PackagePin, ...] = (),
    wheels: tuple[WheelPin, ...] = (),
    data: tuple[DataPin, ...] = (),
    created: datetime = CREATED,
) -> Lock:
    """Make a lock for one platform."""
    base = BasePin(reference="debian:bookworm", packages=packages)
    platform = PlatformLock(platform=AMD64, python="3.11.2", base=base, wheels=wheels)
    return Lock(created=created, inputs=Digest.of(b""), platforms=(platform,), data=data)


def get(
    tmp_path: Path, locked: Lock, *digests: Digest, data: tuple[DataFile, ...] = ()
) -> Mapping[Digest, Path]:
    """Gather digests, or all packages of a lock, into a folder of the test."""
    project = Project(root=tmp_path / "project", name="test", data=data)
    project.root.mkdir(exist_ok=True)
    everything = [pin.digest for pin in locked.platforms[0].base.packages]
    return gather(
        digests or everything,
        project=project,
        lock=locked,
        platform=AMD64,
        downloads=tmp_path / "home" / "downloads",
        progress=SILENT,
    )


def resolved(tmp_path: Path, *names: str) -> tuple[PackagePin, ...]:
    """Resolve packages against the test's mirror."""
    return apt.resolve("bookworm", names, AMD64, state=tmp_path / "s", progress=SILENT)


@pytest.fixture
def aged(debian, tmp_path: Path) -> Lock:
    """Make a lock of `tool 1`, which its mirror has replaced, and `kept`, which is there."""
    debian.add("tool", "1")
    debian.add("kept", "1+b1")
    debian.publish()
    locked = lock(resolved(tmp_path, "tool", "kept"))
    shutil.copytree(debian.root, tmp_path / "old")
    debian.add("tool", "2")
    debian.publish()
    return locked


def test_packages_come_from_the_mirror(debian, serve_folder, tmp_path: Path, monkeypatch) -> None:
    """Packages are fetched by pool path from the mirror, and not again when they are here."""
    debian.add("tool", "1.0+really~2")
    debian.publish()
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", serve_folder(debian.root))
    (pin,) = resolved(tmp_path, "tool")
    locked = lock((pin,))
    assert Digest.of_file(get(tmp_path, locked)[pin.digest]) == pin.digest
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", str(tmp_path / "nowhere"))
    assert get(tmp_path, locked)[pin.digest].name == pin.filename


def test_packages_are_fetched_as_apt_would(debian, serve, tmp_path: Path, monkeypatch) -> None:
    """The proxy and the passwords that only apt was told of serve for the files as well."""
    debian.add("tool", "1")
    debian.publish()
    (pin,) = resolved(tmp_path, "tool")
    data = debian.files["tool"].read_bytes()
    proxy = serve(lambda handler: send(handler, data))
    (tmp_path / "auth.conf").write_text("machine http://mirror.invalid login me password pw\n")
    (tmp_path / "apt.conf").write_text(
        f'Acquire::http::Proxy "{proxy.url}";\nDir::Etc::netrc "{tmp_path}/auth.conf";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", "http://mirror.invalid/debian")
    assert get(tmp_path, lock((pin,)))[pin.digest].read_bytes() == data
    ((_, path, headers),) = proxy.requests
    assert path == f"http://mirror.invalid/debian/{pin.path}"
    assert headers["authorization"] == "Basic " + base64.b64encode(b"me:pw").decode()


def test_packages_that_moved_on_are_named(aged: Lock, tmp_path: Path) -> None:
    """A dropped version is named with the version that replaced it and the command to run."""
    with pytest.raises(MovedOn) as caught:
        get(tmp_path, aged)
    assert "tool 1 (now 2)" in caught.value.message
    assert "kept" not in caught.value.message
    assert f"torchship lock --upgrade {tmp_path / 'project'}" in (caught.value.hint or "")


def test_what_is_still_there_is_kept_for_the_next_time(
    aged: Lock, tmp_path: Path, monkeypatch
) -> None:
    """Packages that were had before the error are not fetched again."""
    with pytest.raises(MovedOn):
        get(tmp_path, aged)
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", str(tmp_path / "nowhere"))
    (kept,) = (pin for pin in aged.platforms[0].base.packages if pin.name == "kept")
    assert get(tmp_path, aged, kept.digest)


@pytest.mark.parametrize("archive", ["debian", "debian-security"])
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=9))])
def test_a_snapshot_archive_serves_what_moved_on(
    aged: Lock, serve_folder, tmp_path: Path, monkeypatch, archive: str, zone: timezone
) -> None:
    """A configured archive is asked by the lock's time in UTC, in both of its parts."""
    place = tmp_path / "snapshot" / "archive" / archive / "20250520T123000Z"
    place.parent.mkdir(parents=True)
    shutil.copytree(tmp_path / "old", place)
    monkeypatch.setenv("TORCHSHIP_DEBIAN_SNAPSHOT", serve_folder(tmp_path / "snapshot") + "/")
    locked = lock(aged.platforms[0].base.packages, created=CREATED.astimezone(zone))
    files = get(tmp_path, locked)
    assert {path.name for path in files.values()} == {"tool_1_all.deb", "kept_1+b1_all.deb"}


def test_a_snapshot_archive_without_the_time_is_mentioned(
    aged: Lock, serve_folder, tmp_path: Path, monkeypatch
) -> None:
    """Where the archive has not got the package either, the error says that too."""
    (tmp_path / "snapshot").mkdir()
    monkeypatch.setenv("TORCHSHIP_DEBIAN_SNAPSHOT", serve_folder(tmp_path / "snapshot"))
    with pytest.raises(MovedOn, match="TORCHSHIP_DEBIAN_SNAPSHOT"):
        get(tmp_path, aged)


def test_a_snapshot_archive_that_fails_is_mentioned(
    aged: Lock, tmp_path: Path, monkeypatch
) -> None:
    """An archive that does not answer has not said that it lacks the package."""
    monkeypatch.setenv("TORCHSHIP_DEBIAN_SNAPSHOT", "http://127.0.0.1:9")
    with pytest.raises(MovedOn, match=r"SNAPSHOT names fails \(no connection\)"):
        get(tmp_path, aged)


def test_a_mirror_that_is_none_has_not_moved_on(
    aged: Lock, serve_folder, tmp_path: Path, monkeypatch
) -> None:
    """A setting that names no folder, or a server without any packages, is what has to change."""
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"MIRROR names .*/nowhere, which is not a folder"):
        get(tmp_path, aged)
    (tmp_path / "empty").mkdir()
    address = serve_folder(tmp_path / "empty")
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", f"{address}/debian")
    with pytest.raises(UsageError, match=f"{address}/debian, which has neither") as caught:
        get(tmp_path, aged)
    assert "dists/ and pool/" in (caught.value.hint or "")


def test_a_machine_that_knows_no_mirror_of_debian_is_told(
    aged: Lock, tmp_path: Path, monkeypatch
) -> None:
    """Elsewhere than on Debian the way out is any mirror, by its root."""
    monkeypatch.delenv("TORCHSHIP_DEBIAN_MIRROR")
    monkeypatch.setattr(sources, "_read", lambda etc: iter(()))
    with pytest.raises(FetchError, match="knows no mirror of Debian") as caught:
        get(tmp_path, aged)
    assert "set TORCHSHIP_DEBIAN_MIRROR" in (caught.value.hint or "")


def test_a_mirror_that_does_not_answer_has_not_moved_on(
    aged: Lock, tmp_path: Path, monkeypatch
) -> None:
    """A network fault is not taken for a package that has gone."""
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(FetchError, match="no connection") as caught:
        get(tmp_path, aged)
    assert not isinstance(caught.value, MovedOn)
    assert "TORCHSHIP_DEBIAN_MIRROR" in (caught.value.hint or "")


def test_a_changed_package_is_refused(debian, tmp_path: Path) -> None:
    """A mirror whose file has other bytes is a fault, not a package that has moved on."""
    debian.add("tool", "1")
    debian.publish()
    (pin,) = resolved(tmp_path, "tool")
    path = debian.files["tool"]
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(FetchError, match="another sha256") as caught:
        get(tmp_path, lock((pin,)))
    assert not isinstance(caught.value, MovedOn)


def test_data_comes_from_its_addresses_or_a_local_folder(
    debian, serve_folder, tmp_path: Path, monkeypatch
) -> None:
    """Data is fetched from the project's addresses in turn; a local mirror needs none."""
    content = os.urandom(5000)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "digits.gz").write_bytes(content)
    digest = Digest.of(content)
    site = serve_folder(tmp_path / "site")
    urls = (f"{site}/missing.gz", f"{site}/digits.gz")
    pin = DataPin(path="/data/digits.gz", filename="digits.gz", size=5000, digest=digest)
    locked = lock(data=(pin,))
    data = (DataFile(path="/data/digits.gz", digest=digest, urls=urls),)
    assert get(tmp_path, locked, digest, data=data)[digest].read_bytes() == content

    shutil.rmtree(tmp_path / "home")
    with pytest.raises(DataUnavailable, match=r"digits\.gz") as caught:
        get(tmp_path, locked, digest, data=(DataFile(path="/x", digest=digest, urls=urls[:1]),))
    assert "TORCHSHIP_MIRRORS" in (caught.value.hint or "")
    with pytest.raises(DataUnavailable, match="no source"):
        get(tmp_path, locked, digest)

    monkeypatch.setenv("TORCHSHIP_MIRRORS", str(tmp_path / "site"))
    assert get(tmp_path, locked, digest)[digest].read_bytes() == content


def test_packages_are_mended_before_data(aged: Lock, tmp_path: Path) -> None:
    """Where packages moved on and data is missing, the packages are told first."""
    digest = Digest.of(b"data")
    pin = DataPin(path="/data/x", filename="x", size=4, digest=digest)
    locked = lock(aged.platforms[0].base.packages, data=(pin,))
    with pytest.raises(MovedOn):
        get(tmp_path, locked, digest, *(p.digest for p in aged.platforms[0].base.packages))


def test_wheels_come_from_the_users_index(tmp_path: Path, monkeypatch) -> None:
    """A wheel is found where pip would find it; one that is not there any more is named."""
    links = tmp_path / "links"
    links.mkdir()
    filename = "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(links / filename, "w") as wheel:
        wheel.writestr("tiny_thing.py", "")
        wheel.writestr(
            "tiny_thing-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n",
        )
        wheel.writestr(
            "tiny_thing-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    data = (links / filename).read_bytes()
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    pin = WheelPin(
        name="tiny-thing",
        version="1.0",
        filename=filename,
        size=len(data),
        digest=Digest(hashlib.sha256(data).hexdigest()),
    )
    locked = lock(wheels=(pin,))
    assert get(tmp_path, locked, pin.digest)[pin.digest].read_bytes() == data

    shutil.rmtree(tmp_path / "home")
    (links / filename).unlink()
    with pytest.raises(FetchError, match=f"{filename} .no source") as caught:
        get(tmp_path, locked, pin.digest)
    assert "PIP_INDEX_URL" in (caught.value.hint or "")


def test_only_pins_are_gathered(tmp_path: Path) -> None:
    """A digest that the lock does not pin is an error of the caller's lock."""
    with pytest.raises(LockError, match="no pin"):
        get(tmp_path, lock(), Digest.of(b"other"))
