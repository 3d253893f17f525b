"""Links between workers: real sockets, several ends in one process."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable

import pytest

from wsnode.core.metrics import SERVER, for_job
from wsnode.lean import BINARY, TEXT
from wsnode.server.interest import bucket
from wsnode.server.mesh import QUEUE_BYTES, Meeting, Mesh
from wsnode.telemetry import Layout

ROOM = b"room"
AT = bucket(ROOM)


class End:
    """A worker's mesh, what has come to it, and what it has counted."""

    def __init__(self, meeting: Meeting, number: int) -> None:
        self.counters = Layout(for_job(SERVER)).counters()
        config = meeting.config(number)
        config["listener_fd"] = os.dup(config["listener_fd"])  # each process has its own
        self.mesh = Mesh(number, config, 1 << 20, self.counters)
        self.got: list[tuple[bytes, int, bytes]] = []

    async def start(self) -> bool:
        return await self.mesh.start(lambda *record: self.got.append(record))


def meet(count: int, test: Callable[..., object]) -> None:
    async def run() -> None:
        meeting = Meeting(count)
        ends = [End(meeting, number) for number in range(count)]
        assert await asyncio.gather(*(end.start() for end in ends)) == [True] * count
        try:
            await test(meeting, *ends)  # type: ignore[misc]
        finally:
            for end in ends:
                end.mesh.close()
            meeting.close()
            await asyncio.sleep(0.01)

    asyncio.run(run())


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not so():
            await asyncio.sleep(0.005)


def test_a_message_goes_once_to_each_worker_with_subscribers_and_to_no_other():
    async def test(_, one, two, three):
        two.mesh.joined(AT)
        one.mesh.joined(AT)
        for end, payload in ((one, b"a"), (one, b"\x00b"), (two, b"c"), (three, b"d")):
            end.mesh.forward(AT, ROOM, BINARY, payload)
        await until(lambda: len(one.got) == 2 and len(two.got) == 3)
        two.mesh.left(AT)
        one.mesh.forward(AT, ROOM, TEXT, b"nobody is there")
        assert await asyncio.gather(*(end.mesh.settle(5) for end in (one, two, three))) == [True] * 3
        assert [record for record in two.got if record[2] != b"d"] == [(ROOM, BINARY, b"a"), (ROOM, BINARY, b"\x00b")]
        assert sorted(one.got) == [(ROOM, BINARY, b"c"), (ROOM, BINARY, b"d")]
        assert three.got == []
        assert [end.counters.room_messages_forwarded for end in (one, two, three)] == [2, 1, 2]

    meet(3, test)


def test_what_is_published_in_one_turn_of_the_loop_is_one_write_for_each_worker():
    async def test(_, one, two):
        two.mesh.joined(AT)
        link = one.mesh._links[0].link
        written, write = [], link.transport.write

        class Watched:
            def __getattr__(self, name):
                return getattr(transport, name)

            def write(self, data):
                written.append(len(data))
                write(data)

        transport, link.transport = link.transport, Watched()
        for number in range(100):
            one.mesh.forward(AT, ROOM, TEXT, b"%d" % number)
        await until(lambda: len(two.got) == 100)
        assert len(written) == 1
        assert [payload for _, _, payload in two.got] == [b"%d" % number for number in range(100)]

    meet(2, test)


def test_a_full_queue_drops_whole_messages_and_counts_each():
    async def test(_, one, two):
        two.mesh.joined(AT)
        payload, count = b"p" * 65536, QUEUE_BYTES // 65536 + 50
        for _ in range(count):  # without a turn of the loop nothing is read
            one.mesh.forward(AT, ROOM, BINARY, payload)
        dropped = one.counters.room_messages_dropped["backlog"]
        assert dropped >= 50
        await until(lambda: len(two.got) == count - dropped)
        one.mesh.forward(AT, ROOM, TEXT, b"room again")
        await until(lambda: two.got[-1][2] == b"room again")
        assert {len(record[2]) for record in two.got[:-1]} == {65536}
        assert one.counters.room_messages_forwarded + dropped == count + 1

    meet(2, test)


def test_a_worker_that_serves_without_a_link_counts_as_a_drop_and_one_that_fell_does_not():
    async def test(meeting, one, two):
        two.mesh.joined(AT)
        link = one.mesh._links[0]
        two.mesh._ending = True  # else the link is there again before anybody can look
        link.link.transport.abort()
        await until(lambda: link.link is None and two.mesh._links[0].link is None)
        one.mesh.forward(AT, ROOM, TEXT, b"it has fallen, as far as can be seen")
        assert one.counters.room_messages_dropped == {"backlog": 0, "unlinked": 0}
        two.mesh._interest.take(1, 4242)  # its successor, which has not linked yet
        two.mesh.joined(AT + 1)
        one.mesh.forward(AT + 1, ROOM, TEXT, b"missed")
        assert one.counters.room_messages_dropped == {"backlog": 0, "unlinked": 1}
        two.mesh._ending = False
        two.mesh._connect(0)
        await until(lambda: link.link is not None)
        one.mesh.forward(AT + 1, ROOM, TEXT, b"taken")
        await until(lambda: two.got == [(ROOM, TEXT, b"taken")])
        meeting.ended(1)
        one.mesh.forward(AT + 1, ROOM, TEXT, b"nobody")
        assert one.counters.room_messages_forwarded == 1

    meet(2, test)


@pytest.mark.parametrize("number", [1, 7])
def test_who_does_not_know_the_token_is_shown_out(number):
    async def test(meeting, one, two):
        two.mesh.joined(AT)
        address = meeting.config(0)["addresses"][0].encode("latin-1")
        reader, writer = await asyncio.open_unix_connection(address.decode("latin-1"))
        await reader.readexactly(22)
        writer.write(struct.pack(">16sHI", b"x" * 16, number, 1))
        assert await reader.read() == b""
        writer.close()
        one.mesh.forward(AT, ROOM, TEXT, b"to the real one")
        await until(lambda: two.got == [(ROOM, TEXT, b"to the real one")])

    meet(2, test)


def test_a_link_that_speaks_nonsense_is_closed_and_comes_again():
    async def test(_, one, two):
        two.mesh.joined(AT)
        one.mesh._links[0].link.transport.write(b"\xff" * 100)
        first = two.mesh._links[0].link
        await until(lambda: two.mesh._links[0].link not in (None, first))
        await until(lambda: one.mesh._links[0].link is not None)
        one.mesh.forward(AT, ROOM, TEXT, b"well")
        await until(lambda: two.got == [(ROOM, TEXT, b"well")])

    meet(2, test)


def test_a_start_does_not_wait_for_workers_that_are_not_there():
    async def run():
        meeting = Meeting(3)
        began = asyncio.get_running_loop().time()
        end = End(meeting, 1)
        assert await end.start()
        took = asyncio.get_running_loop().time() - began
        end.mesh.close()
        meeting.close()
        await asyncio.sleep(0.01)
        return took

    assert asyncio.run(run()) < 1


def test_the_service_leaves_no_file_and_its_sockets_have_names_of_the_kernel_s():
    meeting = Meeting(2)
    addresses = [address.encode("latin-1") for address in meeting.config(0)["addresses"]]
    meeting.close()
    assert len(set(addresses)) == 2
    for address in addresses:
        assert address[0] == 0
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(ConnectionRefusedError):
            sock.connect(address)
