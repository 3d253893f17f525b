"""wsnode against what teams know: CPU time per message, delivery and accept, and memory per connection.

    ./wslab bench echo|broadcast|coalesce|accept|memory|generator [--peers node,websockets] [--rounds 7] [--json FILE]

All run in turns in one go, each server with one process, loaded by the same raw client; what counts is the median of
the rounds' ratios, since a noisy machine moves all of them. Ratios are of CPU time of the measured process, its kernel
time included, higher is better; memory is a ratio of bytes. `node` is Node.js with `ws` 8 from npm, no compression.
`lean-2` has two workers, whose CPU time is added up. With `-tick` a room's messages are written together every 2 ms:
by `--coalesce-ms`, and in Node by the same trick, frames made once and one write for each subscriber.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

ROOT = Path(__file__).parents[2]
FRAME = bytes((0x81, 0x80 | 64)) + bytes(4) + b"m" * 64
"""A masked text message of 64 bytes; its echo has 66."""
ECHO_BYTES = 66
OURS = "lean"
CONNECTIONS, HELD = 1000, 10_000
WARM_UP_S = 0.5
BURST = 200
AT_ONCE, TICK_MS = 20, 2
KNOWN = ("node", "node-tick", "lean", "lean-tick", "lean-2", "lean-2-tick", "websockets", "websockets-2")
USUAL = {"broadcast": "node,lean,lean-2,websockets", "coalesce": "node,node-tick,lean,lean-tick,lean-2,lean-2-tick"}
"""Peers of a bench that is not told which."""

NODE_SERVER = """
const { WebSocketServer, WebSocket, Sender } = require('ws');
const tick = Number(process.argv[1] ?? 0);
let waiting = [];
const flush = (server) => {
  const joined = Buffer.concat(waiting);
  waiting = [];
  for (const client of server.clients) if (client.readyState === WebSocket.OPEN) client._socket.write(joined);
};
const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false, backlog: 65535 });
server.on('connection', (socket, request) => {
  if (request.url.startsWith('/broadcast/'))
    socket.on('message', (data, binary) => {
      if (tick) {
        if (!waiting.length) setTimeout(flush, tick, server);
        waiting.push(...Sender.frame(data, { fin: true, rsv1: false, opcode: binary ? 2 : 1, mask: false }));
      } else for (const client of server.clients)
        if (client.readyState === WebSocket.OPEN) client.send(data, { binary });
    });
  else socket.on('message', (data, binary) => socket.send(data, { binary }));
});
server.on('listening', () => console.log(`ws://127.0.0.1:${server.address().port}/echo`));
"""
NODE_GENERATOR = """
const WebSocket = require('ws');
const [url, clients, interval] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const latencies = new Uint32Array(8192);
let sent = 0;
for (let i = 0; i < clients; i++) setTimeout(() => {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  const awaited = new Map();
  let sequence = 0;
  socket.on('open', () => setTimeout(() => setInterval(() => {
    awaited.set(++sequence, performance.now());
    socket.send(`${i} ${sequence} `.padEnd(64, 'x'));
    sent++;
  }, interval), Math.random() * interval));
  socket.on('message', (data) => {
    const text = data.toString();
    const key = Number(text.slice(text.indexOf(' ') + 1, text.indexOf(' ', text.indexOf(' ') + 1)));
    const began = awaited.get(key);
    if (began === undefined) return;
    awaited.delete(key);
    latencies[Math.min(8191, Math.floor((performance.now() - began) * 100))]++;
  });
}, i);
process.on('SIGTERM', () => { console.log(sent); process.exit(0); });
"""


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e9


class Table(NamedTuple):
    """What came of a bench: each peer's rounds."""

    name: str
    unit: str
    values: dict[str, list[float]]

    def rows(self) -> list[dict[str, object]]:
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

    def markdown(self) -> str:
        """For `docs/performance.md`."""
        base = next(iter(self.values))
        lines = [f"| {self.name}: {self.unit} | median | min to max | ratio to {base} |", "| --- | --- | --- | --- |"]
        lines += [
            f"| {row['peer']} | {row['median']:.2f} | {row['min']:.2f} to {row['max']:.2f} | {row['ratio']:.2f} |"
            for row in self.rows()
        ]
        return "\n".join(lines)


# --- servers ---


class Server(NamedTuple):
    """A running one: the process whose CPU and memory count."""

    pid: int
    port: int
    others: tuple[int, ...] = ()
    """Its further workers."""


@contextlib.contextmanager
def node_modules() -> Iterator[Path]:
    """A folder with `ws` in it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "ws@8"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        yield Path(folder)


@contextlib.contextmanager
def serving(peer: str, modules: Path | None) -> Iterator[Server]:
    """A peer's server."""
    name, *more = peer.split("-")
    if name == "node":
        assert modules is not None
        command = ["node", "-e", NODE_SERVER, *([str(TICK_MS)] if "tick" in more else [])]
    else:
        command = [
            sys.executable, "-m", "wsnode", "serve", "--engine", name, "--workers", "2" if "2" in more else "1",
            "--port", "0", "--metrics-port", "0", *(["--coalesce-ms", str(TICK_MS)] if "tick" in more else []),
        ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=modules or ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            found = re.search(r"ws://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found is not None, f"{peer} did not start"
            workers = [process.pid] if name == "node" else [c.pid for c in psutil.Process(process.pid).children()]
            yield Server(workers[0], int(found[1]), tuple(workers[1:]))
        finally:
            process.terminate()


# --- the raw client ---


class Client(asyncio.Protocol):
    """Counts bytes; with `again`, sends the next message when the last one's echo has come."""

    def __init__(self, path: str) -> None:
        self.path, self.opened = path, asyncio.get_running_loop().create_future()
        self.bytes = 0
        self.again = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(  # type: ignore[attr-defined]
            f"GET {self.path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.opened.set_result(None)
            return
        self.bytes += len(data)
        if self.again:
            for _ in range(len(data) // ECHO_BYTES):
                self.transport.write(FRAME)  # type: ignore[attr-defined]


async def connect(port: int, path: str, count: int) -> list[Client]:
    loop, clients = asyncio.get_running_loop(), []
    for begin in range(0, count, BURST):
        burst = await asyncio.gather(
            *(loop.create_connection(lambda: Client(path), "127.0.0.1", port) for _ in range(min(BURST, count - begin)))
        )
        clients += [client for _, client in burst]
        await asyncio.gather(*(client.opened for _, client in burst))
    return clients


def gone(clients: Sequence[Client]) -> None:
    for client in clients:
        client.transport.abort()  # type: ignore[attr-defined]


async def echo(server: Server, seconds: float) -> float:
    """CPU microseconds per message, one in flight on each connection."""
    clients = await connect(server.port, "/echo", CONNECTIONS)
    for client in clients:
        client.again = True
        client.transport.write(FRAME)  # type: ignore[attr-defined]
    await asyncio.sleep(WARM_UP_S)
    cpu, count = cpu_s(server.pid), sum(client.bytes for client in clients)
    await asyncio.sleep(seconds)
    cpu, count = cpu_s(server.pid) - cpu, sum(client.bytes for client in clients) - count
    gone(clients)
    return cpu / (count / ECHO_BYTES) * 1e6


async def broadcast(server: Server, seconds: float, at_once: int = 1) -> float:
    """CPU microseconds per delivery, so many messages to all subscribers at a time."""
    clients = await connect(server.port, "/broadcast/bench", CONNECTIONS)
    pids = (server.pid, *server.others)
    cpu, count, deadline = sum(map(cpu_s, pids)), 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        clients[0].transport.write(FRAME * at_once)  # type: ignore[attr-defined]
        count += at_once * CONNECTIONS
        while sum(client.bytes for client in clients) < count * ECHO_BYTES:
            await asyncio.sleep(0.002)
    cpu = sum(map(cpu_s, pids)) - cpu
    gone(clients)
    return cpu / count * 1e6


async def coalesce(server: Server, seconds: float) -> float:
    """The same with enough messages at a time for a tick to have something to join."""
    return await broadcast(server, seconds, AT_ONCE)


async def accept(server: Server, seconds: float) -> float:
    """CPU microseconds per connection, handshake included, in bursts."""
    cpu, count, deadline, everybody = cpu_s(server.pid), 0, time.monotonic() + seconds, []
    while time.monotonic() < deadline and count < HELD:
        everybody += await connect(server.port, "/echo", BURST)
        count += BURST
    cpu = cpu_s(server.pid) - cpu
    gone(everybody)
    await asyncio.sleep(WARM_UP_S)
    return cpu / count * 1e6


async def memory(server: Server, seconds: float) -> float:
    """KiB of the process's own memory per idle connection."""
    first = await connect(server.port, "/echo", CONNECTIONS)
    before = psutil.Process(server.pid).memory_full_info().uss
    more = await connect(server.port, "/echo", HELD)
    await asyncio.sleep(WARM_UP_S)
    grown = psutil.Process(server.pid).memory_full_info().uss - before
    gone([*first, *more])
    return grown / HELD / 1024


SERVER_BENCHES: dict[str, tuple[str, Callable[..., object]]] = {
    "echo": (f"µs of CPU per message, {CONNECTIONS} connections", echo),
    "broadcast": (f"µs of CPU per delivery, 1 to {CONNECTIONS}", broadcast),
    "coalesce": (f"µs of CPU per delivery, 1 to {CONNECTIONS}, {AT_ONCE} messages at a time", coalesce),
    "accept": ("µs of CPU per connection accepted", accept),
    "memory": ("KiB per idle connection", memory),
}


def bench_server(name: str, peers: Sequence[str], rounds: int, seconds: float, modules: Path | None) -> Table:
    unit, measure = SERVER_BENCHES[name]
    values: dict[str, list[float]] = {peer: [] for peer in peers}
    with contextlib.ExitStack() as stack:
        running = {} if name == "memory" else {p: stack.enter_context(serving(p, modules)) for p in peers}
        for peer, server in running.items():  # compilers and caches warm up
            say(f"{peer}: warming up")
            uvloop.run(measure(server, 3 * seconds))  # type: ignore[arg-type]
        for turn in range(rounds):
            for peer in peers:
                if name == "memory":
                    with serving(peer, modules) as fresh:
                        value = uvloop.run(measure(fresh, seconds))  # type: ignore[arg-type]
                else:
                    value = uvloop.run(measure(running[peer], seconds))  # type: ignore[arg-type]
                assert isinstance(value, float)
                values[peer].append(value)
            say(f"round {turn + 1} of {rounds}: " + ", ".join(f"{p} {values[p][-1]:.2f}" for p in peers))
    return Table(name, unit, values)


def bench_generator(peers: Sequence[str], rounds: int, seconds: float, modules: Path | None, per_s: int) -> Table:
    """An open model over 1,000 connections to our own server; CPU from the middle of the load."""
    values: dict[str, list[float]] = {peer: [] for peer in peers}
    interval_ms = CONNECTIONS * 1000 // per_s
    with serving(OURS, None) as server:
        url = f"ws://127.0.0.1:{server.port}/echo"
        for turn in range(rounds):
            for peer in peers:
                values[peer].append(_generate(peer, url, interval_ms, seconds, modules))
            say(f"round {turn + 1} of {rounds}: " + ", ".join(f"{p} {values[p][-1]:.2f}" for p in peers))
    return Table("generator", f"µs of CPU per message, {per_s:,} messages/s over {CONNECTIONS} connections", values)


def _generate(peer: str, url: str, interval_ms: int, seconds: float, modules: Path | None) -> float:
    if peer == "node":
        command = ["node", "-e", NODE_GENERATOR, url, str(CONNECTIONS), str(interval_ms)]
    else:
        command = [
            sys.executable, "-m", "wsnode", "load", url, "--clients", str(CONNECTIONS), "--interval", str(interval_ms),
            "--ramp-up", "1", "--rate", "1000", "--duration", str(int(seconds) + 6), "--workers", "1",
        ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=modules if peer == "node" else ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            time.sleep(4)
            pid = process.pid if peer == "node" else psutil.Process(process.pid).children()[0].pid
            began, cpu = time.monotonic(), cpu_s(pid)
            time.sleep(seconds)
            cpu, took = cpu_s(pid) - cpu, time.monotonic() - began
        finally:
            process.terminate()
    return cpu / (took * CONNECTIONS * 1000 / interval_ms) * 1e6


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="wslab bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bench", choices=[*SERVER_BENCHES, "generator"])
    parser.add_argument("--peers", help=f"compared, the first one is the measure; known: {', '.join(KNOWN)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round of each peer")
    parser.add_argument("--rate", type=int, default=40_000, help="messages/s of the generator bench")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    options = parser.parse_args()
    peers = (options.peers or USUAL.get(options.bench, "node,lean,websockets")).split(",")
    if options.bench == "generator":
        peers = [peer for peer in peers if peer != "websockets"]
    if unknown := set(peers) - set(KNOWN):
        parser.error(f"--peers: {', '.join(sorted(unknown))} is not known; known: {', '.join(KNOWN)}")
    with_node = any(peer.startswith("node") for peer in peers)
    if with_node and not (shutil.which("node") and shutil.which("npm")):
        parser.error("node and npm are not on PATH: install them, or leave node out of --peers")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if with_node:
        with node_modules() as modules:
            table = _bench(options, peers, modules)
    else:
        table = _bench(options, peers, None)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}\n")
    print(table.markdown())
    if options.json:
        options.json.write_text(json.dumps(table._asdict() | {"rows": table.rows()}, indent=2) + "\n")
    return 0


def _bench(options: argparse.Namespace, peers: list[str], modules: Path | None) -> Table:
    if options.bench == "generator":
        return bench_generator(peers, options.rounds, max(3.0, options.seconds), modules, options.rate)
    return bench_server(options.bench, peers, options.rounds, options.seconds, modules)


if __name__ == "__main__":
    sys.exit(main())
