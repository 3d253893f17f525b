"""The seconds of a run as columns: what each second added, by counter and by histogram bucket.

A histogram's counts are kept bucket by bucket, all seconds of a bucket in a row, in planes of 4 bits: plane p holds
digit p of each count to the base of 16, two seconds a byte, the earlier in the upper half. So laid out they compress
to three quarters of what lines of JSON do, and a stretch of seconds is added up without looking at any other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from typing import Any

from portal.runs.deltas import Line, flat, shrink
from wsnode.core.histogram import LIMIT_NS, bucket_bounds
from wsnode.core.protocol import HISTOGRAMS

SUMS = ("counters", "errors", "unsent", "kinds")
MOMENTS = ("count", "sum", "overflow", "min", "max")
HOST = ("steal_s", "throttled_s", "core_s")
_UPPER = bytes(pair >> 4 for pair in range(256))
_LOWER = bytes(pair & 15 for pair in range(256))


@dataclass
class Buckets:
    """One histogram over all seconds."""

    indices: list[int]
    """Buckets that are not empty throughout, ascending."""
    planes: list[bytes]
    """Each `len(indices)` rows of `width` bytes."""
    width: int

    @classmethod
    def of(cls, counts: dict[int, list[int]], length: int) -> Buckets:
        """Of the counts of each bucket in each second."""
        indices = sorted(counts)
        rows = [[*counts[index], *([0] * (length % 2))] for index in indices]
        highest = max(map(max, rows), default=0)
        planes: list[bytes] = []
        while highest or not planes:
            planes.append(b"".join(_packed(row) for row in rows))
            rows = [[n >> 4 for n in row] for row in rows]
            highest >>= 4
        return cls(indices, planes, (length + 1) // 2)

    def sums(self, begin: int, end: int) -> dict[int, int]:
        """Counts of the seconds begin + 1 … end, by bucket; empty ones left out. O(buckets × seconds / 2) bytes."""
        first, last = begin // 2, (end + 1) // 2
        totals = [0] * len(self.indices)
        for power, plane in enumerate(self.planes):
            for place in range(len(self.indices)):
                row = plane[place * self.width + first : place * self.width + last]
                if not any(row):
                    continue
                upper, lower = row.translate(_UPPER), row.translate(_LOWER)
                n = sum(upper) + sum(lower)
                if begin % 2:
                    n -= upper[0]
                if end % 2:
                    n -= lower[-1]
                totals[place] += n << 4 * power
        return {index: n for index, n in zip(self.indices, totals, strict=True) if n}

    def row(self, place: int) -> Sequence[int]:
        """The counts of one bucket, second by second; with an odd number of seconds a 0 follows."""
        found: list[int] | bytes = b""
        for power, plane in enumerate(self.planes):
            row = plane[place * self.width : (place + 1) * self.width]
            pairs = bytes(chain.from_iterable(zip(row.translate(_UPPER), row.translate(_LOWER), strict=True)))
            if not power:
                found = pairs
            elif any(row):
                found = [n + (digit << 4 * power) for n, digit in zip(found, pairs, strict=True)]
        return found

    def seconds(self) -> Iterator[Sequence[int]]:
        """For each second the counts of all buckets, in the order of `indices`."""
        return zip(*(self.row(place) for place in range(len(self.indices))), strict=True)


@dataclass
class Columns:
    """All seconds of a run, in order."""

    numbers: list[int] = field(default_factory=list)
    """Of the seconds that were counted, from 1 on."""
    sums: dict[str, dict[str, list[int]]] = field(default_factory=lambda: {part: {} for part in SUMS})
    """By part and key: what each second added, of gauges too."""
    moments: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By histogram: count, sum and overflow as added; min and max of the load so far, null where nothing was added."""
    buckets: dict[str, Buckets] = field(default_factory=dict)
    host: dict[str, list[Any]] = field(default_factory=dict)
    """Cumulative, as `HostSecond` has them: a list of times, a worker each, and floats."""

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Columns:
        """Of cumulative lines in the wire form of `Second`, in order."""
        return cls.of_gains(shrink(lines))

    @classmethod
    def of_gains(cls, gains: Iterable[Line]) -> Columns:
        """Of lines that hold what each second added (`portal.runs.deltas`)."""
        lines = list(gains)
        found, length = cls([line["second"] for line in lines]), len(lines)
        counts: dict[str, dict[int, list[int]]] = {}
        for place, line in enumerate(lines):
            for part in SUMS:
                for key, n in line.get(part, {}).items():
                    found.sums[part].setdefault(key, [0] * length)[place] = n
            for name, wire in line["histograms"].items():
                moments = found.moments.setdefault(name, {key: [0] * length for key in MOMENTS[:3]})
                extremes = {key: moments.setdefault(key, [None] * length) for key in MOMENTS[3:]}
                for key in MOMENTS:
                    (extremes.get(key) or moments[key])[place] = wire[key]
                rows = counts.setdefault(name, {})
                for index, n in zip(accumulate(wire["buckets"][::2]), wire["buckets"][1::2], strict=True):
                    if index not in rows:
                        rows[index] = [0] * length
                    rows[index][place] = n
        found.buckets = {name: Buckets.of(rows, length) for name, rows in counts.items()}
        hosts = [line.get("host") or {} for line in lines]
        found.host = {"worker_cpu_s": [list(host.get("worker_cpu_s", ())) for host in hosts]}
        found.host |= {key: [host.get(key, 0.0) for host in hosts] for key in HOST}
        return found

    @property
    def last(self) -> int:
        """The last second; 0 where there is none."""
        return self.numbers[-1] if self.numbers else 0

    def stretch(self, from_s: int, to_s: int, names: Collection[str] = HISTOGRAMS) -> Line:
        """What was due after second `from_s` and up to second `to_s`, in the form of `deltas.add_up`: the gauges hold
        what they changed by.

        Raises:
            ValueError: there are no such seconds.
        """
        begin, end = bisect_right(self.numbers, from_s), bisect_right(self.numbers, to_s)
        if from_s < 0 or to_s > self.last or begin >= end:
            raise ValueError(f"no seconds {from_s} to {to_s}: wanted a stretch of 0 to {self.last}")
        histograms = {}
        for name, buckets in self.buckets.items():
            if name in names and (wire := self._histogram(name, buckets, begin, end)) is not None:
                histograms[name] = wire
        return {
            "second": to_s,
            **{
                part: {key: n for key, column in self.sums[part].items() if (n := sum(column[begin:end]))}
                for part in SUMS
            },
            "histograms": histograms,
            "host": {key: column[end - 1] for key, column in self.host.items()},
        }

    def _histogram(self, name: str, buckets: Buckets, begin: int, end: int) -> Line | None:
        moments = self.moments[name]
        count, total, overflow = (sum(moments[key][begin:end]) for key in MOMENTS[:3])
        if not count:
            return None
        counts = buckets.sums(begin, end)
        low = bucket_bounds(min(counts))[0] if counts else LIMIT_NS
        high = bucket_bounds(max(counts))[1] if counts else LIMIT_NS
        # Cumulative extremes only ever widen, so that those of the stretch's last second are the widest.
        least = min(n for n in moments["min"][begin:end] if n is not None)
        most = max(n for n in moments["max"][begin:end] if n is not None)
        return {
            "count": count,
            "sum": total,
            "min": max(low, least),
            "max": most if overflow else min(high, most),
            "overflow": overflow,
            "buckets": flat(counts),
        }

    def opened(self) -> list[int]:
        """Connections open at the end of each second."""
        return list(accumulate(self.sums["counters"].get("connections_open", [0] * len(self.numbers))))

    def gains(self) -> Iterator[Line]:
        """What each second added, as `deltas.shrink` gives it."""
        counted = {name: buckets.seconds() for name, buckets in self.buckets.items()}
        for place, second in enumerate(self.numbers):
            histograms = {}
            for name, moments in self.moments.items():
                counts = next(counted[name], ())
                if moments["count"][place]:
                    filled = {i: n for i, n in zip(self.buckets[name].indices, counts, strict=False) if n}
                    histograms[name] = {**{key: moments[key][place] for key in MOMENTS}, "buckets": flat(filled)}
            yield {
                "second": second,
                **{
                    part: {key: column[place] for key, column in self.sums[part].items() if column[place]}
                    for part in SUMS
                },
                "histograms": histograms,
                "host": {key: column[place] for key, column in self.host.items()},
            }


def _packed(row: Sequence[int]) -> bytes:
    return bytes((a & 15) << 4 | b & 15 for a, b in zip(row[::2], row[1::2], strict=True))
