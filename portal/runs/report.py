"""What a run page tells of a run that is over, gathered from its result, its record and its archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from django.core.exceptions import ObjectDoesNotExist

from portal.runs.charts import summaries
from portal.runs.digest import Digest, digest_of
from portal.runs.environment import Change, changes, part
from portal.runs.explained import Counted, explained
from portal.runs.hurt import Finding, findings
from portal.runs.models import Archive, OtherWindow, Run, Summary
from portal.runs.percentiles import curve_summary
from portal.runs.phases import Phase
from portal.runs.wording import in_short, machine
from wsnode.core.merge import IDENTITIES
from wsnode.core.protocol import Counters
from wsnode.core.result import DEFINITIONS, Definition, Held, Host, Latency, Result
from wsnode.core.threshold import Threshold

STATISTICS = ("min", "mean", "p50", "p90", "p95", "p99", "p999", "max")
KEY_FIGURES = (
    "rates.received_per_s",
    "latency_s.response_time.p50",
    "latency_s.response_time.p95",
    "latency_s.response_time.p99",
    "error_ratio",
    "counters.connections_peak",
    "rates.connect_per_s",
    "latency_s.scheduler_lag.p99",
)
OF_BROADCASTS = (
    "broadcast.deliveries_per_s",
    "latency_s.one_way.p50",
    "latency_s.one_way.p95",
    "latency_s.one_way.p99",
    "broadcast.delivery_loss_ratio",
    *KEY_FIGURES[5:],
)
"""The same of a run whose messages await no reply, and are delivered to many."""
OF_THE_RUN = {"counters.connections_peak", "rates.connect_per_s", "broadcast.delivery_loss_ratio"}


class Value(NamedTuple):
    """A figure with its meaning; where it is null, why."""

    title: str
    value: float | None
    unit: str
    meaning: str
    why: str | None


class Hold(NamedTuple):
    """A hold of the stages, and by statistic why its response time is null."""

    held: Held
    nulls: dict[str, str]


class LatencyRow(NamedTuple):
    """One latency with all its statistics."""

    definition: Definition
    latency: Latency
    cells: list[Value]


class JudgedRow(NamedTuple):
    """A threshold and what became of it."""

    expr: str
    value: Value
    passed: bool | None


class IdentityRow(NamedTuple):
    """An accounting identity with its numbers over the whole run."""

    left: tuple[str, int]
    right: list[tuple[str, int]]
    holds: bool


class FactRow(NamedTuple):
    """A fact on every host, in the hosts' order."""

    name: str
    values: list[str]


@dataclass
class Report:
    """Everything that is kept of a run. Without a result only its log and environments are left.

    What is drawn of its archive comes from the digest that is kept beside it.
    """

    run: Run
    given: Result | None = None
    """A further judgement to tell of, instead of the first."""

    @cached_property
    def result(self) -> Result | None:
        """None where nothing was counted."""
        if self.given is not None:
            return self.given
        try:
            return self.run.summary.content
        except ObjectDoesNotExist:
            return None

    @cached_property
    def digest(self) -> Digest | None:
        """What is drawn of the archive; None where there is none."""
        return digest_of(self.run.pk, self.window)

    @cached_property
    def has_archive(self) -> bool:
        """Whether there is one; without reading it."""
        return Archive.objects.filter(run=self.run).exists()

    # --- did it pass, what was reached ----------------------------------------------------------------------------
    @property
    def in_short(self) -> str:
        """The run in a sentence or two, for whoever reads no further."""
        return in_short(self.result) if self.result else ""

    @property
    def thresholds(self) -> list[JudgedRow]:
        """Each threshold with the value that was held against it."""
        if self.result is None:
            return []
        return [
            JudgedRow(judged.expr, self._judged(judged.expr, judged.value), judged.passed)
            for judged in self.result.thresholds
        ]

    def _judged(self, expr: str, value: float | None) -> Value:
        metric = Threshold.parse(expr).metric
        key = next(name for name in _names(metric) if name in DEFINITIONS or name.rpartition(".")[0] in DEFINITIONS)
        known = self._value(key)
        return known._replace(value=value)

    @property
    def key_figures(self) -> list[Value]:
        """What was reached, in eight figures."""
        return [self._value(key) for key in self._keys]

    @property
    def _keys(self) -> Sequence[str]:
        if self.result is None:
            return ()
        return OF_BROADCASTS if self.result.scenario.behaviour == "broadcast" else KEY_FIGURES

    @property
    def window_figures(self) -> list[Value]:
        """Those of them that are of the window, not of the whole run."""
        return [self._value(key) for key in self._keys if key not in OF_THE_RUN]

    def _value(self, key: str) -> Value:
        assert self.result is not None
        definition = DEFINITIONS.get(key)
        title = definition.title if definition else ""
        if definition is None:
            definition = DEFINITIONS[key.rpartition(".")[0]]
            title = f"{definition.title} {key.rpartition('.')[2]}"
        value: Any = self.result
        for name in key.split("."):
            value = getattr(value, name, None)
        why = self.result.nulls.get(key, "not measured") if value is None else None
        return Value(title, value, definition.unit, definition.text, why)

    @property
    def latencies(self) -> list[LatencyRow]:
        """All latencies × statistics."""
        if self.result is None:
            return []
        rows = []
        for name, latency in self.result.latency_s:
            if latency is None:
                continue
            definition = DEFINITIONS[f"latency_s.{name}"]
            cells = [
                Value(
                    statistic,
                    getattr(latency, statistic),
                    "s",
                    "",
                    self.result.nulls.get(f"latency_s.{name}.{statistic}", "not measured"),
                )
                for statistic in STATISTICS
            ]
            rows.append(LatencyRow(definition, latency, cells))
        return rows

    # --- can it be trusted ----------------------------------------------------------------------------------------
    @property
    def identities(self) -> list[IdentityRow]:
        """The accounts of the whole run."""
        if self.result is None:
            return []
        rows = _identities(self.result.counters)
        if (found := self.result.broadcast) is not None:
            terms = [("received", found.received), ("lost", found.lost)]
            rows.append(IdentityRow(("deliveries expected", found.expected), terms, found.adds_up))
        return rows

    @property
    def deliveries(self) -> list[tuple[str, int]]:
        """Of a broadcast: what became of the deliveries, beside the account of them."""
        found = self.result.broadcast if self.result else None
        names = ("out_of_order", "late", "duplicate", "indeterminate")
        return [(name.replace("_", " "), getattr(found, name)) for name in names] if found else []

    @property
    def errors(self) -> list[Counted]:
        """What went wrong, with its explanation."""
        return explained(self.result.counters) if self.result else []

    # --- where did it hurt ----------------------------------------------------------------------------------------
    @property
    def findings(self) -> list[Finding]:
        """The worst seconds."""
        if self.digest is None or not self.digest.last:
            return []
        return findings(self.digest.run, self.digest.hosts, self.window, self.digest.last)

    @cached_property
    def said(self) -> dict[str, str]:
        """Each chart in words."""
        if self.digest is None:
            return {}
        said = summaries(self.digest.run, self.digest.hosts, self.window)
        return said | {"curve": curve_summary(self.digest.curves)}

    @cached_property
    def other_windows(self) -> list[OtherWindow]:
        """Further judgements, in the order in which they were made."""
        return list(self.run.other_windows.select_related("created_by").order_by("id"))

    # --- from the archive -----------------------------------------------------------------------------------------
    @property
    def window(self) -> tuple[int, int] | None:
        """Measured window (s from the origin)."""
        window = self.result.window if self.result else None
        return (window.from_s, window.to_s) if window else None

    @property
    def phases(self) -> list[Phase]:
        """The run by phases; empty where there is no archive, or nothing in it."""
        return self.digest.phases if self.digest else []

    @property
    def holds(self) -> list[Hold]:
        """Each hold of the scenario's stages on its own; empty where it has none."""
        if self.result is None:
            return []
        nulls = self.result.nulls
        return [
            Hold(held, {key.removeprefix(begin): why for key, why in nulls.items() if key.startswith(begin)})
            for place, held in enumerate(self.result.stages)
            for begin in (f"stages.{place}.latency_s.response_time.",)
        ]

    @property
    def hosts(self) -> list[Host]:
        """Each host's part, as the result tells it."""
        return self.result.hosts if self.result else []

    @property
    def busiest(self) -> dict[str, float | None]:
        """By load generator: CPU seconds per second of its busiest worker, over the measured window."""
        return self.digest.busiest if self.digest else {}

    # --- on what --------------------------------------------------------------------------------------------------
    @cached_property
    def readings(self) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """(host, begin, end) of each host's environment."""
        return [(row.host, row.begin, row.end) for row in self.run.environments.order_by("id")]

    @property
    def machines(self) -> dict[str, list[str]]:
        """Hosts by what they are: kernel, cores, memory."""
        found: dict[str, list[str]] = {}
        for host, begin, _ in self.readings:
            found.setdefault(machine(begin), []).append(host)
        return found

    @property
    def facts(self) -> list[FactRow]:
        """The stable facts, host beside host."""
        columns = [part(begin) for _, begin, _ in self.readings]
        names = sorted({name for column in columns for name in column})
        return [FactRow(name, [column.get(name, "absent") for column in columns]) for name in names]

    @property
    def changed(self) -> list[tuple[str, Change]]:
        """Stable facts that were not the same at the end."""
        return [
            (host, change)
            for host, begin, end in self.readings
            for change in changes(begin.get("stable") or {}, end.get("stable") or {})
        ]

    @property
    def moved(self) -> list[tuple[str, Change]]:
        """Volatile facts, before and after."""
        return [
            (host, change)
            for host, begin, end in self.readings
            for change in changes(begin.get("volatile") or {}, end.get("volatile") or {})
        ]


def _names(metric: str) -> list[str]:
    """Where a threshold's metric may stand in the result."""
    return [f"{place}.{metric}" for place in ("latency_s", "rates", "counters", "broadcast")] + [metric]


def _identities(counters: Counters) -> list[IdentityRow]:
    rows = []
    for identity in IDENTITIES:
        left, right = identity.sides(counters)
        terms = [(name.partition("_")[2].replace("_", " "), getattr(counters, name)) for name in identity.right]
        rows.append(IdentityRow((identity.left.replace("_", " "), left), terms, left == right))
    return rows


def window_of(run: Run) -> tuple[int, int] | None:
    """The measured window of a run that is kept (s from its origin), without reading all of its result."""
    row = Summary.objects.filter(run=run).values_list("result__window__from_s", "result__window__to_s").first()
    return (row[0], row[1]) if row and row[0] is not None else None
