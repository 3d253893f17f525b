"""Is it ready? One question per kind of process, asked from outside, answered by the process itself.

A probe is a coroutine function: None when ready, else what is still missing, in a few words. Each takes at most about
a second. No threads: the supervisor forks, and asks these in between.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

Probe = Callable[[], Awaitable[str | None]]
_TIMEOUT_S = 1.0


def http_ok(port: int, path: str) -> Probe:
    """GET answers 200."""

    async def exchange() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            return await reader.readline()
        finally:
            writer.close()

    async def ask() -> str | None:
        line, failure = await _within(exchange())
        if failure:
            return f"{path} on port {port}: {failure}"
        words = line.split()
        if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1] == b"200":
            return None
        return f"{path} on port {port} answers {b' '.join(words[1:2]).decode(errors='replace') or 'nothing'}"

    return ask


def broker_pong(path: Path) -> Probe:
    """PING is answered by PONG (while it still loads its file it answers with an error)."""

    async def ask() -> str | None:
        line, failure = await _within(_unix(path, b"PING\r\n"))
        if failure or line.startswith(b"+PONG"):
            return failure
        return line.decode(errors="replace").strip() or "closed without an answer"

    return ask


def agent_hello(path: Path) -> Probe:
    """The agent speaks first, and the first line is its hello."""

    async def ask() -> str | None:
        line, failure = await _within(_unix(path, b""))
        if failure:
            return failure
        try:
            return None if isinstance(json.loads(line), dict) else f"first line is no hello: {line[:60]!r}"
        except ValueError:
            return f"first line is no JSON: {line[:60]!r}"

    return ask


def log_says(log: Path, text: str, offset: int) -> Probe:
    """The log holds the text after byte `offset` (where this process began to write)."""

    async def ask() -> str | None:
        try:
            with log.open("rb") as file:
                file.seek(offset)
                return None if text.encode() in file.read() else f"its log does not say {text!r} yet"
        except OSError as error:
            return _reason(error)

    return ask


async def _unix(path: Path, question: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
    try:
        writer.write(question)
        return await reader.readline()
    finally:
        writer.close()


async def _within(exchange: Awaitable[bytes]) -> tuple[bytes, str | None]:
    try:
        return await asyncio.wait_for(exchange, _TIMEOUT_S), None
    except (OSError, ValueError) as error:
        return b"", _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
