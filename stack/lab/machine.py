"""One host of the virtual lab: systemd-nspawn, waited for until it takes SSH, started again when the guest reboots."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack import procfs
from stack.events import now
from stack.lab import kernel
from stack.lab.layout import GUEST_APT, Host
from stack.process import open_log, tail

REBOOTED = 133  # systemd-nspawn's exit code with --keep-unit: whoever started it shall start it again
READY_TIMEOUT_S = 90.0
QUICK_S = 10.0
QUICK_LIMIT = 4  # so many short lives in a row: give up
OPEN_FILES = 1048576

# Joins the cgroups named before `--`, then becomes what follows. The pid stays, and dies when its parent does.
_JOIN = 'while [ "$1" != -- ]; do mkdir -p "$1" && echo $$ >"$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'


def nspawn(host: Host, repository: Path | None) -> list[str]:
    """The command line that boots a host, which sees the package repository at GUEST_APT."""
    binds = [f"--bind-ro={str(repository).replace(':', chr(92) + ':')}:{GUEST_APT}"] if repository else []
    return [
        "systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--boot",
        f"--directory={host.root}", f"--machine={host.machine}", f"--hostname={host.name}",
        f"--network-namespace-path={host.namespace}", f"--rlimit=RLIMIT_NOFILE={OPEN_FILES}",
        "--resolv-conf=off", "--timezone=off", "--link-journal=no", *binds,
    ]  # fmt: skip


def start_command(host: Host, repository: Path | None) -> list[str]:
    """`nspawn` in a cgroup of its own: hosts that share one would see each other's units. SIGTERM when its parent ends.

    Where systemd is PID 1 the cgroup is a scope that it delegates, since nobody else may write there.
    """
    command = nspawn(host, repository)
    if kernel.SYSTEMD.is_dir():
        command = [
            "systemd-run", "--scope", "--quiet", "--collect", f"--unit={host.machine}", "--property=Delegate=yes", "--",
            *command,
        ]  # fmt: skip
    else:
        folders = [str(root / host.machine) for root in kernel.cgroup_roots()]
        command = ["sh", "-c", _JOIN, host.machine, *folders, "--", *command]
    return ["setpriv", "--pdeathsig", "TERM", "--", *command]


def enter(leader: procfs.Pid, *command: str) -> list[str]:
    """The command line that runs a command as root within a host, without its sshd."""
    surroundings = ("HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    inside = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
    term = f"TERM={os.environ.get('TERM', 'dumb')}"
    return ["nsenter", "--target", str(leader.pid), *inside, "--", "/usr/bin/env", "-i", term, *surroundings, *command]


class Machine:
    """Keeps one host running.

    `state`: waiting, starting, running, restarting, stopped (the guest was powered off), failed. `changed` is called
    after every change.
    """

    def __init__(self, host: Host, repository: Path | None, log: Path, changed: Callable[["Machine"], None]) -> None:
        self.host = host
        self.log = log
        self._repository = repository
        self.state = "waiting"
        self.reason: str | None = None
        self.since = now()
        self.process: procfs.Pid | None = None
        self.restarts = 0
        self.reboots = 0
        self.failed_units: list[str] = []
        self.settled = asyncio.Event()  # running, stopped or failed
        self._changed = changed
        self._wake = asyncio.Event()
        self._ending = False

    def row(self) -> dict[str, Any]:
        """The host as the record holds it."""
        return {
            "name": self.host.name,
            "group": self.host.group,
            "address": self.host.address,
            "release": self.host.release,
            "machine": self.host.machine,
            "state": self.state,
            "reason": self.reason,
            "pid": self.process and self.process.pid,
            "start": self.process and self.process.start,
            "restarts": self.restarts,
            "reboots": self.reboots,
            "failed_units": self.failed_units,
            "since": self.since,
        }

    def _become(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason, self.since = state, reason, now()
        if state in ("running", "stopped", "failed"):
            self.settled.set()
        else:
            self.settled.clear()
        self._changed(self)

    def wake(self) -> bool:
        """Start a host again that was powered off or given up; False when it is neither."""
        if self.state not in ("stopped", "failed"):
            return False
        self.restarts += 1
        self._become("restarting", "asked for")
        self._wake.set()
        return True

    def end(self) -> None:
        """No restarts any more; the caller kills."""
        self._ending = True
        self._wake.set()

    async def keep_running(self) -> None:
        """Start it, again and again; returns after `end`."""
        quick = 0
        while not self._ending:
            begun = time.monotonic()
            code = await self._once()
            if self._ending:
                return
            if code == REBOOTED:
                self.reboots += 1
                self._become("restarting", "the guest reboots")
                continue
            quick = quick + 1 if time.monotonic() - begun < QUICK_S else 1
            if code == 0:
                self._become("stopped", "powered off from within")
            elif self.state == "failed" or quick >= QUICK_LIMIT:
                if self.state != "failed":
                    self._become("failed", f"systemd-nspawn ended with {code}, {quick} times in a row; given up")
            else:
                self.restarts += 1
                self._become("restarting", f"systemd-nspawn ended with {code}")
                await asyncio.sleep(0.3)
                continue
            await self._wake.wait()
            self._wake.clear()
            quick = 0

    async def _once(self) -> int:
        """One life of the host; systemd-nspawn's exit code (negative: the signal)."""
        await asyncio.to_thread(kernel.clear, self.host.machine)  # what a killed systemd-nspawn left of it
        output = open_log(self.log)
        try:
            child = await asyncio.create_subprocess_exec(
                *start_command(self.host, self._repository),
                env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", kernel.MARK: self.host.name},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            os.write(output, f"cannot start: {error}\n".encode())
            return 127
        finally:
            os.close(output)
        self.process = procfs.identify(child.pid)
        self._become("starting")
        readiness = asyncio.create_task(self._wait_ready())
        try:
            return await child.wait()
        finally:
            readiness.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await readiness
            self.process = None

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        missing: str | None = "not asked yet"
        while missing is not None and time.monotonic() < deadline:
            missing = await greeting(self.host)
            if missing is not None:
                await asyncio.sleep(0.05)
        if missing is None:
            self._become("running", await self._booted(deadline))
            return
        self._become("failed", f"not up after {READY_TIMEOUT_S:.0f} s: {missing}")
        if self.process is not None:
            procfs.send(self.process, signal.SIGKILL)

    async def _booted(self, deadline: float) -> str | None:
        """Wait for systemd's word that it has started everything; None then, else what it says at the deadline."""
        said = "systemd does not answer"
        while (left_s := deadline - time.monotonic()) > 0:
            leader = kernel.leader(self.process) if self.process else None
            if leader is not None:
                wait = f"timeout {left_s:.0f} systemctl is-system-running --wait || systemctl is-system-running"
                script = f"({wait}) | tail -n 1; systemctl list-units --failed --plain --no-legend"
                state, *units = (await output_of(enter(leader, "sh", "-c", script))).splitlines() or [""]
                self.failed_units = [unit.split()[0] for unit in units if unit.strip()]
                if state in ("running", "degraded"):
                    return None
                said = f"systemd is still {state!r}"
            await asyncio.sleep(0.05)
        return said


async def output_of(command: list[str]) -> str:
    """What a command prints, whatever its exit code."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        said, _ = await child.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        raise
    return said.decode(errors="replace")


async def greeting(host: Host, timeout_s: float = 2.0) -> str | None:
    """None when the host's sshd greets, else what it does instead."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host.address, 22)
            try:
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError:
        return f"no answer from {host.address}:22"
    except OSError as error:
        return f"{host.address}:22: {error.strerror or error}"
    return None if line.startswith(b"SSH-") else f"{host.address}:22 does not greet as sshd does"


def console(log: Path) -> str:
    """The end of a host's console, indented, for a message."""
    return "".join(f"\n    {line}" for line in tail(log))
