"""The way to a host's agent: a pair of byte streams, whatever carries them.

A transport knows how to open a `Pipe` to a host; the channel knows nothing else of it. `local` is a subprocess of the
same `wsnode agent connect` that SSH runs on a distant host.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import wsnode.core
from portal.conductor.job import JobHost
from wsnode.core.protocol import MAX_LINE_BYTES

SOURCE = Path(wsnode.core.__file__).parents[2]
"""Folder from which `wsnode` is imported here, and so by the subprocess."""
CLOSE_S = 1.0
LAST_WORDS = 2000
"""Characters of standard error that are kept."""


class Unreachable(Exception):
    """No pipe could be opened. The message says why, without the host's name."""


class Untrusted(Exception):
    """Whoever answers must not be spoken with. The message says who was wanted and who was found."""


class LineTooLong(Exception):
    """The other side sent more than `MAX_LINE_BYTES` without a line's end."""


class Pipe(Protocol):
    """An open way to an agent."""

    async def read_line(self) -> bytes:
        """The next line with its newline; without one, or empty, at the end. Raises LineTooLong."""

    async def write(self, data: bytes) -> None:
        """Send. Raises OSError where the other side is gone."""

    async def close(self) -> str:
        """Give the way up, whatever state it is in. Returns what it said about its end, '' mostly."""


class Transport(Protocol):
    """Opens pipes of one kind."""

    async def open(self, host: JobHost) -> Pipe:
        """A new way to the host's agent; the agent's hello may still fail to come. Raises Unreachable, Untrusted."""


class LocalPipe:
    """A subprocess's standard input and output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout
        self._words = asyncio.create_task(_last_words(process.stderr))

    async def read_line(self) -> bytes:
        try:
            return await self._output.readline()
        except ValueError as error:
            raise LineTooLong(f"a line of more than {MAX_LINE_BYTES:,} bytes") from error

    async def write(self, data: bytes) -> None:
        self._input.write(data)
        await self._input.drain()

    async def close(self) -> str:
        self._input.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        return await self._words


class LocalTransport:
    """`wsnode agent connect` on this machine."""

    async def open(self, host: JobHost) -> Pipe:
        paths = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "wsnode",
                "agent",
                "connect",
                "--socket",
                host.socket,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=MAX_LINE_BYTES,
                env={**_harmless(os.environ), "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # a Ctrl-C in the terminal is for the conductor, which ends the run in order
            )
        except OSError as error:
            raise Unreachable(f"`wsnode agent connect` could not be started: {error}") from error
        return LocalPipe(process)


def _harmless(environment: Mapping[str, str]) -> dict[str, str]:
    """Without the portal's own secrets, which SSH would not carry to a host either."""
    return {name: value for name, value in environment.items() if name not in ("WSLAB_SECRET_KEY", "DATABASE_URL")}


TRANSPORTS: Mapping[str, Transport] = {"local": LocalTransport()}
"""By `JobHost.transport`."""


async def _last_words(stream: asyncio.StreamReader) -> str:
    words = b""
    with suppress(ValueError):
        while chunk := await stream.read(LAST_WORDS):
            words = (words + chunk)[-LAST_WORDS:]
    return words.decode(errors="replace").strip()
