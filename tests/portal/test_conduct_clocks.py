"""Runs on hosts whose wall clocks are wrong, or are set while they run (libfaketime, preloaded into real agents)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.conductor.conduct import conduct
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Outcome
from tests.wsnode.agents import AgentProcess, eventually, run, short_folder
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Plan, Scenario

NS = 1_000_000_000
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
SCENARIO = Scenario(
    clients=20, interval_ms=100, ramp_up_s=1, duration_s=4, rate_per_s=100, reply_timeout_s=0.5, drain_s=1
)
SKEW_S = 0.05
"""Beyond the bound within which an offset is known (issue: Start together)."""

pytestmark = pytest.mark.skipif(FAKETIME is None, reason="no libfaketime: apt install libfaketime")


# libfaketime moves timers of the monotonic clock too, where they are absolute and whatever it is told: the load's own
# asks libc for its timer.
PAST_FAKETIME = """
import ctypes
CDLL = ctypes.CDLL
ctypes.CDLL = lambda name, *more, **named: CDLL(name or "libc.so.6", *more, **named)
"""


class WrongClock:
    """What an agent's wall clock shows: the machine's, moved by `shift_s`, which may be changed while it runs."""

    def __init__(self, folder: Path, shift_s: float) -> None:
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(PAST_FAKETIME)
        self._file = folder / "clock"
        self.set(shift_s)
        self.environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": str(folder),
        }

    def set(self, shift_s: float) -> None:
        self._file.write_text(f"{shift_s:+.3f}\n")


@contextlib.contextmanager
def hosts(*shifts_s: float) -> Iterator[tuple[list[AgentProcess], list[WrongClock]]]:
    """A load generator for each clock."""
    started: list[AgentProcess] = []
    with short_folder() as folder:
        clocks = [WrongClock(folder / f"clock-{n}", shift_s) for n, shift_s in enumerate(shifts_s, 1)]
        try:
            for n, clock in enumerate(clocks, 1):
                agent = AgentProcess(folder, f"load-{n}", "--cores", "1", environment=clock.environment)
                started.append(agent)
            yield [agent.ready() for agent in started], clocks
        finally:
            for agent in started:
                agent.end()


def job_of(url: str, generators: list[AgentProcess]) -> Job:
    plans = Plan.divide(SCENARIO, url, len(generators))
    places = [
        JobHost(agent.name, "load_generator", "local", agent.socket, plan)
        for agent, plan in zip(generators, plans, strict=True)
    ]
    return Job("r-clocks", 1, SCENARIO, places)


def assert_whole(outcome: Outcome) -> None:
    """All that was due was due, once, whatever the clocks show."""
    assert (outcome.state, outcome.reason) == ("finished", None)
    due = 0
    for host in outcome.hosts:
        assert host.run is not None
        assert host.run.result.final is not None
        assert broken_identities(host.run.result.final.counters) == []
        due += host.run.result.final.counters.messages_due
    assert due == SCENARIO.pacing().offered(Plan.divide(SCENARIO, "ws://x", 1)[0].share, SCENARIO.duration_s * NS)


def test_wrong_clocks_are_seen_and_do_not_make_the_start_late() -> None:
    shifts_s = (0.0, 0.4, 86_400.0, -86_400.0)

    async def work(url: str, generators: list[AgentProcess]) -> None:
        outcome = await conduct(job_of(url, generators), lambda event: None, Control())
        assert_whole(outcome)
        for host, expected_s in zip(outcome.hosts, shifts_s, strict=True):
            assert host.clock_begin is not None
            assert host.clock_end is not None
            for reading in (host.clock_begin, host.clock_end):
                assert (
                    abs(reading.offset_s - expected_s) <= reading.bound_s + 0.001
                )  # the clock is set to a millisecond
            assert host.start_skew_s is not None
            assert abs(host.start_skew_s) < SKEW_S + host.clock_begin.bound_s
            assert host.clock_started is not None
            assert abs(host.clock_started.offset_s - expected_s) <= host.clock_started.bound_s + 0.001

    with serving("--workers", "1") as running, hosts(*shifts_s) as (generators, _):
        run(work(running.url(), generators))


def test_a_clock_that_is_set_during_the_run_moves_no_message() -> None:
    async def work(url: str, generators: list[AgentProcess], clock: WrongClock) -> None:
        events: list[Event] = []
        task = asyncio.create_task(conduct(job_of(url, generators), events.append, Control()))
        await eventually(lambda: sum(isinstance(event, Counted) for event in events) >= 1)
        clock.set(3.0)
        outcome = await task
        assert_whole(outcome)
        steady, stepped = outcome.hosts
        for host, step_s in ((steady, 0.0), (stepped, 3.0)):
            assert host.clock_begin is not None
            assert host.clock_end is not None
            assert host.clock_started is not None
            # Between these two is the start; the step came after both.
            assert abs(host.clock_started.offset_s - host.clock_begin.offset_s) < 0.05
            assert abs(host.clock_end.offset_s - host.clock_started.offset_s - step_s) < 0.1
        seconds = [event.second for event in events if isinstance(event, Counted)]
        assert [line.second for line in seconds] == list(range(1, SCENARIO.duration_s + 1))

    with serving("--workers", "1") as running, hosts(0.0, 0.0) as (generators, clocks):
        run(work(running.url(), generators, clocks[1]))
