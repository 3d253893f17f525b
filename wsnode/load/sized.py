"""A client whose messages have sizes of a distribution."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from wsnode.core.sizes import TABLE, Sizes, place_of
from wsnode.lean import apply_mask
from wsnode.load.client import Client, Setting, message_head
from wsnode.load.recorder import DueSecond


class SizeTable(NamedTuple):
    """What the sized clients of a worker share."""

    seed: int
    rows: tuple[tuple[int, bytes], ...]
    """Size, and what stands before the mask of a message of it."""

    @classmethod
    def of(cls, sizes: Sizes, seed: int, binary: bool) -> SizeTable:
        """The table of a distribution."""
        heads = {size: (size, message_head(binary, size)) for size in set(sizes.table(seed))}
        return cls(seed, tuple(heads[size] for size in sizes.table(seed)))


class SizedClient(Client):
    """Its n-th message has the n-th size from its own place in the table on."""

    __slots__ = ("_place", "_rows")

    def __init__(self, table: SizeTable, number: int, setting: Setting) -> None:
        Client.__init__(self, number, setting)
        self._rows = table.rows
        self._place = place_of(table.seed, number)

    def _send(self, second: DueSecond, turn_ns: int) -> int:
        setting, transport = self._setting, self.transport
        self._sequence = sequence = self._sequence + 1
        size, head = self._rows[(self._place + sequence) % TABLE]
        prefix = b"%b%x " % (self._prefix, sequence)
        key: bytes | int
        if setting.match == "prefix":
            key, payload = prefix, prefix.ljust(size, b"x")
        else:
            key, payload = sequence, prefix[:size].ljust(size, b"x")
        mask = next(self._masks)
        transport.write(b"%b%b%b" % (head, mask, apply_mask(payload, mask)))
        return self._written(second, turn_ns, key)

    def _handed_over(self, second: DueSecond, turn_ns: int, key: Hashable, now: int) -> None:
        recorder = self._setting.recorder
        # While one is with the kernel in part, no other is made: it is the latest.
        recorder.sent(second, now - turn_ns, self._rows[(self._place + self._sequence) % TABLE][0])
        if self._setting.match == "none":
            recorder.no_reply(second)
        else:
            self._outstanding[key] = (second, turn_ns, now)
