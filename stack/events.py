"""What the supervisor says while it works, to its log and to whoever started it.

{"event": "process", "name", "state", "reason"} · {"event": "note", "text"} · {"event": "ready"} ·
{"event": "admin", "username", "password"} · {"event": "failed", "error", "fix"} · {"event": "stopped"}
"""

import datetime
import json
import os
from typing import Any, TextIO


def now() -> str:
    """2026-11-24T03:42:07Z"""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Reporter:
    """Events to the log in words, and as JSON lines to whoever started the supervisor, while that still reads.

    The admin's password goes to the starter only, never into the log.
    """

    def __init__(self, log: TextIO, pipe: int | None) -> None:
        self.log = log
        self.pipe = pipe

    def __call__(self, event: dict[str, Any]) -> None:
        heard = self._tell(event)
        print(now(), words(event, secret=False), file=self.log, flush=True)
        if event["event"] == "admin" and not heard:
            print(
                "  nobody saw the password: ./wslab manage changepassword", event["username"], file=self.log, flush=True
            )

    def _tell(self, event: dict[str, Any]) -> bool:
        if self.pipe is None:
            return False
        try:
            os.write(self.pipe, (json.dumps(event) + "\n").encode())
        except OSError:  # the starter has gone; the stack stays
            self.pipe = None
            return False
        return True


def words(event: dict[str, Any], *, secret: bool) -> str:
    """An event as a line for people."""
    match event["event"]:
        case "process":
            return f"{event['name']}: {event['state']}" + (f" ({event['reason']})" if event["reason"] else "")
        case "note":
            return str(event["text"])
        case "admin":
            return f"admin {event['username']} made" + (f", password {event['password']}" if secret else "")
        case "failed":
            return f"failed: {event['error']}"
        case kind:
            return str(kind)
