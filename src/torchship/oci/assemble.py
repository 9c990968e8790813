"""Making an image of layers: its config, its manifest, and an index over several platforms.

Sources: OCI image-spec v1.1, config.md, manifest.md, image-index.md, annotations.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from msgspec.structs import asdict, replace

from torchship import canonical
from torchship.digest import Descriptor
from torchship.errors import PlanError, UsageError
from torchship.layers import layout
from torchship.layers.layer import KEY, Layer
from torchship.oci import cuda, mediatypes
from torchship.oci.documents import DERIVED_LAYERS
from torchship.oci.variant import VARIANT
from torchship.platform import Platform
from torchship.project import modules
from torchship.project.project import Metric, Project

UNPACKED_SIZE = "dev.torchship.layer.unpacked-size"
"""Annotation of a layer: its bytes when unpacked, as a decimal number."""

METRICS = "dev.torchship.metrics"
"""Label: the metrics that the project declares, as JSON, so that the image alone tells them."""

SEED = "dev.torchship.seed"
"""Label: how a seed reaches the program, such as ``--seed {seed}``."""

DATA = "dev.torchship.data"
"""Label: the data files of the image, as JSON: absolute path -> sha256 digest."""

MOST_LAYERS = 127
"""Docker's overlay2 driver mounts no more."""

_ENVIRONMENT = {
    "PATH": layout.PATH,
    "HOME": layout.HOME,
    "USER": layout.USER,
    "TORCHSHIP_OUTPUT": layout.OUTPUT,
    # What NVIDIA's container runtime gives to the container, where there is one.
    "NVIDIA_VISIBLE_DEVICES": "all",
    "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
}


class Below(Protocol):
    """What is taken over from a published base image besides its layers."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of its config."""


class Shelf(Protocol):
    """Where finished documents go: a store."""

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Write a small blob; return its descriptor."""


def assemble(
    store: Shelf,
    *,
    project: Project,
    platform: Platform,
    layers: Sequence[Layer],
    search_path: str = "",
    below: Below | None = None,
    variant: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Descriptor:
    """Write config and manifest of one platform's image; return the manifest's descriptor.

    ``search_path`` is a folder of the image in which Python finds the project's packages, before
    those of the base's own; empty: it is told of none.
    ``below`` is the published image whose layers come first; its variables stay, under ours.
    ``variant`` names what the image is one of several for; its label and the returned
    descriptor, which goes into an index, say so.
    ``environment`` is torchship's own: of it, only ``SOURCE_DATE_EPOCH`` counts.
    """
    if not layers:
        raise PlanError("an image needs at least one layer")
    if len(layers) > MOST_LAYERS:
        raise PlanError(
            f"the image would have {len(layers)} layers, and Docker takes {MOST_LAYERS}"
        )
    created = _created(environment)
    config = {
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "User": f"{layout.UID}:{layout.GID}",
            "Env": [f"{k}={v}" for k, v in _variables(project, search_path, below).items()],
            "Cmd": list(project.command),
            "WorkingDir": layout.WORKDIR,
            "Labels": _labels(project, layers, created) | ({VARIANT: variant} if variant else {}),
        },
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": created, "created_by": layer.title} for layer in layers],
        DERIVED_LAYERS: [_derived(layer) for layer in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_MANIFEST,
        "config": store.put(canonical.encode(config), mediatypes.OCI_CONFIG).as_json(),
        "layers": [_described(layer).as_json() for layer in layers],
    }
    written = store.put(canonical.encode(manifest), mediatypes.OCI_MANIFEST)
    return replace(
        written,
        platform=platform.as_json(),
        annotations={VARIANT: variant} if variant else {},
    )


def index(store: Shelf, manifests: Sequence[Descriptor]) -> Descriptor:
    """Write an index over the manifests of several platforms or variants; return its descriptor."""
    document = {
        "schemaVersion": 2,
        "mediaType": mediatypes.OCI_INDEX,
        "manifests": [descriptor.as_json() for descriptor in manifests],
    }
    return store.put(canonical.encode(document), mediatypes.OCI_INDEX)


def _variables(project: Project, search_path: str, below: Below | None) -> Mapping[str, str]:
    found = {**(below.environment if below else {}), **_ENVIRONMENT}
    if below and below.environment.get("PATH"):
        found["PATH"] = f"{layout.VENV}/bin:{below.environment['PATH']}"
    if search_path:
        others = found.get(modules.VARIABLE)
        found[modules.VARIABLE] = f"{search_path}:{others}" if others else search_path
    return {**found, **project.environment}


def _described(layer: Layer) -> Descriptor:
    return replace(
        layer.descriptor,
        annotations={**layer.annotations, UNPACKED_SIZE: str(layer.unpacked_size)},
    )


def _derived(layer: Layer) -> str:
    """Note a layer's key and unpacked size; nothing for a layer that was published by others.

    The manifest's annotations say the same, but Docker's manifests have none, and tools that
    rewrite manifests drop them. config.md allows further fields, and leaves them as they are.
    """
    key = layer.annotations.get(KEY)
    return f"{key} {layer.unpacked_size}" if key else ""


def _labels(project: Project, layers: Sequence[Layer], created: str) -> dict[str, str]:
    metrics = {metric.name: _stated(metric) for metric in project.metrics}
    data = {file.path: str(file.digest) for file in project.data}
    version = cuda.of_layers(layers)
    return {
        # Manifests may lose their annotations on the way (Docker writes its own): labels stay
        **({cuda.LABEL: version} if version else {}),
        **({METRICS: canonical.encode(metrics).decode()} if metrics else {}),
        **({SEED: project.seed} if project.seed else {}),
        **({DATA: canonical.encode(data).decode()} if data else {}),
        "org.opencontainers.image.title": project.name,
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.base.name": project.base,
        "dev.torchship.python": project.python,
    }


def _stated(metric: Metric) -> dict[str, object]:
    return {key: value for key, value in asdict(metric).items() if value is not None}


def _created(environment: Mapping[str, str]) -> str:
    """Return the image's time: the epoch, or ``SOURCE_DATE_EPOCH`` (reproducible-builds.org)."""
    text = environment.get("SOURCE_DATE_EPOCH", "0")
    try:
        moment = datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970",
            hint="unset it, or set it to such a number: `date +%s` prints one",
        ) from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
