"""A line is edited and the project is run again: what torchship adds to `python main.py`.

The other side is the same program, edited too, in a virtual environment into which pip has put
the same wheels. torchship's side includes all of it: noticing the edit, making the layer and
the image, the sandbox, the run directory and its record. It runs on the native engine.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from benchmarks.figures import Figure, Spread, added, below
from benchmarks.sides import in_turns, output, seconds
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import TORCHSHIP, Workbench

ROUNDS = 9
AIM = 0.5  # seconds
PROGRAMS = {
    "a training step": """\
import torch

layer = torch.nn.Linear(8, 2)
layer(torch.randn(4, 8)).sum().backward()
print(layer.weight.grad.norm().item())
""",
    "print": "print('hello')\n",
}


def measure(bench: Workbench, tutorial: Tutorial, rounds: int) -> list[Figure]:  # noqa: ARG001
    """Edit and run both in turns, a program with torch and one without."""
    return [_measure(bench, name, program, rounds) for name, program in PROGRAMS.items()]


def _measure(bench: Workbench, name: str, program: str, rounds: int) -> Figure:
    folder = bench.scratch / f"edited-{len(program)}"
    # the same lock: only the program is another
    shutil.copytree(bench.project, folder)
    main = folder / "main.py"
    runs = (bench.scratch / "runs" / folder.name / str(number) for number in itertools.count())
    edits = itertools.count()

    def edit() -> None:
        main.write_text(f"{program}# edit {next(edits)}\n")

    def run(destination: Path) -> list[str | Path]:
        return [TORCHSHIP, "run", "--engine", "native", "-o", destination, folder]

    def ours() -> float:
        edit()
        return seconds(run(next(runs)), bench.environment)

    def bare() -> float:
        edit()
        return seconds([bench.python, main])

    edit()
    output(run(next(runs)), bench.environment)  # the first run unpacks the layers
    output([bench.python, main])
    taken = in_turns(rounds, {"torchship run": ours, "python main.py": bare})
    mine, theirs = (Spread(values=values, unit="s") for values in taken.values())
    more = added(mine, theirs)
    return Figure(
        what=f"`torchship run` after an edit, {name}",
        mine=mine,
        against="`python main.py`",
        theirs=theirs,
        outcome=more,
        aim=below(AIM, more),
    )
