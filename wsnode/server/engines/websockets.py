"""The reference engine: the asyncio API of the `websockets` library."""

from __future__ import annotations

import asyncio
import socket
from bisect import bisect_left
from collections.abc import Collection, Sequence
from http import HTTPStatus
from time import perf_counter_ns
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, State

from wsnode import __version__
from wsnode.lean import BINARY, TEXT, Ending
from wsnode.server import paths
from wsnode.server.admission import Admission
from wsnode.server.engines import BACKLOG, Engine
from wsnode.server.engines.ending import CLOSE_TIMEOUT_S, OPEN_TIMEOUT_S, SPARE_TRANSPORTS, WRITE_LIMIT, closing_error
from wsnode.server.mesh import Mesh
from wsnode.server.paths import Echo, Refusal
from wsnode.server.rooms import Message, Room, Rooms

RECEIVE_QUEUE = 16
"""Frames read ahead of the handler before reading pauses."""
DRAIN_CHUNK = 256
"""Close frames sent before the event loop has its turn, so that /healthz answers meanwhile."""


def engine(admission: Admission, mesh: Mesh | None) -> Engine:
    """A `websockets` server behind that door."""
    return WebsocketsEngine(admission, mesh)


class _Connection(ServerConnection):
    """Tells the door how each connection ended. `engine` is set on a subclass for each server."""

    engine: WebsocketsEngine
    route: Echo | paths.Room
    room: Room[_Connection] | None = None
    opened = False
    refused = False
    reaper: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.made_at = self.loop.time()
        self.engine.transports += 1
        if self.engine.transports > self.engine.admission.limits.connections_per_worker + SPARE_TRANSPORTS:
            self.refuse("capacity")
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.close_deadline is not None and self.reaper is None:
            # After a close for a broken rule the library waits for the client's FIN without a limit of its own
            self.reaper = self.loop.call_at(self.close_deadline, self.transport.abort)

    def refuse(self, kind: str | None) -> None:
        """Count a request that is not answered with 101; None is no error."""
        self.refused = True
        if kind is not None:
            self.engine.admission.failed(kind)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.engine.transports -= 1
        if self.reaper is not None:
            self.reaper.cancel()
        admission = self.engine.admission
        if self.room is not None:
            self.engine.rooms.leave(self.room, self)
        if self.opened:
            ending = Ending.of(self.protocol)
            admission.closed(ending.code)
            kind = closing_error(ending)
        else:
            kind = self._opening_error()
        if kind is not None:
            admission.failed(kind)

    def _opening_error(self) -> str | None:
        """The error kind of a connection that ended unanswered; None for one that asked nothing."""
        if self.refused:
            return None
        if self.request is None and self.loop.time() - self.made_at >= OPEN_TIMEOUT_S:
            return "timeout"
        failure = self.protocol.handshake_exc
        if failure is None or isinstance(failure.__cause__, EOFError):
            return None
        return "handshake"


class WebsocketsEngine:
    """See `Engine`."""

    def __init__(self, admission: Admission, mesh: Mesh | None) -> None:
        self.admission = admission
        self.transports = 0
        """TCP connections, also those without a handshake yet."""
        self.rooms: Rooms[_Connection] = Rooms(self._send, admission.counters, mesh)
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        limits = self.admission.limits
        self._server: Server = await serve(
            self._handle,  # type: ignore[arg-type]  # create_connection below makes them _Connections
            sock=listener,
            backlog=BACKLOG,
            create_connection=type("_Connection", (_Connection,), {"engine": self}),
            process_request=self._process_request,  # type: ignore[arg-type]
            process_response=self._process_response,  # type: ignore[arg-type]
            server_header=f"wsnode/{__version__}",
            compression="deflate" if limits.compression else None,
            max_size=limits.message_bytes,
            max_queue=RECEIVE_QUEUE,
            write_limit=WRITE_LIMIT,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=limits.ping_interval_s,
            ping_timeout=limits.ping_timeout_s,
        )

    async def drain(self, timeout_s: float) -> int:
        deadline = asyncio.get_running_loop().time() + timeout_s
        self.rooms.flush()
        for count, connection in enumerate(self._server.connections):
            self._close(connection, CloseCode.GOING_AWAY, "server is shutting down")
            if count % DRAIN_CHUNK == DRAIN_CHUNK - 1:
                await asyncio.sleep(0)
        pending: set[asyncio.Task[None]] = set()
        if self._closing:
            _, pending = await asyncio.wait(self._closing, timeout=deadline - asyncio.get_running_loop().time())
        for connection in self._server.all_connections:
            connection.transport.abort()
        if pending:
            await asyncio.wait(pending, timeout=1)
        self._server.close(close_connections=False)
        await asyncio.sleep(0)  # it closes the listener in a task of its own
        return len(pending)

    def _process_request(self, connection: _Connection, request: Request) -> Response | None:
        admitted = self.admission.admit(request.method, request.path)
        if not isinstance(admitted, Refusal):
            connection.route = admitted
            return None
        connection.refuse(admitted.kind)
        response = connection.respond(admitted.status, admitted.text)
        if admitted.retry_after_s is not None:
            response.headers["Retry-After"] = str(admitted.retry_after_s)
        return response

    def _process_response(self, connection: _Connection, _: Request, response: Response) -> None:
        if connection.refused:
            return
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            connection.refuse("handshake")
            self.admission.withdrawn()
        elif connection.state is State.CONNECTING:
            connection.opened = True
            self.admission.opened()
            if isinstance(connection.route, paths.Room):
                connection.room = self.rooms.join(connection.route.name, connection)
        else:  # it was lost in the meantime
            self.admission.withdrawn()

    async def _handle(self, connection: _Connection) -> None:
        try:
            if connection.room is not None:
                await self._broadcast(connection, connection.room)
            else:
                await self._echo(connection)
        except ConnectionClosed:
            pass  # counted when the connection is lost

    async def _echo(self, connection: _Connection) -> None:
        counters = self.admission.counters
        processing = counters.message_processing
        # Local names: what stands in this loop is paid for every message (`./wslab bench echo`)
        bounds, counts, find, clock = processing.bounds, processing.counts, bisect_left, perf_counter_ns
        receive, send = connection.recv, connection.send
        while True:
            message = await receive()
            began = clock()
            size = len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())
            counters.messages_received += 1
            counters.bytes_received += size
            await send(message)
            counters.messages_sent += 1
            counters.bytes_sent += size
            took = clock() - began
            counts[find(bounds, took)] += 1
            processing.total += took

    async def _broadcast(self, connection: _Connection, room: Room[_Connection]) -> None:
        while True:
            message = await connection.recv()
            if self.admission.draining:
                continue  # as if it had come after the 1001 that is on its way
            if isinstance(message, bytes):
                self.rooms.publish(room, BINARY, message)
            else:
                self.rooms.publish(room, TEXT, message.encode())

    def _send(self, subscribers: Collection[_Connection], messages: Sequence[Message]) -> int:
        """See `Rooms`. Who is too slow is closed."""
        limit = self.admission.limits.backlog_bytes
        receivers: list[_Connection] = []
        slow: list[_Connection] = []
        for subscriber in subscribers:
            if subscriber.protocol.state is OPEN:
                (slow if subscriber.transport.get_write_buffer_size() > limit else receivers).append(subscriber)
        for first, payload in messages:
            broadcast(receivers, payload.decode() if first == TEXT else payload)
        for subscriber in slow:
            self._close(subscriber, CloseCode.TRY_AGAIN_LATER, "subscriber too slow")
        return len(receivers)

    def arrived(self, name: bytes, first: int, payload: bytes) -> None:
        self.rooms.arrived(name, first, payload)

    def _close(self, connection: ServerConnection, code: CloseCode, reason: str) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(connection.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
