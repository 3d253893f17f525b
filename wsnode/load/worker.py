"""One process of a load generator: keeps the schedule, owns its clients, reports every second.

Its parent is `wsnode.load.load.Load`. Orders: `{"do": "go", "at": ns}`, `{"do": "stop", "drain": bool}`. It answers
`{"ready": true}`, then `{"line": …}` for each settled second, `{"live": …}` each second, and `{"end": …}` at last.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic_ns
from typing import Any

import uvloop

from wsnode.core.metrics import for_job
from wsnode.core.pacing import Share
from wsnode.core.scenario import Plan
from wsnode.load.address import Address
from wsnode.load.broadcast import SETTLE_NS, Ledger
from wsnode.load.client import CONNECTING, DOWN, IDLE, OPEN, Client, Setting, message_head
from wsnode.load.closed import ClosedClient, ClosedLoop, ClosedRecorder, ClosedSizedClient
from wsnode.load.conversation import Conversation
from wsnode.load.kinds import clients_of
from wsnode.load.reconnects import Reconnects
from wsnode.load.recorder import NS, DueSecond, Recorder
from wsnode.load.schedule import NEVER, connect_order, leave_order, schedule_of
from wsnode.load.sized import SizedClient, SizeTable
from wsnode.load.timer import Timer
from wsnode.load.usual import UsualClient, is_usual
from wsnode.telemetry import Layout, LoopMonitor, SharedTable
from wsnode.workers import Assignment, Control

log = logging.getLogger("wsnode.load")

TURNS_AT_ONCE, CONNECTS_AT_ONCE = 32, 8
"""In one go before replies are read: bounds how long a late schedule keeps the loop (some 2 ms each)."""
GRAIN_NS, DENSE_NS = 250_000, 50_000
"""Where a worker's turns lie closer than `DENSE_NS`, those due within a grain of each other share one wake-up, the
later ones late by less than that. Elsewhere each has its own: a reply that comes while others have their turns is read
late, which would be in its response time (docs/performance.md, Cross-check)."""
FOLD_AT = 64
"""Messages left in a second's lists, at most until the next sweep: as many are counted at half the price, and are too
few to keep the loop."""
SWEEP_NS = 100_000_000
SWEEPS = 5
"""Each client is looked at once in SWEEPS × SWEEP_NS for replies that are overdue."""
CONNECT_LATE_NS = 50_000_000
GRACE_NS = 50_000_000
"""How long after the end a message due before it may still have its turn: a last one that is a little late is sent."""
LEAVE_NS = 20_000_000
"""So often those are looked at who are to leave and still await a reply."""
QUIET_NS = 250_000_000
"""The drain ends once nothing has been outstanding for this long: a doubled reply would have come."""
CLOSE_DEADLINE_S = 3.0


class Worker:
    """A share of a run's clients, kept on schedule by one timer."""

    def __init__(
        self,
        plan: Plan,
        address: Address,
        recorder: Recorder,
        control: Control,
        talk: Conversation | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        scenario = plan.scenario
        self._control = control
        self._recorder = recorder
        self._pacing = scenario.pacing()
        self._connecting: dict[Client, asyncio.Task[None] | None] = {}
        self._opened: set[Client] = set()
        self._setting = Setting(
            address=address,
            recorder=recorder,
            match=scenario.effective_match,
            size=scenario.size_bytes,
            head=message_head(scenario.message_type == "binary", scenario.size_bytes),
            max_in_flight=scenario.max_in_flight,
            queue_while_down=scenario.while_down == "queue",
            reply_timeout_ns=round(scenario.reply_timeout_s * NS),
            connect_timeout_ns=round(scenario.connect_timeout_s * NS),
            reconnect=self._plan_reconnect if scenario.reconnect else None,
            connecting=self._connecting,
            opened=self._opened,
        )
        self._talk = talk
        self._ledger = ledger
        self._loop: ClosedLoop | None = None
        """Of a closed pace who may send when; None: the schedule says so."""
        self._wake_at = NEVER
        self._clients = self._make_clients(plan)
        self._schedule = schedule_of(self._pacing, [client for client in self._clients if client.sends])
        self._connects = deque(connect_order(self._pacing, plan.share))
        self._leaves = deque(leave_order(self._pacing, plan.share) if self._pacing.comes_and_goes else ())
        self._gone: set[Client] = set()
        """Whose leave was due, and who are not to be back yet."""
        self._leaving: set[Client] = set()
        """Of them those who still await something."""
        self._returning: set[Client] = set()
        """Who are to be back, but whose last connection has not ended yet."""
        self._reconnects = Reconnects(scenario)
        self._drain_ns = scenario.drain_s * NS
        if self._ledger is not None:
            self._drain_ns = self._ledger.timeout_ns + SETTLE_NS
        self._origin = 0
        self._second: DueSecond | None = None
        self._tick_second = 0
        """Whole seconds of the load that are over."""
        self._stop_ns = self._pacing.end_ns
        self._drain_until: int | None = None
        self._quiet_since: int | None = None
        self._sweep_at = 0
        self._sweep_place = 0
        self._first_connect: tuple[int, int] | None = None
        self._ended = asyncio.Event()
        self._finishing: asyncio.Task[None] | None = None
        self._cpu_before_ns = 0
        self._collected_at = 0
        spacing_ns = self._pacing.interval_ns // max(1, len(self._clients))
        self._grain_ns = GRAIN_NS if spacing_ns < DENSE_NS else 0
        self._timer = Timer(self._tick)

    @property
    def _pending(self) -> int:
        """Connects that have neither opened nor failed."""
        return len(self._connecting) + (len(self._talk.greeting) if self._talk else 0)

    def _make_clients(self, plan: Plan) -> list[Client]:
        scenario, setting = plan.scenario, self._setting
        if self._ledger is not None:
            return self._ledger.clients(setting)
        if self._talk is not None:
            return self._talk.clients(plan.share, setting)
        normal: Callable[[int, Setting], Client] = UsualClient if is_usual(setting) else Client
        table = None
        if (sizes := scenario.distribution) is not None:
            table = SizeTable.of(sizes, scenario.seed, scenario.message_type == "binary")
            normal = partial(SizedClient, table)
        if scenario.pace == "closed":
            self._loop = loop = ClosedLoop(scenario, scenario.thinking, self._closed_turn, self._wake)
            normal = partial(ClosedClient, loop) if table is None else partial(ClosedSizedClient, loop, table)
        return clients_of(plan.share.clients(), setting, scenario.cast, normal)

    # --- orders ---

    def go(self, origin_ns: int) -> None:
        """Begin: `origin_ns` on the monotonic clock is second 0."""
        self._origin = origin_ns
        if self._ledger is not None:
            self._ledger.origin = origin_ns
        # What is alive now stays for the whole load; looking at it again and again would cost milliseconds a time.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._cpu_before_ns = time.process_time_ns()
        self._timer.set(origin_ns)

    def _cpu_s(self) -> float:
        """CPU time since the begin."""
        return (time.process_time_ns() - self._cpu_before_ns) / NS

    def stop(self, drain: bool) -> None:
        """End the load now; without a drain what is awaited stays in flight."""
        if self._origin == 0:
            self._ended.set()
            return
        self._stop_ns = min(self._stop_ns, max(0, monotonic_ns() - self._origin))
        self._schedule.stop(self._stop_ns)
        if not drain:
            self._drain_ns = 0
            if self._drain_until is not None:
                self._drain_until = 0
        self._timer.set(monotonic_ns())

    async def ended(self) -> None:
        """Returns when every client is closed and the last line is sent."""
        await self._ended.wait()

    # --- the schedule ---

    def _tick(self) -> None:
        try:
            self._proceed()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Without its schedule a load would neither go on nor end, and its accounts can't be trusted: say so and go."""
        log.error("the schedule has failed", exc_info=error)
        self._timer.close()
        self._control.send({"failed": f"its schedule failed: {error!r}"})
        self._ended.set()

    def _proceed(self) -> None:
        now = monotonic_ns() - self._origin
        if self._drain_until is None:
            now, behind = self._turns(now)
            if self._loop is not None:
                self._loop.run(now + self._origin, TURNS_AT_ONCE)
            if self._leaves or self._leaving or self._returning:
                self._begin_leaves(now)
            behind = self._begin_connects(now) or behind
        else:
            behind = False
        if self._second is not None and len(self._second.lags) >= FOLD_AT:
            self._recorder.fold()
        self._end_seconds(now)
        if now >= self._sweep_at:
            self._sweep(now)
        if self._drain_until is None and now >= self._stop_ns:
            self._schedule.stop(self._stop_ns)
            if self._schedule.due == NEVER or now >= self._stop_ns + GRACE_NS:
                self._begin_drain(now)
        if self._drain_until is not None and self._drained(now):
            self._timer.close()
            self._finishing = asyncio.get_running_loop().create_task(self._finish(now))
            return
        self._wake_at = self._origin + (now if behind else self._next_wake(now))
        self._timer.set(self._wake_at)

    def _wake(self, at: int) -> None:
        """Be there at this moment (ns of the monotonic clock), if not before."""
        if at < self._wake_at:
            self._wake_at = at
            self._timer.set(at)

    def _closed_turn(self, client: Client, moment: int) -> None:
        """A client's next message of a closed pace: it is due because it is sent now."""
        now = moment - self._origin
        if self._drain_until is not None or now >= self._stop_ns or client.state != OPEN or client in self._gone:
            return
        second = self._second
        if second is None or second.number <= now // NS:
            second = self._enter(now // NS + 1)
        self._recorder.asked(second)
        client.turn(second, moment)

    def _turns(self, now: int) -> tuple[int, bool]:
        """Give every due message its turn. Returns the time afterwards, and whether some are left for the next tick."""
        schedule, left = self._schedule, TURNS_AT_ONCE
        stop = self._stop_ns
        while (due := schedule.due) <= now:
            if now >= stop + GRACE_NS:
                # The end is long past and these never had a turn: _begin_drain counts them.
                return now, False
            second = self._second
            number = due // NS + 1
            if second is None or second.number != number:
                second = self._enter(number)
            client = schedule.client
            second.lags.append(now - due)
            now = client.turn(second, now + self._origin) - self._origin
            schedule.step()
            left -= 1
            if not left:
                # Time has gone by; what is due meanwhile goes first next time, after reading what has come.
                return now, schedule.due <= now
        return now, False

    def _enter(self, number: int) -> DueSecond:
        """The record of a second, and of those before it in which nothing was due."""
        last = self._second.number if self._second else 0
        second = self._second
        for between in range(last + 1, number + 1):
            second = self._recorder.second(between)
        assert second is not None
        self._second = second
        return second

    def _begin_connects(self, now: int) -> bool:
        left = CONNECTS_AT_ONCE
        if now >= self._stop_ns:
            # Also a load that was stopped before its begin connects no more.
            return False
        while left and self._reconnects.due <= now:
            client = self._reconnects.take()
            if client.state != DOWN or client in self._gone:
                continue  # it has left, or is back already
            self._recorder.reconnects += 1
            self._recorder.live.reconnects += 1
            client.connect()
            left -= 1
        while left and self._connects and self._connects[0][0] <= now:
            due, place = self._connects.popleft()
            begun = monotonic_ns() - self._origin
            if begun - due > CONNECT_LATE_NS:
                self._recorder.connects_late += 1
            if self._first_connect is None:
                self._first_connect = (due, begun)
            client = self._clients[place]
            if client in self._gone and not self._may_return(client):
                continue
            client.connect()
            left -= 1
        return left == 0

    def _begin_leaves(self, now: int) -> None:
        """Close who is to leave and awaits nothing more; let back in who is to be back and was still leaving."""
        while (
            self._leaves and (due := self._leaves[0][0]) <= now and not (self._connects and self._connects[0][0] < due)
        ):
            # Nobody leaves before everybody has begun to connect who was to do so earlier.
            client = self._clients[self._leaves.popleft()[1]]
            self._gone.add(client)
            self._leaving.add(client)
        for client in [c for c in self._leaving if c.state != CONNECTING and not c.unsettled]:
            client.leave()
            self._leaving.discard(client)
        for client in list(self._returning):
            if self._may_return(client):
                client.connect()

    def _may_return(self, client: Client) -> bool:
        """Whether its last connection has ended; else it is connected once it has. Where replies are still awaited it
        stays: it would have messages again before it could leave."""
        if self._loop is None and client.state == OPEN and client in self._leaving:
            for place in (self._leaving, self._returning, self._gone):
                place.discard(client)
            return False
        if client in self._leaving or client.state != DOWN:
            self._returning.add(client)
            return False
        self._returning.discard(client)
        self._gone.discard(client)
        return True

    def _plan_reconnect(self, client: Client) -> None:
        if self._drain_until is None and client not in self._gone:
            self._reconnects.plan(client, monotonic_ns() - self._origin)

    def _next_wake(self, now: int) -> int:
        wake = min((self._tick_second + 1) * NS, self._sweep_at, self._stop_ns if self._drain_until is None else NEVER)
        if self._drain_until is None:
            due = min(
                self._schedule.due,
                self._connects[0][0] if self._connects else NEVER,
                self._reconnects.due,
            )
            if self._loop is not None:
                due = min(due, self._loop.due - self._origin)
            if self._leaves:
                due = min(due, self._leaves[0][0])
            if self._leaving or self._returning:
                due = min(due, now + LEAVE_NS)
            if due < wake:
                wake = max(due, now + self._grain_ns)
        else:
            wake = min(wake, self._drain_until, now + 20_000_000)
        return wake

    # --- once a second ---

    def _end_seconds(self, now: int) -> None:
        recorder = self._recorder
        ended = False
        while (self._tick_second + 1) * NS <= now:
            self._tick_second += 1
            ended = True
            if self._tick_second * NS <= self._stop_ns:
                recorder.snapshot(self._tick_second, self._pending, len(self._opened), self._cpu_s())
        passed = min(now, self._schedule.due, self._stop_ns) // NS
        if passed >= 1 and (self._second is None or self._second.number <= passed):
            # The schedule is beyond these seconds, also where nothing was due in them.
            self._enter(passed + 1)
        if ended:
            self._send_live()
            if (over := recorder.closed + recorder.failed) != self._collected_at:
                # What is left of connections may hold cycles, which only the collector frees; the young ones are few.
                self._collected_at = over
                gc.collect(0)
        for line in recorder.settled_lines():
            if line["second"] * NS <= self._stop_ns:
                self._control.send({"line": line})

    def _send_live(self) -> None:
        recorder = self._recorder
        self._control.send(
            {
                "live": {
                    "second": self._tick_second,
                    "connections_open": len(self._opened),
                    "sent": recorder.live.messages_sent,
                    "received": recorder.live.messages_received + recorder.deliveries,
                    "outstanding": recorder.awaited,
                    "errors": sum(recorder.errors.values()),
                    "recent": recorder.take_recent().to_wire(),
                }
            }
        )

    def _sweep(self, now: int) -> None:
        self._sweep_at = now + SWEEP_NS
        self._recorder.fold()
        moment = now + self._origin
        for client in self._clients[self._sweep_place :: SWEEPS]:
            if client.watched or client.unsettled:
                client.expire(moment)
        self._sweep_place = (self._sweep_place + 1) % SWEEPS
        while self._connecting and next(iter(self._connecting)).timed_out(moment):
            pass

    # --- the end ---

    def _begin_drain(self, now: int) -> None:
        """No more sends. What was due and had no turn is the generator's fault, counted to the last."""
        schedule, recorder = self._schedule, self._recorder
        while schedule.due != NEVER:
            number = schedule.due // NS + 1
            second = self._second
            if second is None or second.number != number:
                second = self._enter(number)
            recorder.never_reached(second, 1)
            schedule.step()
        for client in self._clients:
            if client.unsettled:
                client.give_up_sending()
        self._drain_until = now + self._drain_ns

    def _drained(self, now: int) -> bool:
        assert self._drain_until is not None
        if now >= self._drain_until:
            if self._drain_ns:
                for client in self._clients:
                    client.expire(now + self._origin)
            return True
        if self._recorder.awaited or self._ledger is not None:
            self._quiet_since = None
            return False
        if self._quiet_since is None:
            self._quiet_since = now
        return now - self._quiet_since >= QUIET_NS

    async def _finish(self, now: int) -> None:
        try:
            await self._close_all(now)
        except Exception as error:
            self._fail(error)

    async def _close_all(self, now: int) -> None:
        # Connects that have not come to an end are pending for good.
        for attaching in self._connecting.values():
            if attaching is not None:
                attaching.cancel()
        for client in self._clients:
            if client.state != IDLE:
                client.leave()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                while self._opened:  # noqa: ASYNC110  at the end of a load a poll costs nothing
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pass  # they stay counted as open
        self._end_seconds(now)
        recorder = self._recorder
        in_flight = sum(client.in_flight for client in self._clients)
        for client in self._clients:
            client.abandon()
        final = recorder.final_line(
            max(1, -(-self._stop_ns // NS)),
            self._pending,
            len(self._opened),
            in_flight,
            self._cpu_s(),
        )
        if self._ledger is not None:
            final["rooms"] = [room.model_dump(mode="json") for room in self._ledger.account()]
        self._control.send({"end": {"final": final, "first_connect": self._first_connect}})
        await self._control.drain()
        self._ended.set()


async def serve(assignment: Assignment) -> None:
    """A worker's life."""
    control = await assignment.open()
    config: dict[str, Any] = assignment.config
    layout = Layout(for_job("wsnode-agent"))
    counters = layout.counters()
    counters.descriptor_limit = assignment.descriptor_limit
    monitor = None
    if assignment.table_fd is not None and assignment.slot is not None:
        table = SharedTable.attach(assignment.table_fd, layout)
        monitor = LoopMonitor(counters, table.writer(assignment.slot, counters))
        monitor.start()
    try:
        plan = Plan.model_validate(config["plan"])
        talk = Conversation.of(plan.scenario, config["secrets"])
        url = plan.url if talk is None else talk.url(plan.url)
        family, sockaddr = config["address"]
        address = Address.at(
            url,
            family,
            sockaddr,
            config["sources"],
            plan.share,
            scenario=plan.scenario,
            secrets=config["secrets"],
            ca_file=config["ca_file"],
        )
        kind = ClosedRecorder if plan.scenario.pace == "closed" else Recorder
        recorder = kind(counters, plan.scenario.size_bytes)
        ledger = None
        if plan.scenario.behaviour == "broadcast":
            ledger = Ledger(plan, Share(plan.scenario.clients, *config["host"]), config["run_id"], recorder)
        worker = Worker(plan, address, recorder, control, talk, ledger)
    except (OSError, ValueError) as error:
        control.send({"failed": str(error)})
        await control.drain()
        return
    control.send({"ready": True})
    orders = asyncio.create_task(_obey(worker, control))
    await worker.ended()
    orders.cancel()
    if monitor is not None:
        monitor.stop()
    await control.drain()
    control.close()


async def _obey(worker: Worker, control: Control) -> None:
    while (order := await control.receive()) is not None:
        if order["do"] == "go":
            worker.go(order["at"])
        elif order["do"] == "stop":
            worker.stop(order["drain"])
    # The parent is gone, so nobody is left to report to.
    raise SystemExit(1)


if __name__ == "__main__":
    uvloop.run(serve(Assignment.take()))
