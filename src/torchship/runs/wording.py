"""A verdict in words: the numbers that it follows from, and what it does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchship.amounts import counted
from torchship.runs import typed
from torchship.runs.difference import Fact, FirstDifference, environment, first_difference
from torchship.runs.judgement import Judgement, Level
from torchship.runs.record import Record, Run
from torchship.runs.verdict import Verdict

NOT_SHOWN = (
    "A verdict says whether the same image gives the same numbers again. It does not show that "
    "the method, the data or the conclusions drawn from them are right."
)
_LIMITS = {
    Level.BIT_IDENTICAL: "The same bits on one more machine are no promise for another kind of "
    "machine.",
    Level.WITHIN_TOLERANCE: "The tolerance follows from the spread of a few runs, taken as "
    "normal: a difference smaller than it may be real.",
    Level.NOT_REPRODUCED: "It does not say why: the image, the hardware or the published numbers "
    "may be the cause. Where nothing changed, about one claim in a hundred comes out so by "
    "chance.",
    Level.INCONCLUSIVE: "It is neither a pass nor a failure: these runs do not decide.",
    Level.COULD_NOT_RUN: "Nothing was measured, so nothing is said about the published numbers.",
}
_MOST_FACTS = 12
MOST_VALUES = 12
_LONGEST = 120


def told(verdict: Verdict, author: Record, reproducer: Record) -> tuple[str, ...]:
    """Return the verdict as lines of text, the verdict itself on the first."""
    return tuple(_lines(verdict, author, reproducer))


def _lines(verdict: Verdict, author: Record, reproducer: Record) -> Iterator[str]:
    first, *further = verdict.reasons or ("",)
    yield f"{verdict.wording}: {first}"
    for reason in further:
        yield f"  {reason}"
    for judgement in verdict.claims:
        yield ""
        if judgement.level is Level.BIT_IDENTICAL:
            yield from _same_lines(judgement, reproducer)
        else:
            yield from claim_lines(judgement)
    if verdict.claims and verdict.level is not Level.BIT_IDENTICAL:
        yield from _causes(verdict, author, reproducer)
    yield ""
    yield from limits(verdict)


def limits(verdict: Verdict) -> tuple[str, ...]:
    """Return what the verdict does not show."""
    return NOT_SHOWN, _LIMITS[verdict.level]


def claim_lines(judgement: Judgement) -> Iterator[str]:
    """Yield a claim with the numbers that its level follows from."""
    claim = judgement.claim
    yield f"{claim.name}: {judgement.level}"
    spread = "" if claim.spread is None else f" (standard deviation {number(claim.spread)})"
    yield f"  author      {number(judgement.author)}{spread}, {counted(judgement.n, 'run')}"
    if judgement.reproducer is None:
        yield f"  here        {judgement.reason}"
        return
    yield f"  here        {number(judgement.reproducer)}, {counted(judgement.m, 'run')}"
    yield f"  difference  {_difference(judgement)}"
    if claim.tolerance is not None:
        how = (
            "declared by the author"
            if claim.tolerance_from == "declared"
            else ("2 t(.95, n-1) s sqrt(1 + 1/n) of the author's runs")
        )
        yield f"  tolerance   {number(claim.tolerance)}, {how}"
    if judgement.near is not None and judgement.far is not None:
        yield (
            f"  chance      t(.95, {judgement.df}) SE = {number(judgement.near)}, "
            f"t(.995, {judgement.df}) SE = {number(judgement.far)}"
        )
    if judgement.binomial is not None:
        found = judgement.binomial
        yield (
            f"  binomial    1.96 sqrt(2) sqrt(p(1-p)/N) = {number(found.bound)} "
            f"for p = {number(found.p)} on {found.examples} examples"
        )
    if judgement.reason:
        yield f"  so          {judgement.reason}"


def _same_lines(judgement: Judgement, reproducer: Record) -> Iterator[str]:
    """Yield the values that both sides have: the author's mean is of other seeds, too."""
    claim = judgement.claim
    yield f"{claim.name}: {judgement.level}"
    values = same_values(claim.name, reproducer.runs)
    for which, value in values[:MOST_VALUES]:
        yield f"  {which:<10}  {number(value)}, there and here"
    if len(values) > MOST_VALUES:
        yield f"  and {len(values) - MOST_VALUES} more"
    spread = "" if claim.spread is None else f" (standard deviation {number(claim.spread)})"
    runs = counted(judgement.n, "run")
    yield f"  all of the author's: {number(judgement.author)}{spread}, {runs}"


def same_values(name: str, runs: Sequence[Run]) -> tuple[tuple[str, float], ...]:
    """Return what runs that were repeated bit for bit gave of a metric, each with its seed."""
    return tuple(
        ("the run" if run.seed is None else f"seed {run.seed}", run.metrics[name])
        for run in runs
        if name in run.metrics
    )


def _difference(judgement: Judgement) -> str:
    assert judgement.difference is not None, "there is one where both sides have a mean"
    found = f"{judgement.difference:+.6g}"
    if judgement.better is not None:
        found += " (better)" if judgement.better else " (worse)"
    return found


def _causes(verdict: Verdict, author: Record, reproducer: Record) -> Iterator[str]:
    if verdict.differs:
        names = ", ".join(verdict.differs[:6]) + (" ..." if len(verdict.differs) > 6 else "")
        yield ""
        yield f"not bit-identical: {names}"
        found = first_difference(author, reproducer)
        if found is not None:
            yield f"  {where(found)}"
    repeat = author.determinism.repeat
    if repeat is not None and not repeat.identical:
        yield ""
        yield "the author's own repeat of a seed gave other bits: this program is not deterministic"
    changed = [fact for fact in environment(author, reproducer) if fact.changed]
    if changed:
        yield ""
        yield "what differs between the two environments, the most likely cause first:"
        for fact in changed[:_MOST_FACTS]:
            yield f"  {_fact(fact)}"
        if len(changed) > _MOST_FACTS:
            yield f"  and {len(changed) - _MOST_FACTS} more"
    elif author.hardware is not None and reproducer.hardware is not None:
        yield ""
        yield "nothing that was recorded of the two environments differs"


def where(found: FirstDifference) -> str:
    """Return one line that says where two runs part."""
    seed = "" if found.seed is None else f" of seed {found.seed}"
    since = f"; {found.same} is still the same" if found.same else ""
    values = " and ".join("nothing" if v is None else _shortest(v) for v in _values(found))
    return f"first difference{seed} in {found.source}: {found.step}, {found.name}: {values}{since}"


def _values(found: FirstDifference) -> tuple[float | None, float | None]:
    return found.author, found.reproducer


def _shortest(value: float) -> str:
    """Write a number as programs print it: with the fewest digits that no other number has."""
    return repr(value).removesuffix(".0")


def _fact(fact: Fact) -> str:
    return f"{fact.name}: {_cut(fact.author)} -> {_cut(fact.reproducer)}"


def _cut(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def number(value: float) -> str:
    """Write a number for people: six digits tell."""
    return f"{value:.6g}"


def as_document(verdict: Verdict, author: Record, reproducer: Record) -> dict[str, object]:
    """Return the verdict as a JSON value: everything that `told` says, as data."""
    parting = first_difference(author, reproducer) if verdict.differs else None
    return {
        **document(verdict),
        "firstDifference": None if parting is None else typed.to_json(parting),
        "environment": [
            {"name": fact.name, "author": fact.author, "reproducer": fact.reproducer}
            for fact in environment(author, reproducer)
            if fact.changed
        ],
    }


def document(verdict: Verdict) -> dict[str, object]:
    """Return what a verdict says by itself, without the records, as a JSON value."""
    return {
        "verdict": str(verdict.level),
        "wording": verdict.wording,
        "exitCode": verdict.exit_code,
        "reasons": list(verdict.reasons),
        "claims": [typed.to_json(each) for each in verdict.claims],
        "differs": list(verdict.differs),
        "notShown": list(limits(verdict)),
    }
