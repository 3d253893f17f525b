"""A run in words: what it comes to, and what its hosts are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from portal.runs.figures import count, figure, latency, number, size
from wsnode.core.result import DEFINITIONS, Result
from wsnode.core.threshold import Threshold

_HOLD = {1: "its threshold holds", 2: "both thresholds hold"}
_BELIEVED = {
    "valid": "The measurement can be trusted.",
    "suspect": "Read it with care: the measurement is suspect.",
    "invalid": "Do not rely on it: the measurement is invalid.",
}


def in_short(result: Result) -> str:
    """Verdict, validity, and what was reached, in two or three sentences."""
    failed = [judged for judged in result.thresholds if judged.passed is False]
    if result.state != "finished":
        begin = f"The run was {result.state}; these are the figures until then."
    elif result.verdict == "passed":
        n = sum(judged.passed is True for judged in result.thresholds)
        begin = f"It passed: {_HOLD.get(n, f'all {n} thresholds hold')}."
    elif result.aborted is not None:
        begin = f"It was ended at second {result.aborted.second} by its own rule, and failed: {result.aborted.expr}."
    elif failed:
        begin = "It failed: " + "; ".join(_missed(judged.expr, judged.value) for judged in failed) + "."
    else:
        begin = "It has no verdict: no threshold was judged."
    return f"{begin} {_BELIEVED[result.validity]} {_reached(result)}"


def _missed(expr: str, value: float | None) -> str:
    if value is None:
        return f"{expr} (too much was never answered)"
    metric = Threshold.parse(expr).metric
    unit = next(DEFINITIONS[key].unit for key in _keys(metric) if key in DEFINITIONS)
    return f"{expr} (measured {figure(value, unit)})"


def _keys(metric: str) -> list[str]:
    """Where a threshold's metric may be defined."""
    places = ("rates", "counters", "broadcast")
    return [f"latency_s.{metric.partition('.')[0]}", *(f"{place}.{metric}" for place in places), metric]


def _reached(result: Result) -> str:
    rates, times = result.rates, result.latency_s.response_time
    parts = []
    if result.counters.connections_peak is not None:
        parts.append(f"{count(result.counters.connections_peak)} connections")
    if (deliveries := result.broadcast) is not None:
        if deliveries.deliveries_per_s is not None:
            parts.append(f"{number(deliveries.deliveries_per_s)} deliveries a second")
        parts.append(f"{count(deliveries.lost)} of {count(deliveries.expected)} lost")
        times = result.latency_s.one_way or times
    elif rates.received_per_s is not None and rates.offered_per_s:
        parts.append(f"{number(rates.received_per_s)} of {number(rates.offered_per_s)} messages a second answered")
    if times.p99 is not None:
        parts.append(f"99 of 100 within {latency(times.p99)}")
    elif times.p50 is not None:
        parts.append(f"half of them within {latency(times.p50)}")
    said = ", ".join(parts)
    return f"{said[0].upper()}{said[1:]}." if said else "No message was answered in time."


def machine(reading: Mapping[str, Any]) -> str:
    """What a host is, from its environment: system, kernel, cores, memory."""
    stable = reading.get("stable")
    facts: Mapping[str, Any] = stable if isinstance(stable, Mapping) else {}
    parts = []
    if facts.get("kernel"):
        parts.append(f"kernel {facts['kernel']}")
    if facts.get("cpu_model"):
        parts.append(str(facts["cpu_model"]))
    cores, usable = facts.get("cpu_count"), facts.get("cpus_usable")
    if cores:
        parts.append(f"{cores} cores" + (f", {usable} of them usable" if usable and usable != cores else ""))
    if facts.get("memory_bytes"):
        parts.append(f"{size(facts['memory_bytes'])} of memory")
    return ", ".join(parts) or "not read"
