"""How far apart the values of repeated runs lie. What that means for a difference is `portal.runs.comparison`'s."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from portal.runs.figures import percentile
from wsnode.core.result import DEFINITIONS

SHOWN = (
    "response_time.p50",
    "response_time.p95",
    "response_time.p99",
    "received_per_s",
    "error_ratio",
    "connections_peak",
    "scheduler_lag.p99",
)
"""Metrics of a group's page, each as a threshold names it."""


class Spread(NamedTuple):
    """One metric over the runs of a group."""

    metric: str
    title: str
    unit: str
    n: int
    """Runs that have a value."""
    median: float
    low: float
    high: float
    deviation: float | None
    """Sample standard deviation, n − 1; None of a single value."""

    @property
    def relative(self) -> float | None:
        """The deviation as a part of the mean's size, by the median; None where there is no telling."""
        return None if self.deviation is None or not self.median else self.deviation / abs(self.median)


def spreads(figures: Sequence[Mapping[str, float | None]]) -> list[Spread]:
    """Each metric's spread over these runs' figures; without those that none has."""
    return [found for metric in SHOWN if (found := spread(metric, figures)) is not None]


def spread(metric: str, figures: Sequence[Mapping[str, float | None]]) -> Spread | None:
    """One metric's; None where no run has a value."""
    values = [value for one in figures if (value := one.get(metric)) is not None]
    if not values:
        return None
    title, unit = _named(metric)
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(metric, title, unit, len(values), statistics.median(values), min(values), max(values), deviation)


def _named(metric: str) -> tuple[str, str]:
    """A metric's name and unit for people."""
    name, _, statistic = metric.partition(".")
    for room in ("", "latency_s.", "rates.", "counters."):
        if found := DEFINITIONS.get(f"{room}{name}"):
            return f"{found.title} {percentile(statistic)}".strip(), found.unit
    raise KeyError(metric)
