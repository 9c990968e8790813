"""Manifests as text."""

import yaml
from tests.launch.kubernetes.jobs import EVERY

from torchship.launch.kubernetes import indexed, manifest, trainjob
from torchship.launch.kubernetes.settings import Settings


def test_the_text_says_what_the_objects_say():
    """YAML read again gives the same objects, whatever stands in them."""
    for job in EVERY.values():
        objects = (
            *indexed.objects(job, "n", Settings()),
            *trainjob.objects(job, "n", Settings()),
            {"text": "a: b\n- c\n", "odd": ["1", "yes", "~", "  lead\n", "\ttab\nx", "é\x01\n"]},
        )
        assert list(yaml.safe_load_all(manifest.write(objects))) == list(objects)


def test_programs_are_readable():
    """A script stands in the text line by line, not as one quoted string."""
    text = manifest.write(indexed.objects(EVERY["bare"], "n", Settings()))
    assert "- |\n" in text
    assert "\n          import signal\n" in text
    assert "&id" not in text
