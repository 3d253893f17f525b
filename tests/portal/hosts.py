"""A lab of agents in the test's own loop, reached over a transport that a test can cut; their loads are scripts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from portal.conductor import channel, conduct, follow, host, ready
from portal.conductor.job import Control, Counted, Event, Job, JobHost, Outcome, Said, Seen, Staged, Waiting
from portal.conductor.transport import LineTooLong, Pipe, Unreachable
from tests.wsnode.agents import Local, ScriptedLoad, eventually, short_folder
from wsnode.core.protocol import MAX_LINE_BYTES
from wsnode.core.scenario import Plan, Scenario

E = TypeVar("E", Counted, Said, Seen, Staged, Waiting)

FIELDS: dict[str, Any] = {
    "name": "scripted",
    "clients": 30,
    "interval_ms": 100,
    "ramp_up_s": 1,
    "duration_s": 8,
    "rate_per_s": 100,
    "reply_timeout_s": 1,
    "drain_s": 1,
}


class WirePipe:
    """A pipe over a socket of this process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.silent = asyncio.Event()
        """Set: nothing comes through any more, in either direction, and nothing tells so."""
        self.garbage: bytes | None = None
        """Comes instead of the next line."""

    async def read_line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise LineTooLong(str(error)) from error
        if self.silent.is_set():
            await asyncio.Event().wait()
        if self.garbage is not None:
            line, self.garbage = self.garbage, None
        return line

    async def write(self, data: bytes) -> None:
        if not self.silent.is_set():
            self._writer.write(data)
            await self._writer.drain()

    async def close(self) -> str:
        self.cut()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        return ""

    def cut(self) -> None:
        """As when a cable is pulled and both ends notice."""
        self._writer.close()


class Wire:
    """A transport to agents in this process."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        """Hosts to which no new pipe can be opened."""
        self.pipes: dict[str, list[WirePipe]] = {}

    async def open(self, place: JobHost) -> Pipe:
        if place.name in self.down:
            raise Unreachable("no route to host")
        try:
            pipe = WirePipe(*await asyncio.open_unix_connection(place.socket, limit=MAX_LINE_BYTES))
        except OSError as error:
            raise Unreachable(str(error)) from error
        self.pipes.setdefault(place.name, []).append(pipe)
        return pipe

    def pipe(self, name: str) -> WirePipe:
        """The newest pipe to a host."""
        return self.pipes[name][-1]

    def cut(self, name: str, *, for_good: bool = False) -> None:
        if for_good:
            self.down.add(name)
        for pipe in self.pipes.get(name, []):
            pipe.cut()


class Conducted:
    """A conductor at work: its events as they came, and how it ended."""

    def __init__(self, job: Job, wire: Wire) -> None:
        self.job = job
        self.control = Control()
        self.events: list[Event] = []
        self.task = asyncio.create_task(conduct.conduct(job, self.events.append, self.control, {"local": wire}))

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def seconds(self) -> list[int]:
        """The merged seconds, in the order in which they came."""
        return [event.second.second for event in self.of(Counted)]

    @property
    def stages(self) -> list[str]:
        return [event.stage for event in self.of(Staged)]

    @property
    def said(self) -> str:
        return "\n".join(event.text for event in self.of(Said))

    async def reaches(self, stage: str) -> None:
        await eventually(lambda: stage in self.stages or self.task.done())
        assert stage in self.stages, (self.task.result(), self.said)

    async def counts(self, second: int) -> None:
        await eventually(lambda: second in self.seconds or self.task.done())
        assert second in self.seconds, (self.task.result(), self.said)

    async def outcome(self) -> Outcome:
        return await self.task


class Lab:
    """A server and load generators, and a run for them."""

    def __init__(self, folder: Path, generators: int, **options: Any) -> None:
        self.wire = Wire()
        self.agents = {"server": Local(folder, "server", role="server")}
        self.names = [f"load-{number}" for number in range(1, generators + 1)]
        self.agents |= {name: Local(folder, name, **options) for name in self.names}
        self.conductors: list[Conducted] = []

    def job(self, epoch: int = 1, **fields: Any) -> Job:
        """Fields of Job, or of the scenario."""
        of_job = {
            name: fields.pop(name)
            for name in ("stage", "start_at_ns", "from_second", "run_id", "hook")
            if name in fields
        }
        port = fields.pop("port", None)
        scenario = Scenario(**{**FIELDS, **fields})
        plans = Plan.divide(scenario, f"ws://127.0.0.1:{port or 9}/echo", len(self.names))
        places = [JobHost("server", "server", "local", self.agents["server"].socket, None, port=port)]
        places += [
            JobHost(name, "load_generator", "local", self.agents[name].socket, plan, port=port)
            for name, plan in zip(self.names, plans, strict=True)
        ]
        return Job(**{"run_id": "r-abc", "epoch": epoch, "scenario": scenario, "hosts": places, **of_job})

    def conduct(self, job: Job | None = None) -> Conducted:
        conducted = Conducted(job or self.job(), self.wire)
        self.conductors.append(conducted)
        return conducted

    async def states(self) -> dict[str, str | None]:
        """What each load generator's agent says of the run; None: it does not know it."""
        states = {}
        for name in self.names:
            talk = await self.agents[name].talk()
            rows = (await talk.ask("list"))["loads"]
            states[name] = next((row["state"] for row in rows if row["run_id"] == "r-abc"), None)
        return states


@contextlib.asynccontextmanager
async def lab(generators: int = 3, **options: Any) -> AsyncIterator[Lab]:
    with short_folder() as folder:
        made = Lab(folder, generators, **options)
        for agent in made.agents.values():
            await agent.start()
        try:
            yield made
        finally:
            for conducted in made.conductors:
                conducted.task.cancel()
                await asyncio.wait({conducted.task})
            for agent in made.agents.values():
                await agent.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conductor's patience, shortened in proportion."""
    monkeypatch.setattr(conduct, "START_AHEAD_S", 0.2)
    monkeypatch.setattr(conduct, "POLL_S", 0.02)
    monkeypatch.setattr(conduct, "WIND_UP_PATIENCE_S", 0.2)
    monkeypatch.setattr(conduct, "PATIENCE_S", 1.0)
    monkeypatch.setattr(conduct, "FIRST_PATIENCE_S", 0.2)
    monkeypatch.setattr(host, "PATIENCE_S", 1.0)
    monkeypatch.setattr(host, "BACKOFF_S", (0.02, 0.05, 0.1))
    monkeypatch.setattr(channel, "PULSE_S", 0.1)
    monkeypatch.setattr(ready, "LOOK_S", 0.05)
    monkeypatch.setattr(follow, "LOOK_S", 0.02)


def paced(loads: type[ScriptedLoad], pace_s: float = 0.02) -> None:
    """Let the seconds of all loads come by themselves."""
    loads.pace_s = pace_s


async def tick_all(loads: type[ScriptedLoad], times: int = 1) -> None:
    """The next seconds on every host."""
    for _ in range(times):
        for load in loads.made:
            load.tick()
        await asyncio.sleep(0)
