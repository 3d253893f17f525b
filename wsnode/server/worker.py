"""One process of `wsnode serve`: started by `wsnode.workers.WorkerPool`, not by hand."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from typing import Any

import uvloop

from wsnode.core.metrics import SERVER, for_job
from wsnode.server.admission import Admission, Limits
from wsnode.server.engines import Engine, make_engine
from wsnode.server.listener import join_port
from wsnode.server.mesh import Mesh
from wsnode.telemetry import Layout, LoopMonitor, SharedTable
from wsnode.workers import Assignment, Control

log = logging.getLogger("wsnode.server")


async def work(assignment: Assignment) -> int:
    """Serve until told to drain, or until the service is gone. Returns the exit code."""
    control = await assignment.open()
    config = assignment.config
    if (why := _pin(config["core"])) is not None:
        control.send({"failed": why})
        await control.drain()
        return 1
    try:
        listener = join_port(config["host"], config["port"])
    except OSError as error:
        control.send({"failed": f"cannot listen on {config['host']}:{config['port']}: {error.strerror}"})
        await control.drain()
        return 1
    assert assignment.table_fd is not None
    assert assignment.slot is not None
    table = SharedTable.attach(assignment.table_fd, Layout(for_job(SERVER)))
    counters = table.layout.counters()
    counters.descriptor_limit = assignment.descriptor_limit
    writer = table.writer(assignment.slot, counters)
    monitor = LoopMonitor(counters, writer)
    monitor.start()
    admission = Admission(Limits(**config["limits"]), counters, table, writer, config["says"])
    asyncio.get_running_loop().set_exception_handler(_count_internal_errors(admission))
    mesh = Mesh.take(assignment.number, config["mesh"], admission.limits.message_bytes, counters)
    await _serve(control, make_engine(config["engine"], admission, mesh), mesh, admission, listener)
    monitor.stop()
    return 0


async def _serve(
    control: Control, engine: Engine, mesh: Mesh | None, admission: Admission, listener: socket.socket
) -> None:
    if mesh is not None and not await mesh.start(engine.arrived):
        log.warning("worker %d serves without all its links to other workers", mesh.number)
    await engine.start(listener)
    control.send({"ready": True})
    order = await control.receive()
    if order is not None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + order["timeout_s"]
        admission.draining = True
        if mesh is not None:
            await mesh.settle(order["timeout_s"])
        control.send({"aborted": await engine.drain(max(0.0, deadline - clock()))})
        await control.drain()
    if mesh is not None:
        mesh.close()


def _pin(core: int | None) -> str | None:
    """Keep this process on one core. Returns why it is not there; None where it is, or is left free."""
    if core is None:
        return None
    try:
        os.sched_setaffinity(0, {core})
    except OSError as error:
        return f"cannot be kept on core {core}: {error.strerror}"
    kept = os.sched_getaffinity(0)
    return None if kept == {core} else f"was to be kept on core {core}, and may run on {sorted(kept)}"


def _count_internal_errors(admission: Admission) -> Any:
    """A handler for what no connection's own code caught, such as a failing accept."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        admission.failed("internal")
        loop.default_exception_handler(context)

    return handle


if __name__ == "__main__":
    sys.exit(uvloop.run(work(Assignment.take())))
