"""A Docker engine for the tests: its own network, mounts and processes, so that nothing of the machine's is touched.

Its network has a loopback and no way out: no container can reach anything, and no port of the machine is taken. When
its first process ends, the kernel ends all others. Engine and Compose come from PATH where they are new enough, else
out of Debian 13's packages, unpacked.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stack import hoard, procfs
from stack.apt import Apt, missing_tools, sources_for
from stack.errors import StackError

T = TypeVar("T")

RELEASE = "trixie"
OLDEST = 25  # of engines: start_interval
NEEDED = ("unshare", "nsenter", "ip", "iptables", "runc")
POOLS = ("base=198.18.72.0/21,size=24",)
"""Networks that Docker makes up; the range is kept for benchmarking (RFC 2544)."""

_WORK, _PREFIX = Path("/var/tmp"), "wslab-docker-"


class Programs(NamedTuple):
    """Where the engine's programs lie, and Compose's."""

    folders: tuple[Path, ...]
    compose: Path


class Absent(Exception):
    """Why there can be no engine here."""


def programs(work: Path) -> Programs:
    """The programs, unpacked into `work` where PATH lacks them.

    Raises:
        Absent: with the reason.
    """
    if os.geteuid() != 0:
        raise Absent("a Docker engine of the tests' own needs root")
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if lacking:
        raise Absent(f"no {', '.join(lacking)} on PATH: see .ci/packages")
    plugin = _plugin()
    if plugin and _major("dockerd") >= OLDEST:
        return Programs((), plugin)
    if missing_tools():
        raise Absent(f"no dockerd >= {OLDEST} with Compose on PATH, and no {missing_tools()[0]} to fetch one with")
    names = ("docker.io", "containerd", "docker-compose")
    machine = platform.machine()
    try:
        debs = hoard.obtain(
            f"engine-{RELEASE}-{hoard.key(names, machine)}", lambda folder: _fetch(folder, names), _wait
        )
    except StackError as error:
        raise Absent(f"no dockerd >= {OLDEST} with Compose on PATH, and {error}") from None
    for deb in debs.folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, work], check=True)
    return Programs((work / "usr/sbin", work / "usr/bin"), work / "usr/libexec/docker/cli-plugins/docker-compose")


def _fetch(folder: Path, names: tuple[str, ...]) -> None:
    work = folder.with_name("apt")
    apt = Apt(work, 300, sources_for(RELEASE))
    said = apt.run("update") or apt.run("download", *names)
    if said:
        raise StackError(f"Debian's packages of one could not be fetched: {said}")
    for deb in work.glob("*.deb"):
        shutil.move(deb, folder / deb.name)
    shutil.rmtree(work)


def _wait() -> None:
    """Another process fetches the same."""


def _plugin() -> Path | None:
    """Compose version 2 or newer."""
    folders = ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
    for folder in folders:
        file = Path(folder) / "docker" / "cli-plugins" / "docker-compose"
        if os.access(file, os.X_OK):
            return file
    return None


def _major(program: str) -> int:
    found = shutil.which(program)
    if found is None:
        return 0
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+)", said)
    return int(match[1]) if match else 0


def _drop_cgroups(name: str) -> None:
    """Take away the empty groups that an engine has left, in version 1's hierarchies or version 2's one."""
    for top in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup", name)]:
        for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                group.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


def make_work() -> Path:
    """A new folder for an engine. It is not deep: a socket's path is short. Those of dead test runs are taken away."""
    for left in _WORK.glob(f"{_PREFIX}*"):
        if not Path("/proc", left.name.removeprefix(_PREFIX).split("-")[0]).exists():
            shutil.rmtree(left, ignore_errors=True)
            _drop_cgroups(left.name)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_WORK))


class Engine:
    """A running one."""

    def __init__(self, work: Path, found: Programs) -> None:
        self.work = work
        self.socket = work / "docker.sock"
        self.log = work / "dockerd.log"
        self.compose_program = found.compose
        path = [*map(str, found.folders), os.environ["PATH"]]
        self.environment = {"PATH": os.pathsep.join(path), "HOME": str(work), "DOCKER_HOST": f"unix://{self.socket}"}
        options = [
            f"--host=unix://{self.socket}",
            f"--data-root={work / 'data'}",
            f"--exec-root={work / 'exec'}",
            f"--pidfile={work / 'pid'}",
            "--bip=198.18.71.1/24",
            *(f"--default-address-pool={pool}" for pool in POOLS),
            "--ip6tables=false",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            f"--cgroup-parent=/{work.name}",
        ]
        parent = os.getpid()
        with self.log.open("wb") as log:
            self._outside = subprocess.Popen(
                ["nice", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
                 "sh", "-c", 'ip link set lo up && exec dockerd "$@"', "dockerd", *options],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=lambda: procfs.die_with_parent(parent, signal.SIGKILL),  # noqa: PLW1509  (no threads yet)
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The engine's process, as the machine counts."""
        [child] = Path(f"/proc/{self._outside.pid}/task/{self._outside.pid}/children").read_text().split()
        return int(child)

    def wait_ready(self, seconds: float = 60) -> None:
        """Until it answers. Raises Absent with its last words."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask("GET", "/_ping")
                return
            if self._outside.poll() is not None or time.monotonic() > deadline:
                words = [line for line in self.log.read_text(errors="replace").splitlines() if "level=info" not in line]
                raise Absent("no Docker engine can run here: " + (words[-1] if words else "it said nothing"))
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, and everything in it."""
        with contextlib.suppress(ValueError, OSError):
            os.kill(self.pid, signal.SIGTERM)
        try:
            self._outside.wait(30)
        except subprocess.TimeoutExpired:
            self._outside.kill()  # --kill-child: the first process in there goes too, and with it all of them
            self._outside.wait()
        _drop_cgroups(self.work.name)

    def ask(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """The engine's own API (docs.docker.com/reference/api/engine). A dict is sent as JSON, a file as it is."""
        with contextlib.closing(http.client.HTTPConnection("localhost", timeout=300)) as connection:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(300)
            connection.sock.connect(str(self.socket))
            sent = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, sent, {"Content-Type": kind} if body is not None else {})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status < 400, content
        return json.loads(content) if answer.headers.get_content_type() == "application/json" else content.decode()

    def load(self, tar: Path, image: str) -> None:
        """Make an image of a root's files."""
        name, _, tag = image.rpartition(":")
        with tar.open("rb") as stream:
            said = self.ask("POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}", stream, "application/x-tar")
        assert '"error"' not in json.dumps(said), said

    def compose(
        self, folder: Path, *arguments: str, seconds: float = 600, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Compose in a folder, with nothing of this shell's settings."""
        return subprocess.run(
            ["nice", str(self.compose_program), *arguments],
            cwd=folder, env=self.environment | more, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds, check=False,
        )  # fmt: skip

    def inside(self, call: Callable[[], T]) -> T:
        """What a call returns that is made in the engine's network, where ports are published."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with open(f"/proc/{self.pid}/ns/net", "rb") as network:
                    os.setns(network.fileno(), os.CLONE_NEWNET)  # of this thread only
                results.append(call())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def containers(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each, by its service."""
        found = self.ask("GET", "/containers/json?all=1")
        inspected = (self.ask("GET", f"/containers/{one['Id']}/json") for one in found)
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in inspected}

    def output(self, container: str, *command: str) -> str:
        """What a command in a container says."""
        wanted = {"Cmd": command, "AttachStdout": True, "Tty": True}
        number = self.ask("POST", f"/containers/{container}/exec", wanted)["Id"]
        said: str = self.ask("POST", f"/exec/{number}/start", {"Tty": True})
        return said.replace("\r\n", "\n")


@contextlib.contextmanager
def engine(work: Path) -> Iterator[Engine]:
    """An engine while the block lasts.

    Raises:
        Absent: there can be none here, and why.
    """
    found = programs(work / "programs")
    running = Engine(work, found)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()
