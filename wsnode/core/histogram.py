"""Log-linear histogram of durations: 128 sub-buckets per power of two, integers of nanoseconds.

A value below 256 ns has a bucket of its own; above, a bucket spans 1/128 of its power of two, so that the
value given for a rank is within 1/256 (0.4 %) of the exact one. Count, sum, minimum and maximum are exact.
Values from `LIMIT_NS` on are counted as overflow, never clipped into the last bucket.

The bucketing is that of HdrHistogram (G. Tene) with 7 significant bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

SUB_BUCKET_BITS = 7
SUB_BUCKETS = 1 << SUB_BUCKET_BITS
LIMIT_BITS = 42
LIMIT_NS = 1 << LIMIT_BITS
"""First value (ns) that no bucket holds: 4,398 s."""
BUCKETS = (LIMIT_BITS - SUB_BUCKET_BITS + 1) * SUB_BUCKETS
"""Number of buckets that hold the values 0 … LIMIT_NS − 1."""


def bucket_index(value_ns: int) -> int:
    """Bucket of a value in ns, 0 <= value < LIMIT_NS. The hot paths inline this."""
    shift = value_ns.bit_length() - SUB_BUCKET_BITS - 1
    if shift <= 0:
        return value_ns
    return (shift << SUB_BUCKET_BITS) + (value_ns >> shift)


def bucket_bounds(index: int) -> tuple[int, int]:
    """Lowest and highest value (ns, both inclusive) that fall into a bucket."""
    if index < 2 * SUB_BUCKETS:
        return index, index
    shift = (index >> SUB_BUCKET_BITS) - 1
    low = ((index & (SUB_BUCKETS - 1)) + SUB_BUCKETS) << shift
    return low, low + (1 << shift) - 1


class Histogram:
    """Mergeable counts of durations in ns. Equality is bucket for bucket, with the exact moments."""

    __slots__ = ("buckets", "count", "max_ns", "min_ns", "overflow", "sum_ns")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        """All recorded values, overflow included."""
        self.sum_ns = 0
        self.min_ns: int | None = None
        self.max_ns: int | None = None
        self.overflow = 0

    @classmethod
    def of(cls, values_ns: Iterable[int]) -> Self:
        """Histogram of the given values (ns)."""
        histogram = cls()
        for value in values_ns:
            histogram.record(value)
        return histogram

    def record(self, value_ns: int) -> None:
        """Count one value.

        Raises:
            ValueError: the value is negative.
        """
        if value_ns < 0:
            raise ValueError(f"a duration of {value_ns} ns: expected 0 or more")
        self.count += 1
        self.sum_ns += value_ns
        if self.min_ns is None or value_ns < self.min_ns:
            self.min_ns = value_ns
        if self.max_ns is None or value_ns > self.max_ns:
            self.max_ns = value_ns
        if value_ns >= LIMIT_NS:
            self.overflow += 1
        else:
            index = bucket_index(value_ns)
            self.buckets[index] = self.buckets.get(index, 0) + 1

    def add(self, other: Histogram) -> None:
        """Merge another histogram into this one: the same as having recorded its values here."""
        buckets = self.buckets
        for index, n in other.buckets.items():
            buckets[index] = buckets.get(index, 0) + n
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.overflow += other.overflow
        if other.min_ns is not None and (self.min_ns is None or other.min_ns < self.min_ns):
            self.min_ns = other.min_ns
        if other.max_ns is not None and (self.max_ns is None or other.max_ns > self.max_ns):
            self.max_ns = other.max_ns

    def since(self, earlier: Histogram) -> Histogram:
        """What a cumulative histogram gained after an earlier state of itself.

        The extremes of a stretch can't be told from two cumulative states where they were set before it;
        they are then the bounds of the outermost buckets, which is within the histogram's resolution.

        Raises:
            ValueError: `earlier` holds something that this one does not.
        """
        gained = Histogram()
        gained.count = self.count - earlier.count
        gained.sum_ns = self.sum_ns - earlier.sum_ns
        gained.overflow = self.overflow - earlier.overflow
        for index, n in self.buckets.items():
            rest = n - earlier.buckets.get(index, 0)
            if rest:
                gained.buckets[index] = rest
        if (
            gained.count < 0
            or gained.overflow < 0
            or any(n < 0 for n in gained.buckets.values())
            or not earlier.buckets.keys() <= self.buckets.keys()
        ):
            raise ValueError("not an earlier state of the same histogram")
        if gained.count:
            if gained.buckets:
                low = bucket_bounds(min(gained.buckets))[0]
                high = bucket_bounds(max(gained.buckets))[1]
            else:
                low = high = LIMIT_NS
            assert self.min_ns is not None
            assert self.max_ns is not None
            gained.min_ns = max(low, self.min_ns)
            gained.max_ns = self.max_ns if gained.overflow else min(high, self.max_ns)
        return gained

    def value_at_rank(self, rank: int) -> int | None:
        """Value (ns) of the rank-th smallest record, 1-based: its bucket's middle, kept within min and max.

        None where fewer than `rank` values were recorded, or the rank falls among the overflowed.
        """
        if rank < 1 or rank > self.count - self.overflow:
            return None
        assert self.min_ns is not None
        assert self.max_ns is not None
        if rank == 1:
            return self.min_ns
        if rank == self.count:
            return self.max_ns
        seen = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if seen >= rank:
                low, high = bucket_bounds(index)
                return min(max((low + high) // 2, self.min_ns), self.max_ns)
        raise AssertionError("bucket counts do not add up to the count")

    @property
    def mean_ns(self) -> float | None:
        """Exact mean (ns), None when empty."""
        return self.sum_ns / self.count if self.count else None

    def to_wire(self) -> dict[str, int | list[int] | None]:
        """Sparse JSON form: `buckets` is a flat list of pairs (index − previous index, count)."""
        flat: list[int] = []
        previous = 0
        for index in sorted(self.buckets):
            flat += (index - previous, self.buckets[index])
            previous = index
        return {
            "count": self.count,
            "sum": self.sum_ns,
            "min": self.min_ns,
            "max": self.max_ns,
            "overflow": self.overflow,
            "buckets": flat,
        }

    @classmethod
    def from_wire(cls, data: object) -> Self:
        """Read `to_wire`'s form.

        Raises:
            ValueError: the form is off or its counts do not agree.
        """
        if not isinstance(data, dict):
            raise ValueError(f"histogram: expected an object, got {type(data).__name__}")
        histogram = cls()
        try:
            flat = data["buckets"]
            histogram.count, histogram.sum_ns = _natural(data["count"]), _natural(data["sum"])
            histogram.overflow = _natural(data["overflow"])
            histogram.min_ns = None if data["min"] is None else _natural(data["min"])
            histogram.max_ns = None if data["max"] is None else _natural(data["max"])
            if len(flat) % 2:
                raise ValueError("histogram: a bucket without a count")
            index = 0
            for step, n in zip(flat[::2], flat[1::2], strict=True):
                index += _natural(step)
                if index >= BUCKETS or _natural(n) < 1 or index in histogram.buckets:
                    raise ValueError(f"histogram: bucket {index} with count {n}")
                histogram.buckets[index] = n
        except (KeyError, TypeError) as error:
            raise ValueError(f"histogram: {error!r}") from error
        if sum(histogram.buckets.values()) + histogram.overflow != histogram.count:
            raise ValueError("histogram: bucket counts do not add up to the count")
        if (histogram.count == 0) != (histogram.min_ns is None) or (histogram.min_ns is None) != (
            histogram.max_ns is None
        ):
            raise ValueError("histogram: minimum and maximum belong to a count above 0")
        return histogram

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} min_ns={self.min_ns} max_ns={self.max_ns}>"


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"histogram: {value!r} where a whole number from 0 was expected")
    return value


def nearest_rank(quantile: float, of: int) -> int:
    """Nearest rank (1-based) of a quantile among `of` values: the smallest rank covering that share."""
    # Rounding first keeps 0.99 * 100 = 99.00000000000001 from becoming rank 100.
    return max(1, math.ceil(round(quantile * of, 6)))
