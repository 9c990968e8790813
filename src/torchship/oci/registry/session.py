"""A registry as one account sees it: asked with a token, and again where a fault may pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from torchship.oci.registry.answer import LIMIT, Answer, failure, read
from torchship.oci.registry.patience import Interrupted, Tries
from torchship.oci.registry.token import Authorizer, Scopes
from torchship.oci.registry.transport import Answered, Body, Transport, request

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Session:
    """Transport and authorisation joined. Thread-safe."""

    def __init__(self, transport: Transport, authorizer: Authorizer) -> None:
        self.transport = transport
        self._authorizer = authorizer

    @property
    def host(self) -> str:
        """The registry's name in references."""
        return self.transport.host

    def tries(self) -> Tries:
        """Begin to count the failures of one piece of work."""
        return Tries(self.transport.patience)

    def open(
        self,
        method: str,
        path: str,
        scopes: Scopes,
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
        body: Body | None = None,
    ) -> Answered:
        """Send one request and return the answer, unread; the registry's 401 is taken up first.

        A body that can be sent only once is not sent again after a 401: then, with a new
        token ready, `Interrupted` tells the caller to find out where to go on.
        """
        url = self.transport.url(path)
        # Credentials belong to the registry: an upload's address may lie elsewhere.
        ours = self.transport.owns(url)
        used = self._authorizer.authorization(scopes) if ours else None
        answered = self.transport.exchange(
            method, url, headers=headers, authorization=used, body=body
        )
        response = answered.response
        # So does the question who we are: where a redirect leads, anybody may ask it.
        if response.status != 401 or not ours or not self.transport.owns(answered.url):
            return answered
        challenge = response.headers.get("WWW-Authenticate")
        streamed = body is not None and not isinstance(body, bytes)
        if streamed:
            response.close()  # perhaps in the middle of the body
        else:
            read(answered, method)  # an unread answer would take its connection with it
        self._authorizer.renew(scopes, used, challenge)
        if streamed:
            name = request(method, url)
            fault = Interrupted(f"{name} needs a new token", request=name, status=401)
            fault.after = 0.0
            raise fault
        renewed = self._authorizer.authorization(scopes)
        return self.transport.exchange(
            method, url, headers=headers, authorization=renewed, body=body
        )

    def once(
        self,
        method: str,
        path: str,
        scopes: Scopes,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] = _NO_HEADERS,
        body: Body | None = None,
        limit: int = LIMIT,
    ) -> Answer:
        """Send one request; raise the registry's error for a status not in ``expect``."""
        answered = self.open(method, path, scopes, headers=headers, body=body)
        answer = read(answered, method, limit)
        if answer.status not in expect:
            raise failure(answer, self.transport)
        return answer

    def ask(
        self,
        method: str,
        path: str,
        scopes: Scopes,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] = _NO_HEADERS,
        body: bytes | None = None,
        limit: int = LIMIT,
    ) -> Answer:
        """Send a request that may be repeated, until it is answered or patience ends."""
        tries = self.tries()
        while True:
            try:
                return self.once(
                    method, path, scopes, expect=expect, headers=headers, body=body, limit=limit
                )
            except Interrupted as fault:
                tries.failed(fault)
