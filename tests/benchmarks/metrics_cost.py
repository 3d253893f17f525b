"""What counting costs the echo server: CPU time per message and throughput, with metrics and without.

    python -m tests.benchmarks.metrics_cost [--rounds 40] [--seconds 0.5] [--connections 100]

Both servers run `websockets` with the same settings, one as `wsnode serve --workers 1` with all its counters and
heartbeat, the other as the bare library with a two-line echo handler. They are loaded in turns (64 B of text,
one message in flight a connection) and the median of the rounds' ratios counts, since a noisy machine moves both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import psutil
import uvloop
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.wsnode.serving import ROOT, frame, serving
from wsnode.server.engines import BACKLOG
from wsnode.server.engines.websockets import RECEIVE_QUEUE, WRITE_LIMIT

MESSAGE = frame(1, b"m" * 64)
ECHO_BYTES = 2 + 64


class Client(asyncio.Protocol):
    """Sends the next message when the last one has come back."""

    def __init__(self, opened: asyncio.Future[None]) -> None:
        self.echoes = 0
        self.sending = False
        self._opened = opened
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        if not self._opened.done():
            assert data.startswith(b"HTTP/1.1 101"), data
            self._opened.set_result(None)
            return
        self._bytes += len(data)
        if self._bytes >= ECHO_BYTES:
            self._bytes -= ECHO_BYTES
            self.echoes += 1
            if self.sending:
                self.transport.write(MESSAGE)


class Load:
    """Connections to one server, loaded for a while whenever asked."""

    def __init__(self, port: int, process: psutil.Process) -> None:
        self._port = port
        self._process = process
        self._clients: list[Client] = []

    async def connect(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            opened = loop.create_future()
            _, client = await loop.create_connection(lambda opened=opened: Client(opened), "127.0.0.1", self._port)
            await opened
            self._clients.append(client)

    async def round(self, seconds: float) -> tuple[float, float]:
        """CPU microseconds of the server per message, and messages per second."""
        before, spent, began = self._echoes(), self._cpu(), perf_counter()
        for client in self._clients:
            client.sending = True
            client.transport.write(MESSAGE)
        await asyncio.sleep(seconds)
        for client in self._clients:
            client.sending = False
        echoes, elapsed = self._echoes() - before, perf_counter() - began
        await asyncio.sleep(0.05)
        return (self._cpu() - spent) / echoes * 1e6, echoes / elapsed

    def _echoes(self) -> int:
        return sum(client.echoes for client in self._clients)

    def _cpu(self) -> float:
        """CPU seconds of the process' main thread, which does all the work; in nanoseconds where psutil has ticks."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0]) / 1e9


async def serve_bare() -> None:
    async def echo(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(await connection.recv())

    server = await serve(
        echo,
        "127.0.0.1",
        0,
        backlog=BACKLOG,
        compression=None,
        max_queue=RECEIVE_QUEUE,
        write_limit=WRITE_LIMIT,
        ping_interval=None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


@contextlib.contextmanager
def bare() -> Iterator[tuple[int, psutil.Process]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.metrics_cost", "--bare"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield int(process.stdout.readline()), psutil.Process(process.pid)
        finally:
            process.kill()


async def compare(loads: dict[str, Load], rounds: int, seconds: float, connections: int) -> None:
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in loads}
    for load in loads.values():
        await load.connect(connections)
        await load.round(0.5)
    for _ in range(rounds):
        for name, load in loads.items():
            results[name].append(await load.round(seconds))
    for name, rows in results.items():
        cpu_us, rate = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:>8}: {cpu_us:6.2f} µs of CPU a message, {rate:8.0f} messages/s")
    pairs = zip(results["metrics"], results["bare"], strict=True)
    ratios = [(counted[0] / plain[0], counted[1] / plain[1]) for counted, plain in pairs]
    cpu, throughput = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"metrics / bare, median of {rounds} pairs: CPU a message {cpu:.3f}, throughput {throughput:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--bare", action="store_true", help="be the server without metrics")
    arguments = parser.parse_args()
    if arguments.bare:
        uvloop.run(serve_bare())
        return
    with serving("--workers", "1", "--ping-interval", "0") as server, bare() as (port, process):
        print(f"{os.uname().machine}, Python {sys.version.split()[0]}, {arguments.rounds} rounds each")
        loads = {"metrics": Load(server.port, server.workers()[0]), "bare": Load(port, process)}
        uvloop.run(compare(loads, arguments.rounds, arguments.seconds, arguments.connections))


if __name__ == "__main__":
    main()
