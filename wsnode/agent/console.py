"""`wsnode agent list` and `wsnode agent stop`, for people."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from datetime import UTC, datetime
from typing import Any

from wsnode.agent.connect import reach

PATIENCE_S = 60.0


class NoAnswer(Exception):
    """The agent refused, or did not answer. The message is its own where it gave one."""


class Conversation:
    """Requests one after another over a channel of its own."""

    def __init__(self, path: str) -> None:
        self._socket = reach(path)
        self._socket.settimeout(PATIENCE_S)
        self._lines = self._socket.makefile("rb")
        self._number = 0
        self.hello = self._read()

    def ask(self, kind: str, **fields: object) -> dict[str, Any]:
        """A request's answer. Raises NoAnswer."""
        self._number += 1
        self._socket.sendall(json.dumps({"type": kind, "id": self._number, **fields}).encode() + b"\n")
        while (line := self._read()).get("id") != self._number:
            pass
        if line["type"] == "refusal":
            raise NoAnswer(str(line["message"]))
        data: dict[str, Any] = line["data"]
        return data

    def close(self) -> None:
        """Leave."""
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise NoAnswer(f"the agent did not answer within {PATIENCE_S:g} s") from None
        if not line:
            raise NoAnswer("the agent closed the channel")
        value: dict[str, Any] = json.loads(line)
        return value


def show(arguments: argparse.Namespace) -> int:
    """`wsnode agent list`. 0: shown, 1: no answer, 2: no agent there."""
    return _with_agent(arguments, _show)


def stop(arguments: argparse.Namespace) -> int:
    """`wsnode agent stop RUN_ID`. 0: it has ended, 1: refused or not known, 2: no agent there."""
    return _with_agent(arguments, _stop)


def _with_agent(arguments: argparse.Namespace, what: Any) -> int:
    try:
        agent = Conversation(arguments.socket)
    except OSError as error:
        sys.stderr.write(f"wsnode agent {arguments.action}: {error}\n")
        return 2
    except NoAnswer as error:
        sys.stderr.write(f"wsnode agent {arguments.action}: {error}\n")
        return 1
    try:
        code: int = what(agent, arguments)
    except (NoAnswer, OSError) as error:
        sys.stderr.write(f"wsnode agent {arguments.action}: {error}\n")
        return 1
    finally:
        agent.close()
    return code


def _show(agent: Conversation, arguments: argparse.Namespace) -> int:
    loads = agent.ask("list")["loads"]
    if arguments.json:
        print(json.dumps({"agent": agent.hello["name"], "loads": loads}, indent=2))
        return 0
    if not loads:
        print(f"{agent.hello['name']}: no loads")
        return 0
    table = [("RUN", "STATE", "SECONDS", "EPOCH", "START (UTC)", "REASON")]
    for load in loads:
        start = load["start_at"]
        begun = "-" if start is None else f"{datetime.fromtimestamp(start / 1e9, UTC):%Y-%m-%d %H:%M:%S}"
        table.append(
            (load["run_id"], load["state"], str(load["seconds"]), str(load["epoch"]), begun, load["reason"] or "")
        )
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _stop(agent: Conversation, arguments: argparse.Namespace) -> int:
    epochs = {load["run_id"]: load["epoch"] for load in agent.ask("list")["loads"]}
    run_id = arguments.run_id
    if run_id not in epochs:
        known = ", ".join(epochs) or "none"
        raise NoAnswer(f"no run {run_id!r} at {agent.hello['name']}; known: {known}")
    ended = agent.ask(
        "stop",
        run_id=run_id,
        epoch=epochs[run_id],
        drain=arguments.drain,
        reason=f"stopped by hand on {socket.gethostname()}",
    )
    print(f"{run_id} {ended['state']} after {ended['seconds']} s" + (f": {ended['reason']}" if ended["reason"] else ""))
    return 0
