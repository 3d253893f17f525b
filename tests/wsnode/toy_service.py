"""A service for tests of what happens when it is killed: prints its workers' process ids and waits."""

from __future__ import annotations

import asyncio

from wsnode.workers import WorkerPool


async def serve() -> None:
    pool = WorkerPool(module="tests.wsnode.toy_worker", count=2, config={})
    await pool.start()
    print(*(worker.pid for worker in pool.workers.values()), flush=True)
    pool.send({"do": "hang"})
    await pool.wait()


if __name__ == "__main__":
    asyncio.run(serve())
