"""A registry, spoken to directly: OCI distribution-spec v1.1.

Nothing that comes from a registry is believed: sizes are limits, digests are computed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import msgspec
from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.errors import InvalidDigest, ManifestError, RegistryError
from torchship.oci import auth
from torchship.oci.manifest import ACCEPTED, parse, stated
from torchship.oci.mediatypes import INDEXES, MANIFESTS
from torchship.oci.reference import TAG, Reference
from torchship.oci.registry.answer import LIMIT, Answer, decoded, failure, read
from torchship.oci.registry.patience import Interrupted, Patience
from torchship.oci.registry.session import Session
from torchship.oci.registry.token import Authorizer, Credentials, Scopes
from torchship.oci.registry.transport import (
    Answered,
    Origin,
    Response,
    Transport,
    join,
    public,
    request,
    stream,
)
from torchship.oci.registry.upload import Source, Upload, mount

ABSENT = frozenset({401, 403, 404})
"""A repository that is absent: some registries answer 401 or 403, so that private names cannot be
probed."""

_PAGE = 1000
_PAGES = 10_000
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d+/(?:\d+|\*)")


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Registry:
    """One registry as this user sees it. Thread-safe; connections are shared.

    ``access`` is what its tokens ask for. All methods raise `RegistryError`, after patience
    with what may pass has ended.
    """

    def __init__(
        self,
        host: str,
        *,
        access: Literal["pull", "pull,push"] = "pull",
        credentials: Callable[[], Credentials | None] | None = None,
        patience: Patience | None = None,
    ) -> None:
        transport = Transport(host, patience=patience)
        known = credentials or partial(auth.credentials, host)
        self.session = Session(transport, Authorizer(transport, known))
        self._access = access

    @property
    def host(self) -> str:
        """The registry's name in references."""
        return self.session.host

    def scopes(self, repository: str) -> Scopes:
        """Return what access to a repository is asked for."""
        return (f"repository:{repository}:{self._access}",)

    def manifest(self, reference: Reference) -> tuple[bytes, Descriptor]:
        """Return a manifest or an index: its raw bytes, checked to be well-formed.

        A digest in the reference is verified; a tag beside it is not asked for.
        """
        answer = self._manifest(reference, expect={200})
        return answer.body, self._described(answer, reference)

    def find_manifest(self, reference: Reference) -> tuple[bytes, Descriptor] | None:
        """Return a manifest as `manifest` does, or None where there is none of that name."""
        answer = self._manifest(reference, expect={200, 404})
        if answer.status == 404:
            return None
        return answer.body, self._described(answer, reference)

    def blob(self, repository: str, descriptor: Descriptor) -> Iterator[bytes]:
        """Yield a blob piece by piece; a transfer that is cut goes on where it stopped.

        Raises at the end where size or digest differ from the descriptor's, so nothing may be
        used before the iterator ends; a blob that is too long ends early.
        """
        running = hashlib.sha256()
        for piece in self.pieces(repository, descriptor):
            running.update(piece)
            yield piece
        if running.hexdigest() != descriptor.digest.hex:
            raise wrong_blob(self.host, repository, descriptor)

    def pieces(self, repository: str, descriptor: Descriptor, offset: int = 0) -> Iterator[bytes]:
        """Yield a blob from ``offset`` to its stated size, for a caller who verifies the digest."""
        path = f"/v2/{repository}/blobs/{descriptor.digest}"
        if offset and offset == descriptor.size:
            return
        tries = self.session.tries()
        while True:
            try:
                headers = {"Range": f"bytes={offset}-"} if offset else {}
                answered = self.session.open("GET", path, self.scopes(repository), headers=headers)
                for piece in _rest(answered, descriptor, offset, self.session.transport):
                    offset += len(piece)
                    tries.progressed()
                    yield piece
                return
            except Interrupted as fault:
                if offset == descriptor.size:
                    return  # cut off after the last byte: no range is left to ask for
                tries.failed(fault)

    def source(self, repository: str) -> Published:
        """Return a repository as a place to read images from without pulling them."""
        return Published(self, repository)

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Ask whether a blob is in the repository already."""
        path = f"/v2/{repository}/blobs/{descriptor.digest}"
        answer = self.session.ask("HEAD", path, self.scopes(repository), expect={200, 404})
        return answer.status == 200

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        """Ask whether a manifest is in the repository."""
        path = f"/v2/{repository}/manifests/{digest}"
        accept = {"Accept": ", ".join(ACCEPTED)}
        scopes = self.scopes(repository)
        answer = self.session.ask("HEAD", path, scopes, expect={200, 404}, headers=accept)
        return answer.status == 200

    def mount(self, repository: str, descriptor: Descriptor, *, origins: Sequence[str]) -> bool:
        """Take a blob over from one of other repositories here; False where that is refused."""
        return mount(
            self.session,
            repository,
            descriptor,
            self.scopes(repository),
            origins=origins,
        )

    def upload(
        self,
        repository: str,
        descriptor: Descriptor,
        source: Source,
        advance: Callable[[int], None] | None = None,
    ) -> None:
        """Send a blob; a transfer that is cut goes on from what the registry has.

        ``source`` gives the blob's bytes from an offset on. ``advance`` is told of each byte
        once.
        """
        Upload(
            session=self.session,
            repository=repository,
            descriptor=descriptor,
            source=source,
            scopes=self.scopes(repository),
            advance=advance or _ignore,
        ).run()

    def put_manifest(self, reference: Reference, raw: bytes, media_type: str) -> Answer:
        """Send a manifest or an index under the reference's tag, or else its digest.

        Everything that it names must be there. Raises where the registry filed it under
        another digest.
        """
        expected = Digest.of(raw)
        name = reference.tag or str(reference.digest or expected)
        path = f"/v2/{reference.repository}/manifests/{name}"
        answer = self.session.ask(
            "PUT",
            path,
            self.scopes(reference.repository),
            expect={200, 201, 202},
            headers={"Content-Type": media_type},
            body=raw,
        )
        filed = answer.headers.get("Docker-Content-Digest")
        if filed is not None and filed.startswith("sha256:") and filed != str(expected):
            raise RegistryError(
                f"{self.host} filed the manifest {expected} as {filed}",
                hint="the registry, or a proxy before it, changes manifests",
                request=request("PUT", answer.url),
                status=answer.status,
            )
        return answer

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return all tags of a repository, sorted, however many pages they fill."""
        path = f"/v2/{repository}/tags/list?n={_PAGE}"
        found: set[str] = set()
        for answer in self.pages(path, self.scopes(repository), expect={200}):
            listed = decoded(answer.body, _Tags)
            if listed is None:
                raise self._nonsense(answer, "no list of tags")
            tags = listed.tags or []
            for tag in tags:
                if not TAG.fullmatch(tag):
                    raise self._nonsense(answer, f"{tag[:200]!r}, which is no tag")
            found.update(tags)
        return tuple(sorted(found))

    def pages(self, path: str, scopes: Scopes, *, expect: set[int]) -> Iterator[Answer]:
        """Yield an answer and those that its Link fields (RFC 8288) lead on to."""
        seen: set[str] = set()
        url = path
        while True:
            answer = self.session.ask("GET", url, scopes, expect=expect)
            yield answer
            link = _NEXT.search(answer.headers.get("Link", ""))
            if link is None or answer.status != 200:
                return
            seen.add(url)
            url = join(answer.url, link[1])
            astray = Origin.of(url) != Origin.of(answer.url)
            if url in seen or len(seen) > _PAGES or astray:
                raise self._nonsense(answer, "pages that lead in a circle or astray")

    def _manifest(self, reference: Reference, *, expect: set[int]) -> Answer:
        name = reference.digest or reference.tag
        path = f"/v2/{reference.repository}/manifests/{name}"
        accept = {"Accept": ", ".join(ACCEPTED)}
        scopes = self.scopes(reference.repository)
        return self.session.ask("GET", path, scopes, expect=expect, headers=accept, limit=LIMIT)

    def _described(self, answer: Answer, reference: Reference) -> Descriptor:
        computed = Digest.of(answer.body)
        wanted = reference.digest
        said = answer.headers.get("Docker-Content-Digest")
        if wanted is None and said is not None and said.startswith("sha256:"):
            try:
                wanted = Digest.parse(said)
            except InvalidDigest as fault:
                raise self._nonsense(answer, fault.message) from None
        if wanted is not None and computed != wanted:
            raise self._nonsense(answer, f"a manifest with the digest {computed}, not {wanted}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            # Its own word is what is hashed: some registries give all of them one type.
            own = stated(answer.body, str(reference))
            document = parse(answer.body, own or media_type, str(reference))
        except ManifestError as fault:
            raise RegistryError(
                fault.message,
                hint=fault.hint,
                request=request("GET", answer.url),
                status=answer.status,
            ) from None
        return Descriptor(media_type=document.media_type, digest=computed, size=len(answer.body))

    def _nonsense(self, answer: Answer, what: str) -> RegistryError:
        return RegistryError(
            f"{self.host} gave {what}",
            hint="the registry, or a proxy before it, is broken or hostile",
            request=request(answer.method, answer.url),
            status=answer.status,
        )


class Published(Struct, frozen=True):
    """The documents of one repository, as `torchship.oci.image.read_image` reads them."""

    registry: Registry
    repository: str

    def has(self, digest: Digest) -> bool:
        """Tell whether a manifest is there: an index may name some that are not."""
        return self.registry.has_manifest(self.repository, digest)

    def read(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a manifest, index or config, of the stated digest and size."""
        if descriptor.size > limit:
            raise ManifestError(
                f"{descriptor.digest} is larger than the {limit} bytes that it may have"
            )
        if descriptor.media_type not in MANIFESTS | INDEXES:
            return b"".join(self.registry.blob(self.repository, descriptor))
        raw, found = self.registry.manifest(
            Reference(
                registry=self.registry.host,
                repository=self.repository,
                digest=descriptor.digest,
            )
        )
        if found.size != descriptor.size:
            raise ManifestError(
                f"{descriptor.digest} has {found.size} bytes where {descriptor.size} were stated"
            )
        return raw


def wrong_blob(host: str, repository: str, descriptor: Descriptor) -> RegistryError:
    """Return the error for a blob whose bytes do not have its digest."""
    return RegistryError(
        f"{host}/{repository}: the blob that came is not {descriptor.digest}",
        hint="the registry's copy is damaged, or something in between changed it; push it again",
        request=f"GET {host}/v2/{repository}/blobs/{descriptor.digest}",
    )


def _rest(
    answered: Answered, descriptor: Descriptor, offset: int, registry: Transport
) -> Iterator[bytes]:
    """Yield the bytes from ``offset`` to the blob's end, and no byte more."""
    response, url = answered.response, answered.url
    with response:
        if response.status not in {200, 206}:
            raise failure(read(answered, "GET"), registry)
        skip = offset - _begins(response, url, offset)
        length = response.headers.get("Content-Length", "")
        if re.fullmatch(r"[0-9]{1,19}", length) and int(length) - skip != descriptor.size - offset:
            raise _wrong_size(url, descriptor)
        left = descriptor.size - offset
        for came in stream(response, f"GET {public(url)}"):
            piece = came[skip:] if skip else came
            skip -= len(came) - len(piece)
            if len(piece) > left:
                raise _wrong_size(url, descriptor)
            left -= len(piece)
            if piece:
                yield piece
    if left:
        name = f"GET {public(url)}"
        raise Interrupted(f"{name} was cut off", hint="check the network", request=name)


def _begins(response: Response, url: str, offset: int) -> int:
    """Return the place of the answer's first byte: a registry may ignore the Range asked for."""
    if response.status == 200:
        return 0
    begins = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if begins is None or int(begins[1]) > offset:
        raise RegistryError(
            f"GET {public(url)} gave another part of the blob than asked for",
            hint="the registry, or a proxy before it, is broken",
            request=f"GET {public(url)}",
            status=206,
        )
    return int(begins[1])


def _wrong_size(url: str, descriptor: Descriptor) -> RegistryError:
    return RegistryError(
        f"GET {public(url)}: the blob's size is not {descriptor.size} bytes, as the manifest says",
        hint="the registry's copy is damaged, or the manifest lies; push the image again",
        request=f"GET {public(url)}",
        status=200,
    )


def _ignore(amount: int) -> None:
    pass
