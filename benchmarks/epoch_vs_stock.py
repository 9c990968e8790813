"""An epoch of examples/mnist against the per-sample loading of PyTorch's own example.

    python benchmarks/epoch_vs_stock.py --data DIR [--batches 40] [--rounds 6]

DIR holds MNIST's four files. Both sides train the same network, with the same optimiser and
batch size; they differ in how a batch comes about. The stock side does for each image what
torchvision's `MNIST`, `ToTensor` and `Normalize` do, in a `DataLoader` without workers, which is
what PyTorch's script has on a CPU: a PIL image of the raw bytes, a float tensor of it, divided
by 255, less the mean, over the deviation. Needs torch and pillow (torchvision has no CPU build
everywhere). The two take turns, so that a busy machine is busy for both; the answer is the ratio
of their times in one run, with the spread over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "mnist"))

import main as example  # noqa: E402 - found only once its folder is on the path
import torch  # noqa: E402 - after the filter
import torch.nn.functional as F  # noqa: E402, N812 - as everybody names it
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402


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


def optimiser(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the example's optimiser."""
    return torch.optim.Adadelta(network.parameters(), lr=1.0)


def step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    data: torch.Tensor,
    target: torch.Tensor,
) -> None:
    """Train on one batch, as both scripts do."""
    optimizer.zero_grad()
    F.nll_loss(network(data), target).backward()
    optimizer.step()


def ours(
    batches: int,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
) -> float:
    """Return the seconds of some batches of the example's loop."""
    started = time.perf_counter()
    order = torch.randperm(len(images))[: batches * 64]
    for index in order.split(64):
        step(network, optimizer, images[index], labels[index])
    return time.perf_counter() - started


def stock(
    batches: int,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: PerSample,
) -> float:
    """Return the seconds of as many batches from a DataLoader that makes each image in Python."""
    started = time.perf_counter()
    for done, (data, target) in enumerate(DataLoader(dataset, batch_size=64), 1):
        step(network, optimizer, data, target)
        if done == batches:
            break
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description="An epoch against PyTorch's per-sample loader.")
    parser.add_argument("--data", default="data", metavar="DIR", help="MNIST's four files")
    parser.add_argument("--batches", type=int, default=40, metavar="N", help="batches a round")
    parser.add_argument("--rounds", type=int, default=6, metavar="N", help="turns of each side")
    args = parser.parse_args()
    images, labels = example.load(args.data, "train", torch.device("cpu"))
    dataset = PerSample(args.data)
    torch.manual_seed(1)
    network = example.Net()
    optimizer = optimiser(network)
    # the same pixels on both sides, or the comparison is of nothing
    assert torch.equal(dataset[5][0], images[5])
    ours(20, network, optimizer, images, labels)  # warm up
    ratios = []
    for i in range(args.rounds):
        if i % 2:  # each side goes first in turn
            b = stock(args.batches, network, optimizer, dataset)
            a = ours(args.batches, network, optimizer, images, labels)
        else:
            a = ours(args.batches, network, optimizer, images, labels)
            b = stock(args.batches, network, optimizer, dataset)
        ratios.append(b / a)
        print(f"round {i + 1}: {a:.2f} s here, {b:.2f} s per-sample: {b / a:.3f} times")
    print(
        f"an epoch is {statistics.median(ratios):.2f} times as fast as with the per-sample "
        f"loader ({min(ratios):.2f} to {max(ratios):.2f}, {args.rounds} rounds of "
        f"{args.batches} batches)"
    )


if __name__ == "__main__":
    main()
