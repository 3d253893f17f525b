"""A client gets back what it sent."""

from __future__ import annotations

import asyncio
import re

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.wsnode.serving import Server, frame, serving, upgrade
from wsnode import __version__
from wsnode.health import said


@pytest.fixture(scope="module")
def server(engine):
    with serving("--engine", engine, "--workers", "1") as running:
        yield running


def talk(server: Server, act, path: str = "/echo", **options):
    async def run():
        async with connect(server.url(path), proxy=None, **({"compression": None} | options)) as client:
            return await act(client)

    return asyncio.run(run())


async def exchange(client: ClientConnection, *messages):
    replies = []
    for message in messages:
        await client.send(message)
        replies.append(await client.recv())
    return replies


@pytest.mark.parametrize("message", ["", "hello", "grüße 🙂", b"", b"\x00\xff\xfe", "x" * 126, b"y" * 65536])
def test_a_message_comes_back_with_its_bytes_and_type(server, message):
    assert talk(server, lambda client: exchange(client, message)) == [message]


def test_a_message_of_exactly_the_limit_comes_back(server):
    message = b"z" * (1 << 20)
    assert talk(server, lambda client: exchange(client, message), max_size=None) == [message]


def test_a_fragmented_message_comes_back_whole(server):
    async def act(client):
        await client.send(["frag", "men", "ted"])
        return await client.recv()

    assert talk(server, act) == "fragmented"


def test_messages_sent_ahead_come_back_in_order(server):
    async def act(client):
        for number in range(500):
            await client.send(str(number))
        return [await client.recv() for _ in range(500)]

    assert talk(server, act) == [str(number) for number in range(500)]


def test_a_bare_slash_echoes_as_the_demo_before_it_did(server):
    assert talk(server, lambda client: exchange(client, "hello"), path="/") == ["hello"]


def test_a_query_does_not_change_the_path(server):
    assert talk(server, lambda client: exchange(client, "hello"), path="/echo?run=1") == ["hello"]


def test_compression_is_off_though_the_client_offers_it(server):
    async def act(client):
        return client.response.headers.get("Sec-WebSocket-Extensions")

    assert talk(server, act, compression="deflate") is None


def test_compression_can_be_switched_on(engine):
    async def act(client):
        return client.response.headers["Sec-WebSocket-Extensions"], await exchange(client, "a" * 1000)

    with serving("--engine", engine, "--workers", "1", "--compression") as compressing:
        extensions, replies = talk(compressing, act, compression="deflate")
    assert extensions.startswith("permessage-deflate")
    assert replies == ["a" * 1000]


def test_a_ping_is_answered(server):
    async def act(client):
        return await (await client.ping())

    assert 0 <= talk(server, act) < 5


def test_the_server_says_what_it_is(server):
    sock, status, _, headers = upgrade(server.port)
    with sock:
        assert status == 101
        assert headers["server"].startswith("wsnode/")
        sock.sendall(frame(8, b"\x03\xe8"))


def test_health_is_ok_over_plain_http(server):
    status, body, _ = server.get("/healthz")
    assert status == 200
    assert re.match(r"ok\nstart_id [0-9a-f]{16}\n", body)
    assert server.get("/healthz")[1] == body, "the same start, whichever worker answers"


def test_health_says_every_option_as_it_is_in_force(server, engine):
    told = said(f"http://127.0.0.1:{server.port}/healthz")
    assert told is not None
    limit = int(told["open_file_limit"])
    assert told.pop("start_id")
    assert told == {
        "wsnode": __version__,
        "engine": engine,
        "workers": "1",
        "max_connections": str(limit - 64),
        "open_file_limit": str(limit),
        "max_message_bytes": str(1 << 20),
        "max_backlog_bytes": str(1 << 20),
        "ping_interval_s": "20",
        "ping_timeout_s": "20",
        "drain_timeout_s": "10",
        "compression": "False",
        "coalesce_ms": "0",
        "pin": "False",
    }
    assert said("http://127.0.0.1:9/healthz") is None


def test_another_path_is_404_and_lists_the_paths(server):
    status, body, _ = server.get("/nothing")
    assert status == 404
    for path in ("/nothing", "/echo", "/broadcast/<room>", "/healthz"):
        assert path in body


def test_plain_http_on_a_websocket_path_is_told_to_upgrade(server):
    status, _, headers = server.get("/echo")
    assert status == 426
    assert headers["upgrade"] == "websocket"
