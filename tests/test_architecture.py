"""The shape of the tree: data flows one way, and each effect has one home."""

import ast
from pathlib import Path

import pytest

import torchship

ROOT = Path(torchship.__file__).parent
FLOW = ("project", "layers", "oci", "engines", "runs", "launch", "export")
GROUND = {"errors", "discreet", "digest", "canonical", "platform", "progress", "amounts", "whole"}
# what stands in scripts is never imported: an image's own Python runs it, in a container
APART = {"templates", "scripts"}
MODULES = sorted(path for path in ROOT.rglob("*.py") if not APART & set(path.parts))


def imports(path: Path) -> set[str]:
    """Return the dotted names that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def name(path: Path) -> str:
    """Write a module as the rules name it: ``layers/archive``."""
    return path.relative_to(ROOT).with_suffix("").as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_folder_imports_only_from_folders_to_its_left(path):
    """Data flows from project to runs; what is needed on the left knows nothing of the right."""
    folder = path.relative_to(ROOT).parts[0]
    if folder not in FLOW:
        return
    allowed = set(FLOW[: FLOW.index(folder) + 1]) | GROUND | {"__version__"}
    ours = {target.split(".")[1] for target in imports(path) if target.startswith("torchship.")}
    assert ours <= allowed


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_the_ground_stands_on_nothing_but_itself(path):
    """Errors, digests and platforms import none of the folders."""
    if name(path) not in GROUND:
        return
    ours = {target.split(".")[1] for target in imports(path) if target.startswith("torchship.")}
    assert ours <= GROUND


def homes(*modules: str) -> set[str]:
    """Return the modules of ours that import any of these."""
    return {
        name(path)
        for path in MODULES
        if any(
            target == module or target.startswith(f"{module}.")
            for target in imports(path)
            for module in modules
        )
    }


def test_tar_headers_are_written_in_one_place():
    """Only archive formats tar headers; unpack reads foreign ones, the base reads Debian's."""
    writers = {
        name(path)
        for path in MODULES
        if any(
            isinstance(node, ast.Attribute) and node.attr in ("tobuf", "addfile", "gettarinfo")
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    assert writers <= {"layers/archive"}


def closure(path: Path) -> set[str]:
    """Return what a module's import brings in, its own modules and those of others."""
    found, waiting = set(), {f"torchship.{name(path).replace('/', '.')}"}
    while waiting:
        found |= waiting
        ours = [ROOT.parent / f"{each.replace('.', '/')}.py" for each in waiting]
        waiting = {each for file in ours if file.is_file() for each in at_once(file)} - found
    return found


def at_once(path: Path) -> set[str]:
    """Return what a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_sockets_are_opened_only_where_files_come_from_and_images_go():
    """The network is reached from the fetcher and the registry client alone."""
    # a pair of connected sockets between us and a container reaches no network
    pairs = {"engines/container", "engines/relay"}
    # asks the kernel which of its addresses others see: nothing is sent
    asks = {"engines/hosts"}
    assert homes("urllib3", "socket", "http", "urllib.request", "ssl") - pairs - asks <= {
        "project/fetch/attempt",
        "oci/registry/client",
        "oci/registry/transport",
        "oci/auth",
    }
    # signatures are made and checked by a library that speaks to its own services
    assert homes("sigstore", "requests") <= {"runs/signature"}


def test_processes_are_started_only_by_resolvers_helpers_and_engines():
    """Nothing else runs another program."""
    started = homes("subprocess", "pty")
    assert {place for place in started if not place.startswith("engines/")} <= {
        "project/uv",
        "project/apt",
        "project/revision",  # asks git
        "oci/auth",
        "launch/kubernetes/kubectl",
    }
    # layers are made by workers, which run this very program
    assert homes("multiprocessing", "concurrent.futures.process") <= {"derive"}
    forks = {path for path in MODULES if attributes(path) & {"fork", "execve", "posix_spawn"}}
    assert {name(path) for path in forks} <= {"engines/sandbox", "engines/program"}


def test_values_are_structs():
    """Dataclasses are what is published as JSON, and nobody else copies one (decision 14)."""
    using = {name(path) for path in MODULES if "dataclasses" in imports(path)}
    assert {module for module in using if not module.startswith("runs/")} <= {"cli/launch"}


def attributes(path: Path) -> set[str]:
    """Return every name that stands behind a dot in a module."""
    tree = ast.walk(ast.parse(path.read_text()))
    return {node.attr for node in tree if isinstance(node, ast.Attribute)}


def test_only_the_command_line_prints_and_exits():
    """A library that prints cannot be used as one."""
    for path in MODULES:
        if name(path).startswith("cli/") or name(path) == "layers/compile_script":
            continue
        if name(path) != "display":  # the live display of progress
            assert not uses_streams(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit"), f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and node.attr == "exit":
                assert not (isinstance(node.value, ast.Name) and node.value.id == "sys"), path


def uses_streams(path: Path) -> bool:
    """Tell whether a module names ``sys.stdout`` or ``sys.stderr``."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("stdout", "stderr")
        and isinstance(node.value, ast.Name)
        and node.value.id == "sys"
        for node in ast.walk(ast.parse(path.read_text()))
    )


def test_hashed_json_is_encoded_in_one_place():
    """JSON is encoded in canonical alone, so that no second spelling can be hashed."""
    # Docker's own file of passwords, and a crate's description for people: nobody hashes these
    plain = {"canonical", "oci/auth", "export/crate"}
    for path in MODULES:
        if name(path) in plain or name(path).startswith("cli/"):
            continue
        assert not attributes(path) & {"JSONEncoder", "Encoder"}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("dumps", "dump"):
                owner = node.value.id if isinstance(node.value, ast.Name) else ""
                assert owner != "json", f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and node.attr in ("encode", "format"):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
                assert owner != "json", f"{path}:{node.lineno}"  # msgspec.json.encode


def test_nothing_imports_torch():
    """The tool ships torch; it never needs it."""
    assert homes("torch") == set()


def test_the_verdict_needs_neither_network_nor_clock():
    """Two records give the same verdict anywhere, at any time."""
    brought = closure(ROOT / "runs" / "verdict.py")
    assert "torchship.runs.record" in brought
    assert not brought & {"time", "random", "socket", "ssl", "urllib3", "subprocess"}
    assert not imports(ROOT / "runs" / "verdict.py") & {"datetime", "os"}


def test_every_module_is_read_in_one_sitting():
    """A file that grows past 400 lines is two files."""
    long = {name(path): n for path in MODULES if (n := len(path.read_text().splitlines())) > 400}
    assert not long
