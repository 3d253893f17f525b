"""What Celery runs: `conduct` on its own queue, so that a long run never blocks the `tick`."""

from __future__ import annotations

from portal.config.celery import app


@app.task(name="portal.runs.tasks.conduct")  # type: ignore[untyped-decorator]  # Celery has no types
def conduct(run_id: str) -> None:
    """Carry a run out, or take it over, if it is its turn. A duplicate does no harm."""


@app.task(name="portal.runs.tasks.tick")  # type: ignore[untyped-decorator]
def tick() -> None:
    """Wake what should be going on."""


def wake(run_id: str) -> None:
    """After the commit, tell a conductor of a run. A lost message costs no more than a tick."""
