"""What a comparison comes to, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from portal.runs.contrast import Contrast
from portal.runs.figures import NBSP, NONE, figure, ratio
from portal.runs.noise import Noise
from portal.runs.sides import Side
from portal.runs.statistics import FEWEST_EARLIER, fewest_each, smallest_p


def shown_change(one: Contrast, value: float | None) -> str:
    """A change as it is read: per cent of the base, or in the figure's unit (shares of 1: points)."""
    if value is None or not math.isfinite(value):
        return NONE
    if one.relative:
        return shown_share(value)
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{figure(abs(value), 'points' if one.measure.unit == 'ratio' else one.measure.unit)}"


def shown_share(value: float) -> str:
    """A change as a share of what it is against, with its sign."""
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{ratio(abs(value))}"


def sizes(one: Contrast) -> str:
    """How many runs a contrast is of: `5 + 5 runs`."""
    return f"{len(one.base.values)} + {len(one.contender.values)} runs"


def evidence(one: Contrast) -> str:
    """What a word rests on: p, interval and number of runs; empty where there is nothing."""
    if one.p is None:
        return ""
    parts = ["p < 0.01" + NBSP + "%" if one.p < 1e-4 else f"p = {ratio(one.p)}"]
    if one.interval:
        parts.append(f"99{NBSP}% interval {shown_change(one, one.interval[0])} to {shown_change(one, one.interval[1])}")
    return ", ".join(parts)


def sentence(one: Contrast, base: Side, noise: Noise, kinds: Sequence[str]) -> str:
    """What the two come to, and what that rests on."""
    unit = one.measure.unit
    values = f"{one.measure.name}: {figure(one.base.value, unit)} → {figure(one.contender.value, unit)}"
    if one.delta is not None:
        values += f" ({shown_change(one, one.change if one.relative else one.delta)})"
    return f"{values}. {_because(one, base, noise, kinds)}"


def _because(one: Contrast, base: Side, noise: Noise, kinds: Sequence[str]) -> str:
    if kinds:
        return f"Another kind of load: {'; '.join(kinds)}."
    n, m = len(one.base.values), len(one.contender.values)
    if one.word == "not comparable":
        return "One of the two cannot be believed."
    if one.word == "no value":
        where, sample = ("base", one.base) if not n else ("contender", one.contender)
        return f"The {where} has no value: {sample.why or 'not measured'}."
    if one.word == "too few runs":
        if one.method == "ranks":
            least, each = ratio(smallest_p(n, m)), fewest_each()
            return f"With {n} + {m} runs p cannot be below {least}: at least {each} + {each} are needed, or 4 + 6."
        return f"A single run against a group needs a group of at least {FEWEST_EARLIER}; this one has {max(n, m)}."
    if one.word == "noise unknown":
        return _unknown(one, base, noise)
    if one.found is None:
        return "They are equal."
    found = f"{evidence(one)}; {_ground(one, noise)}."
    if one.detectable:
        found += f" A change of {shown_change(one, one.detectable)} is found in 80{NBSP}% of such comparisons."
    return found


def _unknown(one: Contrast, base: Side, noise: Noise) -> str:
    if not base.representative.environment_digest:
        return "The base's environment was not read, so nobody can say which earlier runs are equal to it."
    known = len(noise.values(one.measure))
    if known < FEWEST_EARLIER:
        runs = "No earlier run" if not known else f"Only {known} earlier {'run' if known == 1 else 'runs'}"
        return (
            f"{runs} of this scenario, environment and subject to take the noise from; {FEWEST_EARLIER} are needed. "
            "Or repeat each side as a group of five."
        )
    return f"The {known} earlier runs do not differ at all, so they do not tell how large the noise is."


def _ground(one: Contrast, noise: Noise) -> str:
    if one.method == "ranks":
        return f"exact, over all ways to deal {sizes(one)}"
    if one.method == "sample":
        return f"by the spread of the group's {max(len(one.base.values), len(one.contender.values))} runs"
    version = "subject version" if noise.same_version else "subject, whatever its version"
    runs = len(noise.values(one.measure))
    return f"by the spread of {runs} earlier runs of the same scenario, environment and {version}"
