"""A service's /metrics: the slots of its shared table, added up at each scrape."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from socketserver import ThreadingTCPServer

import psutil
from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from wsnode import __version__
from wsnode.core.metrics import Job, Metric, for_job
from wsnode.telemetry import SECOND_NS, SharedTable, SlotReading


class Exposition(Collector):
    """Every metric of a job, all closed label values from the start.

    `workers` is the number of `worker` series shown before any worker has started; more appear with the slots in use
    and stay, their gauges at 0. `start` serves it over HTTP on threads of its own.
    """

    def __init__(self, job: Job, table: SharedTable, workers: int) -> None:
        self._metrics = for_job(job)
        self._table = table
        self._workers = workers
        self._values = {m.field: 0.0 for m in self._metrics if m.source == "service" and not m.info}
        self._read_at_scrape: dict[str, Callable[[], float]] = {}
        self._infos: dict[str, dict[str, str] | None] = {m.field: None for m in self._metrics if m.info}
        self._server: _MetricsServer | None = None
        self.info("build_info", {"version": __version__, "python": platform.python_version()})

    def set(self, field: str, value: float) -> None:
        """Set a metric of the service itself. Raises KeyError where the catalogue has none of that field."""
        self._values[self._known(field, self._values)] = value

    def add(self, field: str, amount: float = 1) -> None:
        """Count on a metric of the service itself. Raises KeyError where the catalogue has none of that field."""
        self._values[self._known(field, self._values)] += amount

    def watch(self, field: str, read: Callable[[], float] | None) -> None:
        """Show at each scrape what `read`, called in the scrape's thread, gives; with None what was set last.

        Raises KeyError where the catalogue has no metric of the service itself of that field.
        """
        self._known(field, self._values)
        if read is None:
            self._read_at_scrape.pop(field, None)
        else:
            self._read_at_scrape[field] = read

    def info(self, field: str, labels: dict[str, str] | None) -> None:
        """Set the labels of an info metric; None takes its series away."""
        self._infos[self._known(field, self._infos)] = labels

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Serve /metrics until `close`. Port 0 takes a free one.

        Returns the address bound. Raises OSError where it is taken or not this machine's.
        """
        registry = CollectorRegistry()
        registry.register(self)
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        server_type = type("_MetricsServer", (_MetricsServer,), {"address_family": family})
        self._server = server_type((host, port), type("_Handler", (_Handler,), {"registry": registry}))
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        bound_host, bound_port = self._server.server_address[:2]
        return str(bound_host), int(bound_port)

    def close(self) -> None:
        """Stop serving. Without effect where nothing is served."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def collect(self) -> Iterator[Family]:
        """Called by prometheus-client at each scrape."""
        readings = list(self._table.read())
        totals = [sum(cells) for cells in zip(*(r.cells for r in readings), strict=True)]
        if not totals:
            totals = [0] * self._table.layout.size
        for metric in self._metrics:
            if metric.kind == "histogram":
                yield self._histogram(metric, totals)
            elif metric.info:
                yield self._info(metric)
            elif metric.per_worker:
                yield self._by_worker(metric, readings)
            elif metric.source == "process":
                yield _family(metric, [], [([], float(sum(_MEASURES[metric.field](r.pid) for r in readings)))])
            elif metric.source == "service":
                read = self._read_at_scrape.get(metric.field)
                yield _family(metric, [], [([], read() if read else self._values[metric.field])])
            else:
                cells = totals[self._table.layout.cells[metric.field]]
                values: list[list[str]] = [[value] for value in metric.values] or [[]]
                rows = [(value, cell / metric.scale) for value, cell in zip(values, cells, strict=True)]
                yield _family(metric, [metric.label] if metric.label else [], rows)

    def _histogram(self, metric: Metric, totals: list[int]) -> Family:
        *counts, total = totals[self._table.layout.cells[metric.field]]
        bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
        family = HistogramMetricFamily(metric.name, metric.definition)
        family.add_metric([], list(zip(bounds, accumulate(counts), strict=True)), total / metric.scale)
        return family

    def _info(self, metric: Metric) -> Family:
        labels = self._infos[metric.field]
        rows = [] if labels is None else [([labels[name] for name in metric.info], 1.0)]
        return _family(metric, list(metric.info), rows)

    def _by_worker(self, metric: Metric, readings: list[SlotReading]) -> Family:
        by_slot = {reading.slot: self._value(metric, reading) for reading in readings}
        slots = range(max(self._workers, len(readings)))
        return _family(metric, ["worker"], [([str(slot)], by_slot.get(slot, 0.0)) for slot in slots])

    def _value(self, metric: Metric, reading: SlotReading) -> float:
        if metric.source == "process":
            return float(_MEASURES[metric.field](reading.pid))
        cell = reading.cells[self._table.layout.cells[metric.field]][0]
        if metric.field == "eventloop_lag" and reading.flushed_at_ns:
            silence = time.monotonic_ns() - reading.flushed_at_ns
            cell = max(cell, silence if silence > SECOND_NS else 0)
        return cell / metric.scale

    @staticmethod
    def _known(field: str, fields: Mapping[str, object]) -> str:
        if field not in fields:
            raise KeyError(f"{field!r} is none of the service's own metrics: {', '.join(fields)}")
        return field


def _family(metric: Metric, labels: list[str], rows: list[tuple[list[str], float]]) -> Family:
    family_type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = family_type(metric.name, metric.definition, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


class _Handler(MetricsHandler):
    """prometheus-client's own handler, which negotiates the format; any path is answered."""


class _MetricsServer(ThreadingTCPServer):
    """Not http.server's, which looks up the host's name in DNS when it binds."""

    allow_reuse_address = True
    daemon_threads = True


def _resident_bytes(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss if pid else 0
    except psutil.Error:  # it ended a moment ago
        return 0


def _open_descriptors(pid: int) -> int:
    path = f"/proc/{pid}/fd"
    try:
        # Linux 6.2 and later give the number as the directory's size; listing 20,000 takes milliseconds
        return (os.stat(path).st_size or len(os.listdir(path))) if pid else 0
    except OSError:
        return 0


def _cores(pid: int) -> int:
    try:
        return len(os.sched_getaffinity(pid)) if pid else 0
    except OSError:
        return 0


_MEASURES: dict[str, Callable[[int], int]] = {
    "memory_usage": _resident_bytes,
    "open_descriptors": _open_descriptors,
    "worker_cores": _cores,
}
