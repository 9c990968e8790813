"""The training loop of examples/mnist against that of PyTorch's own example, on the CPU.

    python benchmarks/epoch_vs_stock.py --data DIR [--blocks 15] [--json]

DIR holds MNIST's four files. Both sides train a network of their own, the same one with the
same optimiser and batch size, and log as they do. This side is the `train` of examples/mnist
itself. The stock side is the `train` of PyTorch's example over a `DataLoader` without workers
and without shuffling, which is what that script has on a CPU; its dataset does for each image
what torchvision's `MNIST`, `ToTensor` and `Normalize` do, operation by operation, but for the
way through NumPy, which would take longer. (torchvision has no CPU build everywhere.)

The sides take turns in one process, a block of batches each, so that a busy machine is busy
for both. Needs torch and pillow.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "mnist"))

import main as example  # noqa: E402 - found only once its folder is on the path
import torch  # noqa: E402 - after the filter
import torch.nn.functional as F  # noqa: E402, N812 - as everybody names it
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset, Subset  # noqa: E402

BATCH = 64
BATCHES = 20  # in a block
WARM_UP = 1  # blocks of each side that do not count
ARGS = argparse.Namespace(batch_size=BATCH, log_interval=10, dry_run=False)

Train = Callable[[range], None]


class PerSample(Dataset[tuple[torch.Tensor, int]]):
    """Give normalised images one by one, as torchvision's dataset and transforms do."""

    def __init__(self, folder: str) -> None:
        self.images = example.read_idx(f"{folder}/train-images-idx3-ubyte.gz", 3)
        self.labels = example.read_idx(f"{folder}/train-labels-idx1-ubyte.gz", 1).long()
        with gzip.open(f"{folder}/train-images-idx3-ubyte.gz") as file:
            self.raw = memoryview(file.read())[16:]  # after the header

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        raw = self.raw[i * 784 : (i + 1) * 784]
        picture = Image.frombuffer("L", (28, 28), raw, "raw", "L", 0, 1)
        return normalized(to_tensor(picture)), int(self.labels[i])


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """Do what `ToTensor` does: a copy of the bytes, the channel in front, from 0 to 1."""
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    image = pixels.view(picture.size[1], picture.size[0], 1).permute((2, 0, 1)).contiguous()
    return image.to(dtype=torch.get_default_dtype()).div(255)


def normalized(image: torch.Tensor) -> torch.Tensor:
    """Do what `Normalize((0.1307,), (0.3081,))` does, not in place."""
    image = image.clone()
    mean = torch.as_tensor((0.1307,), dtype=image.dtype, device=image.device)
    deviation = torch.as_tensor((0.3081,), dtype=image.dtype, device=image.device)
    if (deviation == 0).any():
        raise ValueError("a deviation is zero")
    return image.sub_(mean.view(-1, 1, 1)).div_(deviation.view(-1, 1, 1))


def stock_train(
    network: torch.nn.Module, dataset: PerSample, optimizer: torch.optim.Optimizer, part: range
) -> None:
    """Train as PyTorch's example does."""
    loader = DataLoader(Subset(dataset, part), batch_size=BATCH)
    network.train()
    for number, (data, target) in enumerate(loader):
        data, target = data.to("cpu"), target.to("cpu")
        optimizer.zero_grad()
        output = network(data)
        loss = F.nll_loss(output, target)
        loss.backward()
        optimizer.step()
        if number % ARGS.log_interval == 0:
            share = 100.0 * number / len(loader)
            print(
                f"Train Epoch: 1 [{number * len(data)}/{len(dataset)} ({share:.0f}%)]"
                f"\tLoss: {loss.item():.6f}"
            )


def sides(folder: str) -> dict[str, Train]:
    """Return both ways to train on a part of the set."""
    images, labels = example.load(folder, "train", torch.device("cpu"))
    dataset = PerSample(folder)
    # the same pixels on both sides, or the comparison is of nothing
    assert torch.equal(dataset[5][0], images[5])
    ours, theirs = example.Net(), example.Net()
    theirs.load_state_dict(ours.state_dict())
    optimizer = torch.optim.Adadelta(ours.parameters(), lr=1.0)
    generator = torch.Generator().manual_seed(1)

    def here(part: range) -> None:
        at = slice(part.start, part.stop)
        example.train(ARGS, ours, images[at], labels[at], generator, optimizer, 1)

    stock = partial(stock_train, theirs, dataset, torch.optim.Adadelta(theirs.parameters(), lr=1.0))
    return {"examples/mnist": here, "stock": stock}


def measure(folder: str, blocks: int) -> dict[str, list[float]]:
    """Return the milliseconds a batch took on each side, block by block."""
    torch.manual_seed(1)
    trains = sides(folder)
    taken: dict[str, list[float]] = {name: [] for name in trains}
    names = list(trains)
    each = BATCH * BATCHES
    parts = 60_000 // each
    for number in range(WARM_UP + blocks):
        start = number % parts * each
        for name in names if number % 2 else reversed(names):
            began = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                trains[name](range(start, start + each))
            if number >= WARM_UP:
                taken[name].append((time.perf_counter() - began) / BATCHES * 1000)
    return taken


def main() -> None:
    """Measure, and print the ratio, or every value as JSON."""
    parser = argparse.ArgumentParser(description="An epoch against PyTorch's own example.")
    parser.add_argument("--data", default="data", metavar="DIR", help="MNIST's four files")
    parser.add_argument("--blocks", type=int, default=15, metavar="N", help="blocks a side")
    parser.add_argument("--json", action="store_true", help="print every block's time")
    args = parser.parse_args()
    taken = measure(args.data, args.blocks)
    if args.json:
        print(json.dumps(taken))
        return
    for name, values in taken.items():
        print(f"{name:16}{statistics.median(values):8.2f} ms a batch (median)")
    ratios = [b / a for a, b in zip(*taken.values(), strict=True)]
    print(
        f"the stock loop takes {statistics.median(ratios):.2f} times as long "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
