#!/usr/bin/python
"""Compares wsnode's running services with what is on disk, and waits until they answer.

What must be restarted is told from when a service was started and when its files were changed, not from what this run
of Ansible has changed: a run that was cut short leaves nothing behind that the next one overlooks.
"""

import contextlib
import datetime
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: wsnode_state
short_description: See whether wsnode's services run, with what is on disk
options:
  units:
    description:
      - By unit, the files whose change asks for a restart (files), and what has to answer (socket, and answers, each of
        address, port and path).
    type: dict
    required: true
  wait_s:
    description: How long to wait until all run, with what is on disk, and answer. 0 only looks.
    type: int
    default: 0
author:
  - wslab
"""

EXAMPLES = r"""
- name: Wait for the agent
  wsnode_state:
    units:
      wsnode-agent.service:
        files: [/etc/wsnode/agent.toml]
        socket: /run/wsnode/agent.sock
        answers: [[192.0.2.20, 9092, /metrics]]
    wait_s: 30
"""

RETURN = r"""
stale:
  description: Units that run with something older than what is on disk.
  returned: always
  type: list
  elements: str
open_files:
  description: Descriptors that one process of a unit may have, by unit, as in force.
  returned: always
  type: dict
hello:
  description: What the agent says first.
  returned: when it answers
  type: dict
"""

PATIENCE_S = 5
JOURNAL_LINES = 15


def show(unit: str) -> dict[str, str]:
    """What systemd says of a unit."""
    said = subprocess.run(
        ["systemctl", "show", "--timestamp=us+utc",
         "-p", "ActiveState,SubState,Result,MainPID,Job,ExecMainStartTimestamp", unit],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    return dict(line.partition("=")[::2] for line in said.stdout.splitlines() if "=" in line)


def started_at(shown: dict[str, str]) -> float | None:
    """When the main process was started, seconds since the epoch; None where it does not run."""
    stamp = shown.get("ExecMainStartTimestamp", "")
    if shown.get("MainPID", "0") == "0" or not stamp:
        return None
    try:
        return datetime.datetime.strptime(stamp.replace("UTC", "+0000"), "%a %Y-%m-%d %H:%M:%S.%f %z").timestamp()
    except ValueError:
        return None


def newer(files: list[str], moment: float) -> list[str]:
    """Those of the files that changed after a moment; of a link, the link itself."""
    found = []
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(path).st_mtime > moment:
                found.append(path)
    return found


def stale(shown: dict[str, str], files: list[str]) -> list[str]:
    """Files that are newer than the service that runs with them."""
    moment = started_at(shown)
    return [] if moment is None else newer(files, moment)


def open_files(pid: str) -> int | None:
    """The hard limit of a process; None where it has gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/limits", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Max open files"):
                return int(line.split()[4])
    return None


def hello(path: str) -> Any:
    """The agent's first line. Raises OSError or ValueError."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(PATIENCE_S)
        channel.connect(path)
        with channel.makefile("rb") as lines:
            return json.loads(lines.readline(1 << 20))


def reachable(host: str) -> str:
    """Where a service on this address is reached from its own host, as a URL has it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound
    return f"[{host}]" if ":" in host else host


def silent(wanted: dict[str, Any]) -> tuple[list[str], Any]:
    """What does not answer, and why; and the agent's hello."""
    said, problems = None, list[str]()
    if wanted.get("socket"):
        try:
            said = hello(wanted["socket"])
        except (OSError, ValueError) as error:
            problems.append("{} does not say hello ({})".format(wanted["socket"], error))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for host, port, path in wanted.get("answers", []):
        url = f"http://{reachable(host)}:{port}{path}"
        try:
            with opener.open(url, timeout=PATIENCE_S) as answer:
                answer.read()
        except (OSError, ValueError) as error:  # URLError is an OSError
            problems.append("{} does not answer ({})".format(url, getattr(error, "reason", None) or error))
    return problems, said


def faults(unit: str, wanted: dict[str, Any]) -> tuple[list[str], Any]:
    """What keeps a unit from being as wanted; and the agent's hello."""
    shown = show(unit)
    state = "{} ({})".format(shown.get("ActiveState"), shown.get("SubState"))
    if shown.get("Job", "0") not in ("", "0") or shown.get("ActiveState") != "active":
        return ["{} is {}, result {}".format(unit, state, shown.get("Result"))], None
    old = stale(shown, wanted["files"])
    if old:
        return ["{} was not restarted since {} changed".format(unit, ", ".join(old))], None
    return silent(wanted)


def journal(unit: str) -> str:
    """A unit's last words."""
    said = subprocess.run(
        ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", str(JOURNAL_LINES), "-u", unit],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return said.stdout.strip() or "(nothing)"


def wait(units: dict[str, Any], wait_s: int) -> tuple[str | None, Any]:
    """Until every unit is as wanted. Returns what is not, with the journal's last lines; and the agent's hello."""
    deadline = time.monotonic() + wait_s
    said = None
    for unit, wanted in units.items():
        while True:
            problems, greeting = faults(unit, wanted)
            said = greeting or said
            if not problems:
                break
            if time.monotonic() > deadline:
                why = "; ".join(problems)
                return f"{why}, after {wait_s} s. Its journal ends with:\n{journal(unit)}", said
            time.sleep(0.1)
    return None, said


def main() -> None:
    """The module."""
    module = AnsibleModule(
        argument_spec={"units": {"type": "dict", "required": True}, "wait_s": {"type": "int", "default": 0}},
        supports_check_mode=True,
    )
    units = module.params["units"]
    problem, said = wait(units, module.params["wait_s"]) if module.params["wait_s"] else (None, None)
    shown = {unit: show(unit) for unit in units}
    found = {
        "stale": [unit for unit in units if stale(shown[unit], units[unit]["files"])],
        "open_files": {unit: open_files(shown[unit].get("MainPID", "0")) for unit in units},
        "hello": said,
    }
    if problem:
        module.fail_json(msg=problem)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
