"""Each run of each side as a dot on one axis: geometry for a drawing, in thousandths of its width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from portal.runs.contrast import Sample
from portal.runs.figures import Figure, figure
from portal.runs.measures import Measure

WIDTH = 1000
LEFT, RIGHT = 20, 980
"""Between these the values lie."""
BESIDE = 14
"""Dots nearer to each other than this lie in different lanes."""
LANES = (0, -1, 1, -2, 2, -3, 3)


class Dot(NamedTuple):
    x: float
    lane: int
    """0 in the middle, −3 to 3."""
    shown: str

    @property
    def y(self) -> int:
        """Of a height of 60."""
        return 30 + 7 * self.lane


class Strip(NamedTuple):
    """A side's dots."""

    label: str
    dots: list[Dot]
    median: float | None
    """Its place; None where it has none."""
    shown: str
    """The median in words."""
    lost: int
    """Runs above every time: too much was never answered."""


class Tick(NamedTuple):
    x: float
    shown: Figure


class Plot(NamedTuple):
    """One figure's dots."""

    measure: Measure
    strips: list[Strip]
    ticks: list[Tick]
    summary: str


def plot(measure: Measure, sides: Sequence[tuple[str, Sample]]) -> Plot | None:
    """The dots of sides, by label; None where there is no value."""
    values = [value for _, sample in sides for value in sample.values if math.isfinite(value)]
    if not values:
        return None
    relative = measure.is_relative(values)
    low, high = min(values), max(values)
    at: Callable[[float], float] = math.log if relative else float

    def place(value: float) -> float:
        span = at(high) - at(low)
        return LEFT + (RIGHT - LEFT) * (at(value) - at(low)) / span if span else (LEFT + RIGHT) / 2

    strips = []
    for label, sample in sides:
        finite = sorted(value for value in sample.values if math.isfinite(value))
        middle = sample.value
        strips.append(
            Strip(
                label,
                _dots([place(v) for v in finite], [str(figure(v, measure.unit)) for v in finite]),
                None if middle is None else round(place(middle), 1),
                str(figure(middle, measure.unit)),
                len(sample.values) - len(finite),
            )
        )
    ends = [low] if low == high else [low, math.sqrt(low * high) if relative else (low + high) / 2, high]
    ticks = [Tick(round(place(v), 1), figure(v, measure.unit)) for v in ends]
    said = "; ".join(f"{one.label}: {len(one.dots)} values, median {one.shown}" for one in strips)
    return Plot(measure, strips, ticks, f"{said}. From {figure(low, measure.unit)} to {figure(high, measure.unit)}.")


def _dots(places: Sequence[float], shown: Sequence[str]) -> list[Dot]:
    dots: list[Dot] = []
    last = dict.fromkeys(LANES, -math.inf)
    for x, text in zip(places, shown, strict=True):
        lane = next((lane for lane in LANES if x - last[lane] >= BESIDE), LANES[len(dots) % len(LANES)])
        last[lane] = x
        dots.append(Dot(round(x, 1), lane, text))
    return dots
