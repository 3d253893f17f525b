"""A run from the first look to the result, and how it is refused before anything starts."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import Any

import pytest

from portal.conductor.conduct import acknowledge
from portal.conductor.job import Said, Seen, Staged, Waiting
from tests.portal.hosts import lab, paced, quick
from tests.wsnode.agents import ScriptedLoad, eventually, run, scripted, second
from wsnode.agent.config import Config
from wsnode.core.merge import merge
from wsnode.core.protocol import PROTOCOL
from wsnode.core.summary import summarise

__all__ = ["quick", "scripted"]

Loads = type[ScriptedLoad]
pytestmark = pytest.mark.usefixtures("quick")


def test_a_run_is_prepared_started_followed_and_collected(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted, 0.03)
        async with lab(3) as hosts:
            job = hosts.job()
            conducted = hosts.conduct(job)
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == ("finished", None)
            assert conducted.stages == ["preparing", "running", "collecting"]
            assert conducted.seconds == list(range(1, 9))
            for event in conducted.events:
                if isinstance(event, Staged):
                    assert (event.start_at_ns is not None) == (event.stage == "running")
            for number, line in enumerate((e.second for e in conducted.events if hasattr(e, "second")), 1):
                assert line.counters == merge([second(number, 10)] * 3).counters
                assert line.histograms == merge([second(number, 10)] * 3).histograms
            seen = conducted.of(Seen)
            assert seen[-1].live.connections_open == 30
            assert seen[-1].live.recent == {"p50_ns": 10_000, "p95_ns": None, "p99_ns": None}
            assert [host.name for host in outcome.hosts] == ["server", "load-1", "load-2", "load-3"]
            server, *generators = outcome.hosts
            assert (server.run, server.start_skew_s, server.lost) == (None, None, None)
            for host in outcome.hosts:
                assert host.clock_begin is not None
                assert host.clock_end is not None
                assert abs(host.clock_begin.offset_s) <= host.clock_begin.bound_s < 0.1
                assert host.environment_begin["stable"] == host.environment_end["stable"]
            for host in generators:
                assert host.run is not None
                assert host.run.result.state == "finished"
                assert [line.second for line in host.run.series] == list(range(1, 9))
                # The script begins its first connect 1 ms after it is due.
                assert host.start_skew_s == pytest.approx(0.001, abs=0.0005)
            summary = summarise(job.scenario, [host.run for host in generators if host.run])
            assert summary is not None
            assert summary.total.counters.messages_due == 3 * 10 * 10 * 8
            assert await hosts.states() == dict.fromkeys(hosts.names, "finished")
            assert await acknowledge(job, 2, {"local": hosts.wire}) == []
            assert await hosts.states() == dict.fromkeys(hosts.names)
            assert await acknowledge(job, 2, {"local": hosts.wire}) == []

    run(work())


def test_every_host_is_started_at_one_moment(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(3) as hosts:
            outcome = await hosts.conduct().outcome()
            origins = [load.origin_ns for load in scripted.made]
            assert len(origins) == 3
            assert None not in origins
            # One machine, one clock: what is left between them is the error of three offset measurements.
            assert max(origins) - min(origins) < 5_000_000  # type: ignore[type-var, operator]
            assert outcome.start_at_ns is not None

    run(work())


def test_a_host_without_clients_is_only_observed(scripted: Loads) -> None:
    async def work() -> None:
        paced(scripted)
        async with lab(3) as hosts:
            job = hosts.job(clients=2)
            assert [place.plan.count for place in job.hosts if place.plan] == [1, 1, 0]
            outcome = await hosts.conduct(job).outcome()
            assert outcome.state == "finished"
            assert len(scripted.made) == 2
            assert [host.run is not None for host in outcome.hosts] == [False, True, True, False]
            assert outcome.hosts[3].environment_end["stable"]["agent_name"] == "load-3"

    run(work())


def test_a_host_that_cannot_be_reached_fails_the_run_before_anything_starts(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            hosts.wire.down.add("load-2")
            conducted = hosts.conduct()
            outcome = await conducted.outcome()
            assert (outcome.state, outcome.reason) == ("failed", "load-2 cannot be reached: no route to host")
            assert scripted.made == []
            assert conducted.stages == []
            assert [host.lost for host in outcome.hosts] == [None, None, None]

    run(work())


def test_every_unfit_host_is_named_with_its_findings(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3, config=Config(max_clients=5)) as hosts:
            outcome = await hosts.conduct().outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            for name in hosts.names:
                assert f"{name}: unfit: caps: 10 clients are asked of this host, its agent allows 5" in outcome.reason
            assert scripted.made == []

    run(work())


def test_a_host_that_is_busy_beyond_the_time_to_settle_fails_the_run_and_is_left_alone(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            await hosts.agents["load-1"].running("r-other")
            conducted = hosts.conduct(hosts.job(settle_s=1))
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            busy = r"load-1 is busy with run r-other, running there, \d s so far"
            assert re.fullmatch(
                rf"not settled within 1 s \(settle_s\), {busy}: end what holds them, or wait longer",
                outcome.reason or "",
            )
            waits = conducted.of(Waiting)[0].reason
            assert re.fullmatch(f"waits for the hosts to settle, 0 of 1 s: {busy}", waits)
            assert len(scripted.made) == 1
            assert not scripted.made[0]._over.is_set()

    run(work())


def test_a_run_waits_for_the_load_of_another_run_to_end_by_itself(scripted: Loads) -> None:
    """As after a run that was lost: its host is back, its load goes on until nobody has followed it for a while."""

    async def work() -> None:
        async with lab(2, deadman_s=2) as hosts:
            await hosts.agents["load-1"].running("r-other")
            conducted = hosts.conduct(hosts.job(settle_s=30))
            await eventually(lambda: len(conducted.of(Waiting)) >= 2 or conducted.task.done())
            assert len(scripted.made) == 1
            await conducted.reaches("preparing")
            assert scripted.made[0]._over.is_set()
            await conducted.reaches("running")
            assert len(scripted.made) == 3
            conducted.control.cancel.set()
            assert (await conducted.outcome()).state == "cancelled"
            assert any(event.text.startswith("settled after ") for event in conducted.of(Said))

    run(work())


def test_one_host_that_cannot_prepare_releases_all_others(scripted: Loads) -> None:
    async def work() -> None:
        async with lab(3) as hosts:

            class Refusing(scripted):  # type: ignore[misc, valid-type]
                async def prepare(self, timeout_s: float = 30) -> int:
                    if self.plan.begin == 10:
                        self.refuses = "worker 0 could not start: exit code 1"
                    return await super().prepare(timeout_s)

            import wsnode.agent.keeper

            wsnode.agent.keeper.Load = Refusing  # undone by the fixture
            conducted = hosts.conduct()
            outcome = await conducted.outcome()
            assert outcome.state == "failed"
            assert outcome.reason == "load-2: could not prepare: worker 0 could not start: exit code 1"
            assert all(load.killed and load.origin_ns is None for load in Refusing.made)
            assert await hosts.states() == dict.fromkeys(hosts.names)
            assert conducted.stages == ["preparing"]
            assert "no load of this run is left on load-1, load-2, load-3" in conducted.said

    run(work())


def _wrong_name(hosts: Any) -> Any:
    job = hosts.job()
    return dataclasses.replace(job, hosts=[dataclasses.replace(job.hosts[1], name="load-9"), job.hosts[2]])


def _twice(hosts: Any) -> Any:
    hosts.agents["load-2"].name = "load-1"
    job = hosts.job()
    first = job.hosts[1]
    return dataclasses.replace(job, hosts=[first, dataclasses.replace(first)])


def _server_as_generator(hosts: Any) -> Any:
    job = hosts.job()
    wrong = dataclasses.replace(job.hosts[0], role="load_generator", plan=job.hosts[1].plan)
    return dataclasses.replace(job, hosts=[wrong])


def _unknown_transport(hosts: Any) -> Any:
    job = hosts.job()
    return dataclasses.replace(job, hosts=[dataclasses.replace(job.hosts[1], transport="pigeon")])


def _nobody(hosts: Any) -> Any:
    return dataclasses.replace(hosts.job(), hosts=hosts.job().hosts[:1])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_wrong_name, "load-9: the agent there calls itself 'load-1': correct lab.json, or its --name"),
        (_twice, "load-1 and load-1 are one and the same agent: correct lab.json"),
        (_server_as_generator, "server: its agent only observes: start it with --role load_generator"),
        (_unknown_transport, "load-1: there is no transport 'pigeon'; known: local"),
        (_nobody, "no load generator has any clients"),
    ],
)
def test_a_lab_that_is_not_as_described_fails_the_run(scripted: Loads, make: Any, reason: str) -> None:
    async def work() -> None:
        async with lab(2) as hosts:
            outcome = await hosts.conduct(make(hosts)).outcome()
            assert (outcome.state, outcome.reason) == ("failed", reason)
            assert scripted.made == []

    run(work())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            b'{"type":"hello","protocol":999,"wsnode":"9.9.9","new":"field"}\n',
            f"load-1: its agent speaks protocol 999 (wsnode 9.9.9), this portal protocol {PROTOCOL}: install the same",
        ),
        (b"SSH-2.0-OpenSSH_9.2\n", "load-1: it is no agent: its first line is b'SSH-2.0"),
        (b'{"type":"answer","id":1}\n', "load-1: it is no agent: its first line is a answer"),
        (b"", "load-1 cannot be reached: the channel ended before the agent spoke"),
        (b"x" * (3 << 20), "load-1: it is no agent: its first line is"),
    ],
)
def test_who_does_not_speak_the_protocol_is_told_apart(scripted: Loads, line: bytes, words: str) -> None:
    async def work() -> None:
        async with lab(1) as hosts:

            async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(line)
                writer.close()

            path = f"{hosts.agents['load-1'].socket}.strange"
            async with await asyncio.start_unix_server(stranger, path):
                job = hosts.job()
                strange = [job.hosts[0], dataclasses.replace(job.hosts[1], socket=path)]
                outcome = await hosts.conduct(dataclasses.replace(job, hosts=strange)).outcome()
            assert outcome.state == "failed"
            assert outcome.reason is not None
            assert outcome.reason.startswith(words)

    run(work())


def test_warnings_of_the_preflight_are_said_and_do_not_stop_the_run(
    scripted: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsnode.environment.clocksource", lambda: "hpet")

    async def work() -> None:
        paced(scripted)
        async with lab(1) as hosts:
            conducted = hosts.conduct()
            assert (await conducted.outcome()).state == "finished"
            warnings = [event.text for event in conducted.of(Said) if event.level == "warning"]
            assert [text.partition(": hpet")[0] for text in sorted(warnings)] == [
                "load-1: clock source",
                "server: clock source",
            ]

    run(work())
