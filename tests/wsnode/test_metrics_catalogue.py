"""The catalogue keeps its own rules."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import get_args

import pytest

from wsnode.core.metrics import (
    AGENT,
    CATALOGUE,
    CLIENT_ERROR_KINDS,
    SERVER,
    UNSENT_REASONS,
    by_name,
    for_job,
)
from wsnode.core.protocol import ErrorKind, UnsentReason

SEED = {
    SERVER: {
        "websocket_active_connections",
        "websocket_messages_received_total",
        "websocket_messages_broadcasted_total",
        "websocket_message_processing_seconds",
        "node_memory_usage_bytes",
        "node_eventloop_lag_seconds",
        "node_cpu_usage_percent",
        "websocket_connection_errors_total",
    },
    AGENT: {
        "ws_simulator_connections",
        "ws_simulator_messages_sent_total",
        "ws_simulator_messages_received_total",
        "ws_simulator_errors_total",
        "ws_simulator_message_latency_seconds",
        "ws_simulator_connection_duration_seconds",
        "ws_simulator_message_size_bytes",
        "ws_simulator_reconnect_attempts_total",
        "ws_simulator_bytes_sent_total",
        "ws_simulator_bytes_received_total",
        "node_memory_usage_bytes",
        "node_eventloop_lag_seconds",
        "node_cpu_usage_percent",
    },
}

every_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


@pytest.mark.parametrize("job", [SERVER, AGENT])
def test_the_names_of_the_demo_before_it_are_kept_exactly(job):
    assert {metric.name for metric in for_job(job) if metric.seed} == SEED[job]


@pytest.mark.parametrize("job", [SERVER, AGENT])
def test_names_and_fields_are_unique_within_a_job(job):
    metrics = for_job(job)
    assert len({metric.name for metric in metrics}) == len(metrics)
    assert len({metric.field for metric in metrics}) == len(metrics)


@every_metric
def test_a_counter_ends_in_total_and_nothing_else_does(metric):
    assert metric.name.endswith("_total") == (metric.kind == "counter")


@every_metric
def test_a_name_has_its_base_unit(metric):
    if metric.unit in ("seconds", "bytes", "ratio", "percent"):
        assert metric.unit in metric.name.split("_")


@every_metric
def test_the_definition_is_one_sentence(metric):
    assert re.fullmatch(r"[A-Z0-9][^.]*(\d\.\d[^.]*)*\.", metric.definition.replace("/proc", "proc"))


@every_metric
def test_a_label_has_a_closed_list_of_values(metric):
    assert bool(metric.label) == bool(metric.values)
    assert len(set(metric.values)) == len(metric.values)
    assert not (metric.values and metric.per_worker)


@every_metric
def test_only_histograms_have_buckets_and_they_rise(metric):
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.bounds) == sorted(set(metric.bounds))


def test_only_run_info_has_a_run_id():
    assert [metric.name for metric in CATALOGUE if "run_id" in metric.info] == ["ws_simulator_run_info"]


def test_connections_cpu_and_loop_lag_are_by_worker():
    assert {metric.name for metric in CATALOGUE if metric.per_worker} >= {
        "websocket_active_connections",
        "ws_simulator_connections",
        "node_cpu_usage_percent",
        "node_worker_cpu_seconds_total",
        "node_eventloop_lag_seconds",
        "node_eventloop_utilization_ratio",
    }


def test_kinds_and_reasons_are_those_of_the_protocol():
    assert get_args(ErrorKind) == CLIENT_ERROR_KINDS
    assert get_args(UnsentReason) == UNSENT_REASONS


def test_a_metric_is_found_by_its_name():
    assert by_name("node_cpu_usage_percent").unit == "percent"
    with pytest.raises(KeyError, match="no metric named 'nothing'"):
        by_name("nothing")


def test_counting_imports_neither_pydantic_nor_prometheus_client():
    """A worker needs neither, and each costs it memory and start-up time."""
    code = (
        "import sys, wsnode.telemetry, wsnode.workers\n"
        "print({'pydantic', 'prometheus_client', 'psutil'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
