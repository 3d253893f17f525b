"""Facts about this host that decide what a run on it can reach: read from /proc and /sys, never set."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wsnode import __version__
from wsnode.interfaces import drops, interfaces
from wsnode.timekeeping import clock_state
from wsnode.wakefulness import HELD_US, permitted
from wsnode.workers import raise_descriptor_limit

Fact = str | int | float | bool | None

SYSCTLS = (
    "fs.file-max",
    "fs.nr_open",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
)
"""Every kernel setting that the lab tunes, or that would explain a difference."""
LIBRARIES = ("pydantic", "uvloop", "websockets")


def environment(more: Mapping[str, Fact] | None = None) -> dict[str, dict[str, Fact]]:
    """The host as it is now: `stable` keys stay the same while a run is comparable, `volatile` ones move by nature.

    None stands for what this kernel does not have. `more` are further stable facts of the caller.
    """
    limit = raise_descriptor_limit()
    memory = meminfo()
    sockets = sockstat()
    stable: dict[str, Fact] = {
        "boot_id": boot_id(),
        "cgroup_cpu_max": cgroup_limit("cpu.max"),
        "cgroup_memory_max": cgroup_limit("memory.max"),
        "clocksource": clocksource(),
        "cpu_count": os.cpu_count(),
        "cpu_latency_held_us": HELD_US if permitted() else None,
        "cpu_model": cpu_model(),
        "cpus_usable": len(os.sched_getaffinity(0)),
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "machine_id": machine_id(),
        "memory_bytes": memory.get("MemTotal"),
        "network_namespace": network_namespace(),
        "open_file_limit": limit,
        "openssl": ssl.OPENSSL_VERSION,
        "python": platform.python_version(),
        "wsnode": __version__,
        **{name: _installed(name) for name in LIBRARIES},
        **interfaces(),
        **{key: sysctl(key) for key in SYSCTLS},
        **(more or {}),
    }
    volatile: dict[str, Fact] = {
        **clock_state(),
        **drops(),
        "conntrack_count": natural("/proc/sys/net/netfilter/nf_conntrack_count"),
        "files_open": files_open(),
        "load_1m": os.getloadavg()[0],
        "memory_available_bytes": memory.get("MemAvailable"),
        "read_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "tcp_in_use": sockets.get("inuse"),
        "tcp_time_wait": sockets.get("tw"),
        "uptime_s": float(uptime.split()[0]) if (uptime := text("/proc/uptime")) else None,
    }
    return {"stable": dict(sorted(stable.items())), "volatile": volatile}


def text(path: str | Path) -> str | None:
    """A file of the kernel's, stripped; None where this kernel has none, or does not let us read it."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def natural(path: str | Path) -> int | None:
    """A file that holds one whole number."""
    value = text(path)
    return int(value) if value is not None and value.isdigit() else None


def sysctl(key: str) -> str | None:
    """A kernel setting as observed, its fields separated by one space."""
    value = text("/proc/sys/" + key.replace(".", "/"))
    return None if value is None else " ".join(value.split())


@cache
def boot_id() -> str:
    """Differs after each boot and is the same in all containers of a kernel."""
    return text("/proc/sys/kernel/random/boot_id") or "unknown"


@cache
def machine_id() -> str | None:
    """Names this installation, and stays the same over boots; hashed, since the id itself is not for others to know."""
    value = text("/etc/machine-id") or text("/var/lib/dbus/machine-id")
    return hashlib.sha256(f"wslab:{value}".encode()).hexdigest()[:16] if value else None


def network_namespace() -> str | None:
    """Names, within a kernel, whose interfaces, ports and counts of packets this host has."""
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:
        return None


def clocksource() -> str | None:
    """What the kernel reads the time from, such as `tsc`."""
    return text("/sys/devices/system/clocksource/clocksource0/current_clocksource")


@cache
def cpu_model() -> str | None:
    """The first processor's name."""
    for line in (text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Processor", "cpu model"):
            return value.strip()
    return None


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    fields = (line.split() for line in (text("/proc/meminfo") or "").splitlines())
    return {f[0].rstrip(":"): int(f[1]) * 1024 for f in fields if len(f) == 3 and f[2] == "kB"}


def sockstat() -> dict[str, int]:
    """The kernel's counts of TCP sockets over IPv4: inuse, orphan, tw, alloc, mem."""
    for line in (text("/proc/net/sockstat") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == "TCP":
            words = rest.split()
            return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}
    return {}


def files_open() -> int | None:
    """Open files of the whole machine."""
    value = text("/proc/sys/fs/file-nr")
    return int(value.split()[0]) if value else None


def source_ports() -> int | None:
    """Ports that a connect may get for one pair of addresses: the local range without the reserved ones."""
    port_range = sysctl("net.ipv4.ip_local_port_range")
    if port_range is None:
        return None
    low, high = map(int, port_range.split())
    reserved = 0
    for part in (sysctl("net.ipv4.ip_local_reserved_ports") or "").replace(",", " ").split():
        first, _, last = part.partition("-")
        reserved += max(0, min(int(last or first), high) - max(int(first), low) + 1)
    return high - low + 1 - reserved


def cgroups() -> list[Path]:
    """This process's cgroup folders that may limit it: version 2 or, of version 1, cpu and memory; inner ones first."""
    folders = []
    for line in (text("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        roots = [Path("/sys/fs/cgroup")] if number == "0" else []
        roots += [Path("/sys/fs/cgroup") / name for name in controllers.split(",") if name in ("cpu", "memory")]
        for root in roots:
            inner = root / path.lstrip("/")
            folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return folders


def cgroup_limit(name: str) -> str | None:
    """The innermost limit (`cpu.max` or `memory.max`) that is set, version 1 in the same words; None: unlimited."""
    for folder in cgroups():
        value = text(folder / name)
        if name == "cpu.max" and value is None and (quota := text(folder / "cpu.cfs_quota_us")) not in (None, "-1"):
            value = f"{quota} {text(folder / 'cpu.cfs_period_us')}"
        if name == "memory.max" and value is None and (limit := natural(folder / "memory.limit_in_bytes")):
            value = str(limit) if limit < 1 << 60 else None  # no limit is written as a huge one
        if value and not value.startswith("max"):
            return value
    return None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
