"""What a service shows of its workers' counters."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager

import psutil
import pytest

from tests.wsnode.serving import scrape
from wsnode.core.metrics import AGENT, SERVER, Job, for_job
from wsnode.exposition import Exposition
from wsnode.telemetry import Layout, SharedTable


@contextmanager
def exposed(job: Job, slots: int = 4, workers: int = 2):
    table = SharedTable.create(Layout(for_job(job)), slots)
    exposition = Exposition(job, table, workers)
    host, port = exposition.start("127.0.0.1", 0)
    try:
        yield table, exposition, lambda: scrape(f"http://{host}:{port}/metrics")
    finally:
        exposition.close()
        table.close()


@pytest.mark.parametrize("job", [SERVER, AGENT])
def test_all_declared_series_are_there_before_any_worker_and_no_others(job):
    wanted = set()
    for metric in for_job(job):
        if metric.field == "run_info":
            continue
        if metric.info:
            wanted.add(metric.name)
        elif metric.kind == "histogram":
            wanted |= {f"{metric.name}_count", f"{metric.name}_sum"}
            wanted |= {f'{metric.name}_bucket le="{float(bound)}"' for bound in (*metric.buckets, float("inf"))}
        elif metric.per_worker:
            wanted |= {f'{metric.name} worker="{worker}"' for worker in "01"}
        elif metric.values:
            wanted |= {f'{metric.name} {metric.label}="{value}"' for value in metric.values}
        else:
            wanted.add(metric.name)
    with exposed(job) as (_, _, read):
        metrics = read()
    found = set()
    for (name, labels), value in metrics.items():
        if name == "wsnode_build_info":
            assert value == 1
            found.add(name)
            continue
        assert value == 0, name
        found.add(" ".join([name, *(f'{key}="{float(text) if key == "le" else text}"' for key, text in labels)]))
    assert found == wanted


def test_values_are_in_the_unit_of_the_name():
    with exposed(SERVER) as (table, _, read):
        counters = table.layout.counters()
        writer = table.writer(table.acquire(), counters)
        counters.cpu_time = 1_500_000_000
        counters.cpu_usage = 73_500
        counters.eventloop_lag = 300_000_000
        counters.eventloop_utilization = 734_000
        counters.message_processing.observe(1_000_000)
        writer.flush()
        metrics = read()
    assert metrics.value("node_worker_cpu_seconds_total", worker="0") == 1.5
    assert metrics.value("node_cpu_usage_percent", worker="0") == 73.5
    assert metrics.value("node_eventloop_lag_seconds", worker="0") == 0.3
    assert metrics.value("node_eventloop_utilization_ratio", worker="0") == 0.734
    assert metrics.value("websocket_message_processing_seconds_sum") == 0.001
    assert metrics.value("websocket_message_processing_seconds_bucket", le="0.001") == 1
    assert metrics.value("websocket_message_processing_seconds_bucket", le="0.0005") == 0


def test_memory_and_descriptors_are_read_from_the_living_process():
    with exposed(SERVER) as (table, _, read):
        slot = table.acquire()
        table.writer(slot, table.layout.counters())
        metrics = read()
        assert metrics.value("node_memory_usage_bytes") == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
        assert metrics.value("node_open_descriptors", worker="0") == pytest.approx(
            len(os.listdir("/proc/self/fd")), abs=5
        )
        table.fold(slot)
        metrics = read()
        assert metrics.value("node_memory_usage_bytes") == 0
        assert metrics.value("node_open_descriptors", worker="0") == 0


def test_loads_that_come_and_go_never_lower_a_total():
    with exposed(AGENT, workers=1) as (table, _, read):
        for run in range(1, 4):
            slots = [table.acquire() for _ in range(3)]
            for slot in slots:
                counters = table.layout.counters()
                writer = table.writer(slot, counters)
                counters.messages_sent = 10
                counters.connections = 2
                writer.flush()
            metrics = read()
            assert metrics.value("ws_simulator_messages_sent_total") == run * 30
            assert metrics.total("ws_simulator_connections") == 6
            for slot in slots:
                table.release(slot)
            metrics = read()
            assert metrics.value("ws_simulator_messages_sent_total") == run * 30
            assert [metrics.value("ws_simulator_connections", worker=worker) for worker in "012"] == [0, 0, 0]


def test_a_silent_worker_s_lag_is_the_time_since_its_last_sign(monkeypatch):
    with exposed(SERVER) as (table, _, read):
        counters = table.layout.counters()
        table.writer(table.acquire(), counters).flush()
        later = time.monotonic_ns() + 5_000_000_000
        monkeypatch.setattr("wsnode.exposition.time.monotonic_ns", lambda: later)
        assert read().value("node_eventloop_lag_seconds", worker="0") == pytest.approx(5, abs=0.5)
        assert read().value("node_eventloop_lag_seconds", worker="1") == 0


def test_a_service_sets_its_own_metrics_and_no_others():
    with exposed(SERVER) as (_, exposition, read):
        exposition.set("connections_limit", 100)
        exposition.add("worker_restarts")
        exposition.add("worker_restarts")
        metrics = read()
        assert metrics.value("websocket_connections_limit") == 100
        assert metrics.value("websocket_worker_restarts_total") == 2
        with pytest.raises(KeyError, match="'connections' is none of the service's own"):
            exposition.set("connections", 1)
        with pytest.raises(KeyError, match="'run_info' is none"):
            exposition.info("run_info", {})


def test_a_metric_of_its_own_may_be_read_at_each_scrape():
    with exposed(AGENT) as (_, exposition, read):
        ratios = iter((0.25, 0.5))
        exposition.watch("source_ports", lambda: next(ratios))
        assert [read().value("ws_simulator_source_ports_ratio") for _ in range(2)] == [0.25, 0.5]
        exposition.watch("source_ports", None)
        assert read().value("ws_simulator_source_ports_ratio") == 0
        with pytest.raises(KeyError, match="'errors' is none of the service's own"):
            exposition.watch("errors", None)


def test_the_run_is_shown_while_it_lasts():
    with exposed(AGENT) as (_, exposition, read):
        assert not [name for name, _ in read() if name == "ws_simulator_run_info"]
        exposition.info("run_info", {"run_id": "r-1"})
        assert read().value("ws_simulator_run_info", run_id="r-1") == 1
        exposition.info("run_info", None)
        assert not [name for name, _ in read() if name == "ws_simulator_run_info"]


def test_a_taken_port_is_an_error():
    with exposed(SERVER) as (table, exposition, _):
        port = exposition._server.server_address[1]
        with pytest.raises(OSError) as taken:
            Exposition(SERVER, table, 1).start("127.0.0.1", port)
        assert taken.value.errno == errno.EADDRINUSE
