"""One process of `wsnode serve`: started by `wsnode.workers.WorkerPool`, not by hand."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvloop

from wsnode.core.metrics import SERVER, for_job
from wsnode.server.admission import Admission, Limits
from wsnode.server.engines import make_engine
from wsnode.server.listener import join_port
from wsnode.telemetry import Layout, LoopMonitor, SharedTable
from wsnode.workers import Assignment, Control


async def work(assignment: Assignment) -> int:
    """Serve until told to drain, or until the service is gone. Returns the exit code."""
    control = await assignment.open()
    config = assignment.config
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
    await _serve(control, config["engine"], admission, listener)
    monitor.stop()
    return 0


async def _serve(control: Control, engine_name: str, admission: Admission, listener: socket.socket) -> None:
    engine = make_engine(engine_name, admission)
    await engine.start(listener)
    control.send({"ready": True})
    order = await control.receive()
    if order is not None:
        admission.draining = True
        control.send({"aborted": await engine.drain(order["timeout_s"])})
        await control.drain()


def _count_internal_errors(admission: Admission) -> Any:
    """A handler for what no connection's own code caught, such as a failing accept."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        admission.failed("internal")
        loop.default_exception_handler(context)

    return handle


if __name__ == "__main__":
    sys.exit(uvloop.run(work(Assignment.take())))
