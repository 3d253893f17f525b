"""What may be done to the embedded lab before a run: the sockets that its server's agent asks at.

The same shape as on a lab's hosts (wsnode/agent/hooks.py): to connect is to ask, nothing is read, and the last line is
`wslab-hook: success` or `wslab-hook: failed`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

Hook = Callable[[], Awaitable[str | None]]
"""Does it; None: done, else why not."""


async def listen(folder: Path, hooks: dict[str, Hook]) -> list[asyncio.Server]:
    """Answer at a socket for each hook, until they are closed. The folder is this user's alone."""
    return [await asyncio.start_unix_server(_answering(hook), folder / name) for name, hook in hooks.items()]


def _answering(hook: Hook) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        why_not = await hook()
        with contextlib.suppress(ConnectionError):
            writer.write(f"{why_not}\nwslab-hook: failed\n".encode() if why_not else b"wslab-hook: success\n")
            writer.close()
            await writer.wait_closed()

    return answer
