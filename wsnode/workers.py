"""Worker processes: how many, started, told, watched, replaced, ended.

`WorkerPool` is the service's side, `Assignment` the worker's. They talk over a socket pair, one JSON object a line in
both directions. A worker's first line is `{"ready": true, …}`, or `{"failed": "why"}` before it exits.

    # the service                                       # wsnode/server/worker.py
    pool = WorkerPool("wsnode.server.worker", count=2,   assignment = Assignment.take()
                      config={"host": …}, table=table)   uvloop.run(main(assignment))
    await pool.start()                                   #   control = await assignment.open()
    pool.send({"do": "drain"})                           #   control.send({"ready": True})
    await pool.stop({"do": "stop"}, deadline_s=10)       #   while order := await control.receive(): …

Workers are executed anew, not forked from a running loop, ignore SIGINT and SIGTERM (they take orders from their parent
alone) and die with it: by the kernel's parent-death signal, and because the control channel ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from wsnode.telemetry import SharedTable

SPARE_DESCRIPTORS = 64
"""Descriptors of a process that are not for connections: libraries, logs, control, handshakes being refused."""
FILL = 0.9
"""SO_REUSEPORT spreads connections unevenly: plan to fill a worker's descriptors to this share."""

LINE_LIMIT = 16 << 20
READY_TIMEOUT_S = 30.0
_CALM_S = 10.0
_PR_SET_PDEATHSIG = 1

Message = Mapping[str, Any]


class WorkerError(RuntimeError):
    """A worker that could not be started. The message says which one and why."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def worker_count(connections: int | None, cores: int, descriptor_limit: int) -> int:
    """Processes for that many connections: max(cores, ⌈connections / (0.9 × (open-file limit − 64))⌉).

    None stands for no configured number: one process for each core.
    """
    if connections is None:
        return cores
    return max(cores, math.ceil(connections / (FILL * connections_per_worker(descriptor_limit))))


def connections_per_worker(descriptor_limit: int) -> int:
    """Connections that a process can hold under an open-file limit."""
    return max(1, descriptor_limit - SPARE_DESCRIPTORS)


def raise_descriptor_limit() -> int:
    """Raise the open-file limit of this process to its hard limit. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = int(Path("/proc/sys/fs/nr_open").read_text())
    if soft != hard:
        with suppress(ValueError, OSError):  # a kernel that caps lower than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class Control:
    """One end of the line between a service and a worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Self:
        """Take over a connected stream socket."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=LINE_LIMIT))

    def send(self, message: Message) -> None:
        """Send one object. Without effect where the other side is gone, which `receive` tells."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """The next object; None when the other side is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    async def drain(self) -> None:
        """Wait until what was sent is handed to the kernel, or the other side is gone."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker process was started for."""

    number: int
    """0 … count − 1 in its pool."""
    slot: int | None
    """Its slot in the shared table, also the value of its `worker` label; None without a table."""
    table_fd: int | None
    config: dict[str, Any]
    socket: socket.socket
    descriptor_limit: int
    """Open-file limit in force, already raised."""

    @classmethod
    def take(cls) -> Self:
        """Called first in a worker's main, before its event loop: reads what the service gave this process to do.

        Exits where the service is gone already.
        """
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        sock = socket.socket(fileno=int(sys.argv[1]))
        with sock.makefile("rb", buffering=0) as lines:  # unbuffered: the next line is the event loop's
            first = lines.readline()
        if not first.endswith(b"\n"):
            raise SystemExit("the service that started this worker is gone")
        order = json.loads(first)
        if os.getppid() != order["parent_pid"]:  # it ended before the death signal was set
            raise SystemExit("the service that started this worker is gone")
        return cls(order["number"], order["slot"], order["table_fd"], order["config"], sock, raise_descriptor_limit())

    async def open(self) -> Control:
        """The control channel, in the running event loop."""
        return await Control.open(self.socket)


@dataclass(slots=True)
class Worker:
    """A worker process as its service sees it."""

    number: int
    slot: int | None
    process: asyncio.subprocess.Process
    control: Control
    ready: dict[str, Any] | None = None
    """Its first line, once it has come."""
    failed: str | None = None

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass(slots=True, kw_only=True)
class WorkerPool:
    """`count` processes of one module. Used inside one event loop, whose thread must live as long as the workers: the
    parent-death signal is that of the thread that started them.

    With a table each worker has a slot, folded when it ends and free again after `stop`.
    """

    module: str
    count: int
    config: Message | Callable[[int], Message]
    """Given to every worker, or made from its number."""
    table: SharedTable | None = None
    descriptors: Callable[[int], tuple[int, ...]] = lambda _: ()
    """By number, further descriptors that a worker inherits under the same numbers."""
    restart: bool = False
    """Replace workers that end unasked: a server does, a load must not."""
    on_message: Callable[[Worker, dict[str, Any]], None] | None = None
    """Called with each line after `ready`."""
    on_end: Callable[[Worker, str], None] | None = None
    """Called when a worker has ended unasked, with how it ended. Before it is replaced, if it is."""
    workers: dict[int, Worker] = field(default_factory=dict)
    """Living workers by number."""
    restarts: int = 0
    _slots: list[int | None] = field(default_factory=list)
    _watches: list[asyncio.Task[None]] = field(default_factory=list)
    _all_ready: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, ready_timeout_s: float = READY_TIMEOUT_S) -> None:
        """Start all workers and wait until each is ready.

        Raises WorkerError where one is not, after ending the others.
        """
        self._slots = [self.table.acquire() if self.table else None for _ in range(self.count)]
        self._watches = [asyncio.create_task(self._watch(number)) for number in range(self.count)]
        ready = asyncio.create_task(self._all_ready.wait())
        done, _ = await asyncio.wait(
            (ready, *self._watches), timeout=ready_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if ready in done:
            return
        ready.cancel()
        failures = [str(error) for task in done if (error := task.exception())]
        silent = [n for n in range(self.count) if not ((worker := self.workers.get(n)) and worker.ready)]
        await self.kill()
        raise WorkerError(
            "; ".join(failures)
            or f"workers {silent} were not ready within {ready_timeout_s:g} s: is the host overloaded?"
        )

    def send(self, message: Message) -> None:
        """Send one object to every living worker."""
        for worker in self.workers.values():
            worker.control.send(message)

    async def stop(self, order: Message, deadline_s: float) -> bool:
        """Send a last order and wait for the workers' end; kill those still there after the deadline.

        Returns whether all ended by themselves.
        """
        self._stopping.set()
        self.send(order)
        pending = self._watches and (await asyncio.wait(self._watches, timeout=deadline_s))[1]
        await self.kill()
        return not pending

    async def kill(self) -> None:
        """End all workers at once."""
        self._stopping.set()
        for worker in self.workers.values():
            with suppress(ProcessLookupError):
                worker.process.kill()
        await asyncio.gather(*self._watches, return_exceptions=True)
        for slot in self._slots:
            if self.table and slot is not None:
                self.table.release(slot)
        self._slots = []

    async def wait(self) -> None:
        """Wait until no worker is left and none will be started."""
        await asyncio.gather(*self._watches)

    async def _watch(self, number: int) -> None:
        """One worker's life, and its successors'."""
        clock, crashes = asyncio.get_running_loop(), 0
        while not self._stopping.is_set():
            worker = await self._spawn(number)
            if self._stopping.is_set():
                worker.process.kill()
            began = clock.time()
            try:
                how = await self._follow(worker)
            finally:
                self.workers.pop(number, None)
                worker.control.close()
                if self.table and worker.slot is not None:
                    self.table.fold(worker.slot)
            if self._stopping.is_set():
                return
            if not self._all_ready.is_set():
                raise WorkerError(f"worker {number} could not start: {worker.failed or how}")
            if self.on_end:
                self.on_end(worker, worker.failed or how)
            if not self.restart:
                return
            self.restarts += 1
            crashes = 0 if clock.time() - began > _CALM_S else crashes + 1
            if crashes > 1:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(5.0, 0.1 * 2.0 ** (crashes - 2))):
                        await self._stopping.wait()

    async def _spawn(self, number: int) -> Worker:
        ours, theirs = socket.socketpair()
        slot = self._slots[number]
        table_fd = self.table.fd if self.table else None
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.module,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(
                    theirs.fileno(),
                    *([] if table_fd is None else [table_fd]),
                    *self.descriptors(number),
                ),
                start_new_session=True,  # the terminal's Ctrl-C is for the parent, which drains
            )
        control = await Control.open(ours)
        worker = self.workers[number] = Worker(number, slot, process, control)
        control.send(
            {
                "number": number,
                "slot": slot,
                "table_fd": table_fd,
                "parent_pid": os.getpid(),
                "config": self.config(number) if callable(self.config) else self.config,
            }
        )
        return worker

    async def _follow(self, worker: Worker) -> str:
        """Read a worker's lines until it ends. Returns how it ended, in words."""
        while (message := await worker.control.receive()) is not None:
            if "failed" in message:
                worker.failed = message["failed"]
            elif worker.ready is None:
                worker.ready = message
                if len(self.workers) == self.count and all(w.ready for w in self.workers.values()):
                    self._all_ready.set()
            elif self.on_message:
                self.on_message(worker, message)
        try:
            async with asyncio.timeout(2):
                code = await worker.process.wait()
        except TimeoutError:  # its channel is closed, so it can be told nothing any more
            worker.process.kill()
            code = await worker.process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
