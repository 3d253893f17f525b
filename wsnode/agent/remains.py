"""What earlier runs have left in this host's TCP tables."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

from wsnode import environment
from wsnode.core.protocol import Remains

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
TIME_WAIT, CLOSE, LISTEN = "06", "07", "0A"
"""States as the kernel writes them (include/net/tcp_states.h)."""


def of_server(port: int) -> Remains:
    """Connections that a server on this host has, or had, on its port."""
    end = f":{port:04X}"
    return _counted(lambda local, remote: local.endswith(end))


def of_clients(addresses: Collection[str], port: int) -> Remains:
    """Connections of this host's to a server."""
    ends = {f"{text}:{port:04X}" for address in addresses for text in _as_written(address)}
    return _counted(lambda local, remote: remote in ends)


def _counted(matches: Callable[[str, str], bool]) -> Remains:
    connections = time_wait = 0
    for local, remote, state in chain.from_iterable(map(_rows, TABLES)):
        if not matches(local, remote):
            continue
        if state == TIME_WAIT:
            time_wait += 1
        elif state not in (LISTEN, CLOSE):
            connections += 1
    return Remains(connections=connections, time_wait=time_wait, source_ports=environment.source_ports())


def _rows(table: str) -> Iterator[tuple[str, str, str]]:
    """(local end, remote end, state) of each socket, as the kernel writes them."""
    try:
        with Path(table).open(encoding="ascii") as lines:
            yield from _ends(lines)
    except OSError:  # a kernel without IPv6
        return


def _ends(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for line in lines:
        words = line.split(None, 4)
        if len(words) > 3 and words[0] != "sl":
            yield words[1], words[2], words[3]


def _as_written(text: str) -> Iterator[str]:
    """An address as these tables have it: words of 32 bits in the machine's byte order. One of IPv4 also stands in the
    table of IPv6, where a socket is open for both."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    yield _words(address.packed)
    if isinstance(address, ipaddress.IPv4Address):
        yield _words(ipaddress.IPv6Address(f"::ffff:{address}").packed)


def _words(packed: bytes) -> str:
    network_order = struct.unpack(f"!{len(packed) // 4}I", packed)
    return "".join(f"{struct.unpack('=I', struct.pack('!I', word))[0]:08X}" for word in network_order)
