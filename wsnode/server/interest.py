"""Which worker has subscribers of which room: memory that all workers of a service share.

Every worker has a row that it alone writes and all others read when they publish. A room's name is hashed to one of
`BUCKETS` bytes of the row; the byte is 1 while the worker has a subscriber of any room with that hash. Two rooms in one
bucket cost a message that its receiver has no use for, and nothing else.

There is no message to wait for: the byte is set before a subscriber's handshake is answered, so that whoever publishes
after that answer sees it.
"""

from __future__ import annotations

import mmap
import os
import zlib
from typing import Self

BUCKETS = 1 << 16
"""Bytes of a row. Only the pages that are written to take memory."""


def bucket(name: bytes) -> int:
    """Where a room stands in every row: the same in all processes, unlike `hash`."""
    return zlib.crc32(name) % BUCKETS


class Interest:
    """The rows of all workers."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, workers * (8 + BUCKETS))
        whole = memoryview(self._memory)
        self._owners = whole[: workers * 8].cast("Q")
        self._rows = [whole[start : start + BUCKETS] for start in range(workers * 8, workers * (8 + BUCKETS), BUCKETS)]
        self._rooms: dict[int, int] = {}
        """Of this process's own row: how many rooms a bucket has."""

    @classmethod
    def create(cls, workers: int) -> Self:
        """New rows, nobody's. `fd` goes to the workers by `pass_fds`."""
        fd = os.memfd_create("wsnode-interest")
        os.ftruncate(fd, workers * (8 + BUCKETS))
        return cls(fd, workers)

    def row(self, number: int) -> memoryview:
        """A worker's bytes, one for each bucket."""
        return self._rows[number]

    def owner(self, number: int) -> int:
        """Process id of the worker that has the row; 0: none."""
        return self._owners[number]

    def take(self, number: int, pid: int) -> None:
        """The row is this process's from now on, and empty."""
        self._owners[number] = 0
        self._rows[number][:] = bytes(BUCKETS)
        self._owners[number] = pid

    def clear(self, number: int) -> None:
        """Its worker has ended, and its subscribers with it."""
        self.take(number, 0)

    def add(self, number: int, at: int) -> None:
        """This process, which has the row, has subscribers of one more room of the bucket `at`."""
        self._rooms[at] = self._rooms.get(at, 0) + 1
        self._rows[number][at] = 1

    def remove(self, number: int, at: int) -> None:
        """Of one room of that bucket less."""
        left = self._rooms[at] - 1
        if left:
            self._rooms[at] = left
        else:
            del self._rooms[at]
            self._rows[number][at] = 0

    def close(self) -> None:
        """Close the descriptor. The memory lives as long as a row of it is referred to."""
        os.close(self.fd)
