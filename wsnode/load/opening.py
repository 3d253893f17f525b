"""The client's opening handshake: one request for all clients but its key, the usual answer read in place.

What is usual is narrow on purpose; every other answer is read by the library's `ClientProtocol`, which says what is
wrong with it (RFC 6455, section 4.1).
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.protocol import OPEN
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from wsnode.core.header import Header
from wsnode.core.protocol import ErrorKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


class Request:
    """What all clients of a worker ask for, and what they are answered."""

    __slots__ = ("_after", "_before", "_lines", "_offered", "_subprotocols", "_usual_after", "_usual_before", "uri")

    def __init__(
        self,
        uri: WebSocketURI,
        headers: Iterable[str] = (),
        subprotocols: Sequence[str] = (),
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """As the library would ask for that address, with these header lines (`wsnode.core.header`) behind.

        Raises:
            ValueError: a secret is not given, or has a line break in it.
        """
        self.uri = uri
        self._subprotocols = [Subprotocol(name) for name in subprotocols]
        self._offered = frozenset(name.encode() for name in subprotocols)
        library = self.library()
        self._before, _, self._after = library.connect().serialize().partition(library.key.encode())
        self._usual_before = self._usual_after = b""
        lines = [Header.parse(text) for text in headers]
        self._lines = [line.template().builder(secrets or {}) for line in lines]
        for header, line in zip(lines, self._lines, strict=True):
            if line(0, 0).count(b"\n") + line(0, 0).count(b"\r") != 2:
                raise ValueError(f"a secret in the header {header.name} has a line break in it")
        if not any(header.value.variables for header in lines):
            self._after = self._with_lines(0)
            self._lines = []

    def library(self) -> ClientProtocol:
        """The library's client for it."""
        return ClientProtocol(self.uri, subprotocols=self._subprotocols or None)

    def of(self, key: bytes, client: int = 0) -> bytes:
        """A client's request."""
        return self._before + key + (self._with_lines(client) if self._lines else self._after)

    def _with_lines(self, client: int) -> bytes:
        return self._after[:-2] + b"".join([line(client, 0) for line in self._lines]) + b"\r\n"

    def is_usual(self, head: bytes, key: bytes) -> bool:
        """Whether an answer is right and nothing out of the ordinary. Servers say the same to everybody but for the
        value that accepts the key: what was right once needs no second look."""
        accept = accept_key(key.decode()).encode()
        if head == self._usual_before + accept + self._usual_after:
            return True
        if not _is_right(head, accept, self._offered):
            return False
        self._usual_before, _, self._usual_after = head.partition(accept)
        return True


def _is_right(head: bytes, accept: bytes, offered: frozenset[bytes]) -> bool:
    if len(head) > _MOST_BYTES or _LINES.fullmatch(head) is None:
        return False
    found = [(name.lower(), value) for name, value in _DECIDING.findall(head)]
    by_name = dict(found)
    if len(found) != 3 + (by_name.get(b"sec-websocket-protocol") in offered):
        return False
    return (
        by_name.get(b"upgrade", b"").lower() == b"websocket"
        and by_name.get(b"connection", b"").lower() == b"upgrade"
        and by_name.get(b"sec-websocket-accept") == accept
    )


class Opening:
    """A handshake under way."""

    __slots__ = ("_client", "_data", "_key", "_protocol", "_request", "failed")

    def __init__(self, request: Request, client: int = 0) -> None:
        self._request = request
        self._client = client
        self._key = b64encode(os.urandom(16))
        self._data = b""
        self._protocol: ClientProtocol | None = None
        self.failed: ErrorKind | None = None

    @property
    def to_send(self) -> bytes:
        """The request."""
        return self._request.of(self._key, self._client)

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
            return rest if self._request.is_usual(head, self._key) else self._library(head, rest)
        return self._library(data, b"")

    def _library(self, data: bytes, rest: bytes) -> bytes | None:
        protocol = self._protocol
        if protocol is None:
            protocol = self._protocol = self._request.library()
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
