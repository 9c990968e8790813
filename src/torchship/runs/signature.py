"""Signatures of records: sigstore bundles, each a DSSE envelope around the statement's own bytes.

Who signs proves an identity (an e-mail address, a workflow) to an issuer, gets a certificate for
some minutes, and the signature goes into a public log: there is no key to keep or to lose.

Sources: in-toto Attestation Framework (DSSE envelope); sigstore's Bundle format v0.3 and Client
specification; fulcio's oid-info.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from torchship.digest import Descriptor
from torchship.errors import BlobDamaged, BlobMissing, SignatureError, UsageError
from torchship.oci import artifact
from torchship.oci.image import held
from torchship.oci.store import Store
from torchship.progress import Progress
from torchship.runs.publishing import CREATED, Published
from torchship.runs.statement import LARGEST, MEDIA_TYPE, PREDICATE

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
"""The type of the artifact and of its one layer, as cosign attaches and looks for them."""

TOKEN = "SIGSTORE_ID_TOKEN"  # noqa: S105 (a variable's name)
"""The environment variable with an OIDC token, where no browser can be opened; cosign's."""

_ISSUER = "1.3.6.1.4.1.57264.1.8"  # oid-info.md: Issuer (V2), a DER-encoded string
_ISSUER_OLD = "1.3.6.1.4.1.57264.1.1"  # "Issuer": the same as bare text
_USERNAME = "1.3.6.1.4.1.57264.1.7"  # OtherName SAN
_ANNOTATIONS = {
    "dev.sigstore.bundle.content": "dsse-envelope",
    "dev.sigstore.bundle.predicateType": PREDICATE,
}
_LIMIT = 2 * LARGEST  # base64 makes four bytes of three


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signed: an identity, who vouches for it, and from when on the certificate is valid."""

    identity: str
    issuer: str
    when: datetime


class _Envelope(msgspec.Struct, rename="camel"):
    payload: bytes
    payload_type: str = ""


class _Bundle(msgspec.Struct, rename="camel"):
    dsse_envelope: _Envelope


def trust(path: Path | None, progress: Progress, *, fresh: bool = False) -> ClientTrustConfig:
    """Return whom to trust: sigstore's public instance, or the one that a file describes.

    Where the public one's present keys cannot be had, those that came with the library are
    taken, and that is told; with ``fresh`` it is an error, since one that cannot be reached
    signs nothing. Raises `UsageError` without the extra ``sign``, or for a faulty file.
    """
    _library()
    from sigstore.errors import Error, TUFError
    from sigstore.models import ClientTrustConfig

    if path is not None:
        try:
            return ClientTrustConfig.from_json(path.read_text("utf-8"))
        except (Error, ValueError) as error:
            raise UsageError(
                f"{path} is no trust configuration of sigstore: {_first(error)}"
            ) from None
    try:
        return ClientTrustConfig.production()
    except TUFError as error:
        if fresh:
            raise SignatureError(
                f"sigstore cannot be reached: {error.message}",
                hint="sign on a machine with a network, or name your own with --trust-config",
            ) from None
    progress.say("sigstore's present keys cannot be had: taking those that came with the library")
    return ClientTrustConfig.production(offline=True)


def identify(trusted: ClientTrustConfig) -> IdentityToken:
    """Return a proof of who the user is: from the environment, the CI service, or a browser.

    Nothing becomes public by this.
    """
    import requests
    from sigstore.errors import Error
    from sigstore.oidc import IdentityToken, Issuer, detect_credential

    try:
        raw = os.environ.get(TOKEN) or detect_credential()
        if raw:
            return IdentityToken(raw)
        return Issuer(trusted.signing_config.get_oidc_url()).identity_token()
    except (Error, requests.RequestException) as error:
        raise SignatureError(
            f"who you are could not be proven: {_first(error)}",
            hint=f"log in with a browser, or give a token in {TOKEN}",
        ) from None


def sign(statement: bytes, *, token: IdentityToken, trusted: ClientTrustConfig) -> bytes:
    """Return a bundle over exactly these bytes; they and the identity go into the public log.

    Raises `SignatureError` where the services refuse or do not answer.
    """
    import requests
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.dsse import Statement
    from sigstore.errors import Error
    from sigstore.oidc import ExpiredIdentity
    from sigstore.sign import SigningContext

    try:
        with SigningContext.from_trust_config(trusted).signer(token) as signer:
            bundle = signer.sign_dsse(Statement(statement))
    except (
        Error,
        ExpiredCertificate,
        ExpiredIdentity,
        FulcioClientError,
        RekorClientError,
        requests.RequestException,
    ) as error:
        raise SignatureError(
            f"the record could not be signed: {_first(error)}",
            hint="nothing was published; try again, or publish without --sign",
        ) from None
    return bundle.to_json().encode()


def verify(bundle: bytes, statement: bytes, *, trusted: ClientTrustConfig) -> Signer:
    """Return who signed exactly these bytes; raise `SignatureError` where nobody did.

    Checks the certificate and its transparency, the log's proof of inclusion, the times, the
    signature and that what it is over is ``statement``. Whether the signer is the right one, the
    caller decides.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import ExtensionNotFound
    from sigstore.errors import Error
    from sigstore.models import Bundle
    from sigstore.verify import Verifier

    policy = _Seen()
    try:
        read = Bundle.from_json(bundle)
        verifier = Verifier(trusted_root=trusted.trusted_root)
        kind, payload = verifier.verify_dsse(read, policy)
    except (Error, ValueError, ExtensionNotFound, UnsupportedAlgorithm) as error:
        raise SignatureError(f"the record's signature does not hold: {_first(error)}") from None
    if kind != MEDIA_TYPE or payload != statement:
        raise SignatureError("the signature is about another statement than the record")
    assert policy.signer is not None  # verify_dsse asks the policy
    return policy.signer


def is_about(bundle: bytes, statement: bytes) -> bool:
    """Tell whether a bundle says to be about a statement. Nothing is verified by that."""
    try:
        return msgspec.json.decode(bundle, type=_Bundle).dsse_envelope.payload == statement
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def attach(store: Store, image: Descriptor, published: Published, bundle: bytes) -> Descriptor:
    """Attach a record's bundle to an image, as cosign does; a push then sends it along."""
    created = {CREATED: f"{published.record.recorded:%Y-%m-%dT%H:%M:%SZ}"}
    annotations: Mapping[str, str] = {**_ANNOTATIONS, **created}
    content = artifact.Content(bundle, BUNDLE, "record.sigstore.json")
    return artifact.attach(store, image, BUNDLE, [content], annotations)


def attached(store: Store, top: Descriptor, statement: bytes) -> tuple[bytes, ...]:
    """Return the bundles attached to an image that say to be about a record, each once.

    Raises `SignatureError` for one that cannot be read: it might be the one that matters.
    """
    found: dict[bytes, None] = {}
    for digest in dict.fromkeys((top.digest, *(each.digest for each in held(store, top)))):
        for descriptor in artifact.referrers(store, digest, BUNDLE):
            try:
                for layer in artifact.read(store, descriptor).layers:
                    raw = store.read(layer, _LIMIT) if layer.media_type == BUNDLE else b""
                    if is_about(raw, statement):
                        found[raw] = None
            except (BlobMissing, BlobDamaged) as error:
                raise SignatureError(
                    f"the signature {descriptor.digest} cannot be read: {error.message}"
                ) from None
    return tuple(found)


class _Seen:
    """A policy that takes note of who signed."""

    signer: Signer | None = None

    def verify(self, cert: Certificate) -> None:
        """Note the certificate's one identity, and its issuer."""
        from cryptography.x509 import (
            ObjectIdentifier,
            OtherName,
            RFC822Name,
            SubjectAlternativeName,
            UniformResourceIdentifier,
            UnrecognizedExtension,
        )
        from sigstore.errors import VerificationError

        names = cert.extensions.get_extension_for_class(SubjectAlternativeName).value
        identities = [
            *names.get_values_for_type(RFC822Name),
            *names.get_values_for_type(UniformResourceIdentifier),
            *(
                _text(name.value)
                for name in names.get_values_for_type(OtherName)
                if name.type_id == ObjectIdentifier(_USERNAME)
            ),
        ]
        stated = {
            each.oid.dotted_string: each.value.value
            for each in cert.extensions
            if isinstance(each.value, UnrecognizedExtension)
        }
        issuer = (
            _text(stated[_ISSUER])
            if _ISSUER in stated
            else stated.get(_ISSUER_OLD, b"").decode("utf-8", "replace")
        )
        if len(identities) != 1 or not issuer:
            raise VerificationError("the certificate does not say who signed")
        self.signer = Signer(identity=identities[0], issuer=issuer, when=cert.not_valid_before_utc)


def _text(encoded: bytes) -> str:
    """Read a DER-encoded UTF8String of less than 64 KiB; X.690, 8.1.3."""
    if len(encoded) < 2 or encoded[0] != 0x0C:
        return ""
    start = 2 if encoded[1] < 0x80 else 2 + (encoded[1] & 0x7F)
    return encoded[start:].decode("utf-8", "replace")


def _library() -> None:
    try:
        import sigstore.models  # noqa: F401 (asked for, not used)
    except ImportError:
        raise UsageError(
            "signatures need the package sigstore", hint="pip install 'torchship[sign]'"
        ) from None
    # What it warns of, we tell in our own words
    logging.getLogger("sigstore").addHandler(logging.NullHandler())


def _first(error: BaseException) -> str:
    """Return what an error says, in one line."""
    text = str(error) or (str(error.__cause__) if error.__cause__ else "") or type(error).__name__
    return text.strip().splitlines()[0][:300]
