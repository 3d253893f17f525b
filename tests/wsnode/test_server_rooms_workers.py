"""A room is one over all workers: real processes, some of them killed.

What is held to is the guarantee of docs/adr/0015-rooms-over-workers.md.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from itertools import count

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.wsnode.serving import PATIENCE_S, Server, eventually, serving

WORKERS = 3
ROOMS = count()
PLAIN = {"proxy": None, "compression": None, "ping_interval": None, "max_queue": None}


def content(publisher: int, number: int) -> str | bytes:
    """What a publisher's message of that number is: text and binary, of many sizes."""
    text = f"{publisher} {number} " + "ä€😀"[number % 3] * (number * 37 % 400)
    return text if number % 2 else text.encode() + b"\x00\xff"


def parsed(message: str | bytes) -> tuple[int, int]:
    """(publisher, number) of a message that must be as it was sent."""
    publisher, number = (int(word) for word in message.split(maxsplit=2)[:2])
    assert message == content(publisher, number)
    return publisher, number


class Member:
    """A client in a room: publishes, keeps what it receives."""

    def __init__(self, number: int, published: dict[int, int]) -> None:
        self.number = number
        self.published = published
        """Of all members: how many messages each has begun to send."""
        self.joined: dict[int, int] = {}
        """`published` when its join was acknowledged."""
        self.got: dict[int, list[int]] = defaultdict(list)
        self.lost = False

    async def join(self, url: str) -> None:
        self.socket: ClientConnection = await connect(url, **PLAIN)
        self.joined = dict(self.published)
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                publisher, number = parsed(await self.socket.recv())
                self.got[publisher].append(number)
        self.lost = True

    async def publish(self) -> None:
        number = self.published[self.number] = self.published.get(self.number, 0) + 1
        with suppress(ConnectionClosed):
            await self.socket.send(content(self.number, number))

    async def leave(self) -> None:
        await self.socket.close()
        await self.reading

    def has_all(self, living: list[Member]) -> bool:
        """Whether the last message of each of these has come."""
        return all(
            self.published.get(other.number, 0) == self.joined.get(other.number, 0)
            or (self.got[other.number] and self.got[other.number][-1] == self.published[other.number])
            for other in living
        )

    def check(self) -> None:
        """Whoever it was that published, whenever this one came and went: each once, in order, none left out."""
        for publisher, numbers in self.got.items():
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert numbers[0] <= self.joined.get(publisher, 0) + 1


async def play(server: Server, seed: int, members: int, kills: int) -> None:
    """Members join, publish and leave at random; meanwhile workers are killed."""
    chance, url = random.Random(seed), server.url(f"/broadcast/{next(ROOMS)}")
    published: dict[int, int] = {}
    everybody: list[Member] = []
    stay: list[Member] = []

    async def live(number: int, stays: bool) -> None:
        member = Member(number, published)
        await asyncio.sleep(chance.random() * 0.2)
        with suppress(OSError, WebSocketException):  # it may come to a worker that falls just then
            await member.join(url)
            everybody.append(member)
            for _ in range(chance.randrange(60)):
                await member.publish()
                if chance.random() < 0.3:
                    await asyncio.sleep(chance.random() * 0.02)
            if stays:
                stay.append(member)
            else:
                await member.leave()

    async def kill() -> None:
        for _ in range(kills):
            await asyncio.sleep(0.05 + chance.random() * 0.2)
            chance.choice(living_workers(server)).kill()

    await asyncio.gather(kill(), *(live(number, chance.random() < 0.6) for number in range(members)))
    if kills:  # others come to the successors
        await asyncio.to_thread(eventually, lambda: living_workers(server), lambda alive: len(alive) == WORKERS)
        await asyncio.gather(*(live(number, chance.random() < 0.6) for number in range(members, 2 * members)))
    living = [member for member in stay if not member.lost]
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not all(member.has_all(living) for member in living if not member.lost):
        assert asyncio.get_running_loop().time() < deadline, "messages are missing"
        await asyncio.sleep(0.01)
        living = [member for member in living if not member.lost]  # a killed worker's clients learn of it by and by
    await asyncio.sleep(0.05)  # what came twice would have come by now
    for member in everybody:
        member.check()
    for member in stay:
        await member.leave()


def living_workers(server: Server) -> list[psutil.Process]:
    return [worker for worker in server.workers() if worker.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module", params=["lean", "lean coalescing", "websockets"])
def options(request):
    engine, _, coalescing = request.param.partition(" ")
    more = ("--coalesce-ms", "3") if coalescing else ()
    return ("--engine", engine, "--workers", str(WORKERS), "--ping-interval", "0", *more)


@pytest.fixture(scope="module")
def server(options):
    with serving(*options) as running:
        yield running


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), members=st.integers(2, 24))
def test_each_message_comes_once_in_order_to_all_whoever_joins_and_leaves(server, seed, members):
    asyncio.run(play(server, seed, members, 0))
    assert server.metrics().total("websocket_room_messages_dropped_total") == 0


@settings(deadline=None, max_examples=4, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), members=st.integers(6, 16))
def test_nothing_doubles_and_nothing_of_the_living_is_missed_when_workers_are_killed(options, seed, members):
    with serving(*options) as server:
        asyncio.run(play(server, seed, members, 2))
        server.value_becomes("websocket_worker_restarts_total", 2)
        assert server.metrics().total("websocket_room_messages_dropped_total") == 0


async def enter_all(stack: AsyncExitStack, server: Server, clients: int) -> list[ClientConnection]:
    """Clients in one room, with some on each worker."""
    url = server.url(f"/broadcast/{next(ROOMS)}")
    inside = [await stack.enter_async_context(connect(url, **PLAIN, open_timeout=60)) for _ in range(clients)]
    await asyncio.to_thread(server.total_becomes, "websocket_active_connections", clients)
    metrics = server.metrics()
    assert min(metrics.value("websocket_active_connections", worker=str(n)) for n in (0, 1)) > 0
    return inside


def test_a_worker_that_stands_still_misses_whole_messages_and_they_are_counted(engine):
    size, number = 1 << 16, 500

    async def run(server: Server):
        async with asyncio.timeout(3 * PATIENCE_S), AsyncExitStack() as stack:
            clients = await enter_all(stack, server, 12)
            stopped = server.workers()[0]
            stopped.suspend()
            try:
                await asyncio.gather(*(client.send(f"{n}") for n, client in enumerate(clients)))
                here = clients[int(await _first(clients))]
                await here.send("mine")
                while await here.recv() != "mine":
                    pass
                for n in range(number):
                    await here.send(n.to_bytes(4, "big") * (size // 4))
                    while not isinstance(await here.recv(), bytes):
                        pass
            finally:
                stopped.resume()
            await here.send("end")
            return [await _until_end(client) for client in clients if client is not here]

    with serving(
        "--engine", engine, "--workers", "2", "--max-backlog-bytes", str(1 << 28), "--ping-interval", "0"
    ) as server:
        received = asyncio.run(run(server))
        server.value_becomes("websocket_messages_broadcasted_total", 12 + 1 + number + 1)
        metrics = server.metrics()
        dropped = metrics.value("websocket_room_messages_dropped_total", reason="backlog")
        assert metrics.value("websocket_room_messages_forwarded_total") + dropped == 12 + 1 + number + 1
        assert 0 < dropped < number
        for numbers in received:
            assert numbers == sorted(set(numbers))
            assert len(numbers) in (number, number - dropped)
        assert {len(numbers) for numbers in received} >= {number - dropped}
        assert metrics.value("websocket_room_messages_dropped_total", reason="unlinked") == 0


async def _first(clients: list[ClientConnection]) -> str | bytes:
    """The first message that comes to anybody."""
    reading = [asyncio.create_task(client.recv()) for client in clients]
    done, pending = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return next(iter(done)).result()


async def _until_end(client: ClientConnection) -> list[int]:
    """Numbers of the whole messages until the last word."""
    numbers = []
    while (message := await client.recv()) != "end":
        if isinstance(message, bytes):
            assert message == message[:4] * (len(message) // 4)
            numbers.append(int.from_bytes(message[:4], "big"))
    return numbers


def test_a_draining_server_delivers_what_it_has_taken_before_1001(engine):
    """Who got its own message back knows that it was taken: then all others have got it as well."""

    async def run(server: Server):
        async with asyncio.timeout(3 * PATIENCE_S), AsyncExitStack() as stack:
            clients = await enter_all(stack, server, 12)
            got: list[set[tuple[int, int]]] = [set() for _ in clients]

            async def flood(me: int) -> None:
                with suppress(ConnectionClosed):
                    for number in count(1):
                        await clients[me].send(content(me, number))
                        await asyncio.sleep(0)

            async def read(me: int) -> int:
                try:
                    while True:
                        got[me].add(parsed(await clients[me].recv()))
                except ConnectionClosed as closed:
                    return closed.rcvd.code

            floods = [asyncio.create_task(flood(me)) for me in range(len(clients))]
            reads = [asyncio.create_task(read(me)) for me in range(len(clients))]
            await asyncio.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            codes = await asyncio.gather(*reads)
            await asyncio.gather(*floods)
            return codes, got

    with serving("--engine", engine, "--workers", "2", "--ping-interval", "0") as server:
        codes, got = asyncio.run(run(server))
        assert codes == [1001] * 12
        assert len(got[0]) > 100
        assert all(messages == got[0] for messages in got)
        assert server.process.wait(PATIENCE_S) == 0
