"""One metric of one scenario over its runs: by time and by what was measured, with what changed on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Coalesce

from portal.runs.environment import HostReading, RunDifference, run_differences
from portal.runs.figures import Figure, figure
from portal.runs.measures import Measure
from portal.runs.models import Environment, NamedScenario, Run, RunQuerySet
from portal.runs.states import State
from portal.runs.statistics import median
from portal.runs.telling import shown_share

MOST_POINTS = 2000
"""Runs that are drawn, the newest ones."""
MOST_CHANGES = 20
"""Changes of the environment that are told line by line, the newest ones."""
SMOOTHED = 7
"""Runs of which the line is the median, up to each."""


class Point(NamedTuple):
    """A run's value."""

    id: str
    at: datetime
    """When its load began."""
    value: float | None
    version: str
    engine: str
    digest: str
    scenario_version: int | None
    """Number of the scenario's version; None where fields were set differently."""
    validity: str | None
    starred: bool
    is_baseline: bool

    @property
    def counts(self) -> bool:
        """Whether it has a value that can be believed."""
        return self.value is not None and self.validity != "invalid"


class Change(NamedTuple):
    """Where the environment, or the scenario, was another than at the run before."""

    place: int
    """Of the first point after it."""
    point: Point
    title: str
    lines: list[RunDifference]


class Version(NamedTuple):
    """What the runs of one version of the subject come to."""

    name: str
    runs: int
    median: float | None
    low: float | None
    high: float | None
    newest: Point
    change: str
    """Of the median against the version before; empty for the first."""
    before: Point | None
    """The newest run of the version before."""


class History(NamedTuple):
    """Points oldest first, and what is known about them."""

    measure: Measure
    points: list[Point]
    total: int
    """Runs that there are; more than points where older ones are left out."""
    changes: list[Change]
    versions: list[Version]
    engines: bool
    """Whether there are several, so that a version's name says which."""

    def smoothed(self) -> list[float | None]:
        """Up to each point the median of the last `SMOOTHED` that count, begun anew where something changed; null where
        the point does not count."""
        breaks = {change.place for change in self.changes}
        last: list[float] = []
        found: list[float | None] = []
        for place, point in enumerate(self.points):
            if place in breaks:
                last = []
            if point.counts and point.value is not None:
                last = [*last, point.value][-SMOOTHED:]
            found.append(median(last) if point.counts and last else None)
        return found

    def version_names(self) -> list[str]:
        """In the order in which they were first measured."""
        return list(dict.fromkeys(_named(point, self.engines) for point in self.points))

    def version_of(self, point: Point) -> str:
        """With the engine, where there are several."""
        return _named(point, self.engines)

    def summary(self) -> str:
        """In a sentence, for those who do not see the chart."""
        known = [point.value for point in self.points if point.counts and point.value is not None]
        if not known:
            return "No run has a value."
        unit = self.measure.unit
        parts = [
            f"{len(self.points):,} runs, {len(known):,} with a value that can be believed",
            f"between {figure(min(known), unit)} and {figure(max(known), unit)}",
            f"median {figure(median(known), unit)}",
            f"that of the newest {min(SMOOTHED, len(known))}: {figure(median(known[-SMOOTHED:]), unit)}",
        ]
        return f"{'; '.join(parts)}."


def of_scenario(scenario: str, subject: str, measure: Measure) -> History:
    """The history of a scenario on a subject. Five queries, however many runs."""
    runs = Run.objects.filter(scenario_name=scenario, subject_name=subject, state=State.FINISHED, summary__isnull=False)
    points = list(_points(runs, scenario, measure))[::-1]
    total = runs.count() if len(points) == MOST_POINTS else len(points)
    engines = len({point.engine for point in points}) > 1
    return History(measure, points, total, _changes(points), _versions(points, measure, engines), engines)


def _points(runs: RunQuerySet, scenario: str, measure: Measure) -> Iterator[Point]:
    baseline = NamedScenario.objects.filter(name=scenario).values_list("baseline", flat=True).first()
    rows = (
        runs.annotate(held=Exists(Run.objects.filter(baseline=OuterRef("pk"))))
        .order_by("-created_at", "-id")
        .values_list(
            "id",
            # Runs of a group are asked for in one moment.
            Coalesce("running_at", "created_at"),
            F(f"summary__figures__{measure.key}"),
            "subject_version",
            "engine",
            "environment_digest",
            "scenario_version__number",
            "validity",
            "starred",
            "held",
        )
    )
    for row in rows[:MOST_POINTS]:
        yield Point(*row)._replace(is_baseline=row[-1] or row[0] == baseline)


def _changes(points: Sequence[Point]) -> list[Change]:
    """Between which runs the environment or the scenario changed; what in the environment, of the newest ones."""
    found: list[tuple[int, Point, Point, str]] = []
    for place, (before, after) in enumerate(pairwise(points), 1):
        titles = []
        # One that was not read is nothing known, and no change.
        if before.digest and after.digest and before.digest != after.digest:
            titles.append("environment")
        if before.scenario_version != after.scenario_version:
            number = after.scenario_version
            titles.append(f"scenario version {number}" if number else "scenario with other fields")
        if titles:
            found.append((place, before, after, " and ".join(titles)))
    told = [one for one in found if "environment" in one[3]][-MOST_CHANGES:]
    readings = _readings({point.id for _, before, after, _ in told for point in (before, after)})

    def lines(before: Point, after: Point) -> list[RunDifference]:
        return run_differences(readings.get(before.id, []), readings.get(after.id, []))

    return [Change(place, after, title, lines(before, after)) for place, before, after, title in found]


def _readings(ids: set[str]) -> dict[str, list[HostReading]]:
    found: dict[str, list[HostReading]] = {}
    for row in Environment.objects.filter(run_id__in=ids).order_by("run", "id"):
        found.setdefault(row.run_id, []).append(HostReading(row.host, row.role, row.begin))
    return found


def _versions(points: Sequence[Point], measure: Measure, engines: bool) -> list[Version]:
    by_name: dict[str, list[Point]] = {}
    for point in points:
        by_name.setdefault(_named(point, engines), []).append(point)
    found: list[Version] = []
    for name, its in by_name.items():
        values = [point.value for point in its if point.counts and point.value is not None]
        middle = median(values) if values else None
        last = found[-1] if found else None
        change = ""
        if last is not None and last.median is not None and middle is not None:
            change = _change(last.median, middle, measure)
        found.append(
            Version(
                name,
                len(its),
                middle,
                min(values, default=None),
                max(values, default=None),
                its[-1],
                change,
                last.newest if last else None,
            )
        )
    return found


def _change(before: float, after: float, measure: Measure) -> str:
    if measure.unit == "ratio" or not before:
        delta: Figure = figure(abs(after - before), "points" if measure.unit == "ratio" else measure.unit)
        return f"{'+' if after > before else '−' if after < before else ''}{delta}"
    return shown_share(after / before - 1)


def _named(point: Point, engines: bool) -> str:
    name = point.version or "no version"
    return f"{name}, {point.engine}" if engines and point.engine else name
