"""The sides of a comparison as the database has them, and the earlier runs that their noise is taken from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Count, F, Q
from django.urls import reverse

from portal.runs.environment import HostReading
from portal.runs.models import Environment, Run, RunGroup
from portal.runs.sides import Member, Side, name_apart
from portal.runs.states import State

MOST_OF_GROUP = 30
"""Runs of a group that are compared, the newest ones."""
MOST_LOOKED_AT = 120
"""Earlier runs among which those of the same load are looked for."""

_FIELDS = (
    "id",
    "created_at",
    "state",
    "validity",
    "subject_name",
    "subject_version",
    "engine",
    "scenario",
    "environment_digest",
    "group_id",
)


def line_up(ids: Sequence[str]) -> tuple[list[Side], list[str]]:
    """The sides of these runs (`r-…`) and groups (`g-…`), in this order, each once; and the ids of those that have no
    result. At most four queries and one for each group."""
    wanted = list(dict.fromkeys(one for one in ids if one and one.isprintable()))
    with_result = Run.objects.filter(summary__isnull=False)
    groups = {
        group.pk: group
        for group in RunGroup.objects.filter(pk__in=wanted).annotate(
            results=Count("runs", filter=Q(runs__summary__isnull=False))
        )
    }
    members: dict[str, list[Member]] = {}
    names: dict[str, str] = {}
    for row in _members(with_result.filter(pk__in=wanted)):
        members[row.id] = [row]
        names[row.id] = str(row.scenario.get("name", row.id))
    for group_id in groups:
        newest = with_result.filter(group=group_id).order_by("-created_at", "-id")
        if found := list(_members(newest[:MOST_OF_GROUP]))[::-1]:
            members[group_id] = found
    sides = []
    for one in wanted:
        if one not in members:
            continue
        if one in groups:
            group = groups[one]
            sides.append(Side(one, "group", group.title, group.get_absolute_url(), members[one], [], group.results))
        else:
            sides.append(Side(one, "run", f"{names[one]} {one}", reverse("runs:run", args=[one]), members[one], []))
    _read(sides)
    name_apart(sides)
    return sides, [one for one in wanted if one not in members]


def earlier(base: Side) -> list[Member]:
    """The newest valid runs of the base's scenario, subject and environment; empty where the latter was not read."""
    one = base.representative
    if not one.environment_digest:
        return []
    alike = Run.objects.filter(
        state=State.FINISHED,
        validity="valid",
        scenario_name=base.scenario.name,
        subject_name=one.subject[0],
        engine=one.engine,
        environment_digest=one.environment_digest,
        summary__isnull=False,
    )
    return list(_members(alike.order_by("-created_at", "-id")[:MOST_LOOKED_AT]))


def _members(runs: Any) -> Iterable[Member]:
    rows = runs.values(
        *_FIELDS,
        figures=F("summary__figures"),
        nulls=F("summary__result__nulls"),
        window=F("summary__result__window__from_s"),
        reasons=F("summary__result__reasons"),
    )
    for row in rows:
        yield Member(
            id=row["id"],
            created_at=row["created_at"],
            state=row["state"],
            validity=row["validity"],
            reasons=tuple(row["reasons"] or ()),
            subject=(row["subject_name"], row["subject_version"]),
            engine=row["engine"],
            scenario=row["scenario"],
            environment_digest=row["environment_digest"],
            has_window=row["window"] is not None,
            figures=row["figures"],
            nulls=row["nulls"] or {},
        )


def _read(sides: Sequence[Side]) -> None:
    """Give each side what its hosts were like."""
    rows = Environment.objects.filter(run_id__in=[side.representative.id for side in sides]).order_by("run", "id")
    readings: dict[str, list[HostReading]] = {}
    for row in rows:
        readings.setdefault(row.run_id, []).append(HostReading(row.host, row.role, row.begin))
    for side in sides:
        side.readings = readings.get(side.representative.id, [])
