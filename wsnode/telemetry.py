"""Counting in worker processes, adding up in their parent.

A worker counts with plain attributes on `Counters` and copies them ten times a second into its slot of a
`SharedTable`; the service that started it, which carries no load, adds the slots up (`wsnode.exposition`). Nothing in
a hot path touches a lock, a system call or prometheus-client, whose `Counter.inc` alone costs twelve attribute
increments.

    # the service                                      # each worker
    layout = Layout(metrics.for_job("wsnode-server"))   layout = Layout(metrics.for_job("wsnode-server"))
    table = SharedTable.create(layout, slots=8)         table = SharedTable.attach(fd, layout)
    slot = table.acquire()                              counters = layout.counters()
    ...                                                 monitor = LoopMonitor(counters, table.writer(slot, counters))
    table.release(slot)  # after the worker's end       monitor.start(); counters.messages_received += 1

All values are unsigned 64-bit integers in units of 1 / `Metric.scale`. Totals never decrease: what a worker had counted
is folded into a base before its slot is used again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from wsnode.core.metrics import Metric

MAX_SLOTS = 256
"""Slots of a table that outlives its workers. At some 2 KiB each this bounds the table, not the work."""

BEAT_NS = 10_000_000
FLUSH_NS = 100_000_000
SECOND_NS = 1_000_000_000

_HEADER_WORDS = 3  # digest of the layout, number of slots, words of a slot
_SLOT_HEADER_WORDS = 3  # sequence, time of the last flush, process id
_SEQUENCE, _FLUSHED_AT, _PID = range(_SLOT_HEADER_WORDS)


class Buckets:
    """A histogram of integers. Hot paths may write the two lines of `observe` in place."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count a value, in 1 / scale of the metric's unit (nanoseconds for times)."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """What one worker has counted: one attribute for each metric, named by `Metric.field`.

    Counters and gauges are integers, metrics with a label are dicts with the declared values as keys, histograms are
    `Buckets`. An undeclared name raises AttributeError, an undeclared label value KeyError.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Layout:
    """Where each metric's cells lie in a slot, derived from the catalogue."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        counted = [metric for metric in metrics if metric.source == "worker"]
        self.metrics = tuple(metrics)
        self.plain = tuple(m for m in counted if not m.values and m.kind != "histogram")
        self.labelled = tuple(m for m in counted if m.values)
        self.histograms = tuple(m for m in counted if m.kind == "histogram")
        self.cells: dict[str, slice] = {}
        """Cells of each field. Of a histogram: the count of each bucket, the overflow, the sum."""
        self.size = 0
        for metric in (*self.plain, *self.labelled, *self.histograms):
            width = len(metric.buckets) + 2 if metric.kind == "histogram" else max(1, len(metric.values))
            self.cells[metric.field] = slice(self.size, self.size + width)
            self.size += width
        self.gauges = tuple(self.cells[m.field].start for m in self.plain if m.kind == "gauge")
        described = repr([(m.name, m.values, m.bounds, self.cells[m.field]) for m in counted])
        self.digest = int.from_bytes(hashlib.sha256(described.encode()).digest()[:8], "big")
        self._type = type("Counters", (Counters,), {"__slots__": tuple(self.cells)})

    def counters(self) -> Counters:
        """A new set of counters, all at 0."""
        counters: Counters = self._type()
        for metric in self.plain:
            setattr(counters, metric.field, 0)
        for metric in self.labelled:
            setattr(counters, metric.field, dict.fromkeys(metric.values, 0))
        for metric in self.histograms:
            setattr(counters, metric.field, Buckets(metric.bounds))
        return counters


class SlotWriter:
    """A worker's own slot. Only this process writes to it."""

    def __init__(self, table: SharedTable, slot: int, counters: Counters) -> None:
        layout = table.layout
        self._table = table
        self._start = table.start_of(slot)
        self._counters = counters
        self._plain = attrgetter(*(metric.field for metric in layout.plain))
        self._labelled: list[dict[str, int]] = [getattr(counters, m.field) for m in layout.labelled]
        self._histograms: list[Buckets] = [getattr(counters, m.field) for m in layout.histograms]
        self._connections = self._start + _SLOT_HEADER_WORDS + layout.cells["connections"].start
        table.words[self._start + _PID] = os.getpid()
        self.flush()

    def flush(self) -> None:
        """Copy all counters into the slot. A reader sees all of them or none (a sequence number, odd meanwhile)."""
        cells = array("Q", self._plain(self._counters))
        for by_value in self._labelled:
            cells.extend(by_value.values())
        for buckets in self._histograms:
            cells.extend(buckets.counts)
            cells.append(buckets.total)
        words, start = self._table.words, self._start
        first = start + _SLOT_HEADER_WORDS
        words[start + _SEQUENCE] += 1
        words[first : first + len(cells)] = memoryview(cells)
        words[start + _FLUSHED_AT] = time.monotonic_ns()
        words[start + _SEQUENCE] += 1

    def flush_connections(self) -> None:
        """Copy only `connections`, at once, for a limit that several workers share."""
        self._table.words[self._connections] = self._counters.connections


@dataclass(frozen=True, slots=True)
class SlotReading:
    """One slot as the service sees it: `cells` with the base of earlier workers added."""

    slot: int
    pid: int
    """0 where no worker has the slot."""
    flushed_at_ns: int
    """time.monotonic_ns of the worker's last flush; 0 where it has not flushed."""
    cells: list[int]


class SharedTable:
    """Slots of counters in memory shared between a service and its workers. Safe to use from several threads."""

    def __init__(self, fd: int, layout: Layout, slots: int, *, owner: bool) -> None:
        self.fd = fd
        self.layout = layout
        self.slots = slots
        self.used = 0
        """Slots 0 … used − 1 have had a worker."""
        self._owner = owner
        self._width = _SLOT_HEADER_WORDS + layout.size
        self._memory = mmap.mmap(fd, _HEADER_WORDS * 8 + slots * self._width * 8)
        self.words = memoryview(self._memory).cast("Q")
        self._base = [[0] * layout.size for _ in range(slots)] if owner else []
        self._taken = [False] * slots
        self._lock = threading.Lock()

    @classmethod
    def create(cls, layout: Layout, slots: int) -> Self:
        """A new table. Its `fd` goes to the workers by `pass_fds`."""
        fd = os.memfd_create("wsnode-telemetry")
        os.ftruncate(fd, _HEADER_WORDS * 8 + slots * (_SLOT_HEADER_WORDS + layout.size) * 8)
        table = cls(fd, layout, slots, owner=True)
        table.words[:_HEADER_WORDS] = memoryview(array("Q", (layout.digest, slots, table._width)))
        return table

    @classmethod
    def attach(cls, fd: int, layout: Layout) -> Self:
        """The table that a parent created. Raises RuntimeError where its layout is another one."""
        header = memoryview(os.pread(fd, _HEADER_WORDS * 8, 0)).cast("Q")
        digest, slots, width = header.tolist()
        if digest != layout.digest or width != _SLOT_HEADER_WORDS + layout.size:
            raise RuntimeError(
                "the counters' table was laid out by another version of wsnode than this worker runs;"
                " restart the service that started it"
            )
        return cls(fd, layout, slots, owner=False)

    def start_of(self, slot: int) -> int:
        """Index of a slot's first word."""
        if not 0 <= slot < self.slots:
            raise IndexError(f"slot {slot} is not one of the table's 0 to {self.slots - 1}")
        return _HEADER_WORDS + slot * self._width

    # --- for a worker ---

    def writer(self, slot: int, counters: Counters) -> SlotWriter:
        """What the worker that owns `slot` flushes through."""
        return SlotWriter(self, slot, counters)

    def connections(self) -> int:
        """Connections of all workers as last flushed."""
        first = _HEADER_WORDS + _SLOT_HEADER_WORDS + self.layout.cells["connections"].start
        return sum(self.words[first :: self._width])

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Meanwhile no other process is in here: for what depends on all slots. Of a process that dies in it the kernel
        takes the lock back."""
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)

    # --- for the service ---

    def acquire(self) -> int:
        """The lowest free slot. Raises RuntimeError where all are taken."""
        with self._lock:
            for slot, taken in enumerate(self._taken):
                if not taken:
                    self._taken[slot] = True
                    self.used = max(self.used, slot + 1)
                    return slot
        raise RuntimeError(f"all {self.slots} slots of the counters' table are taken: fewer workers at once")

    def fold(self, slot: int) -> None:
        """Keep what the slot's worker, which has ended, had counted, and clear the slot for the next one."""
        with self._lock:
            self._fold(slot)

    def release(self, slot: int) -> None:
        """Like `fold`, and the slot is free."""
        with self._lock:
            self._fold(slot)
            self._taken[slot] = False

    def read(self) -> Iterator[SlotReading]:
        """All slots that have had a worker, each consistent in itself."""
        for slot in range(self.used):
            with self._lock:
                start = self.start_of(slot)
                cells = [live + base for live, base in zip(self._cells(slot), self._base[slot], strict=True)]
                yield SlotReading(slot, self.words[start + _PID], self.words[start + _FLUSHED_AT], cells)

    def totals(self) -> list[int]:
        """The sum of all slots, cell by cell."""
        sums = [0] * self.layout.size
        for reading in self.read():
            sums = [total + cell for total, cell in zip(sums, reading.cells, strict=True)]
        return sums

    def series(self, field: str) -> list[int]:
        """One metric summed over all slots, in the order of `Layout.cells`."""
        return self.totals()[self.layout.cells[field]]

    def total(self, field: str) -> int:
        """A counter or gauge summed over all slots and label values."""
        return sum(self.series(field))

    def close(self) -> None:
        """Give the memory back. The table must not be used afterwards."""
        self.words.release()
        self._memory.close()
        if self._owner:
            os.close(self.fd)

    def _cells(self, slot: int) -> list[int]:
        start = self.start_of(slot)
        first, end = start + _SLOT_HEADER_WORDS, start + self._width
        for attempt in range(50):
            before = self.words[start + _SEQUENCE]
            copy = bytes(self.words[first:end])
            if before % 2 == 0 and self.words[start + _SEQUENCE] == before:
                break
            if attempt > 2:
                time.sleep(0.0002)
        # Never even: its writer died in the middle. Each cell is then an old or a new value, and none is torn
        return memoryview(copy).cast("Q").tolist()

    def _fold(self, slot: int) -> None:
        cells = self._cells(slot)
        for gauge in self.layout.gauges:
            cells[gauge] = 0
        self._base[slot] = [base + cell for base, cell in zip(self._base[slot], cells, strict=True)]
        start = self.start_of(slot)
        self.words[start : start + self._width] = memoryview(array("Q", bytes(self._width * 8)))


class LoopMonitor:
    """A worker's heartbeat: measures the event loop's delay, CPU use once a second, and flushes the counters.

    A beat is due 10 ms after the one before it. uvloop's timers have a resolution of 1 ms and may fire early, so the
    delay is measured on the monotonic clock and an early beat counts as 0.
    """

    def __init__(self, counters: Counters, writer: SlotWriter) -> None:
        self._counters = counters
        self._writer = writer
        self._handle: asyncio.TimerHandle | None = None
        self._worst = 0

    def start(self) -> None:
        """Begin to beat. Called in the event loop's thread."""
        self._loop = asyncio.get_running_loop()
        now = time.perf_counter_ns()
        self._flush_at = now
        self._begin_second(now)
        self._plan(now)

    def stop(self) -> None:
        """Stop beating and flush a last time."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._flush()

    def _plan(self, now: int) -> None:
        self._due = now + BEAT_NS
        self._handle = self._loop.call_later(BEAT_NS / SECOND_NS, self._beat)

    def _beat(self) -> None:
        now = time.perf_counter_ns()
        delay = max(0, now - self._due)
        self._counters.eventloop_delay.observe(delay)
        self._worst = max(self._worst, delay)
        if now - self._second_began >= SECOND_NS:
            self._end_second(now)
            self._begin_second(now)
        if now >= self._flush_at:
            self._flush()
            self._flush_at = now + FLUSH_NS
        self._plan(now)

    def _begin_second(self, now: int) -> None:
        self._second_began = now
        self._process_began = time.process_time_ns()
        self._thread_began = time.thread_time_ns()
        self._worst = 0

    def _end_second(self, now: int) -> None:
        counters, elapsed = self._counters, now - self._second_began
        counters.eventloop_lag = self._worst
        counters.cpu_usage = (time.process_time_ns() - self._process_began) * 100_000 // elapsed
        counters.eventloop_utilization = (time.thread_time_ns() - self._thread_began) * 1_000_000 // elapsed

    def _flush(self) -> None:
        self._counters.cpu_time = time.process_time_ns()
        self._writer.flush()
