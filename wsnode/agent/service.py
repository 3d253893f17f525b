"""The agent's service: a Unix socket, its channels, /metrics, and an orderly end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

import uvloop

from wsnode import __version__
from wsnode.agent.channel import Channel
from wsnode.agent.config import Config, ConfigError
from wsnode.agent.hooks import Hooks
from wsnode.agent.keeper import Keeper
from wsnode.agent.store import DataInUse, Store, StoreError
from wsnode.core.metrics import AGENT, for_job
from wsnode.core.protocol import DEADMAN_S, MAX_LINE_BYTES, Hello
from wsnode.environment import boot_id
from wsnode.exposition import Exposition
from wsnode.load.behaviour import names as behaviours
from wsnode.load.ports import SourcePorts
from wsnode.readiness import READY, STOPPING, notify
from wsnode.telemetry import MAX_SLOTS, Layout, SharedTable
from wsnode.workers import cores, raise_descriptor_limit

log = logging.getLogger("wsnode.agent")

CHANNELS = 64
SOCKET_MODE = 0o660
LONGEST_SOCKET_PATH = 107
"""Bytes: sun_path holds 108, the last one is 0."""


class ServiceError(RuntimeError):
    """The service cannot start. The message says why and how to fix it."""


def serve(arguments: argparse.Namespace) -> int:
    """`wsnode agent service`: until SIGTERM or SIGINT. 0: ended in order, 2: could not start."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        config = Config.read(arguments.config)
        if arguments.cores is not None:
            if arguments.cores < 1:
                raise ConfigError(f"--cores {arguments.cores}: expected 1 or more")
            config = config.model_copy(update={"cores": arguments.cores})
        store = Store(Path(arguments.data))
        listener = listen(arguments.socket)
        service = Service(
            listener,
            store,
            config,
            name=arguments.name,
            role=arguments.role,
            deadman_s=DEADMAN_S if arguments.deadman is None else arguments.deadman,
            hooks=Hooks(Path(arguments.hooks), arguments.health),
        )
        if arguments.metrics_port is not None:
            service.show_metrics(arguments.metrics_host, arguments.metrics_port)
    except (ConfigError, StoreError, DataInUse, ServiceError) as error:
        sys.stderr.write(f"wsnode agent service: {error}\n")
        return 2
    try:
        uvloop.run(service.run())
    finally:
        with suppress(FileNotFoundError):
            os.unlink(arguments.socket)
    return 0


def listen(path: str) -> socket.socket:
    """The service's socket, for its owner and group. One that a dead agent left is replaced. Raises ServiceError."""
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ServiceError(
            f"the socket's path {path!r} has {len(os.fsencode(path))} bytes; Unix sockets allow {LONGEST_SOCKET_PATH}:"
            " give a shorter --socket"
        )
    probe = socket.socket(socket.AF_UNIX)
    with probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError as error:
            raise ServiceError(f"cannot listen on {path}: {error.strerror}") from error
        else:
            raise ServiceError(f"cannot listen on {path}: another agent answers there; stop it first")
    listener = socket.socket(socket.AF_UNIX)
    # Nobody else may connect in the moment between bind and chmod, so the mask, not the mode, is what protects.
    mask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise ServiceError(f"cannot listen on {path}: {error.strerror}; does its folder exist?") from error
    finally:
        os.umask(mask)
    listener.listen(CHANNELS)
    listener.setblocking(False)
    return listener


class Service:
    """An agent from its start to its end."""

    def __init__(
        self,
        listener: socket.socket,
        store: Store,
        config: Config,
        *,
        name: str,
        role: str,
        deadman_s: float,
        hooks: Hooks,
    ) -> None:
        may_load = role == "load_generator"
        self._listener = listener
        self._table = SharedTable.create(Layout(for_job(AGENT)), slots=MAX_SLOTS)
        self._exposition = Exposition(AGENT, self._table, workers=config.cores or cores())
        self._channels: set[Channel] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._keeper = Keeper(
            store,
            config,
            name=name,
            may_load=may_load,
            deadman_s=deadman_s,
            hooks=hooks,
            table=self._table,
            on_active=self._show_run,
            on_idle=self._show_none,
            on_adopted=self._dismiss_older,
        )
        self._hello = Hello(
            wsnode=__version__,
            name=name,
            boot_id=boot_id(),
            agent_start_id=secrets.token_hex(8),
            capabilities=("observe", "load") if may_load else ("observe",),
            behaviours=behaviours(),
        )

    def show_metrics(self, host: str, port: int) -> None:
        """Serve /metrics from now on. Raises ServiceError where the address is taken."""
        try:
            self._exposition.start(host, port)
        except OSError as error:
            raise ServiceError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; give another --metrics-port"
            ) from error

    async def run(self) -> None:
        """Answer until SIGTERM or SIGINT, then end the load and leave."""
        raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, stopping.set)
        await self.run_until(stopping)

    async def run_until(self, stopping: asyncio.Event) -> None:
        """The same until an event is set."""
        self._keeper.recover()
        server = await asyncio.start_unix_server(self._accept, sock=self._listener, limit=MAX_LINE_BYTES)
        log.info("%s answers, agent %s", self._hello.name, self._hello.agent_start_id)
        notify(READY)
        await stopping.wait()
        log.info("stopping")
        notify(STOPPING)
        server.close()
        await self._keeper.shut_down("the agent was stopped")
        if self._serving:
            # Followers get the end that shut_down has written.
            await asyncio.wait(self._serving, timeout=0.5)
        for channel in list(self._channels):
            channel.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=2)
        self._keeper.close()
        self._exposition.close()
        self._table.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._channels) >= CHANNELS:
            writer.close()
            return
        self._serving.add(task)
        channel = Channel(reader, writer, self._keeper)
        self._channels.add(channel)
        try:
            await channel.serve(self._hello)
        finally:
            self._channels.discard(channel)
            self._serving.discard(task)

    def _show_run(self, run_id: str, address: str, sources: int) -> None:
        self._exposition.info("run_info", {"run_id": run_id})
        self._exposition.watch("source_ports", SourcePorts(self._table, address, sources).ratio)

    def _show_none(self) -> None:
        self._exposition.info("run_info", None)
        self._exposition.watch("source_ports", None)

    def _dismiss_older(self, run_id: str, epoch: int) -> None:
        for channel in list(self._channels):
            if channel.run_id == run_id and channel.epoch < epoch:
                channel.dismiss(f"epoch {epoch} has run {run_id} now")
