"""The client's opening handshake: one request for all clients but its key, the usual answer read in place.

What is usual is narrow on purpose; every other answer is read by the library's `ClientProtocol`, which says what is
wrong with it (RFC 6455, section 4.1).
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple, Self

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.utils import accept_key

from wsnode.core.protocol import ErrorKind

if TYPE_CHECKING:
    from websockets.uri import WebSocketURI

_END = b"\r\n\r\n"
_MOST_BYTES = 4096
_STATUS = b"HTTP/1.1 101 "
_LINES = re.compile(
    rb"HTTP/1\.1 101 [\t -~\x80-\xff]*\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n){1,100}\r\n"
)
_DECIDING = re.compile(
    rb"\n(upgrade|connection|sec-websocket-[a-z]+|transfer-encoding|content-length):[\t ]*([^\r]*?)[\t ]*(?=\r)",
    re.IGNORECASE,
)


class Request(NamedTuple):
    """What all clients of a worker ask for."""

    uri: WebSocketURI
    before: bytes
    after: bytes
    """The request without its key."""

    @classmethod
    def to(cls, uri: WebSocketURI) -> Self:
        """As the library would ask for that address."""
        library = ClientProtocol(uri)
        before, _, after = library.connect().serialize().partition(library.key.encode())
        return cls(uri, before, after)


class Opening:
    """A handshake under way."""

    __slots__ = ("_data", "_key", "_protocol", "_request", "failed")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._key = b64encode(os.urandom(16))
        self._data = b""
        self._protocol: ClientProtocol | None = None
        self.failed: ErrorKind | None = None

    @property
    def to_send(self) -> bytes:
        """The request."""
        return self._request.before + self._key + self._request.after

    def receive(self, data: bytes) -> bytes | None:
        """Bytes from the server. Returns what comes behind its answer once it is there and right; `failed` is set
        where it is wrong."""
        if self._protocol is None:
            self._data += data
            ends_at = self._data.find(_END)
            if ends_at < 0:
                if len(self._data) <= _MOST_BYTES and _STATUS.startswith(self._data[: len(_STATUS)]):
                    return None
                return self._library(self._data, b"")
            end = ends_at + len(_END)
            head, rest = self._data[:end], self._data[end:]
            return rest if self._usual(head) else self._library(head, rest)
        return self._library(data, b"")

    def _usual(self, head: bytes) -> bool:
        if len(head) > _MOST_BYTES or _LINES.fullmatch(head) is None:
            return False
        found = [(name.lower(), value) for name, value in _DECIDING.findall(head)]
        if len(found) != 3:
            return False
        by_name = dict(found)
        return (
            by_name.get(b"upgrade", b"").lower() == b"websocket"
            and by_name.get(b"connection", b"").lower() == b"upgrade"
            and by_name.get(b"sec-websocket-accept") == accept_key(self._key.decode()).encode()
        )

    def _library(self, data: bytes, rest: bytes) -> bytes | None:
        protocol = self._protocol
        if protocol is None:
            protocol = self._protocol = ClientProtocol(self._request.uri)
            protocol.key = self._key.decode()
        protocol.receive_data(data)
        if self._concluded(protocol):
            return None if self.failed else rest
        if rest:  # of a refusal's body
            protocol.receive_data(rest)
            self._concluded(protocol)
        return None

    def end(self) -> None:
        """No more will come: what was said so far is the answer."""
        if self.failed is None and self._protocol is not None:
            self._protocol.receive_eof()
            self._concluded(self._protocol)

    def _concluded(self, protocol: ClientProtocol) -> bool:
        answered = any(isinstance(event, Response) for event in protocol.events_received())
        refused = protocol.handshake_exc
        if refused is not None:
            self.failed = "handshake_rejected" if isinstance(refused, InvalidStatus) else "handshake_failed"
            # Its traceback refers back to the parser; see `wsnode.lean.Special.dissolve`.
            vars(refused).clear()
            refused.args, refused.__traceback__ = (), None
            protocol.parser.close()
            protocol.parser_exc = protocol.handshake_exc = None
            return True
        return answered and protocol.state is OPEN
