"""Two runs side by side: what differs in what was measured, and by how much each figure does.

Nothing here claims significance: with one run on each side the noise between runs is unknown. A direction only says on
which side of the other a value lies, by its metric's definition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from portal.runs.environment import part
from portal.runs.figures import NONE, figure, percentile
from wsnode.core.result import DEFINITIONS, Definition, Result

RESOLUTION = 1 / 128
"""Two percentiles closer than this share may lie in one bucket of the histogram."""

LATENCY_STATISTICS = {
    "response_time": ("p50", "p90", "p95", "p99", "p999", "mean", "max"),
    "service_time": ("p50", "p99"),
    "write_wait": ("p50", "p99"),
    "scheduler_lag": ("p50", "p99"),
    "handshake": ("p50", "p95", "p99"),
}
"""What of each latency is compared, in order."""

_LEVEL = re.compile(r"^(suspect|invalid): ")

Direction = Literal["better", "worse", "same", "higher", "lower", "no value"]
Part = Literal["subject", "scenario", "environment"]


class Difference(NamedTuple):
    """One line in which the two runs were not alike."""

    part: Part
    what: str
    base: str
    contender: str


class Row(NamedTuple):
    """One figure of both runs, in `unit`."""

    key: str
    group: str
    title: str
    definition: Definition
    base: float | None
    contender: float | None
    base_null: str | None
    """Why `base` has no value."""
    contender_null: str | None
    direction: Direction

    @property
    def unit(self) -> str:
        """Of both values."""
        return self.definition.unit

    @property
    def delta(self) -> float | None:
        """Contender minus base."""
        return None if self.base is None or self.contender is None else self.contender - self.base

    @property
    def change(self) -> float | None:
        """The delta as a share of the base; None where that is 0 or has no value."""
        return self.delta / self.base if self.delta is not None and self.base else None


class Comparison(NamedTuple):
    """A contender against its base."""

    differences: list[Difference]
    rows: list[Row]
    cautions: list[str]
    """What forbids, or weakens, a conclusion."""

    def of(self, part: Part) -> list[Difference]:
        """The differences of one part."""
        return [difference for difference in self.differences if difference.part == part]


Environments = Mapping[str, Mapping[str, Any]]
"""By host: what was found there when the run began."""


def compare(
    base: Result, contender: Result, base_environment: Environments, contender_environment: Environments
) -> Comparison:
    """Put a contender beside its base."""
    differences = [
        *_differ("subject", _subject(base), _subject(contender)),
        *_differ("scenario", _scenario(base), _scenario(contender)),
        *_differ("environment", _environment(base_environment), _environment(contender_environment)),
    ]
    return Comparison(differences, rows(base, contender), list(_cautions(base, contender, differences)))


def rows(base: Result, contender: Result) -> list[Row]:
    """Every figure that is compared, the ones that carry most first."""
    found = []
    for name, definition in DEFINITIONS.items():
        family, _, metric = name.partition(".")
        if family != "latency_s":
            found.append(_row(name, "Load and errors", definition.title, (base, contender)))
            continue
        found += [
            _row(f"{name}.{statistic}", definition.title, percentile(statistic), (base, contender))
            for statistic in LATENCY_STATISTICS.get(metric, ())
        ]
    # Response time first, then load and errors, then what explains them.
    order = {"Response time": 0, "Load and errors": 1}
    return sorted(found, key=lambda row: order.get(row.group, 2))


def direction(base: float | None, contender: float | None, definition: Definition, *, estimate: bool) -> Direction:
    """On which side of the base the contender lies. `estimate`: the values come from a histogram's buckets."""
    if base is None or contender is None:
        return "no value"
    near = estimate and abs(contender - base) <= RESOLUTION * max(base, contender)
    if near or base == contender or figure(base, definition.unit) == figure(contender, definition.unit):
        return "same"
    if definition.better is None:
        return "higher" if contender > base else "lower"
    return "better" if (contender > base) == (definition.better == "higher") else "worse"


def _row(key: str, group: str, title: str, results: tuple[Result, Result]) -> Row:
    definition = DEFINITIONS.get(key) or DEFINITIONS[key.rpartition(".")[0]]
    values = [value_of(result, key) for result in results]
    nulls = [
        None if value is not None else result.nulls.get(key, "not measured")
        for result, value in zip(results, values, strict=True)
    ]
    return Row(
        key=key,
        group=group,
        title=title,
        definition=definition,
        base=values[0],
        contender=values[1],
        base_null=nulls[0],
        contender_null=nulls[1],
        direction=direction(values[0], values[1], definition, estimate=key.startswith("latency_s.")),
    )


def value_of(result: Result, key: str) -> float | None:
    """A figure of the result by its dotted name, such as `latency_s.response_time.p99`; None where it is null."""
    value: Any = result
    for name in key.split("."):
        value = getattr(value, name, None)
    return None if value is None else float(value)


def _subject(result: Result) -> dict[str, str]:
    if result.subject is None:
        return {}
    return {"name": result.subject.name, "version": result.subject.version}


def _scenario(result: Result) -> dict[str, str]:
    return {
        name: "; ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in result.scenario.model_dump(exclude={"description"}).items()
        if value is not None
    }


def _environment(environments: Environments) -> dict[str, str]:
    return {
        f"{host} · {name}": text
        for host, environment in environments.items()
        for name, text in part(environment).items()
    }


def _differ(part: Part, base: Mapping[str, str], contender: Mapping[str, str]) -> list[Difference]:
    return [
        Difference(part, key, base.get(key, NONE), contender.get(key, NONE))
        for key in {**base, **contender}
        if base.get(key) != contender.get(key)
    ]


def _cautions(base: Result, contender: Result, differences: list[Difference]) -> list[str]:
    cautions = []
    for name, result in (("base", base), ("contender", contender)):
        if result.validity != "valid":
            reasons = "; ".join(_LEVEL.sub("", reason) for reason in result.reasons)
            cautions.append(f"The {name} is {result.validity}: {reasons or 'no reason was given'}.")
        if result.state != "finished":
            cautions.append(f"The {name} did not finish: it was {result.state}.")
        if result.window is None:
            cautions.append(f"The {name} has no measured window: its figures are of the whole run.")
    fields = [difference.what for difference in differences if difference.part == "scenario"]
    load = [field for field in fields if field not in ("name", "thresholds")]
    if load:
        cautions.append(f"The two runs did not carry the same load: {', '.join(load)} differ.")
    return cautions
