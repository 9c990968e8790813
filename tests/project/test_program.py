"""The file that a project starts."""

import pytest

from torchship.project.program import likely, script
from torchship.project.project import WORKSPACE

GUARD = 'if __name__ == "__main__":\n    print("hello")\n'


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"model.py": "", "setup.py": GUARD, "train.py": ""}, "train.py"),
        ({"model.py": GUARD, "run.py": ""}, "run.py"),
        ({"a.py": "", "conftest.py": GUARD, "test_a.py": GUARD, "z.py": GUARD}, "z.py"),
        ({"a.py": "", "z.py": ""}, None),
        ({"broken.py": "if if", "deep.py": "(" * 10_000, "z.py": GUARD}, "z.py"),
        ({"mnist.py": "", "setup.py": ""}, "mnist.py"),
        ({"setup.py": GUARD}, None),
        ({}, None),
    ],
)
def test_the_likely_program_is_no_module_and_no_test(tmp_path, files, found):
    """A usual name counts first, then who can be started, then who is alone."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert likely(tmp_path) == found


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python main.py --epochs 1", "main.py"),
        ("python -u /workspace/main.py", "main.py"),
        ("torchrun --nproc-per-node 2 main.py", "main.py"),
        ("python -m pkg", "pkg/__main__.py"),
        ("python -m pkg.train --lr 1", "pkg/train.py"),
        ("torchrun -m pkg.train", "pkg/train.py"),
        ("python /elsewhere/main.py", None),
        ("python absent.py", None),
        ("python -m inside", "src/inside/__main__.py"),
        ("bash", None),
        ("python -m", None),
    ],
)
def test_what_a_command_starts(tmp_path, command, found):
    """Where it is a file of the project."""
    for folder in ("pkg", "src/inside"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("main.py", "pkg/__main__.py", "pkg/train.py", "src/inside/__main__.py"):
        (tmp_path / name).touch()
    path = script(tmp_path, command.split(), WORKSPACE)
    assert path == (found and tmp_path / found)


def test_the_words_of_a_shell_are_no_file(tmp_path):
    """However long they are, and whatever they end in."""
    words = ["bash", "-c", "set -e; " + "python -u prepare.py && " * 40 + "python train.py"]
    assert script(tmp_path, words, WORKSPACE) is None
