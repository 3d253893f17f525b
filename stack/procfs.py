"""Processes by pid *and* start time, as the kernel shows them: a pid alone may be somebody else's by now."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MARK = "WSLAB_STACK"  # in the environment of every process of a stack, with the stack's id


class Pid(NamedTuple):
    """A process that cannot be confused with a later one of the same number.

    `start` is in clock ticks since boot (field 22 of /proc/PID/stat).
    """

    pid: int
    start: int


class Stat(NamedTuple):
    """What /proc/PID/stat says that matters here. `state` is one letter: R S D T Z X…"""

    state: str
    parent: int
    session: int
    start: int


def stat(pid: int) -> Stat | None:
    """None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    return Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def identify(pid: int) -> Pid | None:
    """The process that has this number now; None when there is none."""
    found = stat(pid)
    return Pid(pid, found.start) if found else None


def alive(process: Pid) -> bool:
    """True while that very process runs (a zombie does not)."""
    found = stat(process.pid)
    return found is not None and found.start == process.start and found.state not in "ZX"


def boot_id() -> str:
    """Start times count from a boot; this names it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def send(process: Pid, number: signal.Signals) -> bool:
    """Signal that very process; False when it is gone or not ours. A reused pid is never hit (pidfd)."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not alive(process):
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _marked(pid: int, mark: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return mark in environment.split(b"\0")


def family(stack_id: str, leaders: Iterable[Pid] = ()) -> set[Pid]:
    """Every living process of a stack: the given ones, all of their sessions, and all that carry its mark.

    Each child of the supervisor leads a session of its own. A session counts only while its recorded leader
    lives; after that its number may be somebody else's, and the mark alone decides.
    """
    mark = f"{MARK}={stack_id}".encode()
    known = {leader.pid: leader for leader in leaders}
    found = {leader for leader in known.values() if alive(leader)}
    mine = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == mine:
            continue
        pid = int(name)
        seen = stat(pid)
        if seen is None or seen.state in "ZX":
            continue
        leader = known.get(seen.session)
        if (leader is not None and leader in found) or _marked(pid, mark):
            found.add(Pid(pid, seen.start))
    return found


def session(leader: int, stack_id: str) -> set[Pid]:
    """What a dead leader left in its session; the number cannot be anybody else's while a member lives."""
    mark = f"{MARK}={stack_id}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and (seen := stat(int(name))) and seen.session == leader and _marked(int(name), mark):
            found.add(Pid(int(name), seen.start))
    return found


def end(processes: Iterable[Pid], grace_s: float) -> set[Pid]:
    """SIGTERM, wait up to `grace_s` seconds, SIGKILL, wait until they are gone. Returns those that were killed."""
    left = {process for process in processes if send(process, signal.SIGTERM)}
    deadline = time.monotonic() + grace_s
    while (left := {process for process in left if alive(process)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        send(process, signal.SIGCONT)  # a stopped process would not notice the SIGTERM; harmless for SIGKILL
        send(process, signal.SIGKILL)
    killed = set(left)
    deadline = time.monotonic() + 5
    while any(alive(process) for process in left) and time.monotonic() < deadline:
        time.sleep(0.02)
    return killed


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send this process the signal when its parent ends, even by kill -9.

    Raises:
        SystemExit: the parent was gone before the request.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, int(number), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise SystemExit(1)
