"""Who tries again, and when: after a delay, longer with each failure in a row and scattered by lot."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from wsnode.core.churn import delay_ns
from wsnode.core.draw import share, stream
from wsnode.load.schedule import NEVER

if TYPE_CHECKING:
    from wsnode.core.scenario import Scenario
    from wsnode.load.client import Client

NS = 1_000_000_000
AGAIN = 0xA6A1
"""What numbers are drawn for."""
LONGEST_NS = 60 * NS
"""That failures in a row make the delay grow to; a longer delay that was asked for stays as it is."""


class Reconnects:
    """A worker's clients whose connection broke or failed, by when they try again."""

    def __init__(self, scenario: Scenario) -> None:
        self._delay_ns = round(scenario.reconnect_delay_s * NS)
        self._jitter = scenario.reconnect_jitter
        self._backoff = scenario.reconnect_backoff
        self._seed = scenario.seed
        self._heap: list[tuple[int, int, Client]] = []
        self._count = count()
        self._failures: dict[Client, tuple[int, int]] = {}
        """Of each client: connections that it has had, and failures since the last."""

    @property
    def due(self) -> int:
        """When the next one tries (ns from the origin)."""
        return self._heap[0][0] if self._heap else NEVER

    def plan(self, client: Client, now: int) -> None:
        """A connection has broken, or a connect failed."""
        delay = self._delay_ns
        if self._jitter or self._backoff > 1:
            had, failures = self._failures.get(client, (client.opened_ns, -1))
            failures = failures + 1 if had == client.opened_ns else 0
            self._failures[client] = client.opened_ns, failures
            # As a power of ten thousand failures would overflow.
            longest = max(delay, LONGEST_NS)
            grown = delay * self._backoff ** min(failures, 64)
            number = next(self._count)
            begin = stream(self._seed, AGAIN, client.number)
            delay = delay_ns(round(min(grown, longest)), self._jitter, share(begin, number))
        heappush(self._heap, (now + delay, next(self._count), client))

    def take(self) -> Client:
        """The next one."""
        return heappop(self._heap)[2]
