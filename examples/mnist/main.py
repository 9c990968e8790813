"""Train a small convolutional network on MNIST: PyTorch's own example, without torchvision.

The network, the optimiser, the flags, their defaults and the log lines are those of
`mnist/main.py` in PyTorch's examples repository (BSD 3-Clause). Three things differ:

- it reads MNIST's four files itself, and holds the whole normalised set as tensors on the
  device, so that no Python runs per image: a batch is one indexing operation;
- it shuffles the training set on every device (the original only on accelerators);
- it leaves `metrics.json` (the last epoch's figures) and `metrics.jsonl` (one object an epoch)
  in --output. No times are in them: two runs that computed the same have the same bytes.

    python main.py                      # 14 epochs
    python main.py --epochs 1           # the shortest honest run
    python main.py --data DIR           # a folder with the four files, or where to put them

Evidence (all from recorded runs; accuracy on the 10,000 test images, seconds of training):

    epochs  seeds  accuracy  seconds/epoch  device             torch
    ------  -----  --------  -------------  -----------------  ----------
    1       1      98.56%    76             2 CPU cores        2.13.0+cpu
    14      1      99.24%    222            2 CPU cores, busy  2.13.0+cpu
"""

import argparse
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

# torch says this whenever NumPy is absent; nothing here needs it, and the image is smaller
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
# ruff: noqa: E402 - the filter has to stand before torch is imported

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.optim.lr_scheduler import StepLR

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


class DataError(Exception):
    """The data cannot be used; the message is one line for the user."""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, 1)
        self.conv2 = nn.Conv2d(32, 64, 3, 1)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):  # (N, 1, 28, 28)
        x = F.relu(self.conv1(x))  # (N, 32, 26, 26)
        x = F.relu(self.conv2(x))  # (N, 64, 24, 24)
        x = self.dropout1(F.max_pool2d(x, 2))  # (N, 64, 12, 12)
        x = torch.flatten(x, 1)  # (N, 9216)
        x = self.dropout2(F.relu(self.fc1(x)))  # (N, 128)
        return F.log_softmax(self.fc2(x), dim=1)  # (N, 10)


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
    raise DataError(
        f"no mirror gave {name}: {'; '.join(refusals)}. Put MNIST's four files into {folder}, "
        "or name the folder that has them with --data"
    )


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
        raise DataError(f"{path} cannot be read: {reason}") from error
    header = 4 + 4 * ndim
    magic = bytes((0, 0, 8, ndim))
    if content[:4] != magic:
        raise DataError(
            f"{path} is not an IDX file of {ndim} dimensions: it starts with "
            f"{content[:4].hex() or 'nothing'}, and such a file with {magic.hex()}"
        )
    if len(content) < header:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = struct.unpack(f">{ndim}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} holds {len(content) - header} bytes after its header, which says "
            f"{' x '.join(map(str, shape))}"
        )
    if not math.prod(shape):
        raise DataError(f"{path} is empty")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).view(shape)


def load(folder, part, device):
    """Return images, float (N, 1, 28, 28) normalised, and labels, int64 (N,), on the device."""
    images_path = os.path.join(folder, f"{part}-images-idx3-ubyte.gz")
    labels_path = os.path.join(folder, f"{part}-labels-idx1-ubyte.gz")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise DataError(
            f"{images_path} holds images of {images.shape[1]} x {images.shape[2]}, "
            "and the network takes 28 x 28"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{images_path} has {len(images)} images, and {labels_path} has {len(labels)} labels"
        )
    if labels.max() > 9:
        raise DataError(f"{labels_path} has the label {labels.max()}; labels are 0 to 9")
    images = images.to(device).unsqueeze(1).float().div_(255)
    images.sub_(0.1307).div_(0.3081)  # mean and standard deviation of MNIST's training images
    return images, labels.to(device).long()


def is_mnist(folder):
    for name, expected in MNIST.items():
        with open(os.path.join(folder, name), "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                return False
    return True


def prepare(folder):
    """Make sure that the four files are in folder, downloading those that are not."""
    missing = [name for name in MNIST if not os.path.exists(os.path.join(folder, name))]
    if missing:
        try:
            os.makedirs(folder, exist_ok=True)
            for name in missing:
                download(name, folder)
        except OSError as error:
            raise DataError(
                f"{folder} lacks {missing[0]}, and cannot be written: {error.strerror}"
            ) from error


def train(args, model, data, target, generator, optimizer, epoch):
    """Train for one epoch; return the mean training loss of the batches seen."""
    model.train()
    order = torch.randperm(len(data), generator=generator).to(data.device)
    batches = order.split(args.batch_size)
    losses = []
    for batch_idx, index in enumerate(batches):
        optimizer.zero_grad()
        output = model(data[index])
        loss = F.nll_loss(output, target[index])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())  # not .item(): that would wait for the device every batch
        if batch_idx % args.log_interval == 0:
            print(
                f"Train Epoch: {epoch} [{batch_idx * len(index)}/{len(data)} "
                f"({100.0 * batch_idx / len(batches):.0f}%)]\tLoss: {loss.item():.6f}"
            )
            if args.dry_run:
                break
    return torch.stack(losses).mean().item()


def test(args, model, data, target):
    """Return the mean loss and the accuracy, a fraction, on the test set."""
    model.eval()
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for index in torch.arange(len(data), device=data.device).split(args.test_batch_size):
            output = model(data[index])
            test_loss += F.nll_loss(output, target[index], reduction="sum").item()  # sum up
            pred = output.argmax(dim=1)  # the index of the max log-probability
            correct += pred.eq(target[index]).sum().item()
    test_loss /= len(data)
    accuracy = correct / len(data)
    print(
        f"\nTest set: Average loss: {test_loss:.4f}, Accuracy: {correct}/{len(data)} "
        f"({100.0 * accuracy:.0f}%)\n"
    )
    return test_loss, accuracy


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def parse_arguments():
    # an image made by torchship has the data at /data/mnist
    data = "/data/mnist" if os.path.isdir("/data/mnist") else "data"
    output = os.environ.get("TORCHSHIP_OUTPUT", "output")
    parser = argparse.ArgumentParser(description="PyTorch MNIST Example")
    # fmt: off
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N",
                        help="input batch size for training (default: 64)")
    parser.add_argument("--test-batch-size", type=positive, default=1000, metavar="N",
                        help="input batch size for testing (default: 1000)")
    parser.add_argument("--epochs", type=positive, default=14, metavar="N",
                        help="number of epochs to train (default: 14)")
    parser.add_argument("--lr", type=float, default=1.0, metavar="LR",
                        help="learning rate (default: 1.0)")
    parser.add_argument("--gamma", type=float, default=0.7, metavar="M",
                        help="learning rate step gamma (default: 0.7)")
    parser.add_argument("--no-accel", "--no-cuda", action="store_true",
                        help="disables accelerator")
    parser.add_argument("--dry-run", action="store_true",
                        help="quickly check a single pass")
    parser.add_argument("--seed", type=int, default=1, metavar="S",
                        help="random seed (default: 1)")
    parser.add_argument("--log-interval", type=positive, default=10, metavar="N",
                        help="how many batches to wait before logging training status")
    parser.add_argument("--save-model", action="store_true",
                        help="save the trained model as mnist_cnn.pt in --output")
    parser.add_argument("--deterministic", action="store_true",
                        help="use only algorithms that give the same bits each time")
    parser.add_argument("--data", default=data, metavar="DIR",
                        help="folder of MNIST's four files, downloaded where missing "
                             f"(default: {data})")
    parser.add_argument("--output", default=output, metavar="DIR",
                        help=f"folder for what the run writes (default: {output})")
    # fmt: on
    return parser.parse_args()


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    if args.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
    if not args.no_accel and torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
    else:
        device = torch.device("cpu")

    prepare(args.data)
    train_data, train_target = load(args.data, "train", device)
    test_data, test_target = load(args.data, "t10k", device)
    name = "MNIST" if is_mnist(args.data) else "not MNIST"
    print(
        f"Data: {name}, {len(train_data)} training and {len(test_data)} test images "
        f"from {args.data}"
    )
    os.makedirs(args.output, exist_ok=True)
    curves = os.path.join(args.output, "metrics.jsonl")
    open(curves, "w").close()  # an --output that cannot be written shows before training does

    model = Net().to(device)
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    # a generator of its own: the order of the images does not hang on how dropout draws
    generator = torch.Generator().manual_seed(args.seed)

    started = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        train_loss = train(args, model, train_data, train_target, generator, optimizer, epoch)
        test_loss, test_accuracy = test(args, model, test_data, test_target)
        if not math.isfinite(test_loss):
            sys.exit(
                f"main.py: error: the loss is {test_loss} after epoch {epoch}: training "
                "diverged; try a smaller --lr"
            )
        figures = {
            "train_loss": train_loss,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }
        step = {"epoch": epoch, "lr": scheduler.get_last_lr()[0], **figures}
        with open(curves, "a") as file:
            file.write(json.dumps(step) + "\n")
        # after every epoch, so that a stopped run never leaves an older run's figures
        with open(os.path.join(args.output, "metrics.json"), "w") as file:
            file.write(json.dumps({**figures, "epochs": epoch}) + "\n")
        scheduler.step()
    print(f"{args.epochs} epochs in {time.perf_counter() - started:.1f} seconds on {device}")

    if args.save_model:
        torch.save(model.state_dict(), os.path.join(args.output, "mnist_cnn.pt"))


if __name__ == "__main__":
    try:
        main()
    except (DataError, OSError) as error:  # OSError: --output cannot be written, a full disk
        sys.exit(f"main.py: error: {error}")
