"""A run over real agents, real load and a real server, whose way breaks and whose conductor leaves in the middle."""

from __future__ import annotations

import asyncio

import psutil
import pytest

from portal.conductor.conduct import acknowledge, conduct
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Outcome, Said, Staged
from tests.wsnode.agents import AgentProcess, agents, eventually, run
from tests.wsnode.serving import serving
from wsnode.core.merge import broken_identities
from wsnode.core.scenario import Plan, Scenario
from wsnode.core.summary import summarise

NS = 1_000_000_000


def test_two_conductors_and_a_broken_way_count_every_message_once() -> None:
    scenario = Scenario(
        clients=40, interval_ms=100, ramp_up_s=1, duration_s=6, rate_per_s=100, reply_timeout_s=0.5, drain_s=1
    )

    async def work(url: str, server: AgentProcess, generators: list[AgentProcess]) -> None:
        plans = Plan.divide(scenario, url, 2)
        places = [JobHost("server", "server", "local", server.socket, None)]
        places += [
            JobHost(agent.name, "load_generator", "local", agent.socket, plan)
            for agent, plan in zip(generators, plans, strict=True)
        ]
        events: list[Event] = []
        control = Control()
        first = asyncio.create_task(conduct(Job("r-real", 1, scenario, places), events.append, control))
        await eventually(lambda: sum(isinstance(event, Counted) for event in events) >= 2)
        control.abandon.set()
        assert (await first).state == "lost"
        [start] = [event.start_at_ns for event in events if isinstance(event, Staged) and event.stage == "running"]
        counted = [event.second for event in events if isinstance(event, Counted)]
        job = Job("r-real", 2, scenario, places, "running", start, from_second=len(counted) + 1)
        later: list[Event] = []
        second = asyncio.create_task(conduct(job, later.append, Control()))
        await eventually(lambda: any(isinstance(event, Counted) for event in later))
        _bridge_to(generators[0]).kill()
        outcome = await second
        assert (outcome.state, outcome.reason) == ("finished", None)
        assert any(isinstance(event, Said) and "load-1: the channel ended" in event.text for event in later)
        counted += [event.second for event in later if isinstance(event, Counted)]
        assert [line.second for line in counted] == list(range(1, 7))
        _assert_whole(scenario, outcome, plans, counted[-1].counters.messages_due)
        assert await acknowledge(job, 5) == []
        for agent in generators:
            assert not list((agent.data / "runs").iterdir())

    with (
        serving("--workers", "1") as running,
        agents("server", role="server") as [server],
        agents("load-1", "load-2", options=("--cores", "1")) as generators,
    ):
        run(work(running.url(), server, generators))


def _bridge_to(agent: AgentProcess) -> psutil.Process:
    """The `agent connect` of this process that leads to an agent."""
    [bridge] = [child for child in psutil.Process().children() if agent.socket in child.cmdline()[-1:]
                and "connect" in child.cmdline()]  # fmt: skip
    return bridge


def _assert_whole(scenario: Scenario, outcome: Outcome, plans: list[Plan], counted: int) -> None:
    runs = [host.run for host in outcome.hosts if host.run is not None]
    assert [len(host.series) for host in runs] == [6, 6]
    for host, plan in zip(runs, plans, strict=True):
        assert host.result.final is not None
        offered = scenario.pacing().offered(plan.share, scenario.duration_s * NS)
        assert host.result.final.counters.messages_due == offered
        assert broken_identities(host.result.final.counters) == []
    summary = summarise(scenario, runs)
    assert summary is not None
    total = summary.total.counters
    assert (
        total.messages_due == counted == scenario.pacing().offered(Plan.divide(scenario, "ws://x", 1)[0].share, 6 * NS)
    )
    assert total.messages_received + total.messages_unsent == total.messages_due
    assert total.connections_closed == 40
    for host in outcome.hosts[1:]:
        assert host.clock_begin is not None
        assert host.start_skew_s == pytest.approx(0, abs=0.25)


def test_a_rule_over_both_generators_ends_the_load_and_the_run_is_finished() -> None:
    """Each has 100 messages a second, both 200: the rule is about both."""
    rules = ("connect_error_ratio > 20%", "received_per_s > 150/s for 3s after 2s")
    scenario = Scenario(
        clients=40, interval_ms=200, ramp_up_s=1, duration_s=60, rate_per_s=100, reply_timeout_s=0.5, drain_s=1,
        abort_on=rules,
    )  # fmt: skip

    async def work(url: str, generators: list[AgentProcess]) -> None:
        places = [
            JobHost(agent.name, "load_generator", "local", agent.socket, plan)
            for agent, plan in zip(generators, Plan.divide(scenario, url, 2), strict=True)
        ]
        events: list[Event] = []
        outcome = await conduct(Job("r-rule", 1, scenario, places), events.append, Control())
        assert (outcome.state, outcome.reason) == ("finished", None)
        assert outcome.aborted is not None
        assert (outcome.aborted.expr, outcome.aborted.second, outcome.aborted.value) == (rules[1], 5, 200)
        said = "abort_on received_per_s > 150/s for 3s after 2s: it was so at second 5"
        assert [event.level for event in events if isinstance(event, Said) and event.text == said] == ["warning"]
        assert [event.stage for event in events if isinstance(event, Staged)][-1] == "collecting"
        counted = [event.second.second for event in events if isinstance(event, Counted)]
        assert counted == list(range(1, len(counted) + 1))
        assert 5 <= len(counted) <= 10
        runs = [host.run for host in outcome.hosts if host.run is not None]
        assert [(host.result.state, host.result.reason) for host in runs] == [("stopped", said)] * 2
        summary = summarise(scenario, runs)
        assert summary is not None
        total = summary.total.counters
        assert broken_identities(total) == []
        # Drained: nothing was cut off.
        assert (total.messages_in_flight, total.messages_lost, total.connections_closed) == (0, 0, 40)
        # A conductor that comes later finds the same second in the same lines, and a run that is finished.
        again: list[Event] = []
        job = Job("r-rule", 2, scenario, places, "running", outcome.start_at_ns, from_second=len(counted) + 1)
        later = await conduct(job, again.append, Control())
        assert (later.state, later.aborted) == ("finished", outcome.aborted)
        assert not any(isinstance(event, Counted) for event in again)
        assert await acknowledge(job, 5) == []

    with (
        serving("--workers", "1") as running,
        agents("load-1", "load-2", options=("--cores", "1")) as generators,
    ):
        run(work(running.url(), generators))
