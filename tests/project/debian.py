"""A Debian mirror of one's own, and a server of folders."""

from __future__ import annotations

import functools
import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class DebianMirror:
    """A folder with ``dists/`` and ``pool/``, as a mirror has them, unsigned."""

    root: Path
    suite: str = "bookworm"
    origin: str = "Debian"
    stanzas: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str, version: str, *, depends: str = "", architecture: str = "all") -> Path:
        """Build a package and put it into the pool, in the place of its older version."""
        source = self.root.parent / f"{self.root.name}-build" / name
        shutil.rmtree(source, ignore_errors=True)
        (source / "DEBIAN").mkdir(parents=True)
        (source / "DEBIAN").chmod(0o755)
        share = source / "usr" / "share" / name
        share.mkdir(parents=True)
        (share / "version").write_text(version)
        control = (
            f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
            f"Maintainer: nobody <nobody@example.org>\nDescription: for a test\n"
        )
        if depends:
            control += f"Depends: {depends}\n"
        (source / "DEBIAN" / "control").write_text(control)
        plain = version.rpartition(":")[2]
        path = self.root / f"pool/main/{name[0]}/{name}/{name}_{plain}_{architecture}.deb"
        path.parent.mkdir(parents=True, exist_ok=True)
        command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(source), str(path)]
        subprocess.run(command, check=True, capture_output=True)
        if self.files.get(name) != path:
            self.drop(name)
        data = path.read_bytes()
        self.files[name] = path
        self.stanzas[name] = control + (
            f"Filename: {path.relative_to(self.root)}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
        return path

    def drop(self, name: str) -> None:
        """Take a package away."""
        self.stanzas.pop(name, None)
        if name in self.files:
            self.files.pop(name).unlink()

    def publish(self) -> None:
        """Write the indexes of both architectures, and the Release file that names them."""
        place = self.root / "dists" / self.suite
        text = "\n".join(self.stanzas.values()).encode()
        lines = []
        for architecture in ("amd64", "arm64"):
            path = place / "main" / f"binary-{architecture}" / "Packages"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            digest = hashlib.sha256(text).hexdigest()
            lines.append(f" {digest} {len(text)} {path.relative_to(place)}")
        release = (
            f"Origin: {self.origin}\nLabel: {self.origin}\nSuite: stable\nCodename: {self.suite}\n"
            "Date: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: amd64 arm64 all\n"
            "Components: main\nSHA256:\n" + "\n".join(lines) + "\n"
        )
        (place / "Release").write_text(release)


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DebianMirror:
    """Make an empty mirror, and let torchship use it instead of the machine's own."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"this machine has no {tool}")
    mirror = DebianMirror(tmp_path / "mirror")
    monkeypatch.setenv("TORCHSHIP_DEBIAN_MIRROR", str(mirror.root))
    monkeypatch.setenv("TORCHSHIP_DEBIAN_TRUSTED", "1")
    monkeypatch.delenv("TORCHSHIP_DEBIAN_SNAPSHOT", raising=False)
    monkeypatch.delenv("TORCHSHIP_MIRRORS", raising=False)
    return mirror


@pytest.fixture
def serve_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """Serve folders on loopback; each call gives the address of one."""
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()
