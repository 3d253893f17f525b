"""How the runs of a group went: one value each, by the metric that decides its scenario's comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import F, Window
from django.db.models.functions import RowNumber
from pydantic import ValidationError

from portal.runs import figures
from portal.runs.models import NamedScenario, Run
from wsnode.core.scenario import Scenario

MOST_RUNS = 30
USUAL_METRIC = "response_time.p99"
WIDTH, HEIGHT, MARGIN = 120.0, 28.0, 3.0


class Point(NamedTuple):
    """A finished run."""

    run_id: str
    at: datetime
    verdict: str | None
    validity: str | None
    subject: str
    value: float | None


class Trend(NamedTuple):
    """The newest finished runs of a group, the oldest first."""

    metric: str
    unit: str
    points: Sequence[Point]

    @property
    def values(self) -> list[float]:
        """Those that there are."""
        return [point.value for point in self.points if point.value is not None]

    @property
    def last(self) -> float | None:
        """Of the newest run."""
        return self.points[-1].value if self.points else None

    @property
    def line(self) -> str:
        """Points of a polyline in a box of `WIDTH` × `HEIGHT`; empty below two values."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.places)

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where each value lies in the box; a run without one leaves its place out."""
        found = self.values
        if len(found) < 2:
            return []
        low, span = min(found), max(found) - min(found)
        step = (WIDTH - 2 * MARGIN) / (len(self.points) - 1)
        height = HEIGHT - 2 * MARGIN
        return [
            (MARGIN + n * step, MARGIN + height * (1 - (point.value - low) / span if span else 0.5))
            for n, point in enumerate(self.points)
            if point.value is not None
        ]

    @property
    def words(self) -> str:
        """What the line shows, for who does not see it."""
        found = self.values
        if not found:
            return f"{self.metric}: no value yet"
        ends = (figures.figure(value, self.unit) for value in (found[0], found[-1]))
        first, last = (str(end) for end in ends)
        return f"{self.metric} of {len(found)} {'run' if len(found) == 1 else 'runs'}: first {first}, last {last}"


def trends(groups: Iterable[tuple[str, str]]) -> dict[str, Trend]:
    """Of (group, scenario's name) each: three queries however many they are."""
    named = dict(groups)
    contents = NamedScenario.objects.filter(name__in=set(named.values())).values_list("name", "content")
    metrics = {name: _metric(content) for name, content in contents}
    newest = Window(RowNumber(), partition_by=F("group_id"), order_by=F("created_at").desc())
    # First which, by an index and without what is heavy; then those few.
    ids = (
        Run.objects.finished()
        .filter(group_id__in=list(named))
        .annotate(newest=newest)
        .filter(newest__lte=MOST_RUNS)
        .order_by()
        .values_list("pk", flat=True)
    )
    rows = (
        Run.objects.filter(pk__in=list(ids))
        .order_by("created_at")
        .values_list(
            "group_id", "pk", "created_at", "verdict", "validity", "subject_name", "subject_version", "summary__figures"
        )
    )
    points: dict[str, list[Point]] = {group: [] for group in named}
    for group, run_id, at, verdict, validity, subject, version, kept in rows:
        metric = metrics.get(named[group], USUAL_METRIC)
        value = (kept or {}).get(metric)
        points[group].append(Point(run_id, at, verdict, validity, f"{subject} {version}".strip(), value))
    return {
        group: Trend(metric, unit_of(metric), points[group])
        for group, name in named.items()
        for metric in [metrics.get(name, USUAL_METRIC)]
    }


def _metric(content: dict[str, Any]) -> str:
    try:
        return Scenario.model_validate(content).effective_primary_metric
    except ValidationError:
        return USUAL_METRIC


def unit_of(metric: str) -> str:
    """The base unit of a metric, by its name."""
    if "." in metric:
        return "s"
    return "ratio" if metric.endswith("_ratio") else "1/s" if metric.endswith("_per_s") else "count"
