"""The comparison of two records: what an author's runs gave, and what a reproduction's did.

A verdict follows from the two records alone. All claims must hold; what a claim is judged by
is in `judge`, and docs/reproducing.md says it in words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from torchship.amounts import listed
from torchship.runs.claims import average, observations, sample_deviation
from torchship.runs.record import Claim, Record, Run
from torchship.runs.student import quantile

WITHIN_CHANCE = 0.95
"""One-sided: the interval that must lie within the tolerance has 90%."""

BEYOND_CHANCE = 0.995
"""One-sided: a difference counts as real where chance gives it in one of a hundred cases."""

_BINOMIAL = 1.96


class Level(StrEnum):
    """The five verdicts, in their own words."""

    BIT_IDENTICAL = "BIT-IDENTICAL"
    WITHIN_TOLERANCE = "WITHIN TOLERANCE"
    NOT_REPRODUCED = "NOT REPRODUCED"
    INCONCLUSIVE = "INCONCLUSIVE"
    COULD_NOT_RUN = "COULD NOT RUN"

    @property
    def exit_code(self) -> int:
        """What a command that reached this verdict exits with."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Level.BIT_IDENTICAL: 0,
    Level.WITHIN_TOLERANCE: 0,
    Level.NOT_REPRODUCED: 1,
    Level.INCONCLUSIVE: 3,
    Level.COULD_NOT_RUN: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Binomial:
    """What two single accuracies on ``examples`` examples may differ by, were errors independent.

    ``bound`` is 1.96 sqrt(2) sqrt(p (1-p) / N): 95% of the differences stay below it.
    """

    examples: int
    p: float
    bound: float
    consistent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One claim, judged. ``n`` and ``m`` count the author's and the reproducer's runs.

    ``difference`` is the reproducer's mean less the author's; ``spread`` the standard deviation
    that was used, with ``df`` degrees of freedom; ``error`` the difference's standard error;
    ``near`` and ``far`` are t(.95, df) and t(.995, df) times that. Each is None where the runs
    do not tell it.
    """

    claim: Claim
    level: Level
    n: int
    m: int
    author: float
    reproducer: float | None = None
    difference: float | None = None
    spread: float | None = None
    df: int | None = None
    error: float | None = None
    near: float | None = None
    far: float | None = None
    better: bool | None = None
    binomial: Binomial | None = None
    reason: str = ""


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
    claims = tuple(judge(claim, theirs, ours) for claim in author.claims)
    if differs == ():
        level = Level.BIT_IDENTICAL
        reasons = [_identical(reproducer)]
        claims = tuple(replace(each, level=level, reason="") for each in claims)
    else:
        level, reasons = _together(claims)
    repeated = _repeated(author, reproducer)
    if differs != () and repeated:
        reasons.append(
            f"{repeated} of its {len(reproducer.runs)} runs repeat the author's bit for bit"
        )
    if not _same_image(author, reproducer) and level.exit_code == 0:
        reasons = [
            "the images differ, so this is not a run of what was published, though its numbers "
            f"are {'the same' if level is Level.BIT_IDENTICAL else 'within tolerance'}"
        ]
        level = Level.INCONCLUSIVE
    return Verdict(level=level, claims=claims, reasons=tuple(reasons), differs=differs or ())


def judge(claim: Claim, author: Sequence[Run], reproducer: Sequence[Run]) -> Judgement:
    """Judge one claim by independent runs of both sides.

    With D the difference of the means and SE its standard error: within tolerance where
    |D| + t(.95, df) SE <= delta; not reproduced where |D| > delta and |D| > t(.995, df) SE;
    inconclusive otherwise, and whenever no spread is known.
    """
    name, n, m = claim.name, len(author), len(reproducer)
    theirs = [run.metrics[name] for run in author]
    ours = [run.metrics[name] for run in reproducer if name in run.metrics]
    center = average(theirs)
    if any(name in run.diverged for run in reproducer):
        return Judgement(
            claim=claim,
            level=Level.NOT_REPRODUCED,
            n=n,
            m=m,
            author=center,
            better=False,
            reason="it came out as NaN, or infinite",
        )
    if len(ours) < m:
        return Judgement(
            claim=claim,
            level=Level.INCONCLUSIVE,
            n=n,
            m=m,
            author=center,
            reason=f"the reproduction gave it in {len(ours)} of {m} runs",
        )
    mean = average(ours)
    difference = mean - center
    spread, df = _spread(theirs, ours)
    error = None if spread is None else spread * math.sqrt(1 / n + 1 / m)
    near = None if error is None else quantile(WITHIN_CHANCE, df) * error
    far = None if error is None else quantile(BEYOND_CHANCE, df) * error
    level, reason = _level(abs(difference), claim.tolerance, near, far)
    binomial = _binomial(claim, center, mean) if n == m == 1 else None
    if binomial is not None and level is Level.INCONCLUSIVE:
        verb = "consistent" if binomial.consistent else "not consistent"
        reason = f"{verb} if errors are independent (variance assumed); {reason}"
    return Judgement(
        claim=claim,
        level=level,
        n=n,
        m=m,
        author=center,
        reproducer=mean,
        difference=difference,
        spread=spread,
        df=df or None,
        error=error,
        near=near,
        far=far,
        better=_is_better(difference, claim),
        binomial=binomial,
        reason=reason,
    )


def _is_better(difference: float, claim: Claim) -> bool | None:
    if claim.better is None or not difference:
        return None
    return (difference > 0) == (claim.better == "higher")


def _level(
    distance: float, tolerance: float | None, near: float | None, far: float | None
) -> tuple[Level, str]:
    if near is None or far is None:
        return Level.INCONCLUSIVE, "one run each: no spread is known; make more runs"
    if tolerance is None:
        return Level.INCONCLUSIVE, "one run of the author's sets no tolerance"
    if distance + near <= tolerance:
        return Level.WITHIN_TOLERANCE, ""
    if distance > tolerance and distance > far:
        return Level.NOT_REPRODUCED, "the difference is beyond the tolerance, and beyond chance"
    if distance > tolerance:
        return Level.INCONCLUSIVE, "beyond the tolerance, but not beyond chance; make more runs"
    return Level.INCONCLUSIVE, "chance alone could carry it beyond the tolerance; make more runs"


def _spread(author: Sequence[float], reproducer: Sequence[float]) -> tuple[float | None, int]:
    """Return the standard deviation and its degrees of freedom.

    The author's alone (df n-1) for a single reproduction, else both pooled (df n+m-2).
    """
    n, m = len(author), len(reproducer)
    df = n + m - 2
    if df < 1:
        return None, 0
    squares = sum(
        (len(values) - 1) * (sample_deviation(values) or 0.0) ** 2
        for values in (author, reproducer)
    )
    if m == 1:
        return sample_deviation(author), df
    return math.sqrt(squares / df), df


def _binomial(claim: Claim, author: float, reproducer: float) -> Binomial | None:
    """Return what chance alone allows two accuracies to differ by; None for another metric."""
    if claim.examples is None or not (0 <= author <= 1 and 0 <= reproducer <= 1):
        return None
    p = (author + reproducer) / 2
    bound = _BINOMIAL * math.sqrt(2) * math.sqrt(p * (1 - p) / claim.examples)
    return Binomial(
        examples=claim.examples, p=p, bound=bound, consistent=abs(reproducer - author) <= bound
    )


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


def _repeated(author: Record, reproducer: Record) -> int:
    """Count the runs that are the same, bit for bit, as the author's of their seed."""
    theirs = {run.seed: run for run in author.runs if run.seed is not None and run.status == 0}
    pairs = ((theirs.get(run.seed), run) for run in reproducer.runs if run.seed is not None)
    return sum(not run_differences(one, run) for one, run in pairs if one is not None)


def run_differences(one: Run, other: Run) -> tuple[str, ...]:
    """Return the names of metrics and outputs that are not the same bits in two runs."""
    found = {
        name
        for name in {*one.metrics, *other.metrics}
        if _bits(one.metrics.get(name)) != _bits(other.metrics.get(name))
    }
    found |= set(one.diverged) ^ set(other.diverged)
    for name in {*one.outputs, *other.outputs}:
        both = name in one.tensors and name in other.tensors
        left, right = (one.tensors, other.tensors) if both else (one.outputs, other.outputs)
        if left.get(name) != right.get(name):
            found.add(name)
    return tuple(sorted(found))


def _bits(value: float | None) -> str | None:
    return None if value is None else float(value).hex()  # 0.0 and -0.0 are equal, and not the same


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
    theirs = {file.name: file.digest for file in author.data}
    ours = {file.name: file.digest for file in reproducer.data}
    for name in sorted(theirs.keys() & ours.keys()):
        if theirs[name] != ours[name]:
            found.append(f"the data differ: {name}")
    return tuple(found)


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
