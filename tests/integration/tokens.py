"""A token service in front of a real registry: distribution's JWT, signed with openssl."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.integration import proxy
from tests.integration.registry import PASSWORD, USER, TokenAuth, require

ISSUER, SERVICE = "test-issuer", "test-registry"
IDENTITY = "identity-of-ada"


@dataclass
class TokenService:
    """The running service. ``lifetime`` is what its answers say, in seconds."""

    auth: TokenAuth
    lifetime: int = 300
    asked: list[dict[str, list[str]]] = field(default_factory=list)


@contextmanager
def running(folder: Path) -> Iterator[TokenService]:
    """Run a token service on a free loopback port. Everybody may pull, ada may push."""
    require("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "token.key", folder / "token.crt"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={ISSUER} "
        f"-keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    der = subprocess.run(
        f"openssl x509 -in {certificate} -outform DER".split(), check=True, capture_output=True
    ).stdout
    with proxy.running() as server:
        service = TokenService(
            auth=TokenAuth(
                realm=f"http://{server.host}/token",
                service=SERVICE,
                issuer=ISSUER,
                certificate=certificate,
            )
        )
        lock = threading.Lock()

        def give(exchange: proxy.Exchange) -> None:
            form = b"".join(exchange.body()).decode()
            asked = parse_qs(form or urlsplit(exchange.path).query)
            service.asked.append(asked)
            basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            header = exchange.headers.get("Authorization")
            known = header == f"Basic {basic}" or asked.get("refresh_token") == [IDENTITY]
            if not known and (header or form):
                proxy.answered(401)(exchange)
                return
            allowed = {"pull", "push"} if known else {"pull"}
            scopes = [one for text in asked.get("scope", []) for one in text.split()]
            with lock:
                token = _sign(key, der, scopes, allowed)
            name = "access_token" if form else "token"
            body = json.dumps({name: token, "expires_in": service.lifetime}).encode()
            proxy.answered(200, {"Content-Type": "application/json"}, body)(exchange)

        server.on("GET|POST", "^/token", give, times=-1)
        yield service


def _sign(key: Path, der: bytes, scopes: list[str], allowed: set[str]) -> str:
    now = int(time.time())
    access = []
    for scope in scopes:
        kind, name, actions = scope.split(":")
        granted = sorted(allowed & set(actions.split(",")))
        if name.startswith("secret/"):
            granted = []
        access.append({"type": kind, "name": name, "actions": granted})
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    claims = {
        "iss": ISSUER,
        "sub": USER,
        "aud": SERVICE,
        "exp": now + 300,
        "nbf": now - 10,
        "iat": now,
        "jti": str(time.monotonic_ns()),
        "access": access,
    }
    signed = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
    signature = subprocess.run(
        ["openssl", "dgst", "-sha256", "-sign", str(key)],
        input=signed.encode(),
        capture_output=True,
        check=True,
    ).stdout
    return f"{signed}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
