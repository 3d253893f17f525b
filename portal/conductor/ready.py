"""The same state before each run: hosts on which nothing of an earlier one is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from portal.conductor.host import Host
from wsnode.core.protocol import CROWDED

LOOK_S = 1.0
"""Pause between two looks at hosts that have not settled."""

OnAll = Callable[[Sequence[Host], Callable[[Host], Awaitable[None]]], Awaitable[None]]


class Unsettled(Exception):
    """Something of an earlier run is left. The message names hosts and numbers."""


class Settling:
    """The time that a run's hosts have, all in all, until nothing of an earlier run is left on them."""

    def __init__(self, settle_s: float, wait: Callable[[str], None], on_all: OnAll) -> None:
        """`wait` is told what is waited for, at each look."""
        self.waited_s = 0.0
        self._settle_s = settle_s
        self._wait = wait
        self._on_all = on_all

    async def until_none(
        self, hosts: Sequence[Host], left: Callable[[Host], str], look: Callable[[Host], Awaitable[None]]
    ) -> None:
        """Look again and again at those hosts where something is left, which `left` says in words.

        Raises:
            Unsettled: something still is when the time is over.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time() - self.waited_s
        while words := [found for host in hosts if (found := left(host))]:
            self.waited_s = loop.time() - begun
            if self.waited_s >= self._settle_s:
                raise Unsettled(
                    f"not settled within {self._settle_s:g} s (settle_s), {'; '.join(words)}: end what holds them, "
                    "or wait longer"
                )
            told = f"waits for the hosts to settle, {self.waited_s:.0f} of {self._settle_s:g} s: {'; '.join(words)}"
            self._wait(told)
            await asyncio.sleep(min(LOOK_S, self._settle_s - self.waited_s))
            await self._on_all([host for host in hosts if left(host)], look)
            self.waited_s = loop.time() - begun


def busy(host: Host) -> str:
    """Which other run's load is on a host, in words; empty where none is."""
    row = host.busy_with
    return (
        "" if row is None else f"{host.name} is busy with run {row.run_id}, {row.state} there, {row.seconds} s so far"
    )


def remaining(host: Host, port: int | None) -> str:
    """What is left on a host, in words; empty where nothing is, or nobody looked."""
    seen = host.remains
    if seen is None or seen.settled:
        return ""
    words = []
    if seen.connections:
        words.append(f"{seen.connections:,} connection{'s' * (seen.connections > 1)} of port {port}")
    if seen.crowded:
        words.append(f"{seen.time_wait:,} in TIME-WAIT, more than {CROWDED:.0%} of {seen.source_ports:,} source ports")
    return f"{host.name} has {' and '.join(words)}"
