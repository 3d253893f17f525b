"""The archive of a run: one zstd of JSON that explains itself, from which everything can be judged again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard

from portal.conductor.job import ClockReading, HostOutcome, Outcome
from portal.monitoring.prometheus import Series
from wsnode.core.protocol import Second

FORMAT = 1
LEVEL = 10
"""Cumulative lines repeat themselves; above 10 zstd gains little and takes seconds."""


def pack(
    *,
    run_id: str,
    scenario: dict[str, Any],
    outcome: Outcome | None,
    seconds: Iterable[Second],
    series: Sequence[tuple[str, Sequence[Series]]],
    log: Iterable[dict[str, str]],
) -> bytes:
    """Everything as bytes. `seconds` are the merged cumulative lines; `series` the samples behind the evidence."""
    data = {
        "format": FORMAT,
        "run_id": run_id,
        "scenario": scenario,
        "state": outcome.state if outcome else None,
        "start_at_ns": outcome.start_at_ns if outcome else None,
        "hosts": [_host(host) for host in outcome.hosts] if outcome else [],
        "seconds": [second.model_dump(mode="json", exclude_defaults=True) for second in seconds],
        "series": [
            {"selector": selector, "result": [{"labels": one.labels, "samples": one.samples} for one in found]}
            for selector, found in series
        ],
        "log": list(log),
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(text)


def _host(host: HostOutcome) -> dict[str, Any]:
    return {
        "name": host.name,
        "role": host.role,
        "clock_begin": _clock(host.clock_begin),
        "clock_end": _clock(host.clock_end),
        "start_skew_s": host.start_skew_s,
        "environment_begin": host.environment_begin,
        "environment_end": host.environment_end,
        "lost": host.lost,
        "result": host.run.result.model_dump(mode="json") if host.run else None,
        # What the merged lines cannot tell apart: whose worker was busy, whose processor was stolen.
        "machine": [line.host.model_dump(mode="json") for line in host.run.series] if host.run else [],
    }


def _clock(reading: ClockReading | None) -> dict[str, float] | None:
    return None if reading is None else {"offset_s": reading.offset_s, "bound_s": reading.bound_s}
