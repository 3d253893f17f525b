"""What an admin lets be done on this host before a run, by name.

A hook is a Unix socket in a folder that only root writes to. To connect is to ask; nothing is ever sent, so that there
is nothing to smuggle: neither words nor a path. Who listens (systemd, for a unit of root's own; the embedded stack's
supervisor) does the one thing that the socket stands for, shows what that prints, and at last a line
`wslab-hook: RESULT` (as systemd has it of a service: `success`, or what went wrong). All that the agent gains by it is
to ask.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from wsnode import health
from wsnode.agent.refused import Refused
from wsnode.core.protocol import HOOK, HOOK_PATIENCE_S, RESTART_SERVER, Hook, HookDone

log = logging.getLogger("wsnode.agent")

SUCCESS = b"success"
WORDS = 2000
"""Characters of what a hook prints that are kept: the last ones."""
REMEMBERED = 100
ANSWER_AGAIN_S = 30.0
"""How long a restarted server may take to answer."""
PAUSE_S = 0.1

_NAME = re.compile(HOOK)
_END = re.compile(rb"(?:^|\n)wslab-hook: ([a-z-]{1,40})((?: [A-Za-z0-9]{1,20})*)\n\Z")


@dataclass
class _Asked:
    """A hook that a run has asked for: done once for it, however often it asks."""

    epoch: int
    name: str
    work: asyncio.Task[HookDone]


class Hooks:
    """The hooks of this host. Used inside one event loop."""

    def __init__(self, folder: Path, health_url: str | None = None) -> None:
        """`health_url`: where the server on this host says that it is well, and which start of it this is."""
        self._folder = folder
        self._health_url = health_url
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def names(self) -> list[str]:
        """All that there are."""
        try:
            found = sorted(path.name for path in self._folder.iterdir() if path.is_socket())
        except OSError:
            return []
        return [name for name in found if _NAME.fullmatch(name)]

    def server(self) -> dict[str, str]:
        """What the server on this host says of itself; empty where there is none that an agent was told of, or that
        answers. Waits for it."""
        return (health.said(self._health_url) if self._health_url is not None else None) or {}

    async def run(self, request: Hook) -> HookDone:
        """Have it done, once for a run. Returns when it is.

        Raises:
            Refused: there is no such hook, it failed, or a newer conductor has the run.
        """
        asked = self._asked.get(request.run_id)
        if asked is not None:
            if request.epoch < asked.epoch:
                raise Refused(
                    "old_epoch",
                    f"run {request.run_id} is in the hands of epoch {asked.epoch}; epoch {request.epoch} is too old",
                )
            asked.epoch = request.epoch
            if asked.name != request.name:
                raise Refused("bad_request", f"run {request.run_id} has asked for the hook {asked.name} already")
        else:
            if request.name not in (known := self.names()):
                raise Refused(
                    "not_allowed", f"there is no hook {request.name} on this host; known: {', '.join(known) or 'none'}"
                )
            asked = _Asked(request.epoch, request.name, asyncio.create_task(self._carry_out(request.name)))
            asked.work.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._asked[request.run_id] = asked
            while len(self._asked) > REMEMBERED:
                self._asked.popitem(last=False)
        # Whoever asks may go away: what was begun is seen through.
        return await asyncio.shield(asked.work)

    async def _carry_out(self, name: str) -> HookDone:
        begun = time.monotonic()
        before = await self._start_id()
        log.info("hook %s begins", name)
        try:
            async with asyncio.timeout(HOOK_PATIENCE_S):
                said = await _said(self._folder / name)
        except TimeoutError as error:
            raise Refused("failed", f"{name} took longer than {HOOK_PATIENCE_S} s") from error
        except OSError as error:
            raise Refused("failed", f"{name} cannot be asked for: {error.strerror or error}") from error
        end = _END.search(said)
        words = said[: end.start() if end else None].decode("utf-8", "replace").strip()[-WORDS:]
        told = f": {words}" if words else ""
        if end is None:
            raise Refused("failed", f"{name} did not come to its end (cut off, or another one runs){told}")
        if end[1] != SUCCESS:
            raise Refused("failed", f"{name} failed ({(end[1] + end[2]).decode()}){told}")
        after = await self._answers_again(before) if name == RESTART_SERVER else await self._start_id()
        took_s = time.monotonic() - begun
        log.info("hook %s is done in %.1f s", name, took_s)
        return HookDone(took_s=round(took_s, 3), words=words, server_before=before, server_after=after)

    async def _answers_again(self, before: str | None) -> str | None:
        """The start id of the server that answers now, which is another one than before.

        Raises:
            Refused: none does in time.
        """
        if self._health_url is None:
            return None
        deadline = time.monotonic() + ANSWER_AGAIN_S
        while True:
            now = await self._start_id()
            if now is not None and now != before:
                return now
            if time.monotonic() > deadline:
                what = "does not answer" if now is None else f"is still the one that was there before (start id {now})"
                raise Refused(
                    "failed", f"the server at {self._health_url} {what}, {ANSWER_AGAIN_S:g} s after a restart"
                )
            await asyncio.sleep(PAUSE_S)

    async def _start_id(self) -> str | None:
        return None if self._health_url is None else await asyncio.to_thread(start_id, self._health_url)


def start_id(health_url: str) -> str | None:
    """Which start of it a server says that it is; None: it does not answer, or is not well."""
    found = health.said(health_url)
    return found.get("start_id") if found else None


async def _said(path: Path) -> bytes:
    """All that a hook says, to its end; of much the last part. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    said = b""
    try:
        while chunk := await reader.read(1 << 16):
            said = (said + chunk)[-4 * WORDS :]
    finally:
        writer.close()
    return said
