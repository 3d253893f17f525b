"""Rooms of one worker."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.wsnode.serving import Server, serving, upgrade
from wsnode.server.paths import Echo, Health, Refusal, Room, parse_path
from wsnode.server.rooms import Rooms


@pytest.fixture(scope="module")
def server(engine):
    with serving("--engine", engine, "--workers", "1") as running:
        yield running


def test_a_message_goes_to_all_of_the_room_its_sender_included(server: Server):
    async def run():
        async with AsyncExitStack() as stack:

            async def enter(room):
                return await stack.enter_async_context(connect(server.url(f"/broadcast/{room}"), proxy=None))

            one, two, three, elsewhere = [await enter(room) for room in ("a", "a", "a", "b")]
            await one.send("text")
            await two.send(b"\x00binary")
            await elsewhere.send("mine")
            inside = [{await member.recv(), await member.recv()} for member in (one, two, three)]
            return inside, await elsewhere.recv()

    before = server.metrics()
    inside, outside = asyncio.run(run())
    assert inside == [{"text", b"\x00binary"}] * 3
    assert outside == "mine"
    server.value_becomes(
        "websocket_messages_broadcasted_total", before.total("websocket_messages_broadcasted_total") + 3
    )
    after = server.metrics()
    assert after.total("websocket_messages_sent_total") - before.total("websocket_messages_sent_total") == 7
    assert after.total("websocket_bytes_sent_total") - before.total("websocket_bytes_sent_total") == 3 * (4 + 7) + 4


def test_who_left_a_room_gets_no_more(server: Server):
    async def run():
        async with connect(server.url("/broadcast/left"), proxy=None) as stays:
            async with connect(server.url("/broadcast/left"), proxy=None) as leaves:
                await leaves.send("first")
                assert await stays.recv() == "first"
            await stays.send("second")
            return await stays.recv()

    assert asyncio.run(run()) == "second"


def test_a_subscriber_that_does_not_read_is_closed_with_1013_and_the_others_miss_nothing(engine):
    """More is published than the kernel's buffers of a connection hold (some 10 MiB)."""
    message, count = b"m" * 65536, 400

    async def run(server: Server):
        url = server.url("/broadcast/slow")
        plain = {"proxy": None, "compression": None}
        async with connect(url, **plain) as publisher, connect(url, **plain, max_queue=1) as slow:
            received = []
            for _ in range(count):
                await publisher.send(message)
                received.append(len(await publisher.recv()))
            late = 0
            try:
                while True:
                    late += len(await slow.recv())
            except ConnectionClosed as closed:
                return received, late, closed.rcvd.code

    with serving("--engine", engine, "--workers", "1", "--max-backlog-bytes", "65536") as server:
        received, late, code = asyncio.run(run(server))
        assert received == [65536] * count
        assert code == 1013
        assert 0 < late < 65536 * count
        server.value_becomes("websocket_connection_errors_total", 1, kind="slow_consumer")
        server.value_becomes("websocket_connections_closed_total", 1, code="1013")


def test_with_two_workers_a_room_answers_501_and_says_why(engine):
    with serving("--engine", engine, "--workers", "2") as server:
        sock, status, body, _ = upgrade(server.port, "/broadcast/a")
        sock.close()
    assert status == 501
    assert "one worker" in body
    assert "--workers 1" in body


@pytest.mark.parametrize("name", ["", "a/b", "a%20b", "x" * 65, "ö"])
def test_a_bad_room_name_is_400_and_says_what_is_allowed(name):
    refusal = parse_path(f"/broadcast/{name}")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400
    assert "1 to 64 letters, digits" in refusal.text


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("/", Echo()),
        ("/echo", Echo()),
        ("/healthz", Health()),
        ("/broadcast/A.z_9-", Room("A.z_9-")),
        ("/broadcast/" + "x" * 64, Room("x" * 64)),
        ("/broadcast/a?publisher=1", Room("a")),
    ],
)
def test_a_path_means(target, asked):
    assert parse_path(target) == asked


@pytest.mark.parametrize("target", ["", "/echo/", "/ECHO", "/broadcast", "//echo"])
def test_any_other_path_is_404(target):
    assert parse_path(target).status == 404


def test_a_room_exists_while_somebody_is_in_it():
    rooms: Rooms[str] = Rooms()
    assert rooms.join("a", "one") is rooms.join("a", "two")
    assert rooms.join("a", "one") == {"one", "two"}
    rooms.leave("a", "one")
    rooms.leave("a", "one")
    rooms.leave("b", "one")
    assert len(rooms) == 1
    rooms.leave("a", "two")
    assert len(rooms) == 0
