"""Stolen and throttled time, second by second."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.wsnode.agents import eventually, run, second
from wsnode import environment, meter
from wsnode.meter import Meter

STAT = "cpu  1 2 3 4 5 6 7 {} 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine of two cores with cgroup version 2, whose files a test may change."""
    files = {
        "/proc/stat": STAT.format(100),
        "/proc/self/cgroup": "0::/a",
        "/sys/fs/cgroup/a/cpu.stat": "usage_usec 5\nthrottled_usec 1000000",
        "/sys/fs/cgroup/cpu.stat": "usage_usec 5",
    }
    monkeypatch.setattr(environment, "text", lambda path: files.get(str(path)))
    monkeypatch.setattr(meter, "TICKS_PER_S", 100)
    return files


def test_each_line_says_what_was_so_at_its_own_second(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5_000_000_000
    monkeypatch.setattr(meter.time, "monotonic_ns", lambda: now)
    of = Meter()
    of.take(0)
    for number, steal, throttled in ((1, 130, 1_000_000), (3, 150, 1_250_000)):  # second 2 was missed
        machine["/proc/stat"] = STAT.format(steal)
        machine["/sys/fs/cgroup/a/cpu.stat"] = f"throttled_usec {throttled}"
        now = 5_000_000_000 + number * 1_000_000_000
        of.take(number)
    hosts = [of.add_to(second(number)).host for number in (1, 2, 3)]
    assert [host.steal_s for host in hosts] == [0.3, 0.5, 0.5]
    assert [host.throttled_s for host in hosts] == [0, 0.25, 0.25]
    assert [host.core_s for host in hosts] == [2, 6, 6]
    assert [host.worker_cpu_s for host in hosts] == [second(number).host.worker_cpu_s for number in (1, 2, 3)]
    # A line that comes before its second was read is given what is so now.
    now += 1_000_000_000
    assert of.add_to(second(4)).host.core_s == 8
    assert of.add_to_final(second(4)).host.core_s == 8


def test_a_quota_that_comes_in_the_middle_of_a_load_is_seen(machine: dict[str, str]) -> None:
    machine["/sys/fs/cgroup/a/cpu.stat"] = "usage_usec 5"
    of = Meter()
    of.take(0)
    machine["/sys/fs/cgroup/a/cpu.stat"] = "usage_usec 9\nthrottled_usec 700000"
    of.take(1)
    assert of.add_to(second(1)).host.throttled_s == 0.7


def test_it_reads_at_each_whole_second_from_the_origin_on(machine: dict[str, str]) -> None:
    async def work() -> tuple[int, Meter]:
        of = Meter()
        origin = time.monotonic_ns() + 20_000_000
        task = asyncio.create_task(of.run(origin))
        await eventually(lambda: 1 in of._readings)
        task.cancel()
        return origin, of

    origin, of = run(work())
    assert of._begin is not None
    assert 0 <= of._begin.at_ns - origin < 900_000_000
    assert of._readings[1].at_ns >= origin + 1_000_000_000


def test_version_1_counts_throttling_in_nanoseconds(machine: dict[str, str]) -> None:
    machine["/proc/self/cgroup"] = "4:cpu,cpuacct:/x"
    machine["/sys/fs/cgroup/cpu/x/cpu.stat"] = "nr_throttled 3\nthrottled_time 2500000000"
    assert meter.read(meter.throttled_files()).throttled_s == 2.5


def test_a_machine_without_these_files_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "text", lambda path: None)
    reading = meter.read(meter.throttled_files())
    assert (reading.steal_s, reading.throttled_s, reading.cores) == (0, 0, 1)
