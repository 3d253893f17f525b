"""One supervised process: started, waited for until ready, started again when it dies, stopped by a deadline."""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stack import procfs
from stack.events import now
from stack.paths import ROOT
from stack.services import Lab, Service

READY_TIMEOUT_S = 60.0
QUICK_S = 10.0  # a process that lived shorter crashed on its own start
QUICK_LIMIT = 4  # so many in a row: give up
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOG_LIMIT = 5_000_000  # bytes; larger at a start: moved to NAME.log.1

_prctl = ctypes.CDLL(None).prctl
_PR_SET_PDEATHSIG = 1


def open_log(path: Path) -> int:
    """The log for appending, rotated once when it has grown large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_name(path.name + ".1"))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def tail(path: Path, lines: int = 8) -> list[str]:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def bound_to(parent: int, niceness: int = 0) -> Callable[[], None]:
    """For `preexec_fn`: the child gets SIGTERM when the supervisor ends, even by kill -9; and is as nice as told.

    Safe there: the supervisor forks from its one thread, and the child makes three system calls.
    """

    def run() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        if niceness:
            os.nice(niceness)

    return run


class Process:
    """Keeps one service running.

    `state`: waiting, starting, running, restarting, stopping, stopped, failed, absent. `reason` says why for the last
    two. `restarts` counts starts after the first. `changed` is called after every change, before anything else happens,
    so that the record knows each pid from the moment it exists.
    """

    def __init__(
        self, service: Service, lab: Lab, environment: Mapping[str, str], changed: Callable[["Process"], None]
    ) -> None:
        self.service = service
        self.name = service.name
        self.state = "waiting"
        self.reason: str | None = None
        self.restarts = 0
        self.since = now()
        self.process: procfs.Pid | None = None
        self.ready = asyncio.Event()  # set when ready for the first time, or when it never will be
        self._lab = lab
        self._environment = environment
        self._changed = changed
        self._stopping = asyncio.Event()
        self._child: asyncio.subprocess.Process | None = None
        self._never_ready: str | None = None
        self._again: asyncio.Future[str | None] | None = None
        """Somebody waits for a restart: why it did not come about, None once it did."""

    def row(self) -> dict[str, Any]:
        """The process as stack.json holds it."""
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "pid": self.process and self.process.pid,
            "start": self.process and self.process.start,
            "port": self._lab.ports[self.service.port] if self.service.port and self.state != "absent" else None,
            "restarts": self.restarts,
            "since": self.since,
            "optional": self.service.optional,
        }

    def _become(self, state: str, reason: str | None = None) -> None:
        self.state, self.reason, self.since = state, reason, now()
        if state in ("running", "failed", "absent", "stopped"):
            self.ready.set()
            if self._again is not None and not self._again.done():
                self._again.set_result(None if state == "running" else reason or f"{self.name} is {state}")
        self._changed(self)

    def skip(self, reason: str) -> None:
        """It will not be started: what it needs is not here."""
        self._become("absent", reason)

    async def keep_running(self) -> None:
        """Start it, again and again, until `stop` is called or it has crashed too often in a row."""
        quick = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = await self._once()
            if self._stopping.is_set():
                break
            if self._never_ready:
                self._become("failed", self._never_ready)
                return
            if self._again is not None and self.state == "restarting":
                continue  # asked for: no crash, and nothing to wait for
            quick = quick + 1 if time.monotonic() - begun < QUICK_S else 0
            ended = _ending(code)
            if quick >= QUICK_LIMIT:
                self._become("failed", f"{ended}, {quick} times in a row; given up")
                return
            self.restarts += 1
            self._become("restarting", ended)
            pause = _BACKOFF_S[min(quick, len(_BACKOFF_S)) - 1] if quick else _BACKOFF_S[0]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        self._become("stopped")

    async def _once(self) -> int:
        """One life of the process; its exit code (negative: the signal)."""
        argv = self.service.argv(self._lab)
        if argv is None:
            raise AssertionError(f"{self.name} has no command line; it should have been skipped")
        log = self._lab.log(self.name)
        output = open_log(log)
        offset = os.fstat(output).st_size
        try:
            child = await asyncio.create_subprocess_exec(
                *argv,
                cwd=ROOT,
                env=self.service.surroundings(self._lab, self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=bound_to(os.getpid(), self.service.niceness),
            )
        except OSError as error:
            os.write(output, f"cannot start {argv[0]}: {error}\n".encode())
            return 127
        finally:
            os.close(output)
        self._child = child
        self.process = procfs.identify(child.pid)
        self._become("starting")
        if self._stopping.is_set():  # told while it was being started
            procfs.send(procfs.Pid(child.pid, self.process.start if self.process else 0), signal.SIGTERM)
        readiness = asyncio.create_task(self._wait_ready(offset))
        try:
            code = await child.wait()
        finally:
            readiness.cancel()
        self._sweep_session()
        self.process = self._child = None
        return code

    async def _wait_ready(self, offset: int) -> None:
        probe = self.service.probe(self._lab, offset)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            missing = await probe()
            if missing is None:
                if self.state == "starting":
                    self._become("running")
                return
            if time.monotonic() > deadline:
                self._never_ready = f"not ready after {READY_TIMEOUT_S:.0f} s: {missing}"
                await self._terminate()
                return
            await asyncio.sleep(0.1)

    async def restart(self) -> str | None:
        """Stop it in order and start it again. Returns None once it is ready, else why it is not.

        One restart at a time: who asks during one gets that one's end.
        """
        if self._again is None:
            if self._child is None or self.state != "running":
                return f"{self.name} is {self.state}{f' ({self.reason})' if self.reason else ''}, not running"
            self._again = asyncio.get_running_loop().create_future()
            self.restarts += 1
            self._become("restarting", "asked for")
            restarting = asyncio.create_task(self._terminate())
            self._again.add_done_callback(lambda _: setattr(self, "_again", None))
            await restarting
        again = self._again
        return await asyncio.shield(again) if again is not None else None

    def _sweep_session(self) -> None:
        """What the dead process left in its session (workers of a killed master) goes as well."""
        if self.process is not None:
            for orphan in procfs.session(self.process.pid, self._environment.get(procfs.MARK, "")):
                procfs.send(orphan, signal.SIGKILL)

    async def _terminate(self) -> None:
        """SIGTERM, and SIGKILL after the service's deadline."""
        child, process = self._child, self.process
        if child is None or process is None:
            return
        procfs.send(process, signal.SIGCONT)
        procfs.send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(child.wait()), self.service.stop_s)
        except TimeoutError:
            procfs.send(process, signal.SIGKILL)
            await child.wait()

    async def stop(self, at_once: asyncio.Event) -> None:
        """Stop it for good: in order, or by SIGKILL as soon as `at_once` is set."""
        self._stopping.set()
        if self._child is None:
            if self.state not in ("absent", "failed"):
                self._become("stopped")
            return
        self._become("stopping")
        stopping = asyncio.create_task(self._terminate())
        hurry = asyncio.create_task(at_once.wait())
        await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done() and self.process is not None:
            procfs.send(self.process, signal.SIGKILL)
        hurry.cancel()
        await stopping


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
