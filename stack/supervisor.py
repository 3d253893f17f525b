"""The supervisor: one process that starts the lab in order, keeps it running, and stops it in order.

Its children die with it (SIGTERM by the kernel when it ends, even by kill -9); what outlives that is found by the next
start, by pid and start time and by the mark in the environment.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from stack import hooks, inventory, labfile, packages, paths, ports, procfs, record
from stack.errors import StackError
from stack.events import now
from stack.process import Process, bound_to, open_log, tail
from stack.services import Lab, Service, environment, services

SWEEP_GRACE_S = 5.0
STEP_TIMEOUT_S = 180.0


class StartError(StackError):
    """An essential part did not come up; with the end of its log."""


def sweep(state: Path) -> list[str]:
    """End what an earlier stack left when it died without stopping. The caller holds the state's lock.

    Returns:
        What was still running, for one line to the user.
    """
    left = record.read(state)
    if left is None:
        return []
    leaders = left.leaders()
    found = procfs.family(left.id, leaders) if left.same_boot else set()
    names = {pid: row["name"] for pid, row in zip(leaders, (r for r in left.processes if r["pid"]), strict=False)}
    procfs.end(found, SWEEP_GRACE_S)
    socket_dir = Path(left.data["socket_dir"])
    if socket_dir.name.startswith("wslab-"):
        shutil.rmtree(socket_dir, ignore_errors=True)
    (state / "stack.json").unlink(missing_ok=True)
    others = len(found - set(names))
    return sorted({names[pid] for pid in found & set(names)}) + ([f"{others} of their children"] if others else [])


class Supervisor:
    """`run` starts everything, reports, and returns after it has been told to stop (SIGTERM, SIGINT).

    `report` hears its events, see events.py.
    """

    def __init__(self, state: Path, report: Callable[[dict[str, Any]], None]) -> None:
        self.state = state
        self.report = report
        self.id = os.urandom(8).hex()
        self.phase = "starting"
        self.error: str | None = None
        self.since = now()
        self.notes: list[str] = []
        known = inventory.read()
        chosen = ports.choose(known.ports)
        self.lab = Lab(state, paths.make_socket_dir(), known, chosen)
        self.lab.hooks.mkdir(mode=0o700)
        for name, wanted in known.ports.items():
            if self.lab.ports[name] != wanted:
                self.note(f"port {wanted} is taken: {name} is on {self.lab.ports[name]}")
        self.environment = {**environment(self.lab), procfs.MARK: self.id}
        self.processes = [self._process(service) for service in services(known)]
        self._steps = {name: asyncio.Event() for name in ("packages", "bootstrap")}
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._hooks: list[asyncio.Server] = []

    def _process(self, service: Service) -> Process:
        return Process(service, self.lab, self.environment, self._changed)

    # What the world sees

    def note(self, text: str) -> None:
        """A line for the user that also stays in stack.json."""
        self.notes.append(text)
        self.report({"event": "note", "text": text})

    def _changed(self, process: Process) -> None:
        self._write()
        self.report({"event": "process", "name": process.name, "state": process.state, "reason": process.reason})

    def _serves(self, name: str) -> bool:
        return self._named(name).state == "running"

    def _named(self, name: str) -> Process:
        return next(process for process in self.processes if process.name == name)

    def _write(self) -> None:
        me = procfs.identify(os.getpid())
        assert me is not None
        record.write_json(
            self.state / "stack.json",
            {
                "schema_version": record.SCHEMA_VERSION,
                "id": self.id,
                "phase": self.phase,
                "error": self.error,
                "since": self.since,
                "boot_id": procfs.boot_id(),
                "supervisor": me._asdict(),
                "python": sys.executable,
                "socket_dir": str(self.lab.sockets),
                "broker_url": self.environment["WSLAB_BROKER_URL"],
                "urls": {
                    "portal": self.lab.url("portal"),
                    "server": self.lab.server_url,
                    "prometheus": self.lab.url("prometheus") if self._serves("prometheus") else None,
                    "grafana": self.lab.url("grafana") if self._serves("grafana") else None,
                },
                "ports": self.lab.ports,
                "notes": self.notes,
                "processes": [process.row() for process in self.processes],
            },
        )

    # Life

    async def run(self) -> int:
        """Returns the exit code: 0 stopped when told to, 2 did not come up."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._told_to_stop)
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
                failure = StackError(f"the supervisor failed: {type(error).__name__}: {error}", "see supervisor.log")
        start.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await start
        if failure is not None:
            self.phase, self.error = "failed", str(failure)
            self.report({"event": "failed", "error": str(failure), "fix": failure.fix})
        else:
            self.phase = "stopping"
        await self._stop_all()
        if failure is None:
            (self.state / "stack.json").unlink(missing_ok=True)
        self.report({"event": "stopped"})
        return 2 if failure else 0

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            self._at_once.set()  # asked twice: no more patience
        self._stop.set()

    async def _start(self) -> None:
        for folder in ("broker", "agents", "prometheus", "grafana"):
            (self.state / folder).mkdir(mode=0o700, exist_ok=True)
        self._describe_lab()  # what is known now; the portal need not wait for a download
        restarts: dict[str, hooks.Hook] = {
            process.service.hook: process.restart for process in self.processes if process.service.hook
        }
        self._hooks = await hooks.listen(self.lab.hooks, restarts)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._step("packages", self._find_packages))
                group.create_task(self._step("bootstrap", self._bootstrap))
                for process in self.processes:
                    group.create_task(self._start_one(process))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _step(self, name: str, action: Callable[[], Awaitable[None]]) -> None:
        await action()
        self._steps[name].set()

    async def _start_one(self, process: Process) -> None:
        for name in process.service.after:
            await (self._steps[name] if name in self._steps else self._named(name).ready).wait()
        if process.state == "absent":
            return
        self._tasks.append(asyncio.create_task(process.keep_running()))
        await process.ready.wait()
        if process.state != "failed":
            return
        log = self.lab.log(process.name)
        if process.service.optional:
            self.note(f"{process.name} did not start ({process.reason}); the lab runs without it, see {log}")
            self._describe_lab()
        else:
            lines = "".join(f"\n    {line}" for line in tail(log))
            raise StartError(f"{process.name} did not start: {process.reason}{lines}", f"see {log}")

    # Steps

    async def _find_packages(self) -> None:
        """Prometheus and node_exporter: from PATH or cache at once, else fetched by a process of its own."""
        names = {"prometheus": "prometheus", "node_exporter": "node-exporter"}
        found = {name: packages.lookup(name) for name in names}
        reasons: dict[str, str] = {}
        if None in found.values():
            self.report({"event": "process", "name": "packages", "state": "fetching", "reason": None})
            answer = await self._command("packages", "stack.packages")
            for name in names:
                path = answer.get(name, {}).get("path")
                found[name] = Path(path) if path else None
                reasons[name] = answer.get(name, {}).get("reason") or "could not be fetched, see packages.log"
            self.report({"event": "process", "name": "packages", "state": "done", "reason": None})
        self.lab.programs = found
        for name, service in names.items():
            if found[name] is None:
                self._named(service).skip(reasons[name])
                lost = "host series are 'no data'" if name == "prometheus" else "host CPU and memory are 'no data'"
                self.note(f"no {name}: {lost}. {reasons[name]}")
        on_path = shutil.which("grafana-server")
        self.lab.grafana = Path(on_path) if on_path else None
        grafana = self._named("grafana")
        if grafana.service.argv(self.lab) is None:
            grafana.skip("no grafana-server on PATH" if on_path is None else f"no conf/defaults.ini beside {on_path}")
        self._describe_lab()

    def _describe_lab(self) -> None:
        def here(name: str) -> bool:
            process = self._named(name)
            return process.state not in ("absent", "failed") and process.service.argv(self.lab) is not None

        labfile.write(
            self.lab, prometheus=here("prometheus"), node_exporter=here("node-exporter"), grafana=here("grafana")
        )

    async def _bootstrap(self) -> None:
        """Database, scenarios, first admin and the stack's own token, in one process of the portal."""
        self.report({"event": "process", "name": "bootstrap", "state": "starting", "reason": None})
        token = self.state / "token"
        options = ("--json", "--skip-checks", "--token-file", str(token))  # the tests run the checks
        admin = await self._command("bootstrap", "portal.manage", "bootstrap", *options)
        if admin.get("password"):
            self.report({"event": "admin", "username": admin.get("username"), "password": admin["password"]})
        self.report({"event": "process", "name": "bootstrap", "state": "done", "reason": None})

    async def _command(self, name: str, *module: str) -> dict[str, Any]:
        """Run a module to its end; the JSON object it prints last.

        Raises:
            StartError: it failed; with the end of its log.
        """
        log = self.lab.log(name)
        output = open_log(log)
        try:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *module),
                cwd=paths.ROOT,
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                preexec_fn=bound_to(os.getpid()),
            )
        finally:
            os.close(output)
        try:
            said, _ = await asyncio.wait_for(child.communicate(), STEP_TIMEOUT_S)
        except TimeoutError:
            raise StartError(f"{name} took longer than {STEP_TIMEOUT_S:.0f} s", f"see {log}") from None
        finally:
            if child.returncode is None:
                child.kill()
        lines = said.decode(errors="replace").strip().splitlines()
        if child.returncode == 0 and lines:
            with contextlib.suppress(ValueError):
                value = json.loads(lines[-1])
                if isinstance(value, dict):
                    return value
        shown = "".join(f"\n    {line}" for line in (tail(log) or lines[-8:]))
        raise StartError(f"{name} failed with exit code {child.returncode}{shown}", f"see {log}")

    async def _stop_all(self) -> None:
        if self.phase == "stopping":
            self._write()
        for listener in self._hooks:
            listener.close()
        for stage in sorted({process.service.stage for process in self.processes}):
            together = [process for process in self.processes if process.service.stage == stage]
            await asyncio.gather(*(process.stop(self._at_once) for process in together))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        procfs.end(procfs.family(self.id) - {pid for pid in [procfs.identify(os.getpid())] if pid}, 1.0)
        shutil.rmtree(self.lab.sockets, ignore_errors=True)


def supervise(state: Path, report: Callable[[dict[str, Any]], None]) -> int:
    """Take the state's lock, clean up after an earlier stack, and run until told to stop.

    Returns:
        0 stopped, 2 did not come up, 75 another supervisor has this state folder.
    """
    handle = record.try_lock(state)
    if handle is None:
        return 75
    try:
        return asyncio.run(_supervised(state, report))
    except StackError as error:
        report({"event": "failed", "error": str(error), "fix": error.fix})
        return 2
    finally:
        os.close(handle)


async def _supervised(state: Path, report: Callable[[dict[str, Any]], None]) -> int:
    swept = sweep(state)
    if swept:
        report({"event": "note", "text": f"cleaned up after a stack that was not stopped: {', '.join(swept)}"})
    with contextlib.ExitStack() as ports_held:
        waits = {"event": "note", "text": "another lab is being started on this machine; this one waits for its turn"}
        ports_held.enter_context(ports.allocation(lambda: report(waits)))
        supervisor = Supervisor(state, report)
        started = supervisor.report

        def release_ports(event: dict[str, Any]) -> None:
            if event["event"] in ("ready", "failed"):
                ports_held.close()
            started(event)

        supervisor.report = release_ports
        return await supervisor.run()
