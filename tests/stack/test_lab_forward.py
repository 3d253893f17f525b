"""Carrying TCP on: whole, each direction ended by itself, refused as there."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from stack.lab.forward import Forward, Namespace, listen


class Here(Namespace):
    """The namespace of the test itself: entering another needs root."""

    @staticmethod
    def _enter(path: object) -> None:
        """Stay."""


@asynccontextmanager
async def forwarding(port: int) -> AsyncIterator[int]:
    """A forward to 127.0.0.1:`port`; its own port."""
    namespace = Here(None)  # type: ignore[arg-type]
    forward = Forward(listen(20000), namespace, port)
    await forward.start()
    try:
        yield forward.listener.getsockname()[1]
    finally:
        forward.close()
        namespace.close()


async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    said = await reader.read()  # to the end of what the client sends
    writer.write(said[::-1])
    writer.close()


def test_what_is_sent_arrives_whole_and_the_answer_comes_after_the_requests_end() -> None:
    async def run() -> None:
        server = await asyncio.start_server(peer, "127.0.0.1", 0)
        sent = os.urandom(2_000_000)
        async with server, forwarding(server.sockets[0].getsockname()[1]) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == sent[::-1]
            writer.close()

    asyncio.run(run())


def test_where_nobody_listens_the_connection_is_reset() -> None:
    async def run() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with forwarding(unused.getsockname()[1]) as port:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(), 10)
                writer.close()

    asyncio.run(run())


def test_a_taken_port_gives_way_to_the_next() -> None:
    with listen(21000) as first, listen(first.getsockname()[1]) as second:
        assert second.getsockname()[1] > first.getsockname()[1]
