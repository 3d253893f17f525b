"""RFC 6455, section by section, against every server engine over real sockets."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.wsnode.serving import Server, frame, raw, read_answer, read_close, serving, upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The example of section 1.3."""
HEADERS = (
    ("Host", "example.org"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
)


@pytest.fixture(scope="module")
def server(engine: str):
    with serving("--engine", engine, "--workers", "1", "--ping-interval", "0") as running:
        yield running


def ask(server: Server, *headers: tuple[str, str], line: str = "GET /echo HTTP/1.1") -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request."""
    with raw(server.port) as sock:
        sock.sendall("\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode())
        status, _, answered = read_answer(sock)
        return status, answered


def but(**changes: str | None) -> list[tuple[str, str]]:
    """The usual headers, some with another value or without one."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name, named.get(name, value)) for name, value in HEADERS if named.get(name, value) is not None]


# --- section 4: the opening handshake ---


def test_1_3_the_accept_header_proves_that_the_key_was_read(server):
    status, answered = ask(server, *HEADERS)
    assert (status, answered["sec-websocket-accept"]) == (101, ACCEPT)
    assert (answered["upgrade"].lower(), answered["connection"].lower()) == ("websocket", "upgrade")


@pytest.mark.parametrize(
    "headers",
    [
        but(Upgrade="WebSocket"),
        but(Connection="keep-alive, Upgrade"),
        but(Connection="upgrade,keep-alive"),
        [(name.lower(), value) for name, value in HEADERS],
        [(name.upper(), f"  {value}\t") for name, value in HEADERS],
        [*reversed(HEADERS)],
        [*HEADERS, ("Origin", "http://example.org"), ("Cookie", "a=b"), ("X-Empty", "")],
        [*HEADERS, ("Sec-WebSocket-Protocol", "chat, superchat"), ("Sec-WebSocket-Extensions", "x-unknown; a=1")],
    ],
)
def test_4_2_1_what_a_client_may_write_is_accepted(server, headers):
    status, answered = ask(server, *headers)
    assert status == 101
    assert "sec-websocket-protocol" not in answered
    assert "sec-websocket-extensions" not in answered


@pytest.mark.parametrize(
    ("headers", "line", "status"),
    [
        (but(Upgrade=None), "GET /echo HTTP/1.1", 426),
        (but(Upgrade="h2c"), "GET /echo HTTP/1.1", 426),
        (but(Connection=None), "GET /echo HTTP/1.1", 426),
        (but(Connection="close"), "GET /echo HTTP/1.1", 426),
        (but(Sec_WebSocket_Key=None), "GET /echo HTTP/1.1", 400),
        (but(Sec_WebSocket_Key="dG9vIHNob3J0"), "GET /echo HTTP/1.1", 400),
        (but(Sec_WebSocket_Key="?" * 24), "GET /echo HTTP/1.1", 400),
        ([*HEADERS, ("Sec-WebSocket-Key", KEY)], "GET /echo HTTP/1.1", 400),
        (but(Sec_WebSocket_Version=None), "GET /echo HTTP/1.1", 400),
        (but(Sec_WebSocket_Version="8"), "GET /echo HTTP/1.1", 400),
        ([*HEADERS, ("Sec-WebSocket-Version", "13")], "GET /echo HTTP/1.1", 400),
        ([*HEADERS, ("Origin", "http://a"), ("Origin", "http://b")], "GET /echo HTTP/1.1", 400),
        (list(HEADERS), "POST /echo HTTP/1.1", 405),
        (list(HEADERS), "GET /echo HTTP/1.0", 505),
    ],
)
def test_4_2_2_what_is_wrong_is_refused_with_its_status(server, headers, line, status):
    assert ask(server, *headers, line=line)[0] == status


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /echo HTTP/2\r\nHost: x\r\n\r\n",
        b"GET  /echo HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /echo HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET /" + b"e" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    ],
)
def test_4_2_1_what_is_no_http_request_gets_no_handshake(server, request_bytes):
    with raw(server.port) as sock:
        sock.sendall(request_bytes)
        data = b""
        try:
            while chunk := sock.recv(65536):
                data += chunk
        except ConnectionError:
            pass
    assert b" 101 " not in data[:20]


def test_4_2_1_a_handshake_may_come_byte_by_byte_with_a_frame_behind_it(server):
    request = "\r\n".join(["GET /echo HTTP/1.1", *(f"{n}: {v}" for n, v in HEADERS), "", ""]).encode()
    with raw(server.port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(request)):
            sock.sendall(request[at : at + 1])
        assert read_answer(sock)[0] == 101
        sock.sendall(frame(1, b"late"))
        assert sock.recv(100) == b"\x81\x04late"
    with raw(server.port) as sock:
        sock.sendall(request + frame(1, b"early"))
        data = b""
        while not data.endswith(b"early"):
            data += sock.recv(1000)
        assert data.startswith(b"HTTP/1.1 101 ")
        assert data.endswith(b"\r\n\r\n\x81\x05early")


# --- section 5: framing ---


def cut(fin_and_opcode: int, payload: bytes, *, masked: bool = True) -> bytes:
    """A frame with any first byte."""
    whole = frame(0, payload, masked=masked)
    return bytes((fin_and_opcode,)) + whole[1:]


def answer(server: Server, *parts: bytes) -> bytes:
    """All that a connection says to these bytes, until its close frame and the end that follows it."""
    sock, status, _, _ = upgrade(server.port)
    with sock:
        assert status == 101
        for part in parts:
            sock.sendall(part)
        data = b""
        while chunk := sock.recv(65536):
            data += chunk
        return data


CLOSE = cut(0x88, b"\x03\xe8")


def reply(server: Server, size: int, *parts: bytes) -> bytes:
    """The first `size` bytes of what is said to these; then a close, which must be answered with its code."""
    sock, status, _, _ = upgrade(server.port)
    with sock:
        assert status == 101
        for part in parts:
            sock.sendall(part)
        data = b""
        while len(data) < size:
            chunk = sock.recv(size - len(data))
            assert chunk, f"the connection ended after {data[:100]!r}"
            data += chunk
        sock.sendall(CLOSE)
        assert read_close(sock) == 1000
        return data


def code_of(data: bytes) -> int:
    """The code of the close frame that the data begins with."""
    assert data[0] == 0x88, data[:20]
    return struct.unpack("!H", data[2:4])[0]


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
def test_5_2_a_reserved_bit_without_an_extension_closes_with_1002(server, bit):
    assert code_of(answer(server, cut(0x81 | bit, b"hello"))) == 1002


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_5_2_an_unknown_opcode_closes_with_1002(server, opcode):
    assert code_of(answer(server, cut(0x80 | opcode, b""))) == 1002


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (125, b"\x7d"),
        (126, b"\x7e\x00\x7e"),
        (127, b"\x7e\x00\x7f"),
        (65535, b"\x7e\xff\xff"),
        (65536, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (1 << 20, b"\x7f\x00\x00\x00\x00\x00\x10\x00\x00"),
    ],
)
def test_5_2_every_form_of_the_length_is_read_and_the_shortest_written(server, size, written):
    payload = b"\xaa" * size
    assert reply(server, 1 + len(written) + size, frame(2, payload)) == b"\x82" + written + payload


def test_5_3_a_frame_without_a_mask_closes_with_1002(server):
    assert code_of(answer(server, frame(1, b"hello", masked=False))) == 1002


def test_5_3_payloads_are_unmasked_with_their_key(server):
    masked = b"\x81\x85" + b"\x37\xfa\x21\x3d" + b"\x7f\x9f\x4d\x51\x58"  # the example of section 5.7
    assert reply(server, 7, masked) == b"\x81\x05Hello"


def test_5_4_fragments_make_one_message_and_control_frames_may_come_between(server):
    data = reply(server, 13, cut(0x01, b"Hel"), cut(0x89, b"ping"), cut(0x80, b"lo"))
    assert data == b"\x8a\x04ping" + b"\x81\x05Hello"


@pytest.mark.parametrize(
    "parts",
    [
        [cut(0x80, b"nothing to continue")],
        [cut(0x00, b"nor here")],
        [cut(0x01, b"a"), cut(0x81, b"not a continuation")],
    ],
)
def test_5_4_a_fragment_out_of_place_closes_with_1002(server, parts):
    assert code_of(answer(server, *parts)) == 1002


@pytest.mark.parametrize("first", [0x08, 0x09, 0x0A])
def test_5_5_a_fragmented_control_frame_closes_with_1002(server, first):
    assert code_of(answer(server, cut(first, b""))) == 1002


@pytest.mark.parametrize("first", [0x88, 0x89, 0x8A])
def test_5_5_a_control_frame_of_126_bytes_closes_with_1002(server, first):
    assert code_of(answer(server, cut(first, b"\x03\xe8" + b"a" * 124))) == 1002


@pytest.mark.parametrize("payload", [b"", b"x", b"\x00\xff" * 62 + b"!"])
def test_5_5_2_a_ping_is_answered_with_its_payload(server, payload):
    assert answer(server, cut(0x89, payload), CLOSE) == bytes((0x8A, len(payload))) + payload + b"\x88\x02\x03\xe8"


def test_5_5_3_an_unasked_pong_is_not_answered(server):
    assert answer(server, cut(0x8A, b"hello"), CLOSE) == b"\x88\x02\x03\xe8"


# --- section 5.6 and 8.1: text ---


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"ok \xf0\x9f\x98",
        b"\x80",
        b"a" * 200 + b"\xfe",
    ],
)
def test_8_1_text_that_is_not_utf8_closes_with_1007(server, payload):
    assert code_of(answer(server, frame(1, payload))) == 1007


def test_5_6_a_character_may_be_split_between_fragments(server):
    smile = "😀".encode()
    data = reply(server, 6, cut(0x01, smile[:1]), cut(0x00, smile[1:3]), cut(0x80, smile[3:]))
    assert data == b"\x81\x04" + smile


def test_8_1_fragments_that_are_not_utf8_together_close_with_1007(server):
    assert code_of(answer(server, cut(0x01, b"\xf0\x9f"), cut(0x80, b"\x98"))) == 1007


def test_5_6_binary_may_hold_anything(server):
    assert reply(server, 5, frame(2, b"\xff\xfe\x00")) == b"\x82\x03\xff\xfe\x00"


# --- section 7: closing ---


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_7_4_a_close_is_answered_with_its_code_and_the_server_ends_the_connection(server, code):
    data = answer(server, cut(0x88, struct.pack("!H", code) + b"bye"))
    assert data == b"\x88\x05" + struct.pack("!H", code) + b"bye"


def test_5_5_1_a_close_without_a_code_is_answered_without_one(server):
    assert answer(server, cut(0x88, b"")) == b"\x88\x00"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_7_4_2_a_code_that_may_not_be_sent_closes_with_1002(server, code):
    assert code_of(answer(server, cut(0x88, struct.pack("!H", code)))) == 1002


@pytest.mark.parametrize(("payload", "code"), [(b"\x03", 1002), (b"\x03\xe8\xff\xfe", 1007)])
def test_5_5_1_a_broken_close_payload_is_named(server, payload, code):
    assert code_of(answer(server, cut(0x88, payload))) == code


def test_7_1_6_nothing_is_read_after_a_close(server):
    assert answer(server, CLOSE + frame(1, b"too late")) == b"\x88\x02\x03\xe8"


def test_7_1_6_what_came_before_a_close_is_answered_first(server):
    sock, *_ = upgrade(server.port)
    with sock:
        sock.sendall(frame(1, b"first"))
        assert sock.recv(7) == b"\x81\x05first"
        sock.sendall(CLOSE)
        assert read_close(sock) == 1000
