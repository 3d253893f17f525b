"""What the virtual lab's supervisor writes down: the lab's record in the state folder, and whose lab is up here."""

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from stack import procfs
from stack.errors import StackError
from stack.lab.keys import Keys
from stack.lab.layout import RUN
from stack.record import write_json

SCHEMA_VERSION = 1


class LabRecord:
    """state/lab/record.json, as read at one moment.

    Keys: schema_version, boot_id, supervisor {pid, start}, phase (starting | running | stopping), error, since, notes,
    ssh {key, known_hosts, config}, forwards {name: {address, port, to}}, hosts [{name, group, address, release,
    machine, state, reason, pid, start, restarts, reboots, failed_units, since}].
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.phase: str = data["phase"]
        self.error: str | None = data["error"]
        self.hosts: list[dict[str, Any]] = data["hosts"]
        self.forwards: dict[str, dict[str, Any]] = data["forwards"]
        self.supervisor = procfs.Pid(**data["supervisor"])
        self.same_boot: bool = data["boot_id"] == procfs.boot_id()

    @property
    def supervised(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        return self.same_boot and procfs.alive(self.supervisor)

    def host(self, name: str) -> dict[str, Any]:
        """The host of that name.

        Raises:
            StackError: there is none; with the names that there are.
        """
        for host in self.hosts:
            if host["name"] == name:
                return host
        raise StackError(
            f"the lab has no host {name!r}", "one of " + ", ".join(str(host["name"]) for host in self.hosts)
        )


def folder(state: Path) -> Path:
    """All of the virtual lab within a state folder."""
    return state / "lab"


def keys(state: Path) -> Keys:
    """The lab's SSH keys."""
    return Keys(folder(state) / "ssh")


def path(state: Path) -> Path:
    """The record."""
    return folder(state) / "record.json"


def read(state: Path) -> LabRecord | None:
    """None when no lab was brought up here, or the last one was taken down.

    Raises:
        StackError: the file is not what the supervisor writes.
    """
    file = path(state)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {data['schema_version']}, wanted {SCHEMA_VERSION}")
        return LabRecord(data)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise StackError(f"{file} cannot be read", "run as root: sudo ./wslab lab …") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{file} is damaged: {type(error).__name__}: {error}", f"rm {file}; ./wslab lab down"
        ) from None


class Owner:
    """Whose lab is up on this machine: RUN/owner.json. `state` is the state folder, `supervisor` the process."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.state = Path(data["state"])
        self.supervisor = procfs.Pid(**data["supervisor"])
        self.made_namespaces: bool = data["made_namespaces"]


def owner() -> Owner | None:
    """None where nobody has written one, or not wholly."""
    try:
        return Owner(json.loads((RUN / "owner.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_owner(state: Path, *, made_namespaces: bool) -> None:
    """`made_namespaces`: /run/netns was no mount before, so that `down` leaves none."""
    me = procfs.identify(os.getpid())
    assert me is not None
    data = {"state": str(state), "supervisor": me._asdict(), "made_namespaces": made_namespaces}
    write_json(RUN / "owner.json", data, mode=0o644)


def try_lock() -> int | None:
    """Take this machine's virtual lab; the file descriptor is the lock. None: somebody has it."""
    RUN.mkdir(mode=0o755, exist_ok=True)
    handle = os.open(RUN / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had it may have removed the folder with the file: then the lock is on a file that nobody finds.
        if os.fstat(handle).st_nlink and os.path.samestat(os.fstat(handle), os.stat(RUN / "lock")):
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def locked() -> bool:
    """Whether a supervisor, or a `down` that cleans up, has this machine's lab."""
    if not (RUN / "lock").exists():
        return False
    handle = try_lock()
    if handle is None:
        return True
    with contextlib.suppress(OSError):
        os.close(handle)
    return False
