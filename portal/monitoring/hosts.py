"""The lab's hosts as Prometheus sees them now: who answers its scrapes, and on what kernel and hardware."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from portal.monitoring import queries
from portal.monitoring.evidence import NO_PROMETHEUS
from portal.monitoring.prometheus import Prometheus, PrometheusError

TIMEOUT_S = 2.0
"""A page waits for it."""


class Scrape(NamedTuple):
    """The last scrape of a target: whether it answered, and how long ago (s) that was."""

    up: bool
    age_s: float


class Machine(NamedTuple):
    """What node_exporter says of a host; None where it does not."""

    kernel: str | None = None
    architecture: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None


@dataclass
class Sight:
    """What Prometheus had to say."""

    scrapes: dict[tuple[str, str], Scrape] = field(default_factory=dict)
    """By host and job; who is not there is not scraped."""
    machines: dict[str, Machine] = field(default_factory=dict)
    """By host."""
    fault: str | None = None
    """Why it could not be asked."""


def look(prometheus_url: str | None, *, clock: Callable[[], float] = time.time) -> Sight:
    """Ask Prometheus about all hosts. One that is absent or out of order is a fault in the answer."""
    if prometheus_url is None:
        return Sight(fault=NO_PROMETHEUS)
    try:
        with Prometheus(prometheus_url, timeout_s=TIMEOUT_S) as prometheus:
            now = clock()
            at = {_target(labels): moment for labels, moment in prometheus.values(queries.SCRAPED, now)}
            up = {_target(labels): value == 1 for labels, value in prometheus.values(queries.UP, now)}
            kernels = {labels.get("host", ""): labels for labels, _ in prometheus.values(queries.KERNEL, now)}
            cores = _by_host(prometheus, queries.CORES, now)
            memory = _by_host(prometheus, queries.MEMORY, now)
    except PrometheusError as error:
        return Sight(fault=str(error))
    scrapes = {target: Scrape(up[target], max(0.0, now - moment)) for target, moment in at.items() if target in up}
    machines = {
        host: Machine(
            kernels.get(host, {}).get("release"),
            kernels.get(host, {}).get("machine"),
            cores.get(host),
            memory.get(host),
        )
        for host in kernels.keys() | cores.keys() | memory.keys()
    }
    return Sight(scrapes, machines)


def _target(labels: dict[str, str]) -> tuple[str, str]:
    return labels.get("host", ""), labels.get("job", "")


def _by_host(prometheus: Prometheus, expression: str, now: float) -> dict[str, int]:
    return {labels.get("host", ""): round(value) for labels, value in prometheus.values(expression, now)}
