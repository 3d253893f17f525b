"""Log-linear histogram of durations: 128 sub-buckets per power of two, integers of nanoseconds.

A value below 256 ns has a bucket of its own; above, a bucket spans 1/128 of its power of two, so that the
value given for a rank is within 1/256 (0.4 %) of the exact one. Count, sum, minimum and maximum are exact.
Values from `LIMIT_NS` on are counted as overflow, never clipped into the last bucket.

The bucketing is that of HdrHistogram (G. Tene) with 7 significant bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate, chain, compress
from operator import sub
from typing import Self

SUB_BUCKET_BITS = 7
SUB_BUCKETS = 1 << SUB_BUCKET_BITS
LIMIT_BITS = 42
LIMIT_NS = 1 << LIMIT_BITS
"""First value (ns) that no bucket holds: 4,398 s."""
BUCKETS = (LIMIT_BITS - SUB_BUCKET_BITS + 1) * SUB_BUCKETS
"""Number of buckets that hold the values 0 … LIMIT_NS − 1."""
MANY = 8
"""From so many histograms on they are added up faster over all buckets that there could be."""


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

    __slots__ = ("_sparse", "buckets", "count", "max_ns", "min_ns", "overflow", "sum_ns")

    buckets: dict[int, int]
    """Count by index of each bucket that holds any."""
    _sparse: tuple[list[int], list[int]]
    """Steps from index to index and counts, as they were read: `buckets` are made of them when somebody looks."""

    def __init__(self) -> None:
        self.buckets = {}
        self.count = 0
        """All recorded values, overflow included."""
        self.sum_ns = 0
        self.min_ns: int | None = None
        self.max_ns: int | None = None
        self.overflow = 0

    def __getattr__(self, name: str) -> dict[int, int]:
        if name != "buckets":
            raise AttributeError(name)
        # A conductor reads hundreds of histograms a second only to add them up: most never need this.
        steps, counts = self._sparse
        del self._sparse  # they may change from now on
        self.buckets = buckets = dict(zip(accumulate(steps), counts, strict=True))
        return buckets

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
        if buckets:
            get = buckets.get
            for index, n in other.buckets.items():
                buckets[index] = get(index, 0) + n
        else:
            buckets.update(other.buckets)
        self._add_moments(other)

    def _add_moments(self, other: Histogram) -> None:
        self.count += other.count
        self.sum_ns += other.sum_ns
        self.overflow += other.overflow
        if other.min_ns is not None and (self.min_ns is None or other.min_ns < self.min_ns):
            self.min_ns = other.min_ns
        if other.max_ns is not None and (self.max_ns is None or other.max_ns > self.max_ns):
            self.max_ns = other.max_ns

    def _pairs(self) -> Iterable[tuple[int, int]]:
        """Index and count of each bucket that holds any."""
        try:
            steps, counts = self._sparse
        except AttributeError:
            return self.buckets.items()
        return zip(accumulate(steps), counts, strict=True)

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
            gained.sum_ns < 0
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
        steps, counts = self._stepped()
        flat = [0] * (2 * len(steps))
        flat[::2] = steps
        flat[1::2] = counts
        return {
            "count": self.count,
            "sum": self.sum_ns,
            "min": self.min_ns,
            "max": self.max_ns,
            "overflow": self.overflow,
            "buckets": flat,
        }

    def _stepped(self) -> tuple[Sequence[int], Sequence[int]]:
        """Steps from index to index in ascending order, and counts."""
        try:
            return self._sparse
        except AttributeError:
            indices = sorted(self.buckets)
            return list(map(sub, indices, chain((0,), indices))), list(map(self.buckets.__getitem__, indices))

    @classmethod
    def from_wire(cls, data: object, *, plain: bool = False) -> Self:
        """Read `to_wire`'s form. `plain`: from a text without minus signs and truth values, which need no looking for.

        Raises:
            ValueError: the form is off or its counts do not agree.
        """
        if not isinstance(data, dict) or data.keys() != _WIRE_KEYS:
            got = sorted(map(str, data)) if isinstance(data, dict) else type(data).__name__
            raise ValueError(f"histogram: expected an object of {', '.join(sorted(_WIRE_KEYS))}, got {got}")
        histogram = cls.__new__(cls)
        histogram.count, histogram.sum_ns = _natural(data["count"]), _natural(data["sum"])
        histogram.overflow = _natural(data["overflow"])
        histogram.min_ns = None if data["min"] is None else _natural(data["min"])
        histogram.max_ns = None if data["max"] is None else _natural(data["max"])
        steps, counts, last, total = _read_buckets(data["buckets"], plain=plain)
        histogram._sparse = steps, counts
        if total + histogram.overflow != histogram.count:
            raise ValueError("histogram: bucket counts do not add up to the count")
        histogram._check_moments((steps[0], last) if steps else (None, None))
        return histogram

    def _check_moments(self, ends: tuple[int | None, int | None]) -> None:
        """Minimum and maximum lie in the outermost buckets, the sum between count times each."""
        low, high = self.min_ns, self.max_ns
        if low is None or high is None:
            if self.count or self.sum_ns or low is not high:
                raise ValueError("histogram: minimum and maximum belong to a count above 0")
            return
        first, last = ends
        if (
            (None if low >= LIMIT_NS else bucket_index(low)) != first
            or (high < LIMIT_NS if self.overflow else high >= LIMIT_NS or bucket_index(high) != last)
            or not self.count * low <= self.sum_ns <= self.count * high
        ):
            raise ValueError(f"histogram: minimum {low}, maximum {high} and sum {self.sum_ns} do not fit the buckets")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _FACTS)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<Histogram count={self.count} min_ns={self.min_ns} max_ns={self.max_ns}>"


class Pool:
    """Histograms being added up: each is looked at once, and need not be kept."""

    def __init__(self) -> None:
        self._sum = Histogram()
        self._parts = 0
        self._cells: list[int] = []
        """A cell for each bucket that there could be, once that is faster than what a dict does."""

    def add(self, part: Histogram) -> None:
        """One more."""
        self._parts += 1
        if self._parts < MANY:
            self._sum.add(part)
            return
        if self._parts == MANY:
            self._cells = [0] * BUCKETS
            self._scatter(self._sum)
        self._scatter(part)
        self._sum._add_moments(part)

    def total(self) -> Histogram:
        """All of them as one: the same as having recorded all their values in it."""
        if self._cells:
            cells = self._cells
            self._sum.buckets = dict(zip(compress(range(BUCKETS), cells), filter(None, cells), strict=True))
        return self._sum

    def _scatter(self, part: Histogram) -> None:
        cells = self._cells
        for index, n in part._pairs():
            cells[index] += n


_FACTS = ("buckets", "count", "max_ns", "min_ns", "overflow", "sum_ns")
_WIRE_KEYS = frozenset(Histogram().to_wire())


def _read_buckets(flat: object, *, plain: bool) -> tuple[list[int], list[int], int, int]:
    """Steps and counts, and the sum of each."""
    # A conductor reads a million buckets a second: each step here is one pass in C, and what can be left out is.
    if not isinstance(flat, list) or len(flat) % 2:
        raise ValueError("histogram: buckets must be a list of pairs")
    steps, counts = flat[::2], flat[1::2]
    try:
        last, total = sum(steps), sum(counts)
    except TypeError as error:
        raise ValueError("histogram: a bucket that is not of whole numbers") from error
    # Of what JSON has, one fraction makes the sum a fraction, and all else but a truth value cannot be added.
    if type(last) is not int or type(total) is not int or (not plain and set(map(type, flat)) - {int}):
        raise ValueError("histogram: a bucket that is not of whole numbers")
    if not flat:
        return steps, counts, 0, 0
    # In a plain text all that is below 1 is 0, which is found in a third of the time. Only the first step may be 0: an
    # index.
    ascending = (all(steps) or all(steps[1:])) and (plain or min(steps) >= 0)
    if not ascending or last >= BUCKETS:
        raise ValueError(f"histogram: buckets must ascend from 0 to {BUCKETS - 1}")
    if not all(counts) or not (plain or min(counts) > 0):
        raise ValueError(f"histogram: a bucket with count {min(counts)}")
    return steps, counts, last, total


def _natural(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"histogram: {value!r} where a whole number from 0 was expected")
    return value


def nearest_rank(quantile: float, of: int) -> int:
    """Nearest rank (1-based) of a quantile among `of` values: the smallest rank covering that share."""
    # By the quantile's decimal digits, in integers: as floats, 0.999 · 1000 and the like may land above or below.
    numerator, denominator = Decimal(repr(quantile)).as_integer_ratio()
    return max(1, -(-numerator * of // denominator))
