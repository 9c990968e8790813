"""What a run is given: GPUs and variants, on machines made of files."""

from __future__ import annotations

import pytest

from torchship.cli import target
from torchship.digest import Digest
from torchship.engines import choose, driver, nvidia
from torchship.engines.gpu import Gpus
from torchship.errors import EngineError
from torchship.layers.data import DataRecipe
from torchship.layers.layer import Materials
from torchship.oci.assemble import assemble, index
from torchship.oci.store import Store
from torchship.oci.variant import VARIANT
from torchship.platform import Platform
from torchship.progress import SILENT
from torchship.project.lock import DataPin
from torchship.project.project import Project

DRIVER = "535.104.05"  # too old for CUDA 13


@pytest.fixture(autouse=True)
def _bare_driver(tmp_path, monkeypatch):
    """Stand on a machine with a GPU, NVIDIA's driver and no toolkit."""
    root = tmp_path / "machine"
    files = (
        "dev/nvidia0",
        "dev/nvidiactl",
        f"usr/lib/{Platform.host().triplet}/libcuda.so.{DRIVER}",
    )
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    version = root / "sys/module/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(DRIVER)
    survey, registry = nvidia.survey, driver.registry
    monkeypatch.setattr(nvidia, "survey", lambda: survey(root, {"PATH": "/nowhere"}))
    monkeypatch.setattr(driver, "registry", lambda machine: registry(machine, root))
    monkeypatch.setenv("TORCHSHIP_CDI_DIRS", str(tmp_path / "cdi"))
    monkeypatch.setenv("TORCHSHIP_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("text", ["auto", "all", "1"])
def test_leaving_the_check_out_leaves_the_gpu_there(text):
    """The native engine needs nothing more than the driver, whose version names its files."""
    wish = Gpus.parse(text)
    with pytest.raises(EngineError, match="needs NVIDIA driver 580"):
        target._decided("13.0", wish=wish, engine="native", checked=True)
    decision = target._decided("13.0", wish=wish, engine="native", checked=False)
    assert decision.gpus
    assert decision.said is None


class Engine:
    """The native engine, as far as it is asked here; it brings nothing anywhere."""

    name = "native"

    def prepare(self, image, *, progress):
        """Need nothing."""


@pytest.mark.parametrize(
    ("variables", "variant", "gpus"),
    [
        ({}, "cpu", "none"),
        ({nvidia.UNCHECKED: ""}, "cpu", "none"),
        ({nvidia.UNCHECKED: "1"}, "cu130", "all"),
    ],
)
def test_the_variable_holds_for_the_variant_too(variables, variant, gpus, tmp_path, monkeypatch):
    """What goes unchecked when it runs is not refused when it is chosen."""
    store = Store.open(tmp_path / "home")
    data = tmp_path / "data"
    data.write_bytes(b"data")
    pin = DataPin(path="/data/file", filename="file", size=4, digest=Digest.of(b"data"))
    files = Materials(files={pin.digest: data}, scratch=tmp_path)
    layer = store.derive(DataRecipe(pin=pin), files)
    platform = Platform.host()
    manifests = [
        assemble(
            store,
            project=Project(root=tmp_path, name="mnist", environment=environment),
            platform=platform,
            layers=(layer,),
            variant=name,
        )
        for name, environment in (("cpu", {}), ("cu130", {"CUDA_VERSION": "13.0"}))
    ]
    store.tag("mnist", index(store, manifests))
    monkeypatch.setattr(choose, "choose", lambda *_, **__: Engine())
    options = target.Options(
        engine="native",
        gpus=Gpus.parse("auto"),
        platform=platform,
        variant=None,
        network=False,
        processors=None,
        memory=None,
        variables=variables,
    )
    ready = target.prepare("mnist", options, SILENT)
    assert (ready.image.labels[VARIANT], str(ready.gpus)) == (variant, gpus)
