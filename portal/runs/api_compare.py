"""`/api/v1/compare`: what the page of a comparison says, for scripts that decide by it."""

from __future__ import annotations

from typing import Any, Literal

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from ninja import Query, Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from portal.accounts.roles import viewer
from portal.runs.api import REFUSALS
from portal.runs.comparison import MOST_SIDES, Comparison, Contender, compare
from portal.runs.contrast import Contrast, Method, Sample, Word
from portal.runs.draft import Refused, shortened
from portal.runs.lineup import earlier, line_up
from portal.runs.sides import Side
from portal.runs.statistics import LEVEL
from portal.runs.views.compare import address

router = Router()


class SideOut(Schema):
    """A run or a group."""

    id: str
    kind: Literal["run", "group"]
    title: str
    subject: dict[str, str]
    scenario: str
    runs: list[str] = Field(description="Oldest first; of a group the newest that have a result.")
    counted: int = Field(description="How many of them can be believed.")


class SampleOut(Schema):
    """A side's values of one metric."""

    value: float | None = Field(description="Of a group the median.")
    values: list[float | None] = Field(description="A run each; null: above every time, too much was never answered.")
    missing: int
    why: str | None


class ContrastOut(Schema):
    """A contender's metric against the base's, in the metric's unit."""

    metric: str
    kind: Literal["primary", "secondary", "explaining"]
    unit: str
    better: Literal["lower", "higher"] | None
    word: Word
    base: SampleOut
    contender: SampleOut
    delta: float | None
    change: float | None = Field(description="The delta as a share of the base.")
    p: float | None
    interval: list[float] | None = Field(description="Of the difference, at 1 − level: see `relative`.")
    detectable: float | None = Field(description="Change that is found in 80 % of such comparisons; primary only.")
    relative: bool = Field(description="Whether interval and detectable are shares of the base, or in the unit.")
    method: Method


class LineOut(Schema):
    """One line in which a contender is not like the base."""

    part: Literal["subject", "scenario", "environment"]
    what: str
    base: str
    contender: str
    hosts: list[str]


class ContenderOut(Schema):
    """A contender against the base."""

    side: SideOut
    verdict: Word
    sentence: str
    differences: list[LineOut]
    cautions: list[str]
    figures: list[ContrastOut] = Field(description="The primary metric first: it carries the verdict.")


class ComparisonOut(Schema):
    """One to four contenders against a base."""

    level: float = Field(description="Share of comparisons of equal runs that end in a difference, at most.")
    primary_metric: str
    base: SideOut
    cautions: list[str]
    contenders: list[ContenderOut]
    exit_code: Literal[0, 1, 3] = Field(description="0: none is worse; 1: one is; 3: of one nothing can be said.")
    url: str


@router.get("/compare", response={200: ComparisonOut, **REFUSALS}, summary="Runs or groups against a baseline")
@viewer
def get_comparison(request: HttpRequest, base: str, contender: Query[list[str]]) -> dict[str, Any]:
    """Whether contenders (`contender=`, up to four) differ from the base by more than noise; ids of runs or groups."""
    ids = list(dict.fromkeys([base, *contender]))
    if not 2 <= len(ids) <= MOST_SIDES:
        raise Refused([f"{len(ids)} different sides: wanted base and 1 to {MOST_SIDES - 1} contenders"])
    sides, missing = line_up(ids)
    if missing or len(sides) < len(ids):
        known = {side.id for side in sides}
        named = ", ".join(shortened(one) for one in ids if one not in known)
        raise HttpError(404, f"no run or group with a result: {named}")
    found = compare(sides, earlier(sides[0]))
    return {
        "level": LEVEL,
        "primary_metric": found.primary.measure.key,
        "base": _side(found.base),
        "cautions": found.cautions,
        "contenders": [_contender(found, place) for place in range(len(found.contenders))],
        "exit_code": found.exit_code,
        "url": f"{settings.PORTAL_URL}{reverse('runs:compare')}?{address(ids)}",
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "id": side.id,
        "kind": side.kind,
        "title": side.title,
        "subject": side.subject,
        "scenario": side.scenario.name,
        "runs": [member.id for member in side.members],
        "counted": len(side.counted),
    }


def _contender(found: Comparison, place: int) -> dict[str, Any]:
    one: Contender = found.contenders[place]
    return {
        "side": _side(one.side),
        "verdict": one.word,
        "sentence": one.sentence,
        "differences": [line._asdict() for line in one.lines],
        "cautions": one.cautions,
        "figures": [_contrast(row.cells[place], row.kind) for row in found.rows],
    }


def _contrast(one: Contrast, kind: str) -> dict[str, Any]:
    return {
        "metric": one.measure.key,
        "kind": kind,
        "unit": one.measure.unit,
        "better": one.measure.better,
        "word": one.word,
        "base": _sample(one.base),
        "contender": _sample(one.contender),
        "delta": one.delta,
        "change": one.change,
        "p": one.p,
        "interval": one.interval,
        "detectable": one.detectable,
        "relative": one.relative,
        "method": one.method,
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "value": sample.value,
        # JSON has no infinity.
        "values": [value if value != float("inf") else None for value in sample.values],
        "missing": sample.missing,
        "why": sample.why or None,
    }
