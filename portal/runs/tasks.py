"""What Celery runs: `conduct` on its own queue, so that a long run never blocks the `tick`.

The row is the truth and a message only a wake-up: a lost one costs one tick, a double one nothing.
"""

from __future__ import annotations

from functools import partial

from django.db import transaction

from portal.config.celery import app

STALE_S = 30
"""A wake-up that nobody took for this long is dropped: ticks have sent newer ones."""


@app.task(name="portal.runs.tasks.conduct")  # type: ignore[untyped-decorator]  # Celery has no types
def conduct(run_id: str) -> None:
    """Carry a run out, or take it over, if it is its turn. Acknowledged early."""
    from portal.runs import line

    if line.conduct_run(run_id):
        wake_due()


@app.task(name="portal.runs.tasks.tick")  # type: ignore[untyped-decorator]
def tick() -> None:
    """Queue what schedules ask for; wake conductors for what should be going on and is not."""
    from portal.schedules.firing import fire_due

    fire_due()
    wake_due()


def wake_due() -> None:
    """A message for each run that somebody should see to."""
    from portal.runs import line

    for run_id in line.due():
        wake(run_id)


def wake(run_id: str) -> None:
    """After the commit, tell a conductor of a run. A broker that is away is logged: the next tick makes up for it."""
    transaction.on_commit(partial(conduct.apply_async, [run_id], expires=STALE_S), robust=True)
