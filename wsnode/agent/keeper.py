"""What an agent does with the requests about loads: one load at a time, each request idempotent by run and epoch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from wsnode import floor, preflight
from wsnode.agent import aim, remains
from wsnode.agent.config import Config
from wsnode.agent.held import Held, Setting
from wsnode.agent.hooks import Hooks
from wsnode.agent.refused import Refused
from wsnode.agent.store import State, Store, StoreError, out_of_keeping
from wsnode.core.protocol import (
    Ack,
    Follow,
    GetResult,
    Go,
    Hook,
    Preflight,
    Prepare,
    Stop,
    revealed,
)
from wsnode.core.scenario import Plan
from wsnode.environment import boot_id, environment
from wsnode.load.load import Load, LoadError, workers_for
from wsnode.load.ports import sources_for
from wsnode.telemetry import SharedTable
from wsnode.workers import cores, raise_descriptor_limit

log = logging.getLogger("wsnode.agent")

NS = 1_000_000_000
START_WITHIN_S = 60
PREPARE_TIMEOUT_S = 30.0
SHUT_DOWN_S = 5.0
REMEMBERED = 100
DISK_SPARE_BYTES = 64 << 20
CAPS = {"cores", "max_clients", "max_duration_s", "max_messages_per_s", "max_rate_per_s"}
"""Of the agent's configuration, what decides how much of a load this host can be given."""

OfLoad = Prepare | Go | Follow | Stop | GetResult | Ack


class Gone(NamedTuple):
    """A load that is no longer known: its epoch still fences off an older conductor."""

    epoch: int
    why: Literal["stored", "released"]
    reason: str


class Keeper:
    """All loads of an agent. Used inside one event loop."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        name: str,
        may_load: bool,
        deadman_s: float,
        hooks: Hooks,
        table: SharedTable | None = None,
        on_active: Callable[[str, str, int], None] = lambda run_id, address, sources: None,
        on_idle: Callable[[], None] = lambda: None,
        on_adopted: Callable[[str, int], None] = lambda run_id, epoch: None,
    ) -> None:
        """Who is told what.

        `on_active`: a run's workers are ready, the address that they will connect to, and from how many. `on_idle`: no
        run has any. `on_adopted`: run and epoch of a newer conductor.
        """
        self._store = store
        self._config = config
        self._name = name
        self._may_load = may_load
        self._deadman_s = deadman_s
        self._hooks = hooks
        self._table = table
        self._on_active = on_active
        self._on_idle = on_idle
        self._on_adopted = on_adopted
        self._started_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._setting = Setting(name, deadman_s, self.environment, self._on_over)
        self._held: dict[str, Held] = {}
        self._gone: OrderedDict[str, Gone] = OrderedDict()
        self._begun: set[asyncio.Task[dict[str, Any]]] = set()
        self._closing = False

    def environment(self) -> dict[str, Any]:
        """This host's, with what only its agent knows, and what the server on it says. Takes some 20 ms."""
        caps = self._config.model_dump(include=CAPS)
        return environment(
            {
                "agent_name": self._name,
                "agent_started_at": self._started_at,
                **{f"agent.{name}": value for name, value in caps.items() if value is not None},
                **({"agent.source_addresses": len(addresses)} if (addresses := self._config.source_addresses) else {}),
                **{f"server.{name}": value for name, value in self._hooks.server().items()},
            }
        )

    def recover(self) -> None:
        """Take up what an agent before this one has left: what had no end is interrupted."""
        for record in self._store.records():
            state = record.state
            if state.start_at_ns is None:
                record.delete()  # its workers are gone, and it had not begun
                continue
            held = Held(state.run_id, state.epoch, record.plan, self._setting)
            held.record = record
            restarted = "the agent restarted" if state.boot_id == boot_id() else "the host restarted"
            held.recover(f"{restarted}; the last whole second is {record.seconds}")
            self._held[state.run_id] = held
        self._prune()

    @property
    def active(self) -> Held | None:
        """The load that has workers, or is getting some."""
        return next((held for held in self._held.values() if held.active), None)

    def rows(self) -> list[dict[str, Any]]:
        """The answer to `list`."""
        return [held.row() for held in self._held.values() if held.record is not None]

    def of(self, request: OfLoad) -> Held:
        """The load of a request, adopted where the epoch is newer.

        Raises:
            Refused: it is not known, or a newer conductor has it.
        """
        held = self._find(request)
        if held is None:
            gone = self._gone.get(request.run_id)
            raise Refused(
                "unknown_run", f"run {request.run_id} is not known here" + (f": {gone.reason}" if gone else "")
            )
        return held

    # --- requests ---

    async def see_through(self, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
        """A request's answer. What was begun is not given up where the caller is cancelled."""
        task = asyncio.create_task(work)
        self._begun.add(task)
        task.add_done_callback(self._begun.discard)
        return await asyncio.shield(task)

    async def examine(self, request: Preflight) -> dict[str, Any]:
        """The answer to `preflight`."""
        plan = request.plan
        aimed: aim.Aim | None = None
        if plan is not None:
            with suppress(Refused):  # the finding `target` says so
                aimed = await aim.aim_of(plan)
        found = await self._findings(plan, aimed)
        answer = {
            "fit": preflight.fit(found),
            "findings": [finding.to_wire() for finding in found],
            "environment": await asyncio.to_thread(self.environment),
        }
        if request.port is not None:
            left = (
                await asyncio.to_thread(remains.of_server, request.port)
                if aimed is None
                else await asyncio.to_thread(remains.of_clients, aimed.addresses, request.port)
            )
            answer["remains"] = left.model_dump()
        return answer

    async def hook(self, request: Hook) -> dict[str, Any]:
        """The answer to `hook`."""
        if (active := self.active) is not None:
            raise Refused("busy", f"{self._name} is busy with run {active.run_id}; no hook during a load")
        return (await self._hooks.run(request)).model_dump()

    async def prepare(self, request: Prepare) -> dict[str, Any]:
        """The answer to `prepare`."""
        held = self._find(request)
        if held is None:
            held = self._begin(request)
        elif held.plan != request.plan:
            raise Refused("bad_request", f"run {request.run_id} is known here with another plan")
        elif not held.active:
            raise Refused("wrong_state", f"run {request.run_id} has {held.state} already")
        if held.preparation is not None:
            await asyncio.shield(held.preparation)
        assert held.record is not None
        state = held.record.state
        return {"workers": state.workers, "environment": state.environment_begin}

    async def go(self, request: Go) -> dict[str, Any]:
        """The answer to `go`: the start in force, which a repeated request does not change."""
        held = self.of(request)
        if held.record is None:
            raise Refused("wrong_state", f"run {request.run_id} is not prepared yet")
        if (begun := held.record.state.start_at_ns) is not None:
            return {"start_at": begun}
        ahead_s = (request.start_at - time.time_ns()) / NS
        if not 0 < ahead_s <= START_WITHIN_S:
            when = f"{-ahead_s:,.3f} s ago" if ahead_s <= 0 else f"in {ahead_s:,.3f} s"
            raise Refused(
                "bad_request", f"start_at is {when} by this host's clock; wanted within the next {START_WITHIN_S} s"
            )
        try:
            held.go(request.start_at)
        except StoreError as error:
            await self._release(held, str(error))
            raise Refused("failed", str(error)) from error
        log.info("run %s starts in %.3f s", request.run_id, ahead_s)
        return {"start_at": request.start_at}

    async def stop(self, request: Stop) -> dict[str, Any]:
        """The answer to `stop`, once the load has ended. One that had not begun is forgotten."""
        held = self._find(request)
        if held is None:
            gone = self._gone.get(request.run_id)
            if gone is None or gone.why == "stored":
                held = self.of(request)  # which refuses
            else:
                return {"state": "stopped", "reason": gone.reason, "seconds": 0}
        if held.state in (None, "prepared"):
            await self._release(held, request.reason)
            return {"state": "stopped", "reason": request.reason, "seconds": 0}
        if not held.over.is_set():
            await held.stop(request.reason, request.drain)
        ended = held.ended()
        assert ended is not None
        return {"state": ended.state, "reason": ended.reason, "seconds": ended.seconds}

    def result(self, request: GetResult) -> dict[str, Any]:
        """The answer to `result`."""
        held = self.of(request)
        if held.result is None or not held.over.is_set():
            raise Refused("wrong_state", f"run {request.run_id} has not ended")
        return held.result.model_dump(mode="json")

    def ack(self, request: Ack) -> dict[str, Any]:
        """The answer to `ack`. Repeated it changes nothing."""
        held = self._find(request)
        if held is None:
            return {"known": False}
        if not held.over.is_set():
            raise Refused("wrong_state", f"run {request.run_id} has not ended, so nothing can have been stored")
        self._forget(held, Gone(held.epoch, "stored", "its result is stored"))
        return {"known": True}

    async def shut_down(self, reason: str) -> None:
        """End the active load within some seconds, and leave everything in the store."""
        self._closing = True
        if (held := self.active) is not None:
            if held.state == "running":
                await held.stop(reason, drain=False, patience_s=SHUT_DOWN_S)
            else:
                await self._release(held, reason)

    def close(self) -> None:
        """Let go of the store."""
        for held in self._held.values():
            held.close()
        self._store.close()

    # --- within ---

    def _find(self, request: OfLoad) -> Held | None:
        """The load, its epoch checked."""
        held = self._held.get(request.run_id)
        known = held or self._gone.get(request.run_id)
        if known is None:
            return None
        if request.epoch < known.epoch:
            raise Refused(
                "old_epoch",
                f"run {request.run_id} is in the hands of epoch {known.epoch}; epoch {request.epoch} is too old",
            )
        if held is not None and request.epoch > held.epoch:
            log.info("run %s is adopted by epoch %d", held.run_id, request.epoch)
            held.adopt(request.epoch)
            self._on_adopted(held.run_id, held.epoch)
        return held

    def _begin(self, request: Prepare) -> Held:
        if not self._may_load:
            raise Refused("not_allowed", f"{self._name} is a server: its agent observes and generates no load")
        if self._closing:
            raise Refused("busy", f"the agent of {self._name} is being stopped")
        if (active := self.active) is not None:
            raise Refused("busy", f"{self._name} is busy with run {active.run_id}; one load at a time")
        if (gone := self._gone.get(request.run_id)) is not None and gone.why == "stored":
            raise Refused("wrong_state", f"run {request.run_id} has ended and {gone.reason}")
        held = Held(request.run_id, request.epoch, request.plan, self._setting)
        held.secrets = request.secrets
        self._held[request.run_id] = held
        held.preparation = asyncio.create_task(self._prepare(held))
        held.preparation.add_done_callback(lambda task: task.cancelled() or task.exception())
        return held

    async def _prepare(self, held: Held) -> None:
        """Check the plan and start its workers. On any failure the load is forgotten and Refused raised."""
        try:
            address, sources = await self._admit(held.plan)
            begin = await asyncio.to_thread(self.environment)
            self._still_wanted(held)
            workers = workers_for(held.plan, self._config.cores or cores(), raise_descriptor_limit())
            begin["floor"] = await floor.read(held.plan, workers)
            self._still_wanted(held)
            held.load = Load(
                held.plan,
                workers,
                table=self._table,
                address=address,
                sources=sources,
                run_id=held.run_id,
                secrets=revealed(held.secrets),
                ca_file=self._config.ca_file,
                on_second=held.on_second,
                on_live=held.on_live,
            )
            held.secrets = {}
            count = await held.load.prepare(PREPARE_TIMEOUT_S)
            self._still_wanted(held)
            self._prune()
            state = State(
                run_id=held.run_id,
                epoch=held.epoch,
                state="prepared",
                boot_id=boot_id(),
                workers=count,
                environment_begin=begin,
            )
            held.record = self._store.create(held.plan, state)
        except BaseException as error:
            if self._held.get(held.run_id) is held:
                del self._held[held.run_id]
            self._still_wanted(held)
            await held.kill("it could not be prepared")
            if isinstance(error, (LoadError, StoreError)):
                raise Refused("failed", str(error)) from error
            if isinstance(error, Exception) and not isinstance(error, Refused):
                log.exception("run %s could not be prepared", held.run_id)
                raise Refused("failed", f"the agent failed: {error!r}") from error
            raise
        log.info("run %s is prepared with %d workers", held.run_id, count)
        self._on_active(held.run_id, str(address[1][0]), len(sources))
        held.spawn(self._release_unstarted(held))

    @staticmethod
    def _still_wanted(held: Held) -> None:
        if held.killed is not None:
            raise Refused("failed", f"run {held.run_id} was released while it was being prepared: {held.killed}")

    async def _admit(self, plan: Plan) -> tuple[aim.Address, tuple[str, ...]]:
        """The address to aim at and those to come from, where this host may and can carry the plan out. Raises
        Refused."""
        if broken := list(self._config.over_caps(plan)):
            raise Refused("not_allowed", "; ".join(broken))
        address = await aim.admitted(self._config, plan)
        sources = sources_for(str(address[1][0]), plan.count, self._config.source_addresses)
        need = preflight.Need.of(plan)._replace(url=None, sources=sources)
        unfit = [f for f in await asyncio.to_thread(preflight.findings, need) if f.level == "unfit"]
        if unfit:
            raise Refused("unfit", "; ".join(f"{finding.check}: {finding.message}" for finding in unfit))
        return address, sources

    async def _findings(self, plan: Plan | None, aimed: aim.Aim | None) -> list[preflight.Finding]:
        need = preflight.Need.of(plan) if plan else None
        if need is not None and aimed is not None:
            sources = sources_for(aimed.addresses[0], need.clients, self._config.source_addresses)
            need = need._replace(url=None, sources=sources)
        found = await asyncio.to_thread(preflight.findings, need)
        if aimed is not None:
            found.append(aim.told(aimed))
        found.append(self._disk())
        if plan is None:
            return found
        for broken in self._config.over_caps(plan):
            found.append(preflight.Finding("caps", "unfit", broken, "less", "change the scenario, or agent.toml"))
        if aimed is not None:
            found += await aim.findings(self._config, plan, aimed)
        if not self._may_load:
            found.append(preflight.Finding("role", "unfit", "a server", "a load generator", "see the inventory"))
        return found

    def _disk(self) -> preflight.Finding:
        free = self._store.free_bytes()
        return preflight.Finding(
            "disk",
            "ok" if free >= DISK_SPARE_BYTES else "unfit",
            f"{free >> 20:,} MiB free at {self._store.path}",
            f"at least {DISK_SPARE_BYTES >> 20} MiB",
            "make room, or give the agent another --data",
        )

    async def _release_unstarted(self, held: Held) -> None:
        await asyncio.sleep(self._deadman_s)
        if held.state == "prepared" and self._held.get(held.run_id) is held:
            await self._release(held, f"deadman: no go within {self._deadman_s:g} s after it was prepared")

    async def _release(self, held: Held, reason: str) -> None:
        """End a load that has not begun, and forget it."""
        log.info("run %s is released: %s", held.run_id, reason)
        await held.kill(reason)
        if held.preparation is not None and not held.preparation.done():
            await asyncio.wait([held.preparation])
        self._forget(held, Gone(held.epoch, "released", reason))

    def _forget(self, held: Held, gone: Gone) -> None:
        if self._held.get(held.run_id) is held:
            del self._held[held.run_id]
        held.forget()
        held.record = None
        self._gone[held.run_id] = gone
        self._gone.move_to_end(held.run_id)
        while len(self._gone) > REMEMBERED:
            self._gone.popitem(last=False)
        self._on_over()

    def _on_over(self) -> None:
        if self.active is None:
            self._on_idle()

    def _prune(self) -> None:
        """Throw away results that nobody has fetched for long, or that are too many."""
        ended = {
            held.run_id: held.record.state.ended_at or 0.0
            for held in self._held.values()
            if held.record is not None and not held.active
        }
        for run_id in out_of_keeping(ended, self._config.keep_results, self._config.keep_days):
            log.warning("run %s: its result was never acknowledged and goes", run_id)
            self._forget(self._held[run_id], Gone(self._held[run_id].epoch, "released", "its result was pruned"))
