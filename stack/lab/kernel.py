"""What of a virtual lab the kernel shows, whoever started it: processes, mounts, namespaces, links, routes, cgroups.

Everything that a lab makes has `wslab` in its name, and a machine has one lab at a time: what is found is that one's.
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stack import procfs
from stack.lab.images import cache
from stack.lab.layout import BRIDGE, GUARD_METRIC, NAMESPACES, NETWORK, RUN
from stack.procfs import Pid

MARK = "WSLAB_VIRTUAL_LAB"  # in the environment of the supervisor and of all that it starts outside of hosts
_PREFIX = "wslab-"
SYSTEMD = Path("/run/systemd/system")  # there where systemd is PID 1 of this machine
_NSPAWN = Path("/run/systemd/nspawn")
_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_REJECT = 0x200  # RTF_REJECT: the route is unreachable


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo."""

    point: Path
    kind: str
    source: str
    options: str


def mounts() -> list[Mount]:
    """All that this process sees, in the order in which they were made."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, source, options = after.split(" ", 2)
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
        found.append(Mount(Path(point), kind, source, options))
    return found


def lab_mounts() -> list[Mount]:
    """Those of a lab: hosts' file systems and namespaces, and what a killed mmdebstrap or nspawn left."""
    images = cache() / "images"
    return [
        mount
        for mount in mounts()
        if mount.point.is_relative_to(RUN)
        or mount.point.is_relative_to(images)
        or (mount.point.parent == NAMESPACES and mount.point.name.startswith(_PREFIX))
        or (mount.point.is_relative_to(_NSPAWN) and mount.point.name.startswith(_PREFIX))
    ]


def namespaces() -> list[str]:
    """Names of the lab's network namespaces."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(NAMESPACES) if name.startswith(_PREFIX))
    return []


def links() -> list[str]:
    """Names of the lab's links in this namespace, its bridge last."""
    found = [name for name in os.listdir("/sys/class/net") if name.startswith((f"{_PREFIX}v", BRIDGE))]
    return sorted(found, key=lambda name: (name == BRIDGE, name))


def guarded() -> bool:
    """Whether the unreachable route for the lab's network is there."""
    wanted = f"{int.from_bytes(bytes(map(int, NETWORK.split('/')[0].split('.'))), 'little'):08X}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[1] == wanted and int(fields[3], 16) & _REJECT:
                return True
    return False


def cgroup_roots() -> list[Path]:
    """Where systemd's hierarchies are mounted: one with cgroup v2 alone, two where v1 is there as well."""
    return [
        mount.point
        for mount in mounts()
        if mount.kind == "cgroup2" or (mount.kind == "cgroup" and "name=systemd" in mount.options.split(","))
    ]


def cgroups() -> list[Path]:
    """The lab's cgroups, each with its hierarchy's path."""
    return [path for root in cgroup_roots() for path in root.glob(f"{_PREFIX}*") if path.is_dir()]


def _namespace_ids(names: Iterable[str]) -> set[tuple[int, int]]:
    found = set()
    for name in names:
        with contextlib.suppress(OSError):
            seen = os.stat(NAMESPACES / name)
            found.add((seen.st_dev, seen.st_ino))
    return found


def _in_cgroup(pid: int, names: set[str] | None) -> bool:
    """Whether a process is in a cgroup `wslab-NAME` (under systemd `wslab-NAME.scope`); `names` None: of any host."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    groups = re.findall(rf"/({_PREFIX}[A-Za-z0-9-]+)(?:\.scope)?(?:/|$)", text, re.MULTILINE)
    return any(names is None or group in names for group in groups)


def _marked(pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(MARK.encode() + b"=") for entry in environment.split(b"\0"))


def _pids() -> Iterator[int]:
    mine = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != mine:
            yield int(name)


def processes(machine: str | None = None) -> set[Pid]:
    """Living processes of one host, by its machine's name; without one of the whole lab, its supervisor and tools too.

    Of the host is who is in its network namespace or its cgroup. A unit with a network of its own is in the cgroup.
    """
    ids = _namespace_ids(namespaces() if machine is None else [machine])
    names = None if machine is None else {machine}
    found = set()
    for pid in _pids():
        try:
            seen = os.stat(f"/proc/{pid}/ns/net")
        except OSError:
            continue
        theirs = (seen.st_dev, seen.st_ino) in ids or _in_cgroup(pid, names) or (machine is None and _marked(pid))
        status = procfs.stat(pid) if theirs else None
        if status is not None and status.state not in "ZX":
            found.add(Pid(pid, status.start))
    return found


def leader(nspawn: Pid) -> Pid | None:
    """PID 1 of the host that this systemd-nspawn runs; None while there is none."""
    for pid in _pids():
        status = procfs.stat(pid)
        if status is None or status.parent != nspawn.pid or status.state in "ZX":
            continue
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
            inner = re.search(r"^NSpid:\s+\d+\s+(\d+)$", text, re.MULTILINE)
            if inner and inner[1] == "1":
                return Pid(pid, status.start)
    return None


def spare_watchers() -> int:
    """How many inotify instances root may still open: hosts' systemd needs some each, and fails without in odd ways."""
    used = 0
    for pid in _pids():
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}").st_uid == 0:
                for handle in os.scandir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        used += os.readlink(handle.path) == "anon_inode:inotify"
    return int(Path("/proc/sys/fs/inotify/max_user_instances").read_text(encoding="ascii")) - used


def kill(machine: str | None = None, limit_s: float = 10.0) -> set[Pid]:
    """SIGKILL to all of a host (of the lab), and to what was forked meanwhile, until none is left. Returns all seen."""
    seen: set[Pid] = set()
    deadline = time.monotonic() + limit_s
    while (left := processes(machine)) and time.monotonic() < deadline:
        seen |= left
        for process in left:
            procfs.send(process, signal.SIGKILL)
        time.sleep(0.03)
    return seen


def unmount(point: Path) -> None:
    """Take a mount away; what still uses it keeps it unseen until it ends."""
    target = os.fsencode(point)
    for flags in (_UMOUNT_NOFOLLOW, _UMOUNT_NOFOLLOW | _MNT_DETACH):
        if _libc.umount2(target, flags) == 0:
            return


def ip(*lines: str) -> str:
    """Commands for `ip -batch`, each tried; what it complained of."""
    done = subprocess.run(
        ["ip", "-force", "-batch", "-"], input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


def remove_cgroup(path: Path, limit_s: float = 5.0) -> None:
    """Remove a cgroup without living processes, and those below it; a killed one is in it until its parent reaps it."""
    deadline = time.monotonic() + limit_s
    while path.is_dir():
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if not path.is_dir() or time.monotonic() > deadline:
            return
        time.sleep(0.02)


def clear(machine: str) -> None:
    """What keeps a host from being started: its processes, and what its systemd-nspawn leaves when it is killed."""
    kill(machine)
    for mount in lab_mounts():
        if mount.point.is_relative_to(_NSPAWN) and mount.point.name == machine:
            unmount(mount.point)
    if SYSTEMD.is_dir():  # the scope's name may still be taken, for a moment
        subprocess.run(["systemctl", "stop", f"{machine}.scope"], capture_output=True, check=False)
    for path in cgroups():
        if path.name == machine:
            remove_cgroup(path)


def remains() -> list[str]:
    """All of a lab that is on this machine, a word or two each; empty when there is none. Needs root to see it all."""
    found = [f"{len(left)} processes" for left in [processes()] if left]
    found += [f"mount {mount.point}" for mount in lab_mounts() if mount.point.parent != NAMESPACES]
    found += [f"namespace {name}" for name in namespaces()]
    found += [f"link {name}" for name in links()]
    found += [f"route to {NETWORK}"] if guarded() else []
    found += [f"cgroup {path}" for path in cgroups()]
    return found


def sweep() -> None:
    """Take all of a lab away, in an order in which peers see connections close and no packet finds another way out."""
    kill()
    for mount in reversed(lab_mounts()):
        if mount.point.parent != NAMESPACES:
            unmount(mount.point)
    ip(*(f"link del {name}" for name in links() if name != BRIDGE), *(f"netns del {name}" for name in namespaces()))
    for path in cgroups():
        remove_cgroup(path)
    for folder in _NSPAWN.glob(f"propagate/{_PREFIX}*"):
        with contextlib.suppress(OSError):
            folder.rmdir()
    if BRIDGE in links():
        ip(f"link del {BRIDGE}")
    if guarded():
        ip(f"route del unreachable {NETWORK} metric {GUARD_METRIC}")
    shutil.rmtree(RUN / "hosts", ignore_errors=True)
