"""Train a small network on MNIST as fast as the machine can.

The same task and data as `../mnist`, which is the example everybody knows; this one is written for
speed. What makes it fast: a small network whose arrays fit the caches, the whole set resident and
normalised once, batches cut out by one indexing operation, a high learning rate that warms up and
falls, and weights averaged over the end.

    python main.py                          # the best trade for this device
    python main.py --target 99.5            # as accurate as that, on average
    torchrun --nproc-per-node 2 main.py     # two processes share each batch
"""

import argparse
import base64
import contextlib
import copy
import datetime
import gzip
import hashlib
import http.client
import json
import math
import os
import struct
import sys
import tempfile
import time
import urllib.request
import warnings
import zlib
from dataclasses import dataclass

# torch says this whenever NumPy is absent; nothing here needs it, and the image is smaller
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
# ruff: noqa: E402 - the filter has to stand before torch is imported

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

# MNIST, Yann LeCun and Corinna Cortes, CC BY-SA 3.0: each file as published, by its sha256
MNIST = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
    ),
}
MIRRORS = (  # tried in turn; what they send counts only if its sha256 is right
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
LARGEST = 10 << 20  # bytes: the largest of the four files is 9.9 MB; more is not MNIST
HELD_OUT = 5_000  # training images that --validate tests on
PATIENCE = datetime.timedelta(minutes=5)  # with other processes, at the start and in a step


class UserError(Exception):
    """The run cannot go on; the message is one line for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a --target is reached with."""

    epochs: int
    widths: tuple[int, int] = (24, 32)  # channels of the two convolutions


RECIPES = {
    "99.0": Recipe(epochs=1),
    "99.25": Recipe(epochs=2),
    "99.5": Recipe(epochs=4, widths=(32, 64)),
    "99.7": Recipe(epochs=16, widths=(64, 128)),
}


# Data


def download(name, folder):
    """Put one file of MNIST into folder: whole and checked, or not at all."""
    refusals = []
    for mirror in MIRRORS:
        print(f"Downloading {mirror}{name}")
        try:
            with urllib.request.urlopen(mirror + name, timeout=30) as response:
                content = response.read(LARGEST)
        except (OSError, http.client.HTTPException) as error:  # OSError: URLError, timeouts too
            refusals.append(f"{mirror} ({error})")
            continue
        if hashlib.sha256(content).hexdigest() != MNIST[name]:
            refusals.append(f"{mirror} (other bytes: the sha256 differs)")
            continue
        with tempfile.TemporaryDirectory(dir=folder) as private:
            with open(os.path.join(private, name), "wb") as file:
                file.write(content)
            os.replace(file.name, os.path.join(folder, name))  # no reader ever sees half a file
        return
    raise UserError(
        f"no mirror gave {name}: {'; '.join(refusals)}. Put MNIST's four files into {folder}, "
        "or name the folder that has them with --data"
    )


def prepare(folder):
    """Make sure that the four files are in folder, downloading those that are not."""
    missing = [name for name in MNIST if not os.path.exists(os.path.join(folder, name))]
    if missing:
        try:
            os.makedirs(folder, exist_ok=True)
            for name in missing:
                download(name, folder)
        except OSError as error:
            raise UserError(
                f"{folder} lacks {missing[0]}, and cannot be written: {error.strerror}"
            ) from error


def read_idx(path, ndim):
    """Return a gzipped IDX file of unsigned bytes as a uint8 tensor with ndim dimensions.

    The format is described on MNIST's own page: two zero bytes, the type (8: unsigned byte),
    the number of dimensions, each dimension as a big-endian 32-bit integer, then the values.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}") from error
    header = 4 + 4 * ndim
    magic = bytes((0, 0, 8, ndim))
    if content[:4] != magic:
        raise UserError(
            f"{path} is not an IDX file of {ndim} dimensions: it starts with "
            f"{content[:4].hex() or 'nothing'}, and such a file with {magic.hex()}"
        )
    if len(content) < header:
        raise UserError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{ndim}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise UserError(
            f"{path} holds {len(content) - header} bytes after its header, which says "
            f"{' x '.join(map(str, shape))}"
        )
    if not math.prod(shape):
        raise UserError(f"{path} is empty")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def load(folder, part):
    """Return images, uint8 (N, 28, 28), and labels, int64 (N,)."""
    images_path = os.path.join(folder, f"{part}-images-idx3-ubyte.gz")
    labels_path = os.path.join(folder, f"{part}-labels-idx1-ubyte.gz")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise UserError(
            f"{images_path} holds images of {images.shape[1]} x {images.shape[2]}, "
            "and the network takes 28 x 28"
        )
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images)} images, and {labels_path} has {len(labels)} labels"
        )
    if labels.max() > 9:
        raise UserError(f"{labels_path} has the label {labels.max()}; labels are 0 to 9")
    return images, labels.long()


def windows(images, device):
    """Return a view of all 24 x 24 parts of the normalised images: (N, 5, 5, 24, 24).

    `windows(images)[i, y, x]` starts at row y and column x: 2, 2 is the middle.
    """
    images = images.to(device).float().div_(255).sub_(0.1307).div_(0.3081)  # as is usual
    return images.unfold(1, 24, 1).unfold(2, 24, 1)


# Model


class Net(nn.Module):
    """Two convolutions and two linear layers; pooled before they are normalised: less to do."""

    def __init__(self, widths):
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths[0], 5, bias=False)  # the norm that follows has a bias
        self.norm1 = nn.BatchNorm2d(widths[0])
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, bias=False)
        self.norm2 = nn.BatchNorm2d(widths[1])
        self.fc1 = nn.Linear(widths[1] * 16, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, x):  # (N, 1, 24, 24)
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # (N, 24, 10, 10)
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))  # (N, 32, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (N, 256)
        return self.fc2(x)  # (N, 10)


# Loop


def half_precision(device):
    """Return the context to compute in: bfloat16 where the device has units for it."""
    if device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        return contextlib.nullcontext()  # emulated, and slower than float32
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def schedule(steps):
    """Return for each step the learning rate's factor, and the weight of the averaged weights.

    The rate rises for a quarter of the steps and then falls to nothing; over the last quarter
    the weights are averaged, each step's as much as any other's.
    """
    peak, tail = max(1, steps // 4), steps - max(1, steps // 4)
    factors = [min((i + 1) / peak, (steps - i) / (steps - peak + 1)) for i in range(steps)]
    shares = [1 / (i - tail + 1) if i >= tail else 0.0 for i in range(steps)]
    return torch.tensor(factors), torch.tensor(shares)


def train(args, world, device, images, labels, log):
    """Return the trained network: its weights are averaged over the last quarter of the steps.

    Every process draws the same order, and takes its share of each batch. Batch normalisation
    takes the statistics of that share (so two processes train a little differently than one),
    and the running ones, which the trained network uses, are averaged over the processes.
    """
    model = Net(RECIPES[args.target].widths).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    parallel = model
    if world.size > 1:
        parallel = DistributedDataParallel(model, forward_sync_buffers=False)
    rate = torch.tensor(args.lr, device=device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, betas=(0.7, 0.9), weight_decay=0, fused=True
    )
    crops, labels = windows(images, device), labels.to(device)
    steps = len(images) // args.batch_size  # an epoch's; what is left over differs each time
    factors, shares = schedule(steps * args.epochs)
    generator = torch.Generator().manual_seed(args.seed)
    model.train()
    for epoch in range(args.epochs):
        order = torch.randperm(len(images), generator=generator)[: steps * args.batch_size]
        shifts = torch.randint(5, (2, steps), generator=generator).tolist()
        mine = order.view(steps, world.size, -1)[:, world.rank].to(device)
        losses = torch.empty(steps, device=device)
        for i in range(steps):
            index, step = mine[i], epoch * steps + i
            rate.fill_(args.lr * factors[step])
            with half_precision(device):
                output = parallel(crops[index, shifts[0][i], shifts[1][i]].unsqueeze(1))
            loss = F.cross_entropy(output.float(), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[i] = loss.detach()
            if shares[step]:
                for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                    mean.data.lerp_(weight.data, shares[step])
        log(epoch, steps, factors, average_over_processes(losses, world))
    for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(average_over_processes(buffer, world))
    return average


def average_over_processes(tensor, world):
    if world.size > 1 and tensor.is_floating_point():
        dist.all_reduce(tensor)
        tensor /= world.size
    return tensor


@torch.inference_mode()
def predict(model, images, device):
    """Return the logarithm of each digit's probability, (N, 10)."""
    model.eval()
    crops = windows(images, device)
    outputs = []
    with half_precision(device):
        for index in torch.arange(len(images), device=device).split(1000):
            outputs.append(model(crops[index, 2, 2].unsqueeze(1)).float())
    return torch.cat(outputs).log_softmax(1).cpu()


def confusion(log_probabilities, images, labels):
    """Return what was taken for what, and the images misread, the most confident first."""
    confidence, predicted = log_probabilities.exp().max(1)
    matrix = torch.zeros(10, 10, dtype=torch.long)
    matrix.index_put_((labels, predicted), torch.tensor(1), accumulate=True)
    wrong = (predicted != labels).nonzero().flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True, stable=True)][:100]
    misread = [
        {
            "index": i,
            "label": labels[i].item(),
            "predicted": predicted[i].item(),
            "confidence": confidence[i].item(),
            "width": images.shape[2],
            "height": images.shape[1],
            "pixels": base64.b64encode(bytes(images[i].flatten().tolist())).decode(),
        }
        for i in wrong.tolist()
    ]
    return {"labels": list("0123456789"), "matrix": matrix.tolist(), "misread": misread}


# Processes


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes that train together: torchrun, or whoever starts them, says who is who."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine

    @classmethod
    def of(cls, args):
        if "WORLD_SIZE" not in os.environ:
            if args.distributed:
                raise UserError(
                    "--distributed needs the variables that torchrun sets (RANK, WORLD_SIZE, "
                    "MASTER_ADDR, MASTER_PORT): torchrun --nproc-per-node 2 main.py"
                )
            return cls()
        found = {}
        for name, default in (("RANK", None), ("WORLD_SIZE", None), ("LOCAL_RANK", "0")):
            text = os.environ.get(name, default)
            if text is None or not text.isascii() or not text.isdecimal():
                raise UserError(f"the variable {name} is {text!r}, and should be a number")
            found[name] = int(text)
        world = cls(rank=found["RANK"], size=found["WORLD_SIZE"], local_rank=found["LOCAL_RANK"])
        if world.rank >= world.size:
            raise UserError(f"RANK is {world.rank}, and WORLD_SIZE {world.size}: count from 0")
        if args.batch_size % world.size:
            raise UserError(
                f"--batch-size {args.batch_size} is the batch of all processes together, and "
                f"{world.size} cannot share it equally: take a multiple of {world.size}"
            )
        return world

    @contextlib.contextmanager
    def joined(self, device):
        """Wait until all processes are there; leave them at the end, however that comes."""
        if self.size == 1:
            yield
            return
        try:
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                timeout=PATIENCE,
                rank=self.rank,
                world_size=self.size,
            )
        except (dist.DistError, ValueError) as error:
            raise UserError(
                f"process {self.rank} of {self.size} cannot meet the others at "
                f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise UserError(
                f"process {self.rank} of {self.size} lost the others, whose logs say why: "
                f"{str(error).splitlines()[0]}"
            ) from error
        finally:
            dist.destroy_process_group()


def choose_device(args, world):
    if args.no_accel or not torch.cuda.is_available():
        return torch.device("cpu")
    if world.local_rank >= torch.cuda.device_count():
        raise UserError(
            f"process {world.local_rank} of this machine has no GPU: there are "
            f"{torch.cuda.device_count()}; start as many processes, or use --no-accel"
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return device


# Program


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def parse_arguments():
    # an image made by torchship has the data at /data/mnist
    data = "/data/mnist" if os.path.isdir("/data/mnist") else "data"
    output = os.environ.get("TORCHSHIP_OUTPUT", "output")
    parser = argparse.ArgumentParser(description="MNIST, fast")
    # fmt: off
    parser.add_argument("--target", choices=RECIPES, default="99.25",
                        help="the accuracy to reach on average, in percent (default: 99.25)")
    parser.add_argument("--epochs", type=positive, metavar="N",
                        help="number of epochs to train (default: what --target needs)")
    parser.add_argument("--batch-size", type=positive, default=256, metavar="N",
                        help="images in a batch, of all processes together (default: 256)")
    parser.add_argument("--lr", type=float, default=0.01, metavar="LR",
                        help="the highest learning rate (default: 0.01)")
    parser.add_argument("--seed", type=int, default=1, metavar="S",
                        help="random seed (default: 1)")
    parser.add_argument("--limit", type=positive, metavar="N",
                        help="train on the first N images only")
    parser.add_argument("--validate", action="store_true",
                        help=f"test on the last {HELD_OUT:,} training images instead")
    parser.add_argument("--deterministic", action="store_true",
                        help="use only algorithms that give the same bits each time")
    parser.add_argument("--no-accel", action="store_true",
                        help="train on the CPU, whatever else there is")
    parser.add_argument("--distributed", action="store_true",
                        help="insist on the variables of torchrun, which count wherever set")
    parser.add_argument("--save-model", action="store_true",
                        help="save the trained model as mnist_fast.pt in --output")
    parser.add_argument("--data", default=data, metavar="DIR",
                        help="folder of MNIST's four files, downloaded where missing "
                             f"(default: {data})")
    parser.add_argument("--output", default=output, metavar="DIR",
                        help=f"folder for what the run writes (default: {output})")
    # fmt: on
    return parser.parse_args()


def write_json(document, *path):
    with open(os.path.join(*path), "w") as file:
        file.write(json.dumps(document) + "\n")


def is_mnist(folder):
    for name, expected in MNIST.items():
        with open(os.path.join(folder, name), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return False
    return True


def run(args, world, device):
    say = print if world.rank == 0 else lambda *_: None
    if world.local_rank == 0:  # one process of each machine
        prepare(args.data)
    if world.size > 1:
        dist.barrier()
    train_images, train_labels = load(args.data, "train")
    if args.validate:
        if len(train_images) <= HELD_OUT:
            raise UserError(f"--validate needs more than {HELD_OUT} training images")
        test_images, test_labels = train_images[-HELD_OUT:], train_labels[-HELD_OUT:]
        train_images, train_labels = train_images[:-HELD_OUT], train_labels[:-HELD_OUT]
    else:
        test_images, test_labels = load(args.data, "t10k")
    train_images, train_labels = train_images[: args.limit], train_labels[: args.limit]
    if len(train_images) < args.batch_size:
        raise UserError(
            f"--batch-size {args.batch_size} is more than the {len(train_images)} training images"
        )
    say(
        f"Data: {'MNIST' if is_mnist(args.data) else 'not MNIST'}, {len(train_images)} training "
        f"and {len(test_images)} test images from {args.data}"
    )
    curve = os.path.join(args.output, "metrics.jsonl")
    if world.rank == 0:
        os.makedirs(args.output, exist_ok=True)
        open(curve, "w").close()  # an --output that cannot be written shows before training does

    def log(epoch, steps, factors, losses):
        """Print an epoch's loss, and keep its course in ten points or so."""
        losses = losses.tolist()
        say(f"Train Epoch: {epoch + 1}\tLoss: {sum(losses) / steps:.6f}")
        if not all(map(math.isfinite, losses)):
            raise UserError(
                f"the loss is no number after epoch {epoch + 1}: training diverged; "
                "try a smaller --lr"
            )
        if world.rank != 0:
            return
        every = max(1, steps // 10)
        with open(curve, "a") as file:
            for end in range(every, steps + 1, every):
                step = epoch * steps + end
                point = {
                    "step": step,
                    "epoch": round(step / steps, 4),
                    "lr": args.lr * factors[step - 1].item(),
                    "train_loss": sum(losses[end - every : end]) / every,
                }
                file.write(json.dumps(point) + "\n")

    started = time.perf_counter()
    model = train(args, world, device, train_images, train_labels, log)
    trained = time.perf_counter()
    if world.rank != 0:
        return
    log_probabilities = predict(model, test_images, device)
    tested = time.perf_counter()
    correct = log_probabilities.argmax(1).eq(test_labels).sum().item()
    loss = F.nll_loss(log_probabilities, test_labels).item()
    accuracy = correct / len(test_images)
    say(
        f"\nTest set: Average loss: {loss:.4f}, Accuracy: {correct}/{len(test_images)} "
        f"({100 * accuracy:.2f}%)\n"
    )
    say(
        f"{args.epochs} epochs in {trained - started:.2f} seconds, test in "
        f"{tested - trained:.2f} seconds on {device}, {world.size} processes, "
        f"{torch.get_num_threads()} threads each"
    )
    final = {"test_accuracy": accuracy, "test_loss": loss, "epochs": args.epochs}
    write_json(final, args.output, "metrics.json")
    write_json(
        confusion(log_probabilities, test_images, test_labels), args.output, "confusion.json"
    )
    if args.save_model:
        torch.save(model.state_dict(), os.path.join(args.output, "mnist_fast.pt"))


def main():
    args = parse_arguments()
    args.epochs = args.epochs or RECIPES[args.target].epochs
    world = World.of(args)
    device = choose_device(args, world)
    torch.manual_seed(args.seed)
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    with world.joined(device):
        run(args, world, device)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:  # OSError: --output cannot be written, a full disk
        sys.exit(f"main.py: error: {error}")
