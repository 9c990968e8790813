"""Which GPUs a program gets, and how engines are told."""

import json
from pathlib import Path

import pytest

from torchship.engines import gpu
from torchship.engines.gpu import Gpus, decide, docker_arguments, podman_arguments
from torchship.engines.nvidia import Machine
from torchship.errors import EngineError, UsageError

BARE = Machine()
GPU = Machine(driver="580.65.06", gpus=(Path("/dev/nvidia0"), Path("/dev/nvidia1")))
OLD = Machine(driver="535.104.05", gpus=GPU.gpus)
NONE = Gpus()
ALL = Gpus.parse("all")


@pytest.fixture(autouse=True)
def specified(tmp_path, monkeypatch):
    """Give a machine's CDI specification the devices that are named; none at first."""
    folder = tmp_path / "cdi"
    folder.mkdir()
    monkeypatch.setenv("TORCHSHIP_CDI_DIRS", str(folder))

    def write(*names):
        edits = {"deviceNodes": [{"path": "/dev/null"}]}
        devices = [{"name": name, "containerEdits": edits} for name in names]
        document = {"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": devices}
        (folder / "gpu.json").write_text(json.dumps(document))

    return write


@pytest.fixture
def hook(tmp_path, monkeypatch):
    """Install the hook of NVIDIA's container toolkit."""
    program = tmp_path / "bin" / "nvidia-container-runtime-hook"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.mark.parametrize("text", ["auto", "none", "all", "1", "8", "device=0,2", "device=0:1"])
def test_what_was_asked_for_is_written_as_it_was_read(text):
    """In the words of the command line."""
    assert str(Gpus.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "two", "-1", "1.5", "129", "٣", "device=", "device=a", "device=0,", "device=0;x", "0,1"],
)
def test_what_is_no_choice_of_gpus_is_a_usage_error(text):
    """With the forms that there are."""
    with pytest.raises(UsageError, match="--gpus"):
        Gpus.parse(text)


def test_only_what_asks_for_a_gpu_is_true():
    """Not none, not 0, and not auto, which is undecided."""
    assert not any(map(Gpus.parse, ("none", "0", "auto")))
    assert all(map(Gpus.parse, ("all", "1", "device=0", "device=GPU-a0c1-11", "device=0,0")))


@pytest.mark.parametrize("machine", [BARE, GPU, OLD])
@pytest.mark.parametrize("engine", ["docker", "podman", "native"])
def test_an_image_without_cuda_gets_no_gpu_by_itself(machine, engine):
    """Whatever the machine has; and nothing is said of it."""
    assert decide(Gpus.parse("auto"), None, engine, machine) == gpu.Decision(gpus=NONE)


@pytest.mark.parametrize("engine", ["docker", "podman", "native"])
def test_an_image_with_cuda_runs_on_the_cpu_of_a_machine_without_gpu(engine):
    """And one line tells so."""
    decision = decide(Gpus.parse("auto"), "13.0", engine, BARE)
    assert decision.gpus == NONE
    assert decision.said == "this machine has no NVIDIA GPU: the program runs on the CPU"


def test_none_is_none_and_is_never_looked_into():
    """Also on a machine whose driver is too old."""
    assert decide(NONE, "13.0", "native", OLD) == gpu.Decision(gpus=NONE)


@pytest.mark.parametrize("engine", ["docker", "podman", "native"])
def test_auto_takes_all_gpus_where_the_engine_can(engine, specified):
    """An image with CUDA on a machine with GPUs and their specification."""
    specified("0", "1", "all")
    assert decide(Gpus.parse("auto"), "13.0", engine, GPU) == gpu.Decision(gpus=ALL)


@pytest.mark.parametrize("engine", ["docker", "podman", "native"])
def test_auto_tells_why_a_gpu_is_left_unused(engine):
    """The engine's lack, and its fix, in the one line."""
    decision = decide(Gpus.parse("auto"), "13.0", engine, GPU)
    assert decision.gpus == NONE
    assert "runs on the CPU" in decision.said
    assert "nvidia-ctk" in decision.said


@pytest.mark.parametrize("text", ["all", "1", "device=0"])
@pytest.mark.parametrize("engine", ["docker", "podman", "native"])
def test_gpus_that_are_asked_for_and_not_there_are_an_error(text, engine):
    """Never a run on the CPU, which would take days."""
    with pytest.raises(EngineError, match="no NVIDIA GPU") as caught:
        decide(Gpus.parse(text), "13.0", engine, BARE)
    assert "--gpus none" in caught.value.hint


def test_a_driver_without_a_gpu_is_told_apart():
    """Its device nodes may be missing."""
    with pytest.raises(EngineError, match=r"580\.65\.06 is loaded, and finds no GPU"):
        decide(ALL, None, "native", Machine(driver="580.65.06"))


@pytest.mark.parametrize(
    ("engine", "said", "fix"),
    [
        ("docker", "container toolkit is not installed", "nvidia-ctk runtime configure"),
        ("podman", "Podman passes GPUs on by CDI", "nvidia-ctk cdi generate"),
        ("native", "the native engine passes GPUs on by CDI", "nvidia-ctk cdi generate"),
    ],
)
def test_what_an_engine_lacks_is_told_with_the_fix(engine, said, fix):
    """On a machine that has the driver and nothing else."""
    with pytest.raises(EngineError, match=said) as caught:
        decide(ALL, "13.0", engine, GPU)
    assert fix in caught.value.hint


@pytest.mark.parametrize("engine", ["podman", "native"])
def test_a_specification_that_cannot_be_read_is_told_instead(engine, tmp_path):
    """Generating one is no advice to somebody who has."""
    (tmp_path / "cdi" / "nvidia.yaml").write_text("kind: [")
    with pytest.raises(EngineError, match=r"nvidia\.yaml: the file: is no YAML"):
        decide(ALL, None, engine, GPU)


@pytest.mark.parametrize("text", ["auto", "all", "1"])
def test_a_driver_that_is_too_old_is_an_error(text, specified):
    """Also for auto: whoever has a GPU wants to know why it is not used."""
    specified("0", "all")
    with pytest.raises(EngineError, match="needs NVIDIA driver 580"):
        decide(Gpus.parse(text), "13.0", "native", OLD)
    assert decide(Gpus.parse(text), "12.8", "native", OLD).gpus


@pytest.mark.parametrize("text", ["auto", "all", "1"])
def test_a_driver_is_not_checked_where_that_is_not_wanted(text, specified):
    """What else is lacking is told all the same."""
    with pytest.raises(EngineError, match="no NVIDIA GPU"):
        decide(ALL, "13.0", "native", BARE, checked=False)
    specified("0", "all")
    assert decide(Gpus.parse(text), "13.0", "native", OLD, checked=False).gpus


def test_an_image_that_does_not_tell_its_cuda_gets_the_gpus_asked_for(specified):
    """Its program may know more."""
    specified("0", "all")
    assert decide(ALL, None, "native", OLD) == gpu.Decision(gpus=ALL)


def test_more_gpus_than_there_are_is_an_error(specified):
    """With how many there are."""
    specified("0", "1", "all")
    assert decide(Gpus.parse("2"), None, "native", GPU).gpus
    with pytest.raises(EngineError, match="3 GPUs are asked for, and this machine has 2"):
        decide(Gpus.parse("3"), None, "native", GPU)


def test_dockers_hook_takes_dockers_words(hook, specified):
    """The toolkit's hook is what most machines have; it works with every Docker since 19.03."""
    specified("0", "all")
    assert docker_arguments(ALL) == ("--gpus", "all")
    assert docker_arguments(Gpus.parse("2")) == ("--gpus", "2")
    assert docker_arguments(Gpus.parse("device=0,1")) == ("--gpus", '"device=0,1"')


def test_no_gpu_is_said_to_nvidias_runtime(hook):
    """As Docker's default runtime it would pass all GPUs on: images ask for them in a variable."""
    assert docker_arguments(NONE) == ("--env", "NVIDIA_VISIBLE_DEVICES=void")


def test_docker_without_the_toolkit_is_told_of_no_gpu(specified):
    """There is nothing that could pass one on unasked."""
    specified("0", "all")
    assert docker_arguments(NONE) == ()


def test_docker_is_told_cdis_names_where_only_they_are_there(specified):
    """As Docker takes them since 25."""
    specified("0", "1", "all")
    assert docker_arguments(ALL) == ("--device", "nvidia.com/gpu=all")
    assert docker_arguments(Gpus.parse("1")) == ("--device", "nvidia.com/gpu=0")


def test_docker_without_any_specification_is_told_in_its_own_words():
    """Docker 29 finds out by itself; another says what it lacks."""
    assert docker_arguments(ALL) == ("--gpus", "all")


def test_podman_is_told_cdis_names(specified):
    """All, the first ones by their numbers, or those that were named."""
    specified("all", "10", "2", "0", "GPU-4cf8db2d")
    assert podman_arguments(NONE) == ()
    assert podman_arguments(ALL) == ("--device", "nvidia.com/gpu=all")
    assert podman_arguments(Gpus.parse("2")) == (
        *("--device", "nvidia.com/gpu=0"),
        *("--device", "nvidia.com/gpu=2"),
    )
    assert podman_arguments(Gpus.parse("device=10,0"))[1::2] == (
        "nvidia.com/gpu=10",
        "nvidia.com/gpu=0",
    )
    with pytest.raises(EngineError, match=r"4 GPUs .* the CDI specifications name 3"):
        podman_arguments(Gpus.parse("4"))


def test_specifications_without_numbers_and_without_all_are_taken_by_their_names(specified):
    """nvidia-ctk can name GPUs by UUID alone."""
    specified("GPU-b", "GPU-a")
    assert podman_arguments(ALL)[1::2] == ("nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b")
    assert podman_arguments(Gpus.parse("1"))[1::2] == ("nvidia.com/gpu=GPU-a",)
