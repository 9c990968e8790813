"""A registry's answer, whole in memory, and the error that it stands for."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Struct

from torchship.errors import RegistryError
from torchship.oci.registry.patience import PASSING, Interrupted, retry_after
from torchship.oci.registry.transport import Answered, Headers, Transport, request, stream

_Shape = TypeVar("_Shape")

LIMIT = 4 << 20
"""Bytes of an answer: what the distribution spec makes registries accept for a manifest."""

_SECRET = re.compile(r"\b(Bearer|Basic)\s+[^\s\"']+", re.IGNORECASE)
_HINTS = {
    401: "log in: torchship login {host}",
    403: "the account lacks this right, or needs a login: torchship login {host}",
    404: "check the name and the tag; a private repository needs: torchship login {host}",
    405: "the registry is read-only or refuses pushes: see that it takes them under this name",
    413: "the registry or a proxy before it limits the size of uploads",
    429: "the registry limits how often it is asked; a login often raises the limit",
}
_REFUSED = frozenset({401, 403, 404, 405})
_ELSEWHERE = "{host} leads there, and is told alone who you are: try again, or ask who runs it"
_OTHERWISE = "try again; if it stays, ask who runs the registry"


class Answer(Struct, frozen=True, kw_only=True):
    """Status, fields and body of one answer; ``url`` is the address that gave it."""

    method: str
    url: str
    status: int
    headers: Headers
    body: bytes


def read(answered: Answered, method: str, limit: int = LIMIT) -> Answer:
    """Take an answer into memory; raise `RegistryError` where it is larger than ``limit``."""
    response, url = answered.response, answered.url
    name = request(method, url)
    body = bytearray()
    for piece in stream(response, name):
        body += piece
        if len(body) > limit:
            response.close()
            raise RegistryError(
                f"{name} gave more than the {limit} bytes that are allowed",
                hint="this is no image manifest; check the reference",
                request=name,
                status=response.status,
            )
    response.release_conn()
    return Answer(
        method=method, url=url, status=response.status, headers=response.headers, body=bytes(body)
    )


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error]


def failure(answer: Answer, registry: Transport) -> RegistryError:
    """Return the error for an answer that was not hoped for, with the registry's own words.

    The answer may be another's, to whom the registry led. It is an `Interrupted` where the fault
    may pass.
    """
    name = request(answer.method, answer.url)
    code, said = _own_words(answer.body)
    message = f"{name} failed with status {answer.status}{said}"
    hint = _HINTS.get(answer.status, _OTHERWISE)
    if answer.status == 405 and answer.method in {"GET", "HEAD"}:
        hint = _OTHERWISE
    if answer.status in _REFUSED and not registry.owns(answer.url):
        hint = _ELSEWHERE
    kind = Interrupted if answer.status in PASSING else RegistryError
    fault = kind(
        message, hint=hint.format(host=registry.host), request=name, status=answer.status, code=code
    )
    if isinstance(fault, Interrupted):
        fault.after = retry_after(answer.headers.get("Retry-After"))
    return fault


def decoded(body: bytes, shape: type[_Shape]) -> _Shape | None:
    """Read a registry's JSON, whatever it sent; None where it is not of that shape."""
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _own_words(body: bytes) -> tuple[str | None, str]:
    """Read distribution-spec's "Error Codes" document; its text is a stranger's."""
    document = decoded(body, _Errors)
    errors = document.errors if document else []
    if not errors:
        return None, ""
    words = ": ".join(part for part in (errors[0].code, errors[0].message) if part)
    printable = "".join(letter if letter.isprintable() else " " for letter in words)
    return errors[0].code or None, ": " + _SECRET.sub(r"\1 ***", printable)[:300]
