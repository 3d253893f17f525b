"""What a dashboard is made of, without Grafana's own vocabulary: boards of sections of panels of lines. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from portal.monitoring.node_exporter import NODE_EXPORTER
from portal.monitoring.queries import Expression, Job
from wsnode.core import metrics

Colour = Literal["yellow", "red"]

COLUMNS = 24
HEIGHT = 8

UNITS = {
    "1/s": "suffix: /s",
    "bytes": "bytes",
    "bytes/s": "binBps",
    "connections": "short",
    "cores": "suffix: cores",
    "descriptors": "short",
    "files": "short",
    "percent": "percent",
    "processes": "short",
    "ratio": "percentunit",
    "runs": "short",
    "s": "s",
    "sockets": "short",
    "": "none",
}
"""Our units as Grafana calls them."""


@dataclass(frozen=True)
class Line:
    """One query of a panel, drawn as one line or as one for each label value."""

    what: Expression
    legend: str
    """As Grafana fills it in: `{{host}}`."""


@dataclass(frozen=True)
class Panel:
    """One graph."""

    id: int
    """Fixed for ever: links are stored with runs."""
    title: str
    unit: str
    """A key of `UNITS`."""
    lines: tuple[Line, ...]
    note: str = ""
    """What a reader should know beside the definitions of the metrics."""
    limits: tuple[tuple[float, Colour], ...] = ()
    """Values from which a line is drawn across the graph."""
    names: bool = False
    """Labels are the message: shown as words, not as a graph."""
    signed: bool = False
    """Values may lie below 0; else the axis begins there."""
    width: int = 12

    @property
    def description(self) -> str:
        """The definitions of all that is drawn, and the note."""
        names = dict.fromkeys(name for line in self.lines for name in (line.what.metric, line.what.over) if name)
        texts = [definition(name) for name in names]
        approximate = any(line.what.aggregation == "quantile" for line in self.lines)
        if approximate:
            texts.append("Quantiles come from Prometheus' buckets and are approximate; a run's result has exact ones.")
        return "\n\n".join([*texts, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Section:
    """A titled stretch of a dashboard. Its row has an id too."""

    id: int
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    description: str
    job: Job | None
    """Whose hosts can be chosen; None: all."""
    sections: tuple[Section, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Of all sections, in order."""
        return tuple(panel for section in self.sections for panel in section.panels)


def definition(metric: str) -> str:
    """What a metric means, from the catalogue or from the list of node_exporter's.

    Raises:
        KeyError: nobody declares it.
    """
    if metric in NODE_EXPORTER:
        return NODE_EXPORTER[metric].definition
    return metrics.by_name(metric).definition
