"""What pages draw of a run's archive, kept beside it: charts, phases, percentile curves. It can be made again."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import zstandard

from portal.runs import series
from portal.runs.archive import BadArchive, Opened
from portal.runs.cut import summary, total
from portal.runs.host_series import host_table
from portal.runs.opened import opened
from portal.runs.percentiles import Point, curves
from portal.runs.phases import Phase, phases
from portal.runs.record import Archive
from portal.runs.series import Table
from wsnode.core.protocol import HostSecond
from wsnode.core.scenario import Scenario

log = logging.getLogger("portal.runs")

FORMAT = 2
"""Raised where its content changes: older ones are made again when they are next asked for."""


class Digest:
    """Read from its stored form."""

    def __init__(self, content: bytes) -> None:
        self._data: dict[str, Any] = json.loads(zstandard.decompress(content))

    @property
    def is_current(self) -> bool:
        """Whether this portal made it."""
        return self._data.get("format") == FORMAT

    @property
    def last(self) -> int:
        """The last second that was counted; 0 where none was."""
        last: int = self._data["last"]
        return last

    @property
    def run(self) -> Table:
        """What clients saw, over time."""
        table: Table = self._data["run"]
        return table

    @property
    def hosts(self) -> Table:
        """What hosts did, over time."""
        table: Table = self._data["hosts"]
        return table

    @cached_property
    def phases(self) -> list[Phase]:
        """The run by phases; empty where nothing was counted."""
        return [Phase.from_json(phase) for phase in self._data["phases"]]

    @cached_property
    def curves(self) -> dict[str, list[Point]]:
        """Percentile curves of the measured window; without one, of the whole run."""
        return {name: [Point(*point) for point in points] for name, points in self._data["curves"].items()}

    @property
    def busiest(self) -> dict[str, float | None]:
        """By load generator: CPU seconds per second of its busiest worker, over the measured window."""
        busiest: dict[str, float | None] = self._data["busiest"]
        return busiest


def make(found: Opened, window: tuple[int, int] | None) -> bytes:
    """The stored form, of an archive whose measured window is known."""
    scenario = Scenario.model_validate(found.head["scenario"])
    columns = found.columns
    if window is not None and not 0 <= window[0] < window[1] <= columns.last:
        window = None
    whole = summary(scenario, found, window)
    parts = phases(scenario, columns, total(found), window) if columns.last else []
    data = {
        "format": FORMAT,
        "last": columns.last,
        "run": _rounded(series.tabulate(list(series.of_columns(columns)))),
        "hosts": _rounded(host_table(found)),
        "phases": [phase.to_json() for phase in parts],
        "curves": curves(whole) if whole else {},
        "busiest": {name: _busiest(lines, window) for name, lines in found.machine.items()},
    }
    text = json.dumps(data, separators=(",", ":")).encode()
    return zstandard.ZstdCompressor(level=10, write_content_size=True).compress(text)


def digest_of(run_id: str, window: tuple[int, int] | None) -> Digest | None:
    """A run's, made and kept if nobody has yet; None where there is no archive, or none that can be read."""
    return digests_of([(run_id, window)]).get(run_id)


def digests_of(runs: Iterable[tuple[str, tuple[int, int] | None]]) -> dict[str, Digest]:
    """By run; `runs` are pairs of run and measured window. One query, and one more for each that is not made yet."""
    windows = dict(runs)
    found = {}
    for run_id, content in Archive.objects.filter(run__in=windows).values_list("run_id", "digest"):
        digest = Digest(bytes(content)) if content else None
        if digest is None or not digest.is_current:
            digest = _made(run_id, windows[run_id])
        if digest is not None:
            found[run_id] = digest
    return found


def _made(run_id: str, window: tuple[int, int] | None) -> Digest | None:
    try:
        archive = opened(run_id)
    except BadArchive:
        return None
    if archive is None:
        return None
    try:
        content = make(archive, window)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        # An archive of elsewhere that is none inside: the rest of the page stands without it.
        log.exception("run %s: no digest of its archive", run_id)
        return None
    Archive.objects.filter(run=run_id).update(digest=content)
    return Digest(content)


def _rounded(table: Table) -> Table:
    """To six digits: twice as many as are shown."""
    return {
        key: [None if value is None else float(f"{value:.6g}") for value in values] for key, values in table.items()
    }


def _busiest(lines: list[dict[str, Any]], window: tuple[int, int] | None) -> float | None:
    """CPU seconds per second of the busiest worker."""
    opens, closes = window or (0, len(lines))
    if closes > len(lines) or closes <= opens:
        return None
    end = HostSecond.model_validate(lines[closes - 1]).worker_cpu_s
    begin = HostSecond.model_validate(lines[opens - 1]).worker_cpu_s if opens else (0.0,) * len(end)
    return max(((b - a) / (closes - opens) for a, b in zip(begin, end, strict=True)), default=None)
