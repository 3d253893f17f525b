"""The lean connection against the library: whatever frames come, cut wherever, both say the same."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

from wsnode.lean import MOST_FRAGMENTS, PING, TEXT, LeanClient, LeanConnection, LeanServer, frame_end, masks

LIMIT = 70_000


class Wire:
    """A transport that keeps what is written; `None` is the end."""

    def __init__(self) -> None:
        self.out: list[bytes | None] = []

    def write(self, data: bytes) -> None:
        self.out.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.out.append(None)

    def said(self) -> tuple[bytes, bool]:
        """All bytes, and whether the end was written."""
        return b"".join(data for data in self.out if data is not None), None in self.out


def echoing(side: type[LeanConnection]) -> tuple[LeanConnection, Wire]:
    class Echo(side):  # type: ignore[valid-type, misc]
        limit = LIMIT

        def received(self, messages: list[tuple[int, bytes]]) -> None:
            for first, payload in messages:
                self.write(self.frame(first, payload))

    connection, wire = Echo(), Wire()
    connection.begin(wire)
    return connection, wire


class Reference:
    """An echo by the library alone."""

    def __init__(self, side: Side) -> None:
        self.protocol = Protocol(side, state=OPEN, max_size=LIMIT)
        self.wire = Wire()
        self.fragments: list[Frame] = []

    def receive(self, data: bytes) -> None:
        """Data that ends where a frame does."""
        protocol = self.protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) and protocol.state is OPEN:
                self.fragments.append(event)
                if event.fin:
                    self._message()
        for out in protocol.data_to_send():
            if out:
                self.wire.write(out)
            else:
                self.wire.write_eof()

    def _message(self) -> None:
        text = self.fragments[0].opcode is Opcode.TEXT
        payload = b"".join(bytes(frame.data) for frame in self.fragments)
        self.fragments = []
        if text:
            try:
                payload.decode()
            except UnicodeDecodeError as error:
                self.protocol.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        (self.protocol.send_text if text else self.protocol.send_binary)(payload)


def encoded(
    first: int, payload: bytes, *, masked: bool, width: int | None = None, mask: bytes = b"\x01\x02\x03\xfe"
) -> bytes:
    """A frame with any first byte; `width`: bytes of the extended size, minimal where not given."""
    size, bit = len(payload), 0x80 if masked else 0
    if width is None:
        width = 0 if size < 126 else 2 if size <= 0xFFFF else 8
    head = {
        0: lambda: struct.pack("!BB", first, bit | size),
        2: lambda: struct.pack("!BBH", first, bit | 126, size),
        8: lambda: struct.pack("!BBQ", first, bit | 127, size),
    }[width]()
    if not masked:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


TEXTS = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=12),
    st.just(b"a" * 125),
    st.just(b"b" * 126),
    st.just(b"\xff"),
)
FIRSTS = st.one_of(
    st.sampled_from([0x81, 0x82, 0x81, 0x82, 0x89, 0x8A, 0x01, 0x02, 0x00, 0x80]),
    st.sampled_from([0x88, 0x09, 0x08, 0xC1, 0xA2, 0x91, 0x83, 0x8B, 0x8F]),
)
CLOSES = st.one_of(
    st.just(b""), st.just(b"\x03"), st.just(b"\x03\xe8bye"), st.just(b"\x03\xed"), st.just(b"\x03\xe8\xff"),
    st.integers(0, 5000).map(lambda code: struct.pack("!H", code)),
)  # fmt: skip


@st.composite
def frames(draw: Any, masked: bool) -> bytes:
    first = draw(FIRSTS)
    payload = draw(CLOSES if first & 0x0F == 8 else TEXTS)
    wrongly = draw(st.integers(0, 40)) == 0
    width = draw(st.sampled_from([None, None, None, None, 2, 8]))
    return encoded(first, payload, masked=masked is not wrongly, width=width)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


def answers(side: type[LeanConnection], sent: list[bytes], places: list[int]) -> tuple[Any, Any, LeanConnection]:
    connection, wire = echoing(side)
    for chunk in cut(b"".join(sent), places):
        connection.data_received(chunk)
    reference = Reference(side.side)
    for frame in sent:
        reference.receive(frame)
    return wire.said(), reference.wire.said(), connection


@settings(deadline=None, max_examples=400)
@given(sent=st.lists(frames(True), max_size=8), places=st.lists(st.integers(0, 2000), max_size=12))
@example(sent=[encoded(0x81, b"x" * 60_000, masked=True)] * 2, places=[1, 2, 3, 10_000, 70_000])
@example(sent=[encoded(0x81, b"x" * (LIMIT + 1), masked=True)], places=[4])
@example(sent=[encoded(0x02, b"x" * 40_000, masked=True), encoded(0x80, b"y" * 40_000, masked=True)], places=[])
def test_a_server_answers_as_the_library_does(sent: list[bytes], places: list[int]) -> None:
    lean, reference, connection = answers(LeanServer, sent, places)
    assert lean == reference
    if not reference[1]:
        assert connection.is_open


def unmasked(data: bytes) -> list[tuple[int, bytes]]:
    """(first byte, payload) of masked frames; their masks are random."""
    found, at = [], 0
    while at < len(data):
        end = frame_end(data, at, True, 1 << 30)
        size = data[at + 1] & 0x7F
        start = at + 2 + (2 if size == 126 else 8 if size == 127 else 0)
        mask = data[start : start + 4]
        found.append((data[at], bytes(b ^ mask[i % 4] for i, b in enumerate(data[start + 4 : end]))))
        at = end
    return found


@settings(deadline=None, max_examples=400)
@given(sent=st.lists(frames(False), max_size=8), places=st.lists(st.integers(0, 2000), max_size=12))
def test_a_client_answers_as_the_library_does(sent: list[bytes], places: list[int]) -> None:
    (lean, lean_end), (reference, reference_end), _ = answers(LeanClient, sent, places)
    assert (unmasked(lean), lean_end) == (unmasked(reference), reference_end)


def test_an_idle_connection_holds_no_protocol_object_whatever_came_before() -> None:
    connection, _ = echoing(LeanServer)
    for data in (
        encoded(0x01, b"frag", masked=True) + encoded(0x89, b"", masked=True) + encoded(0x80, b"ment", masked=True),
        encoded(0x82, b"z" * 66_000, masked=True),
        encoded(0x81, "grüße".encode(), masked=True),
        encoded(PING, b"", masked=True),
    ):
        connection.data_received(data)
        assert (connection._special, connection._rest) == (None, b"")


def test_a_long_frame_in_small_pieces_is_not_gathered_here() -> None:
    """Its pieces go to the library's buffer, which grows without being copied each time."""
    connection, wire = echoing(LeanServer)
    data = encoded(0x82, b"q" * 60_000, masked=True)
    for at in range(0, len(data), 1000):
        connection.data_received(data[at : at + 1000])
        assert len(connection._rest) <= 4096
    assert wire.said()[0].endswith(b"q" * 60_000)


def test_a_message_has_so_many_fragments_and_no_more() -> None:
    connection, wire = echoing(LeanServer)
    connection.data_received(encoded(0x02, b"", masked=True) + encoded(0x00, b"", masked=True) * (MOST_FRAGMENTS - 2))
    connection.data_received(encoded(0x80, b"end", masked=True))
    assert wire.said() == (b"\x82\x03end", False)
    connection.data_received(encoded(0x02, b"", masked=True) + encoded(0x00, b"", masked=True) * MOST_FRAGMENTS)
    data, ended = wire.said()
    assert data[5:9] == b"\x88\x14" + struct.pack("!H", CloseCode.MESSAGE_TOO_BIG)
    assert ended


@pytest.mark.parametrize("side", [LeanServer, LeanClient])
def test_a_close_is_sent_once_and_answered_messages_no_more(side: type[LeanConnection]) -> None:
    connection, wire = echoing(side)
    connection.close(1000, "done")
    connection.close(1001, "again")
    assert not connection.is_open
    before = wire.said()[0]
    connection.data_received(encoded(TEXT, b"late", masked=side is LeanServer))
    assert wire.said()[0] == before
    connection.data_received(encoded(0x88, b"\x03\xe8", masked=side is LeanServer))
    assert (connection.ending.code, connection.ending.received_first) == (1000, False)


def test_masking_keys_do_not_repeat() -> None:
    keys = masks()
    drawn = [next(keys) for _ in range(5000)]
    assert {len(key) for key in drawn} == {4}
    assert len(set(drawn)) > 4990
