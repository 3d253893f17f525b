"""The lean connection as an echo server that counts nothing: no metrics, no limits, no timer."""

import asyncio

import uvloop

from wsnode.lean import BINARY, HEADS, TEXT, LeanServer, apply_mask, frame_head
from wsnode.server.engines import BACKLOG
from wsnode.server.handshake import HEAD_END, Reader, answer

READER = Reader(ignore_extensions=True)


class Echo(LeanServer):
    """What the lean engine's echo does, its counters apart."""

    __slots__ = ()
    limit = 1 << 20

    def data_received(self, data: bytes) -> None:
        size = len(data) - 6
        if 0 <= size < 126 and data[1] - 128 == size and self._special is None and not self._rest:
            first = data[0]
            if first in (TEXT, BINARY):
                payload = apply_mask(data[6:], data[2:6])
                if first == BINARY or payload.isascii():
                    self.transport.write(HEADS[first][size] + payload)
                    return
        super().data_received(data)

    def received(self, messages: list[tuple[int, bytes]]) -> None:
        for first, payload in messages:
            self.transport.write(frame_head(first, len(payload)) + payload)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Door(asyncio.Protocol):
    """Until the handshake, which comes in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        usual = READER.read(data, data.find(HEAD_END))
        assert usual is not None
        connection = Echo()
        connection.begin(self._transport)  # type: ignore[arg-type]
        self._transport.set_protocol(connection)
        connection.write(answer(usual.key, b"Thu, 01 Jan 1970 00:00:00 GMT", b"bare"))


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Door, "127.0.0.1", 0, backlog=BACKLOG)
    print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/echo", flush=True)
    await server.serve_forever()


uvloop.run(main())
