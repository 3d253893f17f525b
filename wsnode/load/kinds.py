"""Clients that are not as they should be (`wsnode.core.kinds`): what a server makes of them is the result.

Their connections count as any other's, but for half-open ones, which never ask for one. Their messages are due and sent
as any other's, no reply is awaited (`messages_no_reply`), and those that their connection does not take are unsent as
`client_kind`, in no ratio and no percentile. Beside that each kind has counts of its own, `KIND.EVENT`.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import TYPE_CHECKING

from wsnode.lean import PING
from wsnode.load.client import CLOSING, CONNECTING, DOWN, OPEN, Client, Setting
from wsnode.load.error import connect_error
from wsnode.load.recorder import NS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from wsnode.core.kinds import Cast, Kind
    from wsnode.load.recorder import DueSecond

RECEIVE_BUFFER = 4096
"""Bytes that the kernel is asked to keep for who reads slowly; it takes twice that. A usual one hides him for long."""
KEY = b"AAAAAAAAAAAAAAAAAAAAAA=="


def clients_of(
    numbers: Iterable[int], setting: Setting, cast: Cast, normal: Callable[[int, Setting], Client]
) -> list[Client]:
    """Each of its kind."""
    odd = setting._replace(match="none", max_in_flight=None)
    return [
        normal(number, setting) if (kind := cast.kind_of(number)) is None else _CLASSES[kind.name](number, odd, kind)
        for number in numbers
    ]


class OddClient(Client):
    """One whose replies nobody awaits, and whose events are counted by kind."""

    __slots__ = ("_kind",)

    def __init__(self, number: int, setting: Setting, kind: Kind) -> None:
        super().__init__(number, setting)
        self._kind = kind

    def _count(self, event: str, n: int = 1) -> None:
        self._setting.recorder.kinds[f"{self._kind.name}.{event}"] += n

    def _handshake_done(self) -> None:
        super()._handshake_done()
        self._count("opened")

    def _error(self, kind: str) -> None:
        super()._error(kind)
        self._count(kind)

    def _unsent(self, second: DueSecond, reason: str) -> None:
        super()._unsent(second, "client_kind")

    def _handed_over(self, second: DueSecond, turn_ns: int, key: Hashable, now: int) -> None:
        super()._handed_over(second, turn_ns, key, now)
        self._count("sent")


class SlowReader(OddClient):
    """Reads at most so many bytes a second, 0: nothing once the handshake has ended."""

    __slots__ = ("_budget", "_granted_ns", "_paused")

    watched = True
    receive_buffer = RECEIVE_BUFFER

    def _handshake_done(self) -> None:
        self._budget, self._granted_ns, self._paused = self._kind.amount, monotonic_ns(), False
        super()._handshake_done()
        self._pace()

    def data_received(self, data: bytes) -> None:
        was_open = self.state == OPEN
        super().data_received(data)
        if was_open and self.state == OPEN:
            self._count("bytes_read", len(data))
            self._budget -= len(data)
            self._pace()

    def expire(self, now: int) -> None:
        super().expire(now)
        if self.state == OPEN and self._kind.amount:
            passed = min(now - self._granted_ns, NS)
            self._granted_ns = now
            self._budget = min(self._kind.amount, self._budget + passed * self._kind.amount // NS)
            self._pace()

    def _pace(self) -> None:
        paused = self._budget <= 0
        if paused is not self._paused and not self.transport.is_closing():
            self._paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def leave(self) -> None:
        """As any other, so that what waits is read and the server's close frame is found behind it."""
        if self.state == OPEN:
            self._budget = 1
            self._pace()
        super().leave()


class IdlePinger(OddClient):
    """Sends a ping every so many seconds, to a sweep's half second, and nothing else."""

    __slots__ = ("_ping_at", "_unanswered")

    sends = False
    watched = True

    def __init__(self, number: int, setting: Setting, kind: Kind) -> None:
        super().__init__(number, setting, kind)
        self._ping_at = 0
        self._unanswered = False

    def _handshake_done(self) -> None:
        super()._handshake_done()
        self._ping_at = monotonic_ns() + self._kind.amount * NS

    def expire(self, now: int) -> None:
        if self.state != OPEN or not self.is_open or now < self._ping_at:
            return
        if self._unanswered:
            self._count("pongs_missed")
        self._unanswered = True
        self._ping_at += self._kind.amount * NS
        self._count("pings")
        self.write(self.frame(PING, b"%x" % self.number))

    def ponged(self, payload: bytes) -> None:
        if self.state == OPEN and self._unanswered:
            self._unanswered = False
            self._count("pongs")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._unanswered:
            self._unanswered = False
            self._count("pongs_missed")
        super().connection_lost(exc)


class HalfOpen(OddClient):
    """Connects, and asks for a connection in half: it is in no account but its kind's. Where the server ends it, it
    comes again as others reconnect."""

    __slots__ = ("_attaching",)

    sends = False

    def connect(self) -> None:
        """Begin an attempt."""
        self.state = CONNECTING
        self._count("attempted")
        try:
            self._socket = self._setting.address.dial(self.number)
        except OSError as error:
            self._connect_failed(connect_error(error))
        else:
            self._attaching = asyncio.get_running_loop().create_task(self._attach(self._socket))

    def _end_connecting(self, kind: str) -> None:
        self.state = DOWN
        self._count(kind)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TCP stands, or is about to: the request's first two lines, and no more."""
        self.own_socket()
        self.begin(transport)  # type: ignore[arg-type]  # uvloop's is of no such class
        self._connected = True
        self.state = OPEN
        method, host, _ = self._setting.address.request.of(KEY, self.number).split(b"\r\n", 2)
        self.write(b"%b\r\n%b\r\n" % (method, host))

    def data_received(self, data: bytes) -> None:
        """Whatever the server says, such as 408."""

    def eof_received(self) -> None:
        """The transport closes."""

    def leave(self) -> None:
        """There is nothing to close in order."""
        if self.state == OPEN:
            self.state = CLOSING
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._connected:
            return
        self._connected = False
        self._below = None
        state, self.state = self.state, DOWN
        if state == OPEN:
            kind = connect_error(exc) if isinstance(exc, OSError) else "reset"
            self._count("ended_by_server" if kind == "reset" else kind)
            self._reconnect()


_CLASSES: dict[str, type[OddClient]] = {
    "slow_reader": SlowReader,
    "never_reads": SlowReader,
    "half_open": HalfOpen,
    "idle_pings": IdlePinger,
}
