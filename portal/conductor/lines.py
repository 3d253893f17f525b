"""A host's lines of a run, kept as they came."""

from __future__ import annotations

import os
import re
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from typing import overload

import zstandard

from wsnode.core.protocol import ProtocolError, Second, decode_reply
from wsnode.core.summary import Series

_NUMBER = re.compile(rb'\{"type":"second","second":([1-9]\d{0,8}),')
_HISTOGRAMS, _HOST = b'"histograms":', b'"host":'
LEVEL = 1
"""zstd's quickest: of a line a third is left."""


class Lines(Series):
    """Lines 1 … n as a sequence (index 0 is line 1), decoded whenever they are looked at.

    A decoded line may take 300 KB. Compressed in a temporary file without a name, those of many hosts over a long run
    take some memory of the page cache and go when this object does. May be read from any thread.
    """

    def __init__(self) -> None:
        fd, path = tempfile.mkstemp(prefix="wslab-lines-")
        os.unlink(path)
        self._fd = fd
        self._ends = array("q", [0])
        self._cuts = array("q")
        """Of each line, where its histograms begin. The rest of it stands uncompressed before them."""
        self._bares = array("q")
        """Bytes of each line without its histograms."""
        self._newest = (0, b"")
        weakref.finalize(self, os.close, fd)

    def append(self, line: bytes) -> None:
        """Keep the next line. Raises OSError where the disk is full."""
        cut, on = _parts(line)
        data = line[:cut] + line[on:] + zstandard.compress(line[cut:on], LEVEL)
        written = os.pwrite(self._fd, data, self._ends[-1])
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes could be written")
        self._cuts.append(cut)
        self._bares.append(cut + len(line) - on)
        self._ends.append(self._ends[-1] + written)
        self._newest = (len(self), line)

    def raw(self, number: int) -> bytes:
        """Line `number`, 1-based, as it came."""
        newest, line = self._newest
        if newest == number:  # most are merged as soon as they have come
            return line
        begin, end = self._ends[number - 1], self._ends[number]
        data = os.pread(self._fd, end - begin, begin)
        cut, bare = self._cuts[number - 1], self._bares[number - 1]
        return data[:cut] + zstandard.decompress(data[bare:]) + data[cut:bare]

    @property
    def bare(self) -> Sequence[Second]:
        """The same without histograms, which are most of a line."""
        return _Bare(self)

    def raw_bare(self, number: int) -> bytes:
        """Line `number`, 1-based, without its histograms."""
        return os.pread(self._fd, self._bares[number - 1], self._ends[number - 1])

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
        place = _place(index, len(self))
        return _decoded(self.raw(place + 1), place + 1)


class _Bare(Sequence[Second]):
    """Lines without their histograms."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Second: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Second]: ...
    def __getitem__(self, index: int | slice) -> Second | Sequence[Second]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = _place(index, len(self))
        second = _decoded(self._lines.raw_bare(place + 1), place + 1)
        return second.model_copy(update={"histograms": {}}) if second.histograms else second


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


def _parts(line: bytes) -> tuple[int, int]:
    """Where a line's histograms begin and end; (0, 0) where that is not to be told without decoding it."""
    begin, end = line.find(_HISTOGRAMS), line.rfind(_HOST)
    return (begin, end) if 0 <= begin < end and line.count(_HISTOGRAMS) == line.count(_HOST) == 1 else (0, 0)


def _place(index: int, length: int) -> int:
    place = index + length if index < 0 else index
    if not 0 <= place < length:
        raise IndexError(f"no line {index} of {length}")
    return place


def _decoded(line: bytes, number: int) -> Second:
    second = decode_reply(line)
    if not isinstance(second, Second) or second.second != number:
        raise ProtocolError(f"line {number} is not that of second {number}")
    return second
