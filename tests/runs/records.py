"""Records of given numbers, for the tests here."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from torchship.digest import Digest
from torchship.project.project import Metric
from torchship.runs.claims import claims
from torchship.runs.record import (
    Curve,
    DataUsed,
    Determinism,
    Gpu,
    Hardware,
    ImageUsed,
    Record,
    Repeat,
    Run,
    Software,
    Source,
)

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
IMAGE = ImageUsed(
    name="mnist", platform="linux/amd64", manifest=Digest.of(b"image"), base="debian:bookworm"
)
ACCURACY = Metric(name="test_accuracy", better="higher")


def run(seed: int | None, *, status: int = 0, output: bytes = b"", **metrics: float) -> Run:
    """Return a run that gave these metrics."""
    return Run(
        started=NOW,
        seconds=1.5,
        status=status,
        seed=seed,
        metrics=metrics,
        outputs={"model.bin": Digest.of(output or repr((seed, metrics)).encode())},
    )


def record(*runs: Run, metrics: tuple[Metric, ...] = (ACCURACY,), **changes) -> Record:
    """Return a record of those runs, with the claims that follow from them."""
    found = Record(
        image=IMAGE,
        command=("python", "main.py"),
        runs=runs,
        recorded=NOW,
        torchship="0.1.0",
        engine="native",
        seed="--seed {seed}",
        claims=claims(runs, metrics),
    )
    return replace(found, **changes)


def accuracies(*values: float, first: int = 1, metric: Metric = ACCURACY, **changes) -> Record:
    """Return a record of runs with seeds from ``first`` that gave these accuracies."""
    runs = [run(seed, test_accuracy=value) for seed, value in enumerate(values, start=first)]
    return record(*runs, metrics=(metric,), **changes)


def whole() -> Record:
    """Return a record in which nothing is left out."""
    runs = tuple(
        replace(
            run(seed, test_accuracy=value, test_loss=0.1 * seed),
            curve=Curve(source="metrics.jsonl", count=1, steps=({"epoch": 1.0, "loss": 0.1},)),
            tensors={"model.bin": Digest.of(b"tensors")},
            diverged=("train_loss",),
        )
        for seed, value in enumerate((0.99, 0.991, 0.9917), start=1)
    )
    return record(
        *runs,
        metrics=(ACCURACY, Metric(name="test_loss", better="lower", tolerance=0.1, examples=10)),
        image=replace(IMAGE, index=Digest.of(b"index")),
        parameters={"epochs": "1"},
        network=True,
        source=Source(tree=Digest.of(b"tree"), commit="a" * 40, dirty=False),
        data=(DataUsed(name="/data/x", digest=Digest.of(b"x"), size=1),),
        determinism=Determinism(
            profile="strict",
            environment={"OMP_NUM_THREADS": "2"},
            threads=2,
            interop_threads=1,
            workers=0,
            repeat=Repeat(seed=1, identical=False, differs=("model.bin",)),
        ),
        hardware=Hardware(
            machine="x86_64",
            cpu="AMD EPYC",
            vendor="AuthenticAMD",
            processors=2,
            memory=8 << 30,
            instruction_set="AVX2",
            flags=("avx2",),
            gpus=(Gpu(name="H200", capability="9.0", memory=1 << 37),),
            driver="570.1",
        ),
        software=Software(
            python="3.11.2",
            kernel="6.1",
            libc="glibc 2.36",
            torch="2.13.0+cpu",
            torch_build="PyTorch built with: GCC",
            cuda="13.0",
            cudnn="9.1",
            numpy="2.3",
            packages={"torch": "2.13.0+cpu"},
        ),
    )
