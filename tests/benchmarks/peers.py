"""What is compared: how each peer is had at run time, started, and asked for its process.

`node` is Node.js with `ws` 8 from npm, `go` gorilla/websocket through the Go tool chain, `picows` from PyPI in an
environment of its own, `c` a server that does nothing but what the kernel wants, compiled here, `bare` the lean
connection that counts nothing; `lean` and `websockets` are the engines of `wsnode serve`. No compression anywhere.
`lean-2` has two workers, whose CPU time is added up. With `-tick` a room's messages are written together every 2 ms:
by `--coalesce-ms`, and in Node by the same trick, frames made once and one write for each subscriber.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
ENGINES = ("lean", "websockets")
NODE_FLAGS = ("--max-old-space-size=4096",)


class Unavailable(Exception):
    """A peer cannot be had on this machine; the text says what is missing."""


def _need(*commands: str, repair: str) -> None:
    if missing := [command for command in commands if shutil.which(command) is None]:
        raise Unavailable(f"{' and '.join(missing)} not on PATH: {repair}")


def _run(command: Sequence[str | Path], cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Unavailable(f"{' '.join(map(str, command))} failed: {''.join(last)}")


def _node(folder: Path) -> list[str]:
    _need("node", "npm", repair="install Node.js 20 or later")
    if not (folder / "node_modules").exists():
        _run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "ws@8"], folder)
    return ["node", *NODE_FLAGS, "-e", (PROGRAMS / "server.js").read_text()]


def _go(folder: Path) -> list[str]:
    _need("go", repair="install Go 1.20 or later (Debian: golang-go)")
    shutil.copy(PROGRAMS / "server.go", folder / "server.go")
    _run(["go", "mod", "init", "peer"], folder)
    _run(["go", "get", "github.com/gorilla/websocket@v1.5.3"], folder)
    _run(["go", "build", "-o", "server", "server.go"], folder)
    return [str(folder / "server")]


def _picows(folder: Path) -> list[str]:
    _run([sys.executable, "-m", "venv", "venv"], folder)
    python = folder / "venv/bin/python"
    _run([python, "-m", "pip", "install", "-q", "picows", "uvloop"], folder)
    return [str(python), str(PROGRAMS / "picows_server.py")]


def _c(folder: Path) -> list[str]:
    _need("cc", repair="install a C compiler (Debian: gcc, libc6-dev)")
    _run(["cc", "-O2", "-o", "echo", PROGRAMS / "echo.c"], folder)
    return [str(folder / "echo")]


def _bare(_folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.programs.bare"]


_MADE: dict[str, Callable[[Path], list[str]]] = {"node": _node, "go": _go, "picows": _picows, "c": _c, "bare": _bare}
TICK_MS = 2
PEERS = (*_MADE, *ENGINES, "node-tick", "lean-tick", "lean-2", "lean-2-tick", "websockets-2")


class Server(NamedTuple):
    """A running one."""

    pids: tuple[int, ...]
    """Of the processes whose CPU time and memory count."""
    port: int

    def cpu_s(self) -> float:
        return sum(map(cpu_s, self.pids))

    def bytes(self) -> int:
        """Memory that is only theirs."""
        return sum(psutil.Process(pid).memory_full_info().uss for pid in self.pids)


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((tasks / task / "schedstat").read_text().split()[0]) for task in os.listdir(tasks)) / 1e9


class Peers:
    """Those that can be had, made once in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._commands: dict[str, list[str]] = {}

    def folder(self, peer: str) -> Path:
        """Where a peer was made, and is started."""
        return self._folder / peer.partition("-")[0]

    def make(self, peer: str) -> None:
        """Fetch or compile it. Raises `Unavailable`."""
        name = peer.partition("-")[0]
        if name in ENGINES or name in self._commands:
            return
        self.folder(name).mkdir(exist_ok=True)
        self._commands[name] = _MADE[name](self.folder(name))

    @contextlib.contextmanager
    def serving(self, peer: str, *options: str, workers: int = 1) -> Iterator[Server]:
        """A peer's server; `options` are those of `wsnode serve`."""
        name, *more = peer.split("-")
        if name in ENGINES:
            tick = ["--coalesce-ms", str(TICK_MS)] if "tick" in more else []
            command = [
                sys.executable, "-m", "wsnode", "serve", "--engine", name, "--port", "0", "--metrics-port", "0",
                "--workers", "2" if "2" in more else str(workers), *tick, *options,
            ]  # fmt: skip
        else:
            command = self._commands[name] + ([str(TICK_MS)] if "tick" in more else [])
        with subprocess.Popen(
            command, cwd=self.folder(name) if name == "node" else ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                found = re.search(r"ws://127\.0\.0\.1:(\d+)", process.stdout.readline())
                if found is None:
                    raise Unavailable(f"{peer} did not start")
                children = psutil.Process(process.pid).children() if name in ENGINES else []
                yield Server(tuple(child.pid for child in children) or (process.pid,), int(found[1]))
            finally:
                process.terminate()

    def generator(self, peer: str, url: str, clients: int, interval_ms: int, rate: int, report: Path) -> list[str]:
        """The command of a load generator. `lean` ends by itself 8 s after it has connected."""
        if peer == "node":
            source = (PROGRAMS / "generator.js").read_text()
            return ["node", *NODE_FLAGS, "-e", source, url, str(clients), str(interval_ms), str(rate)]
        ramp_up = max(1, -(-clients // rate))
        return [
            sys.executable, "-m", "wsnode", "load", url, "--clients", str(clients), "--interval", str(interval_ms),
            "--ramp-up", str(ramp_up), "--rate", str(rate), "--duration", str(ramp_up + 8), "--workers", "1",
            "--json", str(report), "--quiet",
        ]  # fmt: skip
