import json

import pytest
from msgspec import Struct
from msgspec.structs import replace

from torchship.errors import PlanError, UsageError
from torchship.oci.assemble import assemble, index
from torchship.oci.image import read_one
from torchship.platform import Platform
from torchship.project.project import Metric

AMD64 = Platform("linux", "amd64")


def test_the_same_layers_give_the_same_image_byte_for_byte(store, layer, project):
    """Nothing of the moment or the machine goes into config and manifest."""
    layers = [layer(b"1")]
    first, second = (
        assemble(store, project=project, platform=AMD64, layers=layers, environment={})
        for _ in range(2)
    )
    assert first == second


def test_source_date_epoch_is_the_images_time(store, layer, project):
    """``created`` is the epoch unless SOURCE_DATE_EPOCH says otherwise; nonsense is refused."""
    made = {"project": project, "platform": AMD64, "layers": [layer(b"1")]}
    later = assemble(store, **made, environment={"SOURCE_DATE_EPOCH": "86400"})
    assert read_one(store, later).created == "1970-01-02T00:00:00Z"
    for wrong in ("yesterday", "", "1" * 40):
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            assemble(store, **made, environment={"SOURCE_DATE_EPOCH": wrong})


def test_python_finds_packages_where_it_is_told_to(store, layer, project):
    """Before those of the base's own; the project's settings stand above both."""

    def variables(project, **more):
        made = {"project": project, "platform": AMD64, "layers": [layer(b"1")]}
        return read_one(store, assemble(store, **made, **more)).environment

    class Base(Struct):
        environment: dict[str, str]

    below = Base(environment={"PYTHONPATH": "/opt/lib"})
    assert "PYTHONPATH" not in variables(project)
    assert variables(project, search_path="/w/src")["PYTHONPATH"] == "/w/src"
    assert variables(project, search_path="/w/src", below=below)["PYTHONPATH"] == "/w/src:/opt/lib"
    assert variables(project, below=below)["PYTHONPATH"] == "/opt/lib"
    own = replace(project, environment={"PYTHONPATH": "/own"})
    assert variables(own, search_path="/w/src", below=below)["PYTHONPATH"] == "/own"


def test_more_layers_than_docker_takes_are_refused(store, layer, project):
    """127 layers are fine, 128 and none are not."""
    made = layer(b"1")
    assemble(store, project=project, platform=AMD64, layers=[made] * 127)
    for layers in ([made] * 128, []):
        with pytest.raises(PlanError):
            assemble(store, project=project, platform=AMD64, layers=layers)


def test_a_label_says_where_the_metrics_are(store, layer, project):
    """As the project's settings say it; what they leave out is left out there, too."""
    loss = Metric(name="loss", file=None, pattern="loss: (.*)", better="lower", examples=5)
    stated = replace(project, metrics=(Metric(name="accuracy"), loss))
    made = assemble(store, project=stated, platform=AMD64, layers=[layer(b"1")])
    (label,) = [value for value in labels(store, made) if value.startswith('{"accuracy"')]
    assert json.loads(label) == {
        "accuracy": {"name": "accuracy", "file": "metrics.json", "better": "higher"},
        "loss": {"name": "loss", "pattern": "loss: (.*)", "better": "lower", "examples": 5},
    }


def labels(store, image):
    """Return the values of an image's labels."""
    return json.loads(read_one(store, image).raw_config)["config"]["Labels"].values()


def test_the_config_has_one_step_of_history_for_each_layer(store, layer, project):
    """``docker history`` shows what each layer holds."""
    layers = [layer(b"1"), layer(b"2")]
    image = read_one(store, assemble(store, project=project, platform=AMD64, layers=layers))
    history = json.loads(image.raw_config)["history"]
    assert [step["created_by"] for step in history] == [made.title for made in layers]


def test_an_index_names_each_platform(store, image):
    """The order is the caller's."""
    both = index(store, [image(b"1"), image(b"2", Platform("linux", "arm64"))])
    entries = json.loads(store.read(both))["manifests"]
    assert [entry["platform"]["architecture"] for entry in entries] == ["amd64", "arm64"]
