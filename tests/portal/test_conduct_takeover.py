"""A conductor that died is followed by another, which goes on from what the hosts say."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

import pytest

from portal.conductor.conduct import LEFT
from portal.conductor.job import Counted, Staged
from tests.portal.hosts import Conducted, Lab, lab, paced, quick, tick_all
from tests.wsnode.agents import ScriptedLoad, eventually, run, scripted, second
from wsnode.core.merge import merge

__all__ = ["quick", "scripted"]

Loads = type[ScriptedLoad]
pytestmark = pytest.mark.usefixtures("quick")


async def died_after(hosts: Lab, scripted: Loads, seconds: int) -> Conducted:
    """A conductor that left all at once after some seconds, as if it had been killed."""
    first = hosts.conduct()
    await first.reaches("running")
    await eventually(lambda: all(load.origin_ns for load in scripted.made))
    await tick_all(scripted, seconds)
    await first.counts(seconds)
    first.task.cancel()
    await asyncio.wait({first.task})
    return first


def start_of(conducted: Conducted) -> int:
    [start] = [event.start_at_ns for event in conducted.of(Staged) if event.stage == "running"]
    assert start is not None
    return start


def assert_whole(conductors: list[Conducted], last: int) -> None:
    """Every second came once from one of them, in order, with every host's counts."""
    assert [number for conducted in conductors for number in conducted.seconds] == list(range(1, last + 1))
    for conducted in conductors:
        for event in conducted.of(Counted):
            assert event.second.counters == merge([second(event.second.second, 10)] * 3).counters


def test_a_running_load_is_adopted_and_counted_to_its_end(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 3)
            await tick_all(scripted, 2)
            start = start_of(first)
            second_one = hosts.conduct(hosts.job(epoch=2, stage="running", start_at_ns=start, from_second=4))
            await second_one.counts(5)
            await tick_all(scripted, 3)
            for load in scripted.made:
                load.finish()
            outcome = await second_one.outcome()
            assert (outcome.state, outcome.start_at_ns) == ("finished", start)
            assert len(scripted.made) == 3, "a load was started again"
            assert_whole([first, second_one], 8)
            assert second_one.stages == ["collecting"]
            for host in outcome.hosts[1:]:
                assert host.run is not None
                assert [line.second for line in host.run.series] == list(range(1, 9))
                assert host.start_skew_s == pytest.approx(0.001, abs=0.005)
            assert "the load goes on on load-1, load-2, load-3" in second_one.said

    run(work())


def test_a_load_that_started_while_the_row_said_preparing_is_adopted(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 2)
            second_one = hosts.conduct(hosts.job(epoch=2, stage="preparing"))
            await second_one.reaches("running")
            assert abs(start_of(second_one) - start_of(first)) < 5_000_000
            await tick_all(scripted, 6)
            for load in scripted.made:
                load.finish()
            assert (await second_one.outcome()).state == "finished"
            assert second_one.seconds == list(range(1, 9))
            assert len(scripted.made) == 3

    run(work())


def test_prepared_hosts_are_adopted_and_started(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(3) as hosts:
            for name, place in zip(hosts.names, hosts.job().hosts[1:], strict=True):
                if name != "load-2":  # the first conductor died before it came to this one
                    talk = await hosts.agents[name].talk()
                    await talk.ask("prepare", run_id="r-abc", epoch=1, plan=place.plan)
            second_one = hosts.conduct(hosts.job(epoch=2, stage="preparing"))
            assert (await second_one.outcome()).state == "finished"
            assert second_one.stages == ["running", "collecting"]
            assert_whole([second_one], 8)
            assert len(scripted.made) == 3

    run(work())


async def _half_started(hosts: Lab, ahead_s: float) -> int:
    """Everything prepared, and only load-1 told to start."""
    for name, place in zip(hosts.names, hosts.job().hosts[1:], strict=True):
        talk = await hosts.agents[name].talk()
        await talk.ask("prepare", run_id="r-abc", epoch=1, plan=place.plan)
    talk = await hosts.agents["load-1"].talk()
    start = time.time_ns() + round(ahead_s * 1e9)
    await talk.ask("go", run_id="r-abc", epoch=1, start_at=start)
    return start


def test_a_host_that_was_not_told_to_start_joins_the_others_in_time(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(3) as hosts:
            start = await _half_started(hosts, 1.5)
            second_one = hosts.conduct(hosts.job(epoch=2, stage="preparing"))
            outcome = await second_one.outcome()
            assert outcome.state == "finished"
            assert abs(start_of(second_one) - start) < 5_000_000
            origins = [load.origin_ns or 0 for load in scripted.made]
            assert max(origins) - min(origins) < 5_000_000

    run(work())


def test_a_host_that_missed_the_start_fails_the_run(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            await _half_started(hosts, 0.05)
            await asyncio.sleep(0.05)
            outcome = await hosts.conduct(hosts.job(epoch=2, stage="preparing")).outcome()
            assert (outcome.state, outcome.reason) == (
                "failed",
                "load-2, load-3: not started together with load-1 before the conductor died",
            )
            assert await hosts.states() == {"load-1": "stopped", "load-2": None, "load-3": None}

    run(work())


def test_what_was_prepared_while_the_row_said_preflight_is_no_other_run(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(3) as hosts:
            for name, place in zip(hosts.names, hosts.job().hosts[1:], strict=True):
                talk = await hosts.agents[name].talk()
                await talk.ask("prepare", run_id="r-abc", epoch=1, plan=place.plan)
            second_one = hosts.conduct(hosts.job(epoch=2))
            assert (await second_one.outcome()).state == "finished"
            assert_whole([second_one], 8)
            assert len(scripted.made) == 3

    run(work())


def test_a_load_that_starts_at_another_moment_than_asked_ends_the_run(scripted: Loads) -> None:
    """What a dead conductor had on the way came just before this one's own word."""

    async def work() -> None:
        async with lab(3) as hosts:
            await _half_started(hosts, 3)
            second_one = hosts.conduct(hosts.job(epoch=2))
            outcome = await second_one.outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert re.fullmatch(
                r"load-1: could not start: its load starts 2\.\d{3} s later than it was asked to", outcome.reason
            )
            assert await hosts.states() == dict.fromkeys(hosts.names, "stopped")
            assert second_one.stages == ["preparing"]

    run(work())


@pytest.mark.parametrize("stage", ["preflight", "running"])
def test_who_finds_a_newer_epoch_on_a_host_leaves_and_touches_none(scripted: Loads, stage: str) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 2)
            talk = await hosts.agents["load-2"].talk()
            await talk.ask("follow", run_id="r-abc", epoch=3, from_second=1)
            late = hosts.conduct(hosts.job(epoch=2, stage=stage, start_at_ns=start_of(first), from_second=3))
            outcome = await late.outcome()
            assert (outcome.state, outcome.reason, late.stages) == ("lost", LEFT, [])
            for name, epoch in {"load-1": 1, "load-2": 3, "load-3": 1}.items():
                [row] = (await (await hosts.agents[name].talk()).ask("list"))["loads"]
                assert (row["state"], row["epoch"]) == ("running", epoch)

    run(work())


def test_loads_that_have_ended_meanwhile_are_collected(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 8)
            for load in scripted.made:
                load.finish()
            for stage in ("running", "collecting"):
                job = hosts.job(epoch=3, stage=stage, start_at_ns=start_of(first), from_second=9)
                again = hosts.conduct(job)
                outcome = await again.outcome()
                assert outcome.state == "finished"
                assert again.seconds == []
                assert [len(host.run.series) if host.run else 0 for host in outcome.hosts] == [0, 8, 8, 8]
            assert_whole([first], 8)

    run(work())


def test_a_load_that_was_interrupted_meanwhile_ends_the_run(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 3)
            scripted.made[0].die("load worker 0 ended before the load did: killed by SIGKILL")
            job = hosts.job(epoch=2, stage="running", start_at_ns=start_of(first), from_second=4)
            outcome = await hosts.conduct(job).outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert "was interrupted after 3 s: load worker 0 ended" in outcome.reason
            assert sorted(filter(None, (await hosts.states()).values())) == ["interrupted", "stopped", "stopped"]

    run(work())


@pytest.mark.parametrize("stage", ["running", "collecting"])
def test_a_run_that_a_host_does_not_know_any_more_is_lost(scripted: Loads, stage: str) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 2)
            talk = await hosts.agents["load-2"].talk()
            await talk.ask("stop", run_id="r-abc", epoch=1)
            await talk.ask("ack", run_id="r-abc", epoch=1)
            job = hosts.job(epoch=2, stage=stage, start_at_ns=start_of(first), from_second=3)
            outcome = await hosts.conduct(job).outcome()
            assert outcome.state == "lost"
            assert outcome.reason is not None
            assert outcome.reason.startswith("nobody can say what the load did on load-2 (its agent does not know")
            assert await hosts.states() == {"load-1": "stopped", "load-2": None, "load-3": "stopped"}

    run(work())


def test_a_host_that_cannot_be_reached_makes_the_run_lost_and_the_others_stop(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 2)
            hosts.wire.down.add("load-3")
            job = hosts.job(epoch=2, stage="running", start_at_ns=start_of(first), from_second=3)
            outcome = await hosts.conduct(job).outcome()
            assert outcome.state == "lost"
            assert outcome.reason is not None
            assert "load-3 (no route to host)" in outcome.reason
            assert await hosts.states() == {"load-1": "stopped", "load-2": "stopped", "load-3": "running"}

    run(work())


def test_a_cancel_that_a_dead_conductor_did_not_carry_out_is_carried_out(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = await died_after(hosts, scripted, 2)
            job = hosts.job(epoch=2, stage="running", start_at_ns=start_of(first), from_second=3)
            second_one = hosts.conduct(job)
            second_one.control.cancel.set()
            outcome = await second_one.outcome()
            assert outcome.state == "cancelled"
            assert await hosts.states() == dict.fromkeys(hosts.names, "stopped")

    run(work())


def test_a_conductor_that_was_only_slow_leaves_when_another_has_the_run(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            first = hosts.conduct()
            await first.reaches("running")
            await tick_all(scripted, 2)
            await first.counts(2)
            job = hosts.job(epoch=2, stage="running", start_at_ns=start_of(first), from_second=3)
            second_one = hosts.conduct(job)
            outcome = await first.outcome()
            assert (outcome.state, outcome.reason, list(outcome.hosts)) == ("lost", LEFT, [])
            await tick_all(scripted, 6)
            for load in scripted.made:
                load.finish()
            assert (await second_one.outcome()).state == "finished"
            assert_whole([first, second_one], 8)
            # Whoever comes back from the dead with the older epoch touches nothing either.
            late = await hosts.conduct(hosts.job(epoch=1, stage="running", start_at_ns=start_of(first))).outcome()
            assert (late.state, late.reason) == ("lost", LEFT)
            assert await hosts.states() == dict.fromkeys(hosts.names, "finished")

    run(work())


def test_a_run_is_taken_over_again_and_again(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted, 0.1)
        async with lab(3) as hosts:
            conductors = [hosts.conduct(hosts.job(duration_s=20))]
            await conductors[0].counts(2)
            start = start_of(conductors[0])
            for epoch in range(2, 6):
                conductors[-1].task.cancel()
                await asyncio.wait({conductors[-1].task})
                counted = sum(len(conducted.seconds) for conducted in conductors)
                job = hosts.job(epoch=epoch, duration_s=20, stage="running", start_at_ns=start, from_second=counted + 1)
                conductors.append(hosts.conduct(job))
                await conductors[-1].counts(counted + 2)
            assert (await conductors[-1].outcome()).state == "finished"
            assert_whole(conductors, 20)

    run(work())


def _state_file(hosts: Lab, name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((hosts.agents[name].data / "runs" / "r-abc" / "state.json").read_text())
    return state


def test_adopting_is_kept_on_disk(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(1) as hosts:
            first = await died_after(hosts, scripted, 1)
            assert _state_file(hosts, "load-1")["epoch"] == 1
            job = hosts.job(epoch=7, stage="running", start_at_ns=start_of(first), from_second=2)
            second_one = hosts.conduct(job)
            await eventually(lambda: _state_file(hosts, "load-1")["epoch"] == 7)
            scripted.made[0].finish()
            assert (await second_one.outcome()).state == "finished"

    run(work())
