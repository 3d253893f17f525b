"""stack.json: what runs, written atomically by the supervisor, read by everybody else; and the lock of the state."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stack import procfs
from stack.errors import StackError

SCHEMA_VERSION = 1


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Write beside and move in place: a reader sees the old text or the new one, never half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.write("\n")
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class Record:
    """The contents of stack.json, as read at one moment.

    Keys: schema_version, id, phase (starting | running | stopping | failed), error, since, boot_id, supervisor
    {pid, start}, python, socket_dir, broker_url, urls, ports, notes, processes [{name, state, pid, start, port,
    restarts, since, reason, optional}].
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.id: str = data["id"]
        self.phase: str = data["phase"]
        self.error: str | None = data["error"]
        self.urls: dict[str, str | None] = data["urls"]
        self.processes: list[dict[str, Any]] = data["processes"]
        self.supervisor = procfs.Pid(**data["supervisor"])
        self.same_boot: bool = data["boot_id"] == procfs.boot_id()

    @property
    def supervised(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.same_boot and procfs.alive(self.supervisor)

    def leaders(self) -> list[procfs.Pid]:
        """The processes that the supervisor started, whether alive or not."""
        if not self.same_boot:
            return []
        return [procfs.Pid(row["pid"], row["start"]) for row in self.processes if row["pid"] is not None]


def read(state: Path) -> Record | None:
    """None when no stack has been started here, or the last one was stopped in order.

    Raises:
        StackError: the file is not what the supervisor writes.
    """
    path = state / "stack.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise StackError(
                f"{path} has schema_version {data['schema_version']}, this wslab reads {SCHEMA_VERSION}",
                "stop the stack with the version that started it, or delete the file",
            )
        return Record(data)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise StackError(f"{path} cannot be read", "run as the user who started the stack") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{path} is damaged: {type(error).__name__}: {error}", f"./wslab down, or delete {path}"
        ) from None


def _open_lock(state: Path) -> int:
    return os.open(state / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(state: Path) -> int | None:
    """Take the state folder for one supervisor; the file descriptor is the lock. None: another has it."""
    handle = _open_lock(state)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def locked(state: Path) -> bool:
    """Whether a supervisor holds the state folder now."""
    if not (state / "stack.lock").exists():
        return False
    handle = try_lock(state)
    if handle is None:
        return True
    os.close(handle)
    return False


@contextlib.contextmanager
def holding(state: Path) -> Iterator[bool]:
    """The lock for a short while; False when another has it."""
    handle = try_lock(state)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)
