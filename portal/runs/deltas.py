"""Seconds as they are archived: what each one added, which takes less than half of the cumulative lines' room.

A line in the wire form of `wsnode.core.protocol.Second`, but counters, errors, unsent and histograms hold only what
second n added. A histogram's `min` and `max` and the `host` part stay cumulative. Nothing is lost: `grow` gives back
the lines that `shrink` was given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import sub
from typing import Any

from wsnode.core.histogram import LIMIT_NS, bucket_bounds

Line = dict[str, Any]
_SUMS = ("counters", "errors", "unsent", "kinds")
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
                    "buckets": flat(gained_counts),
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
        _add_line(small, sums, moments, buckets)
        yield {
            "second": small["second"],
            **{part: dict(known) for part, known in sums.items()},
            "histograms": {name: {**of, "buckets": flat(buckets[name])} for name, of in moments.items()},
            "host": small["host"],
        }


def add_up(small_lines: Sequence[Line], names: Collection[str]) -> Line:
    """What consecutive seconds, or stretches that this gave, added together, in the same form; of the histograms only
    those named. Their `min` and `max` are of these seconds, within the buckets' resolution as in `Histogram.since`.

    Raises:
        ValueError: there are no seconds.
    """
    if not small_lines:
        raise ValueError("no seconds to add up")
    sums: dict[str, dict[str, int]] = {part: {} for part in _SUMS}
    moments: dict[str, Line] = {}
    buckets: dict[str, dict[int, int]] = {}
    for small in small_lines:
        _add_line(small, sums, moments, buckets, names)
    return {
        "second": small_lines[-1]["second"],
        **sums,
        "histograms": {
            name: {**of, **_extremes(of, buckets[name]), "buckets": flat(buckets[name])} for name, of in moments.items()
        },
        "host": small_lines[-1]["host"],
    }


def _extremes(cumulative: Line, counts: dict[int, int]) -> Line:
    low = bucket_bounds(min(counts))[0] if counts else LIMIT_NS
    high = bucket_bounds(max(counts))[1] if counts else LIMIT_NS
    highest = cumulative["max"] if cumulative["overflow"] else min(high, cumulative["max"])
    return {"min": max(low, cumulative["min"]), "max": highest}


def _add_line(
    small: Line,
    sums: dict[str, dict[str, int]],
    moments: dict[str, Line],
    buckets: dict[str, dict[int, int]],
    names: Collection[str] | None = None,
) -> None:
    for part, known in sums.items():
        for key, gained in small.get(part, {}).items():
            known[key] = known.get(key, 0) + gained
    for name, wire in small["histograms"].items():
        if names is not None and name not in names:
            continue
        known_moments = moments.setdefault(name, dict.fromkeys(_MOMENTS, 0))
        for key in _MOMENTS:
            known_moments[key] += wire[key]
        # Cumulative extremes only ever widen, so that the widest are the last; of stretches they are the whole's.
        known_moments["min"] = min(known_moments.get("min", wire["min"]), wire["min"])
        known_moments["max"] = max(known_moments.get("max", wire["max"]), wire["max"])
        known_counts = buckets.setdefault(name, {})
        for index, gained in _counts(wire["buckets"]).items():
            known_counts[index] = known_counts.get(index, 0) + gained


def _counts(pairs: list[int]) -> dict[int, int]:
    """`Histogram.to_wire`'s pairs (index − previous index, count) by index."""
    return dict(zip(accumulate(pairs[::2]), pairs[1::2], strict=True))


def flat(counts: dict[int, int]) -> list[int]:
    """Counts by bucket as `Histogram.to_wire` writes them."""
    indices = sorted(counts)
    pairs = [0] * (2 * len(indices))
    pairs[::2] = map(sub, indices, chain((0,), indices))
    pairs[1::2] = map(counts.__getitem__, indices)
    return pairs
