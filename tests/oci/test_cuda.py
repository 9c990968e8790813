"""What an image says of its CUDA."""

from types import SimpleNamespace

import pytest

from torchship.digest import Digest
from torchship.layers.layer import ORIGIN, Layer
from torchship.oci import cuda


def layer(*wheels: str) -> Layer:
    """Return a layer whose annotation names wheels."""
    named = " ".join(f"wheel:{wheel}@{Digest.of(wheel.encode())}" for wheel in wheels)
    return Layer(
        digest=Digest.of(b"l"),
        diff_id=Digest.of(b"d"),
        size=1,
        unpacked_size=1,
        annotations={ORIGIN: named} if wheels else {},
    )


def image(*layers, labels=(), environment=()):
    """Return what is looked at of an image."""
    return SimpleNamespace(
        layers=layers, labels=dict(labels), environment=dict(environment), raw_config=b""
    )


@pytest.mark.parametrize(
    ("wheels", "version"),
    [
        (["nvidia_cuda_runtime_cu12-12.8.90-py3-none-manylinux2014_x86_64.whl"], "12.8"),
        (["nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl"], "13.0"),
        (["torch-2.7.1+cu118-cp311-cp311-manylinux_2_28_x86_64.whl"], "11.8"),
        (["torch-2.13.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl"], "13.0"),
        (["torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"], None),
        (["torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl"], None),
        (["numpy-2.3.0-cp311-cp311-manylinux_2_28_x86_64.whl"], None),
        ([], None),
    ],
)
def test_wheels_tell_the_version(wheels, version):
    """The runtime's wheel says it, or torch's local version; a CPU build has none."""
    assert cuda.of_layers([layer("six-1.17.0-py2.py3-none-any.whl", *wheels)]) == version


def test_the_runtimes_wheel_counts_before_torchs():
    """Whatever stands lower in the image."""
    torch = layer("torch-2.9.0+cu126-cp311-cp311-linux_x86_64.whl")
    runtime = layer("nvidia_cuda_runtime_cu12-12.6.77-py3-none-manylinux2014_x86_64.whl")
    assert cuda.of_layers([torch, runtime]) == "12.6"


def test_the_label_counts_first_then_nvidias_own_variable():
    """An image that lost its annotations has its label; a base of NVIDIA's has CUDA_VERSION."""
    runtime = layer("nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl")
    set_by_base = {"CUDA_VERSION": "12.4.1"}
    assert cuda.of_image(image(runtime)) == "13.0"
    assert cuda.of_image(image(layer(), labels={cuda.LABEL: "12.8"})) == "12.8"
    assert cuda.of_image(image(environment=set_by_base)) == "12.4"
    assert cuda.of_image(image(labels={cuda.LABEL: "13.0"}, environment=set_by_base)) == "13.0"


def test_what_is_no_version_says_nothing():
    """Labels are anybody's words."""
    assert cuda.of_image(image(labels={cuda.LABEL: "13.0; rm -rf /"})) is None
    assert cuda.of_image(image(environment={"CUDA_VERSION": "yes"})) is None
