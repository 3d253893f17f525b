"""Every Prometheus metric that wsnode exposes, declared once.

Names, kinds, units, labels, buckets and definitions live here and nowhere else: `wsnode.telemetry` derives the layout
of its shared table from this list, `wsnode.exposition` the text of /metrics, and rules, panels and queries are tested
against it. A new metric is one declaration here and the line that counts.

Names marked `seed` are those of the Node.js demo that wslab replaces. They are kept exactly, also where they break
Prometheus' naming rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Job = Literal["wsnode-server", "wsnode-agent"]
Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["worker", "process", "service"]

SERVER: Job = "wsnode-server"
AGENT: Job = "wsnode-agent"

NANO = 1_000_000_000

SERVER_ERROR_KINDS = (
    "handshake",  # request refused: no valid upgrade, unknown path or room, unsupported here
    "capacity",  # 503: connection limit or descriptors reached
    "draining",  # 503: the server is shutting down
    "protocol",  # frames or UTF-8 that break RFC 6455: closed with 1002 or 1007
    "too_big",  # message above the limit: closed with 1009
    "slow_consumer",  # subscriber with a full buffer: closed with 1013
    "timeout",  # no handshake, pong or close reply in time
    "abnormal",  # TCP connection lost without a close frame
    "internal",  # the server's own fault: closed with 1011
)
"""Values of `kind` on websocket_connection_errors_total."""

CLOSE_CODES = ("1000", "1001", "1002", "1003", "1005", "1006", "1007", "1009", "1011", "1013", "other")
"""Values of `code` on websocket_connections_closed_total: whoever closed first, 1006 where no close frame was seen."""

ROOM_DROP_REASONS = (
    "backlog",  # too many bytes wait for that worker already
    "unlinked",  # it serves, and its link to the publisher's worker is not there
)
"""Values of `reason` on websocket_room_messages_dropped_total."""

CLIENT_ERROR_KINDS = (
    "connect_refused",
    "connect_timeout",
    "connect_failed",
    "handshake_rejected",
    "handshake_failed",
    "certificate_refused",
    "closed_by_server",
    "reset",
    "protocol_error",
    "source_ports_exhausted",
    "descriptors_exhausted",
    "login_failed",
    "behaviour_failed",
)
"""Copy of `wsnode.core.protocol.ErrorKind` without its pydantic (tested equal)."""

UNSENT_REASONS = (
    "not_open",
    "connection_down",
    "max_in_flight",
    "write_blocked",
    "generator_late",
    "behaviour_failed",
    "client_kind",
)
"""Copy of `wsnode.core.protocol.UnsentReason` (tested equal)."""

PROCESSING_BUCKETS = (
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0,
)  # fmt: skip
LATENCY_BUCKETS = (
    100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5, 5.0,
)  # fmt: skip
LOOP_DELAY_BUCKETS = (500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5)
DURATION_BUCKETS = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)
SIZE_BUCKETS = (16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family.

    `source` says who knows the value: `worker` counts it in its slot of the shared table, `process` is read by the
    service from /proc when it is scraped, `service` is the parent's own.
    """

    name: str
    field: str
    """Attribute of `telemetry.Counters` (or key of `Exposition.set`), unique within a job."""
    kind: Kind
    unit: str
    definition: str
    """One sentence: what, over which window, from where. It is the HELP text."""
    jobs: tuple[Job, ...]
    label: str | None = None
    """Name of the label with the closed list `values`."""
    values: tuple[str, ...] = ()
    per_worker: bool = False
    """One series for each worker and no total: a sum would hide the one that matters."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, in `unit`, without +Inf."""
    scale: int = 1
    """Stored integers for each `unit`: 1_000_000_000 where seconds are counted in nanoseconds."""
    source: Source = "worker"
    info: tuple[str, ...] = ()
    """Free labels of a gauge that is 1 and only carries names."""
    seed: bool = False

    @property
    def bounds(self) -> tuple[int, ...]:
        """`buckets` in stored integers."""
        return tuple(round(bucket * self.scale) for bucket in self.buckets)


_SERVER = (SERVER,)
_AGENT = (AGENT,)
_BOTH = (SERVER, AGENT)

CATALOGUE: tuple[Metric, ...] = (
    # --- the server -------------------------------------------------------------------------------------------------
    Metric(
        "websocket_active_connections", "connections", "gauge", "connections",
        "WebSocket connections now open: handshake ended, TCP connection not yet gone.",
        _SERVER, per_worker=True, seed=True,
    ),
    Metric(
        "websocket_connections_opened_total", "connections_opened", "counter", "connections",
        "Opening handshakes answered with 101 since the service started.", _SERVER,
    ),
    Metric(
        "websocket_connections_closed_total", "connections_closed", "counter", "connections",
        "Open connections that ended since the service started, by the close code of whoever closed first"
        " (1006: none seen).",
        _SERVER, label="code", values=CLOSE_CODES,
    ),
    Metric(
        "websocket_connection_errors_total", "errors", "counter", "errors",
        "Connections refused, failed or broken since the service started, one count for each, by kind.",
        _SERVER, label="kind", values=SERVER_ERROR_KINDS, seed=True,
    ),
    Metric(
        "websocket_messages_received_total", "messages_received", "counter", "messages",
        "Whole text and binary messages received from clients since the service started.", _SERVER, seed=True,
    ),
    Metric(
        "websocket_messages_sent_total", "messages_sent", "counter", "messages",
        "Messages handed to connections since the service started: echoes, and one for each delivery of a broadcast.",
        _SERVER,
    ),
    Metric(
        "websocket_messages_broadcasted_total", "messages_broadcasted", "counter", "messages",
        "Messages published to a room since the service started, each once, however many subscribers it has.",
        _SERVER, seed=True,
    ),
    Metric(
        "websocket_room_messages_forwarded_total", "room_messages_forwarded", "counter", "messages",
        "Messages published at one worker and sent to another with subscribers of their room since the service started,"
        " one for each such worker.",
        _SERVER,
    ),
    Metric(
        "websocket_room_messages_dropped_total", "room_messages_dropped", "counter", "messages",
        "Messages published at one worker and not sent to another with subscribers of their room since the service"
        " started, one for each such worker, by reason.",
        _SERVER, label="reason", values=ROOM_DROP_REASONS,
    ),
    Metric(
        "websocket_message_processing_seconds", "message_processing", "histogram", "seconds",
        "Time from a whole message's arrival in the handler until its echo, or its last delivery to a room, was taken"
        " by the write buffer; every message, since the service started.",
        _SERVER, buckets=PROCESSING_BUCKETS, scale=NANO, seed=True,
    ),
    Metric(
        "websocket_bytes_received_total", "bytes_received", "counter", "bytes",
        "Payload bytes of the messages received since the service started.", _SERVER,
    ),
    Metric(
        "websocket_bytes_sent_total", "bytes_sent", "counter", "bytes",
        "Payload bytes of the messages sent since the service started.", _SERVER,
    ),
    Metric(
        "websocket_connections_limit", "connections_limit", "gauge", "connections",
        "Connections that the service accepts at once, over all workers, as configured and as descriptors allow.",
        _SERVER, source="service",
    ),
    Metric(
        "websocket_worker_restarts_total", "worker_restarts", "counter", "restarts",
        "Worker processes that ended unasked and were started again since the service started.",
        _SERVER, source="service",
    ),
    # --- the load generator -----------------------------------------------------------------------------------------
    Metric(
        "ws_simulator_connections", "connections", "gauge", "connections",
        "Client connections now open: handshake ended, connection not yet gone.", _AGENT, per_worker=True, seed=True,
    ),
    Metric(
        "ws_simulator_connections_attempted_total", "connections_attempted", "counter", "connections",
        "Connects begun since the service started, reconnects included.", _AGENT,
    ),
    Metric(
        "ws_simulator_connections_opened_total", "connections_opened", "counter", "connections",
        "Opening handshakes that succeeded since the service started.", _AGENT,
    ),
    Metric(
        "ws_simulator_connections_failed_total", "connections_failed", "counter", "connections",
        "Connects and handshakes that failed since the service started.", _AGENT,
    ),
    Metric(
        "ws_simulator_connections_closed_total", "connections_closed", "counter", "connections",
        "Open connections that ended since the service started, whoever closed them.", _AGENT,
    ),
    Metric(
        "ws_simulator_reconnect_attempts_total", "reconnects", "counter", "attempts",
        "Connects tried again after a failure or a break since the service started.", _AGENT, seed=True,
    ),
    Metric(
        "ws_simulator_errors_total", "errors", "counter", "errors",
        "Failed connects and broken connections since the service started, by kind.",
        _AGENT, label="kind", values=CLIENT_ERROR_KINDS, seed=True,
    ),
    Metric(
        "ws_simulator_messages_due_total", "messages_due", "counter", "messages",
        "Messages that the schedule reached since the service started, sent or not.", _AGENT,
    ),
    Metric(
        "ws_simulator_messages_sent_total", "messages_sent", "counter", "messages",
        "Messages handed to the kernel since the service started.", _AGENT, seed=True,
    ),
    Metric(
        "ws_simulator_messages_unsent_total", "messages_unsent", "counter", "messages",
        "Due messages that were not sent since the service started, by reason.",
        _AGENT, label="reason", values=UNSENT_REASONS,
    ),
    Metric(
        "ws_simulator_messages_received_total", "messages_received", "counter", "messages",
        "Replies received in time since the service started.", _AGENT, seed=True,
    ),
    Metric(
        "ws_simulator_messages_lost_total", "messages_lost", "counter", "messages",
        "Sent messages without a reply within the scenario's limit since the service started.", _AGENT,
    ),
    Metric(
        "ws_simulator_messages_unexpected_total", "messages_unexpected", "counter", "messages",
        "Messages received that match nothing outstanding since the service started.", _AGENT,
    ),
    Metric(
        "ws_simulator_bytes_sent_total", "bytes_sent", "counter", "bytes",
        "Payload bytes of the messages sent since the service started.", _AGENT, seed=True,
    ),
    Metric(
        "ws_simulator_bytes_received_total", "bytes_received", "counter", "bytes",
        "Payload bytes of the messages received since the service started.", _AGENT, seed=True,
    ),
    Metric(
        "ws_simulator_message_latency_seconds", "message_latency", "histogram", "seconds",
        "Response time (the schedule's turn to the reply) of answered messages since the service started; quantiles of"
        " it are approximate, the run's result has the exact ones.",
        _AGENT, buckets=LATENCY_BUCKETS, scale=NANO, seed=True,
    ),
    Metric(
        "ws_simulator_scheduler_lag_seconds", "scheduler_lag", "histogram", "seconds",
        "Time by which the generator's schedule reached a message later than it was due, since the service started.",
        _AGENT, buckets=LATENCY_BUCKETS, scale=NANO,
    ),
    Metric(
        "ws_simulator_handshake_seconds", "handshake", "histogram", "seconds",
        "Time from a connect's begin to the end of its successful opening handshake, since the service started.",
        _AGENT, buckets=LATENCY_BUCKETS, scale=NANO,
    ),
    Metric(
        "ws_simulator_connection_duration_seconds", "connection_duration", "histogram", "seconds",
        "Time from the end of the opening handshake to the end of the connection, of ended ones since the service"
        " started.",
        _AGENT, buckets=DURATION_BUCKETS, scale=NANO, seed=True,
    ),
    Metric(
        "ws_simulator_message_size_bytes", "message_size", "histogram", "bytes",
        "Payload sizes of the messages sent since the service started.", _AGENT, buckets=SIZE_BUCKETS, seed=True,
    ),
    Metric(
        "ws_simulator_source_ports_ratio", "source_ports", "gauge", "ratio",
        "Source ports taken of those that a connect may get, for the load's fullest pair of source and target address:"
        " connects begun, connections open, and this host's in TIME-WAIT to whatever address where the kernel does not"
        " give their ports to new connects; 0 without a load.",
        _AGENT, source="service",
    ),
    Metric(
        "ws_simulator_run_info", "run_info", "gauge", "info",
        "1 for the run whose load is prepared or running now; absent between runs.",
        _AGENT, source="service", info=("run_id",),
    ),
    # --- every worker process ---------------------------------------------------------------------------------------
    Metric(
        "node_memory_usage_bytes", "memory_usage", "gauge", "bytes",
        "Resident memory of all worker processes together, read from /proc at the scrape.",
        _BOTH, source="process", seed=True,
    ),
    Metric(
        "node_cpu_usage_percent", "cpu_usage", "gauge", "percent",
        "CPU time of the worker process over its last full second, 100 being one core.",
        _BOTH, per_worker=True, scale=1000, seed=True,
    ),
    Metric(
        "node_worker_cpu_seconds_total", "cpu_time", "counter", "seconds",
        "CPU time, user and system, of the worker processes that had this number since the service started.",
        _BOTH, per_worker=True, scale=NANO,
    ),
    Metric(
        "node_eventloop_lag_seconds", "eventloop_lag", "gauge", "seconds",
        "Largest delay of the worker's 10 ms heartbeat in its last full second, not reset by reading; while a worker is"
        " silent for over a second, the time since its last sign of life.",
        _BOTH, per_worker=True, scale=NANO, seed=True,
    ),
    Metric(
        "node_eventloop_delay_seconds", "eventloop_delay", "histogram", "seconds",
        "Delays of all heartbeats (10 ms) of all workers since the service started.",
        _BOTH, buckets=LOOP_DELAY_BUCKETS, scale=NANO,
    ),
    Metric(
        "node_eventloop_utilization_ratio", "eventloop_utilization", "gauge", "ratio",
        "CPU time of the event loop's thread over the worker's last full second, of that second.",
        _BOTH, per_worker=True, scale=1_000_000,
    ),
    Metric(
        "node_open_descriptors", "open_descriptors", "gauge", "descriptors",
        "Open file descriptors of the worker process, read from /proc at the scrape.",
        _BOTH, per_worker=True, source="process",
    ),
    Metric(
        "node_worker_cores", "worker_cores", "gauge", "cores",
        "CPU cores that the worker process may run on, read from the kernel at the scrape: 1 where it is pinned.",
        _BOTH, per_worker=True, source="process",
    ),
    Metric(
        "node_descriptor_limit", "descriptor_limit", "gauge", "descriptors",
        "Open-file limit in force in the worker process.", _BOTH, per_worker=True,
    ),
    Metric(
        "wsnode_build_info", "build_info", "gauge", "info",
        "1, with the versions of wsnode and Python that the service runs.",
        _BOTH, source="service", info=("version", "python"),
    ),
)  # fmt: skip


def for_job(job: Job) -> tuple[Metric, ...]:
    """The metrics that a job exposes, in the order of the catalogue."""
    return tuple(metric for metric in CATALOGUE if job in metric.jobs)


def by_name(name: str) -> Metric:
    """The metric of that name. Raises KeyError where the catalogue has none."""
    for metric in CATALOGUE:
        if metric.name == name:
            return metric
    raise KeyError(f"no metric named {name!r} in wsnode.core.metrics.CATALOGUE")
