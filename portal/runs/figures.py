"""Numbers for people: significant digits, separators, and a unit that fits. What is missing is `NONE`, never 0."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import NamedTuple

NONE = "–"
NBSP = "\u00a0"
DIGITS = 3
"""Significant digits: the histograms' resolution is 0.4 %."""

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_COUNTED = {"connections", "messages", "sockets", "files", "processes", "count", ""}


class Figure(NamedTuple):
    """A number as it is shown, and its unit ('' where it has none)."""

    text: str
    unit: str = ""

    def __str__(self) -> str:
        gap = "" if self.unit.startswith("/") else NBSP
        return f"{self.text}{gap}{self.unit}" if self.unit else self.text


MISSING = Figure(NONE)


def figure(value: float | None, unit: str) -> Figure:
    """A value of the result or the evidence, in `unit` as `DEFINITIONS` and the queries name it; the difference of two
    ratios is in `points`, of 100."""
    if value is None or not math.isfinite(value):
        return MISSING
    if unit == "s":
        return latency(value)
    if unit == "ratio":
        return ratio(value)
    if unit == "points":
        return Figure(number(round(value * 100, 10)), "points")
    if unit in ("bytes", "bytes/s", "B", "B/s"):
        whole = size(value)
        return Figure(whole.text, whole.unit + "/s") if unit.endswith("/s") else whole
    if unit in _COUNTED and float(value).is_integer():
        return Figure(count(value), unit if unit not in ("count", "connections") else "")
    return Figure(number(value), {"1/s": "/s", "percent": "%", "count": ""}.get(unit, unit))


def number(value: float | None) -> str:
    """`1,234`, `56.7`, `0.0123`: three significant digits, more only left of the point."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    decimals = DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # 9.996 has become 10.0: one decimal less is significant now.
    decimals = DIGITS - 1 - math.floor(math.log10(abs(rounded)))
    if decimals <= 0:
        return f"{round(value):,}"
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if float(value).is_integer() else text


def count(value: float | None) -> str:
    """Whole, with thousands separated."""
    return NONE if value is None else f"{round(value):,}"


def latency(seconds: float | None) -> Figure:
    """A short time in the unit that shows it best: `1.23 s`, `45.6 ms`, `789 µs`, `12 ns`."""
    if seconds is None:
        return MISSING
    if seconds == 0:
        return Figure("0", "s")
    magnitude = abs(float(f"{seconds:.{DIGITS}g}"))
    scale, unit = next((pair for pair in _TIMES if magnitude >= pair[0]), _TIMES[-1])
    return Figure(number(seconds / scale), unit)


def ratio(value: float | None) -> Figure:
    """A share of 1 as per cent. What is not quite nothing or not quite all never reads as 0 % or 100 %."""
    if value is None:
        return MISSING
    if 0 < value < 1e-6:
        return Figure("< 0.0001", "%")
    if 0.9995 <= value < 1:
        return Figure("> 99.9", "%")
    return Figure(number(round(value * 100, 10)), "%")


def size(value: float | None) -> Figure:
    """Bytes in binary units."""
    if value is None:
        return MISSING
    for scale, unit in _SIZES:
        if abs(value) >= scale:
            return Figure(number(value / scale), unit)
    return Figure(number(value), "B")


def span(seconds: float | None) -> str:
    """A length of time as one says it: `12 s`, `1 min 20 s`, `2 h 5 min`, `3 d 4 h`; below 10 s with a decimal."""
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + f"{NBSP}s"
    whole = round(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next(i for i, (n, _) in enumerate(parts) if n)
    return " ".join(f"{n}{NBSP}{unit}" for n, unit in parts[first : first + 2] if n)


def length(time: timedelta | None) -> str:
    """`span` of a difference of two clock times."""
    return NONE if time is None else span(max(0.0, time.total_seconds()))


def percentile(statistic: str) -> str:
    """A statistic's name as it is read: `p999` is p99.9."""
    return "p99.9" if statistic == "p999" else statistic
