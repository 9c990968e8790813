"""The comparison of two records: what an author's runs gave, and what a reproduction's did.

A verdict follows from the two records alone. All claims must hold; what a claim is judged by
is in `judgement`, and docs/reproducing.md says it in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torchship.amounts import listed
from torchship.runs.claims import observations
from torchship.runs.judgement import Judgement, Level, judge
from torchship.runs.record import Record, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What comes of it. ``reasons`` say why it is this level and no other, the first one first.

    ``differs`` names the metrics and outputs in which a run differs from the author's of the
    same seed.
    """

    level: Level
    claims: tuple[Judgement, ...] = ()
    reasons: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, 1, 3 or 4: see `Level`."""
        return self.level.exit_code

    @property
    def wording(self) -> str:
        """The verdict in its own words, such as ``NOT REPRODUCED (better)``."""
        failed = [each for each in self.claims if each.level is Level.NOT_REPRODUCED]
        if self.level is Level.NOT_REPRODUCED and failed and all(each.better for each in failed):
            return f"{self.level} (better)"
        return str(self.level)


def compare(author: Record, reproducer: Record) -> Verdict:
    """Judge a reproduction by its author's record. Pure: the same records, the same verdict."""
    crashed = [run for run in reproducer.runs if run.status != 0]
    if crashed:
        return Verdict(level=Level.COULD_NOT_RUN, reasons=(_crashes(crashed, reproducer),))
    other = _something_else(author, reproducer)
    if other:
        reason = f"this is not a reproduction of the same thing: {'; '.join(other)}"
        return Verdict(level=Level.INCONCLUSIVE, reasons=(reason,))
    differs = differences(author, reproducer)
    theirs, ours = observations(author.runs), observations(reproducer.runs)
    counted, left_out = _news(ours, author)
    claims = tuple(judge(claim, theirs, counted, every=ours) for claim in author.claims)
    if differs == ():
        level = Level.BIT_IDENTICAL
        reasons = [_identical(reproducer)]
        claims = tuple(replace(each, level=level, reason="") for each in claims)
    else:
        level, reasons = _together(claims)
    if differs != () and left_out:
        reasons.append(left_out)
    unset = sorted({*author.variables} - {*reproducer.variables})
    if unset and level.exit_code != 0:
        reasons.append(
            f"the author's runs had variables set that these had not: {', '.join(unset)}"
        )
    if not _same_image(author, reproducer) and level.exit_code == 0:
        reasons = [
            "the images differ, so this is not a run of what was published, though its numbers "
            f"are {'the same' if level is Level.BIT_IDENTICAL else 'within tolerance'}"
        ]
        level = Level.INCONCLUSIVE
    return Verdict(level=level, claims=claims, reasons=tuple(reasons), differs=differs or ())


def _together(claims: Sequence[Judgement]) -> tuple[Level, list[str]]:
    """All claims must hold: the worst one decides."""
    if not claims:
        return Level.INCONCLUSIVE, ["the author's record claims nothing: there is nothing to judge"]
    for level in (Level.NOT_REPRODUCED, Level.INCONCLUSIVE):
        found = [each for each in claims if each.level is level]
        if found:
            return level, [f"{each.claim.name}: {_said(each)}" for each in found]
    count = len(claims)
    return Level.WITHIN_TOLERANCE, [
        f"{'the one claim holds' if count == 1 else f'all {count} claims hold'}"
    ]


def _said(judgement: Judgement) -> str:
    if judgement.level is Level.NOT_REPRODUCED and judgement.better:
        return f"{judgement.reason} (better)"
    return judgement.reason


def differences(author: Record, reproducer: Record) -> tuple[str, ...] | None:
    """Return what differs between runs of the same seeds; None where there are no such runs.

    Files that hold tensors are compared by these, where both sides looked at them.
    """
    theirs: dict[int | None, list[Run]] = {}
    for run in author.runs:
        theirs.setdefault(run.seed, []).append(run)
    found: set[str] = set()
    compared = False
    for run in reproducer.runs:
        same = theirs.get(run.seed, [])
        if not same or any(other.status != 0 for other in same):
            return None
        for other in same:
            found |= set(run_differences(other, run))
            compared = compared or bool(run.metrics or run.outputs)
    return tuple(sorted(found)) if compared else None


def _news(ours: Sequence[Run], author: Record) -> tuple[Sequence[Run], str]:
    """Return the runs that a claim is judged by, and what is said of those left out.

    Runs of the author's seeds would stand on both sides of the difference, and halve it where
    others stand beside them: fresh seeds are judged alone. Among runs of the author's seeds, the
    ones that repeat their bits bring no news.
    """
    seeds = {run.seed for run in author.runs}
    fresh = [run for run in ours if run.seed not in seeds]
    other = [run for run in ours if not _repeats(run, author)]
    if fresh and len(fresh) < len(ours):
        count = len(ours) - len(fresh)
        return (
            fresh,
            f"{count} of {len(ours)} runs {'has a seed' if count == 1 else 'have seeds'} of the "
            "author's: only fresh ones count",
        )
    if other and len(other) < len(ours):
        count = len(ours) - len(other)
        return other, (
            f"{count} of {len(ours)} runs {'repeats' if count == 1 else 'repeat'} the author's bit "
            "for bit: only the others count"
        )
    return ours, ""


def _repeats(run: Run, author: Record) -> bool:
    """Tell whether a run is, bit for bit, the author's of the same seed."""
    theirs = [each for each in author.runs if each.seed == run.seed and each.status == 0]
    return run.seed is not None and any(not run_differences(each, run) for each in theirs)


def run_differences(one: Run, other: Run) -> tuple[str, ...]:
    """Return the names of metrics and outputs that are not the same bits in two runs."""
    found = {
        name
        for name in {*one.metrics, *other.metrics}
        if bits(one.metrics.get(name)) != bits(other.metrics.get(name))
    }
    found |= set(one.diverged) ^ set(other.diverged)
    for name in {*one.outputs, *other.outputs}:
        both = name in one.tensors and name in other.tensors
        left, right = (one.tensors, other.tensors) if both else (one.outputs, other.outputs)
        if left.get(name) != right.get(name):
            found.add(name)
    return tuple(sorted(found))


def bits(value: float | None) -> str | None:
    """Write every bit of a value: 0.0 and -0.0 are equal, and not the same."""
    return None if value is None else float(value).hex()


def _same_image(author: Record, reproducer: Record) -> bool:
    one, other = author.image, reproducer.image
    # Two platforms of one index are one publication
    return one.manifest == other.manifest or (one.index is not None and one.index == other.index)


def _something_else(author: Record, reproducer: Record) -> tuple[str, ...]:
    """Say in what the two records are not of one experiment, whatever its numbers."""
    found = []
    if author.command != reproducer.command:
        found.append(_command_differs(author, reproducer))
    if author.seed != reproducer.seed:
        found.append("the seed is given in another way")
    if author.mounts != reproducer.mounts:
        found.append(_mounts_differ(author, reproducer))
    if more := sorted({*reproducer.variables} - {*author.variables}):
        found.append(f"variables were set that the author's runs had not: {', '.join(more)}")
    theirs = {file.name: file.digest for file in author.data}
    ours = {file.name: file.digest for file in reproducer.data}
    for name in sorted(theirs.keys() & ours.keys()):
        if theirs[name] != ours[name]:
            found.append(f"the data differ: {name}")
    return tuple(found)


def _mounts_differ(author: Record, reproducer: Record) -> str:
    """Say where folders stood that are not in the image: what is in them, nobody knows."""
    for record, whose in ((reproducer, "these runs"), (author, "the author's runs")):
        other = author if record is reproducer else reproducer
        if more := [path for path in record.mounts if path not in other.mounts]:
            return f"{whose} alone had folders of the machine at {', '.join(more)}"
    return "other folders of the machine were mounted"


def _command_differs(author: Record, reproducer: Record) -> str:
    names = sorted({*author.parameters, *reproducer.parameters})
    changed = [
        f"{name} is {reproducer.parameters.get(name, 'not given')}, "
        f"and the author's {author.parameters.get(name, 'not given')}"
        for name in names
        if author.parameters.get(name) != reproducer.parameters.get(name)
    ]
    return f"the command differs{': ' + ', '.join(changed) if changed else ''}"


def _crashes(crashed: Sequence[Run], record: Record) -> str:
    run = crashed[0]
    seed = "" if run.seed is None else f" (seed {run.seed})"
    return f"{len(crashed)} of {len(record.runs)} runs failed: exit status {run.status}{seed}"


def _identical(record: Record) -> str:
    count = len(record.runs)
    seeds = [run.seed for run in record.runs if run.seed is not None]
    with_seeds = f" with {listed('seed', seeds)}"
    return (
        f"every metric and every output of {'the run' if count == 1 else f'all {count} runs'}"
        f"{with_seeds if seeds else ''} is the same, bit for bit"
    )
