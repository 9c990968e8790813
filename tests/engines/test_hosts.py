"""What a container's own name leads to."""

import ipaddress
import socket
import subprocess
import sys

import pytest

from torchship.engines import hosts

from .conftest import linux


def table(text: str) -> dict[str, str]:
    """Return the last address that a table has for each name."""
    lines = [line.split() for line in text.splitlines()]
    return {name: words[0] for words in lines if words for name in words[1:]}


def test_without_a_network_a_container_is_its_loopback():
    """Its name leads to 127.0.0.1, like localhost."""
    assert table(hosts.alone("abc")) == {
        "localhost": "::1",
        "ip6-localhost": "::1",
        "ip6-loopback": "::1",
        "abc": "127.0.0.1",
    }


def test_with_a_network_others_reach_it_by_its_name(monkeypatch, tmp_path):
    """Its name leads to an address of this machine; the machine's own table stays."""
    given = tmp_path / "hosts"
    given.write_bytes(b"127.0.0.1 localhost\n10.1.2.3 node1 # caf\xe9\n\n")
    monkeypatch.setattr(hosts, "HOSTS", given)
    text = hosts.with_network("abc")
    assert text.encode("utf-8", "surrogateescape").startswith(given.read_bytes().rstrip())
    found = table(text)
    assert found["node1"] == "10.1.2.3"
    address = ipaddress.ip_address(found["abc"])
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as own:
        own.bind((str(address), 0))  # raises where the address is another machine's
    if hosts.address() is not None:
        assert not address.is_loopback


@linux
def test_a_machine_without_a_way_out_has_its_loopback():
    """Nothing is asked of a network that is not there."""
    code = "from torchship.engines import hosts; print(hosts.address(), hosts.with_network('abc'))"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.startswith("None ")
    assert done.stdout.endswith("127.0.0.1 abc\n\n"), done.stderr
