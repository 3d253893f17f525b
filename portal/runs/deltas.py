"""Seconds as they are archived: what each one added, which takes less than half of the cumulative lines' room.

A line in the wire form of `wsnode.core.protocol.Second`, but counters, errors, unsent and histograms hold only what
second n added. A histogram's `min` and `max` and the `host` part stay cumulative. Nothing is lost: `grow` gives back
the lines that `shrink` was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Line = dict[str, Any]
_SUMS = ("counters", "errors", "unsent")
_MOMENTS = ("count", "sum", "overflow")


def shrink(lines: Iterable[Line]) -> Iterator[Line]:
    """Cumulative lines of one load, in order, as what each added."""
    sums: dict[str, dict[str, int]] = {part: {} for part in _SUMS}
    histograms: dict[str, Line] = {}
    buckets: dict[str, dict[int, int]] = {}
    for line in lines:
        small: Line = {"second": line["second"]}
        for part, known in sums.items():
            now = line.get(part, {})
            # Of a part that is cumulative every key stays; one that left would be a fault, and would show.
            small[part] = {key: gained for key, n in now.items() if (gained := n - known.get(key, 0))}
            sums[part] = now
        small["histograms"] = {}
        for name, wire in line.get("histograms", {}).items():
            before, counts = histograms.get(name, {}), _counts(wire["buckets"])
            if wire["count"] != before.get("count", 0):
                known_counts = buckets.get(name, {})
                gained_counts = {i: g for i, n in counts.items() if (g := n - known_counts.get(i, 0))}
                small["histograms"][name] = {
                    **{key: wire[key] - before.get(key, 0) for key in _MOMENTS},
                    "min": wire["min"],
                    "max": wire["max"],
                    "buckets": _flat(gained_counts),
                }
            histograms[name], buckets[name] = wire, counts
        small["host"] = line.get("host", {})
        yield small


def grow(small_lines: Iterable[Line]) -> Iterator[Line]:
    """The cumulative lines again."""
    sums: dict[str, dict[str, int]] = {part: {} for part in _SUMS}
    moments: dict[str, Line] = {}
    buckets: dict[str, dict[int, int]] = {}
    for small in small_lines:
        for part, known in sums.items():
            for key, gained in small[part].items():
                known[key] = known.get(key, 0) + gained
        for name, wire in small["histograms"].items():
            known_moments = moments.setdefault(name, dict.fromkeys(_MOMENTS, 0))
            for key in _MOMENTS:
                known_moments[key] += wire[key]
            known_moments |= {"min": wire["min"], "max": wire["max"]}
            known_counts = buckets.setdefault(name, {})
            for index, gained in _counts(wire["buckets"]).items():
                known_counts[index] = known_counts.get(index, 0) + gained
        yield {
            "second": small["second"],
            **{part: dict(known) for part, known in sums.items()},
            "histograms": {name: {**of, "buckets": _flat(buckets[name])} for name, of in moments.items()},
            "host": small["host"],
        }


def _counts(flat: list[int]) -> dict[int, int]:
    """`Histogram.to_wire`'s pairs (index − previous index, count) by index."""
    counts, index = {}, 0
    for step, n in zip(flat[::2], flat[1::2], strict=True):
        index += step
        counts[index] = n
    return counts


def _flat(counts: dict[int, int]) -> list[int]:
    flat: list[int] = []
    previous = 0
    for index in sorted(counts):
        flat += (index - previous, counts[index])
        previous = index
    return flat
