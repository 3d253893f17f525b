"""What workers of a service say to each other: a room's messages, one record after another on a stream.

A record is a head (bytes that follow it, first byte of the frame, length of the room's name), the name and the payload.
First byte 0, with nothing behind it, is the barrier: its sender has published all that it ever will.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from wsnode.lean import BINARY, TEXT

_HEAD = struct.Struct(">IBB")
LONGEST_NAME_BYTES = 255


class WireError(ValueError):
    """Bytes that no worker of this version sends."""


class Record(NamedTuple):
    """A message on its way to the subscribers of another worker."""

    name: bytes
    """The room's; empty in the barrier."""
    first: int
    """`TEXT` or `BINARY`; 0 in the barrier."""
    payload: bytes


def encode(name: bytes, first: int, payload: bytes) -> bytes:
    """A record as it is written."""
    return _HEAD.pack(len(name) + len(payload), first, len(name)) + name + payload


BARRIER = encode(b"", 0, b"")


class Decoder:
    """Makes records of a stream cut anywhere. Its memory is bounded by one record and what one read brings."""

    def __init__(self, payload_bytes: int) -> None:
        """`payload_bytes`: the longest payload that is believed."""
        self._most = payload_bytes + LONGEST_NAME_BYTES
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Record]:
        """The records that are whole now. Raises WireError, after which the stream cannot be read on."""
        source: bytes | bytearray = data
        if self._rest:
            self._rest += data
            source = self._rest
        records, at, end = [], 0, len(source)
        while end - at >= _HEAD.size:
            size, first, name_size = _HEAD.unpack_from(source, at)
            if size > self._most or name_size > size or (first not in (TEXT, BINARY) and (first or size)):
                raise WireError(f"a record of {size} bytes, first byte {first:#x}, name of {name_size} bytes")
            start = at + _HEAD.size
            if end - start < size:
                break
            at = start + size
            middle = start + name_size
            records.append(Record(bytes(source[start:middle]), first, bytes(source[middle:at])))
        if source is self._rest:
            del self._rest[:at]
        elif at < end:
            self._rest += data[at:]
        return records
