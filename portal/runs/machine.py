"""One load at a time on a physical machine, whoever's: a lock that all stacks of the machine share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PLACES = (Path("/run/lock"), Path("/tmp"))  # noqa: S108  (a file of known name, opened without following links)
_MOST_BYTES = 4096


class Holder(NamedTuple):
    """Who has a machine."""

    run_id: str
    portal: str


class MachineLock:
    """An flock, held as long as its process lives; a context manager that lets go.

    The file is for everybody (0666, in a folder for everybody) and never removed, so that all see the same one.
    """

    def __init__(self, machine: str, holder: Holder, folder: Path | None = None) -> None:
        self._name = f"wslab-{machine}.lock"
        self._folder = folder
        self._holder = holder
        self._descriptor: int | None = None

    @property
    def file(self) -> Path:
        """Where it lies.

        Raises:
            OSError: there is no place for it.
        """
        return (self._folder or shared_folder()) / self._name

    @property
    def held(self) -> bool:
        """Whether it is ours."""
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Try, without waiting. True where it is ours now, or was already.

        Raises:
            OSError: there is no place for the file, or it cannot be opened: a link, another kind of file, or one that
                we may not write.
        """
        if self.held:
            return True
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        content = json.dumps(self._holder._asdict()).encode()[:_MOST_BYTES]
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)
        self._descriptor = descriptor
        return True

    def holder(self) -> Holder | None:
        """Who has it, by their own word; None where nothing readable stands there. Whoever may write the file may lie,
        so the answer is for people, and for telling our own run."""
        try:
            descriptor = self._open()
        except OSError:
            return None
        try:
            data = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
            return Holder(_clean(data["run_id"]), _clean(data["portal"]))
        except (ValueError, KeyError, TypeError):
            return None
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Let go."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        while True:
            # Not O_CREAT on an existing file: in a sticky folder the kernel then refuses other people's
            # (fs.protected_regular), to root as well.
            try:
                descriptor = os.open(self.file, flags)
            except FileNotFoundError:
                try:
                    descriptor = os.open(self.file, flags | os.O_CREAT | os.O_EXCL, 0o666)
                except FileExistsError:
                    continue
                os.fchmod(descriptor, 0o666)  # whatever the umask is
            found = os.fstat(descriptor)
            # A second name: somebody else's file, put here to have it emptied (where fs.protected_hardlinks is off).
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.close(descriptor)
                raise OSError(f"{self.file} is no regular file with this one name")
            return descriptor


def shared_folder() -> Path:
    """The first of `PLACES` that everybody may write to: the same for all users of the machine.

    Raises:
        OSError: there is none.
    """
    for place in PLACES:
        with contextlib.suppress(OSError):
            if place.stat().st_mode & stat.S_IWOTH:
                return place
    raise OSError(f"no folder for the machine's lock: wanted {' or '.join(map(str, PLACES))} writable by everybody")


def _clean(text: str) -> str:
    return "".join(letter for letter in str(text)[:200] if letter.isprintable())
