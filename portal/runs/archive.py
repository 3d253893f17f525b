"""The archive of a run: one zstd of JSON that explains itself, from which everything can be judged again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import zstandard

from portal.runs.deltas import grow, shrink

if TYPE_CHECKING:
    from portal.conductor.job import ClockReading, HostOutcome, Outcome
    from portal.monitoring.prometheus import Series

FORMAT = 1
LEVEL = 10
"""Above 10 zstd gains little and takes seconds."""


def pack(
    *,
    run_id: str,
    scenario: dict[str, Any],
    outcome: Outcome,
    seconds: Iterable[bytes],
    series: Sequence[tuple[str, Sequence[Series]]],
    log: Iterable[dict[str, str]],
) -> bytes:
    """Everything as bytes. `seconds` are the merged cumulative lines in order, each as `RunSecond` keeps it; `series`
    the samples behind the evidence."""
    data = {
        "format": FORMAT,
        "run_id": run_id,
        "scenario": scenario,
        "state": outcome.state,
        "start_at_ns": outcome.start_at_ns,
        "hosts": [_host(host) for host in outcome.hosts],
        "seconds": list(shrink(json.loads(zstandard.decompress(line)) for line in seconds)),
        "series": [
            {"selector": selector, "result": [{"labels": one.labels, "samples": one.samples} for one in found]}
            for selector, found in series
        ],
        "log": list(log),
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=LEVEL, write_content_size=True).compress(text)


def read(content: bytes) -> dict[str, Any]:
    """The archive as it is stored: `seconds` are what each added (`portal.runs.deltas`)."""
    data: dict[str, Any] = json.loads(zstandard.decompress(content))
    return data


def unpack(content: bytes) -> dict[str, Any]:
    """What `pack` was given, `seconds` as cumulative lines in the wire form of `wsnode.core.protocol.Second`."""
    data = read(content)
    return {**data, "seconds": list(grow(data["seconds"]))}


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
