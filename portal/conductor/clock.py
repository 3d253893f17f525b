"""Comparing a host's clock with the conductor's over an open channel."""

from __future__ import annotations

import time

from portal.conductor.channel import BadAgent, Channel
from portal.conductor.job import ClockReading
from wsnode.core.protocol import Clock

EXCHANGES = 16
FEWER = 8
"""Exchanges where it is only looked for whether a clock was set, while loads run."""
TIMEOUT_S = 5.0
NS = 1_000_000_000


class ConductorClock:
    """The wall clock as it was at first, carried on by the monotonic one: a step of the wall clock does not move it."""

    def __init__(self) -> None:
        self._base_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """ns since the epoch."""
        return self._base_ns + time.monotonic_ns()


def offset(asked_ns: int, received_ns: int, sent_ns: int, answered_ns: int) -> tuple[float, int]:
    """(offset of the host's clock, round trip) in ns of one exchange, as NTP counts them (RFC 5905, section 8).

    The true offset is within half the round trip of the one returned, however the way's two halves divide it.
    """
    return ((received_ns - asked_ns) + (sent_ns - answered_ns)) / 2, (answered_ns - asked_ns) - (sent_ns - received_ns)


async def read_clock(channel: Channel, clock: ConductorClock, exchanges: int = EXCHANGES) -> ClockReading:
    """The best of so many exchanges, which is the one with the smallest round trip.

    Raises:
        Broken, Refused: as of `Channel.ask`.
        BadAgent: it does not answer with times.
    """
    best: tuple[int, float] | None = None
    for _ in range(exchanges):
        asked = clock.now_ns()
        answer = await channel.ask(Clock, TIMEOUT_S)
        answered = clock.now_ns()
        received, sent = answer.get("received_ns"), answer.get("sent_ns")
        if not isinstance(received, int) or not isinstance(sent, int):
            raise BadAgent(f"it answered clock with {answer!r}")
        offset_ns, trip_ns = offset(asked, received, sent, answered)
        if best is None or trip_ns < best[0]:
            best = trip_ns, offset_ns
    assert best is not None
    return ClockReading(offset_s=best[1] / NS, bound_s=max(best[0], 0) / 2 / NS)
