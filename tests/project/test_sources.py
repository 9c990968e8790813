"""Reading the machine's apt entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from torchship.errors import ResolveError, UsageError
from torchship.project.sources import Entry, machine, related, roots, snapshot


def entries(tmp_path: Path, **files: str) -> tuple[Entry, ...]:
    """Write files of sources.list.d and read what they say of bookworm."""
    folder = tmp_path / "sources.list.d"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text)
    return machine("bookworm", etc=tmp_path)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the machine's entries, whatever the tester's settings are."""
    monkeypatch.delenv("TORCHSHIP_DEBIAN_MIRROR", raising=False)


def test_one_line_entries(tmp_path: Path) -> None:
    """The one-line style: options kept that say how far it is believed, comments skipped."""
    text = """
        # deb http://commented.invalid/debian bookworm main
        deb-src http://source.invalid/debian bookworm main
        deb [ arch=amd64 signed-by=/k.gpg ] http://one.invalid/debian/ bookworm main contrib # x
        deb http://two.invalid/debian bookworm-updates main
        deb http://three.invalid/debian sid main
        deb http://four.invalid/debian bookworm contrib
        deb cdrom:[Debian]/ bookworm main
    """
    one, two = entries(tmp_path, a_list=text)
    assert one == Entry(
        root="http://one.invalid/debian", suite="bookworm", options=("Signed-By: /k.gpg",)
    )
    assert two == Entry(root="http://two.invalid/debian", suite="bookworm-updates")


def test_deb822_entries(tmp_path: Path) -> None:
    """The deb822 style: several suites and addresses, an embedded key, and disabled ones."""
    text = """\
Types: deb deb-src
URIs: http://one.invalid/debian file:/srv/debian
Suites: bookworm bookworm-security trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://two.invalid/debian
Suites: bookworm
Components: main
"""
    found = entries(tmp_path, a_sources=text, b_save="deb http://x.invalid bookworm main\n")
    assert [(entry.root, entry.suite) for entry in found] == [
        ("http://one.invalid/debian", "bookworm"),
        ("http://one.invalid/debian", "bookworm-security"),
        ("file:///srv/debian", "bookworm"),
        ("file:///srv/debian", "bookworm-security"),
    ]
    assert "Signed-By: \n -----BEGIN PGP" in found[0].stanza
    assert "Components: main\nTargets: Packages" in found[0].stanza


def test_a_list_of_mirrors_is_read(tmp_path: Path) -> None:
    """mirror+file names a file of roots, as Debian's cloud images have it."""
    file = tmp_path / "mirrors"
    file.write_text("http://one.invalid/debian\tpriority:1\n# no\nhttps://two.invalid/debian/\n")
    entries(tmp_path, a_list=f"deb mirror+file:{file} bookworm main\n")
    assert roots("bookworm", etc=tmp_path) == (
        "http://one.invalid/debian",
        "https://two.invalid/debian",
    )


def test_a_debian_of_another_release_has_mirrors_for_this_one(tmp_path: Path) -> None:
    """Its roots are tried for the suite and its updates; Ubuntu's are not, nor where it has own."""
    (tmp_path / "mirrors").write_text("https://three.invalid/debian\n")
    lines = (
        "deb [signed-by=/k.gpg] http://one.invalid/debian trixie main\n"
        "deb [signed-by=/k.gpg] http://one.invalid/debian trixie-updates main\n"
        "deb http://two.invalid/debian-security trixie-security main\n"
        f"deb mirror+file:{tmp_path}/mirrors stable main\n"
        "deb http://archive.invalid/ubuntu noble main\n"
    )
    assert not entries(tmp_path, a_list=lines)
    found = related("bookworm", etc=tmp_path)
    names = ("bookworm", "bookworm-updates", "bookworm-security")
    hosts = ("http://one.invalid/debian", "http://two.invalid/debian-security")
    hosts = (*hosts, "https://three.invalid/debian")
    assert [(entry.root, entry.suite) for entry in found] == [(h, n) for h in hosts for n in names]
    assert "Signed-By: /k.gpg" in found[0].stanza
    assert roots("bookworm", etc=tmp_path) == hosts
    entries(tmp_path, b_list="deb http://four.invalid/debian bookworm main\n")
    assert roots("bookworm", etc=tmp_path) == ("http://four.invalid/debian",)


@pytest.mark.parametrize(
    "text",
    [
        *("ftp://x/debian", "relative/path", "mirror.invalid", "https://", "http://host:port/"),
        *("/nowhere/debian", "file:///nowhere/debian", __file__),
    ],
)
@pytest.mark.parametrize("variable", ["TORCHSHIP_DEBIAN_MIRROR", "TORCHSHIP_DEBIAN_SNAPSHOT"])
def test_a_mirror_must_be_an_address_or_a_folder(
    monkeypatch: pytest.MonkeyPatch, text: str, variable: str
) -> None:
    """The variables hold roots that can be asked, or an error names the one that does not."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(UsageError, match=variable):
        roots("bookworm")
        snapshot()


def test_folders_are_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path becomes an address, whatever characters it has; a last slash does not count."""
    (tmp_path / "a b").mkdir()
    monkeypatch.setenv("TORCHSHIP_DEBIAN_SNAPSHOT", f"{tmp_path}/a b/")
    assert snapshot() == (tmp_path / "a b").as_uri()
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", f"{tmp_path}/ http://me:pw@one.invalid/debian/")
    assert roots("bookworm") == (tmp_path.as_uri(), "http://me:pw@one.invalid/debian")


@pytest.mark.parametrize("suite", ["", "Bookworm", "a b", "../x", "a\nb"])
def test_a_suite_must_be_a_name(tmp_path: Path, suite: str) -> None:
    """What is no suite's name never gets into a file for apt."""
    with pytest.raises(ResolveError, match="not the name of a Debian suite"):
        machine(suite, etc=tmp_path)
