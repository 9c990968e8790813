"""What an image is made of, for people: each layer's size, share, content and origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from torchship.digest import Descriptor, Digest
from torchship.layers.layer import KEY, TITLE, Layer
from torchship.oci.assemble import UNPACKED_SIZE
from torchship.oci.documents import ConfigObject, decode
from torchship.oci.image import Holding, Image, Source, held, read_one

FindReferrers = Callable[[Digest], tuple[Descriptor, ...]]
"""Finds what is attached to a manifest."""

_SHOWN_ELSEWHERE = frozenset({TITLE, KEY, UNPACKED_SIZE})


class LayerDescription(Struct, frozen=True, kw_only=True):
    """One layer. ``share`` is its part of the image's compressed size, from 0 to 1.

    ``title`` says what it holds; ``origin``, annotation by annotation, where that came from.
    """

    layer: Layer
    share: float
    title: str
    origin: Mapping[str, str]


class ImageDescription(Struct, frozen=True, kw_only=True):
    """One platform's image, with its layers from the bottom up. ``size`` in bytes, compressed.

    ``referrers`` describe what is attached to it, or to the index that it is of.
    """

    image: Image
    size: int
    layers: tuple[LayerDescription, ...]
    referrers: tuple[Descriptor, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return what `inspect --json` prints."""
        image = self.image
        return {
            "platform": str(image.platform),
            **({"variant": image.variant} if image.variant else {}),
            "manifest": str(image.descriptor.digest),
            "mediaType": image.descriptor.media_type,
            "config": str(image.config.digest),
            "created": image.created,
            "size": self.size,
            "command": list(image.command),
            "entrypoint": list(image.entrypoint),
            "environment": dict(image.environment),
            "workdir": image.workdir,
            "user": image.user,
            "labels": dict(image.labels),
            "layers": [_layer_json(described) for described in self.layers],
            "referrers": [_referrer_json(descriptor) for descriptor in self.referrers],
        }


def describe(
    source: Holding, descriptor: Descriptor, referrers: FindReferrers | None = None
) -> tuple[ImageDescription, ...]:
    """Describe the images of a manifest or index that a source has, in the index's order.

    Reads manifests and configs only, never a layer; ``referrers`` finds what is attached to
    them. Raises `ManifestError`; `BlobMissing`, `BlobDamaged` or `RegistryError` where an image's
    own documents are not there.
    """
    above = referrers(descriptor.digest) if referrers else ()
    found = []
    for manifest in held(source, descriptor):
        own = manifest.digest != descriptor.digest
        about = (*above, *(referrers(manifest.digest) if referrers and own else ()))
        found.append(_describe(source, manifest, about))
    return tuple(found)


def _describe(
    source: Source, manifest: Descriptor, about: tuple[Descriptor, ...]
) -> ImageDescription:
    image = read_one(source, manifest)
    steps = _steps(image)
    return ImageDescription(
        image=image,
        size=image.size,
        layers=tuple(
            LayerDescription(
                layer=layer,
                share=layer.size / image.size if image.size else 0.0,
                title=layer.title or step,
                origin={k: v for k, v in layer.annotations.items() if k not in _SHOWN_ELSEWHERE},
            )
            for layer, step in zip(image.layers, steps, strict=True)
        ),
        referrers=about,
    )


def _steps(image: Image) -> tuple[str, ...]:
    """Return the step of the history that made each layer, for images that others built."""
    # config.md, history: "empty_layer: ... true if this history item doesn't create a layer"
    config = decode(image.raw_config, ConfigObject, str(image.config.digest))
    steps = [step.created_by or "" for step in config.history or () if not step.empty_layer]
    if len(steps) != len(image.layers):  # history is optional, and nobody checks it
        return ("",) * len(image.layers)
    return tuple(steps)


def _layer_json(described: LayerDescription) -> dict[str, object]:
    layer = described.layer
    return {
        "digest": str(layer.digest),
        "diffId": str(layer.diff_id),
        "mediaType": layer.media_type,
        "size": layer.size,
        "unpackedSize": layer.unpacked_size,
        "share": round(described.share, 4),
        "title": described.title,
        "origin": dict(described.origin),
    }


def _referrer_json(descriptor: Descriptor) -> dict[str, object]:
    return {
        "digest": str(descriptor.digest),
        "artifactType": descriptor.artifact_type or "",
        "size": descriptor.size,
        "annotations": dict(descriptor.annotations),
    }
