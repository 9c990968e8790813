"""The runs of a record in RO-Crate's words: actions, what they used, and what they gave.

Sources: Process Run Crate 0.5 ("Requirements", "Representing container images", "Representing
environment variable settings", "Specifying software dependencies").
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote

from torchship.errors import InvalidReference
from torchship.oci.reference import Reference, names_registry
from torchship.project.seeds import seeded
from torchship.runs.record import DataUsed, Record, Run, Software

Entity = dict[str, object]

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
_DOCKER = "https://w3id.org/ro/terms/workflow-run#DockerImage"
_IMAGE, _PROGRAM = "#image", "#program"
_HOMEPAGES = {
    "python": "https://www.python.org/",
    "torch": "https://pytorch.org/",
    "numpy": "https://numpy.org/",
}


def described(
    record: Record, files: Mapping[int, Mapping[str, str]], agent: str | None
) -> Iterator[Entity]:
    """Yield all but the files: ``files`` are identifiers of outputs, by a run's place and name.

    An output without one is described as something that is not in the crate. ``agent`` is the
    identifier of whoever ran it, where that is known.
    """
    yield {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    yield from _program(record)
    yield _image(record)
    yield from (_datum(each) for each in record.data)
    yield from _values("parameter", record.parameters)
    yield from _values("environment", record.determinism.environment)
    for place, run in enumerate(record.runs, start=1):
        action, *values = _run(record, run, place, files.get(place, {}))
        yield action | ({"agent": {"@id": agent}} if agent else {})
        yield from values


def action_id(place: int) -> str:
    """Return the identifier of a run's action."""
    return f"#run-{place}"


def _run(record: Record, run: Run, place: int, files: Mapping[str, str]) -> Iterator[Entity]:
    action = action_id(place)
    given = seeded(record.command, record.seed, run.seed)
    used = [_datum_id(each) for each in record.data]
    used += [_value_id("parameter", name) for name in record.parameters]
    environment = [_value_id("environment", name) for name in record.determinism.environment]
    own: list[Entity] = []
    if run.seed is not None:
        own.append(_value(f"{action}/seed", "seed", str(run.seed)))
        used.append(f"{action}/seed")
        for name, value in given.environment.items():
            own.append(_value(f"{action}/environment/{quote(name, safe='')}", name, value))
            environment.append(str(own[-1]["@id"]))
    results = []
    for name, digest in sorted(run.outputs.items()):
        if name in files:
            results.append(files[name])
            continue
        absent = f"{action}/output/{quote(name)}"
        results.append(absent)
        own.append(
            {
                "@id": absent,
                "@type": "CreativeWork",
                "name": name,
                "description": "An output of the run, which is not in this crate",
                "sha256": digest.hex,
            }
        )
    for name, number in sorted(run.metrics.items()):
        own.append(_value(f"{action}/metric/{quote(name, safe='')}", name, number))
        results.append(str(own[-1]["@id"]))
    ended = run.started + timedelta(seconds=run.seconds)
    failed = run.status != 0
    status = "FailedActionStatus" if failed else "CompletedActionStatus"
    label = "without a seed" if run.seed is None else f"with seed {run.seed}"
    yield {
        "@id": action,
        "@type": "CreateAction",
        "name": f"Run {place} of {len(record.runs)}, {label}",
        "description": shlex.join(given.command),
        "instrument": {"@id": _PROGRAM},
        "containerImage": {"@id": _IMAGE},
        "startTime": run.started.isoformat(timespec="milliseconds"),
        "endTime": ended.isoformat(timespec="milliseconds"),
        "actionStatus": f"http://schema.org/{status}",
        **({"error": f"exit status {run.status}"} if failed else {}),
        "object": links(used),
        "result": links(results),
        **({"environment": links(environment)} if environment else {}),
    }
    yield from own


def _program(record: Record) -> Iterator[Entity]:
    """Yield the program, which is known by its image, and what it is known to need."""
    needed = tuple(_software(record.software)) if record.software else ()
    yield {
        "@id": _PROGRAM,
        "@type": "SoftwareApplication",
        "name": record.image.name,
        "softwareVersion": str(record.image.manifest),
        **(
            {"softwareRequirements": links([str(each["@id"]) for each in needed])} if needed else {}
        ),
    }
    yield from needed


def _software(found: Software) -> Iterator[Entity]:
    versions = {"python": found.python, "torch": found.torch, "numpy": found.numpy}
    for name, version in versions.items():
        if version:
            yield {
                "@id": _HOMEPAGES[name],
                "@type": "SoftwareApplication",
                "name": name,
                "softwareVersion": version,
                "url": _HOMEPAGES[name],
            }


def _image(record: Record) -> Entity:
    name = record.image.name
    entity: Entity = {
        "@id": _IMAGE,
        "@type": "ContainerImage",
        "additionalType": {"@id": _DOCKER},
        "name": name,
        "sha256": record.image.manifest.hex,
        "description": f"An image for {record.image.platform}",
    }
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return entity  # a name of the author's own: nowhere to be had
    if not names_registry(name):
        return entity  # most likely a name of their store alone
    entity |= {"registry": reference.registry, "name": reference.repository}
    return entity | ({"tag": reference.tag} if reference.tag else {})


def _datum(found: DataUsed) -> Entity:
    return {
        "@id": _datum_id(found),
        "@type": "CreativeWork",
        "name": found.name,
        "description": "A data file of the image, as it was before and after the runs",
        "contentSize": str(found.size),
        "sha256": found.digest.hex,
        "isPartOf": {"@id": _IMAGE},
    }


def _datum_id(found: DataUsed) -> str:
    return f"#data{quote(found.name)}"


def _values(kind: str, values: Mapping[str, str]) -> Iterator[Entity]:
    for name, value in values.items():
        yield _value(_value_id(kind, name), name, value)


def _value(identifier: str, name: str, value: str | float) -> Entity:
    return {"@id": identifier, "@type": "PropertyValue", "name": name, "value": value}


def _value_id(kind: str, name: str) -> str:
    return f"#{kind}/{quote(name, safe='')}"


def links(identifiers: Sequence[str]) -> Entity | list[Entity]:
    """Refer to entities. RO-Crate 1.1, appendix "JSON-LD": a single one stands without a list."""
    found: list[Entity] = [{"@id": identifier} for identifier in identifiers]
    return found[0] if len(found) == 1 else found
