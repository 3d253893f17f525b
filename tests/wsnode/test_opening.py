"""The client's opening handshake by RFC 6455, section 4.1: what it asks, and what answers it takes."""

from __future__ import annotations

import re

import pytest
from websockets.uri import parse_uri
from websockets.utils import accept_key

from wsnode.load.opening import Opening, Request

URI = parse_uri("ws://example.org:8080/live?room=1")
RIGHT = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: ACCEPT\r\n\r\n"
)


def opening(**more: object) -> tuple[Opening, bytes]:
    """One under way, and the value that accepts it."""
    found = Opening(Request(URI, **more))  # type: ignore[arg-type]
    [key] = re.findall(rb"Sec-WebSocket-Key: (.*)\r\n", found.to_send)
    return found, accept_key(key.decode()).encode()


def answered(answer: str, *, pieces: int = 1, end: bool = True, **more: object) -> tuple[bytes | None, str | None]:
    """What comes behind the answer where it is right, and why it is wrong."""
    found, accept = opening(**more)
    data = answer.encode("latin-1").replace(b"ACCEPT", accept)
    rest: bytes | None = None
    step = -(-len(data) // pieces)
    for at in range(0, len(data), step):
        if found.failed:
            break
        if rest is not None:
            rest += data[at : at + step]
        else:
            rest = found.receive(data[at : at + step])
    if end and rest is None:
        found.end()
    return rest, found.failed


def test_41_the_request_is_what_the_rfc_asks_for() -> None:
    found, _ = opening(headers=["Origin: https://a.example", "X-Client: ${client}"], subprotocols=["chat", "live"])
    first, *lines, empty, nothing = found.to_send.split(b"\r\n")
    assert (first, empty, nothing) == (b"GET /live?room=1 HTTP/1.1", b"", b"")
    by_name = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
    assert len(by_name) == len(lines)
    assert by_name[b"host"] == b"example.org:8080"
    assert (by_name[b"upgrade"].lower(), by_name[b"connection"].lower()) == (b"websocket", b"upgrade")
    assert by_name[b"sec-websocket-version"] == b"13"
    assert re.fullmatch(rb"[A-Za-z0-9+/]{22}==", by_name[b"sec-websocket-key"])
    assert by_name[b"sec-websocket-protocol"] == b"chat, live"
    assert b"sec-websocket-extensions" not in by_name
    assert (by_name[b"origin"], by_name[b"x-client"]) == (b"https://a.example", b"0")


def test_41_each_key_is_another_and_each_client_has_its_own_lines() -> None:
    request = Request(URI, ["X-Client: ${client}"])
    sent = [Opening(request, client).to_send for client in (3, 4)]
    keys = [re.findall(rb"Sec-WebSocket-Key: (.*)\r\n", one)[0] for one in sent]
    assert keys[0] != keys[1]
    assert [re.findall(rb"X-Client: (.*)\r\n", one)[0] for one in sent] == [b"3", b"4"]


def test_a_secret_with_a_line_break_never_goes_into_a_request() -> None:
    with pytest.raises(ValueError, match="a secret in the header A has a line break"):
        Request(URI, ["A: ${secret:S}"], secrets={"S": "x\r\nHost: elsewhere"})
    with pytest.raises(ValueError, match="S is not given"):
        Request(URI, ["A: ${secret:S}"])


@pytest.mark.parametrize("pieces", [1, 2, 3, 50, 1000])
@pytest.mark.parametrize("behind", ["", "\x81\x02hi", "\x81\x02hi\x88\x00"])
def test_41_a_right_answer_opens_and_what_comes_behind_it_is_kept(pieces: int, behind: str) -> None:
    assert answered(RIGHT + behind, pieces=pieces) == (behind.encode("latin-1"), None)


@pytest.mark.parametrize(
    "change",
    [
        ("Upgrade: websocket", "upgrade:WebSocket"),
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "CONNECTION: upgrade"),
        ("101 Switching Protocols", "101 "),
        ("\r\n\r\n", "\r\nServer: any\r\nDate: today\r\n\r\n"),
    ],
)
def test_41_an_unusual_right_answer_opens_too(change: tuple[str, str]) -> None:
    assert answered(RIGHT.replace(*change)) == (b"", None)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "handshake_failed"),
        (("Sec-WebSocket-Accept: ACCEPT\r\n", ""), "handshake_failed"),
        (("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT"), "handshake_failed"),
        (("Upgrade: websocket\r\n", ""), "handshake_failed"),
        (("Upgrade: websocket", "Upgrade: h2c"), "handshake_failed"),
        (("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket"), "handshake_failed"),
        (("Connection: Upgrade\r\n", ""), "handshake_failed"),
        (("Connection: Upgrade", "Connection: close"), "handshake_failed"),
        (("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "handshake_failed"),
        (("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"), "handshake_failed"),
        (("Upgrade: websocket", "Upgrade:\r\n websocket"), "handshake_failed"),  # folded
        (("HTTP/1.1", "HTTP/1.0"), "handshake_failed"),
        (("HTTP/1.1", "HTTP/2"), "handshake_failed"),
        (("HTTP/1.1 101", "HTTP/1.1  101"), "handshake_failed"),
        (("Upgrade: websocket", "Upgrade : websocket"), "handshake_failed"),
        (("Upgrade: websocket", "Upgrade websocket"), "handshake_failed"),
        (("\r\n\r\n", "\r\n" + "".join(f"X-{n}: x\r\n" for n in range(200)) + "\r\n"), "handshake_failed"),
        (("\r\n\r\n", "\r\nX-Long: " + "x" * 20_000 + "\r\n\r\n"), "handshake_failed"),
        (("101 Switching Protocols", "100 Continue"), "handshake_rejected"),
        (("101 Switching Protocols", "200 OK"), "handshake_rejected"),
        (("101 Switching Protocols", "301 Moved\r\nLocation: ws://elsewhere/"), "handshake_rejected"),
        (("101 Switching Protocols", "307 Moved\r\nLocation: ws://elsewhere/"), "handshake_rejected"),
        (("101 Switching Protocols", "401 Unauthorized"), "handshake_rejected"),
        (("101 Switching Protocols", "503 Service Unavailable\r\nContent-Length: 0"), "handshake_rejected"),
    ],
    ids=str,
)  # fmt: skip
def test_41_a_wrong_answer_fails_the_connection(change: tuple[str, str], kind: str) -> None:
    """A redirect is an answer like any other: it is not followed."""
    assert answered(RIGHT.replace(*change, 1)) == (None, kind)
    assert answered(RIGHT.replace(*change, 1), pieces=40) == (None, kind)


@pytest.mark.parametrize("answer", ["\x00\xff\x00\xff", "SSH-2.0-OpenSSH_9.2\r\n", "\r\n\r\n", "A" * 100_000])
def test_41_garbage_and_half_an_answer_fail_the_connection(answer: str) -> None:
    assert answered(answer) == (None, "handshake_failed")


@pytest.mark.parametrize(
    ("chosen", "outcome"),
    [
        (None, (b"\x81\x00", None)),  # a server need not choose one
        ("chat", (b"\x81\x00", None)),
        ("live", (b"\x81\x00", None)),
        ("Chat", (None, "handshake_failed")),
        ("other", (None, "handshake_failed")),
        ("chat, live", (None, "handshake_failed")),
        ("chat\r\nSec-WebSocket-Protocol: chat", (None, "handshake_failed")),
    ],
)
def test_41_a_server_may_choose_a_subprotocol_that_was_offered(
    chosen: str | None, outcome: tuple[bytes | None, str | None]
) -> None:
    line = "" if chosen is None else f"Sec-WebSocket-Protocol: {chosen}\r\n"
    answer = RIGHT.replace("\r\n\r\n", f"\r\n{line}\r\n")
    assert answered(answer + "\x81\x00", subprotocols=["chat", "live"]) == outcome


def test_an_answer_that_was_right_for_one_client_is_not_for_another() -> None:
    """Only what surrounds the value that accepts the key is remembered."""
    request = Request(URI)
    first, second, third = Opening(request), Opening(request), Opening(request)
    accepts = [
        accept_key(re.findall(rb"Sec-WebSocket-Key: (.*)\r\n", one.to_send)[0].decode())
        for one in (first, second, third)
    ]
    assert first.receive(RIGHT.replace("ACCEPT", accepts[0]).encode()) == b""
    assert second.receive(RIGHT.replace("ACCEPT", accepts[0]).encode()) is None
    assert second.failed == "handshake_failed"
    assert third.receive(RIGHT.replace("ACCEPT", accepts[2]).encode() + b"\x81") == b"\x81"
