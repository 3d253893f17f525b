"""The order in which a worker's clients have their turns: `Pacing.timetable`, one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from typing import Generic, Protocol, TypeVar

from wsnode.core.pacing import Pacing, Share

NEVER = 1 << 62


class _Numbered(Protocol):
    @property
    def number(self) -> int: ...


C = TypeVar("C", bound=_Numbered)


class Schedule(Generic[C]):
    """Walks through all messages of a share in order of due time. A step costs O(1); setting up O(clients log clients).

    `due` is the next message's due time (ns from the origin), `client` whose it is; `due` is NEVER at the end.
    """

    __slots__ = ("_base", "_connects", "_members", "_phases", "_place", "client", "due", "end_ns", "interval_ns")

    def __init__(self, pacing: Pacing, clients: Sequence[C]) -> None:
        order = sorted((pacing.phase_of(client.number), place) for place, client in enumerate(clients))
        self.interval_ns = pacing.interval_ns
        self.end_ns = pacing.end_ns
        self._phases = [phase for phase, _ in order]
        self._members = [clients[place] for _, place in order]
        self._connects = [pacing.connect_due(client.number) for client in self._members]
        self._place = -1
        self._base = 0
        self.due = NEVER
        if self._members:
            self.client: C = self._members[0]
            if self.interval_ns:
                self.step()

    def step(self) -> None:
        """On to the next message."""
        place, base = self._place, self._base
        while True:
            place += 1
            if place == len(self._phases):
                place = 0
                base += self.interval_ns
            due = base + self._phases[place]
            if due >= self.end_ns:
                self.due = NEVER
                break
            if due >= self._connects[place]:  # else the client has not been planned to connect yet
                self.due = due
                self.client = self._members[place]
                break
        self._place, self._base = place, base

    def stop(self, at_ns: int) -> None:
        """Nothing is due from `at_ns` on."""
        self.end_ns = min(self.end_ns, at_ns)
        if self.due >= self.end_ns:
            self.due = NEVER


class StagedSchedule(Schedule[C]):
    """The same where clients leave and come back. A step costs O(1) amortised while most of the clients are there; it
    passes over those who are not."""

    __slots__ = ("_presences",)

    def __init__(self, pacing: Pacing, clients: Sequence[C]) -> None:
        self._presences: dict[int, list[tuple[int, int]]] = {
            client.number: pacing.presences(client.number)[::-1] for client in clients
        }
        """Of each client those that are not over yet, the next one last."""
        super().__init__(pacing, clients)

    def step(self) -> None:
        """On to the next message."""
        place, base = self._place, self._base
        while True:
            place += 1
            if place == len(self._phases):
                place = 0
                base += self.interval_ns
            due = base + self._phases[place]
            if due >= self.end_ns:
                self.due = NEVER
                break
            presences = self._presences[self._members[place].number]
            while presences and presences[-1][1] <= due:
                presences.pop()
            if presences and presences[-1][0] <= due:
                self.due = due
                self.client = self._members[place]
                break
        self._place, self._base = place, base


class DrawnSchedule(Schedule[C]):
    """The same where a client's messages are not an interval apart. A step costs O(log clients)."""

    __slots__ = ("_dues", "_heap")

    def __init__(self, pacing: Pacing, clients: Sequence[C]) -> None:
        self.interval_ns = pacing.interval_ns
        self.end_ns = pacing.end_ns
        self._members = list(clients)
        self._dues = [pacing.dues(client.number) for client in clients]
        self._heap = [(due, place) for place, dues in enumerate(self._dues) if (due := next(dues, NEVER)) != NEVER]
        heapify(self._heap)
        if self._members:
            self.client = self._members[0]
        self._show()

    def step(self) -> None:
        """On to the next message."""
        heap = self._heap
        place = heap[0][1]
        due = next(self._dues[place], NEVER)
        if due == NEVER:
            heappop(heap)
        else:
            heapreplace(heap, (due, place))
        self._show()

    def _show(self) -> None:
        self.due = NEVER
        if self._heap and self._heap[0][0] < self.end_ns:
            self.due = self._heap[0][0]
            self.client = self._members[self._heap[0][1]]


def schedule_of(pacing: Pacing, clients: Sequence[C]) -> Schedule[C]:
    """The schedule that fits a timetable."""
    if pacing.think is not None:
        return DrawnSchedule(pacing, clients)
    return StagedSchedule(pacing, clients) if pacing.comes_and_goes else Schedule(pacing, clients)


def connect_order(pacing: Pacing, share: Share) -> list[tuple[int, int]]:
    """(due, place in the share) of every connect that is due before the end, in order."""
    return sorted(
        (comes, place)
        for place, number in enumerate(share.clients())
        for comes, _ in pacing.presences(number)
        if comes < pacing.end_ns
    )


def leave_order(pacing: Pacing, share: Share) -> list[tuple[int, int]]:
    """(due, place in the share) of every leave before the end, in order."""
    return sorted(
        (leaves, place)
        for place, number in enumerate(share.clients())
        for _, leaves in pacing.presences(number)
        if leaves < pacing.end_ns
    )
