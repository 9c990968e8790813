"""pip's settings, read as pip reads them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchship.errors import UsageError
from torchship.project.fetch.route import Route
from torchship.project.pip import PipSettings, for_uv, read


def conf(path, text):
    """Write a configuration file of pip's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_users_file_is_read_with_values_over_several_lines(machine, monkeypatch):
    """Lists are split at spaces and line ends, names may have dashes or underscores."""
    monkeypatch.delenv("PIP_CONFIG_FILE")
    conf(
        machine / ".config/pip/pip.conf",
        "[global]\nindex_url = https://a.invalid/simple\n"
        "extra-index-url =\n    https://b.invalid/simple\n    https://c.invalid/simple\n"
        "[install]\nfind-links = /one /two\nno-index = yes\n[list]\nformat = columns\n",
    )
    found = read()
    assert found.index_url == "https://a.invalid/simple"
    assert found.extra_index_urls == ("https://b.invalid/simple", "https://c.invalid/simple")
    assert found.find_links == ("/one", "/two")
    assert found.no_index


def test_the_environment_wins_over_files(machine, monkeypatch):
    """PIP_* replaces what a file says, key by key."""
    monkeypatch.delenv("PIP_CONFIG_FILE")
    conf(machine / ".config/pip/pip.conf", "[global]\nfind-links = /one\ncert = /ca.pem\n")
    monkeypatch.setenv("PIP_FIND_LINKS", "/two")
    assert read().find_links == ("/two",)
    assert read().cert == "/ca.pem"


def test_a_file_named_by_the_environment_hides_the_users(machine, monkeypatch, tmp_path):
    """PIP_CONFIG_FILE that exists stands for the user's file; os.devnull hides all."""
    conf(machine / ".config/pip/pip.conf", "[global]\nfind-links = /one\ntimeout = 7\n")
    conf(tmp_path / "other.conf", "[global]\nfind-links = /three\n")
    assert read().find_links == ()
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "other.conf"))
    assert read().find_links == ("/three",)
    assert read().timeout is None


def test_a_file_that_pip_could_not_read_is_named(machine, monkeypatch, tmp_path):
    """A broken configuration is an error with its path, not ignored."""
    conf(tmp_path / "broken.conf", "find-links = /one\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "broken.conf"))
    with pytest.raises(UsageError, match=r"broken\.conf cannot be read"):
        read()


def test_pip_itself_sees_the_same_settings(machine, monkeypatch):
    """What `pip config` lists is what is read here."""
    monkeypatch.delenv("PIP_CONFIG_FILE")
    conf(machine / ".pip/pip.conf", "[global]\nindex-url = https://old.invalid/simple\n")
    conf(machine / ".config/pip/pip.conf", "[global]\nindex-url = https://new.invalid/simple\n")
    conf(machine / "xdg/pip/pip.conf", "[global]\nindex-url = https://xdg.invalid/simple\n")
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    if answer.returncode:
        pytest.skip("this Python has no pip")
    assert read().index_url == answer.stdout.strip() == "https://new.invalid/simple"


def test_uv_is_told_the_same_and_the_users_own_words_win():
    """Each of pip's settings has its name in uv's environment; UV_* that is set stays."""
    settings = PipSettings(
        index_url="https://a.invalid/simple",
        extra_index_urls=("https://b.invalid/simple", "https://c.invalid/simple"),
        find_links=("/one", "https://d.invalid/"),
        trusted_hosts=("a.invalid",),
        cert="/ca.pem",
    )
    told = for_uv(settings, {"UV_INDEX_URL": "https://mine.invalid/simple", "PATH": "/bin"})
    assert "UV_DEFAULT_INDEX" not in told
    assert told["UV_INDEX"] == "https://b.invalid/simple https://c.invalid/simple"
    assert told["UV_FIND_LINKS"] == "/one,https://d.invalid/"
    assert told["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert told["UV_INSECURE_HOST"] == "a.invalid"
    assert told["SSL_CERT_FILE"] == "/ca.pem"
    assert for_uv(settings, {})["UV_DEFAULT_INDEX"] == "https://a.invalid/simple"


def test_addresses_are_reached_as_pip_would(machine):
    """The proxy, the certificates and the hosts that are trusted without one."""
    found = read(
        {
            "HOME": str(machine),
            "PIP_PROXY": "http://proxy.invalid:3128",
            "PIP_CERT": "/ca.pem",
            "PIP_CLIENT_CERT": "/me.pem",
            "PIP_TRUSTED_HOST": "a.invalid b.invalid:8443",
        }
    )
    route = found.route("https://c.invalid/x.whl")
    assert route.proxy == "http://proxy.invalid:3128"
    assert (route.authorities, route.certificate) == ((Path("/ca.pem"),), Path("/me.pem"))
    trusted = {
        address: not found.route(address).verified
        for address in (
            *("https://a.invalid/", "https://me:pw@a.invalid:8443/", "https://b.invalid:8443/x"),
            *("https://b.invalid/", "https://c.invalid/"),
        )
    }
    assert list(trusted.values()) == [True, True, True, False, False]
    assert PipSettings().route("https://c.invalid/x.whl") == Route()
    for name in ("HTTPS_PROXY", "http_proxy"):  # uv goes through it as well
        told = for_uv(found, {"https_proxy": "http://other.invalid"})
        assert told[name] == "http://proxy.invalid:3128"


def test_a_folder_below_the_home_folder_is_found(monkeypatch, tmp_path):
    """Pip writes a leading ~ out where it finds links, so that settings can be shared."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read({"PIP_FIND_LINKS": "~/wheels", "HOME": str(tmp_path)}).find_links == (
        str(tmp_path / "wheels"),
    )
