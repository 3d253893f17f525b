"""One load in an agent's hands: from its workers' first second to the result that waits to be fetched."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import SecretStr

from wsnode.agent.store import Record, StoreError
from wsnode.core.protocol import Ended, HostResult, Live, LoadState, ProtocolError, Second, encode
from wsnode.core.scenario import Plan
from wsnode.load.load import Load, LoadEnd
from wsnode.meter import Meter

log = logging.getLogger("wsnode.agent")

NS = 1_000_000_000
OVERTIME_S = 30.0
"""How long after its scenario's end, drain included, a load may still be closing before it is killed."""
STOP_PATIENCE_S = 20.0
"""How long a stopped load may take beyond its drain before it is killed."""


class Setting(NamedTuple):
    """What all loads of an agent share."""

    host: str
    deadman_s: float
    environment: Callable[[], dict[str, Any]]
    on_over: Callable[[], None]
    """Called when a load has ended."""


class Held:
    """A load that this agent knows: being carried out, or ended and not yet acknowledged.

    `record` is None while the workers are being started; `load` is None for what an agent before this one has left.
    """

    secrets: dict[str, SecretStr]
    """What the plan's secrets stand for, until its workers have it; never stored."""

    def __init__(self, run_id: str, epoch: int, plan: Plan, setting: Setting) -> None:
        self.secrets = {}
        self.run_id = run_id
        self.epoch = epoch
        self.plan = plan
        self.record: Record | None = None
        self.load: Load | None = None
        self.preparation: asyncio.Task[None] | None = None
        self.over = asyncio.Event()
        """Set once the load has ended and its result is there."""
        self.live = b""
        self.lives = 0
        """Number of live lines so far; `live` is the last."""
        self.result: HostResult | None = None
        self._setting = setting
        self._heard_at = time.monotonic()
        self._meter = Meter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchers: set[asyncio.Event] = set()
        self._broken: str | None = None
        """Why lines can't be kept any more."""
        self.killed: str | None = None
        """Why its workers were ended with no accounts."""

    # --- what it is ---

    @property
    def state(self) -> LoadState | None:
        """None while the workers are being started."""
        return self.record.state.state if self.record else None

    @property
    def active(self) -> bool:
        """Whether it has workers, or is getting some."""
        return self.state in (None, "prepared", "running")

    @property
    def seconds(self) -> int:
        """Lines 1 … seconds are in the store."""
        return self.record.seconds if self.record else 0

    def ended(self) -> Ended | None:
        """Its last line; None while there may be more."""
        if not self.over.is_set() or self.result is None:
            return None
        return Ended(run_id=self.run_id, state=self.result.state, reason=self.result.reason, seconds=self.seconds)

    def row(self) -> dict[str, Any]:
        """The form in `list`."""
        assert self.record is not None
        state = self.record.state
        return {
            "run_id": self.run_id,
            "epoch": self.epoch,
            "state": state.state,
            "reason": state.reason,
            "seconds": self.seconds,
            "start_at": state.start_at_ns,
        }

    # --- who looks ---

    def watch(self) -> asyncio.Event:
        """An event that is set whenever there is something new to send; the caller clears it."""
        event = asyncio.Event()
        self._watchers.add(event)
        return event

    def unwatch(self, event: asyncio.Event) -> None:
        """Undo `watch`."""
        self._watchers.discard(event)

    def heard(self) -> None:
        """A follower gave a sign of life."""
        self._heard_at = time.monotonic()

    def _notify(self) -> None:
        for event in self._watchers:
            event.set()

    # --- its life ---

    def adopt(self, epoch: int) -> None:
        """A newer conductor has the load now."""
        self.epoch = epoch
        if self.record is not None:
            self._keep(epoch=epoch)

    def go(self, start_at_ns: int) -> None:
        """Begin at a moment of this host's wall clock, converted to the monotonic one here and never again.

        Raises:
            StoreError: the start could not be kept; the load is as good as dead then: kill it.
        """
        assert self.load is not None
        assert self.record is not None
        origin_ns = time.monotonic_ns() + start_at_ns - time.time_ns()
        self.load.go(origin_ns)
        self.record.update(state="running", start_at_ns=start_at_ns)
        self.heard()
        meter = asyncio.create_task(self._meter.run(origin_ns))
        self.spawn(self._carry(self.load, self.record, meter))
        self.spawn(self._guard(origin_ns))

    async def stop(self, reason: str, drain: bool, patience_s: float = STOP_PATIENCE_S) -> None:
        """End a running load and wait until it has ended; kill it where it takes longer than its drain and some."""
        load = self.load
        deadline_s = patience_s + (self.plan.scenario.drain_s if drain else 0)
        try:
            async with asyncio.timeout(deadline_s):
                if load is not None:
                    await load.stop(drain, reason)
                await self.over.wait()
        except TimeoutError:
            await self.kill(f"{reason}; it did not end within {deadline_s:g} s and was killed")
            await self.over.wait()

    async def kill(self, reason: str) -> None:
        """End its workers at once, with no accounts."""
        self.killed = self.killed or reason
        if self.load is not None:
            await self.load.kill()

    def on_second(self, second: Second) -> None:
        """Keep a line. Called by the load; never raises."""
        if self._broken is not None or self.record is None:
            return
        try:
            self.record.append(encode(self._meter.add_to(second)))
        except (StoreError, ProtocolError) as error:
            self._give_up(str(error))
        except Exception as error:
            log.exception("run %s, line %d", self.run_id, second.second)
            self._give_up(f"line {second.second}: {error!r}")
        else:
            self._notify()

    def on_live(self, live: Live) -> None:
        """Show a live line. Called by the load."""
        self.live = encode(live)
        self.lives += 1
        self._notify()

    def recover(self, reason: str) -> None:
        """Give what an agent before this one has left its end."""
        assert self.record is not None
        kept = self.record.result()
        if self.active:
            self.result = self._result(self.record, "interrupted", reason, None)
        else:
            # The state says that it ended; a result that can't be read any more is told without its final line.
            self.result = kept or self._result(
                self.record, "interrupted", f"{self.record.state.reason or 'ended'}; its result is not readable", None
            )
        if kept != self.result:
            self._keep_end(self.record, self.result)
        self.over.set()

    def forget(self) -> None:
        """Delete it from the store."""
        self._end_tasks()
        if self.record is not None:
            self.record.delete()

    def close(self) -> None:
        """Leave it in the store."""
        self._end_tasks()
        if self.record is not None:
            self.record.close()

    def _end_tasks(self) -> None:
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that ends with this load."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, why: str) -> None:
        log.error("run %s: %s; the load is stopped", self.run_id, why)
        self._broken = why
        self.spawn(self.stop(why, drain=False))

    async def _carry(self, load: Load, record: Record, meter: asyncio.Task[None]) -> None:
        """Wait for the load's end and write it down."""
        try:
            end = await load.wait()
        except Exception as error:
            log.exception("run %s", self.run_id)
            end = LoadEnd(None, self.seconds, f"the agent failed: {error!r}", None, None, None)
            await load.kill()
        meter.cancel()
        final = end.final and self._meter.add_to_final(end.final)
        self.load = None
        if end.interrupted is not None:
            result = self._result(record, "interrupted", self.killed or end.interrupted, end._replace(final=final))
        elif end.stopped is not None or self._broken is not None:
            result = self._result(record, "stopped", self._broken or end.stopped, end._replace(final=final))
        else:
            result = self._result(record, "finished", None, end._replace(final=final))
        self.result = result.model_copy(update={"environment_end": await asyncio.to_thread(self._setting.environment)})
        self._keep_end(record, self.result)
        self.over.set()
        self._setting.on_over()
        self._notify()
        log.info("run %s %s after %d s%s", self.run_id, result.state, self.seconds, _because(result.reason))

    async def _guard(self, origin_ns: int) -> None:
        """The deadman: stop a load that nobody follows, or that goes on beyond its scenario."""
        scenario = self.plan.scenario
        end_ns = origin_ns + round((scenario.duration_s + scenario.drain_s + OVERTIME_S) * NS)
        while not self.over.is_set():
            silent_s = time.monotonic() - self._heard_at
            if silent_s > self._setting.deadman_s:
                await self.stop(f"deadman: nobody has followed the load for {self._setting.deadman_s:g} s", drain=False)
            elif time.monotonic_ns() > end_ns:
                await self.kill(f"deadman: it went on for {OVERTIME_S:g} s after its scenario's end")
                await self.over.wait()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(1.0, self._setting.deadman_s / 10)):
                        await self.over.wait()

    def _result(self, record: Record, state: Any, reason: str | None, end: LoadEnd | None) -> HostResult:
        return HostResult(
            run_id=self.run_id,
            host=self._setting.host,
            state=state,
            reason=reason,
            seconds=record.seconds,
            final=end.final if end else None,
            workers=record.state.workers,
            start_at_ns=record.state.start_at_ns or 0,
            first_connect_due_ns=end.first_connect_due_ns if end else None,
            first_connect_begun_ns=end.first_connect_begun_ns if end else None,
            environment_begin=record.state.environment_begin,
            environment_end=self._setting.environment() if end is None else {},
        )

    def _keep_end(self, record: Record, result: HostResult) -> None:
        # Where the disk is full the result waits in memory, as long as this agent lives.
        _kept(record.sync)
        _kept(lambda: record.keep_result(result))
        self._keep(state=result.state, reason=result.reason, seconds=record.seconds, ended_at=time.time())

    def _keep(self, **changes: Any) -> None:
        assert self.record is not None
        record = self.record
        _kept(lambda: record.update(**changes))


def _kept(keep: Callable[[], None]) -> None:
    """Write something down; a full disk is said, and survived."""
    try:
        keep()
    except StoreError as error:
        log.error("%s", error)  # noqa: TRY400  the reason is all there is to know


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""
