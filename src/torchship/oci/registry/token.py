"""How one account proves itself to a registry: Basic, Bearer tokens with scopes, or not at all.

Source: distribution's token authentication (docs/spec/auth: token.md, oauth.md, scope.md) and
RFC 9110, section 11. Nothing here keeps or shows a secret longer than it takes.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from typing import Annotated, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from torchship.discreet import Discreet
from torchship.errors import RegistryError
from torchship.oci.registry.answer import Answer, decoded, failure, read
from torchship.oci.registry.patience import Interrupted, Tries
from torchship.oci.registry.transport import Origin, Transport, request

CLIENT_ID = "torchship"
_EXPIRES_IN = 60
_MARGIN = 10.0

Scopes = tuple[str, ...]
"""What access is asked for: ``repository:NAME:pull,push``; empty for a mere login."""


class Credentials(Discreet, frozen=True, kw_only=True):
    """An account. An identity token stands for user name and password together."""

    secrets: ClassVar[frozenset[str]] = frozenset({"password", "identity_token"})

    username: str
    password: str = ""
    identity_token: str = ""

    @property
    def basic(self) -> str:
        """The Authorization field of RFC 7617."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


class Challenge(Struct, frozen=True, kw_only=True):
    """One challenge of a WWW-Authenticate field; names are in lower case."""

    scheme: str
    parameters: dict[str, str]


class _Token(Discreet, frozen=True, kw_only=True):
    secrets: ClassVar[frozenset[str]] = frozenset({"value"})

    value: str
    fresh_until: float


class _TokenAnswer(Struct):
    token: str = ""
    access_token: str = ""
    expires_in: Annotated[float, msgspec.Meta(ge=0)] = _EXPIRES_IN


class Authorizer:
    """Gives the Authorization field for each request to one registry. Thread-safe.

    ``credentials`` is called at most once, when the registry first asks who we are.
    """

    def __init__(self, transport: Transport, credentials: Callable[[], Credentials | None]) -> None:
        self._transport = transport
        self._load = credentials
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._credentials: Credentials | None = None
        self._tokens: dict[Scopes, _Token] = {}

    def authorization(self, scopes: Scopes) -> str | None:
        """Return the field for a request within ``scopes``; None before the first challenge."""
        with self._lock:
            return self._authorization(scopes)

    def renew(self, scopes: Scopes, refused: str | None, challenge: str | None) -> None:
        """Take up the challenge of a 401, that answered a request made with ``refused``.

        Raises `RegistryError` where there is nothing better to offer than what was refused.
        """
        with self._lock:
            if self._challenge is not None and self._authorization(scopes) != refused:
                return  # another thread has answered the challenge meanwhile
            offered = challenges(challenge or "")
            chosen = offered.get("bearer") or offered.get("basic")
            if chosen is None:
                raise self._denied("asks for a login, but in no way that torchship knows")
            if self._challenge is None:
                self._credentials = self._load()
            self._challenge = chosen
            self._tokens.pop(scopes, None)
            if chosen.scheme == "basic" and self._credentials is None:
                raise self._denied("asks for a login")
            if chosen.scheme == "basic" and refused is not None:
                raise self._denied("refuses the user name or the password")
            self._authorization(scopes)

    def _authorization(self, scopes: Scopes) -> str | None:
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._credentials.basic if self._credentials else None
        token = self._tokens.get(scopes)
        if token is None or time.monotonic() >= token.fresh_until:
            token = self._tokens[scopes] = self._fetch(self._challenge.parameters, scopes)
        return f"Bearer {token.value}"

    def _fetch(self, parameters: dict[str, str], scopes: Scopes) -> _Token:
        asked = time.monotonic()
        tries = Tries(self._transport.patience)
        while True:
            try:
                answer = self._ask(parameters, scopes)
                break
            except Interrupted as fault:
                tries.failed(fault)
        received = decoded(answer.body, _TokenAnswer)
        if received is None:
            raise self._denied("has a token service that gives no token")
        value = received.token or received.access_token
        # A token goes into a header line: it must not be able to end that line.
        if not value or not value.isascii() or not value.isprintable() or " " in value:
            raise self._denied("has a token service that gives no token")
        margin = min(_MARGIN, received.expires_in / 2)
        return _Token(value=value, fresh_until=asked + received.expires_in - margin)

    def _ask(self, parameters: dict[str, str], scopes: Scopes) -> Answer:
        realm = parameters.get("realm", "")
        Origin.of(realm)  # raises where it is no address at all
        service = parameters.get("service", "")
        account = self._credentials
        headers = {"Accept": "application/json"}
        if account is not None and account.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
                "refresh_token": account.identity_token,
            }
            method, url, body = "POST", realm, urlencode(form).encode("ascii")
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            authorization = None
        else:
            query = [("service", service), *(("scope", scope) for scope in scopes)]
            if account is not None:
                query.append(("account", account.username))
            method, url, body = "GET", _with_query(realm, query), None
            authorization = account.basic if account is not None else None
        answered = self._transport.exchange(
            method, url, headers=headers, authorization=authorization, body=body
        )
        answer = read(answered, method)
        if answer.status in {400, 401, 403}:
            what = "refuses the login" if account is not None else "asks for a login"
            raise self._denied(what, status=answer.status, asked=request(method, url))
        if answer.status != 200:
            raise failure(answer, self._transport)
        return answer

    def _denied(self, what: str, *, status: int = 401, asked: str | None = None) -> RegistryError:
        host = self._transport.host
        return RegistryError(
            f"{host} {what}",
            hint=f"log in: torchship login {host}",
            request=asked,
            status=status,
            code="UNAUTHORIZED",
        )


_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?=[\s,]|$)")
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


def challenges(text: str) -> dict[str, Challenge]:
    """Read a WWW-Authenticate field, by scheme (RFC 9110, section 11.6.1)."""
    found: dict[str, Challenge] = {}
    position = 0
    while scheme := _SCHEME.match(text, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            position = parameter.end()
            name, quoted, plain = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            parameters.setdefault(name.lower(), value)
        name = scheme[1].lower()
        found.setdefault(name, Challenge(scheme=name, parameters=parameters))
    return found


def _with_query(url: str, query: list[tuple[str, str]]) -> str:
    parts = urlsplit(url)
    present = parse_qsl(parts.query, keep_blank_values=True)
    return urlunsplit(parts._replace(query=urlencode([*present, *query])))
