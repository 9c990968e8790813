"""A record, or a verdict on one, as a page: one HTML file that needs no network and no script.

Whatever is in a record is a stranger's. Jinja escapes it, `legible` leaves no character that
is not printed, and the page's own policy allows nothing but its style sheet, by its hash.
The same records and the same image give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from torchship import __version__, amounts
from torchship.oci.describe import ImageDescription
from torchship.runs import legible
from torchship.runs.claims import observations
from torchship.runs.confusion import Found
from torchship.runs.difference import environment, first_difference
from torchship.runs.judgement import BEYOND_CHANCE, WITHIN_CHANCE, Judgement, Level
from torchship.runs.publishing import Published
from torchship.runs.record import Claim, Record, Run
from torchship.runs.report.claim_figure import ClaimFigure, claim_figure
from torchship.runs.report.contents import ImageContents, contents
from torchship.runs.report.matrix import Matrix, laid_out
from torchship.runs.report.panels import compared_seed, gap_panel, panels
from torchship.runs.report.passages import (
    NO_TEST,
    Banner,
    RunTable,
    banner,
    commands,
    machine,
    run_rows,
)
from torchship.runs.student import quantile
from torchship.runs.verdict import Verdict, compare
from torchship.runs.wording import MOST_VALUES, limits, same_values, where

if TYPE_CHECKING:
    from jinja2 import Environment

FILE = "report.html"

MOST_CLAIMS = 24
MOST_FACTS = 150
MOST_FAULTS = 3
ONE_SIDED = "CPU features on one side only"  # says nothing of a single record

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPart:
    """What the page says of one claim. ``t_near`` and ``t_far`` are the quantiles of its test."""

    claim: Claim
    judgement: Judgement | None
    figure: ClaimFigure
    n: int
    m: int
    t_near: float | None = None
    t_far: float | None = None
    t_tolerance: float | None = None
    same: tuple[tuple[str, float], ...] = ()
    """What runs that repeat the author's gave, each by its seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionPart:
    """What the page says of a classifier's mistakes: ``whose`` they are, of ``count`` runs."""

    whose: str
    matrix: Matrix | None
    count: int
    faults: tuple[str, ...]


def render(
    author: Published,
    here: Published | None = None,
    *,
    image: ImageDescription | None = None,
    confusion: Found | None = None,
) -> str:
    """Return the page of one record, or of a reproduction judged by its author's record.

    ``image`` is the one that ran, where it is at hand: its layers are shown. ``confusion`` is
    what the runs of the last record left.
    """
    theirs, ours = author.record, here.record if here else None
    verdict = compare(theirs, ours) if ours else None
    found = first_difference(theirs, ours) if ours else None
    facts = environment(theirs, ours or theirs)
    changed = [fact for fact in facts if fact.changed] if ours else []
    settled = [fact for fact in facts if fact not in changed and (ours or fact.name != ONE_SIDED)]
    runs = ours.runs if ours else ()
    return _render(
        author=author,
        here=here,
        verdict=verdict,
        banner=banner(theirs, verdict),
        machines=[machine(each) for each in (theirs, ours) if each],
        claims=_claims(theirs, ours, verdict),
        more_claims=len(theirs.claims) - MOST_CLAIMS,
        panels=panels(theirs.runs, runs, found),
        seed=compared_seed(theirs.runs, runs, found),
        gap=gap_panel(theirs.runs, runs, found),
        first=where(found) if found else None,
        changed=changed[:MOST_FACTS],
        settled=settled[:MOST_FACTS],
        more_facts=max(0, len(changed) - MOST_FACTS) + max(0, len(settled) - MOST_FACTS),
        limits=limits(verdict) if verdict else NO_TEST,
        rows=run_rows(theirs, ours),
        commands=commands(theirs, ours),
        image=contents(image) if image else None,
        confusion=_confusion(confusion, compared=here is not None) if confusion else None,
        torchship=__version__,
    )


def _claims(author: Record, here: Record | None, verdict: Verdict | None) -> list[ClaimPart]:
    """Return the claims that are shown, those first that decided against a reproduction."""
    theirs = observations(author.runs)
    ours = observations(here.runs) if here else ()
    judged = {each.claim.name: each for each in verdict.claims} if verdict else {}
    order = {Level.NOT_REPRODUCED: 0, Level.INCONCLUSIVE: 1}

    def rank(claim: Claim) -> int:
        judgement = judged.get(claim.name)
        return order.get(judgement.level, len(order)) if judgement else len(order)

    return [
        _part(claim, theirs, ours, judged.get(claim.name))
        for claim in sorted(author.claims, key=rank)[:MOST_CLAIMS]
    ]


def _part(
    claim: Claim, author: tuple[Run, ...], here: tuple[Run, ...], judgement: Judgement | None
) -> ClaimPart:
    df = judgement.df if judgement else None
    same = judgement is not None and judgement.level is Level.BIT_IDENTICAL
    return ClaimPart(
        claim=claim,
        same=same_values(claim.name, here)[:MOST_VALUES] if same else (),
        judgement=judgement,
        figure=claim_figure(claim, author, here, judgement),
        n=len(author),
        m=judgement.m if judgement else len(here),
        t_near=quantile(WITHIN_CHANCE, df) if df else None,
        t_far=quantile(BEYOND_CHANCE, df) if df else None,
        t_tolerance=quantile(WITHIN_CHANCE, claim.n - 1) if claim.n > 1 else None,
    )


def _confusion(found: Found, *, compared: bool) -> ConfusionPart:
    seed = found.run.seed if found.run else None
    whose = "the run" if seed is None else f"the run with seed {seed}"
    return ConfusionPart(
        whose=f"{whose} here" if compared else whose,
        matrix=laid_out(found.confusion) if found.confusion else None,
        count=found.count,
        faults=found.faults[:MOST_FAULTS],
    )


def _render(
    *, banner: Banner, rows: RunTable, image: ImageContents | None, **context: object
) -> str:
    jinja = _environment()
    style = (_TEMPLATES / "report.css").read_text("utf-8")
    page = jinja.get_template("report.html").render(
        style=style, style_hash=_hash(style), banner=banner, rows=rows, image=image, **context
    )
    return f"{page}\n"


def _hash(style: str) -> str:
    """Return a style sheet's name in a policy (CSP level 3, hash-source)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


@cache
def _environment() -> Environment:
    # imported here: nothing but a report needs it
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters.update(_FILTERS)
    return made


def _shown(value: object) -> object:
    """Make every text that reaches the page legible; what Jinja has escaped already, is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return legible.legible(value)
    return value


def _is_digest(text: str) -> bool:
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


_FILTERS: Mapping[str, object] = {
    "number": legible.number,
    "signed": legible.signed,
    "percent": legible.percent,
    "duration": legible.duration,
    "size": amounts.size,
    "counted": amounts.counted,
    "day": legible.day,
    "cut": legible.cut,
    "sentence": legible.sentence,
    "is_digest": _is_digest,
}
