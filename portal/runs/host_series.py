"""What hosts did over the seconds of a run that is over: from the samples behind its evidence, and from the load
generators' own account of their processors."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from portal.monitoring.queries import QUERIES
from portal.runs.archive import Opened
from portal.runs.series import MOST_POINTS, Table

_METRIC = re.compile(r"^[a-zA-Z_:][\w:]*")
_CPU = next(query.what for query in QUERIES if query.name == "Host CPU")
_LOOP_LAG = next(query.what for query in QUERIES if query.name.startswith("Server event-loop lag"))

BySecond = dict[int, float]


def host_table(found: Opened, most: int = MOST_POINTS) -> Table:
    """Columns `cpu:HOST` (cores in use), `worker:HOST` (those of its busiest load worker) and `loop_lag:HOST` (s).

    Samples of Prometheus lie in the measured window, and count for the second in which they were taken.
    """
    begun = (found.head["start_at_ns"] or 0) / 1e9
    columns: dict[str, BySecond] = {}
    if begun:
        for host, values in _processors(found.series, begun).items():
            columns[f"cpu:{host}"] = values
        for host, values in _lags(found.series, begun).items():
            columns[f"loop_lag:{host}"] = values
    for host, lines in found.machine.items():
        columns[f"worker:{host}"] = dict(_busiest(lines))
    last = max((max(values, default=0) for values in columns.values()), default=0)
    step = max(1, -(-last // most))
    table: Table = {"second": [float(end) for end in range(step, last + 1, step)]}
    for key, values in columns.items():
        table[key] = [_joined(key, values, end - step, end) for end in range(step, last + 1, step)]
    return table


def _joined(key: str, values: BySecond, begin: int, end: int) -> float | None:
    known = [values[second] for second in range(begin + 1, end + 1) if second in values]
    if not known:
        return None
    return max(known) if key.startswith("loop_lag:") else sum(known) / len(known)


def _of(series: Sequence[Mapping[str, Any]], metric: str, job: str, matchers: str) -> Iterator[Mapping[str, Any]]:
    for one in series:
        name = _METRIC.match(one["selector"])
        if name and name[0] == metric and f'job="{job}"' in one["selector"] and matchers in one["selector"]:
            yield from one["result"]


def _processors(series: Sequence[Mapping[str, Any]], begun: float) -> dict[str, BySecond]:
    """Cores that were neither idle nor waiting, nor taken by a hypervisor."""
    found: dict[str, BySecond] = defaultdict(lambda: defaultdict(float))
    for one in _of(series, _CPU.metric, _CPU.job, _CPU.matchers):
        for (a, used), (b, later) in itertools.pairwise(one["samples"]):
            if b > a and later >= used:
                found[one["labels"].get("host", "")][math.ceil(b - begun)] += (later - used) / (b - a)
    return {host: dict(values) for host, values in sorted(found.items())}


def _lags(series: Sequence[Mapping[str, Any]], begun: float) -> dict[str, BySecond]:
    found: dict[str, BySecond] = defaultdict(dict)
    for one in _of(series, _LOOP_LAG.metric, _LOOP_LAG.job, _LOOP_LAG.matchers):
        for at, lag in one["samples"]:
            values, second = found[one["labels"].get("host", "")], math.ceil(at - begun)
            values[second] = max(lag, values.get(second, 0.0))
    return dict(sorted(found.items()))


def _busiest(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, float]]:
    """CPU seconds per second of the busiest worker, by second."""
    before: Sequence[float] = [0.0] * (len(lines[0]["worker_cpu_s"]) if lines else 0)
    for second, line in enumerate(lines, 1):
        now = line["worker_cpu_s"]
        if now and len(now) == len(before):
            yield second, max(round(b - a, 6) for a, b in zip(before, now, strict=True))
        before = now
