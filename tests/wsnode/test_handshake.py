"""What the lean engine answers in place, and what it leaves to the library."""

from __future__ import annotations

import base64
import os

from hypothesis import given
from hypothesis import strategies as st

from wsnode.server.handshake import HEAD_END, Reader

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LINES = (
    b"GET /echo?x=1 HTTP/1.1",
    b"Host: example.org",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY,
    b"Sec-WebSocket-Version: 13",
)


def read(data: bytes, reader: Reader | None = None):
    return (reader or Reader(ignore_extensions=True)).read(data, data.find(HEAD_END))


def request(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + HEAD_END


def test_a_usual_request_is_read_with_what_comes_behind_it():
    usual = read(request(*LINES) + b"more")
    assert (usual.target, usual.key, usual.end) == ("/echo?x=1", KEY, len(request(*LINES)))


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_16_bytes_is_usual_and_known_requests_differ_in_the_key_alone(nonce: bytes):
    reader, key = Reader(ignore_extensions=True), base64.b64encode(nonce)
    for _ in range(2):
        data = request(*LINES).replace(KEY, key)
        assert read(data, reader).key == key
    assert len(reader._known) == 1


@given(place=st.integers(0, len(request(*LINES)) - 1), byte=st.integers(0, 255))
def test_a_request_that_was_known_is_looked_at_anew_where_any_byte_differs(place: int, byte: int):
    data = request(*LINES)
    changed = data[:place] + bytes((byte,)) + data[place + 1 :]
    reader = Reader(ignore_extensions=True)
    read(data, reader)
    fresh = read(changed) if HEAD_END in changed else None
    assert (read(changed, reader) if HEAD_END in changed else None) == fresh


def test_what_is_known_is_bounded():
    reader = Reader(ignore_extensions=True)
    for number in range(1000):
        assert read(request(*LINES, b"Cookie: %d" % number), reader) is not None
    assert len(reader._known) <= 256


def test_extensions_matter_only_where_the_server_has_some():
    data = request(*LINES, b"Sec-WebSocket-Extensions: permessage-deflate")
    assert read(data) is not None
    assert read(data, Reader(ignore_extensions=False)) is None


def test_random_bytes_are_never_usual():
    assert all(read(os.urandom(100) + HEAD_END) is None for _ in range(1000))
