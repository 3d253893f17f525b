"""Runs that go on, as their pages see them: each second is read and each host asked for once, however many watch.

What was read is kept in this process; a page of another process, or after a restart, reads it again from the begin.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

from django.db.models import F, Q

from portal.labs.lab import Lab
from portal.monitoring.now import watched
from portal.monitoring.prometheus import Prometheus, PrometheusError
from portal.runs import series
from portal.runs.jobs import targets_of
from portal.runs.models import Run, RunSecond
from portal.runs.series import Table
from wsnode.core.protocol import Second

MOST_RUNS = 8
HOSTS_PAUSE_S = 1.0
"""Prometheus has nothing new more often."""
TROUBLE_PAUSE_S = 5.0
"""After it did not answer."""
TIMEOUT_S = 1.0


class HostNow(NamedTuple):
    """What a host does; None: not seen."""

    name: str
    role: str
    cores: float | None
    """In use, by anything."""
    busiest_worker: float | None
    """CPU seconds per second of wsnode's busiest process there."""
    loop_lag_s: float | None


class Drawn(NamedTuple):
    """The parts of a page that change each second, as HTML."""

    now: str
    log: str


class Watching:
    """One run that goes on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._prometheus: Prometheus | None = None
        self._ask_again = 0.0
        self._drawn: dict[bool, tuple[object, Drawn]] = {}
        self.table: Table = series.tabulate([])
        """What clients saw, settled second by settled second."""
        self.hosts: Table = {"second": []}
        """What hosts did; its seconds are those in which Prometheus looked."""
        self.fault = ""
        """Why hosts are not seen."""
        self.lines: tuple[Second | None, Second | None] = (None, None)
        """The last two settled seconds, the older first."""

    def read_seconds(self, run: Run) -> None:
        """Take in what was settled since the last time. Of a long stretch, where one watches first when the run is old,
        every n-th second is enough to cut it exactly."""
        with self._lock:
            last = self.lines[1]
            known = last.second if last else 0
            if run.last_second <= known:
                return
            step = max(1, -(-(run.last_second - known) // series.MOST_POINTS))
            rows = RunSecond.objects.filter(run=run, second__gt=known).order_by("second")
            if step > 1:
                rows = rows.alias(rest=F("second") % step).filter(Q(rest=0))
            points = []
            for row in rows:
                line = row.content
                points.append(series.of_line(line, last))
                self.lines = last, line
                last = line
            series.extend(self.table, series.tabulate(points))

    def ask_hosts(self, run: Run, lab: Lab | None) -> None:
        """Take in what Prometheus has got since the last time; at most once a second, and by one thread."""
        if run.start_at_ns is None or not self._asking.acquire(blocking=False):
            return
        try:
            now = time.time()
            if now < self._ask_again:
                return
            self._ask_again = now + HOSTS_PAUSE_S
            if lab is None or lab.prometheus_url is None:
                self.fault = "the lab has no Prometheus"
                return
            begun = run.start_at_ns / 1e9
            last = self.hosts["second"][-1] if self.hosts["second"] else None
            try:
                if self._prometheus is None:
                    self._prometheus = Prometheus(lab.prometheus_url, timeout_s=TIMEOUT_S)
                found = watched(self._prometheus, targets_of(run, lab), begun + (last or 0.0), now)
            except PrometheusError as error:
                self.fault, self._ask_again = str(error), now + TROUBLE_PAUSE_S
                return
            self.fault = ""
            times = sorted({at for values in found.values() for at in values})
            more: Table = {"second": [math.ceil(at - begun) for at in times]}
            more |= {key: [values.get(at) for at in times] for key, values in found.items()}
            with self._lock:
                _append(self.hosts, more)
        finally:
            self._asking.release()

    def hosts_now(self, run: Run) -> list[HostNow]:
        """What each host did in the last second that Prometheus knows of; the server first."""
        names = [key.partition(":")[2] for key in self.hosts if ":" in key]
        order = [*dict.fromkeys(name for name in names if name not in run.generators), *run.generators]
        return [
            HostNow(
                host,
                "load generator" if host in run.generators else "server",
                _last(self.hosts, f"cpu:{host}"),
                _last(self.hosts, f"worker:{host}"),
                _last(self.hosts, f"loop_lag:{host}"),
            )
            for host in order
        ]

    def drawn(self, operator: bool, key: object) -> Drawn | None:
        """What was shown to somebody of the same rights for the same key, by whoever came first."""
        kept = self._drawn.get(operator)
        return kept[1] if kept is not None and kept[0] == key else None

    def keep(self, operator: bool, key: object, drawn: Drawn) -> Drawn:
        """Show it to the others, too."""
        self._drawn[operator] = key, drawn
        return drawn


def _append(table: Table, more: Table) -> None:
    """Append rows in place; what one of them does not know is missing there."""
    before, after = len(table["second"]), len(more["second"])
    for key in more.keys() - table.keys():
        table[key] = [None] * before
    for key, column in table.items():
        column.extend(more.get(key, [None] * after))


_runs: OrderedDict[str, Watching] = OrderedDict()
_lock = threading.Lock()


def watching(run_id: str) -> Watching:
    """That of a run, kept while it is among the last few that somebody watched."""
    with _lock:
        found = _runs.setdefault(run_id, Watching())
        _runs.move_to_end(run_id)
        while len(_runs) > MOST_RUNS:
            _runs.popitem(last=False)
        return found


def forget(run_id: str) -> None:
    """Read a run again from its begin when it is next watched."""
    with _lock:
        _runs.pop(run_id, None)


def _last(table: Table, key: str) -> float | None:
    """The newest value that is there, of the last few."""
    return next((value for value in reversed(table.get(key, [])[-3:]) if value is not None), None)
