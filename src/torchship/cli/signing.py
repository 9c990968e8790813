"""What `publish` and `reproduce` share about signatures: their options, what is told and asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from torchship.display import clean
from torchship.errors import SignatureError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchship.digest import Descriptor
    from torchship.oci.store import Store
    from torchship.progress import Progress
    from torchship.runs.publishing import Published
    from torchship.runs.signature import Signer

trust_config = click.option(
    "--trust-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use the sigstore instance that this file describes, not the public one.",
)
signed_by = click.option(
    "--signed-by",
    metavar="IDENTITY",
    help="Run nothing unless this e-mail address or workflow has signed the record.",
)
signed_issuer = click.option(
    "--signed-issuer", metavar="URL", help="Who must have vouched for that identity."
)

_PUBLIC = """\
Signing makes public, for ever, in a log that anyone can read and nobody can delete from:
  who you are: {identity}
  who vouches for it: {issuer}
  when you signed, and the digest of the record
"""


class Wanted(Struct, frozen=True, kw_only=True):
    """Who must have signed a record, and who vouched for that; None: anybody, or nobody.

    ``trusting`` is the file that describes another sigstore instance than the public one.
    """

    identity: str | None = None
    issuer: str | None = None
    trusting: Path | None = None

    @classmethod
    def parse(cls, identity: str | None, issuer: str | None, trusting: Path | None) -> Wanted:
        """Take what the command line gave; raise `UsageError` where that says nothing."""
        if issuer and not identity:
            raise UsageError("--signed-issuer goes with --signed-by IDENTITY")
        return cls(identity=identity, issuer=issuer, trusting=trusting)

    def among(
        self, store: Store, top: Descriptor, progress: Progress
    ) -> Callable[[Published], bool] | None:
        """Return what tells whether the one who is asked for signed a record; None: all serve."""
        if self.identity is None:
            return None
        from torchship.runs import signature

        trusted = signature.trust(self.trusting, progress)

        def theirs(published: Published) -> bool:
            try:
                bundles = signature.attached(store, top, published.raw)
                return any(
                    self.is_by(signature.verify(each, published.raw, trusted=trusted))
                    for each in bundles
                )
            except SignatureError:  # told by `check`, where no record serves
                return False

        return theirs

    def is_by(self, signer: Signer) -> bool:
        """Tell whether a signer is the one who is asked for."""
        return signer.identity == self.identity and self.issuer in (None, signer.issuer)


def signed(published: Published, *, trusting: Path | None, agreed: bool) -> bytes:
    """Return a record's bundle, made once the user has agreed to what becomes public by it."""
    from torchship.progress import SILENT
    from torchship.runs import signature

    trusted = signature.trust(trusting, SILENT, fresh=True)
    token = signature.identify(trusted)
    issuer = token.federated_issuer
    told = _PUBLIC.format(identity=clean(token.identity), issuer=clean(issuer))
    click.echo(told, err=True, nl=False)
    if not agreed and not sys.stdin.isatty():
        raise UsageError(
            "nobody is there to agree, so nothing was signed or published", hint="add --yes"
        )
    if not agreed and not click.confirm("Sign?", err=True):
        raise SignatureError(
            "not signed, and nothing was published", hint="publish without --sign to stay unnamed"
        )
    return signature.sign(published.raw, token=token, trusted=trusted)


def check(
    store: Store, top: Descriptor, published: Published, wanted: Wanted, progress: Progress
) -> None:
    """Tell who signed a record; raise `SignatureError` for a faulty or missing signature."""
    from torchship.runs import signature

    identity, issuer = wanted.identity, wanted.issuer
    bundles = signature.attached(store, top, published.raw)
    if not bundles and not identity:
        progress.say("the record is not signed: nobody proves that it is its author's")
        return
    if not bundles:
        raise SignatureError(f"the record is not signed, and {identity} should have signed it")
    try:
        trusted = signature.trust(wanted.trusting, progress)
    except UsageError as missing:
        if identity or wanted.trusting:
            raise
        progress.say(f"the record is signed; to know by whom: {missing.hint}")
        return
    signers = [signature.verify(each, published.raw, trusted=trusted) for each in bundles]
    for signer in signers:
        progress.say(
            f"signed by {clean(signer.identity)} (says {clean(signer.issuer)}), "
            f"{signer.when:%Y-%m-%d %H:%M} UTC"
        )
    if identity and not any(wanted.is_by(signer) for signer in signers):
        shown = ", ".join(f"{clean(each.identity)} ({clean(each.issuer)})" for each in signers)
        asked = f"{identity} ({issuer})" if issuer else identity
        raise SignatureError(f"the record is signed by {shown}, and not by {asked}")
