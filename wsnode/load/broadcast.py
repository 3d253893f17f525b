"""Clients of a broadcast: each subscribes to its room, some publish, and every delivery is accounted for.

What comes is only put on a list; the accounts are made later, in the sweep, when it is certain that the connection
stood long enough for it to count (`wsnode.core.broadcast`).
"""

from __future__ import annotations

from array import array
from collections import Counter
from time import monotonic_ns
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from zlib import crc32

from wsnode.core.broadcast import Room, slice_length_s
from wsnode.lean import apply_mask
from wsnode.load.client import OPEN, Client, Setting

if TYPE_CHECKING:
    from collections.abc import Hashable

    from wsnode.core.pacing import Share
    from wsnode.core.scenario import Plan
    from wsnode.load.recorder import DueSecond, Recorder

NS = 1_000_000_000
JOIN_NS = 250_000_000
"""How long after its handshake a connection surely is in its room, on every worker of the server."""
SETTLE_NS = 150_000_000
"""How much longer than the reply timeout a broadcast drains: other workers may publish this much later."""
KNOWN_BYTES, MOST_KNOWN = 4 << 20, 4096
"""Of the messages that are known by their bytes, since each comes once for every subscriber."""
LONGEST_RUN = 56
"""Characters of a run's id in a room's name, which the server takes up to 64 of."""
MOST_MISSING = 1 << 20
"""Missing messages that a worker remembers, should they come later; of more one that comes is taken for a double."""


class Publication:
    """A message that was published, as its bytes tell."""

    __slots__ = ("at", "late", "near", "place", "sequence", "slice")

    def __init__(self, place: int, sequence: int, at: int, slice_: int, near: bool) -> None:
        self.place = place
        """Of its publisher in the room."""
        self.sequence = sequence
        self.at = at
        """Its turn, on this machine's monotonic clock where it is near."""
        self.slice = slice_
        self.near = near
        """Whether its publisher is on this host, so that one clock has both its turn and its delivery."""
        self.late = False

    def come_late(self) -> Publication:
        """The same, for one who got it after the reply timeout."""
        late = Publication(self.place, self.sequence, self.at, self.slice, self.near)
        late.late = True
        return late


class RoomLedger:
    """What this worker knows of one room."""

    def __init__(self, number: int, publishers: list[int], host: Share, ledger: Ledger) -> None:
        self.number = number
        self.ledger = ledger
        self.publishers = len(publishers)
        self.known: dict[bytes, Publication] = {}
        self.published: Counter[int] = Counter()
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.received = self.gaps = self.edges = 0
        self.duplicate = self.out_of_order = self.late = self.indeterminate = 0
        self._places = {
            client: (place, host.begin <= host.place(client) < host.end) for place, client in enumerate(publishers)
        }

    def read(self, payload: bytes) -> Publication | None:
        """The publication of these bytes; None where nobody of this room has published them so."""
        parts = payload[:64].split(b" ", 3)
        try:
            client, sequence, at = (int(part, 16) for part in parts[:3])
        except ValueError:
            return None
        found, ledger = self._places.get(client), self.ledger
        if found is None or payload != ledger.payload(client, sequence, at):
            return None
        if len(self.known) >= ledger.most_known:
            self.known.clear()
        place, near = found
        publication = Publication(place, sequence, ledger.origin + at, ledger.slice_of(at), near)
        self.known[payload] = publication
        return publication

    def account(self) -> Room:
        """All of it. Only once every connection has ended."""
        return Room(
            room=self.number,
            published=dict(self.published),
            begun=dict(self.begun),
            ended=dict(self.ended),
            received=self.received,
            gaps=self.gaps,
            edges=self.edges,
            duplicate=self.duplicate,
            out_of_order=self.out_of_order,
            late=self.late,
            indeterminate=self.indeterminate,
        )


class Ledger:
    """All of a worker's rooms.

    `run` names the run's rooms, the same on all its hosts; `host` are the clients of this host.
    """

    def __init__(self, plan: Plan, host: Share, run: str, recorder: Recorder) -> None:
        scenario = plan.scenario
        self.recorder = recorder
        self.origin = 0
        """On the monotonic clock; set when the load begins."""
        self.timeout_ns = round(scenario.reply_timeout_s * NS)
        self.remembered = 0
        self.most_known = max(16, min(MOST_KNOWN, KNOWN_BYTES // scenario.size_bytes))
        self._size = scenario.size_bytes
        self._run = run[-LONGEST_RUN:]
        self._url = plan.url
        self._check = crc32(run.encode())
        self._end_ns = scenario.duration_s * NS
        self._slice_ns = slice_length_s(scenario.rooms, scenario.duration_s) * NS
        self._last = (self._end_ns - 1) // self._slice_ns
        self._layout = scenario.layout
        self._share = plan.share
        own = {self._layout.room_of(client) for client in plan.share.clients()}
        publishers: dict[int, list[int]] = {room: [] for room in own}
        for client in self._layout.publishing():
            if (room := self._layout.room_of(client)) in own:
                publishers[room].append(client)
        self.rooms = {room: RoomLedger(room, members, host, self) for room, members in sorted(publishers.items())}

    def clients(self, setting: Setting) -> list[Client]:
        """The worker's clients, each with its room's address."""
        settings = {
            room: setting._replace(address=setting.address.towards(self.room_url(room)), match="none")
            for room in self.rooms
        }
        return [
            (Publisher if self._layout.publishes(number) else Subscriber)(number, settings[room], self.rooms[room])
            for number in self._share.clients()
            for room in (self._layout.room_of(number),)
        ]

    def room_url(self, room: int) -> str:
        """Where a room is."""
        parts = urlsplit(self._url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{self._run}-{room}"))

    def payload(self, client: int, sequence: int, at: int) -> bytes:
        """A message: the client's `sequence`-th, whose turn was `at` (ns from the origin)."""
        head = b"%x %x %x " % (client, sequence, at)
        return (b"%b%x " % (head, crc32(head, self._check))).ljust(self._size, b"x")

    def slice_of(self, at: int) -> int:
        """The slice of a moment (ns from the origin): what has its turn just behind the end belongs to the last."""
        return min(at // self._slice_ns, self._last)

    def first_slice(self, opened_ns: int) -> int:
        """The first slice that lies whole behind the opening of a connection (monotonic ns)."""
        return -(-(opened_ns - self.origin + JOIN_NS) // self._slice_ns)

    def settled_slice(self, now: int) -> int:
        """The first slice of which a message might still be under way at a moment (monotonic ns)."""
        moment = now - self.origin - self.timeout_ns
        return self._last + 1 if moment >= self._end_ns else moment // self._slice_ns

    def account(self) -> list[Room]:
        """Every room, once all connections have ended."""
        return [room.account() for room in self.rooms.values()]


class Subscriber(Client):
    """A client that gets what its room publishes."""

    __slots__ = ("_first", "_highest", "_known", "_lowest", "_missing", "_recent", "_room")

    sends = False
    watched = True

    def __init__(self, number: int, setting: Setting, room: RoomLedger) -> None:
        super().__init__(number, setting)
        self._room = room
        self._known = room.known
        self._recent: list[Publication] = []
        """What came and is not accounted for yet, in order."""
        self._first: int | None = None
        """The first slice of this connection that counts; None: there is no connection."""
        self._lowest = self._highest = array("I")
        """By publisher: sequence of the first and last message that came and counts; 0 for none."""
        self._missing: set[int] = set()
        """Between them: sequence × publishers + place."""

    def _handshake_done(self) -> None:
        self._first = self._room.ledger.first_slice(monotonic_ns())
        self._lowest = array("I", bytes(4 * self._room.publishers))
        self._highest = array("I", bytes(4 * self._room.publishers))
        super()._handshake_done()

    def _message(self, payload: bytes, now: int) -> None:
        room = self._room
        recorder = room.ledger.recorder
        recorder.arrived(len(payload))
        recorder.deliveries += 1
        publication = self._known.get(payload) or room.read(payload)
        if publication is None:
            recorder.stray()
            return
        delay = now - publication.at
        if publication.near:
            recorder.delays.append(delay)
        if delay > room.ledger.timeout_ns:
            publication = publication.come_late()
        self._recent.append(publication)

    def expire(self, now: int) -> None:
        super().expire(now)
        if self._recent:
            self._take(self._room.ledger.settled_slice(now))

    def _take(self, before: int) -> None:
        """Account for what came, in order, up to the first message that is not of a slice before that one."""
        if self._first is None:
            return
        room, highest, first, taken, received, others = self._room, self._highest, self._first, 0, 0, 0
        for publication in self._recent:
            slice_ = publication.slice
            if slice_ >= before:
                break
            taken += 1
            if slice_ < first:
                others += 1
                continue
            place, sequence = publication.place, publication.sequence
            last = highest[place]
            if sequence == last + 1 and last:
                highest[place] = sequence
                received += 1
                if publication.late:
                    room.late += 1
            else:
                received += self._irregular(publication)
        room.received += received
        room.indeterminate += others
        del self._recent[:taken]

    def _irregular(self, publication: Publication) -> bool:
        """A message that is not the one after the last. Returns whether it has been received for the first time."""
        room, place, sequence = self._room, publication.place, publication.sequence
        lowest, highest = self._lowest[place], self._highest[place]
        if not highest:
            self._lowest[place] = self._highest[place] = sequence
        elif sequence > highest:
            self._miss(range(highest + 1, sequence), place)
            self._highest[place] = sequence
        elif sequence < lowest:
            self._miss(range(sequence + 1, lowest), place)
            self._lowest[place] = sequence
            room.out_of_order += 1
        elif (key := sequence * room.publishers + place) in self._missing:
            self._missing.remove(key)
            room.ledger.remembered -= 1
            room.out_of_order += 1
        else:
            room.duplicate += 1
            return False
        if publication.late:
            room.late += 1
        return True

    def _miss(self, sequences: range, place: int) -> None:
        ledger, publishers = self._room.ledger, self._room.publishers
        room_left = MOST_MISSING - ledger.remembered
        kept = sequences[: max(0, room_left)]
        self._missing.update(sequence * publishers + place for sequence in kept)
        ledger.remembered += len(kept)
        self._room.gaps += len(sequences) - len(kept)

    def _ended(self, now: int) -> None:
        """Nothing more comes over this connection: close its account."""
        if self._first is None:
            return
        room, end = self._room, self._room.ledger.settled_slice(now)
        # A later slice may have overtaken an earlier one that counts; what stays does not.
        self._recent.sort(key=lambda publication: publication.slice >= end)
        self._take(end)
        room.indeterminate += len(self._recent)
        self._recent.clear()
        if self._first < end:
            room.begun[self._first] += 1
            room.ended[end] += 1
            room.gaps += len(self._missing)
            room.edges += sum(first - last - 1 for first, last in zip(self._lowest, self._highest, strict=True) if last)
        room.ledger.remembered -= len(self._missing)
        self._missing.clear()
        self._first = None
        self._lowest = self._highest = array("I")

    def leave(self) -> None:
        if self.state == OPEN:
            self._ended(monotonic_ns())
        super().leave()

    def closing(self) -> None:
        self._ended(monotonic_ns())
        super().closing()

    def abandon(self) -> None:
        self._ended(monotonic_ns())
        super().abandon()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(monotonic_ns())
        super().connection_lost(exc)


class Publisher(Subscriber):
    """A subscriber that publishes as well.

    A sequence number is spent on what the kernel has taken whole, and on nothing else, so that a number that is missing
    is a message that is lost.
    """

    __slots__ = ()

    sends = True

    def _send(self, second: DueSecond, turn_ns: int) -> int:
        setting, transport, ledger = self._setting, self.transport, self._room.ledger
        self._sequence = sequence = self._sequence + 1
        at = turn_ns - ledger.origin
        payload = ledger.payload(self.number, sequence, at)
        mask = next(self._masks)
        transport.write(b"%b%b%b" % (setting.head, mask, apply_mask(payload, mask)))
        now = monotonic_ns()
        if transport.is_closing():
            self._sequence -= 1
            setting.recorder.unsent(second, "connection_down")
        elif transport.get_write_buffer_size() or (self._below is not None and self._below.get_write_buffer_size()):
            self._blocked = (second, turn_ns, sequence)
        else:
            self._handed_over(second, turn_ns, sequence, now)
        return now

    def _handed_over(self, second: DueSecond, turn_ns: int, key: Hashable, now: int) -> None:
        self._published(turn_ns)
        super()._handed_over(second, turn_ns, key, now)

    def _published(self, turn_ns: int) -> None:
        ledger = self._room.ledger
        self._room.published[ledger.slice_of(turn_ns - ledger.origin)] += 1

    def resume_writing(self) -> None:
        blocked = self._blocked
        super().resume_writing()
        if blocked is not None and blocked[0] is None and self._blocked is not blocked:
            self._published(blocked[1])  # it was given up, and the kernel has taken it after all

    def _settle_lost(self) -> None:
        if self._blocked is not None:
            self._sequence -= 1  # not whole with the kernel: nobody can get it
        super()._settle_lost()
