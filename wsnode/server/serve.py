"""`wsnode serve`: the service that starts the workers, shows their metrics and drains them. It carries no load."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from wsnode import __version__
from wsnode.core.metrics import SERVER, for_job
from wsnode.exposition import Exposition
from wsnode.readiness import READY, STOPPING, notify
from wsnode.server.admission import Limits
from wsnode.server.listener import hold_port
from wsnode.server.mesh import Meeting
from wsnode.server.options import OptionError, ServeOptions, add_options
from wsnode.telemetry import Layout, SharedTable
from wsnode.workers import (
    Worker,
    WorkerError,
    WorkerPool,
    connections_per_worker,
    cores,
    raise_descriptor_limit,
    worker_count,
)

T = TypeVar("T")

LOW_DESCRIPTOR_LIMIT = 10_240
KILL_GRACE_S = 3.0
"""From a worker's own drain deadline to the parent's patience with it."""


class StartError(RuntimeError):
    """The service cannot start. The message says what is in the way and what to do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-command."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with these options (/etc/wsnode/serve.toml on lab hosts); the command line wins over it",
    )
    parser.add_argument("--check", action="store_true", help="only check the options, and start nothing")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop. Returns 0 after a drain, 2 where it cannot start, 128 + signal after a second one."""
    given = {name: value for name, value in vars(arguments).items() if name in ServeOptions.model_fields}
    try:
        options = ServeOptions.read(given, arguments.config)
        return 0 if arguments.check else asyncio.run(Service(options).run())
    except (OptionError, StartError) as error:
        print(f"wsnode serve: {error}", file=sys.stderr)
        return 2


class Service:
    """One server: its port, its workers, its /metrics."""

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._signals: asyncio.Queue[int] = asyncio.Queue()
        self._descriptor_limit = raise_descriptor_limit()
        self._workers = options.workers or worker_count(options.max_connections, cores(), self._descriptor_limit)
        self._aborted = 0

    async def run(self) -> int:
        """From start to drained. Raises StartError."""
        with _signals_to(self._signals):
            await self._startup()
            notify(READY)
            await self._signals.get()
            notify(STOPPING)
            return await self._shutdown()

    async def _startup(self) -> None:
        options, limits = self._options, self._limits()
        self._holder = _bound("--port", options.host, options.port, lambda: hold_port(options.host, options.port))
        port = self._holder.getsockname()[1]
        table = SharedTable.create(Layout(for_job(SERVER)), self._workers)
        self._exposition = Exposition(SERVER, table, self._workers)
        allowed = min(self._workers * limits.connections_per_worker, limits.connections_total or sys.maxsize)
        self._exposition.set("connections_limit", allowed)
        host = options.metrics_host or options.host
        metrics = _bound(
            "--metrics-port", host, options.metrics_port, lambda: self._exposition.start(host, options.metrics_port)
        )
        says, allowed_cores = self._says(allowed), sorted(os.sched_getaffinity(0))
        self._meeting = Meeting(self._workers) if self._workers > 1 else None
        self._pool = WorkerPool(
            module="wsnode.server.worker",
            count=self._workers,
            config=lambda number: {
                "host": options.host,
                "port": port,
                "engine": options.engine,
                "limits": asdict(limits),
                "says": says,
                "core": allowed_cores[number % len(allowed_cores)] if options.pin else None,
                "mesh": self._meeting.config(number) if self._meeting else None,
            },
            table=table,
            descriptors=lambda number: self._meeting.descriptors(number) if self._meeting else (),
            restart=True,
            on_message=self._drained,
            on_end=self._ended,
        )
        try:
            await self._pool.start()
        except WorkerError as error:
            raise StartError(str(error)) from error
        print(
            f"wsnode serve {__version__}: {_url('ws', options.host, port)}/echo,"
            f" metrics {_url('http', *metrics)}/metrics, engine {options.engine},"
            f" {self._workers} worker{'s' * (self._workers > 1)},"
            f" limits: {allowed} connections, {options.max_message_bytes} bytes a message,"
            f" {self._descriptor_limit} open files a worker",
            flush=True,
        )
        self._warn(allowed)

    async def _shutdown(self) -> int:
        timeout_s = self._options.drain_timeout_s
        _say(f"draining for at most {timeout_s:g} s; a second signal ends at once")
        drained = asyncio.create_task(
            self._pool.stop({"do": "drain", "timeout_s": timeout_s}, deadline_s=timeout_s + KILL_GRACE_S)
        )
        again = asyncio.create_task(self._signals.get())
        await asyncio.wait((drained, again), return_when=asyncio.FIRST_COMPLETED)
        if again.done():
            await self._pool.kill()
            await drained
            return 128 + again.result()
        again.cancel()
        if not drained.result():
            _say("killed workers that did not end in time")
        if self._meeting is not None:
            self._meeting.close()
        _say(f"drained, {self._aborted} connections cut off at the deadline")
        return 0

    def _limits(self) -> Limits:
        options = self._options
        return Limits(
            workers=self._workers,
            connections_total=options.max_connections,
            # A link to each other worker takes a descriptor too
            connections_per_worker=max(1, connections_per_worker(self._descriptor_limit) - (self._workers - 1)),
            message_bytes=options.max_message_bytes,
            backlog_bytes=options.max_backlog_bytes,
            ping_interval_s=options.ping_interval_s or None,
            ping_timeout_s=options.ping_timeout_s or None,
            compression=options.compression,
            coalesce_s=options.coalesce_ms / 1000,
        )

    def _says(self, allowed: int) -> dict[str, object]:
        """What /healthz tells: which start this is, and every option as it is in force."""
        given = self._options.model_dump(exclude={"host", "port", "metrics_host", "metrics_port"})
        in_force = {"workers": self._workers, "max_connections": allowed, "open_file_limit": self._descriptor_limit}
        said = {"start_id": secrets.token_hex(8), "wsnode": __version__, **given, **in_force}
        # 10 and 10.0 are the same option, wherever it was given.
        return {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in said.items()}

    def _warn(self, allowed: int) -> None:
        limit, asked = self._descriptor_limit, self._options.max_connections
        remedy = "raise `ulimit -n` or LimitNOFILE"
        if asked is not None and asked > allowed:
            enough = worker_count(asked, 1, limit)
            _say(
                f"warning: --max-connections {asked} is more than {self._workers} workers can hold with {limit} open"
                f" files each; {allowed} are accepted: use --workers {enough}, or {remedy}"
            )
        elif limit < LOW_DESCRIPTOR_LIMIT:
            _say(
                f"warning: the open-file limit is {limit}, so a worker holds {allowed // self._workers}"
                f" connections at most: {remedy}"
            )

    def _ended(self, worker: Worker, how: str) -> None:
        self._exposition.add("worker_restarts")
        if self._meeting is not None:
            self._meeting.ended(worker.number)
        _say(
            f"worker {worker.number} (pid {worker.pid}) ended unasked ({how}), its connections are lost;"
            " starting it again"
        )

    def _drained(self, _: Worker, message: dict[str, Any]) -> None:
        self._aborted += message["aborted"]


def _bound(option: str, host: str, port: int, bind: Callable[[], T]) -> T:
    """What `bind` returns. Raises StartError, in words, where it cannot."""
    try:
        return bind()
    except OSError as error:
        why = {
            errno.EADDRINUSE: f"port {port} on {host} is taken: stop what listens there, or choose another by {option}",
            errno.EACCES: f"port {port} needs a privilege that this user has not: choose one above 1023 by {option}",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine",
        }.get(error.errno or 0, f"cannot listen on {host}: {error.strerror}")
        raise StartError(why) from error


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _say(text: str) -> None:
    print(f"wsnode serve: {text}", file=sys.stderr, flush=True)


@contextmanager
def _signals_to(queue: asyncio.Queue[int]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, queue.put_nowait, number)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
