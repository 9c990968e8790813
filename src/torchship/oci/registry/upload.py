"""How a blob gets into a repository: mounted from another one, or sent, in resumable pieces.

Source: OCI distribution-spec v1.1, "Pushing Blobs" and "Mounting a blob from another
repository".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from urllib.parse import urlencode

from msgspec import Struct

from torchship.digest import Descriptor
from torchship.errors import BlobDamaged, RegistryError
from torchship.oci.registry.answer import Answer
from torchship.oci.registry.patience import Interrupted
from torchship.oci.registry.session import Session
from torchship.oci.registry.token import Scopes
from torchship.oci.registry.transport import join, request

Source = Callable[[int], Iterator[bytes]]
"""Gives a blob's bytes from an offset on, in pieces, as often as it is called."""

_CHUNK = 32 << 20
"""Bytes a request where the registry, or a proxy before it, limits the size of requests."""

_ORIGINS = 3  # repositories that a mount is tried from: the likeliest come first

_REFUSALS = frozenset({400, 401, 403, 404, 405})
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")


def mount(
    session: Session,
    repository: str,
    descriptor: Descriptor,
    scopes: Scopes,
    *,
    origins: Sequence[str],
) -> bool:
    """Take a blob over from one of the repositories ``origins``; return whether that was done.

    "The registry MAY treat the from parameter as optional": where it refuses those origins (no
    right to read them, no such blob there), it may still know the blob from elsewhere.
    """
    tried = origins[:_ORIGINS]
    for origin in tried:
        reading = (*scopes, f"repository:{origin}:pull")
        if _mounted(session, repository, descriptor, reading, origin):
            return True
    return bool(tried) and _mounted(session, repository, descriptor, scopes, None)


def _mounted(
    session: Session, repository: str, descriptor: Descriptor, scopes: Scopes, origin: str | None
) -> bool:
    query = {"mount": str(descriptor.digest)} | ({"from": origin} if origin else {})
    path = f"/v2/{repository}/blobs/uploads/?{urlencode(query)}"
    try:
        answer = session.ask("POST", path, scopes, expect={201, 202})
    except RegistryError as fault:
        if fault.status in _REFUSALS:
            return False
        raise
    if answer.status == 201:
        return True
    # The registry began an upload instead. Nobody will use it: the next attempt to mount comes
    # first, and what an upload needs is begun where the upload is.
    with suppress(RegistryError):  # one that stays is for the registry to clean up
        begun = _location(session, answer)
        if session.transport.owns(begun):  # what is elsewhere may be no upload at all
            session.once("DELETE", begun, scopes, expect={200, 202, 204})
    return False


class _SourceFailed(Exception):
    """The bytes to send could not be had; ``fault`` says why."""

    def __init__(self, fault: RegistryError) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Upload(Struct, kw_only=True):
    """One blob on its way. What the registry has of it is asked for after every failure."""

    session: Session
    repository: str
    descriptor: Descriptor
    source: Source
    scopes: Scopes
    advance: Callable[[int], None]

    _address: str | None = None
    _offset: int = 0
    _told: int = 0
    _furthest: int = 0
    _chunk: int | None = None
    _resumed: bool = False

    def run(self) -> None:
        """Send the blob until the registry has it, or patience ends."""
        tries = self.session.tries()
        doubtful = False
        while True:
            try:
                # A commit may have succeeded though its answer never came.
                if doubtful and self._arrived():
                    break
                doubtful = False
                if self._address is None:
                    self._begin()
                if self._send():
                    break
            except Interrupted as fault:
                doubtful = True
                if self._offset > self._furthest:
                    # Counted from the furthest ever: one that begins again and again is stuck.
                    self._furthest = self._offset
                    tries.progressed()
                tries.failed(fault)
            except _SourceFailed as failed:
                raise failed.fault from None
        self._tell(self.descriptor.size)

    def _begin(self) -> None:
        path = f"/v2/{self.repository}/blobs/uploads/"
        self._restart()
        answer = self.session.once("POST", path, self.scopes, expect={202})
        self._address = _location(self.session, answer)

    def _arrived(self) -> bool:
        """Ask for the blob itself, then for the state of the upload."""
        path = f"/v2/{self.repository}/blobs/{self.descriptor.digest}"
        answer = self.session.once("HEAD", path, self.scopes, expect={200, 404})
        if answer.status == 200:
            return True
        if self._address is not None:
            state = self.session.once(
                "GET", self._address, self.scopes, expect={200, 202, 204, 416, *_REFUSALS}
            )
            if state.status in {200, 202, 204}:
                self._take_state(state, otherwise=0)
                self._resumed = self._offset > 0
            else:
                self._restart()
        return False

    def _send(self) -> bool:
        """Send the next piece, or all there is; return whether the blob is complete."""
        rest = self.descriptor.size - self._offset
        amount = rest if self._chunk is None else min(rest, self._chunk)
        if amount == self.descriptor.size or rest == 0:
            return self._commit(amount)
        headers = _sized(amount) | {
            "Content-Range": f"{self._offset}-{self._offset + amount - 1}",
        }
        answer = self._request("PATCH", headers, amount, expect={202, 204, 416})
        if answer is None:
            return False
        if answer.status == 416:
            raise self._again("the registry is at another place of the upload")
        self._take_state(answer, otherwise=self._offset + amount)
        return False

    def _commit(self, amount: int) -> bool:
        """End the upload with its digest; the last bytes may go with it."""
        return self._request("PUT", _sized(amount), amount, expect={201, 204}) is not None

    def _request(
        self, method: str, headers: dict[str, str], amount: int, *, expect: set[int]
    ) -> Answer | None:
        assert self._address is not None
        url = self._address
        if method == "PUT":
            digest = urlencode({"digest": str(self.descriptor.digest)})
            url = f"{url}{'&' if '?' in url else '?'}{digest}"
        body = self._bytes(amount) if amount else b""
        try:
            return self.session.once(
                method, url, self.scopes, expect=expect, headers=headers, body=body
            )
        except Interrupted:
            raise
        except RegistryError as fault:
            if fault.status == 413 and self._chunk is None and amount > _CHUNK:
                self._chunk = _CHUNK
                self._address = None
                return None
            if fault.status == 404 or (fault.status == 400 and self._resumed):
                # "If the session is unknown, the client MUST restart the upload"; likewise
                # where what was put together of pieces is not the blob.
                self._restart()
                raise self._again(fault.message) from fault
            raise

    def _bytes(self, amount: int) -> Iterator[bytes]:
        place, end = self._offset, self._offset + amount
        for piece in self._given(place):
            sent = piece[: end - place]
            if sent:
                yield sent
            place += len(sent)
            self._tell(place)
            if place == end:
                return
        raise BlobDamaged(
            f"the blob {self.descriptor.digest} ends after {place} bytes, "
            f"not after {self.descriptor.size}",
            hint="build or pull the image again",
        )

    def _given(self, place: int) -> Iterator[bytes]:
        try:
            yield from self.source(place)
        except RegistryError as fault:
            # The blob may come from another registry, whose faults say nothing about this one.
            raise _SourceFailed(fault) from fault

    def _take_state(self, answer: Answer, *, otherwise: int) -> None:
        if answer.headers.get("Location"):
            self._address = _location(self.session, answer)
        told = _RANGE.fullmatch(answer.headers.get("Range", "").strip())
        # An upload with nothing in it says 0-0, like one with a single byte.
        offset = otherwise if told is None else int(told[1]) + 1 if int(told[1]) else 0
        if not 0 <= offset <= self.descriptor.size:
            self._restart()
            raise self._again("the registry has more bytes of the upload than there are")
        self._offset = offset

    def _restart(self) -> None:
        self._address, self._offset, self._resumed = None, 0, False

    def _tell(self, place: int) -> None:
        if place > self._told:
            self.advance(place - self._told)
            self._told = place

    def _again(self, why: str) -> Interrupted:
        return Interrupted(
            f"the upload of {self.descriptor.digest} to {self.session.host}/{self.repository} "
            f"has to begin again: {why}",
            hint="try again; if it stays, ask who runs the registry",
            request=request("PATCH", self._address or f"/v2/{self.repository}/blobs/uploads/"),
        )


def _sized(amount: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(amount)}


def _location(session: Session, answer: Answer) -> str:
    location = answer.headers.get("Location")
    if not location:
        raise RegistryError(
            f"{session.host} began an upload, but did not say where",
            hint="the registry, or a proxy before it, is broken",
            request=request(answer.method, answer.url),
            status=answer.status,
        )
    return join(answer.url, location)
