"""What /metrics says is what happened."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from websockets.asyncio.client import connect

from tests.wsnode.serving import Server, eventually, serving
from wsnode.core.metrics import CLOSE_CODES, SERVER, SERVER_ERROR_KINDS, for_job


@pytest.fixture
def server(engine):
    with serving("--engine", engine, "--workers", "2") as running:
        yield running


def echo(server: Server, connections: int, messages: int, size: int = 10) -> None:
    async def one():
        async with connect(server.url(), proxy=None, compression=None) as client:
            for _ in range(messages):
                await client.send("x" * size)
                assert await client.recv() == "x" * size

    async def run():
        await asyncio.gather(*(one() for _ in range(connections)))

    asyncio.run(run())


def test_every_metric_shows_all_its_label_values_at_0_from_the_start(server):
    metrics = server.metrics()
    assert {labels for name, labels in metrics if name == "websocket_connection_errors_total"} == {
        (("kind", kind),) for kind in SERVER_ERROR_KINDS
    }
    assert {labels for name, labels in metrics if name == "websocket_connections_closed_total"} == {
        (("code", code),) for code in CLOSE_CODES
    }
    for metric in for_job(SERVER):
        if metric.per_worker:
            assert {labels for name, labels in metrics if name == metric.name} == {
                (("worker", "0"),),
                (("worker", "1"),),
            }
    for name in (
        "websocket_active_connections",
        "websocket_messages_received_total",
        "websocket_messages_broadcasted_total",
        "websocket_message_processing_seconds_count",
        "websocket_connection_errors_total",
        "websocket_worker_restarts_total",
    ):
        assert metrics.total(name) == 0
    assert not [name for name, _ in metrics if name.endswith("_created")]


def test_counts_are_exact_after_known_traffic(server):
    echo(server, connections=20, messages=25, size=10)
    server.total_becomes("websocket_messages_received_total", 500)
    server.total_becomes("websocket_active_connections", 0)
    metrics = server.metrics()
    assert metrics.value("websocket_messages_sent_total") == 500
    assert metrics.value("websocket_bytes_received_total") == 5000
    assert metrics.value("websocket_bytes_sent_total") == 5000
    assert metrics.value("websocket_message_processing_seconds_count") == 500
    assert metrics.value("websocket_message_processing_seconds_bucket", le="+Inf") == 500
    assert 0 < metrics.value("websocket_message_processing_seconds_sum") < 5
    assert metrics.value("websocket_messages_broadcasted_total") == 0
    assert metrics.value("websocket_connections_opened_total") == 20
    assert metrics.value("websocket_connections_closed_total", code="1000") == 20
    assert metrics.total("websocket_connections_closed_total") == 20
    assert metrics.total("websocket_connection_errors_total") == 0


def test_open_connections_are_one_series_a_worker(server):
    async def run():
        clients = [await connect(server.url(), proxy=None) for _ in range(30)]
        await asyncio.to_thread(server.total_becomes, "websocket_active_connections", 30)
        split = [server.metrics().value("websocket_active_connections", worker=worker) for worker in "01"]
        for client in clients:
            await client.close()
        return split

    split = asyncio.run(run())
    assert sum(split) == 30
    assert min(split) > 0, "SO_REUSEPORT spreads connections"
    server.total_becomes("websocket_active_connections", 0)


def test_totals_do_not_fall_when_a_worker_is_killed_and_the_restart_is_counted(server):
    echo(server, connections=10, messages=10)
    server.total_becomes("websocket_messages_received_total", 100)
    before = server.metrics()
    victim = server.workers()[0]
    victim.kill()
    server.value_becomes("websocket_worker_restarts_total", 1)
    pids = eventually(
        lambda: [worker.pid for worker in server.workers() if worker.status() != "zombie"], lambda pids: len(pids) == 2
    )
    assert victim.pid not in pids
    after = server.metrics()
    for metric in for_job(SERVER):
        if metric.kind == "counter":
            assert after.total(metric.name) >= before.total(metric.name), metric.name
    assert after.value("websocket_messages_received_total") == 100
    eventually(lambda: [server.metrics().value("node_descriptor_limit", worker=w) for w in "01"], all)
    echo(server, connections=10, messages=10)
    server.total_becomes("websocket_messages_received_total", 200)
    assert "killed by SIGKILL" in server.stderr()


def test_the_connections_of_a_killed_worker_are_gone_from_the_gauge(engine):
    async def run(server):
        for _ in range(4):
            await connect(server.url(), proxy=None, close_timeout=0)
        await asyncio.to_thread(server.total_becomes, "websocket_active_connections", 4)
        server.workers()[0].kill()
        await asyncio.to_thread(server.total_becomes, "websocket_active_connections", 0)

    with serving("--engine", engine, "--workers", "1") as server:
        asyncio.run(run(server))


def worst_lag(server: Server) -> float:
    return server.metrics().value("node_eventloop_lag_seconds", worker="0")


def test_loop_lag_shows_a_block_of_300_ms_and_is_not_reset_by_reading(engine):
    with serving("--engine", engine, "--workers", "1") as server:
        worker = server.workers()[0].pid
        eventually(lambda: worst_lag(server), lambda lag: 0 < lag < 0.25)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.3)  # the block itself
        os.kill(worker, signal.SIGCONT)
        first = eventually(lambda: worst_lag(server), lambda lag: lag > 0.25)
        assert first < 0.6
        assert worst_lag(server) == first
        eventually(lambda: worst_lag(server), lambda lag: lag < 0.25)
        histogram = server.metrics()
        slow = histogram.value("node_eventloop_delay_seconds_count") - histogram.value(
            "node_eventloop_delay_seconds_bucket", le="0.25"
        )
        assert slow >= 1


def test_loop_lag_grows_while_a_worker_is_silent(engine):
    with serving("--engine", engine, "--workers", "1") as server:
        worker = server.workers()[0].pid
        os.kill(worker, signal.SIGSTOP)
        eventually(lambda: worst_lag(server), lambda lag: 1 < lag < 10)
        os.kill(worker, signal.SIGCONT)
        eventually(lambda: worst_lag(server), lambda lag: lag < 0.25)


def test_memory_descriptors_and_cpu_are_those_of_the_worker_processes(server):
    metrics = server.metrics()
    workers = server.workers()
    resident = sum(worker.memory_info().rss for worker in workers)
    assert metrics.value("node_memory_usage_bytes") == pytest.approx(resident, rel=0.1)
    counted = sorted(metrics.value("node_open_descriptors", worker=worker) for worker in "01")
    assert counted == sorted(worker.num_fds() for worker in workers)
    eventually(
        lambda: server.metrics().total("node_worker_cpu_seconds_total"),
        lambda total: total == pytest.approx(sum(sum(worker.cpu_times()[:2]) for worker in workers), abs=0.2),
    )
    eventually(server.metrics, lambda now: 0 < now.total("node_cpu_usage_percent") < 200)
    eventually(server.metrics, lambda now: 0 < now.total("node_eventloop_utilization_ratio") < 2)


def test_prometheus_may_ask_for_openmetrics(server):
    request = urllib.request.Request(
        server.metrics_url, headers={"Accept": "application/openmetrics-text;version=1.0.0"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        names = {family.name for family in parse_openmetrics(answer.read().decode())}
    assert "websocket_messages_received" in names
