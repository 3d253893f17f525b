"""Figures of runs as comparisons and history read them: what each is, where it is kept, what its absence means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Literal, NamedTuple

from portal.runs.figures import percentile
from wsnode.core.result import DEFINITIONS, NOT_JUDGED, Better
from wsnode.core.threshold import COUNTS, DELIVERIES, LATENCIES, RATES, RATIOS, STATISTICS

Kind = Literal["secondary", "explaining"]
"""Whether a figure, where it is not the primary one, is judged at all."""

SECONDARY = (
    "response_time.p50",
    "response_time.p95",
    "response_time.p99",
    "response_time.p999",
    "received_per_s",
    "error_ratio",
    "connect_error_ratio",
    "connect_per_s",
    "connections_peak",
    "handshake.p99",
)
"""What is judged beside the primary metric. Few: the more there are, the more each has to show."""
EXPLAINING = (
    "response_time.p90",
    "response_time.mean",
    "response_time.max",
    "offered_per_s",
    "sent_per_s",
    "service_time.p50",
    "service_time.p99",
    "write_wait.p50",
    "write_wait.p99",
    "scheduler_lag.p50",
    "scheduler_lag.p99",
    "handshake.p50",
    "handshake.p95",
)
"""What is shown beside them to say where a difference comes from, and not judged."""

RESOLUTION = 1 / 128
"""Width of a histogram's bucket, as a share of the value: percentiles are no finer."""


class Measure(NamedTuple):
    """A figure of a run: a metric that a threshold can name."""

    key: str
    """As thresholds and `Summary.figures` have it: `response_time.p99`."""
    group: str
    title: str
    unit: str
    better: Better | None
    text: str

    @property
    def name(self) -> str:
        """In full: `Response time p99`."""
        return f"{self.group} {self.title}" if self.is_latency else self.title

    @property
    def is_latency(self) -> bool:
        """Whether it is a statistic of times."""
        return "." in self.key

    @property
    def null_key(self) -> str:
        """Its name in `Result.nulls`."""
        return _result_name(self.key)

    @property
    def least_spread(self) -> float:
        """Standard deviation that its values have at least, on their scale: that of a bucket's width. Shares of 1 have
        none."""
        return 0.0 if self.unit == "ratio" else RESOLUTION / math.sqrt(12)

    def is_relative(self, values: Iterable[float]) -> bool:
        """Whether these values are compared by their ratios: times, rates and counts, none of them 0. Noise grows with
        the level of what it is on, and its tail is longer above than below."""
        return self.unit != "ratio" and all(value > 0 for value in values)

    def when_missing(self, reason: str) -> float | None:
        """What a null is worth: above every time where too much was never answered; else nothing is known."""
        return math.inf if self.is_latency and reason.startswith(("more than ", "all ", "beyond ")) else None


@cache
def measure(key: str) -> Measure:
    """The measure of that name.

    Raises:
        KeyError: there is none.
    """
    name, _, statistic = key.partition(".")
    if statistic and statistic not in STATISTICS:
        raise KeyError(key)
    definition = DEFINITIONS[_result_name(name)]
    return Measure(
        key,
        definition.title if statistic else "Load and errors",
        percentile(statistic) if statistic else definition.title,
        definition.unit,
        definition.better,
        definition.text,
    )


def every() -> list[Measure]:
    """All of them, in the order of thresholds."""
    return [measure(f"{name}.{s}") for name in LATENCIES for s in STATISTICS] + [
        measure(name) for name in (*RATES, *RATIOS, *COUNTS, *DELIVERIES)
    ]


def compared(primary: str) -> list[tuple[Measure, Kind]]:
    """What is compared beside the primary metric."""
    kinds: tuple[tuple[tuple[str, ...], Kind], ...] = ((SECONDARY, "secondary"), (EXPLAINING, "explaining"))
    return [(measure(key), kind) for keys, kind in kinds for key in keys if key != primary]


def value_of(one: Measure, figures: Mapping[str, float | None], nulls: Mapping[str, str]) -> tuple[float | None, str]:
    """A run's value (infinite where too much was never answered), and why it has none or that one."""
    value = figures.get(one.key)
    if value is not None:
        return float(value), ""
    reason = nulls.get(one.null_key, "not measured")
    return (None if reason in NOT_JUDGED else one.when_missing(reason)), reason


def _result_name(key: str) -> str:
    name, _, _ = key.partition(".")
    if name in LATENCIES:
        return f"latency_s.{key}"
    if name in RATES:
        return f"rates.{key}"
    if name in DELIVERIES:
        return f"broadcast.{key}"
    return f"counters.{key}" if name in COUNTS else key
