"""Lets a health check see that a Celery worker works: files in $WSLAB_ALIVE that are touched by what it does.

`celery worker --include alive`. `heartbeat`: the worker speaks with the broker (every 2 s). `task`: a task has ended;
on the queue `tick` that is one every 5 s, and proves the clock, the queue and the database too.
"""

import os
from pathlib import Path
from typing import Any

from celery.signals import heartbeat_sent, task_postrun

FOLDER = Path(os.environ["WSLAB_ALIVE"])


@heartbeat_sent.connect
def _heartbeat(**_: Any) -> None:
    (FOLDER / "heartbeat").touch()


@task_postrun.connect
def _task(state: str | None = None, **_: Any) -> None:
    if state == "SUCCESS":
        (FOLDER / "task").touch()
