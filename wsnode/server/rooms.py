"""Who is in which room of a worker, and what its messages do: to all who are in it here, and on to other workers.

What comes in one turn of the event loop is written in one piece to each subscriber when the turn is over, since uvloop
makes a system call of each write: nothing waits for a message that is not there yet, and a room under load costs its
subscribers' writes once a turn, not once a message. `coalesce_s` makes turns longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Generic, TypeVar

from wsnode.server.interest import bucket

if TYPE_CHECKING:
    from wsnode.server.mesh import Mesh
    from wsnode.telemetry import Counters

Subscriber = TypeVar("Subscriber")

Message = tuple[int, bytes]
"""(`wsnode.lean.TEXT` or `BINARY`, payload)."""

MOST_WAITING_BYTES = 64 << 10
"""Of a room: what waits for its tick is written earlier where it is more."""


class Room(Generic[Subscriber]):
    """A room that somebody of this worker is in."""

    __slots__ = ("began", "bucket", "encoded", "members", "name", "waiting", "waiting_bytes")

    def __init__(self, name: str) -> None:
        self.name = name
        self.encoded = name.encode("ascii")
        self.bucket = bucket(self.encoded)
        self.members: set[Subscriber] = set()
        self.waiting: list[Message] = []
        """What the next tick writes."""
        self.waiting_bytes = 0
        self.began: list[int] = []
        """Of those that wait and were published here: when they came."""


class Rooms(Generic[Subscriber]):
    """Rooms exist while somebody is in them."""

    def __init__(
        self,
        send: Callable[[Collection[Subscriber], Sequence[Message]], int],
        counters: Counters,
        mesh: Mesh | None = None,
        coalesce_s: float = 0.0,
    ) -> None:
        """`send` writes messages, in order, to all of these who can take them, and returns how many can. Messages wait
        up to `coalesce_s` to be written together; 0: until this turn of the loop is over."""
        self._send = send
        self._counters = counters
        self._mesh = mesh
        self._coalesce_s = coalesce_s
        self._rooms: dict[str, Room[Subscriber]] = {}
        self._due: dict[Room[Subscriber], None] = {}
        """Rooms with messages that wait."""
        self._tick: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._rooms)

    def join(self, name: str, subscriber: Subscriber) -> Room[Subscriber]:
        """Subscribe. Called before the handshake is answered: from its answer on, nothing that any worker reads is
        missed."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = Room(name)
            if self._mesh is not None:
                self._mesh.joined(room.bucket)
        elif room.waiting:
            self._flush(room)
        room.members.add(subscriber)
        return room

    def leave(self, room: Room[Subscriber], subscriber: Subscriber) -> None:
        """Unsubscribe. Without effect for who is not in the room."""
        room.members.discard(subscriber)
        if not room.members and self._rooms.get(room.name) is room:
            del self._rooms[room.name]
            if self._mesh is not None:
                self._mesh.left(room.bucket)

    def publish(self, room: Room[Subscriber], first: int, payload: bytes) -> None:
        """A subscriber's message: to all of the room, its sender included, on every worker."""
        began = perf_counter_ns()
        counters = self._counters
        counters.messages_received += 1
        counters.bytes_received += len(payload)
        counters.messages_broadcasted += 1
        if self._mesh is not None:
            self._mesh.forward(room.bucket, room.encoded, first, payload)
        self._deliver(room, first, payload, began)

    def arrived(self, name: bytes, first: int, payload: bytes) -> None:
        """A message that was published at another worker: to those of its room who are here."""
        room = self._rooms.get(name.decode("ascii"))
        if room is not None:
            self._deliver(room, first, payload, 0)

    def flush(self) -> None:
        """Write all that waits."""
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for room in list(self._due):
            self._flush(room)

    def _deliver(self, room: Room[Subscriber], first: int, payload: bytes, began: int) -> None:
        room.waiting.append((first, payload))
        room.waiting_bytes += len(payload)
        if began:
            room.began.append(began)
        if room.waiting_bytes > MOST_WAITING_BYTES:
            self._flush(room)
            return
        self._due[room] = None
        if self._tick is None:
            loop = asyncio.get_running_loop()
            self._tick = (
                loop.call_later(self._coalesce_s, self.flush) if self._coalesce_s else loop.call_soon(self.flush)
            )

    def _flush(self, room: Room[Subscriber]) -> None:
        messages, size, began = room.waiting, room.waiting_bytes, room.began
        room.waiting, room.waiting_bytes, room.began = [], 0, []
        self._due.pop(room, None)
        counters = self._counters
        deliveries = self._send(room.members, messages)
        counters.messages_sent += deliveries * len(messages)
        counters.bytes_sent += deliveries * size
        now = perf_counter_ns()
        for moment in began:
            counters.message_processing.observe(now - moment)
