"""A run over time: what its seconds come to, for charts, their summaries and tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from portal.runs.columns import Columns
from wsnode.core.histogram import Histogram, bucket_bounds, nearest_rank
from wsnode.core.merge import since
from wsnode.core.protocol import Counters, Second

MOST_POINTS = 600
"""A longer run has fewer, longer points: each is cut exactly from the seconds, none is averaged."""
TIMED = ("response_time", "scheduler_lag")
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

Table = dict[str, list[float | None]]
"""Columns by key; `second` holds the end of each point's stretch. A missing value is null. What has errors or unsent
messages of a kind has a column `error:KIND` or `unsent:REASON`."""


class Stretch(NamedTuple):
    """One point: what was added in some seconds."""

    second: int
    length_s: int
    counters: Mapping[str, int]
    """Of gauges, what they stand at in the end."""
    errors: Mapping[str, int]
    unsent: Mapping[str, int]
    times: Mapping[str, Histogram]
    """Those of `TIMED`, of these seconds alone."""


def of_line(line: Second, before: Second | None) -> Stretch:
    """From two cumulative lines, one of which may be the begin."""
    gained = since(line, before)
    return Stretch(
        line.second,
        line.second - (before.second if before else 0),
        gained.counters.model_dump(),
        {str(kind): n for kind, n in gained.errors.items()},
        {str(reason): n for reason, n in gained.unsent.items()},
        {name: gained.histogram(name) for name in TIMED},
    )


def of_columns(columns: Columns, most: int = MOST_POINTS) -> Iterator[Stretch]:
    """From seconds that are kept, at most so many points; a rest that fills none is left out."""
    step = max(1, -(-len(columns.numbers) // most))
    times = [_histograms(columns, name, step) for name in TIMED]
    sums = {part: _added(columns.sums[part], step) for part in columns.sums}
    opened = columns.opened()
    for place, point in enumerate(zip_longest(*times)):
        end = (place + 1) * step
        if end > len(columns.numbers):
            return
        counters = {key: column[place] for key, column in sums["counters"].items()}
        yield Stretch(
            columns.numbers[end - 1],
            columns.numbers[end - 1] - (columns.numbers[end - 1 - step] if end > step else 0),
            {**dict.fromkeys(Counters.model_fields, 0), **counters, "connections_open": opened[end - 1]},
            {key: n for key, column in sums["errors"].items() if (n := column[place])},
            {key: n for key, column in sums["unsent"].items() if (n := column[place])},
            {name: histogram or Histogram() for name, histogram in zip(TIMED, point, strict=True)},
        )


def _added(columns: Mapping[str, Sequence[int]], step: int) -> dict[str, list[int]]:
    return {key: [sum(column[at : at + step]) for at in range(0, len(column), step)] for key, column in columns.items()}


def _histograms(columns: Columns, name: str, step: int) -> Iterator[Histogram]:
    """The histogram of each point."""
    buckets, moments = columns.buckets.get(name), columns.moments.get(name)
    if buckets is None or moments is None:
        yield from (Histogram() for _ in range(0, len(columns.numbers), step))
        return
    rows = [buckets.row(place) for place in range(len(buckets.indices))]
    if step > 1:
        rows = [[sum(row[at : at + step]) for at in range(0, len(columns.numbers), step)] for row in rows]
    points = zip(*rows, strict=True) if rows else iter([()] * len(columns.numbers))
    for at, counts in zip(range(0, len(columns.numbers), step), points, strict=False):
        histogram = Histogram()
        histogram.buckets = {index: n for index, n in zip(buckets.indices, counts, strict=True) if n}
        histogram.count, histogram.sum_ns, histogram.overflow = (
            sum(moments[key][at : at + step]) for key in ("count", "sum", "overflow")
        )
        if histogram.buckets:
            least = [n for n in moments["min"][at : at + step] if n is not None]
            most = [n for n in moments["max"][at : at + step] if n is not None]
            histogram.min_ns = max(bucket_bounds(min(histogram.buckets))[0], *least)
            histogram.max_ns = max(most) if histogram.overflow else min(bucket_bounds(max(histogram.buckets))[1], *most)
        yield histogram


def tabulate(points: Sequence[Stretch]) -> Table:
    """What the charts draw."""
    errors = sorted({key for point in points for key in point.errors})
    unsent = sorted({key for point in points for key in point.unsent})
    table: Table = {}
    for point in points:
        for key, value in _row(point, errors, unsent).items():
            table.setdefault(key, []).append(value)
    return table or {key: [] for key in _row(_NOTHING, (), ())}


_NOTHING = Stretch(0, 1, dict.fromkeys(Counters.model_fields, 0), {}, {}, {name: Histogram() for name in TIMED})


def _row(point: Stretch, errors: Sequence[str], unsent: Sequence[str]) -> dict[str, float | None]:
    counters, length_s = point.counters, point.length_s
    response, lag = point.times["response_time"], point.times["scheduler_lag"]
    awaited = counters["messages_due"] - counters["messages_no_reply"]
    return {
        "second": point.second,
        **{key: _rank(response, quantile, awaited) for key, quantile in PERCENTILES.items()},
        "offered": counters["messages_due"] / length_s,
        "answered": counters["messages_received"] / length_s,
        "open": counters["connections_open"],
        "lost": counters["messages_lost"] / length_s,
        "lag_p50": _rank(lag, 0.5, counters["messages_due"]),
        "lag_p99": _rank(lag, 0.99, counters["messages_due"]),
        **{f"error:{kind}": point.errors.get(kind, 0) / length_s for kind in errors},
        **{f"unsent:{reason}": point.unsent.get(reason, 0) / length_s for reason in unsent},
    }


def _rank(times: Histogram, quantile: float, due: int) -> float | None:
    """Nearest rank over all due (s). A point is a texture, not a figure: it asks for no samples beyond it."""
    if due <= 0:
        return None
    value = times.value_at_rank(nearest_rank(quantile, due))
    return None if value is None else value / 1e9


def extend(table: Table, more: Table) -> None:
    """Append rows to a table in place. A kind of error that one of them does not know was not seen there."""
    before, after = len(table["second"]), len(more["second"])
    for key in more.keys() - table.keys():
        table[key] = [0.0] * before
    for key, column in table.items():
        column.extend(more.get(key, [0.0] * after))


def after(table: Table, second: int) -> Table:
    """Its rows beyond a second."""
    first = sum(at is not None and at <= second for at in table["second"])
    return {key: column[first:] for key, column in table.items()}
