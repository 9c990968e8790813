"""What a reproduction can expect on this machine, said before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from torchship.amounts import counted
from torchship.runs.inside import Facts
from torchship.runs.record import Hardware, Record


def expectation(author: Record, here: Facts) -> tuple[str, ...]:
    """Return what to expect, in sentences; ``here`` was learnt in a container of this machine."""
    return tuple(_sentences(author, here))


def _sentences(author: Record, here: Facts) -> Iterator[str]:
    seconds = [run.seconds for run in author.runs if run.status == 0]
    if seconds:
        middle = sorted(seconds)[len(seconds) // 2]
        yield f"a run took the author {_duration(middle)}"
    repeat = author.determinism.repeat
    if repeat is not None and not repeat.identical:
        yield "the author's own repeat of a seed gave other bits: do not expect the same bits"
        return
    theirs, ours = author.hardware, here.hardware
    if theirs is None or ours is None:
        yield "the author's machine is not known: the same bits may come out, or not"
        return
    yield _of_machines(theirs, ours)
    threads = author.determinism.threads
    if threads is not None and here.threads is not None and threads != here.threads:
        yield (
            f"torch takes {counted(here.threads, 'thread')} here, and took "
            f"{threads} there: sums are split in another way, so expect other last digits"
        )


def _of_machines(theirs: Hardware, ours: Hardware) -> str:
    if bool(theirs.gpus) != bool(ours.gpus):
        where = "a GPU there and on the CPU here" if theirs.gpus else "the CPU there and a GPU here"
        return f"it ran on {where}: expect other bits, within the tolerance"
    if theirs.gpus:
        one, other = theirs.gpus[0].name, ours.gpus[0].name
        if one == other:
            return f"the same model of GPU ({one}): the same bits are likely where torch allows"
        return f"a {other} here, and a {one} there: expect other bits, within the tolerance"
    if theirs.machine != ours.machine:
        return f"{ours.machine} here, and {theirs.machine} there: expect other bits"
    if theirs.vendor != ours.vendor:
        return (
            f"a processor of another vendor ({ours.vendor}, not {theirs.vendor}): expect other bits"
        )
    if theirs.instruction_set != ours.instruction_set:
        return (
            f"torch uses {ours.instruction_set} here, and used {theirs.instruction_set} there: "
            "expect other bits"
        )
    if theirs.cpu != ours.cpu:
        return f"another processor of the same vendor ({ours.cpu}): the same bits are possible"
    return f"the same model of processor ({ours.cpu}): the same bits are likely"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
