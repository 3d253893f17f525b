"""Every server engine against the library's protocol object: generated frames, cut anywhere, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wsnode.serving import exactly, serving, upgrade
from tests.wsnode.test_lean import LIMIT, Reference, cut, encoded, frames
from wsnode.lean import LeanServer

CLOSE = encoded(0x88, b"\x03\xe8", masked=True)


@pytest.fixture(scope="module")
def server(engine: str):
    options = ("--workers", "2", "--ping-interval", "0", "--max-message-bytes", str(LIMIT))
    with serving("--engine", engine, *options) as running:
        yield running


@pytest.mark.parametrize("path", ["/echo", "/broadcast/alone"])
@settings(deadline=None, max_examples=150)
@given(sent=st.lists(frames(True), max_size=8), places=st.lists(st.integers(0, 300), max_size=4))
def test_whatever_comes_is_answered_as_the_library_does(server: Any, path: str, sent: list[bytes], places: list[int]):
    """Each frame's answer is read before the next one is sent: of what stands in one read with a close, the engines may
    answer what came before it or not (docs/adr/0012). A room with one in it answers as an echo does."""
    reference = Reference(LeanServer.side)
    sock, status, _, _ = upgrade(server.port, path)
    with sock:
        assert status == 101
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for frame in (*sent, CLOSE):
            said = len(reference.wire.said()[0])
            reference.receive(frame)
            answer, ended = reference.wire.said()
            for piece in cut(frame, places):
                sock.sendall(piece)
            assert exactly(sock, len(answer) - said) == answer[said:]
            if ended:
                break
        assert reference.wire.said()[1]
        assert sock.recv(1) == b""
