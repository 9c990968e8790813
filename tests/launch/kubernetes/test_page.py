"""What docs/kubernetes.md shows is what is made."""

import re
from importlib.resources import files
from pathlib import Path

from tests.launch.kubernetes.jobs import run

from torchship.launch.job import Shape
from torchship.launch.kubernetes import indexed, manifest
from torchship.launch.kubernetes.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "kubernetes.md"
SHAPE = Shape(nodes=2, processes=8, gpus=8, cpus=32, memory=256 << 30, time_limit=7200)


def shown() -> str:
    """Return the job of the page's example, its script left out."""
    job = run(SHAPE, command=("python", "main.py", "--epochs", "10"))
    objects = indexed.objects(job, "mnist-fast-3f9a1c", Settings(pull_secret="registry"))
    text = manifest.write(objects)
    script = (files("torchship.launch.kubernetes") / "scripts" / "hold.py").read_text()
    indented = "".join(f"          {line}\n" if line else "\n" for line in script.splitlines())
    assert indented in text
    return text.replace(indented, "          ...\n")


def test_the_page_shows_a_job_as_it_is():
    """The manifest on the page is that of a launch, but for the script in it."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert block == shown()
