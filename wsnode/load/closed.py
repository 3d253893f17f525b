"""The closed pace: each connection keeps so many messages in flight, and a reply is what lets the next one be sent.

What such a load offers follows from the server, so that a stall keeps messages from being sent instead of showing in
their times (Schroeder, Wierman and Harchol-Balter, "Open Versus Closed", NSDI 2006): nothing of it is comparable with
an open one. There is no due time, hence no scheduler lag and no response time; the service time is measured.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from wsnode.load.client import OPEN, Client, Setting
from wsnode.load.recorder import DueSecond, Recorder
from wsnode.load.schedule import NEVER
from wsnode.load.sized import SizedClient, SizeTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsnode.core.scenario import Scenario
    from wsnode.core.think import Think


class ClosedRecorder(Recorder):
    """Counts a message as due when it is sent, and of its reply the service time alone."""

    def reply(self, second: DueSecond, service_ns: int, response_ns: int) -> None:
        second.received += 1
        second.awaited -= 1
        second.service.add(service_ns)
        self.recent_of(service_ns)
        self.live.messages_received += 1


class ClosedLoop:
    """Who sends when: at once on a reply, or after a think time. Times in ns of the monotonic clock."""

    def __init__(
        self, scenario: Scenario, think: Think | None, turn: Callable[[Client, int], None], wake: Callable[[int], None]
    ) -> None:
        """`turn` sends a client's next message; `wake` asks for `run` to be called at a moment."""
        self.in_flight = scenario.in_flight or 1
        self._think, self._seed = think, scenario.seed
        self._turn, self._wake = turn, wake
        self._thinking: list[tuple[int, int, int, ClosedTurns]] = []
        """(when, client's number, its connection's number, client)."""

    @property
    def due(self) -> int:
        """When the next one has thought enough; NEVER where nobody thinks."""
        return self._thinking[0][0] if self._thinking else NEVER

    def next(self, client: ClosedTurns, now: int) -> None:
        """A client may send one more."""
        if self._think is None:
            self._turn(client, now)
            return
        seat = client.seat
        seat.thoughts += 1
        at = now + self._think.gap(self._think.begin(self._seed, client.number), seat.thoughts)
        heappush(self._thinking, (at, client.number, seat.connection, client))
        self._wake(at)

    def run(self, now: int, most: int) -> None:
        """Let at most so many send who have thought enough."""
        while most and self._thinking and self._thinking[0][0] <= now:
            _, _, connection, client = heappop(self._thinking)
            if client.seat.connection == connection:  # else it was about to answer on a connection that is gone
                self._turn(client, now)
            most -= 1


class Seat:
    """Where a client sits in the loop."""

    __slots__ = ("connection", "loop", "thoughts")

    def __init__(self, loop: ClosedLoop) -> None:
        self.loop = loop
        self.connection = 0
        """How many it has had: a think time ends with the connection."""
        self.thoughts = 0


class ClosedTurns(Client):
    """A client that has its turns from its own replies."""

    __slots__ = ()

    seat: Seat

    def _ready(self, now: int) -> None:
        super()._ready(now)
        self.seat.connection += 1
        for _ in range(self.seat.loop.in_flight):
            self.seat.loop.next(self, now)

    def _settle(self, awaited: tuple[DueSecond, int, int] | None, now: int) -> None:
        super()._settle(awaited, now)
        if awaited is not None and self.state == OPEN:
            self.seat.loop.next(self, now)

    def expire(self, now: int) -> None:
        """A message that was given up frees its place."""
        before = self.unsettled
        super().expire(now)
        if self.state == OPEN:
            for _ in range(before - self.unsettled):
                self.seat.loop.next(self, now)


class ClosedClient(ClosedTurns):
    """Of one size."""

    __slots__ = ("seat",)

    def __init__(self, loop: ClosedLoop, number: int, setting: Setting) -> None:
        super().__init__(number, setting)
        self.seat = Seat(loop)


class ClosedSizedClient(ClosedTurns, SizedClient):
    """With sizes of a distribution."""

    __slots__ = ("seat",)

    def __init__(self, loop: ClosedLoop, table: SizeTable, number: int, setting: Setting) -> None:
        SizedClient.__init__(self, table, number, setting)
        self.seat = Seat(loop)
