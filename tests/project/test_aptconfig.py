"""apt's settings for proxies, certificates and passwords."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from torchship.project import apt
from torchship.project.aptconfig import AptConfig

MIRROR = "http://mirror.invalid/debian/pool/a.deb"
SECURE = MIRROR.replace("http:", "https:")


def config(*lines: str, detected: str = "") -> AptConfig:
    """Parse what ``apt-config dump`` would print; the program for proxies says ``detected``."""
    return AptConfig.parse("\n".join(lines), lambda program, address: detected)


@pytest.mark.parametrize(
    ("lines", "address", "proxy"),
    [
        ([], MIRROR, None),
        (['Acquire::http::Proxy "http://p:1";'], MIRROR, "http://p:1"),
        (['Acquire::HTTP::proxy "http://p:1";'], MIRROR, "http://p:1"),
        (['Acquire::http::Proxy "http://p:1";'], SECURE, "http://p:1"),
        (['Acquire::https::Proxy "http://p:1";'], MIRROR, None),
        (['Acquire::http::Proxy "DIRECT";'], MIRROR, ""),
        (
            ['Acquire::http::Proxy "http://p:1";', 'Acquire::https::Proxy "http://q:2";'],
            SECURE,
            "http://q:2",
        ),
        (
            [
                'Acquire::http::Proxy "http://p:1";',
                'Acquire::http::Proxy::mirror.invalid "DIRECT";',
            ],
            MIRROR,
            "",
        ),
        (
            ['Acquire::http::Proxy "http://p:1";', 'Acquire::http::Proxy::other.invalid "DIRECT";'],
            MIRROR,
            "http://p:1",
        ),
    ],
)
def test_the_proxy_of_an_address(lines: list[str], address: str, proxy: str | None) -> None:
    """A host's own proxy comes before all's, https's before http's; none leaves it open."""
    assert config(*lines).route(address).proxy == proxy


@pytest.mark.parametrize(
    ("said", "proxy"), [("http://q:2", "http://q:2"), ("DIRECT", ""), ("", "http://p:1")]
)
def test_a_program_finds_the_proxy(said: str, proxy: str) -> None:
    """What the user's program says counts, where no proxy is set for the very host."""
    lines = ['Acquire::http::Proxy "http://p:1";', 'Acquire::http::Proxy-Auto-Detect "/bin/p";']
    assert config(*lines, detected=said).route(MIRROR).proxy == proxy
    lines.append('Acquire::http::Proxy::mirror.invalid "http://r:3";')
    assert config(*lines, detected=said).route(MIRROR).proxy == "http://r:3"


def test_certificates() -> None:
    """Authorities, the client's certificate, and hosts that are believed without one."""
    found = config(
        'Acquire::https::CaInfo "/ca.pem";',
        'Acquire::https::SSLCert::mirror.invalid "/me.pem";',
        'Acquire::https::SSLKey::mirror.invalid "/me.key";',
        'Acquire::https::Verify-Peer::old.invalid "false";',
    )
    route = found.route(SECURE)
    assert route.authorities == (Path("/ca.pem"),)
    assert (route.certificate, route.key) == (Path("/me.pem"), Path("/me.key"))
    assert route.verified
    assert not found.route("https://old.invalid/debian").verified
    assert found.route("https://old.invalid/debian").certificate is None


def with_logins(folder: Path, text: str, **parts: str) -> AptConfig:
    """Parse settings whose file of passwords is this one, with further ones beside it."""
    (folder / "auth.conf").write_text(text)
    (folder / "parts").mkdir(exist_ok=True)
    for name, more in parts.items():
        (folder / "parts" / f"{name}.conf").write_text(more)
    return config(
        'Dir "/";',
        f'Dir::Etc "{folder.relative_to("/")}";',
        'Dir::Etc::netrc "auth.conf";',
        f'Dir::Etc::netrcparts "{folder}/parts";',
    )


@pytest.mark.parametrize(
    ("machine", "fits"),
    [
        ("example.org", True),
        ("example.org/deb", True),
        ("example.org/debian", True),
        ("example.org/debian/", True),
        ("https://example.org", True),
        ("example.org:443", False),
        ("example.org/deb/", False),
        ("example.org/ubuntu", False),
        ("example.orga", False),
        ("http://example.org", False),
    ],
)
def test_which_entry_an_address_matches(tmp_path: Path, machine: str, fits: bool) -> None:
    """The examples of apt_auth.conf(5)."""
    found = with_logins(tmp_path, f"machine {machine} login apt password debian\n")
    login = found.route("https://example.org/debian/pool/a.deb").login
    assert login == (("apt", "debian") if fits else None)


def test_passwords_stand_in_several_files(tmp_path: Path) -> None:
    """Entries over several lines, in parts, for ports and for proxies; unknown words are left."""
    found = with_logins(
        tmp_path,
        "machine one.invalid\n  login me account x password p%w\nmachine http://proxy login a\n",
        two="machine http://two.invalid:8080 login you password 2",
    )
    assert found.route("https://one.invalid/").login == ("me", "p%w")
    assert found.route("http://two.invalid:8080/x").login == ("you", "2")
    assert found.route("http://two.invalid/x").login is None
    through = AptConfig(
        settings={"acquire::http::proxy": "http://proxy:3128/"}, logins=found.logins
    )
    assert through.route(MIRROR).proxy == "http://a:@proxy:3128/"
    assert "p%w" not in repr(found) + repr(found.route("https://one.invalid/"))


def test_a_file_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """Files of passwords are often for root alone: apt goes on without them, too."""
    (tmp_path / "auth.conf").mkdir()
    assert config(f'Dir::Etc "{tmp_path}";', 'Dir::Etc::netrc "auth.conf";').logins == ()


def test_the_machines_settings_are_read(tmp_path: Path, monkeypatch) -> None:
    """`apt-config dump` tells them, as it would tell apt; a program is asked once for a host."""
    if shutil.which("apt-config") is None:
        pytest.skip("this machine has no apt-config")
    program = tmp_path / "find-proxy"
    program.write_text(f'#!/bin/sh\necho x >> {tmp_path}/asked\necho "http://found:1"\n')
    program.chmod(0o755)
    (tmp_path / "apt.conf").write_text(
        f'Acquire::http {{ Proxy-Auto-Detect "{program}"; Proxy::own.invalid "DIRECT"; }};\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    found = apt.settings()
    for name in ("a", "b"):
        assert found.route(f"http://mirror.invalid/{name}").proxy == "http://found:1"
    assert found.route("http://own.invalid/").proxy == ""
    assert (tmp_path / "asked").read_text() == "x\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert apt.settings().route(MIRROR).proxy is None
