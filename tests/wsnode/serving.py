"""A real `wsnode serve` for tests, and raw sockets that speak as much WebSocket as a test needs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TypeVar

import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
"""How long a test waits for what must come; a slow machine passes, only slower."""


T = TypeVar("T")


def eventually(read: Callable[[], T], wanted: Callable[[T], bool], patience_s: float = PATIENCE_S) -> T:
    """Read until the value is as wanted. Fails with the last value."""
    deadline = time.monotonic() + patience_s
    while not wanted(value := read()):
        assert time.monotonic() < deadline, f"still {value!r} after {patience_s:g} s"
        time.sleep(0.02)
    return value


class Metrics(dict[tuple[str, tuple[tuple[str, str], ...]], float]):
    """Samples of one scrape."""

    def value(self, name: str, **labels: str) -> float:
        return self[name, tuple(sorted(labels.items()))]

    def total(self, name: str) -> float:
        return sum(value for (found, _), value in self.items() if found == name)


def scrape(url: str) -> Metrics:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return Metrics(
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


class Server:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], line: str, errors: IO[str]) -> None:
        self.process = process
        self.line = line
        self._errors = errors
        self.port = int(re.search(r"ws://[^ ]+:(\d+)/echo", line)[1])
        self.metrics_url = re.search(r"metrics (http://[^ ,]+)", line)[1]

    def url(self, path: str = "/echo") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def metrics(self) -> Metrics:
        return scrape(self.metrics_url)

    def value_becomes(self, name: str, wanted: float, **labels: str) -> None:
        """Workers flush ten times a second: wait for an exact value."""
        eventually(lambda: self.metrics().value(name, **labels), lambda value: value == wanted)

    def total_becomes(self, name: str, wanted: float) -> None:
        eventually(lambda: self.metrics().total(name), lambda value: value == wanted)

    def get(self, path: str) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of a plain HTTP request."""
        with raw(self.port) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return read_answer(sock)

    def workers(self) -> list[psutil.Process]:
        return sorted(psutil.Process(self.process.pid).children(), key=lambda child: child.pid)

    def stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def serving(*options: str, descriptors: int | None = None) -> Iterator[Server]:
    """`wsnode serve` with these options on free ports, ended afterwards. `descriptors` is its open-file limit."""
    command = [sys.executable, "-m", "wsnode", "serve", "--port", "0", "--metrics-port", "0", *options]
    if descriptors is not None:
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
    with (
        TemporaryFile("w+") as errors,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise AssertionError(f"the server did not start: {errors.read()}")
            yield Server(process, line, errors)
        finally:
            if process.poll() is None:
                process.kill()


# --- raw sockets ---


def raw(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def read_answer(sock: socket.socket) -> tuple[int, str, dict[str, str]]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", "0")):
        body += _more(sock)
    return int(lines[0].split()[1]), body.decode(), headers


def upgrade(port: int, path: str = "/echo") -> tuple[socket.socket, int, str, dict[str, str]]:
    """An opening handshake by hand: the socket, and status, body and headers of the answer."""
    sock = raw(port)
    sock.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return sock, *read_answer(sock)


def frame(opcode: int, payload: bytes, *, masked: bool = True) -> bytes:
    """A whole frame from a client, its mask all zeros."""
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, mask | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, mask | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, mask | 127, size)
    return head + (bytes(4) if masked else b"") + payload


def read_close(sock: socket.socket) -> int:
    """The code of the close frame that comes next."""
    head = exactly(sock, 2)
    assert head[0] == 0x88, f"a frame with first byte {head[0]:#x}, not a close frame"
    return struct.unpack("!H", exactly(sock, head[1])[:2])[0]


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise EOFError("the server closed the connection")
    return data


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError("the server closed the connection")
        data += chunk
    return data


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return True
