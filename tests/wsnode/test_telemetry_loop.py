"""The heartbeat inside a worker's event loop."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvloop

from wsnode.core.metrics import SERVER, for_job
from wsnode.telemetry import BEAT_NS, FLUSH_NS, SECOND_NS, Layout, LoopMonitor, SharedTable


@pytest.fixture
def table():
    made = SharedTable.create(Layout(for_job(SERVER)), slots=1)
    yield made
    made.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main)

    return run


def monitored(table: SharedTable):
    counters = table.layout.counters()
    return counters, LoopMonitor(counters, table.writer(table.acquire(), counters))


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_the_lag_is_the_largest_delay_of_the_last_full_second(table, run):
    counters, monitor = monitored(table)

    async def main():
        monitor.start()
        await asyncio.sleep(0.05)
        time.sleep(0.3)
        assert counters.eventloop_lag == 0, "the second is not over"
        await until(lambda: counters.eventloop_lag)
        blocked = counters.eventloop_lag
        await until(lambda: counters.eventloop_lag != blocked)
        calm = counters.eventloop_lag
        monitor.stop()
        return blocked, calm

    blocked, calm = run(main())
    assert 0.29e9 <= blocked < 0.6e9
    assert calm < blocked
    *counts, _ = table.series("eventloop_delay")
    assert sum(counts[9:]) >= 1  # above 250 ms


def test_about_100_beats_a_second_are_counted_and_early_ones_as_0(table, run):
    counters, monitor = monitored(table)

    async def main():
        monitor.start()
        began = time.perf_counter_ns()
        await asyncio.sleep(0.5)
        monitor.stop()
        return time.perf_counter_ns() - began

    elapsed = run(main())
    beats = sum(counters.eventloop_delay.counts)
    assert 10 <= beats <= elapsed / BEAT_NS * 1.2
    assert counters.eventloop_delay.total >= 0


def test_cpu_use_is_that_of_the_last_full_second(table, run):
    counters, monitor = monitored(table)

    async def main():
        monitor.start()
        began, spent = time.perf_counter_ns(), time.process_time_ns()
        while time.process_time_ns() - spent < SECOND_NS * 2 // 5:
            pass
        await until(lambda: counters.cpu_usage)
        ratio = (time.process_time_ns() - spent) / (time.perf_counter_ns() - began)
        monitor.stop()
        return ratio

    ratio = run(main())
    assert ratio > 0.02
    assert counters.cpu_usage / 1000 / 100 == pytest.approx(ratio, abs=0.15)
    assert counters.eventloop_utilization / 1_000_000 == pytest.approx(ratio, abs=0.15)


def test_counters_reach_the_table_without_being_asked_and_at_the_end(table, run):
    counters, monitor = monitored(table)

    async def main():
        monitor.start()
        counters.messages_received = 7
        began = time.perf_counter_ns()
        await until(lambda: table.total("messages_received") == 7)
        took = time.perf_counter_ns() - began
        counters.messages_received = 8
        monitor.stop()
        return took

    assert run(main()) < 10 * FLUSH_NS
    assert table.total("messages_received") == 8
    assert table.total("cpu_time") == pytest.approx(time.process_time_ns(), abs=SECOND_NS)
