"""The supervisor of the virtual lab: has a playbook prepare this machine, keeps the hosts running, forwards the control
host's portal, and takes all of it away when it is told to stop."""

import asyncio
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stack import paths, procfs
from stack.errors import StackError
from stack.events import now
from stack.lab import filesystem, images, kernel, keys, layout, record
from stack.lab.forward import Forward, Namespace, listen
from stack.lab.layout import RUN, Host
from stack.lab.machine import Machine, console
from stack.process import open_log, tail
from stack.record import write_json

FORWARDED = {"portal": "portal_port", "prometheus": "prometheus_port"}
WATCHERS = 8  # inotify instances per host: 5 of its systemd, one of dbus, the rest for services
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?:\S+ : )?(.*?)\] \**$")


def ports() -> dict[str, int]:
    """The forwarded services' ports on the control host, from the virtual inventory's group_vars.

    Raises:
        StackError: one is not given, or is none.
    """
    import yaml

    group_vars = paths.ROOT / "inventory" / "virtual" / "group_vars"
    files = [group_vars / "all.yml", *sorted((group_vars / "all").glob("*.yml"))]
    values: dict[str, Any] = {}
    for file in files:
        if file.is_file():
            values |= yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for variable in FORWARDED.values():
        if type(values.get(variable)) is not int:
            raise StackError(
                f"{group_vars}/all: {variable} is {values.get(variable)!r}, wanted: a port",
                f"compare it with {group_vars} of a fresh clone",
            )
    return {name: values[variable] for name, variable in FORWARDED.items()}


def discard(state: Path) -> None:
    """Delete what the hosts wrote, and the record."""
    shutil.rmtree(record.folder(state) / "hosts", ignore_errors=True)
    record.path(state).unlink(missing_ok=True)


def clean(state: Path) -> list[str]:
    """Take away all that is left of a lab, of any clone. The caller holds the machine's lock.

    Returns:
        What there was.
    """
    found = kernel.remains()
    owner = record.owner()
    kernel.sweep()
    for each in {state, *([owner.state] if owner else [])}:
        discard(each)
    if owner is not None and owner.made_namespaces:
        with contextlib.suppress(OSError):
            if not any(layout.NAMESPACES.iterdir()):
                kernel.unmount(layout.NAMESPACES)
                layout.NAMESPACES.rmdir()
    (RUN / "owner.json").unlink(missing_ok=True)
    return found


class Supervisor:
    """`run` brings the lab up, reports, and returns after it has been told to stop (SIGTERM, SIGINT)."""

    def __init__(self, state: Path, hosts: list[Host], report: Callable[[dict[str, Any]], None]) -> None:
        self.state = state
        self.hosts = hosts
        self.report = report
        self.phase = "starting"
        self.error: str | None = None
        self.since = now()
        self.notes: list[str] = []
        self.keys = record.keys(state)
        self._made_of = images.sources(hosts)
        self.machines = [
            Machine(host, self._made_of[host.release].repository, self._log(host.name), self._changed) for host in hosts
        ]
        self._wanted_ports = ports()
        self._forwards: dict[str, Forward] = {}
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def _log(self, name: str) -> Path:
        return self.state / "logs" / f"lab-{name}.log"

    # What the world sees

    def note(self, text: str) -> None:
        """A line for the user that also stays in the record."""
        self.notes.append(text)
        self.report({"event": "note", "text": text})

    def _changed(self, machine: Machine) -> None:
        self._write()
        self.report({"event": "process", "name": machine.host.name, "state": machine.state, "reason": machine.reason})

    def _step(self, text: str) -> None:
        self.report({"event": "process", "name": "preparing", "state": text, "reason": None})

    def _write(self) -> None:
        me = procfs.identify(os.getpid())
        assert me is not None
        file = record.path(self.state)
        write_json(
            file,
            {
                "schema_version": record.SCHEMA_VERSION,
                "boot_id": procfs.boot_id(),
                "supervisor": me._asdict(),
                "phase": self.phase,
                "error": self.error,
                "since": self.since,
                "notes": self.notes,
                "ssh": {
                    "key": str(self.keys.private),
                    "known_hosts": str(self.keys.known_hosts),
                    "config": str(self.keys.config),
                },
                "forwards": {
                    name: {"address": "127.0.0.1", "port": forward.listener.getsockname()[1], "to": forward.port}
                    for name, forward in self._forwards.items()
                },
                "hosts": [machine.row() for machine in self.machines],
            },
        )
        with contextlib.suppress(OSError):
            os.chown(file, *owner_of(self.state))

    # Life

    async def run(self) -> int:
        """Returns the exit code: 0 stopped when told to, 2 did not come up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGUSR1, self._wake)
        self._write()
        start = asyncio.create_task(self._start())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
        failure: StackError | None = None
        if start.done() and not self._stop.is_set():
            error = start.exception()
            if error is None:
                self.phase = "running"
                self._write()
                self.report({"event": "ready"})
                await stop
            elif isinstance(error, StackError):
                failure = error
            else:
                failure = StackError(f"the supervisor failed: {type(error).__name__}: {error}", "see lab.log")
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await start
        self.phase = "stopping"
        self._write()
        await self._take_away()
        if failure is not None:
            self.report({"event": "failed", "error": str(failure), "fix": failure.fix})
        self.report({"event": "stopped"})
        return 2 if failure else 0

    def _wake(self) -> None:
        for machine in self.machines:
            machine.wake()

    async def _start(self) -> None:
        spare, wanted = kernel.spare_watchers(), WATCHERS * len(self.hosts)
        if spare < wanted:
            raise StackError(
                f"fs.inotify.max_user_instances leaves {spare}, {len(self.hosts)} hosts need {wanted}",
                "sysctl -w fs.inotify.max_user_instances=1024",
            )
        keys.make(self.keys, self.hosts, owner_of(self.state))
        await self._prepare()
        images.prune(self._made_of)
        for machine in self.machines:
            host = machine.host
            store = record.folder(self.state) / "hosts" / host.name
            filesystem.mount(host, self.hosts, self._made_of[host.release].image, store, self.keys)
            self._tasks.append(asyncio.create_task(machine.keep_running()))
        control = next(host for host in self.hosts if host.group == "control")
        namespace = Namespace(control.namespace)
        await self._forward(namespace)
        await asyncio.gather(*(machine.settled.wait() for machine in self.machines))
        self._check_started()
        await self._check_network(namespace)

    def _check_started(self) -> None:
        for machine in self.machines:
            if machine.state != "running":
                raise StackError(
                    f"{machine.host.name} did not start: {machine.reason or machine.state}{console(machine.log)}",
                    f"see {machine.log}",
                )
            if machine.reason:
                self.note(f"{machine.host.name} takes SSH, but {machine.reason}")
            if machine.failed_units:
                self.note(f"{machine.host.name} is up, but these units failed: {', '.join(machine.failed_units)}")

    async def _prepare(self) -> None:
        """Run the playbook to its end.

        Raises:
            StackError: it failed; with what it said last.
        """
        file = record.folder(self.state) / "plan.json"
        write_json(file, images.variables(self.hosts, self._made_of))
        log = self._log("prepare")
        with os.fdopen(open_log(log), "wb") as output:
            child = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-m", "ansible", "playbook"),
                *("-i", "localhost,", "-e", f"@{file}", str(paths.ROOT / "playbooks" / "virtual_lab.yml")),
                cwd=paths.ROOT,
                env={
                    **os.environ,
                    "ANSIBLE_CONFIG": str(paths.ROOT / "ansible.cfg"),
                    "ANSIBLE_NOCOLOR": "1",
                    "ANSIBLE_FORCE_COLOR": "0",
                    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",  # on one line, for `complaint`
                    "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1",  # else a task is named when it ends, not when it begins
                    "PYTHONUNBUFFERED": "1",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
            assert child.stdout is not None
            async for line in child.stdout:
                output.write(line)
                output.flush()
                task = _TASK.match(line.decode(errors="replace").rstrip())
                if task:
                    self._step(task[1])
        if await child.wait() != 0:
            lines = "".join(f"\n    {line}" for line in complaint(tail(log, 40)))
            raise StackError(f"this machine could not be prepared{lines}", f"see {log}")

    async def _check_network(self, control: Namespace) -> None:
        """Packets between hosts cross the bridge, where a packet filter of the machine may drop them."""
        deaf = []
        for host in self.hosts:
            try:
                (await control.connect(host.address, 22)).close()
            except (OSError, TimeoutError):
                deaf.append(host.name)
        if deaf:
            raise StackError(
                f"control does not reach {', '.join(deaf)}: this machine's packet filter drops what is bridged",
                f"iptables -I FORWARD -i {layout.BRIDGE} -o {layout.BRIDGE} -j ACCEPT (Docker's policy is to drop)",
            )

    async def _forward(self, namespace: Namespace) -> None:
        for name, port in self._wanted_ports.items():
            try:
                listener = listen(port)
            except OSError as error:
                raise StackError(f"{name} cannot be forwarded: {error}", "see who listens with `ss -ltnp`") from None
            taken = listener.getsockname()[1]
            if taken != port:
                self.note(f"port {port} is taken: the lab's {name} is at 127.0.0.1:{taken}")
            self._forwards[name] = Forward(listener, namespace, port)
            await self._forwards[name].start()
        self._write()

    async def _take_away(self) -> None:
        """Hosts are not shut down but killed: nothing of them is to be kept."""
        for machine in self.machines:
            machine.end()
        for forward in self._forwards.values():
            forward.close()
        await asyncio.to_thread(kernel.kill)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(clean, self.state)


def complaint(lines: list[str]) -> list[str]:
    """Of the last lines of a failed ansible-playbook, what the failed command itself said, or the task's message."""
    for line in reversed(lines):
        found = re.match(r"(?:fatal|failed): \[localhost\].*? => (\{.*\})$", line)
        if found:
            with contextlib.suppress(ValueError):
                result = json.loads(found[1])
                return str(result.get("stderr") or result["msg"]).strip().splitlines()[-8:]
    return lines[-12:]


def owner_of(state: Path) -> tuple[int, int]:
    """Who may read what the inventory needs: the owner of the state folder, who need not be root."""
    seen = state.stat()
    return seen.st_uid, seen.st_gid


def supervise(state: Path, hosts: list[Host], report: Callable[[dict[str, Any]], None]) -> int:
    """Take this machine's lab, clean up after an earlier one, and run until told to stop.

    Returns:
        0 stopped, 2 did not come up, 75 another has this machine's lab.
    """
    handle = record.try_lock()
    if handle is None:
        return 75
    os.environ[kernel.MARK] = "supervisor"  # for its children; it is known by the lock itself
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return asyncio.run(_supervised(state, hosts, report))
    except StackError as error:
        report({"event": "failed", "error": str(error), "fix": error.fix})
        return 2
    finally:
        shutil.rmtree(RUN, ignore_errors=True)
        os.close(handle)


async def _supervised(state: Path, hosts: list[Host], report: Callable[[dict[str, Any]], None]) -> int:
    left = clean(state)
    if left:
        report({"event": "note", "text": f"cleaned up after a lab that was not taken down: {', '.join(left)}"})
    record.folder(state).mkdir(mode=0o755, exist_ok=True)
    record.write_owner(state, made_namespaces=not any(mount.point == layout.NAMESPACES for mount in kernel.mounts()))
    return await Supervisor(state, hosts, report).run()


def _main(arguments: list[str]) -> int:
    from stack.events import Reporter

    given = json.loads(arguments[0])
    hosts = layout.plan(given["servers"], given["load_generators"], given["releases"])
    return supervise(paths.make_state_dir(), hosts, Reporter(sys.stdout, given["report_fd"]))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
