"""What is taken from this host by others, second by second: CPU time stolen by the hypervisor, or throttled away."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from wsnode import environment
from wsnode.core.protocol import HostSecond, Second

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NS = 1_000_000_000


class Reading(NamedTuple):
    """The machine's counters at one moment."""

    at_ns: int
    """time.monotonic_ns"""
    steal_s: float
    throttled_s: float
    cores: int


def read(throttled: list[Path]) -> Reading:
    """Look now. `throttled` is what `throttled_files` gave."""
    steal, cores = 0, 0
    for line in (environment.text("/proc/stat") or "").splitlines():
        name, *fields = line.split()
        if name == "cpu" and len(fields) > 7:
            steal = int(fields[7])
        elif name.startswith("cpu"):
            cores += 1
        else:
            break
    return Reading(time.monotonic_ns(), steal / TICKS_PER_S, sum(map(_throttled_s, throttled)), cores or 1)


def throttled_files() -> list[Path]:
    """The `cpu.stat` of this process's cgroups. Each group with a quota throttles by itself; one without counts no
    throttling, and may be given a quota at any time."""
    return [folder / "cpu.stat" for folder in environment.cgroups()]


def _throttled_s(file: Path) -> float:
    for line in (environment.text(file) or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "throttled_usec":
            return int(value) / 1e6
        if key == "throttled_time":  # version 1, nanoseconds
            return int(value) / 1e9
    return 0


class Meter:
    """Reads the counters at each whole second of a load, so that line n, which comes later, says what was so then."""

    def __init__(self) -> None:
        self._files = throttled_files()
        self._begin: Reading | None = None
        self._readings: dict[int, Reading] = {}

    async def run(self, origin_ns: int) -> None:
        """Read at origin, origin + 1 s, … on time.monotonic_ns, until cancelled."""
        second = 0
        while True:
            await _until(origin_ns + second * NS)
            self.take(second)
            second = max(second + 1, (time.monotonic_ns() - origin_ns) // NS)

    def take(self, second: int) -> None:
        """Read the counters of a second that is just over; 0 is the origin."""
        if second == 0:
            self._begin = read(self._files)
        else:
            self._readings[second] = read(self._files)

    def add_to(self, second: Second) -> Second:
        """A line with what this host lost up to it. Asked for in order: earlier readings are dropped."""
        later = min((n for n in self._readings if n >= second.second), default=None)
        reading = read(self._files) if later is None else self._readings[later]
        for number in [n for n in self._readings if n <= second.second]:
            del self._readings[number]
        return self._with(second, reading)

    def add_to_final(self, second: Second) -> Second:
        """The whole load's line, with what this host lost until now."""
        return self._with(second, read(self._files))

    def _with(self, second: Second, reading: Reading) -> Second:
        begin = self._begin
        if begin is None:
            return second
        return second.model_copy(
            update={
                "host": HostSecond(
                    worker_cpu_s=second.host.worker_cpu_s,
                    steal_s=max(0.0, round(reading.steal_s - begin.steal_s, 6)),
                    throttled_s=max(0.0, round(reading.throttled_s - begin.throttled_s, 6)),
                    core_s=round((reading.at_ns - begin.at_ns) / NS * reading.cores, 6),
                )
            }
        )


async def _until(moment_ns: int) -> None:
    # uvloop's timers may fire early.
    while (left := moment_ns - time.monotonic_ns()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(left / NS)
