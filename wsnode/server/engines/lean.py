"""The fast engine: a `wsnode.lean` connection for each client, one timer for all of them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Sequence
from email.utils import formatdate
from time import perf_counter_ns
from typing import TYPE_CHECKING, ClassVar

from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from wsnode import __version__
from wsnode.lean import BINARY, HEADS, TEXT, LeanServer, apply_mask, frame_head
from wsnode.server import handshake, paths
from wsnode.server.admission import Admission
from wsnode.server.engines import BACKLOG
from wsnode.server.engines.ending import (
    CLOSE_TIMEOUT_S,
    KEEPALIVE_TIMEOUT,
    OPEN_TIMEOUT_S,
    SPARE_TRANSPORTS,
    WRITE_LIMIT,
    closing_error,
)
from wsnode.server.mesh import Mesh
from wsnode.server.paths import Echo, Refusal
from wsnode.server.rooms import Message, Room, Rooms

if TYPE_CHECKING:
    from wsnode.telemetry import Counters

log = logging.getLogger("wsnode.server")

SERVER = f"wsnode/{__version__}"
PING_ROUNDS = 32
"""Parts that all connections are dealt to; each part is pinged in turn, so that pings are spread over the interval."""
LONGEST_TICK_S = 1.0
DRAIN_CHUNK = 256
"""Close frames sent before the event loop has its turn, so that /healthz answers meanwhile."""
DRAIN_POLL_S = 0.02


def engine(admission: Admission, mesh: Mesh | None) -> LeanEngine:
    """A lean server behind that door."""
    return LeanEngine(admission, mesh)


class _Connection(LeanServer):
    """An open connection. `engine`, `counters` and `limit` are set on subclasses for each engine."""

    __slots__ = ("awaited", "part")

    engine: ClassVar[LeanEngine]
    counters: ClassVar[Counters]

    part: int
    awaited: bytes | None
    """Payload of the ping that has had no pong yet."""

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception:
            self.broken()

    def broken(self) -> None:
        """A fault of our own, while it is being handled: this connection ends by it, no other."""
        log.exception("connection handler failed")
        self.fail(CloseCode.INTERNAL_ERROR)

    def ponged(self, payload: bytes) -> None:
        if payload == self.awaited:
            self.awaited = None

    def closing(self) -> None:
        self.engine.closing[self] = self.engine.now() + CLOSE_TIMEOUT_S
        # What it has not read by then it never will: the reply to its close frame must get in.
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.ended(self)


class _Echo(_Connection):
    """Every message comes back unchanged."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        size = len(data) - 6
        if 0 <= size < 126 and data[1] - 128 == size and self._special is None and not self._rest:
            # One short message and nothing else, as most are: `_usual` and `received` in one go, which saves a tenth
            # of a message's CPU time (`./wslab bench echo`).
            first = data[0]
            if first == TEXT or first == BINARY:  # noqa: PLR1714, SIM109  a tuple costs more
                began = perf_counter_ns()
                payload = apply_mask(data[6:], data[2:6])
                if size <= self.limit and (first == BINARY or payload.isascii()):
                    try:
                        self.transport.write(HEADS[first][size] + payload)
                        counters = self.counters
                        counters.messages_received += 1
                        counters.bytes_received += size
                        counters.messages_sent += 1
                        counters.bytes_sent += size
                        processing = counters.message_processing
                        took = perf_counter_ns() - began
                        processing.counts[bisect_left(processing.bounds, took)] += 1
                        processing.total += took
                    except Exception:
                        self.broken()
                    return
        super().data_received(data)

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        began = perf_counter_ns()
        special = self._special
        if special is not None and special.protocol.extensions:
            for first, payload in messages:
                special.send(first, payload)
            self.flush(special.protocol)
            size = sum(len(payload) for _, payload in messages)
        elif len(messages) == 1:
            first, payload = messages[0]
            size = len(payload)
            self.transport.write((HEADS[first][size] if size < 126 else frame_head(first, size)) + payload)
        else:
            parts: list[bytes] = []
            size = 0
            for first, payload in messages:
                parts += (frame_head(first, len(payload)), payload)
                size += len(payload)
            self.transport.write(b"".join(parts))
        count, counters = len(messages), self.counters
        counters.messages_received += count
        counters.bytes_received += size
        counters.messages_sent += count
        counters.bytes_sent += size
        processing = counters.message_processing
        took = (perf_counter_ns() - began) // count
        processing.counts[bisect_left(processing.bounds, took)] += count
        processing.total += took * count

    def pause_writing(self) -> None:
        """It does not read what it is sent: take no more of it."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class _Subscriber(_Connection):
    """Every message goes to all of its room."""

    __slots__ = ("_room",)

    def join(self, name: str) -> None:
        """Subscribe."""
        self._room: Room[_Subscriber] = self.engine.rooms.join(name, self)
        self.transport.set_write_buffer_limits(high=self.engine.admission.limits.backlog_bytes)

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        engine = self.engine
        if engine.admission.draining:
            return  # as if it had come after the 1001 that is on its way
        for first, payload in messages:
            engine.rooms.publish(self._room, first, payload)

    def pause_writing(self) -> None:
        """More than the backlog that is allowed has piled up."""
        self.close(CloseCode.TRY_AGAIN_LATER, "subscriber too slow")

    def connection_lost(self, exc: Exception | None) -> None:
        self.engine.rooms.leave(self._room, self)
        super().connection_lost(exc)


def _send(subscribers: Collection[_Subscriber], messages: Sequence[Message]) -> int:
    """See `Rooms`: one write for each subscriber."""
    joined = b"".join([part for first, payload in messages for part in (frame_head(first, len(payload)), payload)])
    deliveries = 0
    for subscriber in list(subscribers):
        special = subscriber._special
        if special is None or (special.protocol.state is OPEN and not special.protocol.extensions):
            subscriber.transport.write(joined)
        elif special.protocol.state is OPEN:
            for first, payload in messages:
                special.send(first, payload)
            subscriber.flush(special.protocol)
        else:
            continue
        deliveries += 1
    return deliveries


class _Door(asyncio.Protocol):
    """A TCP connection until its handshake is done or refused."""

    __slots__ = ("_data", "_engine", "_failed", "_protocol", "_transport", "made_at", "refused")

    def __init__(self, engine: LeanEngine) -> None:
        self._engine = engine
        self._data = b""
        self._protocol: ServerProtocol | None = None
        self._failed = False
        """What it asked is no handshake that can be answered."""
        self.refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        engine = self._engine
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is of no such class
        self.made_at = engine.now()
        engine.doors[self] = None
        engine.transports += 1
        if engine.transports > engine.admission.limits.connections_per_worker + SPARE_TRANSPORTS:
            self._refuse("capacity")
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._library(data)  # it is answered already, or broken
            return
        data = self._data = self._data + data
        ends_at = data.find(handshake.HEAD_END)
        if ends_at < 0:
            # A request line that can't be one need not be waited for.
            if len(data) > handshake.LONGEST_BYTES or not b"GET ".startswith(data[:4]):
                self._library(data)
            return
        usual = self._engine.requests.read(data, ends_at)
        if usual is None:
            end = ends_at + len(handshake.HEAD_END)
            self._library(data[:end], data[end:])
            return
        admitted = self._engine.admission.admit("GET", usual.target)
        if isinstance(admitted, Refusal):
            self._library(data[: usual.end], data[usual.end :], admitted)
            return
        self._open(admitted, handshake.answer(usual.key, self._engine.date, self._engine.server), data[usual.end :])

    def _library(self, data: bytes, rest: bytes = b"", decided: Refusal | None = None) -> None:
        """An unusual request: as the library reads it."""
        protocol = self._protocol
        if protocol is None:
            limits = self._engine.admission.limits
            extensions = enable_server_permessage_deflate(None) if limits.compression else None
            protocol = self._protocol = ServerProtocol(extensions=extensions, max_size=limits.message_bytes)
        protocol.receive_data(data)
        admitted: Echo | paths.Room | None = None
        for event in protocol.events_received():
            if isinstance(event, Request):
                admitted = self._answer(protocol, event, decided)
        if admitted is not None:
            self._open(admitted, b"".join(protocol.data_to_send()), rest, protocol)
        for out in protocol.data_to_send():
            if out:
                self._transport.write(out)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
        if admitted is None and protocol.handshake_exc is not None and not self.refused:
            self._failed = True
        if protocol.state is not OPEN:
            self._engine.leaving.setdefault(self, self._engine.now() + CLOSE_TIMEOUT_S)

    def _answer(self, protocol: ServerProtocol, request: Request, decided: Refusal | None) -> Echo | paths.Room | None:
        admitted = decided or self._engine.admission.admit(request.method, request.path)
        response: Response
        if isinstance(admitted, Refusal):
            self._refuse(admitted.kind)
            response = protocol.reject(admitted.status, admitted.text)
            if admitted.retry_after_s is not None:
                response.headers["Retry-After"] = str(admitted.retry_after_s)
        else:
            response = protocol.accept(request)
            if response.status_code != 101:
                self._engine.admission.withdrawn()
                self._refuse("handshake")
        response.headers["Server"] = SERVER
        protocol.send_response(response)
        return admitted if not isinstance(admitted, Refusal) and response.status_code == 101 else None

    def _open(
        self, admitted: Echo | paths.Room, answer: bytes, rest: bytes, protocol: ServerProtocol | None = None
    ) -> None:
        engine, transport = self._engine, self._transport
        connection: _Connection
        connection = engine.subscriber() if isinstance(admitted, paths.Room) else engine.echo()
        connection.begin(transport, protocol if protocol is not None and protocol.extensions else None)
        engine.doors.pop(self, None)
        engine.opened(connection)
        transport.set_protocol(connection)
        if isinstance(admitted, paths.Room):
            assert isinstance(connection, _Subscriber)
            connection.join(admitted.name)
        else:
            transport.set_write_buffer_limits(high=WRITE_LIMIT)
        transport.write(answer)
        if rest:
            connection.data_received(rest)

    def _refuse(self, kind: str | None) -> None:
        """Count a request that is not answered with 101; None is no error."""
        self.refused = True
        if kind is not None:
            self._engine.admission.failed(kind)

    def eof_received(self) -> None:
        """The client has ended its side: the transport closes."""

    def expire(self) -> None:
        """It has had its time."""
        if not self.refused and not self._failed:
            self._refuse("timeout")
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        engine = self._engine
        engine.transports -= 1
        engine.doors.pop(self, None)
        engine.leaving.pop(self, None)
        if not self.refused and self._failed:
            engine.admission.failed("handshake")


class LeanEngine:
    """See `wsnode.server.engines.Engine`."""

    def __init__(self, admission: Admission, mesh: Mesh | None) -> None:
        self.admission = admission
        self.transports = 0
        """TCP connections, also those without a handshake yet."""
        self.rooms = Rooms(_send, admission.counters, mesh, admission.limits.coalesce_s)
        self.doors: dict[_Door, None] = {}
        """Those without a handshake yet, oldest first."""
        self.leaving: dict[_Door, float] = {}
        """Refused ones that have been answered: when their time is over."""
        self.closing: dict[_Connection, float] = {}
        """Connections whose close handshake has begun: when their time is over, soonest first."""
        self.requests = handshake.Reader(ignore_extensions=not admission.limits.compression)
        self.server = SERVER.encode()
        self.date = _date()
        mine = {
            "__slots__": (),
            "engine": self,
            "counters": admission.counters,
            "limit": admission.limits.message_bytes,
        }
        self.echo: type[_Echo] = type("Echo", (_Echo,), mine)
        self.subscriber: type[_Subscriber] = type("Subscriber", (_Subscriber,), mine)
        self._parts: list[set[_Connection]] = [set() for _ in range(PING_ROUNDS)]
        self._next_part = 0
        self._dealt = 0
        self._pinged: deque[tuple[float, int, bytes]] = deque()
        """(deadline, part, payload) of pings whose pongs may still come."""
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()

    async def start(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        limits = self.admission.limits
        interval_s = limits.ping_interval_s
        self._tick_s = min(LONGEST_TICK_S, interval_s / PING_ROUNDS) if interval_s else LONGEST_TICK_S
        if limits.ping_timeout_s:
            self._tick_s = min(self._tick_s, limits.ping_timeout_s / 4)
        self._ping_at = self.now() + (interval_s or 0) / PING_ROUNDS
        self._server = await self._loop.create_server(lambda: _Door(self), sock=listener, backlog=BACKLOG)
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    async def drain(self, timeout_s: float) -> int:
        deadline = self.now() + timeout_s
        self.rooms.flush()
        everybody = [connection for part in self._parts for connection in part]
        for count, connection in enumerate(everybody):
            connection.close(CloseCode.GOING_AWAY, "server is shutting down")
            if count % DRAIN_CHUNK == DRAIN_CHUNK - 1:
                await asyncio.sleep(0)
        while any(self._parts) and self.now() < deadline:  # noqa: ASYNC110  at a service's end a poll costs nothing
            await asyncio.sleep(min(DRAIN_POLL_S, max(0.0, deadline - self.now())))
        late = [connection for part in self._parts for connection in part]
        for connection in late:
            connection.transport.abort()
        for door in list(self.doors):
            door.expire()
        if self._timer is not None:
            self._timer.cancel()
        self._server.close()
        await asyncio.sleep(0)
        return len(late)

    def arrived(self, name: bytes, first: int, payload: bytes) -> None:
        self.rooms.arrived(name, first, payload)

    # --- from connections ---

    def opened(self, connection: _Connection) -> None:
        """A handshake was answered with 101."""
        connection.awaited = None
        connection.part = self._dealt = (self._dealt + 1) % PING_ROUNDS
        self._parts[connection.part].add(connection)
        self.admission.opened()

    def ended(self, connection: _Connection) -> None:
        """An open connection is gone."""
        self.transports -= 1
        self._parts[connection.part].discard(connection)
        self.closing.pop(connection, None)
        ending = connection.ending
        self.admission.closed(ending.code)
        if (kind := closing_error(ending)) is not None:
            self.admission.failed(kind)

    # --- the one timer ---

    def _tick(self) -> None:
        now = self.now()
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        self.date = _date()
        for door in self._until(now):
            door.expire()
        while self.closing and (first := next(iter(self.closing))) and self.closing[first] <= now:
            del self.closing[first]
            first.transport.abort()
        interval_s, timeout_s = self.admission.limits.ping_interval_s, self.admission.limits.ping_timeout_s
        if interval_s is None:
            return
        while self._pinged and self._pinged[0][0] <= now:
            _, part, payload = self._pinged.popleft()
            for connection in [c for c in self._parts[part] if c.awaited is payload]:
                connection.fail(CloseCode.INTERNAL_ERROR, KEEPALIVE_TIMEOUT)
        while self._ping_at <= now:
            self._ping_at += interval_s / PING_ROUNDS
            self._ping(self._next_part, timeout_s, now)
            self._next_part = (self._next_part + 1) % PING_ROUNDS

    def _ping(self, part: int, timeout_s: float | None, now: float) -> None:
        payload = os.urandom(4)
        frame = b"\x89\x04" + payload
        for connection in self._parts[part]:
            if connection.is_open and (connection.awaited is None or not timeout_s):
                connection.awaited = payload
                connection.write(frame)
        if timeout_s and self._parts[part]:
            self._pinged.append((now + timeout_s, part, payload))

    def _until(self, now: float) -> list[_Door]:
        """Doors whose time is over."""
        expired = []
        for door in self.doors:
            if door.made_at > now - OPEN_TIMEOUT_S:
                break
            expired.append(door)
        return expired + [door for door, deadline in self.leaving.items() if deadline <= now]


def _date() -> bytes:
    return formatdate(usegmt=True).encode()
