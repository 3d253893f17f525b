"""The share of source ports that a load has taken, as arithmetic and as a real agent shows it."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wsnode.agents import Talk, agents, plan, run
from tests.wsnode.serving import eventually, scrape, serving
from wsnode import environment
from wsnode.core.metrics import AGENT, for_job
from wsnode.core.pacing import Share
from wsnode.core.result import Result
from wsnode.load.address import Address
from wsnode.load.ports import SourcePorts, sources_for
from wsnode.telemetry import Layout, SharedTable

RATIO = "ws_simulator_source_ports_ratio"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A kernel with 1,000 ports, ten of them reserved within the range, and 99 connections in TIME-WAIT."""
    files = {
        "/proc/sys/net/ipv4/ip_local_port_range": "2000\t2999",
        "/proc/sys/net/ipv4/ip_local_reserved_ports": "2100-2108,2999,3000",
        "/proc/sys/net/ipv4/tcp_timestamps": "1",
        "/proc/sys/net/ipv4/tcp_tw_reuse": "2",
        "/proc/net/sockstat": "sockets: used 200\nTCP: inuse 57 orphan 0 tw 99 alloc 58 mem 50\nUDP: inuse 1 mem 0",
    }
    monkeypatch.setattr(environment, "text", lambda path: files.get(str(path)))
    return files


@pytest.fixture
def table() -> Iterator[SharedTable]:
    table = SharedTable.create(Layout(for_job(AGENT)), slots=2)
    yield table
    table.close()


def count(table: SharedTable, slot: int, *, attempted: int, failed: int = 0, closed: int = 0) -> None:
    """What a worker that begins anew has counted."""
    counters = table.layout.counters()
    writer = table.writer(slot, counters)
    counters.connections_attempted, counters.connections_failed = attempted, failed
    counters.connections_closed = closed
    writer.flush()


def test_begun_and_open_connections_of_all_workers_take_a_port_each(kernel: dict[str, str], table: SharedTable) -> None:
    ports = SourcePorts(table, "127.0.0.1")
    assert ports.ratio() == 0
    count(table, table.acquire(), attempted=300, failed=20, closed=30)
    count(table, table.acquire(), attempted=245)
    assert ports.ratio() == (250 + 245) / 990


def test_what_a_load_before_this_one_has_left_unaccounted_is_not_counted(
    kernel: dict[str, str], table: SharedTable
) -> None:
    """Its workers were killed: what they had open was never counted as closed, and is gone all the same."""
    slot = table.acquire()
    count(table, slot, attempted=400)
    table.release(slot)
    ports = SourcePorts(table, "127.0.0.1")
    assert ports.ratio() == 0
    count(table, table.acquire(), attempted=99)
    assert ports.ratio() == 99 / 990


@pytest.mark.parametrize(
    ("reuse", "timestamps", "target", "waiting"),
    [
        ("0", "1", "127.0.0.1", 99),
        ("1", "1", "198.18.0.2", 0),
        ("1", "0", "198.18.0.2", 99),  # it takes timestamps to tell an old segment from a new one
        ("2", "1", "127.0.0.1", 0),
        ("2", "1", "::1", 0),
        ("2", "1", "198.18.0.2", 99),
        ("2", "1", "fe80::1%eth0", 99),
    ],
)
def test_connections_in_time_wait_count_unless_the_kernel_gives_their_ports_away(
    kernel: dict[str, str], table: SharedTable, reuse: str, timestamps: str, target: str, waiting: int
) -> None:
    kernel["/proc/sys/net/ipv4/tcp_tw_reuse"] = reuse
    kernel["/proc/sys/net/ipv4/tcp_timestamps"] = timestamps
    ports = SourcePorts(table, target)
    count(table, table.acquire(), attempted=1)
    assert ports.ratio() == (1 + waiting) / 990


def test_without_a_known_range_it_is_not_a_number(kernel: dict[str, str], table: SharedTable) -> None:
    del kernel["/proc/sys/net/ipv4/ip_local_port_range"]
    assert math.isnan(SourcePorts(table, "127.0.0.1").ratio())


def test_an_agent_shows_the_ports_of_its_load_while_it_runs() -> None:
    async def work(path: str, url: str) -> None:
        metrics = f"http://127.0.0.1:{port}/metrics"
        talk, _ = await Talk.open(path)
        assert scrape(metrics).value(RATIO) == 0
        await talk.ask("prepare", run_id="r1", epoch=1, plan=plan(url, duration_s=30))
        await talk.ask("go", run_id="r1", epoch=1, start_at=time.time_ns() + 50_000_000)
        shown = await asyncio.to_thread(
            eventually, lambda: scrape(metrics), lambda s: s.total("ws_simulator_connections") == 10
        )
        ports = environment.source_ports()
        assert ports
        # To loopback a kernel as it comes counts no TIME-WAIT.
        waiting = 0 if environment.sysctl("net.ipv4.tcp_tw_reuse") in ("1", "2") else shown.value(RATIO) * ports - 10
        assert shown.value(RATIO) == pytest.approx((10 + waiting) / ports)
        await talk.ask("stop", run_id="r1", epoch=1, reason="seen", drain=False)
        assert scrape(metrics).value(RATIO) == 0
        await talk.close()

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--metrics-port", str(port), "--cores", "1")
    with serving("--workers", "1") as running, agents("load-1", options=options) as [agent]:
        run(work(agent.socket, running.url()))


@pytest.mark.parametrize(
    ("target", "clients", "given", "sources"),
    [
        ("127.0.0.1", 792, (), ()),
        ("127.0.0.1", 793, (), ("127.0.0.1", "127.0.0.2")),
        ("127.9.9.9", 1585, (), ("127.0.0.1", "127.0.0.2", "127.0.0.3")),
        ("127.0.0.1", 10, ("127.0.0.9",), ("127.0.0.9",)),
        ("198.18.0.2", 5000, (), ()),
        ("198.18.0.2", 5, ("198.18.0.7", "2001:db8::7", "198.18.0.8"), ("198.18.0.7", "198.18.0.8")),
        ("2001:db8::1%eth0", 5, ("198.18.0.7", "2001:db8::7"), ("2001:db8::7",)),
        ("::1", 5000, (), ()),
    ],
)
def test_addresses_to_connect_from_are_those_given_or_on_loopback_as_many_as_needed(
    kernel: dict[str, str], target: str, clients: int, given: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    assert sources_for(target, clients, given) == sources


@pytest.mark.parametrize("clients", [1, 2, 7, 100, 1001])
def test_each_address_has_as_many_clients_of_a_share_as_any_other(clients: int) -> None:
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        for share in Share(clients, 0, clients).deal([1, 2, 3]):
            address = Address.at("ws://127.0.0.1/", socket.AF_INET, server.getsockname(), addresses, share)
            dealt: Counter[str] = Counter(dict.fromkeys(addresses, 0))
            for client in share.clients():
                with address.dial(client) as sock:
                    dealt[sock.getsockname()[0]] += 1
            assert max(dealt.values()) - min(dealt.values()) <= 1
            assert dealt.total() == share.size


def test_ipv6_has_source_addresses_too() -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        address = Address.at("ws://[::1]/", socket.AF_INET6, server.getsockname(), ("::1",), Share(1, 0, 1))
        with address.dial(0) as sock:
            assert sock.getsockname()[0] == "::1"


def test_three_addresses_of_100_ports_hold_250_connections_and_350_are_refused_beforehand(tmp_path: Path) -> None:
    """In a network namespace whose port range is so small."""
    if os.geteuid() or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("takes root, unshare and ip")
    script = """
        set -eu
        ip link set lo up
        echo "40000 40099" > /proc/sys/net/ipv4/ip_local_port_range
        "$0" -m wsnode serve --port 3000 --metrics-port 9091 --workers 1 &
        trap 'kill $!' EXIT
        "$0" -c 'import socket, time
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", 3000)) == 0: break
            time.sleep(0.05)'
        load="-m wsnode load ws://127.0.0.1:3000/echo --interval 500 --ramp-up 1 --rate 1000 --duration 4 --quiet"
        from="--source 127.0.0.1 --source 127.0.0.2 --source 127.0.0.3"
        "$0" $load $from --clients 350 || echo "refused with $?"
        "$0" $load --clients 250 $from --json given.json
        "$0" $load --clients 250 --json own.json
    """
    ended = subprocess.run(
        ["unshare", "-n", "sh", "-c", "\n".join(line[8:] for line in script.splitlines()), sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Operation not permitted" in ended.stderr:
        pytest.skip(f"no network namespace here: {ended.stderr.strip()}")
    said = ended.stdout + ended.stderr
    assert "refused with 2" in said
    assert "source ports: 300 for 3 addresses" in said
    assert "350 clients" in said
    for name in ("given", "own"):
        counters = Result.model_validate_json((tmp_path / f"{name}.json").read_text()).counters
        assert (counters.connections_opened, counters.connections_failed) == (250, 0), said
        assert counters.errors == {}
