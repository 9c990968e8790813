"""Whole trainings of examples/mnist-fast, interleaved with PyTorch's own example, on the CPU.

    python benchmarks/training_vs_stock.py --data DIR [--seeds 10] [--first 1] [--json]

DIR holds MNIST's four files. For each seed every target is trained on the 60,000 images and tested
on the 10,000: timed from the first step to the last answer. Every 32 steps or so its clock is
stopped for a few batches of the stock loop of `epoch_vs_stock.py`, so that a busy machine
is busy for both: each training has a stock time of its own, that of a batch, of which an epoch
has 938. What the stock example takes to test, after each epoch, is not counted, and what mnist-fast
takes is. Processor time is noted, too: on a busy machine it says what the clock does not.

Both sides run in one process with as many threads. Reading the files and starting torch are
left out on both sides. Needs torch and pillow.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

import torch  # noqa: E402 - after the filter

from epoch_vs_stock import BATCH, PerSample, example, stock_train  # noqa: E402

BATCHES = 3  # of the stock loop in a block
EPOCH = -(-60_000 // BATCH)  # batches in one of its epochs


def load_fast() -> ModuleType:
    """Import examples/mnist-fast/main.py, beside the other example's module of that name."""
    path = Path(__file__).parents[1] / "examples" / "mnist-fast" / "main.py"
    specification = importlib.util.spec_from_file_location("mnist_fast", path)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["mnist_fast"] = module  # a dataclass looks its own module up
    specification.loader.exec_module(module)
    return module


@dataclass(slots=True)
class Clock:
    """Seconds that went by, and seconds that processors worked."""

    wall: float = 0.0
    processor: float = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens meanwhile."""
        self.toggle(-1)
        yield
        self.toggle(1)

    def toggle(self, sign: int) -> None:
        """Start with -1, stop with 1."""
        self.wall += sign * time.perf_counter()
        self.processor += sign * time.process_time()


class Stock:
    """The stock loop: a block of batches at a time, timed by the clock that it has just then."""

    def __init__(self, folder: str) -> None:
        self.dataset = PerSample(folder)
        self.network = example.Net()
        self.optimizer = torch.optim.Adadelta(self.network.parameters(), lr=1.0)
        self.start = 0
        self.renew()

    def renew(self) -> None:
        """Begin to count anew."""
        self.clock = Clock()
        self.batches = 0

    def block(self) -> None:
        """Train for a block."""
        size = BATCH * BATCHES
        part = range(self.start, self.start + size)
        self.start = (self.start + size) % (60_000 - size)
        with self.clock.running(), contextlib.redirect_stdout(io.StringIO()):
            stock_train(self.network, self.dataset, self.optimizer, part)
        self.batches += BATCHES


def measure(folder: str, targets: list[str], seeds: range) -> dict[str, list[dict[str, float]]]:
    """Return for each target, seed by seed, the seconds, the accuracy and the stock's batch."""
    fast = load_fast()
    device = torch.device("cpu")
    train, test = fast.load(folder, "train"), fast.load(folder, "t10k")
    stock = Stock(folder)
    stock.block()  # the first is slow
    found: dict[str, list[dict[str, float]]] = {target: [] for target in targets}
    for seed in seeds:
        for target in targets:
            clock = Clock()
            stock.renew()

            def pause(*_: object, clock: Clock = clock) -> None:
                clock.toggle(1)
                stock.block()
                clock.toggle(-1)

            args = fast.parse_arguments(["--target", target, "--seed", str(seed), "--no-accel"])
            torch.manual_seed(seed)
            with clock.running():
                model = fast.train(args, fast.World(), device, *train, pause)
                answers = fast.predict(model, test[0], device)
            right = answers.argmax(1).eq(test[1]).sum().item()
            run = {
                "seed": seed,
                "accuracy": 100 * right / len(test[1]),
                "seconds": clock.wall,
                "stock_ms": 1000 * stock.clock.wall / stock.batches,
                "processor_seconds": clock.processor,
                "stock_processor_ms": 1000 * stock.clock.processor / stock.batches,
            }
            found[target].append(run)
            print(target, json.dumps(run), file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, and print what was found, or every value as JSON."""
    parser = argparse.ArgumentParser(description="Trainings against PyTorch's own example.")
    parser.add_argument("--data", default="data", metavar="DIR", help="MNIST's four files")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="how many seeds")
    parser.add_argument("--first", type=int, default=1, metavar="N", help="the first of them")
    parser.add_argument("--targets", nargs="+", default=["99.0", "99.25", "99.5"], metavar="T")
    parser.add_argument("--json", action="store_true", help="print every value")
    args = parser.parse_args()
    found = measure(args.data, args.targets, range(args.first, args.first + args.seeds))
    if args.json:
        print(json.dumps(found))
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for target, runs in found.items():
        accuracies = [run["accuracy"] for run in runs]
        epochs = [run["stock_ms"] * EPOCH / 1000 / run["seconds"] for run in runs]
        print(
            f"{target:6}{statistics.mean(accuracies):7.3f}% ({min(accuracies):.2f} to "
            f"{max(accuracies):.2f}){statistics.median(run['seconds'] for run in runs):8.2f} s; "
            f"a stock epoch takes {statistics.median(epochs):.1f} times as long "
            f"({min(epochs):.1f} to {max(epochs):.1f})"
        )


if __name__ == "__main__":
    main()
