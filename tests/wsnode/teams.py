"""A team's own server, in the test's own loop: it echoes at /live, and notes who asked for what, and by which name."""

from __future__ import annotations

import contextlib
import http
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from wsnode.agent.consent import PATH

TOKEN = "wslab-0123456789abcdef"


class Team:
    """What it answers, and what it was asked."""

    def __init__(self, tls: bool) -> None:
        self.port = 0
        self.tls = tls
        self.consent: tuple[int, str, dict[str, str]] = (200, f"# who may load this server\n{TOKEN}\n", {})
        """Status, body and headers at the well-known path."""
        self.requests: list[tuple[str, str]] = []
        """(path, Host) of each request, in order."""
        self.names: set[str | None] = set()
        """Names that were asked for in TLS."""

    def url(self, host: str = "shop.invalid", path: str = "/live") -> str:
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def take(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append((request.path, request.headers["Host"]))
        if request.path == PATH:
            status, body, headers = self.consent
            return _response(status, body, headers)
        if request.path == "/moved":
            return _response(302, "", {"Location": self.url("127.0.0.1", "/live")})
        return None


def _response(status: int, body: str, headers: dict[str, str]) -> Response:
    content = body.encode()
    return Response(
        status,
        http.HTTPStatus(status).phrase,
        Headers({"Content-Length": str(len(content)), "Connection": "close", **headers}),
        content,
    )


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def team(identity: Path | None = None) -> AsyncIterator[Team]:
    """A running one at 127.0.0.1. With `identity`, a PEM file of key and certificate, it speaks TLS."""
    running = Team(tls=identity is not None)
    tls: Any = None
    if identity is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(identity)
        tls.sni_callback = lambda _socket, name, _context: running.names.add(name)
    async with serve(_echo, "127.0.0.1", 0, ssl=tls, process_request=running.take, compression=None) as server:
        running.port = next(iter(server.sockets)).getsockname()[1]
        yield running
