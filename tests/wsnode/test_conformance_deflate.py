"""RFC 7692, section by section, against every server engine over real sockets."""

from __future__ import annotations

import random
import zlib

import pytest

from tests.wsnode.serving import Server, exactly, raw, read_answer, read_close, serving

LIMIT = 100_000
HELLO = bytes.fromhex("f248cdc9c90700")
"""The example of section 7.2.3.1."""


@pytest.fixture(scope="module")
def server(engine: str):
    options = ("--workers", "1", "--ping-interval", "0", "--compression", "--max-message-bytes", str(LIMIT))
    with serving("--engine", engine, *options) as running:
        yield running


class Client:
    """A connection that was offered these extensions."""

    def __init__(self, server: Server, *offers: str) -> None:
        self.sock = raw(server.port)
        lines = [
            "GET /echo HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
            *(f"Sec-WebSocket-Extensions: {offer}" for offer in offers), "", "",
        ]  # fmt: skip
        self.sock.sendall("\r\n".join(lines).encode())
        status, _, headers = read_answer(self.sock)
        assert status == 101
        self.agreed = headers.get("sec-websocket-extensions")
        self.inflate = zlib.decompressobj(-15)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, first: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2, "big")
        self.sock.sendall(head + bytes(4) + payload)

    def frame(self) -> tuple[int, bytes]:
        first, size = exactly(self.sock, 2)
        if size == 126:
            size = int.from_bytes(exactly(self.sock, 2), "big")
        elif size == 127:
            size = int.from_bytes(exactly(self.sock, 8), "big")
        return first, exactly(self.sock, size)

    def reply(self) -> bytes:
        """A message, which must be whole and compressed."""
        first, payload = self.frame()
        assert first in (0xC1, 0xC2), hex(first)
        return self.inflate.decompress(payload + b"\x00\x00\xff\xff")

    def says(self, first: int, payload: bytes, wanted: bytes) -> None:
        self.send(first, payload)
        assert self.reply() == wanted


def deflated(data: bytes, *, bits: int = 15) -> bytes:
    """A message by itself."""
    packer = zlib.compressobj(wbits=-bits)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def sparingly_inflated(payload: bytes, *, bits: int) -> bytes:
    """With no more behind it than the window: zlib else looks back into what it writes in one go."""
    inflate, left, data = zlib.decompressobj(-bits), payload + b"\x00\x00\xff\xff", b""
    while left:
        data += inflate.decompress(left, 32)
        left = inflate.unconsumed_tail
    return data + inflate.flush()


def parts(agreed: str | None) -> tuple[str, set[str]]:
    assert agreed is not None
    name, *parameters = (part.strip() for part in agreed.split(";"))
    return name, set(parameters)


# --- section 5 and 7.1: negotiation ---


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10",
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_max_window_bits",
        'permessage-deflate; server_max_window_bits="10"',
        "x-unknown, permessage-deflate",
        "permessage-deflate; no_such_parameter, permessage-deflate",
    ],
)
def test_5_1_an_offer_that_can_be_taken_is_taken(server, offer):
    with Client(server, offer) as client:
        name, _ = parts(client.agreed)
        assert name == "permessage-deflate"
        client.says(0xC1, HELLO, b"Hello")


def test_5_1_offers_may_stand_in_several_headers_and_the_first_that_fits_is_taken(server):
    with Client(server, "permessage-deflate; server_max_window_bits=99", "permessage-deflate") as client:
        assert parts(client.agreed)[0] == "permessage-deflate"
        client.says(0xC1, HELLO, b"Hello")


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; no_such_parameter",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=ten",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10; server_max_window_bits=11",
        "deflate-frame",
    ],
)
def test_7_1_an_offer_that_breaks_its_rules_is_declined_and_nothing_is_compressed(server, offer):
    with Client(server, offer) as client:
        assert client.agreed is None
        client.send(0x81, b"plain")
        assert client.frame() == (0x81, b"plain")
        client.send(0xC1, HELLO)
        assert read_close(client.sock) == 1002


def test_7_1_1_1_without_context_takeover_each_reply_stands_by_itself(server):
    with Client(server, "permessage-deflate; server_no_context_takeover") as client:
        assert "server_no_context_takeover" in parts(client.agreed)[1]
        text = b"the same again " * 20
        for _ in range(3):
            client.inflate = zlib.decompressobj(-15)  # nothing of the reply before
            client.says(0x81, text, text)


def test_7_1_2_1_the_server_keeps_to_the_window_that_it_was_given(server):
    """What repeats stands 700 bytes back, and replies are read with a window of 512."""
    text = random.Random(7692).randbytes(700) * 4
    with pytest.raises(zlib.error):
        sparingly_inflated(deflated(text, bits=12), bits=9)
    with Client(server, "permessage-deflate; server_max_window_bits=9") as client:
        assert "server_max_window_bits=9" in parts(client.agreed)[1]
        client.send(0xC2, deflated(text))
        first, payload = client.frame()
        assert first == 0xC2
        assert sparingly_inflated(payload, bits=9) == text


def test_7_1_2_2_a_client_that_names_no_window_is_given_none(server):
    with Client(server, "permessage-deflate") as client:
        assert not [part for part in parts(client.agreed)[1] if part.startswith("client_max_window_bits")]
    with Client(server, "permessage-deflate; client_max_window_bits=10") as client:
        bits = [part for part in parts(client.agreed)[1] if part.startswith("client_max_window_bits")]
        assert all(8 <= int(part.partition("=")[2]) <= 10 for part in bits)
        text = bytes(at * at % 251 for at in range(5000)) * 2
        client.says(0xC2, deflated(text, bits=10), text)


# --- section 6 and 7.2: messages ---


@pytest.mark.parametrize(
    "payload",
    [
        HELLO,  # 7.2.3.1
        bytes.fromhex("000500faff48656c6c6f00"),  # 7.2.3.3: not compressed
        bytes.fromhex("f348cdc9c9070000"),  # 7.2.3.4: BFINAL
        bytes.fromhex("f24805000000ffffcac9c90700"),  # 7.2.3.5: two blocks
    ],
)
def test_7_2_3_the_examples_are_read(server, payload):
    with Client(server, "permessage-deflate") as client:
        client.says(0xC1, payload, b"Hello")
        client.send(0x88, b"\x03\xe8")
        assert read_close(client.sock) == 1000


def test_7_2_3_2_the_window_goes_on_from_message_to_message(server):
    with Client(server, "permessage-deflate") as client:
        client.says(0xC1, HELLO, b"Hello")
        client.says(0xC1, bytes.fromhex("f200110000"), b"Hello")


@pytest.mark.parametrize("payload", [b"\x00", b"\x02\x00"])
def test_7_2_3_6_an_empty_message_is_one(server, payload):
    with Client(server, "permessage-deflate") as client:
        client.says(0xC2, payload, b"")
        client.says(0xC1, HELLO, b"Hello")


def test_6_1_only_the_first_fragment_says_that_a_message_is_compressed(server):
    with Client(server, "permessage-deflate") as client:
        client.send(0x41, HELLO[:3])
        client.send(0x89, b"between")
        client.send(0x00, b"")
        client.send(0x80, HELLO[3:])
        assert client.frame() == (0x8A, b"between")
        assert client.reply() == b"Hello"


def test_6_1_a_message_need_not_be_compressed(server):
    with Client(server, "permessage-deflate") as client:
        client.says(0x81, b"plain", b"plain")
        client.says(0xC1, HELLO, b"Hello")
        client.send(0x01, b"pl")
        client.says(0x80, b"ain", b"plain")


@pytest.mark.parametrize("first", [0xC8, 0xC9, 0xCA, 0xC0, 0xA1, 0x91, 0xE1])
def test_6_1_reserved_bits_elsewhere_close_with_1002(server, first):
    """RSV1 of control frames and of what continues nothing; RSV2 and RSV3 anywhere."""
    with Client(server, "permessage-deflate") as client:
        client.send(first, b"")
        assert read_close(client.sock) == 1002


def test_6_1_a_continuation_with_the_bit_closes_with_1002(server):
    with Client(server, "permessage-deflate") as client:
        client.send(0x41, HELLO[:3])
        client.send(0xC0, HELLO[3:])
        assert read_close(client.sock) == 1002


def test_6_1_control_frames_are_answered_uncompressed(server):
    with Client(server, "permessage-deflate") as client:
        client.send(0x89, b"aaaaaaaaaaaaaaaaaaaa")
        assert client.frame() == (0x8A, b"aaaaaaaaaaaaaaaaaaaa")


@pytest.mark.parametrize(
    "payload", [b"\xff\xff\xff\xff", b"\x06" + b"\xff" * 20, bytes.fromhex("0005000000") + b"Hello"]
)
def test_7_2_2_what_is_no_deflate_fails_the_connection(server, payload):
    """Section 7.2.2 leaves the code open; both engines say the library's."""
    with Client(server, "permessage-deflate") as client:
        client.send(0xC1, payload)
        assert read_close(client.sock) == 1002
        assert client.sock.recv(100) == b""


def test_7_2_2_text_must_be_utf8_when_it_is_inflated(server):
    with Client(server, "permessage-deflate") as client:
        client.send(0xC1, deflated(b"\xff\xfe"))
        assert read_close(client.sock) == 1007


@pytest.mark.parametrize("fragments", [1, 3])
def test_8_a_message_that_inflates_beyond_the_limit_closes_with_1009(server, fragments):
    """50 MiB in 51 KiB: what is inflated is bounded, not what is sent."""
    worker = server.workers()[0]
    before = worker.memory_info().rss
    bomb = deflated(bytes(50 << 20))
    step = -(-len(bomb) // fragments)
    with Client(server, "permessage-deflate") as client:
        for at in range(0, len(bomb), step):
            last = at + step >= len(bomb)
            client.send((0x80 if last else 0) | (0x42 if at == 0 else 0), bomb[at : at + step])
        assert read_close(client.sock) == 1009
    assert worker.memory_info().rss - before < 8 << 20


def test_a_message_of_the_limit_comes_back_however_small_it_was_packed(server):
    with Client(server, "permessage-deflate") as client:
        client.says(0xC2, deflated(b"z" * LIMIT), b"z" * LIMIT)
