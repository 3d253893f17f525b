"""Thresholds: what a team demands of a run, as text (`response_time.p99 < 50ms`) and as values."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

STATISTICS = ("min", "mean", "p50", "p90", "p95", "p99", "p999", "max")
LATENCIES = ("response_time", "service_time", "scheduler_lag", "write_wait", "handshake", "one_way")
RATIOS = {
    "error_ratio": "messages lost, or unsent by the server's fault, of those due in the measured window",
    "connect_error_ratio": "failed connects of those attempted in the whole run",
}
RATES = {
    "connect_per_s": "connections opened per second of the ramp-up",
    "offered_per_s": "messages due per second of the measured window",
    "sent_per_s": "messages of the measured window sent, per second",
    "received_per_s": "messages of the measured window answered, per second",
}
DELIVERIES = {
    "deliveries_per_s": "deliveries of a broadcast that came in the measured window, per second",
    "delivery_loss_ratio": "lost deliveries of a broadcast, of those expected in the whole run",
}
COUNTS = {"connections_peak": "most connections open at the end of any second, over all hosts"}

_TIME = {"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"), "ms": Decimal("1e-3"), "s": Decimal(1)}
_RATIO = {"%": Decimal("0.01"), "": Decimal(1)}
_RATE = {"/s": Decimal(1)}
_COUNT = {"": Decimal(1)}
_EXPRESSION = re.compile(r"\s*([a-z_][a-z0-9_]*(?:\.[a-z0-9]+)?)\s*(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)?)\s*(\S*)\s*")


class Threshold(NamedTuple):
    """One demand. `limit` is in seconds, a share of 1, per second, or a count, by the metric's kind."""

    metric: str
    operator: str
    limit: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read `METRIC < NUMBER UNIT`, operators < <= > >=.

        Raises:
            ValueError: says what is wrong and what may stand there.
        """
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise ValueError(
                f"threshold {text!r}: expected METRIC OPERATOR NUMBER UNIT, such as 'response_time.p99 < 50ms' "
                "(operators < <= > >=)"
            )
        metric, operator, number, unit = match.groups()
        name, _, statistic = metric.partition(".")
        if name in LATENCIES:
            if statistic not in STATISTICS:
                raise ValueError(
                    f"threshold {text!r}: {name} needs a statistic, one of "
                    + ", ".join(f"{name}.{s}" for s in STATISTICS)
                )
            units = _TIME
        elif statistic:
            raise ValueError(f"threshold {text!r}: {name!r} has no statistics; {_known()}")
        elif name in RATIOS or name == "delivery_loss_ratio":
            units = _RATIO
        elif name in RATES or name == "deliveries_per_s":
            units = _RATE
        elif name in COUNTS:
            units = _COUNT
        else:
            raise ValueError(f"threshold {text!r}: no metric {name!r}; {_known()}")
        if unit not in units:
            wanted = " or ".join(repr(u) if u else "none" for u in units)
            raise ValueError(f"threshold {text!r}: unit {unit!r}; {name} takes {wanted}")
        # In decimal, so that 9ms is the 0.009 s of a measured 9,000,000 ns, which 9 * 1e-3 is not.
        limit = float(Decimal(number) * units[unit])
        return cls(metric, operator, limit, f"{metric} {operator} {number}{unit}")

    def holds(self, value: float) -> bool:
        """Whether a value (in the metric's base unit) meets the demand."""
        match self.operator:
            case "<":
                return value < self.limit
            case "<=":
                return value <= self.limit
            case ">":
                return value > self.limit
        return value >= self.limit


def check_metric(text: str) -> str:
    """The name of a metric as a threshold has it, such as `response_time.p99` or `received_per_s`.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    name, _, statistic = text.strip().partition(".")
    known = (
        statistic in STATISTICS
        if name in LATENCIES
        else not statistic and name in {*RATIOS, *RATES, *COUNTS, *DELIVERIES}
    )
    if not known:
        raise ValueError(f"no metric {text!r}; {_known()}; each time also with {', '.join(STATISTICS)}")
    return text.strip()


def _known() -> str:
    names = [f"{latency}.p99" for latency in LATENCIES] + [*RATIOS, *RATES, *COUNTS, *DELIVERIES]
    return "known: " + ", ".join(names)
