"""The five dashboards: which panels, with which lines and limits."""

from __future__ import annotations

from portal.monitoring.panels import Board, Colour, Line, Panel, Section
from portal.monitoring.queries import (
    CHOSEN_WORKERS,
    LOAD_BOARD,
    LOOP_BOARD,
    QUERIES,
    RUN_BOARD,
    SERVER_BOARD,
    SYSTEM_BOARD,
    Aggregation,
    Expression,
    Job,
)
from wsnode.core.judge import (
    LAG_INVALID_NS,
    LAG_SUSPECT_NS,
    MS,
    WORKER_CPU_INVALID,
    WORKER_CPU_SUSPECT,
)
from wsnode.core.metrics import AGENT, NANO, SERVER

LAG_LIMITS: tuple[tuple[float, Colour], ...] = ((100 * MS / NANO, "red"),)
"""The demo before this one names one limit only: event-loop lag under 100 ms is good."""
WORKER_CPU_LIMITS: tuple[tuple[float, Colour], ...] = ((WORKER_CPU_SUSPECT, "yellow"), (WORKER_CPU_INVALID, "red"))
SCHEDULER_LIMITS: tuple[tuple[float, Colour], ...] = (
    (LAG_SUSPECT_NS / NANO, "yellow"),
    (LAG_INVALID_NS / NANO, "red"),
)
FULL: tuple[tuple[float, Colour], ...] = ((0.8, "yellow"), (0.95, "red"))
ANY: tuple[tuple[float, Colour], ...] = ((0.001, "red"),)

_EVIDENCE = {query.name: query for query in QUERIES}


def _evidence(name: str, legend: str | None = None) -> Line:
    """A figure of a run's evidence, drawn."""
    query = _EVIDENCE[name]
    return Line(query.what, legend or ("{{host}}" if query.per_host else name))


def _line(job: Job, metric: str, how: Aggregation, legend: str, *by: str, matchers: str = "", over: str = "") -> Line:
    return Line(Expression(job, metric, how, matchers, by, over), legend)


def _rate(job: Job, metric: str, legend: str, *by: str, matchers: str = "") -> Line:
    return _line(job, metric, "sum of rates", legend, *by, matchers=matchers)


def _workers(job: Job, metric: str, how: Aggregation = "largest", over: str = "") -> Line:
    return _line(job, metric, how, "{{host}} {{worker}}", "host", "worker", matchers=CHOSEN_WORKERS, over=over)


def _quantiles(job: Job, metric: str, *by: str) -> tuple[Line, ...]:
    who = "".join(f"{{{{{label}}}}} " for label in by)
    return tuple(
        Line(Expression(job, metric, "quantile", by=by, quantile=quantile), f"{who}p{quantile * 100:g}, approximate")
        for quantile in (0.5, 0.9, 0.99)
    )


BOARDS: tuple[Board, ...] = (
    Board(SERVER_BOARD, "WebSocket server", "What the measured server does: connections, messages, its processes.",
          SERVER, (
        Section(10, "Connections", (
            Panel(11, "Active connections", "connections", (
                _evidence("Server connections, most", "all"),
                _workers(SERVER, "websocket_active_connections"),
                _line(SERVER, "websocket_connections_limit", "largest", "limit"),
            )),
            Panel(12, "Connections opened and closed", "1/s", (
                _rate(SERVER, "websocket_connections_opened_total", "opened"),
                _rate(SERVER, "websocket_connections_closed_total", "closed with {{code}}", "code"),
            )),
            Panel(13, "Connection errors", "1/s", (
                _evidence("Server connection errors", "all"),
                _rate(SERVER, "websocket_connection_errors_total", "{{kind}}", "kind"),
            ), limits=ANY),
            Panel(14, "Workers started anew", "1/s", (
                _rate(SERVER, "websocket_worker_restarts_total", "{{host}}", "host"),
            ), limits=ANY),
        )),
        Section(20, "Messages", (
            Panel(21, "Messages", "1/s", (
                _evidence("Server messages received", "received"),
                _evidence("Server messages sent", "sent"),
                _rate(SERVER, "websocket_messages_broadcasted_total", "published to rooms"),
            )),
            Panel(22, "Payload bytes", "bytes/s", (
                _evidence("Server bytes received", "received"),
                _evidence("Server bytes sent", "sent"),
            )),
            Panel(23, "Processing time", "s", _quantiles(SERVER, "websocket_message_processing_seconds")),
            Panel(24, "Rooms between workers", "1/s", (
                _rate(SERVER, "websocket_room_messages_forwarded_total", "sent to another worker"),
                _evidence("Server room messages dropped between workers", "dropped"),
                _rate(SERVER, "websocket_room_messages_dropped_total", "dropped: {{reason}}", "reason"),
            ), note="What is dropped misses all subscribers of a worker, and is a figure of the server."),
        )),
        Section(30, "Processes", (
            Panel(31, "CPU", "cores", (
                _evidence("Server CPU", "all workers"),
                _workers(SERVER, "node_worker_cpu_seconds_total", "largest rate"),
            )),
            Panel(32, "Memory", "bytes", (
                _evidence("Server memory, most", "most"),
                _evidence("Server memory, at the end", "last"),
            )),
            Panel(33, "Event-loop lag", "s", (
                _evidence("Server event-loop lag, largest", "largest"),
            ), limits=LAG_LIMITS, note="Under 100 ms is good."),
            Panel(34, "Version", "", (
                _line(SERVER, "wsnode_build_info", "largest", "{{host}}: wsnode {{version}}, Python {{python}}",
                      "host", "version", "python"),
            ), names=True),
            Panel(35, "Open descriptors", "descriptors", (
                _evidence("Server open descriptors, most in a worker", "most in a worker"),
                _workers(SERVER, "node_open_descriptors"),
                _line(SERVER, "node_descriptor_limit", "smallest", "smallest limit"),
            )),
            Panel(36, "Cores that a worker may run on", "cores", (
                _workers(SERVER, "node_worker_cores"),
            ), note="1 where workers are pinned."),
        )),
    )),
    Board(SYSTEM_BOARD, "System", "What the hosts do: CPU, memory, event loops, descriptors, network, drops.", None, (
        Section(10, "CPU and memory", (
            Panel(11, "CPU busy", "cores", (
                _evidence("Host CPU", "{{host}}"),
            )),
            Panel(12, "CPU by what it does", "cores", (
                _evidence("Host CPU, stolen", "{{host}} stolen by the hypervisor"),
                _rate("node", "node_cpu_seconds_total", "{{host}} {{mode}}", "host", "mode", matchers='mode!="idle"'),
            )),
            Panel(13, "CPU pressure", "ratio", (_evidence("Host CPU pressure"),)),
            Panel(14, "Load", "processes", (_line("node", "node_load1", "largest", "{{host}}", "host"),)),
            Panel(15, "Context switches", "1/s", (_evidence("Host context switches"),)),
            Panel(16, "Memory", "bytes", (
                _evidence("Host memory available, least", "{{host}} available, least"),
                _line("node", "node_memory_MemTotal_bytes", "largest", "{{host}} of", "host"),
            )),
        )),
        Section(20, "Event loops of wsnode", (
            Panel(21, "Event-loop lag", "s", (
                _workers(SERVER, "node_eventloop_lag_seconds"),
                _workers(AGENT, "node_eventloop_lag_seconds"),
            ), limits=LAG_LIMITS, note="Under 100 ms is good."),
            Panel(22, "Event-loop utilisation", "ratio", (
                _workers(SERVER, "node_eventloop_utilization_ratio"),
                _workers(AGENT, "node_eventloop_utilization_ratio"),
            ), limits=FULL),
        )),
        Section(30, "Descriptors and disk", (
            Panel(31, "Descriptors of the kernel, of its limit", "ratio", (
                _line("node", "node_filefd_allocated", "largest", "{{host}}", "host", over="node_filefd_maximum"),
            ), limits=FULL),
            Panel(32, "Descriptors of wsnode's workers, of their limit", "ratio", (
                _workers(SERVER, "node_open_descriptors", over="node_descriptor_limit"),
                _workers(AGENT, "node_open_descriptors", over="node_descriptor_limit"),
            ), limits=FULL),
            Panel(33, "Disk space left", "ratio", (
                _line("node", "node_filesystem_avail_bytes", "smallest", "{{host}} {{mountpoint}}",
                      "host", "mountpoint", matchers='fstype!~"erofs|iso9660|ramfs|squashfs|tmpfs"',
                      over="node_filesystem_size_bytes"),
            ), width=24),
        )),
        Section(40, "Network", (
            Panel(41, "Sockets", "sockets", (
                _evidence("Host sockets, most", "{{host}} all"),
                _evidence("Host TCP sockets in use, most", "{{host}} TCP in use"),
                _evidence("Host TIME-WAIT sockets, most", "{{host}} TCP in TIME-WAIT"),
            )),
            Panel(42, "IP traffic", "bytes/s", (
                _evidence("Host IP traffic in", "{{host}} in"),
                _evidence("Host IP traffic out", "{{host}} out"),
            ), note="Counts each packet once, whatever bridges and bonds it passes. On one machine all load is here."),
            Panel(43, "Traffic by network device", "bytes/s", (
                _rate("node", "node_network_receive_bytes_total", "{{host}} {{device}} in", "host", "device"),
                _rate("node", "node_network_transmit_bytes_total", "{{host}} {{device}} out", "host", "device"),
            ), note="Without loopback."),
            Panel(44, "TCP segments retransmitted", "1/s", (_evidence("Host TCP segments retransmitted"),)),
            Panel(45, "TCP connections begun and accepted", "1/s", (
                _rate("node", "node_netstat_Tcp_ActiveOpens", "{{host}} begun", "host"),
                _rate("node", "node_netstat_Tcp_PassiveOpens", "{{host}} accepted", "host"),
            )),
            Panel(46, "Memory of TCP buffers", "bytes", (
                _line("node", "node_sockstat_TCP_mem_bytes", "largest", "{{host}}", "host"),
            )),
        )),
        Section(50, "Drops and limits", (
            Panel(51, "Connections dropped while listening", "1/s", (
                _evidence("Host listen queue overflows", "{{host}} accept queue full"),
                _evidence("Host listen drops", "{{host}} all drops"),
            ), limits=ANY),
            Panel(52, "Packets dropped", "1/s", (
                _evidence("Host packets dropped on input", "{{host}} input queue full"),
                _rate("node", "node_network_receive_drop_total", "{{host}} {{device}} in", "host", "device"),
                _rate("node", "node_network_transmit_drop_total", "{{host}} {{device}} out", "host", "device"),
                _rate("node", "node_softnet_times_squeezed_total", "{{host}} budget used up", "host"),
            )),
            Panel(53, "Connection tracking, of its table", "ratio", (
                _evidence("Host conntrack table, fullest"),
            ), limits=FULL, note="Empty where the kernel module is not loaded."),
            Panel(54, "Clock", "s", (
                _line("node", "node_timex_offset_seconds", "largest", "{{host}} offset", "host"),
                _line("node", "node_timex_maxerror_seconds", "largest", "{{host}} largest error", "host"),
            ), signed=True),
        )),
    )),
    Board(LOAD_BOARD, "Load generators", "What the clients do, and whether their hosts keep up.", AGENT, (
        Section(10, "Connections", (
            Panel(11, "Open connections", "connections", (
                _line(AGENT, "ws_simulator_connections", "largest sum", "all"),
                _line(AGENT, "ws_simulator_connections", "largest sum", "{{host}}", "host"),
            )),
            Panel(12, "Connects", "1/s", (
                _rate(AGENT, "ws_simulator_connections_attempted_total", "begun"),
                _rate(AGENT, "ws_simulator_connections_opened_total", "opened"),
                _rate(AGENT, "ws_simulator_connections_failed_total", "failed"),
                _rate(AGENT, "ws_simulator_connections_closed_total", "ended"),
                _rate(AGENT, "ws_simulator_reconnect_attempts_total", "tried again"),
            )),
            Panel(13, "Errors", "1/s", (_rate(AGENT, "ws_simulator_errors_total", "{{kind}}", "kind"),), limits=ANY),
            Panel(14, "Opening handshake", "s", _quantiles(AGENT, "ws_simulator_handshake_seconds")),
            Panel(15, "Age of connections that ended", "s",
                  _quantiles(AGENT, "ws_simulator_connection_duration_seconds"), width=24),
        )),
        Section(20, "Messages", (
            Panel(21, "Messages", "1/s", (
                _evidence("Generator messages sent", "sent"),
                _rate(AGENT, "ws_simulator_messages_due_total", "due"),
                _rate(AGENT, "ws_simulator_messages_received_total", "answered"),
            ), note="Sent is below due where messages cannot be sent, answered below sent where replies are lost."),
            Panel(22, "Messages not sent", "1/s", (
                _rate(AGENT, "ws_simulator_messages_unsent_total", "{{reason}}", "reason"),
            ), limits=ANY, note="generator_late is the generator's own fault, all else the server's or the network's."),
            Panel(23, "Replies lost and unexpected", "1/s", (
                _rate(AGENT, "ws_simulator_messages_lost_total", "lost"),
                _rate(AGENT, "ws_simulator_messages_unexpected_total", "unexpected"),
            ), limits=ANY),
            Panel(24, "Payload bytes", "bytes/s", (
                _rate(AGENT, "ws_simulator_bytes_sent_total", "sent"),
                _rate(AGENT, "ws_simulator_bytes_received_total", "received"),
            )),
            Panel(25, "Size of messages sent", "bytes", _quantiles(AGENT, "ws_simulator_message_size_bytes"),
                  width=24),
        )),
        Section(30, "Latency", (
            Panel(31, "Response time", "s", _quantiles(AGENT, "ws_simulator_message_latency_seconds"), width=24,
                  note="Of answered messages only: look at what was not answered beside it."),
        )),
        Section(40, "Saturation of the generators", (
            Panel(41, "CPU of the workers", "cores", (
                _evidence("Generator CPU, busiest worker", "busiest"),
                _workers(AGENT, "node_worker_cpu_seconds_total", "largest rate"),
            ), limits=WORKER_CPU_LIMITS, note="A run is suspect above 0.8 cores in a worker, invalid above 0.95."),
            Panel(42, "Scheduler lag", "s", (
                *_quantiles(AGENT, "ws_simulator_scheduler_lag_seconds"),
            ), limits=SCHEDULER_LIMITS, note="A run is suspect above 5 ms at p99, invalid above 50 ms."),
            Panel(43, "Event-loop lag", "s", (_workers(AGENT, "node_eventloop_lag_seconds"),), limits=LAG_LIMITS),
            Panel(44, "Open descriptors", "descriptors", (
                _evidence("Generator open descriptors, most in a worker", "most in a worker"),
                _workers(AGENT, "node_open_descriptors"),
                _line(AGENT, "node_descriptor_limit", "smallest", "smallest limit"),
            )),
            Panel(45, "Memory", "bytes", (_line(AGENT, "node_memory_usage_bytes", "largest", "{{host}}", "host"),)),
            Panel(46, "Runs", "runs", (
                _line(AGENT, "ws_simulator_run_info", "largest", "{{run_id}} on {{host}}", "host", "run_id"),
            )),
            Panel(47, "Source ports taken", "ratio", (
                _line(AGENT, "ws_simulator_source_ports_ratio", "largest", "{{host}}", "host"),
            ), limits=FULL, width=24),
        )),
    )),
    Board(LOOP_BOARD, "Event loop", "Blocking and processing limits: how late and how busy each loop is.", None, (
        Section(10, "Lag", (
            Panel(11, "Server", "s", (
                _evidence("Server event-loop lag, largest", "largest"),
                _workers(SERVER, "node_eventloop_lag_seconds"),
            ), limits=LAG_LIMITS, note="Under 100 ms is good. More means that something blocks the loop."),
            Panel(12, "Load generators", "s", (
                _workers(AGENT, "node_eventloop_lag_seconds"),
            ), limits=LAG_LIMITS),
        )),
        Section(20, "Delays of all heartbeats", (
            Panel(21, "Server", "s", _quantiles(SERVER, "node_eventloop_delay_seconds", "host"), limits=LAG_LIMITS),
            Panel(22, "Load generators", "s", _quantiles(AGENT, "node_eventloop_delay_seconds", "host"),
                  limits=LAG_LIMITS),
        )),
        Section(30, "Utilisation", (
            Panel(31, "Server", "ratio", (
                _evidence("Server event-loop utilisation, busiest worker's mean", "busiest"),
                _workers(SERVER, "node_eventloop_utilization_ratio"),
            ), limits=FULL),
            Panel(32, "Load generators", "ratio", (
                _workers(AGENT, "node_eventloop_utilization_ratio"),
            ), limits=FULL),
            Panel(33, "CPU of the server's workers", "percent", (_workers(SERVER, "node_cpu_usage_percent"),)),
            Panel(34, "CPU of the load generators' workers", "percent", (_workers(AGENT, "node_cpu_usage_percent"),)),
        )),
    )),
    Board(RUN_BOARD, "Run", "One run from begin to end: clients, server and hosts over the same time.", None, (
        Section(10, "Clients", (
            Panel(11, "Connections", "connections", (
                _line(AGENT, "ws_simulator_connections", "largest sum", "open at the clients"),
                _evidence("Server connections, most", "open at the server"),
            )),
            Panel(12, "Messages", "1/s", (
                _rate(AGENT, "ws_simulator_messages_due_total", "due"),
                _evidence("Generator messages sent", "sent"),
                _evidence("Server messages received", "received by the server"),
                _rate(AGENT, "ws_simulator_messages_received_total", "answered"),
            )),
            Panel(13, "Response time", "s", _quantiles(AGENT, "ws_simulator_message_latency_seconds"),
                  note="Of answered messages only: look at what was not answered beside it."),
            Panel(14, "What went wrong", "1/s", (
                _rate(AGENT, "ws_simulator_errors_total", "{{kind}}", "kind"),
                _rate(AGENT, "ws_simulator_messages_unsent_total", "not sent: {{reason}}", "reason"),
                _rate(AGENT, "ws_simulator_messages_lost_total", "reply lost"),
                _evidence("Server connection errors", "connection errors at the server"),
            ), limits=ANY),
        )),
        Section(20, "Server", (
            Panel(21, "CPU", "cores", (
                _evidence("Server CPU", "all workers"),
                _workers(SERVER, "node_worker_cpu_seconds_total", "largest rate"),
            )),
            Panel(22, "Event-loop lag", "s", (
                _evidence("Server event-loop lag, largest", "largest"),
            ), limits=LAG_LIMITS, note="Under 100 ms is good."),
            Panel(23, "Memory", "bytes", (_evidence("Server memory, most", "most"),)),
            Panel(24, "Processing time", "s", _quantiles(SERVER, "websocket_message_processing_seconds")),
        )),
        Section(30, "Load generators", (
            Panel(31, "CPU of the workers", "cores", (
                _evidence("Generator CPU, busiest worker", "busiest"),
                _workers(AGENT, "node_worker_cpu_seconds_total", "largest rate"),
            ), limits=WORKER_CPU_LIMITS),
            Panel(32, "Scheduler lag", "s", _quantiles(AGENT, "ws_simulator_scheduler_lag_seconds"),
                  limits=SCHEDULER_LIMITS),
        )),
        Section(40, "Hosts", (
            Panel(41, "CPU busy", "cores", (_evidence("Host CPU"),)),
            Panel(42, "Memory available", "bytes", (_evidence("Host memory available, least"),)),
            Panel(43, "IP traffic", "bytes/s", (
                _evidence("Host IP traffic in", "{{host}} in"),
                _evidence("Host IP traffic out", "{{host}} out"),
            )),
            Panel(44, "Drops and retransmissions", "1/s", (
                _evidence("Host listen drops", "{{host}} dropped while listening"),
                _evidence("Host packets dropped on input", "{{host}} input queue full"),
                _evidence("Host TCP segments retransmitted", "{{host}} retransmitted"),
            )),
        )),
    )),
)  # fmt: skip
"""In the order in which they are listed."""
