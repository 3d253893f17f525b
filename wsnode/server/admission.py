"""Who is let in, and the count of who came and went: the same for every engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wsnode.core.metrics import CLOSE_CODES
from wsnode.server.paths import Echo, Health, Refusal, Room, parse_path
from wsnode.telemetry import Counters, SharedTable, SlotWriter

RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one worker keeps to. None is no limit, or off."""

    workers: int
    connections_total: int | None
    """Over all workers. Exact for one worker; simultaneous handshakes may overshoot by one for each further worker."""
    connections_per_worker: int
    """What its descriptors allow."""
    message_bytes: int
    backlog_bytes: int
    """Unsent bytes at which a subscriber is too slow."""
    ping_interval_s: float | None
    ping_timeout_s: float | None
    compression: bool


class Admission:
    """One worker's door."""

    def __init__(
        self,
        limits: Limits,
        counters: Counters,
        table: SharedTable,
        writer: SlotWriter,
        says: Mapping[str, object] | None = None,
    ) -> None:
        """`says`: what /healthz tells of the server, the same in all workers (`wsnode.health`)."""
        self.limits = limits
        self.well = "".join(("ok\n", *(f"{name} {value}\n" for name, value in (says or {}).items())))
        self.counters = counters
        self.draining = False
        self._table = table
        self._writer = writer

    def admit(self, method: str, target: str) -> Echo | Room | Refusal:
        """Decide on a request. Plain HTTP answers are refusals too; those that are no error have `kind` None."""
        asked = parse_path(target)
        if isinstance(asked, Refusal):
            return asked
        if isinstance(asked, Health):
            if method != "GET":
                return Refusal(405, "GET /healthz\n")
            return Refusal(503, "draining\n", None) if self.draining else Refusal(200, self.well, None)
        if self.draining:
            return Refusal(503, "The server is shutting down.\n", "draining")
        if isinstance(asked, Room) and self.limits.workers > 1:
            return Refusal(
                501,
                f"Rooms are served by one worker only, and this server runs {self.limits.workers}:"
                " start it with --workers 1.\n",
            )
        return self._full() or asked

    def opened(self) -> None:
        """A handshake was answered with 101."""
        counters = self.counters
        counters.connections += 1
        counters.connections_opened += 1
        if self.limits.connections_total is not None:
            self._writer.flush_connections()

    def closed(self, code: int) -> None:
        """An open connection is gone. `code`: that of the first close frame, 1006 where there was none."""
        counters = self.counters
        counters.connections -= 1
        counters.connections_closed[label if (label := str(code)) in CLOSE_CODES else "other"] += 1
        if self.limits.connections_total is not None:
            self._writer.flush_connections()

    def failed(self, kind: str) -> None:
        """A connection was refused, failed or broke. `kind` is one of `SERVER_ERROR_KINDS`."""
        self.counters.errors[kind] += 1

    def _full(self) -> Refusal | None:
        limits = self.limits
        if self.counters.connections >= limits.connections_per_worker:
            limit, whose = limits.connections_per_worker, "this worker's"
        elif limits.connections_total is not None and self._table.connections() >= limits.connections_total:
            limit, whose = limits.connections_total, "the server's"
        else:
            return None
        return Refusal(503, f"All of {whose} {limit} connections are taken.\n", "capacity", RETRY_AFTER_S)
