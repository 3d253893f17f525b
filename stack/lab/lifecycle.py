"""Bringing the virtual lab up and down from its user's side: the supervisor is a process of its own."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stack import paths, procfs
from stack.errors import StackError
from stack.events import words
from stack.lab import layout, record, supervisor
from stack.process import open_log
from stack.terminal import Progress

START_TIMEOUT_S = 1200.0  # a first start makes images and repositories
STOP_TIMEOUT_S = 30.0
WAKE_TIMEOUT_S = 120.0
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "ip": "iproute2",
}
"""What must be on PATH, and the Debian package that brings it."""


def check_machine() -> None:
    """Raises StackError where this machine or user cannot have a virtual lab."""
    if os.geteuid() != 0:
        raise StackError("the virtual lab makes namespaces and mounts, which needs root", "sudo ./wslab lab …")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        wanted = " ".join(dict.fromkeys(TOOLS[tool] for tool in missing))
        raise StackError(f"the virtual lab needs {', '.join(missing)}", f"apt install {wanted}")


def others(state: Path) -> StackError | None:
    """The complaint that another state folder's lab is up on this machine; None when none is, or ours."""
    owner = record.owner()
    if owner is None or owner.state == state.resolve() or not procfs.alive(owner.supervisor):
        return None
    return StackError(
        f"the virtual lab of {owner.state} is up on this machine; one machine has one, with one network",
        f"WSLAB_STATE={owner.state} ./wslab lab down",
    )


class Starting:
    """A lab that this process brings up, or one that is up already. `ours` tells which."""

    def __init__(self, state: Path, wanted: dict[str, Any], progress: Progress) -> None:
        self.state = state
        self.wanted = wanted
        self.progress = progress
        self.ours = False
        self.child: subprocess.Popen[bytes] | None = None
        self._states: dict[str, str] = {}
        self._begun = time.monotonic()

    def seconds(self) -> float:
        """Since this was made."""
        return time.monotonic() - self._begun

    def wait(self) -> record.LabRecord:
        """Bring it up unless it is, and wait until it is whole.

        Raises:
            StackError: it did not come up, or another clone's is up.
        """
        while True:
            running = self._attach() if record.locked() else self._spawn()
            if running is not None:
                self.progress.clear()
                return running

    def _spawn(self) -> record.LabRecord | None:
        ours, theirs = os.pipe()
        output = open_log(self.state / "logs" / "lab.log")
        try:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "stack.lab.supervisor", json.dumps({**self.wanted, "report_fd": theirs})],
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

    def _follow(self, pipe: int) -> record.LabRecord | None:
        """Events of our own supervisor until the lab is up; None when another got in first."""
        assert self.child is not None
        pending = b""
        while True:
            self._check_time()
            if not select.select([pipe], [], [], 0.2)[0]:
                self._show()
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                if self.child.wait() == 75:
                    self.ours = False
                    return None
                raise StackError("the lab's supervisor ended while starting", f"see {self.state}/logs/lab.log")
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                if self._heard(json.loads(line)):
                    found = record.read(self.state)
                    if found is not None:
                        return found

    def _check_time(self) -> None:
        if self.seconds() > START_TIMEOUT_S:
            raise StackError(
                f"not up after {START_TIMEOUT_S:.0f} s", f"see {self.state}/logs/lab.log, then ./wslab lab down"
            )

    def _heard(self, event: dict[str, Any]) -> bool:
        match event["event"]:
            case "ready":
                return True
            case "failed":
                self.progress.clear()
                assert self.child is not None
                self.child.wait()
                raise StackError(event["error"], event["fix"])
            case "note":
                self.progress.say(f"  {event['text']}")
            case "process":
                self._states[event["name"]] = event["state"]
                if event["state"] in ("restarting", "failed"):
                    self.progress.say(f"  {words(event, secret=False)}")
        self._show()
        return False

    def _show(self) -> None:
        hosts = {name: state for name, state in self._states.items() if name != "preparing"}
        if hosts:
            waiting = [name for name, state in hosts.items() if state != "running"]
            text = f"{len(hosts) - len(waiting)} hosts are up" + (f"; {', '.join(waiting)}" if waiting else "")
        else:
            text = self._states.get("preparing", "cleaning up")
        self.progress.update(f"starting, {self.seconds():.0f} s: {text}")

    def _attach(self) -> record.LabRecord | None:
        """Wait for a lab that somebody else brings up; None when it has gone again and we should start."""
        while record.locked():
            complaint = others(self.state)
            if complaint is not None:
                raise complaint
            found = record.read(self.state)
            if found is not None and found.supervised and found.phase == "running":
                return found
            self._check_time()
            phase = found.phase if found is not None and found.supervised else "starting"
            self.progress.update(f"another ./wslab lab is {phase}; waiting")
            time.sleep(0.1)
        return None


def wake(state: Path, found: record.LabRecord, progress: Progress) -> list[str]:
    """Start the hosts again that were powered off or given up; their names. Waits until they are up.

    Raises:
        StackError: one does not come up.
    """
    before = {row["name"]: row["restarts"] for row in found.hosts if row["state"] in ("stopped", "failed")}
    if not before:
        return []
    procfs.send(found.supervisor, signal.SIGUSR1)
    deadline = time.monotonic() + WAKE_TIMEOUT_S
    while time.monotonic() < deadline:
        now = record.read(state)
        if now is None or not now.supervised:
            raise StackError("the lab went down meanwhile", "./wslab lab up")
        heard = [row for row in now.hosts if row["restarts"] > before.get(row["name"], row["restarts"])]
        up = [row["name"] for row in heard if row["state"] == "running"]
        if len(up) == len(before):
            return up
        for row in heard:
            if row["state"] in ("stopped", "failed"):
                raise StackError(f"{row['name']} did not start: {row['reason']}", f"see {state}/logs")
        progress.update(f"starting again: {', '.join(name for name in before if name not in up)}")
        time.sleep(0.1)
    raise StackError(f"{', '.join(before)} not up after {WAKE_TIMEOUT_S:.0f} s", f"see {state}/logs")


def stop(state: Path, progress: Progress) -> list[str] | None:
    """Take the lab down; clean up what a dead supervisor left. A second Ctrl-C: no more patience.

    Returns:
        None when nothing was there, else what was cleaned up (empty after an orderly stop).

    Raises:
        StackError: another clone's lab is up here, or ours does not end.
    """
    begun = time.monotonic()
    asked: procfs.Pid | None = None
    while True:
        handle = record.try_lock()
        if handle is not None:
            try:
                stale = record.path(state).exists()
                left = supervisor.clean(state)
            finally:
                shutil.rmtree(layout.RUN, ignore_errors=True)
                os.close(handle)
            progress.clear()
            return left if left or asked is not None else ([] if stale else None)
        complaint = others(state)
        if complaint is not None:
            raise complaint
        owner = record.owner()
        if owner is not None and owner.supervisor != asked:
            asked = owner.supervisor
            procfs.send(asked, signal.SIGTERM)
        waited = time.monotonic() - begun
        progress.update(f"taking the lab down, {waited:.0f} s")
        if asked is not None and waited > STOP_TIMEOUT_S:
            procfs.send(asked, signal.SIGKILL)
        if waited > 2 * STOP_TIMEOUT_S:
            raise StackError("the lab does not go down", f"see {state}/logs/lab.log; ls /run/wslab-lab")
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            if asked is not None:
                procfs.send(asked, signal.SIGKILL)


def running(state: Path) -> record.LabRecord:
    """The lab that is up.

    Raises:
        StackError: there is none, and how to get one.
    """
    found = record.read(state)
    if found is None or not found.supervised:
        raise others(state) or StackError("the virtual lab is down", "sudo ./wslab lab up")
    return found
