"""wsnode against what teams know: CPU time per message, delivery and accept, memory per connection.

    ./wslab bench echo|broadcast|coalesce|accept|memory|metrics [--peers node,go,picows,websockets]
    ./wslab bench echo --grow connections|size|subscribers|workers
    ./wslab bench generator [--rate 40000]     a Node client with a timer per connection, both against a C server
    ./wslab bench hold --connections 20000     held at once, both ends, each answering an echo at the end
    ./wslab bench all --json FILE --markdown FILE
    ./wslab bench crosscheck|repeats --help    the generator against another one; what equal runs differ in

All run in turns in one go, one process each, loaded by the same client; what counts is the median of the rounds'
ratios, since a noisy machine moves all of them. Ratios are to the first peer, higher is better. CPU time is that of
the measured process, its kernel time included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import uvloop

from tests.benchmarks.peers import PEERS, ROOT, Peers, Server, Unavailable, cpu_s
from wsnode.load.client import message_head

CONNECTIONS, HELD = 1000, 10_000
SIZE = 64
WARM_UP_S = 0.5
BURST = 200
AT_ONCE = 20
GROWTH = {
    "connections": (100, 1000, 10_000),
    "size": (16, 256, 4096, 65_536),
    "subscribers": (10, 100, 1000, 10_000),
    "workers": (1, 2),
}
PORTS_AN_ADDRESS = 25_000
"""Of the kernel's usual 28,232."""


class Table(NamedTuple):
    """What came of a bench: each peer's rounds."""

    name: str
    unit: str
    values: dict[str, list[float]]

    def rows(self) -> list[dict[str, Any]]:
        """Per peer the median, least and most, and the median ratio of the rounds to the first peer's."""
        first = next(iter(self.values.values()))
        return [
            {
                "peer": peer,
                "median": statistics.median(rounds),
                "min": min(rounds),
                "max": max(rounds),
                "ratio": statistics.median(base / value for base, value in zip(first, rounds, strict=True)),
            }
            for peer, rounds in self.values.items()
        ]

    def json(self) -> dict[str, Any]:
        """All of it; null where a generator did not keep up, which has no percentile."""

        def finite(value: Any) -> Any:
            return None if value == float("inf") else value

        rows = [{key: finite(value) for key, value in row.items()} for row in self.rows()]
        values = {peer: [finite(value) for value in rounds] for peer, rounds in self.values.items()}
        return {"name": self.name, "unit": self.unit, "rows": rows, "values": values}

    def markdown(self) -> str:
        """For `docs/performance.md`."""
        base = next(iter(self.values))
        lines = [f"| {self.name}: {self.unit} | median | min to max | ratio to {base} |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {row['peer']} | {row['median']:.2f} | {row['min']:.2f} to {row['max']:.2f} | {row['ratio']:.2f} |"
            for row in self.rows()
        ]
        return "\n".join(lines)


# --- servers under a raw client ---


def message(size: int) -> bytes:
    """A masked text message."""
    head = message_head(False, size)
    return head + bytes(4) + b"m" * size


class Client(asyncio.Protocol):
    """Counts bytes; with `again`, sends the next message when the last one's echo has come."""

    def __init__(self, path: str, size: int) -> None:
        self.path, self.opened = path, asyncio.get_running_loop().create_future()
        self.message = message(size)
        self.echo_bytes = len(self.message) - 4
        self.bytes = self._part = 0
        self.again = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is of no such class
        self.transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
            return
        self.bytes += len(data)
        if self.again:
            whole, self._part = divmod(self._part + len(data), self.echo_bytes)
            for _ in range(whole):
                self.transport.write(self.message)


async def connect(port: int, path: str, count: int, size: int = SIZE) -> list[Client]:
    loop, clients = asyncio.get_running_loop(), []
    for begin in range(0, count, BURST):
        burst = await asyncio.gather(
            *(
                loop.create_connection(lambda: Client(path, size), "127.0.0.1", port)
                for _ in range(min(BURST, count - begin))
            )
        )
        clients += [client for _, client in burst]
        await asyncio.gather(*(client.opened for _, client in burst))
    return clients


def gone(clients: Sequence[Client]) -> None:
    for client in clients:
        client.transport.abort()


async def echo(server: Server, seconds: float, connections: int = CONNECTIONS, size: int = SIZE) -> float:
    """CPU microseconds per message, one in flight on each connection."""
    clients = await connect(server.port, "/echo", connections, size)
    for client in clients:
        client.again = True
        client.transport.write(client.message)
    await asyncio.sleep(WARM_UP_S)
    cpu, count = server.cpu_s(), sum(client.bytes for client in clients)
    await asyncio.sleep(seconds)
    cpu, count = server.cpu_s() - cpu, sum(client.bytes for client in clients) - count
    gone(clients)
    return cpu / (count / clients[0].echo_bytes) * 1e6


async def broadcast(server: Server, seconds: float, subscribers: int = CONNECTIONS, at_once: int = 1) -> float:
    """CPU microseconds per delivery, so many messages to all subscribers at a time."""
    clients = await connect(server.port, "/broadcast/bench", subscribers)
    cpu, count, deadline = server.cpu_s(), 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        clients[0].transport.write(clients[0].message * at_once)
        count += at_once * subscribers
        while sum(client.bytes for client in clients) < count * clients[0].echo_bytes:
            await asyncio.sleep(0.002)
    cpu = server.cpu_s() - cpu
    gone(clients)
    return cpu / count * 1e6


async def coalesce(server: Server, seconds: float) -> float:
    """The same with enough messages at a time for a tick to have something to join."""
    return await broadcast(server, seconds, at_once=AT_ONCE)


async def accept(server: Server, seconds: float) -> float:
    """CPU microseconds per connection, handshake included, in bursts."""
    cpu, count, deadline = server.cpu_s(), 0, time.monotonic() + seconds
    everybody: list[Client] = []
    while time.monotonic() < deadline and count < HELD:
        everybody += await connect(server.port, "/echo", BURST)
        count += BURST
    cpu = server.cpu_s() - cpu
    gone(everybody)
    await asyncio.sleep(WARM_UP_S)
    return cpu / count * 1e6


async def memory(server: Server, _seconds: float) -> float:
    """KiB of the process's own memory per idle connection."""
    first = await connect(server.port, "/echo", CONNECTIONS)
    before = server.bytes()
    more = await connect(server.port, "/echo", HELD)
    await asyncio.sleep(WARM_UP_S)
    grown = server.bytes() - before
    gone([*first, *more])
    return grown / HELD / 1024


Measure = Callable[[Server, float], Awaitable[float]]
SERVER_BENCHES: dict[str, tuple[str, Measure, tuple[str, ...]]] = {
    "echo": (f"µs of CPU per message, {CONNECTIONS} connections", echo, ("node", "lean", "websockets", "c")),
    "broadcast": (f"µs of CPU per delivery, 1 to {CONNECTIONS}", broadcast, ("node", "lean", "lean-2", "websockets")),
    "coalesce": (
        f"µs of CPU per delivery, 1 to {CONNECTIONS}, {AT_ONCE} messages at a time",
        coalesce,
        ("node", "node-tick", "lean", "lean-tick", "lean-2", "lean-2-tick"),
    ),
    "accept": ("µs of CPU per connection accepted", accept, ("node", "lean", "websockets", "c")),
    "memory": ("KiB per idle connection", memory, ("node", "lean", "websockets")),
    "metrics": (f"µs of CPU per message, {CONNECTIONS} connections, nothing counted or all", echo, ("bare", "lean")),
}


class Bench(NamedTuple):
    """How it is measured."""

    made: Peers
    rounds: int
    seconds: float

    def server(self, name: str, peers: Sequence[str]) -> Iterator[Table]:
        """One of `SERVER_BENCHES`."""
        unit, measure, _ = SERVER_BENCHES[name]
        yield self._compare(name, unit, peers, measure)

    def grow(self, name: str, what: str, points: Sequence[int], peers: Sequence[str]) -> Iterator[Table]:
        """How an echo's or a delivery's cost grows, a table for each point."""
        for point in points:
            if what == "subscribers":
                measure: Measure = partial(broadcast, subscribers=point)
            elif what == "connections":
                measure = partial(echo, connections=point)
            elif what == "size":
                measure = partial(echo, connections=CONNECTIONS // 10, size=point)
            else:
                measure = SERVER_BENCHES[name][1]
            workers = point if what == "workers" else 1
            yield self._compare(name, f"µs of CPU each, {what} {point:,}", peers, measure, workers)

    def _compare(self, name: str, unit: str, peers: Sequence[str], measure: Measure, workers: int = 1) -> Table:
        values: dict[str, list[float]] = {peer: [] for peer in peers}
        with contextlib.ExitStack() as stack:
            running = {}
            if name != "memory":
                running = {peer: stack.enter_context(self.made.serving(peer, workers=workers)) for peer in peers}
            for server in running.values():  # compilers and caches warm up
                uvloop.run(_value(measure, server, 2 * self.seconds))
            for turn in range(self.rounds):
                for peer in peers:
                    if peer in running:
                        values[peer].append(uvloop.run(_value(measure, running[peer], self.seconds)))
                    else:
                        with self.made.serving(peer) as fresh:
                            values[peer].append(uvloop.run(_value(measure, fresh, self.seconds)))
                told(f"{name}, {unit}", turn, self.rounds, values)
        return Table(name, unit, values)

    def generator(self, peers: Sequence[str], rate: int) -> Iterator[Table]:
        """An open model over 1,000 connections to the C server, and idle connections to it."""
        tables = {
            "cpu": Table("generator", f"µs of CPU per message, {rate:,}/s over {CONNECTIONS} connections", {}),
            "p50": Table("response time p50", "µs; ours from the turn, Node's from the send", {}),
            "p99": Table("response time p99", "µs", {}),
            "late_p99": Table("scheduler lag p99", "µs; Node's: its timers", {}),
            "connect": Table("connect", "µs of CPU per connection", {}),
            "memory": Table("generator memory", "KiB per connection", {}),
        }
        with self.made.serving("c") as server:
            for turn in range(self.rounds):
                for peer in peers:
                    figures = self._load(peer, server, CONNECTIONS * 1000 // rate) | self._hold_idle(peer, server)
                    for key, value in figures.items():
                        tables[key].values.setdefault(peer, []).append(value)
                told("generator", turn, self.rounds, tables["cpu"].values)
        yield from tables.values()

    def _load(self, peer: str, server: Server, interval_ms: int) -> dict[str, float]:
        before = _settled(psutil.Process(server.pids[0]))
        with self._generating(peer, server, CONNECTIONS, interval_ms, CONNECTIONS) as (process, report):
            pid = _opened(peer, process, server, before + CONNECTIONS)
            time.sleep(1 + interval_ms / 1000)
            if peer == "node":
                os.kill(pid, signal.SIGUSR2)  # begins to count
            began, cpu = time.monotonic(), cpu_s(pid)
            time.sleep(self.seconds)
            cpu, took = cpu_s(pid) - cpu, time.monotonic() - began
            if peer == "node":
                process.terminate()
                out, _ = process.communicate()
                said = json.loads(out)
                sent, reply, late = said["sent"], said["reply_us"], said["late_us"]
            else:
                process.wait()
                result = json.loads(report.read_text())
                sent = result["rates"]["sent_per_s"] * took
                latency = result["latency_s"]
                reply, late = (
                    {key: (latency[name][key] or float("inf")) * 1e6 for key in ("p50", "p99")}
                    for name in ("response_time", "scheduler_lag")
                )
        if not sent:
            raise Unavailable(f"{peer} has sent nothing in {took:.1f} s: is the machine at rest?")
        return {"cpu": cpu / sent * 1e6, "p50": reply["p50"], "p99": reply["p99"], "late_p99": late["p99"]}

    def _hold_idle(self, peer: str, server: Server) -> dict[str, float]:
        """From what a process with many idle connections has cost and holds, beyond one with few."""
        few, many = CONNECTIONS // 2, CONNECTIONS // 2 + HELD
        (cpu_few, bytes_few), (cpu_many, bytes_many) = (self._idle(peer, server, count) for count in (few, many))
        return {"connect": (cpu_many - cpu_few) / HELD * 1e6, "memory": (bytes_many - bytes_few) / HELD / 1024}

    def _idle(self, peer: str, server: Server, count: int) -> tuple[float, int]:
        before = _settled(psutil.Process(server.pids[0]))
        with self._generating(peer, server, count, 0, 5000) as (process, _):
            pid = _opened(peer, process, server, before + count)
            time.sleep(WARM_UP_S)
            return cpu_s(pid), psutil.Process(pid).memory_full_info().uss

    @contextlib.contextmanager
    def _generating(
        self, peer: str, server: Server, clients: int, interval_ms: int, rate: int
    ) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """A load generator that is running, and where `lean` leaves its result."""
        report = self.made.folder("c") / "result.json"
        url = f"ws://127.0.0.1:{server.port}/echo"
        command = self.made.generator(peer, url, clients, interval_ms, rate, report)
        with subprocess.Popen(
            command, cwd=self.made.folder(peer) if peer == "node" else ROOT, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            try:
                yield process, report
            finally:
                process.terminate()

    def hold(self, connections: int) -> dict[str, Any]:
        """`wsnode serve` and `wsnode load`, processes enough for the open-file limit: all connections open at once, and
        in the last 30 s each sends one message and has it answered. Returns what came of it."""
        addresses = -(-connections // PORTS_AN_ADDRESS)
        sources = [option for n in range(addresses) for option in ("--source", f"127.0.0.{2 + n}")]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # SO_REUSEPORT deals by a hash: some processes get more than their share.
        workers = max(1, -(-connections // int(hard * 0.8)))
        rate = 4000
        report = self.made.folder("hold") / "result.json"
        report.parent.mkdir(exist_ok=True)
        ramp_up = max(1, -(-connections // rate))
        held_s = 30
        free_before = psutil.virtual_memory().available
        with self.made.serving("lean", "--ping-interval", "0", workers=workers) as server:
            process = subprocess.Popen(
                [sys.executable, "-m", "wsnode", "load", f"ws://127.0.0.1:{server.port}/echo",
                 "--clients", str(connections), "--interval", str(held_s * 1000), "--ramp-up", str(ramp_up),
                 "--rate", str(rate), "--duration", str(ramp_up + held_s), "--json", str(report), "--quiet", *sources],
                cwd=ROOT, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            most, least = 0, free_before
            while process.poll() is None:
                time.sleep(1)
                with contextlib.suppress(psutil.Error):
                    most = max(most, server.bytes())
                least = min(least, psutil.virtual_memory().available)
            if not report.exists():
                raise SystemExit("wsnode load could not run: its own words are above")
            result = json.loads(report.read_text())
        counters = result["counters"]
        return {
            "connections": connections,
            "processes": {"server": workers},
            "peak": counters["connections_peak"],
            "failed": counters["connections_failed"],
            "errors": counters["errors"],
            "window_due": result["latency_s"]["response_time"]["due"],
            "window_answered": result["latency_s"]["response_time"]["count"],
            "validity": result["validity"],
            "server_kib_each": most / connections / 1024,
            "machine_kib_each": (free_before - least) / connections / 1024,
            "held": counters["connections_peak"] == connections
            and not counters["errors"]
            and result["latency_s"]["response_time"]["count"] == connections,
        }


async def _value(measure: Measure, server: Server, seconds: float) -> float:
    return await measure(server, seconds)


def _opened(peer: str, generator: subprocess.Popen[str], server: Server, descriptors: int) -> int:
    """Wait until a server has as many. Returns which of a generator's processes carries the load: with `lean` it is a
    child, and by then the only one, since what its latency floor is measured with has ended."""
    process, deadline = psutil.Process(server.pids[0]), time.monotonic() + 60
    while process.num_fds() < descriptors:
        if time.monotonic() > deadline:
            raise Unavailable(f"{peer} has not opened its connections within 60 s")
        time.sleep(0.1)
    return generator.pid if peer == "node" else psutil.Process(generator.pid).children()[0].pid


def _settled(process: psutil.Process) -> int:
    """Descriptors, once no more of them go."""
    before = -1
    while (now := process.num_fds()) != before:
        before = now
        time.sleep(0.3)
    return now


# --- what is printed ---


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def told(what: str, turn: int, rounds: int, values: dict[str, list[float]]) -> None:
    last = ", ".join(f"{peer} {rows[-1]:.2f}" for peer, rows in values.items())
    say(f"{what}: round {turn + 1} of {rounds}: {last}")


def frame() -> str:
    """Date, machine and versions."""
    cpu = next(
        (line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    parts = [
        f"{datetime.now(UTC):%Y-%m-%d}", f"{cpu or platform.machine()}, {os.cpu_count()} cores",
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB", f"Linux {platform.release()}",
        f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in ("uvloop", "websockets")),
    ]  # fmt: skip
    if shutil.which("node"):
        parts.append(
            "Node.js " + subprocess.run(["node", "-v"], capture_output=True, text=True, check=True).stdout.strip()
        )
    load = os.getloadavg()[0]
    return ", ".join(parts) + f"; load average at the begin {load:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wslab bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=[*SERVER_BENCHES, "generator", "hold", "all"])
    parser.add_argument("--peers", help=f"compared, the first one is the measure: of {', '.join(PEERS)}")
    parser.add_argument("--grow", choices=GROWTH, help="how an echo's cost grows (subscribers: a delivery's)")
    parser.add_argument("--points", help="where, such as 1000,10000 (connections of one process: up to 16,000)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round of each peer")
    parser.add_argument("--rate", type=int, default=40_000, help="messages/s of the generator bench")
    parser.add_argument("--connections", type=int, default=20_000, help="of the hold bench")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    return parser


def _tables(bench: Bench, options: argparse.Namespace, name: str, usable: Callable[..., list[str]]) -> Iterator[Table]:
    if options.grow:
        points = [int(point) for point in options.points.split(",")] if options.points else GROWTH[options.grow]
        peers = usable(("lean",) if options.grow == "workers" else ("node", "lean"))
        yield from bench.grow("broadcast" if options.grow == "subscribers" else "echo", options.grow, points, peers)
    elif name == "generator":
        usable(("c",), asked=False)
        yield from bench.generator(usable(("node", "lean")), options.rate)
    else:
        yield from bench.server(name, usable(SERVER_BENCHES[name][2]))


def main() -> int:
    from tests.benchmarks import crosscheck, repeats  # the first is built on this

    if others := {"crosscheck": crosscheck.main, "repeats": repeats.main}.get(*sys.argv[1:2] or [""]):
        return others(sys.argv[2:])
    parser = _parser()
    options = parser.parse_args()
    asked = options.peers.split(",") if options.peers else None
    if unknown := set(asked or ()) - set(PEERS):
        parser.error(f"--peers: {', '.join(sorted(unknown))} is not known; known: {', '.join(PEERS)}")
    if options.bench == "generator" and set(asked or ()) - {"node", "lean"}:
        parser.error("--peers: the generators compared are node and lean")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Peers(Path(folder)), options.rounds, options.seconds)

        def usable(default: Sequence[str], *, asked: bool = True) -> list[str]:
            """Those of the peers that can be had here; the others are named."""
            found = []
            for peer in options.peers.split(",") if asked and options.peers else default:
                try:
                    bench.made.make(peer)
                    found.append(peer)
                except Unavailable as error:
                    say(f"{peer} left out: {error}")
            if not found:
                parser.error("none of the peers can be had on this machine")
            return found

        heading = frame()
        parts: list[str] = []
        data: dict[str, Any] = {"frame": heading, "tables": []}
        names = [*SERVER_BENCHES, "generator", "hold"] if options.bench == "all" else [options.bench]
        for name in names:
            if name == "hold":
                data["hold"] = held = bench.hold(options.connections)
                parts.append("hold: " + json.dumps(held))
                continue
            for table in _tables(bench, options, name, usable):
                data["tables"].append(table.json())
                parts.append(table.markdown())
        text = "\n\n".join((heading, *parts)) + "\n"
    print(text, end="")
    if options.markdown:
        options.markdown.write_text(text)
    if options.json:
        options.json.write_text(json.dumps(data, indent=2) + "\n")
    return 0 if data.get("hold", {"held": True})["held"] else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Unavailable as error:
        sys.exit(f"wslab bench: {error}")
