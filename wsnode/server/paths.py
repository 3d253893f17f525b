"""What a request's path asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

ROOM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
BROADCAST = "/broadcast/"

PATHS = (
    "Paths: /echo (WebSocket: every message comes back; / is the same), "
    "/broadcast/<room> (WebSocket: every message goes to all of the room), "
    "/healthz (HTTP: 200 while serving, 503 while draining).\n"
)


@dataclass(frozen=True, slots=True)
class Echo:
    """Every message comes back unchanged."""


@dataclass(frozen=True, slots=True)
class Room:
    """Every message goes to all connections of the room, its sender included."""

    name: str


@dataclass(frozen=True, slots=True)
class Health:
    """Is the server serving?"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer instead of a handshake."""

    status: int
    text: str
    kind: str | None = "handshake"
    """Of `SERVER_ERROR_KINDS`; None where the answer is no error."""
    retry_after_s: int | None = None


def parse_path(target: str) -> Echo | Room | Health | Refusal:
    """The request target's meaning; its query is ignored. `/` echoes, as clients of the demo before this one expect."""
    path = target.partition("?")[0]
    if path in ("/echo", "/"):
        return Echo()
    if path == "/healthz":
        return Health()
    if path.startswith(BROADCAST):
        name = path.removeprefix(BROADCAST)
        if ROOM_NAME.fullmatch(name):
            return Room(name)
        return Refusal(400, f"Room {name[:80]!r} is not a name of 1 to 64 letters, digits, '_', '.' or '-'.\n")
    return Refusal(404, f"Nothing at {path[:80]!r}. {PATHS}")
