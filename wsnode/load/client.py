"""One client of a load: it connects, sends in turn, matches replies, and comes back after a break.

It is a lean connection (`wsnode.lean`), driven as an asyncio.Protocol rather than through `websockets.connect`, since
the schedule must never wait for a connection, and since the moment when a message is with the kernel must be known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic_ns
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from wsnode.lean import BINARY, TEXT, LeanClient, apply_mask, frame_head
from wsnode.load.address import Address
from wsnode.load.error import break_error, connect_error
from wsnode.load.opening import Opening
from wsnode.load.recorder import DueSecond, Recorder

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Hashable

IDLE, CONNECTING, OPEN, BROKEN, CLOSING, DOWN = range(6)
"""BROKEN: the server closes, or has broken the protocol; the TCP connection has not ended yet."""
CLOSE_PATIENCE_S = 2.0
"""How long the server has to close the TCP connection after a close frame."""
LONGEST_REPLY = 16 << 20
"""Bytes of a message from the server; a longer one breaks the connection."""


class Setting(NamedTuple):
    """What all clients of a worker share."""

    address: Address
    recorder: Recorder
    match: str
    size: int
    head: bytes
    """Of each message's frame: opcode and size."""
    max_in_flight: int | None
    queue_while_down: bool
    reply_timeout_ns: int
    connect_timeout_ns: int
    reconnect: Callable[[Client], None] | None
    """Called when a connection broke or a connect failed; None: the client stays down."""
    connecting: dict[Client, asyncio.Task[None] | None]
    """Those whose handshake has not ended, the oldest first, and what attaches their sockets to the loop."""
    opened: set[Client]


def message_head(binary: bool, size: int) -> bytes:
    """What stands before the mask of a message from a client."""
    head = frame_head(BINARY if binary else TEXT, size)
    return head[:1] + bytes((head[1] | 0x80,)) + head[2:]


class _Below(asyncio.Protocol):
    """Of a connection that is to carry TLS."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client.own_socket()


class Client(LeanClient):
    """A client over all its connections."""

    __slots__ = (
        "_arrived_ns",
        "_began_ns",
        "_below",
        "_blocked",
        "_connected",
        "_opened_ns",
        "_opening",
        "_outstanding",
        "_prefix",
        "_sequence",
        "_setting",
        "_socket",
        "_timer",
        "_waiting",
        "number",
        "state",
    )

    limit = LONGEST_REPLY
    sends: ClassVar[bool] = True
    """Whether it has turns."""
    watched: ClassVar[bool] = False
    """Whether `expire` is to be called twice a second even where nothing is awaited."""
    receive_buffer: ClassVar[int | None] = None
    """Bytes that the kernel keeps of what is not read; None: its own choice."""

    def __init__(self, number: int, setting: Setting) -> None:
        self.number = number
        self.state = IDLE
        self._setting = setting
        self._prefix = b"%x " % number
        self._sequence = 0
        self._outstanding: dict[Hashable, tuple[DueSecond, int, int]] = {}
        """Sent and awaited, oldest first: key → (second, turn, when the kernel had it)."""
        self._waiting: deque[tuple[DueSecond, int]] | tuple[()] = ()
        """Their turn came, but the server does not read or the connection is down: (second, turn)."""
        self._blocked: tuple[DueSecond | None, int, Hashable] | None = None
        """The message that the kernel has taken in part, or not at all. Its second is None once it was given up: its
        bytes are still in the way."""
        self._socket: socket.socket | None = None
        """Until a transport has its descriptor."""
        self._connected = False
        """Whether there is a transport."""
        self._below: asyncio.Transport | None = None
        """Of a TLS connection what carries it: its buffer too must be empty before the kernel has everything."""
        self._opening: Opening | None = None
        self._rest = b""
        self._special = None
        self._timer: asyncio.TimerHandle | None = None
        self._began_ns = self._opened_ns = self._arrived_ns = 0

    @property
    def opened_ns(self) -> int:
        """When its last connection opened (monotonic ns); 0: it never had one."""
        return self._opened_ns

    @property
    def in_flight(self) -> int:
        """Messages sent and neither answered nor given up."""
        return len(self._outstanding)

    @property
    def unsettled(self) -> int:
        """Messages whose fate is open, unsent ones included."""
        blocked = self._blocked is not None and self._blocked[0] is not None
        return len(self._outstanding) + len(self._waiting) + blocked

    # --- connecting ---

    def connect(self) -> None:
        """Begin an attempt to open a connection, which is over when this client has left `Setting.connecting`."""
        setting = self._setting
        recorder = setting.recorder
        recorder.attempted += 1
        recorder.live.connections_attempted += 1
        self.state = CONNECTING
        self._began_ns = monotonic_ns()
        setting.connecting[self] = None
        try:
            self._socket = setting.address.dial(self.number, self.receive_buffer)
        except OSError as error:
            self._connect_failed(connect_error(error))
            return
        setting.connecting[self] = asyncio.get_running_loop().create_task(self._attach(self._socket))

    async def _attach(self, sock: socket.socket) -> None:
        """Give a socket that is still connecting to the event loop. What is written to it waits for the peer, and a
        refusal comes as the end of the connection: half the price of awaiting the connect first."""
        loop, tls = asyncio.get_running_loop(), self._setting.address.tls
        try:
            if tls is None:
                await loop.create_connection(lambda: self, sock=sock)
            else:
                await self._attach_tls(loop, sock, tls)
        except OSError as error:
            # A connection that was made and lost again has said so itself, in connection_lost.
            if self.state == CONNECTING and not self._connected:
                self._connect_failed(connect_error(error))

    async def _attach_tls(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, tls: ssl.SSLContext) -> None:
        """In two steps, since the transport that `create_connection` gives hides what the kernel has not taken."""
        below, _ = await loop.create_connection(lambda: _Below(self), sock=sock)
        try:
            below.set_write_buffer_limits(high=0)
            above = await loop.start_tls(below, self, tls, server_hostname=self._setting.address.uri.host)
        except BaseException:
            below.abort()
            raise
        if self.state == CONNECTING and above is not None:  # else connection_lost has been called already
            self._below = below
            self.connection_made(above)

    def own_socket(self) -> None:
        """The descriptor is the transport's alone from its begin on. uvloop takes it from the socket object a moment
        later; a connection that is refused meanwhile would have it closed twice, the second time as somebody else's."""
        if self._socket is not None:
            self._socket.detach()
            self._socket = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a transport: the opening handshake goes out as soon as TCP stands."""
        self.own_socket()
        self.begin(transport)  # type: ignore[arg-type]  # uvloop's is of no such class
        self._connected = True
        # With no room in the buffer, the transport tells at once whether the kernel has taken everything.
        self.transport.set_write_buffer_limits(high=0)
        self._opening = opening = Opening(self._setting.address.request, self.number)
        transport.write(opening.to_send)  # type: ignore[attr-defined]

    def timed_out(self, now: int) -> bool:
        """Whether a connect that is under way has taken too long by now; then it has failed."""
        setting = self._setting
        if now - self._began_ns < setting.connect_timeout_ns:
            return False
        attaching = setting.connecting[self]
        self._end_connecting("connect_timeout")
        if self._connected:
            self._abort()
        else:
            if attaching is not None:
                attaching.cancel()
            self._reconnect()
        return True

    def _handshake_done(self) -> None:
        self._opening = None
        self._ready(monotonic_ns())

    def _ready(self, now: int) -> None:
        """The handshake was done at that time, and nothing stands between this client and its messages."""
        setting, recorder = self._setting, self._setting.recorder
        setting.connecting.pop(self, None)
        setting.opened.add(self)
        self.state = OPEN
        self._opened_ns = now
        recorder.opened += 1
        recorder.handshake.add(now - self._began_ns)
        recorder.live.connections_opened += 1
        recorder.live.connections += 1
        self._send_waiting()

    def _connect_failed(self, kind: str) -> None:
        self._end_connecting(kind)
        self._reconnect()

    def _end_connecting(self, kind: str) -> None:
        recorder = self._setting.recorder
        self._setting.connecting.pop(self, None)
        self.state = DOWN
        recorder.failed += 1
        recorder.live.connections_failed += 1
        self._error(kind)

    def _error(self, kind: str) -> None:
        """A connect failed, or the connection broke."""
        self._setting.recorder.error(kind)

    def _reconnect(self) -> None:
        if self._setting.reconnect is not None:
            self._setting.reconnect(self)

    # --- sending ---

    def turn(self, second: DueSecond, turn_ns: int) -> int:
        """The schedule has reached a message of this client. Returns the time after it was dealt with."""
        setting = self._setting
        if self.state == OPEN:
            if setting.max_in_flight is not None and self.unsettled >= setting.max_in_flight:
                self._unsent(second, "max_in_flight")
            elif self._blocked is not None:
                self._wait(second, turn_ns)
            else:
                return self._send(second, turn_ns)
        elif not self._opened_ns or self.state == CLOSING:  # closing, it has left, and is to be back by now
            self._unsent(second, "not_open")
        elif setting.queue_while_down and setting.reconnect is not None:
            self._wait(second, turn_ns)
        else:
            self._unsent(second, "connection_down")
        return turn_ns

    def _wait(self, second: DueSecond, turn_ns: int) -> None:
        if isinstance(self._waiting, tuple):  # an empty deque has 760 bytes
            self._waiting = deque()
        self._waiting.append((second, turn_ns))

    def _send(self, second: DueSecond, turn_ns: int) -> int:
        setting, transport = self._setting, self.transport
        self._sequence = sequence = self._sequence + 1
        if setting.match == "prefix":
            prefix = b"%b%x " % (self._prefix, sequence)
            key: bytes | int = prefix
            payload = prefix.ljust(setting.size, b"x")
        else:
            key = sequence
            payload = (b"%b%x " % (self._prefix, sequence))[: setting.size].ljust(setting.size, b"x")
        mask = next(self._masks)
        transport.write(b"%b%b%b" % (setting.head, mask, apply_mask(payload, mask)))
        return self._written(second, turn_ns, key)

    def _written(self, second: DueSecond, turn_ns: int, key: Hashable) -> int:
        """A message was given to the transport: what the kernel made of it. Returns the time."""
        transport, now = self.transport, monotonic_ns()
        if transport.is_closing():
            # The kernel has refused it: the connection is gone, which connection_lost is about to say.
            self._unsent(second, "connection_down")
        elif transport.get_write_buffer_size() or (self._below is not None and self._below.get_write_buffer_size()):
            self._blocked = (second, turn_ns, key)
        else:
            self._handed_over(second, turn_ns, key, now)
        return now

    def _handed_over(self, second: DueSecond, turn_ns: int, key: Hashable, now: int) -> None:
        setting = self._setting
        setting.recorder.sent(second, now - turn_ns, setting.size)
        if setting.match == "none":
            setting.recorder.no_reply(second)
        else:
            self._outstanding[key] = (second, turn_ns, now)

    def _send_waiting(self) -> None:
        while self._waiting and self._blocked is None and self.state == OPEN:
            assert not isinstance(self._waiting, tuple)
            self._send(*self._waiting.popleft())

    def pause_writing(self) -> None:
        """The kernel has not taken everything, which `_send` sees in the buffer's size. With TLS and a high-water mark
        of 0, pausing and resuming are said in turn whenever the outer buffer is empty."""
        self.resume_writing()

    def resume_writing(self) -> None:
        """The kernel has taken everything; with TLS perhaps not yet."""
        if self._blocked is None or not self._connected or self.transport.get_write_buffer_size():
            return
        if self._below is not None and self._below.get_write_buffer_size():
            return
        second, turn_ns, key = self._blocked
        self._blocked = None
        if second is not None:
            self._handed_over(second, turn_ns, key, monotonic_ns())
        self._send_waiting()

    def expire(self, now: int) -> None:
        """Give up what has been awaited for too long since its turn."""
        limit = now - self._setting.reply_timeout_ns
        recorder = self._setting.recorder
        while self._outstanding:
            key = next(iter(self._outstanding))
            second, turn_ns, _ = self._outstanding[key]
            if turn_ns > limit:
                break
            del self._outstanding[key]
            recorder.lost(second)
        if self._blocked is not None and self._blocked[1] <= limit:
            self._give_up_blocked()
        while self._waiting and self._waiting[0][1] <= limit:
            self._give_up_waiting()

    def _unsent(self, second: DueSecond, reason: str) -> None:
        """A message that was due will not be sent."""
        self._setting.recorder.unsent(second, reason)

    def _give_up_blocked(self) -> None:
        if self._blocked is not None:
            second, turn_ns, key = self._blocked
            self._blocked = None, turn_ns, key
            if second is not None:
                self._unsent(second, "write_blocked")

    def _give_up_waiting(self) -> None:
        assert not isinstance(self._waiting, tuple)
        second, _ = self._waiting.popleft()
        self._unsent(second, "write_blocked" if self.state == OPEN else "connection_down")

    # --- receiving ---

    def data_received(self, data: bytes) -> None:
        """Bytes from the server. All messages in them have arrived now."""
        self._arrived_ns = now = monotonic_ns()
        if self._opening is not None:
            self._answered(self._opening, data)
            return
        size = len(data) - 2
        if 0 <= size < 126 and data[1] == size and self._special is None and not self._rest:
            # One short message and nothing else, as most are: `_usual` and `received` in one go.
            first, payload = data[0], data[2:]
            if first == BINARY or (first == TEXT and payload.isascii()):
                self._message(payload, now)
                return
        super().data_received(data)

    def _answered(self, opening: Opening, data: bytes) -> None:
        rest = opening.receive(data)
        if self.state != CONNECTING:
            return
        if opening.failed is not None:
            self._end_connecting(opening.failed)
            self._abort()
        elif rest is not None:
            self._handshake_done()
            if rest:
                super().data_received(rest)

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        for _, payload in messages:
            self._message(payload, self._arrived_ns)

    def closing(self) -> None:
        if self.state == OPEN:
            # It has a moment to end the TCP connection itself. Nothing can be sent any more.
            self.state = BROKEN
        self._close_soon()

    def _message(self, payload: bytes, now: int) -> None:
        setting = self._setting
        recorder = setting.recorder
        recorder.arrived(len(payload))
        if setting.match == "none":
            return
        outstanding = self._outstanding
        key: Hashable | None
        if setting.match == "prefix":
            key = payload[: payload.find(b" ", payload.find(b" ") + 1) + 1]
        else:
            key = next(iter(outstanding), None)
        self._settle(outstanding.pop(key, None) if key is not None else None, now)

    def _settle(self, awaited: tuple[DueSecond, int, int] | None, now: int) -> None:
        """A message has come that answers this one; None: it answers none."""
        setting = self._setting
        recorder = setting.recorder
        if awaited is None:
            recorder.stray()
            return
        second, turn_ns, kernel_ns = awaited
        response_ns = now - turn_ns
        if response_ns > setting.reply_timeout_ns:
            recorder.lost(second)
            recorder.stray()
        else:
            recorder.reply(second, now - kernel_ns, response_ns)

    # --- closing ---

    def leave(self) -> None:
        """Close with 1000; what is awaited still, stays in flight. A handshake under way stays pending."""
        if self.state == OPEN and self.is_open:
            self.state = CLOSING
            self.close(1000)

    def give_up_sending(self) -> None:
        """No more sends: what waited for the server or the connection is unsent now."""
        while self._waiting:
            self._give_up_waiting()

    def abandon(self) -> None:
        """The load is over: what the kernel has not taken whole by now is unsent."""
        self._give_up_blocked()
        self._abort()

    def _close_soon(self) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_PATIENCE_S, self._abort)

    def _abort(self) -> None:
        if self._connected:
            self.transport.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def eof_received(self) -> None:
        """The server has ended its side: the transport closes, connection_lost follows."""
        if self.state == OPEN:
            self.state = BROKEN
        if self._opening is not None:
            self._opening.end()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The TCP connection is gone: account for it and for everything that it carried."""
        if not self._connected and self.state != CONNECTING:
            return  # TLS stood at the very moment when the connect was given up
        self._cancel_timer()
        setting, special, opening, state = self._setting, self._special, self._opening, self.state
        recorder = setting.recorder
        self._connected = False
        self._below = self._opening = self._special = None
        self._rest = b""
        if state == CONNECTING:
            refused = opening.failed if opening is not None else None
            self._end_connecting(refused or (connect_error(exc) if isinstance(exc, OSError) else "handshake_failed"))
        elif state in (OPEN, BROKEN, CLOSING):
            now = monotonic_ns()
            setting.opened.discard(self)
            self.state = DOWN
            recorder.closed += 1
            recorder.live.connections -= 1
            recorder.live.connections_closed += 1
            recorder.live.connection_duration.observe(now - self._opened_ns)
            if state == CLOSING:
                self._opened_ns = 0  # it has left: should it come back, it is not open until then
            else:
                self._error(break_error(exc, special.protocol if special else None))
                self._settle_lost()
        if special is not None:
            special.dissolve()
        if state != CLOSING:
            self._reconnect()

    def _settle_lost(self) -> None:
        recorder = self._setting.recorder
        self._give_up_blocked()
        self._blocked = None
        for second, _, _ in self._outstanding.values():
            recorder.lost(second)
        self._outstanding.clear()
        if not self._setting.queue_while_down:
            self.give_up_sending()
