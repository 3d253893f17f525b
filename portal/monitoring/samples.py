"""Arithmetic on raw samples: what a counter gained, what a gauge was. Pure functions of values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

Samples = Sequence[tuple[float, float]]


def resets(samples: Samples) -> int:
    """How many times a counter began anew."""
    return sum(later < earlier for (_, earlier), (_, later) in itertools.pairwise(samples))


def gain(samples: Samples) -> float:
    """What a counter gained from its first to its last sample. After a reset the counter's value is what it gained.

    Unlike PromQL's increase() nothing is extrapolated.
    """
    return sum(
        later - earlier if later >= earlier else later for (_, earlier), (_, later) in itertools.pairwise(samples)
    )


def rate(samples: Samples) -> float:
    """Gain per second between the first and the last sample.

    Raises:
        ValueError: no time lies between them.
    """
    elapsed = samples[-1][0] - samples[0][0] if samples else 0.0
    if elapsed <= 0:
        raise ValueError(f"a rate of {len(samples)} samples over {elapsed:g} s")
    return gain(samples) / elapsed


def total(many: Iterable[Samples]) -> list[tuple[float, float]]:
    """Several series of one target as their sum: the samples of one scrape share their time."""
    sums: dict[float, float] = {}
    for samples in many:
        for at, value in samples:
            sums[at] = sums.get(at, 0.0) + value
    return sorted(sums.items())


def around(samples: Samples, start: float, end: float) -> Samples | None:
    """From the last sample at or before `start` to the first at or after `end`; None where either is missing."""
    before = [i for i, (at, _) in enumerate(samples) if at <= start]
    after = [i for i, (at, _) in enumerate(samples) if at >= end]
    if not before or not after:
        return None
    return samples[before[-1] : after[0] + 1]


def ratio(samples: Samples, over: Samples) -> list[tuple[float, float]]:
    """One series divided by another of the same target, scrape by scrape; what is divided by 0 is left out."""
    by = dict(over)
    return [(at, value / by[at]) for at, value in samples if by.get(at)]


def quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """The q-quantile (0 < q < 1) of cumulative buckets (upper bound, count), as histogram_quantile() of PromQL has it.

    Within a bucket the values are taken to lie evenly, so the answer is no better than its bucket's bounds. NaN where
    nothing was counted; beyond the last finite bound, that bound.
    """
    bounds = sorted(buckets)
    total = bounds[-1][1] if bounds else 0.0
    if not bounds or not math.isinf(bounds[-1][0]) or not total > 0:
        return math.nan
    rank, below, floor = q * total, 0.0, 0.0
    for bound, count in bounds[:-1]:
        if count >= rank:
            return floor + (bound - floor) * (rank - below) / (count - below)
        below, floor = max(below, count), bound
    return floor
