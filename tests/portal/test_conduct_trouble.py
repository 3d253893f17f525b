"""What goes wrong while a load runs: each run ends in the state that is true, and no load goes on unseen."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from portal.conductor import conduct, follow
from portal.conductor.job import Counted, Said
from tests.portal.hosts import Conducted, Lab, lab, paced, quick, tick_all
from tests.wsnode.agents import PATIENCE_S, ScriptedLoad, eventually, run, scripted, second
from wsnode.core.merge import merge

__all__ = ["quick", "scripted"]

Loads = type[ScriptedLoad]
pytestmark = pytest.mark.usefixtures("quick")


async def begun(hosts: Lab, scripted: Loads, seconds: int = 2, **fields: Any) -> Conducted:
    """A run whose first seconds have been counted."""
    conducted = hosts.conduct(hosts.job(**{"duration_s": 30, **fields}))
    await conducted.reaches("running")
    await eventually(lambda: all(load.origin_ns for load in scripted.made))
    if seconds:
        await tick_all(scripted, seconds)
        await conducted.counts(seconds)
    return conducted


def assert_counted_once(conducted: Conducted, last: int, hosts: int = 3) -> None:
    """All 30 clients of the scripts are in every second, whichever host has them."""
    assert conducted.seconds == list(range(1, last + 1))
    for event in conducted.of(Counted):
        assert event.second.counters == merge([second(event.second.second, 30 // hosts)] * hosts).counters


def load_of(scripted: Loads, name: str) -> ScriptedLoad:
    """The load on `load-1`, `load-2`, …: clients are dealt in that order."""
    begins = sorted({load.plan.begin for load in scripted.made})
    return next(load for load in scripted.made if load.plan.begin == begins[int(name.removeprefix("load-")) - 1])


# --- the way breaks ---


def test_a_broken_channel_is_resumed_with_nothing_lost_or_counted_twice(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted, duration_s=8)
            hosts.wire.cut("load-2")
            await tick_all(scripted, 2)
            await conducted.counts(4)
            hosts.wire.cut("load-1")
            hosts.wire.cut("load-2")
            hosts.wire.cut("load-3")
            await tick_all(scripted, 4)
            for load in scripted.made:
                load.finish()
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == ("finished", None)
            assert_counted_once(conducted, 8)
            assert len(scripted.made) == 3, "a load was started again"
            warnings = [event.text for event in conducted.of(Said) if event.level == "warning"]
            assert len(warnings) == 4
            assert "load-2: the channel ended; going on from second 3" in warnings

    run(work())


def test_a_host_out_of_reach_for_a_while_is_waited_for(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted, duration_s=6)
            hosts.wire.cut("load-2", for_good=True)
            await tick_all(scripted, 4)
            await asyncio.sleep(0.4)
            assert conducted.seconds == [1, 2], "a second was merged without load-2"
            hosts.wire.down.clear()
            for load in scripted.made:
                load.finish()
            assert (await conducted.outcome()).state == "finished"
            assert_counted_once(conducted, 6)

    run(work())


def test_a_silent_cut_is_noticed_and_repaired(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted, duration_s=4)
            hosts.wire.pipe("load-1").silent.set()
            await tick_all(scripted, 2)
            for load in scripted.made:
                load.finish()
            begin = time.monotonic()
            assert (await conducted.outcome()).state == "finished"
            assert time.monotonic() - begin < 3
            assert_counted_once(conducted, 4, hosts=2)
            assert "load-1: nothing was heard for 0.4 s" in conducted.said

    run(work())


def test_a_host_cut_off_for_good_is_lost_and_the_others_are_stopped(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted)
            hosts.wire.cut("load-2", for_good=True)
            outcome = await conducted.outcome()
            assert outcome.state == "lost"
            assert outcome.reason == (
                "nobody can say what the load did on load-2 (no route to host); load-2 was lost after second 2"
            )
            assert [host.lost for host in outcome.hosts] == [None, None, "no route to host", None]
            assert [host.run.result.state if host.run else None for host in outcome.hosts] == [
                None,
                "stopped",
                None,
                "stopped",
            ]
            assert await hosts.states() == {"load-1": "stopped", "load-2": "running", "load-3": "stopped"}
            assert "no load of this run is left on load-1, load-3" in conducted.said

    run(work())


def test_no_host_is_stopped_later_than_two_seconds_after_the_trouble_is_known(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted)
            begin = time.monotonic()
            scripted.made[0].die("load worker 1 ended before the load did: killed by SIGKILL")
            await eventually(lambda: all(load._over.is_set() for load in scripted.made))
            assert time.monotonic() - begin < 2
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert "was interrupted after 2 s: load worker 1 ended before the load did" in outcome.reason

    run(work())


# --- an agent gives way ---


def test_an_agent_that_restarted_fails_the_run_and_stops_the_others(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted)
            agent = hosts.agents["load-3"]
            kept = agent.data / "runs" / "r-abc" / "state.json"
            state = kept.read_text()
            hosts.wire.cut("load-3", for_good=True)
            await agent.stop()
            # As a crash leaves it: the state on disk says running, and there is no result.
            kept.write_text(state)
            (kept.parent / "result.json").unlink()
            await agent.start()
            hosts.wire.down.clear()
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason == (
                "the load on load-3 was interrupted after 2 s: the agent restarted; the last whole second is 2"
            )
            assert "load-3: the agent has restarted" in conducted.said
            assert await hosts.states() == {"load-1": "stopped", "load-2": "stopped", "load-3": "interrupted"}
            assert [len(host.run.series) if host.run else 0 for host in outcome.hosts] == [0, 2, 2, 2]
            result = outcome.hosts[3].run and outcome.hosts[3].run.result
            assert result is not None
            assert (result.state, result.final, result.seconds) == ("interrupted", None, 2)

    run(work())


def test_an_agent_that_has_forgotten_the_run_makes_it_lost(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted)
            agent = hosts.agents["load-1"]
            hosts.wire.cut("load-1", for_good=True)
            await agent.stop()
            for file in (agent.data / "runs" / "r-abc").iterdir():
                file.unlink()
            await agent.start()
            hosts.wire.down.clear()
            outcome = await conducted.outcome()
            assert outcome.state == "lost"
            assert outcome.reason is not None
            assert outcome.reason.startswith(
                "nobody can say what the load did on load-1 (its agent does not know the run any more: "
            )
            assert (await hosts.states())["load-2"] == "stopped"

    run(work())


def test_a_load_that_its_agent_stopped_fails_the_run_with_the_agents_reason(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted)
            talk = await hosts.agents["load-2"].talk()
            await talk.ask("stop", run_id="r-abc", epoch=1, reason="stopped by hand on load-2")
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == (
                "failed",
                "the load on load-2 was stopped after 2 s: stopped by hand on load-2",
            )
            assert await hosts.states() == {"load-1": "stopped", "load-2": "stopped"}

    run(work())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{}\n", "load-1: it sent what is not of the protocol: "),
        (b"\x00\xff\n", "load-1: it sent what is not of the protocol: "),
        (b'{"type":"second","second":9,"counters":{}}\n', "second 9 came after second 2"),
        (b'{"type":"second","second":3,"counters":{"messages_due":"many"}}\n', "load-1: second 3 can't be read: "),
        (b'{"type":"second","second":-3,"counters":{}}\n', "a line of second -3"),
        (b'{"type":"ended","run_id":"r-abc","state":"finished","seconds":7}\n', "ended after 7 s; 2 lines came"),
        (b'{"type":"ended","run_id":"r-other","state":"finished","seconds":2}\n', "run r-other ended"),
        (b'{"type":"live","second":"x"}\n', "load-1: it sent what is not of the protocol: live"),
        (b"x" * (3 << 20) + b"\n", "load-1: it sent what is not of the protocol: "),
    ],
)
def test_an_agent_that_talks_nonsense_fails_the_run_and_is_stopped(scripted: Loads, line: bytes, words: str) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted)
            hosts.wire.pipe("load-1").garbage = line
            await tick_all(scripted)
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert words in outcome.reason
            assert await hosts.states() == {"load-1": "stopped", "load-2": "stopped"}
            assert conducted.seconds[:2] == [1, 2]

    run(work())


def test_a_result_that_cannot_be_fetched_makes_the_run_lost(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted, duration_s=2)
            load_of(scripted, "load-1").finish()
            await eventually(lambda: '"state":"finished"' in _row(hosts, "load-1"))
            await asyncio.sleep(0.1)
            hosts.wire.cut("load-1", for_good=True)
            load_of(scripted, "load-2").finish()
            outcome = await conducted.outcome()
            assert outcome.state == "lost"
            assert outcome.reason is not None
            assert "load-1 (its result could not be fetched: no route to host)" in outcome.reason
            assert outcome.hosts[1].run is None
            assert outcome.hosts[2].run is not None

    run(work())


def _row(hosts: Lab, name: str) -> str:
    return (hosts.agents[name].data / "runs" / "r-abc" / "state.json").read_text()


def test_a_load_that_does_not_end_is_ended(scripted: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "OVERTIME_S", -0.5)

    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted, duration_s=2, ramp_up_s=0.1, clients=3)
            load_of(scripted, "load-1").finish()
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == (
                "failed",
                "load-2: the load went on long after its planned end",
            )
            assert await hosts.states() == {"load-1": "finished", "load-2": "stopped"}

    run(work())


# --- the server's host ---


def test_a_server_that_cannot_be_looked_at_in_the_end_is_said_and_nothing_more(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(1) as hosts:
            conducted = await begun(hosts, scripted, duration_s=2)
            hosts.wire.cut("server", for_good=True)
            scripted.made[0].finish()
            outcome = await conducted.outcome()
            assert outcome.state == "finished"
            assert outcome.hosts[0].lost == "it could not be looked at: no route to host"
            assert outcome.hosts[0].environment_end == {}
            assert outcome.hosts[1].lost is None

    run(work())


# --- somebody ends it ---


def confirmed(conducted: Conducted) -> list[str]:
    """The hosts that have said that no load of the run is left on them."""
    return [event.confirms for event in conducted.of(Said) if event.confirms]


def test_a_cancel_stops_every_host_and_says_so(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted)
            begin = time.monotonic()
            conducted.control.cancel.set()
            outcome = await conducted.outcome()
            assert time.monotonic() - begin < 2
            assert (outcome.state, outcome.reason) == ("cancelled", "cancelled by request")
            assert await hosts.states() == dict.fromkeys(hosts.names, "stopped")
            assert [host.run.result.reason if host.run else None for host in outcome.hosts][1:] == [
                "the run is cancelled: cancelled by request"
            ] * 3
            assert [len(host.run.series) if host.run else 0 for host in outcome.hosts] == [0, 2, 2, 2]
            assert sorted(confirmed(conducted)) == ["load-1", "load-2", "load-3"]

    run(work())


def test_a_cancel_without_every_hosts_word_is_no_cancel(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:
            conducted = await begun(hosts, scripted)
            hosts.wire.cut("load-3", for_good=True)
            conducted.control.cancel.set()
            outcome = await conducted.outcome()
            assert outcome.state == "lost"
            assert outcome.reason == (
                "nobody can say what the load did on load-3 (no route to host); cancelled by request"
            )
            assert await hosts.states() == {"load-1": "stopped", "load-2": "stopped", "load-3": "running"}
            assert sorted(confirmed(conducted)) == ["load-1", "load-2"]
            assert "load-3: no word of it: no route to host" in conducted.said

    run(work())


def test_a_cancel_during_the_preparation_releases_every_host(scripted: Loads) -> None:
    async def work() -> None:
        scripted.ready = asyncio.Event()
        async with lab(2) as hosts:
            conducted = hosts.conduct()
            await eventually(lambda: len(scripted.made) == 2)
            conducted.control.cancel.set()
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == ("cancelled", "cancelled by request")
            assert await hosts.states() == dict.fromkeys(hosts.names)
            assert all(load.killed for load in scripted.made)

    run(work())


def test_a_cancel_before_anything_was_prepared_needs_nobodys_word(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = hosts.conduct()
            hosts.wire.down.update(hosts.names)
            conducted.control.cancel.set()
            outcome = await conducted.outcome()
            assert outcome.state == "cancelled"
            assert scripted.made == []

    run(work())


def test_an_abandoned_run_is_left_without_touching_a_host(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted)
            conducted.control.abandon.set()
            async with asyncio.timeout(PATIENCE_S):
                outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason, list(outcome.hosts)) == ("lost", conduct.LEFT, [])
            assert await hosts.states() == dict.fromkeys(hosts.names, "running")
            assert not any(load._over.is_set() for load in scripted.made)

    run(work())


# --- the conductor's own faults ---


def test_a_fault_of_the_conductors_own_ends_the_load_and_is_told(
    scripted: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted, seconds=0)
            monkeypatch.setattr(follow, "merge", broken)
            await tick_all(scripted)
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason == "the conductor failed: ZeroDivisionError('a fault')"
            assert await hosts.states() == dict.fromkeys(hosts.names, "stopped")

    run(work())


def test_lines_that_cannot_be_kept_here_end_the_run(scripted: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def work() -> None:
        async with lab(2) as hosts:
            conducted = await begun(hosts, scripted)
            monkeypatch.setattr("portal.conductor.lines.os.pwrite", full)
            await tick_all(scripted)
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert "its lines can't be kept here: [Errno 28] No space left on device" in outcome.reason
            assert await hosts.states() == dict.fromkeys(hosts.names, "stopped")

    run(work())


def test_a_paced_run_survives_many_cuts(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted, 0.05)
        async with lab(3) as hosts:
            conducted = hosts.conduct(hosts.job(duration_s=30))
            await conducted.reaches("running")
            for cut in range(9):
                await asyncio.sleep(0.12)
                hosts.wire.cut(hosts.names[cut % 3])
            assert (await conducted.outcome()).state == "finished"
            assert_counted_once(conducted, 30)

    run(work())
