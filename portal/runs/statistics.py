"""Whether values of runs differ by more than noise: exact where runs were repeated, by an earlier spread where not.

Two samples are compared by ranks: all ways to deal the runs to the two sides are counted, so a p-value is exact for
any noise, however its tails. Two single values are compared by Student's t on the spread of earlier runs, taken wider
for the tails that recorded runs have. Both are two-sided. Why these: `docs/adr/0013-ranks-of-runs.md`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

LEVEL = 0.01
"""Largest p at which a difference is said to be one: the share of false alarms."""
POWER = 0.8
"""Share of the comparisons that find a change of the size that is stated."""
FEWEST_EARLIER = 5
"""Earlier runs whose spread can stand for the noise."""
WIDER = 1.75
"""By how much an earlier spread is widened: times of equal runs have heavier tails than a normal distribution, and t
alone raised 1 to 4 false alarms in a hundred on recorded ones (`tests/portal/test_false_alarms.py`)."""
DEALS = 300
"""Of more ways to deal residuals than this, that many are drawn for the change that is found: it is an estimate."""


class Found(NamedTuple):
    """What a comparison came to, second sample minus first. Infinite values stand for what was never answered."""

    p: float
    up: bool
    """Whether the second lies above the first."""
    shift: float | None
    """Typical difference: the median of those between a value of the one and a value of the other."""
    low: float | None
    high: float | None
    """Interval of the difference at 1 − `LEVEL`; None: there is none that is finite, or too few values."""
    detectable: float | None
    """Difference that would be found with `POWER`; None: none of any size, or it was not asked for."""


# --- two samples -----------------------------------------------------------------------------------------------------
def smallest_p(n: int, m: int) -> float:
    """The least p that samples of these sizes can come to: one of two ways of all."""
    return min(1.0, 2 / math.comb(n + m, n))


def fewest_each(level: float = LEVEL) -> int:
    """Values on each side from which on a p can be at most this."""
    return next(n for n in range(1, 100) if smallest_p(n, n) <= level)


def rank_sum(first: Sequence[float], second: Sequence[float], *, power: bool = False) -> Found:
    """Exact two-sided permutation test of the rank sum (Wilcoxon, Mann and Whitney), with ties.

    p is twice the share of the ways to deal all values to two samples of these sizes in which the second's ranks add up
    to as much as they do, or to as little, whichever is less. O(n · N) additions of numbers of n · N · N bits. `power`:
    also find what change would be found.

    Raises:
        ValueError: a sample is empty.
    """
    if not first or not second:
        raise ValueError(f"samples of {len(first)} and {len(second)}: expected at least one value each")
    ranks = _doubled_ranks([*first, *second])
    at_most, at_least, ways = _tails(tuple(sorted(ranks)), len(second), sum(ranks[len(first) :]))
    p = min(1.0, 2 * min(at_most, at_least) / ways)
    differences = sorted(_minus(b, a) for a in first for b in second)
    low, high = _interval(differences, len(first), len(second))
    detectable = _detectable(first, second) if power else None
    return Found(p, at_least < at_most, _finite(_median(differences)), low, high, detectable)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Of each value its rank from 1 on, twice: equal values share the mean of theirs, which may be a half."""
    ordered = sorted(values)
    ranks: dict[float, int] = {}
    for place, value in enumerate(ordered):
        if value not in ranks:
            ranks[value] = place + 1 + bisect_right(ordered, value)
    return [ranks[value] for value in values]


@lru_cache(maxsize=512)
def _tails(ranks: tuple[int, ...], n: int, total: int) -> tuple[int, int, int]:
    """Ways to choose n of the ranks that add up to at most, and to at least, `total`; and all ways."""
    packed, width = _ways(ranks, min(n, len(ranks) - n))
    every, everything = math.comb(len(ranks), n), sum(ranks)
    if 2 * n > len(ranks):
        # The ways to choose the others, whose ranks add up to what is left.
        at_least = _add_up(packed, width, everything - total)
        below = _add_up(packed, width, everything - total - 1)
        return every - below, at_least, every
    at_most = _add_up(packed, width, total)
    return at_most, every - _add_up(packed, width, total - 1), every


@lru_cache(maxsize=64)
def _ways(ranks: tuple[int, ...], n: int) -> tuple[int, int]:
    """How many ways there are to choose n of the ranks (at most half of them), by what they add up to: a number whose
    fields of so many bits are the counts for 0, 1, 2 …"""
    # No count is above this, and all together are below the field's largest value: see `_add_up`.
    width = math.comb(len(ranks), n).bit_length() + 1
    chosen = [1] + [0] * n
    for i, rank in enumerate(ranks, 1):
        for size in range(min(i, n), 0, -1):
            chosen[size] += chosen[size - 1] << rank * width
    return chosen[n], width


def _add_up(packed: int, width: int, last: int) -> int:
    """The sum of the fields 0 … `last`."""
    if last < 0:
        return 0
    # A number in base b is, modulo b − 1, the sum of its digits.
    return (packed & ((1 << (last + 1) * width) - 1)) % ((1 << width) - 1)


def _minus(b: float, a: float) -> float:
    return 0.0 if a == b else b - a


def _interval(differences: Sequence[float], n: int, m: int) -> tuple[float | None, float | None]:
    """Inversion of the test: the shifts of one sample that it would not tell from the other."""
    beyond = _rejected(n, m)
    if not beyond:
        return None, None
    return _finite(differences[beyond - 1]), _finite(differences[-beyond])


@lru_cache(maxsize=256)
def _rejected(n: int, m: int) -> int:
    """Place, from 1 on, of the interval's ends among the ordered differences: a difference is one where fewer pairs
    than this are in the rarer order. 0: it cannot be one."""
    ranks = tuple(range(1, n + m + 1))
    least = n * (n + 1) // 2
    beyond = 0
    while beyond < n * m:
        at_most, _, ways = _tails(ranks, n, least + beyond)
        if 2 * at_most > LEVEL * ways:
            break
        beyond += 1
    return beyond


def _detectable(first: Sequence[float], second: Sequence[float]) -> float | None:
    """The shift that is found in `POWER` of the ways to deal the samples' residuals."""
    n, m = len(first), len(second)
    beyond = _rejected(n, m)
    if not beyond or not all(map(math.isfinite, (*first, *second))):
        return None
    # Residuals are nearer to their own centre than the values are to theirs.
    wider = math.sqrt((n + m) / max(1, n + m - 2))
    residuals = [wider * (v - math.fsum(side) / len(side)) for side in (first, second) for v in side]
    places = range(n + m)
    deals: list[Sequence[int]]
    if math.comb(n + m, n) <= DEALS:
        deals = list(combinations(places, n))
    else:
        dice = random.Random(n * 1000 + m)  # noqa: S311  # the same deals each time
        deals = [dice.sample(places, n) for _ in range(DEALS)]
    needed = []
    for deal in deals:
        taken = set(deal)
        others = [residuals[place] for place in places if place not in taken]
        apart = sorted((residuals[place] - other for place in deal for other in others), reverse=True)
        # Found is what leaves no more than `beyond` − 1 pairs in the wrong order.
        needed.append(apart[beyond - 1])
    needed.sort()
    return max(0.0, needed[math.ceil(POWER * len(needed)) - 1])


# --- single values ---------------------------------------------------------------------------------------------------
def against_spread(base: float, contender: float, earlier: Sequence[float], least_spread: float) -> Found | None:
    """Two single values, by t with n − 1 degrees on √2 · s of n earlier ones, s `WIDER`; neither is one of them.

    None where the noise is unknown: fewer than `FEWEST_EARLIER`, or all of them equal and `least_spread`, below which a
    spread is not believed, is 0.
    """
    return _student(_minus(contender, base), earlier, least_spread, math.sqrt(2))


def against_sample(sample: Sequence[float], single: float, least_spread: float) -> Found | None:
    """A single value against a sample of n, by t with n − 1 degrees on √(1 + 1/n) · s, `WIDER`. None as
    `against_spread`."""
    if not sample:
        return None
    centre = math.fsum(sample) / len(sample) if all(map(math.isfinite, sample)) else math.inf
    return _student(_minus(single, centre), sample, least_spread, math.sqrt(1 + 1 / len(sample)))


def _student(shift: float, spread_of: Sequence[float], least_spread: float, factor: float) -> Found | None:
    n = len(spread_of)
    if n < FEWEST_EARLIER or not all(map(math.isfinite, spread_of)):
        return None
    scale = factor * max(WIDER * deviation(spread_of), least_spread)
    if scale == 0:
        return None
    half = t_quantile(1 - LEVEL / 2, n - 1) * scale
    detectable = half + t_quantile(POWER, n - 1) * scale
    if not math.isfinite(shift):
        return Found(0.0, shift > 0, None, None, None, detectable)
    p = max(0.0, 2 * t_cdf(-abs(shift) / scale, n - 1))
    return Found(p, shift > 0, shift, shift - half, shift + half, detectable)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample (n − 1)."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def t_cdf(t: float, degrees: int) -> float:
    """Share of Student's distribution below t (Abramowitz and Stegun 26.7.3, 26.7.4: exact sums for whole degrees)."""
    angle = math.atan(t / math.sqrt(degrees))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    if degrees % 2:
        term, total = math.cos(angle), 0.0
        for k in range(1, (degrees + 1) // 2):
            total += term
            term *= square * 2 * k / (2 * k + 1)
        return 0.5 + (angle + sine * total) / math.pi
    term, total = 1.0, 0.0
    for k in range(1, degrees // 2 + 1):
        total += term
        term *= square * (2 * k - 1) / (2 * k)
    return 0.5 + sine * total / 2


@lru_cache(maxsize=256)
def t_quantile(share: float, degrees: int) -> float:
    """The t below which so much of Student's distribution lies, to 12 digits; `share` from 0.5 to below 1."""
    low, high = 0.0, 2.0
    while t_cdf(high, degrees) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < share else (low, middle)
    return (low + high) / 2


# --- many at once ----------------------------------------------------------------------------------------------------
def holm(p_values: Sequence[float]) -> list[float]:
    """Each p as one of all (Holm, 1979): with those at most at a level, one false alarm among all is no likelier."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no median of no values")
    return _median(sorted(values))


def _median(ordered: Sequence[float]) -> float:
    n = len(ordered)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    return low if low == high else (low + high) / 2


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
