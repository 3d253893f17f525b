"""A real Prometheus with a hand-made history, under the project's own configuration, which scrapes itself."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stack import packages

ROOT = Path(__file__).parents[2]
T0 = int(time.time()) - 3600
"""Where the history's measured window begins (s since the epoch); it has samples from 10 s before to 20 s after."""


COUNTED = {
    "node_pressure_cpu_waiting_seconds_total": 0.125,
    "node_context_switches_total": 1000,
    "node_netstat_IpExt_InOctets": 9000,
    "node_netstat_IpExt_OutOctets": 8000,
    "node_netstat_Tcp_RetransSegs": 4,
    "node_netstat_TcpExt_ListenOverflows": 2,
    "node_netstat_TcpExt_ListenDrops": 3,
}
"""Counters of a host with one series, and what they gain in a second."""


class Server(NamedTuple):
    """Where it answers, and the port of a target that does not."""

    url: str
    silent_port: int


def program(name: str) -> Path:
    """A program of Prometheus'; skips where it cannot be had."""
    found = packages.ensure(name)[name]
    if found.path is None:
        pytest.skip(f"no {name}: {found.reason}")
    return found.path


def history() -> str:
    """OpenMetrics text, one sample a second at T0 + 0.4 + n."""
    families: dict[str, tuple[str, dict[str, list[tuple[int, float]]]]] = {}

    def add(metric: str, kind: str, labels: str, samples: list[tuple[int, float]]) -> None:
        families.setdefault(metric, (kind, {}))[1][f"{metric}{{{labels}}}"] = samples

    every = range(-10, 21)
    server = 'job="wsnode-server",host="server"'
    cpu, lag = "node_worker_cpu_seconds_total", "node_eventloop_lag_seconds"
    # Two workers, a quarter and a half of a core.
    add(cpu, "counter", f'{server},worker="0"', [(n, 5 + 0.25 * n) for n in every])
    add(cpu, "counter", f'{server},worker="1"', [(n, 50 + 0.5 * n) for n in every])
    add("node_memory_usage_bytes", "gauge", server, [(n, 1e6 + 1000 * n) for n in every])
    # The largest within the window is at 7; a larger one lies outside it.
    add(lag, "gauge", f'{server},worker="0"', [(n, 0.002) for n in every])
    add(lag, "gauge", f'{server},worker="1"', [(n, {7: 0.080, 15: 0.9}.get(n, 0.001)) for n in every])
    for worker in (0, 1):
        line = [(n, float(40 + worker + (5 if n == 3 else 0))) for n in every]
        add("websocket_active_connections", "gauge", f'{server},worker="{worker}"', line)
    for worker, mean in (("0", 0.25), ("1", 0.5)):
        shares = [(n, mean + (0.1 if n % 2 else -0.1)) for n in every]
        add("node_eventloop_utilization_ratio", "gauge", f'{server},worker="{worker}"', shares)
        open_now = [(n, 10.0 + 2 * int(worker) + n) for n in every]
        add("node_open_descriptors", "gauge", f'{server},worker="{worker}"', open_now)
    for kind, each in (("handshake", 2), ("timeout", 1)):
        add(
            "websocket_connection_errors_total",
            "counter",
            f'{server},kind="{kind}"',
            [(n, 50 + each * n) for n in every],
        )
    for reason, each in (("backlog", 4), ("unlinked", 0.5)):
        dropped = [(n, 60 + each * n) for n in every]
        add("websocket_room_messages_dropped_total", "counter", f'{server},reason="{reason}"', dropped)
    for metric, each in (("messages_sent", 80), ("bytes_received", 6400), ("bytes_sent", 5120)):
        add(f"websocket_{metric}_total", "counter", server, [(n, 1e5 + each * n) for n in every])
    timed = {"0.001": 50, "0.005": 98, "0.01": 100, "+Inf": 100}
    for le, each in timed.items():
        labels = f'{server},le="{le}"'
        add("websocket_message_processing_seconds_bucket", "counter", labels, [(n, 1e4 + each * n) for n in every])
    # 100 a second from 0 to 9, nothing before and after. Not from near 0 on: there rate() extrapolates no further than
    # to 0, while the evidence takes nothing but the samples.
    received = [(n, 7000 + 100 * min(max(n, 0), 10)) for n in every]
    add("websocket_messages_received_total", "counter", server, received)
    add("websocket_connections_opened_total", "counter", server, [(n, 1.0 if n < 0 else 51.0) for n in every])
    add("node_eventloop_delay_seconds_count", "counter", server, [(n, 10_000 + 100 * n) for n in every])
    for name, of in (("load-1", 0.3), ("load-2", 0.6)):
        agent = f'job="wsnode-agent",host="{name}"'
        add(cpu, "counter", f'{agent},worker="0"', [(n, 20 + of * n) for n in every])
        add(cpu, "counter", f'{agent},worker="1"', [(n, 20 + of / 2 * n) for n in every])
        for le, each in {"0.0005": 90 if name == "load-1" else 100, "0.001": 100, "+Inf": 100}.items():
            lag_labels = f'{agent},le="{le}"'
            add(
                "ws_simulator_scheduler_lag_seconds_bucket", "counter", lag_labels, [(n, 1e4 + each * n) for n in every]
            )
        sent = [(n, 1e4 + (30 if name == "load-1" else 50) * n) for n in every]
        add("ws_simulator_messages_sent_total", "counter", agent, sent)
        add(
            "node_open_descriptors",
            "gauge",
            f'{agent},worker="0"',
            [(n, 7.0 if name == "load-1" else 9.0) for n in every],
        )
    # The server's agent carries no load; whatever it counts is no generator's.
    add(cpu, "counter", 'job="wsnode-agent",host="server",worker="0"', [(n, 99 + 0.99 * n) for n in every])
    for name, scale in (("server", 1.0), ("load-1", 2.0)):
        node = f'job="node",host="{name}"'
        for mode, share in (("user", 0.5), ("system", 0.2), ("idle", 1.2), ("iowait", 0.1), ("steal", 0.05)):
            for core in (0, 1):
                labels = f'{node},cpu="{core}",mode="{mode}"'
                add("node_cpu_seconds_total", "counter", labels, [(n, 900 + scale * share / 2 * n) for n in every])
        add("node_memory_MemAvailable_bytes", "gauge", node, [(n, 8e9 - (1e9 if n == 4 else 0)) for n in every])
        add("node_memory_MemTotal_bytes", "gauge", node, [(n, scale * (16 << 30)) for n in every])
        kernel = f'{node},release="6.{scale:g}.9-amd64",machine="x86_64",nodename="box"'
        add("node_uname_info", "gauge", kernel, [(n, 1.0) for n in every])
        add("node_sockstat_sockets_used", "gauge", node, [(n, float(300 + n)) for n in every])
        add("node_sockstat_TCP_inuse", "gauge", node, [(n, float(200 + n)) for n in every])
        add("node_sockstat_TCP_tw", "gauge", node, [(n, float(100 + n)) for n in every])
        for metric, each in COUNTED.items():
            add(metric, "counter", node, [(n, 1e6 + scale * each * n) for n in every])
        for core in (0, 1):
            dropped = [(n, 10.0 + (1 + core) * n) for n in every]
            add("node_softnet_dropped_total", "counter", f'{node},cpu="{core}"', dropped)
        # The table is half as large at 6, so that the fullest moment is not the one with the most entries.
        add("node_nf_conntrack_entries", "gauge", node, [(n, 600.0 if n == 6 else 1000.0) for n in every])
        add("node_nf_conntrack_entries_limit", "gauge", node, [(n, 1000.0 if n == 6 else 2000.0) for n in every])
    # A server that was started anew at 5: all its counters fall.
    reset = 'job="wsnode-server",host="reset"'
    add(cpu, "counter", f'{reset},worker="0"', [(n, 30 + n if n < 5 else (n - 5) * 0.5) for n in every])
    total = [(n, float(1000 + 100 * n) if n < 5 else 100.0 * (n - 5)) for n in every]
    add("websocket_messages_received_total", "counter", reset, total)
    add("node_eventloop_delay_seconds_count", "counter", reset, [(n, 5e3 + n if n < 5 else 0.0 + n) for n in every])
    for le in ("0.001", "+Inf"):
        add("websocket_message_processing_seconds_bucket", "counter", f'{reset},le="{le}"', [(n, 5.0) for n in every])
    for metric in ("node_nf_conntrack_entries", "node_nf_conntrack_entries_limit"):
        add(metric, "gauge", 'job="node",host="module-away"', [(n, 0.0) for n in every])
    # One that was seen three times, and one that was seen before and after the window only.
    add("node_memory_usage_bytes", "gauge", 'job="wsnode-server",host="seldom"', [(n, 5.0) for n in (2, 5, 8)])
    before_and_after = [(n, 5.0) for n in every if not 0 <= n <= 9]
    add("node_memory_usage_bytes", "gauge", 'job="wsnode-server",host="away"', before_and_after)
    up = {
        server: [(n, 1.0) for n in every],
        'job="wsnode-agent",host="load-1"': [(n, 0.0 if n in (2, 3) else 1.0) for n in every],
        'job="wsnode-agent",host="load-2"': [(n, 1.0) for n in every if n not in (4, 5, 6)],
    }
    for labels, samples in up.items():
        add("up", "gauge", labels, samples)
    lines = []
    for metric, (kind, series) in families.items():
        lines.append(f"# TYPE {metric.removesuffix('_total')} {kind if metric.endswith('_total') else 'gauge'}")
        lines += [f"{name} {value} {T0 + 0.4 + n:.1f}" for name, samples in series.items() for n, value in samples]
    return "\n".join([*lines, "# EOF", ""])


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started once; the history is there from the start, its own samples come after a second or some."""
    binary, tool = program("prometheus"), program("promtool")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "history.txt").write_text(history())
    made = [tool, "tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", folder / "data"]
    subprocess.run(made, check=True, capture_output=True, timeout=60)
    shutil.copyfile(ROOT / "prometheus" / "prometheus.yml", folder / "prometheus.yml")
    (folder / "targets").mkdir()
    port, silent = free_port(), free_port()
    for job, host, where in (("wsnode-server", "itself", port), ("wsnode-agent", "silent", silent)):
        groups = [{"targets": [f"127.0.0.1:{where}"], "labels": {"job": job, "host": host}}]
        (folder / "targets" / f"{job}.json").write_text(json.dumps(groups))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
                time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", silent)
    finally:
        process.terminate()
        process.wait(timeout=20)
