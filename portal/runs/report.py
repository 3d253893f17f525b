"""What a run page tells of a run that is over, gathered from its result, its record and its archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from django.core.exceptions import ObjectDoesNotExist

from portal.runs import series
from portal.runs.archive import read
from portal.runs.environment import Change, changes, part
from portal.runs.models import Archive, Run
from portal.runs.phases import Phase, phases
from wsnode.core.merge import IDENTITIES, merge
from wsnode.core.protocol import Counters, HostSecond, Second
from wsnode.core.result import DEFINITIONS, Definition, Host, Latency, Result
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


class Value(NamedTuple):
    """A figure with its meaning; where it is null, why."""

    title: str
    value: float | None
    unit: str
    meaning: str
    why: str | None


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

    What is read out of the archive (`phases`, `series`, the hosts' workers) takes a while for a long run: pages ask for
    it after they have come.
    """

    run: Run

    @cached_property
    def result(self) -> Result | None:
        """None where nothing was counted."""
        try:
            return self.run.summary.content
        except ObjectDoesNotExist:
            return None

    @cached_property
    def archive(self) -> Mapping[str, Any] | None:
        """As it is stored, see `portal.runs.archive.read`."""
        try:
            return read(bytes(self.run.archive.content))
        except ObjectDoesNotExist:
            return None

    @cached_property
    def has_archive(self) -> bool:
        """Whether there is one; without reading it."""
        return Archive.objects.filter(run=self.run).exists()

    # --- did it pass, what was reached ----------------------------------------------------------------------------
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
        return [self._value(key) for key in KEY_FIGURES] if self.result else []

    def _value(self, key: str) -> Value:
        assert self.result is not None
        definition = DEFINITIONS.get(key)
        title = definition.title if definition else ""
        if definition is None:
            definition = DEFINITIONS[key.rpartition(".")[0]]
            title = f"{definition.title} {key.rpartition('.')[2]}"
        value: Any = self.result
        for name in key.split("."):
            value = getattr(value, name)
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
        return _identities(self.result.counters) if self.result else []

    @property
    def errors(self) -> list[tuple[str, int]]:
        """Lost messages, errors by kind, unsent messages by reason; of the latter two the most frequent first."""
        if self.result is None:
            return []
        counters = self.result.counters
        kinds = [(kind.replace("_", " "), n) for kind, n in counters.errors.items() if n]
        reasons = [(f"unsent, {why.replace('_', ' ')}", n) for why, n in counters.unsent.items() if n]
        lost = [("messages lost", counters.messages_lost)] if counters.messages_lost else []
        return lost + sorted(kinds, key=lambda pair: -pair[1]) + sorted(reasons, key=lambda pair: -pair[1])

    # --- from the archive -----------------------------------------------------------------------------------------
    @property
    def window(self) -> tuple[int, int] | None:
        """Measured window (s from the origin)."""
        if self.result is None or self.result.window is None:
            return None
        return self.result.window.from_s, self.result.window.to_s

    @cached_property
    def phases(self) -> list[Phase]:
        """The run by phases; empty where there is no archive, or nothing in it."""
        if self.archive is None or not self.archive["seconds"]:
            return []
        finals = [
            Second.model_validate(host["result"]["final"])
            for host in self.archive["hosts"]
            if host["result"] and host["result"]["final"]
        ]
        total = None
        if finals:
            last = max(final.second for final in finals)
            total = merge([final.model_copy(update={"second": last}) for final in finals])
        return phases(self.run.scenario_model, self.archive["seconds"], total, self.window)

    def series(self) -> dict[str, Any]:
        """Columns and summaries of the charts."""
        table = series.columns(series.archived(self.archive["seconds"] if self.archive else []))
        return {"columns": table, "window": self.window, "summaries": series.summaries(table, self.window)}

    @property
    def hosts(self) -> list[Host]:
        """Each host's part, as the result tells it."""
        return self.result.hosts if self.result else []

    @property
    def busiest(self) -> dict[str, float | None]:
        """By load generator: CPU seconds per second of its busiest worker, over the measured window."""
        hosts = self.archive["hosts"] if self.archive else []
        return {h["name"]: _busiest(h["machine"], self.window) for h in hosts if h["role"] == "load_generator"}

    # --- on what --------------------------------------------------------------------------------------------------
    @cached_property
    def readings(self) -> list[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """(host, begin, end) of each host's environment."""
        return [(row.host, row.begin, row.end) for row in self.run.environments.order_by("id")]

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
    return [f"latency_s.{metric}", f"rates.{metric}", f"counters.{metric}", metric]


def _identities(counters: Counters) -> list[IdentityRow]:
    rows = []
    for identity in IDENTITIES:
        left, right = identity.sides(counters)
        terms = [(name.partition("_")[2].replace("_", " "), getattr(counters, name)) for name in identity.right]
        rows.append(IdentityRow((identity.left.replace("_", " "), left), terms, left == right))
    return rows


def _busiest(machine: Sequence[Any], window: tuple[int, int] | None) -> float | None:
    """CPU seconds per second of the busiest worker."""
    opens, closes = window or (0, len(machine))
    if closes > len(machine) or closes <= opens:
        return None
    end = HostSecond.model_validate(machine[closes - 1]).worker_cpu_s
    begin = HostSecond.model_validate(machine[opens - 1]).worker_cpu_s if opens else (0.0,) * len(end)
    return max(((b - a) / (closes - opens) for a, b in zip(begin, end, strict=True)), default=None)
