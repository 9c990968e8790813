"""Where two runs of one seed part, and what of their environments could be the cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torchship.runs.curve import places, step_name
from torchship.runs.record import Hardware, Record, Run, Software
from torchship.runs.verdict import bits


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstDifference:
    """The first logged step in which two runs of a seed are not the same.

    ``step`` names it, such as ``epoch 3``; ``same`` the last step known to be equal, None where
    there is none. ``author`` and ``reproducer`` are the values of ``name``; None: not logged.
    """

    seed: int | None
    source: str
    step: str
    name: str
    author: float | None
    reproducer: float | None
    same: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing about the two environments; None where it is not known, or not there."""

    name: str
    author: str | None
    reproducer: str | None

    @property
    def changed(self) -> bool:
        """Tell whether both are known, and differ."""
        return self.known and self.author != self.reproducer

    @property
    def known(self) -> bool:
        """Tell whether both sides looked."""
        return self.author is not None and self.reproducer is not None


def first_difference(author: Record, reproducer: Record) -> FirstDifference | None:
    """Return where the curves part, of the first seed that both ran; None: they do not.

    Nothing can be said, and None is returned, where no seed was run by both, or no steps were
    logged.
    """
    theirs = {run.seed: run for run in author.runs}
    for run in reproducer.runs:
        if run.seed in theirs:
            found = _parting(theirs[run.seed], run)
            if found is not None:
                return found
    return None


def _parting(author: Run, reproducer: Run) -> FirstDifference | None:
    one, other = author.curve, reproducer.curve
    if one is None or other is None or one.source != other.source:
        return None
    steps = dict(zip(places(one), one.steps, strict=True))
    others = dict(zip(places(other), other.steps, strict=True))
    counter = step_name(one)
    same = None
    for place in sorted(steps.keys() & others.keys()):
        left, right = steps[place], others[place]
        label = _label(counter, left, place)
        for name in (*left, *(name for name in right if name not in left)):
            values = left.get(name), right.get(name)
            if bits(values[0]) != bits(values[1]):
                return FirstDifference(
                    seed=author.seed,
                    source=one.source,
                    step=label,
                    name=name,
                    author=values[0],
                    reproducer=values[1],
                    same=same,
                )
        same = label
    if one.count != other.count:
        return FirstDifference(
            seed=author.seed,
            source=one.source,
            step="the end",
            name="number of steps",
            author=float(one.count),
            reproducer=float(other.count),
            same=same,
        )
    return None


def _label(counter: str | None, step: Mapping[str, float], place: int) -> str:
    return f"step {place + 1}" if counter is None else f"{counter} {step.get(counter, 0):.15g}"


def environment(author: Record, reproducer: Record) -> tuple[Fact, ...]:
    """Compare the two environments: what changed first, the most likely cause at the top.

    The order is that of what is known to change bits: threads split sums in another way, other
    processors run other kernels, other builds of torch hold others.
    """
    facts = tuple(_facts(author, reproducer))
    return (
        *(fact for fact in facts if fact.changed),
        *(fact for fact in facts if not fact.changed and (fact.author or fact.reproducer)),
    )


def _facts(author: Record, reproducer: Record) -> Iterator[Fact]:
    one, other = author.determinism, reproducer.determinism

    def fact(name: str, left: object, right: object) -> Fact:
        return Fact(name=name, author=_text(left), reproducer=_text(right))

    left, right = author.hardware or _NO_HARDWARE, reproducer.hardware or _NO_HARDWARE
    mine, yours = author.software or _NO_SOFTWARE, reproducer.software or _NO_SOFTWARE
    yield fact("threads", one.threads, other.threads)
    yield fact("threads between operators", one.interop_threads, other.interop_threads)
    yield fact("workers", one.workers, other.workers)
    for name in sorted({*one.environment, *other.environment}):
        unset = "not set"
        yield fact(name, one.environment.get(name, unset), other.environment.get(name, unset))
    yield fact("determinism profile", one.profile, other.profile)
    yield fact("architecture", left.machine or None, right.machine or None)
    yield fact("CPU vendor", left.vendor, right.vendor)
    yield fact("instruction set", left.instruction_set, right.instruction_set)
    yield fact("CPU", left.cpu, right.cpu)
    if left.flags and right.flags:
        missing = sorted({*left.flags} ^ {*right.flags})
        both = " ".join(flag for flag in missing if flag in left.flags) or "none of these"
        yield fact(
            "CPU features on one side only",
            both if missing else "none",
            (" ".join(flag for flag in missing if flag in right.flags) or "none of these")
            if missing
            else "none",
        )
    yield fact("torch", mine.torch, yours.torch)
    yield fact("torch's build", *_apart(mine.torch_build, yours.torch_build))
    yield fact("CUDA of torch", mine.cuda, yours.cuda)
    yield fact("cuDNN", mine.cudnn, yours.cudnn)
    looked = author.hardware is not None, reproducer.hardware is not None
    yield fact("GPUs", _gpus(left) if looked[0] else None, _gpus(right) if looked[1] else None)
    yield fact("GPU driver", left.driver, right.driver)
    files = {file.name: str(file.digest) for file in author.data}
    others = {file.name: str(file.digest) for file in reproducer.data}
    for name in sorted({*files, *others}):
        yield fact(f"data {name}", files.get(name), others.get(name))
    yield fact("numpy", mine.numpy, yours.numpy)
    yield fact("Python", mine.python or None, yours.python or None)
    yield fact("C library", mine.libc, yours.libc)
    yield fact("kernel", mine.kernel, yours.kernel)
    yield fact("processors", left.processors, right.processors)
    yield fact("memory", _gigabytes(left.memory), _gigabytes(right.memory))
    yield fact("engine", author.engine, reproducer.engine)
    yield fact("image", author.image.manifest, reproducer.image.manifest)
    yield fact("torchship", author.torchship, reproducer.torchship)
    for name in sorted(mine.packages.keys() & yours.packages.keys()):
        if mine.packages[name] != yours.packages[name]:
            yield fact(f"package {name}", mine.packages[name], yours.packages[name])


_NO_HARDWARE = Hardware(machine="")
_NO_SOFTWARE = Software(python="")


def _apart(author: str | None, reproducer: str | None) -> tuple[str | None, str | None]:
    """Return two long texts without the lines that they share, if they differ."""
    if author is None or reproducer is None or author == reproducer:
        return author, reproducer
    one, other = author.splitlines(), reproducer.splitlines()
    return (
        "; ".join(line for line in one if line not in other) or "(the same, and more there)",
        "; ".join(line for line in other if line not in one) or "(the same, and more there)",
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _gpus(hardware: Hardware) -> str:
    names = [gpu.name for gpu in hardware.gpus]
    counted = [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    return ", ".join(counted) or "none"


def _gigabytes(size: int | None) -> str | None:
    return None if size is None else f"{size / 1e9:.1f} GB"
