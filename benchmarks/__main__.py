"""``python -m benchmarks [NAME...]``: measure, and print the table.

The table goes to standard output, the story to standard error. Exit status 1 says that an aim
was missed, or something failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from benchmarks import (
    cold_build,
    cuda,
    edit_and_run,
    epoch,
    first_step,
    memory,
    same_bytes,
    share,
    size,
    startup,
    training,
    unpack,
)
from benchmarks.figures import Figure, table
from benchmarks.sides import Failed, LeftOut, say
from benchmarks.tutorial import Tutorial
from benchmarks.workbench import ROOT, Workbench

BENCHMARKS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        startup,
        cold_build,
        size,
        edit_and_run,
        memory,
        cuda,
        same_bytes,
        unpack,
        share,
        first_step,
        epoch,
        training,
    )
}
Measure = Callable[[Workbench, Tutorial, int], list[Figure]]


def main() -> int:
    """Run what was chosen; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, metavar="N", help="instead of each one's own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if args.rounds is not None and args.rounds < 1:
        parser.error("--rounds must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the engine is stopped all the same
    about = machine()
    say(about)
    figures: list[Figure] = []
    failed = False
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="torchship-bench-"))
        bench = Workbench(Path(scratch), stack)
        tutorial = Tutorial(bench)
        for name in args.names or BENCHMARKS:
            say(name)
            module = BENCHMARKS[name]
            try:
                figures += module.measure(bench, tutorial, args.rounds or module.ROUNDS)
            except LeftOut as why:
                bench.leave_out(name, why)
            except Failed as why:
                failed = True
                say(str(why))
                bench.note(f"{name} **failed**: {str(why).splitlines()[-1]}")
        notes = bench.notes
    print(about, table(figures), *(f"- {note}" for note in notes), sep="\n\n")
    if args.json:
        document = {
            "machine": about,
            "figures": [figure.as_json() for figure in figures],
            "notes": notes,
        }
        args.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return int(failed or any(figure.aim and not figure.aim.reached for figure in figures))


def machine() -> str:
    """Return one sentence on what this is measured on, and when."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""
    )
    memory_size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    commit = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    load = os.getloadavg()[0]
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit or 'unknown'}; "
        f"{len(os.sched_getaffinity(0))} cores of {model or platform.machine()}, "
        f"{memory_size:.0f} GB, Linux {platform.release()}, Python {platform.python_version()}; "
        f"load {load:.1f} at the start."
    )


if __name__ == "__main__":
    sys.exit(main())
