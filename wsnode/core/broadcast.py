"""Broadcasts: who is in which room, who publishes, and the account of every delivery.

A message belongs to the slice of time in which its publisher's turn was. Of a connection those slices count that lie
whole between its opening (and a margin for joining) and its end (and the reply timeout before it): what was published
then must come. Publishers count what they published in each slice, subscribers when they were there, what came and what
is missing in the sequences; only all of them together can tell what was expected, and what was lost before the first or
after the last message that came (docs/adr/0016).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

MOST_SLICES = 10_000
"""Slices that all rooms of a run have together: bounds what a load generator has to say about them."""
HEAD_BYTES = 40
"""Of a broadcast message: client, sequence, time of the turn and check, in hexadecimal, with a blank behind each."""
_PUBLISHERS = re.compile(r"all|([0-9]+(?:\.[0-9]+)?)\s*(%?)")


class Publishers(NamedTuple):
    """How many of a run's clients publish."""

    number: float
    is_share: bool
    text: str

    @classmethod
    def parse(cls, text: str) -> Publishers:
        """Read `all`, a number of clients such as `5`, or a share of them such as `2%`.

        Raises:
            ValueError: it is none of these; says what may stand there.
        """
        match = _PUBLISHERS.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"publishers {text!r}: expected 'all', a number such as '5', or a share such as '2%'")
        if match[1] is None:
            return cls(1.0, True, "all")
        number, is_share = float(match[1]), bool(match[2])
        if is_share and not 0 < number <= 100:
            raise ValueError(f"publishers {text!r}: expected a share above 0 % and up to 100 %")
        if not is_share and (number < 1 or number != int(number)):
            raise ValueError(f"publishers {text!r}: expected a whole number of clients, 1 or more")
        return cls(number / 100 if is_share else number, is_share, f"{match[1]}{match[2]}")

    def of(self, clients: int) -> int:
        """How many of so many clients, at least 1; more than there are of a number that is too large."""
        return max(1, round(self.number * clients)) if self.is_share else int(self.number)


class Layout(NamedTuple):
    """Which client is in which room, and who publishes. All rooms and publishers are as even as whole numbers allow."""

    clients: int
    rooms: int
    publishers: int

    def room_of(self, client: int) -> int:
        """The number of a client's room."""
        return client % self.rooms

    def publishes(self, client: int) -> bool:
        """Whether a client publishes: in each room they are spread over the order of connecting, the first included."""
        place, room = divmod(client, self.rooms)
        members = -(-(self.clients - room) // self.rooms)
        publishers = self.publishers // self.rooms + (room < self.publishers % self.rooms)
        return place * publishers % members < publishers

    def publishing(self) -> list[int]:
        """The numbers of all clients that publish."""
        return [client for client in range(self.clients) if self.publishes(client)]


def slice_length_s(rooms: int, duration_s: int) -> int:
    """Length of a slice: a second, more where rooms and seconds are many."""
    return max(1, -(-rooms * duration_s // MOST_SLICES))


class Room(BaseModel):
    """What one load generator, or all together, have counted in one room over the whole load."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    room: int
    published: dict[int, int] = {}
    """By slice: messages handed to the kernel."""
    begun: dict[int, int] = {}
    """By the first slice that counts: connections. Those without any slice are in neither of the two."""
    ended: dict[int, int] = {}
    """By the first slice that counts no more: connections."""
    received: int = 0
    """Deliveries of slices that count."""
    gaps: int = 0
    """Messages missing between the first and the last of a publisher that a connection received."""
    edges: int = 0
    """Over all connections and their publishers: sequence of the first received − 1 − that of the last; 0 for none."""
    duplicate: int = 0
    out_of_order: int = 0
    late: int = 0
    indeterminate: int = 0

    def expected(self) -> int:
        """Deliveries that there should have been: what was published in each slice, for each connection then."""
        total = connections = 0
        for place in sorted({*self.published, *self.begun, *self.ended}):
            connections += self.begun.get(place, 0) - self.ended.get(place, 0)
            total += connections * self.published.get(place, 0)
        return total

    def lost(self) -> int:
        """Messages missing in the sequences: between those that came, before the first, and after the last.

        Before a connection's first slice its publishers have published so many, before its end so many: what lies
        beyond the first and the last that came is missing as well.
        """
        total, published, places = self.gaps + self.edges, 0, sorted({*self.published, *self.begun, *self.ended})
        for place in places:
            total += published * (self.ended.get(place, 0) - self.begun.get(place, 0))
            published += self.published.get(place, 0)
        return total


def merge_rooms(parts: Iterable[Room]) -> tuple[Room, ...]:
    """The rooms of several workers or hosts, each once, by number."""
    merged: dict[int, Room] = {}
    for part in parts:
        known = merged.get(part.room)
        merged[part.room] = part if known is None else _add(known, part)
    return tuple(merged[number] for number in sorted(merged))


def _add(one: Room, other: Room) -> Room:
    fields: dict[str, object] = {"room": one.room}
    for name in Room.model_fields:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, dict):
            fields[name] = _sum(a, b)
        elif name != "room":
            fields[name] = a + b
    return Room.model_validate(fields)


def _sum(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return {place: one.get(place, 0) + other.get(place, 0) for place in sorted({*one, *other})}


class Deliveries(NamedTuple):
    """All rooms together."""

    expected: int
    received: int
    lost: int
    duplicate: int
    out_of_order: int
    late: int
    indeterminate: int

    @classmethod
    def of(cls, rooms: Iterable[Room]) -> Deliveries:
        """Of a run's merged rooms."""
        rooms = list(rooms)
        counted = ("received", "duplicate", "out_of_order", "late", "indeterminate")
        return cls(
            expected=sum(room.expected() for room in rooms),
            lost=sum(room.lost() for room in rooms),
            **{name: sum(getattr(room, name) for room in rooms) for name in counted},
        )


def broken_rooms(rooms: Iterable[Room]) -> list[str]:
    """The rooms whose account does not hold, with their numbers."""
    broken = []
    for room in rooms:
        expected, lost = room.expected(), room.lost()
        if expected != room.received + lost or lost < 0:
            broken.append(
                f"expected deliveries {expected:,} of room {room.room} are not received {room.received:,} + lost "
                f"{lost:,}"
            )
    return broken
