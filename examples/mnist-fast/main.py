"""Train a small network on MNIST as fast as the machine can.

The task and the data of `../mnist`, which is the example everybody knows. This one is written for
speed: the whole set resident, batches cut out by one indexing operation, a network whose arrays
are small, a high learning rate that rises and falls, weights averaged over the end.

    python main.py                          # the best trade for this device
    python main.py --target 99.0            # as accurate as that, on average
    torchrun --nproc-per-node 2 main.py     # two processes share each batch

Evidence: accuracy on the 10,000 test images for seeds 1 to 10, none left out. Seconds: median
processor time from the first training step to the last prediction. Last column: how many times as
long PyTorch's own example trains, without its tests, for the epochs shown (4 give 98.98%, 14 give
99.19%: the record of `../mnist`). One thread of an AMD EPYC with AVX2, torch 2.13.0+cpu; starting
torch and reading the files are left out. `benchmarks/training.py` of torchship measures it again.

    target  epochs  mean     least   greatest  seconds  PyTorch's example
    ------  ------  -------  ------  --------  -------  --------------------
    99.0    0.5     99.09%   99.03%  99.16%    4.3      4 epochs: 137 times
    99.25   1.25    99.41%   99.35%  99.48%    8.8      14 epochs: 213 times
    99.5    4       99.54%   99.47%  99.62%    28.4     14 epochs: 71 times

Two threads, in a quiet minute: 2.8 s for 99.0 and 6.2 s for 99.25 by the clock (one run each).

Two processes (`--target 99.0`, seeds 1 to 3): 99.13, 99.10, 99.08%; one: 99.16, 99.11, 99.06%.
GPUs: not measured, as none could be had.
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
MEAN, DEVIATION = 255 * 0.1307, 255 * 0.3081  # of the training images' bytes
SURE = 0.8  # a first look at least this confident stands; label smoothing 0.1 teaches at most 0.91
HELD_OUT = 5_000  # training images that --validate tests on
PATIENCE = datetime.timedelta(minutes=5)  # with other processes, at the start and in a step


class UserError(Exception):
    """The run cannot go on; the message is one line for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What a --target is reached with."""

    epochs: float
    widths: tuple[int, int, int] = (16, 32, 128)  # channels of both convolutions; hidden units


RECIPES = {
    "99.0": Recipe(epochs=0.5),
    "99.25": Recipe(epochs=1.25),
    "99.5": Recipe(epochs=4),
    "99.7": Recipe(epochs=20, widths=(64, 128, 256)),  # for GPUs; not measured
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


def windows(images):
    """Return a view of all 24 x 24 parts of images (N, 28, 28): (N, 5, 5, 24, 24).

    `windows(images)[i, y, x]` starts at row y and column x: 2, 2 is the middle.
    """
    return images.unfold(1, 24, 1).unfold(2, 24, 1)


def cut(parts, image, row, column):
    """Return a batch of windows as the network takes them: float32 (N, 1, 24, 24), normalised."""
    return parts[image, row, column].unsqueeze(1).float().sub_(MEAN).div_(DEVIATION)


# Model


class Net(nn.Module):
    """Two convolutions and two linear layers; pooled before they are normalised: less to do."""

    def __init__(self, widths):
        super().__init__()
        first, second, hidden = widths
        self.conv1 = nn.Conv2d(1, first, 5, bias=False)  # the norm that follows has a bias
        self.norm1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(second)
        self.fc1 = nn.Linear(second * 16, hidden)
        self.fc2 = nn.Linear(hidden, 10)

    def forward(self, x):  # (N, 1, 24, 24); shapes for the default widths
        x = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # (N, 16, 10, 10)
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))  # (N, 32, 4, 4)
        x = F.relu(self.fc1(x.flatten(1)))  # (N, 128)
        return self.fc2(x)  # (N, 10)


def half_precision(device):
    """Return the context to compute in: bfloat16 where the device has units for it."""
    if device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        return contextlib.nullcontext()  # emulated, and slower than float32
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


# Optimiser


def make_optimizer(model, rate, device):
    """Return AdamW with short memories, as in a short training; rate is a tensor, set each step."""
    return torch.optim.AdamW(
        model.parameters(),
        lr=rate,
        betas=(0.7, 0.9),
        weight_decay=0,
        fused=True,
        capturable=device.type == "cuda",
    )


def schedule(steps, peak_rate):
    """Return for each step the learning rate, and its weights' portion of the average: (steps, 2).

    The rate rises for a quarter of the steps and then falls to nothing; over the last quarter
    the weights are averaged, each step's as much as any other's.
    """
    peak, tail = max(1, steps // 4), steps - max(1, steps // 4)
    rates = [min((i + 1) / peak, (steps - i) / (steps - peak + 1)) for i in range(steps)]
    portions = [1 / (i - tail + 1) if i >= tail else 0.0 for i in range(steps)]
    pairs = zip(rates, portions, strict=True)
    return torch.tensor([[peak_rate * rate, portion] for rate, portion in pairs])


def draw(count, steps, batch_size, seed):
    """Return for each step the images, rows and columns to cut from: int64 (steps, 3, batch).

    Every image comes once an epoch, but for those that are left over when the batches are full,
    others each time. It is moved by up to a pixel each way.
    """
    generator = torch.Generator().manual_seed(seed)
    whole = count // batch_size * batch_size
    epochs = range(math.ceil(steps * batch_size / whole))
    order = torch.cat([torch.randperm(count, generator=generator)[:whole] for _ in epochs])
    images = order[: steps * batch_size].view(steps, 1, batch_size)
    corners = torch.randint(1, 4, (steps, 2, batch_size), generator=generator)
    return torch.cat([images, corners], dim=1)


# Loop


def train(args, world, device, images, labels, log):
    """Return the trained network: its weights are averaged over the last quarter of the steps.

    Every process draws the same places, and takes its share of each batch. Batch normalisation
    takes the statistics of that share (so two processes train a little differently than one),
    and the running ones, which the trained network uses, are averaged over the processes.
    """
    model = Net(args.widths).to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(model)
    parallel = model
    if world.size > 1:
        parallel = DistributedDataParallel(model, forward_sync_buffers=False)
    rate = torch.zeros((), device=device)
    optimizer = make_optimizer(model, rate, device)
    parts, labels = windows(images.to(device)), labels.to(device)
    epoch = len(images) // args.batch_size  # batches
    steps = max(1, round(args.epochs * epoch))
    places = draw(len(images), steps, args.batch_size, args.seed)
    places = places.chunk(world.size, dim=2)[world.rank].to(device)  # (steps, 3, share)
    plan = schedule(steps, args.lr)
    plan_on_device = plan.to(device)
    losses = torch.zeros(steps, device=device)
    at = torch.zeros(1, dtype=torch.long, device=device)  # the step: a tensor, so that a CUDA
    # graph, which repeats the same kernels on the same addresses, takes another step each time

    def step():
        image, row, column = places.index_select(0, at)[0]
        with half_precision(device):
            output = parallel(cut(parts, image, row, column))
        loss = F.cross_entropy(output.float(), labels[image], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        now, portion = plan_on_device.index_select(0, at)[0]
        rate.copy_(now)
        optimizer.step()
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.data.lerp_(weight.data, portion)
        losses.index_copy_(0, at, loss.detach().view(1))
        at.add_(1)

    done = 0
    for end in laps(step, steps, epoch, world, device):
        loss = average_over_processes(losses[done:end].mean(), world).item()
        log(end, steps, plan[end - 1, 0].item(), loss)
        done = end
    for mean, buffer in zip(average.buffers(), model.buffers(), strict=True):
        mean.copy_(average_over_processes(buffer, world))
    return average


def laps(step, steps, epoch, world, device):
    """Take all the steps, and yield how many are done, lap by lap.

    On a GPU a lap, as long as an epoch, is captured as one CUDA graph and then replayed: to
    start the kernels one by one takes longer than to run them. The first steps are taken one by
    one, as capturing asks: libraries choose their kernels in them, and allocate.
    """
    graphs = device.type == "cuda" and world.size == 1  # NCCL in graphs asks for more care
    lap = max(1, min(epoch if graphs else 32, steps - 3))
    whole = max(0, steps - 3) // lap
    done = steps - whole * lap
    with aside(device):
        for _ in range(done):
            step()
    yield done
    if whole and graphs:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(lap):
                step()
    for _ in range(whole):
        if graphs:
            graph.replay()
        else:
            for _ in range(lap):
                step()
        done += lap
        yield done


@contextlib.contextmanager
def aside(device):
    """Work on a stream of its own on a GPU, as CUDA graphs ask of what comes before them."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream().wait_stream(stream)


def average_over_processes(tensor, world):
    if world.size > 1 and tensor.is_floating_point():
        dist.all_reduce(tensor)
        tensor /= world.size
    return tensor


@torch.inference_mode()
def predict(model, images, device):
    """Return the logarithm of each digit's probability, (N, 10).

    An image that the network is unsure of is looked at from a pixel to each side, too, and the
    five answers are averaged.
    """
    model.eval()
    parts = windows(images.to(device))

    def look(indices, row, column):
        with half_precision(device):
            outputs = [model(cut(parts, i, row, column)) for i in indices.split(250)]
        return torch.cat(outputs).float().log_softmax(1)

    seen = look(torch.arange(len(images), device=device), 2, 2)
    unsure = (seen.amax(1) < math.log(SURE)).nonzero().flatten()
    views = [look(unsure, row, column) for row, column in ((1, 2), (3, 2), (2, 1), (2, 3))]
    seen[unsure] = (seen[unsure] + sum(views)).div(5).log_softmax(1)
    return seen.cpu()


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
            # torchrun's store outlives the processes: those that it starts again must not meet
            # at the addresses that were left in it
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store, _, _ = next(dist.rendezvous("env://", self.rank, self.size, timeout=PATIENCE))
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                timeout=PATIENCE,
                rank=self.rank,
                world_size=self.size,
                store=dist.PrefixStore(f"attempt {attempt}", store),
            )
        except (RuntimeError, ValueError) as error:
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


def amount(text):
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return number


def parse_arguments(argv=None):
    # an image made by torchship has the data at /data/mnist
    data = "/data/mnist" if os.path.isdir("/data/mnist") else "data"
    output = os.environ.get("TORCHSHIP_OUTPUT", "output")
    parser = argparse.ArgumentParser(description="MNIST, fast")
    # fmt: off
    parser.add_argument("--target", choices=RECIPES,
                        help="the accuracy to reach on average, in percent (default: 99.7 on a "
                             "GPU, 99.5 elsewhere)")
    parser.add_argument("--epochs", type=amount, metavar="N",
                        help="number of epochs to train, 0.5 or so too (default: --target's)")
    parser.add_argument("--widths", type=positive, nargs=3, metavar="N",
                        help="channels of both convolutions, hidden units (default: --target's)")
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
    args = parser.parse_args(argv)
    gpu = torch.cuda.is_available() and not args.no_accel
    args.target = args.target or ("99.7" if gpu else "99.5")
    args.epochs = args.epochs or RECIPES[args.target].epochs
    args.widths = args.widths or RECIPES[args.target].widths
    return args


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
        for name in ("metrics.json", "confusion.json"):  # a run that fails leaves no older figures
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(args.output, name))

    def log(step, steps, rate, loss):
        """Print a lap's loss, and keep it; a training that diverged ends here."""
        epoch = step * args.batch_size / len(train_images)
        say(f"Train Step: {step}/{steps}\tEpoch: {epoch:.2f}\tLoss: {loss:.6f}")
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} after step {step}: training diverged; try a smaller --lr"
            )
        if world.rank == 0:
            point = {"step": step, "epoch": round(epoch, 4), "lr": rate, "train_loss": loss}
            with open(curve, "a") as file:
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
        f"{args.epochs:g} epochs in {trained - started:.2f} seconds, test in "
        f"{tested - trained:.2f} seconds on {device} "
        f"(processes: {world.size}, threads of each: {torch.get_num_threads()})"
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
