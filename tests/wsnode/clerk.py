"""A JSON server as a team may have one: `python -m tests.wsnode.clerk MODE [TOKEN]`.

The first message has to be a login, answered by a welcome; every request after it is answered by its id. At the end of
its standard input it prints what it has seen, as JSON.

`plain`: answers each at once. `swap`: answers two at a time, the later one first. `faulty`: of all requests each 10th
gets no answer, each 25th an answer of another id, each 40th one that is no JSON, before its own. To the login of an odd
client `deaf` says nothing, `other` something else than a welcome, and `strict` closes.
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
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).resolve().parents[2]


class Clerk:
    def __init__(self, mode: str, token: str) -> None:
        self.mode, self.token = mode, token
        self.seen: Counter[str] = Counter()
        self.paths: set[str] = set()

    async def serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.add(connection.request.path)
        with contextlib.suppress(ConnectionClosed):
            if await self.welcome(connection):
                await self.answer(connection)

    async def welcome(self, connection: ServerConnection) -> bool:
        text = await connection.recv()
        self.seen["login_bytes"] += len(text)
        login = json.loads(text)
        self.seen["logins"] += 1
        if login["type"] != "login" or login.get("token", "") != self.token:
            self.seen["refused"] += 1
            await connection.close(4401, "who are you?")
            return False
        odd = int(login["client"]) % 2
        if odd and self.mode == "deaf":
            await connection.wait_closed()
            return False
        if odd and self.mode == "strict":
            await connection.close(4401, "not you")
            return False
        await connection.send(json.dumps({"type": "goodbye" if odd and self.mode == "other" else "welcome"}))
        self.seen["welcomed"] += 1
        return True

    async def answer(self, connection: ServerConnection) -> None:
        held: list[Any] = []
        async for text in connection:
            request = json.loads(text)
            self.seen["requests"] += 1
            self.seen["request_bytes"] += len(text)
            reply = json.dumps({"answer": {"to": request["id"]}, "thanks": True})
            n = self.seen["requests"]
            if self.mode == "faulty":
                if n % 25 == 0:
                    await connection.send('{"answer": {"to": -1}}')
                if n % 40 == 0:
                    await connection.send("thank you {")
                if n % 10 == 0:
                    continue
            held.append(reply)
            if self.mode != "swap" or len(held) == 2:
                while held:
                    await connection.send(held.pop())


async def main(mode: str, token: str) -> None:
    clerk = Clerk(mode, token)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    async with serve(clerk.serve, "127.0.0.1", 0, compression=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True).start()
        await ended.wait()
    print(json.dumps(clerk.seen | {"paths": sorted(clerk.paths)}), flush=True)


class Running:
    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self.seen: dict[str, Any] = {}
        """Once it has ended."""


@contextlib.contextmanager
def clerk(mode: str, token: str = "") -> Iterator[Running]:
    """A running one; gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.wsnode.clerk", mode, token],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    running = Running(int(process.stdout.readline()))
    try:
        yield running
    finally:
        out, _ = process.communicate("", 10)
        running.seen = json.loads(out or "{}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
