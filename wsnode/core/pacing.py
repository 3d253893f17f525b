"""When everything is due: connects and messages of every client, as functions of the plan alone.

Times are integers of nanoseconds since the run's one common origin (`start_at`). Client i, counted over all
hosts and workers, connects at `connect_due`; its messages are due at phase_i + k · interval from that moment on
until the end. Nothing here depends on what a server does: this is the open model (Schroeder, Wierman and
Harchol-Balter, "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate, pairwise, repeat, takewhile
from math import gcd
from typing import Literal, NamedTuple

from wsnode.core.churn import Churn
from wsnode.core.draw import GOLDEN_64, splitmix64
from wsnode.core.stages import Stage
from wsnode.core.think import Think

SILVER_64 = 0x6A09E667F3BCC908
"""√2 − 1 · 2^64."""
BRONZE_64 = 0xBB67AE8584CAA73B
"""√3 − 1 · 2^64."""
NEARBY = 64
"""So far around a ratio a step with a better quotient is looked for."""

Phase = Literal["spread", "random", "aligned"]


class Share(NamedTuple):
    """Which clients of a run belong to one host or worker: those dealt the places `begin` … `end` − 1 of `of`.

    Client i has place i · d mod of (`deal_step`), so that any range of places has its part of every second of the
    ramp-up and of every stretch of the interval, however long it is and wherever it begins (docs/adr/0008).
    """

    of: int
    """Clients of the whole run."""
    begin: int
    end: int

    @property
    def size(self) -> int:
        """How many clients."""
        return self.end - self.begin

    def split(self, parts: int) -> list[Share]:
        """Divide evenly over `parts` takers. Raises ValueError where there is none."""
        return self.deal([1] * parts)

    def deal(self, weights: Sequence[int]) -> list[Share]:
        """Divide in proportion to the weights, to a whole client; the first takers get what is left over.

        Raises:
            ValueError: there is no taker, or no weight above 0.
        """
        total = sum(weights)
        if total < 1 or min(weights) < 0:
            raise ValueError(f"{self.size} clients over takers of the weights {list(weights)}: expected some above 0")
        bounds = [self.begin - (-self.size * before // total) for before in accumulate(weights, initial=0)]
        return [Share(self.of, begin, end) for begin, end in pairwise(bounds)]

    def clients(self) -> list[int]:
        """The client numbers, ascending. O(size log size)."""
        if self.of < 2:
            return list(range(self.begin, self.end))
        back = pow(deal_step(self.of), -1, self.of)
        return sorted(place * back % self.of for place in range(self.begin, self.end))

    def place(self, client: int) -> int:
        """The place that a client was dealt."""
        return client * deal_step(self.of) % self.of


@cache
def spread_step(clients: int) -> int:
    """The g of spread phases i · g mod clients: without a common divisor with `clients`, near its golden section.

    So the phases of all clients are equally far apart, and any millisecond is offered its mean of messages ± 1. While
    clients connect it is the golden ratio that keeps them even: the smaller the partial quotients of g / clients, the
    smaller the discrepancy of its multiples (L. Kuipers and H. Niederreiter, "Uniform Distribution of Sequences", 1974,
    ch. 2.3), so that of the numbers nearby the one with the smallest sum of them is taken.
    """
    return min(_coprime_near(clients, GOLDEN_64, NEARBY), key=lambda g: (_sum_of_quotients(clients, g), g))


@cache
def deal_step(clients: int) -> int:
    """The d by which clients are dealt to hosts and workers: near √2 − 1 of `clients`, and without a common divisor.

    A range of places must be even in time of connect, which small quotients of d / clients give, and in phase: the
    places as a function of the phases are multiples of d / g, so that its quotients are to be small as well.
    """
    golden = spread_step(clients)
    back = pow(golden, -1, clients) if clients > 1 else 0
    near = [
        d
        for d in _coprime_near(clients, SILVER_64, min(NEARBY, max(2, clients // 16)))
        if d not in (golden, clients - golden)
    ]
    return min(
        near or [golden],
        key=lambda d: (_sum_of_quotients(clients, d) + _sum_of_quotients(clients, d * back % clients), d),
    )


@cache
def kind_step(clients: int) -> int:
    """The k of i · k mod clients, by which clients are of a kind (`wsnode.core.kinds`): near √3 − 1 of `clients`.

    Even in time of connect, in phase and among the places, each as `deal_step` is.
    """
    backs = [1, *(pow(step, -1, clients) for step in (spread_step(clients), deal_step(clients)) if clients > 1)]
    return min(
        _coprime_near(clients, BRONZE_64, NEARBY),
        key=lambda k: (sum(_sum_of_quotients(clients, k * back % clients) for back in backs), k),
    )


def _coprime_near(clients: int, part_64: int, nearby: int) -> Iterator[int]:
    """Numbers at most `nearby` from a part (of 2^64) of `clients` that have no common divisor with it."""
    middle = clients * part_64 >> 64
    near = range(max(1, middle - nearby), min(clients, middle + nearby) + 1)
    return (g for g in near if gcd(g, clients) == 1)


def _sum_of_quotients(a: int, b: int) -> int:
    """Sum of the partial quotients of a / b."""
    total = 0
    while b:
        total += a // b
        a, b = b, a % b
    return total


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
    stages: tuple[Stage, ...] = ()
    """None: the ramp-up, and everybody stays until the end."""
    think: Think | None = None
    """None: a message each interval, at the client's phase."""
    churn: Churn | None = None
    """None: who has come stays until the end, or its stage's."""

    @property
    def comes_and_goes(self) -> bool:
        """Whether clients leave before the end, or come more than once."""
        return bool(self.stages) or self.churn is not None

    def connect_due(self, client: int) -> int:
        """When a client's first connect is due."""
        if self.stages:
            return self.presences(client)[0][0]
        return client * self.ramp_ns // self.clients

    def presences(self, client: int) -> list[tuple[int, int]]:
        """From when to when a client is to be connected, once for each time it comes. O(stages).

        It is empty where the end comes first. What is due is due within one of these, its begin included.
        """
        if not self.stages:
            due = self.connect_due(client)
            if self.churn is not None:
                return self.churn.presences(client, due, self.end_ns)
            return [(due, self.end_ns)] if due < self.end_ns else []
        found: list[tuple[int, int]] = []
        came: int | None = None
        for stage in self.stages:
            if (comes := stage.comes(client)) is not None:
                came = comes
            elif came is not None and (leaves := stage.leaves(client)) is not None:
                found.append((came, leaves))
                came = None
        return found if came is None else [*found, (came, self.end_ns)]

    def connects_due(self, before_ns: int) -> int:
        """How many connects of all clients are due before a moment, those of clients that come back included."""
        before_ns = min(before_ns, self.end_ns)
        if self.stages:
            return sum(stage.come_before(before_ns) for stage in self.stages)
        if self.churn is not None:
            return sum(comes < before_ns for client in range(self.clients) for comes, _ in self.presences(client))
        return min(self.clients, max(0, -(-self.clients * before_ns // self.ramp_ns)))

    def phase_of(self, client: int) -> int:
        """Offset of a client's messages within the interval, 0 <= phase < interval."""
        if self.phase == "aligned" or self.interval_ns == 0:
            return 0
        if self.phase == "spread":
            return client * spread_step(self.clients) % self.clients * self.interval_ns // self.clients
        return (splitmix64(self.seed * GOLDEN_64 + client) * self.interval_ns) >> 64

    def message_due(self, client: int, k: int) -> int:
        """When the message of cycle k is due."""
        return self.phase_of(client) + k * self.interval_ns

    def messages_due(self, client: int, before_ns: int) -> int:
        """How many messages of a client are due before a moment (and before the end)."""
        if self.interval_ns == 0:
            return 0
        if self.think is not None:
            return sum(1 for _ in takewhile(lambda due: due < before_ns, self.dues(client)))
        return sum(
            self._cycles(client, min(leaves, before_ns)) - self._cycles(client, comes)
            for comes, leaves in self.presences(client)
            if comes < before_ns
        )

    def _cycles(self, client: int, before_ns: int) -> int:
        """How many messages a client would have had before a moment, had it been there from the origin on."""
        return max(0, -(-(before_ns - self.phase_of(client)) // self.interval_ns))

    def dues(self, client: int) -> Iterator[int]:
        """When a client's messages are due, in order."""
        if self.interval_ns == 0:
            return
        if self.think is None:
            for comes, leaves in self.presences(client):
                for k in range(self._cycles(client, comes), self._cycles(client, leaves)):
                    yield self.message_due(client, k)
            return
        begin, n = self.think.begin(self.seed, client), 0
        for comes, leaves in self.presences(client):
            due = comes + self.think.first(begin, n)
            n += 1
            while due < leaves:
                yield due
                due += self.think.gap(begin, n)
                n += 1

    def offered(self, share: Share, before_ns: int) -> int:
        """How many messages of a share are due before a moment. O(clients), with think times O(messages)."""
        return sum(self.messages_due(client, before_ns) for client in share.clients())

    def timetable(self, share: Share) -> Iterator[tuple[int, int]]:
        """(due, client) of every message of a share in order of due time: the reference for the worker's loop."""
        yield from heapq.merge(*(zip(self.dues(client), repeat(client)) for client in share.clients()))
