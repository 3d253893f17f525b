"""Keeping a load generator's CPUs awake while a load runs.

A CPU that sleeps between two messages wakes up late: by microseconds from a deep idle state, by tens of them where a
hypervisor has to bring a halted virtual CPU back, which the guest then counts as stolen. Holding the kernel's CPU
latency request at 0 makes idle CPUs poll instead (Linux, Documentation/power/pm_qos_interface.rst). It takes the right
to open the device, so root or a rule for it, and ends with the process at the latest.
"""

from __future__ import annotations

import os
from typing import Self

DEVICE = "/dev/cpu_dma_latency"
HELD_US = 0


class CpuLatencyHold:
    """The request while it is open. `held` is False where it is not permitted, or the kernel has no such device."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    @classmethod
    def take(cls, device: str = DEVICE) -> Self:
        """Ask for wake-ups within 0 µs, if permitted."""
        try:
            fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return cls(None)
        try:
            os.write(fd, HELD_US.to_bytes(4, "little", signed=True))
        except OSError:
            os.close(fd)
            return cls(None)
        return cls(fd)

    @property
    def held(self) -> bool:
        """Whether the CPUs are kept awake."""
        return self._fd is not None

    def release(self) -> None:
        """Let them sleep again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def permitted(device: str = DEVICE) -> bool:
    """Whether a load on this host can keep the CPUs awake."""
    return os.access(device, os.W_OK)
