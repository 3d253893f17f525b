"""One load on one host: worker processes prepared, started together, their seconds merged."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from secrets import token_hex
from typing import Any, NamedTuple

from websockets.exceptions import InvalidURI
from websockets.uri import parse_uri

from wsnode.core.histogram import Histogram
from wsnode.core.merge import merge
from wsnode.core.protocol import Counters, HostSecond, Live, Second
from wsnode.core.result import latency
from wsnode.core.scenario import Plan
from wsnode.telemetry import MAX_SLOTS, SharedTable
from wsnode.wakefulness import CpuLatencyHold
from wsnode.workers import Worker, WorkerError, WorkerPool, worker_count

log = logging.getLogger("wsnode.load")

STOP_MARGIN_S = 15.0
"""Beyond its drain, how long a stopped worker may take to close its connections and report."""


class LoadError(RuntimeError):
    """A load that cannot be prepared. The message says why."""


class LoadEnd(NamedTuple):
    """How a load ended."""

    final: Second | None
    """The whole load; None where a worker died before it could tell."""
    seconds: int
    """Lines 1 … seconds were given."""
    interrupted: str | None
    stopped: str | None
    first_connect_due_ns: int | None
    """From the origin, as is `first_connect_begun_ns`; None where no connect was begun."""
    first_connect_begun_ns: int | None


class _Part:
    """What one worker has reported."""

    def __init__(self) -> None:
        self.histograms: dict[str, Histogram] = {}
        self.lines: dict[int, Second] = {}
        self.live: dict[int, dict[str, Any]] = {}
        self.final: Second | None = None
        self.first_connect: list[int] | None = None

    def second(self, line: dict[str, Any]) -> Second:
        """A worker's line as a cumulative second: its histograms are of that second alone."""
        for name, wire in line["histograms"].items():
            self.histograms.setdefault(name, Histogram()).add(Histogram.from_wire(wire))
        copies = {}
        for name, histogram in self.histograms.items():
            copies[name] = Histogram()
            copies[name].add(histogram)
        return Second(
            second=line["second"],
            counters=Counters(**line["counters"]),
            errors=line["errors"],
            unsent=line["unsent"],
            kinds=line["kinds"],
            histograms=copies,
            host=HostSecond(worker_cpu_s=(line["cpu_s"],)),
            rooms=line.get("rooms"),
        )


def workers_for(plan: Plan, cores: int, nofile_limit: int) -> int:
    """Processes for a plan: one per core, more where open files demand it, never more than clients."""
    return max(1, min(plan.count, worker_count(plan.count, cores, nofile_limit)))


async def resolve(url: str) -> tuple[int, tuple[Any, ...]]:
    """(family, socket address) of the first address of a URL's host: what the workers connect to.

    Raises:
        LoadError: the URL is not a WebSocket one, or its host has no address.
    """
    try:
        uri = parse_uri(url)
    except InvalidURI as error:
        raise LoadError(f"{url!r} is not a WebSocket URL (ws://HOST[:PORT]/PATH or wss://…): {error}") from error
    try:
        found = await asyncio.get_running_loop().getaddrinfo(uri.host, uri.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"the host {uri.host!r} of {url!r} has no address: {error.strerror}") from error
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr


class Load:
    """A plan in the hands of worker processes.

    `on_second` gets the merged cumulative seconds 1, 2, 3, … in order, `on_live` one live line a second; both in the
    event loop that called `prepare`. `address` is where to connect to, for callers that have checked it: the host's
    name is not looked up again. `sources` is where from (`wsnode.load.ports.sources_for`), `ca_file`
    has the certificates to believe. `secrets` are the values
    that the scenario names: they go to the workers' memory alone. `run_id` names the rooms of a broadcast, the same for
    all hosts of a run; without it the load is alone in rooms of its own.
    """

    def __init__(
        self,
        plan: Plan,
        workers: int,
        *,
        table: SharedTable | None = None,
        address: tuple[int, tuple[Any, ...]] | None = None,
        sources: Sequence[str] = (),
        secrets: Mapping[str, str] | None = None,
        run_id: str | None = None,
        ca_file: str | None = None,
        on_second: Callable[[Second], None],
        on_live: Callable[[Live], None],
    ) -> None:
        self.plan = plan
        self.workers = max(1, min(workers, plan.count))
        self._address = address
        self._sources = tuple(sources)
        self._secrets = dict(secrets or {})
        self._run_id = run_id or token_hex(8)
        self._ca_file = ca_file
        self._table = table
        self._on_second = on_second
        self._on_live = on_live
        self._parts = [_Part() for _ in range(self.workers)]
        self._pool: WorkerPool | None = None
        self._gone = False
        self._latency = CpuLatencyHold(None)
        self._seconds = 0
        self._live_second = 0
        self._stopped: str | None = None
        self._interrupted: str | None = None
        self._ended = asyncio.Event()

    async def prepare(self, timeout_s: float = 30) -> int:
        """Start the workers and wait until all are ready. Returns their number.

        Raises:
            LoadError: a worker could not start; none is left.
        """
        if self.plan.count < 1:
            raise LoadError("the plan has no clients for this host")
        if self.workers > MAX_SLOTS:
            raise LoadError(f"{self.workers:,} workers are wanted, the most is {MAX_SLOTS}: raise the open-file limit")
        address = self._address or await resolve(self.plan.url)
        plans = self.plan.divide_among(self.workers)
        self._pool = WorkerPool(
            module="wsnode.load.worker",
            count=self.workers,
            config=lambda number: {
                "plan": plans[number].model_dump(mode="json"),
                "address": address,
                "sources": self._sources,
                "secrets": self._secrets,
                "host": (self.plan.begin, self.plan.end),
                "run_id": self._run_id,
                "ca_file": self._ca_file,
            },
            table=self._table,
            on_message=self._on_message,
            on_end=self._on_end,
        )
        self._latency = CpuLatencyHold.take()
        try:
            await self._pool.start(timeout_s)
        except WorkerError as error:
            self._latency.release()
            raise LoadError(str(error)) from error
        self._secrets = {}
        return self.workers

    def go(self, start_mono_ns: int) -> None:
        """Begin at a moment of time.monotonic_ns, which should be some milliseconds ahead."""
        self._gone = True
        self._require_pool().send({"do": "go", "at": start_mono_ns})

    async def wait(self) -> LoadEnd:
        """Wait for the end: all workers have reported, or one has died (then the others are killed)."""
        await self._ended.wait()
        pool = self._require_pool()
        # A worker that has reported its end exits by itself.
        await pool.stop({"do": "stop", "drain": False}, deadline_s=2.0)
        self._latency.release()
        finals = [part.final for part in self._parts if part.final is not None]
        final = merge(finals) if self._interrupted is None and len(finals) == self.workers else None
        # The workers share one origin, so that the host's first connect is the one that was due first.
        firsts = [part.first_connect for part in self._parts if part.first_connect is not None]
        due, begun = min(firsts) if firsts else (None, None)
        return LoadEnd(final, self._seconds, self._interrupted, self._stopped, due, begun)

    async def stop(self, drain: bool = True, reason: str = "stopped") -> None:
        """End the load now. Returns when it has ended."""
        if self._ended.is_set():
            return
        self._stopped = self._stopped or reason
        if not self._gone:
            await self.kill()
            return
        self._require_pool().send({"do": "stop", "drain": drain})
        deadline_s = STOP_MARGIN_S + (self.plan.scenario.drain_s if drain else 0)
        try:
            async with asyncio.timeout(deadline_s):
                await self._ended.wait()
        except TimeoutError:
            self._interrupted = f"a worker did not stop within {deadline_s:g} s"
            await self.kill()

    async def kill(self) -> None:
        """End at once, with no more words from the workers."""
        if self._pool is not None:
            await self._pool.kill()
        self._latency.release()
        if not self._ended.is_set():
            self._interrupted = self._interrupted or "killed"
            self._ended.set()

    def _require_pool(self) -> WorkerPool:
        if self._pool is None:
            raise LoadError("not prepared")
        return self._pool

    def _on_message(self, worker: Worker, message: dict[str, Any]) -> None:
        try:
            self._take(worker, message)
        except Exception as error:
            # Whoever waits for the end must not wait for ever.
            log.exception("a message of load worker %d", worker.number)
            self._interrupted = self._interrupted or f"what load worker {worker.number} said was not taken: {error!r}"
            self._ended.set()

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        part = self._parts[worker.number]
        if "line" in message:
            second = part.second(message["line"])
            part.lines[second.second] = second
            self._merge_seconds()
        elif "live" in message:
            part.live[message["live"]["second"]] = message["live"]
            self._merge_live()
        elif "end" in message:
            end = message["end"]
            # The final line's histograms are what the seconds before have not told yet.
            part.final = part.second(end["final"])
            part.first_connect = end["first_connect"]
            if all(p.final is not None for p in self._parts):
                self._ended.set()

    def _merge_seconds(self) -> None:
        while all(self._seconds + 1 in part.lines for part in self._parts):
            self._seconds += 1
            self._on_second(merge([part.lines.pop(self._seconds) for part in self._parts]))

    def _merge_live(self) -> None:
        second = min(max(part.live, default=0) for part in self._parts)
        if second <= self._live_second:
            return
        self._live_second = second
        rows = []
        recent = Histogram()
        for part in self._parts:
            # Every row's recent replies count once, also those of a worker that is a second ahead.
            for number in sorted(n for n in part.live if n <= second):
                row = part.live.pop(number)
                recent.add(Histogram.from_wire(row["recent"]))
            rows.append(row)
        figures, _ = latency(recent, recent.count)
        self._on_live(
            Live(
                second=second,
                connections_open=sum(row["connections_open"] for row in rows),
                sent=sum(row["sent"] for row in rows),
                received=sum(row["received"] for row in rows),
                outstanding=sum(row["outstanding"] for row in rows),
                errors=sum(row["errors"] for row in rows),
                recent={
                    f"{name}_ns": None if (value := getattr(figures, name)) is None else round(value * 1e9)
                    for name in ("p50", "p95", "p99")
                },
            )
        )

    def _on_end(self, worker: Worker, how: str) -> None:
        if self._parts[worker.number].final is None and not self._ended.is_set():
            self._interrupted = f"load worker {worker.number} ended before the load did: {how}"
            self._ended.set()
