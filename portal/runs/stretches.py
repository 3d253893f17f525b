"""The figures of a stretch, as a page shows them."""

from __future__ import annotations

from typing import NamedTuple

from wsnode.core.result import DEFINITIONS, Definition, Latency
from wsnode.core.summary import Summary

STATISTICS = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
TIMES = ("response_time", "service_time", "write_wait", "scheduler_lag")


class Cell(NamedTuple):
    """A statistic; where it is null, why."""

    title: str
    value: float | None
    why: str | None


class Row(NamedTuple):
    """One latency."""

    definition: Definition
    latency: Latency
    cells: list[Cell]


class Count(NamedTuple):
    """What happened to so many messages or connections, and how many that is a second."""

    name: str
    n: int
    per_s: float


class Figures(NamedTuple):
    """All of a stretch."""

    length_s: int
    rows: list[Row]
    messages: list[Count]
    connections: list[Count]
    errors: list[Count]
    error_ratio: float | None
    open_most: int | None

    @classmethod
    def of(cls, summary: Summary) -> Figures:
        """Of a summary whose window is the stretch."""
        assert summary.window is not None
        length = summary.window[1] - summary.window[0]
        latencies, nulls = summary.latencies()
        rows = []
        for name in TIMES:
            latency: Latency = getattr(latencies, name)
            cells = [
                Cell(statistic, getattr(latency, statistic), nulls.get(f"latency_s.{name}.{statistic}"))
                for statistic in STATISTICS
            ]
            rows.append(Row(DEFINITIONS[f"latency_s.{name}"], latency, cells))
        counters = summary.measured.counters.model_dump()

        def counts(room: str, names: tuple[str, ...]) -> list[Count]:
            return [Count(name, counters[f"{room}_{name}"], counters[f"{room}_{name}"] / length) for name in names]

        errors = {kind.replace("_", " "): n for kind, n in summary.measured.errors.items()}
        errors |= {f"unsent, {why.replace('_', ' ')}": n for why, n in summary.measured.unsent.items()}
        return cls(
            length,
            rows,
            counts("messages", ("due", "sent", "received", "lost", "unsent")),
            counts("connections", ("attempted", "opened", "failed", "closed")),
            [Count(kind, n, n / length) for kind, n in errors.items()],
            summary.error_ratio,
            summary.peak,
        )
