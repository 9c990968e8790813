"""An epoch of examples/mnist against the per-sample loading of PyTorch's own example.

    python benchmarks/epoch_vs_stock.py --data DIR [--batches 200]

DIR holds MNIST's four files. Both sides train the same network, with the same optimiser and
batch size; they differ in how a batch comes about. The stock side does for each image what
torchvision's `MNIST`, `ToTensor` and `Normalize` do, in a `DataLoader` without workers, which is
what PyTorch's script has on a CPU: a PIL image of the raw bytes, a float tensor of it, divided
by 255, less the mean, over the deviation. Needs torch and pillow (torchvision has no CPU build
everywhere). The two take turns batch by batch, so that a busy machine is busy for both; the
answer is the ratio of median times in one run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "mnist"))

import main as example  # noqa: E402 - found only once its folder is on the path
import torch  # noqa: E402 - after the filter
import torch.nn.functional as F  # noqa: E402, N812 - as everybody names it
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

BATCH = 64
WARM_UP = 10  # batches of each side that do not count


class PerSample(Dataset):
    """Give normalised images one by one, as torchvision's dataset and transforms do."""

    def __init__(self, folder: str) -> None:
        self.images = example.read_idx(f"{folder}/train-images-idx3-ubyte.gz", 3)
        self.labels = example.read_idx(f"{folder}/train-labels-idx1-ubyte.gz", 1).long()
        self.raw = bytes(self.images.flatten().tolist())
        self.mean = torch.tensor([0.1307]).view(-1, 1, 1)
        self.deviation = torch.tensor([0.3081]).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        picture = Image.frombuffer(
            "L", (28, 28), self.raw[i * 784 : (i + 1) * 784], "raw", "L", 0, 1
        )
        raw = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(1, 28, 28)
        tensor = raw.to(torch.float32).div(255)
        return tensor.sub_(self.mean).div_(self.deviation), int(self.labels[i])


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The seconds that one batch took: to put it together, and to train on it."""

    fetch: float
    step: float

    @property
    def total(self) -> float:
        """Return the seconds of both."""
        return self.fetch + self.step


Fetch = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def measure(fetch: Fetch, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Batch:
    """Fetch one batch and train on it, as both scripts do."""
    started = time.perf_counter()
    data, target = fetch()
    fetched = time.perf_counter()
    optimizer.zero_grad()
    F.nll_loss(network(data), target).backward()
    optimizer.step()
    return Batch(fetch=fetched - started, step=time.perf_counter() - fetched)


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description="An epoch against PyTorch's per-sample loader.")
    parser.add_argument("--data", default="data", metavar="DIR", help="MNIST's four files")
    parser.add_argument("--batches", type=int, default=200, metavar="N", help="batches a side")
    args = parser.parse_args()
    images, labels = example.load(args.data, "train", torch.device("cpu"))
    dataset = PerSample(args.data)
    # the same pixels on both sides, or the comparison is of nothing
    assert torch.equal(dataset[5][0], images[5])
    torch.manual_seed(1)
    network = example.Net()
    optimizer = torch.optim.Adadelta(network.parameters(), lr=1.0)
    order = iter(torch.randperm(len(images)).split(BATCH))
    loader = iter(DataLoader(dataset, batch_size=BATCH))

    def here() -> tuple[torch.Tensor, torch.Tensor]:
        index = next(order)
        return images[index], labels[index]

    def per_sample() -> tuple[torch.Tensor, torch.Tensor]:
        return next(loader)

    sides: dict[str, tuple[Fetch, list[Batch]]] = {
        "examples/mnist": (here, []),
        "per sample": (per_sample, []),
    }
    for i in range(WARM_UP + args.batches):
        for fetch, batches in list(sides.values())[:: 1 if i % 2 else -1]:  # each first in turn
            batch = measure(fetch, network, optimizer)
            if i >= WARM_UP:
                batches.append(batch)

    print(f"{'ms a batch, median':20}{'fetch':>8}{'train':>8}{'both':>8}")
    for name, (_, batches) in sides.items():
        columns = (
            [b.fetch for b in batches],
            [b.step for b in batches],
            [b.total for b in batches],
        )
        print(f"{name:20}" + "".join(f"{statistics.median(c) * 1000:8.2f}" for c in columns))
    # the training is the same code on both sides: its time is pooled, so that its noise is too
    mine, theirs = (batches for _, batches in sides.values())
    train = statistics.median(b.step for b in (*mine, *theirs))
    a = train + statistics.median(b.fetch for b in mine)
    b = train + statistics.median(b.fetch for b in theirs)
    print(f"an epoch is {b / a:.2f} times as fast as with the per-sample loader")


if __name__ == "__main__":
    main()
