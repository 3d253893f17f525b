"""A broadcast server that does to its deliveries what it is told, and tells what it did:
`python -m tests.wsnode.rooms_peer '{"drop": 50}'`.

Every n-th delivery, of those whose turn was in the third second, is dropped, doubled, held back for a second, altered,
or kept until that subscriber has got the publisher's next one. Prints its port, serves until its standard input ends,
then prints what it did as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

NS = 1_000_000_000
ROOT = Path(__file__).resolve().parents[2]


class Member(asyncio.Protocol):
    """A connection to a room, which its path names."""

    rooms: dict[str, set[Member]] = {}
    faults: dict[str, int] = {}
    done: Counter[str] = Counter()

    def __init__(self) -> None:
        self.protocol = ServerProtocol(max_size=None)
        self.room: set[Member] = set()
        self.kept: dict[bytes, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
                self.room = Member.rooms.setdefault(event.path, set())
                self.room.add(self)
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                for member in list(self.room):
                    member.deliver(bytes(event.data))
        self.flush()

    def deliver(self, data: bytes) -> None:
        done = Member.done
        done["deliveries"] += 1
        publisher, _, at, *_ = data.split()
        if not 2 * NS <= int(at, 16) < 3 * NS:
            done["let alone"] += 1
            self.pass_on(publisher, data)
            return
        fault = next((name for name, n in Member.faults.items() if done["deliveries"] % n == 0), "")
        if fault == "swap" and publisher in self.kept:
            fault = ""
        done[fault] += 1
        match fault:
            case "drop":
                return
            case "double":
                self.send(data)
            case "late":
                asyncio.get_running_loop().call_later(1.0, self.send, data)
                return
            case "alter":
                data = data[:-1] + b"!"
            case "swap":
                self.kept[publisher] = data
                return
        self.pass_on(publisher, data)

    def pass_on(self, publisher: bytes, data: bytes) -> None:
        self.send(data)
        if (kept := self.kept.pop(publisher, None)) is not None:
            self.send(kept)

    def send(self, data: bytes) -> None:
        if self.protocol.state is OPEN and not self.transport.is_closing():
            self.protocol.send_text(data)
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.room.discard(self)

    def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Member, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
    await ended.wait()
    print(json.dumps(Member.done | {"rooms": len(Member.rooms)}), flush=True)


class Rooms:
    """A running one; `did` says what it has done once it is gone."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.did: Counter[str] = Counter()


@contextlib.contextmanager
def rooms_peer(**faults: int) -> Iterator[Rooms]:
    """Such a server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.wsnode.rooms_peer", json.dumps(faults)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        rooms = Rooms(f"ws://127.0.0.1:{int(process.stdout.readline())}/broadcast")
        yield rooms
        process.stdin.close()
        rooms.did = Counter(json.loads(process.stdout.readline()))
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


if __name__ == "__main__":
    Member.faults = json.loads(sys.argv[1])
    asyncio.run(main())
