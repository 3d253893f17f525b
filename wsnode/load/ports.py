"""How much of this host's source ports a load has taken."""

from __future__ import annotations

import ipaddress
from math import nan

from wsnode import environment
from wsnode.telemetry import SharedTable


class SourcePorts:
    """The source ports of one load, counted from the moment of making this on: before its first connect.

    A load has one target address, and the kernel chooses one source address for it: one pair of addresses. `table`
    holds what its workers count, and nothing else may count there meanwhile. Safe to ask from any thread.
    """

    def __init__(self, table: SharedTable, target: str) -> None:
        self._table = table
        self._target = ipaddress.ip_address(target.partition("%")[0])
        self._before = self._taken()

    def ratio(self) -> float:
        """Ports taken, of those that a connect may get; NaN where this kernel does not say how many there are.

        Taken are connects begun and connections open, as the workers last flushed them, and every TIME-WAIT of this
        host, to whatever address: /proc has their number only. Where the kernel gives ports in TIME-WAIT to new
        connects they are free.
        """
        ports = environment.source_ports()
        if not ports:
            return nan
        waiting = 0 if self._reused() else environment.sockstat().get("tw", 0)
        return (self._taken() - self._before + waiting) / ports

    def _taken(self) -> int:
        cells, totals = self._table.layout.cells, self._table.totals()
        begun, failed, closed = (totals[cells[f"connections_{what}"]][0] for what in ("attempted", "failed", "closed"))
        return begun - failed - closed

    def _reused(self) -> bool:
        """Whether connects to the target take over ports in TIME-WAIT (after a second). Linux ip-sysctl."""
        if environment.sysctl("net.ipv4.tcp_timestamps") == "0":
            return False
        reuse = environment.sysctl("net.ipv4.tcp_tw_reuse")
        return reuse == "1" or (reuse == "2" and self._target.is_loopback)
