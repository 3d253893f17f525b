"""A WebSocket server that does what it likes, by seed: `python -m tests.wsnode.wild_peer SEED`.

Prints its port, then serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

ROOT = Path(__file__).resolve().parents[2]
HANDSHAKES = ("accept",) * 12 + ("mute", "garbage", "reject", "reset", "end", "bare reject", "slow")
MESSAGES = ("echo",) * 40 + (
    *("drop", "double", "ping", "fragments", "pause", "late", "lie", "empty"),
    *("close", "leave", "end", "reset", "half a frame", "bad frame", "two at once and a close"),
)


class Wild(asyncio.Protocol):
    """A connection to be surprised by."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.protocol = ServerProtocol(max_size=None)
        self.leaves = False
        """Whether it leaves it to the client to end the TCP connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.greet(event)
            elif isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self.message(bytes(event.data))
        self.flush()

    def greet(self, request: Request) -> None:
        match self.chance.choice(HANDSHAKES):
            case "accept":
                self.protocol.send_response(self.protocol.accept(request))
            case "slow":
                response = self.protocol.accept(request)
                self.later(lambda: self.protocol.send_response(response))
            case "reject":
                self.protocol.send_response(self.protocol.reject(503, "not today"))
            case "bare reject":
                self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\nno length is said")
                self.transport.close()
            case "garbage":
                self.transport.write(b"HTTP/1.1 101 Nonsense\r\n\x00\xff\r\n\r\n")
            case "reset":
                self.reset()
            case "end":
                self.transport.close()

    def message(self, data: bytes) -> None:
        protocol = self.protocol
        if protocol.state is not OPEN or self.transport.is_closing():
            return
        what = self.chance.choice(MESSAGES)
        match what:
            case "echo" | "double" | "two at once and a close":
                protocol.send_text(data)
                if what != "echo":
                    protocol.send_text(data)
                if what == "two at once and a close":
                    protocol.send_close(self.chance.choice((1000, 1001, 1011, 1013, 4000)))
            case "ping":
                protocol.send_ping(b"?")
                protocol.send_text(data)
            case "fragments":
                protocol.send_text(data[:9], fin=False)
                protocol.send_continuation(data[9:], fin=True)
            case "lie":
                protocol.send_text(b"0 0 something else entirely")
            case "empty":
                protocol.send_text(b"")
            case "late":
                self.later(lambda: protocol.send_text(data))
            case "pause":
                self.transport.pause_reading()
                asyncio.get_running_loop().call_later(self.chance.random() * 2, self.resume)
            case "close" | "leave":
                self.leaves = what == "leave"
                protocol.send_close(self.chance.choice((1000, 1001, 1011, 1013, 4000)))
            case "end":
                self.transport.close()
            case "reset":
                self.reset()
            case "half a frame":
                self.transport.write(Frame(Opcode.TEXT, data).serialize(mask=False)[: len(data) // 2])
                self.transport.close()
            case "bad frame":
                self.transport.write(b"\xf1\x01x")

    def later(self, send: object) -> None:
        def act() -> None:
            with contextlib.suppress(Exception):  # the connection may be over
                send()  # type: ignore[operator]
                self.flush()

        asyncio.get_running_loop().call_later(self.chance.random() * 1.5, act)

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def flush(self) -> None:
        if self.transport.is_closing():
            return
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif not self.leaves:
                self.transport.close()


async def main(seed: int) -> None:
    loop = asyncio.get_running_loop()
    chance = random.Random(seed)
    server = await loop.create_server(lambda: Wild(chance), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()


@contextlib.contextmanager
def wild_peer(seed: int) -> Iterator[str]:
    """The URL of a running one; gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.wsnode.wild_peer", str(seed)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"ws://127.0.0.1:{int(process.stdout.readline())}/echo"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
