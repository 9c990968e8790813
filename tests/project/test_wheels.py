"""Wheels, resolved and located by the real uv: offline from folders, and on the real index."""

from __future__ import annotations

import http.server
import threading

import pytest
from msgspec.structs import replace
from tests.wheels import make_index, make_wheel

from torchship.digest import Digest
from torchship.errors import IndexUnreachable, ResolveError
from torchship.platform import Platform
from torchship.project.lock import WheelPin
from torchship.project.target import Target
from torchship.project.wheels import locate, pin

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


@pytest.fixture
def shelf(machine, monkeypatch, tmp_path):
    """Give a folder of wheels that is all that pip, and so uv, is set to look at."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def measured(url):
    """Fail: files in folders have a size already."""
    raise AssertionError(url)


def pins(project, platform=AMD64, *, preferred=None, base="debian:bookworm"):
    """Resolve a project, with the first build of torch that it names."""
    target = Target.of(platform, "3.11.2", base)
    build = project.torch[0]
    return pin(project, target, build=build, preferred=preferred or {}, measure=measured)


def pins_measured(one):
    """Resolve a project from an index that states no sizes."""
    target = Target.of(AMD64, "3.11.2", one.base)
    return pin(one, target, preferred={}, measure=lambda url: 1)


def names(found):
    """Return what was pinned, in short."""
    return [f"{one.name} {one.version}" for one in found]


def test_requirements_become_pins_of_files(shelf, project):
    """A pin has the file's own name, size and sha256, and so do the pins of what it needs."""
    top = make_wheel(
        shelf, "Top-Level", "1.0", requires=["leaf>=2", "absent; sys_platform=='win32'"]
    )
    make_wheel(shelf, "leaf", "1.0")
    leaf = make_wheel(shelf, "leaf", "2.5")
    found = pins(project(requirements__txt="top.level  # the newest\n"))
    assert found == tuple(
        WheelPin(
            name=name,
            version=version,
            filename=path.name,
            size=path.stat().st_size,
            digest=Digest.of_file(path),
        )
        for name, version, path in (("leaf", "2.5", leaf), ("top-level", "1.0", top))
    )


def test_a_requirement_that_goes_on_is_resolved_as_pip_would(shelf, project):
    """A backslash joins lines for pip, and for uv only before hashes."""
    make_wheel(shelf, "leaf", "2.5")
    assert names(pins(project(requirements__txt="leaf \\\n  >= 2\n"))) == ["leaf 2.5"]


def test_a_project_without_requirements_has_no_pins(shelf, project):
    """Nothing is asked of uv."""
    assert pins(project()) == ()
    assert pins(project(requirements__txt="# nothing\n")) == ()


def test_each_platform_gets_its_own_wheel(shelf, project):
    """Tags and markers are the target's, not this machine's."""
    for tag in (
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_17_aarch64",
        "cp312-cp312-manylinux_2_17_x86_64",
        "cp311-cp311-macosx_11_0_arm64",
    ):
        make_wheel(shelf, "native", "1.0", tag=tag)
    make_wheel(shelf, "onarm", "1.0")
    one = project(requirements__txt="native\nonarm; platform_machine == 'aarch64'\n")
    assert [found.filename for found in pins(one)] == [
        "native-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"
    ]
    assert [found.filename for found in pins(one, ARM64)] == [
        "native-1.0-cp311-cp311-manylinux_2_17_aarch64.whl",
        "onarm-1.0-py3-none-any.whl",
    ]


def test_the_most_specific_wheel_is_taken(shelf, project):
    """Of several that fit, the newest C library's and the very Python's is the best."""
    for tag in (
        "py3-none-any",
        "cp37-abi3-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_39_x86_64",
    ):
        make_wheel(shelf, "native", "1.0", tag=tag)
    one = project(requirements__txt="native\n")
    assert pins(one)[0].filename == "native-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert "2_39" in pins(one, base="debian:trixie")[0].filename


def test_earlier_versions_are_kept_while_they_fit(shelf, project):
    """A new release moves nothing on its own; a new requirement does."""
    make_wheel(shelf, "leaf", "1.0")
    make_wheel(shelf, "leaf", "2.0")
    assert names(pins(project(requirements__txt="leaf"), preferred={"leaf": "1.0"})) == ["leaf 1.0"]
    assert names(pins(project(requirements__txt="leaf>1"), preferred={"leaf": "1.0"})) == [
        "leaf 2.0"
    ]
    assert names(pins(project(requirements__txt="leaf"), preferred={"leaf": "0.5"})) == ["leaf 2.0"]


def test_dependencies_of_a_pyproject_are_resolved(shelf, project):
    """[project] stands for requirements.txt."""
    make_wheel(shelf, "leaf", "1.0")
    text = '[project]\nname = "x"\nversion = "1"\ndependencies = ["leaf>=1"]\n'
    assert names(pins(project(text))) == ["leaf 1.0"]


def test_a_pylock_is_taken_as_it_is(machine, project, tmp_path):
    """A lock of another tool's is read, for the target's platform."""
    path = make_wheel(tmp_path, "leaf", "1.0")
    text = f"""
    lock-version = "1.0"
    created-by = "someone"
    [[packages]]
    name = "leaf"
    version = "1.0"
    wheels = [{{ url = "{path.as_uri()}", hashes = {{ sha256 = "{Digest.of_file(path).hex}" }} }}]
    [[packages]]
    name = "winonly"
    version = "1.0"
    marker = "sys_platform == 'win32'"
    sdist = {{ url = "https://h.invalid/winonly-1.0.tar.gz", hashes = {{ sha256 = "{"0" * 64}" }} }}
    """
    one = project(pylock__toml=text)
    found = pins(one)
    assert names(found) == ["leaf 1.0"]
    assert found[0].size == path.stat().st_size
    assert locate(found, AMD64, "3.11.2", project=one) == {path.name: (path.as_uri(),)}


def test_the_project_in_a_pylock_is_no_wheel(machine, project, tmp_path):
    """As `uv export` writes it; another directory is one that would have to be built."""
    path = make_wheel(tmp_path, "leaf", "1.0")
    text = f"""
    lock-version = "1.0"
    created-by = "uv"
    [[packages]]
    name = "mine"
    directory = {{ path = ".", editable = true }}
    [[packages]]
    name = "leaf"
    version = "1.0"
    wheels = [{{ url = "{path.as_uri()}", hashes = {{ sha256 = "{Digest.of_file(path).hex}" }} }}]
    """
    one = project(pylock__toml=text)
    found = pins(one)
    assert names(found) == ["leaf 1.0"]
    assert list(locate(found, AMD64, "3.11.2", project=one)) == [path.name]
    with pytest.raises(ResolveError, match="mine has no wheel"):
        pins(project(pylock__toml=text.replace('path = "."', 'path = "sub"')))


def test_of_several_builds_of_a_version_the_last_is_taken(shelf, project):
    """By its number, as pip does, and after the tags."""
    for build in ("", "1-", "2-", "10-", "9a-"):
        make_wheel(shelf, "leaf", "1.0", tag=f"{build}py3-none-any")
    make_wheel(shelf, "native", "1.0", tag="5-py3-none-any")
    make_wheel(shelf, "native", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    found = pins(project(requirements__txt="leaf\nnative\n"))
    assert [one.filename for one in found] == [
        "leaf-1.0-10-py3-none-any.whl",
        "native-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
    ]


def test_the_hash_of_a_requirement_is_held_to(shelf, project):
    """A file that the requirement's --hash does not allow is never pinned."""
    path = make_wheel(shelf, "leaf", "1.0")
    good, bad = Digest.of_file(path).hex, "0" * 64
    assert pins(project(requirements__txt=f"leaf==1.0 --hash=sha256:{bad} --hash=sha256:{good}"))
    with pytest.raises(ResolveError, match=r"no wheel of leaf 1\.0 has a sha256"):
        pins(project(requirements__txt=f"leaf==1.0 --hash=sha256:{bad}"))


def test_a_folder_named_in_the_requirements_counts(machine, monkeypatch, project):
    """--find-links of the project's own is searched, to resolve and to locate."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    one = project(requirements__txt="--find-links ./wheels\nleaf\n")
    path = make_wheel(one.root / "wheels", "leaf", "1.0")
    found = pins(one)
    assert names(found) == ["leaf 1.0"]
    assert locate(found, AMD64, "3.11.2", project=one) == {path.name: (path.as_uri(),)}


def test_indexes_without_the_project_do_no_harm(machine, monkeypatch, project, tmp_path):
    """As for pip, all indexes are alike: the best version of any is taken, absence is no error."""
    old, new = make_wheel(tmp_path / "a", "leaf", "1.0"), make_wheel(tmp_path / "b", "leaf", "2.0")
    other = make_wheel(tmp_path / "c", "other", "1.0")
    monkeypatch.setenv("PIP_INDEX_URL", make_index(tmp_path / "first", [old]))
    more = [make_index(tmp_path / "second", [new]), make_index(tmp_path / "third", [other])]
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", " ".join(more))
    one = project(requirements__txt="leaf\nother\n")
    found = pins(one)
    assert names(found) == ["leaf 2.0", "other 1.0"]
    assert locate(found, AMD64, "3.11.2", project=one) == {
        new.name: (new.as_uri(),),
        other.name: (other.as_uri(),),
    }


def test_a_located_file_is_the_very_one(shelf, project):
    """A file of the same name with other bytes is no answer; what is gone is left out."""
    make_wheel(shelf, "leaf", "1.0")
    for name in ("one", "two", "three"):
        make_wheel(shelf, name, "1.0")
    one = project(requirements__txt="leaf\none\ntwo\nthree\n")
    found = pins(one)
    make_wheel(shelf, "leaf", "1.0", {"leaf.py": b"changed"})
    next(shelf.glob("two-*")).unlink()
    located = locate(found, AMD64, "3.11.2", project=one)
    assert sorted(located) == ["one-1.0-py3-none-any.whl", "three-1.0-py3-none-any.whl"]
    assert locate((), AMD64, "3.11.2") == {}


def test_a_wheel_that_is_no_longer_the_best_is_located(shelf, project):
    """An index that gains a better file for the same version still has the pinned one."""
    make_wheel(shelf, "native", "1.0", tag="cp311-cp311-manylinux_2_17_x86_64")
    one = project(requirements__txt="native")
    found = pins(one)
    make_wheel(shelf, "native", "1.0", tag="cp311-cp311-manylinux_2_28_x86_64")
    assert list(locate(found, AMD64, "3.11.2", project=one)) == [found[0].filename]


def test_the_build_of_torch_is_the_one_asked_for(shelf, project):
    """The user's own folder is asked first, and is enough where it has the build."""
    make_wheel(shelf, "torch", "2.0+cpu", tag="cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(shelf, "plain", "1.0")
    cpu = '[tool.torchship]\ntorch = "cpu"\n'
    one = project(cpu, requirements__txt="torch==2.0")
    found = pins(one)
    assert names(found) == ["torch 2.0+cpu"]
    assert list(locate(found, AMD64, "3.11.2", project=one)) == [found[0].filename]
    assert names(pins(project(cpu, requirements__txt="plain"))) == ["plain 1.0"]


def test_a_folder_with_the_build_is_preferred_to_a_newer_other_build(shelf, project):
    """With torch = "cpu" the +cpu wheel that is there is taken, where the newest is not one."""
    tag = "cp311-cp311-manylinux_2_28_x86_64"
    make_wheel(shelf, "torch", "2.0+cpu", tag=tag)
    make_wheel(shelf, "torch", "2.1+cpu", tag=tag)
    make_wheel(shelf, "torch", "2.2+cpu", tag=tag.replace("cp311", "cp312"))
    make_wheel(shelf, "torch", "2.3", tag=tag, requires=["nvidia-cuda-runtime"])
    make_wheel(shelf, "nvidia-cuda-runtime", "13.0.96")
    make_wheel(shelf, "vision", "1.0", requires=["torch"])
    one = project('[tool.torchship]\ntorch = "cpu"\n', requirements__txt="vision\n")
    assert names(pins(one)) == ["torch 2.1+cpu", "vision 1.0"]


@pytest.fixture
def builds(shelf):
    """Give a folder with two builds of one release of torch, and a newer one for another CUDA."""
    tag = "cp311-cp311-manylinux_2_28_x86_64"
    make_wheel(shelf, "torch", "2.0+cpu", tag=tag)
    make_wheel(shelf, "torch", "2.0", tag=tag, requires=["nvidia-cuda-runtime==13.0.96"])
    make_wheel(shelf, "torch", "2.1", tag=tag, requires=["nvidia-cuda-runtime==13.2.86"])
    make_wheel(shelf, "nvidia-cuda-runtime", "13.0.96")
    make_wheel(shelf, "nvidia-cuda-runtime", "13.2.86")
    return shelf


def test_a_plain_build_is_taken_for_the_cuda_that_it_asks_for(builds, project):
    """An index without local versions: NVIDIA's own packages say which CUDA its torch is for."""

    def of(build, needs):
        return project(f'[tool.torchship]\ntorch = "{build}"\n', requirements__txt=needs)

    assert names(pins(of("cu132", "torch"))) == ["nvidia-cuda-runtime 13.2.86", "torch 2.1"]
    # 2.0+cpu is the best of "torch==2.0" by its version, and left out for its build
    one = of("cu130", "torch==2.0")
    found = pins(one)
    assert names(found) == ["nvidia-cuda-runtime 13.0.96", "torch 2.0"]
    located = locate(found, AMD64, "3.11.2", project=one)
    assert sorted(located) == sorted(pin.filename for pin in found)
    assert names(pins(of("cpu", "torch==2.0"))) == ["torch 2.0+cpu"]
    assert names(pins(of("cpu", "torch"))) == ["torch 2.0+cpu"]


def test_a_plain_build_for_another_cuda_is_told_by_its_version(builds, project):
    """The error names both versions of CUDA, and what to write for the one that is there."""
    one = project('[tool.torchship]\ntorch = "cu130"\n', requirements__txt="torch==2.1")
    said = r"is cu130 \(CUDA 13\.0\), and your indexes give torch for CUDA 13\.2"
    with pytest.raises(ResolveError, match=said) as caught:
        pins(one)
    assert 'torch = "cu132"' in caught.value.hint


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (
            "torch<2.1\n",
            r"requirements\.txt wants torch<2\.1, and what .* for cpu is 2\.6\+cpu, which",
        ),
        ("torch>=1,<2.1\n", r"wants torch>=1,<2\.1, and"),
        (
            "vision\n",
            r"brings vision, which needs torch==2\.0, and .* is 2\.6\+cpu, which does",
        ),
    ],
)
def test_a_build_that_is_there_and_does_not_fit_is_told_with_who_wants_another(
    builds, project, needs, said
):
    """What there is of the build is named, and not denied: the requirements exclude it."""
    next(builds.glob("torch-2.0+cpu-*")).unlink()
    make_wheel(builds, "torch", "2.6+cpu", tag="cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(builds, "vision", "1.0", requires=["torch==2.0"])
    one = project('[tool.torchship]\ntorch = "cpu"\n', requirements__txt=needs)
    with pytest.raises(ResolveError, match=said) as caught:
        pins(one)
    assert "PyTorch's own index has none that fits" in caught.value.message
    assert "+cpu wheel of a version that fits" in caught.value.hint


def test_that_pytorchs_index_does_not_answer_is_told_last(machine, monkeypatch, project, tmp_path):
    """What the requirements want is what can be changed; of a pyproject.toml's, too."""
    tag = "cp311-cp311-manylinux_2_28_x86_64"
    wheels = [
        make_wheel(tmp_path / "a", "torch", "2.0", tag=tag, requires=["nvidia-cuda-runtime"]),
        make_wheel(tmp_path / "a", "nvidia-cuda-runtime", "13.0.96"),
    ]
    for version in ("2.6+cpu", "2.7+cpu"):
        make_wheel(tmp_path / "shelf", "torch", version, tag=tag)
    monkeypatch.setenv("PIP_INDEX_URL", make_index(tmp_path / "index", wheels))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    text = '[project]\nname = "own"\nversion = "1"\ndependencies = ["torch<2.1"]\n'
    said = (
        r"^pyproject\.toml wants torch<2\.1, and .* is 2\.7\+cpu, 2\.6\+cpu, none of which fits; "
        r"PyTorch's own index.*does not answer: connection refused$"
    )
    with pytest.raises(ResolveError, match=said):
        pins(project(text + '[tool.torchship]\ntorch = "cpu"\n'))


def test_a_plain_build_that_asks_for_nothing_is_the_cpus(shelf, project):
    """As on processors for which there is no CUDA."""
    make_wheel(shelf, "torch", "2.0", tag="cp311-cp311-manylinux_2_28_aarch64")
    one = project('[tool.torchship]\ntorch = "cpu"\n', requirements__txt="torch")
    assert names(pins(one, ARM64)) == ["torch 2.0"]


def test_a_pylock_of_another_build_is_refused(machine, project, tmp_path):
    """A lock of another tool's is not resolved again: it must have the build that is asked for."""
    path = make_wheel(tmp_path, "torch", "2.0+cpu")
    text = f"""
    lock-version = "1.0"
    created-by = "someone"
    [[packages]]
    name = "torch"
    version = "2.0+cpu"
    wheels = [{{ url = "{path.as_uri()}", hashes = {{ sha256 = "{Digest.of_file(path).hex}" }} }}]
    """
    one = project('[tool.torchship]\ntorch = "cu130"\n', pylock__toml=text)
    with pytest.raises(ResolveError, match=r"is cu130, and pylock\.toml gives torch's cpu build"):
        pins(one)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("nothere==1", "nothere"),
        ("torch==2.3.0+cu121", r"no index has torch 2\.3\.0\+cu121"),
        ("leaf==9", "do not resolve for linux/amd64, Python 3.11: Because"),
        ("leaf<1.0\nleaf>1.0", "do not resolve"),
        ("picky", "picky.*Python"),
        ("needy", "nothere"),
        ("foreign", r"foreign==1\.0 has no wheel for linux/amd64, Python 3.11"),
        ("sourced", "sourced has no wheel for linux/amd64, Python 3.11"),
        ("sourced==1.0", "sourced==1.0 has no wheel for linux/amd64, Python 3.11"),
        ("newest", r"^sourced==1\.0 has no wheel .*; newest needs it$"),
    ],
)
def test_what_does_not_resolve_is_explained(shelf, project, text, fault):
    """The error says what uv found, in a sentence, and what to do."""
    make_wheel(shelf, "leaf", "1.0")
    make_wheel(shelf, "torch", "2.3.0")
    make_wheel(shelf, "needy", "1.0", requires=["nothere"])
    make_wheel(shelf, "picky", "1.0", requires_python=">=3.12")
    make_wheel(shelf, "foreign", "1.0", tag="cp311-cp311-macosx_11_0_arm64")
    make_wheel(shelf, "newest", "1.0", requires=["sourced==1.*"])
    (shelf / "sourced-1.0.tar.gz").write_bytes(b"not looked at")
    (shelf / "sourced-2.0.tar.gz").write_bytes(b"not looked at")
    with pytest.raises(ResolveError, match=fault) as caught:
        pins(project(requirements__txt=text))
    assert caught.value.hint
    assert "--no-build" not in str(caught.value)


def test_an_index_that_does_not_answer_is_named_by_its_host(machine, monkeypatch, project):
    """Which of several it is must be known; user, password and path stay unsaid."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(IndexUnreachable, match="does not answer: connection refused") as caught:
        pins(project(requirements__txt="leaf"))
    assert "hunter2" not in str(caught.value)
    assert "the package index 127.0.0.1:9 does" in str(caught.value)
    assert "simple" not in str(caught.value)


def test_an_index_that_is_busy_for_a_moment_is_asked_again(machine, monkeypatch, project, tmp_path):
    """The patience of uv itself stays, for what may pass."""
    path = make_wheel(tmp_path / "served" / "files", "leaf", "1.0")
    make_index(tmp_path / "served" / "simple", [path])
    page = tmp_path / "served" / "simple" / "leaf" / "index.html"
    page.write_text(page.read_text().replace(path.as_uri(), f"../../files/{path.name}"))
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def do_GET(self):
            asked.append(self.path)
            if len(asked) < 3:
                self.send_error(503)
                return
            super().do_GET()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        try:
            found = pins_measured(project(requirements__txt="leaf\n"))
        finally:
            server.shutdown()
            thread.join()
    assert names(found) == ["leaf 1.0"]
    assert len(asked) > 3


@pytest.fixture
def guarded(machine, monkeypatch, tmp_path):
    """Give an index on loopback that asks for a user and a password, with one wheel."""
    path = make_wheel(tmp_path / "served" / "files", "leaf", "1.0")
    make_index(tmp_path / "served" / "simple", [path])
    page = tmp_path / "served" / "simple" / "leaf" / "index.html"

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def do_GET(self):
            if self.headers.get("Authorization") != "Basic dXNlcjpodW50ZXIy":
                self.send_error(401)
                return
            super().do_GET()

        def do_HEAD(self):
            self.do_GET()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    page.write_text(page.read_text().replace(path.as_uri(), f"../../files/{path.name}"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_index_with_a_password_gives_addresses_with_it(guarded, monkeypatch, project):
    """Whoever downloads can use the located address as it is; a missing size is measured."""
    index = f"http://user:hunter2@127.0.0.1:{guarded}/simple"
    monkeypatch.setenv("PIP_INDEX_URL", index)
    asked = []
    one = project(requirements__txt="leaf")
    target = Target.of(AMD64, "3.11.2", one.base)
    found = pin(one, target, preferred={}, measure=lambda url: asked.append(url) or 321)
    assert found[0].size == 321
    address = f"http://user:hunter2@127.0.0.1:{guarded}/files/leaf-1.0-py3-none-any.whl"
    assert asked == [address]
    assert locate(found, AMD64, "3.11.2", project=one) == {found[0].filename: (address,)}


def test_a_refusal_is_told_by_its_status(guarded, monkeypatch, project):
    """Wrong credentials are told as such, and not shown."""
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:wrong@127.0.0.1:{guarded}/simple")
    with pytest.raises(ResolveError) as caught:
        pins(project(requirements__txt="leaf"))
    assert "401" in str(caught.value) or "leaf" in str(caught.value)
    assert "wrong" not in str(caught.value)


@pytest.mark.network
def test_the_real_index_resolves_for_both_platforms(project, tmp_path):
    """Wheels are found for a platform that is not this one's, and located."""
    one = project(requirements__txt="numpy==2.0.0\nsympy\ncryptography==43.0.0\n")
    for platform in (AMD64, ARM64):
        target = Target.of(platform, "3.11.2", one.base)
        found = pin(one, target, preferred={}, measure=measured)
        numpy = next(p for p in found if p.name == "numpy")
        assert platform.machine in numpy.filename
        assert len(locate(found, platform, "3.11.2", project=one)) == len(found)
        lost = replace(numpy, digest=Digest.of(b"other"))
        assert locate((lost,), platform, "3.11.2", project=one) == {}


@pytest.mark.network
def test_a_package_that_has_only_an_sdist_is_named(project):
    """The real index knows docopt as source alone."""
    with pytest.raises(
        ResolveError, match=r"docopt==0\.6\.2 has no wheel for linux/amd64"
    ) as caught:
        pins(project(requirements__txt="docopt==0.6.2"))
    assert "pip wheel" in caught.value.hint
