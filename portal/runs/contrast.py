"""One figure of two sides: its values, what lies between them, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from portal.runs.measures import Measure
from portal.runs.statistics import (
    FEWEST_EARLIER,
    LEVEL,
    Found,
    against_sample,
    against_spread,
    holm,
    median,
    rank_sum,
    smallest_p,
)

Word = Literal[
    "better",
    "worse",
    "higher",
    "lower",
    "not distinguishable",
    "too few runs",
    "noise unknown",
    "no value",
    "not comparable",
    "not judged",
]
"""What a contender's figure is against the base's. *Higher* and *lower*: different, where neither is better."""
DIFFERENT: frozenset[Word] = frozenset({"better", "worse", "higher", "lower"})
Method = Literal["ranks", "spread", "sample", "none"]
"""Ranks of runs on both sides; single runs on the spread of earlier ones; a single run on the other side's spread."""


class Sample(NamedTuple):
    """A side's values of one figure, a run each."""

    values: tuple[float, ...]
    """Infinite where too much was never answered: above every time."""
    missing: int = 0
    """Runs that have none."""
    why: str = ""
    """Why a run has none, or that one."""

    @property
    def value(self) -> float | None:
        """The median; None where there is none that is finite."""
        middle = median(self.values) if self.values else math.inf
        return middle if math.isfinite(middle) else None


class Contrast(NamedTuple):
    """A contender's figure beside the base's. Differences are contender minus base."""

    measure: Measure
    base: Sample
    contender: Sample
    method: Method
    relative: bool
    """Whether `found` is of logarithms."""
    found: Found | None
    word: Word
    """On its own, as if it were the only figure."""

    @property
    def delta(self) -> float | None:
        """Difference of the medians, in the measure's unit."""
        base, contender = self.base.value, self.contender.value
        return None if base is None or contender is None else contender - base

    @property
    def change(self) -> float | None:
        """The same as a share of the base's; None where that is 0 or has no value."""
        return self.delta / self.base.value if self.delta is not None and self.base.value else None

    @property
    def p(self) -> float | None:
        """How often equal runs differ by as much; None where that is not known."""
        return self.found.p if self.found else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the difference, with 1 − `LEVEL`: a share of the base where `relative`, else in the measure's unit."""
        if self.found is None or self.found.low is None or self.found.high is None:
            return None
        return self._shown(self.found.low), self._shown(self.found.high)

    @property
    def detectable(self) -> float | None:
        """The change upwards that is found in 80 % of comparisons like this one; a share where `relative`."""
        known = self.found is not None and self.found.detectable is not None
        return self._shown(self.found.detectable) if known else None  # type: ignore[union-attr, arg-type]

    @property
    def is_different(self) -> bool:
        """Whether its word says that the sides differ."""
        return self.word in DIFFERENT

    def _shown(self, shift: float) -> float:
        if not self.relative:
            return shift
        return math.expm1(shift) if shift < 700 else math.inf


def contrast(
    measure: Measure, base: Sample, contender: Sample, earlier: Sequence[float], *, power: bool = False
) -> Contrast:
    """Hold a figure of a contender against the base's. `earlier`: those of runs equal to the base before the two;
    `power`: find also what change would be found."""
    n, m = len(base.values), len(contender.values)
    if not n or not m:
        return Contrast(measure, base, contender, "none", False, None, "no value")
    relative = measure.is_relative([*base.values, *contender.values, *earlier])
    first, second, before = (_scaled(values, relative) for values in (base.values, contender.values, earlier))
    found: Found | None
    method: Method
    if n > 1 and m > 1:
        method, found = "ranks", rank_sum(first, second, power=power)
    elif n == m == 1:
        method, found = "spread", against_spread(first[0], second[0], before, measure.least_spread)
    elif m == 1:
        method, found = "sample", against_sample(first, second[0], measure.least_spread)
    else:
        method, found = "sample", _turned(against_sample(second, first[0], measure.least_spread))
    word: Word
    if method != "ranks" and base.values == contender.values:
        word = "not distinguishable"
    elif method == "ranks" and smallest_p(n, m) > LEVEL:
        word = "too few runs"
    elif found is None:
        word = "too few runs" if method == "sample" and max(n, m) < FEWEST_EARLIER else "noise unknown"
    else:
        word = _direction(measure, found) if found.p <= LEVEL else "not distinguishable"
    return Contrast(measure, base, contender, method, relative, found, word)


def as_family(primary: Contrast, others: Sequence[Contrast]) -> list[Contrast]:
    """The others with words that they may have beside the primary one.

    Where the primary figure differs, something has changed, and each other speaks for itself. Where it does not, all of
    them together may raise a false alarm as seldom as one (Holm).
    """
    if primary.is_different:
        return list(others)
    judged = [i for i, one in enumerate(others) if one.p is not None]
    adjusted = dict(zip(judged, holm([others[i].p or 0.0 for i in judged]), strict=True))
    found = []
    for i, one in enumerate(others):
        word = one.word
        if one.is_different and adjusted[i] > LEVEL:
            least = smallest_p(len(one.base.values), len(one.contender.values)) if one.method == "ranks" else 0.0
            word = "too few runs" if least * len(judged) > LEVEL else "not distinguishable"
        found.append(one._replace(word=word))
    return found


def _scaled(values: Sequence[float], relative: bool) -> list[float]:
    return [math.log(value) for value in values] if relative else list(values)


def _turned(found: Found | None) -> Found | None:
    """The same the other way round."""
    if found is None:
        return None
    shift, low, high = (None if v is None else -v for v in (found.shift, found.high, found.low))
    return Found(found.p, not found.up, shift, low, high, found.detectable)


def _direction(measure: Measure, found: Found) -> Word:
    if measure.better is None:
        return "higher" if found.up else "lower"
    return "better" if found.up == (measure.better == "higher") else "worse"
