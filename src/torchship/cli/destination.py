"""What every command does that sends an image to a registry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torchship.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torchship.digest import Descriptor
    from torchship.oci.reference import Reference
    from torchship.oci.store import Store
    from torchship.oci.transfer import Sent
    from torchship.progress import Progress


def send(store: Store, image: Descriptor, name: str, progress: Progress) -> None:
    """Push an image of the store to a name as it was given; tell how many bytes that took.

    Raises `RegistryError`, with a hint where the name has no registry, for it may have been
    meant for another than Docker Hub.
    """
    from torchship.oci.push import push
    from torchship.oci.reference import Reference

    reference = Reference.parse(name)
    with _explained(name):
        sent = push(store, image, reference, progress=progress)
    progress.say(told(reference, sent))


def told(reference: Reference, sent: Sent) -> str:
    """Say what a transfer did, in one line."""
    from torchship.amounts import size

    about = f", and {sent.referrers} that refer to it" if sent.referrers else ""
    return (
        f"{reference.familiar}: sent {size(sent.sent)}, mounted {size(sent.mounted)}, "
        f"already there {size(sent.skipped)}{about}"
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say where a name without a registry went, if that was not meant."""
    from torchship.oci.reference import HUB, names_registry

    try:
        yield
    except RegistryError as error:
        if not names_registry(name):
            error.hint = (
                f"{name} names no registry, so it went to {HUB}: for another, build it "
                f"with -t HOST/{name}; for {HUB}, log in: torchship login"
            )
        raise
