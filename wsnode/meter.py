"""What the machine under a load did to it: CPU time stolen by the hypervisor, or withheld by a cgroup's limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

from wsnode.core.protocol import HostSecond

NS = 1_000_000_000
_STEAL_COLUMN = 8
"""Of /proc/stat's `cpu` line: user, nice, system, idle, iowait, irq, softirq, steal (proc(5)), after the name."""


class HostMeter:
    """Cumulative since `start`. A machine that does not tell (no steal column, no cgroup v2 CPU limit) counts as 0."""

    def __init__(self) -> None:
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._cores = os.cpu_count() or 1
        self._cpu_stat = _cgroup_cpu_stat()
        self._origin_ns = time.monotonic_ns()
        self._steal_s = self._steal()
        self._throttled_s = self._throttled()

    def start(self, origin_ns: int) -> None:
        """Count from here; `origin_ns` is the load's origin on the monotonic clock."""
        self._origin_ns = origin_ns
        self._steal_s = self._steal()
        self._throttled_s = self._throttled()

    def read(self, host: HostSecond) -> HostSecond:
        """The same host second with the machine's figures up to now."""
        return host.model_copy(
            update={
                "steal_s": max(0.0, self._steal() - self._steal_s),
                "throttled_s": max(0.0, self._throttled() - self._throttled_s),
                "core_s": max(0.0, (time.monotonic_ns() - self._origin_ns) / NS * self._cores),
            }
        )

    def _steal(self) -> float:
        with open("/proc/stat", encoding="ascii") as file:
            fields = file.readline().split()
        return int(fields[_STEAL_COLUMN]) * self._tick_s if len(fields) > _STEAL_COLUMN else 0.0

    def _throttled(self) -> float:
        if self._cpu_stat is None:
            return 0.0
        try:
            lines = self._cpu_stat.read_text(encoding="ascii").splitlines()
        except OSError:
            return 0.0
        return sum(int(line.split()[1]) for line in lines if line.startswith("throttled_usec ")) / 1e6


def _cgroup_cpu_stat() -> Path | None:
    """This process's cgroup v2 `cpu.stat`, where there is one."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            path = Path("/sys/fs/cgroup") / line[3:].lstrip("/") / "cpu.stat"
            return path if path.exists() else None
    return None
