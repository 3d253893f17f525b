"""What a tick does about schedules: each date that has come gets one run, or the reason why not."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from portal.runs.create import create_run, find_declared
from portal.runs.draft import GivenSubject, Refused
from portal.runs.models import DeclaredSubject, Run
from portal.runs.states import OVER
from portal.schedules.dates import MOST_COUNTED, Turn, turn
from portal.schedules.models import Firing, Schedule

log = logging.getLogger("portal.schedules")
Outcome = Firing.Outcome


def fire_due(now: datetime | None = None) -> list[Firing]:
    """Queue what is due. Harmless to call at any time and from several places at once."""
    now = now or timezone.now()
    fired = []
    for schedule in Schedule.objects.due(now).select_related("owner", "group"):
        try:
            firing = fire(schedule, now)
        except Exception:
            # One that breaks down must not keep the others from their dates; its own comes again with the next tick.
            log.exception("schedule %s broke down", schedule.pk)
            continue
        if firing is not None:
            fired.append(firing)
    return fired


def fire(schedule: Schedule, now: datetime) -> Firing | None:
    """See to one schedule whose date has come. None where somebody else was first.

    The date is taken by one conditional UPDATE in the transaction that queues the run: two ticks never queue two runs,
    and a tick that dies leaves the date to the next one.
    """
    assert schedule.next_at is not None
    due = schedule.next_at
    what = turn(schedule.when, due, now, schedule.rule)
    with transaction.atomic():
        if not schedule.take(what.next_at):
            return None
        outcome, text, run = _run(schedule, what, now)
        firing = Firing.objects.create(
            schedule=schedule, due_at=what.due_at or due, at=now, outcome=outcome, text=text, run=run
        )
    log.info("schedule %s: %s %s", schedule.pk, outcome, text)
    return firing


def _run(schedule: Schedule, what: Turn, now: datetime) -> tuple[Outcome, str, Run | None]:
    if what.due_at is None:
        return Outcome.MISSED, f"the portal was down: {_dates(what.missed)} skipped", None
    notes = []
    if what.late:
        notes.append(f"{round((now - what.due_at).total_seconds())} s late: the portal was down")
    if what.missed:
        notes.append(f"{_dates(what.missed)} skipped before it")
    before = schedule.group.runs.exclude(state__in=OVER).order_by("-created_at").first()
    if before is not None:
        return Outcome.OVERLAP, "; ".join([f"run {before.pk} was not over: it was {before.state}", *notes]), None
    owner = schedule.owner
    if not (owner.is_active and owner.is_operator):
        why = "was deactivated" if not owner.is_active else f"is a {owner.role} now"
        return Outcome.FAILED, f"{owner.username}, in whose name it runs, {why}: save it anew to take it over", None
    try:
        run = create_run(
            owner,
            schedule.scenario_name,
            accept_partial=schedule.accept_partial,
            subject=subject_of(schedule),
            reason=schedule.reason or f"schedule {schedule.title}"[:500],
            tags=schedule.tags.split(),
            origin="schedule",
            group=schedule.group,
        )
    except Refused as refused:
        return Outcome.FAILED, "; ".join([*refused.lines, *notes]), None
    return (Outcome.LATE if what.late else Outcome.QUEUED), "; ".join(notes), run


def subject_of(schedule: Schedule) -> GivenSubject | DeclaredSubject | None:
    """What it measures.

    Raises:
        Refused: a declared subject that is there no more.
    """
    if not schedule.subject_name:
        return None
    if schedule.subject_version:
        return GivenSubject(schedule.subject_name, schedule.subject_version)
    return find_declared(schedule.subject_name)


def _dates(n: int) -> str:
    if n == 1:
        return "1 date was"
    return f"{n}{' or more' if n >= MOST_COUNTED else ''} dates were"
