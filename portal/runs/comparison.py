"""Runs or groups of runs against a baseline: what differs in what was measured, by how much, and whether that is noise.

The verdict is that of one figure, the primary metric of the baseline's scenario. At most `LEVEL` of comparisons of
equal runs end in *better* or *worse*; all other figures together raise as few false alarms again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from portal.runs.contrast import Contrast, Sample, Word, as_family, contrast
from portal.runs.environment import run_differences
from portal.runs.figures import NONE
from portal.runs.measures import Kind, Measure, compared, measure
from portal.runs.noise import Noise, noise_of
from portal.runs.sides import Member, Side, kind_of, load_of
from portal.runs.telling import sentence

MOST_SIDES = 5
Part = Literal["subject", "scenario", "environment"]


class Line(NamedTuple):
    """One line in which a contender is not like the base."""

    part: Part
    what: str
    base: str
    contender: str
    hosts: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Such as `kernel 6.8.0-45 → 6.8.0-51 (server)`."""
        where = f" ({', '.join(self.hosts)})" if self.hosts else ""
        return f"{self.what} {self.base} → {self.contender}{where}"


class Contender(NamedTuple):
    """A side against the base."""

    side: Side
    lines: list[Line]
    word: Word
    """The verdict: the primary metric's."""
    sentence: str
    primary: Contrast
    cautions: list[str]
    noise: Noise

    def of(self, part: Part) -> list[Line]:
        """The lines of one part."""
        return [line for line in self.lines if line.part == part]


class Row(NamedTuple):
    """One figure of all sides."""

    measure: Measure
    kind: Literal["primary"] | Kind
    base: Sample
    cells: list[Contrast]
    """Of each contender, in order."""


class Comparison(NamedTuple):
    """One to four contenders against a base."""

    base: Side
    contenders: list[Contender]
    rows: list[Row]
    cautions: list[str]
    """Of the base."""

    @property
    def sides(self) -> list[Side]:
        """All, the base first."""
        return [self.base, *(contender.side for contender in self.contenders)]

    @property
    def primary(self) -> Row:
        """The row that carries the verdict."""
        return self.rows[0]

    @property
    def exit_code(self) -> int:
        """For scripts: 1 where a contender is worse (or different, where neither is better), 3 where nothing can be
        said of one, else 0."""
        words = {contender.word for contender in self.contenders}
        if words & {"worse", "higher", "lower"}:
            return 1
        return 0 if words <= {"better", "not distinguishable"} else 3


def compare(sides: Sequence[Side], earlier: Sequence[Member]) -> Comparison:
    """Hold sides against the first. `earlier`: valid runs of the base's scenario name and environment.

    Raises:
        ValueError: fewer than two sides, or more than `MOST_SIDES`.
    """
    if not 2 <= len(sides) <= MOST_SIDES:
        raise ValueError(f"{len(sides)} sides: expected 2 to {MOST_SIDES}")
    base, others = sides[0], sides[1:]
    primary = measure(base.scenario.effective_primary_metric)
    measures = compared(primary.key)
    contenders: list[Contender] = []
    columns: list[list[Contrast]] = []
    for side in others:
        noise = noise_of(base, side, earlier)
        first = _contrast(primary, base, side, noise, power=True)
        rest = [_contrast(one, base, side, noise) for one, _ in measures]
        kinds = _kinds(base, side)
        believed = bool(base.counted and side.counted)
        if kinds or not believed:
            first, rest = (_silenced(first), [_silenced(one) for one in rest])
        judged = [i for i, (_, kind) in enumerate(measures) if kind == "secondary"]
        for i, one in zip(judged, as_family(first, [rest[i] for i in judged]), strict=True):
            rest[i] = one
        rest = [
            one
            if kind == "secondary" or one.word in ("no value", "not comparable")
            else one._replace(word="not judged")
            for one, (_, kind) in zip(rest, measures, strict=True)
        ]
        columns.append([first, *rest])
        contenders.append(
            Contender(
                side,
                lines(base, side),
                first.word,
                sentence(first, base, noise, kinds),
                first,
                [*side.cautions(), *_unlike(base, side, kinds), *_apart(base, side)],
                noise,
            )
        )
    kinds_of_rows: list[tuple[Measure, Literal["primary"] | Kind]] = [(primary, "primary"), *measures]
    rows = [
        Row(one, kind, base.sample(one), [column[i] for column in columns])
        for i, (one, kind) in enumerate(kinds_of_rows)
    ]
    return Comparison(base, contenders, rows, base.cautions())


def lines(base: Side, contender: Side) -> list[Line]:
    """What the two are not alike in, line by line."""
    found = _differ("subject", base.subject, contender.subject)
    found += _differ("scenario", _scenario(base), _scenario(contender))
    return found + [
        Line("environment", one.name, one.base, one.contender, one.hosts)
        for one in run_differences(base.readings, contender.readings)
    ]


def _contrast(of: Measure, base: Side, contender: Side, noise: Noise, *, power: bool = False) -> Contrast:
    return contrast(of, base.sample(of), contender.sample(of), noise.values(of), power=power)


def _silenced(one: Contrast) -> Contrast:
    return one if one.word == "no value" else one._replace(word="not comparable", found=None)


def _kinds(base: Side, contender: Side) -> list[str]:
    one, other = kind_of(base.scenario), kind_of(contender.scenario)
    return [
        f"{what} {one.get(what, NONE)} → {other.get(what, NONE)}"
        for what in {**one, **other}
        if one.get(what) != other.get(what)
    ]


def _unlike(base: Side, contender: Side, kinds: Sequence[str]) -> list[str]:
    if kinds:
        return [f"{contender.title} is another kind of load ({'; '.join(kinds)}): its figures do not mean the same."]
    one, other = (load_of(side.representative.scenario) for side in (base, contender))
    fields = [name for name in one if one[name] != other[name]]
    return [f"{contender.title} did not carry the same load: {', '.join(fields)} differ."] if fields else []


def _apart(base: Side, contender: Side) -> list[str]:
    """Whether two groups were made one after the other."""
    times = [[member.created_at for member in side.counted] for side in (base, contender)]
    if not all(len(of) > 1 for of in times) or min(map(max, times)) > max(map(min, times)):
        return []
    return [
        f"{contender.title} and {base.title} were made one after the other: whatever else changed in between counts as "
        "a difference. Groups that alternate (A B B A) do not have this."
    ]


def _scenario(side: Side) -> dict[str, str]:
    return {
        name: "; ".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in side.scenario.model_dump(exclude={"description"}).items()
        if value is not None
    }


def _differ(part: Part, base: Mapping[str, str], contender: Mapping[str, str]) -> list[Line]:
    return [
        Line(part, key, base.get(key, NONE), contender.get(key, NONE))
        for key in {**base, **contender}
        if base.get(key) != contender.get(key)
    ]
