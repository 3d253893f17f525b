"""How the virtual lab is, asked of the hosts themselves."""

import asyncio
import os
from pathlib import Path
from typing import Any

from stack import procfs
from stack.errors import StackError
from stack.lab import kernel, record
from stack.lab.layout import Host
from stack.lab.machine import greeting


async def _greetings(rows: list[dict[str, Any]]) -> list[str | None]:
    hosts = [Host(row["name"], row["group"], row["release"], int(row["address"].rsplit(".", 1)[1])) for row in rows]
    return list(await asyncio.gather(*map(greeting, hosts)))


def status(state: Path) -> dict[str, Any]:
    """What `lab status --json` prints: {"phase", "healthy", "since", "error", "forwards", "notes", "hosts", "left"}.

    `phase` is down when no supervisor runs. A host that runs but does not take SSH has the state `unresponsive`. `left`
    names what a lab that was not taken down has left on this machine.
    """
    found = record.read(state)
    if found is None or not found.supervised:
        left = kernel.remains() if os.geteuid() == 0 and not record.locked() else []
        return {
            "phase": "down", "healthy": False, "since": None, "error": None, "forwards": {}, "notes": [], "hosts": [],
            "left": left,
        }  # fmt: skip
    rows = [dict(row) for row in found.hosts]
    asked = [row for row in rows if row["state"] == "running"]
    for row, wrong in zip(asked, asyncio.run(_greetings(asked)), strict=True):
        if not procfs.alive(procfs.Pid(row["pid"], row["start"])):
            wrong = "systemd-nspawn is gone"  # noqa: PLW2901
        if wrong:
            row["state"], row["reason"] = "unresponsive", wrong
    return {
        "phase": found.phase,
        "healthy": found.phase == "running" and all(row["state"] == "running" for row in rows),
        "since": found.data["since"],
        "error": found.error,
        "forwards": found.forwards,
        "notes": found.data["notes"],
        "hosts": rows,
        "left": [],
    }


def show(now: dict[str, Any]) -> str:
    """The same for people."""
    if now["phase"] == "down":
        left = now["left"]
        return "the virtual lab is down" + (
            f"\n  left of a lab that was not taken down: {', '.join(left)}\n  fix: ./wslab lab down" if left else ""
        )
    lines = [
        f"the virtual lab is {now['phase']} since {now['since']}" + ("" if now["healthy"] else "; not all is well")
    ]
    lines.append(
        f"  {'NAME':10} {'GROUP':15} {'ADDRESS':13} {'RELEASE':9} {'STATE':13} {'PID':>7} {'RESTARTS':>8}  SINCE"
    )
    for row in now["hosts"]:
        line = f"  {row['name']:10} {row['group']:15} {row['address']:13} {row['release']:9} {row['state']:13}"
        line += f" {row['pid'] or '-':>7} {row['restarts'] + row['reboots']:>8}  {row['since']}"
        line += f"  {row['reason']}" if row["reason"] else ""
        line += f"  failed units: {', '.join(row['failed_units'])}" if row["failed_units"] else ""
        lines.append(line)
    return "\n".join([*lines, *addresses(now["forwards"]), *(f"  {note}" for note in now["notes"])])


def addresses(forwards: dict[str, dict[str, Any]]) -> list[str]:
    """Where the control host's services are reachable, once they are installed."""
    return [
        f"  {name:11} http://{forward['address']}:{forward['port']}  (control's own 127.0.0.1:{forward['to']})"
        for name, forward in forwards.items()
    ]


def mention(state: Path) -> str | None:
    """A line for `./wslab status`, which is about the embedded stack; None when no virtual lab is up."""
    try:
        found = record.read(state)
    except StackError:
        return None
    if found is None or not found.supervised:
        return None
    return f"the virtual lab is {found.phase} ({len(found.hosts)} hosts): ./wslab lab status"
