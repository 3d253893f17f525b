"""The links between the workers of a service, over which rooms reach all of them.

Every two workers share one stream, which the one of the higher number opens. The service holds the sockets that they
listen on (`Meeting`), so that a connect to a worker that has fallen waits for its successor. A link carries what was
published at its one end for rooms that have subscribers at the other (`wsnode.server.interest`), once and in order;
nothing is ever sent again, so nothing doubles. `docs/adr/0015-rooms-over-workers.md` has the guarantee.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from wsnode.server.interest import Interest
from wsnode.server.wire import BARRIER, Decoder, WireError, encode

if TYPE_CHECKING:
    from wsnode.telemetry import Counters

log = logging.getLogger("wsnode.server")

QUEUE_BYTES = 16 << 20
"""Unsent bytes for one worker at which further messages for it are dropped, whole. A single message always fits."""
LINK_TIMEOUT_S = 5.0
"""How long a starting worker waits for its links to workers that serve already."""
SETTLE_TIMEOUT_S = 1.0
"""How long a draining worker waits for what others have published."""
_RETRY_S = 0.05
_HELLO = struct.Struct(">16sHI")

Arrived = Callable[[bytes, int, bytes], None]
"""Takes room, first byte and payload of a message that another worker has sent."""


class Meeting:
    """The service's side: what its workers find each other by. It takes no part."""

    def __init__(self, workers: int) -> None:
        self._token = secrets.token_hex(16)
        """Shown on each link: abstract sockets are open to the whole machine."""
        self._interest = Interest.create(workers)
        self._listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(workers)]
        for listener in self._listeners:
            listener.bind("")  # the kernel chooses an abstract name: no file, no length limit, nothing left behind
            listener.listen(workers + 16)

    def config(self, number: int) -> dict[str, Any]:
        """What a worker must be told to take part."""
        return {
            "token": self._token,
            "addresses": [listener.getsockname().decode("latin-1") for listener in self._listeners],
            "listener_fd": self._listeners[number].fileno(),
            "interest_fd": self._interest.fd,
        }

    def descriptors(self, number: int) -> tuple[int, int]:
        """Those of `config`."""
        return self._listeners[number].fileno(), self._interest.fd

    def ended(self, number: int) -> None:
        """A worker is gone, its successor not yet there: nobody need wait for it, or send it anything."""
        self._interest.clear(number)

    def close(self) -> None:
        """No worker is left."""
        for listener in self._listeners:
            listener.close()
        self._interest.close()


class Mesh:
    """A worker's links to all others."""

    def __init__(self, number: int, config: dict[str, Any], payload_bytes: int, counters: Counters) -> None:
        """`config` is what `Meeting.config` gave for that number, `payload_bytes` the longest message."""
        self.number = number
        self.payload_bytes = payload_bytes
        self._counters = counters
        self._addresses: list[str] = config["addresses"]
        self._token = bytes.fromhex(config["token"])
        self._listener = socket.socket(fileno=config["listener_fd"])
        self._interest = Interest(config["interest_fd"], len(self._addresses))
        self._peers = {other: _Peer(other, self._interest) for other in range(len(self._addresses)) if other != number}
        self._links: list[_Peer] = list(self._peers.values())
        self._flushing = False
        self._ending = False
        self._changed = asyncio.Event()
        """Set whenever a link has come or gone, or a barrier come."""

    @classmethod
    def take(cls, number: int, config: dict[str, Any] | None, payload_bytes: int, counters: Counters) -> Self | None:
        """The mesh of a service with more than one worker."""
        return None if config is None else cls(number, config, payload_bytes, counters)

    async def start(self, arrived: Arrived) -> bool:
        """Link up with all workers that serve. Returns whether all links came in time; others come when they can."""
        self._loop = asyncio.get_running_loop()
        self.arrived = arrived
        self._interest.take(self.number, os.getpid())  # before looking at others: of two that start, one waits
        self._server = await self._loop.create_unix_server(lambda: _Link(self), sock=self._listener)
        for other in range(self.number):
            self._connect(other)
        return await self._until(
            lambda: all(peer.link or not self._interest.owner(peer.number) for peer in self._links), LINK_TIMEOUT_S
        )

    # --- rooms ---

    def joined(self, at: int) -> None:
        """A room of that bucket has its first subscriber here."""
        self._interest.add(self.number, at)

    def left(self, at: int) -> None:
        """A room of that bucket has lost its last subscriber here."""
        self._interest.remove(self.number, at)

    def forward(self, at: int, name: bytes, first: int, payload: bytes) -> None:
        """To each worker with subscribers of the room, whose bucket is `at`: written at the end of this tick."""
        record = b""
        for peer in self._links:
            if not peer.row[at]:
                continue
            link = peer.link
            if link is None:
                # Whoever fell took its subscribers along; one that serves without a link to here misses something.
                if self._interest.owner(peer.number) not in (0, peer.gone):
                    self._counters.room_messages_dropped["unlinked"] += 1
                continue
            record = record or encode(name, first, payload)
            if not link.offer(record):
                self._counters.room_messages_dropped["backlog"] += 1
                continue
            self._counters.room_messages_forwarded += 1
            if not self._flushing:
                self._flushing = True
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for peer in self._links:
            if peer.link is not None:
                peer.link.flush()

    # --- ending ---

    async def settle(self, timeout_s: float) -> bool:
        """Nothing is published here any more: tell all, and wait until they have told the same, so that what they had
        published before has arrived. Returns whether all have."""
        self._ending = True
        self._flush()
        for peer in self._links:
            if peer.link is not None:
                peer.link.transport.write(BARRIER)
        return await self._until(
            lambda: all(peer.link is None or peer.link.silent for peer in self._links),
            min(timeout_s, SETTLE_TIMEOUT_S),
        )

    def close(self) -> None:
        """End all links."""
        self._ending = True
        self._server.close()
        for peer in self._links:
            if peer.link is not None:
                peer.link.transport.abort()

    async def _until(self, so: Callable[[], bool], timeout_s: float) -> bool:
        deadline = self._loop.time() + timeout_s
        while not so():
            left = deadline - self._loop.time()
            if left <= 0:
                return False
            self._changed.clear()
            with suppress(TimeoutError):
                # Not every change is told: the rows of workers that end are cleared by the service
                await asyncio.wait_for(self._changed.wait(), min(left, _RETRY_S))
        return True

    # --- links ---

    def _connect(self, other: int) -> None:
        if self._ending:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._addresses[other].encode("latin-1"))
        except BlockingIOError:  # so many wait for it already
            sock.close()
            self._loop.call_later(_RETRY_S, self._connect, other)
            return
        except OSError:  # the service is gone, and with it soon this worker
            sock.close()
            return
        self._opening = self._loop.create_task(self._take_over(sock, other))

    async def _take_over(self, sock: socket.socket, other: int) -> None:
        await self._loop.create_unix_connection(lambda: _Link(self, other), sock=sock)

    def hello(self) -> bytes:
        """What each end says first."""
        return _HELLO.pack(self._token, self.number, os.getpid())

    def met(self, link: _Link, hello: bytes) -> _Peer | None:
        """Who it is that says this; None: nobody of this service."""
        token, number, pid = _HELLO.unpack(hello)
        peer = self._peers.get(number)
        if peer is None or not hmac.compare_digest(token, self._token):
            return None
        # A link that was there is a fallen worker's: what it had sent is still read, until its end is told.
        peer.link, peer.pid, peer.gone = link, pid, 0
        self._changed.set()
        return peer

    def lost(self, link: _Link, peer: _Peer | None) -> None:
        """A link has ended."""
        if peer is not None and peer.link is link:
            peer.link, peer.gone = None, peer.pid
            self._changed.set()
        if link.other is not None:
            self._connect(link.other)


class _Peer:
    """Another worker, whichever process that is."""

    __slots__ = ("gone", "link", "number", "pid", "row")

    def __init__(self, number: int, interest: Interest) -> None:
        self.number = number
        self.row = interest.row(number)
        self.link: _Link | None = None
        self.pid = 0
        self.gone = 0
        """Process id of the one whose link has ended, until a successor's is there."""


class _Link(asyncio.Protocol):
    """A stream to another worker."""

    def __init__(self, mesh: Mesh, other: int | None = None) -> None:
        """`other`: whom this end has connected to; None where it was connected to."""
        self.other = other
        self.silent = False
        """Its barrier has come."""
        self._mesh = mesh
        self._peer: _Peer | None = None
        self._decoder = Decoder(mesh.payload_bytes)
        self._hello = b""
        self._queue: list[bytes] = []
        self._queued_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self._mesh.hello())

    def offer(self, record: bytes) -> bool:
        """Queue a record; False where too much waits already."""
        unsent = self._queued_bytes + self.transport.get_write_buffer_size()
        if unsent and unsent + len(record) > QUEUE_BYTES:
            return False
        self._queue.append(record)
        self._queued_bytes += len(record)
        return True

    def flush(self) -> None:
        """Write what is queued, in one piece."""
        if self._queue:
            self.transport.write(b"".join(self._queue))
            self._queue = []
            self._queued_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            self._hello += data
            if len(self._hello) < _HELLO.size:
                return
            hello, data = self._hello[: _HELLO.size], self._hello[_HELLO.size :]
            self._peer = self._mesh.met(self, hello)
            if self._peer is None:
                self.transport.abort()
                return
        try:
            for name, first, payload in self._decoder.feed(data):
                if first:
                    self._mesh.arrived(name, first, payload)
                else:
                    self.silent = True
                    self._mesh._changed.set()
        except WireError:
            log.exception("the link to worker %d is unreadable", self._peer.number)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._mesh.lost(self, self._peer)
