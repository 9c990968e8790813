"""A real registry for tests: Debian's docker-registry on a free loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = "docker-registry"
USER, PASSWORD = "ada", "open sesame"
# bcrypt of PASSWORD at its lowest cost: the only form that this registry takes.
_HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"
_REQUIRED = os.environ.get("TORCHSHIP_REQUIRE_ENGINES") == "1"


@dataclass(frozen=True, kw_only=True)
class RunningRegistry:
    """Where it answers, what it keeps, and its process."""

    host: str
    storage: Path
    log: Path
    process: subprocess.Popen[bytes]
    ca: Path | None = None

    def blob_path(self, digest) -> Path:
        """Return where the registry keeps a blob, for tests that damage it."""
        root = self.storage / "docker/registry/v2/blobs/sha256"
        return root / digest.hex[:2] / digest.hex / "data"


@dataclass(frozen=True, kw_only=True)
class TokenAuth:
    """What the registry is told of a token service."""

    realm: str
    service: str
    issuer: str
    certificate: Path


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """A private CA and a certificate of 127.0.0.1 that it signed."""

    ca: Path
    certificate: Path
    key: Path


def require(program: str) -> None:
    """Skip the test where a program is missing; fail it where CI says that all must be there."""
    if shutil.which(program) is None:
        if _REQUIRED:
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def free_port() -> int:
    """Return a loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    folder: Path,
    *,
    htpasswd: bool = False,
    certificates: Certificates | None = None,
    token: TokenAuth | None = None,
) -> Iterator[RunningRegistry]:
    """Run a registry that keeps its files in ``folder``; it is gone when the block ends."""
    require(PROGRAM)
    port = free_port()
    host = f"127.0.0.1:{port}"
    storage = folder / "storage"
    storage.mkdir(parents=True, exist_ok=True)
    config = [
        "version: 0.1",
        "log: {level: info, accesslog: {disabled: true}}",
        "storage:",
        f"  filesystem: {{rootdirectory: {storage}}}",
        "  delete: {enabled: true}",
        "http:",
        f"  addr: {host}",
    ]
    if certificates:
        config += [
            f"  tls: {{certificate: {certificates.certificate}, key: {certificates.key}}}",
        ]
    if htpasswd:
        (folder / "htpasswd").write_text(_HTPASSWD)
        config += ["auth:", f"  htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}"]
    if token:
        config += [
            "auth:",
            "  token:",
            f"    realm: {token.realm}",
            f"    service: {token.service}",
            f"    issuer: {token.issuer}",
            f"    rootcertbundle: {token.certificate}",
        ]
    (folder / "config.yml").write_text("\n".join(config) + "\n")
    log = folder / "registry.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [PROGRAM, "serve", str(folder / "config.yml")],
            stdout=stream,
            stderr=stream,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait(process, host, log, certificates)
        yield RunningRegistry(
            host=host,
            storage=storage,
            log=log,
            process=process,
            ca=certificates.ca if certificates else None,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process, host, log, certificates) -> None:
    scheme = "https" if certificates else "http"
    context = ssl.create_default_context(cafile=certificates.ca) if certificates else None
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        *([urllib.request.HTTPSHandler(context=context)] if context else []),
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            opener.open(f"{scheme}://{host}/v2/", timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"{PROGRAM} did not start:\n{log.read_text()[-2000:]}")


def private_ca(folder: Path) -> Certificates:
    """Make a CA of our own, and with it a certificate of 127.0.0.1 and localhost."""
    require("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        ca=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key"
    )
    extensions = folder / "extensions"
    extensions.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n"
        "extendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
    )
    new = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for line in (
        f"{new} -x509 -days 30 -subj /CN=private -keyout {folder}/ca.key -out {made.ca} "
        "-addext keyUsage=critical,keyCertSign",
        f"{new} -subj /CN=127.0.0.1 -keyout {made.key} -out {folder}/server.csr",
        f"openssl x509 -req -days 30 -in {folder}/server.csr -CA {made.ca} "
        f"-CAkey {folder}/ca.key -CAcreateserial -extfile {extensions} -out {made.certificate}",
    ):
        subprocess.run(line.split(), check=True, capture_output=True)
    return made
