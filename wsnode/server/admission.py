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
    """Over all workers, exactly."""
    connections_per_worker: int
    """What its descriptors allow."""
    message_bytes: int
    backlog_bytes: int
    """Unsent bytes at which a subscriber is too slow."""
    ping_interval_s: float | None
    ping_timeout_s: float | None
    compression: bool
    coalesce_s: float = 0.0
    """How long a room's messages may wait to be written together."""


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
        """Decide on a request. Plain HTTP answers are refusals too; those that are no error have `kind` None.

        Whoever is let in has a place: `opened` or `withdrawn` must follow.
        """
        asked = parse_path(target)
        if isinstance(asked, Refusal):
            return asked
        if isinstance(asked, Health):
            if method != "GET":
                return Refusal(405, "GET /healthz\n")
            return Refusal(503, "draining\n", None) if self.draining else Refusal(200, self.well, None)
        if self.draining:
            return Refusal(503, "The server is shutting down.\n", "draining")
        return self._full() or asked

    def opened(self) -> None:
        """Who was let in is answered with 101."""
        self.counters.connections_opened += 1

    def withdrawn(self) -> None:
        """Who was let in is not answered with 101 after all."""
        self._changed(-1)

    def closed(self, code: int) -> None:
        """An open connection is gone. `code`: that of the first close frame, 1006 where there was none."""
        self._changed(-1)
        self.counters.connections_closed[label if (label := str(code)) in CLOSE_CODES else "other"] += 1

    def failed(self, kind: str) -> None:
        """A connection was refused, failed or broke. `kind` is one of `SERVER_ERROR_KINDS`."""
        self.counters.errors[kind] += 1

    def _full(self) -> Refusal | None:
        """Take a place; a refusal where there is none."""
        limits, total = self.limits, self.limits.connections_total
        if self.counters.connections >= limits.connections_per_worker:
            return _no_place(limits.connections_per_worker, "this worker's")
        if total is None:
            self.counters.connections += 1
            return None
        with self._table.exclusive():
            if self._table.connections() >= total:
                return _no_place(total, "the server's")
            self._changed(1)
        return None

    def _changed(self, by: int) -> None:
        self.counters.connections += by
        if self.limits.connections_total is not None:
            self._writer.flush_connections()


def _no_place(limit: int, whose: str) -> Refusal:
    return Refusal(503, f"All of {whose} {limit} connections are taken.\n", "capacity", RETRY_AFTER_S)
