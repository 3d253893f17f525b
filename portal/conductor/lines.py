"""A host's lines of a run, kept as they came."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from typing import overload

from wsnode.core.protocol import ProtocolError, Second, decode_reply

_NUMBER = re.compile(rb'\{"type":"second","second":([1-9]\d{0,8}),')


class Lines(Sequence[Second]):
    """Lines 1 … n as a sequence (index 0 is line 1), decoded whenever they are looked at.

    A decoded line may take 300 KB. Compressed in a temporary file without a name, those of many hosts over a long run
    take some memory of the page cache and go when this object does. May be read from any thread.
    """

    def __init__(self) -> None:
        fd, path = tempfile.mkstemp(prefix="wslab-lines-")
        os.unlink(path)
        self._fd = fd
        self._ends = [0]
        weakref.finalize(self, os.close, fd)

    def append(self, line: bytes) -> None:
        """Keep the next line. Raises OSError where the disk is full."""
        data = zlib.compress(line, 1)
        written = os.pwrite(self._fd, data, self._ends[-1])
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes could be written")
        self._ends.append(self._ends[-1] + written)

    def raw(self, number: int) -> bytes:
        """Line `number`, 1-based, as it came."""
        begin, end = self._ends[number - 1 : number + 1]
        return zlib.decompress(os.pread(self._fd, end - begin, begin))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Second: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Second]: ...
    def __getitem__(self, index: int | slice) -> Second | Sequence[Second]:
        """Raises ProtocolError where what came is not a line."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"no line {index} of {len(self)}")
        second = decode_reply(self.raw(place + 1))
        if not isinstance(second, Second) or second.second != place + 1:
            raise ProtocolError(f"line {place + 1} is not that of second {place + 1}")
        return second


def number_of(line: bytes) -> int:
    """The second of a line that has not been decoded yet. Raises ProtocolError."""
    if match := _NUMBER.match(line):
        return int(match[1])
    second = decode_reply(line)
    if not isinstance(second, Second):
        raise ProtocolError(f"a {second.type} where a second was expected")
    if second.second < 1:
        raise ProtocolError(f"a line of second {second.second}")
    return second.second
