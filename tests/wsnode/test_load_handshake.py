"""What a load says and believes when it connects: headers, subprotocols and certificates, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from tests.wsnode.loads import carry_out
from tests.wsnode.peers import new_identity, peer

BASE = {"clients": 4, "ramp_up_s": 0, "rate_per_s": 1000, "interval_ms": 100, "duration_s": 2}


@contextlib.contextmanager
def _library_server(subprotocols: list[str] | None, asked: list[dict[str, str]]) -> Iterator[str]:
    """The library's server in a thread, which keeps what it is asked with."""
    loop = asyncio.new_event_loop()

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        asked.append(dict(connection.request.headers.raw_items()))
        async for message in connection:
            await connection.send(message)

    async def start() -> Server:
        return await serve(echo, "127.0.0.1", 0, subprotocols=subprotocols)  # type: ignore[arg-type]

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        asyncio.run_coroutine_threadsafe(server.wait_closed(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_headers_are_said_for_each_client_and_a_subprotocol_is_agreed_on() -> None:
    asked: list[dict[str, str]] = []
    headers = ("Authorization: Bearer ${secret:TOKEN}", "X-Client: c${client}", "Origin: https://a.example")
    with _library_server(["live"], asked) as url:
        done = carry_out(url, headers=headers, subprotocols=("chat", "live"), secrets={"TOKEN": "t-42"}, **BASE)
    assert done.result.counters.connections_opened == 4
    assert done.result.counters.errors == {}
    assert done.result.counters.messages_received == done.result.counters.messages_sent > 0
    assert {one["Authorization"] for one in asked} == {"Bearer t-42"}
    assert {one["Origin"] for one in asked} == {"https://a.example"}
    assert {one["Sec-WebSocket-Protocol"] for one in asked} == {"chat, live"}
    assert sorted(one["X-Client"] for one in asked) == ["c0", "c1", "c2", "c3"]
    assert "t-42" not in done.result.model_dump_json()


def test_a_server_that_chooses_no_subprotocol_is_taken() -> None:
    with _library_server(None, []) as url:
        counters = carry_out(url, subprotocols=("chat",), **BASE).result.counters
    assert (counters.connections_opened, counters.errors) == (4, {})


@pytest.mark.parametrize(
    ("names", "believed", "verify", "error"),
    [
        ((), True, True, None),
        ((), False, True, "certificate_refused"),
        (("elsewhere.example",), True, True, "certificate_refused"),
        ((), False, False, None),
        (("elsewhere.example",), False, False, None),
    ],
)
def test_a_certificate_must_be_of_a_known_authority_and_of_the_urls_host_unless_verification_is_off(
    tmp_path: Path, names: tuple[str, ...], believed: bool, verify: bool, error: str | None
) -> None:
    identity = new_identity(tmp_path / "peer.pem", *names)
    with peer("delay", 0, identity) as server:
        done = carry_out(
            server.url, ca_file=str(identity) if believed else None, tls_verify=verify, reconnect_delay_s=1, **BASE
        )
    counters = done.result.counters
    assert set(counters.errors) == ({error} if error else set())
    assert counters.connections_opened == (0 if error else 4)
    assert counters.messages_received == counters.messages_sent
    assert ("the server's certificate was not verified" in done.result.notes) is not verify
