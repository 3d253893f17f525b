"""The figures of a run's evidence: every PromQL expression of the portal is made here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Job = Literal["wsnode-server", "wsnode-agent", "node"]
Aggregation = Literal["sum of rates", "largest rate", "largest", "largest sum", "smallest"]

STEP_S = 1.0
"""Scrape interval of the lab's Prometheus (`prometheus/prometheus.yml`, tested equal)."""

_EXPRESSIONS: dict[Aggregation, str] = {
    "sum of rates": "sum(rate({selector}[{range}]{at}))",
    "largest rate": "max(rate({selector}[{range}]{at}))",
    "largest": "max(max_over_time({selector}[{range}]{at}))",
    "largest sum": "max_over_time(sum({selector})[{range}:{step}]{at})",
    "smallest": "min(min_over_time({selector}[{range}]{at}))",
}


@dataclass(frozen=True)
class Query:
    """One figure: which series, what is made of their samples, and where it is drawn."""

    name: str
    unit: str
    better: Literal["lower", "higher"] | None
    job: Job
    metric: str
    aggregation: Aggregation
    """How samples become the figure. Counters: reset-corrected last − first over the time between those two samples."""
    matchers: str = ""
    """Further label matchers."""
    role: Literal["load_generator"] | None = None
    """Which of the job's hosts; None: all. A server has an agent too."""
    per_host: bool = False
    """A row for each host of the job, instead of one over all."""
    dashboard: str | None = None
    """Uid of the Grafana dashboard that shows it, once there is one."""
    panel: int | None = None

    def selector(self, hosts: Sequence[str]) -> str:
        """The plain series: job, hosts and further matchers."""
        return selector(self.metric, self.job, hosts, self.matchers)

    def expression(self, hosts: Sequence[str], span_s: float, at: float | None = None) -> str:
        """PromQL that gives the figure over `span_s` seconds before `at` (s since the epoch), or before now."""
        return _EXPRESSIONS[self.aggregation].format(
            selector=self.selector(hosts),
            range=f"{max(1, round(span_s * 1000))}ms" if span_s % 1 else f"{round(span_s)}s",
            step=f"{STEP_S:g}s",
            at="" if at is None else f" @ {at:.3f}",
        )


def selector(metric: str, job: Job, hosts: Sequence[str], matchers: str = "") -> str:
    """The series of a metric for a job's hosts; of all hosts where none is named."""
    if not hosts:
        where = ""
    elif len(hosts) == 1:
        where = f',host="{hosts[0]}"'
    else:
        # Host names are checked by lab.json's schema; of what they may hold only the dot means something here.
        where = f',host=~"{"|".join(re.sub(r"[.]", "[.]", host) for host in hosts)}"'
    return f'{metric}{{job="{job}"{where}{"," + matchers if matchers else ""}}}'


QUERIES: tuple[Query, ...] = (
    Query("Server CPU", "cores", "lower", "wsnode-server", "node_worker_cpu_seconds_total", "sum of rates"),
    Query("Server memory, most", "bytes", "lower", "wsnode-server", "node_memory_usage_bytes", "largest"),
    Query("Server event-loop lag, largest", "s", "lower", "wsnode-server", "node_eventloop_lag_seconds", "largest"),
    Query("Server connections, most", "connections", "higher", "wsnode-server", "websocket_active_connections",
          "largest sum"),
    Query("Generator CPU, busiest worker", "cores", "lower", "wsnode-agent", "node_worker_cpu_seconds_total",
          "largest rate", role="load_generator"),
    Query("Host CPU", "cores", "lower", "node", "node_cpu_seconds_total", "sum of rates",
          matchers='mode!~"idle|iowait|steal"', per_host=True),
    Query("Host memory available, least", "bytes", "higher", "node", "node_memory_MemAvailable_bytes", "smallest",
          per_host=True),
    Query("Host sockets, most", "sockets", None, "node", "node_sockstat_sockets_used", "largest", per_host=True),
)  # fmt: skip

UP = "up"
STARTED = "node_eventloop_delay_seconds_count"
"""Counts 100 times a second from a service's start on: what falls was started anew."""
RECEIVED = "websocket_messages_received_total"
OPENED = "websocket_connections_opened_total"
