"""When everything is due: connects and messages of every client, as functions of the plan alone.

Times are integers of nanoseconds since the run's one common origin (`start_at`). Client i, counted over all
hosts and workers, connects at `connect_due`; its messages are due at phase_i + k · interval from that moment on
until the end. Nothing here depends on what a server does: this is the open model (Schroeder, Wierman and
Harchol-Balter, "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

GOLDEN_64 = 0x9E3779B97F4A7C15
"""The golden ratio's fractional part · 2^64: multiples of it fill an interval as evenly as any (three-gap theorem)."""
_MASK_64 = (1 << 64) - 1

Phase = Literal["spread", "random", "aligned"]


class Share(NamedTuple):
    """Which clients of a run belong to one host or worker: first, first + step, … (`size` of them)."""

    first: int
    step: int
    size: int

    def split(self, parts: int) -> list[Share]:
        """Divide over `parts` takers, dealt in turn, so that each has its part of every second of the ramp-up.

        Raises:
            ValueError: there is no taker.
        """
        if parts < 1:
            raise ValueError(f"{self.size} clients over {parts} takers: expected 1 or more")
        return [
            Share(self.first + self.step * part, self.step * parts, max(0, -(-(self.size - part) // parts)))
            for part in range(parts)
        ]

    def clients(self) -> range:
        """The client numbers, ascending."""
        return range(self.first, self.first + self.step * self.size, self.step)


def phase_ns(client: int, interval_ns: int, phase: Phase, seed: int = 0) -> int:
    """Offset of a client's messages within the interval, 0 <= phase < interval.

    Spread over 100,000 clients, a millisecond is offered its mean of messages ± 3 (± 5 where that is several thousand:
    a golden-ratio sequence's discrepancy grows with the logarithm of the clients).
    """
    if phase == "aligned" or interval_ns == 0:
        return 0
    if phase == "spread":
        return ((client * GOLDEN_64 & _MASK_64) * interval_ns) >> 64
    return (_splitmix64(seed * GOLDEN_64 + client) * interval_ns) >> 64


def _splitmix64(state: int) -> int:
    """Steele, Lea and Flood's SplitMix64: a stateless, well-mixed hash of an integer."""
    z = (state + GOLDEN_64) & _MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return z ^ (z >> 31)


class Pacing(NamedTuple):
    """The timetable of a whole run; all in ns."""

    clients: int
    interval_ns: int
    """0: no messages."""
    ramp_ns: int
    """Planned ramp-up: client i connects at i / clients of it."""
    end_ns: int
    """Nothing is due from here on."""
    phase: Phase = "spread"
    seed: int = 0

    def connect_due(self, client: int) -> int:
        """When a client's first connect is due."""
        return client * self.ramp_ns // self.clients

    def phase_of(self, client: int) -> int:
        """`phase_ns` of this run."""
        return phase_ns(client, self.interval_ns, self.phase, self.seed)

    def first_message(self, client: int) -> int:
        """k of the first message due at or after the client's connect."""
        if self.interval_ns == 0:
            return 0
        return max(0, -(-(self.connect_due(client) - self.phase_of(client)) // self.interval_ns))

    def message_due(self, client: int, k: int) -> int:
        """When the message of cycle k is due."""
        return self.phase_of(client) + k * self.interval_ns

    def messages_due(self, client: int, before_ns: int) -> int:
        """How many messages of a client are due before a moment (and before the end)."""
        if self.interval_ns == 0:
            return 0
        last = min(before_ns, self.end_ns) - self.phase_of(client)
        return max(0, -(-last // self.interval_ns) - self.first_message(client)) if last > 0 else 0

    def offered(self, share: Share, before_ns: int) -> int:
        """How many messages of a share are due before a moment. O(clients)."""
        return sum(self.messages_due(client, before_ns) for client in share.clients())

    def timetable(self, share: Share) -> Iterator[tuple[int, int]]:
        """(due, client) of every message of a share in order of due time: the reference for the worker's loop."""
        if self.interval_ns == 0:
            return
        order = sorted((self.phase_of(client), client) for client in share.clients())
        cycle = 0
        while cycle * self.interval_ns < self.end_ns:
            base = cycle * self.interval_ns
            for phase, client in order:
                due = base + phase
                if due >= self.end_ns:
                    break
                if due >= self.connect_due(client):
                    yield due, client
            cycle += 1
