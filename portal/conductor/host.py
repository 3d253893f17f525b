"""One host of a run as the conductor knows it: reached, asked, followed, and reached again when the way breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

from portal.conductor.answers import Examined, LoadRow, Loads, Prepared, Started, read
from portal.conductor.channel import BadAgent, Broken, Channel, NoAnswer, Refused, first
from portal.conductor.clock import EXCHANGES, NS, ConductorClock, read_clock
from portal.conductor.job import ClockReading, HostOutcome, Job, JobHost
from portal.conductor.lines import Lines, number_of
from portal.conductor.transport import Transport, Unreachable
from wsnode.core import protocol
from wsnode.core.protocol import HOOK_PATIENCE_S, Ended, Hello, HookDone, HostResult, Live, ProtocolError, Remains
from wsnode.core.summary import HostRun

BACKOFF_S = (0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to reach a host; the last is repeated."""
BREAKS = 5
"""So often may channels break over one request before its host is lost."""
PATIENCE_S = 15.0
"""A host that cannot be reached for this long is lost."""
FIRST_PATIENCE_S = 3.0
"""The same before anything has begun."""
ANSWER_S = 10.0
EXAMINE_S = 20.0
PREPARE_S = 60.0
STOP_S = 30.0
HOOK_S = HOOK_PATIENCE_S + 60.0
"""With the time that a restarted server may take to answer again."""
START_APART_S = 0.05
"""So far from the moment that was asked for, beyond the bound of its clock, may a host say that its load starts."""


T = TypeVar("T")


class Lost(Exception):
    """Nobody can be asked any more. The message says why, without the host's name."""


class Superseded(Exception):
    """A newer conductor has the run."""


class Host:
    """A host that takes part. All its requests are idempotent, so that a broken way is repaired and they are repeated.

    What is asked raises Lost where the host stays out of reach, BadAgent where its agent cannot be spoken with,
    Superseded where a newer conductor has the run, and Refused where its agent says no.
    """

    def __init__(
        self,
        job: Job,
        place: JobHost,
        transports: Mapping[str, Transport],
        clock: ConductorClock,
        say: Callable[[str, Literal["info", "warning", "error"]], None],
        news: asyncio.Event,
    ) -> None:
        self.place = place
        self.touched = False
        """Whether it may have a load of this run: then its word is needed that it has none any more."""
        self.lines = Lines()
        self.live: Live | None = None
        self.ended: Ended | None = None
        """The end of its load, in its own words."""
        self.lost: str | None = None
        self.result: HostResult | None = None
        self.clock_begin: ClockReading | None = None
        self.clock_started: ClockReading | None = None
        self.clock_end: ClockReading | None = None
        self.environment_begin: dict[str, Any] = {}
        self.environment_end: dict[str, Any] = {}
        self.remains: Remains | None = None
        """Of earlier runs, at the last look; None where nobody has looked for it."""
        self.busy_with: LoadRow | None = None
        """Another run's load that was on it at the last look."""
        self.hello: Hello | None = None
        self.start_at_ns: int | None = None
        """Origin in force on the host's own clock (ns since the epoch)."""
        self.origin_ns: int | None = None
        """Origin on the conductor's clock."""
        self._job = job
        self._transports = transports
        self._clock = clock
        self._say = say
        self._news = news
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._heard_at = 0.0
        self._over = asyncio.Event()

    @property
    def name(self) -> str:
        """In the inventory."""
        return self.place.name

    @property
    def loads(self) -> bool:
        """Whether it has clients of this run; others are only observed."""
        return self.place.plan is not None and self.place.plan.count > 0

    # --- the way ---

    async def reach(self, patience_s: float = PATIENCE_S) -> Channel:
        """An open channel: the one there is, or a new one as soon as there is a way."""
        async with self._opening:
            if self._channel is not None:
                if not self._channel.ended.done():
                    return self._channel
                await self.leave()
            loop = asyncio.get_running_loop()
            deadline, attempt = loop.time() + patience_s, 0
            while True:
                try:
                    self._channel = await self._open()
                except (Unreachable, Broken) as error:
                    pause = BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)]
                    attempt += 1
                    if loop.time() + pause > deadline:
                        raise Lost(str(error)) from error
                    await asyncio.sleep(pause)
                else:
                    return self._channel

    async def leave(self) -> None:
        """Close the channel. A load goes on."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def ask(
        self, kind: type[protocol._Request], timeout_s: float = ANSWER_S, patience_s: float = PATIENCE_S, **fields: Any
    ) -> dict[str, Any]:
        """The answer to a request, over as many channels as it takes."""
        if issubclass(kind, protocol._Of):
            fields |= {"run_id": self._job.run_id, "epoch": self._job.epoch}
        return await self._over_channels(lambda channel: channel.ask(kind, timeout_s, **fields), patience_s)

    async def _over_channels(self, work: Callable[[Channel], Awaitable[T]], patience_s: float) -> T:
        """Do something that may be repeated, over as many channels as it takes."""
        for attempt in range(1, BREAKS + 1):
            channel = await self.reach(patience_s)
            try:
                return await work(channel)
            except Refused as refused:
                raise _superseded(refused) from refused
            except NoAnswer as error:
                raise Lost(str(error)) from error
            except Broken as error:
                await self._discard(channel)
                if attempt == BREAKS:
                    raise Lost(f"{error}, {BREAKS} times in a row") from error
        raise AssertionError("unreachable")

    async def _open(self) -> Channel:
        transport = self._transports.get(self.place.transport)
        if transport is None:
            raise BadAgent(f"there is no transport {self.place.transport!r}; known: {', '.join(self._transports)}")
        channel = await Channel.open(transport, self.place)
        hello = channel.hello
        try:
            if hello.name != self.name:
                raise BadAgent(f"the agent there calls itself {hello.name!r}: correct lab.json, or its --name")
            if self.loads and "load" not in hello.capabilities:
                raise BadAgent("its agent only observes: start it with --role load_generator")
            if self.loads and self._job.scenario.behaviour not in hello.behaviours:
                raise BadAgent(
                    f"its agent does not know the behaviour {self._job.scenario.behaviour!r} "
                    f"(wsnode {hello.wsnode}; it knows {', '.join(hello.behaviours)})"
                )
        except BadAgent:
            await channel.close()
            raise
        if self.hello is not None and self.hello.agent_start_id != hello.agent_start_id:
            what = "host" if self.hello.boot_id != hello.boot_id else "agent"
            self._say(f"{self.name}: the {what} has restarted", "warning")
        self.hello = hello
        channel.on_line = self._take
        return channel

    async def _discard(self, channel: Channel) -> None:
        async with self._opening:
            if self._channel is channel:
                await self.leave()

    # --- what is asked ---

    async def read_clock(self, patience_s: float = PATIENCE_S, exchanges: int = EXCHANGES) -> ClockReading:
        """The host's clock against the conductor's."""
        return await self._over_channels(lambda channel: read_clock(channel, self._clock, exchanges), patience_s)

    async def loads_known(self, patience_s: float = PATIENCE_S) -> list[LoadRow]:
        """Every load that its agent knows. Raises Superseded where this run's is in newer hands."""
        loads = read(Loads, await self.ask(protocol.ListLoads, ANSWER_S, patience_s)).loads
        for row in loads:
            if row.run_id == self._job.run_id and row.epoch > self._job.epoch:
                raise Superseded(f"epoch {row.epoch} has run {row.run_id} on {self.name}")
        return loads

    async def examine(self, patience_s: float = PATIENCE_S) -> Examined:
        """Whether it is fit for its part, and what it is like; what is left of earlier runs is kept in `remains`."""
        plan = self.place.plan if self.loads else None
        asked = await self.ask(protocol.Preflight, EXAMINE_S, patience_s, plan=plan, port=self.place.port)
        examined = read(Examined, asked)
        self.remains = examined.remains
        return examined

    async def hook(self, name: str) -> HookDone:
        """Have done what is set up there under this name: once for a run, however often its agent is asked."""
        return read(HookDone, await self.ask(protocol.Hook, HOOK_S, name=name))

    async def prepare(self) -> Prepared:
        """Its workers, ready."""
        self.touched = True
        return read(
            Prepared, await self.ask(protocol.Prepare, PREPARE_S, plan=self.place.plan, secrets=self._job.secrets)
        )

    async def go(self, start_at_ns: int) -> None:
        """Start at a moment of the conductor's clock. Raises BadAgent where its load starts at another one."""
        assert self.clock_begin is not None
        wanted = start_at_ns + round(self.clock_begin.offset_s * NS)
        self.start_at_ns = read(Started, await self.ask(protocol.Go, start_at=wanted)).start_at
        # Not to the nanosecond: a conductor before this one may have asked, who read the clock a little otherwise.
        off_s = (self.start_at_ns - wanted) / NS
        if abs(off_s) > START_APART_S + self.clock_begin.bound_s:
            when = "later" if off_s > 0 else "earlier"
            raise BadAgent(f"its load starts {abs(off_s):,.3f} s {when} than it was asked to")

    async def stop(self, reason: str, patience_s: float = PATIENCE_S, *, drain: bool = False) -> None:
        """End its load now, with `drain` once its replies have come. Returns with its word that it has ended, or that
        there is none and never was."""
        if self.ended is not None or not self.touched:
            return
        try:
            longest_s = STOP_S + (self._job.scenario.drain_s if drain else 0)
            await self.ask(protocol.Stop, longest_s, patience_s, reason=reason[: protocol.LONGEST_REASON], drain=drain)
        except Refused as refused:
            if refused.code != "unknown_run":
                raise
            begun = self.start_at_ns is not None or self._job.stage in ("running", "collecting")
            if begun:
                raise Lost(f"its agent does not know the run any more: {refused}") from refused

    async def follow(self) -> Ended:
        """All lines and the end of its load; the way is repaired as often as it breaks, while that does some good."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        over = asyncio.create_task(self._over.wait())
        try:
            while True:
                channel = await self.reach(max(0.0, self._heard_at + PATIENCE_S - loop.time()))
                try:
                    await channel.ask(
                        protocol.Follow,
                        ANSWER_S,
                        run_id=self._job.run_id,
                        epoch=self._job.epoch,
                        from_second=len(self.lines) + 1,
                    )
                    await first(over, channel.ended)
                    if self.ended is not None:
                        return self.ended
                    channel.ended.result()
                except Refused as refused:
                    if refused.code == "unknown_run":
                        raise Lost(f"its agent does not know the run any more: {refused}") from refused
                    raise _superseded(refused) from refused
                except Broken as error:
                    await self._discard(channel)
                    if loop.time() > self._heard_at + PATIENCE_S:
                        raise Lost(str(error)) from error
                    self._say(f"{self.name}: {error}; going on from second {len(self.lines) + 1}", "warning")
                    await asyncio.sleep(BACKOFF_S[0])
        finally:
            over.cancel()

    async def fetch_result(self, patience_s: float = PATIENCE_S) -> HostResult:
        """The result that waits on the host; kept in `result`."""
        result = read(HostResult, await self.ask(protocol.GetResult, ANSWER_S, patience_s))
        if result.run_id != self._job.run_id:
            raise BadAgent(f"it gave the result of run {result.run_id}")
        self.result = result
        return result

    def outcome(self) -> HostOutcome:
        """What this host has come to, as far as it is known now."""
        result = self.result
        if result is None and self.ended is not None and self.ended.state != "finished":
            # Its load was cut short and its result can't be had: its lines and its last word are what there is.
            result = HostResult(
                run_id=self._job.run_id,
                host=self.name,
                state=self.ended.state,
                reason=self.ended.reason,
                seconds=len(self.lines),
                final=None,
                workers=1,
                start_at_ns=self.start_at_ns or 0,
                first_connect_due_ns=None,
                first_connect_begun_ns=None,
                environment_begin=self.environment_begin,
                environment_end={},
            )
        return HostOutcome(
            name=self.name,
            role=self.place.role,
            clock_begin=self.clock_begin,
            clock_started=self.clock_started,
            clock_end=self.clock_end,
            start_skew_s=self._start_skew_s(result),
            environment_begin=(result and result.environment_begin) or self.environment_begin,
            environment_end=(result and result.environment_end) or self.environment_end,
            run=HostRun(self.name, self.lines, result) if result is not None else None,
            lost=self.lost,
        )

    def _start_skew_s(self, result: HostResult | None) -> float | None:
        """Begin of the first connect minus its own due time, on the conductor's clock; known within `clock_begin`."""
        origin_ns = self.origin_ns
        if result is None or self.clock_begin is None or origin_ns is None or not result.start_at_ns:
            return None
        if result.first_connect_begun_ns is None or result.first_connect_due_ns is None:
            return None
        begin_ns = result.start_at_ns - self.clock_begin.offset_s * NS + result.first_connect_begun_ns
        return (begin_ns - (origin_ns + result.first_connect_due_ns)) / NS

    # --- lines ---

    def _take(self, line: bytes) -> None:
        """A streamed line. An exception ends the channel for good."""
        self._heard_at = asyncio.get_running_loop().time()
        if line.startswith(b'{"type":"second",'):
            number = number_of(line)
            if number != len(self.lines) + 1:
                raise ProtocolError(f"second {number} came after second {len(self.lines)}")
            try:
                self.lines.append(line)
            except OSError as error:
                raise BadAgent(f"its lines can't be kept here: {error}") from error
            self._news.set()
            return
        reply = protocol.decode_reply(line)
        if isinstance(reply, Live):
            self.live = reply
        elif isinstance(reply, Ended):
            if reply.run_id != self._job.run_id or reply.seconds > len(self.lines):
                raise ProtocolError(f"run {reply.run_id} ended after {reply.seconds} s; {len(self.lines)} lines came")
            self.ended = reply
            self._over.set()
        else:
            raise ProtocolError(f"a line of type {reply.type} that nobody asked for")


def _superseded(refused: Refused) -> Exception:
    """What a refusal means: that a newer conductor has the run, or just what it says."""
    return Superseded(str(refused)) if refused.code == "old_epoch" else refused
