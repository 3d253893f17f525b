"""What equal runs differ in, and the smallest change that 1 + 1 and 5 + 5 of them can show.

    ./wslab bench repeats FILE [--runs 40] [--skip 0]

FILE is what `python -m tests.benchmarks.record_repeats FILE 40` has recorded: one scenario, again and again. The
smallest changes are those of the comparisons themselves (`portal.runs.statistics`, docs/adr/0013): for single runs by
the spread of the others, for groups by the exact rank test over random groups of the recorded runs, the median of them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from portal.runs.noise import MOST_EARLIER
from portal.runs.statistics import against_spread, deviation, rank_sum

METRICS = {"response_time.p50": "p50", "response_time.p99": "p99", "received_per_s": "throughput"}
GROUP, DRAWS = 5, 200


class Row(NamedTuple):
    """One figure of a series; shares are of its median."""

    name: str
    median: float
    least: float
    most: float
    spread: float
    """Standard deviation."""
    middle: float
    """From the first to the third quartile."""
    single: float | None
    """Smallest change that is found in four of five comparisons of 1 + 1 runs; None: the noise is not known."""
    grouped: float | None
    """The same of 5 + 5."""


def row(name: str, values: Sequence[float], believed: Sequence[float]) -> Row:
    """The spread of a series, and what it hides; `believed` are those of its valid runs, by which single runs are told
    apart."""
    centre = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4)
    single = against_spread(centre, centre, believed[-MOST_EARLIER:], 0.0)
    dice = random.Random(len(values))  # the same draws each time
    grouped = []
    for _ in range(DRAWS):
        drawn = dice.sample(list(values), 2 * GROUP)
        found = rank_sum(drawn[:GROUP], drawn[GROUP:], power=True)
        if found.detectable is not None:
            grouped.append(found.detectable)
    return Row(
        name,
        centre,
        min(values),
        max(values),
        deviation(values) / centre,
        (quartiles[2] - quartiles[0]) / centre,
        None if single is None or single.detectable is None else single.detectable / centre,
        statistics.median(grouped) / centre if grouped else None,
    )


def markdown(rows: Sequence[Row]) -> str:
    """For `docs/performance.md`."""
    lines = [
        "| | median | min to max | standard deviation | middle half | 1 + 1 runs show | 5 + 5 runs show |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {each.name} | {_figure(each, each.median)} | {_figure(each, each.least)} to {_figure(each, each.most)} "
        f"| {_share(each.spread)} | {_share(each.middle)} | {_share(each.single)} | {_share(each.grouped)} |"
        for each in rows
    ]
    return "\n".join(lines)


def _figure(of: Row, value: float) -> str:
    return f"{value:,.1f}/s" if of.name == "throughput" else f"{value * 1e3:.3g} ms"


def _share(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 1 if value == 0 else max(0, 1 - math.floor(math.log10(100 * value)))
    return f"{100 * value:.{digits}f} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a recorded series."""
    parser = argparse.ArgumentParser(
        prog="wslab bench repeats", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=40, help="how many of the recorded ones")
    parser.add_argument("--skip", type=int, default=0, help="leave out so many at the begin")
    options = parser.parse_args(argv)
    recorded = json.loads(options.file.read_text())
    runs = recorded["runs"][options.skip : options.skip + options.runs]
    if len(runs) < 2 * GROUP:
        parser.error(f"{options.file} has {len(runs)} such runs: at least {2 * GROUP} are wanted")
    valid = [run for run in runs if run["validity"] == "valid"]
    print(f"{len(runs)} runs of {recorded['recorded']['scenario']}, {len(valid)} of them valid\n")
    rows = [
        row(title, *([run["figures"][name] for run in side] for side in (runs, valid)))
        for name, title in METRICS.items()
    ]
    print(markdown(rows))
    return 0
