"""Rooms of one worker; `test_server_rooms_workers.py` has those of several."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.wsnode.serving import Server, exactly, frame, read_close, serving, upgrade
from wsnode.core.metrics import SERVER, for_job
from wsnode.lean import TEXT
from wsnode.server.paths import Echo, Health, Refusal, Room, parse_path
from wsnode.server.rooms import Rooms
from wsnode.telemetry import Layout


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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_subscriber_that_does_not_read_is_closed_with_1013_and_the_others_miss_nothing(engine, workers):
    """More is published than the kernel's buffers of a connection hold (some 10 MiB). Of two workers both have slow
    ones, and what they are sent does not pile up in them."""
    message, count = b"m" * 65536, 400

    async def run(server: Server):
        url = server.url("/broadcast/slow")
        plain = {"proxy": None, "compression": None}
        async with AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(connect(url, **plain, max_queue=1)) for _ in range(8)]
            publisher, reader = [await stack.enter_async_context(connect(url, **plain)) for _ in range(2)]
            server.total_becomes("websocket_active_connections", 10)
            spread = [server.metrics().value("websocket_active_connections", worker=str(n)) for n in range(workers)]
            received = []
            for _ in range(count):
                await publisher.send(message)
                received.append((len(await publisher.recv()), len(await reader.recv())))
            grown = sum(worker.memory_info().rss for worker in server.workers())
            ends = []
            for client in slow:
                late = 0
                try:
                    while True:
                        late += len(await client.recv())
                except ConnectionClosed as closed:
                    ends.append((closed.rcvd.code, 0 < late < 65536 * count))
            return spread, received, grown, ends

    options = ("--workers", str(workers), "--max-backlog-bytes", "65536", "--ping-interval", "0")
    with serving("--engine", engine, *options) as server:
        before = sum(worker.memory_info().rss for worker in server.workers())
        spread, received, grown, ends = asyncio.run(run(server))
        assert min(spread) > 0
        assert received == [(65536, 65536)] * count
        assert ends == [(1013, True)] * 8
        server.value_becomes("websocket_connection_errors_total", 8, kind="slow_consumer")
        server.value_becomes("websocket_connections_closed_total", 8, code="1013")
        assert server.metrics().total("websocket_room_messages_dropped_total") == 0
        assert grown - before < 65536 * count, "what they did not read would be eight times that"


def test_what_one_read_brings_is_written_in_one_piece():
    """Without any tick: the system calls of a room under load are those of its turns."""
    with serving("--engine", "lean", "--workers", "1", "--ping-interval", "0") as server:
        one, two = (upgrade(server.port, "/broadcast/a")[0] for _ in range(2))
        with one, two:
            one.sendall(frame(1, b"many") * 100)
            wanted = frame(1, b"many", masked=False) * 100
            assert (one.recv(65536), two.recv(65536)) == (wanted, wanted)


COALESCED = ("--engine", "lean", "--workers", "1", "--coalesce-ms", "60")


def test_coalesced_messages_come_in_one_piece_in_order_and_unchanged():
    sent = [(1, b"one"), (2, b"\x00\xff"), (1, "grüße".encode()), (2, b"x" * 300), (1, b"")]
    with serving(*COALESCED) as server:
        one, two = (upgrade(server.port, "/broadcast/a")[0] for _ in range(2))
        with one, two:
            began = time.monotonic()
            one.sendall(b"".join(frame(opcode, payload) for opcode, payload in sent))
            wanted = b"".join(frame(opcode, payload, masked=False) for opcode, payload in sent)
            assert (one.recv(65536), two.recv(65536)) == (wanted, wanted)
            assert 0.05 < time.monotonic() - began < 5
        server.value_becomes("websocket_messages_sent_total", 10)
        metrics = server.metrics()
        assert metrics.value("websocket_bytes_sent_total") == 2 * sum(len(payload) for _, payload in sent)
        assert metrics.value("websocket_message_processing_seconds_count") == 5
        assert metrics.value("websocket_message_processing_seconds_sum") > 5 * 0.05


def test_coalesced_messages_reach_compressed_subscribers_too():
    async def run(server: Server):
        url = server.url("/broadcast/a")
        async with connect(url, proxy=None) as packed, connect(url, proxy=None, compression=None) as plain:
            assert packed.protocol.extensions
            for number in range(20):
                await plain.send(f"message {number}")
            return [[await member.recv() for _ in range(20)] for member in (packed, plain)]

    with serving(*COALESCED, "--compression") as server:
        assert asyncio.run(run(server)) == [[f"message {number}" for number in range(20)]] * 2


def test_what_waits_is_written_before_the_server_goes():
    with serving("--engine", "lean", "--workers", "1", "--coalesce-ms", "1000") as server:
        sock = upgrade(server.port, "/broadcast/a")[0]
        with sock:
            sock.sendall(frame(1, b"last words"))
            server.value_becomes("websocket_messages_broadcasted_total", 1)
            server.process.send_signal(signal.SIGTERM)
            assert exactly(sock, 12) == frame(1, b"last words", masked=False)
            assert read_close(sock) == 1001


def test_more_than_a_tick_should_hold_is_written_before_it():
    with serving("--engine", "lean", "--workers", "1", "--coalesce-ms", "1000") as server:
        sock = upgrade(server.port, "/broadcast/a")[0]
        with sock:
            began = time.monotonic()
            sock.sendall(frame(2, b"y" * 30_000) * 3)
            assert len(exactly(sock, 3 * 30_004)) == 3 * 30_004
            assert time.monotonic() - began < 0.9


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


def rooms(**options: float) -> tuple[Rooms[str], list[tuple[list[str], list[bytes]]]]:
    """Rooms whose subscribers are names, and what was sent to whom."""
    sent: list[tuple[list[str], list[bytes]]] = []

    def send(members, messages):
        sent.append((sorted(members), [payload for _, payload in messages]))
        return len(members)

    return Rooms(send, Layout(for_job(SERVER)).counters(), **options), sent


def test_a_room_exists_while_somebody_is_in_it():
    inside, _ = rooms()
    room = inside.join("a", "one")
    assert inside.join("a", "two") is room
    assert inside.join("a", "one").members == {"one", "two"}
    inside.leave(room, "one")
    inside.leave(room, "one")
    assert len(inside) == 1
    inside.leave(room, "two")
    assert len(inside) == 0
    again = inside.join("a", "three")
    inside.leave(room, "two")  # a room of that name before it
    assert (again.members, len(inside)) == ({"three"}, 1)


def test_who_joins_within_a_tick_does_not_get_what_was_published_before():
    async def run():
        inside, sent = rooms(coalesce_s=0.01)
        room = inside.join("a", "one")
        inside.publish(room, TEXT, b"before")
        inside.join("a", "two")
        inside.publish(room, TEXT, b"after")
        inside.arrived(b"a", TEXT, b"from elsewhere")
        await asyncio.sleep(0.1)
        return sent

    assert asyncio.run(run()) == [(["one"], [b"before"]), (["one", "two"], [b"after", b"from elsewhere"])]
