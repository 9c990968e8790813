"""Resolving Debian packages with a mirror of our own; with the machine's where it has one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from torchship.digest import Digest
from torchship.errors import ResolveError
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project import apt, sources
from torchship.project.lock import PackagePin

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


def resolve(
    tmp_path: Path, *packages: str, platform: Platform = AMD64, **options: Path
) -> tuple[PackagePin, ...]:
    """Resolve in a state folder of the test."""
    return apt.resolve(
        "bookworm", packages, platform, state=tmp_path / "state", progress=SILENT, **options
    )


def test_packages_come_with_what_they_need(debian, tmp_path: Path) -> None:
    """The pins are the packages and their dependencies, with path, size and sha256."""
    debian.add("tool", "2:1.0+b1~x-3", depends="helper (>= 1)")
    debian.add("helper", "1.5")
    debian.add("stranger", "1")
    debian.publish()
    helper, tool = resolve(tmp_path, "tool")
    path = debian.files["tool"]
    assert tool == PackagePin(
        name="tool",
        version="2:1.0+b1~x-3",
        architecture="all",
        path="pool/main/t/tool/tool_1.0+b1~x-3_all.deb",
        size=path.stat().st_size,
        digest=Digest.of_file(path),
    )
    assert (helper.name, helper.version) == ("helper", "1.5")


def test_another_architecture_is_resolved_too(debian, tmp_path: Path) -> None:
    """Packages of arm64 and amd64 are resolved on either machine."""
    debian.add("here", "1", architecture="amd64")
    debian.add("there", "1", architecture="arm64")
    debian.publish()
    assert resolve(tmp_path, "there", platform=ARM64)[0].architecture == "arm64"
    with pytest.raises(ResolveError, match="no package here for linux/arm64"):
        resolve(tmp_path, "here", platform=ARM64)


def test_a_newer_version_is_seen_at_once(debian, tmp_path: Path) -> None:
    """Package lists are kept between calls, and asked for again when the mirror's changed."""
    debian.add("tool", "1")
    debian.publish()
    assert resolve(tmp_path, "tool")[0].version == "1"
    debian.add("tool", "2")
    debian.publish()
    assert resolve(tmp_path, "tool")[0].version == "2"
    assert apt.newest("bookworm", ["tool", "gone"], AMD64, state=tmp_path / "state") == {
        "tool": "2"
    }


def test_unknown_packages_are_named(debian, tmp_path: Path) -> None:
    """All unknown names are told, and none is taken for a pattern."""
    debian.add("tool", "1")
    debian.publish()
    with pytest.raises(ResolveError, match=r"no packages abc, to\.l for linux/amd64"):
        resolve(tmp_path, "tool", "abc", "to.l")


def test_unmet_dependencies_are_told(debian, tmp_path: Path) -> None:
    """A package whose dependency cannot be had is an error that names both."""
    debian.add("tool", "1", depends="helper (>= 3)")
    debian.add("helper", "2")
    debian.publish()
    with pytest.raises(ResolveError, match=r"tool : Depends: helper \(>= 3\)"):
        resolve(tmp_path, "tool")


@pytest.mark.parametrize("name", ["-y", "a b", "tool-", "tool/sid", "../x", "A", "$(x)", ""])
def test_odd_names_never_reach_apt(debian, tmp_path: Path, name: str) -> None:
    """What apt would read as an option, a removal or a pattern is refused."""
    with pytest.raises(ResolveError, match="not the name of a Debian package"):
        resolve(tmp_path, name)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("Filename: pool/../../../etc/passwd.deb", "odd place"),
        ("Filename: pool/a b.deb", "odd place"),
        ("Size: 0", "Size"),
        ("SHA256: " + "0" * 64, ""),
    ],
)
def test_a_lying_package_list_is_refused(debian, tmp_path: Path, line: str, fault: str) -> None:
    """Paths that leave the pool and impossible sizes are errors, whoever signed them."""
    debian.add("tool", "1")
    key = line.split(":")[0]
    stanza = debian.stanzas["tool"].splitlines()
    debian.stanzas["tool"] = (
        "\n".join(line if old.startswith(f"{key}:") else old for old in stanza) + "\n"
    )
    debian.publish()
    if fault:
        with pytest.raises(ResolveError, match=fault):
            resolve(tmp_path, "tool")
    else:
        assert resolve(tmp_path, "tool")[0].digest == Digest("0" * 64)


def test_an_unsigned_mirror_is_not_believed(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without TORCHSHIP_DEBIAN_TRUSTED a mirror without signatures is an error."""
    debian.add("tool", "1")
    debian.publish()
    monkeypatch.delenv("TORCHSHIP_DEBIAN_TRUSTED")
    with pytest.raises(ResolveError, match="not signed"):
        resolve(tmp_path, "tool")


def test_a_mirror_over_http_is_used(
    debian, serve_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror's root may be an address, and one of several may lack the suite."""
    debian.add("tool", "1")
    debian.publish()
    (tmp_path / "empty").mkdir()
    roots = f"{serve_folder(tmp_path / 'empty')} {serve_folder(debian.root)}/"
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", roots)
    assert resolve(tmp_path, "tool")[0].path == "pool/main/t/tool/tool_1_all.deb"
    assert len(sources.roots("bookworm")) == 2


def test_a_suite_that_no_mirror_has_is_told(debian, tmp_path: Path) -> None:
    """The error names the suite and the two ways out."""
    debian.add("tool", "1")
    debian.publish()
    with pytest.raises(ResolveError, match="suite trixie") as caught:
        apt.resolve("trixie", ["tool"], AMD64, state=tmp_path / "s", progress=SILENT)
    assert "TORCHSHIP_DEBIAN_MIRROR" in (caught.value.hint or "")
    assert "python:3.11-slim" in (caught.value.hint or "")


def test_a_machine_without_apt_is_told(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no apt-get, the error says which base to take instead."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResolveError, match="no apt-get") as caught:
        resolve(tmp_path, "tool")
    assert "python:3.11-slim" in (caught.value.hint or "")


@pytest.mark.parametrize("locale", ["ko_KR.UTF-8", "de_DE.UTF-8", "C"])
def test_the_users_language_changes_nothing(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    """What apt says is understood whatever language the user has."""
    debian.publish()
    monkeypatch.setenv("LC_ALL", locale)
    monkeypatch.setenv("LANGUAGE", "de:ko")
    with pytest.raises(ResolveError, match="no package tool for"):
        resolve(tmp_path, "tool")


def test_the_machines_hooks_do_not_run(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hooks of the machine's apt configuration neither run nor fail the resolution."""
    debian.add("tool", "1")
    debian.publish()
    config = tmp_path / "apt.conf"
    ran = tmp_path / "ran"
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "DPkg::Pre-Invoke")
    config.write_text("".join(f'{hook} {{ "touch {ran}; false"; }};\n' for hook in hooks))
    monkeypatch.setenv("APT_CONFIG", str(config))
    assert resolve(tmp_path, "tool")
    assert not ran.exists()


def test_other_repositories_of_the_machine_give_nothing(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository that calls its suite bookworm, but is not Debian's, gives no package."""
    monkeypatch.delenv("TORCHSHIP_DEBIAN_MIRROR")
    debian.add("tool", "1")
    debian.publish()
    other = type(debian)(tmp_path / "other", origin="Somebody")
    other.add("tool", "9")
    other.add("extra", "1")
    other.publish()
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text(
        f"deb [ trusted=yes arch=amd64 ] file:{debian.root} bookworm main\n"
        f"deb [trusted=yes] file:{other.root} bookworm main\n"
        "deb https://example.invalid/ sid main\n"
    )
    assert resolve(tmp_path, "tool", etc=etc)[0].version == "1"
    assert resolve(tmp_path, "tool", etc=etc, platform=ARM64)[0].version == "1"
    with pytest.raises(ResolveError, match="extra"):
        resolve(tmp_path, "extra", etc=etc)


def test_a_debian_of_another_release_resolves_from_its_own_mirrors(
    debian, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 13's mirror serves Debian 12, too; entries that serve it not are passed over."""
    monkeypatch.delenv("TORCHSHIP_DEBIAN_MIRROR")
    debian.add("tool", "1")
    debian.publish()
    (tmp_path / "elsewhere").mkdir()
    etc = tmp_path / "etc"
    (etc / "sources.list.d").mkdir(parents=True)
    (etc / "sources.list").write_text(
        f"deb [trusted=yes] file:{debian.root} trixie main\n"
        f"deb [trusted=yes] file:{tmp_path}/elsewhere trixie main\n"
    )
    assert resolve(tmp_path, "tool", etc=etc)[0].version == "1"
    (etc / "sources.list").write_text(f"deb [trusted=yes] file:{tmp_path}/elsewhere trixie main\n")
    with pytest.raises(ResolveError, match="serves no Debian suite bookworm"):
        resolve(tmp_path, "tool", etc=etc)
    (etc / "sources.list").write_text(f"deb [trusted=yes] file:{debian.root} noble main\n")
    with pytest.raises(ResolveError, match="no entry for Debian"):
        resolve(tmp_path, "tool", etc=etc)


def test_the_version_of_python_is_that_of_its_package(debian, tmp_path: Path) -> None:
    """`python_version` reads 3.11.2 from the package python3.11, and misses it aloud."""
    debian.add("python3", "3.11.2-1+b1", depends="python3.11")
    debian.add("python3.11", "3.11.2-6+deb12u9")
    debian.publish()
    pins = resolve(tmp_path, "python3")
    assert apt.python_version(pins) == "3.11.2"
    with pytest.raises(ResolveError):
        apt.python_version(())


@pytest.mark.network
@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
def test_the_base_is_small(platform: Platform, tmp_path: Path) -> None:
    """The base's packages are below 30 MB compressed on each platform, and hold a Python."""
    if shutil.which("apt-get") is None or not sources.roots("bookworm"):
        pytest.skip("this machine has no mirror of bookworm")
    pins = resolve(tmp_path, *apt.BASE_PACKAGES, platform=platform)
    assert sum(pin.size for pin in pins) < 30_000_000
    assert apt.python_version(pins).startswith("3.11.")
    assert {pin.architecture for pin in pins} == {"all", platform.debian}
    assert all(pin.path.startswith("pool/") for pin in pins)
    assert "perl" not in {pin.name for pin in pins}


def test_the_folders_may_have_spaces(debian, tmp_path: Path) -> None:
    """A state folder with a space in its name does not confuse apt."""
    debian.add("tool", "1")
    debian.publish()
    pins = apt.resolve("bookworm", ["tool"], AMD64, state=tmp_path / "a b", progress=SILENT)
    assert [pin.name for pin in pins] == ["tool"]
