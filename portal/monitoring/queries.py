"""Every PromQL expression of portal and dashboards is made here, and the figures of a run's evidence are listed.

An `Expression` is written in two ways that differ in hosts and time only: over a run's window, beside a figure of its
evidence, and over Grafana's variables, in a panel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Job = Literal["wsnode-server", "wsnode-agent", "node"]
Aggregation = Literal[
    "sum of rates", "largest rate", "largest", "largest sum", "largest mean", "largest last", "smallest", "quantile"
]

STEP_S = 1.0
"""Scrape interval of the lab's Prometheus (`prometheus/prometheus.yml`, tested equal)."""

_FORMS: dict[Aggregation, str] = {
    "sum of rates": "sum{by}(rate({series}))",
    "largest rate": "max{by}(rate({series}))",
    "largest": "max{by}(max_over_time({series}))",
    "largest sum": "max_over_time(sum{by}({plain})[{range}:{step}]{at})",
    "largest mean": "max{by}(avg_over_time({series}))",
    "largest last": "max{by}(last_over_time({series}))",
    "smallest": "min{by}(min_over_time({series}))",
    "quantile": "histogram_quantile({quantile:g}, sum by ({labels}) (rate({series})))",
}
"""Counters and histograms: rate before sum. What is summed over series of different times is a subquery."""

DRAWN_RANGE = "$__rate_interval"
"""Grafana's: at least four scrapes, and never less than the step between two points of a graph."""
DRAWN_HOSTS = 'host=~"$host"'
CHOSEN_WORKERS = 'worker=~"$worker"'
"""Matcher of panels that show each worker."""


@dataclass(frozen=True)
class Expression:
    """Which series, and what is made of their samples."""

    job: Job
    metric: str
    """For a quantile, the histogram's name without `_bucket`."""
    aggregation: Aggregation
    """How samples become one number. Counters: reset-corrected last − first over the time between those two samples."""
    matchers: str = ""
    """Further label matchers."""
    by: tuple[str, ...] = ()
    """A number for each value of these labels, instead of one over all."""
    over: str = ""
    """Metric of the same job and labels that the samples are divided by."""
    quantile: float = 0.99

    @property
    def series_name(self) -> str:
        """The metric as Prometheus stores it."""
        return f"{self.metric}_bucket" if self.aggregation == "quantile" else self.metric

    def selectors(self, hosts: Sequence[str]) -> list[str]:
        """The plain series, and those that they are divided by, where they are."""
        names = [self.series_name, *([self.over] if self.over else [])]
        return [selector(name, self.job, hosts, self.matchers) for name in names]

    def over_window(self, hosts: Sequence[str], span_s: float, at: float) -> str:
        """PromQL that gives the number over the `span_s` seconds before `at` (s since the epoch)."""
        span = f"{max(1, round(span_s * 1000))}ms" if span_s % 1 else f"{round(span_s)}s"
        return self._written(_hosts(hosts), span, f" @ {at:.3f}")

    def lately(self, hosts: Sequence[str], span_s: float) -> str:
        """PromQL that gives the number over the `span_s` seconds before the moment that it is asked for."""
        return self._written(_hosts(hosts), f"{span_s:g}s", "")

    def drawn(self) -> str:
        """The same over Grafana's variables: chosen hosts, and the time between two points of a graph."""
        return self._written(DRAWN_HOSTS, DRAWN_RANGE, "")

    def _written(self, hosts: str, span: str, at: str) -> str:
        plain = _selector(self.series_name, self.job, hosts, self.matchers)
        series = f"{plain}[{span}]{at}"
        if self.over:
            plain = f"{plain} / {_selector(self.over, self.job, hosts, self.matchers)}"
            series = f"({plain})[{span}:{STEP_S:g}s]{at}"
        return _FORMS[self.aggregation].format(
            series=series,
            plain=plain,
            range=span,
            step=f"{STEP_S:g}s",
            at=at,
            by=f" by ({', '.join(self.by)}) " if self.by else "",
            labels=", ".join(("le", *self.by)),
            quantile=self.quantile,
        )


@dataclass(frozen=True)
class Query:
    """One figure of a run's evidence, and where it is drawn."""

    name: str
    unit: str
    better: Literal["lower", "higher"] | None
    what: Expression
    dashboard: str
    """Uid of the Grafana dashboard (`panels.py`)."""
    panel: int
    """Id of its panel there."""
    role: Literal["load_generator"] | None = None
    """Which of the job's hosts; None: all. A server has an agent too."""
    of: Literal["machine", "network"] = "network"
    """What node_exporter counts of a host that shares its kernel with others: all that the kernel does, or what belongs
    to the host's network namespace."""

    @property
    def per_host(self) -> bool:
        """A row for each host of the job, instead of one over all."""
        return "host" in self.what.by


def selector(metric: str, job: Job, hosts: Sequence[str], matchers: str = "") -> str:
    """The series of a metric for a job's hosts; of all hosts where none is named."""
    return _selector(metric, job, _hosts(hosts), matchers)


def _selector(metric: str, job: Job, hosts: str, matchers: str) -> str:
    parts = (f'job="{job}"', hosts, matchers)
    return f"{metric}{{{','.join(part for part in parts if part)}}}"


def _hosts(hosts: Sequence[str]) -> str:
    if len(hosts) > 1:
        # Host names are checked by lab.json's schema; of what they may hold only the dot means something here.
        either = "|".join(re.sub(r"[.]", "[.]", host) for host in hosts)
        return f'host=~"{either}"'
    return f'host="{hosts[0]}"' if hosts else ""


SERVER_BOARD, SYSTEM_BOARD, LOAD_BOARD = "wslab-server", "wslab-system", "wslab-load"
LOOP_BOARD, RUN_BOARD = "wslab-eventloop", "wslab-run"
"""Uids of the dashboards. They are in stored links: never change one."""


def _server(
    name: str, unit: str, better: Literal["lower", "higher"] | None, metric: str, how: Aggregation, panel: int,
    board: str = SERVER_BOARD,
) -> Query:  # fmt: skip
    return Query(name, unit, better, Expression("wsnode-server", metric, how), board, panel)


def _generator(
    name: str, unit: str, better: Literal["lower", "higher"] | None, metric: str, how: Aggregation, panel: int
) -> Query:
    return Query(name, unit, better, Expression("wsnode-agent", metric, how), LOAD_BOARD, panel, "load_generator")


def _host(
    name: str, unit: str, better: Literal["lower", "higher"] | None, metric: str, how: Aggregation, panel: int, *,
    matchers: str = "", over: str = "", of: Literal["machine", "network"] = "network",
) -> Query:  # fmt: skip
    what = Expression("node", metric, how, matchers, ("host",), over)
    return Query(name, unit, better, what, SYSTEM_BOARD, panel, of=of)


QUERIES: tuple[Query, ...] = (
    _server("Server CPU", "cores", "lower", "node_worker_cpu_seconds_total", "sum of rates", 31),
    _server("Server memory, most", "bytes", "lower", "node_memory_usage_bytes", "largest", 32),
    _server("Server memory, at the end", "bytes", "lower", "node_memory_usage_bytes", "largest last", 32),
    _server("Server event-loop lag, largest", "s", "lower", "node_eventloop_lag_seconds", "largest", 11, LOOP_BOARD),
    _server("Server event-loop utilisation, busiest worker's mean", "ratio", "lower",
            "node_eventloop_utilization_ratio", "largest mean", 31, LOOP_BOARD),
    _server("Server connections, most", "connections", "higher", "websocket_active_connections", "largest sum", 11),
    _server("Server messages received", "1/s", "higher", "websocket_messages_received_total", "sum of rates", 21),
    _server("Server messages sent", "1/s", "higher", "websocket_messages_sent_total", "sum of rates", 21),
    _server("Server bytes received", "bytes/s", "higher", "websocket_bytes_received_total", "sum of rates", 22),
    _server("Server bytes sent", "bytes/s", "higher", "websocket_bytes_sent_total", "sum of rates", 22),
    _server("Server connection errors", "1/s", "lower", "websocket_connection_errors_total", "sum of rates", 13),
    _server("Server room messages dropped between workers", "1/s", "lower", "websocket_room_messages_dropped_total",
            "sum of rates", 24),
    _server("Server open descriptors, most in a worker", "descriptors", "lower", "node_open_descriptors", "largest",
            35),
    _server("Server processing time p99, approximate", "s", "lower", "websocket_message_processing_seconds",
            "quantile", 23),
    _generator("Generator CPU, busiest worker", "cores", "lower", "node_worker_cpu_seconds_total", "largest rate", 41),
    _generator("Generator scheduler lag p99, approximate", "s", "lower", "ws_simulator_scheduler_lag_seconds",
               "quantile", 42),
    _generator("Generator messages sent", "1/s", "higher", "ws_simulator_messages_sent_total", "sum of rates", 21),
    _generator("Generator open descriptors, most in a worker", "descriptors", "lower", "node_open_descriptors",
               "largest", 44),
    _host("Host CPU", "cores", "lower", "node_cpu_seconds_total", "sum of rates", 11,
          matchers='mode!~"idle|iowait|steal"', of="machine"),
    _host("Host CPU, stolen", "cores", "lower", "node_cpu_seconds_total", "sum of rates", 12, matchers='mode="steal"',
          of="machine"),
    _host("Host CPU pressure", "ratio", "lower", "node_pressure_cpu_waiting_seconds_total", "sum of rates", 13,
          of="machine"),
    _host("Host context switches", "1/s", "lower", "node_context_switches_total", "sum of rates", 15, of="machine"),
    _host("Host memory available, least", "bytes", "higher", "node_memory_MemAvailable_bytes", "smallest", 16,
          of="machine"),
    _host("Host sockets, most", "sockets", None, "node_sockstat_sockets_used", "largest", 41),
    _host("Host TCP sockets in use, most", "sockets", None, "node_sockstat_TCP_inuse", "largest", 41),
    _host("Host TIME-WAIT sockets, most", "sockets", "lower", "node_sockstat_TCP_tw", "largest", 41),
    _host("Host IP traffic in", "bytes/s", None, "node_netstat_IpExt_InOctets", "sum of rates", 42),
    _host("Host IP traffic out", "bytes/s", None, "node_netstat_IpExt_OutOctets", "sum of rates",
          42),
    _host("Host TCP segments retransmitted", "1/s", "lower", "node_netstat_Tcp_RetransSegs", "sum of rates", 44),
    _host("Host listen queue overflows", "1/s", "lower", "node_netstat_TcpExt_ListenOverflows", "sum of rates", 51),
    _host("Host listen drops", "1/s", "lower", "node_netstat_TcpExt_ListenDrops",
          "sum of rates", 51),
    _host("Host packets dropped on input", "1/s", "lower", "node_softnet_dropped_total",
          "sum of rates", 52, of="machine"),
    _host("Host conntrack table, fullest", "ratio", "lower", "node_nf_conntrack_entries", "largest", 53,
          over="node_nf_conntrack_entries_limit"),
)  # fmt: skip
"""The rows of a run's evidence, in their order."""

WATCHED: tuple[tuple[str, Job, Expression], ...] = (
    ("cpu:{host}", "node",
     Expression("node", "node_cpu_seconds_total", "sum of rates", 'mode!~"idle|iowait|steal"', ("host",))),
    ("worker:{host}", "wsnode-server",
     Expression("wsnode-server", "node_worker_cpu_seconds_total", "largest rate", "", ("host",))),
    ("worker:{host}", "wsnode-agent",
     Expression("wsnode-agent", "node_worker_cpu_seconds_total", "largest rate", "", ("host",))),
    ("loop_lag:{host}", "wsnode-server",
     Expression("wsnode-server", "node_eventloop_lag_seconds", "largest", "", ("host",))),
    ("loop_lag:{host}", "wsnode-agent",
     Expression("wsnode-agent", "node_eventloop_lag_seconds", "largest", "", ("host",))),
)  # fmt: skip
"""What the page of a run that goes on shows of hosts: name of each line, the job that tells it, and its expression."""
WATCHED_S = 4 * STEP_S
"""So many seconds a rate there is of: Prometheus needs two samples, and one may be late."""

UP = "up"
STARTED = "node_eventloop_delay_seconds_count"
"""Counts 100 times a second from a service's start on: what falls was started anew."""
RECEIVED = "websocket_messages_received_total"
OPENED = "websocket_connections_opened_total"

SCRAPED = f"timestamp({UP})"
"""When each target was last scraped (s since the epoch), whether or not it answered."""
KERNEL = selector("node_uname_info", "node", [])
"""Labels `release` and `machine` say it."""
_IDLE = selector("node_cpu_seconds_total", "node", [], 'mode="idle"')
CORES = f"count by (host) ({_IDLE})"
MEMORY = selector("node_memory_MemTotal_bytes", "node", [])

RUNS_DRAWN = f'max by (run_id) (ws_simulator_run_info{{job="wsnode-agent",{DRAWN_HOSTS}}})'
"""1 for as long as a run's load is prepared or running; for annotations."""
ALERTS_DRAWN = f'max by (alertname, host) (ALERTS{{alertstate="firing",{DRAWN_HOSTS}}})'
"""For annotations."""


def moment_drawn(variable: str) -> str:
    """The moment (ms since the epoch) that a link brings along as a variable; for annotations."""
    return f"vector(${{{variable}}})"


def values_of(label: str, series: str, job: Job | None = None) -> str:
    """Grafana's query of a variable: the values of a label."""
    of = f'{{job="{job}"}}' if job else ""
    return f"label_values({series}{of}, {label})"
