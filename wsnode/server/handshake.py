"""The usual opening handshake, read and answered in place; every unusual one is the library's.

What is usual is narrow on purpose: a whole request in one piece, each deciding header once, in the words that clients
use. Nothing is refused here. What does not fit goes to `websockets.server.ServerProtocol`, which accepts it or says why
not (RFC 6455, section 4.2).
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha1
from typing import NamedTuple

HEAD_END = b"\r\n\r\n"
LONGEST_BYTES = 16 << 10
"""A head that has not ended by now goes to the library as it is, which refuses it."""
_USUAL_BYTES = 4096
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(
    rb"GET ([!-~]+) HTTP/1\.1\r\n((?:" + _TOKEN + rb":[\t -~\x80-\xff]*\r\n){1,100})\r\n",
)
_DECIDING = re.compile(
    rb"(?:^|\n)(upgrade|connection|sec-websocket-[a-z]+|transfer-encoding|content-length|origin|host):[\t ]*"
    rb"([^\r]*?)[\t ]*(?=\r)",
    re.IGNORECASE,
)
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base64, in the only way that leaves no bit over."""
_KEY_NAME = b"Sec-WebSocket-Key: "
_KEY_BYTES = 24
_MOST_KNOWN = 256
_CONNECTIONS = frozenset({b"upgrade", b"keep-alive, upgrade"})


class Usual(NamedTuple):
    """A request for a WebSocket that can be answered in place."""

    target: str
    key: bytes
    end: int
    """Where the request ends in the data."""


class Reader:
    """Reads requests, and knows those again that differ in nothing but their key, as a client's mostly do."""

    def __init__(self, *, ignore_extensions: bool) -> None:
        self._ignore_extensions = ignore_extensions
        self._known: dict[bytes, str] = {}
        """Target of each request that was usual, without its key."""

    def read(self, data: bytes, ends_at: int) -> Usual | None:
        """The request whose head ends at `ends_at` (the place of its `HEAD_END`); None where it is not a usual one."""
        end = ends_at + len(HEAD_END)
        if end > _USUAL_BYTES:
            return None
        key_at = data.find(_KEY_NAME, 0, end) + len(_KEY_NAME)
        key = data[key_at : key_at + _KEY_BYTES]
        rest = data[:key_at] + data[key_at + _KEY_BYTES : end]
        target = self._known.get(rest)
        if target is not None and _KEY.fullmatch(key):
            return Usual(target, key, end)
        usual = self._look(data, end)
        if usual is not None and usual.key == key:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[rest] = usual.target
        return usual

    def _look(self, data: bytes, end: int) -> Usual | None:
        head = _HEAD.fullmatch(data, 0, end)
        if head is None:
            return None
        upgrade = connection = key = version = host = None
        for name, value in _DECIDING.findall(head[2]):
            match name.lower():
                case b"upgrade" if upgrade is None and value.lower() == b"websocket":
                    upgrade = value
                case b"connection" if connection is None and value.lower() in _CONNECTIONS:
                    connection = value
                case b"sec-websocket-key" if key is None and _KEY.fullmatch(value):
                    key = value
                case b"sec-websocket-version" if version is None and value == b"13":
                    version = value
                case b"host" if host is None and value:
                    host = value
                case b"sec-websocket-extensions" if self._ignore_extensions:
                    pass
                case _:
                    return None
        if upgrade is None or connection is None or version is None or host is None or key is None:
            return None
        return Usual(head[1].decode("ascii"), key, end)


def answer(key: bytes, date: bytes, server: bytes) -> bytes:
    """101, with a Date of this second and the server's name."""
    accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nDate: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\nServer: %b\r\n\r\n" % (date, accept, server)
    )
