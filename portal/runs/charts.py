"""The charts of a run: what each draws, in which words it says so, and as a table of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from portal.runs.figures import count, latency, number
from portal.runs.series import Table

COLOURS = 8
MOST_KINDS = 16


class Line(NamedTuple):
    """One line of a chart."""

    key: str
    """Of the table's column."""
    label: str
    colour: int
    """Number of the chart colour in the style sheet."""
    dashed: bool = False


class Chart(NamedTuple):
    """What a chart shows."""

    key: str
    title: str
    unit: str
    """As figures know it: `connections`, `1/s`, `s`, `cores`."""
    lines: tuple[Line, ...]
    """Those that are always there."""
    note: str
    kinds: tuple[str, ...] = ()
    """Beginnings of the columns that are further lines, where there are any."""
    of_hosts: bool = False
    """Of what hosts did; else of what clients saw."""


CHARTS = (
    Chart(
        "response_time",
        "Response time",
        "s",
        (Line("p50", "p50", 1), Line("p95", "p95", 3), Line("p99", "p99", 2)),
        "By the second in which messages were due; a gap: too many of them were never answered.",
    ),
    Chart(
        "messages",
        "Messages",
        "1/s",
        (Line("answered", "answered", 3), Line("offered", "offered", 4, dashed=True)),
        "By the second in which they were due.",
    ),
    Chart("connections", "Connections", "connections", (Line("open", "open", 1),), "At the end of each second."),
    Chart(
        "errors",
        "Errors by kind",
        "1/s",
        (Line("lost", "messages lost", 5),),
        "Messages by the second in which they were due, connections by when it happened.",
        ("error:", "unsent:"),
    ),
    Chart(
        "scheduler_lag",
        "Scheduler lag",
        "s",
        (Line("lag_p50", "p50", 1), Line("lag_p99", "p99", 2)),
        "The load generators' own delay. Above 5 ms the run is suspect, above 50 ms invalid.",
    ),
    Chart(
        "cpu",
        "CPU by host",
        "cores",
        (),
        "A whole core is 1. A worker is the busiest process of wsnode on its host; at 1 it is full.",
        ("cpu:", "worker:"),
        of_hosts=True,
    ),
    Chart(
        "loop_lag",
        "Event-loop lag by host",
        "s",
        (),
        "The longest of each second: so long something else kept a loop from its connections.",
        ("loop_lag:",),
        of_hosts=True,
    ),
)
BY_KEY = {chart.key: chart for chart in CHARTS}
_WORDS = {"error": "{}", "unsent": "unsent, {}", "cpu": "{}", "worker": "{} worker", "loop_lag": "{}"}


def lines(chart: Chart, table: Table) -> list[Line]:
    """The lines of a chart over a table: the fixed ones, and one for each kind that the table has."""
    found = list(chart.lines)
    keys = [key for start in chart.kinds for key in sorted(table) if key.startswith(start)]
    for key in keys[:MOST_KINDS]:
        start, _, name = key.partition(":")
        place = len(found)
        label = _WORDS[start].format(name if chart.of_hosts else name.replace("_", " "))
        found.append(Line(key, label, (place + chart.lines[0].colour - 1 if chart.lines else place) % COLOURS + 1))
    return [line._replace(dashed=line.dashed or place >= COLOURS) for place, line in enumerate(found)]


def as_csv(chart: Chart, table: Table) -> str:
    """The chart's table: a line for each point, in base units; what is missing is empty."""
    drawn = lines(chart, table)
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    unit = {"s": "_s", "1/s": "_per_s", "cores": "_cores"}.get(chart.unit, "")
    writer.writerow(["second", *(f"{line.key.replace(':', '_')}{unit}" for line in drawn)])
    for row in zip(table["second"], *(table[line.key] for line in drawn), strict=True):
        writer.writerow(["" if value is None else f"{value:.9g}" for value in row])
    return written.getvalue()


# --- in words -------------------------------------------------------------------------------------------------------
def summaries(run: Table, hosts: Table, window: tuple[int, int] | None) -> dict[str, str]:
    """Each chart in a sentence, for those who do not see it."""
    if not run["second"]:
        return {chart.key: "Nothing yet." for chart in CHARTS}
    inside = _inside(run, window)
    where = "in the measured window" if window else "in the whole run"
    return {
        "response_time": _spread(run, inside, where),
        "messages": _offered(run, inside, where),
        "connections": f"At most {count(max(_known(run['open'])))} open.",
        "errors": _errors(run),
        "scheduler_lag": _lag(run, inside, where),
        "cpu": _cpu(hosts, window),
        "loop_lag": _loop_lag(hosts, window),
    }


def _inside(table: Table, window: tuple[int, int] | None) -> list[int]:
    return [
        place
        for place, second in enumerate(table["second"])
        if window is None or (second is not None and window[0] < second <= window[1])
    ]


def _spread(table: Table, inside: list[int], where: str) -> str:
    parts = []
    for key in ("p50", "p99"):
        known = _known([table[key][i] for i in inside])
        if known:
            low, high = latency(min(known)), latency(max(known))
            parts.append(f"{key} of {low}" if low == high else f"{key} between {low} and {high}")
    gaps = sum(table["p99"][i] is None for i in inside if (table["offered"][i] or 0) > 0)
    if not parts:
        return f"No response times {where}."
    sentence = f"{', '.join(parts)} {where}."
    return sentence + (f" {count(gaps)} points have no p99: too much was never answered." if gaps else "")


def _lag(table: Table, inside: list[int], where: str) -> str:
    known = _known([table["lag_p99"][i] for i in inside])
    if not known:
        return f"Nothing was due {where}."
    worst = max(known)
    second = next(table["second"][i] for i in inside if table["lag_p99"][i] == worst)
    return f"p99 between {latency(min(known))} and {latency(worst)} {where}, highest in second {count(second)}."


def _offered(table: Table, inside: list[int], where: str) -> str:
    if not inside:
        return "Nothing was due."
    offered, answered = (sum(_known([table[key][i] for i in inside])) / len(inside) for key in ("offered", "answered"))
    return f"{number(offered)}/s offered and {number(answered)}/s answered {where}, on average."


def _errors(table: Table) -> str:
    parts = []
    for line in lines(BY_KEY["errors"], table):
        values = _known(table[line.key])
        if any(values):
            worst = max(range(len(values)), key=values.__getitem__)
            parts.append(f"{line.label}, most in second {count(table['second'][worst])} ({number(values[worst])}/s)")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else "None."


def _cpu(table: Table, window: tuple[int, int] | None) -> str:
    inside = _inside(table, window)
    parts = []
    for key in sorted(key for key in table if key.startswith("cpu:")):
        known = _known([table[key][i] for i in inside])
        if known:
            mean = number(sum(known) / len(known))
            parts.append(f"{key.partition(':')[2]} {mean} cores on average, at most {number(max(known))}")
    workers = {
        key.partition(":")[2]: max(known)
        for key in table
        if key.startswith("worker:") and (known := _known([table[key][i] for i in inside]))
    }
    if workers:
        host = max(workers, key=workers.__getitem__)
        parts.append(f"of the workers that of {host} was busiest, at most {number(workers[host])} cores")
    return f"{'; '.join(parts)}." if parts else "No host was seen."


def _loop_lag(table: Table, window: tuple[int, int] | None) -> str:
    parts = []
    for key in sorted(key for key in table if key.startswith("loop_lag:")):
        known = _known([table[key][i] for i in _inside(table, window)])
        if known:
            mean = latency(sum(known) / len(known))
            parts.append(f"{key.partition(':')[2]} {mean} on average, at most {latency(max(known))}")
    return f"{'; '.join(parts)}." if parts else "No host was seen."


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
