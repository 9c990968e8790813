"""What an index notes of variants."""

from __future__ import annotations

from torchship.digest import Descriptor, Digest
from torchship.oci.mediatypes import OCI_MANIFEST
from torchship.oci.variant import VARIANT, noted, offered
from torchship.platform import Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def entry(name: str, platform: Platform | None = AMD64) -> Descriptor:
    """Return an index's entry."""
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest.of(name.encode()),
        size=1,
        annotations={VARIANT: name} if name else {},
        platform=platform.as_json() if platform else None,
    )


def test_variants_are_offered_by_platform_in_their_order():
    """Each once; what has no mark, or another platform, or none, offers nothing."""
    entries = [entry("cu130"), entry("cpu"), entry("rocm6", ARM64), entry(""), entry("cpu")]
    entries.append(entry("xpu", None))
    assert offered(entries, AMD64) == ("cu130", "cpu")
    assert offered(entries, ARM64) == ("rocm6",)
    assert offered([entry("")], AMD64) == ()
    assert noted(entry("cpu")) == "cpu"
    assert noted(entry("")) == ""
