"""The lean connection, one for both sides: the usual in place, all else by `websockets`' sans-I/O protocol.

Usual are whole, unfragmented, uncompressed data frames of up to 65,535 bytes, pings and pongs. The library's protocol
is made when something else comes (a fragment, a close, a broken rule), is given exactly that frame, and is dropped
again when nothing is pending, so that an idle connection has none. `tests/wsnode/test_conformance.py` holds both to the
same RFC.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from itertools import chain
from struct import iter_unpack
from typing import ClassVar, NamedTuple

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

try:
    from websockets.speedups import apply_mask as apply_mask  # noqa: PLC0414  for the engine too
except ImportError:  # a wheel without the extension: slow, and right
    from websockets.utils import apply_mask

TEXT, BINARY, PING, PONG = 0x81, 0x82, 0x89, 0x8A
"""First bytes of whole frames without reserved bits."""
MOST_FRAGMENTS = 4096
"""Of one message: the same as the library's own assembler has."""
_LONGEST_USUAL = 0xFFFF
_STREAMED = 4096
"""A longer frame that comes in pieces goes to the library piece by piece, whose buffer grows without being copied."""
_INCOMPLETE, _REFUSED = -1, -2


def frame_head(first: int, size: int) -> bytes:
    """What stands before an unmasked payload of `size` bytes."""
    if size < 126:
        return bytes((first, size))
    if size <= _LONGEST_USUAL:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


HEADS = {first: tuple(frame_head(first, size) for size in range(126)) for first in (TEXT, BINARY)}
"""Of the short ones, ready made."""


def frame_end(data: bytes, at: int, masked: bool, limit: int) -> int:
    """Where the frame at `at` ends, perhaps behind the data; `_INCOMPLETE` where more must come to know; `_REFUSED`
    where its head alone breaks a rule: reserved bits, opcode, masking, a long or fragmented control frame, a size
    above the limit."""
    end = len(data)
    if end - at < 2:
        return _INCOMPLETE
    first, second = data[at], data[at + 1]
    opcode, size = first & 0x0F, second & 0x7F
    if first & 0x70 or opcode not in (0, 1, 2, 8, 9, 10) or bool(second & 0x80) is not masked:
        return _REFUSED
    if opcode >= 8 and not first & 0x80:
        return _REFUSED
    start = at + 2
    if size >= 126:
        width = 2 if size == 126 else 8
        if end - start < width:
            return _INCOMPLETE
        size = int.from_bytes(data[start : start + width], "big")
        start += width
    if size > limit or (opcode >= 8 and size > 125):
        return _REFUSED
    return start + (4 if masked else 0) + size


def masks() -> Iterator[bytes]:
    """Masking keys that nobody can foresee (RFC 6455, section 10.3), a system call for two thousand of them."""
    blocks = iter(partial(os.urandom, 8192), b"")
    # Chained in C: a generator of keys costs twice as much a key.
    return chain.from_iterable(chain.from_iterable(map(partial(iter_unpack, "4s"), blocks)))


class Ending(NamedTuple):
    """How an open connection ended."""

    sent: Close | None
    received: Close | None
    received_first: bool
    """Of two close frames: theirs came before ours was sent."""

    @property
    def code(self) -> int:
        """That of the first close frame, 1006 where there was none."""
        if self.received is not None and (self.sent is None or self.received_first):
            return self.received.code
        return CloseCode.ABNORMAL_CLOSURE if self.sent is None else self.sent.code

    @classmethod
    def of(cls, protocol: Protocol | None) -> Ending:
        """As the library saw it; without it there was no close frame."""
        if protocol is None:
            return cls(None, None, False)
        return cls(protocol.close_sent, protocol.close_rcvd, bool(protocol.close_rcvd_then_sent))


class Special:
    """A connection's library protocol, while it has one."""

    __slots__ = ("closing", "fragments", "opcode", "owed", "protocol", "stays")

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.stays = bool(protocol.extensions)
        """It gets every byte from now on: the connection is compressed, or closing."""
        self.closing = False
        self.owed = 0
        """Bytes of the frame that it has the begin of."""
        self.fragments: list[bytes] = []
        """Of the message that is under way."""
        self.opcode = TEXT

    def send(self, first: int, payload: bytes) -> None:
        """A message by the library, which compresses it; `LeanConnection.flush` puts it on its way."""
        (self.protocol.send_text if first == TEXT else self.protocol.send_binary)(payload)

    def dissolve(self) -> None:
        """The connection is gone. The parser and its exceptions refer back to it: in a long load with many breaks such
        cycles add up, where the collector looks at young objects only (`wsnode.load.worker`)."""
        protocol = self.protocol
        protocol.parser.close()
        protocol.parser_exc = protocol.handshake_exc = None


class LeanConnection(asyncio.Protocol):
    """An open connection over a transport. A subclass says what messages are for."""

    __slots__ = ("_rest", "_special", "transport")

    side: ClassVar[Side]
    limit: int
    """Most bytes of a message from the peer."""

    def begin(self, transport: asyncio.Transport, protocol: Protocol | None = None) -> None:
        """The handshake is done; `protocol` is what made it, where that was the library with extensions."""
        self.transport: asyncio.Transport = transport
        self._rest = b""
        self._special: Special | None = None if protocol is None else Special(protocol)

    # --- for subclasses ---

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        """Whole messages, in order: (`TEXT` or `BINARY`, payload). Text is UTF-8."""
        raise NotImplementedError

    def ponged(self, payload: bytes) -> None:
        """A pong came."""

    def closing(self) -> None:
        """The close handshake has begun, by whomever: bytes may be exchanged still, messages no more."""

    # --- receiving ---

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = self._usual(data, 0) if self._special is None else 0
        if at < len(data):
            self._others(data, at)

    def _usual(self, data: bytes, at: int) -> int:
        """Take usual data frames from `at` on. Returns where something else begins, or an incomplete one."""
        raise NotImplementedError

    def _others(self, data: bytes, at: int) -> None:
        """What `_usual` left: unusual frames, with usual ones between them, and the begin of a frame at the end."""
        end, masked = len(data), self.side is Side.SERVER
        while at < end:
            special = self._special
            if special is not None and (special.stays or special.owed):
                stop = end if special.stays else min(end, at + special.owed)
                special.owed -= stop - at
                self._feed(special, data[at:stop])
            else:
                stop = frame_end(data, at, masked, self.limit)
                if stop == _INCOMPLETE or (stop > end and stop - at <= _STREAMED):
                    self._rest = data[at:]
                    return
                if special is None and data[at] in (PING, PONG) and data[at + 1] & 0x7F < 126 and stop != _REFUSED:
                    self._control(data, at, stop)
                else:
                    special = self._library()
                    if stop == _REFUSED:
                        special.stays = True  # the library refuses it, in its own words
                        stop = end
                    elif stop > end:
                        special.owed = stop - end
                        stop = end
                    self._feed(special, data[at:stop])
            at = stop
            if self._special is None and at < end:
                at = self._usual(data, at)

    def _control(self, data: bytes, at: int, stop: int) -> None:
        payload = data[at + 2 : stop]
        if self.side is Side.SERVER:
            payload = apply_mask(payload[4:], payload[:4])
        if data[at] == PONG:
            self.ponged(payload)
        else:
            self.write(self.frame(PONG, payload))

    def _feed(self, special: Special, data: bytes) -> None:
        protocol = special.protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame):
                self._assemble(special, event)
        if protocol.state is OPEN:
            self.flush(protocol)
            if not special.stays and not special.owed and protocol.current_size is None:
                self._special = None
        else:
            self._closing(special)

    def _assemble(self, special: Special, frame: Frame) -> None:
        """A frame that the library let pass."""
        opcode = frame.opcode
        if opcode is Opcode.PONG:
            self.ponged(bytes(frame.data))
            return
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            special.opcode = TEXT if opcode is Opcode.TEXT else BINARY
        elif opcode is not Opcode.CONT:
            return  # the library has answered
        protocol = special.protocol
        special.fragments.append(bytes(frame.data))
        if not frame.fin:
            if len(special.fragments) >= MOST_FRAGMENTS:
                protocol.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            return
        payload = b"".join(special.fragments)
        special.fragments = []
        if special.opcode == TEXT:
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                protocol.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        if protocol.state is OPEN:
            self.flush(protocol)  # its answers to what came before must not be overtaken
            self.received([(special.opcode, payload)])

    def eof_received(self) -> None:
        """The peer has ended its side: the transport closes."""
        if self._special is not None:
            self._special.protocol.receive_eof()
            self.flush(self._special.protocol)

    # --- sending ---

    def frame(self, first: int, payload: bytes) -> bytes:
        """A whole frame as this side sends it."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Bytes to the peer."""
        self.transport.write(data)

    def flush(self, protocol: Protocol) -> None:
        """Send what the library has to say."""
        for data in protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()

    # --- closing ---

    @property
    def is_open(self) -> bool:
        """Whether messages may still be sent."""
        return self._special is None or self._special.protocol.state is OPEN

    @property
    def ending(self) -> Ending:
        """How it ended, or would if it ended now."""
        return Ending.of(None if self._special is None else self._special.protocol)

    def close(self, code: int, reason: str = "") -> None:
        """Begin the close handshake; without effect where it has begun."""
        special = self._library()
        if special.protocol.state is OPEN:
            special.protocol.send_close(code, reason)
            self._closing(special)

    def fail(self, code: int, reason: str = "") -> None:
        """Fail the connection (RFC 6455, section 7.1.7): a close frame, and nothing is read any more."""
        special = self._library()
        if special.protocol.state is OPEN:
            special.protocol.fail(code, reason)
            self._closing(special)

    def _library(self) -> Special:
        if self._special is None:
            self._special = Special(Protocol(self.side, state=OPEN, max_size=self.limit))
        return self._special

    def _closing(self, special: Special) -> None:
        special.stays = True
        self.flush(special.protocol)
        if not special.closing:
            special.closing = True
            self.closing()


class LeanServer(LeanConnection):
    """The server's side: what comes is masked, what goes is not."""

    __slots__ = ()

    side = Side.SERVER

    def frame(self, first: int, payload: bytes) -> bytes:
        return frame_head(first, len(payload)) + payload

    def _usual(self, data: bytes, at: int) -> int:
        end, limit = len(data), self.limit
        messages: list[tuple[int, bytes]] = []
        while end - at >= 6:
            first, size = data[at], data[at + 1]
            if first != TEXT and first != BINARY:  # noqa: PLR1714  a tuple costs more
                break
            start = at + 6
            if 128 <= size < 254:
                size -= 128
            elif size == 254 and end - at >= 8:
                size = (data[at + 2] << 8) + data[at + 3]
                start = at + 8
            else:
                break
            stop = start + size
            if stop > end or size > limit:
                break
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            if first == TEXT and not payload.isascii() and not _is_utf8(payload):
                break
            messages.append((first, payload))
            at = stop
        if messages:
            self.received(messages)
        return at


class LeanClient(LeanConnection):
    """The client's side: what goes is masked, what comes is not."""

    __slots__ = ()

    side = Side.CLIENT
    _masks = masks()

    def frame(self, first: int, payload: bytes) -> bytes:
        head, mask = frame_head(first, len(payload)), next(self._masks)
        return head[:1] + bytes((head[1] | 0x80,)) + head[2:] + mask + apply_mask(payload, mask)

    def _usual(self, data: bytes, at: int) -> int:
        end, limit = len(data), self.limit
        messages: list[tuple[int, bytes]] = []
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            if first != TEXT and first != BINARY:  # noqa: PLR1714
                break
            start = at + 2
            if size == 126 and end - at >= 4:
                size = (data[at + 2] << 8) + data[at + 3]
                start = at + 4
            elif size >= 126:
                break
            stop = start + size
            if stop > end or size > limit:
                break
            payload = data[start:stop]
            if first == TEXT and not payload.isascii() and not _is_utf8(payload):
                break
            messages.append((first, payload))
            at = stop
        if messages:
            self.received(messages)
        return at


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
