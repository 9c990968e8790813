"""An image as a CycloneDX bill of materials: what is in it, under the names that scanners use.

The same image gives the same bytes: no time, and a serial number that follows from its digest.

Sources: CycloneDX 1.6 (ECMA-424); package-url's types pypi, deb and oci.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from packaging.utils import (
    InvalidWheelFilename,
    canonicalize_name,
    canonicalize_version,
    parse_wheel_filename,
)

from torchship import __version__
from torchship.digest import Digest
from torchship.errors import UsageError
from torchship.export.contents import Contents, Installed, OpenBlob, contents
from torchship.export.dependencies import Debian, Python
from torchship.layers.layer import ORIGIN, Layer
from torchship.runs.execution import BASE, declared

if TYPE_CHECKING:
    from cyclonedx.model import HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

    from torchship.export.packages import Distribution, Package
    from torchship.oci.image import Image

MEDIA_TYPE = "application/vnd.cyclonedx+json"
"""IANA's name for CycloneDX in JSON: the type of the artifact, and of its one layer."""

TITLE = "org.opencontainers.image.title"
BASE_DIGEST = "org.opencontainers.image.base.digest"

_BUILT = "debian:"  # the origin of a base that was made of packages, which are listed themselves
_SYSTEM = re.compile(r"[a-z0-9][a-z0-9._-]*")  # os-release(5), "ID="
_ORIGIN_WHEEL = re.compile(r"wheel:(\S+?\.whl)@(sha256:[0-9a-f]{64})")


def sbom(image: Image, open_blob: OpenBlob) -> bytes:
    """Return the bill of materials of one platform's image, whose layers are all there.

    Reads every layer once. Raises `LayerError` for one that is damaged, `ManifestError` for
    faulty labels, and `UsageError` where the extra ``sbom`` is not installed.
    """
    _library()
    paths = [path for path, _ in declared(image).data]
    found = contents(image.layers, open_blob, paths)
    return _encoded(_bom(image, found))


def _library() -> None:
    try:
        import cyclonedx.model.bom  # noqa: F401 (asked for, not used)
    except ImportError:
        raise UsageError(
            "a bill of materials needs the package cyclonedx-python-lib",
            hint="pip install 'torchship[sbom]'",
        ) from None


def _encoded(bom: Bom) -> bytes:
    from cyclonedx.output.json import JsonV1Dot6

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an image without packages depends on none
        return JsonV1Dot6(bom).output_as_string(indent=2).encode() + b"\n"


def _bom(image: Image, found: Contents) -> Bom:
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    digest = image.descriptor.digest
    root = Component(
        type=ComponentType.CONTAINER,
        name=image.labels.get(TITLE) or "image",
        version=str(digest),
        bom_ref=str(digest),
        hashes=_sha256(digest),
        properties=[
            Property(name="torchship:image:platform", value=str(image.platform)),
            *(
                [Property(name="torchship:image:variant", value=image.variant)]
                * bool(image.variant)
            ),
        ],
    )
    bom = Bom(serial_number=uuid5(NAMESPACE_URL, f"urn:torchship:sbom:{digest}"))
    bom.metadata.timestamp = None  # type: ignore[assignment] # the schema has it optional
    bom.metadata.component = root
    tool = Component(type=ComponentType.APPLICATION, name="torchship", version=__version__)
    bom.metadata.tools = ToolRepository(components=[tool])
    python, debian = Python(found.distributions, image.platform), Debian(found.packages)
    wheels = _distributions(image, found.distributions)
    packages = {package: _package(package, found.release) for package in found.packages}
    others = [*_below(image, found), *_data(found)]
    bom.components = (*others, *wheels.values(), *packages.values())
    for installed, component in wheels.items():
        bom.register_dependency(component, (wheels[other] for other in python.needed(installed)))
    for package, component in packages.items():
        bom.register_dependency(component, (packages[other] for other in debian.needed(package)))
    tops = (*(wheels[each] for each in python.tops), *(packages[each] for each in debian.tops))
    bom.register_dependency(root, [*others, *tops])
    return bom


def _distributions(image: Image, found: Iterable[Installed]) -> Mapping[Installed, Component]:
    """Return each distribution's component: one that is there twice has one, with two places."""
    from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence

    wheels = {layer.digest: _wheels(layer) for layer in image.layers}
    components: dict[str, Component] = {}
    result: dict[Installed, Component] = {}
    for installed in found:
        component = _distribution(installed.distribution, wheels[installed.layer])
        component = components.setdefault(component.bom_ref.value or "", component)
        if component.evidence is None:
            component.evidence = ComponentEvidence()
        place = Occurrence(
            location=installed.location, additional_context=f"layer {installed.layer}"
        )
        component.evidence.occurrences.add(place)
        result[installed] = component
    return result


def _distribution(found: Distribution, wheels: Mapping[tuple[str, str], Digest]) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    purl = PackageURL("pypi", name=found.name, version=found.version)
    digest = wheels.get((found.name, _comparable(found.version)))
    return Component(
        type=ComponentType.LIBRARY,
        name=found.name,
        version=found.version,
        description=found.summary or None,
        purl=purl,
        bom_ref=purl.to_string(),
        hashes=_sha256(digest) if digest else (),
        licenses=_licences(found),
    )


def _package(found: Package, release: Mapping[str, str]) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    system, number = release.get("ID", ""), release.get("VERSION_ID", "")
    if not _SYSTEM.fullmatch(system):
        system, number = "debian", ""
    qualifiers = {
        "arch": found.architecture,
        "distro": f"{system}-{number}" if number else "",
        "upstream": found.source if found.source != found.name else "",
    }
    purl = PackageURL(
        "deb", system, found.name, found.version, {k: v for k, v in qualifiers.items() if v}
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=found.name,
        version=found.version,
        description=found.summary or None,
        purl=purl,
        bom_ref=purl.to_string(),
    )


def _below(image: Image, found: Contents) -> Iterator[Component]:
    """Yield the operating system, and the published image that this one stands on, if any."""
    from cyclonedx.model.component import Component, ComponentType

    release = found.release
    if release.get("ID"):
        yield Component(
            type=ComponentType.OPERATING_SYSTEM,
            name=release["ID"],
            version=release.get("VERSION_ID") or None,
            description=release.get("PRETTY_NAME") or None,
            bom_ref=f"os:{release['ID']}",
        )
    base = image.labels.get(BASE)
    built = any(layer.annotations.get(ORIGIN, "").startswith(_BUILT) for layer in image.layers)
    if base and not built:
        yield Component(
            type=ComponentType.CONTAINER,
            name=base,
            version=image.labels.get(BASE_DIGEST),
            bom_ref=f"base:{base}",
        )


def _data(found: Contents) -> Iterator[Component]:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType

    for file in found.data:
        yield Component(
            type=ComponentType.DATA,
            name=file.path,
            bom_ref=f"data:{file.path}",
            hashes=_sha256(file.digest),
            properties=[Property(name="torchship:data:size", value=str(file.size))],
        )


def _wheels(layer: Layer) -> Mapping[tuple[str, str], Digest]:
    """Return the sha256 of the wheels that a layer's annotation says it was made of."""
    found: dict[tuple[str, str], Digest] = {}
    for filename, digest in _ORIGIN_WHEEL.findall(layer.annotations.get(ORIGIN, "")):
        try:
            name, version, _, _ = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue  # an annotation is anybody's text
        found[canonicalize_name(name), _comparable(str(version))] = Digest.parse(digest)
    return found


def _comparable(version: str) -> str:
    return canonicalize_version(version, strip_trailing_zero=False)


def _licences(found: Distribution) -> Iterator[License]:
    from cyclonedx.model.license import (
        DisjunctiveLicense,
        LicenseAcknowledgement,
        LicenseExpression,
    )
    from cyclonedx.spdx import fixup_id, is_expression

    stated = LicenseAcknowledgement.DECLARED
    if found.expression and is_expression(found.expression):
        # The schema has one expression or several licences, never both.
        yield LicenseExpression(found.expression, acknowledgement=stated)
        return
    for text in found.licences or ((found.expression,) if found.expression else ()):
        spdx = fixup_id(text)
        if spdx is not None:
            yield DisjunctiveLicense(id=spdx, acknowledgement=stated)
        else:
            yield DisjunctiveLicense(name=text, acknowledgement=stated)


def _sha256(digest: Digest) -> Iterable[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return (HashType(alg=HashAlgorithm.SHA_256, content=digest.hex),)
