"""CDI specifications: what is read, and how faults are told."""

import json
import textwrap
from pathlib import Path

import pytest

from torchship.engines import cdi
from torchship.engines.cdi import DeviceNode, Mount, Registry
from torchship.errors import EngineError

# The shape of what `nvidia-ctk cdi generate` writes.
NVIDIA = """\
    ---
    cdiVersion: 0.5.0
    kind: nvidia.com/gpu
    devices:
    - name: "0"
      containerEdits:
        deviceNodes:
        - path: /dev/nvidia0
    - name: "10"
      containerEdits:
        deviceNodes:
        - path: /dev/nvidia10
          hostPath: /driver/dev/nvidia10
    - name: "2"
      containerEdits:
        deviceNodes:
        - path: /dev/nvidia2
    - name: all
      containerEdits:
        deviceNodes:
        - path: /dev/nvidia0
        - path: /dev/nvidia2
    containerEdits:
      env:
      - NVIDIA_VISIBLE_DEVICES=void
      deviceNodes:
      - path: /dev/nvidiactl
      hooks:
      - hookName: createContainer
        path: /usr/bin/nvidia-cdi-hook
        args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib64]
        env: [NVIDIA_CTK_DEBUG=false]
      mounts:
      - hostPath: /usr/lib64/libcuda.so.580.65.06
        containerPath: /usr/lib64/libcuda.so.580.65.06
        options: [ro, nosuid, nodev, rbind, rprivate]
    """


def written(folder: Path, text: str, name: str = "nvidia.yaml") -> Path:
    """Write a specification."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def minimal(**changes) -> dict:
    """Return a specification as JSON has it, with fields of the top changed."""
    edits = {"deviceNodes": [{"path": "/dev/nvidia0"}]}
    return {
        "cdiVersion": "1.0.0",
        "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": edits}],
        **changes,
    }


def fault_of(tmp_path, document) -> str:
    """Return what is said of a specification that breaks a rule."""
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(document))
    with pytest.raises(EngineError) as caught:
        cdi.read(path)
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")


def test_a_device_brings_the_files_common_edits_and_its_own(tmp_path):
    """Common edits come once, whatever the number of devices, and first."""
    path = written(tmp_path, NVIDIA)
    found = Registry.load([tmp_path]).edits("nvidia.com/gpu", ["0", "10"])
    assert [(each.path, each.field) for each in found] == [
        (path, "containerEdits"),
        (path, "devices[0].containerEdits"),
        (path, "devices[1].containerEdits"),
    ]
    common, first, second = (each.edits for each in found)
    assert common.env == ("NVIDIA_VISIBLE_DEVICES=void",)
    assert common.hooks[0].args[1:] == ("update-ldcache", "--folder", "/usr/lib64")
    assert common.mounts == (
        Mount(
            host_path="/usr/lib64/libcuda.so.580.65.06",
            container_path="/usr/lib64/libcuda.so.580.65.06",
            options=("ro", "nosuid", "nodev", "rbind", "rprivate"),
        ),
    )
    assert first.device_nodes == (DeviceNode(path="/dev/nvidia0"),)
    assert second.device_nodes[0].source == "/driver/dev/nvidia10"


def test_devices_are_listed_by_number_then_by_name(tmp_path):
    """So that the first two of ten are 0 and 1, not 0 and 10."""
    written(tmp_path, NVIDIA)
    assert Registry.load([tmp_path]).names("nvidia.com/gpu") == ("0", "2", "10", "all")
    assert Registry.load([tmp_path]).names("amd.com/gpu") == ()


def test_yaml_and_json_say_the_same(tmp_path):
    """A specification may be either, by its file's name."""
    as_json = tmp_path / "a.json"
    as_json.write_text(json.dumps(minimal()))
    as_yaml = written(
        tmp_path,
        """\
        cdiVersion: "1.0.0"
        kind: nvidia.com/gpu
        devices:
          - name: "0"
            containerEdits: {deviceNodes: [{path: /dev/nvidia0}]}
        """,
    )
    assert cdi.read(as_json) == cdi.read(as_yaml)


def test_a_later_directory_overrides_an_earlier_one(tmp_path):
    """What was generated at boot counts before what an administrator once wrote."""
    static, generated = tmp_path / "etc", tmp_path / "run"
    for folder, node in ((static, "/dev/old"), (generated, "/dev/new")):
        folder.mkdir()
        edits = {"deviceNodes": [{"path": node}]}
        document = minimal(devices=[{"name": "0", "containerEdits": edits}])
        (folder / "gpu.json").write_text(json.dumps(document))
    found = Registry.load([static, generated])
    assert found.edits("nvidia.com/gpu", ["0"])[-1].edits.device_nodes[0].path == "/dev/new"
    assert not found.faults


def test_a_device_that_stands_in_two_files_is_a_fault(tmp_path):
    """Of one directory; which of them counts would be chance."""
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(minimal()))
    (fault,) = Registry.load([tmp_path]).faults
    path = tmp_path / "b.json"
    assert fault.message == (
        f"{path}: devices[0].name: nvidia.com/gpu=0 is also in {tmp_path / 'a.json'}"
    )


def test_a_fault_in_one_file_hides_no_other(tmp_path):
    """But is told where the device that is asked for is in none."""
    written(tmp_path, NVIDIA)
    (tmp_path / "broken.json").write_text("{")
    found = Registry.load([tmp_path])
    assert len(found.faults) == 1
    assert found.edits("nvidia.com/gpu", ["all"])
    with pytest.raises(EngineError, match=r"broken\.json: the file: is no JSON"):
        found.edits("nvidia.com/gpu", ["7"])


def test_a_device_that_is_nowhere_is_told_with_those_that_are(tmp_path):
    """With nothing at all, too."""
    written(tmp_path, NVIDIA)
    with pytest.raises(EngineError, match=r"nvidia\.com/gpu=7; .* there are: 0, 2, 10, all"):
        Registry.load([tmp_path]).edits("nvidia.com/gpu", ["7"])
    with pytest.raises(EngineError, match="there are: none"):
        Registry.load([tmp_path / "nowhere"]).edits("nvidia.com/gpu", ["7"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cdiVersion": "9.0.0"}, "cdiVersion: '9.0.0' is none of the versions"),
        ({"kind": "gpu"}, "kind: 'gpu' is not of the form vendor.com/class"),
        ({"devices": []}, "devices: there must be at least one"),
        ({"devices": [{"name": "0"}]}, "devices[0]: Object missing required field"),
        ({"devices": [{"name": 0}]}, "devices[0].name: Expected `str`, got `int`"),
        ({"device": []}, "the file: Object contains unknown field `device`"),
        ({"devices": [{"name": "0", "containerEdits": {}}]}, "devices[0].containerEdits: is empty"),
    ],
)
def test_a_fault_at_the_top_is_told_with_its_place(tmp_path, change, said):
    """The file, the path of the field, and what is wrong with it."""
    assert fault_of(tmp_path, minimal(**change)).startswith(said)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ({"env": ["A=1", "=x"]}, "env[1]: '=x' is not of the form NAME=VALUE"),
        ({"deviceNodes": [{"path": "dev/null"}]}, "deviceNodes[0].path: 'dev/null' is no absolute"),
        ({"deviceNodes": [{"path": "/dev/x", "type": "f"}]}, "deviceNodes[0].type: 'f' is none"),
        ({"deviceNodes": [{"path": "/dev/../x"}]}, "deviceNodes[0].path: '/dev/../x' is no place"),
        (
            {"deviceNodes": [{"path": "/dev/x", "permissions": "rx"}]},
            "deviceNodes[0].permissions: 'rx'",
        ),
        ({"mounts": [{"hostPath": "/a"}]}, "mounts[0]: Object missing required field"),
        ({"mounts": [{"hostPath": "", "containerPath": "/a"}]}, "mounts[0].hostPath: is empty"),
        ({"mounts": [{"hostPath": "/a", "containerPath": "/"}]}, "mounts[0].containerPath: '/'"),
        ({"hooks": [{"hookName": "late", "path": "/x"}]}, "hooks[0].hookName: 'late' is none of"),
        ({"hooks": [{"hookName": "poststop", "path": "x"}]}, "hooks[0].path: 'x' is no absolute"),
    ],
)
def test_a_fault_in_the_edits_is_told_with_its_place(tmp_path, edits, said):
    """Of a device, and of the file as a whole."""
    assert fault_of(tmp_path, minimal(containerEdits=edits)).startswith(f"containerEdits.{said}")
    devices = minimal(devices=[{"name": "0", "containerEdits": edits}])
    assert fault_of(tmp_path, devices).startswith(f"devices[0].containerEdits.{said}")


@pytest.mark.parametrize(
    ("version", "change", "said"),
    [
        ("0.4.0", {}, "devices[0].name: a name that starts with a digit came with version 0.5.0"),
        ("0.5.0", {"annotations": {"a": "b"}}, "annotations: annotations came with version 0.6.0"),
        (
            "0.6.0",
            {"containerEdits": {"additionalGids": [44]}},
            "containerEdits.additionalGids: additionalGids came with version 0.7.0",
        ),
        (
            "1.0.0",
            {"containerEdits": {"netDevices": [{"hostInterfaceName": "a", "name": "b"}]}},
            "containerEdits.netDevices: netDevices came with version 1.1.0",
        ),
    ],
)
def test_a_field_that_is_newer_than_the_stated_version_is_refused(tmp_path, version, change, said):
    """As other engines do: what wrote the file is confused."""
    assert fault_of(tmp_path, minimal(cdiVersion=version, **change)).startswith(said)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """PyYAML alone would take the last one silently."""
    path = written(tmp_path, NVIDIA + "\n    kind: nvidia.com/gpu\n")
    with pytest.raises(EngineError, match=r"nvidia\.yaml: kind: stands twice"):
        cdi.read(path)


@pytest.mark.parametrize(
    "text", ["a: [", "", "- 1", "!!python/object:os.system x", "? [a]\n: b", "a: &a [*a]"]
)
def test_what_is_no_specification_is_told_as_that(tmp_path, text):
    """Broken YAML, an empty file, another shape, a tag that would run code, an endless one."""
    with pytest.raises(EngineError, match=r"nvidia\.yaml: (the file|a\[0\]): ") as caught:
        cdi.read(written(tmp_path, text))
    assert "nvidia-ctk cdi generate" in caught.value.hint


def test_other_files_of_a_directory_are_left_alone(tmp_path):
    """Editors leave backups, packages leave READMEs."""
    written(tmp_path, NVIDIA)
    (tmp_path / "nvidia.yaml~").write_text("{")
    (tmp_path / "README").write_text("{")
    (tmp_path / "folder.json").mkdir()
    assert not Registry.load([tmp_path]).faults


def test_directories_can_be_named_in_the_environment(tmp_path):
    """For those who may not write into /etc/cdi."""
    assert cdi.directories({}) == (Path("/etc/cdi"), Path("/var/run/cdi"))
    assert cdi.directories({cdi.VARIABLE: f"{tmp_path}:/x"}) == (tmp_path, Path("/x"))
