"""The provisioned virtual lab as the fault tests use it: runs of its portal, and what its hosts really do."""

from __future__ import annotations

import contextlib
import html.parser
import http.cookiejar
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from stack import procfs
from stack.client import ENDED
from stack.client import Portal as Api
from stack.lab import kernel, layout, machine, record
from stack.lab.demo import portal_of
from tests.lab import Provisioned
from wsnode.core.result import Result, read_result
from wsnode.core.scenario import Plan, Scenario

NS = 1_000_000_000
GENERATORS = ("load-1", "load-2")
HOSTS = {host.name: host for host in layout.plan()}
SERVER = f"{HOSTS['server'].address}:3000"
LAB_JSON = "/etc/wslab/lab.json"
DROP_IN = "/run/systemd/system/wsnode-agent.service.d"
LOAD: dict[str, Any] = {
    "name": "faults",
    "clients": 40,
    "interval_ms": 100,
    "ramp_up_s": 1,
    "rate_per_s": 100,
    "reply_timeout_s": 1,
    "drain_s": 1,
    "thresholds": [],
}
"""400 messages a second from 40 clients."""

_ROW = """
import json
from portal.runs.models import Run
from portal.runs.opened import opened
run = Run.objects.select_related("group").get(pk={run_id!r})
log = [[event.at.timestamp(), event.level, event.text] for event in run.events.order_by("id")]
texts = [run.scenario["description"], run.subject_name, run.subject_version, run.reason, run.group and run.group.title]
tags = [tag.name for tag in run.tags.all()]
seconds = opened(run.pk).columns.numbers
print(json.dumps({{"epoch": run.epoch, "log": log, "seconds": seconds, "texts": texts, "tags": tags}}))
"""


class Said(NamedTuple):
    """A line of a run's log."""

    at: float
    level: str
    text: str


class Kept(NamedTuple):
    """What the portal keeps of a run beside its result."""

    epoch: int
    log: list[Said]
    seconds: list[int]
    """Those that its archive has, in its order."""
    texts: list[str | None]
    """Description, subject's name and version, reason, title of the group."""
    tags: list[str]

    def first(self, part: str) -> Said:
        """The first line that has these words."""
        found = next((line for line in self.log if part in line.text), None)
        assert found is not None, "\n".join(line.text for line in self.log)
        return found


class _Form(html.parser.HTMLParser):
    """What a page's fields hold, by name, as a browser would send them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        name, value = of.get("name") or "", of.get("value") or ""
        if tag == "input" and name and (of.get("type") not in ("checkbox", "radio") or "checked" in of):
            self.fields[name] = value
        elif tag in ("select", "textarea") and name:
            self._in = name
            self.fields[name] = ""
        elif tag == "option" and "selected" in of:
            self.fields[self._in] = value

    def handle_data(self, data: str) -> None:
        if self.lasttag == "textarea" and self._in:
            self.fields[self._in] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._in = ""


class Browser:
    """Somebody who is signed in to the portal."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        ).open
        led = self.post("/accounts/login/", "/accounts/login/", username="admin", password=password)
        assert not led.startswith("/accounts/login"), "the password was refused"

    def get(self, path: str) -> str:
        """A page's text."""
        with self._open(f"{self._url}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    def post(self, page: str, path: str, **fields: str) -> str:
        """Send what a page's forms hold, some of it changed. Returns where it led to."""
        data = urllib.parse.urlencode({**_Form(self.get(page)).fields, **fields}).encode()
        request = urllib.request.Request(f"{self._url}{path}", data, {"Referer": f"{self._url}{page}"})
        with self._open(request, timeout=20) as answer:
            answer.read()
            led: str = answer.url
            return led.removeprefix(self._url)


class Site:
    """Hosts and portal."""

    def __init__(self, provisioned: Provisioned) -> None:
        self.lab = provisioned.lab
        self.smoke = provisioned.result
        self.api: Api = portal_of(self._record())

    def _record(self) -> record.LabRecord:
        found = record.read(self.lab.state)
        assert found is not None
        return found

    # --- hosts ---

    def enter(self, host: str, *command: str) -> list[str]:
        """The command line that runs a command as root on a host, whatever its network does."""
        row = self._record().host(host)
        assert row["pid"], f"{host} is {row['state']}"
        leader = kernel.leader(procfs.Pid(row["pid"], row["start"]))
        assert leader is not None
        return machine.enter(leader, *command)

    def run(self, host: str, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            self.enter(host, *command), input=stdin, capture_output=True, text=True, check=False, timeout=60
        )

    def on(self, host: str, *command: str, stdin: str = "") -> str:
        """What a command prints there; it must succeed."""
        done = self.run(host, *command, stdin=stdin)
        assert done.returncode == 0, f"{host}: {command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def workers(self, host: str) -> list[int]:
        """Pids of the load's processes on a host, as this machine sees them."""
        found = []
        for pid in kernel.processes(HOSTS[host].machine):
            with contextlib.suppress(OSError), open(f"/proc/{pid.pid}/cmdline", "rb") as file:
                if b"wsnode.load.worker" in file.read():
                    found.append(pid.pid)
        return sorted(found)

    def connections(self, host: str) -> int:
        """Established TCP connections of a host's with the server's port at either end."""
        asked = ["ss", "-Htn", "state", "established", "( sport = :3000 or dport = :3000 )"]
        namespace = f"--net={HOSTS[host].namespace}"
        return len(subprocess.check_output(["nsenter", namespace, *asked], text=True).splitlines())

    def quiet(self, *hosts: str) -> bool:
        """Whether these hosts have no load: no process of one, no connection to the server."""
        return not any(self.workers(host) or self.connections(host) for host in hosts)

    def journal(self, host: str, unit: str, part: str, since: float) -> float:
        """When (s since the epoch) a unit first said these words after a moment."""
        said = self.on(host, "journalctl", "-q", "-o", "json", "-u", unit, f"--since=@{since:.6f}")
        lines = [json.loads(line) for line in said.splitlines()]
        found = [int(line["__REALTIME_TIMESTAMP"]) / 1e6 for line in lines if part in str(line["MESSAGE"])]
        assert found, f"{host} {unit} did not say {part!r}:\n" + "\n".join(str(line["MESSAGE"]) for line in lines)
        return found[0]

    # --- what goes wrong ---

    def port(self, host: str, *, open_: bool) -> None:
        """Let the bridge take a host's frames, or drop all of them in silence."""
        state = "3" if open_ else "0"  # forwarding, disabled (include/uapi/linux/if_bridge.h)
        subprocess.run(["bridge", "link", "set", "dev", HOSTS[host].link, "state", state], check=True)

    @contextlib.contextmanager
    def cut_off(self, host: str) -> Iterator[None]:
        """No frame comes from the host or gets to it, and nothing tells so."""
        self.port(host, open_=False)
        try:
            yield
        finally:
            self.port(host, open_=True)

    def reset(self, host: str) -> None:
        """Reboot a host at once, with no goodbye, and wait until it is up again."""
        reboots = self._record().host(host)["reboots"]
        self._without_goodbye(host, "reboot")
        self.until_so(lambda: (row := self._record().host(host))["reboots"] > reboots and row["state"] == "running")

    def power_off(self, host: str) -> None:
        """Take a host's power away."""
        self._without_goodbye(host, "poweroff")
        self.until_so(lambda: self._record().host(host)["state"] == "stopped")

    def power_on(self, host: str) -> None:
        """And give it back."""
        self.lab.up()
        self.until_so(lambda: self._record().host(host)["state"] == "running")

    def _without_goodbye(self, host: str, verb: str) -> None:
        # It ends with the host that it ends.
        subprocess.run(self.enter(host, "systemctl", verb, "--force", "--force"), capture_output=True, check=False)

    def until_so(self, what: Callable[[], object], within_s: float = 60) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
            time.sleep(0.02)

    @contextlib.contextmanager
    def quota(self, host: str, percent: int) -> Iterator[None]:
        """The load's processes on a host have that part of one core and no more.

        By this machine's cgroups: those of a host have no processor's controller where the kernel has version 1.
        """
        root, limit, text = Path("/sys/fs/cgroup"), "cpu.max", f"{percent * 1000} 100000"
        if (root / "cpu" / "cgroup.procs").exists():  # version 1
            root, limit, text = root / "cpu", "cpu.cfs_quota_us", str(percent * 1000)
        group = root / "wslab-quota"
        group.mkdir()
        (group / limit).write_text(text)
        pids = self.workers(host)
        homes = {pid: _cpu_group(pid, root) for pid in pids}
        try:
            for pid in pids:
                (group / "cgroup.procs").write_text(str(pid))
            yield
        finally:
            for pid, home in homes.items():
                with contextlib.suppress(ProcessLookupError):
                    (home / "cgroup.procs").write_text(str(pid))
            group.rmdir()

    @contextlib.contextmanager
    def agent_with(
        self, host: str, *options: str, environment: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[None]:
        """The host's agent runs with further options, or with variables."""
        unit = self.on(host, "systemctl", "cat", "wsnode-agent.service")
        command = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)[-1]
        script = f"mkdir -p {DROP_IN} && cat > {DROP_IN}/test.conf && systemctl daemon-reload"
        text = f"[Service]\nExecStart=\nExecStart={command} {' '.join(options)}\n"
        text += "".join(f"Environment={name}={value}\n" for name, value in environment.items())
        self.on(host, "sh", "-c", f"{script} && systemctl restart wsnode-agent", stdin=text)
        try:
            yield
        finally:
            script = f"rm -r {DROP_IN} && systemctl daemon-reload && systemctl restart wsnode-agent"
            self.on(host, "sh", "-c", script)

    @contextlib.contextmanager
    def lab_json(self, edit: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """The control host's lab.json is another."""
        kept = self.on("control", "cat", LAB_JSON)
        lab = json.loads(kept)
        edit(lab)
        self.on("control", "tee", LAB_JSON, stdin=json.dumps(lab))
        try:
            yield
        finally:
            self.on("control", "tee", LAB_JSON, stdin=kept)

    # --- runs ---

    def browser(self) -> Browser:
        """A new session of the administrator's."""
        return Browser(self.api.url, self.on("control", "cat", "/etc/wslab/admin_password").strip())

    def queue(self, **fields: Any) -> str:
        """Queue the load, some of its fields changed. Returns the run's id."""
        return str(self.api.queue({**LOAD, **fields}, {}, None, accept_partial=False)["run_id"])

    def until(self, run_id: str, what: Callable[[dict[str, Any]], object], within_s: float) -> dict[str, Any]:
        """The run as soon as something is so of it."""
        deadline = time.monotonic() + within_s
        while not what(run := self.api.run(run_id)):
            assert time.monotonic() < deadline, run
            time.sleep(0.2)  # an API token may ask 600 times a minute
        return run

    def second(self, run_id: str, number: int, within_s: float = 120) -> dict[str, Any]:
        """The run once so many seconds of its load have been seen. It must not be over before."""

        def seen(run: dict[str, Any]) -> bool:
            assert run["state"] not in ENDED, run["state_reason"]
            return run["state"] == "running" and ((run["progress"] or {}).get("second") or 0) >= number

        return self.until(run_id, seen, within_s)

    def over(self, run_id: str, within_s: float = 120) -> dict[str, Any]:
        """The run once it is over."""
        return self.until(run_id, lambda run: run["state"] in ENDED, within_s)

    def state(self, run_id: str) -> str:
        """Its state as the control host itself has it, whatever its line does."""
        script = f"from portal.runs.models import Run; print(Run.objects.get(pk={run_id!r}).state)"
        return self.on("control", "/opt/wslab/portal/manage", "shell", "-v0", "-c", script).split()[-1]

    def result(self, run_id: str) -> Result:
        """Its result."""
        return read_result(self.api.result(run_id))

    def kept(self, run_id: str) -> Kept:
        """What else the portal keeps."""
        script = _ROW.format(run_id=run_id)
        said = json.loads(self.on("control", "/opt/wslab/portal/manage", "shell", "-v0", "-c", script).splitlines()[-1])
        return Kept(**{**said, "log": [Said(*line) for line in said["log"]]})

    # --- what must be so ---

    def assert_whole(self, run_id: str, **fields: Any) -> Result:
        """The run has finished, and every message that its timetable holds is counted once."""
        run = self.over(run_id)
        assert run["state"] == "finished", run["state_reason"]
        result = self.result(run_id)
        assert_counted(result, Scenario(**{**LOAD, **fields}))
        return result

    def assert_stopped(self, run_id: str, hosts: tuple[str, ...], why: str) -> Kept:
        """These hosts were stopped within 2 s after the trouble stood in the run's log, and have no load now."""
        kept = self.kept(run_id)
        known = kept.first(why)
        for host in hosts:
            stopped = self.journal(host, "wsnode-agent", f"run {run_id} stopped", known.at - 2)
            assert stopped - known.at < 2, (host, stopped, known)
            assert self.quiet(host), (host, self.workers(host), self.connections(host))
        confirmed = kept.first("no load of this run is left on ").text.partition(" left on ")[2].split(", ")
        assert set(hosts) <= set(confirmed), confirmed
        return kept


def _cpu_group(pid: int, root: Path) -> Path:
    """The cgroup that limits a process's CPU time."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (controllers == "") if root == Path("/sys/fs/cgroup") else ("cpu" in controllers.split(",")):
            return root / path.lstrip("/")
    raise AssertionError(f"process {pid} is in no cgroup of {root}")


def assert_counted(result: Result, scenario: Scenario) -> None:
    """Every message that the timetable holds is in the result, once."""
    counters = result.counters
    assert counters.messages_due == scenario.pacing().offered(
        Plan.whole(scenario, "ws://x/").share, scenario.duration_s * NS
    )
    assert counters.messages_due == counters.messages_sent + counters.messages_unsent
    assert counters.messages_sent == counters.messages_received + counters.messages_lost + counters.messages_in_flight
