"""A run over time: what its cumulative seconds come to per second, for charts, their summaries and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from portal.runs.deltas import Line as ArchivedSecond
from portal.runs.deltas import add_up
from portal.runs.figures import count, latency, number
from wsnode.core.histogram import Histogram, nearest_rank
from wsnode.core.merge import since
from wsnode.core.protocol import Second

MOST_POINTS = 600
"""A longer run has fewer, longer points: each is cut exactly from the cumulative lines, none is averaged."""
RESPONSE_TIME = ("response_time",)

Columns = dict[str, list[float | None]]
"""By key; `second` holds the end of each point's stretch. A missing value is null."""


class Line(NamedTuple):
    """One line of a chart."""

    key: str
    label: str
    colour: int
    """Number of the chart colour in the style sheet."""
    dashed: bool = False


class Chart(NamedTuple):
    """What a chart shows."""

    key: str
    title: str
    unit: str
    """As figures know it: `connections`, `1/s`, `s`."""
    lines: tuple[Line, ...]
    note: str


CHARTS = (
    Chart(
        "response_time",
        "Response time",
        "s",
        (Line("p50", "p50", 1), Line("p99", "p99", 2)),
        "by the second in which messages were due; a gap: too many of them were never answered",
    ),
    Chart(
        "messages",
        "Messages",
        "1/s",
        (Line("answered", "answered", 3), Line("offered", "offered", 4, dashed=True)),
        "by the second in which they were due",
    ),
    Chart("connections", "Connections", "connections", (Line("open", "open", 1),), "at the end of each second"),
    Chart(
        "errors",
        "Errors",
        "1/s",
        (Line("lost", "lost", 5), Line("unsent", "unsent", 2), Line("broken", "connects failed or broken", 4)),
        "messages by the second in which they were due",
    ),
)


class Stretch(NamedTuple):
    """One point: what was added in some seconds."""

    gained: Second
    """Counters, errors, unsent and response times of these seconds alone."""
    length_s: int
    open_at_end: int


def stretches(lines: Sequence[Second], before: Second | None = None) -> list[Stretch]:
    """Of consecutive cumulative lines, a point each; `before` is the line that precedes the first."""
    found = []
    for line in lines:
        length = line.second - (before.second if before else 0)
        found.append(Stretch(since(line, before), length, line.counters.connections_open))
        before = line
    return found


def archived(seconds: Sequence[ArchivedSecond], most: int = MOST_POINTS) -> list[Stretch]:
    """Of archived seconds (`portal.runs.deltas`), at most so many points."""
    step = max(1, -(-len(seconds) // most))
    found, is_open = [], 0
    for end in range(step, len(seconds) + 1, step):
        gained = Second.model_validate(add_up(seconds[end - step : end], RESPONSE_TIME))
        is_open += gained.counters.connections_open
        found.append(Stretch(gained, step, is_open))
    return found


def columns(points: Sequence[Stretch]) -> Columns:
    """What the charts draw."""
    table: Columns = {key: [] for key in ("second", *(line.key for chart in CHARTS for line in chart.lines))}
    for gained, length_s, open_at_end in points:
        counters, times = gained.counters, gained.histogram("response_time")
        awaited = counters.messages_due - counters.messages_no_reply
        point = {
            "second": gained.second,
            "p50": _rank(times, 0.5, awaited),
            "p99": _rank(times, 0.99, awaited),
            "offered": counters.messages_due / length_s,
            "answered": counters.messages_received / length_s,
            "open": open_at_end,
            "lost": counters.messages_lost / length_s,
            "unsent": counters.messages_unsent / length_s,
            "broken": sum(gained.errors.values()) / length_s,
        }
        for key, value in point.items():
            table[key].append(value)
    return table


def _rank(times: Histogram, quantile: float, due: int) -> float | None:
    """Nearest rank over all due (s). A point is a texture, not a figure: it asks for no samples beyond it."""
    if due <= 0:
        return None
    value = times.value_at_rank(nearest_rank(quantile, due))
    return None if value is None else value / 1e9


def summaries(table: Columns, window: tuple[int, int] | None) -> dict[str, str]:
    """Each chart in a sentence, for those who do not see it."""
    if not table["second"]:
        return {chart.key: "Nothing yet." for chart in CHARTS}
    inside = [
        i
        for i, second in enumerate(table["second"])
        if window is None or (second is not None and window[0] < second <= window[1])
    ]
    where = "in the measured window" if window else "in the whole run"
    return {
        "response_time": _spread(table, inside, where),
        "messages": _offered(table, inside, where),
        "connections": f"At most {count(max(_known(table['open'])))} open.",
        "errors": _errors(table),
    }


def _spread(table: Columns, inside: list[int], where: str) -> str:
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


def _offered(table: Columns, inside: list[int], where: str) -> str:
    if not inside:
        return "Nothing was due."
    offered, answered = (sum(_known([table[key][i] for i in inside])) / len(inside) for key in ("offered", "answered"))
    return f"{number(offered)}/s offered and {number(answered)}/s answered {where}, on average."


def _errors(table: Columns) -> str:
    parts = []
    for key, label in (
        ("lost", "messages lost"),
        ("unsent", "messages unsent"),
        ("broken", "connects failed or broken"),
    ):
        values = _known(table[key])
        if any(values):
            worst = max(range(len(values)), key=values.__getitem__)
            parts.append(f"{label}, most in second {count(table['second'][worst])} ({number(values[worst])}/s)")
    return f"{'; '.join(parts).capitalize()}." if parts else "None."


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
