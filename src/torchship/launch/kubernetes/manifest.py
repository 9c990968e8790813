"""A job's objects written as YAML, for people and for ``kubectl create -f -``."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from torchship.launch.kubernetes.pod import Object


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such a block, and every value where it stands."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 (the library's signature)
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def write(objects: Iterable[Object]) -> str:
    """Return the objects as documents of one YAML stream, in the order of their fields."""
    return yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, explicit_start=True
    )
