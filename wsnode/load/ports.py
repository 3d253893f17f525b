"""The source addresses of a load, and how much of their ports it has taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from math import ceil, nan

from wsnode import environment
from wsnode.telemetry import SharedTable

ROOM = 0.8
"""Share of an address's ports that a load to this host itself takes before it takes another address."""


def sources_for(target: str, clients: int, given: Sequence[str] = ()) -> tuple[str, ...]:
    """The addresses that a load's clients connect from; none: the kernel chooses one.

    They are those `given` that are of the target's family. Without any, a load to 127.0.0.0/8 that one address has too
    few ports for takes as many of 127.0.0.1, 127.0.0.2 … as it needs: all of them are this host's.
    """
    address = ipaddress.ip_address(target.partition("%")[0])
    fitting = tuple(source for source in given if ipaddress.ip_address(source).version == address.version)
    ports = environment.source_ports()
    if fitting or not ports or not address.is_loopback or address.version != 4 or clients <= ROOM * ports:
        return fitting
    first = int(ipaddress.ip_address("127.0.0.1"))
    return tuple(str(ipaddress.ip_address(first + n)) for n in range(ceil(clients / (ROOM * ports))))


class SourcePorts:
    """The source ports of one load, counted from the moment of making this on: before its first connect.

    A load has one target address, and `sources` addresses that its clients are dealt evenly. `table` holds what its
    workers count, and nothing else may count there meanwhile. Safe to ask from any thread.
    """

    def __init__(self, table: SharedTable, target: str, sources: int = 1) -> None:
        self._table = table
        self._sources = max(1, sources)
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
        return (self._taken() - self._before + waiting) / (ports * self._sources)

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
