"""Hooks for tests: sockets in a folder, at which somebody of the test's own answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

DONE = "wslab-hook: success exited 0\n"
Answer = Callable[[], Awaitable[str]]


class Hook:
    """Who answers at a hook's socket."""

    def __init__(self, answer: str | Answer) -> None:
        self.asked = 0
        self.heard = b""
        """What was sent to it: nothing, ever."""
        self._answer = answer

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        said = self._answer if isinstance(self._answer, str) else await self._answer()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                self.heard += await reader.read(100)
        writer.write(said.encode())
        writer.close()


@contextlib.asynccontextmanager
async def hook(folder: Path, name: str, answer: str | Answer = DONE) -> AsyncIterator[Hook]:
    """A hook in an agent's folder of them."""
    folder.mkdir(exist_ok=True)
    answering = Hook(answer)
    async with await asyncio.start_unix_server(answering.take, folder / name):
        yield answering
    (folder / name).unlink(missing_ok=True)
