"""A stand-in for `portal.conductor.conduct`, for what the portal does around it; the real one has its own tests."""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

import portal.conductor
from portal.conductor.job import (
    ClockReading,
    Control,
    Counted,
    Event,
    HostOutcome,
    Job,
    Outcome,
    Said,
    Seen,
    Staged,
)
from portal.conductor.transport import Transport
from tests.portal.factories import NOW, STABLE, VOLATILE, host_run
from wsnode.core.merge import merge
from wsnode.core.protocol import Live
from wsnode.core.summary import HostRun

ENVIRONMENT = {"stable": {**STABLE, "boot_id": "one"}, "volatile": VOLATILE}
SERVER_FACTS = {"stable": {**ENVIRONMENT["stable"], "server.engine": "websockets"}, "volatile": VOLATILE}
START_NS = int(NOW.timestamp() * 1e9)
Script = Callable[[Job, Callable[[Event], None], Control], Awaitable[Outcome]]


class StandIn:
    """Plays `script`; notes each job it was given and each acknowledgement."""

    def __init__(self) -> None:
        self.script: Script = whole
        self.jobs: list[Job] = []
        self.acknowledged: list[Job] = []
        self.begun = threading.Event()
        self.left = threading.Event()

    async def conduct(
        self, job: Job, emit: Callable[[Event], None], control: Control, transports: Mapping[str, Transport]
    ) -> Outcome:
        assert set(transports) == {"local", "ssh"}
        self.jobs.append(job)
        self.begun.set()
        try:
            return await self.script(job, emit, control)
        finally:
            self.left.set()

    async def acknowledge(self, job: Job, timeout_s: float, transports: Mapping[str, Transport]) -> list[str]:
        self.acknowledged.append(job)
        return []


@pytest.fixture
def conductor(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """In place of the real conductor."""
    stand_in = StandIn()
    module = types.ModuleType("portal.conductor.conduct")
    module.conduct = stand_in.conduct  # type: ignore[attr-defined]
    module.acknowledge = stand_in.acknowledge  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "portal.conductor.conduct", module)
    monkeypatch.setattr(portal.conductor, "conduct", module, raising=False)
    return stand_in


def runs_of(job: Job) -> list[HostRun]:
    """What the job's load generators would count."""
    return [host_run(host.name, host.plan, run_id=job.run_id) for host in job.hosts if host.plan is not None]


def outcome(job: Job, state: str = "finished", reason: str | None = None, runs: Sequence[HostRun] = ()) -> Outcome:
    """An outcome with these hosts' words."""
    clock = ClockReading(0.0001, 0.00005)
    said = {run.name: run for run in runs}
    hosts = [
        HostOutcome(
            name=host.name,
            role=host.role,
            clock_begin=clock,
            clock_end=clock,
            start_skew_s=0.0008 if host.plan else None,
            environment_begin=ENVIRONMENT if host.plan else SERVER_FACTS,
            environment_end=ENVIRONMENT if host.plan else SERVER_FACTS,
            run=said.get(host.name),
        )
        for host in job.hosts
    ]
    return Outcome(state=state, reason=reason, hosts=hosts, start_at_ns=START_NS)  # type: ignore[arg-type]


async def whole(job: Job, emit: Callable[[Event], None], control: Control) -> Outcome:
    """A run without trouble, as fast as it goes; goes on where the job says."""
    runs = runs_of(job)
    emit(Staged("preparing"))
    emit(Said("all hosts are ready"))
    emit(Staged("running", START_NS))
    for second in range(job.from_second, job.scenario.duration_s + 1):
        emit(Counted(merge([run.series[second - 1] for run in runs])))
        emit(Seen(live(second)))
        await asyncio.sleep(0)
    emit(Staged("collecting"))
    return outcome(job, runs=runs)


def live(second: int) -> Live:
    """A live line."""
    recent = {"p50_ns": 2_000_000, "p95_ns": 3_000_000, "p99_ns": None}
    return Live(second=second, connections_open=100, sent=7, received=6, outstanding=1, errors=0, recent=recent)


async def until(control_event: threading.Event, timeout_s: float = 20) -> bool:
    """Wait in the conductor's loop for an event of the task's thread."""
    return await asyncio.get_running_loop().run_in_executor(None, control_event.wait, timeout_s)
