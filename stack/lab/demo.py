"""`demo --virtual`: hosts brought up on this machine, provisioned by Ansible, and a `smoke` over SSH from their own
portal."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from stack import demo, paths, procfs, runs
from stack.client import Portal
from stack.errors import StackError
from stack.lab import kernel, layout, lifecycle, machine, record, status
from stack.process import open_log
from stack.terminal import Progress, duration

TOKEN = "/var/lib/wslab-portal/token"  # noqa: S105  (a path)
"""Where the role `portal` puts the administrator's API token."""
_STEP = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.+?)\]", re.M)
_TROUBLE = re.compile(r"^(?:fatal|\[ERROR\]|ERROR|failed: )", re.M)
_SHOWN_LINES = 12


def run(state: Path, *, leave: bool, file: Path | None, strict: bool) -> int:
    """Returns the run's exit code; 2 when it was interrupted before its end."""
    lifecycle.check_machine()
    complaint = lifecycle.others(state)
    if complaint is not None:
        raise complaint
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, demo.interrupt)
    progress = Progress()
    wanted = {"servers": 1, "load_generators": 2, "releases": [layout.CONTROL_RELEASE]}
    starting = lifecycle.Starting(state, wanted, progress)
    code = runs.NOT_RUN
    try:
        found = starting.wait()
        how = f"are up after {duration(starting.seconds())}" if starting.ours else "were up already and stay so"
        print(f"{len(found.hosts)} hosts {how}", flush=True)
        begun = time.monotonic()
        provision(state, progress)
        print(f"provisioned in {duration(time.monotonic() - begun)}", flush=True)
        print("\n".join(status.addresses(found.forwards)) + "\n", flush=True)
        code, broken_off = demo.one_run(portal_of(found), progress, file, strict=strict)
        if starting.ours and not leave and not broken_off:
            print("\nThe hosts stay up until Ctrl-C.", flush=True)
            while record.locked():
                time.sleep(0.5)
    except KeyboardInterrupt:
        progress.clear()
        print("", flush=True)
    finally:
        if starting.ours:
            begun = time.monotonic()
            lifecycle.stop(state, progress)
            print(f"the hosts are gone, in {duration(time.monotonic() - begun)}")
    return code


def provision(state: Path, progress: Progress) -> None:
    """`ansible-playbook -i inventory/virtual site.yml`, its output in logs/site.log.

    Raises:
        StackError: it failed; with what it said last.
    """
    log = state / "logs" / "site.log"
    log.unlink(missing_ok=True)
    output = open_log(log)
    playbook = subprocess.Popen(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/virtual", "site.yml"],
        cwd=paths.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    begun = time.monotonic()
    try:
        while playbook.poll() is None:
            steps = _STEP.findall(log.read_text(encoding="utf-8", errors="replace"))
            now = f": {len(steps)} steps, {steps[-1]}" if steps else ""
            progress.update(f"provisioning, {duration(time.monotonic() - begun)}{now}")
            time.sleep(0.3)
    finally:
        if playbook.poll() is None:
            playbook.terminate()
            playbook.wait()
        progress.clear()
    if playbook.returncode != 0:
        said = log.read_text(encoding="utf-8", errors="replace")
        trouble = _TROUBLE.search(said)
        lines = said[trouble.start() if trouble else 0 :].splitlines()[:_SHOWN_LINES]
        raise StackError("site.yml failed:\n  " + "\n  ".join(lines), f"see {log}")


def portal_of(found: record.LabRecord) -> Portal:
    """The control host's portal, with its administrator's token.

    Raises:
        StackError: the control host, or its token, is not there.
    """
    control = found.host("control")
    nspawn = procfs.Pid(control["pid"], control["start"]) if control["pid"] else None
    leader = kernel.leader(nspawn) if nspawn and procfs.alive(nspawn) else None
    if leader is None:
        raise StackError("the control host is not up", "./wslab lab status")
    read = subprocess.run(machine.enter(leader, "cat", TOKEN), capture_output=True, text=True, check=False)
    if read.returncode != 0:
        raise StackError(f"the control host has no token: {read.stderr.strip()}", "ansible-playbook site.yml")
    forward = found.forwards["portal"]
    return Portal(f"http://{forward['address']}:{forward['port']}", read.stdout.strip())
