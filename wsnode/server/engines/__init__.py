"""What speaks WebSocket for a worker. All engines answer alike; `Admission` decides for them."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Protocol, cast

from wsnode.server.admission import Admission
from wsnode.server.mesh import Mesh

ENGINES = {"lean": "wsnode.server.engines.lean", "websockets": "wsnode.server.engines.websockets"}
"""Module of each engine; its `engine` makes one."""

BACKLOG = 65535
"""Connections that the kernel completes ahead of accept, cut to net.core.somaxconn. asyncio's own default is 100."""


class Engine(Protocol):
    """One worker's WebSocket server."""

    def arrived(self, name: bytes, first: int, payload: bytes) -> None:
        """A message for a room has come from another worker."""

    async def start(self, listener: socket.socket) -> None:
        """Accept on a bound socket."""

    async def drain(self, timeout_s: float) -> int:
        """Close all connections with 1001 and abort those still there after the timeout, then stop accepting.

        Until then requests are answered as `Admission.draining` says. Returns how many were aborted.
        """


class _Module(Protocol):
    def engine(self, admission: Admission, mesh: Mesh | None) -> Engine: ...


def make_engine(name: str, admission: Admission, mesh: Mesh | None = None) -> Engine:
    """An engine by its name; `mesh` links it to other workers. Raises KeyError where there is none of that name."""
    return cast(_Module, import_module(ENGINES[name])).engine(admission, mesh)
