"""The same state before each run: hosts on which nothing of an earlier one is left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from portal.conductor.host import FIRST_PATIENCE_S, Host
from wsnode.core.protocol import CROWDED

LOOK_S = 1.0
"""Pause between two looks at hosts that have not settled."""

OnAll = Callable[[Sequence[Host], Callable[[Host], Awaitable[None]]], Awaitable[None]]


class Unsettled(Exception):
    """Something of an earlier run is left. The message names hosts and numbers."""


async def settle(
    hosts: Sequence[Host], settle_s: float, port: int | None, wait: Callable[[str], None], on_all: OnAll
) -> float:
    """Wait until nothing of an earlier run is left, looking again and again at those hosts where something is.

    `wait` is told what is waited for, at each look. Returns how long it took (s), 0 where nothing was left.

    Raises:
        Unsettled: something still is after `settle_s`.
    """

    async def look(host: Host) -> None:
        await host.examine(FIRST_PATIENCE_S)

    loop = asyncio.get_running_loop()
    begun, waited_s = loop.time(), 0.0
    while left := [words for host in hosts if (words := remaining(host, port))]:
        waited_s = loop.time() - begun
        if waited_s >= settle_s:
            raise Unsettled(
                f"not settled within {settle_s:g} s (settle_s), {'; '.join(left)}: end what holds them, or wait longer"
            )
        wait(f"waits for the hosts to settle, {waited_s:.0f} of {settle_s:g} s: {'; '.join(left)}")
        await asyncio.sleep(min(LOOK_S, settle_s - waited_s))
        await on_all([host for host in hosts if remaining(host, port)], look)
        waited_s = loop.time() - begun
    return waited_s


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
