"""Worker processes and their service."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys

import pytest

from tests.wsnode.serving import ROOT, eventually, is_gone
from wsnode.core.metrics import SERVER, for_job
from wsnode.telemetry import Layout, SharedTable
from wsnode.workers import WorkerError, WorkerPool, raise_descriptor_limit, worker_count


def pool(count: int = 2, config=None, **options) -> WorkerPool:
    return WorkerPool(module="tests.wsnode.toy_worker", count=count, config=config or {}, **options)


async def becomes(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("connections", "cores", "limit", "wanted"),
    [
        (None, 2, 20_000, 2),  # nothing configured: one for each core
        (100, 2, 20_000, 2),
        (35_884, 2, 20_000, 2),  # 2 x 0.9 x 19,936 = 35,884.8
        (35_885, 2, 20_000, 3),
        (100_000, 2, 20_000, 6),
        (100_000, 16, 20_000, 16),
        (100_000, 2, 1_024, 116),
        (10, 1, 65, 12),
        (10, 1, 10, 12),  # a limit below what a process needs for itself: still a number
    ],
)
def test_processes_for_connections_cores_and_open_files(connections, cores, limit, wanted):
    assert worker_count(connections, cores, limit) == wanted


def test_the_open_file_limit_is_raised_to_its_hard_limit():
    code = (
        "import resource; from wsnode.workers import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400)); print(raise_descriptor_limit())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "400\n(400, 400)\n"


def test_an_open_file_limit_that_is_the_hard_one_stays():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_descriptor_limit() == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_workers_get_their_number_slot_and_config_and_answer():
    async def run():
        table = SharedTable.create(Layout(for_job(SERVER)), slots=4)
        heard = []
        workers = pool(
            config=lambda number: {"mine": number * 10}, table=table, on_message=lambda _, said: heard.append(said)
        )
        await workers.start()
        ready = sorted((worker.ready for worker in workers.workers.values()), key=lambda said: said["number"])
        workers.send({"do": "say", "text": "grüße"})
        await becomes(lambda: len(heard) == 2)
        counted = table.total("messages_received")
        assert await workers.stop({"do": "stop"}, deadline_s=10)
        return ready, heard, counted, table.total("messages_received"), table.acquire()

    ready, heard, counted, kept, slot = asyncio.run(run())
    assert ready == [{"ready": True, "number": n, "slot": n, "config": {"mine": n * 10}} for n in (0, 1)]
    assert sorted(said["number"] for said in heard) == [0, 1]
    assert heard[0]["answer"]["text"] == "grüße"
    assert (counted, kept) == (2, 2)
    assert slot == 0, "slots are free again after the stop"


def test_a_worker_that_cannot_start_is_told_with_its_reason_and_none_is_left():
    async def run():
        workers = pool(config=lambda number: {"fail": "port 3000 is taken"} if number else {})
        with pytest.raises(WorkerError, match="worker 1 could not start: port 3000 is taken"):
            await workers.start()
        return workers.workers

    assert asyncio.run(run()) == {}


def test_a_worker_that_crashes_at_the_start_is_not_restarted_for_ever():
    async def run():
        with pytest.raises(WorkerError, match="could not start: exit code 7"):
            await pool(config={"crash": True}, restart=True).start()

    asyncio.run(run())


def test_a_server_s_worker_is_replaced_and_its_counts_are_kept():
    async def run():
        table = SharedTable.create(Layout(for_job(SERVER)), slots=2)
        ends = []
        workers = pool(table=table, restart=True, on_end=lambda worker, how: ends.append((worker.number, how)))
        await workers.start()
        first = workers.workers[1].pid
        os.kill(first, signal.SIGKILL)
        await becomes(lambda: workers.restarts == 1 and 1 in workers.workers and workers.workers[1].ready)
        second = workers.workers[1]
        counted = table.total("messages_received")
        await workers.stop({"do": "stop"}, deadline_s=10)
        return ends, first != second.pid, second.slot, counted

    assert asyncio.run(run()) == ([(1, "killed by SIGKILL")], True, 1, 3)


def test_a_load_s_worker_is_not_replaced():
    async def run():
        ends = []
        workers = pool(on_end=lambda worker, how: ends.append((worker.number, how)))
        await workers.start()
        workers.workers[0].control.send({"do": "exit", "code": 3})
        await becomes(lambda: ends)
        left = list(workers.workers)
        await workers.stop({"do": "stop"}, deadline_s=10)
        return ends, left, workers.restarts

    assert asyncio.run(run()) == ([(0, "exit code 3")], [1], 0)


def test_who_does_not_stop_in_time_is_killed():
    async def run():
        workers = pool(count=1)
        await workers.start()
        pid = workers.workers[0].pid
        workers.send({"do": "hang"})
        return await workers.stop({"do": "stop"}, deadline_s=0.2), is_gone(pid)

    assert asyncio.run(run()) == (False, True)


def test_a_worker_takes_orders_from_its_service_only():
    async def run():
        heard = []
        workers = pool(count=1, on_message=lambda _, said: heard.append(said))
        await workers.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(workers.workers[0].pid, number)
        workers.send({"do": "say"})
        await becomes(lambda: heard)
        return await workers.stop({"do": "stop"}, deadline_s=10)

    assert asyncio.run(run())


def test_workers_die_with_a_killed_service_even_when_they_do_not_listen():
    with subprocess.Popen(
        [sys.executable, "-m", "tests.wsnode.toy_service"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as service:
        pids = [int(pid) for pid in service.stdout.readline().split()]
        service.kill()
        eventually(lambda: [is_gone(pid) for pid in pids], all)
    assert len(pids) == 2
