"""Who is in which room of a worker."""

from __future__ import annotations

from typing import Generic, TypeVar

Subscriber = TypeVar("Subscriber")


class Rooms(Generic[Subscriber]):
    """Rooms exist while somebody is in them."""

    def __init__(self) -> None:
        self._rooms: dict[str, set[Subscriber]] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def join(self, name: str, subscriber: Subscriber) -> set[Subscriber]:
        """Subscribe to a room. Returns all who are in it, a set that follows later changes."""
        room = self._rooms.setdefault(name, set())
        room.add(subscriber)
        return room

    def leave(self, name: str, subscriber: Subscriber) -> None:
        """Unsubscribe. Without effect for who is not in the room."""
        if room := self._rooms.get(name):
            room.discard(subscriber)
            if not room:
                del self._rooms[name]
