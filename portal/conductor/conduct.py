"""Carrying out a run: from the first look at the hosts to what each of them has measured.

    preflight → preparing → running → collecting

`conduct` never raises for what hosts or networks do: that is in the Outcome. Whatever happens, every host that may have
a load of this run is asked to end it, and either says that it has, or is named as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, TypeVar

from portal.conductor.answers import LoadRow
from portal.conductor.channel import BadAgent, Refused
from portal.conductor.clock import FEWER, NS, ConductorClock
from portal.conductor.follow import CutShort, Following
from portal.conductor.host import FIRST_PATIENCE_S, PATIENCE_S, Host, Lost, Superseded
from portal.conductor.job import Control, Event, Job, Outcome, Said, Staged, Waiting
from portal.conductor.ready import Settling, Unsettled, busy, remaining
from portal.conductor.transport import TRANSPORTS, Transport
from wsnode.core import protocol

T = TypeVar("T")
log = logging.getLogger("portal.conductor")

POLL_S = 0.1
START_AHEAD_S = 1.5
"""From choosing the origin to the origin: time for every host's `go`."""
LATEST_JOIN_S = 0.2
"""A host whose `go` a dead conductor has not sent may still join the others until this long before the origin."""
OVERTIME_S = 60.0
"""How long after the planned end, drain included, the loads may take to end."""
LAST_LINES_S = 5.0
WIND_UP_PATIENCE_S = 3.0
LEFT = "left to another conductor"


class Failed(Exception):
    """The run cannot be carried out. The message names the hosts."""


class Cancelled(Exception):
    """Somebody asked for the end of the run."""


class Abandoned(Exception):
    """Another conductor has the run."""


async def conduct(
    job: Job, emit: Callable[[Event], None], control: Control, transports: Mapping[str, Transport] = TRANSPORTS
) -> Outcome:
    """Carry a run out, or go on with one whose conductor died.

    Events are emitted from this loop's thread: `Staged` on entering each stage after `job.stage` (`running` once every
    host has confirmed its start), `Counted` for each merged second from `job.from_second` on, in order and once, `Seen`
    once a second.
    """
    run = Run(job, emit, transports)
    try:
        return await run.under(control)
    finally:
        await run.leave()


async def acknowledge(job: Job, timeout_s: float, transports: Mapping[str, Transport] = TRANSPORTS) -> list[str]:
    """Tell the load generators that the run is stored, as far as they can be reached. Returns what went wrong."""
    run = Run(job, lambda event: None, transports)

    async def acknowledged(host: Host) -> str | None:
        try:
            async with asyncio.timeout(timeout_s):
                await host.ask(protocol.Ack, patience_s=timeout_s)
        except (TimeoutError, Lost, BadAgent, Refused, Superseded) as error:
            return f"{host.name} could not be told that the run is stored: {str(error) or 'no answer'}"
        return None

    try:
        return [line for line in await asyncio.gather(*map(acknowledged, run.generators)) if line]
    finally:
        await run.leave()


class Run:
    """One run in a conductor's hands."""

    def __init__(self, job: Job, emit: Callable[[Event], None], transports: Mapping[str, Transport]) -> None:
        self._job = job
        self._emit = emit
        self._clock = ConductorClock()
        news = asyncio.Event()
        self.hosts = [Host(job, place, transports, self._clock, self._say, news) for place in job.hosts]
        self.generators = [host for host in self.hosts if host.loads]
        """Hosts that have clients; the others are only observed."""
        self._observed = [host for host in self.hosts if not host.loads]
        self._following = Following(job, self.generators, emit, news)
        self._start_at_ns = job.start_at_ns

    async def under(self, control: Control) -> Outcome:
        """The whole run, unless somebody cancels or abandons it."""
        try:
            try:
                return await _attended(self._carry_out(), control, cancellable=True)
            except Cancelled:
                end = self._wind_up("cancelled", "cancelled by request")
            except (Failed, CutShort) as error:
                end = self._wind_up("failed", str(error))
            except (Abandoned, Superseded):
                raise
            except Exception as error:
                log.exception("run %s", self._job.run_id)
                end = self._wind_up("failed", f"the conductor failed: {error!r}")
            return await _attended(end, control)
        except (Abandoned, Superseded):
            return Outcome("lost", LEFT, (), self._start_at_ns)
        except Exception as error:
            log.exception("run %s", self._job.run_id)
            for host in self.generators:
                if host.touched and host.ended is None:
                    host.lost = host.lost or "the conductor failed before it could ask"
            return self._outcome("failed", f"the conductor failed while it ended the run: {error!r}")

    async def leave(self) -> None:
        """Close all channels. Loads go on."""
        await self._following.end()
        await asyncio.gather(*(host.leave() for host in self.hosts))

    # --- the stages ---

    async def _carry_out(self) -> Outcome:
        if not self.generators:
            raise Failed("no load generator has any clients")
        if self._job.stage == "preflight":
            await self._preflight()
            self._stage("preparing")
            await self._prepare(self.generators)
            await self._go()
        else:
            await self._take_over()
        await self._follow()
        self._stage("collecting")
        return await self._collect()

    async def _preflight(self) -> None:
        """Look at every host; nothing is started before all are fit."""

        async def look(host: Host) -> None:
            await host.reach(FIRST_PATIENCE_S)
            host.clock_begin = await host.read_clock(FIRST_PATIENCE_S)
            if host.loads:
                rows = await host.loads_known(FIRST_PATIENCE_S)
                active = [row for row in rows if row.state in ("prepared", "running")]
                # Its conductor died before its row said so much: preparing again changes nothing there.
                host.touched = any(row.run_id == self._job.run_id for row in active)
                host.busy_with = next((row for row in active if row.run_id != self._job.run_id), None)
                if host.busy_with is not None:
                    return  # what it is fit for shows when that load is over
            examined = await host.examine(FIRST_PATIENCE_S)
            host.environment_begin = examined.environment
            for finding in examined.findings:
                if finding.level == "warn":
                    self._say(f"{host.name}: {finding.check}: {finding.message}", "warning")
            if not examined.fit:
                unfit = [f"{f.check}: {f.message}" for f in examined.findings if f.level == "unfit"]
                raise Failed("unfit: " + "; ".join(unfit))

        await self._on_all(self.hosts, look)
        self._check_distinct()
        settling = Settling(self._job.scenario.settle_s, lambda words: self._emit(Waiting(words)), self._on_all)
        try:
            # First of all: a load that goes on without its conductor, until its deadman, must not lose its server.
            await settling.until_none(self.hosts, busy, look)
            await self._make_ready(settling)
        except Unsettled as error:
            raise Failed(str(error)) from error
        # What is only observed is looked at again at the end.
        await asyncio.gather(*(host.leave() for host in self._observed))

    async def _make_ready(self, settling: Settling) -> None:
        """Every host is fit: bring them into the state from which this run is to begin."""
        hook = self._job.hook

        async def ask(host: Host) -> None:
            assert hook is not None
            done = await host.hook(hook)
            told = f"{host.name}: {hook} is done, in {done.took_s:.1f} s"
            if done.server_after is not None and done.server_after != done.server_before:
                told += f"; another start of the server answers (start id {done.server_after})"
            self._say(f"{told}: {done.words}" if done.words else told, "info")

        async def look_again(host: Host) -> None:
            host.clock_begin = await host.read_clock(FIRST_PATIENCE_S)
            host.environment_begin = (await host.examine(FIRST_PATIENCE_S)).environment

        if hook is not None:
            servers = [host for host in self.hosts if host.place.role == "server"]
            if not servers:
                raise Failed(f"nobody to ask for {hook}: no server's host takes part")
            self._emit(Waiting(f"waits for {_names(servers)}: {hook}"))
            await self._on_all(servers, ask, "before the run: ")
            await self._on_all(self.hosts, look_again)
        port = next((host.place.port for host in self.hosts if host.place.port is not None), None)

        async def examine(host: Host) -> None:
            await host.examine(FIRST_PATIENCE_S)

        await settling.until_none(self.hosts, lambda host: remaining(host, port), examine)
        if settling.waited_s:
            self._say(f"settled after {settling.waited_s:.1f} s", "info")
            await self._on_all(self.hosts, look_again)

    async def _prepare(self, hosts: Sequence[Host]) -> None:
        async def prepare(host: Host) -> None:
            prepared = await host.prepare()
            self._say(f"{host.name}: prepared, workers: {prepared.workers}", "info")

        await self._on_all(hosts, prepare, "could not prepare: ")

    async def _go(self) -> None:
        """Every host is ready: start them together."""
        bounds = [host.clock_begin.bound_s for host in self.generators if host.clock_begin is not None]
        await self._go_at(self._clock.now_ns() + round((START_AHEAD_S + 6 * max(bounds)) * NS), self.generators)
        self._stage("running")

    async def _go_at(self, start_at_ns: int, hosts: Sequence[Host]) -> None:
        self._start_at_ns = start_at_ns
        for host in self.generators:
            host.origin_ns = start_at_ns
        await self._on_all(hosts, lambda host: host.go(start_at_ns), "could not start: ")

    async def _take_over(self) -> None:
        """Go on from what the hosts say, since whoever had the run before can say nothing any more."""
        for host in self.generators:
            host.touched = True
        rows: dict[Host, LoadRow] = {}

        async def meet(host: Host) -> None:
            host.clock_begin = await host.read_clock(PATIENCE_S)
            if host.loads:
                for row in await host.loads_known(PATIENCE_S):
                    if row.run_id == self._job.run_id:
                        rows[host] = row

        async def observe(host: Host) -> None:
            await meet(host)
            host.environment_begin = (await host.examine(PATIENCE_S)).environment
            await host.leave()

        await self._on_all(self.generators, meet)
        await self._on_observed(observe)
        self._check_distinct()
        if self._observed:
            names = ", ".join(host.name for host in self._observed)
            self._say(f"taken over: the environment of {names} at begin is that of now", "info")
        starts = {host: row.start_at for host, row in rows.items() if row.start_at is not None}
        begun = [host for host in self.generators if host in starts]
        waiting = [host for host in self.generators if host not in starts]
        unknown = [host for host in waiting if host not in rows]
        if unknown and (begun or self._job.stage != "preparing"):
            for host in unknown:
                host.lost = "its agent does not know the run any more"
            raise Failed(f"{_names(unknown)}: the agent there does not know the run any more")
        if not begun:
            self._say(f"taken over: preparing {_names(waiting)} again", "info")
            await self._prepare(waiting)
            await self._go()
            return
        self._say(f"taken over: the load goes on on {_names(begun)}", "info")
        self._adopt_origin(begun, starts)
        if waiting:
            assert self._start_at_ns is not None
            if self._clock.now_ns() > self._start_at_ns - LATEST_JOIN_S * NS:
                raise Failed(f"{_names(waiting)}: not started together with {_names(begun)} before the conductor died")
            await self._prepare(waiting)
            await self._go_at(self._start_at_ns, waiting)
        if self._job.stage == "preparing":
            self._stage("running")

    def _adopt_origin(self, begun: Sequence[Host], starts: Mapping[Host, int]) -> None:
        if self._start_at_ns is None:
            first = begun[0]
            assert first.clock_begin is not None
            self._start_at_ns = starts[first] - round(first.clock_begin.offset_s * NS)
        for host in self.generators:
            host.origin_ns = self._start_at_ns
            host.start_at_ns = starts.get(host)

    async def _follow(self) -> None:
        scenario, start_at_ns = self._job.scenario, self._start_at_ns
        assert start_at_ns is not None
        until_end_s = (start_at_ns - self._clock.now_ns()) / NS + scenario.duration_s + scenario.drain_s
        self._following.begin(self.generators)
        reading = asyncio.gather(*map(self._read_clock_once_started, self.generators))
        try:
            await self._following.until_finished(max(0.0, until_end_s) + OVERTIME_S)
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _collect(self) -> Outcome:
        """Every load has ended as planned: fetch what each host has to say."""

        async def collect(host: Host) -> None:
            try:
                await host.fetch_result(PATIENCE_S)
            except (Lost, BadAgent, Refused) as error:
                host.lost = f"its result could not be fetched: {error}"
            else:
                await self._read_clock_again(host)

        async def observe(host: Host) -> None:
            host.environment_end = (await host.examine(PATIENCE_S)).environment
            await self._read_clock_again(host)

        await asyncio.gather(*map(collect, self.generators), self._on_observed(observe))
        return self._outcome("finished", None)

    async def _wind_up(self, state: Literal["cancelled", "failed"], reason: str) -> Outcome:
        """The run ends before its time: no host may go on, and each has to say so."""
        self._say(reason, "info" if state == "cancelled" else "error")
        touched = [host for host in self.generators if host.touched]

        async def stop(host: Host) -> None:
            # One that was out of reach for long already is tried once more, and not for long.
            patience_s = PATIENCE_S if host.lost is None else WIND_UP_PATIENCE_S
            try:
                await host.stop(f"the run is {state}: {reason}", patience_s)
            except (Lost, BadAgent, Refused) as error:
                host.lost = host.lost or str(error)
                self._say(f"{host.name}: no word of it: {host.lost}", "warning")
            else:
                host.lost = None
                self._emit(Said(f"{host.name}: its load is over", confirms=host.name))

        await asyncio.gather(*map(stop, touched))
        spoken = [host for host in touched if host.lost is None]
        self._following.begin(spoken)
        await self._following.last_lines(LAST_LINES_S)

        async def fetch(host: Host) -> None:
            try:
                await host.fetch_result(WIND_UP_PATIENCE_S)
            except (Lost, BadAgent, Refused) as error:
                self._say(f"{host.name}: its result could not be fetched: {error}", "warning")

        await asyncio.gather(*(fetch(host) for host in spoken if host.ended is not None))
        if spoken:
            self._say(f"no load of this run is left on {_names(spoken)}", "info")
        return self._outcome(state, reason)

    def _outcome(self, state: Literal["finished", "cancelled", "failed"], reason: str | None) -> Outcome:
        outcomes = [host.outcome() for host in self.hosts]
        lost = [host for host in self.generators if host.lost is not None]
        if not lost:
            return Outcome(state, reason, outcomes, self._start_at_ns, self._following.watch.aborted)
        what = "nobody can say what the load did on " + ", on ".join(f"{host.name} ({host.lost})" for host in lost)
        return Outcome("lost", f"{what}; {reason}" if reason else what, outcomes, self._start_at_ns)

    # --- all at once ---

    async def _on_all(self, hosts: Sequence[Host], work: Callable[[Host], Awaitable[None]], doing: str = "") -> None:
        """Do something on all hosts in parallel. Raises Failed naming every host on which it did not succeed."""
        troubles: list[str] = []
        for host, error in zip(hosts, await asyncio.gather(*map(work, hosts), return_exceptions=True), strict=True):
            match error:
                case None:
                    pass
                case Lost():
                    if host.touched:
                        host.lost = str(error)
                    troubles.append(f"{host.name} cannot be reached: {error}")
                case BadAgent() | Refused() | Failed():
                    troubles.append(f"{host.name}: {doing}{error}")
                case _:
                    raise error
        if troubles:
            raise Failed("; ".join(troubles))

    async def _on_observed(self, work: Callable[[Host], Awaitable[None]]) -> None:
        """The same on hosts that are only observed: without them the load is still what it was."""

        async def tried(host: Host) -> None:
            try:
                await work(host)
            except (Lost, BadAgent, Refused) as error:
                host.lost = f"it could not be looked at: {error}"
                self._say(f"{host.name}: {host.lost}", "warning")
            else:
                host.lost = None

        await asyncio.gather(*map(tried, self._observed))

    async def _read_clock_once_started(self, host: Host) -> None:
        """So that a clock that is set later in the run leaves the start's skew as well known as it was."""
        assert self._start_at_ns is not None
        if (left_s := (self._start_at_ns - self._clock.now_ns()) / NS) > 0:
            await asyncio.sleep(left_s)
            # A way that breaks just now is its follower's business.
            with contextlib.suppress(Lost, BadAgent, Refused, Superseded):
                host.clock_started = await host.read_clock(WIND_UP_PATIENCE_S, FEWER)

    async def _read_clock_again(self, host: Host) -> None:
        try:
            host.clock_end = await host.read_clock(WIND_UP_PATIENCE_S)
        except (Lost, BadAgent, Refused) as error:
            self._say(f"{host.name}: its clock could not be read at the end: {error}", "warning")

    def _check_distinct(self) -> None:
        """Two names for one agent would count its load twice."""
        seen: dict[str, Host] = {}
        for host in self.hosts:
            if host.hello is not None and (other := seen.setdefault(host.hello.agent_start_id, host)) is not host:
                raise Failed(f"{other.name} and {host.name} are one and the same agent: correct lab.json")

    def _stage(self, stage: Literal["preparing", "running", "collecting"]) -> None:
        self._emit(Staged(stage, self._start_at_ns if stage == "running" else None))

    def _say(self, text: str, level: Literal["info", "warning", "error"]) -> None:
        self._emit(Said(text, level))


async def _attended(work: Coroutine[Any, Any, T], control: Control, cancellable: bool = False) -> T:
    """The work's result. Raises Abandoned or Cancelled, the work ended, as soon as somebody asks for it."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_S)
            if control.abandon.is_set():
                raise Abandoned
            if cancellable and control.cancel.is_set() and not task.done():
                raise Cancelled
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _names(hosts: Sequence[Host]) -> str:
    return ", ".join(host.name for host in hosts)
