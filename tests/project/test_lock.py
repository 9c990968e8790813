"""The lock on disk: what is written is read again, and what was damaged is told where."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

import pytest
import tomli_w
from msgspec.structs import replace

from torchship.digest import Digest
from torchship.errors import LockError
from torchship.platform import Platform
from torchship.project import lockfile
from torchship.project.lock import (
    BasePin,
    DataPin,
    Lock,
    PackagePin,
    PlatformLock,
    WheelPin,
    changes,
    load,
    save,
)

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
FROM = {"python": "3.11", "file requirements.txt": "sha256:" + "0" * 64}


def digest(text):
    """Return some digest."""
    return Digest.of(text.encode())


def wheel(name, version="1.0"):
    """Return a pin of a wheel."""
    return WheelPin(
        name=name,
        version=version,
        filename=f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        size=100,
        digest=digest(name + version),
    )


def package(name, version="1.0-1"):
    """Return a pin of a Debian package."""
    return PackagePin(
        name=name,
        version=version,
        architecture="amd64",
        path=f"pool/main/{name[0]}/{name}/{name}_{version}_amd64.deb",
        size=200,
        digest=digest(name),
    )


def entry(platform=AMD64, *wheels):
    """Return the pins of a platform."""
    base = BasePin(reference="debian:bookworm", packages=(package("bash"), package("libstdc++6")))
    return PlatformLock(platform=platform, python="3.11.2", base=base, wheels=wheels)


def made(*platforms):
    """Return a lock."""
    return Lock(
        created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        inputs=lockfile.inputs(FROM),
        platforms=platforms or (entry(AMD64, wheel("a-b"), wheel("c", "2.0+cpu")),),
        data=(DataPin(path="/data/x.gz", filename="x.gz", size=0, digest=digest("x")),),
        resolved_from=FROM,
    )


@pytest.fixture
def path(tmp_path):
    """Give the path of a saved lock."""
    path = tmp_path / "torchship.lock"
    save(made(), path)
    return path


def edit(path, change):
    """Change a lock by hand, and make its checksum fit, as an attacker would."""
    document = tomllib.loads(path.read_text())
    change(document)
    document["checksum"] = lockfile._checksum(document)
    path.write_text(tomli_w.dumps(document))


def test_a_lock_comes_back_as_it_was(path):
    """Saving and loading change nothing."""
    assert load(path) == made()


def test_order_does_not_matter(tmp_path):
    """Equal locks are equal files, in whatever order their pins came."""
    one, two = tmp_path / "one", tmp_path / "two"
    save(made(entry(AMD64, wheel("a"), wheel("b")), entry(ARM64, wheel("c"))), one)
    turned = entry(AMD64, wheel("b"), wheel("a"))
    base = replace(turned.base, packages=turned.base.packages[::-1])
    save(made(entry(ARM64, wheel("c")), replace(turned, base=base)), two)
    assert one.read_bytes() == two.read_bytes()


def test_a_base_image_comes_back(tmp_path):
    """A base may be an image, by its digest, without packages; older locks leave its Python out."""
    base = BasePin(reference="python:3.11-slim", digest=digest("image"))
    for interpreter in ("", "/usr/local/bin/python3.11", "/usr/bin/python3.11"):
        lock = made(replace(entry(), base=replace(base, interpreter=interpreter)))
        save(lock, tmp_path / "lock")
        assert load(tmp_path / "lock") == lock


@pytest.mark.parametrize(
    "interpreter", ["/usr/bin/python3.12", "/opt/python3.11", "/usr/bin/../bin/python3.11", "/usr"]
)
def test_an_interpreter_that_cannot_be_the_bases_is_refused(tmp_path, interpreter):
    """The image's venv links to it."""
    base = BasePin(reference="x:y", digest=digest("image"), interpreter=interpreter)
    save(made(replace(entry(), base=base)), tmp_path / "lock")
    with pytest.raises(LockError, match=r"platform\[0\]\.base\.interpreter: .* is not where"):
        load(tmp_path / "lock")


def test_the_file_says_how_it_is_made_and_holds_no_address(path):
    """People who open it learn what to run; a mirror's name is not in it."""
    text = path.read_text()
    assert text.startswith("# Made by `torchship lock`")
    assert "://" not in text


def test_a_platform_that_is_not_locked_is_named(path):
    """The error says what the lock holds, and what to do."""
    lock = load(path)
    assert lock.platform(AMD64) == lock.platforms[0]
    with pytest.raises(LockError, match="nothing for linux/arm64: it is for linux/amd64") as error:
        lock.platform(ARM64)
    assert "torchship lock" in error.value.hint


def varied(*extra):
    """Return a lock with two variants of one platform, which share all but torch."""
    shared = (wheel("a-b"), wheel("numpy", "2.0"), *extra)
    cpu = entry(AMD64, wheel("torch", "2.13.0+cpu"), *shared)
    cuda = entry(AMD64, wheel("nvidia-cuda-runtime", "13.0.96"), wheel("torch", "2.13.0"), *shared)
    one = tuple(replace(each, variant=name) for each, name in ((cpu, "cpu"), (cuda, "cu130")))
    ordered = (replace(each, wheels=tuple(sorted(each.wheels, key=_name))) for each in one)
    return made(*ordered, entry(ARM64, wheel("torch", "2.13.0+cpu")))


def _name(pin):
    return pin.name


def test_variants_come_back_and_what_they_share_stands_once(tmp_path):
    """A platform's variants keep their order; a lock without any is of the format it always was."""
    path = tmp_path / "torchship.lock"
    lock = varied()
    save(lock, path)
    assert load(path) == lock
    text = path.read_text()
    assert "\nversion = 2\n" in text
    assert text.count('name = "numpy"') == 1
    assert text.count('name = "bash"') == 2  # one for each platform
    save(made(), path)
    assert "\nversion = 1\n" in path.read_text()


def test_a_variant_is_chosen_by_name_and_the_first_without_one(tmp_path):
    """The first variant stands for its platform; one that is not there is an error that says so."""
    lock = varied()
    assert lock.platform(AMD64).variant == "cpu"
    assert lock.platform(AMD64, "cu130").variant == "cu130"
    assert [each.torch for each in lock.of(AMD64)] == ["torch 2.13.0 (cpu)", "torch 2.13.0 (cu130)"]
    with pytest.raises(LockError, match="no variant rocm6 for linux/amd64: it has cpu, cu130"):
        lock.platform(AMD64, "rocm6")
    with pytest.raises(LockError, match="no variant cpu for linux/arm64: it has none"):
        lock.platform(ARM64, "cpu")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda v, d: v[0].update(name="auto"), "variant[0].name: 'auto' is not a build of torch"),
        (lambda v, d: v[0].update(name="gpu"), "variant[0].name: 'gpu' is not a build of torch"),
        (lambda v, d: v[1].update(name="cpu"), "variant[1]: cpu stands here a second time"),
        (
            lambda v, d: v[1]["wheel"][0].update(v[0]["wheel"][0]),
            "variant[1].wheel[1]: torch stands here a second time",
        ),
        (lambda v, d: v[1]["wheel"][0].update(sha256="x"), "variant[1].wheel[0].sha256"),
        (lambda v, d: v[1].update(base="x"), "variant[1].base: there is no such key"),
        (lambda v, d: d.update(version=1), "variant: a lock of format 1 has none"),
    ],
)
def test_a_variant_that_lies_is_refused(tmp_path, change, fault):
    """Variants are checked as strictly as all the rest, and a wheel is pinned once in each."""
    path = tmp_path / "torchship.lock"
    save(varied(), path)
    edit(path, lambda document: change(document["platform"][0]["variant"], document))
    with pytest.raises(LockError) as caught:
        load(path)
    assert fault in str(caught.value)


def test_changes_name_the_variant():
    """Of two variants, the lines say whose wheel changed."""
    old, new = varied(), varied(wheel("new"))
    assert changes(old, new) == (
        "linux/amd64 cpu: new 1.0 added",
        "linux/amd64 cu130: new 1.0 added",
    )


def test_a_missing_lock_is_told(tmp_path):
    """No lock is an error with a command, not a traceback."""
    with pytest.raises(LockError, match=r"there is no torchship\.lock"):
        load(tmp_path / "torchship.lock")


def test_a_folder_in_the_locks_place_is_told(tmp_path):
    """It is there, and is no lock: to lock again would not help."""
    (tmp_path / "torchship.lock").mkdir()
    with pytest.raises(LockError, match="is a folder"):
        load(tmp_path / "torchship.lock")


def test_a_lock_that_is_cut_off_anywhere_is_refused(path):
    """No prefix of a lock passes for a lock, not even one that ends between two entries."""
    whole = path.read_bytes()
    for end in range(0, len(whole.rstrip()), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(LockError):
            load(path)
    for end in (i for i in range(len(whole)) if whole[i:].startswith(b"\n[[")):
        path.write_bytes(whole[:end])
        with pytest.raises(LockError):
            load(path)


def test_a_lock_that_was_edited_is_refused(path):
    """A valid value in place of another is noticed too."""
    path.write_text(path.read_text().replace("size = 100", "size = 101", 1))
    with pytest.raises(LockError, match="edited by hand") as error:
        load(path)
    assert "torchship lock" in error.value.hint


def test_line_ends_of_another_system_do_no_harm(path):
    """A checkout that makes CRLF of LF leaves the lock whole."""
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(path) == made()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda d: d["platform"][0]["wheel"][1].update(sha256="xyz"),
            "platform[0].wheel[1].sha256",
        ),
        (
            lambda d: d["platform"][0]["wheel"][1].pop("size"),
            "platform[0].wheel[1].size: is missing",
        ),
        (lambda d: d["platform"][0]["wheel"][0].update(size=-1), "platform[0].wheel[0].size"),
        (lambda d: d["platform"][0]["wheel"][0].update(size="9"), "platform[0].wheel[0].size"),
        (lambda d: d["platform"][0]["wheel"][0].update(size=True), "platform[0].wheel[0].size"),
        (lambda d: d["platform"][0]["wheel"][0].update(name="A_b"), "platform[0].wheel[0].name"),
        (
            lambda d: d["platform"][0]["wheel"][0].update(filename="../x-1-py3-none-any.whl"),
            "platform[0].wheel[0].filename",
        ),
        (
            lambda d: d["platform"][0]["wheel"][0].update(filename="c-2.0-py3-none-any.whl"),
            "platform[0].wheel[0].filename",
        ),
        (
            lambda d: d["platform"][0]["wheel"][0].update(url="x"),
            "platform[0].wheel[0].url: there is",
        ),
        (lambda d: d["platform"][0]["wheel"].append(d["platform"][0]["wheel"][0]), "a second time"),
        (lambda d: d["platform"][0].update(platform="linux/x"), "platform[0].platform"),
        (lambda d: d["platform"][0].update(python="../3"), "platform[0].python"),
        (lambda d: d["platform"].append(d["platform"][0]), "platform[1]: linux/amd64"),
        (lambda d: d["platform"].clear(), "platform: is empty"),
        (
            lambda d: d["platform"][0]["base"]["package"][0].update(path="../../etc/x.deb"),
            "platform[0].base.package[0].path",
        ),
        (
            lambda d: d["platform"][0]["base"]["package"][0].update(path="//host/x.deb"),
            "platform[0].base.package[0].path",
        ),
        (
            lambda d: d["platform"][0]["base"]["package"][0].update(name="a b"),
            "platform[0].base.package[0].name",
        ),
        (lambda d: d["platform"][0]["base"].pop("package"), "platform[0].base.package: is empty"),
        (lambda d: d["platform"][0]["base"].update(reference="x:1"), "platform[0].base.digest"),
        (lambda d: d["data"][0].update(path="/a/../b"), "data[0].path"),
        (lambda d: d["data"][0].update(filename="a/b"), "data[0].filename"),
        (lambda d: d.update(inputs="sha256:" + "1" * 64), "inputs: is not the digest"),
        (lambda d: d.update(created="today"), "created: "),
        (lambda d: d.update(version=0), "version"),
        (lambda d: d.update(version=3), "upgrade torchship"),
        (
            lambda d: d.update(platfrom=1),
            "platfrom: there is no such key; did you mean 'platform'?",
        ),
        (lambda d: d.update(platform=3), "platform: expected a list"),
        (lambda d: d["platform"].insert(0, "x"), "platform[0]: expected a table"),
    ],
)
def test_a_lock_that_lies_is_refused_with_the_path_to_the_fault(path, change, fault):
    """Whatever a lock says is checked before it is believed."""
    edit(path, change)
    with pytest.raises(LockError) as caught:
        load(path)
    assert fault in f"{caught.value} {caught.value.hint}"


def test_several_faults_are_told_together(path):
    """One look shows them all."""

    def change(document):
        document["platform"][0]["wheel"][0]["sha256"] = "x"
        document["data"][0]["size"] = -3

    edit(path, change)
    with pytest.raises(LockError, match=r"wheel\[0\]\.sha256.*data\[0\]\.size"):
        load(path)


def test_a_failed_save_leaves_the_old_lock(path):
    """The new lock comes in place whole, or the old one stays."""
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        save(replace(made(), resolved_from={"a": "\ud800"}), path)
    assert path.read_bytes() == before


def test_no_folder_to_save_in_is_told(tmp_path):
    """An error of the system becomes one sentence."""
    with pytest.raises(LockError, match="cannot be written"):
        save(made(), tmp_path / "absent" / "torchship.lock")


def test_changes_are_said_in_words():
    """What a new lock adds, drops and moves is listed by platform and name."""
    old = made(entry(AMD64, wheel("a"), wheel("b")))
    new = made(entry(AMD64, wheel("a", "2.0"), wheel("c")))
    assert changes(old, new) == (
        "linux/amd64: a 1.0 -> 2.0",
        "linux/amd64: b 1.0 removed",
        "linux/amd64: c 1.0 added",
    )
    assert changes(old, old) == ()


def test_a_platform_that_comes_or_goes_is_one_line():
    """Its pins are all new, or all gone: nobody wants to read them."""
    one, both = made(entry(AMD64, wheel("a"))), made(entry(AMD64, wheel("a")), entry(ARM64))
    assert changes(one, both) == ("linux/arm64 added",)
    assert changes(both, one) == ("linux/arm64 removed",)


def test_several_builds_instead_of_one_are_told_as_such():
    """The wheels are not gone: they are those of each build now."""
    one = made(entry(AMD64, wheel("a")), entry(ARM64, wheel("torch", "2.13.0+cpu")))
    assert changes(one, varied()) == ("linux/amd64 cpu added", "linux/amd64 cu130 added")
    assert changes(varied(), one) == ("linux/amd64 cpu removed", "linux/amd64 cu130 removed")
