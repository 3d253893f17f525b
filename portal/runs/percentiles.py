"""Percentile curves: how long the best so many of a hundred took, on an axis that widens towards the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from portal.runs.figures import latency
from wsnode.core.histogram import Histogram, nearest_rank
from wsnode.core.result import SAMPLES_BEYOND
from wsnode.core.summary import Summary

CURVES = {
    "response_time": "response time",
    "service_time": "service time",
    "write_wait": "write wait",
    "scheduler_lag": "scheduler lag",
}
STEPS_PER_NINE = 10
MOST_NINES = 7


class Point(NamedTuple):
    """Where a curve passes."""

    nines: float
    """−log10(1 − quantile): 1 is p90, 2 is p99, 3 is p99.9."""
    seconds: float


def curve(histogram: Histogram, due: int) -> list[Point]:
    """Of all due, what was never answered ranking last: the curve ends where that begins, or where fewer than
    `SAMPLES_BEYOND` samples lie beyond."""
    points = []
    for step in range(STEPS_PER_NINE * MOST_NINES + 1):
        nines = step / STEPS_PER_NINE
        rank = nearest_rank(round(1 - 10**-nines, 9), due)
        if due - rank < SAMPLES_BEYOND or (value := histogram.value_at_rank(rank)) is None:
            break
        points.append(Point(nines, value / 1e9))
    return points


def curves(summary: Summary) -> dict[str, list[Point]]:
    """By latency, over the window."""
    recorded = summary.recorded()
    return {name: curve(*recorded[name]) for name in CURVES if recorded[name][0].count}


def curve_table(known: Mapping[str, Sequence[Point]]) -> dict[str, list[float | None]]:
    """Curves as columns by place on the axis: `nines`, and a column for each latency."""
    places = sorted({point.nines for points in known.values() for point in points})
    table: dict[str, list[float | None]] = {"nines": [*places]}
    for name, points in known.items():
        by_place = {point.nines: point.seconds for point in points}
        table[name] = [by_place.get(place) for place in places]
    return table


def curve_csv(known: Mapping[str, Sequence[Point]]) -> str:
    """The curves, a line for each place, in seconds; what is missing is empty."""
    table = curve_table(known)
    names = [name for name in table if name != "nines"]
    rows = [",".join(["percentile", *(f"{name}_s" for name in names)])]
    for place, nines in enumerate(table["nines"]):
        values = (table[name][place] for name in names)
        share = 100 * (1 - 10 ** -(nines or 0.0))
        rows.append(",".join([f"{share:.6g}", *("" if value is None else f"{value:.9g}" for value in values)]))
    return "\n".join([*rows, ""])


def curve_summary(known: Mapping[str, Sequence[Point]]) -> str:
    """The response time's curve in a sentence."""
    points = known.get("response_time") or ()
    if not points:
        return "Too few messages for a curve of the response time."
    told = [f"{quantile(point.nines)} {latency(point.seconds)}, " for point in points if point.nines in (1, 2, 3, 4, 5)]
    last = points[-1]
    return f"Response time: {''.join(told)}and the curve ends at {quantile(last.nines)} with {latency(last.seconds)}."


def quantile(nines: float) -> str:
    """A place of the axis as a percentile: `p99.9`."""
    return f"p{100 * (1 - 10**-nines):.{max(0, math.ceil(nines - 1e-9) - 2)}f}"
