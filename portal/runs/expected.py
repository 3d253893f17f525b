"""How long a run will take, and when one that waits will begin: by what its scenario says and what the last runs took
beyond theirs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from portal.runs.models import Run

USUAL_OVERHEAD_S = 10.0
"""Checks before, drain and collecting after, where no run has told yet."""
LOOKED_AT = 20
"""Runs by which the overhead is told."""


class Moment(NamedTuple):
    """When a run is expected to begin and to be over (s from now; one that is under way began before)."""

    begins_s: float
    ends_s: float


class Outlook(NamedTuple):
    """What is to be expected of runs that are not queued yet."""

    runs: int
    each_s: float
    """The longest of them."""
    total_s: float
    ahead: int
    """Runs that come first."""
    begins_s: float
    """From now."""
    ends_at: datetime


def overhead_s(machine: str) -> float:
    """What a finished run of this machine takes beyond its scenario's duration: the median of the newest ones."""
    rows = (
        Run.objects.finished()
        .filter(machine=machine)
        .order_by("-created_at")
        .values_list("preflight_at", "finished_at", "scenario__duration_s")[:LOOKED_AT]
    )
    beyond = [max(0.0, (end - begin).total_seconds() - float(lasts)) for begin, end, lasts in rows if begin and end]
    return statistics.median(beyond) if beyond else USUAL_OVERHEAD_S


def line_of(machine: str, now: datetime) -> list[tuple[Run, Moment]]:
    """The runs that are under way or wait on this machine, in their order, with when each is expected."""
    rows = Run.objects.filter(machine=machine).defer("live")
    waiting = [*rows.active(), *rows.queued().order_by("created_at", "pk")]
    return expected(waiting, overhead_s(machine), now)


def outlook(machine: str, scenarios: Sequence[Mapping[str, Any]], now: datetime) -> Outlook:
    """When these would run, one after the other behind what waits already."""
    overhead = overhead_s(machine)
    line = line_of(machine, now)
    lengths = [_length_s(scenario, overhead) for scenario in scenarios]
    begins_s = line[-1][1].ends_s if line else 0.0
    total_s = sum(lengths)
    ends_at = now + timedelta(seconds=begins_s + total_s)
    return Outlook(len(lengths), max(lengths), total_s, len(line), begins_s, ends_at)


def expected(runs: Iterable[Run], overhead: float, now: datetime) -> list[tuple[Run, Moment]]:
    """When each of these is expected, one after the other. One that has begun has been under way since its
    preflight; one that is longer about it than expected ends at any moment."""
    moments, free_s = [], 0.0
    for run in runs:
        begins_s = free_s if run.preflight_at is None else -(now - run.preflight_at).total_seconds()
        free_s = max(free_s, begins_s + _length_s(run.scenario, overhead))
        moments.append((run, Moment(begins_s, free_s)))
    return moments


def _length_s(scenario: Mapping[str, Any], overhead: float) -> float:
    return float(scenario["duration_s"]) + overhead
