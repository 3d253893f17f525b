"""The metrics of node_exporter that rules, panels and queries may use, with their kinds and what they mean.

Its own HELP texts describe files of /proc, not what they say; a test compares names and kinds with a running one.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Known(NamedTuple):
    """A metric of node_exporter. `kind` is what its values are: many counters of netstat are exposed as untyped."""

    kind: Literal["counter", "gauge"]
    definition: str


NODE_EXPORTER: dict[str, Known] = {
    "node_boot_time_seconds": Known("gauge", "When the kernel was started (s since the epoch)."),
    "node_context_switches_total": Known("counter", "Context switches of the host, over all cores."),
    "node_cpu_seconds_total": Known("counter", "CPU time of the host's cores, by what it was spent on."),
    "node_filefd_allocated": Known("gauge", "File handles open in the whole kernel."),
    "node_filefd_maximum": Known("gauge", "File handles that the kernel allows (fs.file-max)."),
    "node_filesystem_avail_bytes": Known("gauge", "Space that a filesystem has left for unprivileged users."),
    "node_filesystem_size_bytes": Known("gauge", "Size of a filesystem."),
    "node_load1": Known("gauge", "Load average of one minute: processes that run or wait to."),
    "node_memory_MemAvailable_bytes": Known("gauge", "Memory that can be had without swapping (the kernel's guess)."),
    "node_memory_MemTotal_bytes": Known("gauge", "Memory of the host."),
    "node_netstat_IpExt_InOctets": Known("counter", "Bytes of the IPv4 packets received, loopback included."),
    "node_netstat_IpExt_OutOctets": Known("counter", "Bytes of the IPv4 packets sent, loopback included."),
    "node_netstat_TcpExt_ListenDrops": Known(
        "counter", "Connections that a listening socket dropped, for whatever reason."
    ),
    "node_netstat_TcpExt_ListenOverflows": Known(
        "counter", "Connections dropped because the listening socket's accept queue was full (somaxconn, backlog)."
    ),
    "node_netstat_Tcp_ActiveOpens": Known("counter", "TCP connections begun from this host."),
    "node_netstat_Tcp_PassiveOpens": Known("counter", "TCP connections accepted by this host."),
    "node_netstat_Tcp_RetransSegs": Known("counter", "TCP segments sent again: lost on the way, or answered late."),
    "node_network_receive_bytes_total": Known("counter", "Bytes received by a network device."),
    "node_network_receive_drop_total": Known("counter", "Received packets that a network device dropped."),
    "node_network_transmit_bytes_total": Known("counter", "Bytes sent by a network device."),
    "node_network_transmit_drop_total": Known("counter", "Packets that a network device dropped before sending."),
    "node_nf_conntrack_entries": Known("gauge", "Flows in the connection tracking table."),
    "node_nf_conntrack_entries_limit": Known("gauge", "Flows that the table holds; beyond it packets are dropped."),
    "node_pressure_cpu_waiting_seconds_total": Known("counter", "Time in which some process waited for a CPU."),
    "node_sockstat_TCP_inuse": Known("gauge", "TCP sockets in use, listening ones included."),
    "node_sockstat_TCP_mem_bytes": Known("gauge", "Memory of all TCP socket buffers (of the whole machine)."),
    "node_sockstat_TCP_tw": Known("gauge", "TCP sockets in TIME-WAIT, each of which holds a port for a minute."),
    "node_sockstat_sockets_used": Known("gauge", "Sockets of all kinds in use."),
    "node_softnet_dropped_total": Known("counter", "Packets dropped because a CPU's input queue was full."),
    "node_softnet_times_squeezed_total": Known("counter", "Times that packet processing ran out of its budget."),
    "node_timex_maxerror_seconds": Known("gauge", "Largest error of the host's clock, by its own estimate."),
    "node_timex_offset_seconds": Known("gauge", "Offset of the host's clock from its reference."),
    "node_timex_sync_status": Known("gauge", "1 where the host's clock is synchronised, by its own word."),
    "node_uname_info": Known("gauge", "Always 1; its labels name the host's kernel and architecture."),
}

OF_PROMETHEUS = frozenset({"up", "ALERTS", "scrape_duration_seconds", "scrape_samples_scraped"})
"""Series that Prometheus makes by itself."""
