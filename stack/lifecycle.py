"""Starting and stopping the stack from its user's side: the supervisor is a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stack import paths, procfs, record
from stack.errors import StackError
from stack.events import words
from stack.process import open_log
from stack.terminal import Progress

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 60.0


class Starting:
    """A stack that this process starts, or one that another is starting or has started.

    `ours` tells which; `admin` is the first admin with the password, when this start made it.
    """

    def __init__(self, state: Path, *, bound: bool, progress: Progress) -> None:
        self.state = state
        self.progress = progress
        self.ours = False
        self.admin: dict[str, Any] | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self._bound = bound
        self._states: dict[str, str] = {}
        self._begun = time.monotonic()

    def wait(self) -> record.Record:
        """Start it unless it runs, and wait until it is whole.

        Raises:
            StackError: it did not come up.
        """
        while True:
            running = self._attach() if record.locked(self.state) else self._spawn()
            if running is not None:
                self.progress.clear()
                return running

    def _spawn(self) -> record.Record | None:
        ours, theirs = os.pipe()
        output = open_log(self.state / "logs" / "supervisor.log")
        bound = ("--parent", str(os.getpid())) if self._bound else ()
        try:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "stack", "supervise", "--report-fd", str(theirs), *bound],
                cwd=paths.ROOT,
                env={**os.environ, "WSLAB_STATE": str(self.state)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        finally:
            os.close(output)
            os.close(theirs)
        self.ours = True
        try:
            return self._follow(ours)
        finally:
            os.close(ours)

    def _follow(self, pipe: int) -> record.Record | None:
        """Events of our own supervisor until it is ready; None when another got in first."""
        assert self.child is not None
        pending = b""
        while True:
            if time.monotonic() - self._begun > START_TIMEOUT_S:
                raise StackError(f"not up after {START_TIMEOUT_S:.0f} s", f"see {self.state}/logs, then ./wslab down")
            if not select.select([pipe], [], [], 0.2)[0]:
                self._show()
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                if self.child.wait() == 75:
                    self.ours = False
                    return None
                raise StackError("the supervisor ended while starting", f"see {self.state}/logs/supervisor.log")
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if self._heard(json.loads(line)):
                    found = record.read(self.state)
                    if found is not None:
                        return found

    def _heard(self, event: dict[str, Any]) -> bool:
        match event["event"]:
            case "ready":
                return True
            case "failed":
                self.progress.clear()
                assert self.child is not None
                self.child.wait()
                raise StackError(event["error"], event["fix"])
            case "admin":
                self.admin = event
            case "note":
                self.progress.say(f"  {event['text']}")
            case "process":
                self._states[event["name"]] = event["state"]
                if event["state"] in ("restarting", "failed"):
                    self.progress.say(f"  {words(event, secret=False)}")
        self._show()
        return False

    def _show(self) -> None:
        done = sum(state in ("running", "done") for state in self._states.values())
        waiting = [name for name, state in self._states.items() if state in ("starting", "restarting")]
        if self._states.get("packages") == "fetching":
            waiting.insert(0, "fetching Prometheus")
        seconds = time.monotonic() - self._begun
        self.progress.update(
            f"starting, {seconds:.0f} s: {done} ready" + (f"; {', '.join(waiting)}" if waiting else "")
        )

    def _attach(self) -> record.Record | None:
        """Wait for somebody else's stack; None when it has gone again and we should start."""
        while record.locked(self.state):
            found = record.read(self.state)
            if found is not None and found.supervised and found.phase == "running":
                return found
            if time.monotonic() - self._begun > START_TIMEOUT_S:
                raise StackError(f"not up after {START_TIMEOUT_S:.0f} s", f"see {self.state}/logs, then ./wslab down")
            phase = found.phase if found is not None and found.supervised else "starting"
            self.progress.update(f"another ./wslab is {phase if phase != 'failed' else 'stopping'} this stack; waiting")
            time.sleep(0.1)
        return None


def stop(state: Path, progress: Progress) -> list[str] | None:
    """Stop the stack in order; clean up what a dead supervisor left. A Ctrl-C meanwhile: no more patience, SIGKILL.

    Returns:
        None when nothing ran, else what was cleaned up (empty after an orderly stop).

    Raises:
        StackError: it did not end in time.
    """
    from stack.supervisor import sweep

    begun = time.monotonic()
    asked: procfs.Pid | None = None
    seen: dict[str, str] = {}
    while True:
        handle = record.try_lock(state)
        if handle is not None:
            try:
                left = record.read(state)
                swept = sweep(state)
            finally:
                os.close(handle)
            progress.clear()
            return swept if left is not None or asked is not None else None
        found = record.read(state)
        if found is not None and found.supervised:
            if found.supervisor != asked:
                asked = found.supervisor
                procfs.send(asked, signal.SIGTERM)
            for row in found.processes:
                if row["state"] == "stopped" and seen.get(row["name"]) not in (None, "stopped"):
                    progress.say(f"  stopped {row['name']}")
                seen[row["name"]] = row["state"]
            busy = [row["name"] for row in found.processes if row["state"] == "stopping"]
            progress.update("stopping" + (f": {', '.join(busy)}" if busy else ""))
        if time.monotonic() - begun > STOP_TIMEOUT_S:
            raise StackError(
                f"the stack did not stop within {STOP_TIMEOUT_S:.0f} s",
                f"see {state}/logs/supervisor.log; then kill -9 {asked.pid if asked else 'its pid'}, ./wslab down",
            )
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            progress.say("  stopping at once")
            if asked is not None:
                procfs.send(asked, signal.SIGTERM)


def running(state: Path) -> record.Record:
    """The stack that runs.

    Raises:
        StackError: there is none, and how to get one.
    """
    found = record.read(state)
    if found is None or not found.supervised:
        raise StackError("the stack is down", "./wslab up")
    if found.phase != "running":
        raise StackError(f"the stack is {found.phase}", "./wslab status, then try again")
    return found
