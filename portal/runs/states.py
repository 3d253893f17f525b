"""The states of a run and the steps between them, as a table."""

from __future__ import annotations

from django.db.models import TextChoices


class State(TextChoices):
    """Where a run stands."""

    QUEUED = "queued"
    PREFLIGHT = "preflight"
    PREPARING = "preparing"
    RUNNING = "running"
    COLLECTING = "collecting"
    JUDGING = "judging"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Nobody can say what the load did."""


ACTIVE = (State.PREFLIGHT, State.PREPARING, State.RUNNING, State.COLLECTING, State.JUDGING)
"""In the order in which a run goes through them."""
OVER = (State.FINISHED, State.FAILED, State.CANCELLED, State.LOST)
_BREAKS = frozenset({State.FAILED, State.CANCELLED, State.LOST})

STEPS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PREFLIGHT, State.CANCELLED, State.FAILED}),
    State.PREFLIGHT: _BREAKS | {State.PREPARING},
    State.PREPARING: _BREAKS | {State.RUNNING},
    State.RUNNING: _BREAKS | {State.COLLECTING},
    State.COLLECTING: _BREAKS | {State.JUDGING},
    State.JUDGING: _BREAKS | {State.FINISHED},
    **dict.fromkeys(OVER, frozenset()),
}
"""What may follow each state."""


def way(begin: State, end: State) -> tuple[State, ...]:
    """The steps from one active state forward to another; empty where `end` is not ahead.

    A taken-over run may have got further than its row: the next conductor then reports the later stage at once.
    """
    if begin not in ACTIVE or end not in ACTIVE:
        return ()
    return ACTIVE[ACTIVE.index(begin) + 1 : ACTIVE.index(end) + 1]
