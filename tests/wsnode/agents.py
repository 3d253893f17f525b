"""Agents for tests: real services as processes, and services in the test's own loop whose load is a script.

A scripted load comes to the same calls as the real one and needs no second to pass: `tick` tells the next second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from wsnode.agent import keeper
from wsnode.agent.config import Config
from wsnode.agent.hooks import Hooks
from wsnode.agent.service import Service, listen
from wsnode.agent.store import Store
from wsnode.core.histogram import Histogram
from wsnode.core.protocol import MAX_LINE_BYTES, Counters, HostSecond, Live, Second
from wsnode.core.scenario import Plan, Scenario
from wsnode.load.load import LoadEnd, LoadError

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
DEADMAN_S = 60.0


def run(work: Coroutine[Any, Any, T]) -> T:
    """A test's coroutine, ended where it hangs."""

    async def limited() -> T:
        async with asyncio.timeout(3 * PATIENCE_S):
            return await work

    return asyncio.run(limited())


async def eventually(wanted: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE_S
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to be so"
        await asyncio.sleep(0.005)


def plan(url: str = "ws://127.0.0.1:9/echo", count: int = 10, begin: int = 0, **fields: Any) -> Plan:
    """A small load's plan."""
    scenario = Scenario(
        **{
            "clients": 10,
            "interval_ms": 100,
            "ramp_up_s": 0.5,
            "duration_s": 5,
            "rate_per_s": 100,
            "reply_timeout_s": 1,
            "drain_s": 1,
            **fields,
        }
    )
    return Plan(scenario=scenario, url=url, begin=begin, end=begin + count)


def second(number: int, scale: int = 1) -> Second:
    """A cumulative second with counts in every place, its accounts in order."""
    n = number * scale
    return Second(
        second=number,
        counters=Counters(
            connections_attempted=n,
            connections_opened=n,
            connections_open=n,
            messages_due=10 * n,
            messages_sent=9 * n,
            messages_unsent=n,
            messages_received=9 * n,
        ),
        unsent={"not_open": n},
        histograms={"response_time": _times(Histogram.of((1000, 2000, 50_000 + 100 * scale)), 3 * n)},
        host=HostSecond(worker_cpu_s=(0.1 * number,)),
    )


def _times(histogram: Histogram, n: int) -> Histogram:
    histogram.buckets = {index: count * n for index, count in histogram.buckets.items()}
    histogram.count *= n
    histogram.sum_ns *= n
    return histogram


class ScriptedLoad:
    """Stands in for `Load`: same calls, no processes; a test tells it what happens."""

    made: list[ScriptedLoad] = []
    ready: asyncio.Event | None = None
    """Where given, `prepare` waits for it."""
    refuses: str | None = None
    pace_s: float | None = None
    """Where given, seconds come by themselves, this far apart, and the load finishes after the last."""

    def __init__(self, plan: Plan, workers: int, *, on_second: Any, on_live: Any, **_: Any) -> None:
        self.plan = plan
        self.on_second = on_second
        self.on_live = on_live
        self.origin_ns: int | None = None
        self.killed = False
        self.seconds = 0
        self._stopped: str | None = None
        self._interrupted: str | None = None
        self._over = asyncio.Event()
        self._killed = asyncio.Event()
        self._pacing: asyncio.Task[None] | None = None
        type(self).made.append(self)

    async def prepare(self, timeout_s: float = 30) -> int:
        if self.ready is not None:
            waits = [asyncio.create_task(event.wait()) for event in (self.ready, self._killed)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if self.killed or self.refuses:
            raise LoadError(self.refuses or "killed while it was being prepared")
        return 2

    def go(self, start_mono_ns: int) -> None:
        self.origin_ns = start_mono_ns
        if self.pace_s is not None:
            self._pacing = asyncio.create_task(self._pace(self.pace_s))

    def tick(self) -> None:
        self.seconds += 1
        self.on_live(
            Live(
                second=self.seconds,
                connections_open=self.plan.count,
                sent=9 * self.seconds,
                received=9 * self.seconds,
                outstanding=0,
                errors=0,
                recent={"p50_ns": 1000 * self.plan.count, "p95_ns": None, "p99_ns": None},
            )
        )
        self.on_second(second(self.seconds, self.plan.count))

    def finish(self) -> None:
        self._over.set()

    def die(self, why: str) -> None:
        self._interrupted = why
        self._over.set()

    async def wait(self) -> LoadEnd:
        await self._over.wait()
        if self._pacing is not None:
            self._pacing.cancel()
        final = None if self._interrupted else second(max(1, self.seconds), self.plan.count)
        first = self.plan.scenario.pacing().connect_due(min(self.plan.share.clients()))
        return LoadEnd(final, self.seconds, self._interrupted, self._stopped, first, first + 1_000_000)

    async def stop(self, drain: bool = True, reason: str = "stopped") -> None:
        self._stopped = self._stopped or reason
        self._over.set()

    async def kill(self) -> None:
        self.killed = True
        self._killed.set()
        if not self._over.is_set():
            self._interrupted = "killed"
            self._over.set()

    async def _pace(self, pace_s: float) -> None:
        while self.seconds < self.plan.scenario.duration_s:
            await asyncio.sleep(pace_s)
            self.tick()
        self.finish()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedLoad]:
    """The class of the loads that agents in this test make; `made` are those made so far."""
    fresh: type[ScriptedLoad] = type("Scripted", (ScriptedLoad,), {"made": []})
    monkeypatch.setattr(keeper, "Load", fresh)
    return fresh


class Talk:
    """A conductor's side of a channel, a line at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.raw: list[bytes] = []
        """Every streamed line as it came."""
        self._number = 0

    @classmethod
    async def open(cls, path: str) -> tuple[Talk, dict[str, Any]]:
        """The channel and the agent's hello."""
        talk = cls(*await asyncio.open_unix_connection(path, limit=4 * MAX_LINE_BYTES))
        return talk, await talk.line()

    async def line(self) -> dict[str, Any]:
        """The next line; an empty one at the channel's end."""
        async with asyncio.timeout(PATIENCE_S):
            line = await self.reader.readline()
        if not line:
            return {}
        value: dict[str, Any] = json.loads(line)
        if value["type"] in ("second", "live", "ended"):
            self.raw.append(line)
        return value

    def send(self, kind: str, **fields: Any) -> int:
        self._number += 1
        for name, value in fields.items():
            if isinstance(value, Plan):
                fields[name] = value.model_dump(mode="json")
        self.writer.write(json.dumps({"type": kind, "id": self._number, **fields}).encode() + b"\n")
        return self._number

    async def reply(self, number: int | None) -> dict[str, Any]:
        """The answer or refusal with this id; streamed lines before it are kept in `raw`."""
        while (line := await self.line()).get("type") not in ("answer", "refusal") or line["id"] != number:
            assert line, "the channel ended before the answer came"
        return line

    async def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """A request's answer."""
        reply = await self.reply(self.send(kind, **fields))
        assert reply["type"] == "answer", reply
        data: dict[str, Any] = reply["data"]
        return data

    async def refused(self, kind: str, **fields: Any) -> tuple[str, str]:
        """Code and message of a request's refusal."""
        reply = await self.reply(self.send(kind, **fields))
        assert reply["type"] == "refusal", reply
        return reply["code"], reply["message"]

    async def until(self, kind: str) -> dict[str, Any]:
        """The next streamed line of a kind."""
        while (line := await self.line())["type"] != kind:
            pass
        return line

    def stored(self) -> bytes:
        """The seconds that have come, byte for byte."""
        return b"".join(line for line in self.raw if line.startswith(b'{"type":"second"'))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Local:
    """An agent's service in the test's own loop."""

    def __init__(self, folder: Path, name: str, data: Path | None = None, **options: Any) -> None:
        self.folder = folder
        self.name = name
        self.socket = str(folder / f"{name}.sock")
        self.data = data or folder / name
        defaults = {"role": "load_generator", "deadman_s": DEADMAN_S, "hooks": Hooks(folder / "hooks")}
        self._options = {**defaults, **options}
        self._config = self._options.pop("config", Config())
        self._stopping = asyncio.Event()
        self._talks: list[Talk] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        service = Service(listen(self.socket), Store(self.data), self._config, name=self.name, **self._options)
        self.service = service
        self._stopping.clear()
        self._task = asyncio.create_task(service.run_until(self._stopping))

    async def stop(self) -> None:
        """As SIGTERM does it."""
        for talk in self._talks:
            await talk.close()
        self._talks.clear()
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None
        Path(self.socket).unlink(missing_ok=True)

    async def talk(self) -> Talk:
        talk, _ = await Talk.open(self.socket)
        self._talks.append(talk)
        return talk

    async def running(self, run_id: str = "r1", epoch: int = 1, a_plan: Plan | None = None) -> Talk:
        """A channel that has prepared and started a load."""
        talk = await self.talk()
        await talk.ask("prepare", run_id=run_id, epoch=epoch, plan=a_plan or plan())
        await talk.ask("go", run_id=run_id, epoch=epoch, start_at=time.time_ns() + 20_000_000)
        return talk


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name: pytest's own may be too long."""
    folder = Path(tempfile.mkdtemp(prefix="wsa-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def local_agent(name: str = "load-1", **options: Any) -> AsyncIterator[Local]:
    with short_folder() as folder:
        agent = Local(folder, name, **options)
        await agent.start()
        try:
            yield agent
        finally:
            await agent.stop()


# --- processes ---


class AgentProcess:
    """A real `wsnode agent service`."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *options: str,
        role: str = "load_generator",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self.socket = str(folder / f"{name}.sock")
        self.data = folder / name
        self.log = folder / f"{name}.log"
        self.name = name
        self._command = [sys.executable, "-m", "wsnode", "agent", "service", "--socket", self.socket]
        self._command += ["--data", str(self.data), "--name", name, "--role", role, *options]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )

    def ready(self) -> AgentProcess:
        """Waits until it answers."""
        deadline = time.monotonic() + PATIENCE_S
        while f"{self.name} answers" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`wsnode agent …` at its socket."""
        return agent_command(*words, "--socket", self.socket)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.log.write_text("")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_S)


def agent_command(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "wsnode", "agent", *words],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@contextlib.contextmanager
def agents(*names: str, options: tuple[str, ...] = (), role: str = "load_generator") -> Iterator[list[AgentProcess]]:
    with short_folder() as folder:
        started = [AgentProcess(folder, name, *options, role=role) for name in names]
        try:
            yield [agent.ready() for agent in started]
        finally:
            for agent in started:
                agent.end()
