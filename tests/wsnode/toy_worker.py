"""A worker for tests of the pool: does what it is told."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from wsnode.core.metrics import SERVER, for_job
from wsnode.telemetry import Layout, SharedTable
from wsnode.workers import Assignment


async def work(assignment: Assignment) -> int:
    control = await assignment.open()
    if why := assignment.config.get("fail"):
        control.send({"failed": why})
        await control.drain()
        return 1
    if assignment.config.get("crash"):
        return 7
    if assignment.table_fd is not None:
        table = SharedTable.attach(assignment.table_fd, Layout(for_job(SERVER)))
        counters = table.layout.counters()
        writer = table.writer(assignment.slot, counters)
        counters.messages_received = 1
        writer.flush()
    control.send({"ready": True, "number": assignment.number, "slot": assignment.slot, "config": assignment.config})
    while (order := await control.receive()) is not None:
        if order["do"] == "stop":
            return 0
        if order["do"] == "exit":
            os._exit(order["code"])
        if order["do"] == "hang":
            time.sleep(60)
        control.send({"answer": order, "number": assignment.number})
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(work(Assignment.take())))
