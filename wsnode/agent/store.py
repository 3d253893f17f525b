"""What an agent keeps of its loads on disk: `DATA/runs/RUN_ID/` with plan, state, lines and result.

Against the death of this process a plain write is enough, so a line is written before it is sent and not synced. Plan,
state and result are replaced atomically and synced; the lines are synced at the load's end. After a power cut lines
that nobody synced may be missing at the end, never in the middle: what is not whole is cut off when the agent starts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wsnode.core.protocol import HostResult, LoadState
from wsnode.core.scenario import Plan

log = logging.getLogger("wsnode.agent")

RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CHUNK = 1 << 18


class StoreError(OSError):
    """Something could not be kept. The message says what and why."""


class DataInUse(RuntimeError):
    """Another agent has the data folder."""


class State(BaseModel):
    """Everything about a load but its plan, lines and result."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    epoch: int
    state: LoadState
    reason: str | None = None
    boot_id: str
    """The boot in which it was prepared."""
    workers: int
    start_at_ns: int | None = None
    """Origin on this host's clock as asked for (ns since the epoch); None before `go`."""
    seconds: int = 0
    """Lines in the store; of a running load the file knows better."""
    ended_at: float | None = None
    """Seconds since the epoch."""
    environment_begin: dict[str, Any] = Field(default_factory=dict)


class Record:
    """One load's folder."""

    def __init__(self, path: Path, plan: Plan, state: State) -> None:
        self.path = path
        self.plan = plan
        self.state = state
        self._ends = [0]
        """Offset in the file of each line's end; [0] is the begin."""
        self._fd = os.open(path / "lines.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._index()

    @classmethod
    def create(cls, path: Path, plan: Plan, state: State) -> Record:
        """A new folder. Raises StoreError."""
        try:
            path.mkdir(mode=0o700)
            _replace(path / "plan.json", plan.model_dump_json())
            record = cls(path, plan, state)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise StoreError(f"cannot keep a run in {path}: {error.strerror}") from error
        try:
            record.update()
        except StoreError:
            record.delete()
            raise
        return record

    @classmethod
    def read(cls, path: Path) -> Record:
        """A folder that an agent before this one has left. Raises ValueError or OSError where it is not whole."""
        plan = Plan.model_validate_json((path / "plan.json").read_bytes())
        return cls(path, plan, State.model_validate_json((path / "state.json").read_bytes()))

    @property
    def seconds(self) -> int:
        """Lines 1 … seconds are there."""
        return len(self._ends) - 1

    def update(self, **changes: Any) -> None:
        """Change the state. It counts in memory even where StoreError says that it could not be kept on disk."""
        self.state = self.state.model_copy(update=changes)
        try:
            _replace(self.path / "state.json", self.state.model_dump_json())
        except OSError as error:
            raise StoreError(f"cannot keep the state of run {self.state.run_id}: {error.strerror}") from error

    def append(self, line: bytes) -> None:
        """Keep the next line, newline included. Raises StoreError; then nothing of it is left."""
        rest = line
        try:
            while rest:  # after a part the next write says why it was not all
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._ends[-1])
            raise StoreError(f"cannot keep line {self.seconds + 1}: {error.strerror}") from error
        self._ends.append(self._ends[-1] + len(line))

    def lines(self, first: int, most_bytes: int = CHUNK) -> tuple[bytes, int]:
        """Lines from number `first` on, as they were sent: as many as fit, at least one where there is one.

        Returns them joined, and the number of the line after them.
        """
        begin = self._ends[first - 1]
        last = first
        while last < self.seconds and self._ends[last + 1] - begin <= most_bytes:
            last += 1
        return os.pread(self._fd, self._ends[last] - begin, begin), last + 1

    def sync(self) -> None:
        """Lines to the disk. Raises StoreError."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise StoreError(f"cannot sync the lines of run {self.state.run_id}: {error.strerror}") from error

    def keep_result(self, result: HostResult) -> None:
        """Write the result. Raises StoreError."""
        try:
            _replace(self.path / "result.json", result.model_dump_json())
        except OSError as error:
            raise StoreError(f"cannot keep the result of run {self.state.run_id}: {error.strerror}") from error

    def result(self) -> HostResult | None:
        """The result that was kept, if one was and it is whole."""
        try:
            return HostResult.model_validate_json((self.path / "result.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def delete(self) -> None:
        """Forget the load."""
        os.close(self._fd)
        # The state goes first: a folder without one is no load, should this be cut short.
        (self.path / "state.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Leave the folder as it is."""
        os.close(self._fd)

    def _index(self) -> None:
        """Find the lines' ends, and cut off what is not the whole next line."""
        size = os.fstat(self._fd).st_size
        with open(self._fd, "rb", closefd=False) as file:
            file.seek(0)
            for line in file:
                if not _is_second(line, len(self._ends)):
                    break
                self._ends.append(self._ends[-1] + len(line))
        if size != self._ends[-1]:
            os.ftruncate(self._fd, self._ends[-1])


class Store:
    """All loads of an agent. One agent per folder, by a lock that the kernel drops with the process."""

    def __init__(self, data: Path) -> None:
        self.path = data / "runs"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"cannot use {data} for runs: {error.strerror}; give another --data") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DataInUse(f"another agent uses {data}: stop it, or give another --data") from error

    def create(self, plan: Plan, state: State) -> Record:
        """A new load's folder. Raises StoreError."""
        assert RUN_ID.fullmatch(state.run_id), state.run_id
        path = self.path / state.run_id
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
        return Record.create(path, plan, state)

    def records(self) -> Iterator[Record]:
        """The loads that an agent before this one has left. What is not whole is thrown away, and said."""
        for path in sorted(self.path.iterdir()):
            try:
                if not RUN_ID.fullmatch(path.name):
                    raise ValueError("not a run's name")
                record = Record.read(path)
                if record.state.run_id != path.name:
                    record.close()
                    raise ValueError(f"it holds run {record.state.run_id}")
            except (OSError, ValueError) as error:
                log.warning("threw away %s: %s", path, str(error).replace("\n", "; "))
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            else:
                yield record

    def free_bytes(self) -> int:
        """Room that is left on the disk."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def close(self) -> None:
        """Give the folder up."""
        os.close(self._lock)


def out_of_keeping(ended: dict[str, float], keep: int, keep_days: float, now: float | None = None) -> list[str]:
    """Which results go unacknowledged: those older than `keep_days`, and the oldest beyond the newest `keep`.

    `ended` says when each load ended (seconds since the epoch).
    """
    now = time.time() if now is None else now
    newest_first = sorted(ended, key=lambda run_id: (ended[run_id], run_id), reverse=True)
    return [
        run_id for place, run_id in enumerate(newest_first) if place >= keep or now - ended[run_id] > keep_days * 86_400
    ]


def _is_second(line: bytes, number: int) -> bool:
    # By its frame, as `protocol.encode` writes it: to parse an hour of lines would keep the agent from starting.
    return line.startswith(b'{"type":"second","second":%d,' % number) and line.endswith(b"}\n")


def _replace(path: Path, content: str) -> None:
    """Write a file so that it is either the old or the new one, whole, also after a power cut."""
    new = path.with_suffix(".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(content.encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
