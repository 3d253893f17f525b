"""When everything is due: connects and messages of every client, as functions of the plan alone.

Times are integers of nanoseconds since the run's one common origin (`start_at`). Client i, counted over all
hosts and workers, connects at `connect_due`; its messages are due at phase_i + k · interval from that moment on
until the end. Nothing here depends on what a server does: this is the open model (Schroeder, Wierman and
Harchol-Balter, "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import gcd
from typing import Literal, NamedTuple

GOLDEN_64 = 0x9E3779B97F4A7C15
"""The golden ratio's fractional part · 2^64."""
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


@cache
def spread_step(clients: int) -> int:
    """The g of spread phases i · g mod clients: without a common divisor with `clients`, near its golden section.

    So the phases of all clients are equally far apart, and any millisecond is offered its mean of messages ± 1. While
    clients connect it is the golden ratio that keeps them even: the smaller the partial quotients of g / clients, the
    smaller the discrepancy of its multiples (L. Kuipers and H. Niederreiter, "Uniform Distribution of Sequences", 1974,
    ch. 2.3), so that of the numbers nearby the one with the smallest sum of them is taken.
    """
    middle = clients * GOLDEN_64 >> 64
    near = range(max(1, middle - 64), min(clients, middle + 64) + 1)
    return min((g for g in near if gcd(g, clients) == 1), key=lambda g: (_sum_of_quotients(clients, g), g))


def _sum_of_quotients(a: int, b: int) -> int:
    """Sum of the partial quotients of a / b."""
    total = 0
    while b:
        total += a // b
        a, b = b, a % b
    return total


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
        """Offset of a client's messages within the interval, 0 <= phase < interval."""
        if self.phase == "aligned" or self.interval_ns == 0:
            return 0
        if self.phase == "spread":
            return client * spread_step(self.clients) % self.clients * self.interval_ns // self.clients
        return (_splitmix64(self.seed * GOLDEN_64 + client) * self.interval_ns) >> 64

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
