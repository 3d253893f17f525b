"""What runs, asked of the processes themselves; and where to find it."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from stack import inventory, procfs, record
from stack.client import Portal, PortalError
from stack.errors import StackError
from stack.services import Lab, services


async def _answers(found: record.Record, state: Path) -> dict[str, str | None]:
    """Ask each process now: None when it answers, else what is wrong."""
    known = inventory.read()
    lab = Lab(state, Path(found.data["socket_dir"]), known, found.data["ports"])
    asked = {service.name: service.probe(lab, 0) for service in services(known)}

    async def ask(row: dict[str, Any]) -> str | None:
        seen = procfs.stat(row["pid"])
        if seen is None or seen.start != row["start"]:
            return "gone"
        if seen.state in "Tt":
            return "suspended by a signal"
        probe = asked.get(row["name"])
        return await probe() if probe else None

    rows = [row for row in found.processes if row["state"] == "running"]
    return dict(zip([row["name"] for row in rows], await asyncio.gather(*map(ask, rows)), strict=True))


def status(state: Path) -> dict[str, Any]:
    """What `status --json` prints: {"phase", "healthy", "since", "error", "urls", "notes", "processes", "active_run"}.

    `phase` is down when no supervisor runs; `active_run` null when none is active, or "unknown" when the portal does
    not say. A process that runs but does not answer has the state `unresponsive`.
    """
    found = record.read(state)
    if found is None or not found.supervised:
        left = procfs.family(found.id, found.leaders()) if found is not None and found.same_boot else set()
        return {
            "phase": "down",
            "healthy": False,
            "since": None,
            "error": (found.error if found else None)
            or (f"{len(left)} processes are left of a stack that was not stopped: ./wslab down" if left else None),
            "urls": {},
            "notes": [],
            "processes": [],
            "active_run": None,
        }
    rows = [dict(row) for row in found.processes]
    answers = asyncio.run(_answers(found, state))
    for row in rows:
        wrong = answers.get(row["name"])
        if wrong:
            row["state"], row["reason"] = "unresponsive", wrong
    active: object = None
    if found.phase == "running":
        try:
            active = Portal.of(found, state).active_run()
        except (PortalError, StackError) as error:
            active = {"unknown": str(error)}
    return {
        "phase": found.phase,
        "healthy": found.phase == "running"
        and all(row["state"] == "running" or (row["optional"] and row["state"] == "absent") for row in rows),
        "since": found.data["since"],
        "error": found.error,
        "urls": found.urls,
        "notes": found.data["notes"],
        "processes": rows,
        "active_run": active,
    }


def show_status(now: dict[str, Any]) -> str:
    """The same for people."""
    if now["phase"] == "down":
        return "the stack is down" + (f"\n  {now['error']}" if now["error"] else "")
    lines = [
        f"the stack is {now['phase']} since {now['since']}" + ("" if now["healthy"] else "; not everything is well")
    ]
    lines.append(f"  {'NAME':16} {'STATE':13} {'PID':>7} {'PORT':>5} {'RESTARTS':>8}  SINCE")
    lines += [
        f"  {row['name']:16} {row['state']:13} {row['pid'] or '-':>7} {row['port'] or '-':>5} {row['restarts']:>8}"
        f"  {row['since']}" + (f"  {row['reason']}" if row["reason"] else "")
        for row in now["processes"]
    ]
    lines += [f"  {text}" for text in now["notes"]]
    active = now["active_run"]
    if active is None:
        lines.append("  no run is active")
    elif "unknown" in active:
        lines.append(f"  whether a run is active is unknown: {active['unknown']}")
    else:
        lines.append(f"  run {active['run_id']} is {active['state']}: {active['url']}")
    return "\n".join(lines)


def addresses(found: record.Record, admin: dict[str, Any] | None) -> str:
    """Where everything is, and the first admin's password, which is shown here and never again."""
    lines = [f"  portal      {found.urls['portal']}"]
    if admin is not None:
        lines.append(f"              login {admin['username']}, password {admin['password']}  (shown this once)")
    else:
        lines.append("              login admin; forgotten: ./wslab manage changepassword admin")
    lines += [f"  {name:11} {found.urls[name]}" for name in ("grafana", "prometheus") if found.urls[name]]
    lines.append(f"  server      {found.urls['server']}/echo")
    return "\n".join(lines)


def browse(url: str) -> bool:
    """Open the address in the user's browser; False where there is no display or nothing to open it with."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    opener = os.environ.get("BROWSER") or shutil.which("xdg-open")
    if not opener or not shutil.which(opener):
        return False
    try:
        subprocess.Popen(
            [opener, url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return False
    return True
