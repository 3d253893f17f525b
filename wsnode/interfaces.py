"""This host's network interfaces: what of them decides how many packets a load costs. Read, never set."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

import psutil

_NET = Path("/sys/class/net")
_SOFTNET = Path("/proc/net/softnet_stat")
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"rx_checksum": 0x14, "tx_checksum": 0x16, "tso": 0x1E, "gso": 0x23, "gro": 0x2B}
"""ethtool's commands that read one switch (linux/ethtool.h: ETHTOOL_GRXCSUM, GTXCSUM, GTSO, GGSO, GGRO)."""
_NAME_BYTES = 15


def interfaces() -> dict[str, str | int | None]:
    """Facts of each interface that has an IPv4 address of its own, as `nic.NAME.FACT`.

    The loopback and bridges (those of other programs' containers come and go) are left out. `offloads` are those that
    are on; None stands for what this kernel or driver does not show. Speed is in Mbit/s; None for virtual ones.
    """
    facts: dict[str, str | int | None] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for name in _names():
            speed = _natural(_NET / name / "speed")
            facts[f"nic.{name}.driver"] = _driver(name)
            facts[f"nic.{name}.mtu_bytes"] = _natural(_NET / name / "mtu")
            facts[f"nic.{name}.offloads"] = _offloads(asking, name)
            facts[f"nic.{name}.queues"] = _queues(name)
            facts[f"nic.{name}.speed_mbit"] = speed if speed and _driver(name) else None
    return facts


def drops() -> dict[str, int | None]:
    """Packets that were dropped since boot: by the kernel before it looked at them, on any interface (its backlog was
    full: `net.core.netdev_max_backlog`), and of each interface by the kernel and by its driver.

    The first is the whole machine's, also in a container; None stands for what this kernel does not show.
    """
    facts: dict[str, int | None] = {"packets_dropped": _dropped_unseen()}
    for name in _names():
        for counter in ("rx_dropped", "rx_missed", "tx_dropped"):
            file = "rx_missed_errors" if counter == "rx_missed" else counter
            facts[f"nic.{name}.{counter}"] = _natural(_NET / name / "statistics" / file)
    return facts


def _dropped_unseen() -> int | None:
    try:
        lines = _SOFTNET.read_text().splitlines()
    except OSError:
        return None
    # A line of hexadecimal words for each processor: packets, then those dropped (Linux, net/core/net-procfs.c).
    return sum(int(line.split()[1], 16) for line in lines if line)


def _names() -> list[str]:
    """The interfaces that count here, in order."""
    return [
        name
        for name, addresses in sorted(psutil.net_if_addrs().items())
        if any(address.family == socket.AF_INET and not _loopback(address.address) for address in addresses)
        and not (_NET / name / "bridge").exists()
    ]


def _loopback(address: str) -> bool:
    return address.startswith("127.")


def _natural(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:  # also: the driver does not know its speed
        return None
    return int(text) if text.isdigit() else None


def _driver(name: str) -> str | None:
    """None for a virtual interface (veth and the like)."""
    try:
        return os.path.basename(os.readlink(_NET / name / "device" / "driver"))
    except OSError:
        return None


def _queues(name: str) -> int | None:
    """Receive queues: so many cores may take packets in at once."""
    try:
        return sum(queue.startswith("rx-") for queue in os.listdir(_NET / name / "queues"))
    except OSError:
        return None


def _offloads(asking: socket.socket, name: str) -> str | None:
    """Those that are on, in order of name; None where the kernel answers for none."""
    encoded = name.encode()
    if len(encoded) > _NAME_BYTES:
        return None
    found: dict[str, bool] = {}
    for offload, command in _OFFLOADS.items():
        value = bytearray(struct.pack("II", command, 0))  # struct ethtool_value
        held = (ctypes.c_char * len(value)).from_buffer(value)
        request = struct.pack("16sP", encoded, ctypes.addressof(held))  # struct ifreq, its pointer
        try:
            fcntl.ioctl(asking.fileno(), _SIOCETHTOOL, request)
        except OSError:
            continue
        found[offload] = bool(struct.unpack("II", value)[1])
    return " ".join(sorted(offload for offload, on in found.items() if on)) if found else None
